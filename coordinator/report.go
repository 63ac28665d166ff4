package coordinator

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"
)

const columnGap = 2

func newTable(to io.Writer) *tabwriter.Writer {
	return tabwriter.NewWriter(to, 0, 0, columnGap, ' ', 0)
}

// Table writes the survey for people: a line for each partition, then what stands in the way and what to do about it.
func (s Survey) Table(to io.Writer) error {
	table := newTable(to)
	fmt.Fprintln(table, "FLOW\tSOURCE TOPIC\tTARGET TOPIC\tPARTITION\tSTATE\tCURSOR\tSOURCE END\tTARGET END\tLAG\tLAG SECONDS\tEXACTLY-ONCE\tOFFSETS")
	for _, f := range s.Flows {
		for _, p := range f.Partitions {
			fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s\t%s\t%d\t%s\t%d\t%s\t%s\t%s\n",
				f.Flow, p.SourceTopic, p.TargetTopic, p.Partition, label(p.State, p.Reason), number(p.Cursor), p.SourceEnd,
				number(p.TargetEnd), p.LagRecords, seconds(p.LagSeconds), p.exactlyOnce(), orDash(p.Offsets))
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if s.Queue != "" {
		fmt.Fprintf(to, "\nWithout leases and back-off: %s\n", s.Queue)
	}
	for _, f := range s.Flows {
		f.remarks(to)
	}
	return nil
}

// remarks tell what the table has no room for.
func (f FlowSurvey) remarks(to io.Writer) {
	if f.Error != "" {
		fmt.Fprintf(to, "\n%s can't be looked at: %s\n", f.Flow, f.Error)
	}
	for _, w := range f.Warnings {
		fmt.Fprintf(to, "\nwarning: %s\n", w)
	}
	for _, p := range f.Partitions {
		if p.Detail != "" {
			fmt.Fprintf(to, "\n%s %s-%d is %s\n", f.Flow, p.SourceTopic, p.Partition, p.remark())
		}
	}
}

// remark says what is in the way of a partition, and who has to do something.
func (p PartitionSurvey) remark() string {
	text := label(p.State, p.Reason)
	if p.Since != nil {
		text += " since " + p.Since.Format(time.DateTime)
	}
	if p.Reason != "" {
		text += "\n  " + p.Reason.Text()
	}
	text += "\n  " + p.Detail
	switch {
	case p.Decide:
		text += "\n  It stays so until you decide."
	case p.State == Held:
		text += "\n  It goes on by itself once the cause is gone; workers look again every 30 s."
	case p.Next != nil:
		text += "\n  Next try at " + p.Next.Format(time.TimeOnly) + "."
	}
	return text
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
