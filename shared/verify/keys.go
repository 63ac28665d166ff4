package verify

// Compaction keeps the last record of every key and takes earlier ones, and after a while tombstones. So a record that is on one side
// alone is explained where the other side is compacted and has a later record of its key, or would have had: a tombstone.

// keyed are the records of one side that wait for a later record of their key on the other side.
type keyed map[uint64]*wait

type wait struct {
	records int64
	first   int64 // offset
	at      int64 // records that were equal before the first
}

// park has a record wait.
func (a *Aligner) park(s Side, e Entry) fate {
	keys := a.waiting[s]
	if e.Tombstone { // taken itself, after everything that it deleted
		a.counts.Compacted++
		a.explain(s, e.Key)
		return parked
	}
	w := keys[e.Key]
	if w == nil {
		if len(keys) == maxKeys {
			a.counts.Uncompared++
			return excused
		}
		w = &wait{first: e.Offset, at: a.counts.Equal}
		keys[e.Key] = w
	}
	w.records++
	return parked
}

// settle explains what waited on the other side for a record of this key.
func (a *Aligner) settle(s Side, e Entry) {
	if len(a.waiting[s.other()]) > 0 {
		a.explain(s.other(), e.Key)
	}
}

// Waiting says whether records of a side wait for a later record of their key on the other one.
func (a *Aligner) Waiting(s Side) bool { return len(a.waiting[s]) > 0 }

// Later tells of records behind the end of a side. They are not compared, but compaction may have taken earlier ones for them.
func (a *Aligner) Later(s Side, entries ...Entry) {
	for _, e := range entries {
		a.settle(s, e)
	}
}

// Abandon gives up about what waits: nobody can say what it is.
func (a *Aligner) Abandon() {
	for s := range a.waiting {
		for _, w := range a.waiting[s] {
			a.counts.Uncompared += w.records
		}
		a.waiting[s] = keyed{}
	}
}

func (a *Aligner) explain(s Side, key uint64) {
	if w := a.waiting[s][key]; w != nil {
		a.counts.Compacted += w.records
		delete(a.waiting[s], key)
	}
}

// remove takes one record out, and says whether it still waited.
func (k keyed) remove(key uint64) bool {
	w := k[key]
	if w == nil {
		return false
	}
	if w.records--; w.records == 0 {
		delete(k, key)
	}
	return true
}

// expire decides about what has waited in vain.
func (a *Aligner) expire(s Side) {
	for _, w := range a.waiting[s] {
		if s == Source && w.first > a.reached && w.first >= a.rules.Claimed {
			a.counts.Behind += w.records
			continue
		}
		*a.single(s) += w.records
		if s == Source {
			a.report(Pair{Missing, w.first, -1}, w.at)
		} else {
			a.report(Pair{Extra, -1, w.first}, w.at)
		}
	}
	a.waiting[s] = keyed{}
}
