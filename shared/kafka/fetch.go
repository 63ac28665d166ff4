package kafka

import (
	"context"
	"fmt"
	"time"
)

const (
	// pollWait is the longest that a Fetch waits for records, and thus that a new one waits behind others.
	pollWait = 250 * time.Millisecond
	// shortWait is how long a request waits at the broker while others are expected to join the next one.
	shortWait = 10 * time.Millisecond
	// rejoinTime is how long a partition is expected to come back: it is being produced, and will be fetched on.
	rejoinTime = time.Second
	// restTime is how long a partition that has just brought nothing is left out while others bring something: one busy
	// partition is not to pay for 1,000 quiet ones in each of its requests.
	restTime = 25 * time.Millisecond
	// pacePerPartition is the least time between two requests for each partition in the first. It bounds what partitions cost
	// that trickle, to 100,000 of them a second and broker.
	pacePerPartition = 10 * time.Microsecond

	// leastFetch and mostFetch bound what one request may bring. It grows and shrinks with what the last ones brought, so
	// that quiet brokers don't reserve memory that busy ones need.
	leastFetch = 256 << 10
	mostFetch  = 8 << 20
	// partitionFetch bounds what a request may bring of one partition, its first batch excepted. Half a batch is cut off at the
	// end on average, and comes again: less would waste more.
	partitionFetch = 2 << 20
)

// A Want is what to fetch of a partition.
type Want struct {
	TopicPartition
	TopicID     TopicID // zero: whatever topic has the name
	Offset      int64
	LeaderEpoch int32 // current epoch of the leader, to be refused by any other; -1 for any
	LastEpoch   int32 // leader epoch of what lies just before Offset, to be told when the log no longer holds that; -1 where unknown
	Isolation   Isolation
	MaxBytes    int64 // to bring at most, the first batch excepted; 0, and whatever is more, is 2 MiB
}

// limit is what the request says of it.
func (w Want) limit() int32 {
	if w.MaxBytes <= 0 {
		return partitionFetch
	}
	return int32(min(w.MaxBytes, partitionFetch))
}

// A DivergedError says that a log holds something else just before the wanted offset than it once did: it lost records, to a leader that
// never had them, and has been written on since (KIP-595's DivergingEpoch, which brokers tell consumers too).
type DivergedError struct {
	EndOffset int64 // up to which the log still is what it was
	Epoch     int32 // the leader's in which it ended there
}

func (e *DivergedError) Error() string {
	return fmt.Sprintf("the log is another one from offset %d on, where leader epoch %d ended", e.EndOffset, e.Epoch)
}

// Fetch joins the next request to the partition's leader, which brings records of many partitions. It returns when there
// are some, or without any after about 250 ms. It blocks as long as the budget for fetched bytes is used up. Requests are
// repeated while the leader moves; other errors are returned at once, a *DivergedError among them.
//
// Call it for the next offset while the last records are being produced: one partition's next request is then under way
// together with everybody else's.
func (c *Cluster) Fetch(ctx context.Context, want Want) (*Fetched, error) {
	var fetched *Fetched
	err := patiently(ctx, moving, func() error {
		l, err := c.topics.leaderOf(ctx, want.TopicPartition, want.TopicID)
		if err != nil {
			return err
		}
		fetched, err = c.fetcher(l.broker).fetch(ctx, newFetchCall(want, l))
		c.topics.doubtAfter(err, want.Topic)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("fetch %s from offset %d: %w", want.TopicPartition, want.Offset, err)
	}
	return fetched, nil
}
