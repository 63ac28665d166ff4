package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/shared/spec"
)

// formats are those of status, the default first.
var formats = []string{"table", "json"}

func newStatus(p Process) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "status [A->B]",
		Short: "Show where every partition stands",
		Long: "status asks the clusters how far every partition is copied, and what stands in the way. It adds what only the queue knows,\n" +
			"failures and the time of the next try: the one at NATS_URL, or that of a \"kferry run\" on the same --data. Exit code 1: a\n" +
			"cluster did not answer.",
		Example: "  kferry status -f mirror.yaml\n  kferry status -f mirror.yaml 'A->B' -o json",
		Args:    oneFlowOrAll,
	}
	in := newInput(p, cmd, "data", "name", "nats-url")
	cmd.Flags().StringVarP(&format, "output", "o", formats[0], "table or json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains(formats, format) {
			return usageError{fmt.Errorf("-o %q: give table or json", format)}
		}
		survey, err := survey(cmd, in, args)
		if err != nil {
			return err
		}
		survey.Colours = p.colours(newScreen(p.Out))
		for _, file := range in.files {
			survey.Flags += " -f " + file
		}
		if err := write(cmd.OutOrStdout(), survey, format); err != nil {
			return fmt.Errorf("write status: %w", err)
		}
		if slices.ContainsFunc(survey.Flows, func(f coordinator.FlowSurvey) bool { return f.Error != "" }) {
			return errSaid
		}
		return nil
	}
	return cmd
}

func survey(cmd *cobra.Command, in *input, named []string) (survey coordinator.Survey, err error) {
	err = withFlows(cmd, in, named, func(st *station, flows []spec.Flow) error {
		st.spec.Flows = flows
		noQueue := st.findQueue(cmd.Context(), "status") // one that doesn't answer hides nothing that the clusters know
		survey = coordinator.Status(cmd.Context(), st.view())
		if noQueue != nil {
			survey.Queue = noQueue.Error()
		}
		return nil
	})
	return survey, err
}

func write(to io.Writer, s coordinator.Survey, format string) error {
	if format == "table" {
		return s.Table(to)
	}
	return writeJSON(to, s)
}

// writeJSON writes an answer for programs.
func writeJSON(to io.Writer, answer any) error {
	e := json.NewEncoder(to)
	e.SetEscapeHTML(false) // "A->B" as people write it
	e.SetIndent("", "  ")
	return e.Encode(answer)
}
