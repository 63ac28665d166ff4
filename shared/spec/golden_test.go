package spec_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kferry/kferry/shared/spec"
)

var update = flag.Bool("update", false, "write what comes out as what is expected; look at the difference then")

// TestFiles loads every file under testdata and compares flows, warnings and mistakes with the text beside it.
func TestFiles(t *testing.T) {
	for _, folder := range []string{"right", "wrong"} {
		files, err := filepath.Glob(filepath.Join("testdata", folder, "*.*"))
		if err != nil || len(files) == 0 {
			t.Fatal("no files in testdata", err)
		}
		for _, file := range files {
			if filepath.Ext(file) == ".txt" {
				continue
			}
			t.Run(filepath.Base(file), func(t *testing.T) {
				s, err := spec.Load([]string{file}, nil)
				if (err == nil) != (folder == "right") {
					t.Errorf("in folder %s, and yet: %v", folder, err)
				}
				expect(t, strings.TrimSuffix(file, filepath.Ext(file))+".txt", describe(s, err))
			})
		}
	}
}

func expect(t *testing.T, golden, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n%s\nwant:\n%s", golden, got, want)
	}
}

// describe is everything that Load says.
func describe(s spec.Spec, err error) string {
	var text strings.Builder
	for _, c := range s.Clusters {
		fmt.Fprintf(&text, "cluster %s at %s %v\n", c.Key(), strings.Join(c.BootstrapServers, " "), c.Config)
		if c.Login != nil {
			fmt.Fprintf(&text, "  spoken to by %s\n", c.Login.Access())
		}
	}
	for _, f := range s.Flows {
		describeFlow(&text, f)
	}
	for _, h := range s.Heartbeats {
		fmt.Fprintf(&text, "heartbeats %s every %s, replication factor %d\n", spec.FlowName(h.Source, h.Target), h.Interval, h.ReplicationFactor)
	}
	for _, warning := range s.Warnings {
		fmt.Fprintln(&text, "warning", warning)
	}
	if err != nil {
		fmt.Fprintln(&text, err)
	}
	return text.String()
}

func describeFlow(text *strings.Builder, f spec.Flow) {
	fmt.Fprintf(text, "flow %s\n", f.Name())
	for _, filter := range f.Filters {
		fmt.Fprintf(text, "  topics %s but not %s\n", filter.Topics, filter.Exclude)
	}
	fmt.Fprintf(text, "  orders becomes %s, replication factor %d\n", f.RemoteTopic("orders"), f.ReplicationFactor)
	fmt.Fprintf(text, "  start %s, %s, refresh %s, leases %d, state %s\n", f.Start, f.Isolation, f.Refresh, f.MaxLeases, f.State)
	fmt.Fprintf(text, "  offsets in %s, replication factor %d, key %s\n", f.OffsetsTopic, f.OffsetsReplicationFactor, f.Key("orders", 3))
	if limits := f.Limits.String(); limits != "none" {
		fmt.Fprintf(text, "  at most %s\n", limits)
	}
	fmt.Fprintf(text, "  settings but not %s\n", f.ConfigExclude)
	fmt.Fprintf(text, "  configs %+v, ACLs %+v, heartbeats %v, Connect group %s\n", f.Configs, f.ACLs, f.Heartbeats, f.ConnectGroup)
	fmt.Fprintf(text, "  offset-syncs %+v\n", f.Syncs)
	g := f.Groups
	fmt.Fprintf(text, "  groups %s but not %s, %s", g.Include, g.Exclude, g.State)
	fmt.Fprintf(text, ", checkpoints %v every %s in %s, replication factor %d", g.Checkpoints, g.CheckpointsInterval, g.CheckpointsTopic, g.CheckpointsReplicationFactor)
	fmt.Fprintf(text, ", sync %v every %s\n", g.Sync, g.SyncInterval)
}
