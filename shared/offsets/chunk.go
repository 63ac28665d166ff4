package offsets

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
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
//	byte     origin; 1<<2: ascending; 1<<3: runs are packed
//	8 bytes  before, where it follows
//	uvarint  source
//	uvarint  target
//	uvarint  length on the source
//	uvarint  records
//	uvarint  lead
//	runs     one after the other: uvarint records, uvarint hole<<1; or hole<<1|1 and uvarint times-2. Packed: see packRuns
type chunk struct {
	origin         origin
	before         link
	ascending      bool // all before it is one copy of ascending offsets, without jumps
	source, target int64
	lead           int64 // source offsets before its first record
	runs           []run
	tail           int64 // records behind runs
}

// A run is so many records and the hole behind them, so many times.
type run struct{ records, hole, times int64 }

// end is the place behind the chunk's last record or hole.
func (c *chunk) end() (source, target int64) {
	source, target = c.source+c.lead+c.tail, c.target+c.tail
	for _, r := range c.runs {
		source, target = source+(r.records+r.hole)*r.times, target+r.records*r.times
	}
	return source, target
}

// add appends a run to the chunk's.
func (c *chunk) add(records, hole int64) {
	if n := len(c.runs); n > 0 && c.runs[n-1].records == records && c.runs[n-1].hole == hole {
		c.runs[n-1].times++
		return
	}
	c.runs = append(c.runs, run{records, hole, 1})
}

const (
	ascendingBit = 1 << 2
	packedBit    = 1 << 3
)

func (c *chunk) encode() []byte {
	endSource, endTarget := c.end()
	records, hole, packed := c.packing()
	flags := byte(c.origin)
	if c.ascending {
		flags |= ascendingBit
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
	from []byte
	at   int // bit
	bad  bool
}

func (r *bitReader) bit() uint64 {
	if r.at>>3 >= len(r.from) {
		r.bad = true
		return 0
	}
	b := r.from[r.at>>3] >> (7 - r.at&7) & 1
	r.at++
	return uint64(b)
}

func (r *bitReader) bits(n int) (v uint64) {
	for range n {
		v = v<<1 | r.bit()
	}
	return v
}

func (r *bitReader) rice(k int) int64 {
	ones := uint64(0)
	for ones < mostOnes && r.bit() == 1 {
		ones++
	}
	if ones == mostOnes {
		return int64(r.bits(64))
	}
	return int64(ones<<k | r.bits(k))
}

// A header is what a chunk begins with: enough to find the one that is needed.
type header struct {
	chunk                       // without runs and tail
	endSource, endTarget int64  // the place behind it
	packed               bool   // how the rest is written
	rest                 []byte // the runs
}

func decodeHeader(from []byte) (h header, err error) {
	if len(from) < 2 || from[0] != chunkVersion || from[1]>>4 != 0 || origin(from[1]&3) > unknown {
		return h, fmt.Errorf("%w: it begins with % x", errChunk, from[:min(2, len(from))])
	}
	h.origin, h.ascending, h.packed = origin(from[1]&3), from[1]&ascendingBit != 0, from[1]&packedBit != 0
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
	c, from := h.chunk, h.rest
	if h.packed {
		if err := c.unpackRuns(from); err != nil {
			return c, err
		}
		from = nil
	}
	for len(from) > 0 {
		r, rest, ok := cutRun(from)
		if !ok {
			return c, errCut
		}
		c.runs, from = append(c.runs, r), rest
	}
	for left, r := h.endTarget-h.target, 0; r < len(c.runs); r++ { // so that nothing below overflows
		if left/c.runs[r].times < c.runs[r].records {
			return c, fmt.Errorf("%w: it has more records in its runs than in all", errChunk)
		}
		left -= c.runs[r].records * c.runs[r].times
	}
	_, target := c.end()
	c.tail = h.endTarget - target
	if source, _ := c.end(); source != h.endSource {
		return c, fmt.Errorf("%w: its runs end at %d, it ends at %d", errChunk, source, h.endSource)
	}
	return c, nil
}

func cutRun(from []byte) (r run, rest []byte, ok bool) {
	var n [3]uint64
	for i := range n {
		if i == 2 && n[1]&1 == 0 {
			break
		}
		v, size := binary.Uvarint(from)
		if size <= 0 || v > mostOffset {
			return r, nil, false
		}
		n[i], from = v, from[size:]
	}
	r = run{records: int64(n[0]), hole: int64(n[1] >> 1), times: 1}
	if n[1]&1 == 1 {
		r.times = int64(n[2]) + 2
	}
	return r, from, r.records > 0 && r.hole > 0
}

func (c *chunk) unpackRuns(from []byte) error {
	if len(from) < 3 || from[0] > mostK || from[1] > mostK {
		return errCut
	}
	n, size := binary.Uvarint(from[2:])
	if size <= 0 {
		return errCut
	}
	r := bitReader{from: from[2+size:]}
	for range n {
		records, hole := r.rice(int(from[0]))+1, r.rice(int(from[1]))+1
		if r.bad || records <= 0 || hole <= 0 || records > mostOffset || hole > mostOffset {
			return errCut
		}
		c.add(records, hole)
	}
	return nil
}

// A spot is what a chunk says of a source offset.
type spot struct {
	target int64 // offset of the first record from there on
	// last is the last record up to there, of which the copy's offset is lastTarget. It is -1 where the chunk has none.
	last, lastTarget int64
}

// find looks a source offset up that lies in the chunk.
func (c *chunk) find(u int64) spot {
	source, target := c.source+c.lead, c.target
	for _, r := range c.runs {
		period := r.records + r.hole
		if n := (u - source) / period; u >= source && n < r.times {
			source, target = source+n*period, target+n*r.records
			if u < source+r.records {
				return spot{target + u - source, u, target + u - source}
			}
			return spot{target + r.records, source + r.records - 1, target + r.records - 1}
		}
		if u < source {
			break
		}
		source, target = source+period*r.times, target+r.records*r.times
	}
	switch {
	case u < source:
		return spot{c.target, -1, -1}
	case u < source+c.tail:
		return spot{target + u - source, u, target + u - source}
	}
	last := spot{target + c.tail, source + c.tail - 1, target + c.tail - 1}
	switch n := len(c.runs); {
	case c.tail > 0:
	case n > 0: // behind the hole that ends the chunk
		last.last -= c.runs[n-1].hole
	default:
		last.last, last.lastTarget = -1, -1
	}
	return last
}
