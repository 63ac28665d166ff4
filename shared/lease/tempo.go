package lease

import (
	"context"
	"errors"
	"maps"
)

const (
	// tempoTries is how often a worker tries to have its figures counted; the next ones come soon.
	tempoTries = 3
	// tempoShare is how much one worker's figures weigh against all that were known.
	tempoShare = 0.1
	// tempoHope is by how much a worker that had not enough to do raises the rate, as far as it ever was: what made workers slow may be
	// over, and where they keep up nobody would find out.
	tempoHope = 1.005
)

// A Tempo is how fast workers copy, as they measured it themselves, for whoever decides how many there are to be.
type Tempo struct {
	// Rate is how many bytes a second one worker writes that has all it could do; 0 while nobody has measured it. Peak is the most that
	// it was.
	Rate float64 `json:"rate,omitempty"`
	Peak float64 `json:"peak,omitempty"`
	// RecordBytes is how long a record is in its batch, by flow.
	RecordBytes map[string]float64 `json:"recordBytes,omitempty"`
}

// A Stint is what one worker did for a while.
type Stint struct {
	Flows map[string]Copied
	// Rate is the bytes a second that were written, 0 where the worker had not enough to do to tell. Full says that it had so much to do
	// that it could not have been faster; otherwise it may have been the partitions that were slow.
	Rate float64
	Full bool
	// Short is that the worker ended before there was a rate to tell.
	Short bool
}

// Copied is what the target has acknowledged.
type Copied struct{ Records, Bytes int64 }

// With is a tempo with one more stint. What is faster than all before shows at once what a worker can do, what is slower counts little by
// little.
func (t Tempo) With(s Stint) Tempo {
	switch {
	case t.Rate == 0 && !s.Full:
	case s.Rate > t.Rate:
		t.Rate = s.Rate
	case s.Full:
		t.Rate += tempoShare * (s.Rate - t.Rate)
	case s.Rate == 0 && !s.Short:
		t.Rate = min(t.Rate*tempoHope, t.Peak)
	}
	t.Peak = max(t.Peak, t.Rate)
	t.RecordBytes = maps.Clone(t.RecordBytes)
	if t.RecordBytes == nil {
		t.RecordBytes = map[string]float64{}
	}
	for flow, c := range s.Flows {
		if c.Records <= 0 {
			continue
		}
		size := float64(c.Bytes) / float64(c.Records)
		if was := t.RecordBytes[flow]; was > 0 {
			size = was + tempoShare*(size-was)
		}
		t.RecordBytes[flow] = size
	}
	return t
}

// CountStint adds a worker's stint to the installation's tempo.
func (q *Queue) CountStint(ctx context.Context, s Stint) (err error) {
	slate := q.Slate(SlateTempo)
	for range tempoTries {
		var t Tempo
		var revision uint64
		if revision, err = slate.Read(ctx, &t); err != nil {
			return err
		}
		if _, err = slate.Write(ctx, t.With(s), revision); !errors.Is(err, ErrLost) {
			return err
		}
	}
	return err
}

// Tempo is the installation's.
func (q *Queue) Tempo(ctx context.Context) (t Tempo, err error) {
	_, err = q.Slate(SlateTempo).Read(ctx, &t)
	return t, err
}
