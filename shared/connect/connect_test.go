package connect_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/kferry/kferry/shared/connect"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// A sender is a collector of what a test sends.
type sender func(to chan<- prometheus.Metric)

func (s sender) Describe(chan<- *prometheus.Desc)    {}
func (s sender) Collect(to chan<- prometheus.Metric) { s(to) }

// What stands here was taken from Strimzi's rules for the JMX exporter, the reporter's naming, and the queries of both dashboards.
func TestNamesAndLabels(t *testing.T) {
	f := spec.Flow{Source: "A", Target: "B", Connector: mm2.SourceConnector}
	strimzi := spec.Flow{Source: "A", Target: "B", Connector: "A->B.MirrorSourceConnector"}
	for _, test := range []struct {
		send sender
		want string
	}{
		{func(to chan<- prometheus.Metric) {
			connect.RecordsLag.Send(to, 7, connect.ConsumerID(f), "orders", "3")
		}, `
# TYPE kafka_consumer_consumer_fetch_manager_metrics_records_lag gauge
kafka_consumer_consumer_fetch_manager_metrics_records_lag{client_id="A->B|MirrorSourceConnector-0|replication-consumer",partition="3",topic="orders"} 7
# TYPE kafka_consumer_fetch_manager_records_lag gauge
kafka_consumer_fetch_manager_records_lag{clientid="\"A->B|MirrorSourceConnector-0|replication-consumer\"",partition="3",topic="orders"} 7
`},
		{func(to chan<- prometheus.Metric) { connect.IncomingBytes.Send(to, 9, connect.ConsumerID(strimzi)) }, `
# TYPE kafka_consumer_consumer_metrics_incoming_byte gauge
kafka_consumer_consumer_metrics_incoming_byte{client_id="A->B|A->B.MirrorSourceConnector-0|replication-consumer"} 9
# TYPE kafka_consumer_incoming_byte_total counter
kafka_consumer_incoming_byte_total{clientid="\"A->B|A->B.MirrorSourceConnector-0|replication-consumer\""} 9
`},
		{func(to chan<- prometheus.Metric) {
			connect.Status.Send(to, 1, connect.Connector(f, mm2.SourceConnector), connect.Task, connect.Running)
		}, `
# TYPE kafka_connect_connector_status gauge
kafka_connect_connector_status{connector="\"A->B.MirrorSourceConnector\"",status="running",task="0"} 1
# TYPE kafka_connect_connector_task_metrics_status_info gauge
kafka_connect_connector_task_metrics_status_info{connector="A->B.MirrorSourceConnector",status="running",task="0"} 1
`},
		{func(to chan<- prometheus.Metric) {
			connect.ActiveRecords.Send(to, 5, connect.Connector(f, mm2.SourceConnector), connect.Task, "")
			connect.ActiveObject.Send(to, 5, "", "", connect.TaskObject(f))
		}, `
# TYPE kafka_connect_source_task_metrics_source_record_active_count gauge
kafka_connect_source_task_metrics_source_record_active_count{connector="A->B.MirrorSourceConnector",task="0"} 5
# TYPE kafka_connect_source_task_source_record_active_count gauge
kafka_connect_source_task_source_record_active_count{_objectname="",connector="\"A->B.MirrorSourceConnector\"",task="0"} 5
kafka_connect_source_task_source_record_active_count{_objectname="kafka.connect<type=source-task-metrics, connector=\"A->B.MirrorSourceConnector\", task=1><>source-record-active-count",connector="",task=""} 5
`},
		{func(to chan<- prometheus.Metric) {
			connect.CheckpointLatency.Avg.Send(to, 2, "A", "B", `a group with "?"`, "A.orders", "0")
		}, `
# TYPE kafka_connect_mirror_mirrorcheckpointconnector_checkpoint_latency_ms_avg gauge
kafka_connect_mirror_mirrorcheckpointconnector_checkpoint_latency_ms_avg{group="a group with \"?\"",partition="0",source="A",target="B",topic="A.orders"} 2
`},
		{func(to chan<- prometheus.Metric) { connect.RunningTasks.Send(to, 2, `a"b*?\`) }, `
# TYPE kafka_connect_connect_worker_metrics_connector_running_task_count gauge
kafka_connect_connect_worker_metrics_connector_running_task_count{connector="a\"b*?\\"} 2
# TYPE kafka_connect_worker_connector_running_task_count gauge
kafka_connect_worker_connector_running_task_count{connector="\"a\\\"b\\*\\?\\\\\""} 2
`},
	} {
		registry := prometheus.NewRegistry()
		registry.MustRegister(test.send)
		families, err := registry.Gather()
		if err != nil {
			t.Error(err)
		}
		var text bytes.Buffer
		for _, family := range families {
			if _, err := expfmt.MetricFamilyToText(&text, family); err != nil {
				t.Error(err)
			}
		}
		got := ""
		for line := range strings.Lines(text.String()) {
			if !strings.HasPrefix(line, "# HELP") {
				got += line
			}
		}
		if got != strings.TrimPrefix(test.want, "\n") {
			t.Errorf("got\n%s\nwant%s", got, test.want)
		}
	}
}

// Every name is there once, and of a form that Prometheus takes.
func TestNamesDiffer(t *testing.T) {
	known := map[string]bool{}
	for _, m := range slices.Concat(connect.OfWorker(), connect.OfCoordinator(), connect.OfProcess()) {
		for _, name := range m.Names() {
			if known[name] || !strings.HasPrefix(name, "kafka_") || strings.ContainsAny(name, "-. ") {
				t.Errorf("%s: known %v", name, known[name])
			}
			known[name] = true
		}
	}
	if len(known) < 60 {
		t.Errorf("only %d names", len(known))
	}
}
