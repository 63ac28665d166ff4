package cli

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/kferry/kferry/shared/verify"
)

func TestProgress(t *testing.T) {
	var p progress
	now := time.Unix(0, 0)
	if line := p.line(now, copied{lag: backlog - 1}); line != "" {
		t.Errorf("a short backlog shows %q", line)
	}
	var line string
	for i := range 61 {
		now = now.Add(progressEvery)
		done := int64(i) * 5_000
		line = p.line(now, copied{records: done, bytes: done << 10, lag: 1_000_000 - done, end: 1_000_000})
	}
	want := "copied 300,000 records, 293.0 MiB · 10,000 records/s, 9.8 MiB/s · 700,000 to go, about 1m11s"
	if line != want {
		t.Errorf("half way:\n got %s\nwant %s", line, want)
	}
	if line := p.line(now.Add(progressEvery), copied{lag: 1}); line == "" {
		t.Error("the line vanishes before the backlog does")
	}
	if line := p.line(now.Add(2*progressEvery), copied{}); line != "" {
		t.Errorf("no backlog shows %q", line)
	}
}

// Cursors follow what has landed by seconds, so the lag does too; what has been copied meanwhile is not still to go.
func TestProgressIsAheadOfTheCursors(t *testing.T) {
	var p progress
	p.line(time.Unix(0, 0), copied{})
	for i, step := range []struct {
		copied
		toGo string
	}{
		{copied{records: 10_000, lag: 400_000, end: 400_000}, "390,000"},
		{copied{records: 337_000, lag: 400_000, end: 400_000}, "63,000"},
		{copied{records: 400_000, lag: 337_000, end: 400_000}, "0"},
		{copied{records: 400_000, lag: 379_000, end: 442_000}, "42,000"}, // that were written meanwhile
		{copied{records: 400_000, lag: 30_000, end: 442_000}, "30,000"},  // others are markers of transactions
	} {
		if line := p.line(time.Unix(int64(i+1), 0), step.copied); !strings.Contains(line, " · "+step.toGo+" to go, ") {
			t.Errorf("step %d: %s are to go, and it says %q", i, step.toGo, line)
		}
	}
}

func TestProgressWithoutProgress(t *testing.T) {
	var p progress
	p.line(time.Unix(0, 0), copied{lag: backlog})
	if line := p.line(time.Unix(1, 0), copied{lag: backlog}); !strings.HasSuffix(line, "10,000 to go, no telling how long") {
		t.Errorf("nothing moves, and it says %q", line)
	}
}

func TestAmounts(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := count(n); got != want {
			t.Errorf("count(%d) is %s", n, got)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 5 << 40: "5.0 TiB"} {
		if got := bytesText(n); got != want {
			t.Errorf("bytesText(%d) is %s, not %s", n, got, want)
		}
	}
}

func TestLogsStandAboveTheLineAtTheBottom(t *testing.T) {
	var out bytes.Buffer
	s := &screen{terminal: true, to: &out}
	log := slog.New(slog.NewTextHandler(s, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	s.show("half")
	log.Info("one")
	s.show("")
	log.Info("two")
	want := clearLine + "half" + clearLine + "level=INFO msg=one\nhalf" + clearLine + "level=INFO msg=two\n"
	if out.String() != want {
		t.Errorf("got %q\nwant %q", out.String(), want)
	}
}

func TestLineOfAComparison(t *testing.T) {
	began := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
	r := reading{at: began}
	var p verify.Progress
	p.Total.Store(3_000_000)
	for second := range 10 {
		p.Done.Add(200_000)
		p.Records.Add(100_000)
		p.Bytes.Add(30 << 20)
		got := r.line(began.Add(time.Duration(second+1)*time.Second), &p)
		if want := "1,000,000 records are equal · 300.0 MiB read, 30.0 MiB/s · 1,000,000 offsets to go, about 6s"; second == 9 && got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}
