package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kferry/kferry/shared/local"
	"github.com/kferry/kferry/shared/spec"
)

// One cluster is read by one user and written to by another. What goes wrong with the one is nothing to the other, and a password that is
// mended where it stands is taken up without a restart.
func TestFlowsLogInAsSomebodyElse(t *testing.T) {
	inBubble(t, []string{"A", "B"}, func(b *bubble) {
		g := local.NewGuard(b.Kafka("A"), "PLAIN")
		g.SetPassword("reader", "secret-reader")
		g.SetPassword("writer", "secret-writer")
		dir := t.TempDir()
		password := func(user, text string) { b.must(os.WriteFile(filepath.Join(dir, user), []byte(text), 0o600)) }
		password("reader", "secret-reader")
		password("writer", "secret-wrong")
		text := "clusters = A, B\nemit.heartbeats.enabled = false\nA->B.enabled = true\nB->A.enabled = true\nA.security.protocol = SASL_PLAINTEXT\nA.sasl.mechanism = PLAIN\n"
		for _, alias := range []string{"A", "B"} {
			text += alias + ".bootstrap.servers = " + strings.Join(b.Spec(alias).BootstrapServers, ",") + "\n"
		}
		for _, user := range []string{"A->B.source.cluster. reader", "B->A.target.cluster. writer"} {
			prefix, name, _ := strings.Cut(user, " ")
			text += fmt.Sprintf("%[1]ssasl.username = %[2]s\n%[1]ssasl.password = ${directory:%[3]s:%[2]s}\n", prefix, name, dir)
		}
		s, err := spec.Load(nil, []string{"KFERRY_MIRROR=" + text})
		b.must(err)
		b.must(b.Kafka("A").CreateTopic("orders", 1, nil))
		b.must(b.Kafka("B").CreateTopic("payments", 1, nil))
		b.write("A", "orders", 30)
		b.write("B", "payments", 30)
		b.coordinate(s)
		b.work(s)
		time.Sleep(30 * time.Second)
		if n := b.Records("B", "A.orders"); n != 30 {
			b.Errorf("read as reader: %d records of 30", n)
		}
		if slices.Contains(b.topics("A"), "B.payments") {
			b.Error("written with a wrong password, or as reader")
		}
		password("writer", "secret-writer")
		b.write("A", "orders", 5)
		time.Sleep(40 * time.Second)
		if n, m := b.Records("B", "A.orders"), b.Records("A", "B.payments"); n != 35 || m != 30 {
			b.Errorf("%d records of 35, %d of 30", n, m)
		}
	})
}

// validate says how clusters are spoken to, and convert writes what was given without giving it away.
func TestSecretsAreNotShown(t *testing.T) {
	t.Parallel()
	file := mirrorFile(t, "clusters = a, b\na.bootstrap.servers = a:1\nb.bootstrap.servers = b:1\na->b.enabled = true\nb.security.protocol = SASL_SSL\nb.sasl.mechanism = PLAIN\n"+
		"b.sasl.jaas.config = org.apache.kafka.common.security.plain.PlainLoginModule required username=\"mirror\" password=\"secret-word\";\nb.ssl.endpoint.identification.algorithm =\n")
	for _, args := range [][]string{{"validate"}, {"validate", "-o", "json"}} {
		code, out, err := kferry(t, nil, append(args, "-f", file)...)
		if code != 0 || strings.Contains(out+err, "secret-word") || !strings.Contains(out, "SASL_SSL") || !strings.Contains(out, "mirror") || !strings.Contains(err+out, "can pose as the brokers") {
			t.Errorf("%v: exit code %d\n%s%s", args, code, out, err)
		}
	}
	for _, to := range []string{"strimzi-v1", "properties", "env"} {
		if code, out, err := kferry(t, nil, "convert", "--to", to, "-f", file); code != 1 || strings.Contains(out+err, "secret-word") || !strings.Contains(err, file+":7: b.sasl.jaas.config") {
			t.Errorf("%s: exit code %d\n%s%s", to, code, out, err)
		}
		if code, out, err := kferry(t, nil, "convert", "--to", to, "--show-secrets", "-f", file); code != 0 || !strings.Contains(out, "secret-word") {
			t.Errorf("%s: exit code %d\n%s%s", to, code, out, err)
		}
	}
	refers := mirrorFile(t, "clusters = a, b\na.bootstrap.servers = a:1\nb.bootstrap.servers = b:1\na->b.enabled = true\nb.security.protocol = SASL_SSL\nb.sasl.mechanism = PLAIN\n"+
		"b.sasl.jaas.config = org.apache.kafka.common.security.plain.PlainLoginModule required username=\"mirror\" password=\"${env:WORD}\";\n")
	for _, to := range []string{"strimzi-v1", "properties", "env"} {
		if code, out, err := kferry(t, []string{"WORD=secret-word"}, "convert", "--to", to, "--show-secrets", "-f", refers); code != 0 || strings.Contains(out+err, "secret-word") || !strings.Contains(out, "${env:WORD}") {
			t.Errorf("%s: exit code %d\n%s%s", to, code, out, err)
		}
	}
}
