package kafka_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/shared/batch"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/spec"
)

func TestReadBringsTheLastBatchWhole(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		w.create("t", 1)
		tp := kafka.TopicPartition{Topic: "t"}
		w.write(tp, 3, 10)
		w.write(tp, 2, 10_000)
		end, err := w.cluster.LogEnd(w.ctx, tp)
		w.must(err)
		start := time.Now()
		f, err := w.cluster.Read(w.ctx, tp, end.Offset-1, 100, spec.ReadUncommitted)
		w.must(err)
		defer f.Release()
		b, _, err := batch.Next(f.Records)
		w.must(err)
		if b.BaseOffset() != 3 || b.NextOffset() != end.Offset {
			w.Errorf("the last batch is %d to %d", b.BaseOffset(), b.LastOffset())
		}
		if took := time.Since(start); took > 0 {
			w.Errorf("took %v", took)
		}
		_, err = w.cluster.Read(w.ctx, tp, 100, 100, spec.ReadUncommitted)
		w.wants(err, kafka.ErrOffsetOutOfRange)
	})
}

func TestReadAllReturnsWhatWasWritten(t *testing.T) {
	inBubble(t, setup{brokers: 2}, func(w *world) {
		const partitions, each = 4, 50
		w.create("t", partitions)
		var records []kafka.Record
		for i := range partitions * each {
			records = append(records, kafka.Record{
				Partition: int32(i % partitions), Key: fmt.Append(nil, i), Value: fmt.Append(nil, "v", i), Timestamp: int64(1000 + i),
			})
		}
		w.must(w.cluster.Write(w.ctx, "t", records))
		next := make([]int64, partitions)
		w.must(w.cluster.ReadAll(w.ctx, "t", func(r kafka.Record) error {
			i := int(r.Offset)*partitions + int(r.Partition)
			if r.Offset != next[r.Partition] || string(r.Key) != fmt.Sprint(i) || string(r.Value) != fmt.Sprint("v", i) || r.Timestamp != int64(1000+i) {
				w.Errorf("record %+v", r)
			}
			next[r.Partition]++
			return nil
		}))
		for p, n := range next {
			if n != each {
				w.Errorf("partition %d: %d records", p, n)
			}
		}
		stop := errors.New("stop")
		w.wants(w.cluster.ReadAll(w.ctx, "t", func(kafka.Record) error { return stop }), stop)
		w.wants(w.cluster.ReadAll(w.ctx, "u", nil), kafka.ErrUnknownTopic)
	})
}

func TestReadAllPassesOverHoles(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		w.must(w.cluster.CreateTopic(w.ctx, kafka.NewTopic{
			Name: "t", Partitions: 1, ReplicationFactor: -1,
			Configs: map[string]string{"cleanup.policy": "compact", "segment.ms": "1", "min.cleanable.dirty.ratio": "0"},
		}))
		for i := range 20 {
			w.must(w.cluster.Write(w.ctx, "t", []kafka.Record{{Key: fmt.Append(nil, i%3), Value: fmt.Append(nil, i)}}))
			time.Sleep(time.Second)
		}
		w.fake.Compact()
		last := make(map[string]string)
		read := 0
		w.must(w.cluster.ReadAll(w.ctx, "t", func(r kafka.Record) error {
			read++
			last[string(r.Key)] = string(r.Value)
			return nil
		}))
		if read == 20 || last["0"] != "18" || last["1"] != "19" || last["2"] != "17" {
			w.Errorf("%d records, the last are %v", read, last)
		}
	})
}

func TestWriteNamesTheTopicThatIsMissing(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		err := w.cluster.Write(w.ctx, "t", []kafka.Record{{Value: []byte("x")}})
		w.wants(err, kafka.ErrUnknownTopic)
	})
}

func TestWriteFindsATopicThatWasCreatedAgain(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		records := []kafka.Record{{Value: []byte("x")}}
		w.create("t", 1)
		w.must(w.cluster.Write(w.ctx, "t", records))
		w.must(w.fake.DeleteTopic("t"))
		w.must(w.fake.CreateTopic("t", 1, nil))
		w.wants(w.cluster.Write(w.ctx, "t", records), kafka.ErrUnknownTopicID)
		w.must(w.cluster.Write(w.ctx, "t", records))
	})
}

func TestThrottledReadWaits(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		tp := kafka.TopicPartition{Topic: "t"}
		w.create("t", 1)
		w.write(tp, 1, 10)
		for range 8 {
			w.fake.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
				resp := req.ResponseKind().(*kmsg.FetchResponse)
				resp.ThrottleMillis = 1500
				return resp, nil, true
			})
		}
		f, err := w.cluster.Read(w.ctx, tp, 0, 1000, spec.ReadCommitted)
		w.must(err)
		if n, _ := records(w, f); n != 1 {
			w.Errorf("%d records", n)
		}
		f.Release()
	})
}
