package batch

import "sync"

// writer writes records one after the other, behind the room for a header.
type writer struct {
	bytes      []byte
	baseOffset int64
	next       int32 // offset delta of the record to come
	count      int32
	baseTime   int64 // the first record's: what Kafka's own clients take
	maxTime    int64
}

// newWriter writes into buffer, of which it keeps only the room.
func newWriter(buffer []byte, baseOffset int64) writer {
	var header [HeaderBytes]byte
	return writer{bytes: append(buffer[:0], header[:]...), baseOffset: baseOffset}
}

func (w *writer) add(timestamp int64, r rawRecord) {
	if w.count == 0 {
		w.baseTime, w.maxTime = timestamp, timestamp
	}
	w.maxTime = max(w.maxTime, timestamp)
	w.bytes = r.append(w.bytes, timestamp-w.baseTime, w.next)
	w.next++
	w.count++
}

// batch is what has been written, in place.
func (w *writer) batch() Batch { return w.head(w.bytes, None) }

// deflated is what has been written, compressed into buffer.
func (w *writer) deflated(buffer []byte, c Codec) (Batch, error) {
	out, err := c.deflate(append(buffer[:0], w.bytes[:HeaderBytes]...), w.bytes[HeaderBytes:])
	if err != nil {
		return nil, err
	}
	return w.head(out, c), nil
}

func (w *writer) head(b Batch, c Codec) Batch {
	b.putInt64(0, w.baseOffset)
	b.putInt32(atLength, int32(len(b)-prefixBytes))
	b.putInt32(atLeaderEpoch, unknownEpoch)
	b[atMagic] = 2
	b.putInt16(atAttributes, int16(c))
	b.putInt32(atLastDelta, w.next-1)
	b.putInt64(atBaseTime, w.baseTime)
	b.putInt64(atMaxTime, w.maxTime)
	b.putInt64(atProducerID, noProducer)
	b.putInt16(atEpoch, noProducer)
	b.putInt32(atSequence, noSequence)
	b.putInt32(atCount, w.count)
	b.seal()
	return b
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
