package spec

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kferry/kferry/shared/mm2"
)

// An input is what was read, in the words of its author: every form of input becomes one, and one path leads from here to
// clusters and flows.
type input struct {
	clusters []cluster
	mirrors  []mirror
	idle     []mirror // those that copy nothing
	limits   Limits   // of mirrors that say nothing about it
}

type cluster struct {
	alias, servers value
	config         map[string]value
}

// A mirror is a flow to be.
type mirror struct {
	resource                bool  // out of a resource: seconds instead of durations, and Strimzi's names for offsets
	at                      value // the mirror as a whole
	source, target, connect value // aliases; connect may be left out

	topics, exclude, policy, separator, replicationFactor, start, isolation, refresh, maxLeases value
	configExclude, onHold, offsetsTopic, offsetsFactor                                          value
	limits                                                                                      limitTexts
	state                                                                                       State
}

const (
	defaultRefresh = 5 * time.Second
	mostLeases     = 1_000_000
)

func (in *input) add(more input) {
	in.clusters = append(in.clusters, more.clusters...)
	in.mirrors = append(in.mirrors, more.mirrors...)
	in.idle = append(in.idle, more.idle...)
}

// A resolver knows all clusters and makes flows of mirrors.
type resolver struct {
	*report
	clusters map[string]Cluster
	given    map[string]cluster // the same as they were written
	named    map[string]bool    // by a mirror
	flows    map[string]Flow
	places   map[string]value // where a flow was first described
	limits   Limits           // of mirrors that say nothing about it
}

// resolve makes clusters and flows of the input.
func (in *input) resolve(r *report) ([]Cluster, []Flow) {
	all := resolver{r, map[string]Cluster{}, map[string]cluster{}, map[string]bool{}, map[string]Flow{}, map[string]value{}, in.limits}
	for _, c := range in.clusters {
		all.cluster(c)
	}
	for _, m := range in.mirrors {
		all.mirror(m)
	}
	for _, m := range in.idle {
		all.known(m.source)
		all.known(m.target)
	}
	all.warnUnused()
	flows := slices.SortedFunc(maps.Values(all.flows), func(a, b Flow) int { return cmp.Compare(a.Name(), b.Name()) })
	return all.clustersOf(flows), flows
}

// clustersOf are the clusters that flows lead from or to: nobody connects to others.
func (r *resolver) clustersOf(flows []Flow) []Cluster {
	needed := map[string]bool{}
	for _, f := range flows {
		needed[f.Source], needed[f.Target] = true, true
	}
	var clusters []Cluster
	for _, alias := range slices.Sorted(maps.Keys(needed)) {
		clusters = append(clusters, r.clusters[alias])
	}
	return clusters
}

// cluster adds one; another description of it may add to its config, but must name the same servers.
func (r *resolver) cluster(c cluster) {
	alias := read(r.report, c.alias, parseAlias, "")
	servers := read(r.report, c.servers, parseServers, nil)
	if alias == "" {
		return
	}
	first, twice := r.clusters[alias]
	if !twice {
		r.clusters[alias] = Cluster{Alias: alias, BootstrapServers: servers, Config: texts(c.config)}
		r.given[alias] = c
		return
	}
	if servers != nil && first.BootstrapServers != nil && !sameServers(first.BootstrapServers, servers) {
		r.wrong(c.alias, fmt.Errorf("this alias already stands for %s (%s); give each cluster an alias of its own",
			strings.Join(first.BootstrapServers, ","), r.given[alias].alias.place()))
		return
	}
	r.mergeConfig(first, r.given[alias], c)
}

func (r *resolver) mergeConfig(first Cluster, given, more cluster) {
	for key, v := range more.config {
		if earlier := given.config[key]; earlier.set && earlier.text != v.text {
			r.wrong(v, fmt.Errorf("is %q at %s; give one of them", earlier.text, earlier.place()))
			continue
		}
		given.config[key] = v
		first.Config[key] = v.text
	}
}

func texts(config map[string]value) map[string]string {
	all := make(map[string]string, len(config))
	for key, v := range config {
		all[key] = v.text
	}
	return all
}

func sameServers(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// mirror adds a flow, or another filter to one that is there.
func (r *resolver) mirror(m mirror) {
	known := r.known(m.source) && r.known(m.target) // both are looked at only to name every mistake
	if m.connect.set && r.known(m.connect) && known {
		r.checkConnect(m)
	}
	flow := r.flow(m)
	if !known || !r.apart(m, flow) {
		return
	}
	name := flow.Name()
	first, twice := r.flows[name]
	if !twice {
		r.flows[name], r.places[name] = flow, m.at
		return
	}
	if difference := first.difference(flow); difference != "" {
		r.wrongf(m.at, "%s is already described at %s, with another %s; make them agree, or say all of it in one", name, r.places[name].place(), difference)
		return
	}
	first.Filters = append(first.Filters, flow.Filters...)
	first.MaxLeases = addLeases(first.MaxLeases, flow.MaxLeases)
	r.flows[name] = first
}

// addLeases adds up two bounds; 0 is none.
func addLeases(a, b int) int {
	if a == 0 || b == 0 {
		return 0
	}
	return a + b
}

// known says whether an alias is that of a cluster, and remembers that it is named.
func (r *resolver) known(alias value) bool {
	if !alias.set {
		return false // reported where it was read
	}
	if _, ok := r.clusters[alias.text]; ok {
		r.named[alias.text] = true
		return true
	}
	aliases := slices.Sorted(maps.Keys(r.clusters))
	if alias.file == "" {
		return false // a variable names its own cluster: the alias itself is wrong
	}
	if len(aliases) == 0 {
		r.wrong(alias, errors.New("no cluster has this alias, and none is given; list them in spec.clusters"))
		return false
	}
	r.wrong(alias, fmt.Errorf("no cluster has this alias; known are %s%s", strings.Join(aliases, ", "), suggest(alias.text, aliases)))
	return false
}

// checkConnect holds a resource to Strimzi's rule that all its mirrors lead to the cluster of its Connect.
func (r *resolver) checkConnect(m mirror) {
	connect, target := r.clusters[m.connect.text].BootstrapServers, r.clusters[m.target.text].BootstrapServers
	if connect != nil && target != nil && !sameServers(connect, target) {
		r.wrong(m.target, fmt.Errorf("differs from connectCluster %q; name that one, or give each target a resource of its own", m.connect.text))
	}
}

// apart refuses a flow that feeds itself.
func (r *resolver) apart(m mirror, f Flow) bool {
	if f.Source == f.Target {
		r.wrong(m.target, errors.New("source and target are the same cluster; name another one"))
		return false
	}
	source, target := r.clusters[f.Source].BootstrapServers, r.clusters[f.Target].BootstrapServers
	if source == nil || target == nil || !sameServers(source, target) {
		return true
	}
	if _, identity := f.Policy.(mm2.IdentityPolicy); identity {
		r.wrong(m.target, fmt.Errorf("has the addresses of %s: topics that keep their names would be copied into themselves; name another cluster or take the default policy", f.Source))
		return false
	}
	r.warn(m.target, "%s and %s have the same addresses: copies are copied again where the patterns match their names", f.Source, f.Target)
	return true
}

// flow reads everything a mirror says, whether or not its clusters are known.
func (r *resolver) flow(m mirror) Flow {
	m = r.inherit(m)
	parseRefresh := parseDuration(leastRefresh)
	leastLeases, connector := 0, mm2.SourceConnector
	offsets, group := mm2.OffsetsTopic(m.source.text), mm2.ConnectGroup(m.source.text)
	if m.resource {
		parseRefresh, leastLeases = parseSeconds, 1
		connector = FlowName(m.source.text, m.target.text) + "." + mm2.SourceConnector
		offsets, group = mm2.StrimziOffsetsTopic, mm2.StrimziConnectGroup
	}
	return Flow{
		Source:                   m.source.text,
		Target:                   m.target.text,
		Filters:                  []Filter{r.filter(m)},
		Policy:                   r.policy(m),
		ReplicationFactor:        read(r.report, m.replicationFactor, parseReplicationFactor, -1),
		Start:                    read(r.report, m.start, ParseStart, Earliest),
		Isolation:                read(r.report, m.isolation, parseIsolation, ReadCommitted),
		Refresh:                  read(r.report, m.refresh, parseRefresh, defaultRefresh),
		MaxLeases:                read(r.report, m.maxLeases, parseCount(leastLeases, mostLeases), 0),
		OffsetsTopic:             read(r.report, m.offsetsTopic, parseTopic, offsets),
		Connector:                connector,
		OffsetsReplicationFactor: read(r.report, m.offsetsFactor, parseReplicationFactor, -1),
		ConfigExclude:            read(r.report, m.configExclude, ParsePatterns, defaultConfigExclude),
		Limits:                   r.report.limits(m.limits, r.limits),
		OnHold:                   read(r.report, m.onHold, ParseOnHold, nil),
		State:                    m.state,
		ConnectGroup:             group,
		Configs:                  ConfigSync{Enabled: true, Interval: defaultRefresh, Overrides: true},
		ACLs:                     ACLSync{Enabled: true, Interval: defaultRefresh},
		Syncs:                    OffsetSyncs{Enabled: true, Topic: mm2.OffsetSyncsTopic(mm2.DefaultSeparator, m.source.text), ReplicationFactor: -1},
		Groups: Groups{
			State: Running, Include: allTopics, Exclude: defaultGroupsExclude,
			Checkpoints: true, CheckpointsInterval: defaultRefresh,
			CheckpointsTopic: mm2.CheckpointsTopic(mm2.DefaultSeparator, m.source.text), CheckpointsReplicationFactor: -1,
			SyncInterval: defaultRefresh,
		},
		Heartbeats: true,
	}
}

// inherit takes from the clusters' config what the connector's leaves open (in this order since Strimzi 0.49): how to read
// from the source, and where offsets are kept from Connect's own cluster, which is the target.
func (r *resolver) inherit(m mirror) mirror {
	source, connect := r.given[m.source.text].config, r.given[m.target.text].config
	if c, ok := r.given[m.connect.text]; ok {
		connect = c.config
	}
	m.start = firstSet(m.start, firstOf(source, "consumer.auto.offset.reset", "auto.offset.reset"))
	m.isolation = firstSet(m.isolation, firstOf(source, "consumer.isolation.level", "isolation.level"))
	m.offsetsTopic = firstSet(m.offsetsTopic, connect["offset.storage.topic"])
	m.offsetsFactor = firstSet(m.offsetsFactor, connect["offset.storage.replication.factor"])
	return m
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

func (r *resolver) filter(m mirror) Filter {
	return Filter{
		Topics:  read(r.report, m.topics, ParsePatterns, allTopics),
		Exclude: read(r.report, m.exclude, ParsePatterns, defaultTopicsExclude),
	}
}

func (r *resolver) policy(m mirror) mm2.Policy {
	separator := read(r.report, m.separator, parseSeparator, mm2.DefaultSeparator)
	withSeparator := func(name string) (mm2.Policy, error) { return mm2.ParsePolicy(name, separator) }
	return read[mm2.Policy](r.report, m.policy, withSeparator, mm2.DefaultPolicy{Separator: separator})
}

func parseSeparator(text string) (string, error) {
	if text == "" {
		return "", errors.New("a separator can't be empty; remove it for the default, which is a dot")
	}
	_, err := mm2.ParsePolicy("default", text)
	return text, err
}

func parseTopic(text string) (string, error) {
	if err := mm2.CheckTopicName(text); err != nil {
		return "", fmt.Errorf("%w; give the name of a topic", err)
	}
	return text, nil
}

// difference names what two descriptions of a flow don't agree on, or is "". Filters and bounds add up.
func (f Flow) difference(g Flow) string {
	switch {
	case f.Policy != g.Policy:
		return "replication policy"
	case f.ReplicationFactor != g.ReplicationFactor:
		return "replication factor"
	case f.Start != g.Start:
		return "start"
	case f.Isolation != g.Isolation:
		return "isolation level"
	case f.Refresh != g.Refresh:
		return "refresh interval"
	case f.OffsetsTopic != g.OffsetsTopic || f.OffsetsReplicationFactor != g.OffsetsReplicationFactor:
		return "offsets topic"
	case f.ConfigExclude.String() != g.ConfigExclude.String():
		return "config.properties.exclude"
	case !f.Limits.equal(g.Limits):
		return "rate limit"
	case !maps.Equal(f.OnHold, g.OnHold):
		return "kferry.on.hold"
	case f.State != g.State:
		return "state"
	}
	return ""
}

// warnUnused names clusters that no mirror leads to or from.
func (r *resolver) warnUnused() {
	for _, alias := range slices.Sorted(maps.Keys(r.clusters)) {
		if !r.named[alias] {
			r.warn(r.given[alias].alias, "no mirror uses cluster %s", alias)
		}
	}
}
