package spec_test

import (
	"fmt"
	"maps"
	"regexp"
	"strings"
	"testing"

	"github.com/kferry/kferry/shared/spec"
)

// The grammar is held against Kafka's own in integration/jaas_test.go; here is what a reader should know of it.
func TestJAAS(t *testing.T) {
	for text, want := range map[string]map[string]string{
		`a.B required;`:                                             {},
		`a.B required x="y" 'z'='w';`:                               {"x": "y", "z": "w"},
		`a.B REQUIRED x=true y=Z.1-2;`:                              {"x": "true", "y": "Z.1-2"},
		`a.B required x="\"\\\101\n\q";`:                            {"x": "\"\\A\nq"},
		`a.B required x="it's" y='"';`:                              {"x": "it's", "y": `"`},
		`a.B required x="1" x="2";`:                                 {"x": "2"},
		"a.B required // x=\"1\"\n /* y=\"2\" */ z=\"3\" ; // done": {"z": "3"},
	} {
		got, err := spec.ParseJAAS(text)
		given := map[string]string{}
		for name, value := range got.Options {
			given[name] = string(value)
		}
		if err != nil || got.Module != "a.B" || got.Flag != "required" || !maps.Equal(given, want) {
			t.Errorf("%s: %v %q, %v", text, got, given, err)
		}
		if strings.Contains(fmt.Sprintf("%v %+v %#v", got, got, got), "Z.1-2") {
			t.Errorf("%s: an option shows", text)
		}
	}
	for text, want := range map[string]string{
		"":                                    "holds no login module",
		"a.B":                                 "character 4 is not a control flag",
		"a.B required":                        "character 13 has no semicolon",
		`a.B required x="y"`:                  "character 19 has no semicolon",
		`a.B required x=1;`:                   "character 16 is not the value of an option",
		`a.B required x;`:                     "character 15 is not a '='",
		`a.B required ="y";`:                  "character 14 is not the name of an option",
		`a.B required x=/etc/key;`:            "character 25 is not the value of an option",
		`a.B required; b.C required;`:         "character 15 holds more than one login module",
		`; a.B required;`:                     "character 1 is not the class",
		strings.Repeat(" ", 1<<18) + "a.B r;": "is longer than 256KiB",
		"a.B required" + many(1001) + ";":     "has more than 1000 options",
	} {
		if got, err := spec.ParseJAAS(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v %v, want %q", text, got, err, want)
		}
	}
}

// many are so many options.
func many(n int) string {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, " o%d=v", i)
	}
	return text.String()
}

// safe is what an error of a JAAS text may say.
var safe = regexp.MustCompile(`^(holds no login module|begins with a quote|is longer than|what stands at character \d+ (is not|has no semicolon|has more than|holds more than))[^"\\]*(NAME="VALUE"[^"\\]*)?$`)

// FuzzJAAS gives any text as sasl.jaas.config: it is read or refused with a position, and what is read can be written and read again.
func FuzzJAAS(f *testing.F) {
	for _, text := range []string{
		`org.apache.kafka.common.security.plain.PlainLoginModule required username="u" password="p\"\\\101";`,
		`org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required oauth.access.token='x' extension_a="b";`,
		"a.B optional /* c */ x=y // d\n z = 'w';", "a.B required x=\"\n;", `"" required;`, "a.B required /*", "a.B required x='\\", "a.B required x=-1;",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := spec.ParseJAAS(text)
		if err != nil {
			if !safe.MatchString(err.Error()) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`).Replace
		again := fmt.Sprintf(`"%s" %s`, quote(got.Module), got.Flag)
		for name, value := range got.Options {
			again += fmt.Sprintf(` "%s"="%s"`, quote(name), quote(string(value)))
		}
		second, err := spec.ParseJAAS(again + ";")
		if err != nil || second.Module != got.Module || second.Flag != got.Flag || !maps.Equal(second.Options, got.Options) {
			t.Errorf("%q, written as %q: %v", text, again, err)
		}
		for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "OAUTHBEARER", "AWS_MSK_IAM", "GSSAPI"} {
			s, warnings, err := spec.ParseSecurity(map[string]string{"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": mechanism, "sasl.jaas.config": text})
			if err == nil && s.SASL == nil {
				t.Errorf("%q: neither a login nor a mistake, %q", text, warnings)
			}
		}
	})
}
