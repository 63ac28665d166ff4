package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

const (
	// turnTime is how long a heart waits to hear whether another coordinator beats already. Two beats do no harm, none does.
	turnTime = time.Second
	// heartRest is the longest pause after beats that failed.
	heartRest = 30 * time.Second
)

// A heart writes heartbeats to a cluster, so that MirrorMaker's tools see who copies there. It is the coordinator's own work: as a task
// it would keep a worker alive for ever. Of several coordinators one beats (see lease.Turn).
type heart struct {
	spec.Heartbeat
	target *kafka.Cluster
	turn   *lease.Turn
	log    *slog.Logger

	ready   bool        // the topic is there, as far as is known
	last    error       // of the last beat
	failing atomic.Bool // the same for others to see
}

func newHeart(o Options, h spec.Heartbeat) *heart {
	name := spec.FlowName(h.Source, h.Target)
	return &heart{Heartbeat: h, target: o.Clusters[h.Target], turn: o.Queue.Turn("heartbeat " + name), log: o.Logger.With("heartbeat", name)}
}

// run beats until ctx ends. Whatever goes wrong stops nothing else.
func (h *heart) run(ctx context.Context) error {
	for wait := h.Interval; ; {
		began := time.Now()
		err := h.beat(ctx)
		if ctx.Err() != nil {
			return nil
		}
		switch {
		case err == nil:
			if h.last != nil {
				h.log.Info("heartbeats go on")
			}
			wait = h.Interval
		default:
			if h.last == nil || h.last.Error() != err.Error() {
				h.log.Warn("no heartbeat; trying again", "error", err)
			}
			wait = max(h.Interval, min(2*wait, heartRest))
		}
		h.last = err
		h.failing.Store(err != nil)
		if !sleep(ctx, wait-min(wait, time.Since(began))) {
			return nil
		}
	}
}

// beat writes one record, unless another coordinator has.
func (h *heart) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, passTimeout)
	defer cancel()
	asking, answered := context.WithTimeout(ctx, turnTime)
	mine, err := h.turn.Mine(asking)
	answered()
	if err == nil && !mine {
		return nil
	}
	if err := h.ensure(ctx); err != nil {
		return err
	}
	now := time.Now().UnixMilli()
	record := mm2.Heartbeat{Source: h.Source, Target: h.Target, Timestamp: now}
	err = h.target.Write(ctx, mm2.HeartbeatsTopic, []kafka.Record{{Key: record.Key(), Value: record.Value(), Timestamp: now}})
	h.ready = err == nil
	return err
}

// ensure creates the topic where it is missing.
func (h *heart) ensure(ctx context.Context) error {
	if h.ready {
		return nil
	}
	_, err := h.target.Topic(ctx, mm2.HeartbeatsTopic)
	if errors.Is(err, kafka.ErrUnknownTopic) {
		err = createHeartbeats(ctx, h.target, mm2.HeartbeatsTopic, h.ReplicationFactor)
	}
	return err
}

// createHeartbeats creates a topic of heartbeats as MirrorMaker does.
func createHeartbeats(ctx context.Context, on *kafka.Cluster, name string, replication int16) error {
	err := on.CreateTopic(ctx, kafka.NewTopic{
		Name: name, Partitions: 1, ReplicationFactor: replication, Configs: map[string]string{"cleanup.policy": "compact"},
	})
	switch {
	case err == nil, errors.Is(err, kafka.ErrTopicExists):
		return nil
	case errors.Is(err, kafka.ErrTopicAuthorization), errors.Is(err, kafka.ErrClusterAuthorization):
		return fmt.Errorf("no right to create %q on %s: grant Create on that topic, or create it with one partition and cleanup.policy=compact: %w", name, on.Alias(), err)
	}
	return fmt.Errorf("on %s: %w", on.Alias(), err)
}

// showHeartbeats makes sure that the copy of the source's heartbeats exists, empty where none are copied: MirrorMaker's tools find out
// by its name that the flow is there. What it returns is for people; the copying doesn't depend on it.
func (p pair) showHeartbeats(ctx context.Context, found topics) (warnings []string) {
	name := p.flow.RemoteTopic(mm2.HeartbeatsTopic)
	if _, exists := found.target[name]; exists || found.has(mm2.HeartbeatsTopic) || p.flow.State != spec.Running {
		return nil // or a topics task is about to create it as its source is
	}
	if err := createHeartbeats(ctx, p.target, name, p.flow.ReplicationFactor); err != nil {
		return []string{fmt.Sprintf("%s doesn't show in the topology that MirrorMaker's tools read from topic names: %v", p.flow.Name(), err)}
	}
	return nil
}
