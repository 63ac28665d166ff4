package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
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
		Use:   "limit [FLOW]",
		Short: "Show or set how fast a flow may read from its source",
		Long: "limit shows the limits that hold. With --bytes or --records it sets one while workers run: it holds within a few seconds, for all\n" +
			"workers together, in place of the configuration's and until it is cleared, also over restarts. It goes to the offsets topic and\n" +
			"to the queue: the one at NATS_URL, or that of a \"kferry run\" on the same --data. Quote the flow, since shells take > for themselves.",
		Example: "  kferry limit -f mirror.yaml\n  kferry limit -f mirror.yaml 'A->B' --bytes 5MiB\n" +
			"  kferry limit -f mirror.yaml 'A->B' --topic orders --records 1000\n  kferry limit -f mirror.yaml 'A->B' --clear",
		Args: cobra.MaximumNArgs(1),
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
		s, err := in.load(cmd)
		if err != nil {
			return err
		}
		warn(cmd, s)
		flows, err := flowsNamed(s, args)
		if err != nil {
			return usageError{err}
		}
		st, err := newStation(s, silent, nil, nil)
		if err != nil {
			return err
		}
		defer st.close()
		if err := st.findQueue(cmd.Context(), "limit"); err != nil && s.Settings.NATSURL != "" {
			return err // of a run that was killed the queue is still named
		}
		if change != nil {
			if len(flows) > 1 {
				return usageError{fmt.Errorf("a limit is one flow's; name one of %s", names(flows))}
			}
			if asked.topic != "" && !flows[0].Selects(asked.topic) {
				return usageError{fmt.Errorf("--topic %q: %s does not copy a topic of this name; give it as it is called on %s", asked.topic, flows[0].Name(), flows[0].Source)}
			}
			if err := st.setLimit(cmd, flows[0], asked.topic, change); err != nil {
				return err
			}
		}
		return st.showLimits(cmd.Context(), cmd.OutOrStdout(), flows)
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

// flowsNamed is the flow that is named, or where none is, all.
func flowsNamed(s spec.Spec, args []string) ([]spec.Flow, error) {
	if len(args) == 0 {
		return s.Flows, nil
	}
	flow, known := s.Flow(args[0])
	switch {
	case known:
		return []spec.Flow{flow}, nil
	case strings.HasSuffix(args[0], "-"):
		return nil, fmt.Errorf("%q is no flow; the shell took the rest for itself: write the flow in quotes, like '%s'", args[0], s.Flows[0].Name())
	}
	return nil, fmt.Errorf("%q is no flow; give one of %s", args[0], names(s.Flows))
}

func names(flows []spec.Flow) string {
	var all []string
	for _, f := range flows {
		all = append(all, "'"+f.Name()+"'")
	}
	return strings.Join(all, ", ")
}

// setLimit changes the limit that was set while running.
func (st *station) setLimit(cmd *cobra.Command, flow spec.Flow, topic string, change func(lease.Limit) lease.Limit) error {
	target := st.clusters[flow.Target]
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
	if err == nil && st.queue == nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: no queue was found, so this is on %s alone and holds from the next start of a coordinator; give NATS_URL, or the --data of a \"kferry run\"\n", flow.OffsetsTopic)
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
