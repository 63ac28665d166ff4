package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/integration/testbed"
)

// decide has a person decide about everything that waits for one: half of it while no kferry runs, the other half while one does. Then each
// copy has just what the decision says, and goes on.
func (w *ward) decide() {
	w.t.Helper()
	before := map[string][]*kgo.Record{}
	var waiting []hold
	for _, h := range holds {
		if h.mend == nil {
			waiting = append(waiting, h)
			before[h.topic] = w.onTarget(h.topic)
		}
	}
	for i, h := range waiting {
		if i == len(waiting)/2 {
			w.run = w.start("run")
			testbed.Eventually(w.t, soon, "a queue to be found", func() bool { return w.status().Queue == "" })
		}
		said := w.command(0, "resume", w.alias+"->central", "--topic", h.topic, "--partition", "0", h.decide)
		if alone := strings.Contains(said, "at the next start"); alone != (i < len(waiting)/2) {
			w.t.Errorf("resume says:\n%s", said)
		}
		w.t.Log(said)
	}
	for _, h := range waiting {
		testbed.Produce(w.t, w.source, h.topic, testbed.Load{Records: 50, First: 50_000})
	}
	for _, h := range waiting {
		w.t.Run(h.name()+" decided", func(t *testing.T) { w.in(t).demandFrom(h.topic, before[h.topic], h.from, h.alien) })
	}
	testbed.Eventually(w.t, soon, "every partition to be copied to its end", func() bool { // other partitions had some of the 50 too
		return !slices.ContainsFunc(w.status().Flows[0].Partitions, func(p partition) bool { return p.State != "idle" })
	})
	w.stop(w.run)
	w.demandGaps(waiting)
}

// onTarget is what the copy of partition 0 holds.
func (k *installation) onTarget(topic string) []*kgo.Record {
	k.t.Helper()
	if !slices.Contains(topicNames(k.t, k.target), k.copyOf(topic)) {
		return nil
	}
	return testbed.Read(k.t, k.target, k.copyOf(topic), testbed.Committed)[0]
}

// demandFrom waits until the copy of partition 0 holds, behind what was there before, the source's records from an offset on. Where
// somebody else has written, those of ours among what was there tell the offset.
func (k *installation) demandFrom(topic string, before []*kgo.Record, from int64, alien int) {
	k.t.Helper()
	if alien > 0 {
		from = int64(len(before) - alien)
	}
	want := slices.Clone(before)
	for _, r := range testbed.Read(k.t, k.source, topic, testbed.Committed)[0] {
		if r.Offset >= from {
			want = append(want, r)
		}
	}
	testbed.Eventually(k.t, goneAround+soon, fmt.Sprintf("%d records in the copy of %s", len(want), topic), func() bool {
		return len(k.onTarget(topic)) >= len(want)
	})
	got := k.onTarget(topic)
	if d := testbed.Diff(testbed.Log{0: want}, testbed.Log{0: got}); !d.Exact() {
		k.t.Errorf("%s after the decision: %v", topic, d)
	}
	k.t.Logf("%s: %d records that were there, then the source's from offset %d on, %d in all", topic, len(before), from, len(got))
}

// A gap is what `kferry gaps -o json` says of one.
type gap struct {
	Topic, Effect, Reason, By, Acknowledged, Before, After string
	From, To, Count, Target                                int64
}

func (k *installation) gaps() (all []gap) {
	k.t.Helper()
	text := k.command(0, "gaps", "-o", "json")
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		k.t.Fatalf("gaps: %v in %s", err, text)
	}
	return all
}

// demandGaps sees that what the decisions cost is on record, and not open: a person took it.
func (w *ward) demandGaps(waiting []hold) {
	w.t.Helper()
	gaps := w.gaps()
	for _, h := range waiting {
		i := slices.IndexFunc(gaps, func(g gap) bool { return g.Topic == h.topic })
		if h.topic == "held-target-deleted" { // all of it was copied again, and nothing is there twice
			if i >= 0 {
				w.t.Errorf("gap of what was restarted on an empty target: %+v", gaps[i])
			}
			continue
		}
		if i < 0 || gaps[i].Reason != h.reason || gaps[i].By != "operator" || gaps[i].Acknowledged == "" {
			w.t.Errorf("gaps of %s: %+v", h.topic, gaps)
			continue
		}
		w.t.Logf("%+v", gaps[i])
	}
}

// Policies decide by themselves; what that costs stays open until it is acknowledged, and survives the queue.
func TestPolicies(t *testing.T) {
	t.Parallel()
	source, target := testbed.Shared(t, testbed.V33), testbed.Shared(t, testbed.V43)
	w := &ward{installation: copying(t, source, target, "policy-.*").with("KFERRY_ON_HOLD", "source_recreated=skip,target_recreated=restart,target_truncated=skip,foreign_writer=skip")}
	type spoilt struct {
		from, alien, count int
		effect             string
		spoil              func(topic string)
	}
	topics := map[string]spoilt{
		"policy-retention": {from: 330, effect: "skipped", count: 30, spoil: func(topic string) {
			testbed.Produce(t, source, topic, testbed.Load{Records: 100, First: heldRecords, BatchBytes: 2000})
			var offsets kadm.Offsets
			offsets.AddOffset(topic, 0, 330, -1)
			if _, err := source.Admin().DeleteRecords(t.Context(), offsets); err != nil {
				t.Fatal(err)
			}
		}},
		"policy-source-recreated": {from: 0, effect: "skipped", count: -1, spoil: func(topic string) {
			deleteTopic(t, source, topic)
			source.CreateTopic(topic, 1, 1)
		}},
		"policy-target-deleted":   {from: 0, spoil: func(topic string) { deleteTopic(t, target, w.copyOf(topic)) }},
		"policy-target-truncated": {from: 300, effect: "skipped", count: 5, spoil: func(topic string) { w.edit(topic, "kferry.target", add(5)) }},
		"policy-foreign": {from: 300, effect: "surplus", spoil: func(topic string) {
			testbed.Produce(t, target, w.copyOf(topic), testbed.Load{Records: 5, First: 20_000})
		}},
	}
	for topic := range topics {
		source.CreateTopic(topic, 1, 1)
		testbed.Produce(t, source, topic, testbed.Load{Records: heldRecords, ValueBytes: 1000})
	}
	w.catchUp()
	before := map[string][]*kgo.Record{}
	for topic, s := range topics {
		s.spoil(topic)
		testbed.Produce(t, source, topic, testbed.Load{Records: 20, First: 30_000})
		before[topic] = w.onTarget(topic)
	}
	w.forget()
	if summary := w.catchUp(); !strings.Contains(summary, "has 4 gaps that nobody has acknowledged") {
		t.Errorf("the summary keeps the gaps to itself:\n%s", summary)
	}
	for topic, s := range topics {
		w.demandFrom(topic, before[topic], int64(s.from), 0)
	}
	open := func() (n int) {
		for _, g := range w.gaps() {
			if s := topics[g.Topic]; g.Effect != s.effect || g.By != "policy" || g.Effect == "skipped" && g.Count != int64(s.count) {
				t.Errorf("gap %+v, want %s %d", g, s.effect, s.count)
			}
			if g.Acknowledged == "" {
				n++
			}
		}
		return n
	}
	if n := open(); n != 4 {
		t.Errorf("%d open gaps, want 4: %+v", n, w.gaps())
	}
	if table := w.command(0, "status"); strings.Count(table, "that nobody has acknowledged") != 4 || !strings.Contains(table, "idle, 1 gap") {
		t.Errorf("status:\n%s", table)
	}
	w.command(0, "gaps", w.alias+"->central", "--acknowledge")
	if n := open(); n != 0 {
		t.Errorf("%d open gaps after they were acknowledged", n)
	}
	w.catchUp()
}

// The target's only replica in sync dies, and one that had fallen behind takes over: acknowledged records are gone. kferry notices, writes
// nothing, and copies them again when it is told where from.
func TestUncleanElection(t *testing.T) {
	t.Parallel()
	const topic, leader, follower, records = "unclean", 2, 1, 300
	source := testbed.Shared(t, testbed.V43)
	target := testbed.Kafka(t, testbed.V43, testbed.WithBrokers(3), testbed.WithHeap("384m"))
	source.CreateTopic(topic, 1, 1)
	testbed.Produce(t, source, topic, testbed.Load{Records: records})
	k := copying(t, source, target, topic).with("KFERRY_OFFSETS_REPLICATION_FACTOR", "3")
	createOn(t, target, k.copyOf(topic), []int32{leader, follower}, "min.insync.replicas", "1", "unclean.leader.election.enable", "true")
	k.start("run")
	k.await(topic)

	target.Kill(follower)
	testbed.Eventually(t, goneAround, "the leader to go on alone", func() bool {
		return len(target.Topics(k.copyOf(topic))[k.copyOf(topic)].Partitions[0].ISR) == 1
	})
	testbed.Produce(t, source, topic, testbed.Load{Records: records, First: records})
	k.await(topic)
	before := testbed.Read(t, source, topic, testbed.Committed)[0][:records]
	target.Kill(leader)
	target.Start(follower)
	testbed.Eventually(t, goneAround, "a leader that lost records", func() bool { return target.Leaders(k.copyOf(topic))[0] == follower })
	testbed.Produce(t, source, topic, testbed.Load{Records: records, First: 2 * records})
	var p partition
	testbed.Eventually(t, goneAround+soon, "the hold", func() bool {
		p = k.status().partition(topic, 0)
		return p.State == "held" && p.Reason == "target_truncated" && p.Decide
	})
	t.Log(p)
	if got := k.copied(topic); got != records {
		t.Errorf("the target has %d records, want the %d that are left and no other", got, records)
	}
	t.Log(k.command(0, "resume", k.alias+"->central", "--topic", topic, "--dry-run"))
	t.Log(k.command(0, "resume", k.alias+"->central", "--topic", topic, "--partition", "0", "--from", fmt.Sprint(records)))
	k.demandFrom(topic, before, records, 0)
	k.compare(topic)
}

// createOn creates a topic of one partition on certain brokers, the first of which leads it.
func createOn(t *testing.T, c *testbed.Cluster, topic string, brokers []int32, configs ...string) {
	t.Helper()
	request := kmsg.NewPtrCreateTopicsRequest()
	wanted := kmsg.NewCreateTopicsRequestTopic()
	wanted.Topic, wanted.NumPartitions, wanted.ReplicationFactor = topic, -1, -1
	assignment := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
	assignment.Replicas = brokers
	wanted.ReplicaAssignment = append(wanted.ReplicaAssignment, assignment)
	for i := 0; i+1 < len(configs); i += 2 {
		config := kmsg.NewCreateTopicsRequestTopicConfig()
		config.Name, config.Value = configs[i], &configs[i+1]
		wanted.Configs = append(wanted.Configs, config)
	}
	request.Topics = append(request.Topics, wanted)
	answer, err := request.RequestWith(t.Context(), c.Client())
	if err == nil {
		err = kerr.ErrorForCode(answer.Topics[0].ErrorCode)
	}
	if err != nil {
		t.Fatalf("create %s on %v: %v", topic, brokers, err)
	}
}
