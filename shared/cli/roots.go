package cli

// Whom to trust where nobody says: the system does, and where it has no list, as in an image of nothing but this binary, Mozilla's
// list does, as it was when the binary was built. A list that is mounted where a system has one wins, and so does SSL_CERT_FILE.
import _ "golang.org/x/crypto/x509roots/fallback"
