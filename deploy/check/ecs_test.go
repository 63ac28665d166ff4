package check

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const ecsTemplate = "../ecs/kferry.yaml"

// linter is CloudFormation's: installed, or where integration/setup.sh has put it.
func linter(t *testing.T) string {
	t.Helper()
	if path, err := exec.LookPath("cfn-lint"); err == nil {
		return path
	}
	path, err := filepath.Abs("../../build/cfn-lint/bin/cfn-lint")
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("no cfn-lint: pip install cfn-lint, or run integration/setup.sh (%v)", err)
	}
	return path
}

// One call looks at the template and at a mistake, since most of the time goes into its start.
func TestECS(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	text := "Resources: {Task: {Type: AWS::ECS::TaskDefinition, Properties: {ContainerDefinitions: [{Name: x, Image: x, StopTimout: 30}]}}}\n"
	if err := os.WriteFile(bad, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	said, err := exec.CommandContext(t.Context(), linter(t), "--format", "parseable", "--non-zero-exit-code", "informational", ecsTemplate, bad).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !strings.Contains(string(said), bad) {
		t.Errorf("cfn-lint finds no mistake where there is one: %v\n%s", err, said)
	}
	for line := range strings.Lines(string(said)) {
		if !strings.HasPrefix(line, bad) {
			t.Errorf("cfn-lint: %s", line)
		}
	}
}

// CloudFormation takes no anchors and aliases, which cfn-lint follows.
func TestECSTemplateHasNoAliases(t *testing.T) {
	text, err := os.ReadFile(ecsTemplate)
	if err != nil {
		t.Fatal(err)
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		if n.Anchor != "" || n.Kind == yaml.AliasNode {
			t.Errorf("line %d: an anchor or alias", n.Line)
		}
		for _, inner := range n.Content {
			walk(inner)
		}
	}
	walk(&root)
}

// What the policies look at is what coordinators write.
func TestECSFollowsWhatIsWritten(t *testing.T) {
	text, err := os.ReadFile(ecsTemplate)
	if err != nil {
		t.Fatal(err)
	}
	followed := regexp.MustCompile(`Namespace: kferry, MetricName: (\w+), Dimensions: \[\{Name: (\w+),`).FindAllStringSubmatch(string(text), -1)
	if len(followed) != 3 || !holds(t, "../../coordinator/emf.go", `EMFNamespace = "kferry"`) {
		t.Errorf("the policies follow %q", followed)
	}
	for _, names := range followed {
		if !holds(t, "../../coordinator/emf.go", `{"`+names[1]+`", "`) || !holds(t, "../../coordinator/emf.go", `[][]string{{"`+names[2]+`"}}`) {
			t.Errorf("nobody writes %s by %s", names[1], names[2])
		}
	}
}

// README's command gives every parameter that has to be given, and no other that isn't there.
func TestECSParametersAreThoseOfReadme(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, command, _ := strings.Cut(string(text), "--parameter-overrides ")
	command, _, _ = strings.Cut(command, "\n")
	given := map[string]bool{}
	for word := range strings.FieldsSeq(command) {
		name, _, _ := strings.Cut(word, "=")
		given[name] = true
	}
	for name, parameter := range at(read(t, ecsTemplate), "Parameters").(map[string]any) {
		if at(parameter, "Default") == nil && !given[name] {
			t.Errorf("README's command lacks %s", name)
		}
		delete(given, name)
	}
	if len(given) > 0 {
		t.Errorf("README's command has %v, which the template hasn't", given)
	}
}
