package functions_test

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/shared/lease"
)

// TestMirrorMaker holds scenarios of MirrorMaker's own tests, under their names there, and what these leave out.
func TestMirrorMaker(t *testing.T) {
	// A position is taken up right behind the last record that was committed; without one the start counts.
	t.Run("MirrorSourceTaskTest.testSeekBehaviorDuringStart", func(t *testing.T) {
		inWorld(t, setup{partitions: 2}, func(w *world) {
			m := w.maker(50)
			w.writePartition("A", topic, 1, 20)
			m.copies(0, 30)
			m.commits(29)
			w.worker(0)
			w.complete()
			if a, b := w.targetEnd(0), w.targetEnd(1); a != 50 || b != 20 {
				t.Errorf("the copies end at %d and %d, want 50 and 20", a, b)
			}
		})
	})
	// A right that is taken away under way stops the partition where it is, and it goes on from there when it is given back.
	t.Run("gapsInTheirSuite.authLossWhileRunning", func(t *testing.T) {
		for name, c := range map[string]struct {
			alias, topic string
			key          kmsg.Key
		}{"to write": {"B", replica, kmsg.Produce}, "to read": {"A", topic, kmsg.Fetch}} {
			t.Run(name, func(t *testing.T) {
				inWorld(t, setup{}, func(w *world) {
					w.write(50)
					w.worker(0)
					w.complete()
					denied := w.env.Kafka(c.alias).Fault(kfake.Fault{Keys: []kmsg.Key{c.key}, Topic: c.topic, Err: kerr.TopicAuthorizationFailed, Count: -1})
					w.write(50)
					w.eventually("held", func() bool {
						w.offerBehind()
						s, _ := w.state(0)
						return s.Reason == lease.ReasonAuthorization && s.Held
					})
					time.Sleep(time.Minute)
					if end := w.targetEnd(0); end != 50 {
						t.Errorf("the target ends at %d, want 50", end)
					}
					denied.Remove()
					w.goesOn(0)
					w.exact()
				})
			})
		}
	})
}
