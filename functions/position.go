package functions

import (
	"context"
	"errors"
	"fmt"
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
	maxEpoch    = 1<<15 - 1
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
		return hold(lease.ReasonNoCursor, "%s holds the offsets %d to %d and %s has no cursor of kferry's for it", m.to, start.Offset, end.Offset-1, m.flow.OffsetsTopic)
	}
	offset, err := offsetAt(soft, m.source, m.from, m.flow.Start.Timestamp(), m.flow.Isolation)
	if err != nil {
		return err
	}
	m.at = m.facts.cursor(m.flow)
	m.at.Offset, m.at.Target, m.at.Mapped = offset, end.Offset, offset != end.Offset
	m.identity = m.facts.identity(m.from.Partition, m.at.Epoch)
	if m.revision, err = m.cursors.Create(ctx, m.from.Topic, m.from.Partition, m.at); err != nil {
		return fmt.Errorf("create cursor of %s: %w", m.from, err)
	}
	m.committed, m.published = time.Now(), time.Now()
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
	if err != nil {
		return err
	}
	landed, err := m.landed(soft, end)
	if err != nil || landed == 0 {
		return err
	}
	if !m.facts.compacted { // there counting can't be trusted, since records may have gone: rather copied again than lost
		if m.at.Offset, err = m.skip(soft, landed); err != nil {
			return err
		}
	}
	m.at.Target, m.at.Sequence = end, advance(m.at.Sequence, landed)
	m.at.Mapped = m.at.Mapped || m.at.Target != m.at.Offset
	m.unsaved, m.unshown = true, true
	return m.commit(ctx)
}

// locateAfter is locate after a refused or unanswered request. Where neither the log nor the producer moved although the broker
// refuses just what follows, it knows the producer from a time that no cursor remembers: the next generation starts.
func (m *mirror) locateAfter(ctx, soft context.Context, cause *unknownError) error {
	before := m.at
	if err := m.locate(ctx, soft); err != nil {
		return err
	}
	stuck := m.at.Target == before.Target && m.at.Sequence == 0
	if stuck && is(cause, kafka.ErrOutOfOrderSequence, kafka.ErrInvalidProducerEpoch) {
		return m.nextGeneration(ctx, soft)
	}
	if errors.Is(cause, kafka.ErrInvalidProducerEpoch) {
		return m.superseded(soft)
	}
	return nil
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

// renew starts the next generation when what decides content has changed since the cursor was written, so that content stays a
// function of (epoch, sequence).
func (m *mirror) renew(ctx, soft context.Context) error {
	if m.at.Isolation == string(m.flow.Isolation) {
		return nil
	}
	m.at.Isolation = string(m.flow.Isolation)
	return m.nextGeneration(ctx, soft)
}

// nextGeneration moves to the next producer epoch with sequence 0 again. The commit of such a cursor has it in both places before a
// batch follows.
func (m *mirror) nextGeneration(ctx, soft context.Context) error {
	epoch := m.at.Epoch
	producers, err := m.target.DescribeProducers(soft, m.to)
	if err != nil && !kafka.Retriable(err) && !errors.Is(err, kafka.ErrTopicAuthorization) {
		return fmt.Errorf("describe producers of %s: %w", m.to, err)
	}
	for _, p := range producers {
		if p.ID == m.identity.ProducerID {
			epoch = max(epoch, p.Epoch)
		}
	}
	if epoch == maxEpoch {
		return hold(lease.ReasonSequence, "%s has used up the %d generations of its producer id", m.to, maxEpoch+1)
	}
	m.at.Epoch, m.at.Sequence = epoch+1, 0
	m.identity.Epoch = m.at.Epoch
	m.log.Info("next generation", "epoch", m.at.Epoch)
	return m.commit(ctx)
}

// settledEnd returns the target's log end once everything up to it is replicated, so that it can be read and will not go away.
func (m *mirror) settledEnd(soft context.Context) (int64, error) {
	deadline := time.Now().Add(settleLimit)
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
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("%s: the high watermark %d has not reached the log end %d for %s: %w", m.to, high.Offset, end.Offset, settleLimit, kafka.ErrNotEnoughReplicas)
		}
		select {
		case <-soft.Done():
			return 0, errDrain
		case <-m.yield:
			return 0, errYield
		case <-time.After(settleStep):
		}
	}
}

// landed says how many records of this identity the target holds between m.at and end, or holds where the log can't be ours alone.
func (m *mirror) landed(soft context.Context, end int64) (int64, error) {
	n := end - m.at.Target
	switch {
	case n == 0:
		return 0, nil
	case n < 0:
		return 0, hold(lease.ReasonTargetTruncated, "%s ends at %d, before the cursor's %d: acknowledged records are gone (unclean leader election, or the topic was re-created)", m.to, end, m.at.Target)
	case n > maxDistance:
		return 0, hold(lease.ReasonSequence, "%s holds %d records since the cursor, more than sequences can tell apart", m.to, n)
	}
	last, err := m.readBatch(soft, end-1)
	if expired, err := m.expired(soft, end-1, err); expired || err != nil {
		return n, err // where retention took what landed, the ends alone say how much it was
	}
	if m.ours(last) && last.LastOffset() == end-1 && nextSequence(last) == advance(m.at.Sequence, n) {
		return n, nil
	}
	return n, m.scan(soft, end)
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

// scan reads the target from the cursor to end and holds at the first batch that is not the next one of this identity. Since nobody
// else may write, offset and sequence run in step.
func (m *mirror) scan(soft context.Context, end int64) error {
	start, err := m.target.LogStart(soft, m.to)
	if err != nil {
		return fmt.Errorf("read log start of %s: %w", m.to, err)
	}
	next := max(m.at.Target, start.Offset)
	for i := 0; next < end; i++ {
		if i == maxScan {
			return fmt.Errorf("scan %s: not at %d after %d reads", m.to, end, maxScan)
		}
		b, err := m.readBatch(soft, next)
		if err != nil {
			return err
		}
		due := advance(m.at.Sequence, b.BaseOffset()-m.at.Target)
		switch {
		case b.ProducerID() == m.identity.ProducerID && b.ProducerEpoch() > m.identity.Epoch:
			return hold(lease.ReasonSequence, "%s holds a batch of generation %d at offset %d, the cursor is of generation %d and so out of date",
				m.to, b.ProducerEpoch(), b.BaseOffset(), m.identity.Epoch)
		case !m.ours(b):
			return hold(lease.ReasonForeignWriter, "%s holds a batch of %s at offset %d; kferry had written up to %d", m.to, writer(b), b.BaseOffset(), m.at.Target)
		case b.BaseSequence() != due:
			return hold(lease.ReasonSequence, "%s holds sequence %d at offset %d where %d was due: records are doubled or missing", m.to, b.BaseSequence(), b.BaseOffset(), due)
		}
		next = b.NextOffset()
	}
	return nil
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
	if err := m.scan(soft, got); err != nil {
		return err
	}
	return hold(lease.ReasonForeignWriter, "%s acknowledged a batch at offset %d, not at %d", m.to, got, want)
}

// attest reads the last batch back: a target that does not keep producer ids and sequences can't be copied to exactly once.
func (m *mirror) attest(soft context.Context) error {
	b, err := m.readBatch(soft, m.at.Target-1)
	if expired, err := m.expired(soft, m.at.Target-1, err); expired || err != nil {
		return err
	}
	if !m.ours(b) {
		return hold(lease.ReasonUnsupported, "%s stored the batch at offset %d under %s, not under %s: it does not keep producer ids, and at-least-once is not available yet",
			m.to, b.BaseOffset(), writer(b), identityText(m.identity))
	}
	return nil
}

// skip returns the source offset behind the next n records that the flow copies.
func (m *mirror) skip(soft context.Context, n int64) (int64, error) {
	offset := m.at.Offset
	for i := 0; n > 0; i++ {
		select {
		case <-m.yield:
			return 0, errYield
		default:
		}
		piece, err := m.source.Fetch(soft, kafka.Want{
			TopicPartition: m.from, TopicID: m.facts.source.ID, Offset: offset, LeaderEpoch: -1, Isolation: spec.Isolation(m.at.Isolation),
		})
		if err != nil {
			return 0, m.unread(soft, err)
		}
		before := offset
		offset, n, err = m.skipWithin(piece, offset, n)
		piece.Release()
		if err != nil {
			return 0, err
		}
		if offset == before || i == maxScan {
			return 0, m.lacking(soft, offset, n)
		}
	}
	return offset, nil
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

func (m *mirror) skipWithin(piece *kafka.Fetched, offset, n int64) (int64, int64, error) {
	seen := visible(piece, offset, spec.Isolation(m.at.Isolation))
	for _, b := range seen.data {
		after, taken, err := skipRecords(b, offset, n)
		if err != nil {
			return 0, 0, hold(lease.ReasonCorruptBatch, "%s: batch at offset %d: %v", m.from, b.BaseOffset(), err)
		}
		offset, n = after, n-taken
		if n == 0 {
			return offset, 0, nil
		}
	}
	if seen.wrong != nil {
		return 0, 0, m.unreadable(seen)
	}
	return seen.next, n, nil
}

// skipRecords passes over at most n of b's records that are not before from. It returns the offset behind the last one passed over,
// and how many there were.
func skipRecords(b batch.Batch, from, n int64) (after, taken int64, err error) {
	if b.Dense() {
		first := max(b.BaseOffset(), from)
		taken = min(n, b.NextOffset()-first)
		return first + taken, taken, nil
	}
	for r, err := range b.Each(0) {
		if err != nil {
			return 0, 0, err
		}
		if r.Offset < from {
			continue
		}
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
