// Package coordinator decides what there is to do; it copies no records.
//
// For every flow it compares what the source has with what the cursors say has been examined, and offers a task for every
// partition that is behind, and one for every topic that lacks partitions on the target or differs from its copy in settings or rights. It
// reads and compares; whatever changes a cluster is a task of the workers, except the cursors' topic, which must exist before any task can
// run, and heartbeats.
//
// Invariants:
//   - Level-triggered: a pass needs nothing from the pass before. An offer that is lost, doubled or late does no harm, since the
//     queue refuses a task that it holds and the next pass offers what is still due.
//   - So there may be any number of coordinators, and none needs to know of the others.
//   - A flow is looked at by a goroutine of its own: a cluster that doesn't answer delays the flows that need it and no other.
//   - The decisions are pure (plan.go). `status` makes the same ones from the clusters alone (survey.go), so it can't disagree.
//   - Nothing is offered before the flow's cursors are in the queue's memory: a worker that finds none would begin at the start.
package coordinator

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// PassInterval is how often the coordinator compares a flow's source with its cursors.
const PassInterval = time.Second

// Options are what a Coordinator works with.
type Options struct {
	Spec     spec.Spec
	Queue    *lease.Queue
	Clusters map[string]*kafka.Cluster // by alias
	Logger   *slog.Logger              // nil is silent
	Metrics  prometheus.Registerer     // nil is none
	WakeUps  http.RoundTripper         // to push workers, as Spec.Settings.WakeUps has it; nil: nobody is called
}

// A Coordinator offers the tasks of all flows of a specification.
type Coordinator struct {
	queue   *lease.Queue
	flows   []*flow
	hearts  []*heart
	metrics *metrics

	scaling    scaling
	dashboards *dashboards // nil where nobody asks for them
	wakeUps    *wakeUps    // nil where nobody is called
}

// New makes a Coordinator. Nothing is asked of any cluster before Run.
func New(o Options) *Coordinator {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Coordinator{queue: o.Queue, wakeUps: newWakeUps(o)}
	c.scaling.settings, c.scaling.slate = o.Spec.Settings, o.Queue.Slate(lease.SlateScale)
	c.metrics = newMetrics(o.Metrics, c)
	if o.Metrics != nil && o.Spec.Settings.MM2Metrics {
		c.dashboards = newDashboards(c, o.Spec)
		o.Metrics.MustRegister(c.dashboards)
	}
	lanes, ids := &lanes{}, &clusterIDs{clusters: o.Clusters}
	for _, f := range o.Spec.Flows {
		c.flows = append(c.flows, newFlow(o, f, lanes, ids, c.metrics, c.wakeUps))
	}
	for _, f := range c.flows {
		f.back = c.opposite(f)
	}
	for _, h := range o.Spec.Heartbeats {
		c.hearts = append(c.hearts, newHeart(o, h))
	}
	return c
}

// Run offers tasks until ctx ends.
func (c *Coordinator) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, f := range c.flows {
		g.Go(func() error { return f.run(ctx) })
		g.Go(func() error { return f.rewrite(ctx) })
		g.Go(func() error { return f.follow(ctx) })
		g.Go(func() error { return f.followGroups(ctx) })
	}
	for _, h := range c.hearts {
		g.Go(func() error { return h.run(ctx) })
	}
	g.Go(func() error { return c.keepScale(ctx) })
	if c.dashboards != nil {
		g.Go(func() error { return c.dashboards.attend(ctx) })
	}
	if c.wakeUps != nil {
		g.Go(func() error { return c.wakeUps.attend(ctx) })
	}
	return g.Wait()
}

// opposite is the flow in the other direction, nil where there is none.
func (c *Coordinator) opposite(f *flow) *flow {
	for _, other := range c.flows {
		if other.flow.Source == f.flow.Target && other.flow.Target == f.flow.Source {
			return other
		}
	}
	return nil
}

// A FlowReport is what the last pass over a flow found.
type FlowReport struct {
	Flow     string
	Passes   int64         // that succeeded
	Plan     Plan          // of the last one
	At       time.Time     // of the last one; before it, when the Coordinator was made
	Oldest   time.Duration // how long the oldest record that is not replicated had been on the source then
	Warnings []string
	Gaps     []lease.Gap    // that nobody has acknowledged
	Expiring map[string]int // by topic: partitions whose next record the source may soon delete
	Unlike   bool           // settings or rights of a copy are still to follow, or nobody has looked yet
	Err      error          // of the last pass; nil once one succeeds
	Groups   error          // of the last look at the consumer groups
	// GroupsDue is that it found something for a worker to do.
	GroupsDue bool
	Limits    map[string]lease.Limit // set while running
}

// Lag is the number of source offsets that are still to be looked at.
func (f FlowReport) Lag() int64 {
	var sum int64
	for _, at := range f.Plan.Partitions {
		sum += at.Lag
	}
	return sum
}

// End is the sum of the source's ends: it grows by what is written there.
func (f FlowReport) End() int64 {
	var sum int64
	for _, at := range f.Plan.Partitions {
		sum += at.End
	}
	return sum
}

// oldest is Oldest as of now. While nobody can look, records may have come right after the last look.
func (f FlowReport) oldest(now time.Time) time.Duration {
	if unseen := now.Sub(f.At); f.Err != nil || unseen > passTimeout {
		return f.Oldest + unseen
	}
	return f.Oldest
}

// Flows reports on all flows, in the order of the specification.
func (c *Coordinator) Flows() []FlowReport {
	var all []FlowReport
	for _, f := range c.flows {
		all = append(all, f.last())
	}
	return all
}

// reported guards a report that one goroutine writes and others read.
type reported struct {
	mu     sync.Mutex
	report FlowReport
}

func (r *reported) last() FlowReport {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.report
}

func (r *reported) update(change func(*FlowReport)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.report)
}

// sleep waits, and says whether to go on.
func sleep(ctx context.Context, d time.Duration) bool { return sleepUnless(ctx, d, nil) }

// sleepUnless is sleep that news ends.
func sleepUnless(ctx context.Context, d time.Duration, news <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-news:
		return true
	case <-timer.C:
		return true
	}
}
