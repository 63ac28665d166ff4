package batch

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"math/bits"
	"slices"
)

// Before Kafka 0.11 a log was made of messages, and a broker serves as it stands what it has kept since. A message of magic 0 or 1,
// big-endian:
//
//	 0  int64  offset
//	 8  int32  length of all that follows
//	12  uint32 CRC-32 (IEEE) of all that follows
//	16  int8   magic
//	17  int8   attributes: 0x07 codec, 0x08 log append time (magic 1)
//	18  int64  timestamp (magic 1)
//	    int32 length and bytes of the key, of the value (-1: null)
//
// With a codec the value is a set of further messages, and the message no more than their wrapper. Its offset is that of the last of them.
// Theirs are absolute in a wrapper of magic 0; in one of magic 1 they count from a base that only the last one's tells.

const (
	leastMessageBytes = 26 // of magic 0, from its offset on, with neither key nor value
	timestampBytes    = 8  // more in magic 1
	noTimestamp       = -1

	// runBytes bounds how much of the messages that lie side by side becomes one batch; by themselves they would make one each.
	runBytes = 256 << 10

	// maxWrapped bounds what a wrapper's messages may take once decompressed. Whoever calls Next has set no memory aside for it.
	maxWrapped = 64 << 20
)

type message struct {
	offset        int64
	magic         int8
	attributes    byte
	timestamp     int64
	key, value    []byte
	logAppendTime bool
}

func (m message) codec() Codec { return Codec(m.attributes & codecBits) }

func (m message) malformed(format string, args ...any) error {
	return &FormatError{Offset: m.offset, Detail: fmt.Sprintf(format, args...)}
}

// beginsWithMessage says that records go on in one of the formats before record batches.
func beginsWithMessage(records []byte) bool { return len(records) > atMagic && records[atMagic] <= 1 }

// nextMessages is Next where messages come first: a wrapper, or all that lie side by side without one, as a batch of magic 2. A message
// that can't be trusted ends what comes before it, and is the next call's.
func nextMessages(records []byte) (b Batch, rest []byte, err error) {
	first, rest, err := cutMessage(records)
	if err != nil {
		return nil, records, err
	}
	s := scratches.Get().(*scratch)
	defer s.release()
	if first.codec() != None {
		if b, err = s.unwrap(first); err != nil {
			return nil, records, err
		}
		return b, rest, nil
	}
	w := messageWriter{writer: newWriter(s.plain, first.offset)}
	w.take(first, first.timestamp)
	for len(records)-len(rest) < runBytes {
		m, after, err := cutMessage(rest)
		if err != nil || m.codec() != None || !w.follows(m) {
			break
		}
		w.take(m, m.timestamp)
		rest = after
	}
	w.attributes = oldFormatBit
	s.plain = w.bytes
	return slices.Clone(w.batch()), rest, nil
}

// unwrap is a wrapper's messages as a batch of the same codec.
func (s *scratch) unwrap(wrapper message) (Batch, error) {
	set, err := wrapper.inflate(s.inflated[:0])
	s.inflated = set
	if err != nil {
		return nil, &FormatError{Offset: wrapper.offset, Detail: wrapper.codec().String(), Err: err}
	}
	w := messageWriter{writer: newWriter(s.plain, 0)}
	for n := 0; len(set) > 0; n++ {
		var m message
		if m, set, err = cutMessage(set); err != nil {
			return nil, wrapper.malformed("inner message %d: %v", n, err)
		}
		if n == 0 {
			w.baseOffset = m.offset
		}
		switch {
		case m.codec() != None:
			return nil, wrapper.malformed("inner message %d is compressed", n)
		case n > 0 && !w.follows(m):
			return nil, wrapper.malformed("inner message %d at offset %d after %d", n, m.offset, w.last())
		case wrapper.logAppendTime && m.magic == 1:
			m.timestamp = wrapper.timestamp
		}
		w.take(m, m.timestamp)
	}
	s.plain = w.bytes
	missing := wrapper.offset - w.last()
	switch {
	case w.count == 0:
		return nil, wrapper.malformed("no inner message")
	case missing < 0 || wrapper.magic == 0 && missing > math.MaxInt32-int64(w.next):
		return nil, wrapper.malformed("last inner message at offset %d", w.last())
	case wrapper.magic == 0:
		w.next += int32(missing)
	default:
		w.baseOffset += missing
	}
	w.attributes = oldFormatBit
	made, err := w.deflated(s.deflated, wrapper.codec())
	if err != nil {
		return nil, err
	}
	s.deflated = made
	return slices.Clone(made), nil
}

// messageWriter writes messages as records at the same offsets.
type messageWriter struct {
	writer
	rest []byte // of the last record
}

// last is the offset of the last message written.
func (w *messageWriter) last() int64 { return w.baseOffset + int64(w.next) - 1 }

// follows says that m can stand in the same batch as what has been written.
func (w *messageWriter) follows(m message) bool {
	return m.offset > w.last() && m.offset-w.baseOffset < math.MaxInt32
}

func (w *messageWriter) take(m message, timestamp int64) {
	w.next = int32(m.offset - w.baseOffset)
	w.rest = Record{Key: m.key, Value: m.value}.AppendContent(w.rest[:0])
	w.add(timestamp, rawRecord{rest: w.rest})
}

// cutMessage cuts the first message off and verifies it. A wrapper's value is left as it is.
func cutMessage(src []byte) (m message, rest []byte, err error) {
	if len(src) <= atMagic {
		return m, src, ErrTruncated
	}
	m.offset, m.magic, m.timestamp = int64(binary.BigEndian.Uint64(src)), int8(src[atMagic]), noTimestamp
	if m.magic != 0 && m.magic != 1 {
		return m, src, &FormatError{Offset: m.offset, Detail: fmt.Sprintf("magic %d", m.magic), Err: ErrMagic}
	}
	length := int64(int32(binary.BigEndian.Uint32(src[atLength:])))
	switch {
	case length < leastMessageBytes-prefixBytes+int64(m.magic)*timestampBytes:
		return m, src, m.malformed("message of length %d", length)
	case length > int64(len(src)-prefixBytes):
		return m, src, ErrTruncated
	}
	body, rest := src[prefixBytes:prefixBytes+length], src[prefixBytes+length:]
	if want, got := binary.BigEndian.Uint32(body), crc32.ChecksumIEEE(body[4:]); want != got {
		return m, src, m.malformed("CRC is %08x, message says %08x", got, want)
	}
	if m.offset < 0 || m.offset == math.MaxInt64 {
		return m, src, m.malformed("no offset of a log")
	}
	m.attributes, body = body[5], body[6:]
	if m.magic == 1 {
		m.timestamp, body = int64(binary.BigEndian.Uint64(body)), body[timestampBytes:]
		m.logAppendTime = m.attributes&appendTimeBit != 0
	}
	var ok bool
	if m.key, body, ok = cutSized(body); !ok {
		return m, src, m.malformed("message's key")
	}
	if m.value, body, ok = cutSized(body); !ok || len(body) > 0 {
		return m, src, m.malformed("message's value")
	}
	return m, rest, nil
}

// cutSized is cutBytes with a length of four bytes.
func cutSized(src []byte) (v, rest []byte, ok bool) {
	if len(src) < 4 {
		return nil, nil, false
	}
	length, src := int64(int32(binary.BigEndian.Uint32(src))), src[4:]
	switch {
	case length < -1 || length > int64(len(src)):
		return nil, nil, false
	case length == -1:
		return nil, src, true
	}
	return src[:length:length], src[length:], true
}

// inflate appends a wrapper's messages to dst. Zstd is younger than wrappers.
func (m message) inflate(dst []byte) ([]byte, error) {
	value := m.value
	switch codec := m.codec(); {
	case codec > LZ4:
		return dst, fmt.Errorf("no codec of magic %d", m.magic)
	case codec == LZ4 && m.magic == 0:
		value = mendLZ4(value)
	}
	return m.codec().inflate(dst, value, maxWrapped)
}

// mendLZ4 is an LZ4 frame whose header has the right checksum. Clients of magic 0 took it over the frame's magic number too, and Kafka's
// never look at it (KAFKA-3160).
func mendLZ4(frame []byte) []byte {
	const (
		at          = 4 // after the magic number: flags, block size, and what the flags say
		contentSize = 0x08
		dictionary  = 0x01
	)
	if len(frame) < at+3 {
		return frame
	}
	end := at + 2
	if frame[at]&contentSize != 0 {
		end += 8
	}
	if frame[at]&dictionary != 0 {
		end += 4
	}
	if end >= len(frame) {
		return frame
	}
	frame = slices.Clone(frame)
	frame[end] = byte(xxh32(frame[at:end]) >> 8)
	return frame
}

// xxh32 is xxHash's 32 bits of less than 16 bytes, with seed 0.
func xxh32(src []byte) uint32 {
	const p1, p2, p3, p4, p5 = 2654435761, 2246822519, 3266489917, 668265263, 374761393
	h := p5 + uint32(len(src))
	for ; len(src) >= 4; src = src[4:] {
		h = bits.RotateLeft32(h+binary.LittleEndian.Uint32(src)*p3, 17) * p4
	}
	for _, b := range src {
		h = bits.RotateLeft32(h+uint32(b)*p5, 11) * p1
	}
	h = (h ^ h>>15) * p2
	h = (h ^ h>>13) * p3
	return h ^ h>>16
}
