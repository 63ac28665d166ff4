package lease

import (
	"context"
	"time"
)

// depthCache is how old Depth's answer may be.
const depthCache = 250 * time.Millisecond

// Depth is what the queue holds at one moment. Waiting and Held together are the messages of the stream: none at rest, and under load as
// many as there are partitions with work.
type Depth struct {
	Waiting int // tasks that nobody has claimed
	// Held are tasks that somebody has claimed. Those of a worker that died are among them until another one claims them, however long
	// that takes: the server counts them as waiting no more.
	Held   int
	Asking int       // claims of workers that wait for a task
	At     time.Time // by the clock of the server, which is one for all processes
}

// Depth asks for it; the answer may be a quarter of a second old.
func (q *Queue) Depth(ctx context.Context) (Depth, error) {
	q.mu.Lock()
	last := q.depth
	q.mu.Unlock()
	if now := time.Now(); now.Sub(last.asked) < depthCache && !last.asked.IsZero() {
		return last.Depth, nil
	}
	var d Depth
	err := q.call(ctx, "count tasks", func(ctx context.Context) error {
		info, err := q.current().workers.Info(ctx)
		if err == nil {
			d = Depth{Waiting: int(info.NumPending), Held: info.NumAckPending, Asking: info.NumWaiting, At: info.TimeStamp}
		}
		return err
	})
	if err != nil {
		return Depth{}, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.depth.Depth, q.depth.asked = d, time.Now()
	return d, nil
}

// Waiting is how many tasks nobody has claimed.
func (q *Queue) Waiting(ctx context.Context) (int, error) {
	d, err := q.Depth(ctx)
	return d.Waiting, err
}
