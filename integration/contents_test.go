package integration

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kferry/kferry/integration/testbed"
)

// Everything that a topic can hold, through the cheapest way that is right.

const unlimited = "9223372036854775807"

// directions are pairs of versions in which each is source and target once.
var directions = []struct{ source, target string }{{testbed.V43, testbed.V33}, {testbed.V33, testbed.V43}}

// putter writes single batches to one topic.
type putter struct {
	t      *testing.T
	client *kgo.Client
	topic  string
	queued *queued
}

// queued counts records that have a place in a batch, or failed before.
type queued struct{ atomic.Int64 }

func (q *queued) OnProduceRecordPartitioned(*kgo.Record, int32) { q.Add(1) }
func (q *queued) OnProduceRecordUnbuffered(*kgo.Record, error)  { q.Add(1) }

func putting(t *testing.T, c *testbed.Cluster, topic string, opts ...kgo.Opt) putter {
	t.Helper()
	q := new(queued)
	return putter{t, c.Client(append([]kgo.Opt{
		kgo.WithHooks(q), kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ManualFlushing(),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerBatchMaxBytes(64 << 20), kgo.MaxBufferedBytes(128 << 20),
	}, opts...)...), topic, q}
}

// batch writes records as one batch.
func (p putter) batch(records ...*kgo.Record) {
	p.t.Helper()
	p.queued.Store(0)
	var failed kgo.FirstErrPromise
	for _, r := range records {
		p.client.Produce(p.t.Context(), r, failed.Promise())
	}
	// Those that still wait to hear of the topic would be flushed as they come.
	testbed.Eventually(p.t, soon, "the records to have a place in a batch", func() bool { return p.queued.Load() >= int64(len(records)) })
	if err := p.client.Flush(p.t.Context()); err != nil {
		p.t.Fatalf("write to %s: %v", p.topic, err)
	}
	if err := failed.Err(); err != nil {
		p.t.Fatalf("write to %s: %v", p.topic, err)
	}
}

// numbered are records with values of their own.
func numbered(first, n int) (records []*kgo.Record) {
	for i := first; i < first+n; i++ {
		records = append(records, kgo.KeySliceRecord(fmt.Append(nil, "key ", i), fmt.Append(nil, "value ", i)))
	}
	return records
}

// idle waits until all partitions of topics are examined up to their ends.
func (k *installation) idle(topics ...string) {
	k.t.Helper()
	last := status{}
	defer func() {
		if k.t.Failed() {
			k.t.Log(last)
		}
	}()
	testbed.Eventually(k.t, copyWithin, fmt.Sprintf("%v to be idle", topics), func() bool {
		last = k.status()
		for _, topic := range topics {
			all := last.partitions(topic)
			if len(all) == 0 || slices.ContainsFunc(all, func(p partition) bool { return p.State != "idle" }) {
				return false
			}
		}
		return true
	})
}

// ways runs kferry until topics are copied and returns how many batches went which way.
func (k *installation) ways(topics ...string) map[string]int {
	k.t.Helper()
	run := k.start("run")
	k.idle(topics...)
	ways := map[string]int{}
	for series, n := range metrics(k.t, run) {
		if _, how, is := strings.Cut(series, `kferry_batches_total{flow="`+k.alias+`->central",how="`); is {
			ways[strings.TrimSuffix(how, `"}`)] = int(n)
		}
	}
	k.stop(run)
	k.t.Logf("batches: %v", ways)
	return ways
}

// passed fails the test unless the copy's batches are the source's, compressed bytes and all. It returns how many.
func (k *installation) passed(topic string) int {
	k.t.Helper()
	want, got := testbed.Batches(k.t, k.source, topic, 0), testbed.Batches(k.t, k.target, k.copyOf(topic), 0)
	if len(want) != len(got) {
		k.t.Fatalf("%s: %d batches became %d", topic, len(want), len(got))
	}
	for i := range want {
		if want[i].Payload != got[i].Payload || want[i].Codec != got[i].Codec {
			k.t.Fatalf("%s: the batch at offset %d was unpacked: %d bytes became %d", topic, want[i].Base, want[i].Bytes, got[i].Bytes)
		}
	}
	return len(want)
}

// Every codec, in batches of one record and of a megabyte; everything that a record may lack or have twice; every time that a record
// may bear.
func TestRecordsOfEveryShape(t *testing.T) {
	for _, d := range directions {
		t.Run(d.source+" to "+d.target, func(t *testing.T) {
			source, target := testbed.Shared(t, d.source), testbed.Shared(t, d.target)
			k := copying(t, source, target, "shape-.*")
			var topics []string
			for i, codec := range codecs {
				topic := fmt.Sprint("shape-codec-", i)
				source.CreateTopic(topic, 1, 1)
				ones := putting(t, source, topic, kgo.ProducerBatchCompression(codec))
				for n := range 20 {
					one := numbered(n, 1)
					one[0].Headers = []kgo.RecordHeader{compressible}
					ones.batch(one...)
				}
				testbed.Produce(t, source, topic, testbed.Load{Records: 250, First: 1000, ValueBytes: 10_000, Codec: codec, BatchBytes: 1 << 20})
				topics = append(topics, topic)
			}
			topics = append(topics, shapes(t, source),
				stamps(t, source, d.source, "shape-times", kgo.SnappyCompression()), stamps(t, source, d.source, "shape-times-plain", kgo.NoCompression()))
			ways := k.ways(topics...)
			k.compare(topics...)

			passed := 0
			for _, topic := range topics[1:5] {
				passed += k.passed(topic)
			}
			plain := testbed.Batches(t, target, k.copyOf(topics[0]), 0)
			if plain[0].Records != 20 {
				t.Errorf("20 small uncompressed batches were not merged: the first of the copy has %d records", plain[0].Records)
			}
			passed += len(plain) - 1 + k.passed(topics[5]) + k.passed(topics[6])
			if ways["passed"] != passed || ways["small"] != 2 || len(ways) != 2 {
				t.Errorf("batches went %v, want %d passed and 2 small", ways, passed)
			}
		})
	}
}

// shapes is a topic of records that lack something or have it twice. They are compressed, and so pass as they are.
func shapes(t *testing.T, c *testbed.Cluster) string {
	t.Helper()
	const topic = "shape-records"
	c.CreateTopic(topic, 1, 1)
	p := putting(t, c, topic, kgo.ProducerBatchCompression(kgo.GzipCompression()))
	header := func(key string, value []byte) kgo.RecordHeader { return kgo.RecordHeader{Key: key, Value: value} }
	p.batch(
		&kgo.Record{Value: []byte("no key")},
		&kgo.Record{Key: []byte{}, Value: []byte("empty key")},
		&kgo.Record{Key: []byte("no value")},
		&kgo.Record{Key: []byte("empty value"), Value: []byte{}},
		&kgo.Record{},
		&kgo.Record{Value: []byte("empty headers"), Headers: []kgo.RecordHeader{header("", []byte{}), header("a", []byte{})}},
		&kgo.Record{Value: []byte("null headers"), Headers: []kgo.RecordHeader{header("", nil), header("a", nil)}},
		&kgo.Record{Value: []byte("double headers"), Headers: []kgo.RecordHeader{header("a", []byte("2")), header("a", []byte("1")), header("a", []byte("2"))}},
		&kgo.Record{Value: []byte("large header"), Headers: []kgo.RecordHeader{header(strings.Repeat("k", 5000), bytes.Repeat([]byte("v"), 50_000))}},
		&kgo.Record{Value: []byte("\x00\xff not text \xfe")},
	)
	testbed.Produce(t, c, topic, testbed.Load{Records: 300, First: 5000, Codec: kgo.Lz4Compression()})
	return topic
}

// compressible makes a record worth compressing: a producer leaves alone what would only grow.
var compressible = kgo.RecordHeader{Key: "padding", Value: bytes.Repeat([]byte("."), 500)}

// times is a topic of records from the beginning of time to its end, in no order.
func stamps(t *testing.T, c *testbed.Cluster, version, topic string, codec kgo.CompressionCodec) string {
	t.Helper()
	if version == testbed.V33 {
		c.CreateTopic(topic, 1, 1) // takes any time
	} else {
		c.CreateTopic(topic, 1, 1, "message.timestamp.after.max.ms", unlimited)
	}
	p := putting(t, c, topic, kgo.ProducerBatchCompression(codec))
	far := time.Date(2250, 1, 1, 0, 0, 0, 0, time.UTC)
	all := []time.Time{time.UnixMilli(-1), time.UnixMilli(0), time.UnixMilli(1), time.Now(), time.Now().Add(90 * time.Minute), far}
	number := 0
	record := func(at time.Time) *kgo.Record {
		number++
		return &kgo.Record{Value: fmt.Append(nil, "time ", number), Timestamp: at.Truncate(time.Millisecond), Headers: []kgo.RecordHeader{compressible}}
	}
	for _, at := range all { // each alone, so that a batch's times are all of that kind
		p.batch(record(at))
	}
	var mixed []*kgo.Record
	for range 3 {
		for _, i := range []int{3, 5, 0, 4, 2, 1} {
			mixed = append(mixed, record(all[i]))
		}
	}
	p.batch(mixed...)
	return topic
}

// A record's time may be the producer's or the broker's, on either side.
func TestTimestampTypes(t *testing.T) {
	const stamped = "LogAppendTime"
	for _, d := range directions {
		t.Run(d.source+" to "+d.target, func(t *testing.T) {
			source, target := testbed.Shared(t, d.source), testbed.Shared(t, d.target)
			k := copying(t, source, target, "stamp-.*")
			next := 0
			topics := []string{"stamp-not-any", "stamp-source", "stamp-target", "stamp-both"}
			for i, topic := range topics {
				types := []string{"CreateTime", stamped}
				source.CreateTopic(topic, 1, 1, "message.timestamp.type", types[i&1])
				target.CreateTopic(k.copyOf(topic), 1, 1, "message.timestamp.type", types[i>>1])
				small := putting(t, source, topic)
				for range 20 { // the times of their own are another day's, and must not come back
					records := numbered(next, 2)
					for _, r := range records {
						r.Timestamp = time.Now().Add(-24 * time.Hour).Truncate(time.Millisecond)
					}
					small.batch(records...)
					next += 2
				}
				next = testbed.Produce(t, source, topic, testbed.Load{Records: 400, First: next, ValueBytes: 500, Codec: kgo.Lz4Compression(), BatchBytes: 25_000})
			}
			began := time.Now().Add(-time.Hour / 2)
			ways := k.ways(topics...)
			testbed.Compare(t, source, topics[0], target, k.copyOf(topics[0]))
			testbed.Compare(t, source, topics[1], target, k.copyOf(topics[1]), testbed.TimestampType)
			testbed.Compare(t, source, topics[2], target, k.copyOf(topics[2]), testbed.Timestamps)
			testbed.Compare(t, source, topics[3], target, k.copyOf(topics[3]), testbed.Timestamps)
			anew := 0
			for i, topic := range topics {
				was, is := testbed.Batches(t, source, topic, 0), testbed.Batches(t, target, k.copyOf(topic), 0)
				if is[0].Records != 40 {
					t.Errorf("%s: 20 small batches were not merged: the copy's first has %d records", topic, is[0].Records)
				}
				for j, b := range is[1:] {
					whole := b.Payload == was[20+j].Payload
					if unpacked := i == 1; whole == unpacked || b.Codec != was[20+j].Codec {
						t.Errorf("%s: batch %d passed as it was: %v", topic, j, whole)
					}
					if i == 1 {
						anew++
					}
				}
				for _, r := range testbed.Read(t, target, k.copyOf(topic), testbed.Committed)[0] {
					if i > 0 && r.Timestamp.Before(began) {
						t.Fatalf("%s: the record at %d is of %v, which its source had overwritten", topic, r.Offset, r.Timestamp)
					}
				}
			}
			if ways["log-append-time"] != anew || ways["small"] != 4 || len(ways) != 3 {
				t.Errorf("batches went %v, want 4 small, %d log-append-time and the others passed", ways, anew)
			}
		})
	}
}

// A target that compresses by itself does so; all that changes is its own. One that does not may find a batch too large that was not:
// the batch is split.
func TestTargetCompressesByItself(t *testing.T) {
	source, target := testbed.Shared(t, testbed.V43), testbed.Shared(t, testbed.V43)
	k := copying(t, source, target, "compresses-.*")
	var topics []string
	for _, compression := range []string{"zstd", "uncompressed", "gzip"} {
		topic := "compresses-" + compression
		source.CreateTopic(topic, 1, 1)
		target.CreateTopic(k.copyOf(topic), 1, 1, "compression.type", compression)
		everyCodec(t, source, topic, 400)
		topics = append(topics, topic)
	}
	const beyond = "compresses-beyond"
	source.CreateTopic(beyond, 1, 1)
	target.CreateTopic(k.copyOf(beyond), 1, 1, "compression.type", "uncompressed", "max.message.bytes", "100000")
	testbed.Produce(t, source, beyond, testbed.Load{Records: 800, ValueBytes: 1000, Codec: kgo.GzipCompression(), BatchBytes: 180_000})
	ways := k.ways(append(topics, beyond)...)
	k.compare(append(topics, beyond)...)
	for i, codec := range []kgo.CompressionCodecType{kgo.CodecZstd, kgo.CodecNone, kgo.CodecGzip} {
		for _, b := range testbed.Batches(t, target, k.copyOf(topics[i]), 0) {
			if b.Codec != codec {
				t.Errorf("%s: a batch of codec %d", topics[i], b.Codec)
			}
		}
	}
	if ways["passed"] < 4*len(topics) || ways["too-large"] < 8 {
		t.Errorf("batches went %v, want those that fit passed and the others split", ways)
	}
	for _, p := range k.status().Flows[0].Partitions {
		if p.ExactlyOnce == nil || !*p.ExactlyOnce {
			t.Errorf("not exactly once: %+v", p)
		}
	}
}

// What the source's brokers take by their own settings, the copy takes too: records of 10 MB, and of any time. They pass, and are written
// anew, with the memory that kferry has by default.
func TestLimitsOfTheSourcesBrokers(t *testing.T) {
	t.Parallel()
	record, limit := 10_000_000, 12_000_000
	if long() {
		record, limit = 40_000_000, 45_000_000
	}
	source, target := testbed.Kafka(t, testbed.V43,
		testbed.WithConfig("message.max.bytes", strconv.Itoa(limit)),
		testbed.WithConfig("log.message.timestamp.after.max.ms", unlimited)), testbed.Shared(t, testbed.V43)
	const topic, anew = "limits", "limits-anew"
	source.CreateTopic(topic, 2, 1)
	source.CreateTopic(anew, 1, 1, "message.timestamp.type", "LogAppendTime")
	random := rand.New(rand.NewPCG(1, 2))
	for n, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.ZstdCompression(), kgo.NoCompression()} {
		p := putting(t, source, topic, kgo.ProducerBatchCompression(codec))
		for partition := range int32(2) {
			value := noise(random, record)
			copy(value, fmt.Sprintf("large %d of partition %d ", n, partition)) // what the oracle shows of it
			p.batch(&kgo.Record{Partition: partition, Value: value, Timestamp: time.Now().Add(48 * time.Hour).Truncate(time.Millisecond)})
		}
		putting(t, source, anew, kgo.ProducerBatchCompression(codec)).batch(kgo.KeySliceRecord(fmt.Append(nil, n), noise(random, record)))
	}
	testbed.Produce(t, source, topic, testbed.Load{Records: 100})
	k := copying(t, source, target, "limits.*")
	ways := k.ways(topic, anew)
	k.compare(topic)
	testbed.Compare(t, source, anew, target, k.copyOf(anew), testbed.TimestampType)
	if ways["passed"] < 6 || ways["log-append-time"] != 3 || ways["too-large"] > 0 {
		t.Errorf("batches went %v, want 6 large ones passed and 3 for their times written anew", ways)
	}
	config := topicConfig(t, target, k.copyOf(topic))
	if config["max.message.bytes"] != strconv.Itoa(limit) || config["message.timestamp.after.max.ms"] != unlimited || config["message.timestamp.before.max.ms"] != unlimited {
		t.Errorf("the copy takes %s bytes, %s ms ahead, %s ms behind", config["max.message.bytes"], config["message.timestamp.after.max.ms"], config["message.timestamp.before.max.ms"])
	}
}

// noise is bytes that no codec makes fewer.
func noise(random *rand.Rand, n int) []byte {
	value := make([]byte, 0, n+8)
	for len(value) < n {
		value = binary.LittleEndian.AppendUint64(value, random.Uint64())
	}
	return value[:n]
}

// compacting are brokers whose cleaner hardly ever rests.
func compacting(t *testing.T, version string) *testbed.Cluster {
	t.Helper()
	return testbed.Kafka(t, version, testbed.WithConfig("log.cleaner.backoff.ms", "100"))
}

// busy makes the cleaner work on a topic at once.
var busy = []string{"min.cleanable.dirty.ratio", "0.01", "segment.ms", "300", "max.compaction.lag.ms", "1000", "delete.retention.ms", "0"}

// What compaction has left of a topic, while it goes on, and where the copy is compacted as well.
func TestCompactedTopics(t *testing.T) {
	t.Parallel()
	brokers := map[string]*testbed.Cluster{testbed.V43: compacting(t, testbed.V43), testbed.V33: compacting(t, testbed.V33)}
	for _, d := range directions {
		t.Run(d.source+" to "+d.target, func(t *testing.T) {
			source, target := brokers[d.source].For(t), brokers[d.target].For(t)
			k := copying(t, source, target, "compacted-.*").with("KFERRY_SYNC_TOPIC_CONFIGS", "false")
			still, headless, moving := "compacted-still", "compacted-headless", "compacted-moving"
			source.CreateTopic(still, 1, 1, append(busy, "cleanup.policy", "compact")...)
			source.CreateTopic(headless, 1, 1, append(busy, "cleanup.policy", "compact,delete", "retention.ms", "-1")...)
			source.CreateTopic(moving, 2, 1, append(busy, "cleanup.policy", "compact")...)
			for _, topic := range []string{still, headless} { // their copies keep everything that arrives
				target.CreateTopic(k.copyOf(topic), 1, 1, "cleanup.policy", "compact", "min.compaction.lag.ms", unlimited)
			}
			fill(t, source, still)
			fill(t, source, headless)
			awaitCleaner(t, source, still)
			awaitCleaner(t, source, headless)
			deleteInside(t, source, headless)

			churn := churning(t, source, moving)
			run := k.start("run")
			k.idle(still, headless)
			testbed.Eventually(t, copyWithin, "both cleaners to work on what is being copied", func() bool {
				return compacted(t, source, moving) > 100 && compacted(t, target, k.copyOf(moving)) > 100
			})
			churn()
			k.idle(still, headless, moving)
			got := metrics(t, run)
			k.stop(run)
			testbed.CompareCompacted(t, source, still, target, k.copyOf(still))
			testbed.CompareCompacted(t, source, headless, target, k.copyOf(headless))
			testbed.CompareState(t, source, moving, target, k.copyOf(moving))
			for _, how := range []string{"holes", "small"} {
				if got[fmt.Sprintf(`kferry_batches_total{flow="%s->central",how="%s"}`, k.alias, how)] == 0 {
					t.Errorf("no batch went by %s", how)
				}
			}
			for _, p := range k.status().partitions(still) {
				if p.ExactlyOnce == nil || !*p.ExactlyOnce || p.Offsets != "mapped" {
					t.Errorf("status of a compacted topic: %+v", p)
				}
			}
			if got := topicConfig(t, target, k.copyOf(moving))["cleanup.policy"]; got != "compact" {
				t.Errorf("the copy's cleanup.policy is %s", got)
			}
			t.Logf("%d offsets of partition 0 went on the source meanwhile, %d on the target", compacted(t, source, moving), compacted(t, target, k.copyOf(moving)))
		})
	}
}

// compacted is how many offsets of partition 0 have no record (any more).
func compacted(t *testing.T, c *testbed.Cluster, topic string) int {
	t.Helper()
	if len(c.Topics(topic)) == 0 {
		return 0
	}
	batches, records := testbed.Batches(t, c, topic, 0), 0
	if len(batches) == 0 {
		return 0
	}
	for _, b := range batches {
		records += b.Records
	}
	return int(batches[len(batches)-1].Last) + 1 - records
}

// fill writes batches of every codec of which compaction leaves some whole, some with holes, some empty, and some not at all.
func fill(t *testing.T, c *testbed.Cluster, topic string) {
	t.Helper()
	number := 0
	record := func(key string, tombstone bool) *kgo.Record {
		number++
		r := kgo.KeySliceRecord([]byte(key), fmt.Append(nil, "value ", number))
		if tombstone {
			r.Value = nil
		}
		return r
	}
	for round, codec := range codecs {
		p := putting(t, c, topic, kgo.ProducerBatchCompression(codec))
		var holes, gone, once, large []*kgo.Record
		for i := range 30 {
			key := fmt.Sprint("often ", i)
			if i%3 == 0 {
				key = fmt.Sprint("once ", round, " ", i)
			}
			holes = append(holes, record(key, i%10 == 1))
			gone = append(gone, record(fmt.Sprint("often ", i), false))
			once = append(once, record(fmt.Sprint("only ", round, " ", i), false))
			large = append(large, record(fmt.Sprint("large ", i%20), false))
			large[i].Value = append(large[i].Value, bytes.Repeat([]byte{' '}, 2000)...)
		}
		p.batch(holes...)
		p.batch(gone...)
		p.batch(once...)
		p.batch(large...)    // above what is merged
		p.batch(gone[:5]...) // a producer's last batch stays, though empty
	}
}

// awaitCleaner waits until all that compaction can leave is there.
func awaitCleaner(t *testing.T, c *testbed.Cluster, topic string) {
	t.Helper()
	p := putting(t, c, topic)
	var holes, empty, gaps, tombstones int
	n := 0
	testbed.Eventually(t, 2*time.Minute, "the cleaner to work on "+topic, func() bool {
		p.batch(kgo.KeySliceRecord([]byte("roll"), fmt.Append(nil, "the segment ", n)))
		n++
		holes, empty, gaps, tombstones = 0, 0, 0, 0
		next := int64(0)
		for _, b := range testbed.Batches(t, c, topic, 0) {
			switch {
			case b.Records == 0:
				empty++
			case b.Holes() > 0:
				holes++
			}
			if b.Base > next {
				gaps++
			}
			next = b.Last + 1
		}
		for _, r := range testbed.Read(t, c, topic, testbed.Committed)[0] {
			if r.Value == nil {
				tombstones++
			}
		}
		return holes > 2 && empty > 0 && gaps > 0 && tombstones == 0
	})
	t.Logf("%s has %d batches with holes, %d empty ones, %d gaps between them, and no tombstone any more", topic, holes, empty, gaps)
}

// deleteInside deletes the head of a log up to amid a batch.
func deleteInside(t *testing.T, c *testbed.Cluster, topic string) {
	t.Helper()
	for _, b := range testbed.Batches(t, c, topic, 0) {
		if b.Records > 3 {
			deleteBefore(t, c, topic, b.Base+(b.Last-b.Base)/2)
			return
		}
	}
	t.Fatalf("%s has no batch to delete a part of", topic)
}

func deleteBefore(t *testing.T, c *testbed.Cluster, topic string, offset int64) {
	t.Helper()
	var offsets kadm.Offsets
	offsets.AddOffset(topic, 0, offset, -1)
	answers, err := c.Admin().DeleteRecords(t.Context(), offsets)
	if err == nil {
		err = answers.Error()
	}
	if err != nil {
		t.Fatalf("delete records of %s before %d: %v", topic, offset, err)
	}
}

// churning writes the same keys again and again, until the function it returns is called.
func churning(t *testing.T, c *testbed.Cluster, topic string) (stop func()) {
	t.Helper()
	p := putting(t, c, topic)
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n += 20 {
			select {
			case <-ended:
				return
			case <-t.Context().Done():
				return
			case <-time.After(20 * time.Millisecond):
			}
			for i := n; i < n+20; i++ {
				r := kgo.KeySliceRecord(fmt.Append(nil, "churn ", i%97), fmt.Append(nil, "value ", i))
				r.Partition = int32(i%97) % 2
				if i%11 == 0 {
					r.Value = nil
				}
				p.client.Produce(t.Context(), r, nil)
			}
			if err := p.client.Flush(t.Context()); err != nil {
				return // the test has ended, or says what it lacks
			}
		}
	}()
	return sync.OnceFunc(func() { close(ended); <-done })
}

// Aborted records are never copied, those of an open transaction wait, and whoever looks is told.
func TestTransactions(t *testing.T) {
	t.Parallel()
	for _, d := range directions {
		t.Run(d.source+" to "+d.target, func(t *testing.T) {
			source, target := testbed.Shared(t, d.source), testbed.Shared(t, d.target)
			many, woven, markers, aborted := "txn-many", "txn-woven", "txn-markers", "txn-aborted"
			source.CreateTopic(many, 2, 1)
			for _, topic := range []string{woven, markers, aborted} {
				source.CreateTopic(topic, 1, 1)
			}
			topics := []string{many, woven, markers, aborted}
			testbed.Produce(t, source, many, testbed.Load{Records: 3000, TxnRecords: 100, AbortEvery: 3, Codec: kgo.Lz4Compression()})
			testbed.Produce(t, source, aborted, testbed.Load{Records: 100, TxnRecords: 50, AbortEvery: 1})
			testbed.Produce(t, source, markers, testbed.Load{Records: 10, TxnRecords: 10})
			deleteBefore(t, source, markers, 10)
			visible, open, openedAt := weave(t, source, woven)

			k := copying(t, source, target, "txn-.*")
			ways := k.ways(topics...)
			k.compare(many, woven)
			for topic, want := range map[string]int{many: 2000, woven: visible, markers: 0, aborted: 0} {
				if got := testbed.Read(t, target, k.copyOf(topic), testbed.Uncommitted).Records(); got != want {
					t.Errorf("%s: %d records on the target, want the %d of committed transactions and nothing else", topic, got, want)
				}
			}
			s := k.status()
			for _, topic := range topics {
				for _, p := range s.partitions(topic) {
					if p.State != "idle" || p.LagRecords != 0 || (p.OpenTransaction != nil) != (topic == woven) {
						t.Errorf("status: %+v", p)
					}
				}
			}
			end := source.Ends(woven)[0]
			if o := s.partition(woven, 0).OpenTransaction; o == nil || o.LastStable != openedAt || o.LogEnd != end || o.Waiting != end-openedAt || o.ProducerID == nil || o.Since == nil {
				t.Errorf("status of the partition with an open transaction: %+v", o)
			}
			words := fmt.Sprintf("%d records behind an open transaction: last stable offset %d, log end %d", end-openedAt, openedAt, end)
			if table := k.command(0, "status"); !strings.Contains(table, words) {
				t.Errorf("status does not say %q:\n%s", words, table)
			}
			if ways["passed"] == 0 || ways["holes"]+ways["cut"] > 0 {
				t.Errorf("batches went %v", ways)
			}

			every := copying(t, source, target, "txn-.*").with("KFERRY_ISOLATION_LEVEL", "read_uncommitted",
				"KFERRY_SOURCE_ALIAS", "uncommitted-"+k.alias, "KFERRY_DATA", filepath.Join(t.TempDir(), "other"))
			every.alias = "uncommitted-" + k.alias
			every.catchUp()
			for topic, want := range map[string]int{many: 3000, aborted: 100} {
				if got := testbed.Read(t, target, every.copyOf(topic), testbed.Committed).Records(); got != want {
					t.Errorf("%s: read_uncommitted copied %d records, want all %d", topic, got, want)
				}
			}
			want, got := testbed.Read(t, source, woven, testbed.Uncommitted), testbed.Read(t, target, every.copyOf(woven), testbed.Committed)
			if d := testbed.Diff(want, got); !d.Exact() {
				t.Errorf("read_uncommitted copied what is woven with %v", d)
			}

			if err := open.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
				t.Fatal(err)
			}
			k.catchUp()
			k.compare(topics...)
		})
	}
}

// weave lets producers write between each other: two whose transactions commit, two whose transactions abort, one that has none, and one
// whose transaction stays open, from an offset on.
func weave(t *testing.T, c *testbed.Cluster, topic string) (visible int, open *kgo.Client, openedAt int64) {
	t.Helper()
	writer := func(id string) putter {
		if id == "" {
			return putting(t, c, topic)
		}
		p := putting(t, c, topic, kgo.TransactionalID(t.Name()+id))
		if err := p.client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		return p
	}
	end := func(p putter, how kgo.TransactionEndTry) {
		t.Helper()
		if err := p.client.EndTransaction(t.Context(), how); err != nil {
			t.Fatal(err)
		}
	}
	number := 0
	put := func(p putter, n int) (first int64) {
		t.Helper()
		records := numbered(number, n)
		p.batch(records...)
		number += n
		return records[0].Offset
	}
	for range 3 {
		first, second, wrong, worse, plain := writer("first"), writer("second"), writer("wrong"), writer("worse"), writer("")
		for range 4 {
			for i, p := range []putter{first, wrong, plain, second, worse} {
				put(p, i+1)
			}
		}
		end(wrong, kgo.TryAbort)
		end(second, kgo.TryCommit)
		end(worse, kgo.TryAbort)
		end(first, kgo.TryCommit)
		visible += 4 * (1 + 3 + 4)
		for _, p := range []putter{first, second, wrong, worse, plain} {
			p.client.Close()
		}
	}
	late := writer("open")
	openedAt = put(late, 2)
	put(writer(""), 5) // waits though nobody can take it back
	put(late, 1)
	admin := c.Admin()
	testbed.Eventually(t, soon, "the markers of the other transactions", func() bool {
		stable, err := admin.ListCommittedOffsets(t.Context(), topic)
		return err == nil && stable[topic][0].Offset == openedAt
	})
	return visible, late.client, openedAt
}

// A copy may begin amid a batch: at a time, or where the source's head was deleted.
func TestStartInsideABatch(t *testing.T) {
	source, target := testbed.Shared(t, testbed.V33), testbed.Shared(t, testbed.V43)
	const head, timed = "inside-head", "inside-timed"
	began := time.Now().Add(-time.Hour).Truncate(time.Second)
	for _, topic := range []string{head, timed} {
		source.CreateTopic(topic, 1, 1)
		p := putting(t, source, topic, kgo.ProducerBatchCompression(kgo.ZstdCompression()))
		for n := 0; n < 300; n += 100 {
			records := numbered(n, 100)
			for i, r := range records {
				r.Timestamp = began.Add(time.Duration(n+i) * time.Second)
			}
			p.batch(records...)
		}
	}
	deleteBefore(t, source, head, 130)
	k := copying(t, source, target, head)
	ways := k.ways(head)
	k.compare(head)
	if !maps.Equal(ways, map[string]int{"cut": 1, "passed": 1}) {
		t.Errorf("batches went %v, want one cut and one passed", ways)
	}
	if p := k.status().partition(head, 0); p.Offsets != "mapped" {
		t.Errorf("status of a copy without its source's head: %+v", p)
	}

	k = copying(t, source, target, timed).with("KFERRY_NAME", "timed", "KFERRY_START", began.Add(250*time.Second).UTC().Format(time.RFC3339))
	if ways := k.ways(timed); !maps.Equal(ways, map[string]int{"cut": 1}) {
		t.Errorf("batches went %v, want one cut", ways)
	}
	want := testbed.Read(t, source, timed, testbed.Committed)
	want[0] = want[0][250:]
	if d := testbed.Diff(want, testbed.Read(t, target, k.copyOf(timed), testbed.Committed)); !d.Exact() {
		t.Errorf("from second 250 on: %v", d)
	}
}

// Topics of one partition and of 500, without any record, and with every name that a broker takes.
func TestTopicsOfEverySizeAndName(t *testing.T) {
	source, target := testbed.Shared(t, testbed.V43), testbed.Shared(t, testbed.V43)
	k := copying(t, source, target, "size.*")
	longest := "size-" + strings.Repeat("n", 249-len(k.copyOf("size-")))
	tooLong := longest + "n"
	partitions := map[string]int{
		"size-1": 1, "size-7": 7, "size-500": 500, "size-empty": 3, longest: 1, tooLong: 1,
		"size.with.dots": 1, "size_with_underscores": 1, "size-With.all_OF-it.": 1,
	}
	for topic, n := range partitions {
		source.CreateTopic(topic, n, 1)
		if topic != "size-empty" {
			testbed.Produce(t, source, topic, testbed.Load{Records: max(50, 2*n), Codec: kgo.SnappyCompression()})
		}
	}
	// The name of a metric has one character for both of these.
	const dotted, underscored = "size.a.b_c", "size.a_b.c"
	source.CreateTopic(dotted, 1, 1)
	target.CreateTopic(k.copyOf(underscored), 1, 1)
	testbed.Produce(t, source, dotted, testbed.Load{Records: 10})

	began := time.Now()
	summary := k.command(1, "run", "--until-caught-up")
	t.Logf("took %v", time.Since(began).Round(100*time.Millisecond))
	for topic, words := range map[string][]string{
		tooLong: {k.copyOf(tooLong), strconv.Itoa(len(k.copyOf(tooLong))), "249", "shorten the alias", "exclude the topic"},
		dotted:  {k.copyOf(dotted), k.copyOf(underscored), "collides", "exclude the topic"},
	} {
		_, said, held := strings.Cut(summary, topic+"-0 is held (topic_name)")
		said, _, _ = strings.Cut(said, "\n")
		for _, word := range words {
			if !held || !strings.Contains(said, word) {
				t.Errorf("the summary does not say %q of %s:\n%s", word, topic, summary)
			}
		}
	}
	s := k.status()
	delete(partitions, tooLong)
	for topic, n := range partitions {
		want, got := testbed.Read(t, source, topic, testbed.Committed), testbed.Read(t, target, k.copyOf(topic), testbed.Committed)
		if d := testbed.Diff(want, got); !d.Exact() {
			t.Errorf("%s: %v", topic, d)
		}
		all := s.partitions(topic)
		if len(all) != n || len(target.Ends(k.copyOf(topic))) != n {
			t.Errorf("%s: status names %d partitions, the copy has %d, want %d", topic, len(all), len(target.Ends(k.copyOf(topic))), n)
		}
		for _, p := range all {
			if p.State != "idle" || p.LagRecords != 0 {
				t.Errorf("status: %v", p)
			}
		}
	}
}

// Two sources lead into one topic: neither is copied, and both say so.
func TestTwoSourcesOfOneName(t *testing.T) {
	w := newWorld(t, testbed.Shared(t, testbed.V43))
	w.dc1 = w.dc2
	w.dc1.CreateTopic("same-name", 1, 1)
	testbed.Produce(t, w.dc1, "same-name", testbed.Load{Records: 10})
	k := w.mirroring(t, "same-name", "same-name")
	const factor = "replication.factor: 1"
	text := strings.NewReplacer(
		", "+factor+",", ", "+factor+", "+identity+",", "{"+factor+"}", "{"+factor+", "+identity+"}").Replace(w.resource("same-name", "same-name"))
	if err := os.WriteFile(k.args[1], []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	k.command(1, "run", "--until-caught-up")
	all := k.status().partitions("same-name")
	if len(all) != 2 {
		t.Fatalf("status names %v, want one of each flow", all)
	}
	for _, p := range all {
		if p.State != "held" || p.Reason != "topic_collision" || p.Target != "same-name" ||
			!strings.Contains(p.Detail, "kafka-dc-1->") || !strings.Contains(p.Detail, "kafka-dc-2->") || !strings.Contains(p.Detail, "exclude the topic") {
			t.Errorf("status: %v", p)
		}
	}
	if slices.Contains(topicNames(t, w.central), "same-name") {
		t.Error("the topic was created all the same")
	}
}

const identity = "replication.policy.class: org.apache.kafka.connect.mirror.IdentityReplicationPolicy"
