// Package follow compares a topic with its copy in what is no record: settings and rights (ACLs). The coordinator asks it what differs,
// a worker what to do about it; so the two can't disagree.
//
// What is decided here, and where MirrorMaker 2 decides otherwise:
//   - Reads decide, and only what differs is written: a look over an installation at rest writes nothing. MirrorMaker writes everything anew
//     each time.
//   - A setting follows if somebody gave it to the source's topic. What the source's brokers say by default stays with its brokers, also
//     where it was set while they ran: MirrorMaker makes topic settings of those. Where the input asks for the source's defaults
//     (use.defaults.from) all of them follow, those of a broker's properties file too, which MirrorMaker leaves out.
//   - It is a comparison of three: source, copy, and what the copy had from its source when they were last compared (Note). Only thus a
//     setting that was removed on the source is told from one that somebody gave the copy alone. The first is removed, the second stays
//     unless the input says otherwise (Overrides). MirrorMaker removes both.
//   - A setting that the target doesn't know, or refuses, is left out, alone, and named. MirrorMaker's whole topic waits for it.
//   - The limits of what a topic takes (max.message.bytes and those of timestamps), which kferry widens on the copies that it creates, are
//     never removed: what the target's brokers allow by default may be less than what the source's do. One that was removed on the source
//     becomes what holds there.
//   - Rights go from topic to copy by MirrorMaker's rules (Right), and only where source topic and copy exist. What is given on every topic,
//     "*", is not given on the target, where MirrorMaker under the identity policy lets its holders read everything.
//   - A right that is gone on the source is taken away, where the input asks for it (Revoke), if kferry gave it; somebody else's never is.
package follow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// A Note is what is remembered of a topic and its copy, beside the cursors on the target. It is written when it changes; a topic without
// settings of its own, and without rights to take away, has none.
type Note struct {
	// Settings are those that the copy has from its source.
	Settings map[string]string `json:"settings,omitempty"`
	// Refused are the settings that the target took no notice of, by key.
	Refused map[string]Refusal `json:"refused,omitempty"`
	// Rights are those that kferry gave, as far as they are to be taken away one day.
	Rights []kafka.ACL `json:"rights,omitempty"`
	// Denied is why the target changed no rights.
	Denied string `json:"denied,omitempty"`
}

// A Refusal is what a target answered.
type Refusal struct {
	Value   string `json:"value"`             // that it was asked to set
	Removed bool   `json:"removed,omitempty"` // it was to remove the setting instead
	Why     string `json:"why"`
}

const noteKind = "follow"

// Key is the key of a source topic's Note.
func Key(topic string) lease.NoteKey {
	return lease.NoteKey{Kind: noteKind, Topic: topic, Partition: -1, Offset: -1}
}

// Notes are those among a flow's notes, by source topic. What can't be read was written by another kferry.
func Notes(all map[lease.NoteKey]lease.Note) map[string]Note {
	notes := map[string]Note{}
	for key, kept := range all {
		var n Note
		if key == Key(key.Topic) && json.Unmarshal(kept.Value, &n) == nil {
			notes[key.Topic] = n
		}
	}
	return notes
}

// Equal says that there is nothing to write.
func (n Note) Equal(m Note) bool {
	return maps.Equal(n.Settings, m.Settings) && maps.Equal(n.Refused, m.Refused) && slices.Equal(n.Rights, m.Rights) && n.Denied == m.Denied
}

// Afresh is the note of a topic whose refusals are to be tried again.
func (n Note) Afresh() Note {
	n.Refused, n.Denied = nil, ""
	return n
}

// A Change is what makes a copy like its source.
type Change struct {
	Set    map[string]string
	Remove []string // settings
	Give   []kafka.ACL
	Revoke []kafka.ACL
	Note   Note // what is to be remembered then
	// Unread is a right that is lacking to compare all of it.
	Unread error
}

// Writes says whether anything is to be written to the copy.
func (c Change) Writes() bool { return len(c.Set)+len(c.Remove)+len(c.Give)+len(c.Revoke) > 0 }

// A Subject is what is compared.
type Subject struct{ Settings, Rights bool }

// Of is everything that the flow has follow.
func Of(f spec.Flow) Subject { return Subject{f.Configs.Enabled, f.ACLs.Enabled} }

// A Look is what both clusters say, at one moment, of topics and their copies.
type Look struct {
	flow            spec.Flow
	topics          []string
	sources, copies map[string]kafka.TopicConfig // each by its own name; nil where settings are no subject
	rights, given   map[string][]kafka.ACL       // likewise; nil where rights are no subject, or can't be
	notes           map[string]Note
	// NoRights is why rights can't be compared: nil, ErrSecurityDisabled where one of the clusters has none, or another error.
	NoRights error
}

// Read asks both clusters about some topics of the source, all of which have a copy. It takes one request of each kind to each cluster for
// every 500 topics. Rights that can't be read are no error, see NoRights.
func Read(ctx context.Context, f spec.Flow, source, target *kafka.Cluster, topics []string, notes map[string]Note, what Subject) (Look, error) {
	l := Look{flow: f, topics: topics, notes: notes}
	return l, l.read(ctx, source, target, what, "")
}

// ReadOne is Read for one topic, of which it says everything but the rights by other names than its own.
func ReadOne(ctx context.Context, f spec.Flow, source, target *kafka.Cluster, topic string, note Note, what Subject) (Look, error) {
	l := Look{flow: f, topics: []string{topic}, notes: map[string]Note{topic: note}}
	return l, l.read(ctx, source, target, what, topic)
}

func (l *Look) read(ctx context.Context, source, target *kafka.Cluster, what Subject, alone string) error {
	if what.Settings {
		if err := l.readSettings(ctx, source, target); err != nil {
			return err
		}
	}
	if what.Rights {
		l.readRights(ctx, source, target, alone)
	}
	return nil
}

func (l *Look) readSettings(ctx context.Context, source, target *kafka.Cluster) (err error) {
	if l.sources, err = source.Configs(ctx, l.topics); err != nil {
		return fmt.Errorf("source: %w", err)
	}
	ask := map[string][]string{}
	for _, topic := range l.topics {
		if keys, any := l.asked(topic); any {
			ask[l.flow.RemoteTopic(topic)] = keys
		}
	}
	if l.copies, err = target.ConfigsOf(ctx, ask); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	return nil
}

// asked are the keys that a copy is asked for, nil for all of them; false where its settings don't matter. Most topics have no settings of
// their own: nothing is asked about their copies.
func (l *Look) asked(topic string) (keys []string, any bool) {
	source, ok := l.source(topic)
	if !ok || l.flow.Configs.SourceDefaults || !l.flow.Configs.Overrides {
		return nil, ok
	}
	for _, e := range source {
		if e.Source == kafka.SourceTopic {
			keys = append(keys, e.Name)
		}
	}
	for key := range l.notes[topic].Settings {
		if !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys, len(keys) > 0
}

// source is what the source said of a topic's settings. An answer without any is none: it would read as if all had been removed.
func (l *Look) source(topic string) ([]kafka.ConfigEntry, bool) {
	c := l.sources[topic]
	return c.Entries, c.Err == nil && len(c.Entries) > 0
}

func (l *Look) readRights(ctx context.Context, source, target *kafka.Cluster, alone string) {
	copied := ""
	if alone != "" {
		copied = l.flow.RemoteTopic(alone)
	}
	if l.rights, l.NoRights = byTopic(ctx, source, alone); l.NoRights == nil {
		l.given, l.NoRights = byTopic(ctx, target, copied)
	}
}

func byTopic(ctx context.Context, c *kafka.Cluster, topic string) (map[string][]kafka.ACL, error) {
	acls, err := c.DescribeACLs(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Alias(), err)
	}
	all := map[string][]kafka.ACL{}
	for _, a := range acls {
		all[a.Topic] = append(all[a.Topic], a)
	}
	return all, nil
}

// unread is the first right that was lacking to look at a topic and its copy.
func (l *Look) unread(topic string) error {
	for _, err := range []error{l.sources[topic].Err, l.copies[l.flow.RemoteTopic(topic)].Err, l.NoRights} {
		if kafka.Denied(err) {
			return err
		}
	}
	return nil
}

// Change is what makes a topic's copy like its source. What was refused is not tried again as long as the note says so.
func (l *Look) Change(topic string) (c Change) {
	c.Note = l.notes[topic]
	source, told := l.source(topic)
	if copied, comparable := l.copied(topic); told && comparable {
		c = Settings(l.flow, source, copied, c.Note)
	}
	if l.rights != nil && l.NoRights == nil {
		rights := Rights(l.flow, l.rights[topic], l.given[l.flow.RemoteTopic(topic)], c.Note)
		c.Give, c.Revoke, c.Note = rights.Give, rights.Revoke, rights.Note
	}
	c.Unread = l.unread(topic)
	return c
}

// copied is what the target said of the copy's settings, empty where it was not asked; false where that can't be compared: the copy may be
// gone by now.
func (l *Look) copied(topic string) ([]kafka.ConfigEntry, bool) {
	if _, asked := l.asked(topic); !asked {
		return nil, true
	}
	c, answered := l.copies[l.flow.RemoteTopic(topic)]
	return c.Entries, answered && c.Err == nil
}

// Differ are the topics about which something is to be done, or to be remembered.
func (l *Look) Differ() (topics []string) {
	for _, topic := range l.topics {
		if c := l.Change(topic); c.Writes() || !c.Note.Equal(l.notes[topic]) {
			topics = append(topics, topic)
		}
	}
	return topics
}

// Disabled says that one of the clusters has no authorizer.
func (l *Look) Disabled() bool { return errors.Is(l.NoRights, kafka.ErrSecurityDisabled) }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
