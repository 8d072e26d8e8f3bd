// PORT MODE CA PASSWORD MECHANISM PARTIAL SENDER RECIPIENT..., the message on standard input.
import jakarta.mail.*;
import jakarta.mail.internet.*;
import java.io.FileInputStream;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.Arrays;
import java.util.Properties;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

public class Post {
    public static void main(String[] arguments) throws Exception {
        boolean implicit = arguments[1].equals("Submissions");
        KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
        trusted.load(null, null);
        try (FileInputStream file = new FileInputStream(arguments[2])) {
            trusted.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(file));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(trusted);
        SSLContext tls = SSLContext.getInstance("TLS");
        tls.init(null, trust.getTrustManagers(), null);

        Properties properties = new Properties();
        String smtp = implicit ? "mail.smtps." : "mail.smtp.";
        properties.put(smtp + "host", "localhost");
        properties.put(smtp + "port", arguments[0]);
        properties.put(smtp + "localhost", "client.example");
        properties.put(smtp + "auth", "true");
        properties.put(smtp + "auth.mechanisms", arguments[4]);
        properties.put(smtp + "ssl.socketFactory", tls.getSocketFactory());
        properties.put(smtp + "ssl.checkserveridentity", "true");
        properties.put(smtp + "starttls.enable", "true");
        properties.put(smtp + "starttls.required", implicit ? "false" : "true");
        properties.put(smtp + "sendpartial", arguments[5]);
        properties.put(smtp + "from", arguments[6]);
        properties.put(smtp + "allow8bitmime", "true");
        Session session = Session.getInstance(properties);
        MimeMessage message = new MimeMessage(session, System.in);
        Address[] recipients = Arrays.stream(arguments).skip(7).map(Post::address).toArray(Address[]::new);
        try (Transport transport = session.getTransport(implicit ? "smtps" : "smtp")) {
            transport.connect("alice", arguments[3]);
            transport.sendMessage(message, recipients);
        } catch (AuthenticationFailedException refused) {
            System.err.println(refused.getMessage());
            System.exit(3);
        } catch (SendFailedException refused) {
            System.err.println(refused.getMessage() + " refused: " + Arrays.toString(refused.getInvalidAddresses()));
            System.exit(refused.getValidSentAddresses() != null && refused.getValidSentAddresses().length > 0 ? 4 : 5);
        }
    }

    private static Address address(String text) {
        try {
            return new InternetAddress(text);
        } catch (AddressException error) {
            throw new IllegalArgumentException(error);
        }
    }
}
