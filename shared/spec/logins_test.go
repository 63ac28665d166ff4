package spec_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kferry/kferry/shared/spec"
)

const plainJAAS = `org.apache.kafka.common.security.plain.PlainLoginModule required username="NAME" password="x";`

func jaas(name string) string { return strings.Replace(plainJAAS, "NAME", name, 1) }

// TestLoginsOfClients has each side of a flow log in as MirrorMaker's clients do there, later lines winning over earlier ones.
func TestLoginsOfClients(t *testing.T) {
	const base = "security.protocol = SASL_SSL\nsasl.mechanism = PLAIN\n"
	for _, test := range []struct {
		name           string
		lines          []string // KEY = USER
		source, target string   // users; "" is a mistake that names why
		why            string
	}{
		{"at the top", []string{"= top"}, "top", "top", ""},
		{"of a cluster", []string{"= top", "a. = a"}, "a", "top", ""},
		{"of a flow", []string{"= top", "a. = a", "a->b.source.cluster. = flow"}, "flow", "top", ""},
		{"of the other flow", []string{"= top", "b->a.source.cluster. = flow"}, "top", "top", ""},
		{"of consumers", []string{"= top", "a.consumer. = c"}, "c", "top", ""},
		{"of consumers of a flow", []string{"= top", "a.consumer. = c", "a->b.consumer. = d"}, "c", "top", ""},
		{"of the source's consumers of a flow", []string{"= top", "a.consumer. = c", "a->b.source.consumer. = d"}, "d", "top", ""},
		{"of a flow's consumers alone", []string{"= top", "a->b.consumer. = d"}, "d", "top", ""},
		{"of the source's producers, which write offset-syncs", []string{"= top", "a->b.source.producer. = p"}, "p", "top", ""},
		{"of the target's producers", []string{"= top", "b.producer. = q"}, "top", "q", ""},
		{"of Connect's producers", []string{"= top", "b.producer. = q", "a->b.producer.override. = r", "b.admin. = q"}, "", "", "kferry has one login"},
		{"of consumers and admins", []string{"= top", "a.consumer. = c", "a.admin. = c"}, "c", "top", ""},
		{"of consumers, and other admins", []string{"= top", "a.consumer. = c", "a.admin. = d"}, "", "", "a.consumer.sasl.jaas.config; kferry has one login for consumer, producer and admin"},
		{"of admins of both", []string{"= top", "a->b.admin. = ad"}, "ad", "ad", ""},
		{"where nobody looks", []string{"= top", "a->b. = bare"}, "", "", "write source.cluster.sasl.jaas.config"},
		{"where nobody looks either", []string{"= top", "a->b.consumer.override. = bare"}, "", "", "no client takes notice of it here"},
	} {
		t.Run(test.name, func(t *testing.T) {
			text := "clusters = a, b\na.bootstrap.servers = a:1\nb.bootstrap.servers = b:1\na->b.enabled = true\nemit.heartbeats.enabled = false\n" + base
			for _, line := range test.lines {
				prefix, user, _ := strings.Cut(line, "= ")
				text += strings.TrimSpace(prefix) + "sasl.jaas.config = " + jaas(user) + "\n"
			}
			s, err := spec.Load(nil, []string{"KFERRY_MIRROR=" + text})
			if test.source == "" {
				if err == nil || !strings.Contains(err.Error(), test.why) || strings.Contains(err.Error(), "PlainLoginModule") {
					t.Errorf("%v doesn't say %s", err, test.why)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			f := s.Flows[0]
			if source, target := s.Cluster(f.SourceKey()).Login.Access().As, s.Cluster(f.TargetKey()).Login.Access().As; source != test.source || target != test.target {
				t.Errorf("source as %s, target as %s; want %s and %s", source, target, test.source, test.target)
			}
		})
	}
}

// Java ends a quoted text at a quote and at the end of a line, also where they come from a file; a backslash means in both what it means there.
func TestReferencesWithinJAAS(t *testing.T) {
	for text, want := range map[string]string{`a"b`: `a"b`, "a\n": "a", "a\nb": "a\nb", `a\\b`: `a\b`, `a\"b`: `a"b`, "it's; = x": "it's; = x"} {
		s := load(t, "PW="+text, "KFERRY_MIRROR="+driver("a.security.protocol = SASL_SSL", "a.sasl.mechanism = PLAIN", "a.sasl.jaas.config = "+strings.Replace(jaas("u"), `"x"`, `"${env:PW}"`, 1)))
		if got := password(t, s.Cluster("a").Login); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
		s = load(t, "JAAS="+jaas("whole"), "KFERRY_MIRROR="+driver("a.security.protocol = SASL_SSL", "a.sasl.mechanism = PLAIN", "a.sasl.jaas.config = ${env:JAAS}"))
		if got := s.Cluster("a").Login.Access().As; got != "whole" {
			t.Errorf("the whole of it: %s", got)
		}
	}
}

// Variables of a login are client properties, over TLS unless another protocol is asked for.
func TestLoginVariables(t *testing.T) {
	for _, test := range []struct {
		environ []string
		want    string // of the source, or a mistake
	}{
		{nil, "PLAINTEXT"},
		{[]string{"TLS_VERIFY_HOSTNAME=true"}, "SSL; trusts whom the system trusts"},
		{[]string{"TLS_CA_FILE=testdata/references/ca.crt", "TLS_VERIFY_HOSTNAME=False"}, "SSL; trusts CN=ca1 (until 2126-11-02); names of hosts are not checked"},
		{[]string{"TLS_CERT_FILE=testdata/references/user.crt", "TLS_KEY_FILE=testdata/references/user.key"}, "SSL, with certificate CN=mirror (until 2126-11-02); trusts whom the system trusts"},
		{[]string{"SASL_MECHANISM=PLAIN", "SASL_USERNAME=u", "SASL_PASSWORD=p"}, `SASL_SSL, PLAIN as "u"; trusts whom the system trusts`},
		{[]string{"SECURITY_PROTOCOL=sasl_plaintext", "SASL_MECHANISM=PLAIN", "SASL_USERNAME=u", "SASL_PASSWORD=p"}, `SASL_PLAINTEXT, PLAIN as "u"`},
		{[]string{"SASL_MECHANISM=PLAIN", "SASL_JAAS_CONFIG=" + jaas("j")}, `SASL_SSL, PLAIN as "j"; trusts whom the system trusts`},
		{[]string{"OAUTH_TOKEN_ENDPOINT=https://idp/token", "OAUTH_CLIENT_ID=i", "OAUTH_CLIENT_SECRET=s", "OAUTH_SCOPE=k"}, `SASL_SSL, OAUTHBEARER as "i"; trusts whom the system trusts`},
		{[]string{"PROPERTIES=security.protocol=SSL\nssl.endpoint.identification.algorithm=\n"}, "SSL; trusts whom the system trusts; names of hosts are not checked"},
		{[]string{"PROPERTIES=sasl.mechanism = PLAIN", "SASL_USERNAME=u", "SASL_PASSWORD=p"}, `SASL_SSL, PLAIN as "u"; trusts whom the system trusts`},
		{[]string{"SASL_MECHANISM=PLAIN", "SASL_USERNAME=u", "SASL_PASSWORD=${env:PW}"}, `SASL_SSL, PLAIN as "u"; trusts whom the system trusts`},
		{[]string{"PROPERTIES=sasl.mechanism = PLAIN", "SASL_MECHANISM=GSSAPI"}, "PROPERTIES has another sasl.mechanism"},
		{[]string{"SASL_PASSWORD=p", "SASL_PASSWORD_FILE=/x"}, "is set, and so is KFERRY_SOURCE_SASL_PASSWORD_FILE"},
		{[]string{"SASL_MECHANISM=PLAIN", "SASL_USERNAME=u", "SASL_PASSWORD_FILE=/nowhere/password"}, "KFERRY_SOURCE_SASL_PASSWORD_FILE: ${directory:/nowhere/:password}: /nowhere/password: there is no such file"},
		{[]string{"TLS_KEY_FILE=/a:b"}, "a path can't have a colon"},
		{[]string{"TLS_VERIFY_HOSTNAME=perhaps"}, "neither true nor false"},
		{[]string{"SASL_USERNAME=u"}, "KFERRY_SOURCE_SASL_MECHANISM is not set"},
		{[]string{"SASL_MECHANSIM=PLAIN"}, "did you mean KFERRY_SOURCE_SASL_MECHANISM?"},
		{[]string{"PROPERTIES=/nowhere"}, "there is no such file"},
		{[]string{"SECURITY_PROTOCOL=PLAINTEXT", "SASL_MECHANISM=PLAIN"}, "PLAINTEXT"},
	} {
		var environ []string
		for _, entry := range test.environ {
			environ = append(environ, "KFERRY_SOURCE_"+entry)
		}
		s, err := spec.Load(nil, plain(append(environ, "PW=x")...))
		if err != nil {
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("%q: %v, want %s", test.environ, err, test.want)
			}
			continue
		}
		if got := s.Cluster("A").Login.Access().String(); got != test.want {
			t.Errorf("%q: %s, want %s", test.environ, got, test.want)
		}
		if s.Cluster("B").Login != nil {
			t.Errorf("%q: the target too", test.environ)
		}
	}
}

// What a variable holds stays there: other forms refer to it, and a shell has it set.
func TestSecretsOfVariablesStayThere(t *testing.T) {
	environ := plain("KFERRY_TARGET_SASL_MECHANISM=PLAIN", "KFERRY_TARGET_SASL_USERNAME=u", "KFERRY_TARGET_SASL_PASSWORD=secret-x")
	s := load(t, environ...)
	text, warnings, err := spec.Write(s, spec.Env, false)
	if err != nil || strings.Contains(text, "secret-x") || len(warnings) != 1 || !strings.HasPrefix(warnings[0], "KFERRY_TARGET_SASL_PASSWORD, which holds a secret") || !strings.Contains(text, "export KFERRY_TARGET_SASL_USERNAME='u'\n") {
		t.Errorf("%v, %q\n%s", err, warnings, text)
	}
	if text, _, err := spec.Write(s, spec.Env, true); err != nil || !strings.Contains(text, "export KFERRY_TARGET_SASL_PASSWORD='secret-x'\n") {
		t.Errorf("%v\n%s", err, text)
	}
	text, _, err = spec.Write(s, spec.Properties, false)
	if err != nil || !strings.Contains(text, `PlainLoginModule required username="u" password="${env:KFERRY_TARGET_SASL_PASSWORD}";`) {
		t.Errorf("%v\n%s", err, text)
	}
	again := load(t, "KFERRY_MIRROR="+text, "KFERRY_TARGET_SASL_PASSWORD=secret-x")
	if got := password(t, again.Cluster("B").Login); got != "secret-x" {
		t.Errorf("password %s", got)
	}
	if _, err := spec.Load(nil, []string{"KFERRY_MIRROR=" + text, "KFERRY_TARGET_SASL_PASSWORD=secret-x", "KFERRY_TARGET_SASL_USERNAME=u"}); err == nil || !strings.Contains(err.Error(), "KFERRY_TARGET_SASL_USERNAME: describes a flow") {
		t.Error(err)
	}
}

// A heartbeat names its source and doesn't speak to it, so its word makes no second login there. Mirrors of one flow have to agree.
func TestLoginsOfMirrors(t *testing.T) {
	s := load(t, "KFERRY_MIRROR=clusters = a, b, c\na.bootstrap.servers = a:1\nb.bootstrap.servers = b:1\nc.bootstrap.servers = c:1\na->b.enabled = true\n"+
		"a.security.protocol = SASL_SSL\na.sasl.mechanism = PLAIN\na.sasl.jaas.config = "+jaas("a")+"\na.consumer.sasl.jaas.config = "+jaas("reader")+"\nemit.heartbeats.enabled = false\na->c.emit.heartbeats.enabled = true\na->b.emit.heartbeats.enabled = true\n")
	var keys []string
	for _, c := range s.Clusters {
		keys = append(keys, c.Key()+" "+c.Login.Access().As)
	}
	if got := strings.Join(keys, ","); got != "a reader,b ,c " {
		t.Errorf("clusters %s", got)
	}
	const two = `KFERRY_MIRROR=spec:
  target: {alias: t, bootstrapServers: "t:1"}
  mirrors:
  - source: {alias: a, bootstrapServers: "a:1", tls: {}}
    topicsPattern: orders
    sourceConnector: {}
  - source: {alias: a, bootstrapServers: "a:1", tls: TLS}
    topicsPattern: payments
    sourceConnector: {config: {source.cluster.sasl.password: x, source.cluster.sasl.username: USER, source.cluster.sasl.mechanism: PLAIN, source.cluster.security.protocol: SASL_SSL}}
`
	_, err := spec.Load(nil, []string{strings.NewReplacer("TLS}", "{}}", "USER", "u").Replace(two)})
	if err == nil || !strings.Contains(err.Error(), "a->t logs in to a as somebody else than is said elsewhere") {
		t.Error(err)
	}
}

// What a document says of a provider holds for its references, whatever other documents say.
func TestProvidersOfDocuments(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"one", "two"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name, "x.properties"), "user = "+name)
	}
	document := func(target, allowed, user string) string {
		text := `
kind: KafkaMirrorMaker2
spec:
  connectCluster: NAME
  clusters:
  - alias: source
    bootstrapServers: s:9092
  - alias: NAME
    bootstrapServers: NAME:9092
    config:
      config.providers: x
      config.providers.x.class: org.apache.kafka.common.config.provider.FileConfigProvider
      config.providers.x.param.allowed.paths: DIR/ALLOWED
      security.protocol: SASL_SSL
      sasl.mechanism: PLAIN
      sasl.username: ${x:DIR/USER/x.properties:user}
      sasl.password: p
  mirrors: [{sourceCluster: source, targetCluster: NAME, sourceConnector: {}}]
`
		return strings.NewReplacer("NAME", target, "DIR", dir, "ALLOWED", allowed, "USER", user).Replace(text)
	}
	s := load(t, "KFERRY_MIRROR="+document("a", "one", "one")+"---"+document("b", "two", "two"))
	if a, b := s.Cluster("a").Login.Access().As, s.Cluster("b").Login.Access().As; a != "one" || b != "two" {
		t.Errorf("%s, %s", a, b)
	}
	for _, format := range []spec.Format{spec.Properties, spec.StrimziV1, spec.Env} {
		if text, _, err := spec.Write(s, format, true); err != nil || !strings.Contains(text, "${x:"+dir+"/two/x.properties:user}") {
			t.Errorf("%s: %v\n%s", format, err, text)
		}
	}
	others := strings.NewReplacer(": x\n", ": y\n", ".x.", ".y.", "${x:", "${y:").Replace(document("b", "two", "two"))
	for _, other := range []string{document("b", "two", "two"), others} {
		_, err := spec.Load(nil, []string{"KFERRY_MIRROR=" + document("a", "one", "two") + "---" + other})
		if err == nil || !strings.Contains(err.Error(), "is outside of "+dir+"/one") {
			t.Errorf("a path that only another document allows: %v", err)
		}
	}
}
