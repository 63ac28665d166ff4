package batch

import (
	"crypto/sha256"
	"encoding/binary"
	"strconv"
)

// identityTag is the top byte of every producer id of ours. Brokers issue theirs from 0 upwards, so the two never meet.
const identityTag = 0x6B

// Identity is whom the target takes for the producer of a batch.
type Identity struct {
	ProducerID int64
	Epoch      int16
}

// ProducerID is that of one source partition on one target topic, which nobody has to issue or store: a hash of both clusters' names for
// them. series counts those whose epochs are used up.
func ProducerID(sourceCluster, sourceTopic string, partition int32, targetTopic string, series int32) int64 {
	parts := []string{sourceCluster, sourceTopic, strconv.Itoa(int(partition)), targetTopic}
	if series > 0 {
		parts = append(parts, strconv.Itoa(int(series)))
	}
	h := sha256.New()
	for _, part := range parts {
		binary.Write(h, binary.BigEndian, uint32(len(part)))
		h.Write([]byte(part))
	}
	return int64(binary.BigEndian.Uint64(h.Sum(nil))>>8 | identityTag<<56)
}

// Computed says whether a producer id is one of ProducerID's.
func Computed(id int64) bool { return id>>56 == identityTag }
