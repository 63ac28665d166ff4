package spec_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"

	"github.com/kferry/kferry/shared/spec"
)

func TestPrincipal(t *testing.T) {
	certificate := &tls.Certificate{Leaf: &x509.Certificate{Subject: pkix.Name{CommonName: "kferry", OrganizationalUnit: []string{"data"}, Organization: []string{"ACME"}}}}
	for want, s := range map[string]spec.Security{
		"User:ANONYMOUS":                {TLS: &spec.TLS{}},
		"User:kferry":                   {SASL: &spec.SASL{Mechanism: spec.SCRAMSHA512, Username: "kferry"}},
		"":                              {SASL: &spec.SASL{Mechanism: spec.OAUTHBEARER}},
		"User:CN=kferry,OU=data,O=ACME": {TLS: &spec.TLS{Certificate: certificate}},
		"User:behind TLS":               {TLS: &spec.TLS{Certificate: certificate}, SASL: &spec.SASL{Mechanism: spec.PLAIN, Username: "behind TLS"}},
	} {
		if got := spec.FixedLogin(s).Principal(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := (*spec.Login)(nil).Principal(); got != "User:ANONYMOUS" {
		t.Errorf("%q without a login", got)
	}
}
