package offsets_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/shared/batch"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/offsets"
	"github.com/kferry/kferry/shared/spec"
)

// A world is a flow between two fake clusters, in a bubble.
type world struct {
	*testing.T
	fakes          map[string]*kfake.Cluster
	source, target *kafka.Cluster
	flow           spec.Flow
}

func inWorld(t *testing.T, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, fakes: map[string]*kfake.Cluster{}, flow: spec.Flow{
			Source: "A", Target: "B", Policy: mm2.DefaultPolicy{}, OffsetsReplicationFactor: -1,
			Syncs: spec.OffsetSyncs{Enabled: true, OnSource: true, Topic: "mm2-offset-syncs.B.internal", ReplicationFactor: -1},
		}}
		network := new(kfake.VirtualNetwork)
		for i, to := range []**kafka.Cluster{&w.source, &w.target} {
			alias := string(rune('A' + i))
			fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9092+i), kfake.ListenFn(network.Listen))
			w.must(err)
			t.Cleanup(fake.Close)
			w.fakes[alias] = fake
			*to, err = kafka.Open(spec.Cluster{Alias: alias, BootstrapServers: fake.ListenAddrs()}, kafka.Options{Dialer: network.DialContext})
			w.must(err)
			t.Cleanup((*to).Close)
		}
		test(w)
	})
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// A holed copy is one generation whose source has holes, and where each record is.
type holed struct {
	track    *offsets.Track
	copies   []bool // by source offset
	cursor   offsets.Cursor
	position []int64
}

func newHoled() *holed {
	track, err := offsets.Resume(offsets.Cursor{})
	if err != nil {
		panic(err)
	}
	return &holed{track: track}
}

func (h *holed) add(record bool) {
	h.copies = append(h.copies, record)
	if record {
		h.track.Copied(h.cursor.Offset, h.cursor.Target, 1)
		h.cursor.Target++
	}
	h.cursor.Offset++
	h.cursor.Mapped = h.cursor.Mapped || h.cursor.Target != h.cursor.Offset
}

// end is the cursor with the map, and makes position the truth.
func (h *holed) end() offsets.Cursor {
	h.cursor.Map = h.track.Map(h.cursor.Mapped)
	h.position = make([]int64, len(h.copies)+1)
	at := h.cursor.Target
	h.position[len(h.copies)] = at
	for u := len(h.copies) - 1; u >= 0; u-- {
		if h.copies[u] {
			at--
		}
		h.position[u] = at
	}
	return h.cursor
}

// A map is read from its topic, once, and then what is new: whoever translates needs nothing that the copier knew.
func TestMapIsReadFromItsTopic(t *testing.T) {
	inWorld(t, func(w *world) {
		random := rand.New(rand.NewPCG(1, 2))
		archive, m := offsets.NewArchive(w.flow, w.target), offsets.Open(w.flow, w.target)
		w.must(m.Refresh(w.Context())) // there is no topic yet
		h := newHoled()
		other := offsets.NewArchive(spec.Flow{Source: "A", Target: "C", OffsetsReplicationFactor: -1}, w.target)
		for round := range 5 {
			for range 60_000 {
				h.add(random.IntN(2) == 0)
			}
			pending := h.track.Pending()
			if len(pending) < 3 {
				t.Fatalf("%d chunks of 60,000 offsets", len(pending))
			}
			w.must(archive.Write(w.Context(), tp, pending))
			w.must(archive.Write(w.Context(), tp, pending[:1])) // a worker that was killed did so before
			w.must(other.Write(w.Context(), tp, pending))
			h.track.Saved(pending)
			c := h.end()
			w.must(m.Refresh(w.Context()))
			for range 2000 {
				u := random.Int64N(c.Offset + 1)
				if got := m.Translate(tp, c, u); !got.Exact || got.Target != h.position[u] {
					t.Fatalf("round %d: %d is translated to %+v, want %d", round, u, got, h.position[u])
				}
			}
			if round == 0 {
				continue
			}
			if h.track, _ = offsets.Resume(c); len(c.Map) > 4096 {
				t.Errorf("the cursor carries %d bytes", len(c.Map))
			}
		}
		w.isCompacted("B", archive.Topic())
		for _, separator := range []string{".", "_"} {
			if !mm2.Internal(mm2.DefaultPolicy{Separator: separator}, archive.Topic()) {
				t.Errorf("with the separator %s, %s is no internal topic", separator, archive.Topic())
			}
		}
		if chunks, bytes := m.Size(); bytes > 5*60_000/8*105/100 || chunks < 15 {
			t.Errorf("%d chunks of %d bytes for %d offsets", chunks, bytes, len(h.copies))
		}

		// Without the topic nothing wrong is said, and as much as can be known.
		w.must(w.fakes["B"].DeleteTopic(archive.Topic()))
		c := h.end()
		w.must(m.Refresh(w.Context()))
		inexact := 0
		for u := range c.Offset + 1 {
			got := m.Translate(tp, c, u)
			if got.Target > h.position[u] || got.Exact && got.Target != h.position[u] || got.Target < h.position[u]-(c.Offset-c.Target) {
				t.Fatalf("%d is translated to %+v, want %d", u, got, h.position[u])
			}
			if !got.Exact {
				inexact++
			}
		}
		if inexact == 0 {
			t.Error("the map of a topic that is gone is known")
		}
		w.must(archive.Write(w.Context(), tp, h.track.Pending())) // creates it anew
		w.must(m.Refresh(w.Context()))
	})
}

func (w *world) isCompacted(alias, topic string) {
	w.Helper()
	info := w.fakes[alias].TopicInfo(topic)
	if policy := info.Configs["cleanup.policy"]; len(w.fakes[alias].PartitionInfos(topic)) != 1 || policy == nil || *policy != "compact" {
		w.Errorf("topic %+v", info)
	}
}

// What is about records that the source has no more is deleted; what is left says what it said.
func TestMapIsPruned(t *testing.T) {
	inWorld(t, func(w *world) {
		w.must(w.fakes["A"].CreateTopic(tp.Topic, tp.Partition+1, nil))
		random := rand.New(rand.NewPCG(1, 2))
		archive, h := offsets.NewArchive(w.flow, w.target), newHoled()
		for range 100_000 {
			h.add(random.IntN(2) == 0)
		}
		w.must(archive.Write(w.Context(), tp, h.track.Pending()))
		h.track.Saved(h.track.Pending())
		c, m := h.end(), offsets.Open(w.flow, w.target)
		if n, err := archive.Prune(w.Context(), w.source); n > 0 || err != nil {
			t.Fatalf("%d of a source that has all: %v", n, err)
		}
		w.must(m.Refresh(w.Context()))
		before, _ := m.Size()

		records := make([]batch.Record, 1000)
		for i := range records {
			records[i].Offset = int64(i)
		}
		for range 50 {
			_, err := w.source.Produce(w.Context(), tp, kafka.TopicID{}, batch.Of(records...))
			w.must(err)
		}
		w.must(w.fakes["A"].DeleteRecords(tp.Topic, tp.Partition, 50_000))
		n, err := archive.Prune(w.Context(), w.source)
		w.must(err)
		w.must(m.Refresh(w.Context()))
		fresh := offsets.Open(w.flow, w.target)
		w.must(fresh.Refresh(w.Context()))
		for name, m := range map[string]*offsets.Map{"one that was there": m, "a new one": fresh} {
			if after, _ := m.Size(); n < 2 || after != before-n {
				t.Errorf("%s: of %d chunks %d are left, %d were deleted", name, before, after, n)
			}
			for u := int64(0); u <= c.Offset; u += 97 {
				got := m.Translate(tp, c, u)
				if got.Target > h.position[u] || got.Exact && got.Target != h.position[u] || u >= 50_000 && !got.Exact {
					t.Fatalf("%s: %d is translated to %+v, want %d", name, u, got, h.position[u])
				}
			}
		}
	})
}

// pairs are those on the topic, in order.
func (w *world) pairs(c *kafka.Cluster) (all []mm2.OffsetSync) {
	w.Helper()
	w.must(c.ReadAll(w.Context(), w.flow.Syncs.Topic, func(r kafka.Record) error {
		pair, err := mm2.ParseOffsetSync(r.Key, r.Value)
		all = append(all, pair)
		return err
	}))
	return all
}

// A thousand partitions that come to rest at once make a few requests, on whichever cluster the topic is; the newest pair of each counts.
func TestOffsetSyncsGoTogether(t *testing.T) {
	for _, onSource := range []bool{true, false} {
		t.Run(fmt.Sprint(onSource), func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.flow.Syncs.OnSource = onSource
				alias, cluster := "B", w.target
				if onSource {
					alias, cluster = "A", w.source
				}
				var requests atomic.Int64
				w.fakes[alias].ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
					w.fakes[alias].KeepControl()
					requests.Add(1)
					return nil, nil, false
				})
				s := offsets.NewSyncs(w.flow, w.source, w.target, slog.New(slog.DiscardHandler))
				w.run(s, func() {
					for i := range 2000 {
						s.Add(mm2.OffsetSync{Topic: "orders", Partition: int32(i % 1000), Upstream: int64(i), Downstream: int64(2 * i)})
					}
					time.Sleep(3 * time.Second)
					s.Add(pair(7, 8))
				})
				all := w.pairs(cluster)
				if len(all) != 1001 || all[999].Upstream < 1000 || all[1000] != pair(7, 8) {
					t.Errorf("%d pairs on the topic, the last %+v", len(all), all[len(all)-1])
				}
				if n := requests.Load(); n > 4 {
					t.Errorf("%d requests", n)
				}
				w.isCompacted(alias, w.flow.Syncs.Topic)
			})
		})
	}
}

// run runs what writes pairs while the test does something.
func (w *world) run(s *offsets.Syncs, while func()) {
	ctx, stop := context.WithCancel(w.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Run(ctx)
	}()
	while()
	stop()
	<-ended
}

// Without a right to the topic nothing is held up, and it is said once.
func TestOffsetSyncsThatAreRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		allowed := false
		w.fakes["A"].ControlKey(int16(kmsg.CreateTopics), func(req kmsg.Request) (kmsg.Response, error, bool) {
			w.fakes["A"].KeepControl()
			if allowed {
				return nil, nil, false
			}
			resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
			topic := kmsg.NewCreateTopicsResponseTopic()
			topic.Topic, topic.ErrorCode = w.flow.Syncs.Topic, kerr.TopicAuthorizationFailed.Code
			resp.Topics = append(resp.Topics, topic)
			return resp, nil, true
		})
		var said bytes.Buffer
		s := offsets.NewSyncs(w.flow, w.source, w.target, slog.New(slog.NewTextHandler(&said, nil)))
		w.run(s, func() {
			for i := range 200 {
				begun := time.Now()
				s.Add(pair(int64(i), int64(i)))
				if took := time.Since(begun); took > 0 {
					t.Fatalf("to add a pair took %s", took)
				}
				time.Sleep(time.Second)
			}
			allowed = true
			time.Sleep(time.Minute)
		})
		if n := strings.Count(said.String(), "WARN"); n != 1 {
			t.Errorf("said %d times: %s", n, said.String())
		}
		if all := w.pairs(w.source); len(all) != 1 || all[0] != pair(199, 199) {
			t.Errorf("pairs %v", all)
		}
	})
}

func TestNoOffsetSyncsWhereTheyAreOff(t *testing.T) {
	inWorld(t, func(w *world) {
		w.flow.Syncs.Enabled = false
		s := offsets.NewSyncs(w.flow, w.source, w.target, slog.New(slog.DiscardHandler))
		w.run(s, func() { s.Add(pair(1, 1)) })
		w.must(s.Write(w.Context(), []mm2.OffsetSync{pair(1, 1)}))
		if w.fakes["A"].TopicInfo(w.flow.Syncs.Topic) != nil {
			t.Error("there is a topic")
		}
	})
}
