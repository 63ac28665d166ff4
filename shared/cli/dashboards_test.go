package cli_test

import (
	"fmt"
	"math"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kferry/kferry/shared/connect"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/local"
)

// What a scrape configuration adds to every sample, and the dashboards ask for: Strimzi's kafka-resources-metrics.yaml takes it from the
// pods' labels and names.
const installation = "central-mirror"

var ofInstallation = map[string]string{
	"namespace": "kafka", "strimzi_io_kind": "KafkaMirrorMaker2", "strimzi_io_cluster": installation, "container": installation + "-mirrormaker2",
}

// here and pod are what the dashboards select by, with Grafana's variables filled in.
const (
	here = `{strimzi_io_kind=~"KafkaMirrorMaker2",strimzi_io_cluster="` + installation + `"}`
	more = `strimzi_io_kind=~"KafkaMirrorMaker2",strimzi_io_cluster="` + installation + `",`
	pod  = `{namespace="kafka",pod=~"` + installation + `-mirrormaker2-.+",container="` + installation + `-mirrormaker2"}`

	ofSource     = "kafka_connect_mirror_mirrorsourceconnector_"
	ofCheckpoint = "kafka_connect_mirror_mirrorcheckpointconnector_"
	byPartition  = ") by (partition, topic)"
	byPod        = ") by (kubernetes_pod_name)"
	clusterOf    = `query_result of $strimzi_mirror_maker_cluster_name: `
	namespaceOf  = `query_result of $kubernetes_namespace: `
	jvm          = "asks for a JVM"
	kubelet      = "asks the kubelet"
)

// A query is one of Strimzi's dashboard, by its panel.
type query struct {
	panel, expression string
	leftOut           string // why kferry answers nothing
}

// both are the queries that are the same on both dashboards.
var both = []query{
	{"Total record rate", "sum(" + ofSource + "record_rate" + here + ")", ""},
	{"Total byte rate", "sum(" + ofSource + "byte_rate" + here + ")", ""},
	{"Record Age", "sum(" + ofSource + "record_age_ms" + here + byPartition, ""},
	{"Record Age", "sum(" + ofSource + "record_age_ms_avg" + here + byPartition, ""},
	{"Record Age", "sum(" + ofSource + "record_age_ms_min" + here + byPartition, ""},
	{"Record Age", "sum(" + ofSource + "record_age_ms_max" + here + byPartition, ""},
	{"Replication Latency", "sum(" + ofSource + "replication_latency_ms" + here + byPartition, ""},
	{"Replication Latency", "sum(" + ofSource + "replication_latency_ms_avg" + here + byPartition, ""},
	{"Replication Latency", "sum(" + ofSource + "replication_latency_ms_min" + here + byPartition, ""},
	{"Replication Latency", "sum(" + ofSource + "replication_latency_ms_max" + here + byPartition, ""},
	{"Consumer Group Offset Sync Latency", "sum by (source, target, topic, partition, group) (" + ofCheckpoint + "checkpoint_latency_ms" + here + ")", ""},
	{"JVM Memory", "sum(jvm_memory_used_bytes" + here + byPod, jvm},
	{"Time Spent in GC", "sum(rate(jvm_gc_collection_seconds_sum" + here + "[5m])" + byPod, jvm},
	{"JVM Thread Count", "sum(jvm_threads_current" + here + byPod, jvm},
}

// exporters are those of the dashboard for the JMX exporter.
var exporters = []query{
	{namespaceOf, `kafka_connect_worker_connector_count{strimzi_io_kind="KafkaMirrorMaker2"}`, ""},
	{clusterOf, `kafka_connect_worker_connector_count{namespace="kafka", strimzi_io_kind="KafkaMirrorMaker2"}`, ""},
	{"Total Number of Running Connectors", "sum(kafka_connect_worker_connector_count" + here + ")", ""},
	{"Total Number of Running Tasks", "sum(kafka_connect_worker_task_count" + here + ")", ""},
	{"Consumer Lag", "sum(kafka_consumer_fetch_manager_records_lag{" + more + `clientid=~".*replication-consumer\""}) by (topic, partition)`, ""},
	{"Consumer Lag", "topk(20, sum(kafka_consumer_fetch_manager_records_lag{" + more + `clientid=~".*replication-consumer\""}) by (partition, topic))`, ""},
	{"Incoming Bytes per Second", "sum(rate(kafka_consumer_incoming_byte_total" + here + "[5m])" + byPod, ""},
	{"Outgoing Bytes per Second", "sum(rate(kafka_producer_outgoing_byte_total" + here + "[5m])" + byPod, ""},
	{"Source Connector - Producer Available Buffer", `sum(kafka_producer_buffer_available_bytes{clientid=~"\".*SourceConnector-[0-9]+\""})`, ""},
	{"Source Connector - Average Offset Commit Time", `sum(kafka_connect_connector_task_offset_commit_avg_time_ms{connector=~"\".*SourceConnector\"", task=~"[0-9]+"})/count(kafka_connect_connector_task_offset_commit_avg_time_ms{connector=~"\".*SourceConnector\"", task=~"[0-9]+"})`, ""},
	{"Source Connector - Connect Outstanding Messages Queue", `sum(kafka_connect_source_task_source_record_active_count{connector=~"\".*SourceConnector\""})`, ""},
	{"Assigned Connectors per Worker", "sum(kafka_connect_coordinator_assigned_connectors" + here + byPod, ""},
	{"Rebalancing", "sum(kafka_connect_worker_rebalance_rebalancing" + here + ")", ""},
	{"Assigned Tasks per Worker", "sum(kafka_connect_coordinator_assigned_tasks" + here + byPod, ""},
	{"CPU Usage", "sum(rate(container_cpu_usage_seconds_total" + pod + "[5m])) by (pod)", kubelet},
}

// reporters are those of the dashboard for Strimzi's metrics reporter.
var reporters = []query{
	{namespaceOf, `kafka_connect_connect_worker_metrics_connector_count{strimzi_io_kind="KafkaMirrorMaker2"}`, ""},
	{clusterOf, `kafka_connect_connect_worker_metrics_connector_count{namespace="kafka", strimzi_io_kind="KafkaMirrorMaker2"}`, ""},
	{"Total Number of Running Connectors", "sum(kafka_connect_connect_worker_metrics_connector_count" + here + ")", ""},
	{"Total Number of Running Tasks", "sum(kafka_connect_connect_worker_metrics_task_count" + here + ")", ""},
	{"Consumer Lag", "sum(kafka_consumer_consumer_fetch_manager_metrics_records_lag{" + more + `client_id=~".*replication-consumer"}) by (topic, partition)`, ""},
	{"Consumer Lag", "topk(20, sum(kafka_consumer_consumer_fetch_manager_metrics_records_lag{" + more + `client_id=~".*replication-consumer"}) by (partition, topic))`, ""},
	{"Incoming Bytes per Second", "sum(rate(kafka_consumer_consumer_metrics_incoming_byte" + here + "[5m])" + byPod, ""},
	{"Outgoing Bytes per Second", "sum(rate(kafka_producer_producer_metrics_outgoing_byte" + here + "[5m])" + byPod, ""},
	{"Connector - Producer Available Buffer", "sum(kafka_producer_producer_metrics_buffer_available_bytes) by (client_id)", ""},
	{"Source Connector - Average Offset Commit Time", `sum(kafka_connect_connector_task_metrics_offset_commit_avg_time_ms{connector=~".*SourceConnector", task=~"[0-9]+"})/count(kafka_connect_connector_task_metrics_offset_commit_avg_time_ms{connector=~".*SourceConnector", task=~"[0-9]+"})`, ""},
	{"Source Connector - Connect Outstanding Messages Queue", `sum(kafka_connect_source_task_source_record_active_count{_objectname=~"kafka.connect<type=source-task-metrics, connector=\".*MirrorSourceConnector\", task=1><>source-record-active-count"}) by (_objectname)`, ""},
	{"Assigned Connectors per Worker", "sum(kafka_connect_connect_coordinator_metrics_assigned_connectors" + here + byPod, ""},
	{"Rebalancing", "sum(kafka_connect_connect_worker_rebalance_metrics_rebalancing" + here + ")", ""},
	{"Assigned Tasks per Worker", "sum(kafka_connect_connect_coordinator_metrics_assigned_tasks" + here + byPod, ""},
	{"CPU Usage", "sum(rate(process_cpu_seconds_total" + pod + "[5m])) by (pod)", ""},
}

// connectors are those of world: for records, groups and heartbeats.
const connectors = 3

// A watched process is one that Prometheus scrapes.
type watched struct {
	name, address string
	command       *command
}

func watch(t *testing.T, environ []string, name string, args ...string) watched {
	t.Helper()
	address := freeAddress(t)
	w := watched{name, address, begin(t, environ, append(args, "--http", address)...)}
	eventually(t, name+" is ready", func() bool { status, _ := get(t, address, "/readyz"); return status == http.StatusOK })
	return w
}

func (s samples) scrapeAll(t *testing.T, at time.Time, all ...watched) {
	t.Helper()
	for _, w := range all {
		_, text := get(t, w.address, "/metrics")
		target := map[string]string{"kubernetes_pod_name": w.name, "pod": w.name}
		for name, value := range ofInstallation {
			target[name] = value
		}
		s.scrape(t, text, at, target)
	}
}

// commitGroup commits an offset of a group in partition 0 of the source's topic.
func commitGroup(t *testing.T, env *local.Env, group string, offset int64) {
	t.Helper()
	c, err := kafka.Open(env.Spec(source), kafka.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	refused, err := c.CommitGroupOffsets(t.Context(), group, map[kafka.TopicPartition]kafka.Commit{{Topic: "orders"}: {Offset: offset}})
	if err != nil || len(refused) > 0 {
		t.Fatal(err, refused)
	}
}

// Strimzi's dashboards for MirrorMaker 2 show kferry: every query finds data, but those that ask for what kferry has not.
func TestStrimziDashboards(t *testing.T) {
	t.Parallel()
	env, environ := world(t, 60)
	commitGroup(t, env, "billing", 3)
	kferry := watch(t, environ, installation+"-mirrormaker2-0", "run")
	known, at := samples{}, time.Now()
	for i := range 2 {
		eventually(t, "all is copied, and told", func() bool {
			_, text := get(t, kferry.address, "/metrics")
			return strings.Contains(text, fmt.Sprintf(`kferry_records_total{flow="kafka-dc-1->central"} %d`, 60*(i+1))) &&
				strings.Contains(text, `kferry_lag_records{flow="kafka-dc-1->central",topic="orders"} 0`) &&
				strings.Contains(text, ofCheckpoint+`checkpoint_latency_ms{group="billing",partition="0",source="kafka-dc-1",target="central",topic="kafka-dc-1.orders"}`)
		})
		known.scrapeAll(t, at.Add(time.Duration(i)*30*time.Second), kferry)
		if i == 0 {
			write(t, env, 60)
		}
	}
	for _, q := range slices.Concat(both, exporters, reporters) {
		found := known.query(t, q.expression, at.Add(31*time.Second))
		if q.leftOut != "" {
			if len(found) > 0 {
				t.Errorf("%s: there is data, although %s", q.panel, q.leftOut)
			}
			continue
		}
		if len(found) == 0 {
			t.Errorf("%s finds nothing: %s", q.panel, q.expression)
		}
		for _, s := range found {
			if math.IsNaN(s.F) || s.F < 0 {
				t.Errorf("%s: %v of %s", q.panel, s.F, q.expression)
			}
		}
	}
	for expression, want := range map[string]float64{
		"sum(" + ofSource + "record_count)":                120,
		"count(" + ofSource + "record_count)":              3,
		"count(" + ofSource + "record_age_ms)":             3,
		"count(" + ofCheckpoint + "checkpoint_latency_ms)": 1,
		"sum(kafka_connect_worker_connector_count)":        connectors,
		`count(kafka_connect_connector_status{connector="\"kafka-dc-1->central.MirrorSourceConnector\"",status="running"})`:                             1,
		`sum(kafka_consumer_fetch_manager_records_lag{clientid="\"kafka-dc-1->central|MirrorSourceConnector-0|replication-consumer\"",topic="orders"})`: 0,
		"sum(kafka_connect_worker_connector_total_task_count)":                                                                                          3,
	} {
		if found := known.query(t, expression, at.Add(31*time.Second)); len(found) != 1 || found[0].F != want {
			t.Errorf("%s is %v, want %v", expression, found, want)
		}
	}
	everyName(t, known)
	ownDashboard(t, known, at.Add(31*time.Second))
}

// everyName holds README's table of names against what was scraped, and against what there is.
func everyName(t *testing.T, known samples) {
	t.Helper()
	served := map[string]bool{}
	for _, s := range known {
		served[s.Metric.Get("__name__")] = true
	}
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "| MirrorMaker's name |")
	table, _, _ = strings.Cut(table, "\n\n")
	named, last := map[string]bool{}, ""
	for _, match := range regexp.MustCompile("`(kafka_[a-z_]+|_[a-z_]+)`").FindAllStringSubmatch(table, -1) {
		name := match[1]
		if strings.HasPrefix(name, "_") {
			name = last + name
		} else {
			last = name
		}
		named[name] = true
	}
	for _, m := range slices.Concat(connect.OfWorker(), connect.OfCoordinator(), connect.OfProcess()) {
		for _, name := range m.Names() {
			if !served[name] {
				t.Errorf("nobody serves %s", name)
			}
			if !named[name] {
				t.Errorf("README's table lacks %s", name)
			}
			delete(named, name)
		}
	}
	for name := range named {
		t.Errorf("README's table has %s, which is not there", name)
	}
}

// Where several coordinators and workers are scraped, what they say together is as true as what one process says.
func TestDashboardsAddUpOverProcesses(t *testing.T) {
	t.Parallel()
	env, environ := world(t, 90)
	server, err := local.StartNATS(t.TempDir(), local.NATSListen("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	environ = append(environ, "NATS_URL="+server.URL())
	var all []watched
	for _, role := range []string{"coordinator", "coordinator", "worker", "worker"} {
		all = append(all, watch(t, environ, fmt.Sprint(role, len(all)), role))
	}
	for written, moved := 90, false; !moved; written += 30 { // until a partition has moved from one worker to the other
		if written > 500 {
			t.Fatal("no partition moves")
		}
		var wrong string
		t.Cleanup(func() { t.Log(wrong) })
		eventually(t, "the dashboards add up, and all leases are back", func() bool {
			known, at := samples{}, time.Now()
			known.scrapeAll(t, at, all...)
			of := func(expression string) float64 {
				if found := known.query(t, expression, at); len(found) == 1 {
					return found[0].F
				}
				return math.NaN()
			}
			wrong = ""
			for expression, want := range map[string]float64{
				"sum(" + ofSource + "record_count)":                               float64(written),
				"sum(kafka_connect_worker_connector_count)":                       connectors,
				"count(kafka_connect_connector_status)":                           connectors,
				"count(kafka_consumer_fetch_manager_records_lag)":                 3,
				"sum(kafka_consumer_fetch_manager_records_lag)":                   0,
				"sum(kafka_connect_worker_task_count)":                            0,
				"count(" + ofSource + "replication_latency_ms)":                   3,
				"max(count by (topic,partition) (" + ofSource + "record_age_ms))": 1,
			} {
				if got := of(expression); got != want {
					wrong += fmt.Sprintf("%s is %v, not %v\n", expression, got, want)
				}
			}
			moved = of("count("+ofSource+"record_count)") > 3
			return wrong == ""
		})
		write(t, env, 30)
	}
}
