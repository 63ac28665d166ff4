package kafka

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A Record is one record, decoded. Nil keys and values are null, others may be empty.
type Record struct {
	Partition         int32
	Key, Value        []byte
	Headers           []Header
	Offset, Timestamp int64 // in milliseconds
	// LogAppendTime says that the broker set the timestamp when it appended the record. Write has no use for it.
	LogAppendTime bool
}

// A Header is one of a record's headers. A nil value is null.
type Header struct {
	Key   string
	Value []byte
}

// A Reader reads the records of a range of offsets in order, decoded by franz-go, and holds one answer of the broker and one
// batch's records at a time. What belongs to aborted transactions is left out where the isolation is committed.
type Reader struct {
	c        *Cluster
	tp       TopicPartition
	next     int64 // offset to go on from
	end      int64
	iso      Isolation
	maxBytes int32

	batches []byte // what is left of the last answer
	aborted []Aborted
	asked   int64 // the offset that the last answer was for
	bytes   int64
}

// NewReader reads from an offset up to, and without, an end, which must not lie above the log's. It asks for maxBytes at a time.
func (c *Cluster) NewReader(tp TopicPartition, from, end int64, iso Isolation, maxBytes int32) *Reader {
	return &Reader{c: c, tp: tp, next: from, end: end, iso: iso, maxBytes: maxBytes, asked: -1}
}

// Next returns the records of the next batch that has any, which are good until the next call, or io.EOF at the end. With
// ErrOffsetOutOfRange the offset is no longer in the log: SkipTo another one.
func (r *Reader) Next(ctx context.Context) ([]Record, error) {
	for r.next < r.end {
		b, err := r.batch(ctx)
		if err != nil {
			return nil, err
		}
		records, err := r.decode(b)
		if err != nil {
			return nil, fmt.Errorf("read %s at offset %d: %w", r.tp, r.next, err)
		}
		r.next = max(r.next, nextOffset(b))
		if len(records) > 0 {
			return records, nil
		}
	}
	r.batches = nil
	return nil, io.EOF
}

// Offset is where the next batch is looked for. What lies below has been read, or holds no record.
func (r *Reader) Offset() int64 { return r.next }

// Bytes is how much the broker has sent.
func (r *Reader) Bytes() int64 { return r.bytes }

// SkipTo goes on from a later offset.
func (r *Reader) SkipTo(offset int64) {
	r.next, r.batches, r.asked = max(r.next, offset), nil, -1
}

// The fields of a batch that tell how to walk, at the places they have in every format that has them.
const (
	batchLengthAt     = 8
	batchPrefix       = 12 // bytes that the length doesn't count
	batchMagicAt      = 16
	batchAttributesAt = 21
	batchLastDeltaAt  = 23
	batchProducerAt   = 43
	batchHeader       = 61
	leastMessage      = 26 // of magic 0, without key and value
	controlBit        = 1 << 5
)

// batch takes one whole batch off the answer, or asks for the next answer.
func (r *Reader) batch(ctx context.Context) ([]byte, error) {
	for {
		if b := wholeBatch(r.batches); b != nil {
			r.batches = r.batches[len(b):]
			return b, nil
		}
		if r.asked == r.next {
			return nil, fmt.Errorf("read %s: no records from offset %d on, though the log ends at %d: %w", r.tp, r.next, r.end, ErrUnanswered)
		}
		fetched, err := r.c.Read(ctx, r.tp, r.next, r.maxBytes, r.iso)
		if err != nil {
			return nil, err
		}
		r.asked, r.batches, r.aborted = r.next, fetched.Records, fetched.Aborted
		r.bytes += int64(len(fetched.Records))
		// The budget bounds answers under way. A reader keeps its one answer on its own account: it may wait for whoever takes
		// the records, and he for another reader.
		fetched.Release()
	}
}

// wholeBatch is the first one, or nil where it was cut off.
func wholeBatch(batches []byte) []byte {
	if len(batches) < batchPrefix {
		return nil
	}
	length := batchPrefix + int64(int32(binary.BigEndian.Uint32(batches[batchLengthAt:])))
	if length < leastMessage || length > int64(len(batches)) {
		return nil
	}
	return batches[:length]
}

func nextOffset(b []byte) int64 {
	base := int64(binary.BigEndian.Uint64(b))
	if b[batchMagicAt] < 2 || len(b) < batchHeader {
		return base + 1 // a set of messages goes by the offset of its last
	}
	return base + int64(int32(binary.BigEndian.Uint32(b[batchLastDeltaAt:]))) + 1
}

// decode has franz-go unpack one batch.
func (r *Reader) decode(b []byte) ([]Record, error) {
	partition := kmsg.NewFetchResponseTopicPartition()
	partition.Partition, partition.RecordBatches = r.tp.Partition, b
	opts := kgo.ProcessFetchPartitionOpts{Offset: r.next, IsolationLevel: kgo.ReadUncommitted(), Topic: r.tp.Topic, Partition: r.tp.Partition}
	if len(r.aborted) > 0 {
		opts.IsolationLevel = kgo.ReadCommitted()
		for _, a := range r.aborted {
			aborted := kmsg.NewFetchResponseTopicPartitionAbortedTransaction()
			aborted.ProducerID, aborted.FirstOffset = a.ProducerID, a.FirstOffset
			partition.AbortedTransactions = append(partition.AbortedTransactions, aborted)
		}
	}
	decoded, _ := kgo.ProcessFetchPartition(opts, &partition, decompressor(), nil)
	if decoded.Err != nil {
		return nil, decoded.Err
	}
	r.forget(b)
	records := make([]Record, 0, len(decoded.Records))
	for _, d := range decoded.Records {
		if d.Offset >= r.end {
			break
		}
		record := Record{
			Partition: d.Partition, Key: d.Key, Value: d.Value, Offset: d.Offset,
			Timestamp: d.Timestamp.UnixMilli(), LogAppendTime: d.Attrs.TimestampType() == 1,
		}
		for _, h := range d.Headers {
			record.Headers = append(record.Headers, Header(h))
		}
		records = append(records, record)
	}
	return records, nil
}

// forget ends the aborted transaction that a marker ends: what the producer writes behind it is another one.
func (r *Reader) forget(b []byte) {
	if len(r.aborted) == 0 || b[batchMagicAt] < 2 || len(b) < batchHeader || binary.BigEndian.Uint16(b[batchAttributesAt:])&controlBit == 0 {
		return
	}
	base, producer := int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint64(b[batchProducerAt:]))
	r.aborted = slices.DeleteFunc(r.aborted, func(a Aborted) bool { return a.ProducerID == producer && a.FirstOffset < base })
}

var decompressor = sync.OnceValue(func() kgo.Decompressor { return kgo.DefaultDecompressor() })
