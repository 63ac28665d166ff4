// Package login is how a connection to a broker is secured, and whom a broker sees: TLS and SASL for franz-go, out of a spec.Login.
//
// Invariants:
//   - What a login is made of is looked at anew for each connection, so that a replaced certificate, password or token is taken up
//     without a restart. Connections that stand are left alone until they end or the broker wants to be told again (KIP-368).
//   - Nothing is sent in plain text to a cluster that is meant to be secured.
//   - No error holds a secret.
package login

import (
	"context"
	"net"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kferry/kferry/shared/spec"
)

// A Dial opens connections.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Options has a client connect by dial, as a login wants it.
func Options(l *spec.Login, dial Dial) ([]kgo.Opt, error) {
	s, err := l.Security()
	if err != nil {
		return nil, err
	}
	opts := []kgo.Opt{kgo.Dialer(secured(l, dial))}
	if s.SASL != nil {
		m, err := newMechanism(l, s.SASL)
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.SASL(m))
	}
	return opts, nil
}
