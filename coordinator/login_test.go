package coordinator_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/local"
	"github.com/kferry/kferry/shared/spec"
)

func TestARefusedLoginShowsInStatusAndStopsNoOtherFlow(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 2, 5)
		in.create("C", "payments", 1, 5)
		for topic, partitions := range map[string]int32{"A.orders": 2, "C.payments": 1} {
			in.create("B", topic, partitions, 0)
		}
		in.must(in.Queue.Cursors(in.Options.Spec.Flows[0], in.Clusters["B"]).Load(in.Context()))
		in.commit(in.Options.Spec.Flows[0], "orders", 0, 3)
		guard := local.NewGuard(in.Kafka("A"), "PLAIN")
		guard.SetPassword("alice", "second")
		a := in.Env.Spec("A")
		a.Login = spec.FixedLogin(spec.Security{SASL: &spec.SASL{Mechanism: spec.PLAIN, Username: "alice", Password: "s3cret"}})
		in.connect(a)
		in.run()
		copied := in.expect(time.Minute, "mirror C->B payments-0")
		in.commit(in.Options.Spec.Flows[1], "payments", 0, 5)
		in.release(copied...)

		since := time.Now()
		for range 10 { // somebody looks all the time
			survey := coordinator.Status(in.Context(), in.Options)
			f := survey.Flows[0]
			for _, words := range []string{"cluster A: ", `no login as "alice" by PLAIN`, "Invalid username or password"} {
				if !strings.Contains(f.Error, words) {
					t.Errorf("%q is not in %q", words, f.Error)
				}
			}
			if len(f.Partitions) == 0 || f.Partitions[0].Reason != lease.ReasonAuthentication {
				t.Errorf("partitions %+v", f.Partitions)
			}
			if survey.Flows[1].Error != "" {
				t.Errorf("the other flow: %s", survey.Flows[1].Error)
			}
			var text bytes.Buffer
			in.must(survey.Table(&text))
			if !strings.Contains(text.String(), "failed (authentication)") || strings.Contains(text.String(), "s3cret") {
				t.Error(text.String())
			}
			time.Sleep(6 * time.Second)
		}
		if n := guard.Logins(since); n > 12 {
			t.Errorf("%d logins in a minute", n)
		}
		guard.SetPassword("alice", "s3cret")
		in.release(in.expect(20*time.Second, "mirror A->B orders-0")...)
	})
}
