# Makes the realm REALM on the first start, and becomes its KDC on 127.0.0.1:PORT. Principals are made by kadmin.local.
set -eu

mkdir -p /etc/krb5kdc /var/lib/krb5kdc /tmp
cat >/etc/krb5.conf <<EOF
[libdefaults]
  default_realm = $REALM
[realms]
  $REALM = {
    kdc = 127.0.0.1:$PORT
  }
EOF
cat >/etc/krb5kdc/kdc.conf <<EOF
[kdcdefaults]
  kdc_listen = 127.0.0.1:$PORT
  kdc_tcp_listen = 127.0.0.1:$PORT
[realms]
  $REALM = {
    supported_enctypes = aes256-cts-hmac-sha1-96:normal aes128-cts-hmac-sha1-96:normal
    default_principal_flags = +preauth
  }
[logging]
  kdc = STDERR
EOF
if ! [ -e /var/lib/krb5kdc/principal ]; then
  kdb5_util create -s -r "$REALM" -P master >/dev/null
fi
exec krb5kdc -n
