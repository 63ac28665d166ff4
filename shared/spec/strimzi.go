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
	input input
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
		r.pass(m.values[key].at(), strings.TrimPrefix(suggest(key, known), "; "))
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
	c.config = r.config(m.take("config"))
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
		at:      item.at(),
		connect: connect,
		source:  item.text("sourceCluster", r.report),
		target:  item.text("targetCluster", r.report),
	}
	for _, needed := range []value{m.source, m.target} {
		if !needed.set {
			r.wrongf(needed, "is missing; a mirror needs the alias of both clusters")
		}
	}
	m.sourceConnector = r.connector(item.take("sourceConnector"))
	m.checkpointConnector = r.connector(item.take("checkpointConnector"))
	m.heartbeatConnector = r.connector(item.take("heartbeatConnector"))
	r.patterns(item, &m)
	r.ignoreRest(item, mirrorKeys)
	if !m.sourceConnector.there() {
		r.warn(m.at, "copies nothing, since it has no sourceConnector; add sourceConnector: {} to copy its topics")
	}
	r.input.mirrors = append(r.input.mirrors, m)
}

// patterns fills in those of the mirror, which win over the connectors' configs.
func (r *resourceReader) patterns(item mapping, m *mirror) {
	for _, p := range []struct {
		key     string
		fields  []string
		becomes []connector
	}{
		{"topics", []string{"topicsPattern"}, []connector{m.sourceConnector, m.checkpointConnector}},
		{"topics.exclude", []string{"topicsExcludePattern", "topicsBlacklistPattern"}, []connector{m.sourceConnector, m.checkpointConnector}},
		{"groups", []string{"groupsPattern"}, []connector{m.checkpointConnector}},
		{"groups.exclude", []string{"groupsExcludePattern", "groupsBlacklistPattern"}, []connector{m.checkpointConnector}},
	} {
		given := settings{}
		for _, field := range p.fields {
			given[field] = item.text(field, r.report)
		}
		pattern := r.first(given, p.fields...)
		for _, c := range p.becomes {
			if pattern.set && c.there() {
				c.config[p.key] = pattern
			}
		}
	}
}

var connectorKeys = []string{"tasksMax", "pause", "state", "config"}

// connector reads what a mirror says of one; null is as if it weren't there.
func (r *resourceReader) connector(n node) connector {
	if !n.there() || isNull(n.target()) {
		return connector{state: Absent}
	}
	c := n.mapping(r.report)
	config := r.config(c.take("config"))
	if tasks := c.text("tasksMax", r.report); tasks.set {
		config["tasks.max"] = tasks
	}
	state := r.state(c, config["enabled"])
	r.ignoreRest(c, connectorKeys)
	return connector{n.at(), state, config}
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

// config reads a free map of settings. Kafka trims them.
func (r *resourceReader) config(n node) settings {
	m := n.mapping(r.report)
	config := settings{}
	for _, key := range m.keys {
		if v := m.text(key, r.report); v.set {
			v.text = strings.TrimSpace(v.text)
			config[key] = v
		}
	}
	return config
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
