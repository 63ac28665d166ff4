package lease

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/spec"
)

// gapKind begins the kind of the notes that hold gaps; the generation that the decision ended follows. So each decision has a gap of its
// own, and one that is carried out a second time after a crash has the same. The offset of their keys is Gap.From.
const gapKind = "gap-"

// Who decides.
const (
	ByPolicy   = "policy"
	ByOperator = "operator"
)

// A Gap is the record of a decision after which a copy is not what its source is. It is written before the cursor moves, so one whose
// move came to nothing may be there too. What an operator decided is acknowledged by that; what a policy did waits for it.
type Gap struct {
	Topic     string   `json:"topic"` // on the source
	Partition int32    `json:"partition"`
	Effect    Effect   `json:"effect"`
	Reason    Reason   `json:"reason"`
	Detail    string   `json:"detail"` // of the hold
	Decision  Decision `json:"decision"`
	By        string   `json:"by"`
	Epoch     int32    `json:"epoch"`  // the generation that the decision ended
	From      int64    `json:"from"`   // source offsets …
	To        int64    `json:"to"`     // … exclusive
	Count     int64    `json:"count"`  // of them; -1: unknown
	Target    int64    `json:"target"` // offset on the target where it lies
	// Before and After are the times of the newest record before it and of the first after it, zero where they can't be read.
	Before       time.Time `json:"before,omitzero"`
	After        time.Time `json:"after,omitzero"`
	At           time.Time `json:"at"`
	Acknowledged time.Time `json:"acknowledged,omitzero"`
}

// Open says whether nobody has acknowledged the gap.
func (g Gap) Open() bool { return g.Acknowledged.IsZero() }

// String is what people read of the gap.
func (g Gap) String() string {
	o := Outcome{Offset: g.To, Effect: g.Effect, From: g.From, To: g.To, Count: g.Count}
	switch {
	case g.Effect == Skipped && g.Count < 0:
		return fmt.Sprintf("what the deleted topic held from offset %d on and was not copied is missing", g.From)
	case g.Effect == Skipped:
		return o.offsets("are") + " missing on the target"
	case g.Effect == Repeated:
		return o.offsets("may") + " be there twice"
	case g.Count > 0:
		return o.offsets("are") + " on the target and no longer on the source"
	}
	return fmt.Sprintf("the target holds records before its offset %d that the source doesn't", g.Target)
}

func (g Gap) key() NoteKey {
	return NoteKey{Kind: gapKind + strconv.Itoa(int(g.Epoch)), Topic: g.Topic, Partition: g.Partition, Offset: g.From}
}

// PutGap records a gap, or that it is acknowledged.
func (c *Cursors) PutGap(ctx context.Context, g Gap) error { return c.PutNote(ctx, g.key(), g) }

// Gaps returns all gaps of the flow, from the queue alone.
func (c *Cursors) Gaps(ctx context.Context) ([]Gap, error) {
	notes, err := c.Notes(ctx)
	return GapsOf(notes), err
}

// WriteGap is PutGap without a queue: on the offsets topic alone, where the next Load finds it.
func WriteGap(ctx context.Context, flow spec.Flow, target *kafka.Cluster, g Gap) error {
	return WriteNote(ctx, flow, target, g.key(), g)
}

// ReadGaps returns all gaps of the flow, from the offsets topic alone.
func ReadGaps(ctx context.Context, flow spec.Flow, target *kafka.Cluster) ([]Gap, error) {
	notes, err := ReadNotes(ctx, flow, target)
	return GapsOf(notes), err
}

// GapsOf are the gaps among notes, by topic, partition and offset. What can't be read was written by another kferry.
func GapsOf(notes map[NoteKey]Note) []Gap {
	var gaps []Gap
	for key, n := range notes {
		var g Gap
		if strings.HasPrefix(key.Kind, gapKind) && json.Unmarshal(n.Value, &g) == nil {
			gaps = append(gaps, g)
		}
	}
	slices.SortFunc(gaps, func(a, b Gap) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.From, b.From))
	})
	return gaps
}
