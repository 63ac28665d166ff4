package integration

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kferry/kferry/integration/testbed"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/spec"
)

// What Java's brokers do about TLS that isn't right, which they tell by alerts, or by closing the connection: kferry says at once what it
// is, and what mends it.
func TestTLSFailuresOfBrokers(t *testing.T) {
	for _, version := range []string{testbed.V43, testbed.V33} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			c := testbed.Shared(t, version)
			mine, foreign := c.Authority(), testbed.NewAuthority(t, "foreign")
			past := time.Now().Add(-time.Hour)
			trusting := func(own *testbed.Certificate) *spec.TLS {
				roots := []*x509.Certificate{mine.Certificate()}
				if own == nil {
					return &spec.TLS{Roots: roots}
				}
				certificate := own.TLS()
				return &spec.TLS{Roots: roots, Certificate: &certificate}
			}
			before13 := func(s *spec.TLS) *spec.TLS { s.MaxVersion = tls.VersionTLS12; return s }
			stranger := foreign.Issue(testbed.Subject{Name: "stranger"})
			old := mine.Issue(testbed.Subject{Name: "old", From: past.Add(-time.Hour), Until: past})
			for _, test := range []struct {
				name string
				over testbed.Listener
				tls  *spec.TLS // nil for plain text
				says []string  // nil where it works
			}{
				{"TLS", testbed.TLS, trusting(nil), nil},
				{"TLS 1.2", testbed.TLS, before13(trusting(nil)), nil},
				{"mTLS", testbed.MTLS, trusting(mine.Issue(testbed.Subject{Name: "kferry"})), nil},
				{"mTLS 1.2", testbed.MTLS, before13(trusting(mine.Issue(testbed.Subject{Name: "kferry"}))), nil},
				{"no certificate", testbed.MTLS, trusting(nil), []string{"wants a certificate of the client", "ssl.keystore.location"}},
				{"no certificate, 1.2", testbed.MTLS, before13(trusting(nil)), []string{"wants a certificate of the client", "ssl.keystore.location"}},
				{"a stranger's", testbed.MTLS, trusting(stranger), []string{"CN=stranger", "issued by CN=foreign", "none that it takes"}},
				{"an expired one", testbed.MTLS, trusting(old), []string{"refuses the client's certificate, CN=old", "expired on"}},
				{"an expired one, 1.2", testbed.MTLS, before13(trusting(old)), []string{"refuses the client's certificate, CN=old", "expired on"}},
				{"a stranger's broker", testbed.TLS, &spec.TLS{Roots: []*x509.Certificate{foreign.Certificate()}}, []string{"CN=broker", "not trusted", "CN=foreign"}},
				{"plain text to TLS", testbed.TLS, nil, []string{"security.protocol to SSL"}},
				{"TLS to plain text", testbed.SASL, trusting(nil), []string{"security.protocol to PLAINTEXT"}},
			} {
				cluster, err := kafka.Open(spec.Cluster{Alias: "A", BootstrapServers: []string{c.Over(test.over).Bootstrap()},
					Login: spec.FixedLogin(spec.Security{TLS: test.tls})}, kafka.Options{})
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				err = cluster.Ping(t.Context())
				took := time.Since(began)
				cluster.Close()
				switch {
				case test.says == nil && err != nil:
					t.Errorf("%s: %v", test.name, err)
				case test.says != nil && (!errors.Is(err, kafka.ErrTLS) || took > 8*time.Second):
					t.Errorf("%s: after %v: %v", test.name, took, err)
				}
				for _, part := range test.says {
					if err != nil && !strings.Contains(err.Error(), part) {
						t.Errorf("%s: %v\nlacks %q", test.name, err, part)
					}
				}
			}
		})
	}
}

// Stores that the brokers' own Java makes open the brokers' doors.
func TestStoresOfKeytool(t *testing.T) {
	for version, kinds := range map[string]struct{ trust, key string }{testbed.V43: {"JKS", "PKCS12"}, testbed.V33: {"PKCS12", "JCEKS"}} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			c := testbed.Shared(t, version)
			const password = "hunter2hunter2"
			dir := t.TempDir()
			for name, store := range map[string][]byte{"trust": c.Truststore(kinds.trust, password), "key": c.Keystore(kinds.key, password, "keytool")} {
				if err := os.WriteFile(filepath.Join(dir, name), store, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s, err := spec.Load(nil, []string{"KFERRY_MIRROR=" + strings.NewReplacer("DIR", dir, "PASSWORD", password, "SERVERS", c.Over(testbed.MTLS).Bootstrap()).Replace(`
clusters = A, B
A.bootstrap.servers = SERVERS
A.security.protocol = SSL
A.ssl.truststore.location = DIR/trust
A.ssl.truststore.password = PASSWORD
A.ssl.keystore.location = DIR/key
A.ssl.keystore.password = PASSWORD
B.bootstrap.servers = localhost:1
A->B.enabled = true
`)})
			if err != nil {
				t.Fatal(err)
			}
			cluster, err := kafka.Open(s.Cluster("A"), kafka.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := cluster.Ping(t.Context()); err != nil {
				t.Error(err)
			}
			cluster.Close()
		})
	}
}
