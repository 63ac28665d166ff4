package batch_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/shared/batch"
)

// vector is a set of messages that Kafka's own classes have written, and what its own reader makes of it. testdata/OldFormat.java says how.
type vector struct {
	name    string
	set     []byte
	records []batch.Record
}

func (v vector) codec() batch.Codec {
	for _, c := range codecs {
		if strings.Contains(v.name, c.String()) {
			return c
		}
	}
	panic("no codec in " + v.name)
}

func vectors(t failer) (all []vector) {
	t.Helper()
	text, err := os.ReadFile("testdata/oldformat.txt")
	if err != nil {
		t.Fatal(err)
	}
	field := func(s string) []byte {
		if s == "null" {
			return nil
		}
		return unhex(strings.Trim(s, `"`))
	}
	for line := range strings.Lines(string(text)) {
		switch words := strings.Fields(line); words[0] {
		case "set":
			all = append(all, vector{name: words[1], set: field(words[2])})
		case "record":
			r := batch.Record{Key: field(words[3]), Value: field(words[4])}
			if _, err := fmt.Sscan(words[1]+" "+words[2], &r.Offset, &r.Timestamp); err != nil {
				t.Fatal(err)
			}
			last := &all[len(all)-1].records
			*last = append(*last, r)
		}
	}
	return all
}

// walk is Next to the end.
func walk(t failer, records []byte) (all []batch.Batch) {
	t.Helper()
	for len(records) > 0 {
		b, rest, err := batch.Next(records)
		if err != nil {
			t.Fatal(err)
		}
		all, records = append(all, b), rest
	}
	return all
}

func sameRecords(t failer, got, want []batch.Record) {
	t.Helper()
	sameContent(t, got, want)
	for i := range want {
		if got[i].Offset != want[i].Offset {
			t.Fatalf("record %d at offset %d, want %d", i, got[i].Offset, want[i].Offset)
		}
	}
}

// The same records three times: as Kafka's reader has them, and as a franz-go consumer finds them in what the messages have become and,
// where it reads the format rightly, in the messages themselves.
func TestMessagesOfOldFormatsBecomeBatches(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.name, func(t *testing.T) {
			made := walk(t, bytes.Clone(v.set))
			if len(made) != 1 {
				t.Fatalf("%d batches", len(made))
			}
			b, old := made[0], !strings.HasPrefix(v.name, "magic-2")
			if err := b.Verify(); err != nil {
				t.Fatal(err)
			}
			sameRecords(t, each(t, b), v.records)
			sameRecords(t, decoded(t, b), v.records)
			if b.OldFormat() != old || old && b.LeaderEpoch() != -1 || b.Codec() != v.codec() || b.ProducerID() != -1 {
				t.Errorf("header % x", b[:batch.HeaderBytes])
			}
			if last := v.records[len(v.records)-1].Offset; b.NextOffset() != last+1 {
				t.Errorf("ends at %d, want %d", b.NextOffset(), last+1)
			}
			want := batch.OldFormat
			switch {
			case !old:
				want = batch.Passed
			case strings.HasSuffix(v.name, "compacted"):
				want = batch.Holes
			}
			if got := b.Check(0, 0, false); got != want {
				t.Errorf("reason %q, want %q", got, want)
			}

			again, err := new(batch.Encoder).Reencode(b, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range again {
				wellFormed(t, m, 0)
			}
			sameContent(t, decoded(t, again...), v.records)

			if v.codec() == batch.LZ4 || v.codec() != batch.None && strings.HasSuffix(v.name, "append-time") {
				return // franz-go knows neither lz4 here, nor that a wrapper's time counts for all
			}
			partition, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Topic: "t", Offset: v.records[0].Offset},
				&kmsg.FetchResponseTopicPartition{RecordBatches: v.set}, kgo.DefaultDecompressor(), nil)
			if partition.Err != nil {
				t.Fatal(partition.Err)
			}
			var theirs []batch.Record
			for _, r := range partition.Records {
				theirs = append(theirs, record(r))
			}
			if strings.HasPrefix(v.name, "magic-0") {
				for i := range theirs {
					theirs[i].Timestamp = -1 // franz-go has no time at all
				}
			}
			sameRecords(t, each(t, b), theirs)
		})
	}
}

func TestPatchTakesTheMarkOfOldFormatsOff(t *testing.T) {
	b := walk(t, vectors(t)[0].set)[0]
	if !b.OldFormat() || b.Mergeable() {
		t.Fatal("not marked")
	}
	b.Patch(batch.Identity{ProducerID: 1}, 0)
	if b.OldFormat() || b.Attributes() != 0 || b.Verify() != nil {
		t.Errorf("a broker would see attributes %#x", b.Attributes())
	}
}

// log is all the vectors one after the other, as one log that has seen three formats.
func log(all []vector) (whole []byte, records []batch.Record) {
	for _, v := range all {
		whole = append(whole, v.set...)
		records = append(records, v.records...)
	}
	return whole, records
}

// Wherever a response is cut, what is whole comes out, and the rest is asked for again.
func TestALogOfAllFormatsIsWalkedToWhereItIsCut(t *testing.T) {
	whole, want := log(vectors(t))
	var got []batch.Record
	made := walk(t, whole)
	for _, b := range made {
		got = append(got, each(t, b)...)
	}
	sameRecords(t, got, want)
	if len(made) >= len(want)/2 {
		t.Errorf("%d batches of %d records: messages are not taken together", len(made), len(want))
	}
	for cut := 1; cut < len(whole); cut++ {
		rest, next, n := whole[:cut:cut], int64(0), 0
		for len(rest) > 0 {
			b, after, err := batch.Next(rest)
			if err == batch.ErrTruncated {
				break
			}
			if err != nil || b.BaseOffset() < next {
				t.Fatalf("cut at %d: batch at %d after %d, %v", cut, b.BaseOffset(), next, err)
			}
			rest, next, n = after, b.NextOffset(), n+int(b.Records())
		}
		if n > len(want) || n < len(want) && want[n].Offset < next {
			t.Fatalf("cut at %d: %d records up to %d", cut, n, next)
		}
	}
}

// old writes messages by hand.
type old struct {
	offset     int64
	magic      byte
	attributes byte
	timestamp  int64
	key, value []byte
}

func (m old) bytes() []byte {
	body := []byte{m.magic, m.attributes}
	if m.magic == 1 {
		body = binary.BigEndian.AppendUint64(body, uint64(m.timestamp))
	}
	for _, v := range [][]byte{m.key, m.value} {
		if v == nil {
			body = binary.BigEndian.AppendUint32(body, 1<<32-1)
			continue
		}
		body = append(binary.BigEndian.AppendUint32(body, uint32(len(v))), v...)
	}
	out := binary.BigEndian.AppendUint64(nil, uint64(m.offset))
	out = binary.BigEndian.AppendUint32(out, uint32(len(body)+4))
	out = binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(body))
	return append(out, body...)
}

// wrapping compresses a set and puts it into a wrapper.
func wrapping(t failer, codec batch.Codec, wrapper old, inner ...old) []byte {
	var set []byte
	for _, m := range inner {
		set = append(set, m.bytes()...)
	}
	wrapper.attributes |= byte(codec)
	wrapper.value = compress(t, codec, set)
	return wrapper.bytes()
}

func TestHostileMessagesAreRefusedNotFollowed(t *testing.T) {
	good := old{offset: 7, magic: 1, timestamp: 5, key: []byte("k"), value: []byte("v")}
	put := func(at int, v ...byte) []byte { b := good.bytes(); copy(b[at:], v); return b }
	sealed := func(at int, v ...byte) []byte {
		b := put(at, v...)
		binary.BigEndian.PutUint32(b[12:], crc32.ChecksumIEEE(b[16:]))
		return b
	}
	inner := old{magic: 1, value: []byte("v")}
	at := func(offset int64) old { m := inner; m.offset = offset; return m }
	nested := inner
	nested.attributes = 1
	bomb := old{magic: 1, value: make([]byte, 65<<20)}
	for name, records := range map[string][]byte{
		"bad CRC":                        put(30, 'x'),
		"length of magic 0 in magic 1":   put(8, 0, 0, 0, 21),
		"negative length":                put(8, 0xff),
		"key beyond the end":             sealed(26, 0, 0, 1, 0),
		"negative length of a key":       sealed(26, 0xff, 0xff, 0xff, 0xfe),
		"value beyond the end":           sealed(31, 0x7f, 0xff, 0xff, 0xff),
		"bytes after the value":          sealed(31, 0, 0, 0, 0),
		"negative offset":                put(0, 0x80),
		"greatest offset":                put(0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		"nested wrapper":                 wrapping(t, batch.Gzip, good, nested),
		"wrapper of nothing":             old{magic: 1, attributes: 3, value: []byte{}}.bytes(),
		"wrapper without a value":        old{magic: 1, attributes: 1}.bytes(),
		"wrapper of garbage":             old{magic: 0, attributes: 3, value: []byte("\x04\x22\x4d\x18\x60\x40garbage")}.bytes(),
		"wrapper of a short lz4 frame":   old{magic: 0, attributes: 3, value: []byte("\x04\x22\x4d\x18\xff\x40")}.bytes(),
		"wrapper of zstd":                old{magic: 1, attributes: 4, value: []byte("(\xb5/\xfd")}.bytes(),
		"wrapper of no codec":            old{magic: 1, attributes: 7, value: []byte("v")}.bytes(),
		"inner offsets do not rise":      wrapping(t, batch.Gzip, good, at(1), at(1)),
		"inner offset beyond its base":   wrapping(t, batch.Gzip, good, at(0), at(8)),
		"inner offsets far apart":        wrapping(t, batch.Gzip, old{offset: 1 << 40, magic: 1}, at(0), at(1<<31)),
		"magic 0 beyond its wrapper":     wrapping(t, batch.Gzip, old{offset: 3}, old{offset: 4}),
		"magic 0 far before its wrapper": wrapping(t, batch.Gzip, old{offset: 1 << 31}, old{offset: 0}),
		"part of an inner message":       old{magic: 1, attributes: 1, value: compress(t, batch.Gzip, inner.bytes()[:20])}.bytes(),
		"inner batch of magic 2":         old{magic: 1, attributes: 1, value: compress(t, batch.Gzip, golden)}.bytes(),
		"bomb":                           wrapping(t, batch.Gzip, good, bomb),
	} {
		b, rest, err := batch.Next(records)
		if b != nil || len(rest) != len(records) || !isFormatError(err) || errors.Is(err, batch.ErrMagic) || errors.Is(err, batch.ErrInflated) != (name == "bomb") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A broken message is told of where it stands, behind those that are whole.
func TestWhatComesBeforeABrokenMessageIsRead(t *testing.T) {
	var records []byte
	for offset := range int64(5) {
		records = append(records, old{offset: offset, value: []byte("v")}.bytes()...)
	}
	records[len(records)-1] ^= 1
	b, rest, err := batch.Next(records)
	if err != nil || b.Records() != 4 {
		t.Fatalf("%d records, %v", b.Records(), err)
	}
	var wrong *batch.FormatError
	if _, _, err := batch.Next(rest); !errors.As(err, &wrong) || wrong.Offset != 4 {
		t.Fatal(err)
	}
}

// Messages that lie side by side are taken together, but not without end, and never out of order.
func TestRunsOfMessagesAreBounded(t *testing.T) {
	var records []byte
	const n, bytesEach = 3000, 1000
	for i := range int64(n) {
		records = append(records, old{offset: 2 * i, magic: 1, timestamp: i, value: make([]byte, bytesEach)}.bytes()...)
	}
	made := walk(t, records)
	if len(made) < 10 || len(made) > 20 {
		t.Errorf("%d batches of %d kB", len(made), n*bytesEach/1000)
	}
	if got := len(each(t, made...)); got != n {
		t.Errorf("%d records of %d", got, n)
	}
	back := append(old{offset: 9}.bytes(), old{offset: 8}.bytes()...)
	far := append(old{offset: 1}.bytes(), old{offset: 1 << 40}.bytes()...)
	for name, records := range map[string][]byte{"going back": back, "far apart": far} {
		if made := walk(t, records); len(made) != 2 {
			t.Errorf("%s: %d batches", name, len(made))
		}
	}
}

// A wrapper of magic 1 may hold messages of magic 0: they have no time, not even the wrapper's.
func TestAWrapperMayHoldOlderMessages(t *testing.T) {
	records := wrapping(t, batch.Snappy, old{offset: 11, magic: 1, attributes: 0x08, timestamp: 77},
		old{offset: 0, value: []byte("old")}, old{offset: 1, magic: 1, timestamp: 3, value: []byte("new")})
	sameRecords(t, each(t, walk(t, records)...), []batch.Record{
		{Offset: 10, Timestamp: -1, Value: []byte("old")}, {Offset: 11, Timestamp: 77, Value: []byte("new")},
	})
}

// The log cleaner of old brokers may leave a wrapper of magic 0 whose last message is gone.
func TestAWrapperMayEndBehindItsLastMessage(t *testing.T) {
	b := walk(t, wrapping(t, batch.Gzip, old{offset: 9}, old{offset: 4, value: []byte("v")}))[0]
	if b.BaseOffset() != 4 || b.NextOffset() != 10 || b.Records() != 1 || b.Check(0, 0, false) != batch.Holes {
		t.Errorf("%d records from %d to %d", b.Records(), b.BaseOffset(), b.NextOffset())
	}
}
