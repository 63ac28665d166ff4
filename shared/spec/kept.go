package spec

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
)

// A Kept secret is given, or in a file that is read whenever it is needed, since somebody may replace it.
type Kept struct {
	Text Secret
	File string
}

// Set says whether there is one.
func (k Kept) Set() bool { return k != (Kept{}) }

// mostSecret is far above any secret.
const mostSecret = 64 * KiB

// Read is the secret as it is now, without the end of its line.
func (k Kept) Read() (string, error) {
	if k.File == "" {
		return string(k.Text), nil
	}
	text, err := ReadFile(k.File, mostSecret)
	text = bytes.TrimRight(text, "\r\n")
	switch {
	case err != nil:
		return "", err
	case len(text) == 0:
		return "", fmt.Errorf("%s is empty", k.File)
	}
	return string(text), nil
}

// kept is the secret of a variable, or in the file that the one named _FILE beside it has.
func (e environment) kept(r *report, name string) Kept {
	r.either(e, name, name+"_FILE")
	return Kept{Text: Secret(unlessBlank(e.text(name))), File: e.path(e.text(name + "_FILE"))}
}

// path is a file's, with ~ for the home directory: it may come out of a file that no shell has read.
func (e environment) path(text string) string {
	if rest, home := strings.CutPrefix(text, "~/"); home {
		return filepath.Join(e.given["HOME"], rest)
	}
	return unlessBlank(text)
}

// unlessBlank is "" of a variable with nothing but blanks, which is reported where variables are read.
func unlessBlank(text string) string {
	if strings.TrimSpace(text) == "" {
		return ""
	}
	return text
}

// givenOf are those variables that are set, nil for none.
func (e environment) givenOf(names ...string) (given []string) {
	for _, name := range names {
		if strings.TrimSpace(e.given[name]) != "" {
			given = append(given, name)
		}
	}
	return given
}

// either reports two variables of which one at most can be set.
func (r *report) either(e environment, one, other string) {
	if len(e.givenOf(one, other)) == 2 {
		r.wrongf(value{path: one}, "is set, and so is %s; unset one of them", other)
	}
}

// together reports one of two variables that is set without the other.
func (r *report) together(e environment, one, other string) {
	if given := e.givenOf(one, other); len(given) == 1 {
		missing := one
		if given[0] == one {
			missing = other
		}
		r.wrongf(value{path: given[0]}, "is set without %s; set both", missing)
	}
}
