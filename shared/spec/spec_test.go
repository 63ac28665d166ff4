package spec_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// plain is the least that describes a flow, with further variables.
func plain(more ...string) []string {
	return append([]string{
		"KFERRY_SOURCE_ALIAS=A", "KFERRY_SOURCE_BOOTSTRAP_SERVERS=a:9092",
		"KFERRY_TARGET_ALIAS=B", "KFERRY_TARGET_BOOTSTRAP_SERVERS=b:9092",
	}, more...)
}

func load(t *testing.T, environ ...string) spec.Spec {
	t.Helper()
	s, err := spec.Load(nil, environ)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPlainVariables(t *testing.T) {
	expect(t, "testdata/plain-least.txt", describe(load(t, plain()...), nil))
	expect(t, "testdata/plain-most.txt", describe(load(t, plain(
		"KFERRY_TOPICS=orders, payments-.*", "KFERRY_TOPICS_EXCLUDE=payments-test",
		"KFERRY_REPLICATION_POLICY=identity", "KFERRY_REPLICATION_POLICY_SEPARATOR=_", "KFERRY_REPLICATION_FACTOR=3",
		"KFERRY_START=2026-11-24T08:00:00+01:00", "KFERRY_ISOLATION_LEVEL=read_uncommitted", "KFERRY_REFRESH=1m",
		"KFERRY_CONFIG_PROPERTIES_EXCLUDE=retention\\..*", "KFERRY_OFFSETS_REPLICATION_FACTOR=1",
		"KFERRY_NMAE=x", "PATH=/bin",
	)...), nil))
}

func TestSettings(t *testing.T) {
	defaults := load(t, plain()...)
	want := spec.Settings{
		Data: "kferry-data", NATS: spec.NATS{Timeout: 5 * time.Second}, HTTP: spec.HTTP{Address: "127.0.0.1:8080"}, Slots: 1000, Memory: 32 * spec.MiB, LeaseTime: 4 * time.Second,
		MM2Metrics: true, LogLevel: "info", LogFormat: "auto",
		Scale: spec.Scale{Max: 10, Drain: 2 * time.Minute, Rate: 50 * spec.MiB, Down: 5 * time.Minute, Idle: 2 * time.Minute},
	}
	if defaults.Settings != want || defaults.Name != "kferry" {
		t.Errorf("defaults are %+v of %s", defaults.Settings, defaults.Name)
	}
	given := load(t, plain(
		"KFERRY_NAME=blue", "NATS_URL=nats://user:secret@n1:4222,n2", "KFERRY_DATA=/data", "KFERRY_HTTP=off", "KFERRY_SLOTS=5",
		"KFERRY_MEMORY=1 GiB", "KFERRY_LEASE=10s", "KFERRY_LOG_LEVEL=DEBUG", "KFERRY_LOG_FORMAT=json", "KFERRY_METRICS_MM2=false",
		"KFERRY_SCALE_MIN=1", "KFERRY_SCALE_MAX=20", "KFERRY_SCALE_DRAIN=1m", "KFERRY_SCALE_RATE=1MiB", "KFERRY_SCALE_DOWN=3m", "KFERRY_SCALE_IDLE=30s", "KFERRY_EMF=true",
	)...)
	want = spec.Settings{
		NATS: spec.NATS{
			URL: "nats://n1:4222,nats://n2", Timeout: 5 * time.Second,
			Login: spec.NATSLogin{User: "user", Password: spec.Kept{Text: "secret"}},
		},
		Data: "/data", Slots: 5, Memory: spec.GiB, LeaseTime: 10 * time.Second,
		Scale: spec.Scale{Min: 1, Max: 20, Drain: time.Minute, Rate: spec.MiB, Down: 3 * time.Minute, Idle: 30 * time.Second}, EMF: true,
		LogLevel: "debug", LogFormat: "json",
	}
	if given.Settings != want || given.Name != "blue" {
		t.Errorf("got %+v of %s", given.Settings, given.Name)
	}
}

// TestEveryDefaultIsTheTable sets each variable to what the table calls its default: nothing may change.
func TestEveryDefaultIsTheTable(t *testing.T) {
	environ := plain()
	want := describe(load(t, environ...), nil)
	for _, v := range spec.Variables() {
		if v.Name == "" || v.Meaning == "" {
			t.Errorf("incomplete: %+v", v)
		}
		if v.Default != "" {
			environ = append(environ, v.Name+"="+v.Default)
		}
	}
	s := load(t, environ...)
	if got := describe(s, nil); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if s.Settings != load(t, plain()...).Settings {
		t.Errorf("settings differ: %+v", s.Settings)
	}
}

func TestWrongVariables(t *testing.T) {
	cases := map[string][]string{
		"nothing":     nil,
		"half":        {"KFERRY_SOURCE_ALIAS=A", "KFERRY_TOPICS=x"},
		"same":        {"KFERRY_SOURCE_ALIAS=A", "KFERRY_TARGET_ALIAS=A", "KFERRY_SOURCE_BOOTSTRAP_SERVERS=a:1", "KFERRY_TARGET_BOOTSTRAP_SERVERS=a:1"},
		"same-alias":  {"KFERRY_SOURCE_ALIAS=A", "KFERRY_TARGET_ALIAS=A", "KFERRY_SOURCE_BOOTSTRAP_SERVERS=a:1", "KFERRY_TARGET_BOOTSTRAP_SERVERS=b:1"},
		"both":        plain("KFERRY_MIRROR=testdata/right/founding.yaml"),
		"no-file":     {"KFERRY_MIRROR=testdata/none.yaml"},
		"directory":   {"KFERRY_MIRROR=testdata"},
		"wrong-text":  {"KFERRY_MIRROR=kind: KafkaMirrorMaker2\nspec:\n  mirrors: 7\n"},
		"security":    plain("KFERRY_SOURCE_SECURITY_PROTOCOL=SASL_SSL", "KFERRY_TARGET_SASL_PASSWORD=secret", "KFERRY_TARGET_TLS="),
		"placeholder": append(plain(), "KFERRY_SOURCE_BOOTSTRAP_SERVERS=<bootstrapServers>"),
		"all": {
			"KFERRY_SOURCE_ALIAS=A B", "KFERRY_SOURCE_BOOTSTRAP_SERVERS=a", "KFERRY_TARGET_ALIAS=", "KFERRY_TARGET_BOOTSTRAP_SERVERS=b:0",
			"KFERRY_TOPICS=(", "KFERRY_TOPICS_EXCLUDE=*", "KFERRY_REPLICATION_POLICY=none", "KFERRY_REPLICATION_POLICY_SEPARATOR=:",
			"KFERRY_REPLICATION_FACTOR=0", "KFERRY_START=yesterday", "KFERRY_ISOLATION_LEVEL=none", "KFERRY_REFRESH=5",
			"KFERRY_CONFIG_PROPERTIES_EXCLUDE=a{2,1}", "KFERRY_OFFSETS_REPLICATION_FACTOR=99999",
			"KFERRY_RATE_BYTES=5MB", "KFERRY_RATE_RECORDS=-1", "KFERRY_RATE_BYTES_TOPICS=orders=1MiB,x", "KFERRY_RATE_RECORDS_TOPICS=(=5",
			"KFERRY_NAME=a.b", "NATS_URL=http://user:secret@host", "KFERRY_DATA= ", "KFERRY_HTTP=8080", "KFERRY_SLOTS=0",
			"KFERRY_MEMORY=32 MB", "KFERRY_LEASE=1s", "KFERRY_LOG_LEVEL=loud", "KFERRY_LOG_FORMAT=xml", "KFERRY_SLOT=5",
		},
	}
	for name, environ := range cases {
		t.Run(name, func(t *testing.T) {
			s, err := spec.Load(nil, environ)
			if err == nil {
				t.Fatal("taken")
			}
			got := describe(s, err)
			if strings.Contains(got, "secret") {
				t.Error("a password is shown")
			}
			expect(t, filepath.Join("testdata", "variables", name+".txt"), got)
		})
	}
}

func TestFilesBesideVariables(t *testing.T) {
	s, err := spec.Load([]string{"testdata/right/founding.yaml", "testdata/none.yaml"},
		plain("KFERRY_MIRROR=testdata/right/founding.yaml"))
	if err == nil {
		t.Fatal("taken")
	}
	expect(t, "testdata/variables/file.txt", describe(s, err))
}

// TestMirrorAsText gives the same in every way there is.
func TestMirrorAsText(t *testing.T) {
	const path = "testdata/right/founding.yaml"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	fromFile, err := spec.Load([]string{path}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := describe(fromFile, nil)
	if got := describe(load(t, "KFERRY_MIRROR="+path), nil); got != want {
		t.Errorf("as a path:\n%s", got)
	}
	got := describe(load(t, "KFERRY_MIRROR="+string(text)), nil)
	if got != strings.ReplaceAll(want, path, "KFERRY_MIRROR") {
		t.Errorf("as text:\n%s", got)
	}
	json := `{"kind":"KafkaMirrorMaker2","spec":{"clusters":[{"alias":"A","bootstrapServers":"a:1"},{"alias":"B","bootstrapServers":"b:1"}],"mirrors":[{"sourceCluster":"A","targetCluster":"B","sourceConnector":{"tasksMax":2}}]}}`
	if f, ok := load(t, "KFERRY_MIRROR="+json).Flow("A->B"); !ok || f.MaxLeases != 2 {
		t.Error("JSON was not read")
	}
}

// TestSeveralFiles has the clusters in one file and the mirrors in another, in either order.
func TestSeveralFiles(t *testing.T) {
	folder := t.TempDir()
	clusters, mirrors := filepath.Join(folder, "clusters.yaml"), filepath.Join(folder, "mirrors.yaml")
	write(t, clusters, "spec: {clusters: [{alias: a, bootstrapServers: 'a:1'}, {alias: b, bootstrapServers: 'b:1'}]}")
	write(t, mirrors, "spec: {mirrors: [{sourceCluster: a, targetCluster: b, sourceConnector: {}}]}")
	for _, files := range [][]string{{clusters, mirrors}, {mirrors, clusters}, {mirrors, clusters, clusters}} {
		s, err := spec.Load(files, nil)
		if err != nil || len(s.Flows) != 1 || s.Cluster("b").BootstrapServers[0] != "b:1" {
			t.Errorf("%v, %v", s, err)
		}
	}
	if _, err := spec.Load([]string{clusters}, nil); err == nil || !strings.Contains(err.Error(), "no mirror is given") {
		t.Error(err)
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestUnknownNames(t *testing.T) {
	s := load(t, plain()...)
	if _, ok := s.Flow("B->A"); ok {
		t.Error("found a flow that isn't there")
	}
	defer func() {
		if recover() == nil {
			t.Error("a cluster that no flow names was found")
		}
	}()
	s.Cluster("C")
}

func TestSelects(t *testing.T) {
	flow := func(more ...string) spec.Flow { return load(t, plain(more...)...).Flows[0] }
	for _, test := range []struct {
		flow  spec.Flow
		topic string
		want  bool
	}{
		{flow(), "orders", true},
		{flow(), "orders.replica", false},
		{flow(), "mm2-offsets.B.internal", false},
		{flow(), "B.orders", false}, // it came from the target
		{flow(), "C.orders", true},
		{flow(), "A.orders", true}, // only looks as if
		{flow("KFERRY_TOPICS_EXCLUDE=none"), "__consumer_offsets", false},
		{flow("KFERRY_TOPICS_EXCLUDE=none"), "orders.replica", true},
		{flow("KFERRY_TOPICS_EXCLUDE=none"), "mm2-status.B.internal", false},
		{flow("KFERRY_TOPICS=order"), "orders", false}, // whole names
		{flow("KFERRY_TOPICS=orders,payments"), "payments", true},
		{flow("KFERRY_TOPICS=orders,payments", "KFERRY_TOPICS_EXCLUDE=pay.*"), "payments", false},
		{flow("KFERRY_REPLICATION_POLICY=identity"), "B.orders", true},
		{flow("KFERRY_REPLICATION_POLICY_SEPARATOR=_"), "B_orders", false},
	} {
		if got := test.flow.Selects(test.topic); got != test.want {
			t.Errorf("%v of %v: %v", test.topic, test.flow.Filters, got)
		}
	}
}

// TestDigest changes with what decides content, and with nothing else.
func TestDigest(t *testing.T) {
	base := load(t, plain()...).Flows[0]
	if other := load(t, plain("KFERRY_START=latest", "KFERRY_REPLICATION_FACTOR=3", "KFERRY_REFRESH=9s")...).Flows[0]; other.Digest() != base.Digest() {
		t.Error("differs though the same records are copied")
	}
	seen := map[string]string{base.Digest(): "base"}
	for _, change := range []string{
		"KFERRY_TOPICS=orders", "KFERRY_TOPICS_EXCLUDE=orders", "KFERRY_ISOLATION_LEVEL=read_uncommitted",
		"KFERRY_REPLICATION_POLICY=identity", "KFERRY_REPLICATION_POLICY_SEPARATOR=_", "KFERRY_SOURCE_ALIAS=C", "KFERRY_TARGET_ALIAS=C",
	} {
		digest := load(t, plain(change)...).Flows[0].Digest()
		if seen[digest] != "" {
			t.Errorf("%s is like %s", change, seen[digest])
		}
		seen[digest] = change
	}
	turned := base
	turned.Filters = append(slices.Clone(load(t, plain("KFERRY_TOPICS=orders")...).Flows[0].Filters), base.Filters...)
	straight := turned
	straight.Filters = slices.Clone(turned.Filters)
	slices.Reverse(straight.Filters)
	if turned.Digest() != straight.Digest() || turned.Digest() == base.Digest() {
		t.Error("the order of filters decides")
	}
	// Cursors and tasks hold digests: another one for the same flow would hold every partition after an upgrade.
	if got := base.Digest(); got != "b8822ee4e997" {
		t.Errorf("digest %s", got)
	}
}

func TestStart(t *testing.T) {
	for text, want := range map[string]int64{
		"earliest": -2, "LATEST": -1, "0": 0, "1700000000000": 1700000000000, "1970-01-01T00:00:01Z": 1000, "1970-01-01T01:00:00.5+01:00": 500,
	} {
		start, err := spec.ParseStart(text)
		if err != nil || start.Timestamp() != want {
			t.Errorf("%s: %d, %v", text, start.Timestamp(), err)
		}
		if again, err := spec.ParseStart(start.String()); err != nil || again != start {
			t.Errorf("%s comes back as %v, %v", text, again, err)
		}
	}
	for _, bad := range []string{"", "Earliest ", "-1", "-2", "1.5", "2026-11-24", "1960-01-01T00:00:00Z", "99999999999999999999"} {
		if start, err := spec.ParseStart(bad); err == nil {
			t.Errorf("%q became %v", bad, start)
		}
	}
	if (spec.Start{}) != spec.Earliest || spec.At(time.UnixMilli(7)).Timestamp() != 7 {
		t.Error("zero value or At")
	}
}

func TestBytes(t *testing.T) {
	for text, want := range map[string]spec.Bytes{"0": 0, "5": 5, "5B": 5, "1KiB": 1024, "32 MiB": 32 << 20, "2GiB": 2 << 30} {
		if got, err := spec.ParseBytes(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "B", "-1", "1.5MiB", "1MB", "1 mib", "9223372036854775807KiB", "8589934592GiB"} {
		if got, err := spec.ParseBytes(bad); err == nil {
			t.Errorf("%q became %d", bad, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		amount := spec.Bytes(rapid.Int64Min(0).Draw(t, "bytes"))
		if again, err := spec.ParseBytes(amount.String()); err != nil || again != amount {
			t.Fatalf("%d comes back as %d from %s: %v", amount, again, amount, err)
		}
	})
}

func TestDefaultListsAreMirrorMakers(t *testing.T) {
	f := load(t, plain()...).Flows[0]
	if got, want := f.Filters[0].Exclude.String(), strings.Join(mm2.TopicsExcludeDefault, "|"); got != want {
		t.Errorf("topics.exclude is %s, want %s", got, want)
	}
	for name, excluded := range map[string]bool{
		"min.insync.replicas": true, "message.timestamp.after.max.ms": true, "message.timestamp.type": true,
		"retention.ms": false, "minxinsync.replicas": false,
	} {
		if f.ConfigExclude.Match(name) != excluded {
			t.Errorf("%s: excluded %v", name, !excluded)
		}
	}
}

// TestFlowVariablesExcludeFiles has every variable that describes a flow refused beside a file, and no setting.
func TestFlowVariablesExcludeFiles(t *testing.T) {
	settings := []string{
		"KFERRY_MIRROR", "KFERRY_NAME", "KFERRY_DATA", "KFERRY_HTTP", "KFERRY_METRICS_MM2", "KFERRY_SLOTS", "KFERRY_MEMORY", "KFERRY_LEASE",
		"KFERRY_LOG_LEVEL", "KFERRY_LOG_FORMAT", "KFERRY_CLUSTERS", "KFERRY_SECRETS_DIR",
		"KFERRY_RATE_BYTES", "KFERRY_RATE_RECORDS", "KFERRY_RATE_BYTES_TOPICS", "KFERRY_RATE_RECORDS_TOPICS", "KFERRY_EMF",
	}
	for _, v := range spec.Variables() {
		_, err := spec.Load([]string{"testdata/right/founding.yaml"}, []string{v.Name + "=1"})
		refused := err != nil && strings.Contains(err.Error(), v.Name+": describes a flow, and so does a file")
		setting := slices.Contains(settings, v.Name) || strings.HasPrefix(v.Name, "NATS_") || strings.HasPrefix(v.Name, "KFERRY_HTTP_") || strings.HasPrefix(v.Name, "KFERRY_SCALE_")
		if refused == setting {
			t.Errorf("%s: %v", v.Name, err)
		}
	}
}

// The variables are for every flow, and what a mirror says of itself wins, each limit by itself.
func TestLimits(t *testing.T) {
	s, err := spec.Load([]string{"testdata/right/limits.yaml"}, []string{
		"KFERRY_RATE_BYTES=10MiB", "KFERRY_RATE_RECORDS=500", "KFERRY_RATE_BYTES_TOPICS=orders=2MiB,x=0", "KFERRY_RATE_RECORDS_TOPICS=orders=7",
	})
	if err != nil {
		t.Fatal(err)
	}
	own, plain := s.Flows[0].Limits, s.Flows[1].Limits
	if got, want := own.String(), "5MiB/s, 500 records/s, orders 1MiB/s, invoices-.* 512KiB/s, o.* 3B/s, orders 7 records/s"; got != want {
		t.Errorf("the mirror's own limits and the variables': %q, want %q", got, want)
	}
	if got, want := plain.String(), "10MiB/s, 500 records/s, orders 2MiB/s, x none, orders 7 records/s"; got != want {
		t.Errorf("the variables' limits: %q, want %q", got, want)
	}
	for topic, want := range map[string]spec.Rate{
		"orders": {Bytes: 1 << 20, Records: 7}, "invoices-1": {Bytes: 512 << 10}, "my-orders": {}, "old": {Bytes: 3},
	} {
		if got := own.Topic(topic); got != want {
			t.Errorf("%s: %s, want %s", topic, got, want)
		}
	}
	if s.Flows[0].Digest() != load(t, "KFERRY_MIRROR=testdata/right/limits.yaml", "KFERRY_RATE_BYTES=1").Flows[0].Digest() {
		t.Error("a limit makes other content of a flow")
	}
	if text := plain.Topic("y").String(); text != "none" {
		t.Errorf("no limit is %q", text)
	}
}

// TestDestinationFromEnvironment has the addresses that a geo-replicator lacks in a variable, which is refused beside other files.
func TestDestinationFromEnvironment(t *testing.T) {
	const servers = "KFERRY_TARGET_BOOTSTRAP_SERVERS=hub:9092"
	mirror := "kind: EventStreamsGeoReplicator\nmetadata: {name: hub}\n---\nspec:\n  clusters: [{alias: a, bootstrapServers: 'a:1'}]\n" +
		"  mirrors: [{sourceCluster: a, sourceConnector: {}}]\n"
	s := load(t, "KFERRY_MIRROR="+mirror, servers)
	if len(s.Flows) != 1 || s.Flows[0].Name() != "a->hub-mm2connector" || s.Cluster("hub-mm2connector").BootstrapServers[0] != "hub:9092" {
		t.Errorf("%+v", s)
	}
	described := mirror + "---\n{alias: hub-mm2connector, bootstrapServers: 'hub:1'}\n"
	if _, err := spec.Load(nil, []string{"KFERRY_MIRROR=" + described, servers}); err == nil || !strings.Contains(err.Error(), "KFERRY_TARGET_BOOTSTRAP_SERVERS: describes a flow") {
		t.Errorf("addresses twice: %v", err)
	}
	if _, err := spec.Load(nil, []string{"KFERRY_MIRROR=" + mirror, servers, "KFERRY_TOPICS=x"}); err == nil || !strings.Contains(err.Error(), "KFERRY_TOPICS: describes a flow") {
		t.Errorf("topics twice: %v", err)
	}
}

// Of all flows and heartbeats only those to the clusters that are named are kept, with the clusters that they need.
func TestClusters(t *testing.T) {
	const file = "testdata/right/dedicated-off.properties"
	for clusters, want := range map[string]string{
		"a":    "flows [b->a] heartbeats [b->a] clusters [a b]",
		"b":    "flows [] heartbeats [a->b] clusters [a b]",
		"b, a": "flows [b->a] heartbeats [a->b b->a] clusters [a b]",
		"c":    "",
	} {
		s, err := spec.Load([]string{file}, []string{"KFERRY_CLUSTERS=" + clusters})
		if want == "" {
			if err == nil || !strings.Contains(err.Error(), `KFERRY_CLUSTERS: "c": no flow leads to "c"; known are a, b`) {
				t.Errorf("%s: %v", clusters, err)
			}
			continue
		}
		var flows, heartbeats, aliases []string
		for _, f := range s.Flows {
			flows = append(flows, f.Name())
		}
		for _, h := range s.Heartbeats {
			heartbeats = append(heartbeats, spec.FlowName(h.Source, h.Target))
		}
		for _, c := range s.Clusters {
			aliases = append(aliases, c.Alias)
		}
		if got := fmt.Sprintf("flows %v heartbeats %v clusters %v", flows, heartbeats, aliases); err != nil || got != want {
			t.Errorf("%s: %s %v, want %s", clusters, got, err, want)
		}
	}
}

// Secrets are found where Kubernetes mounts them: with their namespace, or without.
func TestMountedSecrets(t *testing.T) {
	dir := t.TempDir()
	for path, text := range map[string]string{"kafka/addresses/a": "a:1", "addresses/a": "wrong:1", "addresses/b": "b:2"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	input := "clusters = a, b\na->b.enabled = true\na.bootstrap.servers = ${secrets:kafka/addresses:a}\n"
	s, err := spec.Load(nil, []string{"KFERRY_SECRETS_DIR=" + dir, "KFERRY_MIRROR=" + input + "b.bootstrap.servers = ${strimzisecrets:kafka/addresses:b}\n"})
	if err != nil || s.Cluster("a").BootstrapServers[0] != "a:1" || s.Cluster("b").BootstrapServers[0] != "b:2" {
		t.Errorf("%+v %v", s.Clusters, err)
	}
	_, err = spec.Load(nil, []string{"KFERRY_SECRETS_DIR=" + dir, "KFERRY_MIRROR=" + input + "b.bootstrap.servers = ${secrets:kafka/addresses:c}\n"})
	if want := "${secrets:kafka/addresses:c}: " + filepath.Join(dir, "kafka/addresses") + ` has no file "c"`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}

// TestNoSettingOfKafkaIsAMisspelling gives every setting that Kafka's clients and Connect know, behind every prefix that MirrorMaker
// knows, where it may stand in files that run today: none is taken for another one.
func TestNoSettingOfKafkaIsAMisspelling(t *testing.T) {
	list, err := os.ReadFile("testdata/kafka-settings.txt")
	if err != nil {
		t.Fatal(err)
	}
	var config strings.Builder
	for name := range strings.FieldsSeq(string(list)) {
		for _, prefix := range []string{"", "consumer.", "producer.", "admin.", "source.consumer.", "target.producer.", "target.admin.", "producer.override."} {
			config.WriteString(prefix + name + ": '',")
		}
	}
	_, err = spec.Load(nil, []string{"KFERRY_MIRROR=" + strings.ReplaceAll(`spec:
  clusters: [{alias: a, bootstrapServers: 'a:1', config: {ALL}}, {alias: t, bootstrapServers: 't:1', config: {ALL}}]
  mirrors: [{sourceCluster: a, targetCluster: t, sourceConnector: {config: {ALL}}, checkpointConnector: {config: {ALL}}, heartbeatConnector: {config: {ALL}}}]
`, "ALL", config.String())})
	if err != nil && strings.Contains(err.Error(), "there is no such setting") {
		t.Error(err)
	}
	var driver strings.Builder
	for name := range strings.FieldsSeq(string(list)) {
		for _, prefix := range []string{"", "consumer.", "producer.", "admin.", "a.", "t.", "a.consumer.", "t.producer.", "a->t.", "a->t.producer.override."} {
			if name != "bootstrap.servers" {
				driver.WriteString(prefix + name + " = x\n")
			}
		}
	}
	_, err = spec.Load(nil, []string{"KFERRY_MIRROR=clusters = a, t\na.bootstrap.servers = a:1\nt.bootstrap.servers = t:1\na->t.enabled = true\n" + driver.String()})
	if err != nil && strings.Contains(err.Error(), "there is no such setting") {
		t.Error(err)
	}
}

// What is said of a cluster acts on the flows from it, and on none of those to it.
func TestSettingOfClusterActsInOneDirection(t *testing.T) {
	s := load(t, `KFERRY_MIRROR=clusters = A, B
A.bootstrap.servers = a:9092
B.bootstrap.servers = b:9092
A->B.enabled = true
B->A.enabled = true
A.consumer.isolation.level = read_uncommitted
B.consumer.fetch.max.bytes = 1
`)
	if f, _ := s.Flow("A->B"); f.Isolation != spec.ReadUncommitted {
		t.Errorf("A->B is %s", f.Isolation)
	}
	if len(s.Warnings) != 1 || strings.Contains(s.Warnings[0], "A.consumer.isolation.level") || !strings.Contains(s.Warnings[0], "B.consumer.fetch.max.bytes") {
		t.Errorf("warnings: %v", s.Warnings)
	}
}

// A field that wins over a setting of the same meaning says so.
func TestFieldThatWinsIsNamed(t *testing.T) {
	s := load(t, `KFERRY_MIRROR=spec:
  clusters: [{alias: A, bootstrapServers: "a:9092"}, {alias: B, bootstrapServers: "b:9092"}]
  mirrors:
  - sourceCluster: A
    targetCluster: B
    topicsPattern: orders
    sourceConnector: {tasksMax: 2, config: {topics: payments, tasks.max: 9}}
`)
	if f, _ := s.Flow("A->B"); !f.Selects("orders") || f.Selects("payments") || f.MaxLeases != 2 {
		t.Errorf("A->B copies %v, %d at once", f.Filters, f.MaxLeases)
	}
	for _, want := range []string{"config.topics (line 7: topicsPattern in line 6 wins)", "config.tasks.max (line 7: tasksMax in line 7 wins)"} {
		if len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], want) {
			t.Errorf("warnings lack %q: %v", want, s.Warnings)
		}
	}
}

// MirrorMaker doesn't take yes for true, and would copy nothing: which of both is meant isn't for kferry to say.
func TestFlowIsOnWithTrueAlone(t *testing.T) {
	for text, want := range map[string]string{"true": "", "TRUE": "", "yes": "neither true nor false", "on": "neither true nor false"} {
		_, err := spec.Load(nil, []string{"KFERRY_MIRROR=clusters = A, B\nA.bootstrap.servers = a:1\nB.bootstrap.servers = b:1\nA->B.enabled = " + text + "\n"})
		if fmt.Sprint(err) == "<nil>" != (want == "") || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
