package offsets_test

import (
	"math/rand/v2"
	"testing"

	"github.com/kferry/kferry/shared/offsets"
	"github.com/kferry/kferry/shared/spec"
)

// A pattern says how many records come next, and how long the hole behind them is.
type pattern func(*rand.Rand) (records, hole int64)

// survivors are what is left where each source offset keeps its record with a probability: compaction of keys that are written
// at random.
func survivors(part float64) pattern {
	return func(r *rand.Rand) (records, hole int64) {
		records, hole = 1, 1
		for r.Float64() < part {
			records++
		}
		for r.Float64() >= part {
			hole++
		}
		return records, hole
	}
}

func transactions(least, most int64) pattern {
	return func(r *rand.Rand) (int64, int64) { return least + r.Int64N(most-least+1), 1 }
}

// The patterns that the README gives sizes for, and the most bytes that the map may take for 100 million records of the source, alive or
// not: some more than were measured.
var patterns = []struct {
	name  string
	of    pattern
	bound int64 // bytes per 100 million source offsets
}{
	{"dense", func(*rand.Rand) (int64, int64) { return 1 << 40, 1 }, 100},
	{"transactions of 1", transactions(1, 1), 100},
	{"transactions of 10", transactions(10, 10), 100},
	{"transactions of 100", transactions(100, 100), 100},
	{"transactions of 1 to 19", transactions(1, 19), 7_300_000},
	{"transactions of 1 to 199", transactions(1, 199), 1_300_000},
	{"transactions of 10, of which 1 in 10 fails", func(r *rand.Rand) (int64, int64) {
		hole := int64(1)
		for r.IntN(10) == 0 {
			hole += 11
		}
		return 10, hole
	}, 4_200_000},
	{"half of the records compacted", survivors(.5), 13_600_000},
	{"1 in 10 compacted", survivors(.9), 7_400_000},
	{"9 in 10 compacted", survivors(.1), 7_400_000},
	{"99 in 100 compacted", survivors(.01), 1_300_000},
}

const (
	keyBytes    = 110 // of a chunk's key on the topic, with a long name
	recordBytes = 12  // that Kafka adds, about
)

// grow copies a pattern until the source has so many offsets, commits once in a while, and returns the bytes of the chunks that came of
// it, and of the cursor's part in all commits.
func grow(track *offsets.Track, of pattern, r *rand.Rand, end, commitEvery int64) (chunks, topic, commits, most int64) {
	next := commitEvery
	for source, target := int64(0), int64(0); source < end; {
		records, hole := of(r)
		records = min(records, end-source)
		track.Copied(source, target, records)
		if source, target = source+records+hole, target+records; source >= next {
			next += commitEvery
			for _, n := range track.PendingSizes() {
				chunks++
				topic += int64(n) + keyBytes + recordBytes
			}
			track.Saved(track.Pending())
			text := int64(len(track.Map(true)))
			commits, most = commits+text, max(most, text)
		}
	}
	return chunks, topic, commits, most
}

func TestMapIsSmall(t *testing.T) {
	const end = 4_000_000
	for _, p := range patterns {
		track := resume(t, offsets.Cursor{})
		chunks, bytes, commits, most := grow(track, p.of, rand.New(rand.NewPCG(1, 1)), end, 100_000)
		bytes += int64(len(track.Map(true)))
		per := bytes
		if chunks > 0 { // else it doesn't grow
			per *= 100_000_000 / end
		}
		t.Logf("%-45s %11d bytes per 100 million, %6d chunks; per million %7d bytes in cursors, %4d at most", p.name, per, chunks*100_000_000/end, commits*1_000_000/end, most)
		if per > p.bound {
			t.Errorf("%s: %d bytes per 100 million records", p.name, per)
		}
		if most > 6_000 {
			t.Errorf("%s: a cursor carries %d bytes", p.name, most)
		}
	}
}

// BenchmarkTrack is what it costs to note a million source offsets, commits once a 100,000 included.
func BenchmarkTrack(b *testing.B) {
	for _, p := range patterns {
		b.Run(p.name, func(b *testing.B) {
			for b.Loop() {
				track, _ := offsets.Resume(offsets.Cursor{})
				grow(track, p.of, rand.New(rand.NewPCG(1, 1)), 1_000_000, 100_000)
			}
		})
	}
	b.Run("dense, batch by batch", func(b *testing.B) {
		for b.Loop() {
			track, _ := offsets.Resume(offsets.Cursor{})
			for at := int64(0); at < 1_000_000; at += 100 {
				track.Copied(at, at, 100)
			}
		}
	})
}

// BenchmarkTranslate is one position of many in the worst case, in ascending order and anywhere.
func BenchmarkTranslate(b *testing.B) {
	random := rand.New(rand.NewPCG(1, 1))
	track, _ := offsets.Resume(offsets.Cursor{})
	c := offsets.Cursor{Offset: 4_000_000, Mapped: true}
	half := survivors(.5)
	for source := int64(0); source < c.Offset; {
		records, hole := half(random)
		records = min(records, c.Offset-source)
		track.Copied(source, c.Target, records)
		source, c.Target = source+records+hole, c.Target+records
	}
	m := offsets.Open(spec.Flow{Source: "A", Target: "B"}, nil)
	m.Keep(tp, track.Pending())
	track.Saved(track.Pending())
	c.Map = track.Map(true)
	b.Run("ascending", func(b *testing.B) {
		for u := int64(0); b.Loop(); u = (u + 7) % c.Offset {
			m.Translate(tp, c, u)
		}
	})
	b.Run("anywhere", func(b *testing.B) {
		for b.Loop() {
			m.Translate(tp, c, random.Int64N(c.Offset))
		}
	})
	b.Run("after each commit", func(b *testing.B) {
		for i := int64(0); b.Loop(); i++ {
			c := c
			c.Target -= i % 2
			m.Translate(tp, c, random.Int64N(c.Offset))
		}
	})
}
