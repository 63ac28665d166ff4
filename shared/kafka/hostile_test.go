package kafka_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/spec"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A liar stands between a client and a cluster, and changes the answers of one kind.
type liar struct {
	world *world

	mu  sync.Mutex // guards what follows
	key kmsg.Key
	lie func(frame []byte) []byte // of an answer, its length included; nil is the truth
}

// lies has every answer of a kind be another one from now on.
func (l *liar) lies(key kmsg.Key, lie func([]byte) []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.key, l.lie = key, lie
}

func (l *liar) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := l.world.network.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &lyingConn{Conn: conn, liar: l, kinds: map[uint32]kmsg.Key{}}, nil
}

type lyingConn struct {
	net.Conn
	liar *liar
	rest []byte

	mu    sync.Mutex // guards what follows
	kinds map[uint32]kmsg.Key
}

func (c *lyingConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.kinds[binary.BigEndian.Uint32(b[8:])] = kmsg.Key(binary.BigEndian.Uint16(b[4:]))
	c.mu.Unlock()
	return c.Conn.Write(b)
}

func (c *lyingConn) Read(b []byte) (int, error) {
	if len(c.rest) == 0 {
		frame := make([]byte, 4)
		if _, err := io.ReadFull(c.Conn, frame); err != nil {
			return 0, err
		}
		frame = append(frame, make([]byte, binary.BigEndian.Uint32(frame))...)
		if _, err := io.ReadFull(c.Conn, frame[4:]); err != nil {
			return 0, err
		}
		c.mu.Lock()
		kind := c.kinds[binary.BigEndian.Uint32(frame[4:])]
		c.mu.Unlock()
		c.liar.mu.Lock()
		if c.liar.lie != nil && kind == c.liar.key {
			frame = c.liar.lie(frame)
		}
		c.liar.mu.Unlock()
		c.rest = frame
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// sized sets a frame's length right.
func sized(frame []byte) []byte {
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
	return frame
}

// put overwrites part of a copy.
func put(frame []byte, at int, b ...byte) []byte {
	frame = append([]byte(nil), frame...)
	copy(frame[min(at, len(frame)):], b)
	return frame
}

// A question is one of all that a cluster is asked, and the kind of request that it takes.
type question struct {
	key kmsg.Key
	ask func(context.Context, *kafka.Cluster) error
}

var hostileTP = kafka.TopicPartition{Topic: "t"}

func questions(id kafka.TopicID) map[string]question {
	tps := []kafka.TopicPartition{hostileTP}
	fetch := func(ctx context.Context, c *kafka.Cluster) error {
		f, err := c.Fetch(ctx, kafka.Want{TopicPartition: hostileTP, LeaderEpoch: -1, LastEpoch: -1, Isolation: spec.ReadCommitted})
		f.Release()
		return err
	}
	err1 := func(_ any, err error) error { return err }
	return map[string]question{
		"versions": {kmsg.ApiVersions, func(ctx context.Context, c *kafka.Cluster) error { return c.Ping(ctx) }},
		"topics":   {kmsg.Metadata, func(ctx context.Context, c *kafka.Cluster) error { return err1(c.Topics(ctx)) }},
		"topic":    {kmsg.Metadata, func(ctx context.Context, c *kafka.Cluster) error { return err1(c.Topic(ctx, "t")) }},
		"id":       {kmsg.Metadata, func(ctx context.Context, c *kafka.Cluster) error { return err1(c.ID(ctx)) }},
		"offsets": {kmsg.ListOffsets, func(ctx context.Context, c *kafka.Cluster) error {
			all, err := c.ListOffsets(ctx, tps, kafka.Latest, spec.ReadCommitted)
			if err == nil {
				err = all[hostileTP].Err
			}
			return err
		}},
		"log end":   {kmsg.OffsetForLeaderEpoch, func(ctx context.Context, c *kafka.Cluster) error { return err1(c.LogEnd(ctx, hostileTP)) }},
		"epoch end": {kmsg.OffsetForLeaderEpoch, func(ctx context.Context, c *kafka.Cluster) error { return err1(c.EpochEnd(ctx, hostileTP, 0)) }},
		"fetch":     {kmsg.Fetch, fetch},
		"read": {kmsg.Fetch, func(ctx context.Context, c *kafka.Cluster) error {
			f, err := c.Read(ctx, hostileTP, 0, 1<<20, spec.ReadCommitted)
			f.Release()
			return err
		}},
		"read all": {kmsg.Fetch, func(ctx context.Context, c *kafka.Cluster) error {
			return c.ReadAll(ctx, "t", func(kafka.Record) error { return nil })
		}},
		"tail": {kmsg.Fetch, func(ctx context.Context, c *kafka.Cluster) error {
			return err1(c.NewTail("t", spec.ReadCommitted).Read(ctx, func() {}, func([]kafka.Record) {}))
		}},
		"written": {kmsg.Fetch, func(ctx context.Context, c *kafka.Cluster) error {
			return err1(c.Written(ctx, hostileTP, 0, spec.ReadUncommitted))
		}},
		"produce": {kmsg.Produce, func(ctx context.Context, c *kafka.Cluster) error {
			return err1(c.Produce(ctx, hostileTP, id, newBatch(1, 10)))
		}},
		"write": {kmsg.Produce, func(ctx context.Context, c *kafka.Cluster) error {
			return c.Write(ctx, "t", []kafka.Record{{Value: []byte("v")}})
		}},
		"configs":     {kmsg.DescribeConfigs, func(ctx context.Context, c *kafka.Cluster) error { return err1(c.Configs(ctx, []string{"t"})) }},
		"replication": {kmsg.DescribeConfigs, func(ctx context.Context, c *kafka.Cluster) error { return err1(c.DefaultReplication(ctx)) }},
		"alter": {kmsg.IncrementalAlterConfigs, func(ctx context.Context, c *kafka.Cluster) error {
			return c.AlterConfigs(ctx, kafka.ConfigChange{Topic: "t", Set: map[string]string{"retention.ms": "1000000"}})
		}},
		"create": {kmsg.CreateTopics, func(ctx context.Context, c *kafka.Cluster) error {
			return c.CreateTopic(ctx, kafka.NewTopic{Name: "u", Partitions: 1, ReplicationFactor: 1, ValidateOnly: true})
		}},
		"grow":      {kmsg.CreatePartitions, func(ctx context.Context, c *kafka.Cluster) error { return c.AddPartitions(ctx, "v", 2) }},
		"producers": {kmsg.DescribeProducers, func(ctx context.Context, c *kafka.Cluster) error { return err1(c.DescribeProducers(ctx, hostileTP)) }},
		"log bytes": {kmsg.DescribeLogDirs, func(ctx context.Context, c *kafka.Cluster) error { return err1(c.LogBytes(ctx, []string{"t"})) }},
		"acls":      {kmsg.DescribeACLs, func(ctx context.Context, c *kafka.Cluster) error { return err1(c.DescribeACLs(ctx, "")) }},
		"groups":    {kmsg.ListGroups, func(ctx context.Context, c *kafka.Cluster) error { return err1(c.Groups(ctx)) }},
		"states": {kmsg.DescribeGroups, func(ctx context.Context, c *kafka.Cluster) error {
			all, err := c.GroupStates(ctx, []string{"g"})
			if err == nil {
				err = all["g"].Err
			}
			return err
		}},
		"positions": {kmsg.OffsetFetch, func(ctx context.Context, c *kafka.Cluster) error {
			all, err := c.GroupOffsets(ctx, []string{"g"})
			if err == nil {
				err = all["g"].Err
			}
			return err
		}},
		"coordinator": {kmsg.FindCoordinator, func(ctx context.Context, c *kafka.Cluster) error { return err1(c.Members(ctx, "g")) }},
		"commit": {kmsg.OffsetCommit, func(ctx context.Context, c *kafka.Cluster) error {
			return err1(c.CommitGroupOffsets(ctx, "g", map[kafka.TopicPartition]kafka.Commit{hostileTP: {Offset: 1}}))
		}},
		"transactions": {kmsg.ListTransactions, func(ctx context.Context, c *kafka.Cluster) error { return err1(c.TransactionalIDs(ctx, "x")) }},
		"producer id":  {kmsg.InitProducerID, func(ctx context.Context, c *kafka.Cluster) error { return err1(c.IssueProducerID(ctx)) }},
	}
}

// Every call comes back from every lie, in time, without a panic, and without more memory than what was sent explains.
func TestEveryCallComesBackFromEveryLie(t *testing.T) {
	const (
		soon   = 90 * time.Second // of the bubble's time: patience, and a request that ends just within it
		memory = 64 << 20
		places = 16
	)
	whole := map[string]func(frame []byte) []byte{
		"nothing":        func(f []byte) []byte { return sized(f[:8]) },
		"half":           func(f []byte) []byte { return sized(f[:8+(len(f)-8)/2]) },
		"no length":      func(f []byte) []byte { return put(f, 0, 0, 0, 0, 0) },
		"short length":   func(f []byte) []byte { return put(f, 0, 0, 0, 0, 3) },
		"largest length": func(f []byte) []byte { return put(f, 0, 0x7f, 0xff, 0xff, 0xff) },
		"large length":   func(f []byte) []byte { return put(f, 0, 0x06, 0, 0, 0) },
		"negative":       func(f []byte) []byte { return put(f, 0, 0x80, 0, 0, 0) },
		"a web page":     func([]byte) []byte { return []byte("HTTP/1.1 400 Bad Request\r\n\r\n") },
		"other number":   func(f []byte) []byte { return put(f, 4, 0x7f, 1, 2, 3) },
		"zeros":          func(f []byte) []byte { return put(f, 8, make([]byte, len(f)-8)...) },
	}
	counts := map[string][]byte{
		"count":   {0x7f, 0xff, 0xff, 0xff},
		"varint":  {0xff, 0xff, 0xff, 0xff, 0x0f},
		"varint-": {0xff, 0xff, 0xff, 0xff, 0x07},
		"lowest":  {0x80, 0, 0, 0, 0, 0, 0, 0},
		"highest": {0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	}
	random := rand.New(rand.NewPCG(5, 6))
	for name := range questions(kafka.TopicID{}) {
		t.Run(name, func(t *testing.T) {
			budget := kafka.NewBudget(8 << 20)
			inBubble(t, setup{budget: budget}, func(w *world) {
				l := &liar{world: w}
				w.create("v", 1)
				topic := w.create("t", 1)
				w.write(hostileTP, 3, 10)
				q := questions(topic.ID)[name]
				cluster, err := kafka.Open(spec.Cluster{Alias: "a", BootstrapServers: []string{"localhost:9092"}}, kafka.Options{Budget: budget, Dialer: l.dial})
				w.must(err)
				defer func() { cluster.Close() }()
				length, asked := 0, 0
				l.lies(q.key, func(f []byte) []byte { length, asked = len(f), asked+1; return f })
				truth := q.ask(w.ctx, cluster)
				if asked == 0 {
					t.Fatalf("it makes no such request: %v", truth)
				}

				try := func(lie string, tell func([]byte) []byte, wantError bool) {
					t.Helper()
					cluster.Close()
					l.lies(q.key, nil)
					cluster, err = kafka.Open(spec.Cluster{Alias: "a", BootstrapServers: []string{"localhost:9092"}}, kafka.Options{Budget: budget, Dialer: l.dial})
					w.must(err)
					if q.key != kmsg.ApiVersions && q.key != kmsg.Metadata {
						_, _ = cluster.PartitionCount(w.ctx, "t")
					}
					l.lies(q.key, tell)
					start := time.Now()
					var told error
					_, bytes := measured(func() { told = q.ask(w.ctx, cluster) })
					if took := time.Since(start); took > soon || bytes > memory {
						t.Errorf("%s: took %v and %d MiB: %v", lie, took, bytes>>20, told)
					}
					if wantError && told == nil {
						t.Errorf("%s passes", lie)
					}
					if n := budget.InFlight(); n != 0 {
						t.Fatalf("%s: %d bytes are still in flight: %v", lie, n, told)
					}
				}
				for lie, tell := range whole {
					try(lie, tell, lie != "zeros")
				}
				for lie, count := range counts {
					for at := 8; at < length; at += max(1, (length-8)/places) {
						try(fmt.Sprintf("%s at %d", lie, at), func(f []byte) []byte { return put(f, at, count...) }, false)
					}
				}
				for range places {
					try("noise", func(f []byte) []byte {
						f = put(f, 0)
						for i := 8; i < len(f); i++ {
							if random.IntN(4) == 0 {
								f[i] = byte(random.Uint32())
							}
						}
						return f
					}, false)
				}
			})
		})
	}
}

// lying is a cluster whose answers of one kind are lies.
func (w *world) lying(budget *kafka.Budget, key kmsg.Key, lie func([]byte) []byte) *kafka.Cluster {
	w.Helper()
	l := &liar{world: w}
	l.lies(key, lie)
	cluster, err := kafka.Open(spec.Cluster{Alias: "a", BootstrapServers: []string{"localhost:9092"}}, kafka.Options{Budget: budget, Dialer: l.dial})
	w.must(err)
	return cluster
}

// A count of tags that are not there once cost a core four thousand million rounds.
func TestTagsThatAreNotThere(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		cluster := w.lying(nil, kmsg.Metadata, func(f []byte) []byte {
			return sized(append(f[:len(f)-1:len(f)-1], 0xff, 0xff, 0xff, 0xff, 0x0f))
		})
		defer cluster.Close()
		told := cluster.Ping(w.ctx)
		w.wants(told, kafka.ErrUnanswered)
		if !strings.Contains(told.Error(), "malformed") || !strings.Contains(told.Error(), "Metadata, version ") {
			w.Errorf("error is %v", told)
		}
	})
}

// Elements that are not there, of a size that franz-go made room for at a hundred times as much.
func TestElementsThatAreNotThere(t *testing.T) {
	const size = 8 << 20
	inBubble(t, setup{}, func(w *world) {
		w.create("t", 1)
		cluster := w.lying(nil, kmsg.Metadata, func(f []byte) []byte {
			lie := append(f[:9:9], 0, 0, 0, 0) // header, and no time to wait
			lie = binary.AppendUvarint(lie, size)
			return sized(append(lie, make([]byte, size)...))
		})
		defer cluster.Close()
		var told error
		_, bytes := measured(func() { _, told = cluster.Topics(w.ctx) })
		w.wants(told, kafka.ErrUnanswered)
		if bytes > 12*size { // an answer, by two askers, and what the liar needs itself
			w.Errorf("%d MiB for an answer of %d: %v", bytes>>20, size>>20, told)
		}
	})
}

// What was fetched of partitions that nobody had asked for, or came with an error, was never given back to the budget.
func TestRecordsThatNobodyAskedForAreGivenBack(t *testing.T) {
	for name, lie := range map[string]func(*kmsg.FetchResponse){
		"another partition": func(resp *kmsg.FetchResponse) {
			other := resp.Topics[0].Partitions[0]
			other.Partition = 7
			resp.Topics[0].Partitions = append(resp.Topics[0].Partitions, other)
		},
		"another topic": func(resp *kmsg.FetchResponse) {
			other := resp.Topics[0]
			other.TopicID = [16]byte{1}
			resp.Topics = append(resp.Topics, other)
		},
		"twice":    func(resp *kmsg.FetchResponse) { resp.Topics = append(resp.Topics, resp.Topics[0]) },
		"an error": func(resp *kmsg.FetchResponse) { resp.Topics[0].Partitions[0].ErrorCode = 1 },
		"unknown":  func(resp *kmsg.FetchResponse) { resp.Topics[0].Partitions[0].ErrorCode = 31000 },
		"diverged": func(resp *kmsg.FetchResponse) { resp.Topics[0].Partitions[0].DivergingEpoch.EndOffset = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			budget := kafka.NewBudget(8 << 20)
			inBubble(t, setup{budget: budget}, func(w *world) {
				w.create("t", 1)
				w.write(hostileTP, 3, 10)
				cluster := w.lying(budget, kmsg.Fetch, func(f []byte) []byte {
					resp := kmsg.NewPtrFetchResponse()
					resp.Version = resp.MaxVersion()
					w.must(resp.ReadFrom(f[9:]))
					if len(resp.Topics) > 0 {
						lie(resp)
					}
					return sized(resp.AppendTo(f[:9:9]))
				})
				defer cluster.Close()
				for range 3 {
					fetched, _ := cluster.Fetch(w.ctx, kafka.Want{TopicPartition: hostileTP, LeaderEpoch: -1, LastEpoch: -1})
					fetched.Release()
					if n := budget.InFlight(); n != 0 {
						t.Fatalf("%d bytes are still in flight", n)
					}
				}
			})
		})
	}
}

// A broker that has a client wait for 24 days was once obeyed.
func TestNobodyWaitsForDays(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		w.create("t", 1)
		lies := 0
		cluster := w.lying(nil, kmsg.ListOffsets, func(f []byte) []byte {
			if lies++; lies > 1 {
				return f
			}
			return put(f, 9, 0x7f, 0xff, 0xff, 0xff)
		})
		defer cluster.Close()
		_, err := cluster.HighWatermark(w.ctx, hostileTP)
		w.must(err)
		start := time.Now()
		_, err = cluster.HighWatermark(w.ctx, hostileTP)
		w.must(err)
		if took := time.Since(start); took < time.Minute || took > 10*time.Minute {
			w.Errorf("it waits for %v", took)
		}
	})
}

// One topic is asked for; an answer about another once passed for it.
func TestTopicsThatNobodyAskedFor(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		w.create("other", 3)
		w.create("t", 1)
		tell := func(names ...string) *kafka.Cluster {
			return w.lying(nil, kmsg.Metadata, func(f []byte) []byte {
				resp := kmsg.NewPtrMetadataResponse()
				resp.Version = resp.MaxVersion()
				w.must(resp.ReadFrom(f[9:]))
				if len(resp.Topics) != 1 {
					return f
				}
				topic := resp.Topics[0]
				resp.Topics = nil
				for _, name := range names {
					topic.Topic = &name
					resp.Topics = append(resp.Topics, topic)
				}
				return sized(resp.AppendTo(f[:9:9]))
			})
		}
		both := tell("other", "t")
		defer both.Close()
		topic, err := both.Topic(w.ctx, "t")
		w.must(err)
		if topic.Name != "t" {
			w.Errorf("topic %s", topic.Name)
		}
		neither := tell("other")
		defer neither.Close()
		_, err = neither.Topic(w.ctx, "t")
		w.wants(err, kafka.ErrUnanswered)
	})
}
