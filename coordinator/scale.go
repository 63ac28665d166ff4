package coordinator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// How many workers there are to be is decided for an installation, not for a coordinator: the last decision is on a slate in KV, whoever
// finds it a little old writes the next one on it, and all tell what stands there. What is decided from is there too: the depth of the
// queue, the tempo of the workers, and of each flow what the last coordinator that could look at it has seen. Time is the queue's.

const (
	decideEvery  = 2 * time.Second
	sayAgain     = 15 * time.Second // a decision that stays as it is
	settleUp     = 10 * time.Second // for which more must have been wanted; the first workers are asked for at once
	loadHolds    = time.Minute      // a flow's load, without any coordinator that sees it, and the furthest end of its source
	scaleHolds   = 30 * time.Second // a decision, where the queue can't be asked
	clockSet     = time.Minute      // ahead: the queue's clock was set back
	leaseTurn    = 5 * time.Second  // that a worker with other partitions waiting stays with one, at most
	recordBytes  = 1 << 10          // of a flow whose records nobody has measured
	arrivalShare = 0.2              // of what has come since the last decision against what came before
	mostWanted   = 1e6              // whatever the figures say
)

// A Scale is how many workers are wanted and why, as GET /scale answers it. Programs read it: fields may be added, and none changes.
type Scale struct {
	Desired int    `json:"desired_workers"`
	Reason  string `json:"reason"` // for people
	// The backlog is what workers can copy now: nothing that is held, or copied later by design. Its bytes are reckoned from offsets.
	BacklogBytes      int64 `json:"backlog_bytes"`
	BacklogPartitions int   `json:"backlog_partitions"`
	BacklogPerWorker  int64 `json:"backlog_bytes_per_worker"` // BacklogBytes, for at least one worker
	Waiting           int   `json:"waiting"`                  // tasks that nobody has claimed
	InFlight          int   `json:"in_flight"`                // tasks that somebody has
	Rate              int64 `json:"rate"`                     // bytes a second of one worker
	RateMeasured      bool  `json:"rate_measured"`            // by workers, rather than assumed
	Arrival           int64 `json:"arrival"`                  // bytes a second that come to the sources

	Since     time.Time `json:"since"` // that so many are desired
	DecidedAt time.Time `json:"decided_at"`
}

// A Decision is a Scale with what the next one is made from.
type Decision struct {
	Scale
	Flows map[string]Load `json:"flows"`
	More  Stretch         `json:"more,omitzero"`  // were wanted, and this is the least
	Fewer Stretch         `json:"fewer,omitzero"` // were enough, and this is the most
	Busy  time.Time       `json:"busy"`           // when there last was work
}

// A Stretch of time, in which a number of workers held.
type Stretch struct {
	Since   time.Time `json:"since"`
	Workers int       `json:"workers"`
}

// A Load is what a flow has for workers to do.
type Load struct {
	At         time.Time `json:"at"`
	Partitions int       `json:"partitions"`      // that are behind
	AtOnce     int       `json:"atOnce"`          // of them
	Bytes      float64   `json:"bytes"`           // in them
	Demand     float64   `json:"demand"`          // bytes a second that would copy them in time, as far as the topics' limits let
	Limit      float64   `json:"limit,omitempty"` // bytes a second, all workers together
	Arrival    float64   `json:"arrival"`         // bytes a second
	Other      bool      `json:"other,omitempty"` // there is something else to do, or to try again
	End        int64     `json:"end"`             // of the source's partitions together, the furthest that any coordinator has seen
	EndAt      time.Time `json:"endAt"`           // when it was seen
	Counted    int       `json:"counted"`         // partitions in End
	Record     float64   `json:"record"`          // bytes
}

// Circumstances are what a decision is made from, beside the one before it.
type Circumstances struct {
	spec.Scale
	Slots int
	Depth lease.Depth
	Tempo lease.Tempo
	Flows map[string]Load // that this coordinator sees
	// Unseen are the tasks on the queue, waiting or held, of flows that no coordinator has been able to look at lately.
	Unseen int
}

// Decide makes the next decision.
func (c Circumstances) Decide(last Decision) Decision {
	now := c.Depth.At
	next := Decision{Flows: c.merge(last.Flows), More: last.More, Fewer: last.Fewer, Busy: last.Busy}
	first := last.DecidedAt.IsZero()
	if first || last.latest().Sub(now) > clockSet {
		next.More, next.Fewer, next.Busy = Stretch{}, Stretch{}, now
	}
	next.Desired, next.Since = last.Desired, last.Since
	next.DecidedAt, next.Waiting, next.InFlight = now, c.Depth.Waiting, c.Depth.Held
	next.Rate, next.RateMeasured = int64(c.rate()), c.Tempo.Rate > 0
	sum := c.sum(next.Flows)
	next.BacklogBytes, next.BacklogPartitions, next.Arrival = int64(sum.Bytes), sum.Partitions, int64(sum.Arrival)
	work := sum.Other || sum.Partitions > 0
	blind := c.Unseen > 0 && last.Desired > 0 // workers may be copying what nobody here can see
	if work || blind {
		next.Busy = now
	}
	want, why := c.want(sum)
	resting := now.Sub(next.Busy) >= c.Idle
	switch {
	case !work && (first || resting || last.Desired == 0):
		want, why = c.Min, "nothing to copy"
	case !work && blind:
		want, why = last.Desired, "nothing to copy is seen"
	case !work:
		want, why = max(1, c.Min), "nothing to copy since "+next.Busy.UTC().Format(time.TimeOnly)
	}
	if blind && want <= last.Desired {
		want, why = last.Desired, fmt.Sprintf("%s; no fewer than before, with %s on the queue of flows that can't be looked at", why, plural(c.Unseen, "task"))
	}
	if resting {
		next.Fewer.Workers = 0 // what was wanted before counts no more
	}
	next.settle(c, want, first || last.Desired == 0 || resting && last.Desired <= max(1, c.Min))
	next.BacklogPerWorker = next.BacklogBytes / int64(max(1, next.Desired))
	next.Reason = next.explain(c, why)
	return next
}

// merge puts what this coordinator sees in place of what others saw, which holds for a while.
func (c Circumstances) merge(known map[string]Load) map[string]Load {
	now, all := c.Depth.At, map[string]Load{}
	for flow, l := range known {
		if now.Sub(l.At).Abs() < loadHolds {
			all[flow] = l
		}
	}
	for flow, l := range c.Flows {
		all[flow] = l.after(all[flow])
	}
	return all
}

// after reckons what has come since an earlier load of the same flow.
func (l Load) after(was Load) Load {
	l.Arrival, l.EndAt = was.Arrival, l.At
	if was.Counted != l.Counted { // not the same partitions: nothing can be said
		return l
	}
	passed := l.At.Sub(was.EndAt)
	if l.End < was.End && passed < loadHolds { // seen by a coordinator that looked earlier, or that has stood still since
		l.End, l.EndAt = was.End, was.EndAt
		return l
	}
	if passed <= 0 {
		return l
	}
	came := max(0, float64(l.End-was.End)*l.Record/passed.Seconds())
	l.Arrival += (1 - math.Pow(1-arrivalShare, float64(passed)/float64(decideEvery))) * (came - l.Arrival)
	if l.Arrival < 1 {
		l.Arrival = 0
	}
	l.Other = l.Other || l.End > was.End // whoever copies at once leaves nothing behind to be seen
	return l
}

// sum is the load of all flows.
func (c Circumstances) sum(flows map[string]Load) (sum Load) {
	for _, flow := range slices.Sorted(maps.Keys(flows)) {
		l := flows[flow]
		sum.Partitions += l.Partitions
		sum.AtOnce += l.AtOnce
		sum.Bytes += l.Bytes
		sum.Arrival += l.Arrival
		sum.Other = sum.Other || l.Other
		demand := l.Demand + l.Arrival
		if l.Limit > 0 {
			demand = min(demand, l.Limit)
		}
		sum.Demand += demand
	}
	return sum
}

func (c Circumstances) rate() float64 {
	if c.Tempo.Rate > 0 {
		return c.Tempo.Rate
	}
	return float64(c.Scale.Rate)
}

// want is how many workers would do, and why.
func (c Circumstances) want(sum Load) (int, string) {
	why := fmt.Sprintf("%s in %s", size(sum.Bytes), plural(sum.Partitions, "partition"))
	if sum.Arrival >= 1 {
		why += fmt.Sprintf(" and %s/s that come", size(sum.Arrival))
	}
	want := int(min(math.Ceil(sum.Demand/c.rate()-1e-9), mostWanted))
	why += fmt.Sprintf(": %s at %s/s", plural(max(1, want), "worker"), size(c.rate()))
	if turns := int(math.Ceil(float64(sum.Partitions) * leaseTurn.Seconds() / (float64(max(1, c.Slots)) * c.Drain.Seconds()))); turns > want {
		want = turns
		why += fmt.Sprintf(", and %d for all partitions to have their turn", turns)
	}
	if atOnce := max(sum.AtOnce, c.Depth.Waiting+c.Depth.Held); want > atOnce {
		want = atOnce
		why += fmt.Sprintf(", of whom %d have one to copy", max(1, want))
	}
	want = max(1, want)
	switch {
	case want > c.Max:
		return c.Max, why + fmt.Sprintf("; %d is the most", c.Max)
	case want < c.Min:
		return c.Min, why + fmt.Sprintf("; %d is the least", c.Min)
	}
	return want, why
}

// settle moves the number of workers. It grows when more have been wanted for a while, to the least of what was, and shrinks likewise when
// fewer have been enough for much longer, to the most. So what comes and goes within that moves nothing.
func (d *Decision) settle(c Circumstances, want int, atOnce bool) {
	now := d.DecidedAt
	switch {
	case want == d.Desired:
		d.More, d.Fewer = Stretch{}, Stretch{}
	case atOnce:
		d.move(want)
	case want > d.Desired:
		d.Fewer = Stretch{}
		d.More = d.More.with(now, want, min(d.More.Workers, want))
		if now.Sub(d.More.Since) >= settleUp {
			d.move(d.More.Workers)
		}
	default:
		d.More = Stretch{}
		d.Fewer = d.Fewer.with(now, want, max(d.Fewer.Workers, want))
		if now.Sub(d.Fewer.Since) >= c.Down {
			d.move(d.Fewer.Workers)
		}
	}
	if within := min(max(d.Desired, c.Min), c.Max); within != d.Desired || d.Since.IsZero() { // they were others, or this is the first
		d.move(within)
	}
}

// latest is the latest time that the decision knows of.
func (d Decision) latest() time.Time {
	return slices.MaxFunc([]time.Time{d.DecidedAt, d.Busy, d.More.Since, d.Fewer.Since}, time.Time.Compare)
}

func (d *Decision) move(to int) {
	d.Since, d.Desired, d.More, d.Fewer = d.DecidedAt, to, Stretch{}, Stretch{}
}

// with is the stretch that goes on with a number, or begins with another one.
func (s Stretch) with(now time.Time, begin, on int) Stretch {
	if s.Since.IsZero() {
		return Stretch{now, begin}
	}
	return Stretch{s.Since, on}
}

func (d Decision) explain(c Circumstances, why string) string {
	switch {
	case !d.Fewer.Since.IsZero():
		return why + fmt.Sprintf("; fewer than %d have been enough since %s, and are asked for after %s", d.Desired, d.Fewer.Since.UTC().Format(time.TimeOnly), short(c.Down))
	case !d.More.Since.IsZero():
		return why + fmt.Sprintf("; more than %d have been wanted since %s, and are asked for after %s", d.Desired, d.More.Since.UTC().Format(time.TimeOnly), short(settleUp))
	}
	return why
}

// short is a duration without zeros behind it: 2m.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// size is a number of bytes for people, in one unit.
func size(bytes float64) string {
	for _, unit := range []struct {
		name string
		size float64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if bytes >= unit.size {
			return fmt.Sprintf("%.1f %s", bytes/unit.size, unit.name)
		}
	}
	return fmt.Sprintf("%.0f B", bytes)
}

// failed says whether a cluster didn't answer for some of the partitions.
func (f FlowReport) failed() bool {
	return slices.ContainsFunc(f.Plan.Partitions, func(at Partition) bool { return at.State == Failed })
}

// load is what the last pass over a flow left to do. Copies of heartbeats are no reason for a worker: they are made while one is there.
func (f FlowReport) load(flow spec.Flow, drain time.Duration, tempo lease.Tempo, now time.Time) Load {
	l := Load{At: now, Record: cmp.Or(tempo.RecordBytes[f.Flow], recordBytes), Other: f.GroupsDue}
	if f.Plan.State != spec.Running {
		return l // what is held there isn't tried again either
	}
	behind := map[string]int64{}
	for _, at := range f.Plan.Partitions {
		if at.Begun && mm2.Heartbeats(flow.Policy, at.Topic) {
			continue
		}
		switch at.State {
		case Copying, Missing:
			l.Partitions++
			behind[at.Topic] += at.Lag
		case Waiting:
			l.Other = true
		case Held:
			l.Other = l.Other || at.Due || !at.Next.IsZero() // what waits for a person is nothing to do
			continue
		case Idle:
		default:
			continue
		}
		l.Counted++
		l.End += at.End
	}
	l.Other = l.Other || slices.ContainsFunc(f.Plan.Tasks, func(t lease.Task) bool { return t.Kind == lease.KindTopics })
	for topic, records := range behind {
		bytes := float64(records) * l.Record
		l.Bytes += bytes
		l.Demand += bounded(bytes/drain.Seconds(), bytesOf(f.Limits[topic].Over(flow.Limits.Topic(topic)), l.Record))
	}
	l.Limit = bytesOf(f.Limits[""].Over(flow.Limits.Rate), l.Record)
	if l.AtOnce = l.Partitions; flow.MaxLeases > 0 {
		l.AtOnce = min(l.AtOnce, flow.MaxLeases)
	}
	return l
}

// bytesOf is a rate in bytes a second; 0 is no limit.
func bytesOf(r spec.Rate, record float64) float64 {
	bytes, records := float64(r.Bytes), float64(r.Records)*record
	if bytes == 0 || records == 0 {
		return max(bytes, records)
	}
	return min(bytes, records)
}

func bounded(rate, limit float64) float64 {
	if limit > 0 {
		return min(rate, limit)
	}
	return rate
}

// scaling is a coordinator's view of the decisions.
type scaling struct {
	settings spec.Settings
	slate    lease.Slate

	mu   sync.Mutex // guards what follows
	last Scale
	at   time.Time // when it was read or written, by our clock
	err  error
}

// Scale is how many workers are wanted. The error says why nobody can tell.
func (c *Coordinator) Scale() (Scale, error) {
	s := &c.scaling
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.at.IsZero() && time.Since(s.at) <= scaleHolds:
		return s.last, nil
	case s.err != nil:
		return Scale{}, fmt.Errorf("how many workers are wanted is not known: %w", s.err)
	}
	return Scale{}, errors.New("how many workers are wanted is not known: no flow can be looked at, or none has been yet")
}

// keepScale keeps the decision, and what else the depth of the queue tells, until ctx ends.
func (c *Coordinator) keepScale(ctx context.Context) error {
	for sleep(ctx, PassInterval) {
		asking, cancel := context.WithTimeout(ctx, passTimeout)
		scale, known, err := c.rescale(asking)
		cancel()
		c.scaling.mu.Lock()
		if c.scaling.err = err; known { // a queue that doesn't answer is reported by the passes
			c.scaling.last, c.scaling.at = scale, time.Now()
		}
		c.scaling.mu.Unlock()
	}
	return nil
}

// rescale reads the last decision and makes the next where it is time to.
func (c *Coordinator) rescale(ctx context.Context) (s Scale, known bool, err error) {
	depth, err := c.queue.Depth(ctx)
	if err != nil {
		return Scale{}, false, err
	}
	c.metrics.waiting.Set(float64(depth.Waiting))
	if c.scaling.settings.Scale.Max == 0 {
		return Scale{}, false, nil // nobody asks
	}
	var last Decision
	revision, err := c.scaling.slate.Read(ctx, &last)
	if err != nil {
		return Scale{}, false, err
	}
	if age := depth.At.Sub(last.DecidedAt); revision > 0 && age.Abs() < decideEvery {
		return last.Scale, true, nil
	}
	tempo, err := c.queue.Tempo(ctx)
	if err != nil {
		return Scale{}, false, err
	}
	flows := c.loads(tempo, depth.At)
	if len(flows) == 0 { // this coordinator sees nothing, and another may
		return last.Scale, revision > 0 && depth.At.Sub(last.DecidedAt) < scaleHolds, nil
	}
	unseen, err := c.unseen(ctx, flows, last, depth.At)
	if err != nil {
		return Scale{}, false, err
	}
	next := Circumstances{Scale: c.scaling.settings.Scale, Slots: c.scaling.settings.Slots, Depth: depth, Tempo: tempo, Flows: flows, Unseen: unseen}.Decide(last)
	if next.DecidedAt.Sub(last.DecidedAt).Abs() < sayAgain && next.same(last) {
		return last.Scale, true, nil
	}
	if _, err := c.scaling.slate.Write(ctx, next, revision); err != nil {
		if errors.Is(err, lease.ErrLost) { // another one has decided, as the next look shows
			return last.Scale, revision > 0, nil
		}
		return Scale{}, false, err
	}
	return next.Scale, true, nil
}

// loads are those of the flows that this coordinator has just seen.
func (c *Coordinator) loads(tempo lease.Tempo, now time.Time) map[string]Load {
	all := map[string]Load{}
	for _, f := range c.flows {
		if r := f.last(); r.Passes > 0 && r.Err == nil && recent(r.At) {
			if l := r.load(f.flow, c.scaling.settings.Scale.Drain, tempo, now); l.Counted > 0 || !r.failed() {
				all[r.Flow] = l
			}
		}
	}
	return all
}

// recent says whether a look is no older than a pass may take, by either clock of the machine: one of them stands still while the machine
// sleeps, and the other one is set.
func recent(at time.Time) bool {
	return time.Since(at) < passTimeout && time.Now().Round(0).Sub(at.Round(0)).Abs() < passTimeout
}

// unseen counts the tasks of flows that neither this coordinator sees nor another one has seen lately.
func (c *Coordinator) unseen(ctx context.Context, flows map[string]Load, last Decision, now time.Time) (tasks int, err error) {
	for _, f := range c.flows {
		name := f.flow.Name()
		if _, seen := flows[name]; seen || now.Sub(last.Flows[name].At).Abs() < loadHolds {
			continue
		}
		n, err := c.queue.Tasks(ctx, name)
		if err != nil {
			return 0, err
		}
		tasks += n
	}
	return tasks, nil
}

// same says that a decision tells no more than the one before it.
func (d Decision) same(last Decision) bool {
	d.DecidedAt = last.DecidedAt
	flows := make(map[string]Load, len(d.Flows))
	for flow, l := range d.Flows {
		l.At, l.EndAt = last.Flows[flow].At, last.Flows[flow].EndAt
		flows[flow] = l
	}
	d.Flows = flows
	return reflect.DeepEqual(d, last)
}

// LastScale is what coordinators have decided last, with or without one in this process; false where none has lately.
func LastScale(ctx context.Context, queue *lease.Queue) (Scale, bool) {
	if queue == nil {
		return Scale{}, false
	}
	ctx, cancel := context.WithTimeout(ctx, queueTimeout)
	defer cancel()
	var d Decision
	revision, err := queue.Slate(lease.SlateScale).Read(ctx, &d)
	if err != nil || revision == 0 {
		return Scale{}, false
	}
	depth, err := queue.Depth(ctx)
	return d.Scale, err == nil && depth.At.Sub(d.DecidedAt).Abs() < loadHolds
}

// String is the line for people.
func (s Scale) String() string {
	verb := "are"
	if s.Desired == 1 {
		verb = "is"
	}
	return fmt.Sprintf("%s %s wanted since %s: %s", plural(s.Desired, "worker"), verb, s.Since.UTC().Format(time.RFC3339), s.Reason)
}
