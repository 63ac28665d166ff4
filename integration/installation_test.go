package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/kferry/kferry/integration/testbed"
)

const (
	leaseTime  = 2 * time.Second  // the shortest that kferry takes, so that a dead worker is replaced soon
	goneAround = 30 * time.Second // until a held partition is looked at again

	// Bounds that only what hangs meets.
	soon        = time.Minute     // what takes a second or two
	copyWithin  = 3 * time.Minute // any of the loads here, faults included
	exitsWithin = time.Minute     // a process that was asked to stop

	resumesWithin = 30 * time.Second // what takes five at most, and far longer where somebody waits in vain
)

// long says whether the tests may take their time: `task faults`.
func long() bool { return os.Getenv("KFERRY_FAULTS") == "long" }

// installation is kferry as its operator runs it: one specification, and the processes that work by it.
type installation struct {
	t              *testing.T
	source, target *testbed.Cluster
	args           []string          // that name the specification; none where env holds it
	env            map[string]string // of every process
	alias          string            // of the source
	watch          *kadm.Client      // of copied
	row            *row              // of the report, nil where there is none
}

// in is the same installation in a subtest.
func (k *installation) in(t *testing.T) *installation {
	other := *k
	other.t, other.source, other.target, other.watch = t, k.source.For(t), k.target.For(t), nil
	return &other
}

// copying is an installation with one flow, described in environment variables alone. Its names are the test's, so that
// tests can share clusters.
func copying(t *testing.T, source, target *testbed.Cluster, topics string) *installation {
	t.Helper()
	alias := slug(t.Name())
	return &installation{t: t, source: source, target: target, alias: alias, env: map[string]string{
		"KFERRY_NAME":                     alias,
		"KFERRY_DATA":                     filepath.Join(t.TempDir(), "data"),
		"KFERRY_HTTP":                     "127.0.0.1:0",
		"KFERRY_LEASE":                    leaseTime.String(),
		"KFERRY_LOG_LEVEL":                "debug",
		"KFERRY_SOURCE_ALIAS":             alias,
		"KFERRY_SOURCE_BOOTSTRAP_SERVERS": source.Bootstrap(),
		"KFERRY_TARGET_ALIAS":             "central",
		"KFERRY_TARGET_BOOTSTRAP_SERVERS": target.Bootstrap(),
		"KFERRY_TOPICS":                   topics,
		"KFERRY_HEARTBEATS":               "false", // or each flow copies those of all others on its source
	}}
}

// withoutFlow leaves the flow to a file.
func withoutFlow(env map[string]string) {
	maps.DeleteFunc(env, func(name, _ string) bool {
		return strings.HasPrefix(name, "KFERRY_SOURCE_") || strings.HasPrefix(name, "KFERRY_TARGET_") || name == "KFERRY_TOPICS" || name == "KFERRY_HEARTBEATS"
	})
}

// slug is a test's name as an alias.
func slug(name string) string {
	return strings.ToLower(regexp.MustCompile(`[^A-Za-z0-9]+`).ReplaceAllString(strings.TrimPrefix(name, "Test"), "-"))
}

// over puts the queue of the installation on a NATS server, where its processes meet.
func (k *installation) over(nats *testbed.NATS) *installation {
	k.env["NATS_URL"] = nats.URL()
	return k
}

// with is the same installation with other variables.
func (k *installation) with(variables ...string) *installation {
	other := *k
	other.env = maps.Clone(k.env)
	for i := 0; i+1 < len(variables); i += 2 {
		other.env[variables[i]] = variables[i+1]
	}
	return &other
}

// copyOf is the name of a topic's copy.
func (k *installation) copyOf(topic string) string { return k.alias + "." + topic }

// start runs one of kferry's processes until the test ends.
func (k *installation) start(command string, flags ...string) *testbed.Process {
	k.t.Helper()
	return testbed.Run(k.t, append(append([]string{command}, flags...), k.args...), k.env)
}

// stop asks a process to stop and demands that it does so in order.
func (k *installation) stop(p *testbed.Process) {
	k.t.Helper()
	p.Term()
	if code := p.Wait(exitsWithin); code != 0 {
		k.t.Fatalf("exit code %d after SIGTERM: %s", code, tail(p.Output()))
	}
}

// command runs one of kferry's commands to its end, and returns what it said on standard output.
func (k *installation) command(wantCode int, command string, flags ...string) string {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), 2*copyWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, testbed.Binary(k.t), append(append([]string{command}, flags...), k.args...)...)
	cmd.Env = testbed.Environ(k.env)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		k.t.Fatalf("kferry %s: %v", command, err)
	}
	if code := cmd.ProcessState.ExitCode(); code != wantCode {
		k.t.Fatalf("kferry %s %v: exit code %d, want %d\n%s\n%s", command, flags, code, wantCode, out, tail(complaints.String()))
	}
	return string(out)
}

// catchUp runs the installation until everything is copied that was there at the start, and returns the summary.
func (k *installation) catchUp() string {
	k.t.Helper()
	return k.command(0, "run", "--until-caught-up")
}

// ends is how many records all partitions of a topic have had, or 0 where there is no such topic (yet).
func ends(t *testing.T, c *testbed.Cluster, topic string) int64 {
	t.Helper()
	admin := c.Admin()
	defer admin.Close()
	return endsBy(t, admin, topic)
}

// endsBy asks again while a leader is away.
func endsBy(t *testing.T, admin *kadm.Client, topic string) int64 {
	t.Helper()
	sum := int64(0)
	testbed.Eventually(t, copyWithin, "the log ends of "+topic, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		defer cancel()
		listed, err := admin.ListEndOffsets(ctx, topic)
		sum = 0
		for _, o := range listed[topic] {
			switch {
			case errors.Is(o.Err, kerr.UnknownTopicOrPartition):
			case o.Err != nil:
				return false
			default:
				sum += o.Offset
			}
		}
		return err == nil
	})
	return sum
}

// positions are the ends of a topic's copy, of those partitions whose leader answers at once.
func (k *installation) positions(topic string) map[int32]int64 {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), 2*time.Second)
	defer cancel()
	listed, _ := k.watching().ListEndOffsets(ctx, k.copyOf(topic)) // of brokers that don't answer there is nothing in it
	ends := map[int32]int64{}
	for p, o := range listed[k.copyOf(topic)] {
		if o.Err == nil {
			ends[p] = o.Offset
		}
	}
	return ends
}

// watching is an admin client of the target for what is asked all the time.
func (k *installation) watching() *kadm.Client {
	if k.watch == nil {
		k.watch = k.target.Admin()
	}
	return k.watch
}

// copied is how much of a topic the target has. It is asked for all the time, so its client stays.
func (k *installation) copied(topic string) int64 {
	k.t.Helper()
	return endsBy(k.t, k.watching(), k.copyOf(topic))
}

// settled is how much of a topic the target has once nothing of a dead process is under way any more.
func (k *installation) settled(topic string) int64 {
	k.t.Helper()
	last := int64(-1)
	testbed.Eventually(k.t, soon, "the copy of "+topic+" to stand still", func() bool {
		now := k.copied(topic)
		still := now == last
		last = now
		return still
	})
	return last
}

// await waits until the copies of topics without holes are as long as their sources.
func (k *installation) await(topics ...string) {
	k.t.Helper()
	for _, topic := range topics {
		want := ends(k.t, k.source, topic)
		if want == 0 {
			k.t.Fatalf("%s is empty", topic)
		}
		testbed.Eventually(k.t, copyWithin, fmt.Sprintf("the copy of %s to reach %d", topic, want),
			func() bool { return k.copied(topic) >= want })
	}
}

// compare holds the copies of topics against their sources.
func (k *installation) compare(topics ...string) {
	k.t.Helper()
	for _, topic := range topics {
		records, d := testbed.Differ(k.t, k.source, topic, k.target, k.copyOf(topic))
		k.row.compared(records, d)
		if !d.Exact() {
			k.t.Fatalf("%s (%d records) -> %s: %v", topic, records, k.copyOf(topic), d)
		}
		k.t.Logf("%s -> %s: %d records compared, 0 lost, 0 doubled, 0 reordered", topic, k.copyOf(topic), records)
	}
}

// A status is what `kferry status -o json` says.
type status struct {
	Queue string
	Flows []struct {
		Flow, Error, Reason string
		Warnings            []string
		Partitions          []partition
	}
}

type partition struct {
	Topic       string `json:"source_topic"`
	Target      string `json:"target_topic"`
	Partition   int32
	State       string
	Reason      string
	Detail      string
	Decide      bool
	Cursor      *int64
	SourceEnd   int64    `json:"source_end"`
	TargetEnd   *int64   `json:"target_end"`
	LagRecords  int64    `json:"lag_records"`
	LagSeconds  *float64 `json:"lag_seconds"`
	ExactlyOnce *bool    `json:"exactly_once"`
	WhyNot      string   `json:"exactly_once_no"`
	Offsets     string

	OpenTransaction *struct {
		LastStable int64  `json:"last_stable_offset"`
		LogEnd     int64  `json:"log_end"`
		Waiting    int64  `json:"waiting_records"`
		ProducerID *int64 `json:"producer_id"`
		Since      *time.Time
	} `json:"open_transaction"`
}

func (p partition) String() string {
	return fmt.Sprintf("%s-%d %s %s %q", p.Topic, p.Partition, p.State, p.Reason, p.Detail)
}

// status asks the installation how it is.
func (k *installation) status() status { k.t.Helper(); return k.statusWith(0) }

// statusWith expects another exit code: 1 where a cluster does not answer.
func (k *installation) statusWith(code int) status {
	k.t.Helper()
	var s status
	text := k.command(code, "status", "-o", "json")
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		k.t.Fatalf("status: %v in %s", err, text)
	}
	return s
}

// partitions are those of a topic in all flows.
func (s status) partitions(topic string) []partition {
	var all []partition
	for _, f := range s.Flows {
		for _, p := range f.Partitions {
			if p.Topic == topic {
				all = append(all, p)
			}
		}
	}
	return all
}

// partition is one of a topic, or one without a state where status doesn't name it.
func (s status) partition(topic string, number int32) partition {
	for _, p := range s.partitions(topic) {
		if p.Partition == number {
			return p
		}
	}
	return partition{}
}

var metricsAddress = regexp.MustCompile(`"address":"(http://[^"]+)"`)

// addressOf is where a process listens. The output of a server is its own account of that.
func addressOf(t *testing.T, server interface{ Output() string }) (address string) {
	t.Helper()
	testbed.Eventually(t, soon, "the address of /metrics in the log", func() bool {
		if found := metricsAddress.FindStringSubmatch(server.Output()); found != nil {
			address = found[1]
		}
		return address != ""
	})
	return address
}

// metrics scrapes a process.
func metrics(t *testing.T, server interface{ Output() string }) map[string]float64 {
	t.Helper()
	answer, err := http.Get(addressOf(t, server) + "/metrics")
	if err != nil {
		t.Fatalf("metrics: %v", err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatalf("metrics: %v", err)
	}
	values := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			values[line[:i]], _ = strconv.ParseFloat(strings.TrimSpace(line[i:]), 64)
		}
	}
	return values
}

// sum adds up a metric over all its labels.
func sum(values map[string]float64, name string) float64 {
	total := 0.0
	for key, value := range values {
		if series, _, _ := strings.Cut(key, "{"); series == name {
			total += value
		}
	}
	return total
}

// tail is the end of what a process wrote.
func tail(text string) string {
	const bytes = 4000
	return text[max(0, len(text)-bytes):]
}
