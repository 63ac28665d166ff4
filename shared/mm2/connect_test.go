package mm2

import (
	"slices"
	"strings"
	"testing"
)

func TestSourceOffsetsAsConnectHasThem(t *testing.T) {
	const text = `{"offsets":[{"partition":{"cluster":"A","partition":0,"topic":"orders"},"offset":{"offset":123}},` +
		`{"partition":{"cluster":"A","partition":7,"topic":"<&>"},"offset":null}]}` + "\n"
	want := []SourceOffset{{Cluster: "A", Topic: "orders", Offset: 123}, {Cluster: "A", Topic: "<&>", Partition: 7, Forget: true}}
	if got := string(FormatSourceOffsets(want)); got != text {
		t.Errorf("got  %s\nwant %s", got, text)
	}
	if got, err := ParseSourceOffsets([]byte(text)); err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if got := string(FormatSourceOffsets(nil)); got != `{"offsets":[]}`+"\n" {
		t.Errorf("of none: %s", got)
	}
}

// The scenarios of MirrorSourceConnectorTest's testAlterOffsets*, by their names there, and what else is wrong.
func TestAlterOffsets(t *testing.T) {
	one := func(partition, offset string) string {
		return `{"offsets":[{"partition":` + partition + `,"offset":` + offset + `}]}`
	}
	const partition, offset = `{"cluster":"primary","topic":"t","partition":2}`, `{"offset":10}`
	for name, c := range map[string]struct{ text, wrong string }{
		"MultiplePartitions": {`{"offsets":[{"partition":{"cluster":"primary","topic":"t","partition":10},"offset":{"offset":1}},` +
			`{"partition":{"cluster":"primary","topic":"t","partition":11},"offset":{"offset":2}}]}`, ""},
		"Tombstones":                     {one(partition, "null"), ""},
		"a partition more than once":     {`{"offsets":[{"partition":` + partition + `,"offset":null},{"partition":` + partition + `,"offset":` + offset + `}]}`, "offsets[1]: t-2 is named twice"},
		"IncorrectPartitionKey":          {one(`{"unused":"primary","topic":"t","partition":2}`, offset), `"cluster" is missing`},
		"MissingPartitionKey, topic":     {one(`{"cluster":"primary","partition":2}`, offset), `"topic" is missing`},
		"MissingPartitionKey, partition": {one(`{"cluster":"primary","topic":"t"}`, offset), `"partition" is missing`},
		"InvalidPartitionPartition, -1":  {one(`{"cluster":"primary","topic":"t","partition":-1}`, offset), `"partition" is -1, and has to be a whole number`},
		"InvalidPartitionPartition, a":   {one(`{"cluster":"primary","topic":"t","partition":"a"}`, offset), `"partition" is "a"`},
		"a partition with a fraction":    {one(`{"cluster":"primary","topic":"t","partition":1.0}`, offset), `"partition" is 1.0`},
		"a partition beyond 32 bits":     {one(`{"cluster":"primary","topic":"t","partition":2147483648}`, offset), `"partition" is 2147483648`},
		"a topic that is a number":       {one(`{"cluster":"primary","topic":1,"partition":2}`, offset), `"topic" is 1, and has to be text`},
		"NullPartition":                  {one("null", offset), `"cluster" is missing`},
		"IncorrectOffsetKey":             {one(partition, `{"unused":1}`), `"offset" is missing`},
		"InvalidOffsetValues, text":      {one(partition, `{"offset":"nan"}`), `"offset" is "nan"`},
		"InvalidOffsetValues, null":      {one(partition, `{"offset":null}`), `"offset" is null`},
		"InvalidOffsetValues, object":    {one(partition, `{"offset":{}}`), `"offset" is {}`},
		"InvalidOffsetValues, fraction":  {one(partition, `{"offset":3.14}`), `"offset" is 3.14`},
		"InvalidOffsetValues, -420":      {one(partition, `{"offset":-420}`), `"offset" is -420`},
		"InvalidOffsetValues, quoted":    {one(partition, `{"offset":"10"}`), `"offset" is "10"`},
		"SuccessfulReset":                {one(partition, offset), ""},
		"the largest offset":             {one(partition, `{"offset":9223372036854775807}`), ""},
		"beyond the largest offset":      {one(partition, `{"offset":9223372036854775808}`), `"offset" is 9223372036854775808`},
		"none":                           {`{"offsets":[]}`, "there are none"},
		"no offsets":                     {`{}`, "there are none"},
		"another member":                 {`{"offset":[]}`, `unknown field "offset"`},
		"empty":                          {"", "it is empty"},
		"no JSON":                        {"orders: 1", "invalid character"},
		"two values":                     {one(partition, offset) + one(partition, offset), "more than one JSON value"},
	} {
		_, err := ParseSourceOffsets([]byte(c.text))
		if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s: %v, want %q", name, err, c.wrong)
		}
	}
	_, err := ParseSourceOffsets([]byte(`{"offsets":[{"partition":{},"offset":{}},` + `{"partition":` + partition + `,"offset":{"offset":-1}}]}`))
	if err == nil || strings.Count(err.Error(), "has to be") != 5 {
		t.Errorf("not all that is wrong is told: %v", err)
	}
}
