package functions

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/kferry/kferry/shared/batch"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// What a run has to know of its topics before it starts, and what follows from it.

const (
	epochs = 1 << 15 // of one producer id
)

// facts are what two topics have to do with each other.
type facts struct {
	source, target topicFacts
	compacted      bool // records of the source may go at any time, so they can't be counted; also where that can't be known
	maxBytes       int  // largest batch that the target takes; 0 where it does not say
	stamps         bool // the target puts its own time in the place of every record's
}

type topicFacts struct {
	ClusterID string
	kafka.Topic
	configs map[string]string
}

// identify looks both topics up, and holds where one is missing.
func (m *mirror) identify(soft context.Context, fresh bool) (f facts, err error) {
	if f.source, err = m.topics.get(soft, m.source, m.from.Topic); err != nil {
		return f, missing(err, lease.ReasonTopicMissing, "%s has no topic %s (any more)", m.flow.Source, m.from.Topic)
	}
	if f.target, err = m.topics.get(soft, m.target, m.to.Topic); err != nil {
		reason := lease.ReasonPartitionMissing
		if !fresh {
			reason = lease.ReasonTargetRecreated
		}
		return f, missing(err, reason, "%s has no topic %s (any more)", m.flow.Target, m.to.Topic)
	}
	if n := len(f.source.Partitions); int(m.from.Partition) >= n {
		return f, hold(lease.ReasonTopicMissing, "%s has %d partitions, no number %d (any more)", m.from.Topic, n, m.from.Partition)
	}
	if n := len(f.target.Partitions); int(m.to.Partition) >= n {
		return f, hold(lease.ReasonPartitionMissing, "%s has %d partitions, %s has %d: add partitions", m.to.Topic, n, m.from.Topic, len(f.source.Partitions))
	}
	policy, known := f.source.configs["cleanup.policy"]
	f.compacted = !known || strings.Contains(policy, "compact")
	f.maxBytes, _ = strconv.Atoi(f.target.configs["max.message.bytes"])
	f.stamps = f.target.configs["message.timestamp.type"] == "LogAppendTime"
	return f, nil
}

// missing turns the error of a topic that isn't there into a hold.
func missing(err error, reason lease.Reason, format string, args ...any) error {
	if errors.Is(err, kafka.ErrUnknownTopic) {
		return hold(reason, format, args...)
	}
	return permanent(err)
}

// identity is the producer id of one source partition on one target topic, and the epoch, of a generation. Nobody issues or stores it. A
// topic without an id goes by its name, marked as such.
func (f facts) identity(partition, generation int32) batch.Identity {
	id := batch.ProducerID(f.source.ClusterID, f.source.key(), partition, f.target.key(), generation/epochs) // of as many as have used up their epochs
	return batch.Identity{ProducerID: id, Epoch: int16(generation % epochs)}
}

// assume makes m's identity what the cursor says.
func (m *mirror) assume() error {
	m.identity = m.facts.identity(m.from.Partition, m.at.Epoch)
	switch m.at.Producer {
	case "":
	case lease.NoProducer:
		m.identity = nobody
	default:
		issued, err := strconv.ParseInt(m.at.Producer, 10, 64)
		if err != nil {
			return hold(lease.ReasonFormat, "the cursor of %s names the producer %q, which is no id", m.from, m.at.Producer)
		}
		m.identity.ProducerID = issued
	}
	return nil
}

// nobody is who writes to a target that keeps no producer ids.
var nobody = batch.Identity{ProducerID: -1, Epoch: -1}

// anonymous says that the target's log doesn't tell whose a batch is, and refuses none that it has.
func (m *mirror) anonymous() bool { return m.identity == nobody }

// doubt is why the copy can't be exactly once.
func (m *mirror) doubt() string {
	if m.anonymous() {
		return "the target keeps no producer ids"
	}
	return ""
}

func identityText(id batch.Identity) string {
	return fmt.Sprintf("producer id %#x, epoch %d", id.ProducerID, id.Epoch)
}

func (t topicFacts) key() string { return t.Topic.Key(t.ClusterID) }

// cursor is a generation's first cursor, without a position.
func (f facts) cursor(flow spec.Flow) lease.Cursor {
	return lease.Cursor{
		SourceTopicID: f.source.key(), TargetTopicID: f.target.key(),
		Isolation: string(flow.Isolation), SourceEpoch: -1, Timestamp: -1,
	}
}

// recognise holds where the cursor belongs to other topics than those that are there.
func (m *mirror) recognise(c lease.Cursor) error {
	switch {
	case c.SourceTopicID != m.facts.source.key():
		return hold(lease.ReasonSourceRecreated, "%s on %s was deleted and created again: its id was %s, now it is %s", m.from.Topic, m.flow.Source, c.SourceTopicID, m.facts.source.key())
	case c.TargetTopicID != m.facts.target.key():
		return hold(lease.ReasonTargetRecreated, "%s on %s was deleted and created again: its id was %s, now it is %s", m.to.Topic, m.flow.Target, c.TargetTopicID, m.facts.target.key())
	}
	return nil
}

// topicCache shares look-ups between the partitions of a topic, which are claimed together.
type topicCache struct {
	flight singleflight.Group
	mu     sync.Mutex // guards known
	known  map[string]cachedTopic
}

type cachedTopic struct {
	topicFacts
	at time.Time
}

// cacheTime is shorter than any back-off that matters, so that a cause that is gone is seen at the next try.
const cacheTime = time.Second

func (c *topicCache) get(ctx context.Context, cluster *kafka.Cluster, topic string) (topicFacts, error) {
	key := cluster.Alias() + "\x00" + topic
	c.mu.Lock()
	t, ok := c.known[key]
	c.mu.Unlock()
	if ok && time.Since(t.at) < cacheTime {
		return t.topicFacts, nil
	}
	found, err, _ := c.flight.Do(key, func() (any, error) { return lookUp(ctx, cluster, topic) })
	if err != nil {
		return topicFacts{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) > 10_000 {
		c.known = map[string]cachedTopic{}
	}
	c.known[key] = cachedTopic{found.(topicFacts), time.Now()}
	return found.(topicFacts), nil
}

func lookUp(ctx context.Context, cluster *kafka.Cluster, topic string) (t topicFacts, err error) {
	if t.ClusterID, err = cluster.ID(ctx); err != nil {
		return t, fmt.Errorf("read cluster id of %s: %w", cluster.Alias(), err)
	}
	if t.Topic, err = cluster.Topic(ctx, topic); err != nil {
		return t, fmt.Errorf("look up %s on %s: %w", topic, cluster.Alias(), err)
	}
	configs, err := cluster.Configs(ctx, []string{topic})
	if err != nil {
		return t, fmt.Errorf("read configuration of %s on %s: %w", topic, cluster.Alias(), err)
	}
	found, answered := configs[topic]
	switch {
	case !answered:
		return t, fmt.Errorf("read configuration of %s on %s: the broker left it out", topic, cluster.Alias())
	case is(found.Err, kafka.ErrTopicAuthorization, kafka.ErrClusterAuthorization): // then nothing is known of it
	case found.Err != nil:
		return t, fmt.Errorf("read configuration of %s on %s: %w", topic, cluster.Alias(), found.Err)
	}
	t.configs = values(found.Entries)
	return t, nil
}

// values are settings by name.
func values(config []kafka.ConfigEntry) map[string]string {
	all := map[string]string{}
	for _, e := range config {
		all[e.Name] = e.Value
	}
	return all
}
