package integration

import (
	"fmt"
	"maps"
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
	mirrorMakerWithin = 90 * time.Second // until MirrorMaker has started and copied
	takenOverWithin   = 90 * time.Second
	seldom            = "600000" // milliseconds between MirrorMaker's commits, which then never come
)

// mirrorMaker runs MirrorMaker 2 as k's flow says, with more properties of the same form: key, value.
func (k *installation) mirrorMaker(more ...string) *testbed.Container {
	k.t.Helper()
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
		"sync.topic.acls.enabled":                          "false",
	}
	for i := 0; i+1 < len(more); i += 2 {
		properties[more[i]] = more[i+1]
	}
	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(properties)) {
		fmt.Fprintf(&text, "%s=%s\n", key, properties[key])
	}
	return testbed.MirrorMaker(k.t, testbed.V43, text.String())
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

// taken has kferry copy what is left, and demands that the copy is then what MirrorMaker had left, and behind that, in order, each record
// of the source that was not among it.
func (k *installation) taken(topic string) {
	k.t.Helper()
	before := testbed.Read(k.t, k.target, k.copyOf(topic), testbed.Committed)
	k.catchUp()
	k.demandTaken(topic, before)
}

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

// always is a load whose records all have a value, and so can be told from each other.
func always(records, first int) testbed.Load {
	return testbed.Load{Records: records, First: first, PlainKeys: true}
}

func TestTakeOver(t *testing.T) {
	t.Run("killed with a long tail", takeOverTail)
}

// MirrorMaker commits seldom and is killed, twice: its second run copies again what the first had landed, and doesn't get as far.
func takeOverTail(t *testing.T) {
	const topic = "tail"
	k := copying(t, testbed.Shared(t, testbed.V33), testbed.Shared(t, testbed.V43), topic)
	k.source.CreateTopic(topic, 2, 1)
	next := testbed.Produce(t, k.source, topic, always(1000, 0))
	maker := k.mirrorMaker()
	k.copiesUpTo(topic, 1000)
	maker.Stop() // which commits
	maker = k.mirrorMaker("central.offset.flush.interval.ms", seldom)
	testbed.Produce(t, k.source, topic, always(80_000, next))
	k.copiesUpTo(topic, 41_000)
	maker.Kill()
	k.gone()
	k.taken(topic)
}
