package functions

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// CreateTopic makes room on the target for all partitions of a source topic: it creates the copy with the source's settings, or adds
// partitions. It never removes any, and leaves the settings of a topic that exists alone. Many may do so at one time.
func CreateTopic(ctx context.Context, flow spec.Flow, source, target *kafka.Cluster, topic string) error {
	from, err := source.Topic(ctx, topic)
	if errors.Is(err, kafka.ErrUnknownTopic) {
		return nil // deleted since: there is nothing to make room for
	}
	if err = errors.Join(err, from.Err); err != nil {
		return fmt.Errorf("look up %q on %s: %w", topic, flow.Source, permanent(err))
	}
	c := copyOf{flow, source, target, from, flow.RemoteTopic(topic)}
	to, err := target.Topic(ctx, c.name)
	if errors.Is(err, kafka.ErrUnknownTopic) {
		if err = c.create(ctx); !errors.Is(err, kafka.ErrTopicExists) {
			return err
		}
		to, err = target.Topic(ctx, c.name) // somebody was faster: theirs may be smaller
	}
	if err = errors.Join(err, to.Err); err != nil {
		return fmt.Errorf("look up %q on %s: %w", c.name, flow.Target, permanent(err))
	}
	return c.grow(ctx, to)
}

// copyOf is a source topic and what it is to be on the target.
type copyOf struct {
	flow           spec.Flow
	source, target *kafka.Cluster
	from           kafka.Topic
	name           string // on the target
}

// create creates the copy. The settings come along from the first moment on: under the target's own retention a backfill would be
// deleted minutes after it landed.
func (c copyOf) create(ctx context.Context) error {
	settings, err := c.settings(ctx)
	if err != nil {
		return err
	}
	err = c.target.CreateTopic(ctx, c.topic(settings))
	switch {
	case err == nil || errors.Is(err, kafka.ErrTopicExists):
		return err
	case is(err, kafka.ErrTopicAuthorization, kafka.ErrClusterAuthorization):
		return hold(lease.ReasonAuthorization, "no right to create %q on %s: grant Create on that topic, or create it with %d partitions: %v",
			c.name, c.flow.Target, len(c.from.Partitions), err)
	case is(err, kafka.ErrInvalidConfig, kafka.ErrPolicyViolation):
		return c.nameSetting(ctx, settings, err)
	case is(err, kafka.ErrInvalidReplicationFactor):
		return hold(lease.ReasonTopicConfig, "%s can't create %q with replication factor %d: set another one, or start the brokers it takes: %v",
			c.flow.Target, c.name, c.flow.ReplicationFactor, err)
	case is(err, kafka.ErrInvalidTopic):
		return hold(lease.ReasonTopicConfig, "%s refuses the name %q: exclude the topic or set another replication policy: %v", c.flow.Target, c.name, err)
	case is(err, kafka.ErrInvalidPartitions):
		return hold(lease.ReasonPartitionMissing, "%s refuses %q with %d partitions: %v", c.flow.Target, c.name, len(c.from.Partitions), err)
	}
	return fmt.Errorf("create %q on %s: %w", c.name, c.flow.Target, err)
}

func (c copyOf) topic(settings map[string]string) kafka.NewTopic {
	return kafka.NewTopic{
		Name: c.name, Partitions: int32(len(c.from.Partitions)), ReplicationFactor: c.flow.ReplicationFactor, Configs: settings,
	}
}

// settings are those that somebody gave the source's topic. What its brokers' defaults say stays with its brokers.
func (c copyOf) settings(ctx context.Context) (map[string]string, error) {
	configs, err := c.source.Configs(ctx, []string{c.from.Name})
	config := configs[c.from.Name]
	if err = errors.Join(err, config.Err); err != nil {
		if is(err, kafka.ErrTopicAuthorization, kafka.ErrClusterAuthorization) {
			return nil, hold(lease.ReasonAuthorization, "no right to read the settings of %q on %s: grant DescribeConfigs on that topic, or create %q on %s with %d partitions: %v",
				c.from.Name, c.flow.Source, c.name, c.flow.Target, len(c.from.Partitions), err)
		}
		return nil, fmt.Errorf("read settings of %q on %s: %w", c.from.Name, c.flow.Source, err)
	}
	settings := map[string]string{}
	for _, e := range config.Entries {
		if e.Source == kafka.SourceTopic && !e.ReadOnly && !e.Sensitive && !c.flow.ConfigExclude.Match(e.Name) {
			settings[e.Name] = e.Value
		}
	}
	return settings, nil
}

// nameSetting finds out which settings the target refuses, since brokers seldom say. A policy may as well refuse the topic as a whole;
// then none is to blame.
func (c copyOf) nameSetting(ctx context.Context, settings map[string]string, cause error) error {
	whole := fmt.Sprintf("%s refuses to create %q: %v", c.flow.Target, c.name, cause)
	if c.refuses(ctx, nil) {
		return hold(lease.ReasonTopicConfig, "%s", whole)
	}
	var named []string
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		if c.refuses(ctx, map[string]string{key: settings[key]}) {
			named = append(named, key+"="+settings[key])
		}
	}
	if len(named) == 0 {
		return hold(lease.ReasonTopicConfig, "%s; it takes each of the source's settings alone (%s), not all together", whole, strings.Join(slices.Sorted(maps.Keys(settings)), ", "))
	}
	return hold(lease.ReasonTopicConfig, "%s; it refuses %s: exclude that setting (config.properties.exclude), change it on %s, or create the topic with %d partitions",
		whole, strings.Join(named, ", "), c.flow.Source, len(c.from.Partitions))
}

// refuses asks the target whether it would refuse the topic with some settings. Nothing is created.
func (c copyOf) refuses(ctx context.Context, settings map[string]string) bool {
	rehearsal := c.topic(settings)
	rehearsal.ValidateOnly = true
	return is(c.target.CreateTopic(ctx, rehearsal), kafka.ErrInvalidConfig, kafka.ErrPolicyViolation)
}

// grow adds the partitions that a copy lacks.
func (c copyOf) grow(ctx context.Context, to kafka.Topic) error {
	exist, want := len(to.Partitions), len(c.from.Partitions)
	if exist >= want {
		return nil
	}
	err := c.target.AddPartitions(ctx, c.name, int32(want))
	switch {
	case err == nil:
		return nil
	case c.grown(ctx, want):
		return nil // somebody was faster
	case is(err, kafka.ErrTopicAuthorization, kafka.ErrClusterAuthorization):
		return hold(lease.ReasonAuthorization, "%q on %s has %d partitions, %q has %d, and there is no right to add any: grant Alter on that topic, or add them: %v",
			c.name, c.flow.Target, exist, c.from.Name, want, err)
	case is(err, kafka.ErrInvalidPartitions, kafka.ErrPolicyViolation, kafka.ErrInvalidTopic, kafka.ErrUnsupportedVersion):
		return hold(lease.ReasonPartitionMissing, "%q on %s has %d partitions, %q has %d, and %s refuses more: add them: %v",
			c.name, c.flow.Target, exist, c.from.Name, want, c.flow.Target, err)
	}
	return fmt.Errorf("add partitions to %q on %s: %w", c.name, c.flow.Target, err)
}

// grown says whether the copy has all partitions by now.
func (c copyOf) grown(ctx context.Context, want int) bool {
	to, err := c.target.Topic(ctx, c.name)
	return err == nil && len(to.Partitions) >= want
}
