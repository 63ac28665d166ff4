package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/hashicorp/go-multierror"

	"github.com/kferry/kferry/shared/spec"
)

// describe says in plain words what a specification means: for each flow what is copied, what follows, and where things are kept.
func describe(to io.Writer, s spec.Spec) error {
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "CLUSTER\tBOOTSTRAP SERVERS\tSECURITY")
	for _, c := range s.Clusters {
		fmt.Fprintf(table, "%s\t%s\t%s\n", c.Key(), strings.Join(c.BootstrapServers, ","), c.Login.Access())
	}
	for _, f := range s.Flows {
		fmt.Fprintf(table, "\n%s%s\n", f.Name(), state(f))
		for _, line := range lines(f, beat(s, f)) {
			fmt.Fprintf(table, "  %s\t%s\n", line[0], line[1])
		}
	}
	var others []string
	for _, h := range s.Heartbeats {
		if _, known := s.Flow(spec.FlowName(h.Source, h.Target)); !known {
			others = append(others, fmt.Sprintf("%s every %s", spec.FlowName(h.Source, h.Target), h.Interval))
		}
	}
	if len(others) > 0 {
		fmt.Fprintf(table, "\nHeartbeats alone: %s\n", strings.Join(others, ", "))
	}
	return table.Flush()
}

func state(f spec.Flow) string {
	switch f.State {
	case spec.Running:
		return ""
	case spec.Absent:
		return " (copies no topics)"
	}
	return " (" + string(f.State) + ")"
}

// beat is the heartbeat of a flow.
func beat(s spec.Spec, f spec.Flow) *spec.Heartbeat {
	i := slices.IndexFunc(s.Heartbeats, func(h spec.Heartbeat) bool { return h.Source == f.Source && h.Target == f.Target })
	if i < 0 {
		return nil
	}
	return &s.Heartbeats[i]
}

func lines(f spec.Flow, h *spec.Heartbeat) (all [][2]string) {
	say := func(what, format string, args ...any) {
		all = append(all, [2]string{what, fmt.Sprintf(format, args...)})
	}
	if f.State != spec.Absent {
		say("topics", "%s; t becomes %s, created with %s", topics(f), f.RemoteTopic("t"), replication(f.ReplicationFactor))
		say("reads", "from %s, %s; looks for topics every %s", f.Start, f.Isolation, f.Refresh)
		say("limits", "%s; %s", f.Limits, atOnce(f.MaxLeases))
		say("on hold", "%s", onHold(f))
		say("settings", "%s", configs(f.Configs))
		say("rights", "%s", acls(f.ACLs))
	}
	say("groups", "%s", groups(f))
	say("offset-syncs", "%s", syncs(f))
	say("cursors", "in %s on %s, under %q; the group of Connect's workers would be %s", f.OffsetsTopic, f.Target, f.Connector, f.ConnectGroup)
	say("heartbeats", "%s", heartbeats(f, h))
	return all
}

func topics(f spec.Flow) string {
	var texts []string
	for _, filter := range f.Filters {
		texts = append(texts, selection(filter.Topics, filter.Exclude))
	}
	return strings.Join(texts, " or ")
}

func selection(include, exclude spec.Patterns) string {
	text := cmp.Or(include.String(), "none")
	if exclude.String() != "" {
		text += " but not " + exclude.String()
	}
	return text
}

func replication(factor int16) string {
	if factor == -1 {
		return "the broker's replication factor"
	}
	return fmt.Sprintf("replication factor %d", factor)
}

func atOnce(leases int) string {
	if leases == 0 {
		return "any number of partitions at once"
	}
	return fmt.Sprintf("at most %d partitions at once", leases)
}

// onHold names what the flow decides by itself.
func onHold(f spec.Flow) string {
	var pairs []string
	for _, reason := range spec.OnHoldReasons() {
		if action := f.OnHold.For(reason); action != spec.ActionHold {
			pairs = append(pairs, reason+"="+string(action))
		}
	}
	return cmp.Or(strings.Join(pairs, ","), "hold")
}

func configs(c spec.ConfigSync) string {
	if !c.Enabled {
		return "are those of the source when a copy is created, and follow no more"
	}
	text := fmt.Sprintf("follow their sources every %s", c.Interval)
	if c.SourceDefaults {
		text += ", what the source's brokers say included"
	}
	if c.Overrides {
		return text + "; what is set on a copy alone stays"
	}
	return text + "; what is set on a copy alone is removed"
}

func acls(a spec.ACLSync) string {
	switch {
	case !a.Enabled:
		return "don't follow"
	case a.Revoke:
		return fmt.Sprintf("follow their sources every %s, and are taken away as there", a.Interval)
	}
	return fmt.Sprintf("follow their sources every %s; none is taken away", a.Interval)
}

func groups(f spec.Flow) string {
	g := f.Groups
	switch {
	case g.State == spec.Absent:
		return "positions are not translated"
	case g.State != spec.Running:
		return "positions are not translated: " + string(g.State)
	}
	text := selection(g.Include, g.Exclude)
	if g.Checkpoints {
		text += fmt.Sprintf("; checkpoints every %s in %s on %s", g.CheckpointsInterval, g.CheckpointsTopic, f.Target)
	} else {
		text += "; no checkpoints"
	}
	if g.Sync {
		return text + fmt.Sprintf("; committed on %s every %s where nobody uses the group", f.Target, g.SyncInterval)
	}
	return text + fmt.Sprintf("; not committed on %s", f.Target)
}

func syncs(f spec.Flow) string {
	switch {
	case !f.Syncs.Enabled:
		return "none"
	case f.Syncs.OnSource:
		return fmt.Sprintf("in %s on %s, the source", f.Syncs.Topic, f.Source)
	}
	return fmt.Sprintf("in %s on %s, the target", f.Syncs.Topic, f.Target)
}

func heartbeats(f spec.Flow, h *spec.Heartbeat) string {
	text := "none is written"
	if h != nil {
		text = fmt.Sprintf("written to %s every %s", f.Target, h.Interval)
	}
	if f.Heartbeats {
		return text + "; those of the source are copied"
	}
	return text + "; those of the source are not copied unless they match"
}

// A description is what describe says, for programs. Intervals are in seconds.
type description struct {
	Mistakes   []string             `json:"mistakes,omitempty"`
	Warnings   []string             `json:"warnings"`
	Clusters   []clusterDescription `json:"clusters"`
	Flows      []flowDescription    `json:"flows"`
	Heartbeats []beatDescription    `json:"heartbeats"`
}

type clusterDescription struct {
	Alias            string      `json:"alias"`
	Flow             string      `json:"flow,omitempty"` // that logs in so, "" is all without a login of their own
	BootstrapServers []string    `json:"bootstrapServers"`
	Security         spec.Access `json:"security"`
}

type flowDescription struct {
	Flow              string              `json:"flow"`
	Source            string              `json:"source"`
	Target            string              `json:"target"`
	State             spec.State          `json:"state"`
	Topics            []filterDescription `json:"topics"`
	Policy            string              `json:"replicationPolicy"`
	RemoteTopic       string              `json:"tBecomes"`
	ReplicationFactor int16               `json:"replicationFactor"`
	Start             string              `json:"start"`
	Isolation         spec.Isolation      `json:"isolationLevel"`
	Refresh           float64             `json:"refreshSeconds"`
	MaxLeases         int                 `json:"maxLeases"`
	Limits            string              `json:"limits"`
	OnHold            string              `json:"onHold"`
	OffsetsTopic      string              `json:"offsetsTopic"`
	OffsetsFactor     int16               `json:"offsetsReplicationFactor"`
	Connector         string              `json:"connector"`
	ConnectGroup      string              `json:"connectGroup"`
	ConfigExclude     string              `json:"configPropertiesExclude"`
	Configs           struct {
		Enabled        bool    `json:"enabled"`
		Interval       float64 `json:"intervalSeconds"`
		SourceDefaults bool    `json:"sourceDefaults"`
		Overrides      bool    `json:"keepsOverrides"`
	} `json:"syncTopicConfigs"`
	ACLs struct {
		Enabled  bool    `json:"enabled"`
		Interval float64 `json:"intervalSeconds"`
		Revoke   bool    `json:"revokes"`
	} `json:"syncTopicACLs"`
	Syncs struct {
		Enabled           bool   `json:"enabled"`
		Topic             string `json:"topic"`
		Cluster           string `json:"cluster"`
		ReplicationFactor int16  `json:"replicationFactor"`
	} `json:"offsetSyncs"`
	Groups struct {
		State               spec.State        `json:"state"`
		Groups              filterDescription `json:"groups"`
		Checkpoints         bool              `json:"checkpoints"`
		CheckpointsInterval float64           `json:"checkpointsIntervalSeconds"`
		CheckpointsTopic    string            `json:"checkpointsTopic"`
		CheckpointsFactor   int16             `json:"checkpointsReplicationFactor"`
		Sync                bool              `json:"syncGroupOffsets"`
		SyncInterval        float64           `json:"syncGroupOffsetsIntervalSeconds"`
	} `json:"groups"`
	Heartbeats bool               `json:"copiesHeartbeats"`
	Given      []givenDescription `json:"given"` // what files say, and where
}

type givenDescription struct {
	Setting string `json:"setting"`
	Value   string `json:"value"`
	Place   string `json:"place"`
}

type filterDescription struct {
	Include string `json:"include"`
	Exclude string `json:"exclude"`
}

type beatDescription struct {
	Flow              string  `json:"flow"`
	Interval          float64 `json:"intervalSeconds"`
	ReplicationFactor int16   `json:"replicationFactor"`
}

// describeJSON says the same for programs. Where there are mistakes it says nothing but them and warnings.
func describeJSON(to io.Writer, s spec.Spec, err error) error {
	d := description{
		Warnings: append([]string{}, s.Warnings...), Clusters: []clusterDescription{}, Flows: []flowDescription{}, Heartbeats: []beatDescription{},
	}
	var all *multierror.Error
	if errors.As(err, &all) {
		for _, mistake := range all.Errors {
			d.Mistakes = append(d.Mistakes, mistake.Error())
		}
	} else if err != nil {
		d.Mistakes = append(d.Mistakes, err.Error())
	}
	for _, c := range s.Clusters {
		d.Clusters = append(d.Clusters, clusterDescription{c.Alias, c.Flow, c.BootstrapServers, c.Login.Access()})
	}
	for _, f := range s.Flows {
		d.Flows = append(d.Flows, describeFlow(f))
	}
	for _, h := range s.Heartbeats {
		d.Heartbeats = append(d.Heartbeats, beatDescription{spec.FlowName(h.Source, h.Target), h.Interval.Seconds(), h.ReplicationFactor})
	}
	return writeJSON(to, d)
}

func describeFlow(f spec.Flow) flowDescription {
	d := flowDescription{
		Flow: f.Name(), Source: f.Source, Target: f.Target, State: f.State, Policy: f.Policy.String(), RemoteTopic: f.RemoteTopic("t"),
		ReplicationFactor: f.ReplicationFactor, Start: f.Start.String(), Isolation: f.Isolation, Refresh: f.Refresh.Seconds(),
		MaxLeases: f.MaxLeases, Limits: f.Limits.String(), OnHold: onHold(f), OffsetsTopic: f.OffsetsTopic,
		OffsetsFactor: f.OffsetsReplicationFactor, Connector: f.Connector, ConnectGroup: f.ConnectGroup,
		ConfigExclude: f.ConfigExclude.String(), Heartbeats: f.Heartbeats, Given: []givenDescription{},
	}
	for _, filter := range f.Filters {
		d.Topics = append(d.Topics, filterDescription{filter.Topics.String(), filter.Exclude.String()})
	}
	for _, g := range f.Given {
		d.Given = append(d.Given, givenDescription(g))
	}
	d.Configs.Enabled, d.Configs.Interval = f.Configs.Enabled, f.Configs.Interval.Seconds()
	d.Configs.SourceDefaults, d.Configs.Overrides = f.Configs.SourceDefaults, f.Configs.Overrides
	d.ACLs.Enabled, d.ACLs.Interval, d.ACLs.Revoke = f.ACLs.Enabled, f.ACLs.Interval.Seconds(), f.ACLs.Revoke
	d.Syncs.Enabled, d.Syncs.Topic, d.Syncs.ReplicationFactor = f.Syncs.Enabled, f.Syncs.Topic, f.Syncs.ReplicationFactor
	d.Syncs.Cluster = f.Target
	if f.Syncs.OnSource {
		d.Syncs.Cluster = f.Source
	}
	g := f.Groups
	d.Groups.State, d.Groups.Groups = g.State, filterDescription{g.Include.String(), g.Exclude.String()}
	d.Groups.Checkpoints, d.Groups.CheckpointsInterval = g.Checkpoints, g.CheckpointsInterval.Seconds()
	d.Groups.CheckpointsTopic, d.Groups.CheckpointsFactor = g.CheckpointsTopic, g.CheckpointsReplicationFactor
	d.Groups.Sync, d.Groups.SyncInterval = g.Sync, g.SyncInterval.Seconds()
	return d
}
