package mm2

import (
	"errors"
	"fmt"
	"strings"
)

// MaxTopicName is the longest name that a broker takes, in bytes.
const MaxTopicName = 249

// TopicsExcludeDefault is topics.exclude of MirrorMaker 4.0 and later: Java regexes that match whole names.
var TopicsExcludeDefault = []string{`mm2.*\.internal`, `.*\.replica`, `__.*`}

// GroupsExcludeDefault is groups.exclude: the groups whose positions are not translated, likewise.
var GroupsExcludeDefault = []string{`console-consumer-.*`, `connect-.*`, `__.*`}

// ConfigPropertiesExcludeDefault is config.properties.exclude: the topic settings that stay behind, as Java regexes. The two
// last ones are what MirrorMaker 4.3 meant when it excluded the broker settings log.message.timestamp.before.max.ms and
// log.message.timestamp.after.max.ms, which no topic has.
var ConfigPropertiesExcludeDefault = []string{
	`follower\.replication\.throttled\.replicas`,
	`leader\.replication\.throttled\.replicas`,
	`message\.timestamp\.difference\.max\.ms`,
	`message\.timestamp\.type`,
	`unclean\.leader\.election\.enable`,
	`min\.insync\.replicas`,
	`message\.timestamp\.before\.max\.ms`,
	`message\.timestamp\.after\.max\.ms`,
}

// Internal says whether a topic belongs to Kafka, Connect or MirrorMaker and is therefore never copied, whatever the filters
// say (the rule of 4.0 and later). Connect's own topics are named with a dot whatever the policy's separator is, so both
// forms count.
func Internal(p Policy, topic string) bool {
	if strings.HasPrefix(topic, "__") || strings.HasPrefix(topic, ".") {
		return true
	}
	return internal(topic, DefaultSeparator) || internal(topic, p.separator())
}

func internal(topic, separator string) bool {
	suffix := separator + "internal"
	return strings.HasPrefix(topic, "mm2") && strings.HasSuffix(topic, suffix) ||
		strings.HasSuffix(topic, separator+"checkpoints"+suffix)
}

// CheckTopicName applies the brokers' rule for names, so that a name that a policy made can be refused with a reason before
// a broker is asked.
func CheckTopicName(name string) error {
	switch {
	case name == "":
		return errors.New("topic name is empty")
	case name == "." || name == "..":
		return fmt.Errorf("topic name %q is not allowed", name)
	case len(name) > MaxTopicName:
		return fmt.Errorf("topic name %q has %d characters, a broker takes at most %d", name, len(name), MaxTopicName)
	}
	if i := strings.IndexFunc(name, notInName); i >= 0 {
		return fmt.Errorf("topic name %q has a character that no broker takes at position %d: allowed are letters, digits, '.', '_' and '-'", name, i)
	}
	return nil
}

func notInName(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '.', r == '_', r == '-':
		return false
	}
	return true
}

// PositionsTopic is where kferry keeps its own maps of positions on the target. MirrorMaker takes it for one of its internal topics.
func PositionsTopic(source string) string { return "mm2-kferry-positions." + source + ".internal" }
