package mm2_test

import (
	"strings"
	"testing"

	"github.com/kferry/kferry/shared/mm2"
)

// TestMirrorMaker holds scenarios of MirrorMaker's own tests, under their names there.
func TestMirrorMaker(t *testing.T) {
	dot, kept := mm2.DefaultPolicy{}, mm2.IdentityPolicy{}
	t.Run("MirrorSourceConnectorTest.testNoCycles", func(t *testing.T) {
		for topic, want := range map[string]bool{
			"target.topic1": true, "target.source.topic1": true, "source.target.topic1": true, "topic1": false, "source6.topic1": false,
			"source.topic1": false, "source6.source.topic1": false, // cycles for 4.4, which takes a local name for a copy
		} {
			if got := mm2.Cycle(dot, topic, "target"); got != want {
				t.Errorf("%s: %v", topic, got)
			}
			if mm2.Cycle(kept, topic, "target") {
				t.Errorf("%s is a cycle where names say nothing", topic)
			}
		}
	})
	t.Run("MirrorSourceConnectorTest.testIdentityReplication", func(t *testing.T) {
		for topic, want := range map[string]bool{
			"target.topic1": false, "source.topic1": false, "topic1": false,
			"heartbeats": false, "source6.heartbeats": false, "target.heartbeats": true, "target.source.heartbeats": true,
		} {
			if got := mm2.Cycle(kept, topic, "target"); got != want {
				t.Errorf("%s: %v", topic, got)
			}
		}
	})
	// A custom policy's topicSource may say something where its upstreamTopic says nothing. Here both come from one reading.
	t.Run("MirrorSourceConnectorTest.testIsCycleWithNullUpstreamTopic", func(t *testing.T) {
		for _, topic := range []string{"", ".", "..", "target", "target.", "target..", "topic1", ".topic1"} {
			for _, p := range []mm2.Policy{dot, kept, mm2.DefaultPolicy{Separator: "__"}} {
				_, hasSource := p.Source(topic)
				if _, hasUpstream := p.Upstream(topic); hasSource != hasUpstream || mm2.Cycle(p, topic, "target") {
					t.Errorf("%q by %v: source %v, upstream %v, or a cycle", topic, p, hasSource, hasUpstream)
				}
			}
		}
	})
	t.Run("MirrorClientTest.testIsHeartbeatTopic", func(t *testing.T) {
		for topic, want := range map[string]bool{
			"heartbeats": true, "source1.heartbeats": true, "source2.source1.heartbeats": true,
			"heartbeats!": false, "!heartbeats": false, "source1heartbeats": false, "source1-heartbeats": false,
		} {
			if got := mm2.Heartbeats(dot, topic); got != want {
				t.Errorf("%s: %v", topic, got)
			}
		}
	})
	t.Run("MirrorClientTest.testIsCheckpointTopic", func(t *testing.T) {
		for topic, want := range map[string]bool{
			"source1.checkpoints.internal": true, "checkpoints.internal": false, "checkpoints-internal": false,
			"checkpoints.internal!": false, "!checkpoints.internal": false, "source1checkpointsinternal": false,
		} {
			if got := mm2.Internal(dot, topic); got != want {
				t.Errorf("%s: %v", topic, got)
			}
		}
	})
	t.Run("MirrorClientTest.countHopsForTopicTest", func(t *testing.T) {
		for _, c := range []struct {
			topic, source string
			hops          int
		}{
			{"topic", "source", -1}, {"source", "source", -1}, {"sourcetopic", "source", -1}, {"source1.topic", "source2", -1},
			{"source1.topic", "source1", 1}, {"source2.source1.topic", "source2", 1}, {"source2.source1.topic", "source1", 2},
			{"source3.source2.source1.topic", "source1", 3}, {"source3.source2.source1.topic", "source4", -1},
		} {
			if got := hops(dot, c.topic, c.source); got != c.hops {
				t.Errorf("%s from %s: %d hops, want %d", c.topic, c.source, got, c.hops)
			}
		}
	})
	t.Run("MirrorClientTest.remoteTopicsSeparatorTest", func(t *testing.T) {
		p := mm2.DefaultPolicy{Separator: "__"}
		for topic, want := range map[string]bool{
			"topic1": false, "source1__topic3": true, "source2__source1__topic4": true, "source3__source5__topic5": true, "source1.topic2": false,
		} {
			if _, got := p.Source(topic); got != want {
				t.Errorf("%s is a copy: %v", topic, got)
			}
		}
	})
	// The flow's own source, which MirrorMaker answers for every name, is no answer about the topic: a decision by it would be a guess.
	t.Run("MirrorClientTest.testIdentityReplicationTopicSource", func(t *testing.T) {
		for topic, want := range map[string]string{"topic1": "", "source1.topic1": "", "source2.topic1": "", "source1.heartbeats": "source1", "backup.source1.heartbeats": "backup"} {
			if got, _ := kept.Source(topic); got != want {
				t.Errorf("%s comes from %q, want %q", topic, got, want)
			}
		}
	})
	t.Run("ReplicationPolicyTest.testInternalTopic", func(t *testing.T) {
		for topic, want := range map[string]bool{
			"__consumer_offsets": true, ".topic": true, "mm2-offsets.CLUSTER.internal": true, "source1.checkpoints.internal": true,
			"topic1": false, "topic1.internal": false, "mm2-topic": false, "mm2-topic-internal": false,
		} {
			for _, p := range []mm2.Policy{dot, kept} {
				if got := mm2.Internal(p, topic); got != want {
					t.Errorf("%s by %v: %v", topic, p, got)
				}
			}
		}
	})
	t.Run("ReplicationPolicyTest.heartbeatsTopic_shouldNotBeEffectedByInternalTopicSeparatorConfig", func(t *testing.T) {
		for _, separator := range []string{".", "__"} {
			if p := (mm2.DefaultPolicy{Separator: separator}); mm2.HeartbeatsTopic != "heartbeats" || !mm2.Heartbeats(p, "heartbeats") {
				t.Errorf("separator %q: %q", separator, mm2.HeartbeatsTopic)
			}
		}
	})
	t.Run("OffsetSyncTest.testSerde", func(t *testing.T) {
		want := mm2.OffsetSync{Topic: "topic-1", Partition: 2, Upstream: 3, Downstream: 4}
		if got, err := mm2.ParseOffsetSync(want.Key(), want.Value()); err != nil || got != want {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("CheckpointTest.testSerde", func(t *testing.T) {
		want := mm2.Checkpoint{Group: "group-1", Topic: "topic-2", Partition: 3, Upstream: 4, Downstream: 5, Metadata: "metadata-6"}
		if got, err := mm2.ParseCheckpoint(want.Key(), want.Value()); err != nil || got != want {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("HeartbeatTest.testSerde", func(t *testing.T) {
		want := mm2.Heartbeat{Source: "source-1", Target: "target-2", Timestamp: 1234567890}
		if got, err := mm2.ParseHeartbeat(want.Key(), want.Value()); err != nil || got != want {
			t.Errorf("%+v, %v", got, err)
		}
	})
	// What MirrorMaker keeps of its other connectors is 0 and never read. Where somebody means to set it, that is no position of records.
	for _, other := range []struct{ test, partition, missing string }{
		{"MirrorCheckpointConnectorTest.testSuccessfulAlterOffsets", `{"group":"g","topic":"t","partition":1}`, `"cluster" is missing`},
		{"MirrorHeartBeatConnectorTest.testSuccessfulAlterOffsets", `{"sourceClusterAlias":"A","targetClusterAlias":"B"}`, `"topic" is missing`},
	} {
		t.Run(other.test, func(t *testing.T) {
			_, err := mm2.ParseSourceOffsets([]byte(`{"offsets":[{"partition":` + other.partition + `,"offset":{"offset":0}}]}`))
			if err == nil || !strings.Contains(err.Error(), other.missing) {
				t.Errorf("%v, want %s", err, other.missing)
			}
		})
	}
}

// hops is how many clusters lie between a topic and one of those that it was copied from; -1 where it wasn't.
func hops(p mm2.Policy, topic, source string) int {
	for n := 1; ; n++ {
		from, ok := p.Source(topic)
		if !ok {
			return -1
		}
		if from == source {
			return n
		}
		topic, _ = p.Upstream(topic)
	}
}
