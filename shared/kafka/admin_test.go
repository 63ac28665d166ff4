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

func TestConfigsAreAltered(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		w.must(w.cluster.CreateTopic(w.ctx, kafka.NewTopic{
			Name: "t", Partitions: 1, ReplicationFactor: -1, Configs: map[string]string{"cleanup.policy": "compact", "retention.ms": "1"},
		}))
		w.must(w.cluster.AlterConfigs(w.ctx, kafka.ConfigChange{Topic: "t", Set: map[string]string{"retention.ms": "2"}, Delete: []string{"cleanup.policy"}}))
		configs, err := w.cluster.ConfigsOf(w.ctx, map[string][]string{"t": {"retention.ms", "cleanup.policy", "unknown"}})
		w.must(err)
		want := []kafka.ConfigEntry{
			{Name: "retention.ms", Value: "2", Source: kafka.SourceTopic}, {Name: "cleanup.policy", Value: "delete", Source: kafka.SourceDefault},
		}
		got := configs["t"].Entries
		if len(got) != 2 || !slices.Contains(got, want[0]) || !slices.Contains(got, want[1]) {
			w.Errorf("configuration %+v", got)
		}
		w.wants(w.cluster.AlterConfigs(w.ctx, kafka.ConfigChange{Topic: "u", Set: map[string]string{"retention.ms": "2"}}), kafka.ErrUnknownTopic)
		w.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.IncrementalAlterConfigs}, Err: kerr.PolicyViolation})
		w.wants(w.cluster.AlterConfigs(w.ctx, kafka.ConfigChange{Topic: "t", Set: map[string]string{"retention.ms": "3"}}), kafka.ErrPolicyViolation)
	})
}

func TestACLsAreGivenAndTakenAway(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		read := kafka.ACL{Topic: "t", Pattern: kafka.ACLLiteral, Principal: "User:a", Host: "*", Operation: "DESCRIBE_CONFIGS", Permission: kafka.ACLAllow}
		deny, prefix := read, read
		deny.Operation, deny.Permission = kafka.ACLAll, kafka.ACLDeny
		prefix.Topic, prefix.Pattern = "other", kafka.ACLPrefixed
		has := func(topic string, want ...kafka.ACL) {
			w.Helper()
			got, err := w.cluster.DescribeACLs(w.ctx, topic)
			w.must(err)
			if len(got) != len(want) || slices.ContainsFunc(want, func(a kafka.ACL) bool { return !slices.Contains(got, a) }) {
				w.Errorf("ACLs of %q: %v, want %v", topic, got, want)
			}
		}
		for range 2 { // the second time they are there
			w.must(w.cluster.CreateACLs(w.ctx, []kafka.ACL{read, deny, prefix}))
		}
		has("", read, deny, prefix)
		has("t", read, deny)
		for range 2 {
			w.must(w.cluster.DeleteACLs(w.ctx, []kafka.ACL{deny}))
		}
		has("", read, prefix)
		w.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateACLs, kmsg.DeleteACLs}, Err: kerr.ClusterAuthorizationFailed, Count: 2})
		w.wants(w.cluster.CreateACLs(w.ctx, []kafka.ACL{deny}), kafka.ErrClusterAuthorization)
		w.wants(w.cluster.DeleteACLs(w.ctx, []kafka.ACL{read}), kafka.ErrClusterAuthorization)
		has("", read, prefix)
		w.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeACLs}, Err: kerr.SecurityDisabled, TopLevel: true})
		_, err := w.cluster.DescribeACLs(w.ctx, "")
		w.wants(err, kafka.ErrSecurityDisabled)
	})
}
