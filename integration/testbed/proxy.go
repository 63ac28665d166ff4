package testbed

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Direction is one way through a [Proxy].
type Direction int

const (
	Requests Direction = iota // from the client to the server
	Answers                   // from the server to the client
	directions
)

const (
	chunkBytes = 64 << 10
	// chunksInFlight bounds what one way of one connection holds back: 16 MiB, the bandwidth-delay product of 1 Gbit/s
	// over 130 ms.
	chunksInFlight = 256
)

// Proxy is the network between a client and a server. It forwards TCP connections and, when told so, delays, limits,
// stalls or cuts them. Each setting holds for open connections too and takes effect at once.
type Proxy struct {
	target   string
	listener net.Listener
	ways     [directions]way
	running  sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	links  map[*link]bool
	closed bool
}

// way is what happens to bytes in one direction, over all connections.
type way struct {
	delay   atomic.Int64 // nanoseconds
	limiter *rate.Limiter
	bytes   atomic.Int64 // forwarded so far
	cutAt   atomic.Int64 // value of bytes at which everything is cut, 0 for never

	mu      sync.Mutex    // guards stalled
	stalled chan struct{} // closed by Resume, nil while bytes flow
}

// NewProxy forwards to a server's address from one of its own; it ends with the test.
func NewProxy(t T, target string) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("proxy: %v", err)
	}
	p := &Proxy{target: target, listener: listener, links: map[*link]bool{}}
	for d := range p.ways {
		p.ways[d].limiter = rate.NewLimiter(rate.Inf, chunkBytes)
	}
	p.running.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// Addr is what clients connect to.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Delay adds a time to each direction, so twice that to a round trip. It does not limit throughput.
func (p *Proxy) Delay(each time.Duration) {
	for d := range p.ways {
		p.ways[d].delay.Store(int64(each))
	}
}

// Limit sets the bytes per second of a direction, over all connections; 0 takes the limit away.
func (p *Proxy) Limit(d Direction, bytesPerSecond int) {
	limit := rate.Limit(bytesPerSecond)
	if bytesPerSecond == 0 {
		limit = rate.Inf
	}
	p.ways[d].limiter.SetLimit(limit)
}

// Stall stops forwarding in a direction; connections stay open. Stalled answers make a client wait for requests that
// the server has carried out.
func (p *Proxy) Stall(d Direction) {
	w := &p.ways[d]
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stalled == nil {
		w.stalled = make(chan struct{})
	}
}

// Resume ends the stall of a direction.
func (p *Proxy) Resume(d Direction) {
	w := &p.ways[d]
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stalled != nil {
		close(w.stalled)
		w.stalled = nil
	}
}

// Cut breaks all connections; new ones may be made. What is held back in a delay or a stall is lost.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.cut()
	}
}

// CutAfter breaks all connections once so many more bytes have passed in a direction, so that a fault can be put inside
// of a request or between it and its answer.
func (p *Proxy) CutAfter(d Direction, bytes int64) {
	w := &p.ways[d]
	w.cutAt.Store(w.bytes.Load() + max(bytes, 1))
}

// Bytes is how many have passed in a direction.
func (p *Proxy) Bytes(d Direction) int64 { return p.ways[d].bytes.Load() }

func (p *Proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.Cut()
	p.running.Wait()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.running.Go(func() { p.serve(client) })
	}
}

// serve joins one client to the server until either side ends.
func (p *Proxy) serve(client net.Conn) {
	ctx, cancel := context.WithCancel(context.Background())
	l := &link{cancel: cancel, client: client}
	defer l.cut()
	if !p.add(l) {
		return
	}
	defer p.drop(l)
	server, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	// Closed here too, for a cut may come while both sides are silent.
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()

	var both sync.WaitGroup
	both.Go(func() { defer l.cut(); p.forward(ctx, Requests, client, server) })
	both.Go(func() { defer l.cut(); p.forward(ctx, Answers, server, client) })
	both.Wait()
}

// add refuses a connection that was accepted while the proxy closed, since nothing would cut it any more.
func (p *Proxy) add(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.links[l] = true
	return true
}

func (p *Proxy) drop(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

// link is one client's connection through the proxy.
type link struct {
	cancel context.CancelFunc
	client net.Conn
}

func (l *link) cut() {
	l.cancel()
	_ = l.client.Close()
}

// chunk is a piece of the stream with the moment it may arrive.
type chunk struct {
	bytes []byte
	due   time.Time
}

// forward reads ahead of what it writes, so that a delay holds back each byte and not the stream's pace.
func (p *Proxy) forward(ctx context.Context, d Direction, from io.Reader, to io.Writer) {
	w := &p.ways[d]
	chunks := make(chan chunk, chunksInFlight)
	p.running.Go(func() { w.readAhead(ctx, from, chunks) })
	for c := range chunks {
		if err := p.pass(ctx, w, c, to); err != nil {
			return
		}
	}
}

func (w *way) readAhead(ctx context.Context, from io.Reader, chunks chan<- chunk) {
	defer close(chunks)
	for {
		buffer := make([]byte, chunkBytes)
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		select {
		case chunks <- chunk{buffer[:n], time.Now().Add(time.Duration(w.delay.Load()))}:
		case <-ctx.Done():
			return
		}
	}
}

var errCut = errors.New("cut")

// pass writes one chunk when its time has come.
func (p *Proxy) pass(ctx context.Context, w *way, c chunk, to io.Writer) error {
	if wait := time.Until(c.due); wait > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
	if err := w.limiter.WaitN(ctx, len(c.bytes)); err != nil {
		return err
	}
	if err := w.awaitFlow(ctx); err != nil {
		return err
	}
	after := w.bytes.Add(int64(len(c.bytes)))
	at := w.cutAt.Load()
	if at == 0 || after < at {
		_, err := to.Write(c.bytes)
		return err
	}
	keep := max(0, int64(len(c.bytes))-(after-at))
	_, _ = to.Write(c.bytes[:keep])
	w.cutAt.Store(0)
	p.Cut()
	return errCut
}

func (w *way) awaitFlow(ctx context.Context) error {
	w.mu.Lock()
	stalled := w.stalled
	w.mu.Unlock()
	if stalled == nil {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-stalled:
		return nil
	}
}
