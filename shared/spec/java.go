package spec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// This file reads the regular expressions of java.util.regex and writes them for Go's engines. Nothing is passed through:
// flags, classes and escapes are worked out here, since each engine has its own idea of them, and what is written has only
// characters, classes, groups, repetitions and look-around.
//
// Of Java's language this is missing, and refused by name: \X, \b{g}, \N{…}, blocks (\p{InGreek}), Java's own properties
// (\p{javaLowerCase}) and the flags c and U. \b is about ASCII, as it is from JDK 19 on. Where a pattern needs no
// look-around, "$" is the end alone, and not also what stands before a line's last break: no topic has one in its name.

// A regex is a piece of a pattern. The zero value matches the empty text.
type regex struct {
	kind  regexKind
	set   runes   // of a character
	parts []regex // of a sequence, a choice, or what a group or a repetition holds
	text  string  // of what is only written
	// least and most are how often what is repeated occurs; most is -1 for no bound.
	least, most int
	greed       string // what stands behind a repetition: "", "?" or "+"
	ignoreCase  bool   // of a reference to a group
}

type regexKind byte

const (
	sequence regexKind = iota
	choice
	character
	capturing
	atomic
	around // text is "(?=" and the like
	repeated
	begin
	end
	lastEnd   // or before the last line break
	lineBegin // text is the class of line breaks
	lineEnd
	wordEdge // text is "" or "^" for the opposite
	groupRef // least is the number
)

// An unsupported construct is one that Java has.
type unsupported struct{ what string }

func (e unsupported) Error() string { return e.what + " is not supported" }

// javaFlags are those of (?idmsux).
type javaFlags struct{ i, d, m, s, u, x bool }

// A javaParser reads a pattern. At the first mistake it moves to the end, so that everything that reads on ends.
type javaParser struct {
	err    error
	text   []javaRune
	at     int
	flags  javaFlags
	groups int // that have begun
	names  map[string]int
	depth  int
}

// A javaRune is a character of the pattern, which between \Q and \E stands for itself.
type javaRune struct {
	r      rune
	quoted bool
}

// maxDepth of groups and classes within each other.
const maxDepth = 200

func parseJava(pattern string) (parsed regex, groups int, err error) {
	p := javaParser{text: unquote(pattern), names: map[string]int{}}
	parsed = p.choice()
	if !p.ended() {
		p.fail(`a ) closes no group; write \) for the bracket itself`)
	}
	return parsed, p.groups, p.err
}

func (p *javaParser) fail(format string, args ...any) { p.stop(fmt.Errorf(format, args...)) }

func (p *javaParser) refuse(format string, args ...any) {
	p.stop(unsupported{fmt.Sprintf(format, args...)})
}

func (p *javaParser) stop(err error) {
	if p.err == nil {
		p.err = err
	}
	p.at = len(p.text)
}

// unquote marks what stands between \Q and \E, or the end.
func unquote(pattern string) []javaRune {
	var text []javaRune
	quoted := false
	for rest := pattern; rest != ""; {
		r, size := utf8.DecodeRuneInString(rest)
		switch {
		case quoted && strings.HasPrefix(rest, `\E`):
			quoted, size = false, 2
		case quoted:
			text = append(text, javaRune{r, true})
		case strings.HasPrefix(rest, `\Q`):
			quoted, size = true, 2
		case r == '\\' && len(rest) > 1:
			next, more := utf8.DecodeRuneInString(rest[1:])
			text, size = append(text, javaRune{r, false}, javaRune{next, false}), size+more
		default:
			text = append(text, javaRune{r, false})
		}
		rest = rest[size:]
	}
	return text
}

// none is what peek returns at the end; no pattern holds it unquoted as an operator.
const none = rune(-1)

// peek is the next character if it may be an operator; quoted ones and the end are none.
func (p *javaParser) peek() rune {
	if p.flags.x {
		p.skipComments()
	}
	return p.look(0)
}

func (p *javaParser) look(ahead int) rune {
	if p.at+ahead >= len(p.text) || p.text[p.at+ahead].quoted {
		return none
	}
	return p.text[p.at+ahead].r
}

func (p *javaParser) ended() bool { return p.at >= len(p.text) }

func (p *javaParser) skipComments() {
	for p.at < len(p.text) && !p.text[p.at].quoted {
		switch r := p.text[p.at].r; {
		case strings.ContainsRune(" \t\n\v\f\r", r):
			p.at++
		case r == '#':
			for p.at < len(p.text) && !isLineBreak(p.text[p.at].r) {
				p.at++
			}
		default:
			return
		}
	}
}

func isLineBreak(r rune) bool { return strings.ContainsRune("\n\r\u0085\u2028\u2029", r) }

// take moves past the next character and returns it.
func (p *javaParser) take() rune {
	if p.flags.x {
		p.skipComments()
	}
	if p.ended() {
		p.fail("ends too early")
		return none
	}
	r := p.text[p.at].r
	p.at++
	return r
}

// accept takes the next characters if they are these.
func (p *javaParser) accept(text string) bool {
	for i, r := range []rune(text) {
		if i == 0 && p.peek() != r || p.look(i) != r {
			return false
		}
	}
	p.at += len([]rune(text))
	return true
}

func (p *javaParser) enter() func() {
	if p.depth++; p.depth > maxDepth {
		p.fail("is nested more than %d deep", maxDepth)
	}
	return func() { p.depth-- }
}

// choice reads alternatives, up to the end or a bracket.
func (p *javaParser) choice() regex {
	defer p.enter()()
	all := regex{kind: choice, parts: []regex{p.sequence()}}
	for p.accept("|") {
		all.parts = append(all.parts, p.sequence())
	}
	if len(all.parts) == 1 {
		return all.parts[0]
	}
	return all
}

func (p *javaParser) sequence() regex {
	var all regex
	for {
		switch r := p.peek(); {
		case p.ended() || r == '|' || r == ')':
			return all
		case r == '(':
			if group, is := p.group(); is {
				all.parts = append(all.parts, p.repetition(group))
			}
		case r == '*' || r == '+' || r == '?':
			p.fail("%c stands behind nothing that it could repeat", r)
		case r == '{':
			all.parts = append(all.parts, p.repetition(regex{})) // Java repeats what is empty
		default:
			all.parts = append(all.parts, p.repetition(p.single()))
		}
	}
}

// single reads what matches one character, or stands between two.
func (p *javaParser) single() regex {
	switch p.peek() {
	case none:
		return p.letter(p.take())
	case '[':
		p.at++
		return regex{kind: character, set: p.class()}
	case '\\':
		return p.escape()
	case '^':
		p.at++
		if p.flags.m {
			return regex{kind: lineBegin, text: p.lineBreaks()}
		}
		return regex{kind: begin}
	case '$':
		p.at++
		if p.flags.m {
			return regex{kind: lineEnd, text: p.lineBreaks()}
		}
		return regex{kind: lastEnd, text: p.lineBreaks()}
	case '.':
		p.at++
		if p.flags.s {
			return regex{kind: character, set: allRunes}
		}
		return regex{kind: character, set: letters(p.lineBreaks()).not()}
	}
	return p.letter(p.take())
}

func (p *javaParser) lineBreaks() string {
	if p.flags.d {
		return "\n"
	}
	return "\n\r\u0085\u2028\u2029"
}

func (p *javaParser) letter(r rune) regex { return regex{kind: character, set: p.fold(one(r))} }

func (p *javaParser) fold(set runes) runes {
	if p.flags.i {
		return set.folded(p.flags.u)
	}
	return set
}

// mostTimes is Java's greatest number of repetitions.
const mostTimes = 1<<31 - 1

// repetition reads what stands behind something.
func (p *javaParser) repetition(what regex) regex {
	r := regex{kind: repeated, parts: []regex{what}, most: -1}
	switch p.peek() {
	case '?':
		p.at++
		r.most = 1
	case '*':
		p.at++
	case '+':
		p.at++
		r.least = 1
	case '{':
		p.at++
		p.bounds(&r)
	default:
		return what
	}
	switch {
	case p.accept("?"):
		r.greed = "?"
	case p.accept("+"):
		r.greed = "+"
	}
	return r
}

// bounds reads {n}, {n,} or {n,m} behind its brace.
func (p *javaParser) bounds(r *regex) {
	if !isDigit(p.look(0)) {
		p.fail("a brace doesn't hold a number, maybe since a comma ends an expression; write aa? instead of a{1,2}, or \\{ for the brace itself")
	}
	r.least = p.number()
	r.most = r.least
	if p.accept(",") {
		r.most = -1
		if isDigit(p.look(0)) {
			r.most = p.number()
		}
	}
	if !p.accept("}") {
		p.fail("a brace has no end, maybe since a comma ends an expression; write aa? instead of a{1,2}, or \\{ for the brace itself")
	}
	if r.most >= 0 && r.most < r.least {
		p.fail("{%d,%d} ends before it begins", r.least, r.most)
	}
}

func (p *javaParser) number() int {
	n := 0
	for isDigit(p.look(0)) {
		n = n*10 + int(p.take()-'0')
		if n > mostTimes {
			p.fail("the number of repetitions is too large")
		}
	}
	return n
}

func isDigit(r rune) bool { return r >= '0' && r <= '9' }

// group reads what stands in brackets; flags that hold from here on are no group.
func (p *javaParser) group() (group regex, is bool) {
	p.at++ // the bracket
	outside := p.flags
	switch {
	case !p.acceptNext("?"):
		p.groups++
		group = regex{kind: capturing, least: p.groups}
	case p.acceptNext(":"):
		group = regex{kind: sequence}
	case p.acceptNext(">"):
		group = regex{kind: atomic}
	case p.acceptNext("="), p.acceptNext("!"):
		group = regex{kind: around, text: "(?" + string(p.text[p.at-1].r)}
	case p.acceptNext("<="), p.acceptNext("<!"):
		group = regex{kind: around, text: "(?<" + string(p.text[p.at-1].r)}
	case p.acceptNext("<"):
		p.groups++
		group = regex{kind: capturing, least: p.groups}
		name := p.name()
		if _, twice := p.names[name]; twice {
			p.fail("two groups are called %q", name)
		}
		p.names[name] = p.groups
	default:
		p.readFlags()
		if p.accept(")") {
			return regex{}, false
		}
		if !p.accept(":") {
			p.fail("(? begins nothing that is known; write \\( for the bracket itself")
		}
	}
	group.parts = []regex{p.choice()}
	if !p.accept(")") {
		p.fail("a group has no end; write \\( for the bracket itself")
	}
	p.flags = outside
	return group, true
}

// acceptNext is accept where no blanks may stand before.
func (p *javaParser) acceptNext(text string) bool {
	for i, r := range []rune(text) {
		if p.look(i) != r {
			return false
		}
	}
	p.at += len([]rune(text))
	return true
}

// name reads that of a group, with the > behind it.
func (p *javaParser) name() string {
	var name strings.Builder
	for isAlphanumeric(p.look(0)) {
		name.WriteRune(p.take())
	}
	if name.Len() == 0 || isDigit(rune(name.String()[0])) || !p.acceptNext(">") {
		p.fail("a group's name begins with a letter, holds letters and digits and ends in >")
	}
	return name.String()
}

func (p *javaParser) readFlags() {
	on := true
	for {
		switch p.peek() {
		case 'i':
			p.flags.i = on
		case 'd':
			p.flags.d = on
		case 'm':
			p.flags.m = on
		case 's':
			p.flags.s = on
		case 'u':
			p.flags.u = on
		case 'x':
			p.flags.x = on
		case 'c', 'U':
			p.refuse("the flag %c", p.peek())
		case '-':
			if !on {
				return
			}
			on = false
		default:
			return
		}
		p.at++
	}
}

// class reads a class behind its bracket, with the one that ends it. Classes within it, and what follows &&, are sets of their own.
func (p *javaParser) class() runes {
	defer p.enter()()
	negated := p.acceptNext("^")
	set := p.intersection()
	if !p.accept("]") {
		p.fail("a class of characters has no end; write \\[ for the bracket itself")
	}
	if negated {
		return set.not()
	}
	return set
}

// intersection reads sets with && between them. Where nothing stands behind &&, Java takes what it read last once more.
func (p *javaParser) intersection() runes {
	set, found := p.union(true)
	for p.accept("&&") {
		nothing := p.peek() == '&'
		right, some := p.union(false)
		switch {
		case nothing || !some:
			p.refuse(`&& with nothing behind it (write \& for the character itself)`)
		case found:
			set = set.and(right)
		default:
			set, found = right, true
		}
	}
	return set
}

// union reads what stands beside each other in a class. A bracket that is the first in it is one of its characters.
func (p *javaParser) union(first bool) (set runes, found bool) {
	for {
		switch r := p.peek(); {
		case p.ended():
			p.fail("a class of characters has no end; write \\[ for the bracket itself")
			return set, found
		case r == ']' && (found || !first):
			return set, found
		case r == '&' && p.look(1) == '&':
			return set, found
		case r == '[':
			p.at++
			set = set.or(p.class())
		default:
			set = set.or(p.span())
		}
		found = true
	}
}

// span reads a character, a range of them, or an escape.
func (p *javaParser) span() runes {
	from, set := p.classRune()
	if set != nil {
		return set
	}
	if p.peek() != '-' || p.look(1) == ']' || p.look(1) == '[' || p.at+1 >= len(p.text) {
		return p.fold(one(from))
	}
	p.at++
	to, set := p.classRune()
	if set != nil || to < from {
		p.fail("a range of characters ends before it begins; write \\- for the dash itself")
	}
	return p.fold(between(from, to))
}

// classRune reads one character of a class, or a set that an escape stands for.
func (p *javaParser) classRune() (rune, runes) {
	if p.peek() != '\\' {
		return p.take(), nil
	}
	e := p.escapeIn(true)
	if e.kind != character && p.err == nil {
		p.fail("an escape that matches no character stands in a class")
	}
	if len(e.set) == 1 && e.set[0].first == e.set[0].last && e.text == "" {
		return e.set[0].first, nil
	}
	return 0, e.set
}

func (p *javaParser) escape() regex {
	e := p.escapeIn(false)
	if e.kind == character && e.text == "" { // one character, and not a set that has a name
		e.set = p.fold(e.set)
	}
	return e
}

// named is a set that an escape stands for: flags change nothing about it.
func named(set runes) regex { return regex{kind: character, set: set, text: "named"} }

var (
	javaDigits     = between('0', '9')
	javaSpaces     = letters(" \t\n\v\f\r")
	javaWords      = letters("_").or(between('0', '9')).or(between('a', 'z')).or(between('A', 'Z'))
	javaHorizontal = letters(" \t\u00A0\u1680\u180e\u202f\u205f\u3000").or(between('\u2000', '\u200a'))
	javaVertical   = letters("\n\v\f\r\u0085\u2028\u2029")
)

// escapeIn reads an escape, in a class or outside of one.
func (p *javaParser) escapeIn(class bool) regex {
	p.at++ // the backslash
	if p.ended() {
		p.fail(`a backslash stands at the end; write \\ for the backslash itself`)
		return regex{}
	}
	r := p.text[p.at].r
	p.at++
	plain := func(r rune) regex { return regex{kind: character, set: one(r)} }
	switch r {
	case 'd':
		return named(javaDigits)
	case 'D':
		return named(javaDigits.not())
	case 's':
		return named(javaSpaces)
	case 'S':
		return named(javaSpaces.not())
	case 'w':
		return named(javaWords)
	case 'W':
		return named(javaWords.not())
	case 'h':
		return named(javaHorizontal)
	case 'H':
		return named(javaHorizontal.not())
	case 'v':
		return named(javaVertical)
	case 'V':
		return named(javaVertical.not())
	case 'p', 'P':
		set := p.property()
		if r == 'P' {
			set = set.not()
		}
		return named(set)
	case 't':
		return plain('\t')
	case 'n':
		return plain('\n')
	case 'r':
		return plain('\r')
	case 'f':
		return plain('\f')
	case 'a':
		return plain('\a')
	case 'e':
		return plain(0x1b)
	case '0':
		return plain(p.octal())
	case 'x':
		return plain(p.hexadecimal())
	case 'u':
		return plain(p.unicode())
	case 'c':
		return plain(p.take() ^ 64)
	case 'N':
		p.refuse(`\N{…}`)
	}
	if !class {
		if e, is := p.escapeOutside(r); is {
			return e
		}
	}
	if isAlphanumeric(r) {
		p.fail(`\%c is no escape; write %[1]c for the letter itself`, r)
	}
	return plain(r)
}

// escapeOutside reads an escape that no class may hold.
func (p *javaParser) escapeOutside(r rune) (regex, bool) {
	switch r {
	case 'A', 'G':
		return regex{kind: begin}, true
	case 'z':
		return regex{kind: end}, true
	case 'Z':
		return regex{kind: lastEnd, text: p.lineBreaks()}, true
	case 'b':
		if p.look(0) == '{' {
			p.refuse(`\b{…}`)
		}
		return regex{kind: wordEdge}, true
	case 'B':
		return regex{kind: wordEdge, text: "^"}, true
	case 'R':
		both := regex{parts: []regex{{kind: character, set: one('\r')}, {kind: character, set: one('\n')}}}
		return regex{kind: choice, parts: []regex{both, {kind: character, set: javaVertical}}}, true
	case 'X':
		p.refuse(`\X`)
	case 'k':
		if !p.acceptNext("<") {
			p.fail(`\k is not followed by a group's name, like \k<name>`)
		}
		name := p.name()
		number, known := p.names[name]
		if !known {
			p.fail("no group before it is called %q", name)
		}
		return regex{kind: groupRef, least: number, ignoreCase: p.flags.i}, true
	}
	if r < '1' || r > '9' {
		return regex{}, false
	}
	number := int(r - '0')
	for isDigit(p.look(0)) && number*10+int(p.look(0)-'0') <= p.groups {
		number = number*10 + int(p.take()-'0')
	}
	return regex{kind: groupRef, least: number, ignoreCase: p.flags.i}, true
}

// octal reads up to three digits, at most 0377.
func (p *javaParser) octal() rune {
	n := rune(0)
	digits := 0
	for ; digits < 3 && p.look(0) >= '0' && p.look(0) <= '7' && n*8+p.look(0)-'0' <= 0o377; digits++ {
		n = n*8 + p.take() - '0'
	}
	if digits == 0 {
		p.fail(`\0 has no octal number behind it, like \012`)
	}
	return n
}

func (p *javaParser) hexadecimal() rune {
	if !p.acceptNext("{") {
		return rune(p.hex(2, 2, 'x'))
	}
	n := p.hex(1, 8, 'x')
	if n > unicode.MaxRune || !p.acceptNext("}") {
		p.fail(`\x{…} holds no character's number; write it in hexadecimal digits`)
	}
	return rune(n)
}

// unicode reads \uXXXX, of which two may be halves of a character.
func (p *javaParser) unicode() rune {
	n := rune(p.hex(4, 4, 'u'))
	if n >= 0xD800 && n < 0xDC00 && p.look(0) == '\\' && p.look(1) == 'u' {
		before := p.at
		p.at += 2
		if low := rune(p.hex(4, 4, 'u')); low >= 0xDC00 && low < 0xE000 {
			return (n-0xD800)<<10 + (low - 0xDC00) + 0x10000
		}
		p.at = before
	}
	return n
}

func (p *javaParser) hex(least, most int, letter rune) uint64 {
	var digits strings.Builder
	for digits.Len() < most && p.look(0) < 0x80 && strings.ContainsRune("0123456789abcdefABCDEF", p.look(0)) {
		digits.WriteRune(p.take())
	}
	if digits.Len() < least {
		p.fail(`\%c is not followed by %d hexadecimal digits`, letter, least)
	}
	n, _ := strconv.ParseUint(digits.String(), 16, 64)
	return n
}

// property reads the name of a set behind \p.
func (p *javaParser) property() runes {
	if p.ended() {
		p.fail(`\p is not followed by the name of a property, like \p{Alpha}`)
	}
	if !p.acceptNext("{") {
		return p.propertySet(string(p.take()))
	}
	var name strings.Builder
	for p.look(0) != '}' {
		if p.ended() {
			p.fail(`\p{ has no end`)
			return nil
		}
		name.WriteRune(p.text[p.at].r)
		p.at++
	}
	p.at++
	return p.propertySet(name.String())
}

// posix are the sets of ASCII.
var posix = map[string]runes{
	"ASCII":  between(0, 0x7F),
	"Alpha":  between('a', 'z').or(between('A', 'Z')),
	"Alnum":  between('a', 'z').or(between('A', 'Z')).or(javaDigits),
	"Digit":  javaDigits,
	"XDigit": javaDigits.or(between('a', 'f')).or(between('A', 'F')),
	"Lower":  between('a', 'z'),
	"Upper":  between('A', 'Z'),
	"Punct":  between('!', '/').or(between(':', '@')).or(between('[', '`')).or(between('{', '~')),
	"Graph":  between('!', '~'),
	"Print":  between(' ', '~'),
	"Blank":  letters(" \t"),
	"Cntrl":  between(0, 0x1F).or(one(0x7F)),
	"Space":  javaSpaces,
	"L1":     between(0, 0xFF),
	"all":    allRunes,
}

func (p *javaParser) propertySet(name string) runes {
	short, isIs := strings.CutPrefix(name, "Is")
	key, text, pair := strings.Cut(name, "=")
	switch {
	case pair && slices.Contains([]string{"sc", "script"}, strings.ToLower(key)):
		return p.script(text)
	case pair && slices.Contains([]string{"gc", "general_category"}, strings.ToLower(key)):
		return p.category(text)
	case strings.HasPrefix(name, "In"), strings.HasPrefix(name, "java"), pair:
		p.refuse(`\p{%s}`, name)
	case isIs:
		return p.binary(short)
	}
	return p.category(name)
}

// category finds a general category, or a set of ASCII. Where case is ignored, so it is of letters with a case.
func (p *javaParser) category(name string) runes {
	if p.flags.i && slices.Contains([]string{"Lu", "Ll", "Lt", "LC"}, name) {
		name = "LC"
	}
	if p.flags.i && (name == "Lower" || name == "Upper") {
		name = "Alpha"
	}
	if set, known := posix[name]; known {
		return set
	}
	switch name {
	case "LC":
		return inTable(unicode.Lu).or(inTable(unicode.Ll)).or(inTable(unicode.Lt))
	case "LD":
		return inTable(unicode.L).or(inTable(unicode.Nd))
	case "Cn", "C":
		var assigned runes
		for _, category := range []string{"L", "M", "N", "P", "S", "Z", "Cc", "Cf", "Co"} {
			assigned = assigned.or(inTable(unicode.Categories[category]))
		}
		unassigned := assigned.not()
		if name == "Cn" {
			return unassigned
		}
		return unassigned.or(inTable(unicode.C).and(allRunes))
	}
	table, known := unicode.Categories[name]
	if !known || len(name) > 2 {
		p.fail(`there is no property \p{%s}; give one like \p{Alpha} or \p{L}`, name)
		return nil
	}
	return inTable(table).and(allRunes)
}

// binary finds \p{IsName}: a property, a category or a script.
func (p *javaParser) binary(name string) runes {
	switch strings.ToUpper(name) {
	case "ALPHABETIC":
		return inTable(unicode.L).or(inTable(unicode.Nl)).or(inTable(unicode.Other_Alphabetic))
	case "LETTER":
		return inTable(unicode.L)
	case "IDEOGRAPHIC":
		return inTable(unicode.Ideographic)
	case "LOWERCASE":
		return inTable(unicode.Ll).or(inTable(unicode.Other_Lowercase))
	case "UPPERCASE":
		return inTable(unicode.Lu).or(inTable(unicode.Other_Uppercase))
	case "TITLECASE":
		return inTable(unicode.Lt)
	case "DIGIT":
		return inTable(unicode.Nd)
	case "PUNCTUATION":
		return inTable(unicode.P)
	case "CONTROL":
		return inTable(unicode.Cc)
	case "WHITE_SPACE", "WHITESPACE":
		return inTable(unicode.White_Space)
	case "ALNUM", "ASSIGNED", "BLANK", "GRAPH", "PRINT", "WORD", "HEX_DIGIT", "HEXDIGIT", "JOIN_CONTROL", "JOINCONTROL",
		"NONCHARACTER_CODE_POINT", "NONCHARACTERCODEPOINT", "EMOJI", "EMOJI_PRESENTATION", "EMOJI_MODIFIER", "EMOJI_MODIFIER_BASE",
		"EMOJI_COMPONENT", "EXTENDED_PICTOGRAPHIC":
		p.refuse(`\p{Is%s}`, name)
	}
	if _, known := unicode.Categories[name]; known && len(name) <= 2 || posix[name] != nil {
		return p.category(name)
	}
	return p.script(name)
}

func (p *javaParser) script(name string) runes {
	for known, table := range unicode.Scripts {
		if strings.EqualFold(known, name) {
			return inTable(table)
		}
	}
	if len(name) == 4 {
		p.refuse("the script %q", name) // may be one of Unicode's short names
	}
	p.fail("there is no property or script %q", name)
	return nil
}

// needsLook says whether something has to be written with look-around, or can't be told by RE2 for another reason.
func (e regex) needsLook() bool {
	switch e.kind {
	case atomic, around, lineBegin, lineEnd, groupRef:
		return true
	case repeated:
		if e.greed == "+" {
			return true
		}
	}
	return slices.ContainsFunc(e.parts, regex.needsLook)
}

// write writes the expression for RE2, or with look-around for the fallback. Groups count there alone.
func (e regex) write(to *strings.Builder, look bool, groups int) {
	inside := func() {
		for _, part := range e.parts {
			part.write(to, look, groups)
		}
	}
	wrapped := func(open, shut string) {
		to.WriteString(open)
		inside()
		to.WriteString(shut)
	}
	switch e.kind {
	case sequence:
		wrapped("(?:", ")")
	case choice:
		for i, part := range e.parts {
			to.WriteString([]string{"(?:", "|"}[min(i, 1)])
			part.write(to, look, groups)
		}
		to.WriteString(")")
	case character:
		e.set.write(to, look)
	case capturing:
		wrapped(map[bool]string{true: "(", false: "(?:"}[look], ")")
	case atomic:
		wrapped("(?>", ")")
	case around:
		wrapped(e.text, ")")
	case repeated:
		e.writeRepeated(to, inside)
	case begin:
		to.WriteString(`\A`)
	case end:
		to.WriteString(`\z`)
	case groupRef:
		e.writeReference(to, groups)
	default:
		to.WriteString(e.edge(look))
	}
}

func (e regex) writeRepeated(to *strings.Builder, inside func()) {
	greed, shut := e.greed, ""
	if greed == "+" { // what it took it keeps
		to.WriteString("(?>")
		greed, shut = "", ")"
	}
	to.WriteString("(?:")
	inside()
	to.WriteString(")")
	switch {
	case e.most < 0 && e.least < 2:
		to.WriteString([]string{"*", "+"}[e.least])
	case e.most < 0:
		fmt.Fprintf(to, "{%d,}", e.least)
	default:
		fmt.Fprintf(to, "{%d,%d}", e.least, e.most)
	}
	to.WriteString(greed + shut)
}

func (e regex) writeReference(to *strings.Builder, groups int) {
	switch {
	case e.least > groups:
		to.WriteString("(?!)") // in Java a group that isn't there matches nothing
	case e.ignoreCase:
		fmt.Fprintf(to, `(?i:\%d)`, e.least)
	default:
		fmt.Fprintf(to, `(?:\%d)`, e.least)
	}
}

const (
	wordAhead  = "[0-9A-Z_a-z]"
	edgeOfWord = "(?:(?<=" + wordAhead + ")(?!" + wordAhead + ")|(?<!" + wordAhead + ")(?=" + wordAhead + "))"
	noEdge     = "(?:(?<=" + wordAhead + ")(?=" + wordAhead + ")|(?<!" + wordAhead + ")(?!" + wordAhead + "))"
)

// edge writes what stands between two characters. Nothing does between \r and \n.
func (e regex) edge(look bool) string {
	breaks, between := "["+e.text+"]", `(?!(?<=\r)\n)`
	if e.text == "\n" {
		between = ""
	}
	switch {
	case e.kind == wordEdge && !look:
		return map[string]string{"": `\b`, "^": `\B`}[e.text]
	case e.kind == wordEdge:
		return map[string]string{"": edgeOfWord, "^": noEdge}[e.text]
	case e.kind == lastEnd && !look:
		return `\z`
	case e.kind == lastEnd && between == "":
		return `(?=\n?\z)`
	case e.kind == lastEnd:
		return between + `(?=(?:\r\n|` + breaks + `)?\z)`
	case e.kind == lineBegin:
		return `(?:\A|(?<=` + breaks + `))(?!\z)` + between
	}
	return `(?=\z|` + breaks + `)` + between
}
