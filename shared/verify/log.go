package verify

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/spec"
)

const (
	readBytes    = 1 << 20 // of one answer
	chunkEntries = 1024    // that are handed on at a time
	chunks       = 2       // that may wait to be compared
)

// A log is one side of a partition, between two offsets.
type log struct {
	cluster   *kafka.Cluster
	tp        kafka.TopicPartition
	isolation spec.Isolation
	lacking   bool // there is no such partition

	start, from, end int64   // where the log began, and what of it is compared
	before           Absence // of records below from
	err              error   // why it can't be read
}

func (l *log) bound(start, end kafka.Offset) {
	l.err = errors.Join(start.Err, end.Err)
	l.start, l.from, l.end = start.Offset, start.Offset, max(start.Offset, end.Offset)
	if l.start > 0 {
		l.before = Expired
	}
}

// since begins later: -1 is an offset above all.
func (l *log) since(at kafka.Offset) {
	l.err = errors.Join(l.err, at.Err)
	if at.Offset < 0 {
		at.Offset = l.end
	}
	if at.Offset > l.from {
		l.from, l.before = min(at.Offset, l.end), Present
	}
}

func (l *log) span() int64 { return l.end - l.from }

// A chunk is some entries of a log, or its end.
type chunk struct {
	entries    []Entry
	appendTime bool // a broker set the timestamp of one of them
	ended      bool
	before     Absence // of what would follow the end
}

// A stream reads a log from start to end.
type stream struct {
	*log
	reader   *kafka.Reader
	limit    func(ctx context.Context, bytes int64) error
	progress *Progress
	buffer   []byte // of digests
	before   Absence
	spare    chan []Entry // chunks that were used up
}

func (p *partition) stream(l *log) *stream {
	return &stream{
		log: l, reader: l.cluster.NewReader(l.tp, l.from, l.end, l.isolation, readBytes),
		limit: p.wait, progress: p.Progress, before: l.before, spare: make(chan []Entry, chunks+2),
	}
}

// run hands chunks on until the log's end.
func (s *stream) run(ctx context.Context, to chan<- chunk) error {
	defer close(to)
	for {
		c, err := s.chunk(ctx)
		if err != nil {
			return err
		}
		select {
		case to <- c:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if c.ended {
			return nil
		}
	}
}

// chunk gathers entries, until there are enough or the log has ended.
func (s *stream) chunk(ctx context.Context) (c chunk, err error) {
	select {
	case c.entries = <-s.spare:
	default:
	}
	for c.entries = c.entries[:0]; len(c.entries) < chunkEntries; {
		records, err := s.next(ctx)
		if err == io.EOF {
			c.ended, c.before = true, s.before
			return c, nil
		}
		if err != nil {
			return c, err
		}
		for _, r := range records {
			e := Entry{Offset: r.Offset, Timestamp: r.Timestamp, Key: keyOf(r), Tombstone: r.Value == nil, Before: s.before}
			e.Content, s.buffer = digest(r, s.buffer)
			s.before = Present
			c.appendTime = c.appendTime || r.LogAppendTime
			c.entries = append(c.entries, e)
		}
	}
	return c, nil
}

// next reads a batch. Where retention is faster, it goes on from what is left.
func (s *stream) next(ctx context.Context) ([]kafka.Record, error) {
	for {
		offset, bytes := s.reader.Offset(), s.reader.Bytes()
		records, err := s.reader.Next(ctx)
		if err := s.limit(ctx, s.reader.Bytes()-bytes); err != nil {
			return nil, err
		}
		if errors.Is(err, kafka.ErrOffsetOutOfRange) {
			err = s.skip(ctx, err)
			s.progress.Done.Add(min(s.reader.Offset(), s.end) - offset)
			if err != nil {
				return nil, err
			}
			continue
		}
		s.progress.Done.Add(min(s.reader.Offset(), s.end) - offset)
		return records, err
	}
}

// skip finds the place to go on after an offset that is no longer there. Each time it is a later one.
func (s *stream) skip(ctx context.Context, why error) error {
	start, err := s.cluster.LogStart(ctx, s.tp)
	if err != nil {
		return err
	}
	if start.Offset <= s.reader.Offset() {
		return fmt.Errorf("the log was cut off while it was read: %w", why)
	}
	s.reader.SkipTo(start.Offset)
	s.before = Expired
	return nil
}

// done gives a chunk's memory back.
func (s *stream) done(c chunk) {
	select {
	case s.spare <- c.entries:
	default:
	}
}

var keySeed = maphash.MakeSeed()

// keyOf tells keys apart within this process.
func keyOf(r kafka.Record) uint64 {
	if r.Key == nil {
		return 0
	}
	return max(1, maphash.Bytes(keySeed, r.Key))
}

// digest is that of key, value and headers, each with its length in front, so that nothing can slip from one into another. It uses
// buffer, and returns it for the next one.
func digest(r kafka.Record, buffer []byte) (Digest, []byte) {
	b := appendBytes(appendBytes(buffer[:0], r.Key), r.Value)
	for _, h := range r.Headers {
		b = appendBytes(append(binary.AppendVarint(b, int64(len(h.Key))), h.Key...), h.Value)
	}
	sum := sha256.Sum256(b)
	return Digest{binary.BigEndian.Uint64(sum[:]), binary.BigEndian.Uint64(sum[8:])}, b
}

// appendBytes writes null as a length of -1, as Kafka does.
func appendBytes(to, bytes []byte) []byte {
	if bytes == nil {
		return binary.AppendVarint(to, -1)
	}
	return append(binary.AppendVarint(to, int64(len(bytes))), bytes...)
}
