// The host's charts: processor, memory, disk, network, load.

import type { Status } from "../api";
import { createChart, type Chart, type ChartSpec } from "../charts";
import { h, setText } from "../dom";
import { bytes, bytesPerSecond, hourMinuteSecond, load, percent } from "../format";
import { niceTop, type History } from "../history";

const BINARY = [1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768];
/** Below this a scale would show noise as if it were load. */
const QUIET_BYTES_PER_SECOND = 16 * 1024;

type Spec = (host: { memory: number; cpus: number }) => ChartSpec;

const cpu: Spec = () => ({
  title: "CPU",
  stacked: true,
  series: [
    { name: "cpu_user", label: "user", colour: "--blue" },
    { name: "cpu_system", label: "system", colour: "--violet" },
    { name: "cpu_iowait", label: "iowait", colour: "--amber" },
    { name: "cpu_steal", label: "steal", colour: "--red" },
    { name: "cpu_other", label: "other", colour: "--grey" },
  ],
  top: (largest) => [0.1, 0.25, 0.5].find((top) => largest <= top) ?? 1,
  format: percent,
  headline: (value) => {
    const user = value("cpu_user");
    if (user === null) return "";
    const rest = [value("cpu_system"), value("cpu_iowait"), value("cpu_steal"), value("cpu_other")];
    return percent(rest.reduce<number>((sum, part) => sum + (part ?? 0), user));
  },
});

const memory: Spec = (host) => ({
  title: "Memory",
  stacked: true,
  series: [
    { name: "memory_used", label: "used", colour: "--blue" },
    { name: "memory_cached", label: "cache", colour: "--teal" },
    { name: "memory_available", label: "available", colour: "--text", loose: true },
  ],
  top: (largest) => Math.max(host.memory, largest, 1),
  format: bytes,
  headline: (value) => {
    const used = value("memory_used");
    return used === null ? "" : percent(used / host.memory);
  },
});

const disk: Spec = () => ({
  title: "Disk",
  series: [
    { name: "disk_read", label: "read", colour: "--teal" },
    { name: "disk_write", label: "write", colour: "--amber" },
  ],
  top: (largest) => niceTop(Math.max(largest, QUIET_BYTES_PER_SECOND), 1024, BINARY),
  format: bytes,
  headline: (value) => rate(value("disk_read"), value("disk_write")),
});

const network: Spec = () => ({
  title: "Network",
  series: [
    { name: "net_receive", label: "in", colour: "--blue" },
    { name: "net_transmit", label: "out", colour: "--violet" },
  ],
  top: (largest) => niceTop(Math.max(largest, QUIET_BYTES_PER_SECOND), 1024, BINARY),
  format: bytes,
  headline: (value) => rate(value("net_receive"), value("net_transmit")),
});

const loadAverage: Spec = (host) => ({
  title: "Load",
  series: [{ name: "load1", label: `1 min average, ${host.cpus} CPUs`, colour: "--teal" }],
  top: (largest) => niceTop(Math.max(largest, 1), 10, [1, 2, 4, 6, 8, 10]),
  format: load,
  headline: (value) => {
    const now = value("load1");
    return now === null ? "" : load(now);
  },
});

const rate = (one: number | null, other: number | null): string =>
  one === null && other === null ? "" : bytesPerSecond((one ?? 0) + (other ?? 0));

export class ChartsPanel {
  readonly element: HTMLElement;
  private readonly when = h("span", { class: "when" });
  private readonly charts: Chart[];

  constructor(status: Status) {
    const host = { memory: status.memory_total_bytes, cpus: status.cpus };
    this.charts = [cpu, memory, disk, network, loadAverage].map((spec) => createChart(spec(host), this.hover));
    const grid = h("div", { class: "charts" }, ...this.charts.map((chart) => chart.element));
    this.element = h(
      "section",
      { class: "panel", "aria-label": "Host" },
      h("header", { class: "panel-head" }, h("h2", { text: "Host" }), this.when),
      grid,
    );
    this.hover(null);
    new ResizeObserver(() => this.charts.forEach((chart) => chart.resize())).observe(grid);
  }

  update(history: History, now: number): void {
    for (const chart of this.charts) chart.update(history, now);
    this.element.dataset.points = String(history.times.length);
  }

  private readonly hover = (time: number | null): void =>
    setText(this.when, time === null ? "last 10 minutes, every second" : `at ${hourMinuteSecond(time)}`);
}
