package spec

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// This file reads the text of sasl.jaas.config as Kafka's clients do, which leave the words to java.io.StreamTokenizer:
//
//   - A word begins with a letter, '_', '$' or a character from U+00A0 on, and goes on with those, digits, '.' and '-'. Any other text has to
//     be in quotes, numbers too.
//   - Text in double or single quotes ends at the same quote or at the end of the line. In it a backslash makes \n, \t and so on, \ooo is
//     a character by its octal number up to \377, and of any other \x the x is meant.
//   - A slash outside of quotes begins a comment: up to the star and slash that close it where a star follows, else up to the end of the line.
//   - A login module is its class, a control flag, options NAME=VALUE and a semicolon. There has to be exactly one.
//
// The text holds secrets, so its errors name a position and nothing that stands there.

// JAAS is a login module as sasl.jaas.config names it.
type JAAS struct {
	Module  string            // the class
	Flag    string            // required, requisite, sufficient or optional; with one module they mean the same
	Options map[string]Secret // of an option that is given twice the last value counts, as in Java
}

// Bounds of a text; a token of its own may be long.
const (
	maxJAAS        = 256 * KiB
	maxJAASOptions = 1000
)

var jaasFlags = []string{"required", "requisite", "sufficient", "optional"}

// ParseJAAS reads the text of sasl.jaas.config.
func ParseJAAS(text string) (JAAS, error) {
	if len(text) > int(maxJAAS) {
		return JAAS{}, fmt.Errorf("is longer than %s; give one login module", maxJAAS)
	}
	p := jaasParser{text: []rune(text)}
	p.next()
	if p.kind == jaasEnd {
		return JAAS{}, errors.New("holds no login module; write CLASS required NAME=\"VALUE\" ...;")
	}
	module, err := p.module()
	if err != nil {
		return JAAS{}, err
	}
	if p.next(); p.kind != jaasEnd {
		return JAAS{}, p.wrong("holds more than one login module; remove what follows the first semicolon")
	}
	return module, nil
}

func (p *jaasParser) module() (JAAS, error) {
	m, quoted := JAAS{Module: p.word, Options: map[string]Secret{}}, p.kind == '"' || p.kind == '\''
	if m.Module == "" {
		return m, p.wrong("is not the class of a login module; begin with one")
	}
	p.next()
	if m.Flag = strings.ToLower(strings.ToUpper(p.word)); !slices.Contains(jaasFlags, m.Flag) { // as Java folds them
		if quoted {
			return m, errors.New("begins with a quote, and only the values of options belong in quotes; remove those around all of it")
		}
		return m, p.wrong("is not a control flag; write %s behind the class", orList(jaasFlags))
	}
	for p.next(); p.kind != ';'; p.next() {
		switch {
		case p.kind == jaasEnd:
			return m, p.wrong("has no semicolon; end it with one")
		case !p.named:
			return m, p.wrong("is not the name of an option; write NAME=\"VALUE\", and put in quotes what is more than a word")
		case len(m.Options) == maxJAASOptions:
			return m, p.wrong("has more than %d options; give one login module", maxJAASOptions)
		}
		name := p.word
		if p.next(); p.kind != '=' {
			return m, p.wrong("is not a '=' behind the name of an option; write NAME=\"VALUE\", and put in quotes what is more than a word")
		}
		if p.next(); !p.named {
			return m, p.wrong("is not the value of an option; write NAME=\"VALUE\", and put in quotes what is more than a word")
		}
		m.Options[name] = Secret(p.word)
	}
	return m, nil
}

// A jaasParser goes through a text word by word.
type jaasParser struct {
	text []rune
	at   int // of the next character

	begin int    // of the word
	kind  rune   // of the word: the quote it is in, jaasWord, jaasEnd, or a character that stands for itself
	word  string // of a word and of what is in quotes
	named bool   // there is a word
}

const (
	jaasEnd  rune = -1 - iota // the text is read
	jaasWord                  // outside of quotes
)

func (p *jaasParser) wrong(format string, args ...any) error {
	return fmt.Errorf("what stands at character %d "+format, append([]any{p.begin + 1}, args...)...)
}

// read is the next character, or jaasEnd.
func (p *jaasParser) read() rune {
	if p.at == len(p.text) {
		return jaasEnd
	}
	p.at++
	return p.text[p.at-1]
}

func (p *jaasParser) next() {
	p.word, p.named = "", false
	for {
		p.begin = p.at
		switch p.kind = p.read(); {
		case p.kind == jaasEnd, p.kind == ';', p.kind == '=':
			return
		case p.kind <= ' ':
		case p.kind == '/':
			p.comment()
		case p.kind == '"' || p.kind == '\'':
			p.word, p.named = p.quoted(p.kind), true
			return
		case beginsJAASWord(p.kind):
			for p.at < len(p.text) && (beginsJAASWord(p.text[p.at]) || strings.ContainsRune("0123456789.-", p.text[p.at])) {
				p.at++
			}
			p.kind, p.word, p.named = jaasWord, string(p.text[p.begin:p.at]), true
			return
		default:
			return
		}
	}
}

func beginsJAASWord(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '$' || c >= 0xa0
}

// comment goes over one, whose slash is read.
func (p *jaasParser) comment() {
	if p.read() != '*' { // whatever it is, even the end of the line
		for p.at < len(p.text) && p.text[p.at] != '\n' && p.text[p.at] != '\r' {
			p.at++
		}
		return
	}
	for before := rune(0); ; {
		c := p.read()
		if c == '/' && before == '*' {
			return
		}
		// Java reads the character behind an end of line without looking at what it closes.
		switch c {
		case '\r':
			if c = p.read(); c == '\n' {
				c = p.read()
			}
		case '\n':
			c = p.read()
		}
		if c == jaasEnd {
			return
		}
		before = c
	}
}

// quoted is a text whose first quote is read.
func (p *jaasParser) quoted(quote rune) string {
	var text []rune
	for c := p.read(); c != jaasEnd && c != quote; c = p.read() {
		switch c {
		case '\n', '\r':
			p.at--
			return string(text)
		case '\\':
			c = p.escaped()
		}
		text = append(text, c)
	}
	return string(text)
}

const jaasEscapes = "a\ab\bf\fn\nr\rt\tv\v"

// escaped is the character that a backslash, which is read, and what follows it stand for.
func (p *jaasParser) escaped() rune {
	c := p.read()
	switch i := strings.IndexRune(jaasEscapes, c); {
	case c == jaasEnd:
		return 0xffff // as Java has it
	case c >= 'a' && i >= 0:
		return rune(jaasEscapes[i+1])
	case !isOctal(c):
		return c
	}
	digits := 2
	if c <= '3' {
		digits = 3
	}
	number := c - '0'
	for ; digits > 1 && p.at < len(p.text) && isOctal(p.text[p.at]); digits-- {
		number = number<<3 + p.read() - '0'
	}
	return number
}

func isOctal(c rune) bool { return c >= '0' && c <= '7' }
