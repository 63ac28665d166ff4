package cli_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kferry/kferry/shared/cli"
	"github.com/kferry/kferry/shared/local"
)

// patience bounds every wait of these tests, generously: they run on the real clock.
const patience = 60 * time.Second

const (
	source = "kafka-dc-1"
	target = "central"
)

// A buffer is written by a command and read by its test at one time.
type buffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *buffer) Write(text []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(text)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

// A command is kferry, under way or done.
type command struct {
	out, err buffer
	cancel   context.CancelFunc
	done     chan struct{}
	code     int
}

func begin(t *testing.T, environ []string, args ...string) *command {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := &command{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.code = cli.Run(ctx, cli.Process{Args: args, Environ: environ, Out: &c.out, Err: &c.err})
	}()
	t.Cleanup(func() {
		cancel()
		<-c.done
		if t.Failed() {
			t.Logf("kferry %s:\n%s%s", strings.Join(args, " "), c.out.String(), c.err.String())
		}
	})
	return c
}

// wait returns the exit code.
func (c *command) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-c.done:
		return c.code
	case <-time.After(patience):
		t.Fatal("the command does not end")
		return 0
	}
}

func kferry(t *testing.T, environ []string, args ...string) (code int, out, err string) {
	t.Helper()
	c := begin(t, environ, args...)
	code = c.wait(t)
	return code, c.out.String(), c.err.String()
}

// eventually polls until it holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not after %s: %s", patience, what)
		}
	}
}

// world starts a source with n records and an empty target, and returns the variables that mirror one into the other.
func world(t *testing.T, n int) (*local.Env, []string) {
	t.Helper()
	env, err := local.Start(local.Setup{
		Clusters: []local.Cluster{{Alias: source, Topics: map[string]int32{"orders": 3}}, {Alias: target}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(env.Close)
	write(t, env, n)
	return env, []string{
		"KFERRY_SOURCE_ALIAS=" + source, "KFERRY_SOURCE_BOOTSTRAP_SERVERS=" + servers(env, source),
		"KFERRY_TARGET_ALIAS=" + target, "KFERRY_TARGET_BOOTSTRAP_SERVERS=" + servers(env, target),
		"KFERRY_TOPICS=orders", "KFERRY_HTTP=off", "KFERRY_DATA=" + t.TempDir(),
	}
}

func servers(env *local.Env, alias string) string {
	return strings.Join(env.Spec(alias).BootstrapServers, ",")
}

func write(t *testing.T, env *local.Env, n int) {
	t.Helper()
	w, err := env.Writer(source, "orders")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Write(t.Context(), n); err != nil {
		t.Fatal(err)
	}
}

func exact(t *testing.T, env *local.Env, records int64) {
	t.Helper()
	c, err := local.Compare(t.Context(), env.Side(source, "orders"), env.Side(target, source+".orders"))
	if err != nil {
		t.Fatal(err)
	}
	if !c.Exact() || c.Records != records {
		t.Errorf("of %d records: %s", records, c)
	}
}

func TestRunUntilCaughtUpThenGoOn(t *testing.T) {
	t.Parallel()
	env, environ := world(t, 500)
	for i, records := range []int64{500, 800} {
		if i > 0 {
			write(t, env, 300)
		}
		code, out, _ := kferry(t, environ, "run", "--until-caught-up")
		if code != 0 {
			t.Errorf("exit code %d", code)
		}
		if !regexp.MustCompile(`kafka-dc-1->central +3 +3 +` + []string{"500", "300"}[i] + ` +0`).MatchString(out) {
			t.Errorf("the summary does not tell of 3 partitions and the records copied:\n%s", out)
		}
		exact(t, env, records)
	}
}

func TestRunCopiesUntilItIsStopped(t *testing.T) {
	t.Parallel()
	env, environ := world(t, 100)
	c := begin(t, environ, "run", "--log-format", "json")
	for _, records := range []int64{100, 200} {
		eventually(t, fmt.Sprintf("%d records are copied", records), func() bool { return copies(env) == records })
		if records == 100 {
			write(t, env, 100)
		}
	}
	c.cancel()
	if code := c.wait(t); code != 0 {
		t.Errorf("a stop ends with exit code %d", code)
	}
	exact(t, env, 200)
	if !strings.HasPrefix(c.err.String(), `{"time":`) {
		t.Errorf("--log-format json logs\n%s", c.err.String())
	}
	_, end, _ := strings.Cut(c.err.String(), `"msg":"stopping; what is in flight is finished"`)
	if !strings.Contains(end, `"msg":"stopped"`) {
		t.Errorf("the log does not tell of the end:\n%s", c.err.String())
	}
}

// copies counts what the target holds.
func copies(env *local.Env) (n int64) {
	for _, p := range env.Kafka(target).PartitionInfos(source + ".orders") {
		n += p.HighWatermark
	}
	return n
}

func TestRunUntilCaughtUpFailsWhereAPartitionIsHeld(t *testing.T) {
	t.Parallel()
	env, environ := world(t, 10)
	if err := env.Kafka(target).CreateTopic(source+".orders", 3, nil); err != nil {
		t.Fatal(err)
	}
	w, err := env.Writer(target, source+".orders")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Write(t.Context(), 50); err != nil {
		t.Fatal(err)
	}
	code, out, _ := kferry(t, environ, "run", "--until-caught-up")
	if code != 1 || !strings.Contains(out, "held (no_cursor)") {
		t.Errorf("a target that holds records of somebody else: exit code %d and\n%s", code, out)
	}
}

func TestRunAPatternThatMatchesNothingIsAWarning(t *testing.T) {
	t.Parallel()
	_, environ := world(t, 10)
	code, out, _ := kferry(t, append(environ, "KFERRY_TOPICS=nothing"), "run", "--until-caught-up")
	if code != 0 || !strings.Contains(out, `warning: the topic pattern "nothing"`) {
		t.Errorf("exit code %d and\n%s", code, out)
	}
}

func TestCoordinatorAndWorkersShareAQueue(t *testing.T) {
	t.Parallel()
	env, environ := world(t, 200)
	server, err := local.StartNATS(t.TempDir(), local.NATSListen("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	environ = append(environ, "NATS_URL="+server.URL())
	parts := []*command{begin(t, environ, "coordinator"), begin(t, environ, "worker"), begin(t, environ, "worker")}
	eventually(t, "200 records are copied", func() bool { return copies(env) == 200 })
	code, out, _ := kferry(t, environ, "status", "-o", "json")
	if code != 0 || strings.Contains(out, `"queue"`) {
		t.Errorf("status does not see the queue: exit code %d and\n%s", code, out)
	}
	for _, part := range parts {
		part.cancel()
		if code := part.wait(t); code != 0 {
			t.Errorf("a stop ends with exit code %d", code)
		}
	}
	exact(t, env, 200)
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	env, environ := world(t, 30)
	address := freeAddress(t)
	begin(t, environ, "run", "--http", address) // the flag wins over KFERRY_HTTP=off
	eventually(t, "ready", func() bool { status, _ := get(t, address, "/readyz"); return status == http.StatusOK })
	eventually(t, "30 records are copied", func() bool { return copies(env) == 30 })
	if status, _ := get(t, address, "/healthz"); status != http.StatusOK {
		t.Errorf("/healthz answers %d", status)
	}
	eventually(t, "the metrics tell of it", func() bool {
		_, text := get(t, address, "/metrics")
		return strings.Contains(text, `kferry_records_total{flow="kafka-dc-1->central"} 30`)
	})
	_, text := get(t, address, "/metrics")
	for _, name := range []string{"kferry_build_info{", "kferry_oldest_unreplicated_seconds{", "go_goroutines ", "process_open_fds "} {
		if !strings.Contains(text, "\n"+name) {
			t.Errorf("/metrics lacks %s", name)
		}
	}
}

func TestAnAddressInUse(t *testing.T) {
	t.Parallel()
	_, environ := world(t, 0)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	code, _, text := kferry(t, environ, "run", "--http", l.Addr().String())
	if want := l.Addr().String() + " is in use; give another address for metrics and health with --http"; code != 1 || !strings.Contains(text, want) {
		t.Errorf("exit code %d and\n%s", code, text)
	}
}

func TestADataDirectoryInUse(t *testing.T) {
	t.Parallel()
	_, environ := world(t, 0)
	dir := t.TempDir()
	server, err := local.StartNATS(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	code, _, text := kferry(t, environ, "run", "--data", dir)
	if code != 1 || !strings.Contains(text, "another process uses this directory") {
		t.Errorf("exit code %d and\n%s", code, text)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func get(t *testing.T, address, path string) (status int, text string) {
	t.Helper()
	answer, err := http.Get("http://" + address + path)
	if err != nil {
		return 0, ""
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

func mirrorFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mirror.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
