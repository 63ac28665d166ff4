package lease_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/local"
	"github.com/kferry/kferry/shared/spec"
)

// A gate is a NATS server on the loopback that lets in whom it is told to, and may be told otherwise.
type gate struct {
	testing.TB
	*local.NATS
	options *server.Options
	dir     string // of files
	log     book
}

// newGate starts a server as its options say.
func newGate(t testing.TB, change func(*server.Options)) *gate {
	t.Helper()
	forgetTimers()
	g := &gate{TB: t, dir: t.TempDir()}
	started, err := local.StartNATS(t.TempDir(), local.NATSListen("127.0.0.1:0"), local.NATSServer(func(o *server.Options) {
		g.options = o
		change(o)
	}))
	g.must(err)
	t.Cleanup(started.Close)
	g.NATS = started
	return g
}

// restart has the server change its mind: every connection breaks.
func (g *gate) restart(change func(*server.Options)) {
	g.Helper()
	g.Stop()
	change(g.options)
	g.must(g.Start())
}

func (g *gate) must(err error) {
	g.Helper()
	if err != nil {
		g.Fatal(err)
	}
}

// file writes what somebody keeps in a file, in place of what was there.
func (g *gate) file(name string, text []byte) string {
	g.Helper()
	path := filepath.Join(g.dir, name)
	g.must(os.WriteFile(path+".new", text, 0o600))
	g.must(os.Rename(path+".new", path))
	return path
}

func (g *gate) at(change func(*spec.NATS)) spec.NATS {
	n := spec.NATS{URL: "nats://127.0.0.1:" + portOf(g.URL())}
	change(&n)
	return n
}

func portOf(url string) string { return url[strings.LastIndex(url, ":")+1:] }

func (g *gate) open(n spec.NATS) (*lease.Queue, error) {
	q, err := lease.Open(g.Context(), lease.Options{NATS: n, LeaseTime: 20 * time.Second, Logger: slog.New(slog.NewTextHandler(&g.log, nil))})
	if err == nil {
		g.Cleanup(q.Close)
	}
	return q, err
}

// A book is a log to look into.
type book struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *book) Write(line []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(line)
}

func (b *book) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// patience is what waiting for something that comes by itself is bounded by.
const patience = 20 * time.Second

// until waits for something that comes by itself.
func (g *gate) until(what string, is func() bool) {
	g.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			g.Fatalf("not after %s: %s; the log:\n%s", patience, what, &g.log)
		}
	}
}

func user(name, password string) func(*server.Options) {
	return func(o *server.Options) { o.Users = []*server.User{{Username: name, Password: password}} }
}

func token(t string) func(*server.Options) {
	return func(o *server.Options) { o.Authorization = t }
}

func newSeed(t testing.TB) (seed []byte, public string) {
	t.Helper()
	pair, err := nkeys.CreateUser()
	if err == nil {
		seed, err = pair.Seed()
	}
	if err == nil {
		public, err = pair.PublicKey()
	}
	if err != nil {
		t.Fatal(err)
	}
	return seed, public
}

// An operator signs accounts and their users.
type operator struct {
	testing.TB
	account nkeys.KeyPair
	setUp   func(*server.Options)
}

func newOperator(t testing.TB) operator {
	t.Helper()
	o := operator{TB: t}
	own, err := nkeys.CreateOperator()
	o.must(err)
	o.account, err = nkeys.CreateAccount()
	o.must(err)
	system, err := nkeys.CreateAccount()
	o.must(err)
	accounts := &server.MemAccResolver{}
	for _, pair := range []nkeys.KeyPair{o.account, system} {
		public, err := pair.PublicKey()
		o.must(err)
		claims := jwt.NewAccountClaims(public)
		if pair == o.account {
			claims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
		}
		text, err := claims.Encode(own)
		o.must(err)
		o.must(accounts.Store(public, text))
	}
	public, err := own.PublicKey()
	o.must(err)
	claims := jwt.NewOperatorClaims(public)
	text, err := claims.Encode(own)
	o.must(err)
	claims, err = jwt.DecodeOperatorClaims(text)
	o.must(err)
	systemName, err := system.PublicKey()
	o.must(err)
	o.setUp = func(s *server.Options) {
		s.TrustedOperators, s.AccountResolver, s.SystemAccount = []*jwt.OperatorClaims{claims}, accounts, systemName
	}
	return o
}

func (o operator) must(err error) {
	o.Helper()
	if err != nil {
		o.Fatal(err)
	}
}

// user signs a user who may come until then.
func (o operator) user(expires time.Time) (token, seed []byte) {
	o.Helper()
	seed, public := newSeed(o)
	claims := jwt.NewUserClaims(public)
	claims.Expires = expires.Unix()
	text, err := claims.Encode(o.account)
	o.must(err)
	return []byte(text), seed
}

func (o operator) creds(expires time.Time) []byte {
	o.Helper()
	text, seed := o.user(expires)
	file, err := jwt.FormatUserConfig(string(text), seed)
	o.must(err)
	return file
}

// works does what takes a login: it offers a task and claims it.
func works(t testing.TB, q *lease.Queue, n int) *lease.Lease {
	t.Helper()
	offer(t, q, mirror(n), true)
	return claim(t, q, 1, 1)[0]
}

func TestLogins(t *testing.T) {
	o := newOperator(t)
	later := time.Now().Add(time.Hour)
	seed, public := newSeed(t)
	kept := func(text string) spec.Kept { return spec.Kept{Text: spec.Secret(text)} }
	for name, c := range map[string]struct {
		server func(*server.Options)
		login  func(g *gate, n *spec.NATS)
	}{
		"user":          {user("u", "p"), func(_ *gate, n *spec.NATS) { n.Login = spec.NATSLogin{User: "u", Password: kept("p")} }},
		"password file": {user("u", "p"), func(g *gate, n *spec.NATS) { n.Login.User, n.Login.Password.File = "u", g.file("p", []byte("p\n")) }},
		"token":         {token("geheim"), func(_ *gate, n *spec.NATS) { n.Login.Token = kept("geheim") }},
		"NKey": {
			func(s *server.Options) { s.Nkeys = []*server.NkeyUser{{Nkey: public}} },
			func(g *gate, n *spec.NATS) { n.Login.NKey = g.file("k", seed) },
		},
		"credentials": {o.setUp, func(g *gate, n *spec.NATS) { n.Login.Creds = g.file("c", o.creds(later)) }},
		"JWT and seed": {o.setUp, func(_ *gate, n *spec.NATS) {
			token, seed := o.user(later)
			n.Login.JWT, n.Login.Seed = kept(string(token)), kept(string(seed))
		}},
		"JWT and seed files": {o.setUp, func(g *gate, n *spec.NATS) {
			token, seed := o.user(later)
			n.Login.JWT.File, n.Login.Seed.File = g.file("j", token), g.file("s", seed)
		}},
		"inbox prefix": {func(s *server.Options) {
			s.Users = []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX_k.>"}}}}}
		}, func(_ *gate, n *spec.NATS) {
			n.Login, n.InboxPrefix = spec.NATSLogin{User: "u", Password: kept("p")}, "_INBOX_k"
		}},
		"domain":     {func(s *server.Options) { s.JetStreamDomain = "hub" }, func(_ *gate, n *spec.NATS) { n.Domain = "hub" }},
		"API prefix": {func(s *server.Options) { s.JetStreamDomain = "hub" }, func(_ *gate, n *spec.NATS) { n.APIPrefix = "$JS.hub.API" }},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGate(t, c.server)
			q, err := g.open(g.at(func(n *spec.NATS) { c.login(g, n) }))
			g.must(err)
			l := works(t, q, 1)
			g.must(q.PutState(t.Context(), l.Task, lease.State{Reason: "x"}))
			if states, err := q.States(t.Context()); err != nil || len(states) != 1 {
				t.Errorf("%d states, %v", len(states), err)
			}
			g.must(q.Purge(t.Context()))
			release(t, l)
		})
	}
}

// secured has a server speak TLS, with a certificate of an authority's, and if wanted ask clients for theirs.
func secured(t testing.TB, a *local.Authority, clients bool) func(*server.Options) {
	t.Helper()
	certificate, key, err := a.Sign("nats")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(a.PEM())
	return func(o *server.Options) {
		o.TLS, o.TLSTimeout, o.TLSConfig = true, 5, &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool}
		if clients {
			o.TLSConfig.ClientAuth = tls.RequireAndVerifyClientCert
		}
	}
}

func newAuthority(t testing.TB) *local.Authority {
	t.Helper()
	a, err := local.NewAuthority("kferry test")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// pair writes a certificate of an authority's and its key.
func (g *gate) pair(a *local.Authority) (certificate, key string) {
	g.Helper()
	c, k, err := a.Sign("kferry")
	g.must(err)
	return g.file("cert", c), g.file("key", k)
}

func TestTLSToNATS(t *testing.T) {
	a := newAuthority(t)
	for name, c := range map[string]struct{ clients, first bool }{"server's": {}, "both sides'": {clients: true}, "first": {first: true}} {
		t.Run(name, func(t *testing.T) {
			g := newGate(t, func(o *server.Options) {
				secured(t, a, c.clients)(o)
				o.TLSHandshakeFirst = c.first
			})
			q, err := g.open(g.at(func(n *spec.NATS) {
				n.CA, n.TLSFirst = g.file("ca", a.PEM()), c.first
				if c.clients {
					n.Cert, n.Key = g.pair(a)
				}
			}))
			g.must(err)
			release(t, works(t, q, 1))
		})
	}
}

// What can't work says why at once, or after the time that a call has, and what to do.
func TestWrongLogins(t *testing.T) {
	o, a, other := newOperator(t), newAuthority(t), newAuthority(t)
	for name, c := range map[string]struct {
		server func(*server.Options)
		login  func(g *gate, n *spec.NATS)
		want   string
	}{
		"no login":          {user("u", "p"), func(*gate, *spec.NATS) {}, "none is given; set NATS_USER and NATS_PASSWORD"},
		"password":          {user("u", "p"), func(_ *gate, n *spec.NATS) { n.Login = spec.NATSLogin{User: "u", Password: spec.Kept{Text: "geheim"}} }, "check NATS_USER and NATS_PASSWORD"},
		"token":             {token("other"), func(_ *gate, n *spec.NATS) { n.Login.Token.Text = "geheim" }, "check NATS_TOKEN"},
		"expired":           {o.setUp, func(g *gate, n *spec.NATS) { n.Login.Creds = g.file("c", o.creds(time.Now().Add(-time.Hour))) }, "NATS_CREDS"},
		"no TLS":            {user("u", "p"), func(g *gate, n *spec.NATS) { n.CA = g.file("ca", a.PEM()) }, "the server has no TLS; unset NATS_CA"},
		"another authority": {secured(t, a, false), func(g *gate, n *spec.NATS) { n.CA = g.file("ca", other.PEM()) }, "set NATS_CA to the certificates"},
		"no certificate":    {secured(t, a, true), func(g *gate, n *spec.NATS) { n.CA = g.file("ca", a.PEM()) }, "set NATS_CERT and NATS_KEY"},
		"not a CA":          {secured(t, a, false), func(g *gate, n *spec.NATS) { n.CA = g.file("ca", []byte("geheim")) }, "NATS_CA: no certificate in"},
		"no file":           {token("x"), func(_ *gate, n *spec.NATS) { n.Login.Token.File = "/none/geheim-not" }, "NATS_TOKEN_FILE: open /none"},
		"not credentials":   {o.setUp, func(g *gate, n *spec.NATS) { n.Login.Creds = g.file("c", []byte("geheim")) }, "NATS_CREDS: no NKey seed in it"},
		"not a seed":        {token("x"), func(g *gate, n *spec.NATS) { n.Login.NKey = g.file("c", []byte("geheim")) }, "NATS_NKEY: no user's NKey seed in"},
		"neither of a pair": {token("x"), func(g *gate, n *spec.NATS) {
			n.Cert, n.Key = g.file("c", []byte("geheim")), g.file("k", []byte("geheim"))
		}, "NATS_CERT and NATS_KEY"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they wait
			g := newGate(t, c.server)
			_, err := g.open(g.at(func(n *spec.NATS) {
				n.Timeout = time.Second
				c.login(g, n)
			}))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("want %q: %v", c.want, err)
			}
			if err != nil && strings.Contains(err.Error()+g.log.String(), "geheim") && name != "no file" {
				t.Errorf("shows a secret: %v\n%s", err, &g.log)
			}
		})
	}
}

// Whoever replaces a secret replaces the file; the server has the new one from then on, and every connection breaks. Nobody starts
// kferry again, and the lease that was held is still held.
func TestReplacedSecretsAreTakenUp(t *testing.T) {
	a := newAuthority(t)
	later := time.Now().Add(time.Hour)
	for name, begin := range map[string]func(g *gate, n *spec.NATS) (replace func() func(*server.Options)){
		"password": func(g *gate, n *spec.NATS) func() func(*server.Options) {
			n.Login.User, n.Login.Password.File = "u", g.file("p", []byte("old"))
			user("u", "old")(g.options)
			return func() func(*server.Options) {
				g.file("p", []byte("new"))
				return user("u", "new")
			}
		},
		"token": func(g *gate, n *spec.NATS) func() func(*server.Options) {
			n.Login.Token.File = g.file("t", []byte("old"))
			token("old")(g.options)
			return func() func(*server.Options) {
				g.file("t", []byte("new"))
				return token("new")
			}
		},
		"NKey": func(g *gate, n *spec.NATS) func() func(*server.Options) {
			seed, public := newSeed(g)
			n.Login.NKey = g.file("k", seed)
			g.options.Nkeys = []*server.NkeyUser{{Nkey: public}}
			return func() func(*server.Options) {
				seed, public := newSeed(g)
				g.file("k", seed)
				return func(o *server.Options) { o.Nkeys = []*server.NkeyUser{{Nkey: public}} }
			}
		},
		"certificates": func(g *gate, n *spec.NATS) func() func(*server.Options) {
			secured(g, a, true)(g.options)
			n.CA = g.file("ca", a.PEM())
			n.Cert, n.Key = g.pair(a)
			return func() func(*server.Options) {
				next := newAuthority(g)
				g.file("ca", next.PEM())
				g.pair(next)
				return secured(g, next, true)
			}
		},
	} {
		for _, late := range []bool{false, true} { // the file is replaced after the server knows the new secret
			t.Run(name+map[bool]string{true: " late"}[late], func(t *testing.T) {
				g := newGate(t, func(*server.Options) {})
				n := g.at(func(*spec.NATS) {})
				var replace func() func(*server.Options)
				g.restart(func(*server.Options) { replace = begin(g, &n) })
				q, err := g.open(n)
				g.must(err)
				held := works(t, q, 1)
				if !late {
					g.restart(replace())
				} else {
					g.restart(func(o *server.Options) {
						*o = *o.Clone()
						o.Users, o.Nkeys, o.Authorization, o.TLSConfig = nil, nil, "nobody has this one", nil
						o.TLS = false
					})
					g.until("a warning", func() bool { return strings.Contains(g.log.String(), "queue can't be connected to") })
					g.restart(func(o *server.Options) {
						o.Authorization = ""
						replace()(o)
					})
				}
				g.until("the lease is kept", func() bool { return held.Extend(shortly(t)) == nil })
				g.until("work goes on", func() bool { _, err := q.Offer(shortly(t), mirror(2)); return err == nil })
				release(t, held)
				release(t, claim(t, q, 1, 1)[0])
			})
		}
	}
	t.Run("credentials that expire", func(t *testing.T) {
		o := newOperator(t)
		g := newGate(t, o.setUp)
		soon := time.Now().Add(2 * time.Second)
		q, err := g.open(g.at(func(n *spec.NATS) { n.Login.Creds = g.file("c", o.creds(soon)) }))
		g.must(err)
		held := works(t, q, 1)
		g.until("a warning", func() bool {
			return strings.Contains(g.log.String(), "expired: replace what NATS_CREDS says")
		})
		_, err = q.Offer(shortly(t), mirror(3))
		if !errors.Is(err, lease.ErrUnreachable) || !strings.Contains(err.Error(), "NATS_CREDS") {
			t.Errorf("while they are expired: %v", err)
		}
		g.file("c", o.creds(later))
		g.until("the lease is kept", func() bool { return held.Extend(shortly(t)) == nil })
		release(t, held)
		if lines := strings.Count(g.log.String(), "level=WARN"); lines > 8 {
			t.Errorf("%d warnings:\n%s", lines, &g.log)
		}
	})
}

func shortly(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	t.Cleanup(cancel)
	return ctx
}

// A subject that isn't allowed is told of by the server, but not to whoever waits for an answer.
func TestDeniedSubjectsAreNamed(t *testing.T) {
	g := newGate(t, func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "all", Password: "p"},
			{Username: "some", Password: "p", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"kferry.task.>"}}}},
		}
	})
	login := func(name string) spec.NATS {
		return g.at(func(n *spec.NATS) {
			n.Login, n.Timeout = spec.NATSLogin{User: name, Password: spec.Kept{Text: "p"}}, time.Second
		})
	}
	_, err := g.open(login("all"))
	g.must(err)
	q, err := g.open(login("some"))
	g.must(err)
	for n := range 2 {
		_, err = q.Offer(t.Context(), mirror(0))
		if err == nil || !strings.Contains(err.Error(), `Permissions Violation for Publish to "kferry.task.mirror.`) {
			t.Errorf("offer %d: %v", n, err)
		}
	}
	if lines := strings.Count(g.log.String(), "queue refuses a subject"); lines != 1 {
		t.Errorf("told %d times:\n%s", lines, &g.log)
	}
}
