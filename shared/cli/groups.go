package cli

import (
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/shared/spec"
)

func newGroups(p Process) *cobra.Command {
	var format, group string
	cmd := &cobra.Command{
		Use:   "groups [A->B]",
		Short: "Show where consumer groups go on in the copies",
		Long: "groups asks both clusters where the source's consumer groups stand, and shows where each goes on on the target, whether that is\n" +
			"exact, and why it isn't or isn't set there. It writes nothing. Exit code 1: a cluster did not answer.",
		Example: "  kferry groups -f mirror.yaml 'A->B'\n  kferry groups 'A->B' --group billing -o json",
		Args:    oneFlowOrAll,
	}
	in := newInput(p, cmd, "data", "name", "nats-url")
	cmd.Flags().StringVar(&group, "group", "", "only this one")
	cmd.Flags().StringVarP(&format, "output", "o", formats[0], "table or json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains(formats, format) {
			return usageError{fmt.Errorf("-o %q: give table or json", format)}
		}
		surveys, err := surveyGroups(cmd, in, args)
		if err != nil {
			return err
		}
		if group != "" {
			for i := range surveys {
				surveys[i].Positions = slices.DeleteFunc(surveys[i].Positions, func(p coordinator.GroupPosition) bool { return p.Group != group })
				if len(surveys[i].Positions) == 0 && surveys[i].Error == "" {
					fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s lists no group %q\n", surveys[i].Flow, surveys[i].Source, group)
				}
			}
		}
		if err := writeGroups(cmd.OutOrStdout(), surveys, format); err != nil {
			return fmt.Errorf("write groups: %w", err)
		}
		if slices.ContainsFunc(surveys, func(s coordinator.GroupsSurvey) bool { return s.Error != "" }) {
			return errSaid
		}
		return nil
	}
	return cmd
}

func surveyGroups(cmd *cobra.Command, in *input, named []string) (surveys []coordinator.GroupsSurvey, err error) {
	err = withFlows(cmd, in, named, func(st *station, flows []spec.Flow) error {
		_ = st.findQueue(cmd.Context(), "groups") // without one the cursors are those of the target, which are a little older
		for _, f := range flows {
			surveys = append(surveys, coordinator.Groups(cmd.Context(), st.view(), f))
		}
		return nil
	})
	return surveys, err
}

func writeGroups(to io.Writer, surveys []coordinator.GroupsSurvey, format string) error {
	if format == "table" {
		for i, s := range surveys {
			if i > 0 {
				fmt.Fprintln(to)
			}
			if err := s.Table(to); err != nil {
				return err
			}
		}
		return nil
	}
	return writeJSON(to, surveys)
}
