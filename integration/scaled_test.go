package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/kferry/kferry/integration/testbed"
)

const (
	followEvery = 500 * time.Millisecond // how often the autoscaler asks
	scaleWithin = 2 * time.Minute        // for what the coordinators decide within some ten seconds
)

// An autoscaler knows nothing but how many workers are wanted, which it asks one coordinator and then the next, and how to start and stop
// one.
type autoscaler struct {
	t            *testing.T
	coordinators []string // where they listen
	start        func() worker
	workers      []worker // that run

	asked   int
	last    scale
	numbers []int // that were wanted, one after the other
	ended   []worker
}

// A worker is one in a container or not.
type worker interface {
	Output() string
	Term()
	Kill()
	Wait(time.Duration) int
}

// A scale is what GET /scale answers.
type scale struct {
	Desired   int       `json:"desired_workers"`
	Reason    string    `json:"reason"`
	Waiting   int       `json:"waiting"`
	InFlight  int       `json:"in_flight"`
	DecidedAt time.Time `json:"decided_at"`
}

// ask is false while nobody knows.
func (a *autoscaler) ask() (s scale, known bool) {
	a.t.Helper()
	client := http.Client{Timeout: soon}
	answer, err := client.Get(a.coordinators[a.asked%len(a.coordinators)] + "/scale")
	a.asked++
	if err != nil {
		a.t.Fatalf("ask how many workers are wanted: %v", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return scale{}, false
	}
	if err := json.NewDecoder(answer.Body).Decode(&s); err != nil {
		a.t.Fatalf("how many workers are wanted: %v", err)
	}
	if s.DecidedAt.Before(a.last.DecidedAt) {
		return a.last, true // the next coordinator learns of a decision within a second
	}
	a.last = s
	return s, true
}

// follow does once what is wanted.
func (a *autoscaler) follow() scale {
	a.t.Helper()
	s, known := a.ask()
	if !known {
		return s // it keeps what it has
	}
	if len(a.numbers) == 0 || a.numbers[len(a.numbers)-1] != s.Desired {
		a.numbers = append(a.numbers, s.Desired)
		a.t.Logf("%d workers are wanted: %s", s.Desired, s.Reason)
	}
	for len(a.workers) < s.Desired {
		a.workers = append(a.workers, a.start())
	}
	for len(a.workers) > s.Desired {
		a.leave(len(a.workers) - 1).Term()
	}
	return s
}

// leave takes a worker out of those that run.
func (a *autoscaler) leave(i int) worker {
	w := a.workers[i]
	a.workers = append(a.workers[:i:i], a.workers[i+1:]...)
	a.ended = append(a.ended, w)
	return w
}

// until follows until something is so.
func (a *autoscaler) until(what string, ok func(scale) bool) {
	a.t.Helper()
	began := time.Now()
	for s := a.follow(); !ok(s); s = a.follow() {
		if time.Since(began) > scaleWithin {
			a.t.Fatalf("no %s within %s: %d wanted of %v: %s", what, scaleWithin, s.Desired, a.numbers, s.Reason)
		}
		pass(a.t, followEvery)
	}
	a.t.Logf("%s after %s", what, time.Since(began).Round(100*time.Millisecond))
}

// The founding scenario, with two coordinators and workers that an autoscaler starts and stops as /scale says: none, four for a backlog, one
// for what comes, none. While there are four, one after the other is killed, by SIGTERM or SIGKILL, and so is the one, in the midst of what
// comes. The target has each record once, and in order.
func TestScaledWorkers(t *testing.T) {
	const (
		most               = 4
		orders, payments   = "scaled-orders", "scaled-payments"
		backlog, perSecond = 18_000, 100
		trickle            = perSecond // that are to come and be copied while there is one worker
		quiet              = 10 * time.Second
	)
	nats, random := testbed.StartNATS(t), seeded(t)
	w := newWorld(t, testbed.Shared(t, testbed.V43))
	w.dc1.CreateTopic(orders, 4, 1)
	w.dc2.CreateTopic(payments, 4, 1)
	load := testbed.Load{ValueBytes: 1000, BatchBytes: 16 << 10, Records: backlog}
	testbed.Produce(t, w.dc1, orders, load)
	testbed.Produce(t, w.dc2, payments, load)
	load.Records, load.First = 0, backlog
	flows := []*testbed.Traffic{testbed.Live(t, w.dc1, orders, load, perSecond), testbed.Live(t, w.dc2, payments, load, perSecond)}

	env := map[string]string{
		"KFERRY_MIRROR":      w.resource(orders, payments),
		"KFERRY_NAME":        "scaled",
		"KFERRY_HTTP":        "127.0.0.1:0",
		"KFERRY_LEASE":       leaseTime.String(),
		"KFERRY_SLOTS":       "4", // so that no worker can have all partitions
		"KFERRY_SCALE_MAX":   fmt.Sprint(most),
		"KFERRY_SCALE_DRAIN": "10s", // of 18 MB of either flow, at half a MiB/s a worker: that takes four
		"KFERRY_SCALE_RATE":  "512KiB",
		"KFERRY_SCALE_DOWN":  quiet.String(),
		"KFERRY_SCALE_IDLE":  quiet.String(),
		"NATS_URL":           nats.URL(),
	}
	a := &autoscaler{t: t, start: func() worker {
		w := testbed.Kferry(t, []string{"worker"}, env)
		addressOf(t, w) // what is told to end before it has begun has another exit code
		return w
	}}
	for range 2 {
		a.coordinators = append(a.coordinators, addressOf(t, testbed.Kferry(t, []string{"coordinator"}, env)))
	}
	a.until("four workers", func(s scale) bool { return s.Desired == most })

	signals := []string{"SIGTERM", "SIGTERM", "SIGTERM", "SIGKILL", "SIGKILL", "SIGKILL"}
	random.Shuffle(len(signals), func(i, j int) { signals[i], signals[j] = signals[j], signals[i] })
	for _, signal := range signals {
		pass(t, time.Duration(random.Int64N(int64(2*time.Second))))
		a.until("a worker to kill", func(scale) bool { return len(a.workers) > 0 })
		worker := a.leave(random.IntN(len(a.workers)))
		t.Logf("%s to one of %d workers", signal, len(a.workers)+1)
		if signal == "SIGKILL" {
			worker.Kill()
		} else {
			worker.Term()
		}
	}
	a.until("one worker", func(s scale) bool { return s.Desired == 1 })
	trickles := func(what string) {
		due := [...]int64{int64(backlog + flows[0].Sent() + trickle), int64(backlog + flows[1].Sent() + trickle)}
		a.until(what, func(s scale) bool {
			if s.Desired == 0 {
				t.Errorf("no worker is wanted while records come: %s", s.Reason)
			}
			return ends(t, w.central, "kafka-dc-1."+orders) >= due[0] && ends(t, w.central, "kafka-dc-2."+payments) >= due[1]
		})
	}
	trickles("what comes, copied by one")
	a.leave(0).Kill()
	trickles("what comes, copied by another one")
	next := flows[0].Stop()
	sent := flows[0].Sent() + flows[1].Stop() - backlog
	a.until("no worker", func(s scale) bool { return s.Desired == 0 && s.Waiting+s.InFlight == 0 })
	for i, worker := range a.ended {
		if code := worker.Wait(exitsWithin); code != 0 && code != 137 { // kill -9 has the latter
			t.Errorf("exit code %d of worker %d", code, i)
		}
	}
	t.Logf("workers wanted: %v; %d started and ended, 7 of them killed; %d records came meanwhile", a.numbers, len(a.ended), sent)
	w.compare(t, orders, payments)

	began, copied := time.Now(), ends(t, w.central, "kafka-dc-1."+orders)
	testbed.Produce(t, w.dc1, orders, testbed.Load{First: next, Records: 1})
	a.until("a worker again", func(s scale) bool { return s.Desired > 0 })
	testbed.Eventually(t, copyWithin, "the record", func() bool { return ends(t, w.central, "kafka-dc-1."+orders) > copied })
	t.Logf("from no worker: the first record was copied %s after it came", time.Since(began).Round(10*time.Millisecond))
	w.compare(t, orders, payments)
}
