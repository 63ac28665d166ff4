package lease_test

import (
	"sync"
	"testing"

	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/local"
)

const benchLeases = 1_000

func benchQueue(b *testing.B) (*local.Env, *lease.Queue) {
	env, err := local.Start(local.Setup{Clusters: []local.Cluster{{Alias: "B"}}, Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(env.Close)
	q, _ := worker(b, env)
	return env, q
}

// BenchmarkExtend1000 is what a full worker does every second.
func BenchmarkExtend1000(b *testing.B) {
	_, q := benchQueue(b)
	tasks := make([]lease.Task, benchLeases)
	for n := range tasks {
		tasks[n] = mirror(n)
	}
	if _, err := q.OfferAll(b.Context(), tasks); err != nil {
		b.Fatal(err)
	}
	var leases []*lease.Lease
	for len(leases) < benchLeases {
		leases = append(leases, claim1(b, q)...)
	}
	for b.Loop() {
		if err := q.Extend(b.Context(), leases...); err != nil {
			b.Fatal(err)
		}
	}
}

func claim1(b *testing.B, q *lease.Queue) []*lease.Lease {
	leases, err := q.Claim(b.Context(), benchLeases, 0)
	if err != nil {
		b.Fatal(err)
	}
	return leases
}

// BenchmarkCommit1000 is what a full worker does about every second while records flow.
func BenchmarkCommit1000(b *testing.B) {
	env, q := benchQueue(b)
	c := cursors(b, env, q)
	load(b, c)
	revisions := make([]uint64, benchLeases)
	cur := lease.Cursor{Offset: 1_000_000, Target: 1_000_000, Sequence: 1_000_000, Isolation: "read_committed",
		SourceTopicID: "4m5rGQ9NQnKYbzJGkqgCKg", TargetTopicID: "4m5rGQ9NQnKYbzJGkqgCKg"}
	step := func(p int) (err error) {
		revisions[p], err = c.Commit(b.Context(), "orders", int32(p), cur, revisions[p])
		return err
	}
	for b.Loop() {
		together(b, step)
	}
}

// BenchmarkPublish1000 is what a full worker does every 30 s, and at SIGTERM.
func BenchmarkPublish1000(b *testing.B) {
	env, q := benchQueue(b)
	c := cursors(b, env, q)
	load(b, c)
	for b.Loop() {
		together(b, func(p int) error {
			return c.Publish(b.Context(), "orders", int32(p), lease.Cursor{Offset: int64(p)})
		})
	}
}

func together(b *testing.B, step func(p int) error) {
	var all sync.WaitGroup
	for p := range benchLeases {
		all.Go(func() {
			if err := step(p); err != nil {
				b.Error(err)
			}
		})
	}
	all.Wait()
}
