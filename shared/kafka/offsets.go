package kafka

import (
	"context"
	"fmt"
	"sync"

	"github.com/kferry/kferry/shared/spec"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Isolation says whether the records of open and aborted transactions count.
type Isolation = spec.Isolation

// Timestamps that mean an end of the log.
const (
	Latest   int64 = -1
	Earliest int64 = -2
)

// consumerID is what a request that replicas make too has in the place of the replica's id.
const consumerID = -1

// An Offset is a place in a partition's log.
type Offset struct {
	Offset      int64
	LeaderEpoch int32 // of the record there, or the leader's own; -1 where unknown
	Err         error
}

// ListOffsets finds the first offset of each partition whose record is of that timestamp or later, or an end of the log if
// it is Earliest or Latest. Latest is the high watermark, or the last stable offset if only what is committed counts. Where
// no record is that young the offset is -1. It makes one request per broker. An error of one partition is in its answer.
func (c *Cluster) ListOffsets(ctx context.Context, tps []TopicPartition, timestamp int64, iso Isolation) (map[TopicPartition]Offset, error) {
	q := offsetQuestion{timestamp: timestamp, committed: iso == spec.ReadCommitted}
	answers := make(map[TopicPartition]Offset, len(tps))
	left := tps
	err := patiently(ctx, outdated, func() error {
		calls := c.askOffsets(ctx, left, q)
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		left = left[:0:0]
		var passed error
		for _, call := range calls {
			answers[call.tp] = call.offset
			if anyOf(call.offset.Err, outdated) {
				left, passed = append(left, call.tp), call.offset.Err
			}
		}
		return passed
	})
	if ctx.Err() != nil {
		return nil, fmt.Errorf("list offsets: %w", err)
	}
	return answers, nil
}

// LogEnd is the offset after the last record in the leader's log, replicated or not, and the leader's epoch. The question
// carries that epoch twice, so that a broker which is no longer the leader, or not yet, refuses it.
func (c *Cluster) LogEnd(ctx context.Context, tp TopicPartition) (Offset, error) {
	return c.offset(ctx, tp, offsetQuestion{logEnd: true})
}

// HighWatermark is the offset after the last record that is replicated.
func (c *Cluster) HighWatermark(ctx context.Context, tp TopicPartition) (Offset, error) {
	return c.offset(ctx, tp, offsetQuestion{timestamp: Latest})
}

// LogStart is the offset of the first record that is still there.
func (c *Cluster) LogStart(ctx context.Context, tp TopicPartition) (Offset, error) {
	return c.offset(ctx, tp, offsetQuestion{timestamp: Earliest})
}

// offsetQuestion is what one request asks about all of its partitions.
type offsetQuestion struct {
	logEnd    bool // by OffsetForLeaderEpoch; else by ListOffsets:
	timestamp int64
	committed bool
}

type offsetCall struct {
	tp     TopicPartition
	leader leader
	offset Offset
	done   chan struct{}
}

type offsetsKey struct {
	broker   int32
	question offsetQuestion
}

// offset asks about one partition, together with whoever asks the same of its leader.
func (c *Cluster) offset(ctx context.Context, tp TopicPartition, q offsetQuestion) (Offset, error) {
	var offset Offset
	err := patiently(ctx, outdated, func() error {
		l, err := c.topics.leader(ctx, tp)
		if err != nil {
			return err
		}
		call := &offsetCall{tp: tp, leader: l, done: make(chan struct{})}
		c.offsetGroup(offsetsKey{l.broker, q}).join(call)
		select {
		case <-call.done:
			offset = call.offset
			return offset.Err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	if err != nil {
		return Offset{}, fmt.Errorf("%s of %s: %w", q, tp, err)
	}
	return offset, nil
}

func (q offsetQuestion) String() string {
	switch {
	case q.logEnd:
		return "log end"
	case q.timestamp == Earliest:
		return "log start"
	case q.timestamp == Latest:
		return "high watermark"
	}
	return fmt.Sprintf("offset at timestamp %d", q.timestamp)
}

// offsetGroup returns the group of those who ask a broker the same. The questions that are shared are three.
func (c *Cluster) offsetGroup(key offsetsKey) *group[*offsetCall] {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.offsets[key]
	if g == nil {
		send := func(calls []*offsetCall) {
			c.sendOffsets(c.ctx, key, calls)
			for _, call := range calls {
				close(call.done)
			}
		}
		g = &group[*offsetCall]{width: 1, pick: all[*offsetCall], send: send, start: c.start}
		c.offsets[key] = g
	}
	return g
}

// askOffsets asks every broker that leads some of the partitions, all at once.
func (c *Cluster) askOffsets(ctx context.Context, tps []TopicPartition, q offsetQuestion) []*offsetCall {
	c.topics.prepare(ctx, tps)
	calls := make([]*offsetCall, len(tps))
	brokers := make(map[int32][]*offsetCall)
	for i, tp := range tps {
		call := &offsetCall{tp: tp}
		calls[i] = call
		call.leader, call.offset.Err = c.topics.leader(ctx, tp)
		if call.offset.Err == nil {
			brokers[call.leader.broker] = append(brokers[call.leader.broker], call)
		}
	}
	var asked sync.WaitGroup
	for broker, calls := range brokers {
		asked.Go(func() { c.sendOffsets(ctx, offsetsKey{broker, q}, calls) })
	}
	asked.Wait()
	return calls
}

// sendOffsets makes one request and puts its answers into the calls.
func (c *Cluster) sendOffsets(ctx context.Context, key offsetsKey, calls []*offsetCall) {
	var answers map[TopicPartition]Offset
	var err error
	if key.question.logEnd {
		answers, err = c.leaderEpochs(ctx, key.broker, calls)
	} else {
		answers, err = c.listOffsets(ctx, key, calls)
	}
	for _, call := range calls {
		offset, ok := answers[call.tp]
		switch {
		case err != nil:
			offset.Err = err
		case !ok:
			offset.Err = fmt.Errorf("broker %d left out %s: %w", key.broker, call.tp, ErrUnanswered)
		}
		c.topics.doubtAfter(offset.Err, call.tp.Topic)
		call.offset = offset
	}
}

func (c *Cluster) listOffsets(ctx context.Context, key offsetsKey, calls []*offsetCall) (map[TopicPartition]Offset, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = consumerID
	if key.question.committed {
		req.IsolationLevel = 1
	}
	for topic, calls := range byTopic(calls) {
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic = topic
		for _, call := range calls {
			p := kmsg.NewListOffsetsRequestTopicPartition()
			p.Partition = call.tp.Partition
			p.CurrentLeaderEpoch = call.leader.epoch
			p.Timestamp = key.question.timestamp
			t.Partitions = append(t.Partitions, p)
		}
		req.Topics = append(req.Topics, t)
	}
	resp, err := oneBroker[*kmsg.ListOffsetsResponse](ctx, c, key.broker, req)
	if err != nil {
		return nil, err
	}
	answers := make(map[TopicPartition]Offset, len(calls))
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			offset := Offset{p.Offset, p.LeaderEpoch, c.lacking(kerr.ErrorForCode(p.ErrorCode), toDescribe, ofTopic, t.Topic)}
			if key.question.timestamp < 0 && offset.Offset < 0 && offset.Err == nil { // a log has ends
				offset.Err = fmt.Errorf("broker %d says that %s has its %s at %d: %w", key.broker, TopicPartition{t.Topic, p.Partition}, key.question, offset.Offset, ErrUnanswered)
			}
			answers[TopicPartition{t.Topic, p.Partition}] = offset
		}
	}
	return answers, nil
}

func (c *Cluster) leaderEpochs(ctx context.Context, broker int32, calls []*offsetCall) (map[TopicPartition]Offset, error) {
	req := kmsg.NewPtrOffsetForLeaderEpochRequest()
	req.ReplicaID = consumerID
	for topic, calls := range byTopic(calls) {
		t := kmsg.NewOffsetForLeaderEpochRequestTopic()
		t.Topic = topic
		for _, call := range calls {
			p := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
			p.Partition = call.tp.Partition
			p.CurrentLeaderEpoch = call.leader.epoch
			p.LeaderEpoch = call.leader.epoch
			t.Partitions = append(t.Partitions, p)
		}
		req.Topics = append(req.Topics, t)
	}
	resp, err := oneBroker[*kmsg.OffsetForLeaderEpochResponse](ctx, c, broker, req)
	if err != nil {
		return nil, err
	}
	epochs := make(map[TopicPartition]int32, len(calls))
	for _, call := range calls {
		epochs[call.tp] = call.leader.epoch
	}
	answers := make(map[TopicPartition]Offset, len(calls))
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			tp := TopicPartition{t.Topic, p.Partition}
			answers[tp] = logEnd(p, epochs[tp])
			if err := answers[tp].Err; err != nil {
				answers[tp] = Offset{Err: c.lacking(err, toDescribe, ofTopic, t.Topic)}
			}
		}
	}
	return answers, nil
}

// logEnd reads an answer about the leader's current epoch, whose end is the log's. A leader that has not written in its
// epoch may name an earlier one, which ends at the same place. Without an end it does not know the epoch.
func logEnd(p kmsg.OffsetForLeaderEpochResponseTopicPartition, current int32) Offset {
	switch err := kerr.ErrorForCode(p.ErrorCode); {
	case err != nil:
		return Offset{Err: err}
	case current < 0:
		return Offset{Err: fmt.Errorf("%w: the cluster knows no leader epochs", ErrUnsupportedVersion)}
	case p.EndOffset < 0:
		return Offset{Err: ErrUnknownLeaderEpoch}
	}
	return Offset{Offset: p.EndOffset, LeaderEpoch: current}
}

func byTopic(calls []*offsetCall) map[string][]*offsetCall {
	topics := make(map[string][]*offsetCall)
	for _, call := range calls {
		topics[call.tp.Topic] = append(topics[call.tp.Topic], call)
	}
	return topics
}

// EpochEnd is the offset where the leader's log leaves a leader epoch, or the last one before it that the log knows: its end where that
// is the present one. -1 where the log knows none so old.
func (c *Cluster) EpochEnd(ctx context.Context, tp TopicPartition, epoch int32) (int64, error) {
	var end int64
	err := patiently(ctx, outdated, func() error {
		l, err := c.topics.leader(ctx, tp)
		if err != nil {
			return err
		}
		end, err = c.epochEnd(ctx, l, tp, epoch)
		c.topics.doubtAfter(err, tp.Topic)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("end of leader epoch %d of %s: %w", epoch, tp, err)
	}
	return end, nil
}

func (c *Cluster) epochEnd(ctx context.Context, l leader, tp TopicPartition, epoch int32) (int64, error) {
	req := kmsg.NewPtrOffsetForLeaderEpochRequest()
	req.ReplicaID = consumerID
	t := kmsg.NewOffsetForLeaderEpochRequestTopic()
	t.Topic = tp.Topic
	p := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
	p.Partition, p.CurrentLeaderEpoch, p.LeaderEpoch = tp.Partition, l.epoch, epoch
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	resp, err := oneBroker[*kmsg.OffsetForLeaderEpochResponse](ctx, c, l.broker, req)
	if err != nil {
		return 0, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 || resp.Topics[0].Topic != tp.Topic || resp.Topics[0].Partitions[0].Partition != tp.Partition {
		return 0, fmt.Errorf("broker %d left it out: %w", l.broker, ErrUnanswered)
	}
	answer := resp.Topics[0].Partitions[0]
	return answer.EndOffset, c.lacking(kerr.ErrorForCode(answer.ErrorCode), toDescribe, ofTopic, tp.Topic)
}
