package functions_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server/ats"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/functions"
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

const (
	topic    = "orders"
	replica  = "A.orders"
	offsets  = "mm2-offsets.A.internal"
	flowName = "A->B"

	leaseTime = 4 * time.Second
	patience  = 3 * time.Minute // of bubble time, for a copy to be complete
)

// setup is what one test's world has of its own.
type setup struct {
	partitions     int32 // of the topic and its copy; 1 where it is 0
	source, target map[string]string
	isolation      spec.Isolation // read_committed where it is empty
	lacksCopy      bool           // the target topic is the test's to create
	strimzi        bool           // positions are kept as a resource's MirrorMaker does
}

// world is two clusters, a queue, and the test in the place of the coordinator. Everything lives in one bubble.
type world struct {
	*testing.T
	env            *local.Env
	flow           spec.Flow
	also           []spec.Flow // that a worker knows
	queue          *lease.Queue
	cursors        *lease.Cursors
	source, target *kafka.Cluster
	partitions     int32
	logins         map[string]*spec.Login // of whoever connects from now on, by alias
	fronts         map[string]*front      // that they meet
	serial         atomic.Int64
}

// unique is a text that no other record holds.
func (w *world) unique() string { return fmt.Sprintf("record %d", w.serial.Add(1)) }

// inWorld runs a test in virtual time, where a goroutine that outlives it is an error.
func inWorld(t *testing.T, s setup, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		env, err := local.Start(local.Setup{
			Clusters: []local.Cluster{{Alias: "A", Brokers: 2}, {Alias: "B", Brokers: 2}},
			Virtual:  true, Dir: t.TempDir(),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(env.Close)
		w := &world{T: t, env: env, partitions: max(s.partitions, 1), flow: spec.Flow{
			Source: "A", Target: "B", Policy: mm2.DefaultPolicy{Separator: "."}, ReplicationFactor: -1, State: spec.Running,
			Isolation: spec.ReadCommitted, OffsetsTopic: offsets, Connector: mm2.SourceConnector, ConnectGroup: mm2.ConnectGroup("A"), OffsetsReplicationFactor: -1,
		}}
		if s.isolation != "" {
			w.flow.Isolation = s.isolation
		}
		if s.strimzi {
			w.flow.OffsetsTopic, w.flow.Connector, w.flow.ConnectGroup = mm2.StrimziOffsetsTopic, "A->B."+mm2.SourceConnector, mm2.StrimziConnectGroup
		}
		w.must(env.Kafka("A").CreateTopic(topic, w.partitions, s.source))
		if !s.lacksCopy {
			w.must(env.Kafka("B").CreateTopic(replica, w.partitions, s.target))
		}
		w.queue, err = lease.Open(t.Context(), lease.Options{InProcess: env.NATS, LeaseTime: leaseTime})
		w.must(err)
		t.Cleanup(w.queue.Close)
		w.source, w.target = w.open("A", env.Dial), w.open("B", env.Dial)
		t.Cleanup(w.source.Close)
		t.Cleanup(w.target.Close)
		w.cursors = w.queue.Cursors(w.flow, w.target)
		w.must(w.cursors.Load(t.Context()))
		test(w)
	})
}

// must ends the test at an error.
func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// made ends the test unless a topic was made.
func (w *world) made(made bool, err error) {
	w.Helper()
	if w.must(err); !made {
		w.Fatal("no topic was made")
	}
}

func (w *world) open(alias string, dial local.Dial) *kafka.Cluster {
	w.Helper()
	cl := w.env.Spec(alias)
	cl.Login = w.logins[alias]
	if f := w.fronts[alias]; f != nil {
		dial = f.before(dial)
	}
	c, err := kafka.Open(cl, kafka.Options{Dialer: dial})
	w.must(err)
	return c
}

// compressed makes batches that travel one by one, since only uncompressed ones are merged. (lz4, local's default, sets 4 MiB aside
// for each batch, which the race detector takes long over.)
var compressed = kgo.ProducerBatchCompression(kgo.SnappyCompression())

// write appends n records to the source, spread over its partitions, in one batch each.
func (w *world) write(n int, options ...kgo.Opt) {
	w.Helper()
	w.writeTo("A", topic, n, options...)
}

func (w *world) writeTo(alias, topic string, n int, options ...kgo.Opt) {
	w.Helper()
	writer, err := w.env.Writer(alias, topic, append([]kgo.Opt{compressed}, options...)...)
	w.must(err)
	defer writer.Close()
	w.must(writer.Write(w.Context(), n))
}

// writeBatches appends so many compressed batches of some records each, which travel one by one.
func (w *world) writeBatches(batches, records int) {
	w.Helper()
	for range batches {
		w.write(records)
	}
}

// stream writes to the source for a while, about a hundred records a second in batches of ten.
func (w *world) stream(d time.Duration) {
	w.Helper()
	w.streams(d, func(ctx context.Context, writer *local.Writer) error { return writer.Stream(ctx, 100) })
}

// slowStream writes a record each half second.
func (w *world) slowStream(d time.Duration) {
	w.Helper()
	w.streams(d, func(ctx context.Context, writer *local.Writer) error {
		for ctx.Err() == nil {
			if err := writer.Write(context.WithoutCancel(ctx), 1); err != nil {
				return err
			}
			time.Sleep(500 * time.Millisecond)
		}
		return nil
	})
}

func (w *world) streams(d time.Duration, write func(context.Context, *local.Writer) error) {
	w.Helper()
	writer, err := w.env.Writer("A", topic, compressed)
	w.must(err)
	ended := make(chan struct{})
	w.Cleanup(func() { <-ended })
	go func() {
		defer close(ended)
		defer writer.Close()
		ctx, stop := context.WithTimeout(context.Background(), d)
		defer stop()
		if err := write(ctx, writer); err != nil {
			w.Errorf("stream: %v", err)
		}
	}()
}

// sourceEnd is the offset up to which the flow sees a partition.
func (w *world) sourceEnd(partition int32) int64 {
	info := w.env.Kafka("A").PartitionInfo(topic, partition)
	if w.flow.Isolation == spec.ReadCommitted {
		return info.LastStableOffset
	}
	return info.HighWatermark
}

func (w *world) targetEnd(partition int32) int64 {
	info := w.env.Kafka("B").PartitionInfo(replica, partition)
	if info == nil {
		return 0
	}
	return info.HighWatermark
}

func (w *world) task(partition int32) lease.Task {
	return lease.Task{Kind: lease.KindMirror, Flow: flowName, Topic: topic, Partition: partition, Digest: w.flow.Digest()}
}

// offer puts a partition on the queue, as a coordinator that found it behind.
func (w *world) offer(partition int32) {
	w.Helper()
	_, err := w.queue.Offer(w.Context(), w.task(partition))
	w.must(err)
}

// offerReleased offers a partition whose state is written already, and whose lease is about to be released.
func (w *world) offerReleased(partition int32) {
	w.Helper()
	w.eventually("offered", func() bool {
		ok, err := w.queue.Offer(w.Context(), w.task(partition))
		return ok && err == nil
	})
}

// cursor is a partition's, as KV has it.
func (w *world) cursor(partition int32) lease.Cursor {
	w.Helper()
	c, _, err := w.cursors.Get(w.Context(), topic, partition)
	w.must(err)
	return c
}

// published is a partition's cursor as it would survive the loss of NATS.
func (w *world) published(partition int32) lease.Cursor {
	w.Helper()
	all, err := lease.ReadCursors(w.Context(), w.flow, w.target)
	w.must(err)
	return all[kafka.TopicPartition{Topic: topic, Partition: partition}]
}

// edit changes a cursor in both places, as a fault that has not been thought of might.
func (w *world) edit(partition int32, change func(*lease.Cursor)) {
	w.Helper()
	c, revision, err := w.cursors.Get(w.Context(), topic, partition)
	w.must(err)
	change(&c)
	_, err = w.cursors.Commit(w.Context(), topic, partition, c, revision)
	w.must(err)
	w.must(w.cursors.Publish(w.Context(), topic, partition, c))
}

// state is what a partition's last run left for the coordinator.
func (w *world) state(partition int32) (lease.State, bool) {
	w.Helper()
	states, err := w.queue.States(w.Context())
	w.must(err)
	s, ok := states[w.task(partition).Identity()]
	return s, ok
}

// eventually waits for something to become true.
func (w *world) eventually(what string, is func() bool) {
	w.Helper()
	pause := 20 * time.Millisecond
	for deadline := time.Now().Add(patience); !is(); time.Sleep(pause) {
		pause = min(pause*6/5, 500*time.Millisecond)
		if time.Now().After(deadline) {
			states, _ := w.queue.States(w.Context())
			w.Fatalf("not within %s: %s (states %+v)", patience, what, states)
		}
	}
}

// complete offers what is behind until everything is copied up to the source's end.
func (w *world) complete() {
	w.Helper()
	w.completeBut()
}

// completeBut is complete without some partitions, which are offered all the same.
func (w *world) completeBut(but ...int32) {
	w.Helper()
	w.eventually("the copy is complete", func() bool { return w.offerBehind(but...) })
}

// offerBehind is one look of a coordinator. It says whether all partitions but some are at the source's end.
func (w *world) offerBehind(but ...int32) bool {
	w.Helper()
	if loaded, err := w.cursors.Loaded(w.Context()); err != nil || !loaded {
		if err := w.cursors.Load(w.Context()); err != nil {
			return false // NATS is away
		}
	}
	cursors, err := w.cursors.All(w.Context())
	if err != nil {
		return false
	}
	states, err := w.queue.States(w.Context())
	if err != nil {
		return false
	}
	all := true
	for p := range w.partitions {
		c, known := cursors[kafka.TopicPartition{Topic: topic, Partition: p}]
		if known && c.Offset >= w.sourceEnd(p) {
			continue
		}
		all = all && slices.Contains(but, p)
		if states[w.task(p).Identity()].Next.Before(time.Now()) {
			w.queue.Offer(w.Context(), w.task(p)) // an error shows in that nothing comes of it
		}
	}
	return all
}

// exact compares the copy with its source, record by record, and the positions in both.
func (w *world) exact() {
	w.Helper()
	w.exactOf(w.env.Side("A", topic))
}

func (w *world) exactOf(source local.Side) {
	w.Helper()
	c, err := local.Compare(w.Context(), source, w.env.Side("B", replica))
	w.must(err)
	if !c.Exact() {
		w.Errorf("the copy is not exact: %s", c)
	}
	if n := w.translated(); n > 0 {
		w.Errorf("%d positions are not translated exactly", n)
	}
}

// A process is one worker with its own connections.
type process struct {
	w       *world
	line    *local.Line
	gate    *gate // before the connections to brokers
	nats    *gate // before that to the queue
	log     *testLog
	queue   *lease.Queue
	worker  *functions.Worker
	metrics *prometheus.Registry
	stop    context.CancelFunc
	close   []func()
	done    chan struct{} // closed when Run has returned

	mu    sync.Mutex // guards conns
	conns []net.Conn // to brokers
}

// worker starts a worker of so many slots; 0 is the default.
func (w *world) worker(slots int) *process {
	w.Helper()
	return w.workerWith(func(o *functions.Options) { o.Slots = slots }, nil)
}

// workerWith starts one with other options, by what as returns for it; nil is its own Run.
func (w *world) workerWith(change func(*functions.Options), as func(*functions.Worker) func(context.Context) error) *process {
	w.Helper()
	p := &process{w: w, line: w.env.Line(), gate: &gate{}, nats: &gate{}, log: &testLog{T: w.T}, metrics: prometheus.NewRegistry(), done: make(chan struct{})}
	var err error
	p.queue, err = lease.Open(w.Context(), lease.Options{InProcess: gatedNATS{p.line, p.nats}, LeaseTime: leaseTime})
	w.must(err)
	source, target := w.open("A", p.dial), w.open("B", p.dial)
	p.close = []func(){p.queue.Close, source.Close, target.Close}
	o := functions.Options{
		Spec: spec.Spec{
			Clusters: []spec.Cluster{w.env.Spec("A"), w.env.Spec("B")}, Flows: append([]spec.Flow{w.flow}, w.also...),
			Settings: spec.Settings{LeaseTime: leaseTime, Memory: 32 * spec.MiB},
		},
		Queue: p.queue, Clusters: map[string]*kafka.Cluster{"A": source, "B": target},
		Logger: slog.New(slog.NewTextHandler(p.log, &slog.HandlerOptions{Level: slog.LevelDebug})), Metrics: p.metrics,
	}
	change(&o)
	p.worker = functions.NewWorker(o)
	run := p.worker.Run
	if as != nil {
		run = as(p.worker)
	}
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	go func() {
		defer close(p.done)
		if err := run(ctx); err != nil {
			w.Errorf("worker: %v", err)
		}
	}()
	w.Cleanup(p.kill)
	return p
}

// dial connects to a broker behind the process's gate.
func (p *process) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := p.line.Dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns = append(p.conns, conn)
	return &gatedConn{Conn: conn, gate: p.gate}, nil
}

// hangUp ends the connections to all brokers. New ones come through.
func (p *process) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		conn.Close()
	}
	p.conns = nil
}

// kill ends the process as kill -9 does: nothing more of it gets out.
func (p *process) kill() {
	p.cut()
	p.resume()
	p.end()
}

// pause holds up all that the process reads and writes; its clock goes on.
func (p *process) pause() {
	p.nats.close()
	p.gate.close()
}

func (p *process) resume() {
	p.nats.open()
	p.gate.open()
}

// cut ends all connections, and every one to come. It may be called from within a fake broker; kill is left to do.
func (p *process) cut() {
	p.log.dead.Store(true)
	p.line.Cut()
}

// drain stops the process as SIGTERM does, and says how long that took.
func (p *process) drain() time.Duration {
	p.w.Helper()
	begun := time.Now()
	p.stop()
	<-p.done
	took := time.Since(begun)
	p.end()
	return took
}

func (p *process) end() {
	p.stop()
	for _, c := range p.close {
		c()
	}
	p.close = nil
	<-p.done
}

// count is the value of one of the worker's metrics, summed over its labels, or over those with a certain value.
func (p *process) count(name string, label ...string) (sum int) {
	p.w.Helper()
	families, err := p.metrics.Gather()
	p.w.must(err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			fits := len(label) == 0
			for _, l := range m.GetLabel() {
				fits = fits || len(label) > 0 && l.GetValue() == label[0]
			}
			if f.GetName() == name && fits {
				sum += int(m.GetCounter().GetValue() + m.GetGauge().GetValue())
			}
		}
	}
	return sum
}

// A gate holds up what a process reads and writes while it is shut. As with a socket, writing does not block: what was written goes
// out when the gate opens.
type gate struct {
	mu   sync.Mutex
	shut chan struct{} // closed when the gate opens; nil while it is open
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut == nil {
		g.shut = make(chan struct{})
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut != nil {
		close(g.shut)
		g.shut = nil
	}
}

// opens is nil while the gate is open, else closed when it opens.
func (g *gate) opens() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shut
}

type gatedConn struct {
	net.Conn
	gate *gate

	mu   sync.Mutex // guards held, and keeps writes in order
	held []byte
}

func (c *gatedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if opens := c.gate.opens(); opens != nil {
		<-opens
	}
	return n, err
}

func (c *gatedConn) Write(b []byte) (int, error) {
	opens := c.gate.opens()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case len(c.held) > 0:
	case opens == nil:
		return c.Conn.Write(b)
	default:
		go func() {
			<-opens
			c.mu.Lock()
			defer c.mu.Unlock()
			c.Conn.Write(c.held) // fails where the connection was given up meanwhile
			c.held = nil
		}()
	}
	c.held = append(c.held, b...)
	return len(b), nil
}

type gatedNATS struct {
	line *local.Line
	gate *gate
}

func (g gatedNATS) InProcessConn() (net.Conn, error) {
	conn, err := g.line.InProcessConn()
	if err != nil {
		return nil, err
	}
	return &gatedConn{Conn: conn, gate: g.gate}, nil
}

// events are the requests that a cluster saw about one topic, in order.
type events struct {
	mu  sync.Mutex
	all []string
}

func (e *events) add(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, fmt.Sprintf(format, args...))
}

func (e *events) list() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.all)
}

func (e *events) count(want string) (n int) {
	for _, event := range e.list() {
		if event == want {
			n++
		}
	}
	return n
}

// position says at which request of a kind about the topic a fault begins.
type position struct {
	alias string
	key   kmsg.Key
	topic string
	nth   int // from 1
}

// at calls act when the cluster has got a request at that position, before it looks at it. act returns an answer or an error, which
// closes the connection, or neither to let the request pass.
func (w *world) at(p position, act func(kmsg.Request) (kmsg.Response, error)) {
	cluster := w.env.Kafka(p.alias)
	var id [16]byte
	if info := cluster.TopicInfo(p.topic); info != nil {
		id = info.TopicID
	}
	seen := 0
	cluster.ControlKey(int16(p.key), func(req kmsg.Request) (kmsg.Response, error, bool) {
		if !concerns(req, p.topic, id) {
			return nil, nil, false
		}
		if seen++; seen != p.nth {
			return nil, nil, false
		}
		resp, err := act(req)
		return resp, err, resp != nil || err != nil
	})
}

// errCut closes a connection over a request.
var errCut = errors.New("cut")

func concerns(req kmsg.Request, topic string, id [16]byte) bool {
	switch r := req.(type) {
	case *kmsg.ProduceRequest:
		return slices.ContainsFunc(r.Topics, func(t kmsg.ProduceRequestTopic) bool { return t.Topic == topic || id != [16]byte{} && t.TopicID == id })
	case *kmsg.FetchRequest:
		return slices.ContainsFunc(r.Topics, func(t kmsg.FetchRequestTopic) bool { return t.Topic == topic || id != [16]byte{} && t.TopicID == id })
	case *kmsg.OffsetForLeaderEpochRequest:
		return slices.ContainsFunc(r.Topics, func(t kmsg.OffsetForLeaderEpochRequestTopic) bool { return t.Topic == topic })
	}
	return true
}

// watch notes every request of some kinds about a topic.
func (w *world) watch(alias, topic string, names map[kmsg.Key]string) *events {
	e := &events{}
	id := w.env.Kafka(alias).TopicInfo(topic).TopicID
	for key, name := range names {
		w.env.Kafka(alias).ControlKey(int16(key), func(req kmsg.Request) (kmsg.Response, error, bool) {
			if concerns(req, topic, id) {
				e.add("%s", name)
			}
			return nil, nil, false
		})
	}
	return e
}

// testLog puts a worker's log into the test's, until the worker is dead.
type testLog struct {
	*testing.T
	dead atomic.Bool
}

func (l *testLog) Write(line []byte) (int, error) {
	if !l.dead.Load() {
		l.Logf("%s", line[:len(line)-1])
	}
	return len(line), nil
}
