package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"

	"github.com/hashicorp/go-multierror"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/functions"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/local"
	"github.com/kferry/kferry/shared/spec"
)

// A station is a process's place between the clusters and the queue: what a coordinator and a worker need.
type station struct {
	spec     spec.Spec
	clusters map[string]*kafka.Cluster
	budget   *kafka.Budget // for everything in flight
	queue    *lease.Queue  // nil until openQueue
	log      *slog.Logger
	metrics  prometheus.Registerer // nil is none
}

// inProcess is a queue's server in this process.
type inProcess interface {
	InProcessConn() (net.Conn, error)
}

// newStation opens the clusters, which asks nothing of them yet. A nil dial dials as usual.
func newStation(s spec.Spec, log *slog.Logger, metrics prometheus.Registerer, dial local.Dial) (*station, error) {
	st := &station{spec: s, clusters: map[string]*kafka.Cluster{}, budget: kafka.NewBudget(int64(s.Settings.Memory)), log: log, metrics: metrics}
	options := kafka.Options{Budget: st.budget, Logger: log, Dialer: dial}
	var wrong *multierror.Error
	for _, c := range s.Clusters {
		cluster, err := kafka.Open(c, options)
		if err != nil {
			wrong = multierror.Append(wrong, fmt.Errorf("open cluster %q: %w", c.Key(), err))
			continue
		}
		st.clusters[c.Key()] = cluster
		st.watchThrottle(c, cluster)
	}
	if err := wrong.ErrorOrNil(); err != nil {
		st.close()
		return nil, err
	}
	return st, nil
}

// withFlows does something about the flows of those names, or where none is given about all, with their clusters open.
func withFlows(cmd *cobra.Command, in *input, named []string, do func(st *station, flows []spec.Flow) error) error {
	s, err := in.load(cmd)
	if err != nil {
		return err
	}
	warnOfVariables(cmd, s)
	flows, err := flowsNamed(s, named)
	if err != nil {
		return err
	}
	st, err := newStation(s, silent, nil, nil)
	if err != nil {
		return err
	}
	defer st.close()
	return do(st, flows)
}

// watchThrottle shows how a cluster's quotas hold the process back.
func (st *station) watchThrottle(c spec.Cluster, cluster *kafka.Cluster) {
	if st.metrics != nil {
		st.metrics.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "kferry_throttle_seconds_total", Help: "Time that the cluster's brokers have told this process to wait, because of a quota.",
			ConstLabels: prometheus.Labels{"cluster": c.Key()},
		}, func() float64 { return cluster.Throttled().Seconds() }))
	}
}

// openQueue connects to a server in this process, or where there is none to one elsewhere.
func (st *station) openQueue(ctx context.Context, role string, nats spec.NATS, server inProcess) (err error) {
	st.queue, err = lease.Open(ctx, lease.Options{
		NATS: nats, InProcess: server, Name: st.spec.Name, LeaseTime: st.spec.Settings.LeaseTime,
		Client: clientName(role), Logger: st.log,
		Replicate: role == "coordinator" || role == "run", // others may not, and take the queue as it is
	})
	return err
}

// errNoQueue is that nothing says where a queue is.
var errNoQueue = errors.New(`no queue was found; give NATS_URL, or the --data of a "kferry run"`)

// findQueue opens the queue that is named, or that of a kferry run on the same directory. With an error the station has none.
func (st *station) findQueue(ctx context.Context, role string) error {
	settings := st.spec.Settings
	if nats := settings.NATS; nats.URL != "" {
		return st.openQueue(ctx, role, nats, nil)
	}
	nats, err := local.FindNATS(settings.Data)
	switch {
	case err != nil:
		return fmt.Errorf("find the queue of kferry run: %w", err)
	case nats.URL == "":
		return errNoQueue
	}
	nats.InboxPrefix, nats.Timeout = settings.NATS.InboxPrefix, settings.NATS.Timeout
	return st.openQueue(ctx, role, nats, nil)
}

// clientName is how NATS' reports call a process.
func clientName(role string) string {
	host, err := os.Hostname()
	if err != nil {
		return "kferry " + role
	}
	return fmt.Sprintf("kferry %s on %s", role, host)
}

func (st *station) coordinator() *coordinator.Coordinator {
	return coordinator.New(st.view())
}

// view is what the coordinator's package looks at, with or without a queue.
func (st *station) view() coordinator.Options {
	return coordinator.Options{Spec: st.spec, Queue: st.queue, Clusters: st.clusters, Logger: st.log, Metrics: st.metrics}
}

func (st *station) worker() *functions.Worker { return functions.NewWorker(st.workerOptions()) }

func (st *station) workerOptions() functions.Options {
	return functions.Options{
		Spec: st.spec, Queue: st.queue, Clusters: st.clusters, Slots: st.spec.Settings.Slots, Budget: st.budget, Logger: st.log, Metrics: st.metrics,
	}
}

// close ends every connection.
func (st *station) close() {
	if st.queue != nil {
		st.queue.Close()
	}
	for _, c := range st.clusters {
		c.Close()
	}
}
