package integration

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kferry/kferry/integration/testbed"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/offsets"
	"github.com/kferry/kferry/shared/spec"
)

// translated holds positions in a topic against what plain consumers find on both sides, record by record: none leads past a record that
// is still to come, and an exact one brings none again. It returns how many were asked for and how many of them are not exact. The copy
// has to stand still.
func (k *installation) translated(topic string, level kgo.IsolationLevel) (asked, inexact int) {
	k.t.Helper()
	flow := spec.Flow{
		Source: k.alias, Target: "central", Policy: mm2.DefaultPolicy{},
		OffsetsTopic: mm2.OffsetsTopic(k.alias), Connector: mm2.SourceConnector,
	}
	target, err := kafka.Open(spec.Cluster{Alias: "central", BootstrapServers: []string{k.target.Bootstrap()}}, kafka.Options{})
	if err != nil {
		k.t.Fatal(err)
	}
	defer target.Close()
	cursors, err := lease.ReadCursors(k.t.Context(), flow, target)
	if err != nil {
		k.t.Fatal(err)
	}
	positions := offsets.Open(flow, target)
	if err := positions.Refresh(k.t.Context()); err != nil {
		k.t.Fatal(err)
	}
	originals, copies := testbed.Read(k.t, k.source, topic, level), testbed.Read(k.t, k.target, k.copyOf(topic), testbed.Uncommitted)
	for partition, records := range originals {
		landed := map[string]int64{}
		for _, r := range copies[partition] {
			landed[content(r)] = r.Offset
		}
		tp := kafka.TopicPartition{Topic: topic, Partition: partition}
		c := cursors[tp]
		at := offsets.Cursor{Offset: c.Offset, Target: c.Target, Mapped: c.Mapped, Map: c.Map}
		for u := int64(0); u <= c.Offset; u += max(1, c.Offset/400) {
			got := positions.Translate(tp, at, u)
			want, again := c.Target, 0
			for _, r := range records {
				switch offset, is := landed[content(r)]; {
				case !is:
				case r.Offset >= u:
					want = min(want, offset)
				case offset >= got.Target:
					again++
				}
			}
			if got.Target > want || got.Exact && again > 0 {
				k.t.Fatalf("offset %d of %s is translated to %+v: its record is at %d, and %d before it come again", u, tp, got, want, again)
			}
			if asked++; !got.Exact {
				inexact++
			}
		}
	}
	chunks, bytes := positions.Size()
	k.t.Logf("%s: %d positions, %d of them not exact; %d chunks of %d bytes on %s", topic, asked, inexact, chunks, bytes, mm2.PositionsTopic(k.alias))
	return asked, inexact
}

func content(r *kgo.Record) string {
	return fmt.Sprintf("%q %q %d", r.Key, r.Value, r.Timestamp.UnixMilli())
}

// Workers are killed while they copy transactions, of which some fail; what a stock reader of MirrorMaker's would go by is true as well.
func TestPositionsAreExactAfterKills(t *testing.T) {
	const topic = "positions"
	k := copying(t, testbed.Shared(t, testbed.V33), testbed.Shared(t, testbed.V43), topic)
	k.source.CreateTopic(topic, 2, 1)
	random, next := seeded(t), 0
	more := func() {
		load := testbed.Load{Records: 600, First: next, TxnRecords: 10 + random.IntN(40), AbortEvery: 4, BatchBytes: 2000, Codec: kgo.SnappyCompression(), Seed: 7}
		next = testbed.Produce(t, k.source, topic, load)
	}
	slow := k.with("KFERRY_RATE_RECORDS", "300") // so that every life ends in the middle
	for range times(3, 20) {
		more()
		run := slow.start("run")
		slow.grows(topic, 50+random.Int64N(150))
		run.Kill()
	}
	run := k.start("run")
	more()
	k.idle(topic)
	k.stop(run)
	k.compare(topic)
	if asked, inexact := k.translated(topic, testbed.Committed); asked < 500 || inexact > 0 {
		t.Errorf("%d of %d positions are not exact", inexact, asked)
	}
	k.syncsAreTrue(topic)
}

// syncsAreTrue holds what was written to the offset-syncs topic against both logs, and demands the last record's of each partition.
func (k *installation) syncsAreTrue(topic string) {
	k.t.Helper()
	originals, copies := testbed.Read(k.t, k.source, topic, testbed.Committed), testbed.Read(k.t, k.target, k.copyOf(topic), testbed.Uncommitted)
	at := func(log testbed.Log, partition int32, offset int64) *kgo.Record {
		for _, r := range log[partition] {
			if r.Offset == offset {
				return r
			}
		}
		return nil
	}
	last, pairs := map[int32]int64{}, 0
	for _, r := range testbed.Read(k.t, k.target, mm2.OffsetSyncsTopic(".", k.alias), testbed.Uncommitted)[0] {
		pair, err := mm2.ParseOffsetSync(r.Key, r.Value)
		if err != nil {
			k.t.Fatal(err)
		}
		if pair.Topic != topic {
			continue
		}
		from, to := at(originals, pair.Partition, pair.Upstream), at(copies, pair.Partition, pair.Downstream)
		if from == nil || to == nil || content(from) != content(to) {
			k.t.Errorf("the pair %+v is not true", pair)
		}
		last[pair.Partition], pairs = pair.Upstream, pairs+1
	}
	for partition, records := range originals {
		if want := records[len(records)-1].Offset; last[partition] != want {
			k.t.Errorf("the last pair of partition %d is of %d, the last record is at %d", partition, last[partition], want)
		}
	}
	k.t.Logf("%d true pairs", pairs)
}
