package spec

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/dlclark/regexp2"
)

// Patterns is a list of Java regexes of which one must match a whole name. The zero value matches nothing.
type Patterns struct {
	text string
	fast *regexp.Regexp  // RE2, in linear time, wherever it can say the same
	slow *regexp2.Regexp // backtracking, for look-around and the like
}

// matchTimeout ends a backtracking match that explodes.
const matchTimeout = 100 * time.Millisecond

// ParsePatterns reads a comma-separated list. As in MirrorMaker 2 the parts are joined before they are compiled, and an empty
// list matches nothing.
func ParsePatterns(text string) (Patterns, error) {
	var parts []string
	for part := range strings.SplitSeq(text, ",") {
		parts = append(parts, strings.TrimSpace(part))
	}
	joined := strings.Join(parts, "|")
	if joined == "" {
		return Patterns{}, nil
	}
	whole := `\A(?:` + joined + `)\z`
	if _, err := regexp.Compile(joined); err == nil {
		fast, err := regexp.Compile(whole)
		return Patterns{text: joined, fast: fast}, err
	}
	slow, err := regexp2.Compile(whole, regexp2.None)
	if err != nil {
		return Patterns{}, fmt.Errorf("not a regular expression: %w", err)
	}
	slow.MatchTimeout = matchTimeout
	return Patterns{text: joined, slow: slow}, nil
}

// Match says whether one of the patterns matches the whole name.
func (p Patterns) Match(name string) bool {
	switch {
	case p.fast != nil:
		return p.fast.MatchString(name)
	case p.slow != nil:
		matched, err := p.slow.MatchString(name)
		return matched && err == nil
	}
	return false
}

// String is the patterns joined by "|".
func (p Patterns) String() string { return p.text }
