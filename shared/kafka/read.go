package kafka

import (
	"context"
	"fmt"
	"io"

	"github.com/kferry/kferry/shared/spec"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Read fetches records of one partition in a request of its own, without waiting for new ones: to look at what has landed.
// The first batch is whole, whatever maxBytes. The bytes come from a small part of the budget of their own, so release them
// before asking for more.
func (c *Cluster) Read(ctx context.Context, tp TopicPartition, offset int64, maxBytes int32, iso Isolation) (*Fetched, error) {
	var fetched *Fetched
	err := patiently(ctx, outdated, func() (err error) {
		l, err := c.topics.leader(ctx, tp)
		if err != nil {
			return err
		}
		want := Want{TopicPartition: tp, TopicID: l.topicID, Offset: offset, LeaderEpoch: l.epoch, LastEpoch: -1, Isolation: iso}
		fetched, err = c.read(ctx, l.broker, want, maxBytes)
		c.topics.doubtAfter(err, tp.Topic)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read %s at offset %d: %w", tp, offset, err)
	}
	return fetched, nil
}

func (c *Cluster) read(ctx context.Context, broker int32, want Want, maxBytes int32) (*Fetched, error) {
	granted, err := c.budget.read.acquire(ctx, int64(maxBytes), int64(maxBytes))
	if err != nil {
		return nil, err
	}
	p, err := c.readPartition(broker, want, maxBytes)
	if err != nil {
		c.budget.read.release(granted)
		return nil, err
	}
	bytes := int64(len(p.RecordBatches))
	c.budget.read.settle(granted, bytes)
	return newFetched(p, newLot(&c.budget.read, bytes, 1)), nil
}

// mostThrottled is how many times in a row a broker may answer with nothing but the time to wait, because of a quota. franz-go waits.
const mostThrottled = 20

// readPartition makes the request. The caller's context has no part in it: to cancel it would end the connection, and with
// it the requests of others. Since it does not wait for records, it is soon over.
func (c *Cluster) readPartition(broker int32, want Want, maxBytes int32) (*kmsg.FetchResponseTopicPartition, error) {
	req := newFetchRequest(want.Isolation, int64(maxBytes), 0)
	addWant(req, want, maxBytes)
	var resp *kmsg.FetchResponse
	for range mostThrottled {
		var err error
		if resp, err = oneBroker[*kmsg.FetchResponse](c.ctx, c, broker, withNames(req, want.TopicID)); err != nil {
			return nil, err
		}
		if resp.ThrottleMillis == 0 || len(resp.Topics) > 0 {
			break
		}
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, err
	}
	p := partitionsByName([]*fetchCall{{want: want}}, resp)[want.TopicPartition]
	if p == nil {
		return nil, fmt.Errorf("broker %d left it out: %w", broker, ErrUnanswered)
	}
	return p, c.lacking(kerr.ErrorForCode(p.ErrorCode), toRead, ofTopic, want.Topic)
}

// readAllBytes is how much ReadAll asks for at once.
const readAllBytes = 1 << 20

// ReadAll passes all committed records of a topic to f, from each partition's start to its end as of the call, partition by
// partition. It stops at f's first error. It fails with ErrUnknownTopic where there is no such topic.
func (c *Cluster) ReadAll(ctx context.Context, topic string, f func(Record) error) error {
	t, err := c.Topic(ctx, topic)
	if err != nil {
		return fmt.Errorf("read all: %w", err)
	}
	tps := make([]TopicPartition, len(t.Partitions))
	for i := range t.Partitions {
		tps[i] = TopicPartition{topic, int32(i)}
	}
	starts, err := c.ListOffsets(ctx, tps, Earliest, spec.ReadUncommitted)
	if err != nil {
		return fmt.Errorf("read all of %s: %w", topic, err)
	}
	ends, err := c.ListOffsets(ctx, tps, Latest, spec.ReadCommitted)
	if err != nil {
		return fmt.Errorf("read all of %s: %w", topic, err)
	}
	for _, tp := range tps {
		if err := c.readRange(ctx, tp, starts[tp], ends[tp], f); err != nil {
			return fmt.Errorf("read all of %s: %w", tp, err)
		}
	}
	return nil
}

func (c *Cluster) readRange(ctx context.Context, tp TopicPartition, start, end Offset, f func(Record) error) error {
	if start.Err != nil {
		return start.Err
	}
	if end.Err != nil {
		return end.Err
	}
	r := c.NewReader(tp, start.Offset, end.Offset, spec.ReadCommitted, readAllBytes)
	for {
		records, err := r.Next(ctx)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for _, record := range records {
			if err := f(record); err != nil {
				return err
			}
		}
	}
}
