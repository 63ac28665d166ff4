package functions_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/functions"
	"github.com/kferry/kferry/shared/follow"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// following is a world whose copies follow their sources, and a count of what is written to the target's settings and rights.
type following struct {
	*world
	configs, acls *kfake.FaultHandle
}

func inFollowing(t *testing.T, s setup, test func(f *following)) {
	t.Helper()
	inWorld(t, s, func(w *world) {
		var err error
		w.flow.ConfigExclude, err = spec.ParsePatterns(strings.Join(mm2.ConfigPropertiesExcludeDefault, ","))
		w.must(err)
		all, err := spec.ParsePatterns(".*")
		w.must(err)
		w.flow.Filters = []spec.Filter{{Topics: all}}
		w.flow.Configs = spec.ConfigSync{Enabled: true, Interval: 5 * time.Second, Overrides: true}
		w.flow.ACLs = spec.ACLSync{Enabled: true, Interval: 5 * time.Second}
		count := func(keys ...kmsg.Key) *kfake.FaultHandle {
			return w.env.Kafka("B").Fault(kfake.Fault{Keys: keys, Observe: true, Count: -1})
		}
		test(&following{w, count(kmsg.IncrementalAlterConfigs), count(kmsg.CreateACLs, kmsg.DeleteACLs)})
	})
}

// follow runs the task once. It must write so many requests to settings and to rights.
func (f *following) follow(configs, acls int) follow.Change {
	f.Helper()
	wasConfigs, wasACLs := int(f.configs.Hits()), int(f.acls.Hits())
	change, err := functions.Follow(f.Context(), f.flow, f.source, f.target, f.cursors, topic)
	f.must(err)
	if c, a := int(f.configs.Hits())-wasConfigs, int(f.acls.Hits())-wasACLs; c != configs || a != acls {
		f.Errorf("%d requests changed settings and %d rights, want %d and %d", c, a, configs, acls)
	}
	return change
}

// alter gives a topic a setting, or takes it away where there is no value.
func (f *following) alter(c *kafka.Cluster, topic, key, value string) {
	f.Helper()
	change := kafka.ConfigChange{Topic: topic, Set: map[string]string{key: value}}
	if value == "" {
		change = kafka.ConfigChange{Topic: topic, Delete: []string{key}}
	}
	f.must(c.AlterConfigs(f.Context(), change))
}

// has fails the test unless these are the settings of the copy itself.
func (f *following) has(want map[string]string) {
	f.Helper()
	configs, err := f.target.Configs(f.Context(), []string{replica})
	f.must(err)
	got := map[string]string{}
	for _, e := range configs[replica].Entries {
		if e.Source == kafka.SourceTopic {
			got[e.Name] = e.Value
		}
	}
	if !maps.Equal(got, want) {
		f.Errorf("the copy's settings are %v, want %v", got, want)
	}
}

func (f *following) note() follow.Note {
	f.Helper()
	notes, err := lease.ReadNotes(f.Context(), f.flow, f.target)
	f.must(err)
	return follow.Notes(notes)[topic]
}

// MirrorMaker's testSyncTopicConfigs: what is excluded stays as somebody set it on the target, what is not is forced back. And nothing is
// written where nothing differs.
func TestSyncTopicConfigs(t *testing.T) {
	source := map[string]string{"retention.ms": "1000", "delete.retention.ms": "2000", "min.insync.replicas": "1"}
	inFollowing(t, setup{source: source}, func(f *following) {
		f.flow.ConfigExclude, _ = spec.ParsePatterns(`delete\.retention\..*,min\.insync\.replicas`)
		f.follow(1, 0)
		f.has(map[string]string{"retention.ms": "1000"})
		f.alter(f.target, replica, "retention.ms", "5")
		f.alter(f.target, replica, "delete.retention.ms", "6")
		f.alter(f.target, replica, "segment.ms", "7")
		f.follow(1, 0)
		f.has(map[string]string{"retention.ms": "1000", "delete.retention.ms": "6", "segment.ms": "7"})
		for range 10 {
			f.follow(0, 0)
		}
	})
}

// A setting goes when it goes on the source, though the queue was lost in between; what somebody set on the target alone stays.
func TestSettingThatIsRemovedOnTheSourceIsRemoved(t *testing.T) {
	inFollowing(t, setup{source: map[string]string{"retention.ms": "1000"}}, func(f *following) {
		f.follow(1, 0)
		f.alter(f.source, topic, "segment.ms", "7")
		f.follow(1, 0)
		f.must(f.env.NATS.Wipe())
		f.eventually("loaded", func() bool { return f.cursors.Load(f.Context()) == nil })
		f.alter(f.source, topic, "retention.ms", "")
		f.alter(f.target, replica, "delete.retention.ms", "6")
		f.follow(1, 0)
		f.has(map[string]string{"segment.ms": "7", "delete.retention.ms": "6"})
		f.flow.Configs.Overrides = false
		f.follow(1, 0)
		f.has(map[string]string{"segment.ms": "7"})
	})
}

// MirrorMaker's testReplicateSourceDefault and testReplicateTargetDefault.
func TestReplicateDefaults(t *testing.T) {
	inFollowing(t, setup{source: map[string]string{"retention.ms": "1000"}, target: map[string]string{"segment.ms": "7"}}, func(f *following) {
		f.follow(1, 0)
		f.alter(f.source, topic, "retention.ms", "")
		f.follow(1, 0) // the target's default holds again
		f.has(map[string]string{"segment.ms": "7"})
		f.flow.Configs.SourceDefaults = true
		f.follow(1, 0)
		f.has(map[string]string{"segment.ms": "604800000"})
		f.follow(0, 0)
	})
}

// One setting that the target refuses keeps no other back.
func TestRefusedSettingIsLeftOut(t *testing.T) {
	source := map[string]string{"retention.ms": "1000", "segment.ms": "2000", "segment.bytes": "3000"}
	inFollowing(t, setup{source: source}, func(f *following) {
		refusal := f.env.Kafka("B").Fault(kfake.Fault{
			Keys: []kmsg.Key{kmsg.IncrementalAlterConfigs}, Err: kerr.InvalidConfig, Count: -1, When: altering("segment.ms"),
		})
		change := f.follow(4, 0) // all at once, then each alone
		f.has(map[string]string{"retention.ms": "1000", "segment.bytes": "3000"})
		if _, said := change.Set["segment.ms"]; said {
			t.Errorf("says that it changed what was refused: %v", change.Set)
		}
		if r := f.note().Refused["segment.ms"]; r.Value != "2000" || !strings.Contains(r.Why, "INVALID_CONFIG") {
			t.Errorf("remembers the refusal %+v", r)
		}
		f.follow(1, 0) // whoever offers the task wants it tried again
		refusal.Remove()
		f.follow(1, 0)
		f.has(source)
		if r := f.note().Refused; len(r) > 0 {
			t.Errorf("still remembers %v", r)
		}
	})
}

// altering matches requests that change a setting.
func altering(setting string) func(kmsg.Request) bool {
	return func(r kmsg.Request) bool {
		for _, resource := range r.(*kmsg.IncrementalAlterConfigsRequest).Resources {
			for _, config := range resource.Configs {
				if config.Name == setting {
					return true
				}
			}
		}
		return false
	}
}

func TestNoRightToAlterSettings(t *testing.T) {
	inFollowing(t, setup{source: map[string]string{"retention.ms": "1000", "segment.ms": "2000"}}, func(f *following) {
		f.env.Kafka("B").Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.IncrementalAlterConfigs}, Err: kerr.TopicAuthorizationFailed, Count: -1})
		f.follow(1, 0)
		if r := f.note().Refused; len(r) != 2 || !strings.Contains(r["retention.ms"].Why, "TOPIC_AUTHORIZATION_FAILED") {
			t.Errorf("remembers %v", r)
		}
	})
}

// What the target doesn't know is not asked of it.
func TestUnknownSettingIsLeftOut(t *testing.T) {
	inFollowing(t, setup{source: map[string]string{"retention.ms": "1000", "vendor.tiering": "on"}}, func(f *following) {
		f.follow(1, 0)
		f.has(map[string]string{"retention.ms": "1000"})
		f.follow(0, 0)
	})
	inFollowing(t, setup{lacksCopy: true, source: map[string]string{"retention.ms": "1000", "vendor.tiering": "on"}}, func(f *following) {
		f.made(functions.CreateTopic(f.Context(), f.flow, f.source, f.target, topic))
		f.has(map[string]string{"retention.ms": "1000"})
	})
}

// A target that takes a setting and shows another one is not asked again and again.
func TestSettingThatIsTakenAndNotShown(t *testing.T) {
	inFollowing(t, setup{source: map[string]string{"retention.ms": "1000"}}, func(f *following) {
		f.env.Kafka("B").ControlKey(int16(kmsg.IncrementalAlterConfigs), func(r kmsg.Request) (kmsg.Response, error, bool) {
			f.env.Kafka("B").KeepControl()
			resp := r.ResponseKind().(*kmsg.IncrementalAlterConfigsResponse)
			resource := kmsg.NewIncrementalAlterConfigsResponseResource()
			resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeTopic, replica
			resp.Resources = append(resp.Resources, resource)
			return resp, nil, true
		})
		f.follow(0, 0) // none that got through
		if r := f.note().Refused["retention.ms"]; r.Value != "1000" {
			t.Errorf("remembers %+v", f.note())
		}
	})
}

// A setting that changes on the source while its copy is being altered has not been refused: the next comparison takes it up.
func TestSettingThatChangesMeanwhile(t *testing.T) {
	for name, later := range map[string]string{"removed": "", "another value": "3000"} {
		t.Run(name, func(t *testing.T) {
			inFollowing(t, setup{source: map[string]string{"retention.ms": "1000"}}, func(f *following) {
				f.follow(1, 0)
				f.alter(f.source, topic, "retention.ms", "2000")
				f.env.Kafka("B").ControlKey(int16(kmsg.IncrementalAlterConfigs), func(kmsg.Request) (kmsg.Response, error, bool) {
					f.alter(f.source, topic, "retention.ms", later)
					return nil, nil, false
				})
				f.follow(1, 0)
				f.has(map[string]string{"retention.ms": "2000"})
				f.follow(1, 0)
				want := map[string]string{}
				if later != "" {
					want["retention.ms"] = later
				}
				f.has(want)
				if r := f.note().Refused; len(r) > 0 {
					t.Errorf("remembers as refused %v", r)
				}
			})
		})
	}
}

// acl is a right on a topic, for any host.
func acl(principal, permission, operation, topic string) kafka.ACL {
	return kafka.ACL{Topic: topic, Pattern: kafka.ACLLiteral, Principal: "User:" + principal, Host: "*", Operation: operation, Permission: permission}
}

// given fails the test unless these are the rights on the target.
func (f *following) given(want ...kafka.ACL) {
	f.Helper()
	got, err := f.target.DescribeACLs(f.Context(), "")
	f.must(err)
	if len(got) != len(want) || slices.ContainsFunc(want, func(a kafka.ACL) bool { return !slices.Contains(got, a) }) {
		f.Errorf("rights on the target: %v, want %v", got, want)
	}
}

func TestRightsFollow(t *testing.T) {
	inFollowing(t, setup{}, func(f *following) {
		f.flow.ACLs.Revoke = true
		admin := acl("d", "ALLOW", "ALTER", replica)
		f.must(f.target.CreateACLs(f.Context(), []kafka.ACL{admin}))
		read, deny := acl("a", "ALLOW", "ALL", topic), acl("b", "DENY", "WRITE", topic)
		f.must(f.source.CreateACLs(f.Context(), []kafka.ACL{read, deny, acl("c", "ALLOW", "WRITE", topic), acl("e", "ALLOW", "READ", "*")}))
		f.follow(0, 1)
		f.given(admin, acl("a", "ALLOW", "READ", replica), acl("b", "DENY", "WRITE", replica))
		f.follow(0, 0)
		f.must(f.source.DeleteACLs(f.Context(), []kafka.ACL{deny}))
		f.must(f.env.NATS.Wipe())
		f.eventually("loaded", func() bool { return f.cursors.Load(f.Context()) == nil })
		f.follow(0, 1)
		f.given(admin, acl("a", "ALLOW", "READ", replica))
		f.flow.ACLs.Revoke = false
		f.must(f.source.DeleteACLs(f.Context(), []kafka.ACL{read}))
		f.follow(0, 0)
	})
}

// MirrorMaker's testNoBrokerAclAuthorizer, on either side; settings go their way.
func TestNoBrokerACLAuthorizer(t *testing.T) {
	for _, alias := range []string{"A", "B"} {
		t.Run(alias, func(t *testing.T) {
			inFollowing(t, setup{source: map[string]string{"retention.ms": "1000"}}, func(f *following) {
				f.must(f.source.CreateACLs(f.Context(), []kafka.ACL{acl("a", "ALLOW", "READ", topic)}))
				f.env.Kafka(alias).Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeACLs}, Err: kerr.SecurityDisabled, Count: -1, TopLevel: true})
				f.follow(1, 0)
			})
		})
	}
}

func TestNoRightToGiveRights(t *testing.T) {
	inFollowing(t, setup{}, func(f *following) {
		f.must(f.source.CreateACLs(f.Context(), []kafka.ACL{acl("a", "ALLOW", "READ", topic)}))
		f.env.Kafka("B").Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateACLs}, Err: kerr.ClusterAuthorizationFailed, Count: -1})
		f.follow(0, 1)
		if n := f.note(); !strings.Contains(n.Denied, "grant Alter on the cluster") {
			t.Errorf("remembers %+v", n)
		}
	})
}

// A right that would take kferry's own is taken back, and not given again every ten minutes, which would shut everybody out each time. Once
// there is another right on the copy it is given.
func TestRightThatTakesKferrysOwnIsTriedOnce(t *testing.T) {
	inFollowing(t, setup{}, func(f *following) {
		shut := false
		b := f.env.Kafka("B")
		b.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateACLs, kmsg.DeleteACLs}, Count: -1, Observe: true, When: func(req kmsg.Request) bool {
			shut = req.Key() == int16(kmsg.CreateACLs)
			return false
		}})
		locked := b.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: replica, Err: kerr.TopicAuthorizationFailed, Count: -1, When: func(req kmsg.Request) bool {
			return shut && req.(*kmsg.MetadataRequest).IncludeTopicAuthorizedOperations
		}})
		f.must(f.source.CreateACLs(f.Context(), []kafka.ACL{acl("a", "ALLOW", "READ", topic)}))
		f.follow(0, 2)
		f.given()
		for range 3 {
			f.follow(0, 0)
		}
		if n := f.note(); !strings.Contains(n.Denied, "kferry itself could not write there any more") {
			t.Errorf("remembers %+v", n)
		}
		locked.Remove()
		own := acl("kferry", "ALLOW", "WRITE", replica)
		f.must(f.target.CreateACLs(f.Context(), []kafka.ACL{own}))
		f.follow(0, 1)
		f.given(own, acl("a", "ALLOW", "READ", replica))
		if n := f.note(); n.Denied != "" {
			t.Errorf("remembers %+v", n)
		}
	})
}

// What can't be known to be remembered is not decided about: it would be forgotten.
func TestNothingFollowsBeforeTheNotesAreLoaded(t *testing.T) {
	inFollowing(t, setup{source: map[string]string{"retention.ms": "1000"}}, func(f *following) {
		f.follow(1, 0)
		f.must(f.env.NATS.Wipe())
		f.alter(f.source, topic, "retention.ms", "")
		f.eventually("the queue is back", func() bool { _, err := f.queue.States(f.Context()); return err == nil })
		if _, err := functions.Follow(f.Context(), f.flow, f.source, f.target, f.cursors, topic); err == nil {
			t.Error("followed without knowing what was applied")
		}
		f.has(map[string]string{"retention.ms": "1000"})
	})
}

// A copy outlives its topic, and keeps what it has.
func TestCopyOfADeletedTopicKeepsItsSettings(t *testing.T) {
	inFollowing(t, setup{source: map[string]string{"retention.ms": "1000"}}, func(f *following) {
		f.flow.ACLs.Revoke = true
		f.must(f.source.CreateACLs(f.Context(), []kafka.ACL{acl("a", "ALLOW", "READ", topic)}))
		f.follow(1, 1)
		f.must(f.source.DeleteACLs(f.Context(), []kafka.ACL{acl("a", "ALLOW", "READ", topic)}))
		f.must(f.env.Kafka("A").DeleteTopic(topic))
		f.follow(0, 0)
		f.given(acl("a", "ALLOW", "READ", replica))
	})
}

// The task creates the copy, and gives it what else it is to have, all in one.
func TestTopicsTaskMakesTheCopyFollow(t *testing.T) {
	inFollowing(t, setup{source: map[string]string{"retention.ms": "1000"}}, func(f *following) {
		f.must(f.source.CreateACLs(f.Context(), []kafka.ACL{acl("a", "ALLOW", "READ", topic)}))
		p := f.worker(0)
		_, err := f.queue.Offer(f.Context(), lease.Task{Kind: lease.KindTopics, Flow: flowName, Topic: topic, Partition: -1, Digest: f.flow.Digest()})
		f.must(err)
		f.eventually("followed", func() bool {
			return p.count("kferry_topic_configs_synced_total") == 1 && p.count("kferry_acls_synced_total") == 1
		})
		f.has(map[string]string{"retention.ms": "1000"})
		f.given(acl("a", "ALLOW", "READ", replica))
	})
}
