package spec

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"regexp"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// YAML is read as a tree of nodes rather than into structs: every message names a line, scalars of any type count as text
// ("-1", -1, 'false' and false are all written), and a key that nobody takes is known to be one. The parser is that of the
// Kubernetes tools, so a resource that kubectl takes is taken here too.

// A node is a place in a YAML document; the zero value is one that isn't there.
type node struct {
	file, path string
	yaml       *yaml.Node
}

// syntaxLine finds the line in the parser's messages: "yaml: line 3: did not find …".
var syntaxLine = regexp.MustCompile(`^yaml: line (\d+): (.*)`)

// documents splits a file into its documents; what follows a mistake in the syntax is not read.
func documents(file string, text []byte, r *report) []node {
	var docs []node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var doc yaml.Node
		err := decoder.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return docs
		}
		if err != nil {
			at := value{file: file, line: 1, path: "YAML"}
			reason := err.Error()
			if found := syntaxLine.FindStringSubmatch(reason); found != nil {
				at.line, _ = strconv.Atoi(found[1])
				reason = found[2]
			}
			r.wrongf(at, "%s; check the quotes, brackets and indentation around this line", reason)
			return docs
		}
		if len(doc.Content) == 1 && !isNull(doc.Content[0]) {
			docs = append(docs, node{file: file, yaml: doc.Content[0]})
		}
	}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func (n node) there() bool { return n.yaml != nil }

// at is the node's place, as a value without text.
func (n node) at() value {
	return value{file: n.file, line: n.yaml.Line, path: cmp.Or(n.path, "document")}
}

// target follows an alias ("*name") to what it stands for. An anchor can't be put on an alias, so there is one step at most.
func (n node) target() *yaml.Node {
	if n.yaml.Kind == yaml.AliasNode {
		return n.yaml.Alias
	}
	return n.yaml
}

// value is the node's text. Null counts as not set, as it does to Kubernetes.
func (n node) value(r *report) value {
	at, target := n.at(), n.target()
	if target.Kind != yaml.ScalarNode {
		r.wrongf(at, "a %s stands where text belongs; write a single value", kindName(target))
		return at
	}
	if !isNull(target) {
		at.text, at.set = target.Value, true
	}
	return at
}

// items are the elements of a list.
func (n node) items(r *report) []node {
	if !n.there() || isNull(n.target()) {
		return nil
	}
	if n.target().Kind != yaml.SequenceNode {
		r.wrongf(n.at(), "a %s stands where a list belongs; begin each element with '- '", kindName(n.target()))
		return nil
	}
	var items []node
	for i, item := range n.target().Content {
		if !r.visit(n) {
			return nil
		}
		items = append(items, node{n.file, fmt.Sprintf("%s[%d]", n.path, i), item})
	}
	return items
}

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "map"
	case yaml.SequenceNode:
		return "list"
	}
	return "single value"
}

// A mapping is a map whose keys are taken one by one, so that those which nobody takes can be named.
type mapping struct {
	node
	keys   []string // in the order of the file
	values map[string]node
	taken  map[string]bool
}

// mapping reads a map; one that isn't there is empty, and what isn't a map isn't there.
func (n node) mapping(r *report) mapping {
	m := mapping{node: n, values: map[string]node{}, taken: map[string]bool{}}
	if !n.there() || isNull(n.target()) {
		return m
	}
	if n.target().Kind != yaml.MappingNode {
		r.wrongf(n.at(), "a %s stands where a map belongs; write key: value", kindName(n.target()))
		m.yaml = nil
		return m
	}
	m.add(n.target(), r)
	m.merge(n.target(), r)
	return m
}

// add reads the keys that stand in the map itself.
func (m *mapping) add(from *yaml.Node, r *report) {
	for key, content := range pairs(from) {
		if !r.visit(m.node) {
			return
		}
		n := m.child(key.Value, content)
		if first, twice := m.values[key.Value]; twice {
			r.wrongf(n.at(), "is given twice, first in line %d; remove one of them", first.yaml.Line)
			continue
		}
		m.set(key.Value, n)
	}
}

func (m *mapping) set(key string, n node) {
	m.keys = append(m.keys, key)
	m.values[key] = n
}

func (m *mapping) child(key string, content *yaml.Node) node {
	path := key
	if m.path != "" {
		path = m.path + "." + key
	}
	return node{m.file, path, content}
}

const mergeTag = "!!merge"

// pairs yields the keys of a map and what they hold, without "<<".
func pairs(n *yaml.Node) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(key, content *yaml.Node) bool) {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Tag != mergeTag && !yield(n.Content[i], n.Content[i+1]) {
				return
			}
		}
	}
}

// maxMerges bounds what "<<" brings into one map: anchors can lead back to themselves, or double with each step.
const maxMerges = 100

// merge adds what "<<" brings in, where the map doesn't say otherwise. The map nearest to it wins.
func (m *mapping) merge(from *yaml.Node, r *report) {
	queue := merged(from)
	for taken := 0; len(queue) > 0; taken++ {
		next := m.child("<<", queue[0])
		if taken == maxMerges {
			r.wrongf(next.at(), "brings in more than %d maps; write the keys out", maxMerges)
			return
		}
		if next.target().Kind != yaml.MappingNode {
			r.wrongf(next.at(), "a %s stands where a map belongs; write <<: *anchor", kindName(next.target()))
			return
		}
		for key, content := range pairs(next.target()) {
			if !r.visit(next) {
				return
			}
			if _, known := m.values[key.Value]; !known {
				m.set(key.Value, m.child(key.Value, content))
			}
		}
		queue = append(queue[1:], merged(next.target())...)
	}
}

// merged lists what "<<" names in a map: another map, or several.
func merged(n *yaml.Node) []*yaml.Node {
	var all []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch content := n.Content[i+1]; {
		case n.Content[i].Tag != mergeTag:
		case content.Kind == yaml.SequenceNode:
			all = append(all, content.Content...)
		default:
			all = append(all, content)
		}
	}
	return all
}

// take returns what stands under a key.
func (m mapping) take(key string) node {
	m.taken[key] = true
	return m.values[key]
}

// text returns the single value under a key; where there is none, the map's own place under the key's path.
func (m mapping) text(key string, r *report) value {
	if n := m.take(key); n.there() {
		return n.value(r)
	}
	missing := value{file: m.file, path: m.child(key, nil).path}
	if m.there() {
		missing.line = m.yaml.Line
	}
	return missing
}

// rest are the keys that nobody took.
func (m mapping) rest() []string {
	return slices.DeleteFunc(slices.Clone(m.keys), func(key string) bool { return m.taken[key] })
}
