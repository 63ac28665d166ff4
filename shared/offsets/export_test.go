package offsets

import "github.com/kferry/kferry/shared/kafka"

// Keep adds chunks as if they had been read from the topic.
func (m *Map) Keep(tp kafka.TopicPartition, chunks []Sealed) {
	records := make([]kafka.Record, len(chunks))
	for i, s := range chunks {
		records[i] = kafka.Record{Key: m.archive.key(tp, s.source, linkOf(s.value)), Value: s.value}
	}
	m.add(records)
}

// PendingSizes are the lengths of the pending chunks.
func (t *Track) PendingSizes() (all []int) {
	for _, s := range t.pending {
		all = append(all, len(s.value))
	}
	return all
}
