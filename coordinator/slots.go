package coordinator

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/kferry/kferry/shared/lease"
)

// refillEvery is how often a flow looks for free slots between two passes, while partitions wait for one.
const refillEvery = 200 * time.Millisecond

// slots share the leases of a flow that may have only so many at one time (spec.Flow.MaxLeases) among the partitions that are due. The
// queue holds the bound, see lease.Task.Slot; here it is decided who comes next: who has waited longest, as far as this coordinator
// knows.
type slots struct {
	max     int
	due     []lease.Task             // as of the last pass, but for those that have had a slot since
	crowded bool                     // they were more than there are slots
	served  map[lease.Task]time.Time // when a partition last had a slot, by identity
	since   map[uint64]time.Time     // when a message was first seen
}

// share says which tasks get a slot now, and which are to be asked for because others wait. underway is what the queue holds.
func (s *slots) share(underway map[uint64]lease.Task, now time.Time) (offer, ask []lease.Task) {
	taken, held := map[int]bool{}, map[lease.Task]int{}
	since := map[uint64]time.Time{}
	for sequence, t := range underway {
		taken[t.Slot] = true
		held[t.Identity()]++
		s.served[t.Identity()] = now
		if since[sequence] = s.since[sequence]; since[sequence].IsZero() {
			since[sequence] = now
		}
	}
	s.since = since
	s.due = slices.DeleteFunc(s.due, func(t lease.Task) bool { return held[t.Identity()] > 0 })
	waiting := slices.Clone(s.due)
	slices.SortStableFunc(waiting, func(a, b lease.Task) int {
		return s.served[a.Identity()].Compare(s.served[b.Identity()])
	})
	free := min(max(0, s.max-len(underway)), len(waiting))
	for slot := 1; len(offer) < free; slot++ {
		if !taken[slot] {
			t := waiting[len(offer)]
			t.Slot, t.Brief = slot, t.Brief || s.crowded
			offer = append(offer, t)
		}
	}
	return offer, s.ask(underway, held, len(waiting)-free)
}

// ask picks the tasks that others have waited for longest, and those that have got two slots of coordinators that looked at one moment.
func (s *slots) ask(underway map[uint64]lease.Task, held map[lease.Task]int, waiting int) (ask []lease.Task) {
	longest := slices.SortedFunc(maps.Keys(underway), func(a, b uint64) int { return cmp.Or(s.since[a].Compare(s.since[b]), cmp.Compare(a, b)) })
	for _, sequence := range longest {
		if t := underway[sequence]; len(ask) < waiting || held[t.Identity()] > 1 {
			ask = append(ask, t)
		}
	}
	return ask
}

// offer puts what is due on the queue.
func (f *flow) offer(ctx context.Context, plan Plan) (int, error) {
	tasks := plan.Tasks
	if f.slots != nil {
		bounded := func(t lease.Task) bool { return t.Kind == lease.KindMirror }
		f.slots.due = slices.DeleteFunc(slices.Clone(tasks), func(t lease.Task) bool { return !bounded(t) })
		tasks = slices.DeleteFunc(slices.Clone(tasks), bounded)
		f.slots.crowded = len(f.slots.due) > f.slots.max
	}
	offered, err := f.queue.OfferAll(ctx, tasks)
	f.wakeUps.standing(tasks...)
	f.wakeUps.offered(offered...)
	return len(offered), errors.Join(err, f.refill(ctx))
}

// refill gives free slots to those that wait.
func (f *flow) refill(ctx context.Context) error {
	if f.slots == nil || len(f.slots.due) == 0 {
		return nil
	}
	underway, err := f.queue.Underway(ctx, f.flow.Name())
	if err != nil {
		return err
	}
	f.wakeUps.standing(slices.Collect(maps.Values(underway))...)
	offer, ask := f.slots.share(underway, time.Now())
	for _, t := range offer {
		accepted, err := f.queue.Offer(ctx, t)
		if err != nil {
			return err
		}
		if accepted {
			f.wakeUps.offered(t)
			f.slots.served[t.Identity()] = time.Now() // it may be done before anybody looks
			f.slots.done(t)
		}
	}
	for _, t := range ask {
		if err := f.queue.AskBack(t); err != nil {
			return err
		}
	}
	return nil
}

// done takes a task off the list until the next pass finds it due again.
func (s *slots) done(t lease.Task) {
	s.due = slices.DeleteFunc(s.due, func(d lease.Task) bool { return d.Identity() == t.Identity() })
}

// rest waits for the next pass, and says whether to go on.
func (f *flow) rest(ctx context.Context, d time.Duration) bool {
	for end := time.Now().Add(d); f.slots != nil && len(f.slots.due) > 0 && time.Until(end) > refillEvery; {
		if !sleep(ctx, refillEvery) {
			return false
		}
		if f.refill(ctx) != nil {
			break // the next pass says it
		}
		d = time.Until(end)
	}
	return sleepUnless(ctx, d, f.following.news)
}
