package offsets

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
)

const (
	chunkBytes = 2 << 10 // about how long a chunk grows
	leastAdded = 32      // runs between two looks at that
	// MostPending is how many bytes of finished chunks a cursor carries at most until they are on the topic.
	MostPending = 16 << 10
)

// A Track is a partition's map as whoever copies the partition makes it. It is used by one goroutine, and asks no cluster.
//
// It grows by what has landed, and goes into the cursor that moves past that. Chunks that are full stay in the cursor until they are
// on the map's topic: so no cursor is ever ahead of its map, and nobody has to wait for that topic.
type Track struct {
	pending []Sealed
	open    chunk
	// source and target are the place behind the last record.
	source, target int64
	look           int    // at how many runs open is looked at for its size
	text           string // what Map gave last; "" when it has changed since
}

// A Sealed chunk doesn't change any more.
type Sealed struct {
	source int64
	value  []byte
}

// Resume goes on where a cursor's map ends. A map that can't be read is an error, and the track one that knows nothing from before.
func Resume(c Cursor) (*Track, error) {
	t := &Track{look: leastAdded, source: c.Offset, target: c.Target}
	switch {
	case c.Map == "" && !c.Mapped:
		t.open = chunk{origin: first, ascending: true, tail: c.Target}
		return t, nil
	case c.Map == "":
		t.Lose(c.Offset, c.Target)
		return t, nil
	}
	chunks, err := split(c.Map)
	if err == nil {
		err = t.take(c, chunks)
	}
	if err != nil {
		t.Lose(c.Offset, c.Target)
	}
	return t, err
}

func (t *Track) take(c Cursor, chunks [][]byte) error {
	for _, value := range chunks[:len(chunks)-1] {
		h, err := decodeHeader(value)
		if err != nil {
			return err
		}
		t.pending = append(t.pending, Sealed{h.source, value})
	}
	open, err := openChunk(c, chunks[len(chunks)-1])
	t.open, t.text = open, c.Map
	t.source = open.behind()
	return err
}

// behind is the source offset behind the last record.
func (c *chunk) behind() int64 {
	source, _ := c.end()
	return source
}

// openChunk reads the last chunk of a cursor's map. How many records it ends in is what the cursor says.
func openChunk(c Cursor, value []byte) (chunk, error) {
	h, err := decodeHeader(value)
	if err != nil {
		return h.chunk, err
	}
	open, err := h.whole()
	if err != nil {
		return open, err
	}
	open.tail += c.Target - h.endTarget
	if source := open.behind(); open.tail < 0 || source > c.Offset {
		return open, fmt.Errorf("%w: it reaches to %d and %d, the cursor to %d and %d", errChunk, h.endSource, h.endTarget, c.Offset, c.Target)
	}
	return open, nil
}

// Copied notes that n records with source offsets from source on have landed from target on. What lies between them and those
// noted before is a hole. Where they don't follow those on the target, or come before them on the source, all that is known of
// source offsets behind them is forgotten.
func (t *Track) Copied(source, target, n int64) {
	if n == 0 {
		return
	}
	switch hole := source - t.source; {
	case target != t.target || hole < 0:
		t.jump(source, target)
	case hole == 0:
	case t.open.tail == 0 && len(t.open.runs) == 0:
		t.open.lead += hole
		t.text = ""
	default:
		t.close(hole)
	}
	t.open.tail += n
	t.source, t.target = source+n, target+n
}

// close ends a run with the hole behind it, and the chunk where it is full.
func (t *Track) close(hole int64) {
	t.open.add(run{t.open.tail, hole, 1})
	t.open.tail, t.text = 0, ""
	if n := len(t.open.runs); n >= t.look {
		t.look = n + max(leastAdded, n/4)
		if _, _, packed := t.open.packing(); min(packed, t.open.listed()) >= chunkBytes*8 {
			t.seal()
			t.open.source, t.open.target = t.source+hole, t.target
		}
	}
}

// seal finishes the open chunk and begins one that follows it, at no place yet.
func (t *Track) seal() {
	value := t.open.encode()
	t.pending = append(t.pending, Sealed{t.open.source, value})
	t.open = chunk{origin: follows, before: linkOf(value), ascending: t.open.ascending, runs: t.open.runs[:0]}
	t.look, t.text = leastAdded, ""
}

// jump goes on at another place.
func (t *Track) jump(source, target int64) {
	if t.open.origin != first || t.open.tail > 0 || len(t.open.runs) > 0 || t.open.lead > 0 || t.open.source > 0 || t.open.target > 0 {
		t.seal()
		t.open.ascending = false
	}
	t.open.source, t.open.target = source, target
	t.source, t.target, t.text = source, target, ""
}

// Jump goes on at another place: by decision, or since nobody knows which records have landed in between. Where it is behind on the
// source, what was known of the offsets from there on is forgotten.
func (t *Track) Jump(source, target int64) {
	if source != t.source || target != t.target {
		t.jump(source, target)
	}
}

// Begin forgets everything: a copy begins here, before which there is none.
func (t *Track) Begin(source, target int64) {
	*t = Track{look: leastAdded, source: source, target: target, open: chunk{origin: first, ascending: true, source: source, target: target}}
}

// Lose forgets everything: what lies before a place, nobody kept a map of. Bounds, in ascending order, are all that is known of it.
func (t *Track) Lose(source, target int64, bounds ...Bound) {
	*t = Track{look: leastAdded, source: source, target: target}
	t.open = chunk{origin: unknown, bounds: true}
	var last *Bound
	for _, b := range bounds {
		switch {
		case b.Source >= source || b.Target >= target || last != nil && (b.Source <= last.Source || b.Target <= last.Target):
			continue
		case last == nil:
			t.open.source, t.open.target = b.Source, b.Target
		default:
			t.open.add(run{b.Target - last.Target, b.Source - last.Source, 1})
		}
		last = &b
	}
	if last == nil {
		t.open = chunk{origin: unknown}
	} else {
		t.open.add(run{target - last.Target, source - last.Source, 1})
		t.seal()
	}
	t.open.source, t.open.target = source, target
}

// Reach is Jump where what was noted doesn't end just before the place on the target, or reaches behind it on the source.
func (t *Track) Reach(source, target int64) {
	if target != t.target || source < t.source {
		t.jump(source, target)
	}
}

// Last is the last record's place; not ok where none is known.
func (t *Track) Last() (source, target int64, ok bool) {
	return t.source - 1, t.target - 1, t.open.tail > 0
}

// Map is what the cursor holds of the map, once the cursor has moved behind all that is noted. It is empty while there is nothing to
// say.
func (t *Track) Map(mapped bool) string {
	if t.text != "" {
		return t.text
	}
	if o := &t.open; !mapped && o.origin == first && o.source == 0 && o.target == 0 && o.lead == 0 && len(o.runs) == 0 {
		return ""
	}
	var all []byte
	for _, s := range t.pending {
		all = binary.AppendUvarint(all, uint64(len(s.value)))
		all = append(all, s.value...)
	}
	open := t.open
	open.tail = 0 // the cursor says it
	t.text = base64.RawStdEncoding.EncodeToString(append(binary.AppendUvarint(all, 0), open.encode()...))
	return t.text
}

// split is the inverse of Map: the chunks, the open one last.
func split(text string) (chunks [][]byte, err error) {
	all, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errChunk, err)
	}
	for {
		n, size := binary.Uvarint(all)
		switch {
		case size <= 0 || n > uint64(len(all)-size):
			return nil, errCut
		case n == 0:
			return append(chunks, all[size:]), nil
		}
		chunks = append(chunks, all[size:size+int(n)])
		all = all[size+int(n):]
	}
}

// Pending are the chunks that the map's topic doesn't have yet, oldest first.
func (t *Track) Pending() []Sealed { return t.pending }

// PendingBytes is how long they are.
func (t *Track) PendingBytes() (n int) {
	for _, s := range t.pending {
		n += len(s.value)
	}
	return n
}

// Saved notes that chunks that were pending are on the topic. Where all was forgotten since, or given up, they are not among the oldest any
// more, and nothing changes.
func (t *Track) Saved(written []Sealed) {
	n := 0
	for n < len(written) && n < len(t.pending) && bytes.Equal(written[n].value, t.pending[n].value) {
		n++
	}
	t.pending, t.text = t.pending[n:], ""
}

// GiveUp forgets what the pending chunks hold: the topic can't be written to, and a cursor can't carry any number of them. One that only
// says where they began is left of them. Positions in what they were about are unknown for ever.
func (t *Track) GiveUp() {
	if len(t.pending) == 0 {
		return
	}
	lost := ownHeader(t.pending[0]).chunk
	for _, s := range t.pending[1:] {
		h := ownHeader(s)
		lost.source, lost.target = min(lost.source, h.source), min(lost.target, h.target)
	}
	lost.lead, lost.bounds = 0, false
	value := lost.encode()
	t.pending, t.text = []Sealed{{lost.source, value}}, ""
	t.open.before = linkOf(value)
}

func ownHeader(s Sealed) header {
	h, err := decodeHeader(s.value)
	if err != nil {
		panic(fmt.Sprintf("offsets: a chunk of our own: %v", err))
	}
	return h
}
