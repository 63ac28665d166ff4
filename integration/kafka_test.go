// Package integration tests kferry against real brokers, in containers.
package integration

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kferry/kferry/integration/testbed"
)

func TestMain(m *testing.M) { testbed.Main(m) }

// What the other tests stand on: a broker keeps its data and its address over a restart and over kill -9, and the oracle
// finds every record again.
func TestBrokerKeepsItsDataAndAddress(t *testing.T) {
	for _, version := range []string{testbed.V43, testbed.V33} {
		t.Run(version, func(t *testing.T) {
			c := testbed.Kafka(t, version)
			c.CreateTopic("orders", 3, 1)
			c.CreateTopic("same", 3, 1)
			load := testbed.Load{Records: 3000, Codec: kgo.Lz4Compression(), Start: time.Now().Add(-48 * time.Hour)}
			testbed.Produce(t, c, "orders", load)
			testbed.Produce(t, c, "same", load)
			before := c.Bootstrap()

			c.Restart(0)
			testbed.Compare(t, c, "orders", c, "same")
			c.Kill(0)
			c.Start(0)
			testbed.Compare(t, c, "orders", c, "same")
			if got := testbed.Read(t, c, "orders", testbed.Committed).Records(); got != 3000 {
				t.Errorf("%d records after two restarts, want 3000", got)
			}
			if c.Bootstrap() != before {
				t.Errorf("address changed from %s to %s", before, c.Bootstrap())
			}
		})
	}
}

func TestIsolationLevels(t *testing.T) {
	for _, version := range []string{testbed.V43, testbed.V33} {
		c := testbed.Shared(t, version)
		c.CreateTopic("transactions", 2, 1)
		testbed.Produce(t, c, "transactions", testbed.Load{Records: 1000, TxnRecords: 100, AbortEvery: 2})
		if got := testbed.Read(t, c, "transactions", testbed.Committed).Records(); got != 500 {
			t.Errorf("%s: %d committed records, want 500", version, got)
		}
		if got := testbed.Read(t, c, "transactions", testbed.Uncommitted).Records(); got != 1000 {
			t.Errorf("%s: %d records in all, want 1000", version, got)
		}
	}
}

// A frozen follower holds the high watermark back although the leader has the records.
func TestFrozenFollowerHoldsBackTheHighWatermark(t *testing.T) {
	c := testbed.Kafka(t, testbed.V43, testbed.WithBrokers(2), testbed.WithConfig("broker.session.timeout.ms", "60000"))
	topic := topicLedBy(t, c, 0) // so that broker 1, which is no controller, follows
	client := c.Client(kgo.DefaultProduceTopic(topic))
	var before, during kgo.FirstErrPromise
	client.Produce(t.Context(), kgo.StringRecord("before"), before.Promise())
	if err := before.Err(); err != nil {
		t.Fatal(err)
	}

	c.Pause(1)
	client.Produce(t.Context(), kgo.StringRecord("during"), during.Promise())
	soon, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := client.Flush(soon); err == nil {
		t.Error("acknowledged behind a frozen follower")
	}
	if end := c.Ends(topic)[0]; end != 1 {
		t.Errorf("high watermark %d behind a frozen follower, want 1", end)
	}
	c.Unpause(1)
	if err := during.Err(); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, 10*time.Second, "the high watermark to follow", func() bool { return c.Ends(topic)[0] == 2 })
}

func topicLedBy(t *testing.T, c *testbed.Cluster, broker int) string {
	t.Helper()
	for i := range 20 {
		topic := fmt.Sprintf("pairs-%d", i)
		c.CreateTopic(topic, 1, 2)
		testbed.Eventually(t, 10*time.Second, "the topic to be known", func() bool { return len(c.Leaders(topic)) == 1 })
		if c.Leaders(topic)[0] == broker {
			return topic
		}
	}
	t.Fatalf("broker %d leads no topic", broker)
	return ""
}

func TestThreeBrokersSurviveTheLossOfOne(t *testing.T) {
	c := testbed.Kafka(t, testbed.V43, testbed.WithBrokers(3), testbed.WithConfig("default.replication.factor", "3"))
	c.CreateTopic("orders", 3, -1, "min.insync.replicas", "2")
	next := testbed.Produce(t, c, "orders", testbed.Load{Records: 300})
	c.Kill(c.Leaders("orders")[0])
	testbed.Produce(t, c, "orders", testbed.Load{Records: 300, First: next})
	if got := testbed.Read(t, c, "orders", testbed.Committed).Records(); got != 600 {
		t.Errorf("%d records, want 600", got)
	}
}
