package lease

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kferry/kferry/shared/spec"
)

// Bounds of connecting.
const (
	reconnectWait    = 250 * time.Millisecond
	reconnectAtOnce  = 20               // tries in that time; a server that is started again is back by then
	reconnectSlowly  = time.Second      // between later ones
	refusedWait      = 10 * time.Second // at most between tries of a login that is refused
	pingInterval     = 2 * time.Second  // a connection that leaves two unanswered is dead
	sayAgain         = time.Minute      // until the same trouble is told again
	mostTroubles     = 64               // kept in mind, to be told once
	connectPart      = 40               // percent of what a call may take, so that a second server has its turn
	defaultAPIPrefix = "$JS.API."
)

func (q *Queue) connect() error {
	n, timeout := q.options.NATS, q.callTime*connectPart/100
	options := []nats.Option{
		nats.Name(q.options.Client), nats.Timeout(timeout),
		// A refused login is tried for ever: whoever mends it doesn't have to know about kferry's processes.
		nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true), nats.IgnoreAuthErrorAbort(), nats.CustomReconnectDelay(q.trouble.wait),
		nats.PingInterval(pingInterval),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				q.options.Logger.Warn("queue disconnected", "server", q.server, "error", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { q.trouble.says(err) }), // nats.go would print it
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { q.trouble.refused(err) }),
		nats.ConnectHandler(func(*nats.Conn) { q.trouble.over() }),
		nats.ReconnectHandler(func(*nats.Conn) {
			q.trouble.over()
			q.options.Logger.Info("queue connected again", "server", q.server)
		}),
	}
	if q.options.InProcess != nil {
		options = append(options, nats.InProcessServer(q.options.InProcess))
	}
	login, dial, err := loginOptions(n, q.options.Logger)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", q.server, err)
	}
	dial.Timeout = timeout
	options = append(append(options, login...), nats.SetCustomDialer(dial))
	if n.InboxPrefix != "" {
		options = append(options, nats.CustomInboxPrefix(n.InboxPrefix))
	}
	conn, err := nats.Connect(n.URL, options...)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", q.server, err)
	}
	dial.conn.Store(conn)
	q.trouble.conn.Store(conn)
	if q.js, q.api, err = newJetStream(conn, n, q.callTime); err != nil {
		conn.Close()
		return fmt.Errorf("connect to %s: %w", q.server, err)
	}
	q.conn = conn
	return nil
}

// newJetStream is JetStream, and what the subjects of its API begin with.
func newJetStream(conn *nats.Conn, n spec.NATS, timeout time.Duration) (js jetstream.JetStream, prefix string, err error) {
	options := []jetstream.JetStreamOpt{jetstream.WithDefaultTimeout(timeout), jetstream.WithPublishAsyncTimeout(timeout)}
	switch {
	case n.Domain != "":
		js, err = jetstream.NewWithDomain(conn, n.Domain, options...)
		return js, "$JS." + n.Domain + ".API.", err
	case n.APIPrefix != "":
		js, err = jetstream.NewWithAPIPrefix(conn, n.APIPrefix, options...)
		return js, n.APIPrefix + ".", err
	}
	js, err = jetstream.New(conn, options...)
	return js, defaultAPIPrefix, err
}

// loginOptions are nats.go's for who one is, and whom one trusts. It calls back for what may be replaced while kferry runs, at each
// connect. What can't be read now is a mistake; what can't be read later has the attempt fail, or what was read before hold.
// The dialer is to be told of the connection.
func loginOptions(n spec.NATS, log *slog.Logger) (options []nats.Option, dial *dialer, err error) {
	l, dial := n.Login, &dialer{}
	switch {
	case l.User != "":
		password, err := newKept("NATS_PASSWORD", l.Password, log)
		if err != nil {
			return nil, nil, err
		}
		options = append(options, nats.UserInfoHandler(func() (string, string) { return l.User, password.now() }))
	case l.Token.Set():
		token, err := newKept("NATS_TOKEN", l.Token, log)
		if err != nil {
			return nil, nil, err
		}
		options = append(options, nats.TokenHandler(token.now))
	case l.Creds != "":
		options, err = signed(options, func() (nats.Options, error) {
			text, err := spec.Kept{File: l.Creds}.Read()
			return signer("NATS_CREDS", text, text, err)
		})
	case l.JWT.Set():
		options, err = signed(options, func() (nats.Options, error) {
			jwt, err := l.JWT.Read()
			seed, seedErr := l.Seed.Read()
			return signer("NATS_JWT and NATS_SEED", jwt, seed, errors.Join(err, seedErr))
		})
	case l.NKey != "":
		var o nats.Options
		dial.key = nkey(l.NKey)
		if o, err = dial.key.read(); err == nil {
			options = append(options, nats.Nkey(o.Nkey, dial.key.sign))
		}
	}
	if err != nil {
		return nil, nil, err
	}
	secure, err := tlsOptions(n)
	return append(options, secure...), dial, err
}

// signed adds a login by JWT. It is tried once now.
func signed(options []nats.Option, read func() (nats.Options, error)) ([]nats.Option, error) {
	jwt := func() (string, error) {
		o, err := read()
		if err != nil {
			return "", err
		}
		return o.UserJWT()
	}
	sign := func(nonce []byte) ([]byte, error) {
		o, err := read()
		if err != nil {
			return nil, err
		}
		return o.SignatureCB(nonce)
	}
	if _, err := sign([]byte("nonce")); err != nil {
		return nil, err
	}
	return append(options, nats.UserJWT(jwt, sign)), nil
}

// signer has nats.go read a JWT and a seed, decorated or bare.
func signer(name, jwt, seed string, err error) (o nats.Options, _ error) {
	if err != nil {
		return o, fmt.Errorf("%s: %w", name, err)
	}
	if err := nats.UserCredentialBytes([]byte(jwt), []byte(seed))(&o); err != nil {
		return o, fmt.Errorf("%s: no user JWT in it (%w)", name, err)
	}
	if _, err := o.SignatureCB([]byte("nonce")); err != nil {
		return o, fmt.Errorf("%s: no NKey seed in it (%w)", name, err)
	}
	return o, nil
}

// A kept secret is one whose callback can't fail: where its file can't be read, what was read before holds.
type kept struct {
	name string
	spec.Kept
	log *slog.Logger

	mu   sync.Mutex // guards last
	last string
}

func newKept(name string, k spec.Kept, log *slog.Logger) (*kept, error) {
	text, err := k.Read()
	if err != nil {
		return nil, fmt.Errorf("%s_FILE: %w", name, err)
	}
	return &kept{name: name, Kept: k, log: log, last: text}, nil
}

func (k *kept) now() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	text, err := k.Read()
	if err != nil {
		k.log.Warn("a secret can't be read; the one that was read before is used", "variable", k.name+"_FILE", "error", err)
		return k.last
	}
	k.last = text
	return text
}

// An nkey is the file of a login whose name follows from its key.
type nkey string

func (k nkey) read() (o nats.Options, err error) {
	if _, err = spec.ReadFile(string(k), spec.MiB); err == nil { // nats.go waits for a file as long as it takes
		var option nats.Option
		if option, err = nats.NkeyOptionFromSeed(string(k)); err == nil {
			err = option(&o)
			return o, err
		}
	}
	return o, fmt.Errorf("NATS_NKEY: no user's NKey seed in %s: %w", string(k), err)
}

func (k nkey) sign(nonce []byte) ([]byte, error) {
	o, err := k.read()
	if err != nil {
		return nil, err
	}
	return o.SignatureCB(nonce)
}

// A dialer opens nats.go's connections, which it does at the beginning of each attempt, with the connection's lock held.
type dialer struct {
	net.Dialer
	key  nkey // "" for another login
	conn atomic.Pointer[nats.Conn]
}

// Dial implements nats.CustomDialer. nats.go takes the name of an NKey once, so that a new key would go with the old name.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	if conn := d.conn.Load(); conn != nil && d.key != "" {
		o, err := d.key.read()
		if err != nil {
			return nil, err
		}
		conn.Opts.Nkey = o.Nkey
	}
	conn, err := d.Dialer.Dial(network, address)
	if err != nil {
		return nil, err
	}
	return listening{conn}, nil
}

// listening is a connection whose end is learned by reading: a server that has closed it may have said why, an alert of TLS, say, and a
// write that came too late would hide that.
type listening struct{ net.Conn }

// Write is part of net.Conn.
func (l listening) Write(b []byte) (int, error) {
	n, err := l.Conn.Write(b)
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return len(b), nil
	}
	return n, err
}

// tlsOptions read certificates at each connect.
func tlsOptions(n spec.NATS) (options []nats.Option, err error) {
	certificate := func() (tls.Certificate, error) {
		c, err := spec.ReadKeyPair(n.Cert, n.Key)
		if err != nil {
			err = fmt.Errorf("NATS_CERT and NATS_KEY: %w", err)
		}
		return c, err
	}
	roots := func() (*x509.CertPool, error) {
		pem, err := spec.ReadFile(n.CA, spec.MiB)
		if err != nil {
			return nil, fmt.Errorf("NATS_CA: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("NATS_CA: no certificate in %s; it is to hold PEM", n.CA)
		}
		return pool, nil
	}
	var mistakes []error
	if n.Cert == "" {
		certificate = nil
	} else if _, err := certificate(); err != nil {
		mistakes = append(mistakes, err)
	}
	if n.CA == "" {
		roots = nil
	} else if _, err := roots(); err != nil {
		mistakes = append(mistakes, err)
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	if certificate != nil || roots != nil {
		options = append(options, nats.ClientTLSConfig(certificate, roots))
	}
	if n.TLSFirst {
		options = append(options, nats.TLSHandshakeFirst())
	}
	return options, nil
}

// A trouble is what NATS says beside its answers: a refused login, a subject that isn't allowed. Whoever asked hears nothing then, and
// their time runs out; so it is kept to be told with that, and logged, each once a minute.
type trouble struct {
	options Options
	server  string
	conn    atomic.Pointer[nats.Conn] // nil while nats.Connect runs

	mu       sync.Mutex // guards what follows
	connect  error      // why the last attempt to connect failed; nil while there is a connection
	denied   error      // the last subject that wasn't allowed
	deniedAt time.Time
	told     map[string]time.Time
}

// says takes an error that comes by itself.
func (t *trouble) says(err error) {
	switch {
	case errors.Is(err, nats.ErrPermissionViolation):
		t.mu.Lock()
		t.denied, t.deniedAt = err, time.Now()
		t.mu.Unlock()
		t.tell("queue refuses a subject; see NATS in the README for what each role needs", err)
	case isLogin(err):
		t.refused(err)
	default:
		t.options.Logger.Debug("queue connection", "server", t.server, "error", err)
	}
}

// refused takes an attempt to connect that failed.
func (t *trouble) refused(err error) {
	err = advised(err, t.options.NATS)
	t.mu.Lock()
	t.connect = err
	t.mu.Unlock()
	t.tell("queue can't be connected to", err)
}

func (t *trouble) over() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.connect = nil
}

// tell logs a trouble, and not again soon.
func (t *trouble) tell(message string, err error) {
	key, now := strings.ToLower(err.Error()), time.Now()
	t.mu.Lock()
	last, told := t.told[key]
	again := !told || now.Sub(last) >= sayAgain
	if again {
		if len(t.told) >= mostTroubles {
			clear(t.told)
		}
		t.told[key] = now
	}
	t.mu.Unlock()
	if again {
		t.options.Logger.Warn(message, "server", t.server, "error", err)
	}
}

// why is what may have kept an answer back since a time; nil where nothing is known.
func (t *trouble) why(since time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.connect != nil:
		return t.connect
	case t.denied != nil && !t.deniedAt.Before(since):
		return t.denied
	}
	return nil
}

// wait is the pause after all servers have been tried so often. A login that is refused is tried less and less often: a server may count.
func (t *trouble) wait(tries int) time.Duration {
	if conn := t.conn.Load(); conn != nil {
		if err := conn.LastError(); err != nil { // of the last try, which nats.go tells of in no other way where TLS failed
			t.refused(err)
		}
	}
	t.mu.Lock()
	refused := isLogin(t.connect)
	t.mu.Unlock()
	pause := reconnectWait
	switch {
	case refused:
		pause = min(refusedWait, reconnectWait<<min(tries, 10))
	case tries > reconnectAtOnce:
		pause = reconnectSlowly
	}
	return pause + rand.N(pause/4)
}

// isLogin says whether the server didn't like who one says to be.
func isLogin(err error) bool {
	for _, sign := range []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired} {
		if errors.Is(err, sign) {
			return true
		}
	}
	return false
}

// advised says what to do about an attempt that failed.
func advised(err error, n spec.NATS) error {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	switch {
	case errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked), errors.Is(err, nats.ErrAccountAuthExpired):
		return fmt.Errorf("%w: replace what %s says", err, loginVariable(n.Login))
	case errors.Is(err, nats.ErrAuthorization) && n.Login == (spec.NATSLogin{}):
		return fmt.Errorf("%w: the server wants a login and none is given; set NATS_USER and NATS_PASSWORD, NATS_TOKEN, NATS_CREDS or NATS_NKEY", err)
	case errors.Is(err, nats.ErrAuthorization):
		return fmt.Errorf("%w: the server refuses the login; check %s", err, loginVariable(n.Login))
	case errors.Is(err, nats.ErrSecureConnWanted):
		return fmt.Errorf("%w: the server has no TLS; unset NATS_CA, NATS_CERT and NATS_TLS_FIRST, and take nats:// in NATS_URL", err)
	case errors.As(err, &unknown):
		return fmt.Errorf("%w: set NATS_CA to the certificates that the server's was signed by", err)
	case errors.As(err, &name):
		return fmt.Errorf("%w: take a name in NATS_URL that the certificate has", err)
	case strings.Contains(err.Error(), "certificate required"):
		return fmt.Errorf("%w: the server wants a certificate; set NATS_CERT and NATS_KEY", err)
	case strings.Contains(err.Error(), "first record does not look like a TLS handshake") && n.TLSFirst:
		return fmt.Errorf("%w: the server greets before TLS begins; unset NATS_TLS_FIRST", err)
	}
	return err
}

func loginVariable(l spec.NATSLogin) string {
	switch {
	case l.User != "":
		return "NATS_USER and NATS_PASSWORD"
	case l.Token.Set():
		return "NATS_TOKEN"
	case l.Creds != "":
		return "NATS_CREDS"
	case l.NKey != "":
		return "NATS_NKEY"
	case l.JWT.Set():
		return "NATS_JWT and NATS_SEED"
	}
	return "the login"
}
