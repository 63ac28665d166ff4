package kafka_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/spec"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestClusterDescribesItself(t *testing.T) {
	inBubble(t, setup{brokers: 3, fake: []kfake.Opt{kfake.ClusterID("north")}}, func(w *world) {
		w.must(w.cluster.Ping(w.ctx))
		id, err := w.cluster.ID(w.ctx)
		w.must(err)
		brokers, err := w.cluster.Brokers(w.ctx)
		w.must(err)
		if id != "north" || brokers != 3 || w.cluster.Alias() != "a" {
			w.Errorf("cluster %q, %d brokers, alias %q", id, brokers, w.cluster.Alias())
		}
	})
}

func TestUnreachableClusterSaysWhyInTime(t *testing.T) {
	refused := func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no route") }
	silent := func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, errors.New("i/o timeout")
	}
	for cause, dial := range map[string]func(context.Context, string, string) (net.Conn, error){"no route": refused, "i/o timeout": silent} {
		t.Run(cause, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, err := kafka.Open(spec.Cluster{Alias: "north", BootstrapServers: []string{"one:9092", "two:9092"}}, kafka.Options{Dialer: dial})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				tp := kafka.TopicPartition{Topic: "t"}
				for name, call := range map[string]func() error{
					"ping":    func() error { return c.Ping(t.Context()) },
					"log end": func() error { _, err := c.LogEnd(t.Context(), tp); return err },
					"fetch": func() error {
						_, err := c.Fetch(t.Context(), kafka.Want{TopicPartition: tp, LeaderEpoch: -1})
						return err
					},
					"produce": func() error {
						_, err := c.Produce(t.Context(), tp, kafka.TopicID{}, newBatch(1, 1))
						return err
					},
				} {
					start := time.Now()
					err := call()
					if !errors.Is(err, kafka.ErrUnanswered) || !kafka.Retriable(err) {
						t.Errorf("%s: %v", name, err)
						continue
					}
					if took := time.Since(start); took > 11*time.Second {
						t.Errorf("%s took %v", name, took)
					}
					for _, words := range []string{"cluster north", "one:9092,two:9092", cause} {
						if !strings.Contains(err.Error(), words) {
							t.Errorf("%s: %q is not in %q", name, words, err)
						}
					}
				}
			})
		})
	}
}

func TestCloseEndsWhatIsUnderWay(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		topic := w.create("t", 2)
		tp := kafka.TopicPartition{Topic: "t"}
		reached, goOn := w.holdsUp(kmsg.Produce)
		defer goOn()
		var callers sync.WaitGroup
		callers.Go(func() {
			_, err := w.cluster.Produce(w.ctx, tp, topic.ID, newBatch(1, 10))
			if !errors.Is(err, kafka.ErrClosed) {
				w.Errorf("produce: %v", err)
			}
		})
		<-reached
		callers.Go(func() {
			for { // an empty answer may come first
				if _, err := w.fetch(tp, 0); err != nil {
					if !errors.Is(err, kafka.ErrClosed) {
						w.Errorf("fetch: %v", err)
					}
					return
				}
			}
		})
		synctest.Wait()
		w.cluster.Close()
		callers.Wait()
		_, err := w.cluster.LogEnd(w.ctx, tp)
		w.wants(err, kafka.ErrClosed)
	})
}

func TestManyTopicsShareAMetadataRequest(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		const topics = 50
		names := make([]string, topics)
		for i := range names {
			names[i] = strings.Repeat("t", i+1)
			w.must(w.fake.CreateTopic(names[i], 1, nil))
		}
		w.must(w.cluster.Ping(w.ctx))
		requests := w.counts(kmsg.Metadata, nil)
		reached, goOn := w.holdsUp(kmsg.Metadata)
		var callers sync.WaitGroup
		for _, name := range names {
			callers.Go(func() {
				if _, err := w.cluster.LogEnd(w.ctx, kafka.TopicPartition{Topic: name}); err != nil {
					w.Error(err)
				}
			})
		}
		<-reached
		synctest.Wait()
		goOn()
		callers.Wait()
		if n := requests.Load(); n > 2 {
			w.Errorf("%d metadata requests", n)
		}
	})
}

// A frozen broker was once asked for metadata for ten seconds, and everybody who missed something waited.
func TestFrozenBrokerIsNotTheOnlyOneAskedForMetadata(t *testing.T) {
	inBubble(t, setup{brokers: 3}, func(w *world) {
		w.create("t", 1)
		release := make(chan struct{})
		defer close(release)
		requests := 0
		w.fake.ControlKey(int16(kmsg.Metadata), func(kmsg.Request) (kmsg.Response, error, bool) {
			w.fake.KeepControl()
			if requests++; requests == 1 {
				w.fake.SleepControl(func() { <-release })
			}
			return nil, nil, false
		})
		asked := time.Now()
		_, err := w.cluster.Topic(w.ctx, "t")
		w.must(err)
		if took := time.Since(asked); took < time.Second || took > 4*time.Second {
			w.Errorf("took %v", took)
		}
	})
}
