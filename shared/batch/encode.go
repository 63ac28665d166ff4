package batch

import (
	"errors"
	"fmt"
	"slices"
	"sync"
)

const (
	// DefaultMaxBytes is Kafka's default for max.message.bytes.
	DefaultMaxBytes = 1048588

	// DefaultMaxInflated bounds decompression where nobody says otherwise: far above what producers build, far below what
	// hurts.
	DefaultMaxInflated = 256 << 20
)

// ErrTooLarge is Merge's answer when the batches don't fit into one.
var ErrTooLarge = errors.New("merged batch exceeds the limit")

// RecordTooLargeError names a record that no batch within the limit can hold.
type RecordTooLargeError struct {
	Offset int64
	Bytes  int // size of the batch that would hold it alone
	Limit  int
}

func (e *RecordTooLargeError) Error() string {
	return fmt.Sprintf("record at offset %d takes a batch of %d bytes, limit is %d", e.Offset, e.Bytes, e.Limit)
}

// Encoder writes records into new batches. The result is dense, CreateTime, of no producer, and begins at the source offset
// of its first record; Patch makes it somebody's. Any number of goroutines may use one, and an idle one holds no memory.
type Encoder struct {
	MaxBytes    int // largest batch to build: the target's max.message.bytes; 0: DefaultMaxBytes
	SplitBytes  int // largest batch of several records to build, where that is less; 0: MaxBytes
	MaxInflated int // largest decompressed size of a batch; 0: DefaultMaxInflated
	// Taken is told the source offset of each record that goes into a batch, in order, or that would have gone into one where there is an
	// error. Whoever shares an Encoder has none.
	Taken func(offset int64)
}

// Reencode writes b's records at offset from and above into batches of the same codec, more than one where MaxBytes asks
// for it. Records keep all but their offset; those of a LogAppendTime batch get the timestamp that readers of it see.
//
// Before a record that is too large even alone, it ends with a *RecordTooLargeError, and returns the batches up to there. To
// leave the record out, go on from the offset after it.
func (e *Encoder) Reencode(b Batch, from int64) ([]Batch, error) {
	return e.reencode(b, func(_ int, offset int64) bool { return offset >= from })
}

// CutRecords is Reencode for whoever counts records: it leaves out the first skip of them.
func (e *Encoder) CutRecords(b Batch, skip int) ([]Batch, error) {
	return e.reencode(b, func(i int, _ int64) bool { return i >= skip })
}

func (e *Encoder) reencode(b Batch, wanted func(i int, offset int64) bool) ([]Batch, error) {
	s := scratches.Get().(*scratch)
	defer s.release()
	records, err := b.inflate(s.inflated[:0], e.MaxInflated)
	if err != nil {
		return nil, err
	}
	if b.Control() {
		return nil, errors.New("a control batch would become a record")
	}
	if b.Codec() != None {
		s.inflated = records
	}
	part := span{bytes: records, count: int(b.Records())}
	i := 0
	for r, err := range b.raw(records) {
		if err != nil {
			return nil, err
		}
		if offset := b.BaseOffset() + int64(r.offsetDelta); !wanted(i, offset) {
			_, part.bytes, _ = cutRecord(part.bytes)
			part.count--
		} else if e.Taken != nil {
			e.Taken(offset)
		}
		i++
	}
	if part.count == 0 {
		return nil, nil
	}
	return e.split(nil, b, part, s)
}

// split appends the batches that hold part of b's records, halving it until each fits.
func (e *Encoder) split(done []Batch, b Batch, part span, s *scratch) ([]Batch, error) {
	made, err := s.build(b, part)
	if err != nil {
		return done, err
	}
	if len(made) <= e.splitBytes() || part.count == 1 && len(made) <= e.maxBytes() {
		return append(done, slices.Clone(made)), nil
	}
	if part.count == 1 {
		return done, &RecordTooLargeError{Offset: made.BaseOffset(), Bytes: len(made), Limit: e.maxBytes()}
	}
	left, right := part.halve()
	if done, err = e.split(done, b, left, s); err != nil {
		return done, err
	}
	return e.split(done, b, right, s)
}

// Merge writes the records of mergeable batches into one, in order. Per record only the two deltas change, so it costs little
// more than the copy. Its offsets are dense even where those between the batches are not. Where they don't fit into MaxBytes
// it fails with ErrTooLarge: merge fewer.
func (e *Encoder) Merge(batches []Batch) (Batch, error) {
	if len(batches) == 0 {
		return nil, errors.New("merge of no batches")
	}
	size := 0
	for _, b := range batches {
		if len(b) < HeaderBytes || !b.Mergeable() {
			return nil, errors.New("merge of a batch that is not mergeable")
		}
		size += len(b)
	}
	w := newWriter(make([]byte, 0, size+size/16), batches[0].BaseOffset())
	for _, b := range batches {
		for r, err := range b.raw(b[HeaderBytes:]) {
			if err != nil {
				return nil, err
			}
			w.add(b.timestamp(r), r)
			if e.Taken != nil {
				e.Taken(b.BaseOffset() + int64(r.offsetDelta))
			}
		}
	}
	if len(w.bytes) > e.splitBytes() {
		return nil, ErrTooLarge
	}
	return w.batch(), nil
}

func (e *Encoder) splitBytes() int {
	if e.SplitBytes > 0 {
		return min(e.SplitBytes, e.maxBytes())
	}
	return e.maxBytes()
}

func (e *Encoder) maxBytes() int {
	if e.MaxBytes > 0 {
		return e.MaxBytes
	}
	return DefaultMaxBytes
}

// span is some of a batch's decompressed records, known to be well-formed.
type span struct {
	bytes []byte
	count int
}

// halve splits the span where half its bytes are passed, with at least one record on either side.
func (p span) halve() (left, right span) {
	right = p
	for left.count == 0 || right.count > 1 && 2*len(left.bytes) < len(p.bytes) {
		_, right.bytes, _ = cutRecord(right.bytes)
		right.count--
		left.count++
		left.bytes = p.bytes[:len(p.bytes)-len(right.bytes)]
	}
	return left, right
}

// scratch is the memory for taking a batch apart and building others.
type scratch struct {
	inflated, plain, deflated []byte
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// keptBytes is the largest buffer worth keeping for the next batch.
const keptBytes = 4 << 20

func (s *scratch) release() {
	for _, buffer := range []*[]byte{&s.inflated, &s.plain, &s.deflated} {
		if cap(*buffer) > keptBytes {
			*buffer = nil
		}
	}
	scratches.Put(s)
}

// build writes part of b's records into one batch, which is valid until the next call.
func (s *scratch) build(b Batch, part span) (Batch, error) {
	first, _, _ := cutRecord(part.bytes)
	w := newWriter(s.plain, b.BaseOffset()+int64(first.offsetDelta))
	for rest := part.bytes; len(rest) > 0; {
		var r rawRecord
		r, rest, _ = cutRecord(rest)
		w.add(b.timestamp(r), r)
	}
	s.plain = w.bytes
	made, err := w.deflated(s.deflated, b.Codec())
	s.deflated = made
	return made, err
}
