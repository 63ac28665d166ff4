package lease

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kferry/kferry/shared/spec"
)

// What the tests of workers, with real logs, can't set up so easily.
func TestOutcomes(t *testing.T) {
	for name, test := range map[string]struct {
		Standing
		Decision
		want Outcome
	}{
		"diverged, and written on past the cursor": {
			Standing{Reason: ReasonSourceTruncated, Copied: 100, Parted: 80, End: 140}, AcceptGap,
			Outcome{80, Surplus, 80, 100, 20},
		},
		"diverged, and what it still has is past retention": {
			Standing{Reason: ReasonSourceTruncated, Copied: 100, Parted: 80, Start: 90, End: 140}, AcceptGap,
			Outcome{90, Skipped, 80, 90, 10},
		},
		"diverged, from within what it still had": {
			Standing{Reason: ReasonSourceTruncated, Copied: 100, Parted: 80, End: 140}, From(70), Outcome{70, Repeated, 70, 80, 10},
		},
		"the target is new, and so is most of the source": {
			Standing{Reason: ReasonTargetRecreated, Copied: 100, Parted: Same, Start: 90, End: 140}, AcceptGap,
			Outcome{100, Skipped, 90, 100, 10},
		},
		"the target lost more than the source still has": {
			Standing{Reason: ReasonTargetTruncated, Copied: 100, Parted: Same, Start: 90, End: 140, Lost: 50, Restart: 90}, Restart,
			Outcome{Offset: 90, From: 90, To: 90},
		},
		"retention took more while a foreign writer was thought about": {
			Standing{Reason: ReasonForeignWriter, Copied: 100, Parted: Same, Start: 120, End: 140}, AcceptGap,
			Outcome{120, Skipped, 100, 120, 20},
		},
		"everything that was not copied is gone": {
			Standing{Reason: ReasonRetentionGap, Copied: 100, Parted: Same, Start: 140, End: 140, Restart: 140}, AcceptGap,
			Outcome{140, Skipped, 100, 140, 40},
		},
		"somebody else's records, which nobody has counted": {
			Standing{Reason: ReasonForeignWriter, Copied: 50, Parted: Same, End: 50}, AcceptGap, Outcome{50, Surplus, 50, 50, -1},
		},
		"MirrorMaker's position is gone": {
			Standing{Reason: ReasonNoCursor, Copied: 5, Parted: Same, Start: 50, End: 140}, AcceptGap, Outcome{50, Skipped, 5, 50, 45},
		},
	} {
		if got, err := test.Decide(test.Decision); got != test.want || err != nil {
			t.Errorf("%s: %+v (%v), want %+v", name, got, err, test.want)
		}
	}
}

// Whatever is decided, the partition goes on within the source's log, and every offset up to there that isn't on the target is accounted for.
func TestOutcomesAreWithinTheLogAndAccountForEveryOffset(t *testing.T) {
	var waiting []Reason
	for r := range reasons {
		if r.Decide() {
			waiting = append(waiting, r)
		}
	}
	offset := rapid.Int64Range(0, 100)
	rapid.Check(t, func(t *rapid.T) {
		s := Standing{Reason: rapid.SampledFrom(waiting).Draw(t, "reason"), Copied: offset.Draw(t, "copied"), Parted: Same, Start: offset.Draw(t, "start"), Lost: offset.Draw(t, "lost")}
		s.End = s.Start + offset.Draw(t, "records")
		s.Restart = rapid.Int64Range(s.Start, s.End).Draw(t, "restart")
		if s.Reason == ReasonSourceTruncated && rapid.Bool().Draw(t, "diverged") {
			s.Parted = rapid.Int64Range(0, s.Copied).Draw(t, "parted")
		}
		d := rapid.SampledFrom([]Decision{AcceptGap, Restart, From(rapid.Int64Range(s.Start, s.End).Draw(t, "from"))}).Draw(t, "decision")
		o, err := s.Decide(d)
		if err != nil || o.Offset < s.Start || o.Offset > s.End {
			t.Fatalf("%+v: %s leads to %+v (%v)", s, d, o, err)
		}
		skipped := o.Offset - s.complete()
		if skipped > 0 && (o.Effect != Skipped || o.Count != skipped || o.To != o.Offset) || o.Effect == Skipped && o.Count == 0 {
			t.Errorf("%+v: %s leaves out %d offsets and says %+v", s, d, skipped, o)
		}
		if skipped < 0 && (o.Effect != Repeated || o.Count != -skipped || o.From != o.Offset) {
			t.Errorf("%+v: %s repeats %d offsets and says %+v", s, d, -skipped, o)
		}
	})
}

func TestDecisionsOutsideTheLogAreRefused(t *testing.T) {
	s := Standing{Reason: ReasonRetentionGap, Copied: 10, Parted: Same, Start: 50, End: 60}
	for _, d := range []Decision{From(49), From(61), From(-1), "from:x", "from:", "maybe", ""} {
		if got, err := s.Decide(d); err == nil {
			t.Errorf("%q leads to %+v", d, got)
		}
	}
	for _, d := range []Decision{From(50), From(60)} {
		if _, err := s.Decide(d); err != nil {
			t.Errorf("%q: %v", d, err)
		}
	}
}

func TestRestartAfterLatest(t *testing.T) {
	at := spec.At(time.UnixMilli(1_760_000_000_000))
	for _, test := range []struct {
		start  spec.Start
		reason Reason
		want   spec.Start
	}{
		{spec.Latest, ReasonTargetRecreated, spec.Earliest}, {spec.Latest, ReasonRetentionGap, spec.Latest}, {at, ReasonTargetRecreated, at},
	} {
		if got := RestartAt(test.start, test.reason); got != test.want {
			t.Errorf("%s of a flow that starts at %s: %s, want %s", test.reason, test.start, got, test.want)
		}
	}
}

// Two decisions of one instant, or of clocks that differ, are still one after the other.
func TestLaterDecisionIsNewer(t *testing.T) {
	now := time.UnixMilli(1_760_000_000_000)
	first := Cursor{}.Decided(Hold{Reason: ReasonNoCursor, Detail: "d", Since: now}, AcceptGap, now)
	second := first.Decided(Hold{Reason: ReasonNoCursor, Detail: "other"}, Restart, now.Add(-time.Hour))
	if !second.Newer(first) || second.Hold.Detail != "d" || second.Decision != Restart || first.SourceEpoch != -1 {
		t.Errorf("first %+v, second %+v", first, second)
	}
}

func TestGapsAreTold(t *testing.T) {
	for want, g := range map[string]Gap{
		"offsets 10 to 12 (3) are missing on the target":                              {Effect: Skipped, From: 10, To: 13, Count: 3},
		"what the deleted topic held from offset 10 on and was not copied is missing": {Effect: Skipped, From: 10, To: 10, Count: -1},
		"offsets 10 to 12 (3) may be there twice":                                     {Effect: Repeated, From: 10, To: 13, Count: 3},
		"offsets 10 to 12 (3) are on the target and no longer on the source":          {Effect: Surplus, From: 10, To: 13, Count: 3},
		"the target holds records before its offset 50 that the source doesn't":       {Effect: Surplus, From: 10, To: 10, Count: -1, Target: 50},
	} {
		if got := g.String(); got != want {
			t.Errorf("%+v is told as %q, want %q", g, got, want)
		}
	}
}
