package login

// Secured is a dial that speaks TLS where a login says so.
var Secured = secured
