// Builds the page into dist/: index.html plus assets/ with names that change with their content, each with a .gz beside it.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { createMock } from "./dev/mock.mjs";

/** The agent embeds what lies in dist/: compressing here costs the binary no code and the agent no CPU. */
function gzipAssets() {
  let outDir = "dist";
  return {
    name: "gzip-assets",
    apply: "build",
    configResolved: (config) => void (outDir = join(config.root, config.build.outDir)),
    closeBundle() {
      const files = readdirSync(outDir, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
      for (const file of files) {
        const path = join(file.parentPath, file.name);
        writeFileSync(`${path}.gz`, gzipSync(readFileSync(path), { level: 9 }));
      }
    },
  };
}

/** `npm run dev`: the page's sources with made-up answers behind them. */
function mockApi() {
  return {
    name: "mock-api",
    apply: "serve",
    configureServer(server) {
      const mock = createMock();
      server.middlewares.use((request, response, next) => (mock.api(request, response) ? undefined : next()));
    },
  };
}

export default {
  base: "./",
  plugins: [gzipAssets(), mockApi()],
  server: { host: "127.0.0.1", port: 5180 },
  build: {
    target: "es2022",
    modulePreload: { polyfill: false },
    // A data: URL would need an exception in the page's content security policy.
    assetsInlineLimit: 0,
    rollupOptions: {
      output: { entryFileNames: "assets/app-[hash].js", assetFileNames: "assets/app-[hash][extname]" },
    },
  },
  test: { include: ["test/**/*.test.ts"] },
};
