package spec

// Principal is who brokers take the login for, unless they are told to map names (principal.builder.class, ssl.principal.mapping.rules,
// sasl.kerberos.principal.to.local.rules): for people to read. It is "" where only the brokers know.
func (l *Login) Principal() string {
	s, err := l.Security()
	switch {
	case err != nil:
		return ""
	case s.SASL != nil && s.SASL.Username != "" && !s.SASL.DelegationToken:
		return "User:" + s.SASL.Username
	case s.SASL != nil:
		return ""
	case s.TLS != nil && s.TLS.Certificate != nil && s.TLS.Certificate.Leaf != nil:
		return "User:" + s.TLS.Certificate.Leaf.Subject.String()
	case s.TLS != nil && s.TLS.Certificate != nil:
		return ""
	}
	return "User:ANONYMOUS"
}
