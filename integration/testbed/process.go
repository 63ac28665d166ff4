package testbed

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/testcontainers/testcontainers-go"
)

const buildWithin = 5 * time.Minute // of the kferry binary, with a cold cache

// Kferry runs the image kferry:test, as it would run in production: not root, without a capability, with nothing but /data to write to.
// The volume stays when the container is killed and started again.
func Kferry(t T, args []string, env map[string]string) *Container {
	t.Helper()
	return kferry(t, args, env, testcontainers.WithHostConfigModifier(confined))
}

// KferryAs runs the image as a user that it doesn't know, as OpenShift does, with data that is gone with the container.
func KferryAs(t T, user string, args []string, env map[string]string) *Container {
	t.Helper()
	const data = "/scratch"
	env = maps.Clone(env)
	env["KFERRY_DATA"], env["TMPDIR"] = data, data
	return kferry(t, args, env,
		testcontainers.WithConfigModifier(func(c *apicontainer.Config) { c.User = user }),
		testcontainers.WithHostConfigModifier(func(h *apicontainer.HostConfig) {
			confined(h)
			h.Tmpfs = map[string]string{data: "mode=1777"}
		}))
}

// confined is what Kubernetes' "restricted" asks of a pod, and no write to the image's files.
func confined(h *apicontainer.HostConfig) {
	h.NetworkMode, h.ReadonlyRootfs, h.CapDrop, h.SecurityOpt = "host", true, []string{"ALL"}, []string{"no-new-privileges"}
}

func kferry(t T, args []string, env map[string]string, opts ...testcontainers.ContainerCustomizer) *Container {
	t.Helper()
	c, err := startContainer(t, "kferry", "kferry:test", append(opts, testcontainers.WithCmd(args...), testcontainers.WithEnv(env))...)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return c
}

// MirrorMaker runs Apache's MirrorMaker 2 on an mm2.properties, as kferry's rival and neighbour.
func MirrorMaker(t T, version, properties string) *Container {
	t.Helper()
	c, err := startContainer(t, "MirrorMaker "+version, "apache/kafka:"+version,
		testcontainers.WithEntrypoint("java", "-Xmx1g", "-XX:+UseSerialGC", brief, "-cp", "/opt/kafka/libs/*",
			"org.apache.kafka.connect.mirror.MirrorMaker", "/tmp/mm2.properties"),
		testcontainers.WithFiles(testcontainers.ContainerFile{
			Reader: strings.NewReader(properties), ContainerFilePath: "/tmp/mm2.properties", FileMode: 0o644,
		}))
	if err != nil {
		t.Fatalf("%v", err)
	}
	return c
}

// Process is a program on this machine.
type Process struct {
	t      T
	cmd    *exec.Cmd
	output string        // path of what it wrote
	ended  chan struct{} // closed when it has ended
}

// Run starts the kferry binary of this tree as an ordinary process, which ends with the test. Its environment is this
// process's, without what would configure kferry, and env.
func Run(t T, args []string, env map[string]string) *Process {
	t.Helper()
	return Exec(t, Binary(t), args, env)
}

// binary is kferry, built when it is first asked for.
var binary struct {
	sync.Once
	dir string
	err error
}

// Binary builds kferry, once per process, and returns its path.
func Binary(t T) string {
	t.Helper()
	binary.Do(func() { binary.dir, binary.err = build() })
	if binary.err != nil {
		t.Fatalf("build kferry: %v", binary.err)
	}
	return filepath.Join(binary.dir, "kferry")
}

func build() (dir string, err error) {
	dir, err = os.MkdirTemp("", "kferry-testbed-")
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), buildWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", dir, "github.com/kferry/kferry")
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("%w: %s", err, out)
	}
	return dir, nil
}

// Exec starts any program, with the same care as [Run].
func Exec(t T, path string, args []string, env map[string]string) *Process {
	t.Helper()
	p := &Process{t: t, output: filepath.Join(t.TempDir(), filepath.Base(path)+".log"), ended: make(chan struct{})}
	file, err := os.Create(p.output)
	if err != nil {
		t.Fatalf("output of %s: %v", path, err)
	}
	defer file.Close()
	p.cmd = exec.Command(path, args...)
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Env = file, file, Environ(env)
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	go func() {
		_ = p.cmd.Wait() // its outcome is in ProcessState
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("--- last lines of %s %s ---\n%s", filepath.Base(path), strings.Join(args, " "), lastLines(p.Output(), logLines))
		}
	})
	return p
}

// Environ is this process's environment without variables of kferry's, and env.
func Environ(env map[string]string) []string {
	all := slices.DeleteFunc(os.Environ(), func(entry string) bool {
		return strings.HasPrefix(entry, "KFERRY_") || strings.HasPrefix(entry, "NATS_")
	})
	for key, value := range env {
		all = append(all, key+"="+value)
	}
	return all
}

// Kill is kill -9; a process that has ended already is left alone.
func (p *Process) Kill() { p.t.Helper(); p.signal(syscall.SIGKILL); p.Wait(stopWithin) }

// Term asks the process to stop and does not wait for it.
func (p *Process) Term() { p.t.Helper(); p.signal(syscall.SIGTERM) }

// Pause freezes the process, Unpause lets it go on: a worker that loses its lease without noticing.
func (p *Process) Pause() { p.t.Helper(); p.signal(syscall.SIGSTOP) }

// Unpause ends a Pause.
func (p *Process) Unpause() { p.t.Helper(); p.signal(syscall.SIGCONT) }

// Wait returns the exit code once the process has ended, -1 where a signal ended it.
func (p *Process) Wait(within time.Duration) int {
	p.t.Helper()
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(within):
		p.t.Fatalf("%s has not ended within %v", p.cmd.Path, within)
		return 0
	}
}

// Pid is the process's id, for [UsageOf].
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// CPU is the processor time, user and system, of a process that has ended.
func (p *Process) CPU() time.Duration {
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
}

// Output is what the process has written so far, to either stream.
func (p *Process) Output() string {
	text, err := os.ReadFile(p.output)
	if err != nil {
		return fmt.Sprintf("(no output: %v)", err)
	}
	return string(text)
}

func (p *Process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatalf("%v to %s: %v", s, p.cmd.Path, err)
	}
}

// Usage is what a process has cost so far.
type Usage struct {
	CPU          time.Duration // user and system time
	PeakRSSBytes int64
}

// clockTick is the unit of CPU times in /proc: 100 a second on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// UsageOf reads the usage of a running process, of this machine or in a container alike.
func UsageOf(pid int) (Usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Usage{}, err
	}
	// The name in parentheses may hold spaces: fields count from behind it, utime and stime being 14 and 15 of the whole.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var u Usage
	for _, ticks := range fields[11:13] {
		n, err := strconv.ParseInt(ticks, 10, 64)
		if err != nil {
			return Usage{}, fmt.Errorf("stat of %d: %w", pid, err)
		}
		u.CPU += time.Duration(n) * clockTick
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Usage{}, err
	}
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	var kib int64
	if _, err := fmt.Sscan(peak, &kib); err != nil {
		return Usage{}, fmt.Errorf("peak memory of %d: %w", pid, err)
	}
	u.PeakRSSBytes = kib << 10
	return u, nil
}
