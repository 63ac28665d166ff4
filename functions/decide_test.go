package functions_test

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/functions"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// never is a flow that decides nothing by itself.
var never = spec.OnHold{"retention_gap": spec.ActionHold}

// decide writes a decision as an operator's command does: into the cursor, with the hold that it is about.
func (w *world) decide(d lease.Decision) {
	w.Helper()
	s, _ := w.state(0)
	c, revision, err := w.cursors.Get(w.Context(), topic, 0)
	if c.Hold.Reason == "" {
		c.Hold = lease.Hold{Reason: s.Reason, Detail: s.Detail, Since: s.Since}
	}
	c.Decision, c.DecidedAt, c.Foreign = d, time.Now(), false
	if errors.Is(err, lease.ErrNoCursor) {
		_, err = w.cursors.Create(w.Context(), topic, 0, c)
	} else {
		w.must(err)
		_, err = w.cursors.Commit(w.Context(), topic, 0, c, revision)
	}
	w.must(err)
	w.must(w.cursors.Publish(w.Context(), topic, 0, c))
	w.must(w.queue.ClearState(w.Context(), w.task(0)))
}

// values are what a topic's partition 0 holds, in order: a number for each record of a writer.
func (w *world) values(alias, topic string) (values []string) {
	w.Helper()
	client, err := w.env.Client(alias, kgo.KeepControlRecords(), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
	w.must(err)
	defer client.Close()
	info := w.env.Kafka(alias).PartitionInfo(topic, 0)
	for next := info.LogStartOffset; next < info.HighWatermark; {
		fetches := client.PollFetches(w.Context())
		w.must(fetches.Err0())
		fetches.EachRecord(func(r *kgo.Record) {
			next = r.Offset + 1
			if r.Attrs.IsControl() {
				return
			}
			_, serial, _ := strings.Cut(string(r.Value), `"serial":`)
			serial, _, _ = strings.Cut(serial, ",")
			values = append(values, cmp.Or(serial, string(r.Value)))
		})
	}
	return values
}

// A spoilt partition 0 waits for a person. Ten records of it were copied, five are there to go on with.
type spoilt struct {
	reason lease.Reason
	policy bool // the flow may decide
	spoil  func(w *world)
}

var spoils = map[string]spoilt{
	"source created again": {lease.ReasonSourceRecreated, true, func(w *world) {
		w.must(w.env.Kafka("A").DeleteTopic(topic))
		w.must(w.env.Kafka("A").CreateTopic(topic, 1, nil))
	}},
	"target created again": {lease.ReasonTargetRecreated, true, func(w *world) {
		w.must(w.env.Kafka("B").DeleteTopic(replica))
		w.must(w.env.Kafka("B").CreateTopic(replica, 1, nil))
	}},
	"source deleted records before they were copied": {lease.ReasonRetentionGap, true, func(w *world) {
		w.write(10)
		w.must(w.env.Kafka("A").DeleteRecords(topic, 0, 17))
	}},
	"cursor beyond the source's end": {lease.ReasonSourceTruncated, true, func(w *world) {
		w.edit(0, func(c *lease.Cursor) { c.Offset += 1000; c.SourceEpoch = -1 })
	}},
	"target ends before the cursor": {lease.ReasonTargetTruncated, true, func(w *world) {
		w.edit(0, func(c *lease.Cursor) { c.Target += 5 })
	}},
	"somebody else wrote to the target": {lease.ReasonForeignWriter, true, func(w *world) { w.writePartition("B", replica, 0, 1) }},
	"records doubled on the target": {lease.ReasonSequence, false, func(w *world) {
		w.edit(0, func(c *lease.Cursor) { c.Target--; c.Sequence -= 2; c.Offset -= 2 })
	}},
	"cursors forgotten": {lease.ReasonNoCursor, false, func(w *world) {
		w.must(w.env.Kafka("B").DeleteTopic(offsets))
		w.must(w.env.NATS.Wipe())
		w.must(w.cursors.Load(w.Context()))
	}},
	"MirrorMaker had copied another topic": {lease.ReasonNoCursor, false, func(w *world) {
		key := w.flow.Key(topic, 0)
		w.must(w.target.Write(w.Context(), offsets, []kafka.Record{{
			Partition: mm2.OffsetsPartition(key, mm2.OffsetsPartitions), Key: key, Value: []byte(`{"offset":999}`),
		}}))
		w.must(w.queue.Purge(w.Context()))
		w.must(w.cursors.Load(w.Context()))
	}},
}

// An outcome is what the target holds after a decision: pieces of what it held, and of the source from an offset on.
type outcome struct {
	from   int64 // source offset
	effect lease.Effect
	gap    [3]int64 // from, to, count
}

// Every decision about every reason leads just where it says, and what it costs is on record, also when NATS has lost everything.
func TestDecisionsAreCarriedOut(t *testing.T) {
	for name, outcomes := range map[string]map[lease.Decision]outcome{
		"source created again": {
			lease.AcceptGap: {0, lease.Skipped, [3]int64{10, 10, -1}}, lease.Restart: {0, lease.Skipped, [3]int64{10, 10, -1}},
			lease.From(3): {3, lease.Skipped, [3]int64{0, 3, 3}},
		},
		"target created again": {
			lease.AcceptGap: {10, lease.Skipped, [3]int64{0, 10, 10}}, lease.Restart: {0, "", [3]int64{}}, lease.From(4): {4, lease.Skipped, [3]int64{0, 4, 4}},
		},
		"source deleted records before they were copied": {
			lease.AcceptGap: {17, lease.Skipped, [3]int64{10, 17, 7}}, lease.Restart: {17, lease.Skipped, [3]int64{10, 17, 7}},
			lease.From(20): {20, lease.Skipped, [3]int64{10, 20, 10}},
		},
		"cursor beyond the source's end": {
			lease.AcceptGap: {15, lease.Surplus, [3]int64{15, 1010, 995}}, lease.Restart: {0, lease.Repeated, [3]int64{0, 15, 15}},
			lease.From(12): {12, lease.Repeated, [3]int64{12, 15, 3}},
		},
		"target ends before the cursor": {
			lease.AcceptGap: {10, lease.Skipped, [3]int64{5, 10, 5}}, lease.Restart: {0, lease.Repeated, [3]int64{0, 5, 5}},
			lease.From(5): {5, "", [3]int64{}},
		},
		"somebody else wrote to the target": {
			lease.AcceptGap: {10, lease.Surplus, [3]int64{10, 10, -1}}, lease.Restart: {0, lease.Repeated, [3]int64{0, 10, 10}},
			lease.From(12): {12, lease.Skipped, [3]int64{10, 12, 2}},
		},
		"records doubled on the target": {
			lease.AcceptGap: {10, lease.Surplus, [3]int64{10, 10, -1}}, lease.Restart: {0, lease.Repeated, [3]int64{0, 10, 10}},
			lease.From(10): {10, lease.Surplus, [3]int64{10, 10, -1}},
		},
		"cursors forgotten": {
			lease.AcceptGap: {0, lease.Surplus, [3]int64{0, 0, -1}}, lease.Restart: {0, lease.Surplus, [3]int64{0, 0, -1}},
			lease.From(10): {10, lease.Skipped, [3]int64{0, 10, 10}},
		},
		"MirrorMaker had copied another topic": {
			lease.AcceptGap: {15, lease.Surplus, [3]int64{15, 15, -1}}, lease.Restart: {0, lease.Repeated, [3]int64{0, 15, 15}},
			lease.From(12): {12, lease.Repeated, [3]int64{12, 15, 3}},
		},
	} {
		for decision, want := range outcomes {
			t.Run(fmt.Sprint(name, "/", decision), func(t *testing.T) {
				inWorld(t, setup{}, func(w *world) {
					w.flow.OnHold = never
					w.copied()
					w.spoil(name)
					w.heldFor(spoils[name].reason)
					before := w.values("B", replica)
					w.decide(decision)
					w.moves()
					w.leadsTo(before, want, decision, lease.ByOperator)
				})
			})
		}
	}
}

// heldFor waits until the partition waits for a person. (MirrorMaker's cursor is left alone, so there held finds no hold.)
func (w *world) heldFor(reason lease.Reason) {
	w.Helper()
	if _, _, err := w.cursors.Get(w.Context(), topic, 0); err == nil && !w.cursor(0).Foreign {
		w.held(0, reason)
		return
	}
	w.eventually("held", func() bool { s, _ := w.state(0); return s.Held && s.Reason == reason })
}

// moves waits until the partition goes on by a decision.
func (w *world) moves() {
	w.Helper()
	w.eventually("the next generation", func() bool {
		if s, _ := w.state(0); s.Next.Before(time.Now()) {
			w.offer(0)
		}
		c, _, err := w.cursors.Get(w.Context(), topic, 0)
		return err == nil && c.Epoch > 0
	})
	w.goesOn(0)
}

func (w *world) spoil(name string) {
	w.Helper()
	spoils[name].spoil(w)
	w.write(5)
	w.offer(0)
}

// leadsTo compares what the target and the record of gaps have after a decision, and sees that the copy goes on.
func (w *world) leadsTo(before []string, want outcome, d lease.Decision, by string) {
	w.Helper()
	source := func() []string {
		start := w.env.Kafka("A").PartitionInfo(topic, 0).LogStartOffset
		return w.values("A", topic)[max(0, want.from-start):]
	}
	if got, all := w.values("B", replica), slices.Concat(before, source()); !slices.Equal(got, all) {
		w.Errorf("the target holds\n%q, want\n%q", got, all)
	}
	w.must(w.env.NATS.Wipe())
	w.must(w.cursors.Load(w.Context()))
	w.write(5)
	w.complete()
	if got, all := w.values("B", replica), slices.Concat(before, source()); !slices.Equal(got, all) {
		w.Errorf("later the target holds\n%q, want\n%q", got, all)
	}
	if c := w.cursor(0); c.Epoch == 0 || c.Decision != "" || c.Mapped != (want.from != int64(len(before))) && !c.Mapped {
		w.Errorf("cursor %+v", c)
	}
	gaps, err := w.cursors.Gaps(w.Context())
	w.must(err)
	if want.effect == "" {
		if len(gaps) > 0 {
			w.Errorf("gaps %+v, want none", gaps)
		}
		return
	}
	if len(gaps) != 1 {
		w.Fatalf("gaps %+v, want one", gaps)
	}
	g := gaps[0]
	if g.Effect != want.effect || [3]int64{g.From, g.To, g.Count} != want.gap || g.Target != int64(len(before)) || g.By != by || g.Decision != d ||
		g.Detail == "" || g.At.IsZero() || g.Open() != (by == lease.ByPolicy) || g.Topic != topic {
		w.Errorf("gap %+v, want %s %v at target offset %d", g, want.effect, want.gap, len(before))
	}
}

// A flow that says so goes on without a person, and what that costs waits to be acknowledged.
func TestPoliciesDecide(t *testing.T) {
	outcomes := map[string]map[spec.Action]outcome{
		"source created again":                           {spec.ActionSkip: {0, lease.Skipped, [3]int64{10, 10, -1}}},
		"target created again":                           {spec.ActionSkip: {10, lease.Skipped, [3]int64{0, 10, 10}}, spec.ActionRestart: {0, "", [3]int64{}}},
		"source deleted records before they were copied": {"": {17, lease.Skipped, [3]int64{10, 17, 7}}},
		"cursor beyond the source's end":                 {spec.ActionSkip: {15, lease.Surplus, [3]int64{15, 1010, 995}}},
		"target ends before the cursor":                  {spec.ActionRestart: {0, lease.Repeated, [3]int64{0, 5, 5}}},
		"somebody else wrote to the target":              {spec.ActionSkip: {10, lease.Surplus, [3]int64{10, 10, -1}}},
	}
	for name, s := range spoils {
		if s.policy && outcomes[name] == nil {
			t.Errorf("no test for the policies of %s", name)
		}
		for action, want := range outcomes[name] {
			t.Run(fmt.Sprint(name, "/", action), func(t *testing.T) {
				inWorld(t, setup{}, func(w *world) {
					decision := lease.AcceptGap
					if action != "" {
						w.flow.OnHold = spec.OnHold{string(s.reason): action}
					}
					if action == spec.ActionRestart {
						decision = lease.Restart
					}
					p := w.copied()
					s.spoil(w)
					before := w.values("B", replica)
					w.write(5)
					w.moves()
					w.leadsTo(before, want, decision, lease.ByPolicy)
					if n := p.count("kferry_decisions_total"); n != 1 {
						t.Errorf("%v decisions counted, want 1", n)
					}
				})
			})
		}
	}
}

// A decision that makes no sense where the partition stands is refused, with the reason, and the next one is as good as if it were the
// first.
func TestDecisionThatMakesNoSense(t *testing.T) {
	for _, decision := range []lease.Decision{lease.From(16), lease.From(26), "invented later"} {
		t.Run(string(decision), func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				w.flow.OnHold = never
				w.copied()
				const name = "source deleted records before they were copied"
				w.spoil(name)
				w.held(0, spoils[name].reason)
				detail, before := w.cursor(0).Hold.Detail, w.values("B", replica)
				w.decide(decision)
				w.offer(0)
				w.eventually("refused", func() bool { return w.cursor(0).Decision == "" })
				w.held(0, spoils[name].reason)
				for where, c := range map[string]lease.Cursor{"KV": w.cursor(0), "the offsets topic": w.published(0)} {
					if c.Decision != "" || !strings.HasPrefix(c.Hold.Detail, detail+"; not carried out: "+string(decision)+": ") {
						t.Errorf("%s: %+v", where, c)
					}
				}
				w.decide(lease.AcceptGap)
				w.moves()
				w.leadsTo(before, outcome{17, lease.Skipped, [3]int64{10, 17, 7}}, lease.AcceptGap, lease.ByOperator)
			})
		})
	}
}

// While a cluster is away a decision stays what it is, and is carried out afterwards.
func TestDecisionOutlivesWhatIsInItsWay(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.copied()
		w.must(w.env.Kafka("B").DeleteTopic(replica))
		w.write(5)
		w.offer(0)
		w.held(0, lease.ReasonTargetRecreated)
		w.decide(lease.Restart)
		w.offer(0)
		w.eventually("tried", func() bool { s, _ := w.state(0); return s.Attempts > 0 && !s.Held })
		if c := w.cursor(0); c.Decision != lease.Restart || c.Hold.Reason != lease.ReasonTargetRecreated {
			t.Errorf("cursor %+v", c)
		}
		w.made(functions.CreateTopic(w.Context(), w.flow, w.source, w.target, topic))
		w.goesOn(0)
		w.exact()
	})
}

// A worker died with records on the target that its cursor doesn't count, and then somebody else wrote: nothing of ours is copied twice.
func TestWhatLandedAmidForeignRecordsIsNotCopiedAgain(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.writeBatches(6, 10)
		w.killAt(position{"B", kmsg.Produce, replica, 3}, w.worker(0), true)
		w.writePartition("B", replica, 0, 2)
		before := w.values("B", replica)
		w.worker(0)
		w.held(0, lease.ReasonForeignWriter)
		w.decide(lease.AcceptGap)
		w.goesOn(0)
		if got, want := w.values("B", replica), slices.Concat(before, w.values("A", topic)[30:]); !slices.Equal(got, want) {
			t.Errorf("the target holds\n%q, want\n%q", got, want)
		}
	})
}

// The source has lost what was copied to a leader that never had it, and has been written on: the copy goes on where the two part.
func TestDecisionAboutALogThatWasCutAndHasGrownAgain(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.copied()
		cut := true
		w.env.Kafka("A").ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
			w.env.Kafka("A").KeepControl()
			request := req.(*kmsg.FetchRequest)
			resp := fetched(request, nil, 15).(*kmsg.FetchResponse)
			for _, answered := range resp.Topics {
				for i := range answered.Partitions {
					answered.Partitions[i].DivergingEpoch.Epoch, answered.Partitions[i].DivergingEpoch.EndOffset = 0, 8
				}
			}
			return resp, nil, cut && request.Topics[0].Partitions[0].FetchOffset == 10 // where what was copied ended
		})
		w.env.Kafka("A").ControlKey(int16(kmsg.OffsetForLeaderEpoch), func(req kmsg.Request) (kmsg.Response, error, bool) {
			w.env.Kafka("A").KeepControl()
			resp := req.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
			for _, asked := range req.(*kmsg.OffsetForLeaderEpochRequest).Topics {
				answer := kmsg.NewOffsetForLeaderEpochResponseTopic()
				answer.Topic = asked.Topic
				for _, p := range asked.Partitions {
					one := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
					one.Partition, one.LeaderEpoch, one.EndOffset = p.Partition, 0, 8
					answer.Partitions = append(answer.Partitions, one)
				}
				resp.Topics = append(resp.Topics, answer)
			}
			return resp, nil, cut
		})
		w.write(5)
		w.offer(0)
		w.held(0, lease.ReasonSourceTruncated)
		before := w.values("B", replica)
		w.decide(lease.AcceptGap)
		w.eventually("the next generation", func() bool {
			w.offer(0)
			return w.cursor(0).Epoch > 0
		})
		cut = false
		w.moves()
		w.leadsTo(before, outcome{8, lease.Surplus, [3]int64{8, 10, 2}}, lease.AcceptGap, lease.ByOperator)
	})
}

// Compaction and a foreign writer at once: what had landed amid the other's records is found by reading back, and not copied again.
func TestWhatLandedOfACompactedSourceAmidForeignRecords(t *testing.T) {
	inWorld(t, compacted, func(w *world) {
		w.update(6, 10, 100)
		w.killAt(position{"B", kmsg.Produce, replica, 3}, w.worker(0), true)
		w.writePartition("B", replica, 0, 2)
		before := w.values("B", replica)
		w.worker(0)
		w.held(0, lease.ReasonForeignWriter)
		w.decide(lease.AcceptGap)
		w.moves()
		if got, want := w.values("B", replica), slices.Concat(before, w.values("A", topic)[len(before)-2:]); !slices.Equal(got, want) {
			t.Errorf("the target holds\n%q, want\n%q", got, want)
		}
	})
}

// A worker died with records on the target that its cursor doesn't count, and the source deleted their beginning, with markers among them
// that nobody can count any more: the last one that landed tells where to go on, and nothing is missing or there twice.
func TestRetentionTookWhatHadLandedUncounted(t *testing.T) {
	for _, start := range []int64{7, 13, 14, 15} { // twelve records have landed at once, the last of them from offset 13
		t.Run(fmt.Sprint(start), func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				for _, id := range []string{"a", "b", "c"} {
					w.endTransaction(w.transact(id, 4), kgo.TryCommit)
				}
				all := w.values("A", topic)
				w.killAt(position{"B", kmsg.Produce, replica, 1}, w.worker(0), true)
				if before := w.values("B", replica); !slices.Equal(before, all) || w.cursor(0).Offset != 0 {
					t.Fatalf("%q landed, cursor %+v", before, w.cursor(0))
				}
				w.must(w.env.Kafka("A").DeleteRecords(topic, 0, start))
				w.endTransaction(w.transact("d", 4), kgo.TryCommit)
				w.worker(0)
				w.moves()
				want := append(all, "d 0", "d 1", "d 2", "d 3")
				if got := w.values("B", replica); !slices.Equal(got, want) {
					t.Errorf("the target holds %q, want %q", got, want)
				}
			})
		})
	}
}

// A position can be set while the partition is copied: whoever copies it loses it, and nothing is left out or doubled but what was asked for.
func TestPositionSetUnderWay(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.write(40)
		w.stream(20 * time.Second)
		w.worker(0)
		w.worker(0)
		w.offer(0)
		w.eventually("some copied", func() bool { return w.targetEnd(0) > 200 })
		cursor, revision, err := w.cursors.Get(w.Context(), topic, 0)
		w.must(err)
		cursor = cursor.Decided(lease.Hold{Reason: lease.ReasonPositionSet, Detail: "set", Since: time.Now()}, lease.From(10), time.Now())
		_, err = w.cursors.Commit(w.Context(), topic, 0, cursor, revision)
		w.must(err)
		time.Sleep(30 * time.Second)
		w.complete()
		source, copied := w.values("A", topic), w.values("B", replica)
		again := len(copied) - (len(source) - 10)
		if again < 200 || !slices.Equal(copied, slices.Concat(source[:again], source[10:])) {
			w.Errorf("the source holds %d records, the copy %d", len(source), len(copied))
		}
	})
}
