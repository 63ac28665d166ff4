package integration

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kferry/kferry/integration/testbed"
)

// coldWithin is far above what a process takes from its start to its first record; what it did take is in the log.
const coldWithin = 15 * time.Second

// The fronts of a worker as processes, over real HTTP.
func TestFronts(t *testing.T) {
	source, target, nats := testbed.Shared(t, testbed.V33), testbed.Shared(t, testbed.V43), testbed.StartNATS(t)
	begin := func(t *testing.T, topic string, partitions int) *installation {
		k := copying(t, source.For(t), target.For(t), topic).over(nats).with("KFERRY_LOG_LEVEL", "info")
		k.source.CreateTopic(topic, partitions, 1)
		return k
	}

	// A worker that is started for one run has its first record on the target soon, for a partition that was never copied and for one that was.
	t.Run("cold start", func(t *testing.T) {
		const topic = "cold"
		k := begin(t, topic, 1)
		k.start("coordinator")
		if code := k.start("worker", "--once").Wait(exitsWithin); code != 0 {
			t.Fatalf("with nothing to do: exit code %d", code)
		}
		testbed.Produce(t, k.source, topic, testbed.Load{Records: 1})
		k.start("worker", "--idle-exit", "2s").Wait(exitsWithin) // also creates the copy
		var took []time.Duration
		for n := range 5 {
			before := k.copied(topic)
			testbed.Produce(t, k.source, topic, testbed.Load{First: 1 + n, Records: 1})
			time.Sleep(1500 * time.Millisecond) // the coordinator looks each second
			began := time.Now()
			worker := k.start("worker", "--once")
			for k.copied(topic) == before && time.Since(began) < coldWithin {
				time.Sleep(2 * time.Millisecond)
			}
			took = append(took, time.Since(began))
			if code := worker.Wait(exitsWithin); code != 0 {
				t.Errorf("exit code %d", code)
			}
		}
		slices.Sort(took)
		t.Logf("from the start of the process to the first record: %s (median of %s)", took[len(took)/2], took)
		if took[len(took)/2] >= coldWithin {
			t.Errorf("took %s", took)
		}
		k.compare(topic)
	})

	// Workers are called when work waits. Between bursts, and in the midst of one, there is none; what calls meet then is nobody.
	for _, slots := range []string{"1", "10"} {
		t.Run("called, "+slots+" at a time", func(t *testing.T) {
			topic := "called-" + slots
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			address := l.Addr().String()
			l.Close()
			const token = "geheim-geheim-geheim"
			k := begin(t, topic, 10)
			testbed.Produce(t, k.source, topic, testbed.Load{Records: 2000})
			k.with("KFERRY_PUSH_URL", "http://"+address, "KFERRY_PUSH_TOKEN", token).start("coordinator")
			called := k.with("KFERRY_HTTP", address, "KFERRY_HTTP_TOKEN", token, "KFERRY_SLOTS", slots, "KFERRY_RUN_TIME", "3s")
			first := 2000
			worker := called.start("worker", "--push")
			flow := traffic(k, topic, testbed.Load{First: first, ValueBytes: 200, BatchBytes: 2 << 10}, 1000, 1000)
			k.grows(topic, 1000)
			called.stop(worker)
			first = flow.Stop()
			worker = called.start("worker", "--push")
			k.await(topic)
			called.stop(worker)
			if out := worker.Output(); strings.Contains(out, token) {
				t.Error("the token is in the log")
			}
			testbed.Produce(t, k.source, topic, testbed.Load{First: first, Records: 500})
			last := called.start("worker", "--push")
			k.await(topic)
			called.stop(last)
			k.compare(topic)
		})
	}
}
