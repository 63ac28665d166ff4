package offsets

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/bits"
)

// chunkVersion is the format of chunks that this kferry writes, and the only one it reads.
const chunkVersion = 1

// errChunk is a chunk in another format, or none.
var (
	errChunk = errors.New("not a part of a map that this kferry knows")
	errCut   = fmt.Errorf("%w: it is cut off", errChunk)
)

// mostOffset keeps sums of a chunk's numbers from overflowing.
const mostOffset = 1 << 60

// A link is what a chunk is known by: the beginning of its bytes' SHA-256. Two workers that come to different chunks can't take one for
// the other, and a chunk that names the one before it names all of them.
type link [8]byte

func linkOf(chunk []byte) (l link) {
	sum := sha256.Sum256(chunk)
	copy(l[:], sum[:])
	return l
}

// An origin is what lies before a chunk.
type origin byte

const (
	first   origin = iota // nothing: the copy begins here
	follows               // the chunk that before names
	unknown               // a copy that nobody kept a map of
)

// A chunk is a stretch of a partition's map: source offsets and target offsets that belong together. From source and target on,
// records and holes take turns on the source, while records follow each other on the target.
//
//	byte     version
//	byte     origin; 1<<2: ascending; 1<<3: runs are packed; 1<<4: bounds
//	8 bytes  before, where it follows
//	uvarint  source
//	uvarint  target
//	uvarint  length on the source
//	uvarint  records
//	uvarint  lead
//	runs     one after the other: uvarint records, uvarint hole<<1; or hole<<1|1 and uvarint times-2. Packed: see packRuns
//
// One of bounds says only where single records are. Its runs are the steps between these: so many records on the target, and a hole of so many
// on the source. The last step ends where the next chunk begins.
type chunk struct {
	origin         origin
	before         link
	ascending      bool // all before it is one copy of ascending offsets, without jumps
	bounds         bool
	source, target int64
	lead           int64 // source offsets before its first record
	runs           []run
	tail           int64 // records behind runs
}

// A run is so many records and the hole behind them, so many times.
type run struct{ records, hole, times int64 }

// length is how many source offsets a run takes.
func (r run) length(bounds bool) int64 {
	if bounds {
		return r.hole * r.times
	}
	return (r.records + r.hole) * r.times
}

// end is the place behind the chunk's last record or hole.
func (c *chunk) end() (source, target int64) {
	source, target = c.source+c.lead+c.tail, c.target+c.tail
	for _, r := range c.runs {
		source, target = source+r.length(c.bounds), target+r.records*r.times
	}
	return source, target
}

// add appends a run to the chunk's.
func (c *chunk) add(r run) {
	if n := len(c.runs); n > 0 && c.runs[n-1].records == r.records && c.runs[n-1].hole == r.hole {
		c.runs[n-1].times += r.times
		return
	}
	c.runs = append(c.runs, r)
}

const (
	ascendingBit = 1 << 2
	packedBit    = 1 << 3
	boundsBit    = 1 << 4
)

func (c *chunk) encode() []byte {
	endSource, endTarget := c.end()
	records, hole, packed := c.packing()
	flags := byte(c.origin)
	if c.ascending {
		flags |= ascendingBit
	}
	if c.bounds {
		flags |= boundsBit
	}
	if packed < c.listed() {
		flags |= packedBit
	}
	to := []byte{chunkVersion, flags}
	if c.origin == follows {
		to = append(to, c.before[:]...)
	}
	for _, n := range []int64{c.source, c.target, endSource - c.source, endTarget - c.target, c.lead} {
		to = binary.AppendUvarint(to, uint64(n))
	}
	if flags&packedBit != 0 {
		return c.packRuns(to, records, hole)
	}
	return c.listRuns(to)
}

func (c *chunk) listRuns(to []byte) []byte {
	for _, r := range c.runs {
		to = binary.AppendUvarint(to, uint64(r.records))
		if r.times == 1 {
			to = binary.AppendUvarint(to, uint64(r.hole)<<1)
			continue
		}
		to = binary.AppendUvarint(to, uint64(r.hole)<<1|1)
		to = binary.AppendUvarint(to, uint64(r.times-2))
	}
	return to
}

// listed is how many bits listRuns takes.
func (c *chunk) listed() int64 {
	size := 0
	for _, r := range c.runs {
		size += uvarintBytes(r.records) + uvarintBytes(r.hole<<1)
		if r.times > 1 {
			size += uvarintBytes(r.times - 2)
		}
	}
	return int64(size) * 8
}

func uvarintBytes(n int64) int { return max(1, (bits.Len64(uint64(n))+6)/7) }

// Packed runs are a Rice code: a number n ≥ 1 is (n-1)>>k ones, a zero, and the k low bits of n-1, with one k for the records and
// one for the holes of a chunk. Where both are 0 that is a bitmap, a bit for each source offset, and so the bound for the worst case.
//
//	byte     k of records
//	byte     k of holes
//	uvarint  number of runs
//	bits     records, hole, records, hole…, the highest bit of a byte first
//
// Where there would be more than mostOnes ones, there are as many, and the whole of n-1 follows in 64 bits.
const (
	mostOnes = 40
	mostK    = 24

	mostPacked = chunkBytes * 8 // runs; more would not fit into a chunk, and listed they do
)

func (c *chunk) packRuns(to []byte, k, kHole int) []byte {
	n := int64(0)
	for _, r := range c.runs {
		n += r.times
	}
	w := bitWriter{to: binary.AppendUvarint(append(to, byte(k), byte(kHole)), uint64(n))}
	for _, r := range c.runs {
		for range r.times {
			w.rice(uint64(r.records-1), k)
			w.rice(uint64(r.hole-1), kHole)
		}
	}
	return w.to
}

// packing finds the best parameters for packRuns, and how many bits it takes then.
func (c *chunk) packing() (k, kHole int, size int64) {
	var records, holes, runs int64
	for _, r := range c.runs {
		records, holes, runs = records+r.records*r.times, holes+r.hole*r.times, runs+r.times
	}
	if runs > mostPacked {
		return 0, 0, math.MaxInt64
	}
	k, recordBits := c.bestK(records, runs, func(r run) int64 { return r.records })
	kHole, holeBits := c.bestK(holes, runs, func(r run) int64 { return r.hole })
	return k, kHole, recordBits + holeBits + int64(2+uvarintBytes(runs))*8
}

// bestK tries the parameters around the one that suits the mean.
func (c *chunk) bestK(sum, runs int64, of func(run) int64) (best int, size int64) {
	if runs == 0 {
		return 0, 0
	}
	about := bits.Len64(uint64(sum / runs))
	size = -1
	for k := max(0, about-3); k <= min(mostK, about+1); k++ {
		total := int64(0)
		for _, r := range c.runs {
			total += riceBits(uint64(of(r)-1), k) * r.times
		}
		if size < 0 || total < size {
			best, size = k, total
		}
	}
	return best, size
}

func riceBits(n uint64, k int) int64 {
	if n>>k >= mostOnes {
		return mostOnes + 64
	}
	return int64(n>>k) + 1 + int64(k)
}

// A bitWriter appends bits, of which the last byte has free ones left.
type bitWriter struct {
	to   []byte
	free int
}

func (w *bitWriter) rice(n uint64, k int) {
	ones := n >> k
	if ones >= mostOnes {
		w.bits(1<<mostOnes-1, mostOnes)
		w.bits(n>>32, 32)
		w.bits(n&(1<<32-1), 32)
		return
	}
	w.bits((1<<ones-1)<<1, int(ones)+1)
	w.bits(n&(1<<k-1), k)
}

func (w *bitWriter) bits(value uint64, n int) {
	for n > 0 {
		if w.free == 0 {
			w.to, w.free = append(w.to, 0), 8
		}
		take := min(n, w.free)
		w.to[len(w.to)-1] |= byte(value>>(n-take)&(1<<take-1)) << (w.free - take)
		n, w.free = n-take, w.free-take
	}
}

// A bitReader takes bits off the front.
type bitReader struct {
	from   []byte
	next   uint64 // the bits that follow, the first one highest
	n      int    // so many of them
	cutOff bool
}

func (r *bitReader) fill() {
	for r.n <= 56 && len(r.from) > 0 {
		r.next |= uint64(r.from[0]) << (56 - r.n)
		r.n, r.from = r.n+8, r.from[1:]
	}
}

// bits takes up to 32.
func (r *bitReader) bits(n int) uint64 {
	r.fill()
	v := r.next >> (64 - n)
	r.skip(n)
	return v
}

func (r *bitReader) skip(n int) {
	r.next, r.n, r.cutOff = r.next<<n, r.n-n, r.cutOff || n > r.n
}

func (r *bitReader) rice(k int) int64 {
	r.fill()
	ones := bits.LeadingZeros64(^r.next)
	if ones >= mostOnes {
		r.skip(mostOnes)
		return int64(r.bits(32)<<32 | r.bits(32))
	}
	r.skip(ones + 1)
	return int64(uint64(ones)<<k | r.bits(k))
}

// A header is what a chunk begins with: enough to find the one that is needed.
type header struct {
	chunk                       // without runs and tail
	endSource, endTarget int64  // the place behind it
	packed               bool   // how the rest is written
	rest                 []byte // the runs
}

func decodeHeader(from []byte) (h header, err error) {
	if len(from) < 2 || from[0] != chunkVersion || from[1]>>5 != 0 || origin(from[1]&3) > unknown {
		return h, fmt.Errorf("%w: it begins with % x", errChunk, from[:min(2, len(from))])
	}
	h.origin, h.ascending, h.packed, h.bounds = origin(from[1]&3), from[1]&ascendingBit != 0, from[1]&packedBit != 0, from[1]&boundsBit != 0
	from = from[2:]
	if h.origin == follows {
		if len(from) < len(h.before) {
			return h, errCut
		}
		from = from[copy(h.before[:], from):]
	}
	var length, records int64
	for _, to := range []*int64{&h.source, &h.target, &length, &records, &h.lead} {
		n, size := binary.Uvarint(from)
		if size <= 0 || n > mostOffset {
			return h, errCut
		}
		*to, from = int64(n), from[size:]
	}
	h.endSource, h.endTarget, h.rest = h.source+length, h.target+records, from
	return h, nil
}

// whole reads the runs too.
func (h header) whole() (chunk, error) {
	c := h.chunk
	if c.bounds {
		return c, fmt.Errorf("%w: it has bounds where records are to follow", errChunk)
	}
	source, target := c.source+c.lead, c.target
	for r := range h.each() {
		if r.times == 0 || r.records > (h.endTarget-target)/r.times || r.hole > (h.endSource-source)/r.times {
			return c, fmt.Errorf("%w: its runs are longer than it", errChunk)
		}
		source, target = source+(r.records+r.hole)*r.times, target+r.records*r.times
		c.add(r)
	}
	c.tail = h.endTarget - target
	if source += c.tail; source != h.endSource {
		return c, fmt.Errorf("%w: its runs end at %d, it ends at %d", errChunk, source, h.endSource)
	}
	return c, nil
}

// each reads the runs one by one. What can't be read is one of no length.
func (h header) each() iter.Seq[run] {
	if h.packed {
		return unpackRuns(h.rest)
	}
	return func(yield func(run) bool) {
		for from := h.rest; len(from) > 0; {
			r, rest, ok := cutRun(from)
			if !yield(r) || !ok {
				return
			}
			from = rest
		}
	}
}

func cutRun(from []byte) (r run, rest []byte, ok bool) {
	var n [3]uint64
	for i := range n {
		if i == 2 && n[1]&1 == 0 {
			break
		}
		v, size := binary.Uvarint(from)
		if size <= 0 || v > mostOffset {
			return run{}, nil, false
		}
		n[i], from = v, from[size:]
	}
	r = run{records: int64(n[0]), hole: int64(n[1] >> 1), times: 1}
	if n[1]&1 == 1 {
		r.times = int64(n[2]) + 2
	}
	if r.records == 0 || r.hole == 0 {
		return run{}, nil, false
	}
	return r, from, true
}

func unpackRuns(from []byte) iter.Seq[run] {
	return func(yield func(run) bool) {
		if len(from) < 3 || from[0] > mostK || from[1] > mostK {
			yield(run{})
			return
		}
		n, size := binary.Uvarint(from[2:])
		if size <= 0 {
			yield(run{})
			return
		}
		bits := bitReader{from: from[2+size:]}
		for range n {
			r := run{records: bits.rice(int(from[0])) + 1, hole: bits.rice(int(from[1])) + 1, times: 1}
			if bits.cutOff || r.records <= 0 || r.hole <= 0 || r.records > mostOffset || r.hole > mostOffset {
				r = run{}
			}
			if !yield(r) || r.times == 0 {
				return
			}
		}
	}
}

// A spot is what a chunk says of a source offset.
type spot struct {
	target int64 // offset of the first record from there on
	// last is the last record up to there, of which the copy's offset is lastTarget. It is -1 where the chunk has none.
	last, lastTarget int64
}

// find looks a source offset up. Where the chunk is damaged it is not ok.
func (h header) find(u int64) (found spot, ok bool) {
	source, target := h.source+h.lead, h.target
	if u < source {
		return spot{h.target, -1, -1}, true
	}
	last := spot{-1, -1, -1} // record before u
	for r := range h.each() {
		if r.times == 0 {
			return found, false
		}
		period := r.records + r.hole
		if n := (u - source) / period; n < r.times {
			source, target = source+n*period, target+n*r.records
			return within(u, source, target, r.records), true
		}
		source, target = source+period*r.times, target+r.records*r.times
		last = spot{target, source - r.hole - 1, target - 1}
	}
	if tail := h.endTarget - target; tail > 0 {
		return within(u, source, target, tail), true
	}
	return spot{target, last.last, last.lastTarget}, true
}

// bound is the greatest target offset that a chunk of bounds proves to lie before whatever the source has from an offset on.
func (h header) bound(u int64) int64 {
	source, target := h.source, h.target
	for r := range h.each() {
		if r.times == 0 {
			return h.target
		}
		n := min((u-source)/r.hole, r.times)
		if n > 0 && r.records > (h.endTarget-target)/n {
			return h.target
		}
		source, target = source+r.hole*n, target+r.records*n
		if n < r.times {
			break
		}
	}
	if u > source {
		target++
	}
	return target
}

// within is a place in records that begin at a place, or in the hole behind them.
func within(u, source, target, records int64) spot {
	n := min(u-source, records-1)
	last := spot{target + n, source + n, target + n}
	if u > last.last {
		last.target++
	}
	return last
}
