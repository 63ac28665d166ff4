package functions_test

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/kferry/kferry/shared/lease"
)

// held waits until a partition stands still for a reason, and sees to it that the reason is where it should be and that nothing is
// written any more.
func (w *world) held(partition int32, reason lease.Reason) {
	w.Helper()
	var s lease.State
	w.eventually("held for "+string(reason), func() bool {
		s, _ = w.state(partition)
		return s.Reason == reason
	})
	if !s.Held || s.Detail == "" || s.Since.IsZero() || s.Next.Before(time.Now()) {
		w.Errorf("state %+v", s)
	}
	cursor, _, err := w.cursors.Get(w.Context(), topic, partition)
	if err == nil && (cursor.Hold.Reason != reason || w.published(partition).Hold.Reason != reason) {
		w.Errorf("the hold for %s is in the state, but in KV %+v and in the offsets topic %+v", reason, cursor.Hold, w.published(partition).Hold)
	}
	end := w.targetEnd(partition)
	w.offer(partition)
	w.eventually("tried again", func() bool {
		again, _ := w.state(partition)
		return again.Attempts > s.Attempts
	})
	if now := w.targetEnd(partition); now != end {
		w.Errorf("held for %s, and the target grew from %d to %d", reason, end, now)
	}
}

// goesOn waits until a partition whose cause is gone has been copied, and nothing speaks of the hold any more.
func (w *world) goesOn(partition int32) {
	w.Helper()
	w.complete()
	w.eventually("the state is cleared", func() bool {
		_, there := w.state(partition)
		return !there
	})
	if c := w.cursor(partition); c.Held() || w.published(partition).Held() {
		w.Errorf("the hold outlives its cause: KV %+v, offsets topic %+v", c.Hold, w.published(partition).Hold)
	}
}

// alter sets a topic's configuration.
func (w *world) alter(alias, topic, key, value string) {
	w.Helper()
	client, err := w.env.Client(alias)
	w.must(err)
	defer client.Close()
	answers, err := kadm.NewClient(client).AlterTopicConfigs(w.Context(), []kadm.AlterConfig{{Name: key, Value: &value}}, topic)
	w.must(err)
	for _, a := range answers {
		w.must(a.Err)
	}
}

func TestNothing(t *testing.T) {}
