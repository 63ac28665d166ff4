package batch_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/kferry/kferry/shared/batch"
)

// FuzzNext walks any bytes to their end, and does with what it finds what the data path does.
func FuzzNext(f *testing.F) {
	f.Add(golden)
	f.Add(append(bytes.Clone(golden), goldenMarker...))
	f.Add(golden[:70])
	f.Add([]byte(nil))
	for _, v := range vectors(f) {
		f.Add(v.set)
	}
	f.Fuzz(func(t *testing.T, records []byte) {
		for rest := records; len(rest) > 0; {
			if b, ok := batch.PeekHeader(rest); ok {
				b.Abort()
				b.Mergeable()
			}
			b, next, err := batch.Next(rest)
			if err != nil {
				if !errors.Is(err, batch.ErrTruncated) && !isFormatError(err) {
					t.Fatal(err)
				}
				return
			}
			if !b.OldFormat() && len(b)+len(next) != len(rest) || len(next) >= len(rest) || len(b) < batch.HeaderBytes || b.NextOffset() <= b.BaseOffset() {
				t.Fatalf("%d bytes of %d, offsets %d to %d", len(b), len(rest), b.BaseOffset(), b.LastOffset())
			}
			if b.OldFormat() {
				for _, err := range b.Each(0) {
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			b = bytes.Clone(b)
			b.Check(1, 100, false)
			b.Patch(batch.Identity{ProducerID: 1}, 2)
			if err := b.Verify(); err != nil {
				t.Fatal(err)
			}
			rest = next
		}
	})
}

// FuzzWrapped puts any set of messages into a good wrapper, compressed or not, since the CRC and the codec would stop most of them.
func FuzzWrapped(f *testing.F) {
	for _, magic := range []byte{0, 1} {
		for _, codec := range codecs[:4] {
			f.Add(append(old{offset: 40, magic: magic, value: []byte("a")}.bytes(), old{offset: 42, magic: magic, key: []byte("b")}.bytes()...), magic, byte(codec), int64(42))
		}
	}
	f.Fuzz(func(t *testing.T, set []byte, magic, attributes byte, offset int64) {
		value := set
		if codec := batch.Codec(attributes & 7); codec <= batch.LZ4 && attributes&0x80 == 0 {
			value = compress(t, codec, set)
		}
		records := old{offset: offset, magic: magic & 1, attributes: attributes, timestamp: 5, value: value}.bytes()
		b, rest, err := batch.Next(records)
		if err != nil {
			if !isFormatError(err) {
				t.Fatal(err)
			}
			return
		}
		if len(rest) > 0 || b.LastOffset() != offset || !b.OldFormat() {
			t.Fatalf("offsets %d to %d of a message at %d, %d bytes after it", b.BaseOffset(), b.LastOffset(), offset, len(rest))
		}
		n := int32(0)
		for _, err := range b.Each(0) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != b.Records() || n == 0 || b.Verify() != nil {
			t.Fatalf("%d records, header says %d: %v", n, b.Records(), b.Verify())
		}
	})
}

// FuzzReencode puts any bytes behind a good header, since the CRC would stop most of them before the codecs.
func FuzzReencode(f *testing.F) {
	const few = 3
	for _, codec := range codecs {
		b := source{codec: codec, records: samples(0, few)}.batch(f)
		f.Add([]byte(b[batch.HeaderBytes:]), int16(codec), uint16(few), int64(1))
	}
	for _, b := range hostile(f) {
		f.Add([]byte(b[batch.HeaderBytes:]), b.Attributes(), uint16(few), int64(0))
	}
	e := &batch.Encoder{MaxBytes: 200, MaxInflated: 1 << 20}
	f.Fuzz(func(t *testing.T, body []byte, attributes int16, count uint16, from int64) {
		b := source{attributes: attributes, count: int(count), lastOffset: int64(count) + 2}.raw(body)
		made, err := e.Reencode(b, from)
		var tooLarge *batch.RecordTooLargeError
		if err != nil && !isFormatError(err) && !errors.As(err, &tooLarge) && !b.Control() {
			t.Fatal(err)
		}
		for _, m := range made {
			if err := m.Verify(); err != nil || m.Check(from, e.MaxBytes, false) != batch.Passed {
				t.Fatalf("%v, %q", err, m.Check(from, e.MaxBytes, false))
			}
		}
		for range b.Each(1 << 20) {
		}
		e.Merge([]batch.Batch{b, b})
	})
}
