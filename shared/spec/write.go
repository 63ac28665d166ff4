package spec

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-multierror"

	"github.com/kferry/kferry/shared/mm2"
)

// This file is the way back: a Spec in another form of input. It writes what differs from what the form says by itself, reads
// the result again, and compares: what doesn't come back as it was can't be said in that form, and is named.

// A Format is a form that Write writes.
type Format string

// The formats.
const (
	StrimziV1  Format = "strimzi-v1" // KafkaMirrorMaker2 in the shape of kafka.strimzi.io/v1
	Properties Format = "properties" // mm2.properties
	Env        Format = "env"        // export NAME='value', for a shell
)

// Formats are all of them.
var Formats = []Format{StrimziV1, Properties, Env}

// Write writes clusters, flows and heartbeats. Warnings name what the format leaves out and nothing depends on; they stand in
// the text as well. The error names everything else that the format can't say. References are written as they were read, never what they
// stand for; secrets that the input holds as they are, only where secrets says so.
func Write(s Spec, to Format, secrets bool) (text string, warnings []string, err error) {
	logins := newLoginWriter(s, secrets)
	switch to {
	case StrimziV1:
		text, warnings = writeStrimzi(s, false, logins), lostHeartbeats(s)
	case Properties:
		if f := slices.IndexFunc(s.Flows, func(f Flow) bool { return f.State == Absent }); f >= 0 {
			return "", nil, fmt.Errorf("%s can't say that %s copies nothing and translates positions all the same", to, s.Flows[f].Name())
		}
		text, warnings = writeProperties(s, logins)
	case Env:
		return writeEnv(s, logins)
	default:
		return "", nil, fmt.Errorf("unknown format %q; give %s", to, orList(Formats))
	}
	if err := logins.err(to); err != nil {
		return "", nil, err
	}
	if err := sameAs(s, text, to != StrimziV1); err != nil {
		return "", nil, fmt.Errorf("%s can't say everything: %w", to, err)
	}
	warnings = append(warnings, logins.leftOut...)
	warnings = append(warnings, beside(s)...)
	return comments(warnings) + text, warnings, nil
}

// beside are the Secrets of the input that what is written refers to.
func beside(s Spec) (all []string) {
	if s.origin == nil {
		return nil
	}
	for _, doc := range s.origin.docs {
		name := strings.TrimPrefix(doc.namespace+"/"+doc.name, "/")
		if slices.ContainsFunc(s.refers, func(r string) bool { return strings.Contains(r, name+":") }) {
			all = append(all, fmt.Sprintf("the Secret or ConfigMap %s, which is referred to; give it beside, or mount it under %s", name, secretsVariable))
		}
	}
	return all
}

func comments(warnings []string) (text string) {
	oneLine := strings.NewReplacer("\n", " ", "\r", " ") // the rest of a value of several would be no comment
	for _, w := range warnings {
		text += "# left out: " + oneLine.Replace(w) + "\n"
	}
	return text
}

// again loads what was written, with what its references lead to.
func (s Spec) again(environ ...string) (Spec, error) {
	from := source{environ: environ}
	if s.origin != nil {
		from = source{environ: slices.Concat(s.origin.environ, environ), lookups: s.origin.lookups, docs: s.origin.docs}
	}
	return from.load()
}

// sameAs reads what was written and names every difference.
func sameAs(s Spec, text string, heartbeats bool) error {
	again, err := s.again("KFERRY_MIRROR=" + text + "\n")
	if err != nil {
		return fmt.Errorf("what would be written is refused: %w", err)
	}
	return differences(s, again, heartbeats)
}

func differences(s, again Spec, heartbeats bool) error {
	all := &multierror.Error{ErrorFormat: func(errs []error) string {
		var lines []string
		for _, err := range errs {
			lines = append(lines, "\n  "+err.Error())
		}
		return strings.Join(lines, "")
	}}
	for _, f := range s.Flows {
		g, there := again.Flow(f.Name())
		if !there {
			all = multierror.Append(all, fmt.Errorf("%s, which copies nothing or whose connectors are %s and %s", f.Name(), f.State, f.Groups.State))
			continue
		}
		idle := f.Groups.idle() && g.Groups.idle()
		if idle {
			g.Groups.State = f.Groups.State
		}
		for _, k := range written {
			if want, got := k.text(f), k.text(g); want != got && !(idle && k.in == translating) {
				all = multierror.Append(all, fmt.Errorf("%s: %s is %q and would be %q", f.Name(), k.key, want, got))
			}
		}
		one, same := joined(f.Filters)
		if !slices.Equal(f.filterTexts(), g.filterTexts()) && !(same && slices.Equal(Flow{Filters: []Filter{one}}.filterTexts(), g.filterTexts())) {
			all = multierror.Append(all, fmt.Errorf("%s: topics are %v and would be %v", f.Name(), f.filterTexts(), g.filterTexts()))
		}
		for _, pair := range [][3]string{
			{"state", string(f.State), string(g.State)}, {"state of the groups' positions", string(f.Groups.State), string(g.Groups.State)},
			{"offsets topic", f.OffsetsTopic, g.OffsetsTopic}, {"group of Connect's workers", f.ConnectGroup, g.ConnectGroup},
			{"replication factor of the offsets topic", number(f.OffsetsReplicationFactor), number(g.OffsetsReplicationFactor)},
			{"connector", f.Connector, g.Connector},
		} {
			if pair[1] != pair[2] {
				all = multierror.Append(all, fmt.Errorf("%s: %s is %q and would be %q", f.Name(), pair[0], pair[1], pair[2]))
			}
		}
	}
	for _, g := range again.Flows {
		if _, there := s.Flow(g.Name()); !there {
			all = multierror.Append(all, fmt.Errorf("%s, which there is not, would be there", g.Name()))
		}
	}
	for _, c := range s.Clusters {
		i := slices.IndexFunc(again.Clusters, func(d Cluster) bool { return c.Key() == d.Key() })
		used := heartbeats || slices.ContainsFunc(s.Flows, func(f Flow) bool { return f.SourceKey() == c.Key() || f.TargetKey() == c.Key() })
		if i < 0 && !used {
			continue
		}
		if i < 0 {
			all = multierror.Append(all, fmt.Errorf("a login for %s", c.Key()))
			continue
		}
		if d := again.Clusters[i]; (c.Login == nil) != (d.Login == nil) || c.Login != nil && !reflect.DeepEqual(c.Login.current, d.Login.current) {
			all = multierror.Append(all, fmt.Errorf("the login to %s is %q and would be %q, or have other secrets", c.Key(), c.Login.Access(), d.Login.Access()))
		}
	}
	for _, lost := range missing(s.refers, again.refers) {
		all = multierror.Append(all, fmt.Errorf("%s, in whose place what it stands for would be written", lost))
	}
	for _, c := range s.Clusters {
		for _, d := range again.Clusters {
			if c.Alias == d.Alias && (!sameServers(c.BootstrapServers, d.BootstrapServers) || !maps.Equal(withoutProviders(c.Config), withoutProviders(d.Config))) {
				all = multierror.Append(all, fmt.Errorf("cluster %s at %v with %v would be at %v with %v", c.Alias, c.BootstrapServers, c.Config, d.BootstrapServers, d.Config))
			}
		}
	}
	if heartbeats && !slices.Equal(s.Heartbeats, again.Heartbeats) {
		all = multierror.Append(all, fmt.Errorf("heartbeats are %v and would be %v", s.Heartbeats, again.Heartbeats))
	}
	return all.ErrorOrNil()
}

// missing are the references that are in some texts and not in others. A Secret may get the namespace of the resource that it is in.
func missing(in, others []string) (all []string) {
	same := func(one string) string {
		if secrets, ok := secretsAt(one); ok {
			return secrets[0].name + ":" + secrets[0].key
		}
		return one
	}
	known := map[string]bool{}
	for _, text := range others {
		for _, one := range reference.FindAllString(text, -1) {
			known[same(one)] = true
		}
	}
	for _, text := range in {
		for _, one := range reference.FindAllString(text, -1) {
			if !known[same(one)] && !slices.Contains(all, one) {
				all = append(all, one)
			}
		}
	}
	return all
}

// idle says whether nothing is done for groups: dedicated mode has no other way to be without a checkpointConnector.
func (g Groups) idle() bool { return g.State == Absent || !g.Checkpoints && !g.Sync }

// part says which connectors a key belongs to.
type part byte

const (
	copying     part = 1
	translating part = 2
)

// written are MirrorMaker's keys and what a flow says under them: flow() the other way round. Filters and what is about
// Connect itself stand elsewhere in every form.
var written = []struct {
	key  string
	in   part
	text func(Flow) string
}{
	{"replication.policy.class", copying | translating, func(f Flow) string { return policyClass(f.Policy) }},
	{"replication.policy.separator", copying | translating, func(f Flow) string { return separatorOf(f.Policy) }},
	{"replication.policy.internal.topic.separator.enabled", copying | translating, func(f Flow) string {
		return strconv.FormatBool(f.Groups.CheckpointsTopic == mm2.CheckpointsTopic(separatorOf(f.Policy), f.Source))
	}},
	{"emit.offset-syncs.enabled", copying | translating, func(f Flow) string { return strconv.FormatBool(f.Syncs.Enabled) }},
	{"offset-syncs.topic.location", copying | translating, func(f Flow) string {
		if f.Syncs.OnSource {
			return "source"
		}
		return "target"
	}},
	{"offset-syncs.topic.replication.factor", copying, func(f Flow) string { return number(f.Syncs.ReplicationFactor) }},
	{"replication.factor", copying, func(f Flow) string { return number(f.ReplicationFactor) }},
	{"tasks.max", copying, func(f Flow) string { return number(f.MaxLeases) }},
	{"consumer.auto.offset.reset", copying, func(f Flow) string { return f.Start.String() }},
	{"consumer.isolation.level", copying, func(f Flow) string { return string(f.Isolation) }},
	{"refresh.topics.interval.seconds", copying, func(f Flow) string { return seconds(f.Refresh) }},
	{"config.properties.exclude", copying, func(f Flow) string { return f.ConfigExclude.String() }},
	{"sync.topic.configs.enabled", copying, func(f Flow) string { return strconv.FormatBool(f.Configs.Enabled) }},
	{"sync.topic.configs.interval.seconds", copying, func(f Flow) string { return seconds(f.Configs.Interval) }},
	{"use.defaults.from", copying, func(f Flow) string {
		if f.Configs.SourceDefaults {
			return "source"
		}
		return "target"
	}},
	{"kferry.sync.topic.configs.overrides", copying, func(f Flow) string {
		if f.Configs.Overrides {
			return "keep"
		}
		return "remove"
	}},
	{"sync.topic.acls.enabled", copying, func(f Flow) string { return strconv.FormatBool(f.ACLs.Enabled) }},
	{"sync.topic.acls.interval.seconds", copying, func(f Flow) string { return seconds(f.ACLs.Interval) }},
	{"kferry.sync.topic.acls.revoke", copying, func(f Flow) string { return strconv.FormatBool(f.ACLs.Revoke) }},
	{"heartbeats.replication.enabled", copying, func(f Flow) string { return strconv.FormatBool(f.Heartbeats) }},
	{"kferry.on.hold", copying, func(f Flow) string { return f.OnHold.String() }},
	{"kferry.rate.bytes", copying, func(f Flow) string { return Bytes(f.Limits.Bytes).String() }},
	{"kferry.rate.records", copying, func(f Flow) string { return number(f.Limits.Records) }},
	{"kferry.rate.bytes.topics", copying, func(f Flow) string {
		return topicLimits(f.Limits.ByBytes, func(n int64) string { return Bytes(n).String() })
	}},
	{"kferry.rate.records.topics", copying, func(f Flow) string { return topicLimits(f.Limits.ByRecords, number) }},
	{"groups", translating, func(f Flow) string { return f.Groups.Include.String() }},
	{"groups.exclude", translating, func(f Flow) string { return f.Groups.Exclude.String() }},
	{"emit.checkpoints.enabled", translating, func(f Flow) string { return strconv.FormatBool(f.Groups.Checkpoints) }},
	{"emit.checkpoints.interval.seconds", translating, func(f Flow) string { return seconds(f.Groups.CheckpointsInterval) }},
	{"checkpoints.topic.replication.factor", translating, func(f Flow) string { return number(f.Groups.CheckpointsReplicationFactor) }},
	{"sync.group.offsets.enabled", translating, func(f Flow) string { return strconv.FormatBool(f.Groups.Sync) }},
	{"sync.group.offsets.interval.seconds", translating, func(f Flow) string { return seconds(f.Groups.SyncInterval) }},
}

// A setting is a key and what it is to be.
type setting struct{ key, text string }

// settingsOf are those of a flow that differ from what the form says by itself.
func settingsOf(f, otherwise Flow, in part) (all []setting) {
	for _, k := range written {
		if k.in&in == 0 || f.State == Absent && k.in == copying || f.Groups.State == Absent && k.in == translating {
			continue
		}
		if text := k.text(f); text != k.text(otherwise) {
			all = append(all, setting{k.key, referenceOf(f.references, k.key, text)})
		}
	}
	return all
}

// silent is the flow that a form makes of a mirror that says nothing.
func silent(form form, f Flow, clusters []Cluster) Flow {
	given := map[string]cluster{}
	for _, c := range clusters {
		config := settings{}
		for key, text := range withoutWorkers(c.Config) { // which are said for each Connect
			config[key] = value{text: text, set: true}
		}
		given[c.Alias] = cluster{config: config}
	}
	all := connector{state: Running, config: settings{}}
	alias := func(text string) value { return value{text: text, set: true} }
	r := resolver{report: &report{}, given: given}
	return r.flow(mirror{
		form: form, source: alias(f.Source), target: alias(f.Target),
		sourceConnector: all, checkpointConnector: all, heartbeatConnector: all,
	})
}

func number[T int | int16 | int64](n T) string { return strconv.FormatInt(int64(n), 10) }

// seconds are whole ones where they can be; what they can't be, no form but variables takes.
func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

func separatorOf(p mm2.Policy) string {
	return strings.TrimSuffix(p.RemoteTopic("", mm2.HeartbeatsTopic), mm2.HeartbeatsTopic)
}

func policyClass(p mm2.Policy) string {
	if _, identity := p.(mm2.IdentityPolicy); identity {
		return mirrorClass + "IdentityReplicationPolicy"
	}
	return mirrorClass + "DefaultReplicationPolicy"
}

func topicLimits(limits []TopicLimit, text func(int64) string) string {
	var all []string
	for _, l := range limits {
		all = append(all, l.Topics.String()+"="+text(l.PerSecond))
	}
	return strings.Join(all, ",")
}

func withoutWorkers(config map[string]string) map[string]string {
	config = maps.Clone(config)
	maps.DeleteFunc(config, func(key, _ string) bool { return workerName(key) || key == protocolKey })
	return config
}

// withoutProviders are those that matter once references are read: how they are spelt out may differ.
func withoutProviders(config map[string]string) map[string]string {
	config = withoutWorkers(config)
	maps.DeleteFunc(config, func(key, _ string) bool { return strings.HasPrefix(key, providersKey) })
	return config
}

// workerName says whether a setting of a cluster is about Connect's workers there and has a place of its own.
func workerName(key string) bool {
	return slices.Contains([]string{"offset.storage.topic", "offset.storage.replication.factor", "group.id", "config.storage.topic", "status.storage.topic"}, key)
}

// lostHeartbeats are those that are written; the v1 shape has no connector for them.
func lostHeartbeats(s Spec) (lost []string) {
	for _, h := range s.Heartbeats {
		lost = append(lost, fmt.Sprintf("heartbeats %s every %s, which have no place in the v1 shape", FlowName(h.Source, h.Target), h.Interval))
	}
	return lost
}

// writeEnv takes plain variables where they say everything, else the text of a resource in one.
func writeEnv(s Spec, logins *loginWriter) (string, []string, error) {
	if environ, withheld, ok := plainVariables(s, logins.literal); ok {
		if again, err := s.again(slices.Concat(environ, withheld)...); err == nil && differences(s, again, true) == nil {
			var warnings []string
			for _, entry := range withheld {
				name, _, _ := strings.Cut(entry, "=")
				warnings = append(warnings, name+", which holds a secret and stays as it is set; --show-secrets writes it too")
			}
			warnings = append(warnings, beside(s)...)
			return comments(warnings) + exports(environ), warnings, nil
		}
	}
	text := writeStrimzi(s, true, logins)
	if err := logins.err(Env); err != nil {
		return "", nil, err
	}
	if err := sameAs(s, text, true); err != nil {
		return "", nil, fmt.Errorf("%s can't say everything: %w", Env, err)
	}
	warnings := beside(s)
	return comments(warnings) + exports([]string{"KFERRY_MIRROR=" + text}), warnings, nil
}

// plainVariables are those of the one flow there is, and those that hold secrets and are not to be written; false where there is more to say.
func plainVariables(s Spec, secrets bool) (environ, withheld []string, ok bool) {
	if len(s.Flows) != 1 || len(s.Heartbeats) > 1 {
		return nil, nil, false
	}
	f := s.Flows[0]
	source, target := s.Cluster(f.SourceKey()), s.Cluster(f.TargetKey())
	servers := func(c Cluster) string {
		return referenceOf(c.references, "bootstrap.servers", strings.Join(c.BootstrapServers, ","))
	}
	environ = []string{
		"KFERRY_SOURCE_ALIAS=" + f.Source, "KFERRY_SOURCE_BOOTSTRAP_SERVERS=" + servers(source),
		"KFERRY_TARGET_ALIAS=" + f.Target, "KFERRY_TARGET_BOOTSTRAP_SERVERS=" + servers(target),
	}
	least, err := s.again(environ...)
	if err != nil || len(f.Filters) != 1 {
		return nil, nil, false
	}
	for prefix, c := range map[string]Cluster{sourcePrefix: source, targetPrefix: target} {
		written, kept, ok := loginEntries(prefix, c, secrets)
		if !ok {
			return nil, nil, false
		}
		environ, withheld = append(environ, written...), append(withheld, kept...)
	}
	slices.Sort(environ[4:])
	otherwise := least.Flows[0]
	say := func(name, text, unless string) {
		if text != unless {
			environ = append(environ, name+"="+text)
		}
	}
	filter := f.Filters[0]
	say("KFERRY_TOPICS", filter.text("topics", filter.Topics), otherwise.Filters[0].Topics.String())
	say("KFERRY_TOPICS_EXCLUDE", filter.text("topics.exclude", filter.Exclude), otherwise.Filters[0].Exclude.String())
	say("KFERRY_OFFSETS_REPLICATION_FACTOR", number(f.OffsetsReplicationFactor), number(otherwise.OffsetsReplicationFactor))
	say("KFERRY_HEARTBEATS", strconv.FormatBool(len(s.Heartbeats) > 0), "true")
	for _, k := range written {
		text := k.text(f)
		switch name := cmp.Or(plainKeys[k.key], limitKeys[k.key]); name {
		case "KFERRY_REFRESH":
			say(name, referenceOf(f.references, k.key, f.Refresh.String()), otherwise.Refresh.String())
		case "KFERRY_REPLICATION_POLICY":
			say(name, referenceOf(f.references, k.key, f.Policy.String()), otherwise.Policy.String())
		case "", "KFERRY_OFFSETS_REPLICATION_FACTOR":
		default:
			say(name, referenceOf(f.references, k.key, text), k.text(otherwise))
		}
	}
	return environ, withheld, true
}

func exports(environ []string) (text string) {
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		text += "export " + name + "='" + strings.ReplaceAll(value, "'", `'\''`) + "'\n"
	}
	return text
}

// byConnect groups flows that one Connect would run: into one cluster, with the same names.
func byConnect(flows []Flow) [][]Flow {
	var groups [][]Flow
	for _, f := range flows {
		i := slices.IndexFunc(groups, func(g []Flow) bool {
			return g[0].TargetKey() == f.TargetKey() && g[0].OffsetsTopic == f.OffsetsTopic && g[0].ConnectGroup == f.ConnectGroup &&
				g[0].OffsetsReplicationFactor == f.OffsetsReplicationFactor
		})
		if i < 0 {
			groups = append(groups, []Flow{f})
			continue
		}
		groups[i] = append(groups[i], f)
	}
	slices.SortStableFunc(groups, func(a, b []Flow) int { return cmp.Compare(a[0].Target, b[0].Target) })
	return groups
}
