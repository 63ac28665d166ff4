package lease

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// CursorVersion is the format of cursors that this kferry writes, and the only one it reads.
const CursorVersion = 1

// ErrVersion is a cursor in a format of another kferry. It is held (ReasonFormat) and never overwritten.
var ErrVersion = errors.New("cursor in another format version")

// A Cursor says how far one partition is replicated. It pairs three numbers that belong together: a source offset, a target
// offset and a sequence. Any cursor that was ever true stays true, so an old one is never wrong, only far behind.
//
// On the wire it is the value MM2 keeps under the same key, with kferry's fields beside MM2's one. They are flat, because Connect
// drops a whole offset whose value holds an object or an array:
//
//	field                    unit
//	offset                   source offset  Offset-1: the last one looked at, where MM2 goes on behind; -1: none yet
//	kferry.version           1
//	kferry.target            target offset  Target
//	kferry.sequence          records        Sequence, 0 to 2³¹-1
//	kferry.epoch                            Epoch
//	kferry.sourceTopicId     base64url      SourceTopicID
//	kferry.targetTopicId     base64url      TargetTopicID
//	kferry.sourceLeaderEpoch                SourceEpoch; -1: unknown
//	kferry.timestamp         Unix ms        Timestamp; -1: nothing landed yet
//	kferry.isolation                        Isolation
//	kferry.exactlyOnce                      ExactlyOnce, absent when it is
//	kferry.mapped                           Mapped, absent when identical
//	kferry.map               base64         Map, absent when there is none
//	kferry.producer                         Producer, absent when computed
//	kferry.running                          Running, absent when not
//	kferry.foreign                          Foreign, absent when not; never on the offsets topic
//	kferry.hold                             Hold.Reason, absent when not held, like the next two
//	kferry.holdDetail                       Hold.Detail
//	kferry.holdSince         Unix ms        Hold.Since
//	kferry.decision                         Decision, absent when there is none, like the next one
//	kferry.decidedAt         Unix ms        DecidedAt
//
// A value without kferry.version is MM2's own (or of a tool that set MM2's offset): it decodes to a Foreign cursor.
type Cursor struct {
	Version int // 0 is written as CursorVersion
	// Offset is the next source offset to look at. Everything below has landed or is known to hold no record to copy:
	// control and aborted batches, holes, what lies before the start.
	Offset int64
	// Target is the end of the target's log that belongs to Offset and Sequence.
	Target int64
	// Sequence counts the records landed under this identity, modulo 2³¹: it is that of the next one.
	Sequence int32
	// Epoch is the generation: content is a function of the sequence within one. Its lower 15 bits are the producer epoch. When those
	// are used up, the next generation has another producer id, with epoch 0.
	Epoch int32
	// SourceTopicID and TargetTopicID notice topics that were created again.
	SourceTopicID, TargetTopicID string
	// SourceEpoch is the source's leader epoch at Offset-1, to notice a truncated log.
	SourceEpoch int32
	// Timestamp is that of the newest record landed, in Unix milliseconds.
	Timestamp int64
	// Isolation is the level under which this generation reads the source: with another one its content would be another.
	Isolation string
	// ExactlyOnce is empty where every record lands exactly once, else why not.
	ExactlyOnce string
	// Mapped is whether the copy's offsets differ from the source's.
	Mapped bool
	// Map is the newest part of the map from source offsets to target offsets, for package offsets to read. It stands here so that it
	// is always exactly as old as Offset and Target are.
	Map string
	// Producer is whose batches the copy's are, where the target does not take the computed producer id: one that it issued, in
	// decimal, or NoProducer.
	Producer string
	// Running means that a run is under way, or ended without knowing what had landed. It is kept for sources whose content is no
	// function of the sequence.
	Running bool
	// Foreign means that the last to write was not kferry. Only Offset is known then.
	Foreign bool
	Hold    Hold
	// Decision is how a person wants the partition to go on that Hold stops. The worker that carries it out starts the next generation,
	// which has neither.
	Decision Decision
	// DecidedAt is when the last decision came, also of one that could not be carried out.
	DecidedAt time.Time
}

// NoProducer stands for a target that keeps no producer ids.
const NoProducer = "none"

// A Hold stops a partition, with its reason.
type Hold struct {
	Reason Reason // "" is no hold
	Detail string
	Since  time.Time
}

// Placed says that Offset and Target belong together. They don't in a cursor that MM2 wrote, nor where somebody has decided how to go on
// from one, or from none, and no worker has yet.
func (c Cursor) Placed() bool { return !c.Foreign && (c.Decision == "" || c.TargetTopicID != "") }

// Held says whether the partition is stopped.
func (c Cursor) Held() bool { return c.Hold.Reason != "" }

// Newer says whether c is further than other: of a later generation, else with a position that somebody has set later (which may be on the
// offsets topic alone, beside an older count; what has landed since is found again), else of a greater sequence, else (control batches
// and holes have no sequence) of a greater source offset, else of a later decision: one that was written to the offsets topic alone counts.
func (c Cursor) Newer(other Cursor) bool {
	if c.Epoch != other.Epoch {
		return c.Epoch > other.Epoch
	}
	if later := c.DecidedAt.Compare(other.DecidedAt); later > 0 && c.set() || later < 0 && other.set() {
		return later > 0
	}
	if distance := SequenceDistance(other.Sequence, c.Sequence); distance != 0 {
		return distance > 0
	}
	if c.Offset != other.Offset {
		return c.Offset > other.Offset
	}
	return c.DecidedAt.After(other.DecidedAt)
}

// set says that somebody has set the position, and no worker has gone on there yet.
func (c Cursor) set() bool { return c.Hold.Reason == ReasonPositionSet && c.Decision != "" }

// SequenceDistance is how far it is from one sequence to another, negative for backward. Sequences are modulo 2³¹, so this tells
// distances below 2³⁰ apart.
func SequenceDistance(from, to int32) int32 {
	return int32(uint32(to-from)<<1) >> 1
}

// wireCursor is a Cursor's value; its order is that of the bytes.
type wireCursor struct {
	Offset        *int64   `json:"offset"`
	Version       int      `json:"kferry.version"`
	Target        int64    `json:"kferry.target"`
	Sequence      int32    `json:"kferry.sequence"`
	Epoch         int32    `json:"kferry.epoch"`
	SourceTopicID string   `json:"kferry.sourceTopicId"`
	TargetTopicID string   `json:"kferry.targetTopicId"`
	SourceEpoch   int32    `json:"kferry.sourceLeaderEpoch"`
	Timestamp     int64    `json:"kferry.timestamp"`
	Isolation     string   `json:"kferry.isolation"`
	ExactlyOnce   string   `json:"kferry.exactlyOnce,omitempty"`
	Mapped        bool     `json:"kferry.mapped,omitempty"`
	Map           string   `json:"kferry.map,omitempty"`
	Producer      string   `json:"kferry.producer,omitempty"`
	Running       bool     `json:"kferry.running,omitempty"`
	Foreign       bool     `json:"kferry.foreign,omitempty"`
	Hold          Reason   `json:"kferry.hold,omitempty"`
	HoldDetail    string   `json:"kferry.holdDetail,omitempty"`
	HoldSince     int64    `json:"kferry.holdSince,omitempty"`
	Decision      Decision `json:"kferry.decision,omitempty"`
	DecidedAt     int64    `json:"kferry.decidedAt,omitempty"`
}

func (c Cursor) encode() []byte {
	last := c.Offset - 1
	w := wireCursor{
		Offset: &last, Version: CursorVersion, Target: c.Target, Sequence: c.Sequence, Epoch: c.Epoch,
		SourceTopicID: c.SourceTopicID, TargetTopicID: c.TargetTopicID, SourceEpoch: c.SourceEpoch,
		Timestamp: c.Timestamp, Isolation: c.Isolation, ExactlyOnce: c.ExactlyOnce, Mapped: c.Mapped, Map: c.Map, Producer: c.Producer, Running: c.Running, Foreign: c.Foreign,
		Hold: c.Hold.Reason, HoldDetail: c.Hold.Detail, HoldSince: toMillis(c.Hold.Since), Decision: c.Decision, DecidedAt: toMillis(c.DecidedAt),
	}
	return encodeJSON(w)
}

// decodeCursor reads a value. With ErrVersion the cursor holds what people can be told: its version, and a hold.
func decodeCursor(value []byte) (Cursor, error) {
	var head struct {
		Version *int   `json:"kferry.version"`
		Offset  *int64 `json:"offset"`
	}
	if err := json.Unmarshal(value, &head); err != nil {
		return unreadable(0, fmt.Errorf("%w: %w", ErrVersion, err))
	}
	switch {
	case head.Version == nil && head.Offset == nil:
		return Cursor{Version: CursorVersion, Foreign: true}, nil // MM2 reads this as no offset, and so begins at the start
	case head.Version == nil:
		return Cursor{Version: CursorVersion, Foreign: true, Offset: max(0, *head.Offset+1)}, nil
	case *head.Version != CursorVersion:
		return unreadable(*head.Version, fmt.Errorf("%w: %d, and this kferry knows %d", ErrVersion, *head.Version, CursorVersion))
	case head.Offset == nil:
		return unreadable(*head.Version, fmt.Errorf("%w: it has no offset", ErrVersion))
	}
	var w wireCursor
	if err := json.Unmarshal(value, &w); err != nil {
		return unreadable(*head.Version, fmt.Errorf("%w: %w", ErrVersion, err))
	}
	return w.cursor(), nil
}

func (w wireCursor) cursor() Cursor {
	return Cursor{
		Version: w.Version, Offset: *w.Offset + 1, Target: w.Target, Sequence: w.Sequence, Epoch: w.Epoch,
		SourceTopicID: w.SourceTopicID, TargetTopicID: w.TargetTopicID, SourceEpoch: w.SourceEpoch,
		Timestamp: w.Timestamp, Isolation: w.Isolation, ExactlyOnce: w.ExactlyOnce, Mapped: w.Mapped, Map: w.Map, Producer: w.Producer, Running: w.Running, Foreign: w.Foreign,
		Hold: Hold{Reason: w.Hold, Detail: w.HoldDetail, Since: ofMillis(w.HoldSince)}, Decision: w.Decision, DecidedAt: ofMillis(w.DecidedAt),
	}
}

// toMillis is a time in Unix milliseconds, 0 for none.
func toMillis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func ofMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

func unreadable(version int, err error) (Cursor, error) {
	return Cursor{Version: version, Hold: Hold{Reason: ReasonFormat, Detail: err.Error()}}, err
}

// encodeJSON writes compact JSON with the text as it is: encoding/json by default escapes the > of "A->B".
func encodeJSON(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("lease: encode %T: %v", v, err)) // our own flat structs
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
