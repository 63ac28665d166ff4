package keystore

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Join is one PEM text of a key and its certificates, which Kafka has in two settings.
func Join(key, chain string) []byte { return []byte(key + "\n" + chain) }

// part is one part of a PEM text. As in Kafka line breaks don't matter: a text in one line of a properties file is good, too.
var part = regexp.MustCompile(`(?s)-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END ([A-Z0-9 ]+)-----`)

func readPEM(data []byte, password password) (s Store, err error) {
	parts := part.FindAllSubmatch(data, maxEntries+1)
	if begun := bytes.Count(data, []byte("-----BEGIN ")); begun != len(parts) {
		return s, fmt.Errorf("%d of its parts begin, and %d end: it was cut, or a line lost its dashes", begun, len(parts))
	}
	if len(parts) > maxEntries {
		return s, fmt.Errorf("it has more than %d parts", maxEntries)
	}
	for i, p := range parts {
		name, number := string(p[1]), strconv.Itoa(i+1)
		block, err := blockOf(p)
		if err != nil {
			return s, fmt.Errorf("part %s (%s): %w", number, name, err)
		}
		switch name {
		case "CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE":
			var der asn1.RawValue
			if _, err := asn1.Unmarshal(block.Bytes, &der); err != nil { // behind it a trusted one says what for
				return s, fmt.Errorf("part %s (%s) is damaged: %w", number, name, err)
			}
			if c := s.parse(der.FullBytes, number); c != nil {
				s.Trusted = append(s.Trusted, c)
			}
		case "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY":
			s.Keys = append(s.Keys, Key{Alias: number, private: func() (crypto.PrivateKey, error) { return keyOf(block, password) }})
		case "DSA PRIVATE KEY", "OPENSSH PRIVATE KEY":
			return s, fmt.Errorf("part %s is a key of a kind (%s) that TLS does not take: an RSA, EC or Ed25519 key in PKCS#8 is", number, name)
		}
	}
	for i := range s.Keys {
		s.Keys[i].spare = s.Trusted
	}
	return s, nil
}

// blockOf decodes a part.
func blockOf(p [][]byte) (*pem.Block, error) {
	if !bytes.Equal(p[1], p[3]) {
		return nil, fmt.Errorf("it ends as %s", p[3])
	}
	if bytes.Contains(p[2], []byte("Proc-Type:")) {
		if block, _ := pem.Decode(p[0]); block != nil {
			return block, nil
		}
		return nil, errors.New("its headers or its base64 are damaged")
	}
	text := strings.Join(strings.Fields(string(p[2])), "")
	body, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("its base64 is damaged")
	}
	return &pem.Block{Type: string(p[1]), Bytes: body}, nil
}

func keyOf(block *pem.Block, password password) (crypto.PrivateKey, error) {
	der := block.Bytes
	switch {
	case block.Type == "ENCRYPTED PRIVATE KEY" && password == "", x509.IsEncryptedPEMBlock(block) && password == "":
		return nil, fmt.Errorf("%w: the key is encrypted, and there is no password for it", ErrPassword)
	case block.Type == "ENCRYPTED PRIVATE KEY":
		return sealedKey(der, password)
	case x509.IsEncryptedPEMBlock(block): // as OpenSSL wrote keys before PKCS#8: weak, and still around
		plain, err := x509.DecryptPEMBlock(block, []byte(password))
		if err != nil {
			return nil, ErrPassword
		}
		der = plain
	}
	var key crypto.PrivateKey
	var err error
	switch block.Type {
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(der)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(der)
	default:
		return parsePKCS8(der)
	}
	if err != nil {
		return nil, fmt.Errorf("this is no %s, or the password is wrong", block.Type)
	}
	return key, nil
}
