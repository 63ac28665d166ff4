package login

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrTLS is that a connection was made, and could not be secured.
var ErrTLS = errors.New("no TLS")

// A failure is an ErrTLS that says what is wrong, with whom, and what helps.
type failure struct {
	address string
	text    string
	cause   error // nil where text has said all of it
	at      time.Time
	next    bool // another broker may do
}

func (f *failure) Error() string {
	text := fmt.Sprintf("%v with %s: %s", ErrTLS, f.address, f.text)
	if f.cause != nil {
		text += ": " + f.cause.Error()
	}
	return text
}

// Unwrap has franz-go try another broker where there is hope: it does after errors of the network.
func (f *failure) Unwrap() []error {
	all := []error{ErrTLS}
	if f.cause != nil {
		all = append(all, f.cause)
	}
	if f.next {
		all = append(all, &net.OpError{Op: "TLS", Net: "tcp", Err: ErrTLS})
	}
	return all
}

// explain says what a failed handshake means to people.
func (h *handshake) explain(err error) *failure {
	f := &failure{address: h.address}
	header, noTLS := errors.AsType[tls.RecordHeaderError](err)
	alert := alertOf(err)
	switch {
	case noTLS && header.Conn != nil:
		f.text = "what is there does not speak it: " + mendPlain
	case endsEarly(err) && len(h.seen) == 0: // as Kafka does with what makes no sense as a request
		f.text = "the connection was closed at the first message of TLS, by a broker that does not speak it, or one that is not up: " + mendPlain
	case alert != nil && h.request != nil && aboutClient(*alert):
		f.text = h.refused(*alert)
	case alert != nil:
		f.text = h.alerted(*alert)
	case len(h.seen) > 0:
		f.text = h.distrusted(err)
	default:
		f.text, f.cause = "the handshake failed", err
	}
	return f
}

const mendPlain = "for a plaintext listener set security.protocol to PLAINTEXT (SASL_PLAINTEXT), else name the port of the TLS listener"

// endsEarly says that the peer closed the connection.
func endsEarly(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// answerToPlain explains the first answer to a request in plain text.
func answerToPlain(address string, b []byte, err error) error {
	const alert, major = 21, 3
	if len(b) >= 3 && b[0] == alert && b[1] == major {
		return &failure{address: address, text: "it answers in TLS, and is spoken to in plain text: set security.protocol to SSL (SASL_SSL where there is a login)"}
	}
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s closed the connection at the first request: it is about to stop, or wants TLS (security.protocol SSL or SASL_SSL)", address)
	}
	return err
}

// alertOf is what the peer says by an alert, nil if it sent none.
func alertOf(err error) *tls.AlertError {
	op, is := errors.AsType[*net.OpError](err)
	if !is || op.Op != "remote error" {
		return nil
	}
	for code := range 256 { // its type is Go's own, its text that of an AlertError
		if alert := tls.AlertError(code); alert.Error() == op.Err.Error() {
			return &alert
		}
	}
	return nil
}

// Alerts (RFC 8446, 6.2).
const (
	handshakeFailure    = 40
	badCertificate      = 42
	certificateExpired  = 45
	certificateUnknown  = 46
	unknownCA           = 48
	accessDenied        = 49
	protocolVersion     = 70
	insufficientSecure  = 71
	unrecognizedName    = 112
	certificateRequired = 116
)

// aboutClient says that an alert may be about the client's certificate.
func aboutClient(alert tls.AlertError) bool {
	return alert == handshakeFailure || alert >= badCertificate && alert <= certificateUnknown || alert == unknownCA || alert == accessDenied || alert == certificateRequired
}

// refused is what a broker says to a client that it asked for a certificate.
func (h *handshake) refused(alert tls.AlertError) string {
	wants := ""
	if issuers := h.issuers(); issuers != "" {
		wants = "; it takes those that are issued by " + issuers
	}
	switch own := h.of.Certificate; {
	case own == nil:
		return fmt.Sprintf("it wants a certificate of the client, and there is none to show (%v): set ssl.keystore.location (authentication of type tls)%s", alert, wants)
	case h.fits != nil:
		return fmt.Sprintf("the client's certificate, %s, is none that it takes, so it got none (%v)%s", describe(leafOf(own)), alert, wants)
	default:
		leaf := leafOf(own)
		if leaf != nil && time.Now().After(leaf.NotAfter) {
			return fmt.Sprintf("it refuses the client's certificate, %s, which expired on %s (%v): put a new one into the keystore", describe(leaf), date(leaf.NotAfter), alert)
		}
		return fmt.Sprintf("it refuses the client's certificate, %s (%v)%s", describe(leaf), alert, wants)
	}
}

// issuers are those whose certificates the broker takes, where it says.
func (h *handshake) issuers() string {
	var names []string
	for _, raw := range h.request.AcceptableCAs {
		names = append(names, nameOf(raw))
	}
	return list(names)
}

// alerted is what a broker says that is not about the client's certificate.
func (h *handshake) alerted(alert tls.AlertError) string {
	switch alert {
	case handshakeFailure, protocolVersion, insufficientSecure:
		return fmt.Sprintf("there is no protocol or cipher that both take (%v): look at ssl.enabled.protocols and ssl.cipher.suites here and on the broker", alert)
	case unrecognizedName:
		return fmt.Sprintf("it knows no host %q (%v): name the broker as its certificate does", h.host, alert)
	}
	return fmt.Sprintf("it ended the handshake (%v): the broker's log says why", alert)
}

// distrusted says what is wrong with the host's certificate.
func (h *handshake) distrusted(err error) string {
	leaf := h.seen[0]
	is := "its certificate, " + describe(leaf) + ", "
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, wrongName := errors.AsType[x509.HostnameError](err)
	switch {
	case isInvalid && invalid.Reason == x509.Expired:
		c := invalid.Cert
		if !c.Equal(leaf) {
			is = fmt.Sprintf("the certificate of the authority %s, which issued that of %s, ", nameOf(c.RawSubject), nameOf(leaf.RawSubject))
		}
		if time.Now().Before(c.NotBefore) {
			return is + fmt.Sprintf("is not yet valid: it will be on %s, and here it is %s", date(c.NotBefore), date(time.Now()))
		}
		return is + fmt.Sprintf("expired on %s: the broker needs a new one", date(c.NotAfter))
	case isInvalid && invalid.Reason == x509.IncompatibleUsage:
		return is + "is not meant for servers: its extended key usage lacks serverAuth"
	case unknown:
		by := h.seen[len(h.seen)-1]
		return is + fmt.Sprintf("is not trusted: %s has issued it (the chain ends at %s): add the certificate of that authority to the truststore (trustedCertificates)", h.trusted(), nameOf(by.RawIssuer))
	case wrongName:
		return is + fmt.Sprintf("is not for %q%s: name the broker as its certificate does, or have any name do by an empty ssl.endpoint.identification.algorithm", h.host, h.names())
	}
	return is + "is not good: " + limited(err.Error())
}

func (h *handshake) trusted() string {
	if h.of.Roots == nil {
		return "no truststore is given, and no authority that the system knows" // an image without a list of them knows none
	}
	return fmt.Sprintf("no trusted authority (%s)", list(subjects(h.of.Roots)))
}

func subjects(all []*x509.Certificate) (names []string) {
	for _, c := range all {
		names = append(names, nameOf(c.RawSubject))
	}
	return names
}

// names tells why a certificate's names don't do, where that is not plain.
func (h *handshake) names() string {
	c := h.seen[0]
	switch {
	case net.ParseIP(h.host) != nil && len(c.IPAddresses) == 0:
		return ", and for no IP address at all"
	case len(c.DNSNames) == 0 && len(c.IPAddresses) == 0:
		return fmt.Sprintf(": it has no subject alternative names, and its common name is %q", limited(c.Subject.CommonName))
	}
	return ""
}

// describe tells a certificate from others: whose it is, for which hosts, from when to when, and who issued it.
func describe(c *x509.Certificate) string {
	if c == nil {
		return "which can't be read"
	}
	names := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	for i, name := range names {
		names[i] = limited(name)
	}
	hosts := ""
	if len(names) > 0 {
		hosts = " for " + list(names)
	}
	return fmt.Sprintf("%s%s (valid from %s to %s, issued by %s)", nameOf(c.RawSubject), hosts, date(c.NotBefore), date(c.NotAfter), nameOf(c.RawIssuer))
}

func leafOf(c *tls.Certificate) *x509.Certificate {
	if c.Leaf != nil || len(c.Certificate) == 0 {
		return c.Leaf
	}
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		return nil
	}
	return leaf
}

const (
	mostNames = 5   // in a message
	mostText  = 200 // bytes of what somebody else wrote
)

// nameOf is a distinguished name for people.
func nameOf(raw []byte) string {
	var sequence pkix.RDNSequence
	if _, err := asn1.Unmarshal(raw, &sequence); err != nil {
		return "somebody without a name"
	}
	if name := sequence.String(); name != "" {
		return limited(name)
	}
	return "nobody by name"
}

// limited has a text of others do no harm in a message.
func limited(text string) string {
	if len(text) > mostText {
		text = text[:mostText] + "…"
	}
	quoted := strconv.QuoteToGraphic(text)
	return quoted[1 : len(quoted)-1]
}

func list(names []string) string {
	if more := len(names) - mostNames; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:mostNames], ", "), more)
	}
	return strings.Join(names, ", ")
}

func date(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
