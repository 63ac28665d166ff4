package groups

import (
	"errors"

	"github.com/kferry/kferry/shared/kafka"
)

// A Reason says why a group's position in a partition has no counterpart on the target, or not the group's own there, or none that is
// exact. It is short and stable. What it means to people is Text.
type Reason string

// The reasons. Of several that hold the first is told.
const (
	Filtered       Reason = "filtered"
	GroupType      Reason = "group_type"
	Authorization  Reason = "authorization"
	Unanswered     Reason = "unanswered"
	NoPosition     Reason = "no_position"
	TopicNotCopied Reason = "topic_not_copied"
	NotBegun       Reason = "not_begun"
	BeforeCopy     Reason = "before_copy"
	TargetMissing  Reason = "target_missing"
	ActiveOnTarget Reason = "active_on_target"
	TargetAhead    Reason = "target_ahead"
	CopyBehind     Reason = "copy_behind"
	Unmapped       Reason = "unmapped"
)

var texts = map[Reason]string{
	Filtered:       "The flow's patterns leave the group out.",
	GroupType:      "The group doesn't consume from positions that it commits: it is a share or streams group, or one of Connect's workers.",
	Authorization:  "A cluster refuses to tell of the group: grant Describe on it, and on the target Read as well.",
	Unanswered:     "The group's coordinator doesn't answer.",
	NoPosition:     "The group has committed no position.",
	TopicNotCopied: "The flow doesn't copy the topic.",
	NotBegun:       "Nothing of the partition has been copied yet, or not by kferry.",
	BeforeCopy:     "The group has still to read what lies before the beginning of the copy.",
	TargetMissing:  "The target has no such partition.",
	ActiveOnTarget: "The group has members on the target, which commit for themselves.",
	TargetAhead:    "The group has come further on the target. It is never set back.",
	CopyBehind:     "The group has read what is not copied yet. It goes on where the copy ends.",
	Unmapped:       "MirrorMaker copied that, and no map reaches there. The group goes on at the nearest place before it that is known: the last offset-sync of MirrorMaker's, or the copy's beginning.",
}

// Text is a sentence for people.
func (r Reason) Text() string { return texts[r] }

// reasonOf sorts the error of one group.
func reasonOf(err error) Reason {
	if errors.Is(err, kafka.ErrGroupAuthorization) || errors.Is(err, kafka.ErrTopicAuthorization) || errors.Is(err, kafka.ErrClusterAuthorization) {
		return Authorization
	}
	return Unanswered
}
