package cli_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/kferry/kferry/shared/verify"
)

func TestVerify(t *testing.T) {
	t.Parallel()
	env, environ := world(t, 500)
	code, out, _ := kferry(t, environ, "verify")
	if code != 3 || !strings.Contains(out, "there is no "+source+".orders-0 on the target") {
		t.Errorf("before anything is copied: exit code %d and\n%s", code, out)
	}
	if code, _, err := kferry(t, environ, "run", "--until-caught-up"); code != 0 {
		t.Fatalf("exit code %d and\n%s", code, err)
	}
	code, out, _ = kferry(t, environ, "verify", source+"->"+target)
	if code != 0 || !strings.Contains(out, "EQUAL: 500 records are equal; partitions: 3 equal") {
		t.Errorf("a copy: exit code %d and\n%s", code, out)
	}
	write(t, env, 20)
	code, out, _ = kferry(t, environ, "verify", "--topics", "ord.*", "--since", "1h", "-o", "json")
	r := report(t, out)
	if code != 0 || r.Verdict != verify.Equal || total(r).Equal != 500 || total(r).Behind != 20 {
		t.Errorf("20 records behind: exit code %d and\n%s", code, out)
	}
	w, err := env.Writer(target, source+".orders")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Write(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	code, out, _ = kferry(t, environ, "verify")
	if code != 1 || !strings.Contains(out, "first difference: extra") || !strings.Contains(out, "DIFFERENT: 500 records are equal; partitions: 2 equal, 1 different") {
		t.Errorf("a record of somebody else: exit code %d and\n%s", code, out)
	}
	env.Kafka(source).Close()
	code, out, _ = kferry(t, environ, "verify")
	if code != 3 || !strings.Contains(out, source+"->"+target+": not comparable: source: ") {
		t.Errorf("a source that is down: exit code %d and\n%s", code, out)
	}
}

func TestVerifyIsAskedWrongly(t *testing.T) {
	t.Parallel()
	_, environ := world(t, 10)
	for says, args := range map[string][]string{
		`no topic matches "payments" among those that kafka-dc-1->central copies: orders`: {"--topics", "payments"},
		`--topics "(": not a list of regular expressions`:                                 {"--topics", "("},
		`--since "yesterday": give a time like`:                                           {"--since", "yesterday"},
		`--rate "1KiB": give a number of bytes a second, at least 16KiB`:                  {"--rate", "1KiB"},
		`-o "xml": give table or json`:                                                    {"-o", "xml"},
	} {
		if code, _, err := kferry(t, environ, append([]string{"verify"}, args...)...); code != 2 || !strings.Contains(err, says) {
			t.Errorf("verify %q: exit code %d, and says %q, not %q", args, code, err, says)
		}
	}
}

// A rate that would take days, and a stop after the first second: what is known by then is told.
func TestVerifyIsStopped(t *testing.T) {
	t.Parallel()
	_, environ := world(t, 20_000)
	if code, _, err := kferry(t, environ, "run", "--until-caught-up"); code != 0 {
		t.Fatalf("exit code %d and\n%s", code, err)
	}
	c := begin(t, environ, "verify", "-o", "json", "--rate", "16KiB")
	time.Sleep(200 * time.Millisecond) // whenever it is stopped, the answer is the same
	c.cancel()
	code := c.wait(t)
	if r := report(t, c.out.String()); code != 1 || r.Verdict != verify.Unfinished {
		t.Errorf("exit code %d and\n%s", code, c.out.String())
	}
}

func report(t *testing.T, text string) (r verify.Report) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatalf("not JSON: %v\n%s", err, text)
	}
	return r
}

func total(r verify.Report) (c verify.Counts) {
	for _, f := range r.Flows {
		for _, p := range f.Partitions {
			c.Equal += p.Equal
			c.Behind += p.Behind
		}
	}
	return c
}
