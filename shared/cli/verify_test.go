package cli_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/local"
	"github.com/kferry/kferry/shared/spec"
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
	code, out, _ = kferry(t, environ, "verify", "--since", "1ms")
	if code != 3 || !strings.Contains(out, "NOT COMPARABLE: no record was compared: 0 records are equal; partitions: 3 equal") {
		t.Errorf("no record is so young: exit code %d and\n%s", code, out)
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
	if strings.Contains(out, "kferry gaps") {
		t.Errorf("nobody has decided anything, and yet there are gaps:\n%s", out)
	}
	onRecord(t, env, environ, lease.Gap{Topic: "orders", Partition: 1, Effect: lease.Surplus}, lease.Gap{Topic: "payments", Effect: lease.Surplus})
	if code, out, _ = kferry(t, environ, "verify"); code != 1 || !strings.Contains(out, "1 on record, and what they cost is found here as well: kferry gaps '"+source+"->"+target+"'") {
		t.Errorf("a gap of a partition that is compared: exit code %d and\n%s", code, out)
	}
	env.Kafka(source).Close()
	code, out, _ = kferry(t, environ, "verify")
	if code != 3 || !strings.Contains(out, source+"->"+target+": not comparable: source: ") {
		t.Errorf("a source that is down: exit code %d and\n%s", code, out)
	}
}

// onRecord writes gaps as a worker does.
func onRecord(t *testing.T, env *local.Env, environ []string, gaps ...lease.Gap) {
	t.Helper()
	s, err := spec.Load(nil, environ)
	if err != nil {
		t.Fatal(err)
	}
	c, err := kafka.Open(env.Spec(target), kafka.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, g := range gaps {
		if err := lease.WriteGap(t.Context(), s.Flows[0], c, g); err != nil {
			t.Fatal(err)
		}
	}
}

func TestVerifyIsAskedWrongly(t *testing.T) {
	t.Parallel()
	_, environ := world(t, 10)
	for says, args := range map[string][]string{
		`no topic matches "payments" among those that kafka-dc-1->central copies: orders`: {"--topics", "payments"},
		`--topics "(": not a list of regular expressions`:                                 {"--topics", "("},
		`--since "yesterday": give a time like`:                                           {"--since", "yesterday"},
		`--since "2099-01-01T00:00:00Z": that is later than now`:                          {"--since", "2099-01-01T00:00:00Z"},
		`--since "4070908800000": that is later than now`:                                 {"--since", "4070908800000"},
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
