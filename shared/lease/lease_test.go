package lease_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/local"
	"github.com/kferry/kferry/shared/spec"
)

func TestTaskIsOfferedOnce(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		offer(t, q, mirror(0), true)
		offer(t, q, mirror(0), false)
		l := claim(t, q, 10, 1)[0]
		want := mirror(0)
		want.Version = lease.TaskVersion
		if l.Task != want || l.Delivery != 1 {
			t.Errorf("claimed %+v, delivery %d", l.Task, l.Delivery)
		}
		offer(t, q, mirror(0), false) // held
		release(t, l)
		if !l.Trust().Before(time.Now()) {
			t.Error("a released lease is still trusted")
		}
		offer(t, q, mirror(0), true)
	})
}

func TestExtendedLeaseStaysAndDeadWorkersComesBack(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, line := worker(t, env)
		other, _ := worker(t, env)
		offer(t, q, mirror(0), true)
		offer(t, q, mirror(1), true)
		leases := claim(t, q, 2, 2)
		for range 20 { // far longer than a lease
			time.Sleep(time.Second)
			if err := q.Extend(t.Context(), leases...); err != nil {
				t.Fatal(err)
			}
		}
		claim(t, other, 2, 0)

		line.Cut()
		died := time.Now()
		got, err := other.Claim(t.Context(), 2, time.Minute)
		if err != nil || len(got) == 0 {
			t.Fatalf("claimed %d leases after a worker died: %v", len(got), err)
		}
		if after := time.Since(died); after < leaseTime-200*time.Millisecond || after > leaseTime+500*time.Millisecond {
			t.Errorf("a dead worker's lease came back after %s, want about %s", after, leaseTime)
		}
		if got[0].Delivery != 2 {
			t.Errorf("delivery %d, want the second", got[0].Delivery)
		}
		if !leases[0].Trust().Before(time.Now()) {
			t.Error("two workers trust one lease")
		}
	})
}

// A message that arrives at the end of a long wait was once trusted from the wait's start (too short to do anything) or from its
// arrival (too long: it may have been under way).
func TestTrustIsAnchoredAfterTheWait(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		go func() {
			time.Sleep(8 * time.Second)
			offer(t, q, mirror(0), true)
		}()
		leases, err := q.Claim(t.Context(), 5, time.Minute)
		if err != nil || len(leases) != 1 {
			t.Fatalf("claimed %d leases: %v", len(leases), err)
		}
		if left := time.Until(leases[0].Trust()); left > leaseTime*3/4 || left < leaseTime*3/4-100*time.Millisecond {
			t.Errorf("trusted for %s", left)
		}
	})
}

func TestUnconfirmedExtensionIsNotTrusted(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		offer(t, q, mirror(0), true)
		l := claim(t, q, 1, 1)[0]
		before := l.Trust()
		env.NATS.Stop()
		time.Sleep(time.Second)
		if err := l.Extend(t.Context()); !errors.Is(err, lease.ErrUnreachable) {
			t.Errorf("extend without a server: %v", err)
		}
		if l.Trust() != before {
			t.Error("an extension that nobody saw is trusted")
		}
		if err := env.NATS.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * leaseTime)
		if again := claim(t, q, 1, 1)[0]; again.Task.Identity() != mirror(0) {
			t.Errorf("claimed %s after the restart", again.Task)
		}
	})
}

// JetStream does not fence acknowledgements. The stale one frees the task under the second holder's feet, who is not told: not by an
// extension, not by a release. Only the cursor's revision tells the two apart.
func TestStaleAckFreesHeldTask(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		first, _ := worker(t, env)
		second, _ := worker(t, env)
		cs1, cs2 := cursors(t, env, first), cursors(t, env, second)
		load(t, cs1)
		if _, err := cs1.Create(t.Context(), "orders", 0, lease.Cursor{}); err != nil {
			t.Fatal(err)
		}

		offer(t, first, mirror(0), true)
		stale := claim(t, first, 1, 1)[0]
		_, staleRevision := get(t, cs1)
		time.Sleep(leaseTime + time.Second)
		holder := claim(t, second, 1, 1)[0]
		_, revision := get(t, cs2)

		release(t, stale)
		offer(t, first, mirror(0), true) // although second holds it
		if err := holder.Extend(t.Context()); err != nil {
			t.Errorf("extending a lease that is gone: %v", err)
		}
		if _, err := cs2.Commit(t.Context(), "orders", 0, lease.Cursor{Sequence: 5, Offset: 5}, revision); err != nil {
			t.Fatal(err)
		}
		if _, err := cs1.Commit(t.Context(), "orders", 0, lease.Cursor{Sequence: 4, Offset: 4}, staleRevision); !errors.Is(err, lease.ErrLost) {
			t.Errorf("the stale holder commits: %v", err)
		}
		if cur, _ := get(t, cs1); cur.Sequence != 5 {
			t.Errorf("sequence %d after the stale commit", cur.Sequence)
		}
	})
}

func TestHandBackGoesBehindTheOthers(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		for n := range 3 {
			offer(t, q, mirror(n), true)
		}
		first := claim(t, q, 1, 1)[0]
		if err := first.HandBack(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, want := range []int{1, 2, 0} {
			if l := claim(t, q, 1, 1)[0]; l.Task.Identity() != mirror(want) {
				t.Errorf("claimed %s, want %s", l.Task, mirror(want))
			}
		}
	})
}

func TestTenThousandOffers(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		tasks := make([]lease.Task, 10_000)
		for n := range tasks {
			tasks[n] = mirror(n)
		}
		offer(t, q, mirror(7), true)
		if n, err := q.OfferAll(t.Context(), tasks); err != nil || len(n) != len(tasks)-1 {
			t.Fatalf("offered %v: %v", n, err)
		}
		if n, err := q.OfferAll(t.Context(), tasks); err != nil || len(n) != 0 {
			t.Fatalf("offered %v again: %v", n, err)
		}
		waiting(t, q, 10_000)
		time.Sleep(time.Second)
		seen := map[lease.Task]bool{}
		for len(seen) < len(tasks) {
			for _, l := range claim(t, q, 1_000, 1_000) {
				seen[l.Task.Identity()] = true
			}
		}
		time.Sleep(time.Second)
		waiting(t, q, 0)
		if err := q.Purge(t.Context()); err != nil {
			t.Fatal(err)
		}
		offer(t, q, mirror(7), true)
	})
}

func waiting(t *testing.T, q *lease.Queue, want int) {
	t.Helper()
	if n, err := q.Waiting(t.Context()); err != nil || n != want {
		t.Errorf("%d waiting (%v), want %d", n, err, want)
	}
}

func TestQueueGoesOnAfterAWipe(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		other, _ := worker(t, env)
		offer(t, q, mirror(0), true)
		offer(t, q, mirror(1), true)
		old := claim(t, q, 1, 1)[0]
		if err := env.NATS.Wipe(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // to reconnect
		if n, err := q.OfferAll(t.Context(), []lease.Task{mirror(0), mirror(1)}); err != nil || len(n) != 2 {
			t.Fatalf("offered %v after the wipe: %v", n, err)
		}
		held := claim(t, other, 2, 2)
		release(t, old) // must not meet a message of the new stream
		offer(t, q, held[0].Task, false)
		offer(t, q, held[1].Task, false)
		if err := q.PutState(t.Context(), mirror(0), lease.State{Reason: lease.ReasonUnreachable}); err != nil {
			t.Fatal(err)
		}
	})
}

func TestClaimAfterAWipe(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		if err := env.NATS.Wipe(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		claim(t, q, 1, 0)
		offer(t, q, mirror(0), true)
		claim(t, q, 1, 1)
	})
}

func TestClaimEndsWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		errDrained := errors.New("drained")
		ctx, drain := context.WithCancelCause(t.Context())
		time.AfterFunc(3*time.Second, func() { drain(errDrained) })
		leases, err := q.Claim(ctx, 5, time.Minute)
		if len(leases) != 0 || !errors.Is(err, errDrained) {
			t.Errorf("claimed %d: %v", len(leases), err)
		}
		other, _ := worker(t, env)
		offer(t, q, mirror(0), true)
		claim(t, other, 1, 1) // nothing waits on behalf of the claim that ended
	})
}

func TestStates(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		other, _ := worker(t, env)
		topics := lease.Task{Kind: lease.KindTopics, Flow: "A->B", Topic: "orders", Partition: -1}
		next := time.Now().Add(time.Minute).UTC()
		failed := lease.State{Reason: lease.ReasonAuthorization, Detail: "no CREATE", Attempts: 2, Next: next, Worker: "w-1"}
		states(t, other, map[lease.Task]lease.State{})
		put(t, q, topics, failed)
		put(t, q, mirror(1), lease.State{Reason: lease.ReasonError})
		states(t, other, map[lease.Task]lease.State{topics: failed, mirror(1): {Reason: lease.ReasonError}})
		if err := q.ClearState(t.Context(), mirror(1)); err != nil {
			t.Fatal(err)
		}
		states(t, other, map[lease.Task]lease.State{topics: failed})
		if err := env.NATS.Wipe(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		states(t, other, map[lease.Task]lease.State{})
		put(t, q, topics, failed)
		states(t, other, map[lease.Task]lease.State{topics: failed})
	})
}

func TestStateOfOneTask(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		other, _ := worker(t, env)
		expect := func(task lease.Task, want lease.State, found bool) {
			t.Helper()
			task.Version, task.Digest = 1, "abc"
			if got, ok, err := other.State(t.Context(), task); err != nil || ok != found || got != want {
				t.Errorf("state of %s: %+v, %t, %v; want %+v, %t", task, got, ok, err, want, found)
			}
		}
		expect(mirror(1), lease.State{}, false)
		put(t, q, mirror(1), lease.State{Reason: lease.ReasonError, Attempts: 1})
		put(t, q, mirror(1), lease.State{Reason: lease.ReasonError, Attempts: 2})
		expect(mirror(1), lease.State{Reason: lease.ReasonError, Attempts: 2}, true)
		expect(mirror(2), lease.State{}, false)
		if err := q.ClearState(t.Context(), mirror(1)); err != nil {
			t.Fatal(err)
		}
		expect(mirror(1), lease.State{}, false)
		if err := env.NATS.Wipe(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		expect(mirror(1), lease.State{}, false)
	})
}

func put(t *testing.T, q *lease.Queue, task lease.Task, s lease.State) {
	t.Helper()
	task.Version, task.Digest = 1, "abc" // which are no part of its identity
	if err := q.PutState(t.Context(), task, s); err != nil {
		t.Fatal(err)
	}
}

func states(t *testing.T, q *lease.Queue, want map[lease.Task]lease.State) {
	t.Helper()
	got, err := q.States(t.Context())
	if err != nil || len(got) != len(want) {
		t.Fatalf("states %v (%v), want %v", got, err, want)
	}
	for task, s := range want {
		if got[task] != s {
			t.Errorf("%s: %+v, want %+v", task, got[task], s)
		}
	}
}

func TestOpenNamesAServerThatDoesNotAnswer(t *testing.T) {
	forgetTimers()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	at, err := spec.ParseNATS("nats://kferry:geheim@127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	_, err = lease.Open(ctx, lease.Options{NATS: at})
	if !errors.Is(err, lease.ErrUnreachable) || !strings.Contains(err.Error(), "nats://127.0.0.1:1") {
		t.Errorf("open: %v", err)
	}
	if err != nil && strings.Contains(err.Error(), "geheim") {
		t.Errorf("the password is in the error: %v", err)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("open took %s to give up", took)
	}
}

func TestOpenRefusesWhatNATSCannotName(t *testing.T) {
	for _, o := range []lease.Options{{Name: "two words"}, {Name: "a.b"}, {LeaseTime: time.Millisecond}} {
		if q, err := lease.Open(t.Context(), o); err == nil {
			q.Close()
			t.Errorf("opened %+v", o)
		}
	}
}

func TestExternalServer(t *testing.T) {
	forgetTimers()
	server, err := local.StartNATS(t.TempDir(), local.NATSListen("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	open := func(name string) *lease.Queue {
		q, err := lease.Open(t.Context(), lease.Options{NATS: server.Address(), Name: name})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(q.Close)
		return q
	}
	one, same, other := open("one"), open("one"), open("other")
	offer(t, one, mirror(0), true)
	offer(t, same, mirror(0), false)
	offer(t, other, mirror(0), true) // an installation of its own
	release(t, claim(t, same, 1, 1)[0])

	server.Stop()
	if err := server.Start(); err != nil { // on the same port
		t.Fatal(err)
	}
	l, err := other.Claim(t.Context(), 1, 10*time.Second)
	if err != nil || len(l) != 1 {
		// The first claim may still meet the old connection.
		if l, err = other.Claim(t.Context(), 1, 10*time.Second); err != nil || len(l) != 1 {
			t.Fatalf("claimed %d leases after a restart: %v", len(l), err)
		}
	}
}

func TestSecondServerOnOneDirectory(t *testing.T) {
	dir := t.TempDir()
	server, err := local.StartNATS(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := local.StartNATS(dir); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second server on one store: %v", err)
	}
	server.Close()
	if server, err = local.StartNATS(dir); err != nil {
		t.Fatal(err)
	}
	server.Close()
}

// What goes on under a lease ends with the trust in it, not with the trust that there was when it began.
func TestTrustingLastsAsLongAsTheLeaseIsExtended(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		offer(t, q, mirror(1), true)
		l := claim(t, q, 1, 1)[0]
		ctx, stop := l.Trusting(t.Context())
		defer stop()
		for range 10 {
			time.Sleep(time.Second)
			if err := l.Extend(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if ctx.Err() != nil {
			t.Error("ended although the lease was extended")
		}
		if end, is := ctx.Deadline(); !is || !end.Equal(l.Trust()) {
			t.Errorf("its deadline is %s, the trust ends at %s", end, l.Trust())
		}
		<-ctx.Done()
		if late := time.Since(l.Trust()); late < 0 || late > time.Millisecond {
			t.Errorf("ended %s after the trust did", late)
		}
	})
}

// A worker that was frozen extended its lease when it woke up, which the server takes from whoever held it once, and wrote beside its
// successor.
func TestLateExtensionRevivesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		other, _ := worker(t, env)
		offer(t, q, mirror(0), true)
		late := claim(t, q, 1, 1)[0]
		ended := late.Trust()
		time.Sleep(leaseTime + time.Second)
		successor := claim(t, other, 1, 1)[0]
		if err := late.Extend(t.Context()); err != nil {
			t.Fatalf("extend: %v", err)
		}
		if late.Trust() != ended {
			t.Errorf("trusted until %s, which ended %s ago at the time of the extension", late.Trust(), time.Since(ended))
		}
		before := successor.Trust()
		time.Sleep(time.Second)
		if err := successor.Extend(t.Context()); err != nil || !successor.Trust().After(before) {
			t.Errorf("the successor is not trusted any longer: %v", err)
		}
	})
}

// What somebody else writes into the stream is nobody's task: it is removed, and told.
func TestMessagesThatAreNoTasks(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		var log bytes.Buffer
		q, err := lease.Open(t.Context(), lease.Options{InProcess: env.NATS, LeaseTime: leaseTime, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		conn, err := nats.Connect("", nats.InProcessServer(env.NATS))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		garbage := []string{
			"", "null ", "{", "\x00\xff", `[]`, `{"partition":99999999999}`, `{"version":"1"}`, strings.Repeat("[", 100_000), `{"a":` + strings.Repeat(`{"a":`, 20_000),
			`{"kind":"mirror","flow":"A->B","partition":-5}`, `{"kind":"mirror","flow":"A->B","topic":"` + strings.Repeat("t", 500_000) + `"}`,
		}
		for i, text := range garbage {
			if err := conn.Publish(fmt.Sprintf("kferry.task.garbage.%d", i), []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		if err := conn.Flush(); err != nil {
			t.Fatal(err)
		}
		offer(t, q, mirror(1), true)
		claimed := 0
		for range 20 {
			leases, err := q.Claim(t.Context(), 100, time.Second)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range leases {
				if l.Task.Topic != "" && l.Task.Topic != mirror(1).Topic {
					t.Errorf("claimed %+v", l.Task)
				}
				release(t, l)
			}
			claimed += len(leases)
		}
		if claimed != 2 { // null is a task of nothing, which the worker refuses
			t.Errorf("%d leases are claimed", claimed)
		}
		claim(t, q, 100, 0)
		if n := strings.Count(log.String(), "removed a message that is no task"); n != len(garbage)-1 {
			t.Errorf("%d of %d are told: %.3000s", n, len(garbage)-1, log.String())
		}
		if log.Len() > 20_000 {
			t.Errorf("a log of %d bytes", log.Len())
		}
	})
}

// A count below nothing once ended the process of whoever computed the next pause from it.
func TestStateThatNobodyWrote(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		for _, n := range []int{-5, math.MinInt, math.MaxInt} {
			if err := q.PutState(t.Context(), mirror(0), lease.State{Attempts: n}); err != nil {
				t.Fatal(err)
			}
			if s, _, err := q.State(t.Context(), mirror(0)); err != nil || s.Attempts < 0 || s.Attempts+1 < 0 {
				t.Errorf("%d attempts, %v", s.Attempts, err)
			}
		}
	})
}

// More servers are asked to keep the queue than there are: a new queue isn't created, and one that is there says so of each of its streams
// and stays as it is.
func TestMoreReplicasThanServers(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		open := func() error {
			q, err := lease.Open(t.Context(), lease.Options{InProcess: env.Line(), NATS: spec.NATS{Replicas: 3}, Replicate: true})
			if err == nil {
				q.Close()
			}
			return err
		}
		if err := open(); err == nil || !strings.Contains(err.Error(), "create stream kferry-tasks: ") || !strings.Contains(err.Error(), "NATS_REPLICAS is 3: set it to") {
			t.Errorf("a new queue: %v", err)
		}
		q, _ := worker(t, env)
		err := open()
		for _, stream := range []string{"kferry-tasks", "KV_kferry-cursors", "KV_kferry-states"} {
			if err == nil || !strings.Contains(err.Error(), "set replicas of stream "+stream+": ") {
				t.Errorf("one that is there, without %s: %v", stream, err)
			}
		}
		offer(t, q, mirror(0), true)
		release(t, claim(t, q, 1, 1)[0])
	})
}
