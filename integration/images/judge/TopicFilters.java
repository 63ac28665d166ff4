import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

import org.apache.kafka.common.config.ConfigException;
import org.apache.kafka.connect.mirror.DefaultTopicFilter;

/**
 * Asks MirrorMaker's own filter which topics a list of patterns selects. Each line of the input is a list and any number of
 * names, each UTF-8 in Base64, separated by blanks. Answers each with a line: "wrong" and why where MirrorMaker refuses the
 * list, else a digit for each name: 1 where it matches, 0 where it doesn't, x where Java itself fails or
 * takes longer than a second for all of them.
 */
public class TopicFilters {
    public static void main(String[] args) throws IOException {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.US_ASCII);
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] words = line.split(" ", -1);
            out.println(answerInTime(words));
        }
        out.flush();
        System.exit(0); // whatever still matches
    }

    private static String answerInTime(String[] words) {
        FutureTask<String> answer = new FutureTask<>(() -> answer(decode(words[0]), words));
        Thread thread = new Thread(answer);
        thread.setDaemon(true);
        thread.start();
        try {
            return answer.get(1, TimeUnit.SECONDS);
        } catch (TimeoutException e) {
            return "x".repeat(words.length - 1);
        } catch (InterruptedException | ExecutionException e) {
            throw new IllegalStateException(e);
        }
    }

    private static String answer(String list, String[] words) {
        try (DefaultTopicFilter filter = new DefaultTopicFilter()) {
            filter.configure(Map.of("topics", list, "topics.exclude", ""));
            StringBuilder answer = new StringBuilder();
            for (int i = 1; i < words.length; i++) {
                answer.append(answer(filter, decode(words[i])));
            }
            return answer.toString();
        } catch (IllegalArgumentException | ConfigException e) { // the first is what Pattern throws
            return "wrong " + String.valueOf(e.getMessage()).replaceAll("\\s+", " ");
        } catch (RuntimeException e) {
            return "x".repeat(words.length - 1);
        }
    }

    private static char answer(DefaultTopicFilter filter, String name) {
        try {
            return filter.shouldReplicateTopic(name) ? '1' : '0';
        } catch (RuntimeException | StackOverflowError e) {
            return 'x';
        }
    }

    private static String decode(String word) {
        return new String(Base64.getDecoder().decode(word), StandardCharsets.UTF_8);
    }
}
