package lease

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/kferry/kferry/shared/spec"
)

// A Decision is how a partition goes on that waits for one: "" is none, else accept-gap, restart, or from:<source offset>.
type Decision string

// The decisions beside From.
const (
	AcceptGap Decision = "accept-gap" // go on, and leave missing what can't be had any more
	Restart   Decision = "restart"    // copy again from where the flow starts, behind all that is there
)

// From is the decision to go on at an offset of the source.
func From(offset int64) Decision { return Decision("from:" + strconv.FormatInt(offset, 10)) }

// Policy is what a flow's policy decides for a hold; "" is to wait for a person.
func Policy(f spec.Flow, reason Reason) Decision {
	switch f.OnHold.For(string(reason)) {
	case spec.ActionSkip:
		return AcceptGap
	case spec.ActionRestart:
		return Restart
	}
	return ""
}

// Offset is that of a From.
func (d Decision) Offset() (int64, bool) {
	text, is := strings.CutPrefix(string(d), "from:")
	offset, err := strconv.ParseInt(text, 10, 64)
	return offset, is && err == nil
}

// Decided is a cursor that says how to go on from a hold. It is the newer of the two, and MM2's no longer.
func (c Cursor) Decided(h Hold, d Decision, now time.Time) Cursor {
	if c.Version == 0 { // there was none
		c = Cursor{Version: CursorVersion, SourceEpoch: -1, Timestamp: -1}
	}
	if c.Hold.Reason != h.Reason {
		c.Hold = h
	}
	c.Foreign, c.Decision = false, d
	if next := c.DecidedAt.Add(time.Millisecond); now.Before(next) {
		now = next
	}
	c.DecidedAt = time.UnixMilli(now.UnixMilli())
	return c
}

// A Standing is where a held partition stands: all that the outcome of a decision depends on.
type Standing struct {
	Reason     Reason
	Copied     int64 // source offset behind what was copied; 0 where nothing is known to have been
	Parted     int64 // first source offset where the source holds something else than what was copied; Same where it doesn't
	Start, End int64 // of the source's log
	Restart    int64 // where RestartAt leads
	Lost       int64 // records of the copy that the target has lost, of ReasonTargetTruncated
}

// Same is the Parted of a source that still holds what was copied, as far as it reaches.
const Same = math.MaxInt64

// RestartAt is where Restart begins: where the flow does. After latest nothing would be copied again that was lost, so there it is the
// source's log start.
func RestartAt(start spec.Start, reason Reason) spec.Start {
	lost := reason == ReasonTargetRecreated || reason == ReasonTargetTruncated || reason == ReasonSourceTruncated
	if lost && start == spec.Latest {
		return spec.Earliest
	}
	return start
}

// An Effect is what a decision does to the copy, to be noted for ever.
type Effect string

// The effects.
const (
	Skipped  Effect = "skipped"  // source offsets that are not on the target
	Repeated Effect = "repeated" // source offsets that are on the target twice, or may be
	Surplus  Effect = "surplus"  // the target holds what the source doesn't
)

// An Outcome is where a decision leads.
type Outcome struct {
	Offset   int64 // the next source offset to copy
	Effect   Effect
	From, To int64 // source offsets that Effect is about, To exclusive
	Count    int64 // of them, or of a Surplus that is somebody else's the records; -1 where nobody knows how many there are
}

// Decide computes what comes of a decision. Its error is for whoever decided.
func (s Standing) Decide(d Decision) (Outcome, error) {
	next, from := d.Offset()
	switch {
	case d == AcceptGap:
		next = s.accept()
	case d == Restart:
		next = s.within(s.Restart)
	case !from:
		return Outcome{}, fmt.Errorf("unknown decision %q: this kferry knows %s, %s and from:<offset>", d, AcceptGap, Restart)
	case next < s.Start || next > s.End:
		return Outcome{}, fmt.Errorf("offset %d is not in the source's log, which has %d to %d: give one of those", next, s.Start, s.End)
	}
	return s.outcome(next), nil
}

// accept is where the source still has what follows on the copy.
func (s Standing) accept() int64 {
	switch {
	case s.Reason == ReasonSourceRecreated:
		return s.Start
	case s.unbegun():
		return s.within(s.Restart)
	}
	return s.within(min(s.Copied, s.Parted))
}

// unbegun says that nothing is known to have been copied.
func (s Standing) unbegun() bool {
	return s.Copied == 0 && (s.Reason == ReasonNoCursor || s.Reason == ReasonPositionSet)
}

func (s Standing) within(offset int64) int64 { return max(s.Start, min(s.End, offset)) }

// complete is the offset of the present source up to which the copy holds everything that it was to hold.
func (s Standing) complete() int64 {
	switch {
	case s.Reason == ReasonSourceRecreated, s.Reason == ReasonTargetRecreated:
		return s.Start
	case s.Reason == ReasonTargetTruncated:
		return max(s.Start, s.Copied-s.Lost)
	case s.unbegun():
		return s.within(s.Restart)
	}
	return min(s.Copied, s.Parted, s.End)
}

func (s Standing) outcome(next int64) Outcome {
	complete := s.complete()
	o := Outcome{Offset: next, From: next, To: next}
	switch {
	case next > complete:
		o.Effect, o.From, o.Count = Skipped, complete, next-complete
	case next < complete:
		o.Effect, o.To, o.Count = Repeated, complete, complete-next
	case s.Reason == ReasonSourceRecreated: // what came to the topic that is gone, after it was last read
		o.Effect, o.From, o.To, o.Count = Skipped, s.Copied, s.Copied, -1
	case s.Reason == ReasonSourceTruncated && s.Copied > next:
		o.Effect, o.To, o.Count = Surplus, s.Copied, s.Copied-next
	case s.Reason == ReasonForeignWriter, s.Reason == ReasonSequence, s.Reason == ReasonNoCursor:
		o.Effect, o.Count = Surplus, -1
	}
	return o
}

// String is what people read before they decide.
func (o Outcome) String() string {
	text := fmt.Sprintf("goes on at source offset %d", o.Offset)
	switch {
	case o.Effect == Skipped && o.Count < 0:
		text += fmt.Sprintf("; what the deleted topic held from offset %d on and was not copied stays missing", o.From)
	case o.Effect == Skipped:
		text += fmt.Sprintf("; %s missing on the target", o.offsets("stay"))
	case o.Effect == Repeated:
		text += fmt.Sprintf("; %s copied again", o.offsets("are"))
	case o.Effect == Surplus && o.Count > 0:
		text += fmt.Sprintf("; what the source lost, %s, stays on the target", o.offsets(""))
	case o.Effect == Surplus:
		text += ", behind all that is on the target"
	}
	return text
}

// offsets names the range that an effect is about.
func (o Outcome) offsets(verb string) string {
	return strings.TrimSpace(fmt.Sprintf("offsets %d to %d (%d) %s", o.From, o.To-1, o.Count, verb))
}
