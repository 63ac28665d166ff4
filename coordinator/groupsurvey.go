package coordinator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/kferry/kferry/shared/groups"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// A GroupsSurvey is what `kferry groups` shows of one flow.
type GroupsSurvey struct {
	Flow   string `json:"flow"`
	Source string `json:"source"`
	Target string `json:"target"`
	// State is what the input wants of the flow's groups: running, paused, stopped or absent.
	State       spec.State      `json:"state"`
	Checkpoints bool            `json:"checkpoints"` // are written
	Sync        bool            `json:"sync"`        // positions are set on the target, for groups that nobody uses there
	Error       string          `json:"error,omitempty"`
	Failing     string          `json:"failing,omitempty"` // why the last run failed that should have brought the target up to date
	Positions   []GroupPosition `json:"positions"`
}

// A GroupPosition is where one group stands in one partition. Where the group is left out as a whole it has no topic.
type GroupPosition struct {
	Group       string        `json:"group"`
	SourceTopic string        `json:"source_topic,omitempty"`
	TargetTopic string        `json:"target_topic,omitempty"`
	Partition   *int32        `json:"partition"`
	Position    *int64        `json:"source_position"`
	Lag         *int64        `json:"source_lag"`          // offsets that the group has still to read; null where the source doesn't say
	Translated  *int64        `json:"translated_position"` // on the target; null where there is none
	Exact       bool          `json:"exact"`               // nothing is read again, and nothing left out
	Own         *int64        `json:"target_position"`     // that the group has on the target; null where it has none
	Reason      groups.Reason `json:"reason,omitempty"`
}

// Groups looks at a flow's consumer groups, by reads alone. o.Queue may be nil.
func Groups(ctx context.Context, o Options, f spec.Flow) GroupsSurvey {
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	s := GroupsSurvey{
		Flow: f.Name(), Source: f.Source, Target: f.Target, State: f.Groups.State,
		Checkpoints: f.Groups.Checkpoints, Sync: f.Groups.Sync, Positions: []GroupPosition{},
	}
	if states, err := queueStates(ctx, o.Queue); err == nil {
		s.Failing = groupsFailing(f, states)
	}
	if err := s.look(ctx, o, f); err != nil {
		s.Error = err.Error()
	}
	return s
}

// groupsFailing is why the last groups task of a flow failed; "" where it didn't.
func groupsFailing(f spec.Flow, states map[lease.Task]lease.State) string {
	s := states[lease.Task{Kind: lease.KindGroups, Flow: f.Name(), Partition: -1}]
	if s.Reason == "" {
		return ""
	}
	return fmt.Sprintf("%s: %s", s.Reason, s.Detail)
}

func (s *GroupsSurvey) look(ctx context.Context, o Options, f spec.Flow) error {
	p := pair{flow: f, source: o.Clusters[f.SourceKey()], target: o.Clusters[f.TargetKey()], ids: &clusterIDs{clusters: o.Clusters}}
	found, err := p.discover(ctx)
	if err != nil {
		return err
	}
	seen, err := groups.Look(ctx, f, p.source)
	if err != nil {
		return err
	}
	copies, err := p.copiesOf(ctx, o.Queue, found)
	if err != nil {
		return err
	}
	if back, ok := o.Spec.Flow(spec.FlowName(f.Target, f.Source)); ok {
		opposite := pair{flow: back, source: p.target, target: p.source, ids: p.ids}
		if copies.Back, err = opposite.copiesOf(ctx, o.Queue, topics{target: map[string]kafka.Topic{}}); err != nil {
			return err
		}
	}
	positions := copies.Positions(seen)
	copies.Translate(positions)
	copies.Disown(positions, found.target)
	standing, err := groups.LookTarget(ctx, p.target, groups.Names(positions))
	if err != nil {
		return err
	}
	for i := range positions {
		at := &positions[i]
		if int(at.Target.Partition) >= len(found.target[at.Target.Topic].Partitions) {
			at.To, at.Exact, at.Reason = -1, false, groups.TargetMissing
		} else if why := standing.Why(*at); f.Groups.Sync && at.To >= 0 && why != "" {
			at.Reason = why
		}
	}
	if err := p.showActive(ctx, standing, positions); err != nil {
		return err
	}
	positions = append(positions, copies.Left(seen)...)
	s.fill(positions, standing, p.source.OffsetsNow(ctx, partitionsOf(positions), kafka.Latest, f.Isolation))
	return nil
}

// showActive adds the target's positions of groups that are in use there, which decide nothing.
func (p pair) showActive(ctx context.Context, standing groups.Standing, positions []groups.Position) error {
	active := slices.DeleteFunc(groups.Names(positions), func(name string) bool {
		_, known := standing.Offsets[name]
		return known
	})
	more, err := p.target.GroupOffsets(ctx, active)
	maps.Copy(standing.Offsets, more)
	return err
}

// copiesOf is how far the copies of a flow are, and the map that belongs to them.
func (p pair) copiesOf(ctx context.Context, queue *lease.Queue, found topics) (*groups.Copies, error) {
	known, err := p.remember(ctx, queue, found)
	if err != nil && !errors.Is(err, kafka.ErrUnknownTopic) {
		return nil, err
	}
	c := groups.Open(p.flow, p.target)
	c.Cursors = known.Cursors
	return c, c.Map.Refresh(ctx)
}

func partitionsOf(positions []groups.Position) []kafka.TopicPartition {
	var tps []kafka.TopicPartition
	known := map[kafka.TopicPartition]bool{}
	for _, p := range positions {
		if p.Source.Topic != "" && !known[p.Source] {
			known[p.Source] = true
			tps = append(tps, p.Source)
		}
	}
	return tps
}

// fill writes the positions down, by group, topic and partition.
func (s *GroupsSurvey) fill(positions []groups.Position, standing groups.Standing, ends map[kafka.TopicPartition]kafka.Offset) {
	for _, p := range positions {
		at := GroupPosition{Group: p.Group, SourceTopic: p.Source.Topic, TargetTopic: p.Target.Topic, Exact: p.Exact, Reason: p.Reason}
		if p.Source.Topic != "" {
			at.Partition, at.Position = &p.Source.Partition, &p.Commit.Offset
			if end, ok := ends[p.Source]; ok && end.Err == nil {
				lag := max(0, end.Offset-p.Commit.Offset)
				at.Lag = &lag
			}
		}
		if p.To >= 0 {
			at.Translated = &p.To
		}
		if own, has := standing.Offsets[p.Group].Commits[p.Target]; has {
			at.Own = &own.Offset
		}
		s.Positions = append(s.Positions, at)
	}
	slices.SortFunc(s.Positions, func(a, b GroupPosition) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.SourceTopic, b.SourceTopic), cmp.Compare(a.number(), b.number()))
	})
}

func (p GroupPosition) number() int32 {
	if p.Partition == nil {
		return -1
	}
	return *p.Partition
}

// Table writes the survey for people: a line for each position, and what the reasons mean.
func (s GroupsSurvey) Table(to io.Writer) error {
	table := newTable(to)
	fmt.Fprintln(table, "FLOW\tGROUP\tSOURCE TOPIC\tTARGET TOPIC\tPARTITION\tSOURCE POSITION\tLAG\tTRANSLATED\tEXACT\tTARGET POSITION\tREASON")
	var met []groups.Reason
	for _, p := range s.Positions {
		partition, exact := "-", "-"
		if p.Partition != nil {
			partition = fmt.Sprint(*p.Partition)
		}
		if p.Translated != nil {
			if exact = "no"; p.Exact {
				exact = "yes"
			}
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Flow, p.Group, orDash(p.SourceTopic), orDash(p.TargetTopic), partition,
			number(p.Position), number(p.Lag), number(p.Translated), exact, number(p.Own), orDash(string(p.Reason)))
		if p.Reason != "" && !slices.Contains(met, p.Reason) {
			met = append(met, p.Reason)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	s.remarks(to, met)
	return nil
}

// remarks tell what the table has no room for.
func (s GroupsSurvey) remarks(to io.Writer, met []groups.Reason) {
	if s.Error != "" {
		fmt.Fprintf(to, "\n%s can't be looked at: %s\n", s.Flow, s.Error)
	}
	if s.Failing != "" {
		fmt.Fprintf(to, "\nThe last run failed and is tried again: %s\n", s.Failing)
	}
	switch {
	case s.State != spec.Running:
		fmt.Fprintf(to, "\nNothing is written: the groups of %s are %s.\n", s.Flow, s.State)
	case !s.Checkpoints && !s.Sync:
		fmt.Fprintf(to, "\nNothing is written: the input switches checkpoints off, and doesn't ask for positions to be set.\n")
	case !s.Sync:
		fmt.Fprintf(to, "\nPositions are written as checkpoints alone. Nobody sets those on %s: sync.group.offsets.enabled is not true.\n", s.Target)
	}
	if len(met) == 0 {
		return
	}
	fmt.Fprintln(to)
	table := newTable(to)
	slices.Sort(met)
	for _, r := range met {
		fmt.Fprintf(table, "%s\t%s\n", r, r.Text())
	}
	_ = table.Flush() // as good as the lines before it
}
