package cli

import (
	"context"
	"io"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/functions"
	"github.com/kferry/kferry/shared/spec"
)

// runtimeMemory is what the process may use beside the records in flight before the collector works harder. With the usual
// KFERRY_MEMORY it keeps the whole of "kferry run" below 128 MiB.
const runtimeMemory = 64 * spec.MiB

// A service is a process that goes on until it is told to stop: run, coordinator or worker.
type service struct {
	*station
	screen   *screen
	out      io.Writer // standard output
	registry *prometheus.Registry
	door     *door
	ready    atomic.Bool // and stays so until the service ends
}

// newService takes what the process needs before it can promise anything: the specification, the HTTP address, its clusters.
// What is to be behind the door is put there by behind, unless that is nil.
func newService(cmd *cobra.Command, in *input, behind func(*door, spec.Settings) error) (*service, error) {
	s, err := in.load(cmd)
	if err != nil {
		return nil, err
	}
	limitMemory(s.Settings.Memory)
	v := &service{screen: newScreen(in.process.Err), out: in.process.Out, registry: newRegistry()}
	if s.Settings.MM2Metrics {
		v.registry.MustRegister(appInfo{time.Now()})
	}
	log := in.logger(s.Settings, v.screen)
	for _, warning := range s.Warnings {
		log.Warn(warning)
	}
	v.door = newDoor(s.Settings.HTTP, log)
	watchable(v.door, v.registry, v.ready.Load)
	if behind != nil {
		if err := behind(v.door, s.Settings); err != nil {
			return nil, err
		}
	}
	if err := v.door.listen(); err != nil {
		return nil, err
	}
	if v.station, err = newStation(s, log, v.registry, nil); err != nil {
		v.door.close()
		return nil, err
	}
	return v, nil
}

// limitMemory leaves the last word to GOMEMLIMIT.
func limitMemory(records spec.Bytes) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(runtimeMemory + records))
	}
}

// serve runs what is given, beside HTTP, until it is told to stop, one of them fails or all are done.
func (v *service) serve(told context.Context, parts ...func(context.Context) error) error {
	going, end := context.WithCancel(told)
	defer end()
	g, ctx := errgroup.WithContext(going)
	v.ready.Store(true)
	g.Go(func() error {
		<-ctx.Done()
		v.ready.Store(false)
		if told.Err() != nil {
			v.log.Info("stopping; what is in flight is finished")
		}
		return nil
	})
	open, shut := context.WithCancel(context.WithoutCancel(ctx)) // while the parts end, too: who calls is told that they do
	g.Go(func() error { return v.door.serve(open) })
	var working sync.WaitGroup
	for _, part := range parts {
		working.Add(1)
		g.Go(func() error {
			defer working.Done()
			return part(ctx)
		})
	}
	working.Wait()
	shut()
	end() // also where they came to an end by themselves
	err := g.Wait()
	if err == nil {
		v.log.Info("stopped")
	}
	return err
}

// progress shows a line while the two of them copy a backlog.
func (v *service) progress(c *coordinator.Coordinator, w *functions.Worker) func(context.Context) error {
	return func(ctx context.Context) error {
		watch(ctx, v.screen, func() copied {
			var now copied
			now.records, now.bytes = w.Copied()
			for _, f := range c.Flows() {
				now.lag += f.Lag()
				now.end += f.End()
			}
			return now
		})
		return nil
	}
}

func (v *service) close() {
	v.door.close()
	v.station.close()
}
