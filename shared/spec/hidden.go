package spec

import (
	"regexp"
	"strings"
)

// This file says which settings nobody but their owner may see, once for all that shows or writes them.

// secretWords end the names of settings, and of login modules' options, that hold secrets.
const secretWords = `(?:password|secret|passphrase|token|assertion|secret\w*key|keystore\.key|jaas\.config)`

var secretName = regexp.MustCompile(`(?i)` + secretWords + `$`)

func isSecret(name string) bool { return secretName.MatchString(name) }

// isCertificate finds what is no secret, and too long to be shown.
func isCertificate(name string) bool {
	return strings.HasSuffix(name, "ssl.truststore.certificates") || strings.HasSuffix(name, "ssl.keystore.certificate.chain")
}

// jaasSecret finds the options of a login module that hold secrets, in texts that JAAS can't read too.
var jaasSecret = regexp.MustCompile(`(?i)` + secretWords + `\s*=\s*(?:"((?:[^"\\]|\\.)*)"?|'((?:[^'\\]|\\.)*)'?|([^\s;"']+))`)

// hideSecrets hides secrets that stand in the input as they are: all of the text, or of JAAS the options that hold secrets. What is referred
// to is none of them.
func (v value) hideSecrets(key string) value {
	switch {
	case !isSecret(key) && !inURL.MatchString(v.text) && !strings.Contains(v.text, "PRIVATE KEY"): // which people put beside its certificate
		return v
	case !strings.HasSuffix(key, "jaas.config"):
		return v.hideLiteral(v.text)
	case apartFromReferences(v.text) == "":
		return v
	}
	for _, found := range jaasSecret.FindAllStringSubmatch(v.text, -1) {
		v = v.hideLiteral(found[1] + found[2] + found[3])
	}
	if jaas, err := ParseJAAS(reference.ReplaceAllString(v.text, "reference")); err != nil {
		v.literal = true
	} else {
		for name, text := range jaas.Options {
			v.literal = v.literal || isSecret(name) && strings.ReplaceAll(string(text), "reference", "") != ""
		}
	}
	if v.hidden == "" {
		v.hidden = hiddenEnd // it is not shown, whatever it holds
	}
	return v
}

// hideLiteral hides what of a text is no reference.
func (v value) hideLiteral(text string) value {
	if apartFromReferences(text) == "" {
		return v
	}
	v.literal = true
	for _, part := range reference.Split(text, -1) {
		v = v.hidePart(part)
	}
	return v
}

// apartFromReferences is what of a text is no reference.
func apartFromReferences(text string) string {
	return strings.TrimSpace(reference.ReplaceAllString(text, ""))
}
