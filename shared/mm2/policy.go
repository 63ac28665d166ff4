// Package mm2 speaks MirrorMaker 2: its topic names, replication policies, internal topics and the records it keeps in
// Kafka, byte for byte. It holds values only; nothing here talks to a cluster.
//
// Invariants:
//   - A name or key made here equals the one that MirrorMaker 2 would make. Connect looks an offset up by the raw bytes of
//     its key, so one differing byte means that everything is copied again.
//   - Odd answers of the Java code are kept where names depend on them ("a..b" comes from "a"), and tested as such.
package mm2

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// DefaultSeparator stands between a cluster's alias and a topic's name, and inside the names of internal topics.
const DefaultSeparator = "."

const heartbeats = "heartbeats"

// A Policy names the copy of a topic and reads such a name back. There are two: a Java class of one's own can't be run here.
type Policy interface {
	// RemoteTopic is the name on the target of a topic of the cluster source.
	RemoteTopic(source, topic string) string
	// Source is the alias of the cluster that a topic was copied from; false where the name doesn't tell.
	Source(topic string) (alias string, ok bool)
	// Upstream is the name the topic has one hop nearer to where it was made; false where the name doesn't tell.
	Upstream(topic string) (name string, ok bool)
	// String is what ParsePolicy takes.
	String() string

	separator() string
}

// DefaultPolicy puts the source's alias in front: "A.orders".
type DefaultPolicy struct {
	// Separator is DefaultSeparator where empty: Java's reading of an empty one (the first character is the source) serves nobody.
	Separator string
}

// RemoteTopic implements Policy.
func (p DefaultPolicy) RemoteTopic(source, topic string) string {
	return source + p.separator() + topic
}

// Source implements Policy. An empty alias is an answer: ".b" comes from "".
func (p DefaultPolicy) Source(topic string) (string, bool) {
	source, upstream, _ := strings.Cut(topic, p.separator())
	if strings.ReplaceAll(upstream, p.separator(), "") == "" { // Java's split drops empty parts at the end: "a" and "a.." are local
		return "", false
	}
	return source, true
}

// Upstream implements Policy.
func (p DefaultPolicy) Upstream(topic string) (string, bool) {
	source, ok := p.Source(topic)
	if !ok {
		return "", false
	}
	return topic[len(source)+len(p.separator()):], true
}

func (p DefaultPolicy) separator() string {
	if p.Separator == "" {
		return DefaultSeparator
	}
	return p.Separator
}

func (p DefaultPolicy) String() string { return "default" }

// IdentityPolicy keeps names, except those that end in "heartbeats", which go the default way (device-heartbeats too, as in
// MirrorMaker 2).
//
// MirrorMaker 2 answers the flow's own source for every topic. That says nothing about the topic, so Source and Upstream
// answer false here; no decision of MirrorMaker 2's comes out differently.
type IdentityPolicy struct {
	// Separator is for the names that end in "heartbeats"; DefaultSeparator where empty.
	Separator string
}

// RemoteTopic implements Policy.
func (p IdentityPolicy) RemoteTopic(source, topic string) string {
	if strings.HasSuffix(topic, heartbeats) {
		return DefaultPolicy(p).RemoteTopic(source, topic)
	}
	return topic
}

// Source implements Policy.
func (p IdentityPolicy) Source(topic string) (string, bool) {
	if strings.HasSuffix(topic, heartbeats) {
		return DefaultPolicy(p).Source(topic)
	}
	return "", false
}

// Upstream implements Policy.
func (p IdentityPolicy) Upstream(topic string) (string, bool) {
	if strings.HasSuffix(topic, heartbeats) {
		return DefaultPolicy(p).Upstream(topic)
	}
	return "", false
}

func (p IdentityPolicy) separator() string { return DefaultPolicy(p).separator() }

func (p IdentityPolicy) String() string { return "identity" }

const (
	javaPackage    = "org.apache.kafka.connect.mirror."
	strimziPackage = "io.strimzi.kafka.connect.mirror." // its identity policy was there before Kafka's own
)

// ParsePolicy reads a policy's short name or Java class; both may be empty for the defaults.
func ParsePolicy(name, separator string) (Policy, error) {
	if separator == "" {
		separator = DefaultSeparator
	}
	if !utf8.ValidString(separator) || strings.ContainsFunc(separator, notInName) {
		return nil, fmt.Errorf("separator %q has characters that no topic name may have; take letters, digits, '.', '_' or '-'", separator)
	}
	switch name {
	case "", "default", javaPackage + "DefaultReplicationPolicy":
		return DefaultPolicy{separator}, nil
	case "identity", javaPackage + "IdentityReplicationPolicy", strimziPackage + "IdentityReplicationPolicy":
		return IdentityPolicy{separator}, nil
	}
	return nil, fmt.Errorf("unknown replication policy; give default or identity, or one of the classes %sDefaultReplicationPolicy and %[1]sIdentityReplicationPolicy (a class of your own that keeps topic names is identity)", javaPackage)
}

// Heartbeats says whether a topic holds heartbeats: those of its own cluster, or copies of another's.
func Heartbeats(p Policy, topic string) bool {
	for {
		upstream, ok := p.Upstream(topic)
		if !ok {
			return topic == HeartbeatsTopic
		}
		topic = upstream // shorter each time
	}
}

// Cycle says whether copying the topic to target would bring it back to where it has been, by its name: one of the hops in
// it is target. MirrorMaker 2 since 4.4 also takes the source's alias for a hop and then leaves out, without a word, local
// topics that merely look so ("A.orders" made on A); here they are copied, as up to 4.3.
func Cycle(p Policy, topic, target string) bool {
	for {
		source, ok := p.Source(topic)
		if !ok {
			return false
		}
		if source == target {
			return true
		}
		topic, _ = p.Upstream(topic) // shorter each time
	}
}
