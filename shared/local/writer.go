package local

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	customers = 97                     // distinct keys, so that they meet every partition again and again
	keyless   = 5                      // every so manieth record has no key
	pulse     = 100 * time.Millisecond // between two bursts of Stream
)

// A Writer is an application that writes to a topic. No two records of one Env are alike, so a copy that is lost or doubled shows.
type Writer struct {
	client  *kgo.Client
	serial  *atomic.Int64
	alias   string
	topic   string
	written atomic.Int64
}

// Writer opens a writer to a topic that exists. Options come after its own, to add transactions or another compression.
func (e *Env) Writer(alias, topic string, options ...kgo.Opt) (*Writer, error) {
	own := []kgo.Opt{kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(kgo.Lz4Compression())}
	client, err := e.Client(alias, append(own, options...)...)
	if err != nil {
		return nil, err
	}
	return &Writer{client: client, serial: &e.serial, alias: alias, topic: topic}, nil
}

// Close ends the writer.
func (w *Writer) Close() { w.client.Close() }

// Written is how many records the cluster has acknowledged.
func (w *Writer) Written() int64 { return w.written.Load() }

// Write writes n records and waits until the cluster has acknowledged them.
func (w *Writer) Write(ctx context.Context, n int) error {
	records := make([]*kgo.Record, n)
	for i := range records {
		records[i] = w.record()
	}
	if err := w.client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("write to %s of %q: %w", w.topic, w.alias, err)
	}
	w.written.Add(int64(n))
	return nil
}

// Stream writes about so many records a second until the context ends, which is not an error.
func (w *Writer) Stream(ctx context.Context, perSecond int) error {
	tick := time.NewTicker(pulse)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		// The last burst is finished: half-written ones would leave Written behind the topic.
		if err := w.Write(context.WithoutCancel(ctx), max(1, perSecond*int(pulse)/int(time.Second))); err != nil {
			return err
		}
	}
}

func (w *Writer) record() *kgo.Record {
	serial := w.serial.Add(1)
	r := &kgo.Record{
		Value:   fmt.Appendf(nil, `{"from":%q,"topic":%q,"serial":%d,"cents":%d}`, w.alias, w.topic, serial, serial*7919%100000),
		Headers: []kgo.RecordHeader{{Key: "origin", Value: []byte(w.alias)}},
	}
	if serial%keyless != 0 {
		r.Key = fmt.Appendf(nil, "customer-%d", serial%customers)
	}
	return r
}
