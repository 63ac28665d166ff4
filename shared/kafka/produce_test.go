package kafka_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kferry/kferry/shared/batch"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// produced counts the batches of a produce request.
func produced(req kmsg.Request) (batches int) {
	for _, t := range req.(*kmsg.ProduceRequest).Topics {
		batches += len(t.Partitions)
	}
	return batches
}

func TestBatchesThatWaitShareARequest(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		const partitions = 21
		topic := w.create("t", partitions)
		var sizes []int
		w.counts(kmsg.Produce, func(req kmsg.Request) { sizes = append(sizes, produced(req)) })
		reached, goOn := w.holdsUp(kmsg.Produce)
		var callers sync.WaitGroup
		produce := func(p int32) {
			callers.Go(func() {
				if _, err := w.cluster.Produce(w.ctx, kafka.TopicPartition{Topic: "t", Partition: p}, topic.ID, newBatch(1, 10)); err != nil {
					w.Error(err)
				}
			})
		}
		produce(0)
		<-reached
		for p := int32(1); p < partitions; p++ {
			produce(p)
		}
		synctest.Wait()
		goOn()
		callers.Wait()
		if len(sizes) != 2 || sizes[0] != 1 || sizes[1] != partitions-1 {
			w.Errorf("requests of %v batches", sizes)
		}
	})
}

func TestLargeBatchesDoNotWait(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		topic := w.create("t", 2)
		requests := w.counts(kmsg.Produce, nil)
		reached, goOn := w.holdsUp(kmsg.Produce)
		var callers sync.WaitGroup
		for p := range int32(2) {
			callers.Go(func() {
				_, err := w.cluster.Produce(w.ctx, kafka.TopicPartition{Topic: "t", Partition: p}, topic.ID, newBatch(1, 300<<10))
				if err != nil {
					w.Error(err)
				}
			})
			if p == 0 {
				<-reached
			}
		}
		synctest.Wait()
		goOn()
		callers.Wait()
		if n := requests.Load(); n != 2 {
			w.Errorf("%d requests", n)
		}
	})
}

func TestProduceKeepsEachPartitionsOrder(t *testing.T) {
	inBubble(t, setup{brokers: 2}, func(w *world) {
		const partitions, batches, each = 16, 30, 3
		topic := w.create("t", partitions)
		requests := w.counts(kmsg.Produce, nil)
		var callers sync.WaitGroup
		for p := range int32(partitions) {
			tp := kafka.TopicPartition{Topic: "t", Partition: p}
			callers.Go(func() {
				for i := range int32(batches) {
					b := newBatch(each, 10)
					b.Patch(batch.Identity{ProducerID: 1000 + int64(p)}, i*each)
					before := string(b)
					done, err := w.cluster.Produce(w.ctx, tp, topic.ID, b)
					if err != nil || done.BaseOffset != int64(i*each) {
						w.Errorf("%s: batch %d landed at %d: %v", tp, i, done.BaseOffset, err)
					}
					if string(b) != before {
						w.Error("the batch was changed")
					}
				}
			})
		}
		callers.Wait()
		if n := requests.Load(); n > partitions*batches/2 {
			w.Errorf("%d requests for %d batches", n, partitions*batches)
		}
	})
}

// Two holders of one partition must not meet in a request: the broker would refuse both.
func TestBatchesOfOnePartitionGoOneByOne(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		topic := w.create("t", 1)
		largest := 0
		w.counts(kmsg.Produce, func(req kmsg.Request) { largest = max(largest, produced(req)) })
		var callers sync.WaitGroup
		for range 10 {
			callers.Go(func() {
				_, err := w.cluster.Produce(w.ctx, kafka.TopicPartition{Topic: "t"}, topic.ID, newBatch(1, 300<<10))
				if err != nil {
					w.Error(err)
				}
			})
		}
		callers.Wait()
		if largest != 1 {
			w.Errorf("%d batches of one partition in a request", largest)
		}
	})
}

func TestPartitionsInARequestFailAlone(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		topic := w.create("t", 3)
		reached, goOn := w.holdsUp(kmsg.Produce)
		w.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "t", Partitions: []int32{1}, Err: kerr.PolicyViolation})
		errs := make([]error, 3)
		var callers sync.WaitGroup
		for p := range int32(3) {
			callers.Go(func() {
				_, errs[p] = w.cluster.Produce(w.ctx, kafka.TopicPartition{Topic: "t", Partition: p}, topic.ID, newBatch(1, 10))
			})
			if p == 0 {
				<-reached
			}
		}
		synctest.Wait()
		goOn()
		callers.Wait()
		w.must(errs[0])
		w.wants(errs[1], kafka.ErrPolicyViolation)
		w.must(errs[2])
	})
}

func TestRefusalsHaveTheBrokersWords(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		topic := w.create("t", 1)
		w.fake.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
			return produceResponse(req, func(p *kmsg.ProduceResponseTopicPartition) {
				p.ErrorCode = kerr.InvalidRecord.Code
				p.ErrorMessage = kmsg.StringPtr("one or more records have been rejected")
				for i := range int32(5) {
					r := kmsg.NewProduceResponseTopicPartitionErrorRecord()
					r.RelativeOffset, r.ErrorMessage = i, kmsg.StringPtr("no key")
					p.ErrorRecords = append(p.ErrorRecords, r)
				}
			}), nil, true
		})
		_, err := w.cluster.Produce(w.ctx, kafka.TopicPartition{Topic: "t"}, topic.ID, newBatch(1, 10))
		w.wants(err, kafka.ErrInvalidRecord)
		for _, words := range []string{"produce to t-0", "have been rejected", "record 2: no key", "and 2 more"} {
			if !strings.Contains(err.Error(), words) {
				w.Errorf("%q is not in %q", words, err)
			}
		}
	})
}

// produceResponse answers every partition of a request.
func produceResponse(req kmsg.Request, change func(*kmsg.ProduceResponseTopicPartition)) *kmsg.ProduceResponse {
	r := req.(*kmsg.ProduceRequest)
	resp := r.ResponseKind().(*kmsg.ProduceResponse)
	for _, t := range r.Topics {
		topic := kmsg.NewProduceResponseTopic()
		topic.Topic, topic.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			partition := kmsg.NewProduceResponseTopicPartition()
			partition.Partition = p.Partition
			change(&partition)
			topic.Partitions = append(topic.Partitions, partition)
		}
		resp.Topics = append(resp.Topics, topic)
	}
	return resp
}

// Whether what was in flight has landed is for the caller to find out: to send it again could double it.
func TestCutConnectionFailsWhatWasInFlight(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		topic := w.create("t", 1)
		requests := w.counts(kmsg.Produce, nil)
		w.cuts(kmsg.Produce)
		_, err := w.cluster.Produce(w.ctx, kafka.TopicPartition{Topic: "t"}, topic.ID, newBatch(1, 10))
		w.wants(err, kafka.ErrUnanswered)
		if !kafka.Retriable(err) {
			w.Errorf("not retriable: %v", err)
		}
		if n := requests.Load(); n != 1 {
			w.Errorf("sent %d times", n)
		}
		_, err = w.cluster.Produce(w.ctx, kafka.TopicPartition{Topic: "t"}, topic.ID, newBatch(1, 10))
		w.must(err)
	})
}

func TestProduceFollowsTheLeaderOnTheNextCall(t *testing.T) {
	inBubble(t, setup{brokers: 2}, func(w *world) {
		topic := w.create("t", 1)
		tp := kafka.TopicPartition{Topic: "t"}
		w.must(w.fake.MoveTopicPartition("t", 0, 1-topic.Partitions[0].Leader))
		_, err := w.cluster.Produce(w.ctx, tp, topic.ID, newBatch(1, 10))
		w.wants(err, kafka.ErrNotLeader)
		time.Sleep(time.Second)
		_, err = w.cluster.Produce(w.ctx, tp, topic.ID, newBatch(1, 10))
		w.must(err)
	})
}

func TestQueuedBatchIsNotSentAfterItsLeaseEnds(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		topic := w.create("t", 2)
		requests := w.counts(kmsg.Produce, nil)
		reached, goOn := w.holdsUp(kmsg.Produce)
		ctx, cancel := context.WithCancelCause(w.ctx)
		cause := errors.New("lease lost")
		var callers sync.WaitGroup
		callers.Go(func() {
			// On its way: the answer counts.
			_, err := w.cluster.Produce(ctx, kafka.TopicPartition{Topic: "t"}, topic.ID, newBatch(1, 10))
			if err != nil {
				w.Error(err)
			}
		})
		<-reached
		callers.Go(func() {
			_, err := w.cluster.Produce(ctx, kafka.TopicPartition{Topic: "t", Partition: 1}, topic.ID, newBatch(1, 10))
			if !errors.Is(err, cause) {
				w.Error(err)
			}
		})
		synctest.Wait()
		cancel(cause)
		synctest.Wait()
		goOn()
		callers.Wait()
		if n := requests.Load(); n != 1 {
			w.Errorf("%d requests", n)
		}
	})
}

// A batch that waited for memory was once sent whenever there was some, though the lease had ended and another worker had begun.
func TestBatchThatWaitsForMemoryIsNotSentAfterItsLeaseEnds(t *testing.T) {
	const size = 300 << 10                                                 // large enough not to wait for the answer to another
	inBubble(t, setup{budget: kafka.NewBudget(4 * size)}, func(w *world) { // room for one batch on its way
		topic := w.create("t", 3)
		var sent []int32
		w.counts(kmsg.Produce, func(req kmsg.Request) {
			for _, p := range req.(*kmsg.ProduceRequest).Topics[0].Partitions {
				sent = append(sent, p.Partition)
			}
		})
		reached, goOn := w.holdsUp(kmsg.Produce)
		errs := make([]error, 3)
		var callers sync.WaitGroup
		produce := func(ctx context.Context, p int32) {
			callers.Go(func() {
				_, errs[p] = w.cluster.Produce(ctx, kafka.TopicPartition{Topic: "t", Partition: p}, topic.ID, newBatch(1, size))
			})
		}
		produce(w.ctx, 0)
		<-reached
		trust, cancel := context.WithTimeout(w.ctx, 3*time.Second)
		defer cancel()
		start := time.Now()
		produce(trust, 1)
		synctest.Wait()
		produce(w.ctx, 2)
		<-trust.Done()
		synctest.Wait()
		w.wants(errs[1], context.DeadlineExceeded)
		if took := time.Since(start); took != 3*time.Second {
			w.Errorf("returned after %v", took)
		}
		goOn()
		callers.Wait()
		w.must(errs[0])
		w.must(errs[2])
		if !slices.Equal(sent, []int32{0, 2}) {
			w.Errorf("sent batches of partitions %v", sent)
		}
		_, err := w.cluster.Produce(trust, kafka.TopicPartition{Topic: "t"}, topic.ID, newBatch(1, 10))
		w.wants(err, context.DeadlineExceeded)
		if len(sent) != 2 {
			w.Error("sent a batch whose time was over before the call")
		}
	})
}

func TestThrottleTimeIsHonoured(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		const throttle = 7 * time.Second
		topic := w.create("t", 1)
		tp := kafka.TopicPartition{Topic: "t"}
		w.fake.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
			resp := produceResponse(req, func(*kmsg.ProduceResponseTopicPartition) {})
			resp.ThrottleMillis = int32(throttle.Milliseconds())
			return resp, nil, true
		})
		start := time.Now()
		_, err := w.cluster.Produce(w.ctx, tp, topic.ID, newBatch(1, 10))
		w.must(err)
		if took := time.Since(start); took > time.Second {
			w.Errorf("the answer itself waited %v", took)
		}
		_, err = w.cluster.Produce(w.ctx, tp, topic.ID, newBatch(1, 10))
		w.must(err)
		if took := time.Since(start); took < throttle {
			w.Errorf("the next request went out after %v", took)
		}
	})
}

// A partition whose followers are silent holds its request up for five seconds. Its neighbours pay for that once: what may meet the
// same travels aside, where it holds up nobody else.
func TestSilentFollowersHoldUpTheirOwnPartitions(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		const (
			silent     = 8 // partitions, of which one a second has something to write
			neighbours = 8 // that write all the time
			stall      = 5 * time.Second
		)
		topic := w.create("t", silent+neighbours)
		begin := time.Now()
		w.fake.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
			w.fake.KeepControl()
			for _, p := range req.(*kmsg.ProduceRequest).Topics[0].Partitions {
				if p.Partition < silent {
					wait := time.Duration(req.(*kmsg.ProduceRequest).TimeoutMillis) * time.Millisecond
					w.fake.SleepControl(func() { time.Sleep(wait) })
					return produceResponse(req, func(p *kmsg.ProduceResponseTopicPartition) {
						if p.Partition < silent {
							p.ErrorCode = kerr.RequestTimedOut.Code
						}
					}), nil, true
				}
			}
			return produceResponse(req, func(*kmsg.ProduceResponseTopicPartition) {}), nil, true
		})
		var callers sync.WaitGroup
		for p := range int32(silent) {
			callers.Go(func() {
				time.Sleep(time.Duration(p) * time.Second)
				_, err := w.cluster.Produce(w.ctx, kafka.TopicPartition{Topic: "t", Partition: p}, topic.ID, newBatch(1, 10))
				if !errors.Is(err, kafka.ErrRequestTimedOut) {
					w.Errorf("partition %d: %v", p, err)
				}
			})
		}
		longest := make([]time.Duration, neighbours)
		for n := range int32(neighbours) {
			callers.Go(func() {
				for time.Since(begin) < time.Minute {
					sent := time.Now()
					_, err := w.cluster.Produce(w.ctx, kafka.TopicPartition{Topic: "t", Partition: silent + n}, topic.ID, newBatch(1, 10))
					if err != nil {
						w.Error(err)
						return
					}
					if took := time.Since(sent); took > stall+2*time.Second {
						w.Errorf("partition %d waited %v, %v after the begin", silent+n, took, sent.Sub(begin))
					} else if time.Since(begin) > 2*stall {
						longest[n] = max(longest[n], took)
					}
					time.Sleep(10 * time.Millisecond)
				}
			})
		}
		callers.Wait()
		if slow := slices.Max(longest); slow > 0 {
			w.Errorf("a neighbour waited %v when the stall was known", slow)
		}
	})
}
