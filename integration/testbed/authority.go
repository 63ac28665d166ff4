package testbed

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"time"
)

// Authority issues certificates.
type Authority struct {
	t    T
	cert *x509.Certificate
	key  crypto.Signer
}

// Certificate is one that an [Authority] has issued, with its key.
type Certificate struct {
	t    T
	der  []byte
	key  crypto.Signer
	Leaf *x509.Certificate
}

// Subject is what a certificate is issued for.
type Subject struct {
	Name        string    // its common name: Kafka knows a client as User:CN=name
	Hosts       []string  // DNS names and addresses; localhost and 127.0.0.1 where nil
	From, Until time.Time // of its validity; from an hour ago for a day where zero
	RSA         bool      // key of 2048 bits, which takes a while to make; ECDSA of P-256 otherwise
}

// NewAuthority makes an authority that signs itself.
func NewAuthority(t T, name string) *Authority {
	t.Helper()
	a := &Authority{t: t, key: newKey(t, false)}
	template := template(t, Subject{Name: name})
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	a.cert = parse(t, sign(t, template, template, a.key.Public(), a.key))
	return a
}

// For is the same authority for another test.
func (a *Authority) For(t T) *Authority { other := *a; other.t = t; return &other }

// Issue makes a certificate that serves a broker and a client alike.
func (a *Authority) Issue(s Subject) *Certificate {
	a.t.Helper()
	if s.Hosts == nil {
		s.Hosts = []string{"localhost", "127.0.0.1"}
	}
	key := newKey(a.t, s.RSA)
	template := template(a.t, s)
	template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	der := sign(a.t, template, a.cert, key.Public(), a.key)
	return &Certificate{t: a.t, der: der, key: key, Leaf: parse(a.t, der)}
}

// PEM is the authority's certificate.
func (a *Authority) PEM() []byte { return encode("CERTIFICATE", a.cert.Raw) }

// Sign makes a client's certificate of a request in PEM, in PEM.
func (a *Authority) Sign(request string) []byte {
	a.t.Helper()
	block, _ := pem.Decode([]byte(request))
	if block == nil {
		a.t.Fatalf("no PEM: %s", request)
	}
	asks, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		a.t.Fatalf("certificate request: %v", err)
	}
	template := template(a.t, Subject{Name: asks.Subject.CommonName})
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return encode("CERTIFICATE", sign(a.t, template, a.cert, asks.PublicKey, a.key))
}

// Certificate is the authority's own.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// Pool is whom to trust who trusts this authority alone.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// PEM is the certificate without its key.
func (c *Certificate) PEM() []byte { return encode("CERTIFICATE", c.der) }

// KeyPEM is the key, as PKCS #8.
func (c *Certificate) KeyPEM() []byte {
	der, err := x509.MarshalPKCS8PrivateKey(c.key)
	if err != nil {
		c.t.Fatalf("key of %s: %v", c.Leaf.Subject, err)
	}
	return encode("PRIVATE KEY", der)
}

// StorePEM is key and certificate in one, as Kafka takes a store of type PEM.
func (c *Certificate) StorePEM() []byte { return bytes.Join([][]byte{c.KeyPEM(), c.PEM()}, nil) }

// TLS is the certificate for Go.
func (c *Certificate) TLS() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{c.der}, PrivateKey: c.key, Leaf: c.Leaf}
}

func template(t T, s Subject) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatalf("serial number: %v", err)
	}
	c := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: s.Name}, NotBefore: s.From, NotAfter: s.Until}
	if c.NotBefore.IsZero() {
		c.NotBefore = time.Now().Add(-time.Hour)
	}
	if c.NotAfter.IsZero() {
		c.NotAfter = c.NotBefore.Add(24 * time.Hour)
	}
	for _, host := range s.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, host)
		}
	}
	return c
}

func newKey(t T, isRSA bool) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	if isRSA {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatalf("key: %v", err)
	}
	return key
}

func sign(t T, template, parent *x509.Certificate, public crypto.PublicKey, by crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	if err != nil {
		t.Fatalf("certificate of %s: %v", template.Subject, err)
	}
	return der
}

func parse(t T, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("certificate: %v", err)
	}
	return c
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
