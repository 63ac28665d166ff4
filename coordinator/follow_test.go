package coordinator_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/shared/follow"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// following is an installation of one flow, which has settings and rights follow.
func following(t *testing.T, test func(in *installation)) {
	t.Helper()
	bubble(t, func(in *installation) {
		in.Options.Spec.Flows = in.Options.Spec.Flows[:1]
		f := &in.Options.Spec.Flows[0]
		f.Configs = spec.ConfigSync{Enabled: true, Interval: 5 * time.Second, Overrides: true}
		f.ACLs = spec.ACLSync{Enabled: true, Interval: 5 * time.Second}
		test(in)
	})
}

// pairUp creates a topic and its copy, both empty.
func (in *installation) pairUp(topic string) {
	in.Helper()
	in.create("A", topic, 1, 0)
	in.create("B", "A."+topic, 1, 0)
}

func (in *installation) alter(alias, topic, key, value string) {
	in.Helper()
	change := kafka.ConfigChange{Topic: topic, Set: map[string]string{key: value}}
	if err := in.Clusters[alias].AlterConfigs(in.Context(), change); err != nil {
		in.Fatal(err)
	}
}

// remember plays a worker that notes what it did about a topic.
func (in *installation) remember(topic string, n follow.Note) {
	in.Helper()
	cursors := in.Queue.Cursors(in.Options.Spec.Flows[0], in.Clusters["B"])
	if err := cursors.PutNote(in.Context(), follow.Key(topic), n); err != nil {
		in.Fatal(err)
	}
}

func read(principal, topic string) kafka.ACL {
	return kafka.ACL{Topic: topic, Pattern: kafka.ACLLiteral, Principal: principal, Host: "*", Operation: "READ", Permission: "ALLOW"}
}

func (in *installation) give(alias string, acls ...kafka.ACL) {
	in.Helper()
	if err := in.Clusters[alias].CreateACLs(in.Context(), acls); err != nil {
		in.Fatal(err)
	}
}

// Whatever differs is offered within five seconds, of the topic that it is about; what doesn't, never.
func TestDifferenceIsOfferedWithinFiveSeconds(t *testing.T) {
	following(t, func(in *installation) {
		in.pairUp("orders")
		in.pairUp("orders-eu")
		in.run()
		in.silent(7300 * time.Millisecond)

		in.alter("A", "orders", "retention.ms", "1000")
		in.release(in.expect(5*time.Second, "topics A->B orders")...)
		in.alter("B", "A.orders", "retention.ms", "1000") // by no worker: then it isn't remembered yet
		in.release(in.expect(6*time.Second, "topics A->B orders")...)
		in.remember("orders", follow.Note{Settings: map[string]string{"retention.ms": "1000"}})
		in.silent(10 * time.Second)

		in.alter("B", "A.orders", "retention.ms", "7")
		in.release(in.expect(5*time.Second, "topics A->B orders")...)
		in.alter("B", "A.orders", "retention.ms", "1000")
		in.alter("B", "A.orders", "segment.ms", "7") // somebody's own
		in.silent(10 * time.Second)

		in.give("A", read("User:a", "orders-eu"))
		in.release(in.expect(5*time.Second, "topics A->B orders-eu")...)
		in.give("B", read("User:a", "A.orders-eu"))
		in.silent(10 * time.Second)
	})
}

// Whoever runs until caught up wants the copies to be like their sources.
func TestCaughtUpWaitsForSettings(t *testing.T) {
	following(t, func(in *installation) {
		in.pairUp("orders")
		in.alter("A", "orders", "retention.ms", "1000")
		c := in.run()
		done := make(chan time.Time, 1)
		go func() {
			if s, err := c.CaughtUp(in.Context()); err != nil || !s.Complete() {
				in.Errorf("caught up: %+v, error %v", s, err)
			}
			done <- time.Now()
		}()
		task := in.expect(5*time.Second, "topics A->B orders")
		time.Sleep(20 * time.Second)
		if len(done) > 0 {
			in.Error("caught up while a setting was still to follow")
		}
		in.alter("B", "A.orders", "retention.ms", "1000")
		in.remember("orders", follow.Note{Settings: map[string]string{"retention.ms": "1000"}})
		followed := time.Now()
		in.release(task...)
		if took := (<-done).Sub(followed); took > 6*time.Second {
			in.Errorf("caught up only after %s", took)
		}
	})
}

// A longer interval is honoured.
func TestDifferenceWaitsForTheInterval(t *testing.T) {
	following(t, func(in *installation) {
		in.Options.Spec.Flows[0].Configs.Interval = 2 * time.Minute
		in.pairUp("orders")
		in.run()
		in.silent(10 * time.Second)
		in.alter("A", "orders", "retention.ms", "1000")
		in.silent(90 * time.Second)
		in.expect(30*time.Second, "topics A->B orders")
	})
}

// A paused flow changes nothing on its target, and a copy that is gone is not made again for its settings.
func TestNothingFollowsWhereTheCopyIsGone(t *testing.T) {
	following(t, func(in *installation) {
		in.pairUp("orders")
		in.write("A", "orders", 1)
		in.run()
		in.expect(5*time.Second, "mirror A->B orders-0")
		in.commit(in.Options.Spec.Flows[0], "orders", 0, 1)
		if err := in.Kafka("B").DeleteTopic("A.orders"); err != nil {
			in.Fatal(err)
		}
		in.alter("A", "orders", "retention.ms", "1000")
		time.Sleep(30 * time.Second)
		for _, l := range in.claim(30 * time.Second) {
			if l.Task.Kind == lease.KindTopics {
				in.Errorf("offered %s", l.Task)
			}
		}
	})
}

// What was refused is tried again from time to time, not each time; and it is named until then, by the coordinator and by status.
func TestRefusalIsNamedAndTriedAgain(t *testing.T) {
	following(t, func(in *installation) {
		in.pairUp("orders")
		in.alter("A", "orders", "retention.ms", "1000")
		c := in.run()
		task := in.expect(10*time.Second, "topics A->B orders")
		in.remember("orders", follow.Note{Refused: map[string]follow.Refusal{"retention.ms": {Value: "1000", Why: "POLICY_VIOLATION"}}})
		in.release(task...)
		in.silent(8 * time.Minute)
		in.warns(c, `B refuses retention.ms=1000 for "A.orders"`, "POLICY_VIOLATION")
		in.release(in.expect(3*time.Minute, "topics A->B orders")...)
	})
}

// warns looks for a warning, in the coordinator's report and in the survey.
func (in *installation) warns(c *coordinator.Coordinator, words ...string) {
	in.Helper()
	survey := coordinator.Status(in.Context(), in.Options)
	for who, warnings := range map[string][]string{"coordinator": c.Flows()[0].Warnings, "status": survey.Flows[0].Warnings} {
		if !slices.ContainsFunc(warnings, func(w string) bool {
			return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(w, word) })
		}) {
			in.Errorf("%s does not warn of %q: %q", who, words, warnings)
		}
	}
}

// MirrorMaker's testMissingDescribeConfigsAcl: the warning names operation and cluster; and other rights that lack, and what can't follow.
func TestWhatDoesNotFollowIsNamed(t *testing.T) {
	for name, c := range map[string]struct {
		cause func(in *installation)
		words []string
	}{
		"describe configs of the source": {
			func(in *installation) { in.deny("A", kmsg.DescribeConfigs, kerr.TopicAuthorizationFailed, "orders") },
			[]string{`settings of "orders"`, "on A", "DescribeConfigs"},
		},
		"describe configs of the target": {
			func(in *installation) { in.deny("B", kmsg.DescribeConfigs, kerr.TopicAuthorizationFailed, "A.orders") },
			[]string{`settings of "A.orders"`, "on B", "DescribeConfigs"},
		},
		"describe ACLs": {
			func(in *installation) { in.deny("A", kmsg.DescribeACLs, kerr.ClusterAuthorizationFailed, "") },
			[]string{"rights don't follow", "lacks Describe on cluster A", "A: describe ACLs"},
		},
		"alter the cluster": {
			func(in *installation) { in.remember("orders", follow.Note{Denied: "CLUSTER_AUTHORIZATION_FAILED"}) },
			[]string{`rights on "A.orders" don't follow`, "CLUSTER_AUTHORIZATION_FAILED"},
		},
		"unknown to the target": {
			func(in *installation) { in.alter("A", "orders", "vendor.tiering", "on") },
			[]string{"B doesn't know the setting vendor.tiering", `"orders"`},
		},
		"on every topic": {
			func(in *installation) { in.give("A", read("User:a", "*")) },
			[]string{`every topic of A ("*")`, `"User:a"`, "nobody on B"},
		},
		"by prefix": {
			func(in *installation) {
				a, other := read("User:a", "ord"), read("User:a", "invoices")
				a.Pattern, other.Pattern = kafka.ACLPrefixed, kafka.ACLPrefixed
				in.give("A", a, other)
			},
			[]string{"by their prefix", `as on "ord", don't follow`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			following(t, func(in *installation) {
				in.pairUp("orders")
				in.alter("A", "orders", "retention.ms", "1000")
				run := in.run()
				time.Sleep(3 * time.Second)
				c.cause(in)
				time.Sleep(10 * time.Second)
				in.warns(run, c.words...)
			})
		})
	}
}

func (in *installation) deny(alias string, key kmsg.Key, err *kerr.Error, resource string) {
	in.Kafka(alias).Fault(kfake.Fault{Keys: []kmsg.Key{key}, Err: err, Resource: resource, TopLevel: resource == "", Count: -1})
}

// MirrorMaker's testNoBrokerAclAuthorizer: no warning, hardly a question, and settings follow all the same.
func TestNoAuthorizer(t *testing.T) {
	following(t, func(in *installation) {
		in.deny("A", kmsg.DescribeACLs, kerr.SecurityDisabled, "")
		asked := func(alias string) *kfake.FaultHandle {
			return in.Kafka(alias).Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeACLs}, Observe: true, Count: -1})
		}
		in.pairUp("orders")
		c := in.run()
		time.Sleep(5 * time.Second)
		source, target := asked("A"), asked("B")
		time.Sleep(time.Minute)
		in.alter("A", "orders", "retention.ms", "1000")
		in.expect(5*time.Second, "topics A->B orders")
		if a, b := source.Hits(), target.Hits(); a+b > 0 {
			in.Errorf("asked for rights where there is no authorizer: the source %d times, the target %d times", a, b)
		}
		for _, w := range c.Flows()[0].Warnings {
			if strings.Contains(w, "rights") {
				in.Errorf("warns: %s", w)
			}
		}
	})
}

// A cluster that can't answer such questions keeps no record waiting, and says so.
func TestRecordsDoNotWaitForComparisons(t *testing.T) {
	following(t, func(in *installation) {
		in.pairUp("orders")
		in.Kafka("A").ControlKey(int16(kmsg.DescribeConfigs), func(kmsg.Request) (kmsg.Response, error, bool) {
			in.Kafka("A").KeepControl()
			return nil, errors.New("the broker hangs up"), true
		})
		c := in.run()
		time.Sleep(20 * time.Second)
		in.write("A", "orders", 1)
		in.expect(2*time.Second, "mirror A->B orders-0")
		if r := c.Flows()[0]; r.Err != nil || !slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.Contains(w, "can't be compared") }) {
			in.Errorf("error %v, warnings %q", r.Err, r.Warnings)
		}
	})
}

// What an interval costs at rest: requests by their number and size, for a thousand topics of which one in ten has settings of its own.
func TestCostOfComparing(t *testing.T) {
	const topics, own = 1000, 100
	following(t, func(in *installation) {
		for i := range topics {
			topic := fmt.Sprintf("orders-%d", i)
			configs := map[string]string{}
			if i < own {
				configs["retention.ms"] = "1000"
			}
			if err := in.Kafka("A").CreateTopic(topic, 1, configs); err != nil {
				in.Fatal(err)
			}
			if err := in.Kafka("B").CreateTopic("A."+topic, 1, configs); err != nil {
				in.Fatal(err)
			}
		}
		in.run()
		time.Sleep(2 * time.Second)
		for i := range own {
			in.remember(fmt.Sprintf("orders-%d", i), follow.Note{Settings: map[string]string{"retention.ms": "1000"}})
		}
		for late := in.claim(10 * time.Second); len(late) > 0; late = in.claim(10 * time.Second) { // what was offered before that
			in.release(late...)
		}
		count := map[string]*kfake.FaultHandle{}
		for alias, key := range map[string]kmsg.Key{"A DescribeConfigs": kmsg.DescribeConfigs, "B DescribeConfigs": kmsg.DescribeConfigs,
			"A DescribeACLs": kmsg.DescribeACLs, "B DescribeACLs": kmsg.DescribeACLs} {
			count[alias] = in.Kafka(alias[:1]).Fault(kfake.Fault{Keys: []kmsg.Key{key}, Observe: true, Count: -1, When: aboutTopics})
		}
		writes := in.Kafka("B").Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.IncrementalAlterConfigs, kmsg.AlterConfigs, kmsg.CreateACLs, kmsg.DeleteACLs}, Observe: true, Count: -1})
		time.Sleep(40 * time.Second) // ten comparisons
		for _, what := range slices.Sorted(maps.Keys(count)) {
			t.Logf("%s: %d requests in ten intervals", what, count[what].Hits())
		}
		for what, most := range map[string]int{"A DescribeConfigs": 20, "B DescribeConfigs": 10, "A DescribeACLs": 10, "B DescribeACLs": 10} {
			if n := int(count[what].Hits()); n == 0 || n > most {
				in.Errorf("%s: %d requests in ten intervals, want %d at most", what, n, most)
			}
		}
		if n := writes.Hits(); n > 0 {
			in.Errorf("%d writes where nothing differs", n)
		}
		in.silent(time.Second)
		note, _ := json.Marshal(follow.Note{Settings: map[string]string{"retention.ms": "1000", "cleanup.policy": "compact"}})
		t.Logf("a note of two settings takes %d bytes: %s", len(note), note)
	})
}

// aboutTopics leaves out the questions for brokers' settings, which discovery asks.
func aboutTopics(r kmsg.Request) bool {
	configs, is := r.(*kmsg.DescribeConfigsRequest)
	return !is || slices.ContainsFunc(configs.Resources, func(r kmsg.DescribeConfigsRequestResource) bool {
		return r.ResourceType == kmsg.ConfigResourceTypeTopic
	})
}
