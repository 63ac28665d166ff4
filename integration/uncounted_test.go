package integration

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kferry/kferry/integration/testbed"
)

// Sources of which counting proves nothing, since their logs change after they were read.

// cleaning makes a broker's log cleaner as eager as it can be.
var cleaning = []testbed.KafkaOption{
	testbed.WithConfig("log.cleaner.backoff.ms", "100"),
	testbed.WithConfig("log.retention.check.interval.ms", "1000"),
}

// cleaned are the settings of a topic that is compacted all the time.
var cleaned = []string{
	"cleanup.policy", "compact", "min.cleanable.dirty.ratio", "0.001", "segment.ms", "500",
	"max.compaction.lag.ms", "300", "delete.retention.ms", "100",
}

// updates writes records to a topic, each value unlike all others, until the context ends: most under keys that come again and again, so
// that they soon are gone, and now and then a tombstone; some under a key of their own, which stay.
func updates(ctx context.Context, t *testing.T, c *testbed.Cluster, topic string, perSecond int) (done chan struct{}) {
	t.Helper()
	const keys = 200
	random, numbers := seeded(t), int32(len(c.Ends(topic)))
	client := c.Client(kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.Lz4Compression()),
		kgo.ProducerLinger(100*time.Millisecond)) // so that the copy, which sends one batch at a time over some distance, can keep up
	done = make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Second / 50)
		defer tick.Stop()
		for n := 0; ctx.Err() == nil; {
			for range perSecond / 50 {
				key := random.IntN(keys)
				r := &kgo.Record{Partition: int32(key) % numbers, Key: fmt.Append(nil, "key-", key), Value: fmt.Append(nil, "value-", n)}
				switch {
				case n%4 == 0:
					r.Key = fmt.Append(nil, "once-", n)
				case random.IntN(100) == 0:
					r.Value = nil
				}
				client.Produce(context.Background(), r, nil)
				n++
			}
			<-tick.C
		}
		flushing, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := client.Flush(flushing); err != nil {
			t.Errorf("updates: %v", err)
		}
	}()
	return done
}

// onlyOnce fails the test where a value is on the target twice.
func onlyOnce(t *testing.T, c *testbed.Cluster, topic string) {
	t.Helper()
	seen := map[string]int64{}
	for p, records := range testbed.Read(t, c, topic, testbed.Uncommitted) {
		for _, r := range records {
			if r.Value == nil {
				continue
			}
			if at, twice := seen[string(r.Value)]; twice {
				t.Fatalf("%s-%d holds %s at offset %d and again at %d", topic, p, r.Value, at, r.Offset)
			}
			seen[string(r.Value)] = r.Offset
		}
	}
}

// A source is compacted all the time, also between a crash and the next start; the copy is or is not. Nothing is lost, and where the
// copy keeps everything, nothing is there twice.
func TestCompactedSourceKilled(t *testing.T) {
	t.Parallel()
	source := testbed.Kafka(t, testbed.V43, append(cleaning, testbed.WithProxy())...)
	target := testbed.Kafka(t, testbed.V33, append(cleaning, testbed.WithProxy())...)
	kills := 3
	if long() {
		kills = 40
	}
	for _, both := range []bool{false, true} {
		topic := fmt.Sprintf("cleaned-%t", both)
		t.Run(topic, func(t *testing.T) {
			t.Parallel()
			k := copying(t, source.For(t), target.For(t), topic).with("KFERRY_REPLICATION_FACTOR", "1", "KFERRY_SYNC_TOPIC_CONFIGS", "false")
			k.source.CreateTopic(topic, 2, 1, cleaned...)
			if both {
				k.target.CreateTopic(k.copyOf(topic), 2, 1, cleaned...)
			} else {
				k.target.CreateTopic(k.copyOf(topic), 2, 1)
			}
			target.Proxy(0).Delay(20 * time.Millisecond) // so that requests are under way when a process dies
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			written := updates(ctx, t, k.source, topic, 2000)
			random := seeded(t)
			for kill := range kills {
				run := k.start("run")
				k.grows(topic, 500+random.Int64N(3000))
				run.Kill()
				if kill%2 == 1 {
					if err := os.RemoveAll(k.env["KFERRY_DATA"]); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(500*time.Millisecond + time.Duration(random.Int64N(int64(time.Second)))) // for the cleaner
			}
			run := k.start("run")
			k.grows(topic, 1000)
			stop()
			<-written
			k.idle(topic)
			k.stop(run)
			if both {
				testbed.CompareState(t, k.source, topic, k.target, k.copyOf(topic))
			} else {
				testbed.CompareCompacted(t, k.source, topic, k.target, k.copyOf(topic))
				onlyOnce(t, k.target, k.copyOf(topic))
				if asked, inexact := k.translated(topic, testbed.Uncommitted); inexact*20 > asked {
					t.Errorf("%d of %d positions are not exact", inexact, asked)
				}
				for _, p := range k.status().partitions(topic) {
					if p.ExactlyOnce == nil || !*p.ExactlyOnce {
						t.Errorf("status: %+v", p)
					}
				}
			}
			t.Logf("%d kills of a process, the disk kept and lost in turn", kills)
		})
	}
}

// The source elects a leader that lacks the last records, which had been copied, and others are written in their place: the log is
// longer than what was copied, and another one.
func TestUncleanElectionOfTheSource(t *testing.T) {
	t.Parallel()
	const topic, kept, lost, others = "unclean", 200, 50, 80
	source := testbed.Kafka(t, testbed.V43, testbed.WithBrokers(3), testbed.WithConfig("unclean.leader.election.enable", "true"))
	source.CreateTopic(topic, 1, 2)
	k := copying(t, source, testbed.Shared(t, testbed.V43), topic)
	next := testbed.Produce(t, source, topic, testbed.Load{Records: kept})
	k.catchUp()
	lead := source.Leaders(topic)[0]
	replicas := source.Topics(topic)[topic].Partitions[0].Replicas
	lag := int(replicas[0]+replicas[1]) - lead
	source.Stop(lag)
	next = testbed.Produce(t, source, topic, testbed.Load{Records: lost, First: next})
	k.catchUp()
	source.Kill(lead)
	source.Start(lag)
	testbed.Eventually(t, time.Minute, "the one that lags to lead", func() bool { return source.Leaders(topic)[0] == lag })
	testbed.Produce(t, source, topic, testbed.Load{Records: others, First: next + 1000})
	if end := source.Ends(topic)[0]; end != kept+others {
		t.Fatalf("the source ends at %d, so it was not cut", end)
	}
	k.command(1, "run", "--until-caught-up")
	p := k.status().partition(topic, 0)
	if p.State != "held" || p.Reason != "source_truncated" || !strings.Contains(p.Detail, fmt.Sprintf("from offset %d to %d", kept, kept+lost-1)) {
		t.Errorf("status: %v", p)
	}
	t.Log(p)
	if got := k.copied(topic); got != kept+lost {
		t.Errorf("the copy has %d records, and had %d when the source was cut", got, kept+lost)
	}
}
