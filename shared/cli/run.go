package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/shared/local"
)

// errCaughtUp ends a run that was to go on only until then.
var errCaughtUp = errors.New("caught up")

func newRun(p Process) *cobra.Command {
	var untilCaughtUp bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Copy, with everything in this one process",
		Long: "run copies until it is stopped: coordinator, worker and work queue in one process. The queue lies in --data, unless\n" +
			"NATS_URL names another one. Stopped at any moment, even by force, it goes on where it was at the next start.",
		Example: "  kferry run -f mirror.yaml\n  kferry run -f mm2.properties --until-caught-up",
		Args:    noArguments,
	}
	in := newInput(p, cmd, "clusters", "data", "http", "log-format", "log-level", "memory", "name", "nats-url", "slots")
	cmd.Flags().BoolVar(&untilCaughtUp, "until-caught-up", false,
		"end when every partition is copied up to where its source ended at the start; exit code 1 where one is held, or fails for a minute")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		v, err := newService(cmd, in, nil)
		if err != nil {
			return err
		}
		defer v.close()
		if s := v.spec.Settings; s.Front.Push || s.WakeUps.URL != "" {
			v.log.Warn(`KFERRY_PUSH and KFERRY_PUSH_URL have no effect here: run's own worker claims by itself; for one that is called use "kferry coordinator" and "kferry worker"`)
		}
		stop, err := v.ownQueue(cmd.Context())
		if err != nil {
			return err
		}
		defer stop()
		if untilCaughtUp {
			return v.catchUp(cmd)
		}
		c, w := v.coordinator(), v.worker()
		v.log.Info("copying", "flows", len(v.spec.Flows))
		return v.serve(cmd.Context(), v.scaled(c), w.Run, v.progress(c, w))
	}
	return cmd
}

// ownQueue brings up a queue in this process where no other one is named. Nobody else can hold a lease of it, so what an earlier
// process left is purged: else its leases would have to run out first.
func (v *service) ownQueue(ctx context.Context) (stop func(), err error) {
	if nats := v.spec.Settings.NATS; nats.URL != "" {
		return func() {}, v.openQueue(ctx, "run", nats, nil)
	}
	server, err := local.StartNATS(v.spec.Settings.Data, local.NATSLogger(v.log), local.NATSShared())
	if err != nil {
		return nil, err
	}
	if err := v.openQueue(ctx, "run", server.Address(), server); err != nil {
		server.Close()
		return nil, err
	}
	if err := v.queue.Purge(ctx); err != nil {
		server.Close()
		return nil, err
	}
	return func() {
		v.queue.Close() // before its server, which it would otherwise miss loudly
		server.Close()
	}, nil
}

// catchUp copies what is there now, and reports.
func (v *service) catchUp(cmd *cobra.Command) error {
	c, w := v.coordinator(), v.worker()
	var summary coordinator.Summary
	err := v.serve(cmd.Context(), c.Run, w.Run, v.progress(c, w), func(ctx context.Context) (err error) {
		if summary, err = c.CaughtUp(ctx); err != nil {
			return err
		}
		return errCaughtUp // which stops the others
	})
	if !errors.Is(err, errCaughtUp) && !errors.Is(err, context.Canceled) {
		return err
	}
	if err := summary.Table(cmd.OutOrStdout()); err != nil {
		return fmt.Errorf("write summary: %w", err)
	}
	switch {
	case cmd.Context().Err() != nil:
		return errors.New("stopped before everything was caught up")
	case !summary.Complete():
		return errSaid
	}
	return nil
}
