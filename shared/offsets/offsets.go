package offsets

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"sync"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// A Cursor is what this package needs of one: lease.Cursor has fields of the same names.
type Cursor struct {
	Offset, Target int64  // the next source offset to look at, and the end of the target's log that belongs to it
	Mapped         bool   // the copy's offsets differ from the source's
	Map            string // the newest part of the map; "" while the copy has the source's offsets, or nobody kept a map
}

// A Reason is why a position is what it is.
type Reason string

// The reasons. Those up to Gap are exact.
const (
	Identical  Reason = "identical" // the copy has the source's offsets
	Translated Reason = "mapped"    // the map has it
	Before     Reason = "before"    // the copy begins later: at its first record
	Gap        Reason = "gap"       // what was there was left out, by decision, or the target lost it: at the first record behind it
	Ahead      Reason = "ahead"     // it isn't copied yet: at the end of what is. Exact as soon as it is copied
	Unmapped   Reason = "unmapped"  // no map reaches there, as where MirrorMaker copied long ago: at the nearest record or Bound before it
)

// A Position is where on the target somebody goes on who has come to an offset of the source: at the first record there that he
// hasn't seen, or before it, never behind it.
type Position struct {
	Target int64 // offset on the target
	Exact  bool  // nothing is read again but what MirrorMaker has put behind it once more. Where not, it is the least that is safe
	Why    Reason
}

// A Map translates the positions of one flow. It is safe for concurrent use and keeps the map as it is stored, see the package's
// sizes.
type Map struct {
	archive *Archive

	reading sync.Mutex // held by who reads the topic; guards tail
	tail    *kafka.Tail

	mu         sync.Mutex // guards what follows
	partitions map[kafka.TopicPartition]*partition
	chunks     int
	bytes      int64
}

// A partition is the map of one: all chunks that the topic has, and those that count for the cursor last seen, in order.
type partition struct {
	chunks map[link][]byte
	whole  path   // as far as the cursor named it
	head   link   // that whole ends in
	text   string // the cursor's map that current is of
	target int64  // and its target
	now    path
}

// Open returns a flow's map without asking the cluster for anything.
func Open(flow spec.Flow, target *kafka.Cluster) *Map {
	archive := NewArchive(flow, target)
	return &Map{archive: archive, tail: target.NewTail(archive.Topic(), spec.ReadUncommitted), partitions: map[kafka.TopicPartition]*partition{}}
}

// Refresh reads what is new on the map's topic since the last time, all of it at first. A topic that isn't there is an empty one. Get the
// cursors before that: the topic is never older than a cursor's map then. (Otherwise Translate may say Unmapped, but nothing wrong.)
func (m *Map) Refresh(ctx context.Context) error {
	m.reading.Lock()
	defer m.reading.Unlock()
	if _, err := m.tail.Read(ctx, m.forget, m.add); err != nil {
		return fmt.Errorf("read positions of %s: %w", m.archive.flow.Name(), err)
	}
	return nil
}

// forget starts over: the topic is gone, or another one.
func (m *Map) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.partitions, m.chunks, m.bytes = map[kafka.TopicPartition]*partition{}, 0, 0
}

func (m *Map) add(records []kafka.Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range records {
		tp, _, l, ok := m.archive.parseKey(r.Key)
		if !ok || len(r.Value) > 0 && linkOf(r.Value) != l {
			continue
		}
		p := m.partition(tp)
		if was, known := p.chunks[l]; known {
			m.chunks, m.bytes = m.chunks-1, m.bytes-int64(len(was))
			delete(p.chunks, l)
		}
		if len(r.Value) > 0 {
			p.chunks[l] = slices.Clone(r.Value)
			m.chunks, m.bytes = m.chunks+1, m.bytes+int64(len(r.Value))
		}
		p.whole, p.head, p.now, p.text = nil, link{}, nil, "" // which may have lacked it
	}
}

func (m *Map) partition(tp kafka.TopicPartition) *partition {
	p := m.partitions[tp]
	if p == nil {
		p = &partition{chunks: map[link][]byte{}}
		m.partitions[tp] = p
	}
	return p
}

// Translate says where on the target the offset u of a source partition is. cursor is the partition's. It asks no cluster.
func (m *Map) Translate(tp kafka.TopicPartition, cursor Cursor, u int64) Position {
	position, _ := m.locate(tp, cursor, u)
	return position
}

// Sync is the pair from which MirrorMaker's own translation of u comes out as Translate's. There is none where no record below is
// known, and where the position isn't exact. It isn't always u's own: a marker has no copy, and MirrorMaker would take it for one.
func (m *Map) Sync(tp kafka.TopicPartition, cursor Cursor, u int64) (sync mm2.OffsetSync, ok bool) {
	position, s := m.locate(tp, cursor, u)
	if !position.Exact && position.Why != Ahead || s.last < 0 || s.target != position.Target || s.last < u && s.lastTarget+1 != s.target {
		return mm2.OffsetSync{}, false
	}
	return mm2.OffsetSync{Topic: tp.Topic, Partition: tp.Partition, Upstream: s.last, Downstream: s.lastTarget}, true
}

func (m *Map) locate(tp kafka.TopicPartition, cursor Cursor, u int64) (Position, spot) {
	if cursor.Map == "" {
		return unmapped(cursor, u)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	way := m.partition(tp).pathOf(cursor)
	if u > cursor.Offset {
		_, s := way.locate(cursor.Offset)
		return Position{cursor.Target, false, Ahead}, s
	}
	return way.locate(u)
}

// unmapped answers for a partition without a map.
func unmapped(c Cursor, u int64) (Position, spot) {
	identical := spot{min(u, c.Target), min(u, c.Target-1), min(u, c.Target-1)}
	switch {
	case c.Mapped && u == c.Offset:
		return Position{c.Target, true, Translated}, spot{c.Target, -1, -1}
	case c.Mapped && u > c.Offset:
		return Position{c.Target, false, Ahead}, spot{c.Target, -1, -1}
	case c.Mapped:
		return Position{0, false, Unmapped}, spot{0, -1, -1}
	case u > c.Offset:
		return Position{c.Target, false, Ahead}, identical
	}
	return Position{u, true, Identical}, identical
}

// Size is how much of the topic the map holds, in chunks and in bytes.
func (m *Map) Size() (chunks int, bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.chunks, m.bytes
}

// A path is the chunks that count, by ascending source offset: what a later one says of an offset goes before what earlier ones do.
type path []stretch

// A stretch is a chunk, or what is left of one, on a path.
type stretch struct {
	header
	most int64 // where a later chunk begins on the target that has lost what was behind it; no position lies behind that
}

// pathOf is the path to a cursor.
func (p *partition) pathOf(c Cursor) path {
	if p.now != nil && p.text == c.Map && p.target == c.Target {
		return p.now
	}
	chunks, err := split(c.Map)
	if err != nil {
		chunks = nil
	}
	var fresh path
	for i, value := range chunks {
		h, err := decodeHeader(value)
		if err == nil && i == len(chunks)-1 {
			var open chunk
			open, err = openChunk(c, value)
			h.endSource, h.endTarget = open.behind(), c.Target
		}
		if err != nil {
			fresh = nil
			break
		}
		fresh = append(fresh, stretch{header: h})
	}
	var way path
	if len(fresh) > 0 {
		way = slices.Clone(p.upTo(fresh[0].origin, fresh[0].before))
	}
	for _, s := range fresh {
		way = way.then(s)
	}
	if len(way) == 0 { // nobody can read it: all that is known is the cursor
		way = path{{header: header{chunk: chunk{origin: unknown, source: c.Offset, target: c.Target}, endSource: c.Offset, endTarget: c.Target}}}
	}
	p.now, p.text, p.target = way.settled(), c.Map, c.Target
	return p.now
}

// upTo is the path up to the chunk that another one names.
func (p *partition) upTo(o origin, head link) path {
	if o != follows {
		return nil
	}
	if p.whole != nil && p.head == head {
		return p.whole
	}
	var back []stretch
	for l := head; ; {
		value, known := p.chunks[l]
		if !known {
			break
		}
		h, err := decodeHeader(value)
		if err != nil {
			break
		}
		back = append(back, stretch{header: h})
		if h.origin != follows {
			break
		}
		l = h.before
	}
	var way path
	for _, s := range slices.Backward(back) {
		way = way.then(s)
	}
	p.whole, p.head = way, head
	return way
}

// then goes on with a later chunk.
func (p path) then(s stretch) path {
	for len(p) > 0 && p[len(p)-1].source >= s.source {
		if len(p) == 1 {
			s.origin = p[0].origin // what lies before that lies before this
		}
		p = p[:len(p)-1]
	}
	return append(p, s)
}

// settled knows how far each stretch may reach.
func (p path) settled() path {
	most := int64(mostOffset)
	for i, s := range slices.Backward(p) {
		p[i].most = most
		most = min(most, s.target)
	}
	return p
}

func (p path) locate(u int64) (Position, spot) {
	i := sort.Search(len(p), func(i int) bool { return p[i].source > u }) - 1
	if i < 0 {
		s := p[0]
		if s.origin == first {
			return Position{min(s.target, s.most), true, Before}, spot{s.target, -1, -1}
		}
		return Position{min(s.atLeast(0, u), s.most), false, Unmapped}, spot{s.target, -1, -1}
	}
	s := p[i]
	if s.bounds {
		target := min(s.bound(u), s.most)
		return Position{target, false, Unmapped}, spot{target, -1, -1}
	}
	found, ok := s.find(u)
	exact, why := ok, Translated
	switch {
	case !ok:
		found, why = spot{s.target, -1, -1}, Unmapped
	case u < s.endSource || i == len(p)-1:
	case p[i+1].target > s.endTarget && u > s.endSource:
		found.target, exact, why = p[i+1].atLeast(s.endTarget, u), false, Unmapped
	case p[i+1].source > s.endSource:
		why = Gap
	}
	if found.target > s.most {
		found, exact, why = spot{s.most, -1, -1}, true, Gap
	}
	return Position{found.target, exact, why}, found
}

// atLeast is the least target offset that may belong to a source offset before the stretch, given one that does to an earlier one.
func (s stretch) atLeast(least, u int64) int64 {
	if !s.ascending {
		return least
	}
	return max(least, s.target-(s.source-u))
}
