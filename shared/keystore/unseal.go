package keystore

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"unicode/utf16"
)

// A sealed is PKCS#8's EncryptedPrivateKeyInfo.
type sealed struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

// unseal decrypts an EncryptedPrivateKeyInfo.
func unseal(der []byte, password password, w *work) ([]byte, error) {
	var s sealed
	if err := unmarshal(der, &s); err != nil {
		return nil, fmt.Errorf("the encrypted key is damaged: %w", err)
	}
	return decrypt(s.Algorithm, s.Data, password, w)
}

func parsePKCS8(der []byte) (crypto.PrivateKey, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		// What the parser says may tell of the key, and a wrong password now and then gets as far as this.
		return nil, errors.New("what was decrypted is no key that Go knows (RSA, EC on P-224 to P-521, Ed25519), or the password is wrong")
	}
	return key, nil
}

// work counts the rounds that a store has asked for.
type work struct{ done int }

// take allows a derivation, before it is made.
func (w *work) take(iterations, rounds int) error {
	if iterations < 1 || iterations > maxIterations || rounds*iterations > maxWork-w.done {
		return fmt.Errorf("the store asks for %d rounds to derive a key; up to %d are made, %d for a whole store", iterations, maxIterations, maxWork)
	}
	w.done += rounds * iterations
	return nil
}

// Names of algorithms, by their object identifiers.
var (
	oidJavaKey   = oid(1, 3, 6, 1, 4, 1, 42, 2, 17, 1, 1)
	oidJCEKSKey  = oid(1, 3, 6, 1, 4, 1, 42, 2, 19, 1)
	oidSHA3DES   = oid(1, 2, 840, 113549, 1, 12, 1, 3)
	oidSHA2DES   = oid(1, 2, 840, 113549, 1, 12, 1, 4)
	oidSHARC2128 = oid(1, 2, 840, 113549, 1, 12, 1, 5)
	oidSHARC240  = oid(1, 2, 840, 113549, 1, 12, 1, 6)
	oidPBES2     = oid(1, 2, 840, 113549, 1, 5, 13)
	oidPBMAC1    = oid(1, 2, 840, 113549, 1, 5, 14)
	oidPBKDF2    = oid(1, 2, 840, 113549, 1, 5, 12)
	oid3DES      = oid(1, 2, 840, 113549, 3, 7)
	oidAES128    = oid(2, 16, 840, 1, 101, 3, 4, 1, 2)
	oidAES192    = oid(2, 16, 840, 1, 101, 3, 4, 1, 22)
	oidAES256    = oid(2, 16, 840, 1, 101, 3, 4, 1, 42)
)

func oid(arcs ...int) asn1.ObjectIdentifier { return arcs }

// hashes by their own identifiers and by those of their HMACs.
var hashes = map[string]func() hash.Hash{
	"1.3.14.3.2.26":          sha1.New,
	"2.16.840.1.101.3.4.2.4": sha256.New224,
	"2.16.840.1.101.3.4.2.1": sha256.New,
	"2.16.840.1.101.3.4.2.2": sha512.New384,
	"2.16.840.1.101.3.4.2.3": sha512.New,
	"1.2.840.113549.2.7":     sha1.New,
	"1.2.840.113549.2.8":     sha256.New224,
	"1.2.840.113549.2.9":     sha256.New,
	"1.2.840.113549.2.10":    sha512.New384,
	"1.2.840.113549.2.11":    sha512.New,
}

// decrypt decrypts by a password.
func decrypt(a pkix.AlgorithmIdentifier, data []byte, password password, w *work) ([]byte, error) {
	switch {
	case a.Algorithm.Equal(oidJavaKey):
		return decryptJKS(data, password.utf16())
	case a.Algorithm.Equal(oidJCEKSKey):
		return decryptJCEKS(a, data, password, w)
	case a.Algorithm.Equal(oidPBES2):
		return decryptPBES2(a, data, password, w)
	}
	return decryptPBES1(a, data, password, w)
}

// decryptJKS undoes Sun's own: 20 bytes of salt, the key xor a stream of SHA-1, and a SHA-1 over password and key.
func decryptJKS(data, password []byte) ([]byte, error) {
	if len(data) < 2*sha1.Size {
		return nil, errCut
	}
	stream, text, check := data[:sha1.Size], data[sha1.Size:len(data)-sha1.Size], data[len(data)-sha1.Size:]
	plain := make([]byte, 0, len(text))
	for len(text) > 0 {
		sum := sha1.Sum(append(bytes.Clone(password), stream...))
		stream = sum[:]
		for i := range min(len(text), len(stream)) {
			plain = append(plain, text[i]^stream[i])
		}
		text = text[min(len(text), len(stream)):]
	}
	if sum := sha1.Sum(append(bytes.Clone(password), plain...)); !bytes.Equal(sum[:], check) {
		return nil, ErrPassword
	}
	return plain, nil
}

// salted is what a derivation is made with.
type salted struct {
	Salt       []byte
	Iterations int
}

// decryptJCEKS undoes PBEWithMD5AndTripleDES: each half of the salt is hashed with the password, again and again.
func decryptJCEKS(a pkix.AlgorithmIdentifier, data []byte, password password, w *work) ([]byte, error) {
	var p salted
	if err := unmarshal(a.Parameters.FullBytes, &p); err != nil || len(p.Salt) != 8 {
		return nil, errCut
	}
	if err := w.take(p.Iterations, 2); err != nil {
		return nil, err
	}
	var derived []byte
	for _, half := range [][]byte{p.Salt[:4], p.Salt[4:]} {
		for range p.Iterations {
			sum := md5.Sum(append(bytes.Clone(half), password.text()...))
			half = sum[:]
		}
		derived = append(derived, half...)
	}
	block, err := des.NewTripleDESCipher(derived[:24])
	if err != nil {
		return nil, err
	}
	return unchain(block, derived[24:], data)
}

// decryptPBES1 undoes the ciphers of PKCS#12's own (RFC 7292, appendix C).
func decryptPBES1(a pkix.AlgorithmIdentifier, data []byte, password password, w *work) ([]byte, error) {
	size := 24
	switch {
	case a.Algorithm.Equal(oidSHA3DES):
	case a.Algorithm.Equal(oidSHA2DES), a.Algorithm.Equal(oidSHARC2128):
		size = 16
	case a.Algorithm.Equal(oidSHARC240):
		size = 5
	default:
		return nil, fmt.Errorf("encryption by %s is not known: %s", a.Algorithm, modern)
	}
	var p salted
	if err := unmarshal(a.Parameters.FullBytes, &p); err != nil {
		return nil, errCut
	}
	if err := w.take(p.Iterations, 3); err != nil {
		return nil, err
	}
	key := derive(sha1.New, password.bmp(), p, forKey, size)
	iv := derive(sha1.New, password.bmp(), p, forIV, 8)
	switch size {
	case 24:
		return unchainWith(des.NewTripleDESCipher, key, iv, data)
	case 16:
		if a.Algorithm.Equal(oidSHA2DES) {
			return unchainWith(des.NewTripleDESCipher, append(key, key[:8]...), iv, data)
		}
	}
	return unchain(newRC2(key), iv, data)
}

const modern = "openssl pkcs12 -in OLD | openssl pkcs12 -export -out NEW makes one that can be read"

// decryptPBES2 undoes PBES2 (RFC 8018) with PBKDF2, as OpenSSL and new Java do.
func decryptPBES2(a pkix.AlgorithmIdentifier, data []byte, password password, w *work) ([]byte, error) {
	var p struct{ Derivation, Encryption pkix.AlgorithmIdentifier }
	if err := unmarshal(a.Parameters.FullBytes, &p); err != nil {
		return nil, errCut
	}
	size, create := 0, aes.NewCipher
	switch {
	case p.Encryption.Algorithm.Equal(oidAES128):
		size = 16
	case p.Encryption.Algorithm.Equal(oidAES192):
		size = 24
	case p.Encryption.Algorithm.Equal(oidAES256):
		size = 32
	case p.Encryption.Algorithm.Equal(oid3DES):
		size, create = 24, des.NewTripleDESCipher
	default:
		return nil, fmt.Errorf("encryption by %s is not known: openssl pkcs8 -topk8 -v2 aes-256-cbc encrypts a key so that it can be read", p.Encryption.Algorithm)
	}
	var iv []byte
	if err := unmarshal(p.Encryption.Parameters.FullBytes, &iv); err != nil {
		return nil, errCut
	}
	key, err := derivePBKDF2(p.Derivation, password, size, w)
	if err != nil {
		return nil, err
	}
	return unchainWith(create, key, iv, data)
}

// derivePBKDF2 derives a key of so many bytes, 0 for as many as the parameters say.
func derivePBKDF2(a pkix.AlgorithmIdentifier, password password, size int, w *work) ([]byte, error) {
	if !a.Algorithm.Equal(oidPBKDF2) {
		return nil, fmt.Errorf("derivation by %s is not known, PBKDF2 is: openssl pkcs8 -topk8 -v2 aes-256-cbc uses it", a.Algorithm)
	}
	var p struct {
		Salt       []byte
		Iterations int
		Size       int                      `asn1:"optional"`
		Function   pkix.AlgorithmIdentifier `asn1:"optional"`
	}
	if err := unmarshal(a.Parameters.FullBytes, &p); err != nil {
		return nil, errCut
	}
	if size == 0 {
		size = p.Size
	}
	function := sha1.New
	if len(p.Function.Algorithm) > 0 {
		known := false
		if function, known = hashes[p.Function.Algorithm.String()]; !known {
			return nil, fmt.Errorf("derivation by PBKDF2 with %s is not known: HMAC with SHA-1 or SHA-2 is", p.Function.Algorithm)
		}
	}
	if size < 1 || size > sha512.Size {
		return nil, errCut
	}
	blocks := (size + function().Size() - 1) / function().Size()
	if err := w.take(p.Iterations, 2*blocks); err != nil {
		return nil, err
	}
	return pbkdf2.Key(function, password.text(), p.Salt, p.Iterations, size)
}

func unchainWith(create func([]byte) (cipher.Block, error), key, iv, data []byte) ([]byte, error) {
	block, err := create(key)
	if err != nil {
		return nil, errCut
	}
	return unchain(block, iv, data)
}

// unchain decrypts CBC, and takes the padding off. Nobody outside can ask again and again: what a wrong padding tells helps nobody.
func unchain(block cipher.Block, iv, data []byte) ([]byte, error) {
	size := block.BlockSize()
	if len(iv) != size || len(data) == 0 || len(data)%size != 0 {
		return nil, errCut
	}
	plain := make([]byte, len(data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, data)
	padding := int(plain[len(plain)-1])
	if padding < 1 || padding > size || !bytes.Equal(plain[len(plain)-padding:], bytes.Repeat([]byte{byte(padding)}, padding)) {
		return nil, ErrPassword
	}
	return plain[:len(plain)-padding], nil
}

// What a key is derived for (RFC 7292, appendix B.3).
const (
	forKey = 1
	forIV  = 2
	forMAC = 3
)

// derive is PKCS#12's own derivation (RFC 7292, appendix B.2). The caller has asked work.
func derive(newHash func() hash.Hash, password []byte, p salted, id byte, size int) []byte {
	h := newHash()
	v := h.BlockSize()
	fill := func(pattern []byte) []byte {
		if len(pattern) == 0 {
			return nil
		}
		n := v * ((len(pattern) + v - 1) / v)
		return bytes.Repeat(pattern, n/len(pattern)+1)[:n]
	}
	diversifier := bytes.Repeat([]byte{id}, v)
	input := append(fill(p.Salt), fill(password)...)
	var derived []byte
	for {
		h.Reset()
		h.Write(diversifier)
		h.Write(input)
		sum := h.Sum(nil)
		for range p.Iterations - 1 {
			h.Reset()
			h.Write(sum)
			sum = h.Sum(sum[:0])
		}
		derived = append(derived, sum...)
		if len(derived) >= size {
			return derived[:size]
		}
		block := fill(sum)[:v]
		for at := 0; at < len(input); at += v { // each block of the input plus this one plus 1, modulo 2^v
			carry := 1
			for i := v - 1; i >= 0; i-- {
				carry += int(input[at+i]) + int(block[i])
				input[at+i] = byte(carry)
				carry >>= 8
			}
		}
	}
}

func macOf(newHash func() hash.Hash, key, message []byte) []byte {
	mac := hmac.New(newHash, key)
	mac.Write(message)
	return mac.Sum(nil)
}

// A password is a text, or absent: PKCS#12 tells one of no bytes from that of "", which has the two that end it. Both are in use.
type password string

const absent password = "\x00absent"

func (p password) text() string {
	if p == absent {
		return ""
	}
	return string(p)
}

// utf16 is the password as Java's characters, big endian.
func (p password) utf16() (b []byte) {
	for _, c := range utf16.Encode([]rune(p.text())) {
		b = binary.BigEndian.AppendUint16(b, c)
	}
	return b
}

// bmp is the password as PKCS#12 has it.
func (p password) bmp() []byte {
	if p == absent {
		return nil
	}
	return append(p.utf16(), 0, 0)
}
