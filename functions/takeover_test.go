package functions_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// A maker is MirrorMaker 2 as far as a target can tell.
type maker struct {
	*world
	source []*kgo.Record // of partition 0
	client *kgo.Client
}

// maker writes so many records to the source, each with a value of its own, and returns who is to copy them.
func (w *world) maker(records int, options ...kgo.Opt) *maker {
	w.Helper()
	values := make([]string, records)
	for i := range values {
		values[i] = w.unique()
	}
	return w.makerOf(values, options...)
}

func (w *world) makerOf(values []string, options ...kgo.Opt) *maker {
	w.Helper()
	m := &maker{world: w}
	m.grow(values...)
	var err error
	m.client, err = w.env.Client("B", append([]kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(16 << 10)}, options...)...)
	w.must(err)
	w.Cleanup(m.client.Close)
	return m
}

// grow appends records to the source.
func (m *maker) grow(values ...string) {
	m.Helper()
	writer, err := m.env.Client("A", kgo.RecordPartitioner(kgo.ManualPartitioner()))
	m.must(err)
	defer writer.Close()
	for chunk := range slices.Chunk(values, 500) {
		var records []*kgo.Record
		for _, v := range chunk {
			records = append(records, &kgo.Record{Topic: topic, Key: []byte("k"), Value: []byte(v), Timestamp: time.Now().Add(-time.Hour).Truncate(time.Millisecond)})
		}
		m.must(writer.ProduceSync(m.Context(), records...).FirstErr())
		m.source = append(m.source, records...)
	}
}

// copies lands the source's records from one up to another.
func (m *maker) copies(from, to int) {
	m.Helper()
	for chunk := range slices.Chunk(m.source[from:to], 100) {
		var records []*kgo.Record
		for _, r := range chunk {
			records = append(records, &kgo.Record{Topic: replica, Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp})
		}
		m.must(m.client.ProduceSync(m.Context(), records...).FirstErr())
	}
}

// commits writes the offset of the last record copied, and has the queue know it as well.
func (m *maker) commits(last int) {
	m.Helper()
	m.commitsUnseen(last)
	m.must(m.cursors.Load(m.Context()))
}

// commitsUnseen is commits behind the queue's back.
func (m *maker) commitsUnseen(last int) {
	m.Helper()
	key := m.flow.Key(topic, 0)
	m.must(m.target.Write(m.Context(), m.flow.OffsetsTopic, []kafka.Record{{
		Partition: mm2.OffsetsPartition(key, mm2.OffsetsPartitions), Key: key, Value: []byte(`{"offset":` + strconv.Itoa(last) + `}`),
	}}))
}

// leaves demands that kferry adds just the records from one on to what is there.
func (m *maker) leaves(from int) {
	m.Helper()
	want := m.values("B", replica)
	for _, r := range m.source[from:] {
		want = append(want, string(r.Value))
	}
	m.worker(0)
	m.complete()
	if got := m.values("B", replica); !slices.Equal(got, want) {
		m.Errorf("the target holds %d records, want %d: it differs from what it should be at %d", len(got), len(want), slices.IndexFunc(want, func(v string) bool { return !slices.Contains(got, v) }))
	}
	m.eventually("published", func() bool {
		c := m.published(0)
		return !c.Foreign && c.Offset == m.sourceEnd(0) && c.ExactlyOnce == ""
	})
}

// stays demands that the partition is held, with some words, and nothing is added.
func (m *maker) stays(reason lease.Reason, words string) {
	m.Helper()
	end := m.targetEnd(0)
	m.worker(0)
	m.offer(0)
	var s lease.State
	m.eventually("held", func() bool { s, _ = m.state(0); return s.Held && s.Reason == reason })
	if !strings.Contains(s.Detail, words) || m.targetEnd(0) != end {
		m.Errorf("held with %q, and the target grew from %d to %d", s.Detail, end, m.targetEnd(0))
	}
}

func TestTakeOverGoesOnBehindTheLastCommit(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		m := w.maker(50)
		m.copies(0, 30)
		m.commits(29)
		m.leaves(30)
	})
}

func TestTakeOverFindsWhatLandedSinceTheLastCommit(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		m := w.maker(500)
		m.copies(0, 300)
		m.commits(99)
		m.leaves(300)
	})
}

// A second run had the first one's commit, landed the same again, and was stopped before it had come as far.
func TestTakeOverKnowsHowFarAnEarlierRunGot(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		m := w.maker(500)
		m.copies(0, 300)
		m.copies(100, 150)
		m.commits(99)
		m.leaves(300)
	})
}

// The second run was stopped in order, and so has committed behind what the first one had landed: its records fill all that is looked at
// at first.
func TestTakeOverLooksBehindACommit(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		m := w.maker(16_000)
		m.copies(0, 15_000)
		m.copies(5_000, 10_000)
		m.commits(9_999)
		m.leaves(15_000)
	})
}

// The queue knows the position from when MirrorMaker still ran.
func TestTakeOverReadsThePositionWhenMirrorMakerHasStopped(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		m := w.makerOf(append(slices.Repeat([]string{"x"}, 40), "y"))
		m.copies(0, 30)
		m.commits(9)
		m.commitsUnseen(29)
		m.copies(30, 41)
		m.leaves(41)
	})
}

// With exactly-once (KIP-618) a killed MirrorMaker leaves a transaction open. It comes to nothing.
func TestTakeOverEndsAnOpenTransaction(t *testing.T) {
	for id, strimzi := range map[string]bool{"A-mm2-MirrorSourceConnector-0": false, "mirrormaker2-cluster-A->B.MirrorSourceConnector-11": true} {
		t.Run(id, func(t *testing.T) {
			inWorld(t, setup{strimzi: strimzi}, func(w *world) { w.endsTransactionOf(id) })
		})
	}
}

func (w *world) endsTransactionOf(id string) {
	w.Helper()
	m := w.maker(50, kgo.TransactionalID(id))
	for _, end := range []struct {
		from, to int
		commit   kgo.TransactionEndTry
	}{{0, 20, kgo.TryCommit}, {20, 25, kgo.TryAbort}, {20, 30, kgo.TryCommit}} {
		w.must(m.client.BeginTransaction())
		m.copies(end.from, end.to)
		w.must(m.client.EndTransaction(w.Context(), end.commit))
	}
	m.commits(29)
	w.must(m.client.BeginTransaction())
	m.copies(30, 40)
	want := len(w.committedValues())
	w.worker(0)
	w.complete()
	got := w.committedValues()
	if len(got) != 50 || want != 30 {
		w.Fatalf("the target held %d records, and holds %d", want, len(got))
	}
	for i, v := range got {
		if v != string(m.source[i].Value) {
			w.Fatalf("record %d is %q", i, v)
		}
	}
	if err := m.client.EndTransaction(w.Context(), kgo.TryCommit); err == nil {
		w.Error("MirrorMaker could still commit")
	}
}

// committedValues are those of the target's records that a consumer of committed ones sees.
func (w *world) committedValues() (values []string) {
	w.Helper()
	end, err := w.target.ListOffsets(w.Context(), []kafka.TopicPartition{{Topic: replica}}, kafka.Latest, spec.ReadCommitted)
	w.must(err)
	r := w.target.NewReader(kafka.TopicPartition{Topic: replica}, 0, end[kafka.TopicPartition{Topic: replica}].Offset, spec.ReadCommitted, 1<<20)
	for {
		records, err := r.Next(w.Context())
		if err != nil {
			return values
		}
		for _, record := range records {
			values = append(values, string(record.Value))
		}
	}
}

// Nothing is written as long as a worker of MirrorMaker's is there, and then it goes on by itself.
func TestTakeOverWaitsUntilMirrorMakerHasStopped(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		m := w.maker(50)
		m.copies(0, 30)
		m.commits(29)
		runs, err := w.env.Client("B", kgo.ConsumerGroup("A-mm2"), kgo.ConsumeTopics(replica), kgo.DisableAutoCommit())
		w.must(err)
		ctx, stop := context.WithTimeout(w.Context(), 10*time.Second)
		runs.PollFetches(ctx)
		stop()
		m.stays(lease.ReasonMirrorMaker, "group A-mm2 on B has 1 members")
		runs.Close()
		w.complete()
		if got := w.targetEnd(0); got != 50 {
			w.Errorf("the target holds %d records", got)
		}
	})
}

// kferry had stopped and MirrorMaker goes on. Until it has committed, the last position is kferry's, which must not be written over the one
// that MirrorMaker is about to commit.
func TestTakeOverWaitsForAMirrorMakerThatHasNotCommitted(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		m := w.maker(20)
		p := w.worker(0)
		w.offer(0)
		w.eventually("a cursor", func() bool { _, _, err := w.cursors.Get(w.Context(), topic, 0); return err == nil })
		w.complete()
		p.drain()
		for range 60 {
			m.grow(w.unique())
		}
		m.copies(20, 50)
		runs, err := w.env.Client("B", kgo.ConsumerGroup("A-mm2"), kgo.ConsumeTopics(replica), kgo.DisableAutoCommit())
		w.must(err)
		ctx, stop := context.WithTimeout(w.Context(), 10*time.Second)
		runs.PollFetches(ctx)
		stop()
		m.stays(lease.ReasonMirrorMaker, "group A-mm2 on B has 1 members")
		m.commitsUnseen(49)
		time.Sleep(time.Minute) // more looks at it
		if c := w.published(0); !c.Foreign || c.Offset != 50 {
			w.Errorf("MirrorMaker's position was written over: %+v", c)
		}
		runs.Close()
		m.leaves(50)
	})
}

// A copy that grows is written to, whatever the group says.
func TestTakeOverWaitsUntilTheCopyIsStill(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		m := w.maker(400)
		m.commits(-1)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := range 300 {
				m.copies(i, i+1)
				time.Sleep(100 * time.Millisecond)
			}
		}()
		w.worker(0)
		w.complete()
		<-done
		if got := w.values("B", replica); len(got) != 400 || got[399] != string(m.source[399].Value) {
			w.Errorf("the target holds %d records", len(got))
		}
	})
}

func TestTakeOverHoldsWhereRecordsAreAlike(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		m := w.makerOf(append([]string{"a", "b"}, slices.Repeat([]string{"x"}, 20)...))
		m.copies(0, 8)
		m.commits(1)
		m.stays(lease.ReasonNoCursor, "--from 2 copies up to 6 records again, --from 8 may leave as many out")
	})
}

// After a clean stop the committed records are all there is, however alike they are.
func TestTakeOverOfRecordsThatAreAlike(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		m := w.makerOf(append([]string{"a", "b"}, slices.Repeat([]string{"x"}, 20)...))
		m.copies(0, 8)
		m.commits(7)
		m.leaves(8)
	})
}

func TestTakeOverHoldsWhereNothingMatches(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		m := w.maker(50)
		w.writePartition("B", replica, 0, 10)
		m.commits(29)
		m.stays(lease.ReasonNoCursor, "had committed offset 29 of orders-0, but none of the last 10 records")
	})
}

// A position that MirrorMaker has not written an offset to yet says nothing about records that are no copies.
func TestTakeOverHoldsWhereNothingWasCommitted(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		m := w.maker(50)
		w.writePartition("B", replica, 0, 10)
		m.commits(-1)
		m.stays(lease.ReasonNoCursor, "had committed no offset of orders-0 yet, but none of the last 10 records")
	})
}

// What retention took on the target can't be looked up, and is not missed.
func TestTakeOverOfAnEmptyCopy(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		m := w.maker(50)
		m.copies(0, 30)
		m.commits(29)
		w.must(w.env.Kafka("B").DeleteRecords(replica, 0, 30))
		m.leaves(30)
	})
}

// The source has lost what was committed and more: the rest follows, and what is lost is on record as ever.
func TestTakeOverBehindARetentionGap(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.flow.OnHold = spec.OnHold{}
		m := w.maker(50)
		m.copies(0, 30)
		m.commits(29)
		w.must(w.env.Kafka("A").DeleteRecords(topic, 0, 40))
		m.leaves(40)
	})
}

// A compacted source keeps the newest record of each key, and so may its copy.
func TestTakeOverOfACompactedSource(t *testing.T) {
	for tail := range 12 {
		t.Run(fmt.Sprint(tail), func(t *testing.T) {
			compact := map[string]string{"cleanup.policy": "compact"}
			inWorld(t, setup{source: compact, target: compact}, func(w *world) {
				m := w.maker(60)
				m.copies(0, 30+tail)
				m.commits(29)
				m.leaves(30 + tail)
			})
		})
	}
}

// kferry is stopped, MirrorMaker goes on and is stopped, and a worker starts before any coordinator has loaded what MirrorMaker left.
func TestTakeOverBeforeAnyCoordinator(t *testing.T) {
	for name, copied := range map[string]int{"kferry had copied": 20, "kferry had just begun": 0} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				m := w.maker(copied)
				p := w.worker(0)
				w.offer(0)
				w.eventually("a cursor", func() bool { _, _, err := w.cursors.Get(w.Context(), topic, 0); return err == nil })
				w.complete()
				p.drain()
				for range 60 {
					m.grow(w.unique())
				}
				m.copies(copied, copied+50)
				m.commitsUnseen(copied + 29)
				m.leaves(copied + 50)
			})
		})
	}
}

// Where the groups of MirrorMaker's time go on: exactly where the copy's end could be compared, also what is there twice, and before that behind
// the nearest pair that MirrorMaker wrote. What it had found itself stays where that is better.
func TestTakeOverKnowsThePositionsOfMirrorMakersTime(t *testing.T) {
	const syncsTopic = "mm2-offset-syncs.B.internal"
	inWorld(t, setup{}, func(w *world) {
		w.flow.Filters = []spec.Filter{{Topics: patterns(t, topic)}}
		w.flow.Groups = spec.Groups{
			State: spec.Running, Include: patterns(t, ".*"), Checkpoints: true, CheckpointsInterval: 5 * time.Second, CheckpointsTopic: checkpointsTopic,
			CheckpointsReplicationFactor: -1, SyncInterval: time.Minute,
		}
		w.flow.Syncs = spec.OffsetSyncs{Enabled: true, OnSource: true, Topic: syncsTopic, ReplicationFactor: -1}
		m := w.maker(12_000)
		m.copies(0, 9_000)
		m.copies(8_000, 10_000) // MirrorMaker was killed, and began again at its last commit
		m.commits(9_999)
		w.must(w.env.Kafka("A").CreateTopic(syncsTopic, 1, map[string]string{"cleanup.policy": "compact"}))
		var pairs []kafka.Record
		for at := int64(1_000); at < 11_000; at += 500 {
			pair := mm2.OffsetSync{Topic: topic, Upstream: at, Downstream: at}
			if at >= 9_000 {
				pair.Upstream -= 1_000
			}
			pairs = append(pairs, kafka.Record{Key: pair.Key(), Value: pair.Value()})
		}
		w.must(w.source.Write(w.Context(), syncsTopic, pairs))
		known := mm2.Checkpoint{Group: "known", Topic: replica, Upstream: 4_200, Downstream: 4_150}
		w.must(w.env.Kafka("B").CreateTopic(checkpointsTopic, 1, map[string]string{"cleanup.policy": "compact"}))
		w.must(w.target.Write(w.Context(), checkpointsTopic, []kafka.Record{{Key: known.Key(), Value: known.Value()}}))
		m.leaves(10_000)
		for u, group := range map[int64]string{500: "before all pairs", 4_200: "known", 4_201: "deep", 5_000: "at a pair", 7_000: "compared", 8_500: "doubled", 9_999: "last", 10_000: "next", 11_500: "kferry's"} {
			w.commits("A", group, topic, u)
		}
		w.follows()
		w.wrote("known A.orders-0 4200->4150", "before all pairs A.orders-0 500->0", "deep A.orders-0 4201->4001", "at a pair A.orders-0 5000->5000",
			"compared A.orders-0 7000->7000", "doubled A.orders-0 8500->9500", "last A.orders-0 9999->10999", "next A.orders-0 10000->11000", "kferry's A.orders-0 11500->12500")
		w.commits("A", "known", topic, 4_300) // it has moved, but nothing better is known
		w.follows()
		if last := w.lastCheckpoint(); last.Group == "known" {
			w.Errorf("a better checkpoint of MirrorMaker's was replaced by %+v", last)
		}
	})
}

// Whoever may not read MirrorMaker's offset-syncs takes over all the same.
func TestTakeOverWithoutTheRightToOffsetSyncs(t *testing.T) {
	const syncsTopic = "mm2-offset-syncs.B.internal"
	inWorld(t, setup{}, func(w *world) {
		w.flow.Syncs = spec.OffsetSyncs{Enabled: true, OnSource: true, Topic: syncsTopic, ReplicationFactor: -1}
		m := w.maker(50)
		m.copies(0, 30)
		m.commits(29)
		w.must(w.env.Kafka("A").CreateTopic(syncsTopic, 1, nil))
		refused := 0
		w.env.Kafka("A").ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
			w.env.Kafka("A").KeepControl()
			asked := req.(*kmsg.ListOffsetsRequest)
			if len(asked.Topics) != 1 || asked.Topics[0].Topic != syncsTopic {
				return nil, nil, false
			}
			refused++
			answer := kmsg.NewListOffsetsResponseTopicPartition()
			answer.ErrorCode = kerr.TopicAuthorizationFailed.Code
			resp := asked.ResponseKind().(*kmsg.ListOffsetsResponse)
			resp.Topics = []kmsg.ListOffsetsResponseTopic{{Topic: syncsTopic, Partitions: []kmsg.ListOffsetsResponseTopicPartition{answer}}}
			return resp, nil, true
		})
		m.leaves(30)
		if refused == 0 {
			w.Error("nobody has asked for the offset-syncs")
		}
	})
}

// The copy still has what the source's retention took, and there a record that looks like one which MirrorMaker had not come to yet: a
// ping, and no time tells them apart.
func TestTakeOverIsNotDeceivedByWhatTheSourceHasLost(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		values := make([]string, 100)
		for i := range values {
			values[i] = w.unique()
		}
		values[20], values[95] = "ping", "ping"
		m := w.makerOf(values)
		m.copies(0, 90)
		m.commits(89)
		w.must(w.env.Kafka("A").DeleteRecords(topic, 0, 80))
		m.leaves(90)
	})
}

// The queue still has MirrorMaker's position, though kferry has taken over from it: it goes on all the same.
func TestTakeOverThatTheQueueHasForgotten(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		m := w.maker(50)
		m.copies(0, 30)
		m.commits(29)
		p := w.worker(0)
		w.complete()
		w.eventually("published", func() bool { return w.published(0).Offset == 50 })
		p.drain()
		w.edit(0, func(c *lease.Cursor) { *c = lease.Cursor{Version: lease.CursorVersion, Foreign: true, Offset: 30} })
		m.grow(w.unique())
		m.leaves(50)
	})
}

// A run that was killed got further than the long one after it, which is all that shows at the copy's end.
func TestTakeOverFindsTheRunThatGotFurthest(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		m := w.maker(45_000)
		m.copies(0, 42_000)
		m.copies(10_000, 38_000)
		m.commits(37_500)
		m.leaves(42_000)
	})
}
