package lease

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
)

// A Slate is one value that several processes read and write: each writes on the revision that it has read, so that none writes over what
// it hasn't seen. It survives NATS' restart, and is gone with its store.
type Slate struct {
	queue *Queue
	key   string
}

// The slates there are.
const (
	SlateScale = "scale" // how many workers are wanted, written by coordinators
	SlateTempo = "tempo" // a Tempo, written by workers
)

// Slate returns the one that has a name.
func (q *Queue) Slate(name string) Slate { return Slate{q, "slate." + escape(name)} }

// Read reads JSON into a value, and returns its revision: 0, and the value as it was, where there is none. What is no JSON of that kind is
// none either, and may be written over.
func (s Slate) Read(ctx context.Context, into any) (revision uint64, err error) {
	err = s.queue.call(ctx, "read "+s.key, func(ctx context.Context) error {
		found, err := s.queue.current().cursors.get(ctx, s.key)
		if err != nil || found.deleted {
			return err
		}
		revision = found.revision
		value := reflect.New(reflect.TypeOf(into).Elem()) // else what comes before the mistake would be taken
		if err := json.Unmarshal(found.value, value.Interface()); err != nil {
			s.queue.options.Logger.Debug("skipped an entry", "key", s.key, "error", err)
			return nil
		}
		reflect.ValueOf(into).Elem().Set(value.Elem())
		return nil
	})
	return revision, err
}

// Write replaces the value that has a revision, and returns the new one's, or ErrLost where somebody was faster.
func (s Slate) Write(ctx context.Context, value any, revision uint64) (written uint64, err error) {
	err = s.queue.call(ctx, "write "+s.key, func(ctx context.Context) (err error) {
		kv := s.queue.current().cursors.kv
		if revision == 0 {
			written, err = kv.Create(ctx, s.key, encodeJSON(value))
		} else {
			written, err = kv.Update(ctx, s.key, encodeJSON(value), revision)
		}
		return lost(err)
	})
	if err != nil {
		return 0, fmt.Errorf("write slate: %w", err)
	}
	return written, nil
}
