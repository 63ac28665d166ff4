package functions

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"

	"github.com/kferry/kferry/shared/batch"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// Where counting can't be trusted, what landed is read back and walked beside the source, record by record (DESIGN.md §4). That is so
// for a compacted source, whose records go away one by one, and for a target that keeps no producer ids, whose log says of no record
// whose it is. It takes as long as what landed since the last commit: a second's worth, as a rule.

const (
	readBackBytes = 1 << 20
	mostReadBack  = 1 << 19 // records remembered at one time
)

// repeated is why a copy is not exactly once any more, though nothing is missing.
const repeated = "compacted source: some records may have been copied again after a crash"

// A print tells one record from another without keeping it.
type print struct {
	whole  [2]uint64 // of all that makes up the record, twice over
	key    uint64
	offset int64
	after  place // on the source only
}

// A printer makes prints that can be compared with each other and with no other's.
type printer struct {
	seeds   [2]maphash.Seed
	noTimes bool // where the target has set its own
	buffer  []byte
}

func (m *mirror) printer() *printer {
	noTimes := m.facts.target.configs["message.timestamp.type"] == "LogAppendTime"
	return &printer{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, noTimes: noTimes}
}

func (p *printer) print(r batch.Record) print {
	p.buffer = r.AppendContent(p.buffer[:0])
	if !p.noTimes {
		p.buffer = binary.BigEndian.AppendUint64(p.buffer, uint64(r.Timestamp))
	}
	return print{
		whole:  [2]uint64{maphash.Bytes(p.seeds[0], p.buffer), maphash.Bytes(p.seeds[1], p.buffer)},
		key:    maphash.Bytes(p.seeds[0], r.Key),
		offset: r.Offset,
	}
}

// readBack is the source's place behind what landed, where the source keeps its records: the i-th that landed is the i-th of the source.
func (m *mirror) readBack(soft context.Context, end int64) (place, error) {
	start, err := m.target.LogStart(soft, m.to)
	if err != nil {
		return place{}, fmt.Errorf("read log start of %s: %w", m.to, err)
	}
	from := m.here()
	if expired := min(start.Offset, end) - m.at.Target; expired > 0 {
		if from, err = m.skip(soft, expired); err != nil {
			return from, err
		}
	}
	p := m.printer()
	at, err := resumeBehind(from, m.landedPrints(soft, p, start.Offset, end), m.sourcePrints(soft, p, from), m.foundThere)
	other, is := errors.AsType[*otherRecordError](err)
	switch {
	case !is:
		return at, err
	case other.missing:
		return at, m.lacking(soft, at.offset, end-other.landed)
	}
	return at, hold(lease.ReasonForeignWriter, "%s holds a record at offset %d that is not the one at offset %d of %s; kferry had written up to %d",
		m.to, other.landed, other.source, m.from, m.at.Target)
}

// readBackCompacted is the source's place behind the records that landed, or before it where compaction has made that unclear: in the
// source, or in the copy, which then lacks some of them.
func (m *mirror) readBackCompacted(soft context.Context, records, end int64) (place, error) {
	start, err := m.target.LogStart(soft, m.to)
	if err != nil {
		return place{}, fmt.Errorf("read log start of %s: %w", m.to, err)
	}
	p := m.printer()
	left := int64(0)
	landed := func(yield func(print, error) bool) {
		for l, err := range m.landedPrints(soft, p, start.Offset, end) {
			if left++; !yield(l, err) {
				return
			}
		}
	}
	at, sure, err := resumeCompacted(m.here(), landed, m.sourcePrints(soft, p, m.here()), m.foundThere)
	if err == nil && (!sure || left < records) {
		m.log.Info("records that had landed are copied again, since compaction has made it unclear which they were", "from", at.offset)
		m.admit(repeated)
	}
	return at, err
}

func (m *mirror) here() place { return place{m.at.Offset, m.at.SourceEpoch} }

// landedPrints are those of what landed between the cursor, or the target's log start, and end.
func (m *mirror) landedPrints(soft context.Context, p *printer, start, end int64) iter.Seq2[print, error] {
	return func(yield func(print, error) bool) {
		next := max(m.at.Target, start)
		for i := 0; next < end; i++ {
			before := next
			var piece []print
			var err error
			piece, next, err = m.readPrints(soft, p, before, end)
			if err == nil && (next == before || i == maxScan) {
				err = fmt.Errorf("read back %s at %d: nothing there, though the log ends at %d", m.to, next, end)
			}
			if err != nil {
				yield(print{}, err)
				return
			}
			for _, r := range piece {
				if !yield(r, nil) {
					return
				}
			}
		}
	}
}

// readPrints reads one piece of the target. The memory for it goes back before anything else is asked for.
func (m *mirror) readPrints(soft context.Context, p *printer, from, end int64) (prints []print, next int64, err error) {
	piece, err := m.target.Read(soft, m.to, from, readBackBytes, spec.ReadUncommitted)
	if err != nil {
		return nil, from, fmt.Errorf("read back %s at %d: %w", m.to, from, err)
	}
	defer piece.Release()
	next = from
	for records := piece.Records; len(records) > 0 && next < end; {
		b, rest, err := batch.Next(records)
		if err == batch.ErrTruncated {
			break
		}
		if err == nil {
			prints, err = m.appendPrints(prints, p, b, from)
		}
		if err != nil {
			return nil, from, fmt.Errorf("read back %s at %d: %w", m.to, next, err)
		}
		next, records = b.NextOffset(), rest
	}
	return prints, next, nil
}

func (m *mirror) appendPrints(prints []print, p *printer, b batch.Batch, from int64) ([]print, error) {
	if b.Control() {
		return prints, nil
	}
	before := b.LeaderEpoch()
	for r, err := range b.Each(maxInflated) {
		if err != nil {
			return nil, err
		}
		if r.Offset < from {
			continue
		}
		made := p.print(r)
		made.after = place{r.Offset + 1, before}
		prints = append(prints, made)
	}
	return prints, nil
}

// sourcePrints are those of the source from a place on to where it ends now.
func (m *mirror) sourcePrints(soft context.Context, p *printer, from place) iter.Seq2[print, error] {
	return func(yield func(print, error) bool) {
		at := from
		for range maxScan {
			piece, next, err := m.lookPrints(soft, p, at)
			if err != nil {
				yield(print{}, err)
				return
			}
			for _, r := range piece {
				if !yield(r, nil) {
					return
				}
			}
			if next == at {
				return
			}
			at = next
		}
		yield(print{}, fmt.Errorf("read %s: no end after %d reads", m.from, maxScan))
	}
}

func (m *mirror) lookPrints(soft context.Context, p *printer, at place) (prints []print, next place, err error) {
	seen, err := m.look(soft, at)
	if err != nil {
		return nil, at, err
	}
	defer seen.Release()
	for _, b := range seen.data {
		if prints, err = m.appendPrints(prints, p, b, at.offset); err != nil {
			return nil, at, hold(lease.ReasonCorruptBatch, "%s: batch at offset %d: %v", m.from, b.BaseOffset(), err)
		}
	}
	if seen.wrong != nil && len(prints) == 0 {
		return nil, at, m.unreadable(seen.sight)
	}
	return prints, place{seen.next, seen.epoch}, nil
}

// An otherRecordError says that what landed is not what the source has.
type otherRecordError struct {
	landed, source int64 // offsets
	missing        bool  // the source ends before
}

func (e *otherRecordError) Error() string {
	return fmt.Sprintf("the record landed at offset %d is not the source's at %d", e.landed, e.source)
}

// resumeBehind walks both sides in step and returns the place behind the last source record that landed. What landed may begin again at
// an earlier record: a request that came late has doubled it, or another worker. found is told of each record where it landed first: behind
// a later place there may not be all that follows it on the source.
func resumeBehind(start place, landed, source iter.Seq2[print, error], found func(source, landed print)) (place, error) {
	next, stop := iter.Pull2(source)
	defer stop()
	var (
		walked []print
		known  = map[[2]uint64]int{} // position in walked
		due    = 0                   // the one that should land next
		at     = start
	)
	for l, err := range landed {
		if err != nil {
			return at, err
		}
		if due == len(walked) {
			s, err, more := next()
			switch {
			case err != nil:
				return at, err
			case more:
				walked = append(walked, s)
			}
		}
		switch again, is := known[l.whole]; {
		case due < len(walked) && walked[due].whole == l.whole:
			known[l.whole] = due
			if after := walked[due].after; after.offset > at.offset {
				found(walked[due], l)
				at = after
			}
			due++
		case is:
			due = again + 1
		case due == len(walked):
			return at, &otherRecordError{landed: l.offset, missing: true}
		default:
			return at, &otherRecordError{landed: l.offset, source: walked[due].offset}
		}
		if len(walked) > mostReadBack {
			return at, hold(lease.ReasonSequence, "more than %d records have landed since the cursor was written, and the target's log does not say whose they are", mostReadBack)
		}
	}
	return at, nil
}

// resumeCompacted returns the first place of the source from which records have not landed, or an earlier one where it is not sure.
//
// What landed is what the source held, in order. Since then the source may have lost records, but none whose key has no later record.
// So each source record that has landed is found in what landed, in order, and the first that isn't found there has not. One thing can
// deceive: a record that has not landed and looks like one that has, which compaction has taken away since. It must not be passed
// over if what landed ends, for its key, with another record. That other one is gone from the source too then, since compaction
// takes the older one first: therefore a record of which what landed holds a successor that the source does not is copied again, and
// all behind it. On a compacted topic that repeats what is there, and loses nothing.
func resumeCompacted(start place, landed, source iter.Seq2[print, error], match func(source, landed print)) (at place, sure bool, err error) {
	next, stop := iter.Pull2(landed)
	defer stop()
	found := map[uint64]place{} // before the last record of a key that was found
	at, again, sure := start, place{}, true
	var failed error
	pass := func(l print) {
		if before, is := found[l.key]; is && (sure || before.offset < again.offset) {
			again, sure = before, false
		}
	}
	find := func(s print) bool {
		for {
			l, err, more := next()
			switch {
			case err != nil || !more:
				failed = err
				return false
			case l.whole == s.whole:
				match(s, l)
				return true
			}
			pass(l)
		}
	}
	for s, err := range source {
		if err != nil {
			return start, false, err
		}
		if !find(s) {
			break
		}
		if found[s.key] = at; len(found) > mostReadBack {
			return start, false, nil
		}
		at = s.after
	}
	for l, err, more := next(); more && failed == nil; l, err, more = next() {
		if failed = err; err == nil {
			pass(l)
		}
	}
	switch {
	case failed != nil:
		return start, false, failed
	case !sure:
		return again, false, nil
	}
	return at, true, nil
}
