// Package spec turns environment variables, KafkaMirrorMaker2 resources and mm2.properties into one validated Spec.
//
// Invariants:
//   - What a Spec holds is right: every alias is known, every address has a port, every pattern compiles. Code behind this
//     package checks nothing again.
//   - Every mistake is reported at once, with its place, its value and what to do. Nothing that is set is passed over in
//     silence: it acts, or a warning names it, or Load fails.
//   - Where the input is silent, kferry's defaults apply, the same for every form of input.
package spec

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// A Spec is the description of everything there is to do.
type Spec struct {
	// Name tells installations apart that share a NATS server.
	Name     string
	Clusters []Cluster // by key
	Flows    []Flow    // by name
	// Heartbeats are those to be written, also between clusters that no flow leads from or to.
	Heartbeats []Heartbeat
	Settings   Settings
	// Warnings are for people: what was set and has no effect, or not the effect one may expect.
	Warnings []string
	// References name each value that a configuration provider gave, for people.
	References []string

	origin *source  // of what references lead to
	refers []string // references that something is made of
}

// Cluster returns the cluster with a key: Flow.SourceKey, Flow.TargetKey, Heartbeat.TargetKey. Asking for another is a mistake of ours.
func (s Spec) Cluster(key string) Cluster {
	for _, c := range s.Clusters {
		if c.Key() == key {
			return c
		}
	}
	panic(fmt.Sprintf("spec: no cluster %q", key))
}

// Flow returns the flow with a name like "A->B".
func (s Spec) Flow(name string) (Flow, bool) {
	for _, f := range s.Flows {
		if f.Name() == name {
			return f, true
		}
	}
	return Flow{}, false
}

// keepTargets leaves out flows and heartbeats to clusters that are not listed; nil keeps all.
func (s *Spec) keepTargets(aliases []string) {
	if aliases == nil {
		return
	}
	s.Flows = slices.DeleteFunc(s.Flows, func(f Flow) bool { return !slices.Contains(aliases, f.Target) })
	s.Heartbeats = slices.DeleteFunc(s.Heartbeats, func(h Heartbeat) bool { return !slices.Contains(aliases, h.Target) })
	s.Clusters = slices.DeleteFunc(s.Clusters, func(c Cluster) bool {
		return !slices.ContainsFunc(s.Flows, func(f Flow) bool { return f.SourceKey() == c.Key() || f.TargetKey() == c.Key() }) &&
			!slices.ContainsFunc(s.Heartbeats, func(h Heartbeat) bool { return h.Source == c.Alias || h.TargetKey() == c.Key() })
	})
}

// holds says whether something that is kept was read from a reference.
func (s Spec) holds(reference string) bool {
	in := func(all map[string]string) bool { return slices.Contains(slices.Collect(maps.Values(all)), reference) }
	return slices.ContainsFunc(s.Flows, func(f Flow) bool { return in(f.references) }) ||
		slices.ContainsFunc(s.Clusters, func(c Cluster) bool {
			return in(c.references) || c.Login != nil && in(referencesIn(c.Login.config))
		})
}

// A Cluster is a Kafka cluster with an alias.
type Cluster struct {
	Alias            string
	BootstrapServers []string
	// Flow is the only flow that this login is for, like "A->B"; "" is every flow without one of its own.
	Flow string
	// Login is nil for plain text without a login.
	Login *Login
	// Config holds the client properties as they were given, but for those of the login.
	Config map[string]string

	references map[string]string // that the addresses and Config were read from, by key
}

// Key is unique among a Spec's clusters: the alias, where the login isn't a flow's own.
func (c Cluster) Key() string { return clusterKey(c.Alias, c.Flow) }

func clusterKey(alias, flow string) string {
	if flow == "" {
		return alias
	}
	return alias + " for " + flow
}

// Settings are those of the process rather than of a flow.
type Settings struct {
	NATS      NATS
	Data      string // directory of the embedded queue
	HTTP      HTTP
	Slots     int           // leases a worker holds at most
	Memory    Bytes         // for everything in flight
	LeaseTime time.Duration // after which a silent worker's lease comes back
	Front     Front
	WakeUps   WakeUps
	// MM2Metrics is whether metrics are served under MirrorMaker's names too.
	MM2Metrics bool
	Scale      Scale
	EMF        bool   // whether to write CloudWatch's embedded metric format
	LogLevel   string // debug, info, warn or error
	LogFormat  string // auto, text or json
}
