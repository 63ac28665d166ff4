package batch_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/shared/batch"
)

// Written by hand from the format's description, the CRC computed bit by bit: two transactional records, then the marker
// that commits them.
var (
	golden = unhex(`
		000000000000002a 00000045 00000007 02 236ed2b4 0010 00000001 0000018bcfe56800 0000018bcfe56800
		0000000000000fa1 0003 00000011 00000002
		18 00 00 00 02 6b 04 7631 02 02 68 01
		0c 00 01 02 01 00 00`)
	goldenMarker = unhex(`
		000000000000002c 00000042 00000007 02 8fb5c72d 0030 00000000 0000018bcfe56809 0000018bcfe56809
		0000000000000fa1 0003 ffffffff 00000001
		20 00 00 00 08 0000 0001 0c 0000 00000005 00`)
)

func unhex(s string) []byte {
	out, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return out
}

func TestGoldenBytesAreReadFieldByField(t *testing.T) {
	b, rest, err := batch.Next(append(bytes.Clone(golden), goldenMarker...))
	if err != nil {
		t.Fatal(err)
	}
	for name, pair := range map[string][2]any{
		"base offset":     {b.BaseOffset(), int64(42)},
		"last offset":     {b.LastOffset(), int64(43)},
		"next offset":     {b.NextOffset(), int64(44)},
		"leader epoch":    {b.LeaderEpoch(), int32(7)},
		"last delta":      {b.LastOffsetDelta(), int32(1)},
		"attributes":      {b.Attributes(), int16(0x10)},
		"codec":           {b.Codec().String(), "none"},
		"log append time": {b.LogAppendTime(), false},
		"transactional":   {b.Transactional(), true},
		"control":         {b.Control(), false},
		"delete horizon":  {b.DeleteHorizon(), false},
		"base timestamp":  {b.BaseTimestamp(), int64(1700000000000)},
		"max timestamp":   {b.MaxTimestamp(), int64(1700000000000)},
		"producer id":     {b.ProducerID(), int64(4001)},
		"producer epoch":  {b.ProducerEpoch(), int16(3)},
		"base sequence":   {b.BaseSequence(), int32(17)},
		"records":         {b.Records(), int32(2)},
		"dense":           {b.Dense(), true},
		"mergeable":       {b.Mergeable(), true},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is %v, want %v", name, pair[0], pair[1])
		}
	}
	sameContent(t, each(t, b), []batch.Record{
		{Timestamp: 1700000000000, Key: []byte("k"), Value: []byte("v1"), Headers: []batch.Header{{Key: "h"}}},
		{Timestamp: 1700000000000 - 1, Value: []byte{}},
	})

	marker, rest, err := batch.Next(rest)
	if err != nil || len(rest) != 0 {
		t.Fatal(err, len(rest))
	}
	if abort, ok := marker.Abort(); abort || !ok || !marker.Control() || marker.Mergeable() {
		t.Errorf("a commit marker reads as abort %v, ok %v", abort, ok)
	}
}

func TestControlBatchesTellAbortFromCommit(t *testing.T) {
	control := func(attributes int16, key string) batch.Batch {
		return source{attributes: attributes, records: []batch.Record{{Key: []byte(key), Value: []byte("\x00\x00\x00\x00\x00\x05")}}}.batch(t)
	}
	for _, test := range []struct {
		name      string
		b         batch.Batch
		abort, ok bool
	}{
		{"abort", control(0x30, "\x00\x00\x00\x00"), true, true},
		{"commit", control(0x30, "\x00\x00\x00\x01"), false, true},
		{"leader change", control(0x20, "\x00\x00\x00\x02"), false, false},
		{"unknown version", control(0x30, "\x00\x09\x00\x00"), false, false},
		{"short key", control(0x30, "\x00\x00"), false, false},
		{"data", control(0x10, "\x00\x00\x00\x00"), false, false},
		{"no record", source{attributes: 0x30}.batch(t), false, false},
	} {
		if abort, ok := test.b.Abort(); abort != test.abort || ok != test.ok {
			t.Errorf("%s: abort %v, ok %v", test.name, abort, ok)
		}
	}
}

func TestPatchedBatchIsTheIdentitysAndKeepsItsRecords(t *testing.T) {
	for _, codec := range codecs {
		records := samples(1000, 20)
		b := source{codec: codec, attributes: 0x10 | 0x08 | 0x40 | 0x80 | 0x100, records: records, maxTime: 5}.batch(t)
		b.Patch(batch.Identity{ProducerID: 0x6B << 56, Epoch: 9}, math.MaxInt32)
		if err := b.Verify(); err != nil {
			t.Fatal(err)
		}
		if b.BaseOffset() != 0 || b.LeaderEpoch() != -1 || b.ProducerID() != 0x6B<<56 || b.ProducerEpoch() != 9 || b.BaseSequence() != math.MaxInt32 {
			t.Errorf("%v: header % x", codec, b[:batch.HeaderBytes])
		}
		if want := int16(codec); b.Attributes() != want {
			t.Errorf("%v: attributes %#x, want %#x", codec, b.Attributes(), want)
		}
		sameContent(t, decoded(t, b), records)
	}
}

func TestTimesStayRightWhenTheDeleteHorizonIsCleared(t *testing.T) {
	records := samples(0, 8)
	horizon := records[0].Timestamp + 86_400_000
	for _, codec := range codecs {
		b := source{codec: codec, attributes: 0x40, baseTime: horizon, records: records}.batch(t)
		if !b.DeleteHorizon() || b.Check(0, 0, false) != batch.Passed {
			t.Fatalf("%v: reason %q", codec, b.Check(0, 0, false))
		}
		made, err := new(batch.Encoder).Reencode(b, 0)
		if err != nil {
			t.Fatal(err)
		}
		wellFormed(t, made[0], 0)
		sameContent(t, decoded(t, made...), records)
		b.Patch(batch.Identity{}, 0)
		sameContent(t, decoded(t, b), records)
	}
}

func TestCheckNamesTheReason(t *testing.T) {
	dense := source{records: samples(10, 5)}.batch(t)
	holes := source{records: samples(10, 5), lastOffset: 20}.batch(t)
	for _, test := range []struct {
		name     string
		b        batch.Batch
		from     int64
		maxBytes int
		stamps   bool
		want     batch.Reason
	}{
		{"as it is", dense, 10, len(dense), false, batch.Passed},
		{"limit unknown", dense, 0, 0, false, batch.Passed},
		{"hole at the end", holes, 0, 0, false, batch.Holes},
		{"emptied", source{lastOffset: 3}.batch(t), 0, 0, false, batch.Holes},
		{"cursor inside", dense, 11, 0, false, batch.Cut},
		{"cursor behind", dense, 99, 0, false, batch.Cut},
		{"log append time", source{attributes: 0x08, records: samples(10, 5)}.batch(t), 0, 0, false, batch.AppendTime},
		{"log append time on both sides", source{attributes: 0x08, records: samples(10, 5)}.batch(t), 0, 0, true, batch.Passed},
		{"one byte over", dense, 0, len(dense) - 1, false, batch.TooLarge},
		{"delete horizon", source{attributes: 0x40, records: samples(10, 5)}.batch(t), 0, 0, false, batch.Passed},
		{"committed transaction", source{attributes: 0x10, records: samples(10, 5)}.batch(t), 0, 0, false, batch.Passed},
	} {
		if got := test.b.Check(test.from, test.maxBytes, test.stamps); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

func TestMergeableLeavesOutWhatCanNotBeMerged(t *testing.T) {
	for _, test := range []struct {
		name string
		s    source
		want bool
	}{
		{"plain", source{}, true},
		{"transactional", source{attributes: 0x10}, true},
		{"delete horizon", source{attributes: 0x40}, true},
		{"control", source{attributes: 0x20}, false},
		{"log append time", source{attributes: 0x08}, true},
		{"compressed", source{codec: batch.LZ4}, false},
		{"holes", source{lastOffset: 100}, true},
	} {
		test.s.records = samples(1, 4)
		if got := test.s.batch(t).Mergeable(); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

func TestNextWalksAResponseWithAPartialTail(t *testing.T) {
	var response []byte
	for i, codec := range codecs {
		response = append(response, source{codec: codec, records: samples(int64(100*i+1), 7)}.batch(t)...)
	}
	whole := len(response)
	tail := source{records: samples(900, 7)}.batch(t)
	for cut := range len(tail) {
		if cut == 0 {
			continue
		}
		rest := append(response[:whole:whole], tail[:cut]...)
		for i := range codecs {
			b, r, err := batch.Next(rest)
			if err != nil || b.BaseOffset() != int64(100*i+1) || cap(b) != len(b) {
				t.Fatalf("batch %d: %v", i, err)
			}
			rest = r
		}
		if b, r, err := batch.Next(rest); err != batch.ErrTruncated || b != nil || len(r) != cut {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		b, ok := batch.PeekHeader(rest)
		if ok != (cut >= batch.HeaderBytes) {
			t.Fatalf("cut at %d: header %v", cut, ok)
		}
		if ok && (b.ProducerID() != 4001 || b.BaseSequence() != 17 || b.NextOffset() != 907) {
			t.Fatalf("cut at %d: header % x", cut, b)
		}
	}
}

func TestHostileBatchesAreRefusedNotFollowed(t *testing.T) {
	// changed is a good batch with one field changed; sealed says that its CRC then still fits.
	changed := func(sealed bool, change func(b batch.Batch)) batch.Batch {
		b := source{records: samples(10, 3)}.batch(t)
		change(b)
		if sealed {
			var parsed kmsg.RecordBatch
			if err := parsed.ReadFrom(b); err != nil {
				t.Fatal(err)
			}
			b = seal(parsed)
		}
		return b
	}
	put := func(at int, v ...byte) func(batch.Batch) { return func(b batch.Batch) { copy(b[at:], v) } }
	for _, test := range []struct {
		name  string
		b     batch.Batch
		magic bool
	}{
		{"magic 0", changed(false, put(16, 0)), false},
		{"magic 1", changed(false, put(16, 1)), false},
		{"magic -1", changed(false, put(16, 0xff)), true},
		{"magic 3", changed(false, put(16, 3)), true},
		{"negative length", changed(false, put(8, 0xff, 0xff, 0xff, 0xff)), false},
		{"least length", changed(false, put(8, 0x80, 0, 0, 0)), false},
		{"length 0", changed(false, put(8, 0, 0, 0, 0)), false},
		{"length below the header", changed(false, put(8, 0, 0, 0, 48)), false},
		{"bad CRC", changed(false, func(b batch.Batch) { b[len(b)-1]++ }), false},
		{"negative count", changed(true, put(57, 0xff, 0xff, 0xff, 0xff)), false},
		{"more records than offsets", changed(true, put(57, 0, 0, 0, 4)), false},
		{"negative last offset delta", changed(true, put(23, 0xff, 0xff, 0xff, 0xff)), false},
		{"negative base offset", changed(true, put(0, 0x80)), false},
		{"last offset beyond int64", changed(true, put(0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)), false},
	} {
		b, _, err := batch.Next(test.b)
		if b != nil || !isFormatError(err) || errors.Is(err, batch.ErrMagic) != test.magic {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestALengthBeyondTheResponseIsATruncation(t *testing.T) {
	b := source{records: samples(10, 3)}.batch(t)
	copy(b[8:], "\x7f\xff\xff\xff")
	if _, _, err := batch.Next(b); err != batch.ErrTruncated {
		t.Fatal(err)
	}
	if peeked, ok := batch.PeekHeader(b); !ok || len(peeked) != len(b) {
		t.Fatal("header not read")
	}
}

func TestOfNumbersRecordsThatHaveNoOffset(t *testing.T) {
	records := samples(0, 6)
	for i := range records {
		records[i].Offset = 0
	}
	records[4].Offset = 9
	b := batch.Of(records...)
	if err := b.Verify(); err != nil {
		t.Fatal(err)
	}
	got := decoded(t, b)
	sameContent(t, got, records)
	for i, want := range []int64{0, 1, 2, 3, 9, 10} {
		if got[i].Offset != want {
			t.Errorf("record %d at %d, want %d", i, got[i].Offset, want)
		}
	}
	if batch.Of() != nil {
		t.Error("a batch of nothing")
	}
}
