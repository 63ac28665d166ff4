package kafka

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// adminTimeout is what the controller is given to carry out a change.
	adminTimeout = 8000 // milliseconds
	// visibleWithin is how long CreateTopic waits for all brokers' metadata to show the topic.
	visibleWithin = 5 * time.Second
	// configTopics bounds the topics whose configuration one request asks for.
	configTopics = 500
)

// ConfigSource is where a topic has a configuration value from.
type ConfigSource string

// Sources of a topic's configuration.
const (
	SourceTopic         ConfigSource = "topic"          // set on the topic itself
	SourceDynamicBroker ConfigSource = "dynamic-broker" // set on a broker, or all of them, while running
	SourceStaticBroker  ConfigSource = "static-broker"  // in a broker's properties file
	SourceDefault       ConfigSource = "default"        // Kafka's own
	SourceUnknown       ConfigSource = "unknown"
)

// A ConfigEntry is one configuration value that holds for a topic.
type ConfigEntry struct {
	Name, Value         string
	Source              ConfigSource
	ReadOnly, Sensitive bool // a sensitive value is not told
}

// TopicConfig is all of a topic's configuration.
type TopicConfig struct {
	Entries []ConfigEntry
	Err     error // as ErrTopicAuthorization
}

// Configs describes topics' configuration. An error of one topic is in its answer.
func (c *Cluster) Configs(ctx context.Context, topics []string) (map[string]TopicConfig, error) {
	all := make(map[string][]string, len(topics))
	for _, topic := range topics {
		all[topic] = nil
	}
	return c.ConfigsOf(ctx, all)
}

// ConfigsOf is Configs for some keys of each topic, or all where it names none. A key that the cluster doesn't know is not in the answer.
func (c *Cluster) ConfigsOf(ctx context.Context, keys map[string][]string) (map[string]TopicConfig, error) {
	configs := make(map[string]TopicConfig, len(keys))
	for names := range slices.Chunk(slices.Sorted(maps.Keys(keys)), configTopics) {
		if err := c.someConfigs(ctx, names, keys, configs); err != nil {
			return nil, fmt.Errorf("topic configurations: %w", err)
		}
	}
	return configs, nil
}

func (c *Cluster) someConfigs(ctx context.Context, names []string, keys map[string][]string, configs map[string]TopicConfig) error {
	req := kmsg.NewPtrDescribeConfigsRequest()
	for _, name := range names {
		r := kmsg.NewDescribeConfigsRequestResource()
		r.ResourceType, r.ResourceName, r.ConfigNames = kmsg.ConfigResourceTypeTopic, name, keys[name]
		req.Resources = append(req.Resources, r)
	}
	resp, err := anyBroker[*kmsg.DescribeConfigsResponse](ctx, c, req)
	if err != nil {
		return err
	}
	for _, r := range resp.Resources {
		config := TopicConfig{Err: c.lacking(answer(r.ErrorCode, r.ErrorMessage), toDescribeConfigs, ofTopic, r.ResourceName)}
		for _, entry := range r.Configs {
			config.Entries = append(config.Entries, newConfigEntry(entry))
		}
		configs[r.ResourceName] = config
	}
	return nil
}

func newConfigEntry(c kmsg.DescribeConfigsResponseResourceConfig) ConfigEntry {
	entry := ConfigEntry{Name: c.Name, Source: SourceUnknown, ReadOnly: c.ReadOnly, Sensitive: c.IsSensitive}
	if c.Value != nil {
		entry.Value = *c.Value
	}
	switch c.Source {
	case kmsg.ConfigSourceDynamicTopicConfig:
		entry.Source = SourceTopic
	case kmsg.ConfigSourceDynamicBrokerConfig, kmsg.ConfigSourceDynamicDefaultBrokerConfig:
		entry.Source = SourceDynamicBroker
	case kmsg.ConfigSourceStaticBrokerConfig:
		entry.Source = SourceStaticBroker
	case kmsg.ConfigSourceDefaultConfig:
		entry.Source = SourceDefault
	}
	return entry
}

// A ConfigChange is what is to become different in a topic's configuration.
type ConfigChange struct {
	Topic  string
	Set    map[string]string
	Delete []string // what the brokers say by default holds again
}

// AlterConfigs changes one topic's configuration: all of it, or, where the broker refuses any of it, nothing. The error has the broker's
// own words. Every other key stays as it is.
func (c *Cluster) AlterConfigs(ctx context.Context, change ConfigChange) error {
	r := kmsg.NewIncrementalAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, change.Topic
	for _, key := range slices.Sorted(maps.Keys(change.Set)) {
		config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		config.Name, config.Op, config.Value = key, kmsg.IncrementalAlterConfigOpSet, kmsg.StringPtr(change.Set[key])
		r.Configs = append(r.Configs, config)
	}
	for _, key := range change.Delete {
		config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		config.Name, config.Op = key, kmsg.IncrementalAlterConfigOpDelete
		r.Configs = append(r.Configs, config)
	}
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	req.Resources = append(req.Resources, r)
	resp, err := anyBroker[*kmsg.IncrementalAlterConfigsResponse](ctx, c, req)
	if err != nil {
		return fmt.Errorf("alter configuration of %s: %w", change.Topic, err)
	}
	if len(resp.Resources) == 0 {
		return fmt.Errorf("alter configuration of %s: the broker left it out: %w", change.Topic, ErrUnanswered)
	}
	for _, r := range resp.Resources {
		if err := c.lacking(answer(r.ErrorCode, r.ErrorMessage), toAlterConfigs, ofTopic, change.Topic); err != nil {
			return fmt.Errorf("alter configuration of %s: %w", change.Topic, err)
		}
	}
	return nil
}

// NewTopic describes a topic to create.
type NewTopic struct {
	Name              string
	Partitions        int32
	ReplicationFactor int16 // -1: the broker's default
	Configs           map[string]string
	ValidateOnly      bool // create nothing, only find out whether it could be
}

// CreateTopic creates a topic and waits, for a few seconds at most, until its partitions have leaders. The error has the
// broker's own words: ErrTopicExists, ErrInvalidConfig, ErrPolicyViolation, ErrTopicAuthorization and so on.
func (c *Cluster) CreateTopic(ctx context.Context, t NewTopic) error {
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = t.Name, t.Partitions, t.ReplicationFactor
	for _, name := range slices.Sorted(maps.Keys(t.Configs)) {
		config := kmsg.NewCreateTopicsRequestTopicConfig()
		config.Name, config.Value = name, kmsg.StringPtr(t.Configs[name])
		topic.Configs = append(topic.Configs, config)
	}
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Topics = append(req.Topics, topic)
	req.TimeoutMillis = adminTimeout
	req.ValidateOnly = t.ValidateOnly
	resp, err := anyBroker[*kmsg.CreateTopicsResponse](ctx, c, req)
	if err != nil {
		return fmt.Errorf("create topic %s: %w", t.Name, err)
	}
	for _, r := range resp.Topics {
		if err := c.lacking(answer(r.ErrorCode, r.ErrorMessage), toCreate, ofTopic, t.Name); err != nil {
			return fmt.Errorf("create topic %s: %w", t.Name, err)
		}
	}
	if !t.ValidateOnly {
		c.awaitTopic(ctx, t.Name, int(t.Partitions))
	}
	return nil
}

// AddPartitions raises a topic's number of partitions to a total, and waits like CreateTopic.
func (c *Cluster) AddPartitions(ctx context.Context, topic string, total int32) error {
	t := kmsg.NewCreatePartitionsRequestTopic()
	t.Topic, t.Count = topic, total
	req := kmsg.NewPtrCreatePartitionsRequest()
	req.Topics = append(req.Topics, t)
	req.TimeoutMillis = adminTimeout
	resp, err := anyBroker[*kmsg.CreatePartitionsResponse](ctx, c, req)
	if err != nil {
		return fmt.Errorf("raise %s to %d partitions: %w", topic, total, err)
	}
	for _, r := range resp.Topics {
		if err := c.lacking(answer(r.ErrorCode, r.ErrorMessage), toAlter, ofTopic, topic); err != nil {
			return fmt.Errorf("raise %s to %d partitions: %w", topic, total, err)
		}
	}
	c.awaitTopic(ctx, topic, int(total))
	return nil
}

// awaitTopic waits until a topic's partitions have leaders. If they take long that is no error of the change that was made:
// whoever uses the topic finds out.
func (c *Cluster) awaitTopic(ctx context.Context, name string, partitions int) {
	ctx, cancel := context.WithTimeout(ctx, visibleWithin)
	defer cancel()
	for {
		topic, err := c.Topic(ctx, name)
		if err == nil && len(topic.Partitions) >= partitions && !topic.lacking() {
			return
		}
		if sleep(ctx, firstPause) != nil {
			return
		}
	}
}

// A Producer is what the leader of a partition remembers of one that wrote to it.
type Producer struct {
	ID            int64
	Epoch         int16
	LastSequence  int32
	LastTimestamp int64 // in milliseconds
}

// DescribeProducers lists the producers that the partition's leader remembers. It forgets them by the timestamps of their
// records, so one that is missing may have written all the same.
func (c *Cluster) DescribeProducers(ctx context.Context, tp TopicPartition) ([]Producer, error) {
	var producers []Producer
	err := patiently(ctx, outdated, func() error {
		l, err := c.topics.leader(ctx, tp)
		if err != nil {
			return err
		}
		producers, err = c.describeProducers(ctx, l.broker, tp)
		c.topics.doubtAfter(err, tp.Topic)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("producers of %s: %w", tp, err)
	}
	return producers, nil
}

func (c *Cluster) describeProducers(ctx context.Context, broker int32, tp TopicPartition) ([]Producer, error) {
	t := kmsg.NewDescribeProducersRequestTopic()
	t.Topic, t.Partitions = tp.Topic, []int32{tp.Partition}
	req := kmsg.NewPtrDescribeProducersRequest()
	req.Topics = append(req.Topics, t)
	resp, err := oneBroker[*kmsg.DescribeProducersResponse](ctx, c, broker, req)
	if err != nil {
		return nil, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 || resp.Topics[0].Topic != tp.Topic || resp.Topics[0].Partitions[0].Partition != tp.Partition {
		return nil, fmt.Errorf("broker %d left it out: %w", broker, ErrUnanswered)
	}
	p := resp.Topics[0].Partitions[0]
	if err := c.lacking(answer(p.ErrorCode, p.ErrorMessage), toRead, ofTopic, tp.Topic); err != nil {
		return nil, err
	}
	producers := make([]Producer, 0, len(p.ActiveProducers))
	for _, a := range p.ActiveProducers {
		producers = append(producers, Producer{a.ProducerID, int16(a.ProducerEpoch), a.LastSequence, a.LastTimestamp})
	}
	return producers, nil
}

// LogBytes is the size of the partitions' logs on their leaders. A partition without a leader is left out.
func (c *Cluster) LogBytes(ctx context.Context, topics []string) (map[TopicPartition]int64, error) {
	if len(topics) == 0 {
		return nil, nil
	}
	described, err := c.askTopics(ctx, topics)
	if err != nil {
		return nil, fmt.Errorf("log sizes: %w", err)
	}
	sizes := make(map[TopicPartition]int64)
	for broker, tps := range led(described) {
		if err := c.logBytes(ctx, broker, tps, sizes); err != nil {
			return nil, fmt.Errorf("log sizes on broker %d: %w", broker, err)
		}
	}
	return sizes, nil
}

// led sorts partitions by leader and topic.
func led(topics []Topic) map[int32]map[string][]int32 {
	brokers := make(map[int32]map[string][]int32)
	for _, t := range topics {
		for i, p := range t.Partitions {
			if p.Leader < 0 {
				continue
			}
			if brokers[p.Leader] == nil {
				brokers[p.Leader] = make(map[string][]int32)
			}
			brokers[p.Leader][t.Name] = append(brokers[p.Leader][t.Name], int32(i))
		}
	}
	return brokers
}

func (c *Cluster) logBytes(ctx context.Context, broker int32, topics map[string][]int32, sizes map[TopicPartition]int64) error {
	req := kmsg.NewPtrDescribeLogDirsRequest()
	for name, partitions := range topics {
		t := kmsg.NewDescribeLogDirsRequestTopic()
		t.Topic, t.Partitions = name, partitions
		req.Topics = append(req.Topics, t)
	}
	resp, err := oneBroker[*kmsg.DescribeLogDirsResponse](ctx, c, broker, req)
	if err != nil {
		return err
	}
	if err := c.lacking(kerr.ErrorForCode(resp.ErrorCode), toDescribe, ofCluster, ""); err != nil {
		return err
	}
	for _, dir := range resp.Dirs {
		if err := kerr.ErrorForCode(dir.ErrorCode); err != nil {
			return fmt.Errorf("directory %s: %w", dir.Dir, err)
		}
		for _, t := range dir.Topics {
			for _, p := range t.Partitions {
				if !p.IsFuture {
					sizes[TopicPartition{t.Topic, p.Partition}] = p.Size
				}
			}
		}
	}
	return nil
}
