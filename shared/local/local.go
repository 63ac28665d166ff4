// Package local is a whole installation's outside world in this process: Kafka clusters that live in memory and a NATS server,
// as one value. The demo plays on it and the tests of the other packages run against it.
//
// Invariants:
//   - What runs here is real protocol code (kfake, nats-server), reached as a real one is: no interface of ours is replaced.
//   - A process under test reaches the outside only through a Line, so that it can be killed: nothing is released, nothing flushed.
//   - Writer and Compare share no code with what copies: they are plain franz-go clients.
//   - Virtual installations own no socket and no goroutine of the outside, so they live inside a synctest bubble.
package local

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kferry/kferry/shared/spec"
)

// Setup says what to start.
type Setup struct {
	Clusters []Cluster
	// Virtual keeps all traffic inside the process, for synctest bubbles; otherwise brokers listen on free ports of the loopback.
	Virtual bool
	// Dir holds the files of the NATS server; no server is started where it is empty.
	Dir string
}

// A Cluster is a Kafka cluster to start.
type Cluster struct {
	Alias   string
	Brokers int              // 1 where it is 0
	Version string           // the Kafka version it passes itself off as, like "3.3"; the newest where it is empty
	Topics  map[string]int32 // partitions by name
	// Configs are the brokers' settings, as kfake.BrokerConfigs takes them.
	Configs map[string]string
	// Users log in with SASL PLAIN, their names being their passwords, and may do what ACLs allow them. Whatever has its login from the Env
	// may do everything. A cluster without Users is open to everybody.
	Users []string
}

// Dial opens a connection, as net.Dialer.DialContext does.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Env is the outside world that Start brought up.
type Env struct {
	// NATS is the installation's server; nil without Setup.Dir.
	NATS *NATS

	clusters []*running
	dial     Dial
	serial   atomic.Int64 // of the last record any Writer wrote
}

type running struct {
	*kfake.Cluster
	spec spec.Cluster
}

// Start brings up the outside world. Close ends it.
func Start(s Setup) (*Env, error) {
	env := &Env{dial: new(net.Dialer).DialContext}
	listen := net.Listen
	if s.Virtual {
		network := new(kfake.VirtualNetwork)
		env.dial, listen = network.DialContext, network.Listen
	}
	if err := env.start(s, kfake.ListenFn(listen)); err != nil {
		env.Close()
		return nil, err
	}
	return env, nil
}

func (e *Env) start(s Setup, listen kfake.Opt) (err error) {
	for i, c := range s.Clusters {
		started, err := c.start(i, s.Virtual, listen)
		if err != nil {
			return fmt.Errorf("start cluster %q: %w", c.Alias, err)
		}
		e.clusters = append(e.clusters, started)
	}
	if s.Dir != "" {
		e.NATS, err = StartNATS(s.Dir)
	}
	return err
}

// Close ends everything. Clients are closed by whoever opened them, and before this.
func (e *Env) Close() {
	if e.NATS != nil {
		e.NATS.Close()
	}
	for _, c := range slices.Backward(e.clusters) {
		c.Close()
	}
}

// Spec is a cluster as an operator describes it.
func (e *Env) Spec(alias string) spec.Cluster { return e.cluster(alias).spec }

// SpecAs is Spec for one of the cluster's users.
func (e *Env) SpecAs(alias, user string) spec.Cluster {
	c := e.Spec(alias)
	c.Login = loginOf(user)
	return c
}

// Kafka is a cluster's other side: its topics, and the faults it can be made to have.
func (e *Env) Kafka(alias string) *kfake.Cluster { return e.cluster(alias).Cluster }

// Dial reaches the clusters for clients that nobody kills.
func (e *Env) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return e.dial(ctx, network, address)
}

// Line returns the connections of one process to be.
func (e *Env) Line() *Line { return newLine(e.dial, e.NATS) }

// Client is a plain Kafka client of a cluster.
func (e *Env) Client(alias string, options ...kgo.Opt) (*kgo.Client, error) {
	client, err := kgo.NewClient(append(e.Side(alias, "").client(), options...)...)
	if err != nil {
		return nil, fmt.Errorf("client of %q: %w", alias, err)
	}
	return client, nil
}

// Side is a topic as Compare reads it.
func (e *Env) Side(alias, topic string) Side {
	return Side{Cluster: e.Spec(alias), Topic: topic, Dial: e.dial}
}

func (e *Env) cluster(alias string) *running {
	for _, c := range e.clusters {
		if c.spec.Alias == alias {
			return c
		}
	}
	panic(fmt.Sprintf("local: no cluster %q", alias))
}

// Records is how many offsets a topic's partitions hold, up to their high watermarks; 0 for a topic that is not there.
func (e *Env) Records(alias, topic string) (n int64) {
	for _, p := range e.cluster(alias).PartitionInfos(topic) {
		n += p.HighWatermark - p.LogStartOffset
	}
	return n
}
