package kafka

import (
	"context"
	"errors"
	"io"
)

const (
	tailBytes    = 1 << 20 // asked for at once
	tailAttempts = 3       // to read a log whose beginning moves on, since it is compacted
)

// A Tail follows a topic of one partition whose records are kept in mind: it reads all of it at first, and then what is new. One goroutine
// may use it at a time.
type Tail struct {
	c     *Cluster
	tp    TopicPartition
	iso   Isolation
	begun bool
	id    TopicID
	next  int64 // offset to read on from
}

// NewTail asks nothing yet.
func (c *Cluster) NewTail(topic string, iso Isolation) *Tail {
	return &Tail{c: c, tp: TopicPartition{Topic: topic}, iso: iso}
}

// Read passes what is new to take, which has the records until it returns, and says whether the topic is there. Before it begins
// with the first record it calls forget: also where the topic is gone, was created again, or has lost records.
func (t *Tail) Read(ctx context.Context, forget func(), take func([]Record)) (there bool, err error) {
	topic, err := t.c.Topic(ctx, t.tp.Topic)
	if errors.Is(err, ErrUnknownTopic) {
		*t = Tail{c: t.c, tp: t.tp, iso: t.iso}
		forget()
		return false, nil
	}
	if err = errors.Join(err, topic.Err); err != nil {
		return false, err
	}
	for attempt := 1; ; attempt++ {
		err := t.read(ctx, topic.ID, forget, take)
		if !errors.Is(err, ErrOffsetOutOfRange) || attempt == tailAttempts {
			return true, err
		}
	}
}

func (t *Tail) read(ctx context.Context, id TopicID, forget func(), take func([]Record)) error {
	ends, err := t.c.ListOffsets(ctx, []TopicPartition{t.tp}, Latest, t.iso)
	end := ends[t.tp]
	if err = errors.Join(err, end.Err); err != nil {
		return err
	}
	if !t.begun || id != t.id || end.Offset < t.next {
		t.begun, t.id, t.next = true, id, 0
		forget()
	}
	if end.Offset == t.next {
		return nil
	}
	start, err := t.c.LogStart(ctx, t.tp)
	if err != nil {
		return err
	}
	r := t.c.NewReader(t.tp, max(t.next, start.Offset), end.Offset, t.iso, tailBytes)
	for {
		records, err := r.Next(ctx)
		if err == io.EOF {
			t.next = end.Offset
			return nil
		}
		if err != nil {
			return err
		}
		take(records)
		t.next = r.Offset()
	}
}
