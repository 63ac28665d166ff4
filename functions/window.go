package functions

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kferry/kferry/shared/batch"
	"github.com/kferry/kferry/shared/connect"
)

// windowHalf is how long Kafka's clients take one sample (metrics.sample.window.ms). They keep two (metrics.num.samples).
const windowHalf = 30 * time.Second

// A window is what was observed in the last 30 to 60 s. It reckons as the statistics of Kafka's clients do. It begins empty.
type window struct {
	began        time.Time // of the second half, which is under way
	first, under sample
}

type sample struct {
	weight, sum, min, max float64 // sum is that of value × weight
}

func (w *window) add(now time.Time, value, weight float64) {
	w.roll(now)
	w.under = w.under.and(sample{weight, value * weight, value, value})
}

func (w *window) roll(now time.Time) {
	switch age := now.Sub(w.began); {
	case age < windowHalf:
	case age < 2*windowHalf:
		w.first, w.under, w.began = w.under, sample{}, w.began.Add(windowHalf)
	default:
		*w = window{began: now}
	}
}

// over is all of it.
func (w *window) over(now time.Time) sample {
	w.roll(now)
	return w.first.and(w.under)
}

// rate is the sum, each second. What is younger than the first half counts as if nothing had been before, so that a single value makes no
// peak.
func (w *window) rate(now time.Time) float64 {
	return w.over(now).sum / (windowHalf + now.Sub(w.began)).Seconds()
}

func (s sample) and(other sample) sample {
	switch {
	case s.weight == 0:
		return other
	case other.weight == 0:
		return s
	}
	return sample{s.weight + other.weight, s.sum + other.sum, min(s.min, other.min), max(s.max, other.max)}
}

// times are a statistic of milliseconds.
type times struct {
	window
	last float64
	any  bool // there was one
}

func (t *times) add(now time.Time, value, weight float64) {
	t.window.add(now, value, weight)
	t.last, t.any = value, true
}

// observe takes in the age of a batch's newest record, once for each of its records: those of the others stand in the records, which are
// not unpacked.
func (t *times) observe(now time.Time, b batch.Batch) {
	if newest := b.MaxTimestamp(); newest >= 0 && b.Records() > 0 {
		t.add(now, float64(now.UnixMilli()-newest), float64(b.Records()))
	}
}

func (t *times) send(to chan<- prometheus.Metric, as connect.Times, now time.Time, labels []string) {
	if t.any {
		as.Last.Send(to, t.last, labels...)
	}
	if s := t.over(now); s.weight > 0 {
		as.Min.Send(to, s.min, labels...)
		as.Max.Send(to, s.max, labels...)
		as.Avg.Send(to, s.sum/s.weight, labels...)
	}
}
