package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// commits are positions in partition 0 of some topics.
func commits(topic string, offset int64) map[kafka.TopicPartition]kafka.Commit {
	return map[kafka.TopicPartition]kafka.Commit{{Topic: topic}: {Offset: offset, Metadata: "by hand"}}
}

func (w *world) commit(group, topic string, offset int64) {
	w.Helper()
	refused, err := w.cluster.CommitGroupOffsets(w.ctx, group, commits(topic, offset))
	w.must(err)
	if len(refused) > 0 {
		w.Fatalf("commit for %s: %v", group, refused)
	}
}

// member joins a group and stays until the returned function is called.
func (w *world) member(group, topic string, opts ...kgo.Opt) (leave func()) {
	w.Helper()
	assigned := make(chan struct{}, 1)
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers("localhost:9092"), kgo.Dialer(w.network.DialContext), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
		kgo.DisableClientMetrics(),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, _ map[string][]int32) {
			select {
			case assigned <- struct{}{}:
			default:
			}
		}),
	}, opts...)...)
	w.must(err)
	<-assigned
	return client.Close
}

func (w *world) names(groups []kafka.Group) (names []string) {
	for _, g := range groups {
		names = append(names, fmt.Sprintf("%s %s %s", g.Name, g.Type, g.State))
	}
	return names
}

func TestGroupsOfAllBrokersAreListed(t *testing.T) {
	inBubble(t, setup{brokers: 3}, func(w *world) {
		w.create("orders", 1)
		var want []string
		for i := range 12 {
			name := fmt.Sprintf("app-%02d", i)
			w.commit(name, "orders", int64(i))
			want = append(want, name+" classic Empty")
		}
		leave := w.member("app-active", "orders")
		defer leave()
		want = append(want, "app-active classic Stable")
		groups, err := w.cluster.Groups(w.ctx)
		w.must(err)
		if got := w.names(groups); !slices.Equal(got, want) {
			t.Errorf("groups are %q, want %q", got, want)
		}
		for _, g := range groups {
			if !g.Consumes() {
				t.Errorf("%+v is no group of consumers", g)
			}
		}
	})
}

// Whoever takes a list that lacks a broker's groups for all of them takes those for gone.
func TestGroupsAreListedWholeOrNotAtAll(t *testing.T) {
	inBubble(t, setup{brokers: 3}, func(w *world) {
		w.create("orders", 1)
		w.commit("app", "orders", 1)
		w.fake.ControlKey(int16(kmsg.ListGroups), func(req kmsg.Request) (kmsg.Response, error, bool) {
			w.fake.KeepControl()
			if w.fake.CurrentNode() != 2 {
				return nil, nil, false
			}
			resp := req.ResponseKind().(*kmsg.ListGroupsResponse)
			resp.ErrorCode = kerr.CoordinatorLoadInProgress.Code
			return resp, nil, true
		})
		groups, err := w.cluster.Groups(w.ctx)
		if !errors.Is(err, kerr.CoordinatorLoadInProgress) || groups != nil {
			t.Errorf("groups are %v, error is %v", groups, err)
		}
	})
}

func TestGroupOffsetsAreReadInOneRequestPerCoordinator(t *testing.T) {
	inBubble(t, setup{brokers: 3}, func(w *world) {
		w.create("orders", 1)
		var names []string
		for i := range 60 {
			names = append(names, fmt.Sprintf("app-%02d", i))
			w.commit(names[i], "orders", int64(i))
		}
		names = append(names, "nobody")
		requests := w.counts(kmsg.OffsetFetch, nil)
		w.haveOffsets(names)
		if n := requests.Load(); n > 3 {
			t.Errorf("%d requests for 3 coordinators", n)
		}
	})
}

// haveOffsets reads positions as commit has left them: the n-th group's is n, and "nobody" has none.
func (w *world) haveOffsets(names []string) {
	w.Helper()
	all, err := w.cluster.GroupOffsets(w.ctx, names)
	w.must(err)
	for i, name := range names {
		want := commits("orders", int64(i))
		if name == "nobody" {
			clear(want)
		}
		if got := all[name]; got.Err != nil || !maps.Equal(got.Commits, want) {
			w.Errorf("%s has %+v, want %v", name, got, want)
		}
	}
}

func TestGroupOffsetsOfOldBrokersAreReadOneByOne(t *testing.T) {
	old := []kfake.Opt{kfake.MaxVersions(kversion.V2_8_0())}
	inBubble(t, setup{brokers: 2, fake: old}, func(w *world) {
		w.create("orders", 1)
		var names []string
		for i := range 5 {
			names = append(names, fmt.Sprintf("app-%d", i))
			w.commit(names[i], "orders", int64(i))
		}
		w.haveOffsets(append(names, "nobody"))
		groups, err := w.cluster.Groups(w.ctx)
		w.must(err)
		if len(groups) != 5 || groups[0].Type != "" || groups[0].State != kafka.GroupEmpty || !groups[0].Consumes() {
			t.Errorf("groups are %+v", groups)
		}
	})
}

// A group that may not be read says so, and hides no other.
func TestGroupOffsetsHaveErrorsOfTheirOwn(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		w.create("orders", 1)
		w.commit("app-0", "orders", 0)
		w.commit("secret", "orders", 1)
		w.fake.ControlKey(int16(kmsg.OffsetFetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
			resp := req.ResponseKind().(*kmsg.OffsetFetchResponse)
			for _, g := range req.(*kmsg.OffsetFetchRequest).Groups {
				answer := kmsg.NewOffsetFetchResponseGroup()
				answer.Group = g.Group
				if g.Group == "secret" {
					answer.ErrorCode = kerr.GroupAuthorizationFailed.Code
				}
				resp.Groups = append(resp.Groups, answer)
			}
			return resp, nil, true
		})
		all, err := w.cluster.GroupOffsets(w.ctx, []string{"app-0", "secret"})
		w.must(err)
		w.must(all["app-0"].Err)
		w.wants(all["secret"].Err, kafka.ErrGroupAuthorization)
	})
}

func TestGroupsWithMembersRefuseCommits(t *testing.T) {
	for _, protocol := range []string{"classic", "consumer"} {
		t.Run(protocol, func(t *testing.T) {
			inBubble(t, setup{brokers: 2}, func(w *world) {
				w.create("orders", 1)
				w.commit("idle", "orders", 3)
				var opts []kgo.Opt
				if protocol == "consumer" {
					opts = append(opts, kgo.ServerSideBalancer(), kgo.Balancers(kgo.RangeBalancer()))
				}
				leave := w.member("busy", "orders", opts...)
				has := func(group string, want kafka.GroupState) {
					t.Helper()
					all, err := w.cluster.GroupStates(w.ctx, []string{"idle", "busy", "nobody"})
					w.must(err)
					if got := all[group]; got.Err != nil || got.State != want {
						t.Errorf("%s is %+v, want %s", group, got, want)
					}
				}
				has("idle", kafka.GroupEmpty)
				has("nobody", kafka.GroupDead)
				has("busy", "Stable")
				refused, err := w.cluster.CommitGroupOffsets(w.ctx, "busy", commits("orders", 7))
				w.must(err)
				if !kafka.GroupInUse(refused[kafka.TopicPartition{Topic: "orders"}]) {
					t.Errorf("refused is %v", refused)
				}
				leave()
				synctest.Wait()
				has("busy", kafka.GroupEmpty)
				w.commit("busy", "orders", 7)
				all, err := w.cluster.GroupOffsets(w.ctx, []string{"busy"})
				w.must(err)
				if got := all["busy"].Commits; !maps.Equal(got, commits("orders", 7)) {
					t.Errorf("positions are %v", got)
				}
			})
		})
	}
}

// A coordinator keeps what one request commits in one batch, and refuses one of more than 1 MiB, which some 5,000 positions make.
func TestManyPositionsAreCommittedInParts(t *testing.T) {
	const partitions = 6000
	inBubble(t, setup{}, func(w *world) {
		w.create("orders", partitions)
		w.fake.ControlKey(int16(kmsg.OffsetCommit), func(req kmsg.Request) (kmsg.Response, error, bool) {
			w.fake.KeepControl()
			if len(req.(*kmsg.OffsetCommitRequest).Topics[0].Partitions) < 3000 {
				return nil, nil, false
			}
			return nil, errors.New("too much for one batch"), true
		})
		all := map[kafka.TopicPartition]kafka.Commit{}
		for p := range int32(partitions) {
			all[kafka.TopicPartition{Topic: "orders", Partition: p}] = kafka.Commit{Offset: int64(p), Metadata: "by hand"}
		}
		refused, err := w.cluster.CommitGroupOffsets(w.ctx, "app", all)
		if err != nil || len(refused) > 0 {
			t.Fatalf("%d refused, error %v", len(refused), err)
		}
		got, err := w.cluster.GroupOffsets(w.ctx, []string{"app"})
		w.must(err)
		if !maps.Equal(got["app"].Commits, all) {
			t.Errorf("%d positions are there, not %d as committed", len(got["app"].Commits), partitions)
		}
	})
}

// Only who consumes from positions that it commits has any to translate.
func TestGroupsThatConsume(t *testing.T) {
	for g, want := range map[kafka.Group]bool{
		{Type: "classic", ProtocolType: "consumer"}:  true,
		{Type: "Classic", ProtocolType: ""}:          true, // positions committed by hand
		{Type: "consumer", ProtocolType: "consumer"}: true,
		{Type: "", ProtocolType: "consumer"}:         true,
		{Type: "classic", ProtocolType: "connect"}:   false,
		{Type: "share", ProtocolType: "share"}:       false,
		{Type: "streams", ProtocolType: "streams"}:   false,
	} {
		if g.Consumes() != want {
			t.Errorf("%+v consumes: %v", g, !want)
		}
	}
}

// What README says a look costs: thousands of groups take a request for each 500.
func TestThousandsOfGroupsTakeFewRequests(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		var requests []string
		w.fake.ControlKey(-1, func(req kmsg.Request) (kmsg.Response, error, bool) {
			w.fake.KeepControl()
			requests = append(requests, kmsg.NameForKey(req.Key()))
			return nil, nil, false
		})
		var names []string
		for i := range 2000 {
			names = append(names, fmt.Sprintf("app-%04d", i))
		}
		for range 2 {
			requests = nil
			_, err := w.cluster.Groups(w.ctx)
			w.must(err)
			_, err = w.cluster.GroupOffsets(w.ctx, names)
			w.must(err)
		}
		if want := []string{"Metadata", "ListGroups", "OffsetFetch", "OffsetFetch", "OffsetFetch", "OffsetFetch"}; !slices.Equal(requests, want) {
			t.Errorf("requests are %q, want %q", requests, want)
		}
	})
}
