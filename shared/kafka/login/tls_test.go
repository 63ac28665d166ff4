package login_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/kafka/login"
	"github.com/kferry/kferry/shared/spec"
)

// What can be wrong with TLS: each is told at once, as ErrTLS, with what mends it.
func TestFailuresSayWhatIsWrong(t *testing.T) {
	mine, other := newAuthority(t, "mine", nil), newAuthority(t, "other", nil)
	old := newAuthority(t, "old", expired)
	bound := newAuthority(t, "bound", func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.com"} })
	wantsClient := func(version uint16) func(*scene) {
		return func(s *scene) {
			s.server.ClientAuth, s.server.ClientCAs, s.server.MaxVersion = tls.RequireAndVerifyClientCert, pool(mine), version
		}
	}
	all := func(changes ...func(*scene)) func(*scene) {
		return func(s *scene) {
			for _, change := range changes {
				change(s)
			}
		}
	}
	shows := func(a *authority, changes ...func(*x509.Certificate)) func(*scene) {
		return func(s *scene) {
			certificate := a.issue(t, "kferry", changes...)
			s.client.Certificate = &certificate
		}
	}
	broker := func(changes ...func(*x509.Certificate)) func(*scene) {
		return func(s *scene) { s.server.Certificates = []tls.Certificate{mine.issue(t, "broker", changes...)} }
	}
	by := func(a *authority, changes ...func(*x509.Certificate)) func(*scene) {
		return func(s *scene) {
			s.server.Certificates, s.client.Roots = []tls.Certificate{a.issue(t, "broker", changes...)}, a.roots()
		}
	}
	anyName := func(s *scene) { s.client.AnyName = true }
	byAddress := func(s *scene) { s.host = "127.0.0.1" }
	distrusts := func(s *scene) { s.client.Roots = other.roots() }
	forHosts := func(names ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.DNSNames = names }
	}
	called := func(name string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.Subject.CommonName = name }
	}

	for _, test := range []struct {
		name   string
		change func(s *scene)
		says   []string // nil where nothing is wrong
	}{
		{"nothing", all(), nil},
		{"expired", broker(expired), []string{"CN=broker for localhost", "issued by CN=mine", "expired on 2001-02-03 00:00 UTC"}},
		{"expired, where any name does", all(broker(expired), anyName), []string{"expired on 2001-02-03 00:00 UTC"}},
		{"not yet valid", broker(func(c *x509.Certificate) { c.NotBefore = time.Date(2130, 1, 1, 0, 0, 0, 0, time.UTC) }), []string{"CN=broker", "not yet valid", "2130-01-01 00:00 UTC"}},
		{"of a trusted authority that expired, as Java takes it", by(old), nil},
		{"expired, and trusted itself, as Java takes it", func(s *scene) {
			own := mine.issue(t, "broker", expired)
			s.server.Certificates, s.client.Roots = []tls.Certificate{own}, []*x509.Certificate{own.Leaf}
		}, nil},
		{"of an authority between that expired", func(s *scene) {
			between := mine.authority(t, "between", expired)
			own := between.issue(t, "broker")
			own.Certificate = append(own.Certificate, between.certificate.Raw)
			s.server.Certificates = []tls.Certificate{own}
		}, []string{"the authority CN=between, which issued that of CN=broker, expired on 2001-02-03 00:00 UTC"}},
		{"for another host", broker(forHosts("kafka-0.kafka", "kafka")), []string{"CN=broker for kafka-0.kafka, kafka (valid from", `is not for "localhost"`, "ssl.endpoint.identification.algorithm"}},
		{"for another host, where any name does", all(broker(forHosts("kafka")), anyName), nil},
		{"a common name alone, as Java takes it", broker(forHosts(), called("localhost")), nil},
		{"a common name alone, of another", broker(forHosts()), []string{"no subject alternative names", `common name is "broker"`}},
		{"a common name beside names", broker(forHosts("kafka"), called("localhost")), []string{`is not for "localhost"`}},
		{"a common name beyond the bounds of its authority", by(bound, forHosts(), called("localhost")), []string{`is not for "localhost"`}},
		{"an address", all(byAddress, broker(func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} })), nil},
		{"an address without one in the certificate", all(byAddress, broker()), []string{`is not for "127.0.0.1"`, "no IP address"}},
		{"an address as common name", all(byAddress, broker(forHosts(), called("127.0.0.1"))), []string{`is not for "127.0.0.1"`}},
		{"of a stranger", distrusts, []string{"not trusted", "no trusted authority (CN=other)", "ends at CN=mine", "truststore"}},
		{"of a stranger, where any name does", all(distrusts, anyName), []string{"not trusted"}},
		{"not for servers", broker(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), []string{"serverAuth"}},
		{"a client with a certificate", all(wantsClient(0), shows(mine)), nil},
		{"a client without one", wantsClient(0), []string{"wants a certificate of the client", "ssl.keystore.location", "issued by CN=mine"}},
		{"a client without one, before 1.3", wantsClient(tls.VersionTLS12), []string{"wants a certificate of the client", "ssl.keystore.location", "issued by CN=mine"}},
		{"a client with a stranger's", all(wantsClient(0), shows(other)), []string{"CN=kferry", "issued by CN=other", "is none that it takes", "takes those that are issued by CN=mine"}},
		{"a client with an expired one", all(wantsClient(0), shows(mine, expired)), []string{"refuses the client's certificate, CN=kferry", "expired on 2001-02-03 00:00 UTC"}},
		{"a client with an expired one, before 1.3", all(wantsClient(tls.VersionTLS12), shows(mine, expired)), []string{"refuses the client's certificate, CN=kferry", "expired on 2001-02-03 00:00 UTC"}},
		{"no protocol that both take", func(s *scene) { s.server.MaxVersion, s.client.MinVersion = tls.VersionTLS12, tls.VersionTLS13 }, []string{"ssl.enabled.protocols"}},
		{"no cipher that both take", func(s *scene) {
			s.server.MaxVersion, s.server.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
			s.client.MaxVersion, s.client.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}
		}, []string{"ssl.cipher.suites"}},
		{"a broker that closes what makes no sense to it", func(s *scene) { s.answer = new("") }, []string{"security.protocol to PLAINTEXT", "port of the TLS listener"}},
		{"no Kafka, in plain text", func(s *scene) { s.answer = new("HTTP/1.1 400 Bad Request\r\n\r\n") }, []string{"does not speak it", "security.protocol to PLAINTEXT"}},
		{"TLS that is spoken to in plain text", func(s *scene) { s.client, s.answer = nil, new("\x15\x03\x03\x00\x02\x02\x50") }, []string{"answers in TLS", "security.protocol to SSL"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScene(t, mine)
			test.change(s)
			cluster := s.open(t, nil)
			began := time.Now()
			err := cluster.Ping(t.Context())
			if test.says == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, kafka.ErrTLS) || !kafka.Retriable(err) {
				t.Fatalf("error is %v, want ErrTLS, which may pass", err)
			}
			for _, part := range append(test.says, s.address()) {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%v\nlacks %q", err, part)
				}
			}
			if took := time.Since(began); took > 3*time.Second { // other requests wait 10 s
				t.Errorf("it took %v to say so", took)
			}
		})
	}
}

// Whoever closes the connection may stop for other reasons than that it wants TLS.
func TestPlainTextToWhatClosesTheConnection(t *testing.T) {
	s := newScene(t, newAuthority(t, "mine", nil))
	s.client, s.answer = nil, new("")
	err := s.open(t, nil).Ping(t.Context())
	if !errors.Is(err, kafka.ErrUnanswered) || errors.Is(err, kafka.ErrTLS) || !strings.Contains(err.Error(), "wants TLS (security.protocol SSL or SASL_SSL)") {
		t.Errorf("error is %v", err)
	}
}

// A frozen peer takes the connection and says nothing.
func TestFrozenPeerCostsNoMoreThanADial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(kfake.VirtualNetwork)
		listener, err := network.Listen("tcp", "localhost:9092")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		done := make(chan struct{})
		defer close(done)
		go func() {
			if conn, err := listener.Accept(); err == nil {
				defer conn.Close()
				<-done
			}
		}()
		secured := login.Secured(spec.FixedLogin(spec.Security{TLS: &spec.TLS{}}), network.DialContext)
		began := time.Now()
		_, err = secured(t.Context(), "tcp", "localhost:9092")
		if took := time.Since(began); took != 4*time.Second || !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, login.ErrTLS) || !strings.Contains(err.Error(), "security.protocol") {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

// A thousand that ask at one time cost a broker no thousand handshakes, and what is mended is taken up soon.
func TestFailureStandsForAMoment(t *testing.T) {
	mine, other := newAuthority(t, "mine", nil), newAuthority(t, "other", nil)
	s := newScene(t, mine)
	good, bad := &spec.TLS{Roots: mine.roots()}, &spec.TLS{Roots: other.roots()}
	var now atomic.Pointer[spec.TLS]
	now.Store(bad)
	s.start(t)
	var dials atomic.Int32
	secured := login.Secured(spec.LoginFunc(func() (spec.Security, error) { return spec.Security{TLS: now.Load()}, nil }),
		func(ctx context.Context, network, address string) (net.Conn, error) {
			dials.Add(1)
			return new(net.Dialer).DialContext(ctx, network, address)
		})
	began := time.Now()
	for range 1000 {
		if _, err := secured(t.Context(), "tcp", s.address()); !errors.Is(err, login.ErrTLS) {
			t.Fatalf("error is %v", err)
		}
	}
	if most := int32(time.Since(began)/time.Second) + 1; dials.Load() > most {
		t.Errorf("%d connections, want at most %d", dials.Load(), most)
	}
	now.Store(good) // another truststore is tried at once
	conn, err := secured(t.Context(), "tcp", s.address())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// Where others can be reached a broker with a bad certificate is passed over, where none can that is said at once.
func TestOneBadBrokerOfSeveral(t *testing.T) {
	mine := newAuthority(t, "mine", nil)
	good, bad := newScene(t, mine), newScene(t, mine)
	withAddress := func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} } // as the fake calls itself
	good.server.Certificates = []tls.Certificate{mine.issue(t, "broker", withAddress)}
	bad.server.Certificates = []tls.Certificate{mine.issue(t, "broker", withAddress, expired)}
	bad.start(t)
	cluster := good.open(t, []string{bad.address()})
	began, failed := time.Now(), 0
	for range 20 {
		if cluster.Ping(t.Context()) != nil {
			failed++
		}
	}
	if failed > 1 {
		t.Errorf("%d of 20 requests failed, want at most the first", failed)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
}

// Certificates of both sides change while connections come and go, as when an operator renews them: whoever connects next uses the new
// ones, and what stands goes on.
func TestCertificatesRotate(t *testing.T) {
	first, second := newAuthority(t, "first", nil), newAuthority(t, "second", nil)
	s := newScene(t, first)
	s.server.ClientAuth, s.server.SessionTicketsDisabled = tls.RequireAnyClientCert, true
	var brokers atomic.Pointer[tls.Certificate]
	one := first.issue(t, "broker")
	brokers.Store(&one)
	seen := make(chan string, 10)
	s.server.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return brokers.Load(), nil }
	s.server.VerifyConnection = func(state tls.ConnectionState) error {
		seen <- state.PeerCertificates[0].Issuer.CommonName
		return nil
	}
	s.server.Certificates = nil
	s.start(t)
	var now atomic.Pointer[spec.TLS]
	use := func(roots []*x509.Certificate, by *authority) {
		certificate := by.issue(t, "kferry")
		now.Store(&spec.TLS{Roots: roots, Certificate: &certificate})
	}
	use(first.roots(), first)
	secured := login.Secured(spec.LoginFunc(func() (spec.Security, error) { return spec.Security{TLS: now.Load()}, nil }), new(net.Dialer).DialContext)
	ping := func(want string) *kgo.Client {
		t.Helper()
		client, err := kgo.NewClient(kgo.SeedBrokers(s.address()), kgo.Dialer(secured))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		if err := client.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := <-seen; got != want {
			t.Errorf("the client's certificate is of %s, want %s", got, want)
		}
		return client
	}
	standing := ping("first")
	use(append(first.roots(), second.roots()...), first) // the bundle has both while they change
	ping("first")
	two := second.issue(t, "broker")
	brokers.Store(&two)
	use(append(first.roots(), second.roots()...), second)
	ping("second")
	use(second.roots(), second)
	ping("second")
	brokers.Store(&one) // by whom nobody is trusted any more
	if _, err := secured(t.Context(), "tcp", s.address()); !errors.Is(err, login.ErrTLS) {
		t.Errorf("error is %v, want ErrTLS", err)
	}
	if err := standing.Ping(t.Context()); err != nil {
		t.Errorf("a connection that stands ended: %v", err)
	}
}

// Sessions are resumed, and the certificate behind one is checked again.
func TestResumedSessions(t *testing.T) {
	mine := newAuthority(t, "mine", nil)
	s := newScene(t, mine)
	soon := time.Now().Add(time.Hour)
	s.server.Certificates = []tls.Certificate{mine.issue(t, "broker", func(c *x509.Certificate) { c.NotAfter = soon })}
	var resumed atomic.Int32
	s.server.VerifyConnection = func(state tls.ConnectionState) error {
		if state.DidResume {
			resumed.Add(1)
		}
		return nil
	}
	s.start(t)
	secured := login.Secured(spec.FixedLogin(spec.Security{TLS: s.client}), new(net.Dialer).DialContext)
	for range 3 {
		client, err := kgo.NewClient(kgo.SeedBrokers(s.address()), kgo.Dialer(secured))
		if err != nil {
			t.Fatal(err)
		}
		if err := client.Ping(t.Context()); err != nil { // reads, and so the ticket too
			t.Fatal(err)
		}
		client.Close()
	}
	if resumed.Load() != 2 {
		t.Errorf("%d sessions of 2 were resumed", resumed.Load())
	}
}

// A scene is a broker and what a client takes for it.
type scene struct {
	host   string
	port   string
	server *tls.Config // nil for plain text
	client *spec.TLS   // nil likewise
	answer *string     // of what is there in place of Kafka, before it closes the connection
}

func newScene(t *testing.T, a *authority) *scene {
	return &scene{
		host:   "localhost",
		server: &tls.Config{Certificates: []tls.Certificate{a.issue(t, "broker")}},
		client: &spec.TLS{Roots: a.roots()},
	}
}

func (s *scene) address() string { return net.JoinHostPort(s.host, s.port) }

func (s *scene) start(t *testing.T) {
	t.Helper()
	if s.answer != nil {
		s.port = answering(t, *s.answer)
		return
	}
	opts := []kfake.Opt{kfake.NumBrokers(1)}
	if s.server != nil {
		opts = append(opts, kfake.TLS(s.server))
	}
	fake, err := kfake.NewCluster(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	_, s.port, _ = net.SplitHostPort(fake.ListenAddrs()[0])
}

// open starts the broker, and a client of it and of others.
func (s *scene) open(t *testing.T, more []string) *kafka.Cluster {
	t.Helper()
	s.start(t)
	cluster, err := kafka.Open(spec.Cluster{
		Alias: "A", BootstrapServers: append([]string{s.address()}, more...), Login: spec.FixedLogin(spec.Security{TLS: s.client}),
	}, kafka.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster
}

// answering is the port of what answers anything with a text, and closes.
func answering(t *testing.T, text string) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for conn, err := listener.Accept(); err == nil; conn, err = listener.Accept() {
			_, _ = conn.Read(make([]byte, 1<<10))
			_, _ = conn.Write([]byte(text))
			conn.Close()
		}
	})
	t.Cleanup(func() { listener.Close(); served.Wait() })
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	return port
}

// An authority issues certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string, change func(*x509.Certificate)) *authority {
	return (*authority)(nil).authority(t, name, change)
}

// authority is one by another, or by itself.
func (a *authority) authority(t *testing.T, name string, change func(*x509.Certificate)) *authority {
	c := certificate(name)
	c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.DNSNames, c.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil, nil
	if change != nil {
		change(c)
	}
	key := newKey(t)
	if a == nil {
		return &authority{sign(t, c, c, key, key), key}
	}
	return &authority{sign(t, c, a.certificate, key, a.key), key}
}

func (a *authority) roots() []*x509.Certificate { return []*x509.Certificate{a.certificate} }

func (a *authority) issue(t *testing.T, name string, changes ...func(*x509.Certificate)) tls.Certificate {
	c := certificate(name)
	for _, change := range changes {
		change(c)
	}
	key := newKey(t)
	leaf := sign(t, c, a.certificate, key, a.key)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

func certificate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"},
		NotBefore: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2140, 1, 1, 0, 0, 0, 0, time.UTC),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

func expired(c *x509.Certificate) { c.NotAfter = time.Date(2001, 2, 3, 0, 0, 0, 0, time.UTC) }

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t *testing.T, c, by *x509.Certificate, key, with *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, by, key.Public(), with)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func pool(a *authority) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.certificate)
	return p
}
