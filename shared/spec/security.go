package spec

import (
	"maps"
	"slices"
	"strings"
)

// This file knows the shapes in which resources speak of TLS and SASL, to refuse them with every mistake named: kferry has
// neither yet, and must not speak PLAINTEXT to a cluster that is meant to be secured.

const noSecurity = "is not supported yet; kferry speaks PLAINTEXT only and won't fall back to it unasked"

// authenticationFields are those that each type needs, in one of the shapes. oauth takes many, none always.
var authenticationFields = map[string][]string{
	"tls":           {"certificateAndKey"},
	"scram-sha-256": {"username", "passwordSecret"},
	"scram-sha-512": {"username", "passwordSecret"},
	"plain":         {"username", "passwordSecret"},
	"oauth":         nil,
	"custom":        {"config"}, // since v1
}

// secretFields are the parts of a reference to a Secret.
var secretFields = map[string][]string{
	"certificateAndKey": {"secretName", "certificate", "key"},
	"passwordSecret":    {"secretName", "password"},
}

func (r *resourceReader) refuseSecurity(m mapping) {
	if n := m.take("tls"); n.there() {
		r.wrongf(n.at(), noSecurity)
		for _, certificate := range n.mapping(r.report).take("trustedCertificates").items(r.report) {
			r.checkCertificate(certificate.mapping(r.report))
		}
	}
	if n := m.take("authentication"); n.there() {
		r.refuseAuthentication(n.mapping(r.report))
	}
}

func (r *resourceReader) checkCertificate(m mapping) {
	if name := m.text("secretName", r.report); !name.set {
		r.wrongf(name, "is missing; name the Secret that holds the certificate")
	}
	if certificate, pattern := m.text("certificate", r.report), m.text("pattern", r.report); certificate.set == pattern.set {
		r.wrongf(certificate, "give either certificate, a key in the Secret, or pattern, which matches keys, like *.crt")
	}
}

func (r *resourceReader) refuseAuthentication(m mapping) {
	kind := m.text("type", r.report)
	needed, known := authenticationFields[kind.text]
	types := slices.Sorted(maps.Keys(authenticationFields))
	switch {
	case !m.there():
		return
	case !kind.set:
		r.wrongf(kind, "is missing; give %s", orList(types))
		return
	case !known:
		r.wrongf(kind, "%q: unknown; give %s%s", kind.text, orList(types), suggest(kind.text, types))
		return
	}
	r.wrongf(m.at(), "type %s "+noSecurity, kind.text)
	for _, field := range needed {
		n := m.take(field)
		if !n.there() {
			r.wrongf(m.text(field, r.report), "is missing; authentication of type %s needs %s", kind.text, strings.Join(needed, " and "))
			continue
		}
		if secretFields[field] == nil {
			continue
		}
		parts := n.mapping(r.report)
		for _, part := range secretFields[field] {
			if v := parts.text(part, r.report); parts.there() && !v.set {
				r.wrongf(v, "is missing; %s refers to a Secret by %s", field, strings.Join(secretFields[field], ", "))
			}
		}
	}
}
