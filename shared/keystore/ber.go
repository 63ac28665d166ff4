package keystore

import (
	"encoding/asn1"
)

// maxDepth is how deep elements lie in each other. PKCS12 needs about ten.
const maxDepth = 32

// derOf has BER become DER as far as PKCS12 needs: lengths are definite, and octet strings are in one part. Bouncy Castle, NSS and Windows
// write such stores.
func derOf(ber []byte) ([]byte, error) {
	der, rest, err := element(ber, 0)
	if err == nil && len(rest) > 0 {
		err = errCut
	}
	return der, err
}

// element takes the first element.
func element(ber []byte, depth int) (der, rest []byte, err error) {
	if len(ber) < 2 || depth > maxDepth {
		return nil, nil, errCut
	}
	const long, constructed, indefinite = 0x1F, 0x20, 0x80
	head := 1
	if ber[0]&long == long {
		for head < len(ber) && ber[head]&0x80 != 0 {
			head++
		}
		head++
	}
	if head >= len(ber) {
		return nil, nil, errCut
	}
	tag, length, body := ber[:head], int(ber[head]), ber[head+1:]
	ends := false // the element ends where it says so
	switch {
	case length == indefinite:
		ends = true
	case length > indefinite:
		count := length - indefinite
		if count > 4 || count > len(body) {
			return nil, nil, errCut
		}
		length = 0
		for _, b := range body[:count] {
			length = length<<8 | int(b)
		}
		body = body[count:]
	}
	if ends && tag[0]&constructed == 0 || !ends && length > len(body) {
		return nil, nil, errCut
	}
	if !ends {
		body, rest = body[:length], body[length:]
	}
	if tag[0]&constructed == 0 {
		return wrap(tag, body), rest, nil
	}
	isString := len(tag) == 1 && tag[0] == asn1.TagOctetString|constructed
	var inside []byte
	for {
		if ends && len(body) >= 2 && body[0] == 0 && body[1] == 0 {
			rest = body[2:]
			break
		}
		if !ends && len(body) == 0 {
			break
		}
		var part []byte
		if part, body, err = element(body, depth+1); err != nil {
			return nil, nil, err
		}
		if isString {
			var text []byte
			if err := unmarshal(part, &text); err != nil {
				return nil, nil, errCut
			}
			part = text
		}
		inside = append(inside, part...)
	}
	if isString {
		tag = []byte{asn1.TagOctetString}
	}
	return wrap(tag, inside), rest, nil
}

// wrap puts a tag and a length before a body.
func wrap(tag, body []byte) []byte {
	out := append(make([]byte, 0, len(tag)+5+len(body)), tag...)
	switch n := len(body); {
	case n < 0x80:
		out = append(out, byte(n))
	case n < 1<<8:
		out = append(out, 0x81, byte(n))
	case n < 1<<16:
		out = append(out, 0x82, byte(n>>8), byte(n))
	case n < 1<<24:
		out = append(out, 0x83, byte(n>>16), byte(n>>8), byte(n))
	default:
		out = append(out, 0x84, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return append(out, body...)
}
