// Package kafka is one cluster: its topics, its offsets, and record batches as bytes, fetched and produced for many
// partitions at once. franz-go keeps the connections and the list of brokers, and speaks the protocol.
//
// Invariants:
//   - Nothing that is produced is sent twice. An error, whatever it says, leaves open whether the batch has landed.
//   - Reads are repeated while a leader moves, for a bounded time; then their error says what did not come back.
//   - A request carries the topic's id where the broker takes ids, and ids are compared here where it does not, so that a
//     topic deleted and created again under its name is an error, never a continuation.
//   - Partitions share requests: at most one fetch in flight per broker, a few produce requests, and one request of each
//     other kind. The answer to one partition never depends on another's.
//   - Bytes in flight come out of one Budget.
//   - Nothing ever creates a topic but CreateTopic.
//   - No answer costs more time or memory than its bytes explain, whatever it says of itself, see shape and guard. Only what was asked for
//     is taken from it.
//
// A broker serves a connection's requests one after the other, and throttles by connection. franz-go has three connections
// to a broker for what is done here: for fetches, for produce requests, and for the rest. It honours the throttle time of
// every answer, and writes nothing at all to a connection until it has passed. What replicas may hold up goes another way, see aside.
//
// Non-obvious, each met by a test:
//   - One partition whose followers are silent holds up its produce request until the request's timeout, and with it everything that
//     comes behind on the connection, cursors and other topics alike.
//   - A broker that is frozen rather than dead takes connections and requests. Whoever asks "any broker" asks that one too, a client that
//     is just getting to know the cluster included.
//   - A request that was given up may still be read by franz-go: ask again with a copy.
//   - Where a quota is used up a broker answers a fetch with no partition at all, not even those that were asked for, and throws away
//     what it has read. That is no error, and the fetches after it are better small.
package kafka

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kferry/kferry/shared/kafka/login"
	"github.com/kferry/kferry/shared/spec"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TopicPartition names a partition.
type TopicPartition struct {
	Topic     string
	Partition int32
}

func (tp TopicPartition) String() string { return fmt.Sprintf("%s-%d", tp.Topic, tp.Partition) }

// TopicID tells a topic from one of the same name created after it was deleted. It is zero where a cluster has no ids.
type TopicID [16]byte

// String is the id as Kafka's tools print it.
func (id TopicID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// Zero says that there is no id.
func (id TopicID) Zero() bool { return id == TopicID{} }

// Options of a cluster. Each may be left out.
type Options struct {
	ClientID string       // default "kferry"
	Budget   *Budget      // shared by all clusters of a process; default 32 MiB for this one
	Logger   *slog.Logger // default silent; errors are returned, so only details go here
	// Dialer opens connections, in place of a net.Dialer.
	Dialer func(ctx context.Context, network, address string) (net.Conn, error)
}

const (
	// defaultBudget is that of a cluster which is given none.
	defaultBudget = 32 << 20
	// dialTimeout leaves time for a second server within answerTimeout.
	dialTimeout = 4 * time.Second
	// firstTry is how long the first broker that is asked for metadata may take, before another one is asked as well: it may be frozen,
	// and everybody who misses something waits for the answer.
	firstTry = 2500 * time.Millisecond
	// answerTimeout bounds a request that franz-go may repeat, and a broker's silence on one that it does not.
	answerTimeout = 10 * time.Second
)

// A Cluster is the client of one cluster, for any number of goroutines.
type Cluster struct {
	alias   string
	servers []string
	client  *kgo.Client
	opts    []kgo.Opt // of client
	login   *login.Client
	budget  *Budget
	topics  *metadata
	as      *spec.Login

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	tasks  sync.WaitGroup        // what runs in the background, awaited by Close
	dial   atomic.Pointer[error] // why the last attempt to connect failed; nil when it did not
	id     atomic.Pointer[string]

	throttled atomic.Int64 // nanoseconds

	introducing chan struct{} // of capacity 1: a producer id is being asked for

	mu        sync.Mutex         // guards what follows
	closed    bool               // no background task starts any more
	asides    [lanes]*kgo.Client // see aside; nil until they are needed
	fetchers  map[int32]*fetcher
	producers map[int32]*producer
	offsets   map[offsetsKey]*group[*offsetCall]
}

// Open prepares a client. It does not touch the network.
func Open(cl spec.Cluster, o Options) (*Cluster, error) {
	c := &Cluster{
		alias:     cl.Alias,
		servers:   cl.BootstrapServers,
		budget:    o.Budget,
		fetchers:  make(map[int32]*fetcher),
		producers: make(map[int32]*producer),
		offsets:   make(map[offsetsKey]*group[*offsetCall]),

		introducing: make(chan struct{}, 1),
	}
	if c.budget == nil {
		c.budget = NewBudget(defaultBudget)
	}
	c.topics = newMetadata(c)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.opts = c.options(o)
	if o.Dialer == nil {
		o.Dialer = (&net.Dialer{Timeout: dialTimeout}).DialContext
	}
	who, err := login.New(cl.Login, telling(cl, o))
	if err != nil {
		c.cancel()
		return nil, fmt.Errorf("cluster %s: %w", cl.Alias, err)
	}
	c.login, c.as = who, cl.Login
	c.opts = append(c.opts, who.Options()...)
	c.opts = append(c.opts, kgo.Dialer(guarded(who.Dial)), kgo.BrokerMaxReadBytes(mostAnswer))
	client, err := kgo.NewClient(c.opts...)
	if err != nil {
		c.cancel()
		return nil, fmt.Errorf("cluster %s: %w", cl.Alias, err)
	}
	c.client = client
	c.tasks.Go(func() { who.Run(c.ctx) })
	return c, nil
}

func (c *Cluster) options(o Options) []kgo.Opt {
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.servers...),
		kgo.ClientID("kferry"),
		kgo.SoftwareNameAndVersion("kferry", "1"),
		kgo.RequestTimeoutOverhead(answerTimeout),
		kgo.RetryTimeout(answerTimeout),
		kgo.WithHooks(dialHook{c}, throttleHook{c}),
		kgo.DisableClientMetrics(),
		kgo.MaxVersions(groupVersions()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProduceRequestTimeout(produceTimeout * time.Millisecond),
		// Write ends with its context. What it leaves behind can't land after what is written next, since franz-go takes a new
		// producer epoch then.
		kgo.AllowIdempotentProduceCancellation(),
	}
	if o.ClientID != "" {
		opts = append(opts, kgo.ClientID(o.ClientID))
	}
	if o.Logger != nil {
		opts = append(opts, kgo.WithLogger(logger{o.Logger.With("cluster", c.alias)}))
	}
	return opts
}

// Close ends what is under way, with ErrClosed, and waits for it.
func (c *Cluster) Close() {
	c.mu.Lock()
	c.closed = true
	asides := c.asides
	c.mu.Unlock()
	c.cancel()
	c.client.Close()
	for _, aside := range asides {
		if aside != nil {
			aside.Close()
		}
	}
	c.tasks.Wait()
}

// A lane is what goes aside.
type lane int

const (
	suspects lane = iota // of Produce, see producer
	writes               // of Write
	lanes
)

// aside is a client with connections of its own, for requests that replicas may hold up. A broker reads nothing more from a connection
// before it has answered what it read last: on the connection of all produce requests one partition without its followers would hold up
// every other one.
func (c *Cluster) aside(l lane) *kgo.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asides[l] == nil && !c.closed {
		client, err := kgo.NewClient(c.opts...)
		if err != nil {
			panic(fmt.Sprintf("kafka: options that were good once: %v", err))
		}
		c.asides[l] = client
		// It gets to know the brokers now: later the one that it asks may be frozen, which would hold up what is to be kept going.
		c.tasks.Go(func() { _ = client.Ping(c.ctx) })
	}
	if c.asides[l] == nil {
		return c.client // which is closed, and says so
	}
	return c.asides[l]
}

// renew has the next one who asks get another client in the place of one that was refused a producer id: franz-go never asks again. Nothing
// was ever written by it.
func (c *Cluster) renew(l lane, refused *kgo.Client) {
	c.mu.Lock()
	current := c.asides[l] == refused && !c.closed
	if current {
		c.asides[l] = nil
	}
	c.mu.Unlock()
	if current {
		refused.Close()
	}
}

// start runs a task in the background. In a closed cluster its caller runs it, to learn that it is closed.
func (c *Cluster) start(task func()) {
	c.mu.Lock()
	closed := c.closed
	if !closed {
		c.tasks.Go(task)
	}
	c.mu.Unlock()
	if closed {
		task()
	}
}

// Alias is the cluster's name in the spec.
func (c *Cluster) Alias() string { return c.alias }

// ID is the cluster's own id. A cluster keeps it, so it is asked for once.
func (c *Cluster) ID(ctx context.Context) (string, error) {
	if id := c.id.Load(); id != nil {
		return *id, nil
	}
	resp, err := c.describe(ctx)
	if err != nil {
		return "", fmt.Errorf("cluster id: %w", err)
	}
	if resp.ClusterID == nil || *resp.ClusterID == "" {
		return "", fmt.Errorf("cluster %s: the brokers know no cluster id", c.alias)
	}
	c.id.Store(resp.ClusterID)
	return *resp.ClusterID, nil
}

// Brokers counts the brokers that are up.
func (c *Cluster) Brokers(ctx context.Context) (int, error) {
	resp, err := c.describe(ctx)
	if err != nil {
		return 0, fmt.Errorf("brokers: %w", err)
	}
	return len(resp.Brokers), nil
}

// Ping returns nil when a broker answers.
func (c *Cluster) Ping(ctx context.Context) error {
	_, err := c.describe(ctx)
	return err
}

// describe asks for the brokers, and for no topic.
func (c *Cluster) describe(ctx context.Context) (*kmsg.MetadataResponse, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	return c.askMetadata(ctx, req)
}

// askMetadata asks another broker where the first one that comes to mind is slow, which may be frozen.
func (c *Cluster) askMetadata(ctx context.Context, req *kmsg.MetadataRequest) (*kmsg.MetadataResponse, error) {
	limited, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	first, stop := context.WithTimeout(limited, firstTry)
	again := *req // what was given up may still be looked at
	resp, err := req.RequestWith(first, c.client)
	stop()
	if err != nil && first.Err() != nil && limited.Err() == nil {
		resp, err = again.RequestWith(limited, c.client)
	}
	return answered[*kmsg.MetadataResponse](ctx, c, resp, err)
}

// anyBroker sends a request to whichever broker, or brokers, it is for. franz-go repeats it where that can help.
func anyBroker[R kmsg.Response](ctx context.Context, c *Cluster, req kmsg.Request) (R, error) {
	limited, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	resp, err := c.client.Request(limited, req)
	return answered[R](ctx, c, resp, err)
}

// oneBroker sends a request to a broker, once.
func oneBroker[R kmsg.Response](ctx context.Context, c *Cluster, broker int32, req kmsg.Request) (R, error) {
	return through[R](ctx, c, c.client, broker, req)
}

// through is oneBroker by one of the cluster's clients.
func through[R kmsg.Response](ctx context.Context, c *Cluster, client *kgo.Client, broker int32, req kmsg.Request) (R, error) {
	resp, err := client.Broker(int(broker)).Request(ctx, req)
	return answered[R](ctx, c, resp, err)
}

func answered[R kmsg.Response](ctx context.Context, c *Cluster, resp kmsg.Response, err error) (r R, _ error) {
	switch {
	case err == nil:
		return resp.(R), nil
	case ctx.Err() != nil && c.ctx.Err() == nil:
		return r, context.Cause(ctx)
	}
	return r, c.unanswered(err)
}

// dialHook remembers why a cluster can't be reached: the error of a request that waited for it says only "deadline exceeded".
type dialHook struct{ c *Cluster }

// OnBrokerConnect is part of kgo.HookBrokerConnect.
func (h dialHook) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	switch {
	case err == nil:
		h.c.dial.Store(nil)
	case !errors.Is(err, context.Canceled):
		h.c.dial.Store(&err)
	}
}

// logger passes franz-go's messages on at debug level: what matters comes back as an error too.
type logger struct{ to *slog.Logger }

func (l logger) Level() kgo.LogLevel {
	if l.to.Enabled(context.Background(), slog.LevelDebug) {
		return kgo.LogLevelInfo
	}
	return kgo.LogLevelNone
}

func (l logger) Log(_ kgo.LogLevel, message string, keyvals ...any) {
	l.to.Debug(message, keyvals...)
}
