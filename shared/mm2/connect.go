package mm2

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// The offsets of a source connector as Connect's REST interface shows and takes them (KIP-875):
//
//	{"offsets":[{"partition":{"cluster":"A","partition":0,"topic":"orders"},"offset":{"offset":123}}]}
//
// An offset is that of the last record copied. null in its place forgets it.

// A SourceOffset is one of them.
type SourceOffset struct {
	Cluster, Topic string
	Partition      int32
	Offset         int64
	Forget         bool // there is no offset
}

type connectOffsets struct {
	Offsets []connectOffset `json:"offsets"`
}

type connectOffset struct {
	Partition connectPartition `json:"partition"`
	Offset    *struct {
		Offset int64 `json:"offset"`
	} `json:"offset"`
}

type connectPartition struct {
	Cluster   string `json:"cluster"`
	Partition int32  `json:"partition"`
	Topic     string `json:"topic"`
}

// FormatSourceOffsets writes offsets as Connect does.
func FormatSourceOffsets(offsets []SourceOffset) []byte {
	all := connectOffsets{Offsets: []connectOffset{}}
	for _, o := range offsets {
		one := connectOffset{Partition: connectPartition{o.Cluster, o.Partition, o.Topic}}
		if !o.Forget {
			one.Offset = &struct {
				Offset int64 `json:"offset"`
			}{o.Offset}
		}
		all.Offsets = append(all.Offsets, one)
	}
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(all); err != nil {
		panic(fmt.Sprintf("mm2: encode offsets: %v", err)) // flat structs
	}
	return text.Bytes()
}

// ParseSourceOffsets reads offsets, by the rules that MirrorSourceConnector has for them. Beyond those it wants each partition named
// once, and by a name even where its offset is forgotten. The error has all that is wrong, one a line.
func ParseSourceOffsets(text []byte) ([]SourceOffset, error) {
	var all struct {
		Offsets []struct {
			Partition map[string]any `json:"partition"`
			Offset    map[string]any `json:"offset"`
		} `json:"offsets"`
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	d.DisallowUnknownFields()
	err := d.Decode(&all)
	if err == nil && d.More() {
		err = errors.New("more than one JSON value")
	}
	if err == io.EOF {
		err = errors.New("it is empty")
	}
	if err != nil {
		return nil, fmt.Errorf(`offsets: %w; they look like {"offsets":[{"partition":{"cluster":"A","partition":0,"topic":"orders"},"offset":{"offset":123}}]}`, err)
	}
	if len(all.Offsets) == 0 {
		return nil, errors.New(`offsets: there are none: give at least one in "offsets"`)
	}
	var offsets []SourceOffset
	var wrong error
	named := map[SourceOffset]bool{}
	for i, one := range all.Offsets {
		o, err := parseSourceOffset(one.Partition, one.Offset)
		name := SourceOffset{Cluster: o.Cluster, Topic: o.Topic, Partition: o.Partition}
		if err == nil && named[name] {
			err = fmt.Errorf("%s-%d is named twice", o.Topic, o.Partition)
		}
		if err != nil {
			wrong = errors.Join(wrong, fmt.Errorf("offsets[%d]: %w", i, err))
			continue
		}
		named[name] = true
		offsets = append(offsets, o)
	}
	return offsets, wrong
}

func parseSourceOffset(partition, offset map[string]any) (o SourceOffset, err error) {
	var wrong [4]error
	o.Cluster, wrong[0] = textOf(partition, "cluster")
	o.Topic, wrong[1] = textOf(partition, "topic")
	number, err := wholeOf(partition, "partition", 32)
	o.Partition, wrong[2] = int32(number), err
	if o.Forget = offset == nil; !o.Forget {
		o.Offset, wrong[3] = wholeOf(offset, "offset", 64)
	}
	return o, errors.Join(wrong[:]...)
}

func textOf(fields map[string]any, name string) (string, error) {
	text, is := fields[name].(string)
	if !is || text == "" {
		return "", fmt.Errorf("%q is %s, and has to be text", name, shown(fields, name))
	}
	return text, nil
}

// wholeOf is a number from 0 to what fits into so many bits, with a sign.
func wholeOf(fields map[string]any, name string, bits int) (int64, error) {
	n, is := fields[name].(json.Number)
	value, err := strconv.ParseInt(n.String(), 10, bits)
	if !is || err != nil || value < 0 {
		return 0, fmt.Errorf("%q is %s, and has to be a whole number from 0 on", name, shown(fields, name))
	}
	return value, nil
}

func shown(fields map[string]any, name string) string {
	value, there := fields[name]
	if !there {
		return "missing"
	}
	text, _ := json.Marshal(value)
	return string(text)
}
