package testbed

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const loadWithin = 5 * time.Minute // to produce one load

// Load describes records. The same load is the same records, whenever and wherever it is produced: values are unique by
// their number, keys, headers and nils follow from it, and the rest comes from the seed.
type Load struct {
	Records int
	First   int // number of the first record; a load that continues another starts where that ended

	ValueBytes int                  // of a record's value, about; 100 unless set
	BatchBytes int32                // most of a batch before compression; kgo's 1 MB unless set
	Codec      kgo.CompressionCodec // none unless set

	Start time.Time     // timestamp of record 0; an hour ago unless set
	Step  time.Duration // between two records' timestamps; 1 ms unless set

	PlainKeys bool // every record has a key and no headers; otherwise nil and empty keys, values and headers occur

	TxnRecords int // records of a transaction; no transactions unless set
	AbortEvery int // every so many-th transaction is aborted; none unless set

	Seed uint64
}

// Produce writes a load to a topic: record n to partition n modulo their number, in order. It returns the number of the
// next record.
func Produce(t T, c *Cluster, topic string, load Load) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), loadWithin)
	defer cancel()
	load = load.withDefaults()
	partitions := int32(len(c.Ends(topic)))
	client := c.Client(load.clientOpts(topic)...)
	defer client.Close()

	var failed atomic.Pointer[error]
	random := load.random()
	for n := load.First; n < load.First+load.Records; n++ {
		if load.beginsTxn(n) {
			if err := client.BeginTransaction(); err != nil {
				t.Fatalf("load %s: begin at %d: %v", topic, n, err)
			}
		}
		client.Produce(ctx, load.record(n, int32(n)%partitions, random), func(_ *kgo.Record, err error) {
			if err != nil {
				failed.CompareAndSwap(nil, &err)
			}
		})
		if load.endsTxn(n) {
			if err := load.endTxn(ctx, client, n); err != nil {
				t.Fatalf("load %s: end at %d: %v", topic, n, err)
			}
		}
	}
	if err := client.Flush(ctx); err != nil {
		t.Fatalf("load %s: %v", topic, err)
	}
	if err := failed.Load(); err != nil {
		t.Fatalf("load %s: %v", topic, *err)
	}
	return load.First + load.Records
}

func (l Load) withDefaults() Load {
	if l.ValueBytes == 0 {
		l.ValueBytes = 100
	}
	if l.Start.IsZero() {
		l.Start = time.Now().Add(-time.Hour)
	}
	l.Start = l.Start.Truncate(time.Millisecond) // what Kafka keeps of it
	if l.Step == 0 {
		l.Step = time.Millisecond
	}
	return l
}

func (l Load) random() *rand.Rand { return rand.New(rand.NewPCG(l.Seed, uint64(l.First))) }

func (l Load) clientOpts(topic string) []kgo.Opt {
	opts := []kgo.Opt{
		kgo.DefaultProduceTopic(topic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(l.Codec),
		kgo.ProducerLinger(20 * time.Millisecond), // lets batches fill up to the size that was asked for
		kgo.MaxBufferedRecords(100_000),
		kgo.MaxBufferedBytes(64 << 20),
	}
	if l.BatchBytes > 0 {
		opts = append(opts, kgo.ProducerBatchMaxBytes(l.BatchBytes))
	}
	if l.TxnRecords > 0 {
		opts = append(opts, kgo.TransactionalID(fmt.Sprintf("load-%s-%d", topic, l.Seed)))
	}
	return opts
}

// record makes record n. Its value begins with its number, and so does the key where the value is nil: [Diff] knows
// records by these.
func (l Load) record(n int, partition int32, random *rand.Rand) *kgo.Record {
	number := strconv.Itoa(n)
	r := &kgo.Record{
		Partition: partition,
		Timestamp: l.Start.Add(time.Duration(n) * l.Step),
		Key:       []byte("key-" + number),
		Value:     l.value(number, random),
	}
	if l.PlainKeys {
		return r
	}
	switch n % 7 {
	case 1:
		r.Key = nil
	case 2:
		r.Key = []byte{}
	case 3:
		r.Value = nil
	case 4:
		r.Headers = []kgo.RecordHeader{{Key: "nil"}, {Key: "empty", Value: []byte{}}, {Key: "", Value: []byte(number)}}
	case 5:
		r.Headers = []kgo.RecordHeader{{Key: "twice", Value: []byte("a")}, {Key: "twice", Value: []byte("b")}}
	}
	return r
}

// words is the vocabulary of values: text of it compresses to about 40 %, as records of applications do.
var words = func() (words [4096][8]byte) {
	random := rand.New(rand.NewPCG(1, 2))
	for i := range words {
		for j := range words[i] {
			words[i][j] = byte('a' + random.IntN(26))
		}
	}
	return words
}()

func (l Load) value(number string, random *rand.Rand) []byte {
	value := make([]byte, 0, l.ValueBytes+len(number)+8)
	value = append(append(value, number...), ' ')
	for len(value) < l.ValueBytes {
		word := &words[random.Uint32()%uint32(len(words))]
		value = append(value, word[:]...)
	}
	return value[:max(l.ValueBytes, len(number)+1)]
}

func (l Load) beginsTxn(n int) bool {
	return l.TxnRecords > 0 && (n-l.First)%l.TxnRecords == 0
}

func (l Load) endsTxn(n int) bool {
	return l.TxnRecords > 0 && ((n-l.First+1)%l.TxnRecords == 0 || n == l.First+l.Records-1)
}

func (l Load) endTxn(ctx context.Context, client *kgo.Client, n int) error {
	if err := client.Flush(ctx); err != nil {
		return err
	}
	txn := (n-l.First)/l.TxnRecords + 1
	commit := kgo.TryCommit
	if l.AbortEvery > 0 && txn%l.AbortEvery == 0 {
		commit = kgo.TryAbort
	}
	return client.EndTransaction(ctx, commit)
}
