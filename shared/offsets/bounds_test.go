package offsets_test

import (
	"log/slog"
	"math/rand/v2"
	"testing"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/offsets"
)

// A maker copies as MirrorMaker does, and notes pairs as it does.
type maker struct {
	*rand.Rand
	partition int32
	holes     bool
	copied    []int64 // the copy: source offsets
	pairs     []mm2.OffsetSync
	reached   int64 // behind the furthest source offset
	again     bool  // something was copied more than once, or is gone
}

const lagMax = 7

// A task is one of MirrorMaker's that copies from a source offset on.
type task struct{ next, last, landed, synced int64 }

func (m *maker) task(from int64) *task { return &task{next: from, last: -2, landed: -1, synced: -1} }

func (m *maker) copies(t *task, n int) {
	for range n {
		if t.next%5 == 3 && m.holes {
			t.next++
		}
		at := int64(len(m.copied))
		if t.last+1 != t.next || t.synced < 0 || at > t.synced+lagMax || at < t.landed {
			t.synced = at
			m.pairs = append(m.pairs, mm2.OffsetSync{Topic: "orders", Partition: m.partition, Upstream: t.next, Downstream: at})
		}
		m.copied = append(m.copied, t.next)
		m.again = m.again || t.next < m.reached
		t.last, t.landed, t.next = t.next, at, t.next+1
		m.reached = max(m.reached, t.next)
	}
}

func (m *maker) runs() {
	t := m.task(0)
	for range 1 + m.IntN(12) {
		m.copies(t, m.IntN(60))
		switch m.IntN(12) {
		case 0: // killed: it begins again at its last commit
			t = m.task(m.Int64N(m.reached + 1))
		case 1: // one that should have ended writes in turn with the next
			next := m.task(m.Int64N(m.reached + 1))
			for range m.IntN(5) {
				m.copies(t, m.IntN(10))
				m.copies(next, m.IntN(10))
			}
			t = next
			m.again = true
		case 2: // somebody deletes the copy, and MirrorMaker goes on where it was
			if len(m.copied) > 1 { // or it doesn't notice
				m.copied, m.again = nil, true
			}
			m.copies(t, 1)
		}
	}
	for t.next < m.reached {
		m.copies(t, 1)
	}
}

// Whatever MirrorMaker did: its pairs lead nobody past a record, and where it did nothing twice nobody reads much more than he lags behind.
func TestMirrorMakersPairsAreBounds(t *testing.T) {
	inWorld(t, func(w *world) {
		s := offsets.NewSyncs(w.flow, w.source, w.target, slog.New(slog.DiscardHandler))
		w.must(s.Refresh(w.Context())) // there is no topic yet
		const worlds = 1000
		known, sharp := 0, 0
		var makers []*maker
		var pairs []mm2.OffsetSync
		for seed := range uint64(worlds) {
			random := rand.New(rand.NewPCG(seed, 5))
			m := &maker{Rand: random, partition: int32(seed), holes: seed%2 == 0}
			m.runs()
			makers = append(makers, m)
			half := len(m.pairs) / 2
			w.must(s.Write(w.Context(), m.pairs[:half]))
			pairs = append(pairs, m.pairs[half:]...)
		}
		w.must(s.Refresh(w.Context()))
		w.must(s.Write(w.Context(), pairs))
		w.must(s.Refresh(w.Context())) // what is new
		for _, m := range makers {
			if len(m.pairs) == 0 {
				continue
			}
			tp := kafka.TopicPartition{Topic: "orders", Partition: m.partition}
			end := offsets.Bound{Source: m.reached, Target: int64(len(m.copied))}
			track, _ := offsets.Resume(offsets.Cursor{})
			bounds := s.Bounds(tp, end)
			track.Lose(end.Source, end.Target, bounds...)
			c := offsets.Cursor{Offset: end.Source, Target: end.Target, Mapped: true, Map: track.Map(true)}
			if _, err := offsets.Resume(c); err != nil {
				w.Fatal(err)
			}
			maps := offsets.Open(w.flow, nil)
			last := map[int64]int{} // where each record is for the last time
			for at, r := range m.copied {
				last[r] = at
			}
			for u := range m.reached {
				got := maps.Translate(tp, c, u)
				if got.Exact || got.Why != offsets.Unmapped {
					w.Fatalf("seed %d: %d is translated to %+v", m.partition, u, got)
				}
				most := int64(len(m.copied))
				for r, at := range last {
					if r >= u {
						most = min(most, int64(at))
					}
				}
				if got.Target > most {
					w.Fatalf("seed %d: %d is translated to %+v, which passes over the record at %d", m.partition, u, got, most)
				}
				if got.Target > 0 {
					known++
				}
				if again := most - got.Target; !m.again && again > (m.reached-u)*6/10+2*lagMax {
					w.Fatalf("seed %d: who is at %d of %d reads %d again, with the bounds %v", m.partition, u, m.reached, again, bounds)
				}
				if most-got.Target <= lagMax+1 {
					sharp++
				}
			}
			if got := maps.Translate(tp, c, end.Source); !got.Exact || got.Target != end.Target {
				w.Fatalf("seed %d: the end is translated to %+v", m.partition, got)
			}
			if s.Bounds(tp, offsets.Bound{Source: end.Source, Target: m.pairs[len(m.pairs)-1].Downstream}) != nil {
				w.Fatalf("seed %d: bounds of a copy that lies before them", m.partition)
			}
		}
		if known == 0 || sharp == 0 {
			w.Error("nothing is known")
		}
		w.Logf("known %d, within %d records %d", known, lagMax+1, sharp)
	})
}
