package lease

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// leftFresh is how long what was read of one partition of the offsets topic serves all who ask, where it has nothing of MM2's for them.
const leftFresh = 5 * time.Second

// leftBytes is how much of the offsets topic is asked for at one time.
const leftBytes = 1 << 20

// left is what MM2 has left in one partition of the offsets topic.
type left struct {
	cursors map[kafka.TopicPartition]Cursor
	at      time.Time
}

// Left returns MM2's cursor of a partition where its record is the last one on the offsets topic, and whether it is. KV doesn't know
// of it when MM2 ran while no coordinator did. Whoever is about to write the queue's cursor over it asks first.
func (c *Cursors) Left(ctx context.Context, topic string, partition int32) (Cursor, bool, error) {
	r := kafka.Record{Key: c.flow.Key(topic, partition)}
	if err := c.place(ctx, &r); err != nil {
		return Cursor{}, false, err
	}
	c.mu.Lock()
	known := c.left[r.Partition]
	c.mu.Unlock()
	tp, asked := kafka.TopicPartition{Topic: topic, Partition: partition}, time.Now()
	for {
		cursor, is := known.cursors[tp]
		if age := asked.Sub(known.at); age <= 0 || !is && age < leftFresh { // kferry may have gone on from MM2's record since
			return cursor, is, nil
		}
		found, err, _ := c.reads.Do(strconv.Itoa(int(r.Partition)), func() (any, error) { return c.readLeft(ctx, r.Partition) })
		if err != nil {
			return Cursor{}, false, fmt.Errorf("read %s-%d: %w", c.flow.OffsetsTopic, r.Partition, err)
		}
		if known = found.(left); ctx.Err() != nil {
			return Cursor{}, false, context.Cause(ctx)
		}
	}
}

func (c *Cursors) readLeft(ctx context.Context, partition int32) (left, error) {
	l := left{map[kafka.TopicPartition]Cursor{}, time.Now()}
	tp := kafka.TopicPartition{Topic: c.flow.OffsetsTopic, Partition: partition}
	start, err := c.target.LogStart(ctx, tp)
	if err != nil {
		return l, err
	}
	ends, err := c.target.ListOffsets(ctx, []kafka.TopicPartition{tp}, kafka.Latest, spec.ReadCommitted)
	if err = errors.Join(err, ends[tp].Err); err != nil {
		return l, err
	}
	for r := c.target.NewReader(tp, start.Offset, ends[tp].Offset, spec.ReadCommitted, leftBytes); ; {
		records, err := r.Next(ctx)
		if err == io.EOF {
			break
		}
		if err != nil {
			return l, err
		}
		for _, record := range records {
			c.leave(l, record)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left[partition] = l
	return l, nil
}

// leave takes one record in, where it is a cursor of this flow.
func (c *Cursors) leave(l left, r kafka.Record) {
	_, _, topic, partition, ok := mm2.ParseSourceOffsetKey(r.Key)
	if !ok || string(r.Key) != string(c.flow.Key(topic, partition)) {
		return
	}
	tp := kafka.TopicPartition{Topic: topic, Partition: partition}
	if cur, err := decodeCursor(r.Value); len(r.Value) > 0 && err == nil && cur.Foreign {
		l.cursors[tp] = cur
	} else {
		delete(l.cursors, tp)
	}
}
