package cli_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/functions"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/local"
	"github.com/kferry/kferry/shared/spec"
)

// A pushed is a service: push workers behind one URL, of which there are none until somebody calls, and none again when nobody has for a while, as
// Knative has it. Of the calls some are lost, and some come twice.
type pushed struct {
	b      *bubble
	s      spec.Spec
	calls  atomic.Int64
	starts atomic.Int64

	mu      sync.Mutex // guards what follows
	push    *functions.Push
	process process
	under   int
}

const retention = 5 * time.Second

// RoundTrip implements http.RoundTripper.
func (p *pushed) RoundTrip(r *http.Request) (*http.Response, error) {
	n := p.calls.Add(1)
	if n%5 == 0 {
		return nil, context.DeadlineExceeded
	}
	if n%4 == 0 {
		double := r.Clone(context.WithoutCancel(r.Context()))
		p.b.running.Go(func() error {
			p.handle(double)
			return nil
		})
	}
	return p.handle(r), nil
}

func (p *pushed) handle(r *http.Request) *http.Response {
	p.mu.Lock()
	if p.push == nil {
		p.starts.Add(1)
		p.process = p.b.begin(p.s, func(s spec.Spec, q *lease.Queue, clusters map[string]*kafka.Cluster) func(context.Context) error {
			p.push = functions.NewPush(functions.NewWorker(functions.Options{
				Spec: s, Queue: q, Clusters: clusters, Slots: s.Settings.Slots, Logger: slog.New(slog.DiscardHandler),
			}))
			return p.push.Run
		})
	}
	p.under++
	push := p.push
	p.mu.Unlock()
	w := httptest.NewRecorder()
	r.Body = http.NoBody
	push.ServeHTTP(w, r)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.under--; p.under == 0 {
		stop, current := p.process.stop, p.push
		time.AfterFunc(retention, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.under == 0 && p.push == current {
				p.push = nil
				stop()
			}
		})
	}
	return w.Result()
}

// Traffic comes in bursts; between them there is no worker at all, and in them calls are lost and doubled.
func TestPushWorkersFromZeroAndBack(t *testing.T) {
	for name, slots := range map[string]int{"one call at a time": 1, "ten": 10} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, []string{"A", "B"}, func(b *bubble) {
				const partitions = 10
				for alias, topic := range map[string]string{"A": "orders", "B": "A.orders"} {
					b.must(b.Kafka(alias).CreateTopic(topic, partitions, nil))
				}
				s := spec.Spec{Name: "kferry", Clusters: []spec.Cluster{b.Spec("A"), b.Spec("B")}, Flows: []spec.Flow{b.flow("A", "B")}}
				s.Settings.Slots = slots
				s.Settings.WakeUps = spec.WakeUps{URL: "http://worker.example.com", Most: 12}
				s.Settings.Front.RunTime = 10 * time.Second
				service := &pushed{b: b, s: s}
				for range 2 {
					b.begin(s, func(s spec.Spec, q *lease.Queue, clusters map[string]*kafka.Cluster) func(context.Context) error {
						return coordinator.New(coordinator.Options{Spec: s, Queue: q, Clusters: clusters, WakeUps: service}).Run
					})
					time.Sleep(330 * time.Millisecond)
				}
				writer, err := b.Writer("A", "orders")
				b.must(err)
				defer writer.Close()
				for burst := range 3 {
					b.must(writer.Write(b.ctx, 1000))
					deadline := time.Now().Add(2 * time.Minute)
					for {
						time.Sleep(time.Second)
						c, err := local.Compare(b.ctx, b.Side("A", "orders"), b.Side("B", "A.orders"))
						b.must(err)
						if c.Exact() {
							break
						}
						if time.Now().After(deadline) {
							b.Fatalf("burst %d: %s, after %d calls", burst, c, service.calls.Load())
						}
					}
					time.Sleep(time.Minute)
					service.mu.Lock()
					up := service.push != nil
					service.mu.Unlock()
					if up {
						b.Errorf("burst %d: a worker is still up", burst)
					}
				}
				if starts, calls := service.starts.Load(), service.calls.Load(); starts < 3 || calls > 300 {
					b.Errorf("%d starts, %d calls", starts, calls)
				}
			})
		})
	}
}
