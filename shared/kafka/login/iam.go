package login

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"

	"github.com/kferry/kferry/shared/spec"
)

// AWS_MSK_IAM: a broker of MSK is shown a URL that says "kafka-cluster:Connect" and is signed (Signature Version 4), as one would sign it to
// have somebody else call it. It goes there as JSON, or, with mechanism OAUTHBEARER, whole and in base64. What signs it comes from where
// aws-msk-iam-auth looks, in its order: the profile that is named, the role that is named, the default chain.

const (
	iamWithin   = 30 * time.Second // to find credentials, all attempts included
	iamMargin   = time.Minute      // before their end credentials are replaced
	iamRoleFor  = time.Hour        // of a role that is assumed: what STS gives unless told, and every role allows
	iamSigned   = 15 * time.Minute // a signature holds
	iamSession  = "aws-msk-iam-auth"
	iamService  = "kafka-cluster"
	iamVersion  = "2020_10_22"
	iamAgent    = "kferry"
	iamNothing  = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" // SHA-256 of an empty body
	iamAnywhere = "aws-global"                                                       // the region of STS' global endpoint
	iamHome     = "us-east-1"                                                        // where that one is, of which there is none by FIPS
)

// iam is who a client is at AWS. Nothing of it is set up before it is asked.
type iam struct {
	mu      sync.Mutex // guards the fields below
	of      spec.IAM
	files   string // what the profile files looked like when they were read
	sources []iamSource
	base    aws.Config
	log     kgo.Logger // nil is none
	told    string     // the id of the key whose owner is in the log
}

// An iamSource is one place that credentials may come from.
type iamSource struct {
	name string
	from aws.CredentialsProvider
	err  error // why there is none
}

// mechanism is AWS_MSK_IAM.
func (i *iam) mechanism(of *spec.IAM) sasl.Mechanism { return &iamMechanism{i, of, spec.AWSMSKIAM} }

// bearer is OAUTHBEARER with a token of IAM's.
func (i *iam) bearer(of *spec.IAM) sasl.Mechanism { return &iamMechanism{i, of, spec.OAUTHBEARER} }

type iamMechanism struct {
	iam  *iam
	of   *spec.IAM
	name spec.Mechanism
}

// Name is part of sasl.Mechanism.
func (m *iamMechanism) Name() string { return string(m.name) }

// Authenticate is part of sasl.Mechanism.
func (m *iamMechanism) Authenticate(ctx context.Context, address string) (sasl.Session, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, iamWithin)
	defer cancel()
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, nil, err
	}
	by, region, err := m.iam.credentials(ctx, m.of, host)
	if err != nil {
		return nil, nil, err
	}
	if m.name == spec.OAUTHBEARER {
		token, err := iamToken(ctx, by, region, time.Now())
		if err != nil {
			return nil, nil, err
		}
		return oauth.Auth{Token: token}.AsMechanism().Authenticate(ctx, address)
	}
	payload, err := iamPayload(ctx, by, host, region, time.Now())
	return iamSent{}, payload, err
}

// iamSent is a session that waits for the broker's word.
type iamSent struct{}

// Challenge is part of sasl.Session: a broker answers with JSON, or refuses by an error of its own.
func (iamSent) Challenge(answer []byte) (bool, []byte, error) {
	if len(answer) == 0 {
		return false, nil, errors.New("the broker answers AWS_MSK_IAM with nothing, so it is none of MSK's")
	}
	return true, nil, nil
}

// iamPayload is what AWS_MSK_IAM shows a broker.
func iamPayload(ctx context.Context, by aws.Credentials, host, region string, at time.Time) ([]byte, error) {
	signed, err := iamSign(ctx, by, host, region, at)
	if err != nil {
		return nil, err
	}
	fields := map[string]string{"version": iamVersion, "host": host, "user-agent": iamAgent}
	for name, values := range signed.Query() {
		fields[strings.ToLower(name)] = values[0]
	}
	return json.Marshal(fields)
}

// iamToken is what OAUTHBEARER shows one. It holds for a region, not for a host.
func iamToken(ctx context.Context, by aws.Credentials, region string, at time.Time) (string, error) {
	signed, err := iamSign(ctx, by, "kafka."+region+".amazonaws.com", region, at)
	if err != nil {
		return "", err
	}
	signed.RawQuery += "&User-Agent=" + iamAgent // after the signature, which is not of it
	return base64.RawURLEncoding.EncodeToString([]byte(signed.String())), nil
}

// iamSign is the URL.
func iamSign(ctx context.Context, by aws.Credentials, host, region string, at time.Time) (*url.URL, error) {
	query := url.Values{"Action": {iamService + ":Connect"}, "X-Amz-Expires": {strconv.Itoa(int(iamSigned.Seconds()))}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	signed, _, err := v4.NewSigner().PresignHTTP(ctx, by, request, iamNothing, iamService, region, at)
	if err != nil {
		return nil, fmt.Errorf("sign for %s: %w", host, err)
	}
	return url.Parse(signed)
}

// credentials are those of now, and the region that a host is in.
func (i *iam) credentials(ctx context.Context, of *spec.IAM, host string) (aws.Credentials, string, error) {
	sources, base, err := i.look(ctx, of)
	if err != nil {
		return aws.Credentials{}, "", err
	}
	region, err := iamRegion(ctx, base, host)
	if err != nil {
		return aws.Credentials{}, "", err
	}
	var reasons []string
	for _, s := range sources {
		if err = s.err; err == nil {
			var found aws.Credentials
			if found, err = s.from.Retrieve(ctx); err == nil {
				i.tell(ctx, of, base, found)
				return found, region, nil
			}
		}
		reasons = append(reasons, fmt.Sprintf("%s: %v", s.name, err))
	}
	return aws.Credentials{}, "", fmt.Errorf("no AWS credentials. Looked in %s", strings.Join(reasons, "; in "))
}

// look is where to look for credentials. Profile files are read again when they have changed: all else is looked at when credentials end.
func (i *iam) look(ctx context.Context, of *spec.IAM) ([]iamSource, aws.Config, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	files := stamp(iamFile("AWS_CONFIG_FILE", config.DefaultSharedConfigFilename()), iamFile("AWS_SHARED_CREDENTIALS_FILE", config.DefaultSharedCredentialsFilename()))
	if i.sources != nil && i.of == *of && i.files == files {
		return i.sources, i.base, nil
	}
	sources, base, err := iamSources(ctx, of)
	if err != nil {
		return nil, aws.Config{}, err
	}
	i.of, i.files, i.sources, i.base = *of, files, sources, base
	return sources, base, nil
}

// iamSources is the chain.
func iamSources(ctx context.Context, of *spec.IAM) ([]iamSource, aws.Config, error) {
	options := []func(*config.LoadOptions) error{
		config.WithDefaultRegion(iamAnywhere),
		config.WithCredentialsCacheOptions(func(o *aws.CredentialsCacheOptions) { o.ExpiryWindow = iamMargin }),
	}
	base, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, base, fmt.Errorf("AWS settings (AWS_* variables, %s, %s): %w", config.DefaultSharedConfigFilename(), config.DefaultSharedCredentialsFilename(), err)
	}
	var sources []iamSource
	if of.Profile != "" {
		named, err := config.LoadDefaultConfig(ctx, append(options, config.WithSharedConfigProfile(of.Profile))...)
		sources = append(sources, iamSource{"profile " + of.Profile + " (awsProfileName)", named.Credentials, err})
	}
	if of.RoleARN != "" {
		sources = append(sources, iamSource{"role " + of.RoleARN + " (awsRoleArn)", iamRole(of, base), nil})
	}
	if !of.NoDefaults {
		sources = append(sources, iamSource{iamDefaults(), base.Credentials, nil})
	}
	if sources == nil {
		err = errors.New(`awsAddDefaultProviders is "false", and neither awsProfileName nor awsRoleArn says where credentials come from`)
	}
	return sources, base, err
}

// iamRole assumes a role, by credentials that are given for that or by the default chain's.
func iamRole(of *spec.IAM, base aws.Config) aws.CredentialsProvider {
	by := base.Credentials
	if of.AccessKeyID != "" {
		by = credentials.NewStaticCredentialsProvider(of.AccessKeyID, string(of.SecretKey), string(of.SessionToken))
	}
	assume := stscreds.NewAssumeRoleProvider(iamSTS(of, base, by), of.RoleARN, func(o *stscreds.AssumeRoleOptions) {
		o.Duration = iamRoleFor
		o.RoleSessionName = of.SessionName
		if o.RoleSessionName == "" {
			o.RoleSessionName = iamSession
		}
		if of.ExternalID != "" {
			o.ExternalID = &of.ExternalID
		}
	})
	return aws.NewCredentialsCache(assume, func(o *aws.CredentialsCacheOptions) { o.ExpiryWindow = iamMargin })
}

// iamSTS is asked in the region that is set, or at its global endpoint.
func iamSTS(of *spec.IAM, base aws.Config, by aws.CredentialsProvider) *sts.Client {
	base = base.Copy()
	base.Credentials, base.Region = by, of.STSRegion
	switch {
	case base.Region != "":
	case of.FIPS:
		base.Region = iamHome
	default:
		base.Region = iamAnywhere
	}
	return sts.NewFromConfig(base, func(o *sts.Options) { o.EndpointOptions.UseFIPSEndpoint = fips(of) })
}

// OnNewClient is part of kgo.HookNewClient: it learns where a client's log is.
func (m *mechanism) OnNewClient(client *kgo.Client) {
	m.iam.mu.Lock()
	defer m.iam.mu.Unlock()
	m.iam.log, _ = client.OptValue(kgo.WithLogger).(kgo.Logger)
}

// tell has the log say who one is, once for each key, where that is wanted (awsDebugCreds).
func (i *iam) tell(ctx context.Context, of *spec.IAM, base aws.Config, by aws.Credentials) {
	i.mu.Lock()
	log, told := i.log, i.told
	i.told = by.AccessKeyID
	i.mu.Unlock()
	if !of.Debug || log == nil || log.Level() < kgo.LogLevelInfo || told == by.AccessKeyID {
		return
	}
	me, err := iamSTS(of, base, credentials.StaticCredentialsProvider{Value: by}).GetCallerIdentity(ctx, nil)
	if err != nil {
		log.Log(kgo.LogLevelInfo, "AWS does not say who one is there", "err", err)
		return
	}
	log.Log(kgo.LogLevelInfo, "who one is at AWS", "arn", aws.ToString(me.Arn), "account", aws.ToString(me.Account))
}

// fips leaves it to AWS' own settings where the login doesn't say.
func fips(of *spec.IAM) aws.FIPSEndpointState {
	if of.FIPS {
		return aws.FIPSEndpointStateEnabled
	}
	return aws.FIPSEndpointStateUnset
}

// iamDefaults says what the default chain looks at: the first that is set, and EC2's metadata where nothing is.
func iamDefaults() string {
	if os.Getenv("AWS_ACCESS_KEY_ID") != "" && os.Getenv("AWS_SECRET_ACCESS_KEY") != "" {
		return "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
	}
	if file := os.Getenv("AWS_WEB_IDENTITY_TOKEN_FILE"); file != "" {
		return "the web identity of AWS_WEB_IDENTITY_TOKEN_FILE=" + file + " for AWS_ROLE_ARN=" + os.Getenv("AWS_ROLE_ARN")
	}
	profile := os.Getenv("AWS_PROFILE")
	if profile == "" {
		profile = "default"
	}
	files := fmt.Sprintf("profile %s of %s and %s", profile, iamFile("AWS_CONFIG_FILE", config.DefaultSharedConfigFilename()),
		iamFile("AWS_SHARED_CREDENTIALS_FILE", config.DefaultSharedCredentialsFilename()))
	for _, name := range []string{"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
		if uri := os.Getenv(name); uri != "" {
			return files + " and " + name + "=" + uri
		}
	}
	return "AWS_ACCESS_KEY_ID, AWS_WEB_IDENTITY_TOKEN_FILE and AWS_CONTAINER_CREDENTIALS_* (not set), " + files +
		" (without credentials), and EC2's instance metadata"
}

func iamFile(variable, otherwise string) string {
	if file := os.Getenv(variable); file != "" {
		return file
	}
	return otherwise
}

// regions are AWS' as they appear in names of hosts.
var regions = regexp.MustCompile(`\b(?:us(?:-gov|-iso[a-z]?)?|eu(?:-isoe|sc)?|af|ap|ca|cn|il|me|mx|sa)-(?:north|south|east|west|central|northeast|northwest|southeast|southwest)-\d`)

// iamRegion is the one that a host's name has, or else the one that is set, or else where the machine is.
func iamRegion(ctx context.Context, base aws.Config, host string) (string, error) {
	if all := regions.FindAllString(strings.ToLower(host), -1); len(all) > 0 {
		return all[len(all)-1], nil // what is before AWS' own part of the name is anybody's
	}
	if base.Region != iamAnywhere {
		return base.Region, nil
	}
	here, err := imds.NewFromConfig(base).GetRegion(ctx, nil)
	if err != nil {
		return "", fmt.Errorf("the name of broker %s tells no AWS region: set AWS_REGION (EC2's instance metadata was asked too: %w)", host, err)
	}
	return here.Region, nil
}

// stamp is what files look like from outside. It differs after any of them was replaced, or a directory it is mounted from.
func stamp(paths ...string) string {
	var all strings.Builder
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil {
			fmt.Fprintf(&all, "%s %d %d\n", path, info.ModTime().UnixNano(), info.Size())
		}
	}
	return all.String()
}
