package local_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"testing/synctest"

	"github.com/nats-io/nats-server/v2/server/ats"
	"github.com/nats-io/nats.go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/shared/local"
)

// ats.Register starts the server's access clock outside every bubble; one that is born inside would stop virtual time.
func TestMain(m *testing.M) {
	ats.Register()
	os.Exit(m.Run())
}

const (
	a, b  = "a", "b"
	topic = "orders"
)

func start(t *testing.T, virtual bool, dir string) *local.Env {
	t.Helper()
	topics := map[string]int32{topic: 3}
	env, err := local.Start(local.Setup{
		Clusters: []local.Cluster{{Alias: a, Topics: topics, Version: "3.3"}, {Alias: b, Topics: topics, Brokers: 2}},
		Virtual:  virtual,
		Dir:      dir,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(env.Close)
	return env
}

func write(t *testing.T, env *local.Env, alias string, n int) {
	t.Helper()
	w, err := env.Writer(alias, topic)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Write(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if w.Written() != int64(n) {
		t.Errorf("%d of %d records are counted as written", w.Written(), n)
	}
}

// replay writes what a consumer of a reads to b, as edit wants it, in the order of a.
func replay(t *testing.T, env *local.Env, n int, edit func([]*kgo.Record) []*kgo.Record) {
	t.Helper()
	from, err := env.Client(a, kgo.ConsumeTopics(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := env.Client(b, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	var records []*kgo.Record
	for len(records) < n {
		fetches := from.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		records = append(records, fetches.Records()...)
	}
	for _, r := range edit(records) {
		copied := &kgo.Record{Topic: topic, Partition: r.Partition, Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp}
		if err := to.ProduceSync(t.Context(), copied).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

func compare(t *testing.T, env *local.Env) local.Comparison {
	t.Helper()
	c, err := local.Compare(t.Context(), env.Side(a, topic), env.Side(b, topic))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCompareOnTheLoopback(t *testing.T) {
	env := start(t, false, "")
	write(t, env, a, 100)
	replay(t, env, 100, func(all []*kgo.Record) []*kgo.Record { return all })
	if c := compare(t, env); !c.Exact() || c.Records != 100 {
		t.Errorf("an exact copy of 100 records is judged as %s", c)
	}
}

func TestCompareFindsEveryDifference(t *testing.T) {
	const n = 60
	tests := map[string]struct {
		edit func([]*kgo.Record) []*kgo.Record
		want local.Comparison
	}{
		"exact":   {func(r []*kgo.Record) []*kgo.Record { return r }, local.Comparison{}},
		"lost":    {func(r []*kgo.Record) []*kgo.Record { return append(r[:7:7], r[8:]...) }, local.Comparison{Lost: 1}},
		"doubled": {func(r []*kgo.Record) []*kgo.Record { return append(r, r[n-1]) }, local.Comparison{Doubled: 1}},
		"late":    {func(r []*kgo.Record) []*kgo.Record { return append(r[1:n:n], r[0]) }, local.Comparison{Reordered: 1}},
		"changed": {func(r []*kgo.Record) []*kgo.Record { r[3].Value = nil; return r }, local.Comparison{Lost: 1, Foreign: 1}},
		"moved": {func(r []*kgo.Record) []*kgo.Record { r[3].Partition = (r[3].Partition + 1) % 3; return r },
			local.Comparison{Lost: 1, Foreign: 1}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				env := start(t, true, "")
				write(t, env, a, n)
				replay(t, env, n, test.edit)
				got := compare(t, env)
				if got.Exact() != (name == "exact") || (got.First == "") != got.Exact() {
					t.Errorf("%s: exact is %t", got, got.Exact())
				}
				got.First, test.want.Records = "", n
				if got != test.want {
					t.Errorf("got %s, want %s", got, test.want)
				}
			})
		})
	}
}

// A partition that ends in a transaction's marker has no last record to wait for.
func TestCompareReadsPastMarkersAndAbortedRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := start(t, true, "")
		for _, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
			w, err := env.Client(a, kgo.TransactionalID("shop"), kgo.DefaultProduceTopic(topic))
			if err != nil {
				t.Fatal(err)
			}
			if err := w.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			if err := w.ProduceSync(t.Context(), kgo.StringRecord("x")).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if err := w.EndTransaction(t.Context(), end); err != nil {
				t.Fatal(err)
			}
			w.Close()
		}
		if c := compare(t, env); c.Records != 1 || c.Lost != 1 {
			t.Errorf("one committed and one aborted record, no copy: judged as %s", c)
		}
	})
}

func TestCutEndsEveryConnectionOfOneLineAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := start(t, true, t.TempDir())
		dead, alive := env.Line(), env.Line()
		queue, err := nats.Connect("", nats.InProcessServer(dead), nats.NoReconnect())
		if err != nil {
			t.Fatal(err)
		}
		defer queue.Close()
		client, err := env.Client(a, kgo.Dialer(dead.Dial))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if err := client.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		dead.Cut()
		synctest.Wait()
		if !queue.IsClosed() {
			t.Error("the connection to NATS outlives the cut")
		}
		if _, err := dead.Dial(t.Context(), "tcp", env.Spec(a).BootstrapServers[0]); !errors.Is(err, local.ErrCut) {
			t.Errorf("dialling after the cut answers %v", err)
		}
		conn, err := alive.Dial(t.Context(), "tcp", env.Spec(a).BootstrapServers[0])
		if err != nil {
			t.Fatalf("another process's line is cut too: %v", err)
		}
		conn.Close()
	})
}

func TestFaultsReachClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := start(t, true, "")
		env.Kafka(b).Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Err: kerr.TopicAuthorizationFailed})
		client, err := env.Client(b)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		request := kmsg.NewPtrCreateTopicsRequest()
		request.Topics = []kmsg.CreateTopicsRequestTopic{{Topic: "new", NumPartitions: 1, ReplicationFactor: 1}}
		answer, err := request.RequestWith(t.Context(), client)
		if err != nil {
			t.Fatal(err)
		}
		if err := kerr.ErrorForCode(answer.Topics[0].ErrorCode); !errors.Is(err, kerr.TopicAuthorizationFailed) {
			t.Errorf("the faulty cluster answers %v", err)
		}
	})
}

func TestStreamEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := start(t, true, "")
		w, err := env.Writer(a, topic)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		ctx, stop := context.WithTimeout(t.Context(), 10_500*1e6)
		defer stop()
		if err := w.Stream(ctx, 200); err != nil {
			t.Fatal(err)
		}
		if n := w.Written(); n < 1900 || n > 2200 {
			t.Errorf("10.5 s at 200 a second wrote %d records", n)
		}
	})
}

func TestUnknownVersion(t *testing.T) {
	if _, err := local.Start(local.Setup{Clusters: []local.Cluster{{Alias: a}, {Alias: b, Version: "old"}}}); err == nil {
		t.Error("a version that nobody knows is taken")
	}
}
