package cli

import (
	"fmt"
	"io"
	"log/slog"
	"time"
)

// silent is the log of a process that tells its story in another way.
var silent = slog.New(slog.DiscardHandler)

// Escape codes, for terminals alone.
const (
	bold  = "\x1b[1m"
	red   = "\x1b[31m"
	green = "\x1b[32m"
	plain = "\x1b[0m"
)

// A stage is where the demo tells what happens.
type stage struct {
	to      io.Writer
	colours bool
	began   time.Time // of the first report; zero before
}

func newStage(p Process) *stage {
	return &stage{to: p.Out, colours: p.colours(newScreen(p.Out))}
}

// title begins a part.
func (s *stage) title(text string) { fmt.Fprintf(s.to, "\n%s\n", s.paint(bold, text)) }

// say is a line of a part.
func (s *stage) say(format string, args ...any) { fmt.Fprintf(s.to, "         "+format+"\n", args...) }

// event is something that happens.
func (s *stage) event(format string, args ...any) {
	fmt.Fprintf(s.to, "  %4.1f s  %s\n", s.clock().Seconds(), s.paint(bold, fmt.Sprintf(format, args...)))
}

// report is how far things are.
func (s *stage) report(written, copied int64) {
	fmt.Fprintf(s.to, "  %4.1f s  %8s records written, %8s copied, %6s to go\n",
		s.clock().Seconds(), count(written), count(copied), count(max(0, written-copied)))
}

// clock is the time since it was first asked.
func (s *stage) clock() time.Duration {
	if s.began.IsZero() {
		s.began = time.Now()
	}
	return time.Since(s.began)
}

// verdict ends the demo.
func (s *stage) verdict(exact bool) error {
	if !exact {
		fmt.Fprintf(s.to, "\n%s The copies differ from their sources.\n", s.paint(red, "NOT EXACT."))
		return errSaid
	}
	fmt.Fprintf(s.to, "\n%s Nothing lost, nothing doubled, nothing reordered, although a worker died on the way.\n", s.paint(green, "EXACT."))
	fmt.Fprintln(s.to, "With clusters of your own: README.md, \"The first mirror\".")
	return nil
}

func (s *stage) paint(colour, text string) string {
	if !s.colours {
		return text
	}
	return colour + text + plain
}
