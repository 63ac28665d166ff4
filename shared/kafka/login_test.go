package kafka_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/local"
	"github.com/kferry/kferry/shared/spec"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"
)

// behind has a guarded cluster, and a client that logs in there.
func behind(t *testing.T, mechanism string, l *spec.Login, test func(w *world, g *local.Guard)) {
	t.Helper()
	inBubble(t, setup{}, func(w *world) {
		g := local.NewGuard(w.fake, mechanism)
		w.logIn(l)
		test(w, g)
	})
}

// logIn replaces the client by one with a login.
func (w *world) logIn(l *spec.Login) {
	w.Helper()
	w.cluster.Close()
	cluster, err := kafka.Open(spec.Cluster{Alias: "a", BootstrapServers: []string{"localhost:9092"}, Login: l}, kafka.Options{Dialer: w.dial})
	w.must(err)
	w.cluster = cluster
}

// An issuer is a token endpoint inside the bubble.
type issuer struct {
	mu     sync.Mutex
	lives  time.Duration                  // of a token
	asked  []url.Values                   // forms, with the header as "authorization"
	answer func(http.ResponseWriter) bool // in place of a token
	silent bool
}

const endpoint = "http://localhost:8080/token"

// issue serves tokens t1, t2 and so on: JWTs whose jti says which.
func (w *world) issue(i *issuer) {
	w.Helper()
	listener, err := w.network.Listen("tcp", "localhost:8080")
	w.must(err)
	server := &http.Server{Handler: i}
	go server.Serve(listener)
	w.Cleanup(func() { server.Close() })
}

func (i *issuer) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		rw.WriteHeader(http.StatusBadRequest)
		return
	}
	r.PostForm.Set("authorization", r.Header.Get("Authorization"))
	i.mu.Lock()
	i.asked = append(i.asked, r.PostForm)
	n, answer := len(i.asked), i.answer
	i.mu.Unlock()
	if i.silent {
		<-r.Context().Done()
		return
	}
	if answer != nil && answer(rw) {
		return
	}
	now := time.Now()
	json.NewEncoder(rw).Encode(map[string]any{"access_token": newJWT(fmt.Sprintf("t%d", n), now, now.Add(i.lives)), "token_type": "Bearer"})
}

func (i *issuer) set(change func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change()
}

func (i *issuer) requests() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.asked)
}

func newJWT(id string, issued, expires time.Time) string {
	part := func(v any) string {
		text, _ := json.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(text)
	}
	return part(map[string]any{"alg": "RS256"}) + "." + part(map[string]any{"jti": id, "iat": issued.Unix(), "exp": expires.Unix()}) + ".c2ln"
}

func idOf(token string) string {
	parts := strings.Split(token, ".")
	var claims struct{ Jti string }
	payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
	json.Unmarshal(payload, &claims)
	return claims.Jti
}

// oauth is a login by client credentials.
func oauth(change func(*spec.OAuth)) *spec.Login {
	o := &spec.OAuth{Endpoint: endpoint, ClientID: "kferry", ClientSecret: "s3cret", Grant: spec.GrantClientCredentials}
	if change != nil {
		change(o)
	}
	return spec.FixedLogin(spec.Security{SASL: &spec.SASL{Mechanism: spec.OAUTHBEARER, OAuth: o}})
}

func TestATokenIsSharedAndReplacedBeforeItExpires(t *testing.T) {
	i := &issuer{lives: 10 * time.Minute}
	login := oauth(func(o *spec.OAuth) {
		o.Scope, o.Audience, o.Extensions = "read write", "kafka", map[string]string{"cluster": "lkc"}
	})
	behind(t, "OAUTHBEARER", login, func(w *world, g *local.Guard) {
		g.SetSession(time.Minute)
		w.issue(i)
		topic := w.create("t", 1)
		for range 60 { // half an hour, of many connections and sessions
			w.write(kafka.TopicPartition{Topic: "t"}, 1, 10)
			_, err := w.fetch(kafka.TopicPartition{Topic: topic.Name}, 0)
			w.must(err)
			time.Sleep(30 * time.Second)
		}
		i.mu.Lock()
		defer i.mu.Unlock()
		if n := len(i.asked); n != 4 {
			t.Errorf("asked for %d tokens in 30 minutes, of 10 minutes each", n)
		}
		first := i.asked[0]
		if first.Get("grant_type") != "client_credentials" || first.Get("scope") != "read write" || first.Get("audience") != "kafka" {
			t.Errorf("asked %v", first)
		}
		if want := "Basic " + base64.StdEncoding.EncodeToString([]byte("kferry:s3cret")); first.Get("authorization") != want {
			t.Errorf("header %q", first.Get("authorization"))
		}
		tokens := g.Tokens()
		if presented := tokens[0]; !strings.HasSuffix(presented, " cluster=lkc") {
			t.Errorf("without its extension: %q", presented)
		}
		if last := idOf(tokens[len(tokens)-1]); len(tokens) < 60 || last != "t4" {
			t.Errorf("%d logins, the last with %s", len(tokens), last)
		}
	})
}

func TestRefusalsSayWhoHowAndWhy(t *testing.T) {
	password := func(s spec.SASL) *spec.Login { return spec.FixedLogin(spec.Security{SASL: &s}) }
	for name, test := range map[string]struct {
		login *spec.Login
		words []string
	}{
		"wrong password": {password(spec.SASL{Mechanism: spec.PLAIN, Username: "alice", Password: "s3cret"}),
			[]string{`no login as "alice" by PLAIN`, "Invalid username or password"}},
		"listener without logins": {password(spec.SASL{Mechanism: spec.GSSAPI, Kerberos: &spec.Kerberos{Principal: "kferry@REALM"}}),
			[]string{`no login as "kferry@REALM" by GSSAPI`, "a listener that asks for no login answers so"}},
		"mechanism that is not there": {password(spec.SASL{Mechanism: spec.SCRAMSHA256, Username: "alice", Password: "s3cret"}),
			[]string{`no login as "alice" by SCRAM-SHA-256`, "the broker offers OAUTHBEARER, PLAIN"}},
		"delegation token": {password(spec.SASL{Mechanism: spec.SCRAMSHA256, Username: "id", Password: "s3cret", DelegationToken: true}),
			[]string{`with delegation token "id"`}},
		"no password": {password(spec.SASL{Mechanism: spec.PLAIN, Username: "alice"}), []string{`no login as "alice" by PLAIN`, "must be non-empty"}},
		"token of another issuer": {password(spec.SASL{Mechanism: spec.OAUTHBEARER, OAuth: &spec.OAuth{Token: "s3cret"}}),
			[]string{"no login by OAUTHBEARER", "unknown issuer"}},
		"expired token": {password(spec.SASL{Mechanism: spec.OAUTHBEARER, OAuth: &spec.OAuth{Token: spec.Secret(newJWT("t", time.Unix(1, 0), time.Unix(1000, 0)))}}),
			[]string{"expired at 1970-01-01T00:16:40Z"}},
		"token that breaks out": {password(spec.SASL{Mechanism: spec.OAUTHBEARER, OAuth: &spec.OAuth{Token: "s3cret\x01auth=x"}}),
			[]string{"no token may"}},
		"no token file": {password(spec.SASL{Mechanism: spec.OAUTHBEARER, OAuth: &spec.OAuth{TokenFile: "/nowhere/token"}}),
			[]string{"with the token in /nowhere/token", "no such file"}},
		"no token endpoint":        {oauth(nil), []string{`as client "kferry" by OAUTHBEARER`, "get a token from http://localhost:8080/token"}},
		"login that can't be read": {spec.LoginFunc(lookOnce(errors.New("read /secrets/password: permission denied"))), []string{"no login: read /secrets/password"}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, setup{}, func(w *world) {
				w.fake.ControlKey(int16(kmsg.SASLHandshake), func(req kmsg.Request) (kmsg.Response, error, bool) {
					w.fake.KeepControl()
					resp := req.ResponseKind().(*kmsg.SASLHandshakeResponse)
					resp.ErrorCode = kerr.IllegalSaslState.Code
					return resp, nil, req.(*kmsg.SASLHandshakeRequest).Mechanism == "GSSAPI"
				})
				local.NewGuard(w.fake, "PLAIN", "OAUTHBEARER").SetTokens(func(string) bool { return false })
				w.logIn(test.login)
				for call, ask := range map[string]func() error{
					"ping":  func() error { return w.cluster.Ping(w.ctx) },
					"fetch": func() error { _, err := w.fetch(kafka.TopicPartition{Topic: "t"}, 0); return err },
					"produce": func() error {
						_, err := w.cluster.Produce(w.ctx, kafka.TopicPartition{Topic: "t"}, kafka.TopicID{}, newBatch(1, 1))
						return err
					},
				} {
					err := ask()
					if !errors.Is(err, kafka.ErrLogin) || errors.Is(err, kafka.ErrUnanswered) {
						t.Errorf("%s: %v", call, err)
						continue
					}
					for _, words := range append(test.words, "cluster a: ") {
						if !strings.Contains(err.Error(), words) {
							t.Errorf("%s: %q is not in %q", call, words, err)
						}
					}
					if strings.Contains(err.Error(), "s3cret") {
						t.Errorf("%s gives the secret away: %v", call, err)
					}
				}
			})
		})
	}
}

// lookOnce is a login that is there once, and not again.
func lookOnce(err error) func() (spec.Security, error) {
	var asked atomic.Bool
	return func() (spec.Security, error) {
		if asked.Swap(true) {
			return spec.Security{}, err
		}
		return spec.Security{SASL: &spec.SASL{Mechanism: spec.PLAIN, Username: "alice", Password: "s3cret"}}, nil
	}
}

func TestTokenEndpointsSayWhyNot(t *testing.T) {
	write := func(status int, header, text string) func(http.ResponseWriter) bool {
		return func(rw http.ResponseWriter) bool {
			if name, value, has := strings.Cut(header, ": "); has {
				rw.Header().Set(name, value)
			}
			rw.WriteHeader(status)
			rw.Write([]byte(text))
			return true
		}
	}
	for name, test := range map[string]struct {
		answer func(http.ResponseWriter) bool
		words  string
		asked  int // in one login, with two retries
	}{
		"wrong secret": {write(401, "", `{"error":"invalid_client","error_description":"no client has the secret s3cret"}`),
			"it answers 401 Unauthorized: invalid_client (no client has the secret [hidden])", 1},
		"header repeated": {write(401, "", `{"error":"invalid_client","error_description":"who is a2ZlcnJ5OnMzY3JldA=="}`), "(who is [hidden])", 1},
		"down":            {write(503, "", "<html>s3cret</html>"), "it answers 503 Service Unavailable", 3},
		"redirect":        {write(307, "Location: http://localhost:8081/", ""), "to http://localhost:8081/, where the client's secret is not taken", 1},
		"no token":        {write(200, "Content-Type: text/html", "<html>s3cret</html>"), "its answer (text/html, 19 bytes) holds no access_token", 3},
		"endless":         {write(200, "", strings.Repeat("x", 1<<20)), "more than", 3},
		"token in pieces": {write(200, "", `{"access_token":"a\u0001b"}`), "no token may", 3},
		"silent":          {nil, "http://localhost:8080/token has not answered within 8s", 0},
	} {
		t.Run(name, func(t *testing.T) {
			i := &issuer{answer: test.answer, silent: test.answer == nil}
			login := oauth(func(o *spec.OAuth) {
				o.Endpoint = "http://someone:s3cret@localhost:8080/token?key=s3cret"
				o.Retries, o.RetryPause, o.ReadTimeout = 2, 100*time.Millisecond, 20*time.Second
			})
			behind(t, "OAUTHBEARER", login, func(w *world, g *local.Guard) {
				w.issue(i)
				err := w.cluster.Ping(w.ctx)
				if !errors.Is(err, kafka.ErrLogin) || !strings.Contains(err.Error(), test.words) || strings.Contains(err.Error(), "s3cret") {
					t.Errorf("%v", err)
				}
				if n := i.requests(); test.asked > 0 && n != test.asked {
					t.Errorf("asked %d times", n)
				}
				if g.Logins(time.Time{}) > 0 {
					t.Error("somebody logged in")
				}
			})
		})
	}
}

func TestATokenEndpointHasRootsOfItsOwn(t *testing.T) {
	i := &issuer{lives: time.Minute}
	for name, test := range map[string]struct {
		change func(*spec.OAuth, *x509.Certificate)
		words  string // "" where it is trusted
	}{
		"trusted": {func(o *spec.OAuth, root *x509.Certificate) {
			o.TLS = &spec.TLS{Roots: []*x509.Certificate{root}, AnyName: true}
		}, ""},
		"another name": {func(o *spec.OAuth, root *x509.Certificate) { o.TLS = &spec.TLS{Roots: []*x509.Certificate{root}} }, "localhost"},
		"not trusted": {func(o *spec.OAuth, root *x509.Certificate) {
			o.TLS = &spec.TLS{Roots: []*x509.Certificate{}, AnyName: true}
		}, "authority"},
		"system": {func(*spec.OAuth, *x509.Certificate) {}, "certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewUnstartedServer(i)
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			o := &spec.OAuth{Endpoint: "https://localhost:8443/token", ClientID: "kferry", ClientSecret: "s3cret", Grant: spec.GrantClientCredentials}
			login := spec.LoginFunc(func() (spec.Security, error) {
				return spec.Security{SASL: &spec.SASL{Mechanism: spec.OAUTHBEARER, OAuth: o}}, nil
			})
			behind(t, "OAUTHBEARER", login, func(w *world, _ *local.Guard) {
				listener, err := w.network.Listen("tcp", "localhost:8443")
				w.must(err)
				server.Listener.Close()
				server.Listener = listener
				server.StartTLS()
				defer server.Close()
				test.change(o, server.Certificate())
				switch err := w.cluster.Ping(w.ctx); {
				case test.words == "" && err != nil:
					t.Error(err)
				case test.words != "" && (!errors.Is(err, kafka.ErrLogin) || !strings.Contains(err.Error(), test.words)):
					t.Errorf("%v", err)
				}
			})
		})
	}
}

// Kafka's clients ask for ten seconds, which is longer than a connection waits. What is wrong is said all the same.
func TestATokenThatIsAskedForYetSaysWhatIsWrong(t *testing.T) {
	i := &issuer{answer: func(rw http.ResponseWriter) bool { rw.WriteHeader(http.StatusServiceUnavailable); return true }}
	login := oauth(func(o *spec.OAuth) { o.RetryPause, o.RetryFor = 100*time.Millisecond, 20*time.Second })
	behind(t, "OAUTHBEARER", login, func(w *world, _ *local.Guard) {
		w.issue(i)
		if err := w.cluster.Ping(w.ctx); !errors.Is(err, kafka.ErrLogin) || !strings.Contains(err.Error(), "it answers 503") {
			t.Error(err)
		}
	})
}

func TestATokenEndpointThatIsDownIsNotStormed(t *testing.T) {
	i := &issuer{lives: 10 * time.Minute}
	behind(t, "OAUTHBEARER", oauth(nil), func(w *world, g *local.Guard) {
		g.SetSession(time.Minute)
		w.issue(i)
		w.must(w.cluster.Ping(w.ctx))
		i.set(func() {
			i.answer = func(rw http.ResponseWriter) bool { rw.WriteHeader(http.StatusServiceUnavailable); return true }
		})
		begun, failedAt := time.Now(), time.Duration(0)
		for time.Since(begun) < 20*time.Minute {
			if err := w.cluster.Ping(w.ctx); err != nil && failedAt == 0 {
				failedAt = time.Since(begun)
			}
			time.Sleep(time.Second)
		}
		if failedAt < 9*time.Minute+30*time.Second {
			t.Errorf("failed after %v, with a token that lives for ten minutes", failedAt)
		}
		if n := i.requests(); n < 20 || n > 20*8 {
			t.Errorf("asked %d times", n)
		}
		i.set(func() { i.answer = nil })
		time.Sleep(11 * time.Second)
		w.must(w.cluster.Ping(w.ctx))
	})
}

func TestGrants(t *testing.T) {
	file := filepath.Join(t.TempDir(), "assertion")
	if err := os.WriteFile(file, []byte(" from.a.file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	template := filepath.Join(t.TempDir(), "template.json")
	if err := os.WriteFile(template, []byte(`{"header": {"kid": "k", "alg": "none"}, "payload": {"iss": "i", "exp": 1, "client": 12345678901234567890}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	key, keyFile := newKey(t)
	for name, test := range map[string]struct {
		change func(*spec.OAuth)
		want   string // sorted, without assertions that are signed
	}{
		"secret": {func(*spec.OAuth) {}, "authorization=Basic a2ZlcnJ5OnMzY3JldA==&grant_type=client_credentials"},
		"encoded": {func(o *spec.OAuth) { o.ClientSecret, o.Encode = "a:b c", true },
			"authorization=Basic a2ZlcnJ5OmElM0FiK2M=&grant_type=client_credentials"},
		"refresh token": {func(o *spec.OAuth) { o.Grant, o.RefreshToken = spec.GrantRefreshToken, "r" },
			"authorization=Basic a2ZlcnJ5OnMzY3JldA==&client_id=kferry&grant_type=refresh_token&refresh_token=r"},
		"refresh token without secret": {func(o *spec.OAuth) { o.Grant, o.RefreshToken, o.ClientSecret = spec.GrantRefreshToken, "r", "" },
			"client_id=kferry&grant_type=refresh_token&refresh_token=r"},
		"password": {func(o *spec.OAuth) {
			o.Grant, o.Username, o.Password, o.ClientSecret = spec.GrantPassword, "alice", "pw", ""
		},
			"client_id=kferry&grant_type=password&password=pw&username=alice"},
		"assertion": {func(o *spec.OAuth) { o.Assertion, o.ClientSecret = "a.b.c", "" },
			"client_assertion=a.b.c&client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer&client_id=kferry&grant_type=client_credentials"},
		"assertion in a file": {func(o *spec.OAuth) { o.AssertionFile, o.AssertionType = file, "of:mine" },
			"client_assertion=from.a.file&client_assertion_type=of:mine&client_id=kferry&grant_type=client_credentials"},
		"signed": {func(o *spec.OAuth) {
			o.Signed = &spec.SignedAssertion{Algorithm: "RS256", KeyFile: keyFile, Template: template, Issuer: "the template's wins", Subject: "s", Audience: "a", Lifetime: time.Minute, NotBefore: time.Minute, ID: true}
			o.ClientID, o.ClientSecret = "", ""
		}, "client_assertion=SIGNED&client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer&grant_type=client_credentials"},
		"signed with a key that is encrypted": {func(o *spec.OAuth) {
			o.Signed = &spec.SignedAssertion{Algorithm: "ES256", KeyFile: "../keystore/testdata/pbes2.pem", Passphrase: "changeit",
				Issuer: "i", Subject: "s", Audience: "a", Lifetime: time.Minute, NotBefore: time.Minute}
			o.ClientSecret = ""
		}, "client_assertion=SIGNED&client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer&client_id=kferry&grant_type=client_credentials"},
		"granted": {func(o *spec.OAuth) {
			o.Grant, o.Assertion, o.ClientID, o.ClientSecret = "urn:ietf:params:oauth:grant-type:jwt-bearer", "a.b.c", "", ""
		}, "assertion=a.b.c&grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer"},
	} {
		t.Run(name, func(t *testing.T) {
			i := &issuer{lives: time.Minute}
			behind(t, "OAUTHBEARER", oauth(test.change), func(w *world, _ *local.Guard) {
				w.issue(i)
				w.must(w.cluster.Ping(w.ctx))
				form := i.asked[0]
				if strings.Contains(test.want, "SIGNED") {
					verify(t, form.Get("client_assertion"), key, testKey(t))
					form.Set("client_assertion", "SIGNED")
				}
				if form.Get("authorization") == "" {
					form.Del("authorization")
				}
				if got, _ := url.QueryUnescape(strings.ReplaceAll(form.Encode(), "+", "%20")); got != test.want {
					t.Errorf("asked\n%s, want\n%s", got, test.want)
				}
			})
		})
	}
}

func newKey(t *testing.T) (*rsa.PublicKey, string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &key.PublicKey, file
}

// testKey is the public key of those in the testdata of keystore.
func testKey(t *testing.T) *ecdsa.PublicKey {
	t.Helper()
	text, err := os.ReadFile("../keystore/testdata/chain.pem")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c.PublicKey.(*ecdsa.PublicKey)
}

// verify checks an assertion by the key of its algorithm.
func verify(t *testing.T, assertion string, rs256 *rsa.PublicKey, es256 *ecdsa.PublicKey) {
	t.Helper()
	parts := strings.Split(assertion, ".")
	if len(parts) != 3 {
		t.Fatalf("no JWT: %q", assertion)
	}
	signature, _ := base64.RawURLEncoding.DecodeString(parts[2])
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	switch header, _ := base64.RawURLEncoding.DecodeString(parts[0]); string(header) {
	case `{"alg":"RS256","kid":"k","typ":"JWT"}`:
		if payload, _ := base64.RawURLEncoding.DecodeString(parts[1]); !strings.Contains(string(payload), `"client":12345678901234567890,`) {
			t.Errorf("payload %s", payload)
		}
		if err := rsa.VerifyPKCS1v15(rs256, crypto.SHA256, digest[:], signature); err != nil {
			t.Error(err)
		}
	case `{"alg":"ES256","typ":"JWT"}`:
		if len(signature) != 64 || !ecdsa.Verify(es256, digest[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])) {
			t.Error("the signature is not the key's")
		}
	default:
		t.Errorf("header %s", header)
	}
	var claims map[string]any
	payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	if claims["iss"] != "i" || claims["sub"] != "s" || claims["aud"] != "a" || claims["jti"] == "" ||
		claims["exp"].(float64)-claims["iat"].(float64) != 60 || claims["iat"].(float64)-claims["nbf"].(float64) != 60 {
		t.Errorf("claims %v", claims)
	}
}

func TestARefreshTokenThatIsReplacedIsUsedFromThenOn(t *testing.T) {
	i := &issuer{lives: time.Minute}
	i.answer = func(rw http.ResponseWriter) bool {
		if i.asked[len(i.asked)-1].Get("refresh_token") != fmt.Sprintf("r%d", len(i.asked)) {
			rw.WriteHeader(http.StatusBadRequest)
			return true
		}
		fmt.Fprintf(rw, `{"access_token":"opaque","expires_in":60,"refresh_token":"r%d"}`, len(i.asked)+1)
		return true
	}
	behind(t, "OAUTHBEARER", oauth(func(o *spec.OAuth) { o.Grant, o.RefreshToken = spec.GrantRefreshToken, "r1" }), func(w *world, g *local.Guard) {
		g.SetSession(10 * time.Second)
		w.issue(i)
		for range 60 {
			w.must(w.cluster.Ping(w.ctx))
			time.Sleep(5 * time.Second)
		}
		if n := i.requests(); n < 5 || n > 8 {
			t.Errorf("asked %d times in five minutes", n)
		}
	})
}

func TestAnUnsecuredTokenSaysWho(t *testing.T) {
	login := spec.FixedLogin(spec.Security{SASL: &spec.SASL{Mechanism: spec.OAUTHBEARER, OAuth: &spec.OAuth{Unsecured: map[string]any{"sub": "alice", "n": 3.0, "scope": []string{"a", "b"}},
		MaxLifetime: 2 * time.Minute}}})
	behind(t, "OAUTHBEARER", login, func(w *world, g *local.Guard) {
		w.must(w.cluster.Ping(w.ctx))
		parts := strings.Split(g.Tokens()[0], ".")
		header, _ := base64.RawURLEncoding.DecodeString(parts[0])
		payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
		now := time.Now().Unix()
		want := fmt.Sprintf(`{"exp":%d,"iat":%d,"n":3,"scope":["a","b"],"sub":"alice"}`, now+120, now)
		if string(header) != `{"alg":"none"}` || string(payload) != want || len(parts) != 3 || parts[2] != "" {
			t.Errorf("token %s %s %v", header, payload, parts[2:])
		}
	})
}

// A broker has a login renewed on the connections that stand. Whatever is under way on them is answered, and a password that was changed
// meanwhile is the one that is used.
func TestALoginIsRenewedWithoutLosingARequest(t *testing.T) {
	var password atomic.Value
	password.Store("first")
	login := spec.LoginFunc(func() (spec.Security, error) {
		return spec.Security{SASL: &spec.SASL{Mechanism: spec.PLAIN, Username: "alice", Password: spec.Secret(password.Load().(string))}}, nil
	})
	behind(t, "PLAIN", login, func(w *world, g *local.Guard) {
		g.SetPassword("alice", "first")
		g.SetSession(5 * time.Second)
		topic := w.create("t", 4)
		w.create("aside", 1)
		var group errgroup.Group
		ctx, stop := context.WithTimeout(w.ctx, time.Minute)
		defer stop()
		for p := range int32(4) {
			tp := kafka.TopicPartition{Topic: topic.Name, Partition: p}
			group.Go(func() error { // a partition's records, written one by one and read back
				for at := int64(0); ctx.Err() == nil; at++ {
					landed, err := w.cluster.Produce(w.ctx, tp, topic.ID, newBatch(1, 10))
					if err != nil || landed.BaseOffset != at {
						return fmt.Errorf("produce at %d: %+v, %w", at, landed, err)
					}
					got, err := w.fetch(tp, at)
					if err != nil {
						return fmt.Errorf("fetch: %w", err)
					}
					got.Release()
					if err := w.cluster.Write(w.ctx, "aside", []kafka.Record{{Value: []byte("v")}}); err != nil {
						return fmt.Errorf("write: %w", err)
					}
					time.Sleep(100 * time.Millisecond)
				}
				return nil
			})
		}
		time.Sleep(30*time.Second + 7*time.Millisecond) // between two requests
		before := w.dialled.Load()
		g.SetPassword("alice", "second")
		password.Store("second")
		w.must(group.Wait())
		if made := w.dialled.Load() - before; made > 2 { // of those that had been idle for too long; six are busy
			t.Errorf("%d connections were made anew", made)
		}
		if n := g.Logins(time.Time{}); n < 4*10 {
			t.Errorf("%d logins in a minute of sessions of five seconds", n)
		}
	})
}

// Whoever says he is the broker may ask for as many iterations as he likes.
func TestScramComputesNoMoreThanIsReasonable(t *testing.T) {
	for _, iterations := range []string{"2147483648", "1000001", "99999999999999999999", "-1", "x"} {
		inBubble(t, setup{}, func(w *world) {
			w.fake.ControlKey(int16(kmsg.SASLHandshake), func(req kmsg.Request) (kmsg.Response, error, bool) {
				w.fake.KeepControl()
				return req.ResponseKind(), nil, true
			})
			w.fake.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
				w.fake.KeepControl()
				resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
				_, nonce, _ := strings.Cut(string(req.(*kmsg.SASLAuthenticateRequest).SASLAuthBytes), "r=")
				resp.SASLAuthBytes = []byte("r=" + nonce + "more,s=c2FsdA==,i=" + iterations)
				return resp, nil, true
			})
			w.logIn(spec.FixedLogin(spec.Security{SASL: &spec.SASL{Mechanism: spec.SCRAMSHA512, Username: "alice", Password: "s3cret"}}))
			if err := w.cluster.Ping(w.ctx); !errors.Is(err, kafka.ErrLogin) || !strings.Contains(err.Error(), "iterations") && !strings.Contains(err.Error(), "hashed") {
				t.Errorf("%s: %v", iterations, err)
			}
		})
	}
}

// A broker that does not know the password can't prove that it does.
func TestScramChecksTheBroker(t *testing.T) {
	inBubble(t, setup{fake: []kfake.Opt{kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "alice", "s3cret")}}, func(w *world) {
		w.logIn(spec.FixedLogin(spec.Security{SASL: &spec.SASL{Mechanism: spec.SCRAMSHA256, Username: "alice", Password: "s3cret"}}))
		w.must(w.cluster.Ping(w.ctx))
	})
	inBubble(t, setup{}, func(w *world) {
		w.fake.ControlKey(int16(kmsg.SASLHandshake), func(req kmsg.Request) (kmsg.Response, error, bool) {
			w.fake.KeepControl()
			return req.ResponseKind(), nil, true
		})
		w.fake.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
			w.fake.KeepControl()
			resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
			said := string(req.(*kmsg.SASLAuthenticateRequest).SASLAuthBytes)
			_, nonce, first := strings.Cut(said, "n=alice,r=")
			if resp.SASLAuthBytes = []byte("v=" + base64.StdEncoding.EncodeToString(make([]byte, 32))); first {
				resp.SASLAuthBytes = []byte("r=" + nonce + "more,s=c2FsdA==,i=4096")
			}
			return resp, nil, true
		})
		w.logIn(spec.FixedLogin(spec.Security{SASL: &spec.SASL{Mechanism: spec.SCRAMSHA256, Username: "alice", Password: "s3cret"}}))
		if err := w.cluster.Ping(w.ctx); !errors.Is(err, kafka.ErrLogin) || !strings.Contains(err.Error(), "signature") {
			t.Errorf("%v", err)
		}
	})
}

// A client that does not log in where it has to is told so.
func TestAClusterThatWantsALoginIsNamed(t *testing.T) {
	inBubble(t, setup{fake: []kfake.Opt{kfake.EnableSASL()}}, func(w *world) {
		if err := w.cluster.Ping(w.ctx); !errors.Is(err, kafka.ErrUnanswered) || !strings.Contains(err.Error(), "SASL") {
			t.Error(err)
		}
	})
}
