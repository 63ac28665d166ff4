package batch_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"pgregory.net/rapid"

	"github.com/kferry/kferry/shared/batch"
)

// drawRecords draws records with offsets from base, with holes, and times that franz-go's own can hold.
func drawRecords(t *rapid.T, base int64) []batch.Record {
	bytesOrNil := rapid.OneOf(rapid.Just([]byte(nil)), rapid.SliceOfN(rapid.Byte(), 0, 300))
	offset := base
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) batch.Record {
		offset += int64(rapid.OneOf(rapid.Just(0), rapid.IntRange(0, 300)).Draw(t, "hole"))
		r := batch.Record{
			Offset:    offset,
			Timestamp: rapid.OneOf(rapid.SampledFrom([]int64{-1, 0, -1 << 42}), rapid.Int64Range(0, 1<<42)).Draw(t, "timestamp"),
			Key:       bytesOrNil.Draw(t, "key"),
			Value:     bytesOrNil.Draw(t, "value"),
		}
		for range rapid.IntRange(0, 2).Draw(t, "headers") {
			r.Headers = append(r.Headers, batch.Header{Key: rapid.String().Draw(t, "header"), Value: bytesOrNil.Draw(t, "header value")})
		}
		offset++
		return r
	}), 1, 60).Draw(t, "records")
}

func TestReencodedRecordsAreTheSourcesForAnotherReader(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := rapid.Int64Range(0, 1<<40).Draw(t, "base")
		records := drawRecords(t, base)
		s := source{
			codec:      rapid.SampledFrom(codecs).Draw(t, "codec"),
			attributes: rapid.SampledFrom([]int16{0, 0x08, 0x10, 0x40}).Draw(t, "attributes"),
			baseTime:   rapid.Int64Range(-1, 1<<42).Draw(t, "base time"),
			baseOffset: base,
			records:    records,
		}
		b := s.batch(t)
		from := base + rapid.Int64Range(0, b.LastOffset()-base+1).Draw(t, "from")
		e := &batch.Encoder{MaxBytes: rapid.IntRange(2000, 20_000).Draw(t, "limit")}

		made, err := e.Reencode(b, from)
		if err != nil {
			t.Fatal(err)
		}
		wanted := slices.DeleteFunc(slices.Clone(records), func(r batch.Record) bool { return r.Offset < from })
		if b.LogAppendTime() {
			for i := range wanted {
				wanted[i].Timestamp = b.MaxTimestamp()
			}
		}
		sameContent(t, decoded(t, made...), wanted)
		sameContent(t, each(t, made...), wanted)
		i := 0
		for _, m := range made {
			wellFormed(t, m, e.MaxBytes)
			if m.Codec() != b.Codec() || m.BaseOffset() != wanted[i].Offset {
				t.Fatalf("%v batch at %d, want %v at %d", m.Codec(), m.BaseOffset(), b.Codec(), wanted[i].Offset)
			}
			i += int(m.Records())
		}

		cut, err := e.CutRecords(b, len(records)-len(wanted))
		if err != nil {
			t.Fatal(err)
		}
		sameContent(t, decoded(t, cut...), wanted)
	})
}

func TestMergedRecordsAreTheSourcesForAnotherReader(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var batches []batch.Batch
		var records []batch.Record
		base := rapid.Int64Range(0, 1<<40).Draw(t, "base")
		first := base
		for range rapid.IntRange(1, 8).Draw(t, "batches") {
			some := drawRecords(t, base)
			for i := range some {
				some[i].Offset = base + int64(i)
			}
			batches = append(batches, source{
				attributes: rapid.SampledFrom([]int16{0, 0x10, 0x40}).Draw(t, "attributes"),
				baseTime:   rapid.Int64Range(-1, 1<<42).Draw(t, "base time"),
				baseOffset: base,
				records:    some,
			}.batch(t))
			records = append(records, some...)
			base += int64(len(some)) + 1 // a marker lay between
		}
		made, err := new(batch.Encoder).Merge(batches)
		if err != nil {
			t.Fatal(err)
		}
		wellFormed(t, made, 0)
		if made.BaseOffset() != first || int(made.Records()) != len(records) {
			t.Fatalf("%d records from %d, want %d from %d", made.Records(), made.BaseOffset(), len(records), first)
		}
		sameContent(t, decoded(t, made), records)
	})
}

func TestTimesAtTheEndsOfInt64Survive(t *testing.T) {
	var records []batch.Record
	for i, at := range []int64{math.MaxInt64, math.MinInt64, -1, 0, 1, math.MinInt64 + 1} {
		records = append(records, batch.Record{Offset: int64(i), Timestamp: at, Value: []byte("v")})
	}
	for _, codec := range codecs {
		b := source{codec: codec, baseTime: -5, records: records}.batch(t)
		made, err := new(batch.Encoder).Reencode(b, 1)
		if err != nil {
			t.Fatal(err)
		}
		sameContent(t, each(t, made...), records[1:])
	}
	merged, err := new(batch.Encoder).Merge([]batch.Batch{batch.Of(records[:2]...), batch.Of(records[2:]...)})
	if err != nil {
		t.Fatal(err)
	}
	sameContent(t, each(t, merged), records)
}

func TestNothingIsLeftOfABatchBeforeTheCursor(t *testing.T) {
	b := source{records: samples(10, 5)}.batch(t)
	for name, made := range map[string]func() ([]batch.Batch, error){
		"by offset": func() ([]batch.Batch, error) { return new(batch.Encoder).Reencode(b, 15) },
		"by count":  func() ([]batch.Batch, error) { return new(batch.Encoder).CutRecords(b, 5) },
		"emptied":   func() ([]batch.Batch, error) { return new(batch.Encoder).Reencode(source{lastOffset: 5}.batch(t), 0) },
		"emptied, compressed": func() ([]batch.Batch, error) {
			return new(batch.Encoder).Reencode(source{codec: batch.Zstd, lastOffset: 5}.batch(t), 0)
		},
	} {
		if batches, err := made(); len(batches) != 0 || err != nil {
			t.Errorf("%s: %d batches, %v", name, len(batches), err)
		}
	}
}

func TestARecordTooLargeAloneStopsAfterWhatFits(t *testing.T) {
	noise := make([]byte, 5000)
	state := uint32(1)
	for i := range noise {
		state = state*1664525 + 1013904223
		noise[i] = byte(state >> 24)
	}
	records := samples(100, 9)
	records[4].Value = noise
	for _, codec := range codecs {
		e := &batch.Encoder{MaxBytes: 1200}
		b := source{codec: codec, records: records}.batch(t)
		before, err := e.Reencode(b, 100)
		var tooLarge *batch.RecordTooLargeError
		if !errors.As(err, &tooLarge) || tooLarge.Offset != 104 || tooLarge.Limit != 1200 || tooLarge.Bytes <= 1200 {
			t.Fatalf("%v: %v", codec, err)
		}
		sameContent(t, decoded(t, before...), records[:4])
		after, err := e.Reencode(b, tooLarge.Offset+1)
		if err != nil {
			t.Fatalf("%v: %v", codec, err)
		}
		sameContent(t, decoded(t, after...), records[5:])
	}
}

func TestResultsOwnTheirMemory(t *testing.T) {
	e := &batch.Encoder{MaxBytes: 400}
	b := source{codec: batch.LZ4, records: samples(0, 40)}.batch(t)
	made, err := e.Reencode(b, 0)
	if err != nil || len(made) < 2 {
		t.Fatal(len(made), err)
	}
	merged, err := e.Merge([]batch.Batch{batch.Of(samples(0, 4)...)})
	if err != nil {
		t.Fatal(err)
	}
	clear(b)
	other := source{codec: batch.LZ4, records: samples(7, 90)}.batch(t)
	if _, err := e.Reencode(other, 20); err != nil {
		t.Fatal(err)
	}
	sameContent(t, each(t, made...), samples(0, 40))
	sameContent(t, each(t, merged), samples(0, 4))
}

func TestMergeRefusesWhatItWouldGetWrong(t *testing.T) {
	e := &batch.Encoder{MaxBytes: 1000}
	plain := batch.Of(samples(0, 4)...)
	for name, batches := range map[string][]batch.Batch{
		"nothing":            {},
		"compressed":         {plain, source{codec: batch.Gzip, records: samples(4, 2)}.batch(t)},
		"control":            {source{attributes: 0x20, records: samples(0, 1)}.batch(t)},
		"emptied":            {source{lastOffset: 8}.batch(t)},
		"a header alone":     {plain[:batch.HeaderBytes]},
		"less than a header": {plain[:20]},
		"too large":          {plain, batch.Of(samples(4, 40)...)},
	} {
		b, err := e.Merge(batches)
		if b != nil || err == nil || errors.Is(err, batch.ErrTooLarge) != (name == "too large") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What compaction left, and what a broker stamped: merged, the records are dense and have the times that readers saw.
func TestMergeOfHolesAndLogAppendTime(t *testing.T) {
	holed := append(samples(0, 2), samples(7, 2)...)
	stamped := samples(20, 3)
	merged, err := new(batch.Encoder).Merge([]batch.Batch{
		source{lastOffset: 12, records: holed}.batch(t),
		source{attributes: 0x08, baseOffset: 20, maxTime: 777, records: stamped}.batch(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	wellFormed(t, merged, 0)
	for i := range stamped {
		stamped[i].Timestamp = 777
	}
	sameContent(t, each(t, merged), append(holed, stamped...))
}

// hostile batches have a right CRC and a plausible header around records that don't fit it.
func hostile(t failer) map[string]batch.Batch {
	two := source{records: samples(0, 2)}.batch(t)[batch.HeaderBytes:]
	record := func(offsetDelta int64) []byte {
		body := binary.AppendVarint([]byte{0, 0}, offsetDelta)
		body = append(body, 1, 1, 0)
		return append(binary.AppendVarint(nil, int64(len(body))), body...)
	}
	return map[string]batch.Batch{
		"fewer records than counted":  source{body: two, count: 3, lastOffset: 2}.batch(t),
		"bytes after the records":     source{body: two, count: 1, lastOffset: 2}.batch(t),
		"offset beyond the last":      source{body: record(9), count: 1, lastOffset: 2}.batch(t),
		"negative offset":             source{body: record(-1), count: 1, lastOffset: 2}.batch(t),
		"offset beyond int32":         source{body: record(1 << 40), count: 1, lastOffset: 2}.batch(t),
		"same offset twice":           source{body: append(record(1), record(1)...), count: 2, lastOffset: 2}.batch(t),
		"record longer than the rest": source{body: []byte{126, 0, 0}, count: 1, lastOffset: 2}.batch(t),
		"negative record length":      source{body: []byte{1, 0, 0}, count: 1, lastOffset: 2}.batch(t),
		"empty record":                source{body: []byte{0}, count: 1, lastOffset: 2}.batch(t),
		"varint without end":          source{body: bytes.Repeat([]byte{0xff}, 20), count: 1, lastOffset: 2}.batch(t),
		"count of an empty body":      source{count: math.MaxInt32, lastOffset: math.MaxInt32 - 1}.batch(t),
		"codec 5":                     source{body: two, count: 2, attributes: 5, lastOffset: 1}.batch(t),
		"codec 7":                     source{body: two, count: 2, attributes: 7, lastOffset: 1}.batch(t),
		"not gzip":                    source{body: two, count: 2, attributes: 1, lastOffset: 1}.batch(t),
		"not snappy":                  source{body: two, count: 2, attributes: 2, lastOffset: 1}.batch(t),
		"not lz4":                     source{body: two, count: 2, attributes: 3, lastOffset: 1}.batch(t),
		"not zstd":                    source{body: two, count: 2, attributes: 4, lastOffset: 1}.batch(t),
	}
}

func TestHostileRecordsAreRefusedNotFollowed(t *testing.T) {
	for name, b := range hostile(t) {
		if _, _, err := batch.Next(b); err != nil {
			t.Errorf("%s: Next refuses it already: %v", name, err)
		}
		if made, err := new(batch.Encoder).Reencode(b, 0); !isFormatError(err) || made != nil {
			t.Errorf("%s: Reencode: %v", name, err)
		}
		if made, err := new(batch.Encoder).Merge([]batch.Batch{b}); err == nil || made != nil {
			t.Errorf("%s: Merge: %v", name, err)
		}
		var last error
		for _, err := range b.Each(0) {
			last = err
		}
		if !isFormatError(last) {
			t.Errorf("%s: Each: %v", name, last)
		}
	}
}

func TestAMarkerNeverBecomesARecord(t *testing.T) {
	if made, err := new(batch.Encoder).Reencode(goldenMarker, 0); made != nil || err == nil {
		t.Fatal("re-encoded")
	}
}

// A copy never looks into key, value and headers; whoever decodes them must.
func TestDecodingRefusesHostileContents(t *testing.T) {
	for name, content := range map[string][]byte{
		"key longer than the record": {20, 1, 0},
		"key shorter than null":      {3, 1, 0},
		"no value":                   {1},
		"no headers":                 {1, 1},
		"negative header count":      {1, 1, 1},
		"header count beyond":        {1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f},
		"null header key":            {1, 1, 2, 1, 0},
		"header without value":       {1, 1, 2, 2, 'k'},
		"bytes after the headers":    {1, 1, 0, 0},
	} {
		record := append([]byte{byte(2 * (3 + len(content))), 0, 0, 0}, content...)
		b := source{body: record, count: 1}.batch(t)
		for _, err := range b.Each(0) {
			if !isFormatError(err) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestABombIsRefusedAtTheLimit(t *testing.T) {
	zeros := []batch.Record{{Value: make([]byte, 8<<20)}}
	for _, codec := range codecs[1:] {
		body := batch.Of(zeros...)[batch.HeaderBytes:]
		bomb := source{codec: codec, body: body, count: 1}.batch(t)
		if _, err := (&batch.Encoder{MaxInflated: len(body) - 1}).Reencode(bomb, 0); !isFormatError(err) || !errors.Is(err, batch.ErrInflated) {
			t.Errorf("%v, one byte over: %v", codec, err)
		}
		if _, err := (&batch.Encoder{MaxInflated: len(body), MaxBytes: 16 << 20}).Reencode(bomb, 0); err != nil {
			t.Errorf("%v, at the limit: %v", codec, err)
		}
		for _, err := range bomb.Each(1 << 20) {
			if !errors.Is(err, batch.ErrInflated) {
				t.Errorf("%v: Each: %v", codec, err)
			}
		}
	}
}

// Java clients frame Snappy as xerial does, write zstd without a content size, and lz4 with or without checksums.
func TestOtherClientsFramesAreRead(t *testing.T) {
	records := samples(5, 400)
	body := batch.Of(records...)[batch.HeaderBytes:]
	xerial := []byte("\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01")
	for chunk := range slices.Chunk([]byte(body), 32<<10) {
		block := s2.EncodeSnappy(nil, chunk)
		xerial = append(binary.BigEndian.AppendUint32(xerial, uint32(len(block))), block...)
	}
	var unsized bytes.Buffer
	zw, _ := zstd.NewWriter(&unsized, zstd.WithEncoderConcurrency(1))
	for chunk := range slices.Chunk([]byte(body), 1000) {
		zw.Write(chunk)
		zw.Flush()
	}
	zw.Close()
	var small bytes.Buffer
	lw := lz4.NewWriter(&small)
	lw.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.BlockChecksumOption(true), lz4.ChecksumOption(true), lz4.SizeOption(uint64(len(body))))
	lw.Write(body)
	lw.Close()

	for name, s := range map[string]source{
		"xerial":       {attributes: 2, body: xerial},
		"unsized zstd": {attributes: 4, body: unsized.Bytes()},
		"checked lz4":  {attributes: 3, body: small.Bytes()},
	} {
		s.count, s.baseOffset, s.lastOffset, s.baseTime = len(records), 5, 404, records[0].Timestamp
		t.Run(name, func(t *testing.T) {
			sameContent(t, each(t, s.batch(t)), records)
		})
	}
	for cut := range 24 {
		s := source{attributes: 2, body: xerial[:len(xerial)-1-cut], count: len(records), lastOffset: 500}
		if _, err := new(batch.Encoder).Reencode(s.batch(t), 0); !isFormatError(err) {
			t.Fatalf("xerial frame cut by %d: %v", cut+1, err)
		}
	}
}

// Kafka's lz4 reader knows only frames of version 1 with independent blocks and no dictionary.
func TestLZ4FramesAreWhatJavaReads(t *testing.T) {
	made, err := new(batch.Encoder).Reencode(source{codec: batch.LZ4, records: samples(0, 1000)}.batch(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := made[0][batch.HeaderBytes:][:7], []byte{0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82}; !bytes.Equal(got, want) {
		t.Errorf("frame begins % x, want % x", got, want)
	}
}

// A codec that keeps a channel in a pool would stop the second bubble: the runtime forbids a channel of another's.
func TestCodecsCrossSynctestBubbles(t *testing.T) {
	for range 2 {
		synctest.Test(t, func(t *testing.T) {
			for _, codec := range codecs {
				b := source{codec: codec, records: samples(0, 300)}.batch(t)
				made, err := new(batch.Encoder).Reencode(b, 7)
				if err != nil {
					t.Fatal(err)
				}
				sameContent(t, each(t, made...), samples(0, 300)[7:])
			}
		})
	}
}
