package verify_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/time/rate"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/local"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
	"github.com/kferry/kferry/shared/verify"
)

const topic = "orders"

// A world is a source A and a target B, in virtual time.
type world struct {
	*testing.T
	env      *local.Env
	clusters map[string]*kafka.Cluster
	options  verify.Options
}

func inBubble(t *testing.T, partitions [2]int32, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		env, err := local.Start(local.Setup{Virtual: true, Clusters: []local.Cluster{
			{Alias: "A", Topics: map[string]int32{topic: partitions[0]}}, {Alias: "B", Topics: map[string]int32{"A." + topic: partitions[1]}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer env.Close()
		w := &world{T: t, env: env, clusters: map[string]*kafka.Cluster{}}
		for _, alias := range []string{"A", "B"} {
			c, err := kafka.Open(env.Spec(alias), kafka.Options{Dialer: env.Dial})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			w.clusters[alias] = c
		}
		patterns, err := spec.ParsePatterns(".*")
		if err != nil {
			t.Fatal(err)
		}
		w.options = verify.Options{
			Flow: spec.Flow{
				Source: "A", Target: "B", Policy: mm2.DefaultPolicy{}, Filters: []spec.Filter{{Topics: patterns}}, Isolation: spec.ReadCommitted,
				OffsetsTopic: "mm2-offsets.A.internal",
			},
			Source: w.clusters["A"], Target: w.clusters["B"], Progress: new(verify.Progress),
		}
		test(w)
	})
}

// write appends records by number, each about 1 KB, to partition 0 of a topic.
func (w *world) write(alias, topic string, numbers ...int) {
	w.Helper()
	client, err := w.env.Client(alias, kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(64<<10), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		w.Fatal(err)
	}
	defer client.Close()
	var records []*kgo.Record
	for _, n := range numbers {
		records = append(records, &kgo.Record{
			Key: fmt.Append(nil, n%10), Value: fmt.Appendf(nil, "%d %s", n, strings.Repeat("x", 1000)), Timestamp: time.UnixMilli(1_000_000 + int64(n)),
		})
	}
	if err := client.ProduceSync(w.Context(), records...).FirstErr(); err != nil {
		w.Fatal(err)
	}
}

// both writes records and their copies.
func (w *world) both(numbers ...int) {
	w.write("A", topic, numbers...)
	w.write("B", "A."+topic, numbers...)
}

// deleteBefore is retention.
func (w *world) deleteBefore(alias, topic string, offset int64) {
	w.Helper()
	client, err := w.env.Client(alias)
	if err != nil {
		w.Fatal(err)
	}
	defer client.Close()
	var offsets kadm.Offsets
	offsets.AddOffset(topic, 0, offset, -1)
	if _, err := kadm.NewClient(client).DeleteRecords(w.Context(), offsets); err != nil {
		w.Fatal(err)
	}
}

func (w *world) compare(ctx context.Context) []verify.PartitionReport {
	w.Helper()
	r, err := verify.Compare(ctx, w.options)
	if err != nil || r.Error != "" {
		w.Fatal(err, r.Error)
	}
	return r.Partitions
}

func (w *world) wants(got verify.PartitionReport, verdict verify.Verdict, counts verify.Counts) {
	w.Helper()
	if got.Verdict != verdict || got.Counts != counts {
		w.Errorf("%s (%s)\n got %+v\nwant %s %+v", got.Verdict, got.Why, got.Counts, verdict, counts)
	}
}

// upTo are the numbers from one up to and without another.
func upTo(from, end int) (numbers []int) {
	for n := from; n < end; n++ {
		numbers = append(numbers, n)
	}
	return numbers
}

func TestProgressComesToItsEnd(t *testing.T) {
	inBubble(t, [2]int32{1, 1}, func(w *world) {
		w.both(upTo(0, 3000)...)
		got := w.compare(w.Context())[0]
		w.wants(got, verify.Equal, verify.Counts{Equal: 3000})
		if want := (verify.Range{SourceLast: 2999, TargetLast: 2999, Records: 3000}); len(got.Ranges) != 1 || got.Ranges[0] != want {
			w.Errorf("equal ranges %+v", got.Ranges)
		}
		p := w.options.Progress
		if p.Records.Load() != 3000 || p.Done.Load() != p.Total.Load() || p.Total.Load() != 6000 || p.Bytes.Load() == 0 {
			w.Errorf("%d records, %d of %d offsets, %d bytes", p.Records.Load(), p.Done.Load(), p.Total.Load(), p.Bytes.Load())
		}
	})
}

func TestTheRateIsKept(t *testing.T) {
	inBubble(t, [2]int32{1, 1}, func(w *world) {
		w.both(upTo(0, 3000)...)
		const perSecond = 64 << 10
		w.options.Limit = rate.NewLimiter(perSecond, perSecond)
		began := time.Now()
		w.wants(w.compare(w.Context())[0], verify.Equal, verify.Counts{Equal: 3000})
		want := float64(w.options.Progress.Bytes.Load()) / perSecond
		if took := time.Since(began).Seconds(); took < 0.9*want-1 || took > 1.1*want+1 {
			w.Errorf("%d bytes took %.1f s, want %.1f", w.options.Progress.Bytes.Load(), took, want)
		}
	})
}

// Retention takes records of either side in front of the reader.
func TestRetentionWhileItIsRead(t *testing.T) {
	for side, alias := range []string{"A", "B"} {
		inBubble(t, [2]int32{1, 1}, func(w *world) {
			w.both(upTo(0, 10_000)...)
			name := topic
			if alias == "B" {
				name = "A." + topic
			}
			w.options.Limit = rate.NewLimiter(256<<10, 256<<10)
			done := make(chan verify.PartitionReport)
			go func() { done <- w.compare(w.Context())[0] }()
			time.Sleep(5 * time.Second) // of 80
			w.deleteBefore(alias, name, 9000)
			got := <-done
			gone := got.ExpiredSource
			if verify.Side(side) == verify.Target {
				gone = got.ExpiredTarget
			}
			if got.Verdict != verify.Equal || got.Equal < 1000 || gone < 1000 || got.Equal+gone != 10_000 {
				w.Errorf("%s: %s %s %+v", alias, got.Verdict, got.Why, got.Counts)
			}
		})
	}
}

func TestAStopTellsWhatIsKnown(t *testing.T) {
	for _, planted := range []bool{false, true} {
		inBubble(t, [2]int32{1, 1}, func(w *world) {
			if planted {
				w.write("A", topic, 77)
			}
			w.both(upTo(100, 10_000)...)
			w.options.Limit = rate.NewLimiter(256<<10, 256<<10)
			ctx, cancel := context.WithTimeout(w.Context(), 20*time.Second)
			defer cancel()
			got := w.compare(ctx)[0]
			want := verify.Counts{Equal: got.Equal}
			verdict := verify.Unfinished
			if planted {
				want.Missing, verdict = 1, verify.Different
			}
			w.wants(got, verdict, want)
			if planted && got.First.Source.Value == nil {
				w.Errorf("the first difference is not shown: %+v", got.First.Source)
			}
			if got.Equal == 0 || got.Equal == 9900 || got.Why != "stopped before the end" {
				w.Errorf("%d records are equal, %s", got.Equal, got.Why)
			}
		})
	}
}

// A cluster goes away in the middle: what was found until then is told, and no verdict on the rest.
func TestAClusterGoesAway(t *testing.T) {
	inBubble(t, [2]int32{1, 1}, func(w *world) {
		w.both(upTo(0, 10_000)...)
		w.options.Limit = rate.NewLimiter(256<<10, 256<<10)
		done := make(chan verify.PartitionReport)
		go func() { done <- w.compare(w.Context())[0] }()
		time.Sleep(20 * time.Second) // of 80
		w.env.Kafka("B").Close()
		got := <-done
		w.wants(got, verify.NotComparable, verify.Counts{Equal: got.Equal})
		if got.Equal == 0 || got.Equal == 10_000 || !strings.Contains(got.Why, "A."+topic+"-0") {
			w.Errorf("%d records are equal, %s", got.Equal, got.Why)
		}
	})
}

func TestACursorThatClaimsMoreThanThereIs(t *testing.T) {
	inBubble(t, [2]int32{1, 1}, func(w *world) {
		w.both(upTo(0, 100)...)
		w.write("A", topic, upTo(100, 120)...)
		got := w.compare(w.Context())[0]
		w.wants(got, verify.Equal, verify.Counts{Equal: 100, Behind: 20})
		if len(got.Notes) != 1 || !strings.Contains(got.Notes[0], "no cursor says how far") {
			w.Errorf("behind, by no cursor: notes %q", got.Notes)
		}
		tp := kafka.TopicPartition{Topic: topic}
		w.options.Claims = map[kafka.TopicPartition]verify.Claim{tp: {Offset: 105}}
		got = w.compare(w.Context())[0]
		w.wants(got, verify.Different, verify.Counts{Equal: 100, Missing: 5, Behind: 15})
		if got.First == nil || got.First.Kind != verify.Missing || got.First.Source.Offset != 100 || !strings.HasPrefix(*got.First.Source.Value, `"100 xxx`) {
			w.Errorf("first difference %+v", got.First)
		}
		if len(got.Notes) != 0 {
			w.Errorf("behind, by the cursor: notes %q", got.Notes)
		}
		w.options.Claims[tp] = verify.Claim{Offset: 105, SourceTopicID: "of its predecessor"}
		got = w.compare(w.Context())[0]
		w.wants(got, verify.Equal, verify.Counts{Equal: 100, Behind: 20})
		if len(got.Notes) != 1 {
			w.Errorf("notes %q", got.Notes)
		}
	})
}

func TestSince(t *testing.T) {
	inBubble(t, [2]int32{1, 1}, func(w *world) {
		w.write("B", "A."+topic, 5) // in the wrong place, and too old to be looked at
		w.both(upTo(0, 3000)...)
		w.options.Since = 1_000_000 + 1000
		w.wants(w.compare(w.Context())[0], verify.Equal, verify.Counts{Equal: 2000})
		w.options.Since = 2_000_000
		w.wants(w.compare(w.Context())[0], verify.Equal, verify.Counts{})
		w.options.Since = 0
		w.wants(w.compare(w.Context())[0], verify.Different, verify.Counts{Equal: 3000, Extra: 1})
	})
}

func TestPartitionsThatOneSideLacks(t *testing.T) {
	inBubble(t, [2]int32{2, 1}, func(w *world) {
		w.both(upTo(0, 10)...)
		got := w.compare(w.Context())
		w.wants(got[0], verify.Equal, verify.Counts{Equal: 10})
		w.wants(got[1], verify.Equal, verify.Counts{}) // nothing to copy there
	})
	inBubble(t, [2]int32{1, 2}, func(w *world) {
		w.both(upTo(0, 10)...)
		client, err := w.env.Client("B", kgo.RecordPartitioner(kgo.ManualPartitioner()))
		if err != nil {
			w.Fatal(err)
		}
		defer client.Close()
		if err := client.ProduceSync(w.Context(), &kgo.Record{Topic: "A." + topic, Partition: 1, Value: []byte("x")}).FirstErr(); err != nil {
			w.Fatal(err)
		}
		w.wants(w.compare(w.Context())[1], verify.Different, verify.Counts{Extra: 1})
	})
}

func TestNothingToCompare(t *testing.T) {
	inBubble(t, [2]int32{1, 1}, func(w *world) {
		w.both(upTo(0, 10)...)
		w.deleteBefore("A", topic, 10)
		got := w.compare(w.Context())[0]
		w.wants(got, verify.NotComparable, verify.Counts{ExpiredSource: 10})
		w.deleteBefore("B", "A."+topic, 10)
		w.wants(w.compare(w.Context())[0], verify.Equal, verify.Counts{})
		w.options.Topics, _ = spec.ParsePatterns("order")
		if _, err := verify.Compare(w.Context(), w.options); !errors.Is(err, verify.ErrNoTopic) || !strings.Contains(err.Error(), "orders") {
			w.Errorf("a pattern for a part of a name: %v", err)
		}
	})
}

// A report that compared nothing proves nothing, unless another flow's part does.
// A topic that is not copied on purpose is listed, and compared only where it was copied once.
func TestTopicsThatAreNotCopied(t *testing.T) {
	inBubble(t, [2]int32{1, 1}, func(w *world) {
		w.both(upTo(0, 10)...)
		w.options.Except = map[string]string{topic: "it comes back"}
		if _, err := verify.Compare(w.Context(), w.options); !errors.Is(err, verify.ErrNoTopic) {
			t.Errorf("nothing else is there to compare: %v", err)
		}
		w.options.Claims = map[kafka.TopicPartition]verify.Claim{{Topic: topic}: {Offset: 10}}
		r, err := verify.Compare(w.Context(), w.options)
		if err != nil || len(r.Partitions) != 1 || r.Verdict != verify.Equal || r.NotCopied[topic] == "" {
			t.Errorf("a copy that there was once: %+v, %v", r, err)
		}
		var text strings.Builder
		all := verify.Report{}
		all.Add(r)
		if err := all.Table(&text); err != nil || !strings.Contains(text.String(), `"orders" is not copied: it comes back`) {
			t.Errorf("%v\n%s", err, &text)
		}
	})
}

func TestAReportWithoutAnEqualRecord(t *testing.T) {
	t.Parallel()
	var r verify.Report
	r.Add(verify.FlowReport{Verdict: verify.Equal, Partitions: []verify.PartitionReport{{Verdict: verify.Equal}}})
	if r.Verdict != verify.NotComparable || r.Why == "" {
		t.Errorf("nothing was compared: %s %q", r.Verdict, r.Why)
	}
	r.Add(verify.FlowReport{Verdict: verify.Equal, Partitions: []verify.PartitionReport{{Verdict: verify.Equal, Counts: verify.Counts{Equal: 1}}}})
	if r.Verdict != verify.Equal || r.Why != "" {
		t.Errorf("and then a record: %s %q", r.Verdict, r.Why)
	}
}

// A cluster that does not describe a topic has not said that it has no partitions.
func TestATopicThatIsNotDescribed(t *testing.T) {
	for _, side := range []string{"A", "B"} {
		inBubble(t, [2]int32{1, 1}, func(w *world) {
			w.both(upTo(0, 10)...)
			w.refusesToDescribe(side)
			got := w.compare(w.Context())
			if len(got) != 1 {
				w.Fatalf("%s: %d partitions", side, len(got))
			}
			w.wants(got[0], verify.NotComparable, verify.Counts{})
			if !strings.Contains(got[0].Why, "TOPIC_AUTHORIZATION_FAILED") {
				w.Errorf("%s: %s", side, got[0].Why)
			}
		})
	}
}

// refusesToDescribe has a cluster answer that nobody may describe its topic.
func (w *world) refusesToDescribe(alias string) {
	name := topic
	if alias == "B" {
		name = "A." + topic
	}
	host, port, err := net.SplitHostPort(w.env.Spec(alias).BootstrapServers[0])
	if err != nil {
		w.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		w.Fatal(err)
	}
	fake := w.env.Kafka(alias)
	fake.ControlKey(int16(kmsg.Metadata), func(req kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		r := req.ResponseKind().(*kmsg.MetadataResponse)
		r.Brokers = []kmsg.MetadataResponseBroker{{NodeID: 0, Host: host, Port: int32(number)}}
		r.Topics = []kmsg.MetadataResponseTopic{{Topic: &name, ErrorCode: kerr.TopicAuthorizationFailed.Code}}
		return r, nil, true
	})
}

// Nobody knows whether the copy is compacted: what compaction would explain is not called equal, and all else still is.
func TestSettingsThatCannotBeRead(t *testing.T) {
	inBubble(t, [2]int32{1, 1}, func(w *world) {
		fake := w.env.Kafka("B")
		fake.ControlKey(int16(kmsg.DescribeConfigs), func(req kmsg.Request) (kmsg.Response, error, bool) {
			fake.KeepControl()
			r := req.ResponseKind().(*kmsg.DescribeConfigsResponse)
			for _, asked := range req.(*kmsg.DescribeConfigsRequest).Resources {
				r.Resources = append(r.Resources, kmsg.DescribeConfigsResponseResource{
					ErrorCode: kerr.TopicAuthorizationFailed.Code, ResourceType: asked.ResourceType, ResourceName: asked.ResourceName,
				})
			}
			return r, nil, true
		})
		w.both(upTo(0, 10)...)
		w.wants(w.compare(w.Context())[0], verify.Equal, verify.Counts{Equal: 10})
		w.write("A", topic, 10) // its key comes again
		w.both(upTo(11, 30)...)
		got := w.compare(w.Context())[0]
		w.wants(got, verify.NotComparable, verify.Counts{Equal: 29, Compacted: 1})
		if !strings.Contains(got.Why, "settings can't be read") || len(got.Notes) != 1 {
			w.Errorf("%s, notes %q", got.Why, got.Notes)
		}
	})
}

// compacts makes the copy a compacted topic.
func (w *world) compacts() {
	w.Helper()
	client, err := w.env.Client("B")
	if err != nil {
		w.Fatal(err)
	}
	defer client.Close()
	compact := "compact"
	policy := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "cleanup.policy", Value: &compact}}
	if _, err := kadm.NewClient(client).AlterTopicConfigs(w.Context(), policy, "A."+topic); err != nil {
		w.Fatal(err)
	}
}

// delete appends tombstones of keys to partition 0 of the source.
func (w *world) delete(keys ...int) {
	w.Helper()
	client, err := w.env.Client("A", kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MaxBufferedRecords(len(keys)+1))
	if err != nil {
		w.Fatal(err)
	}
	defer client.Close()
	var records []*kgo.Record
	for _, key := range keys {
		records = append(records, &kgo.Record{Key: fmt.Append(nil, key), Timestamp: time.UnixMilli(1_100_000)})
	}
	if err := client.ProduceSync(w.Context(), records...).FirstErr(); err != nil {
		w.Fatal(err)
	}
}

// A compacted copy may lack a tombstone, unless the key is alive there: then the tombstone was lost.
func TestALostTombstone(t *testing.T) {
	inBubble(t, [2]int32{1, 1}, func(w *world) {
		w.compacts()
		w.both(1, 2, 3)
		w.delete(2, 77) // 77 has never been on the target
		w.both(200_004)
		got := w.compare(w.Context())[0]
		w.wants(got, verify.Different, verify.Counts{Equal: 4, Missing: 1, Compacted: 1})
		if got.First == nil || got.First.Source == nil || got.First.Source.Offset != 3 || got.First.Source.Value != nil {
			w.Errorf("first difference %+v", got.First)
		}
		// What is live there is older than what is compared.
		w.options.Since = 1_100_000
		w.wants(w.compare(w.Context())[0], verify.Different, verify.Counts{Equal: 1, Missing: 1, Compacted: 1})
		w.both(200_012) // and now key 2 has a later value on both sides
		w.wants(w.compare(w.Context())[0], verify.Equal, verify.Counts{Equal: 2, Compacted: 2})
	})
}

// More keys than there is room for: those that were decided are equal, and that is not enough.
func TestTooManyKeys(t *testing.T) {
	inBubble(t, [2]int32{1, 1}, func(w *world) {
		const room, more = 1 << 17, 1000
		w.compacts()
		w.both(1)
		w.delete(upTo(100, 100+room+more)...)
		w.both(200_000)
		got := w.compare(w.Context())[0]
		w.wants(got, verify.NotComparable, verify.Counts{Equal: 2, Compacted: room, Uncompared: more})
		if !strings.Contains(got.Why, "more than 131072 keys") {
			w.Errorf("%s", got.Why)
		}
	})
}

// A record that is written and copied between the two questions for the ends lies behind the target's, never behind the source's.
func TestTheTargetsEndIsAskedFirst(t *testing.T) {
	inBubble(t, [2]int32{1, 1}, func(w *world) {
		w.both(upTo(0, 10)...)
		first := "" // cluster that was asked
		for _, alias := range []string{"A", "B"} {
			fake := w.env.Kafka(alias)
			fake.ControlKey(int16(kmsg.ListOffsets), func(kmsg.Request) (kmsg.Response, error, bool) {
				if first == "" || first == alias {
					first = alias
					fake.KeepControl()
					return nil, nil, false
				}
				fake.SleepControl(func() { w.both(10) })
				return nil, nil, false
			})
		}
		w.wants(w.compare(w.Context())[0], verify.Equal, verify.Counts{Equal: 10, Behind: 1})
	})
}

// Two logs that share their timestamps but nothing else, of more records than are looked ahead.
func TestAnotherTopicAltogether(t *testing.T) {
	inBubble(t, [2]int32{1, 1}, func(w *world) {
		const records = verify.Lookahead + 1000
		w.write("A", topic, upTo(0, records)...)
		var others []int
		for n := range records {
			others = append(others, n+1_000_000)
		}
		w.write("B", "A."+topic, others...)
		got := w.compare(w.Context())[0]
		if got.Verdict != verify.Different || got.Equal != 0 || !slices.Equal(got.Ranges, []verify.Range{}) {
			w.Errorf("%s %+v", got.Verdict, got.Counts)
		}
	})
}
