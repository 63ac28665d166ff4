package spec

import (
	"errors"
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
func compileJava(joined string) (Patterns, error) {
	if err := checkJava(joined); err != nil {
		return Patterns{}, err
	}
	// The list is compiled by itself first: "a)|(b" would only be a regex between the brackets that make it match whole names.
	if _, err := regexp.Compile(joined); err != nil {
		return parseSlow(joined)
	}
	fast, err := regexp.Compile(whole(joined))
	if err != nil {
		return Patterns{}, fmt.Errorf("not a list of regular expressions (%w); mend it", err)
	}
	return Patterns{text: joined, fast: fast}, nil
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

func whole(pattern string) string { return `\A(?:` + pattern + `)\z` }

func parseSlow(joined string) (Patterns, error) {
	plain := escaped.ReplaceAllStringFunc(joined, plainUnderscore)
	if _, err := regexp2.Compile(plain, regexp2.None); err != nil {
		return Patterns{}, fmt.Errorf("not a list of regular expressions (%w); mend it, and mind that a comma ends an expression", err)
	}
	slow, err := regexp2.Compile(whole(plain), regexp2.None)
	if err != nil {
		return Patterns{}, fmt.Errorf("not a list of regular expressions (%w); mend it", err)
	}
	slow.MatchTimeout = matchTimeout
	p := Patterns{text: joined, slow: slow}
	return p, p.tryLong()
}

var escaped = regexp.MustCompile(`\\.`)

// plainUnderscore takes the backslash from "\_": Java and RE2 pass over it, the fallback stops at it.
func plainUnderscore(escape string) string {
	if escape == `\_` {
		return "_"
	}
	return escape
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

// checkJava refuses what Java reads in another way than RE2 and the fallback do, since they would take it for something else
// without a word: classes inside a class ([a-z&&[^b]]), braces that a comma cut in two (a{1,2}), octal numbers, repeated
// flags, and quotes that nothing ends. They were found by comparing with java.util.regex on random patterns.
func checkJava(pattern string) error {
	inClass := false
	for i := 0; i < len(pattern); i++ {
		switch rest := pattern[i:]; {
		case strings.HasPrefix(rest, `\Q`):
			quoted, _, ended := strings.Cut(rest, `\E`)
			if !ended {
				return errors.New(`\Q has no end; add \E behind what is quoted`)
			}
			i += len(quoted) + len(`\E`) - 1
		case strings.HasPrefix(rest, `\0`):
			return errors.New(`octal escapes are not supported; write the character itself`)
		case rest[0] == '\\':
			i += len(escape.FindString(rest)) - 1
		case !inClass && repeatedFlags.MatchString(rest):
			return errors.New(`flags like (?i) can't be repeated; remove the *, +, ? or {} behind them`)
		case inClass && (rest[0] == '[' || strings.HasPrefix(rest, "&&")):
			return errors.New(`classes inside a character class are not supported; write a look-ahead like (?!b)[a-z], or \[ for the bracket itself`)
		case rest[0] == '[':
			inClass = true
			i += len(classStart.FindString(rest)) - 1
		case rest[0] == ']':
			inClass = false
		case rest[0] == '{' && !inClass && !repetition.MatchString(rest):
			return errors.New(`a brace doesn't hold a number, maybe since a comma ends an expression; write aa? instead of a{1,2}, or \{ for the brace itself`)
		}
	}
	return nil
}

// escape is one that stands before a letter in braces (\p{Alpha}), or before any one character.
var escape = regexp.MustCompile(`^\\([pPxkN]\{[^}]*\}|.?)`)

var repeatedFlags = regexp.MustCompile(`^\(\?[a-zA-Z-]+\)[*+?{]`)

var repetition = regexp.MustCompile(`^\{\d+\}`)

// classStart is what opens a class; a bracket right behind is one of its characters.
var classStart = regexp.MustCompile(`^\[\^?\]?`)

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
