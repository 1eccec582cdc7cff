// Made-up answers of the admin API for working on the page without an agent. A development tool: nothing of the product or its tests uses it.
//
//   npm run dev                               the page's sources, live, with these answers
//   npm run mock -- [--port 9280] [--scene S] [--prefix /some/path]
//                                             the built page as the agent serves it; scenes: normal holding empty locked
import { createServer } from "node:http";
import { existsSync, readFileSync } from "node:fs";
import { extname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

const GIB = 1024 ** 3;
const MEMORY = 15.6 * GIB;
const STARTED = Date.now() / 1000 - 3 * 3600 - 412;
const BOOTED = Date.now() / 1000 - 41 * 86400 - 7 * 3600;
const KEPT = 4000;

const PODS = [
  ["shop", "checkout-7d9f5c6b8-x2kqp", "app", ["http", "http", "http", "json"]],
  ["shop", "checkout-7d9f5c6b8-m8wzt", "app", ["http", "http", "json"]],
  ["shop", "catalog-5b8d7f9c44-lq7vd", "catalog", ["http", "java", "http"]],
  ["shop", "payments-0", "payments", ["json", "json", "warn"]],
  ["kube-system", "coredns-76f75df574-8r2lw", "coredns", ["dns"]],
  ["kube-system", "kube-proxy-hx9k4", "kube-proxy", ["klog"]],
  ["ingress", "nginx-6c5bdc8f4d-vt7nh", "controller", ["http", "http", "http"]],
];
const PLAIN = ["/var/log/syslog", "/var/log/auth.log"];

const pick = (list) => list[Math.floor(Math.random() * list.length)];
const between = (low, high) => Math.floor(low + Math.random() * (high - low));
const hex = (length) => Array.from({ length }, () => pick("0123456789abcdef")).join("");
const path = () => pick(["/api/v1/cart", "/api/v1/cart/items", "/healthz", "/api/v1/products?page=3", "/api/v1/orders/88213", "/static/app.css"]);

const TEXTS = {
  http: () => `10.244.${between(0, 6)}.${between(2, 250)} - "${pick(["GET", "GET", "GET", "POST"])} ${path()} HTTP/1.1" ${pick([200, 200, 200, 200, 304, 404, 502])} ${between(90, 9000)} ${(Math.random() * 0.4).toFixed(3)}s`,
  json: () => JSON.stringify({ level: pick(["info", "info", "info", "info", "warn", "error"]), msg: pick(["payment authorised", "cart updated", "retrying upstream", "session expired", "card declined by issuer"]), trace_id: hex(16), duration_ms: between(2, 480), user: between(1000, 9999) }),
  java: () => pick(["INFO  o.s.web.DispatcherServlet - Completed 200 OK", "DEBUG c.zaxxer.hikari.pool.HikariPool - Pool stats (total=10, active=2, idle=8, waiting=0)", "ERROR c.shop.catalog.PriceService - price lookup failed: java.net.SocketTimeoutException: Read timed out", "WARN  o.a.k.clients.NetworkClient - Connection to node 2 could not be established"]),
  warn: () => pick(["[warn] connection pool is 90 % used", "[info] settlement batch 4471 written", "[info] 3 transactions reconciled"]),
  dns: () => `[INFO] 10.244.${between(0, 6)}.${between(2, 250)}:${between(30000, 60000)} - ${between(1000, 65000)} "A IN ${pick(["payments.shop", "catalog.shop", "db.internal", "api.example.com"])}.svc.cluster.local. udp 54 false 512" NOERROR qr,aa,rd 106 0.000${between(100, 900)}s`,
  klog: () => `${pick(["I", "I", "I", "W", "E"])}1121 10:41:22.123456       1 ${pick(["proxier.go:853] \"SyncProxyRules complete\" elapsed=\"28.4ms\"", "reflector.go:539] watch of *v1.EndpointSlice ended with: too old resource version", "iptables.go:221] \"Could not set up iptables canary\" table=\"mangle\""])}`,
  syslog: () => pick(["n1 systemd[1]: Started Daily apt download activities.", "n1 containerd[812]: time=\"2026-11-21T10:41:22Z\" level=info msg=\"StopPodSandbox returned\"", "n1 kernel: [3571204.114] cali8d1: entered promiscuous mode", "n1 kubelet[903]: error: failed to read pod IP from plugin"]),
};

function makeLine(seconds) {
  const iso = `${new Date(seconds * 1000).toISOString().slice(0, -1)}${String(between(0, 1e6)).padStart(6, "0")}Z`;
  if (Math.random() < 0.06) {
    const file = pick(PLAIN);
    return { time: iso, stream: null, labels: { namespace: null, pod: null, container: null, file }, text: TEXTS.syslog() };
  }
  const [namespace, pod, container, kinds] = pick(PODS);
  const file = `/var/log/pods/${namespace}_${pod}_${uid(pod)}/${container}/0.log`;
  return { time: iso, stream: Math.random() < 0.15 ? "stderr" : "stdout", labels: { namespace, pod, container, file }, text: TEXTS[pick(kinds)]() };
}

/** The same pod always gets the same uid. */
function uid(pod) {
  const digits = [...pod].reduce((hash, letter) => (hash * 33n + BigInt(letter.charCodeAt(0))) & ((1n << 128n) - 1n), 5381n ** 12n);
  const text = (digits & ((1n << 128n) - 1n)).toString(16).padStart(32, "0").slice(0, 32);
  return [text.slice(0, 8), text.slice(8, 12), text.slice(12, 16), text.slice(16, 20), text.slice(20)].join("-");
}

/** A test of one line for a query; throws a sentence for a bad one. */
function compileQuery(query) {
  const tests = [...query.matchAll(/(-?)(?:(\w+):)?(?:"([^"]*)"|\/((?:[^/\\]|\\.)*)\/(?!\S)|(\S+))/g)].map(([, minus, field, phrase, regex, word]) => {
    const test = matcher(phrase ?? word ?? "", regex);
    const value = (line) => (field ? String(line.labels[field] ?? line[field] ?? "") : line.text);
    return (line) => test(value(line)) !== (minus === "-");
  });
  return (line) => tests.every((test) => test(line));
}

function matcher(word, regex) {
  if (regex === undefined) return (text) => text.toLowerCase().includes(word.toLowerCase());
  try {
    const expression = new RegExp(regex, "i");
    return (text) => expression.test(text);
  } catch (error) {
    throw new Error(`/${regex}/ is not a regular expression: ${error.message.split(": ").at(-1)}.`);
  }
}

/** One made-up node: `api(request, response)` answers and returns true, or returns false for other paths. */
export function createMock(scene = "normal") {
  const node = new Node(scene);
  const routes = {
    status: () => node.status(),
    "metrics/history": (query) => node.history(Number(query.get("since") ?? 0)),
    logs: (query) => node.logs(query),
    files: () => ({ files: node.files(), containers: [] }),
  };
  return {
    api(request, response) {
      const url = new URL(request.url, "http://mock");
      const name = /\/api\/v1\/(.*)$/.exec(url.pathname)?.[1];
      if (name === undefined) return false;
      if (scene === "locked") return say(response, 401, { error: "This needs the token." });
      try {
        if (name === "logs/tail") return node.tail(url.searchParams, request, response);
        if (!routes[name]) return say(response, 404, { error: `There is no ${name} here.` });
        return say(response, 200, routes[name](url.searchParams));
      } catch (error) {
        return say(response, 400, { error: error.message });
      }
    },
  };
}

function say(response, status, body) {
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
  return true;
}

class Node {
  constructor(scene) {
    this.scene = scene;
    this.lines = [];
    this.read = 1_284_310;
    this.readers = new Set();
    this.samples = [];
    const now = Date.now() / 1000;
    // Some minutes of past, with a pause in which nothing was measured.
    for (let age = 540; age >= 0; age--) if (age < 200 || age > 228) this.sample(Math.floor(now) - age);
    if (scene === "empty") return;
    for (let age = 5400; age > 0; age -= 2.5 * Math.random()) this.add(now - age);
    this.timer = setInterval(() => this.add(Date.now() / 1000), 170);
    this.timer.unref();
  }

  add(seconds) {
    const line = makeLine(seconds);
    this.lines.push(line);
    this.read += 1;
    if (this.lines.length > KEPT) this.lines.shift();
    for (const reader of this.readers) if (reader.test(line)) reader.response.write(`data: ${JSON.stringify(line)}\n\n`);
  }

  /** Slow waves with noise and a busy minute now and then. */
  sample(time) {
    const wave = (period, phase = 0) => (1 + Math.sin((2 * Math.PI * (time + phase)) / period)) / 2;
    const busy = wave(300) > 0.86 ? 1 : 0;
    const noise = () => Math.random();
    const user = 0.11 + 0.08 * wave(97) + 0.05 * noise() + 0.34 * busy;
    const system = 0.04 + 0.02 * wave(61) + 0.02 * noise() + 0.07 * busy;
    const used = (0.36 + 0.05 * wave(400)) * MEMORY;
    const cached = (0.31 + 0.03 * wave(900)) * MEMORY;
    this.samples.push({
      time, cpu_user: user, cpu_system: system, cpu_iowait: 0.012 * noise() + 0.09 * busy * noise(), cpu_steal: 0.004 * noise(), cpu_other: 0.003 * noise(),
      memory_used: used, memory_cached: cached, memory_available: MEMORY - used - 0.04 * MEMORY,
      disk_read: noise() < 0.2 ? 4e5 * noise() : 0, disk_write: 1.2e6 * noise() + 1.4e7 * busy * noise(),
      net_receive: 8e5 * (0.6 + 0.4 * wave(120)) * (0.8 + 0.4 * noise()) + 2.2e6 * busy, net_transmit: 5e5 * (0.6 + 0.5 * wave(140, 40)) * (0.8 + 0.4 * noise()),
      load1: 0.6 + 0.5 * wave(240) + 1.4 * wave(300, -40) ** 6,
    });
  }

  history(since) {
    for (let time = this.samples.at(-1).time + 1; time <= Date.now() / 1000; time++) this.sample(time);
    const page = this.samples.filter((sample) => sample.time > since);
    const names = Object.keys(this.samples[0]).filter((name) => name !== "time");
    return { step: 1, times: page.map((sample) => sample.time), series: Object.fromEntries(names.map((name) => [name, page.map((sample) => sample[name])])) };
  }

  status() {
    const now = Date.now() / 1000;
    const empty = this.scene === "empty";
    const holding = this.scene === "holding";
    const read = empty ? 0 : this.read;
    const flight = holding ? 48_211 : empty ? 0 : between(4, 40);
    return {
      version: "0.1.0", node: "worker-03", os: "Debian GNU/Linux 12", kernel: "6.1.0-26-amd64", cpus: 8, memory_total_bytes: MEMORY, boot_time_seconds: BOOTED, now,
      agent: { uptime_seconds: now - STARTED, rss_bytes: 19.4 * 1024 ** 2, cpu_seconds: 0.007 * (now - STARTED) },
      sink: holding
        ? { kind: "elasticsearch", target: "http://elastic.logging:9200", state: "holding", reason: "http://elastic.logging:9200 answers 401, the user may not write to logs-kubernetes.container_logs-default" }
        : { kind: "store", target: "/var/lib/nodewarden/store", state: "ok", reason: null },
      store: holding ? null : { bytes: empty ? 0 : 312 * 1024 ** 2, max_bytes: GIB, oldest_seconds: empty ? null : 3 * 3600 + 410 },
      ledger: { read_lines: read, read_bytes: read * 138, acked_lines: read - flight - (empty ? 0 : 55), acked_bytes: (read - flight - 55) * 138, in_flight_lines: flight, dead_letter_lines: empty ? 0 : 3, dropped_lines: empty ? 0 : 52, lost_lines: 0, lost_bytes: 0 },
      sources: ["/var/log/pods", "/var/log/syslog", "/var/log/messages", "/var/log/kern.log", "/var/log/auth.log"],
    };
  }

  logs(query) {
    const oldest = Date.now() / 1000 - Number(query.get("since") || 3600);
    const test = this.test(query);
    const before = Number(query.get("before") || Infinity);
    const limit = Number(query.get("limit") || 200);
    const first = this.read - this.lines.length;
    const found = this.lines.filter((line, index) => first + index < before && Date.parse(line.time) / 1000 >= oldest && test(line)).reverse();
    const page = found.slice(0, limit);
    return { lines: page, next: found.length > limit ? String(first + this.lines.indexOf(page.at(-1))) : null };
  }

  tail(query, request, response) {
    const reader = { response, test: this.test(query) };
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    response.write(":\n\n");
    this.readers.add(reader);
    request.on("close", () => this.readers.delete(reader));
    return true;
  }

  test(query) {
    const matches = compileQuery(query.get("query") ?? "");
    const wanted = ["namespace", "pod", "container"].filter((name) => query.get(name));
    return (line) => wanted.every((name) => line.labels[name] === query.get(name)) && matches(line);
  }

  files() {
    if (this.scene === "empty") return [];
    const age = Date.now() / 1000 - STARTED;
    const pods = PODS.map(([namespace, pod, container], index) => ({
      path: `/var/log/pods/${namespace}_${pod}_${uid(pod)}/${container}/0.log`, namespace, pod, container, format: "cri",
      ...this.progress(index, 900 * age * (index + 1)), state: "open", last_error: null, notes: [],
    }));
    const rotated = { ...pods[0], path: `${pods[0].path}.20261121-094412`, offset: 10_485_760, size: 10_485_760, lag_bytes: 0, lag_seconds: null, state: "rotated" };
    const plain = PLAIN.map((path, index) => ({ path, namespace: null, pod: null, container: null, format: "plain", ...this.progress(index + 1, 40 * age), state: "open", last_error: null, notes: [] }));
    const denied = { path: "/var/log/kern.log", namespace: null, pod: null, container: null, format: "plain", offset: 0, size: 48_213, lag_bytes: 48_213, lag_seconds: 412, state: "error", last_error: "could not open /var/log/kern.log: Permission denied", notes: [] };
    return [...pods, rotated, ...plain, denied];
  }

  progress(index, size) {
    const lag = this.scene === "holding" ? 900_000 * (index + 1) : index === 2 ? 18_400 : 0;
    return { offset: Math.floor(size - lag), size: Math.floor(size), lag_bytes: lag, lag_seconds: lag ? Math.ceil(lag / 9000) : 0 };
  }
}

const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml" };

/** Serves dist/ under the content security policy the agent uses. */
function serve({ port, scene, prefix }) {
  const dist = fileURLToPath(new URL("../dist/", import.meta.url));
  const mock = createMock(scene);
  const server = createServer((request, response) => {
    if (mock.api(request, response)) return;
    const url = new URL(request.url, "http://mock");
    const name = url.pathname.slice(prefix.length).replace(/^\/+$/, "") || "index.html";
    const file = join(dist, name);
    if (!url.pathname.startsWith(prefix) || !file.startsWith(dist) || !existsSync(file)) return void response.writeHead(404).end("not here");
    response.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream", "content-security-policy": "default-src 'self'" });
    response.end(readFileSync(file));
  });
  server.listen(Number(port), "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}${prefix}/?token=made-up`));
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  serve(parseArgs({ options: { port: { type: "string", default: "9280" }, scene: { type: "string", default: "normal" }, prefix: { type: "string", default: "" } } }).values);
}
