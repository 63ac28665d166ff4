package integration

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kferry/kferry/integration/testbed"
)

// The two shapes of data that travel differently: small batches are merged, large ones pass through as they are.
var (
	smallBatches = testbed.Load{ValueBytes: 200, BatchBytes: 2 << 10}
	largeBatches = testbed.Load{ValueBytes: 1000, Codec: kgo.Lz4Compression()}
)

// partitions of a topic that faults meet.
const partitions = 4

// A hunt kills a process of kferry again and again while it copies. A kill counts when the copy grew in that life and was
// not finished: anything else proves nothing.
type hunt struct {
	k      *installation
	topic  string
	load   testbed.Load // what the backlog is made of
	prey   func() *testbed.Process
	within time.Duration // a life's length after its first record landed is drawn from this
	early  bool          // whether some lives end before that, while the process starts and finds its position
	kills  int           // that have to count
	random *rand.Rand
}

// idleLives bounds the lives of a hunt whose kills do not count.
const idleLives = 20

func (h hunt) run() {
	t := h.k.t
	t.Helper()
	h.k.source.CreateTopic(h.topic, partitions, 1)
	next, counted, lives := h.feed(0), 0, 0
	for counted < h.kills {
		if lives++; lives > 2*h.kills+idleLives {
			t.Fatalf("only %d of %d kills counted: the copy is too fast or does not move", counted, lives)
		}
		next = h.feed(next)
		before := h.k.settled(h.topic)
		prey := h.prey()
		if h.early && h.random.IntN(4) == 0 {
			h.after(h.within)
		} else {
			testbed.Eventually(t, copyWithin, h.topic+" to grow in a new life", func() bool { return h.k.copied(h.topic) > before })
			h.after(h.within)
		}
		prey.Kill()
		if landed := h.k.settled(h.topic); landed > before && landed < int64(next) {
			counted++
		}
	}
	last := h.prey()
	h.k.await(h.topic)
	h.k.stop(last)
	t.Logf("%s: %d of %d kills counted", h.topic, counted, lives)
	h.k.compare(h.topic)
}

// feed keeps the backlog above what a life can copy.
func (h hunt) feed(next int) int {
	for int64(next)-h.k.copied(h.topic) < int64(h.load.Records) {
		load := h.load
		load.First = next
		next = testbed.Produce(h.k.t, h.k.source, h.topic, load)
	}
	return next
}

// after lets a random part of a time pass.
func (h hunt) after(most time.Duration) {
	select {
	case <-h.k.t.Context().Done():
	case <-time.After(time.Duration(h.random.Int64N(int64(most)))):
	}
}

// seeded makes a test's randomness, and says how to have the same again.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if given := os.Getenv("KFERRY_SEED"); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatalf("KFERRY_SEED: %v", err)
		}
	}
	t.Logf("KFERRY_SEED=%d brings the same moments again", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// kill -9 of a worker at random moments, its successor waiting for the leases to expire.
func (f far) killedWorker(t *testing.T) {
	f.slow(t, 8<<20, 15*time.Millisecond)
	nats := testbed.StartNATS(t)
	kills := 5
	if long() {
		kills = 20
	}
	for name, load := range map[string]testbed.Load{"small batches": smallBatches, "large batches": largeBatches} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of the time is waiting for leases
			topic := slug(name)
			k := f.copying(t, topic).over(nats).with("KFERRY_MEMORY", "8MiB")
			k.start("coordinator")
			load.Records = 12 << 20 / load.ValueBytes
			hunt{
				k: k, topic: topic, load: load, kills: kills, within: 700 * time.Millisecond, random: seeded(t),
				prey: func() *testbed.Process { return k.start("worker") },
			}.run()
		})
	}
}

// kill -9 of everything at once, the queue included, on a disk that stays and on one that is lost.
func (f far) killedRun(t *testing.T) {
	f.slow(t, 8<<20, 15*time.Millisecond)
	kills := 3
	if long() {
		kills = 10
	}
	for _, disk := range []string{"kept", "lost"} {
		t.Run("disk "+disk, func(t *testing.T) {
			topic := "disk-" + disk
			k := f.copying(t, topic).with("KFERRY_MEMORY", "8MiB")
			load := smallBatches
			load.Records = 60_000
			hunt{
				k: k, topic: topic, load: load, kills: kills, within: 700 * time.Millisecond, early: true, random: seeded(t),
				prey: func() *testbed.Process {
					if disk == "lost" {
						if err := os.RemoveAll(k.env["KFERRY_DATA"]); err != nil {
							t.Fatal(err)
						}
					}
					return k.start("run")
				},
			}.run()
		})
	}
}
