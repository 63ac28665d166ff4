package testbed

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/time/rate"
)

// Traffic is records that keep coming while something else happens. Its producer outlives the faults of its cluster.
type Traffic struct {
	t      T
	cancel context.CancelFunc
	done   chan struct{}
	next   int   // number of the next record; valid when done
	err    error // likewise
	sent   atomic.Int64
}

// Live produces the records of a load, so many a second, until [Traffic.Stop] or until there are no more; 0 Records is no
// end. It can't be told to use transactions.
func Live(t T, c *Cluster, topic string, load Load, perSecond int) *Traffic {
	t.Helper()
	load = load.withDefaults()
	partitions := int32(len(c.Ends(topic)))
	client := c.Client(load.clientOpts(topic)...)
	ctx, cancel := context.WithCancel(t.Context())
	r := &Traffic{t: t, cancel: cancel, done: make(chan struct{}), next: load.First}
	go func() {
		defer close(r.done)
		r.err = r.flow(ctx, client, load, partitions, rate.NewLimiter(rate.Limit(perSecond), max(1, perSecond/50)))
	}()
	t.Cleanup(func() { cancel(); <-r.done })
	return r
}

// Sent is how many records have been acknowledged.
func (r *Traffic) Sent() int { return int(r.sent.Load()) }

// Stop ends the traffic, waits until all of it is acknowledged, and returns the number of the next record.
func (r *Traffic) Stop() int {
	r.t.Helper()
	r.cancel()
	<-r.done
	if r.err != nil {
		r.t.Fatalf("traffic: %v", r.err)
	}
	return r.next
}

func (r *Traffic) flow(ctx context.Context, client *kgo.Client, load Load, partitions int32, pace *rate.Limiter) error {
	var failed atomic.Pointer[error]
	random := load.random()
	for load.Records == 0 || r.next < load.First+load.Records {
		if pace.Wait(ctx) != nil {
			break // stopped
		}
		// Not under ctx: what was begun is finished, or the records that follow would be refused.
		client.Produce(context.Background(), load.record(r.next, int32(r.next)%partitions, random), func(_ *kgo.Record, err error) {
			if err != nil {
				failed.CompareAndSwap(nil, &err)
				return
			}
			r.sent.Add(1)
		})
		r.next++
	}
	last, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := client.Flush(last); err != nil {
		return err
	}
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}
