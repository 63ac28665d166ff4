package batch

import (
	"encoding/binary"
	"iter"
	"math"
	"math/bits"
)

// Record is one record, decoded. Kafka tells null from empty, so nil and empty differ here too.
type Record struct {
	Offset, Timestamp int64
	Key, Value        []byte
	Headers           []Header
}

// Header is one of a record's headers. Only its value may be null.
type Header struct {
	Key   string
	Value []byte
}

// Of builds an uncompressed batch of records, as a producer without an identity would. Offsets must rise: a record that has
// none of its own gets the one after its predecessor's. Of nothing it makes nil.
func Of(records ...Record) Batch {
	if len(records) == 0 {
		return nil
	}
	w := newWriter(nil, records[0].Offset)
	for _, r := range records {
		w.next = max(w.next, int32(r.Offset-w.baseOffset))
		w.add(r.Timestamp, rawRecord{rest: r.AppendContent(nil)})
	}
	return w.batch()
}

// AppendContent appends key, value and headers as a record has them: the same bytes, the same content.
func (r Record) AppendContent(dst []byte) []byte {
	dst = appendBytes(dst, r.Key)
	dst = appendBytes(dst, r.Value)
	dst = binary.AppendVarint(dst, int64(len(r.Headers)))
	for _, h := range r.Headers {
		dst = binary.AppendVarint(dst, int64(len(h.Key)))
		dst = append(dst, h.Key...)
		dst = appendBytes(dst, h.Value)
	}
	return dst
}

func appendBytes(dst, v []byte) []byte {
	if v == nil {
		return binary.AppendVarint(dst, -1)
	}
	return append(binary.AppendVarint(dst, int64(len(v))), v...)
}

// Each decodes b's records in order, of at most maxInflated decompressed bytes (0: DefaultMaxInflated). It is for the few
// records that have to be understood; they stay valid as long as b does. An error is the last thing it yields.
func (b Batch) Each(maxInflated int) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		records, err := b.inflate(nil, maxInflated)
		if err != nil {
			yield(Record{}, err)
			return
		}
		for raw, err := range b.raw(records) {
			if err != nil {
				yield(Record{}, err)
				return
			}
			r := Record{Offset: b.BaseOffset() + int64(raw.offsetDelta), Timestamp: b.timestamp(raw)}
			if !r.readRest(raw.rest) {
				yield(Record{}, b.malformed("record at offset %d", r.Offset))
				return
			}
			if !yield(r, nil) {
				return
			}
		}
	}
}

// inflate is b's records decompressed into dst, or a view of b where they were never compressed.
func (b Batch) inflate(dst []byte, limit int) ([]byte, error) {
	if len(b) < HeaderBytes {
		return nil, &FormatError{Detail: "no header"}
	}
	if b.Records() == 0 {
		return nil, nil
	}
	if limit <= 0 {
		limit = DefaultMaxInflated
	}
	records, err := b.Codec().inflate(dst, b[HeaderBytes:], limit)
	if err != nil {
		return nil, &FormatError{Offset: b.BaseOffset(), Detail: b.Codec().String(), Err: err}
	}
	return records, nil
}

func (r *Record) readRest(src []byte) (ok bool) {
	if r.Key, src, ok = cutBytes(src); !ok {
		return false
	}
	if r.Value, src, ok = cutBytes(src); !ok {
		return false
	}
	count, src, ok := cutInt32(src)
	if !ok || count < 0 || int(count) > len(src)/2 { // a header takes two bytes at least
		return false
	}
	for range count {
		var key, value []byte
		if key, src, ok = cutBytes(src); !ok || key == nil {
			return false
		}
		if value, src, ok = cutBytes(src); !ok {
			return false
		}
		r.Headers = append(r.Headers, Header{string(key), value})
	}
	return len(src) == 0
}

// rawRecord is a record taken apart as far as copying it needs.
type rawRecord struct {
	attributes     byte
	timestampDelta int64
	offsetDelta    int32
	rest           []byte // key, value, headers: never looked into
}

// raw walks the decompressed records of b, and checks that they are as many as the header says, their offsets rising and
// within the batch's, with nothing after them.
func (b Batch) raw(records []byte) iter.Seq2[rawRecord, error] {
	return func(yield func(rawRecord, error) bool) {
		previous := int32(-1)
		for i := range b.Records() {
			r, rest, ok := cutRecord(records)
			switch {
			case !ok:
				yield(r, b.malformed("record %d of %d", i, b.Records()))
				return
			case r.offsetDelta <= previous || r.offsetDelta > b.LastOffsetDelta():
				yield(r, b.malformed("offset delta %d after %d, last is %d", r.offsetDelta, previous, b.LastOffsetDelta()))
				return
			case !yield(r, nil):
				return
			}
			records, previous = rest, r.offsetDelta
		}
		if len(records) > 0 {
			yield(rawRecord{}, b.malformed("%d bytes after record %d", len(records), b.Records()))
		}
	}
}

// timestamp is r's in b. The difference may wrap, and wraps back here.
func (b Batch) timestamp(r rawRecord) int64 {
	if b.LogAppendTime() {
		return b.MaxTimestamp()
	}
	return b.BaseTimestamp() + r.timestampDelta
}

// cutRecord cuts the first record off decompressed ones.
func cutRecord(src []byte) (r rawRecord, rest []byte, ok bool) {
	length, src, ok := cutInt32(src)
	if !ok || length < 1 || int(length) > len(src) {
		return r, nil, false
	}
	body, rest := src[:length], src[length:]
	r.attributes = body[0]
	var n int
	if r.timestampDelta, n = binary.Varint(body[1:]); n <= 0 {
		return r, nil, false
	}
	r.offsetDelta, r.rest, ok = cutInt32(body[1+n:])
	return r, rest, ok
}

// append writes r with other deltas.
func (r rawRecord) append(dst []byte, timestampDelta int64, offsetDelta int32) []byte {
	length := 1 + varintBytes(timestampDelta) + varintBytes(int64(offsetDelta)) + len(r.rest)
	dst = binary.AppendVarint(dst, int64(length))
	dst = append(dst, r.attributes)
	dst = binary.AppendVarint(dst, timestampDelta)
	dst = binary.AppendVarint(dst, int64(offsetDelta))
	return append(dst, r.rest...)
}

// cutBytes cuts a length and that many bytes; nil if the length is that of null.
func cutBytes(src []byte) (v, rest []byte, ok bool) {
	length, src, ok := cutInt32(src)
	switch {
	case !ok || length < -1 || int(length) > len(src):
		return nil, nil, false
	case length == -1:
		return nil, src, true
	}
	return src[:length:length], src[length:], true
}

func cutInt32(src []byte) (v int32, rest []byte, ok bool) {
	wide, n := binary.Varint(src)
	if n <= 0 || wide < math.MinInt32 || wide > math.MaxInt32 {
		return 0, nil, false
	}
	return int32(wide), src[n:], true
}

func varintBytes(v int64) int {
	zigzag := uint64(v<<1) ^ uint64(v>>63)
	return (bits.Len64(zigzag|1) + 6) / 7
}
