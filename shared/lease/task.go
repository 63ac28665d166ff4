package lease

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// TaskVersion is the format of tasks that this kferry writes. A worker that claims a greater one hands it back.
const TaskVersion = 1

// mostText bounds each text of a task. A topic's name has 249 letters at most, an alias 100. What is longer has no state either, since its key
// would be too long for NATS.
const mostText = 1_000

// A Kind is what a task is about.
type Kind string

// The kinds of task.
const (
	KindMirror Kind = "mirror" // copy one partition
	KindTopics Kind = "topics" // create or grow a target topic, have its settings and rights follow
	KindGroups Kind = "groups" // translate the offsets of consumer groups
)

// A Task is one unit of work: a kind, a flow and a key. There is at most one message of each on the queue, see Subject.
type Task struct {
	Version int  `json:"version"` // 0 is written as TaskVersion
	Kind    Kind `json:"kind"`
	// Flow is the name of the flow, as in "A->B".
	Flow string `json:"flow"`
	// Topic is the name on the source.
	Topic string `json:"topic"`
	// Partition is -1 where the task is about a whole topic.
	Partition int32 `json:"partition"`
	// Digest is that of the flow the coordinator knows; a worker whose own differs hands the task back.
	Digest string `json:"digest,omitempty"`
	// Brief asks for a run that ends when it has caught up, and waits for no more.
	Brief bool `json:"brief,omitempty"`
	// Slot is the one, from 1, that the task takes of a flow that may have only so many leases at one time; 0 is none.
	Slot int `json:"slot,omitempty"`
}

// String is how people read a task: "mirror A->B orders-3".
func (t Task) String() string {
	switch {
	case t.Topic == "":
		return fmt.Sprintf("%s %s", t.Kind, t.Flow)
	case t.Partition < 0:
		return fmt.Sprintf("%s %s %s", t.Kind, t.Flow, t.Topic)
	}
	return fmt.Sprintf("%s %s %s-%d", t.Kind, t.Flow, t.Topic, t.Partition)
}

// Identity is what makes two offers the same: kind, flow and key.
func (t Task) Identity() Task {
	return Task{Kind: t.Kind, Flow: t.Flow, Topic: t.Topic, Partition: t.Partition}
}

// tokens are a task's identity as the end of a subject or key: <kind>.<flow>.<topic>.<partition>.
func (t Task) tokens() string {
	return strings.Join([]string{escape(string(t.Kind)), escape(t.Flow), escape(t.Topic), strconv.Itoa(int(t.Partition))}, ".")
}

// parseTokens is the inverse of tokens.
func parseTokens(s string) (Task, error) {
	parts := strings.Split(s, ".")
	if len(parts) != 4 {
		return Task{}, fmt.Errorf("task %q: %d tokens instead of 4", s, len(parts))
	}
	kind, err1 := unescape(parts[0])
	flow, err2 := unescape(parts[1])
	topic, err3 := unescape(parts[2])
	partition, err4 := strconv.ParseInt(parts[3], 10, 32)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return Task{}, fmt.Errorf("task %q: %w", s, err)
	}
	return Task{Kind: Kind(kind), Flow: flow, Topic: topic, Partition: int32(partition)}, nil
}

func (t Task) encode() []byte {
	if t.Version == 0 {
		t.Version = TaskVersion
	}
	return encodeJSON(t)
}

func decodeTask(data []byte) (Task, error) {
	var t Task
	if err := json.Unmarshal(data, &t); err != nil {
		return Task{}, fmt.Errorf("task %.200q: %w", data, err)
	}
	if max(len(t.Kind), len(t.Flow), len(t.Topic), len(t.Digest)) > mostText || t.Partition < -1 || t.Slot < 0 {
		return Task{}, fmt.Errorf("task %.200q: no flow has such a topic", data)
	}
	return t, nil
}

// escape makes one token of any text, for subjects and for keys of a bucket, which allow the same few characters: letters,
// digits, - and _ stand for themselves, every other byte is = and two hexadecimal digits. No text at all is a single =.
func escape(s string) string {
	if s == "" {
		return "="
	}
	var b strings.Builder
	for i := range len(s) {
		if plain(s[i]) {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, "=%02X", s[i])
		}
	}
	return b.String()
}

func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

// unescape is the inverse of escape.
func unescape(token string) (string, error) {
	if token == "=" {
		return "", nil
	}
	var b strings.Builder
	for i := 0; i < len(token); i++ {
		if token[i] != '=' {
			b.WriteByte(token[i])
			continue
		}
		if i+2 >= len(token) {
			return "", fmt.Errorf("token %q ends inside an escaped byte", token)
		}
		c, err := strconv.ParseUint(token[i+1:i+3], 16, 8)
		if err != nil {
			return "", fmt.Errorf("token %q: %w", token, err)
		}
		b.WriteByte(byte(c))
		i += 2
	}
	return b.String(), nil
}
