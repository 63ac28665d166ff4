package spec

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// actedOn lists the keys of a config map that kferry honours.
type actedOn []string

// connectorConfig is for sourceConnector.config. What MirrorMaker 2 itself takes no notice of (consumer.group.id: its
// consumers are in no group) needs no warning either.
var connectorConfig = actedOn{
	"topics", "topics.exclude", "topics.blacklist", "replication.factor", "replication.policy.class",
	"replication.policy.separator", "refresh.topics.interval.seconds", "config.properties.exclude",
	"config.properties.blacklist", "enabled", "consumer.group.id",
	"auto.offset.reset", "consumer.auto.offset.reset", "source.consumer.auto.offset.reset",
	"isolation.level", "consumer.isolation.level", "source.consumer.isolation.level",
	"kferry.on.hold", "topic.filter.class", "config.property.filter.class", "transforms", "predicates", "security.protocol",
	"kferry.rate.bytes", "kferry.rate.records", "kferry.rate.bytes.topics", "kferry.rate.records.topics",
}

// clusterConfig is for clusters[].config.
var clusterConfig = actedOn{
	"auto.offset.reset", "consumer.auto.offset.reset", "isolation.level", "consumer.isolation.level",
	"offset.storage.topic", "offset.storage.replication.factor", "security.protocol",
}

func (a actedOn) has(key string) bool { return slices.Contains(a, key) }

// laterKeys are those of MirrorMaker 2's parts that are not built yet.
var laterKeys = regexp.MustCompile(`^(checkpoints?|emit|heartbeats?|groups?|sync|offset-syncs|refresh\.groups)\.|^(groups|offset\.lag\.max|use\.defaults\.from|replication\.policy\.internal\.topic\.separator\.enabled)$`)

// securityKey finds TLS and SASL settings behind every prefix that MirrorMaker 2 knows.
var securityKey = regexp.MustCompile(`^((source|target)\.)?((cluster|consumer|producer|admin)\.)?(override\.)?(sasl|ssl|security)\.`)

// refusal is why a setting can't be passed over, or "": without it other records, or the same ones on other terms, would be
// copied than its owner means.
func refusal(key, text string) string {
	switch {
	case securityKey.MatchString(key):
		if strings.HasSuffix(key, "security.protocol") && strings.EqualFold(text, "PLAINTEXT") {
			return ""
		}
		return "TLS and SASL are not supported yet; remove it only if the cluster takes PLAINTEXT"
	case key == "transforms" || key == "predicates":
		return "records are copied as they are, transformations can't be applied; remove it, or transform behind the target"
	case key == "topic.filter.class":
		return onlyClass(text, "DefaultTopicFilter")
	case key == "config.property.filter.class":
		return onlyClass(text, "DefaultConfigPropertyFilter")
	}
	return ""
}

func onlyClass(text, class string) string {
	full := "org.apache.kafka.connect.mirror." + class
	if text == full {
		return ""
	}
	return fmt.Sprintf("%q: a Java class can't be run here; say the same in patterns and remove it, or give %s", text, full)
}
