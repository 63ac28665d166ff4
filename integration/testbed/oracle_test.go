package testbed

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// An oracle that overlooks something is worse than none: each kind of damage must be seen, and seen as what it is.
func TestDiffNamesTheDamage(t *testing.T) {
	for name, test := range map[string]struct {
		damage func([]*kgo.Record) []*kgo.Record
		want   Difference
	}{
		"none":    {func(r []*kgo.Record) []*kgo.Record { return r }, Difference{}},
		"lost":    {func(r []*kgo.Record) []*kgo.Record { return slices.Delete(r, 4, 6) }, Difference{Lost: 2}},
		"all":     {func([]*kgo.Record) []*kgo.Record { return nil }, Difference{Lost: 20}},
		"doubled": {func(r []*kgo.Record) []*kgo.Record { return slices.Concat(r[:7], r[5:]) }, Difference{Doubled: 2}},
		"reordered": {func(r []*kgo.Record) []*kgo.Record {
			r[7], r[8] = r[8], r[7]
			return r
		}, Difference{Reordered: 1}},
		"alien": {func(r []*kgo.Record) []*kgo.Record {
			return append(r, &kgo.Record{Value: []byte("x")})
		}, Difference{Alien: 1}},
		"empty key for nil": {func(r []*kgo.Record) []*kgo.Record {
			r[1].Key = []byte{}
			return r
		}, Difference{Changed: 1}},
		"header order": {func(r []*kgo.Record) []*kgo.Record {
			slices.Reverse(r[5].Headers)
			return r
		}, Difference{Changed: 1}},
		"header nil for empty": {func(r []*kgo.Record) []*kgo.Record {
			r[4].Headers[1].Value = nil
			return r
		}, Difference{Changed: 1}},
		"timestamp": {func(r []*kgo.Record) []*kgo.Record {
			r[9].Timestamp = r[9].Timestamp.Add(time.Millisecond)
			return r
		}, Difference{Changed: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			got := Diff(Log{0: records(20)}, Log{0: test.damage(records(20))})
			got.Examples = nil
			if got.String() != test.want.String() {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// What is left out of a comparison must be that and nothing else.
func TestLeniencyIsNoBlindness(t *testing.T) {
	for name, test := range map[string]struct {
		damage  func(*kgo.Record)
		lenient Leniency
		changed int
	}{
		"type, to be kept":             {func(r *kgo.Record) { r.Attrs = appendTime }, 0, 1},
		"type":                         {func(r *kgo.Record) { r.Attrs = appendTime }, TimestampType, 0},
		"time where the type may be":   {func(r *kgo.Record) { r.Timestamp = time.Now() }, TimestampType, 1},
		"time":                         {func(r *kgo.Record) { r.Timestamp = time.Now() }, Timestamps, 0},
		"key where times may be other": {func(r *kgo.Record) { r.Key = []byte("x") }, Timestamps, 1},
	} {
		t.Run(name, func(t *testing.T) {
			copied := records(20)
			test.damage(copied[9])
			d := Difference{lenient: test.lenient}
			d.partition(0, records(20), copied)
			if d.Changed != test.changed || !d.Exact() != (test.changed > 0) {
				t.Errorf("got %v", d)
			}
		})
	}
}

// appendTime are a record's attributes where the broker's time stands for its own.
var appendTime = kgo.NewRecordAttrs(kgo.RecordAttrsOpts{TimestampType: 1})

func TestSubsequenceSeesWhatLacksAndWhatIsOutOfOrder(t *testing.T) {
	for name, test := range map[string]struct {
		copied []int
		exact  bool
	}{
		"more":         {[]int{0, 1, 2, 3, 4, 5}, true},
		"just that":    {[]int{1, 3, 4}, true},
		"one lacks":    {[]int{0, 1, 4, 5}, false},
		"out of order": {[]int{0, 3, 1, 4}, false},
		"none":         {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			all := records(6)
			var copied []*kgo.Record
			for _, i := range test.copied {
				copied = append(copied, all[i])
			}
			var d Difference
			d.subsequence(0, []*kgo.Record{all[1], all[3], all[4]}, copied)
			if d.Exact() != test.exact {
				t.Errorf("got %v", d)
			}
		})
	}
}

func TestStateIsTheLastValueOfEachKey(t *testing.T) {
	record := func(key, value string) *kgo.Record {
		r := &kgo.Record{Key: []byte(key)}
		if value != "" {
			r.Value = []byte(value)
		}
		return r
	}
	got := state(Log{0: {record("a", "1"), record("b", "1"), record("a", "2"), record("b", ""), record("c", "1")}, 1: {record("a", "3")}})
	if want := map[string]string{"0 a": "2", "0 c": "1", "1 a": "3"}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func records(n int) []*kgo.Record {
	load := Load{Start: time.UnixMilli(1_700_000_000_000)}.withDefaults()
	random := load.random()
	all := make([]*kgo.Record, n)
	for i := range all {
		all[i] = load.record(i, 0, random)
	}
	return all
}
