package testbed

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

func TestProxyForwards(t *testing.T) {
	p := NewProxy(t, echo(t))
	conn := dial(t, p)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	go conn.Write(sent)
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("echo of %d bytes is damaged: %v", len(sent), err)
	}
	if n := p.Bytes(Requests); n != int64(len(sent)) {
		t.Errorf("counted %d bytes of %d", n, len(sent))
	}
}

func TestProxyDelaysEachWay(t *testing.T) {
	p := NewProxy(t, echo(t))
	p.Delay(30 * time.Millisecond)
	conn := dial(t, p)
	start := time.Now()
	roundTrip(t, conn, "x")
	if took := time.Since(start); took < 60*time.Millisecond {
		t.Errorf("round trip took %v, want 60ms at least", took)
	}
}

func TestProxyLimits(t *testing.T) {
	p := NewProxy(t, echo(t))
	p.Limit(Requests, 1<<20)
	conn := dial(t, p)
	start := time.Now()
	go conn.Write(make([]byte, 256<<10))
	if _, err := io.ReadFull(conn, make([]byte, 256<<10)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < 150*time.Millisecond { // the first 64 KiB are free
		t.Errorf("256 KiB at 1 MiB/s took %v", took)
	}
}

func TestProxyStallsOnlyAnswers(t *testing.T) {
	p := NewProxy(t, echo(t))
	conn := dial(t, p)
	roundTrip(t, conn, "a")
	p.Stall(Answers)
	conn.Write([]byte("b"))
	Eventually(t, 5*time.Second, "the request to pass", func() bool { return p.Bytes(Requests) == 2 })
	conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, _ := conn.Read(make([]byte, 1)); n != 0 {
		t.Fatal("an answer came through a stall")
	}
	p.Resume(Answers)
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatalf("no answer after the stall: %v", err)
	}
}

func TestProxyCutsInsideOfAnAnswer(t *testing.T) {
	p := NewProxy(t, echo(t))
	conn := dial(t, p)
	p.CutAfter(Answers, 3)
	conn.Write([]byte("0123456789"))
	got, _ := io.ReadAll(conn)
	if string(got) != "012" {
		t.Errorf("got %q before the cut, want 012", got)
	}
	roundTrip(t, dial(t, p), "again")
}

// echo answers with what it reads.
func echo(t *testing.T) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	return listener.Addr().String()
}

func dial(t *testing.T, p *Proxy) net.Conn {
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func roundTrip(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
		t.Fatalf("got %q for %q: %v", got, text, err)
	}
}
