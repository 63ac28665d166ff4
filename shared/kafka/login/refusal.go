package login

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/shared/spec"
)

// ErrLogin is that a broker does not take a login, or that there is none to give: what an *Error is, for errors.Is.
var ErrLogin = errors.New("no login")

// An Error says who could not log in, and why.
type Error struct {
	who    string // with the mechanism, after a space; "" where that is not known
	cause  error
	offers []string   // mechanisms of the broker, where it lacks the one that was asked for
	of     *spec.SASL // nil where there is none
	noted  bool       // by refusals, whose lock guards it
}

func newError(s *spec.SASL, cause error) *Error {
	return &Error{who: fmt.Sprintf("%s by %s", who(s), s.Mechanism), cause: cause, of: s}
}

// who names the one who logs in, after a space and without a secret.
func who(s *spec.SASL) string {
	switch o, k := s.OAuth, s.Kerberos; {
	case s.DelegationToken:
		return fmt.Sprintf(" with delegation token %q", s.Username)
	case s.Username != "":
		return fmt.Sprintf(" as %q", s.Username)
	case o != nil && o.Username != "":
		return fmt.Sprintf(" as %q", o.Username)
	case o != nil && o.ClientID != "":
		return fmt.Sprintf(" as client %q", o.ClientID)
	case o != nil && o.TokenFile != "":
		return " with the token in " + o.TokenFile
	case k != nil && k.Principal != "":
		return fmt.Sprintf(" as %q", k.Principal)
	}
	return ""
}

func (e *Error) Error() string {
	text := ErrLogin.Error() + e.who + ": " + e.words()
	if len(e.offers) > 0 {
		text += "; the broker offers " + strings.Join(e.offers, ", ")
	}
	return text
}

// words are those of the broker, without the code, where it has said any.
func (e *Error) words() string {
	answer, is := errors.AsType[*kerr.Error](e.cause)
	if !is {
		return e.cause.Error()
	}
	words, _ := strings.CutPrefix(e.cause.Error(), answer.Error()+": ")
	if errors.Is(answer, kerr.IllegalSaslState) {
		words += " (a listener that asks for no login answers so: then say security.protocol=PLAINTEXT or SSL, or give the address of one that does)"
	}
	return strings.TrimRight(shown(words), ".")
}

// Is says that it is ErrLogin.
func (e *Error) Is(target error) bool { return target == ErrLogin }

func (e *Error) Unwrap() error { return e.cause }

const (
	firstPause   = time.Second // after a refusal; it doubles
	longestPause = 10 * time.Second
	offersLimit  = 3 * time.Second // to ask a broker what it offers
	mostOffers   = 4 << 10         // bytes of its answer
	// mostMechanisms is more than there are.
	mostMechanisms = 20
)

// refusals hold back a login that was refused. A password that somebody has mistyped comes with a thousand partitions, each of which has
// requests to make: without a pause a directory behind the broker would see them all, and lock the account.
type refusals struct {
	mu    sync.Mutex // guards what follows
	last  *Error     // nil while the login is good; another login than its may be tried at once
	tried *spec.SASL // last
	count int        // in a row
	next  time.Time  // of the attempt that may be made
	// trying is the broker to which that one is under way. franz-go may dial more than once to it: some close the connection at a
	// request that is too new for them.
	trying string
}

// pass is the last refusal while nothing else may be tried.
func (r *refusals) pass(s *spec.SASL, address string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.last == nil, r.trying == address:
		return nil
	case !reflect.DeepEqual(r.last.of, s):
		r.last, r.count = nil, 0
		return nil
	case time.Now().Before(r.next):
		return r.last
	}
	r.trying, r.next = address, time.Now().Add(pause(r.count))
	return nil
}

// pause is how long to wait after so many failures in a row.
func pause(failures int) time.Duration {
	if failures == 0 {
		return 0
	}
	return min(longestPause, firstPause<<min(failures-1, 10))
}

// accepted notes that a broker took the login.
func (r *refusals) accepted() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last, r.count, r.trying = nil, 0, ""
}

// try notes what is about to be tried.
func (r *refusals) try(s *spec.SASL) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tried = s
}

// refused notes that one did not.
func (r *refusals) refused(e *Error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last, r.trying, e.noted = e, "", true
	r.count++
	r.next = time.Now().Add(pause(r.count))
}

// elsewhere notes that a connection failed before anybody asked who is there.
func (r *refusals) elsewhere(address string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.trying == address {
		r.trying = ""
	}
}

// OnBrokerConnect is part of kgo.HookBrokerConnect: it learns how an attempt ended.
func (m *mechanism) OnBrokerConnect(broker kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	address := net.JoinHostPort(broker.Host, strconv.Itoa(int(broker.Port)))
	if err == nil {
		m.refusals.accepted()
		return
	}
	e := m.refusal(err)
	switch {
	case e == nil:
		m.refusals.elsewhere(address)
		return
	case m.refusals.noted(e):
		return // nothing was tried
	case errors.Is(e, kerr.UnsupportedSaslMechanism):
		e.offers = m.offers(address)
	case errors.Is(e, kerr.SaslAuthenticationFailed):
		m.tokens.forget() // where it is the token, another one may do
	}
	m.refusals.refused(e)
}

func (r *refusals) noted(e *Error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return e.noted
}

// refusal is what an error says of the login, nil for nothing.
func (m *mechanism) refusal(err error) *Error {
	if e, is := errors.AsType[*Error](err); is {
		return e
	}
	for _, answer := range []error{kerr.SaslAuthenticationFailed, kerr.UnsupportedSaslMechanism, kerr.IllegalSaslState} {
		if errors.Is(err, answer) {
			return m.refusals.answered(err)
		}
	}
	return nil
}

// answered is a broker's answer to what was tried last.
func (r *refusals) answered(err error) *Error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tried == nil {
		return &Error{cause: err}
	}
	return newError(r.tried, err)
}

// explain makes an *Error of what brokers answer to a login. The hook has been told before the request is, and knows more.
func (m *mechanism) explain(err error) error {
	e := m.refusal(err)
	if e == nil {
		return err
	}
	if last := m.refusals.latest(); last != nil && last.cause.Error() == e.cause.Error() {
		return last
	}
	return e
}

func (r *refusals) latest() *Error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// offers are the mechanisms of a broker. franz-go keeps them to itself, so it is asked once more; nil where it does not say.
func (m *mechanism) offers(address string) []string {
	ctx, cancel := context.WithTimeout(context.Background(), offersLimit) // the hook has no context
	defer cancel()
	conn, err := m.dial(ctx, "tcp", address)
	if err != nil {
		return nil
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if conn.SetDeadline(deadline) != nil {
		return nil
	}
	req := kmsg.NewPtrSASLHandshakeRequest()
	req.Version, req.Mechanism = 1, m.Name()
	if _, err := conn.Write(kmsg.NewRequestFormatter().AppendRequest(nil, req, 0)); err != nil {
		return nil
	}
	head := make([]byte, 8) // size and correlation id
	if _, err := io.ReadFull(conn, head); err != nil {
		return nil
	}
	size := int(binary.BigEndian.Uint32(head)) - 4
	if size < 0 || size > mostOffers {
		return nil
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(conn, body); err != nil {
		return nil
	}
	resp := req.ResponseKind().(*kmsg.SASLHandshakeResponse)
	if resp.ReadFrom(body) != nil {
		return nil
	}
	offers := resp.SupportedMechanisms[:min(len(resp.SupportedMechanisms), mostMechanisms)]
	for i, name := range offers {
		offers[i] = strings.Trim(strconv.QuoteToASCII(name), `"`) // whoever answered may not be a broker
	}
	slices.Sort(offers)
	return offers
}
