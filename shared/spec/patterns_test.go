package spec_test

import (
	"strings"
	"testing"

	"github.com/kferry/kferry/shared/spec"
)

// TestPatterns holds what java.util.regex of JDK 17 answers with matches() for the list joined by "|".
func TestPatterns(t *testing.T) {
	for _, test := range []struct {
		list     string
		match    string // separated by blanks
		mismatch string
	}{
		{".*", "a orders A.b", ""},
		{"", "", "a orders"},
		{"orders", "orders", "orders2 xorders A.orders"},
		{"orders,payments", "orders payments", "orders,payments orderspayments"},
		{" orders ,\tpayments\n", "orders payments", "x"},
		{"a|b.*", "a b bcd", "ac"},
		{"(a,b)c", "ac bc", "a b"}, // MirrorMaker 2 joins before it compiles
		{"^orders$", "orders", "orders2"},
		{"(?i)Orders", "orders ORDERS", "x"},
		{`a\.b`, "a.b", "axb"},
		{`\Qa.b[\E`, "a.b[", "axb["},
		{"[a-c]x{2}", "axx cxx", "dxx ax"},
		{"^(?!internal).*", "orders", "internal internal-x"},
		{"(?!private-).*,private-ok", "orders private-ok", "private-x"},
		{".*(?<!-test)", "orders", "orders-test"},
		{"(.)\\1", "aa bb", "ab"},
		{"(?>a+)b", "aab", "aa"},
		{"[]a]", "] a", "b"},
		{`[\[&a]`, "[ & a", "b"},
		{`(?!x)a\_b`, "a_b", "a-b"},
		{`(?!x)a\\_b`, `a\_b`, "a_b"},
		{"[a-]", "a -", "b"},
		{`[{a]`, "{ a", "b"},
		{`\{a\}`, "{a}", "a"},
		{`\p{Lu}\x{41}`, "AA", "aA"},
		{`\Qa{1\E`, "a{1", "a"},
	} {
		patterns, err := spec.ParsePatterns(test.list)
		if err != nil {
			t.Errorf("%s: %v", test.list, err)
			continue
		}
		for name := range strings.FieldsSeq(test.match) {
			if !patterns.Match(name) {
				t.Errorf("%q doesn't match %s", test.list, name)
			}
		}
		for name := range strings.FieldsSeq(test.mismatch) {
			if patterns.Match(name) {
				t.Errorf("%q matches %s", test.list, name)
			}
		}
	}
	if (spec.Patterns{}).Match("") {
		t.Error("the zero value matches something")
	}
}

// Constructs that Go's engines don't have, or read in another way.
func TestJavaOnly(t *testing.T) {
	for pattern, names := range map[string]string{ // those that match, separated by blanks, | and those that don't
		"[a-z&&[^b]]+":      "a acz | b ab",
		"[a[b-c]]":          "a b c | d",
		"[^a[b]]":           "c | a b",
		"a++b":              "aab | b",
		"a*+a":              "| a aa",
		`\0141\x62\u0063`:   "abc | a",
		`\Qa.b`:             "a.b | axb",
		"(?i)é|ORDERS":      "é orders | É",
		"(?iu)é":            "é É | e",
		`a\h?b`:             "ab | a-b",
		`\p{Alpha}+`:        "ab | a1 é",
		`[\w&&[^\d]]+`:      "ab_ | a1",
		"(?x) a b # c":      "ab | abc",
		`(?<x>a|b)-\k<x>`:   "a-a b-b | a-b",
		`(a|b)(?i)\1`:       "aA bB | aB",
		"(?<!-)a{2}{3}":     "aa | aaa aaaaaa",
		"orders(?!-)[^a-y]": "ordersz | orders- ordersa",
	} {
		patterns, err := spec.ParsePatterns(pattern)
		if err != nil {
			t.Errorf("%s: %v", pattern, err)
			continue
		}
		right, wrong, _ := strings.Cut(names, "|")
		for name := range strings.FieldsSeq(right) {
			if !patterns.Match(name) {
				t.Errorf("%q doesn't match %s", pattern, name)
			}
		}
		for name := range strings.FieldsSeq(wrong) {
			if patterns.Match(name) {
				t.Errorf("%q matches %s", pattern, name)
			}
		}
	}
}

func TestWrongPatterns(t *testing.T) {
	for list, want := range map[string]string{
		"orders[":     "a class of characters has no end",
		"a)|(b":       "a ) closes no group",
		"*":           "* stands behind nothing",
		"a{1,2}":      "a comma ends an expression",
		"{a}":         "brace",
		`\y`:          `\y is no escape`,
		"[z-a]":       "ends before it begins",
		"(?P<a>b)":    "(? begins nothing",
		`\p{Nope}`:    "there is no property",
		`\k<a>`:       `no group before it is called "a"`,
		`\X`:          `\X is not supported`,
		`\p{InGreek}`: `\p{InGreek} is not supported`,
		"(?U)a":       "the flag U is not supported",
		"[a&&]":       "&& with nothing behind it",
		strings.Repeat("(", 300) + strings.Repeat(")", 300): "nested more than 200 deep",
		"(?!x)(a+)+(a+)+\\$": "takes more than",
	} {
		_, err := spec.ParsePatterns(list)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", list, err)
		}
	}
}

// Two mirrors of one pair of clusters translate the groups of either, though their expressions can't be compiled as one.
func TestGroupsOfTwoMirrorsAddUp(t *testing.T) {
	s := load(t, "KFERRY_MIRROR="+`spec:
  target: {alias: t, bootstrapServers: 't:1'}
  mirrors:
  - {source: {alias: a, bootstrapServers: 'a:1'}, checkpointConnector: {}, groupsPattern: '(a|b)\1'}
  - {source: {alias: a, bootstrapServers: 'a:1'}, checkpointConnector: {}, groupsPattern: '(c|d)\1(?!x)'}
  - {source: {alias: a, bootstrapServers: 'a:1'}, checkpointConnector: {}, groupsPattern: 'e'}
`)
	for group, want := range map[string]bool{"aa": true, "dd": true, "e": true, "ab": false, "cd": false, "f": false, "": false} {
		if got := s.Flows[0].Groups.Selects(group); got != want {
			t.Errorf("%q: %v", group, got)
		}
	}
}
