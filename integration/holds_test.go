package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
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
)

// A hold is one thing that goes wrong.
type hold struct {
	topic      string
	partitions int
	held       []int32       // those that stop; the others go on
	reason     string        // what status and metrics call it
	says       string        // part of what status says of it
	prepare    func(w *ward) // before kferry sees the topic, after its records are there
	spoil      func(w *ward) // once everything is copied
	spoilDown  func(w *ward) // likewise, while kferry is stopped
	mend       func(w *ward) // makes it go on by itself; without it a person has to decide
	decide     string        // what that person says, for partition 0
	from       int64         // source offset from which the copy goes on then
	alien      int           // records on the target that somebody else wrote; from counts from those of ours that are there
}

// shown says whether status has just the partitions that are to be held, and why.
func (h hold) shown(s status) bool {
	var held []int32
	for _, p := range s.partitions(h.topic) {
		if p.State == "held" && p.Reason == h.reason && strings.Contains(p.Detail, h.says) && p.Decide == (h.mend == nil) {
			held = append(held, p.Partition)
		}
	}
	return slices.Equal(held, h.held)
}

// Everything that stops a partition stops that partition alone, says so, and is over by itself when its cause is.
func TestHolds(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	w.admit()
	w.spoil()
	w.demandHeld()
	w.demandTheOthersGoOn()
	w.mend()
	w.demandMended()
	w.demandRemembered()
	w.decide()
}

// ward is an installation in which things go wrong, a topic for each, beside one that stays well.
type ward struct {
	*installation
	run *testbed.Process
}

const (
	well        = "held-not"
	heldRecords = 300 // of each topic at first
)

func newWard(t *testing.T) *ward {
	t.Helper()
	target := testbed.Kafka(t, testbed.V43,
		testbed.WithConfig("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
		testbed.WithConfig("allow.everyone.if.no.acl.found", "true"))
	return &ward{installation: copying(t, testbed.Shared(t, testbed.V43), target, "held-.*").with("KFERRY_ON_HOLD", "retention_gap=hold")}
}

// admit creates all topics and copies those that are still well.
func (w *ward) admit() {
	w.t.Helper()
	w.source.CreateTopic(well, 3, 1)
	testbed.Produce(w.t, w.source, well, testbed.Load{Records: heldRecords})
	for _, h := range holds {
		w.source.CreateTopic(h.topic, h.partitions, 1)
		testbed.Produce(w.t, w.source, h.topic, testbed.Load{Records: heldRecords, ValueBytes: 1000, Codec: kgo.Lz4Compression()})
		if h.prepare != nil {
			h.prepare(w)
		}
	}
	w.run = w.start("run")
	w.await(well)
	for _, h := range holds {
		if h.spoil != nil || h.spoilDown != nil {
			w.await(h.topic)
		}
	}
}

func (w *ward) spoil() {
	w.t.Helper()
	w.stop(w.run)
	for _, h := range holds {
		if h.spoilDown != nil {
			h.spoilDown(w)
		}
	}
	w.forget()
	w.run = w.start("run")
	for _, h := range holds {
		if h.spoil != nil {
			h.spoil(w)
		}
	}
}

// demandHeld waits until every hold is there, in status and in the metrics, and no other partition is held.
func (w *ward) demandHeld() {
	w.t.Helper()
	var s status
	deadline := time.Now().Add(goneAround + soon)
	testbed.Eventually(w.t, 2*(goneAround+soon), "status", func() bool {
		s = w.status()
		late := time.Now().After(deadline)
		return late || !slices.ContainsFunc(holds, func(h hold) bool { return !h.shown(s) })
	})
	for _, h := range holds {
		w.t.Run(h.name(), func(t *testing.T) {
			if !h.shown(s) {
				t.Fatalf("partitions %v not held with %s %q: %v", h.held, h.reason, h.says, s.partitions(h.topic))
			}
			t.Log(s.partition(h.topic, h.held[0]))
		})
	}
	testbed.Eventually(w.t, soon, "the metrics to count every hold", func() bool { return w.counted(metrics(w.t, w.run)) })
}

// counted says whether the two metrics to alert on know of all holds.
func (w *ward) counted(got map[string]float64) bool {
	want := map[string]float64{}
	for _, h := range holds {
		want[h.reason] += float64(len(h.held))
	}
	for reason, partitions := range want {
		if got[fmt.Sprintf(`kferry_partitions_held{flow="%s->central",reason="%s"}`, w.alias, reason)] != partitions {
			return false
		}
	}
	return got[fmt.Sprintf(`kferry_oldest_unreplicated_seconds{flow="%s->central"}`, w.alias)] > 0
}

func (w *ward) demandTheOthersGoOn() {
	w.t.Helper()
	testbed.Produce(w.t, w.source, well, testbed.Load{Records: heldRecords, First: heldRecords})
	w.await(well)
	w.compare(well)
}

func (w *ward) mend() {
	w.t.Helper()
	for _, h := range holds {
		if h.mend != nil {
			h.mend(w)
		}
	}
}

// demandMended waits until what could go on by itself has, and sees that what needs a decision has not.
func (w *ward) demandMended() {
	w.t.Helper()
	mended := time.Now()
	for _, h := range holds {
		w.t.Run(h.name()+" afterwards", func(t *testing.T) {
			k := w.in(t)
			if h.mend == nil {
				if s := k.status(); !h.shown(s) {
					t.Errorf("needs a decision and is %v", s.partitions(h.topic))
				}
				return
			}
			testbed.Eventually(t, goneAround+soon, "the copy to be complete", func() bool {
				return k.copied(h.topic) >= ends(t, k.source, h.topic)
			})
			t.Logf("has gone on by itself %v after the last cause was gone", time.Since(mended).Round(time.Second))
			k.compare(h.topic)
		})
	}
	if slices.Contains(topicNames(w.t, w.target), w.copyOf("held-target-deleted")) {
		w.t.Error("a target topic that was deleted has been created again")
	}
}

// demandRemembered runs a process that begins with nothing but the clusters: it has to find the same holds.
func (w *ward) demandRemembered() {
	w.t.Helper()
	w.stop(w.run)
	w.forget()
	summary := w.command(1, "run", "--until-caught-up")
	for _, h := range holds {
		named := strings.Contains(summary, fmt.Sprintf("%s-%d is held (%s)", h.topic, h.held[0], h.reason))
		if named != (h.mend == nil) {
			w.t.Errorf("the summary names %s: %v\n%s", h.topic, named, summary)
		}
	}
}

// forget wipes the queue of an installation that doesn't run: what it goes on from is on the target.
func (k *installation) forget() {
	k.t.Helper()
	if err := os.RemoveAll(k.env["KFERRY_DATA"]); err != nil {
		k.t.Fatal(err)
	}
}

func (h hold) name() string { return strings.TrimPrefix(h.topic, "held-") }

var holds = []hold{
	{
		// One record is larger than the target allows; the limit is raised later.
		topic: "held-large-record", partitions: 2, held: []int32{0}, reason: "record_too_large", says: "max.message.bytes",
		prepare: func(w *ward) {
			w.target.CreateTopic(w.copyOf("held-large-record"), 2, 1, "max.message.bytes", "20000")
			testbed.Produce(w.t, w.source, "held-large-record", testbed.Load{Records: 1, First: heldRecords, ValueBytes: 100_000})
			testbed.Produce(w.t, w.source, "held-large-record", testbed.Load{Records: 100, First: heldRecords + 1})
		},
		mend: func(w *ward) { setConfig(w.t, w.target, w.copyOf("held-large-record"), "max.message.bytes", "1048588") },
	},
	{
		// Records of a time that the copy refuses, until its bound is raised.
		topic: "held-future", partitions: 2, held: []int32{0}, reason: "invalid_record", says: "raise message.timestamp.after.max.ms",
		prepare: func(w *ward) { w.refuseTimes("held-future", "message.timestamp.after.max.ms", 48*time.Hour) },
		mend: func(w *ward) {
			setConfig(w.t, w.target, w.copyOf("held-future"), "message.timestamp.after.max.ms", unlimited)
		},
	},
	{
		topic: "held-past", partitions: 2, held: []int32{0}, reason: "invalid_record", says: "raise message.timestamp.before.max.ms",
		prepare: func(w *ward) { w.refuseTimes("held-past", "message.timestamp.before.max.ms", -48*time.Hour) },
		mend: func(w *ward) {
			setConfig(w.t, w.target, w.copyOf("held-past"), "message.timestamp.before.max.ms", unlimited)
		},
	},
	{
		topic: "held-no-cursor", partitions: 1, held: []int32{0}, reason: "no_cursor", says: "no position for it", decide: "--accept-gap",
		prepare: func(w *ward) {
			w.target.CreateTopic(w.copyOf("held-no-cursor"), 1, 1)
			testbed.Produce(w.t, w.target, w.copyOf("held-no-cursor"), testbed.Load{Records: 7})
		},
	},
	{
		// The copy has too few partitions, and nobody may add any.
		topic: "held-few-partitions", partitions: 3, held: []int32{1, 2}, reason: "authorization", says: "grant Alter",
		prepare: func(w *ward) {
			w.target.CreateTopic(w.copyOf("held-few-partitions"), 1, 1)
			deny(w.t, w.target, w.copyOf("held-few-partitions"), kadm.OpAlter)
		},
		mend: func(w *ward) { allow(w.t, w.target, w.copyOf("held-few-partitions")) },
	},
	{
		topic: "held-not-created", partitions: 1, held: []int32{0}, reason: "authorization", says: "grant Create",
		prepare: func(w *ward) {
			deny(w.t, w.target, "", kadm.OpCreate) // else the right to create any topic would do
			deny(w.t, w.target, w.copyOf("held-not-created"), kadm.OpCreate)
		},
		mend: func(w *ward) { allow(w.t, w.target, w.copyOf("held-not-created")) },
	},
	{
		topic: "held-not-written", partitions: 1, held: []int32{0}, reason: "authorization", says: "no right to write",
		prepare: func(w *ward) { deny(w.t, w.target, w.copyOf("held-not-written"), kadm.OpWrite) },
		mend:    func(w *ward) { allow(w.t, w.target, w.copyOf("held-not-written")) },
	},
	{
		topic: "held-source-recreated", partitions: 1, held: []int32{0}, reason: "source_recreated", says: "created again", decide: "--accept-gap",
		spoil: func(w *ward) {
			deleteTopic(w.t, w.source, "held-source-recreated")
			w.source.CreateTopic("held-source-recreated", 1, 1)
			testbed.Produce(w.t, w.source, "held-source-recreated", testbed.Load{Records: 2 * heldRecords, First: 10_000})
		},
	},
	{
		topic: "held-target-deleted", partitions: 1, held: []int32{0}, reason: "target_recreated", says: "gone", decide: "--restart",
		spoil: func(w *ward) {
			deleteTopic(w.t, w.target, w.copyOf("held-target-deleted"))
			testbed.Produce(w.t, w.source, "held-target-deleted", testbed.Load{Records: 100, First: heldRecords})
		},
	},
	{
		topic: "held-target-recreated", partitions: 1, held: []int32{0}, reason: "target_recreated", says: "created again",
		decide: "--accept-gap", from: heldRecords,
		spoilDown: func(w *ward) {
			deleteTopic(w.t, w.target, w.copyOf("held-target-recreated"))
			w.target.CreateTopic(w.copyOf("held-target-recreated"), 1, 1)
		},
	},
	{
		topic: "held-foreign-writer", partitions: 1, held: []int32{0}, reason: "foreign_writer", says: "producer id", decide: "--accept-gap", alien: 5,
		spoil: func(w *ward) {
			testbed.Produce(w.t, w.target, w.copyOf("held-foreign-writer"), testbed.Load{Records: 5, First: 20_000})
			testbed.Produce(w.t, w.source, "held-foreign-writer", testbed.Load{Records: 100, First: heldRecords})
		},
	},
	{
		topic: "held-retention-gap", partitions: 2, held: []int32{0}, reason: "retention_gap", says: "gone",
		decide: "--accept-gap", from: heldRecords/2 + 20,
		spoilDown: func(w *ward) {
			testbed.Produce(w.t, w.source, "held-retention-gap", testbed.Load{Records: 100, First: heldRecords})
			var offsets kadm.Offsets
			offsets.AddOffset("held-retention-gap", 0, heldRecords/2+20, -1)
			if _, err := w.source.Admin().DeleteRecords(w.t.Context(), offsets); err != nil {
				w.t.Fatal(err)
			}
		},
	},
	{
		// The cursor is beyond the end of the source's log, as after an unclean election there.
		topic: "held-source-truncated", partitions: 1, held: []int32{0}, reason: "source_truncated", says: "300",
		decide: "--from=290", from: 290,
		spoilDown: func(w *ward) { w.edit("held-source-truncated", "offset", add(1000)) },
	},
	{
		topic: "held-other-topic", partitions: 1, held: []int32{0}, reason: "source_recreated", says: "AAAAAAAAAAAAAAAAAAAAAA",
		decide: "--from=300", from: heldRecords,
		spoilDown: func(w *ward) {
			w.edit("held-other-topic", "kferry.sourceTopicId", func(any) any { return "AAAAAAAAAAAAAAAAAAAAAA" })
		},
	},
	{
		// The target ends before the cursor, as after an unclean election there.
		topic: "held-target-truncated", partitions: 1, held: []int32{0}, reason: "target_truncated", says: "ends at 300, before the cursor's 305",
		decide: "--accept-gap", from: heldRecords,
		spoilDown: func(w *ward) {
			w.edit("held-target-truncated", "kferry.target", add(5))
			testbed.Produce(w.t, w.source, "held-target-truncated", testbed.Load{Records: 20, First: heldRecords}) // or nobody looks
		},
	},
	{
		// A byte on the source's disk flips, and flips back later.
		topic: "held-corrupt", partitions: 2, held: []int32{0}, reason: "corrupt_batch", says: "held-corrupt-0",
		prepare: func(w *ward) { flip(w.source, "held-corrupt", 0) },
		mend:    func(w *ward) { flip(w.source, "held-corrupt", 0) },
	},
}

// refuseTimes adds a record of another day to partition 0 of a topic, and bounds what its copy takes.
func (w *ward) refuseTimes(topic, bound string, from time.Duration) {
	w.t.Helper()
	setConfig(w.t, w.source, topic, "message.timestamp.after.max.ms", unlimited)
	w.target.CreateTopic(w.copyOf(topic), 2, 1, bound, strconv.FormatInt((24*time.Hour).Milliseconds(), 10))
	testbed.Produce(w.t, w.source, topic, testbed.Load{Records: 1, First: heldRecords, Start: time.Now().Add(from)})
	testbed.Produce(w.t, w.source, topic, testbed.Load{Records: 100, First: heldRecords + 1})
}

// A batch above the target's limit whose records are not is split.
func TestLargeBatchIsSplit(t *testing.T) {
	source, target := testbed.Shared(t, testbed.V43), testbed.Shared(t, testbed.V43)
	source.CreateTopic("split-me", 2, 1)
	k := copying(t, source, target, "split-me")
	target.CreateTopic(k.copyOf("split-me"), 2, 1, "max.message.bytes", "20000")
	next := 0
	for _, codec := range codecs {
		next = testbed.Produce(t, source, "split-me", testbed.Load{Records: 4000, First: next, ValueBytes: 300, Codec: codec})
	}
	k.catchUp()
	k.compare("split-me")
	if p := k.status().partition("split-me", 0); p.State != "idle" || p.ExactlyOnce == nil || !*p.ExactlyOnce {
		t.Errorf("status after splitting: %+v", p)
	}
}

// A pattern without a topic is a warning and no failure.
func TestNoSuchTopic(t *testing.T) {
	k := copying(t, testbed.Shared(t, testbed.V43), testbed.Shared(t, testbed.V43), "no-such-topic")
	if summary := k.catchUp(); !strings.Contains(summary, "warning") || !strings.Contains(summary, "no-such-topic") {
		t.Errorf("the summary does not warn of a pattern without topics:\n%s", summary)
	}
	if warnings := fmt.Sprint(k.status().Flows[0].Warnings); !strings.Contains(warnings, "no-such-topic") {
		t.Errorf("status does not warn of a pattern without topics, only of %s", warnings)
	}
}

// A source that is away stops its own flow, and that goes on when the source is back.
func TestUnreachableSource(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testbed.Shared(t, testbed.V43))
	w.dc2 = testbed.Kafka(t, testbed.V33)
	w.dc1.CreateTopic("reach-1", 2, 1)
	w.dc2.CreateTopic("reach-2", 2, 1)
	testbed.Produce(t, w.dc1, "reach-1", testbed.Load{Records: 1000})
	testbed.Produce(t, w.dc2, "reach-2", testbed.Load{Records: 1000})
	w.dc2.Kill(0)
	k := w.mirroring(t, "reach-1", "reach-2")
	run := k.start("run")
	k.await("reach-1")
	testbed.Eventually(t, soon, "the metrics to say which flow fails", func() bool {
		m := metrics(t, run)
		return m[`kferry_flow_failing{flow="kafka-dc-2->kafka-centralized-mm2connector"}`] == 1 &&
			m[`kferry_flow_failing{flow="kafka-dc-1->kafka-centralized-mm2connector"}`] == 0
	})
	for _, f := range k.statusWith(1).Flows {
		if bad := strings.HasPrefix(f.Flow, "kafka-dc-2"); bad != (f.Error != "") {
			t.Errorf("status of %s: error %q", f.Flow, f.Error)
		}
	}
	next := testbed.Produce(t, w.dc1, "reach-1", testbed.Load{Records: 1000, First: 1000})
	k.await("reach-1")

	w.dc2.Start(0)
	testbed.Eventually(t, goneAround+soon, "the other flow to go on", func() bool {
		return ends(t, w.central, "kafka-dc-2.reach-2") == 1000
	})
	k.stop(run)
	w.compare(t, "reach-1", "reach-2")
	t.Logf("%d records of the good flow came through meanwhile", next)
}

// What can't work is said at once, with all that is wrong.
func TestMistakesInInput(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mirror.yaml")
	text := fmt.Sprintf(founding, "<bootstrapServers>", "localhost", "localhost:9092", "orders", "payments(")
	if err := os.WriteFile(file, []byte(strings.Replace(text, "sourceCluster: kafka-dc-2", "sourceCluster: kafka-dc-3", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	k := &installation{t: t, args: []string{"-f", file}}
	p := k.start("validate")
	if code := p.Wait(exitsWithin); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	for _, want := range []string{"<bootstrapServers>", `"localhost"`, "kafka-dc-3", "payments(", file + ":7"} {
		if !strings.Contains(p.Output(), want) {
			t.Errorf("validate does not speak of %s:\n%s", want, p.Output())
		}
	}
}

func setConfig(t *testing.T, c *testbed.Cluster, topic, key, value string) {
	t.Helper()
	answers, err := c.Admin().AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: key, Value: &value}}, topic)
	if err == nil {
		_, err = answers.On(topic, func(r *kadm.AlterConfigsResponse) error { return r.Err })
	}
	if err != nil {
		t.Fatalf("set %s of %s: %v", key, topic, err)
	}
}

func deleteTopic(t *testing.T, c *testbed.Cluster, topic string) {
	t.Helper()
	if _, err := c.Admin().DeleteTopic(t.Context(), topic); err != nil {
		t.Fatalf("delete %s: %v", topic, err)
	}
	testbed.Eventually(t, soon, topic+" to be gone", func() bool { return !slices.Contains(topicNames(t, c), topic) })
}

// deny takes one right away, on a topic or on the cluster. Everybody has one name here, and keeps all other rights.
func deny(t *testing.T, c *testbed.Cluster, topic string, operation kadm.ACLOperation) {
	t.Helper()
	on := func(acl *kadm.ACLBuilder) *kadm.ACLBuilder {
		if topic == "" {
			return acl.Clusters()
		}
		return acl.Topics(topic).ResourcePatternType(kadm.ACLPatternLiteral)
	}
	for _, acl := range []*kadm.ACLBuilder{
		on(kadm.NewACLs()).Allow("User:*").AllowHosts("*").Operations(kadm.OpAll),
		on(kadm.NewACLs()).Deny("User:*").DenyHosts("*").Operations(operation),
	} {
		answers, err := c.Admin().CreateACLs(t.Context(), acl)
		for _, answer := range answers {
			err = errors.Join(err, answer.Err)
		}
		if err != nil {
			t.Fatalf("deny %v on %q: %v", operation, topic, err)
		}
	}
}

// allow gives back what deny took on a topic.
func allow(t *testing.T, c *testbed.Cluster, topic string) {
	t.Helper()
	acl := kadm.NewACLs().Topics(topic).ResourcePatternType(kadm.ACLPatternLiteral).Deny().DenyHosts().Operations()
	answers, err := c.Admin().DeleteACLs(t.Context(), acl)
	for _, answer := range answers {
		err = errors.Join(err, answer.Err)
	}
	if err != nil {
		t.Fatalf("allow on %q: %v", topic, err)
	}
}

// edit changes a field of partition 0's cursor on the offsets topic, whose format is MirrorMaker 2's with more fields.
func (w *ward) edit(topic, field string, change func(any) any) {
	w.t.Helper()
	offsets := "mm2-offsets." + w.alias + ".internal"
	key := fmt.Sprintf(`["MirrorSourceConnector",{"cluster":%q,"partition":0,"topic":%q}]`, w.alias, topic)
	var last *kgo.Record
	for _, records := range testbed.Read(w.t, w.target, offsets, testbed.Committed) {
		for _, r := range records {
			if string(r.Key) == key {
				last = r
			}
		}
	}
	if last == nil {
		w.t.Fatalf("no cursor %s in %s", key, offsets)
	}
	value := map[string]any{}
	decoder := json.NewDecoder(bytes.NewReader(last.Value))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		w.t.Fatalf("cursor %s: %v", last.Value, err)
	}
	value[field] = change(value[field])
	edited, err := json.Marshal(value)
	if err != nil {
		w.t.Fatal(err)
	}
	client := w.target.Client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := client.ProduceSync(w.t.Context(), &kgo.Record{Topic: offsets, Partition: last.Partition, Key: last.Key, Value: edited}).FirstErr(); err != nil {
		w.t.Fatalf("edit cursor: %v", err)
	}
}

// add is a change of a number.
func add(by int64) func(any) any {
	return func(was any) any {
		n, err := was.(json.Number).Int64()
		if err != nil {
			panic(fmt.Sprintf("cursor: %v", err))
		}
		return n + by
	}
}

// flip inverts a bit of a byte amid the first batch of partition 0's log on a broker's disk; twice is as before.
func flip(c *testbed.Cluster, topic string, broker int) {
	const at = 200 // behind the batch's header
	file := fmt.Sprintf("/var/lib/kafka/data/%s-0/00000000000000000000.log", topic)
	was, err := strconv.Atoi(strings.TrimSpace(c.Broker(broker).Exec(fmt.Sprintf("od -An -t u1 -j %d -N 1 %s", at, file))))
	if err != nil {
		panic(fmt.Sprintf("od wrote no number: %v", err))
	}
	c.Broker(broker).Exec(fmt.Sprintf(`printf '\%03o' | dd of=%s bs=1 seek=%d conv=notrunc`, was^1, file, at))
}
