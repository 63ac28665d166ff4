package functions_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/shared/batch"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/spec"
)

func TestCopiesOnePartitionRecordByRecord(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.write(300)
		w.worker(0)
		w.complete()
		w.exact()
		if c := w.cursor(0); c.Sequence != 300 || c.Target != 300 || c.Mapped || c.ExactlyOnce != "" || c.Epoch != 0 {
			t.Errorf("cursor after 300 records: %+v", c)
		}
	})
}

func TestCopiesManyPartitions(t *testing.T) {
	inWorld(t, setup{partitions: 20}, func(w *world) {
		for i := range 10 {
			w.write(200 + i)
		}
		w.worker(0)
		w.complete()
		w.exact()
	})
}

// tail are the target's batches from an offset on.
func (w *world) tail(partition int32, from int64) (all []batch.Batch) {
	w.Helper()
	for end := w.targetEnd(partition); from < end; {
		piece, err := w.target.Read(w.Context(), kafka.TopicPartition{Topic: replica, Partition: partition}, from, 1<<20, spec.ReadUncommitted)
		w.must(err)
		for records := slices.Clone(piece.Records); len(records) > 0; {
			b, rest, err := batch.Next(records)
			w.must(err)
			all, records, from = append(all, b), rest, b.NextOffset()
		}
		piece.Release()
	}
	return all
}

func TestBatchesKeepTheirCompression(t *testing.T) {
	for codec, compression := range map[batch.Codec]kgo.CompressionCodec{
		batch.None: kgo.NoCompression(), batch.Gzip: kgo.GzipCompression(), batch.Snappy: kgo.SnappyCompression(), batch.LZ4: kgo.Lz4Compression(),
	} {
		t.Run(codec.String(), func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				for range 3 {
					w.write(1000, kgo.ProducerBatchCompression(compression))
				}
				p := w.worker(0)
				w.complete()
				w.exact()
				for _, b := range w.tail(0, 0) {
					if b.Codec() != codec {
						t.Errorf("batch at %d is %s", b.BaseOffset(), b.Codec())
					}
				}
				if n := p.count("kferry_batches_total", "passed"); n != 3 {
					t.Errorf("%d of 3 batches passed through", n)
				}
			})
		})
	}
}

// zstdBatch is what a producer that compresses with zstd sends. (franz-go's own can't be used in a bubble.)
func zstdBatch(t *testing.T, records ...batch.Record) batch.Batch {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer encoder.Close()
	plain := batch.Of(records...)
	b := append(plain[:batch.HeaderBytes:batch.HeaderBytes], encoder.EncodeAll(plain[batch.HeaderBytes:], nil)...)
	b[11], b[10], b[22] = byte(len(b)-12), byte((len(b)-12)>>8), byte(batch.Zstd)
	b.Patch(batch.Identity{ProducerID: -1, Epoch: -1}, -1)
	return b
}

func TestZstdBatchesPassThrough(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		var values []string
		for i := range 3 {
			var records []batch.Record
			for j := range 20 {
				values = append(values, fmt.Sprintf("order %d of batch %d", j, i))
				records = append(records, batch.Record{Offset: int64(j), Timestamp: int64(1000 + i), Value: []byte(values[len(values)-1])})
			}
			b := zstdBatch(t, records...)
			b.Patch(batch.Identity{ProducerID: -1, Epoch: -1}, -1)
			_, err := w.source.Produce(w.Context(), kafka.TopicPartition{Topic: topic}, kafka.TopicID{}, b)
			w.must(err)
		}
		w.worker(0)
		w.complete()
		var got []string
		for _, b := range w.tail(0, 0) {
			for r, err := range b.Each(0) {
				w.must(err)
				got = append(got, string(r.Value))
			}
		}
		if !slices.Equal(got, values) {
			t.Errorf("%d values %q, want %d", len(got), got, len(values))
		}
	})
}

func TestSmallUncompressedBatchesAreMerged(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		for range 50 {
			w.write(3, kgo.ProducerBatchCompression(kgo.NoCompression()))
		}
		p := w.worker(0)
		w.complete()
		w.exact()
		if all := w.tail(0, 0); len(all) != 1 || p.count("kferry_batches_total", "small") != 1 {
			t.Errorf("50 small batches arrived as %d", len(all))
		}
	})
}

// The target takes less at a time than the source, so one source batch becomes several. A worker that dies between two of them leaves
// a position inside that batch.
func TestGoesOnInTheMiddleOfASourceBatch(t *testing.T) {
	for nth := 2; nth <= 4; nth++ {
		t.Run(fmt.Sprint(nth), func(t *testing.T) {
			inWorld(t, setup{target: map[string]string{"max.message.bytes": "2000"}}, func(w *world) {
				w.write(60, kgo.ProducerBatchCompression(kgo.NoCompression()))
				p := w.worker(0)
				w.killAt(position{"B", kmsg.Produce, replica, nth}, p, false)
				w.worker(0)
				w.complete()
				w.exact()
			})
		})
	}
}

// killAt offers the first partition and waits until the process died at a position, before or after the broker did what was asked.
func (w *world) killAt(at position, p *process, done bool) {
	w.Helper()
	dead := make(chan struct{})
	w.at(at, func(kmsg.Request) (kmsg.Response, error) {
		p.cut()
		close(dead)
		if done {
			return nil, nil
		}
		return nil, errCut
	})
	w.eventually("the worker dies", func() bool {
		w.offerBehind()
		select {
		case <-dead:
			return true
		default:
			return false
		}
	})
	p.kill()
}

func TestWorkerIsKilledAnywhere(t *testing.T) {
	type place struct {
		name string
		at   position
		most int
		done bool
	}
	for _, c := range []place{
		{"before its nth batch landed", position{"B", kmsg.Produce, replica, 0}, 5, false},
		{"after its nth batch landed", position{"B", kmsg.Produce, replica, 0}, 5, true},
		{"over its nth fetch", position{"A", kmsg.Fetch, topic, 0}, 4, false},
		{"before its nth cursor was published", position{"B", kmsg.Produce, offsets, 0}, 2, false},
		{"after its nth cursor was published", position{"B", kmsg.Produce, offsets, 0}, 2, true},
		{"over its nth question for the log end", position{"B", kmsg.OffsetForLeaderEpoch, replica, 0}, 1, false},
	} {
		for c.at.nth = 1; c.at.nth <= c.most; c.at.nth++ {
			t.Run(fmt.Sprintf("%s, %d", c.name, c.at.nth), func(t *testing.T) {
				inWorld(t, setup{}, func(w *world) {
					w.stream(2 * time.Second)
					w.killAt(c.at, w.worker(0), c.done)
					w.worker(0)
					time.Sleep(2 * time.Second)
					w.complete()
					w.exact()
				})
			})
		}
	}
}

// Cursors are committed about each second: a worker dies shortly after the nth commit.
func TestWorkerIsKilledAfterACommit(t *testing.T) {
	for nth := 1; nth <= 4; nth++ {
		t.Run(fmt.Sprint(nth), func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				w.stream(6 * time.Second)
				p := w.worker(0)
				time.Sleep(200 * time.Millisecond)
				w.offer(0)
				w.awaitCommits(0, nth)
				p.kill()
				w.worker(0)
				time.Sleep(6 * time.Second)
				w.complete()
				w.exact()
			})
		})
	}
}

// awaitCommits waits until a cursor was written so many times.
func (w *world) awaitCommits(partition int32, n int) {
	w.Helper()
	var last uint64
	w.eventually(fmt.Sprintf("%d commits", n), func() bool {
		_, revision, err := w.cursors.Get(w.Context(), topic, partition)
		if err == nil && revision != last {
			last = revision
			n--
		}
		return n < 0 // the first one is Create's
	})
}

// Every worker dies sooner or later, also while it finds out what the last one left.
func TestWorkersAreKilledOneAfterTheOther(t *testing.T) {
	inWorld(t, setup{partitions: 3}, func(w *world) {
		w.stream(20 * time.Second)
		for nth := 1; nth <= 8; nth++ {
			w.killAt(position{"B", kmsg.Produce, replica, nth}, w.worker(0), nth%2 == 0)
		}
		w.worker(0)
		time.Sleep(20 * time.Second)
		w.complete()
		w.exact()
	})
}

// The queue's store is lost while records flow: leases, states and cursors are gone, the offsets topic and the target's log remain.
func TestQueueIsWipedInTheMiddle(t *testing.T) {
	inWorld(t, setup{partitions: 3}, func(w *world) {
		w.stream(12 * time.Second)
		w.worker(0)
		for range 3 {
			for range 30 {
				w.offerBehind()
				time.Sleep(100 * time.Millisecond)
			}
			w.must(w.env.NATS.Wipe())
		}
		time.Sleep(5 * time.Second)
		w.complete()
		w.exact()
	})
}

// answers is a produce response that says the same of every partition.
func answers(req kmsg.Request, err *kerr.Error) kmsg.Response {
	request := req.(*kmsg.ProduceRequest)
	resp := request.ResponseKind().(*kmsg.ProduceResponse)
	for _, t := range request.Topics {
		topic := kmsg.NewProduceResponseTopic()
		topic.Topic, topic.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			partition := kmsg.NewProduceResponseTopicPartition()
			partition.Partition, partition.ErrorCode = p.Partition, err.Code
			topic.Partitions = append(topic.Partitions, partition)
		}
		resp.Topics = append(resp.Topics, topic)
	}
	return resp
}

// Whatever becomes of a request, nothing is sent after it before the log's end has been asked for.
func TestNothingIsSentAgainBeforeThePositionIsKnown(t *testing.T) {
	refuse := func(err *kerr.Error) func(*process, kmsg.Request) (kmsg.Response, error) {
		return func(_ *process, req kmsg.Request) (kmsg.Response, error) { return answers(req, err), nil }
	}
	for name, answer := range map[string]func(*process, kmsg.Request) (kmsg.Response, error){
		"leader moved":                 refuse(kerr.NotLeaderForPartition),
		"timed out, not landed":        refuse(kerr.RequestTimedOut),
		"not enough replicas":          refuse(kerr.NotEnoughReplicas),
		"out of order sequence":        refuse(kerr.OutOfOrderSequenceNumber),
		"unknown server error":         refuse(kerr.UnknownServerError),
		"connection lost, not landed":  func(*process, kmsg.Request) (kmsg.Response, error) { return nil, errCut },
		"connection lost, landed":      func(p *process, _ kmsg.Request) (kmsg.Response, error) { p.hangUp(); return nil, nil },
		"timed out, landed":            nil,
		"too few replicas, yet landed": nil,
	} {
		for _, nth := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s, %d", name, nth), func(t *testing.T) {
				inWorld(t, setup{}, func(w *world) {
					w.writeBatches(6, 10)
					events := w.watch("B", replica, map[kmsg.Key]string{kmsg.Produce: "produce", kmsg.OffsetForLeaderEpoch: "log end"})
					p := w.worker(0)
					if answer != nil {
						w.at(position{"B", kmsg.Produce, replica, nth}, func(req kmsg.Request) (kmsg.Response, error) { return answer(p, req) })
					} else {
						w.landsUnacknowledged(name, nth)
					}
					w.complete()
					w.exact()
					if !askedAfter(events.list(), nth) {
						t.Errorf("nothing was asked between produce %d and the next: %v", nth, events.list())
					}
				})
			})
		}
	}
}

// landsUnacknowledged has the nth batch appended, and an error answered.
func (w *world) landsUnacknowledged(name string, nth int) {
	err := kerr.RequestTimedOut
	if name == "too few replicas, yet landed" {
		err = kerr.NotEnoughReplicasAfterAppend
	}
	var last kmsg.Request // asked about more than once
	w.env.Kafka("B").Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: replica, Err: err, Count: 1, When: func(req kmsg.Request) bool {
		if req != last {
			last, nth = req, nth-1
		}
		return nth == 0
	}})
}

// askedAfter says whether the log end was asked for between the nth produce request and the next, if any.
func askedAfter(events []string, nth int) bool {
	for i, e := range events {
		if e == "produce" {
			nth--
		}
		if nth == 0 {
			next := slices.Index(events[i+1:], "produce")
			return slices.Index(events[i+1:], "log end") >= 0 && (next < 0 || slices.Contains(events[i+1:i+1+next], "log end"))
		}
	}
	return false
}

// A claim asks once where the target's log ends, and reads no batch of it, where nothing has landed since the last one.
func TestQuietClaimReadsNothing(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.write(10)
		w.worker(0)
		w.complete()
		w.eventually("the lease is given back", func() bool { return w.published(0).Offset == 10 })
		w.write(10)
		events := w.watch("B", replica, map[kmsg.Key]string{kmsg.Fetch: "fetch", kmsg.OffsetForLeaderEpoch: "log end"})
		w.complete()
		if n := events.count("log end"); n != 1 || events.count("fetch") != 0 {
			t.Errorf("the claim made %v", events.list())
		}
	})
}

func TestLeaderMovesWhileCopying(t *testing.T) {
	inWorld(t, setup{partitions: 4}, func(w *world) {
		w.stream(10 * time.Second)
		w.worker(0)
		for i := range 20 {
			w.offerBehind()
			w.must(w.env.Kafka("AB"[i%2:i%2+1]).MoveTopicPartition([]string{topic, replica}[i%2], int32(i%4), int32(i/2%2)))
			time.Sleep(500 * time.Millisecond)
		}
		w.complete()
		w.exact()
	})
}

// transact writes n records in a transaction and leaves it open.
func (w *world) transact(id string, n int) *kgo.Client {
	w.Helper()
	client, err := w.env.Client("A", kgo.TransactionalID(id), kgo.DefaultProduceTopic(topic), compressed)
	w.must(err)
	w.must(client.BeginTransaction())
	for i := range n {
		w.must(client.ProduceSync(w.Context(), kgo.StringRecord(fmt.Sprintf("%s %d", id, i))).FirstErr())
	}
	return client
}

func (w *world) endTransaction(client *kgo.Client, end kgo.TransactionEndTry) {
	w.Helper()
	w.must(client.EndTransaction(w.Context(), end))
	client.Close()
}

func TestAbortedRecordsAreNotCopied(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.write(5)
		a, b := w.transact("aborts", 4), w.transact("commits", 3)
		w.write(5)
		w.endTransaction(a, kgo.TryAbort)
		w.endTransaction(b, kgo.TryCommit)
		w.endTransaction(w.transact("aborts", 2), kgo.TryCommit)
		w.endTransaction(w.transact("aborts", 2), kgo.TryAbort)
		w.worker(0)
		w.complete()
		w.exact()
		c := w.cursor(0)
		if end := w.env.Kafka("A").PartitionInfo(topic, 0).HighWatermark; c.Offset != end || c.Sequence != 15 || !c.Mapped {
			t.Errorf("the source ends in a marker at %d, 15 records are visible: %+v", end, c)
		}
	})
}

// Readers of committed records see nothing behind the first record of an open transaction, and neither may the copy.
func TestLongTransactionHoldsAtItsFirstRecord(t *testing.T) {
	for _, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
		t.Run(fmt.Sprintf("commit %t", end), func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				w.write(5)
				open := w.transact("long", 3)
				w.write(5)
				w.worker(0)
				w.complete()
				time.Sleep(20 * time.Second)
				if n := w.targetEnd(0); n != 5 {
					t.Errorf("%d records copied, 5 are stable", n)
				}
				w.endTransaction(open, end)
				w.complete()
				w.exact()
			})
		})
	}
}

func TestReadUncommittedCopiesEverything(t *testing.T) {
	inWorld(t, setup{isolation: spec.ReadUncommitted}, func(w *world) {
		w.write(5)
		w.endTransaction(w.transact("aborts", 4), kgo.TryAbort)
		open := w.transact("open", 4)
		w.worker(0)
		w.complete()
		side := w.env.Side("A", topic)
		side.Uncommitted = true
		w.exactOf(side)
		w.endTransaction(open, kgo.TryAbort)
		w.complete()
		w.exactOf(side)
	})
}

// Killed in the middle of transactions, a worker leaves a position that counts only what was visible.
func TestWorkerIsKilledAmongTransactions(t *testing.T) {
	for nth := 1; nth <= 6; nth++ {
		t.Run(fmt.Sprint(nth), func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				for range 3 {
					a, b := w.transact("aborts", 2), w.transact("commits", 2)
					w.endTransaction(a, kgo.TryAbort)
					w.write(4)
					w.endTransaction(b, kgo.TryCommit)
				}
				w.killAt(position{"B", kmsg.Produce, replica, nth}, w.worker(0), true)
				w.worker(0)
				w.complete()
				w.exact()
			})
		})
	}
}

func TestCompactedSourceIsCopied(t *testing.T) {
	inWorld(t, setup{source: map[string]string{"cleanup.policy": "compact"}}, func(w *world) {
		for range 6 {
			w.write(80)
		}
		w.env.Kafka("A").Compact()
		p := w.worker(0)
		w.complete()
		w.exact()
		if c := w.cursor(0); c.ExactlyOnce != "" || !c.Mapped {
			t.Errorf("cursor %+v", c)
		}
		if p.count("kferry_batches_total", "small")+p.count("kferry_batches_total", "holes") == 0 {
			t.Error("no batch with holes was met")
		}
	})
}

// A record that no batch the target takes can hold lies between others: those before it are copied, and the cursor stops there.
func TestRecordTooLargeStopsJustBeforeIt(t *testing.T) {
	inWorld(t, setup{target: map[string]string{"max.message.bytes": "3000"}}, func(w *world) {
		client, err := w.env.Client("A", kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(kgo.NoCompression()))
		w.must(err)
		defer client.Close()
		var records []*kgo.Record
		for i := range 20 {
			size := 200
			if i == 12 {
				size = 5000
			}
			records = append(records, kgo.KeySliceRecord(fmt.Append(nil, i), make([]byte, size)))
		}
		w.must(client.ProduceSync(w.Context(), records...).FirstErr())
		w.worker(0)
		w.offer(0)
		w.held(0, "record_too_large")
		if c := w.cursor(0); c.Offset > 12 || int64(c.Sequence) != c.Offset {
			t.Errorf("the record at 12 is too large, and the cursor is at %d (sequence %d)", c.Offset, c.Sequence)
		}
		w.alter("B", replica, "max.message.bytes", "1000000")
		w.goesOn(0)
		w.exact()
	})
}

// Deltas of records that lie days apart take more bytes once they are in one batch.
func TestMergedBatchFitsTheTargetsLimit(t *testing.T) {
	inWorld(t, setup{target: map[string]string{"max.message.bytes": "65536"}}, func(w *world) {
		const day = 24 * 60 * 60 * 1000
		for i := range 60 {
			var records []batch.Record
			for j := range 120 {
				records = append(records, batch.Record{Offset: int64(j), Timestamp: int64(i) * day})
			}
			_, err := w.source.Produce(w.Context(), kafka.TopicPartition{Topic: topic}, kafka.TopicID{}, batch.Of(records...))
			w.must(err)
		}
		w.worker(0)
		w.complete()
		w.exact()
	})
}
