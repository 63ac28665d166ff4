package spec

import (
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
	clusters []*cluster
	mirrors  []mirror
	secrets  []secretDoc
	// targets are where mirrors lead to that name none, destinations those of geo-replicators.
	targets      []value
	destinations []destination
	limits       Limits // of mirrors that say nothing about it
}

type cluster struct {
	alias, servers value
	config         settings
	free           bool // the alias may be any text, as MirrorMaker's driver has it: see nameable
	// tls is the block of a resource that has the cluster be spoken to so, authentication the type of the one that logs in, and sasl
	// what has that be done by SASL.
	tls, authentication, sasl value
	fragment                  bool // it stands in a document that has no mirrors, and is a part of others' descriptions
}

// A mirror is a flow to be: two clusters, and what each of MirrorMaker's connectors is told.
type mirror struct {
	form                    form
	at                      value // the mirror as a whole
	source, target, connect value // aliases; connect may be left out
	// worker is Connect's cluster as the mirror's own document has it: others may run a Connect of their own there. Likewise the clusters
	// on either side, which others may log in to as somebody else.
	worker, sourceCluster, targetCluster *cluster

	sourceConnector, checkpointConnector, heartbeatConnector connector
}

const (
	defaultRefresh   = 5 * time.Second
	defaultHeartbeat = time.Second
	mostLeases       = 1_000_000
)

func (in *input) add(more input) {
	in.clusters = append(in.clusters, more.clusters...)
	in.mirrors = append(in.mirrors, more.mirrors...)
	in.secrets = append(in.secrets, more.secrets...)
	in.targets = append(in.targets, more.targets...)
	in.destinations = append(in.destinations, more.destinations...)
}

// A resolver knows all clusters and makes flows of mirrors.
type resolver struct {
	*report
	clusters   map[string]Cluster
	given      map[string]cluster // the same as they were written
	contested  map[value]value    // settings of Connect's workers that descriptions of a cluster don't agree on
	named      map[string]bool    // by a mirror
	described  map[string][]*cluster
	uses       map[use]settings    // how flows and heartbeats are to log in
	names      map[use]bool        // those that nobody logs in for
	before     map[string]Security // that were read before, by digest of their settings
	logins     map[string]Security // likewise those of this input
	flows      map[string]Flow
	heartbeats map[string]Heartbeat
	places     map[string]value // where a flow or a heartbeat was first described
	limits     Limits           // of mirrors that say nothing about it
}

// mostMirrors bounds the mirrors of all descriptions together: an anchor makes thousands of one.
const mostMirrors = 5_000

// mostNamed bounds the clusters likewise.
const mostNamed = 1_000

// resolve makes clusters, flows and heartbeats of the input.
//
// Logins that were read before are not read again; those that are read or found come into logins, by digest.
func (in *input) resolve(r *report, before, logins map[string]Security) Spec {
	all := resolver{
		report: r, clusters: map[string]Cluster{}, given: map[string]cluster{}, contested: map[value]value{}, named: map[string]bool{},
		flows: map[string]Flow{}, heartbeats: map[string]Heartbeat{}, places: map[string]value{}, limits: in.limits,
		described: map[string][]*cluster{}, uses: map[use]settings{}, names: map[use]bool{}, before: before, logins: logins,
	}
	for i, c := range in.clusters {
		if i == mostNamed {
			all.wrongf(c.alias, "is one of more than %d clusters; let an installation of its own have some of them", mostNamed)
			return Spec{}
		}
		all.cluster(*c)
		all.described[c.alias.text] = append(all.described[c.alias.text], c)
	}
	all.checkServers()
	for i, m := range in.mirrors {
		if i == mostMirrors {
			all.wrongf(m.at, "is one of more than %d mirrors; let an installation of its own have some of them", mostMirrors)
			break
		}
		all.mirror(m)
	}
	all.warnUnused()
	var s Spec
	for _, name := range slices.Sorted(maps.Keys(all.flows)) {
		s.Flows = append(s.Flows, all.flows[name])
	}
	for _, name := range slices.Sorted(maps.Keys(all.heartbeats)) {
		s.Heartbeats = append(s.Heartbeats, all.heartbeats[name])
	}
	all.logIn(&s)
	return s
}

// cluster adds one; another description of it may add to its config, but must name the same servers.
func (r *resolver) cluster(c cluster) {
	alias := c.alias.text
	if !c.free {
		alias = read(r.report, c.alias, parseAlias, "")
	}
	servers := read(r.report, c.servers, parseServers, nil)
	if alias == "" {
		return
	}
	first, twice := r.clusters[alias]
	r.check(c.config, clusterConfigKeys)
	r.checkCluster(c.config)
	if !twice {
		config := settings{} // another description may add to it, which is none of the first one's
		maps.Copy(config, c.config)
		c.config = config
		r.clusters[alias] = Cluster{Alias: alias, BootstrapServers: servers, Config: texts(c.config), references: referencesIn(c.config)}
		r.clusters[alias].refer("bootstrap.servers", c.servers)
		r.given[alias] = c
		return
	}
	if servers != nil && first.BootstrapServers != nil && !sameServers(first.BootstrapServers, servers) {
		r.wrong(c.alias, fmt.Errorf("this alias already stands for %s (%s); give each cluster an alias of its own",
			strings.Join(first.BootstrapServers, ","), r.given[alias].alias.place()))
		return
	}
	given := r.given[alias]
	if first.BootstrapServers == nil && servers != nil {
		first.BootstrapServers, given.servers = servers, c.servers
		r.clusters[alias], r.given[alias] = first, given
		first.refer("bootstrap.servers", c.servers)
	}
	r.mergeConfig(first, given, c)
}

// checkServers names the clusters that no description gives an address.
func (r *resolver) checkServers() {
	for _, alias := range slices.Sorted(maps.Keys(r.given)) {
		if servers := r.given[alias].servers; !servers.set && servers.file != "" { // variables are checked where they are read
			r.wrongf(servers, "is missing; a cluster needs an alias and bootstrapServers")
		}
	}
}

func (r *resolver) mergeConfig(first Cluster, given, more cluster) {
	for key, v := range more.config {
		if clientSecurity.MatchString(key) {
			continue // see described
		}
		switch earlier := given.config[key]; {
		case earlier.set && earlier.text != v.text && workerKeys.has(key):
			r.contested[earlier] = v // wrong only where a mirror's own document doesn't say which
			continue
		case earlier.set && earlier.text != v.text && clusterConfigKeys.has(key):
			r.wrong(v, fmt.Errorf("is %q at %s; give one of them", earlier.shown(), earlier.place()))
			continue
		case earlier.set:
			continue
		}
		given.config[key] = v
		first.Config[key] = v.text
		first.refer(key, v)
	}
}

// refer remembers what a setting was read from.
func (c Cluster) refer(key string, v value) {
	if v.reference != "" {
		c.references[key] = v.reference
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

// mirror adds a flow, or more to one that is there, and a heartbeat.
func (r *resolver) mirror(m mirror) {
	known := r.known(m.source) && r.known(m.target) // both are looked at only to name every mistake
	if m.connect.set && r.known(m.connect) && known {
		r.checkConnect(m)
	}
	r.checkKeys(m)
	flow := r.flow(m)
	heartbeat, beats := r.heartbeat(m)
	if !m.does() || !known || !r.apart(m, flow) || !r.nameable(m, flow) {
		return
	}
	copies := m.sourceConnector.there() || m.checkpointConnector.there()
	if beats || copies {
		r.use(m, sourceSide, !copies)
		r.use(m, targetSide, false)
	}
	if beats {
		r.addHeartbeat(m, heartbeat)
	}
	if copies {
		r.addFlow(m, flow)
	}
}

// does says whether there is anything to do.
func (m mirror) does() bool {
	return m.sourceConnector.there() || m.checkpointConnector.there() || m.heartbeatConnector.there()
}

func (r *resolver) addFlow(m mirror, flow Flow) {
	name := flow.Name()
	first, twice := r.flows[name]
	if !twice {
		r.flows[name], r.places[name] = flow, m.at
		return
	}
	both, difference := first.and(flow)
	if difference != "" {
		r.wrongf(m.at, "%s is already described at %s, with another %s; make them agree, or say all of it in one", name, r.places[name].place(), difference)
		return
	}
	r.flows[name] = both
}

func (r *resolver) addHeartbeat(m mirror, h Heartbeat) {
	name := FlowName(h.Source, h.Target)
	if first, twice := r.heartbeats[name]; twice && first != h {
		r.wrongf(m.heartbeatConnector.at, "%s already has heartbeats at %s, with another interval or replication factor; make them agree", name, r.places["heartbeats "+name].place())
		return
	}
	r.heartbeats[name], r.places["heartbeats "+name] = h, m.heartbeatConnector.at
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

// nameable refuses aliases that become a part of topics' names and can't be one. That of a target does only where offset-syncs are on the
// source.
func (r *resolver) nameable(m mirror, f Flow) bool {
	if !m.sourceConnector.there() && !m.checkpointConnector.there() {
		return true // heartbeats name clusters in their records alone
	}
	if _, err := parseAlias(f.Source); err != nil {
		r.wrong(m.source, err)
		return false
	}
	if _, err := parseAlias(f.Target); err != nil && f.Syncs.Enabled && f.Syncs.OnSource {
		r.wrong(m.target, fmt.Errorf("%w, or set offset-syncs.topic.location to target: on %s their topic would have the alias in its name", err, f.Source))
		return false
	}
	return true
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

// and is what two descriptions of a flow say together, or what they don't agree on. Filters, groups and bounds add up; of a
// part that only one of them has, that one decides.
func (f Flow) and(g Flow) (both Flow, difference string) {
	switch {
	case f.Policy != g.Policy || f.Groups.CheckpointsTopic != g.Groups.CheckpointsTopic:
		return f, "replication policy"
	case f.OffsetsTopic != g.OffsetsTopic || f.OffsetsReplicationFactor != g.OffsetsReplicationFactor:
		return f, "offsets topic"
	case f.ConnectGroup != g.ConnectGroup:
		return f, "group of Connect's workers"
	case f.Syncs.Topic != g.Syncs.Topic || f.Syncs.OnSource != g.Syncs.OnSource || f.Syncs.Enabled != g.Syncs.Enabled:
		return f, "place for offset-syncs"
	}
	groups, difference := f.Groups.and(g.Groups)
	if difference == "" && f.State != Absent && g.State != Absent {
		difference = f.copyingDifference(g)
	}
	switch {
	case difference != "":
		return f, difference
	case g.State == Absent:
		both = f
	case f.State == Absent:
		both = g
	default:
		both = f
		both.Filters = append(f.Filters, g.Filters...) // f is no more
		both.MaxLeases = addLeases(f.MaxLeases, g.MaxLeases)
	}
	both.Groups, both.Given = groups, append(f.Given, g.Given...)
	return both, ""
}

// copyingDifference is about what the sourceConnector says.
func (f Flow) copyingDifference(g Flow) string {
	switch {
	case f.ReplicationFactor != g.ReplicationFactor:
		return "replication factor"
	case f.Start != g.Start:
		return "start"
	case f.Isolation != g.Isolation:
		return "isolation level"
	case f.Refresh != g.Refresh:
		return "refresh interval"
	case f.ConfigExclude.String() != g.ConfigExclude.String():
		return "config.properties.exclude"
	case !f.Limits.equal(g.Limits):
		return "rate limit"
	case !maps.Equal(f.OnHold, g.OnHold):
		return "kferry.on.hold"
	case f.State != g.State:
		return "state"
	case f.Configs != g.Configs:
		return "sync of topic settings"
	case f.ACLs != g.ACLs:
		return "sync of ACLs"
	case f.Syncs != g.Syncs:
		return "replication factor of offset-syncs"
	case f.Heartbeats != g.Heartbeats:
		return "heartbeats.replication.enabled"
	}
	return ""
}

// addLeases adds up two bounds; 0 is none.
func addLeases(a, b int) int {
	if a == 0 || b == 0 {
		return 0
	}
	return a + b
}

func (g Groups) and(h Groups) (both Groups, difference string) {
	switch {
	case h.State == Absent:
		return g, ""
	case g.State == Absent:
		return h, ""
	case g.Exclude.String() != h.Exclude.String():
		return g, "groups.exclude"
	}
	both = g
	both.Include = g.Include.or(h.Include)
	g.Include, g.Exclude, h.Include, h.Exclude = Patterns{}, Patterns{}, Patterns{}, Patterns{}
	if g != h {
		return g, "setting of checkpoints or group offsets"
	}
	return both, ""
}

// warnUnused names clusters that no mirror leads to or from.
func (r *resolver) warnUnused() {
	for _, alias := range slices.Sorted(maps.Keys(r.clusters)) {
		if !r.named[alias] {
			r.warn(r.given[alias].alias, "no mirror uses cluster %s", alias)
		}
	}
}
