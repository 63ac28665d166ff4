package cli_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/functions"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/local"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// A flow that may have two leases copies twenty partitions that never fall silent, with two coordinators and two workers, one of which
// dies and one of which is stopped and replaced, and the queue loses its store.
func TestFlowWithTwoSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const partitions, slots = 20, 2
		env, err := local.Start(local.Setup{Virtual: true, Dir: t.TempDir(), Clusters: []local.Cluster{{Alias: "A"}, {Alias: "B"}}})
		must(t, err)
		defer env.Close()
		for alias, topic := range map[string]string{"A": "orders", "B": "A.orders"} {
			must(t, env.Kafka(alias).CreateTopic(topic, partitions, nil))
		}
		s := spec.Spec{
			Name: "kferry", Clusters: []spec.Cluster{env.Spec("A"), env.Spec("B")},
			Flows: []spec.Flow{{
				Source: "A", Target: "B", State: spec.Running, Policy: mm2.DefaultPolicy{}, Refresh: 5 * time.Second, MaxLeases: slots,
				Isolation: spec.ReadCommitted, ReplicationFactor: -1, OffsetsReplicationFactor: -1,
				Filters:      []spec.Filter{{Topics: pattern(t, "orders")}},
				OffsetsTopic: mm2.OffsetsTopic("A"), Connector: mm2.SourceConnector,
			}},
			Settings: spec.Settings{Memory: 8 * spec.MiB},
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running errgroup.Group
		defer func() {
			cancel()
			must(t, running.Wait())
		}()
		// begin starts a coordinator or a worker with connections of its own, and returns what ends it.
		begin := func(role func(lease *lease.Queue, clusters map[string]*kafka.Cluster) func(context.Context) error) (stop, kill func()) {
			line := env.Line()
			queue, err := lease.Open(ctx, lease.Options{InProcess: line})
			must(t, err)
			clusters := map[string]*kafka.Cluster{}
			for _, c := range s.Clusters {
				clusters[c.Alias], err = kafka.Open(c, kafka.Options{Dialer: line.Dial, Budget: kafka.NewBudget(8 << 20)})
				must(t, err)
			}
			run := role(queue, clusters)
			ctx, stop := context.WithCancel(ctx)
			running.Go(func() error {
				err := run(ctx)
				queue.Close()
				for _, c := range clusters {
					c.Close()
				}
				return err
			})
			return stop, func() { line.Cut(); stop() }
		}
		coordinate := func(q *lease.Queue, clusters map[string]*kafka.Cluster) func(context.Context) error {
			return coordinator.New(coordinator.Options{Spec: s, Queue: q, Clusters: clusters}).Run
		}
		work := func(q *lease.Queue, clusters map[string]*kafka.Cluster) func(context.Context) error {
			return functions.NewWorker(functions.Options{Spec: s, Queue: q, Clusters: clusters, Logger: slog.New(slog.DiscardHandler)}).Run
		}
		begin(coordinate)
		time.Sleep(330 * time.Millisecond)
		begin(coordinate)
		stop, _ := begin(work)
		_, kill := begin(work)

		writer, err := env.Writer("A", "orders", kgo.ProducerBatchCompression(kgo.SnappyCompression()))
		must(t, err)
		defer writer.Close()
		writing, enough := context.WithCancel(ctx)
		written := make(chan error, 1)
		go func() { written <- writer.Stream(writing, 200) }()

		conn, err := nats.Connect("", nats.InProcessServer(env.NATS))
		must(t, err)
		defer conn.Close()
		js, err := jetstream.New(conn)
		must(t, err)
		most := uint64(0)
		watch := func(d time.Duration) {
			t.Helper()
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(60 * time.Millisecond) {
				stream, err := js.Stream(ctx, "kferry-tasks")
				if err != nil {
					continue // lost its store
				}
				if most = max(most, stream.CachedInfo().State.Msgs); most > slots {
					t.Fatalf("%d tasks are under way", most)
				}
			}
		}
		copied := func(p int32) int64 { return env.Kafka("B").PartitionInfo("A.orders", p).HighWatermark }
		progress := func(what string, act func()) {
			t.Helper()
			before := map[int32]int64{}
			for p := range int32(partitions) {
				before[p] = copied(p)
			}
			act()
			watch(80 * time.Second)
			for p := range int32(partitions) {
				if copied(p) == before[p] {
					t.Errorf("%s: nothing was copied to partition %d in 80 s", what, p)
				}
			}
		}
		progress("from the start", func() {})
		progress("after one worker was killed", kill)
		progress("after another took its place, and the first was stopped", func() { begin(work); stop() })
		progress("after the queue has lost its store", func() { must(t, env.NATS.Wipe()) })
		if most != slots {
			t.Errorf("at most %d tasks were under way", most)
		}
		enough()
		must(t, <-written)
		for began := time.Now(); env.Records("B", "A.orders") < writer.Written(); {
			if watch(time.Second); time.Since(began) > 5*time.Minute {
				t.Fatalf("%d of %d records are copied", env.Records("B", "A.orders"), writer.Written())
			}
		}
		c, err := local.Compare(ctx, env.Side("A", "orders"), env.Side("B", "A.orders"))
		must(t, err)
		if !c.Exact() {
			t.Error(c)
		}
		t.Log(writer.Written(), "records")
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func pattern(t *testing.T, text string) spec.Patterns {
	t.Helper()
	p, err := spec.ParsePatterns(text)
	must(t, err)
	return p
}
