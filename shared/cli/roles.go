package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
)

func newCoordinator(p Process) *cobra.Command {
	return newRole(p, "coordinator", "Decide what is to be copied, for workers elsewhere",
		"coordinator compares the clusters and puts what is to be copied on the queue at NATS_URL. It keeps nothing itself: run one, or\n"+
			"several against the loss of one.",
		func(v *service) func(context.Context) error { return v.scaled(v.coordinator()) })
}

func newWorker(p Process) *cobra.Command {
	return newRole(p, "worker", "Copy what a coordinator has put on the queue",
		"worker claims leases from the queue at NATS_URL and copies. It keeps nothing itself: run as many as there is work for.",
		func(v *service) func(context.Context) error { return v.worker().Run }, "slots")
}

// newRole is a command that does one part, with a queue that it shares with the others.
func newRole(p Process, name, short, long string, part func(*service) func(context.Context) error, more ...string) *cobra.Command {
	cmd := &cobra.Command{Use: name, Short: short, Long: long, Example: "  kferry " + name + " -f mirror.yaml", Args: noArguments}
	in := newInput(p, cmd, append(more, "clusters", "http", "log-format", "log-level", "memory", "name", "nats-url")...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		v, err := newService(cmd, in)
		if err != nil {
			return err
		}
		defer v.close()
		if v.spec.Settings.NATS.URL == "" {
			return usageError{errors.New("NATS_URL is not set; " + name +
				" needs a NATS server with JetStream that it shares with the others, like nats://localhost:4222 (\"kferry run\" needs none)")}
		}
		if err := v.openQueue(cmd.Context(), name, v.spec.Settings.NATS, nil); err != nil {
			return err
		}
		v.log.Info("started", "role", name, "flows", len(v.spec.Flows))
		return v.serve(cmd.Context(), part(v))
	}
	return cmd
}
