package spec_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kferry/kferry/shared/spec"
)

// password is what a login of PLAIN or SCRAM gives now.
func password(t *testing.T, l *spec.Login) string {
	t.Helper()
	s, err := l.Security()
	if err != nil || s.SASL == nil {
		t.Fatalf("%+v, %v", s, err)
	}
	return string(s.SASL.Password)
}

// kubernetes mounts a Secret as the kubelet does: keys are links into a folder that is replaced at one stroke.
func kubernetes(t *testing.T, dir string, generation string, keys map[string]string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "..data-"+generation), 0o755); err != nil {
		t.Fatal(err)
	}
	for key, text := range keys {
		write(t, filepath.Join(dir, "..data-"+generation, key), text)
		if err := os.Symlink(filepath.Join("..data", key), filepath.Join(dir, key)); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	fresh := filepath.Join(dir, "..data_tmp")
	if err := os.Symlink("..data-"+generation, fresh); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(fresh, filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
}

// A mounted Secret that is replaced is taken up within lookPause; one that is broken is not, and says so until it is mended.
func TestMountedSecretIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		secret := filepath.Join(dir, "kafka", "user")
		ca, err := os.ReadFile("testdata/references/ca.crt")
		if err != nil {
			t.Fatal(err)
		}
		kubernetes(t, secret, "1", map[string]string{"password": "first-password", "ca.crt": string(ca)})
		s := load(t, "KFERRY_SECRETS_DIR="+dir, `KFERRY_MIRROR=kind: KafkaMirrorMaker2
metadata: {namespace: kafka}
spec:
  target: {alias: b, bootstrapServers: "b:9092"}
  mirrors:
  - source:
      alias: a
      bootstrapServers: a:9093
      tls: {trustedCertificates: [{secretName: user, pattern: "*.crt"}]}
      authentication: {type: scram-sha-512, username: u, passwordSecret: {secretName: user, password: password}}
    sourceConnector: {}
`)
		login := s.Cluster("a").Login
		if got := password(t, login); got != "first-password" {
			t.Errorf("password %s", got)
		}
		before, _ := login.Security()
		kubernetes(t, secret, "2", map[string]string{"password": "second-password", "ca.crt": string(ca)})
		if got := password(t, login); got != "first-password" {
			t.Errorf("looked at again at once: %s", got)
		}
		time.Sleep(time.Second)
		if got := password(t, login); got != "second-password" {
			t.Errorf("not taken up: %s", got)
		}
		time.Sleep(time.Second)
		one, _ := login.Security()
		time.Sleep(time.Second)
		if two, _ := login.Security(); two.TLS != one.TLS || two.SASL != one.SASL || before.SASL == one.SASL {
			t.Error("the same content gives another Security, or another content the same")
		}

		kubernetes(t, secret, "3", map[string]string{"password": "third-password", "ca.crt": string(ca[:len(ca)/2])})
		time.Sleep(time.Second)
		if got := password(t, login); got != "second-password" {
			t.Errorf("half of what is new is taken up: %s", got)
		}
		if problem := login.Problem(); !strings.Contains(problem, "trustedCertificates") || strings.Contains(problem, "third") {
			t.Errorf("problem: %s", problem)
		}
		if err := os.Remove(filepath.Join(secret, "..data")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got, problem := password(t, login), login.Problem(); got != "second-password" || !strings.Contains(problem, "there is no such file") {
			t.Errorf("%s, %s", got, problem)
		}
		kubernetes(t, secret, "4", map[string]string{"password": "fourth-password", "ca.crt": string(ca)})
		time.Sleep(time.Second)
		if got, problem := password(t, login), login.Problem(); got != "fourth-password" || problem != "" {
			t.Errorf("mended: %s, %s", got, problem)
		}
	})
}

// Of the mirror's own file the secrets of the same clusters are taken up, and nothing else.
func TestChangedFileGivesSecretsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "mm2.properties")
		text := func(from, to string) string {
			return strings.Replace(`clusters = a, b
a.bootstrap.servers = a:9093
b.bootstrap.servers = b:9092
a.security.protocol = SASL_SSL
a.sasl.mechanism = PLAIN
a.sasl.jaas.config = org.apache.kafka.common.security.plain.PlainLoginModule required username="u" password="first";
a->b.enabled = true
`, from, to, 1)
		}
		write(t, file, text("", ""))
		s, err := spec.Load([]string{file}, nil)
		if err != nil {
			t.Fatal(err)
		}
		login := s.Cluster("a").Login
		for _, c := range []struct{ name, text, password, problem string }{
			{"another password", text("first", "second"), "second", ""},
			{"another mechanism", strings.Replace(text("= PLAIN", "= SCRAM-SHA-256"), "plain.Plain", "scram.Scram", 1), "second", "security.protocol or sasl.mechanism"},
			{"plain text", text("SASL_SSL", "SASL_PLAINTEXT"), "second", "security.protocol or sasl.mechanism"},
			{"no login", strings.Replace(text("a.security.protocol = SASL_SSL", "a.security.protocol = PLAINTEXT"), "second", "x", 1), "second", "security.protocol or sasl.mechanism"},
			{"other addresses", strings.Replace(text("first", "third"), "a:9093", "c:9093", 1), "second", "other addresses"},
			{"another cluster", strings.ReplaceAll(text("first", "third"), "a", "c"), "second", "mistake"},
			{"another alias", "clusters = x, b\nx.bootstrap.servers = a:9093\nb.bootstrap.servers = b:9092\nx->b.enabled = true\n", "second", "not in the input any more"},
			{"half", text("password=\"first\";", ""), "second", "semicolon"},
			{"nothing", "", "second", "mistake"},
			{"more topics", text("first", "fourth") + "a->b.topics = orders\n", "fourth", ""},
		} {
			write(t, file, c.text)
			time.Sleep(time.Second)
			got, problem := password(t, login), login.Problem()
			if got != c.password || (problem == "") != (c.problem == "") || !strings.Contains(problem, c.problem) || strings.Contains(problem, "third") {
				t.Errorf("%s: password %s, want %s; problem %q", c.name, got, c.password, problem)
			}
		}
		if f, _ := s.Flow("a->b"); !f.Selects("payments") {
			t.Error("topics have changed")
		}
	})
}

// Certificates, keys and passwords that variables name are looked at again; so is a client.properties.
func TestFilesOfVariablesAreReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		named := func(name, text string) string {
			write(t, filepath.Join(dir, name), text)
			return filepath.Join(dir, name)
		}
		content := func(name string) string {
			text, err := os.ReadFile(filepath.Join("testdata/references", name))
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
		s := load(t, plain(
			"KFERRY_SOURCE_TLS_CA_FILE="+named("ca", content("ca.crt")), "KFERRY_SOURCE_TLS_CERT_FILE="+named("cert", content("user.crt")),
			"KFERRY_SOURCE_TLS_KEY_FILE="+named("key", content("user.key")), "KFERRY_SOURCE_SASL_MECHANISM=SCRAM-SHA-256",
			"KFERRY_SOURCE_SASL_USERNAME=u", "KFERRY_SOURCE_SASL_PASSWORD_FILE="+named("password", "first\n"),
			"KFERRY_TARGET_PROPERTIES="+named("client.properties", "security.protocol = SASL_SSL\nsasl.mechanism = PLAIN\nsasl.username = w\nsasl.password = one\nlinger.ms = 5\n"),
		)...)
		source, target := s.Cluster("A").Login, s.Cluster("B").Login
		if a, b := source.Access().String(), target.Access().String(); a != `SASL_SSL, SCRAM-SHA-256 as "u", with certificate CN=mirror (until 2126-11-02); trusts CN=ca1 (until 2126-11-02)` || b != `SASL_SSL, PLAIN as "w"; trusts whom the system trusts` {
			t.Errorf("%s\n%s", a, b)
		}
		if got := password(t, source) + " " + password(t, target); got != "first one" {
			t.Error(got)
		}
		named("password", "second")
		named("ca", content("ca.crt")+content("ca2.crt"))
		named("client.properties", "security.protocol = SASL_SSL\nsasl.mechanism = PLAIN\nsasl.username = v\nsasl.password = two\n")
		time.Sleep(time.Second)
		if got := password(t, source) + " " + password(t, target) + " " + target.Access().As; got != "second two v" {
			t.Error(got)
		}
		if got := source.Access().Trusts; len(got) != 2 {
			t.Errorf("trusts %v", got)
		}
		named("key", content("user.key")[:50])
		time.Sleep(time.Second)
		if got := source.Access().Certificate; !strings.Contains(got, "CN=mirror") || !strings.Contains(source.Problem(), "KFERRY_SOURCE_TLS_KEY_FILE") {
			t.Errorf("%s, %s", got, source.Problem())
		}
	})
}

// What came through a pipe is read once.
func TestPipeIsReadOnce(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.WriteString("clusters = a, b\na.bootstrap.servers = a:1\nb.bootstrap.servers = b:1\na->b.enabled = true\na.security.protocol = SASL_SSL\na.sasl.mechanism = PLAIN\na.sasl.username = u\na.sasl.password = p\n"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	synctest.Test(t, func(t *testing.T) {
		s, err := spec.Load([]string{filepath.Join("/dev/fd", strconv.Itoa(int(r.Fd())))}, nil)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got := password(t, s.Cluster("a").Login); got != "p" || s.Cluster("a").Login.Problem() != "" {
			t.Errorf("%s, %s", got, s.Cluster("a").Login.Problem())
		}
	})
}

// A pipe in the place of a file holds nobody up, and what held before goes on to.
func TestPipeInThePlaceOfAPasswordHoldsNobodyUp(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	write(t, file, "first")
	s := load(t, plain("KFERRY_SOURCE_SASL_MECHANISM=PLAIN", "KFERRY_SOURCE_SASL_USERNAME=u", "KFERRY_SOURCE_SASL_PASSWORD_FILE="+file)...)
	login := s.Cluster("A").Login
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("mkfifo", file).Run(); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); login.Problem() == "" && time.Since(began) < 20*time.Second; {
		if got := password(t, login); got != "first" {
			t.Fatal(got)
		}
		time.Sleep(100 * time.Millisecond) // files have no clock but the real one
	}
	if problem := login.Problem(); !strings.Contains(problem, "is not a file") {
		t.Error(problem)
	}
	write(t, file+".new", "second")
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); password(t, login) != "second" && time.Since(began) < 20*time.Second; {
		time.Sleep(100 * time.Millisecond)
	}
	if got, problem := password(t, login), login.Problem(); got != "second" || problem != "" {
		t.Errorf("%s, %s", got, problem)
	}
}

// A file that is never read to its end, as on a mount whose server is away, holds nobody up, and is not begun again and again.
func TestFileThatIsNeverReadIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		comes, begun := make(chan struct{}), 0
		read := func() ([]byte, error) {
			begun++
			<-comes
			return []byte("late"), nil
		}
		for range 3 {
			start := time.Now()
			if text, err := spec.Timely("/away", read); err == nil || !strings.Contains(err.Error(), "/away has not been read within") {
				t.Fatalf("%q, %v", text, err)
			}
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("took %v", took)
			}
		}
		if begun != 1 {
			t.Errorf("begun %d times", begun)
		}
		close(comes)
		synctest.Wait()
		if text, err := spec.Timely("/away", read); err != nil || string(text) != "late" {
			t.Errorf("%q, %v", text, err)
		}
	})
}
