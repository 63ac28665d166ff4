package cli_test

import (
	"strings"
	"testing"
)

const flow = source + "->" + target

func TestLimit(t *testing.T) {
	t.Parallel()
	_, environ := world(t, 40)
	environ = append(environ, "KFERRY_RATE_BYTES=10MiB", "KFERRY_RATE_RECORDS_TOPICS=invoices=7")
	limit := func(code int, parts []string, args ...string) {
		t.Helper()
		got, out, complaints := kferry(t, environ, append([]string{"limit"}, args...)...)
		text := strings.Join(strings.Fields(out), " ") + complaints
		if got != code {
			t.Errorf("limit %q: exit code %d, want %d", args, got, code)
		}
		for _, part := range parts {
			if !strings.Contains(text, part) {
				t.Errorf("limit %q does not say %q but\n%s", args, part, text)
			}
		}
	}
	configured := flow + " the whole flow 10MiB/s configuration"
	limit(0, []string{configured, "invoices 7 records/s configuration"})
	limit(1, []string{"start kferry first"}, flow, "--bytes", "5MiB")

	run := begin(t, environ, "run")
	eventually(t, "the cursors' topic is there", func() bool {
		return strings.Contains(run.err.String(), "cursors loaded")
	})
	limit(0, []string{"the whole flow 5MiB/s set while running", "the whole flow 1000 records/s set while running"}, flow, "--bytes", "5MiB", "--records", "1000")
	limit(0, []string{"the whole flow 5MiB/s set while running", "the whole flow no limit in records set while running"}, flow, "--records", "0")
	limit(0, []string{"orders 1MiB/s set while running", "the whole flow 5MiB/s set while running"}, flow, "--topic", "orders", "--bytes", "1MiB")
	if _, out, _ := kferry(t, environ, "status"); !strings.Contains(out, flow+" is held to a rate: the whole flow, 5MiB/s (set while running)") {
		t.Errorf("status does not show the limit:\n%s", out)
	}
	if _, out, _ := kferry(t, environ, "status", "-o", "json"); !strings.Contains(out, `"per_second": 5242880`) {
		t.Errorf("status does not show the limit to programs:\n%s", out)
	}
	run.cancel()
	run.wait(t)

	limit(0, []string{configured, "no queue was found", "holds from the next start", "orders 1MiB/s set while running"}, flow, "--clear")
	limit(0, []string{configured}, "--topic", "orders", "--clear")
	if code, out, _ := kferry(t, environ, "run", "--until-caught-up"); code != 0 {
		t.Errorf("exit code %d and\n%s", code, out)
	}
	limit(0, []string{configured})
}

func TestPause(t *testing.T) {
	t.Parallel()
	_, environ := world(t, 40)
	kferry := func(code int, part string, args ...string) {
		t.Helper()
		got, out, complaints := kferry(t, environ, args...)
		if got != code || !strings.Contains(out+complaints, part) {
			t.Errorf("kferry %q: exit code %d, want %d, with %q:\n%s%s", args, got, code, part, out, complaints)
		}
	}
	kferry(2, "pause takes one flow, like 'A->B', and 0 are given", "pause")
	kferry(2, `"A->" is no flow`, "unpause", "A->")
	kferry(1, "start kferry first", "pause", flow)

	run := begin(t, environ, "run")
	eventually(t, "the cursors' topic is there", func() bool {
		return strings.Contains(run.err.String(), "cursors loaded")
	})
	kferry(0, flow+" is paused", "pause", flow)
	kferry(0, "kferry unpause", "status")
	kferry(0, `"state": "paused"`, "status", "-o", "json")
	run.cancel()
	run.wait(t)

	kferry(0, "holds from the next start", "unpause", flow)
	kferry(0, "CAUGHT UP", "run", "--until-caught-up")
}

func TestLimitUsage(t *testing.T) {
	t.Parallel()
	_, environ := world(t, 0)
	for says, args := range map[string][]string{
		`--bytes "5MB": not a number of bytes in a second`:    {flow, "--bytes", "5MB"},
		`--records "-1": not a number of records in a second`: {flow, "--records", "-1"},
		"--clear and a limit exclude each other":              {flow, "--clear", "--bytes", "1"},
		"--topic is for a limit":                              {flow, "--topic", "orders"},
		"no topic of this name is copied by '" + flow + "'":   {flow, "--topic", "order", "--bytes", "1"},
		"limit takes one flow, like 'A->B', or none for all":  {flow, "5MiB"},
	} {
		code, _, err := kferry(t, environ, append([]string{"limit"}, args...)...)
		if code != 2 || !strings.Contains(err, says) {
			t.Errorf("limit %q: exit code %d and %q, not %q", args, code, err, says)
		}
	}
}
