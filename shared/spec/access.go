package spec

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"strings"
	"time"
)

// An Access is how a cluster is spoken to, for people: it holds no secret.
type Access struct {
	Protocol  string    `json:"protocol"` // as security.protocol has it
	Mechanism Mechanism `json:"mechanism,omitempty"`
	// As is whom the cluster sees: a user, a client's id, a principal, or the subject of a certificate; "" is nobody by name.
	As string `json:"as,omitempty"`
	// Trusts are the issuers of the brokers' certificates, nil for whom the system trusts.
	Trusts []string `json:"trusts,omitempty"`
	// Certificate is kferry's own.
	Certificate string `json:"certificate,omitempty"`
	AnyName     bool   `json:"anyHostName,omitempty"`
}

// Access is how things stand now.
func (l *Login) Access() Access {
	s, _ := l.Security() // which has no error but for what is not made here
	a := Access{Protocol: "PLAINTEXT"}
	if s.TLS != nil {
		a.Protocol, a.AnyName = "SSL", s.TLS.AnyName
		for _, root := range s.TLS.Roots {
			a.Trusts = append(a.Trusts, subject(root))
		}
		if s.TLS.Certificate != nil && len(s.TLS.Certificate.Certificate) > 0 {
			if own, err := x509.ParseCertificate(s.TLS.Certificate.Certificate[0]); err == nil {
				a.Certificate, a.As = subject(own), own.Subject.String()
			}
		}
	}
	if s.SASL != nil {
		a.Protocol, a.Mechanism, a.As = "SASL_"+a.Protocol, s.SASL.Mechanism, s.SASL.as()
	}
	return a
}

// as is whom a broker is told to see; what only the broker finds out is "".
func (s *SASL) as() string {
	switch {
	case s.OAuth != nil:
		claimed, _ := s.OAuth.Unsecured["sub"].(string)
		return cmp.Or(s.OAuth.Username, s.OAuth.ClientID, claimed)
	case s.IAM != nil:
		return cmp.Or(s.IAM.RoleARN, s.IAM.Profile)
	case s.Kerberos != nil:
		return s.Kerberos.Principal
	}
	return s.Username
}

func subject(c *x509.Certificate) string {
	return fmt.Sprintf("%s (until %s)", c.Subject, c.NotAfter.UTC().Format(time.DateOnly))
}

func (a Access) String() string {
	text := a.Protocol
	if a.Mechanism != "" {
		text += ", " + string(a.Mechanism)
	}
	if a.As != "" && a.Mechanism != "" {
		text += fmt.Sprintf(" as %q", a.As)
	}
	if strings.HasSuffix(a.Protocol, "PLAINTEXT") {
		return text
	}
	if a.Certificate != "" {
		text += ", with certificate " + a.Certificate
	}
	trusts := "whom the system trusts"
	if a.Trusts != nil {
		trusts = strings.Join(a.Trusts, " and ")
	}
	text += "; trusts " + trusts
	if a.AnyName {
		return text + "; names of hosts are not checked"
	}
	return text
}
