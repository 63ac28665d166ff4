package verify

import "slices"

// Lookahead is how many records of each side are looked through for the place where the two run on together after a difference, and
// how far back a record is remembered that may turn out to be a duplicate of or to have changed places with another.
const Lookahead = 4096

const (
	firstLook = 64      // records looked through at first: most differences are small
	lookGrows = 8       // times as many if they were not enough, up to Lookahead
	maxKeys   = 1 << 17 // keys of a compacted partition whose later record is waited for, per side
	maxRanges = 32      // equal ranges that are listed; the rest is counted
)

// Side is one of the two logs that are compared.
type Side int

// The two sides.
const (
	Source Side = iota
	Target
)

func (s Side) other() Side { return 1 - s }

func (s Side) String() string { return [...]string{"source", "target"}[s] }

// An Absence says why records before an entry are not there any more, or not looked at, though the other side may have them.
type Absence uint8

// Kinds of absence.
const (
	Present  Absence = iota
	Expired          // retention or DeleteRecords took them
	NotBegun         // the flow was to begin later than with the first record
	TooOld           // before the time that was asked for
)

// An Entry is what is kept of a record.
type Entry struct {
	Offset, Timestamp int64
	Content           Digest // of key, value and headers
	Key               uint64 // hash of the key alone; zero where it is null
	Tombstone         bool
	Before            Absence // of records before this one
}

// A Digest stands for what it was made of: two that are equal are taken for the same.
type Digest [2]uint64

// Rules are what is known of the two logs besides their records.
type Rules struct {
	Timestamps bool    // whether the copy keeps the source's timestamps, so that they are compared
	Compacted  [2]bool // whether compaction may have taken records of that side
	// Claimed is the source offset below which everything is said to be on the target. What lies above it and behind the last
	// record of the target is not yet copied, rather than missing.
	Claimed int64
}

// Kind is a kind of difference.
type Kind string

// Kinds of difference.
const (
	Missing    Kind = "missing"    // in the source, not on the target
	Extra      Kind = "extra"      // on the target, not in the source
	Changed    Kind = "changed"    // one record in the place of another
	Duplicated Kind = "duplicated" // once more on the target, within Lookahead records
	Reordered  Kind = "reordered"  // in another place on the target
)

// A Pair is the place of a difference: -1 where a side has no record.
type Pair struct {
	Kind           Kind
	Source, Target int64
}

// A Range is a run of equal records. Its offsets are those of the first and the last of them.
type Range struct {
	SourceFirst int64 `json:"source_first"`
	SourceLast  int64 `json:"source_last"`
	TargetFirst int64 `json:"target_first"`
	TargetLast  int64 `json:"target_last"`
	Records     int64 `json:"records"`
}

// Counts are numbers of records. None of them is in two.
type Counts struct {
	Equal int64 `json:"equal"`

	Missing    int64 `json:"missing"`
	Extra      int64 `json:"extra"`
	Changed    int64 `json:"changed"`
	Duplicated int64 `json:"duplicated"`
	Reordered  int64 `json:"reordered"`

	Behind        int64 `json:"behind"`         // of the source, not yet copied
	ExpiredSource int64 `json:"expired_source"` // of the target; the source's retention took the original
	ExpiredTarget int64 `json:"expired_target"` // of the source; the target's retention took the copy
	NotBegun      int64 `json:"not_begun"`      // of the source, before the place where the flow was to begin
	TooOld        int64 `json:"too_old"`        // of either side, before the time that was asked for
	Compacted     int64 `json:"compacted"`      // of either side; the other has a later one of the same key
	Uncompared    int64 `json:"uncompared"`     // of either side of a compacted topic with too many keys at one time
}

// Different says whether any record is not what it should be.
func (c Counts) Different() bool {
	return c.Missing+c.Extra+c.Changed+c.Duplicated+c.Reordered > 0
}

// An Aligner compares two logs, record by record in order. It takes and returns values: whoever uses it adds what Next wants.
//
// While both sides go on with the same record they are equal. Else it looks ahead on both sides for the nearest record, by the
// number of records passed over, that is on both, and once on each; what was passed over is a difference, whose kind is decided
// when the sides have met again. Where they don't meet within Lookahead, the side whose timestamps are older is passed over, up to
// where the other one is.
type Aligner struct {
	rules Rules
	queue [2]queue
	look  int

	counts Counts
	ranges []Range
	more   int64 // ranges that are not listed
	open   bool  // the last range goes on
	first  *Pair
	at     int64 // records that were equal before the first difference

	gap     gap
	epoch   int64        // gaps so far
	reached int64        // the last source offset whose record is on the target
	recent  ring         // records that were equal
	lonely  [2][]stray   // records that have no equal so far, the last ones
	waiting [2]keyed     // records of a compacted topic that wait for a later one of their key
	places  map[ident]at // of the search, to use its memory again
}

// NewAligner compares under rules.
func NewAligner(r Rules) *Aligner {
	return &Aligner{rules: r, look: firstLook, reached: -1, places: map[ident]at{}, waiting: [2]keyed{{}, {}}}
}

// Add goes on with entries of a side, in the order of their offsets.
func (a *Aligner) Add(s Side, entries ...Entry) { a.queue[s].add(entries) }

// End says that a side has no more, and whether that is because the last ones are gone.
func (a *Aligner) End(s Side, before Absence) {
	a.queue[s].ended, a.queue[s].before = true, before
}

// IgnoreTimestamps goes on without comparing timestamps.
func (a *Aligner) IgnoreTimestamps() { a.rules.Timestamps = false }

// Timestamps says whether they are compared.
func (a *Aligner) Timestamps() bool { return a.rules.Timestamps }

// Equal is how many records have been equal so far.
func (a *Aligner) Equal() int64 { return a.counts.Equal }

// Next compares as far as it can and names the side that it needs more entries of. It is done where both have ended.
func (a *Aligner) Next() (wants Side, done bool) {
	for {
		if s, enough := a.enough(1); !enough {
			return s, false
		}
		source, target := &a.queue[Source], &a.queue[Target]
		switch {
		case source.empty() && target.empty():
			return Source, true
		case target.empty():
			a.rest(Source)
		case source.empty():
			a.rest(Target)
		case a.same(source.head(), target.head()):
			a.match(source.pop(), target.pop())
		default:
			if s, enough := a.enough(a.look); !enough {
				return s, false
			}
			a.resume()
		}
	}
}

// enough says whether there are so many entries on both sides, and else which side lacks them.
func (a *Aligner) enough(n int) (lacks Side, enough bool) {
	for _, s := range []Side{Target, Source} {
		if q := &a.queue[s]; !q.ended && q.len() < n {
			return s, false
		}
	}
	return 0, true
}

// ident is what makes two records the same.
type ident struct {
	content   Digest
	timestamp int64
}

func (a *Aligner) ident(e Entry) ident {
	if a.rules.Timestamps {
		return ident{e.Content, e.Timestamp}
	}
	return ident{content: e.Content}
}

func (a *Aligner) same(s, t Entry) bool { return a.ident(s) == a.ident(t) }

// alike are two records of which one may well be the changed form of the other.
func (a *Aligner) alike(s, t Entry) bool {
	if s.Content == t.Content {
		return true
	}
	return s.Key == t.Key && a.rules.Timestamps && s.Timestamp == t.Timestamp
}

// match is where both sides go on together.
func (a *Aligner) match(s, t Entry) {
	a.note(Source, s)
	a.note(Target, t)
	a.close()
	a.counts.Equal++
	a.reached = s.Offset
	a.recent.add(a.ident(s))
	a.agree(s.Key)
	if !a.open {
		a.open = true
		if len(a.ranges) == maxRanges {
			a.more++
			return
		}
		a.ranges = append(a.ranges, Range{s.Offset, s.Offset, t.Offset, t.Offset, 0})
	}
	if a.more == 0 {
		r := &a.ranges[len(a.ranges)-1]
		r.SourceLast, r.TargetLast = s.Offset, t.Offset
		r.Records++
	}
}

// resume looks for the place where both go on together, and takes what lies before it.
func (a *Aligner) resume() {
	source, target := a.queue[Source].look(a.look), a.queue[Target].look(a.look)
	i, j, found := a.meet(source, target)
	switch {
	case found:
		a.pass(i, j)
	case a.look < Lookahead:
		a.look = min(a.look*lookGrows, Lookahead)
		return
	default:
		a.pass(a.apart(source, target))
	}
	a.look = firstLook
}

// at is where a record is in what is looked through: its first place on either side, and how often it is there.
type at struct {
	place [2]int
	times [2]int
}

func (p at) none() bool { return p.times[Target] == 0 }

// before orders places by the number of records passed over. None is behind all.
func (p at) before(q at) bool {
	sum, other := p.place[Source]+p.place[Target], q.place[Source]+q.place[Target]
	return !p.none() && (q.none() || sum < other || sum == other && p.place[Source] < q.place[Source])
}

// meet finds the record with the fewest others before it, on both sides together. One that is there only once on each can't be taken
// for another. One that is repeated can, so it has to be followed by a run that is the same on both sides.
func (a *Aligner) meet(source, target []Entry) (i, j int, found bool) {
	var single, repeated at
	for _, p := range a.find(source, target) {
		if p.times == [2]int{1, 1} {
			if p.before(single) {
				single = p
			}
		} else if p.before(repeated) {
			repeated = p
		}
	}
	best := single
	if repeated.before(single) && (single.none() || a.runs(source, target, repeated, single)) {
		best = repeated
	}
	return best.place[Source], best.place[Target], !best.none()
}

// find looks every record of the source up on the target.
func (a *Aligner) find(source, target []Entry) map[ident]at {
	clear(a.places)
	for k, e := range source {
		id := a.ident(e)
		p := a.places[id]
		if p.times[Source]++; p.times[Source] == 1 {
			p.place[Source] = k
		}
		a.places[id] = p
	}
	for k, e := range target {
		id := a.ident(e)
		p, known := a.places[id]
		if !known {
			continue
		}
		if p.times[Target]++; p.times[Target] == 1 {
			p.place[Target] = k
		}
		a.places[id] = p
	}
	return a.places
}

// enoughRun is how many records in a row make one that is repeated believable.
const enoughRun = 8

// runs says whether both sides are the same from a place on, for enough records or up to another place.
func (a *Aligner) runs(source, target []Entry, from, to at) bool {
	i, j := from.place[Source], from.place[Target]
	for n := 0; n < enoughRun && i < len(source) && j < len(target); n++ {
		if i == to.place[Source] && j == to.place[Target] {
			return true
		}
		if !a.same(source[i], target[j]) {
			return false
		}
		i, j = i+1, j+1
	}
	return true
}

// apart says how much to pass over on each side when they don't meet: half of what was looked through at most, so that the other half
// is looked through once more with what comes next.
func (a *Aligner) apart(source, target []Entry) (i, j int) {
	most := [2]int{half(source, a.queue[Source]), half(target, a.queue[Target])}
	for i < len(source) && j < len(target) && source[i].Content == target[j].Content {
		i, j = i+1, j+1 // only the timestamps differ
	}
	if i > 0 {
		return i, j
	}
	if !a.rules.Timestamps {
		switch absent := [2]bool{a.mayLack(Source), a.mayLack(Target)}; {
		case absent[Source] && !absent[Target]:
			return 0, most[Target]
		case absent[Target] && !absent[Source]:
			return most[Source], 0
		}
		n := min(most[Source], most[Target])
		return n, n
	}
	for i < most[Source] && j < most[Target] {
		switch s, t := source[i].Timestamp, target[j].Timestamp; {
		case s < t:
			i++
		case t < s:
			j++
		default:
			i, j = i+1, j+1
		}
	}
	return i, j
}

func half(window []Entry, q queue) int {
	if q.ended && len(window) == q.len() {
		return len(window)
	}
	return max(1, len(window)/2)
}

// mayLack says whether records of a side may be gone, at this place.
func (a *Aligner) mayLack(s Side) bool {
	return a.rules.Compacted[s] || a.queue[s].head().Before != Present || a.gap.before[s] != Present
}

// A gap is what lies between two places where both sides are equal.
type gap struct {
	before [2]Absence // of what precedes an entry of that side in the gap, the one behind it included
	count  [2]int64   // records that are on that side alone
	alike  int64      // pairs of records of which one is the changed form of the other
	head   [2]int64   // offset of the first such record
	pair   *Pair      // the first two that are alike
	above  int64      // source records at the end of it that are not claimed to have been copied
	any    bool       // of the above
}

func (a *Aligner) note(s Side, e Entry) {
	if e.Before != Present {
		a.gap.before[s] = e.Before
		a.gap.any = true
	}
}

// pass takes entries that have no equal at their place.
func (a *Aligner) pass(i, j int) {
	source, target := a.queue[Source].take(i), a.queue[Target].take(j)
	if len(source) == 0 && len(target) == 0 {
		return
	}
	for _, e := range source {
		a.note(Source, e)
	}
	for _, e := range target {
		a.note(Target, e)
	}
	twins := a.twins(source, target)
	for k, e := range source {
		if _, paired := twins[k]; !paired {
			a.stray(Source, e)
		}
		a.settle(Source, e)
	}
	paired := map[int]bool{}
	for k, l := range twins {
		paired[l] = true
		a.pairUp(source[k], target[l])
	}
	for l, e := range target {
		if !paired[l] {
			a.stray(Target, e)
		}
		a.settle(Target, e)
	}
}

// twins pairs entries that are alike, in order.
func (a *Aligner) twins(source, target []Entry) map[int]int {
	pairs := map[int]int{}
	if len(source) == len(target) {
		for k := range source {
			if a.alike(source[k], target[k]) {
				pairs[k] = k
			}
		}
	}
	if len(pairs) > 0 {
		return pairs
	}
	type mark struct {
		key       uint64
		timestamp int64
	}
	marks := make(map[mark]int, len(target))
	for l := len(target) - 1; l >= 0; l-- {
		marks[mark{target[l].Key, target[l].Timestamp}] = l
	}
	next := 0
	for k, e := range source {
		l, known := marks[mark{e.Key, e.Timestamp}]
		if known && l >= next && a.alike(e, target[l]) {
			pairs[k], next = l, l+1
		}
	}
	return pairs
}

func (a *Aligner) pairUp(s, t Entry) {
	a.outlive(Source, s.Key)
	a.outlive(Target, t.Key)
	if a.gap.alike == 0 || s.Offset < a.gap.pair.Source {
		a.gap.pair = &Pair{Kind: Changed, Source: s.Offset, Target: t.Offset}
	}
	a.gap.alike++
	a.gap.any = true
	a.reached = max(a.reached, s.Offset)
	a.gap.above = 0
	a.open = false
}

// A stray is a record without an equal.
type stray struct {
	Entry
	id    ident
	epoch int64
	fate  fate
}

// fate is what a stray was counted as.
type fate int

const (
	undecided fate = iota
	alone          // missing or extra
	exchanged      // changed, with one of the other side
	excused        // not a difference
	parked         // waits for its key
)

// stray takes a record that is on one side alone, so far.
func (a *Aligner) stray(s Side, e Entry) {
	a.outlive(s, e.Key)
	id := a.ident(e)
	if a.reunite(s, e, id) {
		return
	}
	if s == Target && a.recent.has(id) {
		a.open = false
		a.counts.Duplicated++
		a.report(Pair{Duplicated, -1, e.Offset}, a.counts.Equal)
		return
	}
	lost := stray{Entry: e, id: id, epoch: a.epoch}
	if a.rules.Compacted[s.other()] && e.Key != 0 {
		lost.fate = a.park(s, e)
	} else {
		if a.gap.count[s] == 0 {
			a.gap.head[s] = e.Offset
		}
		a.gap.count[s]++
		a.gap.any = true
		if s == Source && e.Offset >= a.rules.Claimed {
			a.gap.above++
		}
		a.open = false
	}
	if a.lonely[s] = append(a.lonely[s], lost); len(a.lonely[s]) >= 2*Lookahead {
		a.lonely[s] = slices.Delete(a.lonely[s], 0, Lookahead)
	}
}

// reunite finds the record's equal among those of the other side that had none at their place.
func (a *Aligner) reunite(s Side, e Entry, id ident) bool {
	others := a.lonely[s.other()]
	k := slices.IndexFunc(others, func(o stray) bool { return o.id == id && o.fate != excused })
	if k < 0 {
		return false
	}
	other := others[k]
	a.lonely[s.other()] = slices.Delete(others, k, k+1)
	switch other.fate {
	case undecided:
		a.gap.count[s.other()]--
		if s == Target && other.Offset >= a.rules.Claimed {
			a.gap.above = max(0, a.gap.above-1)
		}
	case alone:
		*a.single(s.other())--
	case exchanged: // then the one that it was taken to have become is single
		a.counts.Changed--
		*a.single(s)++
		if k := slices.IndexFunc(a.lonely[s], func(o stray) bool { return o.epoch == other.epoch && o.fate == exchanged }); k >= 0 {
			a.lonely[s][k].fate = alone
		}
	case parked:
		if !a.waiting[s.other()].remove(other.Key) {
			a.counts.Compacted-- // which had explained it
		}
	}
	a.open = false
	a.counts.Reordered++
	pair := Pair{Reordered, e.Offset, other.Offset}
	if s == Target {
		pair.Source, pair.Target = other.Offset, e.Offset
	}
	if f := a.first; f != nil && (f.Source == pair.Source || f.Target == pair.Target) {
		a.first = &pair // it was taken for another kind
		return true
	}
	a.report(pair, a.counts.Equal)
	return true
}

func (a *Aligner) single(s Side) *int64 {
	if s == Source {
		return &a.counts.Missing
	}
	return &a.counts.Extra
}

// close decides about the gap that ends here.
func (a *Aligner) close() {
	g := a.gap
	if !g.any {
		return
	}
	a.counts.Changed += g.alike
	if g.pair != nil {
		a.report(*g.pair, a.counts.Equal)
	}
	head := [2]int64{a.headOf(Source, g), a.headOf(Target, g)}
	excused := [2]*int64{a.excuse(Source, g.before[Target]), a.excuse(Target, g.before[Source])}
	changed := int64(0)
	if excused[Source] == nil && excused[Target] == nil {
		changed = min(g.count[Source], g.count[Target])
	}
	a.counts.Changed += changed
	for _, s := range []Side{Source, Target} {
		if excused[s] != nil {
			*excused[s] += g.count[s]
			a.decide(s, excused, 0)
			continue
		}
		*a.single(s) += g.count[s] - changed
		a.decide(s, excused, changed)
	}
	a.gap = gap{}
	a.epoch++
	switch alone := [2]bool{excused[Source] == nil && g.count[Source] > 0, excused[Target] == nil && g.count[Target] > 0}; {
	case alone[Source] && alone[Target] && changed > 0:
		a.report(Pair{Changed, head[Source], head[Target]}, a.counts.Equal)
	case alone[Source]:
		a.report(Pair{Missing, head[Source], -1}, a.counts.Equal)
	case alone[Target]:
		a.report(Pair{Extra, -1, head[Target]}, a.counts.Equal)
	}
}

// headOf is the offset of the first record of the gap that is on one side alone, less those that were found elsewhere since.
func (a *Aligner) headOf(s Side, g gap) int64 {
	for _, l := range a.lonely[s] {
		if l.epoch == a.epoch && l.fate == undecided {
			return l.Offset
		}
	}
	return g.head[s]
}

// excuse is what records of a side count as that the other side doesn't have, nil where nothing explains it.
func (a *Aligner) excuse(of Side, before Absence) *int64 {
	switch {
	case before == Expired && of == Source:
		return &a.counts.ExpiredTarget
	case before == Expired:
		return &a.counts.ExpiredSource
	case before == NotBegun && of == Source:
		return &a.counts.NotBegun
	case before == TooOld:
		return &a.counts.TooOld
	}
	return nil
}

// decide remembers what the strays of the gap that was closed were counted as.
func (a *Aligner) decide(s Side, excuses [2]*int64, changed int64) {
	for k := range a.lonely[s] {
		l := &a.lonely[s][k]
		if l.epoch != a.epoch || l.fate != undecided {
			continue
		}
		switch {
		case excuses[s] != nil:
			l.fate = excused
		case changed > 0:
			l.fate = exchanged
			changed--
		default:
			l.fate = alone
		}
	}
}

// rest takes what one side has behind the other one's end.
func (a *Aligner) rest(s Side) {
	a.note(s.other(), Entry{Before: a.queue[s.other()].before})
	for q := &a.queue[s]; !q.empty(); {
		e := q.pop()
		a.note(s, e)
		if s == Source && e.Offset >= a.rules.Claimed {
			a.later(e)
		} else {
			a.stray(s, e)
		}
		a.settle(s, e)
	}
}

// later takes a source record behind the target's end that nobody claims to have copied.
func (a *Aligner) later(e Entry) {
	a.outlive(Source, e.Key)
	if len(a.lonely[Target]) == 0 || !a.reunite(Source, e, a.ident(e)) {
		a.counts.Behind++
	}
}

// report keeps the first difference, by the number of records that were equal before it.
func (a *Aligner) report(p Pair, at int64) {
	if a.first == nil || at < a.at {
		a.first, a.at = &p, at
	}
}

// An Outcome is what an Aligner found.
type Outcome struct {
	Counts
	Ranges     []Range
	MoreRanges int64
	First      *Pair
}

// Outcome is what has been found. Where both sides were read to their ends, what still waits for the rest is decided.
func (a *Aligner) Outcome() Outcome {
	if _, done := a.Next(); done {
		a.end()
	}
	return Outcome{a.counts, a.ranges, a.more, a.first}
}

// end decides about the last gap, which nothing follows, and about what waits for a later record of its key.
func (a *Aligner) end() {
	// What the target lacks at its end is not yet copied, unless it is claimed to be.
	behind := min(a.gap.above, a.gap.count[Source])
	a.gap.count[Source] -= behind
	a.counts.Behind += behind
	a.close()
	for s := range a.waiting {
		a.expire(Side(s))
	}
}

// A queue holds the entries of one side that are still to be compared.
type queue struct {
	entries []Entry
	first   int // in entries
	ended   bool
	before  Absence // of what would follow, where it has ended
}

func (q *queue) len() int    { return len(q.entries) - q.first }
func (q *queue) empty() bool { return q.len() == 0 }
func (q *queue) head() Entry { return q.entries[q.first] }
func (q *queue) pop() Entry  { return q.take(1)[0] }

// add moves what is left to the front where there is room, so that the memory stays what it is.
func (q *queue) add(entries []Entry) {
	if q.first > 0 && len(q.entries)+len(entries) > cap(q.entries) {
		q.entries = q.entries[:copy(q.entries, q.entries[q.first:])]
		q.first = 0
	}
	q.entries = append(q.entries, entries...)
}

// look returns the next n entries, or all there are. They are good until the next add.
func (q *queue) look(n int) []Entry { return q.entries[q.first : q.first+min(n, q.len())] }

func (q *queue) take(n int) []Entry {
	taken := q.look(n)
	q.first += len(taken)
	return taken
}

// A ring holds the last Lookahead records.
type ring struct {
	ids  []ident
	next int
}

func (r *ring) add(id ident) {
	if len(r.ids) < Lookahead {
		r.ids = append(r.ids, id)
		return
	}
	r.ids[r.next] = id
	r.next = (r.next + 1) % Lookahead
}

func (r *ring) has(id ident) bool { return slices.Contains(r.ids, id) }
