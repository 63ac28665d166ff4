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
	ids            *clusterIDs // of all clusters
}

// topics is what is known of both clusters' topics. It is never changed, only replaced.
type topics struct {
	source   []kafka.Topic          // that the flow selects
	target   map[string]kafka.Topic // by name
	back     map[string]Comeback    // of the source's, those that are not copied
	uncopied []string               // heartbeats that the flow doesn't copy, on the source
	warnings []string
}

// discover lists the topics of both clusters. Where one of them doesn't answer, those of the other stand beside the error.
func (p pair) discover(ctx context.Context) (found topics, err error) {
	all, sourceErr := p.source.Topics(ctx)
	found.source, found.uncopied = selected(p.flow, all), p.uncopied(all)
	var targetErr error
	if found.target, targetErr = p.targetTopics(ctx); sourceErr != nil {
		return found, fmt.Errorf("source: %w", sourceErr)
	}
	if targetErr != nil {
		return found, targetErr
	}
	if err := p.apart(ctx); err != nil {
		return found, err
	}
	found.back = p.comebacks(ctx, found.source)
	found.warnings = append(unmatched(p.flow, all), p.fragile(ctx, found.target[p.flow.OffsetsTopic])...)
	return found, nil
}

// fragile warns where topics have a single replica that nobody asked for. A target that doesn't tell its default is not guessed at.
func (p pair) fragile(ctx context.Context, cursors kafka.Topic) (warnings []string) {
	brokers, err := p.target.Brokers(ctx)
	if err != nil || brokers < 2 {
		return nil
	}
	if replicas, err := p.target.DefaultReplication(ctx); err != nil || replicas != 1 {
		return nil
	}
	if p.flow.ReplicationFactor == -1 {
		warnings = append(warnings, fmt.Sprintf("%s has %d brokers and creates topics with one replica unless told otherwise: set the replication factor of %s, or the copies are lost with one disk",
			p.flow.Target, brokers, p.flow.Name()))
	}
	single := len(cursors.Partitions) == 0 || cursors.Partitions[0].Replicas == 1
	if p.flow.OffsetsReplicationFactor == -1 && single {
		warnings = append(warnings, fmt.Sprintf("the cursors of %s are kept with one replica on %s, which has %d brokers: set the replication factor of %q before it is created, or add replicas to it, or they are lost with one disk",
			p.flow.Name(), p.flow.Target, brokers, p.flow.OffsetsTopic))
	}
	return warnings
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
			warnings = append(warnings, fmt.Sprintf("the topic pattern %q of %s matches no topic on %s; it has to match the whole name, and topics that kferry may not Describe are not shown to it", filter.Topics, f.Name(), f.Source))
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
	return View{Flow: p.flow, Source: known.source, Target: known.target, Back: known.back, Ends: ends, Starts: starts, Cursors: cursors}, nil
}
