package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kferry/kferry/integration/testbed"
	"github.com/kferry/kferry/shared/mm2"
)

const groupsFile = `
clusters = a, c, b
a.bootstrap.servers = A
c.bootstrap.servers = C
b.bootstrap.servers = B
a->b.enabled = true
a->b.topics = groups-orders
c->b.enabled = true
c->b.topics = groups-payments
groups = groups-.*
sync.group.offsets.enabled = true
sync.group.offsets.interval.seconds = 1
emit.checkpoints.interval.seconds = 1
replication.factor = 1
checkpoints.topic.replication.factor = 1
offset-syncs.topic.replication.factor = 1
offset-syncs.topic.location = target
offset.storage.replication.factor = 1
heartbeats.topic.replication.factor = 1
`

// A mover is a consumer group that reads on one cluster and goes on on another.
type mover struct {
	t        *testing.T
	group    string
	from, to *testbed.Cluster
	topic    string // on from
	copied   string // on to
	opts     []kgo.Opt
}

// reads has the group consume at least n records of each partition, commit and leave.
func (m mover) reads(c *testbed.Cluster, topic string, n int) (first map[int32]*kgo.Record) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), copyWithin)
	defer cancel()
	client := c.Client(append([]kgo.Opt{
		kgo.ConsumerGroup(m.group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxPartitionBytes(100_000),
	}, m.opts...)...)
	defer client.Close()
	first = map[int32]*kgo.Record{}
	count := map[int32]int{}
	for len(count) < len(c.Ends(topic)) || least(count) < n {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			m.t.Fatalf("%s reads %s: %v", m.group, topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if first[r.Partition] == nil {
				first[r.Partition] = r
			}
			count[r.Partition]++
		})
	}
	if err := client.CommitUncommittedOffsets(ctx); err != nil {
		m.t.Fatalf("%s commits: %v", m.group, err)
	}
	return first
}

func least(count map[int32]int) int {
	n := -1
	for _, c := range count {
		if n < 0 || c < n {
			n = c
		}
	}
	return n
}

// at are the group's positions in a topic.
func (m mover) at(c *testbed.Cluster, topic string) map[int32]int64 {
	m.t.Helper()
	admin := c.Admin()
	defer admin.Close()
	var all kadm.OffsetResponses
	testbed.Eventually(m.t, soon, "positions of "+m.group, func() (ok bool) { // a new cluster has no coordinator yet
		var err error
		all, err = admin.FetchOffsets(m.t.Context(), m.group)
		return err == nil
	})
	at := map[int32]int64{}
	for p, o := range all[topic] {
		at[p] = o.At
	}
	return at
}

// sets commits positions by hand.
func (m mover) sets(c *testbed.Cluster, topic string, at map[int32]int64) {
	m.t.Helper()
	admin := c.Admin()
	defer admin.Close()
	var offsets kadm.Offsets
	for p, o := range at {
		offsets.AddOffset(topic, p, o, -1)
	}
	testbed.Eventually(m.t, soon, "positions of "+m.group+" to be set", func() bool {
		return admin.CommitAllOffsets(m.t.Context(), m.group, offsets) == nil
	})
}

// next are the records that follow some positions of a topic.
func (m mover) next(c *testbed.Cluster, topic string, at map[int32]int64) map[int32]*kgo.Record {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), soon)
	defer cancel()
	from := map[int32]kgo.Offset{}
	for p, o := range at {
		from[p] = kgo.NewOffset().At(o)
	}
	client := c.Client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	defer client.Close()
	next := map[int32]*kgo.Record{}
	for len(next) < len(at) {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			m.t.Fatalf("read %s: %v", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if next[r.Partition] == nil {
				next[r.Partition] = r
			}
		})
	}
	return next
}

// arrives waits until the group's positions on the target are those of the source's next records.
func (m mover) arrives() {
	m.t.Helper()
	want := m.next(m.from, m.topic, m.at(m.from, m.topic))
	testbed.Eventually(m.t, copyWithin, m.group+" to be led to where it stands", func() bool {
		at := m.at(m.to, m.copied)
		if len(at) < len(want) {
			return false
		}
		for p, r := range m.next(m.to, m.copied, at) {
			if !same(r, want[p]) {
				return false
			}
		}
		return true
	})
}

// failsOver has the group go on on the target, where the first record that it reads has to be the next one of the source.
func (m mover) failsOver() {
	m.t.Helper()
	at := m.at(m.from, m.topic)
	want := m.next(m.from, m.topic, at)
	for p, got := range m.reads(m.to, m.copied, 10) {
		if !same(got, want[p]) {
			m.t.Errorf("%s was at %d of %s-%d, whose next record is %.30q; on the target it went on with %.30q at %d", m.group, at[p], m.topic, p, want[p].Value, got.Value, got.Offset)
		}
	}
}

func same(a, b *kgo.Record) bool {
	return string(a.Key) == string(b.Key) && string(a.Value) == string(b.Value) && a.Timestamp.Equal(b.Timestamp)
}

// checkpoints of a group, in their order.
func (m mover) checkpoints(source string) (all []mm2.Checkpoint) {
	m.t.Helper()
	topic := source + ".checkpoints.internal"
	end := m.to.Ends(topic)[0]
	client := m.to.Client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
	defer client.Close()
	for last := int64(-1); last < end-1; {
		fetches := client.PollFetches(m.t.Context())
		if err := fetches.Err(); err != nil {
			m.t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			last = r.Offset
			if c, err := mm2.ParseCheckpoint(r.Key, r.Value); err != nil {
				m.t.Error(err)
			} else if c.Group == m.group {
				all = append(all, c)
			}
		})
	}
	return all
}

// Groups that are far behind a source full of transactions go on on the target with exactly the next record, whatever protocol they speak
// and however old their source is.
func TestGroups(t *testing.T) {
	t.Parallel()
	a, c, b := testbed.Shared(t, testbed.V43), testbed.Shared(t, testbed.V33), testbed.Kafka(t, testbed.V43, testbed.WithProxy())
	a.CreateTopic("groups-orders", 2, 1)
	c.CreateTopic("groups-payments", 2, 1)
	testbed.Produce(t, a, "groups-orders", testbed.Load{Records: 230_000, ValueBytes: 40, TxnRecords: 2000, AbortEvery: 10})
	testbed.Produce(t, c, "groups-payments", testbed.Load{Records: 20_000, TxnRecords: 500, AbortEvery: 5})

	k := copying(t, a, b, "")
	withoutFlow(k.env)
	file := filepath.Join(t.TempDir(), "mm2.properties")
	text := strings.NewReplacer("= A", "= "+a.Bootstrap(), "= B", "= "+b.Bootstrap(), "= C", "= "+c.Bootstrap()).Replace(groupsFile)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	k.args, k.alias = []string{"-f", file}, "a"

	orders := func(group string, opts ...kgo.Opt) mover {
		return mover{t: t, group: group, from: a, to: b, topic: "groups-orders", copied: "a.groups-orders", opts: opts}
	}
	classic := orders("groups-classic")
	modern := orders("groups-modern", kgo.ServerSideBalancer(), kgo.Balancers(kgo.RangeBalancer()))
	old := mover{t: t, group: "groups-old", from: c, to: b, topic: "groups-payments", copied: "c.groups-payments"}
	classic.reads(a, classic.topic, 5_000) // and stays behind by more than 200,000
	modern.reads(a, modern.topic, 20_000)
	old.reads(c, old.topic, 3_000)

	process := k.start("run")
	for _, m := range []mover{classic, modern, old} {
		m.arrives()
	}
	k.groupsAre("a->b", classic.group, true)
	for _, m := range []mover{classic, modern, old} {
		m.failsOver()
	}

	t.Run("an active group is left alone", func(t *testing.T) {
		m := orders("groups-active")
		m.t = t
		m.sets(b, m.copied, map[int32]int64{0: 100, 1: 100})
		member := b.Client(kgo.ConsumerGroup(m.group), kgo.ConsumeTopics(m.copied), kgo.DisableAutoCommit())
		member.PollFetches(t.Context())
		m.sets(a, m.topic, map[int32]int64{0: 5000, 1: 5000})
		testbed.Eventually(t, soon, "a checkpoint", func() bool { return len(m.checkpoints("a")) == 2 })
		k.groupsAre("a->b", m.group, true, "active_on_target")
		if at := m.at(b, m.copied); at[0] != 100 || at[1] != 100 {
			t.Errorf("positions on the target are %v, want 100", at)
		}
		member.Close()
		m.arrives()
	})

	t.Run("a group that goes back has lower checkpoints and keeps its positions", func(t *testing.T) {
		m := orders("groups-rewound")
		m.t = t
		m.sets(a, m.topic, map[int32]int64{0: 90_000, 1: 90_000})
		m.arrives()
		high := m.at(b, m.copied)
		m.sets(a, m.topic, map[int32]int64{0: 10_000, 1: 10_000})
		var all []mm2.Checkpoint
		testbed.Eventually(t, soon, "lower checkpoints", func() bool { all = m.checkpoints("a"); return len(all) == 4 })
		for _, c := range all[2:] {
			if c.Upstream != 10_000 || c.Downstream >= high[c.Partition] {
				t.Errorf("checkpoint %+v follows position %d", c, high[c.Partition])
			}
		}
		k.groupsAre("a->b", m.group, true, "target_ahead")
		if at := m.at(b, m.copied); at[0] != high[0] || at[1] != high[1] {
			t.Errorf("positions on the target are %v, were %v", at, high)
		}
	})

	t.Run("a target that can't be listed rewrites nothing", func(t *testing.T) {
		m := orders("groups-cut")
		m.t = t
		m.sets(b, m.copied, map[int32]int64{0: 50_000, 1: 50_000})
		said := len(process.Output())
		b.Proxy(0).Stall(testbed.Answers)
		m.sets(a, m.topic, map[int32]int64{0: 20_000, 1: 20_000})
		testbed.Eventually(t, copyWithin, "a failure to look at the groups", func() bool {
			text := process.Output()[said:]
			return strings.Contains(text, "consumer groups can't be looked at") || strings.Contains(text, `task="groups a->b`)
		})
		b.Proxy(0).Resume(testbed.Answers)
		b.Proxy(0).Cut()
		testbed.Eventually(t, copyWithin, "a checkpoint", func() bool { return len(m.checkpoints("a")) == 2 })
		k.groupsAre("a->b", m.group, true, "target_ahead")
		if at := m.at(b, m.copied); at[0] != 50_000 || at[1] != 50_000 {
			t.Errorf("positions on the target are %v, want 50000", at)
		}
	})
}

// groupsAre waits until `kferry groups` shows all positions of a group as exact, and for one of these reasons; none is none.
func (k *installation) groupsAre(flow, group string, exact bool, reasons ...string) {
	k.t.Helper()
	var said string
	defer func() { k.t.Logf("kferry groups:\n%s", said) }()
	testbed.Eventually(k.t, soon, fmt.Sprintf("groups to show %s, exact: %v, for %v", group, exact, reasons), func() bool {
		var surveys []struct {
			Positions []struct {
				Exact  bool
				Reason string
			}
		}
		said = k.command(0, "groups", flow, "--group", group, "-o", "json")
		if err := json.Unmarshal([]byte(said), &surveys); err != nil {
			k.t.Fatal(err)
		}
		right := len(surveys) == 1 && len(surveys[0].Positions) == 2
		for _, s := range surveys {
			for _, p := range s.Positions {
				right = right && p.Exact == exact && p.Reason == strings.Join(reasons, "")
			}
		}
		return right
	})
}
