package coordinator_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

var regenerate = flag.Bool("regenerate", false, "write the outcomes of testdata/plan anew; review them as a diff")

// TestPlan plays the scenarios of testdata/plan. A file tells one story: blocks of commands that change what is seen, each followed by
// ---- and the plan that comes of it. The commands are those of world.do.
func TestPlan(t *testing.T) {
	files, err := filepath.Glob("testdata/plan/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(text))
			if *regenerate {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(text) {
				t.Errorf("got:\n%s\nwant:\n%s", got, text)
			}
		})
	}
}

func play(t *testing.T, text string) string {
	w := newWorld()
	var out []string
	for block := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		commands, _, _ := strings.Cut(block, "----")
		for line := range strings.SplitSeq(strings.TrimSpace(commands), "\n") {
			if line != "" && !strings.HasPrefix(line, "#") {
				w.do(t, strings.Fields(line))
			}
		}
		out = append(out, strings.TrimSpace(commands)+"\n----\n"+w.plan())
	}
	return strings.Join(out, "\n")
}

// world is what is seen of the flow A->B.
type world struct{ coordinator.View }

var dawn = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newWorld() *world {
	return &world{coordinator.View{
		Flow: spec.Flow{
			Source: "A", Target: "B", State: spec.Running, Policy: mm2.DefaultPolicy{},
			Filters: []spec.Filter{{Topics: must(spec.ParsePatterns(".*"))}},
		},
		Target:  map[string]kafka.Topic{},
		Ends:    map[kafka.TopicPartition]kafka.Offset{},
		Starts:  map[kafka.TopicPartition]kafka.Offset{},
		Cursors: map[kafka.TopicPartition]lease.Cursor{},
		States:  map[lease.Task]lease.State{},
		Now:     dawn,
	}}
}

// do runs one command:
//
//	flow latest | paused | running | from=<alias> | on-hold=<reason>=<action>
//	source <topic> <id> [<start>..<end> | !]…   a topic with its partitions; ! does not answer
//	delete <topic>                              on the side that has it
//	target <topic> <id> <partitions>
//	cursor <partition> <offset> [<source id> <target id>] [hold=<reason>] [decision=<decision>]
//	state mirror|topics <partition|topic> [held=<reason>] next=<seconds>
//	collide <topic> <who>…
//	unlike <topic>                              its copy differs in settings or rights
//	wait <seconds>
func (w *world) do(t *testing.T, words []string) {
	t.Helper()
	switch args := words[1:]; words[0] {
	case "flow":
		w.change(args[0])
	case "source":
		w.source(t, args)
	case "delete":
		delete(w.Target, args[0])
		for i, topic := range w.Source {
			if topic.Name == args[0] {
				w.Source = append(w.Source[:i:i], w.Source[i+1:]...)
			}
		}
	case "target":
		w.Target[args[0]] = kafka.Topic{Name: args[0], ID: id(t, args[1]), Partitions: make([]kafka.Partition, number(t, args[2]))}
	case "cursor":
		w.cursor(t, args)
	case "state":
		w.state(t, args)
	case "collide":
		w.Collisions = map[string]string{args[0]: strings.Join(args[1:], " ")}
	case "unlike":
		w.Unlike = map[string]bool{args[0]: true}
	case "wait":
		w.Now = w.Now.Add(time.Duration(number(t, args[0])) * time.Second)
	default:
		t.Fatalf("no command %q", words[0])
	}
}

func (w *world) change(what string) {
	switch {
	case what == "latest":
		w.Flow.Start = spec.Latest
	case what == "paused", what == "running":
		if w.Flow.State = spec.Paused; what == "running" {
			w.Flow.State = spec.Running
		}
	case strings.HasPrefix(what, "on-hold="):
		w.Flow.OnHold = must(spec.ParseOnHold(strings.TrimPrefix(what, "on-hold=")))
	default:
		w.Flow.Source = strings.TrimPrefix(what, "from=")
	}
}

func (w *world) source(t *testing.T, args []string) {
	topic := kafka.Topic{Name: args[0], ID: id(t, args[1]), Partitions: make([]kafka.Partition, len(args)-2)}
	for i, span := range args[2:] {
		tp := kafka.TopicPartition{Topic: args[0], Partition: int32(i)}
		if span == "!" {
			w.Ends[tp] = kafka.Offset{Err: errors.New("no leader")}
			continue
		}
		start, end, _ := strings.Cut(span, "..")
		w.Starts[tp], w.Ends[tp] = kafka.Offset{Offset: number(t, start)}, kafka.Offset{Offset: number(t, end)}
	}
	w.do(t, []string{"delete", args[0]})
	w.Source = append(w.Source, topic)
}

func (w *world) cursor(t *testing.T, args []string) {
	c := lease.Cursor{Offset: number(t, args[1])}
	for i, arg := range args[2:] {
		if reason, is := strings.CutPrefix(arg, "hold="); is {
			c.Hold = lease.Hold{Reason: lease.Reason(reason), Detail: "as the cursor says", Since: w.Now}
		} else if decision, is := strings.CutPrefix(arg, "decision="); is {
			c.Decision = lease.Decision(decision)
		} else {
			*[]*string{&c.SourceTopicID, &c.TargetTopicID}[i] = id(t, arg).String()
		}
	}
	w.Cursors[partition(t, args[0])] = c
}

func (w *world) state(t *testing.T, args []string) {
	task := lease.Task{Kind: lease.Kind(args[0]), Flow: w.Flow.Name(), Topic: args[1], Partition: -1}
	if task.Kind == lease.KindMirror {
		tp := partition(t, args[1])
		task.Topic, task.Partition = tp.Topic, tp.Partition
	}
	s := lease.State{Reason: lease.ReasonError, Detail: "as the last run says", Since: w.Now}
	for _, arg := range args[2:] {
		switch key, value, _ := strings.Cut(arg, "="); key {
		case "held":
			s.Held, s.Reason = true, lease.Reason(value)
		case "next":
			s.Next = w.Now.Add(time.Duration(number(t, value)) * time.Second)
		}
	}
	w.States[task] = s
}

func (w *world) plan() string {
	plan := coordinator.Make(w.View)
	var out strings.Builder
	for _, task := range plan.Tasks {
		fmt.Fprintf(&out, "offer %s\n", task)
	}
	for _, p := range plan.Partitions {
		fmt.Fprintf(&out, "%s to %s: %s", p.Source(), p.Target, p.State)
		if p.Reason != "" {
			fmt.Fprintf(&out, " (%s)", p.Reason)
		}
		fmt.Fprintf(&out, ", at %d of %d", p.Offset, p.End)
		if p.Detail != "" {
			fmt.Fprintf(&out, "; %s", p.Detail)
		}
		if !p.Next.IsZero() {
			fmt.Fprintf(&out, "; next at %s", p.Next.Sub(dawn))
		}
		if p.Decision != "" {
			fmt.Fprintf(&out, "; decided: %s", p.Decision)
		}
		out.WriteByte('\n')
	}
	return out.String()
}

func partition(t *testing.T, text string) kafka.TopicPartition {
	at := strings.LastIndexByte(text, '-')
	return kafka.TopicPartition{Topic: text[:at], Partition: int32(number(t, text[at+1:]))}
}

func id(t *testing.T, text string) kafka.TopicID { return kafka.TopicID{15: byte(number(t, text))} }

func number(t *testing.T, text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
