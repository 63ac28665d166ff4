package integration

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/kferry/kferry/integration/testbed"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// Whatever fails between a source and a target, nothing is lost, doubled or reordered, and the copy goes on by itself. The tests share
// the clusters that they break, and mend them. At the end there is a table: see [report].
//
// The short form does each fault a few times. `task faults` takes its time: KFERRY_KILLS workers die (1,000 unless set), and whatever is
// away is away for KFERRY_AWAY (10m unless set).
func TestFaults(t *testing.T) {
	r := new(report)
	t.Cleanup(func() { r.publish(t) })
	for _, part := range []struct {
		name string
		test func(*testing.T, *report)
	}{{"processes", testProcesses}, {"pair", testPair}, {"quorum", testQuorum}, {"frozen follower", testFrozenFollower}} {
		t.Run(part.name, func(t *testing.T) {
			if !long() { // whose table is to be of a machine that does nothing else
				t.Parallel()
			}
			part.test(t, r)
		})
	}
}

// scenario is one fault, or a few of a kind, in an installation of its own.
type scenario struct {
	name string
	run  func(far, *testing.T)
}

// testProcesses breaks what stands between a source and a target, and leaves these alone. Most of the time is spent waiting for leases.
func testProcesses(t *testing.T, r *report) {
	f := newFar(t, r)
	f.slow(t, 8<<20, 10*time.Millisecond)
	for _, s := range []scenario{
		{"workers killed", far.killedWorkers},
		{"worker killed, default settings", far.killedWithDefaults},
		{"worker killed with large batches", far.killedWorker},
		{"coordinators", far.coordinators},
		{"two workers on one partition", far.twoWorkers},
		{"sequence wraps", far.sequenceWraps},
		{"NATS lost", far.natsLost},
		{"last generation", far.lastGeneration},
		{"target topic re-created", far.targetRecreated},
		{"worker drains", far.workerDrains},
	} {
		t.Run(s.name, func(t *testing.T) { t.Parallel(); s.run(f, t) })
	}
}

// testPair breaks one broker on each side, and what is under way to and from them.
func testPair(t *testing.T, r *report) {
	f := newFar(t, r)
	for _, s := range []scenario{
		{"run killed", far.killedRun},
		{"connections cut", far.connectionsCut},
		{"connections stalled", far.connectionsStalled},
		{"answers stalled", far.answersStalled},
		{"lease expired between produce and commit", far.frozenBeforeCommit},
		{"target restarted", far.targetRestarted},
		{"away", far.away},
	} {
		t.Run(s.name, func(t *testing.T) { s.run(f, t) })
	}
}

// far is a pair of clusters of different versions at a distance that can be set: answers of the target under way for a while
// let a process die with requests in flight, and a source that sends slowly lets no life see the end.
type far struct {
	source, target *testbed.Cluster
	report         *report
}

func newFar(t *testing.T, r *report) far {
	t.Helper()
	return far{
		source: testbed.Kafka(t, testbed.V33, testbed.WithProxy()),
		target: testbed.Kafka(t, testbed.V43, testbed.WithProxy(), testbed.WithConfig("producer.id.expiration.check.interval.ms", "500")),
		report: r,
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

// copying is an installation for one line of the report.
func (f far) copying(t *testing.T, fault, topics string) *installation {
	t.Helper()
	k := copying(t, f.source.For(t), f.target.For(t), topics)
	k.row = f.report.row(fault)
	return k
}

// times is how often a fault is brought about: in the short form, and in the long one.
func times(short, inLong int) int {
	if long() {
		return inLong
	}
	return short
}

// setting is a variable of the long form; the short form has values of its own.
func setting[V any](t *testing.T, name string, short, inLong V, parse func(string) (V, error)) V {
	t.Helper()
	given := os.Getenv(name)
	switch {
	case given != "":
		value, err := parse(given)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return value
	case long():
		return inLong
	}
	return short
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

// inFlight is more records of one partition than are under way at a time with the traffic of these tests.
const inFlight = 300

// resumes waits until every partition of a copy has moved from where it was before a fault, by more than what was in flight, and
// notes how long after a moment that was.
func (k *installation) resumes(topic string, before map[int32]int64, since time.Time) {
	k.t.Helper()
	if len(before) == 0 {
		k.t.Fatalf("%s has no partitions whose progress could be seen", k.copyOf(topic))
	}
	defer func() {
		if k.t.Failed() {
			k.t.Logf("before the fault the copy ended at %v; status says %v", before, k.status().partitions(topic))
		}
	}()
	testbed.Eventually(k.t, copyWithin, "every partition of "+topic+" to move again", func() bool {
		now := k.positions(topic)
		for p, end := range before {
			if now[p] <= end+inFlight {
				return false
			}
		}
		return true
	})
	took := time.Since(since)
	k.row.resumedAfter(took)
	k.t.Logf("%s: every partition had moved again after %v", k.row.fault, took.Round(10*time.Millisecond))
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
	const topic = "zombies"
	k := f.copying(t, "two workers on one partition", topic).over(testbed.StartNATS(t))
	k.source.CreateTopic(topic, partitions, 1)
	flow := traffic(k, topic, smallBatches, 50_000, 4000)
	k.start("coordinator")
	workers := []*testbed.Process{k.start("worker"), k.start("worker")}
	rounds, takenOver := times(4, 15), 0
	random := seeded(t)
	for round := 0; takenOver < rounds; round++ {
		if round == 4*rounds {
			t.Fatalf("only %d of %d frozen workers held a lease", takenOver, round)
		}
		k.grows(topic, 1000+random.Int64N(2000))
		zombie := workers[round%2]
		held := sum(metrics(t, zombie), "kferry_leases_held")
		before, since := k.target.Ends(k.copyOf(topic)), time.Now()
		zombie.Pause()
		if held == 0 {
			zombie.Unpause()
			continue
		}
		k.resumes(topic, before, since)
		zombie.Unpause()
		takenOver++
	}
	k.row.happened(takenOver)
	k.finish(flow, topic)
	fenced := sum(metrics(t, workers[0]), "kferry_leases_lost_total") + sum(metrics(t, workers[1]), "kferry_leases_lost_total")
	if fenced == 0 {
		t.Errorf("no run was ended by the fence: in %d rounds no two workers ran one partition", takenOver)
	}
	k.row.says("%.0f runs ended by the fence", fenced)
}

// A worker's requests have landed and it has not heard of it: it is frozen before it can commit, its lease expires, another worker finds
// what landed and goes on, and then the first one wakes up to answers that say all is well.
func (f far) frozenBeforeCommit(t *testing.T) {
	const topic = "late"
	k := f.copying(t, "lease expired between produce and commit", topic).over(testbed.StartNATS(t))
	k.source.CreateTopic(topic, partitions, 1)
	flow := traffic(k, topic, smallBatches, 20_000, 2500)
	proxy := f.target.Proxy(0)
	k.start("coordinator")
	workers := []*testbed.Process{k.start("worker")} // it has all leases
	k.grows(topic, 2000)
	rounds := times(2, 6)
	for range rounds {
		workers = append(workers, k.start("worker"))
		late, successor := workers[0], workers[1]
		workers = workers[1:]
		k.grows(topic, 2000)
		proxy.Stall(testbed.Requests) // until all that is under way is answered
		acknowledged := k.settled(topic)
		proxy.Stall(testbed.Answers)
		proxy.Resume(testbed.Requests)
		testbed.Eventually(t, soon, "requests to land unanswered", func() bool { return k.copied(topic) > acknowledged })
		before, since := k.target.Ends(k.copyOf(topic)), time.Now()
		late.Pause()
		proxy.Resume(testbed.Answers) // they wait in the frozen worker's sockets
		k.resumes(topic, before, since)
		late.Unpause()
		testbed.Eventually(t, soon, "the fence to end the late worker's runs", func() bool {
			return sum(metrics(t, late), "kferry_leases_lost_total") > 0
		})
		k.stop(late)
		testbed.Eventually(t, soon, "its successor to hold all leases", func() bool {
			return sum(metrics(t, successor), "kferry_leases_held") == partitions
		})
	}
	k.row.happened(rounds)
	k.finish(flow, topic)
}

// NATS loses everything it knew, and is away for a moment, and dies.
func (f far) natsLost(t *testing.T) {
	const topic = "amnesia"
	nats := testbed.StartNATS(t)
	wiped := f.copying(t, "NATS wiped", topic).over(nats)
	wiped.source.CreateTopic(topic, partitions, 1)
	flow := traffic(wiped, topic, smallBatches, 50_000, 3000)
	wiped.start("coordinator")
	worker := wiped.start("worker")
	killed := *wiped
	killed.row = f.report.row("NATS killed")
	wipes := times(2, 6)
	for range wipes {
		wiped.grows(topic, 5000)
		nats.Wipe()
		wiped.resumes(topic, wiped.target.Ends(wiped.copyOf(topic)), time.Now())
		nats.Kill()
		nats.Start()
		killed.resumes(topic, wiped.target.Ends(wiped.copyOf(topic)), time.Now())
	}
	nats.Kill()
	worker.Kill() // whoever comes next finds cursors as old as the last write to the target
	nats.Wipe()
	wiped.start("worker")
	wiped.grows(topic, 5000)
	wiped.row.happened(wipes + 1)
	killed.row.happened(wipes)
	wiped.finish(flow, topic)
	killed.compare(topic)
}

// A worker that is told to stop hands its partitions on at once: nobody waits for its leases to run out.
func (f far) workerDrains(t *testing.T) {
	const (
		topic = "drained"
		lease = time.Minute // far longer than the test looks
	)
	k := f.copying(t, "worker told to stop", topic).over(testbed.StartNATS(t)).with("KFERRY_LEASE", lease.String())
	k.source.CreateTopic(topic, partitions, 1)
	flow := traffic(k, topic, smallBatches, 50_000, 3000)
	k.start("coordinator")
	worker := k.start("worker")
	k.grows(topic, 5000)
	rounds := times(2, 6)
	for range rounds {
		next := k.start("worker")
		k.grows(topic, 2000)
		before, asked := k.target.Ends(k.copyOf(topic)), time.Now()
		k.stop(worker)
		k.resumes(topic, before, asked)
		worker = next
	}
	k.row.happened(rounds)
	k.row.demand(t, resumesWithin)
	k.finish(flow, topic)
}

// Coordinators die while every partition is idle, so that only they can set the copy going again: one of two, both, and both while the
// states say, by a clock that was an hour ahead or behind, that nothing is to be tried for long.
func (f far) coordinators(t *testing.T) {
	const topic = "idle"
	nats := testbed.StartNATS(t)
	k := f.copying(t, "coordinator killed", topic).over(nats)
	k.source.CreateTopic(topic, partitions, 1)
	worker := k.start("worker")
	load := smallBatches
	load.First = testbed.Produce(t, k.source, topic, testbed.Load{Records: 10_000, ValueBytes: load.ValueBytes})
	both := []*testbed.Process{k.start("coordinator"), k.start("coordinator")}
	k.await(topic)
	one := *k
	one.row = f.report.row("one of two coordinators killed")
	clocks := *k
	clocks.row = f.report.row("clock jumps of an hour")
	for round := range times(3, 9) {
		testbed.Eventually(t, soon, "every partition to be idle", func() bool { return sum(metrics(t, worker), "kferry_leases_held") == 0 })
		before := k.target.Ends(k.copyOf(topic))
		at := k
		both[0].Kill()
		switch round % 3 {
		case 0:
			at = &one
		case 1:
			both[1].Kill()
		case 2:
			at = &clocks
			both[1].Kill()
			at.setClocks(topic)
		}
		live := testbed.Live(t, k.source, topic, load, 4000)
		since := time.Now()
		both[0] = k.start("coordinator")
		if round%3 > 0 {
			both[1] = k.start("coordinator")
		}
		at.resumes(topic, before, since)
		at.row.happened(1)
		load.First = live.Stop()
		k.await(topic)
	}
	for _, at := range []*installation{k, &one, &clocks} {
		at.row.demand(t, resumesWithin)
		at.compare(topic)
	}
}

// setClocks leaves the states that workers leave whose clocks are an hour ahead, and behind.
func (k *installation) setClocks(topic string) {
	k.t.Helper()
	at, err := spec.ParseNATS(k.env["NATS_URL"])
	if err != nil {
		k.t.Fatal(err)
	}
	queue, err := lease.Open(k.t.Context(), lease.Options{NATS: at, Name: k.env["KFERRY_NAME"], LeaseTime: leaseTime})
	if err != nil {
		k.t.Fatal(err)
	}
	defer queue.Close()
	now := time.Now()
	for p := range int32(partitions) {
		jump := []time.Duration{time.Hour, -time.Hour}[p%2]
		task := lease.Task{Kind: lease.KindMirror, Flow: k.alias + "->central", Topic: topic, Partition: p}
		state := lease.State{Reason: lease.ReasonUnreachable, Detail: "a clock was set", Attempts: 1, Since: now.Add(jump), Next: now.Add(jump)}
		if err := queue.PutState(k.t.Context(), task, state); err != nil {
			k.t.Fatal(err)
		}
	}
}

// The target's broker dies under load and comes back, remembering nothing of the producer: its records are older than the day for which
// it keeps one. Then it forgets the producer in two other ways while kferry stands still.
func (f far) targetRestarted(t *testing.T) {
	f.slow(t, 0, 5*time.Millisecond)
	const topic = "restart"
	load := smallBatches
	load.Start = time.Now().Add(-48 * time.Hour)
	k := f.copying(t, "target killed, records of two days ago", topic)
	k.source.CreateTopic(topic, partitions, 1)
	flow := traffic(k, topic, load, 20_000, 2000)
	run := k.start("run")
	kills := times(1, 5)
	for range kills {
		k.grows(topic, 3000)
		k.target.Kill(0)
		k.target.Start(0)
		k.resumes(topic, k.target.Ends(k.copyOf(topic)), time.Now())
	}
	k.row.happened(kills)
	k.row.demand(t, copyWithin)
	k.finish(flow, topic)

	for _, oblivion := range []struct {
		fault  string
		forget func(c *testbed.Cluster)
	}{
		{"target restarted, producer forgotten", func(c *testbed.Cluster) { c.Restart(0) }},
		{"producer id expired during a pause", func(c *testbed.Cluster) { c.SetConfig("producer.id.expiration.ms", "1000") }},
	} {
		paused := *k
		paused.row = f.report.row(oblivion.fault)
		load.First = flow.Stop()
		flow = traffic(&paused, topic, load, 5000, 2000)
		rounds := times(1, 3)
		for range rounds {
			paused.grows(topic, 3000)
			run.Pause()
			oblivion.forget(paused.target)
			testbed.Eventually(t, soon, "the broker to forget the producer", func() bool { return len(paused.producers(topic)) == 0 })
			paused.target.SetConfig("producer.id.expiration.ms", "")
			before, since := paused.target.Ends(paused.copyOf(topic)), time.Now()
			run.Unpause()
			paused.resumes(topic, before, since)
		}
		paused.row.happened(rounds)
		paused.finish(flow, topic)
	}
}

// producers are those that the target's brokers remember of a copy.
func (k *installation) producers(topic string) []kadm.DescribedProducer {
	k.t.Helper()
	described, err := k.watching().DescribeProducers(k.t.Context(), kadm.TopicsSet{k.copyOf(topic): {0: {}, 1: {}, 2: {}, 3: {}}})
	if err != nil {
		k.t.Fatalf("describe producers: %v", err)
	}
	var all []kadm.DescribedProducer
	described.EachProducer(func(p kadm.DescribedProducer) { all = append(all, p) })
	return all
}

// Connections end in the middle of requests and of answers, on both sides.
func (f far) connectionsCut(t *testing.T) {
	const topic = "cuts"
	k := f.copying(t, "connection cut", topic)
	k.source.CreateTopic(topic, partitions, 1)
	flow := traffic(k, topic, smallBatches, 50_000, 4000)
	k.start("run")
	random := seeded(t)
	cuts := times(24, 100)
	for i := range cuts {
		k.grows(topic, 1+random.Int64N(1500))
		proxy := []*testbed.Proxy{f.source.Proxy(0), f.target.Proxy(0)}[i%2]
		way := []testbed.Direction{testbed.Answers, testbed.Requests}[i/2%2]
		before, since := k.target.Ends(k.copyOf(topic)), time.Now()
		proxy.CutAfter(way, 1+random.Int64N(20_000))
		if i%4 == 0 {
			k.resumes(topic, before, since)
		}
	}
	k.grows(topic, 1000)
	k.row.happened(cuts)
	k.finish(flow, topic)
}

// Nothing comes back for longer than kferry waits for any answer, though connections stay open; and then everything comes slowly.
func (f far) connectionsStalled(t *testing.T) {
	const (
		topic = "silence"
		stall = 11 * time.Second // kferry waits 10 s for an answer
		crawl = 40_000           // bytes a second, a tenth of the traffic
	)
	k := f.copying(t, "connections stalled 11 s", topic)
	k.source.CreateTopic(topic, partitions, 1)
	flow := traffic(k, topic, smallBatches, 20_000, 2000)
	k.start("run")
	rounds := times(1, 2)
	slow := *k
	slow.row = f.report.row("slow delivery")
	for range rounds {
		k.grows(topic, 2000)
		for _, way := range []testbed.Direction{testbed.Answers, testbed.Requests} {
			if way == testbed.Requests && !long() {
				break
			}
			f.source.Proxy(0).Stall(way)
			f.target.Proxy(0).Stall(way)
			pass(t, stall)
			before, since := k.target.Ends(k.copyOf(topic)), time.Now()
			f.source.Proxy(0).Resume(way)
			f.target.Proxy(0).Resume(way)
			k.resumes(topic, before, since)
			k.row.happened(1)
		}
		f.source.Proxy(0).Limit(testbed.Answers, crawl)
		f.target.Proxy(0).Limit(testbed.Requests, crawl)
		slow.grows(topic, 200)
		pass(t, 3*time.Second)
		f.source.Proxy(0).Limit(testbed.Answers, 0)
		f.target.Proxy(0).Limit(testbed.Requests, 0)
		slow.resumes(topic, k.target.Ends(k.copyOf(topic)), time.Now())
		slow.row.happened(1)
	}
	k.finish(flow, topic)
	slow.compare(topic)
}

// pass lets a fault last.
func pass(t *testing.T, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	<-ctx.Done()
}

// Answers do not come back although the target has carried the requests out, and the process that waits for them dies.
func (f far) answersStalled(t *testing.T) {
	const topic = "stalls"
	k := f.copying(t, "killed with answers under way", topic)
	k.source.CreateTopic(topic, partitions, 1)
	flow := traffic(k, topic, smallBatches, 20_000, 3000)
	proxy := f.target.Proxy(0)
	run := k.start("run")
	rounds := times(2, 6)
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
		before, since := k.target.Ends(k.copyOf(topic)), time.Now()
		run = k.start("run")
		k.resumes(topic, before, since)
	}
	k.row.happened(rounds)
	k.finish(flow, topic)
}

// The source, the target and the queue are away, one after the other, for ten minutes each.
//
// The short form makes it 11 seconds. That is honest as far as kferry's own waits go: none depends on how long a thing has been away
// but through back-offs that double up to 3 s, and requests that are given up after 10 s. What only longer absences can show (idle
// connections that are closed, metadata that is forgotten after five minutes) is left to the long form.
func (f far) away(t *testing.T) {
	const topic = "away"
	absence := setting(t, "KFERRY_AWAY", 11*time.Second, 10*time.Minute, time.ParseDuration)
	nats, load := testbed.StartNATS(t), smallBatches
	k := copying(t, f.source.For(t), f.target.For(t), topic).over(nats)
	k.source.CreateTopic(topic, partitions, 1)
	k.start("coordinator")
	k.start("worker")
	k.start("worker")
	for _, absent := range []struct {
		who         string
		leave, back func()
	}{
		{"source", func() { k.source.Kill(0) }, func() { k.source.Start(0) }},
		{"target", func() { k.target.Kill(0) }, func() { k.target.Start(0) }},
		{"queue", nats.Kill, nats.Start},
	} {
		k.row = f.report.row(fmt.Sprintf("%s away for %v", absent.who, absence))
		flow := traffic(k, topic, load, 5000, 1500)
		k.grows(topic, 2000)
		absent.leave()
		pass(t, absence)
		absent.back()
		k.resumes(topic, k.target.Ends(k.copyOf(topic)), time.Now())
		k.row.happened(1)
		k.row.demand(t, copyWithin)
		load.First = flow.Stop()
		k.finish(flow, topic)
	}
}

// kills is how many workers are to die in all.
func kills(t *testing.T) int { t.Helper(); return setting(t, "KFERRY_KILLS", 10, 1000, strconv.Atoi) }
