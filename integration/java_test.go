package integration

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/kferry/kferry/integration/testbed"
)

// judged gives cases to one of the judge's programs, one a line, and returns its answers.
func judged(t *testing.T, program string, cases []string) []string {
	t.Helper()
	output := testbed.Judge(t, []byte(strings.Join(cases, "\n")+"\n"), program)
	answers := strings.Split(strings.TrimSuffix(string(output), "\n"), "\n")
	if len(answers) != len(cases) {
		t.Fatalf("%s: %d answers to %d cases", program, len(answers), len(cases))
	}
	return answers
}

func base64of(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// The judge answers as Java does: what other tests compare with.
func TestJudgeAnswersAsJavaDoes(t *testing.T) {
	files := judged(t, "PropertiesFiles", []string{base64of("a=b\n c : \\u0041\\\n d"), base64of(`a=\u00x`), ""})
	if got, want := strings.Join(files, "; "), "right YQ=Yg Yw=QWQ; wrong; right"; got != want {
		t.Errorf("files: %s, want %s", got, want)
	}
	filters := judged(t, "TopicFilters", []string{
		base64of("a, b.*") + " " + base64of("a") + " " + base64of("c") + " " + base64of("bc"),
		base64of("a["),
		" " + base64of("a"),
	})
	if got, want := strings.Join(filters, "; "), "101; wrong Unclosed character class near index 1 a[ ^; 0"; got != want {
		t.Errorf("filters: %s, want %s", got, want)
	}
}
