package spec

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// This file turns Kafka's client properties (security.protocol, ssl.*, sasl.*) into a Security. Names, defaults and what is refused are those
// of Kafka 4.3's clients; where kferry differs, the line says why.

// ParseSecurity reads client properties as readSecurity does. The warnings name what has no effect.
func ParseSecurity(properties map[string]string) (s Security, warnings []string, err error) {
	var r report
	config := settings{}
	for key, text := range properties {
		config[key] = value{path: key, text: text, set: true}
	}
	s = readSecurity(config, &r)
	return s, r.said(), r.err()
}

// readSecurity makes of the client properties of one connection, without any prefix, what it needs, and reports every mistake in them. What is
// no setting of security is left to others. Files are read now: whoever wants to see a change asks again.
func readSecurity(config settings, r *report) Security {
	c := clientReader{report: r, config: settings{}, used: map[string]bool{}}
	for key, v := range config {
		if clientSecurity.MatchString(key) && v.set {
			c.config[key] = v
		}
	}
	for key, v := range c.config {
		if isSecret(key) || isCertificate(key) {
			c.config[key] = v.hide()
		}
	}
	var s Security
	p := protocols[0]
	if given := c.get(protocolKey); given.set {
		p = read(r, given, parseProtocol, protocol{})
	}
	if p.tls {
		s.TLS = c.tls()
	}
	if p.sasl {
		s.SASL = c.sasl()
	}
	if p.name == "" {
		c.unclear("")
	}
	c.nameIdle(p, s)
	return s
}

// hide has no message show the text.
func (v value) hide() value {
	if v.reference == "" {
		v.reference = hidden
	}
	if v.hidden == "" {
		v = v.hidePart(v.text)
	}
	return v
}

// bare is the place of a value alone, for messages that don't quote it and hold nothing of it.
func (v value) bare() value {
	v.text, v.reference, v.hidden = "", "", ""
	return v
}

// A protocol is one of security.protocol.
type protocol struct {
	name      string
	tls, sasl bool
}

var protocols = []protocol{{name: "PLAINTEXT"}, {name: "SSL", tls: true}, {name: "SASL_PLAINTEXT", sasl: true}, {name: "SASL_SSL", tls: true, sasl: true}}

// parseProtocol takes any case, as Kafka does since 3.3.
func parseProtocol(text string) (protocol, error) {
	var names []string
	for _, p := range protocols {
		if strings.EqualFold(text, p.name) {
			return p, nil
		}
		names = append(names, p.name)
	}
	return protocol{}, fmt.Errorf("not a security protocol; give %s%s", orList(names), suggest(text, names))
}

// A clientReader reads the properties of one client.
type clientReader struct {
	*report
	config settings
	used   map[string]bool // keys that were asked for
}

func (c clientReader) get(key string) value {
	c.used[key] = true
	return c.config[key]
}

// there says whether a value is given and can be looked at.
func (v value) there() bool { return v.set && !v.lost }

// idle names a setting that has no effect. Nothing of what it says is in why.
func (c clientReader) idle(v value, why string) {
	if v = v.bare(); v.file != "" || strings.HasPrefix(why, didYouMean) {
		c.pass(v, why)
		return
	}
	c.warn(v, "has no effect in kferry: %s", why)
}

// nameIdle names what was given and not asked for.
func (c clientReader) nameIdle(p protocol, s Security) {
	var beside []string // settings of what the protocol doesn't have
	var first value
	for _, key := range slices.Sorted(maps.Keys(c.config)) {
		v := c.config[key]
		switch why, known := idleClientKey(key); {
		case c.used[key]:
		case !known:
			c.idle(v, cmp.Or(strings.TrimPrefix(suggest(key, clientKeys()), "; "), "Kafka's clients have no such setting"))
		case strings.HasPrefix(key, "ssl.") && !p.tls, strings.HasPrefix(key, "sasl.") && !p.sasl:
			if beside = append(beside, key); !first.set {
				first = v
			}
		case why != "":
			c.idle(v, why)
		case s.SASL != nil && strings.HasPrefix(key, "sasl."):
			c.idle(v, fmt.Sprintf("it is not for %s as it is given here", s.SASL.Mechanism))
		}
	}
	// MirrorMaker takes no notice of them and says nothing, also where security.protocol was forgotten.
	switch given := c.config["security.protocol"]; {
	case len(beside) == 0:
	case given.set:
		c.warn(given.bare(), "%s leaves without effect: %s", p.name, strings.Join(beside, ", "))
	default:
		c.warn(first.bare(), "security.protocol is not given, which is PLAINTEXT, and leaves without effect: %s", strings.Join(beside, ", "))
	}
}

// idleClientKeys are client properties that kferry knows and takes no notice of, by why.
var idleClientKeys = map[string]string{
	"security.providers":                       "TLS is Go's own",
	"ssl.provider":                             "TLS is Go's own",
	"ssl.keymanager.algorithm":                 "TLS is Go's own",
	"ssl.trustmanager.algorithm":               "TLS is Go's own, and checks certificates by RFC 5280",
	"ssl.secure.random.implementation":         "random numbers are the operating system's",
	"sasl.kerberos.kinit.cmd":                  "no program is run, tickets are had from the KDC itself",
	"sasl.kerberos.min.time.before.relogin":    "tickets are had anew when a connection needs one",
	"sasl.kerberos.ticket.renew.jitter":        "tickets are had anew when a connection needs one",
	"sasl.kerberos.ticket.renew.window.factor": "tickets are had anew when a connection needs one",
	"sasl.login.refresh.buffer.seconds":        refreshes,
	"sasl.login.refresh.min.period.seconds":    refreshes,
	"sasl.login.refresh.window.factor":         refreshes,
	"sasl.login.refresh.window.jitter":         refreshes,
	"sasl.oauthbearer.clock.skew.seconds":      brokersCheck,
	"sasl.oauthbearer.expected.audience":       brokersCheck,
	"sasl.oauthbearer.expected.issuer":         brokersCheck,
	"sasl.oauthbearer.jwks.endpoint.url":       brokersCheck,
	"sasl.oauthbearer.jwt.validator.class":     brokersCheck,
	"sasl.oauthbearer.scope.claim.name":        brokersCheck,
	"sasl.oauthbearer.sub.claim.name":          brokersCheck,

	"sasl.oauthbearer.jwks.endpoint.refresh.ms":           brokersCheck,
	"sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms": brokersCheck,
	"sasl.oauthbearer.jwks.endpoint.retry.backoff.ms":     brokersCheck,

	"sasl.enabled.mechanisms":                forBrokers,
	"sasl.kerberos.principal.to.local.rules": forBrokers,
	"sasl.mechanism.inter.broker.protocol":   forBrokers,
	"sasl.server.callback.handler.class":     forBrokers,
	"sasl.server.max.receive.size":           forBrokers,
	"security.inter.broker.protocol":         forBrokers,
	"ssl.allow.dn.changes":                   forBrokers,
	"ssl.allow.san.changes":                  forBrokers,
	"ssl.client.auth":                        forBrokers,
	"ssl.principal.mapping.rules":            forBrokers,
}

const (
	refreshes    = "a token is replaced when four fifths of its life are over"
	brokersCheck = "brokers check tokens, clients don't need to"
	forBrokers   = "it is a broker's setting"
)

// actingClientKeys are those that may have an effect. The ones in the last line are librdkafka's, for logins without a JAAS text.
var actingClientKeys = []string{
	"security.protocol",
	"ssl.cipher.suites", "ssl.enabled.protocols", "ssl.endpoint.identification.algorithm", "ssl.engine.factory.class", "ssl.key.password",
	"ssl.keystore.certificate.chain", "ssl.keystore.key", "ssl.keystore.location", "ssl.keystore.password", "ssl.keystore.type", "ssl.protocol",
	"ssl.truststore.certificates", "ssl.truststore.location", "ssl.truststore.password", "ssl.truststore.type",
	"sasl.client.callback.handler.class", "sasl.jaas.config", "sasl.kerberos.service.name", "sasl.login.callback.handler.class", "sasl.login.class",
	"sasl.login.connect.timeout.ms", "sasl.login.read.timeout.ms", "sasl.login.retry.backoff.max.ms", "sasl.login.retry.backoff.ms", "sasl.mechanism",
	"sasl.oauthbearer.assertion.algorithm", "sasl.oauthbearer.assertion.claim.aud", "sasl.oauthbearer.assertion.claim.exp.seconds",
	"sasl.oauthbearer.assertion.claim.iss", "sasl.oauthbearer.assertion.claim.jti.include", "sasl.oauthbearer.assertion.claim.nbf.seconds",
	"sasl.oauthbearer.assertion.claim.sub", "sasl.oauthbearer.assertion.file", "sasl.oauthbearer.assertion.private.key.file",
	"sasl.oauthbearer.assertion.private.key.passphrase", "sasl.oauthbearer.assertion.template.file", "sasl.oauthbearer.client.credentials.client.id",
	"sasl.oauthbearer.client.credentials.client.secret", "sasl.oauthbearer.header.urlencode", "sasl.oauthbearer.jwt.retriever.class",
	"sasl.oauthbearer.scope", "sasl.oauthbearer.token.endpoint.url",
	"sasl.username", "sasl.password", "sasl.kerberos.principal", "sasl.kerberos.keytab",
}

func clientKeys() []string {
	return slices.AppendSeq(slices.Clone(actingClientKeys), maps.Keys(idleClientKeys))
}

// idleClientKey is why a key has no effect, "" where it may have one, and whether there is such a key.
func idleClientKey(key string) (why string, known bool) {
	if why, known = idleClientKeys[key]; known {
		return why, true
	}
	return "", slices.Contains(actingClientKeys, key)
}

// oneClass refuses classes but those that have a counterpart here.
func (c clientReader) oneClass(key, instead string, known ...string) {
	v := c.get(key)
	if class := strings.TrimSpace(v.text); v.there() && !slices.Contains(known, class) {
		c.wrong(v, fmt.Errorf("a Java class can't be run here; %s%s", instead, suggest(class, known)))
	}
}
