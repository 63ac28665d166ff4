package cli_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/kferry/kferry/shared/local"
)

const copied = source + ".orders"

// foreign appends a record to the copy, which no worker passes over.
func foreign(t *testing.T, env *local.Env) {
	t.Helper()
	w, err := env.Writer(target, copied)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Write(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
}

// held is a world whose copy somebody else has written to, and whose run has found out.
func held(t *testing.T) (*local.Env, []string) {
	t.Helper()
	env, environ := world(t, 40)
	if code, _, err := kferry(t, environ, "run", "--until-caught-up"); code != 0 {
		t.Fatalf("exit code %d and\n%s", code, err)
	}
	foreign(t, env)
	write(t, env, 30)
	if code, _, err := kferry(t, environ, "run", "--until-caught-up"); code != 1 {
		t.Fatalf("exit code %d and\n%s", code, err)
	}
	return env, environ
}

// Without a queue a decision waits on the target for the next start.
func TestResumeWithoutAQueue(t *testing.T) {
	t.Parallel()
	env, environ := held(t)
	for args, want := range map[string]string{
		"resume":                                     "resume takes one flow, like 'A->B', and 0 are given",
		"resume a->b":                                "nothing is decided",
		"resume a->b --accept-gap --restart":         "more than one thing is decided",
		"gaps --acknowledge":                         "name it",
		"gaps -o xml":                                "give table or json",
		"gaps a->b c->d":                             "gaps takes one flow, like 'A->B', or none for all, and 2 are given",
		"gaps --topic nope":                          `--topic "nope": no topic of this name is copied by '` + flow + "'",
		"gaps --partition -3":                        "--partition -3: give the number of a partition",
		"resume a->b --partition -1 --restart":       "--partition -1: give the number of a partition",
		"resume " + flow + " --topic nope --dry-run": `--topic "nope": no topic of this name is copied by '` + flow + "'",
		"resume " + flow + " --topic " + copied + " --accept-gap": "give it as it is called on the source",
	} {
		if code, _, err := kferry(t, environ, strings.Fields(args)...); code != 2 || !strings.Contains(err, want) {
			t.Errorf("%s: exit code %d and %q, want %q", args, code, err, want)
		}
	}
	_, out, _ := kferry(t, environ, "status")
	_, line, found := strings.Cut(out, "    kferry resume ")
	if !found {
		t.Fatalf("status names no command:\n%s", out)
	}
	line, _, _ = strings.Cut(line, "  ")
	command := append([]string{"resume"}, strings.Fields(strings.ReplaceAll(line, "'", ""))...)

	code, out, _ := kferry(t, environ, "resume", flow, "--dry-run")
	if code != 0 || !strings.Contains(out, "accept-gap: goes on at source offset") || !strings.Contains(out, "restart: goes on at source offset 0; offsets 0 to ") {
		t.Errorf("exit code %d and\n%s", code, out)
	}
	if code, out, _ := kferry(t, environ, append(command, "--dry-run")...); code != 0 || !strings.Contains(out, "behind all that is on the target\nNothing is written.") {
		t.Errorf("exit code %d and\n%s", code, out)
	}
	for _, args := range [][]string{
		{"resume", flow, "--topic", "orders", "--partition", "9", "--accept-gap"}, {"resume", flow, "--partition", "9", "--dry-run"},
	} {
		if code, out, err := kferry(t, environ, args...); code != 1 || !strings.Contains(err, flow+" copies no ") {
			t.Errorf("%q: exit code %d and\n%s%s", args, code, out, err)
		}
	}
	if code, out, _ := kferry(t, environ, "gaps", "--topic", "orders", "--partition", "9"); code != 0 || out != "No gaps of orders in partition 9.\n" {
		t.Errorf("exit code %d and\n%s", code, out)
	}
	if code, out, _ := kferry(t, environ, command...); code != 0 || !strings.Contains(out, "it takes effect at the next start") {
		t.Errorf("%q: exit code %d and\n%s", command, code, out)
	}
	if _, out, _ := kferry(t, environ, "status"); !strings.Contains(out, "It goes on by decision (accept-gap)") || strings.Contains(out, "with one of") {
		t.Errorf("status does not know of the decision:\n%s", out)
	}
	if code, _, err := kferry(t, environ, "run", "--until-caught-up"); code != 0 {
		t.Errorf("the run after the decision: exit code %d and\n%s", code, err)
	}
	_, out, _ = kferry(t, environ, "gaps", "-o", "json")
	var gaps []struct {
		Flow, Effect, Reason, By, Acknowledged string
		Count                                  int64
	}
	if err := json.Unmarshal([]byte(out), &gaps); err != nil || len(gaps) != 1 || gaps[0].Flow != flow || gaps[0].Effect != "surplus" ||
		gaps[0].Reason != "foreign_writer" || gaps[0].By != "operator" || gaps[0].Acknowledged == "" || gaps[0].Count != -1 {
		t.Errorf("%v: %s", err, out)
	}
	if n := records(t, env); n != 71 {
		t.Errorf("%d records on the target, want 70 and somebody's 1", n)
	}
}

// records counts what is on the copy's partitions.
func records(t *testing.T, env *local.Env) (n int64) {
	t.Helper()
	for p := range int32(3) {
		n += env.Kafka(target).PartitionInfo(copied, p).HighWatermark
	}
	return n
}

// A run that goes on carries the decision out at once; what a policy costs is open until somebody says that it is known.
func TestResumeWhileItRuns(t *testing.T) {
	t.Parallel()
	env, environ := held(t)
	run := begin(t, environ, "run")
	const flow = source + "->" + target
	eventually(t, "the run's queue is found", func() bool {
		_, out, _ := kferry(t, environ, "status")
		return strings.Contains(out, "held (foreign_writer)") && !strings.Contains(out, "which only the queue knows")
	})
	if code, out, _ := kferry(t, environ, "resume", flow, "--restart"); code != 0 || !strings.Contains(out, "Workers carry it out") {
		t.Errorf("exit code %d and\n%s", code, out)
	}
	eventually(t, "the decision is carried out", func() bool {
		_, out, _ := kferry(t, environ, "gaps")
		return strings.Contains(out, "repeated")
	})
	run.cancel()
	if code := run.wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	foreign(t, env)
	write(t, env, 30)
	environ = append(environ, "KFERRY_ON_HOLD=foreign_writer=skip")
	if code, _, err := kferry(t, environ, "run", "--until-caught-up"); code != 0 {
		t.Errorf("with a policy: exit code %d and\n%s", code, err)
	}
	if _, out, _ := kferry(t, environ, "status"); !strings.Contains(out, "1 gap that nobody has acknowledged") {
		t.Errorf("status hides what the policy did:\n%s", out)
	}
	if code, out, err := kferry(t, environ, "gaps", flow, "--acknowledge"); code != 0 || strings.Count(out, "foreign_writer") != 2 {
		t.Errorf("exit code %d and\n%s%s", code, out, err)
	}
	if err := os.RemoveAll(strings.TrimPrefix(environ[len(environ)-2], "KFERRY_DATA=")); err != nil {
		t.Fatal(err)
	}
	if _, out, _ := kferry(t, environ, "status"); strings.Contains(out, "gap") {
		t.Errorf("status shows what is acknowledged:\n%s", out)
	}
}
