package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kferry/kferry/integration/testbed"
	"github.com/kferry/kferry/shared/mm2"
)

// The integration scenarios of MirrorMaker 2's own suite (Kafka 4.3, connect/mirror), each under the name of its original, which says what
// happens there; what is demanded here is at least as much, and where MirrorMaker's tests are content with "near", it is "exactly". The
// judge of what MirrorMaker's own client sees is that client.
//
// The classes that run the same scenarios in other surroundings differ as the originals do. Their scenarios share a few kferrys, one for
// each set of settings that the originals run with.

// A class is one of those that run all of MirrorMaker's base scenarios.
type class struct {
	name         string // begins all names of topics, groups and clusters
	identity     bool   // copies keep their names, and only one direction is copied
	transactions bool   // sources are written to in transactions, whose markers are holes in the offsets
	exactly      bool   // MirrorMaker's exactly-once support is asked for
	tls          bool   // kferry reaches the backup over TLS alone
}

// The one for MirrorConnectorsIntegrationBaseTest too: without TLS are the other classes, which change something else of it.
func TestMirrorConnectorsIntegrationSSLTest(t *testing.T) {
	class{name: "ssl", tls: true}.run(t)
}

func TestIdentityReplicationIntegrationTest(t *testing.T) {
	class{name: "same", identity: true}.run(t)
}

func TestMirrorConnectorsIntegrationTransactionsTest(t *testing.T) {
	class{name: "txn", transactions: true}.run(t)
}

func TestMirrorConnectorsIntegrationExactlyOnceTest(t *testing.T) {
	class{name: "eos", exactly: true}.run(t)
}

const (
	mmPartitions   = 10
	perPartition   = 10
	mmRecords      = mmPartitions * perPartition // of one load
	identityPolicy = "replication.policy.class = org.apache.kafka.connect.mirror.IdentityReplicationPolicy\n"
)

func (c class) run(t *testing.T) {
	t.Parallel()
	primary, backup := testbed.Shared(t, testbed.V33), testbed.Shared(t, testbed.V43)
	if c.tls {
		backup = backup.Over(testbed.TLS)
	}
	both := c.pair(t, primary, backup, "both")
	sync := c.pair(t, primary, backup, "sync", "sync.group.offsets.enabled = true", "sync.group.offsets.interval.seconds = 1", "metric.names.formats = legacy")
	every := c.pair(t, primary, backup, "every", "sync.group.offsets.enabled = true", "sync.group.offsets.interval.seconds = 1", "offset.lag.max = 0",
		"P->B.offset-syncs.topic.location = target", "metric.names.formats = new")
	alone := c.pair(t, primary, backup, "alone", "emit.offset-syncs.enabled = false", "emit.checkpoints.enabled = false", "P->B.use.defaults.from = source",
		"P.consumer.auto.offset.reset = latest")
	again := c.pair(t, primary, backup, "again", "sync.group.offsets.enabled = true", "sync.group.offsets.interval.seconds = 1", "metric.names.formats = legacy,new")
	moved, pairs := both, []*pair{both, sync, every, alone, again}
	if c.exactly { // which resets all offsets
		moved = c.pair(t, primary, backup, "moved")
		pairs = append(pairs, moved)
	}
	latest, emptied := alone.topic("latest"), both.topic("emptied")
	alone.produce(primary, latest, mmRecords, 0)
	both.produce(primary, emptied, mmRecords, 0)
	both.empties(emptied)
	for _, p := range pairs {
		p.kferry = p.start("run")
	}
	t.Run("testConnectorMetricsNewAndLegacy", func(t *testing.T) { again.in(t).countsAsMirrorMaker() }) // before that kferry is restarted
	for _, s := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"testReplication", func(t *testing.T) { moved.in(t).replicates() }},
		{"testReplicationWithEmptyPartition", func(t *testing.T) { both.in(t).hasAnEmptyPartition() }},
		{"testOneWayReplicationWithAutoOffsetSync", func(t *testing.T) { sync.in(t).setsPositions() }},
		{"testOneWayReplicationWithFrequentOffsetSyncs", func(t *testing.T) { every.in(t).setsPositions() }},
		{"testReplicationWithoutOffsetSyncWillNotCreateOffsetSyncsTopic", func(t *testing.T) { alone.in(t).writesNoSyncs() }},
		{"testOffsetSyncsTopicsOnTarget", func(t *testing.T) { every.in(t).writesSyncsToTheTarget() }},
		{"testNoCheckpointsIfNoRecordsAreMirrored", func(t *testing.T) { both.in(t).hasNoCheckpointWithoutRecords(emptied) }},
		{"testRestartReplication", func(t *testing.T) { again.in(t).isRestarted(again) }},
		{"testOffsetTranslationBehindReplicationFlow", func(t *testing.T) { sync.in(t).translatesFarBehind() }},
		{"testSyncTopicConfigs", func(t *testing.T) { both.in(t).followsSettings() }},
		{"testReplicateSourceDefault", func(t *testing.T) { alone.in(t).followsDefaults() }},
		{"testReplicateTargetDefault", func(t *testing.T) { both.in(t).returnsToDefaults() }},
		{"testReplicateFromLatest", func(t *testing.T) { alone.in(t).beginsAtTheEnd(latest) }},
		{"testConnectorMetricsDefault", func(t *testing.T) { both.in(t).countsAsMirrorMaker() }},
		{"testConnectorMetricsLegacy", func(t *testing.T) { sync.in(t).countsAsMirrorMaker() }},
		{"testConnectorMetricsNew", func(t *testing.T) { every.in(t).countsAsMirrorMaker() }},
	} {
		t.Run(s.name, func(t *testing.T) { t.Parallel(); s.run(t) })
	}
}

// A pair is two clusters and a kferry between them, on MirrorMaker's file.
type pair struct {
	*installation
	class
	name            string
	primary, backup string // aliases
	kferry          *testbed.Process
}

// pair writes the file that all scenarios share, and what some add to it; there P and B stand for the clusters' aliases. Of the heartbeats
// only the clusters' own are copied: those that other tests have brought there are many.
func (c class) pair(t *testing.T, primary, backup *testbed.Cluster, name string, more ...string) *pair {
	t.Helper()
	p := &pair{class: c, name: c.name + "-" + name}
	p.primary, p.backup = "primary-"+p.name, "backup-"+p.name
	text := fmt.Sprintf(`clusters = P, B
P.bootstrap.servers = %s
B.bootstrap.servers = %s
P->B.enabled = true
B->P.enabled = %t
topics = %[4]s-[a-z0-9-]*, heartbeats
heartbeats.replication.enabled = false
groups = %[4]s-.*
offset.lag.max = 10
sync.topic.acls.enabled = false
emit.checkpoints.interval.seconds = 1
emit.heartbeats.interval.seconds = 1
refresh.topics.interval.seconds = 1
refresh.groups.interval.seconds = 1
sync.topic.configs.interval.seconds = 1
config.properties.exclude = delete\\.retention\\..*
replication.factor = 1
checkpoints.topic.replication.factor = 1
heartbeats.topic.replication.factor = 1
offset-syncs.topic.replication.factor = 1
offset.storage.replication.factor = 1
`, primary.Bootstrap(), backup.Bootstrap(), (name == "both" || name == "moved") && !c.identity, p.name)
	if c.identity {
		text += identityPolicy
	}
	if c.exactly {
		text += "P.exactly.once.source.support = enabled\nB.exactly.once.source.support = enabled\n"
	}
	if c.tls {
		text += trustsBy(t, "B.", backup) + trustsBy(t, "B.producer.", backup)
	}
	text += strings.Join(more, "\n") + "\n"
	p.installation = onText(t, primary, backup, p.primary, aliased(text, p.primary, p.backup))
	return p
}

// trustsBy is what a properties file says to have a cluster reached over TLS: whom it trusts is in a store of Java's.
func trustsBy(t *testing.T, prefix string, c *testbed.Cluster) string {
	t.Helper()
	const password = "changeit"
	file := filepath.Join(t.TempDir(), "truststore.jks")
	if err := os.WriteFile(file, c.Truststore("JKS", password), 0o600); err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer("B.", prefix, "FILE", file, "PASSWORD", password).Replace(`B.security.protocol = SSL
B.ssl.truststore.location = FILE
B.ssl.truststore.password = PASSWORD
B.ssl.truststore.type = JKS
`)
}

// aliased puts aliases in the places of P and B.
func aliased(text, p, b string) string {
	return strings.NewReplacer("clusters = P, B", "clusters = "+p+", "+b, "P->B.", p+"->"+b+".", "B->P.", b+"->"+p+".", "P.", p+".", "B.", b+".").Replace(text)
}

// onText is an installation by an mm2.properties alone.
func onText(t *testing.T, source, target *testbed.Cluster, alias, text string) *installation {
	t.Helper()
	k := copying(t, source, target, "")
	withoutFlow(k.env)
	file := filepath.Join(t.TempDir(), "mm2.properties")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	k.alias, k.args, k.env["KFERRY_NAME"] = alias, []string{"-f", file}, alias
	return k
}

// in is the same pair in a scenario.
func (p *pair) in(t *testing.T) *pair {
	other := *p
	other.installation = p.installation.in(t)
	return &other
}

func (p *pair) copyOf(topic string) string {
	if p.identity {
		return topic
	}
	return p.primary + "." + topic
}

// backOf is the name of the copy that a topic of the backup has on the primary.
func (p *pair) backOf(topic string) string { return p.backup + "." + topic }

func (p *pair) flow() string { return p.primary + "->" + p.backup }

// topic creates one of the primary's that kferry copies.
func (p *pair) topic(name string, configs ...string) string {
	p.t.Helper()
	topic := p.name + "-" + name
	p.source.CreateTopic(topic, mmPartitions, 1, configs...)
	return topic
}

// produce writes a load, as the class does.
func (p *pair) produce(c *testbed.Cluster, topic string, records, first int) {
	p.t.Helper()
	load := testbed.Load{Records: records, First: first, PlainKeys: true}
	if p.transactions {
		load.TxnRecords = records
	}
	testbed.Produce(p.t, c, topic, load)
}

// awaits waits until a topic has so many records that consumers get.
func (p *pair) awaits(c *testbed.Cluster, topic string, records int) {
	p.t.Helper()
	admin := c.Admin()
	defer admin.Close()
	testbed.Eventually(p.t, copyWithin, fmt.Sprintf("%d records in %s", records, topic), func() bool { return endsBy(p.t, admin, topic) >= int64(records) })
	if got := testbed.Read(p.t, c, topic, testbed.Committed).Records(); got != records {
		p.t.Errorf("%s has %d records, want %d", topic, got, records)
	}
}

func (p *pair) appears(c *testbed.Cluster, topic string) {
	p.t.Helper()
	testbed.Eventually(p.t, copyWithin, topic+" to appear", func() bool { return len(c.Topics(topic)) == 1 })
}

func (p *pair) absent(c *testbed.Cluster, topics ...string) {
	p.t.Helper()
	if found := c.Topics(topics...); len(found) > 0 {
		p.t.Errorf("there is %v", slices.Collect(maps.Keys(found)))
	}
}

// group is one that reads a topic on the primary, and goes on in its copy.
func (p *pair) group(name, topic string) mover {
	return mover{t: p.t, group: p.name + "-" + name, from: p.source, to: p.target, topic: topic, copied: p.copyOf(topic)}
}

// ask asks MirrorMaker's client, with the policy of the file.
func (p *pair) ask(c *testbed.Cluster, questions ...string) []string {
	p.t.Helper()
	command := []string{"MirrorClients", c.InternalBootstrap()}
	if p.identity {
		command = append(command, strings.ReplaceAll(strings.TrimSpace(identityPolicy), " = ", "="))
	}
	output := testbed.Judge(p.t, []byte(strings.Join(questions, "\n")+"\n"), command...)
	answers := strings.Split(strings.TrimSuffix(string(output), "\n"), "\n")
	if len(answers) != len(questions) {
		p.t.Fatalf("%d answers to %d questions: %s", len(answers), len(questions), output)
	}
	return answers
}

// offsets reads an answer to remoteConsumerOffsets: those of one topic.
func (p *pair) offsets(answer, topic string) map[int32]int64 {
	p.t.Helper()
	offsets := map[int32]int64{}
	for one := range strings.SplitSeq(strings.Trim(answer, "{}"), ", ") {
		name, value, _ := strings.Cut(one, "=")
		if number, ours := strings.CutPrefix(name, topic+"-"); ours {
			partition, err := strconv.ParseInt(number, 10, 32)
			offset, wrong := strconv.ParseInt(value, 10, 64)
			if err != nil || wrong != nil {
				p.t.Fatalf("offsets in %s: %v %v", answer, err, wrong)
			}
			offsets[int32(partition)] = offset
		}
	}
	return offsets
}

// listed says whether an answer holds something.
func listed(answer, one string) bool {
	return slices.Contains(strings.Split(strings.Trim(answer, "[]"), ", "), one)
}

// checkpointed waits for checkpoints of a group on all partitions of a topic, the last of which satisfy ok.
func (p *pair) checkpointed(m mover, what string, ok func(mm2.Checkpoint) bool) map[int32]mm2.Checkpoint {
	p.t.Helper()
	p.appears(m.to, p.primary+".checkpoints.internal")
	var last map[int32]mm2.Checkpoint
	testbed.Eventually(p.t, copyWithin, "checkpoints of "+m.group+" "+what, func() bool {
		last = map[int32]mm2.Checkpoint{}
		for _, c := range m.checkpoints(p.primary) {
			if c.Topic == m.copied {
				last[c.Partition] = c
			}
		}
		return len(last) == mmPartitions && !slices.ContainsFunc(slices.Collect(maps.Values(last)), func(c mm2.Checkpoint) bool { return !ok(c) })
	})
	return last
}

// monotonic demands that no checkpoint of a group goes back.
func (p *pair) monotonic(m mover) {
	p.t.Helper()
	last := map[string]mm2.Checkpoint{}
	for _, c := range m.checkpoints(p.primary) {
		place := fmt.Sprintf("%s-%d", c.Topic, c.Partition)
		if before, known := last[place]; known && c.Downstream < before.Downstream {
			p.t.Errorf("checkpoint %+v follows %+v", c, before)
		}
		last[place] = c
	}
	if len(last) == 0 {
		p.t.Errorf("%s has no checkpoint", m.group)
	}
}

// everywhere are positions that are the same on all partitions.
func everywhere(offset int64) map[int32]int64 {
	all := map[int32]int64{}
	for p := range int32(mmPartitions) {
		all[p] = offset
	}
	return all
}

func (p *pair) replicates() {
	const compact = "compact"
	topic := p.topic("one", "cleanup.policy", compact)
	copied, back := p.copyOf(topic), p.backOf(topic)
	p.produce(p.source, topic, mmRecords, 0)
	ways := !p.identity
	if ways {
		p.target.CreateTopic(topic, mmPartitions, 1)
		p.produce(p.target, topic, mmRecords, 1000)
	}
	m := p.group("replication", topic)
	m.reads(p.source, topic, perPartition)
	p.awaits(p.target, copied, mmRecords)
	testbed.Compare(p.t, p.source, topic, p.target, copied)
	if ways {
		p.awaits(p.source, back, mmRecords)
		testbed.Compare(p.t, p.target, topic, p.source, back)
	}
	p.appears(p.source, "mm2-offset-syncs."+p.backup+".internal")
	if got := ownConfig(p.t, p.target, copied)["cleanup.policy"]; got != compact {
		p.t.Errorf("the copy's cleanup.policy is %q", got)
	}
	configured := p.topic("configured", "delete.retention.ms", "1000", "retention.bytes", "1000")
	p.appears(p.target, p.copyOf(configured))
	if got := ownConfig(p.t, p.target, p.copyOf(configured)); got["retention.bytes"] != "1000" || got["delete.retention.ms"] != "" {
		p.t.Errorf("the copy was created with %v", got)
	}

	reach := p.checkpointed(m, "to be there", func(c mm2.Checkpoint) bool { return c.Downstream > 0 })
	p.failsOver(m, reach)
	p.monotonic(m)
	p.seesTheOther(p.target, p.primary)
	if ways {
		p.seesTheOther(p.source, p.backup)
		p.failsBack(topic)
	}

	second := p.topic("two")
	p.appears(p.target, p.copyOf(second))
	p.fill(p.source, second, 0, 1)
	p.awaits(p.target, p.copyOf(second), perPartition)
	if ways {
		third := p.name + "-three"
		p.target.CreateTopic(third, mmPartitions, 1)
		p.appears(p.source, p.backOf(third))
		p.fill(p.target, third, 0, 1)
		p.awaits(p.source, p.backOf(third), perPartition)
	}
	if p.exactly {
		p.movesOffsets(topic, second)
	}
}

// failsOver has a group that has read everything go on in the copy, where MirrorMaker's client says, with what is produced next.
func (p *pair) failsOver(m mover, reach map[int32]mm2.Checkpoint) {
	p.t.Helper()
	p.produce(p.source, m.topic, mmRecords, mmRecords)
	answer := p.ask(p.target, "remoteConsumerOffsets "+p.primary+" "+m.group)[0]
	offsets := p.offsets(answer, m.copied)
	for n, c := range reach {
		if at, told := offsets[n]; !told || at != c.Downstream || at <= 0 || at > perPartition {
			p.t.Errorf("MirrorMaker's client has %s-%d at %d (%v), the checkpoint says %+v", m.copied, n, at, told, c)
		}
	}
	m.sets(p.target, m.copied, offsets)
	m.failsOver()
}

// seesTheOther demands that MirrorMaker's client sees on a cluster what it is told of the other.
func (p *pair) seesTheOther(c *testbed.Cluster, other string) {
	p.t.Helper()
	p.awaitsHeartbeats(c, other)
	answers := p.ask(c, "upstreamClusters", "replicationHops "+other, "checkpointTopics", "heartbeatTopics")
	if !listed(answers[0], other) || answers[1] != "1" || !listed(answers[2], other+".checkpoints.internal") || !listed(answers[3], other+".heartbeats") {
		p.t.Errorf("MirrorMaker's client sees of %s: %q", other, answers)
	}
}

func (p *pair) awaitsHeartbeats(c *testbed.Cluster, other string) {
	p.t.Helper()
	admin := c.Admin()
	defer admin.Close()
	for _, topic := range []string{"heartbeats", other + ".heartbeats"} {
		testbed.Eventually(p.t, copyWithin, "a heartbeat in "+topic, func() bool { return endsBy(p.t, admin, topic) > 0 })
	}
}

// failsBack has a group of the backup go on on the primary, where MirrorMaker's client says.
func (p *pair) failsBack(topic string) {
	p.t.Helper()
	m := mover{t: p.t, group: p.name + "-back", from: p.target, to: p.source, topic: topic, copied: p.backOf(topic)}
	m.reads(p.target, topic, perPartition)
	p.appears(p.source, p.backup+".checkpoints.internal")
	testbed.Eventually(p.t, copyWithin, "checkpoints of "+m.group, func() bool { return len(m.checkpoints(p.backup)) >= mmPartitions })
	offsets := p.offsets(p.ask(p.source, "remoteConsumerOffsets "+p.backup+" "+m.group)[0], m.copied)
	for n, at := range everywhere(perPartition) {
		if offsets[n] != at {
			p.t.Errorf("MirrorMaker's client has %s-%d at %d, want %d", m.copied, n, offsets[n], at)
		}
	}
	p.produce(p.target, topic, mmRecords, 1000+mmRecords)
	m.sets(p.source, m.copied, offsets)
	m.failsOver()
}

// movesOffsets does what KIP-875 is for: a topic goes on behind its first offset, another begins again, and then all of them do.
func (p *pair) movesOffsets(first, second string) {
	p.t.Helper()
	type entry struct {
		Partition struct {
			Cluster   string `json:"cluster"`
			Partition int32  `json:"partition"`
			Topic     string `json:"topic"`
		} `json:"partition"`
		Offset *struct {
			Offset int64 `json:"offset"`
		} `json:"offset"`
	}
	var all struct {
		Offsets []entry `json:"offsets"`
	}
	if err := json.Unmarshal([]byte(p.command(0, "offsets", "list", p.flow())), &all); err != nil {
		p.t.Fatal(err)
	}
	moved := all
	moved.Offsets = nil
	for _, e := range all.Offsets {
		switch e.Partition.Topic {
		case first:
			if e.Offset.Offset != 2*perPartition-1 {
				p.t.Errorf("the offset of %s-%d is %d", first, e.Partition.Partition, e.Offset.Offset)
			}
			e.Offset.Offset = 0
		case second:
			e.Offset = nil
		default:
			continue
		}
		moved.Offsets = append(moved.Offsets, e)
	}
	text, err := json.Marshal(moved)
	if err != nil {
		p.t.Fatal(err)
	}
	file := filepath.Join(p.t.TempDir(), "offsets.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.t.Log(p.command(0, "offsets", "set", p.flow(), file))
	had, afresh := 2*mmRecords, perPartition
	had += 2*mmRecords - mmPartitions
	afresh += perPartition
	p.awaits(p.target, p.copyOf(first), had)
	p.awaits(p.target, p.copyOf(second), afresh)

	p.t.Log(p.command(0, "offsets", "reset", p.flow(), "--all"))
	p.awaits(p.target, p.copyOf(first), had+2*mmRecords)
	p.awaits(p.target, p.copyOf(second), afresh+perPartition)
}

func (p *pair) hasAnEmptyPartition() {
	topic := p.topic("empty")
	copied := p.copyOf(topic)
	p.fill(p.source, topic, 0, mmPartitions-1)
	m := p.group("empty", topic)
	at := everywhere(perPartition)
	at[mmPartitions-1] = 0
	m.sets(p.source, topic, at)
	p.awaits(p.target, copied, mmRecords-perPartition)
	p.checkpointed(m, "to be there", func(c mm2.Checkpoint) bool { return c.Downstream == at[c.Partition] })
	offsets := p.offsets(p.ask(p.target, "remoteConsumerOffsets "+p.primary+" "+m.group)[0], copied)
	m.sets(p.target, copied, offsets)
	if got := m.at(p.target, copied); !maps.Equal(got, at) {
		p.t.Errorf("the group is at %v, want %v", got, at)
	}
	p.fill(p.source, topic, mmPartitions-1, mmPartitions)
	last := int32(mmPartitions - 1)
	next := m.next(p.target, copied, map[int32]int64{last: 0})[last]
	if next.Offset != 0 || !same(next, m.next(p.source, topic, map[int32]int64{last: 0})[last]) {
		p.t.Errorf("the group goes on with %q at %d", next.Value, next.Offset)
	}
}

// fill writes to some partitions alone.
func (p *pair) fill(c *testbed.Cluster, topic string, from, to int32) {
	p.t.Helper()
	opts := []kgo.Opt{kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner())}
	if p.transactions {
		opts = append(opts, kgo.TransactionalID(topic))
	}
	client := c.Client(opts...)
	defer client.Close()
	var records []*kgo.Record
	for partition := from; partition < to; partition++ {
		for i := range perPartition {
			records = append(records, &kgo.Record{Partition: partition, Key: fmt.Append(nil, i), Value: fmt.Appendf(nil, "%d of %d", i, partition)})
		}
	}
	if p.transactions {
		if err := client.BeginTransaction(); err != nil {
			p.t.Fatal(err)
		}
	}
	if err := client.ProduceSync(p.t.Context(), records...).FirstErr(); err != nil {
		p.t.Fatal(err)
	}
	if p.transactions {
		if err := client.EndTransaction(p.t.Context(), kgo.TryCommit); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *pair) setsPositions() {
	for _, name := range []string{"one", "two"} {
		topic := p.topic(name)
		p.produce(p.source, topic, mmRecords, 0)
		m := p.group("positions", topic)
		m.reads(p.source, topic, perPartition)
		p.produce(p.source, topic, mmRecords, mmRecords) // what it goes on with
		m.arrives()
		m.failsOver()
		p.monotonic(m)
		p.absent(p.source, p.backOf(topic))
	}
}

func (p *pair) writesNoSyncs() {
	topic := p.topic("unsynced")
	p.appears(p.target, p.copyOf(topic))
	p.begins(topic)
	p.produce(p.source, topic, mmRecords, 0)
	p.awaits(p.target, p.copyOf(topic), mmRecords)
	for _, c := range []*testbed.Cluster{p.source, p.target} {
		p.absent(c, "mm2-offset-syncs."+p.primary+".internal", "mm2-offset-syncs."+p.backup+".internal")
	}
}

func (p *pair) writesSyncsToTheTarget() {
	topic := p.topic("synced")
	p.produce(p.source, topic, mmRecords, 0)
	m := p.group("synced", topic)
	m.reads(p.source, topic, perPartition)
	p.appears(p.target, "mm2-offset-syncs."+p.primary+".internal")
	p.checkpointed(m, "to be there", func(c mm2.Checkpoint) bool { return c.Downstream == perPartition })
	p.monotonic(m)
	if n := ends(p.t, p.target, "mm2-offset-syncs."+p.primary+".internal"); n == 0 {
		p.t.Error("there are no offset-syncs")
	}
	p.absent(p.source, "mm2-offset-syncs."+p.primary+".internal", "mm2-offset-syncs."+p.backup+".internal")
}

// empties deletes all records of a topic on the primary.
func (p *pair) empties(topic string) {
	p.t.Helper()
	admin := p.source.Admin()
	defer admin.Close()
	ends, err := admin.ListEndOffsets(p.t.Context(), topic)
	if err == nil {
		var answers kadm.DeleteRecordsResponses
		if answers, err = admin.DeleteRecords(p.t.Context(), ends.Offsets()); err == nil {
			err = answers.Error()
		}
	}
	if err != nil {
		p.t.Fatalf("delete the records of %s: %v", topic, err)
	}
}

// hasNoCheckpointWithoutRecords knows a topic that was emptied before kferry saw it. There a group's position leads nowhere until
// there are records again. In a topic that never had one it leads to the beginning, whatever comes: of that MirrorMaker says nothing.
func (p *pair) hasNoCheckpointWithoutRecords(emptied string) {
	topic, empty := p.topic("checkpoints"), p.topic("no-checkpoints")
	m := p.group("no-checkpoints", topic)
	p.produce(p.source, topic, mmRecords, 0)
	for _, one := range []string{topic, empty, emptied} {
		p.appears(p.target, p.copyOf(one))
		m.sets(p.source, one, m.from.Ends(one))
	}
	p.checkpointed(m, "to be there", func(c mm2.Checkpoint) bool { return c.Downstream == perPartition })
	question := "remoteConsumerOffsets " + p.primary + " " + m.group
	answer := p.ask(p.target, question)[0]
	for one, want := range map[string]map[int32]int64{topic: everywhere(perPartition), empty: everywhere(0), emptied: {}} {
		if got := p.offsets(answer, p.copyOf(one)); !maps.Equal(got, want) {
			p.t.Errorf("MirrorMaker's client says of %s %v, want %v", one, got, want)
		}
	}
	n := m
	n.topic, n.copied = emptied, p.copyOf(emptied)
	p.produce(p.source, emptied, mmRecords, mmRecords)
	m.sets(p.source, emptied, m.from.Ends(emptied))
	p.checkpointed(n, "to be there", func(c mm2.Checkpoint) bool { return c.Downstream == perPartition })
	if answer := p.ask(p.target, question)[0]; !maps.Equal(p.offsets(answer, n.copied), everywhere(perPartition)) {
		p.t.Errorf("MirrorMaker's client says %s", answer)
	}
}

// isRestarted stops kferry, of which all know, in the middle, and starts it again.
func (p *pair) isRestarted(whole *pair) {
	topic := p.topic("restart")
	m := p.group("restart", topic)
	p.produce(p.source, topic, mmRecords, 0)
	m.reads(p.source, topic, perPartition)
	p.produce(p.source, topic, mmRecords, mmRecords)
	m.arrives()
	p.stop(whole.kferry)
	p.monotonic(m)
	m.reads(p.source, topic, perPartition)
	p.produce(p.source, topic, mmRecords, 2*mmRecords)
	whole.kferry = whole.start("run") // ends with the class
	m.arrives()
	m.failsOver()
	p.monotonic(m)
	p.awaits(p.target, m.copied, 3*mmRecords)
}

func (p *pair) translatesFarBehind() {
	topic := p.topic("far")
	m := p.group("far", topic)
	p.produce(p.source, topic, mmRecords, 0)
	m.sets(p.source, topic, everywhere(perPartition))
	p.checkpointed(m, "at the beginning", func(c mm2.Checkpoint) bool { return c.Downstream == perPartition })
	for i := 1; i < 10; i++ {
		p.produce(p.source, topic, 10*mmRecords, 10*mmRecords*i)
	}
	p.awaits(p.target, m.copied, 91*mmRecords)
	source, target := testbed.Read(p.t, p.source, topic, testbed.Committed), testbed.Read(p.t, p.target, m.copied, testbed.Committed)
	part := func(tenths int) (upstream, downstream map[int32]int64) {
		upstream, downstream = map[int32]int64{}, map[int32]int64{}
		for n, records := range source {
			i := len(records) * tenths / 10
			upstream[n], downstream[n] = records[i].Offset, target[n][i].Offset
		}
		return upstream, downstream
	}
	for _, tenths := range []int{9, 1} {
		upstream, downstream := part(tenths)
		m.sets(p.source, topic, upstream)
		p.checkpointed(m, fmt.Sprintf("at %d0 %%", tenths), func(c mm2.Checkpoint) bool {
			return c.Upstream == upstream[c.Partition] && c.Downstream == downstream[c.Partition]
		})
		if tenths == 9 {
			p.monotonic(m)
		}
	}
}

// alters sets on a copy what follows its source, and then what is excluded from that.
func (p *pair) alters(copied string) {
	p.t.Helper()
	setConfig(p.t, p.target, copied, "retention.bytes", "2000")
	setConfig(p.t, p.target, copied, "delete.retention.ms", "2000")
	p.follows("the broker", func() bool { return ownConfig(p.t, p.target, copied)["delete.retention.ms"] == "2000" })
}

func (p *pair) followsSettings() {
	topic := p.topic("settings", "delete.retention.ms", "1000", "retention.bytes", "1000")
	copied := p.copyOf(topic)
	p.appears(p.target, copied)
	p.alters(copied)
	p.follows("the setting is forced back", func() bool { return ownConfig(p.t, p.target, copied)["retention.bytes"] == "1000" })
	if got := ownConfig(p.t, p.target, copied)["delete.retention.ms"]; got != "2000" {
		p.t.Errorf("the excluded setting became %q", got)
	}
}

func (p *pair) followsDefaults() {
	topic := p.topic("defaults")
	copied := p.copyOf(topic)
	p.appears(p.target, copied)
	p.alters(copied)
	p.follows("the source's default", func() bool { return ownConfig(p.t, p.target, copied)["retention.bytes"] == "-1" })
	if got := ownConfig(p.t, p.target, copied)["delete.retention.ms"]; got != "2000" {
		p.t.Errorf("the excluded setting became %q", got)
	}
}

func (p *pair) returnsToDefaults() {
	topic := p.topic("defaults", "retention.bytes", "1000")
	copied := p.copyOf(topic)
	p.appears(p.target, copied)
	if got := ownConfig(p.t, p.target, copied)["retention.bytes"]; got != "1000" {
		p.t.Errorf("the copy was created with %q", got)
	}
	setConfig(p.t, p.source, topic, "retention.bytes", "3000") // so that kferry has looked at it since
	p.follows("another value", func() bool { return ownConfig(p.t, p.target, copied)["retention.bytes"] == "3000" })
	unsetConfig(p.t, p.source, topic, "retention.bytes")
	p.follows("the target's default", func() bool { return ownConfig(p.t, p.target, copied)["retention.bytes"] == "" })
}

// begins waits until it is settled where each partition begins.
func (p *pair) begins(topic string) {
	p.t.Helper()
	testbed.Eventually(p.t, copyWithin, "the beginning of "+topic, func() bool {
		partitions := p.status().partitions(topic)
		return len(partitions) == mmPartitions && !slices.ContainsFunc(partitions, func(q partition) bool { return q.Cursor == nil })
	})
}

func (p *pair) beginsAtTheEnd(topic string) {
	p.begins(topic)
	p.produce(p.source, topic, mmRecords, mmRecords)
	p.awaits(p.target, p.copyOf(topic), mmRecords)
	for n, records := range testbed.Read(p.t, p.target, p.copyOf(topic), testbed.Committed) {
		if len(records) != perPartition {
			p.t.Errorf("partition %d has %d records", n, len(records))
		}
	}
}

// countsAsMirrorMaker demands MirrorMaker's metrics by their names in Prometheus: of each partition, and of more than one group, where
// MirrorMaker has those of one.
func (p *pair) countsAsMirrorMaker() {
	topic := p.topic("metrics")
	copied := p.copyOf(topic)
	p.produce(p.source, topic, mmRecords, 0)
	groups := []mover{p.group("metrics-a", topic), p.group("metrics-b", topic)}
	for i, m := range groups {
		m.sets(p.source, topic, everywhere(int64(1+i)))
	}
	p.awaits(p.target, copied, mmRecords)
	for _, m := range groups {
		p.checkpointed(m, "to be there", func(mm2.Checkpoint) bool { return true })
	}
	var want []string // series
	tags := func(n int) string {
		return fmt.Sprintf("partition=%q,source=%q,target=%q,topic=%q", strconv.Itoa(n), p.primary, p.backup, copied)
	}
	for n := range mmPartitions {
		for _, name := range []string{"record_count", "record_rate", "byte_count", "byte_rate", "record_age_ms", "replication_latency_ms"} {
			want = append(want, fmt.Sprintf("kafka_connect_mirror_mirrorsourceconnector_%s{%s}", name, tags(n)))
		}
		for _, name := range []string{"record_age_ms", "replication_latency_ms"} {
			for _, of := range []string{"min", "max", "avg"} {
				want = append(want, fmt.Sprintf("kafka_connect_mirror_mirrorsourceconnector_%s_%s{%s}", name, of, tags(n)))
			}
		}
		for _, m := range groups {
			for _, of := range []string{"", "_min", "_max", "_avg"} {
				want = append(want, fmt.Sprintf("kafka_connect_mirror_mirrorcheckpointconnector_checkpoint_latency_ms%s{group=%q,%s}", of, m.group, tags(n)))
			}
		}
	}
	var got map[string]float64
	var missing []string
	testbed.Eventually(p.t, soon, "metrics", func() bool {
		got, missing = metrics(p.t, p.kferry), nil
		for _, series := range want {
			if _, there := got[series]; !there {
				missing = append(missing, series)
			}
		}
		return len(missing) == 0
	})
	for n := range mmPartitions {
		if count := got[fmt.Sprintf("kafka_connect_mirror_mirrorsourceconnector_record_count{%s}", tags(n))]; count != perPartition {
			p.t.Errorf("record_count of partition %d is %v", n, count)
		}
	}
}

// MirrorMaker has topics, partitions, settings and rights of copies made by a class of the user's. kferry has no such class; what that class
// is asked to do is done, on brokers that keep to rights.
func TestMirrorConnectorsWithCustomForwardingAdminIntegrationTest(t *testing.T) {
	t.Parallel()
	whole := class{name: "admin"}.pair(t, authorizing(t), authorizing(t), "both", "sync.topic.acls.enabled = true", "sync.topic.acls.interval.seconds = 1")
	whole.start("run")
	for _, s := range []struct {
		name string
		run  func(p *pair, topic string)
	}{
		{"testReplicationIsCreatingTopicsUsingProvidedForwardingAdmin", (*pair).createsTopics},
		{"testCreatePartitionsUseProvidedForwardingAdmin", (*pair).createsPartitions},
		{"testSyncTopicConfigUseProvidedForwardingAdmin", (*pair).altersSettings},
		{"testSyncTopicACLsUseProvidedForwardingAdmin", (*pair).givesRights},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			p := whole.in(t)
			topic := p.topic(slug(strings.TrimPrefix(s.name, "test"))[:12], "cleanup.policy", "compact")
			p.target.CreateTopic(topic, mmPartitions, 1)
			p.produce(p.source, topic, mmRecords, 0)
			p.produce(p.target, topic, mmRecords, mmRecords)
			s.run(p, topic)
		})
	}
}

func (p *pair) createsTopics(topic string) {
	p.group("admin", topic).reads(p.source, topic, perPartition)
	p.group("admin", topic).reads(p.target, topic, perPartition)
	for _, name := range []string{p.backOf(topic), "mm2-offset-syncs." + p.backup + ".internal", p.backup + ".checkpoints.internal", p.backup + ".heartbeats", "heartbeats"} {
		p.appears(p.source, name)
	}
	for _, name := range []string{p.copyOf(topic), "mm2-offset-syncs." + p.primary + ".internal", p.primary + ".checkpoints.internal", p.primary + ".heartbeats", "heartbeats"} {
		p.appears(p.target, name)
	}
}

func (p *pair) createsPartitions(topic string) {
	p.appears(p.source, p.backOf(topic))
	p.appears(p.target, p.copyOf(topic))
	admin := p.source.Admin()
	defer admin.Close()
	answers, err := admin.UpdatePartitions(p.t.Context(), mmPartitions+1, topic)
	if err == nil {
		err = answers.Error()
	}
	if err != nil {
		p.t.Fatal(err)
	}
	p.follows("the partition", func() bool {
		return len(p.target.Topics(p.copyOf(topic))[p.copyOf(topic)].Partitions) == mmPartitions+1
	})
	if n := len(p.source.Topics(p.backOf(topic))[p.backOf(topic)].Partitions); n != mmPartitions {
		p.t.Errorf("the copy of the other topic has %d partitions", n)
	}
}

func (p *pair) altersSettings(topic string) {
	copied := p.copyOf(topic)
	p.appears(p.target, copied)
	for _, policy := range []string{"compact", "delete"} {
		setConfig(p.t, p.source, topic, "cleanup.policy", policy)
		p.follows(policy, func() bool { return ownConfig(p.t, p.target, copied)["cleanup.policy"] == policy })
	}
}

func (p *pair) givesRights(topic string) {
	for _, c := range []*testbed.Cluster{p.source, p.target} {
		grant(p.t, c, topic, kadm.ACLPatternLiteral, kadm.NewACLs().Allow("User:dummy").AllowHosts("*").Operations(kadm.OpDescribe))
	}
	p.follows("the right on the backup", func() bool {
		return slices.Contains(rights(p.t, p.target, ""), "dummy ALLOW DESCRIBE "+p.copyOf(topic))
	})
	p.follows("the right on the primary", func() bool {
		return slices.Contains(rights(p.t, p.source, ""), "dummy ALLOW DESCRIBE "+p.backOf(topic))
	})
}

// dedicatedMode is the file of MirrorMaker's tests of its own driver. Aliases go in by [escaped].
const dedicatedMode = `dedicated.mode.enable.internal.rest = false
listeners = http://localhost:0
refresh.topics.interval.seconds = 1
clusters = P, B
P.bootstrap.servers = %s
B.bootstrap.servers = %s
P->B.enabled = true
P->B.topics = ^%s.*
B->P.enabled = false
B->P.emit.heartbeats.enabled = false
replication.factor = 1
checkpoints.topic.replication.factor = 1
heartbeats.topic.replication.factor = 1
offset-syncs.topic.replication.factor = 1
offset.storage.replication.factor = 1
status.storage.replication.factor = 1
config.storage.replication.factor = 1
`

// oddAlias holds all that a URL or a file could stumble over.
const oddAlias = "B- ._~:/?#[]@!$&'()*+;=\"<>%{}|\\^`618"

// escaped is a name in a key of a properties file.
func escaped(name string) string {
	return strings.NewReplacer(`\`, `\\`, " ", `\ `, ":", `\:`, "=", `\=`, "#", `\#`, "!", `\!`).Replace(name)
}

func TestDedicatedMirrorIntegrationTest(t *testing.T) {
	t.Parallel()
	a, b := testbed.Shared(t, testbed.V33), testbed.Shared(t, testbed.V43)
	t.Run("testSingleNodeCluster", func(t *testing.T) {
		t.Parallel()
		d := newDriver(t, a.For(t), b.For(t), "single", "B-single")
		run := d.start("run")
		d.copies(d.prefix + "1")
		d.stop(run)
	})
	t.Run("testClusterWithEmitOffsetDisabled", func(t *testing.T) {
		t.Parallel()
		d := newDriver(t, a.For(t), b.For(t), "quiet", "B-quiet", "emit.offset-syncs.enabled = false")
		run := d.start("run")
		d.copies(d.prefix + "1")
		if found := d.source.Topics("mm2-offset-syncs.B-quiet.internal"); len(found) > 0 {
			t.Error("there is a topic of offset-syncs")
		}
		d.stop(run)
	})
	t.Run("testMultiNodeCluster", func(t *testing.T) { t.Parallel(); isRestartedNodeByNode(t, a.For(t), b.For(t)) })
}

// A driver is what takes the place of MirrorMaker's own.
type driver struct {
	*installation
	prefix string // of topics
}

func newDriver(t *testing.T, a, b *testbed.Cluster, name, target string, more ...string) driver {
	t.Helper()
	d := driver{prefix: name + "-test-topic-"}
	source := "A-" + name
	text := fmt.Sprintf(dedicatedMode, a.Bootstrap(), b.Bootstrap(), d.prefix) + strings.Join(more, "\n") + "\n"
	text = strings.Replace(text, "clusters = P, B", "clusters = "+source+", "+strings.ReplaceAll(target, `\`, `\\`), 1)
	text = strings.NewReplacer("P->B.", source+"->"+escaped(target)+".", "B->P.", escaped(target)+"->"+source+".",
		"\nP.", "\n"+source+".", "\nB.", "\n"+escaped(target)+".").Replace(text)
	d.installation = onText(t, a, b, source, text)
	return d
}

// copies creates a topic while kferry runs, waits until it has been found, and then writes to it.
func (d driver) copies(topic string) {
	d.t.Helper()
	d.source.CreateTopic(topic, 1, 1)
	testbed.Eventually(d.t, copyWithin, "the copy of "+topic, func() bool { return len(d.target.Topics(d.copyOf(topic), d.alias+".heartbeats")) == 2 })
	testbed.Produce(d.t, d.source, topic, testbed.Load{Records: 10})
	d.await(topic)
	d.compare(topic)
}

// isRestartedNodeByNode is a cluster of nodes, which are restarted one after the other with settings that change what is copied, while
// records flow. Until the last one has them, some nodes don't know what others want.
func isRestartedNodeByNode(t *testing.T, a, b *testbed.Cluster) {
	settings := []string{
		"B.exactly.once.source.support = enabled", "P.consumer.isolation.level = read_committed", "P->B.offset-syncs.topic.location = target",
		"P.scheduled.rebalance.max.delay.ms = 1000", "B.scheduled.rebalance.max.delay.ms = 1000",
	}
	d := newDriver(t, a, b, "nodes", oddAlias, settings...)
	nats := testbed.StartNATS(t)
	d.over(nats)
	roles := []string{"coordinator", "worker", "worker", "coordinator", "worker"}
	var nodes []*testbed.Process
	for _, role := range roles {
		nodes = append(nodes, d.start(role))
	}
	for i := range 3 {
		d.copies(fmt.Sprint(d.prefix, i))
	}
	const perSecond = 200
	flowing := d.prefix + "flowing"
	d.source.CreateTopic(flowing, 3, 1)
	flow := testbed.Live(t, d.source, flowing, testbed.Load{PlainKeys: true}, perSecond)
	other := "nodes-other"
	d.source.CreateTopic(other, 1, 1)
	testbed.Produce(t, d.source, other, testbed.Load{Records: 10})

	changed := newDriver(t, a, b, "nodes", oddAlias, append(settings, "refresh.topics.interval.seconds = 2", "P->B.topics = ^"+d.prefix+".*, "+other)...)
	changed.env = d.env
	for i, role := range roles {
		since := time.Now()
		d.copiesOn(flowing, perSecond)
		d.stop(nodes[i])
		nodes[i] = changed.start(role)
		t.Logf("node %d: after %s", i, time.Since(since).Round(time.Millisecond))
	}
	d.await(other)
	d.copiesOn(flowing, perSecond)
	flow.Stop()
	d.await(flowing)
	d.compare(flowing, other)
	if said := changed.command(0, "validate"); !strings.Contains(said, "looks for topics every 2s") {
		t.Errorf("kferry validate says:\n%s", said)
	}
	for _, node := range nodes {
		changed.stop(node)
	}
}
