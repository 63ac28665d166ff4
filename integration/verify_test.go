package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kferry/kferry/integration/testbed"
)

// A verified partition is what `kferry verify -o json` says of one.
type verified struct {
	Topic     string `json:"source_topic"`
	Partition int32
	Verdict   string
	Why       string
	counts
	First *struct {
		Kind           string
		Fields         []string
		Source, Target *struct {
			Offset     int64
			Key, Value *string
		}
	} `json:"first_difference"`
	Ranges []struct {
		SourceFirst int64 `json:"source_first"`
		Records     int64
	} `json:"equal_ranges"`
	Skipped []struct{ Side, Why string }
	Notes   []string
}

type counts struct {
	Equal, Missing, Extra, Changed, Duplicated, Reordered, Behind, Compacted int64
	ExpiredSource                                                            int64 `json:"expired_source"`
	ExpiredTarget                                                            int64 `json:"expired_target"`
	NotBegun                                                                 int64 `json:"not_begun"`
}

// verify runs the command and returns what it says of each partition.
func (k *installation) verify(wantCode int, flags ...string) []verified {
	k.t.Helper()
	var report struct {
		Flows []struct {
			Error      string
			Partitions []verified
		}
	}
	text := k.command(wantCode, "verify", append(flags, "-o", "json")...)
	if err := json.Unmarshal([]byte(text), &report); err != nil {
		k.t.Fatalf("verify: %v in %s", err, text)
	}
	if len(report.Flows) != 1 || report.Flows[0].Error != "" {
		k.t.Fatalf("verify: %s", text)
	}
	return report.Flows[0].Partitions
}

// equalTopic adds up the partitions of a topic, which have to be equal.
func equalTopic(t *testing.T, all []verified, topic string) (sum verified) {
	t.Helper()
	for _, p := range all {
		if p.Topic != topic {
			continue
		}
		if p.Verdict != "equal" {
			t.Errorf("%s-%d: %s %s %+v, first %+v", topic, p.Partition, p.Verdict, p.Why, p.counts, p.First)
		}
		sum.Topic = topic
		sum.Equal += p.Equal
		sum.Behind += p.Behind
		sum.Compacted += p.Compacted
		sum.ExpiredSource += p.ExpiredSource
		sum.ExpiredTarget += p.ExpiredTarget
		sum.NotBegun += p.NotBegun
		sum.Skipped = append(sum.Skipped, p.Skipped...)
		sum.Notes = append(sum.Notes, p.Notes...)
	}
	if sum.Topic == "" {
		t.Errorf("verify does not speak of %s", topic)
	}
	return sum
}

// A plant is what somebody did to a copy, and what is to be found.
type plant struct {
	name  string
	do    func(log []*kgo.Record) []*kgo.Record
	want  counts
	kind  string // of the first difference
	field string
}

var plants = []plant{
	{"nothing", func(log []*kgo.Record) []*kgo.Record { return log }, counts{}, "", ""},
	{"bit", func(log []*kgo.Record) []*kgo.Record {
		log[1000].Value = slices.Clone(log[1000].Value)
		log[1000].Value[70] ^= 1
		return log
	}, counts{Changed: 1}, "changed", "value from byte 70 on"},
	{"missing", func(log []*kgo.Record) []*kgo.Record { return slices.Delete(log, 1000, 1001) }, counts{Missing: 1}, "missing", ""},
	{"duplicate", func(log []*kgo.Record) []*kgo.Record { return slices.Insert(log, 1001, log[1000]) }, counts{Duplicated: 1}, "duplicated", ""},
	{"duplicated-batch", func(log []*kgo.Record) []*kgo.Record {
		return slices.Insert(log, 1100, slices.Clone(log[1000:1100])...)
	}, counts{Duplicated: 100}, "duplicated", ""},
	{"order", func(log []*kgo.Record) []*kgo.Record {
		log[1000], log[1001] = log[1001], log[1000]
		return log
	}, counts{Reordered: 1}, "reordered", ""},
	{"header", func(log []*kgo.Record) []*kgo.Record {
		log[1000].Headers = append(log[1000].Headers, kgo.RecordHeader{Key: "more"})
		return log
	}, counts{Changed: 1}, "changed", "headers"},
	{"null-header", func(log []*kgo.Record) []*kgo.Record {
		r := log[slices.IndexFunc(log, func(r *kgo.Record) bool { return len(r.Headers) == 3 })] // of which one is null
		r.Headers = slices.Clone(r.Headers)
		r.Headers[0].Value = []byte{}
		return log
	}, counts{Changed: 1}, "changed", "headers"},
	{"header-order", func(log []*kgo.Record) []*kgo.Record {
		r := log[slices.IndexFunc(log, func(r *kgo.Record) bool { return len(r.Headers) == 2 })]
		r.Headers = slices.Clone(r.Headers)
		slices.Reverse(r.Headers)
		return log
	}, counts{Changed: 1}, "changed", "headers"},
	{"timestamp", func(log []*kgo.Record) []*kgo.Record {
		log[1000].Timestamp = log[1000].Timestamp.Add(time.Millisecond)
		return log
	}, counts{Changed: 1}, "changed", "timestamp"},
	{"empty-for-null", func(log []*kgo.Record) []*kgo.Record {
		i := slices.IndexFunc(log, func(r *kgo.Record) bool { return r.Offset > 900 && r.Value == nil })
		log[i].Value = []byte{}
		return log
	}, counts{Changed: 1}, "changed", "value from byte 0 on"},
	{"foreign", func(log []*kgo.Record) []*kgo.Record {
		return slices.Insert(log, 1000, &kgo.Record{Value: []byte("of somebody else"), Timestamp: log[1000].Timestamp})
	}, counts{Extra: 1}, "extra", ""},
	{"several", func(log []*kgo.Record) []*kgo.Record {
		log[100].Key = []byte("another")
		return slices.Insert(slices.Delete(log, 1000, 1007), 2000, log[1990])
	}, counts{Changed: 1, Missing: 7, Duplicated: 1}, "changed", "key"},
}

// Whoever wrote a copy, verify finds what is wrong with it, and nothing else. Each partition has its plant.
func TestVerifyFindsWhatIsPlanted(t *testing.T) {
	source, target := testbed.Shared(t, testbed.V33), testbed.Shared(t, testbed.V43)
	const topic, records = "planted", 3000
	k := copying(t, source, target, topic)
	source.CreateTopic(topic, len(plants), 1)
	target.CreateTopic(k.copyOf(topic), len(plants), 1)
	testbed.Produce(t, source, topic, testbed.Load{Records: records * len(plants), Codec: kgo.Lz4Compression()})
	client := target.Client(kgo.DefaultProduceTopic(k.copyOf(topic)), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.ZstdCompression()), kgo.ProducerLinger(10*time.Millisecond), kgo.MaxBufferedRecords(100_000))
	for partition, log := range testbed.Read(t, source, topic, testbed.Committed) {
		for _, r := range plants[partition].do(log) {
			client.Produce(t.Context(), &kgo.Record{Partition: partition, Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp}, nil)
		}
	}
	if err := client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, p := range k.verify(1) {
		planted := plants[p.Partition]
		want, verdict := planted.want, "different"
		want.Equal = records - want.Changed - want.Missing - want.Reordered
		if planted.kind == "" {
			verdict = "equal"
		}
		if p.Verdict != verdict || p.counts != want {
			t.Errorf("%s: %s %+v, want %s %+v", planted.name, p.Verdict, p.counts, verdict, want)
		}
		var kind, fields string
		if p.First != nil {
			kind, fields = p.First.Kind, strings.Join(p.First.Fields, ", ")
		}
		if kind != planted.kind || fields != planted.field {
			t.Errorf("%s: first difference %q (%s), want %q (%s)", planted.name, kind, fields, planted.kind, planted.field)
		}
	}
	table := k.command(1, "verify")
	for _, want := range []string{"first difference: changed (value from byte 70 on)", "source offset 1000, timestamp", "equal: source 0 to 999, target 0 to 999, 1000 records"} {
		if !strings.Contains(table, want) {
			t.Errorf("the table does not show %q:\n%s", want, table)
		}
	}
}

// What kferry copied is equal, whatever it was, and while it copies; and what is done to it afterwards is found.
func TestVerifyCopies(t *testing.T) {
	source, target := testbed.Shared(t, testbed.V33), testbed.Shared(t, testbed.V43)
	k := copying(t, source, target, "verified-.*")
	source.CreateTopic("verified-codecs", 3, 1)
	source.CreateTopic("verified-transactions", 2, 1)
	source.CreateTopic("verified-deleted", 1, 1)
	source.CreateTopic("verified-append-time", 1, 1)
	source.CreateTopic("verified-appended", 1, 1, "message.timestamp.type", "LogAppendTime")
	source.CreateTopic("verified-empty", 2, 1)
	target.CreateTopic(k.copyOf("verified-append-time"), 1, 1, "message.timestamp.type", "LogAppendTime")
	next := everyCodec(t, source, "verified-codecs", 2000)
	testbed.Produce(t, source, "verified-transactions", testbed.Load{Records: 3000, ValueBytes: 2000, TxnRecords: 100, AbortEvery: 3}) // more than one answer
	testbed.Produce(t, source, "verified-deleted", testbed.Load{Records: 3000})
	testbed.Produce(t, source, "verified-append-time", testbed.Load{Records: 1000, PlainKeys: true})
	testbed.Produce(t, source, "verified-appended", testbed.Load{Records: 1000})
	deleteBefore(t, source, "verified-deleted", 500)
	k.catchUp()

	all := k.verify(0)
	for topic, want := range map[string]int64{
		"verified-codecs": 10_000, "verified-transactions": 2000, "verified-deleted": 2500, "verified-append-time": 1000, "verified-appended": 1000, "verified-empty": 0,
	} {
		if got := equalTopic(t, all, topic); got.Equal != want || got.Behind != 0 {
			t.Errorf("%s: %d records are equal and %d behind, want %d and none", topic, got.Equal, got.Behind, want)
		}
	}
	if got := equalTopic(t, all, "verified-append-time"); len(got.Notes) != 1 || !strings.Contains(got.Notes[0], "timestamps are not compared") {
		t.Errorf("a target that sets timestamps itself: notes %q", got.Notes)
	}

	// Retention at the source, and then further on at the target.
	deleteBefore(t, source, "verified-deleted", 1000)
	if got := equalTopic(t, k.verify(0, "--topics", "verified-deleted"), "verified-deleted"); got.Equal != 2000 || len(got.Skipped) != 1 || got.Skipped[0].Why != "expired at the source" {
		t.Errorf("the source's head is gone: %+v", got)
	}
	deleteBefore(t, target, k.copyOf("verified-deleted"), 1500) // 1500 of what began with source offset 500
	if got := equalTopic(t, k.verify(0, "--topics", "verified-deleted"), "verified-deleted"); got.Equal != 1000 || len(got.Skipped) != 1 || got.Skipped[0].Why != "expired at the target" {
		t.Errorf("more of the target's head is gone: %+v", got)
	}
	deleteBefore(t, target, k.copyOf("verified-deleted"), 2500)
	if got := k.verify(3, "--topics", "verified-deleted"); len(got) != 1 || got[0].Verdict != "not comparable" {
		t.Errorf("all of the target is gone: %+v", got)
	}

	// While records arrive and are copied.
	run := k.start("run")
	traffic := testbed.Live(t, source, "verified-codecs", testbed.Load{First: next, Codec: kgo.SnappyCompression()}, 2000)
	copied := k.copied("verified-codecs")
	testbed.Eventually(t, copyWithin, "traffic to be copied", func() bool { return k.copied("verified-codecs") > copied+1000 })
	for range 5 {
		got := equalTopic(t, k.verify(0, "--topics", "verified-codecs"), "verified-codecs")
		t.Logf("live: %d records are equal, %d behind", got.Equal, got.Behind)
		if got.Equal < 11_000 {
			t.Errorf("a live flow: only %d records are equal", got.Equal)
		}
	}
	next = traffic.Stop()
	k.await("verified-codecs")
	k.stop(run)
	if got := equalTopic(t, k.verify(3, "--topics", "verified-codecs", "--since", fmt.Sprint(time.Now().Add(-30*time.Minute).UnixMilli())), "verified-codecs"); got.Equal != 0 {
		t.Errorf("%d records are younger than any", got.Equal)
	}

	// Somebody writes a record of the copy to it again.
	last := testbed.Read(t, target, k.copyOf("verified-codecs"), testbed.Committed, 1)[1]
	again := last[len(last)-1]
	client := target.Client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	again = &kgo.Record{Topic: again.Topic, Partition: 1, Key: again.Key, Value: again.Value, Headers: again.Headers, Timestamp: again.Timestamp}
	if err := client.ProduceSync(t.Context(), again).FirstErr(); err != nil {
		t.Fatal(err)
	}
	for _, p := range k.verify(1, "--topics", "verified-codecs") {
		want := counts{Equal: p.Equal}
		if p.Partition == 1 {
			want.Duplicated = 1
		}
		if p.counts != want {
			t.Errorf("one record written once more to partition 1; partition %d: %+v", p.Partition, p.counts)
		}
	}
}

// A flow that begins in the middle: what was before is not compared, what came after is.
func TestVerifyFromTheMiddle(t *testing.T) {
	source, target := testbed.Shared(t, testbed.V43), testbed.Shared(t, testbed.V43)
	const records = 20_000 // more than verify looks ahead
	source.CreateTopic("middle", 1, 1)
	next := testbed.Produce(t, source, "middle", testbed.Load{Records: records})
	k := copying(t, source, target, "middle").with("KFERRY_START", "latest")
	k.catchUp()
	testbed.Produce(t, source, "middle", testbed.Load{Records: 1000, First: next})
	if got := k.verify(3); len(got) != 1 || got[0].Verdict != "not comparable" {
		t.Errorf("nothing is copied: %+v", got)
	}
	k.catchUp()
	got := equalTopic(t, k.verify(0), "middle")
	if got.Equal != 1000 || len(got.Skipped) != 1 || got.Skipped[0].Why != "before the flow began" {
		t.Errorf("a flow from the middle: %+v", got)
	}
}

// Each side is compacted by itself, and while it is copied. What either has lost by that is no difference; what is wrong is found all
// the same.
func TestVerifyCompacted(t *testing.T) {
	t.Parallel()
	both := testbed.Kafka(t, testbed.V43, testbed.WithConfig("log.cleaner.backoff.ms", "200"))
	soon := []string{"segment.ms", "500", "min.cleanable.dirty.ratio", "0.01", "max.compaction.lag.ms", "1000", "delete.retention.ms", "0"}
	compact := []string{"cleanup.policy", "compact"}
	k := copying(t, both, both, "compacted-.*").with(
		"KFERRY_CONFIG_PROPERTIES_EXCLUDE", "segment.ms,min.cleanable.dirty.ratio,max.compaction.lag.ms,delete.retention.ms")
	topics := []string{"compacted-source", "compacted-target", "compacted-both"}
	cleaned := map[string]bool{"compacted-source": true, k.copyOf("compacted-target"): true, "compacted-both": true, k.copyOf("compacted-both"): true}
	for _, topic := range topics {
		for _, name := range []string{topic, k.copyOf(topic)} {
			if configs := compact; cleaned[name] {
				both.CreateTopic(name, 1, 1, slices.Concat(configs, soon)...)
			} else {
				both.CreateTopic(name, 1, 1, configs...)
			}
		}
	}
	client := both.Client(kgo.ProducerLinger(5*time.Millisecond), kgo.ProducerBatchCompression(kgo.Lz4Compression()))
	written := 0
	write := func(n int) {
		t.Helper()
		for range n {
			key, value := fmt.Append(nil, "often", written%500), fmt.Append(nil, written)
			switch {
			case written%5 == 0:
				key = fmt.Append(nil, "once", written)
			case written%97 == 0:
				value = nil
			}
			for _, topic := range topics {
				client.Produce(t.Context(), &kgo.Record{Topic: topic, Key: key, Value: value}, nil)
			}
			written++
		}
		if err := client.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	run := k.start("run")
	write(10_000)
	k.await(topics...)
	testbed.Eventually(t, 2*time.Minute, "the cleaner", func() bool {
		write(100)
		all := k.verify(0) // whatever any cleaner has done so far
		for name := range cleaned {
			if testbed.Read(t, both, name, testbed.Committed).Records() > written*3/4 {
				return false
			}
		}
		return len(all) == len(topics)
	})
	k.stop(run)
	all := k.verify(0)
	for _, topic := range topics {
		got := equalTopic(t, all, topic)
		t.Logf("%s: of %d records %d are left on the source, %d on the target; %+v", topic, written,
			testbed.Read(t, both, topic, testbed.Committed).Records(), testbed.Read(t, both, k.copyOf(topic), testbed.Committed).Records(), got.counts)
		if got.Equal == 0 || got.Compacted < 1000 && topic != "compacted-both" {
			t.Errorf("%s: nothing was equal, or nothing explained by compaction: %+v", topic, got.counts)
		}
	}

	// A key that the source never had, and the deletion of one that is alive there.
	plain := both.Client(kgo.DefaultProduceTopic(k.copyOf("compacted-source")))
	foreign, deletion := kgo.KeySliceRecord([]byte("foreign"), []byte("x")), kgo.KeySliceRecord([]byte("once5"), nil)
	if err := plain.ProduceSync(t.Context(), foreign, deletion).FirstErr(); err != nil {
		t.Fatal(err)
	}
	k.verify(0, "--topics", "compacted-both,compacted-target")
	if got := k.verify(1, "--topics", "compacted-source")[0]; got.Extra != 2 || got.Missing+got.Changed+got.Duplicated+got.Reordered != 0 {
		t.Errorf("a foreign key and a foreign tombstone on the target: %+v", got.counts)
	}
}
