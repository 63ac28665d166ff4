package cli

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

func newOffsets(p Process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "offsets",
		Short: "List, set or reset a flow's positions, in Connect's JSON",
		Long: "offsets does for a flow what /connectors/{connector}/offsets does for a connector of Kafka Connect (KIP-875), in the same JSON. An\n" +
			"offset is that of the last record copied: the flow goes on with the next one.",
	}
	cmd.AddCommand(newOffsetsList(p), newOffsetsSet(p), newOffsetsReset(p))
	return cmd
}

func newOffsetsList(p Process) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list A->B",
		Short:   "Show the offset of the last record copied, of each partition",
		Example: "  kferry offsets list 'A->B' > offsets.json",
		Args:    oneFlow,
	}
	in := newInput(p, cmd, "data", "name", "nats-url")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return withFlow(cmd, in, args[0], func(st *station, flow spec.Flow, _ error) error {
			positions, err := coordinator.Positions(cmd.Context(), st.view(), flow.Name())
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(coordinator.FormatPositions(flow, positions))
			return err
		})
	}
	return cmd
}

func newOffsetsSet(p Process) *cobra.Command {
	r := coordinator.Request{}
	cmd := &cobra.Command{
		Use:   "set A->B [FILE]",
		Short: "Have partitions go on behind other offsets",
		Long: "set reads offsets from a file, or from standard input, in the form that list writes, and has those partitions go on behind them; all\n" +
			"others stay as they are. null in the place of an offset resets it. Each becomes a decision, as those of \"kferry resume\": whoever\n" +
			"copies the partition meanwhile loses it, records that have landed stay, and what is left out or copied twice is on record (\"kferry\n" +
			"gaps\"). So nothing has to be stopped. Nothing is written unless all of it can be. Exit code 1: not everything was done.",
		Example: "  kferry offsets set 'A->B' offsets.json --dry-run\n  kferry offsets list 'A->B' | jq … | kferry offsets set 'A->B'",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				args = args[:1]
			}
			return oneFlow(cmd, args)
		},
	}
	in := newInput(p, cmd, "data", "name", "nats-url")
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "write nothing, show what would come of it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		text, err := readOffsets(cmd, args[1:])
		if err != nil {
			return err
		}
		return withFlow(cmd, in, args[0], func(st *station, flow spec.Flow, noQueue error) error {
			if r.Positions, err = coordinator.ParsePositions(flow, text); err != nil {
				return usageError{err}
			}
			r.Flow = flow.Name()
			return st.decide(cmd, noQueue, r)
		})
	}
	return cmd
}

func newOffsetsReset(p Process) *cobra.Command {
	r := coordinator.Request{}
	var topic string
	var partition int32
	var all bool
	cmd := &cobra.Command{
		Use:   "reset A->B",
		Short: "Have partitions begin again, behind what is on the target",
		Long: "reset forgets positions, as Connect does: the partitions begin again where the flow begins (KFERRY_START), so records that are on the\n" +
			"target already are copied once more, behind them. To have a clean copy, delete the target topic as well. See \"kferry offsets set\".",
		Example: "  kferry offsets reset 'A->B' --topic orders --partition 3 --dry-run\n  kferry offsets reset 'A->B' --all",
		Args:    oneFlow,
	}
	in := newInput(p, cmd, "data", "name", "nats-url")
	cmd.Flags().StringVar(&topic, "topic", "", "only partitions of this topic, by its name on the source")
	cmd.Flags().Int32Var(&partition, "partition", anyPartition, "only this partition")
	cmd.Flags().BoolVar(&all, "all", false, "every partition of the flow")
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "write nothing, show what would come of it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkPartition(cmd, partition); err != nil {
			return err
		}
		if all == (topic != "") {
			return usageError{errors.New("give --topic, or --all for every partition of the flow")}
		}
		return withFlow(cmd, in, args[0], func(st *station, flow spec.Flow, noQueue error) error {
			if err := checkTopic([]spec.Flow{flow}, topic); err != nil {
				return err
			}
			positions, err := coordinator.Positions(cmd.Context(), st.view(), flow.Name())
			if err != nil {
				return err
			}
			r.Positions = map[kafka.TopicPartition]lease.Decision{}
			for tp := range positions {
				if (all || tp.Topic == topic) && (partition == anyPartition || tp.Partition == partition) {
					r.Positions[tp] = lease.Restart
				}
			}
			if len(r.Positions) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "There is no position to reset.")
				return nil
			}
			r.Flow = flow.Name()
			return st.decide(cmd, noQueue, r)
		})
	}
	return cmd
}

// readOffsets reads a file, or standard input where none is named.
func readOffsets(cmd *cobra.Command, files []string) ([]byte, error) {
	if len(files) == 0 || files[0] == "-" {
		text, err := io.ReadAll(cmd.InOrStdin())
		if err != nil {
			err = fmt.Errorf("read standard input: %w", err)
		}
		return text, err
	}
	return os.ReadFile(files[0])
}

// withFlow is withFlows for one. noQueue is why no queue was found.
func withFlow(cmd *cobra.Command, in *input, name string, do func(st *station, flow spec.Flow, noQueue error) error) error {
	return withFlows(cmd, in, []string{name}, func(st *station, flows []spec.Flow) error {
		return do(st, flows[0], st.findQueue(cmd.Context(), "offsets"))
	})
}
