package testbed

import (
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/testcontainers/testcontainers-go"
)

const kdcWithin = 15 * time.Second // from the start of the container until it answers

// Realm is a Kerberos realm with a KDC of its own, MIT's.
type Realm struct {
	*Container
	Name string

	t    T
	port int
}

// KDC starts a realm that ends with the test.
func KDC(t T) *Realm {
	t.Helper()
	r := &Realm{Name: "KFERRY.TEST", t: t, port: freePort(t)}
	var err error
	r.Container, err = startContainer(t, "KDC", "kferry/kdc", testcontainers.WithEnv(map[string]string{"REALM": r.Name, "PORT": strconv.Itoa(r.port)}))
	if err == nil {
		err = poll(t.Context(), kdcWithin, func() error {
			conn, err := net.DialTimeout("tcp", address(r.port), time.Second)
			if err == nil {
				_ = conn.Close()
			}
			return err
		})
	}
	if err != nil {
		t.Fatalf("KDC: %v", err)
	}
	return r
}

// Conf is the realm's krb5.conf.
func (r *Realm) Conf() string {
	return fmt.Sprintf("[libdefaults]\n  default_realm = %[1]s\n  dns_lookup_kdc = false\n[realms]\n  %[1]s = {\n    kdc = %[2]s\n  }\n", r.Name, address(r.port))
}

// ConfFile is the same as a file on this machine.
func (r *Realm) ConfFile() string { r.t.Helper(); return r.file("krb5.conf", []byte(r.Conf())) }

// Principal makes one, and returns its keys as a keytab. Where it exists, it gets new keys, and the old ones are worth
// nothing.
func (r *Realm) Principal(name string) []byte {
	r.t.Helper()
	const keytab = "/tmp/keytab"
	r.Admin("add_principal -randkey " + name)
	r.Exec("rm -f " + keytab)
	r.Admin("ktadd -k " + keytab + " " + name)
	encoded := r.Exec("base64 " + keytab)
	content, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(encoded), ""))
	if err != nil {
		r.t.Fatalf("keytab of %s: %v", name, err)
	}
	return content
}

// Admin runs a command of kadmin's.
func (r *Realm) Admin(command string) string {
	r.t.Helper()
	return r.Exec("kadmin.local -p admin -q '" + command + "' 2>&1")
}

func (r *Realm) file(name string, content []byte) string {
	r.t.Helper()
	path := filepath.Join(r.t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		r.t.Fatalf("%v", err)
	}
	return path
}

// BrokerPrincipal is who every broker is in a cluster [WithKerberos]: what Java and kferry alike make of 127.0.0.1.
const BrokerPrincipal = "kafka/localhost"

// WithKerberos has a cluster [WithSecurity] take GSSAPI too, where it takes other mechanisms of SASL. A connection has to
// show a ticket every few seconds.
func WithKerberos(r *Realm) KafkaOption {
	return func(c *kafkaConfig) {
		c.files[secrets+"krb5.conf"] = []byte(r.Conf())
		c.files[secrets+"broker.keytab"] = r.Principal(BrokerPrincipal)
		c.jvm = append(c.jvm, "-Djava.security.krb5.conf="+secrets+"krb5.conf")
		c.properties["sasl.kerberos.service.name"] = "kafka"
		for _, l := range []Listener{SASL, SASLTLS} {
			c.properties[prefix(l)+"sasl.enabled.mechanisms"] = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER,GSSAPI"
			c.properties[prefix(l)+"gssapi.connections.max.reauth.ms"] = "4000"
			c.properties[prefix(l)+"gssapi.sasl.jaas.config"] = fmt.Sprintf(
				`com.sun.security.auth.module.Krb5LoginModule required useKeyTab=true storeKey=true keyTab="%sbroker.keytab" principal="%s@%s";`, secrets, BrokerPrincipal, r.Name)
		}
	}
}
