package cli

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kferry/kferry/shared/local"
	"github.com/kferry/kferry/shared/spec"
)

const doorToken = "geheim-geheim-geheim"

// A house is a process behind a door, with one endpoint that tells and one that changes something.
type house struct {
	*testing.T
	*door
	log     book
	changed int
}

type book struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *book) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *book) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func newHouse(t *testing.T, h spec.HTTP) *house {
	e := &house{T: t}
	e.door = newDoor(h, slog.New(slog.NewTextHandler(&e.log, nil)))
	watchable(e.door, newRegistry(), func() bool { return true })
	e.changes("POST /change", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			http.Error(w, "too much", http.StatusRequestEntityTooLarge)
			return
		}
		e.changed++
		fmt.Fprintln(w, "changed")
	}))
	e.changes("POST /panic", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("geheim") }))
	return e
}

// open opens the door until the test ends, and says where it is.
func (e *house) open() string {
	e.Helper()
	e.must(e.listen())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.serve(ctx) }()
	e.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			e.Error(err)
		}
	})
	_, port, err := net.SplitHostPort(e.listener.Addr().String())
	e.must(err)
	return "127.0.0.1:" + port
}

func (e *house) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

func (e *house) file(name string, text []byte) string {
	e.Helper()
	path := filepath.Join(e.TempDir(), name)
	e.must(os.WriteFile(path, text, 0o600))
	return path
}

// ask asks with headers in pairs, and with "Host" the name.
func (e *house) ask(client *http.Client, method, url string, headers ...string) (int, string) {
	e.Helper()
	request, err := http.NewRequest(method, url, strings.NewReader(""))
	e.must(err)
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			request.Host = headers[i+1]
		}
		request.Header.Set(headers[i], headers[i+1])
	}
	answer, err := client.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	e.must(err)
	return answer.StatusCode, string(text)
}

func kept(text string) spec.Kept { return spec.Kept{Text: spec.Secret(text)} }

func TestDoor(t *testing.T) {
	const anywhere, here = "0.0.0.0:0", "127.0.0.1:0"
	bearer := []string{"Authorization", "Bearer " + doorToken}
	for name, c := range map[string]struct {
		http    spec.HTTP
		headers []string
		want    int
	}{
		"on the loopback":                          {spec.HTTP{Address: here}, nil, 200},
		"as localhost":                             {spec.HTTP{Address: here}, []string{"Host", "localhost:8080"}, 200},
		"as ::1":                                   {spec.HTTP{Address: here}, []string{"Host", "[::1]:8080"}, 200},
		"a name made to lead here":                 {spec.HTTP{Address: here}, []string{"Host", "evil.example:8080"}, 403},
		"a name that looks like it":                {spec.HTTP{Address: here}, []string{"Host", "127.0.0.1.evil.example"}, 403},
		"a page on another site":                   {spec.HTTP{Address: here}, []string{"Sec-Fetch-Site", "cross-site"}, 403},
		"a page on another site, older browser":    {spec.HTTP{Address: here}, []string{"Origin", "https://evil.example"}, 403},
		"a form on another site, with the cookie":  {spec.HTTP{Address: here}, []string{"Origin", "null", "Content-Type", "text/plain"}, 403},
		"a page of its own":                        {spec.HTTP{Address: here}, []string{"Sec-Fetch-Site", "same-origin"}, 200},
		"on the loopback with a token":             {spec.HTTP{Address: here, Token: kept(doorToken)}, nil, 401},
		"behind a proxy with a token":              {spec.HTTP{Address: here, Token: kept(doorToken)}, append(bearer, "Host", "kferry.example"), 200},
		"a page with the token from another site":  {spec.HTTP{Address: here, Token: kept(doorToken)}, append(bearer, "Sec-Fetch-Site", "cross-site"), 403},
		"anywhere with the token":                  {spec.HTTP{Address: anywhere, Token: kept(doorToken)}, bearer, 200},
		"the scheme in other letters":              {spec.HTTP{Address: anywhere, Token: kept(doorToken)}, []string{"Authorization", "bearer " + doorToken}, 200},
		"without":                                  {spec.HTTP{Address: anywhere, Token: kept(doorToken)}, nil, 401},
		"another":                                  {spec.HTTP{Address: anywhere, Token: kept(doorToken)}, []string{"Authorization", "Bearer " + doorToken + "x"}, 401},
		"half of it":                               {spec.HTTP{Address: anywhere, Token: kept(doorToken)}, []string{"Authorization", "Bearer geheim"}, 401},
		"an empty one":                             {spec.HTTP{Address: anywhere, Token: kept(doorToken)}, []string{"Authorization", "Bearer "}, 401},
		"as a password":                            {spec.HTTP{Address: anywhere, Token: kept(doorToken)}, []string{"Authorization", "Basic " + doorToken}, 401},
		"open to all":                              {spec.HTTP{Address: anywhere, Open: true}, nil, 200},
		"open to all, but no page on another site": {spec.HTTP{Address: anywhere, Open: true}, []string{"Sec-Fetch-Site", "cross-site"}, 403},
	} {
		t.Run(name, func(t *testing.T) {
			e := newHouse(t, c.http)
			at := "http://" + e.open()
			status, text := e.ask(http.DefaultClient, "POST", at+"/change", c.headers...)
			if status != c.want || (e.changed == 1) != (c.want == 200) {
				t.Errorf("answers %d %q, and %d changes", status, text, e.changed)
			}
			for _, path := range []string{"/metrics", "/healthz", "/readyz"} { // whoever asks, in whatever way
				if status, _ := e.ask(http.DefaultClient, "GET", at+path, c.headers...); status != 200 {
					t.Errorf("%s answers %d", path, status)
				}
			}
			if status, _ := e.ask(http.DefaultClient, "GET", at+"/change", c.headers...); status != 405 && status != 404 {
				t.Errorf("a GET that would change something answers %d", status)
			}
			if strings.Contains(e.log.String()+text, "geheim") {
				t.Errorf("shows the token: %s%s", text, &e.log)
			}
			if e.saidAt.Load() > 0 != (c.want >= 400) {
				t.Errorf("the log:\n%s", &e.log)
			}
		})
	}
}

// A door that is open to everybody by mistake has the process not start.
func TestOpenDoorsAreRefused(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0"} {
		e := newHouse(t, spec.HTTP{Address: address})
		err := e.listen()
		if err == nil {
			e.door.close()
		}
		if err == nil || !strings.Contains(err.Error(), "could change things (POST /change, POST /panic): set KFERRY_HTTP_TOKEN") {
			t.Errorf("%s: %v", address, err)
		}
		alone := newDoor(spec.HTTP{Address: address}, silent)
		watchable(alone, newRegistry(), func() bool { return true })
		if err := alone.listen(); err != nil {
			t.Errorf("%s, where nothing can be changed: %v", address, err)
		}
		alone.close()
	}
	off := newHouse(t, spec.HTTP{})
	off.must(off.listen())
	off.must(off.serve(t.Context()))
}

func TestDoorTakesNoForgetfulEndpoint(t *testing.T) {
	for pattern, put := range map[string]func(*door, string, http.Handler){
		"POST /x": (*door).tells, "/x": (*door).tells, "GET /x": (*door).changes, "/y": (*door).changes,
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q is taken", pattern)
				}
			}()
			put(newDoor(spec.HTTP{}, silent), pattern, http.NotFoundHandler())
		}()
	}
}

// Certificates, authority and token are replaced while the door is open.
func TestDoorWithCertificates(t *testing.T) {
	authority := func() *local.Authority {
		a, err := local.NewAuthority("kferry test")
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	servers, clients, strangers := authority(), authority(), authority()
	e := &house{T: t}
	write := func(path string, text []byte) {
		e.must(os.WriteFile(path+".new", text, 0o600))
		e.must(os.Rename(path+".new", path))
	}
	dir := t.TempDir()
	h := spec.HTTP{
		Address: "127.0.0.1:0", Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key"), ClientCA: filepath.Join(dir, "ca"),
		Token: spec.Kept{File: filepath.Join(dir, "token")},
	}
	serve := func(a *local.Authority) {
		certificate, key, err := a.Sign("server")
		e.must(err)
		write(h.Cert, certificate)
		write(h.Key, key)
	}
	serve(servers)
	write(h.ClientCA, clients.PEM())
	write(h.Token.File, []byte(doorToken+"\n"))
	e = newHouse(t, h)
	at := "https://" + e.open()

	client := func(trusts, signed *local.Authority) *http.Client {
		config := &tls.Config{RootCAs: x509.NewCertPool()}
		config.RootCAs.AppendCertsFromPEM(trusts.PEM())
		if signed != nil {
			certificate, key, err := signed.Sign("client")
			e.must(err)
			pair, err := tls.X509KeyPair(certificate, key)
			e.must(err)
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil } // whatever is asked for
		}
		return &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, ForceAttemptHTTP2: true}}
	}
	expect := func(what string, c *http.Client, want int, headers ...string) {
		t.Helper()
		if status, text := e.ask(c, "POST", at+"/change", headers...); status != want {
			t.Errorf("%s: %d %s, want %d", what, status, text, want)
		}
	}
	expect("with a certificate", client(servers, clients), 200)
	expect("without", client(servers, nil), 401)
	expect("with the token", client(servers, nil), 200, "Authorization", "Bearer "+doorToken)
	expect("with a stranger's certificate", client(servers, strangers), 0)
	if status, _ := e.ask(client(servers, nil), "GET", at+"/healthz"); status != 200 {
		t.Errorf("/healthz answers %d to a probe without a certificate", status)
	}

	next := authority()
	serve(next)
	write(h.ClientCA, strangers.PEM())
	write(h.Token.File, []byte("geheim-another-token"))
	expect("with the new authority's", client(next, strangers), 200)
	expect("with the old one's", client(next, clients), 0)
	expect("of the old server's", client(servers, nil), 0)
	expect("with the old token", client(next, nil), 401, "Authorization", "Bearer "+doorToken)
	expect("with the new token", client(next, nil), 200, "Authorization", "Bearer geheim-another-token")

	write(h.Cert, []byte("geheim")) // half of a replacement, or a mistake
	write(h.Token.File, nil)
	expect("while they can't be read", client(next, nil), 200, "Authorization", "Bearer geheim-another-token")
	if text := e.log.String(); strings.Count(text, "can't be read") != 2 || strings.Contains(text, "geheim") {
		t.Errorf("the log:\n%s", text)
	}
	serve(servers)
	expect("when they can be again", client(servers, nil), 200, "Authorization", "Bearer geheim-another-token")
}

func TestDoorMistakes(t *testing.T) {
	e := newHouse(t, spec.HTTP{})
	for name, h := range map[string]spec.HTTP{
		"KFERRY_HTTP_TOKEN: too short": {Token: spec.Kept{File: e.file("t", []byte("geheim"))}},
		"KFERRY_HTTP_TOKEN: open":      {Token: spec.Kept{File: "/none"}},
		"KFERRY_HTTP_TLS_…: ":          {Cert: e.file("c", []byte("geheim")), Key: e.file("k", []byte("geheim"))},
	} {
		h.Address = "127.0.0.1:0"
		err := newDoor(h, silent).listen()
		if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whoever sends too much, or too slowly, or in too many connections, gets no further, and others do.
func TestDoorIsBounded(t *testing.T) {
	e := newHouse(t, spec.HTTP{Address: "127.0.0.1:0"})
	at := e.open()
	post := func(body io.Reader, headers ...string) int {
		request, err := http.NewRequest("POST", "http://"+at+"/change", body)
		e.must(err)
		for i := 0; i < len(headers); i += 2 {
			request.Header.Set(headers[i], headers[i+1])
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			return 0
		}
		defer answer.Body.Close()
		if _, err := io.ReadAll(answer.Body); err != nil { // and why is lost
			return 0
		}
		return answer.StatusCode
	}
	if status := post(bytes.NewReader(make([]byte, httpBodyBytes))); status != 200 {
		t.Errorf("a body of the most there may be: %d", status)
	}
	if status := post(bytes.NewReader(make([]byte, httpBodyBytes+1))); status != 413 {
		t.Errorf("a body of more: %d", status)
	}
	if status := post(nil, "X-Long", strings.Repeat("x", 2*httpHeaderBytes)); status != 431 {
		t.Errorf("a header of more: %d", status)
	}
	if status, text := e.ask(http.DefaultClient, "POST", "http://"+at+"/panic"); status != 0 || strings.Contains(text, "geheim") {
		t.Errorf("a bug in an endpoint: %d %s", status, text)
	}
	if e.changed != 1 {
		t.Errorf("%d changes", e.changed)
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	e.must(err)
	few := newFewConns(l, 2)
	server := &http.Server{Handler: e.bounded(e.mux)}
	done := make(chan error, 1)
	go func() { done <- server.Serve(few) }()
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", l.Addr().String())
		e.must(err)
		_, err = io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
		e.must(err)
		return conn
	}
	read := func(conn net.Conn, within time.Duration) bool {
		e.must(conn.SetReadDeadline(time.Now().Add(within)))
		line, err := bufio.NewReader(conn).ReadString('\n')
		return err == nil && strings.Contains(line, "200")
	}
	first, second := dial(), dial()
	if !read(first, 10*time.Second) || !read(second, 10*time.Second) {
		t.Fatal("the first two are not answered")
	}
	third := dial()
	if read(third, 50*time.Millisecond) {
		t.Error("a third is answered beside the two")
	}
	first.Close()
	if !read(third, 10*time.Second) {
		t.Error("the third is not answered after the first has gone")
	}
	fourth := dial()
	server.Close() // while it waits
	<-done
	for _, conn := range []net.Conn{second, third, fourth} {
		conn.Close()
	}
}

// FuzzDoor gives any bytes as a request. Nothing changes but for those who may, and nobody is told a secret.
func FuzzDoor(f *testing.F) {
	for _, request := range []string{
		"POST /change HTTP/1.1\r\nHost: localhost:1\r\nAuthorization: Bearer " + doorToken + "\r\nContent-Length: 2\r\n\r\nab",
		"POST /change HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\nSec-Fetch-Site: cross-site\r\n\r\n",
		"POST http://localhost/change HTTP/1.1\r\nHost: evil.example\r\nAuthorization: bearer  x\r\n\r\n",
		"POST //change/../change?x=%00 HTTP/1.1\r\nHost: [::1]:80\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n",
		"GET /change HTTP/1.1\r\nHost: 127.0.0.1\r\nX-HTTP-Method-Override: POST\r\n\r\n",
		"GET /metrics HTTP/1.0\r\nHost: localhost.\r\nAccept: */*;q=1e9\r\n\r\n",
		"HEAD /healthz HTTP/1.1\r\nHost: 0177.0.0.1\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
	} {
		f.Add([]byte(request), true)
		f.Add([]byte(request), false)
	}
	changed := false
	doors := map[bool]http.Handler{}
	for _, asks := range []bool{true, false} {
		h := spec.HTTP{}
		if asks {
			h.Token.Text = doorToken
		}
		d := newDoor(h, silent)
		if err := d.readSecrets(); err != nil {
			f.Fatal(err)
		}
		d.loopback = true
		watchable(d, newRegistry(), func() bool { return true })
		d.changes("POST /change", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			changed = true
		}))
		doors[asks] = d.bounded(d.mux)
	}
	f.Fuzz(func(t *testing.T, request []byte, asks bool) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(request)))
		if err != nil {
			return
		}
		changed = false
		w := httptest.NewRecorder()
		doors[asks].ServeHTTP(w, r)
		switch {
		case changed && asks && !bytes.Contains(request, []byte(doorToken)):
			t.Errorf("changed without the token: %q", request)
		case changed && !asks && !loopbackName(r.Host):
			t.Errorf("changed under the name %q", r.Host)
		case changed && (r.Method != "POST" || r.Header.Get("Sec-Fetch-Site") == "cross-site"):
			t.Errorf("changed by %q", request)
		case strings.Contains(w.Body.String()+fmt.Sprint(w.Header()), doorToken):
			t.Errorf("told the token: %q", w.Body)
		case w.Code < 200 || w.Code > 499:
			t.Errorf("%q is answered with %d", request, w.Code)
		}
	})
}
