package integration

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kferry/kferry/integration/testbed"
)

// reactsWithin is far above what anything here takes; what it did take is in the table.
const reactsWithin = 30 * time.Second

// How long it takes until something is done about what happens, with the settings that nobody has to touch: a lease of four seconds. The
// README has the table. `KFERRY_FAULTS=long` measures each more often.
func TestReactions(t *testing.T) {
	const topic = "reactions"
	server := testbed.StartNATS(t)
	k := copying(t, testbed.Shared(t, testbed.V33), testbed.Shared(t, testbed.V43), topic).over(server).
		with("KFERRY_LEASE", "4s", "KFERRY_LOG_LEVEL", "info", "KFERRY_SCALE_IDLE", "10s", "KFERRY_SCALE_DOWN", "10s")
	k.source.CreateTopic(topic, partitions, 1)
	m := reactions{k, new(report), topic, testbed.Produce(t, k.source, topic, testbed.Load{Records: 100 * partitions}), seeded(t)}
	defer func() { t.Logf("reaction times:\n%s", m.table()) }()

	a := &autoscaler{t: t, coordinators: []string{addressOf(t, k.start("coordinator"))}, start: func() worker { return k.start("worker") }}
	a.until("a worker", func(s scale) bool { return s.Desired > 0 })
	k.await(topic)
	m.lagWithWorker(a.workers[0])
	for range times(0, 5) { // TestScaledWorkers has one too
		m.lagWithoutWorker(a)
	}
	for _, w := range a.workers {
		w.Term()
	}
	m.signals(jetStream(t, server.URL()))
	k.await(topic)
	k.compare(topic)
	t.Run("called", func(t *testing.T) { m.called(t, server) })
	for _, row := range m.report.rows {
		row.demand(t, reactsWithin)
	}
}

type reactions struct {
	*installation
	report *report
	topic  string
	next   int // number of the next record
	random *rand.Rand
}

// table is for people.
func (m *reactions) table() string {
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "FROM, TO\tMEDIAN\tMAX\tTIMES\t")
	for _, row := range m.report.rows {
		slices.Sort(row.resumed)
		n := len(row.resumed)
		if n == 0 {
			continue
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t\n", row.fault, row.resumed[n/2].Round(time.Millisecond), row.resumed[n-1].Round(time.Millisecond), n)
	}
	_ = table.Flush()
	return text.String()
}

// copiedAfter brings a record and measures until the target has it.
func (m *reactions) copiedAfter(follow func()) time.Duration {
	m.t.Helper()
	pass(m.t, time.Duration(m.random.Int64N(int64(time.Second)))) // coordinators look each second
	before := m.copied(m.topic)
	m.next = testbed.Produce(m.t, m.source, m.topic, testbed.Load{First: m.next, Records: 1})
	for began := time.Now(); ; follow() {
		if took := time.Since(began); m.copied(m.topic) > before || took > reactsWithin {
			return took
		}
	}
}

// lagWithWorker has records come to partitions that a worker has given back since they were silent, and to one that it still holds.
func (m *reactions) lagWithWorker(w worker) {
	at, held := m.report.row("a record comes → it is copied, a worker waits"), m.report.row("the same, the worker holds the partition")
	waits := func() { time.Sleep(time.Millisecond) }
	for n := range times(1, 20) {
		if n%partitions == 0 {
			testbed.Eventually(m.t, soon, "the worker to hold nothing", func() bool { return sum(metrics(m.t, w), "kferry_leases_held") == 0 })
		}
		at.resumedAfter(m.copiedAfter(waits))
	}
	for range times(1, 20) {
		m.next += partitions - 1 // the same partition
		held.resumedAfter(m.copiedAfter(waits))
	}
}

// lagWithoutWorker has a record come while there is no worker, nor one is wanted.
func (m *reactions) lagWithoutWorker(a *autoscaler) {
	row := m.report.row("the same, no worker runs, and who starts one asks /scale twice a second")
	a.until("no worker", func(s scale) bool { return s.Desired == 0 })
	asked := time.Now()
	row.resumedAfter(m.copiedAfter(func() {
		time.Sleep(time.Millisecond)
		if time.Since(asked) >= followEvery {
			asked = time.Now()
			a.follow()
		}
	}))
}

// signals end workers that hold all partitions, under traffic.
func (m *reactions) signals(queue jetstream.JetStream) {
	load := smallBatches
	load.First = m.next
	flow := traffic(m.installation, m.topic, load, 1000, 2000)
	defer flow.Stop()
	held := func() bool { // also while nobody says
		consumer, err := queue.Consumer(m.t.Context(), m.env["KFERRY_NAME"]+"-tasks", "workers")
		return err != nil || consumer.CachedInfo().NumAckPending > 0
	}
	works := func() *testbed.Process {
		w := m.start("worker")
		m.grows(m.topic, 1000)
		testbed.Eventually(m.t, soon, "the worker to hold all partitions", func() bool { return sum(metrics(m.t, w), "kferry_leases_held") == partitions })
		return w
	}
	back, ended := m.report.row("SIGTERM → all leases are back on the queue"), m.report.row("SIGTERM → the process has ended")
	for range times(1, 20) {
		w := works()
		began := time.Now()
		w.Term()
		for held() && time.Since(began) < reactsWithin {
			time.Sleep(time.Millisecond)
		}
		back.resumedAfter(time.Since(began))
		if code := w.Wait(exitsWithin); code != 0 {
			m.t.Errorf("exit code %d after SIGTERM", code)
		}
		ended.resumedAfter(time.Since(began))
	}
	at := *m.installation
	at.row = m.report.row("SIGKILL → another worker goes on with every partition")
	for w, n := works(), times(1, 10); n > 0; n-- {
		other := m.start("worker")
		addressOf(m.t, other)
		pass(m.t, time.Duration(m.random.Int64N(int64(time.Second))))
		before, since := m.target.Ends(m.copyOf(m.topic)), time.Now()
		w.Kill()
		at.resumes(m.topic, before, since)
		w = other
	}
}

// called does the same with workers that are called, of which there is none until then and one at most.
func (m *reactions) called(t *testing.T, server *testbed.NATS) {
	const topic = "reactions-called"
	k := copying(t, m.source.For(t), m.target.For(t), topic).over(server).with("KFERRY_LEASE", "4s", "KFERRY_LOG_LEVEL", "info")
	k.source.CreateTopic(topic, partitions, 1)
	a := &activator{t: t, start: func() *testbed.Process { return k.start("worker", "--push") }, most: 1, room: 10, keep: 1500 * time.Millisecond}
	defer a.serve(false)()
	c := reactions{k, m.report, topic, testbed.Produce(t, k.source, topic, testbed.Load{Records: 100 * partitions}), m.random}
	k.with("KFERRY_PUSH_URL", a.server.URL).start("coordinator")
	k.await(topic)
	zero := m.report.row("a record comes → it is copied, no worker runs, and one is started for a call")
	for range times(2, 20) {
		a.rests()
		zero.resumedAfter(c.copiedAfter(func() { time.Sleep(time.Millisecond) }))
	}
	load := smallBatches
	load.First = c.next
	flow := traffic(k, topic, load, 1000, 2000)
	k.row = m.report.row("SIGKILL of the only worker that is called → one that is called goes on with every partition")
	for range times(1, 10) {
		k.grows(topic, 1000)
		pass(t, time.Duration(m.random.Int64N(int64(time.Second))))
		before := k.target.Ends(k.copyOf(topic))
		a.holds()
		since := time.Now()
		a.strike(true)
		k.resumes(topic, before, since)
	}
	k.row = nil
	flow.Stop()
	k.await(topic)
	k.compare(topic)
}
