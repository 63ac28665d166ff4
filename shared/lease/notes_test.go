package lease_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/local"
)

func noteText(t *testing.T, notes map[lease.NoteKey]lease.Note, err error, key lease.NoteKey) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if len(notes) == 0 {
		return ""
	}
	var text string
	if err := json.Unmarshal(notes[key].Value, &text); err != nil {
		t.Fatalf("%v: %v", notes, err)
	}
	return text
}

func TestNotesSurviveTheLossOfEitherCopy(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		c := cursors(t, env, q)
		key := lease.NoteKey{Kind: "gap", Topic: "a.b-c_d", Partition: 3, Offset: 150}
		both := func(want string) {
			t.Helper()
			kept, err := c.Notes(t.Context())
			if got := noteText(t, kept, err, key); got != want {
				t.Errorf("KV holds %q, want %q", got, want)
			}
			target := open(t, env)
			published, err := lease.ReadNotes(t.Context(), flow(), target)
			if got := noteText(t, published, err, key); got != want {
				t.Errorf("the offsets topic holds %q, want %q", got, want)
			}
		}
		load(t, c)
		both("")
		for _, text := range []string{"first", "second"} {
			time.Sleep(time.Second)
			if err := c.PutNote(t.Context(), key, text); err != nil {
				t.Fatal(err)
			}
		}
		both("second")
		wipe(t, env)
		load(t, c)
		both("second")
		if err := env.Kafka("B").DeleteTopic(flow().OffsetsTopic); err != nil {
			t.Fatal(err)
		}
		other, _ := worker(t, env)
		load(t, cursors(t, env, other))
		both("second")
	})
}

// A note of a writer whose clock is an hour ahead is replaced all the same.
func TestNoteReplacesOneFromTheFuture(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		c, target := cursors(t, env, q), open(t, env)
		key := lease.NoteKey{Kind: "gap", Topic: "t", Partition: 3, Offset: 150}
		load(t, c)
		future := kafka.Record{
			Key:   []byte(`["kferry",{"flow":"A->B","kind":"gap","topic":"t","partition":3,"offset":150}]`),
			Value: fmt.Appendf(nil, `{"at":%d,"note":"future"}`, time.Now().Add(time.Hour).UnixMilli()),
		}
		if err := target.Write(t.Context(), flow().OffsetsTopic, []kafka.Record{future}); err != nil {
			t.Fatal(err)
		}
		load(t, c)
		notes, err := c.Notes(t.Context())
		if got := noteText(t, notes, err, key); got != "future" {
			t.Fatalf("KV holds %q", got)
		}
		if err := c.PutNote(t.Context(), key, "queue"); err != nil {
			t.Fatal(err)
		}
		wipe(t, env)
		load(t, c)
		notes, err = c.Notes(t.Context())
		if got := noteText(t, notes, err, key); got != "queue" {
			t.Errorf("KV holds %q after it was lost", got)
		}
		if err := lease.WriteNote(t.Context(), flow(), target, key, "no queue"); err != nil {
			t.Fatal(err)
		}
		load(t, c)
		notes, err = c.Notes(t.Context())
		if got := noteText(t, notes, err, key); got != "no queue" {
			t.Errorf("KV holds %q after a note was written without a queue", got)
		}
	})
}
