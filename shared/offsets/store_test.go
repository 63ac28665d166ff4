package offsets_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/offsets"
	"github.com/kferry/kferry/shared/spec"
)

// A store is what MirrorMaker's checkpoint task makes of a partition's offset-syncs: its OffsetSyncStore, written from its rules. Here it
// is a judge, of what a stock reader finds in the syncs that kferry writes.
type store struct {
	syncs     [64]*mm2.OffsetSync // the newest first; one may fill several places
	mustRead  bool                // to the end of the topic before any old pair counts, since there are no checkpoints to go by
	readToEnd bool
}

func (s *store) put(pair mm2.OffsetSync) {
	latest := &pair
	if s.syncs[0] == nil || pair.Upstream < s.syncs[0].Upstream || s.mustRead && !s.readToEnd {
		for i := range s.syncs {
			s.syncs[i] = latest
		}
		return
	}
	old, next, best := s.syncs, 0, latest // next is of old, and best what a place is given that its own pair doesn't suit any more
	s.syncs[0] = latest
	for i := 1; i < len(s.syncs); i++ {
		for before := s.syncs[i-1]; ; {
			candidate := old[next]
			far := apart(before, candidate, i-1)
			suits := far && recent(before, candidate, i-1, i) && (i+1 == len(s.syncs) || apart(candidate, s.syncs[i+1], i))
			if suits {
				best = candidate
			}
			over := !far || next+1 < len(old) && old[next+1] == candidate
			if suits || over {
				next++
			}
			if next >= i || !over {
				break
			}
		}
		if recent(s.syncs[i-1], s.syncs[i], i-1, i) {
			return // and so are all behind it
		}
		s.syncs[i] = best
	}
}

// recent and apart are the invariants B and C of the pairs in places i and j.
func recent(ofI, ofJ *mm2.OffsetSync, i, j int) bool {
	bound := ofJ.Upstream + int64(1)<<j - int64(1)<<i
	return ofI == ofJ || bound < 0 || ofI.Upstream <= bound
}

func apart(ofI, ofJ *mm2.OffsetSync, i int) bool {
	bound := ofJ.Upstream + int64(1)<<max(i-2, 0)
	return ofI == ofJ || bound >= 0 && ofI.Upstream >= bound
}

// translate is -1 where nothing is known to lie before, and not ok where nothing is known at all.
func (s *store) translate(u int64) (downstream int64, ok bool) {
	if s.syncs[0] == nil || !s.readToEnd {
		return 0, false
	}
	for _, pair := range s.syncs {
		switch {
		case pair.Upstream == u:
			return pair.Downstream, true
		case pair.Upstream < u:
			return pair.Downstream + 1, true
		}
	}
	return -1, true
}

func (s *store) kept() (all []int64) {
	for _, pair := range s.syncs {
		all = append(all, pair.Upstream)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func pair(upstream, downstream int64) mm2.OffsetSync {
	return mm2.OffsetSync{Topic: tp.Topic, Partition: tp.Partition, Upstream: upstream, Downstream: downstream}
}

// OffsetSyncStoreTest.testPastOffsetTranslation and testPastOffsetTranslationWithoutInitializationReadToEnd, and more of the real
// class's answers: the judge judges as MirrorMaker does.
func TestPastOffsetTranslation(t *testing.T) {
	for _, c := range []struct {
		step, end int64
		mustRead  bool
		readAt    int64 // upstream offset at which the store has read to the end
		want      []int64
	}{
		{10, 10000, true, 1000, []int64{1000, 4840, 6760, 8680, 9160, 9640, 9880, 9940, 9970, 9990, 10000}},
		{10, 10000, false, 1000, []int64{0, 3840, 7680, 8640, 9120, 9600, 9840, 9900, 9960, 9990, 10000}},
		{1, 1000, false, 0, []int64{0, 512, 768, 896, 960, 976, 992, 996, 998, 999, 1000}},
		{101, 1000001, false, 0, []int64{0, 413696, 620544, 827392, 930816, 956672, 982528, 988992, 995456, 997072, 998688, 999496, 999698, 999900, 1000001}},
	} {
		s := store{mustRead: c.mustRead}
		for u := int64(0); u <= c.end; u += c.step {
			s.put(pair(u, u))
			s.readToEnd = s.readToEnd || u >= c.readAt
		}
		if got := s.kept(); !slices.Equal(got, c.want) {
			t.Errorf("step %d up to %d: kept %v, want %v", c.step, c.end, got, c.want)
		}
	}
	s, u := store{}, int64(0) // in uneven steps
	for i := range int64(1001) {
		u += i * i % 97
		s.put(pair(u, u))
	}
	if got, want := s.kept(), []int64{0, 26916, 40509, 43827, 45540, 46530, 47349, 47623, 47775, 47840, 47867}; !slices.Equal(got, want) {
		t.Errorf("kept %v, want %v", got, want)
	}
}

// OffsetSyncStoreTest.testOffsetTranslation, testNoTranslationIfStoreNotStarted, testNoTranslationIfNoOffsetSync.
func TestOffsetTranslation(t *testing.T) {
	s := store{}
	if _, ok := s.translate(1); ok {
		t.Error("translates without pairs")
	}
	s.put(pair(0, 0))
	if _, ok := s.translate(1); ok {
		t.Error("translates before it is started")
	}
	s.readToEnd = true
	is := func(u, want int64) {
		t.Helper()
		if got, _ := s.translate(u); got != want {
			t.Errorf("%d is translated to %d, want %d", u, got, want)
		}
	}
	s.put(pair(100, 200))
	is(150, 201)
	s.put(pair(150, 251)) // translation is exact
	is(150, 251)
	is(151, 252)
	s.put(pair(200, 10)) // the downstream has gone back
	is(200, 10)
	is(201, 11)
	s.put(pair(20, 20)) // and the upstream
	is(20, 20)
	is(21, 21)
	is(19, -1)
}

// Whatever the source is like: a group's committed position comes out of a stock reader exactly as kferry translates it, when the pairs
// that Sync gives are written for it and for the cursor's end. No stock reader is ever led past a record.
func TestStockReaderTranslatesCommittedPositions(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	for range 200 {
		l, track := newLog(0, 0), resume(t, offsets.Cursor{})
		for range 40 {
			n := 1 + random.Int64N(20)
			track.Copied(l.offset, l.target, n)
			l.copied(n)
			l.offset += random.Int64N(4)
		}
		c := offsets.Cursor{Offset: l.offset, Target: l.target, Mapped: l.offset != l.target}
		c.Map = track.Map(c.Mapped)
		m := offsets.Open(spec.Flow{Source: "A", Target: "B"}, nil)
		u := random.Int64N(l.offset + 1)
		s := store{readToEnd: true}
		for _, at := range []int64{u, c.Offset} {
			if p, ok := m.Sync(tp, c, at); ok {
				s.put(p)
			}
		}
		got, ok := s.translate(u)
		if want := m.Translate(tp, c, u); got != want.Target && !(u == 0 && (got == -1 || !ok)) {
			t.Fatalf("%d of %d: a stock reader goes on at %d, kferry at %+v", u, l.offset, got, want)
		}
		for at := range l.offset + 2 {
			if got, _ := s.translate(at); got > l.position(at) {
				t.Fatalf("%d: a stock reader passes over the record at %d: goes on at %d", at, l.position(at), got)
			}
		}
	}
}

func resume(t *testing.T, c offsets.Cursor) *offsets.Track {
	t.Helper()
	track, err := offsets.Resume(c)
	if err != nil {
		t.Fatal(err)
	}
	return track
}

// Of the pairs of several groups on one partition a stock reader keeps those that lie about as far apart as they lie behind the newest. So
// the group that lags most is translated exactly, and of the others most.
func TestStockReaderOfManyGroups(t *testing.T) {
	const end = 10_000_000
	for groups, want := range map[int]int{1: 100, 2: 95, 3: 90, 5: 85, 10: 75, 100: 25} {
		random := rand.New(rand.NewPCG(7, uint64(groups)))
		exact, of := 0, 0
		for range 200 {
			var at []int64
			for range groups { // of any lag: as many of a hundred as of a million
				at = append(at, end-int64(math.Exp(random.Float64()*math.Log(end-1))))
			}
			slices.Sort(at)
			s := store{readToEnd: true}
			for _, u := range append(at, end) {
				s.put(pair(u, u))
			}
			for _, u := range at {
				got, _ := s.translate(u)
				if of++; got == u {
					exact++
				}
				if got > u || u == at[0] && got != u {
					t.Errorf("of %d groups up to %d the one at %d is translated to %d", groups, at[0], u, got)
				}
			}
		}
		if exact*100 < of*want {
			t.Errorf("of %d groups %d%% are translated exactly, which were %d%%", groups, exact*100/of, want)
		}
	}
}
