package spec_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-multierror"
	"pgregory.net/rapid"

	"github.com/kferry/kferry/shared/spec"
)

// FuzzLoad gives any text as a resource or an mm2.properties: it is read or refused, with a place for each mistake, and what is read holds what
// the package promises.
func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/*/*.yaml")
	more, err2 := filepath.Glob("testdata/*/*.properties")
	if err != nil || err2 != nil || len(more) == 0 {
		f.Fatal(err, err2, more)
	}
	for _, file := range append(files, more...) {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add("a: &a {<<: *a}\nspec: *a\n")
	f.Add("spec: &s\n  <<: [*s, *s, *s]\n  mirrors: [*s]\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := spec.Load(nil, []string{"KFERRY_MIRROR=" + text + "\n"})
		checkPromises(t, s, err)
		if err != nil {
			return
		}
		for _, format := range spec.Formats { // what can't be said is an error, whatever was read
			if text, _, err := spec.Write(s, format, false); (text == "") != (err != nil) {
				t.Errorf("%s: %q, %v", format, text, err)
			}
		}
	})
}

type failer interface{ Errorf(string, ...any) }

func checkPromises(t failer, s spec.Spec, err error) {
	if err != nil {
		var all *multierror.Error
		if !errors.As(err, &all) || len(all.Errors) == 0 {
			t.Errorf("not a report: %v", err)
			return
		}
		for _, mistake := range all.Errors {
			if place, what, found := strings.Cut(mistake.Error(), ": "); !found || place == "" || what == "" {
				t.Errorf("no place: %q", mistake)
			}
		}
		return
	}
	if len(s.Flows) == 0 {
		t.Errorf("neither flows nor mistakes")
	}
	for _, flow := range s.Flows {
		if len(s.Cluster(flow.SourceKey()).BootstrapServers) == 0 || len(s.Cluster(flow.TargetKey()).BootstrapServers) == 0 {
			t.Errorf("%s has a cluster without address", flow.Name())
		}
		flow.Selects("orders")
		if flow.RemoteTopic("orders") == "" || flow.Digest() == "" || flow.Refresh <= 0 || len(flow.Key("orders", 0)) == 0 {
			t.Errorf("incomplete: %+v", flow)
		}
		if flow.State == "" || flow.Groups.State == "" || flow.State == spec.Absent && flow.Groups.State == spec.Absent || flow.ConnectGroup == "" ||
			min(flow.Configs.Interval, flow.ACLs.Interval, flow.Groups.CheckpointsInterval, flow.Groups.SyncInterval) <= 0 ||
			flow.Syncs.Topic == "" || flow.Groups.CheckpointsTopic == "" {
			t.Errorf("incomplete: %+v", flow)
		}
	}
	for _, h := range s.Heartbeats {
		if h.Source == h.Target || h.Interval <= 0 || len(s.Cluster(h.Source).BootstrapServers) == 0 || len(s.Cluster(h.TargetKey()).BootstrapServers) == 0 {
			t.Errorf("incomplete: %+v", h)
		}
	}
}

// TestAnyVariables gives any text to any variables.
func TestAnyVariables(t *testing.T) {
	var names []string
	for _, v := range spec.Variables() {
		if v.Name != "KFERRY_MIRROR" {
			names = append(names, v.Name)
		}
	}
	texts := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "1", "-1", "5s", "a:1", "a:1,b:2", ".*", "identity", "latest", "(?!a)b"}))
	rapid.Check(t, func(t *rapid.T) {
		environ := plain()
		for name, text := range rapid.MapOfN(rapid.SampledFrom(names), texts, 0, 4).Draw(t, "variables") {
			environ = append(environ, name+"="+text)
		}
		s, err := spec.Load(nil, environ)
		checkPromises(t, s, err)
	})
}
