package lease_test

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/local"
)

// What is told reaches everybody else who hears of the matter, and the teller not.
func TestTold(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		a, _ := worker(t, env)
		b, _ := worker(t, env)
		heard := map[string][]string{}
		hear := func(q *lease.Queue, who, matter string) (stop func()) {
			stop, err := q.Hear(matter, func(t lease.Task) {
				heard[who] = append(heard[who], t.String())
			})
			if err != nil {
				t.Fatal(err)
			}
			return stop
		}
		defer hear(a, "a", "claimed")()
		stop := hear(b, "b", "claimed")
		defer hear(b, "b of others", "others")()
		tell := func(q *lease.Queue, n int) {
			if err := q.Tell("claimed", mirror(n)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		synctest.Wait()
		tell(a, 1)
		tell(b, 2)
		stop()
		tell(a, 3)
		for who, want := range map[string][]string{
			"a": {mirror(2).String()}, "b": {mirror(1).String()}, "b of others": nil,
		} {
			if !slices.Equal(heard[who], want) {
				t.Errorf("%s heard %q, want %q", who, heard[who], want)
			}
		}
	})
}
