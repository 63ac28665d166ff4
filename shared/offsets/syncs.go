package offsets

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

const (
	syncEvery   = time.Second      // what was added since goes out in one write
	syncAgain   = 30 * time.Second // after a write that failed
	syncLast    = 3 * time.Second  // for what is left when Run ends
	syncRecords = 1_000            // in one write
)

// Syncs writes a flow's offset-syncs, for MirrorMaker's own readers, and reads those that MirrorMaker left (bounds.go). It is safe for concurrent use.
type Syncs struct {
	syncs   spec.OffsetSyncs
	flow    string
	cluster *kafka.Cluster
	log     *slog.Logger

	writing sync.Mutex // held during a write, so that a partition's pairs keep their order

	mu     sync.Mutex // guards what follows
	added  map[kafka.TopicPartition]mm2.OffsetSync
	failed time.Time // when the last write did; zero where it didn't

	left left
}

// NewSyncs makes one. It asks no cluster before the first pair.
func NewSyncs(flow spec.Flow, source, target *kafka.Cluster, log *slog.Logger) *Syncs {
	cluster := target
	if flow.Syncs.OnSource {
		cluster = source
	}
	return &Syncs{syncs: flow.Syncs, flow: flow.Name(), cluster: cluster, log: log, added: map[kafka.TopicPartition]mm2.OffsetSync{},
		left: left{tail: cluster.NewTail(flow.Syncs.Topic, spec.ReadUncommitted)},
	}
}

// Add has Run write a partition's newest pair, soon, and asks nobody.
func (s *Syncs) Add(pair mm2.OffsetSync) {
	if !s.syncs.Enabled {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.added[partitionOf(pair)] = pair
}

func partitionOf(pair mm2.OffsetSync) kafka.TopicPartition {
	return kafka.TopicPartition{Topic: pair.Topic, Partition: pair.Partition}
}

// Run writes what is added until ctx ends, and then what is left. Where pairs can't be written, it says so once and tries again with
// the newest ones: they aren't needed for anything that kferry does.
func (s *Syncs) Run(ctx context.Context) {
	ticker := time.NewTicker(syncEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), syncLast)
			defer cancel()
			s.flush(last)
			return
		case <-ticker.C:
			if s.due() {
				s.flush(ctx)
			}
		}
	}
}

func (s *Syncs) due() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed.IsZero() || time.Since(s.failed) >= syncAgain
}

func (s *Syncs) flush(ctx context.Context) {
	s.mu.Lock()
	pairs := slices.SortedFunc(maps.Values(s.added), func(a, b mm2.OffsetSync) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	clear(s.added)
	s.mu.Unlock()
	if len(pairs) == 0 {
		return
	}
	err := s.Write(ctx, pairs)
	s.mu.Lock()
	first := s.failed.IsZero()
	s.failed = time.Time{}
	if err != nil {
		s.failed = time.Now()
		for _, pair := range pairs {
			if _, newer := s.added[partitionOf(pair)]; !newer {
				s.added[partitionOf(pair)] = pair
			}
		}
	}
	s.mu.Unlock()
	if err != nil && first && ctx.Err() == nil {
		s.log.Warn("offset-syncs can't be written; MirrorMaker's own tools will translate less exactly", "flow", s.flow, "error", err)
	}
}

// Write appends pairs in their order, and creates the topic where it is missing. It does nothing where the flow has no offset-syncs.
//
// MirrorMaker's readers take a pair below the last one of its partition for a rewind and forget all they knew. So give the pairs of a
// partition in ascending order, and the newest (Sync of the cursor's offset) last.
func (s *Syncs) Write(ctx context.Context, pairs []mm2.OffsetSync) error {
	if !s.syncs.Enabled || len(pairs) == 0 {
		return nil
	}
	topic := kafka.NewTopic{
		Name: s.syncs.Topic, Partitions: 1, ReplicationFactor: s.syncs.ReplicationFactor,
		Configs: map[string]string{"cleanup.policy": "compact"}, // as MirrorMaker does
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	for chunk := range slices.Chunk(pairs, syncRecords) {
		records := make([]kafka.Record, len(chunk))
		for i, pair := range chunk {
			records[i] = kafka.Record{Partition: 0, Key: pair.Key(), Value: pair.Value()}
		}
		if err := writeTo(ctx, s.cluster, topic, records); err != nil {
			return fmt.Errorf("write offset-syncs of %s to %s: %w", s.flow, s.cluster.Alias(), err)
		}
	}
	return nil
}

// writeTo appends records to a compacted topic of one partition, and creates it where it is missing.
func writeTo(ctx context.Context, c *kafka.Cluster, topic kafka.NewTopic, records []kafka.Record) (err error) {
	for range 2 { // it may turn out to be gone only when it is written to
		_, err = c.PartitionCount(ctx, topic.Name)
		if errors.Is(err, kafka.ErrUnknownTopic) {
			err = c.CreateTopic(ctx, topic)
		}
		if err == nil || errors.Is(err, kafka.ErrTopicExists) {
			err = c.Write(ctx, topic.Name, records)
		}
		if !errors.Is(err, kafka.ErrUnknownTopic) && !errors.Is(err, kafka.ErrUnknownTopicID) {
			return err
		}
	}
	return err
}
