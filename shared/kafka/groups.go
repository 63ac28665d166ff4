package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

const (
	// groupsAtOnce bounds the groups that are asked about in one go: in one request per coordinator, or where brokers are too old for
	// that (before 3.0), in as many requests, which wait in line on one connection.
	groupsAtOnce = 500
	// offsetsVersion is the newest of OffsetFetch and OffsetCommit that names topics. Later ones have ids in the place of names, which
	// would have to be looked up, and positions in a deleted topic would be those of nothing.
	offsetsVersion = 9
	// commitBytes bounds what one request commits. Its coordinator keeps that in one batch, and refuses one beyond message.max.bytes, which is
	// 1 MiB unless somebody says otherwise. commitOverhead is what a position takes there beside its names and metadata.
	commitBytes    = 256 << 10
	commitOverhead = 100
)

// groupVersions are what franz-go speaks, but for offsetsVersion.
func groupVersions() *kversion.Versions {
	v := kversion.Stable()
	v.SetMaxKeyVersion(int16(kmsg.OffsetFetch), offsetsVersion)
	v.SetMaxKeyVersion(int16(kmsg.OffsetCommit), offsetsVersion)
	return v
}

// A GroupState is what a group is at, in Kafka's words.
type GroupState string

// The states that decide something here. In any other one the group has members.
const (
	GroupEmpty GroupState = "Empty" // it has positions and nobody uses it
	GroupDead  GroupState = "Dead"  // there is no such group
)

// A Group is a group as its coordinator lists it.
type Group struct {
	Name         string
	Type         string     // "classic", "consumer" (KIP-848), "share", "streams"; "" where brokers are too old to tell, which know only the first
	ProtocolType string     // "consumer", "connect" and so on; "" where it only has positions
	State        GroupState // "" where brokers are too old to tell (before 2.6)
}

// Consumes says whether the group's members consume partitions from positions that they commit. Others, as share groups and Connect's
// workers, have none.
func (g Group) Consumes() bool {
	if g.ProtocolType != "" && g.ProtocolType != "consumer" {
		return false
	}
	return g.Type == "" || strings.EqualFold(g.Type, "classic") || strings.EqualFold(g.Type, "consumer")
}

// Groups lists the groups of all brokers, by name. It fails where one broker doesn't answer: a list that lacks some would look as if
// those groups were gone. While a coordinator moves, its groups may be missing or there twice all the same.
func (c *Cluster) Groups(ctx context.Context) ([]Group, error) {
	listed := map[string]Group{}
	err := patiently(ctx, coordinating, func() error {
		clear(listed)
		return c.shards(ctx, kmsg.NewPtrListGroupsRequest(), func(_ kmsg.Request, resp kmsg.Response, err error) error {
			if err != nil {
				return err
			}
			list := resp.(*kmsg.ListGroupsResponse)
			for _, g := range list.Groups {
				listed[g.Group] = Group{g.Group, g.GroupType, g.ProtocolType, GroupState(g.GroupState)}
			}
			return c.lacking(kerr.ErrorForCode(list.ErrorCode), toDescribe, ofCluster, "")
		})
	})
	if err != nil {
		return nil, fmt.Errorf("groups: %w", err)
	}
	return slices.SortedFunc(maps.Values(listed), func(a, b Group) int { return strings.Compare(a.Name, b.Name) }), nil
}

// A Commit is a position that a group has committed: the next offset to consume.
type Commit struct {
	Offset   int64
	Metadata string
}

// GroupOffsets are all positions that a group has committed. One that was taken back (offset -1) is none. A group that is not there has
// none either.
type GroupOffsets struct {
	Commits map[TopicPartition]Commit
	Unknown map[TopicPartition]error // partitions whose position the coordinator would not tell
	Err     error                    // as ErrGroupAuthorization; then nothing is known
}

// GroupOffsets reads what groups have committed. Every group asked for is in the answer, with its own error where it has one.
func (c *Cluster) GroupOffsets(ctx context.Context, groups []string) (map[string]GroupOffsets, error) {
	all := make(map[string]GroupOffsets, len(groups))
	for some := range slices.Chunk(groups, groupsAtOnce) {
		req := kmsg.NewPtrOffsetFetchRequest()
		for _, name := range some {
			g := kmsg.NewOffsetFetchRequestGroup()
			g.Group = name // and no topics, which is all
			req.Groups = append(req.Groups, g)
			all[name] = GroupOffsets{Err: fmt.Errorf("positions of group %s: %w", name, ErrUnanswered)}
		}
		err := c.shards(ctx, req, func(req kmsg.Request, resp kmsg.Response, err error) error {
			if err != nil {
				for _, g := range req.(*kmsg.OffsetFetchRequest).Groups {
					all[g.Group] = GroupOffsets{Err: fmt.Errorf("positions of group %s: %w", g.Group, c.lacking(err, toDescribe, ofGroup, g.Group))}
				}
				return nil
			}
			for _, g := range resp.(*kmsg.OffsetFetchResponse).Groups {
				all[g.Group] = c.newGroupOffsets(g)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("positions of groups: %w", err)
		}
	}
	return all, nil
}

func (c *Cluster) newGroupOffsets(g kmsg.OffsetFetchResponseGroup) GroupOffsets {
	offsets := GroupOffsets{Commits: map[TopicPartition]Commit{}}
	if err := c.lacking(kerr.ErrorForCode(g.ErrorCode), toDescribe, ofGroup, g.Group); err != nil && !errors.Is(err, ErrGroupNotFound) {
		return GroupOffsets{Err: fmt.Errorf("positions of group %s: %w", g.Group, err)}
	}
	for _, t := range g.Topics {
		for _, p := range t.Partitions {
			tp := TopicPartition{t.Topic, p.Partition}
			if err := c.lacking(kerr.ErrorForCode(p.ErrorCode), toDescribe, ofTopic, t.Topic); err != nil {
				if offsets.Unknown == nil {
					offsets.Unknown = map[TopicPartition]error{}
				}
				offsets.Unknown[tp] = err
				continue
			}
			if p.Offset < 0 {
				continue
			}
			commit := Commit{Offset: p.Offset}
			if p.Metadata != nil {
				commit.Metadata = *p.Metadata
			}
			offsets.Commits[tp] = commit
		}
	}
	return offsets
}

// A GroupAnswer is what a group's coordinator says of it.
type GroupAnswer struct {
	State GroupState
	Err   error // then the state is not known
}

// GroupStates asks each group's coordinator for its state, as of now. Every group asked for is in the answer.
func (c *Cluster) GroupStates(ctx context.Context, groups []string) (map[string]GroupAnswer, error) {
	all := make(map[string]GroupAnswer, len(groups))
	for some := range slices.Chunk(groups, groupsAtOnce) {
		if err := c.groupStates(ctx, some, all); err != nil {
			return nil, fmt.Errorf("states of groups: %w", err)
		}
	}
	return all, nil
}

// groupStates asks in the classic way, and once more for those that are unknown to it: a group of the new protocol (KIP-848) looks like
// none at all.
func (c *Cluster) groupStates(ctx context.Context, groups []string, all map[string]GroupAnswer) error {
	for _, name := range groups {
		all[name] = GroupAnswer{Err: fmt.Errorf("state of group %s: %w", name, ErrUnanswered)}
	}
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups = groups
	err := c.shards(ctx, req, func(req kmsg.Request, resp kmsg.Response, err error) error {
		if err != nil {
			c.unknownStates(req.(*kmsg.DescribeGroupsRequest).Groups, err, all)
			return nil
		}
		for _, g := range resp.(*kmsg.DescribeGroupsResponse).Groups {
			all[g.Group] = c.newGroupAnswer(g.Group, g.State, g.ErrorCode)
		}
		return nil
	})
	if err != nil {
		return err
	}
	missing := slices.DeleteFunc(slices.Clone(groups), func(name string) bool { return all[name].State != GroupDead })
	if len(missing) == 0 {
		return nil
	}
	if knows, err := c.knows(ctx, kmsg.ConsumerGroupDescribe); err != nil || !knows {
		return err
	}
	newer := kmsg.NewPtrConsumerGroupDescribeRequest()
	newer.Groups = missing
	return c.shards(ctx, newer, func(req kmsg.Request, resp kmsg.Response, err error) error {
		if err != nil {
			c.unknownStates(req.(*kmsg.ConsumerGroupDescribeRequest).Groups, err, all)
			return nil
		}
		for _, g := range resp.(*kmsg.ConsumerGroupDescribeResponse).Groups {
			all[g.Group] = c.newGroupAnswer(g.Group, g.State, g.ErrorCode)
		}
		return nil
	})
}

func (c *Cluster) unknownStates(groups []string, err error, all map[string]GroupAnswer) {
	for _, name := range groups {
		all[name] = GroupAnswer{Err: fmt.Errorf("state of group %s: %w", name, c.lacking(err, toDescribe, ofGroup, name))}
	}
}

func (c *Cluster) newGroupAnswer(name, state string, code int16) GroupAnswer {
	switch err := c.lacking(kerr.ErrorForCode(code), toDescribe, ofGroup, name); {
	case errors.Is(err, ErrGroupNotFound):
		return GroupAnswer{State: GroupDead}
	case err != nil:
		return GroupAnswer{Err: fmt.Errorf("state of group %s: %w", name, err)}
	}
	return GroupAnswer{State: GroupState(state)}
}

// knows says whether the brokers take a kind of request.
func (c *Cluster) knows(ctx context.Context, key kmsg.Key) (bool, error) {
	resp, err := anyBroker[*kmsg.ApiVersionsResponse](ctx, c, kmsg.NewPtrApiVersionsRequest())
	if err != nil {
		return false, fmt.Errorf("what the brokers know: %w", err)
	}
	return slices.ContainsFunc(resp.ApiKeys, func(k kmsg.ApiVersionsResponseApiKey) bool { return k.ApiKey == int16(key) }), nil
}

// CommitGroupOffsets commits positions in the place of a group that has no members, as Kafka's Admin does; the broker refuses where it
// has some, see GroupInUse. The answer has the error of each partition that was refused: an empty one is success. After an error some may
// have been taken.
func (c *Cluster) CommitGroupOffsets(ctx context.Context, group string, commits map[TopicPartition]Commit) (map[TopicPartition]error, error) {
	refused, some, bytes := map[TopicPartition]error{}, map[TopicPartition]Commit{}, 0
	for tp, commit := range commits {
		size := len(group) + len(tp.Topic) + len(commit.Metadata) + commitOverhead
		if bytes+size > commitBytes && len(some) > 0 {
			if err := c.commitSome(ctx, group, some, refused); err != nil {
				return nil, err
			}
			clear(some)
			bytes = 0
		}
		some[tp] = commit
		bytes += size
	}
	return refused, c.commitSome(ctx, group, some, refused)
}

func (c *Cluster) commitSome(ctx context.Context, group string, commits map[TopicPartition]Commit, refused map[TopicPartition]error) error {
	req := kmsg.NewPtrOffsetCommitRequest() // without a member, of generation -1
	req.Group = group
	for topic, commits := range commitsByTopic(commits) {
		t := kmsg.NewOffsetCommitRequestTopic()
		t.Topic = topic
		for partition, commit := range commits {
			p := kmsg.NewOffsetCommitRequestTopicPartition() // without a leader epoch
			p.Partition, p.Offset, p.Metadata = partition, commit.Offset, &commit.Metadata
			t.Partitions = append(t.Partitions, p)
		}
		req.Topics = append(req.Topics, t)
	}
	resp, err := anyBroker[*kmsg.OffsetCommitResponse](ctx, c, req)
	if err != nil {
		return fmt.Errorf("commit positions of group %s: %w", group, c.lacking(err, toDescribe, ofGroup, group))
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			err := kerr.ErrorForCode(p.ErrorCode)
			if errors.Is(err, ErrGroupAuthorization) {
				err = c.lacking(err, toRead, ofGroup, group)
			}
			if err = c.lacking(err, toRead, ofTopic, t.Topic); err != nil {
				refused[TopicPartition{t.Topic, p.Partition}] = err
			}
		}
	}
	return nil
}

func commitsByTopic(commits map[TopicPartition]Commit) map[string]map[int32]Commit {
	topics := map[string]map[int32]Commit{}
	for tp, commit := range commits {
		if topics[tp.Topic] == nil {
			topics[tp.Topic] = map[int32]Commit{}
		}
		topics[tp.Topic][tp.Partition] = commit
	}
	return topics
}

// GroupInUse says that a coordinator refused to commit because the group has members, or is about to.
func GroupInUse(err error) bool {
	return anyOf(err, []error{kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.RebalanceInProgress, kerr.StaleMemberEpoch, kerr.FencedMemberEpoch, kerr.NonEmptyGroup})
}

// coordinating are the errors of a coordinator that moves. franz-go repeats what is for one of them, but not a list of all.
var coordinating = append([]error{kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress, kerr.NotCoordinator}, moving...)

// shards sends a request to all brokers that it is for, and passes what comes of each part. franz-go finds the coordinators, and repeats
// a part while they move. It stops at f's first error.
func (c *Cluster) shards(ctx context.Context, req kmsg.Request, f func(kmsg.Request, kmsg.Response, error) error) error {
	limited, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	for _, s := range c.client.RequestSharded(limited, req) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if s.Err != nil {
			s.Err = c.unanswered(s.Err)
		}
		if err := f(partOf(s, req), s.Resp, s.Err); err != nil {
			return err
		}
	}
	return nil
}

// partOf is the part of the request that a shard is about.
func partOf(s kgo.ResponseShard, whole kmsg.Request) kmsg.Request {
	if s.Req == nil { // it could not even be split
		return whole
	}
	return s.Req
}
