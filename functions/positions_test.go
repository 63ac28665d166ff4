package functions_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/mm2"
	positions "github.com/kferry/kferry/shared/offsets"
	"github.com/kferry/kferry/shared/spec"
)

// everyRecord is what a partition holds, in order.
func (w *world) everyRecord(c *kafka.Cluster, name string, partition int32, isolation spec.Isolation) (all []kafka.Record) {
	w.Helper()
	tp := kafka.TopicPartition{Topic: name, Partition: partition}
	start, err := c.LogStart(w.Context(), tp)
	w.must(err)
	ends, err := c.ListOffsets(w.Context(), []kafka.TopicPartition{tp}, kafka.Latest, isolation)
	w.must(err)
	r := c.NewReader(tp, start.Offset, ends[tp].Offset, isolation, 1<<20)
	for {
		records, err := r.Next(w.Context())
		if err == io.EOF {
			return all
		}
		w.must(err)
		all = append(all, records...)
	}
}

func contentOf(r kafka.Record) string { return fmt.Sprintf("%q %q %d", r.Key, r.Value, r.Timestamp) }

// numbered names the records of a side, where some have the same content.
func numbered() func(kafka.Record) string {
	seen := map[string]int{}
	return func(r kafka.Record) string {
		content := contentOf(r)
		seen[content]++
		return fmt.Sprint(content, seen[content])
	}
}

// landed is where the records of a source partition are on the target, as the test has found by itself.
type landed struct {
	records []kafka.Record
	target  []int64 // where each has landed last; -1: nowhere
	end     int64   // of the target
}

func (w *world) landed(partition int32) (l landed) {
	w.Helper()
	l.records, l.end = w.everyRecord(w.source, topic, partition, w.flow.Isolation), w.targetEnd(partition)
	contents := map[string]bool{}
	for _, r := range l.records {
		contents[contentOf(r)] = true
	}
	of, from := contentOf, contentOf
	if len(contents) < len(l.records) {
		of, from = numbered(), numbered()
	}
	last := map[string]int64{}
	for _, r := range w.everyRecord(w.target, replica, partition, spec.ReadUncommitted) {
		last[of(r)] = r.Offset
	}
	for _, r := range l.records {
		at, is := last[from(r)]
		if !is {
			at = -1
		}
		l.target = append(l.target, at)
	}
	return l
}

// from is where the first record from a source offset on has landed.
func (l landed) from(u int64) int64 {
	at := l.end
	for i, r := range l.records {
		if r.Offset >= u && l.target[i] >= 0 {
			at = min(at, l.target[i])
		}
	}
	return at
}

// again is how many records before u lie at a target offset or behind it.
func (l landed) again(u, at int64) (n int) {
	for i, r := range l.records {
		if r.Offset < u && l.target[i] >= at {
			n++
		}
	}
	return n
}

func positionOf(c lease.Cursor) positions.Cursor {
	return positions.Cursor{Offset: c.Offset, Target: c.Target, Mapped: c.Mapped, Map: c.Map}
}

// translated holds every position against the records themselves: none passes a record over, and an exact one brings none again. It
// returns how many of those that are copied aren't exact. The test has to have seen the copy complete.
func (w *world) translated() (inexact int) {
	w.Helper()
	all := positions.Open(w.flow, w.target)
	for partition := range w.partitions {
		c := w.cursor(partition)
		w.must(all.Refresh(w.Context()))
		l := w.landed(partition)
		step := max(1, c.Offset/500)
		for u := int64(0); u <= c.Offset+2; u += step {
			got := all.Translate(kafka.TopicPartition{Topic: topic, Partition: partition}, positionOf(c), u)
			want := l.from(u)
			if again := l.again(u, got.Target); got.Target > want || got.Exact && again > 0 && c.ExactlyOnce == "" { // else the copy itself repeats records
				w.Fatalf("position %d of partition %d is translated to %+v: the record is at %d, and %d come again", u, partition, got, want, again)
			}
			if !got.Exact && u <= c.Offset {
				inexact++
			}
		}
	}
	return inexact
}

// scatter writes a batch of n records, of which compaction will leave about half, here and there.
func (w *world) scatter(random *rand.Rand, n int) {
	w.Helper()
	client, err := w.env.Client("A", kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(time.Second),
		kgo.MaxBufferedRecords(n), compressed)
	w.must(err)
	defer client.Close()
	records := make([]*kgo.Record, n)
	for i := range records {
		records[i] = &kgo.Record{Key: []byte("gone"), Value: []byte(w.unique())}
		if random.IntN(2) == 0 {
			records[i].Key = records[i].Value
		}
	}
	w.must(client.ProduceSync(w.Context(), records...).FirstErr())
}

// Where holes are everywhere, the map outgrows the cursor and goes to its topic in chunks, also when workers are killed on the way. The
// cursor stays small, and the next run finishes what the last one left in it.
func TestMapOutgrowsTheCursor(t *testing.T) {
	inWorld(t, compacted, func(w *world) {
		random := rand.New(rand.NewPCG(3, 3))
		for range 40 {
			w.scatter(random, 3000)
		}
		w.env.Kafka("A").Compact()
		for i := range 3 {
			w.killAt(position{"B", kmsg.Produce, replica, 2}, w.worker(0), i%2 == 0)
		}
		w.worker(0)
		w.complete()
		w.exact()
		all := positions.Open(w.flow, w.target)
		w.must(all.Refresh(w.Context()))
		if chunks, bytes := all.Size(); chunks < 2 {
			t.Errorf("%d chunks of %d bytes on the topic", chunks, bytes)
		}
		w.eventually("the cursor carries the open chunk alone", func() bool { return len(w.published(0).Map) < 5000 })
	})
}

// A target that doesn't let kferry keep its map doesn't keep it from copying: after a while the cursor goes on without, it says so, and
// nothing wrong is said of what is unknown then.
func TestMapThatCanNotBeKept(t *testing.T) {
	inWorld(t, compacted, func(w *world) {
		name := positions.NewArchive(w.flow, w.target).Topic()
		w.env.Kafka("B").ControlKey(int16(kmsg.CreateTopics), func(req kmsg.Request) (kmsg.Response, error, bool) {
			w.env.Kafka("B").KeepControl()
			r := req.(*kmsg.CreateTopicsRequest)
			if r.Topics[0].Topic != name {
				return nil, nil, false
			}
			resp := r.ResponseKind().(*kmsg.CreateTopicsResponse)
			refused := kmsg.NewCreateTopicsResponseTopic()
			refused.Topic, refused.ErrorCode = name, kerr.TopicAuthorizationFailed.Code
			resp.Topics = append(resp.Topics, refused)
			return resp, nil, true
		})
		random := rand.New(rand.NewPCG(3, 3))
		for range 50 {
			w.scatter(random, 6000)
		}
		w.env.Kafka("A").Compact()
		w.worker(0)
		begun := time.Now()
		w.complete()
		took := time.Since(begun)
		if c := w.compared(); !c.Exact() {
			t.Errorf("the copy is not exact: %s", c)
		}
		if n := w.translated(); n == 0 {
			t.Error("every position is known")
		}
		if c := w.cursor(0); len(c.Map) > 3*positions.MostPending {
			t.Errorf("the cursor carries %d bytes", len(c.Map))
		}
		if took > 45*time.Second {
			t.Errorf("took %s", took)
		}
	})
}

// MirrorMaker's readers hear of where the copy is about each thirty seconds, and at the end of a run of its last record: of nothing that
// isn't so.
func TestOffsetSyncsFollowTheCopy(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.flow.Syncs = spec.OffsetSyncs{Enabled: true, OnSource: true, Topic: "mm2-offset-syncs.B.internal", ReplicationFactor: -1}
		w.endTransaction(w.transact("t", 4), kgo.TryCommit)
		w.slowStream(100 * time.Second)
		p := w.worker(0)
		w.complete()
		time.Sleep(100 * time.Second)
		w.endTransaction(w.transact("t", 4), kgo.TryCommit)
		w.complete()
		w.eventually("the lease is given back", func() bool { return p.count("kferry_leases_held") == 0 })
		time.Sleep(2 * time.Second)
		l := w.landed(0)
		upstream, n := int64(-1), 0
		w.must(w.source.ReadAll(w.Context(), w.flow.Syncs.Topic, func(r kafka.Record) error {
			pair, err := mm2.ParseOffsetSync(r.Key, r.Value)
			w.must(err)
			i := slices.IndexFunc(l.records, func(r kafka.Record) bool { return r.Offset == pair.Upstream })
			if i < 0 || l.target[i] != pair.Downstream || pair.Topic != topic || pair.Partition != 0 || pair.Upstream <= upstream {
				t.Errorf("the pair %+v behind %d", pair, upstream)
			}
			upstream, n = pair.Upstream, n+1
			return nil
		}))
		if last := l.records[len(l.records)-1].Offset; upstream != last || n < 4 || n > 6 {
			t.Errorf("%d pairs, the last of %d where %d is the last record", n, upstream, last)
		}
		w.exact()
	})
}
