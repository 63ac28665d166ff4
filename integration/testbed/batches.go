package testbed

import (
	"context"
	bin "encoding/binary" // since binary is kferry here
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A Batch is one as it lies in a partition's log, which a consumer never sees.
type Batch struct {
	Base, Last int64 // offsets
	Bytes      int
	Codec      kgo.CompressionCodecType
	AppendTime bool // the broker's time stands for every record's
	Control    bool
	Records    int
	Payload    string // the compressed records; only a broker that recompresses, or a copier that unpacks, changes them
}

// Holes is how many offsets between the batch's own have no record.
func (b Batch) Holes() int { return int(b.Last-b.Base) + 1 - b.Records }

// Batches reads the log of one partition as it lies on the leader's disk, from the start to the high watermark.
func Batches(t T, c *Cluster, topic string, partition int32) []Batch {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readWithin)
	defer cancel()
	var all []Batch
	err := poll(ctx, leaderWithin, func() (err error) {
		all, err = c.batches(ctx, topic, partition)
		return err
	})
	if err != nil {
		t.Fatalf("batches of %s-%d: %v", topic, partition, err)
	}
	return all
}

func (c *Cluster) batches(ctx context.Context, topic string, partition int32) (all []Batch, err error) {
	details := c.Topics(topic)[topic]
	client := c.Client(kgo.BrokerMaxReadBytes(64 << 20))
	defer client.Close()
	leader := client.Broker(int(details.Partitions[partition].Leader))
	starts := kmsg.NewPtrListOffsetsRequest()
	starts.ReplicaID = -1
	listed := kmsg.NewListOffsetsRequestTopic()
	listed.Topic = topic
	at := kmsg.NewListOffsetsRequestTopicPartition()
	at.Partition, at.Timestamp = partition, -2
	listed.Partitions = append(listed.Partitions, at)
	starts.Topics = append(starts.Topics, listed)
	answer, err := starts.RequestWith(ctx, leader)
	if err != nil {
		return nil, err
	}
	for offset := answer.Topics[0].Partitions[0].Offset; ; {
		raw, end, err := fetchRaw(ctx, leader, details.ID, topic, partition, offset)
		if err != nil {
			return nil, err
		}
		if offset >= end {
			return all, nil
		}
		batches := cut(raw)
		if len(batches) == 0 {
			return nil, fmt.Errorf("nothing at offset %d, though the log ends at %d", offset, end)
		}
		all = append(all, batches...)
		offset = batches[len(batches)-1].Last + 1
	}
}

func fetchRaw(ctx context.Context, leader *kgo.Broker, id [16]byte, topic string, partition int32, offset int64) (raw []byte, end int64, err error) {
	const most = 20 << 20
	req := kmsg.NewPtrFetchRequest()
	req.MaxBytes, req.MaxWaitMillis, req.SessionEpoch = most, int32(time.Second.Milliseconds())/10, -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = topic, id
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes = partition, offset, most
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, leader)
	if err != nil {
		return nil, 0, err
	}
	if len(resp.Topics) == 0 || resp.Topics[0].Partitions[0].ErrorCode != 0 {
		return nil, 0, fmt.Errorf("fetch at %d: %+v", offset, resp)
	}
	answer := resp.Topics[0].Partitions[0]
	return answer.RecordBatches, answer.HighWatermark, nil
}

// cut takes whole batches off what a broker sent; the last may be cut short.
func cut(raw []byte) (all []Batch) {
	const header = 61
	for len(raw) >= header {
		size := 12 + int(bin.BigEndian.Uint32(raw[8:]))
		if size > len(raw) {
			break
		}
		attributes := bin.BigEndian.Uint16(raw[21:])
		base := int64(bin.BigEndian.Uint64(raw))
		all = append(all, Batch{
			Base: base, Last: base + int64(bin.BigEndian.Uint32(raw[23:])), Bytes: size,
			Codec:      kgo.CompressionCodecType(attributes & 7),
			AppendTime: attributes&8 != 0, Control: attributes&32 != 0,
			Records: int(bin.BigEndian.Uint32(raw[57:])), Payload: string(raw[header:size]),
		})
		raw = raw[size:]
	}
	return all
}
