package keystore

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
)

var (
	oidData          = oid(1, 2, 840, 113549, 1, 7, 1)
	oidEncryptedData = oid(1, 2, 840, 113549, 1, 7, 6)
	oidKeyBag        = oid(1, 2, 840, 113549, 1, 12, 10, 1, 1)
	oidSealedKeyBag  = oid(1, 2, 840, 113549, 1, 12, 10, 1, 2)
	oidCertBag       = oid(1, 2, 840, 113549, 1, 12, 10, 1, 3)
	oidX509          = oid(1, 2, 840, 113549, 1, 9, 22, 1)
	oidFriendlyName  = oid(1, 2, 840, 113549, 1, 9, 20)
	oidLocalKeyID    = oid(1, 2, 840, 113549, 1, 9, 21)
	// oidTrusted is how Java tells certificates that are trusted from those that are in some key's chain.
	oidTrusted = oid(2, 16, 840, 1, 113894, 746875, 1, 1)
)

// RFC 7292: a PFX holds, in an octet string, a sequence of safes. Each is encrypted or not, and holds bags of keys and certificates.
type pfx struct {
	Version int
	Safes   content
	Mac     mac `asn1:"optional"`
}

type content struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue `asn1:"tag:0,explicit,optional"`
}

type mac struct {
	Digest struct {
		Algorithm pkix.AlgorithmIdentifier
		Digest    []byte
	}
	Salt       []byte
	Iterations int `asn1:"optional,default:1"`
}

type encrypted struct {
	Version int
	Content struct {
		Type      asn1.ObjectIdentifier
		Algorithm pkix.AlgorithmIdentifier
		Value     asn1.RawValue `asn1:"optional"` // [0] implicit octet string, in BER maybe in parts
	}
}

type bag struct {
	Type       asn1.ObjectIdentifier
	Value      asn1.RawValue `asn1:"tag:0,explicit"`
	Attributes []attribute   `asn1:"set,optional"`
}

type attribute struct {
	Type   asn1.ObjectIdentifier
	Values asn1.RawValue `asn1:"set"`
}

func readPKCS12(data []byte, password, keyPassword password) (s Store, err error) {
	der, err := derOf(data)
	if err != nil {
		return s, err
	}
	if _, err := x509.ParseCertificate(data); err == nil {
		return s, errors.New("this is no store but a certificate in DER: openssl x509 -inform der -in OLD -out NEW.pem makes a PEM of it")
	}
	var p pfx
	if err := unmarshal(der, &p); err != nil || p.Version != 3 || !p.Safes.Type.Equal(oidData) {
		return s, errors.New("this begins like a PKCS12 store, and is none, or a damaged one")
	}
	var safes []byte
	if err := unmarshal(p.Safes.Value.Bytes, &safes); err != nil {
		return s, errCut
	}
	w := new(work)
	if password, err = p.Mac.check(safes, password, w); err != nil {
		return s, err
	}
	if keyPassword == "" {
		keyPassword = password
	}
	bags, err := bagsOf(safes, password, w)
	if err != nil {
		return s, err
	}
	return storeOf(bags, password, keyPassword)
}

// check returns the password in the form by which the store is closed. As in Java, what is not encrypted can be read without one.
func (m mac) check(message []byte, p password, w *work) (password, error) {
	if len(m.Digest.Algorithm.Algorithm) == 0 {
		return p, nil
	}
	tries := []password{p}
	if p == "" {
		tries = append(tries, absent)
	}
	for _, try := range tries {
		sum, err := m.sum(message, try, w)
		if err != nil {
			return p, err
		}
		if hmac.Equal(sum, m.Digest.Digest) {
			return try, nil
		}
	}
	if p == "" {
		return p, nil
	}
	return p, fmt.Errorf("%w, or the store is damaged", ErrPassword)
}

func (m mac) sum(message []byte, p password, w *work) ([]byte, error) {
	algorithm := m.Digest.Algorithm
	if algorithm.Algorithm.Equal(oidPBMAC1) { // RFC 9579
		var parameters struct{ Derivation, Scheme pkix.AlgorithmIdentifier }
		if err := unmarshal(algorithm.Parameters.FullBytes, &parameters); err != nil {
			return nil, errCut
		}
		function, known := hashes[parameters.Scheme.Algorithm.String()]
		if !known {
			return nil, fmt.Errorf("the checksum %s is not known: %s", parameters.Scheme.Algorithm, modern)
		}
		key, err := derivePBKDF2(parameters.Derivation, p, 0, w)
		if err != nil {
			return nil, err
		}
		return macOf(function, key, message), nil
	}
	function, known := hashes[algorithm.Algorithm.String()]
	if !known {
		return nil, fmt.Errorf("the checksum %s is not known: %s", algorithm.Algorithm, modern)
	}
	if err := w.take(m.Iterations, 1); err != nil {
		return nil, err
	}
	key := derive(function, p.bmp(), salted{m.Salt, m.Iterations}, forMAC, function().Size())
	return macOf(function, key, message), nil
}

// bagsOf opens the safes.
func bagsOf(data []byte, password password, w *work) (bags []bag, err error) {
	var safes []content
	if err := unmarshalBER(data, &safes); err != nil {
		return nil, errCut
	}
	for _, safe := range safes {
		var open []byte
		switch {
		case safe.Type.Equal(oidData):
			if err := unmarshal(safe.Value.Bytes, &open); err != nil {
				return nil, errCut
			}
		case safe.Type.Equal(oidEncryptedData):
			if open, err = openSafe(safe.Value.Bytes, password, w); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("a part of it is encrypted by a public key (%s), where a password is needed: %s", safe.Type, modern)
		}
		var more []bag
		if err := unmarshalBER(open, &more); err != nil {
			return nil, errCut
		}
		if bags = append(bags, more...); len(bags) > maxEntries {
			return nil, fmt.Errorf("the store has more than %d entries", maxEntries)
		}
	}
	return bags, nil
}

func openSafe(data []byte, password password, w *work) ([]byte, error) {
	var safe encrypted
	if err := unmarshal(data, &safe); err != nil {
		return nil, errCut
	}
	text := safe.Content.Value.Bytes
	if safe.Content.Value.IsCompound {
		var parts []byte
		for len(text) > 0 {
			var part []byte
			rest, err := asn1.Unmarshal(text, &part)
			if err != nil {
				return nil, errCut
			}
			parts, text = append(parts, part...), rest
		}
		text = parts
	}
	open, err := decrypt(safe.Content.Algorithm, text, password, w)
	if errors.Is(err, ErrPassword) && password.text() == "" {
		return nil, fmt.Errorf("the certificates in it are encrypted, and there is no password: %w", err)
	}
	return open, err
}

// storeOf sorts what is in the bags.
func storeOf(bags []bag, password, keyPassword password) (s Store, err error) {
	var pile, trusted []*x509.Certificate
	ids := map[*x509.Certificate][]byte{}
	var keyIDs [][]byte
	for i, b := range bags {
		alias := b.alias(i + 1)
		value := b.Value.Bytes
		switch {
		case b.Type.Equal(oidCertBag):
			var in struct {
				Type asn1.ObjectIdentifier
				Data []byte `asn1:"tag:0,explicit"`
			}
			if err := unmarshal(value, &in); err != nil {
				return s, fmt.Errorf("certificate %q: %w", alias, errCut)
			}
			c := s.parse(in.Data, alias)
			if c == nil {
				continue
			}
			pile = append(pile, c)
			ids[c] = b.attribute(oidLocalKeyID)
			if b.attribute(oidTrusted) != nil {
				trusted = append(trusted, c)
			}
		case b.Type.Equal(oidKeyBag):
			s.Keys = append(s.Keys, Key{Alias: alias, private: func() (crypto.PrivateKey, error) { return parsePKCS8(value) }})
			keyIDs = append(keyIDs, b.attribute(oidLocalKeyID))
		case b.Type.Equal(oidSealedKeyBag):
			s.Keys = append(s.Keys, Key{Alias: alias, private: func() (crypto.PrivateKey, error) {
				key, err := sealedKey(value, keyPassword)
				if err != nil && keyPassword != password {
					return sealedKey(value, password)
				}
				return key, err
			}})
			keyIDs = append(keyIDs, b.attribute(oidLocalKeyID))
		}
	}
	for i := range s.Keys {
		s.Keys[i].spare = pile
		for _, c := range pile {
			if id := ids[c]; id != nil && bytes.Equal(id, keyIDs[i]) {
				s.Keys[i].Chain = chainFrom(c, pile)
				break
			}
		}
	}
	s.Trusted = trusted
	if len(s.Keys) == 0 && len(trusted) == 0 {
		s.Trusted = pile // of openssl pkcs12 -nokeys, which marks none. Java sees nothing in such a store
	}
	return s, nil
}

// attribute is the first value of an attribute, nil without one.
func (b bag) attribute(is asn1.ObjectIdentifier) []byte {
	for _, a := range b.Attributes {
		var value asn1.RawValue
		if !a.Type.Equal(is) {
			continue
		}
		if _, err := asn1.Unmarshal(a.Values.Bytes, &value); err == nil {
			return append([]byte{}, value.Bytes...)
		}
	}
	return nil
}

// alias is the bag's friendly name, in small letters as Java has it, else a number.
func (b bag) alias(number int) string {
	name := b.attribute(oidFriendlyName)
	if len(name) < 2 {
		return strconv.Itoa(number)
	}
	var characters []uint16
	for ; len(name) >= 2; name = name[2:] {
		characters = append(characters, binary.BigEndian.Uint16(name))
	}
	return strings.ToLower(string(utf16.Decode(characters)))
}

func unmarshalBER(data []byte, to any) error {
	der, err := derOf(data)
	if err != nil {
		return err
	}
	return unmarshal(der, to)
}

// unmarshal wants DER with nothing behind it.
func unmarshal(der []byte, to any) error {
	rest, err := asn1.Unmarshal(der, to)
	if err == nil && len(rest) > 0 {
		err = errCut
	}
	return err
}
