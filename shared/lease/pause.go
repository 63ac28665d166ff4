package lease

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/spec"
)

// pauseKey is the key of the note that pauses a whole flow, whatever else is lost.
var pauseKey = NoteKey{Kind: "pause", Partition: -1, Offset: -1}

type pause struct {
	Paused bool `json:"paused"`
}

// SetPaused pauses a flow, or ends its pause. Coordinators and workers hear of it when they ask again.
func (c *Cursors) SetPaused(ctx context.Context, paused bool) error {
	return c.PutNote(ctx, pauseKey, pause{paused})
}

// WritePaused is SetPaused without a queue, see WriteNote.
func WritePaused(ctx context.Context, flow spec.Flow, target *kafka.Cluster, paused bool) error {
	return WriteNote(ctx, flow, target, pauseKey, pause{paused})
}

// Orders are what people have set of a flow while it runs.
type Orders struct {
	Limits map[string]Limit // by topic; "" is the flow
	Paused bool
}

// Orders returns those that hold. Coordinators and workers hear of a change by asking again. ErrNotLoaded while nobody can tell, because
// NATS came up empty: what was known before still holds then.
func (c *Cursors) Orders(ctx context.Context) (Orders, error) {
	if err := c.CheckLoaded(ctx); err != nil {
		return Orders{}, fmt.Errorf("what was set of %s while running: %w", c.flow.Name(), err)
	}
	notes, err := c.Notes(ctx)
	return Orders{limitsIn(notes), pausedIn(notes)}, err
}

func pausedIn(notes map[NoteKey]Note) bool {
	var p pause
	n, known := notes[pauseKey]
	return known && json.Unmarshal(n.Value, &p) == nil && p.Paused
}
