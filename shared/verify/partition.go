package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/spec"
)

// A partition is to be compared with its copy.
type partition struct {
	Options
	source, target kafka.TopicPartition
	logs           [2]log
	rules          Rules
	unclaimed      bool // whether no cursor says how far the copy should be
	guessed        bool // whether settings couldn't be read, so that it is not known whether a side is compacted
	report         PartitionReport
}

func (p *partition) note(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(p.report.Notes, text) {
		p.report.Notes = append(p.report.Notes, text)
	}
}

// configure takes what a topic's settings say. Where they can't be read, the topic may be compacted.
func (p *partition) configure(s Side, c kafka.TopicConfig) {
	if s == Source {
		p.rules.Timestamps = true
	}
	if c.Err != nil || len(c.Entries) == 0 {
		p.rules.Compacted[s], p.guessed = true, true
		p.note("the settings of the %s can't be read, so that records may be absent as if it were compacted", s)
		return
	}
	for _, e := range c.Entries {
		switch {
		case e.Name == "cleanup.policy" && strings.Contains(e.Value, "compact"):
			p.rules.Compacted[s] = true
		case e.Name == "message.timestamp.type" && e.Value == "LogAppendTime" && s == Target:
			p.ignoreTimestamps()
		}
	}
}

func (p *partition) ignoreTimestamps() {
	p.rules.Timestamps = false
	p.note("timestamps are not compared: the target's brokers set them (LogAppendTime)")
}

// wait keeps to the rate that was asked for.
func (p *partition) wait(ctx context.Context, bytes int64) error {
	p.Progress.Bytes.Add(bytes)
	for p.Limit != nil && bytes > 0 {
		n := min(bytes, int64(p.Limit.Burst()))
		if err := p.Limit.WaitN(ctx, int(n)); err != nil {
			<-ctx.Done() // a limiter doesn't wait for what comes after the deadline
			return context.Cause(ctx)
		}
		bytes -= n
	}
	return nil
}

// compare is a partition's whole comparison.
func (p *partition) compare(ctx context.Context) PartitionReport {
	r := &p.report
	r.SourceTopic, r.TargetTopic, r.Partition = p.source.Topic, p.target.Topic, p.source.Partition
	if r.Ranges == nil {
		r.Ranges = []Range{}
	}
	switch source, target := p.logs[Source], p.logs[Target]; {
	case ctx.Err() != nil:
		r.Verdict, r.Why = Unfinished, "not begun"
	case source.err != nil:
		r.Verdict, r.Why = NotComparable, "source: "+source.err.Error()
	case target.err != nil:
		r.Verdict, r.Why = NotComparable, "target: "+target.err.Error()
	case source.lacking && target.end > target.start:
		r.Verdict, r.Why = Different, fmt.Sprintf("the target has records, and the source has no partition %d", p.source.Partition)
		r.Extra = target.span()
	case target.lacking && source.span() > 0:
		r.Verdict, r.Why = NotComparable, fmt.Sprintf("there is no %s on the target", p.target)
	case source.lacking || target.lacking:
		r.Verdict = Equal
	default:
		p.read(ctx)
	}
	return *r
}

// read compares two logs.
func (p *partition) read(ctx context.Context) {
	if err := p.begin(ctx); err != nil {
		p.conclude(ctx, Outcome{}, err)
		return
	}
	a := NewAligner(p.rules)
	err := p.align(ctx, a)
	if err == nil {
		err = p.later(ctx, a)
	}
	p.conclude(ctx, a.Outcome(), err)
}

// begin decides what it means where one side begins later than the other, and goes there.
func (p *partition) begin(ctx context.Context) error {
	source, target := &p.logs[Source], &p.logs[Target]
	if target.from == target.start && target.before == Present && p.Flow.Start != spec.Earliest {
		target.before = NotBegun
	}
	for _, l := range []*log{source, target} {
		if l.before == Present && l.from > l.start && !p.rules.Timestamps {
			l.before = TooOld // brokers that set timestamps find other records for a time
		}
	}
	if !p.rules.Timestamps {
		return nil
	}
	for _, s := range []Side{Source, Target} {
		if p.logs[s].before == Present {
			continue
		}
		if err := p.seek(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// seek looks by timestamp for the first record of a side on the other one, and begins there if it is there: a source that keeps
// records for a month needn't be read whole to compare a copy that keeps them for a day. Else it is found by reading.
func (p *partition) seek(ctx context.Context, s Side) error {
	first, err := p.peek(ctx, &p.logs[s], p.logs[s].from)
	if err != nil || len(first) == 0 {
		return err
	}
	other := &p.logs[s.other()]
	tps := []kafka.TopicPartition{other.tp}
	found, err := other.cluster.ListOffsets(ctx, tps, first[0].Timestamp, spec.ReadUncommitted)
	if err != nil {
		return err
	}
	at := found[other.tp]
	if at.Err != nil || at.Offset <= other.from || at.Offset >= other.end {
		return at.Err
	}
	there, err := p.peek(ctx, other, at.Offset)
	if err != nil {
		return err
	}
	want, _ := digest(first[0], nil)
	for _, r := range there {
		if got, _ := digest(r, nil); got == want && r.Timestamp == first[0].Timestamp {
			p.report.Skipped = append(p.report.Skipped, Skipped{s.other().String(), other.from, at.Offset - 1, p.logs[s].before.why(s)})
			p.Progress.Total.Add(other.from - at.Offset)
			other.from, other.before = at.Offset, Present
			return nil
		}
	}
	return nil
}

// peek reads the first batch from an offset on.
func (p *partition) peek(ctx context.Context, l *log, from int64) ([]kafka.Record, error) {
	r := l.cluster.NewReader(l.tp, from, l.end, l.isolation, readBytes)
	records, err := r.Next(ctx)
	if err == io.EOF || errors.Is(err, kafka.ErrOffsetOutOfRange) { // which reading will meet again
		return nil, nil
	}
	return records, err
}

// align reads both sides and compares them.
func (p *partition) align(ctx context.Context, a *Aligner) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	var streams [2]*stream
	var from [2]chan chunk
	for _, s := range []Side{Source, Target} {
		streams[s], from[s] = p.stream(&p.logs[s]), make(chan chunk, chunks)
		g.Go(func() error { return streams[s].run(ctx, from[s]) })
	}
	for equal := int64(0); ; {
		s, done := a.Next()
		p.Progress.Records.Add(a.Equal() - equal)
		equal = a.Equal()
		if done {
			break
		}
		c, more := <-from[s]
		if !more { // its error ends the other one, too
			break
		}
		if c.appendTime && s == Target && a.Timestamps() {
			a.IgnoreTimestamps()
			p.ignoreTimestamps()
		}
		a.Add(s, c.entries...)
		if c.ended {
			a.End(s, c.before)
		}
		streams[s].done(c)
	}
	return g.Wait()
}

// later looks behind the ends for records that explain what compaction has taken: it went on while the logs were read. Where tombstones
// are in question, it looks through the whole log for live records of their keys.
func (p *partition) later(ctx context.Context, a *Aligner) error {
	for _, s := range []Side{Source, Target} {
		if !a.Waiting(s.other()) {
			continue
		}
		if err := p.laterOf(ctx, s, a); err != nil {
			a.Abandon()
			return err
		}
	}
	return nil
}

func (p *partition) laterOf(ctx context.Context, s Side, a *Aligner) error {
	l := p.logs[s] // a copy
	ends, err := l.cluster.ListOffsets(ctx, []kafka.TopicPartition{l.tp}, kafka.Latest, l.isolation)
	if err != nil {
		return err
	}
	if err := ends[l.tp].Err; err != nil {
		return err
	}
	compared := l.end
	l.from, l.end = l.end, max(l.end, ends[l.tp].Offset)
	if a.Deleted(s.other()) {
		l.from = l.start
	}
	p.Progress.Total.Add(l.span())
	r := p.stream(&l)
	for {
		c, err := r.chunk(ctx)
		if err != nil {
			return err
		}
		behind, _ := slices.BinarySearchFunc(c.entries, compared, func(e Entry, end int64) int { return cmp.Compare(e.Offset, end) })
		a.Again(s, c.entries[:behind]...)
		a.Later(s, c.entries[behind:]...)
		if c.ended {
			return nil
		}
		r.done(c)
	}
}

// conclude turns what was found into the report.
func (p *partition) conclude(ctx context.Context, o Outcome, err error) {
	r := &p.report
	r.Counts, r.MoreRanges = o.Counts, o.MoreRanges
	r.Ranges = append(r.Ranges, o.Ranges...)
	if o.First != nil {
		r.First = p.show(ctx, *o.First)
	}
	if o.Behind > 0 && p.unclaimed {
		p.note("no cursor says how far the copy should be, so that what is behind may be missing")
	}
	nothing := o.Equal == 0 && (o.Counts != Counts{} || len(r.Skipped) > 0)
	switch {
	case o.Different():
		r.Verdict = Different
	case err != nil && ctx.Err() != nil:
		r.Verdict = Unfinished
	case err != nil:
		r.Verdict = NotComparable
	case o.Uncompared > 0:
		r.Verdict, r.Why = NotComparable, fmt.Sprintf("more than %d keys of a compacted topic were to be kept at a time", maxKeys)
	case o.Compacted > 0 && p.guessed:
		r.Verdict, r.Why = NotComparable, "records are absent as compaction would take them, and the settings can't be read"
	case nothing && o.Behind > 0:
		r.Verdict, r.Why = NotComparable, "nothing is copied yet"
	case nothing:
		r.Verdict, r.Why = NotComparable, "the two have no record in common any more"
	default:
		r.Verdict = Equal
	}
	switch {
	case err != nil && ctx.Err() != nil:
		r.Why = "stopped before the end"
	case err != nil:
		r.Why = err.Error()
	}
}
