package login

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/kferry/kferry/shared/spec"
)

const (
	// tokenWait is how long a connection waits for a token: less than a request does, so that its error says what is missing. The token
	// that comes later is for the next attempt.
	tokenWait = 8 * time.Second
	// refreshAfter is the part of its life after which a token is replaced, plus up to refreshJitter, as Kafka does it.
	refreshAfter, refreshJitter = 0.80, 0.05
	// unknownLife is for a token that does not say how long it lives.
	unknownLife = time.Minute
	// leastLeft is what a token must have left to be worth a login.
	leastLeft = time.Second
	// mostToken bounds a token, or an assertion, in bytes, and what a file or an endpoint may hold of it.
	mostToken = 256 << 10
)

// A token is what OAUTHBEARER logs in with.
type token struct {
	text    spec.Secret
	expires time.Time // by our clock
	refresh time.Time // when to get another one, where this one is used
	used    bool
}

func newToken(text spec.Secret, life time.Duration) *token {
	now := time.Now()
	return &token{text: text, expires: now.Add(life), refresh: now.Add(time.Duration(float64(life) * (refreshAfter + refreshJitter*rand.Float64())))}
}

func (t *token) good() bool { return t != nil && time.Until(t.expires) > leastLeft }

// tokens gets tokens from an endpoint, one at a time, and keeps the last for all connections.
type tokens struct {
	login *spec.Login
	dial  Dial

	wanted chan struct{} // of capacity 1: somebody waits

	mu   sync.Mutex    // guards what follows
	last *token        // nil for none
	of   *spec.OAuth   // whose last is
	err  error         // of the last attempt, nil while it has not failed
	news chan struct{} // closed when an attempt is over
	// rotated is the refresh token that came in place of the login's own, from.
	rotated, from spec.Secret
}

func newTokens(l *spec.Login, dial Dial) *tokens {
	return &tokens{login: l, dial: dial, wanted: make(chan struct{}, 1), news: make(chan struct{})}
}

// token is one to log in with now.
func (t *tokens) token(ctx context.Context, o *spec.OAuth) (spec.Secret, error) {
	switch {
	case o.Token != "":
		return given(o.Token, "the token that is given")
	case o.TokenFile != "":
		text, err := readSecret(o.TokenFile)
		if err != nil {
			return "", fmt.Errorf("read the token: %w", err)
		}
		return given(text, "the token in "+o.TokenFile)
	case o.Unsecured != nil:
		return unsecured(o)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, tokenWait, fmt.Errorf("the token endpoint %s has not answered within %v", where(o), tokenWait))
	defer cancel()
	last, news := t.peek(o)
	if last != nil {
		return last.text, nil
	}
	select {
	case t.wanted <- struct{}{}:
	default: // somebody has asked already
	}
	select {
	case <-news:
	case <-ctx.Done():
		return "", cmp.Or(t.failure(), context.Cause(ctx)) // of an attempt that is repeated yet
	}
	if last, _ = t.peek(o); last != nil {
		return last.text, nil
	}
	return "", cmp.Or(t.failure(), errors.New("the login has changed while a token was asked for"))
}

// failure is that of the last attempt, nil for none.
func (t *tokens) failure() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// fail notes how an attempt ended.
func (t *tokens) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = err
}

// peek is a token of that login which is still good, nil for none, and what closes when there is news.
func (t *tokens) peek(o *spec.OAuth) (*token, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.last.good() || !reflect.DeepEqual(t.of, o) {
		return nil, t.news
	}
	t.last.used = true
	return t.last, t.news
}

// forget gives up the last token: a broker does not take it.
func (t *tokens) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = nil
}

// run gets a token whenever somebody waits for one, and another one before one that is used expires. Where that fails the old one holds
// for as long as it lives, and it is tried again with pauses.
func (t *tokens) run(ctx context.Context) {
	failed := 0 // in a row
	for {
		var due <-chan time.Time
		if at := t.due(); !at.IsZero() {
			due = time.After(max(time.Until(at), pause(failed)))
		}
		select {
		case <-ctx.Done():
			return
		case <-t.wanted:
			if t.served() {
				continue
			}
		case <-due:
		}
		failed++
		if t.get(ctx) {
			failed = 0
		}
	}
}

// served says that whoever waits has come too late for the last attempt only to ask for it.
func (t *tokens) served() bool {
	s, err := t.login.Security()
	if err != nil || s.SASL == nil {
		return false
	}
	last, _ := t.peek(s.SASL.OAuth)
	if last == nil {
		return false
	}
	t.tell()
	return true
}

// tell wakes those who wait.
func (t *tokens) tell() {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.news)
	t.news = make(chan struct{})
}

// due is when the last token is to be replaced, zero for never.
func (t *tokens) due() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.last.good() || !t.last.used {
		return time.Time{}
	}
	return t.last.refresh
}

// get asks for a token, and says whether there is a new one.
func (t *tokens) get(ctx context.Context) bool {
	t.fail(nil)
	s, err := t.login.Security()
	if err == nil && (s.SASL == nil || s.SASL.OAuth == nil) {
		err = errGone
	}
	var got *token
	var next, own spec.Secret
	if err == nil {
		o := *s.SASL.OAuth
		if o.RefreshToken, err = givenOrIn(o.RefreshToken, o.RefreshTokenFile, "refresh token"); err == nil {
			own = o.RefreshToken
			o.RefreshToken = t.refreshToken(own)
			got, next, err = newEndpoint(&o, t.dial).get(ctx, t.fail)
		}
	}
	defer t.tell()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = err
	if err == nil {
		t.last, t.of = got, s.SASL.OAuth
		if next != "" {
			t.rotated, t.from = next, own
		}
	}
	return err == nil
}

// givenOrIn is a secret that is given, or that a file holds; "" where there is neither.
func givenOrIn(text spec.Secret, file, what string) (spec.Secret, error) {
	if text != "" || file == "" {
		return text, nil
	}
	text, err := readSecret(file)
	if err == nil && text == "" {
		err = fmt.Errorf("%s is empty", file)
	}
	if err != nil {
		return "", fmt.Errorf("read the %s: %w", what, err)
	}
	return text, nil
}

// refreshToken is the login's own, or the one that the endpoint has given in its place since.
func (t *tokens) refreshToken(own spec.Secret) spec.Secret {
	t.mu.Lock()
	defer t.mu.Unlock()
	if own != "" && t.rotated != "" && t.from == own {
		return t.rotated
	}
	return own
}

// given checks a token that comes from elsewhere. One that is no JWT is the broker's to judge.
func given(text spec.Secret, what string) (spec.Secret, error) {
	if !tokenText.MatchString(string(text)) {
		return "", fmt.Errorf("%s is empty, or holds what no token may", what)
	}
	if c, is := claimsOf(text); is && c.Expires != 0 && time.Now().After(c.expiry()) {
		return "", fmt.Errorf("%s expired at %s: replace it", what, c.expiry().UTC().Format(time.RFC3339))
	}
	return text, nil
}

// readSecret is what a file holds, without the white space around it.
func readSecret(path string) (spec.Secret, error) {
	text, err := spec.ReadFile(path, mostToken)
	return spec.Secret(strings.TrimSpace(string(text))), err
}
