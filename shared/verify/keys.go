package verify

// Compaction keeps the last record of every key and takes earlier ones, and after a while tombstones. So a record that is on one side
// alone is explained where the other side is compacted and has a later record of its key. A tombstone that is the last record of its key
// is explained, and everything before it, where the other side holds no live record of the key any more. That is decided by looking
// through the other side once more: what is live there may have been equal long before, and may have gone while both were read.

// keyed are the keys of one side whose records wait for something on the other side that explains them.
type keyed map[uint64]*wait

type wait struct {
	records int64
	first   int64 // offset
	at      int64 // records that were equal before the first
	deleted bool  // whether the last of them is a tombstone
	live    bool  // whether the other side ends with a live record of the key; known once it was looked through again
}

// park has a record wait.
func (a *Aligner) park(s Side, e Entry) fate {
	keys := a.waiting[s]
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
	w.deleted = e.Tombstone
	return parked
}

// outlive explains a tombstone of a side by a later record there, which decides about the key instead.
func (a *Aligner) outlive(s Side, key uint64) {
	if w := a.waiting[s][key]; w != nil && w.deleted {
		a.explain(s, key)
	}
}

// agree explains all that waits for a key: both sides have the same record of it.
func (a *Aligner) agree(key uint64) {
	a.explain(Source, key)
	a.explain(Target, key)
}

// settle explains what waited on the other side for a record of this key. A tombstone goes on waiting for a live record: one that comes
// upon it here may be older.
func (a *Aligner) settle(s Side, e Entry) {
	if w := a.waiting[s.other()][e.Key]; w != nil && (e.Tombstone || !w.deleted) {
		a.explain(s.other(), e.Key)
	}
}

// Waiting says whether records of a side wait for a later record of their key on the other one.
func (a *Aligner) Waiting(s Side) bool { return len(a.waiting[s]) > 0 }

// Deleted says whether tombstones of a side wait for what the other one holds of their keys.
func (a *Aligner) Deleted(s Side) bool {
	for _, w := range a.waiting[s] {
		if w.deleted {
			return true
		}
	}
	return false
}

// Again tells of records of a side that is looked through once more, in the order of their offsets.
func (a *Aligner) Again(s Side, entries ...Entry) {
	for _, e := range entries {
		if w := a.waiting[s.other()][e.Key]; w != nil {
			w.live = !e.Tombstone
		}
	}
}

// Later tells of records behind the end of a side. They are not compared, but compaction may have taken earlier ones for them.
func (a *Aligner) Later(s Side, entries ...Entry) {
	for _, e := range entries {
		a.explain(s.other(), e.Key)
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
		switch {
		case w.deleted && !w.live:
			a.counts.Compacted += w.records
		case s == Source && w.first > a.reached && w.first >= a.rules.Claimed:
			a.counts.Behind += w.records
		case s == Source:
			a.counts.Missing += w.records
			a.report(Pair{Missing, w.first, -1}, w.at)
		default:
			a.counts.Extra += w.records
			a.report(Pair{Extra, -1, w.first}, w.at)
		}
	}
	a.waiting[s] = keyed{}
}
