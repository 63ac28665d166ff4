package offsets_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/offsets"
	"github.com/kferry/kferry/shared/spec"
)

var tp = kafka.TopicPartition{Topic: "orders", Partition: 3}

// A log is a copy as it happened: the plain truth that maps are held against.
type log struct {
	placed                 []record
	begins                 []place // where a generation began
	offset, target, behind int64   // the cursor, and the source offset behind the last record
	gone                   bool    // something is known to be unknown
}

type place struct{ source, target int64 }

type record struct {
	place
	generation int
}

func newLog(source, target int64) *log {
	return &log{begins: []place{{source, target}}, offset: source, target: target}
}

func (l *log) copied(n int64) {
	for range n {
		l.placed = append(l.placed, record{place{l.offset, l.target}, len(l.begins)})
		l.offset, l.target = l.offset+1, l.target+1
	}
	l.behind = l.offset
}

func (l *log) jump(source, target int64) {
	l.begins = append(l.begins, place{source, target})
	l.offset, l.target = source, target
}

// counts says whether a record is still what the copy has of its source offset.
func (l *log) counts(r record) bool {
	for _, b := range l.begins[r.generation:] {
		if b.source <= r.source || b.target <= r.target {
			return false
		}
	}
	return true
}

// position is where the first record from u on is.
func (l *log) position(u int64) int64 {
	at := l.target
	for _, r := range l.placed {
		if r.source >= u && r.target < at && l.counts(r) {
			at = r.target
		}
	}
	return at
}

// again is how many records are read again by whoever has come to u and goes on at a target offset.
func (l *log) again(u, at int64) (n int) {
	for _, r := range l.placed {
		if r.source < u && r.target >= at && l.counts(r) {
			n++
		}
	}
	return n
}

func check(t interface{ Fatalf(string, ...any) }, m *offsets.Map, l *log, c offsets.Cursor, u int64) offsets.Position {
	got := m.Translate(tp, c, u)
	switch want := l.position(u); {
	case got.Target > want:
		t.Fatalf("%d is translated to %+v, which passes over the record at %d", u, got, want)
	case got.Exact && l.again(u, got.Target) > 0:
		t.Fatalf("%d is translated to %+v, exactly, but %d records are read again before %d", u, got, l.again(u, got.Target), want)
	case u <= l.offset && !got.Exact && got.Why != offsets.Unmapped, u > l.offset && got.Why != offsets.Ahead:
		t.Fatalf("%d of %d is translated to %+v", u, l.offset, got)
	}
	return got
}

// Whatever is copied, left out, jumped over and crashed: no position passes a record over, and each one that is said to be exact is.
func TestTranslateIsTheTruth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := offsets.Open(spec.Flow{Source: "A", Target: "B"}, nil)
		begin := place{rapid.Int64Range(0, 20).Draw(t, "begin"), rapid.Int64Range(0, 20).Draw(t, "end")}
		l := newLog(begin.source, begin.target)
		c := offsets.Cursor{Offset: l.offset, Target: l.target}
		track, err := offsets.Resume(offsets.Cursor{})
		if err != nil {
			t.Fatal(err)
		}
		if begin != (place{}) {
			track.Begin(begin.source, begin.target)
		}
		lost := false
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch step := rapid.IntRange(0, 20).Draw(t, "step"); {
			case step < 10:
				n := rapid.Int64Range(1, 9).Draw(t, "records")
				track.Copied(l.offset, l.target, n)
				l.copied(n)
			case step < 17:
				l.offset += rapid.Int64Range(1, 9).Draw(t, "hole")
			case step == 17:
				source := max(0, l.offset+rapid.Int64Range(-20, 20).Draw(t, "source"))
				target := max(begin.target, l.target+rapid.Int64Range(-5, 5).Draw(t, "target"))
				l.jump(source, target)
				track.Jump(source, target)
			case step == 18 && track.PendingBytes() > 0 && rapid.Bool().Draw(t, "give up"):
				track.GiveUp()
				lost = true
			case step == 19:
				m.Keep(tp, track.Pending())
				track.Saved(track.Pending())
			default: // the worker is another one now
				c = offsets.Cursor{Offset: l.offset, Target: l.target, Mapped: c.Mapped || l.offset != l.target}
				c.Map = track.Map(c.Mapped)
				if track, err = offsets.Resume(c); err != nil {
					t.Fatal(err)
				}
			}
			c = offsets.Cursor{Offset: l.offset, Target: l.target, Mapped: c.Mapped || l.offset != l.target}
			c.Map = track.Map(c.Mapped)
			u := rapid.Int64Range(0, l.offset+3).Draw(t, "u")
			check(t, m, l, c, u)
		}
		for u := range l.offset + 5 {
			got := check(t, m, l, c, u)
			if len(l.begins) == 1 && !lost && u <= l.offset && !got.Exact {
				t.Fatalf("%d is translated to %+v, though nothing is unknown", u, got)
			}
		}
	})
}

func ExampleTrack() {
	track, _ := offsets.Resume(offsets.Cursor{})
	track.Copied(0, 0, 10)   // ten records
	track.Copied(11, 10, 10) // a marker, and ten more
	c := offsets.Cursor{Offset: 22, Target: 20, Mapped: true, Map: track.Map(true)}
	m := offsets.Open(spec.Flow{Source: "A", Target: "B"}, nil)
	for _, u := range []int64{9, 10, 11, 22, 23} {
		fmt.Println(u, m.Translate(tp, c, u))
	}
	// Output:
	// 9 {9 true mapped}
	// 10 {10 true mapped}
	// 11 {10 true mapped}
	// 22 {20 true mapped}
	// 23 {20 false ahead}
}

// A write of chunks that ends when the map has begun anew says nothing of the new one's.
func TestSavedForgetsNothingThatWasNotWritten(t *testing.T) {
	full := func(track *offsets.Track, source, target int64) {
		for begun := len(track.Pending()); len(track.Pending()) == begun; source, target = source+5+source%7*3, target+1+source%5 {
			track.Copied(source, target, 1+source%5)
		}
	}
	track, _ := offsets.Resume(offsets.Cursor{})
	full(track, 0, 0)
	written := track.Pending()
	track.Begin(100_000, 50_000)
	track.Saved(written)
	full(track, 100_000, 50_000)
	track.Saved(written)
	if len(track.Pending()) != 1 {
		t.Errorf("%d chunks are pending", len(track.Pending()))
	}
	track.Saved(track.Pending())
	if len(track.Pending()) != 0 {
		t.Errorf("%d chunks are pending", len(track.Pending()))
	}
}
