package integration

import (
	"context"
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/kferry/kferry/integration/testbed"
)

func TestNATSKeepsItsStoreUntilWiped(t *testing.T) {
	n := testbed.StartNATS(t)
	streams := func() int {
		conn, err := nats.Connect(n.URL())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		js, err := jetstream.New(conn)
		if err != nil {
			t.Fatal(err)
		}
		info, err := js.AccountInfo(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if info.Streams == 0 {
			if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S"}); err != nil {
				t.Fatal(err)
			}
		}
		return info.Streams
	}
	if got := streams(); got != 0 {
		t.Fatalf("%d streams at first", got)
	}
	n.Kill()
	n.Start()
	if got := streams(); got != 1 {
		t.Errorf("%d streams after kill -9, want 1", got)
	}
	n.Wipe()
	if got := streams(); got != 0 {
		t.Errorf("%d streams after the wipe, want 0", got)
	}
}

func TestProxiedClusterIsReachedOnlyThroughItsProxy(t *testing.T) {
	c := testbed.Kafka(t, testbed.V43, testbed.WithProxy())
	c.CreateTopic("orders", 1, 1)
	before := c.Proxy(0).Bytes(testbed.Requests)
	testbed.Produce(t, c, "orders", testbed.Load{Records: 10})
	if c.Proxy(0).Bytes(testbed.Requests) != before {
		t.Error("the testbed's own client went through the proxy")
	}
}

func TestProcessIsKilledAndTermed(t *testing.T) {
	p := testbed.Exec(t, "/bin/sh", []string{"-c", `trap 'echo bye $WHO; exit 3' TERM; echo hello; while :; do sleep 0.05; done`}, map[string]string{"WHO": "you"})
	testbed.Eventually(t, time.Minute, "a word", func() bool { return p.Output() == "hello\n" })
	p.Term()
	if code := p.Wait(time.Minute); code != 3 || !strings.Contains(p.Output(), "bye you") {
		t.Errorf("exit code %d, output %q", code, p.Output())
	}
}

// Every secured listener lets those in whom it should and nobody else, and a broker takes up another certificate while it runs.
func TestSecuredListeners(t *testing.T) {
	for _, version := range []string{testbed.V43, testbed.V33} {
		t.Run(version, func(t *testing.T) {
			c := testbed.Shared(t, version)
			tokens := c.Tokens("client", "its secret")
			trusting := func(certificates ...tls.Certificate) kgo.Opt {
				return kgo.DialTLSConfig(&tls.Config{RootCAs: c.Authority().Pool(), Certificates: certificates})
			}
			own, foreign := c.Authority().Issue(testbed.Subject{Name: "kferry"}), testbed.NewAuthority(t, "foreign").Issue(testbed.Subject{Name: "kferry"})
			type try struct {
				name    string
				over    testbed.Listener
				opts    []kgo.Opt
				refused bool
			}
			tries := []try{
				{"TLS", testbed.TLS, []kgo.Opt{trusting()}, false},
				{"TLS to an unknown authority", testbed.TLS, []kgo.Opt{kgo.DialTLS()}, true},
				{"plain text", testbed.TLS, nil, true},
				{"mTLS", testbed.MTLS, []kgo.Opt{trusting(own.TLS())}, false},
				{"mTLS without a certificate", testbed.MTLS, []kgo.Opt{trusting()}, true},
				{"mTLS with another's certificate", testbed.MTLS, []kgo.Opt{trusting(foreign.TLS())}, true},
				{"PLAIN", testbed.SASL, []kgo.Opt{kgo.SASL(plain.Auth{User: testbed.User, Pass: testbed.Password}.AsMechanism())}, false},
				{"PLAIN with a wrong password", testbed.SASL, []kgo.Opt{kgo.SASL(plain.Auth{User: testbed.User, Pass: "x"}.AsMechanism())}, true},
				{"no login", testbed.SASLTLS, []kgo.Opt{trusting()}, true},
				{"PLAIN over TLS", testbed.SASLTLS, []kgo.Opt{trusting(), kgo.SASL(plain.Auth{User: testbed.User, Pass: testbed.Password}.AsMechanism())}, false},
				{"OAUTHBEARER", testbed.SASLTLS, []kgo.Opt{trusting(), kgo.SASL(oauth.Auth{Token: tokens.Token("client", time.Hour)}.AsMechanism())}, false},
				{"OAUTHBEARER with a token of the past", testbed.SASLTLS, []kgo.Opt{trusting(), kgo.SASL(oauth.Auth{Token: tokens.Token("client", -time.Hour)}.AsMechanism())}, true},
			}
			if version != testbed.V33 {
				user := scram.Auth{User: testbed.User, Pass: testbed.Password}
				tries = append(tries,
					try{"SCRAM-SHA-256", testbed.SASLTLS, []kgo.Opt{trusting(), kgo.SASL(user.AsSha256Mechanism())}, false},
					try{"SCRAM-SHA-512", testbed.SASLTLS, []kgo.Opt{trusting(), kgo.SASL(user.AsSha512Mechanism())}, false})
			}
			for _, try := range tries {
				if err := answers(t, c.Over(try.over), try.opts...); (err != nil) != try.refused {
					t.Errorf("%s: %v", try.name, err)
				}
			}

			next := c.Authority().Issue(testbed.Subject{Name: testbed.Broker})
			c.Present(testbed.TLS, next)
			testbed.Eventually(t, time.Minute, "the other certificate", func() bool {
				conn, err := tls.Dial("tcp", c.Over(testbed.TLS).Bootstrap(), &tls.Config{RootCAs: c.Authority().Pool()})
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				return conn.ConnectionState().PeerCertificates[0].Equal(next.Leaf)
			})
			if version == testbed.V33 {
				return
			}
			login := func(password string) error {
				return answers(t, c.Over(testbed.SASL), kgo.SASL(scram.Auth{User: "passing", Pass: password}.AsSha512Mechanism()))
			}
			c.SetPassword("passing", "one")
			testbed.Eventually(t, time.Minute, "the user", func() bool { return login("one") == nil })
			c.SetPassword("passing", "two")
			testbed.Eventually(t, time.Minute, "the other password", func() bool { return login("two") == nil && login("one") != nil })
			c.DeleteUser("passing")
			testbed.Eventually(t, time.Minute, "the user to be gone", func() bool { return login("two") != nil })
		})
	}
}

// answers says whether a cluster answers a client that has one try.
func answers(t *testing.T, c *testbed.Cluster, opts ...kgo.Opt) error {
	t.Helper()
	client, err := kgo.NewClient(append(opts, kgo.SeedBrokers(c.Bootstrap()), kgo.RequestRetries(0), kgo.DialTimeout(soon))...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	return client.Ping(ctx)
}
