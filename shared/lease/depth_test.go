package lease_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/sync/errgroup"

	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/local"
)

// KEDA's nats-jetstream scaler asks NATS' monitoring for the consumer and adds up what it has pending: none at rest, one for each task that
// waits or is held, also after the worker that held some was killed, and none again when they are done. The consumer is there from the
// first, without which KEDA would take the stream's last sequence for the load.
func TestDepthAsKEDASeesIt(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		want := func(waiting, held int) {
			t.Helper()
			time.Sleep(time.Second)
			if got := kedaLag(t, env); got != int64(waiting+held) {
				t.Errorf("KEDA sees %d, want %d", got, waiting+held)
			}
			if d, err := q.Depth(t.Context()); err != nil || d.Waiting != waiting || d.Held != held || time.Since(d.At).Abs() > time.Second {
				t.Errorf("depth %+v, %v, want %d waiting and %d held", d, err, waiting, held)
			}
		}
		want(0, 0)
		for n := range 5 {
			offer(t, q, mirror(n), true)
			offer(t, q, mirror(n), false)
		}
		want(5, 0)
		dying, line := worker(t, env)
		claim(t, dying, 2, 2)
		want(3, 2)
		line.Cut()
		time.Sleep(3 * leaseTime)
		want(3, 2) // nobody has claimed them again
		for _, l := range claim(t, q, 5, 5) {
			release(t, l)
		}
		want(0, 0)
	})
}

// kedaLag is what KEDA's scaler computes (getMaxMsgLag in its nats_jetstream_scaler.go) from what it asks for.
func kedaLag(t *testing.T, env *local.Env) int64 {
	t.Helper()
	answer := httptest.NewRecorder()
	env.NATS.Monitor(answer, httptest.NewRequest(http.MethodGet, "/jsz?acc="+server.DEFAULT_GLOBAL_ACCOUNT+"&consumers=true&config=true", nil))
	var jsz struct {
		Accounts []struct {
			Name    string `json:"name"`
			Streams []struct {
				Name  string `json:"name"`
				State struct {
					LastSequence int64 `json:"last_seq"`
				} `json:"state"`
				Consumers []struct {
					Name          string `json:"name"`
					NumAckPending int64  `json:"num_ack_pending"`
					NumPending    int64  `json:"num_pending"`
				} `json:"consumer_detail"`
			} `json:"stream_detail"`
		} `json:"account_details"`
	}
	if err := json.Unmarshal(answer.Body.Bytes(), &jsz); err != nil {
		t.Fatal(err)
	}
	for _, a := range jsz.Accounts {
		for _, s := range a.Streams {
			if a.Name != server.DEFAULT_GLOBAL_ACCOUNT || s.Name != "kferry-tasks" {
				continue
			}
			for _, c := range s.Consumers {
				if c.Name == "workers" {
					return c.NumPending + c.NumAckPending
				}
			}
			return s.State.LastSequence
		}
	}
	t.Fatalf("no stream in %s", answer.Body)
	return 0
}

// Of two processes that have read the same, one writes, and the other one learns that it was late. Both survive NATS' restart.
func TestSlate(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		other, _ := worker(t, env)
		mine, theirs := q.Slate("x"), other.Slate("x")
		read := func(s lease.Slate, want int) uint64 {
			t.Helper()
			var n int
			revision, err := s.Read(t.Context(), &n)
			if err != nil || n != want {
				t.Fatalf("read %d, %v, want %d", n, err, want)
			}
			return revision
		}
		if r := read(mine, 0); r != 0 {
			t.Errorf("nothing has revision %d", r)
		}
		first, err := mine.Write(t.Context(), 1, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, late := range []uint64{0, first - 1} {
			if _, err := theirs.Write(t.Context(), 2, late); !errors.Is(err, lease.ErrLost) {
				t.Errorf("written on revision %d: %v", late, err)
			}
		}
		if _, err := theirs.Write(t.Context(), 3, read(theirs, 1)); err != nil {
			t.Error(err)
		}
		env.NATS.Stop()
		if err := env.NATS.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		read(mine, 3)
		broken := q.Slate("broken") // of what is no such value nothing is taken
		written, err := broken.Write(t.Context(), map[string]any{"peak": 5, "rate": "fast"}, 0)
		if err != nil {
			t.Fatal(err)
		}
		tempo := lease.Tempo{Rate: 3}
		if revision, err := broken.Read(t.Context(), &tempo); err != nil || revision != written || tempo.Rate != 3 || tempo.Peak != 0 {
			t.Errorf("read %+v of revision %d, %v", tempo, revision, err)
		}
	})
}

// What is faster than all before shows at once, what is slower little by little, and only from workers that could not be faster. Where
// none has enough to do, it is hoped that they are as fast as ever.
func TestTempo(t *testing.T) {
	copied := map[string]lease.Copied{"A->B": {Records: 10, Bytes: 1000}}
	tempo := lease.Tempo{}.With(lease.Stint{Flows: copied}).With(lease.Stint{Rate: 3})
	if tempo.Rate != 0 || tempo.RecordBytes["A->B"] != 100 {
		t.Errorf("of a worker with little to do, and of slow partitions: %+v", tempo)
	}
	tempo = tempo.With(lease.Stint{Rate: 5, Full: true})
	if tempo = tempo.With(lease.Stint{Rate: 50}); tempo.Rate != 50 {
		t.Errorf("of a faster one: %+v", tempo)
	}
	if tempo = tempo.With(lease.Stint{Rate: 1}); tempo.Rate != 50 {
		t.Errorf("of slow partitions: %+v", tempo)
	}
	before := tempo
	for range 20 {
		tempo = tempo.With(lease.Stint{Rate: 10, Full: true, Flows: map[string]lease.Copied{"A->B": {Records: 1, Bytes: 200}, "C->B": {}}})
	}
	if tempo.Rate < 10 || tempo.Rate > 16 || tempo.RecordBytes["A->B"] < 180 || tempo.RecordBytes["C->B"] != 0 {
		t.Errorf("of a slower one: %+v", tempo)
	}
	if before.RecordBytes["A->B"] != 100 {
		t.Error("a tempo has changed")
	}
	if soon := tempo.With(lease.Stint{}); soon.Rate <= tempo.Rate || soon.Rate > tempo.Rate*1.01 {
		t.Errorf("after one stint with little to do: %+v", soon)
	}
	if soon := tempo.With(lease.Stint{Short: true}); soon.Rate != tempo.Rate {
		t.Errorf("after a short one: %+v", soon)
	}
	for range 1000 {
		tempo = tempo.With(lease.Stint{})
	}
	if tempo.Rate != 50 {
		t.Errorf("after many: %+v", tempo)
	}
}

// Workers that end their stints at one moment are all counted.
func TestStintsAreCounted(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		var workers errgroup.Group
		for n := range 3 {
			q, _ := worker(t, env)
			workers.Go(func() error {
				return q.CountStint(t.Context(), lease.Stint{Rate: float64(n + 1), Full: true, Flows: map[string]lease.Copied{fmt.Sprint(n): {Records: 1, Bytes: 7}}})
			})
		}
		if err := workers.Wait(); err != nil {
			t.Fatal(err)
		}
		q, _ := worker(t, env)
		if tempo, err := q.Tempo(t.Context()); err != nil || tempo.Peak < tempo.Rate || tempo.Rate < 1 || len(tempo.RecordBytes) != 3 {
			t.Errorf("%+v, %v", tempo, err)
		}
	})
}
