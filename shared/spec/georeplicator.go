package spec

import "fmt"

// This file reads IBM's EventStreamsGeoReplicator. It names the destination alone: what is copied stands in the
// KafkaMirrorMaker2 that IBM's operator makes of it, or in fragments that are pasted into that.

const geoReplicatorKind = "EventStreamsGeoReplicator"

// A destination is the cluster that a geo-replicator leads to. Its addresses are not in the document.
type destination struct{ at, alias value }

func (r *resourceReader) geoReplicator(top mapping) {
	metadata := top.take("metadata").mapping(r.report)
	name := metadata.text("name", r.report)
	if label := metadata.take("labels").mapping(r.report).text("eventstreams.ibm.com/cluster", r.report); label.set {
		name = firstSet(name, label)
	}
	r.ignoreRest(top.take("spec").mapping(r.report), nil)
	if !name.set {
		if name.line == 0 {
			name.line = top.yaml.Line // metadata is no map, which is reported
		}
		r.wrongf(name, "is missing; it names the Event Streams instance to copy to")
		return
	}
	alias := name
	alias.text += "-mm2connector" // IBM's name for it
	r.input.destinations = append(r.input.destinations, destination{name, alias})
	r.input.targets = append(r.input.targets, alias)
}

// complete gives mirrors the target that their document doesn't name, where there is but one, and destinations the addresses
// that no document holds, out of variables. It says whether those were needed for that.
func (in *input) complete(from *cluster, r *report) (used bool) {
	aliases := map[string]value{}
	for _, target := range in.targets {
		aliases[target.text] = target
	}
	wanted := map[string]bool{}
	for i := range in.mirrors {
		m := &in.mirrors[i]
		if !m.target.set && len(aliases) == 1 {
			m.target = in.targets[0]
		} else if !m.target.set {
			r.wrongf(m.target, "is missing; a mirror needs the alias of both clusters")
		}
		wanted[m.target.text] = true
	}
	known := map[string]bool{}
	for _, c := range in.clusters {
		known[c.alias.text] = known[c.alias.text] || c.servers.set
	}
	for _, d := range in.destinations {
		switch alias := d.alias.text; {
		case len(in.mirrors) == 0:
			r.wrong(d.at, fmt.Errorf("an %s doesn't say what to copy; give the %s of the same name too, or a fragment of it with spec.mirrors", geoReplicatorKind, resourceKind))
		case !wanted[alias]:
			r.warn(d.at, "no mirror leads to its cluster, %s", alias)
		case known[alias]:
		case from.servers.set:
			from.alias = d.alias
			in.clusters = append(in.clusters, from)
			used = true
		default:
			r.wrong(d.at, fmt.Errorf("an %s doesn't hold the addresses of its destination; give the bootstrapServers of %s in spec.clusters, in this file or another one, or set KFERRY_TARGET_BOOTSTRAP_SERVERS", geoReplicatorKind, alias))
			in.clusters = append(in.clusters, &cluster{alias: d.alias}) // known from here on, so that this is all that is said
		}
		known[d.alias.text] = true
	}
	return used
}
