package functions

import (
	"errors"
	"fmt"
	"slices"

	"github.com/kferry/kferry/shared/batch"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// What of a fetched piece is copied, and in which shape. Values in, values out.

const (
	smallBytes = 32 << 10  // an uncompressed batch up to this size is merged with its neighbours
	mergeBytes = 256 << 10 // a merged batch grows up to this size
	inflation  = 4         // what compressed records are taken to need once decompressed

	maxInflated = 64 << 20 // most that they may need
)

// A unit is what goes to the target as a whole: one batch as it is, several merged into one, or one written anew as several.
type unit struct {
	batches []batch.Batch
	source  stretches // offsets of its records there
	next    int64     // source offset behind it
	epoch   int32     // the source's leader epoch just before that
	newest  int64     // greatest timestamp, milliseconds
	reason  batch.Reason
}

// A sight is what a fetched piece shows.
type sight struct {
	data  []batch.Batch // those that hold records to copy
	next  int64         // source offset behind all that was looked at
	epoch int32         // the source's leader epoch just before that
	wrong error         // about what lies at next, and ends the sight
}

// visible looks at piece from an offset on, with the leader epoch of what lies before. Control batches, aborted ones where the isolation level hides them, and those that compaction
// has emptied are looked at and left out.
func visible(piece *kafka.Fetched, from int64, epoch int32, isolation spec.Isolation) sight {
	seen := sight{next: from, epoch: epoch}
	aborted := abortedSet{pending: piece.Aborted}
	for records := piece.Records; len(records) > 0; {
		b, rest, err := batch.Next(records)
		if err == batch.ErrTruncated {
			break
		}
		if err != nil {
			seen.wrong = err
			break
		}
		records = rest
		hidden := isolation == spec.ReadCommitted && aborted.hides(b)
		if b.NextOffset() <= from {
			continue
		}
		seen.next, seen.epoch = b.NextOffset(), b.LeaderEpoch()
		if !hidden && !b.Control() && b.Records() > 0 {
			seen.data = append(seen.data, b)
		}
	}
	return seen
}

// abortedSet follows a fetch response's list of aborted transactions through its batches, as Kafka's own consumer does: a producer's
// batches are hidden from the first offset of its aborted transaction up to the marker that ends it.
type abortedSet struct {
	pending []kafka.Aborted
	open    map[int64]bool
}

func (s *abortedSet) hides(b batch.Batch) bool {
	s.pending = slices.DeleteFunc(s.pending, func(a kafka.Aborted) bool {
		begun := a.FirstOffset <= b.LastOffset()
		if begun {
			if s.open == nil {
				s.open = map[int64]bool{}
			}
			s.open[a.ProducerID] = true
		}
		return begun
	})
	if !b.Control() {
		return b.Transactional() && s.open[b.ProducerID()]
	}
	if abort, ok := b.Abort(); ok && abort {
		delete(s.open, b.ProducerID())
	}
	return true
}

// toEncode is about how many bytes the next unit will take in memory beside those that were fetched.
func (m *mirror) toEncode(data []batch.Batch) int64 {
	first := data[0]
	switch reason := m.check(first); {
	case reason == batch.Passed && !small(first), reason == batch.OldFormat:
		return 0
	case first.Codec() != batch.None:
		return int64(len(first)) * inflation
	case small(first):
		return m.mergeLimit()
	default:
		return int64(len(first))
	}
}

// cut takes the next unit off data. Beside an error the unit is what comes before the record that it is about.
func (m *mirror) cut(data []batch.Batch) (unit, []batch.Batch, error) {
	first := data[0]
	m.encoder.MaxBytes, m.encoder.SplitBytes, m.encoder.MaxInflated = m.facts.maxBytes, m.splitBytes, maxInflated
	var taken stretches
	m.encoder.Taken = func(offset int64) { taken = taken.add(offset, 1) }
	if u, rest, ok := m.merge(data); ok {
		u.source = taken
		return u, rest, nil
	}
	taken = nil
	u := unit{batches: data[:1:1], next: first.NextOffset(), epoch: first.LeaderEpoch(), newest: first.MaxTimestamp(), reason: m.check(first)}
	if u.reason == batch.Passed || u.reason == batch.OldFormat {
		u.source = stretches{{first.BaseOffset(), int64(first.Records())}}
		return u, data[1:], nil
	}
	var err error
	u.batches, err = m.encoder.Reencode(first, m.at.Offset)
	if large, ok := errors.AsType[*batch.RecordTooLargeError](err); ok {
		u.next = large.Offset
	}
	u.source = taken // of those behind u.next no batch was made
	return u, data[1:], err
}

func (m *mirror) check(b batch.Batch) batch.Reason {
	return b.Check(m.at.Offset, m.largest(b), m.facts.stamps)
}

// largest is the size up to which a batch is sent as it is; 0 is any.
func (m *mirror) largest(b batch.Batch) int {
	if m.splitBytes > 0 && b.Records() > 1 {
		return m.splitBytes
	}
	return m.facts.maxBytes
}

func small(b batch.Batch) bool { return len(b) <= smallBytes && b.Mergeable() }

// merge makes one batch of the small ones that data begins with, whatever else would have to be done to each. It is not ok where there
// are less than two, or one of them contradicts itself: the first goes alone then.
func (m *mirror) merge(data []batch.Batch) (u unit, rest []batch.Batch, ok bool) {
	if data[0].BaseOffset() < m.at.Offset {
		return u, data, false
	}
	n, size := 0, 0
	for n < len(data) && small(data[n]) && int64(size+len(data[n])) <= m.mergeLimit() {
		size += len(data[n])
		n++
	}
	if n < 2 {
		return u, data, false
	}
	merged, err := m.encoder.Merge(data[:n])
	if err != nil {
		return u, data, false
	}
	return unit{batches: []batch.Batch{merged}, next: data[n-1].NextOffset(), epoch: data[n-1].LeaderEpoch(), newest: merged.MaxTimestamp(), reason: batch.Small}, data[n:], true
}

// mergeLimit leaves room below the target's limit, since merging makes the records' deltas longer.
func (m *mirror) mergeLimit() int64 {
	limit := int64(mergeBytes)
	for _, most := range []int{m.facts.maxBytes, m.splitBytes} {
		if most > 0 {
			limit = min(limit, int64(most)*3/4)
		}
	}
	return limit
}

// unencodable is why the batch at the cursor can't be written anew.
func (m *mirror) unencodable(err error) error {
	if large, ok := errors.AsType[*batch.RecordTooLargeError](err); ok {
		return hold(lease.ReasonRecordTooLarge, "the record at offset %d of %s takes a batch of %d bytes, %s allows %d (max.message.bytes): raise the limit",
			large.Offset, m.from, large.Bytes, m.to.Topic, large.Limit)
	}
	if errors.Is(err, batch.ErrInflated) {
		return hold(lease.ReasonRecordTooLarge, "the batch after offset %d of %s has to be written anew and decompresses to more than %d bytes", m.at.Offset, m.from, maxInflated)
	}
	return hold(lease.ReasonCorruptBatch, "%s at or after offset %d: %v", m.from, m.at.Offset, err)
}

// unreadable is why a sight ended.
func (m *mirror) unreadable(s sight) error {
	if errors.Is(s.wrong, batch.ErrMagic) {
		return hold(lease.ReasonUnsupported, "%s holds batches in a format that this kferry does not know at offset %d: %v", m.from, s.next, s.wrong)
	}
	if errors.Is(s.wrong, batch.ErrInflated) {
		return hold(lease.ReasonRecordTooLarge, "%s at offset %d: %v", m.from, s.next, s.wrong)
	}
	return hold(lease.ReasonCorruptBatch, "%s at offset %d: %v", m.from, s.next, s.wrong)
}

// writer names a batch's producer for people.
func writer(b batch.Batch) string {
	switch id := b.ProducerID(); {
	case b.Control():
		return fmt.Sprintf("a transaction's marker (producer id %d)", id)
	case batch.Computed(id):
		return fmt.Sprintf("another kferry identity (producer id %#x, epoch %d)", id, b.ProducerEpoch())
	case id < 0:
		return "a producer without an id"
	default:
		return fmt.Sprintf("producer id %d", id)
	}
}
