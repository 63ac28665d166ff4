package kafka

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/kferry/kferry/shared/kafka/login"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// mostAnswer bounds an answer. It is what a broker takes for a request by default (socket.request.max.bytes), so no larger batch is in a log.
	mostAnswer = 100 << 20
	// mostGreeting bounds what comes before either side knows the other: versions, and the login's messages.
	mostGreeting = 1 << 20
	// unseen is how long an answer may say it is and be made room for before it is there: what a fetch asks for fits.
	unseen = 16 << 20
	// headerBytes begin a request: its length, kind, version and number.
	headerBytes = 12
)

// A guard is a connection whose answers hold what they say they hold, see shape, or end it.
type guard struct {
	net.Conn
	address string
	in      *bufio.Reader
	body    io.Reader // of the answer: in, or what was read from there
	rest    []byte    // of an answer that its reader had no room for
	begun   bool      // its length has been read
	size    int

	mu      sync.Mutex // guards what follows
	number  int32      // of the next request
	pending map[int32]shapeKey
	raw     bool // what was written last was no request: before Kafka 1.0 a login's messages go alone
}

// guarded is a dialer of such connections.
func guarded(dial login.Dial) login.Dial {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &guard{Conn: conn, address: address, in: bufio.NewReader(conn), pending: map[int32]shapeKey{}}, nil
	}
}

// Write is part of net.Conn. franz-go writes a request as a whole.
func (g *guard) Write(b []byte) (int, error) {
	g.note(b)
	return g.Conn.Write(b)
}

// note remembers what a request's answer will be.
func (g *guard) note(b []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.raw = len(b) < headerBytes || int32(binary.BigEndian.Uint32(b[8:])) != g.number || kmsg.ResponseForKey(int16(binary.BigEndian.Uint16(b[4:]))) == nil
	if g.raw {
		return
	}
	g.pending[g.number] = shapeKey{int16(binary.BigEndian.Uint16(b[4:])), int16(binary.BigEndian.Uint16(b[6:]))}
	if g.number++; g.number < 0 { // as franz-go counts
		g.number = 0
	}
}

// Read is part of net.Conn. One at a time reads: first a length, and then, with room for it, what is so long.
func (g *guard) Read(b []byte) (int, error) {
	if len(g.rest) == 0 && !g.begun {
		var length [4]byte
		if _, err := io.ReadFull(g.in, length[:]); err != nil {
			return 0, err
		}
		g.size = int(int32(binary.BigEndian.Uint32(length[:])))
		// franz-go refuses any other, and says what may be at the other end.
		g.begun = g.size > 0 && g.size <= mostAnswer
		g.rest, g.body = length[:], g.in
		if g.begun && g.size > unseen {
			whole := new(bytes.Buffer)
			if _, err := io.CopyN(whole, g.in, int64(g.size)); err != nil {
				return 0, err
			}
			g.body = whole
		}
	}
	if len(g.rest) == 0 {
		g.begun = false
		answer := b
		if len(answer) < g.size {
			answer = make([]byte, g.size)
		}
		answer = answer[:g.size]
		if err := g.answer(answer); err != nil {
			return 0, err
		}
		if len(b) >= g.size {
			return g.size, nil
		}
		g.rest = answer
	}
	n := copy(b, g.rest)
	g.rest = g.rest[n:]
	return n, nil
}

// answer reads one, and walks it.
func (g *guard) answer(b []byte) error {
	g.mu.Lock()
	raw := g.raw
	g.mu.Unlock()
	if raw {
		if len(b) > mostGreeting {
			return fmt.Errorf("%s answers a login with %d bytes, more than %d", g.address, len(b), mostGreeting)
		}
		_, err := io.ReadFull(g.body, b)
		return err
	}
	if len(b) < 4 {
		return fmt.Errorf("%s answers with %d bytes, fewer than any answer has", g.address, len(b))
	}
	if _, err := io.ReadFull(g.body, b[:4]); err != nil {
		return err
	}
	number := int32(binary.BigEndian.Uint32(b))
	g.mu.Lock()
	to, asked := g.pending[number]
	delete(g.pending, number)
	g.mu.Unlock()
	if !asked {
		return fmt.Errorf("%s answers request %d, which was not made", g.address, number)
	}
	if most := to.most(); len(b) > most {
		return fmt.Errorf("%s answers %s with %d bytes, more than %d", g.address, kmsg.NameForKey(to.key), len(b), most)
	}
	if _, err := io.ReadFull(g.body, b[4:]); err != nil {
		return err
	}
	if err := to.check(b[4:]); err != nil {
		return fmt.Errorf("%s: answer of %d bytes to %s, version %d: %w", g.address, len(b), kmsg.NameForKey(to.key), to.version, err)
	}
	return nil
}
