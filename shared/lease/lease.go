package lease

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Bounds of the work queue.
const (
	offerChunk = 1_000 // offers under way at one time
)

// What a holder says to the reply subject of its message.
var (
	ackDone     = []byte("+ACK")
	ackProgress = []byte("+WPI")
)

// codeTaken is NATS' error for a subject that holds as many messages as it may: the task is offered or held.
const codeTaken = 10077

// Offer puts a task on the queue; false means that it is there already, waiting or held.
func (q *Queue) Offer(ctx context.Context, t Task) (bool, error) {
	return q.offer(ctx, t, t.encode())
}

func (q *Queue) offer(ctx context.Context, t Task, data []byte) (bool, error) {
	err := q.call(ctx, "offer "+t.String(), func(ctx context.Context) error {
		_, err := q.js.Publish(ctx, q.Subject(t), data)
		return err
	})
	return accepted(err)
}

func accepted(err error) (bool, error) {
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == codeTaken {
		return false, nil
	}
	return err == nil, err
}

// OfferAll offers many tasks without waiting for one answer before the next, and returns those that were not there already. An
// error may leave some of them offered.
func (q *Queue) OfferAll(ctx context.Context, tasks []Task) (offered []Task, err error) {
	for chunk := range slices.Chunk(tasks, offerChunk) {
		some, err := q.offerChunk(ctx, chunk)
		offered = append(offered, some...)
		if err != nil {
			return offered, err
		}
	}
	return offered, nil
}

func (q *Queue) offerChunk(ctx context.Context, tasks []Task) (offered []Task, err error) {
	answers := make([]jetstream.PubAckFuture, len(tasks))
	for i, t := range tasks {
		if answers[i], err = q.js.PublishAsync(q.Subject(t), t.encode()); err != nil {
			return nil, q.explain("offer "+t.String(), err)
		}
	}
	for i, t := range tasks {
		ok, err := accepted(q.answer(ctx, answers[i]))
		if gone(err) {
			ok, err = q.Offer(ctx, t) // which creates the stream
		}
		if err != nil {
			return offered, q.explain("offer "+t.String(), err)
		}
		if ok {
			offered = append(offered, t)
		}
	}
	return offered, nil
}

func (q *Queue) answer(ctx context.Context, future jetstream.PubAckFuture) error {
	select {
	case <-future.Ok():
		return nil
	case err := <-future.Err():
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// A Lease is the right to run a task for a while.
type Lease struct {
	Task Task
	// Sequence and Delivery say which message this is and how often it was delivered. For logs only.
	Sequence, Delivery uint64

	queue *Queue
	data  []byte // the task as it was offered, so that handing back keeps what a newer kferry put there
	reply string // where the holder acknowledges

	mu      sync.Mutex // guards what follows
	trust   time.Time
	claimed bool // trust has had its first anchor
}

// Claim takes up to n leases, waiting for the first as long as wait. None at all is not an error.
func (q *Queue) Claim(ctx context.Context, n int, wait time.Duration) ([]*Lease, error) {
	if n <= 0 {
		return nil, nil
	}
	messages, err := q.take(ctx, n, wait)
	if err != nil {
		return nil, q.explain("claim", err)
	}
	leases := q.leases(ctx, messages)
	if err := q.Extend(context.WithoutCancel(ctx), leases...); err != nil {
		return nil, fmt.Errorf("claim: %w", err) // they come back by themselves
	}
	return leases, nil
}

// take waits for one message and then takes what else there is.
func (q *Queue) take(ctx context.Context, n int, wait time.Duration) ([]jetstream.Msg, error) {
	if wait <= 0 {
		return q.pull(ctx, func(c jetstream.Consumer) (jetstream.MessageBatch, error) { return c.FetchNoWait(n) })
	}
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	messages, err := q.pull(ctx, func(c jetstream.Consumer) (jetstream.MessageBatch, error) {
		return c.Fetch(1, jetstream.FetchContext(waiting))
	})
	if err != nil || len(messages) == 0 || n == 1 {
		return messages, err
	}
	more, err := q.pull(ctx, func(c jetstream.Consumer) (jetstream.MessageBatch, error) { return c.FetchNoWait(n - 1) })
	if err != nil {
		q.options.Logger.Debug("claim more tasks", "error", err) // one is a claim too
	}
	return append(messages, more...), nil
}

// pull runs one fetch to its end, and creates the consumer where it is gone; the next claim finds it.
func (q *Queue) pull(ctx context.Context, fetch func(jetstream.Consumer) (jetstream.MessageBatch, error)) ([]jetstream.Msg, error) {
	s := q.current()
	batch, err := fetch(s.workers)
	if err != nil {
		return nil, err
	}
	var messages []jetstream.Msg
	for m := range batch.Messages() { // ends with the fetch, whose context and wait are its bounds
		messages = append(messages, m)
	}
	err = batch.Error()
	switch {
	case len(messages) > 0:
		return messages, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case gone(err):
		return nil, q.call(ctx, "create queue", func(ctx context.Context) error { return q.ensure(ctx, s.generation) })
	case !q.conn.IsConnected():
		return nil, errors.Join(err, nats.ErrDisconnected)
	case errors.Is(err, context.DeadlineExceeded):
		return nil, nil // the wait is over
	}
	return nil, err
}

// leases reads messages. One that holds no task of any version is nobody's: it is removed.
func (q *Queue) leases(ctx context.Context, messages []jetstream.Msg) []*Lease {
	leases := make([]*Lease, 0, len(messages))
	for _, m := range messages {
		task, err := decodeTask(m.Data())
		if err != nil {
			q.options.Logger.Error("removed a message that is no task", "subject", m.Subject(), "error", err)
			_ = m.Term() // or it comes back, and is removed then
			continue
		}
		l := &Lease{Task: task, queue: q, data: m.Data(), reply: m.Reply()}
		if meta, err := m.Metadata(); err == nil {
			l.Sequence, l.Delivery = meta.Sequence.Stream, meta.NumDelivered
		}
		leases = append(leases, l)
	}
	return leases
}

// Trust is until when the holder may write. It is in the past once the lease is released. Once it is, it stays so.
func (l *Lease) Trust() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.trust
}

// Trusting is a context that ends when Trust is over, however often that was put off until then. Its deadline is Trust as of the question:
// a process that was frozen runs on before its timers do.
func (l *Lease) Trusting(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	var timer *time.Timer
	timer = time.AfterFunc(math.MaxInt64, func() {
		if left := time.Until(l.Trust()); left > 0 && ctx.Err() == nil {
			timer.Reset(left)
			return
		}
		cancel(context.DeadlineExceeded)
	})
	timer.Reset(time.Until(l.Trust()))
	return trusting{ctx, l}, func() {
		timer.Stop()
		cancel(nil)
	}
}

type trusting struct {
	context.Context
	lease *Lease
}

// Deadline implements context.Context.
func (t trusting) Deadline() (time.Time, bool) { return t.lease.Trust(), true }

// Extend keeps the lease for another LeaseTime.
func (l *Lease) Extend(ctx context.Context) error { return l.queue.Extend(ctx, l) }

// Extend keeps many leases at the cost of one request. After an error all keep the trust they had.
func (q *Queue) Extend(ctx context.Context, leases ...*Lease) error {
	if len(leases) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, q.trust()) // an answer after that is worth nothing
	defer cancel()
	anchor, reconnects := time.Now(), q.conn.Stats().Reconnects
	last := len(leases) - 1
	for _, l := range leases[:last] {
		if err := q.conn.Publish(l.reply, ackProgress); err != nil {
			return q.explain("extend leases", err)
		}
	}
	if _, err := q.conn.RequestWithContext(ctx, leases[last].reply, ackProgress); err != nil {
		return q.explain("extend leases", err)
	}
	if q.conn.Stats().Reconnects != reconnects { // the answer says nothing of what went into the old connection
		return q.explain("extend leases", nats.ErrDisconnected)
	}
	for _, l := range leases {
		l.trustFrom(anchor, q.trust())
	}
	return nil
}

// trustFrom counts an extension that was sent at anchor. One that came too late revives nothing: the server takes it also from a holder
// whose lease went to another one meanwhile.
func (l *Lease) trustFrom(anchor time.Time, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.claimed && anchor.After(l.trust) {
		return
	}
	l.claimed = true
	if t := anchor.Add(d); t.After(l.trust) {
		l.trust = t
	}
}

// Release gives the lease up: the task is done, until somebody offers it again.
func (l *Lease) Release(ctx context.Context) error {
	l.mu.Lock()
	l.trust = time.Time{}
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, l.queue.callTime)
	defer cancel()
	_, err := l.queue.conn.RequestWithContext(ctx, l.reply, ackDone)
	if errors.Is(err, nats.ErrNoResponders) {
		return nil // the whole stream is gone, and the lease with it
	}
	return l.queue.explain("release "+l.Task.String(), err)
}

// HandBack releases the lease with work left: the task waits again, behind all others.
func (l *Lease) HandBack(ctx context.Context) error {
	if err := l.Release(ctx); err != nil {
		return err
	}
	_, err := l.queue.offer(ctx, l.Task, l.data) // false: a coordinator was faster
	return err
}
