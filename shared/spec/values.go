package spec

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Start is where a partition without a cursor begins. The zero value is Earliest.
type Start struct {
	kind startKind
	at   int64 // milliseconds, where kind is startAt
}

type startKind byte

const (
	startEarliest startKind = iota
	startLatest
	startAt
)

// Starts that need no time.
var (
	Earliest = Start{}
	Latest   = Start{kind: startLatest}
)

// At starts with the first record whose timestamp is t or later.
func At(t time.Time) Start { return Start{startAt, t.UnixMilli()} }

// Timestamp is what a broker's ListOffsets takes: -2 for the earliest offset, -1 for the latest, else milliseconds.
func (s Start) Timestamp() int64 {
	switch s.kind {
	case startEarliest:
		return -2
	case startLatest:
		return -1
	}
	return s.at
}

func (s Start) String() string {
	switch s.kind {
	case startEarliest:
		return "earliest"
	case startLatest:
		return "latest"
	}
	return time.UnixMilli(s.at).UTC().Format(time.RFC3339Nano)
}

// ParseStart reads earliest, latest, a time as RFC 3339 has it, or milliseconds since 1970.
func ParseStart(text string) (Start, error) {
	switch strings.ToLower(text) {
	case "earliest":
		return Earliest, nil
	case "latest":
		return Latest, nil
	}
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil && ms >= 0 {
		return Start{startAt, ms}, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil && t.UnixMilli() >= 0 {
		return At(t), nil
	}
	return Start{}, errors.New("not a start; give earliest, latest, a time like 2026-11-24T08:00:00Z or milliseconds since 1970")
}

// Bytes is an amount of memory.
type Bytes int64

// Units of Bytes.
const (
	KiB Bytes = 1 << 10
	MiB Bytes = 1 << 20
	GiB Bytes = 1 << 30
)

var units = []struct {
	suffix string
	size   Bytes
}{{"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}, {"B", 1}, {"", 1}}

// ParseBytes reads a whole number of bytes, KiB, MiB or GiB.
func ParseBytes(text string) (Bytes, error) {
	for _, unit := range units {
		number, found := strings.CutSuffix(text, unit.suffix)
		if !found {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/int64(unit.size) {
			break
		}
		return Bytes(n) * unit.size, nil
	}
	return 0, errors.New("not an amount of memory; give a whole number of bytes, or one followed by KiB, MiB or GiB, like 32MiB")
}

func (b Bytes) String() string {
	for _, unit := range units {
		if b >= unit.size && b%unit.size == 0 && unit.suffix != "" {
			return fmt.Sprintf("%d%s", int64(b/unit.size), unit.suffix)
		}
	}
	return strconv.FormatInt(int64(b), 10)
}
