package kafka_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/spec"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A guard is the door of a fake cluster: it knows passwords and tokens, and counts who comes.
type guard struct {
	mu         sync.Mutex
	mechanisms []string
	password   string // of alice, by PLAIN
	taken      func(token string) bool
	lives      time.Duration // of a session, 0 for ever
	logins     []time.Time   // attempts
	tokens     []string      // that were presented
}

func (g *guard) handshake(req kmsg.Request) (kmsg.Response, error, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	resp := req.ResponseKind().(*kmsg.SASLHandshakeResponse)
	resp.SupportedMechanisms = g.mechanisms
	resp.ErrorCode = kerr.UnsupportedSaslMechanism.Code
	for _, known := range g.mechanisms {
		if known == req.(*kmsg.SASLHandshakeRequest).Mechanism {
			resp.ErrorCode = 0
		}
	}
	return resp, nil, true
}

func (g *guard) authenticate(req kmsg.Request) (kmsg.Response, error, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
	said := string(req.(*kmsg.SASLAuthenticateRequest).SASLAuthBytes)
	refuse := func(words string) {
		resp.ErrorCode, resp.ErrorMessage = kerr.SaslAuthenticationFailed.Code, &words
	}
	if said == "\x01" {
		refuse("Authentication failed: the token has an unknown issuer")
		return resp, nil, true
	}
	g.logins = append(g.logins, time.Now())
	if bearer, is := strings.CutPrefix(said, "n,,\x01auth=Bearer "); is {
		token, rest, _ := strings.Cut(bearer, "\x01")
		g.tokens = append(g.tokens, strings.ReplaceAll(strings.TrimRight(token+"\x01"+rest, "\x01"), "\x01", " "))
		if !g.taken(token) {
			resp.SASLAuthBytes = []byte(`{"status":"invalid_token"}`)
			return resp, nil, true
		}
	} else if said != "\x00alice\x00"+g.password {
		refuse("Authentication failed: Invalid username or password")
		return resp, nil, true
	}
	resp.SessionLifetimeMillis = g.lives.Milliseconds()
	return resp, nil, true
}

// attempts is how often somebody tried since.
func (g *guard) attempts(since time.Time) (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, at := range g.logins {
		if !at.Before(since) {
			n++
		}
	}
	return n
}

// set changes what the guard knows.
func (g *guard) set(change func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change()
}

// behind has a cluster with a guard at its door, and a client of it.
func behind(t *testing.T, g *guard, l func(w *world) *spec.Login, test func(w *world)) {
	t.Helper()
	inBubble(t, setup{}, func(w *world) {
		for key, control := range map[kmsg.Key]func(kmsg.Request) (kmsg.Response, error, bool){
			kmsg.SASLHandshake: g.handshake, kmsg.SASLAuthenticate: g.authenticate,
		} {
			w.fake.ControlKey(int16(key), func(req kmsg.Request) (kmsg.Response, error, bool) {
				w.fake.KeepControl()
				return control(req)
			})
		}
		w.cluster.Close()
		cluster, err := kafka.Open(spec.Cluster{Alias: "a", BootstrapServers: []string{"localhost:9092"}, Login: l(w)},
			kafka.Options{Dialer: w.network.DialContext})
		w.must(err)
		defer cluster.Close()
		w.cluster = cluster
		test(w)
	})
}

// An issuer is a token endpoint inside the bubble.
type issuer struct {
	mu     sync.Mutex
	lives  time.Duration                  // of a token
	asked  []url.Values                   // forms, with the header as "authorization"
	answer func(http.ResponseWriter) bool // in place of a token
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
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := r.ParseForm(); err != nil {
		rw.WriteHeader(http.StatusBadRequest)
		return
	}
	r.PostForm.Set("authorization", r.Header.Get("Authorization"))
	i.asked = append(i.asked, r.PostForm)
	if i.answer != nil && i.answer(rw) {
		return
	}
	now := time.Now()
	json.NewEncoder(rw).Encode(map[string]any{"access_token": newJWT(fmt.Sprintf("t%d", len(i.asked)), now, now.Add(i.lives)), "token_type": "Bearer"})
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

func anyToken(string) bool { return true }

// oauth is a login by client credentials.
func oauth(change func(*spec.OAuth)) func(*world) *spec.Login {
	return func(*world) *spec.Login {
		o := &spec.OAuth{Endpoint: endpoint, ClientID: "kferry", ClientSecret: "s3cret"}
		if change != nil {
			change(o)
		}
		return spec.FixedLogin(spec.Security{SASL: &spec.SASL{Mechanism: spec.OAUTHBEARER, OAuth: o}})
	}
}

func TestATokenIsSharedAndReplacedBeforeItExpires(t *testing.T) {
	g := &guard{mechanisms: []string{"OAUTHBEARER"}, taken: anyToken, lives: time.Minute}
	i := &issuer{lives: 10 * time.Minute}
	behind(t, g, oauth(func(o *spec.OAuth) {
		o.Scope, o.Audience, o.Extensions = "read write", "kafka", map[string]string{"cluster": "lkc"}
	}), func(w *world) {
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
		if presented := g.tokens[0]; !strings.HasSuffix(presented, " cluster=lkc") {
			t.Errorf("without its extension: %q", presented)
		}
		if len(g.logins) < 60 || idOf(g.tokens[len(g.tokens)-1]) != "t4" {
			t.Errorf("%d logins, the last with %s", len(g.logins), idOf(g.tokens[len(g.tokens)-1]))
		}
	})
}

