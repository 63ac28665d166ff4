package spec_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/kferry/kferry/shared/spec"
)

// Whatever stands where something else belongs, it is a mistake with a line and a place, or of no effect.
func TestAnyShape(t *testing.T) {
	files, err := filepath.Glob("testdata/right/*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	nowhere := regexp.MustCompile(`:0: `)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var doc yaml.Node
		if err := yaml.Unmarshal(text, &doc); err != nil { // of several the first
			t.Fatal(err)
		}
		each(&doc, func(n *yaml.Node) {
			was := *n
			for _, other := range []string{"x", "null", "[x]", "{x: y}"} {
				var o yaml.Node
				if err := yaml.Unmarshal([]byte(other), &o); err != nil {
					t.Fatal(err)
				}
				*n = *o.Content[0]
				written, err := yaml.Marshal(&doc)
				if err != nil {
					continue // an anchor is gone that something refers to
				}
				if s, err := spec.Load(nil, []string{"KFERRY_MIRROR=" + string(written) + "\n"}); err != nil && nowhere.MatchString(err.Error()) || len(s.Warnings) > 0 && nowhere.MatchString(s.Warnings[0]) {
					t.Errorf("%s in place of line %d of %s: %v %q", other, was.Line, file, err, s.Warnings)
				}
			}
			*n = was
		})
	}
}

// each does something with every value of a document.
func each(n *yaml.Node, do func(n *yaml.Node)) {
	for i, child := range n.Content {
		if n.Kind != yaml.MappingNode || i%2 == 1 {
			each(child, do)
			if n.Kind != yaml.DocumentNode {
				do(child)
			}
		}
	}
}
