package spec

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Login modules, by their classes.
const (
	plainModule    = "org.apache.kafka.common.security.plain.PlainLoginModule"
	scramModule    = "org.apache.kafka.common.security.scram.ScramLoginModule"
	oauthModule    = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"
	iamModule      = "software.amazon.msk.auth.iam.IAMLoginModule"
	kerberosModule = "com.sun.security.auth.module.Krb5LoginModule"
)

// modules are the login modules that each mechanism has. Java logs in by PLAIN with the user of the module for SCRAM, too; not the other way round.
var modules = map[Mechanism][]string{
	PLAIN:       {plainModule, scramModule},
	SCRAMSHA256: {scramModule},
	SCRAMSHA512: {scramModule},
	OAUTHBEARER: {oauthModule},
	AWSMSKIAM:   {iamModule},
	GSSAPI:      {kerberosModule},
}

func parseMechanism(text string) (Mechanism, error) {
	known := slices.Sorted(maps.Keys(modules))
	if slices.Contains(known, Mechanism(text)) {
		return Mechanism(text), nil
	}
	var names []string
	for _, m := range known {
		names = append(names, string(m))
	}
	return "", fmt.Errorf("not a mechanism that kferry has; give %s%s", orList(names), suggest(text, names))
}

// sasl reads sasl.*.
func (c clientReader) sasl() *SASL {
	given := c.get("sasl.mechanism")
	s := &SASL{Mechanism: read(c.report, given, parseMechanism, "")}
	if !given.set {
		s.Mechanism = GSSAPI // as in Kafka
	}
	m, ok := c.module()
	if !given.set && ok && !m.given && !c.ofKerberos() {
		c.wrongf(m.at, "asks for a login, and sasl.mechanism is not given, which is GSSAPI to Kafka's clients; give it, and who logs in")
		ok = false
	}
	if !ok || s.Mechanism == "" {
		c.unclear("sasl.")
		return s
	}
	if fitting := modules[s.Mechanism]; m.given && !slices.Contains(fitting, m.class) {
		c.wrongModule(m, s.Mechanism)
		c.unclear("sasl.")
		return s
	}
	c.handlers(s.Mechanism)
	if c.login(s, m); m.given {
		c.leftover(m)
	}
	return s
}

// ofKerberos says whether a setting is about what Kafka takes where no mechanism is given.
func (c clientReader) ofKerberos() bool {
	for key := range c.config {
		if strings.HasPrefix(key, "sasl.kerberos.") {
			return true
		}
	}
	return false
}

// unclear has no setting that begins so named as idle: it may act when a mistake is mended.
func (c clientReader) unclear(prefix string) {
	for key := range c.config {
		if strings.HasPrefix(key, prefix) {
			_, known := idleClientKey(key)
			c.used[key] = known
		}
	}
}

// login reads what a mechanism needs.
func (c clientReader) login(s *SASL, m *loginModule) {
	if s.Mechanism == PLAIN && m.class == scramModule {
		c.warn(m.at, "has the login module for SCRAM; its user logs in by PLAIN, as sasl.mechanism says")
	}
	switch s.Mechanism {
	case OAUTHBEARER:
		c.oauth(s, m)
	case AWSMSKIAM:
		s.IAM = c.iam(m)
	case GSSAPI:
		s.Kerberos = c.kerberos(m)
	default:
		c.user(s, m)
	}
}

// A loginModule is what sasl.jaas.config says.
type loginModule struct {
	at      value // its place
	given   bool
	class   string
	options settings
	asked   []string // options that were asked for
}

// module reads sasl.jaas.config. Without one the settings beside it may be enough.
func (c clientReader) module() (*loginModule, bool) {
	v := c.get("sasl.jaas.config")
	m := &loginModule{at: firstSet(v, c.get("sasl.mechanism"), c.get("security.protocol")).bare(), given: v.set, options: settings{}}
	if !v.set {
		return m, true
	}
	if v.lost {
		return m, false
	}
	jaas, err := ParseJAAS(v.text)
	if err != nil {
		c.wrongf(m.at, "%v", err)
		return m, false
	}
	// What the text looks like before its references are resolved, to show those.
	written, err := ParseJAAS(v.reference)
	m.class = jaas.Module
	for name, text := range jaas.Options {
		option := m.place(name)
		option.text, option.set = string(text), true
		if reference, there := written.Options[name]; there && err == nil && reference != text {
			option.reference = string(reference)
			option = option.hidePart(option.text)
		} else if v.reference != hidden && err != nil {
			option = option.hide()
		}
		if isSecret(name) || isCertificate(name) {
			option.literal = apartFromReferences(option.reference) != ""
			option = option.hide()
		}
		m.options[name] = option
	}
	return m, true
}

// place is that of an option, given or not.
func (m *loginModule) place(name string) value {
	v := m.at
	v.path += ", option " + name
	return v
}

// take is an option.
func (m *loginModule) take(name string) value {
	m.asked = append(m.asked, name)
	return m.options[name]
}

// takeAll are the options that begin with a prefix, by what follows it.
func (m *loginModule) takeAll(prefix string) settings {
	all := settings{}
	for name, v := range m.options {
		if rest, found := strings.CutPrefix(name, prefix); found {
			all[rest] = v
			m.asked = append(m.asked, name)
		}
	}
	return all
}

// wrongModule reports a login module that doesn't fit. Of a text that went wrong the first word may be a secret, so only known classes show.
func (c clientReader) wrongModule(m *loginModule, mechanism Mechanism) {
	fitting := modules[mechanism][0]
	for _, class := range []string{plainModule, scramModule, oauthModule, iamModule, kerberosModule} {
		if m.class == class {
			c.wrongf(m.at, "%s is not for %s; give %s, or the sasl.mechanism that fits", class, mechanism, fitting)
			return
		}
		if simple := class[strings.LastIndexByte(class, '.'):]; strings.HasSuffix("."+m.class, simple) || suggest(m.class, []string{class}) != "" {
			c.wrongf(m.at, "has an unknown login module; %s %s?", didYouMean, class)
			return
		}
	}
	c.wrongf(m.at, "has a login module that can't be run here; give %s for %s", fitting, mechanism)
}

// leftover names options that no one asked for. Their names may be parts of a secret that should have been in quotes, so only those show that are
// close to a known one, or that other modules have.
func (c clientReader) leftover(m *loginModule) {
	if len(m.asked) == 0 {
		return // it went wrong before
	}
	var unknown int
	for _, name := range slices.Sorted(maps.Keys(m.options)) {
		switch meant := suggest(name, m.asked); {
		case slices.Contains(m.asked, name):
		case idleOptions[name] != "":
			c.idle(m.place(name), idleOptions[name])
		case meant != "":
			c.wrongf(m.place(name), "there is no such option%s", meant)
		default:
			unknown++
		}
	}
	if unknown > 0 {
		c.warn(m.at, "%s without effect, since the login module has no such; the names don't show, since they may be parts of a secret that lacks quotes", plural(unknown, "option"))
	}
}

// idleOptions are known and have no effect, by why.
var idleOptions = map[string]string{
	"awsMaxRetries":        "kferry tries as often as a connection is needed",
	"awsMaxBackOffTimeMs":  "kferry tries as often as a connection is needed",
	"awsMskRegionProvider": "the region is that in the brokers' names, or AWS_REGION",

	"clearPass": ofJava, "debug": ofJava, "doNotPrompt": ofJava, "isInitiator": ofJava, "refreshKrb5Config": ofJava, "renewTGT": ofJava,
	"storeKey": ofJava, "storePass": ofJava, "tryFirstPass": ofJava, "useFirstPass": ofJava,

	"oauth.access.token.is.jwt": "a token may be of any kind", "oauth.tokens.not.jwt": "a token may be of any kind",
	"oauth.config.id": "metrics are at /metrics", "oauth.enable.metrics": "metrics are at /metrics",
	"oauth.username.claim": ofPrincipal, "oauth.username.prefix": ofPrincipal, "oauth.fallback.username.claim": ofPrincipal,
	"oauth.fallback.username.prefix": ofPrincipal, "oauth.force.jsonpath.username.extraction": ofPrincipal,
	"oauth.ssl.secure.random.implementation": "random numbers are the operating system's",
}

const (
	ofJava      = "it is about Java's own login"
	ofPrincipal = "the name of the user is the broker's to find"
)

// handlers refuses classes that would have to be run.
func (c clientReader) handlers(m Mechanism) {
	c.oneClass("sasl.login.class", "remove it",
		"org.apache.kafka.common.security.authenticator.DefaultLogin", "org.apache.kafka.common.security.kerberos.KerberosLogin",
		"org.apache.kafka.common.security.oauthbearer.internals.OAuthBearerRefreshingLogin")
	client := []string{"org.apache.kafka.common.security.authenticator.SaslClientCallbackHandler"}
	switch m {
	case OAUTHBEARER:
		client = []string{"org.apache.kafka.common.security.oauthbearer.internals.OAuthBearerSaslClientCallbackHandler"}
	case AWSMSKIAM:
		client = []string{"software.amazon.msk.auth.iam.IAMClientCallbackHandler"}
	}
	c.oneClass("sasl.client.callback.handler.class", fmt.Sprintf("%s has %s, remove it otherwise", m, client[0]), client...)
	if m != OAUTHBEARER {
		c.oneClass("sasl.login.callback.handler.class", fmt.Sprintf("%s needs none, remove it", m),
			"org.apache.kafka.common.security.authenticator.AbstractLogin$DefaultLoginCallbackHandler")
	}
}

// user reads the name and password of PLAIN and SCRAM.
func (c clientReader) user(s *SASL, m *loginModule) {
	username, password := c.get("sasl.username"), c.get("sasl.password")
	switch {
	case m.given && (username.set || password.set):
		c.wrongf(firstSet(username, password).bare(), "and sasl.jaas.config are both given; give one of them")
		return
	case m.given:
		username, password = c.required(m, "username"), c.required(m, "password")
		if m.class == scramModule {
			s.DelegationToken = read(c.report, m.take("tokenauth"), parseJavaBool, false)
		}
	case !username.set && !password.set:
		c.wrongf(m.at, "%s needs a user; give sasl.jaas.config with %s, or sasl.username and sasl.password", s.Mechanism, modules[s.Mechanism][0])
	case !username.set:
		c.wrongf(password.bare(), "is given without sasl.username; give both")
	case !password.set:
		c.wrongf(username.bare(), "is given without sasl.password; give both")
	case username.text == "":
		c.wrongf(username.bare(), "is empty; give the name of the user")
	case password.text == "":
		c.wrongf(password.bare(), "is empty; give the password of the user")
	}
	s.Username, s.Password = username.text, Secret(password.text)
}

// required is an option that has to be there.
func (c clientReader) required(m *loginModule, name string) value {
	v := m.take(name)
	switch {
	case !v.set:
		c.wrongf(m.place(name), "is missing; the login module needs it")
	case v.text == "":
		c.wrongf(m.place(name), "is empty; give one")
	}
	return v
}

// iam reads the options of Amazon's login module, and of its callback handler for OAUTHBEARER.
func (c clientReader) iam(m *loginModule) *IAM {
	i := &IAM{
		Profile:      m.take("awsProfileName").text,
		RoleARN:      m.take("awsRoleArn").text,
		SessionName:  m.take("awsRoleSessionName").text,
		ExternalID:   m.take("awsRoleExternalId").text,
		STSRegion:    m.take("awsStsRegion").text,
		FIPS:         read(c.report, m.take("awsShouldUseFips"), parseJavaBool, false),
		Debug:        read(c.report, m.take("awsDebugCreds"), parseJavaBool, false),
		NoDefaults:   !read(c.report, m.take("awsAddDefaultProviders"), parseJavaBool, true),
		AccessKeyID:  m.take("awsRoleAccessKeyId").text,
		SecretKey:    Secret(m.take("awsRoleSecretAccessKey").text),
		SessionToken: Secret(m.take("awsRoleSessionToken").text),
	}
	switch {
	case i.RoleARN == "":
		for _, name := range []string{"awsRoleSessionName", "awsRoleExternalId", "awsRoleAccessKeyId", "awsRoleSecretAccessKey", "awsRoleSessionToken", "awsShouldUseFips"} {
			if m.options[name].set {
				c.idle(m.place(name), "it is for a role, and there is no awsRoleArn")
			}
		}
	case (i.AccessKeyID == "") != (i.SecretKey == ""):
		c.wrongf(m.at, "awsRoleAccessKeyId and awsRoleSecretAccessKey belong together; give both")
	}
	if i.NoDefaults && i.RoleARN == "" && i.Profile == "" {
		c.wrongf(m.place("awsAddDefaultProviders"), "leaves nothing to get credentials from; give awsProfileName or awsRoleArn, or remove it")
	}
	return i
}

// kerberos reads the options of Java's login module and sasl.kerberos.*.
func (c clientReader) kerberos(m *loginModule) *Kerberos {
	k := &Kerberos{Service: c.service(m)}
	principal, keytab := c.get("sasl.kerberos.principal"), c.get("sasl.kerberos.keytab")
	username, password := c.get("sasl.username"), c.get("sasl.password")
	if !m.given {
		c.kerberosSettings(k, m, firstSet(principal, username), keytab, password)
		return k
	}
	for _, v := range []value{principal, keytab, username, password} {
		if v.set {
			c.wrongf(v.bare(), "and sasl.jaas.config are both given; give one of them")
		}
	}
	k.Principal = m.take("principal").text
	fromKeytab, fromCache := read(c.report, m.take("useKeyTab"), parseJavaBool, false), read(c.report, m.take("useTicketCache"), parseJavaBool, false)
	keytab, cache := m.take("keyTab"), m.take("ticketCache")
	switch {
	case keytab.set && !fromKeytab:
		c.wrongf(m.place("useKeyTab"), "has to be true, since keyTab is given")
	case cache.set && !fromCache:
		c.wrongf(m.place("useTicketCache"), "has to be true, since ticketCache is given")
	case !fromKeytab && !fromCache:
		c.wrongf(m.at, "the login module would ask somebody for a password; give useKeyTab=true, keyTab and principal, or useTicketCache=true")
	case fromKeytab && !keytab.set:
		c.wrongf(m.place("keyTab"), "is missing; name the file")
	case fromKeytab && k.Principal == "":
		c.wrongf(m.place("principal"), "is missing; give that of the keytab, like kferry@EXAMPLE.COM")
	}
	if fromKeytab && keytab.there() {
		k.Keytab = strings.TrimPrefix(keytab.text, "file:")
		c.readable(keytab, k.Keytab)
	}
	if fromCache {
		k.TicketCache = defaultTicketCache()
		if cache.set {
			k.TicketCache = strings.TrimPrefix(strings.TrimPrefix(cache.text, "FILE:"), "file:")
		}
	}
	return k
}

// kerberosSettings is for a login without a JAAS text, in librdkafka's words.
func (c clientReader) kerberosSettings(k *Kerberos, m *loginModule, principal, keytab, password value) {
	k.Principal, k.Keytab, k.Password = principal.text, keytab.text, Secret(password.text)
	switch {
	case !principal.set && !keytab.set && !password.set:
		c.wrongf(m.at, "GSSAPI needs a principal; give sasl.jaas.config with %s, or sasl.kerberos.principal and sasl.kerberos.keytab", kerberosModule)
	case !principal.set:
		c.wrongf(m.at, "GSSAPI needs a principal; give sasl.kerberos.principal")
	case keytab.set == password.set:
		c.wrongf(m.at, "GSSAPI needs either sasl.kerberos.keytab or sasl.password; give one of them")
	case keytab.there():
		c.readable(keytab, keytab.text)
	}
}

// service is the first part of the brokers' principals.
func (c clientReader) service(m *loginModule) string {
	setting, option := c.get("sasl.kerberos.service.name"), m.take("serviceName")
	switch {
	case setting.there() && option.set && setting.text != option.text:
		c.wrong(setting, fmt.Errorf("is %q as serviceName in sasl.jaas.config; give one of them", option.shown()))
	case firstSet(setting, option).lost:
	case firstSet(setting, option).text == "":
		c.wrongf(m.at, "GSSAPI needs the name that brokers run as; give sasl.kerberos.service.name, which is kafka most often")
	}
	return firstSet(setting, option).text
}

// defaultTicketCache is where Java looks.
func defaultTicketCache() string {
	if path := os.Getenv("KRB5CCNAME"); path != "" {
		return strings.TrimPrefix(path, "FILE:")
	}
	return "/tmp/krb5cc_" + strconv.Itoa(os.Getuid())
}

// readable reports a file that can't be read.
func (c clientReader) readable(v value, path string) {
	if _, err := readBytes(path); err != nil {
		c.wrong(v, err)
	}
}
