import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;

import org.apache.kafka.connect.mirror.MirrorMakerConfig;
import org.apache.kafka.connect.mirror.MirrorSourceConnector;
import org.apache.kafka.connect.mirror.SourceAndTarget;

/**
 * Says what MirrorMaker's driver makes of an mm2.properties: each line of the input is one file in Base64. Answers each with a
 * line that holds, for every herder, the pair and what its connectors and, under "worker.", its workers are told, as
 * A->B:KEY=VALUE with key and value in Base64 without padding, separated by blanks.
 */
public class DedicatedMode {
    public static void main(String[] args) throws IOException {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.US_ASCII);
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            Properties properties = new Properties();
            properties.load(new ByteArrayInputStream(Base64.getDecoder().decode(line)));
            Map<String, String> map = new HashMap<>();
            properties.stringPropertyNames().forEach(key -> map.put(key, properties.getProperty(key)));
            map.put("plugin.discovery", "service_load"); // else it looks through every jar, for each file
            out.println(answer(new MirrorMakerConfig(map)));
        }
        out.flush();
    }

    private static String answer(MirrorMakerConfig config) {
        StringBuilder answer = new StringBuilder();
        for (SourceAndTarget pair : config.clusterPairs()) {
            config.connectorBaseConfig(pair, MirrorSourceConnector.class).forEach((k, v) -> append(answer, pair, k, v));
            config.workerConfig(pair).forEach((k, v) -> append(answer, pair, "worker." + k, v));
        }
        return answer.toString().trim();
    }

    private static void append(StringBuilder answer, SourceAndTarget pair, String key, String value) {
        answer.append(' ').append(pair).append(':').append(base64(key)).append('=').append(base64(value));
    }

    private static String base64(String text) {
        return Base64.getEncoder().withoutPadding().encodeToString(text.getBytes(StandardCharsets.UTF_8));
    }
}
