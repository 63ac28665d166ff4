package coordinator_test

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// heartbeats are those on a cluster since a time, by key.
func (in *installation) heartbeats(alias string, since time.Time) map[string][]time.Time {
	in.Helper()
	all := map[string][]time.Time{}
	err := in.Clusters[alias].ReadAll(in.Context(), mm2.HeartbeatsTopic, func(r kafka.Record) error {
		h, err := mm2.ParseHeartbeat(r.Key, r.Value)
		if err != nil {
			return err
		}
		if r.Timestamp != h.Timestamp {
			in.Errorf("the record is of %d, the heartbeat of %d", r.Timestamp, h.Timestamp)
		}
		if at := time.UnixMilli(h.Timestamp); !at.Before(since) {
			all[h.Source+"->"+h.Target] = append(all[h.Source+"->"+h.Target], at)
		}
		return nil
	})
	if err != nil {
		in.Fatal(err)
	}
	return all
}

// Each heartbeat has an interval of its own, two coordinators write no more of them than one, and one goes on when the other has ended.
func TestHeartbeats(t *testing.T) {
	bubble(t, func(in *installation) {
		in.Options.Metrics = nil
		in.Options.Spec.Heartbeats = []spec.Heartbeat{
			{Source: "A", Target: "B", Interval: time.Second, ReplicationFactor: -1},
			{Source: "C", Target: "B", Interval: 5 * time.Second, ReplicationFactor: -1},
			{Source: "B", Target: "A", Interval: time.Second, ReplicationFactor: -1},
		}
		in.run()
		time.Sleep(300 * time.Millisecond)
		in.run()
		time.Sleep(10 * time.Second)

		began := time.Now()
		time.Sleep(time.Minute)
		both := in.heartbeats("B", began)
		if a, c := len(both["A->B"]), len(both["C->B"]); a < 58 || a > 62 || c < 11 || c > 13 || len(both) != 2 {
			t.Errorf("%d and %d heartbeats of two coordinators in a minute: %v", a, c, both)
		}
		if n := len(in.heartbeats("A", began)["B->A"]); n < 58 || n > 62 {
			t.Errorf("%d heartbeats on A", n)
		}

		last := len(in.stop) - 1
		in.stop[last]()
		in.stop = in.stop[:last]
		began = time.Now()
		time.Sleep(10 * time.Second)
		if n := len(in.heartbeats("B", began)["A->B"]); n < 8 || n > 11 {
			t.Errorf("%d heartbeats of the other coordinator in ten seconds", n)
		}

		if err := in.NATS.Wipe(); err != nil {
			in.Fatal(err)
		}
		began = time.Now()
		time.Sleep(10 * time.Second)
		if n := len(in.heartbeats("B", began)["A->B"]); n < 8 || n > 11 {
			t.Errorf("%d heartbeats in the ten seconds since the queue was lost", n)
		}
		topic, err := in.Clusters["B"].Topic(in.Context(), mm2.HeartbeatsTopic)
		if err != nil || len(topic.Partitions) != 1 {
			t.Errorf("%+v, %v", topic, err)
		}
		if got := *in.Kafka("B").TopicInfo(mm2.HeartbeatsTopic).Configs["cleanup.policy"]; got != "compact" {
			t.Errorf("cleanup.policy=%s", got)
		}
	})
}

func TestHeartbeatsOfAClusterThatIsAwayStopNothing(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("C", "payments", 1, 1)
		in.connectThrough(spec.Cluster{Alias: "away", BootstrapServers: []string{"127.0.0.1:1"}}, func(context.Context, string, string) (net.Conn, error) {
			return nil, syscall.ECONNREFUSED
		})
		in.Options.Spec.Heartbeats = []spec.Heartbeat{
			{Source: "B", Target: "away", Interval: time.Second}, {Source: "A", Target: "B", Interval: time.Second, ReplicationFactor: -1},
		}
		in.run()
		in.expect(3*time.Second, "topics C->B payments")
		time.Sleep(5 * time.Second)
		began := time.Now()
		time.Sleep(10 * time.Second)
		if n := len(in.heartbeats("B", began)["A->B"]); n < 9 {
			t.Errorf("%d heartbeats in ten seconds", n)
		}
	})
}

// A right that is missing is told once, and what doesn't need it goes on.
func TestHeartbeatsWithoutTheRightToCreateTopics(t *testing.T) {
	bubble(t, func(in *installation) {
		var log strings.Builder
		in.Options.Logger = slog.New(slog.NewTextHandler(&log, nil))
		in.create("A", "orders", 1, 1)
		in.create("B", "A.orders", 1, 0)
		for _, source := range []string{"A", "C"} {
			if err := in.Kafka("B").CreateTopic(mm2.OffsetsTopic(source), 25, map[string]string{"cleanup.policy": "compact"}); err != nil {
				t.Fatal(err)
			}
		}
		in.Kafka("B").ControlKey(int16(kmsg.CreateTopics), func(req kmsg.Request) (kmsg.Response, error, bool) {
			in.Kafka("B").KeepControl()
			resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
			for _, topic := range req.(*kmsg.CreateTopicsRequest).Topics {
				answer := kmsg.NewCreateTopicsResponseTopic()
				answer.Topic, answer.ErrorCode = topic.Topic, kerr.TopicAuthorizationFailed.Code
				resp.Topics = append(resp.Topics, answer)
			}
			return resp, nil, true
		})
		in.Options.Spec.Heartbeats = []spec.Heartbeat{{Source: "A", Target: "B", Interval: time.Second}}
		c := in.run()
		in.expect(3*time.Second, "mirror A->B orders-0")
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		for _, want := range []string{`no right to create \"heartbeats\" on B: grant Create`, `A->B doesn't show in the topology`, `no right to create \"A.heartbeats\" on B`} {
			if n := strings.Count(log.String(), want); n != 1 {
				t.Errorf("%q was said %d times:\n%s", want, n, log.String())
			}
		}
		if r := c.Flows()[0]; r.Err != nil || !slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.Contains(w, "topology") }) {
			t.Errorf("the flow: %v, %q", r.Err, r.Warnings)
		}
		if _, err := in.Clusters["B"].Topic(in.Context(), mm2.HeartbeatsTopic); err == nil {
			t.Error("the topic is there")
		}
	})
}

// Where the source has no heartbeats, or they are not copied, the copy is there all the same, since MirrorClient goes by its name.
func TestEveryFlowShowsByItsHeartbeatsTopic(t *testing.T) {
	bubble(t, func(in *installation) {
		in.Options.Spec.Flows[0].Heartbeats = true
		in.create("C", mm2.HeartbeatsTopic, 3, 1) // which C->B doesn't select
		in.create("C", "A.heartbeats", 1, 1)
		in.create("C", "D.heartbeats", 1, 1) // of others, who may copy them back
		in.create("C", "B.heartbeats", 1, 1) // has been there
		paused := flowTo("B", "A", "orders")
		paused.State = spec.Paused
		in.Options.Spec.Flows = append(in.Options.Spec.Flows, paused)
		in.run()
		in.silent(5 * time.Second)
		for _, name := range []string{"A.heartbeats", "C.heartbeats", "C.A.heartbeats"} {
			topic, err := in.Clusters["B"].Topic(in.Context(), name)
			if err != nil || len(topic.Partitions) != 1 {
				t.Errorf("%s: %+v, %v", name, topic, err)
				continue
			}
			if got := *in.Kafka("B").TopicInfo(name).Configs["cleanup.policy"]; got != "compact" {
				t.Errorf("%s: cleanup.policy=%s", name, got)
			}
		}
		if in.Kafka("A").TopicInfo("B.heartbeats") != nil {
			t.Error("a flow that is paused has written to its target")
		}
		for _, name := range []string{"C.B.heartbeats", "C.D.heartbeats"} {
			if in.Kafka("B").TopicInfo(name) != nil {
				t.Errorf("there is %s", name)
			}
		}

		in.create("A", mm2.HeartbeatsTopic, 2, 1) // another shape than was thought
		in.release(in.expect(7*time.Second, "mirror A->B heartbeats-0", "topics A->B heartbeats")...)
	})
}

// Where the source has heartbeats, the copy is made as its source is: by a worker.
func TestHeartbeatsTopicIsCreatedAsItsSourceIs(t *testing.T) {
	bubble(t, func(in *installation) {
		in.Options.Spec.Flows[0].Heartbeats = true
		in.create("A", mm2.HeartbeatsTopic, 3, 1)
		in.create("A", "X.heartbeats", 1, 1)
		in.create("A", "B.heartbeats", 1, 1) // has been there
		in.run()
		in.expect(3*time.Second, "topics A->B X.heartbeats", "topics A->B heartbeats")
		in.silent(time.Second)
	})
}

// Heartbeats come every second. Copied each time they would keep a worker for ever.
func TestHeartbeatsAreCopiedFromTimeToTime(t *testing.T) {
	bubble(t, func(in *installation) {
		in.Options.Spec.Flows[0].Heartbeats = true
		in.Options.Spec.Heartbeats = []spec.Heartbeat{{Source: "X", Target: "A", Interval: time.Second, ReplicationFactor: -1}}
		in.create("A", mm2.HeartbeatsTopic, 1, 0)
		in.create("B", "A.heartbeats", 1, 0)
		c := in.run()
		runs := 0
		for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); {
			for _, l := range in.claim(time.Until(end)) {
				if !l.Task.Brief {
					t.Errorf("%s has to end when it has caught up", l.Task)
				}
				in.commitHeartbeats()
				in.release(l)
				runs++
			}
			synctest.Wait()
			if r := c.Flows()[0]; r.Oldest > 35*time.Second {
				t.Fatalf("heartbeats have waited for %s", r.Oldest)
			}
		}
		if runs < 4 || runs > 6 {
			t.Errorf("%d runs in two minutes", runs)
		}
	})
}

// commitHeartbeats plays a run that copied all of A's heartbeats.
func (in *installation) commitHeartbeats() {
	in.Helper()
	cursors := in.Queue.Cursors(in.Options.Spec.Flows[0], in.Clusters["B"])
	end := in.Kafka("A").PartitionInfo(mm2.HeartbeatsTopic, 0).HighWatermark
	cursor := lease.Cursor{Offset: end, Target: end, Sequence: int32(end), Timestamp: time.Now().UnixMilli()}
	_, revision, err := cursors.Get(in.Context(), mm2.HeartbeatsTopic, 0)
	if revision == 0 {
		_, err = cursors.Create(in.Context(), mm2.HeartbeatsTopic, 0, cursor)
	} else if err == nil {
		_, err = cursors.Commit(in.Context(), mm2.HeartbeatsTopic, 0, cursor, revision)
	}
	if err != nil {
		in.Fatal(err)
	}
}
