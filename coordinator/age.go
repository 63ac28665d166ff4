package coordinator

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

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
			first, err := p.source.Written(ctx, at.Source(), at.Offset, p.flow.Isolation)
			if err != nil {
				return nil //nolint:nilerr // not known, and that is no failure of whoever asks
			}
			mu.Lock()
			defer mu.Unlock()
			ages[at.Source()] = max(0, now.Sub(first.At))
			return nil
		})
	}
	_ = g.Wait() // see above
	return ages
}
