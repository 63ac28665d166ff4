package integration

import (
	"encoding/base64"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kferry/kferry/integration/testbed"
	"github.com/kferry/kferry/shared/spec"
)

const (
	randomFiles    = 20_000
	randomPatterns = 3_000
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

// goldenPatterns are those that said something about the language once.
var goldenPatterns = []string{
	".*", "", "orders", "orders, payments", "a|b.*", "^(?!internal).*", ".*(?<!-test)", "mm2.*\\.internal, .*\\.replica, __.*", ".*[\\-\\.]internal",
	"[a-z&&[^b]]+", "[a[bc]]", "[^a[b]]", "[a-c&&b-d&&b]", "[&&a]", "[a&&]", "[a&b]", "[a&&&b]", "[]a]", "[^]a]", "[a-]", "[-a]", "[a-\\d]", "[\\d-z]", "[[a]-c]", "[a-[b]]",
	"a++a", "(?>a+)b", "a*+b", "(a|ab)c?+", "a{2}", "a{2}{3}", "a{2}+", "a**", "a+*", "(?i)ORDERS", "a(?i)b|C", "(?i:a)B", "(?s).", "(?x) a b # c", "(?i)[a-c]", "(?iu)é",
	"\\Qa.b\\E", "\\Qa.b", "\\Qab\\E*", "[\\Qa]\\E]", "\\E", "\\012", "\\0101", "\\08", "\\x41", "\\x{41}", "\\u0041", "\\cA", "\\_", "\\-", "\\y", "\\h", "\\v", "\\R", "\\X", "\\N{DIGIT ONE}",
	"(a)\\1", "(a)\\2", "\\1(a)", "(?<x>a)\\k<x>", "\\k<x>", "(a)(b)(c)(d)(e)(f)(g)(h)(i)(j)\\10", "(a)\\11", "(?<x>a)(?<x>b)", "(?<1>a)", "\\p{Lu}", "\\p{Alpha}", "\\p{IsLatin}", "\\p{InGreek}", "\\pL", "\\p{L}", "\\P{L}",
	"\\p{javaLowerCase}", "\\p{IsAlphabetic}", "\\p{sc=Latin}", "\\p{Nope}", "{a}", "a{", "a}", "a]", "(", ")", "a)|(b", "*", "[", "[]", "(?", "(?=a)b", "(?=a)*a", "a$", "a$b", "^a^", "a\\b", "a\\bb", "\\Ba",
	"(?<=a)b", "a(?<=a|ab)b", "ab(?<=(a)b)", "(?<=a+)b", "a\\Z", "\\Aa\\z", "\\Ga", "(?m)^a$", "(?d).", "a||b", "()", "(|a)b", "(a?){3}", "(a*)*b", "((a)|b)+\\2", "(?:a|b)*?c", "[\\w&&[^\\d]]+", "[^\\W_]+", "(?i)\\p{Lower}", "(?-i)a", "(?i)(?-i)A",
	"(?U)\\w", "(?c)a", "[a-z&&[def]&&[^e]]", "[^a-c&&b]", "a{0}", "a{1001}", "a{2147483648}", "(?i)(a)\\1", "[\\x41-\\x43]", "[z-a]", "\\", "[\\b]", "[\\", "\\x4", "\\u00", "\\c", "\\p{L", "\\p", "(?a)", "(?<a", "(?<a>", "(?#a)", "(?P<a>b)", "\\'a",
}

var patternNames = []string{
	"", "a", "b", "c", "A", "B", "ab", "ba", "aa", "bb", "aaa", "aab", "abc", "abcd", "orders", "ORDERS", "orders-test", "internal", "internal-x", "a.b", "a-b", "a_b", "_", "-", ".", "__consumer_offsets",
	"mm2-offsets.A.internal", "A.replica", "1", "12", "a1", "aXb", "aa-bb", "abab", "a]", "[", "]", "{a}", "a b", "é", "É", "&", "a&b", "^", "\\", "x", "z", "abcdefghijj", "aK", "d", "e",
}

// randomPattern nests what the language knows. It is wrong one time in three or so.
func randomPattern(r *rand.Rand, depth int) string {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	one := func() string {
		return pick("a", "b", "c", "A", "ab", ".", "\\.", "-", "_", "\\d", "\\w", "\\W", "\\s", "\\S", "\\D", "\\h", "\\H", "\\v", "\\R", "\\b", "\\B", "^", "$", "\\A", "\\z", "\\Z", "\\G",
			"\\x61", "\\0141", "\\u0061", "\\p{Lower}", "\\p{Lu}", "\\P{L}", "\\pL", "\\p{IsAlphabetic}", "\\p{Punct}", "\\Qa.b\\E", "\\Q-\\E", "\\1", "\\2", "\\k<n>", "\\t", "\\e", "\\_", "\\]", "]", "}", "é", "&", " ", "#")
	}
	class := func() string {
		var text strings.Builder
		text.WriteString(pick("[", "[", "[^"))
		for range 1 + r.IntN(4) {
			text.WriteString(pick("a", "b", "z", "A", "1", "-", "_", "a-c", "A-Z", "0-9", "&", "&&", "^", "]", "[b]", "[^b]", "[a-c&&[^b]]", "\\d", "\\w", "\\W", "\\p{Alpha}", "\\-", "\\]", "\\x61", "\\Q]\\E", ".", "$", " "))
		}
		return text.String() + "]"
	}
	if depth == 0 {
		return pick(one(), one(), class())
	}
	var text strings.Builder
	for range 1 + r.IntN(3) {
		times := []string{"", "", "", "", "", "*", "+", "?", "*?", "+?", "??", "*+", "++", "?+"}
		inner := func() string { return randomPattern(r, depth-1) }
		switch r.IntN(14) {
		case 0:
			text.WriteString("(" + inner() + ")")
		case 1:
			text.WriteString("(?:" + inner() + "|" + inner() + ")")
		case 2:
			text.WriteString(pick("(?=", "(?!", "(?<=", "(?<!", "(?>", "(?<n>", "(?i:", "(?s:", "(?x:", "(?m:", "(?-i:", "(?iu:", "(?d:") + inner() + ")")
		case 3:
			text.WriteString(inner() + "|" + inner())
		case 4:
			text.WriteString(pick("(?i)", "(?s)", "(?x)", "(?m)", "(?-i)", "(?d)", "(?u)", "(?ix-s)"))
		case 5:
			text.WriteString(class())
		default:
			text.WriteString(one())
			// Not for groups: of what may be empty, Java counts an empty repetition for all that are left.
			times = append(times, "{2}", "{1}{2}", "{0}", "{2}?", "{1}+", "{a}")
		}
		text.WriteString(pick(times...))
	}
	return text.String()
}

// Patterns match what they match in MirrorMaker. What is refused here and taken there is named and rare.
func TestPatternsMatchAsInJava(t *testing.T) {
	lists := slices.Clone(goldenPatterns)
	for r := random(t); len(lists) < randomPatterns; {
		list := randomPattern(r, r.IntN(3))
		if r.IntN(5) == 0 {
			list += " , " + randomPattern(r, 1)
		}
		lists = append(lists, list)
	}
	var names strings.Builder
	for _, name := range patternNames {
		names.WriteString(" " + base64of(name))
	}
	var cases []string
	for _, list := range lists {
		cases = append(cases, base64of(list)+names.String())
	}
	counts := map[string]int{}
	for i, answer := range judged(t, "TopicFilters", cases) {
		counts[comparePattern(t, lists[i], answer)]++
	}
	t.Logf("of %d lists: %v", len(lists), counts)
	if counts["not supported"] > len(lists)/20 {
		t.Errorf("%d patterns are taken in Java alone", counts["not supported"])
	}
	if counts["both"] < len(lists)/4 {
		t.Errorf("only %d patterns are taken by both", counts["both"])
	}
}

var (
	wordEdge = regexp.MustCompile(`\\[bB]`)
	ascii    = regexp.MustCompile(`^[\x00-\x7F]*$`)
)

// comparePattern says what became of a list.
func comparePattern(t *testing.T, list, answer string) string {
	patterns, err := spec.ParsePatterns(list)
	why, wrong := strings.CutPrefix(answer, "wrong ")
	switch {
	case wrong && err != nil:
		return "neither"
	case wrong && strings.HasPrefix(why, "Configuration 'topics'"):
		return "empty or double parts" // earlier MirrorMakers take them
	case wrong && strings.HasPrefix(why, "Look-behind group does not have an obvious maximum length"):
		return "look-behind without bound" // can be matched here
	case wrong:
		t.Errorf("%q: Java refuses it: %s", list, why)
		return "kferry"
	case err != nil && strings.Contains(err.Error(), "is not supported"):
		return "not supported"
	case err != nil && strings.Contains(err.Error(), "takes more than"):
		return "takes too long"
	case err != nil:
		t.Errorf("%q: Java takes it: %v", list, err)
		return "Java"
	}
	for i, name := range patternNames {
		if wordEdge.MatchString(list) && !ascii.MatchString(name) {
			continue // \b is about ASCII only from JDK 19 on, and here
		}
		if got := patterns.Match(name); answer[i] != 'x' && got != (answer[i] == '1') {
			t.Errorf("%q matches %q: %v, in Java %c", list, name, got, answer[i])
			break
		}
	}
	return "both"
}

const randomMirrors = 500

// randomMirror sets keys where people set them: at the top, for a cluster and for a flow.
func randomMirror(r *rand.Rand) string {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	aliases := []string{"A", "B", "A.x"}[:2+r.IntN(2)]
	file := []string{"clusters = " + strings.Join(aliases, ",")}
	for _, alias := range aliases {
		file = append(file, fmt.Sprintf("%s.bootstrap.servers = %s:%d", alias, strings.ToLower(alias), 1+r.IntN(9)))
	}
	flow := func() string { return pick(aliases...) + "->" + pick(aliases...) + "." }
	for range r.IntN(20) {
		key, level := "", pick("", flow(), flow(), pick(aliases...)+".")
		switch r.IntN(12) {
		case 0:
			key = "topics = " + pick("a.*", "b", "c, d")
		case 1:
			key = "groups.exclude = " + pick("x", "y, z")
		case 2:
			key = "replication.factor = " + pick("1", "2", "3")
		case 3:
			key = pick("consumer.", "source.consumer.") + "isolation.level = " + pick("read_committed", "read_uncommitted")
		case 4:
			key = "emit.heartbeats.enabled = " + pick("true", "false", "FALSE")
		case 5:
			key = "emit.heartbeats.interval.seconds = " + pick("1", "2", "3")
		case 6:
			key = "tasks.max = " + pick("1", "7")
		case 7:
			key = "use.defaults.from = " + pick("source", "target")
		case 8:
			key = "sync.group.offsets.enabled = " + pick("true", "false")
		case 9:
			key = "offset.storage.topic = " + pick("one", "two")
		case 10:
			key = "group.id = " + pick("one", "two")
		case 11:
			level = flow()
			key = "enabled = " + pick("true", "false")
		}
		file = append(file, level+key)
	}
	file = append(file, "A->B.enabled = true") // or there would be nothing to copy
	return strings.Join(file, "\n") + "\n"
}

// What mm2.properties says means what it means to MirrorMaker's driver: flows, heartbeats and what is said of them.
func TestDedicatedModeIsAsMirrorMakers(t *testing.T) {
	var files, cases []string
	for r := random(t); len(files) < randomMirrors; {
		files = append(files, randomMirror(r))
		cases = append(cases, base64of(files[len(files)-1]))
	}
	flows := 0
	for i, answer := range judged(t, "DedicatedMode", cases) {
		s, err := spec.Load(nil, []string{"KFERRY_MIRROR=" + files[i]})
		if err != nil {
			t.Fatalf("%s: %v", files[i], err)
		}
		got, want := mirrorOf(s), mirrorMakersOf(t, answer)
		if got != want {
			t.Fatalf("%s\nis\n%s\nand to MirrorMaker\n%s", files[i], got, want)
		}
		flows += len(s.Flows)
	}
	t.Logf("%d files with %d flows", len(files), flows)
}

// mirrorOf says what a Spec does, a line for each flow and heartbeat, in order.
func mirrorOf(s spec.Spec) string {
	var lines []string
	for _, f := range s.Flows {
		defaults := "target"
		if f.Configs.SourceDefaults {
			defaults = "source"
		}
		lines = append(lines, fmt.Sprintf("flow %s %s %s topics %s but not groups %s factor %d offsets %s group %s %s tasks %d defaults %s sync %v",
			f.Name(), s.Cluster(f.Source).BootstrapServers[0], s.Cluster(f.Target).BootstrapServers[0], f.Filters[0].Topics, f.Groups.Exclude,
			f.ReplicationFactor, f.OffsetsTopic, f.ConnectGroup, f.Isolation, f.MaxLeases, defaults, f.Groups.Sync))
	}
	for _, h := range s.Heartbeats {
		lines = append(lines, fmt.Sprintf("heartbeat %s every %s", spec.FlowName(h.Source, h.Target), h.Interval))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// mirrorMakersOf says the same of what MirrorMaker's connectors are told. Where they are told nothing, kferry's defaults stand in.
func mirrorMakersOf(t *testing.T, answer string) string {
	pairs := map[string]map[string]string{}
	for word := range strings.FieldsSeq(answer) {
		pair, setting, _ := strings.Cut(word, ":")
		key, text, _ := strings.Cut(setting, "=")
		if pairs[pair] == nil {
			pairs[pair] = map[string]string{}
		}
		pairs[pair][decoded(t, key)] = strings.TrimSpace(decoded(t, text))
	}
	var lines []string
	for pair, told := range pairs {
		say := func(otherwise string, keys ...string) string {
			for _, key := range keys {
				if told[key] != "" {
					return told[key]
				}
			}
			return otherwise
		}
		list := func(otherwise, key string) string { return strings.ReplaceAll(say(otherwise, key), ", ", "|") }
		if strings.EqualFold(told["enabled"], "true") {
			lines = append(lines, fmt.Sprintf("flow %s %s %s topics %s but not groups %s factor %s offsets %s group %s %s tasks %s defaults %s sync %s",
				pair, told["source.cluster.bootstrap.servers"], told["target.cluster.bootstrap.servers"], list(".*", "topics"),
				list("console-consumer-.*|connect-.*|__.*", "groups.exclude"), say("-1", "replication.factor"),
				told["worker.offset.storage.topic"], told["worker.group.id"], say("read_committed", "source.consumer.isolation.level", "consumer.isolation.level"),
				say("0", "tasks.max"), say("target", "use.defaults.from"), say("false", "sync.group.offsets.enabled")))
		}
		if !strings.EqualFold(told["emit.heartbeats.enabled"], "false") {
			lines = append(lines, fmt.Sprintf("heartbeat %s every %ss", pair, say("1", "emit.heartbeats.interval.seconds")))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// The keys that reach MirrorMaker's connectors from the top of mm2.properties are known: others do nothing there.
func TestConnectorKeysAreKnown(t *testing.T) {
	for _, key := range strings.Fields(string(testbed.Judge(t, nil, "ConnectorKeys"))) {
		if strings.HasPrefix(key, "sasl.") || strings.HasPrefix(key, "ssl.") {
			continue // refused, wherever they stand
		}
		s, err := spec.Load(nil, []string{"KFERRY_MIRROR=clusters = a, b\na.bootstrap.servers = a:1\nb.bootstrap.servers = b:1\na->b.enabled = true\n" + key + " = \n"})
		said := strings.Join(s.Warnings, "\n")
		if err != nil {
			said += err.Error()
		}
		if strings.Contains(said, "MirrorMaker ignores it") || strings.Contains(said, "did you mean") {
			t.Errorf("%s: %s", key, said)
		}
	}
}
