package batch

// Reason says why a batch can't be passed through as it is.
type Reason string

const (
	Passed     Reason = ""                // it can
	Holes      Reason = "holes"           // compaction removed records: brokers take only dense batches
	Cut        Reason = "cut"             // begins before the cursor
	AppendTime Reason = "log-append-time" // a CreateTime target would refuse it, or bring back the create times that it hides
	TooLarge   Reason = "too-large"       // above the target's max.message.bytes
	OldFormat  Reason = "old-format"      // was messages of magic 0 or 1; Next has written it anew, and nothing else is wrong with it
	Small      Reason = "small"           // cheaper merged with its neighbours; the caller's judgement, see Mergeable
)

// Check says whether b can be passed through: from is the first offset wanted, maxBytes the target's max.message.bytes (0:
// unknown), and stamps that the target puts its own time in the place of every record's (message.timestamp.type LogAppendTime).
// Control batches and emptied ones are the caller's to drop.
func (b Batch) Check(from int64, maxBytes int, stamps bool) Reason {
	switch {
	case !b.Dense():
		return Holes
	case b.BaseOffset() < from:
		return Cut
	case b.LogAppendTime() && !stamps:
		return AppendTime
	case maxBytes > 0 && len(b) > maxBytes:
		return TooLarge
	case b.OldFormat():
		return OldFormat
	}
	return Passed
}

// Mergeable says that Merge takes b. A transactional batch is fine, once its transaction has committed: the bit goes. So are
// holes and LogAppendTime: the records are written anew, one after the other and with the times that readers see.
func (b Batch) Mergeable() bool {
	return b.Codec() == None && !b.Control() && b.Records() > 0 && !b.OldFormat()
}
