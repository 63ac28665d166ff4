package spec

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
)

// This file reads the grammar of java.util.Properties, as Properties.load does with a stream of bytes:
//
//   - Bytes are ISO-8859-1. Lines end in \n, \r or \r\n. White space is blank, tab and form feed.
//   - A line whose first character behind white space is # or ! is a comment; elsewhere those are characters like others.
//   - A line that ends in an odd number of backslashes goes on in the next one, without the white space it begins with.
//   - A key ends at the first =, : or white space without a backslash; a value begins behind white space, with one = or : in it
//     at most, and keeps what blanks it ends in.
//   - \t, \n, \r, \f and \uXXXX (UTF-16) are what they are elsewhere; any other \x is x.
//   - Of a key that is given twice the last value counts.

// A property is one entry of a file.
type property struct {
	value        // its path is the key, its line the one that the entry begins in
	raw   string // the value with its backslashes
}

// properties are the entries of a file, in the order in which their keys first stand there.
type properties []property

// readProperties reads a file. What Java refuses is a mistake in the report.
func readProperties(file, text string, r *report) properties {
	var entries properties
	places := map[string]int{}
	for _, l := range logicalLines(text) {
		key, raw := l.split()
		entry := property{value{file: file, line: l.number, set: true}, raw}
		var err, wrongKey error
		entry.path, wrongKey = unescape(key)
		if entry.text, err = unescape(raw); err != nil || wrongKey != nil {
			r.wrongf(value{file: file, line: l.number, path: key}, "%v", errors.Join(wrongKey, err))
			continue
		}
		i, twice := places[entry.path]
		if !twice {
			places[entry.path] = len(entries)
			entries = append(entries, entry)
			continue
		}
		r.warn(entry.value, "stands in line %d too; the last one counts, as in Java", entries[i].line)
		entries[i] = entry
	}
	return entries
}

// latin1 is the text of bytes that are ISO-8859-1, whose characters are the first 256 of Unicode.
func latin1(text []byte) string {
	var b strings.Builder
	for _, c := range text {
		b.WriteRune(rune(c))
	}
	return b.String()
}

// A logicalLine is what stands in one line, or in several that backslashes join.
type logicalLine struct {
	number int // of its first line
	text   string
}

const propertySpace = " \t\f"

func logicalLines(text string) []logicalLine {
	if strings.HasSuffix(text, "\r\n") {
		text += "\n" // to Java the line that this ends is not the last one
	}
	text = strings.ReplaceAll(text, "\r\n", "\n")
	natural := strings.Split(strings.ReplaceAll(text, "\r", "\n"), "\n")
	var lines []logicalLine
	for i := 0; i < len(natural); i++ {
		l := logicalLine{number: i + 1}
		part := strings.TrimLeft(natural[i], propertySpace)
		if part == "" || part[0] == '#' || part[0] == '!' {
			continue
		}
		if part == `\` && !atEnd(natural, i) {
			continue // a line may still begin with a comment
		}
		for goesOn(part) {
			l.text += strings.TrimSuffix(part, `\`)
			part = ""
			if i++; i < len(natural) {
				part = strings.TrimLeft(natural[i], propertySpace)
			}
		}
		l.text += part
		lines = append(lines, l)
	}
	return lines
}

// atEnd says whether nothing follows a line, not even an empty one.
func atEnd(natural []string, i int) bool {
	return i == len(natural)-1 || i == len(natural)-2 && natural[i+1] == ""
}

// goesOn says whether a line ends in a backslash that no other one stands before.
func goesOn(line string) bool {
	return (len(line)-len(strings.TrimRight(line, `\`)))%2 == 1
}

// split cuts a line in its key and its value, with their backslashes.
func (l logicalLine) split() (key, raw string) {
	end := 0
	for end < len(l.text) && !strings.ContainsRune("=:"+propertySpace, rune(l.text[end])) {
		if l.text[end] == '\\' {
			end++
		}
		end++
	}
	end = min(end, len(l.text))
	raw = strings.TrimLeft(l.text[end:], propertySpace)
	if raw != "" && (raw[0] == '=' || raw[0] == ':') {
		raw = strings.TrimLeft(raw[1:], propertySpace)
	}
	return l.text[:end], raw
}

// unescape reads what backslashes mean. They are the only thing that can be wrong in a file.
func unescape(text string) (string, error) {
	if !strings.Contains(text, `\`) {
		return text, nil
	}
	var units []uint16
	for rest := []rune(text); len(rest) > 0; {
		taken := 1
		switch {
		case rest[0] != '\\' || len(rest) == 1:
			units = utf16.AppendRune(units, rest[0])
		case rest[1] == 'u':
			taken = min(len(rest), 6)
			unit, err := strconv.ParseUint(string(rest[2:taken]), 16, 16)
			if err != nil || taken < 6 {
				return "", fmt.Errorf(`%q is no character; give four hexadecimal digits behind \u, or write \\u for a backslash`, string(rest[:taken]))
			}
			units = append(units, uint16(unit))
		default:
			units, taken = utf16.AppendRune(units, unescaped(rest[1])), 2
		}
		rest = rest[taken:]
	}
	return string(utf16.Decode(units)), nil
}

func unescaped(r rune) rune {
	if i := strings.IndexRune("tnrf", r); i >= 0 {
		return rune("\t\n\r\f"[i])
	}
	return r
}

// ParseProperties reads a file as java.util.Properties does.
func ParseProperties(text []byte) (map[string]string, error) {
	var r report
	all := map[string]string{}
	for _, entry := range readProperties("", latin1(text), &r) {
		all[entry.path] = entry.text
	}
	return all, r.err()
}
