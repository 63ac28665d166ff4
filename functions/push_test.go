package functions_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/functions"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// A called worker is one that works when it is called.
type called struct {
	*process
	push *functions.Push
}

// called starts one, whose runs have bounds.
func (w *world) called(slots int, bounds spec.Front) *called {
	w.Helper()
	c := &called{}
	c.process = w.workerWith(func(o *functions.Options) {
		o.Slots, o.Spec.Settings.Front = slots, bounds
	}, func(worker *functions.Worker) func(context.Context) error {
		c.push = functions.NewPush(worker)
		return c.push.Run
	})
	synctest.Wait() // until it takes calls
	return c
}

type answered struct {
	status                  int
	retry, text             string
	Claimed, Records, Bytes int64
	Left                    *int
}

// call sends an event in binary mode.
func (c *called) call(ctx context.Context) answered {
	return c.send(ctx, "", "", "specversion", "1.0", "id", "1", "source", "/test", "type", "com.example.test.v1")
}

func (c *called) send(ctx context.Context, form, body string, attributes ...string) (a answered) {
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(body))
	if form != "" {
		r.Header.Set("Content-Type", form)
	}
	for i := 0; i < len(attributes); i += 2 {
		r.Header.Add("ce-"+attributes[i], attributes[i+1])
	}
	recorder := httptest.NewRecorder()
	c.push.ServeHTTP(recorder, r)
	a.status, a.retry, a.text = recorder.Code, recorder.Header().Get("Retry-After"), recorder.Body.String()
	if a.status == http.StatusOK {
		c.w.must(json.Unmarshal([]byte(a.text), &a))
	}
	return a
}

// callAtOnce calls so many times at one moment.
func (c *called) callAtOnce(n int) []answered {
	all := make([]answered, n)
	var calls sync.WaitGroup
	for i := range all {
		calls.Go(func() { all[i] = c.call(context.Background()) })
	}
	calls.Wait()
	return all
}

// free demands that nothing is held while nobody calls.
func (c *called) free() {
	c.w.Helper()
	if n := c.count("kferry_leases_held"); n != 0 {
		c.w.Errorf("%d leases are held without a call", n)
	}
}

func (w *world) waiting() int {
	w.Helper()
	time.Sleep(time.Second) // the answer may be a quarter of a second old
	n, err := w.queue.Waiting(w.Context())
	w.must(err)
	return n
}

// A call copies what waits, says so, and leaves nothing held; without a call nothing is claimed.
func TestCallDoesOneRun(t *testing.T) {
	inWorld(t, setup{partitions: 3}, func(w *world) {
		c := w.called(1, spec.Front{})
		w.write(300)
		for p := range w.partitions {
			w.offer(p)
		}
		time.Sleep(10 * time.Second)
		if n := w.waiting(); n != 3 || w.targetEnd(0) != 0 {
			t.Fatalf("%d tasks wait before anybody calls, %d records are copied", n, w.targetEnd(0))
		}
		began := time.Now()
		a := c.call(w.Context())
		if a.status != 200 || a.Claimed != 3 || a.Records != 300 || a.Bytes <= 0 || a.Left == nil || *a.Left != 0 {
			t.Errorf("%+v", a)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it took %s", took)
		}
		c.free()
		if a := c.call(w.Context()); a.status != 204 || a.text != "" {
			t.Errorf("with nothing to do: %+v", a)
		}
		w.exact()
	})
}

// Ten calls at one time copy ten partitions side by side, and an eleventh is told to come back.
func TestCallsAtOneTime(t *testing.T) {
	for _, slots := range []int{1, 10} {
		t.Run(fmt.Sprint(slots), func(t *testing.T) {
			inWorld(t, setup{partitions: 10}, func(w *world) {
				c := w.called(slots, spec.Front{RunTime: 5 * time.Second})
				w.stream(12 * time.Second)
				for round := range 5 {
					w.offerBehind()
					taken, worked := 0, 0
					for _, a := range c.callAtOnce(slots + 3) {
						switch {
						case a.status == http.StatusTooManyRequests && a.retry == "1":
							taken++
						case a.status == http.StatusOK && a.Claimed > 0:
							worked++
						case a.status != http.StatusNoContent:
							t.Errorf("round %d: %+v", round, a)
						}
					}
					if taken != 3 || worked == 0 {
						t.Errorf("round %d: %d calls were told to come back, %d worked", round, taken, worked)
					}
					c.free()
					time.Sleep(3 * time.Second)
				}
				w.eventually("the copy is complete", func() bool {
					done := w.offerBehind()
					c.callAtOnce(slots)
					return done
				})
				w.exact()
			})
		})
	}
}

// Two workers get every call twice and in any order, calls for what is not there, and some calls never come.
func TestDoubledLostAndForgedCalls(t *testing.T) {
	inWorld(t, setup{partitions: 4}, func(w *world) {
		one, other := w.called(4, spec.Front{RunTime: 2 * time.Second}), w.called(4, spec.Front{RunTime: 2 * time.Second})
		w.stream(20 * time.Second)
		w.eventually("the copy is complete", func() bool {
			done := w.offerBehind()
			if w.serial.Add(1)%3 == 0 {
				return done // lost
			}
			var calls sync.WaitGroup
			for _, c := range []*called{other, one, one, other} {
				calls.Go(func() { c.call(context.Background()) })
				calls.Go(func() {
					c.send(context.Background(), "", "", "specversion", "1.0", "id", "forged", "source", "//evil", "type", "x", "subject", "kferry.task.mirror.nobody.nothing.0")
				})
			}
			calls.Wait()
			one.free()
			other.free()
			time.Sleep(500 * time.Millisecond)
			return done && w.sourceEnd(0) > 400
		})
		w.exact()
	})
}

// A run ends when its time or its bytes are used up, with work left, which waits again.
func TestCallKeepsItsBounds(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.writeBatches(100, 10)
		w.env.Kafka("B").ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
			w.env.Kafka("B").KeepControl()
			w.env.Kafka("B").SleepControl(func() { time.Sleep(500 * time.Millisecond) })
			return nil, nil, false
		})
		c := w.called(1, spec.Front{RunTime: 5 * time.Second, RunBytes: spec.GiB})
		w.offer(0)
		began := time.Now()
		if a := c.call(w.Context()); a.status != 200 || a.Records == 0 {
			t.Errorf("%+v", a)
		}
		if took := time.Since(began); took < 4*time.Second || took > 8*time.Second {
			t.Errorf("a run of 5 s took %s", took)
		}
		if n := w.waiting(); n != 1 {
			t.Errorf("%d tasks wait", n)
		}
		few := w.called(1, spec.Front{RunTime: time.Minute, RunBytes: 100})
		began = time.Now()
		if a := few.call(w.Context()); a.status != 200 || a.Bytes < 100 || a.Claimed != 1 {
			t.Errorf("%+v", a)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("a run of 100 bytes took %s", took)
		}
		few.free()
	})
}

// The target lacks replicas for longer than a run lasts. Run after run ends without a record, and the state says why, until they are there.
func TestRunsThatAreTooShortSayWhatTheyWaitFor(t *testing.T) {
	for name, fault := range map[string]func(w *world, over time.Time){
		"for what has landed to be replicated": func(w *world, over time.Time) {
			w.env.Kafka("B").ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
				request := req.(*kmsg.ListOffsetsRequest)
				if request.Topics[0].Topic != replica || request.Topics[0].Partitions[0].Timestamp != kafka.Latest || time.Now().After(over) {
					return nil, nil, false
				}
				w.env.Kafka("B").KeepControl()
				return listed(request, 20), nil, true
			})
		},
		"for the next batch to be taken": func(w *world, over time.Time) {
			stop := w.env.Kafka("B").Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: replica, Err: kerr.NotEnoughReplicas, Count: -1})
			time.AfterFunc(time.Until(over), stop.Remove)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				w.writeBatches(6, 10)
				w.killAt(position{"B", kmsg.Produce, replica, 3}, w.worker(0), true)
				time.Sleep(leaseTime)
				over := time.Now().Add(time.Minute)
				fault(w, over)
				c := w.called(1, spec.Front{RunTime: 300 * time.Millisecond})
				for attempts := 1; time.Now().Before(over.Add(-5 * time.Second)); attempts++ {
					c.call(w.Context())
					s, failed := w.state(0)
					if !failed || s.Held || s.Reason != lease.ReasonError || !strings.Contains(s.Detail, kafka.ErrNotEnoughReplicas.Error()) || s.Attempts != attempts {
						t.Fatalf("after call %d: %+v", attempts, s)
					}
					time.Sleep(time.Until(s.Next))
					w.offerReleased(0)
				}
				time.Sleep(time.Until(over))
				w.eventually("goes on", func() bool {
					c.call(w.Context())
					return w.offerBehind()
				})
				if s, failed := w.state(0); failed {
					t.Errorf("in the end: %+v", s)
				}
				w.exact()
			})
		})
	}
}

// A source that takes longer to send anything than a run may is no secret either.
func TestRunsThatHearNothingOfTheSourceSaySo(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.write(10)
		var slow atomic.Bool
		slow.Store(true)
		w.env.Kafka("A").ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
			w.env.Kafka("A").KeepControl()
			if slow.Load() {
				w.env.Kafka("A").SleepControl(func() { time.Sleep(1500 * time.Millisecond) })
			}
			return nil, nil, false
		})
		c := w.called(1, spec.Front{RunTime: time.Second})
		for attempts := 1; attempts <= 3; attempts++ {
			w.offerReleased(0)
			c.call(w.Context())
			s, failed := w.state(0)
			if !failed || s.Held || s.Attempts != attempts || !strings.Contains(s.Detail, "KFERRY_RUN_TIME") {
				t.Fatalf("after call %d: %+v", attempts, s)
			}
			time.Sleep(time.Until(s.Next))
		}
		slow.Store(false)
		w.eventually("goes on", func() bool {
			c.call(w.Context())
			return w.offerBehind()
		})
		w.exact()
	})
}

// A run that does not even find its position in its time has failed: its state says why, and it is tried again later.
func TestCallThatDoesNotEndFails(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.write(10)
		for _, alias := range []string{"A", "B"} {
			w.env.Kafka(alias).ControlKey(int16(kmsg.ListOffsets), func(kmsg.Request) (kmsg.Response, error, bool) {
				w.env.Kafka(alias).KeepControl()
				w.env.Kafka(alias).SleepControl(func() { time.Sleep(7 * time.Second) })
				return nil, nil, false
			})
		}
		c := w.called(1, spec.Front{RunTime: 2 * time.Second})
		w.offer(0)
		began := time.Now()
		if a := c.call(w.Context()); a.status != 200 || a.Claimed != 1 || a.Records != 0 {
			t.Errorf("%+v", a)
		}
		if took := time.Since(began); took < 11*time.Second || took > 15*time.Second {
			t.Errorf("it took %s", took)
		}
		s, failed := w.state(0)
		if !failed || s.Reason != lease.ReasonError || !strings.Contains(s.Detail, "did not end within 10s after its time was used up: ") || !s.Next.After(time.Now()) {
			t.Errorf("%+v", s)
		}
		if n := w.waiting(); n != 0 {
			t.Errorf("%d tasks wait", n)
		}
		time.Sleep(time.Minute) // until nobody sleeps
	})
}

// Who calls and doesn't wait for the answer has no lease held for it.
func TestCallerHangsUp(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.slowStream(30 * time.Second)
		w.env.Kafka("B").ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
			w.env.Kafka("B").KeepControl()
			w.env.Kafka("B").SleepControl(func() { time.Sleep(time.Second) })
			return nil, nil, false
		})
		c := w.called(1, spec.Front{})
		time.Sleep(5 * time.Second)
		w.offer(0)
		ctx, hangUp := context.WithTimeout(w.Context(), 3*time.Second)
		defer hangUp()
		began := time.Now()
		c.call(ctx)
		if took := time.Since(began); took > 7*time.Second {
			t.Errorf("it went on for %s", took)
		}
		c.free()
	})
}

// A server that gives whoever talks to it less time than a run takes has the answer go out all the same, and notices who hangs up.
func TestRunsLongerThanTheServersTime(t *testing.T) {
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(protocol, func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				const event = `{"specversion":"1.0","id":"1","source":"/s","type":"t"}`
				var protocols http.Protocols
				protocols.SetHTTP1(protocol == "HTTP/1.1")
				protocols.SetUnencryptedHTTP2(protocol == "HTTP/2.0")
				c, conns := w.called(1, spec.Front{RunTime: time.Minute}), make(pipes)
				server := &http.Server{Handler: c.push, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, Protocols: &protocols}
				served := make(chan error)
				go func() { served <- server.Serve(conns) }()
				defer func() {
					server.Close()
					<-served
				}()
				transport := &http.Transport{DialContext: conns.dial, Protocols: &protocols}
				defer transport.CloseIdleConnections()
				call := func(ctx context.Context, body io.Reader, header http.Header) error {
					r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://worker/", body)
					w.must(err)
					r.Header = header
					answer, err := transport.RoundTrip(r)
					if err != nil {
						return err
					}
					defer answer.Body.Close()
					var done answered
					if err := json.NewDecoder(answer.Body).Decode(&done); err != nil || done.Claimed != 1 || done.Records < 100 || answer.Proto != protocol {
						t.Errorf("%s %+v, %v", answer.Proto, done, err)
					}
					return nil
				}
				w.writeBatches(100, 10)
				w.env.Kafka("B").ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
					w.env.Kafka("B").KeepControl()
					w.env.Kafka("B").SleepControl(func() { time.Sleep(time.Second) })
					return nil, nil, false
				})
				w.offer(0)
				began := time.Now()
				w.must(call(w.Context(), strings.NewReader(event), http.Header{"Content-Type": {"application/cloudevents+json"}}))
				if took := time.Since(began); took < 55*time.Second || took > 70*time.Second {
					t.Errorf("a run of a minute was answered after %s", took)
				}
				hangUp, cancel := context.WithTimeout(w.Context(), 15*time.Second)
				defer cancel()
				if err := call(hangUp, nil, http.Header{"Ce-Specversion": {"1.0"}, "Ce-Id": {"1"}, "Ce-Source": {"/s"}, "Ce-Type": {"t"}}); err == nil {
					t.Error("an answer within 15 s")
				}
				time.Sleep(5 * time.Second)
				c.free()
			})
		})
	}
}

// pipes is a listener in this process.
type pipes chan net.Conn

func (p pipes) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	p <- server
	return client, nil
}

// Accept implements net.Listener.
func (p pipes) Accept() (net.Conn, error) {
	if conn, open := <-p; open {
		return conn, nil
	}
	return nil, net.ErrClosed
}

// Close implements net.Listener.
func (p pipes) Close() error {
	close(p)
	return nil
}

// Addr implements net.Listener.
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// A worker that is told to stop ends what is under way, answers it, and sends others away.
func TestCallsWhileDraining(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.writeBatches(50, 10)
		w.stream(20 * time.Second)
		w.env.Kafka("B").ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
			w.env.Kafka("B").KeepControl()
			w.env.Kafka("B").SleepControl(func() { time.Sleep(300 * time.Millisecond) })
			return nil, nil, false
		})
		c := w.called(2, spec.Front{})
		w.offer(0)
		under := make(chan answered, 1)
		go func() { under <- c.call(context.Background()) }()
		time.Sleep(2 * time.Second)
		c.stop()
		time.Sleep(time.Millisecond)
		if a := c.call(w.Context()); a.status != http.StatusServiceUnavailable || a.retry == "" {
			t.Errorf("while it drains: %+v", a)
		}
		began := time.Now()
		<-c.done
		if took := time.Since(began); took > time.Second {
			t.Errorf("drained in %s", took)
		}
		if a := <-under; a.status != 200 || a.Claimed != 1 || a.Records == 0 {
			t.Errorf("the call under way: %+v", a)
		}
		if n := w.waiting(); n != 1 {
			t.Errorf("%d tasks wait", n)
		}
		if c := w.published(0); c.Target != w.targetEnd(0) {
			t.Errorf("the target ends at %d, the cursor is %+v", w.targetEnd(0), c)
		}
	})
}

// The call that a worker is started for comes before it has begun, and is not sent away.
func TestCallBeforeTheWorkerBegins(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.write(10)
		w.offer(0)
		c := &called{}
		first := make(chan answered, 1)
		c.process = w.workerWith(func(*functions.Options) {}, func(worker *functions.Worker) func(context.Context) error {
			c.push = functions.NewPush(worker)
			return func(ctx context.Context) error {
				go func() { first <- c.call(context.Background()) }()
				time.Sleep(3 * time.Second)
				return c.push.Run(ctx)
			}
		})
		if a := <-first; a.status != http.StatusOK || a.Claimed != 1 || a.Records != 10 {
			t.Errorf("%+v", a)
		}
		w.exact()
		never := functions.NewPush(functions.NewWorker(functions.Options{Spec: spec.Spec{Flows: []spec.Flow{w.flow}}, Queue: w.queue, Clusters: map[string]*kafka.Cluster{"A": w.source, "B": w.target}, Logger: slog.New(slog.DiscardHandler)}))
		if a := (&called{process: c.process, push: never}).call(w.Context()); a.status != http.StatusServiceUnavailable || a.retry == "" {
			t.Errorf("of one that never begins: %+v", a)
		}
	})
}

// What is no event is refused with what is wrong, and claims nothing.
func TestCallsThatAreNoEvents(t *testing.T) {
	whole := []string{"specversion", "1.0", "id", "1", "source", "/s", "type", "t"}
	without := func(name string) (rest []string) {
		for i := 0; i < len(whole); i += 2 {
			if whole[i] != name {
				rest = append(rest, whole[i], whole[i+1])
			}
		}
		return rest
	}
	inWorld(t, setup{}, func(w *world) {
		c := w.called(1, spec.Front{})
		for name, k := range map[string]struct {
			form, body string
			attributes []string
			status     int
			says       string
		}{
			"binary":                  {attributes: whole, status: 204},
			"binary with data":        {form: "application/json", body: `{"a":1}`, attributes: whole, status: 204},
			"binary with time":        {attributes: append(without(""), "time", "2026-11-24T08:00:00.5Z"), status: 204},
			"structured":              {form: "application/cloudevents+json; charset=UTF-8", body: `{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"x":[1]},"ext":7}`, status: 204},
			"nothing":                 {status: 400, says: "ce-specversion is missing"},
			"no id":                   {attributes: without("id"), status: 400, says: "ce-id is missing"},
			"no source":               {attributes: without("source"), status: 400, says: "ce-source is missing"},
			"no type":                 {attributes: without("type"), status: 400, says: "ce-type is missing"},
			"empty id":                {attributes: append(without("id"), "id", ""), status: 400, says: "ce-id is empty"},
			"twice":                   {attributes: append(without(""), "id", "2"), status: 400, says: "more than once"},
			"old version":             {attributes: append(without("specversion"), "specversion", "0.3"), status: 400, says: `"0.3"; known is 1.0`},
			"no time":                 {attributes: append(without(""), "time", "today"), status: 400, says: "ce-time is \"today\"; give a time of RFC 3339"},
			"structured, no object":   {form: "application/cloudevents+json", body: `[]`, status: 400, says: "no JSON object"},
			"structured, null":        {form: "application/cloudevents+json", body: `null`, status: 400, says: "null"},
			"structured, cut":         {form: "application/cloudevents+json", body: `{"specversion":"1.0"`, status: 400, says: "no JSON object"},
			"structured, no string":   {form: "application/cloudevents+json", body: `{"specversion":"1.0","id":1,"source":"/s","type":"t"}`, status: 400, says: "id is no string"},
			"structured, null source": {form: "application/cloudevents+json", body: `{"specversion":"1.0","id":"1","source":null,"type":"t"}`, status: 400, says: "source is missing"},
			"deep":                    {form: "application/cloudevents+json", body: strings.Repeat("[", 100_000), status: 400, says: "no JSON object"},
			"batch":                   {form: "application/cloudevents-batch+json", body: `[]`, status: 415, says: "one by one"},
			"another form":            {form: "application/cloudevents+avro", body: "x", status: 415, says: "+json"},
			"no content type":         {form: ";", attributes: whole, status: 400, says: "Content-Type"},
			"too large":               {body: strings.Repeat("x", 300<<10), attributes: whole, status: 413, says: "larger than"},
		} {
			if a := c.send(w.Context(), k.form, k.body, k.attributes...); a.status != k.status || !strings.Contains(a.text, k.says) {
				t.Errorf("%s: %d %s, want %d %s", name, a.status, a.text, k.status, k.says)
			}
		}
		w.write(10)
		w.offer(0)
		c.send(w.Context(), "", "")
		if n := w.waiting(); n != 1 {
			t.Errorf("%d tasks wait after what was no event", n)
		}
	})
}

// A worker of one run does it and ends; where nothing waits it ends at once.
func TestWorkerOfSoManyRuns(t *testing.T) {
	inWorld(t, setup{partitions: 3}, func(w *world) {
		ends := func(runs int, idle time.Duration) time.Duration {
			began := time.Now()
			p := w.workerWith(func(o *functions.Options) { o.MaxRuns, o.IdleExit = runs, idle }, nil)
			<-p.done
			return time.Since(began)
		}
		w.write(300)
		if took := ends(1, time.Second); took > 2*time.Second {
			t.Errorf("with nothing to do it took %s", took)
		}
		for p := range w.partitions {
			w.offer(p)
		}
		if took := ends(1, time.Second); took > 2*time.Second || w.waiting() != 2 {
			t.Errorf("one run took %s, and left %d", took, w.waiting())
		}
		if took := ends(2, 0); took > 2*time.Second || w.waiting() != 0 {
			t.Errorf("two runs took %s, and left %d", took, w.waiting())
		}
		w.complete0()
		w.exact()
	})
}

// complete0 demands that everything is copied already.
func (w *world) complete0() {
	w.Helper()
	for p := range w.partitions {
		if at := w.cursor(p).Offset; at != w.sourceEnd(p) {
			w.Errorf("partition %d is copied up to %d of %d", p, at, w.sourceEnd(p))
		}
	}
}

// A worker that ends when idle stays as long as it holds a lease, however long ago that was claimed.
func TestWorkerEndsWhenIdle(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.slowStream(time.Minute)
		time.Sleep(time.Second)
		w.offer(0)
		began := time.Now()
		p := w.workerWith(func(o *functions.Options) { o.IdleExit = 10 * time.Second }, nil)
		<-p.done
		if took := time.Since(began); took < time.Minute+10*time.Second || took > time.Minute+25*time.Second {
			t.Errorf("records came for a minute; it took %s", took)
		}
		w.complete0()
		w.exact()
	})
}

// Heartbeats are copied because a worker is there. They keep none that ends when idle, nor the protection of one.
func TestHeartbeatsKeepNoWorker(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.must(w.env.Kafka("A").CreateTopic(mm2.HeartbeatsTopic, 1, nil))
		w.must(w.env.Kafka("B").CreateTopic("A.heartbeats", 1, nil))
		writer, err := w.env.Writer("A", mm2.HeartbeatsTopic)
		w.must(err)
		defer writer.Close()
		beat := w.task(0)
		beat.Topic, beat.Brief = mm2.HeartbeatsTopic, true
		a := &agent{answer: says(200, `{}`)}
		began := time.Now()
		p := w.workerWith(func(o *functions.Options) {
			o.IdleExit, o.Agent, o.Spec.Settings.Front.ECSAgent = 20*time.Second, a, "http://169.254.170.2/api/x"
		}, nil)
		ended := func() bool {
			select {
			case <-p.done:
				return true
			default:
				return false
			}
		}
		for n := 0; !ended() && n < 20; n++ {
			w.must(writer.Write(w.Context(), 1))
			_, err := w.queue.Offer(w.Context(), beat)
			w.must(err)
			time.Sleep(3 * time.Second)
		}
		if took := time.Since(began); !ended() || took < 20*time.Second || took > 25*time.Second {
			t.Errorf("it took %s", took)
		}
		if calls := a.calls(); len(calls) > 0 {
			t.Errorf("protected: %q", calls)
		}
		end, err := w.target.LogEnd(w.Context(), kafka.TopicPartition{Topic: "A.heartbeats"})
		if w.must(err); end.Offset < 5 {
			t.Errorf("%d heartbeats are copied", end.Offset)
		}
	})
}

// Idle because the queue is away is no peace.
func TestIdleWithoutItsQueueIsAnError(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		line := w.env.Line()
		queue, err := lease.Open(w.Context(), lease.Options{InProcess: line, LeaseTime: leaseTime})
		w.must(err)
		defer queue.Close()
		worker := functions.NewWorker(functions.Options{
			Spec: spec.Spec{Flows: []spec.Flow{w.flow}}, Queue: queue, Clusters: map[string]*kafka.Cluster{"A": w.source, "B": w.target},
			Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), IdleExit: 5 * time.Second,
		})
		line.Cut()
		if err := worker.Run(w.Context()); err == nil {
			t.Error("no error")
		}
	})
}
