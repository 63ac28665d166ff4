package testbed

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	readWithin   = 5 * time.Minute  // to read a whole topic
	leaderWithin = 30 * time.Second // to have a partition's leader again after a fault
)

// Log is what a consumer sees of a topic, by partition and in order.
type Log map[int32][]*kgo.Record

// Records is how many there are in all partitions.
func (l Log) Records() int {
	n := 0
	for _, records := range l {
		n += len(records)
	}
	return n
}

// Isolation levels of [Read].
var (
	Committed   = kgo.ReadCommitted()
	Uncommitted = kgo.ReadUncommitted()
)

// Read reads a topic, or some partitions of it, from its start to the end that it has at the call.
func Read(t T, c *Cluster, topic string, level kgo.IsolationLevel, partitions ...int32) Log {
	t.Helper()
	log, err := read(t, c.InternalBootstrap(), topic, level, partitions)
	if err != nil {
		t.Fatalf("read %s: %v", topic, err)
	}
	return log
}

// Ends is the log end of every partition: its high watermark.
func (c *Cluster) Ends(topic string) map[int32]int64 {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), brokerWithin)
	defer cancel()
	client := c.Client()
	defer client.Close()
	ends, err := offsets(ctx, kadm.NewClient(client).ListEndOffsets, topic)
	if err != nil {
		c.t.Fatalf("ends of %s: %v", topic, err)
	}
	return ends
}

func read(t T, bootstrap, topic string, level kgo.IsolationLevel, partitions []int32) (Log, error) {
	ctx, cancel := context.WithTimeout(t.Context(), readWithin)
	defer cancel()
	client := newClient(t, bootstrap,
		kgo.FetchIsolationLevel(level),
		kgo.KeepControlRecords(), // so that a log that ends in a marker is seen to end
		kgo.FetchMaxWait(100*time.Millisecond))
	defer client.Close()
	admin := kadm.NewClient(client)
	starts, err := offsets(ctx, admin.ListStartOffsets, topic)
	if err != nil {
		return nil, err
	}
	list := admin.ListEndOffsets
	if level == Committed {
		list = admin.ListCommittedOffsets
	}
	ends, err := offsets(ctx, list, topic)
	if err != nil {
		return nil, err
	}
	log := Log{}
	open := map[int32]kgo.Offset{}
	for p, start := range starts {
		if len(partitions) > 0 && !slices.Contains(partitions, p) {
			continue
		}
		log[p] = nil
		if start < ends[p] {
			open[p] = kgo.NewOffset().At(start)
		}
	}
	client.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: open})
	for len(open) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return nil, fmt.Errorf("partitions %v not read to %v: %w", slices.Collect(maps.Keys(open)), ends, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			end := ends[r.Partition]
			if r.Offset < end && !r.Attrs.IsControl() {
				log[r.Partition] = append(log[r.Partition], r)
			}
			if r.Offset >= end-1 {
				delete(open, r.Partition)
			}
		})
	}
	return log, nil
}

// offsets asks again while a leader is away.
func offsets(ctx context.Context, list func(context.Context, ...string) (kadm.ListedOffsets, error), topic string) (map[int32]int64, error) {
	var all map[int32]int64
	err := poll(ctx, leaderWithin, func() error {
		all = map[int32]int64{} // an answer with an error may name partitions that there are not
		listed, err := list(ctx, topic)
		if err == nil {
			err = listed.Error()
		}
		listed.Each(func(o kadm.ListedOffset) { all[o.Partition] = o.Offset })
		return err
	})
	return all, err
}

// Difference says how a copy differs from its source. The zero value is a perfect copy.
type Difference struct {
	Lost      int // records of the source that the copy lacks
	Doubled   int // records that the copy has more often than the source
	Alien     int // records of the copy that the source never had
	Changed   int // records whose key, headers, timestamp or timestamp type are others
	Reordered int // records that come after one that should follow them
	Examples  []string

	lenient Leniency
}

// A Leniency is something in which a copy may differ from its source, because the target's settings leave no choice.
type Leniency int

// What may differ.
const (
	TimestampType Leniency = 1 << iota // the copy of a LogAppendTime topic has the same times as the records' own
	Timestamps                         // the copy is a LogAppendTime topic, whose broker puts its own time in their place
)

// String is one line with the counts and the first few differences.
func (d Difference) String() string {
	return fmt.Sprintf("%d lost, %d doubled, %d alien, %d changed, %d reordered %q",
		d.Lost, d.Doubled, d.Alien, d.Changed, d.Reordered, d.Examples)
}

// Exact is whether the copy is a perfect one.
func (d Difference) Exact() bool {
	return d.Lost+d.Doubled+d.Alien+d.Changed+d.Reordered == 0
}

const maxExamples = 8

func (d *Difference) add(count *int, partition int32, what string, r *kgo.Record) {
	*count++
	if len(d.Examples) < maxExamples {
		d.Examples = append(d.Examples, fmt.Sprintf("%s: partition %d offset %d %.40s", what, partition, r.Offset, identity(r)))
	}
}

// Compare fails the test unless a topic is an exact copy of another: each partition the same records in the same order.
func Compare(t T, source *Cluster, sourceTopic string, target *Cluster, targetTopic string, lenient ...Leniency) {
	t.Helper()
	records, d := Differ(t, source, sourceTopic, target, targetTopic, lenient...)
	if !d.Exact() {
		t.Fatalf("%s (%d records) -> %s: %v", sourceTopic, records, targetTopic, d)
	}
	t.Logf("%s -> %s: %d records compared, 0 lost, 0 doubled, 0 reordered", sourceTopic, targetTopic, records)
}

// Differ reads both topics as a consumer of committed records does. It returns how many records the source has and how the copy
// differs. It holds one partition at a time in memory.
func Differ(t T, source *Cluster, sourceTopic string, target *Cluster, targetTopic string, lenient ...Leniency) (records int, d Difference) {
	t.Helper()
	partitions := source.Ends(sourceTopic)
	maps.Copy(partitions, target.Ends(targetTopic))
	for _, l := range lenient {
		d.lenient |= l
	}
	for _, p := range slices.Sorted(maps.Keys(partitions)) {
		copied := Read(t, target, targetTopic, Committed, p)[p]
		original := Read(t, source, sourceTopic, Committed, p)[p]
		d.partition(p, original, copied)
		records += len(original)
	}
	return records, d
}

// Diff compares a copy with its source, partition by partition. Records are known by their value, or by their key where
// the value is nil, so these must be unique for the counts to be right.
func Diff(source, target Log) Difference {
	var d Difference
	partitions := maps.Clone(source)
	maps.Copy(partitions, target)
	for _, p := range slices.Sorted(maps.Keys(partitions)) {
		d.partition(p, source[p], target[p])
	}
	return d
}

func (d *Difference) partition(p int32, source, target []*kgo.Record) {
	missing := make(map[string][]int, len(source)) // positions in source that no record of target was found for yet
	known := make(map[string]bool, len(source))
	for i, r := range source {
		id := identity(r)
		missing[id] = append(missing[id], i)
		known[id] = true
	}
	last := -1
	for _, r := range target {
		id := identity(r)
		switch positions := missing[id]; {
		case !known[id]:
			d.add(&d.Alien, p, "alien", r)
		case len(positions) == 0:
			d.add(&d.Doubled, p, "doubled", r)
		default:
			missing[id] = positions[1:]
			if positions[0] < last {
				d.add(&d.Reordered, p, "reordered", r)
			}
			last = max(last, positions[0])
			if !d.equal(source[positions[0]], r) {
				d.add(&d.Changed, p, "changed", r)
			}
		}
	}
	for i, r := range source {
		if slices.Contains(missing[identity(r)], i) {
			d.add(&d.Lost, p, "lost", r)
		}
	}
}

func identity(r *kgo.Record) string {
	if r.Value == nil {
		return "key " + string(r.Key)
	}
	return "value " + string(r.Value)
}

// equal tells nil from empty, as Kafka does, and keeps headers in order.
func (d *Difference) equal(a, b *kgo.Record) bool {
	return equalBytes(a.Key, b.Key) && equalBytes(a.Value, b.Value) &&
		(d.lenient&Timestamps != 0 || a.Timestamp.Equal(b.Timestamp)) &&
		(d.lenient != 0 || a.Attrs.TimestampType() == b.Attrs.TimestampType()) &&
		slices.EqualFunc(a.Headers, b.Headers, func(a, b kgo.RecordHeader) bool {
			return a.Key == b.Key && equalBytes(a.Value, b.Value)
		})
}

func equalBytes(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }

// CompareCompacted fails the test unless the copy of a topic that compaction works on has all that the source has now, in order, and the
// same last value for every key. What the source has dropped meanwhile the copy may still have.
func CompareCompacted(t T, source *Cluster, sourceTopic string, target *Cluster, targetTopic string) {
	t.Helper()
	CompareState(t, source, sourceTopic, target, targetTopic)
	var d Difference
	records := 0
	for p := range source.Ends(sourceTopic) {
		original, copied := Read(t, source, sourceTopic, Committed, p)[p], Read(t, target, targetTopic, Committed, p)[p]
		records += len(original)
		d.subsequence(p, original, copied)
	}
	if !d.Exact() {
		t.Fatalf("%s -> %s: %v", sourceTopic, targetTopic, d)
	}
	t.Logf("%s -> %s: all %d records that the source still has are there in order", sourceTopic, targetTopic, records)
}

func (d *Difference) subsequence(p int32, source, target []*kgo.Record) {
	for _, r := range source {
		for len(target) > 0 && !d.equal(r, target[0]) {
			target = target[1:]
		}
		if len(target) == 0 {
			d.add(&d.Lost, p, "lost or out of order", r)
			return
		}
		target = target[1:]
	}
}

// CompareState fails the test unless both topics have the same last value for every key, where a tombstone is as good as nothing.
func CompareState(t T, source *Cluster, sourceTopic string, target *Cluster, targetTopic string) {
	t.Helper()
	want, got := state(Read(t, source, sourceTopic, Committed)), state(Read(t, target, targetTopic, Committed))
	if !maps.Equal(want, got) {
		t.Fatalf("%s has %d keys, %s has %d, or other values for them", sourceTopic, len(want), targetTopic, len(got))
	}
	t.Logf("%s -> %s: %d keys have the same last value", sourceTopic, targetTopic, len(want))
}

// state is the last value of every key, by partition.
func state(log Log) map[string]string {
	values := map[string]string{}
	for p, records := range log {
		for _, r := range records {
			key := fmt.Sprint(p, " ", string(r.Key))
			if delete(values, key); r.Value != nil {
				values[key] = string(r.Value)
			}
		}
	}
	return values
}
