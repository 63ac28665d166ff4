package kafka_test

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kferry/kferry/shared/batch"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/spec"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// records reads the batches of an answer and returns the offset after them.
func records(w *world, f *kafka.Fetched) (n int, next int64) {
	w.Helper()
	for rest := f.Records; len(rest) > 0; {
		b, more, err := batch.Next(rest)
		if errors.Is(err, batch.ErrTruncated) {
			break
		}
		w.must(err)
		n, next, rest = n+int(b.Records()), b.NextOffset(), more
	}
	return n, next
}

func TestManyPartitionsShareAFetch(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		const partitions = 100
		w.create("t", partitions)
		for p := range int32(partitions) {
			w.write(kafka.TopicPartition{Topic: "t", Partition: p}, 1, 10)
		}
		requests := w.counts(kmsg.Fetch, nil)
		var callers sync.WaitGroup
		for p := range int32(partitions) {
			callers.Go(func() {
				f, err := w.fetch(kafka.TopicPartition{Topic: "t", Partition: p}, 0)
				if err != nil {
					w.Error(err)
					return
				}
				if n, _ := records(w, f); n != 1 || f.HighWatermark != 1 {
					w.Errorf("partition %d: %d records, high watermark %d", p, n, f.HighWatermark)
				}
				f.Release()
			})
		}
		callers.Wait()
		if n := requests.Load(); n > 3 {
			w.Errorf("%d requests for %d partitions", n, partitions)
		}
	})
}

func TestQuietPartitionsCostFewRequests(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		const partitions = 200
		w.create("t", partitions)
		requests := w.counts(kmsg.Fetch, nil)
		ctx, cancel := context.WithTimeout(w.ctx, 10*time.Second)
		defer cancel()
		var callers sync.WaitGroup
		for p := range int32(partitions) {
			callers.Go(func() {
				for ctx.Err() == nil {
					start := time.Now()
					f, err := w.cluster.Fetch(ctx, kafka.Want{TopicPartition: kafka.TopicPartition{Topic: "t", Partition: p}, LeaderEpoch: -1})
					if took := time.Since(start); err == nil && took > 600*time.Millisecond {
						w.Errorf("partition %d: an empty answer took %v", p, took)
					}
					f.Release()
				}
			})
		}
		callers.Wait()
		// One long poll each 250 ms, and a few short ones that gather those who come back.
		if n := requests.Load(); n > 150 {
			w.Errorf("%d requests in 10 s", n)
		}
	})
}

// A broker serves a connection's requests in order, so a long poll for quiet partitions must not be under way when the busy
// one comes back.
func TestBusyPartitionIsNotHeldUpByQuietOnes(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		const quiet, rounds, work = 100, 50, 3 * time.Millisecond
		w.create("quiet", quiet)
		w.create("busy", 1)
		busy := kafka.TopicPartition{Topic: "busy"}
		for range rounds {
			w.write(busy, 1, 600<<10)
		}
		ctx, cancel := context.WithCancel(w.ctx)
		var callers sync.WaitGroup
		for p := range int32(quiet) {
			callers.Go(func() {
				for ctx.Err() == nil {
					f, _ := w.cluster.Fetch(ctx, kafka.Want{TopicPartition: kafka.TopicPartition{Topic: "quiet", Partition: p}, LeaderEpoch: -1})
					f.Release()
				}
			})
		}
		synctest.Wait()
		start := time.Now()
		fetches := 0
		for offset := int64(0); offset < rounds; fetches++ {
			f, err := w.fetch(busy, offset)
			w.must(err)
			_, offset = records(w, f)
			time.Sleep(work) // it produces meanwhile, without fetching ahead
			f.Release()
		}
		if each := time.Since(start) / time.Duration(fetches); each > work+5*time.Millisecond {
			w.Errorf("a round takes %v", each)
		}
		cancel()
		callers.Wait()
	})
}

func TestFullAnswersTakeTurns(t *testing.T) {
	// The budget has room for about two batches an answer.
	inBubble(t, setup{budget: kafka.NewBudget(512 << 10)}, func(w *world) {
		const partitions, batches, size = 10, 20, 100 << 10
		w.create("a", partitions/2)
		w.create("b", partitions/2)
		var tps []kafka.TopicPartition
		for i := range int32(partitions) {
			tp := kafka.TopicPartition{Topic: []string{"a", "b"}[i%2], Partition: i / 2}
			for range batches {
				w.write(tp, 1, size)
			}
			tps = append(tps, tp)
		}
		var mu sync.Mutex
		read := make(map[kafka.TopicPartition]int64)
		var callers sync.WaitGroup
		for _, tp := range tps {
			callers.Go(func() {
				for offset := int64(0); offset < batches; {
					f, err := w.fetch(tp, offset)
					if err != nil {
						w.Error(err)
						return
					}
					_, next := records(w, f)
					f.Release()
					offset = max(offset, next)
					mu.Lock()
					read[tp] = offset
					for other, n := range read {
						if offset < batches && offset-n > 4 {
							w.Errorf("%s is at %d while %s is at %d", tp, offset, other, n)
						}
					}
					mu.Unlock()
				}
			})
		}
		callers.Wait()
	})
}

func TestFetchStaysWithinTheBudget(t *testing.T) {
	const size = 50 << 10
	budget := kafka.NewBudget(1 << 20)
	inBubble(t, setup{budget: budget}, func(w *world) {
		const partitions, batches = 20, 10
		w.create("t", partitions)
		var callers sync.WaitGroup
		for p := range int32(partitions) {
			tp := kafka.TopicPartition{Topic: "t", Partition: p}
			for range batches {
				w.write(tp, 1, size)
			}
		}
		for p := range int32(partitions) {
			callers.Go(func() {
				for offset := int64(0); offset < batches; {
					f, err := w.fetch(kafka.TopicPartition{Topic: "t", Partition: p}, offset)
					if err != nil {
						w.Error(err)
						return
					}
					// One batch may come on top of what was asked for.
					if used := budget.InFlight(); used > 1<<19+2*size {
						w.Errorf("%d bytes in flight", used)
					}
					_, next := records(w, f)
					offset = max(offset, next)
					time.Sleep(5 * time.Millisecond)
					f.Release()
					f.Release() // once more does no harm
				}
			})
		}
		callers.Wait()
		if used := budget.InFlight(); used != 0 {
			w.Errorf("%d bytes left in flight", used)
		}
	})
}

func TestFetchWaitsForTheBudget(t *testing.T) {
	budget := kafka.NewBudget(128 << 10)
	inBubble(t, setup{budget: budget}, func(w *world) {
		w.create("t", 2)
		a, b := kafka.TopicPartition{Topic: "t"}, kafka.TopicPartition{Topic: "t", Partition: 1}
		w.write(a, 1, 100<<10)
		w.write(b, 1, 100<<10)
		first, err := w.fetch(a, 0)
		w.must(err)
		ctx, cancel := context.WithTimeoutCause(w.ctx, time.Minute, errors.New("enough"))
		defer cancel()
		if _, err := w.cluster.Fetch(ctx, kafka.Want{TopicPartition: b, LeaderEpoch: -1}); err == nil || ctx.Err() == nil {
			w.Errorf("fetched beyond the budget: %v", err)
		}
		first.Release()
		second, err := w.fetch(b, 0)
		w.must(err)
		second.Release()
	})
}

// Nineteen partitions gave their bytes back, and nobody could use them before the twentieth, whose target was slow.
func TestSlowPartitionKeepsItsOwnBytesOnly(t *testing.T) {
	const partitions, size, warmups = 20, 20 << 10, 3
	budget := kafka.NewBudget(8 << 20)
	inBubble(t, setup{budget: budget}, func(w *world) {
		w.create("t", partitions+2)
		at := make(map[kafka.TopicPartition]int64)
		add := func(p int32, size int) kafka.TopicPartition {
			tp := kafka.TopicPartition{Topic: "t", Partition: p}
			_, err := w.cluster.Produce(w.ctx, tp, kafka.TopicID{}, newBatch(1, size))
			w.must(err)
			return tp
		}
		for offset := range int64(warmups) { // so that the next request asks for much
			f, err := w.fetch(add(partitions, 30*size), offset)
			w.must(err)
			f.Release()
		}
		large := add(partitions, 15*size)
		at[large] = warmups
		for p := range int32(partitions) {
			at[add(p, size)] = 0
		}
		for slow := range at {
			pieces := w.fetchTogether(at, kafka.TopicPartition{Topic: "t", Partition: partitions + 1})
			whole := int64(0)
			for tp, piece := range pieces {
				whole += int64(len(piece.Records))
				if tp != slow {
					piece.Release()
				}
			}
			keeps := int64(len(pieces[slow].Records))
			if n, _ := records(w, pieces[slow]); n != 1 {
				w.Errorf("%d records", n)
			}
			if slow == large {
				keeps = whole // of which it is too large a part to be copied
			}
			if used := budget.InFlight(); used != keeps {
				w.Errorf("%s keeps %d bytes of %d, want %d", slow, used, whole, keeps)
			}
			pieces[slow].Release()
			if used := budget.InFlight(); used != 0 {
				w.Errorf("%d bytes left in flight", used)
			}
		}
	})
}

// fetchTogether fetches partitions in one request, which has to wait for one about an empty partition.
func (w *world) fetchTogether(at map[kafka.TopicPartition]int64, empty kafka.TopicPartition) map[kafka.TopicPartition]*kafka.Fetched {
	w.Helper()
	requests := w.counts(kmsg.Fetch, nil)
	reached, goOn := w.holdsUp(kmsg.Fetch)
	ctx, cancel := context.WithCancel(w.ctx)
	go w.cluster.Fetch(ctx, kafka.Want{TopicPartition: empty, LeaderEpoch: -1})
	<-reached
	var mu sync.Mutex
	pieces := make(map[kafka.TopicPartition]*kafka.Fetched)
	var callers sync.WaitGroup
	for tp, offset := range at {
		callers.Go(func() {
			f, err := w.fetch(tp, offset)
			if err != nil {
				w.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			pieces[tp] = f
		})
	}
	synctest.Wait()
	cancel()
	goOn()
	callers.Wait()
	if n := requests.Load(); n != 2 {
		w.Fatalf("%d requests", n)
	}
	return pieces
}

func TestGivingUpAFetchReturnsItsBytes(t *testing.T) {
	budget := kafka.NewBudget(1 << 20)
	inBubble(t, setup{budget: budget}, func(w *world) {
		w.create("t", 1)
		tp := kafka.TopicPartition{Topic: "t"}
		w.write(tp, 1, 1000)
		reached, goOn := w.holdsUp(kmsg.Fetch)
		ctx, cancel := context.WithCancelCause(w.ctx)
		cause := errors.New("lease lost")
		go func() {
			<-reached
			cancel(cause)
		}()
		_, err := w.cluster.Fetch(ctx, kafka.Want{TopicPartition: tp, LeaderEpoch: -1})
		w.wants(err, cause)
		goOn()
		synctest.Wait()
		if used := budget.InFlight(); used != 0 {
			w.Errorf("%d bytes left in flight", used)
		}
	})
}

func TestFetchFollowsTheLeader(t *testing.T) {
	inBubble(t, setup{brokers: 3}, func(w *world) {
		w.create("t", 1)
		tp := kafka.TopicPartition{Topic: "t"}
		w.write(tp, 1, 10)
		for node := range int32(3) {
			w.must(w.fake.MoveTopicPartition("t", 0, node))
			f, err := w.fetch(tp, 0)
			w.must(err)
			if n, _ := records(w, f); n != 1 {
				w.Errorf("%d records from broker %d", n, node)
			}
			f.Release()
		}
	})
}

func TestFetchOutlivesItsConnection(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		w.create("t", 1)
		tp := kafka.TopicPartition{Topic: "t"}
		w.write(tp, 1, 10)
		w.cuts(kmsg.Fetch)
		f, err := w.fetch(tp, 0)
		w.must(err)
		f.Release()
	})
}

func TestFetchErrorsAreReturnedAtOnce(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		topic := w.create("t", 1)
		tp := kafka.TopicPartition{Topic: "t"}
		w.write(tp, 1, 10)
		epoch := topic.Partitions[0].LeaderEpoch
		w.must(w.fake.MoveTopicPartition("t", 0, 0))
		start := time.Now()
		for _, c := range []struct {
			want kafka.Want
			err  error
		}{
			{kafka.Want{TopicPartition: tp, Offset: 100, LeaderEpoch: -1}, kafka.ErrOffsetOutOfRange},
			{kafka.Want{TopicPartition: tp, LeaderEpoch: epoch}, kafka.ErrFencedLeaderEpoch},
			{kafka.Want{TopicPartition: kafka.TopicPartition{Topic: "t", Partition: 1}, LeaderEpoch: -1}, kafka.ErrUnknownTopic},
			{kafka.Want{TopicPartition: kafka.TopicPartition{Topic: "u"}, LeaderEpoch: -1}, kafka.ErrUnknownTopic},
		} {
			_, err := w.cluster.Fetch(w.ctx, c.want)
			w.wants(err, c.err)
		}
		if took := time.Since(start); took > time.Second {
			w.Errorf("that took %v", took)
		}
	})
}

// However a broker is spoken to, by names or by ids, a topic that was deleted and created again is another one.
func TestRecreatedTopicIsNoticed(t *testing.T) {
	byNames := kversion.V2_8_0() // metadata has ids, fetch and produce have not
	for name, opts := range map[string][]kfake.Opt{"by ids": nil, "by names": {kfake.MaxVersions(byNames)}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, setup{fake: opts}, func(w *world) {
				before := w.create("t", 1)
				tp := kafka.TopicPartition{Topic: "t"}
				w.write(tp, 1, 10)
				want := kafka.Want{TopicPartition: tp, TopicID: before.ID, LeaderEpoch: -1}
				f, err := w.cluster.Fetch(w.ctx, want)
				w.must(err)
				f.Release()
				_, err = w.cluster.Produce(w.ctx, tp, before.ID, newBatch(1, 10))
				w.must(err)

				w.must(w.fake.DeleteTopic("t"))
				w.must(w.fake.CreateTopic("t", 1, nil))
				time.Sleep(2 * time.Minute) // names alone tell nothing before the metadata has aged
				for range 2 {
					_, err = w.cluster.Fetch(w.ctx, want)
					if !errors.Is(err, kafka.ErrInconsistentTopicID) && !errors.Is(err, kafka.ErrUnknownTopicID) {
						w.Errorf("fetch: %v", err)
					}
					_, err = w.cluster.Produce(w.ctx, tp, before.ID, newBatch(1, 10))
					if !errors.Is(err, kafka.ErrInconsistentTopicID) && !errors.Is(err, kafka.ErrUnknownTopicID) {
						w.Errorf("produce: %v", err)
					}
				}
				after, err := w.cluster.Topic(w.ctx, "t")
				w.must(err)
				_, err = w.cluster.Produce(w.ctx, tp, after.ID, newBatch(1, 10))
				w.must(err)
			})
		})
	}
}

func TestCommittedFetchNamesAbortedTransactions(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		w.create("t", 1)
		tp := kafka.TopicPartition{Topic: "t"}
		w.transaction(tp, kgo.TryAbort)
		w.transaction(tp, kgo.TryCommit)
		f, err := w.cluster.Fetch(w.ctx, kafka.Want{TopicPartition: tp, LeaderEpoch: -1, Isolation: spec.ReadCommitted})
		w.must(err)
		defer f.Release()
		if len(f.Aborted) != 1 || f.Aborted[0].FirstOffset != 0 || f.LastStable != 4 {
			w.Errorf("aborted %v, last stable offset %d", f.Aborted, f.LastStable)
		}
		var values int
		w.must(w.cluster.ReadAll(w.ctx, "t", func(kafka.Record) error { values++; return nil }))
		if values != 1 {
			w.Errorf("%d committed records", values)
		}
	})
}

// transaction writes one record in a transaction of its own.
func (w *world) transaction(tp kafka.TopicPartition, end kgo.TransactionEndTry) {
	w.Helper()
	client, err := kgo.NewClient(
		kgo.SeedBrokers("localhost:9092"), kgo.Dialer(w.network.DialContext), kgo.TransactionalID("x"), kgo.RecordPartitioner(kgo.ManualPartitioner()),
	)
	w.must(err)
	defer client.Close()
	w.must(client.BeginTransaction())
	w.must(client.ProduceSync(w.ctx, &kgo.Record{Topic: tp.Topic, Partition: tp.Partition, Value: []byte("x")}).FirstErr())
	w.must(client.EndTransaction(w.ctx, end))
}

// Where a quota is used up, brokers answer a fetch without any partition, and how long to wait.
func TestThrottledFetchWaitsAndFailsNothing(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		const throttled, each = 8, 1500 * time.Millisecond
		tp := kafka.TopicPartition{Topic: "t"}
		w.create("t", 1)
		w.write(tp, 1, 10)
		for range throttled {
			w.fake.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
				resp := req.ResponseKind().(*kmsg.FetchResponse)
				resp.ThrottleMillis = int32(each.Milliseconds())
				return resp, nil, true
			})
		}
		begun := time.Now()
		f, err := w.fetch(tp, 0)
		w.must(err)
		if n, _ := records(w, f); n != 1 {
			w.Errorf("%d records", n)
		}
		f.Release()
		if took := time.Since(begun); took < throttled*each || took > (throttled+1)*each {
			w.Errorf("took %s, although told to wait %s %d times", took, each, throttled)
		}
		if got := w.cluster.Throttled(); got != throttled*each {
			w.Errorf("throttled for %s, says the cluster", got)
		}
	})
}

func TestFetchBringsNoMoreThanIsWanted(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		tp := kafka.TopicPartition{Topic: "t"}
		w.create("t", 1)
		for range 10 {
			value := make([]byte, 1000)
			rand.Read(value) // which can't be compressed
			w.must(w.cluster.Write(w.ctx, "t", []kafka.Record{{Value: value}}))
		}
		for most, want := range map[int64]int{1: 1, 2500: 2, 1 << 40: 10, 0: 10} {
			f, err := w.cluster.Fetch(w.ctx, kafka.Want{TopicPartition: tp, LeaderEpoch: -1, MaxBytes: most})
			w.must(err)
			if n, _ := records(w, f); n != want {
				w.Errorf("%d records in at most %d bytes, want %d", n, most, want)
			}
			f.Release()
		}
	})
}
