// Package verify compares topics with their copies, record by record, and shares no code with what copies them: franz-go unpacks the
// records of both sides, and what a copy should be is decided here from the records alone.
//
// A partition's source is read under the flow's isolation level and its copy under read_committed, both up to the ends that they had
// when the comparison began: the target's was asked for before the source's, so that a flow which copies meanwhile loses nothing
// by it. Two records are the same when key, value, headers in their order (null and empty told apart) and timestamp are, in 128 bits
// of SHA-256. Timestamps are left out, and it is said, where the target's brokers set them (LogAppendTime). The type of a timestamp is
// the topic's to decide, so it is not compared. Offsets may differ.
//
// # Kinds
//
// What is on one side alone at its place is, in this order:
//
//   - reordered, where its equal is among the last Lookahead records that were on the other side alone;
//   - duplicated, where the target had it within the last Lookahead records;
//   - compacted, where the other side is a compacted topic that has a later record of the key; or where it is a
//     tombstone, or in front of one, and the other side ends without a live record of the key;
//   - expired, where the other side's log begins behind it, because retention or DeleteRecords took what was before;
//   - not begun, in front of the first record that the two have in common, if the flow was to start later than with the first;
//   - behind, at the end of the source, if the cursor doesn't claim that it was copied;
//   - changed, where both sides have such records between the same neighbours: as many as the side with fewer has;
//   - missing or extra.
//
// Reordered, duplicated, changed, missing and extra are differences. The others are not, but what is expired or not begun can't be
// compared, and is counted by itself.
//
// # Verdicts
//
//   - different: there is a difference, whatever else there is.
//   - not comparable: no difference was found, and no record that is equal either though there are some; or keys of a compacted topic
//     were too many to decide about all; or records are absent as if by compaction, and the settings can't be read; or a side can't
//     be read.
//   - unfinished: stopped before the end, without a difference so far.
//   - equal: everything that both sides still have is the same. A partition with nothing to compare is equal, a whole report
//     without one equal record is not comparable.
//
// # What it can't see
//
// That a record is missing which expired on either side; that one is missing at the very end of a copy that has no cursor, which is
// called behind, or at the very beginning of one whose flow was to begin later than with the first record; that a copy of a compacted
// topic lacks a record which a later one of its key replaces. A topic that somebody else
// writes to as well, or another flow, shows their records as extra. Edits that lie next to each other may be counted as other kinds
// than those that made them, never as none.
//
// # Bounds
//
// Parallel partitions at a time. Of each side: one answer of readBytes (or a single larger batch), one batch unpacked, chunks of
// chunkEntries digests, and Lookahead digests for each of: what comes next, what was equal, what has no equal; maxKeys keys of a
// compacted topic.
package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/spec"
)

// Parallel is how many partitions are compared at a time.
const Parallel = 4

// Options of a comparison.
type Options struct {
	Flow           spec.Flow
	Source, Target *kafka.Cluster
	// Topics of the source to compare, among those of the flow; the zero value is all.
	Topics spec.Patterns
	// Except are the topics that are not copied on purpose, each with the reason. They are compared all the same where a cursor claims one.
	Except map[string]string
	// Since leaves out records whose timestamps are older, in milliseconds; 0 is none.
	Since int64
	// Limit is for the bytes that are read, of both sides together; nil is none.
	Limit *rate.Limiter
	// Claims are what cursors say, read before the comparison begins; a partition without one claims nothing.
	Claims map[kafka.TopicPartition]Claim
	// Progress is kept up to date; nil where nobody looks.
	Progress *Progress
}

// A Claim says that everything below an offset has been copied.
type Claim struct {
	SourceTopicID string // "" where it is not known
	Offset        int64
}

// Progress is how far comparisons are. It may be read while they run.
type Progress struct {
	Records     atomic.Int64 // that were equal
	Bytes       atomic.Int64 // that were read, compressed as they are
	Done, Total atomic.Int64 // offsets, of both sides
}

// ErrNoTopic means that there is nothing to compare.
var ErrNoTopic = errors.New("no topic matches")

// Compare compares the topics of a flow with their copies. What can't be read is part of the report. If ctx ends, the report says
// what is known so far. It fails with ErrNoTopic where neither the flow nor what was asked for selects any.
func Compare(ctx context.Context, o Options) (FlowReport, error) {
	r := FlowReport{Flow: o.Flow.Name(), Source: o.Flow.Source, Target: o.Flow.Target, Partitions: []PartitionReport{}, NotCopied: o.Except}
	if o.Progress == nil {
		o.Progress = new(Progress)
	}
	partitions, err := o.plan(ctx)
	switch {
	case errors.Is(err, ErrNoTopic):
		return r, err
	case err != nil:
		return Unread(ctx, o, err), nil
	}
	for _, p := range partitions {
		o.Progress.Total.Add(p.logs[Source].span() + p.logs[Target].span())
	}
	r.Partitions = make([]PartitionReport, len(partitions))
	var g errgroup.Group
	g.SetLimit(Parallel)
	for i, p := range partitions {
		g.Go(func() error {
			r.Partitions[i] = p.compare(ctx)
			return nil
		})
	}
	_ = g.Wait() // errors are part of the report
	for _, p := range r.Partitions {
		r.Verdict = worse(r.Verdict, p.Verdict)
	}
	return r, nil
}

// Unread is the report of a flow that could not even be begun.
func Unread(ctx context.Context, o Options, err error) FlowReport {
	return FlowReport{
		Flow: o.Flow.Name(), Source: o.Flow.Source, Target: o.Flow.Target,
		Verdict: unreadable(ctx), Error: err.Error(), Partitions: []PartitionReport{},
	}
}

// plan finds out what there is to compare: which partitions, and between which offsets.
func (o Options) plan(ctx context.Context) ([]*partition, error) {
	topics, err := o.topics(ctx)
	if err != nil {
		return nil, err
	}
	copies, err := o.copies(ctx, topics)
	if err != nil {
		return nil, err
	}
	var all []*partition
	for _, t := range topics {
		all = append(all, o.partitions(t, copies[o.Flow.RemoteTopic(t.Name)])...)
	}
	if err := o.configure(ctx, all); err != nil {
		return nil, err
	}
	// The target's ends come first. What is on the target then was on the source before, so that no record is taken for an extra one
	// because the source had not yet been seen to have it.
	if err := o.bound(ctx, Target, o.Target, all); err != nil {
		return nil, err
	}
	return all, o.bound(ctx, Source, o.Source, all)
}

// topics are those of the source that are to be compared.
func (o Options) topics(ctx context.Context) ([]kafka.Topic, error) {
	all, err := o.Source.Topics(ctx)
	if err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	ofFlow := slices.DeleteFunc(all, func(t kafka.Topic) bool { return !o.Flow.Selects(t.Name) || o.excepted(t) })
	if len(ofFlow) == 0 {
		return nil, fmt.Errorf("%w the patterns of %s on %s", ErrNoTopic, o.Flow.Name(), o.Flow.Source)
	}
	if o.Topics.String() == "" {
		return ofFlow, nil
	}
	var names []string
	asked := slices.DeleteFunc(slices.Clone(ofFlow), func(t kafka.Topic) bool {
		names = append(names, t.Name)
		return !o.Topics.Match(t.Name)
	})
	if len(asked) == 0 {
		return nil, fmt.Errorf("%w %q among those that %s copies: %s", ErrNoTopic, o.Topics, o.Flow.Name(), some(names))
	}
	return asked, nil
}

func (o Options) excepted(t kafka.Topic) bool {
	_, is := o.Except[t.Name]
	for i := range t.Partitions {
		_, claimed := o.Claims[kafka.TopicPartition{Topic: t.Name, Partition: int32(i)}]
		is = is && !claimed
	}
	return is
}

// some lists the first few names.
func some(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

func (o Options) copies(ctx context.Context, topics []kafka.Topic) (map[string]kafka.Topic, error) {
	all, err := o.Target.Topics(ctx)
	if err != nil {
		return nil, fmt.Errorf("target: %w", err)
	}
	copies := make(map[string]kafka.Topic, len(topics))
	for _, t := range all {
		copies[t.Name] = t
	}
	return copies, nil
}

// partitions are those of a topic and of its copy.
func (o Options) partitions(t, copied kafka.Topic) (all []*partition) {
	name := o.Flow.RemoteTopic(t.Name)
	n := max(len(t.Partitions), len(copied.Partitions))
	if t.Err != nil || copied.Err != nil {
		n = max(n, 1) // one at least, to say it
	}
	for i := range n {
		from := kafka.TopicPartition{Topic: t.Name, Partition: int32(i)}
		p := &partition{Options: o, source: from, target: kafka.TopicPartition{Topic: name, Partition: int32(i)}}
		p.logs[Source] = log{cluster: o.Source, tp: p.source, isolation: o.Flow.Isolation, lacking: i >= len(t.Partitions), err: t.Err}
		p.logs[Target] = log{cluster: o.Target, tp: p.target, isolation: spec.ReadCommitted, lacking: i >= len(copied.Partitions), err: copied.Err}
		claim, claimed := o.Claims[from]
		switch {
		case claimed && claim.SourceTopicID != "" && claim.SourceTopicID != t.ID.String():
			p.note("the cursor is of an earlier topic of this name, so it is not asked how far the copy should be")
		case claimed:
			p.rules.Claimed = claim.Offset
		default:
			p.unclaimed = true
		}
		all = append(all, p)
	}
	return all
}

// configure asks for the settings that decide what can be compared.
func (o Options) configure(ctx context.Context, all []*partition) error {
	for s, c := range []*kafka.Cluster{o.Source, o.Target} {
		var names []string
		for _, p := range all {
			if l := p.logs[s]; !l.lacking && l.err == nil && !slices.Contains(names, l.tp.Topic) {
				names = append(names, l.tp.Topic)
			}
		}
		configs, err := c.Configs(ctx, names)
		if err != nil {
			return fmt.Errorf("%s: %w", Side(s), err)
		}
		for _, p := range all {
			if l := p.logs[s]; !l.lacking && l.err == nil {
				p.configure(Side(s), configs[p.logs[s].tp.Topic])
			}
		}
	}
	return nil
}

// bound asks where the logs of a side begin and end.
func (o Options) bound(ctx context.Context, s Side, c *kafka.Cluster, all []*partition) error {
	var tps []kafka.TopicPartition
	for _, p := range all {
		if l := p.logs[s]; !l.lacking && l.err == nil {
			tps = append(tps, p.logs[s].tp)
		}
	}
	ask := func(timestamp int64, isolation spec.Isolation) (map[kafka.TopicPartition]kafka.Offset, error) {
		offsets, err := c.ListOffsets(ctx, tps, timestamp, isolation)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s, err)
		}
		return offsets, nil
	}
	isolation := o.Flow.Isolation
	if s == Target {
		isolation = spec.ReadCommitted
	}
	ends, err := ask(kafka.Latest, isolation)
	if err != nil {
		return err
	}
	starts, err := ask(kafka.Earliest, spec.ReadUncommitted)
	if err != nil {
		return err
	}
	var since map[kafka.TopicPartition]kafka.Offset
	if o.Since > 0 {
		if since, err = ask(o.Since, spec.ReadUncommitted); err != nil {
			return err
		}
	}
	for _, p := range all {
		if l := &p.logs[s]; !l.lacking && l.err == nil {
			l.bound(starts[l.tp], ends[l.tp])
			if o.Since > 0 {
				l.since(since[l.tp])
			}
		}
	}
	return nil
}
