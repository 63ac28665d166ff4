package functions_test

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/spec"
)

// While a broker lies nothing is lost, doubled or passed over, and when it has come to its senses the copy is what it would have been.
func TestLiesMoveNoPosition(t *testing.T) {
	offset := func(records []byte, base int64) []byte {
		records = slices.Clone(records)
		binary.BigEndian.PutUint64(records, uint64(base)) // which no checksum covers
		return records
	}
	var copied [16]byte // the copy's id
	for name, lie := range map[string]struct {
		alias string
		key   kmsg.Key
		tell  func(req kmsg.Request, records []byte) kmsg.Response // nil is the truth
		error string                                               // of what the task's state says; "" is anything
	}{
		"an offset far too great": {"A", kmsg.Fetch, func(req kmsg.Request, records []byte) kmsg.Response {
			return fetched(req.(*kmsg.FetchRequest), offset(records, 1<<40), 10)
		}, "and ends at 10"},
		"the greatest offset": {"A", kmsg.Fetch, func(req kmsg.Request, records []byte) kmsg.Response {
			return fetched(req.(*kmsg.FetchRequest), offset(records, math.MaxInt64-9), 10)
		}, ""},
		"an offset below nothing": {"A", kmsg.Fetch, func(req kmsg.Request, records []byte) kmsg.Response {
			return fetched(req.(*kmsg.FetchRequest), offset(records, math.MinInt64), 10)
		}, "last offset delta"},
		"a batch cut short": {"A", kmsg.Fetch, func(req kmsg.Request, records []byte) kmsg.Response {
			return fetched(req.(*kmsg.FetchRequest), records[:len(records)-1], 10)
		}, "without a whole batch"},
		"another's acknowledgement": {"B", kmsg.Produce, func(req kmsg.Request, _ []byte) kmsg.Response {
			resp := req.ResponseKind().(*kmsg.ProduceResponse)
			for _, topic := range req.(*kmsg.ProduceRequest).Topics {
				if topic.TopicID != copied {
					return nil // cursors
				}
				answer := kmsg.NewProduceResponseTopic()
				answer.Topic, answer.TopicID = topic.Topic, topic.TopicID
				for _, p := range topic.Partitions {
					partition := kmsg.NewProduceResponseTopicPartition()
					partition.Partition, partition.BaseOffset = p.Partition+1, 7
					answer.Partitions = append(answer.Partitions, partition)
				}
				resp.Topics = append(resp.Topics, answer)
			}
			return resp
		}, "left it out"},
		"an end below nothing": {"B", kmsg.ListOffsets, func(req kmsg.Request, _ []byte) kmsg.Response {
			if req.(*kmsg.ListOffsetsRequest).Topics[0].Topic != replica {
				return nil
			}
			return listed(req.(*kmsg.ListOffsetsRequest), math.MinInt64)
		}, "-9223372036854775808"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				w.write(10)
				piece, err := w.source.Read(w.Context(), kafka.TopicPartition{Topic: topic}, 0, 1<<20, spec.ReadCommitted)
				w.must(err)
				records := slices.Clone(piece.Records)
				piece.Release()
				replicated, err := w.target.Topic(w.Context(), replica)
				w.must(err)
				copied = replicated.ID
				var lies atomic.Int64
				var healed atomic.Bool
				w.env.Kafka(lie.alias).ControlKey(int16(lie.key), func(req kmsg.Request) (kmsg.Response, error, bool) {
					if healed.Load() {
						return nil, nil, false
					}
					w.env.Kafka(lie.alias).KeepControl()
					resp := lie.tell(req, records)
					if resp == nil {
						return nil, nil, false
					}
					lies.Add(1)
					return resp, nil, true
				})
				w.worker(0)
				w.offer(0)
				w.eventually("it is told", func() bool {
					s, failed := w.state(0)
					return failed && lies.Load() > 0 && (lie.error == "" || strings.Contains(s.Detail, lie.error))
				})
				time.Sleep(time.Minute)
				if n := lies.Load(); n > 1000 {
					t.Errorf("the lie was asked for %d times", n)
				}
				if c, _, err := w.cursors.Get(w.Context(), topic, 0); err == nil && (c.Offset > 10 || c.Target > 10) {
					t.Errorf("the cursor is at %d, %d", c.Offset, c.Target)
				}
				healed.Store(true)
				w.goesOn(0)
				w.write(5)
				w.complete()
				w.exact()
			})
		})
	}
}
