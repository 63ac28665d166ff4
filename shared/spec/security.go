package spec

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"regexp"
	"strings"
)

// readSecurity is a stand-in until the real one is merged.
func readSecurity(config settings, r *report) Security {
	var s Security
	protocol := strings.ToUpper(config[protocolKey].text)
	switch protocol {
	case "", "PLAINTEXT", "SSL", "SASL_SSL", "SASL_PLAINTEXT":
	default:
		r.wrongf(config[protocolKey], "%q: not a protocol; give PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL", config[protocolKey].shown())
		return s
	}
	if strings.HasSuffix(protocol, "SSL") {
		s.TLS = &TLS{}
		if v, given := config["ssl.endpoint.identification.algorithm"]; given && v.text == "" {
			s.TLS.AnyName = true
		}
		text := config["ssl.truststore.certificates"]
		if v := config["ssl.truststore.location"]; v.set {
			content, err := os.ReadFile(v.text)
			if err != nil {
				r.wrongf(v, "%v", err)
			}
			text = v
			text.text = string(content)
		}
		for rest := []byte(text.text); text.set; {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				r.wrongf(text, "%v", err)
				break
			}
			s.TLS.Roots = append(s.TLS.Roots, c)
		}
		if text.set && s.TLS.Roots == nil {
			r.wrongf(text, "holds no certificate")
		}
		if chain := config["ssl.keystore.certificate.chain"]; chain.set {
			pair, err := tls.X509KeyPair([]byte(chain.text), []byte(config["ssl.keystore.key"].text))
			if err != nil {
				r.wrongf(chain, "%v", err)
			}
			s.TLS.Certificate = &pair
		}
	}
	if strings.HasPrefix(protocol, "SASL") {
		s.SASL = &SASL{Mechanism: Mechanism(config["sasl.mechanism"].text), Username: config["sasl.username"].text, Password: Secret(config["sasl.password"].text)}
		if v := config["sasl.jaas.config"]; v.set {
			option := func(name string) string {
				found := regexp.MustCompile(name + `="((?:[^"\\]|\\.)*)"`).FindStringSubmatch(v.text)
				if found == nil {
					return ""
				}
				return strings.NewReplacer(`\"`, `"`, `\\`, `\`, `\n`, "\n").Replace(found[1])
			}
			s.SASL.Username, s.SASL.Password = option("username"), Secret(option("password"))
			if s.SASL.Mechanism == OAUTHBEARER {
				s.SASL.OAuth = &OAuth{ClientID: option("oauth.client.id"), ClientSecret: Secret(option("oauth.client.secret")), Endpoint: option("oauth.token.endpoint.uri")}
			}
		}
		if s.SASL.Mechanism == "" {
			r.wrongf(config[protocolKey], "asks for a login, and sasl.mechanism is missing")
		}
	}
	return s
}
