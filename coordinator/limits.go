package coordinator

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// A Limit is one of those that hold for a flow, beside each other.
type Limit struct {
	Topics    string     `json:"topics,omitempty"` // a topic, or the configuration's expressions, of which the first that matches counts; "" is the whole flow
	Unit      lease.Unit `json:"unit"`
	PerSecond int64      `json:"per_second"` // 0 is no limit, where that was set
	Running   bool       `json:"set_while_running,omitempty"`
}

// Limits are those of a flow's configuration, with what was set while running in their place.
func Limits(flow spec.Flow, set map[string]lease.Limit) (all []Limit) {
	all = append(all, limits("", flow.Limits.Rate, set[""])...)
	for _, topic := range slices.Sorted(maps.Keys(set)) {
		if topic != "" {
			all = append(all, limits(topic, spec.Rate{}, set[topic])...)
		}
	}
	for _, t := range flow.Limits.ByBytes {
		all = append(all, Limit{Topics: t.Topics.String(), Unit: lease.UnitBytes, PerSecond: t.PerSecond})
	}
	for _, t := range flow.Limits.ByRecords {
		all = append(all, Limit{Topics: t.Topics.String(), Unit: lease.UnitRecords, PerSecond: t.PerSecond})
	}
	return all
}

func limits(topic string, configured spec.Rate, set lease.Limit) (all []Limit) {
	holds := set.Over(configured)
	if holds.Bytes > 0 || set.Bytes != nil {
		all = append(all, Limit{topic, lease.UnitBytes, holds.Bytes, set.Bytes != nil})
	}
	if holds.Records > 0 || set.Records != nil {
		all = append(all, Limit{topic, lease.UnitRecords, holds.Records, set.Records != nil})
	}
	return all
}

// Of names what is limited.
func (l Limit) Of() string {
	if l.Topics == "" {
		return "the whole flow"
	}
	return l.Topics
}

// Rate is the limit for people.
func (l Limit) Rate() string {
	switch {
	case l.PerSecond == 0:
		return fmt.Sprintf("no limit in %s", l.Unit)
	case l.Unit == lease.UnitRecords:
		return spec.Rate{Records: l.PerSecond}.String()
	}
	return spec.Rate{Bytes: l.PerSecond}.String()
}

// From says who set it.
func (l Limit) From() string {
	if l.Running {
		return "set while running"
	}
	return "configuration"
}

// LimitsOf asks for the limits that hold for a flow.
func LimitsOf(ctx context.Context, o Options, flow spec.Flow) ([]Limit, error) {
	return pair{flow: flow, target: o.Clusters[flow.TargetKey()]}.limits(ctx, o.Queue)
}

// limits are those that hold, as the queue knows them, or else the target.
func (p pair) limits(ctx context.Context, queue *lease.Queue) ([]Limit, error) {
	if queue != nil {
		asking, cancel := context.WithTimeout(ctx, queueTimeout)
		defer cancel()
		if set, err := queue.Cursors(p.flow, p.target).Orders(asking); err == nil {
			return Limits(p.flow, set.Limits), nil
		}
	}
	set, err := lease.ReadLimits(ctx, p.flow, p.target)
	if err != nil {
		return nil, fmt.Errorf("target: limits: %w", err)
	}
	return Limits(p.flow, set), nil
}
