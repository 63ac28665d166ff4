package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kferry/kferry/integration/testbed"
)

// chained is a chain of three clusters, as MirrorMaker's driver would be told.
const chained = `clusters = %[1]s-a, %[1]s-b, %[1]s-c
%[1]s-a.bootstrap.servers = %[2]s
%[1]s-b.bootstrap.servers = %[3]s
%[1]s-c.bootstrap.servers = %[4]s
%[1]s-a->%[1]s-b.enabled = true
%[1]s-b->%[1]s-c.enabled = true
topics = .*%[1]s-records
refresh.topics.interval.seconds = 1
replication.factor = 1
checkpoints.topic.replication.factor = 1
heartbeats.topic.replication.factor = 1
offset-syncs.topic.replication.factor = 1
offset.storage.replication.factor = 1
sync.topic.acls.enabled = false
`

// MirrorMaker's own client reads the topology of a chain of clusters from what kferry has made on its target, with heartbeats and without. All
// heartbeats of the shared clusters come along, so it runs before those that are beside each other and bring many.
func TestMirrorClientSeesTheTopology(t *testing.T) {
	a, b, c := testbed.Shared(t, testbed.V33), testbed.Shared(t, testbed.V43), testbed.Kafka(t, testbed.V43)
	for name, settings := range map[string]string{
		"hops":  "",
		"quiet": "emit.heartbeats.enabled = false\nheartbeats.replication.enabled = false\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b, c := a.For(t), b.For(t), c.For(t)
			topic := name + "-records"
			a.CreateTopic(topic, 1, 1)
			testbed.Produce(t, a, topic, testbed.Load{Records: 100})
			k := copying(t, a, b, topic)
			withoutFlow(k.env)
			file := filepath.Join(t.TempDir(), "mm2.properties")
			if err := os.WriteFile(file, fmt.Appendf([]byte(settings), chained, name, a.Bootstrap(), b.Bootstrap(), c.Bootstrap()), 0o600); err != nil {
				t.Fatal(err)
			}
			k.args = []string{"-f", file}
			run := k.start("run")
			from, via := name+"-a", name+"-b"
			far := via + "." + from + "."
			admin := c.Admin()
			defer admin.Close()
			testbed.Eventually(t, copyWithin, "the end of the chain", func() bool {
				topics, err := admin.ListTopics(t.Context())
				return err == nil && topics.Has(far+"heartbeats") && endsBy(t, admin, far+topic) == 100
			})

			answers := map[string]string{}
			questions := []string{"upstreamClusters", "replicationHops " + from, "replicationHops " + via, "replicationHops nobody", "heartbeatTopics", "remoteTopics " + via}
			output := testbed.Judge(t, []byte(strings.Join(questions, "\n")+"\n"), "MirrorClients", c.InternalBootstrap())
			for i, line := range strings.Split(strings.TrimSpace(string(output)), "\n") {
				answers[questions[i]] = line
			}
			for question, want := range map[string][]string{
				"upstreamClusters":        {from, via},
				"replicationHops " + from: {"2"}, "replicationHops " + via: {"1"}, "replicationHops nobody": {"-1"},
				"heartbeatTopics":     {via + ".heartbeats", far + "heartbeats"},
				"remoteTopics " + via: {far + topic},
			} {
				for _, one := range want {
					if got := strings.Split(strings.Trim(answers[question], "[]"), ", "); !slices.Contains(got, one) {
						t.Errorf("%s: %s, which lacks %s", question, answers[question], one)
					}
				}
			}
			if n := endsBy(t, admin, via+".heartbeats"); (n > 0) != (settings == "") {
				t.Errorf("%d heartbeats of the nearer cluster are there", n)
			}
			k.stop(run)
		})
	}
}
