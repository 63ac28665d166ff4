package functions

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"
)

const (
	// mostCalls are answered at one time; the door has more places, for probes.
	mostCalls = 200
	// callMargin is how much longer than its run an answer may take.
	callMargin = time.Minute
	// beginsWithin is how long a call waits for the worker to begin, which has a look at the queue first.
	beginsWithin = 5 * time.Second
	// lastPart of a call's time begins no run: one that could do nothing any more would have failed.
	lastPart  = 10  // a tenth
	retrySoon = "1" // seconds: a call ends, or another instance is up
)

// Push is a worker that claims when it is called, and not by itself: it holds a lease only while it answers. It is an http.Handler.
//
// A call says that there may be work, and no more. What it is, and who may do it, only the queue says; so a call that is doubled, late or
// forged finds nothing to do, and one that was lost is made up for by the next. Each call has one lease at a time, so the calls under way
// are the partitions that are copied: what an autoscaler that counts requests has to know.
type Push struct {
	worker *Worker
	places chan struct{}
	begun  chan struct{} // closed when Run lets calls in

	mu     sync.Mutex // guards what follows
	start  starter    // nil before begun, and when the worker drains
	claims sync.WaitGroup
}

// NewPush makes a worker one that is called. Its own Run must not be called.
func NewPush(w *Worker) *Push {
	return &Push{worker: w, places: make(chan struct{}, min(w.Slots, mostCalls)), begun: make(chan struct{})}
}

// Run lets calls in until ctx ends, and drains like Worker.Run.
func (p *Push) Run(ctx context.Context) error {
	return p.worker.run(ctx, func(ctx context.Context, start starter) error {
		p.let(start)
		close(p.begun)
		<-ctx.Done()
		p.let(nil)
		p.claims.Wait()
		return nil
	})
}

func (p *Push) let(start starter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.start = start
}

// summary is the answer to a call that found work.
type summary struct {
	Claimed int   `json:"claimed"` // leases, one after the other
	Records int64 `json:"records"`
	Bytes   int64 `json:"bytes"`          // of batches
	Left    *int  `json:"left,omitempty"` // tasks that nobody has claimed; none where the queue does not say
}

// ServeHTTP implements http.Handler.
func (p *Push) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	bound := p.worker.bounded()
	_ = http.NewResponseController(w).SetWriteDeadline(bound.until.Add(overrun + callMargin)) // fails where there is none, which is as good
	if no := checkEvent(r); no != nil {
		http.Error(w, no.why, no.status)
		return
	}
	select {
	case p.places <- struct{}{}:
		defer func() { <-p.places }()
	default:
		w.Header().Set("Retry-After", retrySoon)
		http.Error(w, "every slot is taken", http.StatusTooManyRequests)
		return
	}
	done, err := p.work(r.Context(), bound)
	switch {
	case done.Claimed > 0:
		if left, err := p.worker.Queue.Waiting(r.Context()); err == nil {
			done.Left = &left
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(done) // who has gone does not read it
	case errors.Is(err, errDrain):
		w.Header().Set("Retry-After", retrySoon)
		http.Error(w, "this worker is stopping, or has not begun", http.StatusServiceUnavailable)
	case err != nil:
		p.worker.Logger.Warn("could not claim a lease for a call", "error", err)
		w.Header().Set("Retry-After", retrySoon)
		http.Error(w, "the queue can't be asked", http.StatusServiceUnavailable)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// work does what waits, one lease at a time, until nothing does or the bounds are reached.
func (p *Push) work(ctx context.Context, b bounds) (done summary, err error) {
	left, latest := b, b.until.Add(-time.Until(b.until)/lastPart)
	for wait := claimWait; ctx.Err() == nil && time.Now().Before(latest); wait = 0 {
		t, err := p.claim(ctx, wait, left)
		if t == nil || err != nil {
			return done, err
		}
		select {
		case <-t.ended:
		case <-ctx.Done(): // nobody waits for the answer
			t.yield()
			<-t.ended
		}
		done.Claimed++
		done.Records += t.copied.records.Load()
		done.Bytes += t.copied.bytes.Load()
		if left.bytes = b.bytes - done.Bytes; b.bytes > 0 && left.bytes <= 0 {
			return done, nil
		}
	}
	return done, nil
}

// claim takes one lease and begins its run; nil is that none waits.
func (p *Push) claim(ctx context.Context, wait time.Duration, b bounds) (*tenancy, error) {
	select {
	case <-p.begun:
	case <-ctx.Done():
	case <-time.After(beginsWithin):
	}
	p.mu.Lock()
	start := p.start
	if start != nil {
		p.claims.Add(1)
	}
	p.mu.Unlock()
	if start == nil {
		return nil, errDrain
	}
	defer p.claims.Done()
	leases, err := p.worker.Queue.Claim(context.WithoutCancel(ctx), 1, wait) // and is not broken off, see Worker.claim
	if err != nil || len(leases) == 0 {
		return nil, err
	}
	return start(leases[0], b), nil
}
