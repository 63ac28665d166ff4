package functions_test

import (
	"maps"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/functions"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/local"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// topicsTest is a source, A, a target, B, and the flow between them.
type topicsTest struct {
	*testing.T
	env            *local.Env
	flow           spec.Flow
	source, target *kafka.Cluster
}

// inTopicsTest runs a test in virtual time.
func inTopicsTest(t *testing.T, test func(*topicsTest)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		env, err := local.Start(local.Setup{Virtual: true, Clusters: []local.Cluster{{Alias: "A"}, {Alias: "B", Brokers: 2}}})
		if err != nil {
			t.Fatal(err)
		}
		defer env.Close()
		exclude, err := spec.ParsePatterns(strings.Join(mm2.ConfigPropertiesExcludeDefault, ","))
		if err != nil {
			t.Fatal(err)
		}
		tt := &topicsTest{T: t, env: env, flow: spec.Flow{
			Source: "A", Target: "B", Policy: mm2.DefaultPolicy{}, ReplicationFactor: -1, ConfigExclude: exclude,
		}}
		tt.source, tt.target = tt.open("A"), tt.open("B")
		defer tt.source.Close()
		defer tt.target.Close()
		test(tt)
	})
}

func (t *topicsTest) open(alias string) *kafka.Cluster {
	t.Helper()
	c, err := kafka.Open(t.env.Spec(alias), kafka.Options{Budget: kafka.NewBudget(1 << 20), Dialer: t.env.Dial})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// offsets creates the topic of the cursors, with a limit of its own.
func (t *topicsTest) offsets(maxBytes string) {
	t.Helper()
	t.flow.OffsetsTopic = "offsets"
	settings := map[string]string{"cleanup.policy": "compact"}
	if maxBytes != "" {
		settings["max.message.bytes"] = maxBytes
	}
	t.has(t.target, "offsets", 1, settings)
}

func (t *topicsTest) has(c *kafka.Cluster, topic string, partitions int32, settings map[string]string) {
	t.Helper()
	err := c.CreateTopic(t.Context(), kafka.NewTopic{Name: topic, Partitions: partitions, ReplicationFactor: -1, Configs: settings})
	if err != nil {
		t.Fatal(err)
	}
}

// create runs the task for the topic "orders".
func (t *topicsTest) create() error {
	_, err := functions.CreateTopic(t.Context(), t.flow, t.source, t.target, "orders")
	return err
}

func (t *topicsTest) held(reason string, words ...string) {
	t.Helper()
	err := t.create()
	if err == nil {
		t.Fatalf("not held; want %s", reason)
	}
	for _, word := range append(words, "held ("+reason+")") {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q lacks %q", err, word)
		}
	}
}

// copied describes A.orders on the target: its partitions, its replicas, and what is set on it.
func (t *topicsTest) copied() (kafka.Topic, map[string]string) {
	t.Helper()
	topic, err := t.target.Topic(t.Context(), "A.orders")
	if err != nil {
		t.Fatal(err)
	}
	configs, err := t.target.Configs(t.Context(), []string{"A.orders"})
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{}
	for _, e := range configs["A.orders"].Entries {
		if e.Source == kafka.SourceTopic {
			settings[e.Name] = e.Value
		}
	}
	return topic, settings
}

// fault makes the target refuse until it is removed.
func (t *topicsTest) fault(f kfake.Fault) *kfake.FaultHandle {
	f.Count = -1
	return t.env.Kafka("B").Fault(f)
}

// creating matches requests that create a topic with a setting; "" is any request.
func creating(setting string) func(kmsg.Request) bool {
	return func(r kmsg.Request) bool {
		for _, topic := range r.(*kmsg.CreateTopicsRequest).Topics {
			for _, config := range topic.Configs {
				if config.Name == setting {
					return true
				}
			}
		}
		return setting == ""
	}
}

func TestCopyIsCreatedLikeTheSource(t *testing.T) {
	inTopicsTest(t, func(t *topicsTest) {
		t.has(t.source, "orders", 3, map[string]string{
			"retention.ms": "-1", "cleanup.policy": "compact", "min.insync.replicas": "1", "message.timestamp.before.max.ms": "5",
		})
		t.flow.ReplicationFactor = 2
		if err := t.create(); err != nil {
			t.Fatal(err)
		}
		topic, settings := t.copied()
		if len(topic.Partitions) != 3 || topic.Partitions[0].Replicas != 2 {
			t.Errorf("created %+v", topic)
		}
		if want := map[string]string{"retention.ms": "-1", "cleanup.policy": "compact"}; !maps.Equal(settings, want) {
			t.Errorf("settings %v, want %v", settings, want)
		}
	})
}

// What the target gives a new topic is not known where somebody has changed it on the example. (Cases with other brokers' defaults need
// real ones: integration/contents_test.go.)
func TestCopyTakesWhatTheSourceTakes(t *testing.T) {
	for _, c := range []struct{ offsets, exclude, want string }{
		{"", "", ""},
		{"2000", "", "1048588"},
		{"2000", `max\.message\.bytes`, ""},
	} {
		t.Run(c.offsets+" "+c.exclude, func(t *testing.T) {
			inTopicsTest(t, func(t *topicsTest) {
				t.offsets(c.offsets)
				t.has(t.source, "orders", 1, nil)
				if c.exclude != "" {
					var err error
					if t.flow.ConfigExclude, err = spec.ParsePatterns(c.exclude); err != nil {
						t.Fatal(err)
					}
				}
				if err := t.create(); err != nil {
					t.Fatal(err)
				}
				if _, settings := t.copied(); settings["max.message.bytes"] != c.want {
					t.Errorf("settings %v, want %q", settings, c.want)
				}
			})
		})
	}
}

// What kferry adds of its own accord must not stand in the way of a copy.
func TestCopyIsCreatedWithoutTheLimitsThatTheTargetRefuses(t *testing.T) {
	inTopicsTest(t, func(t *topicsTest) {
		t.offsets("2000")
		t.has(t.source, "orders", 1, map[string]string{"retention.ms": "-1"})
		t.fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Err: kerr.PolicyViolation, When: creating("max.message.bytes")})
		if err := t.create(); err != nil {
			t.Fatal(err)
		}
		if _, settings := t.copied(); settings["retention.ms"] != "-1" || settings["max.message.bytes"] != "" {
			t.Errorf("settings %v", settings)
		}
	})
}

func TestCopyIsCreatedWithoutARightToReadLimits(t *testing.T) {
	inTopicsTest(t, func(t *topicsTest) {
		t.offsets("")
		t.has(t.source, "orders", 1, nil)
		t.fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Err: kerr.TopicAuthorizationFailed}) // on the target alone
		if err := t.create(); err != nil {
			t.Error(err)
		}
	})
}

func TestCopyGrowsAndIsNeverChangedOtherwise(t *testing.T) {
	inTopicsTest(t, func(t *topicsTest) {
		t.has(t.source, "orders", 4, map[string]string{"retention.ms": "-1"})
		t.has(t.target, "A.orders", 1, map[string]string{"retention.ms": "3600000"})
		for range 2 { // the second time there is nothing to do
			if err := t.create(); err != nil {
				t.Fatal(err)
			}
		}
		topic, settings := t.copied()
		if len(topic.Partitions) != 4 || settings["retention.ms"] != "3600000" {
			t.Errorf("grown to %d partitions, settings %v", len(topic.Partitions), settings)
		}
		if err := t.source.AddPartitions(t.Context(), "orders", 5); err != nil {
			t.Fatal(err)
		}
		if err := t.target.AddPartitions(t.Context(), "A.orders", 9); err != nil {
			t.Fatal(err)
		}
		if err := t.create(); err != nil {
			t.Fatal(err)
		}
		if topic, _ := t.copied(); len(topic.Partitions) != 9 {
			t.Errorf("%d partitions, had 9", len(topic.Partitions))
		}
	})
}

func TestManyWorkersCreateOneCopy(t *testing.T) {
	inTopicsTest(t, func(t *topicsTest) {
		t.has(t.source, "orders", 2, nil)
		errs := make(chan error)
		for range 8 {
			go func() { errs <- t.create() }()
		}
		for range 8 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if topic, _ := t.copied(); len(topic.Partitions) != 2 {
			t.Errorf("created %+v", topic)
		}
	})
}

func TestRefusedSettingIsNamed(t *testing.T) {
	inTopicsTest(t, func(t *topicsTest) {
		t.has(t.source, "orders", 1, map[string]string{"retention.ms": "-1", "vendor.tiering": "on"})
		t.fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Err: kerr.InvalidConfig, When: creating("vendor.tiering")})
		t.held("topic_config", "it refuses vendor.tiering=on: exclude that setting")
		if _, err := t.target.Topic(t.Context(), "A.orders"); err == nil {
			t.Error("the topic was created by asking what is wrong with it")
		}
		var err error
		if t.flow.ConfigExclude, err = spec.ParsePatterns(`vendor\..*`); err != nil {
			t.Fatal(err)
		}
		if err := t.create(); err != nil {
			t.Errorf("with the setting excluded: %v", err)
		}
	})
}

func TestRefusedTopicBlamesNoSetting(t *testing.T) {
	inTopicsTest(t, func(t *topicsTest) {
		t.has(t.source, "orders", 1, map[string]string{"retention.ms": "-1"})
		t.fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Err: kerr.PolicyViolation, When: creating("")})
		t.held("topic_config", "POLICY_VIOLATION")
		if err := t.create(); strings.Contains(err.Error(), "retention.ms") {
			t.Errorf("blames a setting: %v", err)
		}
	})
}

func TestNoRightToCreate(t *testing.T) {
	inTopicsTest(t, func(t *topicsTest) {
		t.has(t.source, "orders", 3, nil)
		may := t.fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Err: kerr.TopicAuthorizationFailed})
		t.held("authorization", `"A.orders" on B`, "3 partitions")
		may.Remove()
		t.has(t.target, "A.orders", 1, nil)
		t.fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreatePartitions}, Err: kerr.TopicAuthorizationFailed})
		t.held("authorization", `"A.orders" on B has 1 partitions, "orders" has 3`)
	})
}

func TestCopyThatCanNotGrow(t *testing.T) {
	inTopicsTest(t, func(t *topicsTest) {
		t.has(t.source, "orders", 3, nil)
		t.has(t.target, "A.orders", 1, nil)
		t.fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreatePartitions}, Err: kerr.InvalidPartitions})
		t.held("partitions_missing", "add them")
	})
}

func TestReplicationFactorBeyondTheBrokers(t *testing.T) {
	inTopicsTest(t, func(t *topicsTest) {
		t.has(t.source, "orders", 1, nil)
		t.flow.ReplicationFactor = 3
		t.held("topic_config", "replication factor 3")
	})
}

func TestDeletedSourceTopicNeedsNoCopy(t *testing.T) {
	inTopicsTest(t, func(t *topicsTest) {
		if err := t.create(); err != nil {
			t.Error(err)
		}
	})
}
