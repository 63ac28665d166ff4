package offsets

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// archiveSegment lets compaction get at what was deleted.
const archiveSegment = "16777216"

// An Archive is the topic on the target that keeps a flow's finished chunks: compacted, with one partition. Its records' keys look
// like those of kferry's notes, with the chunk's link:
//
//	["kferry",{"flow":"A->B","topic":"orders","partition":0,"offset":150,"chunk":"9f3a2b7714c0d5e6"}]
type Archive struct {
	flow   spec.Flow
	target *kafka.Cluster
	due    atomic.Bool // Prune is
	failed atomic.Bool // the last Write has
}

const (
	pruneOnce  = 4096 // chunks, on average, whoever wrote them: then those are looked for that nobody needs any more
	pruneEvery = 10 * time.Second
)

// NewArchive makes one. It asks no cluster.
func NewArchive(flow spec.Flow, target *kafka.Cluster) *Archive {
	return &Archive{flow: flow, target: target}
}

// Topic is its name, which MirrorMaker takes for one of its own and so never copies.
func (a *Archive) Topic() string { return mm2.PositionsTopic(a.flow.Source) }

// Write appends chunks of a partition, and creates the topic where it is missing. Calls that meet share requests. To write a chunk again
// does no harm.
func (a *Archive) Write(ctx context.Context, tp kafka.TopicPartition, chunks []Sealed) error {
	records := make([]kafka.Record, len(chunks))
	for i, s := range chunks {
		records[i] = kafka.Record{Key: a.key(tp, s.source, linkOf(s.value)), Value: s.value}
	}
	topic := kafka.NewTopic{
		Name: a.Topic(), Partitions: 1, ReplicationFactor: a.flow.OffsetsReplicationFactor,
		Configs: map[string]string{"cleanup.policy": "compact", "segment.bytes": archiveSegment},
	}
	err := writeTo(ctx, a.target, topic, records)
	a.failed.Store(err != nil)
	if err != nil {
		return fmt.Errorf("write map of %s to %s: %w", tp, a.target.Alias(), err)
	}
	if rand.IntN(pruneOnce) < len(chunks) {
		a.due.Store(true)
	}
	return nil
}

// Failed says whether the last Write has, of whichever partition.
func (a *Archive) Failed() bool { return a.failed.Load() }

// Run prunes once in a while, until ctx ends. Where that fails, the topic is only longer than it has to be.
func (a *Archive) Run(ctx context.Context, source *kafka.Cluster, log *slog.Logger) {
	ticker := time.NewTicker(pruneEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if !a.due.Swap(false) {
			continue
		}
		if n, err := a.Prune(ctx, source); err == nil {
			log.Debug("pruned the map of positions", "flow", a.flow.Name(), "chunks", n)
		} else if ctx.Err() == nil {
			log.Warn("the map of positions can't be pruned", "flow", a.flow.Name(), "error", err)
		}
	}
}

// Prune deletes the chunks that are about nothing which the source still has, and returns how many there were. It reads the whole topic.
func (a *Archive) Prune(ctx context.Context, source *kafka.Cluster) (int, error) {
	m := Open(a.flow, a.target)
	if err := m.Refresh(ctx); err != nil {
		return 0, err
	}
	starts, err := source.ListOffsets(ctx, slices.Collect(maps.Keys(m.partitions)), kafka.Earliest, spec.ReadUncommitted)
	if err != nil {
		return 0, fmt.Errorf("prune positions of %s: %w", a.flow.Name(), err)
	}
	var old []kafka.Record
	for tp, p := range m.partitions {
		if starts[tp].Err != nil {
			continue // of a topic that is gone too: the one to come may have its name
		}
		for l, value := range p.chunks {
			if h, err := decodeHeader(value); err == nil && h.endSource <= starts[tp].Offset {
				old = append(old, kafka.Record{Key: a.key(tp, h.source, l)})
			}
		}
	}
	for some := range slices.Chunk(old, pruneOnce) {
		if err := a.target.Write(ctx, a.Topic(), some); err != nil {
			return 0, fmt.Errorf("prune positions of %s: %w", a.flow.Name(), err)
		}
	}
	return len(old), nil
}

type keyMembers struct {
	Flow      string `json:"flow"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	Chunk     string `json:"chunk"`
}

const keyOwner = "kferry"

func (a *Archive) key(tp kafka.TopicPartition, source int64, l link) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode([]any{keyOwner, keyMembers{a.flow.Name(), tp.Topic, tp.Partition, source, hex.EncodeToString(l[:])}}); err != nil {
		panic(fmt.Sprintf("offsets: encode a key: %v", err)) // text and numbers
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// parseKey reads the key of a chunk of the flow; false for every other.
func (a *Archive) parseKey(key []byte) (tp kafka.TopicPartition, source int64, l link, ok bool) {
	var parts []json.RawMessage
	var owner string
	var members keyMembers
	if json.Unmarshal(key, &parts) != nil || len(parts) != 2 || json.Unmarshal(parts[0], &owner) != nil || json.Unmarshal(parts[1], &members) != nil {
		return tp, 0, l, false
	}
	n, err := hex.Decode(l[:min(len(l), len(members.Chunk)/2)], []byte(members.Chunk))
	ok = owner == keyOwner && members.Flow == a.flow.Name() && err == nil && n == len(l)
	return kafka.TopicPartition{Topic: members.Topic, Partition: members.Partition}, members.Offset, l, ok
}
