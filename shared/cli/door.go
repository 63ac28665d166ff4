package cli

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/kferry/kferry/shared/spec"
)

// Bounds of the HTTP server: whoever talks slower than this, or more, is none of ours.
const (
	httpHeader      = 5 * time.Second
	httpRead        = 10 * time.Second
	httpWrite       = 30 * time.Second
	httpIdle        = time.Minute
	httpHeaderBytes = 16 << 10
	httpBodyBytes   = 1 << 20
	httpConnections = 256 // more wait until one is closed
	httpGoodbye     = time.Second
	httpSayAgain    = time.Minute // until the log tells again of who isn't let in
)

// A door is the process' HTTP server. What is behind it either tells or changes something, and says so when it is put there; there is no
// third way to put it there. Whoever tells lets everybody in, as exporters do: what it tells holds no secret. Whoever changes lets in:
//   - those who have the token, or a certificate of the client CA, where one of them is set;
//   - otherwise, on the loopback, programs of this machine, but no web page in somebody's browser: neither one that is on another site,
//     nor one whose name was made to lead here;
//   - otherwise nobody, and the process doesn't start, unless told to be open.
//
// All of it is put there before listen.
type door struct {
	spec.HTTP
	log      *slog.Logger
	mux      *http.ServeMux
	changing []string // patterns
	listener net.Listener
	loopback bool
	tls      *tls.Config // nil is plain HTTP
	token    *watched[[sha256.Size]byte]
	saidAt   atomic.Int64
}

func newDoor(h spec.HTTP, log *slog.Logger) *door {
	return &door{HTTP: h, log: log, mux: http.NewServeMux()}
}

// tells puts there what only tells; the pattern is ServeMux's, and its method GET.
func (d *door) tells(pattern string, h http.Handler) {
	if !strings.HasPrefix(pattern, "GET /") {
		panic("cli: what tells does so by GET: " + pattern)
	}
	d.mux.Handle(pattern, h)
}

// changes puts there what changes something.
func (d *door) changes(pattern string, h http.Handler) {
	if method, _, _ := strings.Cut(pattern, " /"); !slices.Contains([]string{"POST", "PUT", "PATCH", "DELETE"}, method) {
		panic("cli: what changes something does so by POST, PUT, PATCH or DELETE: " + pattern)
	}
	d.changing = append(d.changing, pattern)
	d.mux.Handle(pattern, d.guard(h))
}

// listen takes the address before anything else starts, so that a second process on it fails at once, and so does a door that would be
// open. No address is no listener.
func (d *door) listen() (err error) {
	if d.Address == "" {
		return nil
	}
	if err := d.readSecrets(); err != nil {
		return err
	}
	l, err := net.Listen("tcp", d.Address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s is in use; give another address for metrics and health with --http host:port, or turn them off with --http off", d.Address)
	}
	if err != nil {
		return fmt.Errorf("serve metrics and health: %w", err)
	}
	if at, is := l.Addr().(*net.TCPAddr); is {
		d.loopback = at.IP.IsLoopback()
	}
	if len(d.changing) > 0 && !d.asks() && !d.loopback && !d.Open {
		l.Close()
		return fmt.Errorf("whoever reaches %s could change things (%s): set KFERRY_HTTP_TOKEN, or KFERRY_HTTP_TLS_CLIENT_CA, listen on 127.0.0.1 alone, or set KFERRY_HTTP_OPEN=true if that is meant",
			l.Addr(), strings.ReplaceAll(strings.Join(d.changing, ", "), "{$}", ""))
	}
	if len(d.changing) > 0 && d.Token.Set() && !d.loopback && d.tls == nil {
		d.log.Warn("tokens travel to this address in plain text; KFERRY_HTTP_TLS_CERT and KFERRY_HTTP_TLS_KEY make it HTTPS", "address", l.Addr().String())
	}
	d.listener = newFewConns(l, httpConnections)
	return nil
}

// asks says whether whoever changes something has to show who he is.
func (d *door) asks() bool { return d.Token.Set() || d.ClientCA != "" }

func (d *door) readSecrets() (err error) {
	if d.Token.Set() {
		if d.token, err = newWatched("KFERRY_HTTP_TOKEN", d.log, d.readToken, d.Token.File); err != nil {
			return err
		}
	}
	if d.Cert == "" {
		return nil
	}
	config, err := newWatched("KFERRY_HTTP_TLS_…", d.log, d.readTLS, d.Cert, d.Key, d.ClientCA)
	if err != nil {
		return err
	}
	d.tls = &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return config.now(), nil },
	}
	return nil
}

// readToken is the token as it can be compared: all are of one length then.
func (d *door) readToken() (sum [sha256.Size]byte, err error) {
	text, err := d.Token.Read()
	if err == nil {
		err = spec.CheckToken(text)
	}
	return sha256.Sum256([]byte(text)), err
}

func (d *door) readTLS() (*tls.Config, error) {
	pair, err := spec.ReadKeyPair(d.Cert, d.Key)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}}
	if d.ClientCA == "" {
		return config, nil
	}
	pem, err := spec.ReadFile(d.ClientCA, spec.MiB)
	if err != nil {
		return nil, err
	}
	config.ClientCAs = x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s; it is to hold PEM", d.ClientCA)
	}
	config.ClientAuth = tls.VerifyClientCertIfGiven // probes and Prometheus have none
	return config, nil
}

// serve answers until ctx ends.
func (d *door) serve(ctx context.Context) error {
	if d.listener == nil {
		return nil
	}
	server := &http.Server{
		Handler:           d.bounded(d.mux),
		ReadHeaderTimeout: httpHeader, ReadTimeout: httpRead, WriteTimeout: httpWrite, IdleTimeout: httpIdle, MaxHeaderBytes: httpHeaderBytes,
		TLSConfig: d.tls,
		ErrorLog:  slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		goodbye, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpGoodbye)
		defer cancel()
		server.Shutdown(goodbye) // whoever is still reading after that is cut off with the process
	})
	scheme, serve := "http", server.Serve
	if d.tls != nil {
		scheme, serve = "https", func(l net.Listener) error { return server.ServeTLS(l, "", "") }
	}
	d.log.Info("metrics and health", "address", scheme+"://"+d.listener.Addr().String())
	if err := serve(d.listener); !errors.Is(err, http.ErrServerClosed) {
		stop()
		return fmt.Errorf("serve metrics and health: %w", err)
	}
	<-stopped
	return nil
}

// close is for a door that never came to serve; a second close does nothing.
func (d *door) close() {
	if d.listener != nil {
		d.listener.Close()
	}
}

// bounded is for every request.
func (d *door) bounded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, httpBodyBytes)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		h.ServeHTTP(w, r)
	})
}

// guard lets through who may change something.
func (d *door) guard(h http.Handler) http.Handler {
	var sites http.CrossOriginProtection
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case sites.Check(r) != nil:
			d.refuse(w, r, http.StatusForbidden, "a request of a page on another site")
		case d.loopback && !d.asks() && !loopbackName(r.Host):
			d.refuse(w, r, http.StatusForbidden, "this address is for this machine; call it localhost")
		case d.asks() && !d.known(r):
			w.Header().Set("WWW-Authenticate", "Bearer")
			d.refuse(w, r, http.StatusUnauthorized, "show the bearer token, or a certificate")
		default:
			h.ServeHTTP(w, r)
		}
	})
}

// known says whether a request shows what lets it in.
func (d *door) known(r *http.Request) bool {
	if d.ClientCA != "" && r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return true
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if d.token == nil || !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	given, right := sha256.Sum256([]byte(strings.TrimSpace(token))), d.token.now()
	return subtle.ConstantTimeCompare(given[:], right[:]) == 1
}

// loopbackName says whether a request's Host is what people on this machine call it. A web page whose name was made to lead here has
// its own name there.
func loopbackName(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	ip := net.ParseIP(name)
	return strings.EqualFold(name, "localhost") || ip != nil && ip.IsLoopback()
}

func (d *door) refuse(w http.ResponseWriter, r *http.Request, status int, why string) {
	if now, last := time.Now().UnixNano(), d.saidAt.Load(); now-last >= int64(httpSayAgain) && d.saidAt.CompareAndSwap(last, now) {
		d.log.Warn("HTTP request was not let in", "from", r.RemoteAddr, "method", r.Method, "path", r.URL.Path, "why", why)
	}
	http.Error(w, why, status)
}

// A watched thing is made of files, and made anew when one of them has changed. While it can't be, the last one holds.
type watched[T any] struct {
	name  string
	log   *slog.Logger
	make  func() (T, error)
	files []string

	mu     sync.Mutex // guards what follows
	last   T
	seen   []os.FileInfo
	failed bool
}

func newWatched[T any](name string, log *slog.Logger, make func() (T, error), files ...string) (*watched[T], error) {
	files = slices.DeleteFunc(files, func(file string) bool { return file == "" })
	w := &watched[T]{name: name, log: log, make: make, files: files}
	var err error
	w.seen = w.look()
	if w.last, err = make(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return w, nil
}

func (w *watched[T]) look() []os.FileInfo {
	all := make([]os.FileInfo, len(w.files))
	for i, file := range w.files {
		all[i], _ = os.Stat(file) // one that is gone is no other one
	}
	return all
}

func (w *watched[T]) now() T {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := w.look()
	if !w.failed && slices.EqualFunc(seen, w.seen, sameFile) {
		return w.last
	}
	next, err := w.make()
	if err == nil {
		w.last = next
	} else if !w.failed {
		w.log.Warn("a secret of the HTTP server can't be read; what was read before is used", "variable", w.name, "error", err)
	}
	w.seen, w.failed = seen, err != nil
	return w.last
}

func sameFile(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// fewConns has no more connections than it has places for; others wait until one is closed.
type fewConns struct {
	net.Listener
	places chan struct{}
	close  sync.Once
	closed chan struct{}
}

func newFewConns(l net.Listener, n int) *fewConns {
	return &fewConns{Listener: l, places: make(chan struct{}, n), closed: make(chan struct{})}
}

func (l *fewConns) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	return &placedConn{Conn: conn, leave: sync.OnceFunc(func() { <-l.places })}, nil
}

func (l *fewConns) Close() error {
	l.close.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type placedConn struct {
	net.Conn
	leave func()
}

// CloseWrite says that all is sent. Without it the server would close what a client is still writing to, and the answer that says what is wrong
// with that (431, 413) would be lost in a reset.
func (c *placedConn) CloseWrite() error {
	if half, is := c.Conn.(interface{ CloseWrite() error }); is {
		return half.CloseWrite()
	}
	return nil
}

// Close gives the place to who waits.
func (c *placedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
