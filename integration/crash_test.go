package integration

import (
	"fmt"
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
	h.k.row.happened(counted)
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
	pass(h.k.t, time.Duration(h.random.Int64N(int64(most))))
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

// kill -9 of a worker with large batches, which pass through as they are, at random moments, its successor waiting for the leases to
// expire.
func (f far) killedWorker(t *testing.T) {
	const topic = "large-batches"
	k := f.copying(t, "worker killed, large batches", topic).over(testbed.StartNATS(t)).with("KFERRY_MEMORY", "8MiB")
	k.start("coordinator")
	load := largeBatches
	load.Records = 12 << 20 / load.ValueBytes
	hunt{
		k: k, topic: topic, load: load, kills: times(3, 12), within: 700 * time.Millisecond, random: seeded(t),
		prey: func() *testbed.Process { return k.start("worker") },
	}.run()
}

// A crew is workers of one installation, of which some die.
type crew struct {
	k       *installation
	workers []*testbed.Process
	random  *rand.Rand
}

func hire(k *installation, workers int, random *rand.Rand) *crew {
	c := &crew{k: k, random: random}
	for range workers {
		c.workers = append(c.workers, k.start("worker"))
	}
	return c
}

// strike kills up to so many of the workers that are copying, puts others in their places at once, and waits until all partitions move
// again. It returns how many died.
func (c *crew) strike(topic string, most int) int {
	t := c.k.t
	t.Helper()
	var copying []int
	testbed.Eventually(t, soon, "a worker to copy", func() bool {
		copying = copying[:0]
		for i, w := range c.workers {
			if m := metrics(t, w); sum(m, "kferry_leases_held") > 0 && sum(m, "kferry_records_total") > 0 {
				copying = append(copying, i)
			}
		}
		return len(copying) > 0
	})
	c.random.Shuffle(len(copying), func(i, j int) { copying[i], copying[j] = copying[j], copying[i] })
	victims := copying[:min(len(copying), 1+c.random.IntN(most))]
	pass(t, time.Duration(c.random.Int64N(int64(300*time.Millisecond))))
	before, since := c.k.target.Ends(c.k.copyOf(topic)), time.Now()
	for _, i := range victims {
		c.workers[i].Kill()
		c.workers[i] = c.k.start("worker")
	}
	c.k.resumes(topic, before, since)
	c.k.row.happened(len(victims))
	return len(victims)
}

// kill -9 of several of several workers at a time, under traffic that never stops, hundreds of times. The shortest lease makes a death
// cheap; nothing else depends on it.
func (f far) killedWorkers(t *testing.T) {
	const (
		crewSize   = 6
		atOnce     = 4
		partitions = 12
		slots      = "4" // so that the partitions are spread, and there is room for those of the dead
		aTopic     = 100 // deaths
	)
	nats, random := testbed.StartNATS(t), seeded(t)
	for died, n := 0, kills(t); died < n; {
		t.Run(fmt.Sprintf("from %d", died), func(t *testing.T) {
			topic := fmt.Sprintf("kills-%d", died)
			k := f.copying(t, "worker killed, lease 2 s", topic).over(nats).with("KFERRY_SLOTS", slots)
			k.source.CreateTopic(topic, partitions, 1)
			flow := traffic(k, topic, smallBatches, 2000, 3000)
			k.start("coordinator")
			c := hire(k, crewSize, random)
			k.grows(topic, 5000)
			for until := min(n, died+aTopic); died < until; {
				died += c.strike(topic, atOnce)
			}
			k.finish(flow, topic)
			deleteTopic(t, k.source, topic)
			deleteTopic(t, k.target, k.copyOf(topic))
		})
		if t.Failed() {
			return
		}
	}
}

// One of three workers dies, and the others go on with its partitions. All settings are kferry's own.
func (f far) killedWithDefaults(t *testing.T) {
	const (
		topic      = "defaults"
		partitions = 8
	)
	k := f.copying(t, "worker killed, default settings", topic).over(testbed.StartNATS(t))
	delete(k.env, "KFERRY_LEASE")
	k.source.CreateTopic(topic, partitions, 1)
	flow := traffic(k, topic, smallBatches, 2000, 2000)
	k.start("coordinator")
	c := hire(k, 3, seeded(t))
	k.grows(topic, 2000)
	for range times(3, 20) {
		c.strike(topic, 1)
	}
	k.row.demand(t, resumesWithin)
	k.finish(flow, topic)
}

// kill -9 of everything at once, the queue included, on a disk that stays and on one that is lost.
func (f far) killedRun(t *testing.T) {
	f.slow(t, 8<<20, 15*time.Millisecond)
	for _, disk := range []string{"kept", "lost"} {
		t.Run("disk "+disk, func(t *testing.T) {
			topic := "disk-" + disk
			k := f.copying(t, "kferry run killed, disk "+disk, topic).with("KFERRY_MEMORY", "8MiB")
			load := smallBatches
			load.Records = 60_000
			hunt{
				k: k, topic: topic, load: load, kills: times(2, 8), within: 700 * time.Millisecond, early: true, random: seeded(t),
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
