package login

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/kferry/kferry/shared/spec"
)

const (
	jwtBearerClient = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

	basicScheme = "Basic "

	// attemptLimit is for a part of an attempt whose limit the login leaves open.
	attemptLimit = 10 * time.Second
	// mostRetries and mostPause bound what a login may ask for.
	mostRetries = 10
	mostPause   = 10 * time.Second
	// mostWords bounds what is shown of an answer, in bytes.
	mostWords = 500
)

// An endpoint gives tokens (RFC 6749).
type endpoint struct {
	of   *spec.OAuth
	http http.Client
	sent []string // of secrets, in the last request
}

func newEndpoint(o *spec.OAuth, dial Dial) *endpoint {
	within := func(d time.Duration) time.Duration {
		if d <= 0 {
			return attemptLimit
		}
		return d
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, within(o.ConnectTimeout))
			defer cancel()
			return dial(ctx, network, address)
		},
		TLSHandshakeTimeout:    within(o.ConnectTimeout),
		ResponseHeaderTimeout:  within(o.ReadTimeout),
		MaxResponseHeaderBytes: mostToken,
		DisableKeepAlives:      true, // once in minutes, if that
	}
	if o.TLS != nil {
		at, _ := url.Parse(o.Endpoint)
		transport.TLSClientConfig = Config(o.TLS, at.Hostname())
	}
	return &endpoint{of: o, http: http.Client{
		Transport: transport,
		Timeout:   within(o.ConnectTimeout) + within(o.ReadTimeout),
		// What it holds is for the endpoint alone.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// get asks for a token, again where that may help, which failed is told, and for the refresh token to use from now on, "" for the same.
func (e *endpoint) get(ctx context.Context, failed func(error)) (*token, spec.Secret, error) {
	pause, until := min(max(e.of.RetryPause, 0), mostPause), time.Now().Add(e.of.RetryFor)
	for attempt := 0; ; attempt++ {
		t, next, err := e.ask(ctx)
		if err == nil {
			return t, next, nil
		}
		err = fmt.Errorf("get a token from %s: %w", where(e.of), e.hide(err))
		_, final := errors.AsType[*finalError](err)
		again := attempt < min(e.of.Retries, mostRetries) || attempt < mostRetries && time.Now().Add(pause).Before(until)
		if final || !again {
			return nil, "", err
		}
		failed(err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, "", context.Cause(ctx)
		}
		if e.of.RetryFor > 0 {
			pause = min(2*pause, mostPause)
		}
	}
}

// where is the endpoint without what a query or a user may give away.
func where(o *spec.OAuth) string {
	at, err := url.Parse(o.Endpoint)
	if err != nil {
		return "the token endpoint"
	}
	return at.Scheme + "://" + at.Host + at.Path
}

// A finalError is an answer that stays the same however often one asks.
type finalError struct{ text string }

func (e *finalError) Error() string { return e.text }

// answer is what an endpoint says.
type answer struct {
	Token       spec.Secret `json:"access_token"`
	Refresh     spec.Secret `json:"refresh_token"`
	Lives       json.Number `json:"expires_in"` // seconds; some send it as a text
	Error       string      `json:"error"`
	Description string      `json:"error_description"`
}

func (e *endpoint) ask(ctx context.Context) (*token, spec.Secret, error) {
	req, err := e.request(ctx)
	if err != nil {
		return nil, "", err
	}
	resp, err := e.http.Do(req)
	if err != nil {
		if wrapped, is := errors.AsType[*url.Error](err); is {
			err = wrapped.Err // the rest has been said
		}
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, mostToken+1))
	switch {
	case err != nil:
		return nil, "", fmt.Errorf("read its answer: %w", err)
	case len(body) > mostToken:
		return nil, "", fmt.Errorf("its answer has more than %d bytes", mostToken)
	}
	var said answer
	wrong := json.Unmarshal(body, &said)
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated {
		return nil, "", refusedBy(resp, said)
	}
	if wrong != nil || said.Token == "" {
		return nil, "", fmt.Errorf("its answer (%s, %d bytes) holds no access_token", resp.Header.Get("Content-Type"), len(body))
	}
	if !tokenText.MatchString(string(said.Token)) {
		return nil, "", errors.New("its token holds what no token may")
	}
	return newToken(said.Token, e.life(said)), said.Refresh, nil
}

// life is how long the token of an answer may be used.
func (e *endpoint) life(said answer) time.Duration {
	var life time.Duration
	shorten := func(d time.Duration) {
		if d > 0 && (life == 0 || d < life) {
			life = d
		}
	}
	if c, is := claimsOf(said.Token); is {
		shorten(c.life())
	}
	if n, err := said.Lives.Float64(); err == nil {
		shorten(seconds(n))
	}
	if life == 0 {
		life = unknownLife
	}
	shorten(e.of.MaxLifetime)
	return life
}

// unretryable are the answers that stay the same, as Kafka has them.
var unretryable = map[int]bool{400: true, 401: true, 402: true, 403: true, 404: true, 405: true, 406: true, 407: true, 409: true, 410: true,
	411: true, 412: true, 413: true, 414: true, 415: true, 501: true, 505: true}

// refusedBy is an answer without a token. Of its text only what RFC 6749 has for people is shown.
func refusedBy(resp *http.Response, said answer) error {
	text := "it answers " + resp.Status
	if said.Error != "" {
		text += fmt.Sprintf(": %s", shown(said.Error))
	}
	if said.Description != "" {
		text += fmt.Sprintf(" (%s)", shown(said.Description))
	}
	if to := resp.Header.Get("Location"); resp.StatusCode/100 == 3 {
		text += fmt.Sprintf(" to %s, where the client's secret is not taken", shown(to))
	}
	if unretryable[resp.StatusCode] || resp.StatusCode/100 == 3 {
		return &finalError{text}
	}
	return errors.New(text)
}

// shown is a stranger's text for a message: short, and of one line.
func shown(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	if len(text) > mostWords {
		text = strings.ToValidUTF8(text[:mostWords], "") + "…"
	}
	return text
}

// hide takes out of an error what the endpoint may have repeated.
func (e *endpoint) hide(err error) error {
	text := err.Error()
	for _, secret := range e.sent {
		for _, written := range []string{secret, url.QueryEscape(secret)} {
			if written != "" {
				text = strings.ReplaceAll(text, written, spec.Secret(secret).String())
			}
		}
	}
	if text == err.Error() {
		return err
	}
	if _, final := errors.AsType[*finalError](err); final {
		return &finalError{text}
	}
	return errors.New(text)
}

func (e *endpoint) request(ctx context.Context) (*http.Request, error) {
	form, header, err := e.form()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.of.Endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Cache-Control", "no-cache")
	if e.of.AcceptHeader {
		req.Header.Set("Accept", "application/json")
	}
	if header != "" {
		req.Header.Set("Authorization", header)
	}
	return req, nil
}

// form is what to ask, and the header that says who does.
func (e *endpoint) form() (form url.Values, header string, _ error) {
	o := e.of
	form = url.Values{"grant_type": {o.Grant}}
	set := func(name, value string) {
		if value != "" {
			form.Set(name, value)
		}
	}
	set("scope", strings.TrimSpace(o.Scope))
	set("audience", o.Audience)
	assertion, err := e.assertion()
	if err != nil {
		return nil, "", err
	}
	switch form.Get("grant_type") {
	case spec.GrantJWTBearer:
		set("assertion", string(assertion))
		assertion = ""
	case spec.GrantRefreshToken:
		set("refresh_token", string(o.RefreshToken))
		set("client_id", o.ClientID)
	case spec.GrantPassword:
		set("username", o.Username)
		set("password", string(o.Password))
		set("client_id", o.ClientID)
	}
	switch {
	case assertion != "":
		set("client_id", o.ClientID)
		set("client_assertion", string(assertion))
		form.Set("client_assertion_type", jwtBearerClient)
		set("client_assertion_type", o.AssertionType)
	case o.ClientSecret != "":
		header = basic(o.ClientID, string(o.ClientSecret), o.Encode)
	default:
		set("client_id", o.ClientID)
	}
	e.sent = []string{string(o.ClientSecret), strings.TrimPrefix(header, basicScheme)}
	for _, name := range []string{"assertion", "client_assertion", "refresh_token", "password"} {
		e.sent = append(e.sent, form.Get(name))
	}
	return form, header, nil
}

// assertion is a JWT that says who asks, "" where something else does.
func (e *endpoint) assertion() (spec.Secret, error) {
	o := e.of
	if o.Assertion == "" && o.AssertionFile == "" && o.Signed != nil {
		return sign(o.Signed)
	}
	return givenOrIn(o.Assertion, o.AssertionFile, "assertion")
}

// basic is RFC 7617, or RFC 6749's way of it, which encodes both parts first.
func basic(id, secret string, encode bool) string {
	if encode {
		id, secret = url.QueryEscape(id), url.QueryEscape(secret)
	}
	return basicScheme + base64.StdEncoding.EncodeToString([]byte(id+":"+secret))
}
