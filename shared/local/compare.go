package local

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/kferry/kferry/shared/spec"
)

// silence is how long a partition may bring nothing new before its end is reached. Then reading fails rather than compares less.
const silence = 20 * time.Second

// A Side is a topic of a cluster, to be compared with its copy or its original.
type Side struct {
	Cluster spec.Cluster
	Topic   string
	Dial    Dial // nil dials as usual
	// Uncommitted reads records of open and aborted transactions too.
	Uncommitted bool
}

// A Comparison is what an independent consumer found that read a topic and its copy from start to end.
type Comparison struct {
	Records   int64  // on the source
	Lost      int64  // on the source only
	Doubled   int64  // once more on the target than on the source
	Reordered int64  // behind a later one on the target
	Foreign   int64  // on the target only
	First     string // the first difference, "" where there is none
}

// Exact says that the copy equals its source, record for record, partition for partition.
func (c Comparison) Exact() bool {
	return c.Lost == 0 && c.Doubled == 0 && c.Reordered == 0 && c.Foreign == 0
}

func (c Comparison) String() string {
	text := fmt.Sprintf("%d records: %d lost, %d doubled, %d reordered, %d foreign", c.Records, c.Lost, c.Doubled, c.Reordered, c.Foreign)
	if c.First != "" {
		text += " (" + c.First + ")"
	}
	return text
}

// Compare reads both topics up to their ends as of now and compares key, value, headers, timestamp, partition and order of every record.
// Writing should have stopped. The target's records are compared as a consumer of committed ones sees them.
func Compare(ctx context.Context, source, target Side) (Comparison, error) {
	originals, err := source.read(ctx)
	if err != nil {
		return Comparison{}, err
	}
	copies, err := target.read(ctx)
	if err != nil {
		return Comparison{}, err
	}
	var c Comparison
	for _, partition := range partitionsOf(originals, copies) {
		c.compare(partition, originals[partition], copies[partition])
	}
	return c, nil
}

// seen is a record as it was read: where, and what it is.
type seen struct {
	offset int64
	digest digest
}

type digest [sha256.Size]byte

func partitionsOf(sides ...map[int32][]seen) []int32 {
	var list []int32
	for _, side := range sides {
		for partition := range side {
			list = append(list, partition)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// compare walks the copies and looks each one up among the originals that are not yet accounted for.
func (c *Comparison) compare(partition int32, originals, copies []seen) {
	c.Records += int64(len(originals))
	places := make(map[digest][]int, len(originals))
	for i, record := range originals {
		places[record.digest] = append(places[record.digest], i)
	}
	reached := -1
	for _, record := range copies {
		place, known := places[record.digest]
		switch {
		case !known:
			c.count(&c.Foreign, "partition %d, target offset %d: not a record of the source", partition, record.offset)
		case len(place) == 0:
			c.count(&c.Doubled, "partition %d, target offset %d: a second copy", partition, record.offset)
		default:
			if place[0] < reached {
				c.count(&c.Reordered, "partition %d, target offset %d: the copy of source offset %d comes too late",
					partition, record.offset, originals[place[0]].offset)
			}
			reached = max(reached, place[0])
			places[record.digest] = place[1:]
		}
	}
	for i, record := range originals {
		if slices.Contains(places[record.digest], i) {
			c.count(&c.Lost, "partition %d, source offset %d: no copy", partition, record.offset)
		}
	}
}

func (c *Comparison) count(n *int64, format string, args ...any) {
	*n++
	if c.First == "" {
		c.First = fmt.Sprintf(format, args...)
	}
}

func (s Side) client() []kgo.Opt {
	options := []kgo.Opt{kgo.SeedBrokers(s.Cluster.BootstrapServers...)}
	if s.Dial != nil {
		options = append(options, kgo.Dialer(s.Dial))
	}
	if now, err := s.Cluster.Login.Security(); err == nil && now.SASL != nil {
		options = append(options, kgo.SASL(plain.Auth{User: now.SASL.Username, Pass: string(now.SASL.Password)}.AsMechanism()))
	}
	return options
}

// read returns every record of the topic, by partition and in order.
func (s Side) read(ctx context.Context) (map[int32][]seen, error) {
	starts, ends, err := s.bounds(ctx)
	if err != nil {
		return nil, fmt.Errorf("bounds of %s of %q: %w", s.Topic, s.Cluster.Alias, err)
	}
	records := make(map[int32][]seen)
	open := make(map[int32]kgo.Offset)
	for partition, end := range ends {
		records[partition] = nil
		if starts[partition] < end {
			open[partition] = kgo.NewOffset().At(starts[partition])
		}
	}
	// Control records are what tells that a partition's end is reached where it ends in a marker.
	options := append(s.client(), kgo.KeepControlRecords(), kgo.FetchIsolationLevel(s.isolation()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{s.Topic: open}))
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, fmt.Errorf("client of %q: %w", s.Cluster.Alias, err)
	}
	defer client.Close()
	for len(open) > 0 {
		fetches, err := poll(ctx, client)
		if err != nil {
			return nil, fmt.Errorf("read %s of %q, %d partitions not at their end: %w", s.Topic, s.Cluster.Alias, len(open), err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if _, reading := open[r.Partition]; !reading {
				return // written since
			}
			if !r.Attrs.IsControl() && r.Offset < ends[r.Partition] {
				records[r.Partition] = append(records[r.Partition], seen{r.Offset, digestOf(r)})
			}
			if r.Offset+1 >= ends[r.Partition] {
				delete(open, r.Partition)
			}
		})
	}
	return records, nil
}

func poll(ctx context.Context, client *kgo.Client) (kgo.Fetches, error) {
	ctx, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	fetches := client.PollFetches(ctx)
	return fetches, fetches.Err()
}

func (s Side) isolation() kgo.IsolationLevel {
	if s.Uncommitted {
		return kgo.ReadUncommitted()
	}
	return kgo.ReadCommitted()
}

// bounds are the first offset and the one after the last, by partition.
func (s Side) bounds(ctx context.Context) (starts, ends map[int32]int64, err error) {
	admin, err := kadm.NewOptClient(s.client()...)
	if err != nil {
		return nil, nil, err
	}
	defer admin.Close()
	listEnds := admin.ListCommittedOffsets
	if s.Uncommitted {
		listEnds = admin.ListEndOffsets
	}
	if starts, err = s.list(ctx, admin.ListStartOffsets); err != nil {
		return nil, nil, err
	}
	ends, err = s.list(ctx, listEnds)
	return starts, ends, err
}

func (s Side) list(ctx context.Context, list func(context.Context, ...string) (kadm.ListedOffsets, error)) (map[int32]int64, error) {
	listed, err := list(ctx, s.Topic)
	if err != nil {
		return nil, err
	}
	if err := listed.Error(); err != nil {
		return nil, err
	}
	offsets := make(map[int32]int64)
	listed.Each(func(o kadm.ListedOffset) { offsets[o.Partition] = o.Offset })
	return offsets, nil
}

// digestOf covers all that a copy must keep. Lengths stand before what they measure, so that no two records look alike.
func digestOf(r *kgo.Record) digest {
	text := binary.BigEndian.AppendUint64(nil, uint64(r.Timestamp.UnixMilli()))
	text = appendField(text, r.Key)
	text = appendField(text, r.Value)
	for _, header := range r.Headers {
		text = appendField(text, []byte(header.Key))
		text = appendField(text, header.Value)
	}
	return sha256.Sum256(text)
}

// appendField tells a missing field from an empty one.
func appendField(text, field []byte) []byte {
	length := int64(len(field))
	if field == nil {
		length = -1
	}
	return append(binary.BigEndian.AppendUint64(text, uint64(length)), field...)
}
