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

// copied is how far a process has come.
type copied struct{ records, bytes, lag int64 }

// A progress turns counters into a line for people.
type progress struct {
	last          copied
	at            time.Time
	perSecond     float64 // records
	bytesASecond  float64
	shown, primed bool
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
	if p.primed {
		seconds := now.Sub(p.at).Seconds()
		p.perSecond += smoothing * (float64(c.records-p.last.records)/seconds - p.perSecond)
		p.bytesASecond += smoothing * (float64(c.bytes-p.last.bytes)/seconds - p.bytesASecond)
	}
	p.last, p.at, p.primed = c, now, true
	p.shown = c.lag >= backlog || p.shown && c.lag > 0
	if !p.shown {
		return ""
	}
	return fmt.Sprintf("copied %s records, %s · %s records/s, %s/s · %s to go, %s",
		count(c.records), bytesText(c.bytes), count(int64(p.perSecond)), bytesText(int64(p.bytesASecond)), count(c.lag), p.left(c.lag))
}

// left is how long the rest takes if all goes on like this.
func (p *progress) left(lag int64) string {
	if p.perSecond < 1 {
		return "no telling how long"
	}
	return "about " + (time.Duration(float64(lag)/p.perSecond+1) * time.Second).String()
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
