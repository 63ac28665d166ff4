package coordinator

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kferry/kferry/shared/batch"
	"github.com/kferry/kferry/shared/kafka"
)

// ageReads bounds the reads at one time. Each may bring a whole batch.
const ageReads = 8

// ages reads how old the record at the cursor is, for each of the partitions that lags. What can't be read in time is left out.
func (p pair) ages(ctx context.Context, partitions []Partition, now time.Time) map[kafka.TopicPartition]time.Duration {
	var (
		mu   sync.Mutex // guards ages
		ages = map[kafka.TopicPartition]time.Duration{}
		g    errgroup.Group
	)
	g.SetLimit(ageReads)
	for _, at := range partitions {
		if at.Lag == 0 {
			continue
		}
		g.Go(func() error {
			then, err := p.written(ctx, at.Source(), at.Offset)
			if err != nil {
				return nil //nolint:nilerr // not known, and that is no failure of whoever asks
			}
			mu.Lock()
			defer mu.Unlock()
			ages[at.Source()] = max(0, now.Sub(then))
			return nil
		})
	}
	_ = g.Wait() // see above
	return ages
}

// written is when the first record of the batch at an offset was written, as the batch says.
func (p pair) written(ctx context.Context, tp kafka.TopicPartition, offset int64) (time.Time, error) {
	const least = 1 // byte; the first batch comes whole all the same
	fetched, err := p.source.Read(ctx, tp, offset, least, p.flow.Isolation)
	if err != nil {
		return time.Time{}, fmt.Errorf("read %s at %d: %w", tp, offset, err)
	}
	defer fetched.Release()
	first, whole := batch.PeekHeader(fetched.Records)
	if !whole {
		return time.Time{}, fmt.Errorf("read %s at %d: no batch", tp, offset)
	}
	if first.LogAppendTime() || first.DeleteHorizon() { // then the base is not a record's time
		return time.UnixMilli(first.MaxTimestamp()), nil
	}
	return time.UnixMilli(first.BaseTimestamp()), nil
}
