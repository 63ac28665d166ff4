package follow

import (
	"cmp"
	"slices"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/spec"
)

// Right is the right on a topic's copy that follows from one on the topic; false where none does. The rules are MirrorMaker's: rights that
// name a topic literally, and of those neither the one to write, since only the mirror writes to copies, nor what comes with it in ALL, of
// which reading is left. Whatever is denied is denied there too.
func Right(f spec.Flow, a kafka.ACL) (kafka.ACL, bool) {
	if a.Pattern != kafka.ACLLiteral || a.Topic == anyTopic || !f.Selects(a.Topic) {
		return kafka.ACL{}, false
	}
	if a.Permission == kafka.ACLAllow {
		switch a.Operation {
		case kafka.ACLWrite:
			return kafka.ACL{}, false
		case kafka.ACLAll:
			a.Operation = kafka.ACLRead
		}
	}
	a.Topic = f.RemoteTopic(a.Topic)
	return a, true
}

// anyTopic, taken literally, stands for every topic.
const anyTopic = "*"

// Rights compares the rights on a topic with those on its copy.
func Rights(f spec.Flow, source, given []kafka.ACL, note Note) (c Change) {
	c.Note = note
	var wanted []kafka.ACL
	for _, a := range source {
		if right, follows := Right(f, a); follows && !slices.Contains(wanted, right) {
			wanted = append(wanted, right)
		}
	}
	for _, right := range wanted {
		if !slices.Contains(given, right) {
			c.Give = append(c.Give, right)
		}
	}
	slices.SortFunc(c.Give, order)
	if f.ACLs.Revoke {
		c.revoke(wanted, given, note)
	}
	if note.Denied != "" && len(c.Give)+len(c.Revoke) > 0 {
		return Change{Note: note}
	}
	c.Note.Denied = ""
	return c
}

// revoke takes away what kferry gave and the source no longer has. What it gives now is among what it will have given.
func (c *Change) revoke(wanted, given []kafka.ACL, note Note) {
	c.Note.Rights = nil
	for _, a := range note.Rights {
		switch {
		case slices.Contains(wanted, a):
			c.Note.Rights = append(c.Note.Rights, a)
		case slices.Contains(given, a):
			c.Revoke = append(c.Revoke, a)
		}
	}
	for _, a := range c.Give {
		if !slices.Contains(c.Note.Rights, a) {
			c.Note.Rights = append(c.Note.Rights, a)
		}
	}
	slices.SortFunc(c.Note.Rights, order)
}

func order(a, b kafka.ACL) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Principal, b.Principal), cmp.Compare(a.Host, b.Host),
		cmp.Compare(a.Operation, b.Operation), cmp.Compare(a.Permission, b.Permission))
}
