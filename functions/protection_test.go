package functions_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kferry/kferry/functions"
)

// An agent is that of ECS: it notes what it is asked, and answers as told.
type agent struct {
	answer func(*http.Request) (*http.Response, error)

	mu    sync.Mutex // guards what follows
	asked []string
	at    []time.Time
	said  int // lines in the worker's log that are about it
}

// Write takes the worker's log.
func (a *agent) Write(line []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if strings.Contains(string(line), "ECS does not change") {
		a.said++
	}
	return len(line), nil
}

// RoundTrip implements http.RoundTripper.
func (a *agent) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	a.asked = append(a.asked, r.Method+" "+r.URL.String()+" "+string(body))
	a.at = append(a.at, time.Now())
	a.mu.Unlock()
	return a.answer(r)
}

func (a *agent) calls() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.asked...)
}

// mostAMinute is the largest number of calls within any minute.
func (a *agent) mostAMinute() (most int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.at {
		n := 0
		for _, later := range a.at[i:] {
			if later.Sub(a.at[i]) < time.Minute {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

func says(status int, body string) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: status, Status: http.StatusText(status), Body: io.NopCloser(strings.NewReader(body)), Header: http.Header{}}, nil
	}
}

func (w *world) protected(a *agent) *process {
	w.Helper()
	return w.workerWith(func(o *functions.Options) {
		o.Logger = slog.New(slog.NewTextHandler(a, nil))
		o.Agent, o.Spec.Settings.Front.ECSAgent = a, "http://169.254.170.2/api/x"
	}, nil)
}

const (
	protectedOn  = `PUT http://169.254.170.2/api/x/task-protection/v1/state {"ProtectionEnabled":true,"ExpiresInMinutes":10}`
	protectedOff = `PUT http://169.254.170.2/api/x/task-protection/v1/state {"ProtectionEnabled":false}`
)

// Protection is there soon after the first lease, is renewed long before it ends, and is given up when the worker has been idle for a while.
func TestTaskProtection(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		a := &agent{answer: says(200, `{"protection":{"ProtectionEnabled":true,"ExpirationDate":"2026-11-24T08:00:00Z","TaskArn":"arn:x"}}`)}
		w.protected(a)
		time.Sleep(time.Minute)
		if calls := a.calls(); len(calls) != 0 {
			t.Fatalf("without a lease: %q", calls)
		}
		w.slowStream(13 * time.Minute)
		time.Sleep(time.Second)
		w.offer(0)
		time.Sleep(3 * time.Second)
		if calls := a.calls(); len(calls) != 1 || calls[0] != protectedOn {
			t.Fatalf("with one: %q", calls)
		}
		time.Sleep(12 * time.Minute)
		calls := a.calls()
		if len(calls) != 3 {
			t.Errorf("after 12 minutes: %q", calls)
		}
		time.Sleep(3 * time.Minute)
		if calls = a.calls(); len(calls) != 4 || calls[3] != protectedOff {
			t.Errorf("when idle: %q", calls)
		}
	})
}

// A worker that has a lease now and then stays protected in between, and one whose leases come and go asks only so often.
func TestTaskProtectionDoesNotFlap(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		a := &agent{answer: says(200, `{}`)}
		w.protected(a)
		for range 20 {
			w.write(1)
			w.offerBehind()
			time.Sleep(20 * time.Second)
		}
		if calls := a.calls(); len(calls) != 2 { // and once more after 5 minutes
			t.Errorf("with a lease each 20 s: %q", calls)
		}
		before := len(a.calls())
		for range 20 {
			w.write(1)
			w.offerBehind()
			time.Sleep(37 * time.Second)
		}
		if n, most := len(a.calls())-before, a.mostAMinute(); n == 0 || most > 6 {
			t.Errorf("%d calls, %d in a minute", n, most)
		}
	})
}

// An agent that refuses, is slow, dead or talks nonsense stops no work, and is asked and complained of only so often.
func TestTaskProtectionFails(t *testing.T) {
	for name, answer := range map[string]func(*http.Request) (*http.Response, error){
		"refuses":  says(200, `{"failure":{"Arn":"arn:x","Reason":"DEPLOYMENT_BLOCKED","Detail":"no"}}`),
		"no right": says(400, `{"requestID":"1","error":{"Arn":"arn:x","Code":"AccessDeniedException","Message":"no"}}`),
		"broken":   says(500, strings.Repeat("x", 1<<20)),
		"nonsense": says(200, "<html>"),
		"dead":     func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") },
		"slow": func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, context.Cause(r.Context())
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				a := &agent{answer: answer}
				p := w.protected(a)
				w.slowStream(5 * time.Minute)
				time.Sleep(time.Second)
				w.offer(0)
				time.Sleep(5*time.Minute + 5*time.Second)
				w.complete0()
				if n, most, said := len(a.calls()), a.mostAMinute(), a.said; n < 10 || most > 6 || said < 2 || said > 6 {
					t.Errorf("%d calls, %d in a minute, said %d times", n, most, said)
				}
				if took := p.drain(); took > time.Second {
					t.Errorf("drained in %s", took)
				}
				w.exact()
			})
		})
	}
}
