package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

func newPause(p Process) *cobra.Command {
	return newPausing(p, "pause", "Stop copying a flow for a while",
		"pause stops everything that is done for a flow, within a few seconds and until \"kferry unpause\": over restarts, and whatever the\n"+
			"configuration says. Nothing is lost, as long as the source keeps it.", true)
}

func newUnpause(p Process) *cobra.Command {
	return newPausing(p, "unpause", "Go on with a flow that was paused",
		"unpause ends what \"kferry pause\" began: the flow goes on where it was.", false)
}

// newPausing is a command that pauses a flow, or ends its pause.
func newPausing(p Process, name, short, long string, paused bool) *cobra.Command {
	cmd := &cobra.Command{
		Use:   name + " A->B",
		Short: short,
		Long: long + " It is kept on the offsets topic, and told to the\n" +
			"queue: the one at NATS_URL, or that of a \"kferry run\" on the same --data. Quote the flow, since shells take > for themselves.",
		Example: "  kferry " + name + " -f mirror.yaml 'A->B'",
		Args:    oneFlow,
	}
	in := newInput(p, cmd, "data", "name", "nats-url")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return withFlows(cmd, in, args, func(st *station, flows []spec.Flow) error { return st.setPaused(cmd, flows[0], paused) })
	}
	return cmd
}

func (st *station) setPaused(cmd *cobra.Command, flow spec.Flow, paused bool) error {
	noQueue := st.findQueue(cmd.Context(), cmd.Name())
	if noQueue != nil && st.spec.Settings.NATS.URL != "" {
		return noQueue // of a run that was killed the queue is still named
	}
	var err error
	target := st.clusters[flow.TargetKey()]
	if st.queue != nil {
		err = st.queue.Cursors(flow, target).SetPaused(cmd.Context(), paused)
	} else {
		err = lease.WritePaused(cmd.Context(), flow, target, paused)
	}
	if errors.Is(err, kafka.ErrUnknownTopic) {
		return fmt.Errorf("%s on %s, where pauses are kept, is not there yet; start kferry first, which creates it: %w", flow.OffsetsTopic, flow.Target, err)
	}
	if err != nil {
		return err
	}
	if noQueue != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: this is on %s alone and holds from the next start of a coordinator: %v\n", flow.OffsetsTopic, noQueue)
	}
	switch to := cmd.OutOrStdout(); {
	case paused:
		_, err = fmt.Fprintf(to, "%s is paused\n", flow.Name())
	case flow.State != spec.Running:
		_, err = fmt.Fprintf(to, "%s is paused no longer, but its configuration says %s\n", flow.Name(), flow.State)
	default:
		_, err = fmt.Fprintf(to, "%s goes on\n", flow.Name())
	}
	return err
}
