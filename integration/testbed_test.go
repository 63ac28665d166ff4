package integration

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kferry/kferry/integration/testbed"
)

func TestNATSKeepsItsStoreUntilWiped(t *testing.T) {
	n := testbed.StartNATS(t)
	streams := func() int {
		conn, err := nats.Connect(n.URL())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		js, err := jetstream.New(conn)
		if err != nil {
			t.Fatal(err)
		}
		info, err := js.AccountInfo(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if info.Streams == 0 {
			if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S"}); err != nil {
				t.Fatal(err)
			}
		}
		return info.Streams
	}
	if got := streams(); got != 0 {
		t.Fatalf("%d streams at first", got)
	}
	n.Kill()
	n.Start()
	if got := streams(); got != 1 {
		t.Errorf("%d streams after kill -9, want 1", got)
	}
	n.Wipe()
	if got := streams(); got != 0 {
		t.Errorf("%d streams after the wipe, want 0", got)
	}
}

func TestProxiedClusterIsReachedOnlyThroughItsProxy(t *testing.T) {
	c := testbed.Kafka(t, testbed.V43, testbed.WithProxy())
	c.CreateTopic("orders", 1, 1)
	before := c.Proxy(0).Bytes(testbed.Requests)
	testbed.Produce(t, c, "orders", testbed.Load{Records: 10})
	if c.Proxy(0).Bytes(testbed.Requests) != before {
		t.Error("the testbed's own client went through the proxy")
	}
}

func TestMirrorMakerCopies(t *testing.T) {
	c := testbed.Shared(t, testbed.V43)
	d := testbed.Shared(t, testbed.V33)
	c.CreateTopic("mm2-orders", 1, 1)
	testbed.Produce(t, c, "mm2-orders", testbed.Load{Records: 100})
	testbed.MirrorMaker(t, testbed.V43, strings.NewReplacer("SOURCE", c.Bootstrap(), "TARGET", d.Bootstrap()).Replace(`
clusters = a, b
a.bootstrap.servers = SOURCE
b.bootstrap.servers = TARGET
a->b.enabled = true
a->b.topics = mm2-orders
replication.factor = 1
offset.storage.replication.factor = 1
config.storage.replication.factor = 1
status.storage.replication.factor = 1
checkpoints.topic.replication.factor = 1
heartbeats.topic.replication.factor = 1
offset-syncs.topic.replication.factor = 1
`))
	testbed.Eventually(t, time.Minute, "the topic to be copied", func() bool {
		return len(d.Topics("a.mm2-orders")) == 1 && d.Ends("a.mm2-orders")[0] == 100
	})
	testbed.Compare(t, c, "mm2-orders", d, "a.mm2-orders")
}

func TestProcessIsKilledAndTermed(t *testing.T) {
	p := testbed.Exec(t, "/bin/sh", []string{"-c", `trap 'echo bye $WHO; exit 3' TERM; echo hello; while :; do sleep 0.05; done`}, map[string]string{"WHO": "you"})
	testbed.Eventually(t, 10*time.Second, "a word", func() bool { return p.Output() == "hello\n" })
	p.Term()
	if code := p.Wait(10 * time.Second); code != 3 || !strings.Contains(p.Output(), "bye you") {
		t.Errorf("exit code %d, output %q", code, p.Output())
	}
}
