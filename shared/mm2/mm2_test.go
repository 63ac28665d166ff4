package mm2_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/kferry/kferry/shared/mm2"
)

// TestSourceOffsetKeys compares with keys that MirrorMaker 2 4.3.1 wrote, and the partitions of a topic of 25 it put them in.
func TestSourceOffsetKeys(t *testing.T) {
	for _, test := range []struct {
		key       string
		partition int32
	}{
		{`["MirrorSourceConnector",{"cluster":"A","partition":0,"topic":"orders"}]`, 3},
		{`["MirrorSourceConnector",{"cluster":"A","partition":1,"topic":"orders"}]`, 11},
		{`["MirrorCheckpointConnector",{"partition":1,"topic":"A.orders","group":"app-2"}]`, 4},
		{`["MirrorHeartbeatConnector",{"sourceClusterAlias":"A","targetClusterAlias":"B"}]`, 0},
	} {
		if got := mm2.OffsetsPartition([]byte(test.key), mm2.OffsetsPartitions); got != test.partition {
			t.Errorf("%s belongs to partition %d, want %d", test.key, got, test.partition)
		}
		connector, cluster, topic, partition, ok := mm2.ParseSourceOffsetKey([]byte(test.key))
		if isSource := strings.Contains(test.key, "MirrorSourceConnector"); ok != isSource {
			t.Errorf("%s: is a source's: %v", test.key, ok)
		}
		if ok && string(mm2.SourceOffsetKey(connector, cluster, topic, partition)) != test.key {
			t.Errorf("%s comes back as %s", test.key, mm2.SourceOffsetKey(connector, cluster, topic, partition))
		}
	}
}

func TestSourceOffsetKeyIsEscapedAsJacksonDoes(t *testing.T) {
	got := string(mm2.SourceOffsetKey("a->b.MirrorSourceConnector", "<&>\"\\\b\t\n\f\r\x01\x1f\x7fé\u2028/", "t", 1<<31-1))
	want := `["a->b.MirrorSourceConnector",{"cluster":"<&>\"\\\b\t\n\f\r\u0001\u001F` + "\x7fé\u2028/" + `","partition":2147483647,"topic":"t"}]`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestOtherKeysOfAnOffsetsTopic(t *testing.T) {
	for _, key := range []string{
		``, `null`, `{}`, `[]`, `["a"]`, `["a",{}]`, `["a",null]`, `[null,{"cluster":"A"}]`, `["kferry",{"flow":"A->B"}]`,
		`["a",{"cluster":"A","partition":-1,"topic":"t"}]`, `["a",{"cluster":"A","partition":2147483648,"topic":"t"}]`,
		`["a",{"cluster":"A","partition":"0","topic":"t"}]`, `["a",{"cluster":"A","partition":0.5,"topic":"t"}]`,
		`["a",{"cluster":"A","partition":0,"topic":null}]`, `["a",{"cluster":"A","partition":0,"topic":"t"},1]`,
		`[7,{"cluster":"A","partition":0,"topic":"t"}]`, `[null,{"cluster":"A","partition":0,"topic":"t"}]`,
	} {
		if _, _, _, _, ok := mm2.ParseSourceOffsetKey([]byte(key)); ok {
			t.Errorf("%s was taken for a key", key)
		}
	}
	_, cluster, topic, partition, ok := mm2.ParseSourceOffsetKey([]byte(`[ "c", {"topic":"t", "partition":7, "cluster":"A"} ]`))
	if !ok || cluster != "A" || topic != "t" || partition != 7 {
		t.Error("members in another order were refused")
	}
}

func TestSourceOffsetKeysComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		connector, cluster, topic := rapid.String().Draw(t, "connector"), rapid.String().Draw(t, "cluster"), rapid.String().Draw(t, "topic")
		partition := rapid.Int32Min(0).Draw(t, "partition")
		key := mm2.SourceOffsetKey(connector, cluster, topic, partition)
		c, cl, to, p, ok := mm2.ParseSourceOffsetKey(key)
		if !ok || c != connector || cl != cluster || to != topic || p != partition {
			t.Fatalf("%s came back as %q %q %q %d %v", key, c, cl, to, p, ok)
		}
		if n := mm2.OffsetsPartition(key, 25); n < 0 || n >= 25 {
			t.Fatalf("partition %d of 25", n)
		}
	})
}

// TestDefaultPolicy holds what DefaultReplicationPolicy of 4.3.1 makes of Java's String.split, odd answers included.
func TestDefaultPolicy(t *testing.T) {
	p := mm2.DefaultPolicy{}
	if got := p.RemoteTopic("A", "orders"); got != "A.orders" {
		t.Error(got)
	}
	for _, test := range []struct {
		topic, source, upstream string
		remote                  bool
	}{
		{"orders", "", "", false},
		{"A.orders", "A", "orders", true},
		{"B.A.orders", "B", "A.orders", true},
		{"a.", "", "", false},
		{"a..", "", "", false},
		{"a..b", "a", ".b", true},
		{".b", "", "b", true},
		{".", "", "", false},
		{"", "", "", false},
	} {
		source, remote := p.Source(test.topic)
		upstream, _ := p.Upstream(test.topic)
		if source != test.source || upstream != test.upstream || remote != test.remote {
			t.Errorf("%q: source %q, upstream %q, %v", test.topic, source, upstream, remote)
		}
	}
	underscore := mm2.DefaultPolicy{Separator: "__"}
	if got := underscore.RemoteTopic("A", "orders"); got != "A__orders" {
		t.Error(got)
	}
	if source, ok := underscore.Source("A__b.c"); !ok || source != "A" {
		t.Error(source, ok)
	}
	if source, ok := underscore.Source("A.b"); ok {
		t.Error("a dot was taken for a separator:", source)
	}
}

func TestIdentityPolicy(t *testing.T) {
	p := mm2.IdentityPolicy{}
	for topic, want := range map[string]string{
		"orders": "orders", "A.orders": "A.orders", "heartbeats": "A.heartbeats", "device-heartbeats": "A.device-heartbeats", "heartbeats-x": "heartbeats-x",
	} {
		if got := p.RemoteTopic("A", topic); got != want {
			t.Errorf("%s becomes %s, want %s", topic, got, want)
		}
	}
	if _, ok := p.Source("A.orders"); ok {
		t.Error("identity can't know where a topic comes from")
	}
	if source, ok := p.Source("B.heartbeats"); !ok || source != "B" {
		t.Error(source, ok)
	}
	if upstream, ok := p.Upstream("B.A.heartbeats"); !ok || upstream != "A.heartbeats" {
		t.Error(upstream, ok)
	}
}

func TestCycles(t *testing.T) {
	for _, test := range []struct {
		policy mm2.Policy
		topic  string
		cycle  bool
	}{
		{mm2.DefaultPolicy{}, "orders", false},
		{mm2.DefaultPolicy{}, "B.orders", true},
		{mm2.DefaultPolicy{}, "C.B.orders", true},
		{mm2.DefaultPolicy{}, "A.orders", false},
		{mm2.DefaultPolicy{}, "C.orders.B", false},
		{mm2.DefaultPolicy{}, "B.", false},
		{mm2.DefaultPolicy{Separator: "_"}, "B.orders", false},
		{mm2.DefaultPolicy{Separator: "_"}, "B_orders", true},
		{mm2.IdentityPolicy{}, "B.orders", false},
		{mm2.IdentityPolicy{}, "B.heartbeats", true},
	} {
		if got := mm2.Cycle(test.policy, test.topic, "B"); got != test.cycle {
			t.Errorf("%v %q: %v", test.policy, test.topic, got)
		}
	}
}

func TestHeartbeats(t *testing.T) {
	for _, test := range []struct {
		policy     mm2.Policy
		topic      string
		heartbeats bool
	}{
		{mm2.DefaultPolicy{}, "heartbeats", true},
		{mm2.DefaultPolicy{}, "C.heartbeats", true},
		{mm2.DefaultPolicy{}, "D.C.heartbeats", true},
		{mm2.DefaultPolicy{}, "device-heartbeats", false},
		{mm2.DefaultPolicy{}, "heartbeats.x", false},
		{mm2.DefaultPolicy{}, "C_heartbeats", false},
		{mm2.DefaultPolicy{Separator: "_"}, "C_heartbeats", true},
		{mm2.IdentityPolicy{}, "heartbeats", true},
		{mm2.IdentityPolicy{}, "D.C.heartbeats", true},
		{mm2.IdentityPolicy{}, "device-heartbeats", false},
		{mm2.IdentityPolicy{}, "orders", false},
	} {
		if got := mm2.Heartbeats(test.policy, test.topic); got != test.heartbeats {
			t.Errorf("%#v %q: %v", test.policy, test.topic, got)
		}
	}
}

func TestInternalTopics(t *testing.T) {
	for topic, want := range map[string]bool{
		"__consumer_offsets": true, ".hidden": true, "mm2-offsets.A.internal": true, "mm2-offset-syncs.B.internal": true,
		"A.checkpoints.internal": true, "mm2-offset-syncs_B_internal": true, "A_checkpoints_internal": true,
		"orders": false, "orders.internal": false, "orders-internal": false, "mm2": false, "mm2-internal": false,
		"checkpoints.internal": false, "_orders": false, "heartbeats": false,
	} {
		if got := mm2.Internal(mm2.DefaultPolicy{Separator: "_"}, topic); got != want {
			t.Errorf("%s: %v", topic, got)
		}
	}
	if mm2.Internal(mm2.DefaultPolicy{}, "A_checkpoints_internal") {
		t.Error("another policy's separator was recognised")
	}
}

func TestParsePolicy(t *testing.T) {
	for name, want := range map[string]mm2.Policy{
		"":        mm2.DefaultPolicy{Separator: "-"},
		"default": mm2.DefaultPolicy{Separator: "-"},
		"org.apache.kafka.connect.mirror.DefaultReplicationPolicy": mm2.DefaultPolicy{Separator: "-"},
		"identity": mm2.IdentityPolicy{Separator: "-"},
		"org.apache.kafka.connect.mirror.IdentityReplicationPolicy": mm2.IdentityPolicy{Separator: "-"},
		"io.strimzi.kafka.connect.mirror.IdentityReplicationPolicy": mm2.IdentityPolicy{Separator: "-"},
	} {
		got, err := mm2.ParsePolicy(name, "-")
		if err != nil || got != want {
			t.Errorf("%q: %#v, %v", name, got, err)
		}
		if again, err := mm2.ParsePolicy(got.String(), "-"); err != nil || again != want {
			t.Errorf("%q doesn't come back: %v", got, err)
		}
	}
	for _, bad := range [][2]string{{"com.example.Policy", "."}, {"Default", "."}, {"default", "/"}, {"default", "é"}, {"default", "\xff"}} {
		if _, err := mm2.ParsePolicy(bad[0], bad[1]); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestCheckTopicName(t *testing.T) {
	for _, good := range []string{"a", "A.b_c-9", "...", strings.Repeat("x", mm2.MaxTopicName)} {
		if err := mm2.CheckTopicName(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", ".", "..", "a b", "é", "a/b", "\xff", strings.Repeat("x", mm2.MaxTopicName+1)} {
		if mm2.CheckTopicName(bad) == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func FuzzParseSourceOffsetKey(f *testing.F) {
	f.Add([]byte(`["MirrorSourceConnector",{"cluster":"A","partition":0,"topic":"orders"}]`))
	f.Fuzz(func(t *testing.T, key []byte) {
		connector, cluster, topic, partition, ok := mm2.ParseSourceOffsetKey(key)
		if !ok {
			return
		}
		c, cl, to, p, ok := mm2.ParseSourceOffsetKey(mm2.SourceOffsetKey(connector, cluster, topic, partition))
		if !ok || c != connector || cl != cluster || to != topic || p != partition {
			t.Errorf("%q doesn't come back", key)
		}
	})
}
