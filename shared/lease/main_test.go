package lease_test

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server/ats"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/local"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// ats.Register starts the server's access clock outside every bubble; one that is born inside would stop virtual time.
func TestMain(m *testing.M) {
	ats.Register()
	os.Exit(m.Run())
}

const leaseTime = 4 * time.Second

// forgetTimers is for the beginning of a test whose connections break: nats.go then takes a timer from a pool that the whole process
// shares, and one that an earlier bubble left there panics elsewhere. Two collections empty a sync.Pool.
func forgetTimers() {
	runtime.GC()
	runtime.GC()
}

// bubble runs a test in virtual time, with an installation's outside world around it.
func bubble(t *testing.T, test func(t *testing.T, env *local.Env)) {
	t.Helper()
	bubbleOn(t, t.TempDir(), test)
}

// bubbleOn is bubble with NATS' store in a certain directory.
func bubbleOn(t *testing.T, dir string, test func(t *testing.T, env *local.Env)) {
	t.Helper()
	forgetTimers()
	synctest.Test(t, func(t *testing.T) {
		env, err := local.Start(local.Setup{Clusters: []local.Cluster{{Alias: "B"}}, Virtual: true, Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(env.Close)
		test(t, env)
	})
}

// worker opens the queue as one process does, on a line that can be cut.
func worker(t testing.TB, env *local.Env) (*lease.Queue, *local.Line) {
	t.Helper()
	line := env.Line()
	q, err := lease.Open(t.Context(), lease.Options{InProcess: line, LeaseTime: leaseTime})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(q.Close)
	return q, line
}

func flow() spec.Flow {
	return spec.Flow{
		Source: "A", Target: "B", Policy: mm2.DefaultPolicy{Separator: "."},
		OffsetsTopic: mm2.OffsetsTopic("A"), Connector: mm2.SourceConnector, OffsetsReplicationFactor: -1,
	}
}

// cursors opens the target as one process does.
func cursors(t testing.TB, env *local.Env, q *lease.Queue) *lease.Cursors {
	t.Helper()
	return q.Cursors(flow(), open(t, env))
}

func open(t testing.TB, env *local.Env) *kafka.Cluster {
	t.Helper()
	target, err := kafka.Open(env.Spec("B"), kafka.Options{Dialer: env.Dial})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(target.Close)
	return target
}

func mirror(n int) lease.Task {
	return lease.Task{Kind: lease.KindMirror, Flow: "A->B", Topic: fmt.Sprintf("orders.%d", n), Partition: int32(n % 3)}
}

func offer(t testing.TB, q *lease.Queue, task lease.Task, want bool) {
	t.Helper()
	if got, err := q.Offer(t.Context(), task); err != nil || got != want {
		t.Fatalf("offer %s: %t, %v; want %t", task, got, err, want)
	}
}

// claim takes leases until it has as many as wanted: the consumer learns of a message after its sender, so one claim may find fewer.
func claim(t testing.TB, q *lease.Queue, n, want int) []*lease.Lease {
	t.Helper()
	var leases []*lease.Lease
	for {
		more, err := q.Claim(t.Context(), n-len(leases), 100*time.Millisecond)
		leases = append(leases, more...)
		if err == nil && len(more) > 0 && len(leases) < want {
			continue
		}
		if err != nil || len(leases) != want {
			t.Fatalf("claimed %d leases (%v), want %d", len(leases), err, want)
		}
		return leases
	}
}

func release(t testing.TB, l *lease.Lease) {
	t.Helper()
	if err := l.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
}
