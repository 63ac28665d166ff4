package lease_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/local"
	"github.com/kferry/kferry/shared/mm2"
)

// sick is a partition of the offsets topic without a leader.
const sick = 3

func placed(partition int32) int32 {
	return mm2.OffsetsPartition(flow().Key("orders", partition), mm2.OffsetsPartitions)
}

// withoutLeader are the ways in which a partition of the offsets topic can't be written.
func withoutLeader(env *local.Env) map[string]func() (heal func()) {
	fault := func(key kmsg.Key, err *kerr.Error) func() {
		h := env.Kafka("B").Fault(kfake.Fault{Keys: []kmsg.Key{key}, Topic: flow().OffsetsTopic, Partitions: []int32{sick}, Err: err, Count: -1})
		return func() { h.Remove() }
	}
	return map[string]func() func(){
		"refused": func() func() { return fault(kmsg.Produce, kerr.NotLeaderForPartition) },
		"known": func() func() {
			unknown, refused := fault(kmsg.Metadata, kerr.LeaderNotAvailable), fault(kmsg.Produce, kerr.NotLeaderForPartition)
			return func() { unknown(); refused() }
		},
	}
}

// Two cursors of forty on a partition whose broker was down kept the other thirty-eight waiting, and failed with them.
func TestOffsetsPartitionWithoutLeaderHoldsUpItsOwnCursorsOnly(t *testing.T) {
	const partitions = 40
	for _, way := range []string{"refused", "known"} {
		t.Run(way, func(t *testing.T) {
			bubble(t, func(t *testing.T, env *local.Env) {
				q, _ := worker(t, env)
				c := cursors(t, env, q)
				load(t, c)
				withoutLeader(env)[way]()
				began := time.Now()
				var all sync.WaitGroup
				for p := range int32(partitions) {
					all.Go(func() {
						_, err := c.Create(t.Context(), "orders", p, lease.Cursor{Offset: 1})
						for range 10 {
							if err == nil {
								err = c.Publish(t.Context(), "orders", p, lease.Cursor{Offset: 2})
							}
						}
						took := time.Since(began)
						switch {
						case placed(p) == sick && err == nil:
							t.Errorf("orders-%d was published", p)
						case placed(p) != sick && (err != nil || took > 3*time.Second):
							t.Errorf("orders-%d took %s: %v", p, took, err)
						case took > 25*time.Second:
							t.Errorf("orders-%d failed after %s", p, took)
						}
					})
				}
				all.Wait()
			})
		})
	}
}

func TestLoadWritesBackWhatItCan(t *testing.T) {
	const partitions = 40
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		c := cursors(t, env, q)
		load(t, c)
		for p := range int32(partitions) {
			revision, err := c.Create(t.Context(), "orders", p, lease.Cursor{})
			if err == nil {
				_, err = c.Commit(t.Context(), "orders", p, lease.Cursor{Sequence: 5, Offset: 5}, revision)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		b := target(t, env)
		read := func() map[kafka.TopicPartition]lease.Cursor {
			cs, err := lease.ReadCursors(t.Context(), flow(), b)
			if err != nil || len(cs) != partitions {
				t.Fatalf("%d cursors: %v", len(cs), err)
			}
			return cs
		}
		heal := withoutLeader(env)["refused"]()
		load(t, c)
		for tp, cur := range read() {
			if (cur.Sequence == 5) != (placed(tp.Partition) != sick) {
				t.Errorf("%s has sequence %d on the topic", tp, cur.Sequence)
			}
		}
		heal()
		load(t, c)
		for tp, cur := range read() {
			if cur.Sequence != 5 {
				t.Errorf("%s has sequence %d on the topic although it can be written", tp, cur.Sequence)
			}
		}
	})
}

func target(t *testing.T, env *local.Env) *kafka.Cluster {
	t.Helper()
	c, err := kafka.Open(env.Spec("B"), kafka.Options{Dialer: env.Dial})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// A coordinator that had looked before a worker began a generation wrote the one before over it.
func TestLoadDoesNotWriteBackOverANewerGeneration(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		c := cursors(t, env, q)
		load(t, c)
		revision := commit(t, c, lease.Cursor{Sequence: 5, Offset: 5}, create(t, c, lease.Cursor{})) // the topic lacks it
		behind := int32(0)
		for placed(behind) <= placed(0) {
			behind++ // on a partition that is read later
		}
		if _, err := c.Create(t.Context(), "orders", behind, lease.Cursor{}); err != nil {
			t.Fatal(err)
		}
		other, _ := worker(t, env)
		oc := cursors(t, env, other)

		reached, goOn := make(chan struct{}), make(chan struct{})
		env.Kafka("B").ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
			if req.(*kmsg.FetchRequest).Topics[0].Partitions[0].Partition != placed(behind) {
				env.Kafka("B").KeepControl()
				return nil, nil, false
			}
			env.Kafka("B").DropControl()
			env.Kafka("B").SleepControl(func() { close(reached); <-goOn })
			return nil, nil, false
		})
		var loading sync.WaitGroup
		loading.Go(func() { load(t, oc) })
		<-reached
		commit(t, c, lease.Cursor{Epoch: 1, Offset: 5}, revision)
		close(goOn)
		loading.Wait()
		if value := last(t, env); !strings.Contains(value, `"kferry.epoch":1`) {
			t.Errorf("the offsets topic ends with %s", value)
		}
	})
}

// A worker that knew more partitions than there are wrote nothing of a flow any more until it was started again, once another flow
// had made franz-go look at the topic.
func TestOffsetsTopicWithFewerPartitionsIsFound(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		const partitions, high = 3, 1
		if placed(high) < partitions {
			t.Fatalf("orders-%d is in partition %d", high, placed(high))
		}
		q, _ := worker(t, env)
		b, second := target(t, env), flow()
		second.Source = "C"
		flows := []*lease.Cursors{q.Cursors(flow(), b), q.Cursors(second, b)}
		load(t, flows[0])
		publish := func(c *lease.Cursors) error {
			return c.Publish(t.Context(), "orders", high, lease.Cursor{Offset: 7})
		}
		for _, c := range flows {
			if err := publish(c); err != nil {
				t.Fatal(err)
			}
		}
		if err := env.Kafka("B").DeleteTopic(flow().OffsetsTopic); err != nil {
			t.Fatal(err)
		}
		if err := env.Kafka("B").CreateTopic(flow().OffsetsTopic, partitions, nil); err != nil {
			t.Fatal(err)
		}
		for range 3 { // each may find out for itself
			for _, c := range flows {
				_ = publish(c)
				time.Sleep(time.Second)
			}
		}
		for i, c := range flows {
			if err := publish(c); err != nil {
				t.Errorf("flow %d: %v", i, err)
			}
		}
	})
}

// A worker that drains has given up on its cursors: none of them begins another write, for which all others would have to wait.
func TestPublishThatWasGivenUpWritesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		c := cursors(t, env, q)
		load(t, c)
		if _, err := c.Create(t.Context(), "orders", 0, lease.Cursor{Offset: 1}); err != nil {
			t.Fatal(err)
		}
		writes := env.Kafka("B").Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Observe: true, Count: -1})
		ctx, giveUp := context.WithCancel(t.Context())
		giveUp()
		for range 20 {
			if err := c.Publish(ctx, "orders", 0, lease.Cursor{Offset: 2}); err == nil {
				t.Error("published")
			}
		}
		if n := writes.Hits(); n != 0 {
			t.Errorf("%d writes", n)
		}
	})
}
