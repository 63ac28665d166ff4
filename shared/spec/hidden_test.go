package spec_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kferry/kferry/shared/spec"
)

// A secret that stands in a text beside a reference is as hidden as one that stands alone, and written only where that is asked for.
func TestSecretsBesideReferences(t *testing.T) {
	chain := "-----BEGIN PRIVATE KEY-----\\nhunter2hunter2\\n-----END PRIVATE KEY-----"
	for _, setting := range []string{
		`a.sasl.jaas.config = org.apache.kafka.common.security.plain.PlainLoginModule required username="${env:USER}" password="hunter2hunter2";`,
		`a.sasl.jaas.config = org.apache.kafka.common.security.plain.PlainLoginModule required username="${env:USER}" password="${env:USER}hunter2hunter2";`,
		"a.sasl.username = u\na.sasl.password = ${env:USER}hunter2hunter2",
	} {
		text := "KFERRY_MIRROR=clusters = a, b\na.bootstrap.servers = a:9093\nb.bootstrap.servers = b:9092\na->b.enabled = true\na.security.protocol = SASL_SSL\n"
		s, err := spec.Load(nil, []string{text + "a.sasl.mechanism = PLAIN\n" + setting, "USER=mirror"})
		if err != nil {
			t.Fatal(err)
		}
		if shown := fmt.Sprintf("%+v %v", s.References, s.Flows[0].Given); strings.Contains(shown, "hunter2") || !strings.Contains(shown, "[hidden]") {
			t.Errorf("%s: shows %s", setting, shown)
		}
		for _, format := range []spec.Format{spec.Properties, spec.StrimziV1, spec.Env} {
			written, _, err := spec.Write(s, format, false)
			if err == nil || !strings.Contains(err.Error(), "--show-secrets") || strings.Contains(written+err.Error(), "hunter2") {
				t.Errorf("%s in %s: %v %s", setting, format, err, written)
			}
			written, _, err = spec.Write(s, format, true)
			if err != nil || !strings.Contains(written, "hunter2hunter2") || !strings.Contains(written, "${env:USER}") {
				t.Errorf("%s in %s, when it is asked for: %v %s", setting, format, err, written)
			}
		}
		_, err = spec.Load(nil, []string{text + "a.sasl.mechanism = SCRAM\n" + setting})
		if err == nil || !strings.Contains(err.Error(), "USER") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s without the variable: %v", setting, err)
		}
	}
	_, err := spec.Load(nil, []string{`KFERRY_MIRROR=clusters = a, b
a.bootstrap.servers = a:9093
b.bootstrap.servers = b:9092
a->b.enabled = true
a.security.protocol = SSL
a.ssl.keystore.certificate.chain = ` + chain})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a key beside its certificate: %v", err)
	}
}

// What holds no secret is written as it is.
func TestLoginsWithoutSecretsAreWritten(t *testing.T) {
	for _, format := range []spec.Format{spec.Properties, spec.StrimziV1, spec.Env} {
		s := load(t, "KFERRY_MIRROR=clusters = a, b\na.bootstrap.servers = a:9093\nb.bootstrap.servers = b:9092\na->b.enabled = true\na.security.protocol = SASL_SSL\n"+
			"a.sasl.mechanism = AWS_MSK_IAM\na.sasl.jaas.config = software.amazon.msk.auth.iam.IAMLoginModule required awsRoleArn=\"arn:aws:iam::123456789012:role/mirror\";")
		if written, _, err := spec.Write(s, format, false); err != nil || !strings.Contains(written, "role/mirror") {
			t.Errorf("%s: %v\n%s", format, err, written)
		}
	}
}
