package functions_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/local"
	"github.com/kferry/kferry/shared/spec"
)

// guarded has a cluster ask workers for a login, and gives them one whose password can be set.
func (w *world) guarded(alias string) (g *local.Guard, password *atomic.Value) {
	g, password = local.NewGuard(w.env.Kafka(alias), "PLAIN", "SCRAM-SHA-512"), new(atomic.Value)
	password.Store("first")
	g.SetPassword("alice", "first")
	w.logins = map[string]*spec.Login{alias: spec.LoginFunc(func() (spec.Security, error) {
		return spec.Security{SASL: &spec.SASL{Mechanism: spec.PLAIN, Username: "alice", Password: spec.Secret(password.Load().(string))}}, nil
	})}
	return g, password
}

func TestAPasswordThatChangesStopsPartitionsUntilItIsMended(t *testing.T) {
	for _, side := range []string{"A", "B"} {
		t.Run(side, func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				g, password := w.guarded(side)
				g.SetSession(10 * time.Second)
				p := w.worker(0)
				w.stream(2 * time.Minute)
				time.Sleep(time.Minute) // of six sessions
				w.complete()
				if lost, failed := p.count("kferry_leases_lost_total"), p.count("kferry_task_failures_total"); lost+failed > 0 {
					t.Errorf("%d leases were lost and %d tasks failed while logins were renewed", lost, failed)
				}

				g.SetPassword("alice", "second")
				var s lease.State
				w.eventually("the state says why", func() bool {
					w.offerBehind()
					s, _ = w.state(0)
					return s.Reason == lease.ReasonAuthentication
				})
				for _, words := range []string{"cluster " + side, `as "alice"`, "PLAIN", "Invalid username or password"} {
					if !strings.Contains(s.Detail, words) {
						t.Errorf("%q is not in %q", words, s.Detail)
					}
				}
				if strings.Contains(s.Detail, "first") || s.Held {
					t.Errorf("state %+v", s)
				}
				password.Store("second")
				mended := time.Now()
				w.eventually("it goes on", func() bool {
					w.offerBehind()
					_, failed := w.state(0)
					return !failed
				})
				if took := time.Since(mended); took > 10*time.Second {
					t.Errorf("went on after %v", took)
				}
				time.Sleep(time.Minute)
				w.complete()
				w.exact()
				if lost := p.count("kferry_leases_lost_total"); lost > 0 {
					t.Errorf("%d leases were lost", lost)
				}
			})
		})
	}
}

// All partitions want to read, write and look up at once. Were each to try the password, a directory behind the broker would lock the
// account. (A thousand partitions make as many attempts as these: 28 in five minutes, measured.)
func TestARefusedPasswordIsTriedAFewTimesAMinute(t *testing.T) {
	const partitions, minutes = 40, 2
	inWorld(t, setup{partitions: partitions}, func(w *world) {
		g, _ := w.guarded("A")
		g.SetPassword("alice", "second")
		w.write(2 * partitions)
		w.worker(0)
		w.eventually("every partition says why", func() bool {
			w.offerBehind()
			states, err := w.queue.States(w.Context())
			return err == nil && len(states) == partitions
		})
		since := time.Now()
		for time.Since(since) < minutes*time.Minute {
			w.offerBehind()
			time.Sleep(time.Second)
		}
		if n := g.Logins(since); n > minutes*12 || n < minutes*3 {
			t.Errorf("%d logins in %d minutes", n, minutes)
		}
	})
}
