package integration

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/kferry/kferry/integration/testbed"
)

// Every mechanism copies, as Kafka's clients are told of it: one flow has each, from brokers of today and of yesterday. What brokers don't
// offer they are asked for in vain, and the flow says what they do.
func TestMechanisms(t *testing.T) {
	today, yesterday := testbed.Shared(t, testbed.V43), testbed.Shared(t, testbed.V33)
	dir := t.TempDir()
	put := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	const modules = "org.apache.kafka.common.security."
	byPassword := func(module, user, password, more string) string {
		return fmt.Sprintf("%s%s required username=\"%s\" password=\"%s\"%s;", modules, module, user, strings.ReplaceAll(password, `"`, `\\"`), more)
	}
	byToken := func(endpoint, options string) string {
		return modules + "oauthbearer.OAuthBearerLoginModule required " + options + ";\nsasl.oauthbearer.token.endpoint.url = " + endpoint
	}
	const tokensLast = 8 * time.Second // of which a session has no more than what is left
	tokens := yesterday.Tokens("kferry", "its secret")
	tokens.Last(tokensLast)
	id, secret := delegate(t, today)
	cases := []struct {
		name      string
		source    *testbed.Cluster
		mechanism string
		jaas      string
	}{
		{"plain", today, "PLAIN", byPassword("plain.PlainLoginModule", testbed.User, testbed.Password, "")},
		{"scram256", today, "SCRAM-SHA-256", byPassword("scram.ScramLoginModule", testbed.User, testbed.Password, "")},
		{"scram512", today, "SCRAM-SHA-512", byPassword("scram.ScramLoginModule", testbed.User, testbed.Password, "")},
		{"delegated", today, "SCRAM-SHA-256", byPassword("scram.ScramLoginModule", id, secret, ` tokenauth="true"`)},
		{"tokenfile", today, "OAUTHBEARER", byToken("file://"+put("token", today.Tokens("", "").Token("kferry", time.Hour)+"\n"), "")},
		{"tokens", yesterday, "OAUTHBEARER", byToken(tokens.Endpoint(), `clientId="kferry" clientSecret="its secret"`)},
	}
	names := []string{"central", "unknown", "open"}
	var says strings.Builder
	for _, c := range cases {
		names = append(names, c.name)
		source := c.source.Over(testbed.SASLTLS)
		for key, value := range map[string]string{
			"bootstrap.servers": source.Bootstrap(), "security.protocol": testbed.SASLTLS.Protocol(), "ssl.truststore.type": "PEM",
			"ssl.truststore.location": put(c.name+".pem", string(c.source.Authority().PEM())), "sasl.mechanism": c.mechanism,
		} {
			fmt.Fprintf(&says, "%s.%s = %s\n", c.name, key, value)
		}
		fmt.Fprintf(&says, "%s.sasl.jaas.config = %s\n", c.name, strings.ReplaceAll(c.jaas, "\nsasl.", "\n"+c.name+".sasl."))
		fmt.Fprintf(&says, "%s->central.enabled = true\n%[1]s->central.topics = mechanism-%[1]s\n", c.name)
	}
	for name, l := range map[string]testbed.Listener{"unknown": testbed.SASLTLS, "open": testbed.TLS} { // which can't work
		fmt.Fprintf(&says, "%s.bootstrap.servers = %s\n%[1]s.security.protocol = SASL_SSL\n%[1]s.ssl.truststore.type = PEM\n%[1]s.ssl.truststore.location = %[3]s\n"+
			"%[1]s.sasl.mechanism = AWS_MSK_IAM\n%[1]s.sasl.jaas.config = software.amazon.msk.auth.iam.IAMLoginModule required;\n"+
			"%[1]s->central.enabled = true\n%[1]s->central.topics = nothing\n", name, today.Over(l).Bootstrap(), put(name+".pem", string(today.Authority().PEM())))
	}
	k := onText(t, today, today, "mechanisms", fmt.Sprintf(`clusters = %s
central.bootstrap.servers = %s
%sreplication.factor = 1
emit.heartbeats.enabled = false
emit.checkpoints.enabled = false
sync.topic.acls.enabled = false
heartbeats.replication.enabled = false
`, strings.Join(names, ", "), today.Bootstrap(), says.String()))
	live := map[string]*testbed.Traffic{}
	for _, c := range cases {
		topic := "mechanism-" + c.name
		c.source.CreateTopic(topic, 2, 1)
		next := testbed.Produce(t, c.source, topic, testbed.Load{Records: 2000})
		live[c.name] = testbed.Live(t, c.source, topic, testbed.Load{First: next}, 50)
	}
	k.start("run")
	testbed.Eventually(t, time.Minute, "three tokens", func() bool { return tokens.Issued() >= 3 })
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			topic := "mechanism-" + c.name
			live[c.name].Stop()
			want := ends(t, c.source, topic)
			testbed.Eventually(t, copyWithin, "all records", func() bool { return ends(t, today, c.name+"."+topic) >= want })
			testbed.Compare(t, c.source.For(t), topic, today.For(t), c.name+"."+topic)
		})
	}
	refusals := map[string]string{
		"unknown->central": "no login by AWS_MSK_IAM: UNSUPPORTED_SASL_MECHANISM: The broker does not support the requested SASL mechanism; the broker offers OAUTHBEARER, PLAIN, SCRAM-SHA-256, SCRAM-SHA-512",
		"open->central":    "a listener that asks for no login answers so",
	}
	for _, f := range k.statusWith(1).Flows {
		if words, refused := refusals[f.Flow]; refused {
			if !strings.Contains(f.Error, words) {
				t.Errorf("%s: %q lacks %q", f.Flow, f.Error, words)
			}
			continue
		}
		if f.Error != "" || len(f.Partitions) != 2 || f.Partitions[0].Reason != "" || f.Partitions[1].Reason != "" {
			t.Errorf("status says: %+v", f)
		}
	}
	if issued := tokens.Issued(); issued > 20 {
		t.Errorf("%d tokens were asked for, each of %v", issued, tokensLast)
	}
}

// delegate has the brokers give out a delegation token: its id, and the secret that goes with it.
func delegate(t *testing.T, c *testbed.Cluster) (id, secret string) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.Authority().PEM())
	client, err := kgo.NewClient(
		kgo.SeedBrokers(c.Over(testbed.SASLTLS).Bootstrap()), kgo.DialTLSConfig(&tls.Config{RootCAs: roots}),
		kgo.SASL(scram.Auth{User: testbed.User, Pass: testbed.Password}.AsSha256Mechanism()),
	)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	token, err := kadm.NewClient(client).CreateDelegationToken(t.Context(), kadm.CreateDelegationToken{MaxLifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return token.TokenID, base64.StdEncoding.EncodeToString(token.HMAC)
}
