package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/kferry/kferry/shared/batch"
)

// Written is what a batch says of its writing.
type Written struct {
	At            time.Time // of its first record
	ProducerID    int64     // -1 where the producer has none
	Transactional bool
}

// Written reads the header of the batch at an offset. The batch comes whole all the same.
func (c *Cluster) Written(ctx context.Context, tp TopicPartition, offset int64, iso Isolation) (Written, error) {
	const least = 1 // byte
	fetched, err := c.Read(ctx, tp, offset, least, iso)
	if err != nil {
		return Written{}, err
	}
	defer fetched.Release()
	first, whole := batch.PeekHeader(fetched.Records)
	if !whole {
		return Written{}, fmt.Errorf("read %s at %d: no batch there", tp, offset)
	}
	w := Written{At: time.UnixMilli(first.BaseTimestamp()), ProducerID: first.ProducerID(), Transactional: first.Transactional()}
	if first.LogAppendTime() || first.DeleteHorizon() { // then the base is not a record's time
		w.At = time.UnixMilli(first.MaxTimestamp())
	}
	return w, nil
}
