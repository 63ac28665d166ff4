package kafka

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// metadataAge is how long metadata is used without asking again.
	metadataAge = time.Minute
	// metadataPause is the least time between two questions about a topic, however often it is said to be stale.
	metadataPause = 200 * time.Millisecond
	// metadataIdle is how long a topic that nobody uses is kept up to date.
	metadataIdle = 5 * time.Minute
	// idConfirmations is how many answers in a row must show another topic id than the caller's. A broker that lags behind
	// may still show the one of the topic's predecessor.
	idConfirmations = 3
)

// Topic is what the brokers say of a topic. Its partitions are in order.
type Topic struct {
	Name       string
	ID         TopicID
	Internal   bool
	Partitions []Partition
	Err        error // why the rest is missing
}

// Key tells the topic from every other on any cluster: by its id, or where its cluster has none by cluster and name, marked as such.
func (t Topic) Key(clusterID string) string {
	if t.ID.Zero() {
		return "name:" + clusterID + ":" + t.Name
	}
	return t.ID.String()
}

// Partition is what the brokers say of a partition.
type Partition struct {
	Leader      int32 // -1 where there is none
	LeaderEpoch int32 // -1 where the brokers know no epochs
	Replicas    int
	Err         error // as long as there is no leader
}

// Topics describes all topics, as of now, by name.
func (c *Cluster) Topics(ctx context.Context) ([]Topic, error) {
	topics, err := c.askTopics(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("topics: %w", err)
	}
	slices.SortFunc(topics, func(a, b Topic) int { return strings.Compare(a.Name, b.Name) })
	return topics, nil
}

// Topic describes a topic, as of now. It fails with ErrUnknownTopic where there is none.
func (c *Cluster) Topic(ctx context.Context, name string) (Topic, error) {
	topics, err := c.askTopics(ctx, []string{name})
	if err != nil {
		return Topic{}, fmt.Errorf("topic %s: %w", name, err)
	}
	if topics[0].Err != nil {
		return Topic{}, fmt.Errorf("topic %s: %w", name, topics[0].Err)
	}
	return topics[0], nil
}

// TopicsNamed describes some topics, as of now, by name. Those that can't be described have an error of their own, as ErrUnknownTopic.
func (c *Cluster) TopicsNamed(ctx context.Context, names []string) (map[string]Topic, error) {
	all := make(map[string]Topic, len(names))
	if len(names) == 0 {
		return all, nil // which would be a question for every topic
	}
	topics, err := c.askTopics(ctx, names)
	if err != nil {
		return nil, fmt.Errorf("topics: %w", err)
	}
	for _, t := range topics {
		all[t.Name] = t
	}
	return all, nil
}

// PartitionCount is how many partitions a topic has. The brokers are asked again after a minute, or after a Write that failed.
func (c *Cluster) PartitionCount(ctx context.Context, name string) (int32, error) {
	topic, err := c.topics.topic(ctx, name)
	if err != nil {
		return 0, err
	}
	if topic.Err != nil {
		return 0, fmt.Errorf("topic %s: %w", name, topic.Err)
	}
	return int32(len(topic.Partitions)), nil
}

// askTopics asks for some topics, or for all if names is nil, and lets the cache know.
func (c *Cluster) askTopics(ctx context.Context, names []string) ([]Topic, error) {
	req := kmsg.NewPtrMetadataRequest()
	for _, name := range names {
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = &name
		req.Topics = append(req.Topics, topic)
	}
	asked := time.Now()
	resp, err := c.askMetadata(ctx, req)
	if err != nil {
		return nil, err
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, err
	}
	missing := make(map[string]bool, len(names))
	for _, name := range names {
		missing[name] = true
	}
	topics := make([]Topic, 0, len(resp.Topics))
	for _, t := range resp.Topics {
		if t.Topic == nil || names != nil && !missing[*t.Topic] { // nobody asked for that one
			continue
		}
		delete(missing, *t.Topic)
		topics = append(topics, c.newTopic(t))
	}
	for name := range missing {
		topics = append(topics, Topic{Name: name, Err: fmt.Errorf("the brokers left it out: %w", ErrUnanswered)})
	}
	c.topics.learn(topics, names == nil, asked)
	return topics, nil
}

func (c *Cluster) newTopic(t kmsg.MetadataResponseTopic) Topic {
	topic := Topic{Name: *t.Topic, ID: t.TopicID, Internal: t.IsInternal, Err: c.lacking(kerr.ErrorForCode(t.ErrorCode), toDescribe, ofTopic, *t.Topic)}
	slices.SortFunc(t.Partitions, func(a, b kmsg.MetadataResponseTopicPartition) int { return cmp.Compare(a.Partition, b.Partition) })
	for i, p := range t.Partitions {
		if p.Partition != int32(i) {
			topic.Err = fmt.Errorf("partition %d is missing from the metadata: %w", i, ErrLeaderNotAvailable)
			break
		}
		partition := Partition{Leader: p.Leader, LeaderEpoch: p.LeaderEpoch, Replicas: len(p.Replicas), Err: kerr.ErrorForCode(p.ErrorCode)}
		if p.Leader < 0 && partition.Err == nil {
			partition.Err = ErrLeaderNotAvailable
		}
		topic.Partitions = append(topic.Partitions, partition)
	}
	return topic
}

// metadata remembers the topics in use: whom to ask about a partition.
type metadata struct {
	c    *Cluster
	asks *group[*metadataCall] // of width 1: all who miss something share the next question

	mu    sync.Mutex // guards known
	known map[string]*knownTopic
}

type knownTopic struct {
	Topic
	asked time.Time // no later than what Topic tells
	used  time.Time
	stale bool // an answer of some broker contradicts it
}

type metadataCall struct {
	topic string
	done  chan struct{}
	err   error
}

// leader is where requests about a partition go, and with what.
type leader struct {
	broker, epoch int32
	topicID       TopicID
}

func newMetadata(c *Cluster) *metadata {
	m := &metadata{c: c, known: make(map[string]*knownTopic)}
	m.asks = &group[*metadataCall]{width: 1, pick: all[*metadataCall], send: m.refresh, start: c.start}
	return m
}

// topic describes a topic, by what is remembered if it is young enough.
func (m *metadata) topic(ctx context.Context, name string) (*Topic, error) {
	topic, fresh := m.lookup(name)
	if fresh {
		return topic, nil
	}
	err := m.ask(ctx, name)
	switch newer, _ := m.lookup(name); {
	case newer != nil:
		return newer, nil // or, if the question failed, what was known before
	case err != nil:
		return nil, err
	}
	return nil, fmt.Errorf("topic %s: %w", name, ErrUnknownTopic)
}

// leader finds a partition's leader, by what is remembered if it is young enough.
func (m *metadata) leader(ctx context.Context, tp TopicPartition) (leader, error) {
	topic, err := m.topic(ctx, tp.Topic)
	if err != nil {
		return leader{}, err
	}
	return topic.leader(tp)
}

func (t *Topic) leader(tp TopicPartition) (leader, error) {
	switch {
	case t.Err != nil:
		return leader{}, fmt.Errorf("topic %s: %w", tp.Topic, t.Err)
	case tp.Partition < 0 || int(tp.Partition) >= len(t.Partitions):
		return leader{}, fmt.Errorf("%s: %w: the topic has %d partitions", tp, ErrUnknownTopic, len(t.Partitions))
	}
	p := t.Partitions[tp.Partition]
	if p.Leader < 0 {
		return leader{}, fmt.Errorf("leader of %s: %w", tp, p.Err)
	}
	return leader{broker: p.Leader, epoch: p.LeaderEpoch, topicID: t.ID}, nil
}

// leaderOf is leader for a caller who means the topic with a certain id.
func (m *metadata) leaderOf(ctx context.Context, tp TopicPartition, id TopicID) (leader, error) {
	for confirmed := 0; ; confirmed++ {
		l, err := m.leader(ctx, tp)
		if err != nil || id.Zero() || l.topicID.Zero() || l.topicID == id {
			return l, err
		}
		if confirmed == idConfirmations {
			return leader{}, fmt.Errorf("%w The topic is %s now, and was %s", ErrInconsistentTopicID, l.topicID, id)
		}
		m.doubt(tp.Topic)
		if err := sleep(ctx, metadataPause); err != nil {
			return leader{}, err
		}
	}
}

// lookup returns what is known of a topic, nil if nothing is, and whether it will do.
func (m *metadata) lookup(name string) (topic *Topic, fresh bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	known := m.known[name]
	if known == nil {
		return nil, false
	}
	now := time.Now()
	known.used = now
	age := now.Sub(known.asked)
	doubtful := known.stale || known.lacking()
	return &known.Topic, age < metadataPause || !doubtful && age < metadataAge
}

// lacking says that a topic has an error, or a partition no leader.
func (t *Topic) lacking() bool {
	return t.Err != nil || slices.ContainsFunc(t.Partitions, func(p Partition) bool { return p.Leader < 0 })
}

// doubt makes the next caller ask again.
func (m *metadata) doubt(topic string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if known := m.known[topic]; known != nil {
		known.stale = true
	}
}

// prepare asks about all topics of the partitions at once, where leader would ask one by one. Errors are leader's to find.
func (m *metadata) prepare(ctx context.Context, tps []TopicPartition) {
	asked := make(map[string]bool)
	var calls []*metadataCall
	for _, tp := range tps {
		if asked[tp.Topic] {
			continue
		}
		asked[tp.Topic] = true
		if _, fresh := m.lookup(tp.Topic); !fresh {
			calls = append(calls, m.join(tp.Topic))
		}
	}
	for _, call := range calls {
		call.wait(ctx)
	}
}

// doubtAfter doubts what is known of a topic if an error may come of it: leaders move, topics are created again.
func (m *metadata) doubtAfter(err error, topic string) {
	if err != nil && Retriable(err) {
		m.doubt(topic)
	}
}

// ask waits for an answer about a topic to a question that is put after this call.
func (m *metadata) ask(ctx context.Context, topic string) error { return m.join(topic).wait(ctx) }

func (m *metadata) join(topic string) *metadataCall {
	call := &metadataCall{topic: topic, done: make(chan struct{})}
	m.asks.join(call)
	return call
}

func (call *metadataCall) wait(ctx context.Context) error {
	select {
	case <-call.done:
		return call.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// refresh asks for the topics that callers wait for, and for those whose turn comes soon.
func (m *metadata) refresh(calls []*metadataCall) {
	names := m.aging()
	for _, call := range calls {
		names[call.topic] = true
	}
	_, err := m.c.askTopics(m.c.ctx, slices.Collect(maps.Keys(names)))
	for _, call := range calls {
		call.err = err
		close(call.done)
	}
}

// aging is the set of topics that are used and have passed half their age, so that many topics share few questions. Topics
// that nobody uses are forgotten.
func (m *metadata) aging() map[string]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	names := make(map[string]bool)
	for name, known := range m.known {
		switch {
		case now.Sub(known.used) > metadataIdle:
			delete(m.known, name)
		case known.stale || now.Sub(known.asked) > metadataAge/2:
			names[name] = true
		}
	}
	return names
}

// learn takes in what brokers said. Topics that came up only in a list of all are not remembered.
func (m *metadata) learn(topics []Topic, listed bool, asked time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, topic := range topics {
		switch known := m.known[topic.Name]; {
		case known == nil && listed:
		case known == nil:
			m.known[topic.Name] = &knownTopic{Topic: topic, asked: asked, used: asked}
		case !known.asked.After(asked):
			m.known[topic.Name] = &knownTopic{Topic: topic, asked: asked, used: known.used}
		}
	}
}
