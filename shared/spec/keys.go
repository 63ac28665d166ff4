package spec

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// keys are those of a config map that kferry honours, or that need no word: what MirrorMaker 2 itself takes no notice of
// (consumer.group.id: its consumers are in no group), and classes that refusal lets pass.
type keys []string

func (k keys) has(key string) bool { return slices.Contains(k, key) }

var commonKeys = keys{
	"enabled", "replication.policy.class", "replication.policy.separator", "replication.policy.internal.topic.separator.enabled",
	"offset-syncs.topic.location", "emit.offset-syncs.enabled", "topics", "topics.exclude", "topics.blacklist",
	"consumer.group.id", "source.consumer.group.id", "security.protocol", "topic.filter.class", "forwarding.admin.class", "transforms", "predicates",
	"key.converter", "value.converter", "header.converter",
	"source.cluster.alias", "target.cluster.alias", "source.cluster.bootstrap.servers", "target.cluster.bootstrap.servers",
}

var sourceKeys = append(slices.Clone(commonKeys),
	"tasks.max", "replication.factor", "refresh.topics.enabled", "refresh.topics.interval.seconds", "config.properties.exclude",
	"config.properties.blacklist", "config.property.filter.class", "offset-syncs.topic.replication.factor",
	"auto.offset.reset", "consumer.auto.offset.reset", "source.consumer.auto.offset.reset",
	"isolation.level", "consumer.isolation.level", "source.consumer.isolation.level",
	"sync.topic.configs.enabled", "sync.topic.configs.interval.seconds", "use.defaults.from", "sync.topic.acls.enabled",
	"sync.topic.acls.interval.seconds", "heartbeats.replication.enabled", "offsets.storage.topic", "kferry.connector",
	"kferry.on.hold", "kferry.rate.bytes", "kferry.rate.records", "kferry.rate.bytes.topics", "kferry.rate.records.topics",
	"kferry.sync.topic.configs.overrides", "kferry.sync.topic.acls.revoke",
)

var checkpointKeys = append(slices.Clone(commonKeys),
	"groups", "groups.exclude", "groups.blacklist", "group.filter.class", "emit.checkpoints.enabled", "emit.checkpoints.interval.seconds",
	"checkpoints.topic.replication.factor", "sync.group.offsets.enabled", "sync.group.offsets.interval.seconds",
)

// ownKey is what settings that MirrorMaker doesn't have begin with.
const ownKey = "kferry."

func ownKeys() []string {
	return slices.DeleteFunc(slices.Clone(sourceKeys), func(key string) bool { return !strings.HasPrefix(key, ownKey) })
}

// heartbeatKeys are few; what the others act on is no mistake in a heartbeatConnector, but has no effect there.
var heartbeatKeys = keys{
	"emit.heartbeats.enabled", "emit.heartbeats.interval.seconds", "heartbeats.topic.replication.factor", "tasks.max", "security.protocol",
	"forwarding.admin.class", "transforms", "predicates", "key.converter", "value.converter", "header.converter",
	"source.cluster.alias", "target.cluster.alias", "source.cluster.bootstrap.servers", "target.cluster.bootstrap.servers",
}

// clusterConfigKeys are for the config of a cluster.
var clusterConfigKeys = append(slices.Clone(workerKeys),
	"auto.offset.reset", "consumer.auto.offset.reset", "isolation.level", "consumer.isolation.level",
	"security.protocol", "key.converter", "value.converter", "header.converter",
)

// workerKeys are those of Connect's workers, of which several may run on one cluster. What they keep there beside offsets has no
// counterpart, and is named in every resource.
var workerKeys = keys{
	"offset.storage.topic", "offset.storage.replication.factor", "group.id",
	"config.storage.topic", "config.storage.replication.factor", "status.storage.topic", "status.storage.replication.factor",
}

// idleKeys are those of MirrorMaker's that have no effect here, by why.
var idleKeys = []struct {
	key *regexp.Regexp
	why string
}{
	{regexp.MustCompile(`^offset\.lag\.max$`), "positions are translated exactly at any lag"},
	{regexp.MustCompile(`^(admin\.timeout\.ms|consumer\.poll\.timeout\.ms)$`), "kferry waits as long as each call needs, and tries again"},
	{regexp.MustCompile(`^tasks\.max$`), "only the sourceConnector's bounds the leases in flight"},
	{regexp.MustCompile(`^refresh\.groups\.`), "groups are looked for each time checkpoints are due"},
	{regexp.MustCompile(`^(offset|status)\.storage\.partitions$`), "topics have MirrorMaker's number of partitions"},
	{regexp.MustCompile(`^exactly\.once\.|^transaction\.boundary`), "every record is copied exactly once without transactions"},
	{regexp.MustCompile(`^errors\.`), "no record is left out in silence"},
	{regexp.MustCompile(`^(metric\.|metrics\.|add\.source\.alias\.to\.metrics$)`), "metrics are at /metrics"},
	{regexp.MustCompile(`^use\.incremental\.alter\.configs$`), "settings are always changed one by one"},
	{regexp.MustCompile(`^topic\.creation\.`), "copies are created as their sources are"},
	{regexp.MustCompile(`^((source|target)\.)?(consumer|producer|admin)\.`), "kferry's clients have settings of their own"},
}

// why a key has no effect: MirrorMaker's reason, or the place where it would have one, or a likely misspelling.
func (k keys) why(key string) string {
	if strings.Contains(key, "consumer.") {
		if meant := suggest(key, slices.Concat(startKeys, isolationKeys)); meant != "" && !slices.Contains(startKeys, key) && !slices.Contains(isolationKeys, key) {
			return strings.TrimPrefix(meant, "; ")
		}
	}
	for _, idle := range idleKeys {
		if idle.key.MatchString(key) {
			return idle.why
		}
	}
	for _, other := range []struct {
		keys keys
		name string
	}{{sourceKeys, "sourceConnector"}, {checkpointKeys, "checkpointConnector"}, {heartbeatKeys, "heartbeatConnector"}, {clusterConfigKeys, "a cluster's config"}} {
		if other.keys.has(key) {
			return "it belongs into " + other.name
		}
	}
	return strings.TrimPrefix(suggest(key, k), "; ")
}

// securityKey finds TLS and SASL settings behind every prefix that MirrorMaker 2 knows.
var securityKey = regexp.MustCompile(`^((source|target)\.)?((cluster|consumer|producer|admin)\.)?(override\.)?(sasl|ssl|security)\.`)

// refusal is why a setting can't be passed over, or "": without it other records, or the same ones on other terms, would be
// copied than its owner means.
func refusal(key, text string) string {
	switch {
	case (key == "transforms" || key == "predicates") && text != "":
		return "records are copied as they are, transformations can't be applied; remove it, or transform behind the target"
	case key == "refresh.topics.enabled" && strings.EqualFold(text, "false"):
		return "new topics are always looked for; name in topics what is to be copied, and remove it"
	}
	return classes[key].refusal(text)
}

// A class is the only one that a setting may have: another would have to be run.
type class struct {
	name    string
	instead string
}

var classes = map[string]class{
	"topic.filter.class":           {mirrorClass + "DefaultTopicFilter", "say the same in patterns and remove it"},
	"group.filter.class":           {mirrorClass + "DefaultGroupFilter", "say the same in patterns and remove it"},
	"config.property.filter.class": {mirrorClass + "DefaultConfigPropertyFilter", "say the same in patterns and remove it"},
	"forwarding.admin.class":       {"org.apache.kafka.clients.admin.ForwardingAdmin", "create the topics beforehand and remove it"},
	"key.converter":                byteArrays,
	"value.converter":              byteArrays,
	"header.converter":             byteArrays,
}

const mirrorClass = "org.apache.kafka.connect.mirror."

var byteArrays = class{"org.apache.kafka.connect.converters.ByteArrayConverter", "remove it, since records are copied as they are"}

func (c class) refusal(text string) string {
	if c.name == "" || text == c.name {
		return ""
	}
	return fmt.Sprintf("%q: a Java class can't be run here; %s, or give %s", text, c.instead, c.name)
}
