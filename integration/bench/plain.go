package main

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"
)

// plain is what one writes in an afternoon: consume, produce to the same partition, with the source's compression. It has franz-go's
// own settings, idempotence among them, and 1 MB batches.
func plain(args []string) error {
	if len(args) != 6 {
		return fmt.Errorf("plain takes SOURCE TOPIC TARGET TOPIC CODEC RECORDS, not %q", args)
	}
	records, err := strconv.ParseInt(args[5], 10, 64)
	if err != nil {
		return fmt.Errorf("number of records: %w", err)
	}
	consumer, err := kgo.NewClient(kgo.SeedBrokers(args[0]), kgo.ConsumeTopics(args[1]), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer consumer.Close()
	producer, err := kgo.NewClient(kgo.SeedBrokers(args[2]), kgo.DefaultProduceTopic(args[3]),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(codec(args[4])))
	if err != nil {
		return err
	}
	defer producer.Close()

	ctx, cancel := context.WithTimeout(context.Background(), copyWithin)
	defer cancel()
	var failed atomic.Pointer[error]
	for read := int64(0); read < records; {
		fetches := consumer.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		read += int64(fetches.NumRecords())
		fetches.EachRecord(func(r *kgo.Record) {
			producer.Produce(ctx, &kgo.Record{Partition: r.Partition, Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp},
				func(_ *kgo.Record, err error) {
					if err != nil {
						failed.CompareAndSwap(nil, &err)
					}
				})
		})
	}
	if err := producer.Flush(ctx); err != nil {
		return err
	}
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}
