package kafka

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kferry/kferry/shared/batch"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// produceTimeout is how long a broker waits for replicas, and so what an incident of one partition costs its neighbours
	// in a request.
	produceTimeout = 5000 // milliseconds
	// apartTimeout is the same for suspects, which are many and travel in turns. One that only takes longer than that goes on as soon
	// as its replicas have what is missing.
	apartTimeout = 1000
	// produceRequests is how many requests to one broker may be in flight. The broker works on one at a time; the others
	// are on the wire meanwhile.
	produceRequests = 4
	// produceBytes bounds a request, a single larger batch excepted.
	produceBytes = 4 << 20
	// worthwhile is the size from which a request is sent though others are in flight. Smaller ones wait for an answer and
	// grow until then, as small packets do in TCP: a request costs the broker the same for one partition as for twenty.
	worthwhile = 256 << 10

	// suspicion is how long after a batch that its replicas did not take in time others may meet the same: a leader drops a silent
	// follower after replica.lag.time.max.ms (30 s), which it looks at every half of that.
	suspicion = 45 * time.Second

	allReplicas = -1
)

// Produced is a broker's word that a batch has landed.
type Produced struct {
	BaseOffset    int64
	LogAppendTime int64 // in milliseconds; -1 where the records keep their own time
	LogStart      int64
}

// Produce appends a batch to a partition as it is: offset, producer and sequence are the caller's. It shares requests with
// calls for other partitions; two batches of one partition are never on their way at once, though in no certain order.
//
// Nothing is sent twice. A batch that is still waiting when ctx ends, behind others or for memory, is not sent, and the error is
// the cause of ctx. Once it is on its way Produce waits for the answer, whatever becomes of ctx, so that the bytes are the
// caller's again when it returns. After any other error the batch may have landed, or may still land.
func (c *Cluster) Produce(ctx context.Context, tp TopicPartition, id TopicID, b batch.Batch) (Produced, error) {
	produced, err := c.produce(ctx, tp, id, b)
	if err != nil {
		return Produced{}, fmt.Errorf("produce to %s: %w", tp, err)
	}
	return produced, nil
}

func (c *Cluster) produce(ctx context.Context, tp TopicPartition, id TopicID, b batch.Batch) (Produced, error) {
	l, err := c.topics.leaderOf(ctx, tp, id)
	if err != nil {
		return Produced{}, err
	}
	if id.Zero() {
		id = l.topicID
	}
	call := &produceCall{ctx: ctx, tp: tp, id: id, batch: b, done: make(chan struct{})}
	p := c.producer(l.broker)
	p.group.join(call)
	select {
	case <-call.done:
	case <-ctx.Done():
		if p.leave(call) {
			return Produced{}, context.Cause(ctx)
		}
		<-call.done
	}
	c.topics.doubtAfter(call.err, tp.Topic)
	return call.produced, call.err
}

// produceCall is one batch on its way to one broker.
type produceCall struct {
	ctx      context.Context // the batch may be sent until it ends
	tp       TopicPartition
	id       TopicID
	batch    batch.Batch
	sent     bool      // and from then on waited for; guarded by the group's lock
	apart    bool      // its request goes aside; valid once it is picked
	left     time.Time // when it was sent
	produced Produced
	err      error
	done     chan struct{}
}

// A producer sends the produce requests to one broker.
//
// A partition whose followers are silent holds its whole request up until produceTimeout, and all that comes behind on the connection. As
// soon as that happens to one, every partition of the broker is a suspect until its replicas have acknowledged a batch again. Suspects
// travel aside, one request of them at a time, so that the others lose the time of one request and no more.
type producer struct {
	c      *Cluster
	broker int32
	group  group[*produceCall]

	// The group's lock guards what follows.
	busy    map[TopicPartition]bool // partitions in flight
	apart   bool                    // a request of suspects is in flight
	stalled time.Time               // when replicas last left a batch unacknowledged
	sound   map[TopicPartition]bool // partitions whose replicas have acknowledged one since that began
}

func (c *Cluster) producer(broker int32) *producer {
	c.aside(suspects) // which is to be ready when it is needed
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.producers[broker]
	if p == nil {
		p = &producer{c: c, broker: broker, busy: make(map[TopicPartition]bool)}
		p.group = group[*produceCall]{width: produceRequests + 1, pick: p.pick, send: p.send, start: c.start}
		c.producers[broker] = p
	}
	return p
}

// leave gives up a call, and reports whether that was in time: it has not been sent then, and will not be.
func (p *producer) leave(call *produceCall) (left bool) {
	p.group.edit(func(queue []*produceCall) []*produceCall {
		left = !call.sent
		if i := slices.Index(queue, call); i >= 0 {
			queue = slices.Delete(queue, i, i+1)
		}
		return queue
	})
	return left
}

// pick takes batches of partitions that have none in flight: suspects, where none of them are on their way, or else the others. The
// group's lock is held.
func (p *producer) pick(queue []*produceCall, others int) (next, rest []*produceCall) {
	suspicious := time.Since(p.stalled) < suspicion
	suspect := func(call *produceCall) bool { return suspicious && !p.sound[call.tp] }
	if p.apart {
		others--
	} else if next, rest, _ = p.gather(queue, worthwhile, suspect); len(next) > 0 {
		p.apart = true
		return p.take(next, true), rest
	}
	next, rest, bytes := p.gather(queue, produceBytes, func(call *produceCall) bool { return !suspect(call) })
	if others > 0 && bytes < worthwhile || others >= produceRequests {
		return nil, queue
	}
	return p.take(next, false), rest
}

// gather finds the batches that can go in one request of such a size.
func (p *producer) gather(queue []*produceCall, size int, fit func(*produceCall) bool) (next, rest []*produceCall, bytes int) {
	taken := make(map[TopicPartition]bool)
	for _, call := range queue {
		full := bytes > 0 && bytes+len(call.batch) > size
		if full || p.busy[call.tp] || taken[call.tp] || len(next) > 0 && call.id.Zero() != next[0].id.Zero() || !fit(call) {
			rest = append(rest, call)
			continue
		}
		taken[call.tp] = true
		next = append(next, call)
		bytes += len(call.batch)
	}
	return next, rest, bytes
}

func (p *producer) take(calls []*produceCall, apart bool) []*produceCall {
	for _, call := range calls {
		p.busy[call.tp], call.apart = true, apart
	}
	return calls
}

// send makes one request, as soon as there is memory for it, of the calls that are still wanted then, and answers them.
func (p *producer) send(calls []*produceCall) {
	client := p.c.client
	if calls[0].apart {
		client = p.c.aside(suspects)
		defer p.group.edit(func(queue []*produceCall) []*produceCall { p.apart = false; return queue })
	}
	bytes := int64(0)
	for _, call := range calls {
		bytes += int64(len(call.batch))
	}
	granted, err := p.c.budget.sent.acquire(p.c.ctx, bytes, bytes)
	if err != nil {
		p.answer(calls, nil, p.c.unanswered(err))
		return
	}
	defer p.c.budget.sent.release(granted)
	if calls = p.depart(calls); len(calls) > 0 {
		resp, err := through[*kmsg.ProduceResponse](p.c.ctx, p.c, client, p.broker, newProduceRequest(calls))
		p.answer(calls, resp, err)
	}
}

// depart returns the calls that are sent now. The others' time is over, and whoever made them has left or is about to.
func (p *producer) depart(calls []*produceCall) (leaving []*produceCall) {
	p.group.edit(func(queue []*produceCall) []*produceCall {
		for _, call := range calls {
			if over(call.ctx) {
				delete(p.busy, call.tp)
				continue
			}
			call.sent, call.left = true, time.Now()
			leaving = append(leaving, call)
		}
		return queue
	})
	return leaving
}

// over says whether a context has ended, by the clock too: a process that was frozen runs on before its timers do.
func over(ctx context.Context) bool {
	deadline, has := ctx.Deadline()
	return ctx.Err() != nil || has && !time.Now().Before(deadline)
}

// answer tells the calls of a request what became of their batches.
func (p *producer) answer(calls []*produceCall, resp *kmsg.ProduceResponse, err error) {
	var results map[TopicPartition]*kmsg.ProduceResponseTopicPartition
	if err == nil {
		results = resultsByName(calls, resp)
	}
	for _, call := range calls {
		result, ok := results[call.tp]
		switch {
		case err != nil:
			call.err = err
		case !ok:
			call.err = fmt.Errorf("broker %d left it out: %w", p.broker, ErrUnanswered)
		default:
			call.produced = Produced{result.BaseOffset, result.LogAppendTime, result.LogStartOffset}
			call.err = p.c.lacking(refusal(result), toWrite, ofTopic, call.tp.Topic)
		}
	}
	p.group.edit(func(queue []*produceCall) []*produceCall { p.judge(calls); return queue })
	for _, call := range calls {
		close(call.done)
	}
}

// judge learns from the answers to a request whose replicas keep up. The group's lock is held.
func (p *producer) judge(calls []*produceCall) {
	for _, call := range calls {
		delete(p.busy, call.tp)
		if !anyOf(call.err, []error{ErrRequestTimedOut, ErrNotEnoughReplicasAppended}) {
			continue
		}
		if p.sound == nil || !call.apart && call.left.After(p.stalled) { // another one begins: one that was sound is concerned
			p.sound = make(map[TopicPartition]bool)
		}
		p.stalled = time.Now()
	}
	for _, call := range calls {
		if call.err == nil && time.Since(p.stalled) < suspicion {
			p.sound[call.tp] = true
		}
	}
}

func newProduceRequest(calls []*produceCall) kmsg.Request {
	req := kmsg.NewPtrProduceRequest()
	req.Acks = allReplicas
	req.TimeoutMillis = produceTimeout
	if calls[0].apart {
		req.TimeoutMillis = apartTimeout
	}
	topics := make(map[TopicID]map[string]int)
	for _, call := range calls {
		if topics[call.id] == nil {
			topics[call.id] = make(map[string]int)
		}
		at, ok := topics[call.id][call.tp.Topic]
		if !ok {
			at = len(req.Topics)
			topics[call.id][call.tp.Topic] = at
			t := kmsg.NewProduceRequestTopic()
			t.Topic, t.TopicID = call.tp.Topic, call.id
			req.Topics = append(req.Topics, t)
		}
		partition := kmsg.NewProduceRequestTopicPartition()
		partition.Partition = call.tp.Partition
		partition.Records = call.batch
		req.Topics[at].Partitions = append(req.Topics[at].Partitions, partition)
	}
	if calls[0].id.Zero() {
		return namedProduce{req}
	}
	return req
}

// namedProduce keeps a request to the versions that name topics, for a cluster without topic ids.
type namedProduce struct{ *kmsg.ProduceRequest }

// MaxVersion is the last version with names.
func (namedProduce) MaxVersion() int16 { return 12 }

// produceIDs is the version of produce from which on topics go by their ids.
const produceIDs = 13

// resultsByName finds the answers to calls, whether the broker's version speaks in names or in ids.
func resultsByName(calls []*produceCall, resp *kmsg.ProduceResponse) map[TopicPartition]*kmsg.ProduceResponseTopicPartition {
	names := make(map[TopicID]string)
	for _, call := range calls {
		names[call.id] = call.tp.Topic
	}
	results := make(map[TopicPartition]*kmsg.ProduceResponseTopicPartition, len(calls))
	for i := range resp.Topics {
		t := &resp.Topics[i]
		name := t.Topic
		if resp.Version >= produceIDs {
			name = names[t.TopicID]
		}
		for j := range t.Partitions {
			results[TopicPartition{name, t.Partitions[j].Partition}] = &t.Partitions[j]
		}
	}
	return results
}

// refusal is a broker's error, with its words and those about single records, the first few.
func refusal(result *kmsg.ProduceResponseTopicPartition) error {
	const most = 3
	err := answer(result.ErrorCode, result.ErrorMessage)
	if err == nil || len(result.ErrorRecords) == 0 {
		return err
	}
	var words []string
	for _, r := range result.ErrorRecords[:min(most, len(result.ErrorRecords))] {
		word := fmt.Sprintf("record %d", r.RelativeOffset)
		if r.ErrorMessage != nil {
			word += ": " + *r.ErrorMessage
		}
		words = append(words, word)
	}
	if more := len(result.ErrorRecords) - most; more > 0 {
		words = append(words, fmt.Sprintf("and %d more", more))
	}
	return fmt.Errorf("%w (%s)", err, strings.Join(words, "; "))
}
