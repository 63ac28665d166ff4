package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Bounds of the HTTP server: whoever talks slower than this is no monitoring system.
const (
	httpHeader   = 5 * time.Second
	httpRead     = 10 * time.Second
	httpWrite    = 30 * time.Second
	httpIdle     = 2 * time.Minute
	httpMaxBytes = 16 << 10 // of a request's header
	httpGoodbye  = time.Second
)

// newRegistry holds what every process tells of itself.
func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo())
	return r
}

// listen takes the address before anything else starts, so that a second process on it fails at once. No address is no listener.
func listen(address string) (net.Listener, error) {
	if address == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is in use; give another address for metrics and health with --http host:port, or turn them off with --http off", address)
	}
	if err != nil {
		return nil, fmt.Errorf("serve metrics and health: %w", err)
	}
	return l, nil
}

// serveHTTP answers /healthz, /readyz and /metrics until ctx ends.
func serveHTTP(ctx context.Context, l net.Listener, metrics *prometheus.Registry, ready func() bool, log *slog.Logger) error {
	if l == nil {
		return nil
	}
	server := &http.Server{
		Handler:           handler(metrics, ready),
		ReadHeaderTimeout: httpHeader, ReadTimeout: httpRead, WriteTimeout: httpWrite, IdleTimeout: httpIdle, MaxHeaderBytes: httpMaxBytes,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		goodbye, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpGoodbye)
		defer cancel()
		server.Shutdown(goodbye) // whoever is still reading after that is cut off with the process
	})
	log.Info("metrics and health", "address", "http://"+l.Addr().String())
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		stop()
		return fmt.Errorf("serve metrics and health: %w", err)
	}
	<-stopped
	return nil
}

func handler(metrics *prometheus.Registry, ready func() bool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !ready() {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{Registry: metrics}))
	return mux
}
