package lease

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// A State is what became of a task's last run, for the coordinator that decides on the next. It is lost with NATS: then the task
// is tried at once.
type State struct {
	Reason Reason `json:"reason"`
	Detail string `json:"detail,omitempty"`
	Held   bool   `json:"held,omitempty"`
	// Attempts have failed in a row.
	Attempts int `json:"attempts,omitempty"`
	// Since is when the first of them failed, Next when to offer the task again.
	Since  time.Time `json:"since,omitzero"`
	Next   time.Time `json:"next,omitzero"`
	Worker string    `json:"worker,omitempty"`
	// Done and Synced are short hashes of what a groups task had seen when it ended well, the latter when it last set positions on the
	// target, which was at SyncedAt. It is due again when the coordinator sees something else.
	Done     string    `json:"done,omitempty"`
	Synced   string    `json:"synced,omitempty"`
	SyncedAt time.Time `json:"syncedAt,omitzero"`
}

// SyncDue says whether it is time to set positions again. The wait is taken for over a little early: who asks once in an interval would
// else miss it by a hair, and wait for two.
func (s State) SyncDue(interval time.Duration, now time.Time) bool {
	since := now.Sub(s.SyncedAt)
	return since < 0 || since >= interval*3/4
}

// mostAttempts is where they are no longer counted.
const mostAttempts = 1_000_000

// LongestWait is the longest that Next is put ahead. The processes that write and read it go by clocks of their own, and clocks are set:
// a Next that is much further ahead says nothing.
const LongestWait = 30 * time.Second

// PutState records what became of a task.
func (q *Queue) PutState(ctx context.Context, t Task, s State) error {
	return q.call(ctx, "record state of "+t.String(), func(ctx context.Context) error {
		_, err := q.current().states.kv.Put(ctx, t.tokens(), encodeJSON(s))
		return err
	})
}

// ClearState forgets a task's state: it runs, or ran well.
func (q *Queue) ClearState(ctx context.Context, t Task) error {
	return q.call(ctx, "clear state of "+t.String(), func(ctx context.Context) error {
		return q.current().states.kv.Delete(ctx, t.tokens())
	})
}

// State returns one task's state, and whether there is any, at the price of one small request.
func (q *Queue) State(ctx context.Context, t Task) (s State, ok bool, err error) {
	err = q.call(ctx, "read state of "+t.String(), func(ctx context.Context) error {
		found, err := q.current().states.get(ctx, t.tokens())
		if ok = err == nil && !found.deleted; ok {
			_, s, err = decodeState(found.key, found.value)
		}
		return err
	})
	return s, ok, err
}

// States returns every task's state, by Task.Identity.
func (q *Queue) States(ctx context.Context) (map[Task]State, error) {
	return q.states.get(ctx, "read states")
}

func decodeState(key string, value []byte) (Task, State, error) {
	t, err := parseTokens(key)
	if err != nil {
		return Task{}, State{}, fmt.Errorf("%w: %w", errNotOurs, err)
	}
	var s State
	if len(value) == 0 {
		return t, s, nil // deleted
	}
	if err := json.Unmarshal(value, &s); err != nil {
		s = State{Reason: ReasonFormat, Detail: err.Error()}
	}
	s.Attempts = min(max(0, s.Attempts), mostAttempts) // which the next pause is computed from
	return t, s, nil
}

func statesOf(s store) bucket { return s.states }
