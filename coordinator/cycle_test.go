package coordinator_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// alias gives a cluster another alias.
func (in *installation) alias(of, alias string) {
	c := in.Env.Spec(of)
	c.Alias = alias
	in.connect(c)
}

// Names that tell of a way back are listed and not copied; those that only look so are copied.
func TestTopicsThatComeBackByTheirNames(t *testing.T) {
	bubble(t, func(in *installation) {
		in.alias("B", "backup")                                                            // which is B
		in.connect(spec.Cluster{Alias: "dead", BootstrapServers: []string{"127.0.0.1:1"}}) // which nobody knows
		in.Options.Spec.Flows = []spec.Flow{flowTo("A", "B", ".*")}
		for _, topic := range []string{"A.made-here", "C.orders", "dead.orders", "backup.orders", "C.backup.orders", "C.A.orders"} {
			in.create("A", topic, 1, 1)
		}
		c := in.run()
		in.release(in.expect(10*time.Second, "topics A->B A.made-here", "topics A->B C.orders", "topics A->B dead.orders")...)
		synctest.Wait()
		back := map[string]string{
			"backup.orders": "came from backup, which is the same cluster as B", "C.backup.orders": "came from backup", "C.A.orders": "has been on A before, and came back from C",
		}
		for _, p := range c.Flows()[0].Plan.Partitions {
			if why := back[p.Topic]; (p.State == coordinator.Cycle) != (why != "") || !strings.Contains(p.Detail, why) {
				t.Errorf("%s: %s, %s", p.Topic, p.State, p.Detail)
			}
			if p.State == coordinator.Cycle && p.Lag > 0 {
				t.Errorf("%s: lag %d of what nobody waits for", p.Topic, p.Lag)
			}
		}
		in.status("cycle", "its name says that it came from backup, which is the same cluster as B (local-B)")
		if g := coordinator.Groups(context.Background(), in.Options, in.Options.Spec.Flows[0]); g.Error != "" {
			t.Errorf("groups beside such topics: %s", g.Error)
		}
		left, err := coordinator.NotCopied(context.Background(), in.Options.Spec.Flows[0], in.Options.Clusters)
		if err != nil || len(left) != len(back) {
			t.Errorf("not copied: %v, %v", left, err)
		}
		for topic, why := range back {
			if !strings.Contains(left[topic], why) {
				t.Errorf("%s is not copied: %q", topic, left[topic])
			}
		}
	})
}

// Under two aliases one cluster may be copied into itself, once, but not under the same names.
func TestFlowWithinOneCluster(t *testing.T) {
	bubble(t, func(in *installation) {
		in.alias("A", "again")
		same, kept := flowTo("A", "again", ".*"), flowTo("again", "A", ".*")
		kept.Policy = mm2.IdentityPolicy{}
		in.Options.Spec.Flows = []spec.Flow{same, kept}
		in.create("A", "orders", 1, 1)
		in.create("A", "A.orders", 1, 0) // the copy
		c := in.run()
		in.expect(10*time.Second, "mirror A->again orders-0")
		in.silent(3 * time.Second)
		synctest.Wait()
		if err := c.Flows()[1].Err; err == nil || !strings.Contains(err.Error(), "again and A are one cluster (its id is local-A)") {
			t.Errorf("names that are kept within a cluster: %v", err)
		}
		in.status("again->A can't be looked at: again and A are one cluster")
	})
}
