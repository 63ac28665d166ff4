package functions

import (
	"context"
	"sync"
	"time"

	"github.com/kferry/kferry/shared/lease"
)

const (
	// stint is how long a worker measures before it tells.
	stint     = 10 * time.Second
	stintTick = time.Second
	lastWord  = 500 * time.Millisecond // for telling of what was copied before the worker ends
	// fullFrom is from how many partitions on that have more to read the worker, and not they, decides how fast it goes: each has one
	// request under way.
	fullFrom = 4
)

// tempo measures how fast this worker copies, for whoever decides how many workers there are to be. How much it copies would not do: where
// little comes, little is copied, however fast the worker is. So a rate is one only over a time in which a partition always had more to
// read, and no limit held it back.
type tempo struct {
	mu      sync.Mutex // guards what follows
	copied  map[string]lease.Copied
	more    int // partitions that have more to read than the last answer brought
	pressed int // ticks in a row with some
	full    int // likewise with enough of them
}

func newTempo() *tempo { return &tempo{copied: map[string]lease.Copied{}} }

// landed counts what the target has acknowledged.
func (t *tempo) landed(flow string, records, bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.copied[flow]
	t.copied[flow] = lease.Copied{Records: c.Records + records, Bytes: c.Bytes + bytes}
}

// run measures and tells until ctx ends, and tells of the rest then.
func (t *tempo) run(ctx context.Context, tell func(context.Context, lease.Stint)) {
	ticker := time.NewTicker(stintTick)
	defer ticker.Stop()
	for began := time.Now(); ; {
		select {
		case <-ctx.Done():
			if s := t.end(time.Since(began)); len(s.Flows) > 0 {
				last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWord)
				defer cancel()
				tell(last, s)
			}
			return
		case <-ticker.C:
		}
		t.tick()
		if took := time.Since(began); took >= stint {
			if s := t.end(took); len(s.Flows) > 0 {
				tell(ctx, s)
			}
			began = time.Now()
		}
	}
}

func (t *tempo) tick() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.more > 0 {
		t.pressed++
	}
	if t.more >= fullFrom {
		t.full++
	}
}

// end is what was copied since the last end.
func (t *tempo) end(took time.Duration) lease.Stint {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := lease.Stint{Flows: t.copied, Short: took < stint}
	ticks := int(took / stintTick)
	if !s.Short && t.pressed >= ticks {
		bytes := int64(0)
		for _, c := range t.copied {
			bytes += c.Bytes
		}
		s.Rate, s.Full = float64(bytes)/took.Seconds(), t.full >= ticks
	}
	t.copied, t.pressed, t.full = map[string]lease.Copied{}, 0, 0
	return s
}

// A backlog is whether one run's partition has more to read.
type backlog struct {
	of   *tempo
	more bool
}

func (b *backlog) has(more bool) {
	if b.more == more {
		return
	}
	b.more = more
	b.of.mu.Lock()
	defer b.of.mu.Unlock()
	if more {
		b.of.more++
	} else {
		b.of.more--
	}
}
