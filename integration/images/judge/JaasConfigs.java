import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.Map;

import javax.security.auth.login.AppConfigurationEntry;

import org.apache.kafka.common.config.SaslConfigs;
import org.apache.kafka.common.config.types.Password;
import org.apache.kafka.common.security.JaasContext;

/**
 * Reads texts of sasl.jaas.config as Kafka's clients do: each line of the input is one in Base64. Answers each with a line: "wrong"
 * and why where Kafka refuses it, else "right", the class, the flag's first letters and " NAME=VALUE" for each option, all UTF-8 in Base64
 * without padding but for the flag. An option without a name, which Kafka takes, has "-" for one.
 */
public class JaasConfigs {
    public static void main(String[] args) throws IOException {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.US_ASCII);
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            out.println(answer(new String(Base64.getDecoder().decode(line), StandardCharsets.UTF_8)));
        }
        out.flush();
    }

    private static String answer(String text) {
        AppConfigurationEntry entry;
        try {
            JaasContext context = JaasContext.loadClientContext(Map.of(SaslConfigs.SASL_JAAS_CONFIG, new Password(text)));
            entry = context.configurationEntries().get(0);
        } catch (IllegalArgumentException e) {
            return "wrong " + String.valueOf(e.getMessage()).replaceAll("[^ -~]+", " ");
        }
        String flag = entry.getControlFlag().toString();
        StringBuilder answer = new StringBuilder("right ").append(base64(entry.getLoginModuleName())).append(' ')
            .append(flag.substring(flag.lastIndexOf(' ') + 1));
        for (Map.Entry<String, ?> option : entry.getOptions().entrySet()) {
            answer.append(' ').append(option.getKey() == null ? "-" : base64(option.getKey())).append('=').append(base64((String) option.getValue()));
        }
        return answer.toString();
    }

    private static String base64(String text) {
        return Base64.getEncoder().withoutPadding().encodeToString(text.getBytes(StandardCharsets.UTF_8));
    }
}
