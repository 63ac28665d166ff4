package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// A fleet is push workers behind one URL, as a coordinator sees it: what it is called for, and what it answers.
type fleet struct {
	answer func(*http.Request) (*http.Response, error)

	mu          sync.Mutex // guards what follows
	calls       []*http.Request
	at          []time.Time
	under, most int
}

// RoundTrip implements http.RoundTripper.
func (f *fleet) RoundTrip(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	f.calls, f.at = append(f.calls, r), append(f.at, time.Now())
	f.under++
	f.most = max(f.most, f.under)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.under--
	}()
	return f.answer(r)
}

func (f *fleet) all() []*http.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

func (f *fleet) count() int { return len(f.all()) }

func status(code int, headers ...string) (*http.Response, error) {
	r := &http.Response{StatusCode: code, Status: fmt.Sprintf("%d %s", code, http.StatusText(code)), Body: io.NopCloser(strings.NewReader("")), Header: http.Header{}}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r, nil
}

// withFleet runs a test with coordinators to be that call a fleet.
func withFleet(t *testing.T, answer func(*installation) func(*http.Request) (*http.Response, error), test func(in *installation, f *fleet)) {
	t.Helper()
	bubble(t, func(in *installation) {
		f := &fleet{answer: answer(in)}
		in.WakeUps = f
		in.Options.Spec.Settings.WakeUps = spec.WakeUps{URL: "https://worker.example.com/", Token: spec.Kept{Text: "geheim-geheim-geheim"}, Most: 10}
		in.Options.Spec.Settings.Front.RunTime = 30 * time.Second
		test(in, f)
	})
}

// always answers in one way.
func always(code int, headers ...string) func(*installation) func(*http.Request) (*http.Response, error) {
	return func(*installation) func(*http.Request) (*http.Response, error) {
		return func(*http.Request) (*http.Response, error) { return status(code, headers...) }
	}
}

// works claims one task and does it.
func works(in *installation) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		leases, err := in.Queue.Claim(r.Context(), 1, 0)
		if err != nil {
			return nil, err
		}
		if len(leases) == 0 {
			return status(http.StatusNoContent)
		}
		time.Sleep(100 * time.Millisecond)
		t := leases[0].Task
		in.commit(in.Options.Spec.Flows[0], t.Topic, t.Partition, in.Kafka("A").PartitionInfo(t.Topic, t.Partition).HighWatermark)
		in.release(leases...)
		return status(http.StatusOK)
	}
}

func (in *installation) tasks(partitions int32) {
	in.Helper()
	in.create("A", "orders", partitions, 0)
	in.create("B", "A.orders", partitions, 0)
	for p := range partitions {
		in.writeTo("A", "orders", p)
	}
}

// One call goes out for each task that is offered, in the form of an event that tells nothing but the task, and none when nothing waits.
func TestOneCallForEachTask(t *testing.T) {
	withFleet(t, works, func(in *installation, f *fleet) {
		in.tasks(7)
		in.run()
		time.Sleep(time.Minute)
		in.metric("# HELP kferry_wakeups_total Calls of push workers, by what came of them: worked, nothing (to do), busy or failed.\n# TYPE kferry_wakeups_total counter\n" +
			"kferry_wakeups_total{answer=\"worked\"} 7")
		subjects, ids := map[string]bool{}, map[string]bool{}
		for _, r := range f.all() {
			subjects[r.Header.Get("Ce-Subject")], ids[r.Header.Get("Ce-Id")] = true, true
			for name, want := range map[string]string{
				"Ce-Specversion": "1.0", "Ce-Type": "com.github.kferry.task.offered.v1", "Ce-Source": "/kferry/kferry",
				"Authorization": "Bearer geheim-geheim-geheim", "User-Agent": "kferry",
			} {
				if got := r.Header.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			if r.Method != http.MethodPost || r.URL.String() != "https://worker.example.com/" || r.ContentLength != 0 || len(r.Header) != 9 || len(r.Header["Idempotency-Key"]) != 0 {
				t.Errorf("%s %s, %d bytes, headers %v", r.Method, r.URL, r.ContentLength, r.Header)
			}
		}
		if len(subjects) != 7 || len(ids) != 7 || !subjects["kferry.task.mirror.A-=3EB.orders.3"] {
			t.Errorf("subjects %v, ids %v", subjects, ids)
		}
		in.writeTo("A", "orders", 2)
		time.Sleep(1500 * time.Millisecond)
		if n := f.count(); n != 8 {
			t.Errorf("%d calls after one more record", n)
		}
	})
}

// What goes wrong with calls delays no offer, and they become fewer.
func TestCallsThatFail(t *testing.T) {
	hangs := func(*installation) func(*http.Request) (*http.Response, error) {
		return func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, context.Cause(r.Context())
		}
	}
	dead := func(*installation) func(*http.Request) (*http.Response, error) {
		return func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }
	}
	for name, k := range map[string]struct {
		answer      func(*installation) func(*http.Request) (*http.Response, error)
		least, most int // calls in a minute, for 20 tasks
	}{
		"dead":            {dead, 5, 20},
		"hangs":           {hangs, 10, 20},
		"refuses":         {always(401), 5, 20},
		"redirects":       {always(302, "Location", "https://elsewhere.example.com/"), 5, 20},
		"busy":            {always(429, "Retry-After", "1"), 5, 20},
		"drains for long": {always(503, "Retry-After", "120"), 1, 12},
		"finds nothing":   {always(204), 40, 20 * 8},
		"accepts alone":   {always(202), 40, 20 * 8},
	} {
		t.Run(name, func(t *testing.T) {
			withFleet(t, k.answer, func(in *installation, f *fleet) {
				in.tasks(20)
				c := in.run()
				time.Sleep(time.Minute)
				if n := f.count(); n < k.least || n > k.most || f.most > 10 {
					t.Errorf("%d calls, %d at one time", n, f.most)
				}
				if passes := c.Flows()[0].Passes; passes < 55 {
					t.Errorf("%d passes", passes)
				}
				for _, r := range f.all() {
					if r.URL.Host != "worker.example.com" {
						t.Errorf("called %s", r.URL)
					}
				}
				if n, err := in.Queue.Waiting(in.Context()); err != nil || n != 20 {
					t.Errorf("%d tasks wait (%v)", n, err)
				}
			})
		})
	}
}

// A call that is lost is made up for.
func TestLostCallsAreRepeated(t *testing.T) {
	withFleet(t, func(in *installation) func(*http.Request) (*http.Response, error) {
		work, n := works(in), 0
		var mu sync.Mutex
		return func(r *http.Request) (*http.Response, error) {
			mu.Lock()
			n++
			lost := n <= 5
			mu.Unlock()
			if lost {
				return status(http.StatusAccepted) // by a broker that then loses it
			}
			return work(r)
		}
	}, func(in *installation, f *fleet) {
		in.tasks(5)
		in.run()
		time.Sleep(10 * time.Second)
		if n, err := in.Queue.Waiting(in.Context()); err != nil || n != 0 {
			t.Errorf("%d tasks wait after %d calls (%v)", n, f.count(), err)
		}
	})
}

// What a worker had that was killed is called for when its lease is over, although the queue doesn't count it as waiting; and while somebody
// has it, for ever or so, that costs a call now and then.
func TestWhatAKilledWorkerHeldIsCalledFor(t *testing.T) {
	for name, hangs := range map[string]bool{"killed": false, "at work": true} {
		t.Run(name, func(t *testing.T) {
			withFleet(t, func(in *installation) func(*http.Request) (*http.Response, error) {
				work, began := works(in), false
				var mu sync.Mutex
				return func(r *http.Request) (*http.Response, error) {
					mu.Lock()
					first := !began
					began = true
					mu.Unlock()
					if !first {
						return work(r)
					}
					leases, err := in.Queue.Claim(r.Context(), 1, 0)
					if err != nil || len(leases) != 1 {
						t.Errorf("claimed %d leases, %v", len(leases), err)
					}
					for end := time.Now().Add(time.Minute); hangs && time.Now().Before(end); time.Sleep(time.Second) {
						if err := leases[0].Extend(in.Context()); err != nil {
							t.Error(err)
						}
					}
					return nil, io.ErrUnexpectedEOF
				}
			}, func(in *installation, f *fleet) {
				in.tasks(1)
				in.run()
				time.Sleep(15 * time.Second)
				depth, err := in.Queue.Depth(in.Context())
				if left := depth.Waiting + depth.Held; err != nil || hangs != (left == 1) {
					t.Errorf("after %d calls: %+v, %v", f.count(), depth, err)
				}
				if most := 4; f.count() > most || hangs && f.count() > 1 {
					t.Errorf("%d calls", f.count())
				}
			})
		})
	}
}

// That is when the lease is over, also where somebody was called for what others hold just before.
func TestWhatAKilledWorkerHeldIsCalledForInTime(t *testing.T) {
	withFleet(t, func(in *installation) func(*http.Request) (*http.Response, error) {
		killed := func(r *http.Request) (*http.Response, error) {
			leases, err := in.Queue.Claim(r.Context(), 1, 0)
			if err != nil || len(leases) != 1 {
				t.Errorf("claimed %d leases, %v", len(leases), err)
			}
			return nil, io.ErrUnexpectedEOF
		}
		return inTurn(holds(in, 2, time.Minute), always(http.StatusNoContent)(in), killed, works(in))
	}, func(in *installation, f *fleet) {
		in.tasks(2)
		in.run()
		time.Sleep(2500 * time.Millisecond)
		in.writeTo("A", "orders", 0)
		in.writeTo("A", "orders", 1)
		time.Sleep(in.Queue.LeaseTime() + 1500*time.Millisecond)
		if depth, err := in.Queue.Depth(in.Context()); err != nil || depth.Waiting+depth.Held != 1 {
			t.Errorf("%+v after %d calls at %v (%v)", depth, f.count(), f.at, err)
		}
	})
}

// Of two coordinators the one that offered calls; when it is gone, the other one does.
func TestWhoOfferedCalls(t *testing.T) {
	withFleet(t, always(204), func(in *installation, first *fleet) {
		in.tasks(3)
		one, stop := context.WithCancel(in.Context())
		c := coordinator.New(in.Options)
		ended := make(chan error)
		go func() { ended <- c.Run(one) }()
		time.Sleep(2 * time.Second)
		other := &fleet{answer: works(in)}
		in.WakeUps, in.Options.Metrics = other, nil
		in.run()
		synctest.Wait()
		time.Sleep(4 * time.Second)
		if first.count() < 3 || other.count() != 0 {
			t.Errorf("%d and %d calls", first.count(), other.count())
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		time.Sleep(15 * time.Second)
		if n, err := in.Queue.Waiting(in.Context()); err != nil || n != 0 {
			t.Errorf("%d tasks wait, %d calls (%v)", n, other.count(), err)
		}
	})
}

// inTurn has one answer after the other come of calls, and the last one of all that follow.
func inTurn(answers ...func(*http.Request) (*http.Response, error)) func(*http.Request) (*http.Response, error) {
	var n atomic.Int64
	return func(r *http.Request) (*http.Response, error) {
		return answers[min(int(n.Add(1)), len(answers))-1](r)
	}
}

// holds claims some tasks, does the first of several, and holds the last one for a while before it does that.
func holds(in *installation, most int, during time.Duration) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		leases, err := in.Queue.Claim(r.Context(), most, 0)
		if err != nil || len(leases) == 0 {
			return nil, errors.Join(err, errors.New("nothing to hold"))
		}
		for i, l := range leases {
			for end := time.Now().Add(during); i == len(leases)-1 && time.Now().Before(end); time.Sleep(time.Second) {
				if err := l.Extend(r.Context()); err != nil {
					return nil, err
				}
			}
			in.commit(in.Options.Spec.Flows[0], l.Task.Topic, l.Task.Partition, in.Kafka("A").PartitionInfo(l.Task.Topic, l.Task.Partition).HighWatermark)
			in.release(l)
		}
		return status(http.StatusOK)
	}
}

// oneByOne has no place for a call while another one is answered.
func oneByOne(answer func(*http.Request) (*http.Response, error)) func(*http.Request) (*http.Response, error) {
	place := make(chan struct{}, 1)
	return func(r *http.Request) (*http.Response, error) {
		select {
		case place <- struct{}{}:
			defer func() { <-place }()
			return answer(r)
		default:
			return status(http.StatusTooManyRequests, "Retry-After", "1")
		}
	}
}

// offeredMeanwhile brings a task, some seconds after another one was begun that takes a minute, and demands that it is done within a while.
func (in *installation) offeredMeanwhile(f *fleet, within time.Duration, calls int) {
	in.Helper()
	in.tasks(2)
	in.run()
	time.Sleep(5 * time.Second)
	in.writeTo("A", "orders", 0)
	in.writeTo("A", "orders", 1)
	time.Sleep(within)
	if n, err := in.Queue.Waiting(in.Context()); err != nil || n != 0 || f.count() < calls || f.count() > calls+1 {
		in.Errorf("%d tasks wait after %d calls (%v) at %v", n, f.count(), err, f.at)
	}
}

// A task that is offered while the call for it is at other work is called for all the same.
func TestOfferedAgainWhileItsCallGoesOn(t *testing.T) {
	withFleet(t, func(in *installation) func(*http.Request) (*http.Response, error) {
		return inTurn(holds(in, 2, time.Minute), always(http.StatusNoContent)(in), works(in))
	}, func(in *installation, f *fleet) {
		in.offeredMeanwhile(f, 2500*time.Millisecond, 3)
	})
}

// One call that fails doesn't keep others from being sent as long as one is under way.
func TestCallsGoOnWhileOneIsUnderWay(t *testing.T) {
	withFleet(t, func(in *installation) func(*http.Request) (*http.Response, error) {
		fails := func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }
		return inTurn(holds(in, 2, time.Minute), always(http.StatusNoContent)(in), fails, fails, works(in))
	}, func(in *installation, f *fleet) {
		in.offeredMeanwhile(f, 6*time.Second, 5)
	})
}

// After a failure one call is tried, and the others need not wait until its run ends: that it goes on says enough.
func TestCallsGoOnAfterAFailure(t *testing.T) {
	withFleet(t, func(in *installation) func(*http.Request) (*http.Response, error) {
		fails, runs := func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }, holds(in, 1, 25*time.Second)
		return inTurn(fails, fails, fails, fails, fails, fails, fails, runs)
	}, func(in *installation, f *fleet) {
		in.tasks(7)
		in.run()
		time.Sleep(15 * time.Second)
		if depth, err := in.Queue.Depth(in.Context()); err != nil || depth.Held != 7 {
			t.Errorf("%+v after %d calls (%v) at %v", depth, f.count(), err, f.at)
		}
		time.Sleep(30 * time.Second) // until nobody holds any
	})
}

// A call that hangs is given up, and is in the way of its task no longer than a run takes.
func TestCallThatHangs(t *testing.T) {
	withFleet(t, func(in *installation) func(*http.Request) (*http.Response, error) {
		return inTurn(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, context.Cause(r.Context())
		}, works(in))
	}, func(in *installation, f *fleet) {
		in.tasks(1)
		in.run()
		time.Sleep(42 * time.Second)
		if n, err := in.Queue.Waiting(in.Context()); err != nil || n != 0 || f.count() != 2 {
			t.Errorf("%d tasks wait after %d calls (%v)", n, f.count(), err)
		}
	})
}

// Where workers were busy for long, the end of a call has others sent at once.
func TestCallThatEndsEndsTheRest(t *testing.T) {
	withFleet(t, func(in *installation) func(*http.Request) (*http.Response, error) {
		return oneByOne(holds(in, 2, 40*time.Second))
	}, func(in *installation, f *fleet) {
		in.tasks(3)
		in.run()
		time.Sleep(42 * time.Second) // the rest would be over after 45
		if n, err := in.Queue.Waiting(in.Context()); err != nil || n != 0 {
			t.Errorf("%d tasks wait after %d calls (%v) at %v", n, f.count(), err, f.at)
		}
	})
}

// All places are taken by what another coordinator calls for, for minutes. It is gone, and what it had called for goes on soon.
func TestCallsWhenTheOneWhoTookAllPlacesIsGone(t *testing.T) {
	withFleet(t, func(in *installation) func(*http.Request) (*http.Response, error) {
		return oneByOne(holds(in, 1, 10*time.Minute))
	}, func(in *installation, f *fleet) {
		in.Options.Spec.Settings.Front.RunTime = 10 * time.Minute
		in.tasks(3)
		first, stop := context.WithCancel(in.Context())
		in.Options.Metrics = nil
		ended := make(chan error)
		c := coordinator.New(in.Options)
		go func() { ended <- c.Run(first) }()
		time.Sleep(500 * time.Millisecond)
		in.run()
		time.Sleep(4*time.Minute + 10*time.Second)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		gone := f.count()
		time.Sleep(15 * time.Second)
		if f.count() == gone {
			t.Errorf("none of %d calls since, at %v", gone, f.at)
		}
	})
}

// What one coordinator has called for, as often as it is offered, the other one leaves to it, also while workers take their time to start.
func TestWhatAnotherCoordinatorCallsForIsLeftToIt(t *testing.T) {
	withFleet(t, func(in *installation) func(*http.Request) (*http.Response, error) {
		work := works(in)
		return func(r *http.Request) (*http.Response, error) {
			time.Sleep(3 * time.Second)
			return work(r)
		}
	}, func(in *installation, first *fleet) {
		in.tasks(1)
		in.run()
		time.Sleep(500 * time.Millisecond)
		other := &fleet{answer: always(http.StatusNoContent)(in)}
		in.WakeUps, in.Options.Metrics = other, nil
		in.run()
		time.Sleep(200 * time.Millisecond)
		for range 4 {
			time.Sleep(10 * time.Second)
			in.writeTo("A", "orders", 0) // just before the first one looks
		}
		time.Sleep(10 * time.Second)
		if first.count() != 5 || other.count() != 0 {
			t.Errorf("%d and %d calls, at %v and %v", first.count(), other.count(), first.at, other.at)
		}
	})
}

// What waits although no partition is behind is called for too, within a minute or so.
func TestWhatNobodyKnowsOfIsCalledFor(t *testing.T) {
	withFleet(t, works, func(in *installation, f *fleet) {
		in.create("A", "orders", 1, 0)
		in.create("B", "A.orders", 1, 0)
		in.run()
		time.Sleep(10 * time.Second)
		flow := in.Options.Spec.Flows[0]
		if offered, err := in.Queue.Offer(in.Context(), lease.Task{Kind: lease.KindMirror, Flow: flow.Name(), Topic: "orders", Digest: flow.Digest()}); !offered || err != nil {
			t.Fatal(offered, err)
		}
		time.Sleep(time.Minute)
		if n, err := in.Queue.Waiting(in.Context()); err != nil || n != 0 || f.count() != 1 {
			t.Errorf("%d tasks wait after %d calls (%v)", n, f.count(), err)
		}
		if subject := f.all()[0].Header["Ce-Subject"]; subject != nil {
			t.Errorf("it is about %q", subject)
		}
	})
}

// The log says what is wrong with calls, and neither the token nor the URL's query, also where what answers shows what it was sent.
func TestWhatTheLogSaysOfCalls(t *testing.T) {
	for name, k := range map[string]struct {
		answer func(*http.Request) (*http.Response, error)
		says   string
	}{
		"shows the token": {func(r *http.Request) (*http.Response, error) {
			answer, err := status(http.StatusNotFound)
			answer.Body = io.NopCloser(strings.NewReader(fmt.Sprint("no such function: ", r.URL, " ", r.Header["Authorization"])))
			return answer, err
		}, `https://worker.example.com/ answers 404 Not Found: \"no such function: https://worker.example.com/?… [Bearer …]\"`},
		"is not there": {func(r *http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }, `error="https://worker.example.com/: connection refused"`},
		"leads elsewhere": {func(r *http.Request) (*http.Response, error) {
			return status(http.StatusPermanentRedirect, "Location", "https://"+r.URL.Host+"/"+r.Header.Get("Authorization"))
		}, `the token is not taken to \"https://worker.example.com/Bearer …\"; set KFERRY_PUSH_URL`},
	} {
		t.Run(name, func(t *testing.T) {
			withFleet(t, func(*installation) func(*http.Request) (*http.Response, error) { return k.answer }, func(in *installation, f *fleet) {
				var log strings.Builder // read when nobody is there any more
				in.Options.Logger = slog.New(slog.NewTextHandler(&log, nil))
				in.Options.Spec.Settings.WakeUps.URL += "?code=geheimer"
				in.tasks(1)
				ctx, stop := context.WithTimeout(in.Context(), 10*time.Second)
				defer stop()
				if err := coordinator.New(in.Options).Run(ctx); err != nil {
					t.Error(err)
				}
				if said := log.String(); !strings.Contains(said, k.says) || strings.Contains(said, "geheim") {
					t.Error(said)
				}
			})
		})
	}
}

// The token is read for each call, so that a new one needs no restart.
func TestTokenOfCallsIsReplaced(t *testing.T) {
	withFleet(t, works, func(in *installation, f *fleet) {
		file := filepath.Join(t.TempDir(), "token")
		put := func(token string) {
			if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		put("first-first-first")
		in.Options.Spec.Settings.WakeUps.Token = spec.Kept{File: file}
		in.tasks(1)
		in.run()
		time.Sleep(3 * time.Second)
		put("second-second-second")
		in.writeTo("A", "orders", 0)
		time.Sleep(3 * time.Second)
		calls := f.all()
		first, last := calls[0].Header.Get("Authorization"), calls[len(calls)-1].Header.Get("Authorization")
		if first != "Bearer first-first-first" || last != "Bearer second-second-second" {
			t.Errorf("%q and %q", first, last)
		}
	})
}
