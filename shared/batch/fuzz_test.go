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
			if len(b)+len(next) != len(rest) || len(b) < batch.HeaderBytes || b.NextOffset() <= b.BaseOffset() {
				t.Fatalf("%d bytes of %d, offsets %d to %d", len(b), len(rest), b.BaseOffset(), b.LastOffset())
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
