package coordinator

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
)

// hidden adds the topics that were copied, or copied to, and that a cluster no longer shows because the right to Describe them is gone: each
// with that error. A broker leaves them out of its list, as if they had been deleted, and says so only of those that it is asked for by name.
func (p pair) hidden(ctx context.Context, found topics, cursors map[kafka.TopicPartition]lease.Cursor) (topics, error) {
	copied := map[string]string{} // by the topic's name
	for tp := range cursors {
		if p.flow.Selects(tp.Topic) {
			copied[tp.Topic] = p.flow.RemoteTopic(tp.Topic)
		}
	}
	source, target := maps.Clone(copied), map[string]bool{}
	for _, t := range found.source {
		delete(source, t.Name)
	}
	for _, name := range copied {
		if _, shown := found.target[name]; !shown {
			target[name] = true
		}
	}
	denied, err := refused(ctx, p.source, slices.Sorted(maps.Keys(source)))
	if err != nil {
		return found, fmt.Errorf("source: %w", err)
	}
	found.source = slices.Concat(found.source, denied)
	all := denied
	if denied, err = refused(ctx, p.target, slices.Sorted(maps.Keys(target))); err != nil {
		return found, fmt.Errorf("target: %w", err)
	}
	if len(denied) > 0 {
		found.target = maps.Clone(found.target)
	}
	for _, t := range denied {
		found.target[t.Name] = t
	}
	if all = append(all, denied...); len(all) > 0 {
		found.warnings = append(slices.Clone(found.warnings), fmt.Sprintf("%s of %s can't be looked at: %v", plural(len(all), "topic"), p.flow.Name(), all[0].Err))
	}
	return found, nil
}

// refused are those of some topics that a cluster refuses to describe.
func refused(ctx context.Context, c *kafka.Cluster, names []string) (denied []kafka.Topic, err error) {
	all, err := c.TopicsNamed(ctx, names)
	for _, name := range names {
		if t := all[name]; kafka.Denied(t.Err) {
			denied = append(denied, t)
		}
	}
	return denied, err
}
