package spec

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"
)

// A value is a piece of the input and the place where it stands.
type value struct {
	file string // "" for environment variables
	line int
	path string // "spec.clusters[0].alias", or the variable's name
	text string
	set  bool
	// reference is the text as it was written, where a configuration provider gave the text: that is never shown.
	reference string
	lost      bool // a reference leads nowhere, which is reported
	// hidden are the parts that are never shown, each with hiddenEnd behind it (a value is compared as a whole).
	hidden string
	// literal says that a secret stands in the input as it is, alone or beside a reference: what was written is as secret as the text.
	literal bool
	quoted  bool // what references stand for is written as it is in a quoted text of JAAS
}

const hiddenEnd = "\x00"

func (v value) place() string {
	if v.file == "" {
		return v.path
	}
	return fmt.Sprintf("%s:%d: %s", v.file, v.line, v.path)
}

// shown is the text for people.
func (v value) shown() string {
	if v.literal || v.reference == "" && v.hidden != "" {
		return hidden
	}
	return cmp.Or(v.reference, v.text)
}

// hidePart has a part of the text never show.
func (v value) hidePart(part string) value {
	if part != "" {
		v.hidden += part + hiddenEnd
	}
	return v
}

// discreet is a message without what is hidden, and without parts of it.
func (v value) discreet(message string) string {
	const part = 4 // letters that tell something
	for secret := range strings.SplitSeq(strings.TrimSuffix(v.hidden, hiddenEnd), hiddenEnd) {
		for i := 0; secret != "" && (i == 0 || i+part <= len(secret)); i++ {
			if strings.Contains(message, secret[i:min(i+part, len(secret))]) {
				if v.reference == "" || v.literal {
					return "can't be used as it is; look at it where it is kept, since it isn't shown here"
				}
				return fmt.Sprintf("what %s stands for can't be used here; look at it where it is kept", v.reference)
			}
		}
	}
	return message
}

// A problem is a mistake in the input.
type problem struct {
	at   value
	text string
}

func (p problem) Error() string { return p.at.place() + ": " + withoutLogins(p.text) }

// inURL is a user with a password, as URLs and those who take addresses for URLs have it.
var inURL = regexp.MustCompile(`[^\s/@"',]+:[^\s/@"',]*@`)

// withoutLogins is a text without those.
func withoutLogins(text string) string { return inURL.ReplaceAllString(text, hidden+"@") }

// A report collects what is to be said about the input.
type report struct {
	problems []problem
	warnings []string
	passed   []value // settings without effect; the text says why
	acted    []value // settings out of files that were read, in turn
	// references are values that a configuration provider gave, each with its place.
	references []string
	refers     []string // references among what was read
	nodes      int      // of YAML that were looked at
	patterns   int      // bytes of regular expressions that were read
}

const (
	// mostProblems bounds the mistakes that are told.
	mostProblems = 500
	// mostNodes bounds the places of YAML that are looked at. Anchors make many of few.
	mostNodes = 250_000
	// mostPatterns bounds the regular expressions of all descriptions together, which names of topics are too.
	mostPatterns = 2 * MiB
)

// visit says whether one more place of YAML may be looked at.
func (r *report) visit(n node) bool {
	if r.nodes++; r.nodes == mostNodes+1 {
		r.wrongf(n.at(), "comes after %d others, as many as are read; describe less, or less by anchors", mostNodes)
	}
	return r.nodes <= mostNodes
}

// parsePatterns is ParsePatterns as long as the input is not nothing but patterns.
func (r *report) parsePatterns(text string) (Patterns, error) {
	if r.patterns += len(text); r.patterns > int(mostPatterns) {
		return Patterns{}, fmt.Errorf("brings the names and patterns of the configuration to more than %s; describe more of them by one pattern", mostPatterns)
	}
	return ParsePatterns(text)
}

// wrong reports a value that can't be; err says why and what to do.
func (r *report) wrong(v value, err error) {
	r.problems = append(r.problems, problem{v, fmt.Sprintf("%q: %s", short(v.shown()), v.discreet(err.Error()))})
}

// short is a text that people find their own by.
func short(text string) string {
	const most = 1_000 // bytes
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// wrongf reports a mistake that isn't in the text of a value.
func (r *report) wrongf(v value, format string, args ...any) {
	r.problems = append(r.problems, problem{v, v.discreet(fmt.Sprintf(format, args...))})
}

func (r *report) warn(v value, format string, args ...any) {
	r.warnings = append(r.warnings, v.place()+": "+withoutLogins(v.discreet(fmt.Sprintf(format, args...))))
}

// pass notes a setting that has no effect; why may be empty. One that looks like another is a mistake: what its author means
// would not be done.
func (r *report) pass(v value, why string) {
	if strings.HasPrefix(why, didYouMean) {
		r.wrongf(v, "there is no such setting; %s", why)
		return
	}
	v.text, v.reference = v.discreet(why), ""
	r.passed = append(r.passed, v)
}

// since are the settings of files that were read after the first ones.
func (r *report) since(before int) (all []Given) {
	known := map[Given]bool{}
	for _, v := range r.acted[before:] {
		g := Given{v.path, v.shown(), fmt.Sprintf("%s:%d", v.file, v.line)}
		if !known[g] {
			known[g] = true
			all = append(all, g)
		}
	}
	return all
}

// said are all warnings, each once: those with a place of their own, and for each file one that names what has no effect.
func (r *report) said() []string {
	byFile := map[string][]string{}
	// What one flow takes no notice of, as mm2.properties has it of a cluster that another one reads from, may act there.
	acted := make(map[value]bool, len(r.acted))
	for _, v := range r.acted {
		acted[value{file: v.file, line: v.line, path: v.path}] = true
	}
	r.passed = slices.DeleteFunc(r.passed, func(v value) bool { return acted[value{file: v.file, line: v.line, path: v.path}] })
	slices.SortStableFunc(r.passed, func(a, b value) int { return cmp.Compare(a.line, b.line) })
	for _, v := range slices.CompactFunc(r.passed, func(a, b value) bool { return a == b }) {
		place := fmt.Sprintf("line %d", v.line)
		if v.text != "" {
			place += ": " + v.text
		}
		byFile[v.file] = append(byFile[v.file], fmt.Sprintf("%s (%s)", v.path, place))
	}
	var all []string
	for _, file := range slices.Sorted(maps.Keys(byFile)) {
		all = append(all, fmt.Sprintf("%s: no effect in kferry: %s", file, strings.Join(byFile[file], ", ")))
	}
	said := map[string]bool{}
	for _, warning := range r.warnings {
		if !said[warning] {
			said[warning] = true
			all = append(all, warning)
		}
	}
	return all
}

// err is everything that is wrong, each once, in the order of the files' lines.
func (r *report) err() error {
	slices.SortStableFunc(r.problems, func(a, b problem) int {
		return cmp.Or(cmp.Compare(a.at.file, b.at.file), cmp.Compare(a.at.line, b.at.line))
	})
	all := &multierror.Error{ErrorFormat: list}
	seen := map[string]bool{}
	for _, p := range r.problems {
		if seen[p.Error()] {
			continue
		}
		seen[p.Error()] = true
		if all.Len() == mostProblems {
			all = multierror.Append(all, problem{p.at, fmt.Sprintf("is the first of many more mistakes than the %d above; mend those first", mostProblems)})
			break
		}
		all = multierror.Append(all, p)
	}
	return all.ErrorOrNil()
}

func list(errs []error) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s in the configuration:", plural(len(errs), "mistake"))
	for _, err := range errs {
		text.WriteString("\n  " + err.Error())
	}
	return text.String()
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// read parses a value that is set; otherwise stands in for one that isn't, or is wrong.
func read[T any](r *report, v value, parse func(string) (T, error), otherwise T) T {
	if !v.set || v.lost {
		return otherwise
	}
	if v.file != "" {
		r.acted = append(r.acted, v)
	}
	if v.reference != "" {
		r.refers = append(r.refers, v.reference)
	}
	parsed, err := parse(v.text)
	if err != nil {
		r.wrong(v, err)
		return otherwise
	}
	return parsed
}

const didYouMean = "did you mean"

// suggest is "; did you mean …?" where one of the known words is close to the given one, else "".
func suggest(given string, known []string) string {
	best, least := "", min(3, 1+len(given)/4)
	for _, word := range known {
		if len(word)-len(given) > least || len(given)-len(word) > least {
			continue
		}
		if d := distance(strings.ToLower(given), strings.ToLower(word)); d <= least {
			best, least = word, d-1
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; %s %s?", didYouMean, best)
}

// distance counts the letters to add, drop or change to get from a to b (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
