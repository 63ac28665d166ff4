package functions

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// How kferry goes on where MirrorMaker 2 has stopped. The offsets topic says what MirrorMaker had committed, the copy's log what it had
// landed since; tail.go compares the two. Nothing is taken over from a MirrorMaker that may still write.

const (
	goneTime                  = 10 * time.Second // a MirrorMaker that was seen to have stopped is taken to have for so long; to start takes it longer
	stillTime                 = time.Second      // a copy's log that nobody writes to doesn't grow for so long
	tailFirst                 = 1 << 12          // records of the copy's end that are looked at first
	tailGrowth                = 4                // and this many times as many as long as that isn't enough
	tailUnsure                = 1 << 16          // at least, where holes keep it from being told that no earlier run got further
	tailMost                  = 1 << 21          // what MirrorMaker copies in a minute at 35,000 records a second in one partition
	tailsAtOnce, fencesAtOnce = 2, 8
)

// takeOver starts kferry's first generation behind what MirrorMaker 2 has landed.
func (m *mirror) takeOver(ctx, soft context.Context) error {
	committed, err := m.predecessors.last(ctx, soft, m)
	if err != nil {
		return err
	}
	end, err := m.still(soft)
	if err != nil {
		return err
	}
	at, copies, err := m.landedBefore(soft, committed, end)
	if err != nil {
		return err
	}
	if err := m.unmoved(soft, end); err != nil {
		return err
	}
	exactly := m.at.ExactlyOnce
	m.at = m.facts.cursor(m.flow)
	m.at.Offset, m.at.SourceEpoch, m.at.Target, m.at.Mapped = at.offset, at.epoch, end, at.offset != end
	m.takeTrack(copies, at.offset, end)
	if err := m.assume(); err != nil {
		return err
	}
	m.at.ExactlyOnce = exactly
	if err := m.nextGeneration(ctx, soft); err != nil {
		return err
	}
	m.published, m.unshown, m.certain = time.Now(), false, true
	m.log.Info("goes on where MirrorMaker 2 has stopped", "committed", committed, "uncommitted", at.offset-committed, "target", end)
	return nil
}

// succeed goes on where MirrorMaker has stopped, if the hold that ended a run comes from a cursor of before MirrorMaker's: it ran while
// kferry did not, and no coordinator has loaded what it left.
func (m *mirror) succeed(ctx, soft context.Context, end error) error {
	held, is := errors.AsType[*holdError](end)
	if !is || m.at.Foreign || held.Reason == m.at.Hold.Reason || held.Reason == lease.ReasonFormat || soft.Err() != nil {
		return end
	}
	left, is, err := m.cursors.Left(soft, m.from.Topic, m.from.Partition)
	if err != nil {
		return fmt.Errorf("what MirrorMaker 2 has left is not known: %w; %v", err, end) // %v: nothing is written over it
	}
	if !is {
		return m.beside(soft, held)
	}
	m.log.Info("MirrorMaker 2 has written the position since this kferry did", "reason", held.Reason, "detail", held.Detail)
	m.at = left
	m.resumeTrack()
	if err := m.commit(ctx); err != nil {
		return err
	}
	if m.facts, err = m.identify(soft, false); err != nil {
		return err
	}
	if err := m.takeOver(ctx, soft); err != nil {
		return err
	}
	return m.copyOn(ctx, soft)
}

// beside says of a writer that kferry doesn't know whether it is a MirrorMaker that runs and has not committed yet. Nothing is written
// meanwhile: what it commits is to be found. Who may not ask for its workers doesn't learn more than before.
func (m *mirror) beside(soft context.Context, held *holdError) error {
	if held.Reason != lease.ReasonForeignWriter {
		return held
	}
	members, err := m.target.Members(soft, m.flow.ConnectGroup)
	if err != nil || members == 0 {
		return held
	}
	return m.workersRun(members)
}

// workersRun is the hold of a MirrorMaker whose workers are members of their group.
func (m *mirror) workersRun(members int) error {
	return m.runs("group %s on %s has %d members (workers of Kafka Connect); stop them. One that was killed is a member for ten more seconds", m.flow.ConnectGroup, m.flow.Target, members)
}

// runs is the hold of a MirrorMaker that has not stopped.
func (m *mirror) runs(format string, args ...any) error {
	return hold(lease.ReasonMirrorMaker, "MirrorMaker 2 still runs: "+format, args...)
}

// still returns the end of the copy's log when nobody writes to it, and no transaction is open there.
func (m *mirror) still(soft context.Context) (int64, error) {
	m.at.Target = -1 // so that no end is taken for a known one
	end, err := m.settledEnd(soft)
	m.at.Target = 0
	if err != nil {
		return 0, err
	}
	select {
	case <-soft.Done():
		return 0, errDrain
	case <-m.yield:
		return 0, errYield
	case <-time.After(stillTime):
	}
	if err := m.unmoved(soft, end); err != nil {
		return 0, err
	}
	stable, err := offsetAt(soft, m.target, m.to, kafka.Latest, spec.ReadCommitted)
	if err != nil {
		return 0, err
	}
	if stable < end {
		return 0, m.runs("a transaction is open on %s since offset %d; it ends by itself when its time is up, one minute by default", m.to, stable)
	}
	return end, nil
}

// unmoved holds where the copy's log has grown.
func (m *mirror) unmoved(soft context.Context, end int64) error {
	again, err := m.target.LogEnd(soft, m.to)
	switch {
	case err != nil:
		return fmt.Errorf("read log end of %s: %w", m.to, permanent(err))
	case again.Offset != end:
		return m.runs("%s has just grown from %d to %d; stop whatever writes to it", m.to, end, again.Offset)
	}
	return nil
}

// landedBefore is the source's place behind what MirrorMaker has landed before an end of the copy, given the next offset by its own account,
// and where the last of that is.
func (m *mirror) landedBefore(soft context.Context, committed, end int64) (place, pairings, error) {
	target, err := m.target.LogStart(soft, m.to)
	if err != nil {
		return place{}, nil, fmt.Errorf("read log start of %s: %w", m.to, err)
	}
	source, err := m.source.LogStart(soft, m.from)
	if err != nil {
		return place{}, nil, fmt.Errorf("read log start of %s: %w", m.from, err)
	}
	sourceEnd, err := m.source.HighWatermark(soft, m.from)
	if err != nil {
		return place{}, nil, fmt.Errorf("read high watermark of %s: %w", m.from, err)
	}
	had := fmt.Sprintf("MirrorMaker 2 had committed offset %d of %s", committed-1, m.from)
	if committed == 0 {
		had = fmt.Sprintf("MirrorMaker 2 had committed no offset of %s yet", m.from)
	}
	switch {
	case committed > sourceEnd.Offset:
		return place{}, nil, hold(lease.ReasonNoCursor, "%s, which ends at %d: the source topic was deleted and created again, or has lost records", had, sourceEnd.Offset)
	case end == 0 && committed > 0:
		return place{}, nil, hold(lease.ReasonNoCursor, "%s, and nothing has ever been written to %s: the copy was deleted and created again, or somebody set that position by hand", had, m.to)
	case target.Offset >= end: // nothing that landed is there any more, if anything ever was
		return place{committed, -1}, nil, nil
	}
	if err := m.predecessors.enter(soft, m.yield); err != nil {
		return place{}, nil, err
	}
	defer m.predecessors.leave()
	isolation := m.at.Isolation
	m.at.Isolation = string(spec.ReadUncommitted) // which MirrorMaker reads by default
	defer func() { m.at.Isolation = isolation }()
	for n := int64(tailFirst); ; n = min(n*tailGrowth, tailMost) {
		from := max(target.Offset, end-n)
		whole := from == target.Offset || n >= tailMost
		found, trace, landed, err := m.alignTail(soft, reach{source.Offset, sourceEnd.Offset}, committed, reach{from, end}, int(n), from == target.Offset && from > 0)
		further := false
		if err == nil && !whole {
			further, err = m.doubledBefore(soft, found, trace, reach{max(target.Offset, end-tailMost), end}, from, source.Offset)
		}
		switch {
		case err != nil:
			return place{}, nil, err
		case !whole && (further || !found.begins):
		case found.matched == 0 && (source.Offset < committed || committed == 0): // else the source has lost what it could be
			return place{}, nil, hold(lease.ReasonNoCursor, "%s, but none of the last %d records of %s is one of the source's around there", had, end-from, m.to)
		case whole && !found.begins && from > target.Offset:
			return place{}, nil, hold(lease.ReasonNoCursor, "%s, and copied more than %d records since, which is more than kferry compares", had, tailMost)
		default:
			at, err := m.placeOf(found, trace, committed, had)
			return at, lastCopies(trace, trace.before(at.offset), landed, trace.skips || m.facts.compacted || m.facts.target.compacted()), err
		}
	}
}

// doubledBefore says whether MirrorMaker has copied something twice in a reach of the copy before the stretch of it that was looked at, from
// an offset on: a run of it may have got further there than the one that stopped last. Where neither log has holes, offsets tell: they
// keep their distance, which is looked at further and further back. Where they have, nothing is known, and a longer stretch has to do.
func (m *mirror) doubledBefore(soft context.Context, found landing, source *trace, of reach, from, sourceStart int64) (bool, error) {
	if source.skips || len(source.runs) != 1 || !found.dense || found.matched == 0 {
		return of.end-from < tailUnsure, nil
	}
	distance := source.behind(found.firstSource).offset - 1 - (from + int64(found.firstLanded))
	start := max(of.from, sourceStart-distance) // before that the source has lost what it could be compared with
	for back := tailGrowth * (of.end - from); from > start; back *= tailGrowth {
		before := max(start, of.end-back)
		p, one := m.printer(), &trace{}
		landed, err := m.landedTail(soft, p, reach{before, before + 1})
		if err == nil {
			_, err = m.trace(soft, p, one, place{before + distance, -1})
		}
		switch {
		case err != nil:
			return false, err
		case len(landed.prints) == 0 || len(one.prints) == 0 || one.prints[0] != landed.prints[0]:
			return true, nil
		}
		from = before
	}
	return false, nil
}

// placeOf is the place behind what has landed, where that is sure.
func (m *mirror) placeOf(found landing, source *trace, committed int64, had string) (place, error) {
	at := place{committed, -1}
	if found.last >= 0 && found.last < len(source.prints) {
		if behind := source.behind(found.last); behind.offset >= committed {
			at = behind
		}
	}
	switch {
	case found.sure():
		return at, nil
	case m.facts.compacted: // which bears a repetition, but not a loss
		m.admit(repeated)
		return at, nil
	}
	most := source.behind(found.most).offset
	return at, hold(lease.ReasonNoCursor, "%s, and copied more since: those up to %d are on the target, and those up to %d may be, since records there are alike; "+
		"--from %d copies up to %d records again, --from %d may leave as many out", had, at.offset-1, most-1, at.offset, most-at.offset, most)
}

// A reach is a part of a log: from an offset up to, and without, another.
type reach struct{ from, end int64 }

// alignTail looks the records of a stretch of the copy up in one of the source's log: in as many committed ones, and in as many behind as can
// have landed. cut says that the copy has lost what lay before the stretch.
func (m *mirror) alignTail(soft context.Context, log reach, committed int64, copied reach, most int, cut bool) (found landing, source, landed *trace, err error) {
	p := m.printer()
	before := 0
	for back := int64(most); ; back *= 2 { // so many records before the committed one, where there are holes as well
		from := max(log.from, committed-back)
		source, before = &trace{whole: from == 0}, 0
		for at := (place{from, -1}); at.offset < log.end && len(source.prints)-before <= most; {
			next, err := m.trace(soft, p, source, at)
			if err != nil {
				return landing{}, nil, nil, err
			}
			if before = source.before(committed); next == at {
				break
			}
			at = next
		}
		if int64(before) >= min(int64(most), copied.end-copied.from) || from == log.from {
			break
		}
	}
	if landed, err = m.landedTail(soft, p, copied); err != nil {
		return landing{}, nil, nil, err
	}
	found = align(source, before, landed.prints, !m.facts.compacted && !m.facts.target.compacted(), cut)
	found.dense = int64(len(landed.prints)) == copied.end-copied.from
	return found, source, landed, nil
}

// trace adds one piece of the source.
func (m *mirror) trace(soft context.Context, p *printer, to *trace, at place) (place, error) {
	seen, err := m.look(soft, at)
	if err != nil {
		return at, err
	}
	defer seen.Release()
	for _, b := range seen.data {
		to.skips = to.skips || b.Transactional()
		for r, err := range b.Each(maxInflated) {
			if err != nil {
				return at, hold(lease.ReasonCorruptBatch, "%s: batch at offset %d: %v", m.from, b.BaseOffset(), err)
			}
			if r.Offset >= at.offset {
				to.add(p.print(r).whole[0], r.Offset, b.LeaderEpoch())
			}
		}
	}
	if seen.wrong != nil && seen.next == at.offset {
		return at, m.unreadable(seen.sight)
	}
	return place{seen.next, seen.epoch}, nil
}

// landedTail are the copy's records in a stretch, without those of transactions that came to nothing.
func (m *mirror) landedTail(soft context.Context, p *printer, of reach) (*trace, error) {
	landed := &trace{}
	for next := of.from; next < of.end; {
		select {
		case <-m.yield:
			return nil, errYield
		default:
		}
		before := next
		piece, err := m.target.Read(soft, m.to, next, readBackBytes, spec.ReadCommitted)
		if err != nil {
			return nil, fmt.Errorf("read back %s at %d: %w", m.to, next, err)
		}
		seen := visible(piece, next, -1, spec.ReadCommitted)
		err = seen.wrong
		for _, b := range seen.data {
			if b.BaseOffset() >= of.end || err != nil {
				break
			}
			for r, wrong := range b.Each(maxInflated) {
				if err = wrong; err != nil {
					break
				}
				if r.Offset >= before {
					landed.add(p.print(r).whole[0], r.Offset, -1)
				}
			}
		}
		piece.Release()
		if next = seen.next; err == nil && next == before {
			err = fmt.Errorf("nothing there, though the log ends at %d", of.end)
		}
		if err != nil {
			return nil, fmt.Errorf("read back %s at %d: %w", m.to, before, err)
		}
	}
	return landed, nil
}

// compacted says that records of the topic may go though later ones stay, or that nobody knows.
func (t topicFacts) compacted() bool {
	policy, known := t.configs["cleanup.policy"]
	return !known || strings.Contains(policy, "compact")
}

// predecessors are the MirrorMakers whose flows a worker takes over.
type predecessors struct {
	flight singleflight.Group
	tails  chan struct{} // holds a token for each tail that is looked at: their prints are many

	mu    sync.Mutex // guards known
	known map[string]predecessor
}

// A predecessor is a MirrorMaker that has stopped.
type predecessor struct {
	cursors map[kafka.TopicPartition]lease.Cursor // what it has left on the offsets topic
	at      time.Time
}

func newPredecessors() *predecessors {
	return &predecessors{tails: make(chan struct{}, tailsAtOnce), known: map[string]predecessor{}}
}

func (p *predecessors) enter(soft context.Context, yield <-chan struct{}) error {
	select {
	case p.tails <- struct{}{}:
		return nil
	case <-soft.Done():
		return errDrain
	case <-yield:
		return errYield
	}
}

func (p *predecessors) leave() { <-p.tails }

// last is the next source offset of m's partition as MirrorMaker left it, once it has stopped. The queue's copy of that may be from
// before.
func (p *predecessors) last(ctx, soft context.Context, m *mirror) (int64, error) {
	left, err := p.stopped(soft, m)
	if err != nil {
		return 0, err
	}
	cursor, known := left.cursors[m.from]
	switch {
	case !known:
		return 0, fmt.Errorf("%s has no position of %s any more", m.flow.OffsetsTopic, m.from)
	case !cursor.Foreign:
		m.at = cursor // somebody has taken it over, and if the queue doesn't know by now it never would
		m.resumeTrack()
		if err := m.commit(ctx); err != nil {
			return 0, err
		}
		return 0, fmt.Errorf("%s was taken over already: going on from there", m.from)
	}
	return cursor.Offset, nil
}

// stopped waits for nobody: it holds where MirrorMaker still runs. One look serves all partitions of a flow.
func (p *predecessors) stopped(soft context.Context, m *mirror) (predecessor, error) {
	flow := m.flow.Name()
	p.mu.Lock()
	known := p.known[flow]
	p.mu.Unlock()
	if time.Since(known.at) < goneTime {
		return known, nil
	}
	found, err, _ := p.flight.Do(flow, func() (any, error) {
		left, err := settle(soft, m)
		if err == nil {
			p.mu.Lock()
			p.known[flow] = left
			p.mu.Unlock()
		}
		return left, err
	})
	return found.(predecessor), err
}

// settle sees that MirrorMaker has stopped, ends what it has begun, and reads what it has left: pairs of offsets and positions.
func settle(soft context.Context, m *mirror) (left predecessor, err error) {
	_ = m.syncs.Refresh(soft) // which may take long the first time, and counts below
	group := m.flow.ConnectGroup
	members, err := m.target.Members(soft, group)
	switch {
	case errors.Is(err, kafka.ErrGroupAuthorization):
		return left, hold(lease.ReasonAuthorization, "%v: without the right to describe it nobody can tell whether MirrorMaker 2 has stopped", err)
	case err != nil:
		return left, permanent(err)
	case members > 0:
		return left, m.workersRun(members)
	}
	if err := fence(soft, m.target, group+"-"+m.flow.Connector+"-"); err != nil {
		return left, err
	}
	left.at = time.Now()
	if left.cursors, err = lease.ReadCursors(soft, m.flow, m.target); err == nil {
		err = m.readPairs(soft)
	}
	return left, err
}

// readPairs reads MirrorMaker's offset-syncs as far as they are new. Without the right to they are left out: only positions need them.
func (m *mirror) readPairs(soft context.Context) error {
	err := m.syncs.Refresh(soft)
	if err == nil || kafka.Retriable(err) || soft.Err() != nil {
		return err
	}
	m.log.Warn("MirrorMaker 2's offset-syncs can't be read; positions in what it copied will be less exact", "error", err)
	return nil
}

// fence ends the transactions of a connector's tasks (KIP-618), whose transactional ids are a prefix and the task's number: what they
// have landed is either committed together with the position that goes with it, or as if it had never been.
func fence(soft context.Context, target *kafka.Cluster, prefix string) error {
	ids, err := target.TransactionalIDs(soft, prefix)
	if errors.Is(err, kafka.ErrUnsupportedVersion) { // before Kafka 3.0; what is open then ends when its time is up
		return nil
	}
	if err != nil {
		return permanent(err)
	}
	var fences errgroup.Group
	fences.SetLimit(fencesAtOnce)
	for _, id := range ids {
		if strings.Trim(strings.TrimPrefix(id, prefix), "0123456789") == "" {
			fences.Go(func() error { return target.Fence(soft, id) })
		}
	}
	if err := fences.Wait(); errors.Is(err, kafka.ErrTransactionalIDAuth) {
		return hold(lease.ReasonAuthorization, "%v: without that right a transaction of MirrorMaker 2 can't be ended", err)
	} else if err != nil {
		return permanent(err)
	}
	return nil
}
