package lease

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/mm2"
)

// Bounds of loading.
const (
	loadPasses  = 5  // until no worker commits in between
	loadWriters = 32 // keys written at one time
	// topicVisible is how long a created topic may take to show up.
	topicVisible     = 10 * time.Second
	topicVisibleStep = 100 * time.Millisecond
)

// offsetsSegment keeps the offsets topic short, since coordinators read it whole when they start.
const offsetsSegment = "16777216"

// errIncarnation means that NATS lost its store while cursors were loaded into it.
var errIncarnation = errors.New("the bucket was created again while cursors were loaded")

// incarnationKey has one revision for as long as the bucket lives.
const incarnationKey = "incarnation"

func loadedKey(flow string) string { return "loaded." + flow }

// Load takes over the cursors and notes that the offsets topic holds, lets workers believe in KV then, and writes back what the topic lacks: coordinators
// call it when they start, and whenever Loaded says no. It creates the topic where it is missing. Any number may load at once,
// while workers commit.
//
// It has to read all of the topic. Where part of it can't be written, Load logs that and is done all the same: those cursors stay
// behind on the topic until they move or somebody loads again, and nobody else has to wait for them.
func (c *Cursors) Load(ctx context.Context) error {
	if err := c.load(ctx); err != nil {
		return fmt.Errorf("load cursors of %s: %w", c.flow.Name(), err)
	}
	return nil
}

func (c *Cursors) load(ctx context.Context) error {
	if err := c.ensureTopic(ctx); err != nil {
		return err
	}
	for pass := range loadPasses {
		incarnation, err := c.incarnation(ctx)
		if err != nil {
			return err
		}
		lacking, raced, err := c.agree(ctx)
		if err != nil {
			return err
		}
		if raced > 0 && pass < loadPasses-1 {
			continue // a worker or another coordinator wrote in between; look again
		}
		if raced > 0 { // a worker copies where MM2 wrote last; what it commits is true all the same
			c.queue.options.Logger.Warn("cursors changed while they were loaded", "flow", c.flow.Name(), "count", raced)
		}
		switch err := c.mark(ctx, incarnation); {
		case err == nil:
			return c.writeBack(ctx, lacking)
		case !errors.Is(err, errIncarnation):
			return err
		}
	}
	return fmt.Errorf("%w, %d times in a row", errIncarnation, loadPasses)
}

// unpublished is what the offsets topic lacks.
type unpublished struct {
	cursors map[kafka.TopicPartition]entry
	notes   []kafka.Record
}

// agree is one pass over all cursors and notes. It makes KV say what the topic says, and returns what the topic lacks, and how many
// cursors could not be settled because somebody else wrote them.
func (c *Cursors) agree(ctx context.Context) (lacking unpublished, raced int64, err error) {
	kept, err := c.kept(ctx) // first, so that what a worker commits during the pass makes the compare-and-set fail
	if err != nil {
		return lacking, 0, err
	}
	published, err := readPublished(ctx, c.flow, c.target)
	if err != nil {
		return lacking, 0, err
	}
	if lacking.notes, err = c.agreeOnNotes(ctx, published.notes); err != nil {
		return lacking, 0, err
	}
	var lostRaces atomic.Int64
	var writes errgroup.Group
	writes.SetLimit(loadWriters)
	lacking.cursors = map[kafka.TopicPartition]entry{}
	for tp := range union(kept, published.cursors) {
		switch e := kept[tp]; settle(published.cursors[tp], e.value) {
		case keepBoth:
		case publishKept:
			lacking.cursors[tp] = e
		case takePublished:
			writes.Go(func() error { return countLost(&lostRaces, c.take(ctx, tp, published.cursors[tp], e)) })
		case forgetKept:
			writes.Go(func() error {
				return countLost(&lostRaces, c.delete(ctx, tp.Topic, tp.Partition, e.revision))
			})
		}
	}
	err = writes.Wait()
	return lacking, lostRaces.Load(), err
}

// writeBack puts on the topic what it lacks. A cursor that a worker has replaced since is left to that worker: it may be on the
// topic already, in a later generation, and this one would lie above it.
func (c *Cursors) writeBack(ctx context.Context, lacking unpublished) error {
	if len(lacking.cursors)+len(lacking.notes) == 0 {
		return nil
	}
	kept, err := c.kept(ctx)
	if err != nil {
		return err
	}
	all := lacking.notes
	for tp, e := range lacking.cursors {
		if kept[tp].revision == e.revision {
			all = append(all, kafka.Record{Key: c.flow.Key(tp.Topic, tp.Partition), Value: e.value})
		}
	}
	records := map[int32][]kafka.Record{} // by partition of the topic
	for _, r := range all {
		if err := c.place(ctx, &r); err != nil {
			return err
		}
		records[r.Partition] = append(records[r.Partition], r)
	}
	var writes sync.WaitGroup
	for partition, records := range records {
		writes.Go(func() {
			if err := c.writeAll(ctx, records); err != nil {
				c.queue.options.Logger.Warn("offsets topic stays behind", "flow", c.flow.Name(), "topic", c.flow.OffsetsTopic,
					"partition", partition, "records", len(records), "error", err)
			}
		})
	}
	writes.Wait()
	return context.Cause(ctx)
}

// writeAll writes records of one partition of the topic.
func (c *Cursors) writeAll(ctx context.Context, records []kafka.Record) error {
	for chunk := range slices.Chunk(records, publishRecords) {
		if err := c.write(ctx, chunk); err != nil {
			return err
		}
	}
	return nil
}

func countLost(n *atomic.Int64, err error) error {
	if errors.Is(err, ErrLost) {
		n.Add(1)
		return nil
	}
	return err
}

func union(a map[kafka.TopicPartition]entry, b map[kafka.TopicPartition]*kafka.Record) map[kafka.TopicPartition]struct{} {
	all := make(map[kafka.TopicPartition]struct{}, max(len(a), len(b)))
	for tp := range a {
		all[tp] = struct{}{}
	}
	for tp := range b {
		all[tp] = struct{}{}
	}
	return all
}

// kept returns what the bucket holds of this flow.
func (c *Cursors) kept(ctx context.Context) (map[kafka.TopicPartition]entry, error) {
	var entries []entry
	err := c.queue.call(ctx, "read bucket", func(ctx context.Context) (err error) {
		entries, err = c.queue.current().cursors.changes(ctx, c.queue.conn, c.key("*", "*"), 0)
		return err
	})
	kept := make(map[kafka.TopicPartition]entry, len(entries))
	for _, e := range entries {
		if tp, err := parseKey(e.key); err == nil && !e.deleted {
			kept[tp] = e
		}
	}
	return kept, err
}

// An agreement is what makes the two copies of a cursor say the same.
type agreement int

const (
	keepBoth      agreement = iota
	publishKept             // write KV's to the topic
	takePublished           // write the topic's to KV
	forgetKept              // delete KV's
)

// settle decides between the topic's record, if any, and KV's value, if any.
func settle(published *kafka.Record, kept []byte) agreement {
	if published == nil {
		return settleUnpublished(kept)
	}
	if len(published.Value) == 0 {
		return settleForgotten(kept)
	}
	if len(kept) == 0 {
		return takePublished
	}
	theirs, theirErr := decodeCursor(published.Value)
	ours, ourErr := decodeCursor(kept)
	switch {
	case ourErr != nil: // for a kferry that can read it
		return keepBoth
	case theirErr != nil:
		return takePublished
	case theirs.Foreign && ours.Foreign && theirs.Offset == ours.Offset:
		return keepBoth
	case theirs.Foreign, ours.Foreign: // MM2 wrote last, or kferry did since
		return takePublished
	case theirs.Newer(ours):
		return takePublished
	case bytes.Equal(published.Value, kept):
		return keepBoth
	}
	return publishKept
}

// settleUnpublished is about a key that the topic doesn't have: it was never written there, or the topic is new.
func settleUnpublished(kept []byte) agreement {
	cur, err := decodeCursor(kept)
	switch {
	case len(kept) == 0 || err != nil:
		return keepBoth
	case cur.Foreign:
		return forgetKept
	}
	return publishKept
}

// settleForgotten is about a tombstone. It doesn't reach a cursor that has counted nothing: that one may have been created
// since, with its record still on the way.
func settleForgotten(kept []byte) agreement {
	cur, err := decodeCursor(kept)
	switch {
	case len(kept) == 0 || err != nil:
		return keepBoth
	case cur.beginning():
		return publishKept
	}
	return forgetKept
}

// take puts the topic's record into KV, in the place of what was there.
func (c *Cursors) take(ctx context.Context, tp kafka.TopicPartition, published *kafka.Record, was entry) error {
	value := published.Value
	if cur, err := decodeCursor(value); err == nil {
		value = cur.encode() // marks a foreign one
	}
	_, err := c.putValue(ctx, c.keyOf(tp.Topic, tp.Partition), value, was.revision)
	return err
}

// incarnation returns the revision that stands for this life of the bucket.
func (c *Cursors) incarnation(ctx context.Context) (uint64, error) {
	revision, err := c.putValue(ctx, incarnationKey, []byte("1"), 0)
	if !errors.Is(err, ErrLost) {
		return revision, err
	}
	found, err := c.read(ctx, incarnationKey)
	return found.revision, err
}

// mark lets workers believe in KV, on condition that it still is the bucket that was loaded.
func (c *Cursors) mark(ctx context.Context, incarnation uint64) error {
	return c.queue.call(ctx, "mark as loaded", func(ctx context.Context) error {
		b := c.queue.current().cursors
		_, err := c.queue.js.Publish(ctx, b.written(loadedKey(escape(c.flow.Name()))), []byte(c.loadedFrom()),
			jetstream.WithExpectLastSequenceForSubject(incarnation, b.subject(incarnationKey)))
		if errors.Is(lost(err), ErrLost) {
			return errIncarnation
		}
		return err
	})
}

// loadedFrom is the mark's text: an input that names another topic or connector has to be loaded again.
func (c *Cursors) loadedFrom() string { return c.flow.Connector + " " + c.flow.OffsetsTopic }

// Loaded says whether the bucket holds what the offsets topic holds. While it doesn't, workers hand their leases back.
func (c *Cursors) Loaded(ctx context.Context) (bool, error) {
	switch err := c.CheckLoaded(ctx); {
	case errors.Is(err, ErrNotLoaded):
		return false, nil
	default:
		return err == nil, err
	}
}

// CheckLoaded is ErrNotLoaded, and why, where Loaded says no.
func (c *Cursors) CheckLoaded(ctx context.Context) error {
	mark, err := c.read(ctx, loadedKey(escape(c.flow.Name())))
	switch {
	case err != nil:
		return err
	case mark.deleted || len(mark.value) == 0:
		return ErrNotLoaded
	case string(mark.value) != c.loadedFrom():
		return fmt.Errorf("%w: a coordinator keeps those of %s under connector and topic %q, and this process' specification under %q: give coordinators and workers the same file and variables",
			ErrNotLoaded, c.flow.Name(), mark.value, c.loadedFrom())
	}
	return nil
}

// unload takes the mark back.
func (c *Cursors) unload(ctx context.Context) error {
	return c.queue.call(ctx, "take the loaded mark back", func(ctx context.Context) error {
		return c.queue.current().cursors.kv.Delete(ctx, loadedKey(escape(c.flow.Name())))
	})
}

// ensureTopic creates the offsets topic as Connect would, and refuses one that would lose cursors.
func (c *Cursors) ensureTopic(ctx context.Context) error {
	name := c.flow.OffsetsTopic
	_, err := c.target.Topic(ctx, name)
	if errors.Is(err, kafka.ErrUnknownTopic) {
		return c.createTopic(ctx)
	}
	if err != nil {
		return fmt.Errorf("look at %s on %s: %w", name, c.target.Alias(), err)
	}
	configs, err := c.target.Configs(ctx, []string{name})
	if err != nil || configs[name].Err != nil {
		return nil // no permission to look; Connect goes on then, too
	}
	for _, e := range configs[name].Entries {
		if e.Name == "cleanup.policy" && e.Value != "compact" {
			return fmt.Errorf("offsets topic %s on %s has cleanup.policy=%s and would lose the cursors of quiet partitions: set cleanup.policy=compact",
				name, c.target.Alias(), e.Value)
		}
	}
	return nil
}

func (c *Cursors) createTopic(ctx context.Context) error {
	name := c.flow.OffsetsTopic
	err := c.target.CreateTopic(ctx, kafka.NewTopic{
		Name: name, Partitions: mm2.OffsetsPartitions, ReplicationFactor: c.flow.OffsetsReplicationFactor,
		Configs: map[string]string{"cleanup.policy": "compact", "segment.bytes": offsetsSegment},
	})
	if err != nil && !errors.Is(err, kafka.ErrTopicExists) {
		return fmt.Errorf("create %s on %s: %w", name, c.target.Alias(), err)
	}
	ctx, cancel := context.WithTimeout(ctx, topicVisible)
	defer cancel()
	for {
		_, err := c.target.Topic(ctx, name)
		if !errors.Is(err, kafka.ErrUnknownTopic) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("created, but not there after %s: %w", topicVisible, err)
		case <-time.After(topicVisibleStep):
		}
	}
}
