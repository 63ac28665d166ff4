package integration

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kferry/kferry/integration/testbed"
	"github.com/kferry/kferry/shared/kafka/login"
	"github.com/kferry/kferry/shared/spec"
)

func TestKerberosLogin(t *testing.T) {
	kdc := testbed.KDC(t)
	c := testbed.Kafka(t, testbed.V43, testbed.WithSecurity(testbed.NewAuthority(t, "a")), testbed.WithKerberos(kdc))
	keytab := filepath.Join(t.TempDir(), "keytab")
	if err := os.WriteFile(keytab, kdc.Principal("mirror"), 0o600); err != nil {
		t.Fatal(err)
	}
	way, err := login.New(spec.FixedLogin(spec.Security{SASL: &spec.SASL{Mechanism: spec.GSSAPI, Kerberos: &spec.Kerberos{
		Service: "kafka", Principal: "mirror@" + kdc.Name, Keytab: keytab, Config: kdc.ConfFile(),
	}}}), (&net.Dialer{}).DialContext)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(append(way.Options(), kgo.SeedBrokers(c.Over(testbed.SASL).Bootstrap()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	start := time.Now()
	b, err := kadm.NewClient(client).ListBrokers(ctx)
	t.Log(b, err, time.Since(start))
	if err != nil {
		t.Fatal(err)
	}
}
