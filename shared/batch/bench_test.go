package batch_test

import (
	"fmt"
	"hash/maphash"
	"testing"

	"github.com/kferry/kferry/shared/batch"
)

// sized are n records of the given value size, which compress about threefold.
func sized(n, value int) []batch.Record {
	records := make([]batch.Record, n)
	for i := range records {
		v := make([]byte, value)
		state := uint32(i + 1)
		for j := range v {
			state = state*1664525 + 1013904223
			v[j] = "0123456789abcdef"[state>>28]
			if j%64 > 32 {
				v[j] = v[j-32]
			}
		}
		records[i] = batch.Record{Offset: int64(i), Timestamp: 1_700_000_000_000 + int64(i), Key: fmt.Appendf(nil, "key-%d", i), Value: v}
	}
	return records
}

func BenchmarkNext(b *testing.B) {
	for _, size := range []int{1, 16, 128} {
		b.Run(fmt.Sprintf("%dKiB", size), func(b *testing.B) {
			one := batch.Of(sized(size*2, 480)...)
			b.SetBytes(int64(len(one)))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := batch.Next(one); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPatch(b *testing.B) {
	for _, size := range []int{1, 16, 128} {
		b.Run(fmt.Sprintf("%dKiB", size), func(b *testing.B) {
			one := batch.Of(sized(size*2, 480)...)
			b.SetBytes(int64(len(one)))
			b.ReportAllocs()
			for b.Loop() {
				if one.Check(0, 1<<20, false) == batch.Passed {
					one.Patch(batch.Identity{ProducerID: 1}, 0)
				}
			}
		})
	}
}

// BenchmarkMerge merges batches of 1.8 KB into one of 64 KB, of records large and small.
func BenchmarkMerge(b *testing.B) {
	for _, shape := range []struct{ records, value int }{{4, 430}, {18, 85}, {90, 10}} {
		b.Run(fmt.Sprintf("%drecords", shape.records), func(b *testing.B) {
			var batches []batch.Batch
			size := 0
			for size < 64<<10 {
				one := batch.Of(sized(shape.records, shape.value)...)
				batches = append(batches, one)
				size += len(one)
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			e := new(batch.Encoder)
			for b.Loop() {
				if _, err := e.Merge(batches); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkReencode counts decompressed bytes.
func BenchmarkReencode(b *testing.B) {
	records := sized(256, 480)
	for _, codec := range codecs {
		b.Run(codec.String(), func(b *testing.B) {
			one := source{codec: codec, records: records}.batch(b)
			b.SetBytes(256 * 500)
			b.ReportAllocs()
			e := new(batch.Encoder)
			for b.Loop() {
				if _, err := e.Reencode(one, 1); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestPassingThroughAllocatesNothing(t *testing.T) {
	response := []byte(source{codec: batch.LZ4, records: samples(0, 50)}.batch(t))
	allocations := testing.AllocsPerRun(100, func() {
		b, _, err := batch.Next(response)
		if err != nil || b.Check(0, 1<<20, false) != batch.Passed {
			t.Fatal(err)
		}
		b.Patch(batch.Identity{ProducerID: 1}, 7)
	})
	if allocations != 0 {
		t.Errorf("%v allocations a batch", allocations)
	}
}

// BenchmarkWhatADigestWouldCost is why no digest of the records is kept while they are copied: to unpack and digest what a batch holds,
// even with the cheapest hash there is, costs many times what it costs to pass the batch through.
func BenchmarkWhatADigestWouldCost(b *testing.B) {
	one := source{codec: batch.LZ4, records: sized(2500, 1000)}.batch(b)
	b.Run("pass through", func(b *testing.B) {
		b.SetBytes(int64(len(one)))
		for b.Loop() {
			next, _, err := batch.Next(one)
			if err != nil || next.Check(0, 2<<20, false) != batch.Passed {
				b.Fatal(err)
			}
			next.Patch(batch.Identity{ProducerID: 1}, 7)
		}
	})
	b.Run("unpack and digest", func(b *testing.B) {
		b.SetBytes(int64(len(one)))
		var h maphash.Hash
		for b.Loop() {
			for r, err := range one.Each(1 << 30) {
				if err != nil {
					b.Fatal(err)
				}
				h.Write(r.Key)
				h.Write(r.Value)
			}
		}
	})
}
