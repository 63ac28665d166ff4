package lease

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/spec"
)

// DefaultLeaseTime is how long a silent worker keeps its leases.
const DefaultLeaseTime = 4 * time.Second

// Bounds of every call.
const (
	defaultCallTime = 5 * time.Second // from the call to its answer or an error, unless the options have another one
	minLeaseTime    = 100 * time.Millisecond
	maxPulls        = 10_000 // claims waiting at one time, over all workers
	asks            = 5      // for one thing, of a server that doesn't answer, in the time of a call
)

// NATS' errors for more replicas than it has servers.
const (
	codeNoPeers      = 10005
	codeNotClustered = 10074
)

// What callers decide by.
var (
	// ErrLost means that another holder was faster. The run ends, and whatever it had not committed is not counted.
	ErrLost = errors.New("lost to another worker")
	// ErrNoCursor means that a partition has never been copied by this flow.
	ErrNoCursor = errors.New("no cursor")
	// ErrNotLoaded means that nobody can say yet, because NATS came up empty. Hand the lease back.
	ErrNotLoaded = errors.New("cursors are not loaded from the offsets topic yet")
	// ErrUnreachable means that NATS did not answer.
	ErrUnreachable = errors.New("queue is unreachable")
)

// Options say which NATS a queue lives on.
type Options struct {
	// NATS is the server and how to log in. With InProcess only the login counts.
	NATS spec.NATS
	// InProcess is a server in this process: a *local.NATS.
	InProcess interface{ InProcessConn() (net.Conn, error) }
	// Name tells installations on one NATS apart. Default "kferry".
	Name string
	// Client is how NATS' own reports call this connection. Default Name.
	Client string
	// Replicate has streams that are there moved to as many servers as NATS.Replicas says. New ones are created so in any case.
	Replicate bool
	// LeaseTime after which a silent worker's leases come back; the same in all processes. Default DefaultLeaseTime.
	LeaseTime time.Duration
	// Logger hears of lost connections and stores. Default: nobody.
	Logger *slog.Logger
}

// A Queue holds the tasks and cursors of one installation. It is safe for concurrent use.
type Queue struct {
	options Options
	server  string // for errors; never holds a password
	self    string // what tells it from others where they talk to each other
	conn    *nats.Conn
	js      jetstream.JetStream
	api     string // what the subjects of JetStream's API begin with
	trouble *trouble

	callTime time.Duration

	ensuring chan struct{} // of capacity 1: one process creates what is missing once, not once per call; callers can give up

	mu      sync.Mutex              // guards what follows
	store   store                   // as last found or created
	cursors map[cursorsKey]*Cursors // one for each flow, since their callers share requests
	depth   struct {                // the last answer of Depth
		Depth
		asked time.Time
	}

	states *view[Task, State]
}

// A store is what NATS keeps for an installation. All of it is found by name, so a store that was wiped and created again is
// reached through the same handles; generation only tells whether somebody else has created it since one looked.
type store struct {
	generation      int
	tasks           jetstream.Stream
	workers         jetstream.Consumer
	cursors, states bucket
}

type cursorsKey struct {
	flow   string
	target *kafka.Cluster
}

var validName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

// Open connects to NATS and creates the stream, consumer and buckets that are missing. It waits for a server for five seconds;
// once open, a queue reconnects for ever.
func Open(ctx context.Context, o Options) (*Queue, error) {
	if o.Name == "" {
		o.Name = "kferry"
	}
	if !validName.MatchString(o.Name) {
		return nil, fmt.Errorf("open queue: name %q: use 1 to 64 letters, digits, - and _ (NATS names streams and buckets by it)", o.Name)
	}
	if o.LeaseTime == 0 {
		o.LeaseTime = DefaultLeaseTime
	}
	if o.LeaseTime < minLeaseTime {
		return nil, fmt.Errorf("open queue: lease time %s: use at least %s (%s is usual)", o.LeaseTime, minLeaseTime, DefaultLeaseTime)
	}
	if o.Client == "" {
		o.Client = o.Name
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	q := &Queue{
		options: o, server: serverOf(o), self: newSelf(), cursors: map[cursorsKey]*Cursors{}, ensuring: make(chan struct{}, 1),
		callTime: cmp.Or(o.NATS.Timeout, defaultCallTime),
	}
	q.trouble = &trouble{options: o, server: q.server, told: map[string]time.Time{}}
	q.states = newView(q, statesOf, "*.*.*.*", decodeState)
	if err := q.connect(); err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	if err := q.call(ctx, "open queue", func(ctx context.Context) error { return q.ensure(ctx, 0) }); err != nil {
		q.Close()
		return nil, err
	}
	return q, nil
}

// Close drops the connection. Leases that were not released come back after their time.
func (q *Queue) Close() { q.conn.Close() }

// LeaseTime is how long a lease lasts on the server without an extension.
func (q *Queue) LeaseTime() time.Duration { return q.options.LeaseTime }

// trust is how long a holder may rely on a lease, see the package comment.
func (q *Queue) trust() time.Duration { return q.options.LeaseTime * 3 / 4 }

// Purge forgets every task, and that cursors were loaded. It is for a process that owns its queue alone: at its start nobody
// can hold a lease, and MM2 may have copied in the meantime, which only Load finds out.
func (q *Queue) Purge(ctx context.Context) error {
	return q.call(ctx, "purge queue", func(ctx context.Context) error {
		s := q.current()
		if err := s.tasks.Purge(ctx); err != nil {
			return err
		}
		marks, err := s.cursors.changes(ctx, q.conn, loadedKey("*"), 0)
		if err != nil {
			return err
		}
		for _, mark := range marks {
			if err := s.cursors.kv.Delete(ctx, mark.key); err != nil {
				return err
			}
		}
		return nil
	})
}

func (q *Queue) current() store {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.store
}

// call runs a step within callTime. A step that finds its stream, consumer or bucket gone runs once more after they were created:
// NATS has lost its store then, and everybody goes on with an empty one.
func (q *Queue) call(ctx context.Context, name string, step func(context.Context) error) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, q.callTime)
	defer cancel()
	seen := q.current().generation
	err := step(ctx)
	if gone(err) {
		if err = q.ensure(ctx, seen); err == nil {
			err = step(ctx)
		}
	}
	return q.explainSince(began, name, err)
}

// gone says whether an error means that there is nothing on the server under a name of ours.
func gone(err error) bool {
	for _, sign := range []error{
		nats.ErrNoResponders, jetstream.ErrNoStreamResponse, jetstream.ErrStreamNotFound, jetstream.ErrConsumerNotFound,
		jetstream.ErrConsumerDeleted, jetstream.ErrConsumerDoesNotExist, jetstream.ErrBucketNotFound,
	} {
		if errors.Is(err, sign) {
			return true
		}
	}
	return false
}

// explain names the step, and the server where it is the server's fault.
func (q *Queue) explain(name string, err error) error {
	return q.explainSince(time.Now().Add(-q.callTime), name, err)
}

// explainSince is explain for a call that began then: what NATS said meanwhile, to nobody in particular, may be why.
func (q *Queue) explainSince(began time.Time, name string, err error) error {
	switch {
	case err == nil:
		return nil
	case !q.conn.IsConnected() || errors.Is(err, nats.ErrTimeout) || errors.Is(err, context.DeadlineExceeded) || gone(err):
		if why := q.trouble.why(began); why != nil {
			err = fmt.Errorf("%w (%w)", why, err)
		}
		return fmt.Errorf("%s: %w at %s: %w", name, ErrUnreachable, q.server, err)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// ensure creates what is missing, unless somebody did since generation seen.
func (q *Queue) ensure(ctx context.Context, seen int) error {
	select {
	case q.ensuring <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-q.ensuring }()
	if q.current().generation != seen {
		return nil
	}
	s, err := q.create(ctx)
	if err != nil {
		return err
	}
	if was := q.current().tasks; was != nil && !was.CachedInfo().Created.Equal(s.tasks.CachedInfo().Created) { // else it was only away
		q.options.Logger.Warn("queue has lost its store; starting with an empty one", "server", q.server)
	}
	s.generation = seen + 1
	q.mu.Lock()
	defer q.mu.Unlock()
	q.store = s
	return nil
}

func (q *Queue) create(ctx context.Context) (store, error) {
	tasks, err := q.createStream(ctx, jetstream.StreamConfig{
		Name:                 q.options.Name + "-tasks",
		Description:          "tasks of kferry: one message while there is work",
		Subjects:             []string{q.options.Name + ".task.>"},
		Retention:            jetstream.WorkQueuePolicy,
		Storage:              jetstream.FileStorage,
		MaxMsgsPerSubject:    1,
		Discard:              jetstream.DiscardNew, // refuses a second offer …
		DiscardNewPerSubject: true,                 // … of one task. No other limit: that of a stream would refuse work
	})
	if err != nil {
		return store{}, err
	}
	workers, err := q.createConsumer(ctx, tasks)
	if err != nil {
		return store{}, fmt.Errorf("create consumer workers: %w", err)
	}
	cursors, err := q.createBucket(ctx, q.options.Name+"-cursors", jetstream.FileStorage)
	if err != nil {
		return store{}, err
	}
	states, err := q.createBucket(ctx, q.options.Name+"-states", jetstream.MemoryStorage)
	if err != nil {
		return store{}, err
	}
	return store{tasks: tasks, workers: workers, cursors: cursors, states: states}, q.replicate(ctx, tasks, cursors.stream, states.stream)
}

// replicate has streams that were there before kept by as many servers as the options say, the consumer with its stream.
func (q *Queue) replicate(ctx context.Context, streams ...jetstream.Stream) error {
	var failed error
	for _, s := range streams {
		cfg := s.CachedInfo().Config
		if !q.options.Replicate || q.options.NATS.Replicas == 0 || cfg.Replicas == q.options.NATS.Replicas {
			continue
		}
		was := cfg.Replicas
		cfg.Replicas = q.options.NATS.Replicas
		_, err := q.js.UpdateStream(ctx, cfg)
		if err == nil {
			q.options.Logger.Info("queue is kept by another number of servers", "stream", cfg.Name, "replicas", cfg.Replicas, "before", was)
		}
		failed = errors.Join(failed, q.tooMany(wrap(err, "set replicas of stream %s", cfg.Name)))
	}
	return failed
}

// tooMany says what to do where NATS has not as many servers as are to keep the queue.
func (q *Queue) tooMany(err error) error {
	var api *jetstream.APIError
	if errors.As(err, &api) && (api.ErrorCode == codeNotClustered || api.ErrorCode == codeNoPeers) {
		return fmt.Errorf("%w; NATS_REPLICAS is %d: set it to the number of servers that keep the queue, 1 where NATS is no cluster",
			err, q.options.NATS.Replicas)
	}
	return err
}

// createConsumer creates the one that workers share, or takes the one that is there: so that who may not create any can do with one.
func (q *Queue) createConsumer(ctx context.Context, tasks jetstream.Stream) (jetstream.Consumer, error) {
	const name = "workers"
	c, err := answered(ctx, q, func(ctx context.Context) (jetstream.Consumer, error) { return tasks.Consumer(ctx, name) })
	if err == nil && c.CachedInfo().Config.AckWait == q.options.LeaseTime {
		return c, nil
	}
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil, err
	}
	return tasks.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
		Durable:       name,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       q.options.LeaseTime,
		MaxDeliver:    -1, // a task that kills its workers is the business of its state, not of the queue
		MaxAckPending: -1, // leases held
		MaxWaiting:    maxPulls,
	})
}

// createStream creates a stream, or takes the one that is there as it is. A new one counts from a number that no earlier one of
// its name has reached: the microseconds since 1970.
func (q *Queue) createStream(ctx context.Context, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
	cfg.Replicas = max(1, q.options.NATS.Replicas)
	find := func(ctx context.Context) (jetstream.Stream, error) { return q.js.Stream(ctx, cfg.Name) }
	s, err := answered(ctx, q, find)
	if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return s, wrap(err, "find stream %s", cfg.Name)
	}
	cfg.FirstSeq = uint64(time.Now().UnixMicro())
	s, err = q.js.CreateStream(ctx, cfg)
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another process was faster
		s, err = answered(ctx, q, find)
	}
	return s, q.tooMany(wrap(err, "create stream %s", cfg.Name))
}

// answered asks again, until ctx ends, for what nobody answers: servers of a cluster keep silent about what another process has just had
// created, and about what has lost its leader.
func answered[T any](ctx context.Context, q *Queue, ask func(context.Context) (T, error)) (T, error) {
	for {
		try, cancel := context.WithTimeout(ctx, q.callTime/asks)
		answer, err := ask(try)
		cancel()
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, nats.ErrTimeout) {
			return answer, err
		}
	}
}

func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}

// serverOf is the server for people. Its URL holds no login.
func serverOf(o Options) string {
	if o.InProcess != nil {
		return "the server in this process"
	}
	return o.NATS.URL
}
