package coordinator_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// Someone pauses a flow while two coordinators look at it. None of its tasks comes any more, also when NATS has lost its store, and the
// other flow goes on.
func TestPausedFlowIsNotOffered(t *testing.T) {
	bubble(t, func(in *installation) {
		in.Options.Metrics = nil
		in.create("A", "orders", 1, 3)
		in.create("A", "orders-eu", 1, 3) // has no copy yet
		in.create("B", "A.orders", 1, 0)
		in.create("C", "payments", 1, 0)
		in.create("B", "C.payments", 1, 0)
		c := in.run()
		in.run()
		in.release(in.expect(3*time.Second, "mirror A->B orders-0", "topics A->B orders-eu")...)
		flow := in.Options.Spec.Flows[0]
		cursors := in.Queue.Cursors(flow, in.Clusters["B"])
		if err := cursors.SetPaused(in.Context(), true); err != nil {
			in.Fatal(err)
		}
		time.Sleep(coordinator.PassInterval)
		in.release(in.claim(0)...) // what was offered before
		in.silent(10 * time.Second)
		in.write("C", "payments", 1)
		in.expect(3*time.Second, "mirror C->B payments-0")
		in.commit(in.Options.Spec.Flows[1], "payments", 0, 1)

		if err := in.NATS.Wipe(); err != nil {
			in.Fatal(err)
		}
		in.silent(10 * time.Second)
		synctest.Wait()
		for _, p := range c.Flows()[0].Plan.Partitions {
			if p.State != coordinator.Paused || p.Lag != 3 {
				t.Errorf("%+v", p)
			}
		}
		in.status("A->B is paused: nothing of it is copied until \"kferry unpause 'A->B'\"", "paused")
		if s, err := c.CaughtUp(in.Context()); err != nil || s.Flows[0].State != spec.Paused || s.Complete() {
			t.Errorf("%+v, %v", s, err)
		}

		if err := cursors.SetPaused(in.Context(), false); err != nil {
			in.Fatal(err)
		}
		in.expect(3*time.Second, "mirror A->B orders-0", "topics A->B orders-eu")
	})
}

// status fails where the status, with a queue and without, lacks a text.
func (in *installation) status(wants ...string) {
	in.Helper()
	alone := in.Options
	alone.Queue = nil
	for _, o := range []coordinator.Options{in.Options, alone} {
		var text bytes.Buffer
		if err := coordinator.Status(in.Context(), o).Table(&text); err != nil {
			in.Fatal(err)
		}
		for _, want := range wants {
			if !strings.Contains(text.String(), want) {
				in.Errorf("status lacks %q:\n%s", want, text.String())
			}
		}
	}
}

// A pause that was written while no queue ran is there when one does.
func TestPauseWithoutAQueue(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 1, 3)
		in.create("B", "A.orders", 1, 0)
		flow := in.Options.Spec.Flows[0]
		if err := in.Kafka("B").CreateTopic(flow.OffsetsTopic, 25, map[string]string{"cleanup.policy": "compact"}); err != nil {
			in.Fatal(err)
		}
		if err := lease.WritePaused(in.Context(), flow, in.Clusters["B"], true); err != nil {
			in.Fatal(err)
		}
		if _, err := in.Queue.Cursors(flow, in.Clusters["B"]).Orders(in.Context()); !errors.Is(err, lease.ErrNotLoaded) {
			in.Errorf("orders before anything is loaded: %v", err)
		}
		in.run()
		in.silent(10 * time.Second)
	})
}

func TestStatesOfTheConfiguration(t *testing.T) {
	for state, says := range map[spec.State]string{
		spec.Paused: "A->B is paused by its configuration", spec.Stopped: "A->B is stopped by its configuration",
		spec.Absent: "A->B copies no topics: its input has no source connector",
	} {
		t.Run(string(state), func(t *testing.T) {
			bubble(t, func(in *installation) {
				in.Options.Spec.Flows[0].State = state
				in.create("A", "orders", 1, 3)
				c := in.run()
				in.silent(10 * time.Second)
				in.status(says)
				report := c.Flows()[0]
				if report.Err != nil || report.Plan.State != state {
					t.Errorf("%+v", report)
				}
				if n := len(report.Plan.Partitions); state == spec.Absent && n > 0 || state != spec.Absent && n != 1 {
					t.Errorf("%d partitions", n)
				}
				s, err := c.CaughtUp(in.Context())
				if err != nil || s.Flows[0].State != state {
					t.Errorf("%+v, %v", s, err)
				}
			})
		})
	}
}

// Where a flow copies no topics, none of them stands in another's way.
func TestTopicsOfAnAbsentFlowLeadNowhere(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 1, 3)
		in.create("C", "A.orders", 1, 3)
		in.Options.Spec.Flows[0].State = spec.Absent
		in.Options.Spec.Flows[1] = flowTo("C", "B", "A.orders")
		in.Options.Spec.Flows[1].Policy = mm2.IdentityPolicy{}
		in.run()
		in.expect(3*time.Second, "topics C->B A.orders")
	})
}

func TestGroupsOfAPausedFlowRest(t *testing.T) {
	bubble(t, func(in *installation) {
		f := followingGroups(in, false)
		in.commit(f, "orders", 0, 20)
		in.commitGroup("A", "app", "orders", 10)
		cursors := in.Queue.Cursors(f, in.Clusters["B"])
		if err := cursors.SetPaused(in.Context(), true); err != nil {
			in.Fatal(err)
		}
		in.run()
		if in.groupsTask(f, false) {
			in.Error("the task was offered while the flow is paused")
		}
		if err := cursors.SetPaused(in.Context(), false); err != nil {
			in.Fatal(err)
		}
		if !in.groupsTask(f, false) {
			in.Error("the task was not offered after the pause")
		}
	})
}
