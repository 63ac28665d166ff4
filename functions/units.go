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
)

// A unit is what goes to the target as a whole: one batch as it is, several merged into one, or one written anew as several.
type unit struct {
	batches []batch.Batch
	next    int64 // source offset behind it
	newest  int64 // greatest timestamp, milliseconds
	epoch   int32 // source's leader epoch at its end
	reason  batch.Reason
}

// visible returns the batches of piece that hold records at from or above which the isolation level shows, and the offset behind all
// that it has looked at. Control batches, aborted ones and those that compaction has emptied are looked at and left out. An error is
// about what lies at next; what comes before it is as good as ever.
func visible(piece *kafka.Fetched, from int64, isolation spec.Isolation) (data []batch.Batch, next int64, err error) {
	next = from
	aborted := abortedSet{pending: piece.Aborted}
	for records := piece.Records; len(records) > 0; {
		b, rest, err := batch.Next(records)
		if err == batch.ErrTruncated {
			break
		}
		if err != nil {
			return data, next, err
		}
		records = rest
		hidden := isolation == spec.ReadCommitted && aborted.hides(b)
		if b.NextOffset() <= from {
			continue
		}
		next = b.NextOffset()
		if !hidden && !b.Control() && b.Records() > 0 {
			data = append(data, b)
		}
	}
	return data, next, nil
}

// stableEnd is the offset up to which the isolation level shows records.
func stableEnd(piece *kafka.Fetched, isolation spec.Isolation) int64 {
	if isolation == spec.ReadCommitted {
		return piece.LastStable
	}
	return piece.HighWatermark
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
	switch first := data[0]; {
	case first.Check(m.at.Offset, m.facts.maxBytes) == batch.Passed && !small(first):
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
	u := unit{next: first.NextOffset(), newest: first.MaxTimestamp(), epoch: first.LeaderEpoch(), reason: first.Check(m.at.Offset, m.facts.maxBytes)}
	m.encoder.MaxBytes = m.facts.maxBytes
	switch {
	case u.reason != batch.Passed:
		var err error
		u.batches, err = m.encoder.Reencode(first, m.at.Offset)
		if large, ok := errors.AsType[*batch.RecordTooLargeError](err); ok {
			u.next = large.Offset
		}
		return u, data[1:], err
	case small(first):
		return m.merge(data)
	}
	u.batches = data[:1:1]
	return u, data[1:], nil
}

func small(b batch.Batch) bool { return len(b) <= smallBytes && b.Mergeable() }

// merge makes one batch of the small ones that data begins with.
func (m *mirror) merge(data []batch.Batch) (unit, []batch.Batch, error) {
	n, size := 1, len(data[0])
	for n < len(data) && small(data[n]) && int64(size+len(data[n])) <= m.mergeLimit() {
		size += len(data[n])
		n++
	}
	run := data[:n:n]
	u := unit{next: run[n-1].NextOffset(), newest: run[0].MaxTimestamp(), epoch: run[n-1].LeaderEpoch(), batches: run}
	if n == 1 {
		return u, data[1:], nil
	}
	for _, b := range run {
		u.newest = max(u.newest, b.MaxTimestamp())
	}
	merged, err := m.encoder.Merge(run)
	if err != nil {
		return unit{}, nil, err
	}
	u.batches, u.reason = []batch.Batch{merged}, batch.Small
	return u, data[n:], nil
}

// mergeLimit leaves room below the target's limit, since merging makes the records' deltas longer.
func (m *mirror) mergeLimit() int64 {
	if m.facts.maxBytes > 0 {
		return min(mergeBytes, int64(m.facts.maxBytes)*3/4)
	}
	return mergeBytes
}

// unencodable is why the batch at the cursor can't be written anew.
func (m *mirror) unencodable(err error) error {
	if large, ok := errors.AsType[*batch.RecordTooLargeError](err); ok {
		return hold(lease.ReasonRecordTooLarge, "the record at offset %d of %s takes a batch of %d bytes, %s allows %d (max.message.bytes): raise the limit",
			large.Offset, m.from, large.Bytes, m.to.Topic, large.Limit)
	}
	return hold(lease.ReasonCorruptBatch, "%s at or after offset %d: %v", m.from, m.at.Offset, err)
}

// writer names a batch's producer for people.
func writer(b batch.Batch) string {
	switch id := b.ProducerID(); {
	case b.Control():
		return fmt.Sprintf("a transaction's marker (producer id %d)", id)
	case id>>56 == identityTag:
		return fmt.Sprintf("another kferry identity (producer id %#x, epoch %d)", id, b.ProducerEpoch())
	case id < 0:
		return "a producer without an id"
	default:
		return fmt.Sprintf("producer id %d", id)
	}
}
