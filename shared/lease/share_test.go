package lease_test

import (
	"math"
	"testing"
	"time"

	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/local"
)

// members are workers that share one limit of 1,000.
type members struct {
	*testing.T
	all   []*lease.Shares
	needs []lease.Need // said each second; of one who says nothing it is the zero value with Hungry -1
}

var whole = lease.Limited{Unit: lease.UnitBytes}

const silent = -1

// pass lets seconds go by, in which everybody says what he needs.
func (m *members) pass(seconds int) {
	m.Helper()
	for range seconds {
		for i, s := range m.all {
			if m.needs[i].Hungry != silent {
				if err := s.Say(map[lease.Limited]lease.Need{whole: m.needs[i]}); err != nil {
					m.Log(err)
				}
			}
		}
		time.Sleep(lease.SayEvery)
	}
}

// parts demands what is whose.
func (m *members) parts(what string, want ...float64) {
	m.Helper()
	sum := 0.0
	for i, s := range m.all {
		part, known := s.Part(whole, 1000)
		if sum += part; !known && want[i] >= 0 || math.Abs(part-want[i]) > 0.5 && want[i] >= 0 {
			m.Errorf("%s: member %d has %.1f (known: %t), want %.1f", what, i, part, known, want[i])
		}
	}
	if sum > 1000.001 && want[len(want)-1] >= 0 {
		m.Errorf("%s: the parts are %.1f together", what, sum)
	}
}

func TestShares(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		m := &members{T: t}
		join := func(n lease.Need) *lease.Shares {
			q, _ := worker(t, env)
			s := q.Shares("A->B")
			m.all, m.needs = append(m.all, s), append(m.needs, n)
			return s
		}
		a := join(lease.Need{Hungry: 3, Used: 900})
		if _, known := a.Part(whole, 1000); known {
			t.Error("a part is known before anybody was asked")
		}
		m.pass(1)
		m.parts("alone", 1000)

		join(lease.Need{Hungry: 1, Used: 0})
		m.pass(1)
		m.parts("both hungry", 750, 250)
		m.needs[1] = lease.Need{Used: 100}
		m.pass(1)
		m.parts("one has enough", 1000-135, 135)
		m.needs[1] = lease.Need{Used: 900}
		m.pass(1)
		m.parts("one has enough and more than an equal part", 750, 250)
		m.needs[0], m.needs[1] = lease.Need{Used: 100}, lease.Need{Used: 300}
		m.pass(1)
		m.parts("both have enough", 135+(1000-135-385)/2, 385+(1000-135-385)/2)

		m.needs[0], m.needs[1] = lease.Need{Hungry: 1}, lease.Need{Hungry: silent}
		m.pass(2)
		m.parts("one was silent for a moment", 615, 385)
		m.pass(3)
		m.parts("one is silent", 1000, silent)

		m.needs[1] = lease.Need{Hungry: 1}
		m.pass(1)
		m.parts("it is back", 500, 500)
		if err := m.all[1].Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
		if part, _ := a.Part(whole, 1000); part != 1000 {
			t.Errorf("one has left, and the other has %.1f", part)
		}
	})
}

// While the queue is away nobody can say who is alive, so everybody keeps his part.
func TestSharesWithoutTheQueue(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		m := &members{T: t}
		for range 2 {
			q, _ := worker(t, env)
			m.all, m.needs = append(m.all, q.Shares("A->B")), append(m.needs, lease.Need{Hungry: 1})
		}
		m.pass(2)
		m.parts("at first", 500, 500)
		env.NATS.Stop()
		m.pass(600)
		m.parts("after ten minutes without the queue", 500, 500)
		if err := env.NATS.Start(); err != nil {
			t.Fatal(err)
		}
		m.pass(10)
		m.parts("the queue is back", 500, 500)
	})
}
