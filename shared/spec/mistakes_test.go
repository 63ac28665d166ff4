package spec_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kferry/kferry/shared/spec"
)

// What people get wrong about logins is said in their words, once, and nothing is said that they didn't get wrong.
func TestMistakesInLogins(t *testing.T) {
	dir := t.TempDir()
	for path, text := range map[string]string{"kafka/user/password": "hunter2", "kafka/user/empty": ""} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(path)), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, path), text)
	}
	properties := func(lines ...string) []string {
		return []string{"KFERRY_MIRROR=clusters = a, b\na.bootstrap.servers = a:1\nb.bootstrap.servers = b:1\na->b.enabled = true\n" + strings.Join(lines, "\n")}
	}
	resource := func(lines ...string) []string {
		return []string{"KFERRY_SECRETS_DIR=" + dir, `KFERRY_MIRROR=kind: KafkaMirrorMaker2
metadata: {namespace: kafka}
spec:
  target: {alias: b, bootstrapServers: "b:9092"}
  mirrors:
  - sourceConnector: {}
    source:
      alias: a
      bootstrapServers: a:9093
      ` + strings.Join(lines, "\n      ")}
	}
	const user, scram = "a.sasl.username = u\na.sasl.password = hunter2", "authentication: {type: scram-sha-512, username: u, passwordSecret: {secretName: user, password: password}}"
	for name, c := range map[string]struct {
		environ []string
		want    string // of the one mistake
	}{
		"a hyphen":                  {properties("a.security.protocol = SASL-SSL", "a.sasl.mechanism = PLAIN", user), "did you mean SASL_SSL?"},
		"no mechanism":              {properties("a.security.protocol = SASL_SSL", user), "sasl.mechanism is not given"},
		"quotes around all of JAAS": {properties("a.security.protocol = SASL_SSL", "a.sasl.mechanism = PLAIN", `a.sasl.jaas.config = "`+jaas("u")+`"`), "remove those around all of it"},
		"a provider misspelled":     {properties("a.security.protocol = SASL_SSL", "a.sasl.mechanism = PLAIN", "a.sasl.username = u", "a.sasl.password = ${flie:/x:y}"), "did you mean file?"},
		"a key misspelled":          {resource("tls: {}", strings.Replace(scram, "password: password", "password: pasword", 1)), `user has no file "pasword"; did you mean password?`},
		"an empty password":         {resource("tls: {}", strings.Replace(scram, "password: password", "password: empty", 1)), "passwordSecret.password: is empty"},
		"tls is true":               {resource("tls: true"), "tls: a single value stands where a map belongs"},
		"tls is a list":             {resource("tls: []"), "tls: a list stands where a map belongs"},
		"a certificate by its name": {resource("tls: {trustedCertificates: [ca]}"), "trustedCertificates[0]: a single value stands where a map belongs"},
		"a login that has no place": {resource("tls: {}", scram, "config: {security.protocol: SSL}"), "has no login, and KFERRY_MIRROR:"},
		"half a variable's login":   {plain("KFERRY_SOURCE_TLS_CERT_FILE=" + filepath.Join(dir, "kafka/user/password")), "CERT_FILE: is given without its key; give KFERRY_SOURCE_TLS_KEY_FILE too"},
		"a certificate without TLS": {resource("authentication: {type: tls, certificateAndKey: {secretName: user, certificate: password, key: password}}", "config: {security.protocol: PLAINTEXT}"), "has a certificate to be shown"},
	} {
		s, err := spec.Load(nil, c.environ)
		if err == nil || !strings.HasPrefix(err.Error(), "1 mistake ") || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") || s.Warnings != nil {
			t.Errorf("%s: %v %q", name, err, s.Warnings)
		}
	}

	s := load(t, properties("security.protocol = SASL_PLAINTEXT", "sasl.mechanism = PLAIN", user, "b.security.protocol = SASL_PLAINTEXT", "b.sasl.username = u\nb.sasl.password = hunter2")...)
	if len(s.Warnings) != 2 {
		t.Errorf("two passwords on the wire: %q", s.Warnings)
	}
	s = load(t, resource("tls:")...)
	if len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "tls: {} asks for TLS") || s.Cluster("a").Login != nil {
		t.Errorf("an empty tls: %q", s.Warnings)
	}
	s = load(t, plain("KFERRY_SOURCE_TLS_VERIFY_HOSTNAME=true", "KFERRY_SOURCE_PROPERTIES=sasl.mechanism=PLAIN\nsasl.username=u\nsasl.password=p")...)
	if got := s.Cluster("A").Login.Access(); got.Protocol != "SASL_SSL" || got.As != "u" || s.Warnings != nil {
		t.Errorf("a login in properties beside a variable of TLS: %v %q", got, s.Warnings)
	}
}
