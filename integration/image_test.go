package integration

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/kferry/kferry/integration/testbed"
	"github.com/kferry/kferry/shared/local"
)

// The image runs where nothing is allowed but its own: as a user that it doesn't know, on a file system that can't be written to, without
// a capability. It copies there as anywhere, and holds nothing that would help whoever gets in.
func TestImage(t *testing.T) {
	const records = 100
	shell, err := exec.CommandContext(t.Context(), "docker", "run", "--rm", "--entrypoint", "/bin/sh", "kferry:test", "-c", "true").CombinedOutput()
	if err == nil || !strings.Contains(string(shell), "no such file or directory") {
		t.Errorf("a shell in the image: %v, %s", err, shell)
	}
	for name, run := range map[string]func(args []string, env map[string]string) *testbed.Container{
		"its own user": func(args []string, env map[string]string) *testbed.Container { return testbed.Kferry(t, args, env) },
		"another user": func(args []string, env map[string]string) *testbed.Container {
			return testbed.KferryAs(t, "12345:0", args, env)
		},
	} {
		t.Run(name, func(t *testing.T) {
			version := run([]string{"--version"}, map[string]string{})
			if code := version.Wait(exitsWithin); code != 0 || strings.TrimSpace(version.Output()) != "kferry version test" {
				t.Errorf("--version: exit code %d and %q", code, version.Output())
			}
			env, err := local.Start(local.Setup{Clusters: []local.Cluster{{Alias: "A", Topics: map[string]int32{"orders": 2}}, {Alias: "B"}}})
			if err != nil {
				t.Fatal(err)
			}
			defer env.Close()
			writer, err := env.Writer("A", "orders")
			if err != nil {
				t.Fatal(err)
			}
			defer writer.Close()
			if err := writer.Write(t.Context(), records); err != nil {
				t.Fatal(err)
			}
			copying := run([]string{"run", "--until-caught-up", "--http", "off"}, map[string]string{
				"KFERRY_SOURCE_ALIAS": "A", "KFERRY_SOURCE_BOOTSTRAP_SERVERS": strings.Join(env.Spec("A").BootstrapServers, ","),
				"KFERRY_TARGET_ALIAS": "B", "KFERRY_TARGET_BOOTSTRAP_SERVERS": strings.Join(env.Spec("B").BootstrapServers, ","),
				"KFERRY_TOPICS": "orders",
			})
			if code := copying.Wait(copyWithin); code != 0 || env.Records("B", "A.orders") != records {
				t.Errorf("exit code %d, %d records, and\n%s", code, env.Records("B", "A.orders"), copying.Output())
			}
		})
	}
}
