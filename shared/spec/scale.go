package spec

import "time"

// Scale says how many workers a coordinator asks for.
type Scale struct {
	Min, Max int
	Drain    time.Duration // in which a backlog is to be copied
	Rate     Bytes         // a second, of one worker, until it is measured
	Down     time.Duration // for which fewer must have been enough
	Idle     time.Duration // without work until none is asked for
}

// Bounds of what may be set.
const (
	mostWorkers  = 10_000
	leastDrain   = 10 * time.Second
	leastQuiet   = 10 * time.Second // a worker keeps a silent partition for five
	leastScaling = 64 * KiB
)

func (e environment) scale(r *report) Scale {
	s := Scale{
		Min:   read(r, e.value("KFERRY_SCALE_MIN", e.ScaleMin), parseCount(0, mostWorkers), 0),
		Max:   read(r, e.value("KFERRY_SCALE_MAX", e.ScaleMax), parseCount(1, mostWorkers), 0),
		Drain: read(r, e.value("KFERRY_SCALE_DRAIN", e.ScaleDrain), parseDuration(leastDrain), 0),
		Rate:  read(r, e.value("KFERRY_SCALE_RATE", e.ScaleRate), parseScaleRate, 0),
		Down:  read(r, e.value("KFERRY_SCALE_DOWN", e.ScaleDown), parseDuration(leastQuiet), 0),
		Idle:  read(r, e.value("KFERRY_SCALE_IDLE", e.ScaleIdle), parseDuration(leastQuiet), 0),
	}
	if s.Max > 0 && s.Min > s.Max {
		r.wrongf(e.value("KFERRY_SCALE_MIN", e.ScaleMin), "is more than KFERRY_SCALE_MAX, which is %d; set one of them otherwise", s.Max)
	}
	return s
}
