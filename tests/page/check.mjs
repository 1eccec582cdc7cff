// Opens the page of a running agent in a real Chromium and checks what a reader would see.
//
//   node tests/page/check.mjs ADDRESS_WITH_TOKEN OUTPUT_FOLDER TEXT_AMONG_THE_LOG_LINES
//
// Prints one line per check, leaves page.png in the folder, exits 0 when all hold and 1 otherwise.
// CHROMIUM names another browser than /usr/bin/chromium. Needs `npm ci` in src/web/page.
import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const PAGE_SOURCES = fileURLToPath(new URL("../../src/web/page/package.json", import.meta.url));
const { chromium } = createRequire(PAGE_SOURCES)("playwright-core");

const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
/** How long a thing may take to appear, milliseconds: a busy machine, an agent that has just started. */
const PATIENCE = 20_000;
/** The page shows at most this many files without being asked for more. */
const FILES_SHOWN = 100;
/** The series each chart draws, in the page's order. */
const CHARTS = {
  CPU: ["cpu_user", "cpu_system", "cpu_iowait", "cpu_steal", "cpu_other"],
  Memory: ["memory_used", "memory_cached", "memory_available"],
  Disk: ["disk_read", "disk_write"],
  Network: ["net_receive", "net_transmit"],
  Load: ["load1"],
};
/** A host without disks or network cards is a host; one without these is not. */
const ALWAYS = ["CPU", "Memory", "Load"];

const [address, folder, expected] = process.argv.slice(2);
if (!expected) {
  console.error("usage: check.mjs ADDRESS_WITH_TOKEN OUTPUT_FOLDER TEXT_AMONG_THE_LOG_LINES");
  process.exit(1);
}
mkdirSync(folder, { recursive: true });
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS });
const failures = await checkPage(await browser.newPage({ viewport: { width: 1440, height: 900 }, colorScheme: "light" }));
await browser.close();
console.log(failures === 0 ? "the page is as it should be" : `${failures} checks of the page failed`);
process.exit(failures === 0 ? 0 : 1);

async function checkPage(page) {
  page.setDefaultTimeout(PATIENCE);
  const complaints = [];
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(error.message));
  const checks = [
    ["the page opens", () => opens(page)],
    ["the host's facts are the agent's", () => factsMatch(page)],
    ["the charts have drawn the history", () => chartsDraw(page)],
    ["the expected line appears", () => lineAppears(page)],
    ["the files are listed", () => filesListed(page)],
    ["the ledger is the agent's", () => ledgerMatches(page)],
    ["the / key leads to the search", () => slashFocuses(page)],
    ["a search narrows the lines", () => searchNarrows(page)],
    ["a search without a match says so", () => emptySearchSpeaks(page)],
    ["the console has no errors", () => none(complaints)],
  ];
  let failures = 0;
  for (const [name, check] of checks) {
    try {
      await check();
      console.log(`ok      ${name}`);
    } catch (error) {
      failures += 1;
      console.log(`FAILED  ${name}: ${error.message.split("\n")[0]}`);
    }
  }
  return failures;
}

async function opens(page) {
  const response = await page.goto(address);
  ensure(response.ok(), `${response.status()} ${response.statusText()}`);
  await page.locator('[data-fact="node"]').waitFor();
}

async function factsMatch(page) {
  const status = await api(page, "status");
  const fact = async (name) => (await page.locator(`[data-fact="${name}"]`).textContent()).trim();
  for (const name of ["node", "os", "kernel"]) ensure((await fact(name)) === status[name], `${name} is "${await fact(name)}", not "${status[name]}"`);
  ensure(Number((await fact("cpus")).replaceAll(",", "")) === status.cpus, `CPUs are ${await fact("cpus")}, not ${status.cpus}`);
  const shown = parseBytes(await fact("memory"));
  ensure(Math.abs(shown / status.memory_total_bytes - 1) < 0.01, `memory is ${shown}, not ${status.memory_total_bytes}`);
  ensure((await fact("agent")).includes(status.version), `the agent is "${await fact("agent")}", not ${status.version}`);
  ensure(/\d/.test(await fact("uptime")), "there is no uptime");
  const sink = await page.locator(".sink").getAttribute("data-state");
  ensure(sink === status.sink.state, `the sink is ${sink}, not ${status.sink.state}`);
}

async function chartsDraw(page) {
  await page.waitForFunction(() => Number(document.querySelector("[data-points]")?.dataset.points) >= 5);
  const history = await api(page, "metrics/history?since=0");
  for (const [title, names] of Object.entries(CHARTS)) {
    const known = names.some((name) => (history.series[name] ?? []).filter((value) => value !== null).length >= 2);
    ensure(known || !ALWAYS.includes(title), `the history has no values for ${title}`);
    if (!known) continue;
    const painted = await page.locator(`[aria-label="${title}"] canvas`).evaluate(colouredPixels);
    ensure(painted >= 3, `${title} is blank`);
  }
}

/** Runs in the page: pixels with a colour; text and grid are grey. */
function colouredPixels(canvas) {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let coloured = 0;
  for (let at = 0; at < data.length; at += 4) {
    const spread = Math.max(data[at], data[at + 1], data[at + 2]) - Math.min(data[at], data[at + 1], data[at + 2]);
    if (data[at + 3] > 20 && spread > 60) coloured += 1;
  }
  return coloured;
}

async function lineAppears(page) {
  await page.locator(".line .text", { hasText: expected }).first().waitFor();
}

async function filesListed(page) {
  const { files } = await api(page, "files");
  ensure(files.length > 0, "the agent tails no files");
  await page.waitForFunction(() => document.querySelectorAll(".files tbody tr").length > 0);
  await page.screenshot({ path: join(folder, "page.png"), fullPage: true });
  const rows = await page.locator(".files tbody tr").count();
  ensure(rows === Math.min(files.length, FILES_SHOWN), `${rows} rows for ${files.length} files`);
  const titles = await page.locator(".files td.c-path").evaluateAll((cells) => cells.map((cell) => cell.title));
  const strangers = titles.filter((title) => !files.some((file) => file.path === title));
  ensure(strangers.length === 0, `the agent knows no ${strangers[0]}`);
}

async function ledgerMatches(page) {
  const shown = async () => Number((await page.locator('[data-ledger="read_lines"]').textContent()).replaceAll(",", ""));
  const before = (await api(page, "status")).ledger.read_lines;
  await page.waitForFunction((least) => Number(document.querySelector('[data-ledger="read_lines"]').textContent.replaceAll(",", "")) >= least, before);
  const after = (await api(page, "status")).ledger.read_lines;
  ensure((await shown()) <= after, `${await shown()} lines read, the agent says ${after}`);
}

async function slashFocuses(page) {
  await page.locator("h1").click();
  await page.keyboard.press("/");
  ensure(await page.locator(".search input").evaluate((input) => input === document.activeElement && input.value === ""), "the search box has not the focus");
}

async function searchNarrows(page) {
  const texts = () => page.locator(".line .text").allTextContents();
  const others = (await texts()).filter((text) => !text.includes(expected)).length;
  await page.locator(".search input").fill(`"${expected.replace(/["\\]/g, "\\$&")}"`);
  await page.waitForFunction((text) => {
    const lines = [...document.querySelectorAll(".line .text")];
    return lines.length > 0 && lines.every((line) => line.textContent.toLowerCase().includes(text.toLowerCase()));
  }, expected);
  await page.locator(".line mark").first().waitFor();
  console.log(`        ${others} other lines gone, ${(await texts()).length} left`);
}

async function emptySearchSpeaks(page) {
  await page.locator(".search input").fill("no-line-says-this-4f1c9a");
  await page.locator(".logs .empty", { hasText: "No line" }).waitFor();
  ensure((await page.locator(".line").count()) === 0, "lines are still shown");
}

function none(complaints) {
  ensure(complaints.length === 0, complaints.join("; "));
}

async function api(page, path) {
  return page.evaluate(async (to) => (await fetch(`api/v1/${to}`)).json(), path);
}

/** "15.6 GiB" in bytes. */
function parseBytes(text) {
  const [number, unit] = text.split(/\s/);
  return Number(number) * 1024 ** ["B", "KiB", "MiB", "GiB", "TiB", "PiB"].indexOf(unit);
}

function ensure(condition, message) {
  if (!condition) throw new Error(message);
}
