package cli_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kferry/kferry/shared/local"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// renamed is a cluster under another alias.
func renamed(c spec.Cluster, alias string) spec.Cluster {
	c.Alias = alias
	return c
}

// write writes records to a topic.
func (b *bubble) write(alias, topic string, n int) {
	b.Helper()
	writer, err := b.Writer(alias, topic, kgo.ProducerBatchCompression(kgo.SnappyCompression()))
	b.must(err)
	defer writer.Close()
	b.must(writer.Write(b.ctx, n))
}

// Two installations that know nothing of each other copy between the same two clusters, one each way, and each has its own aliases for
// them. With MirrorMaker 2 up to 4.3 their copies copy each other for ever.
func TestInstallationsWithOtherAliases(t *testing.T) {
	inBubble(t, []string{"east", "west"}, func(b *bubble) {
		one := spec.Spec{
			Name: "one", Clusters: []spec.Cluster{b.Spec("east"), b.Spec("west")}, Flows: []spec.Flow{b.flow("east", "west")},
			Heartbeats: []spec.Heartbeat{{Source: "east", Target: "west", Interval: time.Second, ReplicationFactor: -1}},
		}
		two := spec.Spec{
			Name: "two", Clusters: []spec.Cluster{renamed(b.Spec("east"), "b"), renamed(b.Spec("west"), "a")}, Flows: []spec.Flow{b.flow("a", "b")},
			Heartbeats: []spec.Heartbeat{{Source: "a", Target: "b", Interval: time.Second, ReplicationFactor: -1}},
		}
		two.Flows[0].OffsetsTopic = "mm2-offsets.two.internal"
		b.must(b.Kafka("east").CreateTopic("orders", 3, nil))
		b.must(b.Kafka("west").CreateTopic("payments", 3, nil))
		b.must(b.Kafka("east").CreateTopic("empty", 1, nil))
		b.write("east", "orders", 30)
		b.write("west", "payments", 30)
		for _, s := range []spec.Spec{one, two} {
			b.coordinate(s)
			b.work(s)
		}
		for range 40 {
			time.Sleep(5 * time.Second)
			b.write("east", "orders", 10)
			b.write("west", "payments", 10)
		}
		time.Sleep(10 * time.Second)
		// Where a topic comes from shows in its records. Of one that was empty when it was found only its name tells, one copy later.
		east := []string{"a.heartbeats", "a.payments", "empty", "heartbeats", "orders"}
		west := []string{"east.empty", "east.heartbeats", "east.orders", "heartbeats", "payments"}
		for alias, wanted := range map[string][]string{"east": east, "west": west} {
			got := b.topics(alias)
			for _, topic := range got {
				if slices.Contains(wanted, topic) {
					continue
				}
				if n := b.Records(alias, topic); n > 0 || strings.Count(topic, ".") > 2 {
					b.Errorf("%s has %s, with %d records", alias, topic, n)
				}
			}
			for _, topic := range wanted {
				if !slices.Contains(got, topic) {
					b.Errorf("%s lacks %s", alias, topic)
				}
			}
		}
		for _, pair := range [][2]local.Side{{b.Side("east", "orders"), b.Side("west", "east.orders")}, {b.Side("west", "payments"), b.Side("east", "a.payments")}} {
			c, err := local.Compare(b.ctx, pair[0], pair[1])
			b.must(err)
			if !c.Exact() {
				b.Error(c)
			}
		}
	})
}

// Neither copies heartbeats. What each shows of the other's is empty, and must not come back either.
func TestInstallationsWithOtherAliasesAndNoHeartbeats(t *testing.T) {
	inBubble(t, []string{"east", "west"}, func(b *bubble) {
		one := spec.Spec{Name: "one", Clusters: []spec.Cluster{b.Spec("east"), b.Spec("west")}, Flows: []spec.Flow{b.flow("east", "west")}}
		two := spec.Spec{
			Name: "two", Clusters: []spec.Cluster{renamed(b.Spec("east"), "b"), renamed(b.Spec("west"), "a")}, Flows: []spec.Flow{b.flow("a", "b")},
		}
		orders, err := spec.ParsePatterns("orders")
		b.must(err)
		for _, s := range []spec.Spec{one, two} {
			s.Flows[0].Heartbeats, s.Flows[0].Filters = false, []spec.Filter{{Topics: orders}}
			b.coordinate(s)
		}
		time.Sleep(5 * time.Minute)
		for alias, want := range map[string]string{"east": "a.heartbeats", "west": "east.heartbeats"} {
			if got := b.topics(alias); !slices.Equal(got, []string{want}) {
				b.Errorf("%s has %q", alias, got)
			}
		}
	})
}

// Applications have moved to a copy and write there. The way back is open then: what they write is copied, by an installation that keeps
// names as the first did.
func TestCopyThatIsWrittenToIsCopiedBack(t *testing.T) {
	inBubble(t, []string{"A", "B"}, func(b *bubble) {
		there := spec.Spec{Name: "there", Clusters: []spec.Cluster{b.Spec("A"), b.Spec("B")}, Flows: []spec.Flow{b.flow("A", "B")}}
		back := spec.Spec{Name: "back", Clusters: there.Clusters, Flows: []spec.Flow{b.flow("B", "A")}}
		back.Flows[0].Policy = mm2.DefaultPolicy{Separator: "_"} // or its name would tell
		b.must(b.Kafka("A").CreateTopic("orders", 1, nil))
		b.write("A", "orders", 30)
		c, w := b.coordinate(there), b.work(there)
		time.Sleep(10 * time.Second)
		b.coordinate(back)
		b.work(back)
		time.Sleep(time.Minute)
		if got := b.topics("A"); slices.Contains(got, "B_A.orders") {
			b.Errorf("copied back: %q", got)
		}
		c.stop()
		w.stop()
		b.write("B", "A.orders", 10)
		time.Sleep(time.Minute)
		if n := b.Records("A", "B_A.orders"); n != 40 {
			b.Errorf("%d records were copied back", n)
		}
	})
}
