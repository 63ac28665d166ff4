package coordinator_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/shared/groups"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// followingGroups makes an installation with a flow whose groups are followed, and a copied topic.
func followingGroups(in *installation, sync bool) spec.Flow {
	f := flowTo("A", "B", "orders")
	f.Groups = spec.Groups{
		State: spec.Running, Include: must(spec.ParsePatterns(".*")), Checkpoints: true, CheckpointsInterval: 5 * time.Second,
		Sync: sync, SyncInterval: 5 * time.Second,
	}
	in.Options.Spec.Flows = []spec.Flow{f}
	in.create("A", "orders", 1, 20)
	in.create("B", "A.orders", 1, 20)
	if err := in.Queue.Cursors(f, in.Clusters["B"]).Load(in.Context()); err != nil {
		in.Fatal(err)
	}
	return f
}

func (in *installation) commitGroup(alias, group, topic string, offset int64) {
	in.Helper()
	at := map[kafka.TopicPartition]kafka.Commit{{Topic: topic}: {Offset: offset}}
	if refused := must(in.Clusters[alias].CommitGroupOffsets(in.Context(), group, at)); len(refused) > 0 {
		in.Fatal(refused)
	}
}

// groupsTask waits for a while and says whether the task was offered. As its worker, it notes what was there to be seen.
func (in *installation) groupsTask(f spec.Flow, work bool) (offered bool) {
	in.Helper()
	time.Sleep(12 * time.Second)
	synctest.Wait()
	for {
		leases := must(in.Queue.Claim(in.Context(), 10, 100*time.Millisecond))
		if len(leases) == 0 {
			return offered
		}
		for _, l := range leases {
			if l.Task.Kind == lease.KindGroups {
				offered = true
				if work {
					in.groupsWork(f, l)
				}
			}
			if err := l.Release(in.Context()); err != nil {
				in.Fatal(err)
			}
		}
	}
}

func (in *installation) groupsWork(f spec.Flow, l *lease.Lease) {
	in.Helper()
	copies := groups.Copies{Flow: f, Cursors: must(in.Queue.Cursors(f, in.Clusters["B"]).All(in.Context()))}
	positions := copies.Positions(must(groups.Look(in.Context(), f, in.Clusters["A"])))
	done := lease.State{Done: copies.Digest(positions)}
	if f.Groups.Sync {
		standing := must(groups.LookTarget(in.Context(), in.Clusters["B"], groups.Names(positions)))
		done.Synced, done.SyncedAt = done.Done+standing.Digest(positions), time.Now()
	}
	if err := in.Queue.PutState(in.Context(), l.Task, done); err != nil {
		in.Fatal(err)
	}
}

func (in *installation) cursorOf(f spec.Flow, c lease.Cursor) {
	in.Helper()
	cursors := in.Queue.Cursors(f, in.Clusters["B"])
	was, revision, err := cursors.Get(in.Context(), "orders", 0)
	if err != nil {
		must(cursors.Create(in.Context(), "orders", 0, c))
		return
	}
	c.Sequence = was.Sequence + 1
	must(cursors.Commit(in.Context(), "orders", 0, c, revision))
}

// The task is offered when a group has moved, or a copy that one waits for, and not otherwise.
func TestGroupsTaskIsOfferedWhenSomethingMoved(t *testing.T) {
	bubble(t, func(in *installation) {
		f := followingGroups(in, false)
		in.run()
		expect := func(why string, want bool) {
			t.Helper()
			if got := in.groupsTask(f, true); got != want {
				t.Errorf("%s: offered: %v, want %v", why, got, want)
			}
		}
		expect("there are no groups", false)
		in.cursorOf(f, lease.Cursor{Offset: 10, Target: 10})
		expect("something is copied", false)
		in.commitGroup("A", "app", "orders", 15)
		expect("a group has come, ahead of the copy", true)
		expect("nothing", false)
		in.cursorOf(f, lease.Cursor{Offset: 12, Target: 12})
		expect("the copy that it waits for has moved", true)
		in.cursorOf(f, lease.Cursor{Offset: 18, Target: 18})
		expect("the copy has come to it", true)
		in.cursorOf(f, lease.Cursor{Offset: 20, Target: 20})
		expect("the copy has gone on without it", false)
		in.commitGroup("A", "app", "orders", 16)
		expect("the group has moved", true)
		in.commitGroup("A", "app", "orders", 16)
		expect("the group has said the same again", false)
		in.cursorOf(f, lease.Cursor{Offset: 20, Target: 20, Epoch: 1})
		expect("another generation of the copy began", true)
		in.commitGroup("B", "app", "A.orders", 3)
		expect("the group has a position on the target, which nobody sets", false)
	})
}

// Where positions are set on the target, what happens to them there counts too.
func TestGroupsTaskIsOfferedWhenTheTargetMoved(t *testing.T) {
	bubble(t, func(in *installation) {
		f := followingGroups(in, true)
		in.cursorOf(f, lease.Cursor{Offset: 20, Target: 20})
		in.commitGroup("A", "app", "orders", 15)
		in.run()
		expect := func(why string, want bool) {
			t.Helper()
			if got := in.groupsTask(f, true); got != want {
				t.Errorf("%s: offered: %v, want %v", why, got, want)
			}
		}
		expect("a group", true)
		expect("nothing", false)
		in.commitGroup("B", "app", "A.orders", 3)
		expect("the group was set back on the target", true)
		expect("nothing", false)
		in.commitGroup("B", "other", "A.orders", 3)
		expect("another group of the target moved", false)
	})
}

// A task that failed waits for its time, and groups that nobody wants to follow cost nothing.
func TestGroupsTaskWaitsAfterAFailure(t *testing.T) {
	bubble(t, func(in *installation) {
		f := followingGroups(in, false)
		in.cursorOf(f, lease.Cursor{Offset: 20, Target: 20})
		in.commitGroup("A", "app", "orders", 15)
		task := lease.Task{Kind: lease.KindGroups, Flow: f.Name(), Partition: -1, Digest: f.Digest()}
		if err := in.Queue.PutState(in.Context(), task, lease.State{Reason: lease.ReasonUnreachable, Next: time.Now().Add(25 * time.Second)}); err != nil {
			t.Fatal(err)
		}
		in.run()
		if in.groupsTask(f, false) {
			t.Error("offered before its time")
		}
		if in.groupsTask(f, false); !in.groupsTask(f, false) {
			t.Error("not offered when its time had come")
		}
	})
}

func TestGroupsThatAreNotFollowedCostNothing(t *testing.T) {
	for _, state := range []spec.State{spec.Paused, spec.Stopped, spec.Absent} {
		bubble(t, func(in *installation) {
			f := followingGroups(in, true)
			in.Options.Spec.Flows[0].Groups.State = state
			in.cursorOf(f, lease.Cursor{Offset: 20, Target: 20})
			in.commitGroup("A", "app", "orders", 15)
			asked := 0
			in.Kafka("A").ControlKey(int16(kmsg.ListGroups), func(kmsg.Request) (kmsg.Response, error, bool) {
				in.Kafka("A").KeepControl()
				asked++
				return nil, nil, false
			})
			in.run()
			if in.groupsTask(f, false) || asked > 0 {
				t.Errorf("%s: the task was offered, or the source asked for groups (%d times)", state, asked)
			}
		})
	}
}

// A source whose groups can't be listed goes on being copied.
func TestGroupsThatCantBeListedStopNoCopy(t *testing.T) {
	bubble(t, func(in *installation) {
		f := followingGroups(in, false)
		in.Kafka("A").ControlKey(int16(kmsg.ListGroups), func(kmsg.Request) (kmsg.Response, error, bool) {
			in.Kafka("A").KeepControl()
			return nil, errors.New("cut"), true
		})
		c := in.run()
		in.groupsTask(f, false)
		time.Sleep(time.Minute)
		report := c.Flows()[0]
		if report.Groups == nil || report.Err != nil || len(report.Plan.Tasks) == 0 {
			t.Errorf("groups: %v; flow: %v; tasks: %v", report.Groups, report.Err, report.Plan.Tasks)
		}
	})
}

// A right that is missing on the target is told once, not at each look.
func TestGroupsThatCantBeReadOnTheTargetAreToldOnce(t *testing.T) {
	bubble(t, func(in *installation) {
		var log bytes.Buffer
		in.Options.Logger = slog.New(slog.NewTextHandler(&log, nil))
		f := followingGroups(in, true)
		in.cursorOf(f, lease.Cursor{Offset: 20, Target: 20})
		in.commitGroup("A", "app", "orders", 15)
		in.run()
		in.groupsTask(f, true)
		in.Kafka("B").Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetFetch}, Err: kerr.GroupAuthorizationFailed, Count: -1})
		for range 5 {
			in.groupsTask(f, true)
		}
		if told := strings.Count(log.String(), "may not look at"); told != 1 {
			t.Errorf("told %d times:\n%s", told, &log)
		}
	})
}

// `status` has one line for each flow whose groups are not brought up to date.
func TestStatusTellsOfGroupsThatFail(t *testing.T) {
	bubble(t, func(in *installation) {
		f := followingGroups(in, false)
		in.cursorOf(f, lease.Cursor{Offset: 20, Target: 20})
		task := lease.Task{Kind: lease.KindGroups, Flow: f.Name(), Partition: -1, Digest: f.Digest()}
		told := func() (lines int) {
			for _, w := range coordinator.Status(in.Context(), in.Options).Flows[0].Warnings {
				if strings.Contains(w, "the consumer groups of A->B are not brought up to date: authorization: no right") {
					lines++
				}
			}
			return lines
		}
		for s, want := range map[*lease.State]int{
			{Done: "seen"}: 0,
			{Reason: lease.ReasonAuthorization, Detail: "no right to set positions", Held: true}: 1,
		} {
			if err := in.Queue.PutState(in.Context(), task, *s); err != nil {
				t.Fatal(err)
			}
			if got := told(); got != want {
				t.Errorf("%+v: %d lines, want %d", s, got, want)
			}
		}
	})
}

// A group that has moved is work, also where no partition is behind: for one worker, until that has seen to it.
func TestGroupsCallForAWorker(t *testing.T) {
	bubble(t, func(in *installation) {
		in.Options.Metrics, in.Options.Spec.Settings = nil, hasty()
		f := followingGroups(in, false)
		in.cursorOf(f, lease.Cursor{Offset: 20, Target: 20})
		c := in.run()
		wanted := func(workers int) {
			in.Helper()
			if s, err := c.Scale(); err != nil || s.Desired != workers || s.BacklogPartitions != 0 {
				in.Errorf("want %d workers: %+v, %v", workers, s, err)
			}
		}
		time.Sleep(time.Minute)
		wanted(0)
		in.commitGroup("A", "readers", "orders", 5)
		time.Sleep(time.Minute)
		wanted(1)
		if !in.groupsTask(f, true) {
			in.Error("no task is offered")
		}
		time.Sleep(time.Minute)
		wanted(0)
	})
}
