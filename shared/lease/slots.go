package lease

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
)

// A flow that may have only so many leases at one time has as many slots, and each is a subject of the stream: the server refuses a second
// task in a slot as it refuses one that is there twice. So no two coordinators have to agree, and no message of theirs can come too late
// to do harm. What a task says it is about doesn't change.

// slotToken stands where other tasks have their topic. No topic is escaped to it.
const slotToken = "=slot"

// underwayReads is how many messages are read at one time.
const underwayReads = 16

// Subject is where the queue has a task.
func (q *Queue) Subject(t Task) string {
	if t.Slot > 0 {
		return q.mirrors(t.Flow) + slotToken + "." + strconv.Itoa(t.Slot)
	}
	return q.options.Name + ".task." + t.tokens()
}

// mirrors begins the subjects of all mirror tasks of a flow.
func (q *Queue) mirrors(flow string) string {
	return strings.Join([]string{q.options.Name, "task", string(KindMirror), escape(flow), ""}, ".")
}

// Underway returns a flow's mirror tasks that wait on the queue or are held, by their messages' sequence, at the price of a request for
// each.
func (q *Queue) Underway(ctx context.Context, flow string) (tasks map[uint64]Task, err error) {
	err = q.call(ctx, "look for tasks of "+flow, func(ctx context.Context) error {
		tasks = map[uint64]Task{}
		stream := q.current().tasks
		info, err := stream.Info(ctx, jetstream.WithSubjectFilter(q.mirrors(flow)+">"))
		if err != nil {
			return err
		}
		var mu sync.Mutex // guards tasks
		var reads errgroup.Group
		reads.SetLimit(underwayReads)
		for subject := range info.State.Subjects {
			reads.Go(func() error {
				m, err := stream.GetLastMsgForSubject(ctx, subject)
				if errors.Is(err, jetstream.ErrMsgNotFound) {
					return nil // done meanwhile
				}
				if err != nil {
					return err
				}
				task, err := decodeTask(m.Data)
				if err != nil {
					return nil // whoever claims it removes it
				}
				mu.Lock()
				defer mu.Unlock()
				tasks[m.Sequence] = task
				return nil
			})
		}
		return reads.Wait()
	})
	return tasks, err
}

// Tasks is how many mirror tasks of a flow wait on the queue or are held.
func (q *Queue) Tasks(ctx context.Context, flow string) (n int, err error) {
	err = q.call(ctx, "count tasks of "+flow, func(ctx context.Context) error {
		info, err := q.current().tasks.Info(ctx, jetstream.WithSubjectFilter(q.mirrors(flow)+">"))
		if err == nil {
			n = len(info.State.Subjects)
		}
		return err
	})
	return n, err
}

func (q *Queue) askSubject(flow string) string { return q.options.Name + ".ask." + escape(flow) }

// AskBack asks whoever holds a task to let others have its lease. It is a plain message, kept nowhere.
func (q *Queue) AskBack(t Task) error {
	return q.explain("ask for "+t.String(), q.conn.Publish(q.askSubject(t.Flow), t.encode()))
}

// Asked calls back with each task of a flow that is asked for, until stop is called.
func (q *Queue) Asked(flow string, back func(Task)) (stop func(), err error) {
	s, err := q.conn.Subscribe(q.askSubject(flow), func(m *nats.Msg) {
		if t, err := decodeTask(m.Data); err == nil {
			back(t)
		}
	})
	if err != nil {
		return nil, q.explain("hear what is asked for", err)
	}
	return func() { _ = s.Unsubscribe() }, nil // fails where the connection is closed, which ends it too
}
