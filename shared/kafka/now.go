package kafka

import (
	"context"

	"github.com/kferry/kferry/shared/spec"
)

// OffsetsNow is ListOffsets for those who ask again soon anyway: each partition is asked once, so one without a leader, or whose
// leader has just moved, says so at once and keeps no other waiting.
func (c *Cluster) OffsetsNow(ctx context.Context, tps []TopicPartition, timestamp int64, iso Isolation) map[TopicPartition]Offset {
	answers := make(map[TopicPartition]Offset, len(tps))
	for _, call := range c.askOffsets(ctx, tps, offsetQuestion{timestamp: timestamp, committed: iso == spec.ReadCommitted}) {
		answers[call.tp] = call.offset
	}
	return answers
}
