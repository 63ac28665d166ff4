package testbed

import (
	"bytes"
	"time"

	"github.com/testcontainers/testcontainers-go"
)

// judgeWithin is for one program: the start of a JVM and some thousand cases.
const judgeWithin = 2 * time.Minute

// Judge runs one of the Java programs under images/judge, a class's name and its arguments, and returns what it wrote to
// standard output. A JVM takes half a second to start: give it many cases at once.
func Judge(t T, input []byte, command ...string) []byte {
	t.Helper()
	c, err := startContainer(t, "judge "+command[0], "kferry/judge",
		testcontainers.WithCmd(command...),
		testcontainers.WithFiles(testcontainers.ContainerFile{
			Reader: bytes.NewReader(input), ContainerFilePath: "/tmp/input", FileMode: 0o644,
		}))
	if err != nil {
		t.Fatalf("%v", err)
	}
	if code := c.Wait(judgeWithin); code != 0 {
		t.Fatalf("judge %s: exit code %d: %s", command[0], code, c.Output())
	}
	return c.file("/tmp/output")
}
