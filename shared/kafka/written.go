package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/kferry/kferry/shared/batch"
)

// WrittenAt is when the first record of the batch at an offset was written, as the batch says. It reads that batch.
func (c *Cluster) WrittenAt(ctx context.Context, tp TopicPartition, offset int64, iso Isolation) (time.Time, error) {
	const least = 1 // byte; the first batch comes whole all the same
	fetched, err := c.Read(ctx, tp, offset, least, iso)
	if err != nil {
		return time.Time{}, err
	}
	defer fetched.Release()
	first, whole := batch.PeekHeader(fetched.Records)
	if !whole {
		return time.Time{}, fmt.Errorf("read %s at %d: no batch there", tp, offset)
	}
	if first.LogAppendTime() || first.DeleteHorizon() { // then the base is not a record's time
		return time.UnixMilli(first.MaxTimestamp()), nil
	}
	return time.UnixMilli(first.BaseTimestamp()), nil
}
