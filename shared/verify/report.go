package verify

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kferry/kferry/shared/kafka"
)

// A Verdict is what a comparison comes to. The package comment says when it is which.
type Verdict string

// The verdicts, the better ones first.
const (
	Equal         Verdict = "equal"
	Unfinished    Verdict = "unfinished"
	NotComparable Verdict = "not comparable"
	Different     Verdict = "different"
)

// worse is the one of two verdicts that holds for both together; "" is none yet.
func worse(a, b Verdict) Verdict {
	for _, v := range []Verdict{Different, NotComparable, Unfinished, Equal} {
		if a == v || b == v {
			return v
		}
	}
	return ""
}

func unreadable(ctx context.Context) Verdict {
	if ctx.Err() != nil {
		return Unfinished
	}
	return NotComparable
}

// A Report is what `kferry verify` shows.
type Report struct {
	At      time.Time    `json:"at"` // when it began
	Verdict Verdict      `json:"verdict"`
	Why     string       `json:"why,omitempty"`
	Flows   []FlowReport `json:"flows"`
}

// Add appends a flow's report. Without a single equal record nothing is proved, so that all together is not comparable then.
func (r *Report) Add(f FlowReport) {
	r.Flows = append(r.Flows, f)
	r.Verdict, r.Why = "", ""
	equal := int64(0)
	for _, f := range r.Flows {
		r.Verdict = worse(r.Verdict, f.Verdict)
		for _, p := range f.Partitions {
			equal += p.Equal
		}
	}
	if r.Verdict == Equal && equal == 0 {
		r.Verdict, r.Why = NotComparable, "no record was compared"
	}
}

// A FlowReport is one flow's part of a Report.
type FlowReport struct {
	Flow       string            `json:"flow"`
	Source     string            `json:"source"`
	Target     string            `json:"target"`
	Verdict    Verdict           `json:"verdict"`
	Error      string            `json:"error,omitempty"` // why nothing could be compared
	Partitions []PartitionReport `json:"partitions"`
	// Gaps on record for these partitions: decisions that left the copy other than its source. No comparison knows of them, so
	// whoever compares says it; what such a decision cost is found as a difference all the same.
	Gaps int `json:"gaps,omitempty"`
	// NotCopied are topics that are left out on purpose, by name, with the reason.
	NotCopied map[string]string `json:"not_copied,omitempty"`
}

// A PartitionReport is one partition's part of a Report.
type PartitionReport struct {
	SourceTopic string  `json:"source_topic"`
	TargetTopic string  `json:"target_topic"`
	Partition   int32   `json:"partition"`
	Verdict     Verdict `json:"verdict"`
	Why         string  `json:"why,omitempty"`
	Counts
	First *Difference `json:"first_difference,omitempty"`
	// Ranges that are equal, the first few; MoreRanges counts the others.
	Ranges     []Range   `json:"equal_ranges"`
	MoreRanges int64     `json:"more_equal_ranges,omitempty"`
	Skipped    []Skipped `json:"skipped,omitempty"`
	Notes      []string  `json:"notes,omitempty"`
}

// Skipped is a range of offsets of one side that was not read, since the other side has nothing to compare it with.
type Skipped struct {
	Side  string `json:"side"`
	First int64  `json:"first"`
	Last  int64  `json:"last"`
	Why   string `json:"why"`
}

// why says what the absence at the start of a side means for the other one.
func (b Absence) why(s Side) string {
	switch b {
	case Expired:
		return "expired at the " + s.String()
	case NotBegun:
		return "before the flow began"
	}
	return "older than what was asked for"
}

// A Difference is the first one of a partition.
type Difference struct {
	Kind   Kind     `json:"kind"`
	Fields []string `json:"fields,omitempty"` // that differ, where both sides have a record
	Source *Shown   `json:"source,omitempty"` // nil where the side has no such record
	Target *Shown   `json:"target,omitempty"`
}

// Shown is a record for people: quoted and shortened, null where it is null.
type Shown struct {
	Offset    int64    `json:"offset"`
	Timestamp *int64   `json:"timestamp"` // milliseconds; null where the record is gone by now
	Key       *string  `json:"key"`
	Value     *string  `json:"value"`
	Headers   []string `json:"headers,omitempty"`
}

// showTimeout bounds what is read for people, who may have asked to stop.
const showTimeout = 5 * time.Second

// show reads the records of a difference once more: only their digests were kept.
func (p *partition) show(ctx context.Context, pair Pair) *Difference {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), showTimeout)
	defer cancel()
	d := &Difference{Kind: pair.Kind}
	source, target := p.record(ctx, Source, pair.Source), p.record(ctx, Target, pair.Target)
	place := 0
	if source != nil && target != nil && pair.Kind == Changed {
		d.Fields, place = p.fields(*source, *target)
	}
	d.Source, d.Target = shown(pair.Source, source, place), shown(pair.Target, target, place)
	return d
}

// record is the one at an offset, nil where it can't be had.
func (p *partition) record(ctx context.Context, s Side, offset int64) *kafka.Record {
	if offset < 0 {
		return nil
	}
	l := p.logs[s]
	records, err := l.cluster.NewReader(l.tp, offset, offset+1, l.isolation, readBytes).Next(ctx)
	if err != nil || len(records) == 0 {
		return nil
	}
	return &records[0]
}

// fields names what differs, and the byte from which on the values do.
func (p *partition) fields(source, target kafka.Record) (fields []string, place int) {
	if !same(source.Key, target.Key) {
		fields = append(fields, "key")
	}
	if !same(source.Value, target.Value) {
		for place < min(len(source.Value), len(target.Value)) && source.Value[place] == target.Value[place] {
			place++
		}
		fields = append(fields, fmt.Sprintf("value from byte %d on", place))
	}
	if !slices.EqualFunc(source.Headers, target.Headers, func(a, b kafka.Header) bool { return a.Key == b.Key && same(a.Value, b.Value) }) {
		fields = append(fields, "headers")
	}
	if source.Timestamp != target.Timestamp && p.rules.Timestamps {
		fields = append(fields, "timestamp")
	}
	return fields, place
}

// same tells null from empty.
func same(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }

func shown(offset int64, r *kafka.Record, place int) *Shown {
	switch {
	case offset < 0:
		return nil
	case r == nil:
		return &Shown{Offset: offset}
	}
	s := &Shown{Offset: offset, Timestamp: &r.Timestamp, Key: excerpt(r.Key, 0), Value: excerpt(r.Value, place)}
	for _, h := range r.Headers {
		text := "null"
		if value := excerpt(h.Value, 0); value != nil {
			text = *value
		}
		if s.Headers = append(s.Headers, h.Key+"="+text); len(s.Headers) == shownHeaders {
			break
		}
	}
	return s
}

const (
	shownBytes   = 60 // of a key or value
	shownBefore  = 20 // of them in front of the place that matters
	shownHeaders = 20
)

// excerpt quotes what lies around a place.
func excerpt(b []byte, place int) *string {
	if b == nil {
		return nil
	}
	from := max(0, min(place-shownBefore, len(b)-shownBytes))
	to := min(len(b), from+shownBytes)
	text := strconv.Quote(string(b[from:to]))
	if to-from < len(b) {
		text = fmt.Sprintf("%s (bytes %d to %d of %d)", text, from, to-1, len(b))
	}
	return &text
}

// JSON writes the report for programs.
func (r Report) JSON(to io.Writer) error {
	e := json.NewEncoder(to)
	e.SetEscapeHTML(false) // "A->B" as people write it
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// Table writes the report for people: a line for each partition, what there is to say about some, and the verdict.
func (r Report) Table(to io.Writer) error {
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "FLOW\tSOURCE TOPIC\tTARGET TOPIC\tPARTITION\tVERDICT\tEQUAL\tMISSING\tEXTRA\tCHANGED\tDUPLICATED\tREORDERED\tBEHIND\tEXPIRED\tNOT COMPARED")
	partitions := map[Verdict]int{}
	equal := int64(0)
	for _, f := range r.Flows {
		for _, p := range f.Partitions {
			partitions[p.Verdict]++
			equal += p.Equal
			fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n",
				f.Flow, p.SourceTopic, p.TargetTopic, p.Partition, p.Verdict, p.Equal, p.Missing, p.Extra, p.Changed, p.Duplicated,
				p.Reordered, p.Behind, p.ExpiredSource+p.ExpiredTarget, p.NotBegun+p.TooOld+p.Compacted+p.Uncompared)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, f := range r.Flows {
		if f.Error != "" {
			fmt.Fprintf(to, "\n%s: %s: %s\n", f.Flow, f.Verdict, f.Error)
		}
		for _, p := range f.Partitions {
			p.remarks(to)
		}
		for _, topic := range slices.Sorted(maps.Keys(f.NotCopied)) {
			fmt.Fprintf(to, "\n%s: %q is not copied: %s\n", f.Flow, topic, f.NotCopied[topic])
		}
		if f.Gaps > 0 {
			fmt.Fprintf(to, "\n%s: decisions left gaps, %d on record, and what they cost is found here as well: kferry gaps '%s'\n", f.Flow, f.Gaps, f.Flow)
		}
	}
	var parts []string
	for _, v := range []Verdict{Equal, Different, NotComparable, Unfinished} {
		if n := partitions[v]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, v))
		}
	}
	verdict := strings.ToUpper(string(r.Verdict))
	if r.Why != "" {
		verdict += ": " + r.Why
	}
	_, err := fmt.Fprintf(to, "\n%s: %d records are equal; partitions: %s\n", verdict, equal, strings.Join(parts, ", "))
	return err
}

// remarks tell what the table has no room for.
func (p PartitionReport) remarks(to io.Writer) {
	if p.Why == "" && p.First == nil && len(p.Notes)+len(p.Skipped) == 0 {
		return
	}
	fmt.Fprintf(to, "\n%s-%d: %s", p.SourceTopic, p.Partition, p.Verdict)
	if p.Why != "" {
		fmt.Fprintf(to, ": %s", p.Why)
	}
	fmt.Fprintln(to)
	if p.First != nil {
		p.First.remark(to)
		for _, r := range p.Ranges {
			fmt.Fprintf(to, "  equal: source %d to %d, target %d to %d, %d records\n", r.SourceFirst, r.SourceLast, r.TargetFirst, r.TargetLast, r.Records)
		}
		if p.MoreRanges > 0 {
			fmt.Fprintf(to, "  equal: %d ranges more\n", p.MoreRanges)
		}
	}
	for _, s := range p.Skipped {
		fmt.Fprintf(to, "  not compared: %s %d to %d, %s\n", s.Side, s.First, s.Last, s.Why)
	}
	for _, n := range p.Notes {
		fmt.Fprintf(to, "  %s\n", n)
	}
}

func (d Difference) remark(to io.Writer) {
	fmt.Fprintf(to, "  first difference: %s", d.Kind)
	if len(d.Fields) > 0 {
		fmt.Fprintf(to, " (%s)", strings.Join(d.Fields, ", "))
	}
	fmt.Fprintln(to)
	d.Source.remark(to, Source)
	d.Target.remark(to, Target)
}

func (s *Shown) remark(to io.Writer, side Side) {
	switch {
	case s == nil:
	case s.Timestamp == nil:
		fmt.Fprintf(to, "    %s offset %d, which can't be read any more\n", side, s.Offset)
	default:
		fmt.Fprintf(to, "    %s offset %d, timestamp %d, key %s, value %s", side, s.Offset, *s.Timestamp, orNull(s.Key), orNull(s.Value))
		if len(s.Headers) > 0 {
			fmt.Fprintf(to, ", headers %s", strings.Join(s.Headers, " "))
		}
		fmt.Fprintln(to)
	}
}

func orNull(text *string) string {
	if text == nil {
		return "null"
	}
	return *text
}
