package spec

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// This file reads Strimzi's KafkaMirrorMaker2, in Strimzi's API group and in IBM's, and IBM's EventStreamsGeoReplicator. The
// shapes of v1beta2 (clusters, sourceCluster, targetCluster) and v1 (target, source) are taken wherever they stand, since the
// version says less: for three releases of Strimzi both passed under both versions, and in one document.

const resourceKind = "KafkaMirrorMaker2"

var resourceGroups = []string{"kafka.strimzi.io", "eventstreams.ibm.com"}

// A resourceReader turns the documents of one file into input.
type resourceReader struct {
	*report
	input     input
	namespace string // of the document, "" where it says none
}

// readResources reads a file of one or more documents; those of another kind are skipped.
func readResources(file string, text []byte, r *report) input {
	reader := resourceReader{report: r}
	for _, doc := range documents(file, text, r) {
		reader.document(doc, true)
	}
	return reader.input
}

// document reads one document; a list, as kubectl prints it, holds several.
func (r *resourceReader) document(doc node, listAllowed bool) {
	top := doc.mapping(r.report)
	kind := top.text("kind", r.report)
	r.namespace = namespaceOf(top)
	switch {
	case kind.text == resourceKind:
		r.checkGroup(top.text("apiVersion", r.report))
	case kind.text == "List" && listAllowed:
		for _, item := range top.take("items").items(r.report) {
			r.document(item, false)
		}
		return
	case kind.text == geoReplicatorKind:
		r.geoReplicator(top)
		return
	case kind.text == "Secret" || kind.text == "ConfigMap":
		r.input.secrets = append(r.input.secrets, readSecret(top))
		return
	case kind.set:
		return // something else that lives in the same file
	}
	spec := top.take("spec").mapping(r.report)
	switch {
	case kind.set || !top.there():
	case describes(spec):
	case describes(top):
		spec = top // as it is pasted from the middle of a resource
	case top.take("alias").there() || top.take("authentication").there() || top.take("tls").there():
		r.loneCluster(top)
		return
	default:
		r.wrongf(top.at(), "not a %s: neither kind nor spec.clusters nor spec.mirrors is there; give a whole resource", resourceKind)
		return
	}
	if top.there() {
		r.resource(spec, top.at())
	}
}

// namespaceOf is the one that a document's Secrets are in.
func namespaceOf(top mapping) string {
	var passed report
	return top.values["metadata"].mapping(&passed).text("namespace", &passed).text
}

// describes says whether a map is the spec of a resource, or a part of one.
func describes(spec mapping) bool {
	return spec.take("clusters").there() || spec.take("mirrors").there() || spec.take("target").there()
}

func (r *resourceReader) checkGroup(version value) {
	group, _, _ := strings.Cut(version.text, "/")
	if version.set && !slices.Contains(resourceGroups, group) {
		r.wrong(version, fmt.Errorf("unknown group; give %s/v1 (or v1beta2)", strings.Join(resourceGroups, "/v1 or ")))
	}
}

var resourceKeys = []string{"clusters", "connectCluster", "mirrors", "target"}

func (r *resourceReader) resource(spec mapping, at value) {
	if !spec.there() {
		r.wrongf(at, "has no spec; give spec.clusters and spec.mirrors, or spec.target and spec.mirrors")
		return
	}
	connect, before := spec.text("connectCluster", r.report), len(r.input.clusters)
	if target := spec.take("target"); target.there() {
		alias := r.target(target.mapping(r.report))
		if connect.set && alias.set && connect.text != alias.text {
			r.wrong(connect, fmt.Errorf("spec.target is %q at %s; give one of them", alias.text, alias.place()))
		}
		connect = firstSet(connect, alias)
	}
	for _, item := range spec.take("clusters").items(r.report) {
		r.cluster(item.mapping(r.report))
	}
	clusters := r.input.clusters[before:]
	mirrors := spec.take("mirrors")
	for _, c := range clusters {
		c.fragment = !mirrors.there()
	}
	for _, item := range mirrors.items(r.report) {
		r.mirror(item.mapping(r.report), connect, clusters)
	}
	if spec.values["replicas"].there() && spec.values["replicas"].target().Value == "1" {
		spec.take("replicas") // which has to be given in v1, and holds
	}
	r.ignoreRest(spec, resourceKeys)
}

// connectNames are fields of v1's target; before, they were keys in the config of Connect's cluster.
var connectNames = map[string]string{
	"groupId": "group.id", "offsetStorageTopic": "offset.storage.topic", "configStorageTopic": "config.storage.topic", "statusStorageTopic": "status.storage.topic",
}

// target reads v1's target, which is the cluster of Connect too.
func (r *resourceReader) target(m mapping) (alias value) {
	names := settings{}
	for field, key := range connectNames {
		if v := m.text(field, r.report); v.set {
			names[key] = v
		}
	}
	c := r.cluster(m)
	if c == nil {
		return value{}
	}
	maps.Copy(c.config, names)
	r.input.targets = append(r.input.targets, c.alias)
	return c.alias
}

// ignoredFields are those of a whole resource that say how Strimzi runs Connect, and what kferry does instead.
var ignoredFields = map[string]string{
	"autoRestart":  "what has failed is tried again by itself",
	"version":      "",
	"replicas":     "start as many workers as there is work for",
	"tracing":      "",
	"rack":         "",
	"listOffsets":  "",
	"alterOffsets": "",
}

// ignoreRest notes the keys that nobody took, with a suggestion where one looks misspelt.
func (r *resourceReader) ignoreRest(m mapping, known []string) {
	for _, key := range m.rest() {
		why, ignored := ignoredFields[key]
		if !ignored {
			why = strings.TrimPrefix(suggest(key, known), "; ")
		}
		r.pass(m.values[key].at(), why)
	}
}

var clusterKeys = []string{"alias", "bootstrapServers", "tls", "authentication", "config"}

// cluster reads one, or a part of one: what it lacks, another document may have. It is nil where there is none.
func (r *resourceReader) cluster(m mapping) *cluster {
	if !m.there() {
		return nil
	}
	c := &cluster{alias: m.text("alias", r.report), servers: m.text("bootstrapServers", r.report)}
	if !c.alias.set {
		r.wrongf(c.alias, "is missing; a cluster needs an alias and bootstrapServers")
	}
	c.config = r.config(m.take("config"))
	r.security(m, c)
	r.input.clusters = append(r.input.clusters, c)
	r.ignoreRest(m, clusterKeys)
	return c
}

// loneCluster reads an item of spec.clusters that is a document of its own.
func (r *resourceReader) loneCluster(m mapping) {
	if !m.take("alias").there() {
		r.wrongf(m.at(), "doesn't say which cluster it is for; put it beside the alias, in an item of spec.clusters")
		return
	}
	if c := r.cluster(m); c != nil {
		c.fragment = true
	}
}

var mirrorKeys = []string{
	"source", "sourceCluster", "targetCluster", "sourceConnector", "checkpointConnector", "heartbeatConnector", "topicsPattern",
	"topicsExcludePattern", "topicsBlacklistPattern", "groupsPattern", "groupsExcludePattern", "groupsBlacklistPattern",
}

func (r *resourceReader) mirror(item mapping, connect value, clusters []*cluster) {
	if !item.there() {
		return
	}
	m := mirror{
		at:      item.at(),
		connect: connect,
		source:  item.text("sourceCluster", r.report),
		target:  firstSet(item.text("targetCluster", r.report), connect),
	}
	if source := item.take("source"); source.there() {
		if c := r.cluster(source.mapping(r.report)); c != nil {
			if m.source.set && c.alias.set && m.source.text != c.alias.text {
				r.wrong(m.source, fmt.Errorf("source is %q at %s; give one of them", c.alias.text, c.alias.place()))
			}
			m.source = firstSet(c.alias, m.source)
			m.sourceCluster = c
		}
	} else if !m.source.set {
		r.wrongf(m.source, "is missing; a mirror needs the alias of both clusters")
	}
	worker := firstSet(connect, m.target)
	for _, c := range clusters {
		if c.alias.text == worker.text {
			m.worker = c
		}
		if c.alias.text == m.target.text {
			m.targetCluster = c
		}
		if c.alias.text == m.source.text && m.sourceCluster == nil {
			m.sourceCluster = c
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
				r.override(c.config, p.key, pattern)
			}
		}
	}
}

// override has a field win over the setting of a config that stands for the same, which is named where it says something else.
func (r *resourceReader) override(config settings, key string, field value) {
	if v := config[key]; v.set && v.text != field.text {
		r.pass(v, fmt.Sprintf("%s in line %d wins", field.path[strings.LastIndexByte(field.path, '.')+1:], field.line))
	}
	config[key] = field
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
		r.override(config, "tasks.max", tasks)
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
