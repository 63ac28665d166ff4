package follow

import (
	"slices"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/spec"
)

// limits decide which records a topic takes. kferry widens them on the copies that it creates.
var limits = []string{
	"max.message.bytes", "message.timestamp.before.max.ms", "message.timestamp.after.max.ms", "message.timestamp.difference.max.ms",
}

// Follows says whether a setting is one that may follow at all.
func Follows(f spec.Flow, e kafka.ConfigEntry) bool {
	return !e.ReadOnly && !e.Sensitive && !f.ConfigExclude.Match(e.Name)
}

// wanted says whether the copy is to have the source's setting.
func wanted(f spec.Flow, e kafka.ConfigEntry) bool {
	return (e.Source == kafka.SourceTopic || f.Configs.SourceDefaults && e.Value != "") && Follows(f, e)
}

// Settings compares a topic's settings with those of its copy.
func Settings(f spec.Flow, source, copied []kafka.ConfigEntry, note Note) (c Change) {
	c.Set, c.Note = map[string]string{}, note
	c.Note.Settings, c.Note.Refused = map[string]string{}, map[string]Refusal{}
	there, here := byName(copied), byName(source)
	for _, e := range source {
		if has, known := there[e.Name]; known && wanted(f, e) {
			c.setting(e, has, note)
		}
	}
	for _, has := range copied {
		if e := here[has.Name]; has.Source == kafka.SourceTopic && Follows(f, has) && !wanted(f, e) {
			c.leftover(f, has, e, note)
		}
	}
	slices.Sort(c.Remove)
	return c
}

// setting is about one that the copy is to have.
func (c *Change) setting(e, has kafka.ConfigEntry, note Note) {
	explicit := has.Source == kafka.SourceTopic
	refusal, refused := note.Refused[e.Name]
	switch {
	case has.Value == e.Value && explicit:
		c.Note.Settings[e.Name] = e.Value
	case has.Value == e.Value && e.Source != kafka.SourceTopic: // both have it from their brokers
	case refused && !refusal.Removed && refusal.Value == e.Value:
		c.Note.Refused[e.Name] = refusal
	default:
		c.Set[e.Name], c.Note.Settings[e.Name] = e.Value, e.Value
	}
}

// leftover is about one that the copy has and its source hasn't (any more). What differs from what the copy once had from its source is
// somebody's own.
func (c *Change) leftover(f spec.Flow, has, e kafka.ConfigEntry, note Note) {
	was, ours := note.Settings[has.Name]
	ours = ours && was == has.Value
	known, limit := e.Name != "", slices.Contains(limits, has.Name)
	refusal, refused := note.Refused[has.Name]
	switch {
	case ours && known && limit: // without it the target's default would hold, which may be narrower than the source's
		if has.Value != e.Value {
			c.Set[has.Name] = e.Value
		}
	case !ours && (!known || f.Configs.Overrides || limit):
	case refused && refusal.Removed:
		c.Note.Refused[has.Name] = refusal
		if ours {
			c.Note.Settings[has.Name] = was
		}
	default:
		c.Remove = append(c.Remove, has.Name)
	}
}

// Unknown are the settings that somebody gave the source's topic and that the target doesn't know.
func Unknown(f spec.Flow, source, copied []kafka.ConfigEntry) (keys []string) {
	there := byName(copied)
	for _, e := range source {
		if _, known := there[e.Name]; !known && e.Source == kafka.SourceTopic && Follows(f, e) {
			keys = append(keys, e.Name)
		}
	}
	return keys
}

func byName(entries []kafka.ConfigEntry) map[string]kafka.ConfigEntry {
	all := make(map[string]kafka.ConfigEntry, len(entries))
	for _, e := range entries {
		all[e.Name] = e
	}
	return all
}
