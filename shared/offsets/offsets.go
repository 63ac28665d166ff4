package offsets

import (
	"context"
	"errors"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// A Cursor is what this package needs of one: lease.Cursor has fields of the same names.
type Cursor struct {
	Offset, Target int64  // the next source offset to look at, and the end of the target's log that belongs to it
	Mapped         bool   // the copy's offsets differ from the source's
	Map            string // the newest part of the map; "" while the copy has been dense since its beginning, or nobody kept a map
}

// A Reason is why a position is what it is.
type Reason string

// The reasons. The first three are exact.
const (
	Identical  Reason = "identical" // the copy has the source's offsets
	Translated Reason = "mapped"    // the map has it
	Before     Reason = "before"    // the copy begins later: at its first record
	Gap        Reason = "gap"       // what was there was left out by decision: at the first record behind it. Exact too
	Ahead      Reason = "ahead"     // it isn't copied yet: at the end of what is. Exact as soon as it is copied
	Unmapped   Reason = "unmapped"  // no map reaches there (MirrorMaker copied it): at the nearest record before it that is known
)

// A Position is where on the target somebody goes on who has come to an offset of the source: at the first record there that he
// hasn't seen, or before it, never behind it.
type Position struct {
	Target int64 // offset on the target
	Exact  bool  // nothing is read again. Where not, what is read again is the least that is safe
	Why    Reason
}

// A Map translates the positions of one flow. It is safe for concurrent use and holds the map as it is stored, see the package's
// sizes.
type Map struct {
	flow   spec.Flow
	target *kafka.Cluster
}

// Open returns a flow's map without asking the cluster for anything.
func Open(flow spec.Flow, target *kafka.Cluster) *Map { return &Map{flow: flow, target: target} }

// Refresh reads what is new on the map's topic since the last time, all of it at first. A topic that isn't there is an empty one. Get the
// cursors before that: a cursor's map is never older than the topic then. (Otherwise Translate may say Unmapped, but nothing wrong.)
func (m *Map) Refresh(ctx context.Context) error { return errors.ErrUnsupported }

// Translate says where on the target the offset u of a source partition is. cursor is the partition's. It asks no cluster.
func (m *Map) Translate(tp kafka.TopicPartition, cursor Cursor, u int64) Position {
	switch {
	case u > cursor.Offset:
		return Position{cursor.Target, false, Ahead}
	case cursor.Map == "" && !cursor.Mapped:
		return Position{u, true, Identical}
	}
	return Position{0, false, Unmapped}
}

// Sync is the pair from which MirrorMaker's own translation of u comes out as Translate's. There is none where no record below is
// known. It isn't always u's own: a marker has no copy, and MirrorMaker would take it for one.
func (m *Map) Sync(tp kafka.TopicPartition, cursor Cursor, u int64) (sync mm2.OffsetSync, ok bool) {
	return mm2.OffsetSync{}, false
}

// Size is how much the map holds of the topic, in chunks and in bytes.
func (m *Map) Size() (chunks int, bytes int64) { return 0, 0 }
