package testbed

import (
	"bufio"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/testcontainers/testcontainers-go"
)

const natsWithin = 15 * time.Second // from the start of the container until JetStream is ready

// NATS is a server with JetStream on disk.
type NATS struct {
	*Container
	t    T
	port int
	args []string // beside those of every server
}

// StartNATS starts a server that ends with the test.
func StartNATS(t T) *NATS {
	t.Helper()
	n := &NATS{t: t, port: freePort(t)}
	n.create()
	return n
}

// StartNATSCluster starts servers of one cluster, which end with the test. It takes them seconds to agree on who leads.
func StartNATSCluster(t T, servers int) []*NATS {
	t.Helper()
	var all []*NATS
	var routes []string
	for range servers {
		all = append(all, &NATS{t: t, port: freePort(t)})
		routes = append(routes, "nats://"+address(freePort(t)))
	}
	for i, n := range all {
		n.args = []string{"--name", n.Name(), "--cluster_name", "testbed", "--cluster", routes[i], "--routes", strings.Join(routes, ",")}
		n.create()
	}
	return all
}

// Name is what a server of a cluster is called there.
func (n *NATS) Name() string { return "nats-" + strconv.Itoa(n.port) }

// URL is the server's address, the same for its whole life.
func (n *NATS) URL() string { return "nats://" + address(n.port) }

// Start brings back a server that was stopped or killed, with its store.
func (n *NATS) Start() {
	n.t.Helper()
	n.Container.Start()
	n.await()
}

// Wipe ends the server, deletes its store and starts an empty one at the same address.
func (n *NATS) Wipe() {
	n.t.Helper()
	if err := testcontainers.TerminateContainer(n.ctr, testcontainers.StopTimeout(0)); err != nil {
		n.t.Fatalf("wipe NATS: %v", err)
	}
	n.create()
}

func (n *NATS) create() {
	n.t.Helper()
	var err error
	n.Container, err = startContainer(n.t, "NATS", "nats:"+server.VERSION, testcontainers.WithCmd(append([]string{
		"--addr", "127.0.0.1", "--port", strconv.Itoa(n.port), "--jetstream", "--store_dir", "/data"}, n.args...)...))
	if err != nil {
		n.t.Fatalf("%v", err)
	}
	n.await()
}

// await reads the line with which a server greets: it says whether JetStream is on.
func (n *NATS) await() {
	n.t.Helper()
	err := poll(n.t.Context(), natsWithin, func() error {
		conn, err := net.DialTimeout("tcp", address(n.port), time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		info, err := bufio.NewReader(conn).ReadString('\n')
		if err == nil && !strings.Contains(info, `"jetstream":true`) {
			err = fmt.Errorf("no JetStream: %s", info)
		}
		return err
	})
	if err != nil {
		n.t.Fatalf("NATS does not start: %v", err)
	}
}
