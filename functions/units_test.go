package functions

import (
	"encoding/binary"
	"hash/crc32"
	"slices"
	"testing"

	"github.com/kferry/kferry/shared/batch"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// logged is one batch as it lies in a source's log.
type logged struct {
	base, producer         int64
	records, holes         int
	transactional, control bool
	abort                  bool
}

// bytes lays the batch out as a broker would.
func (l logged) bytes() batch.Batch {
	var records []batch.Record
	for i := range l.records {
		offset := l.base + int64(i)
		if i == l.records-1 {
			offset += int64(l.holes)
		}
		r := batch.Record{Offset: offset, Timestamp: 1000 + offset, Value: []byte{byte(offset)}}
		if l.control {
			r.Key, r.Value = []byte{0, 0, 0, 1}, []byte{0, 0, 0, 0, 0, 0}
			if l.abort {
				r.Key[3] = 0
			}
		}
		records = append(records, r)
	}
	b := batch.Of(records...)
	attributes := binary.BigEndian.Uint16(b[21:])
	if l.transactional {
		attributes |= 0x10
	}
	if l.control {
		attributes |= 0x20
	}
	binary.BigEndian.PutUint16(b[21:], attributes)
	binary.BigEndian.PutUint64(b[43:], uint64(l.producer))
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func piece(aborted []kafka.Aborted, all ...logged) *kafka.Fetched {
	f := &kafka.Fetched{Aborted: aborted}
	for _, l := range all {
		f.Records = append(f.Records, l.bytes()...)
	}
	return f
}

func bases(data []batch.Batch) (offsets []int64) {
	for _, b := range data {
		offsets = append(offsets, b.BaseOffset())
	}
	return offsets
}

// Three producers' transactions lie across each other: one aborts, one commits, one writes without a transaction; then the aborted
// producer begins anew and commits.
func TestVisibleFollowsInterleavedTransactions(t *testing.T) {
	log := []logged{
		{base: 0, records: 2, producer: 7, transactional: true},
		{base: 2, records: 2, producer: 8, transactional: true},
		{base: 4, records: 1, producer: 7, transactional: true},
		{base: 5, records: 1, producer: 9},
		{base: 6, records: 1, producer: 7, transactional: true, control: true, abort: true},
		{base: 7, records: 1, producer: 8, transactional: true, control: true},
		{base: 8, records: 1, producer: 7, transactional: true},
		{base: 9, records: 1, producer: 7, transactional: true, control: true},
	}
	aborted := []kafka.Aborted{{ProducerID: 7, FirstOffset: 0}}
	for _, c := range []struct {
		isolation spec.Isolation
		want      []int64
	}{
		{spec.ReadCommitted, []int64{2, 5, 8}},
		{spec.ReadUncommitted, []int64{0, 2, 4, 5, 8}},
	} {
		seen := visible(piece(aborted, log...), 0, -1, c.isolation)
		if got := bases(seen.data); !slices.Equal(got, c.want) || seen.next != 10 || seen.wrong != nil {
			t.Errorf("%s: batches %v up to %d, %v; want %v up to 10", c.isolation, got, seen.next, seen.wrong, c.want)
		}
	}
}

// A topic that ends in a marker would otherwise be behind for ever.
func TestVisibleMovesOverMarkers(t *testing.T) {
	seen := visible(piece(nil, logged{base: 4, records: 1, transactional: true, control: true}), 3, -1, spec.ReadCommitted)
	if seen.wrong != nil || len(seen.data) != 0 || seen.next != 5 {
		t.Errorf("marker: %d batches up to %d, %v", len(seen.data), seen.next, seen.wrong)
	}
}

func TestVisibleStopsAtThePartOfABatch(t *testing.T) {
	p := piece(nil, logged{base: 0, records: 2}, logged{base: 2, records: 2})
	p.Records = p.Records[:len(p.Records)-3]
	seen := visible(p, 0, -1, spec.ReadCommitted)
	if seen.wrong != nil || !slices.Equal(bases(seen.data), []int64{0}) || seen.next != 2 {
		t.Errorf("batches %v up to %d, %v", bases(seen.data), seen.next, seen.wrong)
	}
}

func TestSkipRecordsCountsWhatTheBrokerHas(t *testing.T) {
	dense, holed := logged{base: 10, records: 5}.bytes(), logged{base: 10, records: 3, holes: 4}.bytes() // 10, 11 and 16
	for _, c := range []struct {
		name                       string
		b                          batch.Batch
		from, n, wantAfter, wantOf int64
	}{
		{"whole dense batch", dense, 10, 9, 15, 5},
		{"part of a dense batch", dense, 10, 3, 13, 3},
		{"dense from its middle", dense, 12, 2, 14, 2},
		{"up to a hole", holed, 10, 2, 12, 2},
		{"over a hole", holed, 10, 3, 17, 3},
		{"from inside a hole", holed, 13, 1, 17, 1},
		{"more than there is", holed, 10, 9, 17, 3},
	} {
		after, taken, err := skipRecords(c.b, c.from, c.n, func(int64, int64) {})
		if err != nil || after != c.wantAfter || taken != c.wantOf {
			t.Errorf("%s: %d records up to %d, %v; want %d up to %d", c.name, taken, after, err, c.wantOf, c.wantAfter)
		}
	}
}

// Every unit must say how far it leads in the source, whatever shape its records travel in.
func TestCutTakesSmallBatchesTogether(t *testing.T) {
	m := &mirror{at: lease.Cursor{Offset: 1}}
	data := []batch.Batch{
		logged{base: 0, records: 3}.bytes(), // begins before the cursor
		logged{base: 3, records: 2}.bytes(),
		logged{base: 5, records: 2, holes: 2}.bytes(), // 5 and 8
		logged{base: 9, records: 1}.bytes(),
		logged{base: 10, records: 1}.bytes(),
	}
	type shape struct {
		reason        batch.Reason
		records, next int64
	}
	var got []shape
	for len(data) > 0 {
		u, rest, err := m.cut(data)
		if err != nil {
			t.Fatal(err)
		}
		var records int64
		for _, b := range u.batches {
			records += int64(b.Records())
		}
		got = append(got, shape{u.reason, records, u.next})
		m.at.Offset, data = u.next, rest
	}
	want := []shape{{batch.Cut, 2, 3}, {batch.Small, 6, 11}}
	if !slices.Equal(got, want) {
		t.Errorf("units %v, want %v", got, want)
	}
}

// A batch that its source's broker has stamped passes to a topic whose broker stamps it again, and to no other: its own times would come
// back.
func TestStampedBatchPassesWhereItIsStampedAgain(t *testing.T) {
	for stamps, want := range map[bool]batch.Reason{true: batch.Passed, false: batch.AppendTime} {
		b := logged{base: 0, records: smallBytes}.bytes() // too large to be merged
		b[22] |= 0x08
		binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
		m := &mirror{facts: facts{stamps: stamps}}
		u, _, err := m.cut([]batch.Batch{b})
		if err != nil || u.reason != want || len(u.batches) != 1 || u.batches[0].LogAppendTime() != stamps {
			t.Errorf("stamps %v: %q, %d batches, %v", stamps, u.reason, len(u.batches), err)
		}
	}
}

func TestIdentityIsTaggedAndItsOwn(t *testing.T) {
	base := facts{
		source: topicFacts{ClusterID: "c1", Topic: kafka.Topic{Name: "orders", ID: kafka.TopicID{1}}},
		target: topicFacts{ClusterID: "c2", Topic: kafka.Topic{Name: "a.orders", ID: kafka.TopicID{2}}},
	}
	first := base.identity(0, 0)
	if !batch.Computed(first.ProducerID) {
		t.Errorf("producer id %#x lacks the tag", first.ProducerID)
	}
	other := base
	other.target.ID = kafka.TopicID{3}
	for name, id := range map[string]int64{"partition": base.identity(1, 0).ProducerID, "target topic": other.identity(0, 0).ProducerID} {
		if id == first.ProducerID {
			t.Errorf("another %s has the same producer id", name)
		}
	}
	if again := base.identity(0, 5); again.ProducerID != first.ProducerID || again.Epoch != 5 {
		t.Errorf("generation 5 is %+v, want the id of generation 0", again)
	}
}

func TestAdvanceWrapsAtTwoToThe31(t *testing.T) {
	for _, c := range []struct {
		from int32
		n    int64
		want int32
	}{{0, 5, 5}, {1<<31 - 1, 1, 0}, {1<<31 - 4, 10, 6}, {3, -5, 1<<31 - 2}} {
		if got := advance(c.from, c.n); got != c.want {
			t.Errorf("advance(%d, %d) = %d, want %d", c.from, c.n, got, c.want)
		}
	}
}

// What comes before a broken batch is copied; the partition stops at the batch, not at the piece that brought it.
func TestVisibleStopsAtACorruptBatch(t *testing.T) {
	p := piece(nil, logged{base: 0, records: 2}, logged{base: 2, records: 2})
	p.Records[len(p.Records)-1] ^= 1
	seen := visible(p, 0, -1, spec.ReadCommitted)
	if seen.wrong == nil || !slices.Equal(bases(seen.data), []int64{0}) || seen.next != 2 {
		t.Errorf("batches %v up to %d, %v; want the first, and an error about offset 2", bases(seen.data), seen.next, seen.wrong)
	}
}
