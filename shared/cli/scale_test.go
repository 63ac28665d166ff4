package cli_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/shared/local"
)

// A coordinator tells KEDA's metrics-api over HTTP, and people in status, how many workers are wanted. Nothing but what is asked for goes to standard output.
func TestScaleOverHTTP(t *testing.T) {
	t.Parallel()
	_, environ := world(t, 30)
	queue, err := local.StartNATS(t.TempDir(), local.NATSListen("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(queue.Close)
	environ = append(environ, "NATS_URL="+queue.URL(), "KFERRY_HTTP=127.0.0.1:0", "KFERRY_SCALE_MAX=7")
	c := begin(t, environ, "coordinator")
	address := regexp.MustCompile(`"?address"?[:=]"?(http://[0-9.:]+)`)
	var at string
	eventually(t, "it listens", func() bool {
		if found := address.FindStringSubmatch(c.err.String()); found != nil {
			at = found[1]
		}
		return at != ""
	})
	ask := func() (s coordinator.Scale, status int) {
		answer, err := http.Get(at + "/scale")
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		if answer.StatusCode == http.StatusOK {
			if kind := answer.Header.Get("Content-Type"); kind != "application/json" {
				t.Errorf("Content-Type is %q", kind)
			}
			if err := json.Unmarshal(text, &s); err != nil {
				t.Fatalf("%v in %s", err, text)
			}
		} else if answer.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(text), "not known") {
			t.Fatalf("%s: %s", answer.Status, text)
		}
		return s, answer.StatusCode
	}
	eventually(t, "one is wanted", func() bool {
		s, _ := ask()
		return s.Desired == 1 && s.BacklogPartitions > 0
	})
	if code, out, text := kferry(t, environ, "status"); code != 0 || !strings.Contains(out, "\n1 worker is wanted since ") {
		t.Errorf("status: exit code %d\n%s%s", code, out, text)
	}
	metrics, err := http.Get(at + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer metrics.Body.Close()
	if text, _ := io.ReadAll(metrics.Body); !strings.Contains(string(text), "\nkferry_desired_workers 1\n") {
		t.Errorf("metrics:\n%s", text)
	}
	if out := fmt.Sprint(&c.out); out != "" {
		t.Errorf("on standard output: %s", out)
	}
}
