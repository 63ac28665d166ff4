package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kferry/kferry/integration/testbed"
)

// The real MirrorMaker 2 copies, stops in one way or another, and kferry goes on, or the other way round. What MirrorMaker itself has doubled
// is what it had landed more than once when it stopped: everything else is there once, and in order.

const (
	mirrorMakerWithin = 5 * time.Minute // until MirrorMaker has started and copied
	seldom            = "600000"        // milliseconds between MirrorMaker's commits, which then never come
)

// mirrorMaker runs MirrorMaker 2 as k's flow says, with more properties: key, value.
func (k *installation) mirrorMaker(more ...string) *testbed.Container {
	k.t.Helper()
	return testbed.MirrorMaker(k.t, testbed.V43, k.properties(more...))
}

// onFile is the same installation by the file that MirrorMaker has.
func (k *installation) onFile() *installation {
	k.t.Helper()
	file := filepath.Join(k.t.TempDir(), "mm2.properties")
	if err := os.WriteFile(file, []byte(k.properties()), 0o600); err != nil {
		k.t.Fatal(err)
	}
	other := *k
	other.args, other.env = []string{"-f", file}, maps.Clone(k.env)
	withoutFlow(other.env)
	return &other
}

// properties are those of MirrorMaker for k's flow, and more: key, value.
func (k *installation) properties(more ...string) string {
	flow, target := k.alias+"->central.", "central."
	properties := map[string]string{
		"clusters":                                         k.alias + ", central",
		k.alias + ".bootstrap.servers":                     k.source.Bootstrap(),
		target + "bootstrap.servers":                       k.target.Bootstrap(),
		flow + "enabled":                                   "true",
		flow + "topics":                                    k.env["KFERRY_TOPICS"],
		"central->" + k.alias + ".enabled":                 "false",
		"central->" + k.alias + ".emit.heartbeats.enabled": "false",
		"tasks.max":                                        "2",
		"replication.factor":                               "1",
		"checkpoints.topic.replication.factor":             "1",
		"heartbeats.topic.replication.factor":              "1",
		"offset-syncs.topic.replication.factor":            "1",
		"offset.storage.replication.factor":                "1",
		"status.storage.replication.factor":                "1",
		"config.storage.replication.factor":                "1",
		"refresh.topics.interval.seconds":                  "5",
		target + "scheduled.rebalance.max.delay.ms":        "1000", // of five minutes, which it waits for a worker that was too busy to be heard
		"sync.topic.acls.enabled":                          "false",
	}
	for i := 0; i+1 < len(more); i += 2 {
		properties[more[i]] = more[i+1]
	}
	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(properties)) {
		fmt.Fprintf(&text, "%s=%s\n", key, properties[key])
	}
	return text.String()
}

// copiesUpTo waits until a copy has so many records.
func (k *installation) copiesUpTo(topic string, records int64) {
	k.t.Helper()
	testbed.Eventually(k.t, mirrorMakerWithin, fmt.Sprintf("%d records in the copy of %s", records, topic), func() bool {
		return k.copied(topic) >= records
	})
}

// gone waits until no worker of Connect is left on the target: one that was killed is a member for its session's time.
func (k *installation) gone() {
	k.t.Helper()
	testbed.Eventually(k.t, time.Minute, "MirrorMaker to be gone from its group", func() bool {
		groups, err := k.watching().DescribeGroups(k.t.Context(), k.alias+"-mm2")
		return err == nil && len(groups[k.alias+"-mm2"].Members) == 0
	})
}

// demandTaken demands that a copy is what MirrorMaker had left, and behind that, in order, each record of the source that was not among it.
func (k *installation) demandTaken(topic string, before testbed.Log) {
	k.t.Helper()
	want := testbed.Log{}
	for p, records := range testbed.Read(k.t, k.source, topic, testbed.Committed) {
		want[p] = slices.Clone(before[p])
		landed := map[string]bool{}
		for _, r := range before[p] {
			landed[string(r.Value)] = true
		}
		for _, r := range records {
			if !landed[string(r.Value)] {
				want[p] = append(want[p], r)
			}
		}
	}
	got := testbed.Read(k.t, k.target, k.copyOf(topic), testbed.Committed)
	doubled := 0
	for p, records := range got {
		if len(records) != len(want[p]) {
			k.t.Errorf("%s-%d: %d records, want %d", topic, p, len(records), len(want[p]))
			continue
		}
		known := map[string]bool{}
		for i, r := range records {
			if !sameRecord(r, want[p][i]) {
				k.t.Errorf("%s-%d: record %d is %q, want %q", topic, p, i, r.Value, want[p][i].Value)
				break
			}
			if known[string(r.Value)] {
				doubled++
			}
			known[string(r.Value)] = true
		}
	}
	k.t.Logf("%s: %d records, %d of them there twice by MirrorMaker, %d by kferry", topic, got.Records(), doubled, got.Records()-before.Records())
}

func sameRecord(a, b *kgo.Record) bool {
	return string(a.Value) == string(b.Value) && string(a.Key) == string(b.Key) && (a.Key == nil) == (b.Key == nil) &&
		a.Timestamp.Equal(b.Timestamp) && slices.EqualFunc(a.Headers, b.Headers, func(x, y kgo.RecordHeader) bool {
		return x.Key == y.Key && string(x.Value) == string(y.Value)
	})
}

// told is a load whose records can be told from each other. Some of its transactions are aborted.
func told(records, first int) testbed.Load {
	return testbed.Load{Records: records, First: first, PlainKeys: true, TxnRecords: 50, AbortEvery: 7, BatchBytes: 64 << 10}
}

func TestTakeOver(t *testing.T) {
	t.Parallel()
	t.Run("there and back", func(t *testing.T) { t.Parallel(); thereAndBack(t) })
	t.Run("killed with a long tail", func(t *testing.T) { t.Parallel(); killedWithATail(t) })
	t.Run("killed within a transaction", func(t *testing.T) { t.Parallel(); killedWithinATransaction(t) })
}

// On one file and under traffic MirrorMaker hands over to kferry and kferry to MirrorMaker, twice, each stopped in order: not a record is there twice. Then
// kferry is killed, and MirrorMaker repeats what kferry had copied since it last wrote its position to the target.
func thereAndBack(t *testing.T) {
	const topic, perSecond = "relay", 400
	k := copying(t, testbed.Shared(t, testbed.V33), testbed.Shared(t, testbed.V43), topic)
	k.source.CreateTopic(topic, 2, 1)
	flow := testbed.Live(t, k.source, topic, testbed.Load{PlainKeys: true}, perSecond)
	onFile := k.onFile()
	var maker *testbed.Container
	var run *testbed.Process
	for _, waits := range []bool{true, false} { // for half a minute at most, until it looks again
		maker = k.mirrorMaker()
		k.copiesOn(topic, 1000)
		if !waits {
			maker.Stop()
		}
		run = onFile.start("run")
		if waits {
			testbed.Eventually(t, copyWithin, "kferry to wait", func() bool { return strings.Contains(run.Output(), "(workers of Kafka Connect)") })
			maker.Stop()
		}
		k.copiesOn(topic, 1000)
		k.stop(run)
	}
	rest := ends(t, k.source, topic) - k.copied(topic)
	if d := k.difference(topic); d.Lost > int(rest)+perSecond || d.Doubled+d.Alien+d.Changed+d.Reordered > 0 {
		t.Errorf("after MirrorMaker, kferry, MirrorMaker and kferry: %v", d)
	}

	run = onFile.start("run")
	k.copiesOn(topic, 2000)
	run.Kill()
	maker = k.mirrorMaker()
	k.copiesOn(topic, 1000)
	flow.Stop()
	testbed.Eventually(t, copyWithin, "MirrorMaker to copy the rest", func() bool { return k.difference(topic).Lost == 0 })
	maker.Stop()
	d := k.difference(topic)
	const shown = 35 // seconds: kferry shows its position every 30
	if d.Lost+d.Alien+d.Changed > 0 || d.Doubled > shown*perSecond {
		t.Errorf("after kferry was killed and MirrorMaker went on: %v", d)
	}
	t.Logf("kferry was killed at %d records a second: MirrorMaker has repeated %d", perSecond, d.Doubled)
}

// copiesOn waits until a copy has so many records more than now.
func (k *installation) copiesOn(topic string, records int64) {
	k.t.Helper()
	k.copiesUpTo(topic, k.copied(topic)+records)
}

func (k *installation) difference(topic string) testbed.Difference {
	k.t.Helper()
	return testbed.Diff(testbed.Read(k.t, k.source, topic, testbed.Committed), testbed.Read(k.t, k.target, k.copyOf(topic), testbed.Committed))
}

// MirrorMaker commits seldom and is killed, twice: its second run copies again what the first had landed, and doesn't get as far. It
// reads uncommitted records too, as it does by default, and kferry doesn't.
func killedWithATail(t *testing.T) {
	const topic = "tail"
	k := copying(t, testbed.Shared(t, testbed.V33), testbed.Shared(t, testbed.V43), topic)
	k.source.CreateTopic(topic, 2, 1)
	next := testbed.Produce(t, k.source, topic, told(1000, 0))
	maker := k.mirrorMaker()
	k.copiesUpTo(topic, 1000)
	maker.Stop() // which commits
	maker = k.mirrorMaker("central.offset.flush.interval.ms", seldom)
	testbed.Produce(t, k.source, topic, told(80_000, next))
	k.copiesUpTo(topic, 41_000)
	maker.Kill()
	k.gone()
	maker = k.mirrorMaker("central.offset.flush.interval.ms", seldom)
	k.copiesOn(topic, 10_000)
	maker.Kill()
	k.gone()
	before := testbed.Read(t, k.target, k.copyOf(topic), testbed.Committed)
	k.lags("near", topic, before, 1000)
	k.lags("far", topic, before, 15_000)
	k.catchUp()
	k.demandTaken(topic, before)
	k.goesOn("near", topic)
	k.goesOn("far", topic)
}

// lags has a group stand so many records before the furthest one that MirrorMaker has landed.
func (k *installation) lags(group, topic string, landed testbed.Log, by int) {
	k.t.Helper()
	positions := map[int32]int64{}
	for p, records := range testbed.Read(k.t, k.source, topic, testbed.Committed) {
		there := map[string]bool{}
		for _, r := range landed[p] {
			there[string(r.Value)] = true
		}
		for i, r := range records {
			if there[string(r.Value)] && i >= by {
				positions[p] = records[i-by].Offset
			}
		}
	}
	k.commits(k.alias+"-"+group, topic, positions)
}

// goesOn demands that the group goes on in the copy with just the record that it has still to read, where that is for the last time.
func (k *installation) goesOn(group, topic string) {
	k.t.Helper()
	var surveys []struct {
		Positions []struct {
			Partition  int32
			Position   int64 `json:"source_position"`
			Translated int64 `json:"translated_position"`
			Exact      bool
		}
	}
	said := k.command(0, "groups", "--group", k.alias+"-"+group, "-o", "json")
	if err := json.Unmarshal([]byte(said), &surveys); err != nil {
		k.t.Fatal(err)
	}
	if len(surveys) != 1 || len(surveys[0].Positions) != 2 {
		k.t.Fatalf("kferry groups: %s", said)
	}
	source, target := testbed.Read(k.t, k.source, topic, testbed.Committed), testbed.Read(k.t, k.target, k.copyOf(topic), testbed.Committed)
	for _, at := range surveys[0].Positions {
		originals, copies := source[at.Partition], target[at.Partition]
		originals = originals[slices.IndexFunc(originals, func(r *kgo.Record) bool { return r.Offset >= at.Position }):]
		first := slices.IndexFunc(copies, func(r *kgo.Record) bool { return r.Offset >= at.Translated })
		if !at.Exact || first < 0 || !sameRecord(originals[0], copies[first]) {
			k.t.Errorf("%s of %s-%d: %+v, want an exact position at %q", group, topic, at.Partition, at, originals[0].Value)
			continue
		}
		for _, r := range copies[first:] { // MirrorMaker has landed others in between
			if len(originals) > 0 && sameRecord(r, originals[0]) {
				originals = originals[1:]
			}
		}
		if len(originals) > 0 {
			k.t.Errorf("%s of %s-%d: %q does not follow, nor %d more", group, topic, at.Partition, originals[0].Value, len(originals)-1)
		}
	}
}

// With exactly-once (KIP-618) a killed MirrorMaker leaves a transaction open, which comes to nothing.
func killedWithinATransaction(t *testing.T) {
	const topic = "atomic"
	k := copying(t, testbed.Shared(t, testbed.V43), testbed.Shared(t, testbed.V43), topic)
	k.source.CreateTopic(topic, 2, 1)
	exactly := []string{
		"central.exactly.once.source.support", "enabled",
		"dedicated.mode.enable.internal.rest", "true", "listeners", "http://" + freeAddress(t),
		k.alias + ".consumer.isolation.level", "read_committed",
		"heartbeats.replication.enabled", "false", // source and target are one cluster: it would copy its copies, on and on
	}
	next := testbed.Produce(t, k.source, topic, told(1000, 0))
	k.mirrorMakerThatCopies(func() bool { return k.differenceIfThere(topic).Lost == 0 }, exactly...).Stop()
	flow := k.alias + "->central."
	testbed.Produce(t, k.source, topic, told(20_000, next))
	was := k.copied(topic)
	maker := k.mirrorMakerThatCopies(func() bool { return k.copied(topic) >= was+10_000 },
		append(exactly, flow+"transaction.boundary", "interval", flow+"transaction.boundary.interval.ms", seldom)...)
	maker.Kill()
	k.gone()
	open := ends(t, k.target, k.copyOf(topic))
	k.catchUp()
	if d := k.difference(topic); !d.Exact() {
		t.Errorf("after MirrorMaker was killed within a transaction: %v", d)
	}
	t.Logf("%s: the log ended at %d when MirrorMaker was killed, and ends at %d", topic, open, ends(t, k.target, k.copyOf(topic)))
}

// mirrorMakerThatCopies starts MirrorMaker, again where that does not help: as it starts with exactly-once it may fence tasks of its own off,
// which stay failed until somebody restarts it.
func (k *installation) mirrorMakerThatCopies(copies func() bool, properties ...string) *testbed.Container {
	k.t.Helper()
	for range 5 {
		maker := k.mirrorMaker(properties...)
		if testbed.Within(k.t, mirrorMakerWithin/5, copies) {
			return maker
		}
		maker.Kill()
	}
	k.t.Fatal("MirrorMaker does not copy")
	return nil
}

func (k *installation) differenceIfThere(topic string) testbed.Difference {
	if k.copied(topic) == 0 {
		return testbed.Difference{Lost: 1}
	}
	return k.difference(topic)
}

// freeAddress is one that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
