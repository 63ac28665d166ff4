// Package keystore reads certificates and private keys as Kafka's Java clients have them: JKS, JCEKS, PKCS12 and PEM, told apart by
// what is in them. Names and declared types lie: since Java 9 keytool writes PKCS12 into files that are called .jks.
//
// Stores come from outside. What they ask for is bounded before it is done: their size, the number of their entries, and the rounds of
// key derivation, by which a few bytes can ask for hours. No error holds a password or a part of a key.
//
// The libraries that there are for JKS and PKCS12 allocate what a length field says and derive as often as a store asks, want exactly
// one key in it, and know no BER. All of Java's ciphers but RC2 are in Go's standard library.
package keystore

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unicode/utf16"
)

const (
	// MaxBytes is the largest store. That of all public authorities has 200 KB.
	MaxBytes   = 4 << 20
	maxEntries = 10_000
	// maxIterations is Java's own limit (5,000,000) for one derivation, and maxWork that for all of a store: a few seconds.
	maxIterations = 5_000_000
	maxWork       = 2 * maxIterations
	// maxChain bounds a chain that is put together: no peer takes one that is as long (Java takes ten).
	maxChain = 20
)

// ErrPassword is that a password is wrong. A store that was damaged can't be told from it.
var ErrPassword = errors.New("wrong password")

// A Store is what a file or text holds.
type Store struct {
	Kind    string // for messages: "JKS", "JCEKS", "PKCS12" or "PEM"
	Trusted []*x509.Certificate
	// Keys has the one first that a Java client uses.
	Keys []Key
	// Unread are certificates that Go refuses to parse, each an error that names its alias. Java may take them.
	Unread []error
}

// A Key is a private key with the certificates that go with it.
type Key struct {
	Alias string
	// Chain begins with the key's own certificate. It is empty where a store doesn't say which one that is before the key is decrypted.
	Chain []*x509.Certificate

	spare   []*x509.Certificate // more of them, in any order
	private func() (crypto.PrivateKey, error)
}

// Private decrypts the key.
func (k Key) Private() (crypto.PrivateKey, error) { return k.private() }

// Read reads a store. A storePassword of "" is none: what is not encrypted can be read without. A keyPassword of "" is the store's. No key is
// decrypted yet, since a truststore may hold keys that have passwords of their own.
func Read(data []byte, storePassword, keyPassword string) (Store, error) {
	opens, opensKey := password(storePassword), password(cmp.Or(keyPassword, storePassword))
	if len(data) > MaxBytes {
		return Store{}, fmt.Errorf("the store has %d bytes; stores of up to %d are read", len(data), MaxBytes)
	}
	kind := sniff(data)
	var s Store
	var err error
	switch kind {
	case "JKS", "JCEKS":
		s, err = readJava(data, opens, opensKey)
	case "PKCS12":
		s, err = readPKCS12(data, opens, opensKey)
	case "PEM":
		s, err = readPEM(data, opensKey)
	default:
		return Store{}, unknown(data)
	}
	if err != nil {
		return Store{}, fmt.Errorf("%s: %w", kind, err)
	}
	s.Kind = kind
	asJava(s.Keys)
	return s, nil
}

const (
	magicJKS   = 0xFEEDFEED
	magicJCEKS = 0xCECECECE
)

// sniff is what the content says of its format, "" for none of them.
func sniff(data []byte) string {
	if len(data) >= 4 {
		switch binary.BigEndian.Uint32(data) {
		case magicJKS:
			return "JKS"
		case magicJCEKS:
			return "JCEKS"
		}
	}
	switch {
	case len(data) >= 2 && data[0] == 0x30 && data[1] >= 0x80: // a sequence that is longer than 127 bytes; a text has no such byte
		return "PKCS12"
	case bytes.Contains(data, []byte("-----BEGIN ")):
		return "PEM"
	}
	return ""
}

// unknown says what may have happened to a store.
func unknown(data []byte) error {
	text := bytes.TrimSpace(data)
	if len(text) == 0 {
		return errors.New("the store is empty")
	}
	decoded, err := base64.StdEncoding.DecodeString(string(bytes.ReplaceAll(text, []byte("\n"), nil)))
	if err != nil {
		decoded = nil
	}
	if inner := sniff(decoded); inner != "" {
		return fmt.Errorf("this is the base64 of a %s store: decode it once more (a Secret's data is base64, what it holds is not)", inner)
	}
	return errors.New("this is no JKS, JCEKS, PKCS12 or PEM: it begins like none of them")
}

// Roots are whom the store trusts. As in Java the certificate of a key is trusted, too.
func (s Store) Roots() ([]*x509.Certificate, error) {
	roots := slices.Clone(s.Trusted)
	for _, k := range s.Keys {
		if len(k.Chain) > 0 && !slices.ContainsFunc(roots, k.Chain[0].Equal) {
			roots = append(roots, k.Chain[0])
		}
	}
	switch {
	case len(roots) > 0:
		return roots, nil
	case len(s.Unread) > 0:
		return nil, fmt.Errorf("no certificate in this %s can be read: %w", s.Kind, errors.Join(s.Unread...))
	case len(s.Keys) > 0:
		return nil, fmt.Errorf("this %s holds a private key, and no certificate to trust: name the store that has the authority's certificate", s.Kind)
	}
	return nil, fmt.Errorf("this %s holds no certificate", s.Kind)
}

// Certificate decrypts the first key and joins it to its chain. Which one that is says Keys[0].Alias.
func (s Store) Certificate() (*tls.Certificate, error) {
	if len(s.Keys) == 0 {
		return nil, fmt.Errorf("this %s holds no private key: name the store that has the client's own", s.Kind)
	}
	k := s.Keys[0]
	if s.Kind == "PEM" && len(s.Keys) > 1 {
		return nil, fmt.Errorf("this PEM holds %d private keys, and nothing says which one is meant: leave one in it", len(s.Keys))
	}
	private, err := k.private()
	switch {
	case errors.Is(err, ErrPassword):
		return nil, fmt.Errorf("key %q: %w (ssl.key.password, where the key has one of its own)", k.Alias, err)
	case err != nil:
		return nil, fmt.Errorf("key %q: %w", k.Alias, err)
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("key %q is of a kind (%T) that TLS does not sign with: an RSA, EC or Ed25519 key does", k.Alias, private)
	}
	chain := k.Chain
	if len(chain) == 0 {
		chain = k.chainOf(signer)
	}
	switch {
	case len(chain) == 0 && len(k.spare) == 0:
		return nil, fmt.Errorf("key %q comes without its certificate", k.Alias)
	case len(chain) == 0:
		return nil, fmt.Errorf("none of the %d certificates belongs to key %q; the first is of %s", len(k.spare), k.Alias, k.spare[0].Subject)
	case !belongs(signer, chain[0]):
		return nil, fmt.Errorf("the certificate of %s does not belong to key %q: it is of another key", chain[0].Subject, k.Alias)
	}
	certificate := &tls.Certificate{PrivateKey: signer, Leaf: chain[0]}
	for _, c := range chain {
		certificate.Certificate = append(certificate.Certificate, c.Raw)
	}
	return certificate, nil
}

// chainOf is the chain of the certificate that has the key.
func (k Key) chainOf(signer crypto.Signer) []*x509.Certificate {
	for _, c := range k.spare {
		if belongs(signer, c) {
			return chainFrom(c, k.spare)
		}
	}
	return nil
}

func belongs(signer crypto.Signer, c *x509.Certificate) bool {
	public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(c.PublicKey)
}

// chainFrom follows the issuers of a certificate through a pile of others. It ends at one that issued itself, or that came before.
// Without a bound a store of certificates that issue each other in turn costs the cube of their number.
func chainFrom(leaf *x509.Certificate, pile []*x509.Certificate) []*x509.Certificate {
	chain := []*x509.Certificate{leaf}
	for at := leaf; !bytes.Equal(at.RawIssuer, at.RawSubject) && len(chain) < maxChain; {
		next := slices.IndexFunc(pile, func(c *x509.Certificate) bool {
			return bytes.Equal(c.RawSubject, at.RawIssuer) && !slices.ContainsFunc(chain, c.Equal)
		})
		if next < 0 {
			break
		}
		at = pile[next]
		chain = append(chain, at)
	}
	return chain
}

// asJava puts the key first that Java takes of several of one kind: that whose alias comes first in the HashMap of its key manager.
func asJava(keys []Key) {
	buckets := 16
	for len(keys) > buckets*3/4 {
		buckets *= 2
	}
	bucket := func(k Key) int {
		var hash uint32
		for _, c := range utf16.Encode([]rune(k.Alias)) {
			hash = 31*hash + uint32(c)
		}
		return int(hash^hash>>16) & (buckets - 1)
	}
	slices.SortStableFunc(keys, func(a, b Key) int { return cmp.Compare(bucket(a), bucket(b)) })
}

// parse parses a certificate, or notes that it can't be.
func (s *Store) parse(der []byte, alias string) *x509.Certificate {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		s.Unread = append(s.Unread, fmt.Errorf("certificate %q: %w", alias, err))
		return nil
	}
	return c
}
