package verify_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/kferry/kferry/shared/verify"
)

// A script is a log as a test writes it down: words, each a record. What stands behind a word:
//
//	a       the record a
//	a@5     with the timestamp 5; else timestamps are those of the word
//	k:a     with the key k
//	k:-     a tombstone of the key k
//	|a      records before it have expired; [a where the flow was not to begin with the first record
func script(text string) []verify.Entry {
	var log []verify.Entry
	for i, word := range strings.Fields(text) {
		e := verify.Entry{Offset: int64(i)}
		if rest, is := strings.CutPrefix(word, "|"); is {
			word, e.Before = rest, verify.Expired
		}
		if rest, is := strings.CutPrefix(word, "["); is {
			word, e.Before = rest, verify.NotBegun
		}
		word, timestamp, timed := strings.Cut(word, "@")
		key, value, keyed := strings.Cut(word, ":")
		if keyed {
			e.Key, e.Tombstone = number(key), value == "-"
		}
		e.Content = verify.Digest{number(word), 1}
		e.Timestamp = int64(number(word))
		if timed {
			fmt.Sscan(timestamp, &e.Timestamp)
		}
		log = append(log, e)
	}
	return log
}

// number is in the order of the alphabet, so that a script's timestamps can be.
func number(word string) (n uint64) {
	for i := range 8 {
		n <<= 8
		if i < len(word) {
			n |= uint64(word[i])
		}
	}
	return n >> 8
}

// align runs two logs through an aligner, in pieces of some size, and then once more as far as tombstones ask for it.
func align(rules verify.Rules, piece int, logs [2][]verify.Entry) verify.Outcome {
	a := verify.NewAligner(rules)
	whole := logs
	for {
		s, done := a.Next()
		if done {
			for _, s := range []verify.Side{verify.Source, verify.Target} {
				if a.Deleted(1 - s) {
					a.Again(s, whole[s]...)
				}
			}
			return a.Outcome()
		}
		if len(logs[s]) == 0 {
			a.End(s, verify.Present)
			continue
		}
		n := min(piece, len(logs[s]))
		a.Add(s, logs[s][:n]...)
		logs[s] = logs[s][n:]
	}
}

func TestAlign(t *testing.T) {
	t.Parallel()
	plain := verify.Rules{Timestamps: true, Claimed: 1000}
	unclaimed := verify.Rules{Timestamps: true}
	timeless := verify.Rules{Claimed: 1000}
	compacted := func(source, target bool) verify.Rules {
		return verify.Rules{Timestamps: true, Claimed: 1000, Compacted: [2]bool{source, target}}
	}
	tests := map[string]struct {
		rules          verify.Rules
		source, target string
		want           verify.Counts
		first          verify.Pair
	}{
		"the same":                     {plain, "a b c", "a b c", verify.Counts{Equal: 3}, verify.Pair{}},
		"both empty":                   {plain, "", "", verify.Counts{}, verify.Pair{}},
		"one missing":                  {plain, "a b c", "a c", verify.Counts{Equal: 2, Missing: 1}, verify.Pair{Kind: verify.Missing, Source: 1, Target: -1}},
		"the first missing":            {plain, "a b c", "b c", verify.Counts{Equal: 2, Missing: 1}, verify.Pair{Kind: verify.Missing, Source: 0, Target: -1}},
		"the last missing":             {plain, "a b c", "a b", verify.Counts{Equal: 2, Missing: 1}, verify.Pair{Kind: verify.Missing, Source: 2, Target: -1}},
		"the last not yet copied":      {unclaimed, "a b c", "a b", verify.Counts{Equal: 2, Behind: 1}, verify.Pair{}},
		"one missing, more to copy":    {unclaimed, "a b c d", "a c", verify.Counts{Equal: 2, Missing: 1, Behind: 1}, verify.Pair{Kind: verify.Missing, Source: 1, Target: -1}},
		"some claimed, some not":       {verify.Rules{Timestamps: true, Claimed: 3}, "a b c d e", "a b", verify.Counts{Equal: 2, Missing: 1, Behind: 2}, verify.Pair{Kind: verify.Missing, Source: 2, Target: -1}},
		"nothing copied yet":           {unclaimed, "a b c", "", verify.Counts{Behind: 3}, verify.Pair{}},
		"one extra":                    {plain, "a b c", "a x b c", verify.Counts{Equal: 3, Extra: 1}, verify.Pair{Kind: verify.Extra, Source: -1, Target: 1}},
		"one extra at the end":         {plain, "a b c", "a b c x", verify.Counts{Equal: 3, Extra: 1}, verify.Pair{Kind: verify.Extra, Source: -1, Target: 3}},
		"one extra while copying":      {unclaimed, "a b c d e", "a b x@999999999999999999", verify.Counts{Equal: 2, Extra: 1, Behind: 3}, verify.Pair{Kind: verify.Extra, Source: -1, Target: 2}},
		"one changed":                  {plain, "a b c", "a x@98 c", verify.Counts{Equal: 2, Changed: 1}, verify.Pair{Kind: verify.Changed, Source: 1, Target: 1}},
		"the last changed":             {unclaimed, "a b@7 c@8 d", "a b@7 x@8", verify.Counts{Equal: 2, Changed: 1, Behind: 1}, verify.Pair{Kind: verify.Changed, Source: 2, Target: 2}},
		"a timestamp changed":          {plain, "a b@1 c", "a b@2 c", verify.Counts{Equal: 2, Changed: 1}, verify.Pair{Kind: verify.Changed, Source: 1, Target: 1}},
		"timestamps don't count":       {timeless, "a b@1 c", "a b@2 c", verify.Counts{Equal: 3}, verify.Pair{}},
		"all timestamps changed":       {plain, "a@1 b@2 c@3", "a@11 b@12 c@13", verify.Counts{Changed: 3}, verify.Pair{Kind: verify.Changed, Source: 0, Target: 0}},
		"one twice in a row":           {plain, "a b c", "a b b c", verify.Counts{Equal: 3, Duplicated: 1}, verify.Pair{Kind: verify.Duplicated, Source: -1, Target: 2}},
		"a run twice":                  {plain, "a b c d", "a b c a b c d", verify.Counts{Equal: 4, Duplicated: 3}, verify.Pair{Kind: verify.Duplicated, Source: -1, Target: 3}},
		"the last twice":               {plain, "a b", "a b b", verify.Counts{Equal: 2, Duplicated: 1}, verify.Pair{Kind: verify.Duplicated, Source: -1, Target: 2}},
		"two exchanged":                {plain, "a b c d", "a c b d", verify.Counts{Equal: 3, Reordered: 1}, verify.Pair{Kind: verify.Reordered, Source: 2, Target: 1}},
		"one moved far back":           {plain, "a b c d e f", "a c d e b f", verify.Counts{Equal: 5, Reordered: 1}, verify.Pair{Kind: verify.Reordered, Source: 1, Target: 4}},
		"one moved far forward":        {plain, "a b c d e f", "a e b c d f", verify.Counts{Equal: 5, Reordered: 1}, verify.Pair{Kind: verify.Reordered, Source: 4, Target: 1}},
		"one moved to the end":         {unclaimed, "a b c d", "a c d b", verify.Counts{Equal: 3, Reordered: 1}, verify.Pair{Kind: verify.Reordered, Source: 1, Target: 3}},
		"one moved, another in place":  {plain, "a b c d e", "a x c b d e", verify.Counts{Equal: 4, Reordered: 1, Extra: 1}, verify.Pair{Kind: verify.Extra, Source: -1, Target: 1}},
		"a repeated record missing":    {plain, "a r@1 b r@1 c", "a b r@1 c", verify.Counts{Equal: 4, Missing: 1}, verify.Pair{Kind: verify.Missing, Source: 1, Target: -1}},
		"all records alike, one more":  {timeless, "r r r", "r r r r", verify.Counts{Equal: 3, Duplicated: 1}, verify.Pair{Kind: verify.Duplicated, Source: -1, Target: 3}},
		"one among alike ones missing": {timeless, "r x r r r r u v", "r r r r r u v", verify.Counts{Equal: 7, Missing: 1}, verify.Pair{Kind: verify.Missing, Source: 1, Target: -1}},
		"nothing in common":            {plain, "a b", "x y z", verify.Counts{Changed: 2, Extra: 1}, verify.Pair{Kind: verify.Changed, Source: 0, Target: 0}},
		"expired at the source":        {plain, "|c d e", "a b c d e", verify.Counts{Equal: 3, ExpiredSource: 2}, verify.Pair{}},
		"expired at the target":        {plain, "a b c d", "|c d", verify.Counts{Equal: 2, ExpiredTarget: 2}, verify.Pair{}},
		"expired on both sides":        {plain, "|b c d", "|b c d", verify.Counts{Equal: 3}, verify.Pair{}},
		"expired, and the first other": {plain, "|b@7 c", "|x@7 c", verify.Counts{Equal: 1, Changed: 1}, verify.Pair{Kind: verify.Changed, Source: 0, Target: 0}},
		"expired while it is read":     {plain, "a b c d e f", "a b |e f", verify.Counts{Equal: 4, ExpiredTarget: 2}, verify.Pair{}},
		"begun in the middle":          {plain, "a b c d", "[c d", verify.Counts{Equal: 2, NotBegun: 2}, verify.Pair{}},
		"begun, then one missing":      {plain, "a b c d e", "[c e", verify.Counts{Equal: 2, NotBegun: 2, Missing: 1}, verify.Pair{Kind: verify.Missing, Source: 3, Target: -1}},
		"begun, and an extra":          {plain, "a b c d", "[x@999999999999999999 c d", verify.Counts{Equal: 2, NotBegun: 2, Extra: 1}, verify.Pair{Kind: verify.Extra, Source: -1, Target: 0}},

		"compacted source, reordered":  {compacted(true, false), "k:c l:b", "k:a l:b k:c", verify.Counts{Equal: 1, Compacted: 1, Reordered: 1}, verify.Pair{Kind: verify.Reordered, Source: 1, Target: 1}},
		"source compacted in order":    {compacted(true, false), "l:b k:c", "k:a l:b k:c", verify.Counts{Equal: 2, Compacted: 1}, verify.Pair{}},
		"target compacted in order":    {compacted(false, true), "k:a l:b k:c", "l:b k:c", verify.Counts{Equal: 2, Compacted: 1}, verify.Pair{}},
		"the last of a key missing":    {compacted(false, true), "k:a l:b k:c m:d", "k:a l:b m:d", verify.Counts{Equal: 3, Missing: 1}, verify.Pair{Kind: verify.Missing, Source: 2, Target: -1}},
		"a foreign key":                {compacted(true, true), "k:a m:d", "k:a x:d m:d", verify.Counts{Equal: 2, Extra: 1}, verify.Pair{Kind: verify.Extra, Source: -1, Target: 1}},
		"source whole, target misses":  {compacted(true, false), "k:a l:b k:c", "l:b k:c", verify.Counts{Equal: 2, Missing: 1}, verify.Pair{Kind: verify.Missing, Source: 0, Target: -1}},
		"tombstones gone on target":    {compacted(true, true), "k:a l:b k:- m:c", "l:b m:c", verify.Counts{Equal: 2, Compacted: 2}, verify.Pair{}},
		"tombstones gone on source":    {compacted(true, true), "l:b m:c", "k:a l:b k:- m:c", verify.Counts{Equal: 2, Compacted: 2}, verify.Pair{}},
		"a tombstone lost":             {compacted(true, true), "k:a l:b k:- m:c", "k:a l:b m:c", verify.Counts{Equal: 3, Missing: 1}, verify.Pair{Kind: verify.Missing, Source: 2, Target: -1}},
		"a tombstone lost at the end":  {compacted(false, true), "k:a k:-", "k:a", verify.Counts{Equal: 1, Missing: 1}, verify.Pair{Kind: verify.Missing, Source: 1, Target: -1}},
		"more than a tombstone lost":   {compacted(true, true), "k:a k:b l:b k:-", "k:a l:b", verify.Counts{Equal: 2, Missing: 2}, verify.Pair{Kind: verify.Missing, Source: 1, Target: -1}},
		"its live record is older":     {compacted(true, true), "l:b k:- m:c", "k:a l:b m:c", verify.Counts{Equal: 2, Missing: 1, Compacted: 1}, verify.Pair{Kind: verify.Missing, Source: 1, Target: -1}},
		"its live record in its place": {compacted(true, true), "l:b k:-@99 m:c", "l:b k:a@98 m:c", verify.Counts{Equal: 2, Missing: 1, Extra: 1}, verify.Pair{Kind: verify.Missing, Source: 1, Target: -1}},
		"a foreign tombstone":          {compacted(true, true), "k:a l:b", "k:a l:b k:-", verify.Counts{Equal: 2, Extra: 1}, verify.Pair{Kind: verify.Extra, Source: -1, Target: 2}},
		"a tombstone, then lost":       {compacted(false, true), "k:a k:- k:b m:c", "k:a m:c", verify.Counts{Equal: 2, Missing: 1, Compacted: 1}, verify.Pair{Kind: verify.Missing, Source: 2, Target: -1}},
		"a tombstone, then changed":    {compacted(true, true), "l:b@1 k:-@3 k:c@7 m:d@9", "l:b@1 k:x@7 m:d@9", verify.Counts{Equal: 2, Changed: 1, Compacted: 1}, verify.Pair{Kind: verify.Changed, Source: 2, Target: 1}},
		"a tombstone, then written":    {compacted(true, true), "k:a k:- l:b k:c", "l:b k:c", verify.Counts{Equal: 2, Compacted: 2}, verify.Pair{}},
		"a tombstone, then behind":     {verify.Rules{Timestamps: true, Claimed: 3, Compacted: [2]bool{true, true}}, "k:a k:- l:b k:c", "k:a l:b", verify.Counts{Equal: 2, Compacted: 1, Behind: 1}, verify.Pair{}},
		"a tombstone not yet copied":   {verify.Rules{Timestamps: true, Compacted: [2]bool{true, true}}, "k:a l:b k:-", "k:a l:b", verify.Counts{Equal: 2, Behind: 1}, verify.Pair{}},
		"a tombstone moved":            {compacted(true, true), "k:a k:- l:b m:c", "k:a l:b m:c k:-", verify.Counts{Equal: 3, Reordered: 1}, verify.Pair{Kind: verify.Reordered, Source: 1, Target: 3}},
		"compacted and not yet copied": {verify.Rules{Timestamps: true, Compacted: [2]bool{true, true}}, "k:a l:b k:c m:d", "k:a l:b", verify.Counts{Equal: 2, Behind: 2}, verify.Pair{}},
		"compacted, a value changed":   {compacted(true, true), "k:a@1 l:b@2 m:c@3", "k:a@1 l:x@2 m:c@3", verify.Counts{Equal: 2, Changed: 1}, verify.Pair{Kind: verify.Changed, Source: 1, Target: 1}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, piece := range []int{1, 2, 100} {
				got := align(test.rules, piece, [2][]verify.Entry{script(test.source), script(test.target)})
				if got.Counts != test.want {
					t.Errorf("in pieces of %d:\n got %+v\nwant %+v", piece, got.Counts, test.want)
				}
				var first verify.Pair
				if got.First != nil {
					first = *got.First
				}
				if first != test.first {
					t.Errorf("in pieces of %d: first difference %+v, want %+v", piece, first, test.first)
				}
			}
		})
	}
}

func record(n, timestamp int64) verify.Entry {
	return verify.Entry{Content: verify.Digest{uint64(n), 7}, Key: uint64(n), Timestamp: timestamp}
}

// number the offsets of a log.
func numbered(log []verify.Entry) []verify.Entry {
	for i := range log {
		log[i].Offset = int64(i)
	}
	return log
}

// Whatever is done to a copy is counted, and counted once: an edit never makes its neighbours look wrong.
func TestEditsAreCountedExactly(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		spacing := rapid.SampledFrom([]int{4, 50, 500, verify.Lookahead + 10}).Draw(t, "equal records between two edits, at least")
		edits := rapid.IntRange(0, 12).Draw(t, "edits")
		rules := verify.Rules{Timestamps: rapid.Bool().Draw(t, "timestamps"), Claimed: 1 << 40}
		random := rand.New(rand.NewPCG(seed, 1))
		var source, target []verify.Entry
		next := int64(0)
		fresh := func() verify.Entry { next++; return record(next, 1000+next/3) }
		both := func(n int) {
			for range n {
				e := fresh()
				source, target = append(source, e), append(target, e)
			}
		}
		both(spacing)
		want := verify.Counts{}
		for range edits {
			n := 1 + random.IntN(3)
			switch random.IntN(5) {
			case 0:
				for range n {
					source = append(source, fresh())
				}
				want.Missing += int64(n)
			case 1:
				for range n {
					target = append(target, fresh())
				}
				want.Extra += int64(n)
			case 2:
				for range n {
					e := fresh()
					source = append(source, e)
					e.Content[1]++
					target = append(target, e)
				}
				want.Changed += int64(n)
			case 3:
				target = append(target, target[len(target)-n:]...)
				want.Duplicated += int64(n)
			case 4:
				a, b := fresh(), fresh()
				source, target = append(source, a, b), append(target, b, a)
				want.Reordered++
				want.Equal++
			}
			both(spacing + random.IntN(spacing))
		}
		want.Equal = int64(len(source)) - want.Missing - want.Changed - want.Reordered
		got := align(rules, 1+random.IntN(1000), [2][]verify.Entry{numbered(slices.Clone(source)), numbered(slices.Clone(target))})
		if got.Counts != want {
			t.Fatalf("after %d edits\n got %+v\nwant %+v", edits, got.Counts, want)
		}
		if (got.First != nil) != want.Different() {
			t.Fatalf("first difference %v of %+v", got.First, want)
		}
	})
}

// A long run that is missing costs a look-ahead, not the rest of the log.
func TestALongRunIsMissing(t *testing.T) {
	t.Parallel()
	for _, missing := range []int{verify.Lookahead - 1, verify.Lookahead, 10 * verify.Lookahead} {
		var logs [2][]verify.Entry
		for n := range int64(20 * verify.Lookahead) {
			e := record(n, n)
			logs[verify.Source] = append(logs[verify.Source], e)
			if n < 100 || n >= 100+int64(missing) {
				logs[verify.Target] = append(logs[verify.Target], e)
			}
		}
		for _, swapped := range []bool{false, true} {
			want := verify.Counts{Equal: int64(20*verify.Lookahead - missing), Missing: int64(missing)}
			pair := [2][]verify.Entry{numbered(slices.Clone(logs[0])), numbered(slices.Clone(logs[1]))}
			if swapped {
				pair[0], pair[1] = pair[1], pair[0]
				want.Missing, want.Extra = 0, want.Missing
			}
			got := align(verify.Rules{Timestamps: true, Claimed: 1 << 40}, 1000, pair)
			if got.Counts != want {
				t.Errorf("%d records on one side alone:\n got %+v\nwant %+v", missing, got.Counts, want)
			}
		}
	}
}

// Random logs over few contents: what is counted adds up, and nothing is called equal that isn't.
func TestCountsAddUp(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		log := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) verify.Entry {
			return verify.Entry{
				Content: verify.Digest{rapid.Uint64Range(1, 5).Draw(t, "content")}, Key: rapid.Uint64Range(1, 3).Draw(t, "key"),
				Timestamp: rapid.Int64Range(0, 3).Draw(t, "timestamp"), Tombstone: rapid.Bool().Draw(t, "tombstone"),
				Before: verify.Absence(rapid.IntRange(0, 12).Draw(t, "before") / 10),
			}
		}), 0, 40)
		source, target := numbered(log.Draw(t, "source")), numbered(log.Draw(t, "target"))
		rules := verify.Rules{Timestamps: rapid.Bool().Draw(t, "timestamps"), Claimed: rapid.Int64Range(0, 50).Draw(t, "claimed")}
		rules.Compacted = [2]bool{rapid.Bool().Draw(t, "source compacted"), rapid.Bool().Draw(t, "target compacted")}
		got := align(rules, rapid.IntRange(1, 10).Draw(t, "piece"), [2][]verify.Entry{source, target})
		c := got.Counts
		sum := 2*c.Equal + c.Missing + c.Extra + 2*c.Changed + c.Duplicated + 2*c.Reordered +
			c.Behind + c.ExpiredSource + c.ExpiredTarget + c.NotBegun + c.TooOld + c.Compacted + c.Uncompared
		if sum != int64(len(source)+len(target)) {
			t.Fatalf("%d records, and counted are %d: %+v", len(source)+len(target), sum, c)
		}
		if (got.First != nil) != c.Different() {
			t.Fatalf("first difference %v of %+v", got.First, c)
		}
	})
}

// What is written behind the ends explains what compaction has taken meanwhile.
func TestCompactionGoesOnWhileItIsRead(t *testing.T) {
	t.Parallel()
	a := verify.NewAligner(verify.Rules{Timestamps: true, Claimed: 1000, Compacted: [2]bool{true, true}})
	a.Add(verify.Source, script("k:a l:b m:c n:d")...)
	a.Add(verify.Target, script("l:b n:d x:e")...)
	a.End(verify.Source, verify.Present)
	a.End(verify.Target, verify.Present)
	if _, done := a.Next(); !done || !a.Waiting(verify.Source) || !a.Waiting(verify.Target) {
		t.Fatal("k and m wait for the target, x for the source")
	}
	a.Later(verify.Target, script("k:e")...)
	a.Later(verify.Source, script("x:f")...)
	if got, want := a.Outcome().Counts, (verify.Counts{Equal: 2, Missing: 1, Compacted: 2}); got != want {
		t.Errorf(" got %+v\nwant %+v", got, want)
	}
}

// More keys at a time than there is room for: it is said, not guessed.
func TestKeysWithoutEnd(t *testing.T) {
	t.Parallel()
	const room, more = 1 << 17, 1000
	var source []verify.Entry
	for n := range int64(room + more) {
		source = append(source, record(1+n, n))
	}
	target := []verify.Entry{record(1<<40, 1<<40)}
	got := align(verify.Rules{Timestamps: true, Claimed: 1 << 40, Compacted: [2]bool{false, true}}, 1000, [2][]verify.Entry{numbered(append(source, target...)), target})
	if want := (verify.Counts{Equal: 1, Missing: room, Uncompared: more}); got.Counts != want {
		t.Errorf(" got %+v\nwant %+v", got.Counts, want)
	}
}

// What is equal costs next to nothing, and what is not stays linear.
func BenchmarkAlign(b *testing.B) {
	for name, share := range map[string]int64{"equal": 0, "one in a hundred changed": 100, "all different": 1} {
		b.Run(name, func(b *testing.B) {
			const records = 100_000
			var logs [2][]verify.Entry
			for n := range int64(records) {
				e := record(n, n)
				e.Offset = n
				logs[verify.Source] = append(logs[verify.Source], e)
				if share > 0 && n%share == 0 {
					e.Content[1]++
				}
				logs[verify.Target] = append(logs[verify.Target], e)
			}
			for b.Loop() {
				align(verify.Rules{Timestamps: true}, 1000, logs)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/records, "ns/record")
		})
	}
}
