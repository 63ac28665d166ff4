package keystore_test

import (
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kferry/kferry/shared/keystore"
)

// Stores that keytool and openssl wrote; testdata/make.sh says how.
func TestStoresOfKeytoolAndOpenSSL(t *testing.T) {
	for _, test := range []struct {
		file, password, keyPassword string
		kind                        string
		roots                       []string
		alias                       string
		chain                       []string // nil where there is no key
	}{
		{"openssl3.p12", "changeit", "", "PKCS12", names("client"), "client", names("client", "Between CA", "Test CA")},
		{"openssl1.p12", "changeit", "", "PKCS12", names("client"), "client", names("client", "Between CA", "Test CA")},
		{"rc2-128.p12", "changeit", "", "PKCS12", names("client"), "client", names("client", "Between CA", "Test CA")},
		{"open.p12", "", "", "PKCS12", names("client"), "client", names("client", "Between CA", "Test CA")},
		{"open.p12", "not needed", "", "PKCS12", names("client"), "client", names("client", "Between CA", "Test CA")},
		{"empty.p12", "", "", "PKCS12", names("client"), "4", names("client", "Between CA", "Test CA")},
		{"keytool17.p12", "changeit", "", "PKCS12", names("client"), "client", names("client", "Between CA", "Test CA")},
		{"keytool8.p12", "changeit", "", "PKCS12", names("client"), "client", names("client", "Between CA", "Test CA")},
		{"keytool8.p12", "changeit", "not the one", "PKCS12", names("client"), "client", names("client", "Between CA", "Test CA")},
		{"key.jks", "changeit", "keypass", "JKS", names("Test CA", "client"), "client", names("client", "Between CA", "Test CA")},
		{"key.jks", "", "keypass", "JKS", names("Test CA", "client"), "client", names("client", "Between CA", "Test CA")},
		{"key.jceks", "changeit", "keypass", "JCEKS", names("Test CA", "client"), "client", names("client", "Between CA", "Test CA")},
		{"keytool17-trust.p12", "changeit", "", "PKCS12", names("Test CA"), "", nil},
		{"keytool8-trust.p12", "changeit", "", "PKCS12", names("Test CA"), "", nil},
		{"openssl-trust.p12", "changeit", "", "PKCS12", names("Test CA"), "", nil},
		{"trust-open.p12", "", "", "PKCS12", names("Test CA"), "", nil},
		{"trust.jks", "changeit", "", "JKS", names("Test CA"), "", nil},
		{"trust.jks", "", "", "JKS", names("Test CA"), "", nil},
		{"trust.jceks", "changeit", "", "JCEKS", names("Test CA"), "", nil},
		{"ca.pem", "", "", "PEM", names("Test CA"), "", nil},
		// Java's key manager takes zebra of these, too.
		{"several.p12", "changeit", "", "PKCS12", names("zebra", "apple", "mirror", "kafka", "client"), "zebra", names("zebra")},
		{"several.jks", "changeit", "", "JKS", names("zebra", "apple", "mirror", "kafka", "client"), "zebra", names("zebra")},
	} {
		s, err := keystore.Read(file(t, test.file), test.password, test.keyPassword)
		if err != nil {
			t.Errorf("%s with password %q: %v", test.file, test.password, err)
			continue
		}
		roots, err := s.Roots()
		if err != nil {
			t.Errorf("%s: roots: %v", test.file, err)
		}
		var trusted []string
		for _, c := range roots {
			trusted = append(trusted, c.Subject.CommonName)
		}
		if s.Kind != test.kind || !same(trusted, test.roots) || len(s.Unread) > 0 {
			t.Errorf("%s is a %s that trusts %q, want a %s and %q; unread %v", test.file, s.Kind, trusted, test.kind, test.roots, s.Unread)
		}
		if test.chain == nil {
			if _, err := s.Certificate(); err == nil || !strings.Contains(err.Error(), "no private key") {
				t.Errorf("%s has no key, and says %v", test.file, err)
			}
			continue
		}
		if got := chain(t, s); !same(got, test.chain) || s.Keys[0].Alias != test.alias {
			t.Errorf("%s: key %q with chain %q, want %q with %q", test.file, s.Keys[0].Alias, got, test.alias, test.chain)
		}
	}
}

func TestKeysInPEM(t *testing.T) {
	all := string(file(t, "chain.pem"))
	for _, key := range []string{"key.pem", "sec1.pem", "pbes2.pem", "pbes2-3des.pem", "pbes1.pem", "legacy.pem"} {
		text := string(file(t, key))
		one := strings.ReplaceAll(all, "\n", " ")
		for how, pem := range map[string][]byte{
			"key first":    keystore.Join(text, all),
			"chain first":  keystore.Join(all, text),
			"in one line":  keystore.Join(text, one),
			"with a text":  keystore.Join("Bag Attributes\n    friendlyName: x\n"+text, all),
			"Windows' end": []byte(strings.ReplaceAll(text+all, "\n", "\r\n")),
		} {
			s, err := keystore.Read(pem, "", "changeit")
			if err != nil {
				t.Errorf("%s, %s: %v", key, how, err)
				continue
			}
			if got := chain(t, s); !same(got, names("client", "Between CA")) {
				t.Errorf("%s, %s: chain %q", key, how, got)
			}
		}
	}
}

func TestWrongPasswords(t *testing.T) {
	for _, name := range []string{"openssl3.p12", "openssl1.p12", "rc2-128.p12", "keytool17.p12", "keytool8.p12", "key.jks", "key.jceks", "trust.jks", "empty.p12"} {
		for _, wrong := range []string{"hunter2", "changeit "} {
			_, err := keystore.Read(file(t, name), wrong, "")
			if !errors.Is(err, keystore.ErrPassword) || strings.Contains(err.Error(), wrong) {
				t.Errorf("%s with %q: %v", name, wrong, err)
			}
		}
	}
	for _, name := range []string{"key.jks", "key.jceks"} { // the store opens, the key doesn't
		s, err := keystore.Read(file(t, name), "changeit", "hunter2")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Certificate(); !errors.Is(err, keystore.ErrPassword) || !strings.Contains(err.Error(), "ssl.key.password") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"pbes2.pem", "pbes2-3des.pem", "pbes1.pem", "legacy.pem"} {
		for _, wrong := range []string{"hunter2", ""} {
			s, err := keystore.Read(file(t, name), "", wrong)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Certificate(); !errors.Is(err, keystore.ErrPassword) {
				t.Errorf("%s with %q: %v", name, wrong, err)
			}
		}
	}
}

func names(all ...string) []string { return all }

func same(a, b []string) bool { return strings.Join(a, "|") == strings.Join(b, "|") }

func chain(t *testing.T, s keystore.Store) (subjects []string) {
	t.Helper()
	c, err := s.Certificate()
	if err != nil {
		t.Error(err)
		return nil
	}
	if c.Leaf == nil || string(c.Leaf.Raw) != string(c.Certificate[0]) {
		t.Error("the leaf is not the first certificate")
	}
	for _, k := range c.Certificate {
		subjects = append(subjects, subject(t, k))
	}
	return subjects
}

func file(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func subject(t *testing.T, der []byte) string {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c.Subject.CommonName
}
