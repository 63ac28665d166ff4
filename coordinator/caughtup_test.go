package coordinator_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// outcome is what a call of CaughtUp returned, and after how long.
type outcome struct {
	coordinator.Summary
	err  error
	took time.Duration
}

func (in *installation) catchUp(ctx context.Context, c *coordinator.Coordinator) <-chan outcome {
	ended := make(chan outcome, 1)
	began := time.Now()
	go func() {
		summary, err := c.CaughtUp(ctx)
		ended <- outcome{summary, err, time.Since(began)}
	}()
	return ended
}

func TestCaughtUpWithTheStart(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 2, 5) // the second partition is empty
		in.create("B", "A.orders", 2, 0)
		c := in.run()
		ended := in.catchUp(in.Context(), c)
		time.Sleep(3 * time.Second)
		in.write("A", "orders", 7) // after the start: not waited for
		time.Sleep(3 * time.Second)
		in.commit(in.Options.Spec.Flows[0], "orders", 0, 4)
		select {
		case got := <-ended:
			in.Fatalf("caught up one record early: %+v", got)
		case <-time.After(10 * time.Second):
		}
		in.commit(in.Options.Spec.Flows[0], "orders", 0, 5)
		got := <-ended
		flow := got.Flows[0]
		if got.err != nil || !got.Complete() || flow.CaughtUp != 2 || flow.Records != 5 || flow.Lag != 7 {
			in.Errorf("summary: %+v", got)
		}
		if len(got.Flows[1].Warnings) == 0 {
			in.Error("no warning of a pattern that matches nothing")
		}
		var text bytes.Buffer
		if err := got.Table(&text); err != nil || !strings.Contains(text.String(), "A->B  2           2          5        7") {
			in.Errorf("table: %v\n%s", err, &text)
		}
	})
}

func TestCaughtUpEndsWithTheListOfHeldPartitions(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 1, 5)
		in.create("B", "A.orders", 1, 0)
		task := lease.Task{Kind: lease.KindMirror, Flow: "A->B", Topic: "orders"}
		hold := func() {
			now := time.Now()
			in.must(in.Queue.PutState(in.Context(), task, lease.State{
				Reason: lease.ReasonRecordTooLarge, Detail: "raise max.message.bytes", Held: true, Since: now, Next: now.Add(30 * time.Second),
			}))
		}
		hold() // by an earlier process: it may be repaired by now
		time.Sleep(10 * time.Second)
		c := in.run()
		ended := in.catchUp(in.Context(), c)
		run := in.expect(25*time.Second, "mirror A->B orders-0")
		select {
		case got := <-ended:
			in.Fatalf("gave up before anybody looked again: %+v", got)
		case <-time.After(3 * time.Second):
		}
		hold()
		in.release(run...)
		got := <-ended
		if got.Complete() || len(got.Flows[0].Stopped) != 1 || got.Flows[0].Stopped[0].Reason != lease.ReasonRecordTooLarge {
			in.Errorf("summary: %+v", got)
		}
	})
}

// A topic that was created again and has as many records as before looks examined to the end.
func TestCaughtUpWaitsForTheVerdictOnARecreatedTopic(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 1, 5)
		in.create("B", "A.orders", 1, 0)
		flow := in.Options.Spec.Flows[0]
		cursors := in.Queue.Cursors(flow, in.Clusters["B"])
		in.must(cursors.Load(in.Context()))
		revision := must(cursors.Create(in.Context(), "orders", 0, lease.Cursor{Offset: 5, SourceTopicID: "another"}))
		ended := in.catchUp(in.Context(), in.run())
		in.expect(5*time.Second, "mirror A->B orders-0")
		select {
		case got := <-ended:
			in.Fatalf("said before anybody had looked: %+v", got)
		case <-time.After(3 * time.Second):
		}
		must(cursors.Commit(in.Context(), "orders", 0, lease.Cursor{
			Offset: 5, SourceTopicID: "another", Hold: lease.Hold{Reason: lease.ReasonSourceRecreated, Detail: "created again"},
		}, revision))
		if got := <-ended; got.Complete() || got.Flows[0].Stopped[0].Reason != lease.ReasonSourceRecreated {
			in.Errorf("got %+v", got)
		}
	})
}

// The copy is gone, and one of its partitions had never been begun: nobody creates the topic for that one alone.
func TestCaughtUpEndsWhenTheCopyOfAPartlyBegunTopicIsGone(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 2, 5) // the second partition is empty
		flow := in.Options.Spec.Flows[0]
		cursors := in.Queue.Cursors(flow, in.Clusters["B"])
		in.must(cursors.Load(in.Context()))
		must(cursors.Create(in.Context(), "orders", 0, lease.Cursor{Offset: 5}))
		ctx, cancel := context.WithTimeout(in.Context(), 10*time.Minute)
		defer cancel()
		got := <-in.catchUp(ctx, in.run())
		if got.err != nil || got.Complete() || len(got.Flows[0].Stopped) != 2 || got.Flows[0].Stopped[0].Reason != lease.ReasonTargetRecreated || got.Flows[0].Stopped[1].Reason != lease.ReasonTopicMissing {
			in.Errorf("got %+v", got)
		}
	})
}

// A hold that somebody has decided about ends, even if it takes its worker a second try.
func TestCaughtUpWaitsForADecisionToBeCarriedOut(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 1, 5)
		in.create("B", "A.orders", 1, 0)
		flow := in.Options.Spec.Flows[0]
		cursors := in.Queue.Cursors(flow, in.Clusters["B"])
		in.must(cursors.Load(in.Context()))
		hold := lease.Hold{Reason: lease.ReasonForeignWriter, Detail: "not ours", Since: time.Now()}
		must(cursors.Create(in.Context(), "orders", 0, lease.Cursor{Offset: 3, Hold: hold, Decision: lease.AcceptGap}))
		in.must(in.Queue.PutState(in.Context(), lease.Task{Kind: lease.KindMirror, Flow: "A->B", Topic: "orders"}, lease.State{
			Reason: lease.ReasonError, Detail: "a broker was busy", Since: time.Now(), Next: time.Now().Add(50 * time.Second),
		}))
		ended := in.catchUp(in.Context(), in.run())
		select {
		case got := <-ended:
			in.Fatalf("gave up before the next try: %+v", got)
		case <-time.After(40 * time.Second):
		}
		in.commit(flow, "orders", 0, 5)
		if got := <-ended; !got.Complete() {
			in.Errorf("got %+v", got)
		}
	})
}

func TestCaughtUpNeedsAnAnswerOfEveryFlow(t *testing.T) {
	bubble(t, func(in *installation) {
		in.connect(spec.Cluster{Alias: "dead", BootstrapServers: []string{"127.0.0.1:1"}})
		in.Options.Spec.Flows[0] = flowTo("dead", "B", "orders")
		got := <-in.catchUp(in.Context(), in.run())
		if got.Complete() || got.Flows[0].Error == "" || got.took > 2*time.Minute {
			in.Errorf("after %s: %+v", got.took, got)
		}
	})
}

// A cluster that died after the first pass left the plan of that pass behind, and everybody waiting for its partitions.
func TestCaughtUpEndsWhenAClusterDies(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 1, 5)
		in.create("B", "A.orders", 1, 0)
		line := in.Line()
		in.connectThrough(in.Env.Spec("B"), line.Dial)
		ended := in.catchUp(in.Context(), in.run())
		in.expect(5*time.Second, "mirror A->B orders-0")
		line.Cut()
		got := <-ended
		const patience = 7 * time.Minute // cursors that were being read when it died are given five
		if got.Complete() || !strings.Contains(got.Flows[0].Error, "target") || got.took > patience {
			in.Errorf("after %s: %+v", got.took, got)
		}
	})
}

// What a worker can't do is no hold, as long as it may be able to soon; but nobody waits for ever.
func TestCaughtUpEndsWithThePartitionsThatKeepFailing(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 1, 5)
		in.create("B", "A.orders", 1, 0)
		began := time.Now()
		ended := in.catchUp(in.Context(), in.run())
		for {
			select {
			case got := <-ended:
				if stopped := got.Flows[0].Stopped; got.Complete() || len(stopped) != 1 || stopped[0].Detail != "disk is full" || got.took < time.Minute {
					in.Errorf("after %s: %+v", got.took, got)
				}
				return
			default:
			}
			if time.Since(began) > 5*time.Minute {
				in.Fatal("still waiting")
			}
			for _, l := range in.claim(time.Second) {
				in.must(in.Queue.PutState(in.Context(), l.Task, lease.State{
					Reason: lease.ReasonError, Detail: "disk is full", Since: began, Next: time.Now().Add(2 * time.Second),
				}))
				in.release(l)
			}
		}
	})
}

func TestCaughtUpEndsWithItsContext(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 1, 5)
		ctx, cancel := context.WithTimeoutCause(in.Context(), time.Minute, errors.New("enough"))
		defer cancel()
		got := <-in.catchUp(ctx, in.run())
		if got.err == nil || got.err.Error() != "enough" || got.Flows[0].Partitions != 1 {
			in.Errorf("got %+v", got)
		}
	})
}

func (in *installation) must(err error) {
	in.Helper()
	if err != nil {
		in.Fatal(err)
	}
}
