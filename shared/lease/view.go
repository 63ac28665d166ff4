package lease

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A view is a copy of part of a bucket in this process, brought up to date whenever somebody looks.
type view[K comparable, V any] struct {
	queue  *Queue
	of     func(store) bucket
	filter string
	decode func(key string, value []byte) (K, V, error)

	turn    chan struct{} // of capacity 1; its holder owns what follows. Others wait, and can give up
	created time.Time     // of the bucket that was read
	last    uint64        // revision up to which it was read
	values  map[K]V
}

func newView[K comparable, V any](q *Queue, of func(store) bucket, filter string, decode func(string, []byte) (K, V, error)) *view[K, V] {
	return &view[K, V]{queue: q, of: of, filter: filter, decode: decode, turn: make(chan struct{}, 1)}
}

// get returns what the bucket holds.
func (v *view[K, V]) get(ctx context.Context, name string) (map[K]V, error) {
	select {
	case v.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", name, context.Cause(ctx))
	}
	defer func() { <-v.turn }()
	if err := v.queue.call(ctx, name, v.refresh); err != nil {
		return nil, err
	}
	return maps.Clone(v.values), nil
}

func (v *view[K, V]) refresh(ctx context.Context) error {
	b := v.of(v.queue.current())
	info, err := b.stream.Info(ctx)
	if err != nil {
		return err
	}
	if v.isAnother(info) {
		v.created, v.last, v.values = info.Created, 0, map[K]V{}
	}
	changed, err := b.changesUpTo(ctx, v.queue.conn, v.filter, v.last, info.State.LastSeq)
	if err != nil {
		return err
	}
	for _, e := range changed {
		v.apply(e)
	}
	return nil
}

// isAnother says that the bucket is not the one that was read: it was created again, or has come back without its last entries,
// as a file store may after a power cut and a replicated memory store after a restart of all its servers.
func (v *view[K, V]) isAnother(info *jetstream.StreamInfo) bool {
	return !info.Created.Equal(v.created) || info.State.LastSeq < v.last
}

func (v *view[K, V]) apply(e entry) {
	v.last = max(v.last, e.revision)
	k, value, err := v.decode(e.key, e.value)
	switch {
	case errors.Is(err, errNotOurs):
		v.queue.options.Logger.Debug("skipped an entry", "key", e.key, "error", err)
	case e.deleted:
		delete(v.values, k)
	default:
		v.values[k] = value
	}
}

// errNotOurs is a key that says nothing to this kferry.
var errNotOurs = errors.New("unknown key")
