package kafka

import (
	"bytes"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Fetched is what a broker sent of a partition.
type Fetched struct {
	// Records are whole batches, and perhaps part of one more. They begin with the batch that holds the wanted offset, or the
	// next one after it, so there may be records before that offset. The bytes are the holder's to change until Release.
	Records       []byte
	HighWatermark int64
	LastStable    int64 // offset of the first record of a transaction that is open, or the high watermark
	LogStart      int64
	Aborted       []Aborted // transactions of which Records holds a part; only where the isolation is committed

	release func()
}

// Aborted is a transaction that came to nothing: the records of the producer from that offset to its next abort marker.
type Aborted struct{ ProducerID, FirstOffset int64 }

// Release gives the bytes back to the budget. It may be called again, and on nil.
func (f *Fetched) Release() {
	if f != nil && f.release != nil {
		f.release()
		f.Records = nil
	}
}

// A lot is memory that several partitions hold pieces of. It is free when all of them have let go.
type lot struct {
	pool   *pool
	bytes  int64
	pieces atomic.Int32
}

func newLot(p *pool, bytes int64, pieces int32) *lot {
	l := &lot{pool: p, bytes: bytes}
	l.pieces.Store(pieces)
	return l
}

func (l *lot) release() {
	if l.pieces.Add(-1) == 0 {
		l.pool.release(l.bytes)
	}
}

const (
	// largeAnswer is the size from which small pieces are copied out of an answer …
	largeAnswer = 256 << 10
	// smallPart … and a piece is small below an eighth of the whole.
	smallPart = 8
)

// divide charges a pool with an answer's records, in the place of what was granted for them, and returns the lot that each
// partition holds a piece of. Small pieces of a large answer get memory of their own: a partition that is slow to produce its
// few bytes is not to keep those of all its neighbours from the next answer.
func divide(p *pool, answers map[TopicPartition]*kmsg.FetchResponseTopicPartition, granted int64) map[TopicPartition]*lot {
	whole := size(answers)
	shared, charged := newLot(p, whole, 0), int64(0)
	lots := make(map[TopicPartition]*lot, len(answers))
	for tp, a := range answers {
		switch n := int64(len(a.RecordBatches)); {
		case n == 0:
		case whole > largeAnswer && n*smallPart < whole:
			a.RecordBatches = bytes.Clone(a.RecordBatches)
			lots[tp] = newLot(p, n, 1)
			charged += n
		default:
			lots[tp] = shared
			shared.pieces.Add(1)
		}
	}
	if shared.pieces.Load() > 0 { // else nobody holds on to the answer itself
		charged += whole
	}
	p.settle(granted, charged)
	return lots
}

// size is that of an answer's records.
func size(answers map[TopicPartition]*kmsg.FetchResponseTopicPartition) (bytes int64) {
	for _, a := range answers {
		bytes += int64(len(a.RecordBatches))
	}
	return bytes
}

func newFetched(p *kmsg.FetchResponseTopicPartition, l *lot) *Fetched {
	fetched := &Fetched{
		Records:       p.RecordBatches,
		HighWatermark: p.HighWatermark,
		LastStable:    p.LastStableOffset,
		LogStart:      p.LogStartOffset,
	}
	for _, a := range p.AbortedTransactions {
		fetched.Aborted = append(fetched.Aborted, Aborted{a.ProducerID, a.FirstOffset})
	}
	if len(p.RecordBatches) > 0 {
		fetched.release = sync.OnceFunc(l.release)
	}
	return fetched
}
