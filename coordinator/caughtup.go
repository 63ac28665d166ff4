package coordinator

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

const (
	// examineEvery is how often workers look at a held task again; see holdingStill.
	examineEvery = lease.LongestWait
	// answerWithin bounds how long CaughtUp waits for a cluster or a partition that does not answer, or that fails again and again.
	answerWithin = time.Minute
)

// A Summary says how far the flows have come since CaughtUp began.
type Summary struct {
	Flows []FlowSummary
}

// A FlowSummary is one flow's part of a Summary.
type FlowSummary struct {
	Flow       string
	State      spec.State // that it is to be in
	Partitions int        // that were on the source at the beginning
	CaughtUp   int        // of them, examined up to where the source ended then
	Records    int64      // landed on the target meanwhile
	Lag        int64
	Stopped    []StoppedSummary
	Warnings   []string
	Error      string // why nothing is known of the flow
}

// A StoppedSummary is a partition that does not go on.
type StoppedSummary struct {
	Topic     string // on the source
	Partition int32
	State     State
	Reason    lease.Reason
	Detail    string
}

// Complete says whether every partition of every flow has caught up.
func (s Summary) Complete() bool {
	for _, f := range s.Flows {
		if f.Error != "" || f.CaughtUp < f.Partitions {
			return false
		}
	}
	return true
}

// Table writes the summary for people.
func (s Summary) Table(to io.Writer) error {
	table := newTable(to)
	fmt.Fprintln(table, "FLOW\tPARTITIONS\tCAUGHT UP\tRECORDS\tLAG")
	for _, f := range s.Flows {
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\n", f.Flow, f.Partitions, f.CaughtUp, f.Records, f.Lag)
	}
	for _, f := range s.Flows {
		f.remarks(table)
	}
	return table.Flush()
}

func (f FlowSummary) remarks(to io.Writer) {
	if f.State != "" && f.State != spec.Running {
		fmt.Fprintf(to, "%s is %s\n", f.Flow, f.State)
	}
	if f.Error != "" {
		fmt.Fprintf(to, "%s: %s\n", f.Flow, f.Error)
	}
	for _, p := range f.Stopped {
		fmt.Fprintf(to, "%s %s-%d is %s: %s\n", f.Flow, p.Topic, p.Partition, label(p.State, p.Reason), p.Detail)
	}
	for _, w := range f.Warnings {
		fmt.Fprintf(to, "warning: %s\n", w)
	}
}

// label is a state with its reason, as people read it.
func label(s State, r lease.Reason) string {
	if r == "" {
		return string(s)
	}
	return fmt.Sprintf("%s (%s)", s, r)
}

// CaughtUp notes how far every source reaches in the first pass from now on, and returns when each partition has been examined up
// to there, or stands still, and settings and rights have followed. It only watches: Run must run meanwhile. When ctx ends first, the summary says how far it came.
func (c *Coordinator) CaughtUp(ctx context.Context) (Summary, error) {
	began := time.Now()
	var goals []*goal
	for _, f := range c.flows {
		goals = append(goals, &goal{began: began, after: f.last().Passes})
	}
	for {
		open := 0
		for i, g := range goals {
			if !g.reached(c.flows[i].last(), time.Since(began)) {
				open++
			}
		}
		if open == 0 {
			c.settleGroups(ctx, goals)
			return summarize(goals), nil
		}
		if !sleep(ctx, PassInterval/4) {
			return summarize(goals), context.Cause(ctx)
		}
	}
}

// settleGroups has the consumer groups of all flows go on where the copies are now.
func (c *Coordinator) settleGroups(ctx context.Context, goals []*goal) {
	var all sync.WaitGroup
	for i, g := range goals {
		all.Go(func() {
			if left := c.flows[i].settleGroups(ctx); left != "" {
				g.summary.Warnings = append(slices.Clip(g.summary.Warnings), fmt.Sprintf("the consumer groups of %s are not up to date: %s", g.summary.Flow, left))
			}
		})
	}
	all.Wait()
}

func summarize(goals []*goal) Summary {
	var s Summary
	for _, g := range goals {
		s.Flows = append(s.Flows, g.summary)
	}
	return s
}

// goal is how far a flow has to come.
type goal struct {
	began      time.Time
	after      int64 // passes that had ended when it was set
	partitions map[kafka.TopicPartition]*milestone
	summary    FlowSummary
}

// milestone is how far a partition has to come, and what has landed on the way.
type milestone struct {
	end    int64
	known  bool // false while the source has not said where it ends
	begun  bool // last is valid
	last   lease.Cursor
	landed int64

	since   time.Time // by a worker's clock, when the tries began to fail
	failing time.Time // by this one, when that was seen
}

// reached compares a report with the goal, and says whether there is nothing left to wait for.
func (g *goal) reached(r FlowReport, elapsed time.Duration) bool {
	g.summary = FlowSummary{Flow: r.Flow, State: r.Plan.State, Warnings: r.Warnings}
	if len(r.Gaps) > 0 {
		g.summary.Warnings = append(slices.Clip(r.Warnings), fmt.Sprintf("%s has %s that nobody has acknowledged; see \"kferry gaps\"", r.Flow, plural(len(r.Gaps), "gap")))
	}
	late := elapsed > answerWithin
	if r.Passes > g.after && (g.open(r, late) == 0 && (!r.Unlike || late) || r.Plan.State != spec.Running) {
		return true
	}
	if r.Err == nil {
		return false
	}
	g.summary.Error = r.Err.Error()
	return min(elapsed, time.Since(r.At)) > answerWithin
}

// open counts the partitions that are still to be waited for.
func (g *goal) open(r FlowReport, late bool) (open int) {
	if g.partitions == nil {
		g.set(r.Plan)
	}
	g.summary.Partitions, g.summary.Lag = len(g.partitions), r.Lag()
	now := map[kafka.TopicPartition]Partition{}
	for _, p := range r.Plan.Partitions {
		now[p.Source()] = p
	}
	for tp, m := range g.partitions {
		p, there := now[tp]
		if !there {
			p = Partition{Topic: tp.Topic, Partition: tp.Partition, State: Gone, Detail: "deleted on the source before anything was copied"}
		}
		if !g.settled(p, m, late) {
			open++
		}
	}
	g.summary.sort()
	return open
}

// set takes the partitions of a plan as the goal.
func (g *goal) set(plan Plan) {
	g.partitions = map[kafka.TopicPartition]*milestone{}
	for _, p := range plan.Partitions {
		if p.State != Gone && p.State != Cycle {
			g.partitions[p.Source()] = &milestone{begun: p.Begun, last: p.Cursor}
		}
	}
}

// settled says whether a partition needs no more waiting, and counts it.
func (g *goal) settled(p Partition, m *milestone, late bool) bool {
	if !m.known && p.State != Failed {
		m.end, m.known = p.End, true
	}
	g.summary.Records += m.count(p)
	switch {
	case p.State == Idle, p.State == Cycle, m.passed(p):
		g.summary.CaughtUp++
		return true
	case p.State == Held && g.holdingStill(p, late) && (p.Decision == "" || g.lasts(p, m)), p.State == Failed && late, g.failing(p, m), p.State == Gone:
		g.summary.Stopped = append(g.summary.Stopped, StoppedSummary{p.Topic, p.Partition, p.State, p.Reason, p.Detail})
		return true
	}
	return false
}

// passed says whether a partition that has more to copy is past what there was. One without lag that isn't idle is under suspicion.
func (m *milestone) passed(p Partition) bool {
	return m.known && p.Begun && p.Offset >= m.end && p.Lag > 0 && p.State != Held && !p.Changed
}

// holdingStill says whether a worker has looked at a held partition since the beginning. What an earlier process left behind may be
// repaired by now, so its next look is waited for; not for ever, since clocks may have been set.
func (g *goal) holdingStill(p Partition, late bool) bool {
	return !p.Due && (late || p.Next.IsZero() || p.Next.After(g.began.Add(examineEvery)))
}

// failing says whether a partition has failed, try after try, for so long that no more tries are waited for. One that failed before
// the beginning only may not have been tried since.
func (g *goal) failing(p Partition, m *milestone) bool {
	tried := p.State == Waiting || p.Since.After(g.began)
	return tried && p.State != Held && g.lasts(p, m)
}

// lasts says whether a partition has been in the same trouble for so long, by the clock of who waits, that no more is waited for.
func (g *goal) lasts(p Partition, m *milestone) bool {
	if m.failing.IsZero() || !p.Since.Equal(m.since) {
		m.since, m.failing = p.Since, time.Now()
	}
	return time.Since(m.failing) > answerWithin
}

// count adds up what has landed: by the sequence while a generation goes on, by the target's offsets where another began.
func (m *milestone) count(p Partition) int64 {
	switch {
	case !p.Begun:
		return m.landed
	case !m.begun || m.last.Epoch == p.Cursor.Epoch:
		m.landed += int64(lease.SequenceDistance(m.last.Sequence, p.Cursor.Sequence))
	default:
		m.landed += p.Cursor.Target - m.last.Target
	}
	m.begun, m.last = true, p.Cursor
	return m.landed
}

func (f *FlowSummary) sort() {
	slices.SortFunc(f.Stopped, func(a, b StoppedSummary) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
}
