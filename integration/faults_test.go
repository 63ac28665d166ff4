package integration

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/integration/testbed"
)

// Whatever fails between a source and a target, nothing is lost, doubled or reordered. The tests share the clusters that they
// break, and mend them.
func TestFaults(t *testing.T) {
	f := newFar(t)
	for _, test := range []struct {
		name string
		run  func(far, *testing.T)
	}{
		{"worker killed", far.killedWorker},
		{"run killed", far.killedRun},
		{"two workers on one partition", far.twoWorkers},
		{"worker drains", far.workerDrains},
		{"NATS lost", far.natsLost},
		{"connections cut", far.connectionsCut},
		{"answers stalled", far.answersStalled},
		{"target restarted", far.targetRestarted},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(f, t) })
	}
}

// far is a pair of clusters of different versions at a distance that can be set: answers of the target under way for a while
// let a process die with requests in flight, and a source that sends slowly lets no life see the end.
type far struct{ source, target *testbed.Cluster }

func newFar(t *testing.T) far {
	t.Helper()
	return far{
		source: testbed.Kafka(t, testbed.V33, testbed.WithProxy()),
		target: testbed.Kafka(t, testbed.V43, testbed.WithProxy()),
	}
}

// slow sets the distance for one test.
func (f far) slow(t *testing.T, sourceBytesPerSecond int, targetDelay time.Duration) {
	t.Helper()
	f.source.Proxy(0).Limit(testbed.Answers, sourceBytesPerSecond)
	f.target.Proxy(0).Delay(targetDelay)
	t.Cleanup(func() {
		f.source.Proxy(0).Limit(testbed.Answers, 0)
		f.target.Proxy(0).Delay(0)
	})
}

func (f far) copying(t *testing.T, topic string) *installation {
	t.Helper()
	return copying(t, f.source.For(t), f.target.For(t), topic)
}

// traffic is records of a kind that come while a fault is there: a backlog first, then a steady flow.
func traffic(k *installation, topic string, load testbed.Load, backlog, perSecond int) *testbed.Traffic {
	k.t.Helper()
	load.Records = backlog
	next := testbed.Produce(k.t, k.source, topic, load)
	load.Records, load.First = 0, next
	return testbed.Live(k.t, k.source, topic, load, perSecond)
}

// grows waits until so many more records of a topic have landed, the copy being under way, and returns how long it took.
func (k *installation) grows(topic string, records int64) time.Duration {
	k.t.Helper()
	before, since := k.copied(topic), time.Now()
	testbed.Eventually(k.t, copyWithin, fmt.Sprintf("%d more records of %s", records, topic),
		func() bool { return k.copied(topic) >= before+records })
	return time.Since(since).Round(100 * time.Millisecond)
}

// finish ends the traffic and demands an exact copy.
func (k *installation) finish(traffic *testbed.Traffic, topic string) {
	k.t.Helper()
	traffic.Stop()
	k.await(topic)
	k.compare(topic)
}

// A worker is frozen until another one has its partitions, and then goes on where it was, with its requests in flight:
// for a moment both run the same partitions.
func (f far) twoWorkers(t *testing.T) {
	f.slow(t, 0, 10*time.Millisecond)
	const topic = "zombies"
	k := f.copying(t, topic).over(testbed.StartNATS(t))
	k.source.CreateTopic(topic, partitions, 1)
	flow := traffic(k, topic, smallBatches, 50_000, 4000)
	k.start("coordinator")
	workers := []*testbed.Process{k.start("worker"), k.start("worker")}
	rounds, takenOver := 4, 0
	if long() {
		rounds = 30
	}
	random := seeded(t)
	for round := 0; takenOver < rounds; round++ {
		if round == 4*rounds {
			t.Fatalf("only %d of %d frozen workers held a lease", takenOver, round)
		}
		k.grows(topic, 1000+random.Int64N(2000))
		zombie := workers[round%2]
		held := sum(metrics(t, zombie), "kferry_leases_held")
		zombie.Pause()
		frozen := k.target.Ends(k.copyOf(topic))
		testbed.Eventually(t, soon, "the other worker to take over", func() bool {
			for p, end := range k.target.Ends(k.copyOf(topic)) {
				if end <= frozen[p]+500 { // more than was in flight
					return false
				}
			}
			return true
		})
		zombie.Unpause()
		if held > 0 {
			takenOver++
		}
	}
	k.finish(flow, topic)
	fenced := sum(metrics(t, workers[0]), "kferry_leases_lost_total") + sum(metrics(t, workers[1]), "kferry_leases_lost_total")
	if fenced == 0 {
		t.Errorf("no run was ended by the fence: in %d rounds no two workers ran one partition", takenOver)
	}
	t.Logf("%d times a worker woke up to find its partitions with another; %.0f runs ended by the fence", takenOver, fenced)
}

// NATS loses everything it knew, and later is away for a while.
func (f far) natsLost(t *testing.T) {
	const topic = "amnesia"
	nats := testbed.StartNATS(t)
	k := f.copying(t, topic).over(nats)
	k.source.CreateTopic(topic, partitions, 1)
	flow := traffic(k, topic, smallBatches, 100_000, 3000)
	k.start("coordinator")
	worker := k.start("worker")
	for range 2 {
		k.grows(topic, 5000)
		nats.Wipe()
	}
	k.grows(topic, 5000)
	nats.Stop()
	nats.Start()
	k.grows(topic, 5000)
	nats.Kill()
	worker.Kill() // whoever comes next finds cursors as old as the last write to the target
	nats.Wipe()
	k.start("worker")
	k.grows(topic, 5000)
	k.finish(flow, topic)
}

// A worker that is told to stop hands its partitions on at once: nobody waits for its leases to run out.
func (f far) workerDrains(t *testing.T) {
	const (
		topic = "drained"
		lease = time.Minute // far longer than the test looks
	)
	k := f.copying(t, topic).over(testbed.StartNATS(t)).with("KFERRY_LEASE", lease.String())
	k.source.CreateTopic(topic, partitions, 1)
	flow := traffic(k, topic, smallBatches, 50_000, 3000)
	k.start("coordinator")
	first := k.start("worker")
	k.grows(topic, 5000)
	k.start("worker")
	asked := time.Now()
	k.stop(first)
	t.Logf("the worker ended in order within %v", time.Since(asked).Round(time.Millisecond))
	before := k.target.Ends(k.copyOf(topic))
	testbed.Eventually(t, soon, "the other worker to go on with every partition", func() bool {
		for p, end := range k.target.Ends(k.copyOf(topic)) {
			if end <= before[p] {
				return false
			}
		}
		return true
	})
	k.finish(flow, topic)
}

// The target's broker goes away under load and comes back, in order and not, also without remembering the producer.
func (f far) targetRestarted(t *testing.T) {
	f.slow(t, 0, 5*time.Millisecond)
	old := time.Now().Add(-48 * time.Hour) // past the day for which a broker keeps a producer
	for _, test := range []struct {
		name  string
		start time.Time
		kill  bool
	}{
		{name: "in order"},
		{name: "killed", kill: true},
		{name: "in order, old records", start: old},
		{name: "killed, old records", start: old, kill: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			topic := "restart-" + slug(test.name)
			k := f.copying(t, topic)
			k.source.CreateTopic(topic, partitions, 1)
			load := smallBatches
			load.Start = test.start
			flow := traffic(k, topic, load, 50_000, 3000)
			run := k.start("run")
			restarts := 1
			if long() {
				restarts = 4
			}
			for range restarts {
				k.grows(topic, 3000)
				if test.kill {
					k.target.Kill(0)
				} else {
					k.target.Stop(0)
				}
				k.target.Start(0)
				t.Logf("%v after the broker was back the copy had gone on", k.grows(topic, 3000))
			}
			if !test.start.IsZero() {
				k.forgotten(run, topic)
			}
			k.finish(flow, topic)
		})
	}
}

// forgotten restarts the target while kferry is frozen, and sees that the broker then knows no producer of the copy: from
// here on nothing but the log can say what has landed.
func (k *installation) forgotten(run *testbed.Process, topic string) {
	k.t.Helper()
	run.Pause()
	k.target.Restart(0)
	described, err := k.target.Admin().DescribeProducers(k.t.Context(), kadm.TopicsSet{k.copyOf(topic): {0: {}, 1: {}, 2: {}, 3: {}}})
	if err != nil {
		k.t.Fatalf("describe producers: %v", err)
	}
	described.EachProducer(func(p kadm.DescribedProducer) {
		k.t.Errorf("%s-%d: the broker remembers producer %#x, so the records are not old enough for this test", topic, p.Partition, p.ProducerID)
	})
	run.Unpause()
	k.grows(topic, 3000)
}

// Connections end in the middle of requests and of answers, on both sides.
func (f far) connectionsCut(t *testing.T) {
	const topic = "cuts"
	k := f.copying(t, topic)
	k.source.CreateTopic(topic, partitions, 1)
	flow := traffic(k, topic, smallBatches, 50_000, 4000)
	k.start("run")
	random := seeded(t)
	cuts := 24
	if long() {
		cuts = 200
	}
	for i := range cuts {
		k.grows(topic, 1+random.Int64N(1500))
		proxy := []*testbed.Proxy{f.source.Proxy(0), f.target.Proxy(0)}[i%2]
		way := []testbed.Direction{testbed.Answers, testbed.Requests}[i/2%2]
		proxy.CutAfter(way, 1+random.Int64N(20_000))
	}
	k.grows(topic, 1000)
	k.finish(flow, topic)
	t.Logf("%d cuts", cuts)
}

// Answers do not come back although the target has carried the requests out, and the process that waits for them dies.
func (f far) answersStalled(t *testing.T) {
	const topic = "stalls"
	k := f.copying(t, topic)
	k.source.CreateTopic(topic, partitions, 1)
	flow := traffic(k, topic, smallBatches, 20_000, 3000)
	proxy := f.target.Proxy(0)
	run := k.start("run")
	rounds := 2
	if long() {
		rounds = 20
	}
	for range rounds {
		k.grows(topic, 2000)
		proxy.Stall(testbed.Requests) // until all that is under way is answered
		acknowledged := k.settled(topic)
		proxy.Stall(testbed.Answers)
		proxy.Resume(testbed.Requests)
		testbed.Eventually(t, soon, "requests to land unanswered", func() bool { return k.copied(topic) > acknowledged })
		run.Kill()
		proxy.Cut()
		proxy.Resume(testbed.Answers)
		run = k.start("run")
	}
	k.grows(topic, 2000)
	k.finish(flow, topic)
	t.Logf("%d times a process died with requests that had landed unanswered", rounds)
}

// The target acknowledges nothing for 40 s, and the worker that waits for it is killed meanwhile: its successor finds a log
// whose end is beyond its high watermark.
func TestFollowerFrozen(t *testing.T) {
	const (
		topic  = "frozen"
		frozen = 40 * time.Second
		inSync = "90000" // ms that the frozen broker counts as in sync
	)
	target := testbed.Kafka(t, testbed.V43, testbed.WithBrokers(2),
		testbed.WithConfig("replica.lag.time.max.ms", inSync), testbed.WithConfig("broker.session.timeout.ms", inSync))
	source := testbed.Shared(t, testbed.V43)
	source.CreateTopic(topic, partitions, 1)
	k := copying(t, source, target, topic).over(testbed.StartNATS(t)).with("KFERRY_REPLICATION_FACTOR", "2", "KFERRY_OFFSETS_REPLICATION_FACTOR", "2")
	flow := traffic(k, topic, smallBatches, 20_000, 2000)
	k.start("coordinator")
	worker := k.start("worker")
	k.grows(topic, 5000)

	leader, copied := brokerOf(t, target, 0), k.copyOf(topic)
	target.Pause(1)
	unpause := sync.OnceFunc(func() { target.Unpause(1) })
	defer unpause()
	since := time.Now()
	testbed.Eventually(t, soon, "a log end beyond its high watermark", func() bool { return len(unsettled(t, leader, copied)) > 0 })
	worker.Kill()
	var left map[int32]edge
	testbed.Eventually(t, soon, "what the dead worker had sent to land", func() bool {
		now := unsettled(t, leader, copied)
		still := len(now) > 0 && maps.Equal(now, left)
		left = now
		return still
	})
	successor := k.start("worker")
	testbed.Eventually(t, frozen+soon, "the time to pass", func() bool { return time.Since(since) > frozen })
	now := unsettled(t, leader, copied)
	for p, before := range left {
		if now[p] != before {
			t.Errorf("partition %d: log end and high watermark were %v when the worker died and are %v after its successor waited", p, before, now[p])
		}
	}
	t.Logf("log end and high watermark of what is still landing: %v", left)
	unpause()
	t.Logf("%v after the follower was back the copy had gone on", k.grows(topic, 5000))
	k.finish(flow, topic)
	k.stop(successor)
}

// brokerOf is a way to one broker that stays open while others are frozen.
func brokerOf(t *testing.T, c *testbed.Cluster, id int) *kgo.Broker {
	t.Helper()
	client := c.Client()
	if err := client.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	return client.Broker(id)
}

// An edge is where a partition's log ends on its leader, and how far its followers have it.
type edge struct{ end, high int64 }

// unsettled are the partitions led by broker 0 whose log end is beyond the high watermark.
func unsettled(t *testing.T, broker *kgo.Broker, topic string) map[int32]edge {
	t.Helper()
	ask := func(request kmsg.Request) kmsg.Response {
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		defer cancel()
		answer, err := broker.RetriableRequest(ctx, request)
		if err != nil {
			t.Fatalf("ask broker 0: %v", err)
		}
		return answer
	}
	metadata := kmsg.NewPtrMetadataRequest()
	metadata.Topics = append(metadata.Topics, kmsg.MetadataRequestTopic{Topic: &topic})
	edges := map[int32]edge{}
	for _, p := range ask(metadata).(*kmsg.MetadataResponse).Topics[0].Partitions {
		if p.Leader != 0 {
			continue
		}
		ends, highs := kmsg.NewPtrOffsetForLeaderEpochRequest(), kmsg.NewPtrListOffsetsRequest()
		end, high := kmsg.NewOffsetForLeaderEpochRequestTopicPartition(), kmsg.NewListOffsetsRequestTopicPartition()
		end.Partition, end.LeaderEpoch = p.Partition, p.LeaderEpoch
		high.Partition, high.Timestamp = p.Partition, -1
		ends.ReplicaID, highs.ReplicaID = -1, -1
		ends.Topics = append(ends.Topics, kmsg.OffsetForLeaderEpochRequestTopic{Topic: topic, Partitions: []kmsg.OffsetForLeaderEpochRequestTopicPartition{end}})
		highs.Topics = append(highs.Topics, kmsg.ListOffsetsRequestTopic{Topic: topic, Partitions: []kmsg.ListOffsetsRequestTopicPartition{high}})
		e := edge{
			end:  ask(ends).(*kmsg.OffsetForLeaderEpochResponse).Topics[0].Partitions[0].EndOffset,
			high: ask(highs).(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0].Offset,
		}
		if e.high < e.end {
			edges[p.Partition] = e
		}
	}
	return edges
}

// A broker of the source goes away in order and comes back: its partitions move to the other one.
func TestSourceLeaderRestarted(t *testing.T) {
	const topic = "leaders"
	source := testbed.Kafka(t, testbed.V43, testbed.WithBrokers(2))
	source.CreateTopic(topic, partitions, 2)
	k := copying(t, source, testbed.Shared(t, testbed.V33), topic)
	flow := traffic(k, topic, testbed.Load{ValueBytes: 200, BatchBytes: 8 << 10, Codec: kgo.Lz4Compression()}, 50_000, 3000)
	k.start("run")
	k.grows(topic, 5000)
	before := source.Leaders(topic)
	if !slices.Contains(before, 1) {
		t.Fatalf("broker 1 leads nothing: %v", before)
	}
	source.Stop(1)
	if during := source.Leaders(topic); slices.ContainsFunc(during, func(leader int) bool { return leader != 0 }) {
		t.Fatalf("leaders were %v and are %v without broker 1", before, during)
	}
	took := k.grows(topic, 5000)
	source.Start(1)
	t.Logf("leaders were %v; %v after broker 1 had gone the copy had gone on", before, took)
	k.finish(flow, topic)
}
