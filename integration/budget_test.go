package integration

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kferry/kferry/integration/testbed"
)

// budgetLoad is a backlog that no test here copies to its end: 16 KB batches, which travel as they are, of about 65 MB in all.
var budgetLoad = testbed.Load{Records: 150_000, ValueBytes: 1000, BatchBytes: 16 << 10, Codec: kgo.Lz4Compression(), PlainKeys: true}

const (
	mib           = 1 << 20
	settles       = 4 * time.Second // until a change has come to all workers
	accuracy      = 0.1
	quotas        = 0.2 // a period of the brokers' takes 12 s or so rather than 11, whoever copies
	triesAMeasure = 3
)

// budgeted is an installation with one topic behind.
func budgeted(t *testing.T, source, target *testbed.Cluster, variables ...string) *installation {
	t.Helper()
	topic := slug(t.Name())
	source.CreateTopic(topic, 4, 1)
	testbed.Produce(t, source, topic, budgetLoad)
	return copying(t, source, target, topic).with(variables...)
}

// size is how many bytes of a topic's copy the target's disk holds: batches as they travelled.
func (k *installation) size(topic string) int64 {
	k.t.Helper()
	admin := k.target.Admin()
	defer admin.Close()
	dirs, err := admin.DescribeAllLogDirs(k.t.Context(), kadm.TopicsSet{})
	if err != nil {
		k.t.Fatalf("log dirs: %v", err)
	}
	bytes := int64(0)
	dirs.Each(func(dir kadm.DescribedLogDir) {
		for _, partition := range dir.Topics[k.copyOf(topic)] {
			bytes += partition.Size
		}
	})
	return bytes
}

// keeps demands how much is copied in a second. A machine that is busy with other things may keep a copy below its limit for a while, so
// that is measured again; above it, nothing excuses it.
func (k *installation) keeps(what string, d time.Duration, measure func(topic string) int64, want, within float64) {
	k.t.Helper()
	for range triesAMeasure {
		got := k.rate(d, measure)
		k.t.Logf("%s: %.0f/s, %+.1f %% of %.0f/s", what, got, 100*(got/want-1), want)
		switch {
		case got > want*(1+within):
			k.t.Fatalf("%s: %.0f/s, want %.0f/s within %.0f %%", what, got, want, 100*within)
		case got > want*(1-within):
			return
		}
	}
	k.t.Errorf("%s: %d times in a row slower than %.0f/s by %.0f %%", what, triesAMeasure, want, 100*within)
}

// rate is how much is copied in a second, over some time.
func (k *installation) rate(d time.Duration, measure func(topic string) int64) float64 {
	k.t.Helper()
	topic := slug(k.t.Name())
	began, before := time.Now(), measure(topic)
	k.pass(d)
	return float64(measure(topic)-before) / time.Since(began).Seconds()
}

func (k *installation) pass(d time.Duration) {
	select {
	case <-k.t.Context().Done():
	case <-time.After(d):
	}
}

// reaches waits until the copy of the test's topic is so large.
func (k *installation) reaches(bytes int64) {
	k.t.Helper()
	topic := slug(k.t.Name())
	for deadline := time.Now().Add(copyWithin); k.size(topic) < bytes; k.pass(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			k.t.Fatalf("the copy has not reached %d bytes within %v", bytes, copyWithin)
		}
	}
}

// begun waits until the copy grows.
func (k *installation) begun() {
	k.t.Helper()
	topic := slug(k.t.Name())
	testbed.Eventually(k.t, copyWithin, "the copy to begin", func() bool { return k.copied(topic) > 0 })
	k.pass(2 * time.Second)
}

// limit sets one while workers run.
func (k *installation) limit(flags ...string) {
	k.t.Helper()
	k.command(0, "limit", append([]string{k.alias + "->central"}, flags...)...)
	k.pass(settles)
}

func TestBudget(t *testing.T) {
	t.Run("bytes", func(t *testing.T) {
		t.Parallel()
		k := budgeted(t, testbed.Shared(t, testbed.V43), testbed.Shared(t, testbed.V33), "KFERRY_RATE_BYTES", "1MiB", "KFERRY_SLOTS", "2").over(testbed.StartNATS(t))
		k.start("coordinator")
		k.start("worker")
		k.begun()
		k.keeps("one worker", 10*time.Second, k.size, mib, accuracy)
		other := k.start("worker")
		k.limit("--bytes", "1536KiB")
		k.keeps("two workers, another limit", 10*time.Second, k.size, 1.5*mib, accuracy)
		other.Kill()
		k.pass(leaseTime + settles)
		k.keeps("one of them was killed", 8*time.Second, k.size, 1.5*mib, accuracy)
		k.limit("--bytes", "0")
		k.await(slug(t.Name()))
		k.compare(slug(t.Name()))
	})
	t.Run("records", func(t *testing.T) {
		t.Parallel()
		k := budgeted(t, testbed.Shared(t, testbed.V33), testbed.Shared(t, testbed.V43), "KFERRY_RATE_RECORDS", "1500")
		p := k.start("run")
		k.begun()
		k.keeps("configured", 10*time.Second, k.copied, 1500, accuracy)
		k.limit("--records", "3000")
		k.keeps("set while running", 10*time.Second, k.copied, 3000, accuracy)
		k.stop(p)
		k.start("run")
		k.begun()
		k.keeps("after a restart", 10*time.Second, k.copied, 3000, accuracy)
	})
	// The owner of a cluster has limits of his own. Nothing fails of them, no lease is lost, and a metric tells.
	t.Run("quota", func(t *testing.T) {
		t.Parallel()
		guarded := testbed.Kafka(t, testbed.V43)
		setQuota(t, guarded, "consumer_byte_rate", 1*mib)
		setQuota(t, guarded, "producer_byte_rate", 1*mib)
		for name, k := range map[string]func(t *testing.T) *installation{
			"of the source": func(t *testing.T) *installation { return budgeted(t, guarded.For(t), testbed.Shared(t, testbed.V43)) },
			"of the target": func(t *testing.T) *installation { return budgeted(t, testbed.Shared(t, testbed.V43), guarded.For(t)) },
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				k := k(t)
				p := k.start("run")
				k.begun()
				// Brokers reckon over 11 s: what that allows flows at once, then next to nothing until it is forgotten. So the time is taken
				// from within one such burst, the second, to within the next but one.
				k.reaches(16 * mib)
				began := time.Now()
				k.reaches(38 * mib)
				got := 22 * mib / time.Since(began).Seconds()
				t.Logf("%.0f/s, %+.1f %% of the quota", got, 100*(got/mib-1))
				if got < mib*(1-quotas) || got > mib*(1+quotas) {
					t.Errorf("%.0f/s under a quota of %d", got, mib)
				}
				m := metrics(t, p)
				if s := sum(m, "kferry_throttle_seconds_total"); s < 5 {
					t.Errorf("the brokers have told to wait for %.1f s, says the metric", s)
				}
				if sum(m, "kferry_leases_lost_total") > 0 || sum(m, "kferry_task_failures_total") > 0 {
					t.Errorf("%.0f leases lost, %.0f failures", sum(m, "kferry_leases_lost_total"), sum(m, "kferry_task_failures_total"))
				}
				if n := strings.Count(p.Output(), "position unknown"); n > 0 {
					t.Errorf("the position was unknown %d times", n)
				}
			})
		}
	})
}

// setQuota sets a quota of the client id that kferry has.
func setQuota(t *testing.T, c *testbed.Cluster, quota string, bytes float64) {
	t.Helper()
	client := "kferry"
	admin := c.Admin()
	defer admin.Close()
	answers, err := admin.AlterClientQuotas(t.Context(), []kadm.AlterClientQuotaEntry{{
		Entity: kadm.ClientQuotaEntity{{Type: "client-id", Name: &client}},
		Ops:    []kadm.AlterClientQuotaOp{{Key: quota, Value: bytes}},
	}})
	if err != nil || len(answers) != 1 || answers[0].Err != nil {
		t.Fatalf("set %s: %v %v", quota, err, answers)
	}
}
