package login

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"strings"
	"time"

	"github.com/kferry/kferry/shared/keystore"
	"github.com/kferry/kferry/shared/spec"
)

// claims are what a JWT says of its life, in seconds since 1970; 0 is nothing.
type claims struct {
	Expires float64 `json:"exp"`
	Issued  float64 `json:"iat"`
}

func (c claims) expiry() time.Time { return time.Unix(0, 0).Add(seconds(c.Expires)) }

// life is how long the token lives, whatever our clock says; 0 for unknown.
func (c claims) life() time.Duration {
	switch {
	case c.Expires == 0:
		return 0
	case c.Issued > 0 && c.Issued < c.Expires:
		return seconds(c.Expires - c.Issued)
	}
	return max(time.Until(c.expiry()), time.Nanosecond)
}

// seconds is a duration that doesn't overflow.
func seconds(s float64) time.Duration {
	const most = float64(math.MaxInt64/int64(time.Second)) / 2
	return time.Duration(max(0, min(s, most)) * float64(time.Second))
}

// claimsOf reads a JWT, which is not ours to verify. It says whether it is one.
func claimsOf(text spec.Secret) (claims, bool) {
	parts := strings.Split(string(text), ".")
	if len(parts) != 3 {
		return claims{}, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return claims{}, false
	}
	var c claims
	if json.Unmarshal(payload, &c) != nil {
		return claims{}, false
	}
	return c, true
}

// unsecuredLife is Kafka's for a token that nobody has signed.
const unsecuredLife = time.Hour

// unsecured is a token that nobody has signed.
func unsecured(o *spec.OAuth) (spec.Secret, error) {
	life := o.MaxLifetime
	if life == 0 {
		life = unsecuredLife
	}
	now := time.Now()
	claims := map[string]any{"iat": now.Unix(), "exp": now.Add(life).Unix()}
	maps.Copy(claims, o.Unsecured)
	text, err := jwt(map[string]any{"alg": "none"}, claims)
	return spec.Secret(text + "."), err
}

// jwt is a JWT without its signature, and the dot before it.
func jwt(header, claims map[string]any) (string, error) {
	var parts [2]string
	for i, part := range []map[string]any{header, claims} {
		text, err := json.Marshal(part)
		if err != nil {
			return "", err
		}
		parts[i] = base64.RawURLEncoding.EncodeToString(text)
	}
	return parts[0] + "." + parts[1], nil
}

// sign makes an assertion (sasl.oauthbearer.assertion.*). As in Kafka's clients the template's wins over what is configured by itself, and
// what is made here over both.
func sign(a *spec.SignedAssertion) (spec.Secret, error) {
	key, err := signingKey(a)
	if err != nil {
		return "", err
	}
	header, claims := map[string]any{}, map[string]any{}
	for name, value := range map[string]string{"iss": a.Issuer, "sub": a.Subject, "aud": a.Audience} {
		if value != "" {
			claims[name] = value
		}
	}
	if a.Template != "" {
		template, err := readTemplate(a.Template)
		if err != nil {
			return "", err
		}
		maps.Copy(header, template.Header)
		maps.Copy(claims, template.Payload)
	}
	now := time.Now()
	header["alg"], header["typ"] = a.Algorithm, "JWT"
	claims["iat"], claims["exp"], claims["nbf"] = now.Unix(), now.Add(a.Lifetime).Unix(), now.Add(-a.NotBefore).Unix()
	if a.ID {
		claims["jti"] = rand.Text()
	}
	text, err := jwt(header, claims)
	if err != nil {
		return "", err
	}
	signature, err := signature(key, a.Algorithm, text)
	if err != nil {
		return "", err
	}
	return spec.Secret(text + "." + base64.RawURLEncoding.EncodeToString(signature)), nil
}

// template is a file with what an assertion also has.
type template struct {
	Header  map[string]any `json:"header"`
	Payload map[string]any `json:"payload"`
}

func readTemplate(path string) (t template, _ error) {
	text, err := readSecret(path)
	if err != nil {
		return t, fmt.Errorf("read the assertion's template: %w", err)
	}
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.UseNumber()
	if err := d.Decode(&t); err != nil {
		return t, fmt.Errorf("the assertion's template %s is no JSON object with header and payload", path)
	}
	return t, nil
}

func signingKey(a *spec.SignedAssertion) (crypto.PrivateKey, error) {
	text, err := readSecret(a.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read the assertion's private key: %w", err)
	}
	store, err := keystore.Read([]byte(text), "", string(a.Passphrase))
	if err == nil && len(store.Keys) == 0 {
		err = errors.New("it holds none")
	}
	if err != nil {
		return nil, fmt.Errorf("the assertion's private key %s: %w", a.KeyFile, err)
	}
	key, err := store.Keys[0].Private()
	if err != nil {
		return nil, fmt.Errorf("the assertion's private key %s: %w", a.KeyFile, err)
	}
	return key, nil
}

// signature is by RFC 7518.
func signature(key crypto.PrivateKey, algorithm, text string) ([]byte, error) {
	digest := sha256.Sum256([]byte(text))
	switch key := key.(type) {
	case *rsa.PrivateKey:
		if algorithm == "RS256" {
			return key.Sign(rand.Reader, digest[:], crypto.SHA256)
		}
	case *ecdsa.PrivateKey:
		if algorithm == "ES256" && key.Curve.Params().BitSize == 256 {
			r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
			if err != nil {
				return nil, err
			}
			both := make([]byte, 64)
			r.FillBytes(both[:32])
			s.FillBytes(both[32:])
			return both, nil
		}
	}
	return nil, fmt.Errorf("an assertion can't be signed by %q with that private key: RS256 takes an RSA key, ES256 one on the curve P-256", algorithm)
}
