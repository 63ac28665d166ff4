package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/shared/spec"
)

func newValidate(p Process) *cobra.Command {
	var connect bool
	var format string
	cmd := &cobra.Command{
		Use:   "validate",
		Short: "Check a specification, and show what it means",
		Long: "validate reads the specification as the other commands do, reports everything that is wrong with it, and says for each flow what\n" +
			"it means. With --connect it also asks the clusters which topics match and what would be created. It writes nothing.",
		Example: "  kferry validate -f mirror.yaml --connect\n  kferry validate -f mm2.properties -o json",
		Args:    noArguments,
	}
	in := newInput(p, cmd, "clusters")
	cmd.Flags().BoolVar(&connect, "connect", false, "ask the clusters: topics that match, their names and sizes, what would be created")
	cmd.Flags().StringVarP(&format, "output", "o", formats[0], "table or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case !slices.Contains(formats, format):
			return usageError{fmt.Errorf("-o %q: give table or json", format)}
		case format == "json" && connect:
			return usageError{errors.New("-o json says what the specification means; leave out --connect")}
		}
		s, err := in.load(cmd)
		if format == "json" {
			return validateJSON(cmd, s, err)
		}
		warn(cmd, s)
		if err != nil {
			return err
		}
		if err := describe(cmd.OutOrStdout(), s); err != nil || !connect {
			return err
		}
		return preview(cmd, s)
	}
	return cmd
}

func validateJSON(cmd *cobra.Command, s spec.Spec, mistakes error) error {
	if err := describeJSON(cmd.OutOrStdout(), s, mistakes); err != nil {
		return fmt.Errorf("write description: %w", err)
	}
	if mistakes != nil {
		return errSaid
	}
	return nil
}

// warn tells all that is odd about the input.
func warn(cmd *cobra.Command, s spec.Spec) {
	for _, warning := range s.Warnings {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", warning)
	}
}

// warnOfVariables is warn for commands that ask or decide: what a file says without effect would stand above each of their answers, a
// variable may be wrong in this shell alone.
func warnOfVariables(cmd *cobra.Command, s spec.Spec) {
	s.Warnings = slices.DeleteFunc(slices.Clone(s.Warnings), func(w string) bool { return !strings.HasPrefix(w, "KFERRY_") })
	warn(cmd, s)
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
