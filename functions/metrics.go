package functions

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kferry/kferry/shared/batch"
	"github.com/kferry/kferry/shared/kafka"
)

// metrics are a worker's, for Prometheus.
type metrics struct {
	held                     prometheus.Gauge
	lost                     prometheus.Counter
	records, bytes           *prometheus.CounterVec
	batches                  *prometheus.CounterVec
	failures                 *prometheus.CounterVec
	waited                   *prometheus.CounterVec
	limitBytes, limitRecords *prometheus.GaugeVec
	decisions                *prometheus.CounterVec
	configs, acls            *prometheus.CounterVec
	totalRecords, totalBytes atomic.Int64
	*meters
	tempo *tempo
}

// counters are those of one run.
type counters struct {
	*metrics
	*meter
	flow           string
	backlog        backlog
	records, bytes prometheus.Counter
	batches        *prometheus.CounterVec
	decisions      *prometheus.CounterVec
	note           func(batch.Batch) // what has landed; nil where nobody wants to know
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		tempo:     newTempo(),
		held:      prometheus.NewGauge(prometheus.GaugeOpts{Name: "kferry_leases_held", Help: "Leases that this worker holds."}),
		lost:      prometheus.NewCounter(prometheus.CounterOpts{Name: "kferry_leases_lost_total", Help: "Runs that ended because another worker had taken over."}),
		records:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kferry_records_total", Help: "Records acknowledged by the target."}, []string{"flow"}),
		bytes:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kferry_bytes_total", Help: "Bytes of record batches acknowledged by the target."}, []string{"flow"}),
		batches:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kferry_batches_total", Help: "Batches written, by how: passed through, merged (small), or re-encoded and why."}, []string{"flow", "how"}),
		failures:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kferry_task_failures_total", Help: "Tasks that stopped, by reason."}, []string{"flow", "reason"}),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kferry_decisions_total", Help: "Partitions that went on by a decision, by the reason they were held for and by whom."}, []string{"flow", "reason", "decision", "by"}),
		waited:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kferry_rate_wait_seconds_total", Help: "Time that partitions have waited because of a rate limit."}, []string{"flow"}),
		configs:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kferry_topic_configs_synced_total", Help: "Settings of copies that were set or removed to follow their source."}, []string{"flow"}),
		acls:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kferry_acls_synced_total", Help: "Rights on copies that were given or taken away to follow their source."}, []string{"flow"}),

		limitBytes:   prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "kferry_rate_limit_bytes", Help: "Most bytes a second that the flow may read, over all workers; 0 is no limit."}, []string{"flow"}),
		limitRecords: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "kferry_rate_limit_records", Help: "Most records a second that the flow may read, over all workers; 0 is no limit."}, []string{"flow"}),
	}
	if r != nil {
		r.MustRegister(m.held, m.lost, m.records, m.bytes, m.batches, m.failures, m.decisions, m.waited, m.configs, m.acls, m.limitBytes, m.limitRecords)
	}
	return m
}

// of begins a run that copies to a partition. Whoever calls it calls the counters' end.
func (m *metrics) of(flow string, to kafka.TopicPartition) *counters {
	return &counters{
		metrics: m, meter: m.begin(flow, to), flow: flow, backlog: backlog{of: m.tempo},
		records: m.records.WithLabelValues(flow), bytes: m.bytes.WithLabelValues(flow),
		batches:   m.batches.MustCurryWith(prometheus.Labels{"flow": flow}),
		decisions: m.decisions.MustCurryWith(prometheus.Labels{"flow": flow}),
	}
}

// followed counts what was written to a copy to make it like its source.
func (m *metrics) followed(flow string, configs, acls int) {
	m.configs.WithLabelValues(flow).Add(float64(configs))
	m.acls.WithLabelValues(flow).Add(float64(acls))
}

// landed counts one batch that the target has acknowledged.
func (c *counters) landed(b batch.Batch, how batch.Reason) {
	if how == batch.Passed {
		how = "passed"
	}
	c.records.Add(float64(b.Records()))
	c.bytes.Add(float64(len(b)))
	c.batches.WithLabelValues(string(how)).Inc()
	c.totalRecords.Add(int64(b.Records()))
	c.totalBytes.Add(int64(len(b)))
	c.tempo.landed(c.flow, int64(b.Records()), int64(len(b)))
	c.acknowledged(b)
	if c.note != nil {
		c.note(b)
	}
}
