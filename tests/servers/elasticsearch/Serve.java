import java.nio.file.Path;
import java.util.Map;
import java.util.Set;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.KeyStoreWrapper;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.node.InternalSettingsPreparer;
import org.elasticsearch.node.Node;
import org.elasticsearch.plugins.PluginsLoader;

/** One Elasticsearch node in this JVM; its home directory has config/, modules/ and lib/, as in a distribution. */
public class Serve {
    public static void main(String[] args) throws Exception {
        Path home = Path.of(System.getProperty("e2e.home"));
        Settings.Builder base = Settings.builder().put("path.home", home.toString());
        String password = System.getenv("ES_PASSWORD");
        if (password != null && !password.isEmpty()) {
            KeyStoreWrapper secrets = KeyStoreWrapper.create();
            secrets.setString("bootstrap.password", password.toCharArray());
            base.setSecureSettings(secrets);
        }
        LogConfigurator.configureESLogging();
        Environment env = InternalSettingsPreparer.prepareEnvironment(base.build(), Map.of(), Path.of(System.getProperty("e2e.config")), () -> "n1");
        LogConfigurator.configure(env, true);
        var modules = PluginsLoader.loadModulesBundles(env.modulesDir(), false);
        Node node = new Node(env, PluginsLoader.createPluginsLoader(modules, Set.of(), Map.of(), false));
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try { node.close(); } catch (Exception e) { e.printStackTrace(); }
        }));
        node.start();
        if ("1".equals(System.getProperty("e2e.until-eof"))) {
            // The tests hold the other end: whatever ends them, even kill -9, closes it.
            while (System.in.read() != -1) { }
            System.exit(0);
        }
        Thread.currentThread().join();
    }
}
