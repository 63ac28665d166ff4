package lease

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// A Memory is what is kept of a flow.
type Memory struct {
	Cursors map[kafka.TopicPartition]Cursor // one of another format version is there with its hold
	Notes   map[NoteKey]Note
	Gaps    []Gap // of the notes, likewise the next
	Paused  bool
}

// ReadMemory reads all of it from the offsets topic on the target and writes nothing: no queue is needed. Without that topic there is
// none.
func ReadMemory(ctx context.Context, flow spec.Flow, target *kafka.Cluster) (Memory, error) {
	published, err := readPublished(ctx, flow, target)
	if err != nil && !errors.Is(err, kafka.ErrUnknownTopic) {
		return Memory{}, fmt.Errorf("read cursors of %s: %w", flow.Name(), err)
	}
	m := Memory{Cursors: make(map[kafka.TopicPartition]Cursor, len(published.cursors)), Notes: published.notes, Gaps: GapsOf(published.notes), Paused: pausedIn(published.notes)}
	for tp, r := range published.cursors {
		if len(r.Value) > 0 {
			m.Cursors[tp], _ = decodeCursor(r.Value) // what can't be read is a cursor that says so
		}
	}
	return m, nil
}

// ReadCursors is ReadMemory for the cursors alone.
func ReadCursors(ctx context.Context, flow spec.Flow, target *kafka.Cluster) (map[kafka.TopicPartition]Cursor, error) {
	m, err := ReadMemory(ctx, flow, target)
	return m.Cursors, err
}

// published is what the offsets topic holds of a flow.
type published struct {
	cursors map[kafka.TopicPartition]*kafka.Record // the last record of each partition, with no value where it was forgotten
	notes   map[NoteKey]Note
}

func readPublished(ctx context.Context, flow spec.Flow, target *kafka.Cluster) (published, error) {
	last := published{map[kafka.TopicPartition]*kafka.Record{}, map[NoteKey]Note{}}
	err := target.ReadAll(ctx, flow.OffsetsTopic, func(r kafka.Record) error {
		last.add(flow, r)
		return nil
	})
	return last, err
}

// add takes a record in. Another flow's or connector's says nothing, nor do members in an order that MM2 doesn't find either.
func (p published) add(flow spec.Flow, r kafka.Record) {
	_, _, topic, partition, ok := mm2.ParseSourceOffsetKey(r.Key)
	if !ok || !bytes.Equal(r.Key, flow.Key(topic, partition)) {
		p.addNote(flow, r)
		return
	}
	tp := kafka.TopicPartition{Topic: topic, Partition: partition}
	if was := p.cursors[tp]; was == nil || follows(r, *was) {
		r.Key, r.Value = nil, bytes.Clone(r.Value)
		p.cursors[tp] = &r
	}
}

// addNote keeps the latest note of each key. One that this kferry can't read is for another.
func (p published) addNote(flow spec.Flow, r kafka.Record) {
	key, ours := parseNoteKey(flow, r.Key)
	if !ours {
		return
	}
	if n, err := decodeNote(r.Value); err == nil && !n.At.Before(p.notes[key].At) {
		p.notes[key] = n
	}
}

// follows orders two records of one key: by log, or by time where the topic has grown and an old record stayed behind.
func follows(r, was kafka.Record) bool {
	if r.Partition == was.Partition {
		return r.Offset > was.Offset
	}
	return r.Timestamp > was.Timestamp
}
