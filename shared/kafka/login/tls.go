package login

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"

	"github.com/kferry/kferry/shared/spec"
)

// ErrTLS is that a connection was made, and could not be secured.
var ErrTLS = errors.New("no TLS")

// secured has connections speak TLS.
func secured(l *spec.Login, dial Dial) Dial {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		s, err := l.Security()
		if err != nil {
			return nil, err
		}
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		secure := tls.Client(conn, Config(s.TLS, host))
		if err := secure.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, fmt.Errorf("%w with %s: %w", ErrTLS, address, err)
		}
		return secure, nil
	}
}

// Config is how to speak TLS to a host.
func Config(t *spec.TLS, host string) *tls.Config {
	config := &tls.Config{ServerName: host, MinVersion: t.MinVersion, MaxVersion: t.MaxVersion, CipherSuites: t.CipherSuites}
	if t.Roots != nil {
		config.RootCAs = x509.NewCertPool()
		for _, root := range t.Roots {
			config.RootCAs.AddCert(root)
		}
	}
	if t.Certificate != nil {
		config.Certificates = []tls.Certificate{*t.Certificate}
	}
	if t.AnyName {
		config.InsecureSkipVerify = true // the chain is checked below
		config.VerifyConnection = func(state tls.ConnectionState) error {
			between := x509.NewCertPool()
			for _, c := range state.PeerCertificates[1:] {
				between.AddCert(c)
			}
			_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: config.RootCAs, Intermediates: between})
			return err
		}
	}
	return config
}
