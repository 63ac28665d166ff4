package spec

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kferry/kferry/shared/mm2"
)

// This file turns the settings of MirrorMaker's three connectors, under their own keys, into what a flow does. Every form of
// input fills such settings and comes through here, so a key means the same in each.

// settings are those of a connector or a cluster, by key.
type settings map[string]value

// A connector is one of MirrorMaker's three. The zero value is one that isn't there.
type connector struct {
	at     value
	state  State
	config settings // among them tasks.max
}

func (c connector) there() bool { return c.state != "" && c.state != Absent }

// of is the state of a flow's part.
func (c connector) of() State {
	if !c.there() {
		return Absent
	}
	return c.state
}

// A form is a way to describe flows. It decides what stands in where nothing is said.
type form byte

const (
	resource  form = iota // a resource: each connector has a config of its own, names are Strimzi's
	dedicated             // mm2.properties: the connectors share one config, names are those of MirrorMaker's own driver
	plain                 // variables: likewise; intervals are durations
)

// interval reads how often something is done.
func (f form) interval() func(string) (time.Duration, error) {
	if f == plain {
		return parseDuration(leastRefresh)
	}
	return parseSeconds
}

// names are those of what Connect keeps on the target: topic and key of the offsets, and the group of the workers.
func (m mirror) names() (offsets, connector, group string) {
	if m.form == resource {
		return mm2.StrimziOffsetsTopic, FlowName(m.source.text, m.target.text) + "." + mm2.SourceConnector, mm2.StrimziConnectGroup
	}
	return mm2.OffsetsTopic(m.source.text), mm2.SourceConnector, mm2.ConnectGroup(m.source.text)
}

// flow reads everything a mirror says, whether or not its clusters are known.
func (r *resolver) flow(m mirror) Flow {
	copying, source := m.sourceConnector.config, r.given[m.source.text].config
	offsets, name, group := m.names()
	every := m.form.interval()
	before := len(r.acted)
	policy, separator := r.policy(m)
	f := Flow{
		Source:            m.source.text,
		Target:            m.target.text,
		Filters:           []Filter{r.filter(m)},
		Policy:            policy,
		ReplicationFactor: read(r.report, copying["replication.factor"], parseReplicationFactor, -1),
		// How to read from the source is what the cluster's config says where the connector's doesn't, in this order since Strimzi 0.49.
		Start:     read(r.report, firstSet(r.first(copying, startKeys...), r.first(source, startKeys[1:]...)), ParseStart, Earliest),
		Isolation: read(r.report, firstSet(r.first(copying, isolationKeys...), r.first(source, isolationKeys[1:]...)), parseIsolation, ReadCommitted),
		Refresh:   read(r.report, copying["refresh.topics.interval.seconds"], every, defaultRefresh),
		MaxLeases: read(r.report, copying["tasks.max"], parseCount(m.form.leastLeases(), mostLeases), 0),
		State:     m.sourceConnector.of(),
		// A connector may have an offsets topic of its own (KIP-618).
		OffsetsTopic:             read(r.report, firstSet(copying["offsets.storage.topic"], r.worker(m, "offset.storage.topic")), parseTopic, offsets),
		Connector:                read(r.report, copying["kferry.connector"], parseConnector, name),
		OffsetsReplicationFactor: read(r.report, firstSet(copying["offset.storage.replication.factor"], r.worker(m, "offset.storage.replication.factor")), parseReplicationFactor, -1),
		ConfigExclude:            read(r.report, r.first(copying, "config.properties.exclude", "config.properties.blacklist"), r.parsePatterns, defaultConfigExclude),
		Limits:                   r.report.limits(limitsIn(copying), r.limits),
		OnHold:                   read(r.report, copying["kferry.on.hold"], ParseOnHold, nil),
		ConnectGroup:             read(r.report, r.worker(m, "group.id"), parseGroup, group),
		Configs: ConfigSync{
			Enabled:        r.on(copying["sync.topic.configs.enabled"], true),
			Interval:       read(r.report, copying["sync.topic.configs.interval.seconds"], every, defaultRefresh),
			SourceDefaults: read(r.report, copying["use.defaults.from"], parseOneOf("target", "source"), "target") == "source",
			Overrides:      read(r.report, copying["kferry.sync.topic.configs.overrides"], parseOneOf("keep", "remove"), "keep") == "keep",
		},
		ACLs: ACLSync{
			Enabled:  r.on(copying["sync.topic.acls.enabled"], true),
			Interval: read(r.report, copying["sync.topic.acls.interval.seconds"], every, defaultRefresh),
			Revoke:   r.on(copying["kferry.sync.topic.acls.revoke"], false),
		},
		Syncs:      r.syncs(m, separator),
		Groups:     r.groups(m, separator),
		Heartbeats: r.on(copying["heartbeats.replication.enabled"], true),
	}
	r.checkSyncs(m, f)
	f.references = referencesIn(m.checkpointConnector.config, copying)
	for _, key := range []string{"offset.storage.topic", "group.id"} {
		if v := r.worker(m, key); v.reference != "" {
			f.references[key] = v.reference
		}
	}
	if v := copying["offsets.storage.topic"]; v.set {
		delete(f.references, "offset.storage.topic")
		if v.reference != "" {
			f.references["offset.storage.topic"] = v.reference
		}
	}
	f.Given = r.since(before)
	return f
}

var (
	startKeys     = []string{"source.consumer.auto.offset.reset", "consumer.auto.offset.reset", "auto.offset.reset"}
	isolationKeys = []string{"source.consumer.isolation.level", "consumer.isolation.level", "isolation.level"}
)

// leastLeases is the least bound that means something: 0, which is none, can be said in variables alone.
func (f form) leastLeases() int {
	if f == plain {
		return 0
	}
	return 1
}

// worker is a setting of Connect's workers, on its own cluster, which is the target.
func (r *resolver) worker(m mirror, key string) value {
	if m.worker != nil && m.worker.config[key].set {
		return m.worker.config[key]
	}
	alias := firstSet(m.connect, m.target)
	v := r.given[alias.text].config[key]
	if other, contested := r.contested[v]; contested && m.worker != nil {
		return value{} // they speak of other Connects on this cluster
	} else if contested {
		r.wrong(other, fmt.Errorf("is %q at %s; give one of them", v.text, v.place()))
	}
	return v
}

func (r *resolver) on(v value, otherwise bool) bool { return read(r.report, v, parseBool, otherwise) }

// first is the first of several settings that is set; those behind it are named, since they have no effect.
func (r *report) first(in settings, keys ...string) value {
	var found value
	for _, key := range keys {
		switch v := in[key]; {
		case !v.set:
		case found.set && v.text != found.text:
			r.pass(v, fmt.Sprintf("%s in line %d wins", found.path[strings.LastIndexByte(found.path, '.')+1:], found.line))
		case !found.set:
			found = v
		}
	}
	return found
}

var (
	allTopics            = mustPatterns(".*")
	defaultTopicsExclude = mustPatterns(strings.Join(mm2.TopicsExcludeDefault, ","))
	defaultGroupsExclude = mustPatterns(strings.Join(mm2.GroupsExcludeDefault, ","))
	defaultConfigExclude = mustPatterns(strings.Join(mm2.ConfigPropertiesExcludeDefault, ","))
)

func mustPatterns(text string) Patterns {
	patterns, err := ParsePatterns(text)
	if err != nil {
		panic(err)
	}
	return patterns
}

// filter is that of the sourceConnector, or where there is none, of the checkpointConnector.
func (r *resolver) filter(m mirror) Filter {
	config := m.sourceConnector.config
	if !m.sourceConnector.there() {
		config = m.checkpointConnector.config
	}
	return Filter{
		Topics:  read(r.report, config["topics"], r.parsePatterns, allTopics),
		Exclude: read(r.report, r.first(config, "topics.exclude", "topics.blacklist"), r.parsePatterns, defaultTopicsExclude),

		references: referencesIn(config),
	}
}

// policy is how copies are named, and the separator within the names of MirrorMaker's own topics.
func (r *resolver) policy(m mirror) (mm2.Policy, string) {
	separator := agreed(r, m, "replication.policy.separator", r.separator(m), mm2.DefaultSeparator)
	withSeparator := func(name string) (mm2.Policy, error) { return mm2.ParsePolicy(name, separator) }
	policy := agreed[mm2.Policy](r, m, "replication.policy.class", withSeparator, mm2.DefaultPolicy{Separator: separator})
	if !agreed(r, m, "replication.policy.internal.topic.separator.enabled", parseBool, true) { // KIP-949
		separator = mm2.DefaultSeparator
	}
	return policy, separator
}

// separator reads one. Strimzi's example for the identity policy had an empty one for years; all that it names then are
// heartbeats and MirrorMaker's own topics.
func (r *resolver) separator(m mirror) func(string) (string, error) {
	const key = "replication.policy.class"
	class := firstSet(m.sourceConnector.config[key], m.checkpointConnector.config[key])
	if p, err := mm2.ParsePolicy(class.text, ""); err != nil || p.String() != "identity" {
		return parseSeparator
	}
	for _, c := range []connector{m.sourceConnector, m.checkpointConnector} {
		if v := c.config["replication.policy.separator"]; v.set && v.text == "" {
			r.warn(v, "is empty: heartbeats and MirrorMaker's own topics are named with a dot")
		}
	}
	return func(text string) (string, error) { return parseSeparator(cmp.Or(text, mm2.DefaultSeparator)) }
}

func (r *resolver) syncs(m mirror, separator string) OffsetSyncs {
	s := OffsetSyncs{
		Enabled:           agreed(r, m, "emit.offset-syncs.enabled", parseBool, true),
		OnSource:          agreed(r, m, "offset-syncs.topic.location", parseOneOf("source", "target"), "source") == "source",
		ReplicationFactor: read(r.report, m.sourceConnector.config["offset-syncs.topic.replication.factor"], parseReplicationFactor, -1),
	}
	// The topic has the name of the cluster that it isn't on.
	s.Topic = mm2.OffsetSyncsTopic(separator, m.source.text)
	if s.OnSource {
		s.Topic = mm2.OffsetSyncsTopic(separator, m.target.text)
	}
	return s
}

func (r *resolver) groups(m mirror, separator string) Groups {
	config, every := m.checkpointConnector.config, m.form.interval()
	return Groups{
		State:                        m.checkpointConnector.of(),
		Include:                      read(r.report, config["groups"], r.parsePatterns, allTopics),
		Exclude:                      read(r.report, r.first(config, "groups.exclude", "groups.blacklist"), r.parsePatterns, defaultGroupsExclude),
		Checkpoints:                  r.on(config["emit.checkpoints.enabled"], true),
		CheckpointsInterval:          read(r.report, config["emit.checkpoints.interval.seconds"], every, defaultRefresh),
		CheckpointsTopic:             mm2.CheckpointsTopic(separator, m.source.text),
		CheckpointsReplicationFactor: read(r.report, config["checkpoints.topic.replication.factor"], parseReplicationFactor, -1),
		Sync:                         r.on(config["sync.group.offsets.enabled"], false),
		SyncInterval:                 read(r.report, config["sync.group.offsets.interval.seconds"], every, defaultRefresh),
	}
}

// heartbeat is what a mirror has written to its target, if anything.
func (r *resolver) heartbeat(m mirror) (Heartbeat, bool) {
	config := m.heartbeatConnector.config
	h := Heartbeat{
		Source:            m.source.text,
		Target:            m.target.text,
		Interval:          read(r.report, config["emit.heartbeats.interval.seconds"], m.form.interval(), defaultHeartbeat),
		ReplicationFactor: read(r.report, config["heartbeats.topic.replication.factor"], parseReplicationFactor, -1),
	}
	// MirrorMaker's connector takes no notice of "enabled".
	return h, r.on(config["emit.heartbeats.enabled"], true) && m.heartbeatConnector.state == Running
}

// agreed reads what the connectors of a mirror have to say alike, for the one would not find what the other writes. Where
// one of them is silent, MirrorMaker takes its default there; the word of the other is meant.
func agreed[T comparable](r *resolver, m mirror, key string, parse func(string) (T, error), otherwise T) T {
	copying, translating := m.sourceConnector.config[key], m.checkpointConnector.config[key]
	got := read(r.report, firstSet(copying, translating), parse, otherwise)
	if m.form != resource || !m.sourceConnector.there() || !m.checkpointConnector.there() || !copying.set && !translating.set {
		return got
	}
	if copying.set && translating.set {
		if second := read(r.report, translating, parse, otherwise); second != got {
			r.wrong(translating, fmt.Errorf("is %q at %s; both connectors have to say the same, so give one of them", copying.shown(), copying.place()))
		}
		return got
	}
	if got != otherwise {
		silent := m.checkpointConnector.at
		if !copying.set {
			silent = m.sourceConnector.at
		}
		r.warn(silent, "%s is not given here and holds as at %s; MirrorMaker would take its default here, and translate no positions", key, firstSet(copying, translating).place())
	}
	return got
}

// checkSyncs names a combination that MirrorMaker refuses.
func (r *resolver) checkSyncs(m mirror, f Flow) {
	if f.Groups.State == Running && f.Groups.Checkpoints && !f.Syncs.Enabled {
		off := firstSet(m.sourceConnector.config["emit.offset-syncs.enabled"], m.checkpointConnector.config["emit.offset-syncs.enabled"])
		r.warn(off, "positions of groups are translated all the same; MirrorMaker would refuse this, and its tools won't find a position between checkpoints")
	}
}

// limitsIn are the limits among the settings of a connector.
func limitsIn(config settings) limitTexts {
	return limitTexts{
		bytes: config["kferry.rate.bytes"], records: config["kferry.rate.records"],
		byBytes: config["kferry.rate.bytes.topics"], byRecords: config["kferry.rate.records.topics"],
	}
}

// checkKeys refuses settings that can't be passed over, and names those that have no effect.
func (r *resolver) checkKeys(m mirror) {
	parts := []struct {
		connector
		keys keys
	}{{m.sourceConnector, sourceKeys}, {m.checkpointConnector, checkpointKeys}, {m.heartbeatConnector, heartbeatKeys}}
	for _, part := range parts {
		switch {
		case m.form == plain: // variables have no keys of their own
		case m.form == resource:
			r.check(part.config, part.keys)
		default:
			r.check(part.config, slices.Concat(sourceKeys, checkpointKeys, heartbeatKeys))
		}
	}
	r.checkClusters(m)
	r.checkTopicsOfGroups(m)
}

func (r *resolver) check(config settings, acted keys) {
	for _, key := range slices.Sorted(maps.Keys(config)) {
		v := config[key]
		if v.lost || strings.HasPrefix(key, providersKey) {
			continue
		}
		if reason := refusal(key, v.text); reason != "" {
			r.wrongf(v, "%s", reason)
		} else if !acted.has(key) && !securityKey.MatchString(key) { // what it says of security is looked at in logins.go
			why := acted.why(key)
			if why == "" && strings.HasPrefix(key, ownKey) {
				r.wrongf(v, "there is no such setting; kferry's own are %s", strings.Join(ownKeys(), ", "))
				continue
			}
			r.pass(v, why)
		}
	}
}

// checkClusters has a connector's own word about its clusters be that of the mirror.
func (r *resolver) checkClusters(m mirror) {
	for _, c := range []connector{m.sourceConnector, m.checkpointConnector, m.heartbeatConnector} {
		for prefix, alias := range map[string]value{"source.cluster.": m.source, "target.cluster.": m.target} {
			if v := c.config[prefix+"alias"]; v.set && v.text != alias.text {
				r.wrong(v, fmt.Errorf("the mirror's is %q; remove it here", alias.text))
			}
			v := c.config[prefix+"bootstrap.servers"]
			servers := read(r.report, v, parseServers, nil)
			if known := r.clusters[alias.text].BootstrapServers; servers != nil && known != nil && !sameServers(servers, known) {
				r.wrong(v, fmt.Errorf("cluster %s has %s; remove it here", alias.text, strings.Join(known, ",")))
			}
		}
	}
}

// checkTopicsOfGroups names a filter of the checkpointConnector's own.
func (r *resolver) checkTopicsOfGroups(m mirror) {
	if !m.sourceConnector.there() {
		return
	}
	for _, key := range []string{"topics", "topics.exclude", "topics.blacklist"} {
		if v := m.checkpointConnector.config[key]; v.set && v.text != m.sourceConnector.config[key].text {
			r.pass(v, "positions are translated for all topics that are copied")
		}
	}
}
