package functions_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/local"
	"github.com/kferry/kferry/shared/spec"
)

// A front has a cluster speak TLS, with whatever certificate it has at that moment.
type front struct {
	*world
	key   *ecdsa.PrivateKey // of all that it shows, and of their authorities
	now   atomic.Pointer[tls.Certificate]
	trust atomic.Pointer[spec.TLS]
	asked atomic.Int32 // handshakes that began
}

// fronted has a cluster speak TLS to workers.
func (w *world) fronted(alias string) *front {
	w.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	f := &front{world: w, key: key}
	w.fronts = map[string]*front{alias: f}
	w.logins = map[string]*spec.Login{alias: spec.LoginFunc(func() (spec.Security, error) { return spec.Security{TLS: f.trust.Load()}, nil })}
	return f
}

// present shows a certificate from now on, which ends then, and returns its authority's; trusting that is another matter.
func (f *front) present(name string, until time.Time) *x509.Certificate {
	f.Helper()
	authority := f.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name + " authority"}, NotAfter: time.Now().Add(time.Hour), IsCA: true}, nil)
	leaf := f.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: until,
	}, authority)
	f.now.Store(&tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: f.key, Leaf: leaf})
	return authority
}

func (f *front) sign(c, by *x509.Certificate) *x509.Certificate {
	f.Helper()
	c.SerialNumber, c.NotBefore, c.BasicConstraintsValid = big.NewInt(1), time.Now().Add(-time.Hour), true
	if by == nil {
		by = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, f.key.Public(), f.key)
	f.must(err)
	signed, err := x509.ParseCertificate(der)
	f.must(err)
	return signed
}

func (f *front) trusts(certificates ...*x509.Certificate) {
	f.trust.Store(&spec.TLS{Roots: certificates})
}

// before stands between a worker and the cluster.
func (f *front) before(dial local.Dial) local.Dial {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		behind, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		f.asked.Add(1)
		client, server := net.Pipe()
		sent := &buffered{Conn: server, queue: make(chan []byte, 100), closed: make(chan struct{})}
		secure := tls.Server(sent, &tls.Config{Certificates: []tls.Certificate{*f.now.Load()}})
		carry := func(to, from net.Conn) {
			_, _ = io.Copy(to, from)
			sent.Close()
			behind.Close()
		}
		go sent.run()
		go carry(behind, secure)
		go carry(secure, behind)
		return client, nil
	}
}

// A buffered connection has what a pipe lacks, and TLS counts upon: both ends may write at one time.
type buffered struct {
	net.Conn
	queue  chan []byte
	closed chan struct{}
	close  sync.Once
}

func (b *buffered) run() {
	for {
		select {
		case chunk := <-b.queue:
			_, _ = b.Conn.Write(chunk)
		case <-b.closed:
			return
		}
	}
}

func (b *buffered) Write(chunk []byte) (int, error) {
	select {
	case b.queue <- bytes.Clone(chunk):
		return len(chunk), nil
	case <-b.closed:
		return 0, net.ErrClosed
	}
}

func (b *buffered) Close() error {
	b.close.Do(func() { close(b.closed) })
	return b.Conn.Close()
}

// A certificate that ran out, or that nobody trusts, is the reason; with the right one it goes on by itself, and nothing is lost or doubled.
func TestACertificateStopsPartitionsUntilItIsMended(t *testing.T) {
	for _, side := range []string{"A", "B"} {
		t.Run(side, func(t *testing.T) {
			inWorld(t, setup{partitions: 8}, func(w *world) {
				f := w.fronted(side)
				f.trusts(f.present("first", time.Now().Add(time.Hour)))
				p := w.worker(0)
				w.stream(2 * time.Minute)
				w.complete()

				stops := func(says ...string) {
					w.Helper()
					p.hangUp()
					says = append(says, "cluster "+side)
					w.eventually("the state says why", func() bool {
						w.offerBehind()
						s, _ := w.state(0)
						return s.Reason == lease.ReasonTLS && !s.Held && !slices.ContainsFunc(says, func(words string) bool { return !strings.Contains(s.Detail, words) })
					})
				}
				goesOn := func() {
					w.Helper()
					mended := time.Now()
					w.eventually("it goes on", func() bool {
						w.offerBehind()
						_, failed := w.state(0)
						return !failed
					})
					if took := time.Since(mended); took > 10*time.Second {
						t.Errorf("went on after %v", took)
					}
				}

				until := time.Now().Add(-time.Minute)
				second := f.present("second", until)
				f.trusts(second)
				stops("CN=second for localhost, 127.0.0.1", "expired on "+until.UTC().Format("2006-01-02 15:04"))
				asked := f.asked.Load()
				for range 30 {
					w.offerBehind()
					time.Sleep(time.Second)
				}
				if each := f.asked.Load() - asked; each == 0 || each > 2*30 { // 8 partitions try every 3 s, and meet two brokers
					t.Errorf("%d handshakes in 30 s", each)
				}
				third := f.present("third", time.Now().Add(time.Hour))
				stops("CN=third", "not trusted", "CN=second authority")
				f.trusts(second, third)
				goesOn()
				time.Sleep(2 * time.Minute)
				w.complete()
				w.exact()
			})
		})
	}
}
