package lease

import (
	"context"
	"errors"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/spec"
)

// ReadCursors reads a flow's cursors from the offsets topic on the target and writes nothing: no queue is needed. Without that
// topic there are none. A cursor of another format version is there with its hold.
func ReadCursors(ctx context.Context, flow spec.Flow, target *kafka.Cluster) (map[kafka.TopicPartition]Cursor, error) {
	published, err := (&Cursors{flow: flow, target: target}).published(ctx)
	if err != nil && !errors.Is(err, kafka.ErrUnknownTopic) {
		return nil, err
	}
	cursors := make(map[kafka.TopicPartition]Cursor, len(published))
	for tp, record := range published {
		if len(record.Value) > 0 { // else it was forgotten
			cursors[tp], _ = decodeCursor(record.Value) // what can't be read is a cursor that says so
		}
	}
	return cursors, nil
}
