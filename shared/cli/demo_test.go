package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server/ats"
)

// ats.Register starts the NATS server's access clock outside every bubble; one that is born inside would stop virtual time.
// For tests of what only a process can meet, this one plays kferry.
func TestMain(m *testing.M) {
	if os.Getenv("TEST_AS_KFERRY") != "" {
		Main()
	}
	ats.Register()
	os.Exit(m.Run())
}

// timeout signals a process and then its whole group, so what one stop means arrives as two signals.
func TestTwoSignalsAtOnceAreOne(t *testing.T) {
	t.Parallel()
	c := exec.CommandContext(t.Context(), os.Args[0], "run", "--http", "off", "--log-format", "json")
	c.Env = append(os.Environ(), "TEST_AS_KFERRY=1", "KFERRY_DATA="+t.TempDir(),
		"KFERRY_SOURCE_ALIAS=a", "KFERRY_SOURCE_BOOTSTRAP_SERVERS=127.0.0.1:1", "KFERRY_TARGET_ALIAS=b", "KFERRY_TARGET_BOOTSTRAP_SERVERS=127.0.0.1:1")
	log, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	for lines := bufio.NewScanner(log); lines.Scan(); {
		switch text := lines.Text(); {
		case strings.Contains(text, `"copying"`), strings.Contains(text, `"stopping; `):
			c.Process.Signal(os.Interrupt)
		case strings.Contains(text, `"stopped"`):
			stopped = true
		}
	}
	if err := c.Wait(); err != nil || !stopped {
		t.Errorf("stopped %v, and ends with %v", stopped, err)
	}
}

// The whole demo, in virtual time: the bubble also fails when one of its processes outlives it.
func TestDemoEndsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		began := time.Now()
		if err := playDemo(t.Context(), newStage(Process{Out: &out}), true); err != nil {
			t.Errorf("demo: %v", err)
		}
		if took := time.Since(began); took > 40*time.Second {
			t.Errorf("the demo takes %s", took)
		}
		for _, part := range []string{"worker-1 is killed", "worker-3 takes its place", "kafka-dc-1.orders", "kafka-dc-2.payments", "\nEXACT."} {
			if !strings.Contains(out.String(), part) {
				t.Errorf("the demo does not tell %q", part)
			}
		}
		if strings.Contains(out.String(), "\x1b") {
			t.Error("escape codes, and no terminal")
		}
		t.Log(out.String())
	})
}

func TestDemoStopsWhenItIsInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		interrupted := errors.New("interrupted")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 3*time.Second, interrupted)
		defer cancel()
		var out bytes.Buffer
		if err := playDemo(ctx, newStage(Process{Out: &out}), true); !errors.Is(err, interrupted) {
			t.Errorf("an interrupted demo ends with %v", err)
		}
	})
}

// As many records as the sources have, and none of them theirs.
func TestDemoFailsWhereCopiesDiffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		d, err := raise(t.Context(), newStage(Process{Out: &out}), true, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer d.env.Close()
		for _, topic := range demoTopics {
			if err := d.env.Kafka(demoCentral).CreateTopic(topic.copy(), topic.partitions, nil); err != nil {
				t.Fatal(err)
			}
			w, err := d.env.Writer(demoCentral, topic.copy())
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			if err := w.Write(t.Context(), topic.before); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.judge(t.Context()); !errors.Is(err, errSaid) || !strings.Contains(out.String(), "NOT EXACT") {
			t.Errorf("%v, and says %q", err, out.String())
		}
	})
}
