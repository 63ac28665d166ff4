// Package login is how a connection to a broker is secured, and whom a broker sees: TLS and SASL for franz-go, out of a spec.Login.
//
// Invariants:
//   - What a login is made of is looked at anew for each connection, so that a replaced certificate, password or token is taken up
//     without a restart. Connections that stand are left alone until they end or the broker wants to be told again (KIP-368).
//   - Nothing is sent in plain text to a cluster that is meant to be secured.
//   - No error holds a secret.
//   - A login that was refused is tried again once a pause, whoever asks and however often: accounts are locked for less.
package login

import (
	"context"
	"errors"
	"net"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kferry/kferry/shared/spec"
)

// A Dial opens connections.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// A Client is one client's way in: all its connections share a token, and the pause after a refusal.
type Client struct {
	dial Dial
	sasl *mechanism // nil is none
}

// New has a client connect by dial, as a login wants it. It touches no network.
func New(l *spec.Login, dial Dial) (*Client, error) {
	s, err := l.Security()
	if err != nil {
		return nil, err
	}
	c := &Client{dial: secured(l, dial)}
	if s.SASL != nil {
		c.sasl = newMechanism(l, dial, c.dial)
		c.dial = c.sasl.connect
	}
	return c, nil
}

// Dial opens a connection for franz-go, which logs in on it.
func (c *Client) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return c.dial(ctx, network, address)
}

// Options has franz-go log in on what Dial opens.
func (c *Client) Options() []kgo.Opt {
	if c.sasl == nil {
		return nil
	}
	return []kgo.Opt{kgo.SASL(c.sasl), kgo.WithHooks(c.sasl)}
}

// Run gets tokens, where some are needed, before those that are used expire. It ends with its context, and connections wait for it.
func (c *Client) Run(ctx context.Context) {
	if c.sasl != nil {
		c.sasl.tokens.run(ctx)
	}
}

// Explain is an error of a request with what it means for TLS or the login, where it means anything: an *Error for the latter. What
// franz-go says around it is left out.
func (c *Client) Explain(err error) error {
	if f, is := errors.AsType[*failure](err); is {
		return f
	}
	if c.sasl == nil {
		return err
	}
	return c.sasl.explain(err)
}
