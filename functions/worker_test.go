package functions_test

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/functions"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// offersFor is a coordinator that looks ten times a second, for a while.
func (w *world) offersFor(d time.Duration) {
	w.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		w.offerBehind()
	}
}

// A worker is paused when its nth batch has reached the broker. Its lease runs out and another worker takes over; then it is back,
// while the other one is copying.
func TestPausedWorkerComesBackToALostLease(t *testing.T) {
	for _, late := range []bool{false, true} {
		for nth := 1; nth <= 3; nth++ {
			t.Run(fmt.Sprintf("batch %d, late %t", nth, late), func(t *testing.T) {
				inWorld(t, setup{}, func(w *world) {
					w.stream(12 * time.Second)
					paused := w.worker(0)
					back := make(chan struct{})
					w.at(position{"B", kmsg.Produce, replica, nth}, func(kmsg.Request) (kmsg.Response, error) {
						paused.pause()
						if late { // the batch lands, or is refused, when the other worker's have landed
							w.env.Kafka("B").SleepControl(func() { <-back })
						}
						return nil, nil
					})
					w.offersFor(time.Second)
					other := w.worker(0)
					w.offersFor(7 * time.Second)
					if n, _ := other.worker.Copied(); n == 0 {
						t.Error("nobody took over")
					}
					close(back)
					paused.resume()
					w.offersFor(5 * time.Second)
					w.complete()
					w.exact()
					if paused.count("kferry_leases_lost_total") != 1 || other.count("kferry_leases_lost_total") != 0 {
						t.Errorf("%d runs of the paused worker and %d of the other one ended as lost",
							paused.count("kferry_leases_lost_total"), other.count("kferry_leases_lost_total"))
					}
				})
			})
		}
	}
}

// A stale acknowledgement frees the lease of a worker that is copying, and the task is offered again: two workers copy one partition,
// both in good faith, until one of them commits.
func TestStaleAcknowledgementSetsTwoWorkersToOnePartition(t *testing.T) {
	for delay := range 5 {
		t.Run(fmt.Sprint(delay), func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				w.write(10)
				w.offer(0)
				stale, err := w.queue.Claim(w.Context(), 1, time.Second)
				w.must(err)
				time.Sleep(leaseTime)
				w.stream(10 * time.Second)
				a := w.worker(1)
				w.eventually("the first worker copies", func() bool { n, _ := a.worker.Copied(); return n > 50 })
				b := w.worker(1)
				time.Sleep(time.Duration(delay) * 170 * time.Millisecond)
				w.must(stale[0].Release(w.Context()))
				w.offer(0)
				w.offersFor(12 * time.Second)
				w.complete()
				w.exact()
				if a.count("kferry_leases_lost_total") != 1 || b.count("kferry_leases_lost_total") != 0 {
					t.Errorf("%d runs of the first worker and %d of the second ended as lost",
						a.count("kferry_leases_lost_total"), b.count("kferry_leases_lost_total"))
				}
			})
		})
	}
}

// Without the queue nobody can tell whether the lease is still held: the worker stops writing before another one may begin.
func TestWorkerWithoutItsQueueStopsWriting(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.stream(20 * time.Second)
		cut := w.worker(0)
		w.offersFor(3 * time.Second)
		cut.nats.close()
		time.Sleep(leaseTime*3/4 + 10*time.Millisecond)
		end := w.targetEnd(0)
		time.Sleep(2 * time.Second)
		if now := w.targetEnd(0); now != end {
			t.Errorf("%d records written after the trust in the lease had ended", now-end)
		}
		w.worker(0)
		w.offersFor(3 * time.Second)
		cut.nats.open()
		w.offersFor(15 * time.Second)
		w.complete()
		w.exact()
	})
}

// Everything that landed is accounted for, in both places, and the next worker need not wait for a lease to run out.
func TestDrainHandsEverythingBackAtOnce(t *testing.T) {
	inWorld(t, setup{partitions: 5}, func(w *world) {
		w.stream(10 * time.Second)
		p := w.worker(0)
		w.offersFor(3350 * time.Millisecond)
		if took := p.drain(); took > time.Second {
			t.Errorf("drained in %s", took)
		}
		for n := range w.partitions {
			kept, published := w.cursor(n), w.published(n)
			if kept != published || kept.Target != w.targetEnd(n) || kept.Held() {
				t.Errorf("partition %d ends at %d: KV has %+v, the offsets topic %+v", n, w.targetEnd(n), kept, published)
			}
		}
		next := w.worker(0)
		time.Sleep(time.Second)
		if n := next.count("kferry_leases_held"); n != 5 {
			t.Errorf("the next worker holds %d leases after a second", n)
		}
		time.Sleep(6 * time.Second)
		w.complete()
		w.exact()
	})
}

// A batch is on its way when the worker is told to stop: the answer is waited for and counted.
func TestDrainWaitsForTheBatchInFlight(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.writeBatches(5, 10)
		p := w.worker(0)
		arrived := make(chan struct{})
		w.at(position{"B", kmsg.Produce, replica, 3}, func(kmsg.Request) (kmsg.Response, error) {
			close(arrived)
			w.env.Kafka("B").SleepControl(func() { time.Sleep(3 * time.Second) })
			return nil, nil
		})
		w.offer(0)
		<-arrived
		if took := p.drain(); took < 3*time.Second || took > 4*time.Second {
			t.Errorf("the batch took 3 s, the drain %s", took)
		}
		if c := w.published(0); c.Offset != 30 || c.Target != 30 || w.targetEnd(0) != 30 {
			t.Errorf("the target ends at %d, the cursor is %+v", w.targetEnd(0), c)
		}
		w.worker(0)
		w.complete()
		w.exact()
	})
}

// The target answers no write when the worker is told to stop, with a batch of each of ten partitions under way: it ends within the thirty
// seconds that it is given everywhere, and its leases are on the queue again.
func TestDrainWhileTheTargetHangs(t *testing.T) {
	inWorld(t, setup{partitions: 10}, func(w *world) {
		w.stream(20 * time.Second)
		p := w.worker(0)
		w.offersFor(5 * time.Second)
		if n := p.count("kferry_leases_held"); n != 10 {
			t.Fatalf("%d leases", n)
		}
		hang := make(chan struct{})
		w.env.Kafka("B").ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
			w.env.Kafka("B").KeepControl()
			w.env.Kafka("B").SleepControl(func() { <-hang })
			return nil, nil, false
		})
		time.Sleep(2 * time.Second)
		if took := p.drain(); took > 25*time.Second {
			t.Errorf("drained in %s", took)
		}
		if n := w.waiting(); n != 10 {
			t.Errorf("%d tasks are back", n)
		}
		close(hang)
		w.worker(0)
		w.complete()
		w.exact()
	})
}

// While a claim waits for the target to settle, a drain need not.
func TestDrainWhileThePositionIsUnknown(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.writeBatches(3, 10)
		w.killAt(position{"B", kmsg.Produce, replica, 2}, w.worker(0), true)
		w.env.Kafka("B").ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
			request := req.(*kmsg.ListOffsetsRequest)
			if request.Topics[0].Topic != replica || request.Topics[0].Partitions[0].Timestamp != kafka.Latest {
				return nil, nil, false
			}
			w.env.Kafka("B").KeepControl()
			return listed(request, 10), nil, true
		})
		p := w.worker(0)
		w.eventually("the lease is claimed", func() bool { return p.count("kferry_leases_held") == 1 })
		time.Sleep(3 * time.Second)
		if took := p.drain(); took > time.Second {
			t.Errorf("drained in %s", took)
		}
		if n := w.waiting(); n != 1 { // the consumer may hear of what the stream has a moment later
			t.Errorf("%d tasks wait", n)
		}
	})
}

func TestSilentPartitionIsGivenBack(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.write(10)
		p := w.worker(0)
		w.offer(0)
		w.eventually("copied", func() bool { return w.targetEnd(0) == 10 })
		time.Sleep(4 * time.Second)
		if p.count("kferry_leases_held") != 1 {
			t.Error("given back within 4 s")
		}
		time.Sleep(2 * time.Second)
		if p.count("kferry_leases_held") != 0 {
			t.Error("still held after 6 s")
		}
		if kept, published := w.cursor(0), w.published(0); kept != published || kept.Offset != 10 {
			t.Errorf("KV has %+v, the offsets topic %+v", kept, published)
		}
		if n, err := w.queue.Waiting(w.Context()); err != nil || n != 0 {
			t.Errorf("%d tasks wait, %v", n, err)
		}
		w.write(10)
		w.complete()
		w.exact()
	})
}

// While records flow, KV has the cursor about each second, and the offsets topic each 30 s.
func TestCommitsAboutEachSecond(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.slowStream(35 * time.Second)
		w.worker(0)
		w.offersFor(2 * time.Second)
		events := w.watch("B", offsets, map[kmsg.Key]string{kmsg.Produce: "publish"})
		var last uint64
		commits := 0
		for range 310 {
			_, revision, err := w.cursors.Get(w.Context(), topic, 0)
			w.must(err)
			if revision != last {
				last, commits = revision, commits+1
			}
			time.Sleep(100 * time.Millisecond)
		}
		if commits < 28 || commits > 33 {
			t.Errorf("%d commits in 31 s", commits)
		}
		if n := events.count("publish"); n != 1 {
			t.Errorf("published %d times in 31 s", n)
		}
		time.Sleep(10 * time.Second)
		if n := events.count("publish"); n != 2 {
			t.Errorf("published %d times with the release", n)
		}
		w.exact()
	})
}

func TestOneSlotServesTwoBusyPartitions(t *testing.T) {
	inWorld(t, setup{partitions: 2}, func(w *world) {
		w.stream(20 * time.Second)
		p := w.worker(1)
		for range 15 {
			w.offersFor(time.Second)
			if n := p.count("kferry_leases_held"); n > 2 { // the second while the first ends
				t.Errorf("%d leases in one slot", n)
			}
		}
		for n := range w.partitions {
			if got, all := w.targetEnd(n), w.sourceEnd(n); got < all/2 {
				t.Errorf("partition %d: %d of %d records after 15 s", n, got, all)
			}
		}
		time.Sleep(5 * time.Second)
		w.complete()
		w.exact()
	})
}

// Every slot is busy when another worker dies: what it held waits too, though nobody has offered it anew.
func TestBusyWorkerMakesRoomForWhatADeadOneHeld(t *testing.T) {
	inWorld(t, setup{partitions: 2}, func(w *world) {
		w.stream(40 * time.Second)
		a, b := w.worker(1), w.worker(1)
		w.offersFor(3 * time.Second)
		if a.count("kferry_leases_held") != 1 || b.count("kferry_leases_held") != 1 {
			t.Fatal("the two workers do not share the two partitions")
		}
		ends := []int64{w.targetEnd(0), w.targetEnd(1)}
		b.kill()
		w.offersFor(20 * time.Second)
		for n, end := range ends {
			if now := w.targetEnd(int32(n)); now < end+200 {
				t.Errorf("partition %d grew from %d to %d in 20 s", n, end, now)
			}
		}
		time.Sleep(20 * time.Second)
		w.complete()
		w.exact()
	})
}

// A failing partition backs off alone, and what it had to say is forgotten when records flow again.
func TestBusyPartitionForgetsItsLastFailure(t *testing.T) {
	inWorld(t, setup{partitions: 2}, func(w *world) {
		w.stream(30 * time.Second)
		w.worker(0)
		w.offersFor(2 * time.Second)
		fault := w.env.Kafka("B").Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: replica, Partitions: []int32{0}, Err: kerr.TopicAuthorizationFailed, Count: -1})
		w.eventually("held", func() bool { w.offerBehind(); s, _ := w.state(0); return s.Reason == lease.ReasonAuthorization })
		if _, stopped := w.state(1); stopped {
			t.Error("the neighbour failed too")
		}
		fault.Remove()
		w.offerReleased(0)
		w.offersFor(10 * time.Second)
		if w.sourceEnd(0)-w.targetEnd(0) > 100 {
			t.Errorf("does not go on: %d of %d", w.targetEnd(0), w.sourceEnd(0))
		}
		if s, there := w.state(0); there {
			t.Errorf("records flow again, and the state says %+v", s)
		}
		if c := w.cursor(0); c.Held() {
			t.Errorf("records flow again, and the cursor says %+v", c.Hold)
		}
	})
}

// A task that this worker can't understand is not run.
func TestTasksThatAreNotForThisWorker(t *testing.T) {
	for name, c := range map[string]struct {
		edit   func(*lease.Task)
		reason lease.Reason
	}{
		"another specification": {func(t *lease.Task) { t.Digest = "other" }, lease.ReasonDigest},
		"unknown flow":          {func(t *lease.Task) { t.Flow = "C->B" }, lease.ReasonDigest},
		"newer kind":            {func(t *lease.Task) { t.Kind = "schemas" }, lease.ReasonDigest},
		"newer format":          {func(t *lease.Task) { t.Version = lease.TaskVersion + 1 }, lease.ReasonFormat},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				w.write(10)
				w.worker(0)
				task := w.task(0)
				c.edit(&task)
				_, err := w.queue.Offer(w.Context(), task)
				w.must(err)
				w.eventually("held", func() bool {
					states, err := w.queue.States(w.Context())
					w.must(err)
					s := states[task.Identity()]
					return s.Held && s.Reason == c.reason
				})
				if n := w.targetEnd(0); n != 0 {
					t.Errorf("%d records copied", n)
				}
			})
		})
	}
}

// heard is a log that is looked into.
type heard struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (h *heard) Write(line []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.Write(line)
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.String()
}

// A worker whose specification is not the coordinator's copies nothing, or as the coordinator wants it; and where it copies nothing the state
// says why, on which host, and what to do, and its log says so once.
func TestOtherSpecificationsAreNamed(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		worker func(*spec.Flow)
		task   func(*lease.Task)
		says   string
		copies bool
	}{
		"stopped":            {worker: func(f *spec.Flow) { f.State = spec.Stopped }, says: "for A->B has the flow stopped, and the coordinator's has not"},
		"no tasks.max":       {task: func(t *lease.Task) { t.Slot = int(t.Partition) + 1 }, says: "(tasks.max)"},
		"another tasks.max":  {worker: func(f *spec.Flow) { f.MaxLeases = 7 }, task: func(t *lease.Task) { t.Slot = int(t.Partition) + 1 }, copies: true},
		"tasks.max here":     {worker: func(f *spec.Flow) { f.MaxLeases = 7 }, copies: true},
		"other topics":       {task: func(t *lease.Task) { t.Digest = "other" }, says: "of A->B differs from the coordinator's in what is copied"},
		"another connector":  {worker: func(f *spec.Flow) { f.Connector = "mine" }, says: `under connector and topic "MirrorSourceConnector mm2-offsets.A.internal"`},
		"no such flow":       {worker: func(f *spec.Flow) { f.Source = "B"; f.Target = "A" }, says: "has no flow A->B, and the coordinator's has"},
		"a replicas' number": {worker: func(f *spec.Flow) { f.ReplicationFactor = 3 }, copies: true},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{partitions: 3}, func(w *world) {
				w.write(30)
				log := &heard{}
				w.workerWith(func(o *functions.Options) {
					o.Logger = slog.New(slog.NewTextHandler(log, nil))
					if c.worker != nil {
						c.worker(&o.Spec.Flows[0])
					}
				}, nil)
				end := time.Now().Add(time.Minute)
				for ; time.Now().Before(end); time.Sleep(time.Second) {
					for p := range w.partitions {
						task := w.task(p)
						if c.task != nil {
							c.task(&task)
						}
						if s, _ := w.state(p); s.Next.Before(time.Now()) && w.sourceEnd(p) > w.targetEnd(p) {
							_, err := w.queue.Offer(w.Context(), task)
							w.must(err)
						}
					}
				}
				for p := range w.partitions {
					s, known := w.state(p)
					if copied := w.targetEnd(p) == w.sourceEnd(p); copied != c.copies || known == c.copies {
						t.Errorf("partition %d: copied %t, %+v", p, copied, s)
					}
					if !c.copies && (!strings.Contains(s.Detail, c.says) || !strings.Contains(s.Detail, "give coordinators and workers the same file and variables") || s.Worker != host) {
						t.Errorf("partition %d: %+v, want %q", p, s, c.says)
					}
				}
				if n := strings.Count(log.String(), "reason=digest"); !c.copies && name != "another connector" && n != 1 {
					t.Errorf("%d times in the log:\n%s", n, log)
				}
			})
		})
	}
}

// An empty queue says nothing about cursors: nobody begins before they were loaded.
func TestNothingIsCopiedBeforeCursorsAreLoaded(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.copied()
		w.must(w.env.NATS.Wipe())
		w.write(10)
		for range 30 {
			w.offer(0)
			time.Sleep(time.Second)
		}
		if n := w.targetEnd(0); n != 10 {
			t.Errorf("%d records copied before the cursors were loaded", n-10)
		}
		w.complete()
		w.exact()
	})
}

func TestTopicsTaskCreatesTheCopy(t *testing.T) {
	inWorld(t, setup{partitions: 3, lacksCopy: true}, func(w *world) {
		w.write(30)
		w.worker(0)
		refused := w.env.Kafka("B").Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Err: kerr.TopicAuthorizationFailed, Count: -1})
		task := lease.Task{Kind: lease.KindTopics, Flow: flowName, Topic: topic, Partition: -1, Digest: w.flow.Digest()}
		state := func() lease.State {
			states, err := w.queue.States(w.Context())
			w.must(err)
			return states[task]
		}
		offered := task
		task = task.Identity()
		_, err := w.queue.Offer(w.Context(), offered)
		w.must(err)
		w.eventually("held", func() bool { return state().Reason == lease.ReasonAuthorization && state().Held })
		refused.Remove()
		w.eventually("offered", func() bool { // once the refused one is released
			ok, err := w.queue.Offer(w.Context(), offered)
			return ok && err == nil
		})
		w.eventually("created", func() bool { return state() == lease.State{} && len(w.env.Kafka("B").PartitionInfos(replica)) == 3 })
		w.complete()
		w.exact()
	})
}

// A worker that is told to stop while it waits for a silent source has nothing in flight.
func TestDrainBreaksOffALookUp(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		p := w.copied()
		w.write(10)
		p.gate.close()
		w.offer(0)
		time.Sleep(500 * time.Millisecond)
		if took := p.drain(); took > 2*time.Second {
			t.Errorf("drained in %s", took)
		}
		p.gate.open()
		if s, failed := w.state(0); failed {
			t.Errorf("counted as a failure: %+v", s)
		}
		w.worker(0)
		w.complete()
		w.exact()
	})
}

// Writing a cursor to the offsets topic once stopped its partition for as long as that topic's replicas kept it waiting.
func TestSilentOffsetsTopicHoldsUpNoRecords(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.stream(100 * time.Second)
		w.worker(0)
		w.offersFor(2 * time.Second)
		silent := w.env.Kafka("B").Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: offsets, Err: kerr.NotEnoughReplicas, Count: -1})
		end, moved, longest := w.targetEnd(0), time.Now(), time.Duration(0)
		for began := time.Now(); time.Since(began) < 80*time.Second; time.Sleep(50 * time.Millisecond) {
			if now := w.targetEnd(0); now > end {
				end, moved = now, time.Now()
			}
			longest = max(longest, time.Since(moved))
		}
		if longest > 2*time.Second {
			t.Errorf("the copy stood still for %v", longest)
		}
		if silent.Hits() == 0 {
			t.Error("nothing was written to the offsets topic")
		}
		silent.Remove()
		w.complete()
		w.eventually("the cursor is published", func() bool { return w.published(0).Offset == w.sourceEnd(0) })
		w.exact()
	})
}

// A cluster that is back is found within seconds, however long it was away; and meanwhile it is not asked all the time.
func TestReturningClusterIsFoundSoon(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.stream(7 * time.Minute)
		w.worker(0)
		w.offersFor(5 * time.Second)
		away := w.env.Kafka("B").Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: replica, Err: kerr.NotEnoughReplicas, Count: -1})
		w.offersFor(6 * time.Minute) // clients forget a cluster's metadata after five
		if asked := away.Hits(); asked > 720 {
			t.Errorf("asked %d times in six minutes", asked)
		}
		away.Remove()
		before, back := w.targetEnd(0), time.Now()
		w.eventually("the copy goes on", func() bool { w.offerBehind(); return w.targetEnd(0) > before })
		if took := time.Since(back); took > 5*time.Second {
			t.Errorf("went on %v after the cluster was back", took)
		}
		w.eventually("the failure is forgotten", func() bool { _, failed := w.state(0); return !failed })
		w.complete()
		w.exact()
	})
}
