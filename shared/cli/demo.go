package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/shared/local"
	"github.com/kferry/kferry/shared/spec"
)

// The founding scenario: two clusters of different vendors and versions, and the one that both are copied into.
const demoCentral = "kafka-centralized-mm2connector"

// demoMirror describes it, as a user would; its verbs are the three clusters' addresses.
const demoMirror = `
apiVersion: kafka.strimzi.io/v1beta2
kind: KafkaMirrorMaker2
metadata: {name: kafka-centralized}
spec:
  connectCluster: kafka-centralized-mm2connector
  clusters:
    - {alias: kafka-centralized-mm2connector, bootstrapServers: '%s'}
    - {alias: kafka-dc-1, bootstrapServers: '%s'}
    - {alias: kafka-dc-2, bootstrapServers: '%s'}
  mirrors:
    - sourceCluster: kafka-dc-1
      targetCluster: kafka-centralized-mm2connector
      topicsPattern: 'orders'
      sourceConnector: {config: {replication.factor: 1}}
    - sourceCluster: kafka-dc-2
      targetCluster: kafka-centralized-mm2connector
      topicsPattern: 'payments'
      sourceConnector: {config: {replication.factor: 1}}
`

// A demoTopic is what an application writes to.
type demoTopic struct {
	alias, version, name string
	partitions           int32
	before               int // records that are there when kferry comes
	perSecond            int // records while it copies
}

var demoTopics = []demoTopic{
	{"kafka-dc-1", "", "orders", 4, 20_000, 1_000},
	{"kafka-dc-2", "3.3", "payments", 3, 10_000, 400},
}

// copy is the topic's name on the central cluster.
func (t demoTopic) copy() string { return t.alias + "." + t.name }

// What happens when, from the moment kferry starts to copy. demoLimit is for a machine that is far too slow.
const (
	demoKill    = 5 * time.Second
	demoReplace = 7 * time.Second
	demoQuiet   = 12 * time.Second
	demoReport  = time.Second // between two lines about progress
	demoLimit   = 55 * time.Second
)

func newDemo(p Process) *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "See it work: three clusters, a killed worker and a verdict, in 15 seconds",
		Long: "demo plays a whole installation in this one process: three Kafka clusters in memory, a work queue, a coordinator, workers,\n" +
			"and applications that write all the time. It kills a worker on the way, and in the end compares record by record.\n" +
			"Exit code 0: every copy is exact.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeoutCause(cmd.Context(), demoLimit, fmt.Errorf("the demo is not done after %s", demoLimit))
			defer cancel()
			return playDemo(ctx, newStage(p), false)
		},
	}
}

// playDemo is the demo from its first line to its verdict. A virtual one needs no network, for tests.
func playDemo(ctx context.Context, s *stage, virtual bool) error {
	dir, err := os.MkdirTemp("", "kferry-demo-")
	if err != nil {
		return fmt.Errorf("make a directory for the queue: %w", err)
	}
	defer os.RemoveAll(dir)
	d, err := raise(ctx, s, virtual, dir)
	if err != nil {
		return err
	}
	defer d.env.Close()
	if err := d.copyLive(ctx); err != nil {
		return err
	}
	return d.judge(ctx)
}

// A demo is under way.
type demo struct {
	*stage
	env  *local.Env
	spec spec.Spec
}

// raise builds the outside world, with records that are older than the mirror.
func raise(ctx context.Context, s *stage, virtual bool, dir string) (*demo, error) {
	clusters := []local.Cluster{{Alias: demoCentral}}
	for _, t := range demoTopics {
		clusters = append(clusters, local.Cluster{Alias: t.alias, Version: t.version, Topics: map[string]int32{t.name: t.partitions}})
	}
	env, err := local.Start(local.Setup{Clusters: clusters, Virtual: virtual, Dir: dir})
	if err != nil {
		return nil, err
	}
	d := &demo{stage: s, env: env}
	if err := d.prepare(ctx); err != nil {
		env.Close()
		return nil, err
	}
	return d, nil
}

func (d *demo) prepare(ctx context.Context) (err error) {
	d.title("Three Kafka clusters start, in this process and in memory")
	for _, t := range demoTopics {
		w, err := d.env.Writer(t.alias, t.name)
		if err != nil {
			return err
		}
		defer w.Close()
		if err := w.Write(ctx, t.before); err != nil {
			return err
		}
		d.say("%-31s %s, %d partitions, %s records so far", t.alias, t.name, t.partitions, count(int64(t.before)))
	}
	d.say("%-31s empty", demoCentral)
	var addresses []any
	for _, alias := range []string{demoCentral, demoTopics[0].alias, demoTopics[1].alias} {
		addresses = append(addresses, strings.Join(d.env.Spec(alias).BootstrapServers, ","))
	}
	d.spec, err = spec.Load(nil, []string{"KFERRY_MIRROR=" + fmt.Sprintf(demoMirror, addresses...)})
	return err
}

// copyLive copies while applications write and a worker dies.
func (d *demo) copyLive(ctx context.Context) (err error) {
	d.title("kferry copies both topics into the third cluster, while applications go on writing")
	troupe := &troupe{demo: d}
	defer func() { err = errors.Join(err, troupe.leave()) }()
	var coordinator *coordinator.Coordinator
	if err := troupe.enter(ctx, "coordinator", func(st *station) part { coordinator = st.coordinator(); return coordinator.Run }); err != nil {
		return err
	}
	for _, name := range []string{"worker-1", "worker-2"} {
		if err := troupe.enter(ctx, name, work); err != nil {
			return err
		}
	}
	for _, f := range d.spec.Flows {
		d.say("%s: coordinator, worker-1 and worker-2 are at work", f.Name())
	}
	if err := d.whileWriting(ctx, func(ctx context.Context) error { return d.accident(ctx, troupe) }); err != nil {
		return err
	}
	d.event("the applications stop writing; what is left is copied")
	if _, err := coordinator.CaughtUp(ctx); err != nil {
		return fmt.Errorf("copy the rest: %w", err)
	}
	d.report(d.counts())
	return nil
}

type part = func(context.Context) error

func work(st *station) part { return st.worker().Run }

// accident is what happens meanwhile.
func (d *demo) accident(ctx context.Context, t *troupe) error {
	if err := d.watch(ctx, demoKill); err != nil {
		return err
	}
	d.event("worker-1 is killed: its connections end in the middle of whatever it does, and it gives nothing back")
	t.kill("worker-1")
	if err := d.watch(ctx, demoReplace); err != nil {
		return err
	}
	d.event("worker-3 takes its place; after %s without a sign of life the dead worker's leases go to others", d.spec.Settings.LeaseTime)
	if err := t.enter(ctx, "worker-3", work); err != nil {
		return err
	}
	return d.watch(ctx, demoQuiet)
}

// whileWriting does something while applications write.
func (d *demo) whileWriting(ctx context.Context, do part) error {
	g, ctx := errgroup.WithContext(ctx)
	writing, stop := context.WithCancel(ctx)
	for _, t := range demoTopics {
		w, err := d.env.Writer(t.alias, t.name)
		if err != nil {
			stop()
			return err
		}
		defer w.Close()
		g.Go(func() error { return w.Stream(writing, t.perSecond) })
	}
	g.Go(func() error {
		defer stop()
		return do(ctx)
	})
	return g.Wait()
}

// watch reports every second until so much time has passed since the first report.
func (d *demo) watch(ctx context.Context, until time.Duration) error {
	for d.clock() < until {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(demoReport):
			d.report(d.counts())
		}
	}
	return nil
}

// counts asks the clusters, not kferry.
func (d *demo) counts() (written, copied int64) {
	for _, t := range demoTopics {
		written += d.env.Records(t.alias, t.name)
		copied += d.env.Records(demoCentral, t.copy())
	}
	return written, copied
}

// judge compares every record, and says what came of it.
func (d *demo) judge(ctx context.Context) error {
	d.title("A consumer that knows nothing of kferry compares both sides, record by record")
	exact := true
	for _, t := range demoTopics {
		found, err := local.Compare(ctx, d.env.Side(t.alias, t.name), d.env.Side(demoCentral, t.copy()))
		if err != nil {
			return err
		}
		exact = exact && found.Exact() && found.Records > int64(t.before)
		d.say("%-20s %s", t.copy(), found)
	}
	return d.verdict(exact)
}

// A troupe is the processes of the installation. Each has a line of its own to the outside.
type troupe struct {
	*demo
	actors []*actor
}

type actor struct {
	name string
	dead bool
	line *local.Line
	st   *station
	stop context.CancelFunc
	done chan error // its end
}

// enter starts a process.
func (t *troupe) enter(ctx context.Context, name string, plays func(*station) part) error {
	line := t.env.Line()
	st, err := newStation(t.spec, silent, nil, line.Dial)
	if err != nil {
		return err
	}
	if err := st.openQueue(ctx, name, spec.NATS{}, line); err != nil {
		st.close()
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	a := &actor{name: name, line: line, st: st, stop: stop, done: make(chan error, 1)}
	t.actors = append(t.actors, a)
	play := plays(st)
	go func() { a.done <- play(ctx) }()
	return nil
}

// kill ends a process as kill -9 does: whatever it still wants to say finds no connection.
func (t *troupe) kill(name string) {
	for _, a := range t.actors {
		if a.name == name {
			a.dead = true
			a.line.Cut()
			a.stop()
			a.st.close()
		}
	}
}

// leave ends all processes, and waits for them. What a dead one still has to say is of no interest.
func (t *troupe) leave() error {
	for _, a := range t.actors {
		a.stop()
	}
	var failed error
	for _, a := range t.actors {
		err := <-a.done
		if a.dead {
			continue
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", a.name, err))
		}
		a.st.close()
	}
	return failed
}
