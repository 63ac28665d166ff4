package spec_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"github.com/kferry/kferry/shared/spec"
)

// TestWriteEveryFile writes every file that is right in every form and reads it again: it says the same, but for what is named.
func TestWriteEveryFile(t *testing.T) {
	files, err := filepath.Glob("testdata/right/*.*")
	if err != nil {
		t.Fatal(err)
	}
	files = slices.DeleteFunc(files, func(name string) bool { return filepath.Ext(name) == ".txt" })
	if len(files) < 10 {
		t.Fatalf("only %v", files)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			s, err := spec.Load([]string{file}, nil)
			if err != nil {
				t.Fatal(err)
			}
			secrets := mounted(t, file)
			if filepath.Base(file) == onlyInProperties {
				sameAgain(t, s, spec.Properties)
				return
			}
			sameAgain(t, s, spec.StrimziV1, secrets...)
			if why := notInProperties[filepath.Base(file)]; why == "" {
				sameAgain(t, s, spec.Properties, secrets...)
			} else if _, _, err := spec.Write(s, spec.Properties, false); err == nil || !strings.Contains(err.Error(), why) {
				t.Errorf("in properties: %v", err)
			}
			for _, warning := range sameAgain(t, s, spec.Env, secrets...) {
				if !strings.Contains(warning, "which is referred to") && !strings.Contains(warning, "that MirrorMaker knows") {
					t.Errorf("variables leave out %s", warning)
				}
			}
		})
	}
}

// onlyInProperties is a file whose alias no resource may have.
const onlyInProperties = "alias.properties"

// notInProperties are files that say what mm2.properties can't, and what that is.
var notInProperties = map[string]string{
	"connectors.yaml":   `c->t copies nothing and translates positions all the same`,
	"mixed.yaml":        `a->t: state is "paused"`,
	"paused.yaml":       `b->t: state is "stopped"`,
	"v1.yaml":           `west->hub: state is "stopped"`,
	"two-connects.yaml": `a->t: group of Connect's workers is "one" and would be "a-mm2"`,
	"two-filters.yaml":  `a->b: topics are`,
}

// TestWritePlain has plain variables come back as such, and kept apart where they must be.
func TestWritePlain(t *testing.T) {
	environ := plain(
		"KFERRY_TOPICS=it's, payments-.*", "KFERRY_TOPICS_EXCLUDE=payments-test", "KFERRY_REPLICATION_POLICY=identity",
		"KFERRY_REPLICATION_POLICY_SEPARATOR=_", "KFERRY_REPLICATION_FACTOR=3", "KFERRY_START=2026-11-24T07:00:00Z",
		"KFERRY_ISOLATION_LEVEL=read_uncommitted", "KFERRY_REFRESH=1500ms", "KFERRY_CONFIG_PROPERTIES_EXCLUDE=retention\\..*",
		"KFERRY_OFFSETS_REPLICATION_FACTOR=2", "KFERRY_SYNC_TOPIC_CONFIGS=false", "KFERRY_SYNC_TOPIC_ACLS=false", "KFERRY_GROUPS=app",
		"KFERRY_GROUPS_EXCLUDE=x", "KFERRY_SYNC_GROUP_OFFSETS=true", "KFERRY_OFFSET_SYNCS_LOCATION=source", "KFERRY_HEARTBEATS=false",
		"KFERRY_TASKS_MAX=7", "KFERRY_ON_HOLD=retention_gap=hold", "KFERRY_RATE_BYTES=5MiB", "KFERRY_RATE_RECORDS_TOPICS=orders=7",
	)
	s := load(t, environ...)
	text, _, err := spec.Write(s, spec.Env, false)
	if err != nil || strings.Contains(text, "KFERRY_MIRROR") {
		t.Errorf("%v\n%s", err, text)
	}
	if want := describe(s, nil); want != describe(load(t, exported(t, text)...), nil) {
		t.Errorf("%s\nis not\n%s", text, want)
	}
	if _, _, err := spec.Write(s, spec.StrimziV1, false); err == nil || !strings.Contains(err.Error(), `not an interval`) {
		t.Errorf("half a second in a resource: %v", err)
	}
	for _, least := range []string{"KFERRY_TASKS_MAX=7", "KFERRY_OFFSETS_REPLICATION_FACTOR=3", "KFERRY_GROUPS=a"} {
		s := load(t, plain(least)...)
		sameAgain(t, s, spec.Env)
		sameAgain(t, s, spec.StrimziV1)
	}
}

func TestWriteUnknown(t *testing.T) {
	if _, _, err := spec.Write(load(t, plain()...), "toml", false); err == nil || !strings.Contains(err.Error(), "strimzi-v1, properties or env") {
		t.Error(err)
	}
}

// mounted has the Secrets and ConfigMaps of a file be where Kubernetes mounts them, and says where.
func mounted(t *testing.T, file string) (environ []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for decoder := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var doc struct {
			Kind     string
			Metadata struct{ Name, Namespace string }
			Data     map[string]string
		}
		var loose map[string]any
		var node yaml.Node
		if err := decoder.Decode(&node); err != nil {
			return []string{"KFERRY_SECRETS_DIR=" + dir}
		}
		if node.Decode(&loose) != nil || loose["kind"] != "Secret" && loose["kind"] != "ConfigMap" {
			continue
		}
		if err := node.Decode(&doc); err != nil {
			t.Fatal(err)
		}
		strings, _ := loose["stringData"].(map[string]any)
		into := filepath.Join(dir, doc.Metadata.Namespace, doc.Metadata.Name)
		if err := os.MkdirAll(into, 0o755); err != nil {
			t.Fatal(err)
		}
		for key, value := range doc.Data {
			if doc.Kind == "Secret" {
				decoded, _ := base64.StdEncoding.DecodeString(value)
				value = string(decoded)
			}
			write(t, filepath.Join(into, key), value)
		}
		for key, value := range strings {
			write(t, filepath.Join(into, key), fmt.Sprint(value))
		}
	}
}

// sameAgain writes and reads, beside more variables, and returns what was left out. Secrets that the input holds as they are have to be asked for.
func sameAgain(t *testing.T, s spec.Spec, to spec.Format, beside ...string) []string {
	t.Helper()
	text, warnings, err := spec.Write(s, to, false)
	if err != nil && strings.Contains(err.Error(), "--show-secrets") {
		if strings.Contains(err.Error(), "secret-") || text != "" {
			t.Errorf("%s shows a secret: %v %s", to, err, text)
		}
		text, warnings, err = spec.Write(s, to, true)
	} else if strings.Contains(text, "secret-") {
		t.Errorf("%s shows a secret: %s", to, text)
	}
	if err != nil {
		t.Errorf("%s: %v", to, err)
		return nil
	}
	environ := []string{"KFERRY_MIRROR=" + text}
	if to == spec.Env {
		environ = exported(t, text)
	}
	again, err := spec.Load(nil, append(environ, beside...))
	if err != nil {
		t.Errorf("%s: %v\n%s", to, err, text)
		return warnings
	}
	if len(warnings) > 0 {
		for _, w := range warnings {
			if !strings.Contains(text, "# left out: "+w) {
				t.Errorf("%s does not name %q", to, w)
			}
		}
		if to == spec.StrimziV1 {
			s.Heartbeats, again.Heartbeats = nil, nil
		}
	}
	if got, want := said(again), said(s); got != want {
		t.Errorf("%s says\n%s\nnot\n%s\nin\n%s", to, got, want, text)
	}
	return warnings
}

// said is what a Spec says of flows and heartbeats.
func said(s spec.Spec) string {
	var text strings.Builder
	for _, f := range s.Flows {
		if g := f.Groups; g.State == spec.Absent || !g.Checkpoints && !g.Sync { // mm2.properties has no other way to do nothing for groups
			f.Groups = spec.Groups{CheckpointsTopic: g.CheckpointsTopic}
		}
		describeFlow(&text, f)
	}
	for _, f := range s.Flows {
		fmt.Fprintln(&text, f.SourceKey(), s.Cluster(f.SourceKey()).Login.Access(), f.TargetKey(), s.Cluster(f.TargetKey()).Login.Access())
	}
	fmt.Fprintln(&text, s.Heartbeats)
	return text.String()
}

// exported are the variables that a shell would set.
func exported(t *testing.T, text string) (environ []string) {
	t.Helper()
	for line := range strings.SplitSeq(text, "export ") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, quoted, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		unquoted := strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(quoted, "'"), "'"), `'\''`, "'")
		environ = append(environ, name+"="+unquoted)
	}
	return environ
}

// anySettings are values that each connector's keys may have.
var anySettings = map[string]map[string][]string{
	"sourceConnector": {
		"replication.factor": {"-1", "3"}, "tasks.max": nil, "offset-syncs.topic.replication.factor": {"1"}, "refresh.topics.interval.seconds": {"1", "600"},
		"config.properties.exclude": {"", "a,b"}, "consumer.auto.offset.reset": {"latest", "2026-11-24T07:00:00.5Z"}, "isolation.level": {"read_uncommitted"},
		"sync.topic.configs.enabled": {"false"}, "sync.topic.configs.interval.seconds": {"7"}, "use.defaults.from": {"source", "target"},
		"sync.topic.acls.enabled": {"False"}, "sync.topic.acls.interval.seconds": {"8"}, "heartbeats.replication.enabled": {"false"},
		"offsets.storage.topic": {"mine"}, "kferry.connector": {"MirrorSourceConnector"}, "kferry.on.hold": {"retention_gap=hold,foreign_writer=skip"},
		"kferry.rate.bytes": {"1025", "5MiB"}, "kferry.rate.records": {"9"}, "kferry.rate.bytes.topics": {"a|b=1MiB,c=0"}, "kferry.rate.records.topics": {"x=1"},
		"kferry.sync.topic.configs.overrides": {"remove"}, "kferry.sync.topic.acls.revoke": {"true"},
	},
	"checkpointConnector": {
		"emit.checkpoints.enabled": {"false"}, "emit.checkpoints.interval.seconds": {"9"}, "checkpoints.topic.replication.factor": {"2"},
		"sync.group.offsets.enabled": {"true"}, "sync.group.offsets.interval.seconds": {"10"},
	},
	"heartbeatConnector": {"emit.heartbeats.interval.seconds": {"4"}, "heartbeats.topic.replication.factor": {"2"}, "emit.heartbeats.enabled": {"false"}},
}

var anyCommon = map[string][]string{
	"replication.policy.class": {"identity", "default"}, "replication.policy.separator": {"_", "--"},
	"replication.policy.internal.topic.separator.enabled": {"false"}, "offset-syncs.topic.location": {"target", "source"}, "emit.offset-syncs.enabled": {"false"},
}

// TestWriteAnything writes random resources in each form, and reads the same again.
func TestWriteAnything(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := anyResource(rt)
		s, err := spec.Load(nil, []string{"KFERRY_MIRROR=" + text})
		if err != nil {
			return // two mirrors disagree, or there is nothing to copy
		}
		for _, to := range []spec.Format{spec.StrimziV1, spec.Env} {
			sameAgain(t, s, to)
		}
		if _, _, err := spec.Write(s, spec.Properties, false); err == nil {
			sameAgain(t, s, spec.Properties)
		} else if !notSaid.MatchString(err.Error()) {
			t.Errorf("in properties: %v", err)
		}
		if t.Failed() {
			rt.Fatalf("of\n%s", text)
		}
	})
}

// anyLogins are what a cluster's client properties may say.
var anyLogins = []string{
	"", "security.protocol=PLAINTEXT", "security.protocol=SSL", "security.protocol=SSL\nssl.truststore.location=testdata/references/ca.crt",
	"security.protocol=SSL\nssl.truststore.certificates=${directory:testdata/references:ca.crt}\nssl.keystore.certificate.chain=${directory:testdata/references:user.crt}\nssl.keystore.key=${directory:testdata/references:user.key}",
	"security.protocol=SSL\nssl.truststore.certificates=${secrets:kafka/ca:*.crt}\nssl.keystore.certificate.chain=${secrets:kafka/user:user.crt}\nssl.keystore.key=${secrets:kafka/user:user.key}",
	"security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username=\"u\" password=\"secret-\\\\\"x\";",
	"security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-256\nsasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username=\"u\" password=\"${env:PW}\";",
	"security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\nsasl.username=${env:USERNAME}\nsasl.password=${env:PW}\nssl.truststore.certificates=${secrets:kafka/ca:ca.crt}",
	"security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.username=u\nsasl.password=${strimzisecrets:kafka/user:password}\nssl.protocol=TLSv1.3",
	"security.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-512\nsasl.username=$user\nsasl.password=secret-\\\\\"x",
	"security.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.token.endpoint.url=https://idp/token\nsasl.oauthbearer.client.credentials.client.id=i\nsasl.oauthbearer.client.credentials.client.secret=${env:PW}\nsasl.oauthbearer.scope=s",
	"security.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER\nsasl.login.callback.handler.class=io.strimzi.kafka.oauth.client.JaasClientOauthLoginCallbackHandler\nsasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required oauth.client.id=\"i\" oauth.client.secret=\"${secrets:kafka/user:password}\" oauth.token.endpoint.uri=\"https://idp\";",
}

// TestWriteAnyLogin writes random logins in each form, and logs in by what is read again as before.
func TestWriteAnyLogin(t *testing.T) {
	dir := t.TempDir()
	for key, file := range map[string]string{"ca/ca.crt": "ca.crt", "ca/ca2.crt": "ca2.crt", "user/user.crt": "user.crt", "user/user.key": "user.key"} {
		text, err := os.ReadFile(filepath.Join("testdata/references", file))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(dir, "kafka", filepath.Dir(key)), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "kafka", key), string(text))
	}
	passwords := []string{"secret-plain", `secret-\u`, `secret-"q`, "secret 'x"}
	written := map[spec.Format]int{}
	rapid.Check(t, func(rt *rapid.T) {
		password := rapid.SampledFrom(passwords).Draw(rt, "password")
		write(t, filepath.Join(dir, "kafka/user/password"), password)
		beside := []string{"KFERRY_SECRETS_DIR=" + dir, "PW=" + rapid.SampledFrom(passwords).Draw(rt, "PW"), "USERNAME=us=er"}
		login := func(prefix string) (lines string) {
			for line := range strings.SplitSeq(rapid.SampledFrom(anyLogins).Draw(rt, prefix), "\n") {
				if line != "" {
					lines += prefix + line + "\n"
				}
			}
			if strings.Contains(lines, "SSL\n") && rapid.Bool().Draw(rt, "any name") {
				lines += prefix + "ssl.endpoint.identification.algorithm=\n"
			}
			return lines
		}
		var environ []string
		var text string
		if rapid.Bool().Draw(rt, "plain") {
			environ = plain("KFERRY_SOURCE_PROPERTIES="+login("")+"\n", "KFERRY_TARGET_PROPERTIES="+login("")+"\n")
		} else {
			text = "clusters = a, b, t\na.bootstrap.servers = a:1\nb.bootstrap.servers = b:1\nt.bootstrap.servers = t:1\na->t.enabled = true\nb->t.enabled = true\nemit.heartbeats.enabled = false\n" +
				login("a.") + login("b.") + login("t.")
			if rapid.Bool().Draw(rt, "own") {
				text += login("b->t.target.cluster.")
			}
			environ = []string{"KFERRY_MIRROR=" + text}
		}
		s, err := spec.Load(nil, append(environ, beside...))
		if err != nil {
			return // a login over another one that doesn't fit
		}
		for _, to := range spec.Formats {
			text, _, err := spec.Write(s, to, true)
			if err != nil {
				rt.Fatalf("%s: %v", to, err)
			}
			written[to]++
			for _, stood := range []string{"secret-plain", "secret 'x", "PRIVATE KEY"} {
				if strings.Contains(text, stood) {
					rt.Errorf("%s: %s is written: %s", to, stood, text)
				}
			}
			again := append([]string{"KFERRY_MIRROR=" + text}, beside...)
			if to == spec.Env {
				again = append(exported(t, text), beside...)
			}
			same, err := spec.Load(nil, again)
			if err != nil {
				rt.Fatalf("%s: %v\n%s", to, err, text)
			}
			for _, f := range s.Flows {
				g, _ := same.Flow(f.Name())
				for _, pair := range [][2]string{{f.SourceKey(), g.SourceKey()}, {f.TargetKey(), g.TargetKey()}} {
					want, _ := s.Cluster(pair[0]).Login.Security()
					if got, _ := same.Cluster(pair[1]).Login.Security(); !reflect.DeepEqual(got, want) {
						rt.Errorf("%s: %s logs in by %+v, not %+v\n%s", to, f.Name(), got.SASL, want.SASL, text)
					}
				}
			}
		}
	})
	t.Log(written)
	for _, to := range spec.Formats {
		if written[to] == 0 {
			t.Errorf("nothing was written as %s", to)
		}
	}
}

// notSaid is what mm2.properties has no words for.
var notSaid = regexp.MustCompile(`state is|state of the groups' positions is|copies nothing|topics are`)

func anyResource(t *rapid.T) string {
	var b strings.Builder
	b.WriteString("spec:\n  target: {alias: t, bootstrapServers: 't:1,u:2', groupId: g, offsetStorageTopic: o, config: {offset.storage.replication.factor: 2, linger.ms: ' 5'}}\n  mirrors:\n")
	common := anyConfig(t, "common", anyCommon)
	for i := range rapid.IntRange(1, 3).Draw(t, "mirrors") {
		source := rapid.SampledFrom([]string{"a", "b.c"}).Draw(t, "source")
		fmt.Fprintf(&b, "  - source: {alias: %s, bootstrapServers: '%[1]s:1', config: {isolation.level: read_uncommitted}}\n", source)
		for _, pattern := range []string{"topicsPattern", "topicsExcludePattern", "groupsPattern", "groupsExcludePattern"} {
			if rapid.Bool().Draw(t, pattern) {
				fmt.Fprintf(&b, "    %s: '%s'\n", pattern, rapid.SampledFrom([]string{"", "x", "it''s", "a,b|c", `\Qa.b\E`, "(?!x)y", " 7"}).Draw(t, "pattern"))
			}
		}
		for _, name := range slices.Sorted(maps.Keys(anySettings)) {
			values := anySettings[name]
			if !rapid.Bool().Draw(t, fmt.Sprint(name, i)) {
				continue
			}
			config := anyConfig(t, name, values)
			if name != "heartbeatConnector" {
				config = append(config, common...)
			}
			tasks := ""
			if name == "sourceConnector" && rapid.Bool().Draw(t, "bounded") {
				tasks = "tasksMax: 3, "
			}
			state := rapid.SampledFrom([]string{"running", "paused", "stopped"}).Draw(t, "state")
			fmt.Fprintf(&b, "    %s: {%sstate: %s, config: {%s}}\n", name, tasks, state, strings.Join(config, ", "))
		}
	}
	return b.String()
}

func anyConfig(t *rapid.T, name string, values map[string][]string) (config []string) {
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if texts := values[key]; texts != nil && rapid.Bool().Draw(t, name+" "+key) {
			config = append(config, fmt.Sprintf("%s: '%s'", key, rapid.SampledFrom(texts).Draw(t, key)))
		}
	}
	return config
}

// TestWriteGolden shows what comes out.
func TestWriteGolden(t *testing.T) {
	for file, formats := range map[string][]spec.Format{
		"connectors.yaml": {spec.StrimziV1, spec.Env}, "founding.yaml": {spec.Properties}, "dedicated.properties": {spec.Properties, spec.StrimziV1},
		"secured-v1.yaml": {spec.StrimziV1, spec.Properties, spec.Env}, "secured.yaml": {spec.StrimziV1, spec.Properties},
	} {
		s, err := spec.Load([]string{filepath.Join("testdata/right", file)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range formats {
			text, _, err := spec.Write(s, to, false)
			if err != nil {
				t.Fatal(err)
			}
			expect(t, filepath.Join("testdata", "written", file+"."+string(to)+".txt"), text)
		}
	}
}

// A reference stays one in every form, and what it stands for is in none, nor are lines of its own.
func TestReferencesStay(t *testing.T) {
	s := load(t, "MORE=payments", "AT=a:9092", `KFERRY_MIRROR=spec:
  clusters: [{alias: A, bootstrapServers: "${env:AT}"}, {alias: B, bootstrapServers: "b:9092", config: {group.id: "g-${env:MORE}"}}]
  mirrors:
  - sourceCluster: A
    targetCluster: B
    groupsExcludePattern: "${env:MORE}"
    sourceConnector: {config: {topics.blacklist: "orders,\n${env:MORE}"}}
    checkpointConnector: {}
`)
	for _, format := range spec.Formats {
		text, _, err := spec.Write(s, format, false)
		if err != nil {
			t.Fatal(format, err)
		}
		if n := strings.Count(text, "${env:MORE}"); n != 3 || strings.Count(text, "${env:AT}") != 1 || strings.Contains(text, "payments") || strings.Contains(text, "a:9092") {
			t.Errorf("%s has %d references: %s", format, n, text)
		}
	}
}

// What a reference stands for where no form can hold it is not written.
func TestReferenceWithoutPlace(t *testing.T) {
	s := load(t, "N=2", `KFERRY_MIRROR=spec:
  clusters: [{alias: A, bootstrapServers: "a:9092"}, {alias: B, bootstrapServers: "b:9092"}]
  mirrors:
  - {sourceCluster: A, targetCluster: B, sourceConnector: {tasksMax: "${env:N}"}}
`)
	if text, _, err := spec.Write(s, spec.StrimziV1, false); text != "" || err == nil || !strings.Contains(err.Error(), "${env:N}, in whose place") {
		t.Errorf("%v\n%s", err, text)
	}
	if text, _, err := spec.Write(s, spec.Properties, false); err != nil || !strings.Contains(text, "A->B.tasks.max = ${env:N}\n") {
		t.Errorf("%v\n%s", err, text)
	}
}
