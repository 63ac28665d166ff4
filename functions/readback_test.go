package functions

import (
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/offsets"
	"github.com/kferry/kferry/shared/spec"
)

// A written is one record of a log as the walks see it: what it says, under which key, where.
type written struct {
	offset int64
	key    int
	text   string
}

func (r written) print() print {
	var p print
	for i, c := range []byte(fmt.Sprint(r.key, " ", r.text)) {
		p.whole[i%2] = p.whole[i%2]*257 + uint64(c)
	}
	p.key, p.offset, p.after = uint64(r.key), r.offset, place{r.offset + 1, 7}
	return p
}

func prints(log []written) iter.Seq2[print, error] {
	return func(yield func(print, error) bool) {
		for _, r := range log {
			if !yield(r.print(), nil) {
				return
			}
		}
	}
}

// texts makes a log of words, each a key and what it says: "1a" is key 1, text a.
func texts(words ...string) (log []written) {
	for i, w := range words {
		if w != "" { // a hole
			log = append(log, written{int64(i), int(w[0] - '0'), w[1:]})
		}
	}
	return log
}

func TestResumeCompacted(t *testing.T) {
	for name, c := range map[string]struct {
		landed, source []written
		at             int64
		sure           bool
	}{
		"nothing was compacted":        {texts("1a", "2b"), texts("1a", "2b", "1c"), 2, true},
		"nothing landed":               {nil, texts("1a"), 0, true},
		"all landed":                   {texts("1a", "2b"), texts("1a", "2b"), 2, true},
		"what landed is gone":          {texts("1a", "2b"), texts("", "", "1c", "2d"), 0, true},
		"part of what landed is gone":  {texts("1a", "2b", "3c"), texts("", "2b", "", "1d", "3e"), 2, true},
		"the last that landed is gone": {texts("1a", "2b"), texts("1a", "", "2c"), 1, true},
		"a twin that landed is gone, and a later one is not": {texts("1a", "1a"), texts("", "1a", "2b"), 0, false},
		"a twin of what is gone has not landed":              {texts("1a", "1b"), texts("", "", "1a"), 0, false},
		"a harmless twin":                                    {texts("1a", "2b"), texts("", "2b", "1a"), 2, true},
		"the copy was compacted":                             {texts("", "2b", "1c"), texts("1a", "2b", "1c"), 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			at, sure, err := resumeCompacted(place{0, -1}, prints(c.landed), prints(c.source), unnoted)
			if err != nil || at.offset != c.at || sure != c.sure {
				t.Errorf("at %d, sure: %t, %v; want %d, %t", at.offset, sure, err, c.at, c.sure)
			}
		})
	}
}

// compact takes away what a log cleaner may: records below a bound whose key has a later one below it.
func compact(log []written, bound int64) []written {
	last := map[int]int64{}
	for _, r := range log {
		if r.offset < bound {
			last[r.key] = r.offset
		}
	}
	return slices.DeleteFunc(slices.Clone(log), func(r written) bool { return r.offset < bound && r.offset < last[r.key] })
}

func latest(log ...[]written) map[int]string {
	values := map[int]string{}
	for _, part := range log {
		for _, r := range part {
			values[r.key] = r.text
		}
	}
	return values
}

// Whatever was compacted between a crash and its resume, in the source and in the copy, the copy ends with what the source ends with.
// Where no two records are alike and only the source was compacted, nothing is copied twice either.
func TestResumeCompactedLosesNothing(t *testing.T) {
	for seed := range uint64(20_000) {
		random := rand.New(rand.NewPCG(seed, 4))
		keys, words := 1+random.IntN(6), 1+random.IntN(4)
		alike := random.IntN(2) == 0
		var source []written
		grow := func(n int) {
			for range n {
				r := written{offset: int64(len(source)), key: random.IntN(keys), text: fmt.Sprint("w", random.IntN(words))}
				if !alike {
					r.text = fmt.Sprint("unique", r.offset)
				}
				source = append(source, r)
			}
		}
		grow(1 + random.IntN(12))
		bound := int64(random.IntN(len(source) + 1))
		shown := compact(source, bound) // what the process that died saw
		landed := shown[:random.IntN(len(shown)+1)]
		end := int64(0)
		if len(landed) > 0 {
			end = landed[len(landed)-1].offset + 1
		}
		grow(random.IntN(12))
		bound = max(bound, int64(random.IntN(len(source)+1)))
		now := compact(source, bound)
		kept, copyCompacted := landed, random.IntN(4) == 0
		if copyCompacted && len(landed) > 0 {
			kept = compact(landed, int64(random.IntN(int(end)+1)))
		}

		at, sure, err := resumeCompacted(place{0, -1}, prints(kept), prints(now), unnoted)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		rest := slices.DeleteFunc(slices.Clone(now), func(r written) bool { return r.offset < at.offset })
		want, got := latest(now), latest(kept, rest)
		for key, value := range want {
			if got[key] != value {
				t.Fatalf("seed %d: key %d ends with %q, in the source with %q\nlanded %v\nsource %v\nresumed at %d", seed, key, got[key], value, kept, now, at.offset)
			}
		}
		repeats := slices.ContainsFunc(rest, func(r written) bool { return r.offset < end })
		if !alike && !copyCompacted && (repeats || !sure) {
			t.Fatalf("seed %d: resumed at %d although all before %d had landed (sure: %t)\nlanded %v\nsource %v", seed, at.offset, end, sure, kept, now)
		}
	}
}

func TestResumeBehind(t *testing.T) {
	for name, c := range map[string]struct {
		landed, source []written
		at             int64
		other          bool
	}{
		"nothing landed":                   {nil, texts("1a"), 0, false},
		"some landed":                      {texts("1a", "1b"), texts("1a", "1b", "1c"), 2, false},
		"all landed":                       {texts("1a", "1b"), texts("1a", "1b"), 2, false},
		"all alike":                        {texts("1a", "1a"), texts("1a", "1a", "1a"), 2, false},
		"holes":                            {texts("1a", "1b"), texts("1a", "", "", "1b", "1c"), 4, false},
		"landed twice":                     {texts("1a", "1b", "1a", "1b"), texts("1a", "1b", "1c"), 2, false},
		"landed twice, the second in part": {texts("1a", "1b", "1c", "1b", "1c", "1d"), texts("1a", "1b", "1c", "1d", "1e"), 4, false},
		"somebody else's":                  {texts("1a", "9x"), texts("1a", "1b"), 1, true},
		"more landed than there is":        {texts("1a", "1b"), texts("1a"), 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			at, err := resumeBehind(place{0, -1}, prints(c.landed), prints(c.source), unnoted)
			_, other := errors.AsType[*otherRecordError](err)
			if at.offset != c.at || other != c.other {
				t.Errorf("at %d, %v; want %d, another record: %t", at.offset, err, c.at, c.other)
			}
		})
	}
}

func TestWalksEndWithTheErrorOfASide(t *testing.T) {
	broken := errors.New("broken")
	fails := func(yield func(print, error) bool) {
		if yield(written{0, 1, "a"}.print(), nil) {
			yield(print{}, broken)
		}
	}
	whole := prints(texts("1a", "1b"))
	for name, sides := range map[string][2]iter.Seq2[print, error]{"landed": {fails, whole}, "source": {whole, fails}} {
		if _, err := resumeBehind(place{}, sides[0], sides[1], unnoted); !errors.Is(err, broken) {
			t.Errorf("%s: resumeBehind ends with %v", name, err)
		}
		if at, sure, err := resumeCompacted(place{}, sides[0], sides[1], unnoted); !errors.Is(err, broken) || sure || at.offset != 0 {
			t.Errorf("%s: resumeCompacted ends at %d with %v", name, at.offset, err)
		}
	}
}

func unnoted(print, print) {}

// Requests that came late double what landed, in any part and at any time. Who goes on at a translated position still finds there, or
// behind, every record that it hasn't read.
func TestNoPositionPassesOverWhatLandedTwice(t *testing.T) {
	found := 0
	for seed := range uint64(1_000) {
		random := rand.New(rand.NewPCG(seed, 9))
		var source, landed []written
		for o := int64(0); len(source) < 20; o++ {
			if random.IntN(4) > 0 {
				source = append(source, written{o, 1, fmt.Sprint(o)})
			}
		}
		land := func(records []written) {
			for _, r := range records {
				landed = append(landed, written{int64(len(landed)), r.key, r.text})
			}
		}
		for due := 0; due < 12; {
			n := 1 + random.IntN(4)
			if late := random.IntN(due + 1); random.IntN(2) == 0 {
				land(source[late:min(late+n, due)])
				continue
			}
			land(source[due : due+n])
			due += n
		}
		m := &mirror{}
		m.resumeTrack()
		at, err := resumeBehind(place{0, -1}, prints(landed), prints(source), m.foundThere)
		if err != nil { // held: what came late has ended within what had landed
			continue
		}
		found++
		m.placed(m.found)
		m.track.Reach(at.offset, int64(len(landed)))
		for _, r := range source {
			if r.offset >= at.offset {
				m.track.Copied(r.offset, int64(len(landed)), 1)
				land([]written{r})
			}
		}
		c := offsets.Cursor{Offset: source[len(source)-1].offset + 1, Target: int64(len(landed)), Mapped: true, Map: m.track.Map(true)}
		for _, r := range source {
			to := offsets.Open(spec.Flow{}, nil).Translate(kafka.TopicPartition{}, c, r.offset).Target
			for _, left := range source {
				if left.offset >= r.offset && !slices.ContainsFunc(landed[min(to, c.Target):], func(l written) bool { return l.text == left.text }) {
					t.Fatalf("seed %d: %d leads to %d, behind all of %d in %v", seed, r.offset, to, left.offset, landed)
				}
			}
		}
	}
	if found < 100 {
		t.Errorf("%d only were no holds", found)
	}
}
