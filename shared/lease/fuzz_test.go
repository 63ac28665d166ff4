package lease

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/kferry/kferry/shared/spec"
)

// FuzzMessage gives any bytes as whatever processes leave for each other on NATS and on the offsets topic: it is read or refused, and what is
// read comes back the same when it is written.
func FuzzMessage(f *testing.F) {
	task := Task{Kind: KindMirror, Flow: "A->B", Topic: "orders", Partition: 3, Digest: "d", Slot: 2}
	f.Add([]byte(task.tokens()), task.encode())
	f.Add([]byte("mirror.A=2D=3EB.=.-1"), encodeJSON(State{Reason: ReasonError, Attempts: 3, Next: time.UnixMilli(5).UTC()}))
	f.Add(pauseKey.record(someFlow), Note{time.UnixMilli(7), encodeJSON(pause{true})}.encode())
	f.Add([]byte(pauseKey.kept(someFlow)), encodeJSON(word{Worker: "w", Turn: true, Needs: []limitedNeed{{Limited{"", UnitBytes}, Need{3, 1e6}}}, Left: []Limited{{"t", UnitRecords}}}))
	f.Add([]byte("=.=.=.="), bytes.Repeat([]byte("["), 20_000))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		if task, err := decodeTask(value); err == nil {
			if again, err := decodeTask(task.encode()); err != nil || again != task && task.Version != 0 {
				t.Errorf("%+v came back as %+v (%v)", task, again, err)
			}
			if again, err := parseTokens(task.tokens()); err != nil || again != task.Identity() {
				t.Errorf("%s came back as %+v (%v)", task.tokens(), again, err)
			}
		}
		if task, err := parseTokens(string(key)); err == nil && task.tokens() != string(key) {
			if again, err := parseTokens(task.tokens()); err != nil || again != task {
				t.Errorf("%q is %+v, and then %+v (%v)", key, task, again, err)
			}
		}
		if _, s, err := decodeState(string(key), value); err == nil && s.Attempts < 0 {
			t.Errorf("%d attempts", s.Attempts)
		}
		if n, err := decodeNote(value); err == nil {
			if again, err := decodeNote(n.encode()); err != nil || !again.At.Equal(n.At) {
				t.Errorf("%+v came back as %+v (%v)", n, again, err)
			}
			_, _, _ = decodeKeptNote(string(key), value)
			notes := map[NoteKey]Note{pauseKey: n}
			if k, ours := parseNoteKey(someFlow, key); ours {
				notes[k] = n
				if again, ours := parseNoteKey(someFlow, k.record(someFlow)); !ours || again != k {
					t.Errorf("%+v came back as %+v", k, again)
				}
			}
			GapsOf(notes)
			limitsIn(notes)
			pausedIn(notes)
		}
		hear(t, value)
	})
}

var someFlow = spec.Flow{Source: "A", Target: "B"}

// hear has workers say any words to one that has a share.
func hear(t *testing.T, words []byte) {
	const limit = 1e6
	flows := Limited{Unit: UnitBytes}
	var w word
	if json.Unmarshal(words, &w) != nil {
		return
	}
	s := new(Queue).Shares("A->B")
	s.said[flows] = Need{Hungry: 1}
	s.meet(s.self, limitedNeed{flows, Need{Hungry: 1}})
	s.settled[flows] = time.Now().Add(-time.Second)
	s.take(w)
	if part, known := s.Part(flows, limit); !known || !(part >= 0 && part <= limit) {
		t.Errorf("%s: a part of %v", words, part)
	}
}
