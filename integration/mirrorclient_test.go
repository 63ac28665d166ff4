package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kferry/kferry/integration/testbed"
)

// MirrorMaker's own client understands a target that kferry has written, and a consumer that fails over by its word goes on with the very next
// record. Then MirrorMaker takes the group over as well.
func TestMirrorClient(t *testing.T) {
	t.Parallel()
	const topic, group = "judged", "app"
	k := copying(t, testbed.Shared(t, testbed.V33), testbed.Shared(t, testbed.V43), topic)
	k.source.CreateTopic(topic, 2, 1)
	testbed.Produce(t, k.source, topic, told(4000, 0))
	committed := map[int32]int64{0: 311, 1: 1206}
	k.commits(group, topic, committed)
	run := k.onFile().start("run") // the file says as MirrorMaker does where offset-syncs are
	testbed.Eventually(t, copyWithin, "the copy", func() bool { return k.differenceIfThere(topic).Lost == 0 })
	next := k.places(topic, committed)
	want := fmt.Sprintf("{%s-0=%d, %s-1=%d}", k.copyOf(topic), next[0], k.copyOf(topic), next[1])
	ask := "remoteConsumerOffsets " + k.alias + " " + group
	testbed.Eventually(t, copyWithin, "MirrorClient to say "+want, func() bool { return k.askClient(ask)[0] == want }) // those from before it was copied end there
	answers := k.askClient("upstreamClusters", "replicationHops "+k.alias, "remoteTopics "+k.alias, "remoteTopics", "checkpointTopics", "heartbeatTopics",
		ask, "remoteConsumerOffsets "+k.alias+" nobody")
	for i, want := range []string{k.alias, "1", k.copyOf(topic), k.copyOf(topic), k.alias + ".checkpoints.internal", k.alias + ".heartbeats"} {
		if !slices.Contains(strings.Split(strings.Trim(answers[i], "[]"), ", "), want) {
			t.Errorf("answer %d is %s, which lacks %s", i, answers[i], want)
		}
	}
	if answers[6] != want || answers[7] != "{}" {
		t.Errorf("offsets of %s: %s, want %s; of nobody: %s", group, answers[6], want, answers[7])
	}
	source, target := testbed.Read(t, k.source, topic, testbed.Uncommitted), testbed.Read(t, k.target, k.copyOf(topic), testbed.Committed)
	for p, offset := range committed {
		onTarget := target[p][slices.IndexFunc(target[p], func(r *kgo.Record) bool { return r.Offset >= next[p] })]
		onSource := testbed.Read(t, k.source, topic, testbed.Committed, p)[p]
		expected := onSource[slices.IndexFunc(onSource, func(r *kgo.Record) bool { return r.Offset >= offset })]
		if !sameRecord(onTarget, expected) || len(source[p]) == len(onSource) {
			t.Errorf("partition %d: a consumer at %d goes on with %q, want %q", p, next[p], onTarget.Value, expected.Value)
		}
	}

	k.stop(run)
	t.Run("and MirrorMaker goes on", func(t *testing.T) { k.in(t).translatesOn(topic, group, next) })
}

// translatesOn has MirrorMaker translate a group's positions where kferry did before. It goes by kferry's offset-syncs alone, since there is
// nothing more to copy, and as exactly as it ever does: to just behind the last of them that the group has passed. Where that is no
// further than before it writes nothing, and so for partition 0.
func (k *installation) translatesOn(topic, group string, from map[int32]int64) {
	further := map[int32]int64{0: 1402, 1: 1600}
	k.commits(group, topic, further)
	before := k.watchedEnd(k.alias + ".checkpoints.internal")
	maker := k.mirrorMaker("emit.checkpoints.interval.seconds", "1", "refresh.groups.interval.seconds", "1")
	defer maker.Stop()
	k.checkpointed(before + 1)
	now := k.askClient("remoteConsumerOffsets " + k.alias + " " + group)[0]
	until := k.places(topic, further)
	var got [2]int64
	if _, err := fmt.Sscanf(strings.ReplaceAll(now, k.copyOf(topic)+"-", ""), "{0=%d, 1=%d}", &got[0], &got[1]); err != nil {
		k.t.Fatalf("offsets of %s by MirrorMaker: %s: %v", group, now, err)
	}
	for p, offset := range got {
		if offset < from[int32(p)] || offset > until[int32(p)] {
			k.t.Errorf("MirrorMaker has %s-%d at %d, which is before %d, where kferry had it, or behind %d, where it is", group, p, offset, from[int32(p)], until[int32(p)])
		}
	}
	k.t.Logf("the group goes on at %v by kferry; at %v by MirrorMaker, where it is at %v", from, got, until)
}

// commits sets a group's positions on the source.
func (k *installation) commits(group, topic string, positions map[int32]int64) {
	k.t.Helper()
	admin := k.source.Admin()
	defer admin.Close()
	offsets := kadm.Offsets{}
	for p, offset := range positions {
		offsets.AddOffset(topic, p, offset, -1)
	}
	if err := admin.CommitAllOffsets(k.t.Context(), group, offsets); err != nil {
		k.t.Fatalf("commit of %s: %v", group, err)
	}
}

// checkpointed waits until so many checkpoints are on the target.
func (k *installation) checkpointed(records int64) {
	k.t.Helper()
	testbed.Eventually(k.t, mirrorMakerWithin, fmt.Sprintf("%d checkpoints", records), func() bool {
		return k.watchedEnd(k.alias+".checkpoints.internal") >= records
	})
}

func (k *installation) watchedEnd(topic string) int64 { return endsBy(k.t, k.watching(), topic) }

// places are the offsets in the copy where a consumer goes on that has come to certain offsets of the source.
func (k *installation) places(topic string, positions map[int32]int64) map[int32]int64 {
	k.t.Helper()
	places := map[int32]int64{}
	source, target := testbed.Read(k.t, k.source, topic, testbed.Committed), testbed.Read(k.t, k.target, k.copyOf(topic), testbed.Committed)
	for p, offset := range positions {
		i := slices.IndexFunc(source[p], func(r *kgo.Record) bool { return r.Offset >= offset })
		if i < 0 || i >= len(target[p]) {
			k.t.Fatalf("%s-%d: the copy has %d records, and the one at %d of the source is number %d", topic, p, len(target[p]), offset, i)
		}
		places[p] = target[p][i].Offset
	}
	return places
}

// askClient asks MirrorMaker's client about the target.
func (k *installation) askClient(questions ...string) []string {
	k.t.Helper()
	output := testbed.Judge(k.t, []byte(strings.Join(questions, "\n")+"\n"), "MirrorClients", k.target.InternalBootstrap())
	answers := strings.Split(strings.TrimSuffix(string(output), "\n"), "\n")
	if len(answers) != len(questions) {
		k.t.Fatalf("%d answers to %d questions: %s", len(answers), len(questions), output)
	}
	return answers
}
