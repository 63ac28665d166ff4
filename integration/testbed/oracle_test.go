package testbed

import (
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

func records(n int) []*kgo.Record {
	load := Load{Start: time.UnixMilli(1_700_000_000_000)}.withDefaults()
	random := load.random()
	all := make([]*kgo.Record, n)
	for i := range all {
		all[i] = load.record(i, 0, random)
	}
	return all
}
