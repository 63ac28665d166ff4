package integration

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kferry/kferry/integration/testbed"
)

// A lock is what the item of a cluster in a resource says of its security, and the Secrets that it refers to.
type lock struct {
	over    testbed.Listener
	says    string // fields of the item
	secrets map[string]map[string]string
}

// The founding scenario, whose resource is the same but for what its clusters say of their security: each says something else.
func TestFoundingScenarioSecured(t *testing.T) {
	central, dc1, dc2 := testbed.Shared(t, testbed.V43), testbed.Shared(t, testbed.V43), testbed.Shared(t, testbed.V33)
	ca := string(central.Authority().PEM())
	certificate := central.Authority().Issue(testbed.Subject{Name: "kafka-centralized"})
	tokens := central.Tokens("kafka-centralized", "its secret")
	const trusting = "tls: {trustedCertificates: [{secretName: %s-ca, certificate: ca.crt}]}"
	own := map[string]string{"user.crt": string(certificate.PEM()), "user.key": string(certificate.KeyPEM())}
	for _, s := range []struct {
		name              string
		central, dc1, dc2 lock
	}{
		{"TLS",
			lock{testbed.MTLS, fmt.Sprintf(trusting, "central") + ", authentication: {type: tls, certificateAndKey: {secretName: central-user, certificate: user.crt, key: user.key}}",
				map[string]map[string]string{"central-ca": {"ca.crt": ca}, "central-user": own}},
			lock{testbed.TLS, "tls: {trustedCertificates: [{secretName: dc-1-ca, pattern: '*.crt'}]}",
				map[string]map[string]string{"dc-1-ca": {"old.crt": string(testbed.NewAuthority(t, "old").PEM()), "ca.crt": ca, "ca.password": "none"}}},
			lock{testbed.MTLS, fmt.Sprintf(trusting, "dc-2") + ", authentication: {type: tls, certificateAndKey: {secretName: dc-2-user, certificate: user.crt, key: user.key}}",
				map[string]map[string]string{"dc-2-ca": {"ca.crt": ca}, "dc-2-user": own}}},
		{"SASL_SSL",
			lock{testbed.SASLTLS, fmt.Sprintf(trusting, "central") + ", authentication: {type: oauth, clientId: kafka-centralized, clientSecret: {secretName: central-client, key: secret}, tokenEndpointUri: '" + tokens.Endpoint() + "'}",
				map[string]map[string]string{"central-ca": {"ca.crt": ca}, "central-client": {"secret": "its secret"}}},
			lock{testbed.SASLTLS, fmt.Sprintf(trusting, "dc-1") + ", authentication: {type: scram-sha-512, username: kferry, passwordSecret: {secretName: dc-1-user, password: password}}",
				map[string]map[string]string{"dc-1-ca": {"ca.crt": ca}, "dc-1-user": {"password": testbed.Password}}},
			lock{testbed.SASLTLS, fmt.Sprintf(trusting, "dc-2") + ", authentication: {type: plain, username: kferry, passwordSecret: {secretName: dc-2-user, password: password}}",
				map[string]map[string]string{"dc-2-ca": {"ca.crt": ca}, "dc-2-user": {"password": testbed.Password}}}},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			w := world{central: central.For(t).Over(s.central.over), dc1: dc1.For(t).Over(s.dc1.over), dc2: dc2.For(t).Over(s.dc2.over)}
			orders, payments := slug(s.name)+"-orders", slug(s.name)+"-payments"
			w.dc1.CreateTopic(orders, 4, 1)
			w.dc2.CreateTopic(payments, 3, 1)
			nextOrder, nextPayment := everyCodec(t, w.dc1, orders, 1000), everyCodec(t, w.dc2, payments, 1000)
			k := w.mirroring(t, orders, payments)
			k.secures("kafka-centralized-mm2connector", s.central, "")
			k.secures("kafka-dc-1", s.dc1, filepath.Join(t.TempDir(), "secrets"))
			k.secures("kafka-dc-2", s.dc2, "")

			preview := k.command(0, "validate", "--connect")
			for _, want := range []string{"kafka-dc-1." + orders, "kafka-dc-2." + payments} {
				if !strings.Contains(preview, want) {
					t.Errorf("validate --connect does not say %q:\n%s", want, preview)
				}
			}
			live := []*testbed.Traffic{
				testbed.Live(t, w.dc1, orders, testbed.Load{First: nextOrder, Codec: kgo.ZstdCompression()}, 300),
				testbed.Live(t, w.dc2, payments, testbed.Load{First: nextPayment, Codec: kgo.SnappyCompression()}, 300),
			}
			k.catchUp()
			for _, traffic := range live {
				traffic.Stop()
			}
			k.catchUp()
			w.compare(t, orders, payments)
			sameOffsets(t, w.dc1, orders, w.central, "kafka-dc-1."+orders)
			for _, p := range append(k.status().partitions(orders), k.status().partitions(payments)...) {
				if p.State != "idle" || p.LagRecords != 0 {
					t.Errorf("status of a caught-up partition: %+v", p)
				}
			}
		})
	}
}

// secures has a cluster of the resource say how it is secured. Its Secrets are mounted in a directory, or, where that is "", stand in
// the same file.
func (k *installation) secures(alias string, l lock, dir string) {
	k.t.Helper()
	file := k.args[1]
	text, err := os.ReadFile(file)
	if err != nil {
		k.t.Fatal(err)
	}
	item := "{alias: " + alias + ", "
	if strings.Count(string(text), item) != 1 {
		k.t.Fatalf("%s does not stand once in\n%s", item, text)
	}
	secured := strings.Replace(string(text), item, item+l.says+", ", 1)
	for name, values := range l.secrets {
		if dir == "" {
			secured += fmt.Sprintf("---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s}\ndata:\n", name)
		}
		for key, value := range values {
			if dir == "" {
				secured += fmt.Sprintf("  %s: %s\n", key, base64.StdEncoding.EncodeToString([]byte(value)))
				continue
			}
			k.env["KFERRY_SECRETS_DIR"] = dir
			if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
				k.t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name, key), []byte(value), 0o600); err != nil {
				k.t.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(file, []byte(secured), 0o600); err != nil {
		k.t.Fatal(err)
	}
}
