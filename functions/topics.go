package functions

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/kferry/kferry/shared/follow"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// CreateTopic makes room on the target for all partitions of a source topic: it creates the copy with the source's settings, or adds
// partitions, and says whether it did. It never removes any, and leaves the settings of a topic that exists to Follow. Many may do so at one
// time.
func CreateTopic(ctx context.Context, flow spec.Flow, source, target *kafka.Cluster, topic string) (made bool, err error) {
	from, err := source.Topic(ctx, topic)
	if errors.Is(err, kafka.ErrUnknownTopic) {
		return false, nil // deleted since: there is nothing to make room for
	}
	if err = errors.Join(err, from.Err); err != nil {
		return false, fmt.Errorf("look up %q on %s: %w", topic, flow.Source, permanent(err))
	}
	c := copyOf{flow, source, target, from, flow.RemoteTopic(topic)}
	to, err := target.Topic(ctx, c.name)
	if errors.Is(err, kafka.ErrUnknownTopic) {
		if err = c.create(ctx); !errors.Is(err, kafka.ErrTopicExists) {
			return err == nil, err
		}
		to, err = target.Topic(ctx, c.name) // somebody was faster: theirs may be smaller
	}
	if err = errors.Join(err, to.Err); err != nil {
		return false, fmt.Errorf("look up %q on %s: %w", c.name, flow.Target, permanent(err))
	}
	if len(to.Partitions) >= len(from.Partitions) {
		return false, nil
	}
	err = c.grow(ctx, to)
	return err == nil, err
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
	config, err := c.config(ctx)
	if err != nil {
		return err
	}
	example, err := c.example(ctx)
	if err != nil {
		return err
	}
	settings := c.settings(config, example)
	wide := c.widen(settings, config, example)
	err = c.target.CreateTopic(ctx, c.topic(wide))
	if len(wide) > len(settings) && is(err, kafka.ErrInvalidConfig, kafka.ErrPolicyViolation) {
		err = c.target.CreateTopic(ctx, c.topic(settings)) // nobody asked for the limits, and perhaps no record needs them
	}
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
		return hold(lease.ReasonTopicName, "%s refuses the name %q for the copy of %q: exclude the topic, delete the one that is in its way, or set another replication policy: %v", c.flow.Target, c.name, c.from.Name, err)
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

// config is all of the source topic's.
func (c copyOf) config(ctx context.Context) ([]kafka.ConfigEntry, error) {
	configs, err := c.source.Configs(ctx, []string{c.from.Name})
	config := configs[c.from.Name]
	if err = errors.Join(err, config.Err); err != nil {
		if is(err, kafka.ErrTopicAuthorization, kafka.ErrClusterAuthorization) {
			return nil, hold(lease.ReasonAuthorization, "no right to read the settings of %q on %s: grant DescribeConfigs on that topic, or create %q on %s with %d partitions: %v",
				c.from.Name, c.flow.Source, c.name, c.flow.Target, len(c.from.Partitions), err)
		}
		return nil, fmt.Errorf("read settings of %q on %s: %w", c.from.Name, c.flow.Source, err)
	}
	return config.Entries, nil
}

// settings are those that somebody gave the source's topic and that the target knows, as far as it tells. What the source's brokers say by
// default stays with its brokers.
func (c copyOf) settings(config, example []kafka.ConfigEntry) map[string]string {
	known := values(example)
	settings := map[string]string{}
	for _, e := range config {
		if _, is := known[e.Name]; e.Source == kafka.SourceTopic && follow.Follows(c.flow, e) && (is || len(example) == 0) {
			settings[e.Name] = e.Value
		}
	}
	return settings
}

// example is the configuration of a topic that the target has created for kferry. Where there is no right to read it, none is known.
func (c copyOf) example(ctx context.Context) ([]kafka.ConfigEntry, error) {
	example := c.flow.OffsetsTopic
	configs, err := c.target.Configs(ctx, []string{example})
	config := configs[example]
	if err = errors.Join(err, config.Err); is(err, kafka.ErrTopicAuthorization, kafka.ErrClusterAuthorization, kafka.ErrUnknownTopic) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read settings of %q on %s: %w", example, c.flow.Target, err)
	}
	return config.Entries, nil
}

// The settings that decide which records a topic takes. The difference is what 3.5 and earlier have in the place of the two others.
const (
	maxMessageBytes = "max.message.bytes"
	timestampBefore = "message.timestamp.before.max.ms"
	timestampAfter  = "message.timestamp.after.max.ms"
	timestampWithin = "message.timestamp.difference.max.ms"
)

// widen adds to the settings what makes the copy take every record that the source takes: the source's limits, wherever it has them from,
// that go beyond those which the target gives a new topic.
func (c copyOf) widen(settings map[string]string, config, example []kafka.ConfigEntry) map[string]string {
	defaults := defaultLimits(example)
	source := limitsIn(values(config))
	before, after := source.timestamp(timestampBefore), source.timestamp(timestampAfter)
	wide := maps.Clone(settings)
	for key, least := range map[string]int64{
		maxMessageBytes: source[maxMessageBytes], timestampBefore: before, timestampAfter: after, timestampWithin: max(before, after),
	} {
		_, set := wide[key]
		if given, known := defaults[key]; known && given < least && !set && !c.staysBehind(key) {
			wide[key] = strconv.FormatInt(least, 10)
		}
	}
	return wide
}

// staysBehind says whether somebody wants a limit to stay behind. MirrorMaker's list, which counts where there is no other, has the limits
// of timestamps because not every version knows them; that one is known here.
func (c copyOf) staysBehind(limit string) bool {
	exclude := c.flow.ConfigExclude
	return exclude.Match(limit) && exclude.String() != strings.Join(mm2.ConfigPropertiesExcludeDefault, "|")
}

// defaultLimits are those of a topic that nobody has changed, as far as the example tells.
func defaultLimits(example []kafka.ConfigEntry) limits {
	found := limitsIn(values(example))
	for _, e := range example {
		if _, is := found[e.Name]; is && e.Source == kafka.SourceTopic {
			found[e.Name] = -1 // somebody has changed it on this topic: what others get is not known
		}
	}
	return found
}

// limits are settings that bound something, by name; those that a cluster does not know are not there.
type limits map[string]int64

func limitsIn(config map[string]string) limits {
	found := limits{}
	for _, name := range []string{maxMessageBytes, timestampBefore, timestampAfter, timestampWithin} {
		if n, err := strconv.ParseInt(config[name], 10, 64); err == nil {
			found[name] = n
		}
	}
	return found
}

// timestamp is one of the two bounds, which begin to count when they are set: until then the older one does, where a cluster knows it.
func (l limits) timestamp(bound string) int64 {
	if n, known := l[bound]; known && n != math.MaxInt64 {
		return n
	}
	if n, known := l[timestampWithin]; known {
		return n
	}
	return math.MaxInt64
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
