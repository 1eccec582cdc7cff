import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.opensearch.Version;
import org.opensearch.common.logging.LogConfigurator;
import org.opensearch.common.settings.Settings;
import org.opensearch.env.Environment;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.node.Node;
import org.opensearch.plugins.PluginInfo;
import org.opensearch.transport.Netty4ModulePlugin;

/** One OpenSearch node in this JVM, with HTTP as its only module. */
public class Serve {
    static class Embedded extends Node {
        Embedded(Environment env, List<PluginInfo> plugins) { super(env, plugins, false); }
    }

    public static void main(String[] args) throws Exception {
        Settings settings = Settings.builder().put("path.home", System.getProperty("e2e.home")).build();
        Path config = Path.of(System.getProperty("e2e.config"));
        Environment env = InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), config, () -> "n1");
        LogConfigurator.configure(env);
        PluginInfo http = new PluginInfo("transport-netty4", "", "NA", Version.CURRENT, "21", Netty4ModulePlugin.class.getName(), null, List.of(), false);
        Embedded node = new Embedded(env, List.of(http));
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
