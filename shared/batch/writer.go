package batch

// writer writes records one after the other, behind the room for a header.
type writer struct {
	bytes      []byte
	attributes int16 // beside the codec
	baseOffset int64
	next       int32 // offset delta of the record to come
	count      int32
	baseTime   int64 // the first record's: what Kafka's own clients take
	maxTime    int64
}

// newWriter writes into buffer, of which it keeps only the room.
func newWriter(buffer []byte, baseOffset int64) writer {
	var header [HeaderBytes]byte
	return writer{bytes: append(buffer[:0], header[:]...), baseOffset: baseOffset}
}

func (w *writer) add(timestamp int64, r rawRecord) {
	if w.count == 0 {
		w.baseTime, w.maxTime = timestamp, timestamp
	}
	w.maxTime = max(w.maxTime, timestamp)
	w.bytes = r.append(w.bytes, timestamp-w.baseTime, w.next)
	w.next++
	w.count++
}

// batch is what has been written, in place.
func (w *writer) batch() Batch { return w.head(w.bytes, None) }

// deflated is what has been written, compressed into buffer.
func (w *writer) deflated(buffer []byte, c Codec) (Batch, error) {
	out, err := c.deflate(append(buffer[:0], w.bytes[:HeaderBytes]...), w.bytes[HeaderBytes:])
	if err != nil {
		return nil, err
	}
	return w.head(out, c), nil
}

func (w *writer) head(b Batch, c Codec) Batch {
	b.putInt64(0, w.baseOffset)
	b.putInt32(atLength, int32(len(b)-prefixBytes))
	b.putInt32(atLeaderEpoch, unknownEpoch)
	b[atMagic] = 2
	b.putInt16(atAttributes, int16(c)|w.attributes)
	b.putInt32(atLastDelta, w.next-1)
	b.putInt64(atBaseTime, w.baseTime)
	b.putInt64(atMaxTime, w.maxTime)
	b.putInt64(atProducerID, noProducer)
	b.putInt16(atEpoch, noProducer)
	b.putInt32(atSequence, noSequence)
	b.putInt32(atCount, w.count)
	b.seal()
	return b
}
