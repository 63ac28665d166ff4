package integration

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/integration/testbed"
)

// traffic is records of a kind that come while a fault is there: a backlog first, then a steady flow.
func traffic(k *installation, topic string, load testbed.Load, backlog, perSecond int) *testbed.Traffic {
	k.t.Helper()
	load.Records = backlog
	next := testbed.Produce(k.t, k.source, topic, load)
	load.Records, load.First = 0, next
	return testbed.Live(k.t, k.source, topic, load, perSecond)
}

// grows waits until so many more records of a topic have landed: the copy is under way.
func (k *installation) grows(topic string, records int64) {
	k.t.Helper()
	before := k.copied(topic)
	testbed.Eventually(k.t, copyWithin, fmt.Sprintf("%d more records of %s", records, topic),
		func() bool { return k.copied(topic) >= before+records })
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
func TestTwoWorkersOnOnePartition(t *testing.T) {
	f := newFar(t)
	f.slow(t, 0, 10*time.Millisecond)
	const topic = "zombies"
	f.source.CreateTopic(topic, partitions, 1)
	k := copying(t, f.source, f.target, topic).over(testbed.StartNATS(t))
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
		frozen := perPartition(t, k.target, k.copyOf(topic))
		testbed.Eventually(t, soon, "the other worker to take over", func() bool {
			for p, end := range perPartition(t, k.target, k.copyOf(topic)) {
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
	t.Logf("%d times a worker woke up to find its partitions with another; %.0f runs ended by the fence", takenOver,
		sum(metrics(t, workers[0]), "kferry_leases_lost_total")+sum(metrics(t, workers[1]), "kferry_leases_lost_total"))
}

// perPartition is the log end of each partition.
func perPartition(t *testing.T, c *testbed.Cluster, topic string) map[int32]int64 {
	t.Helper()
	return c.For(t).Ends(topic)
}

// NATS loses everything it knew, and later is away for a while.
func TestNATSLost(t *testing.T) {
	nats := testbed.StartNATS(t)
	source, target := testbed.Shared(t, testbed.V33), testbed.Shared(t, testbed.V43)
	const topic = "amnesia"
	source.CreateTopic(topic, partitions, 1)
	k := copying(t, source, target, topic).over(nats)
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

// The target's broker goes away under load and comes back, in order and not, also without remembering the producer.
func TestTargetRestarted(t *testing.T) {
	f := newFar(t)
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
			k := copying(t, f.source.For(t), f.target.For(t), topic)
			k.source.CreateTopic(topic, partitions, 1)
			load := smallBatches
			load.Start = test.start
			flow := traffic(k, topic, load, 50_000, 3000)
			run := k.start("run")
			restarts := 2
			if long() {
				restarts = 10
			}
			for range restarts {
				k.grows(topic, 3000)
				if test.kill {
					k.target.Kill(0)
				} else {
					k.target.Stop(0)
				}
				k.target.Start(0)
			}
			k.grows(topic, 3000)
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
func TestConnectionsCut(t *testing.T) {
	f := newFar(t)
	const topic = "cuts"
	f.source.CreateTopic(topic, partitions, 1)
	k := copying(t, f.source, f.target, topic)
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

// Answers do not come back although the target has carried the requests out.
func TestAnswersStalled(t *testing.T) {
	f := newFar(t)
	const topic = "stalls"
	f.source.CreateTopic(topic, partitions, 1)
	k := copying(t, f.source, f.target, topic)
	flow := traffic(k, topic, smallBatches, 20_000, 3000)
	run := k.start("run")
	for range 2 {
		k.grows(topic, 2000)
		f.target.Proxy(0).Stall(testbed.Answers)
		landed := k.copied(topic)
		testbed.Eventually(t, soon, "requests to land unanswered", func() bool { return k.copied(topic) > landed })
		run.Kill() // with them in flight
		f.target.Proxy(0).Cut()
		f.target.Proxy(0).Resume(testbed.Answers)
		run = k.start("run")
	}
	k.grows(topic, 2000)
	k.finish(flow, topic)
}

// Two brokers, each topic on both: a follower that stands still holds back the high watermark, and a broker that goes away
// moves its partitions to the other one.
func TestTwoBrokers(t *testing.T) {
	pair := testbed.Kafka(t, testbed.V43, testbed.WithBrokers(2),
		testbed.WithConfig("default.replication.factor", "2"),
		// A frozen broker stays in the in-sync replicas for longer than it is frozen here.
		testbed.WithConfig("replica.lag.time.max.ms", "90000"),
		testbed.WithConfig("broker.session.timeout.ms", "90000"))
	t.Run("follower frozen", func(t *testing.T) { followerFrozen(t, pair.For(t)) })
	t.Run("source leader restarted", func(t *testing.T) { sourceLeaderRestarted(t, pair.For(t)) })
}

// The target acknowledges nothing for 40 s, and the worker that waits for it is killed meanwhile: its successor finds a log
// whose end is beyond its high watermark.
func followerFrozen(t *testing.T, target *testbed.Cluster) {
	const (
		topic  = "frozen"
		frozen = 40 * time.Second
		lonely = 10 * time.Second // how long the successor looks at the unsettled log, at least
	)
	source := testbed.Shared(t, testbed.V43)
	source.CreateTopic(topic, partitions, 1)
	k := copying(t, source, target, topic).over(testbed.StartNATS(t)).with("KFERRY_REPLICATION_FACTOR", "2", "KFERRY_OFFSETS_REPLICATION_FACTOR", "2")
	flow := traffic(k, topic, smallBatches, 20_000, 2000)
	k.start("coordinator")
	worker := k.start("worker")
	k.grows(topic, 5000)

	target.Pause(1)
	since := time.Now()
	copied := k.copyOf(topic)
	testbed.Eventually(t, soon, "a log end beyond its high watermark", func() bool { return unsettled(t, target, copied) > 0 })
	worker.Kill()
	successor := k.start("worker")
	t.Logf("%d partitions held records that their follower had not: high watermark < log end", unsettled(t, target, copied))
	testbed.Eventually(t, frozen+lonely, "the time to pass", func() bool { return time.Since(since) > frozen })
	target.Unpause(1)
	k.grows(topic, 5000)
	k.finish(flow, topic)
	k.stop(successor)
}

// unsettled counts the partitions led by broker 0 whose log end is beyond the high watermark. It talks to that broker alone,
// since the other one is frozen.
func unsettled(t *testing.T, c *testbed.Cluster, topic string) int {
	t.Helper()
	client := c.Client()
	defer client.Close()
	broker := client.Broker(0)
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
	count := 0
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
		logEnd := ask(ends).(*kmsg.OffsetForLeaderEpochResponse).Topics[0].Partitions[0].EndOffset
		if logEnd > ask(highs).(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0].Offset {
			count++
		}
	}
	return count
}

func sourceLeaderRestarted(t *testing.T, source *testbed.Cluster) {
	const topic = "leaders"
	source.CreateTopic(topic, partitions, 2)
	k := copying(t, source, testbed.Shared(t, testbed.V33), topic)
	flow := traffic(k, topic, testbed.Load{ValueBytes: 200, BatchBytes: 8 << 10, Codec: kgo.Lz4Compression()}, 50_000, 3000)
	k.start("run")
	k.grows(topic, 5000)
	before := source.Leaders(topic)
	source.Restart(1)
	k.grows(topic, 5000)
	t.Logf("leaders were %v and are %v after the restart of broker 1", before, source.Leaders(topic))
	k.finish(flow, topic)
}
