package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kferry/kferry/integration/testbed"
)

// Both sides of a flow log in by Kerberos, with a KDC and a broker of others' making. A keytab that is no use any more holds its flow, and one
// that was none from the start; both go on by themselves once there is a keytab that is.
func TestKerberos(t *testing.T) {
	t.Parallel()
	kdc := testbed.KDC(t)
	locked := testbed.Kafka(t, testbed.V43, testbed.WithSecurity(testbed.NewAuthority(t, "kerberos")), testbed.WithKerberos(kdc), testbed.WithProxy())
	plain := testbed.Shared(t, testbed.V43)
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		err := os.WriteFile(path+".new", content, 0o600)
		if err == nil {
			err = os.Rename(path+".new", path)
		}
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	late := file("late.keytab", kdc.Principal("late"))
	kdc.Admin("delete_principal -force late")
	mirror := kdc.Principal("mirror")

	const module = `sasl.jaas.config = com.sun.security.auth.module.Krb5LoginModule required useKeyTab=true storeKey=true keyTab="%s" principal="%s@%s";`
	k := onText(t, locked, plain, "kerberos", fmt.Sprintf(`clusters = kerberos, plain, safe
kerberos.bootstrap.servers = %s
kerberos.security.protocol = SASL_PLAINTEXT
kerberos.sasl.mechanism = GSSAPI
kerberos.sasl.kerberos.service.name = kafka
kerberos.%s
plain.bootstrap.servers = %s
safe.bootstrap.servers = %s
safe.security.protocol = SASL_SSL
safe.ssl.truststore.type = PEM
safe.ssl.truststore.location = %s
safe.sasl.kerberos.service.name = kafka
safe.%s
kerberos->plain.enabled = true
kerberos->plain.topics = krb-orders
plain->safe.enabled = true
plain->safe.topics = krb-payments
replication.factor = 1
emit.heartbeats.enabled = false
emit.checkpoints.enabled = false
emit.offset-syncs.enabled = false
sync.topic.acls.enabled = false
sync.topic.configs.enabled = false
heartbeats.replication.enabled = false
refresh.topics.interval.seconds = 2
`, locked.Over(testbed.SASL).Bootstrap(), fmt.Sprintf(module, file("mirror.keytab", mirror), "mirror", kdc.Name),
		plain.Bootstrap(), locked.Over(testbed.SASLTLS).Bootstrap(), file("ca.pem", locked.Authority().PEM()), fmt.Sprintf(module, late, "late", kdc.Name)))
	k.env["KRB5_CONFIG"] = kdc.ConfFile()
	held := func(flow string, want ...string) {
		t.Helper()
		var last string
		testbed.Eventually(t, goneAround+soon, fmt.Sprintf("%s to say %q", flow, want), func() bool {
			for _, f := range k.statusWith(1).Flows {
				if f.Flow == flow {
					last = fmt.Sprint(f.Error, f.Partitions)
				}
			}
			for _, w := range want {
				if !strings.Contains(last, w) {
					return false
				}
			}
			return true
		})
		t.Logf("%s: %s", flow, last)
	}

	locked.CreateTopic("krb-orders", 2, 1)
	plain.CreateTopic("krb-payments", 1, 1)
	next := testbed.Produce(t, locked, "krb-orders", testbed.Load{Records: 5000})
	testbed.Produce(t, plain, "krb-payments", testbed.Load{Records: 5000})
	k.start("run")
	k.await("krb-orders")
	held("plain->safe", "late@"+kdc.Name, "knows no principal late")

	file("mirror.keytab", mirror[:40]) // as if somebody had cut it short
	locked.Over(testbed.SASL).Proxy(0).Cut()
	held("kerberos->plain", "authentication", "mirror.keytab is none, or cut short")
	testbed.Produce(t, locked, "krb-orders", testbed.Load{Records: 1000, First: next})

	file("mirror.keytab", kdc.Principal("mirror")) // with new keys, so that nothing of before does
	file("late.keytab", kdc.Principal("late"))
	k.await("krb-orders")
	k.compare("krb-orders")
	testbed.Eventually(t, copyWithin, "payments to be there", func() bool { return ends(t, locked, "plain.krb-payments") == 5000 })
	testbed.Compare(t, plain, "krb-payments", locked, "plain.krb-payments")
}
