package cli_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kferry/kferry/shared/local"
	"github.com/kferry/kferry/shared/spec"
)

// A flow that may have two leases copies ten partitions that never fall silent, with two coordinators and two workers, one of which
// dies and one of which is stopped and replaced, and the queue loses its store.
func TestFlowWithTwoSlots(t *testing.T) {
	inBubble(t, []string{"A", "B"}, func(b *bubble) {
		const (
			partitions, slots = 10, 2
			turns             = 40 * time.Second // until each partition has had one
		)
		for alias, topic := range map[string]string{"A": "orders", "B": "A.orders"} {
			b.must(b.Kafka(alias).CreateTopic(topic, partitions, nil))
		}
		flow := b.flow("A", "B")
		flow.MaxLeases = slots
		s := spec.Spec{Name: "kferry", Clusters: []spec.Cluster{b.Spec("A"), b.Spec("B")}, Flows: []spec.Flow{flow}}
		b.coordinate(s)
		time.Sleep(330 * time.Millisecond)
		b.coordinate(s)
		first, second := b.work(s), b.work(s)

		writer, err := b.Writer("A", "orders", kgo.ProducerBatchCompression(kgo.SnappyCompression()))
		b.must(err)
		defer writer.Close()
		writing, enough := context.WithCancel(b.ctx)
		written := make(chan error, 1)
		go func() { written <- writer.Stream(writing, 200) }()

		conn, err := nats.Connect("", nats.InProcessServer(b.NATS))
		b.must(err)
		defer conn.Close()
		js, err := jetstream.New(conn)
		b.must(err)
		most := uint64(0)
		watch := func(d time.Duration) {
			b.Helper()
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(60 * time.Millisecond) {
				stream, err := js.Stream(b.ctx, "kferry-tasks")
				if err != nil {
					continue // lost its store
				}
				if most = max(most, stream.CachedInfo().State.Msgs); most > slots {
					b.Fatalf("%d tasks are under way", most)
				}
			}
		}
		copied := func(p int32) int64 { return b.Kafka("B").PartitionInfo("A.orders", p).HighWatermark }
		progress := func(what string, act func()) {
			b.Helper()
			before := map[int32]int64{}
			for p := range int32(partitions) {
				before[p] = copied(p)
			}
			act()
			watch(turns)
			for p := range int32(partitions) {
				if copied(p) == before[p] {
					b.Errorf("%s: nothing was copied to partition %d in %s", what, p, turns)
				}
			}
		}
		progress("from the start", func() {})
		progress("after one worker was killed", second.kill)
		progress("after another took its place, and the first was stopped", func() {
			b.work(s)
			first.stop()
		})
		progress("after the queue has lost its store", func() { b.must(b.NATS.Wipe()) })
		if most != slots {
			b.Errorf("at most %d tasks were under way", most)
		}
		enough()
		b.must(<-written)
		for began := time.Now(); b.Records("B", "A.orders") < writer.Written(); {
			if watch(time.Second); time.Since(began) > 5*time.Minute {
				b.Fatalf("%d of %d records are copied", b.Records("B", "A.orders"), writer.Written())
			}
		}
		c, err := local.Compare(b.ctx, b.Side("A", "orders"), b.Side("B", "A.orders"))
		b.must(err)
		if !c.Exact() {
			b.Error(c)
		}
	})
}
