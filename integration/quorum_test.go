package integration

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/integration/testbed"
)

// replicas of every topic where leadership matters, of which two have to be in sync.
const replicas = 3

// quorum is three brokers on each side, a copy under way between them, and a side to break.
type quorum struct {
	*installation
	topic  string
	report *report
	random *rand.Rand
}

// testQuorum does what needs leaders that can move.
func testQuorum(t *testing.T, r *report) {
	start := func(version string) *testbed.Cluster {
		return testbed.Kafka(t, version, testbed.WithBrokers(replicas), testbed.WithHeap("384m"), testbed.WithConfig("min.insync.replicas", "2"))
	}
	const topic = "led"
	source, target := start(testbed.V33), start(testbed.V43)
	k := copying(t, source, target, topic).over(testbed.StartNATS(t)).
		with("KFERRY_REPLICATION_FACTOR", "3", "KFERRY_OFFSETS_REPLICATION_FACTOR", "3")
	source.CreateTopic(topic, 6, replicas)
	k.start("coordinator")
	k.start("worker")
	k.start("worker")
	q := quorum{k, topic, r, seeded(t)}
	load := smallBatches
	for range times(1, 2) {
		for _, fault := range []func(quorum, string, *testbed.Cluster){quorum.leadersMove, quorum.brokerKilled, quorum.rollingRestart, quorum.majorityKilled} {
			for i, c := range []*testbed.Cluster{source, target} {
				side := []string{"source", "target"}[i]
				flow := traffic(k, topic, load, 3000, 1500)
				k.grows(topic, 3000)
				fault(q, side, c)
				q.elect(c)
				load.First = flow.Stop()
				k.await(topic)
			}
		}
	}
	k.row = r.row("all of three brokers on each side")
	k.compare(topic)
}

// at is the installation for one line of the report.
func (q quorum) at(fault string, side string) *installation {
	at := *q.installation
	at.row = q.report.row(side + ": " + fault)
	return &at
}

// broken is the topic on a side.
func (q quorum) broken(c *testbed.Cluster) string {
	if c == q.source {
		return q.topic
	}
	return q.copyOf(q.topic)
}

// leadersMove gives every partition another leader, by a changed order of its replicas and an election.
func (q quorum) leadersMove(side string, c *testbed.Cluster) {
	k := q.at("leaders move", side)
	for range times(2, 6) {
		k.grows(q.topic, 1000+q.random.Int64N(2000))
		before := c.Leaders(q.broken(c))
		ends, since := k.target.Ends(k.copyOf(q.topic)), time.Now()
		q.rotate(c)
		q.elect(c)
		k.resumes(q.topic, ends, since)
		if after := c.Leaders(q.broken(c)); slices.Equal(before, after) {
			k.t.Errorf("%s: the leaders have not moved: %v", side, after)
		}
		k.row.happened(1)
	}
	k.row.demand(k.t, copyWithin)
}

// rotate puts the next replica of every partition first.
func (q quorum) rotate(c *testbed.Cluster) {
	q.t.Helper()
	admin := c.Admin()
	defer admin.Close()
	var order kadm.AlterPartitionAssignmentsReq
	topic := q.broken(c)
	for _, p := range c.Topics(topic)[topic].Partitions {
		order.Assign(topic, p.Partition, append(slices.Clone(p.Replicas[1:]), p.Replicas[0]))
	}
	answers, err := admin.AlterPartitionAssignments(q.t.Context(), order)
	if err == nil {
		err = answers.Error()
	}
	if err != nil {
		q.t.Fatalf("reorder replicas of %s: %v", topic, err)
	}
}

// elect makes the first replica of every partition its leader, once that is in sync.
func (q quorum) elect(c *testbed.Cluster) {
	q.t.Helper()
	admin := c.Admin()
	defer admin.Close()
	topic := q.broken(c)
	testbed.Eventually(q.t, copyWithin, "every partition to be led by its first replica", func() bool {
		ctx, cancel := context.WithTimeout(q.t.Context(), soon)
		defer cancel()
		_, _ = admin.ElectLeaders(ctx, kadm.ElectPreferredReplica, nil) // whether it did is seen below
		for _, p := range c.Topics(topic)[topic].Partitions {
			if len(p.Replicas) == 0 || p.Leader != p.Replicas[0] {
				return false
			}
		}
		return true
	})
}

// brokerKilled is kill -9 of a broker: its partitions move to the others, and it comes back.
func (q quorum) brokerKilled(side string, c *testbed.Cluster) {
	k, back := q.at("broker killed (6 s until the cluster moves its leaders)", side), q.at("broker back", side)
	for range times(1, 2) {
		k.grows(q.topic, 1000)
		ends, since := k.target.Ends(k.copyOf(q.topic)), time.Now()
		victim := int(q.random.Int64N(replicas))
		c.Kill(victim)
		k.resumes(q.topic, ends, since)
		c.Start(victim)
		back.resumes(q.topic, k.target.Ends(k.copyOf(q.topic)), time.Now())
		k.row.happened(1)
		back.row.happened(1)
	}
	k.row.demand(k.t, copyWithin)
	back.row.demand(k.t, copyWithin)
}

// rollingRestart restarts one broker after the other, in order.
func (q quorum) rollingRestart(side string, c *testbed.Cluster) {
	k := q.at("rolling restart", side)
	for broker := range replicas {
		ends := k.target.Ends(k.copyOf(q.topic))
		c.Stop(broker)
		since := time.Now()
		k.resumes(q.topic, ends, since)
		c.Start(broker)
		k.resumes(q.topic, k.target.Ends(k.copyOf(q.topic)), time.Now())
		k.row.happened(1)
	}
	k.row.demand(k.t, copyWithin)
}

// majorityKilled is kill -9 of two brokers: nothing can be acknowledged until they are back.
func (q quorum) majorityKilled(side string, c *testbed.Cluster) {
	k := q.at("two brokers killed and back", side)
	first := int(q.random.Int64N(replicas))
	second := (first + 1) % replicas
	c.Kill(first)
	c.Kill(second)
	pass(k.t, 5*time.Second)
	c.Start(first, second)
	k.resumes(q.topic, k.target.Ends(k.copyOf(q.topic)), time.Now())
	k.row.happened(1)
	k.row.demand(k.t, copyWithin)
}

// testFrozenFollower freezes a broker that counts as in sync, so that the other acknowledges nothing where it is a follower, until it
// is back. Partitions without it go on meanwhile, though they share a leader, a worker and its connections with those that wait; and a
// worker that is killed meanwhile has a successor that finds a log whose end is beyond its high watermark.
func testFrozenFollower(t *testing.T, r *report) {
	const (
		topic, beside, trickle = "frozen", "beside", "trickle"
		neighbours             = 8
		inSync                 = "90000" // ms that the frozen broker counts as in sync
	)
	frozen := time.Duration(times(25, 40)) * time.Second
	target := testbed.Kafka(t, testbed.V43, testbed.WithBrokers(2),
		testbed.WithConfig("replica.lag.time.max.ms", inSync), testbed.WithConfig("broker.session.timeout.ms", inSync))
	source := testbed.Shared(t, testbed.V43)
	k := copying(t, source, target, topic+","+beside+","+trickle).over(testbed.StartNATS(t)).
		with("KFERRY_REPLICATION_FACTOR", "2", "KFERRY_OFFSETS_REPLICATION_FACTOR", "2")
	k.row = r.row(fmt.Sprintf("follower frozen for %v", frozen))
	source.CreateTopic(topic, partitions, 1)
	source.CreateTopic(beside, neighbours, 1)
	source.CreateTopic(trickle, 24, 1)
	target.CreateTopic(k.copyOf(beside), neighbours, 1)
	flow, calm := traffic(k, topic, smallBatches, 20_000, 2000), traffic(k, beside, smallBatches, 2000, 2000)
	drops := traffic(k, trickle, smallBatches, 240, 2) // which meet the silent follower one after the other
	k.start("coordinator")
	worker := k.start("worker")
	k.grows(topic, 5000)
	k.await(trickle)

	leader, copied := brokerOf(t, target, 0), k.copyOf(topic)
	led := ledBy(0, target.Leaders(k.copyOf(beside)))
	target.Pause(1)
	unpause := sync.OnceFunc(func() { target.Unpause(1) })
	defer unpause()
	since := time.Now()
	testbed.Eventually(t, soon, "a log end beyond its high watermark", func() bool { return len(unsettled(t, leader, copied)) > 0 })
	sent := calm.Sent()
	pace := watch(t, leader, k.copyOf(beside), led, frozen*2/3)
	expected := float64(calm.Sent()-sent) * float64(len(led)) / neighbours
	if float64(pace.records) < expected/2 || pace.longest > frozen*3/5 {
		t.Errorf("%d of %.0f records of neighbours were copied while a follower was silent, one of them stood still for %v", pace.records, expected, pace.longest)
	}
	k.row.says("neighbours: %.0f %% of their traffic copied meanwhile, longest pause %v", 100*float64(pace.records)/expected, pace.longest.Round(100*time.Millisecond))

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
	k.resumes(topic, k.target.Ends(copied), time.Now())
	k.row.happened(1)
	drops.Stop()
	k.await(trickle)
	k.compare(trickle)
	k.finish(calm, beside)
	k.finish(flow, topic)
	k.stop(successor)
}

// ledBy are the partitions that a broker leads.
func ledBy(broker int, leaders []int) (led []int32) {
	for p, leader := range leaders {
		if leader == broker {
			led = append(led, int32(p))
		}
	}
	return led
}

// A pace is how some partitions grew in a time, and how long the one that stood still longest did.
type pace struct {
	records int64
	lasted  time.Duration
	longest time.Duration
}

// watch looks at partitions through one broker.
func watch(t *testing.T, broker *kgo.Broker, topic string, partitions []int32, during time.Duration) pace {
	t.Helper()
	began := time.Now()
	first := highWatermarks(t, broker, topic, partitions)
	last, moved := maps.Clone(first), map[int32]time.Time{}
	p := pace{}
	for p.lasted < during {
		pass(t, 100*time.Millisecond)
		for partition, end := range highWatermarks(t, broker, topic, partitions) {
			since, known := moved[partition]
			if !known {
				since = began
			}
			p.longest = max(p.longest, time.Since(since))
			if end > last[partition] {
				p.records += end - last[partition]
				last[partition], moved[partition] = end, time.Now()
			}
		}
		p.lasted = time.Since(began)
	}
	return p
}

func highWatermarks(t *testing.T, broker *kgo.Broker, topic string, partitions []int32) map[int32]int64 {
	t.Helper()
	request := kmsg.NewPtrListOffsetsRequest()
	request.ReplicaID = -1
	asked := kmsg.NewListOffsetsRequestTopic()
	asked.Topic = topic
	for _, p := range partitions {
		partition := kmsg.NewListOffsetsRequestTopicPartition()
		partition.Partition, partition.Timestamp = p, -1
		asked.Partitions = append(asked.Partitions, partition)
	}
	request.Topics = append(request.Topics, asked)
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	answer, err := broker.RetriableRequest(ctx, request)
	if err != nil {
		t.Fatalf("ask broker: %v", err)
	}
	ends := map[int32]int64{}
	for _, p := range answer.(*kmsg.ListOffsetsResponse).Topics[0].Partitions {
		ends[p.Partition] = p.Offset
	}
	return ends
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
