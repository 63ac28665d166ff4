package coordinator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// Positions are the next source offsets of a flow's partitions, by the target's account and, where it is further, the queue's.
func Positions(ctx context.Context, o Options, flow string) (map[kafka.TopicPartition]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	pairs, found, _, errs := discoverAll(ctx, o)
	for i, p := range pairs {
		if p.flow.Name() != flow {
			continue
		}
		if errs[i] != nil {
			return nil, fmt.Errorf("%s can't be looked at: %w", flow, errs[i])
		}
		known, err := p.remember(ctx, o.Queue, found[i])
		if err != nil {
			return nil, err
		}
		positions := map[kafka.TopicPartition]int64{}
		for tp, c := range known.Cursors {
			if c.Hold.Reason != lease.ReasonFormat {
				positions[tp] = c.Offset
			}
		}
		return positions, nil
	}
	return nil, fmt.Errorf("there is no flow %q", flow)
}

// FormatPositions writes positions as Connect shows offsets. Those of partitions of which nothing was copied yet it leaves out, as Connect does.
func FormatPositions(flow spec.Flow, positions map[kafka.TopicPartition]int64) []byte {
	var offsets []mm2.SourceOffset
	for _, tp := range slices.SortedFunc(maps.Keys(positions), byTopic) {
		if next := positions[tp]; next > 0 {
			offsets = append(offsets, mm2.SourceOffset{Cluster: flow.Source, Topic: tp.Topic, Partition: tp.Partition, Offset: next - 1})
		}
	}
	return mm2.FormatSourceOffsets(offsets)
}

// ParsePositions reads what FormatPositions writes, changed by somebody, as decisions.
func ParsePositions(flow spec.Flow, text []byte) (map[kafka.TopicPartition]lease.Decision, error) {
	offsets, wrong := mm2.ParseSourceOffsets(text)
	decisions := map[kafka.TopicPartition]lease.Decision{}
	for _, o := range offsets {
		tp := kafka.TopicPartition{Topic: o.Topic, Partition: o.Partition}
		switch {
		case o.Cluster != flow.Source:
			wrong = errors.Join(wrong, fmt.Errorf("%s: its cluster is %q, and %s copies from %q", tp, o.Cluster, flow.Name(), flow.Source))
		case o.Forget:
			decisions[tp] = lease.Restart
		case o.Offset == math.MaxInt64:
			wrong = errors.Join(wrong, fmt.Errorf("%s: no offset follows %d", tp, o.Offset))
		default:
			decisions[tp] = lease.From(o.Offset + 1)
		}
	}
	return decisions, wrong
}

// set has partitions go on elsewhere. Nothing is written unless every one of them can be.
func (p pair) set(ctx context.Context, queue *lease.Queue, all *Resumptions, plan Plan, ends map[kafka.TopicPartition]kafka.Offset, r Request) error {
	partitions := map[kafka.TopicPartition]Partition{}
	for _, at := range plan.Partitions {
		if at.State != Gone {
			partitions[at.Source()] = at
		}
	}
	var unknown error
	var wrong bool
	one := r
	for _, dryRun := range []bool{true, r.DryRun} {
		all.All, one.DryRun = nil, dryRun
		for _, tp := range slices.SortedFunc(maps.Keys(r.Positions), byTopic) {
			at, known := partitions[tp]
			if !known {
				unknown = errors.Join(unknown, fmt.Errorf("%s copies no %s; \"kferry status\" lists what it copies, as it is called on %s", r.Flow, tp, p.flow.Source))
				continue
			}
			at.hold(lease.ReasonPositionSet, "set at "+time.Now().UTC().Format(time.RFC3339))
			at.Since, one.Decision = time.Now(), r.Positions[tp]
			done := Resumption{Partition: at}
			p.decide(ctx, queue, &done, ends, one)
			wrong = wrong || done.Err != nil
			all.All = append(all.All, done)
		}
		if unknown != nil || wrong {
			return unknown
		}
	}
	return nil
}

func byTopic(a, b kafka.TopicPartition) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
}
