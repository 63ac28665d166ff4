package cli

import (
	"context"
	"fmt"
	"time"
)

const (
	progressEvery = 500 * time.Millisecond
	backlog       = 10_000 // records behind from which on a progress line is of use
	smoothing     = 0.2    // weight of the newest half second in the rate
)

// copied is how far a process has come: what it copied, how far the cursors are behind, and where the sources end.
type copied struct{ records, bytes, lag, end int64 }

// A progress turns counters into a line for people.
type progress struct {
	last                    copied
	at                      time.Time // of last; zero before the first
	perSecond, bytesASecond float64
	base                    copied // when the backlog was first seen
	shown                   bool
}

// watch keeps a progress line on the screen while a backlog is copied, until ctx ends.
func watch(ctx context.Context, screen *screen, count func() copied) {
	if !screen.terminal {
		return
	}
	ticker := time.NewTicker(progressEvery)
	defer ticker.Stop()
	defer screen.show("")
	var p progress
	p.line(time.Now(), count())
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			screen.show(p.line(now, count()))
		}
	}
}

// line is empty while there is no backlog.
func (p *progress) line(now time.Time, c copied) string {
	if !p.at.IsZero() {
		seconds := now.Sub(p.at).Seconds()
		p.perSecond = smooth(p.perSecond, float64(c.records-p.last.records)/seconds)
		p.bytesASecond = smooth(p.bytesASecond, float64(c.bytes-p.last.bytes)/seconds)
	}
	if !p.shown {
		p.base = copied{records: p.last.records, lag: c.lag, end: c.end}
	}
	p.last, p.at = c, now
	p.shown = c.lag >= backlog || p.shown && c.lag > 0
	if !p.shown {
		return ""
	}
	rest := p.rest(c)
	return fmt.Sprintf("copied %s records, %s · %s records/s, %s/s · %s to go, %s",
		count(c.records), bytesText(c.bytes), count(int64(p.perSecond)), bytesText(int64(p.bytesASecond)), count(rest), left(rest, p.perSecond))
}

// rest is what is still to be copied. Cursors are seconds behind what has landed, and offsets without a record are never copied: of the
// backlog less what was copied since, and of the lag, the smaller one is right.
func (p *progress) rest(c copied) int64 {
	backlog := p.base.lag + (c.end - p.base.end) - (c.records - p.base.records)
	return max(0, min(c.lag, backlog))
}

// smooth follows a rate, from its first value on.
func smooth(rate, newest float64) float64 {
	if rate == 0 {
		return newest
	}
	return rate + smoothing*(newest-rate)
}

// left is how long the rest takes if all goes on like this.
func left(rest int64, perSecond float64) string {
	if perSecond < 1 {
		return "no telling how long"
	}
	return "about " + (time.Duration(float64(rest)/perSecond+1) * time.Second).String()
}

// count writes 1234567 as 1,234,567.
func count(n int64) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", count(n/1000), n%1000)
}

// bytesText writes an amount with one decimal and a unit.
func bytesText(n int64) string {
	const step = 1024
	if n < step {
		return fmt.Sprintf("%d B", n)
	}
	size, unit := float64(n)/step, 0
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	for size >= step {
		size /= step
		unit++
	}
	return fmt.Sprintf("%.1f %s", size, units[unit])
}
