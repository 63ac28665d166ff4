package functions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/kferry/kferry/shared/follow"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

const (
	shownWithin = 3 * time.Second        // of a change, for all brokers to show it
	shownPause  = 200 * time.Millisecond // between two looks at that
)

// follower makes one copy like its source, see package follow.
type follower struct {
	flow           spec.Flow
	source, target *kafka.Cluster
	cursors        *lease.Cursors
	topic, copied  string // its names on the source and on the target
}

// Follow makes the settings of a topic's copy, and the rights on it, follow the topic: it compares both anew, writes what differs, and
// remembers what it has to. What the target refuses is left out and noted, and no error. It returns what it wrote.
func Follow(ctx context.Context, flow spec.Flow, source, target *kafka.Cluster, cursors *lease.Cursors, topic string) (follow.Change, error) {
	f := follower{flow, source, target, cursors, topic, flow.RemoteTopic(topic)}
	if there, err := f.there(ctx); err != nil || !there {
		return follow.Change{}, err
	}
	was, err := f.note(ctx)
	if err != nil {
		return follow.Change{}, err
	}
	change, err := f.compare(ctx, was.Afresh(), follow.Of(f.flow))
	if err != nil {
		return follow.Change{}, err
	}
	if err := f.settings(ctx, &change); err != nil {
		return follow.Change{}, err
	}
	// What was given, and is to be taken away one day, is on record before it is given.
	change.Note.Denied = was.Denied
	if err := f.remember(ctx, was, change.Note); err != nil {
		return change, err
	}
	before := change.Note
	if err := f.rights(ctx, &change); err != nil {
		return change, err
	}
	return change, cmp.Or(f.remember(ctx, before, change.Note), change.Unread)
}

// there says whether topic and copy exist. A copy outlives its topic, with everything that it has.
func (f follower) there(ctx context.Context) (bool, error) {
	if follow.Of(f.flow) == (follow.Subject{}) {
		return false, nil
	}
	_, err := f.source.Topic(ctx, f.topic)
	if err == nil {
		_, err = f.target.Topic(ctx, f.copied)
	}
	if errors.Is(err, kafka.ErrUnknownTopic) {
		return false, nil
	}
	return err == nil, err
}

func (f follower) note(ctx context.Context) (follow.Note, error) {
	if err := f.cursors.CheckLoaded(ctx); err != nil { // what was applied would be forgotten
		return follow.Note{}, err
	}
	notes, err := f.cursors.Notes(ctx)
	return follow.Notes(notes)[f.topic], err
}

func (f follower) remember(ctx context.Context, was, is follow.Note) error {
	if is.Equal(was) {
		return nil
	}
	return f.cursors.PutNote(ctx, follow.Key(f.topic), is)
}

func (f follower) compare(ctx context.Context, note follow.Note, what follow.Subject) (follow.Change, error) {
	look, err := follow.ReadOne(ctx, f.flow, f.source, f.target, f.topic, note, what)
	if err != nil {
		return follow.Change{}, fmt.Errorf("compare %q with its copy: %w", f.topic, err)
	}
	return look.Change(f.topic), nil
}

// settings changes those that differ, all at once or, where the target refuses that, each alone. What it refused is left out of the change.
func (f follower) settings(ctx context.Context, c *follow.Change) error {
	if len(c.Set)+len(c.Remove) == 0 {
		return nil
	}
	err := f.alter(ctx, c.Set, c.Remove)
	switch {
	case err == nil:
	case !refusal(err):
		return err
	case is(err, settingRefused...) && len(c.Set)+len(c.Remove) > 1:
		if err := f.oneByOne(ctx, c); err != nil {
			return err
		}
	default: // it would refuse each
		for _, key := range append(sorted(c.Set), c.Remove...) {
			refused(c, key, err.Error())
		}
	}
	return f.shown(ctx, c)
}

func (f follower) alter(ctx context.Context, set map[string]string, remove []string) error {
	return f.target.AlterConfigs(ctx, kafka.ConfigChange{Topic: f.copied, Set: set, Delete: remove})
}

// settingRefused are the answers that blame a setting, of which each may be meant.
var settingRefused = []error{kafka.ErrInvalidConfig, kafka.ErrPolicyViolation, kafka.ErrInvalidRequest}

// refusal says that asking again soon would not help.
func refusal(err error) bool {
	return is(err, settingRefused...) || denied(err) || is(err, kafka.ErrUnsupportedVersion)
}

func denied(err error) bool {
	return is(err, kafka.ErrTopicAuthorization, kafka.ErrClusterAuthorization)
}

func (f follower) oneByOne(ctx context.Context, c *follow.Change) error {
	for _, key := range append(sorted(c.Set), c.Remove...) {
		set, remove := map[string]string{}, []string(nil)
		if value, is := c.Set[key]; is {
			set[key] = value
		} else {
			remove = []string{key}
		}
		switch err := f.alter(ctx, set, remove); {
		case err == nil:
		case refusal(err):
			refused(c, key, err.Error())
		default:
			return err
		}
	}
	return nil
}

// refused takes a setting out of the change.
func refused(c *follow.Change, key, why string) {
	r := follow.Refusal{Value: c.Set[key], Why: why}
	if _, set := c.Set[key]; set {
		delete(c.Set, key)
		delete(c.Note.Settings, key)
	} else {
		r.Removed = true
		c.Remove = slices.DeleteFunc(c.Remove, func(k string) bool { return k == key })
	}
	c.Note.Refused[key] = r
}

// shown looks whether the target has the settings now that it was given. One that it took and does not show, or shows as another, would be
// written again and again. What the source has changed since is the next comparison's.
func (f follower) shown(ctx context.Context, c *follow.Change) error {
	for deadline := time.Now().Add(shownWithin); ; sleep(ctx, shownPause) {
		rest, err := f.compare(ctx, c.Note, follow.Subject{Settings: true})
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		missing := unshown(*c, rest)
		if len(missing) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			for _, key := range missing {
				refused(c, key, "it took the change and does not show it")
			}
			return nil
		}
	}
}

// unshown are the settings of a change that are still to be written, as they were.
func unshown(written, rest follow.Change) (keys []string) {
	for _, key := range sorted(rest.Set) {
		if value, is := written.Set[key]; is && value == rest.Set[key] {
			keys = append(keys, key)
		}
	}
	for _, key := range rest.Remove {
		if slices.Contains(written.Remove, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// rights gives and takes away those that differ.
func (f follower) rights(ctx context.Context, c *follow.Change) error {
	err := f.give(ctx, c.Give, c.Note.Denied)
	if err == nil {
		err = f.target.DeleteACLs(ctx, c.Revoke)
	}
	c.Note.Denied = ""
	if err != nil && (refusal(err) || is(err, kafka.ErrSecurityDisabled, errOwnRight)) {
		if c.Note.Denied = err.Error(); denied(err) {
			c.Note.Denied = "grant Alter on the cluster: " + c.Note.Denied
		}
		c.Give, c.Revoke = nil, nil
		return nil
	}
	return err
}

// errOwnRight is why rights are taken back at once. The first right on a topic may take everybody else's away
// (allow.everyone.if.no.acl.found), and what is denied on the source may be denied to kferry, which is not to write there.
var errOwnRight = errors.New("with them kferry itself could not write there any more: grant it Write on the topic, or take away on the source what denies it")

// give gives rights, unless they take away kferry's own. Where they did before, and there is still no other right on the copy, that is
// not tried again: each time everybody on the target would be shut out for a moment.
func (f follower) give(ctx context.Context, rights []kafka.ACL, denied string) error {
	if len(rights) == 0 {
		return nil
	}
	if denied == errOwnRight.Error() {
		if others, err := f.target.HasACLs(ctx, f.copied); err != nil || !others {
			return cmp.Or(err, errOwnRight)
		}
	}
	could, known, err := f.target.MayWrite(ctx, f.copied)
	if err != nil {
		return err
	}
	if err := f.target.CreateACLs(ctx, rights); err != nil || !could || !known {
		return err
	}
	if err := f.inForce(ctx, rights); err != nil {
		return err
	}
	can, known, err := f.target.MayWrite(ctx, f.copied)
	if err != nil || can || !known {
		return err
	}
	return errors.Join(errOwnRight, f.target.DeleteACLs(ctx, rights))
}

// inForce waits until the target shows the rights. That it takes long is no error of theirs.
func (f follower) inForce(ctx context.Context, rights []kafka.ACL) error {
	for deadline := time.Now().Add(shownWithin); time.Now().Before(deadline); sleep(ctx, shownPause) {
		shown, err := f.target.DescribeACLs(ctx, f.copied)
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		if !slices.ContainsFunc(rights, func(a kafka.ACL) bool { return !slices.Contains(shown, a) }) {
			return nil
		}
	}
	return nil
}

func sorted(settings map[string]string) []string { return slices.Sorted(maps.Keys(settings)) }
