package coordinator_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

func TestStatusFromTheClustersAlone(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 2, 5)
		in.create("A", "orders-eu", 1, 1)
		in.create("B", "A.orders", 2, 3)
		flow := in.Options.Spec.Flows[0]
		cursors := in.Queue.Cursors(flow, in.Clusters["B"])
		in.must(cursors.Load(in.Context()))
		must(cursors.Create(in.Context(), "orders", 0, lease.Cursor{
			Offset: 3, Target: 3, Mapped: true, ExactlyOnce: "compacted source",
			Hold: lease.Hold{Reason: lease.ReasonForeignWriter, Detail: "offset 2 is not ours", Since: time.Now()},
		}))
		time.Sleep(time.Minute)
		in.connect(spec.Cluster{Alias: "dead", BootstrapServers: []string{"127.0.0.1:1"}})
		in.Options.Spec.Flows[1] = flowTo("dead", "B", "payments")
		o := in.Options
		o.Queue = nil
		survey := coordinator.Status(in.Context(), o)
		survey.Flags = " -f m.yaml"

		if dead := survey.Flows[1]; dead.Error == "" || len(dead.Partitions) > 0 {
			in.Errorf("flow of an unreachable source: %+v", dead)
		}
		var text bytes.Buffer
		in.must(survey.Table(&text))
		for _, want := range []string{
			"held (foreign_writer)  3       5           3           2    60           no (compacted source)  mapped",
			"A.orders      1          idle                   -       0           0           0    0            -                      -",
			"A.orders-eu   0          missing                -       1           -           1",
			"offset 2 is not ours\n  It stays so until you decide, with one of:\n    kferry resume -f m.yaml 'A->B' --topic orders --partition 0 --accept-gap   goes on behind what is there\n",
			"dead->B can't be looked at",
			"Not shown are failures and back-off, which only the queue knows: none is given",
		} {
			if !strings.Contains(text.String(), want) {
				in.Errorf("table lacks %q", want)
			}
		}
		if in.Failed() {
			in.Log(text.String())
		}
		if _, err := json.Marshal(survey); err != nil {
			in.Error(err)
		}
	})
}

// Records behind an open transaction are not copied, and whoever looks is told why.
func TestStatusSaysWhatWaitsBehindAnOpenTransaction(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 2, 5)
		in.create("B", "A.orders", 2, 0)
		client, err := in.Env.Client("A", kgo.TransactionalID("open"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		in.must(err)
		defer client.Close()
		in.must(client.BeginTransaction())
		in.must(client.ProduceSync(in.Context(), &kgo.Record{Topic: "orders", Value: []byte("x")}).FirstErr())
		survey := coordinator.Status(in.Context(), in.Options)
		waits, clear := survey.Flows[0].Partitions[0], survey.Flows[0].Partitions[1]
		o := waits.OpenTransaction
		if clear.OpenTransaction != nil || o == nil || o.LastStable != 5 || o.LogEnd != 6 || o.Waiting != 1 || o.ProducerID == nil || o.Since == nil || waits.LagRecords == nil || *waits.LagRecords != 5 {
			in.Fatalf("got %+v and %+v, %+v", clear, waits, o)
		}
		var text bytes.Buffer
		in.must(survey.Table(&text))
		if !strings.Contains(text.String(), "orders-0: copying\n  1 record behind an open transaction: last stable offset 5, log end 6; producer id") {
			in.Error(text.String())
		}
		in.must(client.EndTransaction(in.Context(), kgo.TryCommit))
		if o := coordinator.Status(in.Context(), in.Options).Flows[0].Partitions[0].OpenTransaction; o != nil {
			in.Errorf("after the commit: %+v", o)
		}
	})
}

// What is written to a plain topic while status asks waits for no transaction.
func TestStatusOfABusyTopicKnowsOfNoTransaction(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 1, 5)
		in.create("B", "A.orders", 1, 0)
		source, asked := in.Env.Kafka("A"), false
		source.ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
			if r := req.(*kmsg.ListOffsetsRequest); r.IsolationLevel != 0 || r.Topics[0].Partitions[0].Timestamp != kafka.Latest || asked {
				return nil, nil, false
			}
			asked = true // for the watermark, after the last stable offset
			source.SleepControl(func() { in.write("A", "orders", 3) })
			return nil, nil, false
		})
		source.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) { return nil, errors.New("cut"), asked })
		survey := coordinator.Status(in.Context(), in.Options)
		if o := survey.Flows[0].Partitions[0].OpenTransaction; !asked || o != nil {
			in.Errorf("asked %v: %+v", asked, o)
		}
	})
}

// Where one partition has been decided about, the next one still asks; and a decision is shown while the copy's topic is being created.
func TestStatusTellsWhatIsDecided(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 2, 5)
		in.create("B", "A.orders", 2, 0)
		in.create("A", "orders-eu", 1, 5) // its copy is gone
		flow := in.Options.Spec.Flows[0]
		cursors := in.Queue.Cursors(flow, in.Clusters["B"])
		in.must(cursors.Load(in.Context()))
		held := lease.Cursor{Offset: 3, Hold: lease.Hold{Reason: lease.ReasonForeignWriter, Detail: "not ours"}}
		must(cursors.Create(in.Context(), "orders", 1, held))
		held.Decision = lease.AcceptGap
		must(cursors.Create(in.Context(), "orders", 0, held))
		held.Hold.Reason, held.Decision = lease.ReasonTargetRecreated, lease.Restart
		must(cursors.Create(in.Context(), "orders-eu", 0, held))
		var text bytes.Buffer
		in.must(coordinator.Status(in.Context(), in.Options).Table(&text))
		for _, want := range []string{
			"  It goes on by decision (accept-gap) when a worker looks next.\n",
			"--topic orders --partition 1 --accept-gap",
			"A->B orders-eu-0: missing\n  \"A.orders-eu\" has 0 partitions on the target so far\n  It goes on by decision (restart) once its target partition is created.\n",
		} {
			if !strings.Contains(text.String(), want) {
				in.Errorf("status lacks %q:\n%s", want, &text)
			}
		}
	})
}

// What the cluster that answers knows is shown, with the reason why there is no more.
func TestStatusWhileOneClusterIsDown(t *testing.T) {
	for _, dead := range []string{"A", "B"} {
		t.Run(dead, func(t *testing.T) {
			bubble(t, func(in *installation) {
				in.create("A", "orders", 2, 5)
				in.create("B", "A.orders", 2, 0)
				flow := in.Options.Spec.Flows[0]
				in.must(in.Queue.Cursors(flow, in.Clusters["B"]).Load(in.Context()))
				in.commit(flow, "orders", 0, 3)
				in.commit(flow, "orders", 1, 0)
				in.connect(spec.Cluster{Alias: dead, BootstrapServers: []string{"127.0.0.1:1"}})
				survey := coordinator.Status(in.Context(), in.Options)
				f := survey.Flows[0]
				if f.Error == "" || len(f.Partitions) != 2 {
					in.Fatalf("got %+v", f)
				}
				first := f.Partitions[0]
				if first.State != coordinator.Failed || first.Reason != lease.ReasonUnreachable || *first.Cursor != 3 || first.Detail != f.Error || first.LagSeconds != nil || first.SourceEnd != nil || first.LagRecords != nil {
					in.Errorf("got %+v", first)
				}
				var text bytes.Buffer
				in.must(survey.Table(&text))
				if strings.Count(text.String(), "failed (unreachable)") != 2 || strings.Count(text.String(), f.Error) < 1 {
					in.Errorf("table:\n%s", &text)
				}
			})
		})
	}
}

// A topic of many partitions would bury everything else.
func TestStatusTellsTheTroubleOfATopicOnce(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 8, 5)
		o := in.Options
		o.Queue = nil
		var text bytes.Buffer
		in.must(coordinator.Status(in.Context(), o).Table(&text))
		want := "\nA->B orders [0-7]: missing\n  \"A.orders\" has 0 partitions on the target so far\n"
		if !strings.Contains(text.String(), want) || strings.Count(text.String(), "so far") != 1 {
			in.Errorf("table:\n%s", &text)
		}
	})
}

func TestStatusAddsWhatTheQueueKnows(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 1, 5)
		in.create("B", "A.orders", 1, 0)
		flow := in.Options.Spec.Flows[0]
		in.must(in.Queue.Cursors(flow, in.Clusters["B"]).Load(in.Context()))
		in.commit(flow, "orders", 0, 1)
		in.commit(flow, "orders", 0, 4) // in KV, not yet on the offsets topic
		in.must(in.Queue.PutState(in.Context(), lease.Task{Kind: lease.KindMirror, Flow: "A->B", Topic: "orders"},
			lease.State{Reason: lease.ReasonError, Detail: "connection refused", Next: time.Now().Add(20 * time.Second), Worker: "w1"}))
		got := coordinator.Status(in.Context(), in.Options).Flows[0].Partitions[0]
		if *got.Cursor != 4 || got.State != coordinator.Waiting || got.Detail != "connection refused" || got.Worker != "w1" || got.Next == nil {
			in.Errorf("got %+v", got)
		}

		in.NATS.Stop() // then from the clusters alone again
		synctest.Wait()
		survey := coordinator.Status(in.Context(), in.Options)
		if got := survey.Flows[0]; survey.Queue == "" || got.Error != "" || *got.Partitions[0].Cursor != 1 {
			in.Errorf("without queue: %q, %+v", survey.Queue, got)
		}
	})
}

func TestLookWritesNothing(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 3, 5)
		in.create("A", "orders-eu", 2, 1)
		in.create("A", strings.Repeat("orders", 41), 1, 0) // 246 characters: the copy's name has 248
		in.create("A", strings.Repeat("orders", 41)+"-eu", 1, 0)
		in.create("B", "A.orders", 1, 0)
		names := func() (list []string) {
			for _, topic := range must(in.Clusters["B"].Topics(in.Context())) {
				list = append(list, topic.Name)
			}
			return list
		}
		before := names()
		preview := coordinator.Look(in.Context(), in.Options)
		if after := names(); len(after) != len(before) {
			in.Errorf("topics on the target: %q, before: %q", after, before)
		}
		flow := preview.Flows[0]
		if preview.OK() || flow.Creates != "mm2-offsets.A.internal" || len(flow.Topics) != 4 {
			in.Fatalf("got %+v", preview)
		}
		for i, want := range []struct {
			creates string
			problem bool
		}{{"2 more partitions", false}, {"topic (2 partitions)", false}, {"topic (1 partition)", false}, {"topic (1 partition)", true}} {
			if got := flow.Topics[i]; got.Creates() != want.creates || (got.Problem != "") != want.problem || got.Bytes == nil {
				in.Errorf("got %+v, want %+v", got, want)
			}
		}
		if *flow.Topics[0].Bytes == 0 {
			in.Error("five records are said to need no room")
		}
		var text bytes.Buffer
		in.must(preview.Table(&text))
		if !strings.Contains(text.String(), "2 more partitions") {
			in.Errorf("table:\n%s", &text)
		}
	})
}

// Another form of input keeps its cursors in another topic: without them, whatever was copied is of unknown origin.
func TestLookWarnsOfRecordsWithoutACursor(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 1, 5)
		in.create("B", "A.orders", 1, 3)
		preview := coordinator.Look(in.Context(), in.Options)
		want := "A.orders-0 holds the offsets 0 to 2 and has no cursor: would be held (no_cursor)"
		if got := preview.Flows[0].Topics[0]; preview.OK() || got.Problem != want {
			in.Errorf("got %+v", got)
		}
	})
}

// What MirrorMaker has left is taken over, so it is no problem, and status says what it is.
func TestStatusTellsWhatMirrorMakerLeft(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 1, 5)
		in.create("B", "A.orders", 1, 3)
		flow := in.Options.Spec.Flows[0]
		cursors := in.Queue.Cursors(flow, in.Clusters["B"])
		in.must(cursors.Load(in.Context()))
		key := flow.Key("orders", 0)
		in.must(in.Clusters["B"].Write(in.Context(), flow.OffsetsTopic, []kafka.Record{
			{Partition: mm2.OffsetsPartition(key, mm2.OffsetsPartitions), Key: key, Value: []byte(`{"offset":2}`)},
		}))
		if got := coordinator.Look(in.Context(), in.Options).Flows[0].Topics[0]; got.Problem != "" {
			in.Errorf("a problem: %+v", got)
		}
		p := coordinator.Status(in.Context(), in.Options).Flows[0].Partitions[0]
		if p.State != coordinator.Copying || !strings.Contains(p.Detail, "MirrorMaker 2 wrote the position of orders-0 last, at offset 3") {
			in.Errorf("got %+v", p)
		}
		// A worker has found that it can't.
		in.must(cursors.Load(in.Context()))
		left, revision, err := cursors.Get(in.Context(), "orders", 0)
		in.must(err)
		left.Hold = lease.Hold{Reason: lease.ReasonNoCursor, Detail: "records are alike", Since: time.Now()}
		must(cursors.Commit(in.Context(), "orders", 0, left, revision))
		if p := coordinator.Status(in.Context(), in.Options).Flows[0].Partitions[0]; p.State != coordinator.Held || p.Detail != "records are alike" || !p.Decide {
			in.Errorf("got %+v", p)
		}
	})
}

// Nothing is to be copied, so no worker looks: status tells that the copy is shorter than it was.
func TestStatusWarnsOfAnIdleCopyThatWasCut(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 1, 5)
		in.create("B", "A.orders", 1, 5)
		flow := in.Options.Spec.Flows[0]
		in.must(in.Queue.Cursors(flow, in.Clusters["B"]).Load(in.Context()))
		in.commit(flow, "orders", 0, 5)
		warned := func() bool {
			o := in.Options
			o.Queue = nil
			return strings.Contains(strings.Join(coordinator.Status(in.Context(), o).Flows[0].Warnings, "\n"), "A.orders-0 ends at offset ")
		}
		if warned() {
			in.Error("warns of a copy that is whole")
		}
		in.must(in.Env.Kafka("B").DeleteTopic("A.orders"))
		in.create("B", "A.orders", 1, 0)
		if !warned() {
			in.Error("does not warn of a copy that was cut")
		}
	})
}

// The replication factor of the copies says nothing about that of the cursors, without which no copy goes on.
func TestLookWarnsOfASingleReplicaOfTheCursors(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 1, 0)
		in.Options.Spec.Flows[0].ReplicationFactor = 2
		want := `the cursors of A->B are kept with one replica on B, which has 2 brokers: set the replication factor of "mm2-offsets.A.internal"`
		if got := coordinator.Look(in.Context(), in.Options).Flows[0].Warnings; len(got) != 1 || !strings.HasPrefix(got[0], want) {
			in.Errorf("got %q", got)
		}
		in.Options.Spec.Flows[0].OffsetsReplicationFactor = 2
		if got := coordinator.Look(in.Context(), in.Options).Flows[0].Warnings; len(got) > 0 {
			in.Errorf("got %q, although all is set", got)
		}
	})
}

func TestStatusOfACursorFromTheFuture(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 1, 5)
		in.create("B", "A.orders", 1, 0)
		flow := in.Options.Spec.Flows[0]
		in.create("B", flow.OffsetsTopic, 1, 0)
		in.must(in.Clusters["B"].Write(in.Context(), flow.OffsetsTopic, []kafka.Record{
			{Key: flow.Key("orders", 0), Value: []byte(`{"offset":2,"kferry.version":9}`)},
		}))
		o := in.Options
		o.Queue = nil
		got := coordinator.Status(in.Context(), o).Flows[0].Partitions[0]
		if got.State != coordinator.Held || got.Reason != lease.ReasonFormat {
			in.Errorf("got %+v", got)
		}
	})
}
