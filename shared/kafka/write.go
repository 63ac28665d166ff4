package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Write appends records to the partitions that they name, acknowledged by all replicas. Records without a timestamp get the
// time of writing. After an error some of them may have landed. A single record may be written twice after a connection was
// lost, but not out of order.
func (c *Cluster) Write(ctx context.Context, topic string, records []Record) error {
	batch := make([]*kgo.Record, len(records))
	for i, r := range records {
		batch[i] = &kgo.Record{Topic: topic, Partition: r.Partition, Key: r.Key, Value: r.Value}
		if r.Timestamp != 0 {
			batch[i].Timestamp = time.UnixMilli(r.Timestamp)
		}
	}
	if err := c.client.ProduceSync(ctx, batch...).FirstErr(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("write to %s on cluster %s: %w", topic, c.alias, err)
	}
	return nil
}
