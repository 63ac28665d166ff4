package spec_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kferry/kferry/shared/spec"
)

const (
	plainModule = "org.apache.kafka.common.security.plain.PlainLoginModule"
	scramModule = "org.apache.kafka.common.security.scram.ScramLoginModule"
	oauthModule = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"
	iamModule   = "software.amazon.msk.auth.iam.IAMLoginModule"
	krbModule   = "com.sun.security.auth.module.Krb5LoginModule"

	kafkaHandler   = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginCallbackHandler"
	securedHandler = "org.apache.kafka.common.security.oauthbearer.secured.OAuthBearerLoginCallbackHandler"
	strimziHandler = "io.strimzi.kafka.oauth.client.JaasClientOauthLoginCallbackHandler"
	iamOAuth       = "software.amazon.msk.auth.iam.IAMOAuthBearerLoginCallbackHandler"
	iamClient      = "software.amazon.msk.auth.iam.IAMClientCallbackHandler"
)

// properties reads lines KEY=VALUE.
func properties(t *testing.T, lines ...string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, line := range lines {
		for line := range strings.Lines(line) {
			if line = strings.TrimSpace(line); line == "" {
				continue
			}
			key, text, found := strings.Cut(line, "=")
			if !found {
				t.Fatalf("%q is not KEY=VALUE", line)
			}
			all[key] = text
		}
	}
	return all
}

// parsed are the properties' security, which has to be without mistakes and with as many warnings as are named.
func parsed(t *testing.T, given map[string]string, warnings ...string) spec.Security {
	t.Helper()
	s, got, err := spec.ParseSecurity(given)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(warnings) {
		t.Errorf("warnings %q, want %q", got, warnings)
	}
	for _, want := range warnings {
		if !strings.Contains(strings.Join(got, "\n"), want) {
			t.Errorf("warnings %q, want %q", got, want)
		}
	}
	return s
}

// mistaken checks that each of the mistakes is reported, and no other.
func mistaken(t *testing.T, given map[string]string, mistakes ...string) {
	t.Helper()
	_, _, err := spec.ParseSecurity(given)
	if err == nil {
		t.Fatalf("no mistake, want %q", mistakes)
	}
	for _, want := range mistakes {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if got := strings.Count(err.Error(), "\n"); got != len(mistakes) {
		t.Errorf("%d mistakes, want %d: %v", got, len(mistakes), err)
	}
}

// Logins as the vendors' own documents have them.
func TestLoginsOfVendors(t *testing.T) {
	tokens := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokens, []byte("x.y.z"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		given    string
		want     spec.SASL
		plain    bool // without TLS
		warnings []string
	}{
		"Confluent Cloud": {given: `
			security.protocol=SASL_SSL
			sasl.mechanism=PLAIN
			sasl.jaas.config=` + plainModule + ` required username='KEY' password='se/cr+et';
			ssl.endpoint.identification.algorithm=https`,
			want: spec.SASL{Mechanism: spec.PLAIN, Username: "KEY", Password: "se/cr+et"}},
		"Confluent Cloud, OAuth": {given: `
			security.protocol=SASL_SSL
			sasl.mechanism=OAUTHBEARER
			sasl.login.callback.handler.class=` + securedHandler + `
			sasl.oauthbearer.token.endpoint.url=https://login.example.com/oauth2/v2.0/token
			sasl.login.connect.timeout.ms=15000
			sasl.jaas.config=` + oauthModule + ` required clientId='me' clientSecret='s3' scope='api://x/.default' extension_logicalCluster='lkc-1' extension_identityPoolId='pool-2';`,
			want: spec.SASL{Mechanism: spec.OAUTHBEARER, OAuth: &spec.OAuth{
				Endpoint: "https://login.example.com/oauth2/v2.0/token", ClientID: "me", ClientSecret: "s3", Scope: "api://x/.default",
				Grant: spec.GrantClientCredentials, Extensions: map[string]string{"logicalCluster": "lkc-1", "identityPoolId": "pool-2"},
				AcceptHeader: true, ConnectTimeout: 15 * time.Second, RetryPause: 100 * time.Millisecond, RetryFor: 10 * time.Second,
			}}},
		"Kafka 4.1's names": {given: `
			security.protocol=sasl_ssl
			sasl.mechanism=OAUTHBEARER
			sasl.login.callback.handler.class=` + kafkaHandler + `
			sasl.oauthbearer.jwt.retriever.class=org.apache.kafka.common.security.oauthbearer.ClientCredentialsJwtRetriever
			sasl.oauthbearer.client.credentials.client.id=me
			sasl.oauthbearer.client.credentials.client.secret=s3
			sasl.oauthbearer.scope=kafka
			sasl.oauthbearer.token.endpoint.url=https://login.example.com/token
			sasl.oauthbearer.header.urlencode=true
			sasl.login.read.timeout.ms=2000
			sasl.login.retry.backoff.ms=50
			sasl.login.retry.backoff.max.ms=500
			sasl.jaas.config=` + oauthModule + ` required;`,
			want: spec.SASL{Mechanism: spec.OAUTHBEARER, OAuth: &spec.OAuth{
				Endpoint: "https://login.example.com/token", ClientID: "me", ClientSecret: "s3", Scope: "kafka", Grant: spec.GrantClientCredentials,
				AcceptHeader: true, Encode: true, ReadTimeout: 2 * time.Second, RetryPause: 50 * time.Millisecond, RetryFor: 500 * time.Millisecond,
			}}},
		"a token in a file": {given: `
			security.protocol=SASL_SSL
			sasl.mechanism=OAUTHBEARER
			sasl.login.callback.handler.class=` + kafkaHandler + `
			sasl.oauthbearer.token.endpoint.url=file://` + tokens + `
			sasl.jaas.config=` + oauthModule + ` required;`,
			want: spec.SASL{Mechanism: spec.OAUTHBEARER, OAuth: &spec.OAuth{
				TokenFile: tokens, AcceptHeader: true, RetryPause: 100 * time.Millisecond, RetryFor: 10 * time.Second,
			}}},
		"an assertion in a file": {given: `
			security.protocol=SASL_SSL
			sasl.mechanism=OAUTHBEARER
			sasl.oauthbearer.token.endpoint.url=https://login.example.com/token
			sasl.oauthbearer.client.credentials.client.id=me
			sasl.oauthbearer.assertion.file=` + tokens,
			want: spec.SASL{Mechanism: spec.OAUTHBEARER, OAuth: &spec.OAuth{
				Endpoint: "https://login.example.com/token", ClientID: "me", AssertionFile: tokens, Grant: spec.GrantClientCredentials,
				AssertionType: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer", AcceptHeader: true, RetryPause: 100 * time.Millisecond, RetryFor: 10 * time.Second,
			}}},
		"an assertion as the grant, signed here": {given: `
			security.protocol=SASL_SSL
			sasl.mechanism=OAUTHBEARER
			sasl.login.callback.handler.class=` + kafkaHandler + `
			sasl.oauthbearer.jwt.retriever.class=org.apache.kafka.common.security.oauthbearer.JwtBearerJwtRetriever
			sasl.oauthbearer.token.endpoint.url=https://login.example.com/token
			sasl.oauthbearer.assertion.algorithm=es256
			sasl.oauthbearer.assertion.private.key.file=` + tokens + `
			sasl.oauthbearer.assertion.private.key.passphrase=p
			sasl.oauthbearer.assertion.claim.iss=i
			sasl.oauthbearer.assertion.claim.sub=s
			sasl.oauthbearer.assertion.claim.aud=a
			sasl.oauthbearer.assertion.claim.jti.include=true
			sasl.jaas.config=` + oauthModule + ` required;`,
			want: spec.SASL{Mechanism: spec.OAUTHBEARER, OAuth: &spec.OAuth{
				Endpoint: "https://login.example.com/token", Grant: spec.GrantJWTBearer, AcceptHeader: true, RetryPause: 100 * time.Millisecond, RetryFor: 10 * time.Second,
				Signed: &spec.SignedAssertion{Algorithm: "ES256", KeyFile: tokens, Passphrase: "p", Issuer: "i", Subject: "s", Audience: "a",
					Lifetime: 5 * time.Minute, NotBefore: time.Minute, ID: true},
			}}},
		"Azure Event Hubs": {given: `
			security.protocol=SASL_SSL
			sasl.mechanism=PLAIN
			sasl.jaas.config=` + plainModule + ` required username="$ConnectionString" password="Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=Root;SharedAccessKey=abc+/=";`,
			want: spec.SASL{Mechanism: spec.PLAIN, Username: "$ConnectionString", Password: "Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=Root;SharedAccessKey=abc+/="}},
		"IBM Event Streams": {given: `
			security.protocol=SASL_SSL
			sasl.mechanism=PLAIN
			sasl.jaas.config=` + plainModule + ` required username="token" password="apikey-1";
			ssl.protocol=TLSv1.3
			ssl.enabled.protocols=TLSv1.2,TLSv1.3`,
			want: spec.SASL{Mechanism: spec.PLAIN, Username: "token", Password: "apikey-1"}},
		"MSK, SCRAM": {given: `
			security.protocol=SASL_SSL
			sasl.mechanism=SCRAM-SHA-512
			sasl.jaas.config=` + scramModule + ` required username="alice" password="alice-secret";`,
			want: spec.SASL{Mechanism: spec.SCRAMSHA512, Username: "alice", Password: "alice-secret"}},
		"MSK, IAM": {given: `
			security.protocol=SASL_SSL
			sasl.mechanism=AWS_MSK_IAM
			sasl.jaas.config=` + iamModule + ` required awsRoleArn="arn:aws:iam::1:role/r" awsRoleSessionName="mirror" awsStsRegion="eu-central-1" awsDebugCreds="true";
			sasl.client.callback.handler.class=` + iamClient,
			want: spec.SASL{Mechanism: spec.AWSMSKIAM, IAM: &spec.IAM{RoleARN: "arn:aws:iam::1:role/r", SessionName: "mirror", STSRegion: "eu-central-1", Debug: true}}},
		"MSK, IAM by a token": {given: `
			security.protocol=SASL_SSL
			sasl.mechanism=OAUTHBEARER
			sasl.jaas.config=` + oauthModule + ` required awsProfileName="dev";
			sasl.login.callback.handler.class=` + iamOAuth,
			want: spec.SASL{Mechanism: spec.OAUTHBEARER, IAM: &spec.IAM{Profile: "dev"}}},
		"Aiven": {given: `
			security.protocol=SASL_SSL
			sasl.mechanism=SCRAM-SHA-256
			sasl.jaas.config=` + scramModule + ` required username="avnadmin" password="AVNS_x";`,
			want: spec.SASL{Mechanism: spec.SCRAMSHA256, Username: "avnadmin", Password: "AVNS_x"}},
		"Redpanda": {given: `
			security.protocol=SASL_PLAINTEXT
			sasl.mechanism=SCRAM-SHA-256
			sasl.username=u
			sasl.password=p`, plain: true,
			want: spec.SASL{Mechanism: spec.SCRAMSHA256, Username: "u", Password: "p"}},
		"a delegation token": {given: `
			security.protocol=SASL_PLAINTEXT
			sasl.mechanism=SCRAM-SHA-256
			sasl.jaas.config=` + scramModule + ` required username="id" password="hmac==" tokenauth="true";`, plain: true,
			want: spec.SASL{Mechanism: spec.SCRAMSHA256, Username: "id", Password: "hmac==", DelegationToken: true}},
		"Strimzi, a client's secret": {given: `
			security.protocol=SASL_PLAINTEXT
			sasl.mechanism=OAUTHBEARER
			sasl.login.callback.handler.class=` + strimziHandler + `
			sasl.jaas.config=` + oauthModule + ` required oauth.client.id="me" oauth.client.secret="s3" oauth.token.endpoint.uri="http://keycloak/token" oauth.scope="any" oauth.audience="kafka" oauth.access.token.is.jwt="false" oauth.connect.timeout.seconds="7" oauth.http.retries="3" oauth.http.retry.pause.millis="300" oauth.include.accept.header="no" oauth.sasl.extension.tenant="t 1" oauth.max.token.expiry.seconds="600";`,
			plain: true, warnings: []string{"oauth.access.token.is.jwt"},
			want: spec.SASL{Mechanism: spec.OAUTHBEARER, OAuth: &spec.OAuth{
				Endpoint: "http://keycloak/token", ClientID: "me", ClientSecret: "s3", Scope: "any", Audience: "kafka", Grant: spec.GrantClientCredentials,
				ConnectTimeout: 7 * time.Second, ReadTimeout: time.Minute, Retries: 3, RetryPause: 300 * time.Millisecond,
				Extensions: map[string]string{"tenant": "t 1"}, MaxLifetime: 10 * time.Minute,
			}}},
		"Strimzi, a token": {given: `
			security.protocol=SASL_PLAINTEXT
			sasl.mechanism=OAUTHBEARER
			sasl.jaas.config=` + oauthModule + ` required oauth.access.token="a.b.c" oauth.client.id="me";`, plain: true,
			warnings: []string{"option oauth.client.id: has no effect in kferry: oauth.access.token wins"},
			want:     spec.SASL{Mechanism: spec.OAUTHBEARER, OAuth: &spec.OAuth{Token: "a.b.c"}}},
		"Strimzi, a user": {given: `
			security.protocol=SASL_PLAINTEXT
			sasl.mechanism=OAUTHBEARER
			sasl.login.callback.handler.class=` + strimziHandler + `
			sasl.jaas.config=` + oauthModule + ` required oauth.client.id="me" oauth.password.grant.username="u" oauth.password.grant.password="p" oauth.token.endpoint.uri="https://keycloak/token";`,
			plain: true,
			want: spec.SASL{Mechanism: spec.OAUTHBEARER, OAuth: &spec.OAuth{
				Endpoint: "https://keycloak/token", ClientID: "me", Username: "u", Password: "p", Grant: spec.GrantPassword,
				ConnectTimeout: time.Minute, ReadTimeout: time.Minute, AcceptHeader: true,
			}}},
		"Strimzi, a refresh token": {given: `
			security.protocol=SASL_PLAINTEXT
			sasl.mechanism=OAUTHBEARER
			sasl.login.callback.handler.class=` + strimziHandler + `
			sasl.jaas.config=` + oauthModule + ` required oauth.client.id="me" oauth.refresh.token.location="` + tokens + `" oauth.refresh.token="old" oauth.token.endpoint.uri="https://keycloak/token";`,
			plain: true, warnings: []string{"oauth.refresh.token.location wins"},
			want: spec.SASL{Mechanism: spec.OAUTHBEARER, OAuth: &spec.OAuth{
				Endpoint: "https://keycloak/token", ClientID: "me", RefreshTokenFile: tokens, Grant: spec.GrantRefreshToken,
				ConnectTimeout: time.Minute, ReadTimeout: time.Minute, AcceptHeader: true,
			}}},
		"an unsigned token": {given: `
			security.protocol=SASL_PLAINTEXT
			sasl.mechanism=OAUTHBEARER
			sasl.jaas.config=` + oauthModule + ` required unsecuredLoginStringClaim_sub="thePrincipal" unsecuredLoginListClaim_scope=",a,b" unsecuredLoginNumberClaim_n="1.5" unsecuredLoginLifetimeSeconds="60";`,
			plain: true,
			want: spec.SASL{Mechanism: spec.OAUTHBEARER, OAuth: &spec.OAuth{
				Unsecured: map[string]any{"sub": "thePrincipal", "scope": []string{"a", "b"}, "n": 1.5}, MaxLifetime: time.Minute,
			}}},
		"Kerberos, a keytab": {given: `
			security.protocol=SASL_PLAINTEXT
			sasl.kerberos.service.name=kafka
			sasl.jaas.config=` + krbModule + ` required useKeyTab=true storeKey=true keyTab="` + tokens + `" principal="kferry/h@EXAMPLE.COM";`,
			plain: true, warnings: []string{"storeKey"},
			want: spec.SASL{Mechanism: spec.GSSAPI, Kerberos: &spec.Kerberos{Service: "kafka", Principal: "kferry/h@EXAMPLE.COM", Keytab: tokens}}},
		"Kerberos, a cache": {given: `
			security.protocol=SASL_PLAINTEXT
			sasl.mechanism=GSSAPI
			sasl.jaas.config=` + krbModule + ` required useTicketCache=true ticketCache="/tmp/cache" serviceName="kafka";`, plain: true,
			want: spec.SASL{Mechanism: spec.GSSAPI, Kerberos: &spec.Kerberos{Service: "kafka", TicketCache: "/tmp/cache"}}},
		"Kerberos in librdkafka's words": {given: `
			security.protocol=SASL_PLAINTEXT
			sasl.mechanism=GSSAPI
			sasl.kerberos.service.name=kafka
			sasl.kerberos.principal=kferry@EXAMPLE.COM
			sasl.kerberos.keytab=` + tokens, plain: true,
			want: spec.SASL{Mechanism: spec.GSSAPI, Kerberos: &spec.Kerberos{Service: "kafka", Principal: "kferry@EXAMPLE.COM", Keytab: tokens}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := parsed(t, properties(t, test.given), test.warnings...)
			if (s.TLS == nil) != test.plain {
				t.Errorf("TLS %+v", s.TLS)
			}
			if s.SASL == nil || !reflect.DeepEqual(*s.SASL, test.want) {
				t.Errorf("%+v\nwant %+v", dump(s.SASL), dump(&test.want))
			}
		})
	}
}

// dump shows what a login has, secrets too.
func dump(s *spec.SASL) string {
	if s == nil {
		return "none"
	}
	text := fmt.Sprintf("%+v password %q", *s, string(s.Password))
	if s.OAuth != nil {
		text += fmt.Sprintf(" oauth %+v secret %q", *s.OAuth, string(s.OAuth.ClientSecret))
	}
	if s.IAM != nil {
		text += fmt.Sprintf(" iam %+v", *s.IAM)
	}
	if s.Kerberos != nil {
		text += fmt.Sprintf(" kerberos %+v", *s.Kerberos)
	}
	return text
}

// issued is a certificate of its own with its key, in PEM, that is valid until then.
func issued(t *testing.T, name string, until time.Time) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: until.Add(-24 * time.Hour), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

// Stores stand in files or in the settings, with lines or without.
func TestStores(t *testing.T) {
	root, _ := issued(t, "the root", time.Now().Add(time.Hour))
	chain, key := issued(t, "the client", time.Now().Add(time.Hour))
	dir := t.TempDir()
	for name, text := range map[string]string{"root.pem": root, "client.pem": key + chain} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	escaped := func(text string) string { return strings.ReplaceAll(text, "\n", `\n`) }
	blank := func(text string) string { return strings.ReplaceAll(text, "\n", " ") }
	for name, given := range map[string]map[string]string{
		"files": {"ssl.truststore.location": filepath.Join(dir, "root.pem"), "ssl.truststore.type": "PEM", "ssl.keystore.location": filepath.Join(dir, "client.pem")},
		"lines": {"ssl.truststore.certificates": root, "ssl.truststore.type": "PEM", "ssl.keystore.key": key, "ssl.keystore.certificate.chain": chain, "ssl.keystore.type": "pem"},
		`\n`:    {"ssl.truststore.certificates": escaped(root), "ssl.keystore.key": escaped(key), "ssl.keystore.certificate.chain": escaped(chain)},
		"one":   {"ssl.truststore.certificates": blank(root), "ssl.keystore.key": blank(key), "ssl.keystore.certificate.chain": blank(chain)},
	} {
		t.Run(name, func(t *testing.T) {
			given["security.protocol"] = "SSL"
			s := parsed(t, given)
			if s.SASL != nil || s.TLS == nil || len(s.TLS.Roots) != 1 || s.TLS.Roots[0].Subject.CommonName != "the root" {
				t.Fatalf("%+v", s)
			}
			if s.TLS.Certificate == nil || s.TLS.Certificate.Leaf.Subject.CommonName != "the client" || s.TLS.Certificate.PrivateKey == nil {
				t.Errorf("certificate %+v", s.TLS.Certificate)
			}
		})
	}
}

// What a password is for shows where it is wrong or missing, and what a store holds that is not used.
func TestPasswordsOfStores(t *testing.T) {
	const stores = "security.protocol=SSL\nssl.truststore.location=../keystore/testdata/"
	const keys = "security.protocol=SSL\nssl.keystore.location=../keystore/testdata/"
	mistaken(t, properties(t, stores+"trust.jks\nssl.truststore.password=wrong"), "ssl.truststore.password: does not open what ssl.truststore.location has: JKS: wrong password")
	mistaken(t, properties(t, stores+"keytool17-trust.p12"), "ssl.truststore.location: needs a password; give ssl.truststore.password")
	mistaken(t, properties(t, keys+"key.jks\nssl.keystore.password=changeit\nssl.key.password=wrong"), "ssl.key.password: does not open what ssl.keystore.location has: key")
	mistaken(t, properties(t, keys+"pbes2.pem"), "ssl.keystore.location: needs a password; give ssl.key.password")
	mistaken(t, properties(t, keys+"trust.jks\nssl.keystore.password=changeit"), "ssl.keystore.location: this JKS holds no private key")
	if s := parsed(t, properties(t, stores+"trust.jks\nssl.truststore.password=changeit\nssl.truststore.type=PKCS12")); len(s.TLS.Roots) == 0 {
		t.Error("nobody is trusted")
	}
	if s := parsed(t, properties(t, keys+"key.jks\nssl.keystore.password=changeit\nssl.key.password=keypass\nssl.keystore.type=JKS")); s.TLS.Certificate == nil {
		t.Error("there is no certificate")
	}
	parsed(t, properties(t, keys+"several.p12\nssl.keystore.password=changeit"), "ssl.keystore.location: holds 5 keys")
}

// An option that a login module doesn't have may be a part of a password that lacks quotes.
func TestOptionsThatNobodyKnows(t *testing.T) {
	s := parsed(t, properties(t, "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.jaas.config="+plainModule+` required username="u" password=first second=third;`),
		"sasl.jaas.config: 1 option without effect")
	if string(s.SASL.Password) != "first" {
		t.Errorf("%q", string(s.SASL.Password))
	}
	if _, warnings, _ := spec.ParseSecurity(map[string]string{"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN",
		"sasl.jaas.config": plainModule + ` required username="u" password=first second=third;`}); strings.Contains(fmt.Sprint(warnings), "second") {
		t.Errorf("%q", warnings)
	}
}

// What has expired shows with its date.
func TestExpiredCertificates(t *testing.T) {
	long := time.Date(2020, 2, 3, 4, 5, 6, 0, time.UTC)
	root, _ := issued(t, "the root", long)
	chain, key := issued(t, "the client", long)
	parsed(t, map[string]string{"security.protocol": "SSL", "ssl.truststore.certificates": root, "ssl.keystore.key": key, "ssl.keystore.certificate.chain": chain},
		"ssl.truststore.certificates: trusts a certificate that expired on 2020-02-03T04:05:06Z: CN=the root",
		"ssl.keystore.key: gives brokers a certificate that expired on 2020-02-03T04:05:06Z: CN=the client")
}

func TestVersionsAndCipherSuites(t *testing.T) {
	const gcm, gcmID = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
	for _, test := range []struct {
		given       string
		least, most uint16
		suites      []uint16
		warnings    []string
	}{
		{"", 0, 0, nil, nil},
		{"ssl.enabled.protocols=TLSv1.2", tls.VersionTLS12, tls.VersionTLS12, nil, nil},
		{"ssl.enabled.protocols=TLSv1.3, TLSv1.2", tls.VersionTLS12, tls.VersionTLS13, nil, nil},
		{"ssl.enabled.protocols=TLSv1.1,TLSv1.3", tls.VersionTLS13, tls.VersionTLS13, nil, []string{"TLSv1.1 is not spoken any more"}},
		{"ssl.protocol=TLSv1.2", 0, tls.VersionTLS12, nil, nil},
		{"ssl.protocol=TLS", 0, 0, nil, nil},
		{"ssl.protocol=SSL\nssl.key.password=secret", 0, 0, nil, []string{"ssl.key.password: has no effect in kferry: there is no keystore"}},
		{"ssl.protocol=TLSv1.2\nssl.enabled.protocols=TLSv1.2,TLSv1.3", tls.VersionTLS12, tls.VersionTLS12, nil, nil},
		{"ssl.cipher.suites=" + gcm, 0, tls.VersionTLS12, []uint16{gcmID}, nil},
		{"ssl.cipher.suites=", 0, 0, nil, nil},
		{"ssl.cipher.suites=TLS_AES_128_GCM_SHA256," + gcm, 0, 0, []uint16{gcmID}, []string{"with all three"}},
		{"ssl.cipher.suites=TLS_AES_256_GCM_SHA384", tls.VersionTLS13, 0, nil, []string{"with all three"}},
		{"ssl.cipher.suites=TLS_DHE_RSA_WITH_AES_256_GCM_SHA384," + gcm, 0, tls.VersionTLS12, []uint16{gcmID}, []string{"has no TLS_DHE_RSA_WITH_AES_256_GCM_SHA384"}},
	} {
		got := *parsed(t, properties(t, "security.protocol=SSL\n"+test.given), test.warnings...).TLS
		if want := (spec.TLS{MinVersion: test.least, MaxVersion: test.most, CipherSuites: test.suites}); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, want %+v", test.given, got, want)
		}
	}
	if !parsed(t, properties(t, "security.protocol=SSL\nssl.endpoint.identification.algorithm=")).TLS.AnyName {
		t.Error("the name of the host matters")
	}
}

// A token endpoint is spoken to as the login module says, whatever the brokers' TLS is.
func TestTLSOfTokenEndpoints(t *testing.T) {
	root, _ := issued(t, "the root", time.Now().Add(time.Hour))
	file := filepath.Join(t.TempDir(), "root.pem")
	if err := os.WriteFile(file, []byte(root), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, options := range map[string]string{
		"Kafka":             `clientId="me" clientSecret="s" ssl.truststore.location="` + file + `" ssl.truststore.type="PEM" ssl.endpoint.identification.algorithm=""`,
		"Strimzi":           `oauth.token.endpoint.uri="https://x/y" oauth.client.id="me" oauth.client.secret="s" oauth.ssl.truststore.location="` + file + `" oauth.ssl.truststore.type="PEM" oauth.ssl.endpoint.identification.algorithm=""`,
		"Strimzi, in place": `oauth.token.endpoint.uri="https://x/y" oauth.client.id="me" oauth.client.secret="s" oauth.ssl.truststore.certificates="` + strings.ReplaceAll(root, "\n", `\n`) + `" oauth.ssl.truststore.type="PEM" oauth.ssl.endpoint.identification.algorithm=""`,
	} {
		given := properties(t, "security.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER\nsasl.jaas.config="+oauthModule+" required "+options+";")
		if name == "Kafka" {
			given["sasl.oauthbearer.token.endpoint.url"] = "https://x/y"
		}
		s := parsed(t, given)
		if s.TLS == nil || s.TLS.Roots != nil || s.TLS.AnyName {
			t.Errorf("%s: the brokers' is %+v", name, s.TLS)
		}
		if o := s.SASL.OAuth; o == nil || o.TLS == nil || len(o.TLS.Roots) != 1 || !o.TLS.AnyName {
			t.Errorf("%s: %s", name, dump(s.SASL))
		}
	}
}

// Every mistake is named with its place and a way out, and none shows a secret.
func TestMistakesOfSecurity(t *testing.T) {
	root, key := issued(t, "the root", time.Now().Add(time.Hour))
	_, other := issued(t, "another", time.Now().Add(time.Hour))
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	const user = "security.protocol=SASL_PLAINTEXT\nsasl.mechanism="
	for _, test := range []struct {
		given    string
		mistakes []string
	}{
		{"security.protocol=SASL-SSL", []string{`security.protocol: "SASL-SSL": not a security protocol; give PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL; did you mean SASL_SSL?`}},
		{"security.protocl=SSL", []string{"did you mean security.protocol?"}},
		{"security.protocol=SSL\nssl.truststore.loction=x", []string{"did you mean ssl.truststore.location?"}},
		{"security.protocol=SSL\nssl.truststore.location=/nowhere/x.jks", []string{`"/nowhere/x.jks": there is no such file; mend the path, or mount it there`}},
		{"security.protocol=SSL\nssl.truststore.location=" + file, []string{"ssl.truststore.location: "}},
		{"security.protocol=SSL\nssl.truststore.password=secret", []string{"ssl.truststore.password: is given without a truststore"}},
		{"security.protocol=SSL\nssl.keystore.password=secret", []string{"ssl.keystore.password: is given without a keystore"}},
		{"security.protocol=SSL\nssl.keystore.key=secret", []string{"give ssl.keystore.certificate.chain too"}},
		{"security.protocol=SSL\nssl.keystore.type=BCFKS\nssl.truststore.type=PKSC12", []string{`"BCFKS": this type of store can't be read`, "did you mean PKCS12?"}},
		{"security.protocol=SSL\nssl.endpoint.identification.algorithm=LDAPS", []string{`"LDAPS": unknown; give https`}},
		{"security.protocol=SSL\nssl.engine.factory.class=com.example.Own", []string{"a Java class can't be run here"}},
		{"security.protocol=SSL\nssl.enabled.protocols=TLSv1,TLSv1.1", []string{"TLSv1, TLSv1.1 is not spoken any more, by Java 17 neither; give TLSv1.2,TLSv1.3"}},
		{"security.protocol=SSL\nssl.protocol=TLSv1.1", []string{"is not spoken any more, by Java 17 neither"}},
		{"security.protocol=SSL\nssl.truststore.location=" + filepath.Dir(file), []string{"is not a file; name one"}},
		{"security.protocol=SSL\nssl.truststore.location=", []string{"is empty; name a file, or remove it"}},
		{"security.protocol=SSL\nssl.truststore.location=" + file + "\nssl.truststore.certificates=secret", []string{"ssl.truststore.certificates: and ssl.truststore.location are both given"}},
		{"security.protocol=SSL\nssl.truststore.certificates=secret", []string{"ssl.truststore.certificates: "}},
		{"security.protocol=SSL\nssl.enabled.protocols=TLS1.2", []string{"did you mean TLSv1.2?"}},
		{"security.protocol=SSL\nssl.protocol=TLSv1.2\nssl.enabled.protocols=TLSv1.3", []string{"leaves no version of TLSv1.3"}},
		{"security.protocol=SSL\nssl.cipher.suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA25", []string{"did you mean TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256?"}},
		{"security.protocol=SSL\nssl.cipher.suites=TLS_DHE_RSA_WITH_AES_256_GCM_SHA384", []string{"none of these cipher suites is left"}},
		{user + "SCRAM-SHA512", []string{"did you mean SCRAM-SHA-512?"}},
		{user + "PLAIN", []string{"sasl.mechanism: PLAIN needs a user; give sasl.jaas.config with " + plainModule}},
		{user + "PLAIN\nsasl.username=u", []string{"is given without sasl.password"}},
		{user + "PLAIN\nsasl.username=u\nsasl.password=secret\nsasl.jaas.config=" + plainModule + ` required username="u" password="secret";`, []string{"are both given"}},
		{user + "PLAIN\nsasl.jaas.config=" + plainModule + ` required username="u";`, []string{"sasl.jaas.config, option password: is missing"}},
		{user + "PLAIN\nsasl.jaas.config=" + plainModule + ` required username="u" password="";`, []string{"sasl.jaas.config, option password: is empty"}},
		{user + "PLAIN\nsasl.jaas.config=" + plainModule + ` required username="u" passwort="secret";`, []string{"option password: is missing", "there is no such option; did you mean password?"}},
		{user + "PLAIN\nsasl.jaas.config=" + plainModule + ` required username="u" password="secret"`, []string{"what stands at character 96 has no semicolon; end it with one"}},
		{user + "PLAIN\nsasl.jaas.config=" + plainModule + ` username="u" password="secret";`, []string{"character 57 is not a control flag; write required, requisite, sufficient or optional"}},
		{user + "SCRAM-SHA-256\nsasl.jaas.config=" + plainModule + ` required username="u" password="secret";`, []string{plainModule + " is not for SCRAM-SHA-256; give " + scramModule}},
		{user + "PLAIN\nsasl.jaas.config=kafkashaded." + plainModule + ` required username="u" password="secret";`, []string{"did you mean " + plainModule + "?"}},
		{user + "PLAIN\nsasl.jaas.config=com.example.secret required;", []string{"has a login module that can't be run here; give " + plainModule}},
		{user + "PLAIN\nsasl.username=u\nsasl.password=secret\nsasl.login.callback.handler.class=com.example.H\nsasl.login.class=com.example.L\nsasl.client.callback.handler.class=com.example.C",
			[]string{`"com.example.H": a Java class can't be run here`, `"com.example.L"`, `"com.example.C"`}},
		{user + "OAUTHBEARER", []string{"needs an endpoint", "needs a client"}},
		{user + "OAUTHBEARER\nsasl.oauthbearer.token.endpoint.url=login.example.com\nsasl.oauthbearer.client.credentials.client.id=me", []string{"not a URL of a token endpoint", "needs a secret"}},
		{user + "OAUTHBEARER\nsasl.login.callback.handler.class=com.example.H", []string{`"com.example.H": a Java class can't be run here`}},
		{user + "OAUTHBEARER\nsasl.username=u\nsasl.password=secret\nsasl.jaas.config=" + oauthModule + ` required oauth.access.token="secret";`, []string{"sasl.username: is for PLAIN", "sasl.password: is for PLAIN"}},
		{user + "OAUTHBEARER\nsasl.jaas.config=" + oauthModule + ` required oauth.client.id="me";`, []string{"option oauth.token.endpoint.uri: is missing", "has nothing to get a token with"}},
		{user + "OAUTHBEARER\nsasl.jaas.config=" + oauthModule + ` required oauth.client.id="me" oauth.client.secret="secret" oauth.token.endpoint.uri="https://x/y" oauth.max.token.expiry.seconds="5" oauth.sasl.extension.auth="x";`,
			[]string{"give a whole number of seconds from 60", "is not the name of a SASL extension"}},
		{user + "OAUTHBEARER\nsasl.jaas.config=" + oauthModule + ` required oauth.client.id="me" oauth.client.secret="secret" oauth.token.endpoint.uri="https://x/y" oauth.ssl.truststore.location="/nowhere/x";`,
			[]string{`option oauth.ssl.truststore.location: "/nowhere/x": there is no such file`}},
		{user + "AWS_MSK_IAM\nsasl.jaas.config=" + iamModule + ` required awsAddDefaultProviders="false";`, []string{"leaves nothing to get credentials from"}},
		{user + "GSSAPI\nsasl.jaas.config=" + krbModule + ` required useKeyTab=true;`, []string{"give sasl.kerberos.service.name", "option keyTab: is missing"}},
		{user + "GSSAPI\nsasl.kerberos.service.name=kafka\nsasl.jaas.config=" + krbModule + ` required serviceName="other" useTicketCache=true;`, []string{`is "other" as serviceName`}},
		{user + "GSSAPI\nsasl.kerberos.service.name=kafka\nsasl.jaas.config=" + krbModule + ` required keyTab="/x" principal="a@B";`, []string{"option useKeyTab: has to be true"}},
		{user + "GSSAPI\nsasl.kerberos.service.name=kafka\nsasl.jaas.config=" + krbModule + ` required;`, []string{"would ask somebody for a password"}},
	} {
		mistaken(t, properties(t, test.given), test.mistakes...)
		_, warnings, err := spec.ParseSecurity(properties(t, strings.ReplaceAll(test.given, "secret", "5ecretT3xt")))
		if text := fmt.Sprint(err, warnings); strings.Contains(text, "5ecretT3xt") {
			t.Errorf("%q shows a secret: %s", test.given, text)
		}
	}
	mistaken(t, map[string]string{"security.protocol": "SSL", "ssl.keystore.key": other, "ssl.keystore.certificate.chain": root}, "ssl.keystore.key: ")
	mistaken(t, map[string]string{"security.protocol": "SSL", "ssl.truststore.certificates": key}, "ssl.truststore.certificates: ")
}

// What MirrorMaker takes no notice of in silence is named.
func TestIdleSecurity(t *testing.T) {
	s := parsed(t, properties(t, "ssl.truststore.location=/x\nsasl.jaas.config=x"), "ssl.truststore.location")
	if s.TLS != nil || s.SASL != nil {
		t.Errorf("%+v", s)
	}
	parsed(t, properties(t, "security.protocol=SSL\nsasl.mechanism=PLAIN\nssl.provider=BC\nssl.keymanager.algorithm=PKIX\nssl.client.auth=none"),
		"security.protocol: SSL leaves without effect: sasl.mechanism",
		"ssl.provider: has no effect in kferry: TLS is Go's own", "ssl.keymanager.algorithm", "ssl.client.auth: has no effect in kferry: it is a broker's setting")
	parsed(t, properties(t, "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.username=u\nsasl.password=p\nsasl.login.refresh.window.factor=0.8\nsasl.oauthbearer.scope=x"),
		"sasl.login.refresh.window.factor", "sasl.oauthbearer.scope: has no effect in kferry: it is not for PLAIN")
}
