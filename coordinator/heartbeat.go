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
	failed  int         // beats in a row
	told    string      // why, as the log has it
	failing atomic.Bool // for others to see
}

func newHeart(o Options, h spec.Heartbeat) *heart {
	name := spec.FlowName(h.Source, h.Target)
	return &heart{Heartbeat: h, target: o.Clusters[h.TargetKey()], turn: o.Queue.Turn("heartbeat " + name), log: o.Logger.With("heartbeat", name)}
}

// run beats until ctx ends. Whatever goes wrong stops nothing else.
func (h *heart) run(ctx context.Context) error {
	for wait := h.Interval; ; {
		began := time.Now()
		err := h.beat(ctx)
		if ctx.Err() != nil {
			return nil
		}
		wait = h.settle(err, wait)
		if !sleep(ctx, wait-min(wait, time.Since(began))) {
			return nil
		}
	}
}

// settle makes the end of a beat known, and says how long after its beginning the next one begins. A first failure is no news: a topic
// that was just created is not known to all brokers yet.
func (h *heart) settle(err error, wait time.Duration) time.Duration {
	h.failing.Store(err != nil)
	if err == nil {
		if h.told != "" {
			h.log.Info("heartbeats go on")
		}
		h.failed, h.told = 0, ""
		return h.Interval
	}
	if h.failed++; h.failed > 1 && h.told != err.Error() {
		h.told = err.Error()
		h.log.Warn("no heartbeat; trying again", "error", err)
	}
	return max(h.Interval, min(2*wait, heartRest))
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

// uncopied are the heartbeats that the flow does not copy: those of its source, and those that came there from clusters of this
// specification. The first are named even where there are none. What others have brought is left alone: an empty topic doesn't tell whose
// copy it is, and two installations with other aliases for the same clusters would copy each other's for ever.
func (p pair) uncopied(all []kafka.Topic) (topics []string) {
	own := false
	for _, t := range all {
		own = own || t.Name == mm2.HeartbeatsTopic
		if mm2.Heartbeats(p.flow.Policy, t.Name) && !p.flow.Selects(t.Name) && !mm2.Cycle(p.flow.Policy, t.Name, p.flow.Target) && p.ours(t.Name) {
			topics = append(topics, t.Name)
		}
	}
	if !own {
		topics = append(topics, mm2.HeartbeatsTopic)
	}
	return topics
}

// ours says whether a topic has come through clusters of this specification alone, and through each at most once.
func (p pair) ours(topic string) bool {
	seen := map[string]bool{p.flow.Source: true, p.flow.Target: true}
	for _, alias := range hops(p.flow.Policy, topic) {
		if p.ids.clusters[alias] == nil || seen[alias] {
			return false
		}
		seen[alias] = true
	}
	return true
}

// showHeartbeats makes sure that copies of heartbeats exist, empty where none are copied: MirrorMaker's tools find out by their names
// which flows there are. What it returns is for people; the copying doesn't depend on it.
func (p pair) showHeartbeats(ctx context.Context, found topics) (warnings []string) {
	if p.flow.State != spec.Running {
		return nil
	}
	for _, topic := range found.uncopied {
		name := p.flow.RemoteTopic(topic)
		if _, exists := found.target[name]; exists {
			continue
		}
		if err := createHeartbeats(ctx, p.target, name, p.flow.ReplicationFactor); err != nil {
			warnings = append(warnings, fmt.Sprintf("%s doesn't show in the topology that MirrorMaker's tools read from topic names: %v", p.flow.Name(), err))
		}
	}
	return warnings
}
