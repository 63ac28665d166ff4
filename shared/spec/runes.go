package spec

import (
	"slices"
	"strings"
	"unicode"
)

// runes is a set of characters: ranges in order that don't touch, without the halves of surrogate pairs.
type runes []runeRange

type runeRange struct{ first, last rune }

var allRunes = runes{{0, 0xD7FF}, {0xE000, unicode.MaxRune}}

func one(r rune) runes { return runes{{r, r}} }

func between(first, last rune) runes { return runes{{first, last}} }

// letters is the set of the characters of a text.
func letters(text string) runes {
	var all runes
	for _, r := range text {
		all = append(all, runeRange{r, r})
	}
	return all.tidy()
}

// inTable is the set of what is in one of Go's tables.
func inTable(table *unicode.RangeTable) runes {
	var all runes
	for _, r := range table.R16 {
		for c := rune(r.Lo); c <= rune(r.Hi); c += rune(r.Stride) {
			all = append(all, runeRange{c, c})
		}
	}
	for _, r := range table.R32 {
		for c := rune(r.Lo); c <= rune(r.Hi); c += rune(r.Stride) {
			all = append(all, runeRange{c, c})
		}
	}
	return all.tidy()
}

func (s runes) tidy() runes {
	slices.SortFunc(s, func(a, b runeRange) int { return int(a.first - b.first) })
	var tidy runes
	for _, r := range s {
		if n := len(tidy); n > 0 && r.first <= tidy[n-1].last+1 {
			tidy[n-1].last = max(tidy[n-1].last, r.last)
			continue
		}
		tidy = append(tidy, r)
	}
	return tidy
}

func (s runes) or(t runes) runes { return slices.Concat(s, t).tidy() }

func (s runes) not() runes {
	var rest runes
	next := rune(0)
	for _, r := range s {
		if r.first > next {
			rest = append(rest, runeRange{next, r.first - 1})
		}
		next = r.last + 1
	}
	if next <= unicode.MaxRune {
		rest = append(rest, runeRange{next, unicode.MaxRune})
	}
	return rest.and(allRunes)
}

func (s runes) and(t runes) runes {
	var both runes
	for i, j := 0, 0; i < len(s) && j < len(t); {
		if first, last := max(s[i].first, t[j].first), min(s[i].last, t[j].last); first <= last {
			both = append(both, runeRange{first, last})
		}
		if s[i].last < t[j].last {
			i++
		} else {
			j++
		}
	}
	return both
}

// folded adds the other case: of letters of ASCII, or of all.
func (s runes) folded(all bool) runes {
	more := slices.Clone(s)
	if !all {
		for upper := 'A'; upper <= 'Z'; upper++ {
			if pair := letters(string(upper) + strings.ToLower(string(upper))); len(s.and(pair)) > 0 {
				more = append(more, pair...)
			}
		}
		return more.tidy()
	}
	for _, r := range s.and(foldable) {
		for c := r.first; c <= r.last; c++ {
			for other := unicode.SimpleFold(c); other != c; other = unicode.SimpleFold(other) {
				more = append(more, runeRange{other, other})
			}
		}
	}
	return more.tidy()
}

// foldable are the planes that have letters with two cases.
var foldable = between(0, 0x1FFFF)

// write writes the set as a class, for RE2 or with look-around for the fallback.
func (s runes) write(to *strings.Builder, look bool) {
	switch {
	case len(s) == 0 && look:
		to.WriteString(`(?!)`)
		return
	case len(s) == 0:
		to.WriteString(`[^\x00-\x{10FFFF}]`)
		return
	case len(s) == 1 && s[0].first == s[0].last:
		writeRune(to, s[0].first)
		return
	}
	to.WriteByte('[')
	for _, r := range s {
		writeRune(to, r.first)
		if r.last > r.first {
			to.WriteByte('-')
			writeRune(to, r.last)
		}
	}
	to.WriteByte(']')
}

func writeRune(to *strings.Builder, r rune) {
	if r == '-' {
		to.WriteString(`\x2d`) // the fallback takes \- for itself even where it ends a range
		return
	}
	if r > ' ' && r < 0x7F && r != '_' && !isAlphanumeric(r) {
		to.WriteByte('\\')
	}
	to.WriteRune(r)
}

func isAlphanumeric(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}
