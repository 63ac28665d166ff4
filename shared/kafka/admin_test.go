package kafka_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestTopicsAreCreatedAndGrown(t *testing.T) {
	inBubble(t, setup{brokers: 3}, func(w *world) {
		wanted := kafka.NewTopic{Name: "t", Partitions: 2, ReplicationFactor: 3, Configs: map[string]string{"retention.ms": "1000"}}
		check := wanted
		check.ValidateOnly = true
		w.must(w.cluster.CreateTopic(w.ctx, check))
		_, err := w.cluster.Topic(w.ctx, "t")
		w.wants(err, kafka.ErrUnknownTopic)

		w.must(w.cluster.CreateTopic(w.ctx, wanted))
		w.wants(w.cluster.CreateTopic(w.ctx, wanted), kafka.ErrTopicExists)
		w.must(w.cluster.AddPartitions(w.ctx, "t", 5))
		w.wants(w.cluster.AddPartitions(w.ctx, "t", 4), kafka.ErrInvalidPartitions)

		topic, err := w.cluster.Topic(w.ctx, "t")
		w.must(err)
		if len(topic.Partitions) != 5 || topic.ID.Zero() || topic.Partitions[4].Replicas != 3 {
			w.Errorf("topic %+v", topic)
		}
		w.create("a", 1)
		topics, err := w.cluster.Topics(w.ctx)
		w.must(err)
		if len(topics) != 2 || topics[0].Name != "a" || topics[1].ID != topic.ID {
			w.Errorf("topics %+v", topics)
		}
	})
}

func TestRefusedTopicNamesTheReason(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		for _, refusal := range []*kerr.Error{kerr.PolicyViolation, kerr.TopicAuthorizationFailed, kerr.InvalidConfig} {
			w.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Topic: "t", Err: refusal})
			w.wants(w.cluster.CreateTopic(w.ctx, kafka.NewTopic{Name: "t", Partitions: 1, ReplicationFactor: -1}), refusal)
		}
	})
}

func TestConfigsTellTheirSource(t *testing.T) {
	inBubble(t, setup{fake: []kfake.Opt{kfake.BrokerConfigs(map[string]string{"log.retention.ms": "5000"})}}, func(w *world) {
		w.must(w.cluster.CreateTopic(w.ctx, kafka.NewTopic{
			Name: "t", Partitions: 1, ReplicationFactor: -1, Configs: map[string]string{"cleanup.policy": "compact"},
		}))
		configs, err := w.cluster.Configs(w.ctx, []string{"t", "u"})
		w.must(err)
		i := slices.IndexFunc(configs["t"].Entries, func(e kafka.ConfigEntry) bool { return e.Name == "cleanup.policy" })
		if i < 0 || configs["t"].Entries[i] != (kafka.ConfigEntry{Name: "cleanup.policy", Value: "compact", Source: kafka.SourceTopic}) {
			w.Errorf("configuration %+v", configs["t"])
		}
		if !slices.ContainsFunc(configs["t"].Entries, func(e kafka.ConfigEntry) bool { return e.Source == kafka.SourceDefault }) {
			w.Errorf("no default in %+v", configs["t"])
		}
		if err := configs["u"].Err; !errors.Is(err, kafka.ErrUnknownTopic) {
			w.Errorf("configuration of no topic: %v", err)
		}
	})
}

func TestLogBytes(t *testing.T) {
	inBubble(t, setup{brokers: 2}, func(w *world) {
		w.create("t", 2)
		w.write(kafka.TopicPartition{Topic: "t", Partition: 1}, 1, 5000)
		sizes, err := w.cluster.LogBytes(w.ctx, []string{"t"})
		w.must(err)
		if len(sizes) != 2 || sizes[kafka.TopicPartition{Topic: "t"}] != 0 || sizes[kafka.TopicPartition{Topic: "t", Partition: 1}] == 0 {
			w.Errorf("sizes %v", sizes)
		}
	})
}

// What the fake cluster answers differs from Kafka, which lists idempotent producers too.
func TestDescribeProducersOfAnUnknownPartition(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		w.create("t", 1)
		_, err := w.cluster.DescribeProducers(w.ctx, kafka.TopicPartition{Topic: "t"})
		w.must(err)
		_, err = w.cluster.DescribeProducers(w.ctx, kafka.TopicPartition{Topic: "t", Partition: 3})
		w.wants(err, kafka.ErrUnknownTopic)
	})
}
