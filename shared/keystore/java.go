package keystore

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// A JKS or JCEKS, all numbers big endian, texts with their length in two bytes:
//
//	magic, version (1 or 2), number of entries, 4 bytes each
//	entries: tag (4), alias, milliseconds (8), then by tag
//	   1  private key: length (4), EncryptedPrivateKeyInfo, number of certificates (4), certificates
//	   2  trusted certificate
//	   3  secret key, of JCEKS alone: a serialized Java object, without its length
//	   certificate: type (in version 2), length (4), DER
//	SHA-1 over the password (UTF-16), "Mighty Aphrodite" and all of the above
const (
	tagKey         = 1
	tagCertificate = 2
	tagSecret      = 3
)

var errCut = errors.New("the store ends too early, or is damaged")

func readJava(data []byte, password, keyPassword password) (s Store, err error) {
	if len(data) < 12+sha1.Size {
		return s, errCut
	}
	body, digest := data[:len(data)-sha1.Size], data[len(data)-sha1.Size:]
	if password != "" {
		sum := sha1.New()
		sum.Write(password.utf16())
		sum.Write([]byte("Mighty Aphrodite"))
		sum.Write(body)
		if !bytes.Equal(sum.Sum(nil), digest) {
			return s, fmt.Errorf("%w, or the store is damaged", ErrPassword)
		}
	}
	r := &reader{left: body[4:]}
	version, entries := r.number(), r.number()
	switch {
	case version != 1 && version != 2:
		return s, fmt.Errorf("version %d is not known", version)
	case entries > maxEntries:
		return s, fmt.Errorf("the store says that it has %d entries; up to %d are read", entries, maxEntries)
	}
	certificates := 0
	for range entries {
		tag, alias := r.number(), r.text()
		r.bytes(8)
		switch {
		case r.cut:
		case tag == tagCertificate:
			if c := s.parse(r.certificate(version), alias); c != nil && !r.cut {
				s.Trusted = append(s.Trusted, c)
			}
		case tag == tagKey:
			k := Key{Alias: alias}
			sealed := r.bytes(r.number())
			chain := r.number()
			if certificates += int(min(chain, maxEntries+1)); certificates > maxEntries {
				return s, fmt.Errorf("key %q says that it has %d certificates; up to %d are read", alias, chain, maxEntries)
			}
			for range chain {
				if c := s.parse(r.certificate(version), alias); c != nil {
					k.Chain = append(k.Chain, c)
				}
			}
			k.private = func() (crypto.PrivateKey, error) { return sealedKey(sealed, keyPassword) }
			s.Keys = append(s.Keys, k)
		case tag == tagSecret:
			return s, fmt.Errorf("entry %q is a secret key, behind which nothing can be read: %s", alias, convert)
		default:
			return s, fmt.Errorf("entry %q is of kind %d, which is not known", alias, tag)
		}
		if r.cut {
			return s, errCut
		}
	}
	if len(r.left) > 0 {
		return s, fmt.Errorf("%d bytes follow the last entry: the store is damaged", len(r.left))
	}
	return s, nil
}

// convert is what helps where a store has something that only Java reads.
const convert = "keytool -importkeystore -srckeystore OLD -destkeystore NEW -deststoretype pkcs12 -srcalias ALIAS makes one that can be read"

// sealedKey decrypts a key, by the password that is for it.
func sealedKey(sealed []byte, password password) (crypto.PrivateKey, error) {
	plain, err := unseal(sealed, password, new(work))
	if err != nil {
		return nil, err
	}
	return parsePKCS8(plain)
}

// A reader takes from the front. Once there is too little, cut is true and all that follows is empty.
type reader struct {
	left []byte
	cut  bool
}

func (r *reader) bytes(n uint32) []byte {
	if r.cut || uint64(n) > uint64(len(r.left)) {
		r.cut, r.left = true, nil
		return nil
	}
	taken := r.left[:n]
	r.left = r.left[n:]
	return taken
}

func (r *reader) number() uint32 {
	if b := r.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) text() string {
	if b := r.bytes(2); b != nil {
		return strings.ToValidUTF8(string(r.bytes(uint32(binary.BigEndian.Uint16(b)))), "?")
	}
	return ""
}

func (r *reader) certificate(version uint32) []byte {
	if version == 2 {
		if kind := cmp.Or(r.text(), "X.509"); kind != "X.509" && kind != "X509" {
			r.bytes(r.number())
			return nil
		}
	}
	return r.bytes(r.number())
}
