package coordinator

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

const (
	passTimeout  = 30 * time.Second // of one pass, however many requests it takes
	lanesTimeout = 15 * time.Second // for the topics of other flows to become known: a source that is away must not stop those of others
	loadTimeout  = 5 * time.Minute  // of reading a flow's cursors, which may be many
	maxBackOff   = 3 * time.Second  // between passes over a flow that fails: a cluster that is back is found within that
	agesAPass    = 8                // partitions whose oldest record is read in one pass
)

// flow is one flow under the coordinator's eyes. Only its goroutine uses it, except for what reported and following guard.
type flow struct {
	pair
	queue   *lease.Queue
	cursors *lease.Cursors
	lanes   *lanes
	metrics *metrics
	log     *slog.Logger
	back    *flow // in the other direction; nil where there is none

	born       time.Time
	topics     topics
	discovered time.Time // when topics were listed; zero is never
	growing    bool      // the target is about to get topics or partitions: look again soon
	marks      marks
	unknown    []Partition // that lagged when first seen, whose record at the cursor is to be read
	told       []string    // warnings that are in the log already
	loaded     bool        // this coordinator has loaded the cursors once
	retention  retention
	gaps       []lease.Gap // that nobody has acknowledged
	slots      *slots      // nil where there is no bound
	provenance provenance

	limits map[string]lease.Limit // set while running

	groupsDenied [2]atomic.Pointer[string] // why some groups are left alone, of source and target, as the log has it

	following following
	subject   [2]subject // of follow's goroutine alone

	reported
}

func newFlow(o Options, s spec.Flow, l *lanes, ids *clusterIDs, m *metrics) *flow {
	f := &flow{
		pair:  pair{flow: s, source: o.Clusters[s.SourceKey()], target: o.Clusters[s.TargetKey()], ids: ids},
		queue: o.Queue, lanes: l, metrics: m,
		log: o.Logger.With("flow", s.Name()), provenance: provenance{},
	}
	f.born = time.Now()
	if s.MaxLeases > 0 {
		f.slots = &slots{max: s.MaxLeases, served: map[lease.Task]time.Time{}}
	}
	f.following.news = make(chan struct{}, 1)
	f.subject = f.subjects()
	for i, subject := range f.subject {
		f.following.open[i] = subject.enabled && s.State == spec.Running
	}
	l.expect(s)
	f.cursors = o.Queue.Cursors(s, f.target)
	f.report = FlowReport{Flow: s.Name(), At: time.Now()}
	return f
}

// run passes over the flow until ctx ends. A pass that fails is tried again, later from time to time.
func (f *flow) run(ctx context.Context) error {
	wait := PassInterval
	for {
		began := time.Now()
		err := f.pass(ctx)
		if ctx.Err() != nil {
			return nil
		}
		f.metrics.passed(f.flow.Name(), time.Since(began), err)
		wait = f.settle(err, wait)
		if !f.rest(ctx, wait-min(wait, time.Since(began))) {
			return nil
		}
	}
}

// settle makes the end of a pass known, and says how long after its beginning the next one begins.
func (f *flow) settle(err error, wait time.Duration) time.Duration {
	before := f.last().Err
	f.update(func(r *FlowReport) { r.Err = err })
	if err == nil {
		if before != nil {
			f.log.Info("flow goes on")
		}
		return PassInterval
	}
	f.discovered = time.Time{} // whatever failed, it may be another cluster when it comes back
	if before == nil || before.Error() != err.Error() {
		f.log.Error("flow can't be looked at; trying again", "error", err)
	}
	return min(2*wait, maxBackOff)
}

// pass looks at the flow once and offers what is due.
func (f *flow) pass(ctx context.Context) error {
	if err := f.load(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, passTimeout)
	defer cancel()
	if err := f.discover(ctx); err != nil {
		return err
	}
	if f.lanes.awaits(f.flow) && time.Since(f.born) < lanesTimeout {
		return nil // the next pass asks again
	}
	view, err := f.look(ctx)
	if err != nil {
		return err
	}
	view.Unlike = f.following.take()
	plan := Make(view)
	offered, err := f.offer(ctx, plan)
	if err != nil {
		return fmt.Errorf("offer tasks: %w", err)
	}
	f.log.Debug("pass", "partitions", len(plan.Partitions), "due", len(plan.Tasks), "offered", offered)
	f.growing = slices.ContainsFunc(plan.Tasks, func(t lease.Task) bool { return t.Kind == lease.KindTopics })
	f.age(ctx, plan, view.Now)
	f.watch(ctx, plan, view.Now)
	f.publish(plan, view.Now)
	return nil
}

// load makes the queue's memory of the cursors and the offsets topic agree: at the start, and whenever the queue came up empty.
func (f *flow) load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	loaded, err := f.cursors.Loaded(ctx)
	if err != nil {
		return err
	}
	if loaded && f.loaded {
		return nil
	}
	if err := f.cursors.Load(ctx); err != nil {
		return err
	}
	f.loaded = true
	f.log.Info("cursors loaded", "topic", f.flow.OffsetsTopic)
	return nil
}

// discover lists topics when it is time to. A topic is found within the flow's refresh time, so a pass that would be the last within
// it looks rather than the next one.
func (f *flow) discover(ctx context.Context) error {
	switch {
	case f.discovered.IsZero() || time.Since(f.discovered) >= f.flow.Refresh-PassInterval:
		found, err := f.pair.discover(ctx)
		if err != nil {
			return err
		}
		if found, err = f.withHidden(ctx, found); err != nil {
			return err
		}
		found.warnings = append(found.warnings, f.showHeartbeats(ctx, found)...)
		f.discovered, f.topics = time.Now(), found
		f.lanes.set(f.flow, found.names())
		f.warn(found.warnings)
		f.following.know(f.topics)
	case f.growing:
		target, err := f.targetTopics(ctx)
		if err != nil {
			return err
		}
		found := f.topics
		found.target = target
		if found, err = f.withHidden(ctx, found); err != nil {
			return err
		}
		found.warnings = f.topics.warnings
		f.topics = found
		f.following.know(f.topics)
	}
	return nil
}

// withHidden adds the topics that the clusters keep from kferry, of those that have cursors.
func (f *flow) withHidden(ctx context.Context, found topics) (topics, error) {
	cursors, err := f.cursors.All(ctx)
	if err != nil {
		return found, fmt.Errorf("cursors: %w", err)
	}
	return f.hidden(ctx, found, cursors)
}

// warn logs what has not been said before.
func (f *flow) warn(warnings []string) {
	for _, w := range warnings {
		if !slices.Contains(f.told, w) {
			f.log.Warn(w)
		}
	}
	f.told = warnings
}

// look gathers what a plan depends on.
func (f *flow) look(ctx context.Context) (View, error) {
	cursors, err := f.cursors.All(ctx)
	if err != nil {
		return View{}, fmt.Errorf("cursors: %w", err)
	}
	gaps, err := f.cursors.Gaps(ctx) // after the cursors: whoever sees one move sees why
	if err != nil {
		return View{}, err
	}
	f.gaps = slices.DeleteFunc(gaps, func(g lease.Gap) bool { return !g.Open() })
	orders, err := f.cursors.Orders(ctx)
	if err != nil {
		return View{}, err
	}
	states, err := f.queue.States(ctx)
	if err != nil {
		return View{}, fmt.Errorf("states of the tasks: %w", err)
	}
	unattended := false
	if f.flow.Heartbeats {
		depth, err := f.queue.Depth(ctx)
		if err != nil {
			return View{}, err
		}
		unattended = depth.Asking+depth.Held == 0
	}
	view, err := f.view(ctx, f.topics, cursors, f.now)
	view.States, view.Collisions, view.Now = states, f.lanes.collisions(f.flow), time.Now()
	view.Paused, view.Unattended, f.limits = orders.Paused, unattended, orders.Limits
	if err == nil {
		view.Back = f.provenance.join(ctx, f.pair, view)
	}
	return view, err
}

// age keeps the marks that tell how old the oldest record is. Of partitions that lagged before the coordinator came, the record at
// the cursor says it; a few are read in each pass, since each costs a fetch.
func (f *flow) age(ctx context.Context, plan Plan, now time.Time) {
	f.unknown = append(f.unknown, f.marks.observe(plan.Partitions, now)...)
	some := f.unknown[:min(agesAPass, len(f.unknown))]
	f.unknown = f.unknown[len(some):]
	ctx, cancel := context.WithTimeout(ctx, PassInterval)
	defer cancel()
	for tp, age := range f.ages(ctx, some, now) {
		f.marks.since(tp, now.Add(-age))
	}
}

func (f *flow) publish(plan Plan, now time.Time) {
	oldest := f.marks.oldest(now)
	expiring, topics := f.retention.expiring()
	unlike, open := f.following.state()
	f.update(func(r *FlowReport) {
		r.Plan, r.At, r.Oldest, r.Warnings = plan, now, oldest, slices.Concat(f.topics.warnings, expiring, unlike)
		r.Gaps, r.Expiring = f.gaps, topics
		r.Unlike, r.Limits = open, f.limits
		r.Passes++
	})
}
