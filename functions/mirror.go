package functions

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/kferry/kferry/shared/batch"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/offsets"
	"github.com/kferry/kferry/shared/spec"
)

const (
	silence        = 5 * time.Second  // a partition without news for so long is given back
	commitEvery    = time.Second      // cursor to JetStream's KV, which fences
	publishEvery   = 30 * time.Second // cursor to the offsets topic, which survives
	maxUncertain   = 5                // produce answers in a row that brought nothing forward before the run fails
	firstTryPeriod = 50 * time.Millisecond
)

// mirror copies one partition under one lease. It is used by one goroutine.
//
// The invariant that everything rests on: m.at says which source offset belongs to which target offset and sequence, and was true
// of the target's log when it was set. Nothing is sent before m.at is known to be the end of that log (position.go), and m.at moves
// only when the target has acknowledged.
type mirror struct {
	flow           spec.Flow
	source, target *kafka.Cluster
	lease          *lease.Lease
	cursors        *lease.Cursors
	topics         *topicCache
	predecessors   *predecessors
	budget         *kafka.Budget
	pacer          *pacer
	log            *slog.Logger
	count          *counters

	from, to kafka.TopicPartition
	facts    facts // what is known of both topics, see facts.go
	identity batch.Identity
	encoder  batch.Encoder

	track   *offsets.Track // which offsets belong together, see positions.go
	keeping keeping
	found   pairings // where the records are that locate has found
	jumps   int      // in their target offsets
	synced  int64    // source offset of the last offset-sync; -1: none yet

	pace *pace // set while it copies, see pace.go

	splitBytes int // most that a batch of several records may have, since the target refused a larger one; 0: what it says it takes

	at        lease.Cursor // see the invariant
	revision  uint64       // of the KV entry that at was last committed as
	committed time.Time
	published time.Time
	certain   bool       // the invariant holds: no request of this run may still land
	unsaved   bool       // at has moved since the last commit
	unshown   bool       // at has moved since it was last written to the offsets topic
	showing   chan error // the outcome of writing it there; nil while nobody does
	denied    error      // the right to write there is gone

	archive *offsets.Archive
	syncs   *offsets.Syncs

	heard     bool                                       // the source has answered a fetch of this run
	until     time.Time                                  // when the run's time is used up; zero is never
	yield     <-chan struct{}                            // closed when that is so, or the worker wants this lease back
	recovered func()                                     // tells that the task goes on; does so once
	lastState func(context.Context) (lease.State, error) // how the task ended last, where it failed
}

// run is a record's whole life: claimed, read, patched, written, accounted for. It returns nil when the partition is caught up and
// silent, errYield or errDrain when it was asked to stop, a holdError when someone has to do something, lease.ErrLost when another
// worker has taken over, and anything else to be tried again later.
//
// soft ends when the worker drains: no more is read or sent. ctx outlives it, so that what was sent is accounted for.
func (m *mirror) run(ctx, soft context.Context) error {
	err := m.open(ctx, soft)
	if errors.Is(err, errYield) && m.over() {
		err = errNoTime
	}
	if err == nil {
		err = m.showAgain(ctx)
	}
	if err == nil {
		err = m.copyOn(ctx, soft)
	}
	err = drained(soft, m.overrule(ctx, soft, m.succeed(ctx, soft, err)))
	m.awaitShown()
	m.stopKeeping(keepEnd)
	if errors.Is(err, lease.ErrLost) {
		return err // whoever fenced us off owns the cursor now
	}
	return errors.Join(err, m.close(ctx, err))
}

// over says whether the run's time is used up.
func (m *mirror) over() bool { return !m.until.IsZero() && !time.Now().Before(m.until) }

// open finds out what is to be copied and from where: the topics' identities, the cursor, and the position in the target's log.
func (m *mirror) open(ctx, soft context.Context) error {
	cursor, revision, err := m.cursors.Get(soft, m.from.Topic, m.from.Partition)
	fresh := errors.Is(err, lease.ErrNoCursor)
	if errors.Is(err, lease.ErrVersion) {
		return hold(lease.ReasonFormat, "%v", err) // and m.revision stays 0, so that nothing overwrites it
	}
	if err != nil && !fresh {
		return fmt.Errorf("read cursor of %s: %w", m.from, err)
	}
	m.at, m.revision = cursor, revision
	m.resumeTrack()
	m.published = time.Now() // m.committed stays zero: the first move fences an earlier holder off
	if cursor.Hold.Reason.Decide() {
		return m.decided(ctx, soft)
	}
	if m.facts, err = m.identify(soft, fresh); err != nil {
		return err
	}
	m.facts.compacted = m.facts.compacted || m.at.Running // the policy may have changed since, and what it took is gone
	if fresh {
		return m.begin(ctx, soft)
	}
	if cursor.Foreign {
		return m.takeOver(ctx, soft)
	}
	if err := m.recognise(cursor); err != nil {
		return err
	}
	if err := m.assume(); err != nil {
		return err
	}
	m.admit(m.doubt())
	if err := m.locate(ctx, soft); err != nil {
		return err
	}
	if err := m.renew(ctx, soft); err != nil {
		return err
	}
	m.certain = true
	return nil
}

// showAgain sees that the cursor can be written to the target, where the last run ended for want of a right: else the next one would copy
// for a while, as if all were well, before it finds out again.
func (m *mirror) showAgain(ctx context.Context) error {
	last, err := m.lastState(ctx)
	if err != nil || last.Reason != lease.ReasonAuthorization {
		return err
	}
	if err = m.publish(ctx); kafka.Denied(err) {
		return m.noRightToShow(err)
	}
	return err
}

// admit notes why the copy is not exactly once. That stays once records have landed under it, whatever is found later.
func (m *mirror) admit(why string) {
	if why != m.at.ExactlyOnce && (why != "" || m.at.Sequence == 0 && m.at.ExactlyOnce != repeated) {
		m.at.ExactlyOnce = why
		m.unsaved, m.unshown = true, true
	}
}

// copyOn copies until the run ends, and finds the position again each time an answer leaves it unknown.
func (m *mirror) copyOn(ctx, soft context.Context) error {
	var err error
	if m.pace, err = m.pacer.enter(soft, m.from.Topic); err != nil {
		return err
	}
	defer m.pace.leave()
	defer m.count.backlog.has(false)
	known, size, uncertain := m.at.Sequence, m.splitBytes, 0
	var stuck error // of the last request, where it was not acknowledged
	for {
		err := m.copy(ctx, soft)
		unknown, is := errors.AsType[*unknownError](err)
		if errors.Is(err, errYield) && stuck != nil && m.at.Sequence == known {
			return stuck // whoever goes on would fare alike, and nobody would hear of it
		}
		if !is {
			return err
		}
		stuck = err
		if m.at.Sequence != known || m.splitBytes != size {
			known, size, uncertain = m.at.Sequence, m.splitBytes, 0
		}
		m.certain = !unknown.mayLand()
		if uncertain++; uncertain > maxUncertain {
			return unknown.verdict()
		}
		m.log.Debug("position unknown", "cause", unknown)
		if err := m.pause(soft, uncertain); err != nil {
			return err
		}
		if err := m.locateAfter(ctx, soft, unknown); err != nil {
			return err
		}
		m.certain = true
	}
}

// copy reads ahead by one piece while it writes the last one.
func (m *mirror) copy(ctx, soft context.Context) error {
	ahead := m.fetch(soft, m.at.Offset, m.at.SourceEpoch)
	defer func() { ahead.drop() }()
	news := time.Now()
	for {
		piece, err := m.await(ctx, soft, ahead)
		if err != nil {
			return err
		}
		news = news.Add(ahead.paced) // which is no silence
		before, end := m.at.Offset, m.end(piece)
		seen := visible(piece, before, m.at.SourceEpoch, m.flow.Isolation)
		if seen.next == before && seen.wrong == nil && len(piece.Records) > 0 { // a broker sends the first batch whole, or this would go on for ever
			piece.Release()
			return fmt.Errorf("%s answers without a whole batch at offset %d of %s", m.flow.Source, before, m.from)
		}
		if err := m.within(soft, seen, piece); err != nil {
			piece.Release()
			return err
		}
		m.count.read(len(piece.Records), seen.data)
		m.count.backlog.has(seen.next < end && ahead.paced == 0)
		if seen.wrong == nil {
			ahead = m.fetch(soft, seen.next, seen.epoch)
		}
		err = m.send(ctx, soft, seen)
		piece.Release()
		if err != nil {
			return err
		}
		if seen.wrong != nil {
			return m.unreadable(seen)
		}
		switch {
		case m.lease.Task.Brief && m.at.Offset >= end:
			return nil
		case seen.next > before:
			news = time.Now()
		case time.Since(news) >= silence:
			return nil
		}
	}
}

// within refuses what lies behind the source's end: a batch's checksum leaves out its offset, and whoever believed one that is far too great would
// pass over all that comes before. What an answer says of the end may be older than its records, so the source is asked again.
func (m *mirror) within(soft context.Context, seen sight, piece *kafka.Fetched) error {
	if seen.next <= piece.HighWatermark {
		return nil
	}
	end, err := m.source.HighWatermark(soft, m.from)
	if err != nil {
		return fmt.Errorf("read high watermark of %s: %w", m.from, permanent(err))
	}
	if seen.next > end.Offset {
		return fmt.Errorf("%s answers with records of %s up to offset %d, and ends at %d", m.flow.Source, m.from, seen.next-1, end.Offset)
	}
	return nil
}

// end is where the source ended, as the flow sees it, when it sent a piece.
func (m *mirror) end(piece *kafka.Fetched) int64 {
	if m.flow.Isolation == spec.ReadCommitted {
		return piece.LastStable
	}
	return piece.HighWatermark
}

// send writes what was seen to the target, one produce request in flight, and moves at behind it.
func (m *mirror) send(ctx, soft context.Context, seen sight) error {
	for data := seen.data; len(data) > 0; {
		rest, err := m.sendNext(ctx, soft, data)
		if err != nil {
			return err
		}
		data = rest
		if err := m.commitIfDue(ctx); err != nil {
			return err
		}
		select {
		case <-m.yield: // a piece may be long
			return errYield
		default:
		}
	}
	m.examined(seen.next, seen.epoch)
	return m.commitIfDue(ctx)
}

// sendNext writes the first unit of data and returns the rest.
func (m *mirror) sendNext(ctx, soft context.Context, data []batch.Batch) (rest []batch.Batch, err error) {
	if anew := m.toEncode(data); anew > 0 {
		if err := m.budget.Acquire(soft, anew); err != nil {
			return nil, errDrain
		}
		defer m.budget.Release(anew)
	}
	u, rest, wrong := m.cut(data)
	if len(u.batches) > 0 {
		if err := m.sendUnit(ctx, soft, u); err != nil {
			return nil, err
		}
	}
	if wrong != nil {
		return nil, m.unencodable(wrong)
	}
	return rest, nil
}

// sendUnit writes one unit's batches one after the other. at moves when all have landed: should one fail, the position says how
// many records of the unit did.
func (m *mirror) sendUnit(ctx, soft context.Context, u unit) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	target, sequence := m.at.Target, m.at.Sequence
	var landed pairings
	for _, b := range u.batches {
		if soft.Err() != nil {
			return errDrain
		}
		b.Patch(m.identity, m.tag(sequence))
		answer, err := m.produce(ctx, b)
		if err != nil {
			return m.refused(err, b)
		}
		if answer.BaseOffset != target {
			if err := m.explain(soft, answer.BaseOffset, target, b); err != nil {
				return err
			}
		}
		m.facts.stamps = m.facts.stamps && answer.LogAppendTime >= 0 // somebody may set the topic to CreateTime at any time
		landed = landed.of(&u.source, answer.BaseOffset, int64(b.Records()))
		target = answer.BaseOffset + int64(b.Records())
		sequence = advance(sequence, int64(b.Records()))
		m.count.landed(b, u.reason)
	}
	first := m.at.Sequence == 0
	m.at.Target, m.at.Sequence, m.at.Timestamp = target, sequence, max(m.at.Timestamp, u.newest)
	m.placed(landed)
	m.examined(u.next, u.epoch)
	if first {
		return m.attest(ctx, soft)
	}
	return nil
}

// enter notes that a run is under way where its successor has to know that it may not have ended.
func (m *mirror) enter(ctx context.Context) error {
	if !m.facts.compacted || m.at.Running {
		return nil
	}
	m.at.Running = true
	if err := m.commit(ctx); err != nil {
		return err
	}
	return m.publish(ctx)
}

// leave notes that nothing of the run may still land.
func (m *mirror) leave() {
	if m.at.Running && m.certain {
		m.at.Running = false
		m.unsaved, m.unshown = true, true
	}
}

// tag is the sequence that a batch carries.
func (m *mirror) tag(sequence int32) int32 {
	if m.anonymous() {
		return -1
	}
	return sequence
}

// produce sends a batch as long as the lease can be trusted, and not a moment later: what is still queued then is not sent.
func (m *mirror) produce(ctx context.Context, b batch.Batch) (kafka.Produced, error) {
	trusting, cancel := m.lease.Trusting(ctx) // which may be long, where the target's owner has set a quota
	defer cancel()
	answer, err := m.target.Produce(trusting, m.to, m.facts.target.ID, b)
	if trust := m.lease.Trust(); err != nil && time.Now().After(trust) {
		err = fmt.Errorf("trust in the lease of %s ended at %s: %w: %w", m.from, trust.Format(time.RFC3339Nano), lease.ErrLost, err)
	}
	return answer, err
}

// examined moves the cursor's source side: everything before next has landed, or is a marker, a hole or an aborted record. epoch is the
// leader's of what lies just before it.
func (m *mirror) examined(next int64, epoch int32) {
	if next == m.at.Offset {
		return
	}
	if m.at.Hold.Reason != "" {
		m.at.Hold, m.published = lease.Hold{}, time.Time{} // people look for it there
	}
	m.at.Offset, m.at.SourceEpoch = next, epoch
	m.at.Mapped = m.at.Mapped || m.at.Target != m.at.Offset
	m.unsaved, m.unshown = true, true
}

func (m *mirror) commitIfDue(ctx context.Context) error {
	now := time.Now()
	m.keepIfDue(ctx, now)
	if m.unsaved && now.Sub(m.committed) >= commitEvery && !m.mapTooLong(now) {
		if err := m.commit(ctx); err != nil {
			return err
		}
		m.recovered()
	}
	m.showIfDue(ctx, now)
	if m.denied != nil {
		return m.noRightToShow(m.denied)
	}
	return nil
}

// noRightToShow is a hold: the cursors on the target must not be left behind for good because nobody reads the log.
func (m *mirror) noRightToShow(err error) error {
	return hold(lease.ReasonAuthorization, "no right to write cursors to %s: %v", m.flow.OffsetsTopic, err)
}

// showIfDue writes the cursor to the offsets topic beside the copying: that may wait for another partition's replicas.
func (m *mirror) showIfDue(ctx context.Context, now time.Time) {
	if len(m.showing) > 0 {
		m.awaitShown()
	}
	if m.showing != nil || !m.unshown || now.Sub(m.published) < publishEvery {
		return
	}
	m.published, m.unshown = now, false
	m.at.Map = m.track.Map(m.at.Mapped)
	done, cursor := make(chan error, 1), m.at
	m.showing = done
	m.sync()
	go func() { done <- m.cursors.Publish(ctx, m.from.Topic, m.from.Partition, cursor) }()
}

// awaitShown ends what showIfDue began.
func (m *mirror) awaitShown() {
	if m.showing == nil {
		return
	}
	if err := <-m.showing; err != nil {
		m.log.Warn("the offsets topic is behind; trying again", "error", err, "in", publishEvery) // JetStream has the cursor
		m.unshown = true
		if kafka.Denied(err) {
			m.denied = err
		}
	}
	m.showing = nil
}

// commit is also the fence: a lost compare-and-set is how a holder learns that its lease is gone.
func (m *mirror) commit(ctx context.Context) error {
	m.mapInto()
	began := time.Now()
	revision, err := m.cursors.Commit(ctx, m.from.Topic, m.from.Partition, m.at, m.revision)
	m.count.committed(time.Since(began), err)
	if err != nil {
		return fmt.Errorf("commit cursor of %s: %w", m.from, err)
	}
	m.revision, m.committed, m.unsaved = revision, time.Now(), false
	return nil
}

func (m *mirror) publish(ctx context.Context) error {
	m.awaitShown() // or that would lie above this one
	m.at.Map = m.track.Map(m.at.Mapped)
	if err := m.cursors.Publish(ctx, m.from.Topic, m.from.Partition, m.at); err != nil {
		return fmt.Errorf("write cursor of %s to %s: %w", m.from, m.flow.OffsetsTopic, err)
	}
	m.published, m.unshown = time.Now(), false
	return nil
}

// close leaves the cursor where the run has come to, with the hold that ended it, if any. A hold that this run did not meet again is
// lifted. Without a cursor there is nothing to leave.
func (m *mirror) close(ctx context.Context, end error) error {
	if m.revision == 0 {
		return nil
	}
	m.leave()
	held, is := errors.AsType[*holdError](end)
	switch {
	case is && held.Reason == lease.ReasonMirrorMaker: // it may commit at any moment, and this must not be written over it
	case is && (m.at.Hold.Reason != held.Reason || m.at.Hold.Detail != held.Detail) && m.confirmed(ctx, held.Reason):
		m.at.Hold = lease.Hold{Reason: held.Reason, Detail: held.Detail, Since: time.Now()}
		m.unsaved, m.unshown = true, true
	case end == nil && m.at.Hold.Reason != "":
		m.at.Hold = lease.Hold{}
		m.unsaved, m.unshown = true, true
	}
	if m.unsaved {
		if err := m.commit(ctx); err != nil {
			return err
		}
	}
	if m.unshown {
		m.sync()
		return m.publish(ctx)
	}
	return nil
}

// pause waits before the position is asked for again, longer from try to try.
func (m *mirror) pause(soft context.Context, try int) error {
	select {
	case <-soft.Done():
		return errDrain
	case <-time.After(firstTryPeriod << (try - 1)):
		return nil
	}
}

// ahead is one fetch under way.
type ahead struct {
	cancel context.CancelFunc
	asked  chan struct{} // closed when no limit holds it back any more
	done   chan struct{}
	paced  time.Duration // how long one did
	piece  *kafka.Fetched
	err    error
}

// fetch asks for the records from offset on, in the background, as soon as the limits allow. epoch is the leader's of what lies before them.
func (m *mirror) fetch(soft context.Context, offset int64, epoch int32) *ahead {
	ctx, cancel := context.WithCancel(soft)
	a := &ahead{cancel: cancel, asked: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(a.done)
		want := m.want(offset, epoch, m.flow.Isolation)
		if want.MaxBytes, a.paced, a.err = m.pace.wait(ctx); a.err == nil {
			close(a.asked)
			a.piece, a.err = m.source.Fetch(ctx, want)
			m.pace.came(a.piece)
		}
	}()
	return a
}

func (m *mirror) want(offset int64, epoch int32, isolation spec.Isolation) kafka.Want {
	return kafka.Want{TopicPartition: m.from, TopicID: m.facts.source.ID, Offset: offset, LeaderEpoch: -1, LastEpoch: epoch, Isolation: isolation}
}

// await returns what was fetched, which is the caller's to release. While that takes long, since a limit or the budget holds it up, what
// has landed is committed, which is also how a lost lease is noticed.
func (m *mirror) await(ctx, soft context.Context, a *ahead) (*kafka.Fetched, error) {
	for {
		late := time.NewTimer(commitEvery)
		piece, err := a.wait(m.yield, late.C)
		late.Stop()
		switch {
		case err == nil:
			m.heard = true
			return piece, nil
		case errors.Is(err, errYield) && m.over() && !m.heard && a.isAsked():
			return nil, errUnheard // each run would end so, and nobody would hear of it
		case !errors.Is(err, errLate):
			return nil, m.unread(soft, err)
		case time.Now().After(m.lease.Trust()):
			return nil, fmt.Errorf("trust in the lease of %s ended: %w", m.from, lease.ErrLost)
		}
		if err := m.commitIfDue(ctx); err != nil {
			return nil, err
		}
	}
}

// wait returns what was fetched, which is the caller's to release, or errYield, or errLate.
func (a *ahead) wait(yield <-chan struct{}, late <-chan time.Time) (*kafka.Fetched, error) {
	select {
	case <-a.done:
	case <-late:
		return nil, errLate
	case <-yield:
		return nil, errYield
	}
	select {
	case <-yield:
		return nil, errYield
	default:
	}
	a.cancel()
	piece := a.piece
	a.piece = nil
	return piece, a.err
}

func (a *ahead) isAsked() bool {
	select {
	case <-a.asked:
		return true
	default:
		return false
	}
}

// drop ends the fetch and gives back what it brought.
func (a *ahead) drop() {
	a.cancel()
	<-a.done
	if a.piece != nil {
		a.piece.Release()
		a.piece = nil
	}
}
