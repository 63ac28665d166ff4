package coordinator_test

import (
	"slices"
	"testing"
	"time"

	"github.com/kferry/kferry/shared/lease"
)

// A flow that may have two leases has five partitions to copy. All get their turn, whoever runs, two at a time, and those that wait for
// one ask for it.
func TestBoundedFlowTakesTurns(t *testing.T) {
	bubble(t, func(in *installation) {
		in.Options.Metrics = nil
		in.Options.Spec.Flows[0].MaxLeases = 2
		in.create("B", "A.orders", 5, 0)
		in.create("A", "orders", 5, 0)
		for p := range int32(5) {
			in.writeTo("A", "orders", p)
		}
		asked := make(chan lease.Task, 100)
		stop, err := in.Queue.Asked("A->B", func(task lease.Task) { asked <- task })
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		in.run()
		in.run()
		var order []int32
		var held []*lease.Lease
		for end := time.Now().Add(30 * time.Second); len(order) < 15; {
			for _, l := range in.claim(100 * time.Millisecond) {
				held, order = append(held, l), append(order, l.Task.Partition)
				if !l.Task.Brief {
					t.Errorf("%s has to make room for others when it has caught up", l.Task)
				}
			}
			if len(held) > 2 || len(held) == 2 && held[0].Task.Slot == held[1].Task.Slot {
				t.Fatalf("%d leases: %v, %v", len(held), held[0].Task, held[1].Task)
			}
			select {
			case task := <-asked: // none of the runs gets anywhere
				held = slices.DeleteFunc(held, func(l *lease.Lease) bool {
					if l.Task.Identity() != task.Identity() {
						return false
					}
					in.release(l)
					return true
				})
			default:
				if time.Now().After(end) {
					t.Fatalf("turns within 30 s: %v", order)
				}
			}
		}
		for p := range int32(5) { // three each, if the two coordinators knew of each other
			if n := len(slices.DeleteFunc(slices.Clone(order), func(o int32) bool { return o != p })); n < 2 {
				t.Errorf("partition %d had %d turns: %v", p, n, order)
			}
		}
	})
}

// With room for all of them nobody has to hurry.
func TestBoundedFlowWithRoom(t *testing.T) {
	bubble(t, func(in *installation) {
		in.Options.Spec.Flows[0].MaxLeases = 3
		in.create("A", "orders", 1, 3)
		in.create("A", "orders-eu", 1, 3)
		in.create("B", "A.orders", 1, 0)
		in.create("B", "A.orders-eu", 1, 0)
		in.run()
		for _, l := range in.expect(3*time.Second, "mirror A->B orders-0", "mirror A->B orders-eu-0") {
			if l.Task.Brief || l.Task.Slot == 0 {
				t.Errorf("%+v", l.Task)
			}
		}
		in.silent(2 * time.Second)
	})
}
