package kafka

import (
	"context"
	"slices"
	"sync"
)

// A Budget bounds the bytes in flight, over all clusters of a process. It has four parts, and nobody waits for one while
// others wait for him to give back the same one, so it can't lock up:
//
//	1/2  fetched  by Fetch, until Fetched.Release
//	1/4  sent     in produce requests, until the broker's answer
//	1/8  encoded  by callers: Acquire and Release
//	1/8  read     by Read, until Fetched.Release
//
// Whoever holds fetched bytes may wait for encoded and sent ones, never the other way about; whoever holds read ones waits
// for nothing. Each part is given out in the order of asking.
type Budget struct {
	fetched, sent, encoded, read pool
}

// NewBudget is a budget of so many bytes in all.
func NewBudget(bytes int64) *Budget {
	b := new(Budget)
	b.fetched.init(bytes / 2)
	b.sent.init(bytes / 4)
	b.encoded.init(bytes / 8)
	b.read.init(bytes / 8)
	return b
}

// Acquire waits for n bytes of the part that is for records written anew. One who asks for more than the part has gets it
// alone. It is given back by Release with the same n, before more is asked for.
func (b *Budget) Acquire(ctx context.Context, n int64) error {
	_, err := b.encoded.acquire(ctx, n, n)
	return err
}

// Release gives back what Acquire gave.
func (b *Budget) Release(n int64) { b.encoded.release(b.encoded.clamp(n)) }

// InFlight is the number of bytes given out.
func (b *Budget) InFlight() int64 {
	return b.fetched.used() + b.sent.used() + b.encoded.used() + b.read.used()
}

// pool is one part of a budget.
type pool struct {
	size int64

	mu    sync.Mutex // guards what follows
	free  int64      // below 0 while answers are larger than what was asked for
	queue []*waiter  // first come, first served, so that a large one gets its turn
}

type waiter struct {
	least, most int64
	granted     int64
	ready       chan struct{}
}

func (p *pool) init(size int64) { p.size, p.free = max(size, 1), max(size, 1) }

func (p *pool) clamp(n int64) int64 { return min(n, p.size) }

// acquire waits until least bytes are free and takes up to most.
func (p *pool) acquire(ctx context.Context, least, most int64) (int64, error) {
	w := &waiter{least: p.clamp(least), most: p.clamp(most), ready: make(chan struct{})}
	p.mu.Lock()
	p.queue = append(p.queue, w)
	p.serve()
	p.mu.Unlock()
	select {
	case <-w.ready:
		return w.granted, nil
	case <-ctx.Done():
		p.leave(w)
		return 0, context.Cause(ctx)
	}
}

// serve gives out what is free to those who wait. The lock is held.
func (p *pool) serve() {
	for len(p.queue) > 0 && p.free >= p.queue[0].least {
		w := p.queue[0]
		p.queue = p.queue[1:]
		w.granted = min(w.most, p.free)
		p.free -= w.granted
		close(w.ready)
	}
}

// leave takes a waiter out who no longer wants, though he may just have been served.
func (p *pool) leave(w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.queue, w); i >= 0 {
		p.queue = slices.Delete(p.queue, i, i+1)
	}
	p.free += w.granted
	p.serve()
}

// settle puts the real amount in the place of the granted one. It may be the greater: a broker sends a first batch whole,
// whatever the limit. Then the others wait until the debt is paid.
func (p *pool) settle(granted, real int64) { p.release(granted - real) }

func (p *pool) release(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free += n
	p.serve()
}

func (p *pool) used() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.size - p.free
}
