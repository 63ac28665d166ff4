// Package batch knows Kafka's record batches as bytes: it cuts them off a fetch response, verifies them, turns them into
// a producer's own in place, and, where a broker would refuse one as it is, writes its records into new ones. What brokers
// before Kafka 0.11 wrote, it reads as batches too (message.go).
//
// A batch of magic 2, big-endian:
//
//	 0  int64  base offset
//	 8  int32  length of all that follows
//	12  int32  leader epoch
//	16  int8   magic, 2
//	17  uint32 CRC-32C of all that follows
//	21  int16  attributes: 0x07 codec, 0x08 log append time, 0x10 transactional, 0x20 control, 0x40 delete horizon
//	23  int32  last offset delta; compaction keeps it, so it may exceed the records' own
//	27  int64  base timestamp, or the delete horizon; either way the records' deltas count from it
//	35  int64  max timestamp; with log append time, every record's
//	43  int64  producer id
//	51  int16  producer epoch
//	53  int32  base sequence
//	57  int32  number of records
//	61         records, all of them compressed as one
//
// A record, whose numbers are zigzag varints:
//
//	length of what follows, attributes (one byte), timestamp delta, offset delta,
//	length and bytes of the key, of the value (-1: null), number of headers, length and bytes of each one's key and value
//
// Invariants:
//   - A Batch that Next, Of or an Encoder returned is whole, its CRC right and its counts plausible. Whoever only peeks at
//     one, or makes one from other bytes, has a header and no more.
//   - No input makes the package panic, or use memory beyond a few times the limit on decompressed size.
//   - The records that come out, and their order, are a function of those that went in.
//   - What an Encoder returns owns its memory. What Next returns is a view, unless it is of an old format.
//
// # Non-obvious
//
//   - A batch with log append time hides the create times that its producer gave. Where the bit is cleared they come back, on a target
//     that keeps times; on one that stamps they don't matter, and the batch passes.
//   - With a delete horizon the base timestamp is no record's time, and may lie in the future. The deltas count from it all the same.
//   - Compaction leaves empty batches, as the last trace of a producer, and keeps the last offset delta of those it thins out.
//   - Merging may make records longer: their deltas grow. What is merged leaves room below the target's limit.
//   - LZ4 frames of magic 0 have a wrong header checksum (KAFKA-3160), and the offsets inside its wrappers are absolute.
package batch

import (
	"encoding/binary"
	"hash/crc32"
)

// HeaderBytes is the size of a batch without records.
const HeaderBytes = 61

const (
	atLength      = 8
	atLeaderEpoch = 12
	atMagic       = 16
	atCRC         = 17
	atAttributes  = 21
	atLastDelta   = 23
	atBaseTime    = 27
	atMaxTime     = 35
	atProducerID  = 43
	atEpoch       = 51
	atSequence    = 53
	atCount       = 57

	// prefixBytes come before what the length field counts.
	prefixBytes = 12
)

const (
	codecBits        = 0x07
	appendTimeBit    = 0x08
	transactionalBit = 0x10
	controlBit       = 0x20
	deleteHorizonBit = 0x40

	// oldFormatBit is this package's alone: Next sets it on what it has made of messages, Patch clears it.
	oldFormatBit = 0x4000
)

// What a batch says that has no producer, sequence or leader yet.
const (
	noProducer   = -1
	noSequence   = -1
	unknownEpoch = -1
)

// A control record's key is a version and a kind.
const (
	controlKeyVersion = 0
	controlAbort      = 0
	controlCommit     = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Batch is one record batch of magic 2, header included. Its methods read the header in place.
type Batch []byte

func (b Batch) BaseOffset() int64      { return b.int64(0) }
func (b Batch) LastOffset() int64      { return b.BaseOffset() + int64(b.LastOffsetDelta()) }
func (b Batch) NextOffset() int64      { return b.LastOffset() + 1 }
func (b Batch) LeaderEpoch() int32     { return b.int32(atLeaderEpoch) }
func (b Batch) Attributes() int16      { return b.int16(atAttributes) }
func (b Batch) LastOffsetDelta() int32 { return b.int32(atLastDelta) }
func (b Batch) BaseTimestamp() int64   { return b.int64(atBaseTime) }
func (b Batch) MaxTimestamp() int64    { return b.int64(atMaxTime) }
func (b Batch) ProducerID() int64      { return b.int64(atProducerID) }
func (b Batch) ProducerEpoch() int16   { return b.int16(atEpoch) }
func (b Batch) BaseSequence() int32    { return b.int32(atSequence) }

// Records counts the records by the header: 0 where compaction emptied the batch.
func (b Batch) Records() int32 { return b.int32(atCount) }

// Codec says how the records are compressed.
func (b Batch) Codec() Codec { return Codec(b.Attributes() & codecBits) }

// LogAppendTime says that every record's timestamp is MaxTimestamp, the time the broker wrote it.
func (b Batch) LogAppendTime() bool { return b.Attributes()&appendTimeBit != 0 }

// Transactional says that the batch counts only once its producer's transaction has committed.
func (b Batch) Transactional() bool { return b.Attributes()&transactionalBit != 0 }

// Control says that the batch holds a marker of the broker's, not records of a producer's.
func (b Batch) Control() bool { return b.Attributes()&controlBit != 0 }

// DeleteHorizon says that the log cleaner used the base timestamp to note when tombstones may go. The records' timestamp
// deltas count from that time, so they stay right when the bit is cleared.
func (b Batch) DeleteHorizon() bool { return b.Attributes()&deleteHorizonBit != 0 }

// OldFormat says that the batch was messages of magic 0 or 1, which Next has written anew. It owns its memory.
func (b Batch) OldFormat() bool { return b.Attributes()&oldFormatBit != 0 }

// Dense says that no record is missing between the first offset and the last.
func (b Batch) Dense() bool { return int64(b.Records()) == int64(b.LastOffsetDelta())+1 }

// Abort says whether a control batch ends a transaction by aborting it rather than committing it. It is not ok if b is
// neither, as when it tells of a leader's election.
func (b Batch) Abort() (abort, ok bool) {
	if !b.Control() || b.Codec() != None {
		return false, false
	}
	r, _, ok := cutRecord(b[min(HeaderBytes, len(b)):])
	if !ok {
		return false, false
	}
	key, _, ok := cutBytes(r.rest)
	if !ok || len(key) < 4 || binary.BigEndian.Uint16(key) != controlKeyVersion {
		return false, false
	}
	kind := binary.BigEndian.Uint16(key[2:])
	return kind == controlAbort, kind == controlAbort || kind == controlCommit
}

// Patch makes b one of the identity's batches, in place and ready to be produced: base offset 0, no leader epoch, and no
// attribute but the codec. The target's broker would refuse some of the others (transactional, control, and the timestamp type,
// which is its own to set) and misread the rest (delete horizon).
func (b Batch) Patch(id Identity, sequence int32) {
	b.putInt64(0, 0)
	b.putInt32(atLeaderEpoch, unknownEpoch)
	b.putInt16(atAttributes, b.Attributes()&codecBits)
	b.putInt64(atProducerID, id.ProducerID)
	b.putInt16(atEpoch, id.Epoch)
	b.putInt32(atSequence, sequence)
	b.seal()
}

// seal writes the CRC, which covers all that follows it. The fields before it (offset, length, leader epoch) are free.
func (b Batch) seal() { b.putInt32(atCRC, int32(b.checksum())) }

func (b Batch) checksum() uint32 { return crc32.Checksum(b[atAttributes:], castagnoli) }

func (b Batch) int64(at int) int64 { return int64(binary.BigEndian.Uint64(b[at:])) }
func (b Batch) int32(at int) int32 { return int32(binary.BigEndian.Uint32(b[at:])) }
func (b Batch) int16(at int) int16 { return int16(binary.BigEndian.Uint16(b[at:])) }

func (b Batch) putInt64(at int, v int64) { binary.BigEndian.PutUint64(b[at:], uint64(v)) }
func (b Batch) putInt32(at int, v int32) { binary.BigEndian.PutUint32(b[at:], uint32(v)) }
func (b Batch) putInt16(at int, v int16) { binary.BigEndian.PutUint16(b[at:], uint16(v)) }
