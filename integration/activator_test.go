package integration

import (
	"bytes"
	"context"
	"encoding/pem"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kferry/kferry/integration/testbed"
)

// Bounds of an activator.
const (
	scaleEvery = 5 * time.Millisecond // between looks at what is called, and what runs
	mostHeld   = 100                  // calls that wait for a process
	mostBody   = 4 << 20
)

// An activator is what push workers are called through, as Knative has it: calls that meet no process wait until one is up, none has more of
// them at one time than it may, and a process that has had none for a while is told to end, down to none. It knows nothing of what they say.
type activator struct {
	t      *testing.T
	start  func() *testbed.Process
	most   int           // processes at one time
	room   int           // calls that each has at one time
	keep   time.Duration // without a call
	tricks func() trick  // what becomes of the next call of a coordinator
	server *httptest.Server
	client *http.Client
	up     context.Context
	events sync.WaitGroup // that nobody waits for, and processes that end

	mu        sync.Mutex // guards what follows
	instances []*instance
	waiting   []chan *instance // of capacity 1
	alive     int              // processes, also those that are told to end
	started   int
	zeros     int // times that there was none any more
	broken    int // calls that a kill broke off
	tricked   map[trick]int
	callers   map[string]*caller
	last      time.Time   // call of one of them
	answers   map[int]int // by status
}

// An instance is one process.
type instance struct {
	*testbed.Process
	url    string // "" until it listens
	under  int    // calls
	since  time.Time
	told   bool // to end although it has calls
	killed bool
}

// A caller is one coordinator, as its calls show it.
type caller struct {
	calls, under, most int
}

// A trick is what HTTP does to a call.
type trick string

const (
	honest     trick = "handed on"
	refused    trick = "refused with 503"
	cut        trick = "its connection cut before"
	unanswered trick = "its connection cut instead of an answer"
	swallowed  trick = "accepted with 202, and lost"
	doubled    trick = "doubled at once"
	repeated   trick = "repeated later, behind others"
	delayed    trick = "delayed"
)

// tricks are all but the honest one.
var tricks = []trick{refused, cut, unanswered, swallowed, doubled, repeated, delayed}

// tricksOf deals each trick before any comes again, two thirds of all calls being honest.
func tricksOf(random *rand.Rand) func() trick {
	var deck []trick
	return func() trick {
		if len(deck) == 0 {
			deck = append(slices.Repeat([]trick{honest}, 2*len(tricks)), tricks...)
			random.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		}
		next := deck[0]
		deck = deck[1:]
		return next
	}
}

// serve begins, and is over with the test function that calls stop.
func (a *activator) serve(secure bool) (stop func()) {
	a.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 10, DisableCompression: true}}
	a.tricked, a.callers, a.answers = map[trick]int{}, map[string]*caller{}, map[int]int{}
	a.server = httptest.NewUnstartedServer(a)
	a.server.Config.ErrorLog = quiet
	if secure {
		a.server.EnableHTTP2 = true
		a.server.StartTLS()
	} else {
		a.server.Start()
	}
	var cancel context.CancelFunc
	a.up, cancel = context.WithCancel(a.t.Context())
	var scaling sync.WaitGroup
	scaling.Go(func() {
		for a.up.Err() == nil {
			a.scale()
			time.Sleep(scaleEvery)
		}
	})
	return func() {
		cancel()
		scaling.Wait()
		a.mu.Lock()
		for _, i := range a.instances {
			i.killed = true
			i.Kill()
		}
		a.mu.Unlock()
		a.server.CloseClientConnections()
		a.server.Close()
		a.events.Wait()
	}
}

// authority is a file of whom callers are to trust.
func (a *activator) authority() string {
	file := filepath.Join(a.t.TempDir(), "ca.crt")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.server.Certificate().Raw})
	if err := os.WriteFile(file, text, 0o600); err != nil {
		a.t.Fatal(err)
	}
	return file
}

// scale starts as many processes as are called for, and tells those to end that have had no call for a while.
func (a *activator) scale() {
	a.mu.Lock()
	defer a.mu.Unlock()
	calls := len(a.waiting)
	for _, i := range slices.Clone(a.instances) {
		calls += i.under
		if i.url == "" {
			if found := metricsAddress.FindStringSubmatch(i.Output()); found != nil {
				i.url, i.since = found[1], time.Now()
			}
		} else if i.under == 0 && len(a.waiting) == 0 && time.Since(i.since) >= a.keep {
			a.leave(i).Term()
		}
	}
	a.match()
	for wanted := (calls + a.room - 1) / a.room; len(a.instances) < min(wanted, a.most); {
		i := &instance{Process: a.start()}
		a.instances = append(a.instances, i)
		a.started++
		a.alive++
		a.events.Go(func() { a.await(i) })
	}
}

// leave takes an instance out of those that are called.
func (a *activator) leave(i *instance) *instance {
	a.instances = slices.DeleteFunc(a.instances, func(other *instance) bool { return other == i })
	return i
}

// await demands that a process ends in order, once it is told to.
func (a *activator) await(i *instance) {
	code := i.Wait(10 * time.Minute)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.leave(i)
	if a.alive--; a.alive == 0 {
		a.zeros++
	}
	if code != 0 && !i.killed {
		a.t.Errorf("exit code %d of a worker that is called: %s", code, tail(i.Output()))
	}
	if strings.Contains(i.Output(), pushToken) {
		a.t.Error("the token is in the log of a worker")
	}
}

// match gives places to calls that wait, the first one first.
func (a *activator) match() {
	for _, i := range a.instances {
		for ; i.url != "" && i.under < a.room && len(a.waiting) > 0; i.under++ {
			a.waiting[0] <- i
			a.waiting = a.waiting[1:]
		}
	}
}

// enter waits for a place; nil is that there is none.
func (a *activator) enter(ctx context.Context) *instance {
	place := make(chan *instance, 1)
	a.mu.Lock()
	if len(a.waiting) >= mostHeld {
		a.mu.Unlock()
		return nil
	}
	a.waiting = append(a.waiting, place)
	a.match()
	a.mu.Unlock()
	select {
	case i := <-place:
		return i
	case <-ctx.Done():
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting = slices.DeleteFunc(a.waiting, func(other chan *instance) bool { return other == place })
	select {
	case i := <-place:
		a.free(i)
	default:
	}
	return nil
}

func (a *activator) free(i *instance) {
	i.under--
	i.since = time.Now()
	a.match()
}

// A call is a request, whatever it is.
type call struct {
	method, uri string
	header      http.Header
	body        []byte
}

// A reply is what comes of it.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// deliver hands a call on to a process.
func (a *activator) deliver(ctx context.Context, c call, also ...call) reply {
	i := a.enter(ctx)
	if i == nil {
		return reply{status: http.StatusServiceUnavailable}
	}
	for _, other := range also { // beyond what the process has room for
		a.mu.Lock()
		i.under++
		a.mu.Unlock()
		a.events.Go(func() { a.send(a.up, i, other) })
	}
	return a.send(ctx, i, c)
}

// send hands a call to a process that has a place for it.
func (a *activator) send(ctx context.Context, i *instance, c call) reply {
	answer, err := a.do(ctx, i.url, c)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.free(i)
	switch {
	case err == nil:
		a.answers[answer.status]++
		return answer
	case i.killed:
		a.broken++
	case !i.told && ctx.Err() == nil:
		a.t.Errorf("%s %s of a worker that runs: %v", c.method, c.uri, err)
	}
	return reply{status: http.StatusBadGateway}
}

func (a *activator) do(ctx context.Context, url string, c call) (reply, error) {
	request, err := http.NewRequestWithContext(ctx, c.method, url+c.uri, bytes.NewReader(c.body))
	if err != nil {
		return reply{}, err
	}
	request.Header = c.header.Clone()
	response, err := a.client.Do(request)
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return reply{response.StatusCode, response.Header, text}, err
}

// ServeHTTP implements http.Handler.
func (a *activator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, mostBody))
	if err != nil {
		return
	}
	c := call{r.Method, r.URL.RequestURI(), r.Header, body}
	trick, leave := a.hear(c)
	defer leave()
	answer := reply{status: http.StatusServiceUnavailable}
	switch trick {
	case refused:
	case cut:
		panic(http.ErrAbortHandler)
	case swallowed:
		answer.status = http.StatusAccepted
	case doubled:
		answer = a.deliver(r.Context(), c, c)
	case repeated:
		a.events.Go(func() {
			time.Sleep(time.Second)
			a.deliver(a.up, c)
		})
		answer = a.deliver(r.Context(), c)
	case delayed:
		time.Sleep(300 * time.Millisecond)
		answer = a.deliver(r.Context(), c)
	default:
		answer = a.deliver(r.Context(), c)
	}
	if trick == unanswered {
		panic(http.ErrAbortHandler)
	}
	for name, values := range answer.header {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.status)
	_, _ = w.Write(answer.body)
}

// hear counts a call of a coordinator until leave is called, and says what becomes of it. Others are handed on.
func (a *activator) hear(c call) (_ trick, leave func()) {
	_, number, numbered := strings.Cut(c.header.Get("Ce-Id"), "#")
	if c.header.Get("User-Agent") != "kferry" || !numbered {
		return honest, func() {}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	name, _, _ := strings.Cut(number, "-")
	if a.callers[name] == nil {
		a.callers[name] = &caller{}
	}
	from := a.callers[name]
	from.calls++
	from.under++
	from.most, a.last = max(from.most, from.under), time.Now()
	next := honest
	if a.tricks != nil {
		next = a.tricks()
	}
	a.tricked[next]++
	return next, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		from.under--
	}
}

// strike takes a process that is called right now, and ends it.
func (a *activator) strike(kill bool) {
	a.t.Helper()
	var struck *instance
	testbed.Eventually(a.t, copyWithin, "a process with a call", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		at := slices.IndexFunc(a.instances, func(i *instance) bool { return i.under > 0 })
		if at >= 0 {
			struck = a.leave(a.instances[at])
			struck.killed, struck.told = kill, true
		}
		return at >= 0
	})
	if kill {
		struck.Kill()
	} else {
		struck.Term()
	}
}

// holds waits until a process holds a lease, which may be for some hundredths of a second.
func (a *activator) holds() {
	a.t.Helper()
	for began := time.Now(); time.Since(began) < copyWithin; time.Sleep(time.Millisecond) {
		a.mu.Lock()
		at := slices.IndexFunc(a.instances, func(i *instance) bool { return i.under > 0 })
		var i *instance
		if at >= 0 {
			i = a.instances[at]
		}
		a.mu.Unlock()
		if i != nil && sum(metrics(a.t, i), "kferry_leases_held") > 0 {
			return
		}
	}
	a.t.Fatal("no process holds a lease")
}

// untried says whether a trick has not been played yet.
func (a *activator) untried() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.ContainsFunc(tricks, func(each trick) bool { return a.tricked[each] == 0 })
}

// breaks kills processes until that has broken off a call.
func (a *activator) breaks() {
	a.t.Helper()
	testbed.Eventually(a.t, copyWithin, "a kill in the midst of a call", func() bool {
		a.mu.Lock()
		broken := a.broken
		a.mu.Unlock()
		if broken == 0 {
			a.strike(true)
		}
		return broken > 0
	})
}

// rests waits until there is no process, and nobody has called for a second.
func (a *activator) rests() {
	a.t.Helper()
	testbed.Eventually(a.t, exitsWithin, "a second without a process or a call", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.alive == 0 && len(a.waiting) == 0 && time.Since(a.last) >= time.Second
	})
}
