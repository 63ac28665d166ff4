package spec

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// This file reads Strimzi's KafkaMirrorMaker2 in its v1beta2 shape, in Strimzi's API group and in IBM's. Documents are told
// apart by shape, since the version says less: for three releases of Strimzi both shapes passed under both versions.

const resourceKind = "KafkaMirrorMaker2"

var resourceGroups = []string{"kafka.strimzi.io", "eventstreams.ibm.com"}

// A resourceReader turns the documents of one file into input.
type resourceReader struct {
	*report
	input   input
	ignored []value // keys without effect
	later   []value // keys of MirrorMaker 2's that kferry doesn't act on yet
}

// propertiesLine is the first line of an mm2.properties file: YAML has no "=".
var propertiesLine = regexp.MustCompile(`^[\w.>-]+\s*=`)

// readResources reads a file of one or more documents; those of another kind are skipped.
func readResources(file string, text []byte, r *report) input {
	if line, found := firstLine(string(text)); found && propertiesLine.MatchString(line.text) {
		r.wrongf(value{file: file, line: line.line, path: "properties"}, "mm2.properties is not supported yet; give a %s resource (v1beta2) or environment variables", resourceKind)
		return input{}
	}
	reader := resourceReader{report: r}
	for _, doc := range documents(file, text, r) {
		reader.document(doc, true)
	}
	reader.warnKeys(file, "no effect in kferry", reader.ignored)
	reader.warnKeys(file, "not acted on yet", reader.later)
	return reader.input
}

// firstLine is the first one that isn't empty or a comment.
func firstLine(text string) (value, bool) {
	number := 0
	for line := range strings.Lines(text) {
		number++
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "!") {
			return value{line: number, text: line}, true
		}
	}
	return value{}, false
}

// warnKeys names keys in one warning.
func (r *resourceReader) warnKeys(file, what string, keys []value) {
	if len(keys) == 0 {
		return
	}
	slices.SortStableFunc(keys, func(a, b value) int { return a.line - b.line })
	var names []string
	for _, key := range keys {
		names = append(names, fmt.Sprintf("%s (line %d%s)", key.path, key.line, key.text))
	}
	r.warnings = append(r.warnings, fmt.Sprintf("%s: %s: %s", file, what, strings.Join(names, ", ")))
}

// document reads one document; a list, as kubectl prints it, holds several.
func (r *resourceReader) document(doc node, listAllowed bool) {
	top := doc.mapping(r.report)
	kind := top.text("kind", r.report)
	switch {
	case kind.text == resourceKind:
		r.checkGroup(top.text("apiVersion", r.report))
	case kind.text == "List" && listAllowed:
		for _, item := range top.take("items").items(r.report) {
			r.document(item, false)
		}
		return
	case kind.text == "EventStreamsGeoReplicator":
		r.warn(kind, "an EventStreamsGeoReplicator is not read yet; the %s beside it is", resourceKind)
		return
	case kind.set:
		return // something else that lives in the same file
	}
	spec := top.take("spec").mapping(r.report)
	if !kind.set && !spec.take("clusters").there() && !spec.take("mirrors").there() {
		if top.there() {
			r.wrongf(top.at(), "not a %s: neither kind nor spec.clusters nor spec.mirrors is there; give a whole resource", resourceKind)
		}
		return
	}
	r.resource(spec, top.at())
}

func (r *resourceReader) checkGroup(version value) {
	group, _, _ := strings.Cut(version.text, "/")
	if version.set && !slices.Contains(resourceGroups, group) {
		r.wrong(version, fmt.Errorf("unknown group; give %s/v1beta2", strings.Join(resourceGroups, "/v1beta2 or ")))
	}
}

var resourceKeys = []string{"clusters", "connectCluster", "mirrors"}

func (r *resourceReader) resource(spec mapping, at value) {
	if !spec.there() {
		r.wrongf(at, "has no spec; give spec.clusters and spec.mirrors")
		return
	}
	if target := spec.take("target"); target.there() {
		r.shapeV1(target)
		return
	}
	connect := spec.text("connectCluster", r.report)
	for _, item := range spec.take("clusters").items(r.report) {
		r.cluster(item.mapping(r.report))
	}
	for _, item := range spec.take("mirrors").items(r.report) {
		r.mirror(item.mapping(r.report), connect)
	}
	r.ignoreRest(spec, resourceKeys)
}

func (r *resourceReader) shapeV1(at node) {
	r.wrongf(at.at(), "the v1 shape of %s is not supported yet; give v1beta2, with clusters, sourceCluster and targetCluster", resourceKind)
}

// ignoreRest notes the keys that nobody took, with a suggestion where one looks misspelt.
func (r *resourceReader) ignoreRest(m mapping, known []string) {
	for _, key := range m.rest() {
		at := m.values[key].at()
		at.text = suggest(key, known)
		r.ignored = append(r.ignored, at)
	}
}

var clusterKeys = []string{"alias", "bootstrapServers", "tls", "authentication", "config"}

func (r *resourceReader) cluster(m mapping) {
	if !m.there() {
		return
	}
	c := cluster{alias: m.text("alias", r.report), servers: m.text("bootstrapServers", r.report)}
	for _, needed := range []value{c.alias, c.servers} {
		if !needed.set {
			r.wrongf(needed, "is missing; a cluster needs an alias and bootstrapServers")
		}
	}
	for _, key := range []string{"tls", "authentication"} {
		if n := m.take(key); n.there() {
			r.wrongf(n.at(), "is not supported yet; kferry speaks PLAINTEXT only and won't fall back to it unasked")
		}
	}
	c.config = r.config(m.take("config"), clusterConfig)
	r.input.clusters = append(r.input.clusters, c)
	r.ignoreRest(m, clusterKeys)
}

var mirrorKeys = []string{
	"sourceCluster", "targetCluster", "sourceConnector", "checkpointConnector", "heartbeatConnector", "topicsPattern",
	"topicsExcludePattern", "topicsBlacklistPattern", "groupsPattern", "groupsExcludePattern", "groupsBlacklistPattern",
}

func (r *resourceReader) mirror(item mapping, connect value) {
	if !item.there() {
		return
	}
	if source := item.take("source"); source.there() {
		r.shapeV1(source)
		return
	}
	m := mirror{
		resource: true,
		at:       item.at(),
		connect:  connect,
		source:   item.text("sourceCluster", r.report),
		target:   item.text("targetCluster", r.report),
		topics:   item.text("topicsPattern", r.report),
		exclude:  firstSet(item.text("topicsExcludePattern", r.report), item.text("topicsBlacklistPattern", r.report)),
	}
	for _, needed := range []value{m.source, m.target} {
		if !needed.set {
			r.wrongf(needed, "is missing; a mirror needs the alias of both clusters")
		}
	}
	for _, key := range []string{"checkpointConnector", "heartbeatConnector", "groupsPattern", "groupsExcludePattern", "groupsBlacklistPattern"} {
		if n := item.take(key); n.there() {
			r.later = append(r.later, n.at())
		}
	}
	connector := item.take("sourceConnector")
	r.ignoreRest(item, mirrorKeys)
	if !connector.there() || isNull(connector.target()) {
		r.warn(m.at, "copies nothing, since it has no sourceConnector; add sourceConnector: {} to copy its topics")
		r.input.idle = append(r.input.idle, m)
		return
	}
	r.connector(connector.mapping(r.report), &m)
	r.input.mirrors = append(r.input.mirrors, m)
}

var connectorKeys = []string{"tasksMax", "pause", "state", "config"}

// connector fills in what a sourceConnector says. The patterns of the mirror win over its config.
func (r *resourceReader) connector(c mapping, m *mirror) {
	config := r.config(c.take("config"), connectorConfig)
	m.topics = firstSet(m.topics, config["topics"])
	m.exclude = firstSet(m.exclude, config["topics.exclude"], config["topics.blacklist"])
	m.policy = config["replication.policy.class"]
	m.separator = config["replication.policy.separator"]
	m.replicationFactor = config["replication.factor"]
	m.start = firstOf(config, "source.consumer.auto.offset.reset", "consumer.auto.offset.reset", "auto.offset.reset")
	m.isolation = firstOf(config, "source.consumer.isolation.level", "consumer.isolation.level", "isolation.level")
	m.refresh = config["refresh.topics.interval.seconds"]
	m.onHold = config["kferry.on.hold"]
	m.configExclude = firstOf(config, "config.properties.exclude", "config.properties.blacklist")
	if m.maxLeases = c.text("tasksMax", r.report); m.maxLeases.set {
		later := m.maxLeases
		later.text = "" // names the key alone
		r.later = append(r.later, later)
	}
	m.limits = limitTexts{
		bytes: config["kferry.rate.bytes"], records: config["kferry.rate.records"],
		byBytes: config["kferry.rate.bytes.topics"], byRecords: config["kferry.rate.records.topics"],
	}
	m.state = r.state(c, config["enabled"])
	r.ignoreRest(c, connectorKeys)
}

// state is what state says, or else the older pause; a connector that is not enabled is stopped.
func (r *resourceReader) state(c mapping, enabled value) State {
	otherwise := Running
	if read(r.report, c.text("pause", r.report), parseBool, false) {
		otherwise = Paused
	}
	state := read(r.report, c.text("state", r.report), parseState, otherwise)
	if !read(r.report, enabled, parseBool, true) {
		return Stopped
	}
	return state
}

// config reads a free map of settings and notes those that do nothing.
func (r *resourceReader) config(n node, acted actedOn) map[string]value {
	m := n.mapping(r.report)
	config := map[string]value{}
	for _, key := range m.keys {
		v := m.text(key, r.report)
		if !v.set {
			continue
		}
		config[key] = v
		r.classify(key, v, acted)
	}
	return config
}

func (r *resourceReader) classify(key string, v value, acted actedOn) {
	if reason := refusal(key, v.text); reason != "" {
		r.wrongf(v, "%s", reason)
		return
	}
	off := v.text == "false"
	v.text = ""
	switch {
	case acted.has(key):
	case laterKeys.MatchString(key) && off: // as it is
	case laterKeys.MatchString(key):
		r.later = append(r.later, v)
	default:
		v.text = suggest(key, acted)
		r.ignored = append(r.ignored, v)
	}
}

// firstSet is the first value that is set, else the first one.
func firstSet(values ...value) value {
	for _, v := range values {
		if v.set {
			return v
		}
	}
	return values[0]
}

// firstOf is the value of the first key that is set.
func firstOf(config map[string]value, keys ...string) value {
	for _, key := range keys {
		if v := config[key]; v.set {
			return v
		}
	}
	return value{}
}
