// Package groups says where the consumer groups of a flow's source go on in its copies: what both clusters tell of them, and what follows
// from it. It writes nothing.
//
// The coordinator compares with it, the workers act on it, and `kferry groups` shows it, so that the three can't disagree.
//
// Invariants:
//   - A group that isn't told of is never taken for one that is gone: a list is whole or an error, and a group whose coordinator doesn't
//     answer has an error of its own. Nothing is concluded from either.
//   - A position never lies behind what the group has still to read. Where it can't be exact it lies before it.
//   - Topics are those of the source unless a name says otherwise.
package groups

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/offsets"
	"github.com/kferry/kferry/shared/spec"
)

// Seen is what a source tells of its groups.
type Seen struct {
	Groups []kafka.Group // all of them, by name
	// Offsets are the positions of those that the flow selects.
	Offsets map[string]kafka.GroupOffsets
}

// Look lists the source's groups, and reads the positions of those that the flow selects.
func Look(ctx context.Context, f spec.Flow, source *kafka.Cluster) (Seen, error) {
	all, err := source.Groups(ctx)
	if err != nil {
		return Seen{}, fmt.Errorf("source: %w", err)
	}
	var names []string
	for _, g := range all {
		if f.Groups.Selects(g.Name) && g.Consumes() {
			names = append(names, g.Name)
		}
	}
	seen := Seen{Groups: all}
	if seen.Offsets, err = source.GroupOffsets(ctx, names); err != nil {
		return Seen{}, fmt.Errorf("source: %w", err)
	}
	return seen, nil
}

// Err is why some groups could not be read, where that may pass.
func (s Seen) Err() error {
	for _, g := range s.Groups { // in their order, so that the error stays the same
		if err := s.Offsets[g.Name].Err; err != nil && reasonOf(err) != Authorization {
			return fmt.Errorf("source: %w", err)
		}
	}
	return nil
}

// Denied is a right that is lacking to read some groups: nothing follows from their being left out.
func (s Seen) Denied() error {
	for _, g := range s.Groups {
		if err := s.Offsets[g.Name].Err; kafka.Denied(err) {
			return fmt.Errorf("source: %w", err)
		}
	}
	return nil
}

// Copies are a flow's copies as its cursors tell of them.
type Copies struct {
	Flow    spec.Flow
	Cursors map[kafka.TopicPartition]lease.Cursor
	Map     *offsets.Map // nil where nothing is to be translated
	// Back are those of the flow in the other direction, nil where there is none: what it copies is consumed on the source too, and goes
	// on where it came from.
	Back *Copies
}

// Open is a flow's copies with their map, which the caller refreshes, and without cursors.
func Open(f spec.Flow, target *kafka.Cluster) *Copies {
	return &Copies{Flow: f, Map: offsets.Open(f, target)}
}

// A Position is where a group stands in one partition of the source, and where it goes on.
type Position struct {
	Group  string
	Source kafka.TopicPartition // that the group consumes
	Target kafka.TopicPartition // where it goes on
	Commit kafka.Commit         // on the source
	To     int64                // on the target; -1 where no offset is known that would be right
	Exact  bool                 // nothing is read again
	Reason Reason               // why To is -1 or not exact

	back bool
}

// Positions are those of all groups in the partitions that are followed, by group, topic and partition, not yet translated. A group
// without any is of no interest to the flow.
func (c *Copies) Positions(s Seen) []Position {
	var all []Position
	for _, g := range s.Groups {
		first := len(all)
		for tp, commit := range s.Offsets[g.Name].Commits {
			if target, back, ok := c.follows(tp.Topic); ok {
				to := kafka.TopicPartition{Topic: target, Partition: tp.Partition}
				all = append(all, Position{Group: g.Name, Source: tp, Target: to, Commit: commit, To: -1, back: back})
			}
		}
		slices.SortFunc(all[first:], func(a, b Position) int {
			return cmp.Or(cmp.Compare(a.Source.Topic, b.Source.Topic), cmp.Compare(a.Source.Partition, b.Source.Partition))
		})
	}
	return all
}

// follows says in which topic of the target somebody goes on who consumes one on the source: in its copy, or, where it is itself a copy
// of a topic of the target, in that one. MirrorMaker names the latter in its checkpoints but never has a translation for it.
func (c *Copies) follows(topic string) (target string, back, ok bool) {
	if c.Flow.Selects(topic) {
		return c.Flow.RemoteTopic(topic), false, true
	}
	if origin, is := c.Flow.Policy.Source(topic); !is || origin != c.Flow.Target || c.Back == nil {
		return "", false, false
	}
	upstream, _ := c.Flow.Policy.Upstream(topic)
	return upstream, true, c.Back.Flow.Selects(upstream) && c.Back.Flow.RemoteTopic(upstream) == topic
}

// Translate fills in where the positions lead.
func (c *Copies) Translate(all []Position) {
	for i := range all {
		c.translate(&all[i])
	}
}

func (c *Copies) translate(p *Position) {
	cursor, begun := c.cursor(*p)
	switch {
	case !begun && p.Commit.Offset == 0 && !cursor.Foreign:
		p.To, p.Exact = 0, true // whatever is copied comes behind
		return
	case !begun:
		p.Reason = NotBegun
		return
	case p.back:
		*p = c.Back.reverse(*p, cursor)
		return
	}
	at := c.Map.Translate(p.Source, of(cursor), p.Commit.Offset)
	p.To, p.Exact, p.Reason = at.Target, at.Exact, why[at.Why]
	if at.Why == offsets.Before && p.Commit.Offset != cursor.Offset {
		p.To, p.Exact = -1, false
	}
}

// Disown takes back where positions lead in topics of the target that were deleted and created again since: what is known of the copy says
// nothing about those, and a group would pass over records there that it has never seen.
func (c *Copies) Disown(all []Position, target map[string]kafka.Topic) {
	for i := range all {
		p := &all[i]
		cursor, begun := c.cursor(*p)
		known := cursor.TargetTopicID
		if p.back {
			known = cursor.SourceTopicID
		}
		if is := target[p.Target.Topic].ID; begun && known != "" && !is.Zero() && known != is.String() {
			p.To, p.Exact, p.Reason = -1, false, NotBegun
		}
	}
}

// why are the reasons of positions that are not exact.
var why = map[offsets.Reason]Reason{offsets.Ahead: CopyBehind, offsets.Unmapped: Unmapped, offsets.Before: BeforeCopy}

// cursor is that of the copy which a position is about, and whether it says where things are.
func (c *Copies) cursor(p Position) (lease.Cursor, bool) {
	tp, from := p.Source, c
	if p.back {
		tp, from = p.Target, c.Back
	}
	cursor, known := from.Cursors[tp]
	return cursor, known && cursor.Placed()
}

func of(c lease.Cursor) offsets.Cursor {
	return offsets.Cursor{Offset: c.Offset, Target: c.Target, Mapped: c.Mapped, Map: c.Map}
}

// reverse finds where in the original somebody goes on who has come to an offset of the copy: the lowest one that leads there, since what
// lies between that and the next has no copy. Where none leads just there it is the next lower one that leads somewhere exactly: all that is
// in the copy from there on comes from behind it. The map only grows, so halving finds it.
func (c *Copies) reverse(p Position, cursor lease.Cursor) Position {
	to, known := p.Commit.Offset, of(cursor)
	if to > cursor.Target {
		p.To, p.Reason = cursor.Offset, CopyBehind
		return p
	}
	at := func(u int64) offsets.Position { return c.Map.Translate(p.Target, known, u) }
	lowest := func(to int64) int64 {
		low, high := int64(0), cursor.Offset
		for low < high {
			if middle := low + (high-low)/2; at(middle).Target >= to {
				high = middle
			} else {
				low = middle + 1
			}
		}
		return low
	}
	p.To = lowest(to)
	if found := at(p.To); found.Exact && found.Target == to {
		p.Exact = true
		return p
	}
	p.Reason = Unmapped
	if p.To > 0 {
		p.To = lowest(at(p.To - 1).Target)
	}
	if !at(p.To).Exact {
		p.To = 0
	}
	return p
}

// End is where the copy that a position leads to ends, as far as that is known.
func (c *Copies) End(p Position) int64 {
	if cursor, begun := c.cursor(p); begun && !p.back {
		return cursor.Target
	}
	return math.MaxInt64
}

// Sync is the offset-sync that leads MirrorMaker's readers from an offset to where Translate does, see offsets.Map.
func (c *Copies) Sync(tp kafka.TopicPartition, cursor lease.Cursor, offset int64) (mm2.OffsetSync, bool) {
	return c.Map.Sync(tp, of(cursor), offset)
}

// Left are the groups and positions that lead nowhere, with the reason. A group that is left out as a whole has no topic.
func (c *Copies) Left(s Seen) []Position {
	var all []Position
	for _, g := range s.Groups {
		own, asked := s.Offsets[g.Name]
		left := Position{Group: g.Name, To: -1}
		switch {
		case !g.Consumes():
			left.Reason = GroupType
		case !asked:
			left.Reason = Filtered
		case own.Err != nil:
			left.Reason = reasonOf(own.Err)
		case len(own.Commits) == 0:
			left.Reason = NoPosition
		}
		if left.Reason != "" {
			all = append(all, left)
			continue
		}
		for tp, commit := range own.Commits {
			if _, _, ok := c.follows(tp.Topic); !ok {
				left.Source, left.Commit, left.Reason = tp, commit, TopicNotCopied
				all = append(all, left)
			}
		}
	}
	return all
}
