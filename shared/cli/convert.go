package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kferry/kferry/shared/spec"
)

func newConvert(p Process) *cobra.Command {
	var to string
	var secrets bool
	var formats []string
	for _, f := range spec.Formats {
		formats = append(formats, string(f))
	}
	cmd := &cobra.Command{
		Use:   "convert",
		Short: "Write a specification in another form",
		Long: "convert reads the specification as the other commands do and writes it in another form: " + strings.Join(formats, ", ") + ". What that\n" +
			"form can't say and nothing depends on is named in comments; where more would be lost nothing is written. Cursors stay where they\n" +
			"are: kferry.connector and offsets.storage.topic say so where the other form would keep them elsewhere. A reference to a secret is\n" +
			"written as it was read, never what it stands for; secrets that the input holds as they are, only with --show-secrets.",
		Example: "  kferry convert --to strimzi-v1 -f mm2.properties > mirror.yaml",
		Args:    noArguments,
	}
	in := newInput(p, cmd)
	cmd.Flags().StringVar(&to, "to", "", strings.Join(formats[:len(formats)-1], ", ")+" or "+formats[len(formats)-1])
	cmd.Flags().BoolVar(&secrets, "show-secrets", false, "write secrets that the input holds as they are; those that it refers to stay references")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !slices.Contains(formats, to) {
			return usageError{fmt.Errorf("--to %q: give %s", to, strings.Join(formats, " or "))}
		}
		s, err := in.load(cmd)
		if err != nil {
			return err
		}
		text, leftOut, err := spec.Write(s, spec.Format(to), secrets)
		if err != nil {
			return err
		}
		for _, what := range leftOut {
			s.Warnings = append(s.Warnings, "left out: "+what)
		}
		warn(cmd, s)
		if _, err := io.WriteString(cmd.OutOrStdout(), text); err != nil {
			return fmt.Errorf("write %s: %w", to, err)
		}
		return nil
	}
	return cmd
}
