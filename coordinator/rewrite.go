package coordinator

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
)

const (
	// restAfter is longer than a worker that lives waits until it publishes its cursor.
	restAfter = 45 * time.Second
	// rewritesAPass bounds what one pass publishes; the next one goes on.
	rewritesAPass = 256
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

// rewrite publishes what workers left behind, so that the target alone is enough to go on from, for kferry and for MirrorMaker.
func (f *flow) rewrite(ctx context.Context, cursors map[kafka.TopicPartition]lease.Cursor, now time.Time) error {
	var g errgroup.Group // the calls go out together in one write
	for _, tp := range f.rests.due(cursors, now) {
		at := f.rests[tp]
		at.moved = false
		f.rests[tp] = at
		if at.cursor.Version != lease.CursorVersion {
			continue // for a kferry that can read it
		}
		g.Go(func() error { return f.cursors.Publish(ctx, tp.Topic, tp.Partition, at.cursor) })
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("publish resting cursors: %w", err)
	}
	return nil
}
