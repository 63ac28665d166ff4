package kafka_test

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/spec"
)

func TestTailReadsWhatIsNew(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		tp := kafka.TopicPartition{Topic: "t"}
		tail := w.cluster.NewTail("t", spec.ReadCommitted)
		client := w.plain()
		defer client.Close()
		forgotten := 0
		reads := func(there bool, afresh, records int) {
			w.Helper()
			got, before := 0, forgotten
			is, err := tail.Read(w.ctx, func() { forgotten++ }, func(records []kafka.Record) { got += len(records) })
			w.must(err)
			if is != there || got != records || forgotten-before != afresh {
				w.Errorf("there: %v, %d records, forgotten %d times; want %v, %d, %d", is, got, forgotten-before, there, records, afresh)
			}
		}
		reads(false, 1, 0)
		w.create("t", 1)
		reads(true, 1, 0)
		w.write(tp, 3, 10)
		reads(true, 0, 3)
		fetches := w.counts(kmsg.Fetch, func(kmsg.Request) {})
		reads(true, 0, 0)
		if n := fetches.Load(); n != 0 {
			w.Errorf("%d fetches where nothing was new", n)
		}
		w.write(tp, 4, 10)
		w.write(tp, 2, 10)
		_, err := kadm.NewClient(client).DeleteRecords(w.ctx, kadm.Offsets{"t": {0: {Topic: "t", At: 7}}})
		w.must(err)
		reads(true, 0, 2) // those that are left
		w.must(w.fake.DeleteTopic("t"))
		w.create("t", 1)
		w.wants(w.cluster.Write(w.ctx, "t", []kafka.Record{{}}), kafka.ErrUnknownTopicID)
		w.write(tp, 11, 10)
		reads(true, 1, 11) // although it ends behind where the other one did
	})
}
