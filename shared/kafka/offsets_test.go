package kafka_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/spec"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestOffsetsOfAPartition(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		w.create("t", 1)
		tp := kafka.TopicPartition{Topic: "t"}
		w.write(tp, 5, 10)
		w.must(w.fake.DeleteRecords("t", 0, 2))
		for name, c := range map[string]struct {
			ask  func() (kafka.Offset, error)
			want int64
		}{
			"log end":        {func() (kafka.Offset, error) { return w.cluster.LogEnd(w.ctx, tp) }, 5},
			"high watermark": {func() (kafka.Offset, error) { return w.cluster.HighWatermark(w.ctx, tp) }, 5},
			"log start":      {func() (kafka.Offset, error) { return w.cluster.LogStart(w.ctx, tp) }, 2},
		} {
			got, err := c.ask()
			w.must(err)
			if got.Offset != c.want {
				w.Errorf("%s is %d, want %d", name, got.Offset, c.want)
			}
		}
		_, err := w.cluster.LogEnd(w.ctx, kafka.TopicPartition{Topic: "t", Partition: 9})
		w.wants(err, kafka.ErrUnknownTopic)
	})
}

func TestLogEndsShareRequests(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		const partitions = 50
		w.create("t", partitions)
		requests := w.counts(kmsg.OffsetForLeaderEpoch, nil)
		reached, goOn := w.holdsUp(kmsg.OffsetForLeaderEpoch)
		var callers sync.WaitGroup
		for p := range int32(partitions) {
			callers.Go(func() {
				if _, err := w.cluster.LogEnd(w.ctx, kafka.TopicPartition{Topic: "t", Partition: p}); err != nil {
					w.Error(err)
				}
			})
		}
		<-reached
		synctest.Wait()
		goOn()
		callers.Wait()
		if n := requests.Load(); n > 2 {
			w.Errorf("%d requests", n)
		}
	})
}

// The question carries the epoch, so that a leader which has been replaced refuses it rather than telling its own end.
func TestLogEndIsTheCurrentLeaders(t *testing.T) {
	inBubble(t, setup{brokers: 2}, func(w *world) {
		topic := w.create("t", 1)
		tp := kafka.TopicPartition{Topic: "t"}
		w.write(tp, 3, 10)
		leader := topic.Partitions[0].Leader
		before, err := w.cluster.LogEnd(w.ctx, tp)
		w.must(err)
		for _, node := range []int32{1 - leader, leader, leader} { // away, back, and a new epoch in place
			w.must(w.fake.MoveTopicPartition("t", 0, node))
			after, err := w.cluster.LogEnd(w.ctx, tp)
			w.must(err)
			if after.Offset != 3 || after.LeaderEpoch <= before.LeaderEpoch {
				w.Errorf("log end %+v after %+v", after, before)
			}
			before = after
		}
	})
}

func TestListOffsetsAsksEachBrokerOnce(t *testing.T) {
	inBubble(t, setup{brokers: 3}, func(w *world) {
		const partitions = 30
		w.create("t", partitions)
		var tps []kafka.TopicPartition
		for p := range int32(partitions) {
			tp := kafka.TopicPartition{Topic: "t", Partition: p}
			w.write(tp, int(p), 10)
			tps = append(tps, tp)
		}
		requests := w.counts(kmsg.ListOffsets, nil)
		ends, err := w.cluster.ListOffsets(w.ctx, append(tps, kafka.TopicPartition{Topic: "u"}), kafka.Latest, spec.ReadUncommitted)
		w.must(err)
		for _, tp := range tps {
			if end := ends[tp]; end.Err != nil || end.Offset != int64(tp.Partition) {
				w.Errorf("end of %s is %+v", tp, end)
			}
		}
		w.wants(ends[kafka.TopicPartition{Topic: "u"}].Err, kafka.ErrUnknownTopic)
		if n := requests.Load(); n != 3 {
			w.Errorf("%d requests", n)
		}
	})
}

func TestListOffsetsByTimestampAndIsolation(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		w.create("t", 1)
		tp := kafka.TopicPartition{Topic: "t"}
		tps := []kafka.TopicPartition{tp}
		for i := range int64(3) {
			w.must(w.cluster.Write(w.ctx, "t", []kafka.Record{{Value: []byte("x"), Timestamp: 1000 * (i + 1)}}))
		}
		client, err := kgo.NewClient(kgo.SeedBrokers("localhost:9092"), kgo.Dialer(w.network.DialContext), kgo.TransactionalID("x"))
		w.must(err)
		defer client.Close()
		w.must(client.BeginTransaction())
		w.must(client.ProduceSync(w.ctx, &kgo.Record{Topic: "t", Value: []byte("x"), Timestamp: time.UnixMilli(9000)}).FirstErr())
		for _, c := range []struct {
			timestamp int64
			isolation kafka.Isolation
			want      int64
		}{
			{kafka.Earliest, spec.ReadUncommitted, 0},
			{1001, spec.ReadUncommitted, 1},
			{99999, spec.ReadUncommitted, -1},
			{kafka.Latest, spec.ReadUncommitted, 4},
			{kafka.Latest, spec.ReadCommitted, 3},
		} {
			got, err := w.cluster.ListOffsets(w.ctx, tps, c.timestamp, c.isolation)
			w.must(err)
			if got[tp].Offset != c.want {
				w.Errorf("offset at %d, %s, is %d, want %d", c.timestamp, c.isolation, got[tp].Offset, c.want)
			}
		}
	})
}
