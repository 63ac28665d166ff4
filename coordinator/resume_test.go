package coordinator_test

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/mm2"
)

// holding is an installation in which partition 0 of orders waits for a decision, for each of the ways in which that is known.
func holding(in *installation, how string) (*lease.Cursors, lease.Task) {
	in.Helper()
	in.create("A", "orders", 2, 5)
	in.create("B", "A.orders", 2, 3)
	flow := in.Options.Spec.Flows[0]
	cursors := in.Queue.Cursors(flow, in.Clusters["B"])
	task := lease.Task{Kind: lease.KindMirror, Flow: "A->B", Topic: "orders"}
	in.must(cursors.Load(in.Context()))
	if how == "MirrorMaker's" {
		key := flow.Key("orders", 0)
		in.must(in.Clusters["B"].Write(in.Context(), flow.OffsetsTopic, []kafka.Record{
			{Partition: mm2.OffsetsPartition(key, mm2.OffsetsPartitions), Key: key, Value: []byte(`{"offset":2}`)},
		}))
		in.must(cursors.Load(in.Context()))
	}
	if how == "held" {
		must(cursors.Create(in.Context(), "orders", 0, lease.Cursor{
			Offset: 3, Target: 3, SourceEpoch: -1, Hold: lease.Hold{Reason: lease.ReasonForeignWriter, Detail: "offset 2 is not ours", Since: time.Now()},
		}))
	}
	if how != "held" {
		in.must(in.Queue.PutState(in.Context(), task, lease.State{Reason: lease.ReasonNoCursor, Detail: "unknown", Held: true, Next: time.Now().Add(time.Minute)}))
	}
	return cursors, task
}

// A decision is in both places, with the hold that it is about, and the worker's next look need not be waited for.
func TestResumeWritesTheDecisionToBothPlaces(t *testing.T) {
	for how, want := range map[string]lease.Cursor{
		"held":          {Offset: 3, Target: 3, Hold: lease.Hold{Reason: lease.ReasonForeignWriter}},
		"without one":   {Hold: lease.Hold{Reason: lease.ReasonNoCursor}},
		"MirrorMaker's": {Offset: 3, Hold: lease.Hold{Reason: lease.ReasonNoCursor}},
	} {
		for _, queue := range []bool{true, false} {
			t.Run(how, func(t *testing.T) {
				bubble(t, func(in *installation) {
					cursors, task := holding(in, how)
					o := in.Options
					request := coordinator.Request{Flow: "A->B", Partition: -1, Decision: lease.From(4)}
					if !queue {
						o.Queue = nil
						request.Partition = 0 // by name: without a queue nobody knows whether a worker could take over from MirrorMaker
					}
					all := must(coordinator.Resume(in.Context(), o, request))
					if len(all.All) != 1 || !all.All[0].Written || all.All[0].Choices[0].Offset != 4 || (all.Alone == "") != queue {
						in.Fatalf("got %+v", all)
					}
					published := must(lease.ReadCursors(in.Context(), in.Options.Spec.Flows[0], in.Clusters["B"]))[kafka.TopicPartition{Topic: "orders"}]
					if !queue {
						in.must(cursors.Load(in.Context()))
					}
					kept, _, err := cursors.Get(in.Context(), "orders", 0)
					in.must(err)
					for _, c := range []lease.Cursor{published, kept} {
						if c.Decision != lease.From(4) || c.DecidedAt.IsZero() || c.Hold.Reason != want.Hold.Reason || c.Hold.Detail == "" ||
							c.Offset != want.Offset || c.Target != want.Target || c.Foreign {
							in.Errorf("cursor %+v", c)
						}
					}
					_, there, err := in.Queue.State(in.Context(), task)
					if err != nil || queue && there {
						in.Errorf("a worker would not look at it before its time: %v", err)
					}
				})
			})
		}
	}
}

// A worker that runs the partition in this very moment is fenced off.
func TestResumeMeetsAWorker(t *testing.T) {
	bubble(t, func(in *installation) {
		cursors, _ := holding(in, "held")
		_, before, err := cursors.Get(in.Context(), "orders", 0)
		in.must(err)
		request := coordinator.Request{Flow: "A->B", Topic: "orders", Partition: 0, Decision: lease.AcceptGap}
		if all := must(coordinator.Resume(in.Context(), in.Options, request)); len(all.All) != 1 || !all.All[0].Written {
			in.Fatalf("got %+v", all)
		}
		if _, err := cursors.Commit(in.Context(), "orders", 0, lease.Cursor{}, before); err == nil {
			in.Error("a worker from before the decision can still write the cursor")
		}
		request.Decision = lease.Restart // thought better of it
		if all := must(coordinator.Resume(in.Context(), in.Options, request)); len(all.All) != 1 || !all.All[0].Written {
			in.Fatalf("got %+v", all)
		}
		if c, _, err := cursors.Get(in.Context(), "orders", 0); err != nil || c.Decision != lease.Restart {
			in.Errorf("cursor %+v, %v", c, err)
		}
	})
}

// One that has gone on in earnest, while it was looked at what the decision would do, is left alone.
func TestResumeLeavesAWorkerAloneThatHasGoneOn(t *testing.T) {
	bubble(t, func(in *installation) {
		cursors, _ := holding(in, "held")
		gone, isOn := make(chan struct{}), false
		in.Env.Kafka("A").ControlKey(int16(kmsg.ListOffsets), func(kmsg.Request) (kmsg.Response, error, bool) {
			if !isOn {
				isOn = true
				in.Env.Kafka("A").SleepControl(func() {
					defer close(gone)
					in.commit(in.Options.Spec.Flows[0], "orders", 0, 5)
				})
			}
			return nil, nil, false
		})
		all := must(coordinator.Resume(in.Context(), in.Options, coordinator.Request{Flow: "A->B", Topic: "orders", Partition: 0, Decision: lease.Restart}))
		<-gone
		if len(all.All) != 1 || all.All[0].Written || all.All[0].Err == nil || all.All[0].Err.Error() != "has gone on meanwhile" {
			in.Errorf("got %+v", all)
		}
		if c, _, err := cursors.Get(in.Context(), "orders", 0); err != nil || c.Decision != "" || c.Offset != 5 {
			in.Errorf("cursor %+v, %v", c, err)
		}
	})
}

// Somebody else wrote to the copy, and the source has lost the last record that was copied, and got others: a dry run knows it as a worker does.
func TestResumeAsksWhereTheSourceParted(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 1, 5)
		in.create("B", "A.orders", 1, 3)
		cursors := in.Queue.Cursors(in.Options.Spec.Flows[0], in.Clusters["B"])
		in.must(cursors.Load(in.Context()))
		must(cursors.Create(in.Context(), "orders", 0, lease.Cursor{
			Offset: 3, Target: 3, SourceEpoch: 0, Hold: lease.Hold{Reason: lease.ReasonForeignWriter, Detail: "not ours", Since: time.Now()},
		}))
		in.Env.Kafka("A").ControlKey(int16(kmsg.OffsetForLeaderEpoch), func(req kmsg.Request) (kmsg.Response, error, bool) {
			resp := req.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
			p := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			p.EndOffset = 2
			resp.Topics = append(resp.Topics, kmsg.OffsetForLeaderEpochResponseTopic{Topic: "orders", Partitions: []kmsg.OffsetForLeaderEpochResponseTopicPartition{p}})
			return resp, nil, true
		})
		all := must(coordinator.Resume(in.Context(), in.Options, coordinator.Request{Flow: "A->B", Partition: -1, Decision: lease.AcceptGap, DryRun: true}))
		if len(all.All) != 1 || len(all.All[0].Choices) != 1 || all.All[0].Choices[0].Offset != 2 {
			in.Errorf("got %+v", all)
		}
	})
}

func TestResumeSaysWhatItDoesNot(t *testing.T) {
	bubble(t, func(in *installation) {
		cursors, _ := holding(in, "held")
		in.create("A", "orders-eu", 2, 0)
		in.create("B", "A.orders-eu", 2, 0)
		for p := range int32(2) {
			must(cursors.Create(in.Context(), "orders-eu", p, lease.Cursor{Hold: lease.Hold{Reason: lease.ReasonForeignWriter, Detail: "not ours", Since: time.Now()}}))
		}
		for _, test := range []struct {
			coordinator.Request
			says string
		}{
			{coordinator.Request{Flow: "A->B", Topic: "orders", Partition: 1, Decision: lease.AcceptGap}, "does not wait for a decision: it is idle"},
			{coordinator.Request{Flow: "A->B", Topic: "orders", Partition: 0, Decision: lease.From(6)}, "offset 6 is not in the source's log, which has 0 to 5"},
			{coordinator.Request{Flow: "A->B", Topic: "orders-eu", Partition: -1, Decision: lease.From(0)}, "an offset is one partition's, and 2 would be concerned: give --topic and --partition"},
			{coordinator.Request{Flow: "A->X", Partition: -1, Decision: lease.AcceptGap}, `there is no flow "A->X"`},
			{coordinator.Request{Flow: "A->B", Topic: "orders-us", Partition: -1, Decision: lease.AcceptGap}, `A->B copies no topic "orders-us"`},
			{coordinator.Request{Flow: "A->B", Topic: "orders", Partition: 77, DryRun: true}, "A->B copies no orders-77"},
			{coordinator.Request{Flow: "A->B", Partition: 77, DryRun: true}, "A->B copies no partition 77"},
		} {
			all, err := coordinator.Resume(in.Context(), in.Options, test.Request)
			says := ""
			if err != nil {
				says = err.Error()
			}
			for _, one := range all.All {
				if one.Written {
					in.Errorf("%+v: decided", test.Request)
				}
				if one.Err != nil {
					says += one.Err.Error()
				}
			}
			if !strings.Contains(says, test.says) {
				in.Errorf("%+v says %q, want %q", test.Request, says, test.says)
			}
		}
	})
}

// A topic stands for those of its partitions that wait: the healthy ones are no failure, and don't keep an offset from being one partition's.
func TestResumeOfATopicIsForThoseThatWait(t *testing.T) {
	for _, d := range []lease.Decision{lease.AcceptGap, lease.From(4)} {
		bubble(t, func(in *installation) {
			holding(in, "held")
			all := must(coordinator.Resume(in.Context(), in.Options, coordinator.Request{Flow: "A->B", Topic: "orders", Partition: -1, Decision: d}))
			if len(all.All) != 1 || !all.All[0].Written || all.All[0].Source() != (kafka.TopicPartition{Topic: "orders"}) {
				in.Errorf("%s: %+v", d, all.All)
			}
		})
	}
}
