package coordinator

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/kferry/kferry/shared/follow"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// What topics have beside records is compared apart from the passes over a flow: records don't wait for it, whatever a cluster makes of
// such questions. What differs is offered by the next pass, which comes at once.

const (
	compareTimeout = 20 * time.Second // of one comparison of all topics
	tryRefused     = 10 * time.Minute // a cluster that refuses something is asked again, which MirrorMaker does as often
)

// following is what a flow's comparisons have come to.
type following struct {
	news chan struct{} // of capacity 1: something differs

	mu       sync.Mutex // guards what follows
	topics   topics     // as last discovered
	unlike   map[string]bool
	open     [2]bool     // of settings and of rights: something is still to follow, or nobody has looked yet
	warnings [2][]string // likewise
}

// know takes over what was discovered.
func (f *following) know(t topics) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.topics = t
}

// paired are the source's topics that have a copy; known is whether that is known.
func (f *following) paired(remote func(string) string) (names []string, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.topics.source {
		if copied, exists := f.topics.target[remote(t.Name)]; exists && t.Err == nil && copied.Err == nil {
			names = append(names, t.Name)
		}
	}
	return names, f.topics.target != nil
}

// found notes what a comparison came to.
func (f *following) found(subject int, differ, warnings []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.unlike == nil {
		f.unlike = map[string]bool{}
	}
	for _, topic := range differ {
		f.unlike[topic] = true
	}
	f.warnings[subject], f.open[subject] = warnings, len(differ) > 0
	if len(differ) > 0 {
		select {
		case f.news <- struct{}{}:
		default:
		}
	}
}

// take returns the topics that differ, once: what still does is found again.
func (f *following) take() map[string]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	unlike := f.unlike
	f.unlike = nil
	return unlike
}

// state is what a report tells: the warnings, and whether something is still to follow.
func (f *following) state() (warnings []string, open bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Concat(f.warnings[:]...), f.open[0] || f.open[1]
}

// follow compares settings and rights until ctx ends, each at its own interval. A flow that the input stops leaves its copies alone.
func (f *flow) follow(ctx context.Context) error {
	if f.flow.State != spec.Running {
		return nil
	}
	for sleep(ctx, PassInterval) {
		for i := range f.subject {
			if s := &f.subject[i]; s.enabled && !time.Now().Before(s.next) {
				if begun := time.Now(); f.compare(ctx, i, s) {
					s.next = begun.Add(s.wait())
				}
			}
		}
	}
	return nil
}

// A subject is what is compared at one interval.
type subject struct {
	follow.Subject
	enabled bool
	every   time.Duration
	soon    time.Duration // until the next look, while something differs; else 0
	next    time.Time
	retry   time.Time // when refusals are tried again
	off     bool      // a cluster has no authorizer
	told    []string  // warnings that are in the log already
}

// wait is how long after the beginning of a comparison the next one begins.
func (s *subject) wait() time.Duration {
	switch {
	case s.off:
		return max(s.every, tryRefused)
	case s.soon > 0:
		return min(s.soon, s.every)
	}
	return s.every
}

// subjects are those of the flow. One that is to be there within an interval is compared a pass earlier, since the next pass offers it.
func (p pair) subjects() [2]subject {
	every := func(interval time.Duration) time.Duration { return max(interval-PassInterval, PassInterval) }
	return [2]subject{
		{Subject: follow.Subject{Settings: true}, enabled: p.flow.Configs.Enabled, every: every(p.flow.Configs.Interval)},
		{Subject: follow.Subject{Rights: true}, enabled: p.flow.ACLs.Enabled, every: every(p.flow.ACLs.Interval)},
	}
}

// compare compares one subject of all topics, and says whether there was anything to compare. What fails is said, and tried at the next time.
func (f *flow) compare(ctx context.Context, i int, s *subject) bool {
	topics, known := f.following.paired(f.flow.RemoteTopic)
	if !known || !f.isLoaded(ctx) { // without notes it isn't known what was applied
		return false
	}
	if len(topics) == 0 {
		f.following.found(i, nil, nil)
		return false
	}
	asking, cancel := context.WithTimeout(ctx, compareTimeout)
	defer cancel()
	notes, look, err := f.likeness(asking, topics, s.Subject)
	if ctx.Err() != nil {
		return false
	}
	if err != nil {
		f.say(i, s, nil, []string{unlikeError(f.flow, err)})
		return true
	}
	differ := look.Differ()
	if now := time.Now(); now.After(s.retry) {
		differ = append(differ, refusedTopics(topics, notes, s.Subject)...)
		s.retry = now.Add(tryRefused)
	}
	if s.soon = max(2*s.soon, PassInterval); len(differ) == 0 {
		s.soon = 0
	}
	if off := look.Disabled(); off != s.off {
		if s.off = off; off {
			f.log.Info("rights don't follow: a cluster has no authorizer", "answer", look.NoRights)
		}
	}
	states, err := f.queue.States(ctx)
	if err != nil {
		return false
	}
	f.say(i, s, differ, append(look.Warnings(), unfollowed(f.flow, differ, states)...))
	return true
}

// unfollowed says why copies are not made like their sources, where workers may not: one warning for all of them.
func unfollowed(f spec.Flow, topics []string, states map[lease.Task]lease.State) []string {
	v := View{Flow: f, States: states}
	held, first := 0, lease.State{}
	for _, topic := range topics {
		if s := v.state(v.topicsTask(topic)); s.Held {
			if held++; held == 1 {
				first = s
			}
		}
	}
	if held == 0 {
		return nil
	}
	return []string{fmt.Sprintf("the copies of %s of %s are not made like their sources: %s: %s", plural(held, "topic"), f.Name(), first.Reason, first.Detail)}
}

func unlikeError(f spec.Flow, err error) string {
	return fmt.Sprintf("settings and rights of %s can't be compared: %v", f.Name(), err)
}

func (f *flow) isLoaded(ctx context.Context) bool {
	loaded, err := f.cursors.Loaded(ctx)
	return err == nil && loaded
}

// likeness asks both clusters, and for what is remembered.
func (f *flow) likeness(ctx context.Context, topics []string, what follow.Subject) (map[string]follow.Note, follow.Look, error) {
	notes, err := f.cursors.Notes(ctx)
	if err != nil {
		return nil, follow.Look{}, err
	}
	known := follow.Notes(notes)
	look, err := follow.Read(ctx, f.flow, f.source, f.target, topics, known, what)
	return known, look, err
}

// refusedTopics are those of which the target has refused something.
func refusedTopics(topics []string, notes map[string]follow.Note, what follow.Subject) (refused []string) {
	for _, topic := range topics {
		if n := notes[topic]; what.Settings && len(n.Refused) > 0 || what.Rights && n.Denied != "" {
			refused = append(refused, topic)
		}
	}
	return refused
}

func (f *flow) say(i int, s *subject, differ, warnings []string) {
	for _, w := range warnings {
		if !slices.Contains(s.told, w) {
			f.log.Warn(w)
		}
	}
	s.told = warnings
	f.following.found(i, differ, warnings)
}

// unlike is what `status` says about settings and rights: what doesn't follow, and why.
func (p pair) unlike(ctx context.Context, found topics, notes map[lease.NoteKey]lease.Note, states map[lease.Task]lease.State) []string {
	var known following
	known.know(found)
	topics, _ := known.paired(p.flow.RemoteTopic)
	if len(topics) == 0 || p.flow.State != spec.Running {
		return nil
	}
	look, err := follow.Read(ctx, p.flow, p.source, p.target, topics, follow.Notes(notes), follow.Of(p.flow))
	if lease.Away(err) != "" || ctx.Err() != nil {
		return nil // it is told already that a cluster can't be spoken to
	}
	if err != nil {
		return []string{unlikeError(p.flow, err)}
	}
	return append(look.Warnings(), unfollowed(p.flow, look.Differ(), states)...)
}
