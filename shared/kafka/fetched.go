package kafka

import (
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

// A lot is the memory of one answer, of which several partitions hold pieces. It is free when all of them have let go.
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
