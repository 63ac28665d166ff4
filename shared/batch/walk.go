package batch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

var (
	// ErrTruncated is Next's answer to part of a batch. A fetch response may end so: the next one begins with the whole.
	ErrTruncated = errors.New("part of a record batch")

	// ErrMagic is what a *FormatError wraps when the format is none of those that Kafka has had so far: magic 0, 1 and 2.
	ErrMagic = errors.New("unknown format")
)

// FormatError says that bytes are no record batch, or not the one they claim to be.
type FormatError struct {
	Offset int64 // base offset that the batch claims
	Detail string
	Err    error // nil, ErrMagic, or the decompressor's
}

func (e *FormatError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("record batch at offset %d: %s", e.Offset, e.Detail)
	}
	return fmt.Sprintf("record batch at offset %d: %s: %v", e.Offset, e.Detail, e.Err)
}

func (e *FormatError) Unwrap() error { return e.Err }

func (b Batch) malformed(format string, args ...any) error {
	return &FormatError{Offset: b.BaseOffset(), Detail: fmt.Sprintf(format, args...)}
}

// Next cuts the first batch off a fetch response's records and verifies it. It fails with ErrTruncated where only part of
// a batch is left, and with a *FormatError where the bytes can't be trusted; the rest can't then be found either. The caller
// ends when nothing is left.
//
// Messages of magic 0 and 1 it returns as a batch of magic 2 at the same offsets and of the same codec, as many as it finds
// side by side up to a few hundred kilobytes. No leader epoch is known of them (-1), nor, with magic 0, a timestamp (-1).
func Next(records []byte) (b Batch, rest []byte, err error) {
	if beginsWithMessage(records) {
		return nextMessages(records)
	}
	size, err := sizeOf(records)
	if err != nil {
		return nil, records, err
	}
	if size > len(records) {
		return nil, records, ErrTruncated
	}
	b = Batch(records[:size:size])
	if err := b.Verify(); err != nil {
		return nil, records, err
	}
	return b, records[size:], nil
}

// PeekHeader reads the header of a batch whose records may be cut off: whose it was, and which sequence. Nothing is
// verified but that it has magic 2 and a possible length.
func PeekHeader(records []byte) (Batch, bool) {
	size, err := sizeOf(records)
	if err != nil || len(records) < HeaderBytes {
		return nil, false
	}
	size = min(size, len(records))
	return Batch(records[:size:size]), true
}

// Whole says that nothing of a batch is cut off.
func (b Batch) Whole() bool {
	size, err := sizeOf(b)
	return err == nil && size == len(b)
}

// sizeOf is the size of the first batch by its length field. Magic comes first, since that field's least value is its
// format's; it stands at the same place in every format.
func sizeOf(records []byte) (int, error) {
	if len(records) <= atMagic {
		return 0, ErrTruncated
	}
	offset := int64(binary.BigEndian.Uint64(records))
	if magic := int8(records[atMagic]); magic != 2 {
		return 0, &FormatError{Offset: offset, Detail: fmt.Sprintf("magic %d", magic), Err: ErrMagic}
	}
	length := int32(binary.BigEndian.Uint32(records[atLength:]))
	if length < HeaderBytes-prefixBytes || int64(length) > math.MaxInt-prefixBytes {
		return 0, &FormatError{Offset: offset, Detail: fmt.Sprintf("length %d", length)}
	}
	return prefixBytes + int(length), nil
}

// Verify checks what the header says against the bytes, and its counts against each other. It does not look at the records.
func (b Batch) Verify() error {
	size, err := sizeOf(b)
	if err != nil {
		return err
	}
	if size != len(b) {
		return b.malformed("%d bytes, length field says %d", len(b), size)
	}
	if want, got := uint32(b.int32(atCRC)), b.checksum(); want != got {
		return b.malformed("CRC is %08x, header says %08x", got, want)
	}
	last := int64(b.LastOffsetDelta())
	if last < 0 || b.BaseOffset() < 0 || b.BaseOffset() > math.MaxInt64-1-last {
		return b.malformed("last offset delta %d", last)
	}
	if n := int64(b.Records()); n < 0 || n > last+1 {
		return b.malformed("%d records in %d offsets", n, last+1)
	}
	return nil
}
