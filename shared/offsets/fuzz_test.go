package offsets_test

import (
	"encoding/base64"
	"math/rand/v2"
	"testing"

	"github.com/kferry/kferry/shared/offsets"
	"github.com/kferry/kferry/shared/spec"
)

// Whatever stands in a cursor where the map should: nothing panics, and what can't be read is unknown, to whoever goes on copying too.
func FuzzCursorsMap(f *testing.F) {
	h, random := newHoled(), rand.New(rand.NewPCG(1, 1))
	for i := range 30_000 {
		h.add(i < 100 || random.IntN(3) > 0)
		if i%9_000 == 0 {
			text, err := base64.RawStdEncoding.DecodeString(h.end().Map)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text, h.cursor.Offset, h.cursor.Target)
		}
	}
	h.track.Jump(500, h.cursor.Target+7)
	text, _ := base64.RawStdEncoding.DecodeString(h.track.Map(true))
	f.Add(text, int64(501), h.cursor.Target+7)
	h.track.Lose(500, 600, offsets.Bound{Source: 3, Target: 5}, offsets.Bound{Source: 104, Target: 106}, offsets.Bound{Source: 205, Target: 207})
	h.track.Copied(500, 600, 3)
	text, _ = base64.RawStdEncoding.DecodeString(h.track.Map(true))
	f.Add(text, int64(503), int64(603))
	f.Fuzz(func(t *testing.T, text []byte, offset, target int64) {
		if offset < 0 || target < 0 || offset > 1<<60 || target > 1<<60 {
			return
		}
		c := offsets.Cursor{Offset: offset, Target: target, Mapped: true, Map: base64.RawStdEncoding.EncodeToString(text)}
		m := offsets.Open(spec.Flow{Source: "A", Target: "B"}, nil)
		for _, u := range []int64{0, 1, offset / 2, offset - 1, offset, offset + 1} {
			if got := m.Translate(tp, c, u); got.Target < 0 {
				t.Errorf("%d is translated to %+v", u, got)
			}
			m.Sync(tp, c, u)
		}
		track, err := offsets.Resume(c)
		track.Copied(offset, target, 10)
		track.Copied(offset+11, target+10, 10)
		track.GiveUp()
		next := offsets.Cursor{Offset: offset + 21, Target: target + 20, Mapped: true, Map: track.Map(true)}
		if got := m.Translate(tp, next, offset+12); got != (offsets.Position{Target: target + 11, Exact: true, Why: offsets.Translated}) && err != nil {
			t.Errorf("behind a map that can't be read (%v), %d is translated to %+v", err, offset+12, got)
		}
	})
}
