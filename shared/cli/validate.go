package cli

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/shared/spec"
)

func newValidate(p Process) *cobra.Command {
	var connect bool
	cmd := &cobra.Command{
		Use:   "validate",
		Short: "Check a specification, and show what it means",
		Long: "validate reads the specification as the other commands do and reports everything that is wrong with it. With --connect it\n" +
			"also asks the clusters which topics match and what would be created. It writes nothing.",
		Example: "  kferry validate -f mirror.yaml --connect",
		Args:    noArguments,
	}
	in := newInput(p, cmd, "clusters")
	cmd.Flags().BoolVar(&connect, "connect", false, "ask the clusters: topics that match, their names and sizes, what would be created")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := in.load(cmd)
		if err != nil {
			return err
		}
		warn(cmd, s)
		if err := describe(cmd.OutOrStdout(), s); err != nil || !connect {
			return err
		}
		return preview(cmd, s)
	}
	return cmd
}

func warn(cmd *cobra.Command, s spec.Spec) {
	for _, warning := range s.Warnings {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", warning)
	}
}

// describe says what a specification means.
func describe(to io.Writer, s spec.Spec) error {
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "CLUSTER\tBOOTSTRAP SERVERS")
	for _, c := range s.Clusters {
		fmt.Fprintf(table, "%s\t%s\n", c.Alias, strings.Join(c.BootstrapServers, ","))
	}
	fmt.Fprintln(table, "\nFLOW\tTOPICS\tA TOPIC t BECOMES\tSTART\tREADS\tON HOLD\tREPLICATION FACTOR\tRATE LIMIT\tCURSORS IN")
	for _, f := range s.Flows {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			flowName(f), topics(f), f.RemoteTopic("t"), f.Start, f.Isolation, onHold(f), replication(f.ReplicationFactor), f.Limits, f.OffsetsTopic)
	}
	return table.Flush()
}

func flowName(f spec.Flow) string {
	switch f.State {
	case spec.Running:
		return f.Name()
	case spec.Absent:
		return f.Name() + " (copies no topics)"
	}
	return fmt.Sprintf("%s (%s)", f.Name(), f.State)
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

func topics(f spec.Flow) string {
	var texts []string
	for _, filter := range f.Filters {
		text := filter.Topics.String()
		if exclude := filter.Exclude.String(); exclude != "" {
			text += " but not " + exclude
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, " or ")
}

func replication(factor int16) string {
	if factor == -1 {
		return "broker's default"
	}
	return fmt.Sprint(factor)
}

// preview shows what the flows would do.
func preview(cmd *cobra.Command, s spec.Spec) error {
	st, err := newStation(s, silent, nil, nil)
	if err != nil {
		return err
	}
	defer st.close()
	seen := coordinator.Look(cmd.Context(), st.view())
	fmt.Fprintln(cmd.OutOrStdout())
	if err := seen.Table(cmd.OutOrStdout()); err != nil {
		return fmt.Errorf("write preview: %w", err)
	}
	if !seen.OK() {
		return errSaid
	}
	return nil
}
