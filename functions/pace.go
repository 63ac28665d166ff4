package functions

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kferry/kferry/shared/batch"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// How fast a flow may read. A limit is paid for by what fetches bring, before more is asked for: a fetch waits until there is enough in
// each bucket that it draws from, and settles the difference when its answer is there, if need be by a debt. So in the long run the
// limit is exact, whatever the size of batches. (rate.Limiter of golang.org/x/time can't owe more than its burst, nor can a wait for it
// be reckoned anew when the limit changes.)

const (
	lookEvery = 2 * time.Second // at limits that were set while running

	// saved is how much of its limit a bucket keeps for later, in seconds of it: what a fetch that was late may catch up on.
	saved = 0.75
	// aFetch is how much of its limit one fetch asks for, in seconds of it. What comes is one batch at least.
	aFetch     = 0.25
	leastFetch = 1 << 10
	mostFetch  = 1 << 30 // that a fetch takes is less
	// fewBatches are fetched one by one: of what is cut off at the end, and comes again, there would be too much.
	fewBatches = 8

	// aloneAfter is how long a worker waits for the queue to bring its own words back before it takes a limit for itself.
	aloneAfter = 3 * time.Second
)

// A pacer keeps one flow's limits for all partitions of this worker.
type pacer struct {
	flow    spec.Flow
	cursors *lease.Cursors
	shares  *lease.Shares
	log     *slog.Logger
	waited  prometheus.Counter
	holds   map[lease.Unit]prometheus.Gauge

	halt    func()        // asks all partitions of the flow back
	joined  chan struct{} // of capacity 1: there is a bucket that the other workers don't know of
	looking chan struct{} // of capacity 1: holds one token while limits are looked up; those who wait for it can give up

	mu      sync.Mutex             // guards what follows
	set     map[string]lease.Limit // while running, by topic; nil before it was looked for
	paused  bool
	shown   spec.Rate // of the flow
	paces   map[*pace]struct{}
	buckets map[lease.Limited]*bucket
	said    time.Time
}

func newPacer(flow spec.Flow, q *lease.Queue, cursors *lease.Cursors, halt func(), log *slog.Logger, m *metrics) *pacer {
	p := &pacer{
		flow: flow, cursors: cursors, halt: halt, shares: q.Shares(flow.Name()), log: log.With("flow", flow.Name()),
		waited: m.waited.WithLabelValues(flow.Name()),
		holds: map[lease.Unit]prometheus.Gauge{
			lease.UnitBytes: m.limitBytes.WithLabelValues(flow.Name()), lease.UnitRecords: m.limitRecords.WithLabelValues(flow.Name()),
		},
		joined: make(chan struct{}, 1), looking: make(chan struct{}, 1), paces: map[*pace]struct{}{}, buckets: map[lease.Limited]*bucket{},
	}
	p.show()
	return p
}

// run keeps the limits and this worker's part of them up to date.
func (p *pacer) run(ctx context.Context) {
	turn, look := time.NewTicker(lease.SayEvery), time.NewTicker(lookEvery)
	defer turn.Stop()
	defer look.Stop()
	defer p.leave()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
			if err := p.look(ctx); err != nil && ctx.Err() == nil {
				p.log.Debug("limits stay as they are", "error", err)
			}
			if p.isPaused() {
				p.halt()
			}
		case <-turn.C:
			p.say()
		case <-p.joined:
			p.say()
		case <-p.shares.Changed():
		}
		p.allot()
	}
}

func (p *pacer) leave() {
	if err := p.shares.Close(); err != nil {
		p.log.Debug("others will find out that this worker has left", "error", err)
	}
}

// know returns when it is known which limits were set while running.
func (p *pacer) know(ctx context.Context) error {
	select {
	case p.looking <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-p.looking }()
	p.mu.Lock()
	known := p.set != nil
	p.mu.Unlock()
	if known {
		return nil
	}
	return p.lookUp(ctx)
}

// look finds out which limits were set while running, unless somebody does.
func (p *pacer) look(ctx context.Context) error {
	select {
	case p.looking <- struct{}{}:
		defer func() { <-p.looking }()
		return p.lookUp(ctx)
	default:
		return nil
	}
}

func (p *pacer) lookUp(ctx context.Context) error {
	orders, err := p.cursors.Orders(ctx)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set, p.paused = orders.Limits, orders.Paused
	p.show()
	for c := range p.paces {
		p.equip(c)
	}
	return nil
}

// isPaused says whether somebody has paused the flow, as far as is known.
func (p *pacer) isPaused() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.paused
}

// limits are what holds for a topic, or with "" for the flow as a whole. The lock is held.
func (p *pacer) limits(topic string) spec.Rate {
	r := p.flow.Limits.Rate
	if topic != "" {
		r = p.flow.Limits.Topic(topic)
	}
	return p.set[topic].Over(r)
}

// show tells what holds. The lock is held, or nobody else knows of p yet.
func (p *pacer) show() {
	r := p.limits("")
	if r != p.shown {
		p.log.Info("limit of what is read from the source", "rate", r)
	}
	p.shown = r
	p.holds[lease.UnitBytes].Set(float64(r.Bytes))
	p.holds[lease.UnitRecords].Set(float64(r.Records))
}

// enter adds a partition. What was set while running is known when it returns.
func (p *pacer) enter(ctx context.Context, topic string) (*pace, error) {
	if err := p.know(ctx); err != nil {
		return nil, fmt.Errorf("look at limits: %w", err)
	}
	if p.isPaused() {
		return nil, errYield
	}
	c := &pace{pacer: p, topic: topic, fresh: true}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paces[c] = struct{}{}
	p.equip(c)
	return c, nil
}

// leave takes the partition out.
func (c *pace) leave() {
	c.pacer.mu.Lock()
	defer c.pacer.mu.Unlock()
	delete(c.pacer.paces, c)
	c.pacer.hand(c, nil)
}

// equip gives a partition the buckets of the limits that hold for it, the narrower ones first: who waits for his topic's is not to stop
// the other topics. The lock is held.
func (p *pacer) equip(c *pace) {
	var buckets []*bucket
	for _, topic := range []string{c.topic, ""} {
		limits := amountOf(p.limits(topic))
		for _, unit := range []lease.Unit{lease.UnitBytes, lease.UnitRecords} {
			if limit := limits.of(unit); limit > 0 {
				buckets = append(buckets, p.bucket(lease.Limited{Topic: topic, Unit: unit}, limit))
			}
		}
	}
	p.hand(c, buckets)
}

func (p *pacer) bucket(of lease.Limited, limit float64) *bucket {
	b := p.buckets[of]
	if b == nil {
		b = newBucket(of)
		p.buckets[of] = b
		select {
		case p.joined <- struct{}{}:
		default:
		}
	}
	b.limit = limit
	return b
}

// hand gives a partition its buckets. The lock is held.
func (p *pacer) hand(c *pace, buckets []*bucket) {
	for _, b := range buckets {
		b.users++
	}
	for _, b := range c.draws() {
		if b.users--; b.users == 0 && amountOf(p.limits(b.of.Topic)).of(b.of.Unit) == 0 {
			delete(p.buckets, b.of)
			b.open() // the limit is no more, and somebody may still wait for it
		}
	}
	c.buckets.Store(&buckets)
}

// sweep drops buckets that nobody draws from, once nothing is owed: a partition may be back at once, and is not to be let off. The lock is
// held.
func (p *pacer) sweep() {
	for of, b := range p.buckets {
		if b.users == 0 && !b.owes() {
			delete(p.buckets, of)
		}
	}
}

// say tells the other workers what this one needs.
func (p *pacer) say() {
	p.mu.Lock()
	in := time.Since(p.said)
	p.said = time.Now()
	p.sweep()
	needs := map[lease.Limited]lease.Need{}
	for of, b := range p.buckets {
		needs[of] = b.need(in)
	}
	p.mu.Unlock()
	if err := p.shares.Say(needs); err != nil {
		p.log.Debug("could not tell the others what is needed", "error", err)
	}
}

// allot gives each bucket this worker's part of its limit. One that is not known leaves the bucket as it is, new ones shut.
func (p *pacer) allot() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for of, b := range p.buckets {
		part, known := p.shares.Part(of, b.limit)
		if !known && time.Since(b.made) > aloneAfter && b.rate() == 0 {
			p.log.Warn("the queue does not bring words of other workers; taking a whole limit", "topic", of.Topic, "unit", of.Unit)
			part, known = b.limit, true
		}
		if known {
			b.allot(part)
		}
	}
}

// A pace is one partition's. Only one goroutine at a time uses what is not atomic.
type pace struct {
	pacer   *pacer
	topic   string
	buckets atomic.Pointer[[]*bucket] // none without a limit: then a fetch costs this one look

	drawn []*bucket // for the fetch that is under way
	drew  amount    // from each
	last  amount    // what the last fetch brought
	whole int64     // bytes of a batch in it, on average
	fresh bool      // nothing was fetched yet
}

// An amount is what a fetch brings, or a second.
type amount struct{ bytes, records int64 }

func (a amount) of(u lease.Unit) float64 {
	if u == lease.UnitRecords {
		return float64(a.records)
	}
	return float64(a.bytes)
}

func amountOf(r spec.Rate) amount { return amount{r.Bytes, r.Records} }

func (c *pace) draws() []*bucket {
	if buckets := c.buckets.Load(); buckets != nil {
		return *buckets
	}
	return nil
}

// wait returns when the limits allow another fetch, and how long that took. It holds nothing meanwhile. The fetch is to bring no more
// than most bytes, or one batch; 0 is any number.
func (c *pace) wait(ctx context.Context) (most int64, waited time.Duration, err error) {
	c.drawn = c.draws()
	if len(c.drawn) == 0 {
		return 0, 0, nil
	}
	begun := time.Now()
	c.drew = c.expected()
	for i, b := range c.drawn {
		if err := b.draw(ctx, c, c.drew.of(b.of.Unit)); err != nil {
			c.drawn = c.drawn[:i]
			c.settle(amount{})
			return 0, 0, err
		}
	}
	waited = time.Since(begun)
	c.pacer.waited.Add(waited.Seconds())
	return c.most(), waited, nil
}

// expected is what the next fetch will bring: as much as the last one. A partition that was quiet expects nothing, so many of them keep
// nothing from a busy one.
func (c *pace) expected() amount {
	if !c.fresh {
		return c.last
	}
	first := amount{bytes: c.most()}
	for _, b := range c.drawn {
		if b.of.Unit == lease.UnitRecords {
			first.records = int64(b.rate() * aFetch)
		}
	}
	return first
}

// most is how much to ask for: part of what this worker may read in a second, in whole batches as far as can be told, since what is cut
// off comes again.
func (c *pace) most() int64 {
	most := int64(0)
	for _, b := range c.drawn {
		bytes := b.rate() * aFetch
		if b.of.Unit == lease.UnitRecords {
			if c.last.records == 0 {
				continue
			}
			bytes *= float64(c.last.bytes) / float64(c.last.records)
		}
		if n := max(leastFetch, int64(min(bytes, mostFetch))); most == 0 || n < most {
			most = n
		}
	}
	switch {
	case most == 0: // in records, and nobody knows how large they are
		return leastFetch
	case c.whole > 0 && most < fewBatches*c.whole:
		return 1
	case c.whole > 0:
		return most/c.whole*c.whole + c.whole/8
	}
	return most
}

// came accounts for what a fetch brought.
func (c *pace) came(f *kafka.Fetched) {
	if len(c.drawn) == 0 {
		return
	}
	if f == nil { // broken off, or failed
		c.settle(amount{})
		return
	}
	c.last.bytes = int64(len(f.Records))
	c.last.records, c.whole = count(f.Records)
	c.fresh = false
	c.settle(c.last)
}

// settle charges what came, in the place of what was drawn.
func (c *pace) settle(got amount) {
	for _, b := range c.drawn {
		b.settle(c.drew.of(b.of.Unit), got.of(b.of.Unit))
	}
	c.drawn = nil
}

// count looks at the headers of whole batches.
func count(data []byte) (records, bytesEach int64) {
	batches, bytes := int64(0), int64(0)
	for {
		b, ok := batch.PeekHeader(data)
		if !ok || !b.Whole() {
			return records, bytes / max(1, batches)
		}
		batches++
		bytes += int64(len(b))
		records += max(0, int64(b.Records()))
		data = data[len(b):]
	}
}

// A bucket fills with what a limit allows, and those who fetch draw from it, first come, first served. It may owe.
type bucket struct {
	of    lease.Limited
	limit float64 // of the flow or topic, over all workers; the pacer's lock guards it
	users int     // likewise
	made  time.Time

	turn chan struct{} // of capacity 1: one draws, the others queue

	mu        sync.Mutex // guards what follows
	perSecond float64    // this worker's part; 0 before it is known
	level     float64
	filled    time.Time // level is as of then
	changed   chan struct{}
	waits     map[*pace]wait // since the last need
	used      float64        // since the last need
}

// A wait is how long a partition has had to wait.
type wait struct {
	total time.Duration
	since time.Time // zero while it doesn't
}

func newBucket(of lease.Limited) *bucket {
	now := time.Now()
	return &bucket{of: of, made: now, filled: now, turn: make(chan struct{}, 1), changed: make(chan struct{}), waits: map[*pace]wait{}}
}

// fill brings the level up to date. The lock is held.
func (b *bucket) fill() {
	now := time.Now()
	b.level = min(b.perSecond*saved, b.level+b.perSecond*now.Sub(b.filled).Seconds())
	b.filled = now
}

// allot changes the rate, also for those who wait.
func (b *bucket) allot(perSecond float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if perSecond == b.perSecond {
		return
	}
	b.fill()
	b.perSecond = perSecond
	close(b.changed)
	b.changed = make(chan struct{})
}

// open lets everybody through: the limit is no more.
func (b *bucket) open() { b.allot(math.Inf(1)) }

func (b *bucket) owes() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fill()
	return b.level < 0
}

func (b *bucket) rate() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.perSecond
}

// draw takes an amount as soon as it is there; of one that is more than the bucket saves, the rest is owed.
func (b *bucket) draw(ctx context.Context, who *pace, n float64) error {
	if b.drawNow(n) {
		return nil
	}
	b.holdUp(who)
	defer b.letGo(who)
	select {
	case b.turn <- struct{}{}: // who waits here is served in the order of coming
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-b.turn }()
	for { // until there is enough, which a change of the rate may put off
		left, changed := b.take(n)
		if left <= 0 {
			return nil
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-changed:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
		timer.Stop()
	}
}

// drawNow draws where nobody waits and there is enough.
func (b *bucket) drawNow(n float64) bool {
	select {
	case b.turn <- struct{}{}:
		left, _ := b.take(n)
		<-b.turn
		return left <= 0
	default:
		return false
	}
}

// forever is how long it takes until there is enough where nothing comes in.
const forever = 24 * time.Hour

// take takes an amount, or says how long it is until it is there.
func (b *bucket) take(n float64) (left time.Duration, changed <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch b.perSecond {
	case math.Inf(1):
		return 0, nil
	case 0:
		return forever, b.changed
	}
	b.fill()
	const rounding = 1e-3 // of a byte or record
	if lacks := min(n, b.perSecond*saved) - b.level - rounding; lacks > 0 {
		return min(forever, time.Duration(lacks/b.perSecond*float64(time.Second))+1), b.changed
	}
	b.level -= n
	return 0, nil
}

// settle puts what came in the place of what was drawn.
func (b *bucket) settle(drew, got float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.level += drew - got
	b.used += got
}

func (b *bucket) holdUp(who *pace) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waits[who] = wait{b.waits[who].total, time.Now()}
}

func (b *bucket) letGo(who *pace) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.waits[who]
	b.waits[who] = wait{total: w.total + time.Since(w.since)}
}

// hungryFrom is the part of its time for which a partition waits that gets less than it needs. Who waits less has enough, or nearly.
const hungryFrom = 0.25

// need is what this worker needed in the time since it was last asked.
func (b *bucket) need(in time.Duration) (n lease.Need) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	for who, w := range b.waits {
		if !w.since.IsZero() {
			w.total += now.Sub(w.since)
			b.waits[who] = wait{since: now}
		} else {
			delete(b.waits, who)
		}
		if w.total.Seconds() > in.Seconds()*hungryFrom {
			n.Hungry++
		}
	}
	n.Used = b.used / max(in, lease.SayEvery/2).Seconds()
	b.used = 0
	return n
}
