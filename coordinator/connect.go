package coordinator

import (
	"cmp"
	"context"
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kferry/kferry/shared/connect"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// dashboards serves what MirrorMaker's dashboards ask of a whole installation, see package connect. They add up what all processes say,
// so of several coordinators one speaks (see lease.Turn).
type dashboards struct {
	c     *Coordinator
	flows []spec.Flow
	turn  *lease.Turn
	mine  atomic.Bool
}

func newDashboards(c *Coordinator, s spec.Spec) *dashboards {
	return &dashboards{c: c, flows: s.Flows, turn: c.queue.Turn("dashboards")}
}

// attend asks for the turn until ctx ends. While the queue doesn't answer, all stay as they were.
func (d *dashboards) attend(ctx context.Context) error {
	for {
		asking, answered := context.WithTimeout(ctx, turnTime)
		mine, err := d.turn.Mine(asking)
		answered()
		if err == nil {
			d.mine.Store(mine)
		}
		if !sleep(ctx, PassInterval) {
			return nil
		}
	}
}

// Describe implements prometheus.Collector.
func (d *dashboards) Describe(to chan<- *prometheus.Desc) {
	connect.Describe(to, connect.OfCoordinator()...)
}

// Collect implements prometheus.Collector.
func (d *dashboards) Collect(to chan<- prometheus.Metric) {
	if !d.mine.Load() {
		return
	}
	connectors := 0
	for i, report := range d.c.Flows() {
		connectors += d.collect(to, d.flows[i], report)
	}
	for _, h := range d.c.hearts {
		connectors++
		status := connect.Running
		if h.failing.Load() {
			status = connect.Failed
		}
		connect.Status.Send(to, 1, connect.Connector(spec.Flow{Source: h.Source, Target: h.Target}, mm2.HeartbeatConnector), connect.Task, status)
	}
	connect.ConnectorCount.Send(to, float64(connectors))
	connect.AssignedConnectors.Send(to, float64(connectors), connect.WorkerID)
}

// collect tells of a flow, and returns how many connectors it has.
func (d *dashboards) collect(to chan<- prometheus.Metric, f spec.Flow, r FlowReport) (connectors int) {
	for _, at := range r.Plan.Partitions {
		if at.State != Gone && at.State != Cycle && at.State != Failed { // of which nobody knows
			connect.RecordsLag.Send(to, float64(at.Lag), connect.ConsumerID(f), at.Topic, strconv.Itoa(int(at.Partition)))
		}
	}
	wanted := cmp.Or(r.Plan.State, f.State) // which a command may have paused
	if wanted != spec.Absent {
		connectors++
		source := connect.Connector(f, mm2.SourceConnector)
		connect.Status.Send(to, 1, source, connect.Task, r.status(wanted))
		r.tasks(func(m *connect.Metric, n int) { m.Send(to, float64(n), source) })
	}
	if f.Groups.State != "" && f.Groups.State != spec.Absent {
		connectors++
		groups := f.Groups.State
		if groups == spec.Running && f.State == spec.Running && wanted == spec.Paused {
			groups = spec.Paused // by a command, too
		}
		connect.Status.Send(to, 1, connect.Connector(f, mm2.CheckpointConnector), connect.Task, string(groups))
	}
	return connectors
}

// status is what the flow's source connector is: what somebody wants of it, except where something is wrong.
func (f FlowReport) status(wanted spec.State) string {
	if wanted != spec.Running {
		return string(wanted)
	}
	if f.Err != nil {
		return connect.Failed
	}
	for _, at := range f.Plan.Partitions {
		if at.State == Held && at.Reason.Decide() && at.Decision == "" {
			return connect.Failed
		}
	}
	return connect.Running
}

// tasks counts the partitions by what a task of Connect would be.
func (f FlowReport) tasks(send func(*connect.Metric, int)) {
	count := map[*connect.Metric]int{}
	for _, at := range f.Plan.Partitions {
		switch at.State {
		case Gone, Cycle:
			continue
		case Idle, Copying:
			count[connect.RunningTasks]++
		case Paused:
			count[connect.PausedTasks]++
		case Missing:
			count[connect.UnassignedTasks]++
		default:
			count[connect.FailedTasks]++
		}
		count[connect.TotalTasks]++
	}
	for _, m := range []*connect.Metric{connect.TotalTasks, connect.RunningTasks, connect.PausedTasks, connect.FailedTasks, connect.UnassignedTasks} {
		send(m, count[m])
	}
}
