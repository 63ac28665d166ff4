package login

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/sasl"

	"github.com/kferry/kferry/shared/spec"
)

// bearer is SASL's OAUTHBEARER (RFC 7628) with one token. franz-go's own drops the words in which a broker refuses it.
type bearer struct {
	token      spec.Secret
	extensions map[string]string // KIP-342
}

// Name is part of sasl.Mechanism.
func (bearer) Name() string { return string(spec.OAUTHBEARER) }

// Authenticate is part of sasl.Mechanism.
func (b bearer) Authenticate(context.Context, string) (sasl.Session, []byte, error) {
	var first strings.Builder
	first.WriteString("n,,\x01auth=Bearer " + string(b.token))
	for _, name := range slices.Sorted(maps.Keys(b.extensions)) {
		fmt.Fprintf(&first, "\x01%s=%s", name, b.extensions[name])
	}
	first.WriteString("\x01\x01")
	return &bearerSession{}, []byte(first.String()), nil
}

type bearerSession struct{ refused bool }

// Challenge ends a login that was taken. Refusals come in two steps: a status, and, once it is acknowledged, Kafka's error.
func (b *bearerSession) Challenge(status []byte) (bool, []byte, error) {
	switch {
	case b.refused:
		return false, nil, errors.New("the broker refuses the token, and does not say why")
	case len(status) == 0:
		return true, nil, nil
	}
	b.refused = true
	return false, []byte{1}, nil
}

// tokenText is what a token may hold, as Kafka has it.
var tokenText = regexp.MustCompile(`^[-_~+/.A-Za-z0-9]+=*$`)
