package follow

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kferry/kferry/shared/kafka"
)

// Warnings say what doesn't follow, and why: one for each cause, however many topics it is about.
func (l *Look) Warnings() []string {
	w := &warnings{topics: map[string][]string{}, texts: map[string]func(of string) string{}}
	if l.sources != nil {
		for _, topic := range l.topics {
			l.warnOfSettings(w, topic)
		}
	}
	l.warnOfRights(w)
	return w.all()
}

// warnings gathers topics by what is wrong with them.
type warnings struct {
	kinds  []string // in the order of their first topics
	topics map[string][]string
	texts  map[string]func(of string) string
}

// add notes a topic. text is asked of the first topic of its kind, with all of them in words.
func (w *warnings) add(kind, topic string, text func(of string) string) {
	if w.texts[kind] == nil {
		w.kinds, w.texts[kind] = append(w.kinds, kind), text
	}
	w.topics[kind] = append(w.topics[kind], topic)
}

func (w *warnings) all() (all []string) {
	for _, kind := range w.kinds {
		all = append(all, w.texts[kind](others(w.topics[kind])))
	}
	return all
}

// others names the first of some things, and counts the rest.
func others(names []string) string {
	first := fmt.Sprintf("%q", names[0])
	switch n := len(names) - 1; n {
	case 0:
		return first
	case 1:
		return first + " and 1 other"
	default:
		return fmt.Sprintf("%s and %d others", first, n)
	}
}

func (l *Look) warnOfSettings(w *warnings, topic string) {
	name := l.flow.Name()
	unread := func(cluster, of string, err error) {
		w.add("unread "+cluster, of, func(of string) string {
			if kafka.Denied(err) {
				return fmt.Sprintf("no right to read the settings of %s on %s: until then settings don't follow there: %v", of, cluster, err)
			}
			return fmt.Sprintf("%s can't tell the settings of %s, which therefore don't follow: %v", cluster, of, err)
		})
	}
	if err := l.sources[topic].Err; err != nil && !errors.Is(err, kafka.ErrUnknownTopic) {
		unread(l.flow.Source, topic, err)
		return
	}
	copyName := l.flow.RemoteTopic(topic)
	copied := l.copies[copyName]
	if copied.Err != nil {
		if !errors.Is(copied.Err, kafka.ErrUnknownTopic) {
			unread(l.flow.Target, copyName, copied.Err)
		}
		return
	}
	if source, ok := l.source(topic); ok {
		for _, key := range Unknown(l.flow, source, copied.Entries) {
			w.add("unknown "+key, topic, func(of string) string {
				return fmt.Sprintf("%s doesn't know the setting %s of %s: it is left out of %s; exclude it (config.properties.exclude) if that is meant", l.flow.Target, key, of, name)
			})
		}
	}
	refused := l.notes[topic].Refused
	for _, key := range sortedKeys(refused) {
		r := refused[key]
		w.add("refused "+key, copyName, func(of string) string {
			if r.Removed {
				return fmt.Sprintf("%s refuses to take %s away from %s: it is left there; it answered: %s", l.flow.Target, key, of, r.Why)
			}
			return fmt.Sprintf("%s refuses %s=%s for %s: it is left out; change it on %s or exclude it (config.properties.exclude); it answered: %s",
				l.flow.Target, key, r.Value, of, l.flow.Source, r.Why)
		})
	}
}

func (l *Look) warnOfRights(w *warnings) {
	switch {
	case errors.Is(l.NoRights, kafka.ErrClusterAuthorization):
		w.add("unread rights", "", func(string) string {
			return fmt.Sprintf("rights don't follow in %s: no right to read them; grant it, or switch it off (sync.topic.acls.enabled): %v", l.flow.Name(), l.NoRights)
		})
	case l.Disabled() || l.rights == nil && l.NoRights == nil:
	case l.NoRights != nil:
		w.add("unread rights", "", func(string) string {
			return fmt.Sprintf("rights don't follow in %s: %v", l.flow.Name(), l.NoRights)
		})
	default:
		l.warnOfPatterns(w)
	}
	if l.rights == nil {
		return
	}
	for _, topic := range l.topics {
		if denied := l.notes[topic].Denied; denied != "" {
			w.add("denied", l.flow.RemoteTopic(topic), func(of string) string {
				return fmt.Sprintf("rights on %s don't follow on %s; do what it takes, or switch it off (sync.topic.acls.enabled): %s", of, l.flow.Target, denied)
			})
		}
	}
}

// warnOfPatterns names the rights that reach selected topics and don't follow, since they name no single topic.
func (l *Look) warnOfPatterns(w *warnings) {
	for _, named := range sortedKeys(l.rights) {
		for _, a := range l.rights[named] {
			switch {
			case a.Pattern == kafka.ACLLiteral && named == anyTopic:
				w.add("any", a.Principal, func(of string) string {
					return fmt.Sprintf("rights on every topic of %s (%q), as %s has, are given to nobody on %s: there they would reach every topic; give them there, or name the topics on %s",
						l.flow.Source, anyTopic, of, l.flow.Target, l.flow.Source)
				})
			case a.Pattern == kafka.ACLPrefixed && slices.ContainsFunc(l.topics, func(topic string) bool { return strings.HasPrefix(topic, named) }):
				w.add("prefixed", named, func(of string) string {
					return fmt.Sprintf("rights on topics of %s by their prefix, as on %s, don't follow, as with MirrorMaker: give them on %s, or name the topics on %s",
						l.flow.Source, of, l.flow.Target, l.flow.Source)
				})
			}
		}
	}
	for _, kind := range []string{"any", "prefixed"} {
		w.topics[kind] = slices.Compact(w.topics[kind])
	}
}
