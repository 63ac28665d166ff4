package coordinator

import (
	"context"
	"fmt"
	"slices"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// pair is a flow with its two clusters.
type pair struct {
	flow           spec.Flow
	source, target *kafka.Cluster
}

// topics is what is known of both clusters' topics. It is never changed, only replaced.
type topics struct {
	source   []kafka.Topic          // that the flow selects
	target   map[string]kafka.Topic // by name
	warnings []string
}

// discover lists the topics of both clusters.
func (p pair) discover(ctx context.Context) (topics, error) {
	all, err := p.source.Topics(ctx)
	if err != nil {
		return topics{}, fmt.Errorf("source: %w", err)
	}
	target, err := p.targetTopics(ctx)
	if err != nil {
		return topics{}, err
	}
	found := topics{source: selected(p.flow, all), target: target}
	found.warnings = append(unmatched(p.flow, all), p.fragile(ctx)...)
	return found, nil
}

// fragile warns where copies are created with a single replica that nobody asked for. A target that doesn't tell its default is not
// guessed at.
func (p pair) fragile(ctx context.Context) []string {
	if p.flow.ReplicationFactor != -1 {
		return nil
	}
	brokers, err := p.target.Brokers(ctx)
	if err != nil || brokers < 2 {
		return nil
	}
	if replicas, err := p.target.DefaultReplication(ctx); err != nil || replicas != 1 {
		return nil
	}
	return []string{fmt.Sprintf("%s has %d brokers and creates topics with one replica unless told otherwise: set the replication factor of %s, or the copies are lost with one disk",
		p.flow.Target, brokers, p.flow.Name())}
}

func (p pair) targetTopics(ctx context.Context) (map[string]kafka.Topic, error) {
	all, err := p.target.Topics(ctx)
	if err != nil {
		return nil, fmt.Errorf("target: %w", err)
	}
	byName := make(map[string]kafka.Topic, len(all))
	for _, t := range all {
		byName[t.Name] = t
	}
	return byName, nil
}

func selected(f spec.Flow, all []kafka.Topic) []kafka.Topic {
	return slices.DeleteFunc(slices.Clone(all), func(t kafka.Topic) bool { return !f.Selects(t.Name) })
}

// names are those of the source's topics.
func (t topics) names() []string {
	var names []string
	for _, topic := range t.source {
		names = append(names, topic.Name)
	}
	return names
}

// partitions are those of the source's topics.
func (t topics) partitions() []kafka.TopicPartition {
	var tps []kafka.TopicPartition
	for _, topic := range t.source {
		for i := range topic.Partitions {
			tps = append(tps, kafka.TopicPartition{Topic: topic.Name, Partition: int32(i)})
		}
	}
	return tps
}

// unmatched warns of patterns that select nothing, which is seldom meant that way.
func unmatched(f spec.Flow, all []kafka.Topic) (warnings []string) {
	for _, filter := range f.Filters {
		if !slices.ContainsFunc(all, func(t kafka.Topic) bool { return filter.Topics.Match(t.Name) && f.Selects(t.Name) }) {
			warnings = append(warnings, fmt.Sprintf("the topic pattern %q of %s matches no topic on %s; it has to match the whole name", filter.Topics, f.Name(), f.Source))
		}
	}
	return warnings
}

// offsets asks the source for the offsets at a timestamp.
type offsets func(ctx context.Context, tps []kafka.TopicPartition, timestamp int64) (map[kafka.TopicPartition]kafka.Offset, error)

// now asks once: the next pass asks again, and a partition without a leader must not keep the others waiting.
func (p pair) now(ctx context.Context, tps []kafka.TopicPartition, timestamp int64) (map[kafka.TopicPartition]kafka.Offset, error) {
	return p.source.OffsetsNow(ctx, tps, timestamp, p.flow.Isolation), context.Cause(ctx)
}

// patiently waits for leaders that move: nobody asks again.
func (p pair) patiently(ctx context.Context, tps []kafka.TopicPartition, timestamp int64) (map[kafka.TopicPartition]kafka.Offset, error) {
	return p.source.ListOffsets(ctx, tps, timestamp, p.flow.Isolation)
}

// view asks the source how far its partitions reach, and where those begin that have no cursor.
func (p pair) view(ctx context.Context, known topics, cursors map[kafka.TopicPartition]lease.Cursor, ask offsets) (View, error) {
	partitions := known.partitions()
	ends, err := ask(ctx, partitions, kafka.Latest)
	if err != nil {
		return View{}, fmt.Errorf("source: ends: %w", err)
	}
	fresh := slices.DeleteFunc(partitions, func(tp kafka.TopicPartition) bool {
		_, begun := cursors[tp]
		return begun || ends[tp].Err != nil || ends[tp].Offset == 0
	})
	starts, err := ask(ctx, fresh, kafka.Earliest)
	if err != nil {
		return View{}, fmt.Errorf("source: starts: %w", err)
	}
	return View{Flow: p.flow, Source: known.source, Target: known.target, Ends: ends, Starts: starts, Cursors: cursors}, nil
}
