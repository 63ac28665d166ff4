package login

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jcmturner/gokrb5/v8/asn1tools"
	"github.com/jcmturner/gokrb5/v8/client"
	"github.com/jcmturner/gokrb5/v8/config"
	"github.com/jcmturner/gokrb5/v8/credentials"
	"github.com/jcmturner/gokrb5/v8/gssapi"
	"github.com/jcmturner/gokrb5/v8/iana/chksumtype"
	"github.com/jcmturner/gokrb5/v8/iana/etypeID"
	"github.com/jcmturner/gokrb5/v8/iana/keyusage"
	"github.com/jcmturner/gokrb5/v8/iana/nametype"
	"github.com/jcmturner/gokrb5/v8/keytab"
	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/jcmturner/gokrb5/v8/types"
	"github.com/twmb/franz-go/pkg/sasl"

	"github.com/kferry/kferry/shared/spec"
)

// GSSAPI: a broker is shown a Kerberos ticket for it (RFC 4121), and asks what of GSSAPI is to protect the connection (RFC 4752): nothing,
// as everywhere in Kafka, where that is TLS' part.
//
//	> 60 len, OID of Kerberos, 01 00, AP-REQ
//	< 05 04 …, layers offered (1 byte, 1 is none), size of a message (3), checksum
//	> 05 04 …, 01 00 00 00, checksum
//
// gokrb5 talks to the KDC. Its client would renew tickets in the background and keep them whatever becomes of them, so that it is used for
// one ticket at a time: there is a new login wherever a broker's ticket has ended, or has not been taken.

const (
	kerberosWithin = 30 * time.Second // to get a ticket, of however many KDCs
	ticketMargin   = time.Minute      // before its end a ticket is used no more
	wrongPause     = 5 * time.Minute  // after a wrong password or keytab: directories lock an account after a handful of them
	mostTickets    = 1000             // that are kept: one a broker
	mostIncludes   = 100              // files that a krb5.conf includes
)

// tickets are those that a client has for brokers. One is there for one connection at a time, and comes back once a broker has taken it:
// so none that a broker doesn't take, for having got new keys, say, is shown again.
type tickets struct {
	turn chan struct{} // holds one while the KDC is asked: connections wait for each other, and the KDC for none

	mu    sync.Mutex // guards the fields below
	of    spec.Kerberos
	files string // what keytab, cache and krb5.conf looked like when the tickets were got
	held  map[string]*ticket
	wrong error // the KDC's word on the password or the keytab, until then
	until time.Time
}

func newTickets() *tickets { return &tickets{turn: make(chan struct{}, 1)} }

// A ticket says to one service who one is.
type ticket struct {
	service string
	realm   string // of the client
	client  types.PrincipalName
	ticket  messages.Ticket
	key     types.EncryptionKey
	until   time.Time
	files   string // of tickets, when it was got
}

// mechanism is GSSAPI.
func (k *tickets) mechanism(of *spec.Kerberos) sasl.Mechanism { return &kerberos{k, of} }

type kerberos struct {
	tickets *tickets
	of      *spec.Kerberos
}

// Name is part of sasl.Mechanism.
func (m *kerberos) Name() string { return string(spec.GSSAPI) }

// Authenticate is part of sasl.Mechanism.
func (m *kerberos) Authenticate(ctx context.Context, address string) (sasl.Session, []byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, kerberosWithin, fmt.Errorf("no ticket within %v", kerberosWithin))
	defer cancel()
	if m.of.Service == "" {
		return nil, nil, errors.New("sasl.kerberos.service.name is not set: it is the first part of the brokers' principals, kafka as a rule")
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, nil, err
	}
	service := m.of.Service + "/" + principalHost(ctx, host)
	t, err := m.tickets.get(ctx, m.of, service)
	if err != nil {
		return nil, nil, fmt.Errorf("Kerberos ticket for %s: %w", service, err)
	}
	first, err := t.show()
	if err != nil {
		return nil, nil, fmt.Errorf("show the Kerberos ticket for %s: %w", service, err)
	}
	return &kerberosSession{ticket: t, taken: func() { m.tickets.put(m.of, t) }}, first, nil
}

// principalHost is the name that a broker has in its principal. As in Java, an address becomes the name that DNS has for it, and a short
// name what it is short for; all else stays as the broker advertises it.
func principalHost(ctx context.Context, host string) string {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if net.ParseIP(host) != nil {
		if names, err := net.DefaultResolver.LookupAddr(ctx, host); err == nil && len(names) > 0 {
			return strings.ToLower(strings.TrimSuffix(names[0], "."))
		}
		return host
	}
	if !strings.Contains(host, ".") {
		if long, err := net.DefaultResolver.LookupCNAME(ctx, host); err == nil && strings.HasPrefix(strings.ToLower(long), host+".") {
			return strings.ToLower(strings.TrimSuffix(long, "."))
		}
	}
	return host
}

// get takes a ticket that is there, or has the KDC give one.
func (k *tickets) get(ctx context.Context, of *spec.Kerberos, service string) (*ticket, error) {
	if t, _, err := k.take(of, service); t != nil || err != nil {
		return t, err
	}
	select {
	case k.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the KDC: %w", context.Cause(ctx))
	}
	type answer struct {
		t   *ticket
		err error
	}
	answers := make(chan answer, 1)
	go func() { // which ends by gokrb5's own limits, 10 s for each KDC: it knows no context
		defer func() { <-k.turn }()
		t, err := k.ask(of, service)
		answers <- answer{t, err}
	}()
	select {
	case a := <-answers:
		return a.t, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("the KDC: %w", context.Cause(ctx))
	}
}

// ask has the KDC give a ticket, unless another connection has learned meanwhile that it won't.
func (k *tickets) ask(of *spec.Kerberos, service string) (*ticket, error) {
	t, files, err := k.take(of, service)
	if t != nil || err != nil {
		return t, err
	}
	if t, err = newTicket(of, service); err != nil {
		return nil, k.note(of, files, err)
	}
	t.files = files
	return t, nil
}

// take has a ticket be the caller's, if there is one that will do, and says what the files are like that another would be got by. It is an error
// where these are known not to do.
func (k *tickets) take(of *spec.Kerberos, service string) (t *ticket, files string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	files = stamp(of.Keytab, cacheFile(of), confFile(of))
	if k.held == nil || k.of != *of || k.files != files {
		k.of, k.files, k.held, k.wrong = *of, files, map[string]*ticket{}, nil
	}
	t = k.held[service]
	delete(k.held, service)
	switch {
	case t != nil && time.Until(t.until) > ticketMargin:
		return t, files, nil
	case k.wrong != nil && time.Now().Before(k.until):
		return nil, files, k.wrong
	}
	return nil, files, nil
}

// note keeps a password or a keytab that the KDC has found wrong from being shown over and over.
func (k *tickets) note(of *spec.Kerberos, files string, err error) error {
	if _, is := errors.AsType[wrongKeys](err); !is {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.of == *of && k.files == files {
		k.wrong, k.until = err, time.Now().Add(wrongPause)
	}
	return err
}

// put has it be anybody's again.
func (k *tickets) put(of *spec.Kerberos, t *ticket) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.of != *of || k.files != t.files {
		return // the login has changed meanwhile
	}
	if len(k.held) >= mostTickets {
		clear(k.held)
	}
	k.held[t.service] = t
}

// newTicket is from nothing to a ticket for a service.
func newTicket(of *spec.Kerberos, service string) (t *ticket, err error) {
	// gokrb5 trusts what it reads, and indexes out of range where a file or an answer is cut short.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the keytab, the ticket cache or the KDC's answer makes no sense (%v)", p)
		}
	}()
	conf, err := readConf(of)
	if err != nil {
		return nil, err
	}
	user, tgt, err := ticketGranting(of, conf)
	if err != nil {
		return nil, err
	}
	defer user.Destroy()
	name := types.NewPrincipalName(nametype.KRB_NT_PRINCIPAL, service)
	realm := user.Credentials.Domain()
	if there := conf.ResolveRealm(name.NameString[len(name.NameString)-1]); there != "" && there != realm {
		if tgt, err = grant(user, types.NewPrincipalName(nametype.KRB_NT_SRV_INST, "krbtgt/"+there), realm, tgt); err != nil {
			return nil, err
		}
		realm = there
	}
	t, err = grant(user, name, realm, tgt)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(modern, t.key.KeyType) {
		return nil, fmt.Errorf("the KDC encrypts for %s only in an old way (type %d): give its principal AES keys, and its broker the keytab with them", service, t.key.KeyType)
	}
	t.service = service
	return t, nil
}

// modern are the ways to encrypt that are asked for, the best first, as Java does: aes256-cts-hmac-sha1-96 and so on. They are those that RFC
// 4121's messages are made for.
var modern = []int32{etypeID.AES256_CTS_HMAC_SHA1_96, etypeID.AES128_CTS_HMAC_SHA1_96, etypeID.AES256_CTS_HMAC_SHA384_192, etypeID.AES128_CTS_HMAC_SHA256_128}

// ticketGranting logs in: by a ticket cache, where there is one that will do, or else by keytab or password.
func ticketGranting(of *spec.Kerberos, conf *config.Config) (*client.Client, *ticket, error) {
	if of.Keytab == "" && of.Password == "" || of.TicketCache != "" {
		user, tgt, err := cached(cacheFile(of), of.Principal, conf)
		if err == nil || of.Keytab == "" && of.Password == "" {
			return user, tgt, err
		}
	}
	name, realm := types.ParseSPNString(of.Principal)
	if realm == "" {
		realm = conf.LibDefaults.DefaultRealm
	}
	if of.Principal == "" || realm == "" {
		return nil, nil, fmt.Errorf("principal %q has no name or no realm, and %s no default_realm: a principal is name@REALM", of.Principal, confFile(of))
	}
	var user *client.Client
	if of.Keytab != "" {
		keys, err := readKeytab(of.Keytab, name, realm, conf)
		if err != nil {
			return nil, nil, err
		}
		user = client.NewWithKeytab(name.PrincipalNameString(), realm, keys, conf, client.DisablePAFXFAST(true))
	} else {
		user = client.NewWithPassword(name.PrincipalNameString(), realm, string(of.Password), conf, client.DisablePAFXFAST(true))
	}
	req, err := messages.NewASReqForTGT(realm, conf, user.Credentials.CName())
	if err != nil {
		return nil, nil, err
	}
	rep, err := user.ASExchange(realm, req, 0)
	if err != nil {
		return nil, nil, explainKDC(err, of.Principal, realm)
	}
	return user, &ticket{ticket: rep.Ticket, key: rep.DecryptedEncPart.Key, until: rep.DecryptedEncPart.EndTime}, nil
}

// cached is the login that somebody else, such as kinit, keeps in a file.
func cached(file, principal string, conf *config.Config) (*client.Client, *ticket, error) {
	cache, err := credentials.LoadCCache(file)
	if err != nil {
		return nil, nil, fmt.Errorf("ticket cache %s: %w", file, err)
	}
	realm := cache.GetClientRealm()
	whose := cache.GetClientPrincipalName().PrincipalNameString() + "@" + realm
	if principal != "" && principal != whose && principal+"@"+realm != whose {
		return nil, nil, fmt.Errorf("ticket cache %s is of %s, not of %s", file, whose, principal)
	}
	granting, found := cache.GetEntry(types.NewPrincipalName(nametype.KRB_NT_SRV_INST, "krbtgt/"+realm))
	if !found {
		return nil, nil, fmt.Errorf("ticket cache %s has no ticket for realm %s: log in by kinit", file, realm)
	}
	if !time.Now().Before(granting.EndTime) {
		return nil, nil, fmt.Errorf("ticket cache %s: its ticket ended at %s: log in by kinit again", file, granting.EndTime.Format(time.RFC3339))
	}
	t := &ticket{key: granting.Key, until: granting.EndTime}
	if err := t.ticket.Unmarshal(granting.Ticket); err != nil {
		return nil, nil, fmt.Errorf("ticket cache %s: %w", file, err)
	}
	user, err := client.NewFromCCache(cache, conf, client.DisablePAFXFAST(true))
	return user, t, err
}

// grant has a KDC give a ticket for another.
func grant(user *client.Client, name types.PrincipalName, realm string, by *ticket) (*ticket, error) {
	_, rep, err := user.TGSREQGenerateAndExchange(name, realm, by.ticket, by.key, false)
	if err != nil {
		return nil, explainKDC(err, name.PrincipalNameString(), realm)
	}
	return &ticket{
		realm: user.Credentials.Domain(), client: user.Credentials.CName(),
		ticket: rep.Ticket, key: rep.DecryptedEncPart.Key, until: rep.DecryptedEncPart.EndTime,
	}, nil
}

// show is what proves to a broker that a ticket is one's own, at this moment.
func (t *ticket) show() ([]byte, error) {
	authenticator, err := types.NewAuthenticator(t.realm, t.client)
	if err != nil {
		return nil, err
	}
	// RFC 4121, 4.1.1: the length of what the channel is bound to, that (nothing), and flags: integrity and confidentiality may be had.
	authenticator.Cksum = types.Checksum{CksumType: chksumtype.GSSAPI, Checksum: []byte{0: 16, 20: gssapi.ContextFlagInteg | gssapi.ContextFlagConf, 23: 0}}
	request, err := messages.NewAPReq(t.ticket, t.key, authenticator)
	if err != nil {
		return nil, err
	}
	body, err := request.Marshal()
	if err != nil {
		return nil, err
	}
	mechanism := []byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x12, 0x01, 0x02, 0x02} // 1.2.840.113554.1.2.2
	return asn1tools.AddASNAppTag(slices.Concat(mechanism, []byte{1, 0}, body), 0), nil
}

// kerberosSession is the exchange with a broker that has been shown a ticket.
type kerberosSession struct {
	ticket  *ticket
	taken   func() // called once a broker has proved that it can read the ticket
	pause   bool   // the broker has answered with nothing, and been answered with nothing
	offered bool
}

// noLayers is the answer of RFC 4752, 3.1: no protection, no messages for it, and the authorization identity that follows from the ticket.
var noLayers = []byte{1, 0, 0, 0}

// Challenge is part of sasl.Session.
func (s *kerberosSession) Challenge(token []byte) (done bool, answer []byte, err error) {
	// As above, of whoever says that it is a broker.
	defer func() {
		if p := recover(); p != nil {
			done, answer, err = false, nil, fmt.Errorf("the broker's answer to GSSAPI makes no sense (%v)", p)
		}
	}()
	if len(token) == 0 && !s.pause {
		s.pause = true // it has accepted the ticket, and goes on when asked to
		return false, nil, nil
	}
	var offer gssapi.WrapToken
	if err := offer.Unmarshal(unrotate(token), true); err != nil {
		return false, nil, fmt.Errorf("the broker's answer to GSSAPI: %w", err)
	}
	if ok, err := offer.Verify(s.ticket.key, keyusage.GSSAPI_ACCEPTOR_SEAL); !ok || err != nil {
		return false, nil, fmt.Errorf("the broker's answer to GSSAPI is not of %s, which the ticket is for: its checksum is another", s.ticket.service)
	}
	if len(offer.Payload) != len(noLayers) || offer.Payload[0]&noLayers[0] == 0 {
		return false, nil, fmt.Errorf("the broker wants GSSAPI to protect the connection (% x), which no broker of Kafka does: its sasl.qop has to allow auth", offer.Payload)
	}
	reply, err := gssapi.NewInitiatorWrapToken(noLayers, s.ticket.key)
	if err != nil {
		return false, nil, err
	}
	if answer, err = reply.Marshal(); err != nil {
		return false, nil, err
	}
	s.taken()
	return true, answer, nil
}

// unrotate takes a token's rotation back, which Heimdal's have (RFC 4121, 4.2.5) and gokrb5 doesn't know.
func unrotate(token []byte) []byte {
	const header, count = gssapi.HdrLen, 6
	if len(token) <= header {
		return token
	}
	body := token[header:]
	by := (int(token[count])<<8 | int(token[count+1])) % len(body)
	return slices.Concat(token[:count], []byte{0, 0}, token[count+2:header], body[by:], body[:by])
}

// readKeytab has only such ways to encrypt be asked for as a keytab has keys for: the KDC would choose another.
func readKeytab(file string, name types.PrincipalName, realm string, conf *config.Config) (*keytab.Keytab, error) {
	content, err := spec.ReadFile(file, spec.MiB)
	if err != nil {
		return nil, fmt.Errorf("keytab: %w", err)
	}
	keys := keytab.New()
	if keys.Unmarshal(content) != nil { // an error that has the content in it, keys and all
		return nil, fmt.Errorf("keytab %s is none, or cut short", file)
	}
	var has []string
	var ways []int32
	for _, e := range keys.Entries {
		whose := strings.Join(e.Principal.Components, "/")
		if whose == name.PrincipalNameString() && e.Principal.Realm == realm {
			ways = append(ways, e.Key.KeyType)
		}
		if whose += "@" + e.Principal.Realm; !slices.Contains(has, whose) {
			has = append(has, whose)
		}
	}
	if len(ways) == 0 {
		return nil, fmt.Errorf("keytab %s has no key of %s@%s, but of %s", file, name.PrincipalNameString(), realm, strings.Join(has, ", "))
	}
	asked := slices.DeleteFunc(slices.Clone(conf.LibDefaults.DefaultTktEnctypeIDs), func(way int32) bool { return !slices.Contains(ways, way) })
	if len(asked) == 0 {
		return nil, fmt.Errorf("keytab %s has only keys of types %v for %s@%s, none of %v", file, ways, name.PrincipalNameString(), realm, conf.LibDefaults.DefaultTktEnctypeIDs)
	}
	conf.LibDefaults.DefaultTktEnctypeIDs = asked
	return keys, nil
}

func confFile(of *spec.Kerberos) string {
	if of.Config != "" {
		return of.Config
	}
	if file, _, _ := strings.Cut(os.Getenv("KRB5_CONFIG"), ":"); file != "" {
		return file
	}
	return "/etc/krb5.conf"
}

func cacheFile(of *spec.Kerberos) string {
	if of.TicketCache != "" {
		return strings.TrimPrefix(of.TicketCache, "FILE:")
	}
	if file := os.Getenv("KRB5CCNAME"); file != "" {
		return strings.TrimPrefix(file, "FILE:")
	}
	return fmt.Sprintf("/tmp/krb5cc_%d", os.Getuid())
}

// readConf reads krb5.conf as Java does, where gokrb5 has defaults of its own, and knows no include.
func readConf(of *spec.Kerberos) (*config.Config, error) {
	file := confFile(of)
	left := mostIncludes
	text, err := included(file, &left)
	if err != nil {
		return nil, fmt.Errorf("krb5.conf: %w", err)
	}
	conf, err := config.NewFromString(text)
	var unsupported config.UnsupportedDirective // is left out
	if err != nil && !errors.As(err, &unsupported) {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	set := func(key string) bool { return regexp.MustCompile(`(?m)^\s*` + key + `\s*=`).MatchString(text) }
	d := &conf.LibDefaults
	if !set("dns_lookup_kdc") {
		d.DNSLookupKDC = true
	}
	for key, ways := range map[string]*[]int32{"default_tkt_enctypes": &d.DefaultTktEnctypeIDs, "default_tgs_enctypes": &d.DefaultTGSEnctypeIDs, "permitted_enctypes": &d.PermittedEnctypeIDs} {
		if !set(key) {
			*ways = slices.Clone(modern)
		}
	}
	return conf, nil
}

var includeLine = regexp.MustCompile(`^(include|includedir)\s+(\S+)\s*$`)

// included is a file with those that it includes, of which so many more may be.
func included(file string, left *int) (string, error) {
	if *left--; *left < 0 {
		return "", fmt.Errorf("more than %d files are included", mostIncludes)
	}
	content, err := spec.ReadFile(file, spec.MiB)
	if err != nil {
		return "", err
	}
	var text strings.Builder
	for line := range strings.Lines(string(content)) {
		match := includeLine.FindStringSubmatch(strings.TrimSpace(line))
		if match == nil {
			text.WriteString(line)
			continue
		}
		files := []string{match[2]}
		if match[1] == "includedir" {
			files, _ = filepath.Glob(filepath.Join(match[2], "*"))
			files = slices.DeleteFunc(files, func(f string) bool { return !includedName.MatchString(filepath.Base(f)) })
		}
		for _, f := range files {
			more, err := included(f, left)
			if err != nil {
				return "", err
			}
			text.WriteString("\n" + more + "\n")
		}
	}
	return text.String(), nil
}

// includedName is of the names of files that includedir is for.
var includedName = regexp.MustCompile(`^[A-Za-z0-9_-]+$|^[^.].*\.conf$`)

// wrongKeys is that the KDC knows other ones.
type wrongKeys struct{ error }

// explainKDC says what an error of gokrb5's means. It keeps no types, so that its words have to do.
func explainKDC(err error, principal, realm string) error {
	_, words, found := strings.Cut(err.Error(), "KRB Error: ") // before which is where in gokrb5 it was noticed
	if !found {
		words = strings.Replace(err.Error(), "[Root cause: ", "[", 1)
	}
	wrong := "the password or the keytab of %[1]s is wrong, or not the newest; it is tried again in " + wrongPause.String() + ", or once there is another"
	for _, e := range []struct{ word, means string }{
		{"KDC_ERR_C_PRINCIPAL_UNKNOWN", "realm %[2]s knows no principal %[1]s"},
		{"KDC_ERR_S_PRINCIPAL_UNKNOWN", "realm %[2]s knows no service %[1]s: sasl.kerberos.service.name and the host that the broker advertises have to be those of its principal"},
		{"KDC_ERR_CLIENT_REVOKED", "%[1]s is locked or has expired"},
		{"KDC_ERR_KEY_EXPIRED", "the password of %[1]s has expired"},
		{"KDC_ERR_ETYPE_NOSUPP", "realm %[2]s has no key of %[1]s of a type that is asked for"},
		{"KRB_AP_ERR_SKEW", "the clocks of this machine and of the KDC differ by too much"},
		{"clock skew with KDC too large", "the clocks of this machine and of the KDC differ by too much"},
		{"KDC_ERR_PREAUTH_FAILED", wrong},
		{"error decrypting EncPart of AS_REP", wrong},
		{"KRB_AP_ERR_TKT_EXPIRED", "the ticket of %[1]s has ended"},
		{"Networking_Error", "no KDC of realm %[2]s answers"},
	} {
		if strings.Contains(err.Error(), e.word) {
			err := fmt.Errorf(e.means+": %[3]s", principal, realm, words)
			if e.means == wrong {
				return wrongKeys{err}
			}
			return err
		}
	}
	return errors.New(words)
}
