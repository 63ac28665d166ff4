package lease

import (
	"context"
	"errors"
)

// A Turn lets one of several processes do what each of them could: every so often each asks, and one is told that it is its turn. Who
// asks when another has had the turn since it last asked is told no. So no clocks are compared, and where one stops asking the next one
// has the turn at its second question. It is lost with the queue, and then begins anew.
type Turn struct {
	queue *Queue
	key   string
	seen  uint64 // revision of the last turn that this process knows of
}

// Turn returns that of something that has a name.
func (q *Queue) Turn(of string) *Turn { return &Turn{queue: q, key: "turn." + escape(of)} }

// Mine asks for the turn. It is used by one goroutine.
func (t *Turn) Mine(ctx context.Context) (mine bool, err error) {
	err = t.queue.call(ctx, "ask for the turn of "+t.key, func(ctx context.Context) error {
		states := t.queue.current().states
		revision, err := states.kv.Update(ctx, t.key, nil, t.seen)
		if mine = err == nil; mine {
			t.seen = revision
			return nil
		}
		if !errors.Is(lost(err), ErrLost) {
			return err
		}
		found, err := states.get(ctx, t.key)
		t.seen = found.revision
		return err
	})
	return mine, err
}
