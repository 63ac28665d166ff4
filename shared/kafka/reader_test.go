package kafka_test

import (
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/spec"
)

// readAll reads to the end, and returns the values.
func (w *world) readAll(r *kafka.Reader) (values []string) {
	w.Helper()
	for {
		records, err := r.Next(w.ctx)
		if err == io.EOF {
			return values
		}
		w.must(err)
		for _, record := range records {
			values = append(values, string(record.Value))
		}
	}
}

func (w *world) plain(opts ...kgo.Opt) *kgo.Client {
	w.Helper()
	client, err := kgo.NewClient(append(opts, kgo.SeedBrokers("localhost:9092"), kgo.Dialer(w.network.DialContext))...)
	w.must(err)
	return client
}

// One producer commits, aborts and commits again, all in one answer: what is aborted ends with its marker.
func TestReaderLeavesOutWhatWasAborted(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		w.create("t", 1)
		client := w.plain(kgo.TransactionalID("x"), kgo.DefaultProduceTopic("t"))
		defer client.Close()
		var committed, all []string
		for i := range 12 {
			w.must(client.BeginTransaction())
			for k := range 3 {
				value := fmt.Sprint(i, "-", k)
				w.must(client.ProduceSync(w.ctx, kgo.StringRecord(value)).FirstErr())
				all = append(all, value)
				if i%3 != 1 {
					committed = append(committed, value)
				}
			}
			w.must(client.EndTransaction(w.ctx, kgo.TransactionEndTry(i%3 != 1)))
		}
		tp := kafka.TopicPartition{Topic: "t"}
		end, err := w.cluster.LogEnd(w.ctx, tp)
		w.must(err)
		for iso, want := range map[spec.Isolation][]string{spec.ReadCommitted: committed, spec.ReadUncommitted: all} {
			// In one answer: kfake forgets to name aborted transactions in one that its limit cut short.
			if got := w.readAll(w.cluster.NewReader(tp, 0, end.Offset, iso, 1<<20)); !slices.Equal(got, want) {
				w.Errorf("%s: %q, want %q", iso, got, want)
			}
		}
	})
}

func TestReaderKeepsToItsRange(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		w.create("t", 1)
		tp := kafka.TopicPartition{Topic: "t"}
		w.write(tp, 10, 100)
		w.write(tp, 10, 100)
		r := w.cluster.NewReader(tp, 3, 17, spec.ReadCommitted, 1)
		var offsets []int64
		for {
			records, err := r.Next(w.ctx)
			if err == io.EOF {
				break
			}
			w.must(err)
			for _, record := range records {
				offsets = append(offsets, record.Offset)
			}
		}
		if len(offsets) != 14 || offsets[0] != 3 || offsets[13] != 16 || r.Bytes() == 0 {
			w.Errorf("read %v, %d bytes", offsets, r.Bytes())
		}

		client := w.plain()
		defer client.Close()
		var start kadm.Offsets
		start.AddOffset("t", 0, 12, -1)
		_, err := kadm.NewClient(client).DeleteRecords(w.ctx, start)
		w.must(err)
		r = w.cluster.NewReader(tp, 0, 20, spec.ReadCommitted, 1<<20)
		_, err = r.Next(w.ctx)
		w.wants(err, kafka.ErrOffsetOutOfRange)
		r.SkipTo(12)
		records, err := r.Next(w.ctx)
		w.must(err)
		if len(records) != 8 || records[0].Offset != 12 {
			w.Errorf("%d records after the skip", len(records))
		}
	})
}

// Null and empty are different things, in headers too; and so are the headers' order and number.
func TestReaderReturnsWhatWriteWrote(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		w.create("t", 1)
		want := []kafka.Record{
			{Value: []byte{}, Timestamp: 5},
			{Key: []byte{}, Timestamp: 6},
			{Key: []byte("k"), Value: []byte("v"), Timestamp: 7, Headers: []kafka.Header{{Key: "b", Value: []byte("1")}, {Key: "a"}, {Key: "b", Value: []byte{}}}},
		}
		w.must(w.cluster.Write(w.ctx, "t", want))
		got, err := w.cluster.NewReader(kafka.TopicPartition{Topic: "t"}, 0, 3, spec.ReadCommitted, 1<<20).Next(w.ctx)
		w.must(err)
		for i := range want {
			want[i].Offset = int64(i)
		}
		if text := fmt.Sprintf("%#v", got); text != fmt.Sprintf("%#v", want) {
			w.Errorf("\n got %s\nwant %#v", text, want)
		}
	})
}
