package mm2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// The records that MirrorMaker keeps beside the data. All integers are big-endian, and text is its length in two bytes and
// UTF-8. Readers can't stand a tombstone in either of the two topics of positions, so none is ever written there.

// HeartbeatsTopic is where heartbeats arrive, whatever the policy and its separator are.
const HeartbeatsTopic = heartbeats

// OffsetSyncsTopic holds the offset-syncs. alias is the other cluster's: the target's where the topic is on the source.
// separator is the policy's, or a dot where replication.policy.internal.topic.separator.enabled is false (KIP-949).
func OffsetSyncsTopic(separator, alias string) string {
	return "mm2-offset-syncs" + separator + alias + separator + "internal"
}

// CheckpointsTopic holds, on the target, the checkpoints of a source's groups.
func CheckpointsTopic(separator, source string) string {
	return source + separator + "checkpoints" + separator + "internal"
}

// ErrRecord is a record that is none of MirrorMaker's, or of a version that this kferry doesn't know.
var ErrRecord = errors.New("not a record of MirrorMaker 2")

// recordVersion is that of checkpoints and heartbeats; offset-syncs have none.
const recordVersion = 0

// An OffsetSync says that the record at Upstream in a partition of the source lives at Downstream in its copy.
type OffsetSync struct {
	Topic                string // on the source
	Partition            int32
	Upstream, Downstream int64
}

// Key is the record's key.
func (s OffsetSync) Key() []byte { return appendInt32(appendText(nil, s.Topic), s.Partition) }

// Value is the record's value.
func (s OffsetSync) Value() []byte { return appendInt64(appendInt64(nil, s.Upstream), s.Downstream) }

// ParseOffsetSync reads a record of the offset-syncs topic.
func ParseOffsetSync(key, value []byte) (s OffsetSync, err error) {
	k, v := reader{data: key}, reader{data: value}
	s = OffsetSync{Topic: k.text(), Partition: k.int32(), Upstream: v.int64(), Downstream: v.int64()}
	return s, errors.Join(k.end("key of an offset-sync"), v.end("value of an offset-sync"))
}

// A Checkpoint says where a group that has committed Upstream on the source goes on in the copy.
type Checkpoint struct {
	Group                string
	Topic                string // on the target
	Partition            int32
	Upstream, Downstream int64
	Metadata             string // that the group committed
}

// Key is the record's key.
func (c Checkpoint) Key() []byte {
	return appendInt32(appendText(appendText(nil, c.Group), c.Topic), c.Partition)
}

// Value is the record's value.
func (c Checkpoint) Value() []byte {
	value := binary.BigEndian.AppendUint16(nil, recordVersion)
	return appendText(appendInt64(appendInt64(value, c.Upstream), c.Downstream), c.Metadata)
}

// ParseCheckpoint reads a record of a checkpoints topic.
func ParseCheckpoint(key, value []byte) (c Checkpoint, err error) {
	k, v := reader{data: key}, reader{data: value}
	c.Group, c.Topic, c.Partition = k.text(), k.text(), k.int32()
	v.version()
	c.Upstream, c.Downstream, c.Metadata = v.int64(), v.int64(), v.text()
	return c, errors.Join(k.end("key of a checkpoint"), v.end("value of a checkpoint"))
}

// A Heartbeat shows that something writes from one cluster to another.
type Heartbeat struct {
	Source, Target string // aliases
	Timestamp      int64  // Unix milliseconds
}

// Key is the record's key.
func (h Heartbeat) Key() []byte { return appendText(appendText(nil, h.Source), h.Target) }

// Value is the record's value.
func (h Heartbeat) Value() []byte {
	return appendInt64(binary.BigEndian.AppendUint16(nil, recordVersion), h.Timestamp)
}

// ParseHeartbeat reads a record of a heartbeats topic.
func ParseHeartbeat(key, value []byte) (h Heartbeat, err error) {
	k, v := reader{data: key}, reader{data: value}
	h.Source, h.Target = k.text(), k.text()
	v.version()
	h.Timestamp = v.int64()
	return h, errors.Join(k.end("key of a heartbeat"), v.end("value of a heartbeat"))
}

// appendText writes text as Kafka's STRING. Nothing that Kafka names is longer than its length can say; what people may have
// written into a commit's metadata is cut there.
func appendText(to []byte, s string) []byte {
	s = s[:min(len(s), math.MaxInt16)]
	return append(binary.BigEndian.AppendUint16(to, uint16(len(s))), s...)
}

func appendInt32(to []byte, n int32) []byte { return binary.BigEndian.AppendUint32(to, uint32(n)) }

func appendInt64(to []byte, n int64) []byte { return binary.BigEndian.AppendUint64(to, uint64(n)) }

// A reader takes fields off the front of some bytes. What is missing is zero, and end says so.
type reader struct {
	data  []byte
	wrong string
}

func (r *reader) take(n int) []byte {
	if n > len(r.data) {
		r.data, r.wrong = nil, "it is too short"
		return make([]byte, 8)
	}
	taken := r.data[:n]
	r.data = r.data[n:]
	return taken
}

func (r *reader) int32() int32 { return int32(binary.BigEndian.Uint32(r.take(4))) }

func (r *reader) int64() int64 { return int64(binary.BigEndian.Uint64(r.take(8))) }

func (r *reader) text() string {
	n := int16(binary.BigEndian.Uint16(r.take(2)))
	if n < 0 {
		r.data, r.wrong = nil, "it holds no text where it has to"
		return ""
	}
	if int(n) > len(r.data) {
		r.take(int(n))
		return ""
	}
	return string(r.take(int(n)))
}

func (r *reader) version() {
	if v := binary.BigEndian.Uint16(r.take(2)); v != recordVersion && r.wrong == "" {
		r.wrong = fmt.Sprintf("its version is %d", v)
	}
}

func (r *reader) end(what string) error {
	switch {
	case r.wrong != "":
		return fmt.Errorf("%w: %s: %s", ErrRecord, what, r.wrong)
	case len(r.data) > 0:
		return fmt.Errorf("%w: %s: %d bytes too many", ErrRecord, what, len(r.data))
	}
	return nil
}
