package functions_test

import (
	"fmt"
	"io"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	positions "github.com/kferry/kferry/shared/offsets"
	"github.com/kferry/kferry/shared/spec"
)

// everyRecord is what a partition holds, in order.
func (w *world) everyRecord(c *kafka.Cluster, name string, partition int32, isolation spec.Isolation) (all []kafka.Record) {
	w.Helper()
	tp := kafka.TopicPartition{Topic: name, Partition: partition}
	start, err := c.LogStart(w.Context(), tp)
	w.must(err)
	ends, err := c.ListOffsets(w.Context(), []kafka.TopicPartition{tp}, kafka.Latest, isolation)
	w.must(err)
	r := c.NewReader(tp, start.Offset, ends[tp].Offset, isolation, 1<<20)
	for {
		records, err := r.Next(w.Context())
		if err == io.EOF {
			return all
		}
		w.must(err)
		all = append(all, records...)
	}
}

func contentOf(r kafka.Record) string { return fmt.Sprintf("%q %q %d", r.Key, r.Value, r.Timestamp) }

// numbered names the records of a side, where some have the same content.
func numbered() func(kafka.Record) string {
	seen := map[string]int{}
	return func(r kafka.Record) string {
		content := contentOf(r)
		seen[content]++
		return fmt.Sprint(content, seen[content])
	}
}

// landed is where the records of a source partition are on the target, as the test has found by itself.
type landed struct {
	records []kafka.Record
	target  []int64 // where each has landed last; -1: nowhere
	end     int64   // of the target
}

func (w *world) landed(partition int32) (l landed) {
	w.Helper()
	l.records, l.end = w.everyRecord(w.source, topic, partition, w.flow.Isolation), w.targetEnd(partition)
	contents := map[string]bool{}
	for _, r := range l.records {
		contents[contentOf(r)] = true
	}
	of, from := contentOf, contentOf
	if len(contents) < len(l.records) {
		of, from = numbered(), numbered()
	}
	last := map[string]int64{}
	for _, r := range w.everyRecord(w.target, replica, partition, spec.ReadUncommitted) {
		last[of(r)] = r.Offset
	}
	for _, r := range l.records {
		at, is := last[from(r)]
		if !is {
			at = -1
		}
		l.target = append(l.target, at)
	}
	return l
}

// from is where the first record from a source offset on has landed.
func (l landed) from(u int64) int64 {
	at := l.end
	for i, r := range l.records {
		if r.Offset >= u && l.target[i] >= 0 {
			at = min(at, l.target[i])
		}
	}
	return at
}

// again is how many records before u lie at a target offset or behind it.
func (l landed) again(u, at int64) (n int) {
	for i, r := range l.records {
		if r.Offset < u && l.target[i] >= at {
			n++
		}
	}
	return n
}

func positionOf(c lease.Cursor) positions.Cursor {
	return positions.Cursor{Offset: c.Offset, Target: c.Target, Mapped: c.Mapped, Map: c.Map}
}

// translated holds every position against the records themselves: none passes a record over, and an exact one brings none again. It
// returns how many of those that are copied aren't exact. The test has to have seen the copy complete.
func (w *world) translated() (inexact int) {
	w.Helper()
	all := positions.Open(w.flow, w.target)
	for partition := range w.partitions {
		c := w.cursor(partition)
		w.must(all.Refresh(w.Context()))
		l := w.landed(partition)
		step := max(1, c.Offset/500)
		for u := int64(0); u <= c.Offset+2; u += step {
			got := all.Translate(kafka.TopicPartition{Topic: topic, Partition: partition}, positionOf(c), u)
			want := l.from(u)
			if again := l.again(u, got.Target); got.Target > want || got.Exact && again > 0 {
				w.Fatalf("position %d of partition %d is translated to %+v: the record is at %d, and %d come again", u, partition, got, want, again)
			}
			if !got.Exact && u <= c.Offset {
				inexact++
			}
		}
	}
	return inexact
}
