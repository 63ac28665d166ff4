package integration

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kferry/kferry/integration/testbed"
)

// electsWithin is what three servers take at most to agree on a leader, and what was lost with one of them to be somewhere else.
const electsWithin = time.Minute

// awayFor is how long a server stays dead: long enough for the others to have elected a leader, and for leases to come back.
const awayFor = 15 * time.Second

// The queue is on three servers of NATS, and the one that leads the tasks is killed while everything is copied, stays away and comes back:
// the copy goes on within seconds, and nobody has to do anything. Then the queue moves to one server and back while it is worked on.
func TestNATSCluster(t *testing.T) {
	t.Parallel()
	const topic, servers = "clustered", 3
	nodes := testbed.StartNATSCluster(t, servers)
	source, target := testbed.Shared(t, testbed.V33), testbed.Shared(t, testbed.V43)
	k := copying(t, source, target, topic)
	var urls []string
	for _, n := range nodes {
		urls = append(urls, n.URL())
	}
	c := natsCluster{t, nodes, jetStream(t, strings.Join(urls, ",")), k.env["KFERRY_NAME"]}
	k = k.with("NATS_URL", strings.Join(urls, ","), "NATS_REPLICAS", strconv.Itoa(servers), "KFERRY_LEASE", "4s")
	r := new(report)
	k.row = r.row("a queue on three servers of NATS")
	source.CreateTopic(topic, partitions, 1)
	flow := traffic(k, topic, smallBatches, 4000, 4000)
	coordinator := k.start("coordinator")
	workers := []*testbed.Process{k.start("worker"), k.start("worker")}
	k.grows(topic, 5000)
	c.settles(servers)

	broker := brokerOf(t, target, target.Leaders(k.copyOf(topic))[0])
	for _, stream := range []string{c.name + "-tasks", "KV_" + c.name + "-cursors"}[:times(1, 2)] {
		killed, back := *k, *k
		killed.row, back.row = r.row("kill -9 of the server that leads "+stream), r.row("it is back")
		leader := c.leader(stream)
		leader.Kill()
		killed.paused(broker, topic, awayFor)
		leader.Start()
		back.paused(broker, topic, 5*time.Second)
		c.settles(servers)
		killed.row.demand(t, electsWithin)
	}
	for _, replicas := range []string{"1", "3"} {
		k.stop(coordinator)
		coordinator = k.with("NATS_REPLICAS", replicas).start("coordinator")
		addressOf(t, coordinator)
		c.are(replicas)
		k.grows(topic, 5000)
	}
	k.finish(flow, topic)
	for _, p := range append(workers, coordinator) {
		if strings.Contains(p.Output(), "has lost its store") {
			t.Error("a process takes a queue that was without a leader for one that has lost its store")
		}
	}
	t.Logf("what became of the faults:\n%s", r)
}

// paused notes the longest time that a partition of a copy stood still, of a while in which all of them are to move.
func (k *installation) paused(broker *kgo.Broker, topic string, during time.Duration) {
	k.t.Helper()
	all := []int32{0, 1, 2, 3}
	p := watch(k.t, broker, k.copyOf(topic), all, during)
	k.row.resumedAfter(p.longest)
	k.resumes(topic, k.target.Ends(k.copyOf(topic)), time.Now()) // all of them go on
	k.row.happened(1)
	k.t.Logf("%s: %d records in %s, the longest pause of a partition was %s", k.row.fault, p.records, p.lasted.Round(time.Second), p.longest.Round(10*time.Millisecond))
}

// natsCluster is what an installation has on servers of NATS.
type natsCluster struct {
	t     *testing.T
	nodes []*testbed.NATS
	js    jetstream.JetStream
	name  string // of the installation
}

// jetStream is a test's own view of the queue. Servers of a cluster answer it only once they have agreed on a leader.
func jetStream(t *testing.T, url string) jetstream.JetStream {
	t.Helper()
	conn, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn, jetstream.WithDefaultTimeout(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, electsWithin, "JetStream", func() bool {
		_, err := js.AccountInfo(t.Context())
		return err == nil
	})
	return js
}

// streams are those of the installation.
func (c natsCluster) streams() []string {
	return []string{c.name + "-tasks", "KV_" + c.name + "-cursors", "KV_" + c.name + "-states"}
}

// are waits until so many servers are to keep each stream. New ones do half a minute later.
func (c natsCluster) are(replicas string) {
	c.t.Helper()
	for _, name := range c.streams() {
		testbed.Eventually(c.t, electsWithin, name+" to have "+replicas+" replicas", func() bool {
			info := c.info(name)
			return info != nil && strconv.Itoa(info.Config.Replicas) == replicas
		})
	}
}

// settles waits until each stream, and the consumer, is kept by so many servers, and all of them have all of it.
func (c natsCluster) settles(replicas int) {
	c.t.Helper()
	whole := func(in *jetstream.ClusterInfo) bool {
		return in != nil && in.Leader != "" && len(in.Replicas) == replicas-1 &&
			!slices.ContainsFunc(in.Replicas, func(p *jetstream.PeerInfo) bool { return p.Offline || !p.Current })
	}
	began := time.Now()
	for _, name := range c.streams() {
		testbed.Eventually(c.t, electsWithin, name+" to be kept by all that are to", func() bool {
			info := c.info(name)
			return info != nil && whole(info.Cluster)
		})
	}
	testbed.Eventually(c.t, electsWithin, "the consumer to be kept by all that are to", func() bool {
		consumer, err := c.js.Consumer(c.t.Context(), c.name+"-tasks", "workers")
		return err == nil && whole(consumer.CachedInfo().Cluster)
	})
	c.t.Logf("all of it is on %d servers after %s", replicas, time.Since(began).Round(100*time.Millisecond))
}

// info is nil while nobody answers.
func (c natsCluster) info(stream string) *jetstream.StreamInfo {
	s, err := c.js.Stream(c.t.Context(), stream)
	if err != nil || s.CachedInfo().Cluster == nil {
		return nil
	}
	return s.CachedInfo()
}

// leader is the server that leads a stream.
func (c natsCluster) leader(stream string) (leader *testbed.NATS) {
	c.t.Helper()
	testbed.Eventually(c.t, electsWithin, "a leader of "+stream, func() bool {
		info := c.info(stream)
		if info == nil {
			return false
		}
		i := slices.IndexFunc(c.nodes, func(n *testbed.NATS) bool { return n.Name() == info.Cluster.Leader })
		if i < 0 {
			return false
		}
		leader = c.nodes[i]
		return true
	})
	return leader
}
