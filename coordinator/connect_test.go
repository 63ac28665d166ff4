package coordinator_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// tells holds what dashboards are told under one name against what is wanted: label values in the order of their names, and the value.
func (in *installation) tells(from prometheus.Gatherer, name string, want ...string) {
	in.Helper()
	var got []string
	for _, family := range must(from.Gather()) {
		for _, m := range family.GetMetric() {
			var series strings.Builder
			for _, label := range m.GetLabel() {
				series.WriteString(label.GetValue() + " ")
			}
			if family.GetName() == name {
				got = append(got, fmt.Sprint(series.String(), m.GetGauge().GetValue()))
			}
		}
	}
	if !slices.Equal(got, want) {
		in.Errorf("%s is %q, want %q", name, got, want)
	}
}

const (
	lagName       = "kafka_consumer_consumer_fetch_manager_metrics_records_lag"
	statusName    = "kafka_connect_connector_task_metrics_status_info"
	countName     = "kafka_connect_connect_worker_metrics_connector_count"
	runningName   = "kafka_connect_connect_worker_metrics_connector_running_task_count"
	pausedName    = "kafka_connect_connect_worker_metrics_connector_paused_task_count"
	failedName    = "kafka_connect_connect_worker_metrics_connector_failed_task_count"
	unassigned    = "kafka_connect_connect_worker_metrics_connector_unassigned_task_count"
	totalName     = "kafka_connect_connect_worker_metrics_connector_total_task_count"
	readerOf      = "|MirrorSourceConnector-0|replication-consumer "
	sourceOf      = ".MirrorSourceConnector "
	untilAPassHas = 3 * time.Second
)

// watched has the installation serve what dashboards ask for.
func (in *installation) watched() {
	in.Options.Spec.Settings.MM2Metrics = true
}

func TestDashboardsSeeLagAndTasks(t *testing.T) {
	bubble(t, func(in *installation) {
		in.watched()
		in.create("A", "orders", 3, 7)
		in.create("B", "A.orders", 3, 0)
		in.create("C", "payments", 1, 5)
		in.Options.Spec.Flows[1].Groups.State = spec.Paused
		in.Options.Spec.Heartbeats = []spec.Heartbeat{{Source: "A", Target: "B", Interval: time.Second, ReplicationFactor: -1}}
		in.run()
		time.Sleep(untilAPassHas)
		in.tells(in.metrics, lagName, "A->B"+readerOf+"0 orders 7", "A->B"+readerOf+"1 orders 0", "A->B"+readerOf+"2 orders 0", "C->B"+readerOf+"0 payments 5")
		in.tells(in.metrics, statusName, "A->B.MirrorHeartbeatConnector running 0 1", "A->B.MirrorSourceConnector running 0 1",
			"C->B.MirrorCheckpointConnector paused 0 1", "C->B.MirrorSourceConnector running 0 1")
		in.tells(in.metrics, countName, "4")
		in.tells(in.metrics, totalName, "A->B"+sourceOf+"3", "C->B"+sourceOf+"1")
		in.tells(in.metrics, runningName, "A->B"+sourceOf+"3", "C->B"+sourceOf+"0")
		in.tells(in.metrics, unassigned, "A->B"+sourceOf+"0", "C->B"+sourceOf+"1")
		in.tells(in.metrics, failedName, "A->B"+sourceOf+"0", "C->B"+sourceOf+"0")

		in.Kafka("B").Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "heartbeats", Err: kerr.TopicAuthorizationFailed, Count: -1})
		time.Sleep(untilAPassHas)
		in.tells(in.metrics, statusName, "A->B.MirrorHeartbeatConnector failed 0 1", "A->B.MirrorSourceConnector running 0 1",
			"C->B.MirrorCheckpointConnector paused 0 1", "C->B.MirrorSourceConnector running 0 1")
	})
}

// A connector is failed while somebody has to do something, and as the input wants it else.
func TestDashboardsSeeWhatIsWrong(t *testing.T) {
	bubble(t, func(in *installation) {
		in.watched()
		in.create("A", "orders", 1, 7)
		in.create("B", "A.orders", 1, 0)
		in.create("C", "payments", 1, 5)
		in.create("B", "C.payments", 1, 0)
		in.Options.Spec.Flows[1].State = spec.Paused
		in.Options.Spec.Flows[0].Groups = spec.Groups{State: spec.Running}
		in.run()
		time.Sleep(untilAPassHas)
		in.tells(in.metrics, statusName, "A->B.MirrorCheckpointConnector running 0 1", "A->B.MirrorSourceConnector running 0 1", "C->B.MirrorSourceConnector paused 0 1")
		in.tells(in.metrics, pausedName, "A->B"+sourceOf+"0", "C->B"+sourceOf+"1")
		in.tells(in.metrics, lagName, "A->B"+readerOf+"0 orders 7", "C->B"+readerOf+"0 payments 5")

		flow := in.Options.Spec.Flows[0]
		cursors := in.Queue.Cursors(flow, in.Clusters["B"])
		held := lease.Cursor{Hold: lease.Hold{Reason: lease.ReasonForeignWriter, Detail: "somebody else", Since: time.Now()}}
		in.must(second(cursors.Create(in.Context(), "orders", 0, held)))
		time.Sleep(untilAPassHas)
		in.tells(in.metrics, statusName, "A->B.MirrorCheckpointConnector running 0 1", "A->B.MirrorSourceConnector failed 0 1", "C->B.MirrorSourceConnector paused 0 1")
		in.tells(in.metrics, failedName, "A->B"+sourceOf+"1", "C->B"+sourceOf+"0")

		in.must(cursors.SetPaused(in.Context(), true))
		time.Sleep(untilAPassHas)
		in.tells(in.metrics, statusName, "A->B.MirrorCheckpointConnector paused 0 1", "A->B.MirrorSourceConnector paused 0 1", "C->B.MirrorSourceConnector paused 0 1")
	})
}

func second(_ uint64, err error) error { return err }

// Dashboards add up what all processes say, so one coordinator speaks; another takes over when it is gone.
func TestOneCoordinatorTellsDashboards(t *testing.T) {
	bubble(t, func(in *installation) {
		in.watched()
		in.create("A", "orders", 1, 7)
		registries := []*prometheus.Registry{in.metrics, prometheus.NewRegistry(), prometheus.NewRegistry()}
		queues := []*lease.Queue{in.Queue}
		for i, registry := range registries {
			if i > 0 {
				in.Queue = must(lease.Open(in.Context(), lease.Options{InProcess: in.NATS}))
				in.stop = append(in.stop, in.Queue.Close)
				queues = append(queues, in.Queue)
			}
			in.Metrics = registry
			in.run()
			time.Sleep(300 * time.Millisecond) // they don't ask at one moment, nor when the test looks
		}
		speakers := func() (all []int) {
			for i, registry := range registries {
				for _, family := range must(registry.Gather()) {
					if family.GetName() == countName {
						all = append(all, i)
					}
				}
			}
			return all
		}
		time.Sleep(untilAPassHas)
		for left := range registries[1:] {
			before := speakers()
			if len(before) != 1 {
				t.Fatalf("of %d coordinators, these speak: %v", len(registries)-left, before)
			}
			queues[before[0]].Close() // it hears and tells no more
			registries[before[0]] = prometheus.NewRegistry()
			time.Sleep(2 * time.Second)
			if now := speakers(); len(now) > 1 {
				t.Errorf("two speak: %v", now)
			}
			time.Sleep(2 * time.Second)
		}
		if last := speakers(); len(last) != 1 {
			t.Errorf("the last one doesn't speak: %v", last)
		}
	})
}

func TestDashboardsAreToldNothingUnasked(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 1, 7)
		in.run()
		time.Sleep(untilAPassHas)
		in.tells(in.metrics, lagName)
		in.tells(in.metrics, countName)
	})
}
