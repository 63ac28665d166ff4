package spec

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf16"
)

// writeProperties writes mm2.properties. Beside the text it names what the driver behind such a file has no key for, and
// nothing that is copied depends on.
func writeProperties(s Spec, logins *loginWriter) (string, []string) {
	w := propertiesWriter{spec: s, logins: logins}
	var aliases []string
	for _, c := range s.Clusters {
		if c.Flow == "" {
			aliases = append(aliases, c.Alias)
		}
	}
	w.set("clusters", strings.Join(aliases, ", "))
	for _, c := range s.Clusters {
		if c.Flow == "" {
			w.cluster(c)
		}
	}
	for _, f := range s.Flows {
		w.flow(f)
	}
	w.heartbeats()
	return w.providers() + w.text.String(), w.leftOut
}

// providers declares those of references that MirrorMaker knows only where they are declared; kferry knows them all the same.
func (w *propertiesWriter) providers() string {
	for _, c := range w.spec.Clusters {
		if c.Config[providersKey] != "" {
			return "" // they are declared there
		}
	}
	classes := map[string]string{}
	for _, found := range reference.FindAllStringSubmatch(w.text.String(), -1) {
		if class, known := wellKnownClasses[found[1]]; known {
			classes[found[1]] = class
		}
		if class := wellKnownClasses[found[1]]; class == secretClass && isGlob(found[3]) {
			w.logins.leaveOut("a word of MirrorMaker's for %s: it knows no patterns of keys", found[0])
		}
	}
	if len(classes) == 0 {
		return ""
	}
	names := slices.Sorted(maps.Keys(classes))
	declared := propertiesWriter{}
	declared.set(providersKey, strings.Join(names, ","))
	for _, name := range names {
		declared.set(providersKey+"."+name+".class", classes[name])
	}
	return declared.text.String()
}

type propertiesWriter struct {
	spec    Spec
	logins  *loginWriter
	text    strings.Builder
	leftOut []string
}

func (w *propertiesWriter) set(key, text string) {
	fmt.Fprintf(&w.text, "%s = %s\n", escapeKey(key), escapeValue(text))
}

func (w *propertiesWriter) cluster(c Cluster) {
	w.set(c.Alias+".bootstrap.servers", referenceOf(c.references, "bootstrap.servers", strings.Join(c.BootstrapServers, ",")))
	for _, s := range sorted(c) {
		w.set(c.Alias+"."+s.key, s.text)
	}
	if !w.logins.apart[c.Alias] {
		w.login(c.Alias+".", c)
	}
	into := slices.DeleteFunc(slices.Clone(w.spec.Flows), func(f Flow) bool { return f.Target != c.Alias })
	if len(into) == 0 {
		return
	}
	// All flows into a cluster share what is said of its workers.
	first := into[0]
	if first.OffsetsReplicationFactor != -1 {
		w.set(c.Alias+".offset.storage.replication.factor", number(first.OffsetsReplicationFactor))
	}
	same := !slices.ContainsFunc(into, func(f Flow) bool { return f.ConnectGroup != first.ConnectGroup })
	if same && first.ConnectGroup != silent(dedicated, first, nil).ConnectGroup {
		w.set(c.Alias+".group.id", referenceOf(first.references, "group.id", first.ConnectGroup))
	}
}

func (w *propertiesWriter) login(prefix string, c Cluster) {
	all := w.logins.settingsFor(c)
	if c.Login == nil && w.logins.apart[c.Alias] {
		all[protocolKey] = "PLAINTEXT"
	}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		w.set(prefix+key, all[key])
	}
}

// logIn writes the logins of a flow where others have others.
func (w *propertiesWriter) logIn(flow string, source, target Cluster) {
	if w.logins.apart[source.Alias] {
		w.login(flow+".source.cluster.", source)
	}
	if w.logins.apart[target.Alias] {
		w.login(flow+".target.cluster.", target)
	}
}

func (w *propertiesWriter) flow(f Flow) {
	otherwise := silent(dedicated, f, w.spec.Clusters)
	set := func(key, text string) { w.set(f.Name()+"."+key, text) }
	fmt.Fprintln(&w.text)
	set("enabled", fmt.Sprint(f.State != Absent))
	w.logIn(f.Name(), w.spec.Cluster(f.SourceKey()), w.spec.Cluster(f.TargetKey()))
	filter, same := joined(f.Filters)
	if same && len(f.Filters) > 1 {
		w.leftOut = append(w.leftOut, fmt.Sprintf("that %s has %d lists of topics; one lets the same pass", f.Name(), len(f.Filters)))
	}
	w.filter(f.Name()+".", filter, otherwise.Filters[0])
	if f.OffsetsTopic != otherwise.OffsetsTopic {
		set("offsets.storage.topic", referenceOf(f.references, "offset.storage.topic", f.OffsetsTopic))
	}
	if f.Connector != otherwise.Connector {
		set("kferry.connector", f.Connector)
	}
	for _, s := range settingsOf(f, otherwise, copying|translating) {
		if strings.HasPrefix(s.key, "consumer.") {
			s.key = "source." + s.key // else what is said of the source's consumers would win
		}
		set(s.key, s.text)
	}
	if f.Groups.State == Absent {
		set("emit.checkpoints.enabled", "false")
	}
}

// joined is one filter that lets the same pass as several that leave out the same; false where they don't.
func joined(filters []Filter) (all Filter, same bool) {
	all = filters[0]
	for _, f := range filters[1:] {
		if f.Exclude.String() != all.Exclude.String() {
			return filters[0], false
		}
		all.Topics, all.references = all.Topics.or(f.Topics), nil
	}
	return all, true
}

func (w *propertiesWriter) filter(prefix string, f, otherwise Filter) {
	if f.Topics.String() != otherwise.Topics.String() {
		w.set(prefix+"topics", f.text("topics", f.Topics))
	}
	if f.Exclude.String() != otherwise.Exclude.String() {
		w.set(prefix+"topics.exclude", f.text("topics.exclude", f.Exclude))
	}
}

// heartbeats are written between all pairs of clusters unless the file says otherwise.
func (w *propertiesWriter) heartbeats() {
	fmt.Fprintln(&w.text)
	clusters := len(w.logins.apart)
	pairs := clusters * (clusters - 1)
	if len(w.spec.Heartbeats) < pairs {
		w.set("emit.heartbeats.enabled", "false")
	}
	for _, h := range w.spec.Heartbeats {
		name := FlowName(h.Source, h.Target) + "."
		if len(w.spec.Heartbeats) < pairs {
			w.set(name+"emit.heartbeats.enabled", "true")
		}
		if _, flows := w.spec.Flow(FlowName(h.Source, h.Target)); !flows {
			w.logIn(FlowName(h.Source, h.Target), w.spec.Cluster(h.Source), w.spec.Cluster(h.TargetKey()))
		}
		if h.Interval != defaultHeartbeat {
			w.set(name+"emit.heartbeats.interval.seconds", seconds(h.Interval))
		}
		if h.ReplicationFactor != -1 {
			w.set(name+"heartbeats.topic.replication.factor", number(h.ReplicationFactor))
		}
	}
}

func escapeKey(key string) string {
	return strings.NewReplacer(" ", `\ `, "=", `\=`, ":", `\:`, "#", `\#`, "!", `\!`).Replace(escapeAll(key))
}

// escapeValue keeps blanks at the beginning, where java.util.Properties would pass over them.
func escapeValue(text string) string {
	if strings.HasPrefix(text, " ") {
		return `\` + escapeAll(text)
	}
	return escapeAll(text)
}

// escapeAll writes what a file of ISO-8859-1 can't hold, and what would end a line.
func escapeAll(text string) string {
	var b strings.Builder
	for _, c := range text {
		switch {
		case c == '\\':
			b.WriteString(`\\`)
		case c == '\t':
			b.WriteString(`\t`)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\r':
			b.WriteString(`\r`)
		case c == '\f':
			b.WriteString(`\f`)
		case ' ' <= c && c <= '~':
			b.WriteRune(c)
		case c > 0xFFFF:
			high, low := utf16.EncodeRune(c)
			fmt.Fprintf(&b, `\u%04X\u%04X`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04X`, c)
		}
	}
	return b.String()
}
