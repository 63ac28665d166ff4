// Package functions holds what a lease is claimed for. mirror.go is where to start reading: a record's whole life. worker.go claims
// leases and runs them side by side, position.go finds out what the target already has, units.go decides the shape in which records
// travel, pace.go keeps to the rate limits, topics.go creates and grows topics, follow.go has their settings and rights
// follow, trouble.go decides what follows from a failure.
//
// A worker keeps no state of its own: cursors are on the target cluster, with a copy in JetStream. It may be killed at any time, and
// another one may run the same partition at the same time; the target's log, the sequence numbers in it and the compare-and-set on the
// cursor keep the copy exact (package lease, DESIGN.md §4).
//
// # Non-obvious
//
//   - A broker takes a batch with the sequences of an earlier one for its repetition, whatever is in it, and drops it with a friendly
//     answer. Over a compacted source two runs give one sequence to different records. So a run that may still write is fenced off by
//     the next generation first (Cursor.Running), and what landed is found by reading, never by counting (readback.go).
//   - Compaction takes the older of two records with one key first. Only therefore a source record that is found among those that
//     landed is known to be that one, and not a later twin of one that is gone (resumeCompacted).
//   - Offset and leader epoch of the source move together. An older epoch beside a later offset reads as a log that was cut.
//   - OFFSET_OUT_OF_RANGE is also the answer of a leader that can't tell where an epoch ended. Asked without the epoch, it serves.
//   - A target that compresses anew refuses batches that are below its own limit: several records are then sent in halves.
//   - One look at a broker that lags behind the others shows topics as missing and logs as cut. What would wait for a person is met
//     twice before it counts.
//   - A batch goes as long as the lease can be trusted. One that waits for memory or a quota is dropped unsent when that ends.
package functions

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kferry/kferry/shared/follow"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/offsets"
	"github.com/kferry/kferry/shared/spec"
)

const (
	claimAtOnce = 256
	claimWait   = 250 * time.Millisecond // a claim is not broken off for the drain, see claim
	claimPause  = time.Second            // after the queue could not be asked
	roomPause   = 200 * time.Millisecond // between looks at the queue while every slot is taken
	roomAtOnce  = 16                     // leases above the slots, for as long as others take to end
	keepAtLeast = 2 * time.Second        // a lease is not given up for waiting ones before
	keepSlot    = 5 * time.Second        // likewise where a flow may have only so many
	drainLimit  = 8 * time.Second        // for what is in flight when the worker is told to stop; a request that was sent may add its own
)

// Options are what a Worker needs.
type Options struct {
	Spec     spec.Spec
	Queue    *lease.Queue
	Clusters map[string]*kafka.Cluster // by alias; the worker does not close them
	Slots    int                       // leases held at one time; 0: 1,000
	MaxRuns  int                       // leases that the worker claims before it ends; 0: no bound
	IdleExit time.Duration             // without a lease, and the worker ends; 0: never
	Budget   *kafka.Budget             // the clusters' own, for what is written anew; nil: one of the spec's size
	Logger   *slog.Logger
	Metrics  prometheus.Registerer
	Agent    http.RoundTripper // to Spec.Settings.Front.ECSAgent; nil: over the network
}

// Worker claims leases and runs them, as many at once as it has slots.
type Worker struct {
	Options
	topics       topicCache
	metrics      *metrics
	cursors      map[string]*lease.Cursors // by flow
	pacers       map[string]*pacer         // likewise
	translators  map[string]*translator    // likewise
	predecessors *predecessors
	archives     map[string]*offsets.Archive // by flow
	syncs        map[string]*offsets.Syncs   // likewise

	host    string
	claimed chan struct{} // closed when the worker claims no more

	mu      sync.Mutex // guards what follows
	held    map[*tenancy]struct{}
	worked  time.Time               // when a lease last ended that was no pulse
	dropped map[lease.Task]struct{} // tasks that the specification was against, by identity, see oppose
	warned  map[string]struct{}     // how this specification differs from the coordinator's, as the log has it
}

// tenancy is one lease in one slot.
type tenancy struct {
	*lease.Lease
	since time.Time
	yield func() // asks the run to give the lease back; may be called more than once
	asked <-chan struct{}
	done  string // lease.State.Done of a groups task whose other half failed

	pulse  bool // copies heartbeats, which come for ever
	bounds bounds
	copied tally
	ended  chan struct{} // closed when the slot is free again
}

// starter begins a run in a slot.
type starter func(*lease.Lease, bounds) *tenancy

// NewWorker makes a worker. It does nothing before Run.
func NewWorker(o Options) *Worker {
	o.Slots = cmp.Or(o.Slots, 1000)
	if o.Budget == nil {
		o.Budget = kafka.NewBudget(int64(o.Spec.Settings.Memory))
	}
	w := &Worker{Options: o, metrics: newMetrics(o.Metrics), cursors: map[string]*lease.Cursors{}, pacers: map[string]*pacer{}, archives: map[string]*offsets.Archive{}, syncs: map[string]*offsets.Syncs{}, translators: map[string]*translator{}, predecessors: newPredecessors(), claimed: make(chan struct{}), held: map[*tenancy]struct{}{}, dropped: map[lease.Task]struct{}{}, warned: map[string]struct{}{}}
	if w.host, _ = os.Hostname(); w.host == "" {
		w.host = "a host without a name"
	}
	if o.Metrics != nil && o.Spec.Settings.MM2Metrics {
		memory := int64(o.Spec.Settings.Memory)
		w.metrics.meters = newMeters(o.Spec.Flows, w.occupied, func() int64 { return memory - o.Budget.InFlight() })
		o.Metrics.MustRegister(w.metrics.meters)
	}
	for _, f := range o.Spec.Flows {
		w.archives[f.Name()] = offsets.NewArchive(f, o.Clusters[f.TargetKey()])
		w.syncs[f.Name()] = offsets.NewSyncs(f, o.Clusters[f.SourceKey()], o.Clusters[f.TargetKey()], o.Logger)
		w.cursors[f.Name()] = o.Queue.Cursors(f, o.Clusters[f.TargetKey()])
		w.pacers[f.Name()] = newPacer(f, o.Queue, w.cursors[f.Name()], func() { w.askBack(func(t *tenancy) bool { return t.Task.Flow == f.Name() }) }, o.Logger, w.metrics)
	}
	for _, f := range o.Spec.Flows {
		w.translators[f.Name()] = w.newTranslator(f)
	}
	return w
}

// Copied is how many records and bytes this worker has written to targets.
func (w *Worker) Copied() (records, bytes int64) {
	return w.metrics.totalRecords.Load(), w.metrics.totalBytes.Load()
}

// Run claims and works until ctx ends, or the options say so, once in a worker's life. When ctx ends it drains: nothing more is read or sent, what is in flight is
// accounted for, and all leases go back to the queue.
func (w *Worker) Run(ctx context.Context) error { return w.run(ctx, w.claim) }

// run is Run with another way to come by leases. What claim has begun when it returns may end in peace as long as ctx does not.
func (w *Worker) run(ctx context.Context, claim func(context.Context, starter) error) error {
	hard, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	var runs, keepers sync.WaitGroup
	keeping, stopKeeping := context.WithCancel(hard)
	extending, stopExtending := context.WithCancel(context.WithoutCancel(ctx)) // also while a drain that took too long waits for the last answers
	defer stopExtending()
	keepers.Go(func() { w.extend(extending) })
	keepers.Go(func() { w.metrics.tempo.run(keeping, w.tellTempo) })
	for _, p := range w.pacers {
		keepers.Go(func() { p.run(keeping) })
	}
	for _, s := range w.syncs {
		keepers.Go(func() { s.Run(keeping) })
	}
	for _, f := range w.Spec.Flows {
		keepers.Go(func() { w.archives[f.Name()].Run(keeping, w.Clusters[f.SourceKey()], w.Logger) })
	}

	if agent := w.Spec.Settings.Front.ECSAgent; agent != "" {
		keepers.Go(func() { newProtection(agent, w.Agent, w.Logger).run(keeping, w.working) })
	}

	stopHearing, err := w.hear()
	if err != nil {
		w.Logger.Warn("partitions that move may be in two workers' metrics", "error", err)
	}
	defer w.hearAsked()()

	err = claim(ctx, func(l *lease.Lease, b bounds) *tenancy {
		t := w.occupy(l, b)
		runs.Go(func() {
			defer w.leave(t)
			w.work(hard, ctx, t)
		})
		return t
	})
	close(w.claimed)

	stopHearing()
	ended := make(chan struct{})
	go func() {
		runs.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	timer := time.AfterFunc(drainLimit, func() { cancel(fmt.Errorf("drain took longer than %s", drainLimit)) })
	defer timer.Stop()
	<-ended
	stopExtending()
	stopKeeping()
	keepers.Wait()
	return err
}

// claim hands leases to start until ctx ends, or there were MaxRuns of them, or none for IdleExit. A claim is waited for and not broken
// off: the queue would go on sending to it, and what came would be nobody's until its lease ran out.
func (w *Worker) claim(ctx context.Context, start starter) error {
	whole, left, began, silent := context.WithoutCancel(ctx), w.MaxRuns, time.Now(), false
	for ctx.Err() == nil {
		var n int
		var err error
		if free := w.Slots - w.occupied(); free > 0 {
			n, err = w.take(whole, w.most(left, min(free, claimAtOnce)), claimWait, start)
		} else {
			sleep(ctx, roomPause)
			n, err = w.makeRoom(whole, w.most(left, roomAtOnce), start)
		}
		if left -= n; w.MaxRuns > 0 && left <= 0 {
			return nil
		}
		if w.IdleExit > 0 && w.idle(began) >= w.IdleExit {
			return err
		}
		if err != nil && !silent {
			w.Logger.Warn("could not claim leases; trying again", "error", err)
		}
		if silent = err != nil; silent {
			sleep(ctx, claimPause)
		}
	}
	return nil
}

// most is n, or what MaxRuns leaves of it.
func (w *Worker) most(left, n int) int {
	if w.MaxRuns > 0 {
		return min(left, n)
	}
	return n
}

func (w *Worker) take(ctx context.Context, n int, wait time.Duration, start starter) (int, error) {
	leases, err := w.Queue.Claim(ctx, n, wait)
	for _, l := range leases {
		var b bounds
		if w.MaxRuns > 0 {
			b = w.bounded()
		}
		start(l, b)
	}
	return len(leases), err
}

// makeRoom claims although every slot is taken, and asks as many of the longest-held leases back as came. To look at how many wait
// would not do: the leases of a dead worker are not among those.
func (w *Worker) makeRoom(ctx context.Context, most int, start starter) (int, error) {
	elders := w.elders()
	if len(elders) == 0 {
		return 0, nil
	}
	n, err := w.take(ctx, min(len(elders), most), 0, start)
	for _, t := range elders[:n] {
		t.yield()
	}
	return n, err
}

// elders are the leases that may be asked back, the longest-held first.
func (w *Worker) elders() []*tenancy {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []*tenancy
	for t := range w.held {
		if time.Since(t.since) >= keepAtLeast {
			all = append(all, t)
		}
	}
	slices.SortFunc(all, func(a, b *tenancy) int { return a.since.Compare(b.since) })
	return all
}

// hearAsked ends runs whose leases others wait for, where a flow may have only so many, until stop is called.
func (w *Worker) hearAsked() (stop func()) {
	var stops []func()
	for _, f := range w.Spec.Flows {
		if f.MaxLeases == 0 {
			continue
		}
		stop, err := w.Queue.Asked(f.Name(), func(asked lease.Task) {
			w.askBack(func(t *tenancy) bool {
				return t.Task.Identity() == asked.Identity() && time.Since(t.since) >= keepSlot
			})
		})
		if err != nil {
			w.Logger.Warn("partitions that wait for a busy one have to wait until it is idle", "flow", f.Name(), "error", err)
			continue
		}
		stops = append(stops, stop)
	}
	return func() {
		for _, stop := range stops {
			stop()
		}
	}
}

// askBack ends the runs of some leases.
func (w *Worker) askBack(some func(*tenancy) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for t := range w.held {
		if some(t) {
			t.yield()
		}
	}
}

// resting says whether a task is not to be done now, although it is on the queue.
func (w *Worker) resting(task lease.Task) bool {
	return w.pacers[task.Flow].isPaused() || w.against(task) != ""
}

// against is what in this worker's specification is against a task that was offered.
func (w *Worker) against(task lease.Task) string {
	flow, _ := w.Spec.Flow(task.Flow)
	switch {
	case task.Slot > 0 && flow.MaxLeases == 0:
		return "has no bound on the partitions that are copied at one time (tasks.max)"
	case flow.State != spec.Running && task.Kind != lease.KindGroups:
		return fmt.Sprintf("has the flow %s", flow.State)
	}
	return ""
}

// oppose ends a task that is resting. Met once, it may be of the time before the configuration was changed; again, and whoever offers it
// has another configuration.
func (w *Worker) oppose(task lease.Task) error {
	why := w.against(task)
	if why == "" {
		return errYield
	}
	w.mu.Lock()
	_, again := w.dropped[task.Identity()]
	w.dropped[task.Identity()] = struct{}{}
	w.mu.Unlock()
	if !again {
		return errYield
	}
	return w.unlike("for %s %s, and the coordinator's has not", task.Flow, why)
}

// unlike is the hold of a task that another specification is needed for.
func (w *Worker) unlike(format string, args ...any) error {
	return hold(lease.ReasonDigest, "the specification of the worker on %s %s: give coordinators and workers the same file and variables", w.host, fmt.Sprintf(format, args...))
}

// warnOnce says whether the log does not have a text yet.
func (w *Worker) warnOnce(text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, said := w.warned[text]
	w.warned[text] = struct{}{}
	return !said
}

// extend keeps all held leases alive.
func (w *Worker) extend(ctx context.Context) {
	ticker := time.NewTicker(w.Queue.LeaseTime() / 4)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := w.Queue.Extend(ctx, w.leases()...); err != nil && ctx.Err() == nil {
			w.Logger.Debug("could not extend leases", "error", err)
		}
	}
}

// work runs one lease and deals with how it ended.
func (w *Worker) work(hard, soft context.Context, t *tenancy) {
	soft, free := t.bind(soft)
	defer free()
	if t.Task.Version > lease.TaskVersion {
		w.conclude(hard, t, hold(lease.ReasonFormat, "a newer kferry offered this task (format %d, the worker on %s knows %d): update that one", t.Task.Version, w.host, lease.TaskVersion))
		return
	}
	flow, ok := w.Spec.Flow(t.Task.Flow)
	switch {
	case !ok:
		w.conclude(hard, t, w.unlike("has no flow %s, and the coordinator's has", t.Task.Flow))
		return
	case flow.Digest() != t.Task.Digest:
		w.conclude(hard, t, w.unlike("of %s differs from the coordinator's in what is copied (topics, isolation level) or in what copies are called", t.Task.Flow))
		return
	case w.resting(t.Task):
		w.conclude(hard, t, w.oppose(t.Task))
		return
	}
	source, target := w.Clusters[flow.SourceKey()], w.Clusters[flow.TargetKey()]
	switch t.Task.Kind {
	case lease.KindTopics:
		w.conclude(hard, t, drained(soft, w.keepTopic(soft, flow, source, target, t.Task.Topic)))
	case lease.KindGroups:
		w.tell(t.Task)
		w.follow(hard, soft, t, w.translators[flow.Name()])
	case lease.KindMirror:
		m := w.mirror(hard, flow, source, target, t)
		w.tell(t.Task)
		err := m.run(hard, soft)
		m.count.end()
		w.conclude(hard, t, err)
	default:
		w.conclude(hard, t, hold(lease.ReasonDigest, "the worker on %s does not know tasks of kind %q: it is older than the coordinator, update it", w.host, t.Task.Kind))
	}
}

// keepTopic makes a topic's copy like it in everything but records.
func (w *Worker) keepTopic(ctx context.Context, flow spec.Flow, source, target *kafka.Cluster, topic string) error {
	log := w.Logger.With("flow", flow.Name(), "topic", flow.RemoteTopic(topic))
	made, err := CreateTopic(ctx, flow, source, target, topic)
	if err != nil {
		return err
	}
	if made {
		log.Info("created or grew a topic")
	}
	change, err := Follow(ctx, flow, source, target, w.cursors[flow.Name()], topic)
	if change.Writes() {
		log.Info("settings and rights followed their source", toTell(change)...)
	}
	w.metrics.followed(flow.Name(), len(change.Set)+len(change.Remove), len(change.Give)+len(change.Revoke))
	return err
}

// toTell is what of a change there is to tell.
func toTell(change follow.Change) (all []any) {
	if len(change.Set) > 0 {
		all = append(all, "set", change.Set)
	}
	if len(change.Remove) > 0 {
		all = append(all, "removed", change.Remove)
	}
	if len(change.Give) > 0 {
		all = append(all, "given", change.Give)
	}
	if len(change.Revoke) > 0 {
		all = append(all, "revoked", change.Revoke)
	}
	return all
}

func (w *Worker) mirror(hard context.Context, flow spec.Flow, source, target *kafka.Cluster, t *tenancy) *mirror {
	from := kafka.TopicPartition{Topic: t.Task.Topic, Partition: t.Task.Partition}
	to := kafka.TopicPartition{Topic: flow.RemoteTopic(t.Task.Topic), Partition: t.Task.Partition}
	count := w.metrics.of(flow.Name(), to)
	count.note = t.landed
	return &mirror{
		flow: flow, source: source, target: target, from: from, to: to,
		lease: t.Lease, until: t.bounds.until, yield: t.asked, cursors: w.cursors[flow.Name()], topics: &w.topics, predecessors: w.predecessors, budget: w.Budget, pacer: w.pacers[flow.Name()],
		archive: w.archives[flow.Name()], syncs: w.syncs[flow.Name()], synced: -1,
		log: w.Logger.With("flow", flow.Name(), "partition", from.String()), count: count,
		recovered: sync.OnceFunc(func() { w.forgive(hard, t.Task) }),
		lastState: func(ctx context.Context) (lease.State, error) {
			s, _, err := w.Queue.State(ctx, t.Task)
			return s, err
		},
	}
}

func (w *Worker) tellTempo(ctx context.Context, s lease.Stint) {
	if err := w.Queue.CountStint(ctx, s); err != nil && ctx.Err() == nil {
		w.Logger.Debug("could not tell how fast this worker copies", "error", err)
	}
}

// claimed is what workers tell each other of, so that a partition that moves is not in the metrics of two.
const claimed = "claimed"

func (w *Worker) tell(t lease.Task) {
	if w.metrics.meters == nil {
		return
	}
	if err := w.Queue.Tell(claimed, t); err != nil {
		w.Logger.Debug("could not tell other workers of a lease", "error", err)
	}
}

func (w *Worker) hear() (stop func(), err error) {
	if w.metrics.meters == nil {
		return func() {}, nil
	}
	return w.Queue.Hear(claimed, func(t lease.Task) {
		flow, ok := w.Spec.Flow(t.Flow)
		switch {
		case !ok:
		case t.Kind == lease.KindMirror:
			w.metrics.moved(t.Flow, kafka.TopicPartition{Topic: flow.RemoteTopic(t.Topic), Partition: t.Partition})
		case t.Kind == lease.KindGroups:
			w.metrics.groupsMoved(t.Flow)
		}
	})
}

func (w *Worker) occupy(l *lease.Lease, b bounds) *tenancy {
	asked := make(chan struct{})
	flow, ok := w.Spec.Flow(l.Task.Flow)
	pulse := ok && l.Task.Kind == lease.KindMirror && mm2.Heartbeats(flow.Policy, l.Task.Topic)
	l.Task.Brief = l.Task.Brief || b != (bounds{}) // before anybody else looks at it
	t := &tenancy{Lease: l, since: time.Now(), asked: asked, yield: sync.OnceFunc(func() { close(asked) }), pulse: pulse, bounds: b, ended: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held[t] = struct{}{}
	w.metrics.held.Set(float64(len(w.held)))
	return t
}

func (w *Worker) leave(t *tenancy) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.held, t)
	w.metrics.held.Set(float64(len(w.held)))
	if !t.pulse {
		w.worked = time.Now()
	}
	close(t.ended)
}

func (w *Worker) occupied() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.held)
}

// working is how many leases are held that say that there is work. Heartbeats are copied because a worker is there: they keep none.
func (w *Worker) working() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for t := range w.held {
		if !t.pulse {
			n++
		}
	}
	return n
}

// idle is for how long there was no work, as working has it, at most since began.
func (w *Worker) idle(began time.Time) time.Duration {
	if w.working() > 0 {
		return 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.worked.After(began) {
		began = w.worked
	}
	return time.Since(began)
}

func (w *Worker) leases() []*lease.Lease {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]*lease.Lease, 0, len(w.held))
	for t := range w.held {
		all = append(all, t.Lease)
	}
	return all
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
