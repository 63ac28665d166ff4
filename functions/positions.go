package functions

import (
	"context"
	"time"

	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/offsets"
)

// What a run writes down beside the records, so that positions can be translated: its map, which goes into the cursor and in finished
// chunks to a topic of its own, and offset-syncs for MirrorMaker's own readers. Neither ever holds up the copy.

const (
	keepAgain = 5 * time.Second  // after a write of chunks that failed
	keepEnd   = time.Second      // for a write of chunks when the run ends
	keepLimit = 30 * time.Second // that a cursor waits for its map, where that has become too long for it
	mostJumps = 512              // in the target's offsets that one search for what landed notes; behind them positions are unknown
)

// stretches are source offsets that records have, in ascending order.
type stretches []stretch

type stretch struct{ from, n int64 }

func (s stretches) add(offset, n int64) stretches {
	if last := len(s) - 1; last >= 0 && s[last].from+s[last].n == offset {
		s[last].n += n
		return s
	}
	return append(s, stretch{offset, n})
}

// pairings are source offsets and the target offsets that belong to them.
type pairings []pairing

type pairing struct{ source, target, n int64 }

func (p pairings) add(source, target, n int64) pairings {
	if last := len(p) - 1; last >= 0 && p[last].source+p[last].n == source && p[last].target+p[last].n == target {
		p[last].n += n
		return p
	}
	return append(p, pairing{source, target, n})
}

// of takes the first n records off source: they have landed from a target offset on.
func (p pairings) of(source *stretches, target, n int64) pairings {
	for n > 0 && len(*source) > 0 {
		s := &(*source)[0]
		taken := min(n, s.n)
		p = p.add(s.from, target, taken)
		if s.from, s.n, target, n = s.from+taken, s.n-taken, target+taken, n-taken; s.n == 0 {
			*source = (*source)[1:]
		}
	}
	return p
}

// placed adds what has landed to the map. m.at.Target is behind it then.
func (m *mirror) placed(landed pairings) {
	for _, l := range landed {
		m.track.Copied(l.source, l.target, l.n)
	}
}

// foundNext notes source records that have landed behind those found before.
func (m *mirror) foundNext(offset, n int64) {
	target := m.at.Target
	if last := len(m.found) - 1; last >= 0 {
		target = m.found[last].target + m.found[last].n
	}
	m.found = m.found.add(offset, target, n)
}

// foundThere notes where a source record was found.
func (m *mirror) foundThere(source, landed print) {
	if last := len(m.found) - 1; last >= 0 && m.found[last].target+m.found[last].n != landed.offset {
		m.jumps++
	}
	if m.jumps <= mostJumps {
		m.found = m.found.add(source.offset, landed.offset, 1)
	}
}

func (m *mirror) resumeTrack() {
	var err error
	if m.track, err = offsets.Resume(positionOf(m.at)); err != nil {
		m.log.Warn("the map of positions can't be read; those before here are unknown now", "source offset", m.at.Offset, "error", err)
	}
}

func positionOf(c lease.Cursor) offsets.Cursor {
	return offsets.Cursor{Offset: c.Offset, Target: c.Target, Mapped: c.Mapped, Map: c.Map}
}

// beginTrack begins the map of a partition that nothing was copied of before.
func (m *mirror) beginTrack() {
	m.track, _ = offsets.Resume(offsets.Cursor{})
	if m.at.Offset != 0 || m.at.Target != 0 {
		m.track.Begin(m.at.Offset, m.at.Target)
	}
	m.mapInto()
}

// moveTrack goes on where a decision has led to from a cursor.
func (m *mirror) moveTrack(was lease.Cursor) {
	switch {
	case was.SourceTopicID == "": // whatever is on the target came from somebody else
		m.track.Lose(m.at.Offset, m.at.Target)
	case was.SourceTopicID != m.at.SourceTopicID, was.TargetTopicID != m.at.TargetTopicID:
		m.track.Begin(m.at.Offset, m.at.Target)
	default:
		m.track.Jump(m.at.Offset, m.at.Target)
	}
}

// takeTrack begins the map behind what MirrorMaker has copied, of which the last is there to be compared. Of what lies before that it has left
// a few pairs.
func (m *mirror) takeTrack(copies pairings, source, target int64) {
	begin := pairing{source, target, 0}
	if len(copies) > 0 {
		begin = copies[0]
	}
	m.track.Lose(begin.source, begin.target, m.syncs.Bounds(m.from, offsets.Bound{Source: source, Target: target})...)
	m.placed(copies)
	m.track.Reach(source, target)
}

// mapInto puts the map into the cursor.
func (m *mirror) mapInto() {
	if m.track.PendingBytes() > 2*offsets.MostPending {
		m.giveUp()
	}
	m.at.Map = m.track.Map(m.at.Mapped)
}

// keeping is how the chunks of the map get to their topic.
type keeping struct {
	cancel  context.CancelFunc
	done    chan error       // the outcome of the write under way; nil while there is none
	chunks  []offsets.Sealed // that it writes
	failing time.Time        // since when it fails; zero while it doesn't
	next    time.Time        // not before
	said    bool             // that it fails
	gaveUp  bool             // and said so
}

// keepIfDue writes finished chunks beside the copying.
func (m *mirror) keepIfDue(ctx context.Context, now time.Time) {
	if len(m.keeping.done) > 0 {
		m.awaitKept()
	}
	pending := m.track.Pending()
	if m.keeping.done != nil || len(pending) == 0 || now.Before(m.keeping.next) {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	m.keeping.cancel, m.keeping.done, m.keeping.chunks = cancel, done, pending
	m.keeping.said = m.archive.Failed() // of another partition, most likely
	go func() { done <- m.archive.Write(ctx, m.from, pending) }()
}

// awaitKept ends what keepIfDue began.
func (m *mirror) awaitKept() {
	k := &m.keeping
	if k.done == nil {
		return
	}
	err := <-k.done
	k.cancel()
	k.done = nil
	if err == nil {
		m.track.Saved(k.chunks)
		m.unsaved, m.unshown, k.failing = true, true, time.Time{}
		return
	}
	if k.next = time.Now().Add(keepAgain); k.failing.IsZero() {
		k.failing = time.Now()
	}
	if !k.said {
		k.said = true
		m.log.Warn("the map of positions can't be written; trying again", "topic", m.archive.Topic(), "error", err, "in", keepAgain)
	}
}

// stopKeeping ends it within a time. What could not be written stays in the cursor.
func (m *mirror) stopKeeping(patience time.Duration) {
	if m.keeping.done != nil {
		late := time.AfterFunc(patience, m.keeping.cancel)
		defer late.Stop()
		m.awaitKept()
	}
}

// mapTooLong says that the cursor should wait for chunks to be written, since it would have to carry more of them than it should.
func (m *mirror) mapTooLong(now time.Time) bool {
	if m.track.PendingBytes() <= offsets.MostPending {
		return false
	}
	if m.keeping.failing.IsZero() || now.Sub(m.keeping.failing) < keepLimit {
		return true
	}
	m.giveUp()
	return false
}

// giveUp makes unknown what could not be written: the copy goes on.
func (m *mirror) giveUp() {
	m.stopKeeping(0)
	if m.track.PendingBytes() <= offsets.MostPending {
		return
	}
	if !m.keeping.gaveUp {
		m.keeping.gaveUp = true
		m.log.Warn("the map of positions could not be written for too long: positions in this part are not exact", "topic", m.archive.Topic(),
			"up to source offset", m.at.Offset)
	}
	m.track.GiveUp()
}

// sync tells MirrorMaker's readers where the last record has landed.
func (m *mirror) sync() {
	if source, target, ok := m.track.Last(); ok && source != m.synced {
		m.synced = source
		m.syncs.Add(mm2.OffsetSync{Topic: m.from.Topic, Partition: m.from.Partition, Upstream: source, Downstream: target})
	}
}
