package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kferry/kferry/shared/batch"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/spec"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A world is a fake cluster and its client on a network of their own.
type world struct {
	*testing.T
	ctx     context.Context
	fake    *kfake.Cluster
	cluster *kafka.Cluster
	network *kfake.VirtualNetwork
	dialled atomic.Int64 // connections
}

type setup struct {
	brokers int // default 1
	budget  *kafka.Budget
	fake    []kfake.Opt
}

// inBubble runs a test in virtual time, where a goroutine that outlives it is an error.
func inBubble(t *testing.T, s setup, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ports := make([]int, max(s.brokers, 1))
		for i := range ports {
			ports[i] = 9092 + i
		}
		network := new(kfake.VirtualNetwork)
		opts := append([]kfake.Opt{kfake.NumBrokers(len(ports)), kfake.Ports(ports...), kfake.ListenFn(network.Listen)}, s.fake...)
		fake, err := kfake.NewCluster(opts...)
		if err != nil {
			t.Fatal(err)
		}
		defer fake.Close()
		cluster, err := kafka.Open(
			spec.Cluster{Alias: "a", BootstrapServers: []string{"localhost:9092"}},
			kafka.Options{Budget: s.budget, Dialer: network.DialContext},
		)
		if err != nil {
			t.Fatal(err)
		}
		w := &world{T: t, ctx: t.Context(), fake: fake, cluster: cluster, network: network}
		defer func() { w.cluster.Close() }()
		test(w)
	})
}

// dial counts.
func (w *world) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.dialled.Add(1)
	return w.network.DialContext(ctx, network, address)
}

// must fails the test at an error.
func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// wants fails the test at any other error than the wanted one.
func (w *world) wants(err, want error) {
	w.Helper()
	if !errors.Is(err, want) {
		w.Fatalf("error is %v, want %v", err, want)
	}
}

func (w *world) create(topic string, partitions int32) kafka.Topic {
	w.Helper()
	w.must(w.cluster.CreateTopic(w.ctx, kafka.NewTopic{Name: topic, Partitions: partitions, ReplicationFactor: -1}))
	t, err := w.cluster.Topic(w.ctx, topic)
	w.must(err)
	return t
}

// write appends n records of some size to one partition.
func (w *world) write(tp kafka.TopicPartition, n, size int) {
	w.Helper()
	records := make([]kafka.Record, n)
	for i := range records {
		records[i] = kafka.Record{Partition: tp.Partition, Key: fmt.Append(nil, i), Value: make([]byte, size)}
	}
	w.must(w.cluster.Write(w.ctx, tp.Topic, records))
}

// fetch is one Fetch from an offset on.
func (w *world) fetch(tp kafka.TopicPartition, offset int64) (*kafka.Fetched, error) {
	return w.cluster.Fetch(w.ctx, kafka.Want{TopicPartition: tp, Offset: offset, LeaderEpoch: -1})
}

// counts requests of a kind, and looks at each.
func (w *world) counts(key kmsg.Key, look func(kmsg.Request)) *atomic.Int64 {
	var n atomic.Int64
	w.fake.ControlKey(int16(key), func(req kmsg.Request) (kmsg.Response, error, bool) {
		n.Add(1)
		if look != nil {
			look(req)
		}
		return nil, nil, false
	})
	return &n
}

// holdsUp makes the fake cluster wait before it answers the next request of a kind, until the returned function is called.
func (w *world) holdsUp(key kmsg.Key) (reached <-chan struct{}, goOn func()) {
	held, release := make(chan struct{}), make(chan struct{})
	w.fake.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
		w.fake.DropControl()
		w.fake.SleepControl(func() {
			close(held)
			<-release
		})
		return nil, nil, false
	})
	return held, sync.OnceFunc(func() { close(release) })
}

// cuts makes the fake cluster close the connection over the next request of a kind.
func (w *world) cuts(key kmsg.Key) {
	w.fake.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
		return nil, errors.New("cut"), true
	})
}

// newBatch is a batch of n records, by whichever means the cluster under test has none.
func newBatch(n, size int) batch.Batch {
	b := kmsg.NewRecordBatch()
	for i := range n {
		r := kmsg.NewRecord()
		r.OffsetDelta = int32(i)
		r.Key = fmt.Append(nil, i)
		r.Value = make([]byte, size)
		body := r.AppendTo(nil)[1:]
		if r.Length = int32(len(body)); r.Length > 63 {
			body = r.AppendTo(nil)[2:]
			r.Length = int32(len(body))
		}
		b.Records = r.AppendTo(b.Records)
	}
	b.Magic = 2
	b.NumRecords, b.LastOffsetDelta = int32(n), int32(n-1)
	now := time.Now().UnixMilli()
	b.FirstTimestamp, b.MaxTimestamp = now, now
	b.Length = int32(len(b.AppendTo(nil)) - 12)
	whole := batch.Batch(b.AppendTo(nil))
	whole.Patch(batch.Identity{ProducerID: -1, Epoch: -1}, -1)
	return whole
}
