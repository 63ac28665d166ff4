package lease

import (
	"crypto/rand"
	"fmt"

	"github.com/nats-io/nats.go"
)

// What processes tell each other here gets lost with a connection, and nobody waits for it. So nothing may depend on it but what they
// tell people.

// toldBy is the header that says who tells.
const toldBy = "Kferry-By"

func newSelf() string { return rand.Text() }

// Tell lets whoever hears of a matter, in other processes, know of a task.
func (q *Queue) Tell(matter string, t Task) error {
	m := nats.NewMsg(q.options.Name + ".told." + matter)
	m.Header.Set(toldBy, q.self)
	m.Data = t.encode()
	if err := q.conn.PublishMsg(m); err != nil {
		return fmt.Errorf("tell %s: %w", matter, err)
	}
	return nil
}

// Hear calls back, from one goroutine, for what others tell of a matter, until stop is called.
func (q *Queue) Hear(matter string, heard func(Task)) (stop func(), err error) {
	s, err := q.conn.Subscribe(q.options.Name+".told."+matter, func(m *nats.Msg) {
		t, err := decodeTask(m.Data)
		if err == nil && m.Header.Get(toldBy) != q.self {
			heard(t)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("hear of %s: %w", matter, err)
	}
	return func() { _ = s.Unsubscribe() }, nil // which fails where the connection is closed, and nothing is heard any more
}
