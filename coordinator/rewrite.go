package coordinator

import (
	"context"
	"sync"
	"time"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
)

const (
	// restAfter is longer than a worker that lives waits until it publishes its cursor.
	restAfter = 45 * time.Second
	// rewritesAPass bounds what one pass publishes; the next one goes on.
	rewritesAPass = 256
	rewriteEvery  = PassInterval
)

// rests finds the cursors that a worker committed and may not have published, because it died: they moved, and then rested for
// longer than a living worker would have kept them to itself. Publishing one again that the worker did publish costs a record; to read
// the offsets topic back, so as to know, would cost the whole topic.
type rests map[kafka.TopicPartition]rest

type rest struct {
	cursor lease.Cursor
	since  time.Time
	moved  bool // since it was last published here, or seen first: then Load has just made both copies agree
}

// due takes the cursors of a pass and returns those to publish.
func (r rests) due(cursors map[kafka.TopicPartition]lease.Cursor, now time.Time) (due []kafka.TopicPartition) {
	for tp, cursor := range cursors {
		last, known := r[tp]
		if !known || last.cursor != cursor {
			r[tp] = rest{cursor: cursor, since: now, moved: known}
			continue
		}
		if last.moved && now.Sub(last.since) >= restAfter && len(due) < rewritesAPass {
			due = append(due, tp)
		}
	}
	return due
}

// rewrite publishes what workers left behind, so that the target alone is enough to go on from, for kferry and for MirrorMaker. It runs
// beside the passes, which a partition of the offsets topic without a leader must not hold up.
func (f *flow) rewrite(ctx context.Context) error {
	r := rests{}
	for sleep(ctx, rewriteEvery) {
		asking, cancel := context.WithTimeout(ctx, passTimeout)
		cursors, err := f.cursors.All(asking)
		cancel()
		if err == nil { // a queue that doesn't answer is reported by the passes
			f.publishResting(ctx, r, cursors)
		}
	}
	return nil
}

// publishResting publishes what is due, in as few writes as that takes. What can't be published stays due.
func (f *flow) publishResting(ctx context.Context, r rests, cursors map[kafka.TopicPartition]lease.Cursor) {
	due := r.due(cursors, time.Now())
	failed := make([]error, len(due))
	var g sync.WaitGroup
	for i, tp := range due {
		if cursor := r[tp].cursor; cursor.Version == lease.CursorVersion { // any other is for a kferry that can read it
			g.Go(func() { failed[i] = f.publishRested(ctx, tp, cursor) })
		}
	}
	g.Wait()
	for i, tp := range due {
		if failed[i] != nil {
			f.log.Warn("could not publish a resting cursor; trying again", "partition", tp.String(), "error", failed[i])
			continue
		}
		at := r[tp]
		at.moved = false
		r[tp] = at
	}
}

// publishRested publishes a cursor. What a MirrorMaker that runs beside has committed is not written over: only a partition that is held
// rests while it does, and a hold is rare enough to read the topic for it.
func (f *flow) publishRested(ctx context.Context, tp kafka.TopicPartition, cursor lease.Cursor) error {
	if cursor.Hold.Reason != "" {
		if _, left, err := f.cursors.Left(ctx, tp.Topic, tp.Partition); left || err != nil {
			return err
		}
	}
	return f.cursors.Publish(ctx, tp.Topic, tp.Partition, cursor)
}
