package coordinator

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kferry/kferry/shared/kafka"
)

// What the source's retention is about to delete before it is copied. Where that happens all the same, the partition is held, or skips
// what is gone, by the flow's policy: here it is said while somebody can still do something.

const (
	nearlyExpired  = 0.8         // of a topic's retention.ms: a record so old that waits is warned of
	retentionEvery = time.Minute // how often a topic's settings are asked for
	maxRetention   = 1000        // topics of a flow whose settings are asked for at one time
)

// An Ebb is where a source partition's log begins, and how that moves.
type Ebb struct {
	Start int64
	Step  int64 // by how much it moved last; 0 where it has not been seen to
}

// Seen is the ebb after another look.
func (e Ebb) Seen(start int64) Ebb {
	if start > e.Start {
		return Ebb{start, start - e.Start}
	}
	return Ebb{start, e.Step}
}

// A Margin is what lies between a partition's cursor and what the source deletes.
type Margin struct {
	Ebb
	Offset    int64         // the next one to copy
	Age       time.Duration // of the record there; 0: unknown
	Retention time.Duration // of the topic; 0: unknown or none
}

// Warning says what is about to be lost; "" where nothing is.
func (m Margin) Warning() string {
	switch {
	case m.Step > 0 && m.Offset < m.Start+m.Step:
		return fmt.Sprintf("the source's log begins at offset %d, %d before the next one to copy, and the last deletion took %d", m.Start, max(0, m.Offset-m.Start), m.Step)
	case m.Retention > 0 && m.Age > time.Duration(nearlyExpired*float64(m.Retention)):
		return fmt.Sprintf("the next record to copy, at offset %d, is %s old, and retention.ms of the topic is %s", m.Offset, m.Age.Round(time.Second), m.Retention)
	}
	return ""
}

// warningOf is the warning of one partition as people read it.
func (p pair) warningOf(tp kafka.TopicPartition, m Margin) string {
	text := m.Warning()
	if text == "" {
		return ""
	}
	return fmt.Sprintf("%s of %s may lose records before they are copied: %s; add workers, lift what holds it, or raise the topic's retention", tp, p.flow.Name(), text)
}

// retention is the coordinator's eye on what the source deletes. A pass looks at it as often as at the topics.
type retention struct {
	looked time.Time
	ebbs   map[kafka.TopicPartition]Ebb
	ages   map[kafka.TopicPartition]aged
	limits map[string]limit // by topic

	turn     int                             // whose record is read next
	warnings map[kafka.TopicPartition]string // of the last look
}

// aged is a record at a cursor: while the cursor stays, it only gets older.
type aged struct {
	offset int64
	then   time.Time
}

type limit struct {
	retention time.Duration
	asked     time.Time
}

// lagging are the partitions that have something to lose.
func lagging(plan Plan) (all []Partition) {
	for _, at := range plan.Partitions {
		if at.Begun && at.Lag > 0 && at.State != Gone {
			all = append(all, at)
		}
	}
	return all
}

// watch looks at the starts of the logs that lag, and says what it did not say before. What can't be known now is known at the next look.
func (f *flow) watch(ctx context.Context, plan Plan, now time.Time) {
	r := &f.retention
	if now.Sub(r.looked) < f.flow.Refresh {
		return
	}
	r.looked = now
	ctx, cancel := context.WithTimeout(ctx, PassInterval)
	defer cancel()
	late := lagging(plan)
	starts, err := f.now(ctx, sources(late), kafka.Earliest)
	if err != nil {
		return
	}
	f.askLimits(ctx, late, now)
	f.askAges(ctx, late, now)
	before := r.warnings
	ebbs := map[kafka.TopicPartition]Ebb{}
	r.warnings = map[kafka.TopicPartition]string{}
	for _, at := range late {
		tp := at.Source()
		ebb, known := r.ebbs[tp]
		if start, asked := starts[tp]; asked && start.Err == nil {
			if ebb = ebb.Seen(start.Offset); !known {
				ebb.Step = 0
			}
			ebbs[tp] = ebb
		}
		m := Margin{Ebb: ebb, Offset: at.Offset, Age: r.ages[tp].age(at.Offset, now), Retention: r.limits[at.Topic].retention}
		if text := f.warningOf(tp, m); text != "" {
			r.warnings[tp] = text
			if before[tp] == "" {
				f.log.Warn(text)
			}
		}
	}
	r.ebbs = ebbs
}

func sources(partitions []Partition) (tps []kafka.TopicPartition) {
	for _, at := range partitions {
		tps = append(tps, at.Source())
	}
	return tps
}

// age is 0 where the record at the offset is another one.
func (a aged) age(offset int64, now time.Time) time.Duration {
	if a.then.IsZero() || a.offset != offset {
		return 0
	}
	return now.Sub(a.then)
}

// askAges reads the record at the cursor of a few partitions at each look, in turn. Of one that stands still it is known already.
func (f *flow) askAges(ctx context.Context, late []Partition, now time.Time) {
	known := map[kafka.TopicPartition]aged{}
	var ask []Partition
	for i := range late {
		at := late[(f.retention.turn+i)%len(late)]
		a := f.retention.ages[at.Source()]
		switch {
		case f.retention.limits[at.Topic].retention == 0:
		case a.offset == at.Offset && !a.then.IsZero():
			known[at.Source()] = a
		case len(ask) < agesAPass:
			ask = append(ask, at)
		}
	}
	for tp, age := range f.pair.ages(ctx, ask, now) {
		i := slices.IndexFunc(ask, func(at Partition) bool { return at.Source() == tp })
		known[tp] = aged{ask[i].Offset, now.Add(-age)}
	}
	f.retention.ages = known
	f.retention.turn += len(ask)
}

// askLimits asks for the settings of the topics that lag, each once in a while.
func (f *flow) askLimits(ctx context.Context, late []Partition, now time.Time) {
	limits := map[string]limit{}
	var ask []string
	for _, at := range late {
		was, known := f.retention.limits[at.Topic]
		if _, done := limits[at.Topic]; done {
			continue
		}
		limits[at.Topic] = was
		if (!known || now.Sub(was.asked) >= retentionEvery) && len(ask) < maxRetention {
			ask = append(ask, at.Topic)
		}
	}
	for topic, retention := range f.pair.retentions(ctx, ask) {
		limits[topic] = limit{retention, now}
	}
	f.retention.limits = limits
}

// retentions are the topics' retention times, 0 where there is none, or no right to know.
func (p pair) retentions(ctx context.Context, topics []string) map[string]time.Duration {
	found := map[string]time.Duration{}
	if len(topics) == 0 {
		return found
	}
	configs, err := p.source.Configs(ctx, topics)
	if err != nil {
		return found
	}
	for _, topic := range topics {
		found[topic] = retentionOf(configs[topic])
	}
	return found
}

// retentionOf is how long records stay at least; 0 is for ever or unknown.
func retentionOf(c kafka.TopicConfig) (retention time.Duration) {
	for _, e := range c.Entries {
		switch e.Name {
		case "cleanup.policy":
			if !strings.Contains(e.Value, "delete") {
				return 0
			}
		case "retention.ms":
			if ms, err := strconv.ParseInt(e.Value, 10, 64); err == nil && ms > 0 && ms < int64(100*365*24*time.Hour/time.Millisecond) {
				retention = time.Duration(ms) * time.Millisecond
			}
		}
	}
	return retention
}

// expiring warns of records that wait and are soon deleted, by their age alone: to see how a log's start moves takes more than one look.
func (p pair) expiring(ctx context.Context, plan Plan, ages map[kafka.TopicPartition]time.Duration) (warnings []string) {
	var topics []string
	for _, at := range lagging(plan) {
		if !slices.Contains(topics, at.Topic) {
			topics = append(topics, at.Topic)
		}
	}
	limits := p.retentions(ctx, topics[:min(maxRetention, len(topics))])
	for _, at := range lagging(plan) {
		m := Margin{Offset: at.Offset, Age: ages[at.Source()], Retention: limits[at.Topic]}
		if text := p.warningOf(at.Source(), m); text != "" {
			warnings = append(warnings, text)
		}
	}
	return warnings
}

// expiring are the warnings of the last look, and how many partitions of each topic they are about.
func (r retention) expiring() (all []string, topics map[string]int) {
	topics = map[string]int{}
	for tp, text := range r.warnings {
		all = append(all, text)
		topics[tp.Topic]++
	}
	slices.Sort(all)
	return all, topics
}
