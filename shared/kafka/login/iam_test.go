package login_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"

	"github.com/kferry/kferry/shared/kafka/login"
	"github.com/kferry/kferry/shared/spec"
)

const mskBroker = "b-1.demo.abc123.c2.kafka.us-west-2.amazonaws.com:9098"

// mechanismOf is how a client with a login of its own authenticates.
func mechanismOf(t testing.TB, s spec.SASL, opts ...kgo.Opt) sasl.Mechanism {
	t.Helper()
	in, err := login.New(spec.FixedLogin(spec.Security{SASL: &s}), (&net.Dialer{}).DialContext)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(append(append(in.Options(), kgo.Dialer(in.Dial)), opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client.OptValue(kgo.SASL).([]sasl.Mechanism)[0]
}

// noAWS takes everything away that the machine may have of AWS, and has EC2's metadata not be asked.
func noAWS(t *testing.T) {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "")
		}
	}
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "config"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "credentials"))
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}

// payload is what AWS_MSK_IAM shows a broker.
func payload(t *testing.T, m sasl.Mechanism, address string) map[string]string {
	t.Helper()
	_, first, err := m.Authenticate(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]string
	if err := json.Unmarshal(first, &fields); err != nil {
		t.Fatalf("%v in %s", err, first)
	}
	return fields
}

// signer is the id of the key that signed.
func signer(t *testing.T, m sasl.Mechanism) string {
	t.Helper()
	id, _, _ := strings.Cut(payload(t, m, mskBroker)["x-amz-credential"], "/")
	return id
}

// What botocore signs (testdata/iam.py), both mechanisms sign the same.
func TestIAMSigns(t *testing.T) {
	var vectors []struct {
		Name, Key, Secret, Token, Host, Region, URL, Bearer string
		At                                                  time.Time
	}
	text, err := os.ReadFile("testdata/iam.json")
	if err == nil {
		err = json.Unmarshal(text, &vectors)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			noAWS(t)
			t.Setenv("AWS_ACCESS_KEY_ID", v.Key)
			t.Setenv("AWS_SECRET_ACCESS_KEY", v.Secret)
			t.Setenv("AWS_SESSION_TOKEN", v.Token)
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Until(v.At))
				want := map[string]string{"host": v.Host, "version": "2020_10_22", "user-agent": "kferry"}
				for name, value := range query(t, v.URL) {
					want[strings.ToLower(name)] = value
				}
				got := payload(t, mechanismOf(t, spec.SASL{Mechanism: spec.AWSMSKIAM, IAM: &spec.IAM{}}), v.Host+":9098")
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("payload\n%v\nwant\n%v", got, want)
				}

				address := token(t, v.Host)
				if got, want := query(t, address), query(t, v.Bearer+"&User-Agent=kferry"); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("token\n%v\nwant\n%v", got, want)
				}
				if got, want, _ := strings.Cut(address, "?"); got != "https://kafka."+v.Region+".amazonaws.com/" {
					t.Errorf("token is for %s?%s", got, want)
				}
			})
		})
	}
}

// token is the URL that OAUTHBEARER shows a broker.
func token(t *testing.T, host string) string {
	t.Helper()
	_, first, err := mechanismOf(t, spec.SASL{Mechanism: spec.OAUTHBEARER, IAM: &spec.IAM{}}).Authenticate(t.Context(), host+":9098")
	if err != nil {
		t.Fatal(err)
	}
	encoded, found := strings.CutPrefix(strings.TrimRight(string(first), "\x01"), "n,,\x01auth=Bearer ")
	if !found {
		t.Fatalf("no token in %q", first)
	}
	address, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	return string(address)
}

func query(t *testing.T, address string) map[string]string {
	t.Helper()
	parsed, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	for name, all := range parsed.Query() {
		values[name] = all[0]
	}
	return values
}

// A region is that of the broker, whichever kferry runs in; AWS_REGION is for names that tell none.
func TestIAMRegion(t *testing.T) {
	for host, want := range map[string]string{
		"b-1.demo.abc123.c2.kafka.us-east-1.amazonaws.com":             "us-east-1",
		"b-1-public.demo.abc123.c2.kafka.ap-southeast-2.amazonaws.com": "ap-southeast-2",
		"boot-x.c3.kafka-serverless.us-gov-west-1.amazonaws.com":       "us-gov-west-1",
		"copy-of-us-east-1.abc.c1.kafka.eu-west-3.amazonaws.com":       "eu-west-3",
		"vpce-0abc-us-east-2a.vpce-svc-1.us-east-2.vpce.amazonaws.com": "us-east-2",
		"kafka.eu-isoe-west-1.cloud.adc-e.uk":                          "eu-isoe-west-1",
		"KAFKA.IL-CENTRAL-1.example.com":                               "il-central-1",
		"broker-1.example.com":                                         "sa-east-1",
		"focus-east-1.example.com":                                     "sa-east-1",
	} {
		noAWS(t)
		t.Setenv("AWS_ACCESS_KEY_ID", "id")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
		t.Setenv("AWS_REGION", "sa-east-1")
		got := payload(t, mechanismOf(t, spec.SASL{Mechanism: spec.AWSMSKIAM, IAM: &spec.IAM{}}), host+":9098")
		if parts := strings.Split(got["x-amz-credential"], "/"); parts[2] != want {
			t.Errorf("%s is in %s, want %s", host, parts[2], want)
		}
		if got := token(t, host); !strings.HasPrefix(got, "https://kafka."+want+".amazonaws.com/") {
			t.Errorf("a token for %s is %s, want one for %s", host, got, want)
		}
	}
	t.Setenv("AWS_REGION", "")
	_, _, err := mechanismOf(t, spec.SASL{Mechanism: spec.AWSMSKIAM, IAM: &spec.IAM{}}).Authenticate(t.Context(), "broker-1.example.com:9098")
	if err == nil || !strings.Contains(err.Error(), "broker-1.example.com tells no AWS region: set AWS_REGION") {
		t.Errorf("a name without a region: %v", err)
	}
}

// aws is what of AWS a test needs: STS, the endpoint of a container and EC2's metadata. It hands out keys ASIA1, ASIA2 and so on.
type aws struct {
	*httptest.Server
	expires []time.Duration // of each key in turn, an hour where there are no more
	seen    []string        // what was asked for
	given   int
}

func newAWS(t *testing.T) *aws {
	a := &aws{}
	a.Server = httptest.NewServer(a)
	t.Cleanup(a.Close)
	return a
}

func (a *aws) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	expires := func() string {
		until := time.Hour
		if a.given < len(a.expires) {
			until = a.expires[a.given]
		}
		a.given++
		return time.Now().Add(until).UTC().Format(time.RFC3339)
	}
	switch r.URL.Path {
	case "/": // STS
		_ = r.ParseForm()
		f := r.PostForm
		signer := strings.Split(strings.TrimPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=")+"//", "/") // key, day, region
		a.seen = append(a.seen, strings.Join([]string{f.Get("Action"), f.Get("RoleArn"), f.Get("RoleSessionName"), f.Get("ExternalId"), f.Get("WebIdentityToken"), signer[0], signer[2]}, "|"))
		if f.Get("RoleArn") == "refused" {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, `<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not authorized to perform sts:AssumeRole</Message></Error></ErrorResponse>`)
			return
		}
		if f.Get("Action") == "GetCallerIdentity" {
			fmt.Fprint(w, `<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::1:user/me</Arn><Account>1</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`)
			return
		}
		fmt.Fprintf(w, `<%[1]sResponse><%[1]sResult><Credentials><Expiration>%[2]s</Expiration><AccessKeyId>ASIA%[3]d</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken></Credentials></%[1]sResult></%[1]sResponse>`,
			f.Get("Action"), expires(), a.given)
	case "/container":
		a.seen = append(a.seen, "container "+r.Header.Get("Authorization"))
		fmt.Fprintf(w, `{"Expiration": %q, "AccessKeyId": "ASIA%d", "SecretAccessKey": "s", "Token": "t"}`, expires(), a.given)
	case "/latest/api/token":
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
		fmt.Fprint(w, "imds-token")
	case "/latest/meta-data/iam/security-credentials/":
		fmt.Fprint(w, "the-role")
	case "/latest/meta-data/iam/security-credentials/the-role":
		a.seen = append(a.seen, "metadata "+r.Header.Get("X-Aws-Ec2-Metadata-Token"))
		fmt.Fprintf(w, `{"Code": "Success", "Expiration": %q, "AccessKeyId": "ASIA%d", "SecretAccessKey": "s", "Token": "t"}`, expires(), a.given)
	case "/latest/dynamic/instance-identity/document":
		fmt.Fprint(w, `{"region": "eu-south-1"}`)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// Credentials come from where aws-msk-iam-auth finds them.
func TestIAMCredentials(t *testing.T) {
	file := func(t *testing.T, name, content string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	own := func(t *testing.T) {
		t.Setenv("AWS_ACCESS_KEY_ID", "AKIAOWN")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	}
	profiles := func(t *testing.T) {
		t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file(t, "credentials", `[default]
aws_access_key_id = AKIADEFAULT
aws_secret_access_key = secret
[msk]
aws_access_key_id = AKIAMSK
aws_secret_access_key = secret
`))
	}
	for _, test := range []struct {
		name string
		iam  spec.IAM
		set  func(*testing.T, *aws)
		want string // key
		seen []string
	}{
		{"environment", spec.IAM{}, func(t *testing.T, _ *aws) { own(t); profiles(t) }, "AKIAOWN", nil},
		{"default profile", spec.IAM{}, func(t *testing.T, _ *aws) { profiles(t) }, "AKIADEFAULT", nil},
		{"profile of AWS_PROFILE", spec.IAM{}, func(t *testing.T, _ *aws) { profiles(t); t.Setenv("AWS_PROFILE", "msk") }, "AKIAMSK", nil},
		{"named profile", spec.IAM{Profile: "msk"}, func(t *testing.T, _ *aws) { own(t); profiles(t) }, "AKIAMSK", nil},
		{"named profile that there isn't", spec.IAM{Profile: "other"}, func(t *testing.T, _ *aws) { own(t); profiles(t) }, "AKIAOWN", nil},
		{"web identity", spec.IAM{}, func(t *testing.T, _ *aws) {
			t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", file(t, "token", "eyJ"))
			t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/pod")
			t.Setenv("AWS_ROLE_SESSION_NAME", "pod-1")
		}, "ASIA1", []string{"AssumeRoleWithWebIdentity|arn:aws:iam::1:role/pod|pod-1||eyJ||"}},
		{"container", spec.IAM{}, func(t *testing.T, a *aws) {
			t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", a.URL+"/container")
			t.Setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file(t, "token", "pod-identity"))
		}, "ASIA1", []string{"container pod-identity"}},
		{"EC2", spec.IAM{}, func(t *testing.T, _ *aws) { t.Setenv("AWS_EC2_METADATA_DISABLED", "") }, "ASIA1", []string{"metadata imds-token"}},
		{"role", spec.IAM{RoleARN: "arn:aws:iam::1:role/msk"}, func(t *testing.T, _ *aws) { own(t) },
			"ASIA1", []string{"AssumeRole|arn:aws:iam::1:role/msk|aws-msk-iam-auth|||AKIAOWN|aws-global"}},
		{"role with all that goes with it", spec.IAM{RoleARN: "arn:aws:iam::1:role/msk", SessionName: "mirror", ExternalID: "42", STSRegion: "eu-west-1", AccessKeyID: "AKIAROLE", SecretKey: "secret", NoDefaults: true},
			func(t *testing.T, _ *aws) { own(t) }, "ASIA1", []string{"AssumeRole|arn:aws:iam::1:role/msk|mirror|42||AKIAROLE|eu-west-1"}},
		{"role that is refused", spec.IAM{RoleARN: "refused"}, func(t *testing.T, _ *aws) { own(t) },
			"AKIAOWN", []string{"AssumeRole|refused|aws-msk-iam-auth|||AKIAOWN|aws-global"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			noAWS(t)
			a := newAWS(t)
			t.Setenv("AWS_ENDPOINT_URL_STS", a.URL)
			t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", a.URL)
			test.set(t, a)
			m := mechanismOf(t, spec.SASL{Mechanism: spec.AWSMSKIAM, IAM: &test.iam})
			if got := signer(t, m); got != test.want {
				t.Errorf("signed by %s, want %s", got, test.want)
			}
			if !slices.Equal(a.seen, test.seen) {
				t.Errorf("asked for %q, want %q", a.seen, test.seen)
			}
		})
	}
}

// The region of the machine does where nothing else says one.
func TestIAMRegionOfTheMachine(t *testing.T) {
	noAWS(t)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "")
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", newAWS(t).URL)
	got := payload(t, mechanismOf(t, spec.SASL{Mechanism: spec.AWSMSKIAM, IAM: &spec.IAM{}}), "kafka.example.com:9098")
	if !strings.Contains(got["x-amz-credential"], "/eu-south-1/") {
		t.Errorf("signed for %s", got["x-amz-credential"])
	}
}

// A connection after credentials have ended has new ones; until then those that are there do.
func TestIAMCredentialsAreReplaced(t *testing.T) {
	noAWS(t)
	a := newAWS(t)
	a.expires = []time.Duration{time.Hour, 30 * time.Second} // the second are about to end
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", a.URL+"/container")
	m := mechanismOf(t, spec.SASL{Mechanism: spec.AWSMSKIAM, IAM: &spec.IAM{}})
	if first, again := signer(t, m), signer(t, m); first != "ASIA1" || again != "ASIA1" {
		t.Errorf("signed by %s and %s, want ASIA1 for an hour", first, again)
	}
	m = mechanismOf(t, spec.SASL{Mechanism: spec.AWSMSKIAM, IAM: &spec.IAM{}})
	if before, after := signer(t, m), signer(t, m); before != "ASIA2" || after != "ASIA3" {
		t.Errorf("signed by %s and %s, want ASIA3 in place of ASIA2", before, after)
	}
}

// A profile file that is replaced is read again, as a mounted secret is.
func TestIAMProfileIsReplaced(t *testing.T) {
	noAWS(t)
	write := func(key string) {
		content := "[default]\naws_access_key_id = " + key + "\naws_secret_access_key = secret\n"
		if err := os.WriteFile(os.Getenv("AWS_SHARED_CREDENTIALS_FILE"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("AKIABEFORE")
	m := mechanismOf(t, spec.SASL{Mechanism: spec.AWSMSKIAM, IAM: &spec.IAM{}})
	before := signer(t, m)
	write("AKIANOW")
	if now := signer(t, m); before != "AKIABEFORE" || now != "AKIANOW" {
		t.Errorf("signed by %s, then by %s", before, now)
	}
}

// Where there are no credentials, the message says where they were looked for, and gives none away.
func TestIAMWithoutCredentials(t *testing.T) {
	const secret = "planted"
	for _, test := range []struct {
		name string
		iam  spec.IAM
		set  func(*testing.T)
		want []string
	}{
		{"nothing set", spec.IAM{}, func(*testing.T) {}, []string{"no AWS credentials", "AWS_ACCESS_KEY_ID, AWS_WEB_IDENTITY_TOKEN_FILE", "profile default of ", "EC2's instance metadata", "AWS_EC2_METADATA_DISABLED"}},
		{"refused role", spec.IAM{RoleARN: "refused", NoDefaults: true, AccessKeyID: "AKIA", SecretKey: secret, SessionToken: secret}, func(*testing.T) {}, []string{"role refused (awsRoleArn)", "AccessDenied"}},
		{"no profile", spec.IAM{Profile: "other", NoDefaults: true}, func(*testing.T) {}, []string{"profile other (awsProfileName)"}},
		{"nowhere", spec.IAM{NoDefaults: true}, func(*testing.T) {}, []string{"awsAddDefaultProviders"}},
		{"no web token", spec.IAM{}, func(t *testing.T) {
			t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere")
			t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/pod")
		}, []string{"AWS_WEB_IDENTITY_TOKEN_FILE=/nowhere for AWS_ROLE_ARN=arn:aws:iam::1:role/pod", "no such file"}},
		{"broken profile", spec.IAM{}, func(t *testing.T) {
			if err := os.WriteFile(os.Getenv("AWS_SHARED_CREDENTIALS_FILE"), []byte("[default\naws_secret_access_key = "+secret+"\n]"+secret+"=\n=\x00"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, []string{"profile default of "}},
	} {
		t.Run(test.name, func(t *testing.T) {
			noAWS(t)
			t.Setenv("AWS_ENDPOINT_URL_STS", newAWS(t).URL)
			test.set(t)
			_, _, err := mechanismOf(t, spec.SASL{Mechanism: spec.AWSMSKIAM, IAM: &test.iam}).Authenticate(t.Context(), mskBroker)
			if err == nil {
				t.Fatal("credentials were found")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nlacks %s", err, want)
				}
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%v gives a secret away", err)
			}
		})
	}
}

// A broker that answers with nothing is not believed.
func TestIAMAnswer(t *testing.T) {
	noAWS(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	session, _, err := mechanismOf(t, spec.SASL{Mechanism: spec.AWSMSKIAM, IAM: &spec.IAM{}}).Authenticate(t.Context(), mskBroker)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := session.Challenge(nil); err == nil {
		t.Error("nothing was taken for an answer")
	}
	if done, more, err := session.Challenge([]byte(`{"version":"2020_10_22","request-id":"x"}`)); !done || more != nil || err != nil {
		t.Errorf("an answer: done %v, more %q, %v", done, more, err)
	}
}

// awsDebugCreds has the log say who one is: once, where it says so much at all.
func TestIAMIdentity(t *testing.T) {
	noAWS(t)
	t.Setenv("AWS_ENDPOINT_URL_STS", newAWS(t).URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIAOWN")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "planted")
	for level, want := range map[kgo.LogLevel]int{kgo.LogLevelInfo: 1, kgo.LogLevelWarn: 0} {
		var log strings.Builder
		m := mechanismOf(t, spec.SASL{Mechanism: spec.AWSMSKIAM, IAM: &spec.IAM{Debug: true}}, kgo.WithLogger(kgo.BasicLogger(&log, level, nil)))
		signer(t, m)
		signer(t, m)
		if got := strings.Count(log.String(), "arn: arn:aws:iam::1:user/me, account: 1"); got != want || strings.Contains(log.String(), "planted") {
			t.Errorf("at level %v the log says so %d times, want %d:\n%s", level, got, want, &log)
		}
	}
}
