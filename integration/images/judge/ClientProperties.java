import java.util.TreeSet;

import org.apache.kafka.clients.admin.AdminClientConfig;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;

/** Lists the properties of Kafka's clients that are about security. */
public class ClientProperties {
    public static void main(String[] args) {
        TreeSet<String> keys = new TreeSet<>(AdminClientConfig.configDef().names());
        keys.addAll(ConsumerConfig.configDef().names());
        keys.addAll(ProducerConfig.configDef().names());
        keys.removeIf(key -> !key.matches("(security|ssl|sasl)\\..*"));
        keys.forEach(System.out::println);
    }
}
