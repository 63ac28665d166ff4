package integration

import (
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kferry/kferry/integration/testbed"
)

const (
	lastSequence = 1<<31 - 1
	lastEpoch    = 1<<15 - 1
	identityTag  = 0x6B // top byte of kferry's producer ids
)

// The sequence passes 2³¹ − 1 within the copy, and workers die before and behind that, so that positions are found across it. The last
// one finds cursors from before it alone.
func (f far) sequenceWraps(t *testing.T) {
	const topic = "wrap"
	nats := testbed.StartNATS(t)
	k := f.copying(t, "sequence wraps", topic).over(nats)
	k.source.CreateTopic(topic, partitions, 1)
	before := []int32{0, 1, 700, 5000} // records of each partition up to the last sequence
	k.plant(topic, func(p int) planted { return planted{sequence: lastSequence - before[p]} })
	flow := traffic(k, topic, smallBatches, 8000, 2000)
	k.start("coordinator")
	random := seeded(t)
	worker := k.start("worker")
	deaths := times(3, 12)
	for range deaths {
		k.grows(topic, 500+random.Int64N(3000))
		worker.Kill()
		worker = k.start("worker")
	}
	k.grows(topic, 20_000)
	worker.Kill()
	nats.Wipe()
	k.start("worker")
	k.row.happened(partitions)
	k.finish(flow, topic)
	ends := k.target.Ends(k.copyOf(topic))
	for _, p := range k.producers(topic) {
		want := int32((int64(lastSequence-before[p.Partition]) + ends[p.Partition] - 1) & lastSequence)
		if p.ProducerID>>56 != identityTag || p.LastSequence != want {
			t.Errorf("partition %d, which holds %d records, was last written by producer %#x with sequence %d, want one of kferry's and %d",
				p.Partition, ends[p.Partition], p.ProducerID, p.LastSequence, want)
		}
	}
	k.row.says("%d deaths beside", deaths+1)
}

// The last generation of a producer id copies as any other, and the one after it has another id.
func (f far) lastGeneration(t *testing.T) {
	const topic = "last-generation"
	nats := testbed.StartNATS(t)
	k := f.copying(t, "epoch limit", topic).over(nats)
	k.source.CreateTopic(topic, partitions, 1)
	k.plant(topic, func(p int) planted { return planted{sequence: int32(1 + p), epoch: lastEpoch} })
	flow := traffic(k, topic, smallBatches, 5000, 2000)
	coordinator, worker := k.start("coordinator"), k.start("worker")
	k.grows(topic, 5000)
	worker.Kill()
	worker = k.start("worker")
	k.grows(topic, 2000)
	k.finish(flow, topic)
	k.stop(worker)
	k.stop(coordinator)
	nats.Wipe() // or tasks of the old specification are waiting, which its workers have to hand back first

	other := k.with("KFERRY_ISOLATION_LEVEL", "read_uncommitted") // with that, content could be another
	other.start("coordinator")
	other.start("worker")
	testbed.Produce(t, k.source, topic, testbed.Load{Records: 400, First: flow.Stop()})
	k.await(topic)
	k.compare(topic)
	began := map[int32]bool{}
	for _, p := range k.producers(topic) {
		began[p.Partition] = began[p.Partition] || p.ProducerID>>56 == identityTag && p.ProducerEpoch == 0
	}
	for p := range int32(partitions) {
		if !began[p] {
			t.Errorf("no producer of partition %d has begun with epoch 0: %v", p, k.producers(topic))
		}
	}
	k.row.happened(partitions)
	k.row.says("goes on under another producer id")
}

// planted is a cursor of an empty target partition, as if so many records had landed before.
type planted struct {
	sequence int32
	epoch    int16
}

// plant creates a copy's topic and the cursors of its partitions, before kferry sees either. A broker takes whatever sequence and epoch
// a producer that it does not know begins with.
func (k *installation) plant(topic string, at func(partition int) planted) {
	k.t.Helper()
	offsets := "mm2-offsets." + k.alias + ".internal"
	k.target.CreateTopic(k.copyOf(topic), partitions, 1)
	k.target.CreateTopic(offsets, partitions, 1, "cleanup.policy", "compact")
	id := func(c *testbed.Cluster, topic string) string {
		var id [16]byte
		testbed.Eventually(k.t, soon, topic+" to be known by its id", func() bool {
			id = c.Topics(topic)[topic].ID
			return id != [16]byte{}
		})
		return base64.RawURLEncoding.EncodeToString(id[:])
	}
	source, target := id(k.source, topic), id(k.target, k.copyOf(topic))
	client := k.target.Client(kgo.DefaultProduceTopic(offsets)) // kgo's partitioner is Java's
	for p := range partitions {
		cursor := at(p)
		record := kgo.KeySliceRecord(
			fmt.Appendf(nil, `["MirrorSourceConnector",{"cluster":%q,"partition":%d,"topic":%q}]`, k.alias, p, topic),
			fmt.Appendf(nil, `{"offset":-1,"kferry.version":1,"kferry.target":0,"kferry.sequence":%d,"kferry.epoch":%d,"kferry.sourceTopicId":%q,`+
				`"kferry.targetTopicId":%q,"kferry.sourceLeaderEpoch":-1,"kferry.timestamp":-1,"kferry.isolation":"read_committed"}`,
				cursor.sequence, cursor.epoch, source, target))
		if err := client.ProduceSync(k.t.Context(), record).FirstErr(); err != nil {
			k.t.Fatalf("plant cursor: %v", err)
		}
	}
}

// A copy is deleted and created again under load: nothing is written to the new one, its partitions are held, and others go on.
func (f far) targetRecreated(t *testing.T) {
	k := f.copying(t, "target topic deleted and created again", "reborn,beside").over(testbed.StartNATS(t))
	for _, topic := range []string{"reborn", "beside"} {
		k.source.CreateTopic(topic, partitions, 1)
	}
	reborn, beside := traffic(k, "reborn", smallBatches, 5000, 1000), traffic(k, "beside", smallBatches, 5000, 1000)
	k.start("coordinator")
	k.start("worker")
	k.grows("reborn", 2000)
	k.grows("beside", 2000)
	before, since := k.target.Ends(k.copyOf("beside")), time.Now()
	deleteTopic(t, k.target, k.copyOf("reborn"))
	k.target.CreateTopic(k.copyOf("reborn"), partitions, 1)
	k.resumes("beside", before, since)
	testbed.Eventually(t, goneAround, "every partition of the new topic to be held", func() bool {
		held := k.status().partitions("reborn")
		return len(held) == partitions && !slices.ContainsFunc(held, func(p partition) bool {
			return p.State != "held" || p.Reason != "target_recreated" || !p.Decide
		})
	})
	reborn.Stop()
	k.row.happened(1)
	k.finish(beside, "beside")
	if ends := k.target.Ends(k.copyOf("reborn")); slices.Max(slices.Collect(maps.Values(ends))) > 0 {
		t.Errorf("the new topic was written to: %v", ends)
	}
	k.row.says("holds; its neighbour goes on")
}
