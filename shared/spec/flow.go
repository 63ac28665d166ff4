package spec

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/kferry/kferry/shared/mm2"
)

// A Flow is one direction between two clusters.
type Flow struct {
	Source, Target string // aliases
	// OwnSource and OwnTarget say that the flow has a login of its own there: Cluster.Flow names it.
	OwnSource, OwnTarget bool
	Filters              []Filter // a topic is copied when any of them selects it
	Policy               mm2.Policy
	// ReplicationFactor of the topics that are created; -1 leaves it to the target's default.
	ReplicationFactor int16
	// Start is where a partition without a cursor begins.
	Start     Start
	Isolation Isolation
	// Refresh is how often topics are looked for.
	Refresh time.Duration
	// MaxLeases is how many partitions are copied at one time at most, 0 for no bound.
	MaxLeases int
	// State is what the input wants of the copying of topics and records.
	State State
	// OffsetsTopic on the target holds the cursors, under keys that begin with Connector: those that the input's own
	// MirrorMaker 2 would use.
	OffsetsTopic, Connector string
	// OffsetsReplicationFactor is for OffsetsTopic, when it is created; -1 leaves it to the target's default.
	OffsetsReplicationFactor int16
	// ConfigExclude matches the topic settings that stay behind.
	ConfigExclude Patterns
	// Limits bound what is read from the source. They decide no content.
	Limits Limits
	// OnHold says what to do where a partition would be held until a person decides.
	OnHold OnHold
	// ConnectGroup is the consumer group, on the target, of the Connect workers that would run the flow.
	ConnectGroup string
	// Configs and ACLs say how settings and rights follow their source once a copy exists.
	Configs ConfigSync
	ACLs    ACLSync
	// Syncs are the positions that MirrorMaker's own tools translate by.
	Syncs  OffsetSyncs
	Groups Groups
	// Heartbeats is whether the source's heartbeats are copied, whatever the filters say (KIP-1089).
	Heartbeats bool
	// Given are the settings that the input's files hold for it, for people.
	Given []Given

	references map[string]string // that settings were read from, by key
}

// A Given is a setting, what it is set to, and where that stands.
type Given struct{ Setting, Value, Place string }

// A State is what somebody wants of a connector, as Connect has it.
type State string

// The states of a connector.
const (
	Running State = "running"
	Paused  State = "paused"  // nothing is done, and everything is kept
	Stopped State = "stopped" // likewise; its positions may be changed by hand
	Absent  State = "absent"  // the input has no such connector
)

// ConfigSync is how the settings of a copy follow those of its source. Those that ConfigExclude matches stay behind.
type ConfigSync struct {
	Enabled  bool
	Interval time.Duration
	// SourceDefaults has the copy take also what the source's brokers say by default (use.defaults.from, KIP-894).
	SourceDefaults bool
	// Overrides keeps what somebody has set on the copy alone. MirrorMaker removes it.
	Overrides bool
}

// ACLSync is how the rights on a copy follow those on its source.
type ACLSync struct {
	Enabled  bool
	Interval time.Duration
	// Revoke takes away on the target what was taken away on the source, of what kferry gave. MirrorMaker never does.
	Revoke bool
}

// OffsetSyncs is where offset-syncs are written to.
type OffsetSyncs struct {
	Enabled           bool
	Topic             string
	OnSource          bool // rather than on the target (KIP-716)
	ReplicationFactor int16
}

// Groups says which consumer groups' positions are translated, and what becomes of them.
type Groups struct {
	State            State
	Include, Exclude Patterns
	// Checkpoints are written to CheckpointsTopic.
	Checkpoints                  bool
	CheckpointsInterval          time.Duration
	CheckpointsTopic             string
	CheckpointsReplicationFactor int16
	// Sync commits the positions on the target for groups that nobody uses there (KIP-545).
	Sync         bool
	SyncInterval time.Duration
}

// Selects says whether a group's positions are translated.
func (g Groups) Selects(group string) bool {
	return Filter{Topics: g.Include, Exclude: g.Exclude}.selects(group)
}

// A Heartbeat is one that is written to a cluster every Interval, so that MirrorMaker's tools see who copies there.
type Heartbeat struct {
	Source, Target    string // aliases
	OwnTarget         bool   // the flow between them has a login of its own there
	Interval          time.Duration
	ReplicationFactor int16 // of the heartbeats topic, when it is created
}

// A Filter selects topics by name.
type Filter struct {
	Topics, Exclude Patterns

	references map[string]string // that they were read from, by key
}

// text is how patterns are written.
func (f Filter) text(key string, p Patterns) string {
	return referenceOf(f.references, key, p.String())
}

// Isolation decides whether records of open and aborted transactions are copied.
type Isolation string

// The isolation levels of Kafka's consumers.
const (
	ReadCommitted   Isolation = "read_committed"
	ReadUncommitted Isolation = "read_uncommitted"
)

// Name is the flow as people write it: "A->B".
func (f Flow) Name() string { return FlowName(f.Source, f.Target) }

// SourceKey is that of the cluster to read from, as the flow logs in there.
func (f Flow) SourceKey() string { return keyFor(f.Source, f.Name(), f.OwnSource) }

// TargetKey is that of the cluster to write to, as the flow logs in there.
func (f Flow) TargetKey() string { return keyFor(f.Target, f.Name(), f.OwnTarget) }

// TargetKey is that of the cluster to write to.
func (h Heartbeat) TargetKey() string {
	return keyFor(h.Target, FlowName(h.Source, h.Target), h.OwnTarget)
}

func keyFor(alias, flow string, own bool) string {
	if !own {
		flow = ""
	}
	return clusterKey(alias, flow)
}

// FlowName is the name of the flow between two clusters.
func FlowName(source, target string) string { return source + "->" + target }

// Selects says whether a topic of the source is copied: a filter selects it or it holds heartbeats, it doesn't belong to Kafka or
// MirrorMaker, and it has not been on the target before (as far as its name tells).
func (f Flow) Selects(topic string) bool {
	if mm2.Internal(f.Policy, topic) || mm2.Cycle(f.Policy, topic, f.Target) {
		return false
	}
	return f.Heartbeats && mm2.Heartbeats(f.Policy, topic) || slices.ContainsFunc(f.Filters, func(filter Filter) bool { return filter.selects(topic) })
}

// selects copies nothing that it can't decide about: a topic copied by mistake can't be taken back.
func (f Filter) selects(topic string) bool {
	included, err := f.Topics.match(topic)
	if !included || err != nil {
		return false
	}
	excluded, err := f.Exclude.match(topic)
	return !excluded && err == nil
}

// RemoteTopic is the name of a topic's copy.
func (f Flow) RemoteTopic(topic string) string { return f.Policy.RemoteTopic(f.Source, topic) }

// Key is the key of a partition's cursor in OffsetsTopic.
func (f Flow) Key(topic string, partition int32) []byte {
	return mm2.SourceOffsetKey(f.Connector, f.Source, topic, partition)
}

// Digest is a short hash of what decides which records are copied and where to. Two processes that differ in it must not
// work on the same partition; a cursor that differs belongs to another generation.
func (f Flow) Digest() string {
	content := sha256.New()
	names := f.Policy.RemoteTopic("", "heartbeats") // shows the separator of every policy
	fmt.Fprintf(content, "%q %q %q %q %q", f.Source, f.Target, f.Isolation, f.Policy, names)
	for _, filter := range f.filterTexts() {
		fmt.Fprint(content, " ", filter)
	}
	return hex.EncodeToString(content.Sum(nil)[:6])
}

// filterTexts holds the filters in an order of their own, since the order of the input decides nothing.
func (f Flow) filterTexts() []string {
	var texts []string
	for _, filter := range f.Filters {
		texts = append(texts, fmt.Sprintf("%q %q", filter.Topics, filter.Exclude))
	}
	slices.Sort(texts)
	return slices.Compact(texts)
}
