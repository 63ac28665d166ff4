package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/spec"
)

// rehearsals bounds the creations that a target checks at one time.
const rehearsals = 8

// A Preview is what `kferry validate --connect` shows: what the flows would do.
type Preview struct {
	Flows []FlowPreview
}

// A FlowPreview is one flow's part of a Preview.
type FlowPreview struct {
	Flow     string
	Source   string
	Target   string
	Error    string // why nothing is known of the flow
	Warnings []string
	Creates  string // the topic of the cursors, where it is missing
	Topics   []TopicPreview
}

// A TopicPreview is one topic that the flow selects.
type TopicPreview struct {
	SourceTopic string
	TargetTopic string
	Partitions  int    // on the source
	Exist       int    // of them on the target
	Bytes       *int64 // on the source, one replica; null where the source doesn't say
	Problem     string
}

// Creates is what the first run would create for the topic.
func (t TopicPreview) Creates() string {
	switch {
	case t.Exist == 0:
		return fmt.Sprintf("topic (%s)", plural(t.Partitions, "partition"))
	case t.Exist < t.Partitions:
		return plural(t.Partitions-t.Exist, "more partition")
	}
	return ""
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// OK says whether every flow could run as it is.
func (p Preview) OK() bool {
	return !slices.ContainsFunc(p.Flows, func(f FlowPreview) bool {
		return f.Error != "" || slices.ContainsFunc(f.Topics, func(t TopicPreview) bool { return t.Problem != "" })
	})
}

// Look asks the clusters what the flows would do, and writes nothing. o.Queue is not used.
func Look(ctx context.Context, o Options) Preview {
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	pairs, found, lanes, errs := discoverAll(ctx, o)
	p := Preview{Flows: make([]FlowPreview, len(pairs))}
	var g errgroup.Group
	for i, pair := range pairs {
		g.Go(func() error {
			p.Flows[i] = pair.preview(ctx, found[i], lanes, errs[i])
			return nil
		})
	}
	_ = g.Wait() // errors are part of the preview
	return p
}

func (p pair) preview(ctx context.Context, found topics, l *lanes, err error) FlowPreview {
	f := FlowPreview{Flow: p.flow.Name(), Source: p.flow.Source, Target: p.flow.Target, Warnings: found.warnings, Topics: []TopicPreview{}}
	if err != nil {
		f.Error = err.Error()
		return f
	}
	if _, exists := found.target[p.flow.OffsetsTopic]; !exists {
		f.Creates = p.flow.OffsetsTopic
	}
	bytes, err := p.source.LogBytes(ctx, found.names())
	if err != nil {
		f.Warnings = append(f.Warnings, fmt.Sprintf("%s doesn't say how large its topics are: %v", p.flow.Source, err))
	}
	view := View{Flow: p.flow, Source: found.source, Target: found.target, Collisions: l.collisions(p.flow)}
	if p.flow.State == spec.Absent {
		return f
	}
	f.Topics = make([]TopicPreview, len(found.source))
	var g errgroup.Group
	g.SetLimit(rehearsals)
	for i, topic := range found.source {
		f.Topics[i] = view.preview(topic, bytes)
		if f.Topics[i].Problem == "" && f.Topics[i].Exist == 0 {
			g.Go(func() error {
				f.Topics[i].Problem = p.rehearse(ctx, f.Topics[i])
				return nil
			})
		}
	}
	_ = g.Wait() // problems are part of the preview
	var plan Plan
	known, err := p.remember(ctx, nil, found)
	if err == nil {
		plan, _, err = p.plan(ctx, known, found, nil, l)
	}
	if err != nil {
		f.Error = err.Error()
		return f
	}
	plan.warn(f.Topics)
	return f
}

// warn names the topics of which partitions would stand still.
func (p Plan) warn(topics []TopicPreview) {
	held := map[string][]Partition{}
	for _, at := range p.Partitions {
		if at.State == Held {
			held[at.Topic] = append(held[at.Topic], at)
		}
	}
	for i, t := range topics {
		if all := held[t.SourceTopic]; t.Problem == "" && len(all) > 0 {
			topics[i].Problem = fmt.Sprintf("%s: would be held (%s)", all[0].Detail, all[0].Reason)
			if more := len(all) - 1; more > 0 {
				topics[i].Problem += ", and " + plural(more, "more partition")
			}
		}
	}
}

func (v View) preview(topic kafka.Topic, bytes map[kafka.TopicPartition]int64) TopicPreview {
	t := TopicPreview{SourceTopic: topic.Name, TargetTopic: v.Flow.RemoteTopic(topic.Name), Partitions: len(topic.Partitions)}
	target := v.Target[t.TargetTopic]
	t.Exist = min(len(target.Partitions), t.Partitions)
	if bytes != nil {
		var sum int64
		for i := range topic.Partitions {
			sum += bytes[kafka.TopicPartition{Topic: topic.Name, Partition: int32(i)}]
		}
		t.Bytes = &sum
	}
	_, t.Problem = refuse(v, t.SourceTopic, t.TargetTopic)
	if err := errors.Join(topic.Err, target.Err); t.Problem == "" && err != nil {
		t.Problem = err.Error()
	}
	return t
}

// rehearse has the target check that it would create the topic. The settings that the source's topic would bring are the worker's
// part, and named by it where the target refuses one.
func (p pair) rehearse(ctx context.Context, t TopicPreview) string {
	err := p.target.CreateTopic(ctx, kafka.NewTopic{
		Name: t.TargetTopic, Partitions: int32(t.Partitions), ReplicationFactor: p.flow.ReplicationFactor, ValidateOnly: true,
	})
	if err != nil && !errors.Is(err, kafka.ErrTopicExists) {
		return fmt.Sprintf("%s would not create it: %v", p.flow.Target, err)
	}
	return ""
}
