// Package cli is kferry's command line: one file per command.
//
// Invariants:
//   - What a command found goes to standard output, everything else to standard error.
//   - The exit code is 0 when the command did what it was asked for, 1 when it did not, 2 when it was asked wrongly. verify
//     has one more, for what can't be compared.
//   - Flags win over environment variables: a flag is its variable, set for this process alone.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// Exit codes.
const (
	exitOK            = 0
	exitFailed        = 1
	exitUsage         = 2
	exitNotComparable = 3 // of verify alone
)

// errSaid is a failure that the command has already told of.
var errSaid = errors.New("failed")

// A usageError is a command that was asked wrongly.
type usageError struct{ error }

// A Process is what a command gets from whoever started it.
type Process struct {
	Args     []string // without the program's name
	Environ  []string // as os.Environ has it
	Out, Err io.Writer
}

// echo is how long after the first signal another one counts as the same: timeout and some shells send it to the process and once more
// to its group.
const echo = 500 * time.Millisecond

// Main runs the command line of this process, and ends it. The first signal asks the command to finish what is in flight, the
// second one ends it at once.
func Main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, func() { time.AfterFunc(echo, stop) })
	os.Exit(Run(ctx, Process{Args: os.Args[1:], Environ: os.Environ(), Out: os.Stdout, Err: os.Stderr}))
}

// Run runs one command until it is done or ctx ends, and returns its exit code.
func Run(ctx context.Context, p Process) int {
	began := false
	root := newRoot(p)
	root.PersistentPreRun = func(*cobra.Command, []string) { began = true }
	err := root.ExecuteContext(ctx)
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errSaid):
		return exitFailed
	case errors.Is(err, errNotComparable):
		return exitNotComparable
	case !began || errors.As(err, &usage): // before it began, cobra found an unknown command, flag or argument
		fmt.Fprintf(p.Err, "kferry: %v\nRun \"kferry help\" for what it can do.\n", err)
		return exitUsage
	}
	fmt.Fprintf(p.Err, "kferry: %v\n", err)
	return exitFailed
}

func newRoot(p Process) *cobra.Command {
	root := &cobra.Command{
		Use:   "kferry",
		Short: "Copies Kafka topics from cluster to cluster, exactly once",
		Long: "kferry copies Kafka topics from any number of clusters to another one, continuously and exactly once.\n" +
			"\"kferry demo\" shows it in 15 seconds, without a broker.",
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetArgs(p.Args)
	root.SetOut(p.Out)
	root.SetErr(p.Err)
	root.AddCommand(newRun(p), newCoordinator(p), newWorker(p), newValidate(p), newConvert(p), newStatus(p), newLimit(p), newPause(p), newUnpause(p), newResume(p), newOffsets(p), newGaps(p), newGroups(p), newVerify(p), newDemo(p))
	return root
}

// noArguments refuses what isn't a flag. Most people who give something mean a file.
func noArguments(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case cmd.Flags().Lookup("file") != nil:
		return fmt.Errorf("%s takes no arguments, and %q is one; a file is given with -f", cmd.CommandPath(), args[0])
	}
	return fmt.Errorf("%s takes no arguments, and %q is one", cmd.CommandPath(), args[0])
}

// terminal says whether people look at what is written.
func terminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
