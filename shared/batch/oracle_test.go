package batch_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/shared/batch"
)

// What this package writes franz-go reads, and the other way round: the tests take neither side's word for its own bytes.

// failer is a *testing.T, *testing.B, *testing.F or *rapid.T.
type failer interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

var codecs = []batch.Codec{batch.None, batch.Gzip, batch.Snappy, batch.LZ4, batch.Zstd}

// source describes a batch as it lies in a source's log; kmsg writes it.
type source struct {
	codec      batch.Codec
	attributes int16 // further bits
	baseTime   int64
	maxTime    int64 // 0: the records' own
	lastOffset int64 // 0: the last record's
	baseOffset int64 // 0: the first record's
	body       []byte
	count      int
	records    []batch.Record
}

func (s source) batch(t failer) batch.Batch {
	t.Helper()
	if s.baseOffset == 0 && len(s.records) > 0 {
		s.baseOffset = s.records[0].Offset
	}
	maxTime := int64(-1 << 63)
	for _, r := range s.records {
		s.lastOffset = max(s.lastOffset, r.Offset)
		maxTime = max(maxTime, r.Timestamp)
		rec := kmsg.Record{TimestampDelta64: r.Timestamp - s.baseTime, OffsetDelta: int32(r.Offset - s.baseOffset), Key: r.Key, Value: r.Value}
		for _, h := range r.Headers {
			rec.Headers = append(rec.Headers, kmsg.Header{Key: h.Key, Value: h.Value})
		}
		wire := rec.AppendTo(nil) // with length 0, of one byte
		rec.Length = int32(len(wire) - 1)
		s.body = rec.AppendTo(s.body)
		s.count++
	}
	if s.maxTime == 0 {
		s.maxTime = maxTime
	}
	return s.raw(compress(t, s.codec, s.body))
}

// raw is the batch around a body that is compressed already, or garbage.
func (s source) raw(body []byte) batch.Batch {
	return seal(kmsg.RecordBatch{
		FirstOffset:          s.baseOffset,
		PartitionLeaderEpoch: 7,
		Magic:                2,
		Attributes:           int16(s.codec) | s.attributes,
		LastOffsetDelta:      int32(s.lastOffset - s.baseOffset),
		FirstTimestamp:       s.baseTime,
		MaxTimestamp:         s.maxTime,
		ProducerID:           4001,
		ProducerEpoch:        3,
		FirstSequence:        17,
		NumRecords:           int32(s.count),
		Records:              body,
	})
}

func seal(b kmsg.RecordBatch) batch.Batch {
	b.Length = int32(49 + len(b.Records))
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}

func compress(t failer, codec batch.Codec, body []byte) []byte {
	c := map[batch.Codec]kgo.CompressionCodec{
		batch.Gzip: kgo.GzipCompression(), batch.Snappy: kgo.SnappyCompression(), batch.LZ4: kgo.Lz4Compression(), batch.Zstd: kgo.ZstdCompression(),
	}
	if codec == batch.None || len(body) == 0 {
		return body
	}
	compressor, err := kgo.DefaultCompressor(c[codec])
	if err != nil {
		t.Fatal(err)
	}
	out, _ := compressor.Compress(new(bytes.Buffer), body)
	return bytes.Clone(out)
}

// decoded is what a franz-go consumer makes of the batches.
func decoded(t failer, batches ...batch.Batch) []batch.Record {
	t.Helper()
	var records []batch.Record
	for _, b := range batches {
		partition, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Topic: "t"},
			&kmsg.FetchResponseTopicPartition{RecordBatches: b}, kgo.DefaultDecompressor(), nil)
		if partition.Err != nil {
			t.Fatalf("franz-go: %v", partition.Err)
		}
		for _, r := range partition.Records {
			records = append(records, record(r))
		}
	}
	return records
}

func record(r *kgo.Record) batch.Record {
	out := batch.Record{Offset: r.Offset, Timestamp: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		out.Headers = append(out.Headers, batch.Header{Key: h.Key, Value: h.Value})
	}
	return out
}

func each(t failer, batches ...batch.Batch) []batch.Record {
	t.Helper()
	var records []batch.Record
	for _, b := range batches {
		for r, err := range b.Each(0) {
			if err != nil {
				t.Fatal(err)
			}
			records = append(records, r)
		}
	}
	return records
}

// sameContent compares all that a copy keeps: everything but the offsets.
func sameContent(t failer, got, want []batch.Record) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d records, want %d", len(got), len(want))
	}
	for i := range want {
		g, w := got[i], want[i]
		if g.Timestamp != w.Timestamp || !sameBytes(g.Key, w.Key) || !sameBytes(g.Value, w.Value) || len(g.Headers) != len(w.Headers) {
			t.Fatalf("record %d is %+v, want %+v", i, g, w)
		}
		for j := range w.Headers {
			if g.Headers[j].Key != w.Headers[j].Key || !sameBytes(g.Headers[j].Value, w.Headers[j].Value) {
				t.Fatalf("record %d, header %d is %+v, want %+v", i, j, g.Headers[j], w.Headers[j])
			}
		}
	}
}

func sameBytes(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

// samples are n records of every kind: null, empty, with headers, with times that go back.
func samples(from int64, n int) []batch.Record {
	now := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC).UnixMilli()
	records := make([]batch.Record, n)
	for i := range records {
		r := batch.Record{Offset: from + int64(i), Timestamp: now + int64(i*7%13), Value: bytes.Repeat([]byte{byte('a' + i%26)}, 40+i%200)}
		switch i % 4 {
		case 1:
			r.Key, r.Headers = []byte{byte(i)}, []batch.Header{{Key: "trace", Value: []byte{1, 2, byte(i)}}, {Key: "", Value: nil}}
		case 2:
			r.Key, r.Value = []byte{}, nil
		case 3:
			r.Headers = []batch.Header{{Key: "empty", Value: []byte{}}}
		}
		records[i] = r
	}
	return records
}

// wellFormed fails the test unless b is what a broker takes from a producer.
func wellFormed(t failer, b batch.Batch, limit int) {
	t.Helper()
	if err := b.Verify(); err != nil {
		t.Fatal(err)
	}
	if reason := b.Check(0, limit, false); reason != batch.Passed {
		t.Fatalf("the result can't be passed on: %s", reason)
	}
	if b.Attributes() != int16(b.Codec()) || b.LeaderEpoch() != -1 || b.ProducerID() != -1 || b.ProducerEpoch() != -1 || b.BaseSequence() != -1 {
		t.Fatalf("the result belongs to somebody: % x", b[:batch.HeaderBytes])
	}
	records := each(t, b)
	latest := records[0].Timestamp
	for i, r := range records {
		latest = max(latest, r.Timestamp)
		if r.Offset != b.BaseOffset()+int64(i) {
			t.Fatalf("record %d has offset %d after %d", i, r.Offset, b.BaseOffset())
		}
	}
	if b.BaseTimestamp() != records[0].Timestamp || b.MaxTimestamp() != latest {
		t.Fatalf("header times %d and %d, records say %d and %d", b.BaseTimestamp(), b.MaxTimestamp(), records[0].Timestamp, latest)
	}
}

func isFormatError(err error) bool {
	var e *batch.FormatError
	return errors.As(err, &e)
}
