package keystore_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"math"
	"math/big"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/kferry/kferry/shared/keystore"
)

// Each is refused by a sentence that says what is wrong, before it costs anything.
func TestWhatIsNoStoreIsRefused(t *testing.T) {
	ca := der(t, "ca.pem")
	key, leaf := string(file(t, "key.pem")), string(file(t, "chain.pem"))
	for name, test := range map[string]struct {
		store []byte
		says  string
	}{
		"nothing":                           {nil, "empty"},
		"a text":                            {[]byte("hunter2"), "no JKS, JCEKS, PKCS12 or PEM"},
		"a certificate in DER":              {file(t, "ca.der"), "openssl x509 -inform der"},
		"a JKS in base64":                   {[]byte(base64.StdEncoding.EncodeToString(file(t, "key.jks"))), "base64 of a JKS store"},
		"a PKCS12 in base64":                {[]byte(base64.StdEncoding.EncodeToString(file(t, "openssl3.p12")) + "\n"), "base64 of a PKCS12 store"},
		"a PEM in base64":                   {[]byte(base64.StdEncoding.EncodeToString(file(t, "ca.pem"))), "base64 of a PEM store"},
		"too large a one":                   {make([]byte, keystore.MaxBytes+1), "up to 4194304"},
		"a secret key":                      {file(t, "secret.jceks"), "keytool -importkeystore"},
		"a JKS of version 3":                {jks(3, 0), "version 3"},
		"a JKS of 4 billion entries":        {jks(2, math.MaxUint32), "4294967295 entries"},
		"a JKS of fewer entries":            {jks(2, 2, trusted("a", ca)), "ends too early"},
		"a JKS of more entries":             {jks(2, 1, trusted("a", ca), trusted("b", ca)), "follow the last entry"},
		"a JKS of an endless certificate":   {jks(2, 1, entry(2, "a"), text("X.509"), number(math.MaxUint32), ca), "ends too early"},
		"a JKS of an endless chain":         {jks(2, 1, entry(1, "a"), number(0), number(math.MaxUint32)), "4294967295 certificates"},
		"a JKS of another kind of entry":    {jks(2, 1, entry(7, "a")), "kind 7"},
		"a PKCS12 of endless work":          {pkcs12(t, math.MaxInt32), "2147483647 rounds"},
		"a PKCS12 of less than no work":     {pkcs12(t, -1), "-1 rounds"},
		"elements deep in each other":       {bytes.Repeat([]byte{0x30, 0x80}, 1<<20), "damaged"},
		"a PEM that was cut":                {file(t, "ca.pem")[:200], "1 of its parts begin, and 0 end"},
		"a PEM with a bad character":        {[]byte(strings.Replace(leaf, "MII", "M!I", 1)), "base64 is damaged"},
		"a PEM that ends as something else": {[]byte(strings.Replace(leaf, "END CERTIFICATE", "END X", 1)), "ends as X"},
		"two keys in a PEM":                 {keystore.Join(key+key, leaf), "2 private keys"},
		"a key without its certificate":     {file(t, "key.pem"), "without its certificate"},
		"a key and another's certificate":   {keystore.Join(key, string(file(t, "ca.pem"))), "belongs to key"},
		"a key that scrypt closes":          {keystore.Join(string(file(t, "scrypt.pem")), leaf), "PBKDF2 is"},
		"a key of OpenSSH":                  {[]byte("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----"), "OPENSSH"},
		"a key of endless work":             {keystore.Join(endlessKey(t), leaf), "2147483647 rounds"},
		"a key of another than its own":     {anotherKey(t), "does not belong to key \"client\""},
		"a JKS whose key is too short":      {jks(2, 1, entry(1, "a"), sized(shortKey(t)), number(1), text("X.509"), sized(ca)), "damaged"},
	} {
		began := time.Now()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		s, err := keystore.Read(test.store, "", "changeit")
		if err == nil {
			_, err = s.Certificate()
		}
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want %q", name, err, test.says)
		}
		if took, bytes := time.Since(began), after.TotalAlloc-before.TotalAlloc; took > 2*time.Second || bytes > 64<<20 {
			t.Errorf("%s took %v and %d bytes", name, took, bytes)
		}
	}
}

// However much of a store is lost, it is an error or less of it.
func TestCutStores(t *testing.T) {
	for _, name := range []string{"key.jks", "key.jceks", "open.p12", "keytool17.p12", "openssl1.p12", "chain.pem"} {
		whole := file(t, name)
		for n := range whole {
			s, err := keystore.Read(whole[:n], "", "keypass")
			if err == nil && s.Kind != "PEM" {
				t.Errorf("%d of %d bytes of %s make a store", n, len(whole), name)
			}
		}
	}
}

// Other programs than Java and OpenSSL write PKCS12 in BER, with what is long in parts and without lengths.
func TestPKCS12InBER(t *testing.T) {
	for _, name := range []string{"openssl3.p12", "openssl1.p12", "keytool17.p12", "open.p12"} {
		ber, rest := berOf(t, file(t, name))
		if len(rest) > 0 {
			t.Fatalf("%d bytes are left", len(rest))
		}
		s, err := keystore.Read(ber, "changeit", "")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := chain(t, s); !same(got, names("client", "Between CA", "Test CA")) {
			t.Errorf("%s: chain %q", name, got)
		}
	}
}

// One certificate that Go can't parse does not take the others away, and is named.
func TestCertificateThatGoRefuses(t *testing.T) {
	odd := bytes.Clone(der(t, "ca.pem"))
	odd[bytes.Index(odd, []byte{0xA0, 3, 2, 1, 2})+4] = 9 // a version that there isn't
	s, err := keystore.Read(jks(2, 2, trusted("odd", odd), trusted("good", der(t, "ca.pem"))), "", "")
	if err != nil {
		t.Fatal(err)
	}
	if roots, err := s.Roots(); err != nil || len(roots) != 1 || len(s.Unread) != 1 || !strings.Contains(s.Unread[0].Error(), `"odd"`) {
		t.Errorf("%d roots, %v, unread %v", len(roots), err, s.Unread)
	}
	if s, err = keystore.Read(jks(2, 1, trusted("odd", odd)), "", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Roots(); err == nil || !strings.Contains(err.Error(), `"odd"`) {
		t.Errorf("the only certificate can't be read, and the error is %v", err)
	}
}

// Certificates that issue each other in turn make no endless chain: putting it together costs the cube of its length.
func TestChainsHaveAnEnd(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))})
	names := []pkix.Name{{CommonName: "a"}, {CommonName: "b"}}
	for n := range 100 {
		c := &x509.Certificate{SerialNumber: big.NewInt(int64(n + 1)), Subject: names[n%2]}
		der := must(x509.CreateCertificate(rand.Reader, c, &x509.Certificate{Subject: names[(n+1)%2]}, key.Public(), key))
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	certificate := must(must(keystore.Read(text, "", "")).Certificate())
	if n := len(certificate.Certificate); n < 2 || n > 20 {
		t.Errorf("a chain of %d", n)
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func FuzzRead(f *testing.F) {
	entries, err := os.ReadDir("testdata")
	if err != nil {
		f.Fatal(err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			f.Add(file(f, e.Name()), "changeit", "keypass")
			f.Add(file(f, e.Name()), "", "")
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, password, keyPassword string) {
		s, err := keystore.Read(data, password, keyPassword)
		if err != nil {
			return
		}
		if roots, err := s.Roots(); (err == nil) != (len(roots) > 0) {
			t.Errorf("%d roots and %v", len(roots), err)
		}
		if c, err := s.Certificate(); err == nil && (len(c.Certificate) == 0 || c.PrivateKey == nil) {
			t.Errorf("a certificate without a chain or a key")
		}
	})
}

// A JKS in parts. Read without a password, whose digest counts for nothing then.
func jks(version, entries uint32, parts ...[]byte) []byte {
	store := append(number(0xFEEDFEED), number(version)...)
	store = append(store, number(entries)...)
	store = append(store, bytes.Join(parts, nil)...)
	return append(store, make([]byte, 20)...)
}

func number(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

func text(s string) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...) }

func sized(b []byte) []byte { return append(number(uint32(len(b))), b...) }

func entry(tag uint32, alias string) []byte {
	return bytes.Join([][]byte{number(tag), text(alias), make([]byte, 8)}, nil)
}

func trusted(alias string, der []byte) []byte {
	return bytes.Join([][]byte{entry(2, alias), text("X.509"), sized(der)}, nil)
}

func der(t testing.TB, name string) []byte {
	t.Helper()
	block, _ := pem.Decode(file(t, name))
	if block == nil {
		t.Fatalf("%s is no PEM", name)
	}
	return block.Bytes
}

type salted struct {
	Salt       []byte
	Iterations int
}

type sealed struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	der, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// pkcs12 is an empty store whose checksum takes so many rounds.
func pkcs12(t testing.TB, iterations int) []byte {
	data := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	type content struct {
		Type  asn1.ObjectIdentifier
		Value []byte `asn1:"tag:0,explicit"`
	}
	type digest struct {
		Algorithm pkix.AlgorithmIdentifier
		Digest    []byte
	}
	type mac struct {
		Digest     digest
		Salt       []byte
		Iterations int
	}
	sha1 := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}}
	return marshal(t, struct {
		Version int
		Safes   content
		Mac     mac
	}{3, content{data, []byte{0x30, 0}}, mac{digest{sha1, make([]byte, 20)}, make([]byte, 100), iterations}})
}

// endlessKey is a PEM whose decryption takes the most rounds that there are.
func endlessKey(t testing.TB) string {
	oid := func(arcs ...int) asn1.ObjectIdentifier { return arcs }
	derivation := pkix.AlgorithmIdentifier{Algorithm: oid(1, 2, 840, 113549, 1, 5, 12), Parameters: asn1.RawValue{FullBytes: marshal(t, salted{make([]byte, 8), math.MaxInt32})}}
	cipher := pkix.AlgorithmIdentifier{Algorithm: oid(2, 16, 840, 1, 101, 3, 4, 1, 42), Parameters: asn1.RawValue{FullBytes: marshal(t, make([]byte, 16))}}
	parameters := marshal(t, struct{ Derivation, Cipher pkix.AlgorithmIdentifier }{derivation, cipher})
	key := sealed{pkix.AlgorithmIdentifier{Algorithm: oid(1, 2, 840, 113549, 1, 5, 13), Parameters: asn1.RawValue{FullBytes: parameters}}, make([]byte, 32)}
	return string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: marshal(t, key)}))
}

// shortKey has less than its salt and its digest.
func shortKey(t testing.TB) []byte {
	return marshal(t, sealed{pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 42, 2, 17, 1, 1}}, make([]byte, 39)})
}

// anotherKey is open.p12 with another key in place of the certificate's own.
func anotherKey(t testing.TB) []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	store, own := file(t, "open.p12"), der(t, "key.pem")
	if bytes.Count(store, own) != 1 || len(own) != len(other) {
		t.Fatalf("the key is not in open.p12, or of another length")
	}
	return bytes.Replace(store, own, other, 1)
}

// berOf has an element without a length, and its strings in parts.
func berOf(t testing.TB, data []byte) (ber, rest []byte) {
	t.Helper()
	var e asn1.RawValue
	rest, err := asn1.Unmarshal(data, &e)
	if err != nil {
		t.Fatal(err)
	}
	tag := e.FullBytes[0]
	switch {
	case e.IsCompound:
		for inside := e.Bytes; len(inside) > 0; {
			var part []byte
			part, inside = berOf(t, inside)
			ber = append(ber, part...)
		}
	case e.Class == asn1.ClassUniversal && e.Tag == asn1.TagOctetString, e.Class == asn1.ClassContextSpecific:
		for inside := e.Bytes; len(inside) > 0; {
			n := min(len(inside), 100)
			ber = append(ber, marshal(t, inside[:n])...)
			inside = inside[n:]
		}
		tag |= 0x20
	default:
		return e.FullBytes, rest
	}
	return append(append([]byte{tag, 0x80}, ber...), 0, 0), rest
}
