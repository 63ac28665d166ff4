package spec

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// writeStrimzi writes KafkaMirrorMaker2 resources in the v1 shape, one for each Connect. With heartbeats they have the
// heartbeatConnector of the older shape too, which kferry reads in either and Strimzi's v1 doesn't know.
func writeStrimzi(s Spec, heartbeats bool, logins *loginWriter) string {
	w := strimziWriter{spec: s, logins: logins, named: map[string]int{}, heartbeats: map[string]Heartbeat{}}
	if heartbeats {
		for _, h := range s.Heartbeats {
			w.heartbeats[FlowName(h.Source, h.Target)] = h
		}
	}
	for _, flows := range byConnect(s.Flows) {
		var mirrors []*yaml.Node
		clusters := []Cluster{s.Cluster(flows[0].TargetKey())}
		for _, f := range flows {
			clusters = append(clusters, s.Cluster(f.SourceKey()))
		}
		w.namespace = namespaceFor(clusters...)
		for _, f := range flows {
			mirrors = append(mirrors, w.mirrors(f)...)
		}
		w.resource(w.target(flows[0]), flows[0].Target, mirrors)
	}
	for _, name := range slices.Sorted(maps.Keys(w.heartbeats)) { // those beside which nothing is copied
		h := w.heartbeats[name]
		source, target := s.Cluster(h.Source), s.Cluster(h.TargetKey())
		w.namespace = namespaceFor(source, target)
		mirror := object{}.set("source", w.cluster(source, false, nil).node()).set("heartbeatConnector", heartbeatNode(h))
		w.resource(w.cluster(target, true, nil), h.Target, []*yaml.Node{mirror.node()})
	}
	return w.text.String()
}

type strimziWriter struct {
	spec       Spec
	logins     *loginWriter
	namespace  string // of the resource that is written
	text       strings.Builder
	named      map[string]int       // how often a resource has a name
	heartbeats map[string]Heartbeat // that are still to be written, by flow
}

// An object is a YAML map in the order in which it is filled.
type object []*yaml.Node

func (o object) set(key string, content *yaml.Node) object { return append(o, text(key), content) }

func (o object) node() *yaml.Node { return &yaml.Node{Kind: yaml.MappingNode, Content: o} }

func text(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s) // which quotes what would be taken for a number or a boolean
	return n
}

func boolean(b bool) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: fmt.Sprint(b)}
}

func integer(n int) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: number(n)}
}

func configNode(all []setting) *yaml.Node {
	var o object
	for _, s := range all {
		o = o.set(s.key, text(s.text))
	}
	return o.node()
}

// cluster is one, which may be that of Connect, with more settings than its own.
func (w *strimziWriter) cluster(c Cluster, connect bool, names []setting, more ...setting) object {
	o := object{}.set("alias", text(c.Alias)).set("bootstrapServers", text(referenceOf(c.references, "bootstrap.servers", strings.Join(c.BootstrapServers, ","))))
	for _, s := range names {
		o = o.set(s.key, text(s.text))
	}
	blocks := w.logins.blocksFor(c, w.namespace, connect)
	if blocks.hasTLS {
		o = o.set("tls", blocks.tls.node())
	}
	if blocks.authentication != nil {
		o = o.set("authentication", blocks.authentication.node())
	}
	return o.config(slices.Concat(sorted(c), blocks.config, more))
}

// sorted are the settings of a cluster but those of workers, which have places of their own.
func sorted(c Cluster) (all []setting) {
	config := withoutWorkers(c.Config)
	for _, key := range slices.Sorted(maps.Keys(config)) {
		all = append(all, setting{key, referenceOf(c.references, key, config[key])})
	}
	return all
}

func (o object) config(all []setting) object {
	if len(all) == 0 {
		return o
	}
	return o.set("config", configNode(all))
}

// target is the cluster of Connect with the names of its workers, all of which the v1 shape wants.
func (w *strimziWriter) target(f Flow) object {
	c := w.spec.Cluster(f.TargetKey())
	named := func(field, key, kind string) setting {
		name := referenceOf(c.references, key, c.Config[key])
		if name == "" {
			name = strings.Replace(f.OffsetsTopic, "offsets", kind, 1)
		}
		if name == f.OffsetsTopic {
			name = f.ConnectGroup + "-" + kind
		}
		return setting{field, name}
	}
	names := []setting{
		{"groupId", referenceOf(f.references, "group.id", f.ConnectGroup)},
		{"offsetStorageTopic", referenceOf(f.references, "offset.storage.topic", f.OffsetsTopic)},
		named("configStorageTopic", "config.storage.topic", "configs"), named("statusStorageTopic", "status.storage.topic", "status"),
	}
	var more []setting
	if f.OffsetsReplicationFactor != -1 {
		more = append(more, setting{"offset.storage.replication.factor", number(f.OffsetsReplicationFactor)})
	}
	return w.cluster(c, true, names, more...)
}

// mirrors are those of a flow, one for each filter.
func (w *strimziWriter) mirrors(f Flow) (all []*yaml.Node) {
	otherwise := silent(resource, f, w.spec.Clusters)
	copies := settingsOf(f, otherwise, copying)
	copies = slices.DeleteFunc(copies, func(s setting) bool { return s.key == "tasks.max" })
	if f.Connector != otherwise.Connector {
		copies = append(copies, setting{"kferry.connector", f.Connector})
	}
	translations := settingsOf(f, otherwise, translating)
	translations = slices.DeleteFunc(translations, func(s setting) bool { return s.key == "groups" || s.key == "groups.exclude" })
	for i, filter := range f.Filters {
		mirror := object{}.set("source", w.cluster(w.spec.Cluster(f.SourceKey()), false, nil).node())
		if f.State != Absent {
			tasks := f.MaxLeases
			switch {
			case tasks > 0 && i == 0: // bounds of mirrors add up
				tasks -= len(f.Filters) - 1
			case tasks > 0:
				tasks = 1
			}
			mirror = mirror.set("sourceConnector", connectorNode(f.State, tasks, copies))
		}
		if f.Groups.State != Absent {
			mirror = mirror.set("checkpointConnector", connectorNode(f.Groups.State, 0, translations))
		}
		if h, beats := w.heartbeats[f.Name()]; beats {
			mirror = mirror.set("heartbeatConnector", heartbeatNode(h))
			delete(w.heartbeats, f.Name())
		}
		mirror = mirror.pattern("topicsPattern", filter.text("topics", filter.Topics), allTopics).
			pattern("topicsExcludePattern", filter.text("topics.exclude", filter.Exclude), defaultTopicsExclude)
		if f.Groups.State != Absent {
			mirror = mirror.pattern("groupsPattern", referenceOf(f.references, "groups", f.Groups.Include.String()), allTopics).
				pattern("groupsExcludePattern", referenceOf(f.references, "groups.exclude", f.Groups.Exclude.String()), defaultGroupsExclude)
		}
		all = append(all, mirror.node())
	}
	return all
}

func (o object) pattern(key, patterns string, otherwise Patterns) object {
	if patterns == otherwise.String() {
		return o
	}
	return o.set(key, text(patterns))
}

func connectorNode(state State, tasks int, config []setting) *yaml.Node {
	var o object
	if tasks > 0 {
		o = o.set("tasksMax", integer(tasks))
	}
	if state != Running {
		o = o.set("state", text(string(state)))
	}
	return o.config(config).node()
}

func heartbeatNode(h Heartbeat) *yaml.Node {
	var config []setting
	if h.Interval != defaultHeartbeat {
		config = append(config, setting{"emit.heartbeats.interval.seconds", seconds(h.Interval)})
	}
	if h.ReplicationFactor != -1 {
		config = append(config, setting{"heartbeats.topic.replication.factor", number(h.ReplicationFactor)})
	}
	return connectorNode(Running, 0, config)
}

func (w *strimziWriter) metadata(name string) object {
	o := object{}.set("name", text(name))
	if w.namespace == "" {
		return o
	}
	return o.set("namespace", text(w.namespace))
}

var notInResourceName = regexp.MustCompile(`[^a-z0-9]+`)

// resource writes a whole document.
func (w *strimziWriter) resource(target object, alias string, mirrors []*yaml.Node) {
	name := strings.Trim(notInResourceName.ReplaceAllString(strings.ToLower(alias), "-"), "-")
	if name == "" {
		name = "mirror"
	}
	if w.named[name]++; w.named[name] > 1 {
		name = fmt.Sprintf("%s-%d", name, w.named[name])
	}
	spec := object{}.set("replicas", integer(1)).set("target", target.node()).
		set("mirrors", &yaml.Node{Kind: yaml.SequenceNode, Content: mirrors})
	doc := object{}.set("apiVersion", text(resourceGroups[0]+"/v1")).set("kind", text(resourceKind)).
		set("metadata", w.metadata(name).node()).set("spec", spec.node())
	if w.text.Len() > 0 {
		w.text.WriteString("---\n")
	}
	encoder := yaml.NewEncoder(&w.text)
	encoder.SetIndent(2)
	if err := encoder.Encode(doc.node()); err != nil {
		panic(fmt.Sprintf("spec: a tree of text can't be written: %v", err))
	}
}
