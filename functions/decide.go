package functions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kferry/kferry/shared/batch"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// How a partition goes on that was held until somebody decides: an operator, through the cursor, or the flow's policy. What comes of a
// decision is lease.Standing's to say; here it is found out where the partition stands, and the next generation starts there.

const (
	countBytes = 1 << 20 // of one read of the target while what landed is counted
	mostLooked = 1 << 16 // records of the source among which the last one that landed is looked for
)

// decided carries out what an operator has decided about the hold in the cursor, or holds on.
func (m *mirror) decided(ctx, soft context.Context) error {
	held := &holdError{m.at.Hold.Reason, m.at.Hold.Detail}
	if m.at.Decision == "" {
		return held
	}
	return m.carryOut(ctx, soft, m.at.Decision, lease.ByOperator, held)
}

// overrule goes on by the flow's policy where it has one for the hold that ended a run. Like an operator, who sees no other, it acts on
// holds that are confirmed.
func (m *mirror) overrule(ctx, soft context.Context, end error) error {
	held, is := errors.AsType[*holdError](end)
	if !is || m.revision == 0 || soft.Err() != nil {
		return end
	}
	decision := lease.Policy(m.flow, held.Reason)
	if decision == "" {
		return end
	}
	if m.at.Hold.Reason != held.Reason && !m.confirmed(ctx, held.Reason) {
		return end
	}
	if err := m.carryOut(ctx, soft, decision, lease.ByPolicy, held); err != nil {
		return err
	}
	return m.copyOn(ctx, soft)
}

// carryOut starts the next generation where a decision leads, and notes before that what it costs. On an error nothing has moved.
func (m *mirror) carryOut(ctx, soft context.Context, d lease.Decision, by string, held *holdError) error {
	m.at.Map = m.track.Map(m.at.Mapped)
	was := m.at
	err := m.goOn(ctx, soft, d, by, held)
	if err == nil {
		return nil
	}
	m.at = was
	m.resumeTrack()
	if is(err, errYield, errDrain, lease.ErrLost) || soft.Err() != nil {
		return err
	}
	why, isHold := errors.AsType[*holdError](err)
	if _, wrong := errors.AsType[*decisionError](err); !wrong && !(isHold && why.Reason.Decide()) {
		return fmt.Errorf("%s, decided for %s, can't be carried out yet: %v", d, held.Reason, err) // %v: the hold stays what it was
	}
	detail, _, _ := strings.Cut(held.Detail, notCarriedOut)
	refused := &holdError{held.Reason, fmt.Sprintf("%s%s %s: %v", detail, notCarriedOut, d, err)}
	if m.at.Decision != "" {
		m.at.Decision, m.at.Hold.Detail = "", refused.Detail
		m.unsaved, m.unshown = true, true
	}
	return refused
}

// notCarriedOut stands in a hold's detail before the decision that came to nothing.
const notCarriedOut = "; not carried out:"

// decisionError says that a decision makes no sense where the partition stands.
type decisionError struct{ error }

// goOn finds out where the partition stands and where the decision leads from there, notes what that costs, and moves the cursor.
func (m *mirror) goOn(ctx, soft context.Context, d lease.Decision, by string, held *holdError) (err error) {
	was := m.at
	if m.facts, err = m.identify(soft, true); err != nil {
		return err
	}
	m.facts.compacted = m.facts.compacted || m.at.Running // as in open
	if err := m.assume(); err != nil {
		return err
	}
	m.at.Target = -1 // so that no end is taken for a known one
	end, err := m.settledEnd(soft)
	m.at.Target = was.Target
	if err != nil {
		return err
	}
	standing, err := m.standing(soft, held.Reason, end)
	if err != nil {
		return err
	}
	outcome, err := standing.Decide(d)
	if err != nil {
		return &decisionError{err}
	}
	if err := m.note(ctx, outcome, end, d, by, held); err != nil {
		return err
	}
	was = m.at // which may have learnt that something was copied again
	m.at = m.facts.cursor(m.flow)
	m.at.Offset, m.at.Target, m.at.Epoch, m.at.Timestamp, m.at.Producer = outcome.Offset, end, was.Epoch, was.Timestamp, was.Producer
	m.at.Mapped, m.at.ExactlyOnce = outcome.Offset != end, m.doubt()
	if held.Reason != lease.ReasonTargetRecreated { // what landed before is still there
		m.at.Mapped = m.at.Mapped || was.Mapped
		m.at.ExactlyOnce = cmp.Or(m.at.ExactlyOnce, was.ExactlyOnce)
	}
	if err := m.assume(); err != nil { // the topics may be others by now
		return err
	}
	m.moveTrack(was)
	if err := m.nextGeneration(ctx, soft); err != nil {
		return err
	}
	m.published, m.unshown, m.certain = time.Now(), false, true
	m.log.Warn("goes on by decision", "reason", held.Reason, "decision", d, "by", by, "outcome", outcome.String(), "detail", held.Detail)
	m.count.decisions.WithLabelValues(string(held.Reason), decisionLabel(d), by).Inc()
	return nil
}

// decisionLabel is a decision without its offset: there are too many of those for a metric.
func decisionLabel(d lease.Decision) string {
	kind, _, _ := strings.Cut(string(d), ":")
	return kind
}

// standing finds out where the partition stands, given the end of the target's log.
func (m *mirror) standing(soft context.Context, reason lease.Reason, end int64) (s lease.Standing, err error) {
	s = lease.Standing{Reason: reason, Copied: m.at.Offset, Parted: lease.Same, Lost: max(0, m.at.Target-end)}
	restart := lease.RestartAt(m.flow.Start, reason).Timestamp()
	for _, ask := range []struct {
		to        *int64
		timestamp int64
		isolation spec.Isolation
	}{{&s.Start, kafka.Earliest, spec.ReadUncommitted}, {&s.End, kafka.Latest, spec.ReadUncommitted}, {&s.Restart, restart, m.flow.Isolation}} {
		if *ask.to, err = offsetAt(soft, m.source, m.from, ask.timestamp, ask.isolation); err != nil {
			return s, err
		}
	}
	unknown := reason == lease.ReasonNoCursor || reason == lease.ReasonPositionSet && m.at.TargetTopicID == "" // kferry's was not the last
	if reason == lease.ReasonSourceRecreated || unknown {
		return s, nil
	}
	if s.Parted, err = m.parted(soft); err != nil || reason == lease.ReasonTargetRecreated {
		return s, err
	}
	s.Copied, err = m.copiedUpTo(soft, end, s)
	return s, err
}

// parted is the first source offset where the source holds something else than what was copied, because it lost that to a leader that
// never had it.
func (m *mirror) parted(soft context.Context) (int64, error) {
	if m.at.SourceEpoch < 0 {
		return lease.Same, nil
	}
	end, err := m.source.EpochEnd(soft, m.from, m.at.SourceEpoch)
	switch {
	case errors.Is(err, kafka.ErrUnsupportedVersion):
		return lease.Same, nil
	case err != nil:
		return 0, permanent(err)
	case end < 0 || end >= m.at.Offset:
		return lease.Same, nil
	}
	return end, nil
}

// copiedUpTo is the source offset behind what has landed on the target since the cursor, up to an end.
func (m *mirror) copiedUpTo(soft context.Context, end int64, s lease.Standing) (int64, error) {
	uncounted := m.facts.compacted || m.anonymous()
	n := int64(0)
	if !uncounted {
		var err error
		if n, err = m.landedAmid(soft, end); err != nil || n == 0 {
			return m.at.Offset, err
		}
	}
	// Holes in what the source lost can't be counted: from here on it is at least that. Rather copied again than lost.
	least := m.at.Offset + n
	switch {
	case end <= m.at.Target, m.at.Offset > s.End, s.Parted != lease.Same:
		return least, nil
	case m.at.Offset < s.Start:
		return m.behindLast(soft, least, s.Start, end)
	}
	copied, err := m.behind(soft, n, end)
	if _, held := errors.AsType[*holdError](err); held {
		return least, nil
	}
	return copied.offset, err
}

// behindLast is the source offset behind the last record that landed, where the source has lost what lies before and that can't be counted.
// It is the first one that looks like it from the least offset on where it can be, so that nothing is passed over that has not landed.
func (m *mirror) behindLast(soft context.Context, least, start, end int64) (int64, error) {
	b, err := m.readBatch(soft, end-1)
	if expired, err := m.expired(soft, end-1, err); expired || err != nil || !m.ours(b) {
		return least, err
	}
	p := m.printer()
	landed, err := m.appendPrints(nil, p, b, end-1)
	if err != nil || len(landed) == 0 {
		return least, err
	}
	looked := 0
	for r, err := range m.sourcePrints(soft, p, place{max(start, least-1), -1}) {
		switch {
		case err != nil:
			return least, err
		case r.whole == landed[len(landed)-1].whole:
			return r.after.offset, nil
		}
		if looked++; looked == mostLooked {
			break
		}
	}
	return least, nil // it is gone as well
}

// landedAmid counts the records of this identity that have landed since the cursor, whoever else has written among them. Their sequence
// says it.
func (m *mirror) landedAmid(soft context.Context, end int64) (int64, error) {
	start, err := m.target.LogStart(soft, m.to)
	if err != nil {
		return 0, fmt.Errorf("read log start of %s: %w", m.to, err)
	}
	last := m.at.Sequence
	for next, i := max(m.at.Target, start.Offset), 0; next < end; i++ {
		if i == maxScan {
			return 0, fmt.Errorf("scan %s: not at %d after %d reads", m.to, end, maxScan)
		}
		before := next
		if next, err = m.lastSequence(soft, next, &last); err != nil {
			return 0, err
		}
		if next == before {
			return 0, fmt.Errorf("scan %s: nothing at offset %d, before the end %d", m.to, next, end)
		}
	}
	return max(0, int64(lease.SequenceDistance(m.at.Sequence, last))), nil
}

// lastSequence reads the target from an offset on, moves last behind the batches of this identity, and returns the offset behind them.
func (m *mirror) lastSequence(soft context.Context, offset int64, last *int32) (int64, error) {
	select {
	case <-m.yield:
		return 0, errYield
	default:
	}
	piece, err := m.target.Read(soft, m.to, offset, countBytes, spec.ReadUncommitted)
	if err != nil {
		return 0, fmt.Errorf("read back %s at %d: %w", m.to, offset, err)
	}
	defer piece.Release()
	for records := piece.Records; len(records) > 0; {
		b, rest, err := batch.Next(records)
		if errors.Is(err, batch.ErrTruncated) {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("read back %s at %d: %w", m.to, offset, err)
		}
		if m.ours(b) && lease.SequenceDistance(*last, nextSequence(b)) > 0 {
			*last = nextSequence(b)
		}
		offset, records = b.NextOffset(), rest
	}
	return offset, nil
}

// note records what a decision costs, so that it is known for ever.
func (m *mirror) note(ctx context.Context, o lease.Outcome, end int64, d lease.Decision, by string, held *holdError) error {
	if o.Effect == "" {
		return nil
	}
	now := time.Now()
	g := lease.Gap{
		Topic: m.from.Topic, Partition: m.from.Partition, Effect: o.Effect, Reason: held.Reason, Detail: held.Detail, Decision: d, By: by,
		Epoch: m.at.Epoch, From: o.From, To: o.To, Count: o.Count, Target: end, At: now,
	}
	if m.at.Timestamp >= 0 {
		g.Before = time.UnixMilli(m.at.Timestamp)
	}
	if after, err := m.source.Written(ctx, m.from, o.Offset, m.flow.Isolation); err == nil {
		g.After = after.At
	}
	if by == lease.ByOperator {
		g.Acknowledged = now
	}
	if err := m.cursors.PutGap(ctx, g); err != nil {
		return fmt.Errorf("record what %s costs: %w", d, err)
	}
	return nil
}
