package spec

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// NATS is the server that the queue is on, and as whom one speaks to it. What is in files is for whoever connects to read, each time anew.
type NATS struct {
	// URL of the server, or several with commas between, without a login; "" where the process runs its own queue.
	URL   string
	Login NATSLogin

	Cert, Key, CA string // files; a CA or a certificate asks for TLS whatever the URL says
	TLSFirst      bool   // the handshake comes before the server's greeting

	Domain, APIPrefix string        // of JetStream; one of them at most
	InboxPrefix       string        // of the subjects that answers come to; "" is NATS' own
	Timeout           time.Duration // to connect, and for each answer; 0 is the queue's own
	Replicas          int           // servers of a cluster that keep the queue; 0 leaves a queue that is there as it is, and is 1 for a new one
}

// A NATSLogin is one way to log in, or none: User with Password, Token, Creds, NKey, or JWT with Seed.
type NATSLogin struct {
	User        string
	Password    Kept
	Token       Kept
	Creds, NKey string // files
	JWT, Seed   Kept
}

// ParseNATS reads the URL of a server, or several with commas between. They may hold a login, user:password@ or token@, which is one for
// all of them. Errors don't repeat the text.
func ParseNATS(text string) (NATS, error) {
	var n NATS
	var servers []string
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if !strings.Contains(part, "://") {
			part = "nats://" + part
		}
		server, err := url.Parse(part)
		if err != nil || server.Hostname() == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, server.Scheme) {
			return NATS{}, errors.New("not a list of NATS servers; give one or more of nats://host:port, separated by commas")
		}
		login := loginOf(server.User)
		if login != (NATSLogin{}) && n.Login != (NATSLogin{}) && login != n.Login {
			return NATS{}, errors.New("its servers have different logins; give one that all of them know")
		}
		if login != (NATSLogin{}) {
			n.Login = login
		}
		server.User = nil
		servers = append(servers, server.String())
	}
	n.URL = strings.Join(servers, ",")
	return n, nil
}

// loginOf is a URL's. A name alone is a token, as everywhere in NATS.
func loginOf(user *url.Userinfo) NATSLogin {
	if user == nil || user.Username() == "" {
		return NATSLogin{}
	}
	if password, both := user.Password(); both {
		return NATSLogin{User: user.Username(), Password: Kept{Text: Secret(password)}}
	}
	return NATSLogin{Token: Kept{Text: Secret(user.Username())}}
}

// natsLogins are the ways to log in, each with its variables.
var natsLogins = [][]string{
	{"NATS_USER", "NATS_PASSWORD", "NATS_PASSWORD_FILE"},
	{"NATS_TOKEN", "NATS_TOKEN_FILE"},
	{"NATS_CREDS"},
	{"NATS_NKEY"},
	{"NATS_JWT", "NATS_JWT_FILE", "NATS_SEED", "NATS_SEED_FILE"},
}

// leastNATSTimeout is what a server that is well may take.
const leastNATSTimeout = time.Second

// nats is the queue that variables name, or a context of the nats CLI. A login in variables stands in place of the context's.
func (e environment) nats(r *report) NATS {
	n := e.natsContext(r)
	servers := e.value("NATS_URL", e.NATSURL)
	var given NATS
	if servers.set {
		var err error
		if given, err = ParseNATS(servers.text); err != nil {
			r.wrongf(servers, "%v", err)
		}
		n.URL = given.URL
	}
	login := e.natsLogin(r)
	switch none := (NATSLogin{}); {
	case login != none && given.Login != none:
		r.wrongf(servers, "has a login, and so has %s; a connection has one, remove it from the URL", e.givenOf(slices.Concat(natsLogins...)...)[0])
	case login != none:
		n.Login = login
	case given.Login != none:
		n.Login = given.Login
	}
	if e.given["NATS_CERT"] != "" || e.given["NATS_KEY"] != "" {
		r.together(e, "NATS_CERT", "NATS_KEY")
		n.Cert, n.Key = e.path(e.NATSCert), e.path(e.NATSKey)
	}
	if e.NATSCA != "" {
		n.CA = e.path(e.NATSCA)
	}
	if first := e.value("NATS_TLS_FIRST", e.NATSTLSFirst); first.set {
		n.TLSFirst = read(r, first, parseBool, false)
	}
	if e.givenOf("NATS_DOMAIN", "NATS_API_PREFIX") != nil {
		r.either(e, "NATS_DOMAIN", "NATS_API_PREFIX")
		n.Domain = read(r, e.value("NATS_DOMAIN", e.NATSDomain), parseToken, "")
		n.APIPrefix = read(r, e.value("NATS_API_PREFIX", e.NATSAPIPrefix), parsePrefix, "")
	}
	if prefix := e.value("NATS_INBOX_PREFIX", e.NATSInboxPrefix); prefix.set {
		n.InboxPrefix = read(r, prefix, parsePrefix, "")
	}
	n.Timeout = read(r, e.value("NATS_TIMEOUT", e.NATSTimeout), parseDuration(leastNATSTimeout), 0)
	if replicas := e.value("NATS_REPLICAS", e.NATSReplicas); replicas.set {
		n.Replicas = read(r, replicas, parseReplicas, 0)
	}
	if n.URL == "" && !servers.set {
		for _, name := range e.givenOf(append(slices.Concat(natsLogins...), "NATS_CERT", "NATS_KEY", "NATS_CA", "NATS_TLS_FIRST", "NATS_DOMAIN", "NATS_API_PREFIX", "NATS_REPLICAS")...) {
			r.warn(e.value(name, ""), "has no effect without NATS_URL: the queue that kferry run brings has a login of its own")
		}
		n.Login, n.Cert, n.Key, n.CA, n.TLSFirst, n.Domain, n.APIPrefix, n.Replicas = NATSLogin{}, "", "", "", false, "", "", 0
	}
	return n
}

// natsLogin is the login in variables.
func (e environment) natsLogin(r *report) NATSLogin {
	var ways []string
	for _, names := range natsLogins {
		if given := e.givenOf(names...); given != nil {
			ways = append(ways, given[0])
		}
	}
	if len(ways) > 1 {
		r.wrongf(value{path: ways[0]}, "is set, and so is %s; a connection has one login, unset what is not meant", strings.Join(ways[1:], ", and "))
	}
	if e.givenOf("NATS_PASSWORD", "NATS_PASSWORD_FILE") != nil && e.NATSUser == "" {
		r.wrongf(value{path: e.givenOf("NATS_PASSWORD", "NATS_PASSWORD_FILE")[0]}, "is set without NATS_USER; set both")
	}
	jwt, seed := e.kept(r, "NATS_JWT"), e.kept(r, "NATS_SEED")
	if jwt.Set() != seed.Set() {
		r.wrongf(value{path: e.givenOf(natsLogins[4]...)[0]}, "is half of a login; set NATS_JWT and NATS_SEED, or their files, or NATS_CREDS to a file that holds both")
	}
	l := NATSLogin{
		User: unlessBlank(e.NATSUser), Password: e.kept(r, "NATS_PASSWORD"), Token: e.kept(r, "NATS_TOKEN"),
		Creds: e.path(e.NATSCreds), NKey: e.path(e.NATSNKey), JWT: jwt, Seed: seed,
	}
	if l.User != "" && !l.Password.Set() { // as the nats CLI has it
		l.User, l.Token = "", Kept{Text: Secret(l.User)}
	}
	return l
}

// natsContext is the context of the nats CLI that NATS_CONTEXT names. The one that is selected there has no say: whoever runs a service
// would not expect it to follow.
func (e environment) natsContext(r *report) NATS {
	name := e.value("NATS_CONTEXT", e.NATSContext)
	if !name.set {
		return NATS{}
	}
	dir := e.given["XDG_CONFIG_HOME"]
	if dir == "" {
		dir = filepath.Join(e.given["HOME"], ".config")
	}
	path := filepath.Join(dir, "nats", "context", name.text+".json")
	if strings.ContainsAny(name.text, `/\`) {
		r.wrong(name, errors.New("not the name of a context; nats context ls lists them"))
		return NATS{}
	}
	text, err := ReadFile(path, mostSecret)
	if err != nil {
		r.wrong(name, fmt.Errorf("the context can't be read; nats context ls lists those that there are: %w", err))
		return NATS{}
	}
	n, err := e.readContext(text)
	if err != nil {
		r.wrong(name, fmt.Errorf("%s: %w", path, err))
	}
	return n
}

// readContext reads a context as the nats CLI writes it.
func (e environment) readContext(text []byte) (NATS, error) {
	var c struct {
		URL         string `json:"url"`
		User        string `json:"user"`
		Password    Secret `json:"password"`
		Token       Secret `json:"token"`
		Creds       string `json:"creds"`
		NKey        string `json:"nkey"`
		JWT         Secret `json:"user_jwt"`
		Seed        Secret `json:"user_seed"`
		Cert        string `json:"cert"`
		Key         string `json:"key"`
		CA          string `json:"ca"`
		TLSFirst    bool   `json:"tls_first"`
		Domain      string `json:"jetstream_domain"`
		APIPrefix   string `json:"jetstream_api_prefix"`
		InboxPrefix string `json:"inbox_prefix"`
		NSC         string `json:"nsc"`
		Proxy       string `json:"socks_proxy"`
		Store       string `json:"windows_cert_store"`
	}
	if json.Unmarshal(text, &c) != nil { // its errors may repeat what is secret
		return NATS{}, errors.New("not a context of the nats CLI; nats context edit shows what it holds")
	}
	for name, given := range map[string]string{"nsc": c.NSC, "socks_proxy": c.Proxy, "windows_cert_store": c.Store} {
		if given != "" {
			return NATS{}, fmt.Errorf("%s is not supported; take a context without it", name)
		}
	}
	if c.URL == "" {
		return NATS{}, errors.New("it has no url; give one with nats context edit, or in NATS_URL")
	}
	n, err := ParseNATS(c.URL)
	if err != nil {
		return NATS{}, fmt.Errorf("its url is %w", err)
	}
	l := NATSLogin{
		User: c.User, Password: Kept{Text: c.Password}, Token: Kept{Text: c.Token},
		Creds: e.path(c.Creds), NKey: e.path(c.NKey), JWT: Kept{Text: c.JWT}, Seed: Kept{Text: c.Seed},
	}
	if l.User != "" && !l.Password.Set() {
		l.User, l.Token = "", Kept{Text: Secret(l.User)}
	}
	if l != (NATSLogin{}) {
		n.Login = l
	}
	n.Cert, n.Key, n.CA, n.TLSFirst = e.path(c.Cert), e.path(c.Key), e.path(c.CA), c.TLSFirst
	n.Domain, n.APIPrefix, n.InboxPrefix = c.Domain, c.APIPrefix, c.InboxPrefix
	return n, nil
}

// parseToken reads one token of a subject.
func parseToken(text string) (string, error) {
	if strings.ContainsAny(text, ".*> \t") {
		return "", errors.New("not the name of a JetStream domain; take one without dots, blanks, * and >")
	}
	return text, nil
}

// parsePrefix reads the beginning of subjects.
func parsePrefix(text string) (string, error) {
	if strings.ContainsAny(text, "*> \t") || strings.HasPrefix(text, ".") || strings.HasSuffix(text, ".") || strings.Contains(text, "..") {
		return "", errors.New("not the beginning of subjects; give words with dots between, like _INBOX_kferry")
	}
	return text, nil
}

// parseReplicas takes what NATS does, but for even numbers: of two servers or four, no more may fail than of one or three.
func parseReplicas(text string) (int, error) {
	if n, err := strconv.Atoi(text); err == nil && slices.Contains([]int{1, 3, 5}, n) {
		return n, nil
	}
	return 0, errors.New("not a number of replicas; give 1, 3 or 5, of a cluster that has as many servers")
}
