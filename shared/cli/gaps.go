package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// A flowGap is a gap of a flow.
type flowGap struct {
	Flow string `json:"flow"`
	lease.Gap
}

// A gapRequest is what of all gaps somebody wants.
type gapRequest struct {
	topic       string // "" is any
	partition   int32  // or anyPartition
	acknowledge bool
	format      string
}

func (r gapRequest) selects(g lease.Gap) bool {
	return (r.topic == "" || r.topic == g.Topic) && (r.partition == anyPartition || r.partition == g.Partition)
}

// String says what is asked for.
func (r gapRequest) String() (text string) {
	if r.topic != "" {
		text += " of " + r.topic
	}
	if r.partition != anyPartition {
		text += fmt.Sprintf(" in partition %d", r.partition)
	}
	return text
}

func newGaps(p Process) *cobra.Command {
	var r gapRequest
	cmd := &cobra.Command{
		Use:   "gaps [A->B]",
		Short: "Show where copies are not what their sources are",
		Long: "gaps lists what decisions have cost: source offsets that are not on the target, or are there twice, and records on the target that\n" +
			"the source doesn't have. It is kept on the target. With --acknowledge, what a policy decided is no longer shown as open.",
		Example: "  kferry gaps\n  kferry gaps 'A->B' --acknowledge --topic orders",
		Args:    oneFlowOrAll,
	}
	in := newInput(p, cmd, "data", "name", "nats-url")
	cmd.Flags().StringVar(&r.topic, "topic", "", "only those of this topic, by its name on the source")
	cmd.Flags().Int32Var(&r.partition, "partition", anyPartition, "only those of this partition")
	cmd.Flags().BoolVar(&r.acknowledge, "acknowledge", false, "say that they are known: status and metrics show them no longer")
	cmd.Flags().StringVarP(&r.format, "output", "o", formats[0], "table or json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains(formats, r.format) {
			return usageError{fmt.Errorf("-o %q: give table or json", r.format)}
		}
		if err := checkPartition(cmd, r.partition); err != nil {
			return err
		}
		if r.acknowledge && len(args) == 0 {
			return usageError{errors.New("--acknowledge is for one flow: name it, like 'A->B'")}
		}
		return gaps(cmd, in, args, r)
	}
	return cmd
}

func gaps(cmd *cobra.Command, in *input, named []string, r gapRequest) error {
	return withFlows(cmd, in, named, func(st *station, flows []spec.Flow) error {
		found, err := st.gaps(cmd.Context(), flows, r)
		if err == nil && len(found) == 0 { // of a topic that the flow no longer copies there may be some
			err = checkTopic(flows, r.topic)
		}
		if err == nil && r.acknowledge {
			err = st.acknowledge(cmd, flows[0], found)
		}
		if err != nil {
			return err
		}
		return writeGaps(cmd.OutOrStdout(), found, r)
	})
}

// gaps reads those that are asked for from the targets.
func (st *station) gaps(ctx context.Context, flows []spec.Flow, r gapRequest) ([]flowGap, error) {
	found := []flowGap{}
	for _, f := range flows {
		all, err := lease.ReadGaps(ctx, f, st.clusters[f.TargetKey()])
		if err != nil {
			return nil, err
		}
		for _, g := range all {
			if r.selects(g) {
				found = append(found, flowGap{f.Name(), g})
			}
		}
	}
	return found, nil
}

// acknowledge marks a flow's open ones, on the target and, for a coordinator that runs, in the queue.
func (st *station) acknowledge(cmd *cobra.Command, flow spec.Flow, found []flowGap) error {
	ctx, target := cmd.Context(), st.clusters[flow.TargetKey()]
	noQueue, alone := st.findQueue(ctx, "gaps"), false
	for i := range found {
		g := &found[i]
		if !g.Open() {
			continue
		}
		g.Acknowledged = time.Now()
		var err error
		if noQueue == nil {
			err = st.queue.Cursors(flow, target).PutGap(ctx, g.Gap)
		} else {
			err, alone = lease.WriteGap(ctx, flow, target, g.Gap), true
		}
		if err != nil {
			return err
		}
	}
	if alone {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: this is on %s alone, and a coordinator that runs shows the gaps until its next start: %v\n", flow.OffsetsTopic, noQueue)
	}
	return nil
}

func writeGaps(to io.Writer, found []flowGap, r gapRequest) error {
	if r.format != "table" {
		return writeJSON(to, found)
	}
	if len(found) == 0 {
		_, err := fmt.Fprintf(to, "No gaps%s.\n", r)
		return err
	}
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "FLOW\tSOURCE TOPIC\tPARTITION\tEFFECT\tFROM\tTO\tCOUNT\tTARGET OFFSET\tREASON\tDECISION\tBY\tWHEN\tRECORD BEFORE\tRECORD AFTER\tACKNOWLEDGED")
	for _, g := range found {
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%d\t%d\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", g.Flow, g.Topic, g.Partition, g.Effect, g.From, g.To, countOf(g.Count),
			g.Target, g.Reason, g.Decision, g.By, moment(g.At), moment(g.Before), moment(g.After), cmp.Or(moment(g.Acknowledged), "no"))
	}
	return table.Flush()
}

func countOf(n int64) string {
	if n < 0 {
		return "?"
	}
	return fmt.Sprint(n)
}

func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
