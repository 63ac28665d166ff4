package functions_test

import (
	"testing"
	"time"
)

// A run that was asked to be brief ends when it has caught up, even where more comes all the time.
func TestBriefRunEndsWhenCaughtUp(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.write(100)
		w.slowStream(20 * time.Second)
		p := w.worker(0)
		task := w.task(0)
		task.Brief = true
		for round := range 5 {
			end := w.sourceEnd(0)
			_, err := w.queue.Offer(w.Context(), task)
			w.must(err)
			began := time.Now()
			w.eventually("the lease is given back", func() bool { return w.targetEnd(0) >= end && p.count("kferry_leases_held") == 0 })
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("run %d took %s", round, took)
			}
			if at := w.cursor(0).Offset; at < end {
				t.Errorf("run %d ended at %d of %d", round, at, end)
			}
			time.Sleep(2 * time.Second)
		}
		w.complete()
		w.exact()
	})
}
