package offsets

import (
	"context"
	"errors"
	"log/slog"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// Syncs writes a flow's offset-syncs, for MirrorMaker's own readers. It is safe for concurrent use. Pairs of callers that meet go out in
// one write.
type Syncs struct {
	flow    spec.Flow
	cluster *kafka.Cluster
	log     *slog.Logger
}

// NewSyncs makes one. It asks no cluster before the first pair.
func NewSyncs(flow spec.Flow, source, target *kafka.Cluster, log *slog.Logger) *Syncs {
	cluster := target
	if flow.Syncs.OnSource {
		cluster = source
	}
	return &Syncs{flow: flow, cluster: cluster, log: log}
}

// Write appends pairs in their order, and creates the topic where it is missing. It does nothing where the flow has no offset-syncs.
//
// MirrorMaker's readers take a pair below the last one of its partition for a rewind and forget all they knew. So give the pairs of a
// partition in ascending order, and the newest (Sync of the cursor's offset) last.
func (s *Syncs) Write(ctx context.Context, pairs []mm2.OffsetSync) error {
	return errors.ErrUnsupported
}
