package cli_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/functions"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/local"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// A bubble is clusters and a queue in virtual time, on which coordinators and workers meet: here alone may both be imported.
type bubble struct {
	*testing.T
	*local.Env
	ctx     context.Context
	running errgroup.Group
}

// inBubble runs a test on clusters of those aliases.
func inBubble(t *testing.T, aliases []string, test func(b *bubble)) {
	t.Helper()
	var clusters []local.Cluster
	for _, alias := range aliases {
		clusters = append(clusters, local.Cluster{Alias: alias})
	}
	inBubbleOf(t, clusters, test)
}

func inBubbleOf(t *testing.T, clusters []local.Cluster, test func(b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		env, err := local.Start(local.Setup{Virtual: true, Dir: t.TempDir(), Clusters: clusters})
		if err != nil {
			t.Fatal(err)
		}
		defer env.Close()
		ctx, cancel := context.WithCancel(t.Context())
		b := &bubble{T: t, Env: env, ctx: ctx}
		defer func() {
			cancel()
			b.must(b.running.Wait())
		}()
		test(b)
	})
}

func (b *bubble) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// flow copies all topics from one cluster to another one, under their aliases.
func (b *bubble) flow(source, target string) spec.Flow {
	b.Helper()
	all, err := spec.ParsePatterns(".*")
	b.must(err)
	return spec.Flow{
		Source: source, Target: target, State: spec.Running, Policy: mm2.DefaultPolicy{}, Refresh: 5 * time.Second, Heartbeats: true,
		Isolation: spec.ReadCommitted, ReplicationFactor: -1, OffsetsReplicationFactor: -1,
		Filters:      []spec.Filter{{Topics: all}},
		OffsetsTopic: mm2.OffsetsTopic(source), Connector: mm2.SourceConnector,
	}
}

// coordinate and work start a process that does one part of an installation. It ends with the test, or by what they return.
func (b *bubble) coordinate(s spec.Spec) process { return b.begin(s, newCoordinator) }
func (b *bubble) work(s spec.Spec) process       { return b.begin(s, newWorker) }

func newCoordinator(s spec.Spec, q *lease.Queue, clusters map[string]*kafka.Cluster) func(context.Context) error {
	return coordinator.New(coordinator.Options{Spec: s, Queue: q, Clusters: clusters}).Run
}

func newWorker(s spec.Spec, q *lease.Queue, clusters map[string]*kafka.Cluster) func(context.Context) error {
	return functions.NewWorker(functions.Options{Spec: s, Queue: q, Clusters: clusters, Logger: slog.New(slog.DiscardHandler)}).Run
}

// A process is a part of an installation with connections of its own. It can be stopped, and killed.
type process struct{ stop, kill func() }

func (b *bubble) begin(s spec.Spec, role func(spec.Spec, *lease.Queue, map[string]*kafka.Cluster) func(context.Context) error) process {
	b.Helper()
	const memory = 8 << 20
	s.Settings.Memory = memory
	line := b.Line()
	queue, err := lease.Open(b.ctx, lease.Options{InProcess: line, Name: s.Name})
	b.must(err)
	clusters := map[string]*kafka.Cluster{}
	for _, c := range s.Clusters {
		clusters[c.Key()], err = kafka.Open(c, kafka.Options{Dialer: line.Dial, Budget: kafka.NewBudget(memory)})
		b.must(err)
	}
	run := role(s, queue, clusters)
	ctx, stop := context.WithCancel(b.ctx)
	b.running.Go(func() error {
		err := run(ctx)
		queue.Close()
		for _, c := range clusters {
			c.Close()
		}
		return err
	})
	return process{stop: stop, kill: func() {
		line.Cut()
		stop()
	}}
}

// topics are a cluster's, but for those of kferry and Kafka themselves.
func (b *bubble) topics(alias string) (names []string) {
	b.Helper()
	cluster, err := kafka.Open(b.Spec(alias), kafka.Options{Dialer: b.Dial})
	b.must(err)
	defer cluster.Close()
	all, err := cluster.Topics(b.ctx)
	b.must(err)
	for _, t := range all {
		if !mm2.Internal(mm2.DefaultPolicy{}, t.Name) {
			names = append(names, t.Name)
		}
	}
	return names
}
