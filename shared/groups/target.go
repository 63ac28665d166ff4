package groups

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/kferry/kferry/shared/kafka"
)

// Standing is what a target tells of the groups that may go on there.
type Standing struct {
	// States have the groups that are there. One that isn't is new.
	States map[string]kafka.GroupState
	// Offsets are the positions of those that nobody uses, the new ones included.
	Offsets map[string]kafka.GroupOffsets
}

// LookTarget asks for groups by name. It is whole, or an error.
func LookTarget(ctx context.Context, target *kafka.Cluster, names []string) (Standing, error) {
	s := Standing{States: map[string]kafka.GroupState{}}
	asked := make(map[string]bool, len(names))
	for _, name := range names {
		asked[name] = true
	}
	listed, err := target.Groups(ctx)
	if err != nil {
		return Standing{}, fmt.Errorf("target: %w", err)
	}
	for _, g := range listed {
		if asked[g.Name] {
			s.States[g.Name] = g.State
		}
	}
	var idle []string
	for _, name := range names {
		if s.idle(name) {
			idle = append(idle, name)
		}
	}
	if s.Offsets, err = target.GroupOffsets(ctx, idle); err != nil {
		return Standing{}, fmt.Errorf("target: %w", err)
	}
	return s, nil
}

// Err is why some groups could not be read. Nothing is written for them.
func (s Standing) Err() error {
	for _, name := range slices.Sorted(maps.Keys(s.Offsets)) { // so that the error stays the same
		if err := s.Offsets[name].Err; err != nil {
			return fmt.Errorf("target: %w", err)
		}
	}
	return nil
}

// idle says that nobody uses a group on the target. Brokers that are too old to list states are asked for them before anything is written.
func (s Standing) idle(group string) bool {
	state, there := s.States[group]
	return !there || state == kafka.GroupEmpty || state == kafka.GroupDead || state == ""
}

// Why says why a position is not, or can't be, the group's own on the target; "" where it is.
func (s Standing) Why(p Position) Reason {
	own, known := s.Offsets[p.Group]
	switch {
	case !s.idle(p.Group):
		return ActiveOnTarget
	case !known:
		return Unanswered
	case own.Err != nil:
		return reasonOf(own.Err)
	case own.Unknown[p.Target] != nil:
		return reasonOf(own.Unknown[p.Target])
	case own.Commits[p.Target].Offset > p.To:
		return TargetAhead
	}
	return ""
}

// Lacks says whether a position is to be written: the group is idle on the target, and has none there or an earlier one.
func (s Standing) Lacks(p Position) bool {
	if p.To < 0 || s.Why(p) != "" {
		return false
	}
	own, has := s.Offsets[p.Group].Commits[p.Target]
	return !has || own.Offset < p.To
}

// Took notes what has been written.
func (s Standing) Took(group string, commits map[kafka.TopicPartition]kafka.Commit) {
	if len(commits) == 0 {
		return
	}
	if _, there := s.States[group]; !there {
		s.States[group] = kafka.GroupEmpty
	}
	own := s.Offsets[group]
	if own.Commits == nil {
		own.Commits = map[kafka.TopicPartition]kafka.Commit{}
	}
	for tp, commit := range commits {
		own.Commits[tp] = commit
	}
	s.Offsets[group] = own
}

// Names are the groups that positions are about, once each.
func Names(positions []Position) (names []string) {
	for i, p := range positions {
		if i == 0 || p.Group != positions[i-1].Group {
			names = append(names, p.Group)
		}
	}
	return names
}
