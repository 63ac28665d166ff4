package functions

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kferry/kferry/shared/batch"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// inMeters runs a test in virtual time with the meters of the flow A->B.
func inMeters(t *testing.T, test func(t *testing.T, m *meters, r *prometheus.Registry)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := newMeters([]spec.Flow{{Source: "A", Target: "B", Connector: mm2.SourceConnector}}, func() int { return 4 }, func() int64 { return 1000 })
		r := prometheus.NewPedanticRegistry()
		r.MustRegister(m)
		test(t, m, r)
	})
}

var copied = kafka.TopicPartition{Topic: "A.orders", Partition: 2}

const (
	ofSource     = "kafka_connect_mirror_mirrorsourceconnector_"
	ofCheckpoint = "kafka_connect_mirror_mirrorcheckpointconnector_"
)

// aged is a batch of so many records, the newest of which is so old. The others are a minute older.
func aged(records int, age time.Duration) batch.Batch {
	newest := time.Now().Add(-age)
	all := slices.Repeat([]batch.Record{{Timestamp: newest.Add(-time.Minute).UnixMilli(), Value: []byte("value")}}, records-1)
	return batch.Of(append(all, batch.Record{Timestamp: newest.UnixMilli(), Value: []byte("value")})...)
}

// copy has a partition's meter see a batch that takes so long to be written.
func (p *meter) copy(b batch.Batch, took time.Duration) {
	p.read(len(b), []batch.Batch{b})
	time.Sleep(took)
	p.acknowledged(b)
}

// expect holds the series of one name against what is wanted: the values of its labels in the order of their names, and its own.
func expect(t *testing.T, r prometheus.Gatherer, name string, want ...string) {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var series strings.Builder
			for _, l := range m.GetLabel() {
				series.WriteString(l.GetValue() + " ")
			}
			if f.GetName() == name {
				got = append(got, fmt.Sprint(series.String(), m.GetGauge().GetValue()+m.GetCounter().GetValue()))
			}
		}
	}
	if !slices.Equal(got, want) {
		t.Helper()
		t.Errorf("%s is %q, want %q", name, got, want)
	}
}

func TestMetersTellWhatMirrorMakerTells(t *testing.T) {
	inMeters(t, func(t *testing.T, m *meters, r *prometheus.Registry) {
		p := m.begin("A->B", copied)
		expect(t, r, ofSource+"record_count", "2 A B A.orders 0")
		expect(t, r, ofSource+"record_age_ms") // nothing was read
		first, second := aged(3, 2*time.Second), batch.Batch(nil)
		p.copy(first, time.Second)
		second = aged(1, 10*time.Second)
		p.copy(second, 2*time.Second)
		time.Sleep(7 * time.Second)
		bytes := float64(len(first) + len(second))
		for name, want := range map[string]any{
			"record_count": 4, "byte_count": bytes,
			"record_rate": 4.0 / 40, "byte_rate": bytes / 40, // 10 s after the beginning: as Kafka reckons, of 30 s and those
			"record_age_ms": 10_000, "record_age_ms_min": 2_000, "record_age_ms_max": 10_000, "record_age_ms_avg": (3*2_000 + 10_000) / 4,
			"replication_latency_ms": 12_000, "replication_latency_ms_min": 3_000, "replication_latency_ms_max": 12_000, "replication_latency_ms_avg": (3*3_000 + 12_000) / 4.0,
		} {
			expect(t, r, ofSource+name, fmt.Sprint("2 A B A.orders ", want))
		}
		for name, want := range map[string]string{
			"kafka_consumer_incoming_byte_total":                           fmt.Sprint(`"A->B|MirrorSourceConnector-0|replication-consumer" `, bytes),
			"kafka_producer_producer_metrics_outgoing_byte":                fmt.Sprint(`connector-producer-A->B.MirrorSourceConnector-0 `, bytes),
			"kafka_connect_source_task_metrics_source_record_poll":         "A->B.MirrorSourceConnector 0 4",
			"kafka_connect_source_task_metrics_source_record_write":        "A->B.MirrorSourceConnector 0 4",
			"kafka_connect_source_task_metrics_source_record_active_count": "A->B.MirrorSourceConnector 0 0",
			"kafka_connect_worker_task_count":                              "4",
			"kafka_producer_producer_metrics_buffer_available_bytes":       "connector-producer-all->all.MirrorSourceConnector-0 1000",
			"kafka_connect_worker_rebalance_rebalancing":                   "0",
			"kafka_connect_connect_coordinator_metrics_assigned_tasks":     "kferry 4",
		} {
			expect(t, r, name, want)
		}
		time.Sleep(90 * time.Second) // the windows are empty then
		expect(t, r, ofSource+"record_count", "2 A B A.orders 4")
		expect(t, r, ofSource+"record_rate", "2 A B A.orders 0")
		expect(t, r, ofSource+"record_age_ms", "2 A B A.orders 10000")
		for _, gone := range []string{"_min", "_max", "_avg"} {
			expect(t, r, ofSource+"record_age_ms"+gone)
			expect(t, r, ofSource+"replication_latency_ms"+gone)
		}
	})
}

// Of the two halves of a window the older goes as a whole: what is 30 s old still counts, what is 60 s old no more.
func TestMetersWindow(t *testing.T) {
	inMeters(t, func(t *testing.T, m *meters, r *prometheus.Registry) {
		p := m.begin("A->B", copied)
		for _, step := range []struct {
			age  time.Duration
			want string // greatest
		}{{9 * time.Second, "9000"}, {8 * time.Second, "9000"}, {7 * time.Second, "9000"}, {6 * time.Second, "7000"}, {5 * time.Second, "7000"}} {
			p.read(0, []batch.Batch{aged(1, step.age)})
			expect(t, r, ofSource+"record_age_ms_max", "2 A B A.orders "+step.want)
			time.Sleep(20 * time.Second)
		}
	})
}

func TestMetersOfABatchWithoutATime(t *testing.T) {
	inMeters(t, func(t *testing.T, m *meters, r *prometheus.Registry) {
		p := m.begin("A->B", copied)
		p.copy(batch.Of(batch.Record{Timestamp: -1}), 0)
		expect(t, r, ofSource+"record_count", "2 A B A.orders 1")
		expect(t, r, ofSource+"record_age_ms")
		expect(t, r, ofSource+"replication_latency_ms")
	})
}

func TestMetersCountWhatIsUnderWay(t *testing.T) {
	inMeters(t, func(t *testing.T, m *meters, r *prometheus.Registry) {
		const name, dashboards = "kafka_connect_source_task_metrics_source_record_active_count", "kafka_connect_source_task_source_record_active_count"
		p, q := m.begin("A->B", copied), m.begin("A->B", kafka.TopicPartition{Topic: "A.orders"})
		three, two := aged(3, 0), aged(2, 0)
		p.read(len(three)+len(two), []batch.Batch{three, two})
		q.read(len(two), []batch.Batch{two})
		p.acknowledged(three)
		expect(t, r, name, "A->B.MirrorSourceConnector 0 4")
		expect(t, r, dashboards, ` "A->B.MirrorSourceConnector" 0 4`,
			`kafka.connect<type=source-task-metrics, connector="A->B.MirrorSourceConnector", task=1><>source-record-active-count   4`)
		q.end() // without having written them
		expect(t, r, name, "A->B.MirrorSourceConnector 0 2")
	})
}

// How old records are is told by the worker that has the partition, or had it last. What it has counted it goes on telling.
func TestMetersFollowTheLease(t *testing.T) {
	inMeters(t, func(t *testing.T, m *meters, r *prometheus.Registry) {
		const age, count = ofSource + "record_age_ms", ofSource + "record_count"
		p := m.begin("A->B", copied)
		p.copy(aged(1, time.Second), 0)
		m.moved("A->B", copied) // word of a lease that was before this one
		expect(t, r, age, "2 A B A.orders 1000")
		p.end()
		time.Sleep(time.Minute)
		expect(t, r, age, "2 A B A.orders 1000")
		m.moved("A->B", kafka.TopicPartition{Topic: "A.orders", Partition: 1})
		expect(t, r, age, "2 A B A.orders 1000")
		m.moved("A->B", copied)
		expect(t, r, age)
		expect(t, r, count, "2 A B A.orders 1")
		m.begin("A->B", copied).end()
		expect(t, r, age, "2 A B A.orders 1000")
		time.Sleep(meterIdle)
		expect(t, r, age)
		expect(t, r, count)
	})
}

func TestMetersOfCommits(t *testing.T) {
	inMeters(t, func(t *testing.T, m *meters, r *prometheus.Registry) {
		const of = "kafka_connect_connector_task_metrics_offset_commit_"
		p := m.begin("A->B", copied)
		for _, name := range []string{"avg_time_ms", "max_time_ms", "success_percentage", "failure_percentage"} {
			expect(t, r, of+name) // not 0: nothing was committed
		}
		p.committed(10*time.Millisecond, nil)
		p.committed(20*time.Millisecond, nil)
		p.committed(60*time.Millisecond, nil)
		p.committed(5*time.Second, errors.New("the queue does not answer"))
		for name, want := range map[string]any{"avg_time_ms": 30, "max_time_ms": 60, "success_percentage": 0.75, "failure_percentage": 0.25} {
			expect(t, r, of+name, fmt.Sprint("A->B.MirrorSourceConnector 0 ", want))
		}
	})
}

// MirrorMaker shows one number for all groups and partitions.
func TestMetersOfCheckpointsAreEachGroupsOwn(t *testing.T) {
	inMeters(t, func(t *testing.T, m *meters, r *prometheus.Registry) {
		const latency = ofCheckpoint + "checkpoint_latency_ms"
		m.checkpointed("A->B", "billing", copied, 10*time.Millisecond)
		m.checkpointed("A->B", "billing", copied, 30*time.Millisecond)
		m.checkpointed("A->B", "shipping", copied, 500*time.Millisecond)
		expect(t, r, latency, "billing 2 A B A.orders 30", "shipping 2 A B A.orders 500")
		expect(t, r, latency+"_min", "billing 2 A B A.orders 10", "shipping 2 A B A.orders 500")
		expect(t, r, latency+"_max", "billing 2 A B A.orders 30", "shipping 2 A B A.orders 500")
		expect(t, r, latency+"_avg", "billing 2 A B A.orders 20", "shipping 2 A B A.orders 500")
		m.groupsMoved("C->B")
		expect(t, r, latency, "billing 2 A B A.orders 30", "shipping 2 A B A.orders 500")
		m.groupsMoved("A->B")
		expect(t, r, latency)
		m.checkpointed("A->B", "billing", copied, time.Millisecond)
		time.Sleep(meterIdle + time.Second)
		expect(t, r, latency)
	})
}

// Nothing is measured where nobody asks.
func TestMetersOff(t *testing.T) {
	m := newMetrics(prometheus.NewRegistry())
	c := m.of("A->B", copied)
	b := aged(1, 0)
	c.read(len(b), []batch.Batch{b})
	c.landed(b, batch.Passed)
	c.committed(time.Second, nil)
	m.checkpointed("A->B", "g", copied, 0)
	c.end()
	if records := m.totalRecords.Load(); records != 1 {
		t.Errorf("%d records", records)
	}
}

func TestMetersAllocateNothing(t *testing.T) {
	inMeters(t, func(t *testing.T, m *meters, _ *prometheus.Registry) {
		p, batches := m.begin("A->B", copied), []batch.Batch{aged(100, 0)}
		if n := testing.AllocsPerRun(100, func() { p.read(1000, batches); p.acknowledged(batches[0]) }); n > 0 {
			t.Errorf("%v allocations for each batch", n)
		}
	})
}

// BenchmarkMeters is what a batch costs more with MirrorMaker's metrics than without.
func BenchmarkMeters(b *testing.B) {
	for _, on := range []bool{false, true} {
		b.Run(fmt.Sprint("on=", on), func(b *testing.B) {
			m := newMetrics(prometheus.NewRegistry())
			if on {
				m.meters = newMeters([]spec.Flow{{Source: "A", Target: "B"}}, func() int { return 1 }, func() int64 { return 0 })
			}
			c, batches := m.of("A->B", copied), []batch.Batch{aged(16, 0)}
			b.ReportAllocs()
			for b.Loop() {
				c.read(1000, batches)
				c.landed(batches[0], batch.Passed)
			}
		})
	}
}
