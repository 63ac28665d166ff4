package offsets_test

import (
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/offsets"
)

// TestMirrorMaker holds scenarios of MirrorMaker's own tests, under their names there: how its topics come to be, and how few of the pairs
// that kferry writes its readers forget at a time.
func TestMirrorMaker(t *testing.T) {
	for name, c := range map[string]struct {
		refusal *kerr.Error
		there   bool // before
		want    string
	}{
		"MirrorUtilsTest.testCreateCompactedTopic":                                                          {nil, false, ""},
		"MirrorUtilsTest.testCreateCompactedTopicAlreadyExists":                                             {kerr.TopicAlreadyExists, false, ""},
		"MirrorUtilsTest.testCreateCompactedTopicAssumeTopicAlreadyExistsWithTopicAuthorizationException":   {kerr.TopicAuthorizationFailed, true, ""},
		"MirrorUtilsTest.testCreateCompactedTopicAssumeTopicAlreadyExistsWithClusterAuthorizationException": {kerr.ClusterAuthorizationFailed, true, ""},
		"MirrorUtilsTest.testCreateCompactedTopicAssumeTopicAlreadyExistsWithUnsupportedVersionException":   {kerr.UnsupportedVersion, true, ""},
		"MirrorUtilsTest.testCreateCompactedTopicFailsWithInvalidConfigurationException":                    {kerr.InvalidConfig, false, "INVALID_CONFIG"},
		"MirrorUtilsTest.testCreateCompactedTopicFailsWithTimeoutException":                                 {kerr.RequestTimedOut, false, "REQUEST_TIMED_OUT"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				topic := w.flow.Syncs.Topic
				create := func() { w.must(w.fakes["A"].CreateTopic(topic, 1, map[string]string{"cleanup.policy": "compact"})) }
				if c.there {
					create()
				}
				w.fakes["A"].ControlKey(int16(kmsg.CreateTopics), func(req kmsg.Request) (kmsg.Response, error, bool) {
					w.fakes["A"].KeepControl()
					if c.refusal == nil {
						return nil, nil, false
					}
					if c.refusal == kerr.TopicAlreadyExists && w.fakes["A"].TopicInfo(topic) == nil {
						go create() // by another, at the same moment
					}
					resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
					answer := kmsg.NewCreateTopicsResponseTopic()
					answer.Topic, answer.ErrorCode = topic, c.refusal.Code
					resp.Topics = append(resp.Topics, answer)
					return resp, nil, true
				})
				err := offsets.NewSyncs(w.flow, w.source, w.target, slog.New(slog.DiscardHandler)).Write(w.Context(), []mm2.OffsetSync{pair(1, 2)})
				if c.want != "" {
					if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), topic) {
						t.Errorf("%v, want %s of %s", err, c.want, topic)
					}
					return
				}
				w.must(err)
				w.isCompacted("A", topic)
				if all := w.pairs(w.source); !slices.Equal(all, []mm2.OffsetSync{pair(1, 2)}) {
					t.Errorf("pairs %v", all)
				}
			})
		})
	}
	const puts = 100
	t.Run("OffsetSyncStoreTest.testConsistentlySpacedSyncs", func(t *testing.T) {
		for first := range int64(30) {
			for step := int64(1); step < math.MaxInt64/puts; step = step*2 + 1 {
				forgets(t, 1, first, func(int) int64 { return step }, puts)
			}
		}
	})
	t.Run("OffsetSyncStoreTest.testRandomlySpacedSyncs", func(t *testing.T) {
		for n := 1; n < 54; n++ {
			random := rand.New(rand.NewPCG(0, uint64(n)))
			forgets(t, n+2, 0, func(int) int64 { return random.Int64N(1 << n) }, 1<<10)
		}
	})
	t.Run("OffsetSyncStoreTest.testDroppedSyncsSpacing", func(t *testing.T) {
		for first := range int64(30) {
			for step := int64(1); step < math.MaxInt64/puts/2; step = step*2 + 1 {
				forgets(t, 2, first, func(i int) int64 { return step * int64(1+i%2) }, puts)
			}
		}
	})
}

// forgets puts pairs so far apart, and fails if a stock reader forgets more than so many at one time.
func forgets(t *testing.T, most int, at int64, step func(int) int64, puts int) {
	t.Helper()
	s := store{readToEnd: true}
	s.put(pair(at, at))
	for i := range puts {
		before := s.kept()
		at += step(i)
		s.put(pair(at, at))
		after := s.kept()
		forgotten := slices.DeleteFunc(slices.Clone(before), func(u int64) bool { return slices.Contains(after, u) })
		if len(forgotten) > most || !slices.Contains(after, at) {
			t.Fatalf("%v were forgotten when %d came, of %v", forgotten, at, before)
		}
	}
}
