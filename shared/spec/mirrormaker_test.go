package spec_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// driver is what MirrorMaker's driver would be told about clusters a and b, with more lines.
func driver(lines ...string) string {
	return strings.Join(append([]string{"clusters = a, b", "a.bootstrap.servers = a:1", "b.bootstrap.servers = b:1", "a->b.enabled = true"}, lines...), "\n") + "\n"
}

func loadText(t *testing.T, text string) spec.Spec {
	t.Helper()
	return load(t, "KFERRY_MIRROR="+text)
}

// flowOf is a->b with more lines.
func flowOf(t *testing.T, lines ...string) spec.Flow {
	t.Helper()
	f, ok := loadText(t, driver(lines...)).Flow("a->b")
	if !ok {
		t.Fatalf("no flow of %q", lines)
	}
	return f
}

// refused expects a mistake that names some words.
func refused(t *testing.T, text string, words ...string) {
	t.Helper()
	_, err := spec.Load(nil, []string{"KFERRY_MIRROR=" + text})
	for _, word := range words {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%v\ndoesn't say %q", err, word)
		}
	}
}

// passedOver expects one warning about settings without effect that names each, and nothing else to come of them.
func passedOver(t *testing.T, why string, lines ...string) {
	t.Helper()
	s := loadText(t, driver(lines...))
	all := strings.Join(s.Warnings, "\n")
	for _, line := range lines {
		key, _, _ := strings.Cut(line, " ")
		if !strings.Contains(all, key) || !strings.Contains(all, why) {
			t.Errorf("%q doesn't say %s: %s", all, key, why)
		}
	}
	plain := loadText(t, driver())
	s.Flows[0].Given, plain.Flows[0].Given = nil, nil
	if got, want := describe(spec.Spec{Flows: s.Flows, Heartbeats: s.Heartbeats}, nil), describe(spec.Spec{Flows: plain.Flows, Heartbeats: plain.Heartbeats}, nil); got != want {
		t.Errorf("%q made\n%s of\n%s", lines, got, want)
	}
}

func selects(t *testing.T, f spec.Flow, want map[string]bool) {
	t.Helper()
	for topic, want := range want {
		if got := f.Selects(topic); got != want {
			t.Errorf("%s is copied: %v", topic, got)
		}
	}
}

// TestMirrorMaker holds scenarios of MirrorMaker's own tests, under their names there.
func TestMirrorMaker(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"MirrorSourceConnectorTest.testReplicatesHeartbeatsByDefault": func(t *testing.T) {
			selects(t, flowOf(t), map[string]bool{"heartbeats": true, "us-west.heartbeats": true, "b.heartbeats": false})
		},
		"MirrorSourceConnectorTest.testReplicatesHeartbeatsDespiteFilter": func(t *testing.T) {
			selects(t, flowOf(t, "a->b.topics.exclude = .*"), map[string]bool{"heartbeats": true, "us-west.heartbeats": true, "orders": false})
			underscore := flowOf(t, "a->b.topics.exclude = .*", "replication.policy.separator = _")
			selects(t, underscore, map[string]bool{"heartbeats": true, "us-west_heartbeats": true, "us-west.heartbeats": false})
		},
		"MirrorSourceConnectorTest.testDoesNotReplicateHeartbeatsWhenDisabled": func(t *testing.T) {
			f := flowOf(t, "a->b.heartbeats.replication.enabled = false", "a->b.topics.exclude = .*")
			selects(t, f, map[string]bool{"heartbeats": false, "us-west.heartbeats": false})
		},
		"MirrorSourceConnectorTest.testReplicatesHeartbeatsWhenDisabledButFilterAllows": func(t *testing.T) {
			f := flowOf(t, "a->b.heartbeats.replication.enabled = false", "a->b.topics = heartbeats")
			selects(t, f, map[string]bool{"heartbeats": true, "us-west.heartbeats": false})
		},
		"MirrorSourceConnectorTest.testExactlyOnceSupport": func(t *testing.T) {
			for _, c := range []struct {
				want  spec.Isolation
				lines []string
			}{
				{spec.ReadCommitted, nil}, // MirrorMaker's is read_uncommitted, and has no exactly-once then
				{spec.ReadCommitted, []string{"a->b.consumer.isolation.level = read_committed"}},
				{spec.ReadUncommitted, []string{"a->b.consumer.isolation.level = read_uncommitted"}},
				{spec.ReadCommitted, []string{"a->b.source.consumer.isolation.level = read_committed"}},
				{spec.ReadUncommitted, []string{"a->b.source.consumer.isolation.level = read_uncommitted", "a->b.consumer.isolation.level = read_committed"}},
				{spec.ReadCommitted, []string{"a->b.source.consumer.isolation.level = read_committed", "a->b.consumer.isolation.level = read_uncommitted"}},
			} {
				if got := flowOf(t, c.lines...).Isolation; got != c.want {
					t.Errorf("%q: %s, want %s", c.lines, got, c.want)
				}
			}
		},
		"MirrorSourceConnectorTest.testExactlyOnceSupportValidation": func(t *testing.T) {
			passedOver(t, "every record is copied exactly once without transactions", "a->b.exactly.once.support = required")
			refused(t, driver("a->b.exactly.once.support = required", "a->b.consumer.isolation.level = roughly"), "isolation.level", `"roughly"`)
		},
		"MirrorSourceConfigTest.testTopicMatching": func(t *testing.T) {
			selects(t, flowOf(t, "a->b.topics = topic1"), map[string]bool{"topic1": true, "topic2": false})
		},
		"MirrorSourceConfigTest.testNoTopics": func(t *testing.T) {
			selects(t, flowOf(t, "a->b.topics ="), map[string]bool{"topic1": false, "topic2": false, "": false, "heartbeats": true})
		},
		"MirrorSourceConfigTest.testAllTopics": func(t *testing.T) {
			selects(t, flowOf(t, "a->b.topics = .*"), map[string]bool{"topic1": true, "topic2": true})
		},
		"MirrorSourceConfigTest.testListOfTopics": func(t *testing.T) {
			selects(t, flowOf(t, "a->b.topics = topic1, topic2"), map[string]bool{"topic1": true, "topic2": true, "topic3": false})
		},
		"MirrorSourceConfigTest.testConfigPropertyMatching": func(t *testing.T) {
			exclude := flowOf(t, "a->b.config.properties.exclude = prop2").ConfigExclude
			if exclude.Match("prop1") || !exclude.Match("prop2") || exclude.Match("prop22") || exclude.Match("min.insync.replicas") {
				t.Errorf("excludes %s", exclude)
			}
		},
		"MirrorSourceConfigTest.testOffsetSyncsTopic": func(t *testing.T) {
			for location, want := range map[string]spec.OffsetSyncs{
				"source": {Topic: "mm2-offset-syncs.b.internal", OnSource: true},
				"target": {Topic: "mm2-offset-syncs.a.internal"},
			} {
				got := flowOf(t, "offset-syncs.topic.location = "+location).Syncs
				if got.Topic != want.Topic || got.OnSource != want.OnSource {
					t.Errorf("%s: %+v", location, got)
				}
			}
			if got := flowOf(t).Syncs; !got.OnSource {
				t.Errorf("by default: %+v", got)
			}
			refused(t, driver("offset-syncs.topic.location = something"), "offset-syncs.topic.location", `"something"`, "source or target")
		},
		"MirrorSourceConfigTest.testProducerConfigsForOffsetSyncsTopic": func(t *testing.T) {
			passedOver(t, "clients have settings of their own", "a->b.producer.batch.size = 1", "a->b.source.producer.linger.ms = 2", "a->b.target.producer.acks = all")
		},
		"MirrorSourceConfigTest.testAdminConfigsForOffsetSyncsTopic": func(t *testing.T) {
			passedOver(t, "clients have settings of their own", "a->b.admin.request.timeout.ms = 1", "a->b.source.admin.retries = 2", "a->b.target.admin.retries = 3")
		},
		"MirrorCheckpointConfigTest.testConsumerConfigsForOffsetSyncsTopic": func(t *testing.T) {
			passedOver(t, "clients have settings of their own", "a->b.consumer.max.poll.records = 1", "a->b.source.consumer.fetch.min.bytes = 2", "a->b.target.consumer.fetch.min.bytes = 3")
		},
		"MirrorCheckpointConfigTest.testGroupMatching": func(t *testing.T) {
			groups := flowOf(t, "a->b.groups = group1").Groups
			if !groups.Selects("group1") || groups.Selects("group2") || groups.Selects("group11") {
				t.Errorf("selects by %s", groups.Include)
			}
		},
		"MirrorCheckpointConfigTest.testSkipValidationIfConnectorDisabled": func(t *testing.T) {
			s := loadText(t, driver("a->b.emit.checkpoints.enabled = false", "a->b.sync.group.offsets.enabled = false", "a->b.emit.offset-syncs.enabled = false"))
			if len(s.Warnings) > 0 {
				t.Errorf("warns: %q", s.Warnings)
			}
		},
		"MirrorCheckpointConfigTest.testValidateIfConnectorEnabled": func(t *testing.T) {
			s := loadText(t, driver("a->b.emit.checkpoints.enabled = true", "a->b.emit.offset-syncs.enabled = false"))
			if f := s.Flows[0]; !f.Groups.Checkpoints || f.Syncs.Enabled || !strings.Contains(strings.Join(s.Warnings, "\n"), "MirrorMaker would refuse this") {
				t.Errorf("%+v, %+v, warnings %q", f.Groups, f.Syncs, s.Warnings)
			}
		},
		"MirrorHeartBeatConnectorTest.testMirrorHeartbeatConnectorDisabled": func(t *testing.T) {
			if s := loadText(t, driver("a->b.emit.heartbeats.enabled = false", "b->a.emit.heartbeats.enabled = false")); len(s.Heartbeats) > 0 || len(s.Flows) != 1 {
				t.Errorf("%+v", s.Heartbeats)
			}
		},
		"MirrorHeartBeatConnectorTest.testReplicationDisabled": func(t *testing.T) {
			s := loadText(t, driver("b->a.enabled = false"))
			if len(s.Heartbeats) != 2 || len(s.Flows) != 1 {
				t.Errorf("%+v, flows %+v", s.Heartbeats, s.Flows)
			}
			refused(t, strings.Replace(driver(), "enabled = true", "enabled = false", 1), "nothing to copy")
		},
		"MirrorCheckpointConnectorTest.testMirrorCheckpointConnectorDisabled": func(t *testing.T) {
			if g := flowOf(t, "a->b.emit.checkpoints.enabled = false").Groups; g.Checkpoints || g.Sync {
				t.Errorf("%+v", g)
			}
		},
		"MirrorCheckpointConnectorTest.testReplicationDisabled": func(t *testing.T) {
			if s := loadText(t, driver("b->a.enabled = false", "b->a.emit.checkpoints.enabled = true")); len(s.Flows) != 1 {
				t.Errorf("flows %+v", s.Flows)
			}
		},
		"MirrorConnectorConfigTest.testSourceConsumerConfig": func(t *testing.T) {
			if f := flowOf(t, "a->b.consumer.auto.offset.reset = latest", "a->b.consumer.isolation.level = read_uncommitted"); f.Start != spec.Latest || f.Isolation != spec.ReadUncommitted {
				t.Errorf("start %s, %s", f.Start, f.Isolation)
			}
		},
		"MirrorConnectorConfigTest.testSourceConsumerConfigWithSourcePrefix": func(t *testing.T) {
			if f := flowOf(t, "a->b.source.consumer.auto.offset.reset = latest", "a->b.consumer.auto.offset.reset = earliest"); f.Start != spec.Latest {
				t.Errorf("start %s", f.Start)
			}
		},
		"MirrorConnectorConfigTest.testSourceProducerConfig": func(t *testing.T) {
			passedOver(t, "clients have settings of their own", "a->b.producer.acks = 1")
		},
		"MirrorConnectorConfigTest.testSourceProducerConfigWithSourcePrefix": func(t *testing.T) {
			passedOver(t, "clients have settings of their own", "a->b.source.producer.acks = 1")
		},
		"MirrorConnectorConfigTest.testSourceAdminConfig": func(t *testing.T) {
			passedOver(t, "clients have settings of their own", "a->b.admin.connections.max.idle.ms = 10000")
		},
		"MirrorConnectorConfigTest.testSourceAdminConfigWithSourcePrefix": func(t *testing.T) {
			passedOver(t, "clients have settings of their own", "a->b.source.admin.connections.max.idle.ms = 10000")
		},
		"MirrorConnectorConfigTest.testTargetAdminConfig": func(t *testing.T) {
			passedOver(t, "clients have settings of their own", "a->b.admin.retry.backoff.ms = 10000")
		},
		"MirrorConnectorConfigTest.testTargetAdminConfigWithSourcePrefix": func(t *testing.T) {
			passedOver(t, "clients have settings of their own", "a->b.target.admin.retry.backoff.ms = 10000")
		},
		"MirrorConnectorConfigTest.testMetricsReporters": func(t *testing.T) {
			passedOver(t, "metrics are at /metrics", "a->b.metric.reporters = com.example.Reporter")
		},
		"MirrorConnectorConfigTest.testExplicitlyEnableJmxReporter": func(t *testing.T) {
			passedOver(t, "metrics are at /metrics", "a->b.metric.reporters = org.apache.kafka.common.metrics.JmxReporter")
		},
		"MirrorConnectorConfigTest.testReplicationPolicy": func(t *testing.T) {
			f := flowOf(t, "a->b.replication.policy.separator = __")
			if f.Policy != (mm2.DefaultPolicy{Separator: "__"}) || f.RemoteTopic("t") != "a__t" || f.Groups.CheckpointsTopic != "a__checkpoints__internal" || f.Syncs.Topic != "mm2-offset-syncs__b__internal" {
				t.Errorf("%+v, %+v, %+v", f.Policy, f.Groups, f.Syncs)
			}
		},
		"ReplicationPolicyTest.offsetSyncsTopic_shouldBeEffectedByInternalTopicSeparatorEnabled": func(t *testing.T) {
			separated(t, func(f spec.Flow) string { return f.Syncs.Topic }, "mm2-offset-syncs__b__internal", "mm2-offset-syncs.b.internal")
		},
		"ReplicationPolicyTest.checkpointsTopic_shouldBeEffectedByInternalTopicSeparatorEnabled": func(t *testing.T) {
			separated(t, func(f spec.Flow) string { return f.Groups.CheckpointsTopic }, "a__checkpoints__internal", "a.checkpoints.internal")
		},
		"MirrorMakerConfigTest.testClusterConfigProperties": func(t *testing.T) {
			s := loadText(t, "clusters = a, b\na.bootstrap.servers = servers-one:1\nb.bootstrap.servers = servers-two:1\nsecurity.protocol = PLAINTEXT\nreplication.factor = 4\na->b.enabled = true\n")
			if s.Cluster("a").BootstrapServers[0] != "servers-one:1" || s.Cluster("b").BootstrapServers[0] != "servers-two:1" || s.Flows[0].ReplicationFactor != 4 {
				t.Errorf("%+v", s)
			}
			for _, alias := range []string{"a", "b"} {
				if got := s.Cluster(alias).Config["security.protocol"]; got != "PLAINTEXT" {
					t.Errorf("%s has security protocol %q", alias, got)
				}
			}
		},
		"MirrorMakerConfigTest.testReplicationConfigProperties": func(t *testing.T) {
			s := loadText(t, driver("a->b.tasks.max = 123", "tasks.max = 7", "b->a.enabled = true"))
			ab, _ := s.Flow("a->b")
			if ba, _ := s.Flow("b->a"); ab.MaxLeases != 123 || ba.MaxLeases != 7 {
				t.Errorf("a->b %d, b->a %d", ab.MaxLeases, ba.MaxLeases)
			}
			if n := flowOf(t).MaxLeases; n != 0 { // MirrorMaker has one task then
				t.Errorf("where nothing is said: %d", n)
			}
		},
		"MirrorMakerConfigTest.testClientConfigProperties": func(t *testing.T) {
			s := loadText(t, driver("b->a.enabled = true", "a.consumer.auto.offset.reset = latest", "b.consumer.isolation.level = read_uncommitted",
				"replication.policy.separator = __", "b.forwarding.admin.class = org.apache.kafka.clients.admin.ForwardingAdmin"))
			ab, _ := s.Flow("a->b")
			ba, _ := s.Flow("b->a")
			if ab.Start != spec.Latest || ab.Isolation != spec.ReadCommitted || ba.Start != spec.Earliest || ba.Isolation != spec.ReadUncommitted || ba.RemoteTopic("t") != "b__t" {
				t.Errorf("a->b %s %s, b->a %s %s %s", ab.Start, ab.Isolation, ba.Start, ba.Isolation, ba.RemoteTopic("t"))
			}
			refused(t, driver("a->b.forwarding.admin.class = com.example.Admin"), "com.example.Admin", "a Java class can't be run here")
		},
		"MirrorMakerConfigTest.testIncludesConnectorConfigProperties": func(t *testing.T) {
			f := flowOf(t, "a->b.tasks.max = 100", "a->b.topics = topic-1", "a->b.groups = group-2", "a->b.replication.policy.separator = __",
				"a->b.emit.checkpoints.interval.seconds = 100", "a->b.refresh.topics.interval.seconds = 200")
			if f.MaxLeases != 100 || !f.Selects("topic-1") || f.Selects("topic-2") || !f.Groups.Selects("group-2") || f.Groups.Selects("group-1") ||
				f.Groups.CheckpointsInterval != 100*time.Second || f.Refresh != 200*time.Second || f.RemoteTopic("t") != "a__t" {
				t.Errorf("%+v", f)
			}
		},
		"MirrorMakerConfigTest.testIncludesTopicFilterProperties": func(t *testing.T) {
			f := flowOf(t, "a->b.topics = topic1, topic2", "a->b.topics.exclude = topic3")
			selects(t, f, map[string]bool{"topic1": true, "topic2": true, "topic3": false})
			if got := f.Filters[0].Exclude.String(); got != "topic3" {
				t.Errorf("excludes %s", got)
			}
		},
		"MirrorMakerConfigTest.testWorkerConfigs": func(t *testing.T) {
			s := loadText(t, driver("b->a.enabled = true", "a.offset.storage.topic = offsets-a", "b.offset.storage.topic = offsets-b", "b.group.id = workers-b",
				"a.offset.storage.replication.factor = 2"))
			ab, _ := s.Flow("a->b")
			ba, _ := s.Flow("b->a")
			if ab.OffsetsTopic != "offsets-b" || ab.ConnectGroup != "workers-b" || ba.OffsetsTopic != "offsets-a" || ba.ConnectGroup == "workers-b" ||
				ba.OffsetsReplicationFactor != 2 || ab.OffsetsReplicationFactor != -1 {
				t.Errorf("a->b %s %s, b->a %s %s", ab.OffsetsTopic, ab.ConnectGroup, ba.OffsetsTopic, ba.ConnectGroup)
			}
			if f := flowOf(t, "b.offset.storage.topic = overruled", "offset.storage.topic = offsets"); f.OffsetsTopic != "offsets" {
				t.Errorf("at the top: %s", f.OffsetsTopic)
			}
		},
		"MirrorMakerConfigTest.testClusterPairsWithDefaultSettings": func(t *testing.T) { beats(t, 6, 1) },
		"MirrorMakerConfigTest.testClusterPairsWithTwoDisabledHeartbeats": func(t *testing.T) {
			beats(t, 4, 1, "a->c.emit.heartbeats.enabled = false", "b->c.emit.heartbeats.enabled = false")
		},
		"MirrorMakerConfigTest.testClusterPairsWithGloballyDisabledHeartbeats": func(t *testing.T) {
			beats(t, 2, 2, "emit.heartbeats.enabled = false", "a->c.emit.heartbeats.enabled = true", "c->a.emit.heartbeats.enabled = true", "b->c.enabled = true")
		},
		"MirrorMakerConfigTest.testClusterPairsWithGloballyDisabledHeartbeatsCentralLocal": func(t *testing.T) {
			beats(t, 2, 1, "emit.heartbeats.enabled = false", "c->a.emit.heartbeats.enabled = true", "c->b.emit.heartbeats.enabled = true")
		},
		"MirrorMakerConfigTest.testEmptyClusterPairsWithGloballyDisabledHeartbeats": func(t *testing.T) {
			refused(t, "clusters = a, b, c\na.bootstrap.servers = a:1\nb.bootstrap.servers = b:1\nc.bootstrap.servers = c:1\nemit.heartbeats.enabled = false\n", "nothing to copy")
		},
		"MirrorMakerConfigTest.testInvalidSecurityProtocol": func(t *testing.T) {
			refused(t, driver("security.protocol = abc"), "security.protocol", "PLAINTEXT")
		},
		"MirrorMakerConfigTest.testClientInvalidSecurityProtocol": func(t *testing.T) {
			refused(t, driver("a.security.protocol = abc"), "a.security.protocol", "PLAINTEXT")
		},
		"MirrorMakerConfigTest.testCaseInsensitiveSecurityProtocol": func(t *testing.T) {
			if s := loadText(t, driver("security.protocol = plaintext")); len(s.Warnings) > 0 {
				t.Errorf("warns: %q", s.Warnings)
			}
			refused(t, driver("security.protocol = sasl_ssl"), "security.protocol", "GSSAPI")
		},
		"MirrorConnectorConfigTest.testInvalidSecurityProtocol": func(t *testing.T) {
			refused(t, driver("a->b.security.protocol = abc"), `a->b.security.protocol: "abc"`)
		},
		"MirrorConnectorConfigTest.testCaseInsensitiveSecurityProtocol": func(t *testing.T) {
			if s := loadText(t, driver("a->b.security.protocol = plaintext")); len(s.Warnings) > 0 {
				t.Errorf("warns: %q", s.Warnings)
			}
		},
		// MirrorMaker's driver leaves references to each connector. Here they are resolved once, where they are read, and shown as they stand.
		"MirrorMakerConfigTest.testLazyConfigResolution": func(t *testing.T) {
			t.Setenv("TOPICS", "secret-orders")
			s, err := spec.Load(nil, []string{"TOPICS=secret-orders", "KFERRY_MIRROR=" + driver("config.providers = env",
				"config.providers.env.class = org.apache.kafka.common.config.provider.EnvVarConfigProvider", "a->b.topics = ${env:TOPICS}")})
			if err != nil {
				t.Fatal(err)
			}
			selects(t, s.Flows[0], map[string]bool{"secret-orders": true, "${env:TOPICS}": false, "orders": false})
			for _, given := range s.Flows[0].Given {
				if strings.Contains(given.Value, "secret") {
					t.Errorf("%+v is shown", given)
				}
			}
		},
		"SourceAndTargetTest.testEquals": func(t *testing.T) {
			s := loadText(t, "clusters = source, target, target2\nsource.bootstrap.servers = a:1\ntarget.bootstrap.servers = b:1\ntarget2.bootstrap.servers = c:1\n"+
				"source->target.enabled = true\nsource->target2.enabled = true\ntarget->source.enabled = true\n")
			names := map[string]bool{}
			for _, f := range s.Flows {
				names[f.Name()] = true
			}
			if _, found := s.Flow("source->target3"); found || len(names) != 3 {
				t.Errorf("flows %v", names)
			}
		},
		// Look-around and possessive repetition, which RE2 has not, and what Java alone reads in its way.
		"gapsInTheirSuite.regexFeaturesThatRE2Lacks": func(t *testing.T) {
			f := flowOf(t, `a->b.topics = (?!test-).*-(eu|us)(?<!x-us), \\w++`, `a->b.topics.exclude = (\\w)\\1++`, `a->b.groups = [a-z&&[^x]]+`)
			selects(t, f, map[string]bool{"orders-eu": true, "test-eu": false, "x-us": false, "aab": true, "aaa": false})
			if !f.Groups.Selects("app") || f.Groups.Selects("xapp") {
				t.Errorf("groups by %s", f.Groups.Include)
			}
		},
	} {
		t.Run(name, test)
	}
}

// separated compares a name with the policy's separator, and without it where that is switched off (KIP-949).
func separated(t *testing.T, name func(spec.Flow) string, with, without string) {
	t.Helper()
	for enabled, want := range map[string]string{"true": with, "false": without} {
		f := flowOf(t, "replication.policy.separator = __", "replication.policy.internal.topic.separator.enabled = "+enabled)
		if got := name(f); got != want {
			t.Errorf("%s: %s, want %s", enabled, got, want)
		}
	}
}

// beats counts the heartbeats and flows of three clusters.
func beats(t *testing.T, heartbeats, flows int, lines ...string) {
	t.Helper()
	text := "clusters = a, b, c\na.bootstrap.servers = a:1\nb.bootstrap.servers = b:1\nc.bootstrap.servers = c:1\na->b.enabled = true\n" + strings.Join(lines, "\n") + "\n"
	s := loadText(t, text)
	if len(s.Heartbeats) != heartbeats || len(s.Flows) != flows {
		t.Errorf("%d heartbeats, want %d; %d flows, want %d: %s", len(s.Heartbeats), heartbeats, len(s.Flows), flows, fmt.Sprint(s.Heartbeats))
	}
}
