package lease

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/singleflight"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/spec"
)

// Cursors are those of one flow: the copy in KV that workers commit to, and the offsets topic on the target. They are safe for
// concurrent use.
type Cursors struct {
	queue  *Queue
	flow   spec.Flow
	target *kafka.Cluster
	view   *view[kafka.TopicPartition, Cursor]
	notes  *view[NoteKey, Note]

	mu         sync.Mutex           // guards what follows
	publishers map[int32]*publisher // by partition of the offsets topic
	left       map[int32]left       // likewise, see Left

	reads singleflight.Group // of what MM2 has left
}

// Cursors returns the cursors of a flow. Callers with the same flow and target share them, and so their requests.
func (q *Queue) Cursors(flow spec.Flow, target *kafka.Cluster) *Cursors {
	q.mu.Lock()
	defer q.mu.Unlock()
	key := cursorsKey{flow.Name(), target}
	if c, ok := q.cursors[key]; ok {
		return c
	}
	c := &Cursors{queue: q, flow: flow, target: target, publishers: map[int32]*publisher{}, left: map[int32]left{}}
	c.view = newView(q, cursorsOf, c.key("*", "*"), c.decode)
	c.notes = newView(q, cursorsOf, "note."+escape(flow.Name())+".*.*.*.*", decodeKeptNote)
	q.cursors[key] = c
	return c
}

func cursorsOf(s store) bucket { return s.cursors }

// key is a cursor's key in the bucket. "*" stands for any topic or partition.
func (c *Cursors) key(topic, partition string) string {
	if topic != "*" {
		topic = escape(topic)
	}
	return strings.Join([]string{"cursor", escape(c.flow.Name()), topic, partition}, ".")
}

func (c *Cursors) keyOf(topic string, partition int32) string {
	return c.key(topic, strconv.Itoa(int(partition)))
}

// parseKey is the inverse of keyOf.
func parseKey(key string) (kafka.TopicPartition, error) {
	parts := strings.Split(key, ".")
	if len(parts) != 4 {
		return kafka.TopicPartition{}, fmt.Errorf("%w: %q", errNotOurs, key)
	}
	topic, err1 := unescape(parts[2])
	partition, err2 := strconv.ParseInt(parts[3], 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return kafka.TopicPartition{}, fmt.Errorf("%w: %q: %w", errNotOurs, key, err)
	}
	return kafka.TopicPartition{Topic: topic, Partition: int32(partition)}, nil
}

// Get returns a cursor and the revision to commit against, ErrNoCursor where the flow has never copied the partition, ErrNotLoaded
// while nobody can tell, and ErrVersion, with the hold to show, where a newer kferry wrote it.
//
// What Get returns is on the offsets topic if it has to be: see beginning.
func (c *Cursors) Get(ctx context.Context, topic string, partition int32) (Cursor, uint64, error) {
	found, err := c.find(ctx, topic, partition)
	if err != nil {
		return Cursor{}, 0, err
	}
	cur, err := decodeCursor(found.value)
	if err != nil {
		return cur, found.revision, fmt.Errorf("cursor of %s %s-%d: %w", c.flow.Name(), topic, partition, err)
	}
	if !cur.beginning() {
		return cur, found.revision, nil
	}
	if theirs, is, err := c.Left(ctx, topic, partition); err != nil || is { // MM2 has gone on from it, and nobody has loaded since
		if err == nil {
			found.revision, err = c.put(ctx, topic, partition, theirs, found.revision)
		}
		return theirs, found.revision, err
	}
	return cur, found.revision, c.Publish(ctx, topic, partition, cur)
}

// beginning says that no record has landed under the cursor's generation. Such a cursor has to be on the offsets topic before the
// first does, so that every batch of ours lies above a known cursor whatever is lost. Whoever wrote it may have died before that.
func (c Cursor) beginning() bool { return c.Sequence == 0 && !c.Foreign }

// find returns a partition's entry, and tells a partition that has no cursor from a bucket that has none yet: what was looked for before
// the bucket was loaded is looked for again.
func (c *Cursors) find(ctx context.Context, topic string, partition int32) (entry, error) {
	key := c.keyOf(topic, partition)
	found, err := c.read(ctx, key)
	if err != nil || !found.deleted {
		return found, err
	}
	if err = c.CheckLoaded(ctx); err == nil {
		if found, err = c.read(ctx, key); err == nil && found.deleted {
			err = ErrNoCursor
		}
	}
	if err != nil {
		err = fmt.Errorf("cursor of %s %s-%d: %w", c.flow.Name(), topic, partition, err)
	}
	return found, err
}

// read returns the entry of a key, marked as deleted where there is none.
func (c *Cursors) read(ctx context.Context, key string) (found entry, err error) {
	err = c.queue.call(ctx, "read "+key, func(ctx context.Context) (err error) {
		found, err = c.queue.current().cursors.get(ctx, key)
		return err
	})
	return found, err
}

// Create writes the first cursor of a partition to KV and to the offsets topic, and returns its revision: before that, no batch
// may land. ErrLost where there is one already.
func (c *Cursors) Create(ctx context.Context, topic string, partition int32, cur Cursor) (uint64, error) {
	revision, err := c.put(ctx, topic, partition, cur, 0)
	if err != nil {
		return 0, err
	}
	// The bucket may have been wiped since somebody asked it for this cursor. Then it is not known that there is none.
	loaded, err := c.Loaded(ctx)
	if err != nil {
		return 0, err
	}
	if !loaded {
		return 0, errors.Join(ErrNotLoaded, c.delete(ctx, topic, partition, revision))
	}
	return revision, c.Publish(ctx, topic, partition, cur)
}

func (c *Cursors) delete(ctx context.Context, topic string, partition int32, revision uint64) error {
	key := c.keyOf(topic, partition)
	return c.queue.call(ctx, "delete "+key, func(ctx context.Context) error {
		return lost(c.queue.current().cursors.kv.Delete(ctx, key, jetstream.LastRevision(revision)))
	})
}

// Commit replaces the cursor that has a revision and returns the new one's, or ErrLost where somebody else was faster. The
// first of a generation, which has counted nothing yet, is published as well before Commit returns, so there is no need to do
// it once more; any other waits for Publish.
//
// An error other than ErrLost leaves it open whether the cursor was written. Get reads it again, and publishes it where that is
// what failed.
func (c *Cursors) Commit(ctx context.Context, topic string, partition int32, cur Cursor, revision uint64) (uint64, error) {
	revision, err := c.put(ctx, topic, partition, cur, revision)
	if err == nil && cur.beginning() {
		err = c.Publish(ctx, topic, partition, cur)
	}
	return revision, err
}

// put is the compare-and-set behind Create and Commit; revision 0 is no cursor.
func (c *Cursors) put(ctx context.Context, topic string, partition int32, cur Cursor, revision uint64) (uint64, error) {
	return c.putValue(ctx, c.keyOf(topic, partition), cur.encode(), revision)
}

func (c *Cursors) putValue(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	var written uint64
	err := c.queue.call(ctx, "write "+key, func(ctx context.Context) (err error) {
		kv := c.queue.current().cursors.kv
		if revision == 0 {
			written, err = kv.Create(ctx, key, value)
		} else {
			written, err = kv.Update(ctx, key, value, revision)
		}
		return lost(err)
	})
	return written, err
}

// lost turns NATS' answer to a compare-and-set on an old revision into ErrLost.
func lost(err error) error {
	var api *jetstream.APIError
	if errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) ||
		errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
			api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant) {
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
	return err
}

// All returns every cursor of the flow, up to date. One that this kferry cannot read is there with a hold for ReasonFormat. Before
// Load, the result may be incomplete.
func (c *Cursors) All(ctx context.Context) (map[kafka.TopicPartition]Cursor, error) {
	return c.view.get(ctx, "read cursors of "+c.flow.Name())
}

func (c *Cursors) decode(key string, value []byte) (kafka.TopicPartition, Cursor, error) {
	tp, err := parseKey(key)
	if err != nil {
		return tp, Cursor{}, err
	}
	cur, _ := decodeCursor(value) // its hold says what an error would
	return tp, cur, nil
}
