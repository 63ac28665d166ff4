package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// decideTries bounds how often a decision is written anew because a worker wrote the cursor in between.
const decideTries = 3

// A Request is what an operator wants of held partitions.
type Request struct {
	Flow      string
	Topic     string         // on the source; "" is any
	Partition int32          // -1 is any
	Decision  lease.Decision // "" only shows what each would do
	DryRun    bool           // writes nothing
	// Positions are decisions about single partitions, by their source, in whatever state they are. The others are left alone, and
	// Topic, Partition and Decision have no meaning.
	Positions map[kafka.TopicPartition]lease.Decision
}

func (r Request) selects(p Partition) bool {
	return (r.Topic == "" || r.Topic == p.Topic) && (r.Partition < 0 || r.Partition == p.Partition)
}

// asks says whether partitions are named, each of which has to answer. A topic stands for those of it that wait.
func (r Request) asks() bool { return r.Partition >= 0 }

// wanted is what is named, as people read it.
func (r Request) wanted() string {
	switch {
	case !r.asks():
		return fmt.Sprintf("topic %q", r.Topic)
	case r.Topic == "":
		return fmt.Sprintf("partition %d", r.Partition)
	}
	return kafka.TopicPartition{Topic: r.Topic, Partition: r.Partition}.String()
}

// A Resumption is what came of a Request for one partition.
type Resumption struct {
	Partition
	Choices []Choice // what the decision would do, or each where none was given
	Written bool     // the decision is in the cursor
	Err     error    // why nothing was done
}

// A Choice is a decision and what comes of it as far as it can be told from here: a worker also counts what has landed since the cursor.
type Choice struct {
	Decision lease.Decision
	lease.Outcome
	Err error
}

// Resumptions are the partitions that a Request is about.
type Resumptions struct {
	All []Resumption
	// Alone is why the queue does not know of the decisions: they wait on the offsets topic for whoever loads it next. "" where it does.
	Alone string
}

// Resume writes a decision into the cursors of held partitions that wait for one. A worker that runs one of them loses its cursor, and
// ends. Without a queue, which may be nil, it is written to the target alone.
func Resume(ctx context.Context, o Options, r Request) (Resumptions, error) {
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	pairs, found, lanes, errs := discoverAll(ctx, o)
	for i, p := range pairs {
		if p.flow.Name() != r.Flow {
			continue
		}
		if errs[i] != nil {
			return Resumptions{}, fmt.Errorf("%s can't be looked at: %w", r.Flow, errs[i])
		}
		return p.resume(ctx, o.Queue, found[i], lanes, r)
	}
	return Resumptions{}, fmt.Errorf("there is no flow %q", r.Flow)
}

func (p pair) resume(ctx context.Context, queue *lease.Queue, found topics, l *lanes, r Request) (all Resumptions, err error) {
	states, err := queueStates(ctx, queue)
	if err != nil {
		all.Alone, queue = err.Error(), nil
	}
	known, err := p.remember(ctx, queue, found)
	if err != nil {
		return all, err
	}
	plan, ends, err := p.plan(ctx, known, found, states, l)
	if err != nil {
		return all, err
	}
	if r.Positions != nil {
		return all, p.set(ctx, queue, &all, plan, ends, r)
	}
	if !slices.ContainsFunc(plan.Partitions, r.selects) && (r.Topic != "" || r.asks()) {
		return all, fmt.Errorf("%s copies no %s; \"kferry status\" lists what it copies, as it is called on %s", r.Flow, r.wanted(), p.flow.Source)
	}
	for _, at := range plan.Partitions {
		if r.asks() && at.State == Copying && at.Cursor.Foreign { // only the queue would know that it is held
			at.hold(lease.ReasonNoCursor, at.left())
		}
		switch waits := at.State == Held && at.Reason.Decide(); {
		case !r.selects(at):
		case waits:
			all.All = append(all.All, Resumption{Partition: at})
		case r.asks():
			all.All = append(all.All, Resumption{Partition: at, Err: fmt.Errorf("does not wait for a decision: it is %s", label(at.State, at.Reason))})
		}
	}
	if _, from := r.Decision.Offset(); from && len(all.All) > 1 {
		return all, fmt.Errorf("an offset is one partition's, and %d would be concerned: give --topic and --partition", len(all.All))
	}
	for i := range all.All {
		if one := &all.All[i]; one.Err == nil {
			p.decide(ctx, queue, one, ends, r)
		}
	}
	return all, nil
}

// decide computes what a decision would do to one partition, and writes it if it makes sense.
func (p pair) decide(ctx context.Context, queue *lease.Queue, one *Resumption, ends map[kafka.TopicPartition]kafka.Offset, r Request) {
	standing, err := p.standing(ctx, one.Partition, ends)
	if err != nil {
		one.Err = err
		return
	}
	decisions := []lease.Decision{r.Decision}
	if r.Decision == "" {
		decisions = []lease.Decision{lease.AcceptGap, lease.Restart}
	}
	for _, d := range decisions {
		outcome, err := standing.Decide(d)
		one.Choices = append(one.Choices, Choice{d, outcome, err})
		one.Err = errors.Join(one.Err, err)
	}
	if r.Decision == "" || r.DryRun || one.Err != nil {
		return
	}
	if queue == nil {
		one.Err = p.decideAlone(ctx, one.Partition, r.Decision)
	} else {
		one.Err = p.decideInQueue(ctx, queue, one.Partition, r.Decision)
	}
	one.Written = one.Err == nil
}

// standing is where a held partition stands, from the cursor and the ends of the logs.
func (p pair) standing(ctx context.Context, at Partition, ends map[kafka.TopicPartition]kafka.Offset) (s lease.Standing, err error) {
	tp := at.Source()
	s = lease.Standing{Reason: at.Reason, Copied: at.Cursor.Offset, Parted: lease.Same}
	if end, known := ends[at.copied()]; known && end.Err == nil {
		s.Lost = max(0, at.Cursor.Target-end.Offset)
	}
	start := lease.RestartAt(p.flow.Start, at.Reason).Timestamp()
	for _, ask := range []struct {
		to        *int64
		timestamp int64
		isolation spec.Isolation
	}{{&s.Start, kafka.Earliest, spec.ReadUncommitted}, {&s.End, kafka.Latest, spec.ReadUncommitted}, {&s.Restart, start, p.flow.Isolation}} {
		offsets, err := p.source.ListOffsets(ctx, []kafka.TopicPartition{tp}, ask.timestamp, ask.isolation)
		if err = errors.Join(err, offsets[tp].Err); err != nil {
			return s, fmt.Errorf("list offsets of %s: %w", tp, err)
		}
		if *ask.to = offsets[tp].Offset; *ask.to < 0 { // later than every record
			*ask.to = s.End
		}
	}
	// As a worker asks it: whatever the hold is for, the source may have lost what was copied as well.
	another := at.Reason == lease.ReasonSourceRecreated || at.Reason == lease.ReasonNoCursor || at.Cursor.Foreign
	if epoch := at.Cursor.SourceEpoch; at.Begun && epoch >= 0 && !another {
		if end, err := p.source.EpochEnd(ctx, tp, epoch); err == nil && end >= 0 && end < s.Copied {
			s.Parted = end
		}
	}
	return s, nil
}

// decideInQueue writes a decision to the queue, where it fences a worker off, and to the offsets topic, where it survives.
func (p pair) decideInQueue(ctx context.Context, queue *lease.Queue, at Partition, d lease.Decision) error {
	cursors := queue.Cursors(p.flow, p.target)
	for range decideTries {
		cursor, revision, err := cursors.Get(ctx, at.Topic, at.Partition)
		fresh := errors.Is(err, lease.ErrNoCursor)
		switch {
		case errors.Is(err, lease.ErrNotLoaded):
			return p.decideAlone(ctx, at, d) // and whoever loads the queue finds it
		case err != nil && !fresh:
			return err
		case at.Reason == lease.ReasonPositionSet: // wherever it is by now
		case at.Begun && !at.Cursor.Foreign && cursor.Newer(at.Cursor) && cursor.Hold.Reason != at.Reason:
			return errors.New("has gone on meanwhile")
		}
		cursor = cursor.Decided(at.held(), d, time.Now())
		if fresh {
			_, err = cursors.Create(ctx, at.Topic, at.Partition, cursor)
		} else {
			_, err = cursors.Commit(ctx, at.Topic, at.Partition, cursor, revision)
		}
		if errors.Is(err, lease.ErrLost) {
			continue
		}
		if err == nil {
			err = cursors.Publish(ctx, at.Topic, at.Partition, cursor)
		}
		if err == nil {
			err = queue.ClearState(ctx, lease.Task{Kind: lease.KindMirror, Flow: p.flow.Name(), Topic: at.Topic, Partition: at.Partition})
		}
		return err
	}
	return fmt.Errorf("its cursor was written by others, %d times in a row: try again", decideTries)
}

// decideAlone writes a decision to the offsets topic.
func (p pair) decideAlone(ctx context.Context, at Partition, d lease.Decision) error {
	return lease.WriteCursor(ctx, p.flow, p.target, at.Topic, at.Partition, at.Cursor.Decided(at.held(), d, time.Now()))
}

// held is the hold that the partition is in.
func (p Partition) held() lease.Hold {
	h := lease.Hold{Reason: p.Reason, Detail: p.Detail, Since: p.Since}
	if h.Since.IsZero() {
		h.Since = time.Now()
	}
	return h
}
