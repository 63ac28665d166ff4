package integration

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/kferry/kferry/integration/testbed"
)

// A report is what a run of the fault tests comes to: a line for each fault, in the order they began.
type report struct {
	mu   sync.Mutex // guards rows, which tests in parallel add
	rows []*row
}

// A row is one fault: how often it was brought about, what the oracle found afterwards, and how long the copy stood still. An
// installation outside of the report has none, which takes everything and keeps nothing.
type row struct {
	fault string

	mu             sync.Mutex // guards what follows
	times, records int
	found          testbed.Difference
	resumed        []time.Duration
	note           string
}

// row begins a line, or goes on with the one of that fault.
func (r *report) row(fault string) *row {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, known := range r.rows {
		if known.fault == fault {
			return known
		}
	}
	r.rows = append(r.rows, &row{fault: fault})
	return r.rows[len(r.rows)-1]
}

// happened counts the fault.
func (r *row) happened(times int) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.times += times
}

// resumedAfter notes how long it took until every partition concerned had moved again.
func (r *row) resumedAfter(d time.Duration) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resumed = append(r.resumed, d)
}

// compared adds what the oracle said.
func (r *row) compared(records int, d testbed.Difference) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records += records
	r.found.Lost += d.Lost
	r.found.Doubled += d.Doubled
	r.found.Alien += d.Alien
	r.found.Changed += d.Changed
	r.found.Reordered += d.Reordered
}

// says adds words to the line.
func (r *row) says(format string, args ...any) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note = fmt.Sprintf(format, args...)
}

// String is the table, for people.
func (r *report) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "FAULT\tTIMES\tRECORDS\tLOST\tDOUBLED\tREORDERED\tOTHER\tRESUMED, MEDIAN\tMAX\t")
	for _, at := range r.rows {
		at.line(table)
	}
	_ = table.Flush()
	return text.String()
}

func (r *row) line(table *tabwriter.Writer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	median, most := "-", "-"
	if n := len(r.resumed); n > 0 {
		slices.Sort(r.resumed)
		median, most = r.resumed[n/2].Round(10*time.Millisecond).String(), r.resumed[n-1].Round(10*time.Millisecond).String()
	}
	fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%s\n", r.fault, r.times, r.records,
		r.found.Lost, r.found.Doubled, r.found.Reordered, r.found.Alien+r.found.Changed, median, most, r.note)
}

// publish logs the table, and writes it where KFERRY_FAULTS_REPORT says.
func (r *report) publish(t *testing.T) {
	t.Helper()
	t.Logf("what became of the faults:\n%s", r)
	if file := os.Getenv("KFERRY_FAULTS_REPORT"); file != "" {
		if err := os.WriteFile(file, []byte(r.String()), 0o644); err != nil {
			t.Errorf("KFERRY_FAULTS_REPORT: %v", err)
		}
	}
}

// demand holds the time that a fault's partitions stood still against a bound.
func (r *row) demand(t *testing.T, most time.Duration) {
	t.Helper()
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.resumed) == 0 {
		t.Errorf("%s: nothing resumed", r.fault)
	} else if slowest := slices.Max(r.resumed); slowest > most {
		t.Errorf("%s: a partition stood still for %v, want at most %v", r.fault, slowest, most)
	}
}
