#!/usr/bin/env bash
# Makes the stores in this folder, with keytool (JDK 17) and OpenSSL 3. All passwords are "changeit", those of keys that have their own "keypass".
# Nothing expires before 2126. The keys are for these tests alone.
set -euo pipefail
cd "$(dirname "$0")"
rm -f ./*.jks ./*.jceks ./*.p12 ./*.pem ./*.der
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
kt() { keytool "$@" -storepass changeit 2>/dev/null; }

# An authority, an authority of its, and a client's certificate by that one.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$work/ca.key" -out ca.pem -days 36500 -subj "/CN=Test CA" 2>/dev/null
printf 'basicConstraints=critical,CA:true\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n' >"$work/ca.ext"
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$work/between.key" -out "$work/between.csr" -subj "/CN=Between CA" 2>/dev/null
openssl x509 -req -in "$work/between.csr" -CA ca.pem -CAkey "$work/ca.key" -out "$work/between.pem" -days 36500 -extfile "$work/ca.ext" 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out "$work/client.csr" -subj "/CN=client" 2>/dev/null
openssl x509 -req -in "$work/client.csr" -CA "$work/between.pem" -CAkey "$work/between.key" -out "$work/client.pem" -days 36500 2>/dev/null
cat "$work/client.pem" "$work/between.pem" >chain.pem
openssl x509 -in ca.pem -outform der -out ca.der

# PEM in every form of a key.
openssl ec -in key.pem -out sec1.pem 2>/dev/null
openssl pkcs8 -topk8 -in key.pem -passout pass:changeit -v2 aes-256-cbc -out pbes2.pem
openssl pkcs8 -topk8 -in key.pem -passout pass:changeit -v2 des3 -v2prf hmacWithSHA1 -out pbes2-3des.pem
openssl pkcs8 -topk8 -in key.pem -passout pass:changeit -v1 PBE-SHA1-3DES -out pbes1.pem
openssl pkcs8 -topk8 -in key.pem -passout pass:changeit -scrypt -out scrypt.pem
openssl ec -in key.pem -aes256 -passout pass:changeit -out legacy.pem 2>/dev/null
openssl genrsa -traditional 2048 >pkcs1.pem 2>/dev/null

# PKCS12 by OpenSSL 3, as OpenSSL 1 did, and with other ciphers.
p12() { openssl pkcs12 -export -inkey key.pem -in chain.pem -certfile ca.pem -name Client -passout pass:changeit "$@"; }
p12 -out openssl3.p12
p12 -legacy -out openssl1.p12
p12 -legacy -certpbe PBE-SHA1-RC2-128 -keypbe PBE-SHA1-2DES -macalg sha512 -out rc2-128.p12
p12 -certpbe NONE -keypbe NONE -nomac -out open.p12
openssl pkcs12 -export -inkey key.pem -in chain.pem -certfile ca.pem -passout pass: -out empty.p12
openssl pkcs12 -export -nokeys -in ca.pem -passout pass:changeit -out openssl-trust.p12

# keytool's, of 17 and in the form of 8 (keystore.pkcs12.legacy).
for form in "17 -J-Dx=y" "8 -J-Dkeystore.pkcs12.legacy"; do
  set -- $form
  kt -importkeystore -srckeystore openssl3.p12 -srcstorepass changeit -destkeystore "keytool$1.p12" -deststoretype pkcs12 -deststorepass changeit -srcalias client "$2"
  kt -importcert -noprompt -alias ca -file ca.pem -keystore "keytool$1-trust.p12" -storetype pkcs12 "$2"
done
kt -importcert -noprompt -alias ca -file ca.pem -keystore trust-open.p12 -storetype pkcs12 -J-Dkeystore.pkcs12.certProtectionAlgorithm=NONE -J-Dkeystore.pkcs12.macAlgorithm=NONE
for type in jks jceks; do
  kt -importkeystore -srckeystore openssl3.p12 -srcstorepass changeit -destkeystore "key.$type" -deststoretype $type -deststorepass changeit -destkeypass keypass -srcalias client
  kt -importcert -noprompt -alias ca -file ca.pem -keystore "key.$type" -storetype $type
  kt -importcert -noprompt -alias ca -file ca.pem -keystore "trust.$type" -storetype $type
done
kt -genseckey -alias secret -keyalg AES -keysize 128 -keypass changeit -keystore secret.jceks -storetype jceks
for alias in zebra apple client mirror kafka; do
  kt -genkeypair -alias $alias -keyalg EC -groupname secp256r1 -dname "CN=$alias" -validity 36500 -keystore several.p12 -storetype pkcs12
  kt -genkeypair -alias $alias -keyalg EC -groupname secp256r1 -dname "CN=$alias" -validity 36500 -keystore several.jks -storetype jks -keypass changeit
done
