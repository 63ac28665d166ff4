package lease_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/local"
)

func load(t testing.TB, c *lease.Cursors) {
	t.Helper()
	if err := c.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func get(t testing.TB, c *lease.Cursors) (lease.Cursor, uint64) {
	t.Helper()
	cur, revision, err := c.Get(t.Context(), "orders", 0)
	if err != nil {
		t.Fatal(err)
	}
	return cur, revision
}

func create(t testing.TB, c *lease.Cursors, cur lease.Cursor) uint64 {
	t.Helper()
	revision, err := c.Create(t.Context(), "orders", 0, cur)
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func commit(t testing.TB, c *lease.Cursors, cur lease.Cursor, revision uint64) uint64 {
	t.Helper()
	revision, err := c.Commit(t.Context(), "orders", 0, cur, revision)
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func wipe(t testing.TB, env *local.Env) {
	t.Helper()
	if err := env.NATS.Wipe(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second) // to reconnect
}

func TestNobodyBelievesAnEmptyBucket(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		c := cursors(t, env, q)
		if _, _, err := c.Get(t.Context(), "orders", 0); !errors.Is(err, lease.ErrNotLoaded) {
			t.Errorf("get before load: %v", err)
		}
		if _, err := c.Create(t.Context(), "orders", 0, lease.Cursor{}); !errors.Is(err, lease.ErrNotLoaded) {
			t.Errorf("create before load: %v", err)
		}
		load(t, c)
		if loaded, err := c.Loaded(t.Context()); err != nil || !loaded {
			t.Errorf("loaded: %t, %v", loaded, err)
		}
		if _, _, err := c.Get(t.Context(), "orders", 0); !errors.Is(err, lease.ErrNoCursor) {
			t.Errorf("get after load: %v", err)
		}
		create(t, c, lease.Cursor{Offset: 3, Target: 9})
		if _, err := c.Create(t.Context(), "orders", 0, lease.Cursor{}); !errors.Is(err, lease.ErrLost) {
			t.Errorf("create again: %v", err)
		}
	})
}

func TestCursorsSurviveTheLossOfNATS(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		c := cursors(t, env, q)
		load(t, c)
		begun := lease.Cursor{Version: 1, Offset: 3, Target: 9, SourceTopicID: "s", TargetTopicID: "t", SourceEpoch: -1, Timestamp: -1, Isolation: "read_committed"}
		revision := create(t, c, begun)
		wipe(t, env)
		if loaded, err := c.Loaded(t.Context()); err != nil || loaded {
			t.Fatalf("loaded after a wipe: %t, %v", loaded, err)
		}
		load(t, c)
		cur, again := get(t, c)
		if cur != begun {
			t.Errorf("%+v came back as %+v", begun, cur)
		}
		if _, err := c.Commit(t.Context(), "orders", 0, begun, revision); !errors.Is(err, lease.ErrLost) {
			t.Errorf("a revision of before the wipe (%d, now %d) commits: %v", revision, again, err)
		}

		moved := begun
		moved.Offset, moved.Target, moved.Sequence, moved.Timestamp = 13, 19, 10, 1234
		again = commit(t, c, moved, again)
		if err := c.Publish(t.Context(), "orders", 0, moved); err != nil {
			t.Fatal(err)
		}
		unpublished := moved
		unpublished.Offset, unpublished.Target, unpublished.Sequence = 15, 21, 12
		commit(t, c, unpublished, again)
		all(t, c, unpublished)
		wipe(t, env)
		load(t, c)
		if cur, _ := get(t, c); cur != moved { // an older truth: the worker finds the rest in the target's log
			t.Errorf("came back as %+v", cur)
		}
		all(t, c, moved)
	})
}

func all(t *testing.T, c *lease.Cursors, want lease.Cursor) {
	t.Helper()
	got, err := c.All(t.Context())
	if err != nil || len(got) != 1 || got[kafka.TopicPartition{Topic: "orders"}] != want {
		t.Errorf("all: %v, %v; want %v", got, err, want)
	}
}

// What a store had lost stayed in the eyes of whoever had seen it, and what was written in its place was never seen.
func TestStoreThatLostItsLastEntriesIsReadAnew(t *testing.T) {
	dir, before := t.TempDir(), t.TempDir()
	bubbleOn(t, dir, func(t *testing.T, env *local.Env) {
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		q, _ := worker(t, env)
		c := cursors(t, env, q)
		load(t, c)
		kept := lease.Cursor{Version: 1, Offset: 3}
		revision := create(t, c, kept)
		env.NATS.Stop()
		must(os.CopyFS(filepath.Join(before, "jetstream"), os.DirFS(filepath.Join(dir, "jetstream"))))
		must(env.NATS.Start())
		time.Sleep(time.Second) // to reconnect
		lost := lease.Cursor{Version: 1, Offset: 5, Sequence: 2}
		for range 3 {
			revision = commit(t, c, lost, revision)
		}
		all(t, c, lost)
		env.NATS.Stop()
		must(os.RemoveAll(filepath.Join(dir, "jetstream")))
		must(os.CopyFS(filepath.Join(dir, "jetstream"), os.DirFS(filepath.Join(before, "jetstream"))))
		must(env.NATS.Start())
		time.Sleep(time.Second)
		all(t, c, kept)
	})
}

// record writes to the offsets topic as MM2, or somebody with a console, would.
func record(t *testing.T, env *local.Env, partition int32, value []byte) {
	t.Helper()
	client, err := env.Client("B", kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	r := &kgo.Record{Topic: flow().OffsetsTopic, Partition: 3, Key: flow().Key("orders", partition), Value: value}
	if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// last returns what the offsets topic holds last for orders-0.
func last(t *testing.T, env *local.Env) string {
	t.Helper()
	target, err := kafka.Open(env.Spec("B"), kafka.Options{Dialer: env.Dial})
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	value := ""
	err = target.ReadAll(t.Context(), flow().OffsetsTopic, func(r kafka.Record) error {
		if string(r.Key) == `["MirrorSourceConnector",{"cluster":"A","partition":0,"topic":"orders"}]` {
			if r.Partition != 3 { // where Java's partitioner puts it
				t.Errorf("cursor of orders-0 in partition %d", r.Partition)
			}
			value = string(r.Value)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestMM2WroteLast(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		c := cursors(t, env, q)
		load(t, c)
		commit(t, c, lease.Cursor{Sequence: 100, Offset: 100}, create(t, c, lease.Cursor{}))
		record(t, env, 0, []byte(`{"offset":41}`))
		load(t, c)
		foreign, revision := get(t, c)
		if !foreign.Foreign || foreign.Offset != 42 {
			t.Fatalf("after MM2 wrote: %+v", foreign)
		}
		foreign.Hold = lease.Hold{Reason: lease.ReasonNoCursor}
		revision = commit(t, c, foreign, revision)
		if err := c.Publish(t.Context(), "orders", 0, foreign); err != nil {
			t.Fatal(err)
		}
		load(t, c)
		if cur, now := get(t, c); now != revision || !cur.Held() {
			t.Errorf("loading again changed a foreign cursor: %+v", cur)
		}
		if value := last(t, env); value != `{"offset":41}` {
			t.Errorf("kferry overwrote MM2's record: %s", value)
		}

		taken := lease.Cursor{Version: 1, Epoch: 1, Offset: 42, Target: 42}
		commit(t, c, taken, revision) // a generation of its own: published by itself
		load(t, c)
		if cur, _ := get(t, c); cur != taken {
			t.Errorf("after take-over: %+v", cur)
		}
	})
}

func TestTombstoneForgets(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		c := cursors(t, env, q)
		load(t, c)
		commit(t, c, lease.Cursor{Sequence: 100, Offset: 100}, create(t, c, lease.Cursor{}))
		record(t, env, 0, nil)
		load(t, c)
		if _, _, err := c.Get(t.Context(), "orders", 0); !errors.Is(err, lease.ErrNoCursor) {
			t.Errorf("get after a tombstone: %v", err)
		}
		create(t, c, lease.Cursor{Offset: 7})
		load(t, c)
		if cur, _ := get(t, c); cur.Offset != 7 {
			t.Errorf("offset %d after a new start", cur.Offset)
		}
	})
}

func TestLaggingTopicIsWrittenAgain(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		c := cursors(t, env, q)
		load(t, c)
		commit(t, c, lease.Cursor{Sequence: 100, Offset: 101, Target: 100}, create(t, c, lease.Cursor{}))
		load(t, c)
		want := `{"offset":100,"kferry.version":1,"kferry.target":100,"kferry.sequence":100,"kferry.epoch":0,"kferry.sourceTopicId":"",` +
			`"kferry.targetTopicId":"","kferry.sourceLeaderEpoch":0,"kferry.timestamp":0,"kferry.isolation":""}`
		if value := last(t, env); value != want {
			t.Errorf("the offsets topic ends with %s", value)
		}
	})
}

func TestNewerFormatIsCarriedAndNeverOverwritten(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		c := cursors(t, env, q)
		load(t, c)
		create(t, c, lease.Cursor{})
		const newer = `{"offset":5,"kferry.version":2,"kferry.novelty":true}`
		record(t, env, 0, []byte(newer))
		for range 2 {
			load(t, c)
			cur, _, err := c.Get(t.Context(), "orders", 0)
			if !errors.Is(err, lease.ErrVersion) || cur.Hold.Reason != lease.ReasonFormat || cur.Version != 2 {
				t.Errorf("get of a newer format: %+v, %v", cur, err)
			}
			if value := last(t, env); value != newer {
				t.Errorf("overwritten with %s", value)
			}
		}
		cs, err := c.All(t.Context())
		if held := cs[kafka.TopicPartition{Topic: "orders"}]; err != nil || held.Hold.Reason != lease.ReasonFormat {
			t.Errorf("all: %v, %v", cs, err)
		}
	})
}

// The process died between the two writes of Create: the offsets topic has nothing, and the next batch would lie above no cursor.
func TestCreateThatDiedHalfwayIsCompletedByGet(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		c := cursors(t, env, q)
		load(t, c)
		create(t, c, lease.Cursor{Offset: 3})
		record(t, env, 0, nil) // as if it had never been written
		get(t, c)
		wipe(t, env)
		load(t, c)
		if cur, _ := get(t, c); cur.Offset != 3 {
			t.Errorf("offset %d", cur.Offset)
		}
	})
}

func TestLostOffsetsTopicIsLoadedAnew(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		c := cursors(t, env, q)
		load(t, c)
		moved := lease.Cursor{Version: 1, Offset: 9, Sequence: 9}
		commit(t, c, moved, create(t, c, lease.Cursor{}))
		env.Kafka("B").DeleteTopic(flow().OffsetsTopic)
		if err := c.Publish(t.Context(), "orders", 0, moved); !errors.Is(err, kafka.ErrUnknownTopic) {
			t.Errorf("publish without a topic: %v", err)
		}
		if loaded, err := c.Loaded(t.Context()); err != nil || loaded {
			t.Errorf("loaded: %t, %v", loaded, err)
		}
		other, _ := worker(t, env)
		oc := cursors(t, env, other)
		load(t, oc)
		wipe(t, env)
		load(t, oc)
		if cur, _ := get(t, c); cur != moved {
			t.Errorf("came back as %+v", cur)
		}
	})
}

func TestSeveralCoordinatorsLoadWhileWorkersCommit(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		const partitions, coordinators = 50, 3
		q, _ := worker(t, env)
		c := cursors(t, env, q)
		load(t, c)
		for p := range int32(partitions) {
			if _, err := c.Create(t.Context(), "orders", p, lease.Cursor{Offset: int64(p)}); err != nil {
				t.Fatal(err)
			}
		}
		wipe(t, env)
		var all sync.WaitGroup
		for range coordinators {
			other, _ := worker(t, env)
			oc := cursors(t, env, other)
			all.Go(func() { load(t, oc) })
		}
		all.Go(func() { // a worker that begins as soon as it may
			for p := range int32(partitions) {
				if err := advance(t.Context(), c, p); err != nil {
					t.Error(err)
				}
			}
		})
		all.Wait()
		cs, err := c.All(t.Context())
		if err != nil || len(cs) != partitions {
			t.Fatalf("%d cursors: %v", len(cs), err)
		}
		for tp, cur := range cs {
			if cur.Sequence != 10 || cur.Offset != int64(tp.Partition)+10 {
				t.Errorf("%s: %+v", tp, cur)
			}
		}
	})
}

// advance commits ten records, one by one, however often it loses.
func advance(ctx context.Context, c *lease.Cursors, partition int32) error {
	for range 1_000 {
		cur, revision, err := c.Get(ctx, "orders", partition)
		if errors.Is(err, lease.ErrNotLoaded) {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if err != nil {
			return err
		}
		if cur.Sequence == 10 {
			return nil
		}
		cur.Sequence++
		cur.Offset++
		if _, err := c.Commit(ctx, "orders", partition, cur, revision); err != nil && !errors.Is(err, lease.ErrLost) {
			return err
		}
	}
	return fmt.Errorf("orders-%d: no end", partition)
}

// A load that a wipe interrupts has filled a bucket that is gone. Had it marked the new one as loaded, a worker would have found
// no cursor there and begun again from the start.
func TestWipeInTheMiddleOfALoad(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		const partitions = 20
		q, _ := worker(t, env)
		c := cursors(t, env, q)
		load(t, c)
		createAll(t, c, partitions) // so that the load finds nothing to do
		wiped := false
		env.Kafka("B").ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
			if !wiped {
				wiped = true
				if err := env.NATS.Wipe(); err != nil {
					t.Error(err)
				}
			}
			return nil, nil, false
		})
		load(t, c)
		if cs, err := c.All(t.Context()); err != nil || len(cs) != partitions || !wiped {
			t.Errorf("%d cursors after a load with a wipe (%t) in between: %v", len(cs), wiped, err)
		}
		if loaded, err := c.Loaded(t.Context()); err != nil || !loaded {
			t.Errorf("loaded: %t, %v", loaded, err)
		}
	})
}

// createAll creates cursors at once, so that they share writes to the offsets topic.
func createAll(t *testing.T, c *lease.Cursors, partitions int32) {
	t.Helper()
	var all sync.WaitGroup
	for p := range partitions {
		all.Go(func() {
			if _, err := c.Create(t.Context(), "orders", p, lease.Cursor{Offset: int64(p)}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func TestManyPublishersShareWrites(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		const partitions = 1_200
		q, _ := worker(t, env)
		c := cursors(t, env, q)
		load(t, c)
		var requests atomic.Int32
		env.Kafka("B").ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
			requests.Add(1)
			env.Kafka("B").KeepControl()
			return nil, nil, false
		})
		createAll(t, c, partitions)
		if n := requests.Load(); n > partitions/2 { // about a tenth where the processor is free
			t.Errorf("%d produce requests for %d cursors", n, partitions)
		}
		wipe(t, env)
		load(t, c)
		cs, err := c.All(t.Context())
		if err != nil || len(cs) != partitions {
			t.Fatalf("%d cursors came back: %v", len(cs), err)
		}
		for tp, cur := range cs {
			if cur.Offset != int64(tp.Partition) {
				t.Errorf("%s: offset %d", tp, cur.Offset)
			}
		}
	})
}

func TestOffsetsTopicThatForgetsIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		c := cursors(t, env, q)
		client, err := env.Client("B")
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if _, err := kadm.NewClient(client).CreateTopic(t.Context(), 1, 1, nil, flow().OffsetsTopic); err != nil {
			t.Fatal(err)
		}
		if err := c.Load(t.Context()); err == nil || !strings.Contains(err.Error(), "cleanup.policy=compact") {
			t.Errorf("load: %v", err)
		}
		if loaded, err := c.Loaded(t.Context()); err != nil || loaded {
			t.Errorf("loaded: %t, %v", loaded, err)
		}
	})
}
