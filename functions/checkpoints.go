package functions

import (
	"context"
	"errors"
	"fmt"

	"github.com/kferry/kferry/shared/groups"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

const checkpointsAtOnce = 1000 // records in one write

// checkpoints are those that a checkpoints topic holds, as far as it has been read. Other workers write there too, so its tail is read
// before anything is decided by them.
type checkpoints struct {
	tail  *kafka.Tail
	known map[checkpointKey]mm2.Checkpoint
}

type checkpointKey struct {
	group string
	kafka.TopicPartition
}

func keyOf(c mm2.Checkpoint) checkpointKey {
	return checkpointKey{c.Group, kafka.TopicPartition{Topic: c.Topic, Partition: c.Partition}}
}

// refresh reads what is new, all of it at first. It says whether the topic is there.
func (c *checkpoints) refresh(ctx context.Context) (there bool, err error) {
	return c.tail.Read(ctx, func() { c.known = map[checkpointKey]mm2.Checkpoint{} }, func(records []kafka.Record) {
		for _, record := range records {
			if checkpoint, err := mm2.ParseCheckpoint(record.Key, record.Value); err == nil { // MirrorMaker skips what it can't read too
				c.known[keyOf(checkpoint)] = checkpoint
			}
		}
	})
}

// due says whether a position is to be written: MirrorMaker's rule, so that for its readers a group never goes back in the copy unless it
// has on the source. And where the last one lies beyond the copy's end: it speaks of a topic that is gone.
func (c *checkpoints) due(p groups.Position, end int64) bool {
	last, is := c.known[checkpointKey{p.Group, p.Target}]
	return !is || p.Commit.Offset < last.Upstream || p.To > last.Downstream || last.Downstream > end
}

// write appends checkpoints, as long as the lease is trusted: those of a worker that was frozen would set groups back.
func (c *checkpoints) write(ctx context.Context, l *lease.Lease, target *kafka.Cluster, topic string, all []mm2.Checkpoint) error {
	records := make([]kafka.Record, len(all))
	for i, checkpoint := range all {
		records[i] = kafka.Record{Key: checkpoint.Key(), Value: checkpoint.Value()}
	}
	for len(records) > 0 {
		some := records[:min(checkpointsAtOnce, len(records))]
		if err := trusted(ctx, l, func(ctx context.Context) error { return target.Write(ctx, topic, some) }); err != nil {
			return err
		}
		records = records[len(some):]
	}
	for _, checkpoint := range all { // the tail shows them once more
		c.known[keyOf(checkpoint)] = checkpoint
	}
	return nil
}

// create makes the topic as MirrorMaker would.
func createCheckpoints(ctx context.Context, f spec.Flow, target *kafka.Cluster) error {
	err := target.CreateTopic(ctx, kafka.NewTopic{
		Name: f.Groups.CheckpointsTopic, Partitions: 1, ReplicationFactor: f.Groups.CheckpointsReplicationFactor,
		Configs: map[string]string{"cleanup.policy": "compact"},
	})
	switch {
	case err == nil || errors.Is(err, kafka.ErrTopicExists):
		return nil
	case is(err, kafka.ErrTopicAuthorization, kafka.ErrClusterAuthorization):
		return hold(lease.ReasonAuthorization, "no right to create %q on %s: grant Create on that topic, or create it with 1 partition and cleanup.policy=compact: %v", f.Groups.CheckpointsTopic, f.Target, err)
	case is(err, kafka.ErrInvalidReplicationFactor):
		return hold(lease.ReasonTopicConfig, "%s can't create %q with replication factor %d: set checkpoints.topic.replication.factor, or start the brokers it takes: %v",
			f.Target, f.Groups.CheckpointsTopic, f.Groups.CheckpointsReplicationFactor, err)
	case is(err, kafka.ErrInvalidConfig, kafka.ErrPolicyViolation):
		return hold(lease.ReasonTopicConfig, "%s refuses %q with 1 partition and cleanup.policy=compact: %v", f.Target, f.Groups.CheckpointsTopic, err)
	}
	return err
}

// trusted writes while the lease may be trusted, and ends with lease.ErrLost when that is over.
func trusted(ctx context.Context, l *lease.Lease, write func(context.Context) error) error {
	trusting, cancel := l.Trusting(ctx)
	defer cancel()
	if trusting.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("trust in the lease ended: %w", lease.ErrLost)
	}
	err := write(trusting)
	if err != nil && trusting.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("trust in the lease ended: %w: %w", lease.ErrLost, err)
	}
	return err
}
