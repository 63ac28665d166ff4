package lease

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// changesBatch is how many entries one answer holds.
const changesBatch = 1_000

// A bucket is a NATS key-value bucket: keys, values, and for each key the revision of its last write.
type bucket struct {
	stream jetstream.Stream
	kv     jetstream.KeyValue
	api    string // what the subjects of JetStream's API begin with
}

// An entry is a key's last write.
type entry struct {
	key      string
	value    []byte
	revision uint64
	deleted  bool
}

// createBucket creates what jetstream.CreateKeyValue would, but with revisions that begin at createStream's number.
func (q *Queue) createBucket(ctx context.Context, name string, storage jetstream.StorageType) (bucket, error) {
	s, err := q.createStream(ctx, jetstream.StreamConfig{
		Name:              "KV_" + name,
		Subjects:          []string{"$KV." + name + ".>"},
		Storage:           storage,
		MaxMsgsPerSubject: 1,
		Discard:           jetstream.DiscardNew,
		AllowRollup:       true,
		DenyDelete:        true,
		AllowDirect:       true,
	})
	if err != nil {
		return bucket{}, err
	}
	kv, err := q.js.KeyValue(ctx, name)
	return bucket{stream: s, kv: kv, api: q.api}, wrap(err, "open bucket %s", name)
}

// subject is where the stream has a key.
func (b bucket) subject(key string) string { return "$KV." + b.kv.Bucket() + "." + key }

// written is where a key is written to: NATS has the subject behind the API's where that is another domain's or account's.
func (b bucket) written(key string) string {
	if b.api == defaultAPIPrefix {
		return b.subject(key)
	}
	return b.api + b.subject(key)
}

// get returns the entry of a key, marked as deleted where there is none.
func (b bucket) get(ctx context.Context, key string) (entry, error) {
	e, err := b.kv.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return entry{key: key, deleted: true}, nil
	}
	if err != nil {
		return entry{}, err
	}
	return entry{key: key, value: e.Value(), revision: e.Revision()}, nil
}

// changes returns the entries that match a filter and were written after a revision, in order, up to those of about now. One
// request and its answers: there is no watch on the server that could be lost with it.
func (b bucket) changes(ctx context.Context, conn *nats.Conn, filter string, after uint64) ([]entry, error) {
	info, err := b.stream.Info(ctx)
	if err != nil {
		return nil, err
	}
	return b.changesUpTo(ctx, conn, filter, after, info.State.LastSeq)
}

func (b bucket) changesUpTo(ctx context.Context, conn *nats.Conn, filter string, after, last uint64) ([]entry, error) {
	answers, err := conn.SubscribeSync(conn.NewInbox())
	if err != nil {
		return nil, err
	}
	defer answers.Unsubscribe()
	var entries []entry
	for after < last { // what is written meanwhile is not waited for
		batch, more, err := b.request(ctx, conn, answers, filter, after+1)
		if err != nil {
			return nil, err
		}
		entries = append(entries, batch...)
		if !more || len(batch) == 0 {
			break
		}
		after = batch[len(batch)-1].revision
	}
	return entries, nil
}

// request asks for one batch from a revision on, and says whether there is more behind it.
func (b bucket) request(ctx context.Context, conn *nats.Conn, answers *nats.Subscription, filter string, from uint64) ([]entry, bool, error) {
	query := struct {
		From   uint64 `json:"seq"`
		Filter string `json:"next_by_subj"`
		Batch  int    `json:"batch"`
	}{from, b.subject(filter), changesBatch}
	to := b.api + "DIRECT.GET.KV_" + b.kv.Bucket()
	if err := conn.PublishRequest(to, answers.Subject, encodeJSON(query)); err != nil {
		return nil, false, err
	}
	var batch []entry
	for { // ends with the batch, or with ctx
		m, err := answers.NextMsgWithContext(ctx)
		if err != nil {
			return nil, false, err
		}
		switch status := m.Header.Get("Status"); status {
		case "":
			e, err := b.entry(m)
			if err != nil {
				return nil, false, err
			}
			batch = append(batch, e)
		case "204": // end of batch
			return batch, m.Header.Get("Nats-Num-Pending") != "0", nil
		case "404": // nothing
			return batch, false, nil
		case "503":
			return nil, false, nats.ErrNoResponders
		default:
			return nil, false, fmt.Errorf("read bucket %s: %s %s", b.kv.Bucket(), status, m.Header.Get("Description"))
		}
	}
}

func (b bucket) entry(m *nats.Msg) (entry, error) {
	revision, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil {
		return entry{}, fmt.Errorf("read bucket %s: revision: %w", b.kv.Bucket(), err)
	}
	return entry{
		key:      strings.TrimPrefix(m.Header.Get(jetstream.SubjectHeader), b.subject("")),
		value:    m.Data,
		revision: revision,
		deleted:  m.Header.Get("KV-Operation") != "",
	}, nil
}
