package local

import (
	"context"
	"net"
	"os"
	"sync"
	"syscall"
)

// ErrCut is what a process meets that dials after its Line was cut: what a real network says, since clients wait before they try
// again only where they recognise it.
var ErrCut error = &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}

// A Line is everything that one process is connected to. Cutting it is what kill -9 looks like from outside: every connection ends at
// once, and none comes back.
type Line struct {
	dial Dial
	nats *NATS

	mu    sync.Mutex // guards the fields below
	conns map[*lineConn]struct{}
	cut   bool
}

func newLine(dial Dial, nats *NATS) *Line {
	return &Line{dial: dial, nats: nats, conns: make(map[*lineConn]struct{})}
}

// Dial connects to a broker.
func (l *Line) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := l.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return l.carry(conn)
}

// InProcessConn connects to the installation's NATS server; a Line is a lease.Options.InProcess.
func (l *Line) InProcessConn() (net.Conn, error) {
	conn, err := l.nats.InProcessConn()
	if err != nil {
		return nil, err
	}
	return l.carry(conn)
}

// Cut ends all connections, and every one to come.
func (l *Line) Cut() {
	l.mu.Lock()
	conns := l.conns
	l.conns, l.cut = nil, true
	l.mu.Unlock()
	for conn := range conns {
		conn.Conn.Close()
	}
}

// carry puts an open connection on the line.
func (l *Line) carry(conn net.Conn) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		conn.Close()
		return nil, ErrCut
	}
	carried := &lineConn{conn, l}
	l.conns[carried] = struct{}{}
	return carried, nil
}

type lineConn struct {
	net.Conn
	line *Line
}

// Close takes the connection off its line, so that a long-lived one holds no dead connections.
func (c *lineConn) Close() error {
	c.line.mu.Lock()
	delete(c.line.conns, c)
	c.line.mu.Unlock()
	return c.Conn.Close()
}
