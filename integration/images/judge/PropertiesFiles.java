import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.CharsetEncoder;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.Properties;

/**
 * Reads files of java.util.Properties: each line of the input is one file in Base64. Answers each with a line: "wrong" where
 * Java refuses the file, else "right" and " KEY=VALUE" for each key, both UTF-8 in Base64 without padding.
 */
public class PropertiesFiles {
    public static void main(String[] args) throws IOException {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.US_ASCII);
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            out.println(answer(Base64.getDecoder().decode(line)));
        }
        out.flush();
    }

    private static String answer(byte[] file) throws IOException {
        Properties properties = new Properties();
        try {
            properties.load(new ByteArrayInputStream(file));
        } catch (IllegalArgumentException e) {
            return "wrong";
        }
        StringBuilder answer = new StringBuilder("right");
        for (String key : properties.stringPropertyNames()) {
            answer.append(' ').append(base64(key)).append('=').append(base64(properties.getProperty(key)));
        }
        return answer.toString();
    }

    /** Half a surrogate pair becomes U+FFFD, as it does in Go. */
    private static String base64(String text) throws CharacterCodingException {
        CharsetEncoder encoder = StandardCharsets.UTF_8.newEncoder()
            .onMalformedInput(CodingErrorAction.REPLACE)
            .replaceWith(new byte[] {(byte) 0xEF, (byte) 0xBF, (byte) 0xBD});
        ByteBuffer bytes = encoder.encode(CharBuffer.wrap(text));
        byte[] used = new byte[bytes.remaining()];
        bytes.get(used);
        return Base64.getEncoder().withoutPadding().encodeToString(used);
    }
}
