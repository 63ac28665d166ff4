package spec_test

import (
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

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
			if strings.HasPrefix(filepath.Base(file), "secured") {
				if _, _, err := spec.Write(s, spec.Properties); err == nil {
					t.Error("written")
				}
				return
			}
			if filepath.Base(file) == onlyInProperties {
				sameAgain(t, s, spec.Properties)
				return
			}
			sameAgain(t, s, spec.StrimziV1)
			if why := notInProperties[filepath.Base(file)]; why == "" {
				sameAgain(t, s, spec.Properties)
			} else if _, _, err := spec.Write(s, spec.Properties); err == nil || !strings.Contains(err.Error(), why) {
				t.Errorf("in properties: %v", err)
			}
			if warnings := sameAgain(t, s, spec.Env); len(warnings) != len(s.References) {
				t.Errorf("variables leave out %v", warnings)
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
	text, _, err := spec.Write(s, spec.Env)
	if err != nil || strings.Contains(text, "KFERRY_MIRROR") {
		t.Errorf("%v\n%s", err, text)
	}
	if want := describe(s, nil); want != describe(load(t, exported(t, text)...), nil) {
		t.Errorf("%s\nis not\n%s", text, want)
	}
	if _, _, err := spec.Write(s, spec.StrimziV1); err == nil || !strings.Contains(err.Error(), `not an interval`) {
		t.Errorf("half a second in a resource: %v", err)
	}
	for _, least := range []string{"KFERRY_TASKS_MAX=7", "KFERRY_OFFSETS_REPLICATION_FACTOR=3", "KFERRY_GROUPS=a"} {
		s := load(t, plain(least)...)
		sameAgain(t, s, spec.Env)
		sameAgain(t, s, spec.StrimziV1)
	}
}

func TestWriteUnknown(t *testing.T) {
	if _, _, err := spec.Write(load(t, plain()...), "toml"); err == nil || !strings.Contains(err.Error(), "strimzi-v1, properties or env") {
		t.Error(err)
	}
}

// sameAgain writes and reads, and returns what was left out.
func sameAgain(t *testing.T, s spec.Spec, to spec.Format) []string {
	t.Helper()
	text, warnings, err := spec.Write(s, to)
	if err != nil {
		t.Errorf("%s: %v", to, err)
		return nil
	}
	environ := []string{"KFERRY_MIRROR=" + text}
	if to == spec.Env {
		environ = exported(t, text)
	}
	again, err := spec.Load(nil, environ)
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
		if _, _, err := spec.Write(s, spec.Properties); err == nil {
			sameAgain(t, s, spec.Properties)
		} else if !notSaid.MatchString(err.Error()) {
			t.Errorf("in properties: %v", err)
		}
		if t.Failed() {
			rt.Fatalf("of\n%s", text)
		}
	})
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
	} {
		s, err := spec.Load([]string{filepath.Join("testdata/right", file)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range formats {
			text, _, err := spec.Write(s, to)
			if err != nil {
				t.Fatal(err)
			}
			expect(t, filepath.Join("testdata", "written", file+"."+string(to)+".txt"), text)
		}
	}
}

// What is left out is named in comments, and stays there when it has several lines.
func TestCommentsStayComments(t *testing.T) {
	s := load(t, "MORE=payments", `KFERRY_MIRROR=spec:
  clusters: [{alias: A, bootstrapServers: "a:9092"}, {alias: B, bootstrapServers: "b:9092"}]
  mirrors:
  - sourceCluster: A
    targetCluster: B
    sourceConnector: {config: {topics: "orders,\n${env:MORE}"}}
`)
	for _, format := range spec.Formats {
		text, warnings, err := spec.Write(s, format)
		if err != nil || len(warnings) == 0 {
			t.Fatalf("%s: left out %v, error %v", format, warnings, err)
		}
		for line := range strings.Lines(text) {
			if strings.Contains(line, "${env:MORE}") && !strings.HasPrefix(line, "#") {
				t.Errorf("%s: %s", format, line)
			}
		}
	}
}
