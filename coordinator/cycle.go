package coordinator

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kferry/kferry/shared/batch"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// A topic that comes back to where it was made would be copied on and on, each time under a longer name. Its name tells as long as all
// use the same aliases (spec.Flow.Selects). What shows in other ways is left out here, and each such topic is listed with the reason:
//   - A hop of its name is another alias of the target's cluster.
//   - Its name says that it has been on the source before, and came back by way of another cluster. (A topic that merely has the source's
//     alias in front was made there, and is copied.)
//   - All that its partitions hold last are batches of a kferry, of an installation that may know nothing of this one, that copied them
//     from topics of this flow's target: a producer id says so, see batch.ProducerID. As soon as somebody else writes there it is copied,
//     as when applications have moved to a copy.

const (
	idTimeout = 2 * time.Second // for a cluster to tell its id
	// returnsAgain is how often the topics are looked at again that were found to come back.
	returnsAgain = 30 * time.Second
	producerAsks = 8 // batches read at one time
)

// clusterIDs are those of all clusters, by alias. They are asked for when a name makes it matter.
type clusterIDs struct {
	clusters map[string]*kafka.Cluster

	mu    sync.Mutex           // guards asked
	asked map[string]time.Time // clusters that gave no answer
}

// of is a cluster's id, "" where it is not known.
func (c *clusterIDs) of(ctx context.Context, alias string) string {
	cluster := c.clusters[alias]
	c.mu.Lock()
	rests := time.Since(c.asked[alias]) < returnsAgain
	c.mu.Unlock()
	if cluster == nil || rests {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, idTimeout)
	defer cancel()
	id, err := cluster.ID(ctx)
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.asked == nil {
			c.asked = map[string]time.Time{}
		}
		c.asked[alias] = time.Now()
		return ""
	}
	return id
}

// one says whether two aliases are known to be one cluster's.
func (c *clusterIDs) one(ctx context.Context, a, b string) bool {
	if a == b {
		return true
	}
	id := c.of(ctx, a)
	return id != "" && id == c.of(ctx, b)
}

// apart refuses a flow that would copy topics into themselves.
func (p pair) apart(ctx context.Context) error {
	if keepsNames(p.flow) && p.ids.one(ctx, p.flow.Source, p.flow.Target) {
		return fmt.Errorf("%s and %s are one cluster (its id is %s): topics that keep their names would be copied into themselves; name another cluster, or take the default policy",
			p.flow.Source, p.flow.Target, p.ids.of(ctx, p.flow.Source))
	}
	return nil
}

// A Comeback is why a topic comes back, or why that is not known.
type Comeback struct {
	Why string
	Err error
}

// hops are the clusters that a topic has come through, as its name tells, the last one first.
func hops(policy mm2.Policy, topic string) (aliases []string) {
	for {
		alias, ok := policy.Source(topic)
		if !ok {
			return aliases
		}
		aliases = append(aliases, alias)
		topic, _ = policy.Upstream(topic)
	}
}

// comebacks are the topics that come back by their names.
func (p pair) comebacks(ctx context.Context, source []kafka.Topic) map[string]Comeback {
	all := map[string]Comeback{}
	for _, topic := range source {
		for i, alias := range hops(p.flow.Policy, topic.Name) {
			switch {
			case p.ids.one(ctx, alias, p.flow.Target):
				all[topic.Name] = Comeback{Why: fmt.Sprintf("its name says that it came from %s, which is the same cluster as %s (%s)", alias, p.flow.Target, p.ids.of(ctx, alias))}
			case i > 0 && p.ids.one(ctx, alias, p.flow.Source):
				all[topic.Name] = Comeback{Why: fmt.Sprintf("its name says that it has been on %s before, and came back from %s", alias, hops(p.flow.Policy, topic.Name)[0])}
			}
		}
	}
	return all
}

// NotCopied are the topics of a flow that come back by their names and are not copied therefore, each with the reason.
func NotCopied(ctx context.Context, f spec.Flow, clusters map[string]*kafka.Cluster) (map[string]string, error) {
	p := pair{flow: f, source: clusters[f.SourceKey()], target: clusters[f.TargetKey()], ids: &clusterIDs{clusters: clusters}}
	all, err := p.source.Topics(ctx)
	if err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	whys := map[string]string{}
	for topic, back := range p.comebacks(ctx, selected(f, all)) {
		whys[topic] = back.Why
	}
	return whys, nil
}

// provenance remembers what was found of topics, by name and id.
type provenance map[string]found

type found struct {
	Comeback
	at time.Time
}

// join adds to the topics that come back by their names those that are about to be begun and come back by their records, and remembers
// what was found; nil remembers nothing.
func (known provenance) join(ctx context.Context, p pair, v View) map[string]Comeback {
	all := maps.Clone(v.Back)
	if all == nil {
		all = map[string]Comeback{}
	}
	var mu sync.Mutex // guards all and known
	var g errgroup.Group
	g.SetLimit(producerAsks)
	for _, topic := range v.Source {
		origins, held := v.origins(topic), v.fresh(topic)
		if len(origins) == 0 || len(held) == 0 {
			continue
		}
		key := topic.Name + " " + topic.ID.String()
		mu.Lock()
		was, seen := known[key]
		mu.Unlock()
		if seen && (was.Why == "" || time.Since(was.at) < returnsAgain) {
			if was.Why != "" {
				mu.Lock()
				all[topic.Name] = was.Comeback
				mu.Unlock()
			}
			continue
		}
		g.Go(func() error {
			why, err := p.origin(ctx, topic, held, origins)
			mu.Lock()
			defer mu.Unlock()
			if err == nil && known != nil {
				known[key] = found{Comeback{Why: why}, time.Now()}
			}
			if why != "" || err != nil {
				all[topic.Name] = Comeback{why, err}
			}
			return nil
		})
	}
	_ = g.Wait() // errors are among the answers
	return all
}

// origins are the topics of the target that a topic may be a copy of: whatever stands before it, a copy's name ends in its source's.
func (v View) origins(topic kafka.Topic) (origins []kafka.Topic) {
	for i := range topic.Name {
		if t, exists := v.Target[topic.Name[i:]]; exists && t.Err == nil {
			origins = append(origins, t)
		}
	}
	return origins
}

// fresh are a topic's partitions that hold records to be copied, the longest first, as long as none has been.
func (v View) fresh(topic kafka.Topic) []kafka.TopicPartition {
	var held []kafka.TopicPartition
	for i := range topic.Partitions {
		tp := kafka.TopicPartition{Topic: topic.Name, Partition: int32(i)}
		at := v.partition(topic.Name, "", int32(i))
		if at.Begun && (at.Cursor.Sequence != 0 || at.Cursor.Epoch != 0 || at.Cursor.Foreign) {
			return nil
		}
		if at.Lag > 0 {
			held = append(held, tp)
		}
	}
	slices.SortFunc(held, func(a, b kafka.TopicPartition) int { return cmp.Compare(v.Ends[b].Offset, v.Ends[a].Offset) })
	return held
}

// origin says what a topic is a copy of, if all its partitions end in records that a kferry copied here from the target.
func (p pair) origin(ctx context.Context, topic kafka.Topic, partitions []kafka.TopicPartition, origins []kafka.Topic) (why string, err error) {
	source, sourceErr := p.source.ID(ctx)
	target, targetErr := p.target.ID(ctx)
	if sourceErr != nil || targetErr != nil {
		return "", nil // of clusters without ids nothing can be said
	}
	for _, tp := range partitions {
		producer, failed := p.source.LastProducer(ctx, tp)
		if failed != nil {
			err = fmt.Errorf("who wrote to %s: %w", tp, failed)
			continue // another one may show that the topic is no copy
		}
		i := slices.IndexFunc(origins, func(o kafka.Topic) bool {
			return batch.ProducerID(target, o.Key(target), tp.Partition, topic.Key(source), 0) == producer
		})
		if i < 0 {
			return "", nil
		}
		why = fmt.Sprintf("its last records were copied here from %q on %s", origins[i].Name, p.flow.Target)
	}
	return why, err
}
