package integration

import (
	"encoding/base64"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/kferry/kferry/integration/testbed"
	"github.com/kferry/kferry/shared/spec"
)

const (
	randomFiles    = 20_000
	randomPatterns = 20_000
)

// random is seeded by the clock; a failure that prints its seed can be seen again.
func random(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

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

// goldenFiles are those that said something about the grammar once.
var goldenFiles = []string{
	"", "\\", "\\\n", "a", "a=b", "a:b", "a b", "a = : b", "a : = b", " a\t=\fb ", "a\\=b=c", "a\\ b c", "a\\:b c", "#a=b", "!a=b", " #a", "a#=b #c",
	"a=b\\\n  c", "a=b\\\\\nc=d", "a=b\\\r\nc", "a=b\rc=d", "a=\\\n\nb=c", "\\\n#a=b", "#a\\\nb=c", "a=b\\\n#c=d", "a=b\\", "a=b\\\n", "a=b\\\n\\\nc",
	"a=\\u0041\\u00e9", "a=\\u12", "a=\\uzzzz", "a\\u003db=c", "a=\\ud83d\\ude00", "a=\\ud83d", "a=\\t\\n\\r\\f\\q\\.", "a=1\na=2", "=b", ":", "a=\xe9", "\xef\xbb\xbfa=b",
	"a=b\n\n\n  \n\t\\\n b", "A->B.enabled = true", "clusters: A, B", "a=x\\\n\f\t y\\\n", "a=\x85b\nc=\xa0d", "\x00=\x00",
	"topics.exclude = .*[\\-\\.]internal, .*\\.replica, __.*",
}

// randomFile is made of what the grammar knows.
func randomFile(r *rand.Rand) string {
	parts := []string{
		"a", "b", "A->B.topics", "key", "\\", "\\", "\\\\", "\n", "\n", "\n", "\r", "\r\n", "\\\n", "\\\r\n", " ", "\t", "\f", "=", "=", ":", "#", "!",
		"\\u0041", "\\u00E9", "\\u003d", "\\u", "\\ud83d", "\\uD83D\\uDE00", "\\t", "\\n", "\\f", "\\=", "\\:", "\\ ", "\\#", "\\.", ".*", ",", "\xe9", "\xff", "\x00", "\x85", "\x0b",
	}
	var file strings.Builder
	for range r.IntN(20) {
		file.WriteString(parts[r.IntN(len(parts))])
	}
	return file.String()
}

// Files of properties mean what they mean to Java.
func TestPropertiesAreReadAsJavaReadsThem(t *testing.T) {
	files := goldenFiles
	for r := random(t); len(files) < randomFiles; {
		files = append(files, randomFile(r))
	}
	var cases []string
	for _, file := range files {
		cases = append(cases, base64of(file))
	}
	wrong := 0
	for i, answer := range judged(t, "PropertiesFiles", cases) {
		got, err := spec.ParseProperties([]byte(files[i]))
		want, right := propertiesOf(t, answer)
		if right != (err == nil) || right && !maps.Equal(got, want) {
			t.Errorf("%q: %q %v, Java has %q %v", files[i], got, err, want, right)
		}
		if !right {
			wrong++
		}
	}
	t.Logf("%d files, %d of them wrong", len(files), wrong)
}

// propertiesOf reads an answer of the judge's, which is false where Java refuses the file.
func propertiesOf(t *testing.T, answer string) (map[string]string, bool) {
	words := strings.Split(answer, " ")
	all := map[string]string{}
	for _, pair := range words[1:] {
		key, text, _ := strings.Cut(pair, "=")
		all[decoded(t, key)] = decoded(t, text)
	}
	return all, words[0] == "right"
}

func decoded(t *testing.T, text string) string {
	raw, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
