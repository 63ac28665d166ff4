package lease

import (
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
	cursors := map[kafka.TopicPartition]Cursor{}
	err := target.ReadAll(ctx, flow.OffsetsTopic, func(r kafka.Record) error {
		connector, cluster, topic, partition, ok := mm2.ParseSourceOffsetKey(r.Key)
		if !ok || connector != flow.Connector || cluster != flow.Source {
			return nil
		}
		tp := kafka.TopicPartition{Topic: topic, Partition: partition}
		if r.Value == nil {
			delete(cursors, tp)
			return nil
		}
		cursors[tp], _ = decodeCursor(r.Value) // what can't be read is a cursor that says so
		return nil
	})
	if err != nil && !errors.Is(err, kafka.ErrUnknownTopic) {
		return nil, fmt.Errorf("read %s on %s: %w", flow.OffsetsTopic, target.Alias(), err)
	}
	return cursors, nil
}
