package functions

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/kferry/kferry/shared/groups"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

const (
	checkpointsRead    = 1 << 20 // bytes at once
	checkpointsAtOnce  = 1000    // records in one write
	checkpointsAttempt = 3       // to read a topic whose beginning moves on, since it is compacted
)

// checkpoints are those that a checkpoints topic holds, as far as it has been read. Other workers write there too, so its tail is read
// before anything is decided by them.
type checkpoints struct {
	id    kafka.TopicID
	next  int64 // offset to read on from
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
func (c *checkpoints) refresh(ctx context.Context, target *kafka.Cluster, topic string) (there bool, err error) {
	t, err := target.Topic(ctx, topic)
	if errors.Is(err, kafka.ErrUnknownTopic) {
		*c = checkpoints{}
		return false, nil
	}
	if err = errors.Join(err, t.Err); err != nil {
		return false, err
	}
	if c.known == nil || t.ID != c.id {
		*c = checkpoints{id: t.ID, known: map[checkpointKey]mm2.Checkpoint{}}
	}
	tp := kafka.TopicPartition{Topic: topic}
	for attempt := 1; ; attempt++ {
		err := c.read(ctx, target, tp)
		if !errors.Is(err, kafka.ErrOffsetOutOfRange) || attempt == checkpointsAttempt {
			return true, err
		}
	}
}

func (c *checkpoints) read(ctx context.Context, target *kafka.Cluster, tp kafka.TopicPartition) error {
	start, err := target.LogStart(ctx, tp)
	if err != nil {
		return err
	}
	ends, err := target.ListOffsets(ctx, []kafka.TopicPartition{tp}, kafka.Latest, spec.ReadCommitted)
	if err = errors.Join(err, ends[tp].Err); err != nil {
		return err
	}
	if c.next > ends[tp].Offset { // the topic lost records, or is another one in a cluster without ids
		c.next, c.known = 0, map[checkpointKey]mm2.Checkpoint{}
	}
	r := target.NewReader(tp, max(c.next, start.Offset), ends[tp].Offset, spec.ReadCommitted, checkpointsRead)
	for {
		records, err := r.Next(ctx)
		if err == io.EOF {
			c.next = ends[tp].Offset
			return nil
		}
		if err != nil {
			return err
		}
		for _, record := range records {
			if checkpoint, err := mm2.ParseCheckpoint(record.Key, record.Value); err == nil { // MirrorMaker skips what it can't read too
				c.known[keyOf(checkpoint)] = checkpoint
			}
		}
		c.next = r.Offset()
	}
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
