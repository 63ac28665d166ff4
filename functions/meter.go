package functions

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kferry/kferry/shared/batch"
	"github.com/kferry/kferry/shared/connect"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// What is measured here goes to /metrics under MirrorMaker's names, see package connect.
//
// Dashboards add up what all processes say. So a worker may go on telling what it has counted, but how old records were only until
// another worker takes the partition over: else it would be there twice.

// meterIdle is how long a partition is told of after its last batch. MirrorMaker tells until its task ends.
const meterIdle = time.Hour

// meters are those of one worker. A nil one measures nothing, and neither does what it hands out.
type meters struct {
	flows []*flowMeter
	held  func() int   // leases
	free  func() int64 // bytes of the budget

	mu          sync.Mutex // guards what follows
	partitions  map[metered]*meter
	checkpoints map[metered]*checkpointMeter
}

// A metered one is a partition of a flow's target, for a consumer group or for none.
type metered struct {
	flow, group, topic string
	partition          int32
}

// flowMeter is what is measured of a flow.
type flowMeter struct {
	flow                               spec.Flow
	polled, incoming, landed, outgoing atomic.Int64 // records and bytes, read and acknowledged

	mu      sync.Mutex // guards what follows
	commits window     // their times in ms
	failed  window
}

// meter is what is measured of a partition: by the one goroutine that copies it, and read by scrapes.
type meter struct {
	metered
	flow *flowMeter

	mu             sync.Mutex // guards what follows
	holders        int        // runs of this worker; two where one has not noticed yet that it is lost
	elsewhere      bool       // another worker has it now
	landed         time.Time  // the last batch, or where none has the beginning
	active         int64      // records read and not yet acknowledged
	records, bytes int64      // acknowledged
	recordRate     window
	byteRate       window
	age, latency   times
}

// checkpointMeter is what is measured of a consumer group's partition. The meters' mutex guards it.
type checkpointMeter struct {
	seen    time.Time
	latency times
}

func newMeters(flows []spec.Flow, held func() int, free func() int64) *meters {
	m := &meters{held: held, free: free, partitions: map[metered]*meter{}, checkpoints: map[metered]*checkpointMeter{}}
	for _, f := range flows {
		m.flows = append(m.flows, &flowMeter{flow: f})
	}
	return m
}

func (m *meters) flow(name string) *flowMeter {
	for _, f := range m.flows {
		if f.flow.Name() == name {
			return f
		}
	}
	return nil
}

// begin is the start of a run that copies to a partition.
func (m *meters) begin(flow string, to kafka.TopicPartition) *meter {
	if m == nil {
		return nil
	}
	at := metered{flow: flow, topic: to.Topic, partition: to.Partition}
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.partitions[at]
	if p == nil {
		p = &meter{metered: at, flow: m.flow(flow), landed: time.Now()}
		m.partitions[at] = p
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holders++
	p.elsewhere = false
	return p
}

// moved is that another worker has a partition now.
func (m *meters) moved(flow string, to kafka.TopicPartition) {
	m.mu.Lock()
	p := m.partitions[metered{flow: flow, topic: to.Topic, partition: to.Partition}]
	m.mu.Unlock()
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.elsewhere = p.holders == 0
}

// end is that of a run.
func (p *meter) end() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holders--
	p.active = 0
}

// read takes in what was read: its size, and the batches of it that are to be written.
func (p *meter) read(bytes int, batches []batch.Batch) {
	if p == nil {
		return
	}
	now, records := time.Now(), int64(0)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range batches {
		records += int64(b.Records())
		p.age.observe(now, b)
	}
	p.active = records
	p.flow.polled.Add(records)
	p.flow.incoming.Add(int64(bytes))
}

// acknowledged takes in a batch that has landed.
func (p *meter) acknowledged(b batch.Batch) {
	if p == nil {
		return
	}
	now, records := time.Now(), int64(b.Records())
	p.mu.Lock()
	defer p.mu.Unlock()
	p.landed = now
	p.active = max(0, p.active-records)
	p.records += records
	p.bytes += int64(len(b))
	p.recordRate.add(now, float64(records), 1)
	p.byteRate.add(now, float64(len(b)), 1)
	p.latency.observe(now, b)
	p.flow.landed.Add(records)
	p.flow.outgoing.Add(int64(len(b)))
}

// committed takes in a commit of a cursor.
func (p *meter) committed(took time.Duration, err error) {
	if p == nil {
		return
	}
	now, failed := time.Now(), 0.0
	if err != nil {
		failed = 1
	}
	f := p.flow
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		f.commits.add(now, milliseconds(took), 1)
	}
	f.failed.add(now, failed, 1)
}

// checkpointed takes in that the target has acknowledged a checkpoint: for a group's partition of the target's topic, how long after the
// group's offset was read.
func (m *meters) checkpointed(flow, group string, to kafka.TopicPartition, latency time.Duration) {
	if m == nil {
		return
	}
	at := metered{flow, group, to.Topic, to.Partition}
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.checkpoints[at]
	if c == nil {
		c = &checkpointMeter{}
		m.checkpoints[at] = c
	}
	c.seen = time.Now()
	c.latency.add(c.seen, milliseconds(latency), 1)
}

// groupsMoved is that another worker writes a flow's checkpoints now.
func (m *meters) groupsMoved(flow string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for at := range m.checkpoints {
		if at.flow == flow {
			delete(m.checkpoints, at)
		}
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Describe implements prometheus.Collector.
func (m *meters) Describe(to chan<- *prometheus.Desc) { connect.Describe(to, connect.OfWorker()...) }

// Collect implements prometheus.Collector.
func (m *meters) Collect(to chan<- prometheus.Metric) {
	now := time.Now()
	connect.TaskCount.Send(to, float64(m.held()))
	connect.AssignedTasks.Send(to, float64(m.held()), connect.WorkerID)
	connect.Rebalancing.Send(to, 0)
	connect.Rebalances.Send(to, 0)
	connect.BufferAvailable.Send(to, float64(m.free()), connect.AnyProducerID)
	active := map[*flowMeter]int64{}
	for _, p := range m.recent(now) {
		active[p.flow] += p.collect(to, now)
	}
	for _, f := range m.flows {
		f.collect(to, now, float64(active[f]))
	}
	m.collectCheckpoints(to, now)
}

// recent are the partitions to be told of. The others are forgotten.
func (m *meters) recent(now time.Time) (all []*meter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for at, p := range m.partitions {
		if p.idle(now) {
			delete(m.partitions, at)
		} else {
			all = append(all, p)
		}
	}
	return all
}

func (p *meter) idle(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.holders == 0 && now.Sub(p.landed) > meterIdle
}

func (p *meter) collect(to chan<- prometheus.Metric, now time.Time) (active int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.flow.flow
	labels := []string{f.Source, f.Target, p.topic, strconv.Itoa(int(p.partition))}
	connect.RecordCount.Send(to, float64(p.records), labels...)
	connect.ByteCount.Send(to, float64(p.bytes), labels...)
	connect.RecordRate.Send(to, p.recordRate.rate(now), labels...)
	connect.ByteRate.Send(to, p.byteRate.rate(now), labels...)
	if !p.elsewhere {
		p.age.send(to, connect.RecordAge, now, labels)
		p.latency.send(to, connect.Latency, now, labels)
	}
	return p.active
}

func (f *flowMeter) collect(to chan<- prometheus.Metric, now time.Time, active float64) {
	connector := connect.Connector(f.flow, mm2.SourceConnector)
	connect.IncomingBytes.Send(to, float64(f.incoming.Load()), connect.ConsumerID(f.flow))
	connect.OutgoingBytes.Send(to, float64(f.outgoing.Load()), connect.ProducerID(f.flow))
	connect.RecordsPolled.Send(to, float64(f.polled.Load()), connector, connect.Task)
	connect.RecordsWritten.Send(to, float64(f.landed.Load()), connector, connect.Task)
	connect.ActiveRecords.Send(to, active, connector, connect.Task, "")
	connect.ActiveObject.Send(to, active, "", "", connect.TaskObject(f.flow))
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.commits.over(now); s.weight > 0 {
		connect.CommitAverage.Send(to, s.sum/s.weight, connector, connect.Task)
		connect.CommitMax.Send(to, s.max, connector, connect.Task)
	}
	if s := f.failed.over(now); s.weight > 0 {
		connect.CommitFailures.Send(to, s.sum/s.weight, connector, connect.Task)
		connect.CommitSuccesses.Send(to, 1-s.sum/s.weight, connector, connect.Task)
	}
}

func (m *meters) collectCheckpoints(to chan<- prometheus.Metric, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for at, c := range m.checkpoints {
		if now.Sub(c.seen) > meterIdle {
			delete(m.checkpoints, at)
			continue
		}
		f := m.flow(at.flow).flow
		c.latency.send(to, connect.CheckpointLatency, now, []string{f.Source, f.Target, at.group, at.topic, strconv.Itoa(int(at.partition))})
	}
}
