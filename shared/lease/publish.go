package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// Bounds of writing to the offsets topic.
const (
	publishRecords = 1_000 // in one write
	publishTime    = 15 * time.Second
)

// Publish writes a cursor to the offsets topic, where it survives NATS and where MM2 finds it. Cursors of callers that meet go out
// in one write. A foreign cursor is MM2's to write, and is left alone.
func (c *Cursors) Publish(ctx context.Context, topic string, partition int32, cur Cursor) error {
	if cur.Foreign {
		return nil
	}
	err := c.publish(ctx, kafka.Record{Key: c.flow.Key(topic, partition), Value: cur.encode()})
	return wrap(err, "publish cursor of %s %s-%d", c.flow.Name(), topic, partition)
}

func (c *Cursors) publish(ctx context.Context, r kafka.Record) error {
	if err := c.place(ctx, &r); err != nil {
		return err
	}
	return c.publisher(r.Partition).publish(ctx, r)
}

// place puts a record where Java's partitioner would. kferry doesn't grow the topic.
func (c *Cursors) place(ctx context.Context, r *kafka.Record) error {
	partitions, err := c.target.PartitionCount(ctx, c.flow.OffsetsTopic)
	if err != nil {
		return c.topicLost(ctx, fmt.Errorf("look at %s on %s: %w", c.flow.OffsetsTopic, c.target.Alias(), err))
	}
	r.Partition = mm2.OffsetsPartition(r.Key, partitions)
	return nil
}

// WriteCursor is Publish without a queue: on the offsets topic alone, where the next Load finds it.
func WriteCursor(ctx context.Context, flow spec.Flow, target *kafka.Cluster, topic string, partition int32, cur Cursor) error {
	return writeAlone(ctx, flow, target, kafka.Record{Key: flow.Key(topic, partition), Value: cur.encode()})
}

func writeAlone(ctx context.Context, flow spec.Flow, target *kafka.Cluster, r kafka.Record) error {
	partitions, err := target.PartitionCount(ctx, flow.OffsetsTopic)
	if err == nil {
		r.Partition = mm2.OffsetsPartition(r.Key, partitions)
		err = target.Write(ctx, flow.OffsetsTopic, []kafka.Record{r})
	}
	return wrap(err, "write to %s on %s", flow.OffsetsTopic, target.Alias())
}

// write writes records of one partition of the offsets topic and waits until they are replicated.
func (c *Cursors) write(ctx context.Context, records []kafka.Record) error {
	if err := c.target.Write(ctx, c.flow.OffsetsTopic, records); err != nil {
		return c.topicLost(ctx, err)
	}
	return nil
}

// topicLost makes coordinators load again when the offsets topic is gone: Load creates it and writes every cursor back.
func (c *Cursors) topicLost(ctx context.Context, err error) error {
	if !errors.Is(err, kafka.ErrUnknownTopic) && !errors.Is(err, kafka.ErrUnknownTopicID) {
		return err
	}
	return errors.Join(err, c.unload(ctx))
}

// publisher returns the one for a partition of the offsets topic. Each has its own, so that one without a leader holds up its own
// cursors and no others.
func (c *Cursors) publisher(partition int32) *publisher {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.publishers[partition]
	if p == nil {
		p = newPublisher(c.write)
		c.publishers[partition] = p
	}
	return p
}

// A publisher puts records of many callers into one write: those that came while a write was under way go out in the next. There
// is no goroutine behind it; a waiting caller writes for all.
type publisher struct {
	write func(context.Context, []kafka.Record) error
	turn  chan struct{} // holds one token; its owner writes

	mu     sync.Mutex
	groups []*group // in the order they are written; guarded by mu
}

// A group is what goes out in one write.
type group struct {
	records []kafka.Record
	done    chan struct{} // closed after the write
	err     error         // valid then
}

func newPublisher(write func(context.Context, []kafka.Record) error) *publisher {
	return &publisher{write: write, turn: make(chan struct{}, 1)}
}

func (p *publisher) publish(ctx context.Context, r kafka.Record) error {
	mine := p.join(r)
	for { // ends when mine was written: every turn writes one group, in order
		select {
		case <-mine.done:
			return mine.err
		case <-ctx.Done():
			return context.Cause(ctx) // the record may go out yet
		case p.turn <- struct{}{}:
			if ctx.Err() == nil { // else a worker that drains would wait for one write after the other
				p.writeNext(ctx)
			}
			<-p.turn
		}
	}
}

// join adds a record to the last group, or to a new one when that is full.
func (p *publisher) join(r kafka.Record) *group {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.groups); n == 0 || len(p.groups[n-1].records) >= publishRecords {
		p.groups = append(p.groups, &group{done: make(chan struct{})})
	}
	last := p.groups[len(p.groups)-1]
	last.records = append(last.records, r)
	return last
}

// writeNext writes the first group. Its members have contexts of their own, so the one that happens to write doesn't take the
// others along when it gives up.
func (p *publisher) writeNext(ctx context.Context) {
	next := p.next()
	if next == nil {
		return // mine was written while I waited for the turn
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTime)
	defer cancel()
	next.err = p.write(ctx, next.records)
	close(next.done)
}

func (p *publisher) next() *group {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.groups) == 0 {
		return nil
	}
	next := p.groups[0]
	p.groups = p.groups[1:]
	return next
}
