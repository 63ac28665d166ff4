package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/functions"
	"github.com/kferry/kferry/shared/spec"
)

func newCoordinator(p Process) *cobra.Command {
	return newRole(p, role{
		name: "coordinator", short: "Decide what is to be copied, for workers elsewhere",
		long: "coordinator compares the clusters and puts what is to be copied on the queue at NATS_URL. It keeps nothing itself: run one, or\n" +
			"several against the loss of one.",
		behind: func(_ *door, s spec.Settings) error { return checkPushToken(s.WakeUps) },
		part: func(v *service) func(context.Context) error {
			o := v.view()
			if o.Spec.Settings.WakeUps.URL != "" {
				o.WakeUps = http.DefaultTransport
			}
			return v.scaled(coordinator.New(o))
		},
	})
}

// checkPushToken finds a file that can't be read now, and not when work waits. Later it may be replaced.
func checkPushToken(w spec.WakeUps) error {
	if w.URL == "" || !w.Token.Set() {
		return nil
	}
	token, err := w.Token.Read()
	if err == nil {
		err = spec.CheckToken(token)
	}
	if err != nil {
		return fmt.Errorf("KFERRY_PUSH_TOKEN_FILE: %w", err)
	}
	return nil
}

// onceIdle is how long --once looks for work.
const onceIdle = time.Second

func newWorker(p Process) *cobra.Command {
	var once bool
	var runs int
	var idle time.Duration
	var push *functions.Push // set before the door serves
	r := role{
		name: "worker", short: "Copy what a coordinator has put on the queue",
		long: "worker claims leases from the queue at NATS_URL and copies. It keeps nothing itself: run as many as there is work for.\n" +
			"With --push it claims when it is called, by a CloudEvent that is POSTed to /, and holds nothing in between. With --once, --max-runs\n" +
			"or --idle-exit it ends by itself, with exit code 0 whether there was work or not, and 1 where the queue could not be asked.",
		flags: []string{"slots", "push"},
		check: func() error {
			switch {
			case once && runs > 0:
				return usageError{errors.New("--once is --max-runs 1; give one of them")}
			case once:
				runs, idle = 1, cmp.Or(idle, onceIdle)
			}
			return nil
		},
		behind: func(d *door, s spec.Settings) error {
			if !s.Front.Push {
				return nil
			}
			if runs > 0 || idle > 0 {
				return usageError{errors.New("a worker that is called (--push, KFERRY_PUSH) does not end by itself; leave --once, --max-runs and --idle-exit out")}
			}
			d.changes("POST /{$}", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { push.ServeHTTP(w, r) }))
			return nil
		},
		part: func(v *service) func(context.Context) error {
			o := v.workerOptions()
			o.MaxRuns, o.IdleExit = runs, idle
			w := functions.NewWorker(o)
			if !v.spec.Settings.Front.Push {
				return w.Run
			}
			push = functions.NewPush(w)
			return push.Run
		},
	}
	cmd := newRole(p, r)
	cmd.Flags().BoolVar(&once, "once", false, "do one run, if work waits, and end")
	cmd.Flags().Func("max-runs", "end after this `number` of runs", func(text string) (err error) {
		if runs, err = strconv.Atoi(text); err != nil || runs < 1 {
			return errors.New("give a number of runs, 1 or more")
		}
		return nil
	})
	cmd.Flags().Func("idle-exit", "end when there was nothing to do for this `time`, like 30s", func(text string) (err error) {
		if idle, err = time.ParseDuration(text); err != nil || idle <= 0 {
			return errors.New("give a time with its unit, like 30s")
		}
		return nil
	})
	cmd.Flags().Lookup("push").NoOptDefVal = "true"
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		if strings.HasSuffix(err.Error(), " --http") { // others call the front so
			return fmt.Errorf("%w, an address like 127.0.0.1:8080; for a worker that is called give --push", err)
		}
		return err
	})
	return cmd
}

// A role is a command that does one part, with a queue that it shares with the others.
type role struct {
	name, short, long string
	flags             []string // of input, beside those that every role has
	check             func() error
	behind            func(*door, spec.Settings) error // puts things behind the door, or says what is wrong with the settings
	part              func(*service) func(context.Context) error
}

func newRole(p Process, r role) *cobra.Command {
	cmd := &cobra.Command{Use: r.name, Short: r.short, Long: r.long, Example: "  kferry " + r.name + " -f mirror.yaml", Args: noArguments}
	in := newInput(p, cmd, append(r.flags, "clusters", "http", "log-format", "log-level", "memory", "name", "nats-url")...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if r.check != nil {
			if err := r.check(); err != nil {
				return err
			}
		}
		v, err := newService(cmd, in, r.behind)
		if err != nil {
			return err
		}
		defer v.close()
		if v.spec.Settings.NATS.URL == "" {
			return usageError{errors.New("NATS_URL is not set; " + r.name +
				" needs a NATS server with JetStream that it shares with the others, like nats://localhost:4222 (\"kferry run\" needs none)")}
		}
		if err := v.openQueue(cmd.Context(), r.name, v.spec.Settings.NATS, nil); err != nil {
			return err
		}
		v.log.Info("started", "role", r.name, "flows", len(v.spec.Flows))
		return v.serve(cmd.Context(), r.part(v))
	}
	return cmd
}
