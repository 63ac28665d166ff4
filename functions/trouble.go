package functions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/kferry/kferry/shared/batch"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
)

// Failures are decided here and nowhere else: what an answer of a broker means for the run, and what a run's end means for its task.

const (
	examineEvery  = lease.LongestWait // a held task is looked at again
	confirmAfter  = 3 * time.Second   // a hold that will wait for a person is looked at a second time
	concludeLimit = 5 * time.Second   // to give a lease back and say why
	retryFirst    = 250 * time.Millisecond
	retryPassing  = 3 * time.Second   // most, after what passes by itself: a broker that is back is found within that
	retryMost     = lease.LongestWait // most, after anything else
)

var (
	errYield   = errors.New("the worker wants the lease back for a waiting task, or the flow rests")
	errDrain   = errors.New("the worker drains")
	errLate    = errors.New("nothing was fetched yet")
	errNoTime  = errors.New("the time of a run was used up before it was known what has landed: give KFERRY_RUN_TIME more")
	errUnheard = errors.New("the time of a run was used up before the source had sent anything: give KFERRY_RUN_TIME more")
	errOver    = fmt.Errorf("the run did not end within %s after its time was used up", overrun)
)

// holdError says that a task can't go on, why, and what to do.
type holdError struct {
	Reason lease.Reason
	Detail string
}

func (e *holdError) Error() string { return fmt.Sprintf("held (%s): %s", e.Reason, e.Detail) }

func hold(reason lease.Reason, format string, args ...any) error {
	return &holdError{reason, fmt.Sprintf(format, args...)}
}

// unknownError says that a produce request was not acknowledged: whether it landed only the target's log can tell.
type unknownError struct {
	m     *mirror
	cause error
}

func (e *unknownError) Error() string { return fmt.Sprintf("write to %s: %v", e.m.to, e.cause) }
func (e *unknownError) Unwrap() error { return e.cause }

// mayLand says that the request may have landed, or may still: all but what a broker refuses before it appends anything.
func (e *unknownError) mayLand() bool {
	return !is(e.cause, kafka.ErrNotEnoughReplicas, kafka.ErrMessageTooLarge, kafka.ErrRecordListTooLarge)
}

// verdict is what remains when the position was found again and again and nothing came of it.
func (e *unknownError) verdict() error {
	if errors.Is(e.cause, kafka.ErrOutOfOrderSequence) {
		return hold(lease.ReasonSequence, "%s refuses sequence %d although its log ends just before it: %v", e.m.to, e.m.at.Sequence, e.cause)
	}
	return fmt.Errorf("write to %s: %w", e.m.to, e.cause)
}

// refusesProducer are the answers of a target that takes no producer id which it has not issued, or none at all. Apache's brokers take
// any.
var refusesProducer = []error{kafka.ErrProducerIDMapping, kafka.ErrUnknownProducer, kafka.ErrInvalidRequest, kafka.ErrUnsupportedForFormat}

// refused decides by the answer to a produce request. What a broker refuses for good did not land.
func (m *mirror) refused(err error, b batch.Batch) error {
	refusal := fmt.Sprintf("%s refuses the batch of %d records and %d bytes that follows source offset %d: %v", m.to, b.Records(), len(b), m.at.Offset, err)
	what := func(reason lease.Reason) error { return hold(reason, "%s", refusal) }
	switch {
	case is(err, kafka.ErrMessageTooLarge, kafka.ErrRecordListTooLarge) && b.Records() > 1:
		m.splitBytes = len(b) / 2 // the target compresses anew, or its limit was lowered
		return &unknownError{m, err}
	case m.at.Sequence == 0 && is(err, refusesProducer...):
		return &unknownError{m, err}
	case is(err, kafka.ErrMessageTooLarge, kafka.ErrRecordListTooLarge):
		return what(lease.ReasonRecordTooLarge)
	case is(err, kafka.ErrInvalidTimestamp):
		return hold(lease.ReasonInvalidRecord, "%s: %s", refusal, m.timestampLimit(b.MaxTimestamp()))
	case is(err, kafka.ErrInvalidRecord, kafka.ErrPolicyViolation):
		return what(lease.ReasonInvalidRecord)
	case is(err, kafka.ErrCorruptMessage):
		return what(lease.ReasonCorruptBatch)
	case is(err, kafka.ErrUnsupportedVersion, kafka.ErrUnsupportedForFormat, kafka.ErrUnsupportedCompression, kafka.ErrTransactionalIDAuth):
		return what(lease.ReasonUnsupported)
	case kafka.Denied(err):
		return hold(lease.ReasonAuthorization, "no right to write to %s: %v", m.to, err)
	case is(err, lease.ErrLost, kafka.ErrUnknownTopicID, kafka.ErrInconsistentTopicID):
		return fmt.Errorf("write to %s: %w", m.to, err) // the next claim sees what became of the topic
	}
	return &unknownError{m, err}
}

// timestampLimit names the setting that a batch with a newest timestamp (milliseconds) exceeds, and what to set. The broker has only said
// that one is exceeded: where it isn't the one for the future, it is the one for the past.
func (m *mirror) timestampLimit(newest int64) string {
	limits := limitsIn(m.facts.target.configs)
	ahead := newest - time.Now().UnixMilli()
	limit, least := timestampBefore, "what its oldest record needs"
	if after := limits.timestamp(timestampAfter); ahead > after {
		limit, least = timestampAfter, fmt.Sprintf("more than %d", ahead)
	}
	if _, known := limits[limit]; !known {
		limit = timestampWithin
	}
	return fmt.Sprintf("raise %s of %s, which is %d, to %s (%d is no limit)", limit, m.to.Topic, limits[limit], least, int64(math.MaxInt64))
}

// unread decides by the error of a fetch.
func (m *mirror) unread(soft context.Context, err error) error {
	switch {
	case errors.Is(err, errYield):
		return err
	case errors.Is(err, kafka.ErrOffsetOutOfRange):
		return m.outOfRange(soft)
	case isDiverged(err):
		return m.diverged(soft, err)
	case errors.Is(err, kafka.ErrCorruptMessage):
		return hold(lease.ReasonCorruptBatch, "%s can't read %s at offset %d itself: %v", m.flow.Source, m.from, m.at.Offset, err)
	}
	return fmt.Errorf("read %s at %d: %w", m.from, m.at.Offset, permanent(err))
}

// outOfRange says on which side of the source's log the cursor lies.
func (m *mirror) outOfRange(soft context.Context) error {
	start, err := m.source.LogStart(soft, m.from)
	if err != nil {
		return fmt.Errorf("read log start of %s: %w", m.from, err)
	}
	if m.at.Offset < start.Offset {
		return hold(lease.ReasonRetentionGap, "%s begins at offset %d, the next one to copy was %d: the offsets between are gone from the source", m.from, start.Offset, m.at.Offset)
	}
	end, err := m.source.LogEnd(soft, m.from)
	if err != nil {
		return fmt.Errorf("read log end of %s: %w", m.from, err)
	}
	if m.at.Offset > end.Offset {
		return hold(lease.ReasonSourceTruncated, "%s ends at offset %d, before the next one to copy, %d: the source lost records that were copied", m.from, end.Offset, m.at.Offset)
	}
	if end.LeaderEpoch >= 0 && end.LeaderEpoch < m.at.SourceEpoch {
		return hold(lease.ReasonSourceRecreated, "%s on %s was deleted and created again: its leader epoch is %d, the cursor was written in %d", m.from.Topic, m.flow.Source, end.LeaderEpoch, m.at.SourceEpoch)
	}
	if m.at.SourceEpoch >= 0 { // a leader that can't tell where that epoch ended answers so too
		m.at.SourceEpoch = -1
		m.unsaved = true
	}
	return fmt.Errorf("read %s at %d, which lies within its log: %w", m.from, m.at.Offset, kafka.ErrOffsetOutOfRange)
}

func isDiverged(err error) bool {
	_, is := errors.AsType[*kafka.DivergedError](err)
	return is
}

// diverged is what follows when the source's log was cut before the cursor and has grown again: with other records. A leader that copied a
// compacted log never met the epochs of which nothing was left, and answers much the same; there the end lies behind the cursor.
func (m *mirror) diverged(soft context.Context, err error) error {
	end, wrong := m.source.LogEnd(soft, m.from)
	if wrong != nil {
		return fmt.Errorf("read log end of %s: %w", m.from, wrong)
	}
	if m.at.Offset > end.Offset {
		return m.outOfRange(soft)
	}
	diverged, _ := errors.AsType[*kafka.DivergedError](err)
	if m.facts.compacted && diverged.EndOffset >= m.at.Offset {
		m.at.SourceEpoch = -1
		m.unsaved = true
		return fmt.Errorf("read %s at %d: %w", m.from, m.at.Offset, err)
	}
	return hold(lease.ReasonSourceTruncated, "%s lost the records from offset %d to %d that had been copied, and has written others there (unclean leader election): its leader epoch %d ended at %d, the cursor is of epoch %d",
		m.from, min(diverged.EndOffset, m.at.Offset), m.at.Offset-1, diverged.Epoch, diverged.EndOffset, m.at.SourceEpoch)
}

// permanent makes a hold of what will not pass by itself within a few tries: a missing right, a request that the broker does not know.
func permanent(err error) error {
	switch {
	case kafka.Denied(err):
		return hold(lease.ReasonAuthorization, "%v", err)
	case errors.Is(err, kafka.ErrUnsupportedVersion):
		return hold(lease.ReasonUnsupported, "%v", err)
	}
	return err
}

// drained says that a task ended for the drain, which breaks its requests off, unless it had come to an end of its own. A run that was broken
// off since it did not keep its time has failed: else nobody would hear of one that never does.
func drained(soft context.Context, err error) error {
	_, held := errors.AsType[*holdError](err)
	if err == nil || soft.Err() == nil || held || errors.Is(err, lease.ErrLost) {
		return err
	}
	switch over := errors.Is(context.Cause(soft), errOver); {
	case over && errors.Is(err, errYield):
		return err
	case over && errors.Is(err, errDrain):
		return errOver
	case over:
		return fmt.Errorf("%w: %w", errOver, err)
	}
	return errDrain
}

// confirmed says whether a hold goes into the cursor. One that waits for a person must be met twice in a row: a broker that lags behind
// the others may show what is not so. The state has it from the first time on.
func (m *mirror) confirmed(ctx context.Context, reason lease.Reason) bool {
	if !reason.Decide() {
		return true
	}
	last, err := m.lastState(ctx)
	return err == nil && last.Reason == reason
}

// conclude deals with how a task ended: the lease goes back or away, and its state tells people why and the coordinator when to offer
// it again.
func (w *Worker) conclude(ctx context.Context, t *tenancy, err error) {
	log := w.Logger.With("task", t.Task.String())
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), concludeLimit) // also when the drain took too long
	defer cancel()
	var end error
	switch {
	case err == nil:
		end = w.settle(ctx, t)
	case errors.Is(err, lease.ErrLost):
		w.metrics.lost.Inc()
		log.Info("lost a lease", "cause", err)
		return // not ours any more: neither to release nor to speak for
	case errors.Is(err, errDrain):
		<-w.claimed // a claim that is still under way would swallow what comes back
		end = w.handBack(ctx, t)
	case errors.Is(err, errYield):
		end = w.handBack(ctx, t)
	default:
		end = w.adjourn(ctx, t, err)
	}
	if end != nil {
		log.Warn("could not release a lease; it comes back when its time is over", "error", end)
	}
}

// handBack gives a lease back with work left, for another worker; where the flow rests, for nobody. Where it may have only so many, the
// coordinator knows whose turn it is.
func (w *Worker) handBack(ctx context.Context, t *tenancy) error {
	flow, _ := w.Spec.Flow(t.Task.Flow)
	if flow.MaxLeases > 0 && t.Task.Kind == lease.KindMirror || w.resting(t.Task) {
		return t.Release(ctx)
	}
	return t.HandBack(ctx)
}

// settle releases a lease whose work is done.
func (w *Worker) settle(ctx context.Context, t *tenancy) error {
	w.forgive(ctx, t.Task)
	return t.Release(ctx)
}

// forgive forgets the last failure of a task that goes on.
func (w *Worker) forgive(ctx context.Context, task lease.Task) {
	_, failed, err := w.Queue.State(ctx, task)
	if err == nil && failed {
		err = w.Queue.ClearState(ctx, task)
	}
	if err != nil {
		w.Logger.Warn("could not clear the state of a task that goes on", "task", task.String(), "error", err)
	}
}

// adjourn releases a lease whose work failed, and notes when to try again.
func (w *Worker) adjourn(ctx context.Context, t *tenancy, cause error) error {
	last, _, err := w.Queue.State(ctx, t.Task)
	if err != nil {
		return err
	}
	if _, held := errors.AsType[*holdError](cause); !held && kafka.Denied(cause) {
		cause = hold(lease.ReasonAuthorization, "%v", cause)
	}
	now := time.Now()
	s := lease.State{Reason: cmp.Or(lease.Away(cause), lease.ReasonError), Detail: cause.Error(), Attempts: last.Attempts + 1, Since: last.Since, Worker: w.host,
		Done: t.done, Synced: last.Synced, SyncedAt: last.SyncedAt}
	if s.Since.IsZero() {
		s.Since = now
	}
	most := retryMost
	if passes(cause) {
		most = retryPassing
	}
	s.Next = now.Add(min(most, retryFirst<<min(s.Attempts-1, 10)))
	level := w.Logger.Warn
	if held, ok := errors.AsType[*holdError](cause); ok {
		s.Reason, s.Detail, s.Held, s.Next = held.Reason, held.Detail, true, now.Add(examineEvery)
		if s.Reason.Decide() && last.Reason != s.Reason {
			s.Next = now.Add(confirmAfter)
		}
	}
	unlike := s.Reason == lease.ReasonDigest // alike for all partitions, and after a run of another worker
	if !unlike && last.Reason == s.Reason || unlike && !w.warnOnce(s.Detail) {
		level = w.Logger.Debug // said before
	}
	w.metrics.failures.WithLabelValues(t.Task.Flow, string(s.Reason)).Inc()
	level("task stopped", "task", t.Task.String(), "reason", s.Reason, "detail", s.Detail, "next", s.Next)
	if err := w.Queue.PutState(ctx, t.Task, s); err != nil {
		return err
	}
	return t.Release(ctx)
}

// passes says that the cause is likely to go away by itself: a cluster or the queue is away, or has just come back. Partitions share the
// requests that find out, so that many tries cost little; those that would log in again wait for each other (login.Client).
func passes(cause error) bool {
	return kafka.Retriable(cause) || is(cause, lease.ErrUnreachable, lease.ErrNotLoaded)
}

func is(err error, targets ...error) bool {
	for _, t := range targets {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}
