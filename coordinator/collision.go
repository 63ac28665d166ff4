package coordinator

import (
	"slices"
	"strings"
	"sync"

	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// lanes knows which source topics lead into which target topics, for all flows together. Two that lead into one would need rules of
// their own about order and ownership, so all of them are held: which of them began would otherwise depend on who looked first.
// A flow whose source is unreachable keeps the topics it had.
type lanes struct {
	mu      sync.Mutex // guards what follows
	into    map[lane][]origin
	unheard []spec.Flow // whose topics are not known yet
}

// expect makes the others wait for a flow that is about to be looked at, see awaits.
func (l *lanes) expect(f spec.Flow) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unheard = append(l.unheard, f)
}

// awaits says whether a flow can't be planned yet: another one whose topics are not known keeps their names on the same target, or this one
// does, so one of its topics could turn out to lead where another leads. Names with the source's alias in front don't meet.
func (l *lanes) awaits(f spec.Flow) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.unheard, func(other spec.Flow) bool {
		return other.Target == f.Target && (keepsNames(f) || keepsNames(other))
	})
}

func keepsNames(f spec.Flow) bool {
	_, keeps := f.Policy.(mm2.IdentityPolicy)
	return keeps
}

// A lane is a topic on a target cluster.
type lane struct{ cluster, topic string }

// An origin is a topic that a flow selects.
type origin struct{ flow, topic string }

func (o origin) String() string { return o.topic + " of " + o.flow }

// set replaces the topics of a flow.
func (l *lanes) set(f spec.Flow, topics []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unheard = slices.DeleteFunc(l.unheard, func(other spec.Flow) bool { return other.Name() == f.Name() })
	for at, origins := range l.into {
		l.into[at] = slices.DeleteFunc(origins, func(o origin) bool { return o.flow == f.Name() })
		if len(l.into[at]) == 0 {
			delete(l.into, at)
		}
	}
	if l.into == nil {
		l.into = map[lane][]origin{}
	}
	if f.State == spec.Absent {
		return // it copies none of them
	}
	for _, topic := range topics {
		at := lane{f.Target, f.RemoteTopic(topic)}
		l.into[at] = append(l.into[at], origin{f.Name(), topic})
	}
}

// collisions names, for each topic of a flow that shares its target topic, all that lead there.
func (l *lanes) collisions(f spec.Flow) map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := map[string]string{}
	for _, origins := range l.into {
		if len(origins) < 2 {
			continue
		}
		for _, o := range origins {
			if o.flow == f.Name() {
				found[o.topic] = enumerate(origins)
			}
		}
	}
	return found
}

func enumerate(origins []origin) string {
	var names []string
	for _, o := range origins {
		names = append(names, o.String())
	}
	slices.Sort(names)
	return strings.Join(names, " and ")
}
