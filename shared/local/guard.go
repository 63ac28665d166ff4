package local

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A Guard stands at the door of a Kafka cluster, in place of its own: it knows passwords (PLAIN) and tokens (OAUTHBEARER), answers in a
// broker's words, and remembers who came. What it is told to change holds for the next login.
type Guard struct {
	mu         sync.Mutex // guards what follows
	mechanisms []string
	passwords  map[string]string
	takes      func(token string) bool
	session    time.Duration
	logins     []time.Time
	tokens     []string
}

// NewGuard has a cluster guarded.
func NewGuard(cluster *kfake.Cluster, mechanisms ...string) *Guard {
	g := &Guard{mechanisms: mechanisms, passwords: map[string]string{}, takes: func(string) bool { return true }}
	for key, answer := range map[kmsg.Key]func(kmsg.Request) kmsg.Response{
		kmsg.SASLHandshake: g.handshake, kmsg.SASLAuthenticate: g.authenticate,
	} {
		cluster.ControlKey(int16(key), func(req kmsg.Request) (kmsg.Response, error, bool) {
			cluster.KeepControl()
			g.mu.Lock()
			defer g.mu.Unlock()
			return answer(req), nil, true
		})
	}
	return g
}

// SetPassword is a user's from now on.
func (g *Guard) SetPassword(user, password string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.passwords[user] = password
}

// SetTokens says which tokens are taken.
func (g *Guard) SetTokens(takes func(token string) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.takes = takes
}

// SetSession is for how long a login holds (KIP-368), 0 for ever.
func (g *Guard) SetSession(lives time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.session = lives
}

// Logins counts the attempts since.
func (g *Guard) Logins(since time.Time) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.logins) - max(0, slices.IndexFunc(append(g.logins, time.Now()), func(at time.Time) bool { return !at.Before(since) }))
}

// Tokens are those that were presented, each with its extensions behind it.
func (g *Guard) Tokens() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.tokens)
}

func (g *Guard) handshake(req kmsg.Request) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.SASLHandshakeResponse)
	resp.SupportedMechanisms = g.mechanisms
	if !slices.Contains(g.mechanisms, req.(*kmsg.SASLHandshakeRequest).Mechanism) {
		resp.ErrorCode = kerr.UnsupportedSaslMechanism.Code
	}
	return resp
}

func (g *Guard) authenticate(req kmsg.Request) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
	refuse := func(words string) kmsg.Response {
		resp.ErrorCode, resp.ErrorMessage = kerr.SaslAuthenticationFailed.Code, &words
		return resp
	}
	said := string(req.(*kmsg.SASLAuthenticateRequest).SASLAuthBytes)
	if said == "\x01" { // acknowledges the status below
		return refuse("Authentication failed: the token is of an unknown issuer")
	}
	g.logins = append(g.logins, time.Now())
	if bearer, is := strings.CutPrefix(said, "n,,\x01auth=Bearer "); is {
		bearer = strings.TrimRight(bearer, "\x01")
		g.tokens = append(g.tokens, strings.ReplaceAll(bearer, "\x01", " "))
		if token, _, _ := strings.Cut(bearer, "\x01"); !g.takes(token) {
			resp.SASLAuthBytes = []byte(`{"status":"invalid_token"}`)
			return resp
		}
	} else if parts := strings.Split(said, "\x00"); len(parts) != 3 || g.passwords[parts[1]] != parts[2] || parts[2] == "" {
		return refuse("Authentication failed: Invalid username or password")
	}
	resp.SessionLifetimeMillis = g.session.Milliseconds()
	return resp
}
