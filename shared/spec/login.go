package spec

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"sync"
	"time"
)

// A Login is how a cluster is spoken to, and as whom. Certificates, passwords and tokens are replaced while kferry runs, so whoever is
// about to connect asks anew. It is for any number of goroutines; nil is plain text without a login.
type Login struct {
	config settings // what it was made of
	key    string   // of its cluster
	watch  *watch   // nil for one that never changes by itself
	ask    func() (Security, error)

	mu      sync.Mutex // guards current and problem
	current Security
	problem string
}

// FixedLogin is one that never changes.
func FixedLogin(s Security) *Login { return &Login{current: s} }

// LoginFunc is what ask says each time, from any goroutine.
func LoginFunc(ask func() (Security, error)) *Login { return &Login{ask: ask} }

// Security is what holds now. What stands in files is looked at again, not more often than lookPause; as long as that is unreadable or
// wrong, what held before goes on to, and Problem says why. The same content gives the same Security.
func (l *Login) Security() (Security, error) {
	if l == nil {
		return Security{}, nil
	}
	if l.ask != nil {
		return l.ask()
	}
	if l.watch != nil {
		l.watch.look()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.current, nil
}

// Problem is why what stands in files now is not taken up, "" where nothing is wrong with it. It holds no secret.
func (l *Login) Problem() string {
	if l == nil {
		return ""
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.problem
}

const (
	lookPause = time.Second
	// lookLimit is how long those who connect wait for files: a pipe that nobody writes to, or a mount whose server is away, has no end.
	lookLimit = 2 * time.Second
)

// A watch reads the input again, for the sake of its logins alone.
type watch struct {
	input  *source
	logins []*Login
	at     map[string][]string // addresses, by key of the cluster

	mu     sync.Mutex // guards what follows
	looked time.Time
	over   chan struct{} // closed when the reading that began then is over: one at a time reads
}

// watched has the logins of a Spec be looked at again.
func (s Spec) watched(input *source) {
	w := &watch{input: input, at: map[string][]string{}, looked: time.Now(), over: make(chan struct{})}
	close(w.over)
	for _, c := range s.Clusters {
		if c.Login != nil {
			c.Login.watch, c.Login.key = w, c.Key()
			w.logins, w.at[c.Key()] = append(w.logins, c.Login), c.BootstrapServers
		}
	}
}

func (w *watch) look() {
	w.mu.Lock()
	select {
	case <-w.over:
		if time.Since(w.looked) >= lookPause {
			w.looked, w.over = time.Now(), make(chan struct{})
			go w.read(w.over)
		}
	default:
	}
	over, until := w.over, w.looked.Add(lookLimit)
	w.mu.Unlock()
	select {
	case <-over:
	case <-time.After(time.Until(until)):
		for _, l := range w.logins {
			l.late(over)
		}
	}
}

func (w *watch) read(over chan struct{}) {
	defer close(over)
	s, err := w.input.load()
	for _, l := range w.logins {
		l.take(s, err, w.at[l.key])
	}
}

// late notes a reading that takes too long, unless it has come to its end meanwhile.
func (l *Login) late(over <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-over:
	default:
		l.problem = fmt.Sprintf("a file of the input has not been read within %v: is it a pipe, or on a mount that does not answer?", lookLimit)
	}
}

// take takes up the secrets of the same cluster, and nothing else that has changed.
func (l *Login) take(s Spec, err error, servers []string) {
	i := slices.IndexFunc(s.Clusters, func(c Cluster) bool { return c.Key() == l.key })
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil:
		l.problem = err.Error()
	case i < 0:
		l.problem = fmt.Sprintf("%s is not in the input any more; what is in force stays until a restart", l.key)
	case !sameServers(s.Clusters[i].BootstrapServers, servers):
		l.problem = fmt.Sprintf("%s has other addresses in the input now; they, and its login there, count from a restart on", l.key)
	case s.Clusters[i].Login == nil || !s.Clusters[i].Login.current.like(l.current):
		l.problem = fmt.Sprintf("%s has another security.protocol or sasl.mechanism in the input now; it counts from a restart on", l.key)
	default:
		l.current, l.problem = s.Clusters[i].Login.current, ""
	}
}

// like says whether two differ in secrets alone.
func (s Security) like(other Security) bool {
	return (s.TLS == nil) == (other.TLS == nil) && (s.SASL == nil) == (other.SASL == nil) && (s.SASL == nil || s.SASL.Mechanism == other.SASL.Mechanism)
}

// A Security is all that a connection needs, out of Kafka's client properties (security.protocol, ssl.*, sasl.*).
type Security struct {
	TLS  *TLS  // nil is plain text
	SASL *SASL // nil is no login
}

// TLS is what ssl.* says.
type TLS struct {
	Roots       []*x509.Certificate // whom to trust; nil is whom the system trusts
	Certificate *tls.Certificate    // the client's own, nil for none
	// AnyName has the name of the host not matter (ssl.endpoint.identification.algorithm is empty). The chain does all the same.
	AnyName bool
	// MinVersion and MaxVersion are of ssl.enabled.protocols, 0 for Go's own; CipherSuites of ssl.cipher.suites, nil likewise.
	MinVersion, MaxVersion uint16
	CipherSuites           []uint16
}

// A Secret is a text that shows in no log, no error and no dump: only string(s) gives it away.
type Secret string

const hidden = "[hidden]"

// String says only that there is a secret.
func (Secret) String() string { return hidden }

// GoString says only that there is a secret.
func (Secret) GoString() string { return hidden }

// MarshalText says only that there is a secret.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// A Mechanism is the name of a SASL mechanism, as brokers list it.
type Mechanism string

// The mechanisms.
const (
	PLAIN       Mechanism = "PLAIN"
	SCRAMSHA256 Mechanism = "SCRAM-SHA-256"
	SCRAMSHA512 Mechanism = "SCRAM-SHA-512"
	OAUTHBEARER Mechanism = "OAUTHBEARER"
	AWSMSKIAM   Mechanism = "AWS_MSK_IAM"
	GSSAPI      Mechanism = "GSSAPI"
)

// SASL is what sasl.* says.
type SASL struct {
	Mechanism Mechanism
	// Username and Password are for PLAIN and SCRAM.
	Username string
	Password Secret
	// DelegationToken says that they are a token's id and HMAC (KIP-48, tokenauth="true").
	DelegationToken bool
	OAuth           *OAuth    // for OAUTHBEARER
	IAM             *IAM      // for AWS_MSK_IAM, and for OAUTHBEARER with IAM's callback handler
	Kerberos        *Kerberos // for GSSAPI
}

// OAuth is where a token for OAUTHBEARER comes from: the first of Token, TokenFile, Unsecured and the endpoint that is given.
type OAuth struct {
	Token     Secret // one that is given (oauth.access.token); it is used until somebody replaces it
	TokenFile string // read before each login (oauth.access.token.location, or a file:// endpoint)
	// Unsecured are the claims of an unsigned token, for development (unsecuredLoginStringClaim_sub and so on), each a string, a float64 or
	// a []string; nil for none. Times are not among them: MaxLifetime is how long it lasts.
	Unsecured map[string]any

	Endpoint     string // URL of the token endpoint
	ClientID     string
	ClientSecret Secret
	// Assertion, AssertionFile or Signed, with AssertionType, authenticate the client in place of a secret (RFC 7523). Where Grant is
	// GrantJWTBearer one of them is the grant itself, and there is no type.
	Assertion     Secret
	AssertionFile string // read before each login
	Signed        *SignedAssertion
	AssertionType string
	// RefreshToken or RefreshTokenFile, which is read before each login, is for GrantRefreshToken.
	RefreshToken     Secret
	RefreshTokenFile string
	Username         string // for GrantPassword, with Password
	Password         Secret
	Grant            string // grant_type; it is given where there is an endpoint
	Scope            string
	Audience         string
	Extensions       map[string]string // SASL extensions (KIP-342)

	TLS            *TLS          // for the endpoint; nil is the system's roots
	Encode         bool          // client id and secret are URL-encoded in the header (KIP-1118)
	ConnectTimeout time.Duration // 0 is what whoever asks for a token thinks right, as is ReadTimeout's
	ReadTimeout    time.Duration
	// A request that fails is made again up to Retries times with RetryPause in between (Strimzi's oauth.http.*), or where RetryFor is given
	// for as long as that, and the pause doubles each time (Kafka's sasl.login.retry.backoff.*).
	Retries    int
	RetryPause time.Duration
	RetryFor   time.Duration
	// AcceptHeader is whether the request has an Accept header (Strimzi's includeAcceptHeader).
	AcceptHeader bool
	MaxLifetime  time.Duration // after which a token is replaced, whatever it says; 0 is none
}

// Grants with a name of their own. Another than GrantClientCredentials may stand for that one (oauth.client.credentials.grant.type).
const (
	GrantClientCredentials = "client_credentials"
	GrantPassword          = "password"
	GrantRefreshToken      = "refresh_token"
	GrantJWTBearer         = "urn:ietf:params:oauth:grant-type:jwt-bearer"
)

// A SignedAssertion is one that the client makes and signs itself (sasl.oauthbearer.assertion.*, KIP-1139).
type SignedAssertion struct {
	Algorithm  string // RS256 or ES256
	KeyFile    string // PKCS #8 in PEM, read before each login
	Passphrase Secret // of the key, "" for none
	Template   string // file with a JSON object of "header" and "payload", which win over the next three claims, not over the rest; "" for none

	Issuer, Subject, Audience string        // claims iss, sub and aud, "" for none
	Lifetime                  time.Duration // from now to exp
	NotBefore                 time.Duration // from nbf to now
	ID                        bool          // whether there is a jti
}

// IAM is where credentials for Amazon's MSK come from: the default chain of AWS' SDKs, as these options of its login module narrow it.
type IAM struct {
	Profile     string // awsProfileName
	RoleARN     string // awsRoleArn
	SessionName string // awsRoleSessionName
	ExternalID  string // awsRoleExternalId
	STSRegion   string // awsStsRegion
	FIPS        bool   // awsShouldUseFips: the endpoint of STS that is validated by FIPS
	Debug       bool   // awsDebugCreds: who one is shows in the log, at debug level
	// NoDefaults leaves only the profile and the role (awsAddDefaultProviders=false).
	NoDefaults bool
	// AccessKeyID and SecretKey, with SessionToken if there is one, are who takes on the role (awsRoleAccessKeyId and so on); "" for the chain's.
	AccessKeyID             string
	SecretKey, SessionToken Secret
}

// Kerberos is what Krb5LoginModule and sasl.kerberos.* say.
type Kerberos struct {
	Service   string // first part of the brokers' principals: sasl.kerberos.service.name, or serviceName
	Principal string // user@REALM, or user/host@REALM
	// Of TicketCache, Keytab and Password the first that there is and that has a ticket, as in Java's login module.
	TicketCache string // file
	Keytab      string // file
	Password    Secret
	Config      string // krb5.conf, /etc/krb5.conf or KRB5_CONFIG unless given
}
