package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What list shows can be changed and set, with a queue or without one, and the flow goes on there.
func TestOffsets(t *testing.T) {
	t.Parallel()
	env, environ := world(t, 40)
	run := func() {
		t.Helper()
		if code, _, err := kferry(t, environ, "run", "--until-caught-up"); code != 0 {
			t.Fatalf("exit code %d and\n%s", code, err)
		}
	}
	run()
	before := env.Records(target, copied)
	code, listed, _ := kferry(t, environ, "offsets", "list", flow)
	lines := strings.Count(listed, `"topic":"orders"`)
	if code != 0 || lines == 0 || !strings.HasPrefix(listed, `{"offsets":[{"partition":{"cluster":"`+source+`","partition":0,"topic":"orders"},"offset":{"offset":`) {
		t.Fatalf("exit code %d and\n%s", code, listed)
	}
	file := filepath.Join(t.TempDir(), "offsets.json")
	set := func(text string, flags ...string) (int, string, string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return kferry(t, environ, append([]string{"offsets", "set", flow, file}, flags...)...)
	}
	at := func(topic string, partition, offset int) string {
		return fmt.Sprintf(`{"offsets":[{"partition":{"cluster":%q,"partition":%d,"topic":%q},"offset":{"offset":%d}}]}`, source, partition, topic, offset)
	}
	for text, want := range map[string]string{
		at("orders", 99, 1):     flow + " copies no orders-99",
		at("orders", 0, 99_999): "offset 100000 is not in the source's log",
	} {
		if code, out, err := set(text); code != 1 || !strings.Contains(out+err, want) {
			t.Errorf("%s: exit code %d and\n%s%s", text, code, out, err)
		}
	}
	for text, want := range map[string]string{
		strings.ReplaceAll(at("orders", 0, 1), source, "elsewhere"): `its cluster is "elsewhere"`,
		at("orders", 0, -1): `"offset" is -1`,
	} {
		if code, _, err := set(text); code != 2 || !strings.Contains(err, want) {
			t.Errorf("%s: exit code %d and\n%s", text, code, err)
		}
	}
	if code, out, _ := set(at("orders", 0, 1), "--dry-run"); code != 0 || !strings.Contains(out, "from:2: goes on at source offset 2; offsets 2 to ") || !strings.Contains(out, "Nothing is written") {
		t.Errorf("exit code %d and\n%s", code, out)
	}
	if code, again, _ := kferry(t, environ, "offsets", "list", flow); code != 0 || again != listed {
		t.Errorf("after a dry run: exit code %d and\n%s", code, again)
	}

	if code, out, _ := set(at("orders", 0, 1)); code != 0 || !strings.Contains(out, "Decided on the target alone") {
		t.Errorf("exit code %d and\n%s", code, out)
	}
	run()
	partition0 := env.Kafka(source).PartitionInfo("orders", 0).HighWatermark
	if got, want := env.Records(target, copied), before+partition0-2; got != want {
		t.Errorf("the copy has %d records, want %d", got, want)
	}
	if _, again, _ := kferry(t, environ, "offsets", "list", flow); again != listed {
		t.Errorf("after all is copied again:\n%s", again)
	}
	if code, out, _ := kferry(t, environ, "gaps"); code != 0 || !strings.Contains(out, "repeated") || !strings.Contains(out, "position_set") {
		t.Errorf("exit code %d and\n%s", code, out)
	}
}

func TestOffsetsReset(t *testing.T) {
	t.Parallel()
	env, environ := world(t, 40)
	if code, out, _ := kferry(t, environ, "offsets", "reset", flow, "--all"); code != 0 || !strings.Contains(out, "no position to reset") {
		t.Errorf("before anything is copied: exit code %d and\n%s", code, out)
	}
	for range 2 {
		if code, _, err := kferry(t, environ, "run", "--until-caught-up"); code != 0 {
			t.Fatalf("exit code %d and\n%s", code, err)
		}
		if code, out, err := kferry(t, environ, "offsets", "reset", flow); code != 2 || !strings.Contains(err, "give --topic, or --all") {
			t.Errorf("exit code %d and\n%s", code, out)
		}
		if code, out, _ := kferry(t, environ, "offsets", "reset", flow, "--topic", "orders"); code != 0 || !strings.Contains(out, "copied again") {
			t.Errorf("exit code %d and\n%s", code, out)
		}
	}
	if code, _, err := kferry(t, environ, "run", "--until-caught-up"); code != 0 {
		t.Fatalf("exit code %d and\n%s", code, err)
	}
	if got := env.Records(target, copied); got != 3*40 {
		t.Errorf("copied three times, the copy has %d records", got)
	}
}
