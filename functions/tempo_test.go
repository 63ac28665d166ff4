package functions

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kferry/kferry/shared/lease"
)

// A worker that copies 100 bytes a second is at its limit only while enough of its partitions have more to read, all the time.
func TestTempo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		measured := newTempo()
		stints := make(chan lease.Stint, 1)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			measured.run(ctx, func(_ context.Context, s lease.Stint) { stints <- s })
		}()
		time.Sleep(stintTick / 2)
		copying := func() {
			for range stint / stintTick {
				measured.landed("A->B", 1, 75)
				measured.landed("C->B", 1, 25)
				time.Sleep(stintTick)
			}
		}
		want := func(name string, rate float64, full bool) {
			t.Helper()
			select {
			case s := <-stints:
				if s.Rate != rate || s.Full != full || s.Flows["A->B"] != (lease.Copied{Records: 10, Bytes: 750}) || len(s.Flows) != 2 {
					t.Errorf("%s: %+v, want rate %v, full %v", name, s, rate, full)
				}
			default:
				t.Errorf("%s: nothing was told", name)
			}
		}
		runs := make([]backlog, fullFrom)
		for i := range runs {
			runs[i].of = measured
		}
		copying()
		want("whatever comes is copied", 0, false)
		runs[0].has(true)
		runs[0].has(true)
		copying()
		want("one partition has more", 100, false)
		for i := range runs {
			runs[i].has(true)
		}
		copying()
		want("enough have", 100, true)
		time.AfterFunc(3*stintTick, func() { runs[0].has(false) })
		copying()
		want("one of them no longer has", 100, false)
		time.AfterFunc(3*stintTick, func() {
			for i := range runs {
				runs[i].has(false)
			}
		})
		copying()
		want("none has any more", 0, false)
		time.Sleep(3 * stint)
		if len(stints) > 0 {
			t.Error("told of nothing")
		}
		measured.landed("A->B", 3, 5)
		cancel()
		<-ended
		if s := <-stints; !s.Short || s.Rate != 0 || s.Flows["A->B"] != (lease.Copied{Records: 3, Bytes: 5}) {
			t.Errorf("at the end: %+v", s)
		}
	})
}
