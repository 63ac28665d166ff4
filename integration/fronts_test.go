package integration

import (
	"context"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kferry/kferry/integration/testbed"
)

// coldWithin is far above what a process takes from its start to its first record; what it did take is in the log.
const coldWithin = 15 * time.Second

const pushToken = "geheim-geheim-geheim"

// quiet is for servers whose handlers break off on purpose.
var quiet = log.New(io.Discard, "", 0)

// The fronts of a worker as processes, over real HTTP.
func TestFronts(t *testing.T) {
	source, target, nats := testbed.Shared(t, testbed.V33), testbed.Shared(t, testbed.V43), testbed.StartNATS(t)
	begin := func(t *testing.T, topic string, partitions int) *installation {
		k := copying(t, source.For(t), target.For(t), topic).over(nats).with("KFERRY_LOG_LEVEL", "info")
		k.source.CreateTopic(topic, partitions, 1)
		return k
	}

	// A worker that is started for one run has its first record on the target soon, for a partition that was never copied and for one that was.
	t.Run("cold start", func(t *testing.T) {
		const topic = "cold"
		k := begin(t, topic, 1)
		k.start("coordinator")
		if code := k.start("worker", "--once").Wait(exitsWithin); code != 0 {
			t.Fatalf("with nothing to do: exit code %d", code)
		}
		testbed.Produce(t, k.source, topic, testbed.Load{Records: 1})
		k.start("worker", "--idle-exit", "2s").Wait(exitsWithin) // also creates the copy
		var took []time.Duration
		for n := range 5 {
			before := k.copied(topic)
			testbed.Produce(t, k.source, topic, testbed.Load{First: 1 + n, Records: 1})
			time.Sleep(1500 * time.Millisecond) // the coordinator looks each second
			began := time.Now()
			worker := k.start("worker", "--once")
			for k.copied(topic) == before && time.Since(began) < coldWithin {
				time.Sleep(2 * time.Millisecond)
			}
			took = append(took, time.Since(began))
			if code := worker.Wait(exitsWithin); code != 0 {
				t.Errorf("exit code %d", code)
			}
		}
		slices.Sort(took)
		t.Logf("from the start of the process to the first record: %s (median of %s)", took[len(took)/2], took)
		if took[len(took)/2] >= coldWithin {
			t.Errorf("took %s", took)
		}
		k.compare(topic)
	})

	t.Run("called, one at a time", func(t *testing.T) { calledFromZero(t, begin(t, "called-1", calledPartitions), "called-1", 3, 1, 3) })
	t.Run("called, ten at a time", func(t *testing.T) { calledFromZero(t, begin(t, "called-10", calledPartitions), "called-10", 2, 10, 2) })
}

const (
	calledPartitions = 8
	calledAtOnce     = 12 // KFERRY_PUSH_MAX
	mostBursts       = 10 // until each trick has been played
)

// Bursts of traffic, between which there is no process at all. Two coordinators call through an activator that loses, doubles, delays and
// reorders calls, one of them is frozen now and then, processes are killed while they answer, and somebody else calls with whatever comes to
// his mind. Each record is copied once and in order, and the calls stay few.
func calledFromZero(t *testing.T, k *installation, topic string, bursts, room, most int) {
	workers := k.with("KFERRY_HTTP_TOKEN", pushToken, "KFERRY_SLOTS", fmt.Sprint(room), "KFERRY_RUN_TIME", "1s")
	a := &activator{t: t, start: func() *testbed.Process { return workers.start("worker", "--push") }, most: most, room: room,
		keep: 500 * time.Millisecond, tricks: tricksOf(seeded(t))}
	defer a.serve(room > 1)()
	callers := k.with("KFERRY_PUSH_URL", a.server.URL, "KFERRY_PUSH_TOKEN", pushToken, "KFERRY_PUSH_MAX", fmt.Sprint(calledAtOnce), "KFERRY_RUN_TIME", "1s")
	if room > 1 {
		callers.env["SSL_CERT_FILE"] = a.authority()
	}
	began := time.Now()
	coordinators := []*testbed.Process{callers.start("coordinator"), callers.start("coordinator")}
	load := testbed.Load{ValueBytes: 200, BatchBytes: 2 << 10}
	for burst := 0; burst < bursts || burst < mostBursts && a.untried(); burst++ {
		frozen := coordinators[burst%2]
		frozen.Pause()
		flow := traffic(k, topic, load, 500, 1000)
		if burst == 0 {
			a.breaks()
		} else {
			a.strike(burst%2 == 0) // SIGTERM, then SIGKILL
		}
		forge(t, a)
		k.grows(topic, 500)
		load.First = flow.Stop()
		frozen.Unpause()
		k.await(topic)
		t.Logf("burst %d is copied after %s", burst, time.Since(began).Round(100*time.Millisecond))
		a.rests()
	}
	elapsed := time.Since(began)
	for _, c := range coordinators {
		k.stop(c)
		if strings.Contains(c.Output(), pushToken) {
			t.Error("the token is in the log of a coordinator")
		}
	}
	k.compare(topic)
	a.account(bursts, elapsed)
}

// account demands that all has happened that was to happen, and that calls were few: each partition is looked at once a second, so that its
// task is offered once a second at most, and called for again a second later at most. The copy's topic is a task too.
func (a *activator) account(bursts int, elapsed time.Duration) {
	a.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.t.Logf("in %s: %d processes, %d times none, %d calls broken by a kill; %v; answers %v",
		elapsed.Round(time.Second), a.started, a.zeros, a.broken, a.tricked, a.answers)
	few := (calledPartitions + 1) * int(elapsed/time.Second+1)
	for name, c := range a.callers {
		a.t.Logf("coordinator %.4s called %d times, %d at one time; few is %d", name, c.calls, c.most, few)
		if c.calls > few || c.most > calledAtOnce {
			a.t.Error("these are too many calls")
		}
	}
	if len(a.callers) != 2 || a.zeros < bursts || a.started <= bursts || len(a.tricked) <= len(tricks) {
		a.t.Error("that is not what was to happen")
	}
}

// forge sends what no coordinator does. What has no token is not let in, what is no event is refused, and an event, whatever it says, finds work
// or nothing.
func forge(t *testing.T, a *activator) {
	t.Helper()
	event := map[string]string{"Ce-Specversion": "1.0", "Ce-Id": "forged", "Ce-Source": "//elsewhere", "Ce-Type": "com.github.kferry.task.offered.v1",
		"Ce-Subject": "kferry-tasks.mirror.no.such.1", "Authorization": "Bearer " + pushToken}
	with := func(changes ...string) map[string]string {
		all := maps.Clone(event)
		for i := 0; i < len(changes); i += 2 {
			if all[changes[i]] = changes[i+1]; changes[i+1] == "" {
				delete(all, changes[i])
			}
		}
		return all
	}
	whole := with("Ce-Specversion", "", "Ce-Id", "", "Content-Type", "application/cloudevents+json")
	found := []int{http.StatusOK, http.StatusNoContent, http.StatusTooManyRequests}
	var all sync.WaitGroup
	defer all.Wait()
	for name, f := range map[string]struct {
		method, path string
		header       map[string]string
		body         string
		want         []int
	}{
		"an event":               {http.MethodPost, "/", event, "", found},
		"with data":              {http.MethodPost, "/", with("Content-Type", "application/json"), `{"offset":0,"partition":-1}`, found},
		"about another flow":     {http.MethodPost, "/", whole, `{"specversion":"1.0","id":"1","source":"/s","type":"t","subject":"x.mirror.A-=3EB.orders.0","data":{"claim":"all"}}`, found},
		"no token":               {http.MethodPost, "/", with("Authorization", ""), "", []int{http.StatusUnauthorized}},
		"another token":          {http.MethodPost, "/", with("Authorization", "Bearer geheim-geheim-geheim-"), "", []int{http.StatusUnauthorized}},
		"another scheme":         {http.MethodPost, "/", with("Authorization", "Basic "+pushToken), "", []int{http.StatusUnauthorized}},
		"a page of another site": {http.MethodPost, "/", with("Sec-Fetch-Site", "cross-site"), "", []int{http.StatusForbidden}},
		"GET":                    {http.MethodGet, "/", event, "", []int{http.StatusMethodNotAllowed}},
		"HEAD":                   {http.MethodHead, "/", event, "", []int{http.StatusMethodNotAllowed}},
		"DELETE":                 {http.MethodDelete, "/", event, "", []int{http.StatusMethodNotAllowed}},
		"elsewhere":              {http.MethodPost, "/claim", event, "", []int{http.StatusNotFound}},
		"no event":               {http.MethodPost, "/", with("Ce-Id", ""), "", []int{http.StatusBadRequest}},
		"nonsense":               {http.MethodPost, "/", whole, "}\x00{", []int{http.StatusBadRequest}},
		"a batch":                {http.MethodPost, "/", with("Content-Type", "application/cloudevents-batch+json"), `[]`, []int{http.StatusUnsupportedMediaType}},
		"a large one":            {http.MethodPost, "/", event, strings.Repeat("x", 600<<10), []int{http.StatusRequestEntityTooLarge}},
		"a large header":         {http.MethodPost, "/", with("Ce-Subject", strings.Repeat("x", 64<<10)), "", []int{http.StatusRequestHeaderFieldsTooLarge}},
	} {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), copyWithin)
			defer cancel()
			request, err := http.NewRequestWithContext(ctx, f.method, a.server.URL+f.path, strings.NewReader(f.body))
			if err != nil {
				t.Error(err)
				return
			}
			for name, value := range f.header {
				request.Header.Set(name, value)
			}
			response, err := a.server.Client().Do(request)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			response.Body.Close()
			if !slices.Contains(f.want, response.StatusCode) {
				t.Errorf("%s: %s, want %v", name, response.Status, f.want)
			}
		})
	}
}
