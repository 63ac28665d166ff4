package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server/ats"
)

// ats.Register starts the NATS server's access clock outside every bubble; one that is born inside would stop virtual time.
func TestMain(m *testing.M) {
	ats.Register()
	os.Exit(m.Run())
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

func TestDemoFailsWhereCopiesDiffer(t *testing.T) {
	var out bytes.Buffer
	if err := newStage(Process{Out: &out}).verdict(false); err == nil || !strings.Contains(out.String(), "NOT EXACT") {
		t.Errorf("%v, and says %q", err, out.String())
	}
}
