// What this machine is, and where its logs go.

import type { Sink, Status, Store } from "../api";
import { h, setText } from "../dom";
import { bytes, count, duration, percent } from "../format";

const FACTS = ["OS", "Kernel", "Uptime", "CPUs", "Memory", "Agent"] as const;
type Fact = (typeof FACTS)[number];

export class HeaderPanel {
  readonly element: HTMLElement;
  private readonly node = h("h1", { "data-fact": "node" });
  private readonly facts = new Map<Fact, HTMLElement>(
    FACTS.map((fact) => [fact, h("dd", { "data-fact": fact.toLowerCase() })]),
  );
  private readonly sinkName = h("strong");
  private readonly sinkText = h("span", { class: "sink-text" });
  private readonly sink = h(
    "div",
    { class: "sink" },
    h("i", { class: "dot" }),
    h("div", {}, this.sinkName, this.sinkText),
  );

  constructor() {
    const mark = h("img", { src: "./favicon.svg", alt: "nodewarden", title: "nodewarden", width: 30, height: 30 });
    const list = [...this.facts].map(([fact, value]) => h("div", {}, h("dt", { text: fact }), value));
    this.element = h("header", { class: "top" }, mark, this.node, h("dl", { class: "facts" }, ...list), this.sink);
  }

  update(status: Status): void {
    const { agent } = status;
    setText(this.node, status.node);
    document.title = `${status.node} · nodewarden`;
    this.say("OS", status.os);
    this.say("Kernel", status.kernel);
    this.say("Uptime", duration(status.now - status.boot_time_seconds));
    this.say("CPUs", count(status.cpus));
    this.say("Memory", bytes(status.memory_total_bytes));
    const share = agent.cpu_seconds / Math.max(1, agent.uptime_seconds);
    this.say(
      "Agent",
      `${status.version}, ${bytes(agent.rss_bytes)}, ${percent(share)} CPU`,
      `Up for ${duration(agent.uptime_seconds)}; CPU: share of one since then`,
    );
    this.sink.dataset.state = status.sink.state;
    setText(this.sinkName, sinkName(status.sink));
    setText(this.sinkText, sinkText(status.sink, status.store));
    this.sink.title = status.sink.target;
  }

  private say(fact: Fact, text: string, title = text): void {
    const value = this.facts.get(fact);
    if (!value) return;
    setText(value, text);
    value.title = title;
  }
}

const sinkName = (sink: Sink): string => (sink.kind === "store" ? "Local store" : "Elasticsearch");

function sinkText(sink: Sink, store: Store | null): string {
  if (sink.state === "holding") return `holding: ${sink.reason ?? "no reason given"}`;
  if (sink.kind === "elasticsearch" || !store) return `${sink.target}, ok`;
  const oldest = store.oldest_seconds === null ? "empty" : `oldest ${duration(store.oldest_seconds)}`;
  return `${bytes(store.bytes)} of ${bytes(store.max_bytes)}, ${oldest}`;
}
