package cli_test

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/kferry/kferry/shared/local"
	"github.com/kferry/kferry/shared/spec"
)

// Every secret of these tests has this word in it, but for keys, which can't have any.
const mark = "geheim"

// A vault knows the secrets that were planted.
type vault struct {
	*testing.T
	dir     string
	needles map[string]bool
}

func newVault(t *testing.T) *vault {
	v := &vault{T: t, dir: t.TempDir(), needles: map[string]bool{}}
	for _, of := range []string{mark, strings.ToUpper(mark[:1]) + mark[1:]} {
		v.needles[of] = true
		v.needles[hex.EncodeToString([]byte(of))] = true
		for shift := range 3 { // where it may begin in what is encoded
			text := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("-", shift) + of))
			v.needles[text[[]int{0, 2, 3}[shift]:len(text)-1]] = true
		}
	}
	return v
}

// file keeps a text in a file.
func (v *vault) file(name, text string) string {
	v.Helper()
	path := filepath.Join(v.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		v.Fatal(err)
	}
	return path
}

// pair are a certificate and its key, whose lines are secrets.
func (v *vault) pair() (certificate, key []byte) {
	v.Helper()
	a, err := local.NewAuthority("kferry test")
	if err == nil {
		certificate, key, err = a.Sign("client")
	}
	if err != nil {
		v.Fatal(err)
	}
	block, _ := pem.Decode(key)
	body := base64.StdEncoding.EncodeToString(block.Bytes)
	v.needles[body[60:90]], v.needles[body[100:130]] = true, true
	return certificate, key
}

// closed fails where a text gives a secret away.
func (v *vault) closed(what, text string) {
	v.Helper()
	for needle := range v.needles {
		if at := strings.Index(text, needle); at >= 0 {
			v.Errorf("%s gives %q away:\n…%s…", what, needle, text[max(0, at-300):min(len(text), at+200)])
			return
		}
	}
}

func TestTheVaultFindsSecrets(t *testing.T) {
	for shift := range 4 {
		secret := strings.Repeat("x", shift) + mark + "-1"
		for _, text := range []string{
			secret, base64.StdEncoding.EncodeToString([]byte(secret)), base64.RawURLEncoding.EncodeToString([]byte(secret)), hex.EncodeToString([]byte(secret)),
			url.QueryEscape(secret), fmt.Sprintf("%q", secret),
		} {
			found := false
			for needle := range newVault(t).needles {
				found = found || strings.Contains("before "+text+" behind", needle)
			}
			if !found {
				t.Errorf("%q is not found", text)
			}
		}
	}
}

// lock has two clusters with passwords, and the servers of both.
func lock(t *testing.T, records int) (source, target string, copied func() int64) {
	t.Helper()
	start := func(mechanism, user string, options ...kfake.Opt) *kfake.Cluster {
		c, err := kfake.NewCluster(append(options, kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser(mechanism, user, mark+"-"+user))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	from, to := start("PLAIN", "reader", kfake.SeedTopics(1, "orders")), start("SCRAM-SHA-256", "writer")
	return strings.Join(from.ListenAddrs(), ","), strings.Join(to.ListenAddrs(), ","), func() int64 {
		if to.TopicInfo("dc.orders") == nil {
			return -1
		}
		return to.PartitionInfo("dc.orders", 0).HighWatermark
	}
}

// Commands that read the configuration and end: what each form is told to, and what is told to one alone, since it is the same for all.
var (
	tellsOfInput    = [][]string{{"validate"}, {"convert", "--to", "mm2"}, {"convert", "--to", "strimzi-v1"}, {"convert", "--to", "env"}}
	tellsOfClusters = [][]string{
		{"validate", "--connect"}, {"status"}, {"status", "-o", "json"}, {"groups"}, {"gaps", "-o", "json"}, {"limit", "dc->central"}, {"pause", "dc->central"}, {"unpause", "dc->central"},
		{"offsets", "list", "dc->central"}, {"verify"}, {"resume", "dc->central", "--restart", "--dry-run"},
	}
	tellsOfRefusal = [][]string{{"status", "-o", "json"}}
)

// forms are the ways to give the two clusters and who one is there. Those of a form that is wrong have a password that is.
func (v *vault) forms(source, target string, reader, writer string) map[string]struct{ args, environ []string } {
	plainLogin := `org.apache.kafka.common.security.plain.PlainLoginModule required username="reader" password="` + reader + `";`
	scramLogin := `org.apache.kafka.common.security.scram.ScramLoginModule required username="writer" password="` + writer + `";`
	yaml := `
kind: KafkaMirrorMaker2
apiVersion: kafka.strimzi.io/v1beta2
metadata: {name: m, namespace: n}
spec:
  connectCluster: central
  clusters:
  - {alias: dc, bootstrapServers: '` + source + `', authentication: {type: plain, username: reader, passwordSecret: {secretName: p, password: reader}}}
  - {alias: central, bootstrapServers: '` + target + `', authentication: {type: scram-sha-256, username: writer, passwordSecret: {secretName: p, password: writer}}}
  mirrors: [{sourceCluster: dc, targetCluster: central, topicsPattern: orders, sourceConnector: {}, checkpointConnector: {}}]
---
{kind: Secret, apiVersion: v1, metadata: {name: p, namespace: n}, stringData: {reader: '` + reader + `'}, data: {writer: ` + base64.StdEncoding.EncodeToString([]byte(writer)) + `}}
`
	properties := `clusters = dc, central
dc.bootstrap.servers = ` + source + `
central.bootstrap.servers = ` + target + `
dc.security.protocol = SASL_PLAINTEXT
dc.sasl.mechanism = PLAIN
dc.sasl.jaas.config = ` + plainLogin + `
central.security.protocol = SASL_PLAINTEXT
central.sasl.mechanism = SCRAM-SHA-256
central.sasl.jaas.config = org.apache.kafka.common.security.scram.ScramLoginModule required username="writer" password="${env:WRITER}";
config.providers = env
config.providers.env.class = org.apache.kafka.common.config.provider.EnvVarConfigProvider
dc->central.enabled = true
dc->central.topics = orders
`
	servers := []string{
		"KFERRY_SOURCE_ALIAS=dc", "KFERRY_SOURCE_BOOTSTRAP_SERVERS=" + source, "KFERRY_TARGET_ALIAS=central", "KFERRY_TARGET_BOOTSTRAP_SERVERS=" + target,
		"KFERRY_TOPICS=orders", "KFERRY_SOURCE_SECURITY_PROTOCOL=SASL_PLAINTEXT", "KFERRY_TARGET_SECURITY_PROTOCOL=SASL_PLAINTEXT",
	}
	return map[string]struct{ args, environ []string }{
		"variables": {nil, append(slices.Clone(servers), "KFERRY_SOURCE_SASL_MECHANISM=PLAIN", "KFERRY_SOURCE_SASL_USERNAME=reader", "KFERRY_SOURCE_SASL_PASSWORD="+reader,
			"KFERRY_TARGET_SASL_MECHANISM=SCRAM-SHA-256", "KFERRY_TARGET_SASL_JAAS_CONFIG="+scramLogin)},
		"variables of files": {nil, append(slices.Clone(servers), "KFERRY_SOURCE_SASL_MECHANISM=PLAIN", "KFERRY_SOURCE_SASL_USERNAME=reader", "KFERRY_SOURCE_SASL_PASSWORD_FILE="+v.file("reader", reader),
			"KFERRY_TARGET_PROPERTIES=sasl.mechanism=SCRAM-SHA-256\nsasl.jaas.config="+scramLogin)},
		"resource":            {[]string{"-f", v.file("m.yaml", yaml)}, nil},
		"resource as text":    {nil, []string{"KFERRY_MIRROR=" + yaml}},
		"properties":          {[]string{"-f", v.file("mm2.properties", properties)}, []string{"WRITER=" + writer}},
		"properties, as text": {nil, []string{"WRITER=" + writer, "KFERRY_MIRROR=" + properties}},
	}
}

// settings are what a process has beside its clusters, with a secret everywhere.
func (v *vault) settings(queue string) []string {
	certificate, key := v.pair()
	return []string{
		"KFERRY_LOG_LEVEL=debug", "KFERRY_DATA=" + filepath.Join(v.dir, "data"), "NATS_URL=" + queue, "KFERRY_HTTP_TOKEN=" + mark + "-of-the-front-door",
		"KFERRY_HTTP_TLS_CERT=" + v.file("http.crt", string(certificate)), "KFERRY_HTTP_TLS_KEY=" + v.file("http.key", string(key)), "UNRELATED=" + mark,
	}
}

// Whatever is planted, in whatever form, and whether it is right or wrong: no command, log or page gives it away.
func TestNoSecretIsGivenAway(t *testing.T) {
	t.Parallel()
	source, target, _ := lock(t, 10)
	queue, err := local.StartNATS(t.TempDir(), local.NATSListen("127.0.0.1:0"), local.NATSServer(func(o *server.Options) {
		o.Users = []*server.User{{Username: "kferry", Password: mark + "-nats"}}
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(queue.Close)
	at := strings.TrimPrefix(queue.URL(), "nats://")
	for _, right := range []bool{true, false} {
		v := newVault(t)
		reader, writer, nats := mark+"-reader", mark+"-writer", mark+"-nats"
		if !right {
			reader, writer, nats = mark+"-wrong-reader", mark+"-wrong-writer", mark+"-wrong-nats"
		}
		for name, form := range v.forms(source, target, reader, writer) {
			environ := slices.Concat(form.environ, v.settings("nats://kferry:"+nats+"@"+at), []string{"NATS_TIMEOUT=1s", "KFERRY_NAME=" + map[bool]string{true: "right", false: "wrong"}[right]})
			t.Run(fmt.Sprintf("%s %t", name, right), func(t *testing.T) {
				t.Parallel()
				v := &vault{T: t, dir: v.dir, needles: v.needles}
				commands := tellsOfInput
				switch {
				case name == "variables" && right:
					commands = append(slices.Clone(commands), tellsOfClusters...)
				case name == "resource" && !right:
					commands = append(slices.Clone(commands), tellsOfRefusal...)
				}
				for _, command := range commands {
					code, out, text := kferry(t, environ, slices.Concat(command, form.args)...)
					v.closed("kferry "+strings.Join(command, " "), out+text)
					if command[0] == "validate" && right && code != 0 {
						t.Errorf("%q: exit code %d\n%s%s", command, code, out, text)
					}
				}
			})
		}
	}
}

// Processes that go on tell most: they log at debug level, serve /metrics, and crash.
func TestNoProcessGivesASecretAway(t *testing.T) {
	t.Parallel()
	source, target, copied := lock(t, 10)
	v := newVault(t)
	for name, passwords := range map[string][2]string{"right": {mark + "-reader", mark + "-writer"}, "wrong": {mark + "-no-reader", mark + "-no-writer"}} {
		for form, given := range v.forms(source, target, passwords[0], passwords[1]) {
			if form != map[string]string{"right": "variables", "wrong": "resource"}[name] {
				continue // the others lead to the same
			}
			t.Run(name+" "+form, func(t *testing.T) {
				t.Parallel()
				v := &vault{T: t, dir: t.TempDir(), needles: maps.Clone(v.needles)}
				address := freeAddress(t)
				var text buffer
				cmd := exec.Command(os.Args[0], append([]string{"run"}, given.args...)...)
				cmd.Env = slices.Concat([]string{"TEST_AS_KFERRY=1", "GOTRACEBACK=all", "KFERRY_HTTP=" + address}, v.settings("")[:2], v.settings("")[3:], given.environ)
				cmd.Stdout, cmd.Stderr = &text, &text
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, Timeout: 5 * time.Second}
				metrics := ""
				eventually(t, "metrics", func() bool {
					metrics = body(client, "https://"+address+"/metrics")
					ok := strings.Contains(metrics, "kferry_build_info")
					if name == "right" {
						return ok && copied() >= 0
					}
					return ok && strings.Contains(metrics, "kferry_")
				})
				eventually(t, "the log at debug level", func() bool { return strings.Contains(text.String(), `"level":"DEBUG"`) })
				if name == "wrong" {
					eventually(t, "a refused login", func() bool { return strings.Contains(strings.ToLower(text.String()), "authentication") })
				}
				for _, path := range []string{"/metrics", "/healthz", "/readyz", "/none", "/debug/pprof/cmdline", "/debug/vars"} {
					v.closed(path, body(client, "https://"+address+path))
				}
				if url, err := local.FindNATS(filepath.Join(v.dir, "data")); err != nil || url.Login.Token.Text == "" {
					t.Errorf("no queue: %v", err)
				} else {
					v.needles[string(url.Login.Token.Text)] = true
				}
				if err := cmd.Process.Signal(syscall.SIGQUIT); err != nil { // as it crashes: every goroutine with what it was called with
					t.Fatal(err)
				}
				_ = cmd.Wait()
				if !strings.Contains(text.String(), "goroutine ") || !strings.Contains(text.String(), `"level":"DEBUG"`) {
					t.Errorf("no crash, or no log at debug level:\n%s", text.String()[:min(2000, text.Len())])
				}
				v.closed("the log", text.String())
			})
		}
	}
}

func body(client *http.Client, url string) string {
	answer, err := client.Get(url)
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	var text bytes.Buffer
	_, _ = text.ReadFrom(answer.Body)
	return fmt.Sprint(answer.Header) + text.String()
}

// What is wrong with an input is said without what is secret in it, wherever somebody may have put that.
func TestNoMistakeGivesASecretAway(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	_, key := v.pair()
	answers := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, `{"error":"invalid_client","error_description":"%s %s is not right","access_token":"%s-token"}`, r.Header.Get("Authorization"), r.Form.Get("client_secret"), mark)
	}))
	t.Cleanup(answers.Close)
	least := []string{"KFERRY_SOURCE_ALIAS=dc", "KFERRY_SOURCE_BOOTSTRAP_SERVERS=127.0.0.1:1", "KFERRY_TARGET_ALIAS=central", "KFERRY_TARGET_BOOTSTRAP_SERVERS=127.0.0.1:1"}
	variables := func(more ...string) []string { return append(slices.Clone(least), more...) }
	properties := func(lines ...string) []string {
		return []string{"KFERRY_MIRROR=clusters=dc,central\ndc.bootstrap.servers=127.0.0.1:1\ncentral.bootstrap.servers=127.0.0.1:1\ndc->central.enabled=true\n" + strings.Join(lines, "\n")}
	}
	yaml := func(cluster string, more ...string) []string {
		return []string{"KFERRY_MIRROR=kind: KafkaMirrorMaker2\napiVersion: kafka.strimzi.io/v1beta2\nmetadata: {name: m}\nspec:\n  connectCluster: central\n  clusters:\n" +
			"  - {alias: central, bootstrapServers: '127.0.0.1:1'}\n  - {alias: dc, bootstrapServers: '127.0.0.1:1', " + cluster + "}\n" +
			"  mirrors: [{sourceCluster: dc, targetCluster: central, sourceConnector: {}}]\n" + strings.Join(more, "\n")}
	}
	const secret = mark + "-1"
	oauth := []string{"KFERRY_SOURCE_SECURITY_PROTOCOL=SASL_PLAINTEXT", "KFERRY_SOURCE_SASL_MECHANISM=OAUTHBEARER", "KFERRY_SOURCE_OAUTH_CLIENT_ID=me", "KFERRY_SOURCE_OAUTH_CLIENT_SECRET=" + secret}
	cases := map[string][]string{
		"login in addresses":            variables("KFERRY_SOURCE_BOOTSTRAP_SERVERS=me:" + secret + "@host:9092"),
		"login in addresses of YAML":    yaml("bootstrapServers: 'me:" + secret + "@host:1'"),
		"password without user":         variables("KFERRY_SOURCE_SASL_PASSWORD=" + secret),
		"JAAS without an end":           variables("KFERRY_SOURCE_SASL_MECHANISM=PLAIN", `KFERRY_SOURCE_SASL_JAAS_CONFIG=PlainLoginModule required username="u" password="`+secret),
		"JAAS of a strange module":      variables("KFERRY_SOURCE_SASL_MECHANISM=PLAIN", `KFERRY_SOURCE_SASL_JAAS_CONFIG=com.`+mark+`.Login required password="`+secret+`";`),
		"JAAS that is a password":       variables("KFERRY_SOURCE_SASL_MECHANISM=SCRAM-SHA-256", "KFERRY_SOURCE_SASL_JAAS_CONFIG="+secret),
		"a name that is nearly right":   variables("KFERRY_SOURCE_SASL_PASWORD=" + secret),
		"key with a typo":               properties("dc.sasl.jaas.confg=" + secret),
		"unknown key of ssl":            properties("dc.ssl.truststore.passwort=" + secret),
		"truststore that isn't there":   properties("dc.security.protocol=SSL", "dc.ssl.truststore.location=/none", "dc.ssl.truststore.password="+secret),
		"truststore that is none":       properties("dc.security.protocol=SSL", "dc.ssl.truststore.location="+v.file("store", secret), "dc.ssl.truststore.password="+secret),
		"key that is none":              properties("dc.security.protocol=SSL", "dc.ssl.keystore.type=PEM", "dc.ssl.keystore.key="+secret, "dc.ssl.keystore.certificate.chain="+secret),
		"key without its certificate":   properties("dc.security.protocol=SSL", "dc.ssl.keystore.type=PEM", "dc.ssl.keystore.key="+strings.ReplaceAll(string(key), "\n", `\n`)),
		"key without its chain in YAML": yaml("tls: {}, authentication: {type: tls, certificateAndKey: {secretName: s, certificate: c, key: k}}", "---", "{kind: Secret, metadata: {name: s}, stringData: {c: "+secret+", k: "+secret+"}}"),
		"password in the open":          yaml("authentication: {type: plain, username: me, password: " + secret + "}"),
		"a Secret that lacks the key":   yaml("authentication: {type: plain, username: me, passwordSecret: {secretName: s, password: p}}", "---", "{kind: Secret, metadata: {name: s}, stringData: {q: "+secret+"}}"),
		"a Secret that isn't base64":    yaml("authentication: {type: plain, username: me, passwordSecret: {secretName: s, password: p}}", "---", "{kind: Secret, metadata: {name: s}, data: {p: '"+secret+"!'}}"),
		"a Secret that is a list":       yaml("authentication: {type: plain, username: me, passwordSecret: {secretName: s, password: p}}", "---", "{kind: Secret, metadata: {name: s}, data: {p: ["+secret+"]}}"),
		"text that is none":             {"KFERRY_MIRROR=password: [" + secret + "\n: " + secret},
		"token endpoint that is none":   variables(append(oauth, "KFERRY_SOURCE_OAUTH_TOKEN_ENDPOINT=ftp://me:"+secret+"@host/t")...),
		"token endpoint with a login":   variables(append(oauth, "KFERRY_SOURCE_OAUTH_TOKEN_ENDPOINT=http://me:"+secret+"@127.0.0.1:1/t")...),
		"token endpoint that refuses":   variables(append(oauth, "KFERRY_SOURCE_OAUTH_TOKEN_ENDPOINT="+answers.URL)...),
		"NATS' URL":                     variables("NATS_URL=http://me:" + secret + "@host"),
		"NATS' URL with a stray sign":   variables("NATS_URL=nats://me:" + secret + "%zz@host:4222"),
		"NATS' credentials":             variables("NATS_URL=127.0.0.1:1", "NATS_CREDS="+v.file("creds", secret)),
		"NATS' seed":                    variables("NATS_URL=127.0.0.1:1", "NATS_NKEY="+v.file("seed", "S"+secret)),
		"NATS' JWT":                     variables("NATS_URL=127.0.0.1:1", "NATS_JWT="+secret, "NATS_SEED="+secret),
		"HTTP's token":                  variables("KFERRY_HTTP_TOKEN=" + secret),
		"a number that is a password":   variables("KFERRY_SLOTS=7", "KFERRY_HTTP_TLS_CLIENT_CA="+v.file("ca", secret)),
	}
	for name, environ := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := &vault{T: t, needles: v.needles}
			environ := append(environ, "KFERRY_LOG_LEVEL=debug", "KFERRY_DATA="+t.TempDir(), "KFERRY_HTTP=127.0.0.1:0", "NATS_TIMEOUT=1s", "HOME="+t.TempDir())
			said := 0
			for _, command := range [][]string{{"validate"}, {"status"}, {"convert", "--to", "env"}, {"convert", "--to", "mm2"}, {"worker"}} {
				var text string
				if command[0] == "worker" && strings.HasPrefix(name, "token endpoint that refuses") {
					text = runFor(t, environ, 2*time.Second, "run")
				} else {
					c := begin(t, environ, command...)
					c.wait(t)
					text = c.out.String() + c.err.String()
				}
				if strings.Contains(text, "mistake") || strings.Contains(text, "kferry: ") {
					said++
				}
				v.closed("kferry "+strings.Join(command, " "), text)
			}
			if said == 0 {
				t.Error("no mistake is told")
			}
		})
	}
}

// runFor is what a command has said after a while.
func runFor(t *testing.T, environ []string, d time.Duration, args ...string) string {
	t.Helper()
	c := begin(t, environ, args...)
	select {
	case <-c.done:
	case <-time.After(d):
	}
	c.cancel()
	c.wait(t)
	return c.out.String() + c.err.String()
}

// A token is planted in every variable that may hold one.
func TestEveryVariableOfASecretIsHidden(t *testing.T) {
	t.Parallel()
	holds := regexp.MustCompile(`PASSWORD|SECRET$|TOKEN$|SEED|JWT$|JAAS|PROPERTIES|CREDS|NKEY|_KEY`)
	planted := 0
	for _, variable := range spec.Variables() {
		if !holds.MatchString(variable.Name) {
			continue
		}
		planted++
		v, secret := newVault(t), mark+"-"+mark+"-"+mark
		if strings.HasSuffix(variable.Name, "PROPERTIES") { // else it is a path
			secret = "sasl.password=" + secret
		}
		_, out, text := kferry(t, []string{
			"KFERRY_SOURCE_ALIAS=dc", "KFERRY_SOURCE_BOOTSTRAP_SERVERS=127.0.0.1:1", "KFERRY_TARGET_ALIAS=central", "KFERRY_TARGET_BOOTSTRAP_SERVERS=127.0.0.1:1",
			variable.Name + "=" + secret,
		}, "validate")
		if strings.Contains(variable.Meaning, "file") || strings.HasSuffix(variable.Name, "_FILE") || variable.Name == "NATS_CREDS" || strings.HasSuffix(variable.Name, "_KEY") {
			continue // it names a file, which a message may name too
		}
		v.closed(variable.Name, out+text)
	}
	if planted < 15 {
		t.Errorf("%d variables may hold a secret", planted)
	}
}
