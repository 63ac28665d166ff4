package testbed

import (
	"cmp"
	"context"
	"crypto/rsa"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/testcontainers/testcontainers-go"
	"github.com/twmb/franz-go/pkg/kadm"
)

// Listener is one of the secured ways to the brokers of a cluster [WithSecurity].
type Listener string

// The listeners. Their names don't end like those that apache/kafka's image has rules of its own for.
const (
	TLS     Listener = "TLS"      // security.protocol=SSL, and no client certificate is asked for
	MTLS    Listener = "MTLS"     // security.protocol=SSL with client certificates: the user is User:CN=…
	SASL    Listener = "SASL"     // security.protocol=SASL_PLAINTEXT
	SASLTLS Listener = "SASL_TLS" // security.protocol=SASL_SSL
)

// protocols are what the listeners speak, as listener.security.protocol.map says it.
var protocols = map[Listener]string{TLS: "SSL", MTLS: "SSL", SASL: "SASL_PLAINTEXT", SASLTLS: "SASL_SSL"}

// Protocol is what a client has to say as security.protocol.
func (l Listener) Protocol() string {
	if protocol, known := protocols[l]; known {
		return protocol
	}
	return protocols[TLS]
}

// The users that every secured cluster knows by password: with PLAIN, and with SCRAM but on 3.3.2, whose KRaft has no
// SCRAM yet.
const (
	User     = "kferry"
	Password = "kferry's \"secret\""
	Other    = "other" // whose password a test may change or delete
)

// Broker is the name in the brokers' first certificates.
const Broker = "broker"

// secrets is where files of [Cluster.PutFile] are in the broker's container.
const secrets = "/etc/kafka/secrets/"

// security is what a cluster's secured listeners stand on.
type security struct {
	authority *Authority
	tokenKey  *rsa.PrivateKey
	listeners []Listener
}

// WithSecurity gives every broker the listeners [TLS], [MTLS], [SASL] and [SASLTLS], with certificates of the authority.
// Where SASL is spoken, all of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER (see [Cluster.Tokens]) will do. Those
// of other names are like [TLS], for tests that spoil a certificate.
func WithSecurity(a *Authority, more ...Listener) KafkaOption {
	return func(c *kafkaConfig) {
		c.security = &security{
			authority: a,
			tokenKey:  newKey(a.t, true).(*rsa.PrivateKey),
			listeners: append(slices.Collect(maps.Keys(protocols)), more...),
		}
	}
}

// WithAuthorizer has the brokers keep to ACLs. The testbed's own clients may do everything.
func WithAuthorizer() KafkaOption {
	return func(c *kafkaConfig) {
		c.properties["authorizer.class.name"] = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
		c.properties["super.users"] = "User:ANONYMOUS" // whoever comes by the listener that has no login
	}
}

// WithFile puts a file into every broker's container before it starts.
func WithFile(name string, content []byte) KafkaOption {
	return func(c *kafkaConfig) { c.files[name] = content }
}

// WithJVM adds an option to the JVM of every broker, such as -Djava.security.krb5.conf=….
func WithJVM(option string) KafkaOption {
	return func(c *kafkaConfig) { c.jvm = append(c.jvm, option) }
}

// Over is the same cluster, which kferry finds by one of its secured listeners.
func (c *Cluster) Over(l Listener) *Cluster {
	view := &Cluster{t: c.t, version: c.version, security: c.security}
	for _, b := range c.brokers {
		own := *b
		own.endpoint = b.secured[l]
		view.brokers = append(view.brokers, &own)
	}
	return view
}

// Authority has issued the brokers' certificates, and issues those that they take.
func (c *Cluster) Authority() *Authority { return c.security.authority.For(c.t) }

// Truststore is a store of Java's, of a type that keytool knows, which trusts the authority alone.
func (c *Cluster) Truststore(kind, password string) []byte {
	c.t.Helper()
	broker := c.Broker(0)
	file := fmt.Sprintf("%struststore-%d", secrets, time.Now().UnixNano())
	broker.Exec(fmt.Sprintf("keytool -importcert -noprompt -alias authority -file %sauthority.pem -keystore %s -storetype %s -storepass %s", secrets, file, kind, password))
	return broker.file(file)
}

// Keystore is a store of Java's, of a type that keytool knows, with a client's key that keytool made, signed by the authority.
func (c *Cluster) Keystore(kind, password, name string) []byte {
	c.t.Helper()
	broker := c.Broker(0)
	file := fmt.Sprintf("%skeystore-%d", secrets, time.Now().UnixNano())
	keytool := func(command, more string) string {
		return fmt.Sprintf("keytool -%s -alias client -keystore %s -storetype %s -storepass %s -keypass %[4]s %s", command, file, kind, password, more)
	}
	request := broker.Exec(keytool("genkeypair", "-keyalg EC -keysize 256 -dname CN="+name) + " 2>/dev/null && " + keytool("certreq", "2>/dev/null"))
	broker.put(file+".pem", append(c.Authority().Sign(request), c.Authority().PEM()...))
	broker.Exec(keytool("importcert", "-noprompt -file "+file+".pem"))
	return broker.file(file)
}

// Present has the brokers show another certificate to whoever connects to a listener from now on. 3.3.2 takes only one
// of the same names as before, where the first is of [Broker].
func (c *Cluster) Present(l Listener, certificate *Certificate) {
	c.t.Helper()
	c.setStore(l, "ssl.keystore.location", certificate.StorePEM())
}

// Trust has the brokers take client certificates of other authorities than their own from now on.
func (c *Cluster) Trust(l Listener, authorities ...*Authority) {
	c.t.Helper()
	var all []byte
	for _, a := range authorities {
		all = append(all, a.PEM()...)
	}
	c.setStore(l, "ssl.truststore.location", all)
}

// setStore has the brokers read a store again: they notice another location.
func (c *Cluster) setStore(l Listener, key string, content []byte) {
	c.t.Helper()
	file := fmt.Sprintf("%s%s-%d.pem", secrets, strings.ToLower(string(l)), time.Now().UnixNano())
	for i, b := range c.brokers {
		ctx, cancel := context.WithTimeout(context.Background(), engineWithin)
		defer cancel()
		if err := b.ctr.CopyToContainer(ctx, content, file, 0o644); err != nil {
			c.t.Fatalf("%s to broker %d: %v", file, i, err)
		}
		c.setBrokerConfig(i, prefix(l)+key, file)
	}
}

func (c *Cluster) setBrokerConfig(broker int, key, value string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), brokerWithin)
	defer cancel()
	admin := c.Admin()
	defer admin.Close()
	answers, err := admin.AlterBrokerConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: key, Value: &value}}, int32(broker))
	for _, answer := range answers {
		if answer.Err != nil {
			err = cmp.Or(err, fmt.Errorf("%w: %s", answer.Err, answer.ErrMessage))
		}
	}
	if err != nil {
		c.t.Fatalf("set %s of broker %d: %v", key, broker, err)
	}
}

// mechanisms are those of SCRAM. A request may name a user once, so each has one of its own.
var mechanisms = []kadm.ScramMechanism{kadm.ScramSha256, kadm.ScramSha512}

// SetPassword gives a user a password for SCRAM, a new one or the first.
func (c *Cluster) SetPassword(user, password string) {
	c.t.Helper()
	for _, m := range mechanisms {
		c.alterUser(nil, []kadm.UpsertSCRAM{{User: user, Mechanism: m, Iterations: 4096, Password: password}})
	}
}

// DeleteUser takes a user's passwords for SCRAM away.
func (c *Cluster) DeleteUser(user string) {
	c.t.Helper()
	for _, m := range mechanisms {
		c.alterUser([]kadm.DeleteSCRAM{{User: user, Mechanism: m}}, nil)
	}
}

func (c *Cluster) alterUser(remove []kadm.DeleteSCRAM, set []kadm.UpsertSCRAM) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), brokerWithin)
	defer cancel()
	admin := c.Admin()
	defer admin.Close()
	answers, err := admin.AlterUserSCRAMs(ctx, remove, set)
	if err == nil {
		err = answers.Error()
	}
	if err != nil {
		c.t.Fatalf("passwords for SCRAM: %v", err)
	}
}

func prefix(l Listener) string { return "listener.name." + strings.ToLower(string(l)) + "." }

// hasSCRAM says whether a version has SCRAM in KRaft (KIP-900, 3.5).
func hasSCRAM(version string) bool { return version != V33 }

// properties are what brokers are told of the secured listeners, but for their addresses.
func (s *security) properties(version string) map[string]string {
	const modules = "org.apache.kafka.common.security."
	handler := modules + "oauthbearer.OAuthBearerValidatorCallbackHandler"
	if version == V33 {
		handler = modules + "oauthbearer.secured.OAuthBearerValidatorCallbackHandler"
	}
	all := map[string]string{
		"ssl.allow.dn.changes":               "true", // or only a certificate for the same names could be presented
		"ssl.allow.san.changes":              "true",
		"sasl.oauthbearer.jwks.endpoint.url": "file://" + secrets + "tokens.json",
	}
	if hasSCRAM(version) {
		all["delegation.token.secret.key"] = "testbed"
	}
	quoted := strings.ReplaceAll(strconv.Quote(Password), `\`, `\\`) // for JAAS, and then for server.properties
	for _, l := range s.listeners {
		protocol, own := l.Protocol(), map[string]string{"num.network.threads": "1"}
		if strings.HasSuffix(protocol, "SSL") {
			maps.Copy(own, map[string]string{
				"ssl.keystore.type": "PEM", "ssl.keystore.location": secrets + "broker.pem",
				"ssl.truststore.type": "PEM", "ssl.truststore.location": secrets + "authority.pem",
				"ssl.client.auth": "none",
			})
		}
		if l == MTLS {
			own["ssl.client.auth"] = "required"
		}
		if strings.HasPrefix(protocol, "SASL") {
			maps.Copy(own, map[string]string{
				"sasl.enabled.mechanisms":                        "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
				"plain.sasl.jaas.config":                         modules + "plain.PlainLoginModule required user_" + User + "=" + quoted + " user_" + Other + "=" + quoted + ";",
				"scram-sha-256.sasl.jaas.config":                 modules + "scram.ScramLoginModule required;",
				"scram-sha-512.sasl.jaas.config":                 modules + "scram.ScramLoginModule required;",
				"oauthbearer.sasl.jaas.config":                   modules + "oauthbearer.OAuthBearerLoginModule required;",
				"oauthbearer.sasl.server.callback.handler.class": handler,
				"oauthbearer.connections.max.reauth.ms":          "3600000", // or a connection would outlive its token
			})
		}
		for key, value := range own {
			all[prefix(l)+key] = value
		}
	}
	return all
}

// prepare has a cluster start with secured listeners.
func (s *security) prepare(version string, config *kafkaConfig) {
	properties := s.properties(version)
	maps.Copy(properties, config.properties) // which go before
	config.properties = properties
	broker := s.authority.Issue(Subject{Name: Broker})
	config.files[secrets+"broker.pem"] = broker.StorePEM()
	config.files[secrets+"authority.pem"] = s.authority.PEM()
	config.files[secrets+"tokens.json"] = keySet(&s.tokenKey.PublicKey)
	config.jvm = append(config.jvm, "-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=file://"+secrets+"tokens.json")
}

// containerFiles are files in the form that testcontainers takes them.
func containerFiles(files map[string][]byte) testcontainers.CustomizeRequestOption {
	var all []testcontainers.ContainerFile
	for _, name := range slices.Sorted(maps.Keys(files)) {
		all = append(all, testcontainers.ContainerFile{
			Reader: strings.NewReader(string(files[name])), ContainerFilePath: path.Clean(name), FileMode: 0o644,
		})
	}
	return testcontainers.WithFiles(all...)
}
