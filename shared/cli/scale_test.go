package cli_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/local"
	"github.com/kferry/kferry/shared/spec"
)

// A coordinator tells KEDA's metrics-api over HTTP, and people in status, how many workers are wanted. Nothing but what is asked for goes to standard output.
func TestScaleOverHTTP(t *testing.T) {
	t.Parallel()
	_, environ := world(t, 30)
	queue, err := local.StartNATS(t.TempDir(), local.NATSListen("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(queue.Close)
	environ = append(environ, "NATS_URL="+queue.URL(), "KFERRY_HTTP=127.0.0.1:0", "KFERRY_SCALE_MAX=7")
	c := begin(t, environ, "coordinator")
	address := regexp.MustCompile(`"?address"?[:=]"?(http://[0-9.:]+)`)
	var at string
	eventually(t, "it listens", func() bool {
		if found := address.FindStringSubmatch(c.err.String()); found != nil {
			at = found[1]
		}
		return at != ""
	})
	ask := func() (s coordinator.Scale, status int) {
		answer, err := http.Get(at + "/scale")
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		if cache := answer.Header.Get("Cache-Control"); cache != "no-store" {
			t.Errorf("Cache-Control is %q", cache)
		}
		if answer.StatusCode == http.StatusOK {
			if kind := answer.Header.Get("Content-Type"); kind != "application/json" {
				t.Errorf("Content-Type is %q", kind)
			}
			if err := json.Unmarshal(text, &s); err != nil {
				t.Fatalf("%v in %s", err, text)
			}
		} else if answer.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(text), "not known") {
			t.Fatalf("%s: %s", answer.Status, text)
		}
		return s, answer.StatusCode
	}
	eventually(t, "one is wanted", func() bool {
		s, _ := ask()
		return s.Desired == 1 && s.BacklogPartitions > 0
	})
	if code, out, text := kferry(t, environ, "status"); code != 0 || !strings.Contains(out, "\n1 worker is wanted since ") {
		t.Errorf("status: exit code %d\n%s%s", code, out, text)
	}
	metrics, err := http.Get(at + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer metrics.Body.Close()
	if text, _ := io.ReadAll(metrics.Body); !strings.Contains(string(text), "\nkferry_desired_workers 1\n") {
		t.Errorf("metrics:\n%s", text)
	}
	if out := fmt.Sprint(&c.out); out != "" {
		t.Errorf("on standard output: %s", out)
	}
}

// An autoscaler asks every fifteen seconds how many workers are wanted, and has so many: for a burst, for a trickle, and while only
// heartbeats come. One worker is killed while it has leases. In the end every record is there once, no worker is, the queue is empty, as KEDA
// sees it too, and the number went up and down once.
func TestWorkersComeAndGo(t *testing.T) {
	inBubble(t, []string{"A", "B"}, func(b *bubble) {
		b.must(b.Kafka("A").CreateTopic("orders", 8, nil))
		s := spec.Spec{
			Name: "kferry", Clusters: []spec.Cluster{b.Spec("A"), b.Spec("B")}, Flows: []spec.Flow{b.flow("A", "B")},
			Heartbeats: []spec.Heartbeat{{Source: "A", Target: "B", Interval: time.Second, ReplicationFactor: -1}, {Source: "X", Target: "A", Interval: time.Second, ReplicationFactor: -1}},
			Settings: spec.Settings{Slots: 1000, Scale: spec.Scale{
				Max: 3, Drain: 10 * time.Second, Rate: 64 * spec.KiB, Down: 60 * time.Second, Idle: 30 * time.Second,
			}},
		}
		b.write("A", "orders", 4000)
		b.coordinate(s)
		b.coordinate(s)
		queue, err := lease.Open(b.ctx, lease.Options{InProcess: b.NATS, Name: s.Name})
		b.must(err)
		defer queue.Close()

		var workers []process
		var counts []int
		scale := func() {
			b.Helper()
			wanted, known := coordinator.LastScale(b.ctx, queue)
			if !known {
				return
			}
			for len(workers) < wanted.Desired {
				workers = append(workers, b.work(s))
			}
			for len(workers) > wanted.Desired {
				workers[len(workers)-1].stop()
				workers = workers[:len(workers)-1]
			}
			if n := len(workers); len(counts) == 0 || counts[len(counts)-1] != n {
				counts = append(counts, n)
			}
		}
		for range 4 {
			time.Sleep(15 * time.Second)
			scale()
		}
		for i := range 8 { // a trickle
			b.write("A", "orders", 3)
			if i == 5 { // and the one that is killed is replaced, as a pod is
				workers[0].kill()
				workers[0] = b.work(s)
			}
			time.Sleep(15 * time.Second)
			scale()
		}
		for range 9 {
			time.Sleep(15 * time.Second)
			scale()
		}
		b.Log("workers in turn:", counts)
		if len(workers) > 0 || slices.Max(counts) < 2 {
			b.Errorf("%d workers at rest; in turn there were %v", len(workers), counts)
		}
		if turns := directions(counts); turns > 1 {
			b.Errorf("%d changes of direction: %v", turns, counts)
		}
		for range 40 {
			time.Sleep(time.Second)
			if depth, err := queue.Depth(b.ctx); err != nil || depth.Waiting+depth.Held+depth.Asking > 0 {
				b.Fatalf("at rest: %+v, %v", depth, err)
			}
		}
		c, err := local.Compare(b.ctx, b.Side("A", "orders"), b.Side("B", "A.orders"))
		b.must(err)
		if !c.Exact() || b.Records("B", "A.orders") != 4024 {
			b.Error(c)
		}
		if tempo, err := queue.Tempo(b.ctx); err != nil || tempo.RecordBytes["A->B"] <= 0 {
			b.Errorf("nobody has measured how long records are: %+v, %v", tempo, err)
		}
	})
}

// directions counts how often numbers turn from growing to shrinking and back.
func directions(counts []int) (turns int) {
	last := 0
	for i := 1; i < len(counts); i++ {
		step := cmp.Compare(counts[i], counts[i-1])
		if last != 0 && step != last {
			turns++
		}
		last = step
	}
	return turns
}
