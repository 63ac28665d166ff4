package coordinator

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/kferry/kferry/shared/groups"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

const (
	groupsTimeout = 30 * time.Second // of one look at a flow's groups; one that takes longer is tried again
	groupsLast    = 5 * time.Second  // that who waits for the copies waits for the groups on top
)

// followed says whether somebody wants the groups of a flow to go on in its copies.
func followed(f spec.Flow) bool {
	return f.Groups.State == spec.Running && (f.Groups.Checkpoints || f.Groups.Sync)
}

// followGroups offers the groups task of the flow whenever its consumer groups, or the copies that they wait for, have moved. It has a goroutine
// and a pace of its own, so that groups which can't be looked at keep no partition waiting.
func (f *flow) followGroups(ctx context.Context) error {
	if !followed(f.flow) {
		return nil
	}
	wait := f.flow.Groups.CheckpointsInterval
	if !f.flow.Groups.Checkpoints {
		wait = f.flow.Groups.SyncInterval
	}
	wait = max(wait, PassInterval)
	for sleep(ctx, min(wait, PassInterval)); ctx.Err() == nil; sleep(ctx, wait) {
		asking, cancel := context.WithTimeout(ctx, groupsTimeout)
		due, err := f.compareGroups(asking, false)
		cancel()
		if ctx.Err() == nil {
			f.noteGroups(due, err)
		}
	}
	return nil
}

// noteGroups makes known how a look at the groups ended.
func (f *flow) noteGroups(due bool, err error) {
	before := f.last().Groups
	f.update(func(r *FlowReport) { r.Groups, r.GroupsDue = err, due })
	switch {
	case err == nil && before != nil:
		f.log.Info("consumer groups are looked at again")
	case err != nil && (before == nil || before.Error() != err.Error()):
		f.log.Warn("consumer groups can't be looked at; trying again", "error", err)
	}
}

func (f *flow) groupsTask() lease.Task {
	return lease.Task{Kind: lease.KindGroups, Flow: f.flow.Name(), Partition: -1, Digest: f.flow.Digest()}
}

// settleGroups has the groups go on where the copies have come to, and says what is left to do: "" is nothing. Groups that are in use all the
// time are never settled, hence the bound.
func (f *flow) settleGroups(ctx context.Context) (left string) {
	if !followed(f.flow) {
		return ""
	}
	limited, cancel := context.WithTimeout(ctx, groupsLast)
	defer cancel()
	for {
		due, err := f.compareGroups(limited, true)
		if err == nil && !due {
			var state lease.State
			if state, _, err = f.queue.State(limited, f.groupsTask()); err == nil {
				return state.Detail
			}
		}
		if err != nil && limited.Err() == nil {
			return err.Error()
		}
		if !sleep(limited, PassInterval/4) {
			return "they are on the move"
		}
	}
}

// compareGroups looks at the groups once, and offers the task where something is to be done, which it says. At last, positions on the target
// don't wait for their interval.
func (f *flow) compareGroups(ctx context.Context, last bool) (due bool, err error) {
	task := f.groupsTask()
	state, _, err := f.queue.State(ctx, task)
	if err != nil {
		return false, err
	}
	now := time.Now()
	waits := (View{Now: now}).next(state).After(now) // since the last run failed
	if waits && state.Done == "" {
		return false, nil
	}
	switch orders, err := f.cursors.Orders(ctx); {
	case errors.Is(err, lease.ErrNotLoaded), err == nil && orders.Paused:
		return false, nil
	case err != nil:
		return false, err
	}
	syncs := f.flow.Groups.Sync && !waits && (last || state.SyncDue(f.flow.Groups.SyncInterval, now))
	if due, err = f.groupsDue(ctx, state, syncs); err != nil || !due {
		return false, err
	}
	if _, err := f.queue.Offer(ctx, task); err != nil {
		return true, fmt.Errorf("offer %s: %w", task, err)
	}
	return true, nil
}

// groupsDue compares with what the last run has seen. The target is asked only where it is time to set positions there, and the last try
// has not just failed: checkpoints don't wait for that.
func (f *flow) groupsDue(ctx context.Context, state lease.State, syncs bool) (bool, error) {
	g := f.flow.Groups
	if !g.Checkpoints && !syncs {
		return false, nil
	}
	seen, err := groups.Look(ctx, f.flow, f.source)
	if err != nil {
		return false, err
	}
	f.tellDenied(&f.groupsDenied[0], seen.Denied())
	copies := groups.Copies{Flow: f.flow}
	if copies.Cursors, err = f.cursors.All(ctx); err != nil {
		return false, err
	}
	if f.back != nil {
		copies.Back = &groups.Copies{Flow: f.back.flow}
		if copies.Back.Cursors, err = f.back.cursors.All(ctx); err != nil {
			return false, err
		}
	}
	positions := copies.Positions(seen)
	done := copies.Digest(positions)
	if g.Checkpoints && state.Done != done && (len(positions) > 0 || state.Done != "") {
		return true, nil
	}
	if !syncs || len(positions) == 0 {
		return false, nil
	}
	standing, err := groups.LookTarget(ctx, f.target, groups.Names(positions))
	if err != nil {
		return false, err
	}
	f.tellDenied(&f.groupsDenied[1], standing.Err())
	return state.Synced != done+standing.Digest(positions), nil
}

// tellDenied warns, once, of groups that kferry may not look at: they are left alone.
func (f *flow) tellDenied(told *atomic.Pointer[string], err error) {
	text := ""
	if kafka.Denied(err) {
		text = err.Error()
	}
	if was := told.Swap(&text); text != "" && (was == nil || *was != text) {
		f.log.Warn("consumer groups are left alone that kferry may not look at", "first", text)
	}
}
