package cli_test

import (
	"crypto/x509"
	"os"
	"os/exec"
	"testing"
)

// In an image of nothing but kferry, certificates of public authorities are believed all the same.
func TestAuthoritiesWhereTheSystemHasNone(t *testing.T) {
	const inside = "KFERRY_TEST_ROOTS"
	if os.Getenv(inside) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = []string{inside + "=1", "SSL_CERT_FILE=/none", "SSL_CERT_DIR=/none"}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	pool, err := x509.SystemCertPool()
	if err != nil || pool.Equal(x509.NewCertPool()) {
		t.Errorf("no authorities: %v", err)
	}
}
