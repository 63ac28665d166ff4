package functions_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/shared/groups"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

const checkpointsTopic = "A.checkpoints.internal"

// inGroups is a world whose flow follows all topics and groups, with a worker. The test sets cursors in the place of a copy.
func inGroups(t *testing.T, change func(*spec.Flow), test func(*world)) {
	t.Helper()
	inWorld(t, setup{}, func(w *world) {
		all := patterns(t, ".*")
		w.flow.Filters = []spec.Filter{{Topics: all, Exclude: patterns(t, strings.Join(mm2.TopicsExcludeDefault, ","))}}
		w.flow.Groups = spec.Groups{
			State: spec.Running, Include: all, Exclude: patterns(t, strings.Join(mm2.GroupsExcludeDefault, ",")),
			Checkpoints: true, CheckpointsInterval: 5 * time.Second, CheckpointsTopic: checkpointsTopic, CheckpointsReplicationFactor: -1,
			SyncInterval: time.Nanosecond,
		}
		if change != nil {
			change(&w.flow)
		}
		w.worker(0)
		test(w)
	})
}

func patterns(t *testing.T, text string) spec.Patterns {
	t.Helper()
	p, err := spec.ParsePatterns(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func syncs(f *spec.Flow) { f.Groups.Sync = true }

// isCopied says that a topic's partition 0 is copied up to an offset, and how far that is on the target, which holds so many records.
func (w *world) isCopied(topic string, offset, target int64) {
	w.Helper()
	w.isCopiedIn(w.cursors, topic, lease.Cursor{Offset: offset, Target: target, Mapped: offset != target})
}

func (w *world) isCopiedIn(cursors *lease.Cursors, topic string, c lease.Cursor) {
	w.Helper()
	was, revision, err := cursors.Get(w.Context(), topic, 0)
	if errors.Is(err, lease.ErrNoCursor) {
		_, err = cursors.Create(w.Context(), topic, 0, c)
	} else if err == nil {
		c.Sequence = was.Sequence + 1
		_, err = cursors.Commit(w.Context(), topic, 0, c, revision)
	}
	w.must(err)
}

// has creates a topic on a cluster with so many records in its only partition.
func (w *world) has(alias, name string, records int) {
	w.Helper()
	if w.env.Kafka(alias).TopicInfo(name) == nil {
		w.must(w.env.Kafka(alias).CreateTopic(name, 1, nil))
	}
	if records > 0 {
		w.writeTo(alias, name, records)
	}
}

func (w *world) cluster(alias string) *kafka.Cluster {
	if alias == "A" {
		return w.source
	}
	return w.target
}

// commits commits a position in partition 0 of a topic for a group without members.
func (w *world) commits(alias, group, topic string, offset int64) {
	w.Helper()
	w.commitsWith(alias, group, topic, kafka.Commit{Offset: offset})
}

func (w *world) commitsWith(alias, group, topic string, c kafka.Commit) {
	w.Helper()
	refused, err := w.cluster(alias).CommitGroupOffsets(w.Context(), group, map[kafka.TopicPartition]kafka.Commit{{Topic: topic}: c})
	w.must(err)
	if len(refused) > 0 {
		w.Fatalf("commit for %s: %v", group, refused)
	}
}

// committed is a group's position in partition 0 of a topic; -1 where it has none.
func (w *world) committed(alias, group, topic string) int64 {
	w.Helper()
	all, err := w.cluster(alias).GroupOffsets(w.Context(), []string{group})
	w.must(err)
	w.must(all[group].Err)
	if c, has := all[group].Commits[kafka.TopicPartition{Topic: topic}]; has {
		return c.Offset
	}
	return -1
}

// consumes joins a group until the test ends.
func (w *world) consumes(alias, group, topic string) *kgo.Client {
	w.Helper()
	client, err := w.env.Client(alias, kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit())
	w.must(err)
	w.Cleanup(client.Close)
	w.eventually("a member of "+group, func() bool {
		states, err := w.cluster(alias).GroupStates(w.Context(), []string{group})
		return err == nil && states[group].State == "Stable"
	})
	return client
}

// follow has a worker run the groups task once, and returns how that ended.
func (w *world) follow() lease.State {
	w.Helper()
	return w.followIn(w.flow)
}

func (w *world) followIn(f spec.Flow) lease.State {
	w.Helper()
	const pending = "pending"
	task := lease.Task{Kind: lease.KindGroups, Flow: f.Name(), Partition: -1, Digest: f.Digest()}
	s, _, err := w.queue.State(w.Context(), task)
	w.must(err)
	s.Reason = pending
	w.must(w.queue.PutState(w.Context(), task, s))
	w.eventually("offered", func() bool {
		ok, err := w.queue.Offer(w.Context(), task)
		return ok && err == nil
	})
	w.eventually("the groups task has run", func() bool {
		s, _, err = w.queue.State(w.Context(), task)
		return err == nil && s.Reason != pending
	})
	return s
}

// follows is follow where it has to end well.
func (w *world) follows() {
	w.Helper()
	if s := w.follow(); s.Reason != "" {
		w.Fatalf("the groups task failed: %+v", s)
	}
}

// checkpoints are all that were ever written, as people read them: "group topic-0 upstream->downstream".
func (w *world) checkpoints() (all []string) {
	w.Helper()
	err := w.target.ReadAll(w.Context(), checkpointsTopic, func(r kafka.Record) error {
		c, err := mm2.ParseCheckpoint(r.Key, r.Value)
		all = append(all, fmt.Sprintf("%s %s-%d %d->%d", c.Group, c.Topic, c.Partition, c.Upstream, c.Downstream)+c.Metadata)
		return err
	})
	if !errors.Is(err, kafka.ErrUnknownTopic) {
		w.must(err)
	}
	return all
}

// wrote compares all checkpoints that were ever written, in any order within one run.
func (w *world) wrote(want ...string) {
	w.Helper()
	got := w.checkpoints()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		w.Errorf("checkpoints are %q, want %q", got, want)
	}
}

// MirrorCheckpointConnectorTest.testFindConsumerGroups: groups that the filter selects and that have positions in topics that are copied.
func TestFindConsumerGroups(t *testing.T) {
	inGroups(t, func(f *spec.Flow) { f.Filters[0].Exclude = patterns(t, "other") }, func(w *world) {
		w.has("A", "other", 0)
		w.isCopied(topic, 10, 10)
		w.commits("A", "app", topic, 5)
		w.commits("A", "elsewhere", "other", 5)
		w.commits("A", "connect-sink", topic, 5)
		w.commits("A", "console-consumer-12345", topic, 5)
		w.commits("A", "__amazon_msk_canary", topic, 5)
		w.follows()
		w.wrote("app A.orders-0 5->5")
	})
}

// MirrorCheckpointConnectorTest.testFindConsumerGroupsInCommonScenarios: both filters together.
func TestFindConsumerGroupsInCommonScenarios(t *testing.T) {
	change := func(f *spec.Flow) {
		f.Filters[0].Exclude = patterns(t, "t[34]")
		f.Groups.Exclude = patterns(t, "g[24]")
	}
	inGroups(t, change, func(w *world) {
		for i := range 4 {
			name := fmt.Sprintf("t%d", i+1)
			w.has("A", name, 0)
			w.isCopied(name, 10, 10)
		}
		w.commits("A", "g1", "t1", 1) // both selected
		w.commits("A", "g2", "t1", 1) // the group is excluded
		w.commits("A", "g3", "t3", 1) // the topic is excluded
		w.commits("A", "g4", "t4", 1) // both are
		w.commits("A", "g5", "t2", 2) // one topic of each kind
		w.commits("A", "g5", "t3", 2)
		w.follows()
		w.wrote("g1 A.t1-0 1->1", "g5 A.t2-0 2->2")
	})
}

// MirrorCheckpointConnectorTest.testNoConsumerGroup, and a topic that is not made for nothing.
func TestNoConsumerGroup(t *testing.T) {
	inGroups(t, syncs, func(w *world) {
		w.follows()
		if _, err := w.target.Topic(w.Context(), checkpointsTopic); !errors.Is(err, kafka.ErrUnknownTopic) {
			t.Errorf("%s: %v", checkpointsTopic, err)
		}
	})
}

// MirrorCheckpointTaskTest.testCheckpoint: where a position leads, with what the group committed beside it.
func TestCheckpoint(t *testing.T) {
	inGroups(t, nil, func(w *world) {
		w.isCopied(topic, 10, 10)
		w.commitsWith("A", "app", topic, kafka.Commit{Offset: 7, Metadata: "meta-é"})
		w.follows()
		w.wrote("app A.orders-0 7->7meta-é")
		created, err := w.target.Configs(w.Context(), []string{checkpointsTopic})
		w.must(err)
		if !slices.ContainsFunc(created[checkpointsTopic].Entries, func(e kafka.ConfigEntry) bool {
			return e.Name == "cleanup.policy" && e.Value == "compact"
		}) {
			t.Errorf("%s is %+v", checkpointsTopic, created)
		}
	})
}

// A group that is ahead of the copy goes on where the copy ends, which moves on.
func TestCheckpointOfAGroupAheadOfTheCopy(t *testing.T) {
	inGroups(t, nil, func(w *world) {
		w.isCopied(topic, 10, 10)
		w.commits("A", "app", topic, 25)
		w.follows()
		w.isCopied(topic, 20, 20)
		w.follows()
		w.isCopied(topic, 30, 30)
		w.follows()
		w.follows()
		w.wrote("app A.orders-0 25->10", "app A.orders-0 25->20", "app A.orders-0 25->25")
	})
}

// MirrorConnectorsIntegrationBaseTest.testReplicationWithEmptyPartition: whoever stands at 0 of a partition without records does so on the
// target as well.
func TestReplicationWithEmptyPartition(t *testing.T) {
	inGroups(t, syncs, func(w *world) {
		w.commits("A", "app", topic, 0)
		w.follows()
		w.wrote("app A.orders-0 0->0")
		if got := w.committed("B", "app", replica); got != 0 {
			t.Errorf("position on the target is %d", got)
		}
	})
}

// MirrorConnectorsIntegrationBaseTest.testNoCheckpointsIfNoRecordsAreMirrored, MirrorCheckpointTaskTest.testNoCheckpointForTopicWithoutOffsetSyncs.
func TestNoCheckpointForTopicThatIsNotCopied(t *testing.T) {
	inGroups(t, syncs, func(w *world) {
		w.has("B", replica, 10)
		w.commits("A", "app", topic, 5)
		w.follows()
		w.wrote()
		w.isCopied(topic, 10, 10)
		w.follows()
		w.wrote("app A.orders-0 5->5")
	})
}

// MirrorCheckpointTaskTest.testNoCheckpointForTopicWithNullOffsetAndMetadata: a position that was taken back is none.
func TestNoCheckpointForTopicWithNullOffsetAndMetadata(t *testing.T) {
	inGroups(t, syncs, func(w *world) {
		w.has("A", "t1", 0)
		w.has("A", "t2", 0)
		w.isCopied("t1", 10, 10)
		w.isCopied("t2", 10, 10)
		w.commits("A", "app", "t1", -1)
		w.commits("A", "app", "t2", 5)
		w.follows()
		w.wrote("app A.t2-0 5->5")
	})
}

// MirrorCheckpointTaskTest.testCheckpointRecordsMonotonicIfStoreRewinds: a group never goes back in the copy unless it has on the source.
func TestCheckpointRecordsMonotonicIfStoreRewinds(t *testing.T) {
	inGroups(t, nil, func(w *world) {
		w.isCopied(topic, 100, 100)
		w.commits("A", "app", topic, 50)
		w.follows()
		w.isCopiedIn(w.cursors, topic, lease.Cursor{Offset: 100, Target: 90, Mapped: true}) // and the map is lost: everything leads lower
		w.commits("A", "app", topic, 60)
		w.follows() // is suppressed
		w.commits("A", "app", topic, 45)
		w.follows() // the group went back, so it may
		w.wrote("app A.orders-0 50->50", "app A.orders-0 45->0")
	})
}

// MirrorCheckpointTaskTest.testCheckpointsTaskRestartUsesExistingCheckpoints: another worker writes nothing that is there already, and
// doesn't step back.
func TestCheckpointsTaskRestartUsesExistingCheckpoints(t *testing.T) {
	inGroups(t, nil, func(w *world) {
		w.isCopied(topic, 100, 100)
		w.commits("A", "app", topic, 50)
		w.follows()
		w.write(1)
		first := w.worker(0) // beside the one that knows them
		w.follows()
		w.follows()
		first.drain()
		w.wrote("app A.orders-0 50->50")
	})
}

// CheckpointStoreTest.testReadCheckpointsTopic: the last one counts, and what can't be read is passed over.
func TestReadCheckpointsTopic(t *testing.T) {
	inGroups(t, nil, func(w *world) {
		w.must(w.env.Kafka("B").CreateTopic(checkpointsTopic, 1, nil))
		earlier := func(upstream, downstream int64) kafka.Record {
			c := mm2.Checkpoint{Group: "app", Topic: replica, Upstream: upstream, Downstream: downstream}
			return kafka.Record{Key: c.Key(), Value: c.Value()}
		}
		w.must(w.target.Write(w.Context(), checkpointsTopic, []kafka.Record{
			earlier(90, 90), {Key: []byte("noise"), Value: []byte("noise")}, earlier(40, 40),
		}))
		w.isCopied(topic, 100, 100)
		w.commits("A", "app", topic, 41)
		w.follows()
		ends, err := w.target.HighWatermark(w.Context(), kafka.TopicPartition{Topic: checkpointsTopic})
		w.must(err)
		if ends.Offset != 4 {
			t.Errorf("%d records in the topic, want 4: 41->41 follows 40->40", ends.Offset)
		}
	})
}

// CheckpointStoreTest.testReadCheckpointsTopicError. MirrorMaker goes on without what it could not read; here nothing is written.
func TestReadCheckpointsTopicError(t *testing.T) {
	inGroups(t, nil, func(w *world) {
		w.isCopied(topic, 100, 100)
		w.commits("A", "app", topic, 50)
		w.follows()
		w.env.Kafka("B").ControlKey(int16(kmsg.Metadata), func(req kmsg.Request) (kmsg.Response, error, bool) {
			w.env.Kafka("B").KeepControl()
			meta := req.(*kmsg.MetadataRequest)
			if len(meta.Topics) != 1 || meta.Topics[0].Topic == nil || *meta.Topics[0].Topic != checkpointsTopic {
				return nil, nil, false
			}
			resp := meta.ResponseKind().(*kmsg.MetadataResponse)
			denied := kmsg.NewMetadataResponseTopic()
			denied.Topic, denied.ErrorCode = meta.Topics[0].Topic, kerr.TopicAuthorizationFailed.Code
			resp.Topics = append(resp.Topics, denied)
			return resp, nil, true
		})
		w.commits("A", "app", topic, 60)
		if s := w.follow(); s.Reason != lease.ReasonAuthorization || !s.Held || s.Done != "" {
			t.Errorf("state is %+v", s)
		}
	})
}

// MirrorCheckpointTaskTest.testDownstreamTopicRenaming and the second half of testCheckpoint: who consumes the copy of a topic of the
// target goes on in the original.
func TestDownstreamTopicRenaming(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		all := patterns(t, ".*")
		w.flow.Filters = []spec.Filter{{Topics: all}}
		w.flow.Groups = spec.Groups{
			State: spec.Running, Include: all, Checkpoints: true, CheckpointsTopic: checkpointsTopic, CheckpointsReplicationFactor: -1,
		}
		back := w.flow
		back.Source, back.Target, back.OffsetsTopic = "B", "A", "mm2-offsets.B.internal"
		w.also = []spec.Flow{back}
		cursors := w.queue.Cursors(back, w.source)
		w.must(cursors.Load(w.Context()))
		w.worker(0)
		w.has("B", "payments", 0)
		w.has("A", "B.payments", 0)
		w.isCopiedIn(cursors, "payments", lease.Cursor{Offset: 20, Target: 20})
		w.isCopied(topic, 10, 10)
		w.commits("A", "app", topic, 5)
		w.commits("A", "app", "B.payments", 12)
		w.commits("A", "eager", "B.payments", 25) // somebody else wrote there
		w.follows()
		w.wrote("app A.orders-0 5->5", "app payments-0 12->12", "eager payments-0 25->20")
	})
}

// MirrorCheckpointTaskTest.testSyncOffset: positions on the target only go forward, and only where nobody uses the group.
func TestSyncOffset(t *testing.T) {
	inGroups(t, syncs, func(w *world) {
		w.has("B", replica, 100)
		w.isCopied(topic, 100, 100)
		w.commits("A", "new", topic, 10)
		w.commits("A", "behind", topic, 51)
		w.commits("B", "behind", replica, 50)
		w.commits("A", "ahead", topic, 60)
		w.commits("B", "ahead", replica, 70)
		w.commits("A", "busy", topic, 80)
		w.commits("B", "busy", replica, 1)
		w.consumes("B", "busy", replica)
		w.follows()
		for group, want := range map[string]int64{"new": 10, "behind": 51, "ahead": 70, "busy": 1} {
			if got := w.committed("B", group, replica); got != want {
				t.Errorf("%s is at %d on the target, want %d", group, got, want)
			}
		}
	})
}

// What a worker notes is what a coordinator sees afterwards, whatever the target took: or the task would be offered for ever.
func TestNothingIsDueAfterTheGroupsTask(t *testing.T) {
	inGroups(t, syncs, func(w *world) {
		w.has("B", replica, 40)
		w.isCopied(topic, 100, 100) // and the target has lost 60
		w.has("A", "gone", 0)
		w.isCopied("gone", 100, 100)
		w.commits("A", "new", topic, 10)
		w.commits("A", "new", "gone", 10)
		w.commits("A", "beyond", topic, 90)
		w.commits("A", "behind", topic, 30)
		w.commits("B", "behind", replica, 20)
		w.commits("A", "ahead", topic, 30)
		w.commits("B", "ahead", replica, 35)
		w.commits("A", "busy", topic, 30)
		w.commits("B", "busy", replica, 1)
		w.consumes("B", "busy", replica)
		state := w.follow()
		cursors, err := w.cursors.All(w.Context())
		w.must(err)
		seen, err := groups.Look(w.Context(), w.flow, w.source)
		w.must(err)
		copies := groups.Copies{Flow: w.flow, Cursors: cursors}
		positions := copies.Positions(seen)
		standing, err := groups.LookTarget(w.Context(), w.target, groups.Names(positions))
		w.must(err)
		if digest := copies.Digest(positions); state.Reason != "" || state.Done != digest || state.Synced != digest+standing.Digest(positions) {
			t.Errorf("the worker left %+v, and %s %s is to be seen", state, digest, standing.Digest(positions))
		}
	})
}

// A copy that was deleted and created again since is another topic: its records are none that a group has seen on the source.
func TestNoPositionInATopicThatWasCreatedAgain(t *testing.T) {
	inGroups(t, syncs, func(w *world) {
		w.has("B", replica, 40)
		w.isCopiedIn(w.cursors, topic, lease.Cursor{Offset: 100, Target: 100, TargetTopicID: kafka.TopicID{1}.String()})
		w.commits("A", "app", topic, 90)
		w.commits("A", "at the beginning", topic, 0)
		w.follows()
		w.wrote()
		if got := w.committed("B", "app", replica); got != -1 {
			t.Errorf("position is %d, want none", got)
		}
		now, err := w.target.Topic(w.Context(), replica)
		w.must(err)
		w.isCopiedIn(w.cursors, topic, lease.Cursor{Offset: 30, Target: 30, TargetTopicID: now.ID.String()})
		w.follows()
		if got := w.committed("B", "app", replica); got != 30 {
			t.Errorf("position is %d, want 30", got)
		}
	})
}

// What was committed beside a position goes along, and the target's log is not left at either end.
func TestSyncOffsetStaysWithinTheLog(t *testing.T) {
	inGroups(t, syncs, func(w *world) {
		w.has("B", replica, 40)
		w.isCopied(topic, 100, 100) // and the target has lost 60
		w.commitsWith("A", "app", topic, kafka.Commit{Offset: 90, Metadata: "kept"})
		w.follows()
		w.follows()
		all, err := w.target.GroupOffsets(w.Context(), []string{"app"})
		w.must(err)
		if got, want := all["app"].Commits, (map[kafka.TopicPartition]kafka.Commit{{Topic: replica}: {Offset: 40, Metadata: "kept"}}); !maps.Equal(got, want) {
			t.Errorf("position is %v, want %v", got, want)
		}
	})
}

// MirrorCheckpointTaskTest.testSyncOffsetForTargetGroupWithNullOffsetAndMetadata: where the target's position was taken back, it is set.
func TestSyncOffsetForTargetGroupWithNullOffsetAndMetadata(t *testing.T) {
	inGroups(t, syncs, func(w *world) {
		w.has("B", replica, 100)
		w.isCopied(topic, 100, 100)
		w.commits("A", "app", topic, 10)
		w.commits("B", "app", replica, -1)
		w.follows()
		if got := w.committed("B", "app", replica); got != 10 {
			t.Errorf("position is %d, want 10", got)
		}
	})
}

// MirrorMaker takes a group that it could not look at for a new one, and sets it back. A group of the target that has come further stays
// where it is, whichever request fails.
func TestFailedListingNeverRewritesAnything(t *testing.T) {
	for name, key := range map[string]kmsg.Key{"list": kmsg.ListGroups, "positions": kmsg.OffsetFetch, "states": kmsg.DescribeGroups} {
		t.Run(name, func(t *testing.T) {
			inGroups(t, syncs, func(w *world) {
				w.has("B", replica, 100)
				w.isCopied(topic, 100, 100)
				w.commits("A", "app", topic, 10)
				w.commits("B", "app", replica, 50)
				w.commits("A", "other", topic, 10) // there is something to write
				var written []string
				w.env.Kafka("B").ControlKey(int16(kmsg.OffsetCommit), func(req kmsg.Request) (kmsg.Response, error, bool) {
					w.env.Kafka("B").KeepControl()
					written = append(written, req.(*kmsg.OffsetCommitRequest).Group)
					return nil, nil, false
				})
				failing := true
				w.env.Kafka("B").ControlKey(int16(key), func(req kmsg.Request) (kmsg.Response, error, bool) {
					w.env.Kafka("B").KeepControl()
					if !failing {
						return nil, nil, false
					}
					return nil, errCut, true
				})
				s := w.follow()
				if s.Reason != lease.ReasonUnreachable || len(written) > 0 {
					t.Errorf("state is %+v; written: %v", s, written)
				}
				failing = false
				w.follows()
				if got := w.committed("B", "app", replica); got != 50 || !slices.Equal(written, []string{"other"}) {
					t.Errorf("app is at %d; written: %v", got, written)
				}
			})
		})
	}
}

// KAFKA-19107: MirrorMaker tries a partition that is gone for ever.
func TestPositionsOfADeletedTopicAreDropped(t *testing.T) {
	inGroups(t, syncs, func(w *world) {
		w.has("A", "gone", 0)
		w.isCopied("gone", 100, 100)
		w.has("B", replica, 100)
		w.isCopied(topic, 100, 100)
		w.commits("A", "app", "gone", 10)
		w.commits("A", "app", topic, 10)
		w.follows()
		if got := w.committed("B", "app", replica); got != 10 {
			t.Errorf("position is %d, want 10", got)
		}
	})
}

// The target's refusal of one group hides no other, and says what is to be granted.
func TestSyncOffsetWithoutTheRight(t *testing.T) {
	inGroups(t, syncs, func(w *world) {
		w.has("B", replica, 100)
		w.isCopied(topic, 100, 100)
		w.commits("A", "app", topic, 10)
		w.commits("A", "secret", topic, 10)
		for i := range 210 { // more than are looked at in one go
			w.commits("A", fmt.Sprintf("z%03d", i), topic, 10)
		}
		w.env.Kafka("B").ControlKey(int16(kmsg.OffsetCommit), func(req kmsg.Request) (kmsg.Response, error, bool) {
			w.env.Kafka("B").KeepControl()
			commit := req.(*kmsg.OffsetCommitRequest)
			if commit.Group != "secret" {
				return nil, nil, false
			}
			resp := commit.ResponseKind().(*kmsg.OffsetCommitResponse)
			for _, asked := range commit.Topics {
				answer := kmsg.NewOffsetCommitResponseTopic()
				answer.Topic = asked.Topic
				for _, p := range asked.Partitions {
					answer.Partitions = append(answer.Partitions, kmsg.OffsetCommitResponseTopicPartition{Partition: p.Partition, ErrorCode: kerr.GroupAuthorizationFailed.Code})
				}
				resp.Topics = append(resp.Topics, answer)
			}
			return resp, nil, true
		})
		if s := w.follow(); s.Reason != lease.ReasonAuthorization || !strings.Contains(s.Detail, "grant Read") || s.Done == "" {
			t.Errorf("state is %+v; checkpoints are to go on", s)
		}
		for _, group := range []string{"app", "z000", "z209"} {
			if got := w.committed("B", group, replica); got != 10 {
				t.Errorf("position of %s is %d, want 10", group, got)
			}
		}
	})
}

// MirrorCheckpointConnectorTest.testReplicationDisabled and the like: each half works without the other.
func TestCheckpointsAndSyncAreIndependent(t *testing.T) {
	for _, c := range []struct{ checkpoints, sync bool }{{true, false}, {false, true}} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			inGroups(t, func(f *spec.Flow) { f.Groups.Checkpoints, f.Groups.Sync = c.checkpoints, c.sync }, func(w *world) {
				w.has("B", replica, 100)
				w.isCopied(topic, 100, 100)
				w.commits("A", "app", topic, 10)
				w.follows()
				if got := len(w.checkpoints()) > 0; got != c.checkpoints {
					t.Errorf("checkpoints: %v", got)
				}
				if got := w.committed("B", "app", replica) == 10; got != c.sync {
					t.Errorf("position set: %v", got)
				}
			})
		})
	}
}

// Groups far behind a source with holes go on with exactly the next record, and those that have consumed the copy are led back to the
// original as exactly. MirrorMaker's checkpoints name it, but it never has a position for it.
func TestFailoverAndFailBackAreExact(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		all := patterns(t, ".*")
		w.flow.Filters = []spec.Filter{{Topics: all}}
		w.flow.Groups = spec.Groups{
			State: spec.Running, Include: all, Checkpoints: true, CheckpointsTopic: checkpointsTopic, CheckpointsReplicationFactor: -1,
		}
		back := w.flow
		back.Source, back.Target, back.OffsetsTopic, back.Groups.CheckpointsTopic = "B", "A", "mm2-offsets.B.internal", "B.checkpoints.internal"
		w.also = []spec.Flow{back}
		w.must(w.queue.Cursors(back, w.source).Load(w.Context()))
		for i := range 12 {
			w.write(3)
			w.endTransaction(w.transact(fmt.Sprintf("t%d", i), 4), kgo.TransactionEndTry(i%3 != 0))
		}
		w.worker(0)
		w.complete()
		source, copied := w.everyRecord(w.source, topic, 0, spec.ReadCommitted), w.everyRecord(w.target, replica, 0, spec.ReadUncommitted)
		end := w.cursor(0)
		for u := range end.Offset + 1 {
			w.commits("A", fmt.Sprintf("u%d", u), topic, u)
		}
		for u := range end.Target + 1 {
			w.commits("B", fmt.Sprintf("u%d", u), replica, u)
		}
		w.follows()
		if s := w.followIn(back); s.Reason != "" {
			t.Fatalf("the way back failed: %+v", s)
		}
		w.sameNext(w.target, checkpointsTopic, source, copied, int(end.Offset)+1)
		w.sameNext(w.source, back.Groups.CheckpointsTopic, copied, source, int(end.Target)+1)
	})
}

// sameNext holds so many checkpoints against the records: the next one on both sides is the same, and none is left over on one of them.
func (w *world) sameNext(c *kafka.Cluster, checkpoints string, from, to []kafka.Record, count int) {
	w.Helper()
	after := func(all []kafka.Record, offset int64) string {
		for _, r := range all {
			if r.Offset >= offset {
				return contentOf(r)
			}
		}
		return "the end"
	}
	w.must(c.ReadAll(w.Context(), checkpoints, func(r kafka.Record) error {
		checkpoint, err := mm2.ParseCheckpoint(r.Key, r.Value)
		if want, got := after(from, checkpoint.Upstream), after(to, checkpoint.Downstream); want != got {
			w.Errorf("%+v: the next record is %s, and was %s", checkpoint, got, want)
		}
		count--
		return err
	}))
	if count != 0 {
		w.Errorf("%d checkpoints are missing", count)
	}
}

// Where a group has moved there are offset-syncs from which MirrorMaker's own rule (exactly at a pair, else the next offset behind the
// greatest one below) comes to the same offset, ascending and with the newest last, since a reader takes anything else for a rewind.
func TestOffsetSyncsAtTheGroupsPositions(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		all := patterns(t, ".*")
		w.flow.Filters = []spec.Filter{{Topics: all}}
		w.flow.Syncs = spec.OffsetSyncs{Enabled: true, Topic: "mm2-offset-syncs.A.internal", ReplicationFactor: -1}
		w.flow.Groups = spec.Groups{
			State: spec.Running, Include: all, Checkpoints: true, CheckpointsTopic: checkpointsTopic, CheckpointsReplicationFactor: -1,
		}
		for i := range 60 {
			w.write(2)
			w.endTransaction(w.transact(fmt.Sprintf("t%d", i), 3), kgo.TransactionEndTry(i%3 != 0))
		}
		w.worker(0)
		w.complete()
		cursor, random := w.cursor(0), rand.New(rand.NewPCG(3, 5))
		seen := 0
		for round := range 20 {
			w.commits("A", "app", topic, random.Int64N(cursor.Offset-1)+1)
			u := w.committed("A", "app", topic)
			w.follows()
			var pairs []mm2.OffsetSync
			w.must(w.target.ReadAll(w.Context(), w.flow.Syncs.Topic, func(r kafka.Record) error {
				pair, err := mm2.ParseOffsetSync(r.Key, r.Value)
				pairs = append(pairs, pair)
				return err
			}))
			to := w.lastCheckpoint()
			if to.Upstream != u {
				continue // a group that goes on by as little as a marker has no new one
			}
			for _, pair := range slices.Backward(pairs) {
				if pair.Upstream > u {
					continue
				}
				translated := pair.Downstream
				if pair.Upstream < u {
					translated++
				}
				if translated != to.Downstream {
					t.Fatalf("round %d: %d is translated to %d by %+v, and the checkpoint is %+v", round, u, translated, pair, to)
				}
				seen++
				break
			}
			fresh := pairs[len(pairs)-2:]
			if fresh[0].Upstream > fresh[1].Upstream || fresh[1].Upstream < cursor.Offset-8 || fresh[0].Upstream > u {
				t.Errorf("round %d: the last pairs for %d of %d are %+v", round, u, cursor.Offset, fresh)
			}
		}
		if seen < 15 {
			t.Errorf("only %d positions were translated", seen)
		}
	})
}

func (w *world) lastCheckpoint() (last mm2.Checkpoint) {
	w.Helper()
	w.must(w.target.ReadAll(w.Context(), checkpointsTopic, func(r kafka.Record) (err error) {
		last, err = mm2.ParseCheckpoint(r.Key, r.Value)
		return err
	}))
	return last
}

// Nothing is written for groups that the input pauses, stops or doesn't have, by a task that was offered before either.
func TestPausedGroupsAreLeftAlone(t *testing.T) {
	for _, state := range []spec.State{spec.Paused, spec.Stopped, spec.Absent} {
		inGroups(t, func(f *spec.Flow) { f.Groups.State, f.Groups.Sync = state, true }, func(w *world) {
			w.has("B", replica, 100)
			w.isCopied(topic, 100, 100)
			w.commits("A", "app", topic, 10)
			w.follows()
			w.wrote()
			if got := w.committed("B", "app", replica); got != -1 {
				t.Errorf("%s: position on the target is %d", state, got)
			}
		})
	}
}

// MirrorConnectorsIntegrationBaseTest.testNoCheckpointsIfNoRecordsAreMirrored: where the copy begins with the latest record, a group that has
// still to read earlier ones would miss them on the target. One that has read them all goes on there.
func TestNoCheckpointsIfNoRecordsAreMirrored(t *testing.T) {
	change := func(f *spec.Flow) { f.Start = spec.Latest }
	inGroups(t, change, func(w *world) {
		w.write(50)
		w.complete()
		w.commits("A", "early", topic, 20)
		w.commits("A", "ready", topic, 50)
		w.follows()
		w.wrote("ready A.orders-0 50->0")
		w.write(10)
		w.complete()
		w.commits("A", "later", topic, 55)
		w.follows()
		w.wrote("ready A.orders-0 50->0", "later A.orders-0 55->5")
	})
}
