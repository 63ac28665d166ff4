package cli_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// described is what these tests look at of validate -o json.
type described struct {
	Mistakes, Warnings []string
	Flows              []struct {
		Flow, State, OffsetsTopic, Connector string
		MaxLeases                            int
		Groups                               struct{ State string }
		Given                                []struct{ Setting, Value, Place string }
	}
	Heartbeats []struct{ Flow string }
}

func validateJSON(t *testing.T, want int, environ []string, args ...string) (d described) {
	t.Helper()
	code, out, err := kferry(t, environ, append([]string{"validate", "-o", "json"}, args...)...)
	if code != want {
		t.Errorf("exit code %d, want %d: %s", code, want, err)
	}
	if err := json.Unmarshal([]byte(out), &d); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return d
}

func TestValidateForPrograms(t *testing.T) {
	t.Parallel()
	file := mirrorFile(t, fmt.Sprintf(mirror, "b:1", "a:1"))
	d := validateJSON(t, 0, nil, "-f", file)
	if len(d.Flows) != 1 || d.Flows[0].Flow != flow || d.Flows[0].State != "running" || d.Flows[0].Groups.State != "absent" || len(d.Mistakes) > 0 {
		t.Errorf("%+v", d)
	}
	if given := d.Flows[0].Given; !slices.ContainsFunc(given, func(g struct{ Setting, Value, Place string }) bool {
		return strings.HasSuffix(g.Setting, "replication.factor") && g.Value == "1" && g.Place == file+":11"
	}) {
		t.Errorf("where does the replication factor stand? %+v", given)
	}
	d = validateJSON(t, 1, nil, "-f", mirrorFile(t, "kind: KafkaMirrorMaker2\nspec: {mirrors: 7, replicas: 2, clusters: [{alias: a}]}\n"))
	if len(d.Mistakes) != 2 || !strings.Contains(d.Mistakes[1], ":2: spec.clusters[0].bootstrapServers: is missing") || len(d.Warnings) == 0 || len(d.Flows) > 0 {
		t.Errorf("%+v", d)
	}
	if code, _, err := kferry(t, nil, "validate", "-o", "json", "--connect", "-f", file); code != 2 || !strings.Contains(err, "leave out --connect") {
		t.Errorf("exit code %d and %s", code, err)
	}
}

// A mirror goes through every form and means the same, cursors included; what a form can't say ends it, or is named.
func TestConvert(t *testing.T) {
	t.Parallel()
	text := mirrorFile(t, "clusters = a, b\na.bootstrap.servers = a:1\nb.bootstrap.servers = b:1\na->b.enabled = true\na->b.tasks.max = 3\nemit.heartbeats.enabled = false\n")
	for _, to := range []string{"strimzi-v1", "properties", "strimzi-v1"} {
		code, out, err := kferry(t, nil, "convert", "--to", to, "-f", text)
		if code != 0 || err != "" {
			t.Fatalf("to %s: exit code %d and %s", to, code, err)
		}
		text = mirrorFile(t, out)
		d := validateJSON(t, 0, nil, "-f", text)
		if f := d.Flows[0]; len(d.Flows) != 1 || f.OffsetsTopic != "mm2-offsets.a.internal" || f.Connector != "MirrorSourceConnector" || f.MaxLeases != 3 {
			t.Errorf("as %s: %+v", to, d)
		}
	}
	environ := []string{"KFERRY_SOURCE_ALIAS=a", "KFERRY_SOURCE_BOOTSTRAP_SERVERS=a:1", "KFERRY_TARGET_ALIAS=b", "KFERRY_TARGET_BOOTSTRAP_SERVERS=b:1"}
	code, out, err := kferry(t, environ, "convert", "--to", "strimzi-v1")
	if left := "left out: heartbeats a->b every 1s"; code != 0 || !strings.Contains(out, "# "+left) || !strings.Contains(err, "warning: "+left) {
		t.Errorf("exit code %d, %s\n%s", code, err, out)
	}
	code, out, err = kferry(t, append(environ, "KFERRY_REFRESH=1500ms"), "convert", "--to", "properties")
	if code != 1 || out != "" || !strings.Contains(err, "not an interval") {
		t.Errorf("exit code %d, %s\n%s", code, err, out)
	}
	if code, _, err = kferry(t, environ, "convert", "--to", "toml"); code != 2 || !strings.Contains(err, `--to "toml"`) {
		t.Errorf("exit code %d and %s", code, err)
	}
}
