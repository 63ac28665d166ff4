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
func (m *mirror) begin(ctx context.Context) error {
	end, err := m.target.LogEnd(ctx, m.to)
	if err != nil {
		return fmt.Errorf("read log end of %s: %w", m.to, err)
	}
	start, err := m.target.LogStart(ctx, m.to)
	if err != nil {
		return fmt.Errorf("read log start of %s: %w", m.to, err)
	}
	if end.Offset > start.Offset {
		return hold(lease.ReasonNoCursor, "%s holds the offsets %d to %d and %s has no cursor of kferry's for it", m.to, start.Offset, end.Offset-1, m.flow.OffsetsTopic)
	}
	offset, err := m.startOffset(ctx)
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

func (m *mirror) startOffset(ctx context.Context) (int64, error) {
	return offsetAt(ctx, m.source, m.from, m.flow.Start.Timestamp(), m.flow.Isolation)
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
	landed, err := m.landed(ctx, end)
	if err != nil || landed == 0 {
		return err
	}
	if !m.facts.compacted { // there counting can't be trusted, since records may have gone: rather copied again than lost
		if m.at.Offset, err = m.skip(ctx, soft, landed); err != nil {
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
	if stuck && (errors.Is(cause, kafka.ErrOutOfOrderSequence) || errors.Is(cause, kafka.ErrInvalidProducerEpoch)) {
		return m.nextGeneration(ctx)
	}
	if errors.Is(cause, kafka.ErrInvalidProducerEpoch) {
		return fmt.Errorf("%s: a later generation than %d writes to %s: %w", m.from, m.at.Epoch, m.to, lease.ErrLost)
	}
	return nil
}

// renew starts the next generation when what decides content has changed since the cursor was written, so that content stays a
// function of (epoch, sequence).
func (m *mirror) renew(ctx context.Context) error {
	if m.at.Isolation == string(m.flow.Isolation) {
		return nil
	}
	m.at.Isolation = string(m.flow.Isolation)
	return m.nextGeneration(ctx)
}

// nextGeneration moves to the next producer epoch with sequence 0 again, and has that cursor in both places before a batch follows.
func (m *mirror) nextGeneration(ctx context.Context) error {
	epoch := m.at.Epoch
	producers, err := m.target.DescribeProducers(ctx, m.to)
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
	if err := m.commit(ctx); err != nil {
		return err
	}
	m.log.Info("next generation", "partition", m.from, "epoch", m.at.Epoch)
	return m.publish(ctx)
}

// settledEnd returns the target's log end once everything up to it is replicated, so that it can be read and will not go away.
func (m *mirror) settledEnd(soft context.Context) (int64, error) {
	deadline := time.Now().Add(settleLimit)
	for {
		end, err := m.target.LogEnd(soft, m.to)
		if err != nil {
			return 0, fmt.Errorf("read log end of %s: %w", m.to, err)
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
		case <-time.After(settleStep):
		}
	}
}

// landed says how many records of this identity the target holds between m.at and end, or holds where the log can't be ours alone.
func (m *mirror) landed(ctx context.Context, end int64) (int64, error) {
	n := end - m.at.Target
	switch {
	case n == 0:
		return 0, nil
	case n < 0:
		return 0, hold(lease.ReasonTargetTruncated, "%s ends at %d, before the cursor's %d: acknowledged records are gone (unclean leader election, or the topic was re-created)", m.to, end, m.at.Target)
	case n > maxDistance:
		return 0, hold(lease.ReasonSequence, "%s holds %d records since the cursor, more than sequences can tell apart", m.to, n)
	}
	last, err := m.readBatch(ctx, end-1)
	if errors.Is(err, kafka.ErrOffsetOutOfRange) {
		return n, nil // the target's retention took what landed; the ends alone say how much it was
	}
	if err != nil {
		return 0, err
	}
	if m.ours(last) && last.LastOffset() == end-1 && nextSequence(last) == advance(m.at.Sequence, n) {
		return n, nil
	}
	return n, m.scan(ctx, end)
}

// scan reads the target from the cursor to end and holds at the first batch that is not the next one of this identity. Since nobody
// else may write, offset and sequence run in step.
func (m *mirror) scan(ctx context.Context, end int64) error {
	start, err := m.target.LogStart(ctx, m.to)
	if err != nil {
		return fmt.Errorf("read log start of %s: %w", m.to, err)
	}
	next := max(m.at.Target, start.Offset)
	for i := 0; next < end; i++ {
		if i == maxScan {
			return fmt.Errorf("scan %s: not at %d after %d reads", m.to, end, maxScan)
		}
		b, err := m.readBatch(ctx, next)
		if err != nil {
			return err
		}
		due := advance(m.at.Sequence, b.BaseOffset()-m.at.Target)
		switch {
		case !m.ours(b):
			return hold(lease.ReasonForeignWriter, "%s holds a batch of %s at offset %d; kferry had written up to %d", m.to, writer(b), b.BaseOffset(), m.at.Target)
		case b.BaseSequence() != due:
			return hold(lease.ReasonSequence, "%s holds sequence %d at offset %d where %d was due: records are doubled or missing", m.to, b.BaseSequence(), b.BaseOffset(), due)
		}
		next = b.NextOffset()
	}
	return nil
}

// explain says why a batch landed elsewhere than expected: someone else writes to the target.
func (m *mirror) explain(ctx context.Context, got, want int64, b batch.Batch) error {
	if got < want && m.at.Sequence == 0 { // the broker remembers an earlier batch of this very sequence: the same as a refusal
		return &unknownError{m, fmt.Errorf("answered as if offset %d was repeated: %w", got, kafka.ErrOutOfOrderSequence)}
	}
	if got < want {
		return hold(lease.ReasonSequence, "%s acknowledged sequence %d at offset %d, before its end %d", m.to, b.BaseSequence(), got, want)
	}
	if err := m.scan(ctx, got); err != nil {
		return err
	}
	return hold(lease.ReasonForeignWriter, "%s acknowledged a batch at offset %d, not at %d", m.to, got, want)
}

// attest reads the first batch of a generation back: a target that does not keep producer ids and sequences can't be copied to
// exactly once. Should the run die before, the next one finds out in landed.
func (m *mirror) attest(ctx context.Context) error {
	b, err := m.readBatch(ctx, m.at.Target-1)
	if errors.Is(err, kafka.ErrOffsetOutOfRange) {
		return nil // retention was quicker
	}
	if err != nil {
		return err
	}
	if !m.ours(b) {
		return hold(lease.ReasonUnsupported, "%s stored the batch at offset %d under %s, not under %s: it does not keep producer ids, and at-least-once is not available yet",
			m.to, b.BaseOffset(), writer(b), identityText(m.identity))
	}
	return nil
}

// skip returns the source offset behind the next n records that the flow copies.
func (m *mirror) skip(ctx, soft context.Context, n int64) (int64, error) {
	offset, quiet := m.at.Offset, time.Now()
	for i := 0; n > 0; i++ {
		if i == maxScan || time.Since(quiet) > settleLimit {
			return 0, hold(lease.ReasonSourceTruncated, "%s holds %d records that %s does not have after offset %d (any more)", m.to, n, m.from, offset)
		}
		piece, err := m.source.Fetch(soft, kafka.Want{
			TopicPartition: m.from, TopicID: m.facts.source.ID, Offset: offset, LeaderEpoch: -1, Isolation: spec.Isolation(m.at.Isolation),
		})
		if err != nil {
			return 0, m.unread(ctx, soft, err)
		}
		before := offset
		offset, n, err = m.skipWithin(piece, offset, n)
		piece.Release()
		if err != nil {
			return 0, err
		}
		if offset > before {
			quiet = time.Now()
		} else if end := stableEnd(piece, spec.Isolation(m.at.Isolation)); offset >= end {
			return 0, hold(lease.ReasonSourceTruncated, "%s ends at %d, but %s holds %d records from beyond", m.from, end, m.to, n)
		}
	}
	return offset, nil
}

func (m *mirror) skipWithin(piece *kafka.Fetched, offset, n int64) (int64, int64, error) {
	data, next, corrupt := visible(piece, offset, spec.Isolation(m.at.Isolation))
	for _, b := range data {
		after, taken, err := skipRecords(b, offset, n)
		if err != nil {
			return 0, 0, hold(lease.ReasonCorruptBatch, "%s: batch at offset %d: %v", m.from, b.BaseOffset(), err)
		}
		offset, n = after, n-taken
		if n == 0 {
			return offset, 0, nil
		}
	}
	if corrupt != nil {
		return 0, 0, hold(lease.ReasonCorruptBatch, "%s at or after offset %d: %v", m.from, next, corrupt)
	}
	return next, n, nil
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
func (m *mirror) readBatch(ctx context.Context, offset int64) (batch.Batch, error) {
	piece, err := m.target.Read(ctx, m.to, offset, 1, spec.ReadUncommitted)
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
