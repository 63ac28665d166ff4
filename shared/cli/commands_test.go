package cli_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

const mirror = `
apiVersion: kafka.strimzi.io/v1beta2
kind: KafkaMirrorMaker2
metadata: {name: m}
spec:
  connectCluster: central
  clusters:
    - {alias: central, bootstrapServers: '%s'}
    - {alias: kafka-dc-1, bootstrapServers: '%s'}
  mirrors:
    - {sourceCluster: kafka-dc-1, targetCluster: central, topicsPattern: orders, sourceConnector: {config: {replication.factor: 1}}}
`

func TestUsage(t *testing.T) {
	t.Parallel()
	_, environ := world(t, 0)
	tests := map[string]struct {
		args []string
		code int
		says string
	}{
		"unknown command":  {[]string{"copy"}, 2, `unknown command "copy"`},
		"unknown flag":     {[]string{"run", "--fast"}, 2, "unknown flag: --fast"},
		"argument":         {[]string{"run", "mirror.yaml"}, 2, `kferry run takes no arguments, and "mirror.yaml" is one; a file is given with -f`},
		"argument, no -f":  {[]string{"demo", "mirror.yaml"}, 2, `kferry demo takes no arguments, and "mirror.yaml" is one` + "\n"},
		"unknown file":     {[]string{"validate", "-f", "/nowhere/mirror.yaml"}, 1, "/nowhere/mirror.yaml"},
		"unknown format":   {[]string{"status", "-o", "xml"}, 2, `-o "xml": give table or json`},
		"no queue":         {[]string{"worker"}, 2, "NATS_URL is not set; worker needs"},
		"no runs":          {[]string{"worker", "--max-runs", "0"}, 2, `"0" for "--max-runs" flag: give a number of runs, 1 or more`},
		"runs in words":    {[]string{"worker", "--max-runs", "two"}, 2, `"two" for "--max-runs" flag: give a number of runs, 1 or more` + "\n"},
		"no idle time":     {[]string{"worker", "--idle-exit", "0s"}, 2, `"0s" for "--idle-exit" flag: give a time`},
		"time, no unit":    {[]string{"worker", "--idle-exit", "30"}, 2, `"30" for "--idle-exit" flag: give a time with its unit, like 30s` + "\n"},
		"called by --http": {[]string{"worker", "--http"}, 2, "flag needs an argument: --http, an address like 127.0.0.1:8080; for a worker that is called give --push"},
		"once and more":    {[]string{"worker", "--once", "--max-runs", "2"}, 2, "--once is --max-runs 1"},
		"called once":      {[]string{"worker", "--push", "--once", "--http", "127.0.0.1:0"}, 2, "does not end by itself"},
		"called nowhere":   {[]string{"worker", "--push", "--http", "off"}, 2, "--push: is set while KFERRY_HTTP is off"},
		"open to calls":    {[]string{"worker", "--push", "--http", "0.0.0.0:0"}, 1, "could change things (POST /): set KFERRY_HTTP_TOKEN"},
		"no queue either":  {[]string{"coordinator"}, 2, "NATS_URL is not set; coordinator needs"},
		"queue is silent":  {[]string{"worker", "--nats-url", "nats://127.0.0.1:1"}, 1, "127.0.0.1:1"},
		"wrong flag value": {[]string{"run", "--slots", "many"}, 2, `--slots: "many"`},
		"help":             {[]string{"help"}, 0, "Available Commands:"},
		"completion":       {[]string{"completion", "bash"}, 0, "bash completion V2 for kferry"},
		"version":          {[]string{"--version"}, 0, "kferry version "},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, says, err := kferry(t, environ, test.args...)
			if test.code != 0 {
				says = err
			}
			if code != test.code || !strings.Contains(says, test.says) {
				t.Errorf("exit code %d instead of %d, and says %q, not %q", code, test.code, says, test.says)
			}
		})
	}
}

// Every command that takes a flow says the same of one that there isn't, also where the shell has made a file of its second half.
func TestFlowThatThereIsNot(t *testing.T) {
	t.Parallel()
	_, environ := world(t, 0)
	for _, command := range [][]string{{"limit"}, {"verify"}, {"gaps"}, {"groups"}, {"resume", "--dry-run"}} {
		for name, says := range map[string]string{
			"a->b":       `"a->b" is no flow; give one of '` + flow + "'\n",
			source + "-": `"` + source + `-" is no flow; give one of '` + flow + "', in quotes: the shell took the > and what follows for itself",
		} {
			if code, _, err := kferry(t, environ, append(command, name)...); code != 2 || !strings.Contains(err, says) {
				t.Errorf("%s %s: exit code %d, and says %q, not %q", command[0], name, code, err, says)
			}
		}
	}
}

// A wrong variable is a wrong configuration, whatever flags stand beside it.
func TestAWrongVariableIsNoWrongUsage(t *testing.T) {
	t.Parallel()
	_, environ := world(t, 0)
	code, _, err := kferry(t, append(environ, "KFERRY_SLOTS=many"), "run", "--name", "mine")
	if code != 1 || !strings.Contains(err, `KFERRY_SLOTS: "many"`) {
		t.Errorf("exit code %d and\n%s", code, err)
	}
}

// Whoever sets up a worker that is called, and starts run, is told what it is.
func TestRunIsNotCalled(t *testing.T) {
	t.Parallel()
	_, environ := world(t, 0)
	for variable, says := range map[string]bool{"KFERRY_PUSH=true": true, "KFERRY_PUSH_URL=http://127.0.0.1:1": true, "KFERRY_PUSH=false": false} {
		code, _, err := kferry(t, append(environ, "NATS_TIMEOUT=1s", "KFERRY_HTTP=127.0.0.1:0", variable), "run", "--nats-url", "nats://127.0.0.1:1")
		if code != 1 || strings.Contains(err, "KFERRY_PUSH and KFERRY_PUSH_URL have no effect here") != says {
			t.Errorf("%s: exit code %d and\n%s", variable, code, err)
		}
	}
}

// A token that can't be shown is found when a coordinator starts, and not when the first work waits.
func TestPushTokenInAFile(t *testing.T) {
	t.Parallel()
	_, environ := world(t, 0)
	environ = append(environ, "KFERRY_PUSH_URL=http://127.0.0.1:1")
	for file, says := range map[string]string{
		"/nowhere/token":                        "KFERRY_PUSH_TOKEN_FILE: open /nowhere/token: no such file",
		mirrorFile(t, "short\n"):                "KFERRY_PUSH_TOKEN_FILE: too short for a token",
		mirrorFile(t, "geheim geheim …"):        "KFERRY_PUSH_TOKEN_FILE: holds what can't be in a header",
		mirrorFile(t, "geheim-geheim-geheim\n"): "NATS_URL is not set",
	} {
		if _, _, err := kferry(t, append(environ, "KFERRY_PUSH_TOKEN_FILE="+file), "coordinator"); !strings.Contains(err, says) || strings.Contains(err, "geheim") {
			t.Errorf("%s: says %q, not %q", file, err, says)
		}
	}
}

func TestNothingToCopy(t *testing.T) {
	t.Parallel()
	code, _, err := kferry(t, nil, "run")
	if code != 1 || !strings.Contains(err, "KFERRY_MIRROR") {
		t.Errorf("exit code %d and %q", code, err)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	env, _ := world(t, 40)
	file := mirrorFile(t, fmt.Sprintf(mirror, servers(env, target), servers(env, source)))
	code, out, _ := kferry(t, nil, "validate", "-f", file)
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, part := range []string{"kafka-dc-1->central", "kafka-dc-1.t", "earliest", "read_committed", servers(env, source)} {
		if !strings.Contains(out, part) {
			t.Errorf("validate does not show %q:\n%s", part, out)
		}
	}
	if strings.Contains(out, "CREATES") {
		t.Errorf("validate asks the clusters, unasked:\n%s", out)
	}
}

func TestValidateReportsEveryMistake(t *testing.T) {
	t.Parallel()
	file := mirrorFile(t, strings.Replace(fmt.Sprintf(mirror, "<bootstrapServers>", "a:1"), "targetCluster: central", "targetCluster: centre", 1))
	code, _, err := kferry(t, nil, "validate", "-f", file)
	if code != 1 || !strings.Contains(err, "<bootstrapServers>") || !strings.Contains(err, "centre") || !strings.Contains(err, file) {
		t.Errorf("exit code %d and\n%s", code, err)
	}
}

func TestValidateConnect(t *testing.T) {
	t.Parallel()
	env, _ := world(t, 40)
	file := mirrorFile(t, fmt.Sprintf(mirror, servers(env, target), servers(env, source)))
	code, out, _ := kferry(t, nil, "validate", "-f", file, "--connect")
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, part := range []string{"kafka-dc-1.orders", "topic (3 partitions)"} {
		if !strings.Contains(out, part) {
			t.Errorf("validate does not show %q:\n%s", part, out)
		}
	}
	if n := env.Kafka(target).TopicInfo("kafka-dc-1.orders"); n != nil {
		t.Error("validate created a topic")
	}
	env.Kafka(source).Close()
	if code, out, _ := kferry(t, nil, "validate", "-f", file, "--connect"); code != 1 || !strings.Contains(out, "can't be looked at") {
		t.Errorf("a source that is down: exit code %d and\n%s", code, out)
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	env, environ := world(t, 40)
	if code, _, err := kferry(t, environ, "run", "--until-caught-up"); code != 0 {
		t.Fatalf("exit code %d and\n%s", code, err)
	}
	write(t, env, 5)
	code, out, warnings := kferry(t, append(environ, "KFERRY_TOPIC=orders"), "status")
	if code != 0 || strings.Count(out, "kafka-dc-1.orders") != 3 || !strings.Contains(out, "identical") {
		t.Errorf("exit code %d and\n%s", code, out)
	}
	if !strings.HasPrefix(warnings, "warning: KFERRY_TOPIC: no such variable") {
		t.Errorf("status keeps to itself what has no effect: %q", warnings)
	}
	if code, _, said := kferry(t, environ, "status", "kafka-dc-1->elsewhere"); code != 2 || !strings.Contains(said, "is no flow; give one of") {
		t.Errorf("status of another flow: exit code %d and %q", code, said)
	}
	code, out, _ = kferry(t, environ, "status", "-o", "json")
	var parsed struct {
		Flows []struct {
			Flow       string
			Partitions []struct {
				Lag int64 `json:"lag_records"`
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &parsed); err != nil {
		t.Fatalf("not JSON: %v\n%s", err, out)
	}
	var lag int64
	for _, p := range parsed.Flows[0].Partitions {
		lag += p.Lag
	}
	if code != 0 || parsed.Flows[0].Flow != "kafka-dc-1->central" || lag != 5 {
		t.Errorf("exit code %d, lag %d instead of 5, and\n%s", code, lag, out)
	}
}
