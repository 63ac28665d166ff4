package functions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/bits"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kferry/kferry/shared/groups"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/offsets"
	"github.com/kferry/kferry/shared/spec"
)

const (
	commitsAtOnce  = 8   // groups whose positions are under way to the target
	groupsPerCheck = 200 // groups that are looked at in one go right before they are written
)

// A translator leads the consumer groups of one flow to where they go on in its copies. It keeps what it has read of the target, so that
// a run reads no more than what is new.
type translator struct {
	flow           spec.Flow
	source, target *kafka.Cluster
	cursors        *lease.Cursors
	copies         groups.Copies // without cursors
	back           *lease.Cursors
	syncs          *offsets.Syncs
	meters         *meters
	log            *slog.Logger

	mu     sync.Mutex // one run at a time; guards what follows
	known  checkpoints
	mute   bool   // that offset-syncs can't be written is in the log already
	denied string // why some groups are left alone, likewise
}

// follow runs a groups task. How it ended well is noted too, since that is what the next look is compared with.
func (w *Worker) follow(hard, soft context.Context, t *tenancy, r *translator) {
	if r.flow.Groups.State != spec.Running {
		w.conclude(hard, t, nil) // it was offered before somebody changed that
		return
	}
	last, _, err := w.Queue.State(soft, t.Task)
	var done lease.State
	if err == nil {
		done, err = r.run(soft, t.Lease, last)
		t.done = done.Done
	}
	if err = drained(soft, err); err == nil {
		err = w.Queue.PutState(soft, t.Task, done)
	}
	if err != nil {
		w.conclude(hard, t, err)
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(hard), concludeLimit)
	defer cancel()
	if err := t.Release(ctx); err != nil {
		w.Logger.Warn("could not release a lease; it comes back when its time is over", "task", t.Task.String(), "error", err)
	}
}

// newTranslator makes one, which knows the flow in the other direction where there is one.
func (w *Worker) newTranslator(f spec.Flow) *translator {
	source, target := w.Clusters[f.SourceKey()], w.Clusters[f.TargetKey()]
	r := &translator{
		flow: f, source: source, target: target, cursors: w.cursors[f.Name()],
		known:  checkpoints{tail: target.NewTail(f.Groups.CheckpointsTopic, spec.ReadCommitted)},
		copies: *groups.Open(f, target), syncs: w.syncs[f.Name()],
		meters: w.metrics.meters, log: w.Logger.With("flow", f.Name()),
	}
	if back, ok := w.Spec.Flow(spec.FlowName(f.Target, f.Source)); ok {
		r.back = w.cursors[back.Name()]
		r.copies.Back = groups.Open(back, source)
	}
	return r
}

// run brings the target up to date, and returns what the coordinator is to compare with, also where only half of it was done. last is what
// the run before left.
func (r *translator) run(ctx context.Context, l *lease.Lease, last lease.State) (lease.State, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	began := time.Now()
	seen, err := groups.Look(ctx, r.flow, r.source)
	if err != nil {
		return lease.State{}, err
	}
	copies, err := r.look(ctx)
	if err != nil {
		return lease.State{}, err
	}
	positions := copies.Positions(seen)
	copies.Translate(positions)
	if err := r.disown(ctx, copies, positions); err != nil {
		return lease.State{}, err
	}
	digest, done := copies.Digest(positions), lease.State{Synced: last.Synced, SyncedAt: last.SyncedAt}
	var checkpointed, synced error
	unseen := seen.Err()
	if denied := seen.Denied(); denied != nil && r.denied != denied.Error() {
		r.denied = denied.Error()
		r.log.Warn("consumer groups are left alone that kferry may not look at", "first", denied)
	}
	if r.flow.Groups.Checkpoints {
		if checkpointed = r.checkpoint(ctx, l, copies, positions, began); checkpointed == nil && unseen == nil {
			done.Done = digest
		}
	}
	if r.flow.Groups.Sync && last.SyncDue(r.flow.Groups.SyncInterval, time.Now()) {
		var standing groups.Standing
		if standing, synced = r.sync(ctx, l, positions); synced == nil {
			done.Synced, done.SyncedAt = digest+standing.Digest(positions), time.Now()
		}
	}
	return done, errors.Join(unseen, checkpointed, synced)
}

// look reads how far the copies are, and then the maps, which are never older.
func (r *translator) look(ctx context.Context) (*groups.Copies, error) {
	copies := r.copies
	for c, cursors := &copies, r.cursors; ; c, cursors = c.Back, r.back {
		err := cursors.CheckLoaded(ctx)
		if err == nil {
			c.Cursors, err = cursors.All(ctx)
		}
		if err == nil {
			err = c.Map.Refresh(ctx)
		}
		if err != nil {
			return nil, fmt.Errorf("map of %s: %w", c.Flow.Name(), err)
		}
		if c.Back == nil {
			return &copies, nil
		}
		back := *c.Back
		c.Back = &back
	}
}

// disown asks the target for the topics that positions lead to, see groups.Copies.Disown.
func (r *translator) disown(ctx context.Context, copies *groups.Copies, positions []groups.Position) error {
	named := map[string]bool{}
	for _, p := range positions {
		if p.To > 0 {
			named[p.Target.Topic] = true
		}
	}
	topics, err := r.target.TopicsNamed(ctx, slices.Collect(maps.Keys(named)))
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	copies.Disown(positions, topics)
	return nil
}

// checkpoint writes the checkpoints that are due, and an offset-sync at each position of the partitions that they are about: whoever
// translates as MirrorMaker does comes to the same offsets then. The groups' offsets were asked for at looked.
func (r *translator) checkpoint(ctx context.Context, l *lease.Lease, copies *groups.Copies, positions []groups.Position, looked time.Time) error {
	topic := r.flow.Groups.CheckpointsTopic
	there, err := r.known.refresh(ctx)
	if err != nil {
		return fmt.Errorf("read %s on %s: %w", topic, r.flow.Target, permanent(err))
	}
	var due []mm2.Checkpoint
	moved := map[kafka.TopicPartition]bool{}
	for _, p := range positions {
		if p.To >= 0 && r.known.due(p, copies.End(p)) {
			due = append(due, mm2.Checkpoint{
				Group: p.Group, Topic: p.Target.Topic, Partition: p.Target.Partition,
				Upstream: p.Commit.Offset, Downstream: p.To, Metadata: p.Commit.Metadata,
			})
			moved[p.Source] = true
		}
	}
	if len(due) == 0 {
		return nil
	}
	if !there {
		if err := createCheckpoints(ctx, r.flow, r.target); err != nil {
			return fmt.Errorf("create %s on %s: %w", topic, r.flow.Target, err)
		}
		if _, err := r.known.refresh(ctx); err != nil {
			return fmt.Errorf("read %s on %s: %w", topic, r.flow.Target, permanent(err))
		}
	}
	if err := r.known.write(ctx, l, r.target, topic, due); err != nil {
		return fmt.Errorf("write checkpoints: %w", permanent(err))
	}
	r.log.Debug("wrote checkpoints", "count", len(due))
	for took := time.Since(looked); len(due) > 0; due = due[1:] {
		r.meters.checkpointed(r.flow.Name(), due[0].Group, kafka.TopicPartition{Topic: due[0].Topic, Partition: due[0].Partition}, took)
	}
	if !r.flow.Syncs.Enabled {
		return nil
	}
	pairs := pairsAt(copies, positions, moved)
	err = trusted(ctx, l, func(ctx context.Context) error { return r.syncs.Write(ctx, pairs) })
	if errors.Is(err, lease.ErrLost) || ctx.Err() != nil {
		return err
	}
	if err != nil && !r.mute { // nothing of kferry's depends on them
		r.log.Warn("offset-syncs can't be written at the positions of groups; MirrorMaker's own tools will translate less exactly", "error", err)
	}
	r.mute = err != nil
	return nil
}

// pairsAt are the offset-syncs at the positions in some partitions: of each partition in ascending order, and the newest last.
func pairsAt(copies *groups.Copies, positions []groups.Position, in map[kafka.TopicPartition]bool) (pairs []mm2.OffsetSync) {
	at := map[kafka.TopicPartition][]int64{}
	for _, p := range positions {
		if in[p.Source] && copies.Flow.Selects(p.Source.Topic) {
			at[p.Source] = append(at[p.Source], p.Commit.Offset)
		}
	}
	for tp, all := range at {
		cursor, known := copies.Cursors[tp]
		if !known || !cursor.Placed() {
			continue
		}
		for _, u := range spread(all, cursor.Offset) {
			pair, ok := copies.Sync(tp, cursor, u)
			if n := len(pairs); ok && (n == 0 || pairs[n-1] != pair) {
				pairs = append(pairs, pair)
			}
		}
	}
	return pairs
}

// spread is the end, and of the offsets below it the lowest at each distance that MirrorMaker's readers tell apart: they keep one pair for
// each power of two.
func spread(all []int64, end int64) []int64 {
	slices.Sort(all)
	kept, last := []int64{}, -1
	for _, u := range all {
		if far := bits.Len64(uint64(end - u)); u < end && far != last {
			kept, last = append(kept, u), far
		}
	}
	return append(kept, end)
}

// sync has groups that nobody uses on the target go on there where they are on the source. It never sets one back. Everything that it
// goes by is whole or an error: a group that could not be looked at is not taken for a new one.
func (r *translator) sync(ctx context.Context, l *lease.Lease, positions []groups.Position) (groups.Standing, error) {
	standing, err := groups.LookTarget(ctx, r.target, groups.Names(positions))
	if err != nil {
		return standing, permanent(err)
	}
	lacking := slices.DeleteFunc(slices.Clone(positions), func(p groups.Position) bool { return !standing.Lacks(p) })
	if len(lacking) == 0 {
		return standing, groupDenied(standing.Err())
	}
	limits := r.limits(ctx, lacking)
	for len(lacking) > 0 && ctx.Err() == nil && !errors.Is(err, lease.ErrLost) {
		n := upTo(groupsPerCheck, lacking)
		err = cmp.Or(err, r.commit(ctx, l, standing, limits, lacking[:n]))
		lacking = lacking[n:]
	}
	return standing, cmp.Or(err, context.Cause(ctx), groupDenied(standing.Err()))
}

// upTo is how many positions belong to the first n groups.
func upTo(n int, positions []groups.Position) int {
	for i := 1; i < len(positions); i++ {
		if positions[i].Group != positions[i-1].Group {
			if n--; n == 0 {
				return i
			}
		}
	}
	return len(positions)
}

// An extent is what a partition of the target holds.
type extent struct{ start, end kafka.Offset }

// limits are the partitions' extents: no group is sent beyond the end, where it would wait for records that are not its own, nor before the
// start, where its consumers would do whatever auto.offset.reset says.
func (r *translator) limits(ctx context.Context, positions []groups.Position) map[kafka.TopicPartition]extent {
	limits := map[kafka.TopicPartition]extent{}
	var tps []kafka.TopicPartition
	for _, p := range positions {
		if _, asked := limits[p.Target]; !asked {
			limits[p.Target] = extent{}
			tps = append(tps, p.Target)
		}
	}
	starts := r.target.OffsetsNow(ctx, tps, kafka.Earliest, spec.ReadUncommitted)
	ends := r.target.OffsetsNow(ctx, tps, kafka.Latest, spec.ReadUncommitted)
	for _, tp := range tps {
		limits[tp] = extent{starts[tp], ends[tp]}
	}
	return limits
}

// commit writes the positions of some groups, which are looked at once more just before.
func (r *translator) commit(ctx context.Context, l *lease.Lease, standing groups.Standing, limits map[kafka.TopicPartition]extent, positions []groups.Position) error {
	names := groups.Names(positions)
	now := groups.Standing{States: map[string]kafka.GroupState{}}
	states, err := r.target.GroupStates(ctx, names)
	if err == nil {
		now.Offsets, err = r.target.GroupOffsets(ctx, names)
	}
	if err != nil {
		return fmt.Errorf("target: %w", permanent(err))
	}
	var wrong error
	var mu sync.Mutex // guards wrong and standing
	var calls errgroup.Group
	calls.SetLimit(commitsAtOnce)
	for len(positions) > 0 {
		n := upTo(1, positions)
		mine := positions[:n]
		positions = positions[n:]
		name := mine[0].Group
		if err := cmp.Or(states[name].Err, now.Offsets[name].Err); err != nil {
			mu.Lock()
			wrong = cmp.Or(wrong, fmt.Errorf("target: %w", groupDenied(err)))
			mu.Unlock()
			continue
		}
		now.States[name] = states[name].State
		commits, err := within(limits, now, mine)
		calls.Go(func() error {
			var took map[kafka.TopicPartition]kafka.Commit
			if len(commits) > 0 {
				var failed error
				took, failed = r.commitOne(ctx, l, name, commits)
				err = cmp.Or(failed, err)
			}
			mu.Lock()
			defer mu.Unlock()
			standing.Took(name, took)
			wrong = cmp.Or(wrong, err)
			return nil
		})
	}
	_ = calls.Wait() // errors are in wrong
	return wrong
}

// within are the commits of one group: what it still lacks, as far as the partitions reach. A partition that is gone is left out.
func within(limits map[kafka.TopicPartition]extent, now groups.Standing, positions []groups.Position) (commits map[kafka.TopicPartition]kafka.Commit, err error) {
	commits = map[kafka.TopicPartition]kafka.Commit{}
	for _, p := range positions {
		limit := limits[p.Target]
		if wrong := cmp.Or(limit.start.Err, limit.end.Err); wrong != nil {
			if !errors.Is(wrong, kafka.ErrUnknownTopic) {
				err = fmt.Errorf("end of %s on the target: %w", p.Target, wrong)
			}
			continue
		}
		p.To = min(max(p.To, limit.start.Offset), limit.end.Offset)
		if now.Lacks(p) {
			commits[p.Target] = kafka.Commit{Offset: p.To, Metadata: p.Commit.Metadata}
		}
	}
	return commits, err
}

// commitOne commits for one group, and returns what the target took. That it refuses because the group is in use by now, or because the
// topic is gone, is as it should be.
func (r *translator) commitOne(ctx context.Context, l *lease.Lease, group string, commits map[kafka.TopicPartition]kafka.Commit) (took map[kafka.TopicPartition]kafka.Commit, err error) {
	var refused map[kafka.TopicPartition]error
	err = trusted(ctx, l, func(ctx context.Context) (err error) {
		refused, err = r.target.CommitGroupOffsets(ctx, group, commits)
		return err
	})
	if err != nil {
		return nil, err
	}
	for tp, refusal := range refused {
		delete(commits, tp)
		switch {
		case kafka.GroupInUse(refusal), is(refusal, kafka.ErrUnknownTopic, kafka.ErrUnknownTopicID):
			r.log.Debug("position not taken", "group", group, "partition", tp, "error", refusal)
		default:
			err = fmt.Errorf("commit %s of group %s: %w", tp, group, groupDenied(refusal))
		}
	}
	return commits, err
}

// groupDenied makes a hold of a missing right on a group.
func groupDenied(err error) error {
	if errors.Is(err, kafka.ErrGroupAuthorization) {
		return hold(lease.ReasonAuthorization, "no right to set positions of groups: grant Read and Describe on them, and Read on their topics: %v", err)
	}
	return permanent(err)
}
