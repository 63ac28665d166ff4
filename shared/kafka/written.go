package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/kferry/kferry/shared/batch"
	"github.com/kferry/kferry/shared/spec"
)

// Written is what a batch says of its writing.
type Written struct {
	At         time.Time // of its first record
	ProducerID int64     // -1 where the producer has none
}

// Written reads the header of the batch at an offset. The batch comes whole all the same. It fails where the record has no timestamp.
func (c *Cluster) Written(ctx context.Context, tp TopicPartition, offset int64, iso Isolation) (Written, error) {
	const least = 1 // byte
	fetched, err := c.Read(ctx, tp, offset, least, iso)
	if err != nil {
		return Written{}, err
	}
	defer fetched.Release()
	first, ok := batch.PeekHeader(fetched.Records)
	if !ok { // of an old format
		if first, _, err = batch.Next(fetched.Records); err != nil {
			return Written{}, fmt.Errorf("read %s at %d: %w", tp, offset, err)
		}
	}
	written := first.BaseTimestamp()
	if first.LogAppendTime() || first.DeleteHorizon() { // then the base is not a record's time
		written = first.MaxTimestamp()
	}
	if written < 0 {
		return Written{}, fmt.Errorf("read %s at %d: the record has no timestamp", tp, offset)
	}
	return Written{time.UnixMilli(written), first.ProducerID()}, nil
}

// LastProducer is the producer id of the last batch in a partition; -1 where there is none or it has none.
func (c *Cluster) LastProducer(ctx context.Context, tp TopicPartition) (int64, error) {
	end, err := c.LogEnd(ctx, tp)
	if err != nil || end.Offset == 0 {
		return -1, err
	}
	const least = 1 // byte
	fetched, err := c.Read(ctx, tp, end.Offset-1, least, spec.ReadUncommitted)
	if err != nil {
		return -1, err
	}
	defer fetched.Release()
	last, ok := batch.PeekHeader(fetched.Records)
	if !ok {
		return -1, nil
	}
	return last.ProducerID(), nil
}
