package functions_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/shared/batch"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/local"
)

// Sources and targets of which counting proves nothing: compacted sources, and targets without producer ids.

// update writes batches of some records to the source's only partition, over so many keys, each record unlike all others. The first
// record has a key of its own.
func (w *world) update(batches, records, keys int) {
	w.Helper()
	client, err := w.env.Client("A", kgo.DefaultProduceTopic(topic), compressed)
	w.must(err)
	defer client.Close()
	if w.env.Kafka("A").PartitionInfo(topic, 0).HighWatermark == 0 { // kfake's cleaner moves the log's start to the first record it leaves
		w.must(client.ProduceSync(w.Context(), kgo.KeySliceRecord([]byte("first"), []byte("and last"))).FirstErr())
	}
	for range batches {
		var all []*kgo.Record
		for range records {
			text := w.unique()
			all = append(all, kgo.KeySliceRecord(fmt.Append(nil, "key ", len(text)*int(w.serial.Load())%keys), []byte(text)))
		}
		w.must(client.ProduceSync(w.Context(), all...).FirstErr())
	}
}

// compared is what an independent consumer finds.
func (w *world) compared() local.Comparison {
	w.Helper()
	c, err := local.Compare(w.Context(), w.env.Side("A", topic), w.env.Side("B", replica))
	w.must(err)
	w.translated() // which fails where a position is wrong; here not all are exact
	return c
}

// finals are the last values of all keys of a topic.
func (w *world) finals(alias, topic string) map[string]string {
	w.Helper()
	client, err := w.env.Client(alias, kgo.ConsumeTopics(topic))
	w.must(err)
	defer client.Close()
	values := map[string]string{}
	for end := w.env.Kafka(alias).PartitionInfo(topic, 0).HighWatermark; end > 0; {
		fetches := client.PollFetches(w.Context())
		w.must(fetches.Err0())
		fetches.EachRecord(func(r *kgo.Record) {
			values[string(r.Key)] = string(r.Value)
			if r.Offset == end-1 {
				end = 0
			}
		})
	}
	return values
}

var compacted = setup{source: map[string]string{"cleanup.policy": "compact"}}

// The source is compacted after a worker died with records that had landed and nobody counted: those that have gone since are not missed,
// and those that are still there are not copied again.
func TestCompactedBetweenCrashAndResume(t *testing.T) {
	for name, between := range map[string]func(w *world){
		"nothing else":   func(*world) {},
		"the queue lost": func(w *world) { w.must(w.env.NATS.Wipe()) },
		"compacted on":   func(w *world) { w.update(3, 10, 7); w.env.Kafka("A").Compact() },
	} {
		for _, landed := range []bool{true, false} {
			for nth := 2; nth <= 5; nth++ {
				t.Run(fmt.Sprintf("%s, %d, landed: %t", name, nth, landed), func(t *testing.T) {
					inWorld(t, compacted, func(w *world) {
						w.update(6, 10, 7)
						w.killAt(position{"B", kmsg.Produce, replica, nth}, w.worker(0), landed)
						w.env.Kafka("A").Compact()
						between(w)
						w.worker(0)
						w.complete()
						w.update(2, 10, 7)
						w.complete()
						if c := w.compared(); c.Lost+c.Doubled+c.Reordered > 0 {
							t.Errorf("the copy is not exact: %s", c)
						}
						if c := w.cursor(0); c.ExactlyOnce != "" {
							t.Errorf("cursor %+v", c)
						}
					})
				})
			}
		}
	}
}

// Where the copy is compacted too, it ends with what the source ends with.
func TestCompactedOnBothSides(t *testing.T) {
	both := setup{source: compacted.source, target: compacted.source}
	for nth := 2; nth <= 5; nth++ {
		t.Run(fmt.Sprint(nth), func(t *testing.T) {
			inWorld(t, both, func(w *world) {
				w.update(6, 10, 7)
				w.killAt(position{"B", kmsg.Produce, replica, nth}, w.worker(0), true)
				w.env.Kafka("A").Compact()
				w.env.Kafka("B").Compact()
				w.worker(0)
				w.complete()
				w.update(1, 3, 7)
				w.complete()
				if got, want := fmt.Sprint(w.finals("B", replica)), fmt.Sprint(w.finals("A", topic)); got != want {
					t.Errorf("the copy ends with %s, the source with %s", got, want)
				}
			})
		})
	}
}

// A worker is stopped with a batch on its way. Another one takes over after the source was compacted, so under the same sequence it has
// other records: they must not be taken for the first one's.
func TestZombieOfACompactedSourceIsFencedOff(t *testing.T) {
	inWorld(t, compacted, func(w *world) {
		w.update(4, 10, 7)
		zombie := w.worker(0)
		w.complete()
		w.update(1, 10, 7)
		w.at(position{"B", kmsg.Produce, replica, 1}, func(kmsg.Request) (kmsg.Response, error) {
			zombie.pause() // its answer waits, and what it would do then
			return nil, nil
		})
		w.offerBehind()
		w.eventually("the batch lands", func() bool { return w.targetEnd(0) == 51 })
		w.update(3, 10, 7)
		w.env.Kafka("A").Compact()
		w.worker(0)
		w.complete()
		zombie.resume()
		w.update(2, 10, 7)
		w.complete()
		time.Sleep(10 * time.Second) // for what the zombie may try
		if c := w.compared(); c.Lost+c.Doubled+c.Reordered > 0 {
			t.Errorf("the copy is not exact: %s", c)
		}
		if c := w.cursor(0); c.Epoch == 0 {
			t.Errorf("the zombie was not fenced off: %+v", c)
		}
	})
}

// A run that ended with everything accounted for costs no generation.
func TestOrderlyRunsOfACompactedSourceKeepTheGeneration(t *testing.T) {
	inWorld(t, compacted, func(w *world) {
		for range 3 {
			w.update(1, 10, 7)
			p := w.worker(0)
			w.complete()
			p.drain()
			if c := w.cursor(0); c.Running || w.published(0).Running {
				t.Errorf("still running: %+v", c)
			}
		}
		if c := w.cursor(0); c.Epoch != 0 || c.Sequence != 31 {
			t.Errorf("cursor %+v", c)
		}
	})
}

// alterProduce changes or refuses the batches that reach the copy.
func (w *world) alterProduce(act func(b batch.Batch) error) {
	w.Helper()
	id := w.env.Kafka("B").TopicInfo(replica).TopicID
	w.env.Kafka("B").ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		w.env.Kafka("B").KeepControl()
		if !concerns(req, replica, id) {
			return nil, nil, false
		}
		request := req.(*kmsg.ProduceRequest)
		partition := &request.Topics[0].Partitions[0]
		partition.Records = slices.Clone(partition.Records)
		refusal, is := act(partition.Records).(*kerr.Error)
		if !is {
			return nil, nil, false
		}
		resp := request.ResponseKind().(*kmsg.ProduceResponse)
		answer := kmsg.NewProduceResponseTopic()
		answer.Topic, answer.TopicID = request.Topics[0].Topic, request.Topics[0].TopicID
		p := kmsg.NewProduceResponseTopicPartition()
		p.Partition, p.ErrorCode, p.BaseOffset = partition.Partition, refusal.Code, -1
		answer.Partitions = append(answer.Partitions, p)
		resp.Topics = append(resp.Topics, answer)
		return resp, nil, true
	})
}

var nobody = batch.Identity{ProducerID: -1, Epoch: -1}

// stripped is a target that stores batches under no producer id.
func stripped(b batch.Batch) error {
	b.Patch(nobody, -1)
	return nil
}

// A target without producer ids is copied to all the same, and a crash loses and doubles nothing there either; but it can't be promised.
func TestTargetWithoutProducerIDs(t *testing.T) {
	for name, target := range map[string]func(batch.Batch) error{
		"drops them": stripped,
		"refuses them": func(b batch.Batch) error {
			if b.ProducerID() >= 0 {
				return kerr.UnsupportedForMessageFormat
			}
			return nil
		},
	} {
		for nth := 3; nth <= 6; nth++ {
			t.Run(fmt.Sprintf("%s, %d", name, nth), func(t *testing.T) {
				inWorld(t, setup{}, func(w *world) {
					w.writeBatches(6, 10)
					w.alterProduce(target)
					w.killAt(position{"B", kmsg.Produce, replica, nth}, w.worker(0), true)
					w.worker(0)
					w.complete()
					w.exact()
					if c := w.cursor(0); c.ExactlyOnce == "" || c.Producer != lease.NoProducer || w.published(0).Producer != lease.NoProducer {
						t.Errorf("cursor %+v", c)
					}
				})
			})
		}
	}
}

// A compacted source on a target without producer ids: what landed is read back, whoever wrote it.
func TestCompactedSourceOnATargetWithoutProducerIDs(t *testing.T) {
	inWorld(t, compacted, func(w *world) {
		w.update(6, 10, 7)
		w.alterProduce(stripped)
		w.killAt(position{"B", kmsg.Produce, replica, 4}, w.worker(0), true)
		w.env.Kafka("A").Compact()
		w.worker(0)
		w.complete()
		if c := w.compared(); c.Lost+c.Doubled+c.Reordered > 0 {
			t.Errorf("the copy is not exact: %s", c)
		}
	})
}

// Somebody else's records stop the copy there too.
func TestForeignRecordsOnATargetWithoutProducerIDs(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.writeBatches(6, 10)
		w.alterProduce(stripped)
		w.killAt(position{"B", kmsg.Produce, replica, 4}, w.worker(0), true)
		w.writePartition("B", replica, 0, 2)
		w.worker(0)
		w.held(0, lease.ReasonForeignWriter)
	})
}

// Two workers at once double records where no sequence forbids it. That is noticed, said, and stops nothing.
func TestRepetitionOnATargetWithoutProducerIDs(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.writeBatches(3, 10)
		w.alterProduce(stripped)
		p := w.worker(0)
		w.complete()
		w.eventually("the lease is given back", func() bool { return p.count("kferry_leases_held") == 0 })
		w.writeBatches(3, 10)
		for range 2 { // as the zombie would
			for _, b := range w.sourceTail(30, 2) {
				b.Patch(nobody, -1)
				_, err := w.target.Produce(w.Context(), kafka.TopicPartition{Topic: replica}, kafka.TopicID{}, b)
				w.must(err)
			}
		}
		w.complete()
		if c := w.compared(); c.Lost > 0 || c.Doubled != 20 {
			t.Errorf("20 records were doubled, and nothing else: %s", c)
		}
	})
}

// sourceTail are so many of the source's batches from an offset on.
func (w *world) sourceTail(from int64, n int) (all []batch.Batch) {
	w.Helper()
	piece, err := w.source.Read(w.Context(), kafka.TopicPartition{Topic: topic}, from, 1<<20, w.flow.Isolation)
	w.must(err)
	defer piece.Release()
	for records := slices.Clone(piece.Records); len(all) < n; {
		var b batch.Batch
		b, records, err = batch.Next(records)
		w.must(err)
		all = append(all, b)
	}
	return all
}

// A target that takes no ids but its own is asked for one, and kept to it: exactly once holds.
func TestTargetThatIssuesProducerIDs(t *testing.T) {
	for nth := 3; nth <= 6; nth++ {
		t.Run(fmt.Sprint(nth), func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				w.writeBatches(6, 10)
				computed := int64(-1)
				w.alterProduce(func(b batch.Batch) error {
					if computed < 0 {
						computed = b.ProducerID()
					}
					if b.ProducerID() == computed {
						return kerr.InvalidProducerIDMapping
					}
					return nil
				})
				w.killAt(position{"B", kmsg.Produce, replica, nth}, w.worker(0), true)
				w.worker(0)
				w.complete()
				w.exact()
				c := w.cursor(0)
				if c.ExactlyOnce != "" || c.Producer == "" || c.Producer == lease.NoProducer || c.Producer != w.published(0).Producer {
					t.Errorf("cursor %+v", c)
				}
				for _, b := range w.tail(0, 0) {
					if fmt.Sprint(b.ProducerID()) != c.Producer {
						t.Errorf("a batch of producer %d, the cursor says %s", b.ProducerID(), c.Producer)
					}
				}
			})
		})
	}
}

// A target that takes batches neither way holds, and says so.
func TestTargetThatTakesNoBatch(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.write(10)
		w.alterProduce(func(batch.Batch) error { return kerr.UnsupportedForMessageFormat })
		w.worker(0)
		w.offer(0)
		w.held(0, lease.ReasonUnsupported)
	})
}

// A target may compress anew, and find larger than its limit what was not. Several records are then sent in smaller batches.
func TestBatchThatGrowsOnTheTargetIsSplit(t *testing.T) {
	const most = 1500
	inWorld(t, setup{}, func(w *world) {
		w.writeBatches(2, 100)
		w.alterProduce(func(b batch.Batch) error {
			if len(b) > most {
				return kerr.MessageTooLarge
			}
			return nil
		})
		p := w.worker(0)
		w.complete()
		w.exact()
		if p.count("kferry_batches_total", string(batch.TooLarge)) == 0 {
			t.Error("no batch was split")
		}
	})
}

// answerFetch answers fetches from the source's topic, where answer says so, without records.
func (w *world) answerFetch(end int64, answer func(asked kmsg.FetchRequestTopicPartition, given *kmsg.FetchResponseTopicPartition) bool) {
	w.Helper()
	w.env.Kafka("A").ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		w.env.Kafka("A").KeepControl()
		request := req.(*kmsg.FetchRequest)
		if len(request.Topics) == 0 { // a consumer ends its session
			return nil, nil, false
		}
		resp := fetched(request, nil, end).(*kmsg.FetchResponse)
		return resp, nil, answer(request.Topics[0].Partitions[0], &resp.Topics[0].Partitions[0])
	})
}

// The source elects a leader that lacks what was copied, and is written on: the log is as long as before, and another one.
func TestSourceThatWasCutAndHasGrownAgain(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.copied()
		w.answerFetch(15, func(asked kmsg.FetchRequestTopicPartition, given *kmsg.FetchResponseTopicPartition) bool {
			if asked.LastFetchedEpoch != 0 {
				w.Errorf("asked with leader epoch %d, the records were written in epoch 0", asked.LastFetchedEpoch)
			}
			given.DivergingEpoch.Epoch, given.DivergingEpoch.EndOffset = 0, 8
			return true
		})
		w.write(5)
		w.offer(0)
		w.held(0, lease.ReasonSourceTruncated)
		if s, _ := w.state(0); !strings.Contains(s.Detail, "from offset 8 to 9") {
			t.Errorf("says %q", s.Detail)
		}
	})
}

// rested waits until a worker has given the lease of a complete copy back.
func (w *world) rested(p *process) {
	w.Helper()
	w.complete()
	w.eventually("the lease is given back", func() bool { return p.count("kferry_leases_held") == 0 })
}

// put writes one record.
func (w *world) put(key, value string) {
	w.Helper()
	client, err := w.env.Client("A", kgo.DefaultProduceTopic(topic), compressed)
	w.must(err)
	defer client.Close()
	w.must(client.ProduceSync(w.Context(), kgo.KeySliceRecord([]byte(key), []byte(value))).FirstErr())
}

// A request that a run gave up on lands when the next run is about to send: under its sequence, with another record of the compacted
// source. The broker must not take the one for the other.
func TestLateBatchOfARunThatGaveUp(t *testing.T) {
	inWorld(t, compacted, func(w *world) {
		w.update(2, 10, 7)
		p := w.worker(0)
		w.rested(p)
		w.put("k", "old")
		id, requests, landed := w.env.Kafka("B").TopicInfo(replica).TopicID, 0, false
		var late batch.Batch
		w.env.Kafka("B").ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
			w.env.Kafka("B").KeepControl()
			if !concerns(req, replica, id) || landed {
				return nil, nil, false
			}
			if requests++; requests <= 7 {
				late = slices.Clone(req.(*kmsg.ProduceRequest).Topics[0].Partitions[0].Records)
				return nil, errCut, true
			}
			landed = true
			w.env.Kafka("B").SleepControl(func() {
				_, err := w.target.Produce(w.Context(), kafka.TopicPartition{Topic: replica}, kafka.TopicID{}, late)
				w.must(err)
			})
			return nil, nil, false
		})
		w.offer(0)
		w.eventually("the run gives up", func() bool { _, failed := w.state(0); return failed && requests >= 7 })
		if !w.cursor(0).Running {
			t.Error("the cursor says that nothing is under way, and a request was not answered")
		}
		p.drain()
		w.put("k", "new")
		w.put("other", strings.Repeat("a", 2000))
		w.env.Kafka("A").Compact()
		w.worker(0)
		w.complete()
		if got, want := fmt.Sprint(w.finals("B", replica)), fmt.Sprint(w.finals("A", topic)); got != want || !landed {
			t.Errorf("the copy ends with %s, the source with %s", got, want)
		}
	})
}

// A refusal before anything is appended leaves nothing that could still land.
func TestRefusalsCostNoGeneration(t *testing.T) {
	inWorld(t, compacted, func(w *world) {
		w.update(2, 10, 7)
		refused := 0
		w.alterProduce(func(batch.Batch) error {
			if refused++; refused < 30 {
				return kerr.NotEnoughReplicas
			}
			return nil
		})
		w.worker(0)
		w.complete()
		if c := w.cursor(0); c.Epoch > 0 || refused < 30 {
			t.Errorf("after %d refusals: %+v", refused, c)
		}
	})
}

// The epochs of a producer id are used up: the next generation has another id.
func TestGenerationAfterTheLastEpoch(t *testing.T) {
	const last = 1<<15 - 1
	inWorld(t, compacted, func(w *world) {
		w.update(1, 10, 7)
		p := w.worker(0)
		w.rested(p)
		before := w.tail(0, 0)[0].ProducerID()
		w.edit(0, func(c *lease.Cursor) { c.Epoch, c.Sequence, c.Running = last, 0, true })
		w.update(1, 10, 7)
		w.complete()
		if c := w.compared(); !c.Exact() {
			t.Errorf("the copy is not exact: %s", c)
		}
		all := w.tail(0, 11)
		if b := all[len(all)-1]; b.ProducerID() == before || b.ProducerID()>>56 != 0x6B || b.ProducerEpoch() != 0 || b.BaseSequence() != 0 || w.cursor(0).Epoch != last+1 {
			t.Errorf("goes on as producer %#x, epoch %d, sequence %d; cursor %+v", b.ProducerID(), b.ProducerEpoch(), b.BaseSequence(), w.cursor(0))
		}
	})
}

// A topic that was compacted when a worker died is not any more: what had gone by then is gone.
func TestPolicyChangedBetweenCrashAndResume(t *testing.T) {
	for nth := 2; nth <= 5; nth++ {
		t.Run(fmt.Sprint(nth), func(t *testing.T) {
			inWorld(t, compacted, func(w *world) {
				w.update(6, 10, 7)
				w.killAt(position{"B", kmsg.Produce, replica, nth}, w.worker(0), true)
				w.env.Kafka("A").Compact()
				w.alter("A", topic, "cleanup.policy", "delete")
				w.worker(0)
				w.complete()
				if c := w.compared(); c.Lost+c.Doubled+c.Reordered > 0 {
					t.Errorf("the copy is not exact: %s", c)
				}
			})
		})
	}
}

// The copy lacks some of what landed. What is copied again then is there, and it is said that it may be twice, for good.
func TestCopyThatLacksWhatLanded(t *testing.T) {
	both := setup{source: compacted.source, target: compacted.source}
	for name, lose := range map[string]func(w *world){
		"compacted": func(w *world) { w.env.Kafka("B").Compact() },
		"expired":   func(w *world) { w.must(w.env.Kafka("B").DeleteRecords(replica, 0, 20)) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, both, func(w *world) {
				w.update(6, 10, 7)
				w.killAt(position{"B", kmsg.Produce, replica, 5}, w.worker(0), true)
				lose(w)
				p := w.worker(0)
				w.rested(p)
				if got, want := fmt.Sprint(w.finals("B", replica)), fmt.Sprint(w.finals("A", topic)); got != want {
					t.Errorf("the copy ends with %s, the source with %s", got, want)
				}
				if c := w.cursor(0); c.ExactlyOnce == "" || w.targetEnd(0) == w.sourceEnd(0) {
					t.Errorf("the copy has %d records of %d, cursor %+v", w.targetEnd(0), w.sourceEnd(0), c)
				}
				w.edit(0, func(c *lease.Cursor) { c.Running = true }) // as after another crash, of a run that had copied nothing
				w.update(1, 10, 7)
				w.complete()
				if c := w.cursor(0); c.ExactlyOnce == "" {
					t.Errorf("forgotten: %+v", c)
				}
			})
		})
	}
}

// A leader that came to a compacted log late never met the epochs of which nothing was left, and answers as if the log had been cut: behind
// the cursor.
func TestLeaderThatNeverMetAnEpoch(t *testing.T) {
	inWorld(t, compacted, func(w *world) {
		w.update(2, 10, 7)
		w.rested(w.worker(0))
		times := 0
		w.answerFetch(26, func(asked kmsg.FetchRequestTopicPartition, given *kmsg.FetchResponseTopicPartition) bool {
			if asked.LastFetchedEpoch < 0 || asked.FetchOffset != 21 {
				return false
			}
			times++
			given.DivergingEpoch.Epoch, given.DivergingEpoch.EndOffset = asked.LastFetchedEpoch-1, 26
			return true
		})
		w.update(1, 5, 7)
		w.complete()
		if c := w.compared(); !c.Exact() || times == 0 {
			t.Errorf("asked %d times, and the copy is not exact: %s", times, c)
		}
	})
}

// Without topic ids the leader's epoch tells that a topic was created again: it begins anew.
func TestSourceCreatedAgainUnderOneName(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.copied()
		w.edit(0, func(c *lease.Cursor) { c.SourceEpoch = 5 }) // the first topic had seen five leaders
		w.answerFetch(15, func(asked kmsg.FetchRequestTopicPartition, given *kmsg.FetchResponseTopicPartition) bool {
			given.ErrorCode = kerr.OffsetOutOfRange.Code
			return asked.LastFetchedEpoch > 0
		})
		w.write(5)
		w.offer(0)
		w.held(0, lease.ReasonSourceRecreated)
	})
}
