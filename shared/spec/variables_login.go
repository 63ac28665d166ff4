package spec

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// This file reads the variables that say how plain variables' clusters are spoken to. They have no fields of their own in variables, since
// each is there for both sides.

const (
	sourcePrefix = "KFERRY_SOURCE_"
	targetPrefix = "KFERRY_TARGET_"
	// fileSuffix has a variable name the file that holds the value.
	fileSuffix = "_FILE"
)

// A loginVariable is one behind KFERRY_SOURCE_ or KFERRY_TARGET_.
type loginVariable struct {
	name, key, meaning string
	// fromFile is whether the variable names a file; also whether a second one may, under the name with fileSuffix.
	fromFile, orFile bool
	asks             string // the protocol that it makes no sense without
}

var loginVariables = []loginVariable{
	{name: "SECURITY_PROTOCOL", key: protocolKey, meaning: "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL; what the others below need where not set, over TLS"},
	{name: "TLS_CA_FILE", key: "ssl.truststore.location", asks: "SSL", meaning: "whom to trust: PEM, JKS or PKCS12; whom the system trusts where not set"},
	{name: "TLS_CERT_FILE", key: "ssl.keystore.certificate.chain", fromFile: true, asks: "SSL", meaning: "kferry's own certificate with its chain, PEM"},
	{name: "TLS_KEY_FILE", key: "ssl.keystore.key", fromFile: true, asks: "SSL", meaning: "its private key, PKCS #8 in PEM"},
	{name: "TLS_KEY_PASSWORD", key: "ssl.key.password", orFile: true, asks: "SSL", meaning: "password of the private key"},
	{name: "TLS_VERIFY_HOSTNAME", key: identificationKey, asks: "SSL", meaning: "whether a broker's certificate has to bear the name that is connected to; true where not set"},
	{name: "SASL_MECHANISM", key: "sasl.mechanism", asks: "SASL_SSL", meaning: "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER, AWS_MSK_IAM or GSSAPI"},
	{name: "SASL_USERNAME", key: "sasl.username", asks: "SASL_SSL", meaning: "user, for PLAIN and SCRAM"},
	{name: "SASL_PASSWORD", key: "sasl.password", orFile: true, asks: "SASL_SSL", meaning: "password of the user"},
	{name: "SASL_JAAS_CONFIG", key: "sasl.jaas.config", orFile: true, asks: "SASL_SSL", meaning: "the login as Java's clients have it, in place of user and password"},
	{name: "OAUTH_TOKEN_ENDPOINT", key: "sasl.oauthbearer.token.endpoint.url", asks: "SASL_SSL", meaning: "URL that gives tokens, for OAUTHBEARER"},
	{name: "OAUTH_CLIENT_ID", key: "sasl.oauthbearer.client.credentials.client.id", asks: "SASL_SSL", meaning: "id of the client there"},
	{name: "OAUTH_CLIENT_SECRET", key: "sasl.oauthbearer.client.credentials.client.secret", orFile: true, asks: "SASL_SSL", meaning: "its secret"},
	{name: "OAUTH_SCOPE", key: "sasl.oauthbearer.scope", asks: "SASL_SSL", meaning: "scope that tokens are asked for"},
	{name: "PROPERTIES", meaning: "further client properties (ssl.…, sasl.…), or all of them: the path of a client.properties, or lines of one"},
}

// names are those of the variable on one side.
func (v loginVariable) names(prefix string) []string {
	if v.orFile {
		return []string{prefix + v.name, prefix + v.name + fileSuffix}
	}
	return []string{prefix + v.name}
}

// isLoginVariable says whether a variable says how a cluster is spoken to.
func isLoginVariable(name string) bool {
	return slices.ContainsFunc(loginVariables, func(v loginVariable) bool {
		return slices.Contains(v.names(sourcePrefix), name) || slices.Contains(v.names(targetPrefix), name)
	})
}

func likeLogin(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !isLoginVariable(name) })
}

// loginTable are the rows of the variables of both sides.
func loginTable() (rows []Variable) {
	for _, v := range loginVariables {
		for i, name := range v.names(sourcePrefix) {
			meaning := v.meaning
			if i == 1 {
				meaning = "file that holds " + sourcePrefix + v.name
			} else if v.fromFile {
				meaning = "file of " + v.meaning
			}
			rows = append(rows, Variable{Name: name, Meaning: "the source's: " + meaning})
		}
	}
	for _, row := range slices.Clone(rows) {
		rows = append(rows, Variable{Name: targetPrefix + strings.TrimPrefix(row.Name, sourcePrefix), Meaning: "the same of the target"})
	}
	return rows
}

// cluster is that of one side: SOURCE or TARGET.
func (e environment) cluster(side string, r *report) *cluster {
	prefix := "KFERRY_" + side + "_"
	get := func(name string) value {
		text := e.given[prefix+name]
		return e.value(prefix+name, text)
	}
	c := &cluster{alias: get("ALIAS"), servers: get("BOOTSTRAP_SERVERS"), config: e.properties(prefix, r)}
	asks := value{}
	for _, v := range loginVariables {
		given, ok := e.one(v, prefix, r)
		if !ok || v.key == "" {
			continue
		}
		if v.key == identificationKey {
			given = e.hostNames(given, r)
		}
		if earlier := c.config[v.key]; earlier.set && earlier.text != given.text {
			r.wrongf(given, "%s has another %s (%s); give one of them", prefix+"PROPERTIES", v.key, earlier.place())
		}
		c.config[v.key] = given
		if v.asks != "" && (!asks.set || v.asks != "SSL") {
			asks = given.saying(v.asks)
		}
	}
	if !c.config[protocolKey].set && asks.set {
		if slices.ContainsFunc(slices.Collect(maps.Keys(c.config)), isSASL) {
			asks.text = "SASL_SSL" // the login may stand in PROPERTIES
		}
		c.config[protocolKey] = asks
	}
	e.mechanism(prefix, c, r)
	return c
}

// mechanism has variables name the mechanism, where Kafka would take GSSAPI, which nobody means who gives a user. Those for OAuth say it.
func (e environment) mechanism(prefix string, c *cluster, r *report) {
	protocol, name := c.config[protocolKey], prefix+"SASL_MECHANISM"
	if c.config["sasl.mechanism"].set || !strings.HasPrefix(strings.ToUpper(protocol.text), "SASL_") {
		return
	}
	for _, v := range loginVariables {
		if given := c.config[v.key]; given.set && strings.HasPrefix(v.name, "OAUTH_") {
			c.config["sasl.mechanism"] = given.saying(string(OAUTHBEARER))
			return
		}
	}
	r.wrongf(protocol.bare(), "asks for a login, and %s is not set; give %s", name, orList(slices.Sorted(maps.Keys(modules))))
	c.config["sasl.mechanism"] = value{path: name, set: true, lost: true}
}

// one is what a variable says, or the file that it or the second of its kind names.
func (e environment) one(v loginVariable, prefix string, r *report) (value, bool) {
	name := prefix + v.name
	text, given := e.given[name]
	path, named := e.given[name+fileSuffix]
	at := e.value(name, text)
	switch {
	case v.orFile && given && named:
		r.wrongf(at, "is set, and so is %s; unset one of them", name+fileSuffix)
	case v.orFile && named:
		return e.inFile(e.value(name+fileSuffix, path), r)
	case v.fromFile && given:
		return e.inFile(at, r)
	}
	return at, given && at.set
}

// inFile is a reference to all that is in a file.
func (e environment) inFile(at value, r *report) (value, bool) {
	if !at.set {
		return at, false
	}
	if strings.ContainsAny(at.text, ":}") {
		r.wrong(at, errors.New("a path can't have a colon or a closing brace; rename the file"))
		return at, false
	}
	dir, name := filepath.Split(at.text)
	if dir == "" {
		dir = "."
	}
	at.text = fmt.Sprintf("${directory:%s:%s}", dir, name)
	return at, true
}

func (e environment) hostNames(v value, r *report) value {
	if v = v.saying(v.text); read(r, v, parseBool, true) {
		return v.saying("https")
	}
	return v.saying("")
}

// properties are what one side's PROPERTIES say, of which security counts.
func (e environment) properties(prefix string, r *report) settings {
	at := e.value(prefix+"PROPERTIES", e.given[prefix+"PROPERTIES"])
	config := settings{}
	if !at.set {
		return config
	}
	file, text := at.path, at.text
	if !strings.ContainsAny(text, "=\n") {
		content, err := readValue(text)
		if err != nil {
			r.wrong(at, err)
			return config
		}
		file, text = at.text, latin1([]byte(content))
	}
	for _, entry := range readProperties(file, text, r) {
		entry.text = strings.TrimSpace(entry.text)
		switch {
		case clientSecurity.MatchString(entry.path), strings.HasPrefix(entry.path, providersKey):
			config[entry.path] = entry.value
		case entry.path != "bootstrap.servers":
			r.pass(entry.value, "only security.protocol, ssl.… and sasl.… count here")
		}
	}
	return config
}

// inVariables has a mistake in a variable told by the names of variables, where those of client properties would be.
func inVariables(p problem) problem {
	for _, prefix := range []string{sourcePrefix, targetPrefix} {
		if p.at.file != "" || !strings.HasPrefix(p.at.path, prefix) {
			continue
		}
		p.text = clientProperty.ReplaceAllStringFunc(p.text, func(key string) string {
			for _, v := range loginVariables {
				if v.key == key {
					return prefix + v.name
				}
			}
			return key
		})
	}
	return p
}

// clientProperty finds names of client properties in a text.
var clientProperty = regexp.MustCompile(`\b(?:security|ssl|sasl)(?:\.[a-z]+)+`)

// loginNames are the variables of a login that are set.
func (e environment) loginNames() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(e.given)), func(name string) bool { return !isLoginVariable(name) })
}
