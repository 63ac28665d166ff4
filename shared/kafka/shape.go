package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// kmsg trusts what an answer says of itself further than its bytes go: it makes room for as many elements as an array is said to have if there
// is a byte for each, though one takes a hundred times that in memory, and counts tags down from four thousand million though there are none.
// So answers are walked before it sees them. What is walked is what kmsg would write, which is asked how.

const (
	// mostTags and mostTag bound the tags of one structure, and one tag's bytes. Kafka has five at most, and the largest lists brokers.
	mostTags = 64
	mostTag  = 64 << 10
	// mostThrottle bounds how long an answer has a client wait, which franz-go would do for the 24 days that fit into the field. A broker that
	// means more lets the next request wait.
	mostThrottle = 5 * time.Minute
)

// errShape is an answer that does not hold what it says it holds.
var errShape = errors.New("malformed: it says that there is more than it has bytes for")

// A shape is how an answer of one kind and version lies in its bytes.
type shape struct {
	flexible bool // lengths are varints and structures have tags (KIP-482)
	fields   []field
}

// A field is what stands at one place, tags left out.
type field struct {
	kind  fieldKind
	width int     // of fixed
	of    []field // of a structure, or, as the only one, of an array's elements
	waits bool    // is a throttle time, in milliseconds
}

type fieldKind int

const (
	fixed     fieldKind = iota
	text                // behind a length of two bytes
	blob                // behind a length of four bytes
	array               // behind a count of four bytes
	structure           // with tags at its end
)

var shapes sync.Map // of shapeKey to *shape; nil where it can't be told

// A shapeKey is a kind of answer in a version of it.
type shapeKey struct{ key, version int16 }

// shapeOf is nil for an answer that kmsg does not know, or whose shape can't be learned.
func shapeOf(key, version int16) *shape {
	at := shapeKey{key, version}
	if known, ok := shapes.Load(at); ok {
		return known.(*shape)
	}
	var s *shape
	if resp := kmsg.ResponseForKey(key); resp != nil && version >= 0 && version <= resp.MaxVersion() {
		resp.SetVersion(version)
		fields, err := learn(reflect.ValueOf(resp).Elem(), func() []byte { return resp.AppendTo(nil) })
		if err == nil {
			s = &shape{flexible: resp.IsFlexible(), fields: fields}
		}
	}
	known, _ := shapes.LoadOrStore(at, s)
	return known.(*shape)
}

// most bounds an answer.
func (k shapeKey) most() int {
	switch kmsg.Key(k.key) {
	case kmsg.ApiVersions, kmsg.SASLHandshake, kmsg.SASLAuthenticate:
		return mostGreeting
	}
	return mostAnswer
}

// check walks an answer, from behind its number on, and shortens the time that it has the client wait.
func (k shapeKey) check(b []byte) error {
	if k.key == int16(kmsg.ApiVersions) && len(b) > 2 && b[1] == byte(kerr.UnsupportedVersion.Code) {
		k.version = 0 // in which a broker says that it does not know that version
	}
	s := shapeOf(k.key, k.version)
	if s == nil {
		return errors.New("nothing is known of such answers")
	}
	w := walk{rest: b, flexible: s.flexible}
	if s.flexible && k.key != int16(kmsg.ApiVersions) && !w.tags() || !w.structure(s.fields) {
		return errShape
	}
	return nil
}

// learn finds a structure's fields: what changes in the bytes with each. Where there come to be more of them than it takes, it is a tag.
func learn(v reflect.Value, encode func() []byte) (fields []field, err error) {
	for i := range v.NumField() {
		name, f := v.Type().Field(i).Name, v.Field(i)
		if name == "UnknownTags" || name == "Version" && f.Kind() == reflect.Int16 {
			continue
		}
		learned, there, err := learnField(f, encode)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if there {
			learned.waits = name == "ThrottleMillis"
			fields = append(fields, learned)
		}
	}
	return fields, nil
}

func learnField(v reflect.Value, encode func() []byte) (f field, there bool, err error) {
	old := reflect.New(v.Type()).Elem()
	old.Set(v)
	defer func() { v.Set(old) }()
	before := encode()
	grown := func() int { return len(encode()) - len(before) }

	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(!v.Bool())
		return field{width: 1}, grown() == 0 && !bytes.Equal(before, encode()), nil
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(^v.Int())
		return field{width: int(v.Type().Size())}, grown() == 0 && !bytes.Equal(before, encode()), nil
	case reflect.Array: // a topic's id
		v.Index(0).SetUint(^v.Index(0).Uint() & 0xFF)
		return field{width: v.Len()}, grown() == 0 && !bytes.Equal(before, encode()), nil
	case reflect.String:
		v.SetString("x")
		return field{kind: text}, grown() == 1, nil
	case reflect.Pointer:
		if v.Type().Elem().Kind() == reflect.String {
			v.Set(reflect.ValueOf(kmsg.StringPtr("x")))
			return field{kind: text}, grown() == 1, nil
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte("x"))
			return field{kind: blob}, grown() == 1, nil
		}
		return learnArray(v, encode, grown)
	case reflect.Struct:
		fields, err := learn(v, encode)
		return field{kind: structure, of: fields}, len(fields) > 0, err
	}
	return field{}, false, fmt.Errorf("%s is not learned", v.Type())
}

func learnArray(v reflect.Value, encode func() []byte, grown func() int) (f field, there bool, err error) {
	element := reflect.New(v.Type().Elem())
	if e, ok := element.Interface().(interface{ Default() }); ok {
		e.Default()
	}
	none := reflect.MakeSlice(v.Type(), 0, 2)
	v.Set(none)
	zero := grown()
	v.Set(reflect.Append(none, element.Elem(), element.Elem()))
	two := grown()
	v.Set(reflect.Append(none, element.Elem()))
	one := grown()
	if one == zero || one-zero != two-one {
		return field{}, false, nil
	}
	if e := v.Index(0); e.Kind() == reflect.Struct {
		fields, err := learn(e, encode)
		return field{kind: array, of: []field{{kind: structure, of: fields}}}, true, err
	}
	of, there, err := learnField(v.Index(0), encode)
	return field{kind: array, of: []field{of}}, there, err
}

// A walk passes over bytes, and reports at each step whether they were there.
type walk struct {
	rest     []byte
	flexible bool
}

func (w *walk) structure(fields []field) bool {
	for i := range fields {
		if !w.field(&fields[i]) {
			return false
		}
	}
	return !w.flexible || w.tags()
}

func (w *walk) field(f *field) bool {
	switch f.kind {
	case fixed:
		if at := w.rest; f.waits && len(at) >= 4 && int32(binary.BigEndian.Uint32(at)) > int32(mostThrottle.Milliseconds()) {
			binary.BigEndian.PutUint32(at, uint32(mostThrottle.Milliseconds()))
		}
		return w.skip(int64(f.width))
	case text:
		n, ok := w.length(2)
		return ok && w.skip(max(n, 0))
	case blob:
		n, ok := w.length(4)
		return ok && w.skip(max(n, 0))
	case array:
		return w.array(&f.of[0])
	}
	return w.structure(f.of)
}

func (w *walk) array(of *field) bool {
	n, ok := w.length(4)
	if !ok || n > int64(len(w.rest)) {
		return false
	}
	if of.kind == fixed {
		return w.skip(max(n, 0) * int64(of.width))
	}
	for range n {
		if !w.field(of) {
			return false
		}
	}
	return true
}

// tags passes over a structure's tags. Each is looked at no further: its length is bounded.
func (w *walk) tags() bool {
	n, ok := w.varint()
	if !ok || n > mostTags {
		return false
	}
	for range n {
		if _, ok := w.varint(); !ok {
			return false
		}
		size, ok := w.varint()
		if !ok || size > mostTag || !w.skip(int64(size)) {
			return false
		}
	}
	return true
}

// length is below 0 for what is null.
func (w *walk) length(bytes int) (n int64, ok bool) {
	if w.flexible {
		u, ok := w.varint()
		return int64(u) - 1, ok
	}
	if len(w.rest) < bytes {
		return 0, false
	}
	if bytes == 2 {
		n = int64(int16(binary.BigEndian.Uint16(w.rest)))
	} else {
		n = int64(int32(binary.BigEndian.Uint32(w.rest)))
	}
	return n, w.skip(int64(bytes))
}

func (w *walk) varint() (uint32, bool) {
	u, n := binary.Uvarint(w.rest[:min(len(w.rest), binary.MaxVarintLen32)])
	return uint32(u), n > 0 && u <= 1<<32-1 && w.skip(int64(n))
}

func (w *walk) skip(n int64) bool {
	if n > int64(len(w.rest)) {
		return false
	}
	w.rest = w.rest[n:]
	return true
}
