package login

import "github.com/kferry/kferry/shared/spec"

// Secured is a dial for a login that changes.
func Secured(security func() (spec.Security, error), dial Dial) Dial {
	return (&gate{security: security, dial: dial}).connect
}
