package cli

import (
	"cmp"
	"context"
	"encoding/json"
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
	flow, topic string // "" is any
	partition   int32  // -1 is any
	acknowledge bool
	format      string
}

func (r gapRequest) selects(g flowGap) bool {
	return (r.flow == "" || r.flow == g.Flow) && (r.topic == "" || r.topic == g.Topic) && (r.partition < 0 || r.partition == g.Partition)
}

func newGaps(p Process) *cobra.Command {
	var r gapRequest
	cmd := &cobra.Command{
		Use:   "gaps [A->B]",
		Short: "Show where copies are not what their sources are",
		Long: "gaps lists what decisions have cost: source offsets that are not on the target, or are there twice, and records on the target that\n" +
			"the source doesn't have. It is kept on the target. With --acknowledge, what a policy decided is no longer shown as open.",
		Example: "  kferry gaps\n  kferry gaps 'A->B' --acknowledge --topic orders",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("gaps takes one flow, like 'A->B', or none for all, and %d are given", len(args))
			}
			return nil
		},
	}
	in := newInput(p, cmd, "data", "name", "nats-url")
	cmd.Flags().StringVar(&r.topic, "topic", "", "only those of this topic, by its name on the source")
	cmd.Flags().Int32Var(&r.partition, "partition", -1, "only those of this partition")
	cmd.Flags().BoolVar(&r.acknowledge, "acknowledge", false, "say that they are known: status and metrics show them no longer")
	cmd.Flags().StringVarP(&r.format, "output", "o", formats[0], "table or json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains(formats, r.format) {
			return usageError{fmt.Errorf("-o %q: give table or json", r.format)}
		}
		if len(args) == 1 {
			r.flow = args[0]
		}
		if r.acknowledge && r.flow == "" {
			return usageError{errors.New("--acknowledge is for one flow: name it, like \"A->B\"")}
		}
		return gaps(cmd, in, r)
	}
	return cmd
}

func gaps(cmd *cobra.Command, in *input, r gapRequest) error {
	s, err := in.load(cmd)
	if err != nil {
		return err
	}
	warn(cmd, s)
	if _, known := s.Flow(r.flow); r.flow != "" && !known {
		return fmt.Errorf("there is no flow %q; flows are %s", r.flow, flowNames(s))
	}
	st, err := newStation(s, silent, nil, nil)
	if err != nil {
		return err
	}
	defer st.close()
	found, err := st.gaps(cmd.Context(), r)
	if err == nil && r.acknowledge {
		err = st.acknowledge(cmd.Context(), found)
	}
	if err != nil {
		return err
	}
	return writeGaps(cmd.OutOrStdout(), found, r.format)
}

// gaps reads those that are asked for from the targets.
func (st *station) gaps(ctx context.Context, r gapRequest) ([]flowGap, error) {
	found := []flowGap{}
	for _, f := range st.spec.Flows {
		if r.flow != "" && r.flow != f.Name() {
			continue
		}
		all, err := lease.ReadGaps(ctx, f, st.clusters[f.Target])
		if err != nil {
			return nil, err
		}
		for _, g := range all {
			if one := (flowGap{f.Name(), g}); r.selects(one) {
				found = append(found, one)
			}
		}
	}
	return found, nil
}

// acknowledge marks the open ones, on the target and, for a coordinator that runs, in the queue.
func (st *station) acknowledge(ctx context.Context, found []flowGap) error {
	noQueue := st.findQueue(ctx, "gaps")
	for i := range found {
		g := &found[i]
		if !g.Open() {
			continue
		}
		g.Acknowledged = time.Now()
		flow, _ := st.spec.Flow(g.Flow)
		target := st.clusters[flow.Target]
		var err error
		if st.queue != nil && noQueue == nil {
			err = st.queue.Cursors(flow, target).PutGap(ctx, g.Gap)
		} else {
			err = lease.WriteGap(ctx, flow, target, g.Gap)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func writeGaps(to io.Writer, found []flowGap, format string) error {
	if format != "table" {
		e := json.NewEncoder(to)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(found)
	}
	if len(found) == 0 {
		_, err := fmt.Fprintln(to, "No gaps.")
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

func flowNames(s spec.Spec) string {
	var names string
	for _, f := range s.Flows {
		if names != "" {
			names += ", "
		}
		names += f.Name()
	}
	return names
}
