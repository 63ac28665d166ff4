package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// ErrInflated is what a *FormatError wraps when a batch's records would decompress beyond the limit.
var ErrInflated = errors.New("decompressed size exceeds the limit")

// Codec says how a batch's records are compressed.
type Codec int8

const (
	None Codec = iota
	Gzip
	Snappy
	LZ4
	Zstd
)

func (c Codec) String() string {
	names := [...]string{"none", "gzip", "snappy", "lz4", "zstd"}
	if c < 0 || int(c) >= len(names) {
		return fmt.Sprintf("codec %d", int8(c))
	}
	return names[c]
}

// compressors are shared by all encoders, so that an idle one costs nothing. Each works in the goroutine that calls it: a
// channel or goroutine kept in a pool would tie it to the synctest bubble that it was made in.
var compressors = [...]sync.Pool{
	Gzip: {New: func() any { return gzip.NewWriter(nil) }},
	LZ4:  {New: func() any { return newLZ4Writer() }},
	Zstd: {New: func() any { return newZstdWriter() }},
}

type compressor interface {
	io.WriteCloser
	Reset(io.Writer)
}

// newLZ4Writer makes the frames that Java clients make: independent blocks of 64 KiB without checksums. Larger blocks would
// have each reader set aside a larger buffer.
func newLZ4Writer() compressor {
	w := lz4.NewWriter(nil)
	if err := w.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false), lz4.ConcurrencyOption(1)); err != nil {
		panic(err)
	}
	return w
}

// newZstdWriter leaves out the checksum, since the batch has one.
func newZstdWriter() compressor {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20), zstd.WithEncoderCRC(false))
	if err != nil {
		panic(err)
	}
	return w
}

// deflate appends src compressed to dst.
func (c Codec) deflate(dst, src []byte) ([]byte, error) {
	switch c {
	case None:
		return append(dst, src...), nil
	case Snappy: // one block, which Java clients read as well as the xerial frames they write
		at := len(dst)
		dst = slices.Grow(dst, s2.MaxEncodedLen(len(src)))
		return dst[:at+len(s2.EncodeSnappy(dst[at:cap(dst)], src))], nil
	case Gzip, LZ4, Zstd:
		w := compressors[c].Get().(compressor)
		defer compressors[c].Put(w)
		out := bytes.NewBuffer(dst)
		w.Reset(out)
		if _, err := w.Write(src); err != nil {
			return dst, err
		}
		err := w.Close()
		return out.Bytes(), err
	}
	return dst, fmt.Errorf("unknown %v", c)
}

var (
	gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}
	lz4Readers  = sync.Pool{New: func() any { return lz4.NewReader(nil) }}
)

// inflate appends src decompressed to dst, which is empty, unless that would exceed limit bytes. Of None it returns src.
func (c Codec) inflate(dst, src []byte, limit int) ([]byte, error) {
	switch c {
	case None:
		return src, nil
	case Gzip:
		r := gzipReaders.Get().(*gzip.Reader)
		defer gzipReaders.Put(r)
		if err := r.Reset(bytes.NewReader(src)); err != nil {
			return dst, err
		}
		return readAll(dst, r, limit)
	case Snappy:
		return inflateSnappy(dst, src, limit)
	case LZ4:
		r := lz4Readers.Get().(*lz4.Reader)
		defer lz4Readers.Put(r)
		r.Reset(bytes.NewReader(src))
		return readAll(dst, r, limit)
	case Zstd:
		return inflateZstd(dst, src, limit)
	}
	return dst, fmt.Errorf("unknown %v", c)
}

func readAll(dst []byte, r io.Reader, limit int) ([]byte, error) {
	for {
		if len(dst) > limit {
			return dst, ErrInflated
		}
		dst = slices.Grow(dst, 512)
		n, err := r.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		if err == io.EOF && len(dst) <= limit {
			return dst, nil
		}
		if err != nil && err != io.EOF {
			return dst, err
		}
	}
}

// xerialMagic begins the frames that Java clients make of Snappy blocks. Two versions follow, then the blocks, each behind
// its length. Other clients write a single block without any of it.
var xerialMagic = []byte("\x82SNAPPY\x00")

const xerialHeaderBytes = 16

func inflateSnappy(dst, src []byte, limit int) ([]byte, error) {
	if len(src) < xerialHeaderBytes || !bytes.HasPrefix(src, xerialMagic) {
		return inflateBlock(dst, src, limit)
	}
	for src = src[xerialHeaderBytes:]; len(src) > 0; {
		if len(src) < 4 || int64(binary.BigEndian.Uint32(src)) > int64(len(src)-4) {
			return dst, s2.ErrCorrupt
		}
		end := 4 + int(binary.BigEndian.Uint32(src))
		var err error
		if dst, err = inflateBlock(dst, src[4:end], limit); err != nil {
			return dst, err
		}
		src = src[end:]
	}
	return dst, nil
}

func inflateBlock(dst, block []byte, limit int) ([]byte, error) {
	n, err := s2.DecodedLen(block)
	if err != nil {
		return dst, err
	}
	if n > limit-len(dst) {
		return dst, ErrInflated
	}
	dst = slices.Grow(dst, n)
	_, err = s2.Decode(dst[len(dst):len(dst)+n], block)
	return dst[:len(dst)+n], err
}

// inflateZstd makes a decoder for each call: it is cheap next to its work, and the pool is not open to it because it holds
// a channel (see compressors).
func inflateZstd(dst, src []byte, limit int) ([]byte, error) {
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(uint64(limit)))
	if err != nil {
		return dst, err
	}
	defer r.Close()
	dst, err = r.DecodeAll(src, dst)
	if errors.Is(err, zstd.ErrDecoderSizeExceeded) || errors.Is(err, zstd.ErrWindowSizeExceeded) {
		err = ErrInflated
	}
	return dst, err
}
