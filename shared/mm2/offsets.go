package mm2

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// Names of the connectors that own source offsets, and of the topics that hold them.
const (
	SourceConnector     = "MirrorSourceConnector" // in dedicated mode; Strimzi puts "<source>-><target>." in front
	CheckpointConnector = "MirrorCheckpointConnector"
	HeartbeatConnector  = "MirrorHeartbeatConnector"
	StrimziOffsetsTopic = "mirrormaker2-cluster-offsets" // where a resource doesn't name one
	StrimziConnectGroup = "mirrormaker2-cluster"         // likewise
	OffsetsPartitions   = 25                             // of an offsets topic that Connect creates
)

// OffsetsTopic is where dedicated mode keeps the offsets of flows from source.
func OffsetsTopic(source string) string { return "mm2-offsets." + source + ".internal" }

// ConnectGroup is the group of the workers of dedicated mode that run the flows from source.
func ConnectGroup(source string) string { return source + "-mm2" }

// SourceOffsetKey is the key under which Connect keeps how far a partition was copied:
//
//	["MirrorSourceConnector",{"cluster":"A","partition":0,"topic":"orders"}]
//
// The order of the members is that of a Java HashMap, and text is escaped as Jackson does it.
func SourceOffsetKey(connector, cluster, topic string, partition int32) []byte {
	key := make([]byte, 0, 64+len(connector)+len(cluster)+len(topic))
	key = appendString(append(key, '['), connector)
	key = appendString(append(key, `,{"cluster":`...), cluster)
	key = strconv.AppendInt(append(key, `,"partition":`...), int64(partition), 10)
	key = appendString(append(key, `,"topic":`...), topic)
	return append(key, "}]"...)
}

// appendString writes a JSON string like Jackson: quotes, backslashes and control characters escaped, with hexadecimal
// digits in capitals; all else as it is. (encoding/json escapes <, > and & by default, and Strimzi's connector names hold a >.)
func appendString(to []byte, s string) []byte {
	to = append(to, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			to = append(to, '\\', c)
		case c == '\b':
			to = append(to, `\b`...)
		case c == '\t':
			to = append(to, `\t`...)
		case c == '\n':
			to = append(to, `\n`...)
		case c == '\f':
			to = append(to, `\f`...)
		case c == '\r':
			to = append(to, `\r`...)
		case c < ' ':
			to = fmt.Appendf(to, `\u%04X`, c)
		default:
			to = append(to, c)
		}
	}
	return append(to, '"')
}

// ParseSourceOffsetKey reads such a key, with its members in any order; false for every other key that an offsets topic holds
// (checkpoints, heartbeats, other connectors' and kferry's own).
func ParseSourceOffsetKey(key []byte) (connector, cluster, topic string, partition int32, ok bool) {
	var parts []json.RawMessage
	if json.Unmarshal(key, &parts) != nil || len(parts) != 2 {
		return "", "", "", 0, false
	}
	var name *string
	var members struct {
		Cluster, Topic *string
		Partition      *int32
	}
	if json.Unmarshal(parts[0], &name) != nil || json.Unmarshal(parts[1], &members) != nil {
		return "", "", "", 0, false
	}
	if name == nil || members.Cluster == nil || members.Topic == nil || members.Partition == nil || *members.Partition < 0 {
		return "", "", "", 0, false
	}
	return *name, *members.Cluster, *members.Topic, *members.Partition, true
}

// OffsetsPartition is the partition of an offsets topic where a key belongs: that of Java's default partitioner. Elsewhere
// compaction would leave an older twin, and readers take the two in no defined order.
func OffsetsPartition(key []byte, partitions int32) int32 {
	return int32(murmur2(key)&math.MaxInt32) % partitions
}

// murmur2 as in Kafka's Java client.
func murmur2(data []byte) uint32 {
	const (
		seed = 0x9747b28c
		m    = 0x5bd1e995
		r    = 24
	)
	h := uint32(seed) ^ uint32(len(data))
	for ; len(data) >= 4; data = data[4:] {
		k := uint32(data[0]) | uint32(data[1])<<8 | uint32(data[2])<<16 | uint32(data[3])<<24
		k *= m
		k ^= k >> r
		h = h*m ^ k*m
	}
	switch len(data) {
	case 3:
		h ^= uint32(data[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(data[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(data[0])) * m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}
