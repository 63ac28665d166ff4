package spec

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Login callback handlers: where a token for OAUTHBEARER comes from. Kafka moved its own in 3.4 and 4.1.
var (
	kafkaHandlers = []string{
		"org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginCallbackHandler",
		"org.apache.kafka.common.security.oauthbearer.secured.OAuthBearerLoginCallbackHandler",
	}
	unsecuredHandlers = []string{
		"org.apache.kafka.common.security.oauthbearer.internals.unsecured.OAuthBearerUnsecuredLoginCallbackHandler",
	}
	strimziHandlers = []string{"io.strimzi.kafka.oauth.client.JaasClientOauthLoginCallbackHandler"}
	iamHandlers     = []string{"software.amazon.msk.auth.iam.IAMOAuthBearerLoginCallbackHandler"}
)

const handlerKey = "sasl.login.callback.handler.class"

// oauth reads a login with tokens. Without a handler Kafka makes an unsigned token, whatever else is given; here what is given decides.
func (c clientReader) oauth(s *SASL, m *loginModule) {
	for _, key := range []string{"sasl.username", "sasl.password"} {
		if v := c.get(key); v.set {
			c.wrongf(v.bare(), "is for PLAIN, SCRAM and GSSAPI; give sasl.oauthbearer.client.credentials.client.id and .secret")
		}
	}
	handler := c.get(handlerKey)
	class := strings.TrimSpace(handler.text)
	if !handler.set {
		class = c.impliedHandler(m)
	}
	switch {
	case handler.lost:
	case slices.Contains(kafkaHandlers, class):
		s.OAuth = c.oidc(m)
	case slices.Contains(strimziHandlers, class):
		s.OAuth = c.strimziOAuth(m)
	case slices.Contains(iamHandlers, class):
		s.IAM = c.iam(m)
	case slices.Contains(unsecuredHandlers, class):
		s.OAuth = c.unsecured(m)
	default:
		c.oneClass(handlerKey, fmt.Sprintf("give %s for a token endpoint, or one of Strimzi's or Amazon's", kafkaHandlers[0]),
			slices.Concat(kafkaHandlers, strimziHandlers, iamHandlers, unsecuredHandlers)...)
		c.unclear("sasl.")
	}
}

func (c clientReader) impliedHandler(m *loginModule) string {
	begins := func(prefix string) bool {
		return slices.ContainsFunc(slices.Collect(maps.Keys(m.options)), func(name string) bool { return strings.HasPrefix(name, prefix) })
	}
	switch {
	case begins("oauth."):
		return strimziHandlers[0]
	case begins("unsecuredLogin"):
		return unsecuredHandlers[0]
	}
	return kafkaHandlers[0]
}

const (
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	jwtRetriever  = "org.apache.kafka.common.security.oauthbearer."
)

// oidc reads what Kafka's own handler does.
func (c clientReader) oidc(m *loginModule) *OAuth {
	o := &OAuth{
		AcceptHeader:   true,
		Scope:          strings.TrimSpace(c.prefer(m, "sasl.oauthbearer.scope", "scope").text),
		Extensions:     c.extensions(m, m.takeAll("extension_")),
		Encode:         read(c.report, c.get("sasl.oauthbearer.header.urlencode"), parseJavaBool, false),
		ConnectTimeout: read(c.report, c.get("sasl.login.connect.timeout.ms"), parseMillis, 0),
		ReadTimeout:    read(c.report, c.get("sasl.login.read.timeout.ms"), parseMillis, 0),
		RetryPause:     read(c.report, c.get("sasl.login.retry.backoff.ms"), parseMillis, 100*time.Millisecond),
		RetryFor:       read(c.report, c.get("sasl.login.retry.backoff.max.ms"), parseMillis, 10*time.Second),
	}
	id, secret := c.prefer(m, clientIDKey, "clientId"), c.prefer(m, clientSecretKey, "clientSecret")
	retriever := c.get("sasl.oauthbearer.jwt.retriever.class")
	class, own := strings.CutPrefix(strings.TrimSpace(retriever.text), jwtRetriever)
	if !retriever.set {
		class, own = "DefaultJwtRetriever", true
	}
	endpoint := c.get("sasl.oauthbearer.token.endpoint.url")
	if !endpoint.set {
		c.wrongf(m.at, "OAUTHBEARER needs an endpoint that gives tokens; give sasl.oauthbearer.token.endpoint.url")
	}
	where := read(c.report, endpoint, parseEndpoint, nil)
	isFile := where != nil && where.Scheme == "file"
	o.TLS = c.endpointTLS(m.takeAll("ssl."), m)
	switch {
	case !own || !slices.Contains([]string{"DefaultJwtRetriever", "FileJwtRetriever", "ClientCredentialsJwtRetriever", "JwtBearerJwtRetriever"}, class):
		c.oneClass("sasl.oauthbearer.jwt.retriever.class", "remove it, or give one of Kafka's",
			jwtRetriever+"DefaultJwtRetriever", jwtRetriever+"FileJwtRetriever", jwtRetriever+"ClientCredentialsJwtRetriever", jwtRetriever+"JwtBearerJwtRetriever")
		return o
	case where == nil:
	case isFile && (class == "DefaultJwtRetriever" || class == "FileJwtRetriever"):
		o.TokenFile = where.Path
		c.readable(endpoint, o.TokenFile)
		return o
	case isFile:
		c.wrong(endpoint, errors.New("is a file, which sasl.oauthbearer.jwt.retriever.class doesn't read; give an https URL"))
	case class == "FileJwtRetriever":
		c.wrong(endpoint, errors.New("is no file, which sasl.oauthbearer.jwt.retriever.class reads; give a file URL"))
	default:
		o.Endpoint = where.String()
	}
	o.ClientID = strings.TrimSpace(id.text)
	c.credentials(o, m, class == "JwtBearerJwtRetriever", id, secret)
	return o
}

const (
	clientIDKey     = "sasl.oauthbearer.client.credentials.client.id"
	clientSecretKey = "sasl.oauthbearer.client.credentials.client.secret"
)

// prefer is a setting, or an option of the login module that was its name before 4.1.
func (c clientReader) prefer(m *loginModule, key, option string) value {
	setting, old := c.get(key), m.take(option)
	if setting.set && old.set {
		c.idle(old.bare(), key+" wins")
	}
	return firstSet(setting, old)
}

// credentials are of the first kind that is given: an assertion in a file, one to be signed here, a secret.
func (c clientReader) credentials(o *OAuth, m *loginModule, grant bool, id, secret value) {
	o.Grant = GrantClientCredentials
	file := c.get("sasl.oauthbearer.assertion.file")
	signs := grant || c.config["sasl.oauthbearer.assertion.claim.iss"].set
	switch {
	case file.set:
		if o.AssertionFile = file.text; file.there() {
			c.readable(file, file.text)
		}
	case signs:
		o.Signed = c.signed(m)
	case !id.set:
		c.wrongf(m.at, "OAUTHBEARER needs a client; give %s", clientIDKey)
	case !secret.set:
		c.wrongf(m.at, "the client needs a secret; give %s", clientSecretKey)
	case strings.TrimSpace(id.text) == "" || strings.TrimSpace(secret.text) == "":
		c.wrongf(m.at, "%s or %s is empty; give both", clientIDKey, clientSecretKey)
	default:
		o.ClientSecret = Secret(strings.TrimSpace(secret.text))
	}
	switch {
	case grant:
		o.Grant = GrantJWTBearer
	case file.set || signs:
		o.AssertionType = assertionType
	}
	if secret.set && (file.set || signs) {
		c.idle(secret.bare(), "the client has an assertion")
	}
}

func (c clientReader) signed(m *loginModule) *SignedAssertion {
	const prefix = "sasl.oauthbearer.assertion."
	key, template := c.get(prefix+"private.key.file"), c.get(prefix+"template.file")
	a := &SignedAssertion{
		Algorithm:  strings.ToUpper(read(c.report, c.get(prefix+"algorithm"), parseOneOf("rs256", "es256"), "rs256")),
		KeyFile:    key.text,
		Passphrase: Secret(c.get(prefix + "private.key.passphrase").text),
		Template:   template.text,
		Issuer:     c.get(prefix + "claim.iss").text,
		Subject:    c.get(prefix + "claim.sub").text,
		Audience:   c.get(prefix + "claim.aud").text,
		Lifetime:   time.Duration(read(c.report, c.get(prefix+"claim.exp.seconds"), parseCount(0, 86400), 300)) * time.Second,
		NotBefore:  time.Duration(read(c.report, c.get(prefix+"claim.nbf.seconds"), parseCount(0, 3600), 60)) * time.Second,
		ID:         read(c.report, c.get(prefix+"claim.jti.include"), parseJavaBool, false),
	}
	if !key.set {
		c.wrongf(m.at, "the assertion needs a key; give %sprivate.key.file, or %sfile with one that is signed", prefix, prefix)
	}
	for _, file := range []value{key, template} {
		if file.there() {
			c.readable(file, file.text)
		}
	}
	return a
}

// endpointTLS is what a login module says of TLS to its token endpoint, nil for what the system has.
func (c clientReader) endpointTLS(options settings, m *loginModule) *TLS {
	if len(options) == 0 {
		return nil
	}
	inner := clientReader{report: c.report, config: settings{}, used: map[string]bool{}}
	for name, v := range options {
		inner.config["ssl."+name] = v
	}
	t := inner.tls()
	inner.nameIdle(protocol{tls: true}, Security{})
	return t
}

var extensionName = regexp.MustCompile(`^[A-Za-z]+$`)
var extensionText = regexp.MustCompile(`^[\x21-\x7E \t\r\n]+$`)

// extensions are those of KIP-342, nil for none.
func (c clientReader) extensions(m *loginModule, options settings) map[string]string {
	var all map[string]string
	for _, name := range slices.Sorted(maps.Keys(options)) {
		v := options[name]
		switch {
		case !extensionName.MatchString(name) || name == "auth":
			c.wrongf(v.bare(), "is not the name of a SASL extension; take letters alone, and not auth")
		case !extensionText.MatchString(v.text):
			c.wrongf(v.bare(), "is empty, or has a character that a SASL extension can't have; take printable ASCII")
		default:
			if all == nil {
				all = map[string]string{}
			}
			all[name] = v.text
		}
	}
	return all
}

// strimziOAuth reads what Strimzi's handler does. It prefers system properties and variables of the process to the login module's options,
// which are not looked at here: they would be those of both clusters.
func (c clientReader) strimziOAuth(m *loginModule) *OAuth {
	o := &OAuth{
		Token:            Secret(m.take("oauth.access.token").text),
		TokenFile:        m.take("oauth.access.token.location").text,
		ClientID:         m.take("oauth.client.id").text,
		ClientSecret:     Secret(m.take("oauth.client.secret").text),
		Assertion:        Secret(m.take("oauth.client.assertion").text),
		AssertionFile:    m.take("oauth.client.assertion.location").text,
		AssertionType:    m.take("oauth.client.assertion.type").text,
		RefreshToken:     Secret(m.take("oauth.refresh.token").text),
		RefreshTokenFile: m.take("oauth.refresh.token.location").text,
		Username:         m.take("oauth.password.grant.username").text,
		Password:         Secret(m.take("oauth.password.grant.password").text),
		Grant:            m.take("oauth.client.credentials.grant.type").text,
		Scope:            m.take("oauth.scope").text,
		Audience:         m.take("oauth.audience").text,
		Extensions:       c.extensions(m, m.takeAll("oauth.sasl.extension.")),
		ConnectTimeout:   read(c.report, m.take("oauth.connect.timeout.seconds"), parseTimeout, time.Minute),
		ReadTimeout:      read(c.report, m.take("oauth.read.timeout.seconds"), parseTimeout, time.Minute),
		Retries:          read(c.report, m.take("oauth.http.retries"), parseCount(0, mostTokenRetries), 0),
		RetryPause:       read(c.report, m.take("oauth.http.retry.pause.millis"), parseMillis, 0),
		AcceptHeader:     read(c.report, m.take("oauth.include.accept.header"), parseStrimziBool, true),
		MaxLifetime:      read(c.report, m.take("oauth.max.token.expiry.seconds"), parseTokenLifetime, 0),
	}
	tls := settings{}
	for _, name := range []string{"truststore.location", "truststore.password", "truststore.type", "truststore.certificates", "endpoint.identification.algorithm"} {
		if v := m.take("oauth.ssl." + name); v.set {
			tls[name] = v
		}
	}
	o.TLS = c.endpointTLS(tls, m)
	c.chooseGrant(o, m)
	return o
}

const mostTokenRetries = 100

// chooseGrant keeps what Strimzi's handler would use, in its order, and names the rest.
func (c clientReader) chooseGrant(o *OAuth, m *loginModule) {
	without := func(winner string, names ...string) {
		for _, name := range names {
			if m.options[name].set {
				c.idle(m.place(name), winner+" wins")
			}
		}
	}
	file := func(name string) {
		c.readable(m.options[name], m.options[name].text)
	}
	if o.TokenFile != "" {
		without("oauth.access.token.location", "oauth.access.token")
		o.Token = ""
		file("oauth.access.token.location")
	}
	if o.RefreshTokenFile != "" {
		without("oauth.refresh.token.location", "oauth.refresh.token")
		o.RefreshToken = ""
	}
	if o.AssertionFile != "" {
		without("oauth.client.assertion.location", "oauth.client.assertion")
		o.Assertion = ""
	}
	refresh, assertion := []string{"oauth.refresh.token", "oauth.refresh.token.location"}, []string{"oauth.client.assertion", "oauth.client.assertion.location"}
	user, client := []string{"oauth.password.grant.username", "oauth.password.grant.password"}, []string{"oauth.client.id", "oauth.client.secret"}
	if o.Token != "" || o.TokenFile != "" {
		without("oauth.access.token", slices.Concat(refresh, assertion, user, client, []string{"oauth.token.endpoint.uri"})...)
		m.asked = append(m.asked, "oauth.token.endpoint.uri")
		*o = OAuth{Token: o.Token, TokenFile: o.TokenFile, Extensions: o.Extensions, MaxLifetime: o.MaxLifetime}
		return
	}
	endpoint := c.required(m, "oauth.token.endpoint.uri")
	if where := read(c.report, endpoint, parseHTTP, nil); where != nil {
		o.Endpoint = where.String()
	}
	c.required(m, "oauth.client.id")
	chosen := o.Grant
	o.Grant = GrantClientCredentials
	switch {
	case o.RefreshToken != "" || o.RefreshTokenFile != "":
		without("oauth.refresh.token", slices.Concat(user, assertion)...)
		if o.RefreshTokenFile != "" {
			file("oauth.refresh.token.location")
		}
		o.Grant, o.Username, o.Password, o.Assertion, o.AssertionFile = GrantRefreshToken, "", "", "", ""
	case o.Username != "":
		without("oauth.password.grant.username", assertion...)
		c.required(m, "oauth.password.grant.password")
		o.Grant, o.Assertion, o.AssertionFile = GrantPassword, "", ""
	case o.ClientSecret != "":
		without("oauth.client.secret", assertion...)
		o.Assertion, o.AssertionFile = "", ""
	case o.AssertionFile != "":
		file("oauth.client.assertion.location")
	case o.Assertion == "":
		c.wrongf(m.at, "has nothing to get a token with; give oauth.client.secret, or one of oauth.access.token, oauth.refresh.token, oauth.password.grant.username, oauth.client.assertion")
	}
	switch {
	case chosen == "":
	case o.Grant == GrantClientCredentials:
		o.Grant = chosen
	default:
		c.idle(m.place("oauth.client.credentials.grant.type"), "the grant is "+o.Grant)
	}
	switch {
	case o.Assertion == "" && o.AssertionFile == "":
		o.AssertionType = ""
	case o.AssertionType == "":
		o.AssertionType = assertionType
	}
}

// unsecured reads what Kafka's handler for development does.
func (c clientReader) unsecured(m *loginModule) *OAuth {
	o := &OAuth{Unsecured: map[string]any{}, Extensions: c.extensions(m, m.takeAll("unsecuredLoginExtension_"))}
	for name, v := range m.takeAll("unsecuredLoginStringClaim_") {
		o.Unsecured[name] = v.text
	}
	for name, v := range m.takeAll("unsecuredLoginNumberClaim_") {
		o.Unsecured[name] = read(c.report, v, parseNumber, 0)
	}
	for name, v := range m.takeAll("unsecuredLoginListClaim_") { // the first character is what stands between the others
		var items []string
		if v.text != "" {
			items = strings.Split(v.text[1:], v.text[:1])
		}
		o.Unsecured[name] = items
	}
	o.MaxLifetime = read(c.report, m.take("unsecuredLoginLifetimeSeconds"), parseSeconds, time.Hour)
	m.take("unsecuredLoginScopeClaimName")
	principal := m.take("unsecuredLoginPrincipalClaimName").text
	if strings.TrimSpace(principal) == "" {
		principal = "sub"
	}
	if name, _ := o.Unsecured[principal].(string); name == "" {
		c.wrongf(m.place("unsecuredLoginStringClaim_"+principal), "is missing; it is who logs in")
	}
	return o
}

// parseEndpoint reads the URL of a token endpoint, or of a file with a token.
func parseEndpoint(text string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSpace(text))
	if err == nil && strings.EqualFold(u.Scheme, "file") && u.Path != "" {
		u.Scheme = "file"
		return u, nil
	}
	if u, err = parseHTTP(text); err != nil {
		return nil, fmt.Errorf("%w, or a file like file:///run/token", err)
	}
	return u, nil
}

func parseHTTP(text string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("not a URL of a token endpoint; give one like https://login.example.com/token")
	}
	return u, nil
}

// parseMillis reads a time in milliseconds.
func parseMillis(text string) (time.Duration, error) {
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil || n < 0 || n > int(time.Hour/time.Millisecond) {
		return 0, fmt.Errorf("not a time; give a whole number of milliseconds from 0 to %d", time.Hour/time.Millisecond)
	}
	return time.Duration(n) * time.Millisecond, nil
}

// parseTimeout reads seconds. Strimzi takes its default of a minute where there is less than one.
func parseTimeout(text string) (time.Duration, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n > int(time.Hour/time.Second) {
		return 0, fmt.Errorf("not a time; give a whole number of seconds from 1 to %d", time.Hour/time.Second)
	}
	if n <= 0 {
		return time.Minute, nil
	}
	return time.Duration(n) * time.Second, nil
}

// parseTokenLifetime reads seconds, of which a minute is the least; none is 0 or less.
func parseTokenLifetime(text string) (time.Duration, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n > 0 && n < 60 {
		return 0, errors.New("not the life of a token; give a whole number of seconds from 60, or -1 for no bound")
	}
	return time.Duration(max(n, 0)) * time.Second, nil
}

// parseStrimziBool takes what Strimzi's handler does.
func parseStrimziBool(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "true", "yes", "y", "1":
		return true, nil
	case "false", "no", "n", "0":
		return false, nil
	}
	return false, errors.New("neither true nor false; give one of them")
}

func parseNumber(text string) (float64, error) {
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsInf(n, 0) || math.IsNaN(n) {
		return 0, errors.New("not a number; give one")
	}
	return n, nil
}
