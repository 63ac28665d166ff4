package spec_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kferry/kferry/shared/spec"
)

// few begins a resource whose mirrors follow.
const few = `apiVersion: kafka.strimzi.io/v1beta2
kind: KafkaMirrorMaker2
metadata: {name: m}
spec:
  connectCluster: b
  clusters:
  - {alias: a, bootstrapServers: "a:1"}
  - {alias: b, bootstrapServers: "b:1"}
  mirrors:
`

// numbered writes something n times.
func numbered(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// Each once took minutes, or memory without end. The bound on time is far above what they take, and below what they took.
func TestInputThatIsMadeToBeLarge(t *testing.T) {
	mirror := func(topics int) string {
		return few + `  - &m {sourceCluster: a, targetCluster: b, sourceConnector: {}, topicsPattern: "` + numbered(topics, "topic-%d,") + "x\"}\n"
	}
	properties := "clusters = a, b" + numbered(90, ", c%d") + "\na.bootstrap.servers = a:1\nb.bootstrap.servers = b:1\na->b.enabled = true\n"
	for name, text := range map[string]string{
		"mirrors by anchors, with many topics": mirror(2_000) + numbered(3_000, "  - *m # %d\n"),
		"mirrors by anchors":                   mirror(2) + numbered(50_000, "  - *m # %d\n"),
		"one list of topics":                   mirror(300_000),
		"keys":                                 properties + numbered(100_000, "foo%d = 1\n"),
		"keys of flows":                        properties + numbered(100_000, "c1=>x.foo%d = 1\n"),
		"elements":                             few + "  - [" + strings.Repeat("a,", 1<<20) + "]\n",
		"maps":                                 few + "  - [" + strings.Repeat("{},", 1<<19) + "]\n  - {}\n",
		"deep lists":                           few + "  - " + strings.Repeat("[", 1<<20) + "\n",
		"deep maps":                            few + "  - " + strings.Repeat("{a: ", 1<<18) + "\n",
		"documents":                            few + "  - {sourceCluster: a}\n" + numbered(50_000, "---\nkind: K%d\n"),
		"one large number":                     few + "  - {sourceCluster: a, targetCluster: b, sourceConnector: {tasksMax: " + strings.Repeat("9", 1<<20) + ", config: {offset.lag.max: 1e" + strings.Repeat("9", 1<<18) + "}}}\n",
		"no text":                              few + "  - {sourceCluster: \"a\xff\xfe\", targetCluster: b}\n" + strings.Repeat("\xff", 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			s, err := spec.Load(nil, []string{"KFERRY_MIRROR=" + text})
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("took %v", took)
			}
			if err == nil {
				t.Fatalf("passes, with %d flows", len(s.Flows))
			}
			if said := err.Error(); len(said) > 1<<20 {
				t.Errorf("an error of %d bytes: %.300s", len(said), said)
			}
		})
	}
}

// A pipe that nobody writes to, a device without end or a folder in the place of a file is told, and not waited for.
func TestFilesThatAreNone(t *testing.T) {
	t.Parallel()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	secret := func(path string) []string {
		return append(plain(), "KFERRY_SOURCE_SASL_MECHANISM=PLAIN", "KFERRY_SOURCE_SASL_USERNAME=u", "KFERRY_SOURCE_SASL_PASSWORD=${file:"+path+":key}")
	}
	for name, c := range map[string]struct {
		files, environ []string
		words          string
	}{
		"a pipe":               {files: []string{fifo}, words: "is a pipe out of which nothing comes"},
		"zeros":                {files: []string{"/dev/zero"}, words: "holds more than 4MiB"},
		"a folder":             {files: []string{t.TempDir()}, words: "is a directory"},
		"a password in a pipe": {environ: secret(fifo), words: "is not a file"},
		"a password of zeros":  {environ: secret("/dev/zero"), words: "is not a file"},
		"a password's folder":  {environ: secret(t.TempDir()), words: "is not a file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			_, err := spec.Load(c.files, c.environ)
			if err == nil || !strings.Contains(err.Error(), c.words) {
				t.Errorf("error is %v", err)
			}
			if took := time.Since(start); took > time.Minute {
				t.Errorf("took %v", took)
			}
		})
	}
}

// What a shell's <(…) gives is a pipe too, and so is one whose writer comes late.
func TestPipesAreRead(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() {
		written <- os.WriteFile(fifo, []byte(few+"  - {sourceCluster: a, targetCluster: b, sourceConnector: {}}\n"), 0)
	}()
	s, err := spec.Load([]string{fifo}, nil)
	if err != nil || len(s.Flows) != 1 {
		t.Errorf("%d flows, %v", len(s.Flows), err)
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
}
