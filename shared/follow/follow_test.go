package follow_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/kferry/kferry/shared/follow"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

func flow(change ...func(*spec.Flow)) spec.Flow {
	f := spec.Flow{
		Source: "A", Target: "B", Policy: mm2.DefaultPolicy{}, ConfigExclude: patterns(strings.Join(mm2.ConfigPropertiesExcludeDefault, ",")),
		Filters: []spec.Filter{{Topics: patterns(".*"), Exclude: patterns("secret.*")}},
		Configs: spec.ConfigSync{Enabled: true, Overrides: true}, ACLs: spec.ACLSync{Enabled: true},
	}
	for _, c := range change {
		c(&f)
	}
	return f
}

func patterns(text string) spec.Patterns {
	p, err := spec.ParsePatterns(text)
	if err != nil {
		panic(err)
	}
	return p
}

func sourceDefaults(f *spec.Flow) { f.Configs.SourceDefaults = true }
func noOverrides(f *spec.Flow)    { f.Configs.Overrides = false }
func identity(f *spec.Flow)       { f.Policy = mm2.IdentityPolicy{} }
func revoking(f *spec.Flow)       { f.ACLs.Revoke = true }

// entries reads settings like "topic:retention.ms=5"; what stands before the colon is where the value is from.
func entries(texts ...string) (all []kafka.ConfigEntry) {
	for _, text := range texts {
		origin, setting, _ := strings.Cut(text, ":")
		name, value, _ := strings.Cut(setting, "=")
		e := kafka.ConfigEntry{Name: name, Value: value, Source: kafka.ConfigSource(origin)}
		switch origin {
		case "sensitive":
			e.Source, e.Sensitive = kafka.SourceTopic, true
		case "read-only":
			e.Source, e.ReadOnly = kafka.SourceTopic, true
		}
		all = append(all, e)
	}
	return all
}

// settings is what is written, as "retention.ms=5" or "-retention.ms".
func settings(c follow.Change) (all []string) {
	for key, value := range c.Set {
		all = append(all, key+"="+value)
	}
	for _, key := range c.Remove {
		all = append(all, "-"+key)
	}
	slices.Sort(all)
	return all
}

// MirrorMaker's testConfigPropertyFiltering, …WithAlterConfigs, …AndSourceDefault and testNewTopicConfigs: what follows, and what
// stays behind.
func TestConfigPropertyFiltering(t *testing.T) {
	source := entries("topic:retention.ms=5", "topic:min.insync.replicas=2", "default:cleanup.policy=delete",
		"dynamic-broker:max.message.bytes=9", "static-broker:segment.bytes=7", "sensitive:password=", "read-only:fixed=1", "topic:vendor.tier=on")
	target := entries("default:retention.ms=1", "default:min.insync.replicas=1", "default:cleanup.policy=compact",
		"default:max.message.bytes=1", "default:segment.bytes=1", "default:password=", "default:fixed=0")
	for _, c := range []struct {
		name string
		flow spec.Flow
		want []string
	}{
		{"settings of the topic", flow(), []string{"retention.ms=5"}},
		{"a pattern of one's own", flow(func(f *spec.Flow) { f.ConfigExclude = patterns(`retention\..*`) }), []string{"min.insync.replicas=2"}},
		{"the source's defaults", flow(sourceDefaults), []string{"cleanup.policy=delete", "max.message.bytes=9", "retention.ms=5", "segment.bytes=7"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := settings(follow.Settings(c.flow, source, target, follow.Note{})); !slices.Equal(got, c.want) {
				t.Errorf("writes %q, want %q", got, c.want)
			}
		})
	}
	if got := follow.Unknown(flow(), source, target); !slices.Equal(got, []string{"vendor.tier"}) {
		t.Errorf("unknown to the target: %q", got)
	}
}

// A story of one setting: at each step what the source and the copy say, what is written, and what is remembered.
func TestSettingsAreComparedWithWhatWasApplied(t *testing.T) {
	for _, c := range []struct {
		name         string
		change       func(*spec.Flow)
		source, copy string
		applied      string
		refused      follow.Refusal
		want         string
		remembered   string
	}{
		{name: "new", source: "topic:k=1", copy: "default:k=0", want: "k=1", remembered: "1"},
		{name: "there by default, but not for good", source: "topic:k=1", copy: "default:k=1", want: "k=1", remembered: "1"},
		{name: "there already", source: "topic:k=1", copy: "topic:k=1", remembered: "1"},
		{name: "altered on the target", source: "topic:k=1", copy: "topic:k=2", applied: "1", want: "k=1", remembered: "1"},
		{name: "removed on the target", source: "topic:k=1", copy: "default:k=0", applied: "1", want: "k=1", remembered: "1"},
		{name: "changed on the source", source: "topic:k=3", copy: "topic:k=1", applied: "1", want: "k=3", remembered: "3"},
		{name: "removed on the source", source: "default:k=0", copy: "topic:k=1", applied: "1", want: "-k"},
		{name: "removed on the source, where a broker has it now", source: "dynamic-broker:k=1", copy: "topic:k=1", applied: "1", want: "-k"},
		{name: "removed on both", source: "default:k=0", copy: "default:k=0", applied: "1"},
		{name: "removed on the source, altered on the target", source: "default:k=0", copy: "topic:k=2", applied: "1"},
		{name: "set on the target alone", source: "default:k=0", copy: "topic:k=2"},
		{name: "likewise, unwanted", change: noOverrides, source: "default:k=0", copy: "topic:k=2", want: "-k"},
		{name: "likewise, of a kind that the source doesn't know", change: noOverrides, source: "default:other=0", copy: "topic:k=2"},
		{name: "likewise, excluded", change: noOverrides, source: "default:min.insync.replicas=1", copy: "topic:min.insync.replicas=2"},
		{name: "widened when the copy was created", change: noOverrides, source: "default:max.message.bytes=9", copy: "topic:max.message.bytes=9"},
		{name: "a limit that was removed on the source", source: "static-broker:max.message.bytes=9", copy: "topic:max.message.bytes=1", applied: "1", want: "max.message.bytes=9"},
		{name: "likewise, as wide as the source's", source: "static-broker:max.message.bytes=1", copy: "topic:max.message.bytes=1", applied: "1"},
		{name: "a default of the source", source: "dynamic-broker:k=1", copy: "default:k=0"},
		{name: "a default of the source that is wanted", change: sourceDefaults, source: "default:k=1", copy: "topic:k=2", want: "k=1", remembered: "1"},
		{name: "likewise, the target's as well", change: sourceDefaults, source: "default:k=1", copy: "static-broker:k=1"},
		{name: "no longer wanted", source: "default:k=1", copy: "topic:k=1", applied: "1", want: "-k"},
		{name: "excluded since", change: func(f *spec.Flow) { f.ConfigExclude = patterns("k") }, source: "topic:k=1", copy: "topic:k=1", applied: "1"},
		{name: "refused", source: "topic:k=1", copy: "default:k=0", refused: follow.Refusal{Value: "1", Why: "no"}},
		{name: "another value was refused", source: "topic:k=2", copy: "default:k=0", refused: follow.Refusal{Value: "1", Why: "no"}, want: "k=2", remembered: "2"},
		{name: "its removal was refused", source: "default:k=0", copy: "topic:k=1", applied: "1", refused: follow.Refusal{Removed: true, Why: "no"}, remembered: "1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := flow()
			if c.change != nil {
				c.change(&f)
			}
			note := follow.Note{Settings: map[string]string{}, Refused: map[string]follow.Refusal{}}
			key := entries(c.copy)[0].Name
			if c.applied != "" {
				note.Settings[key] = c.applied
			}
			if c.refused.Why != "" {
				note.Refused[key] = c.refused
			}
			got := follow.Settings(f, entries(c.source), entries(c.copy), note)
			if written := strings.Join(settings(got), " "); written != c.want {
				t.Errorf("writes %q, want %q", written, c.want)
			}
			if is := got.Note.Settings[key]; is != c.remembered {
				t.Errorf("remembers %q, want %q", is, c.remembered)
			}
			if c.want == "" && !maps.Equal(got.Note.Refused, note.Refused) {
				t.Errorf("refusals %v became %v", note.Refused, got.Note.Refused)
			}
		})
	}
}

// right reads "alice ALLOW READ orders", on any host.
func right(text string) kafka.ACL {
	words := strings.Fields(text)
	a := kafka.ACL{Principal: "User:" + words[0], Host: "*", Permission: words[1], Operation: words[2], Topic: words[3], Pattern: kafka.ACLLiteral}
	if prefix, is := strings.CutSuffix(a.Topic, "…"); is {
		a.Topic, a.Pattern = prefix, kafka.ACLPrefixed
	}
	return a
}

func rights(texts ...string) (all []kafka.ACL) {
	for _, text := range texts {
		all = append(all, right(text))
	}
	return all
}

// MirrorMaker's testAclFiltering and testAclTransformation.
func TestACLFilteringAndTransformation(t *testing.T) {
	for _, c := range []struct{ source, want string }{
		{"a ALLOW READ orders", "a ALLOW READ A.orders"},
		{"a ALLOW WRITE orders", ""},
		{"a ALLOW ALL orders", "a ALLOW READ A.orders"},
		{"a DENY ALL orders", "a DENY ALL A.orders"},
		{"a DENY WRITE orders", "a DENY WRITE A.orders"},
		{"a ALLOW DESCRIBE orders", "a ALLOW DESCRIBE A.orders"},
		{"a ALLOW ALTER_CONFIGS orders", "a ALLOW ALTER_CONFIGS A.orders"},
		{"a ALLOW READ orders…", ""},
		{"a ALLOW READ secret", ""},
		{"a ALLOW READ __consumer_offsets", ""},
		{"a ALLOW READ B.orders", ""}, // a cycle
		{"a ALLOW READ *", ""},
		{"a DENY READ *", ""},
	} {
		got, follows := follow.Right(flow(), right(c.source))
		if follows != (c.want != "") || follows && got != right(c.want) {
			t.Errorf("%s: %v %v, want %q", c.source, got, follows, c.want)
		}
	}
	if got, follows := follow.Right(flow(identity), right("a ALLOW READ *")); follows {
		t.Errorf("reading every topic of the source became %v", got)
	}
}

func TestRights(t *testing.T) {
	source := rights("a ALLOW ALL orders", "a ALLOW READ orders", "b DENY READ orders", "c ALLOW WRITE orders")
	both := rights("a ALLOW READ A.orders", "b DENY READ A.orders")
	admin := right("d ALLOW WRITE A.orders")
	for _, c := range []struct {
		name          string
		flow          spec.Flow
		source, given []kafka.ACL
		note          follow.Note
		give, revoke  []kafka.ACL
		remembered    []kafka.ACL
	}{
		{name: "none yet", flow: flow(), source: source, give: both},
		{name: "one", flow: flow(), source: source, given: both[:1], give: both[1:]},
		{name: "all", flow: flow(), source: source, given: append(both, admin)},
		{name: "to be remembered", flow: flow(revoking), source: source, given: both[:1], give: both[1:], remembered: both[1:]},
		{name: "gone on the source", flow: flow(revoking), source: source[:2], given: append(both, admin), note: follow.Note{Rights: both}, revoke: both[1:], remembered: both[:1]},
		{name: "gone on the source, not to be revoked", flow: flow(), source: source[:2], given: both, note: follow.Note{Rights: both}, remembered: both},
		{name: "gone on the source, somebody else's", flow: flow(revoking), given: append(both, admin)},
		{name: "gone on both", flow: flow(revoking), note: follow.Note{Rights: both}},
		{name: "denied", flow: flow(revoking), source: source, given: both[:1], note: follow.Note{Denied: "no", Rights: both}, remembered: both},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := follow.Rights(c.flow, c.source, c.given, c.note)
			if !slices.Equal(got.Give, c.give) || !slices.Equal(got.Revoke, c.revoke) || !slices.Equal(got.Note.Rights, c.remembered) {
				t.Errorf("gives %v, revokes %v, remembers %v", got.Give, got.Revoke, got.Note.Rights)
			}
			if got.Note.Denied != c.note.Denied {
				t.Errorf("denied: %q", got.Note.Denied)
			}
		})
	}
}
