// Package testbed gives tests and benchmarks real servers to break: Kafka and NATS in containers, kferry in a container
// or as a process, a network that misbehaves, loads to copy, and an oracle that compares what arrived with what was sent.
//
// What holds for all of it:
//   - It shares no code with kferry. The oracle is a plain consumer, so that a bug of kferry's cannot hide itself.
//   - Everything listens on 127.0.0.1 and containers use the host's network: an address is the same from a test, from a
//     container and after a restart, and no port proxy of the engine's stands in what a benchmark measures.
//   - Every wait has a bound. What does not happen within it fails the test, with the logs of the containers it used.
//   - What a test starts ends with it; what a killed test left behind, the next run removes.
package testbed

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"time"
)

// Kafka versions there are images for: the newest, and the founding scenario's.
const (
	V43 = "4.3.0"
	V33 = "3.3.2"
)

// T is what the testbed needs of a [testing.T]; a program gets one from [Program].
type T interface {
	Helper()
	Name() string
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Failed() bool
	Cleanup(func())
	TempDir() string
	Context() context.Context
}

// Main is the TestMain of a package whose tests need containers. It runs them only where KFERRY_INTEGRATION is set, and
// then fails where there is no engine: a test that was asked for is never skipped.
func Main(m interface{ Run() int }) {
	if os.Getenv("KFERRY_INTEGRATION") == "" {
		fmt.Println("integration: left out, KFERRY_INTEGRATION is not set (bash integration/test.sh sets up and runs it)")
		os.Exit(0)
	}
	configure()
	if err := removeLeftovers(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "integration: no container engine:", err)
		os.Exit(1)
	}
	code := m.Run()
	closeShared()
	os.Exit(code)
}

// Program runs f outside of go test, cleans up behind it and returns what f failed with.
func Program(ctx context.Context, f func(T)) error {
	configure()
	if err := removeLeftovers(ctx); err != nil {
		return fmt.Errorf("container engine: %w", err)
	}
	defer closeShared()
	p := &program{ctx: ctx}
	done := make(chan struct{})
	go func() { // its own goroutine, since Fatalf ends the one it is called in
		defer close(done)
		defer p.cleanUp()
		f(p)
	}()
	<-done
	return p.err
}

// closeShared ends what belongs to the process and not to one test.
func closeShared() {
	shared.close()
	_ = os.RemoveAll(binary.dir)
}

// program is a T without a test.
type program struct {
	ctx      context.Context
	err      error
	cleanups []func()
}

func (p *program) Helper()                         {}
func (p *program) Name() string                    { return "program" }
func (p *program) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
func (p *program) Failed() bool                    { return p.err != nil }
func (p *program) Cleanup(f func())                { p.cleanups = append(p.cleanups, f) }
func (p *program) Context() context.Context        { return p.ctx }

func (p *program) Fatalf(format string, args ...any) {
	p.err = fmt.Errorf(format, args...)
	runtime.Goexit()
}

func (p *program) TempDir() string {
	dir, err := os.MkdirTemp("", "kferry-testbed-")
	if err != nil {
		p.Fatalf("temporary directory: %v", err)
	}
	p.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (p *program) cleanUp() {
	for len(p.cleanups) > 0 {
		last := p.cleanups[len(p.cleanups)-1]
		p.cleanups = p.cleanups[:len(p.cleanups)-1]
		last()
	}
}

// pollEvery is how often a condition is looked at: short against a broker's start, long against the look itself.
const pollEvery = 50 * time.Millisecond

// Eventually fails the test unless ok becomes true in time.
func Eventually(t T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	if !Within(t, within, ok) {
		t.Fatalf("%s: not within %v", what, within)
	}
}

// Within says whether ok becomes true in time.
func Within(t T, within time.Duration, ok func() bool) bool {
	return poll(t.Context(), within, func() error {
		if !ok() {
			return fmt.Errorf("not so")
		}
		return nil
	}) == nil
}

// poll calls try until it succeeds, and returns its last error when time is up.
func poll(ctx context.Context, within time.Duration, try func() error) error {
	deadline := time.Now().Add(within)
	for {
		err := try()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w, last: %w", context.Cause(ctx), err)
		case <-time.After(pollEvery):
		}
	}
}
