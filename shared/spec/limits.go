package spec

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Limits are the most that a flow may read from its source in a second, all workers together. The zero value limits nothing.
type Limits struct {
	Rate
	// ByBytes and ByRecords hold topics to less. Of each list the first entry that matches a topic counts, for each such topic by
	// itself and for all its partitions together; the flow's own limit holds beside it.
	ByBytes, ByRecords []TopicLimit
}

// A Rate is so much in a second; 0 is no limit.
type Rate struct {
	Bytes   int64 // as fetched: batches as they are stored, compressed
	Records int64
}

// A TopicLimit is that of every topic whose name matches.
type TopicLimit struct {
	Topics    Patterns
	PerSecond int64
}

// Topic is what holds for a topic beside the flow's limit.
func (l Limits) Topic(topic string) Rate {
	return Rate{Bytes: first(l.ByBytes, topic), Records: first(l.ByRecords, topic)}
}

func first(limits []TopicLimit, topic string) int64 {
	for _, l := range limits {
		if l.Topics.Match(topic) {
			return l.PerSecond
		}
	}
	return 0
}

// String is the limits for people: "5MiB/s, 1000 records/s, orders 1MiB/s"; "none" where there are none.
func (l Limits) String() string {
	parts := l.Rate.parts()
	for _, t := range l.ByBytes {
		parts = append(parts, fmt.Sprintf("%s %s", t.Topics, Rate{Bytes: t.PerSecond}))
	}
	for _, t := range l.ByRecords {
		parts = append(parts, fmt.Sprintf("%s %s", t.Topics, Rate{Records: t.PerSecond}))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// String is the rate for people: "5MiB/s, 1000 records/s", or "none".
func (r Rate) String() string { return Limits{Rate: r}.String() }

func (r Rate) parts() (parts []string) {
	if r.Bytes > 0 {
		parts = append(parts, Bytes(r.Bytes).String()+"/s")
	}
	if r.Records > 0 {
		parts = append(parts, fmt.Sprintf("%d records/s", r.Records))
	}
	return parts
}

func (l Limits) equal(other Limits) bool {
	same := func(a, b TopicLimit) bool {
		return a.Topics.String() == b.Topics.String() && a.PerSecond == b.PerSecond
	}
	return l.Rate == other.Rate && slices.EqualFunc(l.ByBytes, other.ByBytes, same) && slices.EqualFunc(l.ByRecords, other.ByRecords, same)
}

// ParseByteRate reads bytes per second.
func ParseByteRate(text string) (int64, error) {
	n, err := ParseBytes(text)
	if err != nil {
		return 0, errors.New("not a number of bytes in a second; give a whole number, or one followed by KiB, MiB or GiB, like 5MiB, or 0 for no limit")
	}
	return int64(n), nil
}

// ParseRecordRate reads records per second.
func ParseRecordRate(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, errors.New("not a number of records in a second; give a whole number, like 1000, or 0 for no limit")
	}
	return n, nil
}

// parseTopicLimits reads "orders=5MiB,invoices-.*=1MiB": regular expressions for whole names, each with its limit.
func parseTopicLimits(parse func(string) (int64, error)) func(string) ([]TopicLimit, error) {
	return func(text string) (all []TopicLimit, err error) {
		for entry := range strings.SplitSeq(text, ",") {
			i := strings.LastIndexByte(entry, '=')
			if i < 0 || strings.TrimSpace(entry[:i]) == "" {
				return nil, fmt.Errorf("%q is not TOPICS=LIMIT; write a regular expression for whole names and its limit, like invoices-.*=1MiB, and a comma before the next one", entry)
			}
			l := TopicLimit{}
			if l.Topics, err = ParsePatterns(entry[:i]); err != nil {
				return nil, fmt.Errorf("%q: %w", entry[:i], err)
			}
			if l.PerSecond, err = parse(strings.TrimSpace(entry[i+1:])); err != nil {
				return nil, fmt.Errorf("%q: %w", entry[i+1:], err)
			}
			all = append(all, l)
		}
		return all, nil
	}
}

// limitTexts are limits as they were written.
type limitTexts struct{ bytes, records, byBytes, byRecords value }

func (r *report) limits(t limitTexts, otherwise Limits) Limits {
	return Limits{
		Rate: Rate{
			Bytes:   read(r, t.bytes, ParseByteRate, otherwise.Bytes),
			Records: read(r, t.records, ParseRecordRate, otherwise.Records),
		},
		ByBytes:   read(r, t.byBytes, parseTopicLimits(ParseByteRate), otherwise.ByBytes),
		ByRecords: read(r, t.byRecords, parseTopicLimits(ParseRecordRate), otherwise.ByRecords),
	}
}
