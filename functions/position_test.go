package functions_test

import (
	"bytes"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/functions"
	"github.com/kferry/kferry/shared/batch"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// held waits until a partition stands still for a reason, and sees to it that the reason is where it should be and that nothing is
// written any more.
func (w *world) held(partition int32, reason lease.Reason) {
	w.Helper()
	var s lease.State
	w.eventually("held for "+string(reason), func() bool {
		s, _ = w.state(partition)
		return s.Reason == reason
	})
	if !s.Held || s.Detail == "" || s.Since.IsZero() || s.Next.Before(time.Now()) {
		w.Errorf("state %+v", s)
	}
	if reason.Decide() { // the cursor has it only when it is met a second time
		w.eventually("confirmed", func() bool { w.offer(partition); s, _ = w.state(partition); return s.Attempts > 1 })
	}
	cursor, _, err := w.cursors.Get(w.Context(), topic, partition)
	if err == nil && (cursor.Hold.Reason != reason || w.published(partition).Hold.Reason != reason) {
		w.Errorf("the hold for %s is in the state, but in KV %+v and in the offsets topic %+v", reason, cursor.Hold, w.published(partition).Hold)
	}
	end := w.targetEnd(partition)
	w.offerReleased(partition)
	w.eventually("tried again", func() bool {
		again, _ := w.state(partition)
		return again.Attempts > s.Attempts
	})
	if now := w.targetEnd(partition); now != end {
		w.Errorf("held for %s, and the target grew from %d to %d", reason, end, now)
	}
}

// goesOn waits until a partition whose cause is gone has been copied, and nothing speaks of the hold any more.
func (w *world) goesOn(partition int32) {
	w.Helper()
	w.complete()
	w.eventually("the state is cleared", func() bool {
		_, there := w.state(partition)
		return !there
	})
	if c := w.cursor(partition); c.Held() {
		w.Errorf("the hold outlives its cause: %+v", c.Hold)
	}
	w.eventually("the offsets topic says so, too", func() bool { return !w.published(partition).Held() })
}

// alter sets a topic's configuration.
func (w *world) alter(alias, topic, key, value string) {
	w.Helper()
	client, err := w.env.Client(alias)
	w.must(err)
	defer client.Close()
	answers, err := kadm.NewClient(client).AlterTopicConfigs(w.Context(), []kadm.AlterConfig{{Name: key, Value: &value}}, topic)
	w.must(err)
	for _, a := range answers {
		w.must(a.Err)
	}
}

// copied is a world whose partition holds ten records, copied, and whose lease was given back.
func (w *world) copied() *process {
	w.Helper()
	w.write(10)
	p := w.worker(0)
	w.complete()
	w.eventually("the lease is given back", func() bool { return p.count("kferry_leases_held") == 0 })
	return p
}

func TestTargetHoldsRecordsThatNoCursorExplains(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.writeTo("B", replica, 3)
		w.write(10)
		w.worker(0)
		w.offer(0)
		w.held(0, lease.ReasonNoCursor)
		if _, _, err := w.cursors.Get(w.Context(), topic, 0); !errors.Is(err, lease.ErrNoCursor) {
			t.Errorf("a cursor was made: %v", err)
		}
	})
}

// Each spoils one of two partitions, which then waits for a person. The other one goes on.
func TestStandsStillUntilSomebodyDecides(t *testing.T) {
	twin := func(w *world, alias, topic string) {
		w.Helper()
		w.must(w.env.Kafka(alias).DeleteTopic(topic))
		w.must(w.env.Kafka(alias).CreateTopic(topic, w.partitions, nil))
	}
	for name, c := range map[string]struct {
		reason lease.Reason
		both   bool // all partitions of the topic are concerned
		spoil  func(w *world)
	}{
		"source created again": {lease.ReasonSourceRecreated, true, func(w *world) { twin(w, "A", topic) }},
		"target created again": {lease.ReasonTargetRecreated, true, func(w *world) { twin(w, "B", replica) }},
		"target deleted":       {lease.ReasonTargetRecreated, true, func(w *world) { w.must(w.env.Kafka("B").DeleteTopic(replica)) }},
		"source deleted records before they were copied": {lease.ReasonRetentionGap, false, func(w *world) {
			w.writePartition("A", topic, 0, 10)
			w.must(w.env.Kafka("A").DeleteRecords(topic, 0, w.sourceEnd(0)-3))
		}},
		"cursor beyond the source's end": {lease.ReasonSourceTruncated, false, func(w *world) {
			w.edit(0, func(c *lease.Cursor) { c.Offset += 1000 })
		}},
		"target ends before the cursor": {lease.ReasonTargetTruncated, false, func(w *world) {
			w.edit(0, func(c *lease.Cursor) { c.Target += 5 })
		}},
		"somebody else wrote to the target": {lease.ReasonForeignWriter, false, func(w *world) { w.writePartition("B", replica, 0, 1) }},
		"records doubled on the target": {lease.ReasonSequence, false, func(w *world) {
			w.edit(0, func(c *lease.Cursor) { c.Target--; c.Sequence -= 2; c.Offset -= 2 })
		}},
		"more than sequences can tell apart": {lease.ReasonTargetTruncated, false, func(w *world) {
			w.edit(0, func(c *lease.Cursor) { c.Target += 1<<30 + 5 })
		}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{partitions: 2}, func(w *world) {
				w.flow.OnHold = never
				w.writeAll(10)
				p := w.worker(0)
				w.complete()
				w.eventually("the leases are given back", func() bool { return p.count("kferry_leases_held") == 0 })
				c.spoil(w)
				if !c.both {
					w.writeAll(5)
				}
				w.offer(0)
				w.offer(1)
				w.held(0, c.reason)
				w.must(w.env.NATS.Wipe())
				w.must(w.cursors.Load(w.Context()))
				w.offer(0)
				w.offer(1)
				w.held(0, c.reason)
				if c.both {
					w.held(1, c.reason)
					return
				}
				w.completeBut(0)
				if _, stopped := w.state(1); stopped || w.cursor(1).Held() || w.targetEnd(1) != 15 {
					t.Errorf("the neighbour of a held partition stands at %d: %+v", w.targetEnd(1), w.cursor(1))
				}
			})
		})
	}
}

// writePartition appends n records to one partition.
func (w *world) writePartition(alias, topic string, partition int32, n int) {
	w.Helper()
	client, err := w.env.Client(alias, kgo.RecordPartitioner(kgo.ManualPartitioner()), compressed)
	w.must(err)
	defer client.Close()
	var records []*kgo.Record
	for range n {
		records = append(records, &kgo.Record{Topic: topic, Partition: partition, Value: []byte(w.unique())})
	}
	w.must(client.ProduceSync(w.Context(), records...).FirstErr())
}

// writeAll appends n records to each partition of the source, in one batch each.
func (w *world) writeAll(n int) {
	w.Helper()
	for p := range w.partitions {
		w.writePartition("A", topic, p, n)
	}
}

// Somebody writes to the target just before a batch of ours: its base offset tells.
func TestForeignWriterBetweenTwoBatches(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.writeBatches(6, 10)
		w.worker(0)
		written := false
		w.at(position{"B", kmsg.Produce, replica, 3}, func(kmsg.Request) (kmsg.Response, error) {
			return nil, errCut // so that there is time to write
		})
		w.at(position{"B", kmsg.Produce, replica, 4}, func(kmsg.Request) (kmsg.Response, error) {
			w.env.Kafka("B").SleepControl(func() {
				w.writePartition("B", replica, 0, 1)
				written = true
			})
			return nil, nil
		})
		w.offer(0)
		w.held(0, lease.ReasonForeignWriter)
		if !written {
			t.Error("nobody wrote")
		}
	})
}

// What the source's and the target's topics have lost while they were copied is met by the run itself.
func TestTopicIsCreatedAgainWhileItIsCopied(t *testing.T) {
	for alias, c := range map[string]struct {
		topic  string
		reason lease.Reason
	}{"A": {topic, lease.ReasonSourceRecreated}, "B": {replica, lease.ReasonTargetRecreated}} {
		t.Run(c.topic, func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				w.write(10)
				w.worker(0)
				w.complete()
				w.must(w.env.Kafka(alias).DeleteTopic(c.topic))
				w.must(w.env.Kafka(alias).CreateTopic(c.topic, 1, nil))
				w.write(20)
				for range 40 {
					w.offer(0)
					time.Sleep(500 * time.Millisecond)
				}
				w.held(0, c.reason)
				if alias == "B" && w.targetEnd(0) != 0 {
					t.Errorf("%d records in the new topic", w.targetEnd(0))
				}
			})
		})
	}
}

// A newer kferry's cursor is not ours to overwrite, nor is one of MirrorMaker 2's that can't be taken over.
func TestCursorsOfOthersStayAsTheyAre(t *testing.T) {
	for name, c := range map[string]struct {
		value  string
		reason lease.Reason
	}{
		"newer kferry":                          {`{"offset":4,"kferry.version":99,"kferry.news":true}`, lease.ReasonFormat},
		"MirrorMaker 2 beyond the source's end": {`{"offset":400}`, lease.ReasonNoCursor},
		"MirrorMaker 2 and an empty copy":       {`{"offset":4}`, lease.ReasonNoCursor},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				w.write(10)
				key := w.flow.Key(topic, 0)
				w.must(w.target.Write(w.Context(), offsets, []kafka.Record{{
					Partition: mm2.OffsetsPartition(key, mm2.OffsetsPartitions), Key: key, Value: []byte(c.value),
				}}))
				w.must(w.queue.Purge(w.Context()))
				w.must(w.cursors.Load(w.Context()))
				w.worker(0)
				w.offer(0)
				w.eventually("held", func() bool { s, _ := w.state(0); return s.Reason == c.reason && s.Held })
				w.must(w.target.ReadAll(w.Context(), offsets, func(r kafka.Record) error {
					if bytes.Equal(r.Key, key) && string(r.Value) != c.value {
						t.Errorf("overwritten with %s", r.Value)
					}
					return nil
				}))
				if n := w.targetEnd(0); n != 0 {
					t.Errorf("%d records copied", n)
				}
			})
		})
	}
}

// Causes that go away by themselves or by an operator's hand: the partition is examined again and goes on.
func TestGoesOnWhenTheCauseIsGone(t *testing.T) {
	refuses := func(alias string, key kmsg.Key, topic string, err *kerr.Error) func(w *world) (gone func()) {
		return func(w *world) func() {
			return w.env.Kafka(alias).Fault(kfake.Fault{Keys: []kmsg.Key{key}, Topic: topic, Partitions: []int32{0}, Err: err, Count: -1}).Remove
		}
	}
	for name, c := range map[string]struct {
		reason lease.Reason
		spoil  func(w *world) (gone func())
	}{
		"no right to write":       {lease.ReasonAuthorization, refuses("B", kmsg.Produce, replica, kerr.TopicAuthorizationFailed)},
		"no right to read":        {lease.ReasonAuthorization, refuses("A", kmsg.Fetch, topic, kerr.TopicAuthorizationFailed)},
		"batch is too large":      {lease.ReasonRecordTooLarge, refuses("B", kmsg.Produce, replica, kerr.MessageTooLarge)},
		"record is refused":       {lease.ReasonInvalidRecord, refuses("B", kmsg.Produce, replica, kerr.InvalidRecord)},
		"timestamp is refused":    {lease.ReasonInvalidRecord, refuses("B", kmsg.Produce, replica, kerr.InvalidTimestamp)},
		"codec is refused":        {lease.ReasonUnsupported, refuses("B", kmsg.Produce, replica, kerr.UnsupportedCompressionType)},
		"source can't read":       {lease.ReasonCorruptBatch, refuses("A", kmsg.Fetch, topic, kerr.CorruptMessage)},
		"target never takes it":   {lease.ReasonError, refuses("B", kmsg.Produce, replica, kerr.NotEnoughReplicas)},
		"source's disk is broken": {lease.ReasonError, refuses("A", kmsg.Fetch, topic, kerr.KafkaStorageError)},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{partitions: 2}, func(w *world) {
				w.writeAll(10)
				w.worker(0)
				gone := c.spoil(w)
				w.completeBut(0)
				w.eventually("stopped for "+string(c.reason), func() bool {
					w.offerBehind(0)
					s, _ := w.state(0)
					return s.Reason == c.reason
				})
				if c.reason != lease.ReasonError {
					w.held(0, c.reason)
				}
				gone()
				w.goesOn(0)
				w.exact()
			})
		})
	}
}

func TestMissingPartitionsAreWaitedFor(t *testing.T) {
	inWorld(t, setup{partitions: 3, lacksCopy: true}, func(w *world) {
		w.must(w.env.Kafka("B").CreateTopic(replica, 2, nil))
		w.writeAll(10)
		w.worker(0)
		w.completeBut(2)
		w.eventually("held", func() bool { s, _ := w.state(2); return s.Reason == lease.ReasonPartitionMissing && s.Held })
		w.must(w.target.AddPartitions(w.Context(), replica, 3))
		w.goesOn(2)
		w.exact()
	})
}

func TestMissingCopyIsWaitedFor(t *testing.T) {
	inWorld(t, setup{lacksCopy: true}, func(w *world) {
		w.write(10)
		w.worker(0)
		w.offer(0)
		w.eventually("held", func() bool { s, _ := w.state(0); return s.Reason == lease.ReasonPartitionMissing && s.Held })
		w.made(functions.CreateTopic(w.Context(), w.flow, w.source, w.target, topic))
		w.goesOn(0)
		w.exact()
	})
}

// A batch that fails its checksum is never passed on.
func TestCorruptBatchStopsBeforeIt(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.write(10)
		tp := kafka.TopicPartition{Topic: topic}
		piece, err := w.source.Read(w.Context(), tp, 0, 1<<20, spec.ReadCommitted)
		w.must(err)
		corrupt := slices.Clone(piece.Records)
		piece.Release()
		corrupt[len(corrupt)-3] ^= 0x40
		var healed atomic.Bool
		w.env.Kafka("A").ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
			if healed.Load() {
				return nil, nil, false
			}
			w.env.Kafka("A").KeepControl()
			return fetched(req.(*kmsg.FetchRequest), corrupt, 10), nil, true
		})
		w.worker(0)
		w.offer(0)
		w.held(0, lease.ReasonCorruptBatch)
		healed.Store(true)
		w.goesOn(0)
		w.exact()
	})
}

// fetched is an answer that brings the same bytes of every partition asked for.
func fetched(request *kmsg.FetchRequest, records []byte, end int64) kmsg.Response {
	resp := request.ResponseKind().(*kmsg.FetchResponse)
	for _, t := range request.Topics {
		topic := kmsg.NewFetchResponseTopic()
		topic.Topic, topic.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			partition := kmsg.NewFetchResponseTopicPartition()
			partition.Partition, partition.RecordBatches = p.Partition, records
			partition.HighWatermark, partition.LastStableOffset = end, end
			topic.Partitions = append(topic.Partitions, partition)
		}
		resp.Topics = append(resp.Topics, topic)
	}
	return resp
}

// Under another isolation level the same sequence would mean other content.
func TestOtherIsolationLevelStartsAGeneration(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		p := w.copied()
		p.drain()
		w.flow.Isolation = spec.ReadUncommitted
		w.write(7)
		w.worker(0)
		w.complete()
		w.exact()
		c := w.cursor(0)
		if c.Epoch != 1 || c.Sequence != 7 || c.Isolation != string(spec.ReadUncommitted) || c.Target != 17 {
			t.Errorf("cursor %+v", c)
		}
		if all := w.tail(0, 10); len(all) != 1 || all[0].ProducerEpoch() != 1 || all[0].BaseSequence() != 0 {
			t.Errorf("the generation begins with epoch %d, sequence %d", all[0].ProducerEpoch(), all[0].BaseSequence())
		}
	})
}

// A worker dies with records of the old generation on the target that its cursor doesn't count, and the next one has another level.
func TestOtherIsolationLevelAfterADeath(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.endTransaction(w.transact("aborts", 3), kgo.TryAbort)
		w.writeBatches(6, 10)
		w.killAt(position{"B", kmsg.Produce, replica, 4}, w.worker(0), true)
		w.flow.Isolation = spec.ReadUncommitted
		time.Sleep(5 * time.Second) // the task that is on the queue has the old digest
		w.must(w.queue.Purge(w.Context()))
		w.worker(0)
		w.complete()
		w.exact()
		if c := w.cursor(0); c.Epoch != 1 || c.Sequence != 20 {
			t.Errorf("cursor %+v", c)
		}
	})
}

// Somebody emptied the target and forgot the cursors, but the broker remembers the producer.
func TestBrokerRemembersAForgottenProducer(t *testing.T) {
	for name, batches := range map[string]int{"first batch is out of sequence": 8, "first batch is a duplicate": 2} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				w.writeBatches(batches, 10)
				p := w.worker(0)
				w.complete()
				w.eventually("the lease is given back", func() bool { return p.count("kferry_leases_held") == 0 })
				p.drain()
				w.must(w.env.Kafka("B").DeleteRecords(replica, 0, -1))
				w.must(w.env.Kafka("B").DeleteTopic(offsets))
				w.must(w.env.NATS.Wipe())
				w.worker(0)
				w.complete()
				w.exact()
				if c := w.cursor(0); c.Epoch != 1 || int(c.Sequence) != 10*batches || !c.Mapped {
					t.Errorf("cursor %+v", c)
				}
			})
		})
	}
}

// What a dead worker sent may not be replicated yet, and could still go away: the next one waits for it.
func TestWaitsForTheHighWatermark(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.writeBatches(6, 10)
		w.killAt(position{"B", kmsg.Produce, replica, 3}, w.worker(0), true)
		settled := time.Now().Add(39 * time.Second)
		w.env.Kafka("B").ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
			request := req.(*kmsg.ListOffsetsRequest)
			if request.Topics[0].Topic != replica || request.Topics[0].Partitions[0].Timestamp != kafka.Latest || time.Now().After(settled) {
				return nil, nil, false
			}
			w.env.Kafka("B").KeepControl()
			return listed(request, 20), nil, true
		})
		events := w.watch("B", replica, map[kmsg.Key]string{kmsg.Produce: "produce"})
		w.worker(0)
		time.Sleep(time.Until(settled) - time.Second)
		if n := events.count("produce"); n != 0 || w.targetEnd(0) != 30 {
			t.Errorf("%d produce requests while the high watermark was behind the log end", n)
		}
		w.complete()
		w.exact()
	})
}

// listed is an answer that names one offset.
func listed(request *kmsg.ListOffsetsRequest, offset int64) kmsg.Response {
	resp := request.ResponseKind().(*kmsg.ListOffsetsResponse)
	for _, t := range request.Topics {
		topic := kmsg.NewListOffsetsResponseTopic()
		topic.Topic = t.Topic
		for _, p := range t.Partitions {
			partition := kmsg.NewListOffsetsResponseTopicPartition()
			partition.Partition, partition.Offset, partition.LeaderEpoch = p.Partition, offset, p.CurrentLeaderEpoch
			topic.Partitions = append(topic.Partitions, partition)
		}
		resp.Topics = append(resp.Topics, topic)
	}
	return resp
}

// The target's retention took what a dead worker had written before anybody counted it: the log's end alone says how much it was.
func TestRetentionTookWhatHadLanded(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.writeBatches(6, 10)
		w.killAt(position{"B", kmsg.Produce, replica, 3}, w.worker(0), true)
		w.must(w.env.Kafka("B").DeleteRecords(replica, 0, 30))
		w.worker(0)
		w.complete()
		if c := w.cursor(0); w.targetEnd(0) != 60 || c.Sequence != 60 || c.Epoch != 0 {
			t.Errorf("target ends at %d, cursor %+v", w.targetEnd(0), c)
		}
		if all := w.tail(0, 30); len(all) != 3 || all[0].BaseSequence() != 30 {
			t.Errorf("goes on with sequence %d", all[0].BaseSequence())
		}
	})
}

// A batch of ours that somebody else's follows: scanning finds the other's.
func TestForeignBatchBehindOursIsFound(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.writeBatches(6, 10)
		w.killAt(position{"B", kmsg.Produce, replica, 3}, w.worker(0), true)
		w.writePartition("B", replica, 0, 2)
		w.worker(0)
		w.held(0, lease.ReasonForeignWriter)
	})
}

// A batch just below the target's limit is alone in what is merged.
func TestSmallBatchNextToTheTargetsLimit(t *testing.T) {
	inWorld(t, setup{target: map[string]string{"max.message.bytes": "3000"}}, func(w *world) {
		for range 3 {
			b := batch.Of(batch.Record{Timestamp: 1000, Key: []byte(w.unique()), Value: make([]byte, 2800)})
			_, err := w.source.Produce(w.Context(), kafka.TopicPartition{Topic: topic}, kafka.TopicID{}, b)
			w.must(err)
		}
		w.worker(0)
		w.complete()
		w.exact()
	})
}

// Another holder is faster nine times in a row. Each time the log shows how far it came, so nothing is wrong with the sequence.
func TestLostRacesAreNoReasonToHold(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.write(100)
		id, races := w.env.Kafka("B").TopicInfo(replica).TopicID, 0
		w.env.Kafka("B").ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
			w.env.Kafka("B").KeepControl()
			if !concerns(req, replica, id) {
				return nil, nil, false
			}
			b, _, err := batch.Next(req.(*kmsg.ProduceRequest).Topics[0].Partitions[0].Records)
			if err != nil || b.Records() == 1 || races == 9 {
				return nil, nil, false
			}
			races++
			for first := range b.Each(0) {
				first.Offset = 0
				theirs := batch.Of(first)
				theirs.Patch(batch.Identity{ProducerID: b.ProducerID(), Epoch: b.ProducerEpoch()}, b.BaseSequence())
				w.env.Kafka("B").SleepControl(func() {
					_, err := w.target.Produce(w.Context(), kafka.TopicPartition{Topic: replica}, kafka.TopicID{}, theirs)
					w.must(err)
				})
				break
			}
			return nil, nil, false
		})
		w.worker(0)
		w.complete()
		w.exact()
		if s, _ := w.state(0); s.Held || races != 9 {
			t.Errorf("after %d races: %+v", races, s)
		}
	})
}

// What one broker does not know for a moment, because it lags behind the others, is no reason to wait for a person.
func TestBrokerThatLagsBehindHoldsNothingForEver(t *testing.T) {
	for name, lags := range map[string]func(w *world) (done func()){
		"target topic not known": func(w *world) func() {
			return w.env.Kafka("B").Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: replica, Err: kerr.UnknownTopicOrPartition, Count: -1}).Remove
		},
		"source records not shown": func(w *world) func() {
			id, over := w.env.Kafka("A").TopicInfo(topic).TopicID, false
			w.env.Kafka("A").ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
				w.env.Kafka("A").KeepControl()
				if !concerns(req, topic, id) || over {
					return nil, nil, false
				}
				r := req.(*kmsg.FetchRequest)
				return fetched(r, nil, r.Topics[0].Partitions[0].FetchOffset), nil, true
			})
			return func() { over = true }
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				w.writeBatches(6, 10)
				w.killAt(position{"B", kmsg.Produce, replica, 3}, w.worker(0), true)
				time.Sleep(leaseTime)
				done := lags(w)
				w.worker(0)
				w.offer(0)
				time.Sleep(500 * time.Millisecond)
				done()
				w.complete()
				w.exact()
			})
		})
	}
}

// A look-up that fails once says nothing about the topic: taken for a compacted one, its records would be copied again.
func TestSettingsThatCannotBeReadOnceDoubleNothing(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.writeBatches(6, 10)
		w.killAt(position{"B", kmsg.Produce, replica, 3}, w.worker(0), true)
		w.env.Kafka("A").Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Err: kerr.UnknownTopicOrPartition, Count: 1})
		w.worker(0)
		w.complete()
		w.exact()
		if why := w.cursor(0).ExactlyOnce; why != "" {
			t.Errorf("exactly-once: no (%s)", why)
		}
	})
}
