package spec

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// This file reads how resources speak of TLS and SASL, and makes Kafka's client properties of it, as Strimzi does. What stands in a
// Secret becomes a reference to it, under the name of Strimzi's own provider.

const secretsProvider = "strimzisecrets"

// authentications read each type of authentication, the fields of which they take.
var authentications = map[string]func(r *resourceReader, m mapping, into settings){
	"tls":           (*resourceReader).certificateLogin,
	"scram-sha-256": (*resourceReader).passwordLogin,
	"scram-sha-512": (*resourceReader).passwordLogin,
	"plain":         (*resourceReader).passwordLogin,
	"oauth":         (*resourceReader).oauthLogin,  // until v1
	"custom":        (*resourceReader).customLogin, // since v1
}

// security reads tls and authentication of a cluster. What its config says under the same keys wins, as with Strimzi.
func (r *resourceReader) security(m mapping, c *cluster) {
	derived := settings{}
	switch n := m.take("tls"); {
	case !n.there():
	case isNull(n.target()):
		r.warn(n.at(), "is empty, which asks for nothing, as in Kubernetes; tls: {} asks for TLS, and trusts whom the system trusts")
	default:
		block := n.mapping(r.report)
		c.tls = n.at()
		c.tls.set = true
		if trusted := block.take("trustedCertificates"); trusted.there() {
			certificates := r.certificates(trusted)
			derived["ssl.truststore.type"], derived["ssl.truststore.certificates"] = certificates.saying("PEM"), certificates
		}
		r.ignoreRest(block, []string{"trustedCertificates"})
	}
	if n := m.take("authentication"); n.there() && !isNull(n.target()) {
		block := n.mapping(r.report)
		c.authentication = r.authentication(block, derived)
		c.sasl = r.asksSASL(block)
	}
	maps.DeleteFunc(derived, func(_ string, v value) bool { return !v.set })
	derived.override(securityIn(c.config, ""))
	maps.Copy(c.config, derived)
}

// saying is another text that stands in the same place.
func (v value) saying(text string) value {
	return value{file: v.file, line: v.line, path: v.path, text: text, set: v.set}
}

// certificates are references to all that a list names, one below the other. A list that names none trusts whom the system trusts.
func (r *resourceReader) certificates(list node) value {
	all := list.at()
	all.set = true
	var texts []string
	for _, item := range list.items(r.report) {
		m := item.mapping(r.report)
		if !m.there() {
			all.lost = true
			continue
		}
		secret, certificate, pattern := m.text("secretName", r.report), m.text("certificate", r.report), m.text("pattern", r.report)
		if !secret.set {
			r.wrongf(secret, "is missing; name the Secret that holds the certificate")
			all.lost = true
		}
		if certificate.set == pattern.set {
			r.wrongf(certificate, "give either certificate, a key in the Secret, or pattern, which matches keys, like *.crt")
			all.lost = true
		}
		key := certificate.text
		if pattern.set {
			globs, err := spreadGlob(pattern.text)
			if err != nil {
				r.wrong(pattern, err)
				all.lost = true
			}
			key = strings.Join(globs, globSeparator)
		}
		texts = append(texts, r.secretReference(secret.text, key))
		r.ignoreRest(m, []string{"secretName", "certificate", "pattern"})
	}
	all.text, all.set = strings.Join(texts, "\n"), all.lost || len(texts) > 0
	return all
}

// secretReference is what Strimzi puts in the place of a Secret's key.
func (r *resourceReader) secretReference(secret, key string) string {
	return "${" + secretsProvider + ":" + strings.TrimPrefix(r.namespace+"/"+secret, "/") + ":" + key + "}"
}

// secret reads a field that refers to the keys of a Secret, and is a value for each of them.
func (r *resourceReader) secret(m mapping, field string, keys ...string) []value {
	all := make([]value, len(keys))
	n := m.take(field)
	if !n.there() || isNull(n.target()) {
		return all
	}
	parts := n.mapping(r.report)
	if !parts.there() {
		return all
	}
	secret := parts.text("secretName", r.report)
	for i, key := range keys {
		v := parts.text(key, r.report)
		if v.set && secret.set {
			all[i] = v.saying(r.secretReference(secret.text, v.text))
			continue
		}
		if !v.set {
			r.wrongf(v, "is missing; %s refers to a Secret by secretName, %s", field, strings.Join(keys, ", "))
		}
		all[i] = value{lost: true, set: true}
	}
	if !secret.set {
		r.wrongf(secret, "is missing; %s refers to a Secret by secretName, %s", field, strings.Join(keys, ", "))
	}
	r.ignoreRest(parts, append(keys, "secretName"))
	return all
}

// authentication reads the login into settings, and is the type where there is one.
func (r *resourceReader) authentication(m mapping, into settings) value {
	kind := m.text("type", r.report)
	read, known := authentications[kind.text]
	types := slices.Sorted(maps.Keys(authentications))
	switch {
	case !m.there():
		return value{}
	case !kind.set:
		r.wrongf(kind, "is missing; give %s", orList(types))
		return value{}
	case !known:
		r.wrongf(kind, "%q: unknown; give %s%s", kind.text, orList(types), suggest(kind.text, types))
		return value{}
	}
	read(r, m, into)
	r.ignoreRest(m, []string{"type", "username", "passwordSecret", "certificateAndKey", "sasl", "config"})
	return kind
}

// needed takes fields, each of which an authentication can't do without.
func (r *resourceReader) needed(m mapping, kind, field string, v value) value {
	if !v.set {
		missing := m.text(field, r.report)
		r.wrongf(missing, "is missing; authentication of type %s needs it", kind)
		return value{lost: true, set: true}
	}
	return v
}

func (r *resourceReader) certificateLogin(m mapping, into settings) {
	parts := r.secret(m, "certificateAndKey", "certificate", "key")
	chain := r.needed(m, "tls", "certificateAndKey", parts[0])
	if chain.lost {
		return
	}
	into["ssl.keystore.type"], into["ssl.keystore.certificate.chain"], into["ssl.keystore.key"] = chain.saying("PEM"), chain, parts[1]
}

func (r *resourceReader) passwordLogin(m mapping, into settings) {
	kind := m.text("type", r.report)
	into["sasl.mechanism"] = kind.saying(strings.ToUpper(kind.text))
	into["sasl.username"] = r.needed(m, kind.text, "username", m.text("username", r.report))
	into["sasl.password"] = r.needed(m, kind.text, "passwordSecret", r.secret(m, "passwordSecret", "password")[0])
}

// oauthOptions are the options of Strimzi's handler, by the field that stands for each.
var oauthOptions = []struct{ field, option string }{
	{"clientId", "oauth.client.id"}, {"tokenEndpointUri", "oauth.token.endpoint.uri"}, {"username", "oauth.password.grant.username"},
	{"scope", "oauth.scope"}, {"audience", "oauth.audience"}, {"grantType", "oauth.client.credentials.grant.type"},
	{"accessTokenLocation", "oauth.access.token.location"}, {"clientAssertionLocation", "oauth.client.assertion.location"},
	{"clientAssertionType", "oauth.client.assertion.type"}, {"accessTokenIsJwt", "oauth.access.token.is.jwt"},
	{"maxTokenExpirySeconds", "oauth.max.token.expiry.seconds"}, {"connectTimeoutSeconds", "oauth.connect.timeout.seconds"},
	{"readTimeoutSeconds", "oauth.read.timeout.seconds"}, {"httpRetries", "oauth.http.retries"},
	{"httpRetryPauseMs", "oauth.http.retry.pause.millis"}, {"enableMetrics", "oauth.enable.metrics"},
	{"includeAcceptHeader", "oauth.include.accept.header"},
}

// oauthSecrets are those that stand in Secrets, by the field and the part of it that names the key.
var oauthSecrets = []struct{ field, key, option string }{
	{"clientSecret", "key", "oauth.client.secret"}, {"accessToken", "key", "oauth.access.token"}, {"refreshToken", "key", "oauth.refresh.token"},
	{"clientAssertion", "key", "oauth.client.assertion"}, {"passwordSecret", "password", "oauth.password.grant.password"},
}

// oauthLogin writes the text of JAAS that Strimzi writes.
func (r *resourceReader) oauthLogin(m mapping, into settings) {
	kind := m.text("type", r.report)
	jaas := oauthModule + " required"
	option := func(name, text string) { jaas += " " + name + `="` + text + `"` }
	for _, o := range oauthOptions {
		if v := m.text(o.field, r.report); v.set {
			option(o.option, quoteJAAS(v.text))
		}
	}
	for _, o := range oauthSecrets {
		if v := r.secret(m, o.field, o.key)[0]; v.set && !v.lost {
			option(o.option, v.text)
		}
	}
	extensions := m.take("saslExtensions").mapping(r.report)
	for _, key := range extensions.keys {
		option("oauth.sasl.extension."+key, quoteJAAS(extensions.text(key, r.report).text))
	}
	if trusted := m.take("tlsTrustedCertificates"); trusted.there() {
		if certificates := r.certificates(trusted); certificates.set {
			option("oauth.ssl.truststore.type", "PEM")
			option("oauth.ssl.truststore.certificates", certificates.text)
		}
	}
	if read(r.report, m.text("disableTlsHostnameVerification", r.report), parseBool, false) {
		option("oauth.ssl.endpoint.identification.algorithm", "")
	}
	config := kind.saying(jaas + ";")
	config.quoted = true
	into["sasl.mechanism"], into["sasl.jaas.config"] = kind.saying("OAUTHBEARER"), config
	into["sasl.login.callback.handler.class"] = kind.saying(strimziHandlers[0])
}

// quoteJAAS is a text as it stands between quotes in JAAS, where Java's tokenizer knows C's escapes and a line ends a quoted text.
func quoteJAAS(text string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`).Replace(text)
}

// customLogin reads the client properties themselves. Strimzi takes only some of them here.
func (r *resourceReader) customLogin(m mapping, into settings) {
	n := m.take("config")
	if !n.there() {
		r.needed(m, "custom", "config", value{})
	}
	config := r.config(n)
	for _, key := range slices.Sorted(maps.Keys(config)) {
		switch v := config[key]; {
		case strings.HasPrefix(key, "sasl.") || strings.HasPrefix(key, "ssl.keystore."):
			into[key] = v
		case securityKey.MatchString(key):
			r.wrongf(v, "Strimzi takes only sasl.… and ssl.keystore.… here; put it into the cluster's config, or say tls")
		default:
			r.pass(v, "Strimzi takes only sasl.… and ssl.keystore.… here")
		}
	}
	m.take("sasl")
}

// asksSASL says whether an authentication is one by SASL.
func (r *resourceReader) asksSASL(m mapping) value {
	kind := m.text("type", r.report)
	if _, known := authentications[kind.text]; !known {
		return value{}
	}
	switch sasl := m.text("sasl", r.report); kind.text {
	case "tls":
		return value{}
	case "custom":
		if !read(r.report, sasl, parseBool, false) {
			return value{}
		}
		return sasl
	}
	return kind
}

const globSeparator = "|"

// spreadGlob writes a glob of Java's without braces, as several.
func spreadGlob(glob string) ([]string, error) {
	if strings.ContainsAny(glob, "/:"+globSeparator) {
		return nil, fmt.Errorf("no key of a Secret has a character of %q; give a pattern like *.crt", "/:"+globSeparator)
	}
	before, rest, found := strings.Cut(glob, "{")
	if !found {
		if strings.Contains(glob, "}") {
			return nil, fmt.Errorf("a brace is not open; write a pattern like *.{crt,pem}")
		}
		return []string{glob}, nil
	}
	within, behind, closed := strings.Cut(rest, "}")
	if !closed || strings.Contains(within, "{") {
		return nil, fmt.Errorf("a brace is not closed; write a pattern like *.{crt,pem}")
	}
	var all []string
	for part := range strings.SplitSeq(within, ",") {
		more, err := spreadGlob(before + part + behind)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
		if len(all) > mostGlobs {
			return nil, fmt.Errorf("its braces stand for more than %d patterns; give fewer", mostGlobs)
		}
	}
	return all, nil
}

// mostGlobs bounds what braces stand for.
const mostGlobs = 100
