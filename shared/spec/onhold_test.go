package spec_test

import (
	"strings"
	"testing"

	"github.com/kferry/kferry/shared/spec"
)

func TestOnHold(t *testing.T) {
	o, err := spec.ParseOnHold("target_recreated=restart, retention_gap=hold,foreign_writer=skip")
	if err != nil || o.String() != "foreign_writer=skip,retention_gap=hold,target_recreated=restart" {
		t.Fatalf("%s, %v", o, err)
	}
	for reason, want := range map[string]spec.Action{
		"target_recreated": spec.ActionRestart, "retention_gap": spec.ActionHold, "foreign_writer": spec.ActionSkip, "source_recreated": spec.ActionHold,
	} {
		if got := o.For(reason); got != want {
			t.Errorf("%s: %s, want %s", reason, got, want)
		}
	}
	if got := (spec.OnHold)(nil).For("retention_gap"); got != spec.ActionSkip {
		t.Errorf("a retention gap is %s by default", got)
	}
	for text, want := range map[string]string{
		"":                                      "give a reason and what to do",
		"retention_gap":                         "like retention_gap=hold",
		"retention_gap=ignore":                  `retention_gap can't be "ignore"; give hold, skip or restart`,
		"retention_gaps=skip":                   "did you mean retention_gap?; reasons are foreign_writer, retention_gap, source_recreated, source_truncated, target_recreated, target_truncated",
		"sequence=skip":                         `no action can be set for "sequence"`,
		"foreign_writer=restart":                `foreign_writer can't be "restart"; give hold or skip`,
		"retention_gap=skip,retention_gap=hold": "retention_gap is both skip and hold",
		"retention_gap=skip,,source_truncated=hold": `"" is no pair`,
	} {
		if _, err := spec.ParseOnHold(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// A resource says it for each of its flows.
func TestOnHoldInAResource(t *testing.T) {
	const resource = `
kind: KafkaMirrorMaker2
spec:
  clusters:
    - {alias: a, bootstrapServers: 'a:1'}
    - {alias: b, bootstrapServers: 'b:1'}
  mirrors:
    - {sourceCluster: a, targetCluster: b, sourceConnector: {config: {kferry.on.hold: ONE}}}
    - {sourceCluster: b, targetCluster: a, sourceConnector: {}}
`
	s, err := spec.Load(nil, []string{"KFERRY_MIRROR=" + strings.Replace(resource, "ONE", "source_recreated=skip", 1)})
	if err != nil || len(s.Warnings) > 0 || s.Flows[0].OnHold.For("source_recreated") != spec.ActionSkip || s.Flows[1].OnHold.For("source_recreated") != spec.ActionHold {
		t.Errorf("%+v, %v", s, err)
	}
	_, err = spec.Load(nil, []string{"KFERRY_MIRROR=" + strings.Replace(resource, "ONE", "source=skip", 1)})
	if err == nil || !strings.Contains(err.Error(), `kferry.on.hold: "source=skip": no action can be set for "source"`) {
		t.Errorf("%v", err)
	}
	_, err = spec.Load(nil, []string{"KFERRY_MIRROR=" + resource, "KFERRY_ON_HOLD=retention_gap=hold"})
	if err == nil || !strings.Contains(err.Error(), "KFERRY_ON_HOLD: describes a flow, and so does KFERRY_MIRROR; unset one of them, or set kferry.on.hold in a sourceConnector's config there") {
		t.Errorf("%v", err)
	}
}
