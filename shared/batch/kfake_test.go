package batch_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/kferry/kferry/shared/batch"
)

// A client's batches go from one partition to another as the data path takes them: the first cut, the others passed through,
// split, or merged with what follows, all under one identity whose sequence runs on.
func TestACopyUnderOneIdentityReadsLikeTheSource(t *testing.T) {
	kinds := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	for name, codec := range kinds {
		t.Run(name, func(t *testing.T) {
			want := samples(0, 600)
			var landed []byte
			synctest.Test(t, func(t *testing.T) { landed = copyThroughKfake(t, codec, want) })

			// Read outside the bubble: franz-go's zstd decoders keep a channel, and close it in a finalizer, which has none.
			var got []batch.Record
			for len(landed) > 0 {
				b, rest, err := batch.Next(landed)
				if err != nil {
					t.Fatal(err)
				}
				got, landed = append(got, decoded(t, b)...), rest
			}
			sameContent(t, got, want[7:])
			for i, r := range got {
				if r.Offset != int64(i) {
					t.Fatalf("record %d landed at %d", i, r.Offset)
				}
			}
		})
	}
}

// copyThroughKfake copies all but the first seven records, and returns what the target then holds.
func copyThroughKfake(t *testing.T, codec kgo.CompressionCodec, want []batch.Record) []byte {
	var network kfake.VirtualNetwork
	cluster := kfake.MustCluster(kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(network.Listen), kfake.SeedTopics(1, "source", "copy"))
	defer cluster.Close()
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.Dialer(network.DialContext), kgo.ProducerBatchCompression(codec),
		kgo.MaxVersions(kversion.V2_8_0()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()

	for from := 0; from < len(want); from += 60 {
		var records []*kgo.Record
		for _, r := range want[from : from+60] {
			k := &kgo.Record{Topic: "source", Timestamp: time.UnixMilli(r.Timestamp), Key: r.Key, Value: r.Value}
			for _, h := range r.Headers {
				k.Headers = append(k.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
			}
			records = append(records, k)
		}
		if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}

	e := &batch.Encoder{MaxBytes: 4000}
	var ready, run []batch.Batch
	rest := fetchRaw(t, client, "source")
	for i := 0; len(rest) > 0; i++ {
		var b batch.Batch
		if b, rest, err = batch.Next(rest); err != nil {
			t.Fatal(err)
		}
		made := []batch.Batch{b}
		switch {
		case i == 0:
			made, err = e.CutRecords(b, 7)
		case i == 1: // passes through
		case b.Mergeable() && b.BaseOffset() > 300:
			run, made = append(run, b), nil
		default:
			made, err = e.Reencode(b, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		ready = append(ready, made...)
	}
	if len(run) > 0 {
		merged, err := new(batch.Encoder).Merge(run)
		if err != nil {
			t.Fatal(err)
		}
		ready = append(ready, merged)
	}
	sequence := int32(0)
	for _, b := range ready {
		b.Patch(batch.Identity{ProducerID: 0x6B << 56, Epoch: 0}, sequence)
		produceRaw(t, client, "copy", b)
		sequence += b.Records()
	}

	return fetchRaw(t, client, "copy")
}

func fetchRaw(t *testing.T, client *kgo.Client, topic string) []byte {
	t.Helper()
	req := kmsg.NewPtrFetchRequest()
	req.MaxBytes = 10 << 20
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.PartitionMaxBytes = 10 << 20
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(t.Context(), client.Broker(0))
	if err != nil {
		t.Fatal(err)
	}
	p := resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
		t.Fatal(err)
	}
	return p.RecordBatches
}

func produceRaw(t *testing.T, client *kgo.Client, topic string, b batch.Batch) {
	t.Helper()
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 5000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Records = b
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(t.Context(), client.Broker(0))
	if err != nil {
		t.Fatal(err)
	}
	if err := kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode); err != nil {
		t.Fatal(err)
	}
}
