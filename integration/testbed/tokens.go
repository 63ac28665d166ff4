package testbed

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"time"
)

// Tokens is an authorization server: it gives out tokens for client credentials (RFC 6749, 4.4), which brokers of a
// cluster [WithSecurity] check by its key. It knows one client.
type Tokens struct {
	ClientID, ClientSecret string

	server *httptest.Server
	key    *rsa.PrivateKey

	mu       sync.Mutex // guards the fields below
	lifetime time.Duration
	refuses  bool
	issued   int
	last     url.Values
}

// Tokens starts an authorization server whose tokens the cluster's brokers take; it ends with the test. A token lasts an
// hour unless told.
func (c *Cluster) Tokens(clientID, clientSecret string) *Tokens {
	c.t.Helper()
	s := &Tokens{ClientID: clientID, ClientSecret: clientSecret, key: c.security.tokenKey, lifetime: time.Hour}
	s.server = httptest.NewServer(s)
	c.t.Cleanup(s.server.Close)
	return s
}

// Endpoint is the URL of the token endpoint.
func (s *Tokens) Endpoint() string { return s.server.URL + "/token" }

// Last has tokens last so long from now on.
func (s *Tokens) Last(lifetime time.Duration) { s.mu.Lock(); s.lifetime = lifetime; s.mu.Unlock() }

// Refuse has the server refuse its client, or take it again.
func (s *Tokens) Refuse(refuse bool) { s.mu.Lock(); s.refuses = refuse; s.mu.Unlock() }

// Issued counts the tokens given out.
func (s *Tokens) Issued() int { s.mu.Lock(); defer s.mu.Unlock(); return s.issued }

// Request is the form of the last request.
func (s *Tokens) Request() url.Values { s.mu.Lock(); defer s.mu.Unlock(); return s.last }

// Token is one for a user, for who asks no server.
func (s *Tokens) Token(user string, lifetime time.Duration) string {
	return token(s.key, user, lifetime)
}

// ServeHTTP is the token endpoint.
func (s *Tokens) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	id, secret, basic := r.BasicAuth()
	if !basic {
		id, secret = r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = r.PostForm
	w.Header().Set("Content-Type", "application/json")
	if s.refuses || id != s.ClientID || secret != s.ClientSecret {
		w.WriteHeader(http.StatusUnauthorized)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_client", "error_description": "the client is not known, or its secret is wrong"})
		return
	}
	s.issued++
	_ = json.NewEncoder(w).Encode(map[string]any{
		"access_token": token(s.key, id, s.lifetime), "token_type": "Bearer", "expires_in": int(s.lifetime.Seconds()), "scope": "kafka",
	})
}

// tokenKeyID names the one key there is.
const tokenKeyID = "testbed"

// token is a JWT, signed with RS256.
func token(key *rsa.PrivateKey, user string, lifetime time.Duration) string {
	part := func(v any) string {
		text, _ := json.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(text)
	}
	now := time.Now()
	expires := now.Add(lifetime + time.Second) // for Unix cuts off up to a second, and whoever asked is told the lifetime
	text := part(map[string]string{"alg": "RS256", "typ": "JWT", "kid": tokenKeyID}) + "." +
		part(map[string]any{"sub": user, "scope": "kafka", "iat": now.Unix(), "exp": expires.Unix()})
	sum := sha256.Sum256([]byte(text))
	signature, _ := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// keySet is a key as brokers want it to check tokens (RFC 7517).
func keySet(key *rsa.PublicKey) []byte {
	text, _ := json.Marshal(map[string]any{"keys": []map[string]string{{
		"kty": "RSA", "kid": tokenKeyID, "use": "sig", "alg": "RS256",
		"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()),
		"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes()),
	}}})
	return text
}
