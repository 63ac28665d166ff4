package coordinator

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kferry/kferry/shared/lease"
)

// metrics are those of one coordinator. Where several run, all of them report the same.
type metrics struct {
	failures *prometheus.CounterVec
	pass     *prometheus.HistogramVec
	waiting  prometheus.Gauge
}

func newMetrics(to prometheus.Registerer, c *Coordinator) *metrics {
	m := &metrics{
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kferry_coordinator_failures_total", Help: "Passes over a flow that failed.",
		}, []string{"flow"}),
		pass: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kferry_coordinator_pass_seconds", Help: "How long a pass over a flow takes.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
		}, []string{"flow"}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kferry_tasks_waiting", Help: "Tasks that no worker has claimed yet.",
		}),
	}
	if to != nil {
		to.MustRegister(m.failures, m.pass, m.waiting, collector{c})
	}
	return m
}

// passed notes how a pass over a flow ended.
func (m *metrics) passed(flow string, took time.Duration, err error) {
	m.pass.WithLabelValues(flow).Observe(took.Seconds())
	failures := m.failures.WithLabelValues(flow) // there with 0 from the start, so that a rate sees the first one
	if err != nil {
		failures.Inc()
	}
}

// collector tells what the last passes found, at the time of the scrape: so a line never lacks between two passes, and that of a
// topic or reason that is gone goes with it.
type collector struct{ c *Coordinator }

var (
	lagDesc     = prometheus.NewDesc("kferry_lag_records", "Source offsets that are still to be looked at.", []string{"flow", "topic"}, nil)
	heldDesc    = prometheus.NewDesc("kferry_partitions_held", "Partitions that stand still until somebody removes the reason.", []string{"flow", "reason"}, nil)
	oldestDesc  = prometheus.NewDesc("kferry_oldest_unreplicated_seconds", "How long the oldest record that is not replicated has, or while the flow fails may have, been on the source.", []string{"flow"}, nil)
	gapsDesc    = prometheus.NewDesc("kferry_gaps_unacknowledged", "Gaps in copies, left by a policy, that nobody has acknowledged.", []string{"flow", "reason"}, nil)
	gapSizeDesc = prometheus.NewDesc("kferry_gap_offsets_unacknowledged", "Source offsets that those gaps are about, as far as their number is known.", []string{"flow", "reason"}, nil)
	expireDesc  = prometheus.NewDesc("kferry_partitions_expiring", "Partitions whose next record the source may delete before it is copied.", []string{"flow", "topic"}, nil)
	desiredDesc = prometheus.NewDesc("kferry_desired_workers", "Workers that are wanted, as GET /scale says.", nil, nil)
	backlogDesc = prometheus.NewDesc("kferry_backlog_bytes", "What workers can copy now, reckoned from offsets.", nil, nil)
	failingDesc = prometheus.NewDesc("kferry_flow_failing", "1 while one of the flow's clusters, or the queue, doesn't answer the coordinator.", []string{"flow"}, nil)
)

// Describe implements prometheus.Collector.
func (k collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{lagDesc, heldDesc, oldestDesc, gapsDesc, gapSizeDesc, expireDesc, failingDesc, desiredDesc, backlogDesc} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (k collector) Collect(to chan<- prometheus.Metric) {
	now := time.Now()
	if s, err := k.c.Scale(); err == nil {
		to <- prometheus.MustNewConstMetric(desiredDesc, prometheus.GaugeValue, float64(s.Desired))
		to <- prometheus.MustNewConstMetric(backlogDesc, prometheus.GaugeValue, float64(s.BacklogBytes))
	}
	for _, f := range k.c.Flows() {
		gauge := func(d *prometheus.Desc, v float64, labels ...string) {
			to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{f.Flow}, labels...)...)
		}
		for topic, records := range f.lagByTopic() {
			gauge(lagDesc, float64(records), topic)
		}
		for reason, partitions := range f.heldByReason() {
			gauge(heldDesc, float64(partitions), string(reason))
		}
		gaps, offsets := f.gapsByReason()
		for reason, n := range gaps {
			gauge(gapsDesc, float64(n), string(reason))
			gauge(gapSizeDesc, float64(offsets[reason]), string(reason))
		}
		for topic, partitions := range f.Expiring {
			gauge(expireDesc, float64(partitions), topic)
		}
		gauge(oldestDesc, f.oldest(now).Seconds())
		failing := 0.0
		if f.Err != nil {
			failing = 1
		}
		gauge(failingDesc, failing)
	}
}

func (f FlowReport) lagByTopic() map[string]int64 {
	lag := map[string]int64{}
	for _, at := range f.Plan.Partitions {
		if at.State != Gone {
			lag[at.Topic] += at.Lag
		}
	}
	return lag
}

func (f FlowReport) gapsByReason() (gaps, offsets map[lease.Reason]int64) {
	gaps, offsets = map[lease.Reason]int64{}, map[lease.Reason]int64{}
	for _, g := range f.Gaps {
		gaps[g.Reason]++
		offsets[g.Reason] += max(0, g.Count)
	}
	return gaps, offsets
}

func (f FlowReport) heldByReason() map[lease.Reason]int {
	held := map[lease.Reason]int{}
	for _, at := range f.Plan.Partitions {
		if at.State == Held {
			held[at.Reason]++
		}
	}
	return held
}
