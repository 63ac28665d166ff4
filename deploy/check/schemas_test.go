// Package check holds what is in deploy/ against the schemas of those that read it: Kubernetes, KEDA, Knative, Compose, CloudFormation. It is a
// module of its own, so that kferry's has none of that.
package check

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// Schemas come out of the modules of those that they belong to. Only files of theirs are read, so they are no dependencies: go downloads and
// verifies them, and keeps them.
const (
	kubernetes = "k8s.io/kubernetes@v1.37.1"
	keda       = "github.com/kedacore/keda/v2@v2.21.0"
	knative    = "knative.dev/serving@v0.51.0"
	operator   = "github.com/prometheus-operator/prometheus-operator@v0.94.1"
)

var modules sync.Map // folders by module

// folder is where a module's files are.
func folder(t *testing.T, module string) string {
	t.Helper()
	load, _ := modules.LoadOrStore(module, sync.OnceValues(func() (string, error) {
		command := exec.Command("go", "mod", "download", "-json", module)
		command.Dir = t.TempDir() // outside of any module, whose go.sum it would look at
		answer, err := command.Output()
		var told struct{ Dir, Error string }
		if json.Unmarshal(answer, &told) != nil || told.Error != "" || err != nil {
			return "", fmt.Errorf("download %s: %s %w", module, told.Error, err)
		}
		return told.Dir, nil
	}))
	dir, err := load.(func() (string, error))()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// builtIn are the files of Kubernetes' own kinds, by group and version.
var builtIn = map[string]string{
	"v1": "api__v1", "apps/v1": "apis__apps__v1", "batch/v1": "apis__batch__v1",
	"policy/v1": "apis__policy__v1", "networking.k8s.io/v1": "apis__networking.k8s.io__v1",
}

// definitions are the files that define other kinds, by group and kind.
var definitions = map[string][2]string{
	"keda.sh/ScaledObject":             {keda, "config/crd/bases/keda.sh_scaledobjects.yaml"},
	"keda.sh/ScaledJob":                {keda, "config/crd/bases/keda.sh_scaledjobs.yaml"},
	"serving.knative.dev/Service":      {knative, "config/core/300-resources/service.yaml"},
	"monitoring.coreos.com/PodMonitor": {operator, "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml"},
}

var schemas sync.Map // compiled, by apiVersion and kind

// valid says what the API server would say to an object's form, and to fields that it doesn't know.
func valid(t *testing.T, o object) error {
	t.Helper()
	load, _ := schemas.LoadOrStore(o.is(), sync.OnceValue(func() *jsonschema.Schema { return schemaOf(t, o) }))
	return load.(func() *jsonschema.Schema)().Validate(map[string]any(o))
}

func schemaOf(t *testing.T, o object) *jsonschema.Schema {
	t.Helper()
	version, kind := o.text("apiVersion"), o.text("kind")
	group, _, _ := strings.Cut(version, "/")
	if file, is := builtIn[version]; is {
		all := read(t, filepath.Join(folder(t, kubernetes), "api/openapi-spec/v3", file+"_openapi.json"))
		for name, schema := range at(all, "components", "schemas").(map[string]any) {
			for _, of := range list(at(schema, "x-kubernetes-group-version-kind")) {
				if at(of, "kind") == kind && strings.HasSuffix(name, "."+kind) {
					return compile(t, all, "#/components/schemas/"+name)
				}
			}
		}
	}
	if at, is := definitions[group+"/"+kind]; is {
		return compile(t, definition(t, filepath.Join(folder(t, at[0]), at[1]), version), "")
	}
	t.Fatalf("%s is a kind without a schema; add where it is to this table", o.is())
	return nil
}

// definition is the schema of one version in a CustomResourceDefinition.
func definition(t *testing.T, file, version string) any {
	t.Helper()
	for _, v := range list(at(read(t, file), "spec", "versions")) {
		if strings.HasSuffix(version, "/"+at(v, "name").(string)) {
			return at(v, "schema", "openAPIV3Schema")
		}
	}
	t.Fatalf("%s has no %s", file, version)
	return nil
}

func compile(t *testing.T, all any, below string) *jsonschema.Schema {
	t.Helper()
	closed(all)
	c := jsonschema.NewCompiler()
	if err := c.AddResource("file:///schema.json", all); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("file:///schema.json" + below)
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

// closed has schemas refuse fields that they don't list. API servers drop those, with a warning at best.
func closed(schema any) {
	switch s := schema.(type) {
	case map[string]any:
		if s["x-kubernetes-int-or-string"] == true {
			delete(s, "type")
		}
		_, lists := s["properties"].(map[string]any)
		_, others := s["additionalProperties"]
		if lists && !others && s["x-kubernetes-preserve-unknown-fields"] != true {
			s["additionalProperties"] = false
			if s["x-kubernetes-embedded-resource"] == true || at(s, "properties", "kind") != nil {
				for _, name := range []string{"apiVersion", "kind", "metadata"} {
					if at(s, "properties", name) == nil {
						s["properties"].(map[string]any)[name] = true
					}
				}
			}
		}
		for _, inner := range s {
			closed(inner)
		}
	case []any:
		for _, inner := range s {
			closed(inner)
		}
	}
}

// read decodes a file of YAML or JSON.
func read(t *testing.T, file string) (decoded any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err == nil {
		err = yaml.Unmarshal(text, &decoded)
	}
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return decoded
}

// An object is one of Kubernetes'.
type object map[string]any

func (o object) text(path ...string) string {
	text, _ := at(map[string]any(o), path...).(string)
	return text
}

func (o object) is() string { return o.text("apiVersion") + " " + o.text("kind") }

func (o object) String() string { return o.text("kind") + " " + o.text("metadata", "name") }

// at is what stands at a path of maps, nil where nothing does.
func at(of any, path ...string) any {
	for _, name := range path {
		switch m := of.(type) {
		case map[string]any:
			of = m[name]
		case object:
			of = m[name]
		default:
			return nil
		}
	}
	return of
}

func list(of any) []any {
	all, _ := of.([]any)
	return all
}
