package spec

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/kferry/kferry/shared/keystore"
)

// tls reads ssl.*, of a client's properties or of what a login module has for its token endpoint.
func (c clientReader) tls() *TLS {
	c.oneClass("ssl.engine.factory.class", "remove it, and say in ssl.* whom to trust", "org.apache.kafka.common.security.ssl.DefaultSslEngineFactory")
	t := &TLS{
		Roots:       c.roots(),
		Certificate: c.certificate(),
		AnyName:     read(c.report, c.get("ssl.endpoint.identification.algorithm"), parseIdentification, false),
	}
	t.MinVersion, t.MaxVersion = c.versions()
	c.suites(t)
	return t
}

// parseIdentification says whether the name of a host doesn't matter.
func parseIdentification(text string) (anyName bool, err error) {
	if text != "" && !strings.EqualFold(text, "https") {
		return false, errors.New("unknown; give https, or leave it empty to have the names in certificates not checked")
	}
	return text == "", nil
}

const typePEM = "PEM"

// roots are whom to trust, nil for whom the system does.
func (c clientReader) roots() []*x509.Certificate {
	location, certificates, password := c.get("ssl.truststore.location"), c.get("ssl.truststore.certificates"), c.get("ssl.truststore.password")
	kind := c.storeType("ssl.truststore.type")
	var at value
	var store keystore.Store
	var ok bool
	switch {
	case certificates.set && location.set:
		c.wrongf(certificates.bare(), "and ssl.truststore.location are both given; give one of them")
	case certificates.set:
		c.onlyPEM(kind, "ssl.truststore.certificates")
		c.needless(password, "certificates that stand in the settings have no password")
		at = certificates
		store, ok = c.readText(at, at.text, value{})
	case location.set:
		at = location
		store, ok = c.readFile(at, password, value{}, "ssl.truststore.password")
	case password.set:
		c.wrongf(password.bare(), "is given without a truststore; give ssl.truststore.location, or remove it")
	}
	if !ok {
		return nil
	}
	roots, err := store.Roots()
	if err != nil {
		c.wrongf(at.bare(), "%v", err)
		return nil
	}
	for _, err := range store.Unread {
		c.warn(at.bare(), "one certificate can't be read, and is not trusted: %v", err)
	}
	c.warnOfDates(at, "trusts", roots)
	return roots
}

// certificate is the client's own, nil for none.
func (c clientReader) certificate() *tls.Certificate {
	location, password := c.get("ssl.keystore.location"), c.get("ssl.keystore.password")
	key, chain, keyPassword := c.get("ssl.keystore.key"), c.get("ssl.keystore.certificate.chain"), c.get("ssl.key.password")
	kind := c.storeType("ssl.keystore.type")
	var at value
	var store keystore.Store
	var ok bool
	switch {
	case (key.set || chain.set) && location.set:
		c.wrongf(firstSet(key, chain).bare(), "and ssl.keystore.location are both given; give one of them")
	case key.set && !chain.set:
		c.wrongf(key.bare(), "is given without its certificate; give ssl.keystore.certificate.chain too")
	case chain.set && !key.set:
		c.wrongf(chain.bare(), "is given without its key; give ssl.keystore.key too")
	case key.set:
		c.onlyPEM(kind, "ssl.keystore.key")
		c.needless(password, "a key that stands in the settings has ssl.key.password")
		at = key
		if chain.lost {
			return nil
		}
		store, ok = c.readText(at, string(keystore.Join(key.text, chain.text)), keyPassword)
	case location.set:
		at = location
		store, ok = c.readFile(at, password, keyPassword, "ssl.keystore.password, or ssl.key.password where the key has one of its own")
	case password.set:
		c.wrongf(password.bare(), "is given without a keystore; give ssl.keystore.location, or remove it")
	default:
		c.needless(keyPassword, "there is no keystore") // nor is it a mistake to Kafka
	}
	if !ok {
		return nil
	}
	certificate, err := store.Certificate()
	if err != nil {
		c.wrongStore(at, firstSet(keyPassword, password), err, "ssl.key.password")
		return nil
	}
	c.warnOfDates(at, "gives brokers", []*x509.Certificate{certificate.Leaf})
	if len(store.Keys) > 1 {
		c.warn(at.bare(), "holds %d keys; %q is used", len(store.Keys), store.Keys[0].Alias)
	}
	return certificate
}

// storeType looks at a type. What a store is like shows in what is in it, so it decides nothing.
func (c clientReader) storeType(key string) value {
	v := c.get(key)
	types := []string{"JKS", "PKCS12", typePEM, "JCEKS", "P12", "PFX"}
	if v.there() && !slices.ContainsFunc(types, func(known string) bool { return strings.EqualFold(v.text, known) }) {
		c.wrong(v, fmt.Errorf("this type of store can't be read; give %s%s", orList(types[:3]), suggest(v.text, types[:3])))
	}
	return v
}

// onlyPEM refuses another type for what stands in the settings themselves. Kafka wants PEM to be said.
func (c clientReader) onlyPEM(kind value, key string) {
	if kind.there() && !strings.EqualFold(kind.text, typePEM) {
		c.wrong(kind, fmt.Errorf("what stands in %s is PEM; give PEM, or name a file instead", key))
	}
}

func (c clientReader) needless(v value, why string) {
	if v.set {
		c.idle(v, why)
	}
}

// readText reads what stands in the settings. Properties have no lines but by \n, which not every reader of them turns into one.
func (c clientReader) readText(at value, text string, keyPassword value) (keystore.Store, bool) {
	if at.lost || keyPassword.lost {
		return keystore.Store{}, false
	}
	store, err := keystore.Read([]byte(strings.ReplaceAll(text, `\n`, "\n")), "", keyPassword.text)
	if err != nil {
		c.wrongStore(at, keyPassword, err, "ssl.key.password")
		return store, false
	}
	return store, true
}

func (c clientReader) readFile(at, password, keyPassword value, passwords string) (keystore.Store, bool) {
	if at.lost || password.lost || keyPassword.lost {
		return keystore.Store{}, false
	}
	data, err := readBytes(at.text)
	if err != nil {
		c.wrong(at, err)
		return keystore.Store{}, false
	}
	store, err := keystore.Read(data, password.text, keyPassword.text)
	if err != nil {
		c.wrongStore(at, firstSet(password, keyPassword), err, passwords)
		return store, false
	}
	return store, true
}

// wrongStore reports what is wrong at the place where it can be mended.
func (c clientReader) wrongStore(at, password value, err error, passwords string) {
	switch {
	case !errors.Is(err, keystore.ErrPassword):
		c.wrongf(at.bare(), "%v", err)
	case password.set:
		c.wrongf(password.bare(), "does not open what %s has: %v", at.path, err)
	default:
		c.wrongf(at.bare(), "needs a password; give %s", passwords)
	}
}

// readBytes reads a file whole. A name that isn't absolute is one from where the process was started, as in Java.
func readBytes(path string) ([]byte, error) {
	if path == "" {
		return nil, errors.New("is empty; name a file, or remove it")
	}
	data, err := ReadFile(path, keystore.MaxBytes)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, errors.New("there is no such file; mend the path, or mount it there")
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("can't be opened: %w; let this process read it", err)
	case errors.Is(err, errNoFile):
		return nil, errNoFile
	case err != nil:
		return nil, fmt.Errorf("can't be read: %w; name a store or a PEM file", err)
	}
	return data, nil
}

// warnOfDates names the first certificate of some that is not valid now.
func (c clientReader) warnOfDates(at value, what string, certificates []*x509.Certificate) {
	now := time.Now()
	var bad []*x509.Certificate
	for _, certificate := range certificates {
		if now.After(certificate.NotAfter) || now.Before(certificate.NotBefore) {
			bad = append(bad, certificate)
		}
	}
	if len(bad) == 0 {
		return
	}
	when := fmt.Sprintf("expired on %s", bad[0].NotAfter.UTC().Format(time.RFC3339))
	if now.Before(bad[0].NotBefore) {
		when = fmt.Sprintf("is not valid before %s", bad[0].NotBefore.UTC().Format(time.RFC3339))
	}
	more := ""
	if len(bad) > 1 {
		more = fmt.Sprintf("; so are %d more of %d not valid now", len(bad)-1, len(certificates))
	}
	c.warn(at.bare(), "%s a certificate that %s: %s%s", what, when, bad[0].Subject, more)
}

// tlsVersions are those of ssl.enabled.protocols; 0 is one that Java 17 knows and doesn't speak any more, and kferry doesn't either.
var tlsVersions = map[string]uint16{"TLSv1.3": tls.VersionTLS13, "TLSv1.2": tls.VersionTLS12, "TLSv1.1": 0, "TLSv1": 0, "SSLv3": 0, "SSLv2Hello": 0}

// versions are the least and the most of TLS, 0 for Go's own, which are those of Kafka's clients.
func (c clientReader) versions() (least, most uint16) {
	list, protocol := c.get("ssl.enabled.protocols"), c.get("ssl.protocol")
	if list.there() {
		least, most = c.enabled(list)
	}
	if !protocol.there() {
		return least, most
	}
	version, known := tlsVersions[protocol.text]
	switch {
	case protocol.text == "TLS" || protocol.text == "SSL" || version == tls.VersionTLS13: // the same in Java
	case !known:
		c.wrong(protocol, fmt.Errorf("not a version of TLS; give TLSv1.3, which allows TLSv1.2 too%s", suggest(protocol.text, []string{"TLSv1.3", "TLSv1.2"})))
	case version == 0:
		c.wrong(protocol, errors.New("is not spoken any more, by Java 17 neither; give TLSv1.3, which allows TLSv1.2 too"))
	case least > version:
		c.wrong(protocol, fmt.Errorf("leaves no version of %s; give TLSv1.3", list.text))
	default:
		most = version
	}
	return least, most
}

func (c clientReader) enabled(list value) (least, most uint16) {
	var old []string
	for _, name := range splitList(list.text) {
		version, known := tlsVersions[name]
		switch {
		case !known:
			c.wrong(list, fmt.Errorf("%s is not a version of TLS; give TLSv1.2,TLSv1.3 or one of them%s", name, suggest(name, []string{"TLSv1.3", "TLSv1.2"})))
			return 0, 0
		case version == 0:
			old = append(old, name)
			continue
		case least == 0:
			least = version
		}
		least, most = min(least, version), max(most, version)
	}
	switch {
	case old != nil && most == 0:
		c.wrong(list, fmt.Errorf("%s is not spoken any more, by Java 17 neither; give TLSv1.2,TLSv1.3", strings.Join(old, ", ")))
	case old != nil:
		c.warn(list, "%s is not spoken any more, by Java 17 neither, and has no effect", strings.Join(old, ", "))
	}
	return least, most
}

// suitesOfJava are those that Java 17 knows beside Go's.
var suitesOfJava = strings.Fields(`
	TLS_DHE_RSA_WITH_AES_256_GCM_SHA384 TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256 TLS_DHE_DSS_WITH_AES_256_GCM_SHA384
	TLS_DHE_RSA_WITH_AES_128_GCM_SHA256 TLS_DHE_DSS_WITH_AES_128_GCM_SHA256 TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384
	TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384 TLS_DHE_RSA_WITH_AES_256_CBC_SHA256 TLS_DHE_DSS_WITH_AES_256_CBC_SHA256
	TLS_DHE_RSA_WITH_AES_128_CBC_SHA256 TLS_DHE_DSS_WITH_AES_128_CBC_SHA256 TLS_DHE_RSA_WITH_AES_256_CBC_SHA TLS_DHE_DSS_WITH_AES_256_CBC_SHA
	TLS_DHE_RSA_WITH_AES_128_CBC_SHA TLS_DHE_DSS_WITH_AES_128_CBC_SHA TLS_RSA_WITH_AES_256_CBC_SHA256 TLS_EMPTY_RENEGOTIATION_INFO_SCSV`)

// suites reads ssl.cipher.suites. TLS 1.3's can't be chosen from in Go, so it is spoken with all three where one is named. Where none is, Java
// doesn't speak it, nor do we.
func (c clientReader) suites(t *TLS) {
	v := c.get("ssl.cipher.suites")
	if !v.there() || len(splitList(v.text)) == 0 {
		return
	}
	ids, names := map[string]uint16{}, []string{}
	for _, suite := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		ids[suite.Name] = suite.ID
		names = append(names, suite.Name)
	}
	var newest int
	var without []string
	for _, name := range splitList(v.text) {
		id, known := ids[name]
		switch {
		case slices.Contains(suitesOfJava, name):
			without = append(without, name)
		case !known:
			c.wrong(v, fmt.Errorf("%s is not a cipher suite of TLS; give names like TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256%s", name, suggest(name, slices.Concat(names, suitesOfJava))))
			return
		case id>>8 == 0x13:
			newest++
		default:
			t.CipherSuites = append(t.CipherSuites, id)
		}
	}
	if without != nil {
		c.warn(v, "Go's TLS has no %s, and leaves them out", strings.Join(without, ", "))
	}
	switch most := t.MaxVersion; {
	case t.CipherSuites == nil && newest == 0:
		c.wrong(v, errors.New("none of these cipher suites is left; name one that Go's TLS has, like TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"))
	case newest == 0 && t.MinVersion == tls.VersionTLS13:
		c.wrong(v, errors.New("has no cipher suite of TLSv1.3, and ssl.enabled.protocols nothing else; name TLS_AES_128_GCM_SHA256, or allow TLSv1.2"))
	case t.CipherSuites == nil && most != 0 && most < tls.VersionTLS13:
		c.wrong(v, errors.New("has cipher suites of TLSv1.3 alone, which is not allowed; name one of TLSv1.2, or allow TLSv1.3"))
	case newest == 0:
		t.MaxVersion = tls.VersionTLS12
	case t.CipherSuites == nil:
		t.MinVersion = tls.VersionTLS13
	}
	if newest > 0 && newest < 3 && (t.MaxVersion == 0 || t.MaxVersion == tls.VersionTLS13) {
		c.warn(v, "TLSv1.3 is spoken with all three of its cipher suites; Go can't leave out one")
	}
}
