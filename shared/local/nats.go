package local

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/kferry/kferry/shared/spec"
)

// Files beside the server's own.
const (
	lockName = "lock"
	urlName  = "url"
)

// Bounds of the in-process server.
const (
	natsStart = 10 * time.Second // to answer after its start
	// natsSync is how much a power failure may take back. Cursors are safe on the target; the rest is rebuilt.
	natsSync = 10 * time.Second
	mostURL  = 4 << 10
)

// NATS is a JetStream server in this process, on a directory of its own. It listens nowhere unless told so: a queue in the same
// process reaches it as lease.Options.InProcess.
type NATS struct {
	options *server.Options
	logger  *slog.Logger
	lock    *os.File
	shared  bool

	mu     sync.Mutex
	server *server.Server // nil while stopped; guarded by mu
}

// A NATSOption changes how StartNATS starts a server.
type NATSOption func(*NATS) error

// NATSListen makes the server reachable from outside, at host:port; port 0 picks one. See NATS.URL.
func NATSListen(address string) NATSOption {
	return func(n *NATS) error {
		addr, err := net.ResolveTCPAddr("tcp", address)
		if err != nil {
			return fmt.Errorf("listen on %q: %w", address, err)
		}
		n.options.DontListen, n.options.Host, n.options.Port = false, addr.IP.String(), addr.Port
		if addr.Port == 0 {
			n.options.Port = server.RANDOM_PORT
		}
		return nil
	}
}

// NATSShared lets other processes of the same user in, such as "kferry status" beside "kferry run": the server listens on a free port
// of the loopback, wants a token of its own, and says both in a file in its directory. See FindNATS.
func NATSShared() NATSOption {
	return func(n *NATS) error {
		n.options.Authorization = rand.Text()
		n.shared = true
		return NATSListen("127.0.0.1:0")(n)
	}
}

// FindNATS is the shared server that runs on a directory, with its token; one without a URL where none does. One that was killed is still
// named. A file that somebody else may have put there is an error: it would send whoever believes it anywhere.
func FindNATS(dir string) (spec.NATS, error) {
	name := filepath.Join(dir, urlName)
	file, err := os.OpenFile(name, os.O_RDONLY|noFollow, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return spec.NATS{}, nil
	}
	if err != nil {
		return spec.NATS{}, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err == nil && !own(info) {
		err = fmt.Errorf("%s belongs to another user, or anybody may write to it; remove it, or choose another directory", name)
	}
	if err != nil {
		return spec.NATS{}, err
	}
	text, err := io.ReadAll(io.LimitReader(file, mostURL))
	if err != nil {
		return spec.NATS{}, err
	}
	n, err := spec.ParseNATS(string(text))
	if err != nil {
		return spec.NATS{}, fmt.Errorf("%s: %w", name, err)
	}
	return n, nil
}

// NATSServer changes how the server is set up.
func NATSServer(change func(*server.Options)) NATSOption {
	return func(n *NATS) error {
		change(n.options)
		return nil
	}
}

// NATSLogger receives the server's warnings and errors.
func NATSLogger(logger *slog.Logger) NATSOption {
	return func(n *NATS) error {
		n.logger = logger
		return nil
	}
}

// StartNATS starts a server that keeps its streams in dir. A second process on the same directory is refused.
//
// In a synctest bubble, call ats.Register in TestMain: the server's access clock is shared by the whole process, and must not be
// born inside the bubble.
func StartNATS(dir string, opts ...NATSOption) (*NATS, error) {
	n := &NATS{
		logger: slog.New(slog.DiscardHandler),
		options: &server.Options{
			ServerName: "kferry", JetStream: true, StoreDir: dir, SyncInterval: natsSync,
			DontListen: true, NoSigs: true,
		},
	}
	for _, opt := range opts {
		if err := opt(n); err != nil {
			return nil, fmt.Errorf("start NATS: %w", err)
		}
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("start NATS in %s: %w", dir, err)
	}
	n.lock = lock
	if err := errors.Join(n.Start(), n.announce()); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

// announce says where a shared server is, in a file that nobody else can read, at no moment: one that is there is replaced and not
// written to, whatever it is.
func (n *NATS) announce() error {
	if !n.shared {
		return nil
	}
	file, err := os.CreateTemp(n.options.StoreDir, urlName+".*") // new, and with 0600
	if err != nil {
		return fmt.Errorf("start NATS: %w", err)
	}
	_, err = file.WriteString(n.URL())
	err = errors.Join(err, file.Close())
	if err == nil {
		err = os.Rename(file.Name(), filepath.Join(n.options.StoreDir, urlName))
	}
	if err != nil {
		_ = os.Remove(file.Name())
		return fmt.Errorf("start NATS: %w", err)
	}
	return nil
}

// Start starts the server again after Stop. What it had stored is there again, unless Wipe came between.
func (n *NATS) Start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.server != nil {
		return nil
	}
	s, err := server.NewServer(n.options.Clone())
	if err != nil {
		return fmt.Errorf("start NATS in %s: %w", n.options.StoreDir, err)
	}
	s.SetLoggerV2(natsLog{n.logger}, false, false, false)
	s.Start()
	if !s.ReadyForConnections(natsStart) {
		s.Shutdown()
		s.WaitForShutdown()
		return fmt.Errorf("start NATS in %s: not ready after %s", n.options.StoreDir, natsStart)
	}
	if addr, ok := s.Addr().(*net.TCPAddr); ok {
		n.options.Port = addr.Port // so that a restart is found where the first start was
	}
	n.server = s
	return nil
}

// Stop ends the server and keeps its files; clients reconnect after the next Start.
func (n *NATS) Stop() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.server == nil {
		return
	}
	n.server.Shutdown()
	n.server.WaitForShutdown()
	n.server = nil
}

// Wipe restarts the server on an empty store, as after the loss of its volume.
func (n *NATS) Wipe() error {
	n.Stop()
	if err := os.RemoveAll(filepath.Join(n.options.StoreDir, server.JetStreamStoreDir)); err != nil {
		return fmt.Errorf("wipe NATS: %w", err)
	}
	return n.Start()
}

// Close ends the server and lets another process have its directory.
func (n *NATS) Close() {
	n.Stop()
	if n.shared {
		_ = os.Remove(filepath.Join(n.options.StoreDir, urlName)) // or it names a server that doesn't answer
	}
	n.lock.Close()
}

// InProcessConn connects to the server without a socket; nats.go calls it, see lease.Options.InProcess.
func (n *NATS) InProcessConn() (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.server == nil {
		return nil, errors.New("the in-process NATS server is stopped")
	}
	return n.server.InProcessConn()
}

// URL is where the server listens, and with which token; "" where it doesn't.
func (n *NATS) URL() string {
	if n.options.DontListen {
		return ""
	}
	host := net.JoinHostPort(n.options.Host, strconv.Itoa(n.options.Port))
	u := url.URL{Scheme: "nats", Host: host}
	if token := n.options.Authorization; token != "" {
		u.User = url.User(token)
	}
	return u.String()
}

// Address is URL taken apart.
func (n *NATS) Address() spec.NATS {
	if n.options.DontListen {
		return spec.NATS{}
	}
	address, err := spec.ParseNATS(n.URL())
	if err != nil {
		panic(fmt.Sprintf("local: the server is nowhere: %v", err))
	}
	return address
}

// lockDir creates a directory and takes it for this process: two servers on one store would destroy it, and the queue of
// "kferry run" is purged at start because nobody else can hold a lease.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR|noFollow, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lockFile(lock); err != nil {
		lock.Close()
		return nil, fmt.Errorf("another process uses this directory (stop it, or choose another one): %w", err)
	}
	return lock, nil
}

// natsLog passes on the server's warnings and errors, and none of its chatter.
type natsLog struct{ logger *slog.Logger }

func (l natsLog) Noticef(string, ...any) {}
func (l natsLog) Debugf(string, ...any)  {}
func (l natsLog) Tracef(string, ...any)  {}
func (l natsLog) Warnf(format string, args ...any) {
	l.logger.Warn("nats: " + fmt.Sprintf(format, args...))
}
func (l natsLog) Errorf(format string, args ...any) {
	l.logger.Error("nats: " + fmt.Sprintf(format, args...))
}
func (l natsLog) Fatalf(format string, args ...any) {
	l.logger.Error("nats: " + fmt.Sprintf(format, args...))
}

// Monitor answers as the server's monitoring endpoint /jsz does, which needs no port for it.
func (n *NATS) Monitor(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	s := n.server
	n.mu.Unlock()
	if s == nil {
		http.Error(w, "stopped", http.StatusServiceUnavailable)
		return
	}
	s.HandleJsz(w, r)
}
