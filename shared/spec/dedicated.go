package spec

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// This file reads mm2.properties, the file of MirrorMaker's own driver (connect-mirror-maker.sh), by its rules:
//
//   - clusters lists the aliases. ALIAS.key is a cluster's, A->B.key a flow's, and a flow is on only where A->B.enabled is true.
//   - What a flow's connectors are told is, later ones winning: at the top those keys that a connector defines; the clusters'
//     client settings, as source.cluster.*, target.cluster.*, source.consumer.* and so on; A->B.key.
//   - What Connect's workers are told (where offsets are kept) is the target's, and at the top wins over it.
//   - Every other key at the top does nothing, whatever one may expect.
//   - Heartbeats are written between every two clusters, in both directions, unless emit.heartbeats.enabled is false: at the
//     top, or for one direction.

// A dedicatedReader turns one file into input.
type dedicatedReader struct {
	*report
	entries properties
	all     settings            // by key
	aliases []string            // the longest first: an alias may hold dots, and begin like another
	owned   map[string]settings // by the prefix of their owner, and without it
	used    map[string]bool     // those at the top that do something
}

// isDedicated tells mm2.properties from YAML by what is in it: "clusters: a, b" could be either.
func isDedicated(text []byte) bool {
	for _, l := range logicalLines(latin1(text)) {
		key, raw := l.split()
		switch {
		case propertiesLine.MatchString(l.text), strings.Contains(key, "->"), strings.HasSuffix(key, ".bootstrap.servers"):
			return true
		case key == "clusters":
			return raw != "" && raw[0] != '[' && raw[0] != '#'
		case yamlLine.MatchString(l.text):
			return false
		}
	}
	return false
}

// propertiesLine is one that YAML doesn't have.
var propertiesLine = regexp.MustCompile(`^[\w.>-]+\s*=`)

// yamlLine begins a document.
var yamlLine = regexp.MustCompile(`^(apiVersion|kind|metadata|spec|items|mirrors|target|alias|authentication|tls|config):|^(-|[{%])`)

// mostClusters bounds what lists every pair of them.
const mostClusters = 100

// mostKeys bounds what each is looked for among the known ones.
const mostKeys = 20_000

func readDedicated(file string, text []byte, r *report) input {
	d := dedicatedReader{report: r, all: settings{}, owned: map[string]settings{}, used: map[string]bool{}}
	d.entries = readProperties(file, latin1(text), r)
	if len(d.entries) > mostKeys {
		r.wrongf(d.entries[mostKeys].value, "comes after %d others, as many as are read; leave out what has no effect", mostKeys)
		return input{}
	}
	for _, entry := range d.entries {
		entry.text = strings.TrimSpace(entry.text) // as Kafka does with every value
		d.all[entry.path] = entry.value
	}
	list := d.take("clusters")
	if !list.set {
		r.wrongf(value{file: file, line: 1, path: "clusters"}, "is missing; list the clusters' aliases, like clusters = a, b")
		return input{}
	}
	d.aliases = splitList(list.text)
	if len(d.aliases) == 0 {
		r.wrong(list, errors.New("names no cluster; list the clusters' aliases, like a, b"))
	}
	if len(d.aliases) > mostClusters {
		r.wrongf(list, "names more than %d clusters; give a file to each part", mostClusters)
		return input{}
	}
	slices.SortFunc(d.aliases, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	if distinct := slices.Compact(slices.Clone(d.aliases)); len(distinct) < len(d.aliases) {
		d.warn(list, "an alias is named twice; it is one cluster all the same")
		d.aliases = distinct
	}
	if len(splitList(list.text)) > 0 && len(d.aliases) == 1 {
		r.wrongf(list, "names one cluster, %s; to copy takes two, like a, b", d.aliases[0])
		return input{}
	}
	for key, v := range d.all {
		owner := d.owner(key)
		if d.owned[owner] == nil {
			d.owned[owner] = settings{}
		}
		d.owned[owner][strings.TrimPrefix(key, owner)] = v
	}
	in := d.input(list)
	d.warnDead()
	d.warnComments()
	d.warnBackslashes()
	return in
}

func (d *dedicatedReader) input(list value) input {
	var in input
	aliases := slices.Sorted(slices.Values(d.aliases))
	for _, alias := range aliases {
		in.clusters = append(in.clusters, d.cluster(list, alias))
	}
	for _, source := range aliases {
		for _, target := range aliases {
			if source == target {
				continue
			}
			if m := d.mirror(list, source, target); m.does() {
				in.mirrors = append(in.mirrors, m)
			}
		}
	}
	return in
}

func (d *dedicatedReader) take(key string) value {
	d.used[key] = true
	return d.all[key]
}

// owner is the prefix that a key belongs to: that of a flow or a cluster, or "".
func (d *dedicatedReader) owner(key string) string {
	for _, source := range d.aliases {
		rest, found := strings.CutPrefix(key, source+"->")
		if !found {
			continue
		}
		for _, target := range d.aliases {
			if strings.HasPrefix(rest, target+".") {
				return FlowName(source, target) + "."
			}
		}
	}
	for _, alias := range d.aliases {
		if strings.HasPrefix(key, alias+".") {
			return alias + "."
		}
	}
	return ""
}

// top are the settings at the top whose keys are of some kind.
func (d *dedicatedReader) top(is func(key string) bool) settings {
	found := settings{}
	for key, v := range d.owned[""] {
		if is(key) {
			found[key] = v
			d.used[key] = true
		}
	}
	return found
}

// clientKey finds what every client of a cluster is told, and what is told to all clusters where it stands at the top.
var clientKey = regexp.MustCompile(`^(bootstrap\.servers|security\.protocol|(ssl|sasl)\..*)$`)

// isWorkerKey says whether Connect's workers are told of a key at the top, and nobody else.
func isWorkerKey(key string) bool { return workerKey.MatchString(key) && !sourceKeys.has(key) }

var workerKey = regexp.MustCompile(`^((offset|config|status)\.storage|(key|value|header)\.converter|task|worker|config\.providers)`)

// cluster is that of an alias, with what Connect's workers are told where it is the target.
func (d *dedicatedReader) cluster(list value, alias string) *cluster {
	config := d.top(clientKey.MatchString)
	config.override(d.owned[alias+"."])
	maps.Copy(config, d.top(isWorkerKey))
	servers, missing := config["bootstrap.servers"], list
	if !servers.set {
		missing.path = alias + ".bootstrap.servers"
		d.wrongf(missing, "is missing; give the cluster's addresses, host:port")
	}
	delete(config, "bootstrap.servers")
	list.text = alias
	return &cluster{alias: list, servers: servers, config: config, free: true}
}

// mirror is what is done from one cluster to another. Without the flow, only heartbeats may be left of it.
func (d *dedicatedReader) mirror(list value, source, target string) mirror {
	own := d.owned[FlowName(source, target)+"."]
	m := mirror{form: dedicated, at: list, source: list, target: list}
	m.source.text, m.target.text = source, target
	config := d.connectors(source, target, own)
	beats := config["emit.heartbeats.enabled"]
	if on := read(d.report, own["enabled"], parseJavaBool, own["enabled"].set); on {
		m.at = own["enabled"]
		all := connector{at: m.at, state: Running, config: config}
		m.sourceConnector, m.checkpointConnector, m.heartbeatConnector = all, all, all
		return m
	}
	m.warnOff(d.report, own)
	if read(d.report, beats, parseBool, true) {
		m.heartbeatConnector = connector{at: cmp.Or(beats, list), state: Running, config: heartbeatSettings(config)}
	}
	return m
}

// warnOff names a flow that has settings and isn't on, unless that is said.
func (m mirror) warnOff(r *report, own settings) {
	if own["enabled"].set || len(own) == 0 || len(own) == 1 && own["emit.heartbeats.enabled"].set {
		return
	}
	first := slices.MinFunc(slices.Collect(maps.Values(own)), func(a, b value) int { return cmp.Compare(a.line, b.line) })
	name := FlowName(m.source.text, m.target.text)
	r.warn(first, "copies nothing: a flow is on only with %s.enabled = true", name)
}

// heartbeatSettings are the few of a flow's that count where nothing is copied.
func heartbeatSettings(config settings) settings {
	few := settings{}
	for key, v := range config {
		if heartbeatKeys.has(key) || securityKey.MatchString(key) {
			few[key] = v
		}
	}
	return few
}

// connectors is what the three connectors of a flow are told, all of them alike.
func (d *dedicatedReader) connectors(source, target string, own settings) settings {
	config := d.top(isConnectorKey)
	for _, side := range []struct{ name, alias string }{{"source", source}, {"target", target}} {
		cluster := d.top(clientKey.MatchString)
		cluster.override(d.owned[side.alias+"."])
		for key, v := range cluster {
			switch {
			case clientKey.MatchString(key):
				config[side.name+".cluster."+key] = v
			case clientPrefix.MatchString(key):
				config[side.name+"."+key] = v
			}
		}
	}
	maps.Copy(config, own)
	return config
}

var clientPrefix = regexp.MustCompile(`^(producer|consumer|admin)\.`)

// connectorKeyNames are those that MirrorMaker's connectors define, from 2.4 to 4.3, and kferry's own. Security is left to clientKey.
var connectorKeyNames = strings.Fields(`
	add.source.alias.to.metrics admin.timeout.ms checkpoints.topic.replication.factor config.action.reload config.properties.blacklist
	config.properties.exclude config.property.filter.class connector.class connector.plugin.version consumer.poll.timeout.ms
	emit.checkpoints.enabled emit.checkpoints.interval.seconds emit.heartbeats.enabled emit.heartbeats.interval.seconds
	emit.offset-syncs.enabled enabled errors.log.enable errors.log.include.messages errors.retry.delay.max.ms errors.retry.timeout
	errors.tolerance forwarding.admin.class group.filter.class groups groups.blacklist groups.exclude header.converter
	header.converter.plugin.version heartbeats.replication.enabled heartbeats.topic.replication.factor key.converter
	key.converter.plugin.version metric.names.formats metric.reporters name offset-syncs.topic.location
	offset-syncs.topic.replication.factor offset.lag.max predicates refresh.groups.enabled refresh.groups.interval.seconds
	refresh.topics.enabled refresh.topics.interval.seconds replication.factor replication.policy.class
	replication.policy.internal.topic.separator.enabled replication.policy.separator source.cluster.alias sync.group.offsets.enabled
	sync.group.offsets.interval.seconds sync.topic.acls.enabled sync.topic.acls.interval.seconds sync.topic.configs.enabled
	sync.topic.configs.interval.seconds target.cluster.alias tasks.max tasks.max.enforce topic.filter.class topics topics.blacklist
	topics.exclude transforms use.incremental.alter.configs value.converter value.converter.plugin.version
	kferry.on.hold kferry.rate.bytes kferry.rate.records kferry.rate.bytes.topics kferry.rate.records.topics
	kferry.sync.topic.configs.overrides kferry.sync.topic.acls.revoke`)

func isConnectorKey(key string) bool {
	return slices.Contains(connectorKeyNames, key) || strings.HasPrefix(key, "replication.policy") ||
		strings.HasPrefix(key, providersKey)
}

// driverKey finds what MirrorMaker's driver itself is told.
var driverKey = regexp.MustCompile(`^(dedicated\.mode\.enable\.internal\.rest$|listeners|rest\.|admin\.listeners|response\.http\.|inter\.worker\.|plugin\.)`)

// warnDead names keys that do nothing in MirrorMaker either, and what would.
func (d *dedicatedReader) warnDead() {
	for _, entry := range d.entries {
		key := entry.path
		if d.used[key] || d.owner(key) != "" {
			continue
		}
		d.pass(d.all[key], d.instead(key))
	}
}

// arrows are what people write between two aliases.
var arrows = []string{"->", "-", "=>", ">", "-->"}

// cutPrefixFold is strings.CutPrefix for letters of any case.
func cutPrefixFold(text, prefix string) (rest string, found bool) {
	if len(text) < len(prefix) || !strings.EqualFold(text[:len(prefix)], prefix) {
		return text, false
	}
	return text[len(prefix):], true
}

// flowLike is the beginning of a flow's keys that a key comes close to: with another arrow, in other letters (a->B), or as Java reads
// "A -> B.topics" and "A=>B.topics", whose key is "A".
func (d *dedicatedReader) flowLike(key string) string {
	for _, source := range d.aliases {
		if key == source {
			return source + "->…"
		}
		rest, begins := cutPrefixFold(key, source)
		for _, arrow := range arrows {
			rest, follows := strings.CutPrefix(rest, arrow)
			if !begins || !follows {
				continue
			}
			for _, target := range d.aliases {
				if _, leads := cutPrefixFold(rest, target+"."); leads && source != target {
					return FlowName(source, target) + "."
				}
			}
		}
	}
	return ""
}

// instead is what would do what a dead key is meant to.
func (d *dedicatedReader) instead(key string) string {
	source, target, found := strings.Cut(key, "->")
	target, _, _ = strings.Cut(target, ".")
	client, rest, _ := strings.Cut(key, ".")
	flow, wanted := FlowName("SOURCE", "TARGET"), ""
	if close := d.flowLike(key); close != "" {
		return fmt.Sprintf("%s %s? A flow's keys begin so, without blanks", didYouMean, close)
	}
	if found {
		return fmt.Sprintf("%s and %s are not both in clusters", source, target)
	}
	if alias, ok := strings.CutSuffix(key, ".bootstrap.servers"); ok {
		return alias + " is not in clusters"
	}
	switch {
	case driverKey.MatchString(key):
		return "kferry's processes need no REST among themselves"
	case client == "producer":
		wanted = "TARGET." + key
	case client == "consumer" || client == "admin":
		wanted = "SOURCE." + key
	case sourceKeys.has(key) || checkpointKeys.has(key):
		wanted = flow + "." + key
	case clusterConfigKeys.has(key):
		wanted = "TARGET." + key
	case rest != "":
		if close := suggest(client, d.aliases); close != "" {
			return strings.TrimPrefix(close, "; ")
		}
		return strings.TrimPrefix(suggest(key, connectorKeyNames), "; ")
	}
	if wanted != "" {
		return fmt.Sprintf("MirrorMaker ignores it at the top too; write %s", wanted)
	}
	return strings.TrimPrefix(suggest(key, connectorKeyNames), "; ")
}

var inlineComment = regexp.MustCompile(`(^|\s)#`)

// warnComments names values that end in what was meant for a comment.
func (d *dedicatedReader) warnComments() {
	for _, entry := range d.entries {
		if inlineComment.MatchString(entry.text) {
			d.warn(entry.value, "the # and what follows are part of the value: a comment stands on a line of its own")
		}
	}
}

// patternKey finds settings that hold regular expressions.
var patternKey = regexp.MustCompile(`(^|[.>])(topics|groups|config\.properties|topics\.exclude|topics\.blacklist|groups\.exclude|groups\.blacklist|config\.properties\.exclude|config\.properties\.blacklist)$`)

// warnBackslashes names patterns that mean something else since Java takes a single backslash away.
func (d *dedicatedReader) warnBackslashes() {
	for _, entry := range d.entries {
		if !patternKey.MatchString(entry.path) {
			continue
		}
		if lost := lostBackslash(entry.raw); lost != "" {
			d.warn(entry.value, `Java drops a single backslash, so %s is read as %s; write \%s`, lost, lost[1:], lost)
		}
	}
}

// lostBackslash is the first escape in a pattern that means something else without its backslash, or "".
func lostBackslash(raw string) string {
	inClass := false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == '[':
			inClass = true
		case c == ']':
			inClass = false
		case c == '\\' && i+1 < len(raw):
			i++
			if next := raw[i]; !strings.ContainsRune(`\tnrfu:=#! _`, rune(next)) && !(inClass && harmless(raw, i)) {
				return raw[i-1 : i+1]
			}
		}
	}
	return ""
}

// harmless says whether a character in a class needs no backslash: "-" doesn't beside a bracket or another escape.
func harmless(raw string, i int) bool {
	if raw[i] == '-' {
		return raw[i-2] == '[' || i+1 == len(raw) || strings.IndexByte(`]\`, raw[i+1]) >= 0
	}
	return strings.IndexByte("[]^&", raw[i]) < 0 && !isAlphanumeric(rune(raw[i]))
}
