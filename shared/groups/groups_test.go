package groups_test

import (
	"testing"
	"time"

	"github.com/kferry/kferry/shared/groups"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/offsets"
	"github.com/kferry/kferry/shared/spec"
)

var orders = kafka.TopicPartition{Topic: "orders"}

// between are the copies of A->B, which knows B->A, without cursors.
func between(t *testing.T) *groups.Copies {
	t.Helper()
	all, err := spec.ParsePatterns(".*")
	if err != nil {
		t.Fatal(err)
	}
	flow := spec.Flow{Source: "A", Target: "B", Policy: mm2.DefaultPolicy{Separator: "."}, Filters: []spec.Filter{{Topics: all}}}
	back := flow
	back.Source, back.Target = "B", "A"
	copies := groups.Open(flow, nil)
	copies.Back = groups.Open(back, nil)
	return copies
}

// where a group goes on that has come to an offset.
func where(copies *groups.Copies, topic string, offset int64) groups.Position {
	seen := groups.Seen{Groups: []kafka.Group{{Name: "app"}}, Offsets: map[string]kafka.GroupOffsets{"app": {
		Commits: map[kafka.TopicPartition]kafka.Commit{{Topic: topic}: {Offset: offset}},
	}}}
	all := copies.Positions(seen)
	copies.Translate(all)
	return all[0]
}

// Somebody has decided how to go on from MirrorMaker's position, and no worker has yet: which offsets belong together is as unknown as
// before, and the positions written now would stay.
func TestADecisionAboutAnothersPositionTranslatesNothing(t *testing.T) {
	copies := between(t)
	theirs := lease.Cursor{Version: lease.CursorVersion, Foreign: true, Offset: 5000}
	for name, cursor := range map[string]lease.Cursor{
		"MirrorMaker's":    theirs,
		"decided":          theirs.Decided(lease.Hold{Reason: lease.ReasonPositionSet}, lease.From(4000), time.Now()),
		"decided, no hold": theirs.Decided(lease.Hold{Reason: lease.ReasonNoCursor}, lease.Restart, time.Now()),
	} {
		copies.Cursors = map[kafka.TopicPartition]lease.Cursor{orders: cursor}
		if got := where(copies, "orders", 3000); got.To != -1 || got.Reason != groups.NotBegun {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// Who has consumed the part of a copy that MirrorMaker made is not led past records that they haven't seen.
func TestTheWayBackPassesNothingOver(t *testing.T) {
	copies := between(t)
	track, err := offsets.Resume(offsets.Cursor{})
	if err != nil {
		t.Fatal(err)
	}
	track.Lose(5000, 1000) // MirrorMaker's copy ended there
	track.Copied(5000, 1000, 100)
	track.Jump(5200, 1150) // by a decision, behind 50 records of which nobody knows whose they are
	track.Copied(5200, 1150, 10)
	cursor := lease.Cursor{Offset: 5210, Target: 1160, Mapped: true, Map: track.Map(true), TargetTopicID: "x"}
	copies.Back.Cursors = map[kafka.TopicPartition]lease.Cursor{orders: cursor}
	for at, want := range map[int64]groups.Position{
		300:  {To: 0},
		999:  {To: 0},
		1000: {To: 5000, Exact: true},
		1040: {To: 5040, Exact: true},
		1100: {To: 5100, Exact: true},
		1120: {To: 5100},
		1150: {To: 5200, Exact: true},
		1155: {To: 5205, Exact: true},
		1160: {To: 5210, Exact: true},
	} {
		if got := where(copies, "B.orders", at); got.To != want.To || got.Exact != want.Exact || got.Exact != (got.Reason == "") {
			t.Errorf("%d leads back to %d, exact %v (%s), want %d, %v", at, got.To, got.Exact, got.Reason, want.To, want.Exact)
		}
	}
}
