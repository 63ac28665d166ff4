package functions

import (
	"cmp"
	"context"
	"sync/atomic"
	"time"

	"github.com/kferry/kferry/shared/batch"
)

// A worker that works on demand, called or as a job, does bounded runs: they end when they have caught up, and at the latest when their
// time or their bytes are used up. What is left goes back to the queue.

// usualRunTime is for specifications that were not read.
const usualRunTime = 30 * time.Second

// overrun is how long a run that is over time may still take to find its position, or whatever else it waits for. One that takes longer has
// failed.
const overrun = 10 * time.Second

// bounds are what a run may take; the zero value is whatever it likes.
type bounds struct {
	until time.Time
	bytes int64 // of batches that have landed
}

// bounded are the bounds of a run that begins now.
func (w *Worker) bounded() bounds {
	f := w.Spec.Settings.Front
	return bounds{time.Now().Add(cmp.Or(f.RunTime, usualRunTime)), int64(f.RunBytes)}
}

// tally is what has landed in a run.
type tally struct{ records, bytes atomic.Int64 }

// bind has a run keep its bounds until free is called. The context is its soft one.
func (t *tenancy) bind(soft context.Context) (_ context.Context, free func()) {
	if t.bounds == (bounds{}) {
		return soft, func() {}
	}
	timer := time.AfterFunc(time.Until(t.bounds.until), t.yield)
	soft, cancel := context.WithDeadlineCause(soft, t.bounds.until.Add(overrun), errOver)
	return soft, func() {
		timer.Stop()
		cancel()
	}
}

// landed notes a batch. What is read already is still written: a piece of a fetch more than the bytes allow.
func (t *tenancy) landed(b batch.Batch) {
	t.copied.records.Add(int64(b.Records()))
	if t.copied.bytes.Add(int64(len(b))) >= t.bounds.bytes && t.bounds.bytes > 0 {
		t.yield()
	}
}
