package lease

import (
	"context"
	"encoding/json"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/spec"
)

// kindLimit is that of the notes that hold limits.
const kindLimit = "limit"

// A Limit was set while kferry runs. It holds in place of the configuration's until it is cleared: nil leaves that one to hold, 0 is
// no limit.
type Limit struct {
	Bytes   *int64 `json:"bytes,omitempty"`
	Records *int64 `json:"records,omitempty"`
}

// Over is the rate that holds where the configuration says r.
func (l Limit) Over(r spec.Rate) spec.Rate {
	if l.Bytes != nil {
		r.Bytes = *l.Bytes
	}
	if l.Records != nil {
		r.Records = *l.Records
	}
	return r
}

// LimitKey is the key of the note that holds a limit: a topic's, or with "" the flow's.
func LimitKey(topic string) NoteKey {
	return NoteKey{Kind: kindLimit, Topic: topic, Partition: -1, Offset: -1}
}

// SetLimit sets a topic's limit, or with "" the flow's, in place of the one that was set before; without a rate it is cleared.
func (c *Cursors) SetLimit(ctx context.Context, topic string, l Limit) error {
	return c.PutNote(ctx, LimitKey(topic), l)
}

// ReadLimits reads from the offsets topic what was set while running, by topic; "" is the flow. No queue is needed.
func ReadLimits(ctx context.Context, flow spec.Flow, target *kafka.Cluster) (map[string]Limit, error) {
	notes, err := ReadNotes(ctx, flow, target)
	return limitsIn(notes), err
}

func limitsIn(notes map[NoteKey]Note) map[string]Limit {
	limits := map[string]Limit{}
	for key, n := range notes {
		var l Limit
		if key != LimitKey(key.Topic) || json.Unmarshal(n.Value, &l) != nil || l == (Limit{}) {
			continue // one that was cleared says nothing
		}
		limits[key.Topic] = l
	}
	return limits
}
