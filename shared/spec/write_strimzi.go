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
func writeStrimzi(s Spec, heartbeats bool) string {
	w := strimziWriter{spec: s, named: map[string]int{}, heartbeats: map[string]Heartbeat{}}
	if heartbeats {
		for _, h := range s.Heartbeats {
			w.heartbeats[FlowName(h.Source, h.Target)] = h
		}
	}
	for _, flows := range byConnect(s.Flows) {
		var mirrors []*yaml.Node
		for _, f := range flows {
			mirrors = append(mirrors, w.mirrors(f)...)
		}
		w.resource(w.target(flows[0]), flows[0].Target, mirrors)
	}
	for _, name := range slices.Sorted(maps.Keys(w.heartbeats)) { // those beside which nothing is copied
		h := w.heartbeats[name]
		mirror := object{}.set("source", w.source(h.Source)).set("heartbeatConnector", heartbeatNode(h))
		w.resource(w.cluster(h.Target).config(sorted(w.spec.Cluster(h.Target).Config)), h.Target, []*yaml.Node{mirror.node()})
	}
	return w.text.String()
}

type strimziWriter struct {
	spec       Spec
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

func (w *strimziWriter) cluster(alias string) object {
	c := w.spec.Cluster(alias)
	return object{}.set("alias", text(alias)).set("bootstrapServers", text(strings.Join(c.BootstrapServers, ",")))
}

func (w *strimziWriter) source(alias string) *yaml.Node {
	return w.cluster(alias).config(sorted(w.spec.Cluster(alias).Config)).node()
}

// sorted are the settings of a cluster but those of workers, which have places of their own.
func sorted(config map[string]string) (all []setting) {
	config = withoutWorkers(config)
	for _, key := range slices.Sorted(maps.Keys(config)) {
		all = append(all, setting{key, config[key]})
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
	config := w.spec.Cluster(f.Target).Config
	named := func(key, kind string) *yaml.Node {
		name := config[key]
		if name == "" {
			name = strings.Replace(f.OffsetsTopic, "offsets", kind, 1)
		}
		if name == f.OffsetsTopic {
			name = f.ConnectGroup + "-" + kind
		}
		return text(name)
	}
	o := w.cluster(f.Target).set("groupId", text(f.ConnectGroup)).set("offsetStorageTopic", text(f.OffsetsTopic)).
		set("configStorageTopic", named("config.storage.topic", "configs")).set("statusStorageTopic", named("status.storage.topic", "status"))
	all := sorted(config)
	if f.OffsetsReplicationFactor != -1 {
		all = append(all, setting{"offset.storage.replication.factor", number(f.OffsetsReplicationFactor)})
	}
	return o.config(all)
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
		mirror := object{}.set("source", w.source(f.Source))
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
		mirror = mirror.pattern("topicsPattern", filter.Topics, allTopics).pattern("topicsExcludePattern", filter.Exclude, defaultTopicsExclude)
		if f.Groups.State != Absent {
			mirror = mirror.pattern("groupsPattern", f.Groups.Include, allTopics).pattern("groupsExcludePattern", f.Groups.Exclude, defaultGroupsExclude)
		}
		all = append(all, mirror.node())
	}
	return all
}

func (o object) pattern(key string, p, otherwise Patterns) object {
	if p.String() == otherwise.String() {
		return o
	}
	return o.set(key, text(p.String()))
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
		set("metadata", object{}.set("name", text(name)).node()).set("spec", spec.node())
	if w.text.Len() > 0 {
		w.text.WriteString("---\n")
	}
	encoder := yaml.NewEncoder(&w.text)
	encoder.SetIndent(2)
	if err := encoder.Encode(doc.node()); err != nil {
		panic(fmt.Sprintf("spec: a tree of text can't be written: %v", err))
	}
}
