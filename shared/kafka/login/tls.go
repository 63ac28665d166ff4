package login

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/kferry/kferry/shared/spec"
)

const (
	// connectWithin is for a connection and its handshake together. A frozen peer takes connections, and says nothing.
	connectWithin = 4 * time.Second
	// failurePause is how long a failed handshake stands for those that come after it: a thousand partitions ask at one time.
	failurePause = time.Second
	mostFailures = 1000 // addresses, which brokers make up
	// mostSessions is how many hosts may have one that is resumed.
	mostSessions = 100
)

// A gate has connections speak TLS, or not, as the login says at that moment.
type gate struct {
	login *spec.Login
	dial  Dial

	mu       sync.Mutex // guards what follows
	of       *spec.TLS  // what base is made of
	base     *tls.Config
	failures map[string]*failure // by address; since the last success there
	good     map[string]bool     // addresses whose last handshake went well
}

// secured has connections speak TLS where the login says so.
func secured(l *spec.Login, dial Dial) Dial {
	return (&gate{login: l, dial: dial}).connect
}

func (g *gate) connect(ctx context.Context, network, address string) (net.Conn, error) {
	s, err := g.login.Security()
	if err != nil {
		return nil, &failure{address: address, text: "what it takes can't be had", cause: err}
	}
	if s.TLS == nil {
		conn, err := g.dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &first{Conn: conn, look: func(b []byte, err error) error { return answerToPlain(address, b, err) }}, nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	base, err := g.config(s.TLS, address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectWithin)
	defer cancel()
	conn, err := g.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	h := &handshake{of: s.TLS, host: host, address: address}
	secure := tls.Client(conn, h.config(base))
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%s took the connection and said nothing: it is frozen, or does not speak TLS (security.protocol): %w", address, err)
		}
		return nil, g.failed(h.explain(err))
	}
	g.succeeded(address)
	return &first{Conn: secure, look: func(_ []byte, err error) error {
		if alertOf(err) == nil {
			return err
		}
		return g.failed(h.explain(err)) // TLS 1.3 tells a client after its handshake what is wrong with it
	}}, nil
}

// config is what all connections of a login share, unless the last handshake with the address has just failed.
func (g *gate) config(t *spec.TLS, address string) (*tls.Config, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.of == nil || g.of != t && !same(g.of, t) {
		g.base, g.failures, g.good = newConfig(t), map[string]*failure{}, map[string]bool{}
	}
	g.of = t
	if f := g.failures[address]; f != nil && time.Since(f.at) < failurePause {
		return nil, f
	}
	return g.base, nil
}

// failed notes a failure. Where others could be secured, franz-go is to ask one of them instead; where none could, it is to say so at once.
func (g *gate) failed(f *failure) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.good, f.address)
	if len(g.failures) >= mostFailures {
		clear(g.failures)
	}
	f.at, f.next = time.Now(), len(g.good) > 0
	g.failures[f.address] = f
	return f
}

func (g *gate) succeeded(address string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.failures, address)
	if len(g.good) >= mostFailures {
		clear(g.good)
	}
	g.good[address] = true
}

// same says that the same files were read again.
func same(a, b *spec.TLS) bool {
	return slices.EqualFunc(a.Roots, b.Roots, (*x509.Certificate).Equal) && (a.Roots == nil) == (b.Roots == nil) &&
		sameCertificate(a.Certificate, b.Certificate) && a.AnyName == b.AnyName &&
		a.MinVersion == b.MinVersion && a.MaxVersion == b.MaxVersion && slices.Equal(a.CipherSuites, b.CipherSuites)
}

func sameCertificate(a, b *tls.Certificate) bool {
	if a == nil || b == nil {
		return a == b
	}
	return slices.EqualFunc(a.Certificate, b.Certificate, slices.Equal[[]byte])
}

// newConfig is what does not depend on the host. Sessions are resumed with the same certificates only, and checked again then.
func newConfig(t *spec.TLS) *tls.Config {
	config := &tls.Config{
		MinVersion: t.MinVersion, MaxVersion: t.MaxVersion, CipherSuites: t.CipherSuites,
		InsecureSkipVerify: true, // verify does it, as Java does
		ClientSessionCache: tls.NewLRUClientSessionCache(mostSessions),
	}
	if t.Roots != nil {
		config.RootCAs = x509.NewCertPool()
		for _, root := range t.Roots {
			config.RootCAs.AddCert(timeless(root))
		}
	}
	return config
}

// timeless is a certificate that was never too early and is never too late. As in Java, and in RFC 5280, somebody who is trusted by name is
// trusted whatever the dates; that they are past is a warning about the truststore.
func timeless(c *x509.Certificate) *x509.Certificate {
	trusted := *c
	trusted.NotBefore, trusted.NotAfter = time.Time{}, time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
	return &trusted
}

// Config is how to speak TLS to a host.
func Config(t *spec.TLS, host string) *tls.Config {
	return (&handshake{of: t, host: host, address: host}).config(newConfig(t))
}

// A handshake is one with a host, and remembers what a failure is explained by.
type handshake struct {
	of            *spec.TLS
	host, address string

	seen    []*x509.Certificate         // the host's
	request *tls.CertificateRequestInfo // what the host wants of the client; nil for nothing
	fits    error                       // why the client's certificate is not what it wants
}

func (h *handshake) config(base *tls.Config) *tls.Config {
	config := base.Clone()
	config.ServerName = h.host
	config.GetClientCertificate = h.certificate
	config.VerifyConnection = func(state tls.ConnectionState) error {
		h.seen = state.PeerCertificates
		return h.verify(config.RootCAs)
	}
	return config
}

// certificate is the client's, where the host takes certificates of its issuer. As in Java the host gets none otherwise.
func (h *handshake) certificate(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	h.request = request
	if h.of.Certificate == nil {
		return &tls.Certificate{}, nil
	}
	if h.fits = request.SupportsCertificate(h.of.Certificate); h.fits != nil {
		return &tls.Certificate{}, nil
	}
	return h.of.Certificate, nil
}

// verify checks the host's certificate: its chain, dates, and purpose, and its name unless any will do.
func (h *handshake) verify(roots *x509.CertPool) error {
	if len(h.seen) == 0 {
		return errors.New("there is no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range h.seen[1:] {
		between.AddCert(c)
	}
	leaf := h.seen[0]
	if slices.ContainsFunc(h.of.Roots, leaf.Equal) {
		leaf = timeless(leaf)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between})
	if err != nil || h.of.AnyName {
		return err
	}
	return nameFits(h.host, chains)
}

// nameFits checks the name as Java does. A certificate without any name of DNS in its extension has it in its subject: Go takes no such
// certificate, of which old clusters are full. The authority vouches for both alike; one that is bound to names is believed only where the
// bounds have been checked, which is in the extension.
func nameFits(host string, chains [][]*x509.Certificate) error {
	c := chains[0][0]
	err := c.VerifyHostname(host)
	if err == nil || len(c.DNSNames) > 0 || net.ParseIP(host) != nil || c.Subject.CommonName == "" {
		return err
	}
	unbound := func(chain []*x509.Certificate) bool { return !slices.ContainsFunc(chain, constrained) }
	if !slices.ContainsFunc(chains, unbound) {
		return err
	}
	if (&x509.Certificate{DNSNames: []string{c.Subject.CommonName}}).VerifyHostname(host) == nil {
		return nil
	}
	return err
}

func constrained(c *x509.Certificate) bool {
	return len(c.PermittedDNSDomains) > 0 || len(c.ExcludedDNSDomains) > 0
}

// first is a connection whose first answer is looked at.
type first struct {
	net.Conn
	look func(b []byte, err error) error
}

// Read is part of net.Conn. One at a time reads.
func (f *first) Read(b []byte) (int, error) {
	n, err := f.Conn.Read(b)
	if f.look != nil && (n > 0 || err != nil) {
		look := f.look
		f.look = nil
		if found := look(b[:n], err); found != err {
			return 0, found
		}
	}
	return n, err
}
