package lease

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/spec"
)

// noteConnector begins the keys of notes. Connect has no connector of that name, so it passes over them.
const noteConnector = "kferry"

// A NoteKey names a note: something beside the cursors that has to survive, like a gap that was accepted. There is one note for each key,
// and the last one written holds.
//
// On the offsets topic it is a key that Connect ignores, in KV the entry note.<flow>.<kind>.<topic>.<partition>.<offset>:
//
//	["kferry",{"flow":"A->B","kind":"gap-0","topic":"orders","partition":0,"offset":150}]
type NoteKey struct {
	Kind      string `json:"kind"`
	Topic     string `json:"topic"`     // on the source; "" where it is about the whole flow
	Partition int32  `json:"partition"` // -1 where it is about a whole topic
	Offset    int64  `json:"offset"`    // on the source; -1 where it is about no offset
}

// A Note is what was written under a key.
type Note struct {
	At    time.Time       // decides where KV and the offsets topic differ: the later one holds
	Value json.RawMessage // the kind's own
}

type wireNote struct {
	At    int64           `json:"at"` // Unix ms
	Value json.RawMessage `json:"note"`
}

func (n Note) encode() []byte { return encodeJSON(wireNote{n.At.UnixMilli(), n.Value}) }

func decodeNote(value []byte) (Note, error) {
	var w wireNote
	if err := json.Unmarshal(value, &w); err != nil {
		return Note{}, err
	}
	return Note{time.UnixMilli(w.At), w.Value}, nil
}

// next replaces a note: it is the later one, whatever the clock says.
func (n Note) next(value any) Note {
	at := time.Now()
	if !at.After(n.At) {
		at = n.At.Add(time.Millisecond)
	}
	return Note{At: at, Value: encodeJSON(value)}
}

// PutNote writes a note to the offsets topic and then to KV: what is known here survives. value is written as JSON.
func (c *Cursors) PutNote(ctx context.Context, key NoteKey, value any) error {
	known, err := c.Notes(ctx)
	if err != nil {
		return err
	}
	n := known[key].next(value)
	if err := c.publish(ctx, kafka.Record{Key: key.record(c.flow), Value: n.encode()}); err != nil {
		return fmt.Errorf("write %s to %s: %w", key, c.flow.OffsetsTopic, err)
	}
	return c.keepNote(ctx, key, n)
}

// WriteNote writes a note to the offsets topic alone: for whom no queue runs. Workers hear of it when a coordinator has loaded it.
func WriteNote(ctx context.Context, flow spec.Flow, target *kafka.Cluster, key NoteKey, value any) error {
	known, err := ReadNotes(ctx, flow, target)
	if err != nil {
		return err
	}
	n := known[key].next(value)
	err = writeAlone(ctx, flow, target, kafka.Record{Key: key.record(flow), Value: n.encode()})
	return wrap(err, "write %s", key)
}

func (c *Cursors) keepNote(ctx context.Context, key NoteKey, n Note) error {
	return c.queue.call(ctx, "keep "+key.String(), func(ctx context.Context) error {
		_, err := c.queue.current().cursors.kv.Put(ctx, key.kept(c.flow), n.encode())
		return err
	})
}

// takeNote keeps what the offsets topic has, unless a later note has come to KV meanwhile.
func (c *Cursors) takeNote(ctx context.Context, key NoteKey, n Note) error {
	found, err := c.read(ctx, key.kept(c.flow))
	if err != nil {
		return err
	}
	if !found.deleted {
		if was, err := decodeNote(found.value); err == nil && !was.At.Before(n.At) {
			return nil
		}
	} else {
		found.revision = 0
	}
	if _, err = c.putValue(ctx, found.key, n.encode(), found.revision); errors.Is(err, ErrLost) {
		return nil // to a PutNote, which writes later ones only
	}
	return err
}

// Notes returns every note of the flow, up to date. Before Load, the result may be incomplete.
func (c *Cursors) Notes(ctx context.Context) (map[NoteKey]Note, error) {
	return c.notes.get(ctx, "read notes of "+c.flow.Name())
}

// ReadNotes reads a flow's notes from the offsets topic: no queue is needed. Without that topic there are none.
func ReadNotes(ctx context.Context, flow spec.Flow, target *kafka.Cluster) (map[NoteKey]Note, error) {
	published, err := readPublished(ctx, flow, target)
	if err != nil && !errors.Is(err, kafka.ErrUnknownTopic) {
		return nil, fmt.Errorf("read notes of %s: %w", flow.Name(), err)
	}
	return published.notes, nil
}

// agreeOnNotes makes KV hold the later of both copies of each note, and returns those that the topic lacks.
func (c *Cursors) agreeOnNotes(ctx context.Context, published map[NoteKey]Note) (lacking []kafka.Record, err error) {
	kept, err := c.Notes(ctx)
	if err != nil {
		return nil, err
	}
	for key, n := range published {
		if was, known := kept[key]; !known || was.At.Before(n.At) {
			if err := c.takeNote(ctx, key, n); err != nil {
				return nil, err
			}
		}
	}
	for key, n := range kept {
		if was, known := published[key]; !known || was.At.Before(n.At) {
			lacking = append(lacking, kafka.Record{Key: key.record(c.flow), Value: n.encode()})
		}
	}
	return lacking, nil
}

func (k NoteKey) String() string {
	switch {
	case k.Topic == "":
		return k.Kind
	case k.Partition < 0:
		return k.Kind + " of " + k.Topic
	}
	return fmt.Sprintf("%s of %s-%d", k.Kind, k.Topic, k.Partition)
}

// noteMembers are a record key's second element.
type noteMembers struct {
	Flow string `json:"flow"`
	NoteKey
}

func (k NoteKey) record(flow spec.Flow) []byte {
	return encodeJSON([]any{noteConnector, noteMembers{flow.Name(), k}})
}

// parseNoteKey reads the key of a note of the flow; false for every other.
func parseNoteKey(flow spec.Flow, key []byte) (NoteKey, bool) {
	var parts []json.RawMessage
	var members noteMembers
	if json.Unmarshal(key, &parts) != nil || len(parts) != 2 || json.Unmarshal(parts[1], &members) != nil {
		return NoteKey{}, false
	}
	return members.NoteKey, bytes.Equal(key, members.NoteKey.record(flow))
}

func (k NoteKey) kept(flow spec.Flow) string {
	return strings.Join([]string{"note", escape(flow.Name()), escape(k.Kind), escape(k.Topic),
		strconv.Itoa(int(k.Partition)), strconv.FormatInt(k.Offset, 10)}, ".")
}

// decodeKeptNote is kept's inverse, with the value.
func decodeKeptNote(key string, value []byte) (NoteKey, Note, error) {
	parts := strings.Split(key, ".")
	if len(parts) != 6 {
		return NoteKey{}, Note{}, fmt.Errorf("%w: %q", errNotOurs, key)
	}
	var k NoteKey
	var err1, err2, err3, err4, err5 error
	k.Kind, err1 = unescape(parts[2])
	k.Topic, err2 = unescape(parts[3])
	partition, err3 := strconv.ParseInt(parts[4], 10, 32)
	k.Partition = int32(partition)
	k.Offset, err4 = strconv.ParseInt(parts[5], 10, 64)
	var n Note
	if len(value) > 0 { // else it was deleted
		n, err5 = decodeNote(value)
	}
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return k, n, fmt.Errorf("%w: %q: %w", errNotOurs, key, err)
	}
	return k, n, nil
}
