import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;

import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.connect.mirror.MirrorClient;

/**
 * What MirrorMaker's own client makes of a target. Its arguments are the target's bootstrap servers and, where they are not the
 * defaults, settings like replication.policy.class=….
 *
 * <p>Each line of input is a question, with arguments between blanks; its answer is one line, sorted.
 */
public final class MirrorClients {
    public static void main(String[] args) throws Exception {
        Map<String, Object> settings = new TreeMap<>();
        settings.put("bootstrap.servers", args[0]);
        for (int i = 1; i < args.length; i++) {
            String[] setting = args[i].split("=", 2);
            settings.put(setting[0], setting[1]);
        }
        BufferedReader questions = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        try (MirrorClient client = new MirrorClient(settings)) {
            for (String question = questions.readLine(); question != null; question = questions.readLine()) {
                System.out.println(answer(client, question.split(" ")));
            }
        }
    }

    private static String answer(MirrorClient client, String[] words) throws Exception {
        switch (words[0]) {
            case "upstreamClusters":
                return new TreeSet<>(client.upstreamClusters()).toString();
            case "replicationHops":
                return String.valueOf(client.replicationHops(words[1]));
            case "heartbeatTopics":
                return new TreeSet<>(client.heartbeatTopics()).toString();
            case "checkpointTopics":
                return new TreeSet<>(client.checkpointTopics()).toString();
            case "remoteTopics":
                return new TreeSet<>(words.length > 1 ? client.remoteTopics(words[1]) : client.remoteTopics()).toString();
            case "remoteConsumerOffsets":
                return offsets(client.remoteConsumerOffsets(words[2], words[1], Duration.ofSeconds(20)));
            default:
                throw new IOException("unknown question " + words[0]);
        }
    }

    private static String offsets(Map<TopicPartition, OffsetAndMetadata> all) {
        Map<String, Long> sorted = new TreeMap<>();
        all.forEach((partition, offset) -> sorted.put(partition.toString(), offset.offset()));
        return sorted.toString();
    }
}
