package functions

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/kferry/kferry/shared/batch"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// How a run finds its position: from the target's log, which alone knows what landed. DESIGN.md §4 has the reasoning.

const (
	settleLimit = 2 * time.Minute // for the high watermark to reach the log end; behind a stalled follower 39 s were measured
	settleStep  = 500 * time.Millisecond
	maxScan     = 1 << 20 // reads of one scan or skip, so that none goes on for ever
	maxDistance = 1 << 30 // sequences further apart could as well be behind as ahead
)

// begin makes the first cursor of a partition: its log's start or what the flow says on the source, an empty log on the target.
func (m *mirror) begin(ctx, soft context.Context) error {
	end, err := m.target.LogEnd(soft, m.to)
	if err != nil {
		return fmt.Errorf("read log end of %s: %w", m.to, permanent(err))
	}
	start, err := m.target.LogStart(soft, m.to)
	if err != nil {
		return fmt.Errorf("read log start of %s: %w", m.to, err)
	}
	if end.Offset > start.Offset {
		return hold(lease.ReasonNoCursor, "%s holds the offsets %d to %d and %s has no position for it: whoever wrote them has ended before its first commit, or keeps its positions under other names (offsets topic, connector or alias)",
			m.to, start.Offset, end.Offset-1, m.flow.OffsetsTopic)
	}
	offset, err := offsetAt(soft, m.source, m.from, m.flow.Start.Timestamp(), m.flow.Isolation)
	if err != nil {
		return err
	}
	m.at = m.facts.cursor(m.flow)
	m.at.Offset, m.at.Target, m.at.Mapped = offset, end.Offset, offset != end.Offset
	if err := m.assume(); err != nil {
		return err
	}
	m.beginTrack()
	if m.revision, err = m.cursors.Create(ctx, m.from.Topic, m.from.Partition, m.at); err != nil {
		return fmt.Errorf("create cursor of %s: %w", m.from, err)
	}
	m.committed, m.published, m.certain = time.Now(), time.Now(), true
	return nil
}

// offsetAt resolves a ListOffsets timestamp; one later than every record means the log's end.
func offsetAt(ctx context.Context, c *kafka.Cluster, tp kafka.TopicPartition, timestamp int64, iso spec.Isolation) (int64, error) {
	for _, at := range []int64{timestamp, kafka.Latest} {
		offsets, err := c.ListOffsets(ctx, []kafka.TopicPartition{tp}, at, iso)
		if err != nil {
			return 0, fmt.Errorf("list offsets of %s at %d: %w", tp, at, err)
		}
		o := offsets[tp]
		if o.Err != nil {
			return 0, fmt.Errorf("list offsets of %s at %d: %w", tp, at, o.Err)
		}
		if o.Offset >= 0 {
			return o.Offset, nil
		}
	}
	return 0, fmt.Errorf("list offsets of %s: the broker named neither an offset for %d nor a log end", tp, timestamp)
}

// locate makes m.at true again: it asks the target's log how many records have landed since m.at and moves m.at past them.
func (m *mirror) locate(ctx, soft context.Context) error {
	end, err := m.settledEnd(soft)
	if err != nil || end == m.at.Target {
		return err
	}
	landed, err := m.landed(soft, end)
	if err != nil {
		return err
	}
	behind, err := m.behind(soft, landed, end)
	if err != nil {
		return err
	}
	m.at.Offset, m.at.SourceEpoch = behind.offset, behind.epoch
	m.at.Target, m.at.Sequence = end, advance(m.at.Sequence, landed)
	m.placed(m.found)
	m.track.Reach(behind.offset, end)
	m.at.Mapped = m.at.Mapped || m.at.Target != m.at.Offset
	m.unsaved, m.unshown = true, true
	return m.commit(ctx)
}

// behind is the source's place behind the records that have landed between m.at and the target's end: counted, where counting can be
// trusted.
func (m *mirror) behind(soft context.Context, landed, end int64) (place, error) {
	m.found, m.jumps = nil, 0
	switch {
	case m.facts.compacted:
		return m.readBackCompacted(soft, landed, end)
	case m.anonymous():
		return m.readBack(soft, end)
	}
	return m.skip(soft, landed)
}

// locateAfter is locate after a refused or unanswered request. Where neither the log nor the producer moved although the broker
// refuses just what follows, it knows the producer from a time that no cursor remembers: the next generation starts. So it does for a
// source that may show other records by now than those that are perhaps still on their way.
func (m *mirror) locateAfter(ctx, soft context.Context, cause *unknownError) error {
	before := m.at
	if now, err := m.identify(soft, false); err == nil {
		m.facts.compacted = m.facts.compacted || now.compacted
	}
	if err := m.locate(ctx, soft); err != nil {
		return err
	}
	unmoved := m.at.Target == before.Target
	switch {
	case unmoved && m.at.Sequence == 0 && is(cause, refusesProducer...):
		return m.nextProducer(ctx, soft)
	case unmoved && m.at.Sequence == 0 && is(cause, kafka.ErrOutOfOrderSequence, kafka.ErrInvalidProducerEpoch),
		unmoved && is(cause, kafka.ErrUnknownProducer):
		return m.nextGeneration(ctx, soft)
	case errors.Is(cause, kafka.ErrInvalidProducerEpoch):
		return m.superseded(soft)
	case m.facts.compacted && cause.mayLand():
		return m.nextGeneration(ctx, soft)
	}
	return nil
}

// nextProducer goes on under an id that the target has issued, where it refused the computed one, and under none, where it refuses that
// too.
func (m *mirror) nextProducer(ctx, soft context.Context) error {
	issued, err := int64(0), error(nil)
	if m.at.Producer == "" {
		issued, err = m.target.IssueProducerID(soft)
	}
	switch {
	case m.at.Producer == lease.NoProducer:
		return hold(lease.ReasonUnsupported, "%s takes batches neither with a producer id nor without one", m.to)
	case m.at.Producer != "" || is(err, kafka.ErrUnsupportedVersion, kafka.ErrInvalidRequest):
		return m.becomeAnonymous(ctx)
	case err != nil:
		return fmt.Errorf("%s refuses the computed producer id: %w", m.to, permanent(err))
	}
	m.at.Producer = strconv.FormatInt(issued, 10)
	m.log.Info("the target takes only producer ids of its own", "producer", issued)
	return errors.Join(m.assume(), m.commit(ctx))
}

// becomeAnonymous goes on without a producer id. Nothing then keeps a second worker, or a request that comes late, from doubling
// records.
func (m *mirror) becomeAnonymous(ctx context.Context) error {
	m.at.Producer = lease.NoProducer
	if err := m.assume(); err != nil {
		return err
	}
	m.at.ExactlyOnce = m.doubt()
	m.log.Warn("exactly once can't be kept", "why", m.at.ExactlyOnce)
	if err := m.commit(ctx); err != nil {
		return err
	}
	return m.publish(ctx)
}

// superseded is what follows when the broker knows a later generation of the partition: usually another holder's, and then the cursor
// is that one's too.
func (m *mirror) superseded(soft context.Context) error {
	_, revision, err := m.cursors.Get(soft, m.from.Topic, m.from.Partition)
	if err != nil {
		return fmt.Errorf("read cursor of %s: %w", m.from, err)
	}
	if revision != m.revision {
		return fmt.Errorf("%s: a later generation than %d writes to %s: %w", m.from, m.at.Epoch, m.to, lease.ErrLost)
	}
	return hold(lease.ReasonSequence, "%s knows a later generation of its producer than the cursor's %d: the cursor is out of date", m.to, m.at.Epoch)
}

// renew starts the next generation when what decides content has changed since the cursor was written, or may have, so that content
// stays a function of (epoch, sequence).
func (m *mirror) renew(ctx, soft context.Context) error {
	unfinished := m.facts.compacted && m.at.Running // whoever ran may still write what the source no longer has
	if m.at.Isolation == string(m.flow.Isolation) && !unfinished {
		return nil
	}
	m.at.Isolation = string(m.flow.Isolation)
	return m.nextGeneration(ctx, soft)
}

// nextGeneration moves to the next producer epoch with sequence 0 again, or to the next producer id where the epochs of this one are used
// up. The commit of such a cursor has it in both places before a batch follows.
func (m *mirror) nextGeneration(ctx, soft context.Context) error {
	generation := m.at.Epoch
	producers, err := m.target.DescribeProducers(soft, m.to)
	if err != nil && !kafka.Retriable(err) && !errors.Is(err, kafka.ErrTopicAuthorization) {
		return fmt.Errorf("describe producers of %s: %w", m.to, err)
	}
	for _, p := range producers {
		if p.ID == m.identity.ProducerID {
			generation = max(generation, m.at.Epoch/epochs*epochs+int32(p.Epoch))
		}
	}
	if generation == math.MaxInt32 {
		return hold(lease.ReasonSequence, "%s has used up its %d generations: create it anew", m.to, math.MaxInt32)
	}
	generation++
	if generation%epochs == 0 && m.at.Producer != lease.NoProducer {
		m.at.Producer = "" // the target issues another one where it has to
	}
	m.at.Epoch, m.at.Sequence = generation, 0
	if err := m.assume(); err != nil {
		return err
	}
	m.log.Info("next generation", "generation", generation)
	m.awaitShown() // or that would lie above this one
	return m.commit(ctx)
}

// settledEnd returns the target's log end once everything up to it is replicated, so that it can be read and will not go away.
func (m *mirror) settledEnd(soft context.Context) (int64, error) {
	began := time.Now()
	for {
		end, err := m.target.LogEnd(soft, m.to)
		if err != nil {
			return 0, fmt.Errorf("read log end of %s: %w", m.to, permanent(err))
		}
		if end.Offset == m.at.Target {
			return end.Offset, nil // nothing landed since; what had was acknowledged, so it is replicated
		}
		high, err := m.target.HighWatermark(soft, m.to)
		if err != nil {
			return 0, fmt.Errorf("read high watermark of %s: %w", m.to, err)
		}
		if high.Offset >= end.Offset {
			return end.Offset, nil
		}
		behind := func() error { // not errYield: whoever goes on would only wait as well, and nobody would hear of it
			return fmt.Errorf("%s: the high watermark %d has not reached the log end %d for %s: %w",
				m.to, high.Offset, end.Offset, time.Since(began).Round(time.Millisecond), kafka.ErrNotEnoughReplicas)
		}
		if time.Since(began) > settleLimit {
			return 0, behind()
		}
		select {
		case <-soft.Done():
			return 0, errDrain
		case <-m.yield:
			return 0, behind()
		case <-time.After(settleStep):
		}
	}
}

// landed says how many records of this generation the target holds between m.at and end, or holds where the log can't be ours alone.
func (m *mirror) landed(soft context.Context, end int64) (int64, error) {
	n := end - m.at.Target
	switch {
	case n < 0:
		return 0, hold(lease.ReasonTargetTruncated, "%s ends at %d, before the cursor's %d: acknowledged records are gone (unclean leader election, or the topic was re-created)", m.to, end, m.at.Target)
	case n > maxDistance:
		return 0, hold(lease.ReasonSequence, "%s holds %d records since the cursor, more than sequences can tell apart", m.to, n)
	case m.anonymous():
		return n, nil // the records themselves have to tell
	}
	last, err := m.readBatch(soft, end-1)
	if expired, err := m.expired(soft, end-1, err); expired || err != nil {
		return n, err // where retention took what landed, the ends alone say how much it was
	}
	if m.ours(last) && last.LastOffset() == end-1 && nextSequence(last) == advance(m.at.Sequence, n) {
		return n, nil
	}
	return m.scan(soft, end)
}

// expired says whether a target offset can't be read since retention took it. Any other error stays one.
func (m *mirror) expired(soft context.Context, offset int64, err error) (bool, error) {
	if !errors.Is(err, kafka.ErrOffsetOutOfRange) {
		return false, err
	}
	start, wrong := m.target.LogStart(soft, m.to)
	if wrong != nil {
		return false, fmt.Errorf("read log start of %s: %w", m.to, wrong)
	}
	if offset < start.Offset {
		return true, nil
	}
	return false, err
}

// scan reads the target from the cursor to end and counts the records of this generation. It holds at the first batch that is not the
// next one: since nobody else may write, offset and sequence run in step. Only where earlier generations may still write (see
// renew) theirs are passed over.
func (m *mirror) scan(soft context.Context, end int64) (records int64, err error) {
	start, err := m.target.LogStart(soft, m.to)
	if err != nil {
		return 0, fmt.Errorf("read log start of %s: %w", m.to, err)
	}
	earlier := int64(0)
	next := max(m.at.Target, start.Offset)
	for i := 0; next < end; i++ {
		if i == maxScan {
			return 0, fmt.Errorf("scan %s: not at %d after %d reads", m.to, end, maxScan)
		}
		b, err := m.readBatch(soft, next)
		if err != nil {
			return 0, err
		}
		due := advance(m.at.Sequence, b.BaseOffset()-m.at.Target-earlier)
		same := b.ProducerID() == m.identity.ProducerID && !b.Control() && !m.anonymous()
		switch {
		case same && b.ProducerEpoch() > m.identity.Epoch:
			return 0, hold(lease.ReasonSequence, "%s holds a batch of generation %d at offset %d, the cursor is of generation %d and so out of date",
				m.to, b.ProducerEpoch(), b.BaseOffset(), m.identity.Epoch)
		case same && b.ProducerEpoch() < m.identity.Epoch && m.facts.compacted:
			earlier += int64(b.LastOffsetDelta()) + 1
		case !m.ours(b):
			return 0, hold(lease.ReasonForeignWriter, "%s holds a batch of %s at offset %d; kferry had written up to %d", m.to, writer(b), b.BaseOffset(), m.at.Target)
		case b.BaseSequence() != due:
			return 0, hold(lease.ReasonSequence, "%s holds sequence %d at offset %d where %d was due: records are doubled or missing", m.to, b.BaseSequence(), b.BaseOffset(), due)
		}
		next = b.NextOffset()
	}
	if earlier > 0 {
		m.admit(repeated)
	}
	return end - m.at.Target - earlier, nil
}

// explain says why a batch landed elsewhere than expected: on a topic that was created again, on what the broker remembers of an
// earlier time, or behind what someone else wrote.
func (m *mirror) explain(soft context.Context, got, want int64, b batch.Batch) error {
	topic, err := m.target.Topic(soft, m.to.Topic)
	switch {
	case err != nil:
		return fmt.Errorf("look up %s: %w", m.to.Topic, err)
	case topic.ID != m.facts.target.ID:
		return hold(lease.ReasonTargetRecreated, "%s on %s was deleted and created again while it was copied to", m.to.Topic, m.flow.Target)
	case got < want && m.at.Sequence == 0: // answered as if an earlier batch of this very sequence was repeated: the same as a refusal
		return &unknownError{m, fmt.Errorf("answered with offset %d, which was before: %w", got, kafka.ErrOutOfOrderSequence)}
	case got < want:
		return hold(lease.ReasonSequence, "%s acknowledged sequence %d at offset %d, before its end %d", m.to, b.BaseSequence(), got, want)
	}
	if m.anonymous() { // perhaps another worker's, and the same records: reading back will tell
		return &unknownError{m, fmt.Errorf("acknowledged at offset %d, not at %d", got, want)}
	}
	records, err := m.scan(soft, got)
	switch {
	case err != nil:
		return err
	case m.facts.compacted && records == want-m.at.Target: // an earlier generation wrote once more before this one fenced it off
		return nil
	}
	return hold(lease.ReasonForeignWriter, "%s acknowledged a batch at offset %d, not at %d", m.to, got, want)
}

// attest reads the last batch back. To a target that does not keep producer ids and sequences nothing can be copied exactly once.
func (m *mirror) attest(ctx, soft context.Context) error {
	if m.anonymous() {
		return nil
	}
	b, err := m.readBatch(soft, m.at.Target-1)
	if expired, err := m.expired(soft, m.at.Target-1, err); expired || err != nil {
		return err
	}
	if m.ours(b) {
		return nil
	}
	m.log.Info("the target does not keep producer ids", "sent", identityText(m.identity), "stored", writer(b))
	return m.becomeAnonymous(ctx)
}

// A place is between two records of the source: the offset of the next one to look at, and the leader epoch of what lies before.
type place struct {
	offset int64
	epoch  int32
}

// skip returns the source's place behind the next n records that the flow copies.
func (m *mirror) skip(soft context.Context, n int64) (place, error) {
	at := place{m.at.Offset, m.at.SourceEpoch}
	for i := 0; n > 0; i++ {
		seen, err := m.look(soft, at)
		if err != nil {
			return at, err
		}
		before := at
		at, n, err = m.skipWithin(seen, at, n)
		seen.Release()
		if err != nil {
			return at, err
		}
		if at == before || i == maxScan {
			return at, m.lacking(soft, at.offset, n)
		}
	}
	return at, nil
}

// A look is what the source shows from a place on, under the isolation level of the cursor's generation.
type look struct {
	sight
	*kafka.Fetched
}

func (m *mirror) look(soft context.Context, at place) (look, error) {
	select {
	case <-m.yield:
		return look{}, errYield
	default:
	}
	isolation := spec.Isolation(m.at.Isolation)
	piece, err := m.source.Fetch(soft, m.want(at.offset, at.epoch, isolation))
	if err != nil {
		return look{}, m.unread(soft, err)
	}
	seen := visible(piece, at.offset, at.epoch, isolation)
	if err := m.within(soft, seen, piece); err != nil {
		piece.Release()
		return look{}, err
	}
	return look{seen, piece}, nil
}

// lacking is why the source does not bring the n records from offset on that the target has: it may not show them yet, after its leader
// moved, or it lost them.
func (m *mirror) lacking(soft context.Context, offset, n int64) error {
	end, err := m.source.LogEnd(soft, m.from)
	if err != nil {
		return fmt.Errorf("read log end of %s: %w", m.from, permanent(err))
	}
	if end.Offset > offset {
		return fmt.Errorf("%s does not show its records from offset %d to %d yet", m.from, offset, end.Offset-1)
	}
	return hold(lease.ReasonSourceTruncated, "%s ends at %d, but %s holds %d records from beyond", m.from, end.Offset, m.to, n)
}

func (m *mirror) skipWithin(seen look, at place, n int64) (place, int64, error) {
	for _, b := range seen.data {
		after, taken, err := skipRecords(b, at.offset, n, m.foundNext)
		if err != nil {
			return at, 0, hold(lease.ReasonCorruptBatch, "%s: batch at offset %d: %v", m.from, b.BaseOffset(), err)
		}
		at, n = place{after, b.LeaderEpoch()}, n-taken
		if n == 0 {
			return at, 0, nil
		}
	}
	if seen.wrong != nil {
		return at, 0, m.unreadable(seen.sight)
	}
	return place{seen.next, seen.epoch}, n, nil
}

// skipRecords passes over at most n of b's records that are not before from. It returns the offset behind the last one passed over,
// and how many there were, and notes them.
func skipRecords(b batch.Batch, from, n int64, note func(offset, n int64)) (after, taken int64, err error) {
	if b.Dense() {
		first := max(b.BaseOffset(), from)
		taken = min(n, b.NextOffset()-first)
		note(first, taken)
		return first + taken, taken, nil
	}
	for r, err := range b.Each(0) {
		if err != nil {
			return 0, 0, err
		}
		if r.Offset < from {
			continue
		}
		note(r.Offset, 1)
		after, taken = r.Offset+1, taken+1
		if taken == n {
			return after, taken, nil
		}
	}
	return b.NextOffset(), taken, nil
}

// readBatch returns the target's batch that holds offset, or the next one after it.
func (m *mirror) readBatch(soft context.Context, offset int64) (batch.Batch, error) {
	piece, err := m.target.Read(soft, m.to, offset, 1, spec.ReadUncommitted)
	if err != nil {
		return nil, fmt.Errorf("read back %s at %d: %w", m.to, offset, err)
	}
	defer piece.Release()
	b, _, err := batch.Next(piece.Records)
	if err != nil {
		return nil, fmt.Errorf("read back %s at %d: %w", m.to, offset, err)
	}
	return b, nil
}

func (m *mirror) ours(b batch.Batch) bool {
	return b.ProducerID() == m.identity.ProducerID && b.ProducerEpoch() == m.identity.Epoch && !b.Control()
}

// advance is the sequence n records after another one: they are counted modulo 2³¹.
func advance(sequence int32, n int64) int32 { return int32((int64(sequence) + n) & (1<<31 - 1)) }

func nextSequence(b batch.Batch) int32 {
	return advance(b.BaseSequence(), int64(b.LastOffsetDelta())+1)
}
