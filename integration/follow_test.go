package integration

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/integration/testbed"
)

// Settings and rights of copies follow their sources, between brokers that keep to both.

const followWithin = 30 * time.Second // kferry promises five; the machine may be busy

// staticBytes is what the source's properties file says that the target's doesn't, dynamicBytes what all its brokers are told later.
const staticBytes, dynamicBytes = "52428800", "123456789"

// authorizing is a broker that keeps to rights, where everybody here has all.
func authorizing(t *testing.T, more ...testbed.KafkaOption) *testbed.Cluster {
	t.Helper()
	return testbed.Kafka(t, testbed.V43, append(more, testbed.WithAuthorizer())...)
}

// connector is an installation of a resource, of whose source connector some settings are given.
func connector(t *testing.T, source, target *testbed.Cluster, topics, config string) *installation {
	t.Helper()
	k := copying(t, source, target, "")
	withoutFlow(k.env)
	k.env["KFERRY_MIRROR"] = fmt.Sprintf(`
apiVersion: kafka.strimzi.io/v1beta2
kind: KafkaMirrorMaker2
metadata: {name: %[1]s}
spec:
  connectCluster: central
  clusters:
    - {alias: central, bootstrapServers: '%[2]s'}
    - {alias: %[1]s, bootstrapServers: '%[3]s'}
  mirrors:
    - sourceCluster: %[1]s
      targetCluster: central
      topicsPattern: '%[4]s'
      sourceConnector:
        config: {replication.factor: 1, offset.storage.topic: offsets-%[1]s, %[5]s}
`, k.alias, target.Bootstrap(), source.Bootstrap(), topics, config)
	return k
}

func TestSettingsAndRightsFollow(t *testing.T) {
	t.Parallel()
	source, target := authorizing(t, testbed.WithConfig("log.segment.bytes", staticBytes)), authorizing(t)
	source.SetConfig("log.retention.bytes", dynamicBytes)
	t.Run("settings", func(t *testing.T) { settingsFollow(t, source.For(t), target.For(t)) })
	t.Run("source defaults", func(t *testing.T) { sourceDefaultsFollow(t, source.For(t), target.For(t)) })
	t.Run("rights", func(t *testing.T) { rightsFollow(t, source.For(t), target.For(t)) })
	t.Run("own right", func(t *testing.T) { ownRightStays(t, source.For(t)) })
}

// Own are the settings that a topic itself has.
func ownConfig(t *testing.T, c *testbed.Cluster, topic string) map[string]string {
	t.Helper()
	described, err := c.Admin().DescribeTopicConfigs(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	own := map[string]string{}
	for _, resource := range described {
		for _, config := range resource.Configs {
			if config.Source == kmsg.ConfigSourceDynamicTopicConfig {
				own[config.Key] = config.MaybeValue()
			}
		}
	}
	return own
}

func unsetConfig(t *testing.T, c *testbed.Cluster, topic, key string) {
	t.Helper()
	answers, err := c.Admin().AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.DeleteConfig, Name: key}}, topic)
	if err == nil {
		_, err = answers.On(topic, func(r *kadm.AlterConfigsResponse) error { return r.Err })
	}
	if err != nil {
		t.Fatalf("remove %s of %s: %v", key, topic, err)
	}
}

// follows waits until something has followed, and says how long that took.
func (k *installation) follows(what string, is func() bool) {
	k.t.Helper()
	since := time.Now()
	testbed.Eventually(k.t, followWithin, what, is)
	k.t.Logf("%s: after %s", what, time.Since(since).Round(time.Millisecond))
}

// MirrorMaker's testSyncTopicConfigs and testReplicateTargetDefault, growth, and what is right where MirrorMaker is wrong: overrides of the
// target survive, and what the source's brokers are told while they run makes no setting of a topic.
func settingsFollow(t *testing.T, source, target *testbed.Cluster) {
	const topic = "settings-orders"
	source.CreateTopic(topic, 2, 1, "retention.ms", "3600000", "delete.retention.ms", "7000", "min.insync.replicas", "1")
	k := connector(t, source, target, "settings-.*", `config.properties.exclude: 'delete\.retention\..*'`)
	copied := k.copyOf(topic)
	run := k.start("run")
	own := func(key string) string { return ownConfig(t, target, copied)[key] }
	testbed.Eventually(t, copyWithin, "the copy", func() bool { return len(target.Topics(copied)) == 1 })
	if got := ownConfig(t, target, copied); got["retention.ms"] != "3600000" || got["min.insync.replicas"] != "1" || len(got) != 2 {
		t.Errorf("the copy was created with %v", got)
	}

	setConfig(t, target, copied, "delete.retention.ms", "8000") // excluded
	setConfig(t, target, copied, "segment.ms", "60000")         // the target's alone
	setConfig(t, target, copied, "retention.ms", "1800000")
	k.follows("the altered setting is forced back", func() bool { return own("retention.ms") == "3600000" })
	setConfig(t, source, topic, "cleanup.policy", "compact")
	k.follows("a new setting follows", func() bool { return own("cleanup.policy") == "compact" })
	unsetConfig(t, source, topic, "retention.ms")
	k.follows("a removed setting is removed", func() bool { return own("retention.ms") == "" })
	if got := ownConfig(t, target, copied); got["delete.retention.ms"] != "8000" || got["segment.ms"] != "60000" || got["retention.bytes"] != "" || got["segment.bytes"] != "" || len(got) != 4 {
		t.Errorf("the copy's settings became %v", got)
	}

	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	if _, err := source.Admin().UpdatePartitions(ctx, 5, topic); err != nil {
		t.Fatal(err)
	}
	k.follows("partitions are added", func() bool { return len(target.Topics(copied)[copied].Partitions) == 5 })
	if written := sum(metrics(t, run), "kferry_topic_configs_synced_total"); written != 3 {
		t.Errorf("%v settings were written, want 3", written)
	}
	k.stop(run)
}

// MirrorMaker's testReplicateSourceDefault, where the two clusters' defaults differ.
func sourceDefaultsFollow(t *testing.T, source, target *testbed.Cluster) {
	const topic = "defaults-orders"
	source.CreateTopic(topic, 1, 1)
	k := connector(t, source, target, "defaults-.*", `use.defaults.from: source, config.properties.exclude: 'delete\.retention\..*'`)
	copied := k.copyOf(topic)
	target.CreateTopic(copied, 1, 1, "delete.retention.ms", "8000", "retention.ms", "5000")
	run := k.start("run")
	k.follows("the source's defaults are the copy's", func() bool {
		is := topicConfig(t, target, copied)
		return is["retention.ms"] == "604800000" && is["segment.bytes"] == staticBytes && is["retention.bytes"] == dynamicBytes
	})
	if own := ownConfig(t, target, copied); own["delete.retention.ms"] != "8000" {
		t.Errorf("the copy's settings became %v", own)
	}
	k.stop(run)
}

// rights lists those on topics whose name begins with a prefix, as "alice ALLOW READ orders".
func rights(t *testing.T, c *testbed.Cluster, prefix string) (all []string) {
	t.Helper()
	answers, err := c.Admin().DescribeACLs(t.Context(), kadm.NewACLs().Topics().ResourcePatternType(kadm.ACLPatternAny).Operations().Allow().AllowHosts().Deny().DenyHosts())
	if err != nil {
		t.Fatal(err)
	}
	for _, answer := range answers {
		for _, a := range answer.Described {
			if strings.HasPrefix(a.Name, prefix) {
				all = append(all, fmt.Sprintf("%s %s %s %s", strings.TrimPrefix(a.Principal, "User:"), a.Permission, a.Operation, a.Name))
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func grant(t *testing.T, c *testbed.Cluster, topic string, pattern kadm.ACLPattern, b *kadm.ACLBuilder) {
	t.Helper()
	answers, err := c.Admin().CreateACLs(t.Context(), b.Topics(topic).ResourcePatternType(pattern))
	for _, answer := range answers {
		err = cmp.Or(err, answer.Err)
	}
	if err != nil {
		t.Fatalf("rights on %s: %v", topic, err)
	}
}

// ACLs go by MirrorMaker's rules, under the identity policy, where a right on every topic would be one on every topic of the target.
func rightsFollow(t *testing.T, source, target *testbed.Cluster) {
	const topic = "rights-orders"
	source.CreateTopic(topic, 1, 1)
	allow := func(who string, what ...kadm.ACLOperation) *kadm.ACLBuilder {
		return kadm.NewACLs().Allow("User:" + who).AllowHosts("*").Operations(what...)
	}
	literal, prefixed := kadm.ACLPatternLiteral, kadm.ACLPatternPrefixed
	grant(t, source, topic, literal, allow("alice", kadm.OpAll))
	grant(t, source, topic, literal, allow("bob", kadm.OpRead, kadm.OpWrite, kadm.OpDescribeConfigs))
	grant(t, source, topic, literal, kadm.NewACLs().Deny("User:carol").DenyHosts("*").Operations(kadm.OpWrite))
	grant(t, source, "*", literal, allow("everywhere", kadm.OpRead))
	grant(t, source, "rights-", prefixed, allow("prefix", kadm.OpRead))
	grant(t, target, topic, literal, allow("admin", kadm.OpAlter))
	k := connector(t, source, target, "rights-.*", `replication.policy.class: org.apache.kafka.connect.mirror.IdentityReplicationPolicy, kferry.sync.topic.acls.revoke: true`)
	run := k.start("run")
	want := []string{
		"admin ALLOW ALTER " + topic, "alice ALLOW READ " + topic, "bob ALLOW DESCRIBE_CONFIGS " + topic, "bob ALLOW READ " + topic,
		"carol DENY WRITE " + topic,
	}
	has := func() bool { return slices.Equal(rights(t, target, ""), want) }
	testbed.Eventually(t, copyWithin, "the rights on the copy", has)

	filter := kadm.NewACLs().Topics(topic).ResourcePatternType(literal).Allow("User:bob").AllowHosts("*").Operations(kadm.OpRead)
	if _, err := source.Admin().DeleteACLs(t.Context(), filter); err != nil {
		t.Fatal(err)
	}
	want = slices.Delete(want, 3, 4)
	k.follows("a right that was taken away is taken away", has)
	grant(t, source, topic, literal, allow("dave", kadm.OpRead))
	want = append(want, "dave ALLOW READ "+topic)
	k.follows("a new right follows", has)

	warnings := fmt.Sprint(k.status().Flows[0].Warnings)
	for _, word := range []string{`as "User:everywhere" has, are given to nobody on central`, `as on "rights-", don't follow`} {
		if !strings.Contains(warnings, word) {
			t.Errorf("status does not say %q: %s", word, warnings)
		}
	}
	if written := sum(metrics(t, run), "kferry_acls_synced_total"); written != 6 {
		t.Errorf("%v rights were given or taken away, want 6", written)
	}
	k.stop(run)
}

// Where a topic without rights is everybody's, the first one would take it from kferry: then none is given, and copying goes on.
func ownRightStays(t *testing.T, source *testbed.Cluster) {
	const topic = "own-orders"
	target := testbed.Kafka(t, testbed.V43,
		testbed.WithConfig("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
		testbed.WithConfig("allow.everyone.if.no.acl.found", "true"))
	source.CreateTopic(topic, 1, 1)
	testbed.Produce(t, source, topic, testbed.Load{Records: 100})
	k := connector(t, source, target, "own-.*", "sync.topic.configs.enabled: true")
	run := k.start("run")
	k.await(topic)
	grant(t, source, topic, kadm.ACLPatternLiteral, kadm.NewACLs().Allow("User:alice").AllowHosts("*").Operations(kadm.OpRead))
	k.follows("the warning", func() bool {
		return strings.Contains(fmt.Sprint(k.status().Flows[0].Warnings), "kferry itself could not write there any more")
	})
	if got := rights(t, target, ""); len(got) > 0 {
		t.Errorf("rights on the target: %v", got)
	}
	testbed.Produce(t, source, topic, testbed.Load{Records: 100, First: 100})
	k.await(topic)
	k.compare(topic)
	k.stop(run)

	grant(t, target, k.copyOf(topic), kadm.ACLPatternLiteral, kadm.NewACLs().Allow("User:ANONYMOUS").AllowHosts("*").Operations(kadm.OpAll))
	run = k.start("run")
	k.follows("the right, once kferry has its own", func() bool { return len(rights(t, target, k.copyOf(topic))) == 2 })
	k.stop(run)
}

// A setting that only the source's version knows is left out, when the copy is created and later; it keeps nothing else back, and is named.
func TestSettingThatTheTargetDoesNotKnow(t *testing.T) {
	source, target := testbed.Shared(t, testbed.V43), testbed.Shared(t, testbed.V33)
	source.CreateTopic("setting-unknown", 1, 1, "compression.gzip.level", "3", "retention.ms", "1209600000")
	source.CreateTopic("setting-known", 1, 1)
	for _, topic := range []string{"setting-unknown", "setting-known"} {
		testbed.Produce(t, source, topic, testbed.Load{Records: 100})
	}
	k := copying(t, source, target, "setting-.*")
	run := k.start("run")
	k.idle("setting-unknown", "setting-known")
	k.compare("setting-unknown", "setting-known")
	setConfig(t, source, "setting-known", "compression.gzip.level", "4")
	setConfig(t, source, "setting-known", "retention.ms", "2419200000")
	k.follows("the setting that is known", func() bool {
		return ownConfig(t, target, k.copyOf("setting-known"))["retention.ms"] == "2419200000"
	})
	if got := ownConfig(t, target, k.copyOf("setting-unknown")); got["retention.ms"] != "1209600000" || len(got) != 1 {
		t.Errorf("the copy's settings are %v", got)
	}
	if warnings := fmt.Sprint(k.status().Flows[0].Warnings); !strings.Contains(warnings, `doesn't know the setting compression.gzip.level of "setting-known" and 1 other`) {
		t.Errorf("status does not name the setting: %s", warnings)
	}
	k.stop(run)
}
