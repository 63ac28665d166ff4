package lease

import (
	"errors"

	"github.com/kferry/kferry/shared/kafka"
)

// A Reason says why a partition is held or a task failed. It is short and stable: metrics carry it as a label, cursors and
// states as a field. What it means to people is Text.
type Reason string

// The reasons. Those that wait for a person come first: see Decide.
const (
	ReasonNoCursor         Reason = "no_cursor"
	ReasonSourceRecreated  Reason = "source_recreated"
	ReasonTargetRecreated  Reason = "target_recreated"
	ReasonSourceTruncated  Reason = "source_truncated"
	ReasonTargetTruncated  Reason = "target_truncated"
	ReasonRetentionGap     Reason = "retention_gap"
	ReasonForeignWriter    Reason = "foreign_writer"
	ReasonSequence         Reason = "sequence"
	ReasonPositionSet      Reason = "position_set"
	ReasonMirrorMaker      Reason = "mirrormaker_runs"
	ReasonUnreachable      Reason = "unreachable"
	ReasonTopicMissing     Reason = "topic_missing"
	ReasonPartitionMissing Reason = "partitions_missing"
	ReasonTopicConfig      Reason = "topic_config"
	ReasonTopicName        Reason = "topic_name"
	ReasonTopicCollision   Reason = "topic_collision"
	ReasonAuthentication   Reason = "authentication"
	ReasonTLS              Reason = "tls"
	ReasonAuthorization    Reason = "authorization"
	ReasonRecordTooLarge   Reason = "record_too_large"
	ReasonInvalidRecord    Reason = "invalid_record"
	ReasonCorruptBatch     Reason = "corrupt_batch"
	ReasonUnsupported      Reason = "unsupported"
	ReasonFormat           Reason = "format"
	ReasonDigest           Reason = "digest"
	ReasonError            Reason = "error"
)

// reasons tells people, for each reason, what happened, and what AcceptGap does where going on is theirs to decide.
var reasons = map[Reason]struct{ text, accept string }{
	ReasonNoCursor: {"The target partition holds records, and no cursor of kferry says where they come from.",
		"goes on behind what is there, from MirrorMaker's position, else from where the flow starts"},
	ReasonSourceRecreated: {"The source topic was deleted and created again: its offsets no longer mean what the cursor says.",
		"copies the new topic from its first record, behind the records of the old one"},
	ReasonTargetRecreated: {"The target topic was deleted and created again: what had landed is gone.",
		"goes on where it was; what the target lost stays missing there"},
	ReasonSourceTruncated: {"The source lost records that had been copied: its log ends before the cursor, or holds others there.",
		"goes on where the source still has what was copied; what the source lost stays on the target"},
	ReasonTargetTruncated: {"The target's log ends before the cursor: the target lost records it had acknowledged.",
		"goes on where it was; what the target lost stays missing there"},
	ReasonRetentionGap: {"The source deleted records before they were copied.",
		"goes on with the first record that is left"},
	ReasonForeignWriter: {"Somebody else writes to the target partition.",
		"goes on behind what is there"},
	ReasonSequence: {"The target refuses the sequence that its own log asks for.",
		"goes on behind what is there"},
	ReasonPositionSet: {"Somebody has set the position (kferry offsets).",
		"goes on where it was"},
	ReasonMirrorMaker:      {"MirrorMaker 2, whose copy kferry is to go on with, has not stopped.", ""},
	ReasonUnreachable:      {"A broker does not answer.", ""},
	ReasonTopicMissing:     {"A topic is not there.", ""},
	ReasonPartitionMissing: {"The target topic has fewer partitions than the source.", ""},
	ReasonTopicConfig:      {"The target refuses a setting of the topic.", ""},
	ReasonTopicName:        {"The target takes no topic of the name that the copy would have.", ""},
	ReasonTopicCollision:   {"Several topics lead into one target topic.", ""},
	ReasonAuthentication:   {"A cluster refuses the login.", ""},
	ReasonTLS:              {"A cluster's connection can't be secured.", ""},
	ReasonAuthorization:    {"A cluster refuses permission.", ""},
	ReasonRecordTooLarge:   {"A record is larger than the target accepts.", ""},
	ReasonInvalidRecord:    {"The target refuses a record.", ""},
	ReasonCorruptBatch:     {"A batch of the source does not pass its checksum or contradicts itself.", ""},
	ReasonUnsupported:      {"The source holds something that kferry does not know, or the target lacks something that it needs.", ""},
	ReasonFormat:           {"A newer kferry wrote this cursor or task.", ""},
	ReasonDigest:           {"The worker's specification differs from the coordinator's or the cursor's.", ""},
	ReasonError:            {"Something failed.", ""},
}

// Away is why a cluster can't be spoken to, "" where an error is no such thing.
func Away(err error) Reason {
	switch {
	case errors.Is(err, kafka.ErrLogin):
		return ReasonAuthentication
	case errors.Is(err, kafka.ErrTLS):
		return ReasonTLS
	case errors.Is(err, kafka.ErrUnanswered):
		return ReasonUnreachable
	}
	return ""
}

// Text is a sentence for people. A reason that a newer kferry wrote stands for itself.
func (r Reason) Text() string {
	if known, ok := reasons[r]; ok {
		return known.text
	}
	return string(r)
}

// Decide says whether the partition stays held until a person decides. All others are looked at again (every 30 s) and go on by
// themselves once the cause is gone. One that a newer kferry wrote is not ours to pass over.
func (r Reason) Decide() bool {
	known, ok := reasons[r]
	return r != "" && (!ok || known.accept != "")
}

// Accept is what AcceptGap does for the reason, in words that follow "it"; "" where nobody has to decide.
func (r Reason) Accept() string { return reasons[r].accept }
