package lease

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The bytes that MM2 and later versions of kferry meet on the offsets topic. A change here is a new CursorVersion.
func TestCursorBytes(t *testing.T) {
	since := time.UnixMilli(1_760_000_000_000)
	for _, test := range []struct {
		cursor Cursor
		bytes  string
	}{
		{
			Cursor{Version: 1, SourceEpoch: -1, Timestamp: -1},
			`{"offset":-1,"kferry.version":1,"kferry.target":0,"kferry.sequence":0,"kferry.epoch":0,"kferry.sourceTopicId":"",` +
				`"kferry.targetTopicId":"","kferry.sourceLeaderEpoch":-1,"kferry.timestamp":-1,"kferry.isolation":""}`,
		},
		{
			Cursor{
				Version: 1, Offset: 125, Target: 130, Sequence: 1<<31 - 1, Epoch: 2, SourceTopicID: "4m5rGQ9NQnKYbzJGkqgCKg",
				TargetTopicID: "name:A.orders", SourceEpoch: 7, Timestamp: 1_750_000_000_123, Isolation: "read_committed",
				ExactlyOnce: "compacted source", Mapped: true,
				Hold: Hold{Reason: ReasonForeignWriter, Detail: "A->B & <you>", Since: since}, Decision: From(120), DecidedAt: since.Add(time.Second),
			},
			`{"offset":124,"kferry.version":1,"kferry.target":130,"kferry.sequence":2147483647,"kferry.epoch":2,` +
				`"kferry.sourceTopicId":"4m5rGQ9NQnKYbzJGkqgCKg","kferry.targetTopicId":"name:A.orders","kferry.sourceLeaderEpoch":7,` +
				`"kferry.timestamp":1750000000123,"kferry.isolation":"read_committed","kferry.exactlyOnce":"compacted source",` +
				`"kferry.mapped":true,"kferry.hold":"foreign_writer","kferry.holdDetail":"A->B & <you>","kferry.holdSince":1760000000000,` +
				`"kferry.decision":"from:120","kferry.decidedAt":1760000001000}`,
		},
	} {
		if got := string(test.cursor.encode()); got != test.bytes {
			t.Errorf("encoded\n%s, want\n%s", got, test.bytes)
		}
		if got, err := decodeCursor([]byte(test.bytes)); err != nil || got != test.cursor {
			t.Errorf("decoded %+v (%v), want %+v", got, err, test.cursor)
		}
	}
}

func TestForeignValues(t *testing.T) {
	for value, want := range map[string]int64{
		`{"offset":124}`: 125, `{"offset":-1}`: 0, `{"offset":null}`: 0, `{}`: 0, `null`: 0, `{"offset":7,"other.tool":"x"}`: 8,
	} {
		if got, err := decodeCursor([]byte(value)); err != nil || got != (Cursor{Version: 1, Foreign: true, Offset: want}) {
			t.Errorf("%s: %+v, %v", value, got, err)
		}
	}
}

func TestUnreadableValues(t *testing.T) {
	for _, value := range []string{
		`{"offset":124,"kferry.version":2}`, `{"kferry.version":1}`, `{"offset":1,"kferry.version":1,"kferry.sequence":"x"}`,
		`{"offset":124`, `[]`, `{"offset":9223372036854775808}`,
	} {
		cur, err := decodeCursor([]byte(value))
		if !errors.Is(err, ErrVersion) || cur.Hold.Reason != ReasonFormat || !strings.Contains(cur.Hold.Detail, "format version") {
			t.Errorf("%s: %+v, %v", value, cur, err)
		}
	}
}

func TestNewer(t *testing.T) {
	const top = 1<<31 - 1
	at := func(epoch int32, sequence int32, offset int64) Cursor {
		return Cursor{Epoch: epoch, Sequence: sequence, Offset: offset}
	}
	decided := func(c Cursor, at int64) Cursor {
		c.Decision, c.DecidedAt = AcceptGap, time.UnixMilli(at)
		return c
	}
	set := func(c Cursor, at int64) Cursor {
		c.Version = CursorVersion
		return c.Decided(Hold{Reason: ReasonPositionSet}, From(3), time.UnixMilli(at))
	}
	for _, test := range []struct{ older, newer Cursor }{
		{at(0, 5, 5), at(0, 6, 6)},
		{at(0, 5, 5), at(0, 5, 6)},       // a marker was looked at
		{at(0, 500, 500), at(1, 0, 400)}, // a later generation, whatever it counts
		{at(0, top, 100), at(0, 3, 104)}, // the sequence went round
		{at(0, top-10, 0), at(0, 1<<29, 0)},
		{at(0, 0, 0), at(0, 1<<30-1, 0)}, // the greatest distance that is told apart
		{decided(at(1, 5, 5), 1), decided(at(1, 5, 5), 2)},
		{decided(at(1, 5, 5), 9), at(1, 5, 6)},
		{at(1, 900, 900), set(at(1, 5, 5), 9)}, // set where no queue was, which knew of more
		{set(at(1, 5, 5), 8), set(at(1, 4, 4), 9)},
		{set(at(1, 5, 5), 9), at(2, 0, 0)}, // carried out
	} {
		if !test.newer.Newer(test.older) || test.older.Newer(test.newer) || test.older.Newer(test.older) {
			t.Errorf("%+v is not newer than %+v", test.newer, test.older)
		}
	}
}

func TestSequenceDistance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from := rapid.Int32Range(0, 1<<31-1).Draw(t, "from")
		distance := rapid.Int32Range(-1<<30+1, 1<<30-1).Draw(t, "distance")
		to := int32((int64(from) + int64(distance)) & (1<<31 - 1))
		if got := SequenceDistance(from, to); got != distance {
			t.Errorf("from %d to %d: %d, want %d", from, to, got, distance)
		}
	})
}

func TestTaskBytes(t *testing.T) {
	task := Task{Kind: KindMirror, Flow: "A->B", Topic: "orders", Partition: 3, Digest: "1f"}
	want := `{"version":1,"kind":"mirror","flow":"A->B","topic":"orders","partition":3,"digest":"1f"}`
	if got := string(task.encode()); got != want {
		t.Errorf("encoded %s, want %s", got, want)
	}
	task.Version = 1
	if got, err := decodeTask([]byte(want)); err != nil || got != task {
		t.Errorf("decoded %+v (%v)", got, err)
	}
	if got := (Task{Kind: KindTopics, Flow: "A->B", Topic: "a.b", Partition: -1}).tokens(); got != "topics.A-=3EB.a=2Eb.-1" {
		t.Errorf("tokens %s", got)
	}
}

// Any two tasks have different subjects, and a subject can be read back: NATS' own tools show it.
func TestTokensAreReversible(t *testing.T) {
	valid := regexp.MustCompile(`^[-_=a-zA-Z0-9]+$`) // what a token of a subject and of a bucket's key may hold
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-zA-Z0-9._-]{1,249}`), rapid.StringMatching(`[=A-F0-9.*>-]{0,20}`))
		task := Task{
			Kind: Kind(text.Draw(t, "kind")), Flow: text.Draw(t, "flow"), Topic: text.Draw(t, "topic"),
			Partition: rapid.Int32Min(-1).Draw(t, "partition"),
		}
		tokens := task.tokens()
		for token := range strings.SplitSeq(tokens, ".") {
			if !valid.MatchString(token) {
				t.Errorf("token %q", token)
			}
		}
		if got, err := parseTokens(tokens); err != nil || got != task {
			t.Errorf("%s reads back as %+v (%v)", tokens, got, err)
		}
	})
}

func FuzzCursor(f *testing.F) {
	f.Add([]byte(`{"offset":124,"kferry.version":1,"kferry.sequence":3}`))
	f.Add([]byte(`{"offset":124}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		cur, err := decodeCursor(value)
		if err != nil {
			return
		}
		if again, err := decodeCursor(cur.encode()); err != nil || again != cur {
			t.Errorf("%+v came back as %+v (%v)", cur, again, err)
		}
	})
}

func TestEveryReasonHasASentence(t *testing.T) {
	for reason, known := range reasons {
		if !strings.HasSuffix(known.text, ".") || reason.Text() != known.text || reason.Decide() != (reason.Accept() != "") {
			t.Errorf("%s: %q", reason, reason.Text())
		}
	}
	if newer := Reason("invented_later"); !newer.Decide() || newer.Text() != "invented_later" {
		t.Error("a reason that a newer kferry wrote is passed over")
	}
	if Reason("").Decide() {
		t.Error("no reason needs a decision")
	}
}
