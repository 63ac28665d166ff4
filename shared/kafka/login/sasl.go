package login

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/kferry/kferry/shared/spec"
)

// mostIterations is how often a broker may have a password hashed: each time costs both sides as much. Kafka's own tools take 4,096 unless
// told otherwise, and 16,384 at most.
const mostIterations = 1_000_000

// errGone is that there is no SASL any more in a login that had it. Connections without it are of another client.
var errGone = errors.New("the login has no SASL mechanism any more, which takes a restart")

// A mechanism logs in as the login wants it at that moment.
type mechanism struct {
	login    *spec.Login
	dial     Dial // with TLS, where there is any
	tokens   *tokens
	iam      iam
	tickets  *tickets
	refusals refusals
}

func newMechanism(l *spec.Login, plain, secured Dial) *mechanism {
	return &mechanism{login: l, dial: secured, tokens: newTokens(l, plain), tickets: newTickets()}
}

// current is what the login says now.
func (m *mechanism) current() (*spec.SASL, error) {
	s, err := m.login.Security()
	switch {
	case err != nil:
		return nil, &Error{cause: err}
	case s.SASL == nil:
		return nil, &Error{cause: errGone}
	}
	return s.SASL, nil
}

// Name is part of sasl.Mechanism.
func (m *mechanism) Name() string {
	s, err := m.current()
	if err != nil {
		return string(spec.PLAIN) // Authenticate says why not, before anything is sent
	}
	m.refusals.try(s)
	return string(s.Mechanism)
}

// Authenticate is part of sasl.Mechanism.
func (m *mechanism) Authenticate(ctx context.Context, address string) (sasl.Session, []byte, error) {
	s, err := m.current()
	if err != nil {
		return nil, nil, err
	}
	if err := m.refusals.pass(s, address); err != nil {
		return nil, nil, err
	}
	m.refusals.try(s)
	by, err := m.now(ctx, s)
	if err != nil {
		return nil, nil, newError(s, err)
	}
	session, first, err := by.Authenticate(ctx, address)
	if err != nil {
		return nil, nil, newError(s, err)
	}
	return &explained{session, s}, first, nil
}

// now is the mechanism for one login.
func (m *mechanism) now(ctx context.Context, s *spec.SASL) (sasl.Mechanism, error) {
	// As Kafka does, texts go as they are: RFC 5802 would have them prepared (SASLprep), which turns some into others.
	auth := scram.Auth{User: s.Username, Pass: string(s.Password), IsToken: s.DelegationToken}
	switch {
	case s.Mechanism == spec.PLAIN:
		return plain.Auth{User: s.Username, Pass: string(s.Password)}.AsMechanism(), nil
	case s.Mechanism == spec.SCRAMSHA256:
		return bounded{auth.AsSha256Mechanism()}, nil
	case s.Mechanism == spec.SCRAMSHA512:
		return bounded{auth.AsSha512Mechanism()}, nil
	case s.Mechanism == spec.OAUTHBEARER && s.OAuth != nil:
		token, err := m.tokens.token(ctx, s.OAuth)
		return bearer{token, s.OAuth.Extensions}, err
	case s.Mechanism == spec.OAUTHBEARER && s.IAM != nil:
		return m.iam.bearer(s.IAM), nil
	case s.Mechanism == spec.AWSMSKIAM && s.IAM != nil:
		return m.iam.mechanism(s.IAM), nil
	case s.Mechanism == spec.GSSAPI && s.Kerberos != nil:
		return m.tickets.mechanism(s.Kerberos), nil
	}
	return nil, fmt.Errorf("mechanism %s is not known, or lacks what it needs", s.Mechanism)
}

// bounded is SCRAM with a bound on what a broker, or whoever says it is one, may have us compute.
type bounded struct{ sasl.Mechanism }

func (b bounded) Authenticate(ctx context.Context, address string) (sasl.Session, []byte, error) {
	session, first, err := b.Mechanism.Authenticate(ctx, address)
	return boundedSession{session}, first, err
}

type boundedSession struct{ sasl.Session }

func (b boundedSession) Challenge(challenge []byte) (bool, []byte, error) {
	for _, field := range bytes.Split(challenge, []byte(",")) {
		asked, is := bytes.CutPrefix(field, []byte("i="))
		if n, err := strconv.Atoi(string(asked)); is && (err != nil || n > mostIterations) {
			return false, nil, fmt.Errorf("the broker wants the password hashed %.20q times, which is more than %d: lower the iterations of the user", asked, mostIterations)
		}
	}
	return b.Session.Challenge(challenge)
}

// explained is a session whose errors say whose they are.
type explained struct {
	sasl.Session
	of *spec.SASL
}

func (e *explained) Challenge(challenge []byte) (bool, []byte, error) {
	done, answer, err := e.Session.Challenge(challenge)
	if err != nil {
		err = newError(e.of, err)
	}
	return done, answer, err
}

// connect dials, unless the login was refused a moment ago.
func (m *mechanism) connect(ctx context.Context, network, address string) (net.Conn, error) {
	s, err := m.current()
	if err != nil {
		return nil, err
	}
	if err := m.refusals.pass(s, address); err != nil {
		return nil, err
	}
	return m.dial(ctx, network, address)
}

var _ kgo.HookBrokerConnect = (*mechanism)(nil)
