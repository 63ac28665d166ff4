package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

func newResume(p Process) *cobra.Command {
	r := coordinator.Request{Partition: anyPartition}
	var accept, restart bool
	var from int64
	cmd := &cobra.Command{
		Use:   "resume A->B",
		Short: "Decide how held partitions go on",
		Long: "resume acts on partitions of a flow that are held until somebody decides, and on no others. The decision goes into their cursors:\n" +
			"in the queue at NATS_URL, or that of a \"kferry run\" on the same --data, and on the target. Where no queue answers it waits on the\n" +
			"target for the next start. With --dry-run and no decision it shows what each would do. Exit code 1: nothing was done, or not all.",
		Example: "  kferry resume 'A->B' --dry-run\n  kferry resume 'A->B' --topic orders --accept-gap\n  kferry resume 'A->B' --topic orders --partition 3 --from 1200",
		Args:    oneFlow,
	}
	in := newInput(p, cmd, "data", "name", "nats-url")
	cmd.Flags().StringVar(&r.Topic, "topic", "", "only partitions of this topic, by its name on the source")
	cmd.Flags().Int32Var(&r.Partition, "partition", anyPartition, "only this partition")
	cmd.Flags().BoolVar(&accept, "accept-gap", false, "go on, and leave missing what can't be had any more")
	cmd.Flags().BoolVar(&restart, "restart", false, "copy again from where the flow starts, behind all that is there")
	cmd.Flags().Int64Var(&from, "from", 0, "go on at this offset of the source; for one partition")
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "write nothing, show what would come of it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r.Flow = args[0]
		if err := checkPartition(cmd, r.Partition); err != nil {
			return err
		}
		var decisions []lease.Decision
		if accept {
			decisions = append(decisions, lease.AcceptGap)
		}
		if restart {
			decisions = append(decisions, lease.Restart)
		}
		if cmd.Flags().Changed("from") {
			decisions = append(decisions, lease.From(from))
		}
		switch {
		case len(decisions) > 1:
			return usageError{errors.New("more than one thing is decided: give one of --accept-gap, --restart and --from OFFSET")}
		case len(decisions) == 1:
			r.Decision = decisions[0]
		case !r.DryRun:
			return usageError{errors.New("nothing is decided: give --accept-gap, --restart or --from OFFSET, or --dry-run to see what each would do")}
		}
		return resume(cmd, in, r)
	}
	return cmd
}

func resume(cmd *cobra.Command, in *input, r coordinator.Request) error {
	return withFlows(cmd, in, []string{r.Flow}, func(st *station, flows []spec.Flow) error {
		if err := checkTopic(flows, r.Topic); err != nil {
			return err
		}
		return st.decide(cmd, st.findQueue(cmd.Context(), "resume"), r)
	})
}

// decide has what is asked for decided, and says what came of it. noQueue is why the station has no queue.
func (st *station) decide(cmd *cobra.Command, noQueue error, r coordinator.Request) error {
	done, err := coordinator.Resume(cmd.Context(), st.view(), r)
	if err != nil {
		return err
	}
	if noQueue != nil {
		done.Alone = noQueue.Error()
	}
	if !told(cmd.OutOrStdout(), done, r) {
		return errSaid
	}
	return nil
}

// told says what was done and what was not, and whether that is all that was asked for.
func told(to io.Writer, all coordinator.Resumptions, r coordinator.Request) (complete bool) {
	written, complete := 0, r.DryRun || len(all.All) > 0
	if len(all.All) == 0 {
		fmt.Fprintf(to, "No partition of %s waits for a decision.\n", r.Flow)
	}
	for _, one := range all.All {
		fmt.Fprintf(to, "%s", one.Source())
		if one.Reason != "" && r.Positions == nil {
			fmt.Fprintf(to, ", held (%s)", one.Reason)
		}
		fmt.Fprintln(to)
		for _, c := range one.Choices {
			if c.Err == nil {
				fmt.Fprintf(to, "  %s: %s\n", c.Decision, c.Outcome)
			}
		}
		switch {
		case one.Err != nil:
			fmt.Fprintf(to, "  nothing done: %v\n", one.Err)
			complete = false
		case one.Written:
			written++
		}
	}
	switch {
	case r.DryRun:
		fmt.Fprintln(to, "Nothing is written.")
	case written > 0 && all.Alone != "":
		fmt.Fprintf(to, "Decided on the target alone, where it takes effect at the next start: %s.\n", all.Alone)
	case written > 0:
		fmt.Fprintln(to, "Decided. Workers carry it out; \"kferry status\" shows when they have.")
	}
	return complete
}
