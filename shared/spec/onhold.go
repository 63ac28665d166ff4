package spec

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// An Action is what a flow does where a partition would be held until a person decides.
type Action string

// The actions.
const (
	ActionHold    Action = "hold"
	ActionSkip    Action = "skip"    // as a person's accept-gap
	ActionRestart Action = "restart" // as a person's restart
)

// OnHold holds the action for each reason that the input names.
type OnHold map[string]Action

// onHoldActions are the pairs that may be named. A foreign writer seldom writes once: to restart each time would never end.
var onHoldActions = map[string][]Action{
	"retention_gap":    {ActionHold, ActionSkip, ActionRestart},
	"source_recreated": {ActionHold, ActionSkip, ActionRestart},
	"source_truncated": {ActionHold, ActionSkip, ActionRestart},
	"target_recreated": {ActionHold, ActionSkip, ActionRestart},
	"target_truncated": {ActionHold, ActionSkip, ActionRestart},
	"foreign_writer":   {ActionHold, ActionSkip},
}

// OnHoldReasons are those that an action may be given for.
func OnHoldReasons() []string { return slices.Sorted(maps.Keys(onHoldActions)) }

// For is the action for a reason. What the source's retention deleted is gone either way, and more expires while a person is waited for.
func (o OnHold) For(reason string) Action {
	if action, named := o[reason]; named {
		return action
	}
	if reason == "retention_gap" {
		return ActionSkip
	}
	return ActionHold
}

func (o OnHold) String() string {
	var pairs []string
	for _, reason := range slices.Sorted(maps.Keys(o)) {
		pairs = append(pairs, reason+"="+string(o[reason]))
	}
	return strings.Join(pairs, ",")
}

// ParseOnHold reads reason=action,reason=action.
func ParseOnHold(text string) (OnHold, error) {
	actions := OnHold{}
	for pair := range strings.SplitSeq(text, ",") {
		reason, action, found := strings.Cut(strings.TrimSpace(pair), "=")
		if !found {
			return nil, fmt.Errorf("%q is no pair; give a reason and what to do, like retention_gap=hold, and commas between several", pair)
		}
		allowed, known := onHoldActions[reason]
		if !known {
			return nil, fmt.Errorf("no action can be set for %q%s; reasons are %s", reason, suggest(reason, OnHoldReasons()), strings.Join(OnHoldReasons(), ", "))
		}
		if !slices.Contains(allowed, Action(action)) {
			return nil, fmt.Errorf("%s can't be %q; give %s", reason, action, orList(allowed))
		}
		if before, twice := actions[reason]; twice && before != Action(action) {
			return nil, fmt.Errorf("%s is both %s and %s; give one of them", reason, before, action)
		}
		actions[reason] = Action(action)
	}
	return actions, nil
}

func orList[T ~string](actions []T) string {
	var words []string
	for _, a := range actions {
		words = append(words, string(a))
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
