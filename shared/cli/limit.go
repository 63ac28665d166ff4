package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// A limitRequest is what flags ask for.
type limitRequest struct {
	topic, bytes, records string
	clear                 bool
}

func newLimit(p Process) *cobra.Command {
	var asked limitRequest
	cmd := &cobra.Command{
		Use:   "limit [A->B]",
		Short: "Show or set how fast a flow may read from its source",
		Long: "limit shows the limits that hold. With --bytes or --records it sets one while workers run: it holds within a few seconds, for all\n" +
			"workers together, in place of the configuration's and until it is cleared, also over restarts. It goes to the offsets topic and\n" +
			"to the queue: the one at NATS_URL, or that of a \"kferry run\" on the same --data. Quote the flow, since shells take > for themselves.",
		Example: "  kferry limit -f mirror.yaml\n  kferry limit -f mirror.yaml 'A->B' --bytes 5MiB\n" +
			"  kferry limit -f mirror.yaml 'A->B' --topic orders --records 1000\n  kferry limit -f mirror.yaml 'A->B' --clear",
		Args: oneFlowOrAll,
	}
	in := newInput(p, cmd, "data", "name", "nats-url")
	cmd.Flags().StringVar(&asked.topic, "topic", "", "the limit of one topic of the source, within the flow's")
	cmd.Flags().StringVar(&asked.bytes, "bytes", "", "most bytes a second, like 5MiB; 0 is no limit")
	cmd.Flags().StringVar(&asked.records, "records", "", "most records a second, like 1000; 0 is no limit")
	cmd.Flags().BoolVar(&asked.clear, "clear", false, "have the configuration's limit hold again")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		change, err := asked.change()
		if err != nil {
			return usageError{err}
		}
		return withFlows(cmd, in, args, func(st *station, flows []spec.Flow) error {
			noQueue := st.findQueue(cmd.Context(), "limit")
			if noQueue != nil && st.spec.Settings.NATS.URL != "" {
				return noQueue // of a run that was killed the queue is still named
			}
			if change != nil {
				if len(flows) > 1 {
					return usageError{fmt.Errorf("a limit is one flow's; name one of %s", names(flows))}
				}
				if err := checkTopic(flows, asked.topic); err != nil {
					return err
				}
				if err := st.setLimit(cmd, flows[0], asked.topic, change, noQueue); err != nil {
					return err
				}
			}
			return st.showLimits(cmd.Context(), cmd.OutOrStdout(), flows)
		})
	}
	return cmd
}

// change is what is to be done to a limit; nil is nothing.
func (r limitRequest) change() (func(lease.Limit) lease.Limit, error) {
	if r.clear {
		if r.bytes != "" || r.records != "" {
			return nil, errors.New("--clear and a limit exclude each other; give one of them")
		}
		return func(lease.Limit) lease.Limit { return lease.Limit{} }, nil
	}
	bytes, err := parseRate("--bytes", r.bytes, spec.ParseByteRate)
	if err != nil {
		return nil, err
	}
	records, err := parseRate("--records", r.records, spec.ParseRecordRate)
	if err != nil {
		return nil, err
	}
	switch {
	case bytes == nil && records == nil && r.topic != "":
		return nil, errors.New("--topic is for a limit; give --bytes, --records or --clear, too")
	case bytes == nil && records == nil:
		return nil, nil
	}
	return func(l lease.Limit) lease.Limit {
		return lease.Limit{Bytes: cmp.Or(bytes, l.Bytes), Records: cmp.Or(records, l.Records)}
	}, nil
}

func parseRate(flag, text string, parse func(string) (int64, error)) (*int64, error) {
	if text == "" {
		return nil, nil
	}
	n, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", flag, text, err)
	}
	return &n, nil
}

// setLimit changes the limit that was set while running.
func (st *station) setLimit(cmd *cobra.Command, flow spec.Flow, topic string, change func(lease.Limit) lease.Limit, noQueue error) error {
	target := st.clusters[flow.TargetKey()]
	set, err := lease.ReadLimits(cmd.Context(), flow, target)
	if err != nil {
		return err
	}
	if st.queue != nil {
		err = st.queue.Cursors(flow, target).SetLimit(cmd.Context(), topic, change(set[topic]))
	} else {
		err = lease.WriteNote(cmd.Context(), flow, target, lease.LimitKey(topic), change(set[topic]))
	}
	if errors.Is(err, kafka.ErrUnknownTopic) {
		return fmt.Errorf("%s on %s, where limits are kept, is not there yet; start kferry first, which creates it: %w", flow.OffsetsTopic, flow.Target, err)
	}
	if err == nil && noQueue != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: this is on %s alone and holds from the next start of a coordinator: %v\n", flow.OffsetsTopic, noQueue)
	}
	return err
}

func (st *station) showLimits(ctx context.Context, to io.Writer, flows []spec.Flow) error {
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "FLOW\tOF\tLIMIT\tFROM")
	for _, f := range flows {
		limits, err := coordinator.LimitsOf(ctx, st.view(), f)
		if err != nil {
			return err
		}
		for _, l := range limits {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", f.Name(), l.Of(), l.Rate(), l.From())
		}
		if len(limits) == 0 {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", f.Name(), "the whole flow", "none", "configuration")
		}
	}
	return table.Flush()
}
