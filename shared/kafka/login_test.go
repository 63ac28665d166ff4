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
	"github.com/kferry/kferry/shared/local"
	"github.com/kferry/kferry/shared/spec"
)

// behind has a guarded cluster, and a client that logs in there.
func behind(t *testing.T, mechanism string, l *spec.Login, test func(w *world, g *local.Guard)) {
	t.Helper()
	inBubble(t, setup{}, func(w *world) {
		g := local.NewGuard(w.fake, mechanism)
		w.cluster.Close()
		cluster, err := kafka.Open(spec.Cluster{Alias: "a", BootstrapServers: []string{"localhost:9092"}, Login: l},
			kafka.Options{Dialer: w.network.DialContext})
		w.must(err)
		defer cluster.Close()
		w.cluster = cluster
		test(w, g)
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

// oauth is a login by client credentials.
func oauth(change func(*spec.OAuth)) *spec.Login {
	o := &spec.OAuth{Endpoint: endpoint, ClientID: "kferry", ClientSecret: "s3cret"}
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
