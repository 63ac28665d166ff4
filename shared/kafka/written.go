package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/kferry/kferry/shared/batch"
)

// WrittenAt is when the first record of the batch at an offset was written, as the batch says. It reads that batch. Where the
// record has no timestamp it fails.
func (c *Cluster) WrittenAt(ctx context.Context, tp TopicPartition, offset int64, iso Isolation) (time.Time, error) {
	const least = 1 // byte; the first batch comes whole all the same
	fetched, err := c.Read(ctx, tp, offset, least, iso)
	if err != nil {
		return time.Time{}, err
	}
	defer fetched.Release()
	first, ok := batch.PeekHeader(fetched.Records)
	if !ok { // of an old format
		if first, _, err = batch.Next(fetched.Records); err != nil {
			return time.Time{}, fmt.Errorf("read %s at %d: %w", tp, offset, err)
		}
	}
	written := first.BaseTimestamp()
	if first.LogAppendTime() || first.DeleteHorizon() { // then the base is not a record's time
		written = first.MaxTimestamp()
	}
	if written < 0 {
		return time.Time{}, fmt.Errorf("read %s at %d: no timestamp there", tp, offset)
	}
	return time.UnixMilli(written), nil
}
