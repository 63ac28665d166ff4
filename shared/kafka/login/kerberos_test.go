package login_test

import (
	"bytes"
	"context"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jcmturner/gokrb5/v8/crypto"
	"github.com/jcmturner/gokrb5/v8/gssapi"
	"github.com/jcmturner/gokrb5/v8/iana/errorcode"
	"github.com/jcmturner/gokrb5/v8/iana/etypeID"
	"github.com/jcmturner/gokrb5/v8/iana/keyusage"
	"github.com/jcmturner/gokrb5/v8/iana/msgtype"
	"github.com/jcmturner/gokrb5/v8/iana/nametype"
	"github.com/jcmturner/gokrb5/v8/keytab"
	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/jcmturner/gokrb5/v8/types"
	"github.com/twmb/franz-go/pkg/sasl"

	"github.com/kferry/kferry/shared/spec"
)

const (
	realm       = "EXAMPLE.COM"
	mirror      = "mirror/host.example.com"
	broker      = "broker.example.com:9092"
	servicename = "kafka/broker.example.com"
	granting    = "krbtgt/" + realm
)

// A kdc is one that knows the principals of its keytab. What it makes of requests is gokrb5's understanding; integration has MIT's KDC and
// Java's broker.
type kdc struct {
	t    testing.TB
	conf string // file
	dir  string

	mu     sync.Mutex // guards the fields below
	keys   *keytab.Keytab
	asked  []string      // which tickets for
	lasts  time.Duration // of a ticket
	refuse int32         // by this error, 0 for none
	way    int32         // of encryption, of tickets for services
}

// principals are made once: it takes a while to make keys of passwords.
var principals = sync.OnceValue(func() *keytab.Keytab {
	keys := keytab.New()
	for _, principal := range []string{granting, servicename, mirror} {
		for _, way := range []int32{etypeID.AES256_CTS_HMAC_SHA1_96, etypeID.RC4_HMAC} {
			if err := keys.AddEntry(principal, realm, principal+"'s password", time.Now(), 1, way); err != nil {
				panic(err)
			}
		}
	}
	return keys
})

func newKDC(t testing.TB) *kdc {
	k := &kdc{t: t, dir: t.TempDir(), keys: principals(), lasts: time.Hour, way: etypeID.AES256_CTS_HMAC_SHA1_96}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			k.serve(conn)
		}
	})
	t.Cleanup(func() { listener.Close(); serving.Wait() })
	k.conf = k.file("krb5.conf", fmt.Sprintf("[libdefaults]\ndefault_realm = %[1]s\nudp_preference_limit = 1\n[realms]\n%[1]s = {\nkdc = %[2]s\n}\n", realm, listener.Addr()))
	return k
}

func (k *kdc) file(name, content string) string {
	k.t.Helper()
	path := filepath.Join(k.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		k.t.Fatal(err)
	}
	return path
}

// keytab is a file with the keys of one principal.
func (k *kdc) keytab(principal, password string) string {
	k.t.Helper()
	keys := keytab.New()
	if err := keys.AddEntry(principal, realm, password, time.Now(), 1, etypeID.AES256_CTS_HMAC_SHA1_96); err != nil {
		k.t.Fatal(err)
	}
	content, err := keys.Marshal()
	if err != nil {
		k.t.Fatal(err)
	}
	return k.file("keytab", string(content))
}

func (k *kdc) serve(conn net.Conn) {
	defer conn.Close()
	var size [4]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return
	}
	request := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(conn, request); err != nil {
		return
	}
	answer, err := k.answer(request)
	if err != nil {
		k.t.Error(err)
	}
	_, _ = conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(answer))), answer...))
}

func (k *kdc) answer(request []byte) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var as messages.ASReq
	var tgs messages.TGSReq
	if as.Unmarshal(request) == nil {
		return k.grant(as.ReqBody, msgtype.KRB_AS_REP, nil)
	}
	if err := tgs.Unmarshal(request); err != nil {
		return nil, err
	}
	var shown messages.APReq
	if err := shown.Unmarshal(tgs.PAData[0].PADataValue); err != nil {
		return nil, err
	}
	if err := shown.Ticket.DecryptEncPart(k.keys, &shown.Ticket.SName); err != nil {
		return nil, err
	}
	return k.grant(tgs.ReqBody, msgtype.KRB_TGS_REP, &shown.Ticket.DecryptedEncPart.Key)
}

// grant gives a ticket, whose key only whoever has another can read: a key of a ticket's, or of the keytab.
func (k *kdc) grant(body messages.KDCReqBody, kind int, by *types.EncryptionKey) ([]byte, error) {
	k.asked = append(k.asked, body.SName.PrincipalNameString())
	if k.refuse != 0 {
		refused := messages.NewKRBError(body.SName, realm, k.refuse, "")
		return refused.Marshal()
	}
	usage, way := uint32(keyusage.TGS_REP_ENCPART_SESSION_KEY), k.way
	if by == nil {
		own, _, err := k.keys.GetEncryptionKey(body.CName, realm, 1, etypeID.AES256_CTS_HMAC_SHA1_96)
		if err != nil {
			refused := messages.NewKRBError(body.SName, realm, errorcode.KDC_ERR_C_PRINCIPAL_UNKNOWN, "")
			return refused.Marshal()
		}
		by, usage, way = &own, keyusage.AS_REP_ENCPART, etypeID.AES256_CTS_HMAC_SHA1_96
	}
	now := time.Now().UTC().Truncate(time.Second)
	until := now.Add(k.lasts)
	ticket, key, err := messages.NewTicket(body.CName, realm, body.SName, realm, types.NewKrbFlags(), k.keys, way, 1, now, now, until, until)
	if err != nil {
		return nil, err
	}
	secret := messages.EncKDCRepPart{
		Key: key, LastReqs: []messages.LastReq{{LRValue: now}}, Nonce: body.Nonce, Flags: types.NewKrbFlags(),
		AuthTime: now, StartTime: now, EndTime: until, SRealm: realm, SName: body.SName,
	}
	plain, err := secret.Marshal()
	if err != nil {
		return nil, err
	}
	sealed, err := crypto.GetEncryptedData(plain, *by, usage, 1)
	if err != nil {
		return nil, err
	}
	fields := messages.KDCRepFields{PVNO: 5, MsgType: kind, CRealm: realm, CName: body.CName, Ticket: ticket, EncPart: sealed}
	if kind == msgtype.KRB_AS_REP {
		return (&messages.ASRep{KDCRepFields: fields}).Marshal()
	}
	return (&messages.TGSRep{KDCRepFields: fields}).Marshal()
}

// seen is which tickets were asked for since the last time.
func (k *kdc) seen() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	seen := k.asked
	k.asked = nil
	return seen
}

func (k *kdc) set(change func()) { k.mu.Lock(); defer k.mu.Unlock(); change() }

// mechanism is that of a client who logs in by keytab, unless it is changed.
func (k *kdc) mechanism(change func(*spec.Kerberos)) sasl.Mechanism {
	of := &spec.Kerberos{Service: "kafka", Principal: mirror + "@" + realm, Config: k.conf}
	change(of)
	return mechanismOf(k.t, spec.SASL{Mechanism: spec.GSSAPI, Kerberos: of})
}

// accept is the broker's part: it reads the ticket, and offers layers. It returns who it was and what protects the connection.
func (k *kdc) accept(session sasl.Session, first []byte, layers []byte) (who string, chosen []byte, err error) {
	k.t.Helper()
	key, who := k.read(first)
	done, answer, err := session.Challenge(offer(k.t, key, layers))
	if err != nil {
		return who, nil, err
	}
	var choice gssapi.WrapToken
	if err := choice.Unmarshal(answer, false); err != nil || !done {
		k.t.Fatalf("answer %x, done %v: %v", answer, done, err)
	}
	if ok, err := choice.Verify(key, keyusage.GSSAPI_INITIATOR_SEAL); !ok {
		k.t.Fatal(err)
	}
	return who, choice.Payload, nil
}

// read is what a ticket says to a broker.
func (k *kdc) read(first []byte) (key types.EncryptionKey, who string) {
	k.t.Helper()
	var token asn1.RawValue
	if rest, err := asn1.Unmarshal(first, &token); err != nil || len(rest) > 0 || first[0] != 0x60 {
		k.t.Fatalf("%x is no token: %v", first, err)
	}
	body, found := bytes.CutPrefix(token.Bytes, []byte("\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02\x01\x00"))
	if !found {
		k.t.Fatalf("%x is not Kerberos'", first)
	}
	var request messages.APReq
	if err := request.Unmarshal(body); err != nil {
		k.t.Fatal(err)
	}
	if err := request.Ticket.DecryptEncPart(k.keys, &request.Ticket.SName); err != nil {
		k.t.Fatal(err)
	}
	key = request.Ticket.DecryptedEncPart.Key
	if err := request.DecryptAuthenticator(key); err != nil {
		k.t.Fatal(err)
	}
	if got := request.Ticket.SName.PrincipalNameString(); got != servicename {
		k.t.Errorf("the ticket is for %s, want %s", got, servicename)
	}
	return key, request.Authenticator.CName.PrincipalNameString() + "@" + request.Authenticator.CRealm
}

func offer(t testing.TB, key types.EncryptionKey, layers []byte) []byte {
	t.Helper()
	token := gssapi.WrapToken{Flags: 1, EC: 12, Payload: layers}
	if err := token.SetCheckSum(key, keyusage.GSSAPI_ACCEPTOR_SEAL); err != nil {
		t.Fatal(err)
	}
	bytes, err := token.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

// all is what a broker offers that could do more than Kafka's.
var all = []byte{7, 0, 0xff, 0xff}

func must(t testing.TB, m sasl.Mechanism) (sasl.Session, []byte) {
	t.Helper()
	session, first, err := m.Authenticate(t.Context(), broker)
	if err != nil {
		t.Fatal(err)
	}
	return session, first
}

// A login is by keytab, password or ticket cache, and has the connection be protected by nothing, whatever the broker offers.
func TestKerberosLogin(t *testing.T) {
	for name, change := range map[string]func(*kdc, *spec.Kerberos){
		"keytab":   func(k *kdc, of *spec.Kerberos) { of.Keytab = k.keytab(mirror, mirror+"'s password") },
		"password": func(k *kdc, of *spec.Kerberos) { of.Password = mirror + "'s password" },
		"realm of krb5.conf": func(k *kdc, of *spec.Kerberos) {
			of.Principal, of.Keytab = mirror, k.keytab(mirror, mirror+"'s password")
		},
		"ticket cache":    func(k *kdc, of *spec.Kerberos) { of.TicketCache = k.cache(time.Hour) },
		"whoever's cache": func(k *kdc, of *spec.Kerberos) { of.TicketCache, of.Principal = k.cache(time.Hour), "" },
		"keytab for old cache": func(k *kdc, of *spec.Kerberos) {
			of.TicketCache, of.Keytab = k.cache(-time.Hour), k.keytab(mirror, mirror+"'s password")
		},
		"included krb5.conf": func(k *kdc, of *spec.Kerberos) {
			of.Keytab = k.keytab(mirror, mirror+"'s password")
			if err := os.Mkdir(filepath.Join(k.dir, "d"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(k.conf, filepath.Join(k.dir, "d", "realm.conf")); err != nil {
				t.Fatal(err)
			}
			k.file("d/.realm.conf.swp", "nonsense = {")
			of.Config = k.file("own.conf", "# ours\nincludedir "+k.dir+"/d\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKDC(t)
			session, first := must(t, k.mechanism(func(of *spec.Kerberos) { change(k, of) }))
			who, chosen, err := k.accept(session, first, all)
			if err != nil {
				t.Fatal(err)
			}
			if who != mirror+"@"+realm || !bytes.Equal(chosen, []byte{1, 0, 0, 0}) {
				t.Errorf("the broker sees %s, who chooses % x", who, chosen)
			}
		})
	}
}

// cache is a file as kinit leaves it (version 4), with a ticket for the realm that lasts so long.
func (k *kdc) cache(lasts time.Duration) string {
	k.t.Helper()
	name := types.NewPrincipalName(nametype.KRB_NT_PRINCIPAL, mirror)
	server := types.NewPrincipalName(nametype.KRB_NT_SRV_INST, granting)
	now := time.Now().UTC()
	ticket, key, err := messages.NewTicket(name, realm, server, realm, types.NewKrbFlags(), k.keys, etypeID.AES256_CTS_HMAC_SHA1_96, 1, now, now, now.Add(lasts), now.Add(lasts))
	if err != nil {
		k.t.Fatal(err)
	}
	body, err := ticket.Marshal()
	if err != nil {
		k.t.Fatal(err)
	}
	data := func(b, text []byte) []byte {
		return append(binary.BigEndian.AppendUint32(b, uint32(len(text))), text...)
	}
	principal := func(b []byte, p types.PrincipalName) []byte {
		b = binary.BigEndian.AppendUint32(b, uint32(p.NameType))
		b = data(binary.BigEndian.AppendUint32(b, uint32(len(p.NameString))), []byte(realm))
		for _, part := range p.NameString {
			b = data(b, []byte(part))
		}
		return b
	}
	b := []byte{5, 4, 0, 12, 0, 1, 0, 8, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0} // the header has the offset of the KDC's clock
	b = principal(principal(principal(b, name), name), server)
	b = data(binary.BigEndian.AppendUint16(b, uint16(key.KeyType)), key.KeyValue)
	for _, at := range []time.Time{now, now, now.Add(lasts), now.Add(lasts)} {
		b = binary.BigEndian.AppendUint32(b, uint32(at.Unix()))
	}
	b = append(b, make([]byte, 1+4+4+4)...) // no key of another's, no flags, no addresses, no authorization data
	return k.file("cache", string(data(data(b, body), nil)))
}

// A ticket does for later connections once a broker has taken it, and for none where it hasn't.
func TestKerberosTicketIsKept(t *testing.T) {
	k := newKDC(t)
	m := k.mechanism(func(of *spec.Kerberos) { of.Keytab = k.keytab(mirror, mirror+"'s password") })
	fresh := []string{granting, servicename}

	must(t, m) // nothing comes of it
	if seen := k.seen(); !slices.Equal(seen, fresh) {
		t.Errorf("for the first connection %q was asked for", seen)
	}
	session, first := must(t, m)
	if seen := k.seen(); !slices.Equal(seen, fresh) {
		t.Errorf("after a ticket that was not taken, %q was asked for", seen)
	}
	if _, _, err := k.accept(session, first, all); err != nil {
		t.Fatal(err)
	}
	session, again := must(t, m)
	if seen := k.seen(); seen != nil {
		t.Errorf("after one that was taken, %q was asked for", seen)
	}
	if bytes.Equal(first, again) {
		t.Error("two connections show the same, which a broker takes for a replay")
	}

	k.set(func() { k.lasts = 30 * time.Second })
	session, first = must(t, m)
	if _, _, err := k.accept(session, first, all); err != nil {
		t.Fatal(err)
	}
	k.seen()
	must(t, m)
	if seen := k.seen(); !slices.Equal(seen, fresh) {
		t.Errorf("after a ticket that is about to end, %q was asked for", seen)
	}
}

// A keytab that is replaced is taken up by the next connection. One that the KDC has found wrong is not shown to it over and over.
func TestKerberosKeytabIsReplaced(t *testing.T) {
	k := newKDC(t)
	m := k.mechanism(func(of *spec.Kerberos) { of.Keytab = k.keytab(mirror, "an older password") })
	var many sync.WaitGroup
	for range 10 {
		many.Go(func() {
			if _, _, err := m.Authenticate(t.Context(), broker); err == nil || !strings.Contains(err.Error(), "is wrong") {
				t.Errorf("by an old keytab: %v", err)
			}
		})
	}
	many.Wait()
	if seen := k.seen(); len(seen) != 1 {
		t.Errorf("by a wrong keytab %q was asked for", seen)
	}
	k.keytab(mirror, mirror+"'s password")
	session, first := must(t, m)
	if _, _, err := k.accept(session, first, all); err != nil {
		t.Fatal(err)
	}
	k.seen()
	k.keytab(mirror, mirror+"'s password")
	must(t, m)
	if seen := k.seen(); len(seen) != 2 {
		t.Errorf("after another keytab only %q was asked for", seen)
	}
}

// What is wrong is said in words, and without the keys.
func TestKerberosErrors(t *testing.T) {
	const planted = "planted secret"
	for _, test := range []struct {
		name   string
		change func(*kdc, *spec.Kerberos)
		want   string
	}{
		{"no service", func(_ *kdc, of *spec.Kerberos) { of.Service = "" }, "sasl.kerberos.service.name is not set"},
		{"no principal", func(_ *kdc, of *spec.Kerberos) { of.Principal = "" }, `principal "" has no name`},
		{"no krb5.conf", func(_ *kdc, of *spec.Kerberos) { of.Config = "/nowhere/krb5.conf" }, "krb5.conf: open /nowhere/krb5.conf"},
		{"krb5.conf that includes itself", func(k *kdc, of *spec.Kerberos) {
			of.Config = k.file("krb5.conf", "include "+k.conf+"\n")
		}, "more than 100 files are included"},
		{"another realm", func(k *kdc, of *spec.Kerberos) {
			of.Principal, of.Config = "a@OTHER", k.file("krb5.conf", "[libdefaults]\ndns_lookup_kdc = false\n")
		}, "no KDC of realm OTHER answers"},
		{"no keytab", func(_ *kdc, of *spec.Kerberos) { of.Keytab = "/nowhere/keytab" }, "keytab: open /nowhere/keytab"},
		{"broken keytab", func(k *kdc, of *spec.Kerberos) { of.Keytab = k.file("keytab", "\x05\x02\x00\x00\xff\xff"+planted) }, "is none, or cut short"},
		{"keytab of another", func(k *kdc, of *spec.Kerberos) { of.Keytab = k.keytab("other", "x") }, "has no key of " + mirror + "@" + realm + ", but of other@" + realm},
		{"keytab of old keys", func(k *kdc, of *spec.Kerberos) {
			keys := keytab.New()
			_ = keys.AddEntry(mirror, realm, planted, time.Now(), 1, etypeID.RC4_HMAC)
			content, _ := keys.Marshal()
			of.Keytab = k.file("keytab", string(content))
		}, "has only keys of types [23]"},
		{"no ticket cache", func(_ *kdc, of *spec.Kerberos) { of.Password, of.TicketCache = "", "/nowhere/cache" }, "ticket cache /nowhere/cache: open"},
		{"broken ticket cache", func(k *kdc, of *spec.Kerberos) { of.Password, of.TicketCache = "", k.file("cache", "\x05") }, "makes no sense"},
		{"old ticket cache", func(k *kdc, of *spec.Kerberos) { of.Password, of.TicketCache = "", k.cache(-time.Hour) }, "its ticket ended at"},
		{"another's ticket cache", func(k *kdc, of *spec.Kerberos) {
			of.Principal, of.Password, of.TicketCache = "other", "", k.cache(time.Hour)
		}, "is of " + mirror + "@" + realm + ", not of other"},
		{"wrong password", func(_ *kdc, of *spec.Kerberos) { of.Password = planted }, "the password or the keytab of " + mirror + "@" + realm + " is wrong, or not the newest"},
		{"unknown principal", func(k *kdc, of *spec.Kerberos) { of.Principal = "nobody" }, "realm " + realm + " knows no principal nobody"},
		{"unknown service", func(k *kdc, _ *spec.Kerberos) { k.refuse = errorcode.KDC_ERR_S_PRINCIPAL_UNKNOWN }, "knows no service"},
		{"locked", func(k *kdc, _ *spec.Kerberos) { k.refuse = errorcode.KDC_ERR_CLIENT_REVOKED }, "is locked or has expired"},
		{"expired password", func(k *kdc, _ *spec.Kerberos) { k.refuse = errorcode.KDC_ERR_KEY_EXPIRED }, "the password of " + mirror + "@" + realm + " has expired"},
		{"clocks", func(k *kdc, _ *spec.Kerberos) { k.refuse = errorcode.KRB_AP_ERR_SKEW }, "the clocks of this machine and of the KDC differ"},
		{"service of old keys", func(k *kdc, _ *spec.Kerberos) { k.way = etypeID.RC4_HMAC }, "the KDC encrypts for " + servicename + " only in an old way (type 23)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			k := newKDC(t)
			m := k.mechanism(func(of *spec.Kerberos) {
				of.Password = mirror + "'s password"
				test.change(k, of)
			})
			_, _, err := m.Authenticate(t.Context(), broker)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("%v\nlacks %s", err, test.want)
			}
			for _, secret := range []string{planted, "'s password"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%v gives a secret away", err)
				}
			}
		})
	}
}

// A KDC that is silent holds nobody up for longer than they wait.
func TestKerberosSilentKDC(t *testing.T) {
	k := newKDC(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0") // whose connections nobody takes
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	k.file("krb5.conf", fmt.Sprintf("[libdefaults]\nudp_preference_limit = 1\n[realms]\n%s = {\nkdc = %s\n}\n", realm, listener.Addr()))
	m := k.mechanism(func(of *spec.Kerberos) { of.Password = "x" })
	for range 2 { // the second waits for the first's request
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, _, err := m.Authenticate(ctx, broker)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "the KDC") {
			t.Errorf("a silent KDC: %v", err)
		}
	}
}

// What a broker answers is believed only where it proves to have read the ticket, and breaks nothing whatever it is.
func TestKerberosHostileBroker(t *testing.T) {
	k := newKDC(t)
	m := k.mechanism(func(of *spec.Kerberos) { of.Password = mirror + "'s password" })
	for _, test := range []struct {
		name   string
		answer func(types.EncryptionKey) []byte
		want   string
	}{
		{"another's key", func(key types.EncryptionKey) []byte {
			other := types.EncryptionKey{KeyType: key.KeyType, KeyValue: make([]byte, len(key.KeyValue))}
			return offer(t, other, all)
		}, "is not of " + servicename},
		{"protection only", func(key types.EncryptionKey) []byte { return offer(t, key, []byte{6, 0, 0xff, 0xff}) }, "its sasl.qop has to allow auth"},
		{"no layers", func(key types.EncryptionKey) []byte { return offer(t, key, []byte{}) }, "its sasl.qop has to allow auth"},
		{"one's own", func(key types.EncryptionKey) []byte {
			own, _ := gssapi.NewInitiatorWrapToken([]byte{1, 0, 0, 0}, key)
			b, _ := own.Marshal()
			return b
		}, "the broker's answer to GSSAPI"},
		{"cut short", func(key types.EncryptionKey) []byte { return offer(t, key, all)[:20] }, "the broker's answer to GSSAPI"},
		{"old", func(types.EncryptionKey) []byte {
			return []byte("\x60\x3f\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02\x02\x01\x11\x00")
		}, "the broker's answer to GSSAPI"},
	} {
		session, first := must(t, m)
		key, _ := k.read(first)
		if done, answer, err := session.Challenge(test.answer(key)); done || answer != nil || err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: done %v, answer %x, %v, which lacks %s", test.name, done, answer, err, test.want)
		}
	}

	// Two that are as they should be: one that says nothing first, and one whose token is rotated.
	session, first := must(t, m)
	if done, answer, err := session.Challenge(nil); done || answer != nil || err != nil {
		t.Fatalf("nothing: done %v, answer %x, %v", done, answer, err)
	}
	if _, _, err := session.Challenge(nil); err == nil {
		t.Error("a broker may say nothing for ever")
	}
	session, first = must(t, m)
	key, _ := k.read(first)
	token := offer(t, key, all)
	const rotated = 12
	token = slices.Concat(token[:6], []byte{0, rotated}, token[8:16], token[len(token)-rotated:], token[16:len(token)-rotated])
	if done, _, err := session.Challenge(token); !done || err != nil {
		t.Errorf("a rotated token: done %v, %v", done, err)
	}
}

// Whatever a broker answers, it is an error or an answer, and never the end of the process.
func FuzzKerberosAnswer(f *testing.F) {
	k := newKDC(f)
	m := k.mechanism(func(of *spec.Kerberos) { of.Password = mirror + "'s password" })
	session, first := must(f, m)
	key, _ := k.read(first)
	f.Add(offer(f, key, all))
	f.Add(offer(f, key, all)[:17])
	f.Add([]byte("\x05\x04\x01\xff\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00\x01"))
	f.Add([]byte("\x60\x00"))
	f.Fuzz(func(t *testing.T, token []byte) {
		if done, answer, err := session.Challenge(token); err != nil && (done || answer != nil) {
			t.Errorf("%x is refused by %v, and answered by %x (done %v)", token, err, answer, done)
		}
	})
}
