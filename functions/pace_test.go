package functions_test

import (
	"crypto/rand"
	"math"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// backlog writes so many records to the source, in compressed batches of about 25 records each where there are four partitions.
func (w *world) backlog(records int) {
	w.Helper()
	writer, err := w.env.Writer("A", topic, compressed)
	w.must(err)
	defer writer.Close()
	for range records / 100 {
		w.must(writer.Write(w.Context(), 100))
	}
}

// writeOne appends records to one partition of the source, in batches of a hundred.
func (w *world) writeOne(partition int32, records int) {
	w.Helper()
	client, err := w.env.Client("A", compressed, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	w.must(err)
	defer client.Close()
	for records > 0 {
		batch := make([]*kgo.Record, min(100, records))
		for i := range batch {
			batch[i] = &kgo.Record{Topic: topic, Partition: partition, Value: []byte(w.unique() + rand.Text() + rand.Text())}
		}
		w.must(client.ProduceSync(w.Context(), batch...).FirstErr())
		records -= len(batch)
	}
}

// amount is what workers have copied.
type amount struct{ records, bytes int64 }

func copied(workers ...*process) (sum amount) {
	for _, p := range workers {
		records, bytes := p.worker.Copied()
		sum.records += records
		sum.bytes += bytes
	}
	return sum
}

// rates are how much workers copy in a second, over some time in which a coordinator looks on.
func (w *world) rates(d time.Duration, workers ...*process) (bytes, records float64) {
	w.Helper()
	before := copied(workers...)
	w.offersFor(d)
	after := copied(workers...)
	return float64(after.bytes-before.bytes) / d.Seconds(), float64(after.records-before.records) / d.Seconds()
}

// near demands a rate within so many per cent.
func (w *world) near(what string, got, want, percent float64) {
	w.Helper()
	off := 100 * (got/want - 1)
	w.Logf("%s: %.0f/s, %+.1f %%", what, got, off)
	if math.Abs(off) > percent {
		w.Errorf("%s: %.0f/s, want %.0f/s within %.0f %%", what, got, want, percent)
	}
}

func (w *world) setLimit(topic string, l lease.Limit) {
	w.Helper()
	w.must(w.cursors.SetLimit(w.Context(), topic, l))
}

func ptr(n int64) *int64 { return &n }

const kib = 1 << 10

func TestLimitHoldsForTheFlow(t *testing.T) {
	inWorld(t, setup{partitions: 4}, func(w *world) {
		w.flow.Limits.Bytes = 20 * kib
		w.backlog(30_000)
		p := w.worker(0)
		w.offersFor(2 * time.Second)
		bytes, _ := w.rates(20*time.Second, p)
		w.near("one worker", bytes, 20*kib, 3)
		for n := range w.partitions {
			if at := w.targetEnd(n); at < w.targetEnd(0)*2/3 || at > w.targetEnd(0)*3/2 {
				t.Errorf("partition %d is at %d, the first at %d", n, at, w.targetEnd(0))
			}
		}
		if p.count("kferry_rate_limit_bytes") != 20*kib || p.count("kferry_rate_wait_seconds_total") < 20 {
			t.Errorf("metrics say %d bytes/s and %d s waited", p.count("kferry_rate_limit_bytes"), p.count("kferry_rate_wait_seconds_total"))
		}
	})
}

func TestLimitHoldsInRecords(t *testing.T) {
	inWorld(t, setup{partitions: 2}, func(w *world) {
		w.flow.Limits.Records = 500
		w.backlog(30_000)
		p := w.worker(0)
		w.offersFor(2 * time.Second)
		_, records := w.rates(20*time.Second, p)
		w.near("records", records, 500, 3)
	})
}

// A batch of ten seconds' worth is waited for as long as it is worth, and the cursor is committed meanwhile.
func TestLimitBelowTheSizeOfABatch(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.flow.Limits.Records = 100
		w.writeBatches(8, 1000)
		p := w.worker(0)
		w.offersFor(2 * time.Second)
		if c := w.cursor(0); c.Offset != 1000 || w.targetEnd(0) != 1000 {
			t.Errorf("after the first batch the cursor is at %d, the target's end at %d", c.Offset, w.targetEnd(0))
		}
		_, records := w.rates(60*time.Second, p)
		w.near("records", records, 100, 10)
		if n := p.count("kferry_leases_held"); n != 1 {
			t.Errorf("%d leases held: waiting for the limit counts as silence", n)
		}
		w.complete()
		w.exact()
	})
}

// Who has read more than a second's worth, and yields, is not let off when it is back.
func TestLimitOutlastsALease(t *testing.T) {
	inWorld(t, setup{partitions: 2}, func(w *world) {
		w.flow.Limits.Records = 100
		w.writeBatches(20, 2000) // of a thousand in each partition
		p := w.worker(1)
		w.offersFor(5 * time.Second)
		_, records := w.rates(60*time.Second, p)
		if records > 130 || records < 50 {
			t.Errorf("%.0f records/s, want about 100", records)
		}
		if w.targetEnd(0) == 0 || w.targetEnd(1) == 0 {
			t.Error("a partition has not had its turn")
		}
	})
}

// Two workers share one limit, each as it needs; what a dead one or one that was stopped had goes to the other.
func TestWorkersShareALimit(t *testing.T) {
	for how, end := range map[string]func(*process){"killed": (*process).kill, "drained": func(p *process) { p.drain() }} {
		t.Run(how, func(t *testing.T) {
			inWorld(t, setup{partitions: 8}, func(w *world) {
				w.flow.Limits.Bytes = 40 * kib
				w.backlog(100_000)
				a, b := w.worker(5), w.worker(5)
				w.offersFor(3 * time.Second)
				before := copied(a)
				bytes, _ := w.rates(20*time.Second, a, b)
				w.near("two workers", bytes, 40*kib, 5)
				if share := float64(copied(a).bytes-before.bytes) / 20 / bytes; share < 0.3 || share > 0.7 {
					t.Errorf("one of the two copies %.2f of all", share)
				}
				end(b)
				w.offersFor(leaseTime + 3*time.Second)
				bytes, _ = w.rates(20*time.Second, a)
				w.near("one worker is left", bytes, 40*kib, 5)
				c := w.worker(5)
				w.offersFor(3 * time.Second)
				bytes, _ = w.rates(20*time.Second, a, c)
				w.near("another one has come", bytes, 40*kib, 5)
			})
		})
	}
}

// A worker that does not use its part leaves it to the other one.
func TestIdlePartGoesToWhoNeedsIt(t *testing.T) {
	inWorld(t, setup{partitions: 2}, func(w *world) {
		w.flow.Limits.Bytes = 40 * kib
		w.writeOne(0, 60_000)
		w.writeOne(1, 200)
		a, b := w.worker(1), w.worker(1)
		stop := time.Now().Add(30 * time.Second)
		go func() { // a trickle keeps the other lease
			for time.Now().Before(stop) {
				w.writeOne(1, 1)
				time.Sleep(2 * time.Second)
			}
		}()
		w.offersFor(5 * time.Second)
		if a.count("kferry_leases_held") != 1 || b.count("kferry_leases_held") != 1 {
			t.Fatal("the two do not hold a lease each")
		}
		bytes, _ := w.rates(20*time.Second, a, b)
		w.near("a busy worker beside one that trickles", bytes, 40*kib, 6)
		w.offersFor(6 * time.Second)
	})
}

// A limit may be set, changed and cleared while workers copy, and what was set wins over the configuration.
func TestLimitChangesWhileRunning(t *testing.T) {
	inWorld(t, setup{partitions: 4}, func(w *world) {
		w.flow.Limits.Bytes = 10 * kib
		w.backlog(200_000)
		a, b := w.worker(3), w.worker(3)
		both := func(what string, want float64) {
			t.Helper()
			w.offersFor(4 * time.Second)
			bytes, _ := w.rates(12*time.Second, a, b)
			w.near(what, bytes, want, 5)
		}
		both("configured", 10*kib)
		w.setLimit("", lease.Limit{Bytes: ptr(60 * kib)})
		both("raised", 60*kib)
		w.must(w.env.NATS.Wipe())
		w.offersFor(2 * time.Second)
		both("after the queue has lost everything", 60*kib)
		w.setLimit("", lease.Limit{Bytes: ptr(20 * kib)})
		both("lowered", 20*kib)
		w.setLimit("", lease.Limit{})
		both("cleared", 10*kib)
		w.setLimit("", lease.Limit{Bytes: ptr(0)})
		w.complete()
		w.exact()
	})
}

// A topic's limit holds within the flow's: of two topics one is slow, and the flow as a whole keeps to its own.
func TestTopicLimitWithinTheFlows(t *testing.T) {
	inWorld(t, setup{partitions: 4}, func(w *world) {
		w.flow.Limits.Bytes = 40 * kib
		topics, err := spec.ParsePatterns("ord.*")
		w.must(err)
		w.flow.Limits.ByBytes = []spec.TopicLimit{{Topics: topics, PerSecond: 10 * kib}}
		w.backlog(100_000)
		a, b := w.worker(3), w.worker(3)
		w.offersFor(3 * time.Second)
		bytes, _ := w.rates(20*time.Second, a, b)
		w.near("the topic", bytes, 10*kib, 5)
		w.setLimit(topic, lease.Limit{Bytes: ptr(100 * kib)})
		w.offersFor(4 * time.Second)
		bytes, _ = w.rates(20*time.Second, a, b)
		w.near("the flow, which is the narrower one now", bytes, 40*kib, 5)
	})
}

// Nobody waits for a limit longer than the worker may: it drains, yields and notices a lost lease.
func TestWaitingForALimitEnds(t *testing.T) {
	slow := func(w *world) {
		w.flow.Limits.Records = 10
		w.writeBatches(4, 1000)
	}
	t.Run("drain", func(t *testing.T) {
		inWorld(t, setup{}, func(w *world) {
			slow(w)
			p := w.worker(0)
			w.offersFor(5 * time.Second)
			if took := p.drain(); took > time.Second {
				t.Errorf("drained in %s", took)
			}
			if kept, published := w.cursor(0), w.published(0); kept != published || kept.Offset != w.targetEnd(0) {
				t.Errorf("the target ends at %d: KV has %+v, the offsets topic %+v", w.targetEnd(0), kept, published)
			}
		})
	})
	t.Run("yield", func(t *testing.T) {
		inWorld(t, setup{partitions: 2}, func(w *world) {
			slow(w)
			w.worker(1)
			w.offer(0)
			time.Sleep(4 * time.Second)
			w.offer(1)
			w.eventually("the other partition has its turn", func() bool { return w.targetEnd(1) > 0 })
		})
	})
	t.Run("lost lease", func(t *testing.T) {
		inWorld(t, setup{}, func(w *world) {
			slow(w)
			p := w.worker(0)
			w.offersFor(3 * time.Second)
			p.nats.close()
			w.eventually("the worker gives up", func() bool { return p.count("kferry_leases_lost_total") == 1 })
			p.nats.open()
		})
	})
}
