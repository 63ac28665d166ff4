package login

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/kferry/kferry/shared/spec"
)

// A mechanism logs in as the login wants it at that moment.
type mechanism struct {
	login   *spec.Login
	name    spec.Mechanism
	iam     iam
	tickets *tickets
}

func newMechanism(l *spec.Login, s *spec.SASL) (sasl.Mechanism, error) {
	m := &mechanism{login: l, name: s.Mechanism, tickets: newTickets()}
	if _, err := m.now(s); err != nil {
		return nil, err
	}
	return m, nil
}

// Name is part of sasl.Mechanism.
func (m *mechanism) Name() string { return string(m.name) }

// Authenticate is part of sasl.Mechanism.
func (m *mechanism) Authenticate(ctx context.Context, host string) (sasl.Session, []byte, error) {
	s, err := m.login.Security()
	if err != nil {
		return nil, nil, err
	}
	current, err := m.now(s.SASL)
	if err != nil {
		return nil, nil, err
	}
	return current.Authenticate(ctx, host)
}

// now is the mechanism for one login.
func (m *mechanism) now(s *spec.SASL) (sasl.Mechanism, error) {
	switch {
	case s.Mechanism == spec.AWSMSKIAM && s.IAM != nil:
		return m.iam.mechanism(s.IAM), nil
	case s.Mechanism == spec.OAUTHBEARER && s.IAM != nil:
		return m.iam.bearer(s.IAM), nil
	case s.Mechanism == spec.GSSAPI && s.Kerberos != nil:
		return m.tickets.mechanism(s.Kerberos), nil
	}
	switch s.Mechanism {
	case spec.PLAIN:
		return plain.Auth{User: s.Username, Pass: string(s.Password)}.AsMechanism(), nil
	case spec.SCRAMSHA256:
		return scram.Auth{User: s.Username, Pass: string(s.Password), IsToken: s.DelegationToken}.AsSha256Mechanism(), nil
	case spec.SCRAMSHA512:
		return scram.Auth{User: s.Username, Pass: string(s.Password), IsToken: s.DelegationToken}.AsSha512Mechanism(), nil
	}
	return nil, fmt.Errorf("mechanism %s is not known", s.Mechanism)
}
