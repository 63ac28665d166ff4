package cli

import (
	"bytes"
	"io"
	"sync"
)

// clearLine takes the cursor to the line's start and wipes what is there.
const clearLine = "\r\x1b[K"

// A screen is where people read logs, with a line at the bottom that changes in place.
type screen struct {
	terminal bool

	mu   sync.Mutex // guards the fields below
	to   io.Writer
	line string
}

func newScreen(to io.Writer) *screen { return &screen{terminal: terminal(to), to: to} }

// Write puts whole lines above the one at the bottom.
func (s *screen) Write(text []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line == "" {
		return s.to.Write(text)
	}
	// One write, so that nothing comes between.
	all := bytes.Join([][]byte{[]byte(clearLine), text, []byte(s.line)}, nil)
	if _, err := s.to.Write(all); err != nil {
		return 0, err
	}
	return len(text), nil
}

// show puts a line at the bottom, or takes it away.
func (s *screen) show(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if line == s.line {
		return
	}
	s.line = line
	io.WriteString(s.to, clearLine+line)
}
