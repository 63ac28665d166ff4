package functions

import (
	"cmp"
	"math/bits"
	"slices"
)

// MirrorMaker commits how far it has copied once a minute. What it had landed since when it was killed is found here: the end of the
// copy's log is looked up in the source, record by record.
//
// What MirrorMaker does is all that this rests on: it writes a partition's records in the source's order, none between left out
// but those that it doesn't see (aborted ones, if it reads committed), and now and then begins again at an earlier record: after a lost
// answer, or where it was at its last commit. So once a record is in the copy everything before it is. The last one in the copy that
// looks like exactly one record of the source is certain; those behind it could be in the copy too only if they look like others.

// A trace is a stretch of one log, as prints, in order.
type trace struct {
	prints []uint64
	runs   []run // where each place begins that doesn't follow from the one before
	skips  bool  // a reader of what is committed may not have seen all of it
}

// run is a run of records without a hole between them, under one leader epoch.
type run struct {
	index int
	at    place // of the first; the offset is the record's own
}

func (t *trace) add(print uint64, offset int64, epoch int32) {
	n := len(t.prints)
	if last := len(t.runs) - 1; last < 0 || t.runs[last].at != (place{offset - int64(n-t.runs[last].index), epoch}) {
		t.runs = append(t.runs, run{n, place{offset, epoch}})
	}
	t.prints = append(t.prints, print)
}

// before counts the records before an offset.
func (t *trace) before(offset int64) int {
	n := 0
	for i, r := range t.runs {
		end := len(t.prints)
		if i+1 < len(t.runs) {
			end = t.runs[i+1].index
		}
		n += int(max(0, min(int64(end-r.index), offset-r.at.offset)))
	}
	return n
}

// behind is the place behind a record.
func (t *trace) behind(index int) place {
	i, found := slices.BinarySearchFunc(t.runs, index, func(r run, index int) int { return cmp.Compare(r.index, index) })
	if !found {
		i--
	}
	r := t.runs[i]
	return place{r.at.offset + int64(index-r.index) + 1, r.at.epoch}
}

// A landing is what the end of a copy says about its source.
type landing struct {
	last    int  // index in the source of the last record that has certainly landed; -1 where that is before them all
	most    int  // index of the last one that may have landed
	matched int  // records of the copy that look like exactly one of the source
	begins  bool // the stretch of the copy reaches back, by a margin, to before any record behind the committed ones
	dense   bool // its offsets have no holes; alignTail says it

	firstLanded, firstSource int // indices of the first record of the copy that looks like exactly one of the source, and of that one
}

// sure says that it is known what has landed.
func (l landing) sure() bool { return l.last == l.most }

// alignMargin is which part of the stretch of the copy that is looked at has to lie before the first record behind the committed ones:
// there a run of MirrorMaker that went further than a later one has left its records.
const alignMargin = 8

// align looks the end of a copy up in a stretch of its source, of which the first so many records are committed, which is to say that
// they have landed. counted says that each record that landed is still in the copy.
func align(source *trace, committed int, landed []uint64, counted bool) landing {
	known := newIndex(source.prints)
	seen := make([]int32, len(source.prints)) // 1 + the first of the copy that looks so; for one of many alike, the last
	l := landing{last: committed - 1}
	bound, firstBeyond := len(source.prints), len(landed)
	for at, print := range landed {
		index, alike := known.lookUp(print)
		switch {
		case index < 0:
		case alike:
			seen[index] = int32(at) + 1
		case seen[index] > 0:
			l.matched++
		default:
			seen[index] = int32(at) + 1
			if l.matched++; l.matched == 1 {
				l.firstLanded, l.firstSource = at, index
			}
			l.last = max(l.last, index)
			bound = min(bound, index+len(landed)-1-at) // each record behind it in the copy is at most one more of the source
			if index >= committed {
				firstBeyond = min(firstBeyond, at)
			}
		}
	}
	l.begins = l.matched > 0 && firstBeyond >= len(landed)/alignMargin
	l.most = l.last
	since := int32(0) // where the last certain one is in the copy: what follows it follows it there
	if l.last >= 0 {
		if index, alike := known.lookUp(source.prints[l.last]); !alike {
			since = seen[index]
		}
	}
	for index := l.last + 1; index < len(source.prints); index++ {
		if first, _ := known.lookUp(source.prints[index]); seen[first] > since {
			l.most = index
		} else if !source.skips {
			break
		}
	}
	if counted && !source.skips {
		l.most = max(l.last, min(l.most, bound))
	}
	return l
}

const (
	mostCopies     = 1 << 11 // stretches without a hole that lastCopies returns
	mostCopiesJump = 1 << 5  // and jumps between them in the copy's offsets
)

// lastCopies says where in the copy the first n records of the source are, as far back as that can be told, so that whoever goes on at any
// of them finds it and, in their order, all that follow. Where records are there more than once the last ones count. lacks says that the copy
// may be without some of them.
//
// Nothing is taken from what MirrorMaker should have done: what is there is compared. Where records are alike and none is lacking it is all the
// same which of them one reads.
func lastCopies(source *trace, n int, landed *trace, lacks bool) (copies pairings) {
	var known, there *index
	if lacks {
		known, there = newIndex(source.prints), newIndex(landed.prints)
	}
	at, jumps := len(landed.prints), 0 // where the record behind is
	for i := n - 1; i >= 0; i-- {
		if lacks {
			if first, _ := there.lookUp(source.prints[i]); first < 0 {
				continue
			}
			if _, alike := known.lookUp(source.prints[i]); alike { // the one that is there may be another
				break
			}
		}
		j := at - 1
		for j >= 0 && landed.prints[j] != source.prints[i] {
			j--
		}
		if j < 0 {
			break
		}
		p := pairing{source.behind(i).offset - 1, landed.behind(j).offset - 1, 1}
		if last := len(copies) - 1; last >= 0 && copies[last].target != p.target+1 {
			jumps++
		}
		if last := len(copies) - 1; last >= 0 && copies[last].source == p.source+1 && copies[last].target == p.target+1 {
			copies[last] = pairing{p.source, p.target, copies[last].n + 1}
		} else {
			copies = append(copies, p)
		}
		if at = j; jumps == mostCopiesJump || len(copies) == mostCopies {
			break
		}
	}
	slices.Reverse(copies)
	return copies
}

// An index finds prints. It is a table with open addressing, which takes a third of what a map does.
type index struct {
	prints []uint64
	slots  []int32 // 1 + the first that has the print; as many as a power of two, at most half of them taken
	alike  []bool  // of the first that has a print: others have it too
}

func newIndex(prints []uint64) *index {
	x := &index{prints, make([]int32, 1<<bits.Len(uint(2*len(prints)))), make([]bool, len(prints))}
	for i, print := range prints {
		if slot := x.slot(print); x.slots[slot] == 0 {
			x.slots[slot] = int32(i) + 1
		} else {
			x.alike[x.slots[slot]-1] = true
		}
	}
	return x
}

// slot is where a print is, or would be.
func (x *index) slot(print uint64) uint64 {
	mask := uint64(len(x.slots) - 1)
	for slot := print & mask; ; slot = (slot + 1) & mask {
		if i := x.slots[slot]; i == 0 || x.prints[i-1] == print {
			return slot
		}
	}
}

// lookUp returns the first that has a print, -1 where none has, and whether others have it too.
func (x *index) lookUp(print uint64) (first int, alike bool) {
	first = int(x.slots[x.slot(print)]) - 1
	return first, first >= 0 && x.alike[first]
}
