package coordinator_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

var scaleSettings = spec.Scale{Max: 10, Drain: time.Minute, Rate: mib, Down: 5 * time.Minute, Idle: 2 * time.Minute}

// hasty are settings with shorter windows, for coordinators that really look.
func hasty() spec.Settings {
	s := scaleSettings
	s.Down, s.Idle = 30*time.Second, 20*time.Second
	return spec.Settings{Scale: s, Slots: 1000}
}

// A course is decisions one after another, two seconds apart.
type course struct {
	*testing.T
	coordinator.Circumstances
	coordinator.Decision
	now     time.Time
	changes int
}

func newCourse(t *testing.T) *course {
	c := &course{T: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	c.Circumstances.Scale, c.Slots = scaleSettings, 1000
	return c
}

// behind is a flow's load of so many bytes in partitions.
func behind(partitions int, bytes float64) coordinator.Load {
	return coordinator.Load{Partitions: partitions, AtOnce: partitions, Bytes: bytes, Demand: bytes / scaleSettings.Drain.Seconds(), Record: 1, Counted: 1}
}

// goOn decides for a while on what a function says.
func (c *course) goOn(d time.Duration, load func(at time.Duration) coordinator.Load) {
	for at := time.Duration(0); at < d; at += 2 * time.Second {
		l := load(at)
		c.now = c.now.Add(2 * time.Second)
		l.At = c.now
		c.Depth = lease.Depth{Waiting: l.AtOnce, At: c.now}
		c.Circumstances.Flows = map[string]coordinator.Load{"A->B": l}
		was := c.Desired
		if c.Decision = c.Decide(c.Decision); c.Desired != was {
			c.changes++
		}
	}
}

func (c *course) stay(d time.Duration, l coordinator.Load) {
	c.goOn(d, func(time.Duration) coordinator.Load { return l })
}

func (c *course) want(workers int, reason string) {
	c.Helper()
	if c.Desired != workers || !strings.Contains(c.Reason, reason) {
		c.Errorf("%d workers (%s), want %d (%s)", c.Desired, c.Reason, workers, reason)
	}
}

func TestScaleUpQuicklyAndDownSlowly(t *testing.T) {
	c := newCourse(t)
	c.stay(time.Minute, behind(0, 0))
	c.want(0, "nothing to copy")
	if c.Since != c.now.Add(-58*time.Second) {
		t.Errorf("0 since %s, at %s", c.Since, c.now)
	}
	c.stay(2*time.Second, behind(1, 1))
	c.want(1, "1 B in 1 partition: 1 worker at 1.0 MiB/s")
	c.stay(8*time.Second, behind(100, 180*mib))
	c.want(1, "more than 1 have been wanted since")
	c.stay(6*time.Second, behind(100, 180*mib))
	c.want(3, "180.0 MiB in 100 partitions: 3 workers at 1.0 MiB/s")
	c.stay(time.Minute, behind(100, 6000*mib))
	c.want(10, "100 workers at 1.0 MiB/s; 10 is the most")
	c.stay(4*time.Minute, behind(100, 120*mib))
	c.want(10, "fewer than 10 have been enough since 00:02:18, and are asked for after 5m")
	c.stay(2*time.Minute, behind(100, 60*mib))
	c.want(2, "fewer than 2 have been enough") // the most of that time
	c.stay(time.Minute, behind(0, 0))
	c.want(2, "nothing to copy since")
	c.stay(5*time.Minute, behind(0, 0))
	c.want(0, "nothing to copy")
	c.stay(2*time.Second, behind(100, 180*mib))
	c.want(3, "3 workers") // none is there that could begin
	c.stay(2*time.Hour, behind(0, 0))
	c.want(0, "")
	if c.changes != 7 {
		t.Errorf("%d changes", c.changes)
	}
	c.Min = 4 // coordinators were started with other bounds
	c.stay(2*time.Second, behind(0, 0))
	c.want(4, "")
	c.stay(time.Minute, behind(100, 6000*mib))
	c.Min, c.Max = 0, 6
	c.stay(2*time.Second, behind(100, 6000*mib))
	c.want(6, "6 is the most")
}

// What comes and goes within the windows moves nothing, wherever it lies.
func TestScaleDoesNotFlap(t *testing.T) {
	for _, period := range []time.Duration{4 * time.Second, 20 * time.Second, time.Minute, 4 * time.Minute} {
		c := newCourse(t)
		c.stay(10*time.Minute, behind(100, 300*mib))
		c.changes = 0
		c.goOn(6*time.Hour, func(at time.Duration) coordinator.Load {
			if at%period < period/2 {
				return behind(100, 290*mib)
			}
			return behind(100, 70*mib)
		})
		if c.want(5, ""); c.changes != 0 {
			t.Errorf("%d changes at a period of %s", c.changes, period)
		}
		c = newCourse(t) // and around nothing
		c.goOn(6*time.Hour, func(at time.Duration) coordinator.Load {
			return behind(int(max(0, 1-at%period/(period/2))), 1)
		})
		if period/2 <= scaleSettings.Idle-2*time.Second && c.changes != 1 {
			t.Errorf("%d changes where work comes and goes every %s", c.changes, period)
		}
	}
}

func TestScaleBounds(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*course)
		load   coordinator.Load
		want   int
		reason string
	}{
		"partitions":            {load: behind(2, 6000*mib), want: 2, reason: "of whom 2 have one to copy"},
		"what may run at once":  {load: coordinator.Load{Partitions: 100, AtOnce: 3, Bytes: 6000 * mib, Demand: 100 * mib}, want: 3},
		"the flow's rate limit": {load: coordinator.Load{Partitions: 100, AtOnce: 100, Bytes: 6000 * mib, Demand: 100 * mib, Limit: 2 * mib}, want: 2},
		"turns":                 {load: behind(5000, 1), change: func(c *course) { c.Slots = 100 }, want: 5, reason: "5 for all partitions to have their turn"},
		"the least":             {load: behind(0, 0), change: func(c *course) { c.Min = 2 }, want: 2, reason: "nothing to copy"},
		"the least at work":     {load: behind(1, 1), change: func(c *course) { c.Min = 2 }, want: 2, reason: "2 is the least"},
		"what is measured":      {load: behind(100, 600*mib), change: func(c *course) { c.Tempo.Rate = 5 * mib }, want: 2, reason: "2 workers at 5.0 MiB/s"},
		"something else to do":  {load: coordinator.Load{Other: true}, want: 1},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCourse(t)
			if test.change != nil {
				test.change(c)
			}
			c.stay(time.Minute, test.load)
			c.want(test.want, test.reason)
		})
	}
}

// What comes is copied as it comes, and not only once it has become a backlog.
func TestScaleSeesWhatComes(t *testing.T) {
	c := newCourse(t)
	c.goOn(5*time.Minute, func(at time.Duration) coordinator.Load {
		l := behind(50, mib)
		l.End = int64(at.Seconds() * 2.5 * mib)
		return l
	})
	c.want(3, "and 2.5 MiB/s that come")
	c.goOn(time.Minute, func(at time.Duration) coordinator.Load { // another set of partitions says nothing of what came
		l := behind(50, mib)
		l.End, l.Counted = int64(at.Seconds())*1000*mib, int(at.Seconds())
		return l
	})
	c.want(3, "")
}

// Of two coordinators one looks at a source some seconds late. What comes is no more for that.
func TestScaleWithALateCoordinator(t *testing.T) {
	c := newCourse(t)
	sum, n := int64(0), int64(0)
	c.goOn(10*time.Minute, func(at time.Duration) coordinator.Load {
		if sum, n = sum+c.Arrival, n+1; at < time.Minute {
			sum, n, c.changes = 0, 0, 0
		}
		seen := at + time.Minute
		if at/(2*time.Second)%2 == 1 {
			seen -= 6 * time.Second
		}
		l := behind(50, mib)
		l.End = int64(seen.Seconds() * 2.5 * mib)
		return l
	})
	if mean := float64(sum) / float64(n) / mib; mean < 2 || mean > 3 {
		t.Errorf("%.1f MiB/s come in the mean, and 2.5 do", mean)
	}
	if c.changes > 0 {
		t.Errorf("%d changes", c.changes)
	}
}

// A flow that this coordinator can't look at counts as another one saw it, for a minute.
func TestScaleKnowsFlowsFromOthers(t *testing.T) {
	c := newCourse(t)
	c.stay(time.Minute, behind(100, 240*mib))
	c.want(4, "")
	for second := range 90 {
		c.now = c.now.Add(time.Second)
		c.Depth = lease.Depth{At: c.now}
		c.Circumstances.Flows = map[string]coordinator.Load{"C->B": {At: c.now, Record: 1}}
		c.Decision = c.Decide(c.Decision)
		if known := c.BacklogPartitions == 100; known != (second < 59) {
			t.Fatalf("after %d s: %+v", second, c.Decision.Scale)
		}
	}
}

// A source is away for the coordinators, and workers may still copy what was offered: as many as there are stay, and none is started for it.
func TestScaleKeepsWorkersForWhatNobodySees(t *testing.T) {
	c := newCourse(t)
	c.stay(time.Minute, behind(100, 240*mib))
	c.want(4, "")
	c.Unseen = 3 // of another flow
	c.stay(time.Hour, behind(0, 0))
	c.want(4, "no fewer than before, with 3 tasks on the queue of flows that can't be looked at")
	c.stay(time.Minute, behind(100, 360*mib))
	c.want(6, "6 workers at 1.0 MiB/s")
	c.Unseen = 0 // they were given back
	c.stay(10*time.Minute, behind(0, 0))
	c.want(0, "nothing to copy")
	c.Unseen = 3
	c.stay(time.Minute, behind(0, 0))
	c.want(0, "nothing to copy")
}

// A coordinator was frozen for ten minutes. It says once more what it saw before, of a time when there was much less on the source.
func TestScaleWithAFrozenCoordinator(t *testing.T) {
	c := newCourse(t)
	at := func(at time.Duration) coordinator.Load {
		l := behind(50, mib)
		l.End = int64(at.Seconds() * 2.5 * mib)
		return l
	}
	c.goOn(20*time.Minute, at)
	c.changes = 0
	c.goOn(2*time.Second, func(time.Duration) coordinator.Load { return at(10 * time.Minute) })
	c.goOn(10*time.Minute, func(on time.Duration) coordinator.Load { return at(20*time.Minute + 2*time.Second + on) })
	if c.want(3, "and 2.5 MiB/s that come"); c.changes != 0 {
		t.Errorf("%d changes", c.changes)
	}
	c.goOn(10*time.Minute, at) // the topic was created again, and what comes is counted from its beginning
	c.want(3, "and 2.5 MiB/s that come")
}

// What stands in KV, whoever wrote it, is never more than a decision that is a little off for a while.
func TestScaleAfterAnyDecision(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, last := range map[string]coordinator.Decision{
		"too many":           {Scale: coordinator.Scale{Desired: 1 << 40, DecidedAt: now}},
		"fewer than none":    {Scale: coordinator.Scale{Desired: -7, DecidedAt: now}},
		"work in the future": {Scale: coordinator.Scale{Desired: 3, DecidedAt: now}, Busy: now.AddDate(100, 0, 0)},
		"fewer, and more, in the future": {Scale: coordinator.Scale{Desired: 3, DecidedAt: now},
			Fewer: coordinator.Stretch{Since: now.AddDate(100, 0, 0), Workers: 1 << 40}, More: coordinator.Stretch{Since: now.AddDate(100, 0, 0), Workers: -1}},
		"decided in the future": {Scale: coordinator.Scale{Desired: 3, DecidedAt: now.AddDate(100, 0, 0)}},
		"an endless flow":       {Scale: coordinator.Scale{Desired: 3, DecidedAt: now}, Flows: map[string]coordinator.Load{"X->Y": {At: now, Partitions: 1 << 40, AtOnce: 1 << 40, Bytes: 1e300, Demand: 1e300}}},
		"less than no flow":     {Scale: coordinator.Scale{Desired: 3, DecidedAt: now}, Flows: map[string]coordinator.Load{"X->Y": {At: now, Partitions: -1 << 40, Bytes: -1e300, Demand: -1e300, Arrival: -1e300}}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCourse(t)
			c.now, c.Decision = now, last
			c.stay(15*time.Minute, behind(0, 0))
			c.want(0, "nothing to copy")
			c = newCourse(t)
			c.now, c.Decision = now, last
			for range 150 {
				if c.stay(2*time.Second, behind(100, 240*mib)); c.Desired < 0 || c.Desired > scaleSettings.Max {
					t.Fatalf("%d workers", c.Desired)
				}
			}
			c.stay(7*time.Minute, behind(100, 120*mib))
			c.want(2, "")
			c.Tempo.Rate = 1e-300
			c.stay(time.Minute, behind(100, 120*mib))
			c.want(10, "10 is the most")
			c.Tempo.Rate = -1
			c.stay(15*time.Minute, behind(0, 0))
			c.want(0, "nothing to copy")
		})
	}
}

// The clock of the queue was set back by a day: windows begin anew, and the number stays.
func TestScaleWithAClockThatWasSet(t *testing.T) {
	for name, test := range map[string]struct {
		load coordinator.Load
		want int
	}{"fewer": {behind(100, 60*mib), 1}, "more": {behind(100, 360*mib), 6}, "none": {behind(0, 0), 0}} {
		t.Run(name, func(t *testing.T) {
			c := newCourse(t)
			c.stay(time.Minute, behind(100, 240*mib))
			c.stay(8*time.Second, test.load) // a window has begun
			c.want(4, "")
			c.now = c.now.Add(-24 * time.Hour)
			c.stay(8*time.Second, test.load)
			c.want(4, "")
			c.stay(6*time.Minute, test.load)
			c.want(test.want, "")
		})
	}
}

// Two coordinators say the same at any time, also when one has just begun, and go on where the last decision was when all were away.
func TestCoordinatorsAgreeOnTheScale(t *testing.T) {
	bubble(t, func(in *installation) {
		in.Options.Metrics, in.Options.Spec.Settings = nil, hasty()
		in.create("A", "orders", 8, 0)
		in.create("B", "A.orders", 8, 0)
		first := in.run()
		time.Sleep(700 * time.Millisecond)
		second := in.run()
		agree := func(desired int) (last coordinator.Scale) {
			in.Helper()
			for range 20 {
				time.Sleep(300 * time.Millisecond)
				synctest.Wait()
				a, errA := first.Scale()
				b, errB := second.Scale()
				if errA != nil || errB != nil {
					continue
				}
				if gap := a.DecidedAt.Sub(b.DecidedAt).Abs(); a.Desired != b.Desired && gap == 0 || gap > 20*time.Second {
					in.Fatalf("two coordinators say\n%+v\n%+v", a, b)
				}
				last = a
			}
			if b, _ := second.Scale(); last.Desired != desired || b.Desired != desired {
				in.Fatalf("want %d: %+v", desired, last)
			}
			return last
		}
		agree(0)
		decisions := map[time.Time]bool{}
		for range 60 {
			time.Sleep(time.Second)
			s, err := first.Scale()
			if decisions[s.DecidedAt] = true; err != nil || time.Since(s.DecidedAt) > 20*time.Second {
				in.Fatalf("at rest: %+v, %v", s, err)
			}
		}
		if len(decisions) > 6 {
			in.Errorf("%d decisions in a minute at rest", len(decisions))
		}
		in.write("A", "orders", 3)
		s := agree(1)
		if s.BacklogPartitions != 1 || s.BacklogBytes != 3<<10 || s.RateMeasured || s.Rate != mib || s.Waiting+s.InFlight != 1 {
			in.Errorf("%+v", s)
		}
		var text bytes.Buffer
		if err := coordinator.Status(in.Context(), in.Options).Table(&text); err != nil || !strings.Contains(text.String(), "\n1 worker is wanted since 2000-01-01T") ||
			!strings.Contains(text.String(), ": 3.0 KiB in 1 partition") {
			in.Errorf("%v\n%s", err, &text)
		}
		if err := in.Queue.CountStint(in.Context(), lease.Stint{Rate: 9 * mib, Full: true, Flows: map[string]lease.Copied{"A->B": {Records: 1, Bytes: 100}}}); err != nil {
			in.Fatal(err)
		}
		if s := agree(1); s.BacklogBytes != 300 || !s.RateMeasured || s.Rate != 9*mib {
			in.Errorf("measured: %+v", s)
		}
		in.commit(in.Options.Spec.Flows[0], "orders", 0, 3)
		in.release(in.claim(time.Second)...)
		agree(1)
		time.Sleep(40 * time.Second)
		agree(0)
	})
}

// Nothing but heartbeats comes. They are copied while a worker is there, and call for none: the queue is empty at rest.
func TestHeartbeatsCallForNoWorker(t *testing.T) {
	bubble(t, func(in *installation) {
		in.Options.Spec.Settings = hasty()
		in.Options.Spec.Flows[0].Heartbeats = true
		in.Options.Spec.Heartbeats = []spec.Heartbeat{{Source: "X", Target: "A", Interval: time.Second, ReplicationFactor: -1}}
		in.create("A", mm2.HeartbeatsTopic, 1, 0)
		in.create("B", "A.heartbeats", 1, 0)
		c := in.run()
		attend := func(d time.Duration) (runs int) {
			for end := time.Now().Add(d); time.Now().Before(end); {
				for _, l := range in.claim(time.Second) {
					in.commitHeartbeats()
					in.release(l)
					runs++
				}
				if s, err := c.Scale(); err == nil && s.Desired != 0 {
					in.Fatalf("while a worker is there: %+v", s)
				}
			}
			return runs
		}
		if runs := attend(2 * time.Minute); runs < 4 {
			in.Errorf("%d runs while a worker is there", runs)
		}
		for range 60 {
			time.Sleep(time.Second)
			depth, err := in.Queue.Depth(in.Context())
			if err != nil || depth.Waiting+depth.Held > 0 {
				in.Fatalf("at rest: %+v, %v", depth, err)
			}
		}
		if s, err := c.Scale(); err != nil || s.Desired != 0 {
			in.Errorf("%+v, %v", s, err)
		}
		if runs := attend(40 * time.Second); runs < 1 {
			in.Errorf("%d runs when a worker has come back", runs)
		}
		in.metric("# HELP kferry_desired_workers Workers that are wanted, as GET /scale says.\n# TYPE kferry_desired_workers gauge\nkferry_desired_workers 0")
	})
}

// What waits for a person is no work. What is tried again by itself keeps one worker, however much is behind it.
func TestHeldPartitionsDoNotScale(t *testing.T) {
	bubble(t, func(in *installation) {
		in.Options.Metrics, in.Options.Spec.Settings = nil, hasty()
		in.create("A", "orders", 2, 500)
		in.create("B", "A.orders", 2, 0)
		flow := in.Options.Spec.Flows[0]
		cursors := in.Queue.Cursors(flow, in.Clusters["B"])
		c := in.run()
		run := in.expect(5*time.Second, "mirror A->B orders-0")
		hold := func(reason lease.Reason) {
			in.Helper()
			task := lease.Task{Kind: lease.KindMirror, Flow: "A->B", Topic: "orders"}
			if err := in.Queue.PutState(in.Context(), task, lease.State{Reason: reason, Held: true, Since: time.Now(), Next: time.Now().Add(lease.LongestWait)}); err != nil {
				in.Fatal(err)
			}
		}
		hold(lease.ReasonAuthorization)
		in.release(run...)
		time.Sleep(20 * time.Second)
		if s, err := c.Scale(); err != nil || s.Desired != 1 || s.BacklogBytes != 0 || s.BacklogPartitions != 0 {
			in.Errorf("held until a right is given: %+v, %v", s, err)
		}
		_, err := cursors.Create(in.Context(), "orders", 0, lease.Cursor{Offset: 1, Target: 1, Sequence: 1, Hold: lease.Hold{Reason: lease.ReasonForeignWriter, Since: time.Now()}})
		if err != nil {
			in.Fatal(err)
		}
		in.release(in.claim(time.Second)...)
		time.Sleep(time.Minute)
		if s, err := c.Scale(); err != nil || s.Desired != 0 {
			in.Errorf("held until a person decides: %+v, %v", s, err)
		}
	})
}

// A flow is paused with work in it and a partition that was tried again by itself: none of that is work.
func TestPausedFlowsDoNotScale(t *testing.T) {
	bubble(t, func(in *installation) {
		in.Options.Metrics, in.Options.Spec.Settings = nil, hasty()
		in.create("A", "orders", 2, 500)
		in.writeTo("A", "orders", 1)
		in.create("B", "A.orders", 2, 0)
		flow := in.Options.Spec.Flows[0]
		cursors := in.Queue.Cursors(flow, in.Clusters["B"])
		c := in.run()
		runs := in.expect(5*time.Second, "mirror A->B orders-0", "mirror A->B orders-1")
		task := lease.Task{Kind: lease.KindMirror, Flow: "A->B", Topic: "orders"}
		refused := lease.State{Reason: lease.ReasonAuthorization, Held: true, Since: time.Now(), Next: time.Now().Add(lease.LongestWait)}
		if err := in.Queue.PutState(in.Context(), task, refused); err != nil {
			in.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		if s, err := c.Scale(); err != nil || s.Desired != 1 || s.BacklogPartitions != 1 {
			in.Errorf("before: %+v, %v", s, err)
		}
		if err := cursors.SetPaused(in.Context(), true); err != nil {
			in.Fatal(err)
		}
		in.release(runs...)
		time.Sleep(time.Minute)
		if s, err := c.Scale(); err != nil || s.Desired != 0 || s.BacklogPartitions != 0 || s.BacklogBytes != 0 {
			in.Errorf("paused: %+v, %v", s, err)
		}
		if err := cursors.SetPaused(in.Context(), false); err != nil {
			in.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		if s, err := c.Scale(); err != nil || s.Desired != 1 || s.BacklogPartitions != 1 {
			in.Errorf("after: %+v, %v", s, err)
		}
	})
}

// The source of one of two flows is away for the coordinator while a worker holds a lease of it.
func TestWorkerOfASourceThatIsAwayStays(t *testing.T) {
	bubble(t, func(in *installation) {
		in.Options.Metrics, in.Options.Spec.Settings = nil, hasty()
		in.create("A", "orders", 1, 3)
		in.create("B", "A.orders", 1, 0)
		line := in.Line()
		in.connectThrough(in.Env.Spec("A"), line.Dial)
		c := in.run()
		run := in.expect(5*time.Second, "mirror A->B orders-0")
		line.Cut()
		for range 300 {
			time.Sleep(time.Second)
			if err := in.Queue.Extend(in.Context(), run...); err != nil {
				in.Fatal(err)
			}
		}
		if s, err := c.Scale(); err != nil || s.Desired != 1 || !strings.Contains(s.Reason, "1 task on the queue of flows that can't be looked at") {
			in.Errorf("while it copies: %+v, %v", s, err)
		}
		in.release(run...)
		time.Sleep(time.Minute)
		if s, err := c.Scale(); err != nil || s.Desired != 0 {
			in.Errorf("when it has ended: %+v, %v", s, err)
		}
	})
}

// Something in KV is no decision, or that of a newer kferry: it is written over, or taken for what it says.
func TestForeignDecisions(t *testing.T) {
	for name, test := range map[string]struct {
		slate string
		value any
		want  int
	}{
		"no decision":     {lease.SlateScale, "rubbish", 0},
		"half a decision": {lease.SlateScale, map[string]any{"desired_workers": 7, "busy": "2000-01-01T00:00:00Z", "decided_at": "yesterday"}, 0},
		"of a newer one":  {lease.SlateScale, map[string]any{"desired_workers": 7, "since": "2000-01-01T00:00:00Z", "busy": "2000-01-01T00:00:00Z", "decided_at": "2000-01-01T00:00:00Z", "regions": []int{1}}, 7},
		"no tempo":        {lease.SlateTempo, []int{1}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(in *installation) {
				in.Options.Metrics, in.Options.Spec.Settings = nil, hasty()
				if _, err := in.Queue.Slate(test.slate).Write(in.Context(), test.value, 0); err != nil {
					in.Fatal(err)
				}
				c := in.run()
				time.Sleep(10 * time.Second)
				if s, err := c.Scale(); err != nil || s.Desired != test.want {
					in.Errorf("at first: %+v, %v", s, err)
				}
				time.Sleep(time.Minute)
				if s, err := c.Scale(); err != nil || s.Desired != 0 {
					in.Errorf("in the end: %+v, %v", s, err)
				}
			})
		})
	}
}

// A flow that is held to a rate, by configuration or while it runs, is not faster with more workers.
func TestLimitsBoundTheScale(t *testing.T) {
	bubble(t, func(in *installation) {
		in.Options.Metrics, in.Options.Spec.Settings = nil, hasty()
		in.Options.Spec.Settings.Scale.Rate, in.Options.Spec.Settings.Scale.Drain = 64*1024, 10*time.Second
		flow := &in.Options.Spec.Flows[0]
		flow.Limits.ByBytes = []spec.TopicLimit{{Topics: must(spec.ParsePatterns("orders-slow")), PerSecond: 2 * 64 * 1024}}
		for topic, n := range map[string]int{"orders-slow": 3000, "orders": 1} {
			in.create("A", topic, 8, n)
			in.create("B", "A."+topic, 8, 0)
			for p := range int32(7) {
				in.writeTo("A", topic, p+1)
			}
		}
		c := in.run()
		want := func(workers int) {
			in.Helper()
			time.Sleep(20 * time.Second)
			if s, err := c.Scale(); err != nil || s.Desired != workers {
				in.Errorf("want %d workers: %+v, %v", workers, s, err)
			}
		}
		want(3) // two for the slow topic, and one more, since the rest is a little more than nothing
		limit := int64(1)
		if err := in.Queue.Cursors(*flow, in.Clusters["B"]).SetLimit(in.Context(), "", lease.Limit{Bytes: &limit}); err != nil {
			in.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		want(1)
	})
}

// While the queue doesn't answer the last decision holds for half a minute, and then nobody knows.
func TestScaleWithoutAQueue(t *testing.T) {
	bubble(t, func(in *installation) {
		in.Options.Metrics, in.Options.Spec.Settings = nil, spec.Settings{Scale: scaleSettings, Slots: 1000}
		c := coordinator.New(in.Options)
		if _, err := c.Scale(); err == nil {
			in.Error("known before anybody has looked")
		}
		c = in.run()
		time.Sleep(20 * time.Second)
		in.NATS.Stop()
		time.Sleep(20 * time.Second)
		if _, err := c.Scale(); err != nil {
			in.Error(err)
		}
		time.Sleep(20 * time.Second)
		if s, err := c.Scale(); err == nil || !strings.Contains(err.Error(), "queue is unreachable") {
			in.Errorf("%+v, %v", s, err)
		}
		if err := in.NATS.Start(); err != nil {
			in.Fatal(err)
		}
		time.Sleep(time.Minute)
		if _, err := c.Scale(); err != nil {
			in.Error(err)
		}
	})
}

// Programs read these names.
func TestFieldsOfScale(t *testing.T) {
	text, err := json.Marshal(coordinator.Scale{})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"desired_workers":0,"reason":"","backlog_bytes":0,"backlog_partitions":0,"backlog_bytes_per_worker":0,"waiting":0,"in_flight":0,` +
		`"rate":0,"rate_measured":false,"arrival":0,"since":"0001-01-01T00:00:00Z","decided_at":"0001-01-01T00:00:00Z"}`
	if string(text) != want {
		t.Errorf("got %s\nwant %s", text, want)
	}
}

// What CloudWatch reads as metrics has to be as its embedded metric format says: a log event is passed over otherwise, in silence.
func TestEMF(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 1, 5e6, time.UTC)
	line := coordinator.Scale{Desired: 3, BacklogBytes: 1 << 40, BacklogPartitions: 7, BacklogPerWorker: 1 << 38, Reason: "so", DecidedAt: at}.EMF("blue")
	if !slices.Equal(line[len(line)-1:], []byte("\n")) || slices.Index(line, '\n') != len(line)-1 {
		t.Errorf("not one line: %q", line)
	}
	var root map[string]any
	if err := json.Unmarshal(line, &root); err != nil {
		t.Fatal(err)
	}
	meta := root["_aws"].(map[string]any)
	if meta["Timestamp"] != float64(at.UnixMilli()) {
		t.Errorf("Timestamp is %v", meta["Timestamp"])
	}
	directives := meta["CloudWatchMetrics"].([]any)
	if len(directives) != 1 {
		t.Fatalf("%d directives", len(directives))
	}
	d := directives[0].(map[string]any)
	if space := d["Namespace"].(string); space != "kferry" || len(space) > 1024 {
		t.Errorf("Namespace is %q", space)
	}
	for _, set := range d["Dimensions"].([]any) {
		for _, name := range set.([]any) {
			if value, is := root[name.(string)].(string); !is || value == "" || len(value) > 1024 { // targets of dimensions are texts
				t.Errorf("dimension %v is %v", name, root[name.(string)])
			}
		}
	}
	want := map[string]string{"DesiredWorkers": "Count 3", "BacklogBytes": "Bytes 1.099511627776e+12", "BacklogPartitions": "Count 7", "BacklogPerWorker": "Bytes 2.74877906944e+11"}
	metrics := d["Metrics"].([]any)
	if len(metrics) != len(want) || len(metrics) > 100 {
		t.Errorf("metrics: %v", metrics)
	}
	for _, m := range metrics {
		m := m.(map[string]any)
		value, is := root[m["Name"].(string)].(float64) // targets of metrics are numbers
		if got := fmt.Sprint(m["Unit"], " ", value); !is || want[m["Name"].(string)] != got {
			t.Errorf("%v is %s", m["Name"], got)
		}
	}
}
