package coordinator_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
)

func TestMargin(t *testing.T) {
	ebb := coordinator.Ebb{Start: 100}
	for _, start := range []int64{100, 350, 350, 600} { // deletions of 250
		ebb = ebb.Seen(start)
	}
	if ebb != (coordinator.Ebb{Start: 600, Step: 250}) {
		t.Errorf("ebb %+v", ebb)
	}
	week := 7 * 24 * time.Hour
	for name, test := range map[string]struct {
		coordinator.Margin
		says string
	}{
		"the next deletion passes the cursor":      {coordinator.Margin{Ebb: ebb, Offset: 849}, "begins at offset 600, 249 before the next one to copy, and the last deletion took 250"},
		"the next deletion ends at the cursor":     {coordinator.Margin{Ebb: ebb, Offset: 850}, ""},
		"the cursor is passed already":             {coordinator.Margin{Ebb: ebb, Offset: 599}, "0 before the next one to copy"},
		"nothing was ever deleted":                 {coordinator.Margin{Ebb: coordinator.Ebb{Start: 600}, Offset: 600}, ""},
		"the record is about to expire":            {coordinator.Margin{Offset: 7, Age: 6 * 24 * time.Hour, Retention: week}, "at offset 7, is 144h0m0s old, and retention.ms of the topic is 168h0m0s"},
		"the record has time":                      {coordinator.Margin{Offset: 7, Age: 5 * 24 * time.Hour, Retention: week}, ""},
		"records stay for ever, or nobody may ask": {coordinator.Margin{Offset: 7, Age: 1000 * week}, ""},
	} {
		if got := test.Warning(); (test.says == "") != (got == "") || !strings.Contains(got, test.says) {
			t.Errorf("%s: %q, want %q", name, got, test.says)
		}
	}
}

// The source deletes from a partition that lags: it is said before the cursor is passed, once in the log, and no longer than it is so.
func TestWarnsBeforeTheSourceDeletesWhatIsNotCopied(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 1, 100)
		in.create("B", "A.orders", 1, 0)
		flow := in.Options.Spec.Flows[0]
		c := in.run()
		time.Sleep(2 * time.Second)
		in.commit(flow, "orders", 0, 50)
		expiring := func() int {
			n, err := testutil.GatherAndCount(in.metrics, "kferry_partitions_expiring")
			in.must(err)
			return n
		}
		warned := func() bool {
			time.Sleep(10 * time.Second)
			return strings.Contains(strings.Join(c.Flows()[0].Warnings, "\n"), "orders-0 of A->B may lose records")
		}
		if warned() {
			in.Errorf("warns of a log from which nothing was deleted: %q", c.Flows()[0].Warnings)
		}
		in.must(in.Env.Kafka("A").DeleteRecords("orders", 0, 20))
		if warned() || expiring() != 0 {
			in.Errorf("warns although the next deletion like this ends before the cursor: %q", c.Flows()[0].Warnings)
		}
		in.must(in.Env.Kafka("A").DeleteRecords("orders", 0, 45))
		if !warned() || expiring() != 1 {
			in.Errorf("no warning before the next deletion passes the cursor: %q", c.Flows()[0].Warnings)
		}
		in.commit(flow, "orders", 0, 100)
		if warned() || expiring() != 0 {
			in.Errorf("warns of what is copied: %q", c.Flows()[0].Warnings)
		}
	})
}

// How old the waiting record may get is the topic's to say; status tells it from the clusters alone.
func TestWarnsOfARecordThatIsAboutToExpire(t *testing.T) {
	bubble(t, func(in *installation) {
		in.must(in.Clusters["A"].CreateTopic(in.Context(), kafka.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: -1, Configs: map[string]string{"retention.ms": "100000"}}))
		in.write("A", "orders", 5)
		in.create("B", "A.orders", 1, 0)
		flow := in.Options.Spec.Flows[0]
		c := in.run()
		time.Sleep(2 * time.Second)
		in.commit(flow, "orders", 0, 2)
		o := in.Options
		o.Queue = nil
		for _, test := range []struct {
			after time.Duration
			want  bool
		}{{60 * time.Second, false}, {25 * time.Second, true}} {
			time.Sleep(test.after)
			const text = "orders-0 of A->B may lose records before they are copied: the next record to copy, at offset 2, is "
			for who, warnings := range map[string][]string{"coordinator": c.Flows()[0].Warnings, "status": coordinator.Status(in.Context(), o).Flows[0].Warnings} {
				if got := strings.Contains(strings.Join(warnings, "\n"), text); got != test.want {
					in.Errorf("%s after %s: %q", who, test.after, warnings)
				}
			}
		}
	})
}

// What a policy left out is red in status and counted until somebody has acknowledged it.
func TestGapsAreShownUntilAcknowledged(t *testing.T) {
	bubble(t, func(in *installation) {
		in.create("A", "orders", 1, 5)
		in.create("B", "A.orders", 1, 5)
		flow := in.Options.Spec.Flows[0]
		cursors := in.Queue.Cursors(flow, in.Clusters["B"])
		c := in.run()
		time.Sleep(2 * time.Second)
		in.commit(flow, "orders", 0, 5)
		g := lease.Gap{
			Topic: "orders", Effect: lease.Skipped, Reason: lease.ReasonRetentionGap, Detail: "gone", Decision: lease.AcceptGap, By: lease.ByPolicy,
			From: 1, To: 4, Count: 3, Target: 1, At: time.Now(), Before: time.Now(), After: time.Now(),
		}
		in.must(cursors.PutGap(in.Context(), g))
		time.Sleep(10 * time.Second)
		shown := func() string {
			o := in.Options
			o.Queue = nil
			survey := coordinator.Status(in.Context(), o)
			survey.Colours = true
			var text strings.Builder
			in.must(survey.Table(&text))
			return text.String()
		}
		for _, want := range []string{
			"idle, 1 gap", "\x1b[31mA->B orders: 1 gap that nobody has acknowledged\x1b[0m\n",
			"orders-0: offsets 1 to 3 (3) are missing on the target (retention_gap; accept-gap by policy at 2000-01-01",
			"kferry gaps 'A->B' --acknowledge --topic orders",
		} {
			if text := shown(); !strings.Contains(text, want) {
				in.Errorf("status lacks %q:\n%q", want, text)
			}
		}
		for _, name := range []string{"kferry_gaps_unacknowledged", "kferry_gap_offsets_unacknowledged"} {
			if n, err := testutil.GatherAndCount(in.metrics, name); n != 1 || err != nil {
				in.Errorf("%s has %d series: %v", name, n, err)
			}
		}
		if gaps := c.Flows()[0].Gaps; len(gaps) != 1 || gaps[0].Count != 3 {
			in.Errorf("gaps %+v", gaps)
		}
		g.Acknowledged = time.Now()
		in.must(cursors.PutGap(in.Context(), g))
		time.Sleep(10 * time.Second)
		if text := shown(); strings.Contains(text, "gap") {
			in.Errorf("status shows what is acknowledged:\n%s", text)
		}
		if n, err := testutil.GatherAndCount(in.metrics, "kferry_gaps_unacknowledged"); n != 0 || err != nil {
			in.Errorf("%d series of what is acknowledged: %v", n, err)
		}
	})
}
