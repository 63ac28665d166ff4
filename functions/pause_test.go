package functions_test

import (
	"testing"
	"time"

	"github.com/kferry/kferry/shared/spec"
)

// A flow is paused while it copies: its leases are given back within seconds and to nobody, and what is on the queue is not begun. Then
// it goes on where it was.
func TestPausedFlowIsGivenBack(t *testing.T) {
	inWorld(t, setup{partitions: 3}, func(w *world) {
		w.write(30)
		w.stream(40 * time.Second)
		p := w.worker(0)
		w.offersFor(3 * time.Second)
		if n := p.count("kferry_leases_held"); n != 3 {
			t.Fatalf("%d leases", n)
		}
		w.must(w.cursors.SetPaused(w.Context(), true))
		time.Sleep(4 * time.Second)
		idle := func() {
			t.Helper()
			waiting, err := w.queue.Waiting(w.Context())
			if held := p.count("kferry_leases_held"); held != 0 || waiting != 0 || err != nil {
				t.Errorf("%d leases are held, %d tasks wait, %v", held, waiting, err)
			}
		}
		idle()
		before, _ := p.worker.Copied()
		w.offer(0) // by a coordinator that has not heard of it
		time.Sleep(2 * time.Second)
		idle()
		if after, _ := p.worker.Copied(); after != before {
			t.Errorf("%d records were copied", after-before)
		}
		w.must(w.cursors.SetPaused(w.Context(), false))
		w.complete()
		w.exact()
	})
}

// Tasks may still be on the queue from before the configuration said so.
func TestTasksOfAStoppedFlowAreDropped(t *testing.T) {
	for _, state := range []spec.State{spec.Paused, spec.Stopped, spec.Absent} {
		inWorld(t, setup{}, func(w *world) {
			w.write(10)
			w.flow.State = state
			p := w.worker(0)
			w.offer(0)
			time.Sleep(2 * time.Second)
			waiting, err := w.queue.Waiting(w.Context())
			if held := p.count("kferry_leases_held"); held != 0 || waiting != 0 || err != nil || w.targetEnd(0) != 0 {
				t.Errorf("%s: %d leases are held, %d tasks wait, %d records are copied, %v", state, held, waiting, w.targetEnd(0), err)
			}
		})
	}
}
