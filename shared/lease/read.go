package lease

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// ReadCursors reads a flow's cursors from the offsets topic on the target and writes nothing: no queue is needed. Without that
// topic there are none. A cursor of another format version is there with its hold.
func ReadCursors(ctx context.Context, flow spec.Flow, target *kafka.Cluster) (map[kafka.TopicPartition]Cursor, error) {
	published, err := readPublished(ctx, flow, target)
	if err != nil && !errors.Is(err, kafka.ErrUnknownTopic) {
		return nil, fmt.Errorf("read cursors of %s: %w", flow.Name(), err)
	}
	cursors := make(map[kafka.TopicPartition]Cursor, len(published))
	for tp, r := range published {
		if len(r.Value) > 0 {
			cursors[tp], _ = decodeCursor(r.Value) // what can't be read is a cursor that says so
		}
	}
	return cursors, nil
}

// readPublished returns the last record of each partition of a flow on the offsets topic, with no value where it was forgotten.
func readPublished(ctx context.Context, flow spec.Flow, target *kafka.Cluster) (map[kafka.TopicPartition]*kafka.Record, error) {
	last := map[kafka.TopicPartition]*kafka.Record{}
	err := target.ReadAll(ctx, flow.OffsetsTopic, func(r kafka.Record) error {
		_, _, topic, partition, ok := mm2.ParseSourceOffsetKey(r.Key)
		if !ok || !bytes.Equal(r.Key, flow.Key(topic, partition)) {
			return nil // another flow's, another connector's, or members in an order that MM2 doesn't find either
		}
		tp := kafka.TopicPartition{Topic: topic, Partition: partition}
		if was := last[tp]; was == nil || follows(r, *was) {
			r.Key, r.Value = nil, bytes.Clone(r.Value)
			last[tp] = &r
		}
		return nil
	})
	return last, err
}

// follows orders two records of one key: by log, or by time where the topic has grown and an old record stayed behind.
func follows(r, was kafka.Record) bool {
	if r.Partition == was.Partition {
		return r.Offset > was.Offset
	}
	return r.Timestamp > was.Timestamp
}
