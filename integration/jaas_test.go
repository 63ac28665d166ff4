package integration

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/kferry/kferry/integration/testbed"
	"github.com/kferry/kferry/shared/spec"
)

const randomJAAS = 20_000

// goldenJAAS are those that said something about the grammar once.
var goldenJAAS = []string{
	"", " ", ";", "a.B", "a.B required", "a.B required;", "a.B required; ", "a.B required;;", "a.B REQUIRED;", "a.B Requisite;", "a.B sufficient;", "a.B optional;", "a.B mandatory;",
	`a.B required x="y";`, `a.B required x='y';`, `a.B required x=y;`, `a.B required x=1;`, `a.B required x=-1;`, `a.B required x=y1.2-3;`, `a.B required x=1y;`, `a.B required x=.5;`,
	`a.B required x="a\"b";`, `a.B required x="a\\b";`, `a.B required x="a\tb\nc\rd\fe\vf\ag\bh";`, `a.B required x="\101\7\377\400\08\1011";`, `a.B required x="\q\'\;";`,
	`a.B required x="y`, "a.B required x=\"y\n;", "a.B required x=\"y\n\";", `a.B required x="y\`, "a.B required x=\"y\\\nz\";", `a.B required x="y';`, `a.B required x='y"';`,
	`a.B required x=;`, `a.B required x;`, `a.B required x==y;`, `a.B required x=y=z;`, `a.B required ="y";`, `a.B required = = y;`, `a.B required 1 = y;`, `a.B required ""="y";`, `a.B required x="";`,
	`"a.B" required;`, `"" required;`, `'a B' required;`, `1a.B required;`, `a.B "required";`, `a.B = required;`, `$a_B-c required;`, `-a required;`, `a.B required $x-y_z.1=_;`,
	"a.B required // x=y\n z=w;", "a.B required /* x=y */ z=w;", "a.B required /* x=y\n*/ z=w;", "a.B required /**/ z=w;", "a.B required /* z=w;", "a.B required / x=y\n z=w;", "a.B required /\nz=w;\nv=u;",
	"a.B required /*\n*/ z=w;", "a.B required /*\n/ */ z=w;", "a.B required /*\r\n*/ z=w;", "a.B required /***/ z=w;", "a.B required /* * / */ z=w;", "a.B required x=/etc/key;", "a.B required x=y/z\n;", "/ a.B required;\na.B required;",
	"a.B required x=y;b.C required;", "a.B required x=y; // z", "a.B required x=y x=z;", "a.B\trequired\r\nx\f=\x0by;", "a.B\x00required;", "é.É required ü=ö;", "a.B required x=\u0085;", "a.B required x=\u00a0;", "a.B required x=\U0001f600;",
	"a.B required x=\x7f;", "a.B requ\u0131red;", "a.B required x=y#z;", "a.B required x=y@z;", "a.B required x=y,z=w;", "a.B required x=${y};", "a.B required x=\"${file:/a:b}\";", "a.B {required};", "KafkaClient { a.B required; };",
	`org.apache.kafka.common.security.plain.PlainLoginModule required username="$ConnectionString" password="Endpoint=sb://x/;SharedAccessKey=a+/=";`,
	`software.amazon.msk.auth.iam.IAMLoginModule required;`,
	"com.sun.security.auth.module.Krb5LoginModule required useKeyTab=true storeKey=true\n keyTab=\"/etc/x.keytab\" principal=\"a/b@C\";",
}

// randomText is made of what the grammar knows. Half of them are a module whose parts are right one by one.
func randomText(r *rand.Rand) string {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	parts := []string{
		"a", "B.c", "required", "Optional", "x", "y1", "1", "-", ".", "-2.5", "_", "$", "=", "=", "=", ";", ";", "\"", "'", "\\", "\\\\", "\\\"", "\\'", "\\n", "\\t", "\\0", "\\12", "\\377", "\\400", "\\8", "\\q",
		"/", "//", "/*", "*/", "*", "\n", "\r", "\r\n", " ", " ", "\t", "\x00", "\x7f", "\u0080", "\u009f", "\u00a0", "é", "\uffff", "\U0001f600", "#", "@", "{", "}", ",", ":", "+", "\"v\"", "'w'", "\"\"",
	}
	any := func(most int) string {
		var text strings.Builder
		for range r.IntN(most) {
			text.WriteString(pick(parts...))
		}
		return text.String()
	}
	if r.IntN(4) == 0 {
		return any(24)
	}
	rare := func(wrong, right string) string {
		if r.IntN(20) == 0 {
			return wrong
		}
		return right
	}
	gap := func() string { return pick(" ", " ", "\n", " /* c */ ", " // c\n", "\t", rare("", " "), "/x\n") }
	text := rare("1", pick("a.B", "'a.B'", "é", "$a")) + gap() + rare(pick("needed", ""), pick("required", "REQUIRED", "optional", "\"requisite\""))
	for range r.IntN(4) {
		text += gap() + rare("1", pick("x", "y", "user-name", "a.b", "_", "\"z\"")) + rare("", pick("=", " = ", gap()+"="+gap()))
		switch quote := pick("\"", "'", ""); quote {
		case "":
			text += rare(pick("1", "/etc"), pick("true", "v1", "é", "a-b.c"))
		default:
			text += quote + any(6) + quote
		}
	}
	return text + pick("", gap()) + rare(pick("", ";;", "; b.C required;"), ";") + pick("", gap())
}

// Texts of sasl.jaas.config mean what they mean to Kafka's clients.
func TestJAASIsReadAsKafkaReadsIt(t *testing.T) {
	texts := goldenJAAS
	for r := random(t); len(texts) < randomJAAS; {
		texts = append(texts, randomText(r))
	}
	var cases []string
	for _, text := range texts {
		cases = append(cases, base64of(text))
	}
	counts := map[string]int{}
	for i, answer := range judged(t, "JaasConfigs", cases) {
		counts[compareJAAS(t, texts[i], answer)]++
	}
	t.Logf("of %d texts: %v", len(texts), counts)
	if counts["both"] < len(texts)/8 || counts["neither"] < len(texts)/8 {
		t.Errorf("too few are taken, or refused, by both: %v", counts)
	}
	if counts["an option without a name"] > len(texts)/20 {
		t.Errorf("too many are taken in Java alone: %v", counts)
	}
}

// compareJAAS says what became of a text.
func compareJAAS(t *testing.T, text, answer string) string {
	got, err := spec.ParseJAAS(text)
	words := strings.Split(answer, " ")
	switch {
	case words[0] == "wrong" && err != nil:
		return "neither"
	case words[0] == "wrong":
		t.Errorf("%q: Kafka refuses it: %s", text, answer)
		return "kferry"
	case strings.Contains(answer, " -="): // to Kafka null is a name like others
		if err == nil {
			t.Errorf("%q: has an option without a name, and is taken", text)
		}
		return "an option without a name"
	case err != nil:
		t.Errorf("%q: Kafka takes it: %v", text, err)
		return "Kafka"
	}
	want, given := map[string]string{}, map[string]string{}
	for _, pair := range words[3:] {
		name, value, _ := strings.Cut(pair, "=")
		want[decoded(t, name)] = decoded(t, value)
	}
	for name, value := range got.Options {
		given[name] = string(value)
	}
	if got.Module != decoded(t, words[1]) || got.Flag != words[2] || !maps.Equal(given, want) {
		t.Errorf("%q: %q %q %q, Kafka has %q %q %q", text, got.Module, got.Flag, given, decoded(t, words[1]), words[2], want)
	}
	return "both"
}

// No property of Kafka's clients is one that nobody has heard of.
func TestClientPropertiesAreKnown(t *testing.T) {
	keys := strings.Fields(string(testbed.Judge(t, nil, "ClientProperties")))
	if len(keys) < 50 {
		t.Fatalf("Kafka has %q", keys)
	}
	given := map[string]string{"sasl.unheard.of": ""}
	for _, key := range keys {
		given[key] = "x"
	}
	_, warnings, err := spec.ParseSecurity(given)
	for _, line := range append(warnings, strings.Split(fmt.Sprint(err), "\n")...) {
		if unknown := strings.Contains(line, "no such setting"); unknown != strings.Contains(line, "sasl.unheard.of") {
			t.Error(line)
		}
	}
}
