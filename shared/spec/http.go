package spec

import "errors"

// HTTP is the process' front door.
type HTTP struct {
	Address string // "" is none
	// Token lets in whoever is to change something. It is asked for wherever it is set, and off the loopback it has to be, or ClientCA.
	Token Kept
	// Cert and Key are files, and make it HTTPS; ClientCA is a file of whose certificates let in like the token does.
	Cert, Key, ClientCA string
	Open                bool // whoever reaches it may change things
}

// leastToken is what nobody guesses.
const leastToken = 16

func (e environment) http(r *report) HTTP {
	h := HTTP{
		Address: read(r, e.value("KFERRY_HTTP", e.HTTP), parseListen, ""),
		Token:   e.kept(r, "KFERRY_HTTP_TOKEN"),
		Cert:    e.path(e.HTTPCert), Key: e.path(e.HTTPKey), ClientCA: e.path(e.HTTPClientCA),
		Open: read(r, e.value("KFERRY_HTTP_OPEN", e.HTTPOpen), parseBool, false),
	}
	if err := CheckToken(string(h.Token.Text)); h.Token.Text != "" && err != nil {
		r.wrongf(value{path: "KFERRY_HTTP_TOKEN"}, "%v", err)
	}
	r.together(e, "KFERRY_HTTP_TLS_CERT", "KFERRY_HTTP_TLS_KEY")
	if h.ClientCA != "" && h.Cert == "" {
		r.wrongf(value{path: "KFERRY_HTTP_TLS_CLIENT_CA"}, "is set without KFERRY_HTTP_TLS_CERT; clients show certificates to a server that has one, set both")
	}
	if h.Address == "" {
		for _, name := range e.givenOf("KFERRY_HTTP_TOKEN", "KFERRY_HTTP_TOKEN_FILE", "KFERRY_HTTP_TLS_CERT", "KFERRY_HTTP_TLS_KEY", "KFERRY_HTTP_TLS_CLIENT_CA") {
			if e.HTTP == "off" {
				r.warn(value{path: name}, "has no effect while KFERRY_HTTP is off")
			}
		}
	}
	return h
}

// CheckToken looks at a token of the front door; the error doesn't repeat it.
func CheckToken(token string) error {
	if len(token) < leastToken {
		return errors.New("too short for a token; give at least 16 letters, like those of openssl rand -hex 16")
	}
	for _, c := range []byte(token) {
		if c <= ' ' || c > '~' {
			return errors.New("holds what can't be in a header; take letters and digits, like those of openssl rand -hex 16")
		}
	}
	return nil
}
