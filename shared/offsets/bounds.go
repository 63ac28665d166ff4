package offsets

import (
	"context"
	"fmt"
	"math/bits"
	"sync"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/mm2"
)

// A Bound is a record's place on the source and in the copy. Whoever copies in order has landed all that follows it on the source behind
// it in the copy.
type Bound struct{ Source, Target int64 }

// left is what the offset-syncs topic held when it was read last.
type left struct {
	reading sync.Mutex // held by who reads; guards tail
	tail    *kafka.Tail

	mu     sync.Mutex // guards bounds
	bounds map[kafka.TopicPartition]*bounds
}

// Refresh reads the pairs that are new on the topic since the last time, all of them at first. A topic that isn't there has none, nor has a
// flow without offset-syncs.
func (s *Syncs) Refresh(ctx context.Context) error {
	if !s.syncs.Enabled {
		return nil
	}
	l := &s.left
	l.reading.Lock()
	defer l.reading.Unlock()
	defer l.thin()
	if _, err := l.tail.Read(ctx, l.forget, l.add); err != nil {
		return fmt.Errorf("read offset-syncs of %s on %s: %w", s.flow, s.cluster.Alias(), err)
	}
	return nil
}

func (l *left) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bounds = map[kafka.TopicPartition]*bounds{}
}

func (l *left) add(records []kafka.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range records {
		pair, err := mm2.ParseOffsetSync(r.Key, r.Value)
		if err != nil || min(pair.Upstream, pair.Downstream) < 0 || max(pair.Upstream, pair.Downstream) > mostOffset {
			continue
		}
		tp := partitionOf(pair)
		if l.bounds[tp] == nil {
			l.bounds[tp] = &bounds{}
		}
		l.bounds[tp].add(Bound{pair.Upstream, pair.Downstream})
	}
}

func (l *left) thin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.bounds {
		b.thin()
	}
}

// Bounds are what the pairs that Refresh has read say of a partition whose copy ends, complete up to a source offset, at a target offset, in
// ascending order. They are none where one of the pairs lies behind that: they are of another copy.
func (s *Syncs) Bounds(tp kafka.TopicPartition, end Bound) []Bound {
	s.left.mu.Lock()
	defer s.left.mu.Unlock()
	b := s.left.bounds[tp]
	if b == nil || b.newest.Target >= end.Target || b.kept[len(b.kept)-1].Source >= end.Source {
		return nil
	}
	return append([]Bound(nil), b.kept...)
}

// bounds are those of one partition, as the topic tells of them one after the other.
type bounds struct {
	kept   []Bound // ascending
	newest Bound
}

// mostBounds is how many are kept before they are thinned out.
const mostBounds = 512

// add takes the next pair.
//
// What was copied again has its place where it landed first: that holds also where two tasks of MirrorMaker, of which one should have
// ended, have written in turn. A pair that isn't behind the one before it on the target is of another copy: nothing from before counts.
func (b *bounds) add(at Bound) {
	was := b.newest
	b.newest = at
	switch n := len(b.kept); {
	case n > 0 && at == was:
	case n == 0 || at.Target <= was.Target:
		b.kept = append(b.kept[:0], at)
	case at.Source > b.kept[n-1].Source:
		if b.kept = append(b.kept, at); len(b.kept) > mostBounds {
			b.thin()
		}
	}
}

// thin leaves four bounds at most for each power of two that their distance from the newest may have: nobody reads much more again than he
// lags behind, and a few hundred are always enough.
func (b *bounds) thin() {
	last := len(b.kept) - 1
	end, kept := b.kept[last].Source, b.kept[:0]
	for i, at := range b.kept {
		if i == last || step(end-at.Source) != step(end-b.kept[i+1].Source) {
			kept = append(kept, at)
		}
	}
	b.kept = kept
}

// step numbers the quarters of powers of two.
func step(distance int64) int {
	n := bits.Len64(uint64(distance))
	if n < 3 {
		return int(distance)
	}
	return n<<2 | int(distance>>(n-3))&3
}
