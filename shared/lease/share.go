package lease

import (
	"crypto/rand"
	"encoding/json"
	"maps"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Bounds of sharing.
const (
	// SayEvery is how often a worker says what it needs.
	SayEvery = time.Second
	// silentRounds is how many a worker may miss before its part goes to the others.
	silentRounds = 3
	// settleTime is what the others have to answer a worker that has just come, from when its first word came back.
	settleTime    = 250 * time.Millisecond
	needsAMessage = 500
	// mostWorkers and mostHungry bound what is believed of others.
	mostWorkers = 10_000
	mostHungry  = 1_000_000
)

// Shares is how the workers of an installation divide the limits of one flow: each says once a second what it needs, to all the others,
// and each computes everybody's part from the same words. Together the parts are the limit.
//
// The words travel as plain NATS messages, which need neither a store nor anybody to clean up behind dead workers. A worker hears its own
// words too, and counts time in them: another one is gone when more than three rounds of my own have come back since its last word. So
// no two clocks are compared, and while the queue is away nobody is gone and everybody keeps his part.
type Shares struct {
	queue         *Queue
	subject, self string
	changed       chan struct{} // of capacity 1

	mu           sync.Mutex // guards what follows
	subscription *nats.Subscription
	said         map[Limited]Need // of mine, last
	rounds       uint64           // of mine that came back
	heard        time.Time        // when the last one did
	company      map[Limited]map[string]peer
	settled      map[Limited]time.Time // when my part is known, from the monotonic clock
}

// Limited names one limit: a flow's, or that of one of its topics.
type Limited struct {
	Topic string `json:"topic,omitempty"` // "" is the flow
	Unit  Unit   `json:"unit"`
}

// A Unit is what a limit counts.
type Unit string

// The units of limits, a second.
const (
	UnitBytes   Unit = "bytes"
	UnitRecords Unit = "records"
)

// A Need is what a worker says of one limit.
type Need struct {
	Hungry int     `json:"hungry"` // partitions that had to wait
	Used   float64 `json:"used"`   // a second
}

type peer struct {
	Need
	round uint64 // of mine when it was last heard
}

// word is what workers say to each other.
type word struct {
	Worker string        `json:"worker"`
	Turn   bool          `json:"turn,omitempty"` // said as each second, and not as an answer
	Needs  []limitedNeed `json:"needs,omitempty"`
	Left   []Limited     `json:"left,omitempty"`
}

type limitedNeed struct {
	Limited
	Need
}

// Shares joins the workers of a flow. Nothing is said or heard before Say.
func (q *Queue) Shares(flow string) *Shares {
	return &Shares{
		queue: q, subject: q.options.Name + ".share." + escape(flow), self: rand.Text(), changed: make(chan struct{}, 1),
		said: map[Limited]Need{}, company: map[Limited]map[string]peer{}, settled: map[Limited]time.Time{},
	}
}

// Changed tells that parts may be others than before.
func (s *Shares) Changed() <-chan struct{} { return s.changed }

func (s *Shares) poke() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Say tells the others what this worker needs; a limit that it no longer names is left to them. It waits for nobody.
func (s *Shares) Say(needs map[Limited]Need) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var left []Limited
	for l := range s.said {
		if _, still := needs[l]; !still {
			left = append(left, l)
			delete(s.company, l)
			delete(s.settled, l)
		}
	}
	s.said = maps.Clone(needs)
	if len(needs) == 0 && len(left) == 0 || !s.queue.conn.IsConnected() { // what is said into a dead connection comes out late
		return nil
	}
	if err := s.listen(); err != nil {
		return err
	}
	return s.say(word{Turn: true, Needs: list(needs), Left: left})
}

func (s *Shares) listen() (err error) {
	if s.subscription == nil {
		s.subscription, err = s.queue.conn.Subscribe(s.subject, s.hear)
	}
	return s.queue.explain("hear of other workers", err)
}

func list(needs map[Limited]Need) []limitedNeed {
	all := make([]limitedNeed, 0, len(needs))
	for l, n := range needs {
		all = append(all, limitedNeed{l, n})
	}
	return all
}

// say sends a word, in as many messages as it takes.
func (s *Shares) say(w word) error {
	rest := w.Needs
	w.Worker = s.self
	for {
		w.Needs, rest = rest[:min(len(rest), needsAMessage)], rest[min(len(rest), needsAMessage):]
		if err := s.queue.conn.Publish(s.subject, encodeJSON(w)); err != nil {
			return s.queue.explain("say what is needed", err)
		}
		if w.Left = nil; len(rest) == 0 {
			return nil
		}
	}
}

// hear takes a word in, and answers one who has just come.
func (s *Shares) hear(m *nats.Msg) {
	var w word
	if err := json.Unmarshal(m.Data, &w); err != nil {
		s.queue.options.Logger.Debug("skipped a word of another worker", "error", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if answer := s.take(w); len(answer) > 0 {
		_ = s.say(word{Needs: list(answer)}) // or it is said with the next round
	}
	s.poke()
}

// take is what one who has just come is to be answered. The lock is held.
func (s *Shares) take(w word) map[Limited]Need {
	if w.Worker == s.self && w.Turn {
		s.count()
	}
	answer := map[Limited]Need{}
	for _, n := range w.Needs {
		mine, shared := s.said[n.Limited]
		if !shared {
			continue
		}
		if s.meet(w.Worker, n) && w.Worker != s.self {
			answer[n.Limited] = mine
		}
	}
	for _, l := range w.Left {
		if w.Worker != s.self { // who may be back already
			delete(s.company[l], w.Worker)
		}
	}
	return answer
}

// meet notes what a worker needs, and says whether it is new here.
func (s *Shares) meet(worker string, n limitedNeed) (isNew bool) {
	workers := s.company[n.Limited]
	if workers == nil {
		workers = map[string]peer{}
		s.company[n.Limited] = workers
	}
	_, known := workers[worker]
	if !known && len(workers) >= mostWorkers {
		return false
	}
	n.Hungry, n.Used = min(max(0, n.Hungry), mostHungry), max(0, n.Used) // or somebody else's part would be more than there is
	workers[worker] = peer{n.Need, s.rounds}
	if worker == s.self && s.settled[n.Limited].IsZero() {
		s.settled[n.Limited] = time.Now().Add(settleTime)
		time.AfterFunc(settleTime, s.poke)
	}
	return !known
}

// count counts a round and drops those who have been silent. Rounds that were held up and come in a heap are one.
func (s *Shares) count() {
	if time.Since(s.heard) < SayEvery/2 {
		return
	}
	s.rounds++
	s.heard = time.Now()
	for _, workers := range s.company {
		maps.DeleteFunc(workers, func(worker string, p peer) bool { return worker != s.self && s.rounds-p.round > silentRounds })
	}
}

// Part is what of a limit is this worker's; false until it is known, and never anew while the queue is away.
func (s *Shares) Part(l Limited, limit float64) (float64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	settled := s.settled[l]
	if settled.IsZero() || time.Now().Before(settled) {
		return 0, false
	}
	needs := []Need{s.company[l][s.self].Need}
	for worker, p := range s.company[l] {
		if worker != s.self {
			needs = append(needs, p.Need)
		}
	}
	return divide(limit, needs)[0], true
}

// Close leaves all limits to the others.
func (s *Shares) Close() error {
	err := s.Say(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.subscription != nil {
		_ = s.subscription.Unsubscribe() // fails where the connection is closed, which ends it too
		s.subscription = nil
	}
	return err
}

// What one who does not wait is left beyond what he uses, so that he can grow until he does.
const (
	roomToGrow  = 1.25
	roomToBegin = 0.01 // of the limit
)

// divide gives out a limit. Who does not have to wait keeps what he uses and some more, as long as that is less than an equal part;
// those who do wait divide the rest by their partitions.
func divide(limit float64, needs []Need) []float64 {
	weights, hungry := 0.0, 0.0
	for _, n := range needs {
		weights += float64(max(1, n.Hungry))
		hungry += float64(n.Hungry)
	}
	parts, rest := make([]float64, len(needs)), limit
	for i, n := range needs {
		if n.Hungry == 0 {
			parts[i] = min(n.Used*roomToGrow+limit*roomToBegin, limit/weights)
			rest -= parts[i]
		}
	}
	for i, n := range needs {
		if hungry > 0 {
			parts[i] += rest * float64(n.Hungry) / hungry
		} else {
			parts[i] += rest / float64(len(needs))
		}
	}
	return parts
}
