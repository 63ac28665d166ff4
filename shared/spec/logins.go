package spec

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// This file decides how a flow logs in on either side, out of Kafka's client properties by MirrorMaker's rules. What counts, later ones
// winning:
//
//   - what is said of the cluster, in the mirror's own document or else in others;
//   - source.cluster.* or target.cluster.* of the connectors;
//   - consumer.*, producer.* and admin.*, then source.consumer.* and so on.
//
// MirrorMaker has a client for each of these; kferry has one login for all that a flow does on one side, so they have to agree.

// A side is one end of a flow.
type side string

const (
	sourceSide side = "source"
	targetSide side = "target"
)

func (m mirror) alias(s side) value {
	if s == sourceSide {
		return m.source
	}
	return m.target
}

// own is the cluster on a side as the mirror's own document describes it, nil where it doesn't.
func (m mirror) own(s side) *cluster {
	if s == sourceSide {
		return m.sourceCluster
	}
	return m.targetCluster
}

// clientSecurity finds the client properties that say how a cluster is spoken to, and as whom.
var clientSecurity = regexp.MustCompile(`^(security|ssl|sasl)\.`)

// securityIn are those behind a prefix.
func securityIn(config settings, prefix string) settings {
	found := settings{}
	for key, v := range config {
		if rest, ok := strings.CutPrefix(key, prefix); ok && v.set && clientSecurity.MatchString(rest) {
			found[rest] = v
		}
	}
	return found
}

const protocolKey = "security.protocol"

// group is what belongs together in a cluster's security: of whom one trusts another description may say more, whom one is has to be
// said in one.
func group(key string) string {
	switch {
	case strings.HasPrefix(key, "sasl."), strings.HasPrefix(key, "ssl.keystore."), strings.HasPrefix(key, "ssl.key."):
		return "login"
	case strings.HasPrefix(key, "ssl."):
		return "trust"
	}
	return "protocol"
}

// said are the settings of a description, by group. Blocks without settings are in it too: tls: {} trusts the system's roots.
func (c *cluster) said() map[string]settings {
	all := map[string]settings{"login": {}, "trust": {}, "protocol": {}}
	for key, v := range securityIn(c.config, "") {
		all[group(key)][key] = v
	}
	for name, v := range map[string]value{"tls": c.tls, "authentication": c.authentication, "sasl": c.sasl} {
		switch {
		case !v.set:
		case name == "tls":
			all["trust"][name] = v
		default:
			all["login"][name] = v
		}
	}
	return all
}

// blocks are the keys in said that are no client properties.
var blocks = []string{"tls", "authentication", "sasl"}

// describedSecurity is what descriptions say of a cluster: that of the mirror with the fragments that add to it, or where it says nothing
// of it, the others. Where they don't agree there is a mistake, unless the mirror says all of it in other words.
func (r *resolver) describedSecurity(alias string, own *cluster, decided bool) settings {
	first := map[string]settings{"login": {}, "trust": {}, "protocol": {}}
	decides := false
	if own != nil {
		first = own.said()
		decides = len(first["login"])+len(first["trust"])+len(first["protocol"]) > 0
	}
	for _, c := range r.described[alias] {
		if c == own || decides && !c.fragment { // others' word is about others' mirrors
			continue
		}
		said := c.said()
		for _, name := range slices.Sorted(maps.Keys(said)) {
			more := said[name]
			conflict, at := differing(first[name], more, name)
			switch {
			case conflict == "":
				maps.Copy(first[name], more)
			case !decided:
				here := more[conflict]
				if here.path == "" { // what is missing there has been reported
					continue
				}
				r.wrongf(here.bare(), "is not as at %s; say it in one place, or in the document of the mirrors that it is for", at.place())
			}
		}
	}
	all := settings{}
	for _, some := range first {
		maps.Copy(all, some)
	}
	return all
}

// differing is a key that two descriptions don't agree on, and where the first one says so. A login is either the same or another one.
func differing(first, more settings, group string) (key string, at value) {
	for _, key := range slices.Sorted(maps.Keys(more)) {
		switch earlier, said := first[key]; {
		case said && earlier.text != more[key].text && key != "tls":
			return key, earlier
		case !said && group == "login" && len(first) > 0:
			return key, first[slices.Sorted(maps.Keys(first))[0]]
		}
	}
	return "", value{}
}

// clients are MirrorMaker's, by the side that each is for where a setting doesn't say.
var clients = []struct {
	name  string
	sides []side
}{{"consumer", []side{sourceSide}}, {"producer", []side{targetSide}}, {"admin", []side{sourceSide, targetSide}}}

// overrides are what a mirror's connectors say about the login on a side, and where one of its clients has no word of its own.
func (r *resolver) overrides(m mirror, s side) settings {
	all := settings{}
	described := m.own(s)
	if described == nil {
		given := r.given[m.alias(s).text]
		described = &given
	}
	parts := []connector{m.sourceConnector, m.checkpointConnector}
	if s == targetSide {
		parts = append(parts, m.heartbeatConnector)
	}
	var silent []connector
	for _, c := range parts {
		if !c.there() {
			continue
		}
		own := securityIn(c.config, string(s)+".cluster.")
		own.override(r.clientOverrides(s, described.config, c.config))
		if len(own) == 0 {
			silent = append(silent, c)
		}
		r.join(all, own, fmt.Sprintf("kferry logs in to %s once for all that a flow does there, so give one of them", m.alias(s).text))
	}
	if len(all) > 0 && m.form == resource {
		for _, c := range silent {
			r.warn(c.at, "%s is not given here and holds all the same: kferry logs in to %s once for all that a flow does there", all[slices.Sorted(maps.Keys(all))[0]].path, m.alias(s).text)
		}
	}
	return all
}

// clientOverrides are what a connector's clients are told, of which each may be told something else in MirrorMaker.
func (r *resolver) clientOverrides(s side, cluster, config settings) settings {
	all := settings{}
	var silent []string
	for _, client := range clients {
		own := settings{}
		counts := slices.Contains(client.sides, s)
		if counts {
			own.override(securityIn(cluster, client.name+"."))
			own.override(securityIn(config, client.name+"."))
		}
		own.override(securityIn(config, string(s)+"."+client.name+"."))
		if s == targetSide && client.name == "producer" { // that of Connect's worker, which writes the records
			own.override(securityIn(config, "producer.override."))
		}
		if len(own) == 0 && counts {
			silent = append(silent, client.name)
		}
		r.join(all, own, "kferry has one login for consumer, producer and admin on each side of a flow, so give one of them")
	}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if len(silent) > 0 && group(key) == "login" {
			r.warn(all[key].bare(), "holds for %s too: kferry has one login on each side of a flow", strings.Join(silent, " and "))
			break
		}
	}
	return all
}

// join adds settings, which have to be the same where they are given already.
func (r *resolver) join(all, more settings, why string) {
	for _, key := range slices.Sorted(maps.Keys(more)) {
		v := more[key]
		switch earlier := all[key]; {
		case !earlier.set || earlier.text == v.text:
			all[key] = v
		case v.hidden != "" || earlier.hidden != "":
			r.wrongf(v.bare(), "is not as at %s; %s", earlier.place(), why)
		default:
			r.wrong(v, fmt.Errorf("is %q at %s; %s", earlier.shown(), earlier.place(), why))
		}
	}
}

// alternatives are ways to say the same, of which only one counts.
var alternatives = [][2][]string{
	{{"sasl.jaas.config"}, {"sasl.username", "sasl.password", "sasl.kerberos.principal", "sasl.kerberos.keytab"}},
	{{"ssl.keystore.location"}, {"ssl.keystore.key", "ssl.keystore.certificate.chain"}},
	{{"ssl.truststore.location", "ssl.truststore.password"}, {"ssl.truststore.certificates"}},
}

// override has other settings of security win, and leave nothing of what they take the place of.
func (all settings) override(more settings) {
	for _, pair := range alternatives {
		for i, keys := range pair {
			if slices.ContainsFunc(keys, func(key string) bool { return more[key].set }) {
				for _, key := range pair[1-i] {
					delete(all, key)
				}
			}
		}
	}
	maps.Copy(all, more)
}

// A use is a cluster on one end of a flow or a heartbeat.
type use struct{ alias, flow string }

// use notes how a mirror logs in on a side, or would: of heartbeats the source is but a name.
func (r *resolver) use(m mirror, s side, only bool) {
	alias := m.alias(s).text
	u := use{alias, FlowName(m.source.text, m.target.text)}
	overrides := r.overrides(m, s)
	config := r.describedSecurity(alias, m.own(s), overrides[protocolKey].set)
	config.override(overrides)
	r.protocol(config)
	r.checkBare(m, s, config)
	first, twice := r.uses[u]
	switch {
	case twice && only:
		return
	case twice && !r.names[u] && !sameSettings(first, config):
		r.wrongf(m.at, "%s logs in to %s as somebody else than is said elsewhere; make its mirrors agree, or say all of it in one", u.flow, alias)
		return
	}
	r.uses[u], r.names[u] = config, only
}

func sameSettings(a, b settings) bool {
	return a.plain() && b.plain() || maps.EqualFunc(a, b, func(v, w value) bool { return v.text == w.text && v.reference == w.reference })
}

// plain says whether plain text is spoken, without a login.
func (all settings) plain() bool {
	v := all[protocolKey]
	return !v.lost && (!v.set || strings.EqualFold(v.text, "PLAINTEXT"))
}

// protocol has blocks of a resource say which protocol is spoken, and takes them out.
func (r *resolver) protocol(config settings) {
	tls, authentication, sasl, given := config["tls"], config["authentication"], config["sasl"], config[protocolKey]
	for _, name := range blocks {
		delete(config, name)
	}
	wrong := func(v value, format string, args ...any) {
		r.wrongf(v, format, args...)
		config[protocolKey] = value{set: true, lost: true}
	}
	plain := strings.HasSuffix(strings.ToUpper(given.text), "PLAINTEXT")
	switch {
	case tls.set && plain:
		wrong(given, "speaks plain text, and %s asks for TLS; remove one of them", tls.place())
	case authentication.text == "tls" && plain:
		wrong(given, "speaks plain text, and %s has a certificate to be shown, which takes TLS; remove one of them", authentication.place())
	case sasl.set && slices.Contains([]string{"SSL", "PLAINTEXT"}, strings.ToUpper(given.text)):
		wrong(given, "has no login, and %s asks for one; remove one of them, or give SASL_SSL", sasl.place())
	case given.set:
	case authentication.text == "tls" && !tls.set:
		wrong(authentication, "a certificate can be shown only over TLS, and Strimzi speaks plain text where there is no tls; add tls: {} with trustedCertificates, or without any to trust whom the system trusts, or remove authentication")
	case tls.set && sasl.set:
		config[protocolKey] = tls.saying("SASL_SSL")
	case tls.set:
		config[protocolKey] = tls.saying("SSL")
	case sasl.set:
		config[protocolKey] = sasl.saying("SASL_PLAINTEXT")
	default:
		for _, key := range slices.Sorted(maps.Keys(config)) {
			if pointless(key) && config[key].text != "" {
				wrong(config[key].bare(), "security.protocol is not given, so that Kafka's clients would speak plain text and take no notice of this; give SASL_SSL or SSL, or PLAINTEXT where that is meant")
				return
			}
		}
	}
}

func isSASL(key string) bool { return strings.HasPrefix(key, "sasl.") }

// pointless says whether nobody gives a setting who means plain text.
func pointless(key string) bool {
	return group(key) == "login" || strings.HasPrefix(key, "ssl.truststore.")
}

// checkBare names security in a connector's config that no client of MirrorMaker's takes notice of, where another than it says is in force.
func (r *resolver) checkBare(m mirror, s side, config settings) {
	for _, c := range []connector{m.sourceConnector, m.checkpointConnector, m.heartbeatConnector} {
		for _, key := range slices.Sorted(maps.Keys(c.config)) {
			switch v := c.config[key]; {
			case !securityKey.MatchString(key) || v.lost:
			case clientSecurity.MatchString(key):
				inForce := config[key].text == v.text || key == protocolKey && strings.EqualFold(v.text, "PLAINTEXT")
				if !inForce {
					r.wrong(v, fmt.Errorf("MirrorMaker's clients take no notice of it here, and %s is spoken to in another way; write %s.cluster.%s", m.alias(s).text, s, key))
				}
			case !clientOverride.MatchString(key):
				r.wrongf(v, "no client takes notice of it here; write source.cluster.… or target.cluster.…")
			}
		}
	}
}

// checkCluster names security in a cluster's config that no client takes notice of.
func (r *resolver) checkCluster(config settings) {
	for _, key := range slices.Sorted(maps.Keys(config)) {
		if v := config[key]; securityKey.MatchString(key) && !clientSecurity.MatchString(key) && !ofClient.MatchString(key) {
			r.wrongf(v.bare(), "no client takes notice of it here; write %s alone", key[securityAt.FindStringIndex(key)[0]:])
		}
	}
}

var (
	ofClient   = regexp.MustCompile(`^(consumer|producer|admin)\.(sasl|ssl|security)\.`)
	securityAt = regexp.MustCompile(`(sasl|ssl|security)\.`)
)

// clientOverride finds the keys that overrides are made of.
var clientOverride = regexp.MustCompile(`^((source|target)\.(cluster|consumer|producer|admin)|consumer|producer|admin|producer\.override)\.(sasl|ssl|security)\.`)

// logIn makes clusters of what flows and heartbeats lead from and to: one for each alias, and one more for each flow with a login of its own.
func (r *resolver) logIn(s *Spec) {
	byAlias := map[string][]use{}
	for u := range r.uses {
		byAlias[u.alias] = append(byAlias[u.alias], u)
	}
	own := map[use]bool{}
	for _, alias := range slices.Sorted(maps.Keys(byAlias)) {
		all := byAlias[alias]
		if real := slices.DeleteFunc(slices.Clone(all), func(u use) bool { return r.names[u] }); len(real) > 0 {
			all = real
		}
		slices.SortFunc(all, func(a, b use) int { return strings.Compare(a.flow, b.flow) })
		shared := r.shared(all)
		s.Clusters = append(s.Clusters, r.login(alias, "", shared))
		for _, u := range all {
			if !sameSettings(r.uses[u], shared) {
				own[u] = true
				s.Clusters = append(s.Clusters, r.login(alias, u.flow, r.uses[u]))
			}
		}
	}
	for i, f := range s.Flows {
		s.Flows[i].OwnSource, s.Flows[i].OwnTarget = own[use{f.Source, f.Name()}], own[use{f.Target, f.Name()}]
	}
	for i, h := range s.Heartbeats {
		s.Heartbeats[i].OwnTarget = own[use{h.Target, FlowName(h.Source, h.Target)}]
	}
}

// shared is the login that most of a cluster's uses have, the first of several.
func (r *resolver) shared(all []use) (most settings) {
	least := 0
	for _, u := range all {
		n := 0
		for _, other := range all {
			if sameSettings(r.uses[u], r.uses[other]) {
				n++
			}
		}
		if n > least {
			most, least = r.uses[u], n
		}
	}
	return most
}

// login is a cluster with the login that settings say.
func (r *resolver) login(alias, flow string, config settings) Cluster {
	c := r.clusters[alias]
	c.Flow = flow
	c.Config = maps.Clone(c.Config)
	maps.DeleteFunc(c.Config, func(key, _ string) bool { return securityKey.MatchString(key) })
	before := len(r.problems)
	security := r.security(config)
	if security.TLS == nil && security.SASL == nil && len(r.problems) == before {
		if v := config[protocolKey]; v.set {
			c.Config[protocolKey] = v.text
		}
		return c
	}
	for _, v := range config {
		if v.reference != "" {
			r.refers = append(r.refers, v.reference)
		}
	}
	c.Login = &Login{config: config, current: security}
	return c
}

// security reads the settings of a login, once all that they refer to is there.
func (r *resolver) security(config settings) Security {
	for _, v := range config {
		if v.lost {
			return Security{} // which is reported
		}
	}
	digest, before := digestOf(config), len(r.problems)
	security, known := r.logins[digest]
	if !known {
		security, known = r.before[digest]
	}
	if !known {
		security = readSecurity(config, r.report)
		for i := range r.problems[before:] {
			r.problems[before+i] = inVariables(r.problems[before+i])
		}
	}
	if len(r.problems) == before {
		r.warnWeak(config, security)
		r.logins[digest] = security
	}
	return security
}

// warnWeak names what others on the way can read or do.
func (r *resolver) warnWeak(config settings, s Security) {
	switch {
	case s.SASL != nil && s.TLS == nil && s.SASL.Mechanism == PLAIN:
		r.warn(config[protocolKey], "the password goes over the wire as it is, for all on the way to read; SASL_SSL hides it")
	case s.SASL != nil && s.TLS == nil:
		r.warn(config[protocolKey], "%s logs in over plain text: all on the way can read what is copied; SASL_SSL hides it", s.SASL.Mechanism)
	case s.TLS != nil && s.TLS.AnyName:
		r.warn(config[identificationKey], "names of hosts are not checked, so whoever has a certificate of the same issuer can pose as the brokers")
	}
}

// locations are the files that a setting names, whose content is a part of it.
func locations(key string, v value) (all []string) {
	options := map[string]Secret{key: Secret(v.text)}
	if key == "sasl.jaas.config" {
		jaas, _ := ParseJAAS(v.text) // without options where it is wrong
		options = jaas.Options
	}
	for name, text := range options {
		if strings.HasSuffix(name, ".location") {
			all = append(all, string(text))
		}
	}
	slices.Sort(all)
	return all
}

// digestOf tells settings apart by what they hold, and by what is in the files that they name.
func digestOf(config settings) string {
	content := sha256.New()
	for _, key := range slices.Sorted(maps.Keys(config)) {
		fmt.Fprintf(content, "%q %q ", key, config[key].text)
		for _, path := range locations(key, config[key]) {
			text, err := readBytes(path)
			fmt.Fprintf(content, "%q %v ", text, err)
		}
	}
	return string(content.Sum(nil))
}
