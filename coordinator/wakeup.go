package coordinator

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// wakeUpType is the type of the events that call push workers.
const wakeUpType = "com.github.kferry.task.offered.v1"

// Bounds of calling push workers. How many calls are under way at one time is the spec's.
const (
	wakeUpLook   = 250 * time.Millisecond // between looks at what is to be called for
	wakeUpAgain  = time.Second            // first, before a task that goes on waiting is called for once more
	wakeUpMost   = 30 * time.Second       // last
	wakeUpAdopt  = 5 * time.Second        // before one is called for that another coordinator offered, which may be gone
	wakeUpForget = 6 * time.Second        // after nobody found it on the queue: when it is back, another coordinator may have offered it
	wakeUpYoung  = time.Second            // a call so young is about to claim
	wakeUpProbe  = 5 * time.Second        // between calls for what is held and not waiting, maybe by a worker that was killed
	wakeUpOver   = 10 * time.Second       // a call may take beyond the longest run and not seem to hang
	wakeUpTasks  = 10_000                 // that are known at one time; others are found by the calls for these, or later
	wakeUpMargin = time.Minute            // for an answer beyond the longest run: instances have to start
	wakeUpRest   = time.Minute            // most, after errors in a row
	wakeUpBusy   = 10 * time.Second       // likewise, where workers are there and have no place: who took it may be gone
	wakeUpRetry  = 5 * time.Minute        // most that somebody's Retry-After counts
	wakeUpSay    = time.Minute            // until the log tells again that calls fail
	wakeUpAnswer = 64 << 10
)

// wakeUps call push workers while work waits. A call is an event that says so, and no order: each call has a worker claim what is next, so
// they need not be as many as the tasks, nor arrive. There is one for each task that this coordinator has offered, and another one each
// time, later and later, that it still waits then.
type wakeUps struct {
	spec.WakeUps
	queue   *lease.Queue
	source  string // of the events
	run     string // tells events of this process from those of others
	client  *http.Client
	log     *slog.Logger
	answers *prometheus.CounterVec
	news    chan struct{} // of capacity 1
	calls   sync.WaitGroup

	mu     sync.Mutex // guards what follows
	due    map[lease.Task]*wakeUp
	under  map[int64]time.Time // since when each call is under way, by its number
	sent   int64               // number of the last one
	asked  time.Time           // a Retry-After: nothing is sent before
	rest   time.Time           // likewise, after calls that failed, until one has not
	failed int                 // calls in a row, but for those that were under way when one failed
	since  int64               // the last one that was sent when the first of them failed
	said   time.Time
	probed time.Time
	freed  time.Time // when the lease is over of who did not answer, and may have been killed; zero: nobody
	quiet  time.Time // since when there is nothing to be called for
}

// A wakeUp is one task that has been offered, or was found on the queue.
type wakeUp struct {
	task  lease.Task
	seen  time.Time // when it was last there
	next  time.Time // it is not called for before
	again bool      // it has been called for, or is another coordinator's
	vain  int       // calls in a row that are not known to have found something to do
	last  int64     // number of the last call for it
	under bool      // that one is under way; those before it may be too
}

// newWakeUps is nil where nobody is to be called; all that is asked of it then does nothing.
func newWakeUps(o Options) *wakeUps {
	if o.WakeUps == nil {
		return nil
	}
	w := &wakeUps{
		WakeUps: o.Spec.Settings.WakeUps, queue: o.Queue, source: "/kferry/" + o.Spec.Name, run: rand.Text(), log: o.Logger,
		client: &http.Client{
			Transport: o.WakeUps, Timeout: o.Spec.Settings.Front.RunTime + wakeUpMargin,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the token is for this URL
		},
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kferry_wakeups_total", Help: "Calls of push workers, by what came of them: worked, nothing (to do), busy or failed.",
		}, []string{"answer"}),
		news: make(chan struct{}, 1), due: map[lease.Task]*wakeUp{}, under: map[int64]time.Time{}, quiet: time.Now(),
	}
	if o.Metrics != nil {
		o.Metrics.MustRegister(w.answers)
	}
	return w
}

// offered has a call go out for each of these tasks, which this coordinator has just offered. It does not wait for any.
func (w *wakeUps) offered(tasks ...lease.Task) { w.note(tasks, false) }

// standing notes that these are on the queue still, waiting or held.
func (w *wakeUps) standing(tasks ...lease.Task) { w.note(tasks, true) }

func (w *wakeUps) note(tasks []lease.Task, standing bool) {
	if w == nil || len(tasks) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for _, t := range tasks {
		u, known := w.due[t.Identity()]
		switch {
		case !known && len(w.due) >= wakeUpTasks:
			continue
		case !known && standing:
			u = &wakeUp{next: now.Add(wakeUpAdopt), again: true}
		case !known:
			u = &wakeUp{next: now}
		case !standing:
			u.next, u.again, u.vain = now, false, 0
		}
		u.task, u.seen = t, now
		w.due[t.Identity()] = u
	}
	if !standing {
		w.poke()
	}
}

func (w *wakeUps) poke() {
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// attend sends until ctx ends, which ends the calls too.
func (w *wakeUps) attend(ctx context.Context) error {
	defer w.calls.Wait()
	for sleepUnless(ctx, wakeUpLook, w.news) {
		w.send(ctx)
	}
	return nil
}

// send calls for what is due, as far as the queue says that something waits; the first at once, since the queue's word may be older. What a
// killed worker held waits no more, as the queue counts, until somebody claims: so where more is held than is called for, somebody is asked to.
func (w *wakeUps) send(ctx context.Context) {
	p := w.pick(time.Now())
	if len(p.due) == 0 {
		return
	}
	asking, cancel := context.WithTimeout(ctx, passTimeout)
	depth, err := w.queue.Depth(asking)
	cancel()
	most := max(0, min(depth.Waiting-p.young, depth.Waiting+depth.Held-p.under)) // never more calls than there are tasks: they are what is scaled by
	if err != nil {
		most = 0 // which the passes report
	}
	switch {
	case p.under == 0 && p.fresh:
		most = max(1, most)
	case err == nil && depth.Waiting == 0 && depth.Held > p.under && w.probe():
		most = 1
	}
	for _, u := range p.due[:min(most, len(p.due))] {
		w.begin(ctx, u)
	}
}

// probe says whether it is time to call for what is held.
func (w *wakeUps) probe() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	freed := !w.freed.IsZero() && !now.Before(w.freed)
	if !freed && now.Sub(w.probed) < wakeUpProbe {
		return false
	}
	if freed {
		w.freed = time.Time{}
	}
	w.probed = now
	return true
}

// picked is what may be called for now, those first that have not been.
type picked struct {
	due   []*wakeUp
	fresh bool // the first has not been called for
	young int  // calls under way that are about to claim
	under int  // calls under way, without those that should have ended and seem to hang
}

// pick looks at what is known. Where there was nothing for a while, it takes whatever may wait all the same: what a worker has handed back though
// nothing was left of it, and whose calls were lost, for one.
func (w *wakeUps) pick(now time.Time) (p picked) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, u := range w.due {
		switch {
		case !u.under && now.Sub(u.seen) >= wakeUpForget:
			delete(w.due, id)
		case !u.next.After(now) && (!u.under || !u.again || now.Sub(w.under[u.last]) >= wakeUpAdopt): // that one may have claimed another task
			p.due = append(p.due, u)
		}
	}
	trials := 1 // that may be under way after a failure; each that lasts is followed by one more, for others need not wait until it ends
	for number, since := range w.under {
		age, trial := now.Sub(since), number > w.since
		if age < wakeUpYoung {
			p.young++
		}
		switch {
		case trial && age < wakeUpYoung:
			trials--
		case trial:
			trials++
		}
		if age < w.client.Timeout-wakeUpMargin+wakeUpOver {
			p.under++
		}
	}
	idle := len(p.due)+len(w.under) == 0
	if !idle {
		w.quiet = now
	}
	switch {
	case now.Before(w.asked) || now.Before(w.rest):
		return picked{}
	case idle && now.Sub(w.quiet) >= wakeUpMost:
		w.quiet = now
		return picked{due: []*wakeUp{{again: true}}}
	}
	slices.SortFunc(p.due, func(a, b *wakeUp) int {
		if a.again != b.again {
			if b.again {
				return -1
			}
			return 1
		}
		return cmp.Or(a.next.Compare(b.next), cmp.Compare(a.task.String(), b.task.String()))
	})
	most := w.Most - len(w.under)
	if w.failed > 0 {
		most = min(most, trials) // to see whether it goes again
	}
	p.due = p.due[:min(len(p.due), max(0, most))]
	p.fresh = len(p.due) > 0 && !p.due[0].again
	return p
}

func (w *wakeUps) begin(ctx context.Context, u *wakeUp) {
	w.mu.Lock()
	w.sent++
	number, task := w.sent, u.task
	w.under[number] = time.Now()
	u.last, u.under, u.again = number, true, true
	u.next = time.Now().Add(wakeUpAgain)
	w.mu.Unlock()
	w.calls.Go(func() {
		a := w.call(ctx, task, number)
		w.ended(u, number, a)
		w.poke()
	})
}

// An answer is what came of a call.
type answer struct {
	status  int
	claimed int           // leases, as a worker says
	retry   time.Duration // to be kept, at least, before the next call
	err     error
}

// call sends one event. It says whose task it is about, where that is known, and nothing else.
func (w *wakeUps) call(ctx context.Context, task lease.Task, number int64) answer {
	shown, query, _ := strings.Cut(w.URL, "?") // which may hold a key
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, nil)
	if err != nil {
		return answer{err: fmt.Errorf("%s is no URL", shown)}
	}
	token := ""
	if w.Token.Set() {
		if token, err = w.Token.Read(); err != nil {
			return answer{err: fmt.Errorf("read KFERRY_PUSH_TOKEN_FILE: %w", err)}
		}
		request.Header.Set("Authorization", "Bearer "+token)
	}
	subject := ""
	if task != (lease.Task{}) {
		subject = w.queue.Subject(task.Identity())
		request.Header.Set("Ce-Subject", subject)
	}
	for name, value := range map[string]string{
		"Specversion": "1.0", "Type": wakeUpType, "Source": w.source,
		"Id": subject + "#" + w.run + "-" + strconv.FormatInt(number, 10), "Time": time.Now().UTC().Format(time.RFC3339Nano),
	} {
		request.Header.Set("Ce-"+name, value)
	}
	request.Header.Set("User-Agent", "kferry")
	request.Header["Idempotency-Key"] = nil // is not sent, but has a call repeated whose connection turned out to be closed
	response, err := w.client.Do(request)
	if err != nil {
		if shows, is := errors.AsType[*url.Error](err); is {
			err = fmt.Errorf("%s: %w", shown, shows.Err)
		}
		return answer{err: err}
	}
	defer response.Body.Close()
	a := answer{status: response.StatusCode}
	text, err := io.ReadAll(io.LimitReader(response.Body, wakeUpAnswer))
	switch {
	case a.status == http.StatusOK || a.status == http.StatusAccepted || a.status == http.StatusNoContent:
		a.err = err // what broke off may have been a run
		var done struct{ Claimed int }
		_ = json.Unmarshal(text, &done) // somebody else's answer may be anything
		a.claimed = done.Claimed
	default:
		a.retry = retryAfter(response.Header.Get("Retry-After"), time.Now())
		said, to := string(text), response.Header.Get("Location")
		for _, secret := range []string{token, query} { // who shows what he was sent would have it logged
			if secret != "" {
				said, to = strings.ReplaceAll(said, secret, "…"), strings.ReplaceAll(to, secret, "…")
			}
		}
		a.err = fmt.Errorf("%s answers %s: %.200q", shown, response.Status, said)
		if to != "" {
			a.err = fmt.Errorf("%s answers %s: the token is not taken to %.200q; set KFERRY_PUSH_URL to where workers are", shown, response.Status, to)
		}
	}
	return a
}

// retryAfter reads the header of that name: seconds, or a date.
func retryAfter(text string, now time.Time) time.Duration {
	wait := time.Duration(0)
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, 0), wakeUpRetry)
}

// ended decides when the next call is due.
func (w *wakeUps) ended(u *wakeUp, number int64, a answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.under, number)
	last := u.last == number
	u.under = u.under && !last
	now := time.Now()
	switch {
	case a.err == nil:
		w.failed, w.rest = 0, time.Time{} // whatever failed meanwhile: there is somebody, who has done with one
		name := "worked"
		if a.status == http.StatusNoContent {
			name = "nothing"
		}
		if u.vain++; a.claimed > 0 {
			u.vain = 0
		}
		if last && u.again {
			u.next = now.Add(min(wakeUpMost, wakeUpAgain<<min(u.vain, 10)))
		}
		w.answers.WithLabelValues(name).Inc()
		return
	case errors.Is(a.err, context.Canceled):
		return
	}
	busy := a.status == http.StatusTooManyRequests || a.status == http.StatusServiceUnavailable
	most := wakeUpRest
	if busy {
		most = wakeUpBusy
		w.answers.WithLabelValues("busy").Inc()
	} else {
		w.answers.WithLabelValues("failed").Inc()
	}
	if !now.Before(w.rest) {
		if w.failed++; w.failed == 1 {
			w.since = w.sent
		}
		w.rest = now.Add(min(most, wakeUpAgain<<min(w.failed-1, 10)))
	}
	if asked := now.Add(a.retry); a.retry > 0 && asked.After(w.asked) {
		w.asked = asked
	}
	if !busy && w.freed.IsZero() {
		w.freed = now.Add(w.queue.LeaseTime() + wakeUpLook)
	}
	if !busy && now.Sub(w.said) >= wakeUpSay {
		w.said = now
		w.log.Warn("push workers can't be called; trying again", "error", a.err)
	}
}
