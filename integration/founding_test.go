package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kferry/kferry/integration/testbed"
)

// The founding document's resource, with the addresses of this machine.
const founding = `apiVersion: eventstreams.ibm.com/v1beta2
kind: KafkaMirrorMaker2
metadata: {name: kafka-centralized}
spec:
  connectCluster: kafka-centralized-mm2connector
  clusters:
    - {alias: kafka-centralized-mm2connector, bootstrapServers: '%[1]s'}
    - {alias: kafka-dc-1, bootstrapServers: '%[2]s'}
    - {alias: kafka-dc-2, bootstrapServers: '%[3]s'}
  mirrors:
    - sourceCluster: kafka-dc-1
      targetCluster: kafka-centralized-mm2connector
      topicsPattern: '%[4]s'
      checkpointConnector: {config: {checkpoints.topic.replication.factor: 1}, tasksMax: 5}
      sourceConnector:
        tasksMax: 5
        config: {consumer.group.id: mirror-1, offset-syncs.topic.replication.factor: 1, replication.factor: 1, sync.topic.acls.enabled: 'false'}
    - sourceCluster: kafka-dc-2
      targetCluster: kafka-centralized-mm2connector
      topicsPattern: '%[5]s'
      sourceConnector: {config: {replication.factor: 1}}
`

// world is the founding scenario's three clusters: two sources of different versions and the central one.
type world struct{ dc1, dc2, central *testbed.Cluster }

func newWorld(t *testing.T, central *testbed.Cluster) world {
	t.Helper()
	return world{dc1: testbed.Shared(t, testbed.V43), dc2: testbed.Shared(t, testbed.V33), central: central}
}

func (w world) resource(topics1, topics2 string) string {
	return fmt.Sprintf(founding, w.central.Bootstrap(), w.dc1.Bootstrap(), w.dc2.Bootstrap(), topics1, topics2)
}

// compare holds both copies against their sources.
func (w world) compare(t *testing.T, topic1, topic2 string) {
	t.Helper()
	testbed.Compare(t, w.dc1, topic1, w.central, "kafka-dc-1."+topic1)
	testbed.Compare(t, w.dc2, topic2, w.central, "kafka-dc-2."+topic2)
}

// mirroring is an installation of the founding resource, in a file.
func (w world) mirroring(t *testing.T, topics1, topics2 string) *installation {
	t.Helper()
	k := copying(t, w.dc1, w.central, "")
	withoutFlow(k.env)
	file := filepath.Join(t.TempDir(), "mirror.yaml")
	if err := os.WriteFile(file, []byte(w.resource(topics1, topics2)), 0o644); err != nil {
		t.Fatal(err)
	}
	k.args, k.alias = []string{"-f", file}, "kafka-dc-1"
	return k
}

var codecs = []kgo.CompressionCodec{
	kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression(),
}

// everyCodec is a load for each codec, one after the other. It returns the number of the next record.
func everyCodec(t *testing.T, c *testbed.Cluster, topic string, recordsEach int) int {
	t.Helper()
	next := 0
	for _, codec := range codecs {
		next = testbed.Produce(t, c, topic, testbed.Load{Records: recordsEach, First: next, ValueBytes: 300, Codec: codec, BatchBytes: 64 << 10})
	}
	return next
}

// Two clusters of different versions flow into a third while their applications go on writing.
func TestFoundingScenario(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testbed.Kafka(t, testbed.V43))
	w.dc1.CreateTopic("orders", 4, 1, "retention.ms", "1209600000", "max.message.bytes", "2097152")
	w.dc2.CreateTopic("payments", 3, 1, "retention.ms", "2419200000")
	nextOrder := everyCodec(t, w.dc1, "orders", 4000)
	nextPayment := everyCodec(t, w.dc2, "payments", 4000)
	k := w.mirroring(t, "orders", "payments")

	k.command(0, "validate")
	preview := k.command(0, "validate", "--connect")
	for _, want := range []string{"kafka-dc-1.orders", "kafka-dc-2.payments", "topic (4 partitions)", "topic (3 partitions)"} {
		if !strings.Contains(preview, want) {
			t.Errorf("validate --connect does not say %q:\n%s", want, preview)
		}
	}
	if topics := topicNames(t, w.central); len(topics) > 0 {
		t.Fatalf("validate has created %v", topics)
	}

	orders := testbed.Live(t, w.dc1, "orders", testbed.Load{First: nextOrder, Codec: kgo.ZstdCompression()}, 500)
	payments := testbed.Live(t, w.dc2, "payments", testbed.Load{First: nextPayment, Codec: kgo.SnappyCompression()}, 500)
	testbed.Eventually(t, soon, "traffic", func() bool { return orders.Sent() > 0 && payments.Sent() > 0 })
	t.Logf("summary of the first run:\n%s", k.catchUp())
	first := k.copied("orders")
	t.Logf("summary of the second run, which goes on:\n%s", k.catchUp())
	if k.copied("orders") <= first {
		t.Errorf("the second run copied nothing of the traffic: %d records before it and after", first)
	}
	orders.Stop()
	payments.Stop()
	k.catchUp()
	w.compare(t, "orders", "payments")
	sameOffsets(t, w.dc1, "orders", w.central, "kafka-dc-1.orders")
	sameOffsets(t, w.dc2, "payments", w.central, "kafka-dc-2.payments")

	for topic, want := range map[string]map[string]string{
		"kafka-dc-1.orders":   {"retention.ms": "1209600000", "max.message.bytes": "2097152"},
		"kafka-dc-2.payments": {"retention.ms": "2419200000"},
	} {
		got := topicConfig(t, w.central, topic)
		for key, value := range want {
			if got[key] != value {
				t.Errorf("%s has %s=%q, want %q", topic, key, got[key], value)
			}
		}
	}
	s := k.status()
	for topic, count := range map[string]int{"orders": 4, "payments": 3} {
		all := s.partitions(topic)
		if len(all) != count {
			t.Errorf("status names %d partitions of %s, want %d", len(all), topic, count)
		}
		for _, p := range all {
			if p.State != "idle" || p.LagRecords != 0 || p.ExactlyOnce == nil || !*p.ExactlyOnce || p.Offsets != "identical" ||
				p.Cursor == nil || *p.Cursor != p.SourceEnd || p.TargetEnd == nil || *p.TargetEnd != p.SourceEnd {
				t.Errorf("status of a caught-up partition: %+v", p)
			}
		}
	}
	for _, want := range []string{"kafka-dc-1.orders", "idle", "identical"} {
		if table := k.command(0, "status"); !strings.Contains(table, want) {
			t.Errorf("status does not say %q:\n%s", want, table)
		}
	}
}

// One coordinator and two workers, each in a container of its own, meet over NATS alone.
func TestSeparateProcesses(t *testing.T) {
	nats := testbed.StartNATS(t)
	w := newWorld(t, testbed.Shared(t, testbed.V43))
	w.dc1.CreateTopic("split-orders", 6, 1)
	w.dc2.CreateTopic("split-payments", 6, 1)
	everyCodec(t, w.dc1, "split-orders", 2000)
	everyCodec(t, w.dc2, "split-payments", 2000)
	env := map[string]string{
		"KFERRY_MIRROR": w.resource("split-orders", "split-payments"),
		"KFERRY_NAME":   "split",
		"KFERRY_HTTP":   "127.0.0.1:0",
		"KFERRY_LEASE":  leaseTime.String(),
		"KFERRY_SLOTS":  "6", // so that neither worker can have all partitions
		"NATS_URL":      nats.URL(),
	}
	coordinator := testbed.Kferry(t, []string{"coordinator"}, env)
	workers := []*testbed.Container{testbed.Kferry(t, []string{"worker"}, env), testbed.Kferry(t, []string{"worker"}, env)}
	reach := func(records int64) {
		t.Helper()
		testbed.Eventually(t, copyWithin, fmt.Sprintf("%d records of each topic", records), func() bool {
			return ends(t, w.central, "kafka-dc-1.split-orders") >= records && ends(t, w.central, "kafka-dc-2.split-payments") >= records
		})
	}
	reach(10_000)
	for i, worker := range workers {
		records := sum(metrics(t, worker), "kferry_records_total")
		t.Logf("worker %d copied %.0f records", i, records)
		if records == 0 {
			t.Errorf("worker %d had nothing to do", i)
		}
	}

	workers[0].Kill()
	testbed.Produce(t, w.dc1, "split-orders", testbed.Load{Records: 6000, First: 10_000})
	testbed.Produce(t, w.dc2, "split-payments", testbed.Load{Records: 6000, First: 10_000})
	reach(16_000)
	for _, c := range []*testbed.Container{workers[1], coordinator} {
		c.Term()
		if code := c.Wait(exitsWithin); code != 0 {
			t.Errorf("exit code %d after SIGTERM", code)
		}
	}
	w.compare(t, "split-orders", "split-payments")
}

// Two coordinators and two workers at once do no harm.
func TestSeveralCoordinators(t *testing.T) {
	nats := testbed.StartNATS(t)
	source := testbed.Shared(t, testbed.V33)
	source.CreateTopic("several", 4, 1)
	next := testbed.Produce(t, source, "several", testbed.Load{Records: 20_000, ValueBytes: 200, BatchBytes: 4 << 10})
	k := copying(t, source, testbed.Shared(t, testbed.V43), "several").over(nats)
	for range 2 {
		k.start("coordinator")
		k.start("worker")
	}
	traffic := testbed.Live(t, source, "several", testbed.Load{First: next}, 1000)
	testbed.Eventually(t, copyWithin, "traffic to be copied", func() bool { return k.copied("several") > int64(next)+2000 })
	traffic.Stop()
	k.await("several")
	k.compare("several")
}

func TestVariablesAlone(t *testing.T) {
	source, target := testbed.Shared(t, testbed.V33), testbed.Shared(t, testbed.V43)
	source.CreateTopic("plain-a", 2, 1)
	source.CreateTopic("plain-b", 1, 1)
	source.CreateTopic("plain-left-out", 1, 1)
	for _, topic := range []string{"plain-a", "plain-b", "plain-left-out"} {
		testbed.Produce(t, source, topic, testbed.Load{Records: 500, Codec: kgo.GzipCompression()})
	}
	k := copying(t, source, target, "plain-.*").with(
		"KFERRY_TOPICS_EXCLUDE", ".*-out", "KFERRY_REPLICATION_POLICY", "identity", "KFERRY_REPLICATION_FACTOR", "1")
	k.catchUp()
	for _, topic := range []string{"plain-a", "plain-b"} { // under the identity policy names stay as they are
		testbed.Compare(t, source, topic, target, topic)
	}
	if slices.Contains(topicNames(t, target), "plain-left-out") {
		t.Error("an excluded topic was copied")
	}
}

// Where to start: behind everything, or at a point in time.
func TestStartPosition(t *testing.T) {
	source, target := testbed.Shared(t, testbed.V43), testbed.Shared(t, testbed.V43)
	source.CreateTopic("started", 2, 1)
	began := time.Now().Add(-time.Hour).Truncate(time.Second)
	next := testbed.Produce(t, source, "started", testbed.Load{Records: 1000, Start: began, Step: time.Second})

	t.Run("timestamp", func(t *testing.T) {
		k := copying(t, source.For(t), target.For(t), "started").with("KFERRY_START", began.Add(600*time.Second).UTC().Format(time.RFC3339))
		k.catchUp()
		if got := testbed.Read(t, k.target, k.copyOf("started"), testbed.Committed).Records(); got != 400 {
			t.Errorf("%d records copied, want the 400 from second 600 on", got)
		}
		if p := k.status().partition("started", 0); p.Offsets != "mapped" || p.LagRecords != 0 {
			t.Errorf("status of a copy that starts in the middle: %+v", p)
		}
	})
	t.Run("latest", func(t *testing.T) {
		k := copying(t, source.For(t), target.For(t), "started").with("KFERRY_START", "latest")
		k.catchUp()
		testbed.Produce(t, k.source, "started", testbed.Load{Records: 100, First: next})
		k.catchUp()
		if got := testbed.Read(t, k.target, k.copyOf("started"), testbed.Committed).Records(); got != 100 {
			t.Errorf("%d records copied, want the 100 that came after the first run", got)
		}
	})
}

// Topics are looked for every 5 s.
func TestTopicCreatedLater(t *testing.T) {
	const discovery = 5 * time.Second
	source, target := testbed.Shared(t, testbed.V43), testbed.Shared(t, testbed.V43)
	source.CreateTopic("later-1", 1, 1)
	testbed.Produce(t, source, "later-1", testbed.Load{Records: 100})
	k := copying(t, source, target, "later-.*")
	run := k.start("run")
	k.await("later-1")

	source.CreateTopic("later-2", 2, 1)
	testbed.Produce(t, source, "later-2", testbed.Load{Records: 100})
	created := time.Now()
	k.await("later-2")
	took := time.Since(created)
	t.Logf("a new topic was copied %v after it had its records", took.Round(10*time.Millisecond))
	if took > discovery+resumesWithin {
		t.Errorf("took %v, want about %v", took, discovery)
	}
	if _, err := source.Admin().UpdatePartitions(t.Context(), 3, "later-2"); err != nil {
		t.Fatal(err)
	}
	testbed.Produce(t, source, "later-2", testbed.Load{Records: 300, First: 100})
	k.await("later-2")
	k.stop(run)
	k.compare("later-1", "later-2")
	if got := len(k.target.Ends(k.copyOf("later-2"))); got != 3 {
		t.Errorf("the copy has %d partitions after its source grew to 3", got)
	}
}

// sameOffsets fails the test unless every record of the copy has its source's offset.
func sameOffsets(t *testing.T, source *testbed.Cluster, topic string, target *testbed.Cluster, copied string) {
	t.Helper()
	want, got := testbed.Read(t, source, topic, testbed.Committed), testbed.Read(t, target, copied, testbed.Committed)
	for p, records := range want {
		for i, r := range records {
			if i >= len(got[p]) || got[p][i].Offset != r.Offset {
				t.Fatalf("%s-%d: record %d has another offset than its source's %d", copied, p, i, r.Offset)
			}
		}
	}
	t.Logf("%s: %d records have their source's offsets", copied, want.Records())
}

// topicNames are the topics of a cluster that are not Kafka's own.
func topicNames(t *testing.T, c *testbed.Cluster) []string {
	t.Helper()
	topics, err := c.Admin().ListTopics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return topics.Names()
}

// topicConfig is what a topic is set to, defaults included.
func topicConfig(t *testing.T, c *testbed.Cluster, topic string) map[string]string {
	t.Helper()
	described, err := c.Admin().DescribeTopicConfigs(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	for _, resource := range described {
		for _, config := range resource.Configs {
			values[config.Key] = config.MaybeValue()
		}
	}
	return values
}
