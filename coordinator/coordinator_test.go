package coordinator_test

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server/ats"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/local"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// ats.Register starts the server's access clock outside every bubble; one that is born inside would stop virtual time.
func TestMain(m *testing.M) {
	ats.Register()
	os.Exit(m.Run())
}

// installation is two sources, A and C, a target, B, a queue, and a coordinator to be. The test itself is the worker.
type installation struct {
	*testing.T
	*local.Env
	coordinator.Options
	metrics *prometheus.Registry
	stop    []func()
}

// bubble runs a test with an installation in virtual time.
func bubble(t *testing.T, test func(in *installation)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		in := install(t)
		defer in.close()
		test(in)
	})
}

func install(t *testing.T) *installation {
	t.Helper()
	env, err := local.Start(local.Setup{
		Virtual: true, Dir: t.TempDir(),
		Clusters: []local.Cluster{{Alias: "A"}, {Alias: "B", Brokers: 2, Configs: map[string]string{"default.replication.factor": "1"}}, {Alias: "C"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	in := &installation{T: t, Env: env, metrics: prometheus.NewRegistry()}
	in.Options = coordinator.Options{
		Spec:     spec.Spec{Name: "kferry", Flows: []spec.Flow{flowTo("A", "B", "orders.*"), flowTo("C", "B", "payments")}},
		Clusters: map[string]*kafka.Cluster{},
		Metrics:  in.metrics,
	}
	in.Queue = must(lease.Open(t.Context(), lease.Options{InProcess: env.NATS}))
	in.stop = append(in.stop, in.Queue.Close)
	for _, alias := range []string{"A", "B", "C"} {
		in.connect(env.Spec(alias))
	}
	return in
}

func flowTo(source, target, topics string) spec.Flow {
	return spec.Flow{
		Source: source, Target: target, State: spec.Running, Policy: mm2.DefaultPolicy{}, Refresh: 5 * time.Second,
		Isolation: spec.ReadCommitted, ReplicationFactor: -1, OffsetsReplicationFactor: -1,
		Filters:      []spec.Filter{{Topics: must(spec.ParsePatterns(topics))}},
		OffsetsTopic: mm2.OffsetsTopic(source), Connector: "MirrorSourceConnector",
	}
}

func (in *installation) connect(c spec.Cluster) { in.connectThrough(c, in.Dial) }

func (in *installation) connectThrough(c spec.Cluster, dial local.Dial) {
	cluster := must(kafka.Open(c, kafka.Options{ClientID: "test", Budget: kafka.NewBudget(1 << 20), Dialer: dial}))
	in.stop = append(in.stop, cluster.Close)
	in.Clusters[c.Alias] = cluster
}

func (in *installation) close() {
	for _, stop := range slices.Backward(in.stop) {
		stop()
	}
	in.Env.Close()
}

// run starts a coordinator that ends with the test.
func (in *installation) run() *coordinator.Coordinator {
	c := coordinator.New(in.Options)
	ctx, cancel := context.WithCancel(in.Context())
	ended := make(chan error)
	go func() { ended <- c.Run(ctx) }()
	in.stop = append(in.stop, func() {
		cancel()
		if err := <-ended; err != nil {
			in.Error(err)
		}
	})
	return c
}

// create creates a topic with a record of each kind of partition: n in partition 0, none in the others.
func (in *installation) create(alias, topic string, partitions int32, n int) {
	in.Helper()
	if err := in.Clusters[alias].CreateTopic(in.Context(), kafka.NewTopic{Name: topic, Partitions: partitions, ReplicationFactor: -1}); err != nil {
		in.Fatal(err)
	}
	in.write(alias, topic, n)
}

func (in *installation) write(alias, topic string, n int) {
	in.Helper()
	var records []kafka.Record
	for range n {
		records = append(records, kafka.Record{Value: []byte("v"), Timestamp: time.Now().UnixMilli()})
	}
	if n == 0 {
		return
	}
	if err := in.Clusters[alias].Write(in.Context(), topic, records); err != nil {
		in.Fatal(err)
	}
}

// writeTo writes a record to a partition.
func (in *installation) writeTo(alias, topic string, partition int32) {
	in.Helper()
	if err := in.Clusters[alias].Write(in.Context(), topic, []kafka.Record{{Partition: partition, Value: []byte("v")}}); err != nil {
		in.Fatal(err)
	}
}

// claim is what a worker would be given within some time, in order.
func (in *installation) claim(within time.Duration) []*lease.Lease {
	in.Helper()
	leases, err := in.Queue.Claim(in.Context(), 100, within)
	if err != nil {
		in.Fatal(err)
	}
	return leases
}

// expect claims until it has the tasks, and fails if others come.
func (in *installation) expect(within time.Duration, tasks ...string) []*lease.Lease {
	in.Helper()
	deadline := time.Now().Add(within)
	var leases []*lease.Lease
	var got []string
	for len(leases) < len(tasks) && time.Now().Before(deadline) {
		for _, l := range in.claim(time.Until(deadline)) {
			leases, got = append(leases, l), append(got, l.Task.String())
		}
	}
	slices.Sort(got)
	slices.Sort(tasks)
	if !slices.Equal(got, tasks) {
		in.Fatalf("tasks within %s: got %q, want %q", within, got, tasks)
	}
	return leases
}

// silent fails if a task comes.
func (in *installation) silent(within time.Duration) {
	in.Helper()
	if leases := in.claim(within); len(leases) > 0 {
		in.Fatalf("got %s, want no task", leases[0].Task)
	}
}

func (in *installation) release(leases ...*lease.Lease) {
	in.Helper()
	for _, l := range leases {
		if err := l.Release(in.Context()); err != nil {
			in.Fatal(err)
		}
	}
}

// commit plays a run that examined a partition up to an offset.
func (in *installation) commit(flow spec.Flow, topic string, partition int32, offset int64) {
	in.Helper()
	cursors := in.Queue.Cursors(flow, in.Clusters[flow.Target])
	_, revision, err := cursors.Get(in.Context(), topic, partition)
	cursor := lease.Cursor{Offset: offset, Target: offset, Sequence: int32(offset)}
	if errors.Is(err, lease.ErrNoCursor) {
		_, err = cursors.Create(in.Context(), topic, partition, cursor)
	} else if err == nil {
		_, err = cursors.Commit(in.Context(), topic, partition, cursor, revision)
	}
	if err != nil {
		in.Fatal(err)
	}
}

// metric is a gauge's value, or a counter's.
func (in *installation) metric(text string) {
	in.Helper()
	name, _, _ := strings.Cut(text, "{")
	if err := testutil.GatherAndCompare(in.metrics, strings.NewReader(text+"\n"), name); err != nil {
		in.Error(err)
	}
}

func TestTopicIsFoundWithinFiveSeconds(t *testing.T) {
	bubble(t, func(in *installation) {
		in.run()
		in.silent(7300 * time.Millisecond) // whatever the phase
		in.create("A", "orders-eu", 2, 3)
		in.release(in.expect(5*time.Second, "topics A->B orders-eu")...)

		in.create("B", "A.orders-eu", 2, 0)
		in.release(in.expect(2*time.Second, "mirror A->B orders-eu-0")...) // its neighbour is empty
	})
}

func TestOfferedUntilExamined(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 1, 3)
		in.create("B", "A.orders", 1, 0)
		in.run()
		in.release(in.expect(5*time.Second, "mirror A->B orders-0")...) // a run that got nowhere
		run := in.expect(2*time.Second, "mirror A->B orders-0")
		in.commit(in.Options.Spec.Flows[0], "orders", 0, 3)
		in.release(run...)
		in.silent(10 * time.Second)

		in.write("A", "orders", 1)
		in.expect(2*time.Second, "mirror A->B orders-0")
	})
}

func TestSeveralCoordinatorsOfferEachTaskOnce(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 2, 1)
		in.create("A", "orders-eu", 1, 1)
		in.create("C", "payments", 1, 1)
		in.create("B", "A.orders", 2, 0)
		in.Options.Metrics = nil
		for range 3 {
			in.run()
		}
		in.expect(3*time.Second, "mirror A->B orders-0", "topics A->B orders-eu", "topics C->B payments")
		in.silent(3 * time.Second) // the leases last four
	})
}

func TestUnreachableSourceStopsNoOtherFlow(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("C", "payments", 1, 1)
		in.connect(spec.Cluster{Alias: "dead", BootstrapServers: []string{"127.0.0.1:1"}})
		in.Options.Spec.Flows[0] = flowTo("dead", "B", "orders")
		c := in.run()
		in.expect(3*time.Second, "topics C->B payments")
		time.Sleep(time.Minute)
		dead, alive := c.Flows()[0], c.Flows()[1]
		if dead.Err == nil || alive.Err != nil {
			in.Errorf("flow of the dead cluster: %v, of the other: %v", dead.Err, alive.Err)
		}
		in.metric(`# HELP kferry_flow_failing 1 while one of the flow's clusters, or the queue, doesn't answer the coordinator.
# TYPE kferry_flow_failing gauge
kferry_flow_failing{flow="C->B"} 0
kferry_flow_failing{flow="dead->B"} 1`)
	})
}

func TestPartitionWithoutLeaderKeepsNoOtherWaiting(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 2, 0)
		in.create("B", "A.orders", 2, 0)
		c := in.run()
		time.Sleep(3 * time.Second)
		in.Kafka("A").Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: "orders", Partitions: []int32{1}, Err: kerr.NotLeaderForPartition, Count: -1})
		time.Sleep(3 * time.Second)
		in.write("A", "orders", 1)
		in.expect(2*time.Second, "mirror A->B orders-0")
		synctest.Wait()
		if got := c.Flows()[0].Plan.Partitions[1]; got.State != coordinator.Failed || got.Detail == "" {
			in.Errorf("the partition without a leader: %+v", got)
		}
	})
}

func TestFlowGoesOnWhenItsSourceComesBack(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 1, 1)
		var up atomic.Bool
		in.connectThrough(in.Env.Spec("A"), func(ctx context.Context, network, address string) (net.Conn, error) {
			if !up.Load() {
				return nil, syscall.ECONNREFUSED
			}
			return in.Dial(ctx, network, address)
		})
		c := in.run()
		in.silent(3 * time.Minute)
		if err := c.Flows()[0].Err; err == nil || !strings.Contains(err.Error(), "source: topics: cluster A") || !strings.Contains(err.Error(), "refused") {
			in.Errorf("error while the source is down: %v", err)
		}
		up.Store(true)
		in.expect(time.Minute, "topics A->B orders")
		synctest.Wait() // until the pass has ended
		if err := c.Flows()[0].Err; err != nil {
			in.Errorf("error that is over: %v", err)
		}
	})
}

func TestGoesOnAfterNATSLostItsStore(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 2, 3)
		in.create("B", "A.orders", 2, 0)
		in.run()
		in.release(in.expect(3*time.Second, "mirror A->B orders-0")...)
		in.commit(in.Options.Spec.Flows[0], "orders", 0, 3)
		in.silent(5 * time.Second)

		if err := in.NATS.Wipe(); err != nil {
			in.Fatal(err)
		}
		in.silent(10 * time.Second) // the cursor came back from the target: nothing is behind
		in.write("A", "orders", 1)
		in.expect(5*time.Second, "mirror A->B orders-0")
		cursor, _, err := in.Queue.Cursors(in.Options.Spec.Flows[0], in.Clusters["B"]).Get(in.Context(), "orders", 0)
		if err != nil || cursor.Offset != 3 {
			in.Errorf("cursor after the loss: %+v, %v", cursor, err)
		}
	})
}

func TestTwoFlowsIntoOneTopicAreHeld(t *testing.T) {
	bubble(t, func(in *installation) {
		for i, f := range []spec.Flow{flowTo("A", "B", "orders|apples"), flowTo("C", "B", "orders")} {
			f.Policy = mm2.IdentityPolicy{}
			in.Options.Spec.Flows[i] = f
		}
		in.create("A", "orders", 1, 1)
		in.create("A", "apples", 1, 1)
		in.create("C", "orders", 1, 1)
		c := in.run()
		time.Sleep(6 * time.Second)
		synctest.Wait()
		for i, f := range c.Flows() {
			last := f.Plan.Partitions[len(f.Plan.Partitions)-1]
			if last.State != coordinator.Held || last.Reason != lease.ReasonTopicCollision ||
				!strings.Contains(last.Detail, "orders of A->B and orders of C->B") {
				in.Errorf("flow %d: %+v", i, last)
			}
		}
		in.metric(`# HELP kferry_partitions_held Partitions that stand still until somebody removes the reason.
# TYPE kferry_partitions_held gauge
kferry_partitions_held{flow="A->B",reason="topic_collision"} 1
kferry_partitions_held{flow="C->B",reason="topic_collision"} 1`)
	})
}

// A source that answers late may hold what leads into the same topic: the other flow doesn't begin before, but it does not wait for ever.
func TestFlowsThatKeepNamesWaitForEachOther(t *testing.T) {
	for name, c := range map[string]struct {
		after time.Duration // that the late source answers
		offer bool          // whether the other flow begins before
	}{
		"late": {5 * time.Second, false},
		"away": {time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(in *installation) {
				for i, f := range []spec.Flow{flowTo("A", "B", "orders"), flowTo("C", "B", "orders")} {
					f.Policy = mm2.IdentityPolicy{}
					in.Options.Spec.Flows[i] = f
				}
				in.create("A", "orders", 1, 1)
				in.create("C", "orders", 1, 1)
				begun := time.Now()
				in.connectThrough(in.Env.Spec("C"), func(ctx context.Context, network, address string) (net.Conn, error) {
					if time.Since(begun) < c.after {
						return nil, errors.New("away")
					}
					return in.Dial(ctx, network, address)
				})
				in.run()
				if c.offer {
					in.expect(20*time.Second, "topics A->B orders")
					if waited := time.Since(begun); waited < 10*time.Second {
						in.Errorf("waited for %s only", waited)
					}
					return
				}
				in.silent(20 * time.Second)
			})
		})
	}
}

func TestOldestUnreplicatedRecord(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 1, 1)
		in.create("B", "A.orders", 1, 0)
		time.Sleep(time.Hour)
		c := in.run()
		time.Sleep(9 * time.Second)
		oldest := func(want, within time.Duration) {
			in.Helper()
			if got := c.Flows()[0].Oldest; got < want || got > want+within {
				in.Errorf("oldest record waits for %s, want %s", got, want)
			}
		}
		oldest(time.Hour, 10*time.Second) // the record at the cursor says so

		in.write("A", "orders", 1)
		time.Sleep(20 * time.Second)
		in.commit(in.Options.Spec.Flows[0], "orders", 0, 1)
		time.Sleep(2 * time.Second)
		oldest(20*time.Second, 3*time.Second) // the second record, by when it was seen

		for range 40 { // more marks than are kept
			in.write("A", "orders", 1)
			time.Sleep(2 * time.Second)
		}
		oldest(100*time.Second, 5*time.Second)

		in.commit(in.Options.Spec.Flows[0], "orders", 0, 42)
		time.Sleep(2 * time.Second)
		oldest(0, 0)
	})
}

// Nobody knows what arrives while a cluster is down, so the alert on the oldest record has to go off.
func TestOldestUnreplicatedRecordGrowsWhileAClusterIsDown(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 1, 0)
		in.create("B", "A.orders", 1, 0)
		line := in.Line()
		in.connectThrough(in.Env.Spec("B"), line.Dial)
		in.connect(spec.Cluster{Alias: "dead", BootstrapServers: []string{"127.0.0.1:1"}})
		in.Options.Spec.Flows[1] = flowTo("dead", "B", "payments")
		in.run()
		time.Sleep(time.Minute)
		in.oldest("A->B", 0, 0)
		in.oldest("dead->B", time.Minute, time.Second) // since the coordinator came: it has never looked

		time.Sleep(coordinator.PassInterval / 2) // between two looks: one under way may have its answers already
		line.Cut()
		time.Sleep(5 * time.Minute)
		in.oldest("A->B", 5*time.Minute-5*time.Second, 6*time.Second) // the target is asked every five seconds
	})
}

// oldest compares kferry_oldest_unreplicated_seconds of a flow.
func (in *installation) oldest(flow string, want, within time.Duration) {
	in.Helper()
	for _, family := range must(in.metrics.Gather()) {
		if family.GetName() != "kferry_oldest_unreplicated_seconds" {
			continue
		}
		for _, m := range family.GetMetric() {
			got := time.Duration(m.GetGauge().GetValue() * float64(time.Second))
			if m.GetLabel()[0].GetValue() == flow && (got < want || got > want+within) {
				in.Errorf("oldest record of %s waits for %s, want %s", flow, got, want)
			}
		}
	}
}

func TestWarnings(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 1, 1)
		c := in.run()
		time.Sleep(3 * time.Second)
		flows := c.Flows()
		for i, want := range []string{
			"B has 2 brokers and creates topics with one replica unless told otherwise: set the replication factor of A->B",
			`the topic pattern "payments" of C->B matches no topic on C`,
		} {
			if len(flows[i].Warnings) == 0 || !strings.HasPrefix(flows[i].Warnings[0], want) {
				in.Errorf("warnings of %s: %q, want %q", flows[i].Flow, flows[i].Warnings, want)
			}
		}
	})
}

// MirrorMaker, which kferry found to write beside it, commits while the partition is held. The hold has rested by then, and is not
// published over what MirrorMaker wrote.
func TestHeldCursorIsNotPublishedOverMirrorMakers(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 1, 5)
		in.create("B", "A.orders", 1, 0)
		flow := in.Options.Spec.Flows[0]
		in.run()
		time.Sleep(2 * time.Second)
		in.commit(flow, "orders", 0, 2)
		time.Sleep(2 * time.Second)
		cursors := in.Queue.Cursors(flow, in.Clusters["B"])
		held, revision, err := cursors.Get(in.Context(), "orders", 0)
		in.must(err)
		held.Hold = lease.Hold{Reason: lease.ReasonForeignWriter, Detail: "not ours", Since: time.Now()}
		_, err = cursors.Commit(in.Context(), "orders", 0, held, revision)
		in.must(err)
		key := flow.Key("orders", 0)
		in.must(in.Clusters["B"].Write(in.Context(), flow.OffsetsTopic, []kafka.Record{
			{Partition: mm2.OffsetsPartition(key, mm2.OffsetsPartitions), Key: key, Value: []byte(`{"offset":3}`)},
		}))
		time.Sleep(2 * time.Minute)
		found, err := lease.ReadCursors(in.Context(), flow, in.Clusters["B"])
		in.must(err)
		if c := found[kafka.TopicPartition{Topic: "orders"}]; !c.Foreign || c.Offset != 4 {
			in.Errorf("on the offsets topic stands %+v", c)
		}
	})
}

func TestCursorOfDeadWorkerIsPublished(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 1, 5)
		in.create("B", "A.orders", 1, 0)
		flow := in.Options.Spec.Flows[0]
		in.run()
		time.Sleep(2 * time.Second)
		in.commit(flow, "orders", 0, 2)
		time.Sleep(2 * time.Second)
		in.commit(flow, "orders", 0, 5) // and the worker dies
		published := func() int64 {
			in.Helper()
			cursors, err := lease.ReadCursors(in.Context(), flow, in.Clusters["B"])
			if err != nil {
				in.Fatal(err)
			}
			return cursors[kafka.TopicPartition{Topic: "orders"}].Offset
		}
		if at := published(); at != 2 {
			in.Fatalf("published cursor is at %d before anybody could know better", at)
		}
		time.Sleep(time.Minute)
		if at := published(); at != 5 {
			in.Errorf("published cursor is at %d, want 5", at)
		}
	})
}
