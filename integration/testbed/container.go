package testbed

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/exec"
	"github.com/testcontainers/testcontainers-go/log"
)

const (
	engineWithin = 2 * time.Minute  // one request to the engine, the creation of a container included
	stopWithin   = 30 * time.Second // an orderly stop, before the engine kills
	logLines     = 80               // of each container, when a test failed
)

// Container is a server in a container on the host's network. It can be stopped, killed, paused and started again, and
// keeps its files and its address throughout.
type Container struct {
	t    T
	name string
	ctr  *testcontainers.DockerContainer
}

// startContainer runs an image and binds the container to the test.
func startContainer(t T, name, image string, opts ...testcontainers.ContainerCustomizer) (*Container, error) {
	ctx, cancel := context.WithTimeout(context.Background(), engineWithin)
	defer cancel()
	opts = append([]testcontainers.ContainerCustomizer{
		testcontainers.WithHostConfigModifier(func(h *apicontainer.HostConfig) { h.NetworkMode = "host" }),
		testcontainers.WithLabels(map[string]string{ownerLabel: owner()}),
		testcontainers.WithLogger(quiet{}),
	}, opts...)
	ctr, err := testcontainers.Run(ctx, image, opts...)
	t.Cleanup(func() { _ = testcontainers.TerminateContainer(ctr, testcontainers.StopTimeout(0)) })
	if err != nil {
		return nil, fmt.Errorf("start %s (%s): %w", name, image, err)
	}
	c := &Container{t: t, name: name, ctr: ctr}
	t.Cleanup(c.logIfFailed) // registered last, so it runs before the container is removed
	return c, nil
}

// Stop ends the server in order.
func (c *Container) Stop() {
	c.t.Helper()
	within := stopWithin
	c.must("stop", func(ctx context.Context, _ *client.Client) error { return c.ctr.Stop(ctx, &within) })
}

// Kill is kill -9.
func (c *Container) Kill() { c.t.Helper(); c.signal("SIGKILL"); c.Wait(engineWithin) }

// Term asks the server to stop and does not wait for it.
func (c *Container) Term() { c.t.Helper(); c.signal("SIGTERM") }

// Start runs the server again, with the files it had.
func (c *Container) Start() {
	c.t.Helper()
	c.must("start", func(ctx context.Context, _ *client.Client) error { return c.ctr.Start(ctx) })
}

// Pause freezes the server: its connections stay open and nothing answers. An engine on a busy machine may not get hold of all of its threads
// at one go.
func (c *Container) Pause() {
	c.t.Helper()
	c.must("pause", func(ctx context.Context, docker *client.Client) error {
		return poll(ctx, engineWithin, func() error {
			_, err := docker.ContainerPause(ctx, c.ctr.ID, client.ContainerPauseOptions{})
			if state, _ := c.ctr.State(ctx); err != nil && state != nil && state.Paused {
				return nil
			}
			return err
		})
	})
}

// Unpause lets a frozen server go on where it was.
func (c *Container) Unpause() {
	c.t.Helper()
	c.must("unpause", func(ctx context.Context, docker *client.Client) error {
		_, err := docker.ContainerUnpause(ctx, c.ctr.ID, client.ContainerUnpauseOptions{})
		return err
	})
}

// Wait returns the exit code once the server has ended.
func (c *Container) Wait(within time.Duration) int {
	c.t.Helper()
	var state *apicontainer.State
	err := poll(context.Background(), within, func() (err error) {
		if state, err = c.ctr.State(context.Background()); err == nil && state.Running {
			err = fmt.Errorf("still running")
		}
		return err
	})
	if err != nil {
		c.t.Fatalf("wait for %s: %v", c.name, err)
	}
	return state.ExitCode
}

// Pid is the server's process on this machine, for [UsageOf].
func (c *Container) Pid() int {
	c.t.Helper()
	state, err := c.ctr.State(context.Background())
	if err != nil {
		c.t.Fatalf("pid of %s: %v", c.name, err)
	}
	return state.Pid
}

// Output is what the server has written so far, over all its starts.
func (c *Container) Output() string {
	logs, err := c.ctr.Logs(context.Background())
	if err != nil {
		return fmt.Sprintf("(no logs of %s: %v)", c.name, err)
	}
	defer logs.Close()
	text, _ := io.ReadAll(logs)
	return string(text)
}

// Exec runs a shell command inside the container and returns what it wrote.
func (c *Container) Exec(command string) string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), engineWithin)
	defer cancel()
	code, reader, err := c.ctr.Exec(ctx, []string{"sh", "-c", command}, exec.Multiplexed())
	if err != nil {
		c.t.Fatalf("%s in %s: %v", command, c.name, err)
	}
	output, _ := io.ReadAll(reader)
	if code != 0 {
		c.t.Fatalf("%s in %s: exit code %d: %s", command, c.name, code, output)
	}
	return string(output)
}

// put has a file in the container.
func (c *Container) put(name string, content []byte) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), engineWithin)
	defer cancel()
	if err := c.ctr.CopyToContainer(ctx, content, name, 0o644); err != nil {
		c.t.Fatalf("%s to %s: %v", name, c.name, err)
	}
}

// file is what a file in the container holds, which may have ended.
func (c *Container) file(name string) []byte {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), engineWithin)
	defer cancel()
	file, err := c.ctr.CopyFileFromContainer(ctx, name)
	if err != nil {
		c.t.Fatalf("%s of %s: %v", name, c.name, err)
	}
	defer file.Close()
	content, err := io.ReadAll(file)
	if err != nil {
		c.t.Fatalf("%s of %s: %v", name, c.name, err)
	}
	return content
}

func (c *Container) signal(name string) {
	c.t.Helper()
	c.must(name, func(ctx context.Context, docker *client.Client) error {
		_, err := docker.ContainerKill(ctx, c.ctr.ID, client.ContainerKillOptions{Signal: name})
		return err
	})
}

// must does one thing to the container or fails the test.
func (c *Container) must(what string, do func(context.Context, *client.Client) error) {
	c.t.Helper()
	if err := withEngine(context.Background(), do); err != nil {
		c.t.Fatalf("%s %s: %v", what, c.name, err)
	}
}

func (c *Container) logIfFailed() {
	if c.t.Failed() {
		c.t.Logf("--- last lines of %s ---\n%s", c.name, lastLines(c.Output(), logLines))
	}
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// configure has to come before the first use of testcontainers, which reads its settings once.
func configure() {
	_ = os.Setenv("TESTCONTAINERS_RYUK_DISABLED", "true")      // its image may not be there to pull; removeLeftovers does its job
	_ = os.Setenv("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1") // also where this runs in a container itself
}

// withEngine lends a connection to the container engine.
func withEngine(ctx context.Context, do func(context.Context, *client.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, engineWithin)
	defer cancel()
	docker, err := testcontainers.NewDockerClientWithOpts(ctx)
	if err != nil {
		return err
	}
	defer docker.Close()
	return do(ctx, docker.Client)
}

// ownerLabel marks a container with the process it belongs to, as host/pid.
const ownerLabel = "kferry.testbed"

func owner() string {
	host, _ := os.Hostname()
	return host + "/" + strconv.Itoa(os.Getpid())
}

// removeLeftovers removes containers whose test process on this host was killed before it could. It leaves those of
// test processes that run beside this one.
func removeLeftovers(ctx context.Context) error {
	host, _ := os.Hostname()
	return withEngine(ctx, func(ctx context.Context, docker *client.Client) error {
		found, err := docker.ContainerList(ctx, client.ContainerListOptions{
			All:     true,
			Filters: make(client.Filters).Add("label", ownerLabel),
		})
		if err != nil {
			return err
		}
		for _, ctr := range found.Items {
			pid, ours := strings.CutPrefix(ctr.Labels[ownerLabel], host+"/")
			if n, err := strconv.Atoi(pid); !ours || err != nil || syscall.Kill(n, 0) == nil {
				continue
			}
			// Another test process may be removing it as well: that it is gone is all that counts.
			_, _ = docker.ContainerRemove(ctx, ctr.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		}
		return nil
	})
}

// quiet drops testcontainers' account of every step; errors say what went wrong.
type quiet struct{}

var _ log.Logger = quiet{}

func (quiet) Printf(string, ...any) {}

// Ports come from below the range that systems take ephemeral ports from. A server that is down for a moment would
// otherwise find its port taken by some client's connection when it comes back.
const (
	firstPort = 20000
	lastPort  = 32000
)

// taken holds the ports given out by this process; a server may be down, and its port looks free then.
var taken struct {
	sync.Mutex
	ports map[int]bool
}

// freePort picks a port that nobody listens on. Another process can still be faster: who starts a server tries again.
func freePort(t T) int {
	t.Helper()
	taken.Lock()
	defer taken.Unlock()
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		if taken.ports[port] {
			continue
		}
		listener, err := net.Listen("tcp", address(port))
		if err != nil {
			continue
		}
		_ = listener.Close()
		if taken.ports == nil {
			taken.ports = map[int]bool{}
		}
		taken.ports[port] = true
		return port
	}
	t.Fatalf("no free port between %d and %d", firstPort, lastPort)
	return 0
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
