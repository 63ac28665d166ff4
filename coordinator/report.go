package coordinator

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

const columnGap = 2

func newTable(to io.Writer) *tabwriter.Writer {
	return tabwriter.NewWriter(to, 0, 0, columnGap, ' ', 0)
}

// Table writes the survey for people: a line for each partition, then what stands in the way and what to do about it.
func (s Survey) Table(to io.Writer) error {
	var text bytes.Buffer
	if err := s.table(&text); err != nil {
		return err
	}
	for line := range strings.Lines(text.String()) {
		marked := strings.Contains(line, urgent)
		line = strings.ReplaceAll(line, urgent, "")
		if marked && s.Colours {
			line = red + strings.TrimSuffix(line, "\n") + plain + "\n"
		}
		if _, err := io.WriteString(to, line); err != nil {
			return err
		}
	}
	return nil
}

// urgent ends a line that is to be red. It stands where no column has to be aligned.
const urgent = "\x00"

// Escape codes, for terminals alone.
const (
	red   = "\x1b[31m"
	plain = "\x1b[0m"
)

func (s Survey) table(to io.Writer) error {
	table := newTable(to)
	fmt.Fprintln(table, "FLOW\tSOURCE TOPIC\tTARGET TOPIC\tPARTITION\tSTATE\tCURSOR\tSOURCE END\tTARGET END\tLAG\tLAG SECONDS\tEXACTLY-ONCE\tOFFSETS")
	for _, f := range s.Flows {
		for _, p := range f.Partitions {
			fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s%s\n",
				f.Flow, p.SourceTopic, p.TargetTopic, p.Partition, p.label(), number(p.Cursor), orUnknown(p.SourceEnd),
				number(p.TargetEnd), orUnknown(p.LagRecords), seconds(p.LagSeconds), p.exactlyOnce(), orDash(p.Offsets), p.mark())
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if s.Queue != "" {
		fmt.Fprintf(to, "\nNot shown are failures and back-off, which only the queue knows: %s\n", s.Queue)
	}
	if s.Scale != nil {
		fmt.Fprintf(to, "\n%s\n", s.Scale)
	}
	for _, f := range s.Flows {
		f.remarks(to, s.Flags)
	}
	return nil
}

// label is the state, and whether there are gaps.
func (p PartitionSurvey) label() string {
	text := label(p.State, p.Reason)
	if p.Gaps > 0 {
		text += ", " + plural(p.Gaps, "gap")
	}
	return text
}

func (p PartitionSurvey) mark() string {
	if p.Decide || p.Gaps > 0 {
		return urgent
	}
	return ""
}

// remarks tell what the table has no room for.
func (f FlowSurvey) remarks(to io.Writer, flags string) {
	if f.Error != "" {
		fmt.Fprintf(to, "\n%s can't be looked at: %s\n", f.Flow, f.Error)
	}
	for _, w := range f.Warnings {
		fmt.Fprintf(to, "\nwarning: %s\n", w)
	}
	switch {
	case f.Paused:
		fmt.Fprintf(to, "\n%s is paused: nothing of it is copied until \"kferry unpause%s '%[1]s'\"\n", f.Flow, flags)
	case f.State == spec.Absent:
		fmt.Fprintf(to, "\n%s copies no topics: its input has no source connector\n", f.Flow)
	case f.State != spec.Running:
		fmt.Fprintf(to, "\n%s is %s by its configuration\n", f.Flow, f.State)
	}
	for _, l := range f.Limits {
		fmt.Fprintf(to, "\n%s is held to a rate: %s, %s (%s)\n", f.Flow, l.Of(), l.Rate(), l.From())
	}
	for _, r := range f.trouble() {
		fmt.Fprintf(to, "\n%s %s\n", f.Flow, r)
		if r.Decide {
			r.choices(to, f.Flow, flags)
		}
	}
	f.openGaps(to, flags)
}

// choices are the commands that decide.
func (r *remark) choices(to io.Writer, flow, flags string) {
	command := fmt.Sprintf("kferry resume%s '%s' --topic %s", flags, flow, r.SourceTopic)
	if len(r.partitions) == 1 {
		command += fmt.Sprintf(" --partition %d", r.Partition)
	}
	table := newTable(to)
	fmt.Fprintf(table, "    %s --accept-gap\t%s\n", command, r.Reason.Accept())
	fmt.Fprintf(table, "    %s --restart\tcopies again from where the flow starts, behind all that is there\n", command)
	if len(r.partitions) == 1 {
		fmt.Fprintf(table, "    %s --from OFFSET\tgoes on at an offset of the source\n", command)
	}
	_ = table.Flush() // into memory
}

// openGaps tells of the gaps that nobody has acknowledged, topic by topic.
func (f FlowSurvey) openGaps(to io.Writer, flags string) {
	for i := 0; i < len(f.Gaps); {
		topic, first := f.Gaps[i].Topic, i
		for i < len(f.Gaps) && f.Gaps[i].Topic == topic {
			i++
		}
		all := f.Gaps[first:i]
		fmt.Fprintf(to, "\n%s %s: %s that nobody has acknowledged%s\n", f.Flow, topic, plural(len(all), "gap"), urgent)
		for _, g := range all[:min(maxDetails, len(all))] {
			fmt.Fprintf(to, "  %s-%d: %s (%s; %s by %s at %s)%s\n", topic, g.Partition, g, g.Reason, g.Decision, g.By, g.At.Format(time.DateTime), urgent)
			if !g.Before.IsZero() && !g.After.IsZero() {
				fmt.Fprintf(to, "    between a record of %s and one of %s\n", g.Before.Format(time.DateTime), g.After.Format(time.DateTime))
			}
		}
		if more := len(all) - maxDetails; more > 0 {
			fmt.Fprintf(to, "  and %s\n", plural(more, "more gap"))
		}
		fmt.Fprintf(to, "  Once that is known:\n    kferry gaps%s '%s' --acknowledge --topic %s\n", flags, f.Flow, topic)
	}
}

// maxDetails bounds what is said of the partitions of one topic that are in the same trouble.
const maxDetails = 3

// A remark is about the partitions of one topic that are in the same state for the same reason and go on by the same decision.
type remark struct {
	PartitionSurvey // the first of them
	partitions      []int32
	details         []string // that differ
}

// trouble gathers the remarks, in the order of the partitions. What is the whole flow's trouble is told already.
func (f FlowSurvey) trouble() (all []*remark) {
	type kind struct {
		topic string
		State
		lease.Reason
		lease.Decision
	}
	known := map[kind]*remark{}
	for _, p := range f.Partitions {
		if p.Detail == "" || p.Detail == f.Error {
			continue
		}
		k := kind{p.SourceTopic, p.State, p.Reason, p.Decision}
		if known[k] == nil {
			known[k] = &remark{PartitionSurvey: p}
			all = append(all, known[k])
		}
		known[k].add(p)
	}
	return all
}

func (r *remark) add(p PartitionSurvey) {
	r.partitions = append(r.partitions, p.Partition)
	if !slices.Contains(r.details, p.Detail) {
		r.details = append(r.details, p.Detail)
	}
}

// String says what is in the way, and who has to do something.
func (r *remark) String() string {
	text := fmt.Sprintf("%s-%d: ", r.SourceTopic, r.Partition)
	if len(r.partitions) > 1 {
		text = fmt.Sprintf("%s [%s]: ", r.SourceTopic, spans(r.partitions))
	}
	text += label(r.State, r.Reason)
	if r.State == Copying && r.Since != nil {
		text += " again, after failures"
	}
	if r.Since != nil {
		text += " since " + r.Since.Format(time.DateTime)
	}
	if r.Reason != "" {
		text += "\n  " + r.Reason.Text()
	}
	for _, detail := range r.details[:min(maxDetails, len(r.details))] {
		text += "\n  " + detail
	}
	if more := len(r.details) - maxDetails; more > 0 {
		text += fmt.Sprintf("\n  and so on for %s", plural(more, "more partition"))
	}
	switch {
	case r.Decide:
		text += "\n  It stays so until you decide, with one of:" + urgent
	case r.State == Held && r.Decision != "":
		text += fmt.Sprintf("\n  It goes on by decision (%s) when a worker looks next.", r.Decision)
	case r.State == Held:
		text += "\n  It goes on by itself once the cause is gone; workers look again every 30 s."
	case r.Decision != "":
		text += fmt.Sprintf("\n  It goes on by decision (%s) once its target partition is created.", r.Decision)
	}
	if r.State != Held && r.Next != nil {
		text += "\n  Next try at " + r.Next.Format(time.TimeOnly) + "."
	}
	return text
}

// spans writes 0 1 2 5 as "0-2, 5".
func spans(sorted []int32) string {
	var parts []string
	for i := 0; i < len(sorted); {
		first := i
		for i++; i < len(sorted) && sorted[i] == sorted[i-1]+1; {
			i++
		}
		part := fmt.Sprint(sorted[first])
		if last := sorted[i-1]; last > sorted[first] {
			part += fmt.Sprintf("-%d", last)
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

func (p PartitionSurvey) exactlyOnce() string {
	switch {
	case p.ExactlyOnce == nil:
		return "-"
	case *p.ExactlyOnce:
		return "yes"
	}
	return "no (" + p.WhyNot + ")"
}

// Table writes the preview for people.
func (p Preview) Table(to io.Writer) error {
	table := newTable(to)
	fmt.Fprintln(table, "FLOW\tSOURCE TOPIC\tTARGET TOPIC\tPARTITIONS\tBYTES\tCREATES\tPROBLEM")
	for _, f := range p.Flows {
		for _, t := range f.Topics {
			fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s\t%s\t%s\n",
				f.Flow, t.SourceTopic, t.TargetTopic, t.Partitions, number(t.Bytes), orDash(t.Creates()), orDash(t.Problem))
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, f := range p.Flows {
		if f.Creates != "" {
			fmt.Fprintf(to, "\n%s keeps its cursors on %s in %q, which would be created\n", f.Flow, f.Target, f.Creates)
		}
		if f.Error != "" {
			fmt.Fprintf(to, "\n%s can't be looked at: %s\n", f.Flow, f.Error)
		}
		for _, w := range f.Warnings {
			fmt.Fprintf(to, "\nwarning: %s\n", w)
		}
	}
	return nil
}

func number(n *int64) string {
	if n == nil {
		return "-"
	}
	return strconv.FormatInt(*n, 10)
}

// orUnknown is a number that there is, known or not.
func orUnknown(n *int64) string {
	if n == nil {
		return "?"
	}
	return number(n)
}

func seconds(s *float64) string {
	if s == nil {
		return "?"
	}
	return strconv.FormatFloat(*s, 'f', 0, 64)
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
