import java.nio.ByteBuffer;
import java.util.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.record.*;
import org.apache.kafka.common.record.Record;
import org.apache.kafka.common.utils.BufferSupplier;

/**
 * Writes oldformat.txt with Kafka's own classes: message sets of magic 0 and 1 as they lie in a broker's log, one after the other, and
 * what Kafka's own reader makes of each.
 *
 *   java -cp kafka-clients-3.3.2.jar:lz4-java-1.8.0.jar:snappy-java-1.1.8.4.jar:slf4j-api-1.7.36.jar OldFormat.java > oldformat.txt
 */
public class OldFormat {
    static final long TIME = 1400000000000L, APPENDED = 1450000000000L;
    static long offset = 0;

    public static void main(String[] args) {
        for (byte magic = 0; magic <= 1; magic++) {
            for (CompressionType codec : List.of(CompressionType.NONE, CompressionType.GZIP, CompressionType.SNAPPY, CompressionType.LZ4)) {
                String name = "magic-" + magic + "-" + codec.name;
                write(name, set(magic, codec, TimestampType.CREATE_TIME));
                if (magic == 1)
                    write(name + "-append-time", set(magic, codec, TimestampType.LOG_APPEND_TIME));
                write(name + "-compacted", compacted(set(magic, codec, TimestampType.CREATE_TIME)));
            }
        }
        write("magic-2-gzip", set((byte) 2, CompressionType.GZIP, TimestampType.CREATE_TIME));
        write("magic-1-none-again", set((byte) 1, CompressionType.NONE, TimestampType.CREATE_TIME));
    }

    /** Null and empty keys and values, a time that goes back, one that is missing, and a value that compresses. */
    static MemoryRecords set(byte magic, CompressionType codec, TimestampType type) {
        MemoryRecordsBuilder builder = MemoryRecords.builder(ByteBuffer.allocate(1 << 16), magic, codec, type, offset, APPENDED);
        builder.append(TIME, "k".getBytes(), ("first at " + offset).getBytes());
        builder.append(TIME - 5, null, "no key".getBytes());
        builder.append(TIME + 7, "tombstone".getBytes(), null);
        builder.append(TIME + 7, new byte[0], new byte[0]);
        builder.append(RecordBatch.NO_TIMESTAMP, (byte[]) null, null);
        builder.append(TIME + 9, "large".getBytes(), "0123456789".repeat(30).getBytes());
        offset += 6;
        return builder.build();
    }

    /** What the log cleaner leaves of a set: the first record, one in the middle and the last are gone. */
    static MemoryRecords compacted(MemoryRecords whole) {
        List<Long> gone = new ArrayList<>();
        int i = 0;
        for (Record r : whole.records())
            if (Set.of(0, 3, 5).contains(i++))
                gone.add(r.offset());
        ByteBuffer out = ByteBuffer.allocate(1 << 16);
        whole.filterTo(new TopicPartition("t", 0), new MemoryRecords.RecordFilter(0, 0) {
            protected BatchRetentionResult checkBatchRetention(RecordBatch b) { return new BatchRetentionResult(BatchRetention.DELETE_EMPTY, false); }
            protected boolean shouldRetainRecord(RecordBatch b, Record r) { return !gone.contains(r.offset()); }
        }, out, Integer.MAX_VALUE, BufferSupplier.NO_CACHING);
        out.flip();
        return MemoryRecords.readableRecords(out);
    }

    static void write(String name, MemoryRecords set) {
        ByteBuffer bytes = set.buffer();
        System.out.println("set " + name + " " + hex(bytes));
        for (RecordBatch batch : set.batches()) {
            batch.ensureValid();
            for (Record r : batch) {
                r.ensureValid();
                System.out.println("record " + r.offset() + " " + r.timestamp() + " " + hex(r.key()) + " " + hex(r.value()));
            }
        }
    }

    static String hex(ByteBuffer bytes) {
        if (bytes == null)
            return "null";
        byte[] all = new byte[bytes.remaining()];
        bytes.duplicate().get(all);
        return '"' + HexFormat.of().formatHex(all) + '"';
    }
}
