import java.util.TreeSet;

import org.apache.kafka.connect.mirror.MirrorCheckpointConnector;
import org.apache.kafka.connect.mirror.MirrorHeartbeatConnector;
import org.apache.kafka.connect.mirror.MirrorSourceConnector;

/** Lists the keys that MirrorMaker's connectors define: at the top of an mm2.properties no others reach them. */
public class ConnectorKeys {
    public static void main(String[] args) {
        TreeSet<String> keys = new TreeSet<>(new MirrorSourceConnector().config().names());
        keys.addAll(new MirrorCheckpointConnector().config().names());
        keys.addAll(new MirrorHeartbeatConnector().config().names());
        keys.forEach(System.out::println);
    }
}
