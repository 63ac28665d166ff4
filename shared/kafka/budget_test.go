package kafka_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/kferry/kferry/shared/kafka"
)

func TestBudgetIsGivenOutInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := kafka.NewBudget(8 * 100) // 100 for what is written anew
		must := func(err error) {
			if err != nil {
				t.Error(err)
			}
		}
		must(b.Acquire(t.Context(), 60))
		large, small := make(chan struct{}), make(chan struct{})
		go func() {
			must(b.Acquire(t.Context(), 80))
			close(large)
		}()
		synctest.Wait()
		go func() {
			must(b.Acquire(t.Context(), 10))
			close(small)
		}()
		synctest.Wait()
		select {
		case <-small:
			t.Error("the small one went before the large one")
		default:
		}
		b.Release(60)
		<-large
		<-small
		if used := b.InFlight(); used != 90 {
			t.Errorf("%d bytes in flight", used)
		}
	})
}

func TestWaiterWhoLeavesLetsOthersPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := kafka.NewBudget(8 * 100)
		if err := b.Acquire(t.Context(), 50); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		left, got := make(chan error), make(chan error, 1)
		go func() { left <- b.Acquire(ctx, 80) }()
		synctest.Wait()
		go func() { got <- b.Acquire(t.Context(), 50) }()
		synctest.Wait()
		cancel()
		if err := <-left; err == nil {
			t.Error("acquired after all")
		}
		if err := <-got; err != nil {
			t.Error(err)
		}
	})
}

// One that asks for more than there is would wait for ever.
func TestOversizeGetsTheWholePart(t *testing.T) {
	b := kafka.NewBudget(800)
	for range 2 {
		if err := b.Acquire(t.Context(), 1000); err != nil {
			t.Fatal(err)
		}
		b.Release(1000)
	}
	if used := b.InFlight(); used != 0 {
		t.Errorf("%d bytes in flight", used)
	}
}
