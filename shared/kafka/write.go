package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Write appends records to the partitions that they name, acknowledged by all replicas. Records without a timestamp get the
// time of writing. After an error some of them may have landed, but none lands after those of a later call.
//
// The call lasts as long as the slowest partition needs, up to ten seconds where one has no leader, and fails with it. Calls for
// different partitions share requests and don't wait for each other, so give each partition its own where that matters. Nor does a
// Produce ever wait for a Write, see aside.
func (c *Cluster) Write(ctx context.Context, topic string, records []Record) error {
	batch := make([]*kgo.Record, len(records))
	for i, r := range records {
		batch[i] = &kgo.Record{Topic: topic, Partition: r.Partition, Key: r.Key, Value: r.Value}
		for _, h := range r.Headers {
			batch[i].Headers = append(batch[i].Headers, kgo.RecordHeader(h))
		}
		if r.Timestamp != 0 {
			batch[i].Timestamp = time.UnixMilli(r.Timestamp)
		}
	}
	limited, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	client := c.aside(writes)
	err := c.introduce(limited, client)
	if errors.Is(err, ErrClusterAuthorization) {
		c.renew(writes, client)
	}
	if err == nil {
		err = client.ProduceSync(limited, batch...).FirstErr()
	}
	if err == nil {
		return nil
	}
	c.topics.doubt(topic)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("write to %s: %w", topic, context.Cause(ctx))
	case errors.Is(err, ErrUnknownTopicID):
		// franz-go keeps the id that it has met first. Without it the next call finds the topic as it is by then.
		client.PurgeTopicsFromProducing(topic)
		return fmt.Errorf("write to %s, which was deleted: %w", topic, err)
	}
	return fmt.Errorf("write to %s: %w", topic, c.lacking(c.unanswered(err), toWrite, ofTopic, topic))
}

// introduce gets the client its producer id, which costs a request once. It is asked for by one caller at a time, who can give up:
// franz-go's own writers would wait for each other on a lock, deaf to their contexts, while a broker is away.
func (c *Cluster) introduce(ctx context.Context, client *kgo.Client) error {
	select {
	case c.introducing <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-c.introducing }()
	_, _, err := client.ProducerID(ctx)
	return err
}

// IssueProducerID asks the cluster for a producer id of its own, whose epoch is 0. It takes the right to write to any topic, or
// IdempotentWrite on the cluster.
func (c *Cluster) IssueProducerID(ctx context.Context) (int64, error) {
	req := kmsg.NewPtrInitProducerIDRequest()
	resp, err := anyBroker[*kmsg.InitProducerIDResponse](ctx, c, req)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return 0, fmt.Errorf("ask for a producer id: %w", err)
	}
	return resp.ProducerID, nil
}
