package functions

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// traceOf makes a source of the letters of a text; what looks alike is the same letter. A blank is a hole.
func traceOf(text string) *trace {
	t := &trace{}
	for i, c := range []byte(text) {
		if c != ' ' {
			t.add(uint64(c), int64(i), 0)
		}
	}
	return t
}

func printsOf(text string) (prints []uint64) {
	for _, c := range []byte(text) {
		prints = append(prints, uint64(c))
	}
	return prints
}

func TestAlign(t *testing.T) {
	for _, c := range []struct {
		name           string
		source         string
		committed      int
		landed         string
		last, most     int
		aborts, counts bool
	}{
		{name: "nothing since the last commit", source: "abcdefgh", committed: 4, landed: "abcd", last: 3, most: 3},
		{name: "a tail", source: "abcdefgh", committed: 2, landed: "abcdef", last: 5, most: 5},
		{name: "a retried batch", source: "abcdefgh", committed: 2, landed: "abcdcdef", last: 5, most: 5},
		{name: "a second run that did not get as far", source: "abcdefgh", committed: 2, landed: "abcdefgcde", last: 6, most: 6},
		{name: "a commit between two runs", source: "abcdefgh", committed: 4, landed: "abcdefgcd", last: 6, most: 6},
		{name: "others' records on the copy", source: "abcdefgh", committed: 2, landed: "xyzabcdxe", last: 4, most: 4},
		{name: "records alike before the last", source: "axxxbcde", committed: 1, landed: "axxxb", last: 4, most: 4},
		{name: "records alike at the end: a retry, or more of them", source: "abxxxxxc", committed: 2, landed: "abxxx", last: 1, most: 6},
		{name: "records alike at the end, counted", source: "abxxxxxc", committed: 2, landed: "abxxx", last: 1, most: 4, counts: true},
		{name: "alike behind a clean stop, counted", source: "abxxxxxc", committed: 4, landed: "abxx", last: 3, most: 3, counts: true},
		{name: "alike with what landed before", source: "xabcx", committed: 4, landed: "xabc", last: 3, most: 3},
		{name: "aborted records left out", source: "abcdefgh", committed: 2, landed: "abefg", last: 6, most: 6, aborts: true},
		{name: "aborted records left out, alike behind", source: "abcdxx", committed: 2, landed: "abxx", last: 1, most: 5, aborts: true},
		{name: "nothing in common", source: "abcdefgh", committed: 2, landed: "uvwxyz", last: 1, most: 1},
		{name: "holes in the source", source: "a cd  gh", committed: 1, landed: "abcdefg", last: 3, most: 3},
	} {
		source := traceOf(c.source)
		source.skips = c.aborts
		got := align(source, c.committed, printsOf(c.landed), c.counts)
		if got.last != c.last || got.most != c.most {
			t.Errorf("%s: last %d, most %d; want %d, %d", c.name, got.last, got.most, c.last, c.most)
		}
	}
}

func TestTracePlaces(t *testing.T) {
	source := &trace{}
	offsets := []int64{3, 4, 5, 9, 10, 11, 12, 40}
	epochs := []int32{0, 0, 0, 0, 0, 2, 2, 2}
	for i, o := range offsets {
		source.add(uint64(i), o, epochs[i])
	}
	for i, o := range offsets {
		if got, want := source.behind(i), (place{o + 1, epochs[i]}); got != want {
			t.Errorf("behind %d: %v, want %v", i, got, want)
		}
		if got := source.before(o + 1); got != i+1 {
			t.Errorf("before %d: %d, want %d", o+1, got, i+1)
		}
	}
}

// A mirrorMaker does to a copy what the real one does: it commits now and then, repeats what was not acknowledged, dies, and begins again
// at its last commit.
type mirrorMaker struct {
	*rand.Rand
	source    []uint64
	aborted   []bool // it doesn't see
	copied    []uint64
	committed int // index of the next one, by its own account
	furthest  int // index behind the last that has landed
}

func (m *mirrorMaker) run() {
	next := m.committed
	for next < len(m.source) && m.IntN(30) > 0 { // till it dies
		batch := m.copied[len(m.copied):]
		for n := 1 + m.IntN(8); n > 0 && next < len(m.source); next++ {
			if !m.aborted[next] {
				batch = append(batch, m.source[next])
				n--
			}
		}
		for range 1 + m.IntN(10)/9 {
			m.copied = append(m.copied, batch...)
		}
		m.furthest = max(m.furthest, next)
		if m.IntN(12) == 0 {
			m.committed = next
		}
	}
}

// Whatever MirrorMaker did before it stopped, and whatever is alike: what is found is certain to have landed, what is called sure is all of
// it, and what is not certain lies within the bounds.
func TestAlignFindsWhatMirrorMakerLanded(t *testing.T) {
	sure := 0
	const worlds = 20_000
	for seed := range uint64(worlds) {
		random := rand.New(rand.NewPCG(seed, 1))
		m := &mirrorMaker{Rand: random}
		alike, aborts := random.IntN(3) == 0, random.IntN(3) == 0
		source := &trace{skips: aborts}
		for i := range 200 + random.IntN(200) {
			print := uint64(i) + 1000
			if alike && random.IntN(3) > 0 {
				print = uint64(random.IntN(4))
			}
			m.source = append(m.source, print)
			m.aborted = append(m.aborted, aborts && random.IntN(4) == 0)
			source.add(print, int64(i), 0)
		}
		for range 1 + random.IntN(4) {
			m.run()
		}
		got := align(source, m.committed, m.copied, true)
		landed := 0 // behind the last that has landed, as one that reads committed sees it
		for i := range m.furthest {
			if !m.aborted[i] {
				landed = i + 1
			}
		}
		last, most := max(got.last+1, 0), got.most+1
		if last > max(landed, m.committed) || most < landed {
			t.Fatalf("seed %d: landed up to %d, committed %d, found %d to %d", seed, landed, m.committed, last, most)
		}
		if got.sure() {
			sure++
		} else if !alike {
			t.Fatalf("seed %d: not sure though no records are alike: %+v", seed, got)
		}
	}
	if sure < worlds/2 {
		t.Errorf("sure of %d of %d only", sure, worlds)
	}
	t.Logf("sure of %d of %d", sure, worlds)
}

// However far back it was that a run got further than a later one, the stretch that is looked at reaches back to before it.
func TestTailReachesBackFarEnough(t *testing.T) {
	var source trace
	var all []uint64
	for i := range 4000 {
		source.add(uint64(i), int64(i), 0)
		all = append(all, uint64(i))
	}
	copied := slices.Concat(all[:3000], all[1000:2000]) // the second run had the first's commit
	for n, want := range map[int]bool{500: false, 1500: false, 3200: false, 4000: true} {
		if got := align(&source, 1000, copied[len(copied)-n:], true); got.begins != want || got.last != 1999 && n < 1000 || got.last != 2999 && n > 1000 {
			t.Errorf("%d records: %+v", n, got)
		}
	}
}

// Whoever goes on where a record is said to be finds it and all that follow, in their order, and nowhere later: whatever MirrorMaker did
// before it stopped, and whatever is alike. Where all records differ and none was left out, that is known as far back as the copy goes.
func TestLastCopiesLeadToAllThatFollow(t *testing.T) {
	copies := 0
	for seed := range uint64(5000) {
		random := rand.New(rand.NewPCG(seed, 2))
		m := &mirrorMaker{Rand: random}
		alike, aborts := random.IntN(3) == 0, random.IntN(3) == 0
		source, landed := &trace{skips: aborts}, &trace{}
		for i := range 100 + random.IntN(100) {
			print := uint64(i) + 1000
			if alike && random.IntN(3) > 0 {
				print = uint64(random.IntN(4))
			}
			m.source = append(m.source, print)
			m.aborted = append(m.aborted, aborts && random.IntN(4) == 0)
			source.add(print, 10+int64(i), 0)
		}
		for range 1 + random.IntN(4) {
			m.run()
		}
		cut := random.IntN(len(m.copied)/2 + 1)
		for at, print := range m.copied[cut:] {
			landed.add(print, int64(cut+at), -1)
		}
		known := map[int64]int64{}
		for _, p := range lastCopies(source, m.furthest, landed, aborts) {
			for i := range p.n {
				known[p.source+i] = p.target + i
			}
		}
		copies += len(known)
		at, whole := int64(len(m.copied)), true // the greatest offset behind which all are that a reader of the copy may want
		for i := m.furthest - 1; i >= 0; i-- {
			if m.aborted[i] {
				continue
			}
			for at--; at >= int64(cut) && m.copied[at] != m.source[i]; at-- {
			}
			got, is := known[10+int64(i)]
			if is && got != at {
				t.Fatalf("seed %d: %d is said to be at %d, want %d", seed, 10+i, got, at)
			}
			if whole = whole && at >= int64(cut); whole && !is && !alike {
				t.Fatalf("seed %d: %d is at %d, and that is not known", seed, 10+i, at)
			}
			if !whole {
				break
			}
		}
	}
	t.Logf("%d records found", copies)
}
