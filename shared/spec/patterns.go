package spec

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/dlclark/regexp2"

	"github.com/kferry/kferry/shared/mm2"
)

// Patterns is a list of Java regexes of which one must match a whole name. The zero value matches nothing.
type Patterns struct {
	text string
	fast *regexp.Regexp  // RE2, in linear time, wherever it can say the same
	slow *regexp2.Regexp // backtracking, for look-around and the like
	more *Patterns       // of which one may match instead
}

// matchTimeout ends a backtracking match that explodes. Names are short: an honest pattern takes microseconds.
const matchTimeout = time.Second

// ParsePatterns reads a comma-separated list. As in MirrorMaker 2 the parts are joined before they are compiled, and an empty
// list matches nothing.
func ParsePatterns(text string) (Patterns, error) {
	joined := join(text)
	if joined == "" {
		return Patterns{}, nil
	}
	return compileJava(joined)
}

// compileJava reads one regular expression.
func compileJava(pattern string) (Patterns, error) {
	parsed, groups, err := parseJava(pattern)
	if err != nil {
		return Patterns{}, fmt.Errorf("not a list of regular expressions as Java has them (%w); mend it", err)
	}
	text := func(look bool) string {
		var text strings.Builder
		text.WriteString(`\A`)
		parsed.write(&text, look, groups)
		text.WriteString(`\z`)
		return text.String()
	}
	if !parsed.needsLook() {
		if fast, err := regexp.Compile(text(false)); err == nil { // else it is too large
			return Patterns{text: pattern, fast: fast}, nil
		}
	}
	slow, err := regexp2.Compile(text(true), regexp2.None)
	if err != nil {
		return Patterns{}, fmt.Errorf("not a regular expression that can be used here (%w); simplify it", err)
	}
	slow.MatchTimeout = matchTimeout
	p := Patterns{text: pattern, slow: slow}
	return p, p.tryLong()
}

func join(text string) string {
	parts := strings.Split(text, ",")
	for i, part := range parts {
		parts[i] = strings.TrimSpace(part)
	}
	return strings.Join(parts, "|")
}

// or matches what one of both does.
func (p Patterns) or(q Patterns) Patterns {
	switch {
	case p.text == "" || p.text == q.text:
		return q
	case q.text == "":
		return p
	}
	p.text += "|" + q.text
	if p.more != nil {
		q = p.more.or(q)
	}
	p.more = &q // not compiled as one: groups that are referred to by number would be others
	return p
}

// tryLong refuses a pattern that takes for ever on long names, before a name does it.
func (p Patterns) tryLong() error {
	for _, letters := range []string{"a", "a.", "a-", "0"} {
		name := strings.Repeat(letters, mm2.MaxTopicName)[:mm2.MaxTopicName-1] + "_"
		if _, err := p.match(name); err != nil {
			return fmt.Errorf("takes more than %s for a long name; don't nest repetitions, like (a+)+", matchTimeout)
		}
	}
	return nil
}

// Match says whether one of the patterns matches the whole name.
func (p Patterns) Match(name string) bool {
	matched, err := p.match(name)
	return matched && err == nil
}

// match fails where a pattern takes too long, which ParsePatterns has tried to rule out.
func (p Patterns) match(name string) (bool, error) {
	matched, err := false, error(nil)
	switch {
	case p.fast != nil:
		matched = p.fast.MatchString(name)
	case p.slow != nil:
		matched, err = p.slow.MatchString(name)
	}
	if matched || err != nil || p.more == nil {
		return matched, err
	}
	return p.more.match(name)
}

// String is the patterns joined by "|".
func (p Patterns) String() string { return p.text }
