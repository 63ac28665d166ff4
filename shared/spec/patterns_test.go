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

func TestWrongPatterns(t *testing.T) {
	for list, want := range map[string]string{
		"orders[":            "unterminated []",
		"a)|(b":              "unexpected )",
		"*":                  "missing argument",
		"a{1,2}":             "a comma ends an expression",
		"{a}":                "brace",
		"[a-z&&[^b]]":        "classes inside",
		"[a[b]]":             "classes inside",
		`(?!x)\h`:            "unrecognized escape",
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
