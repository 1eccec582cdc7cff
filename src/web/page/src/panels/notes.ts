// What the page says when it cannot show the node: no token, no agent.

import { h, setText } from "../dom";
import { hourMinuteSecond } from "../format";

const WHY =
  "Logs are private, so the agent shows them only to a browser that came with its token. " +
  "It prints the address, token included, each time it starts:";

/** A page of its own for a browser without the token. */
export function tokenNote(): HTMLElement {
  const code = (text: string): HTMLElement => h("code", { text });
  return h(
    "section",
    { class: "note card" },
    h("img", { src: "./favicon.svg", alt: "", width: 40, height: 40 }),
    h("h1", { text: "This page needs its token" }),
    h("p", { text: WHY }),
    h("pre", { text: "http://127.0.0.1:9180/?token=…" }),
    h("p", {}, "Find it in the agent's output, for instance with ", code("kubectl logs POD | grep token="), ", and open it."),
    h("p", {}, "Through a port-forward, keep your own host and port and add only the ", code("?token=…"), " part."),
    h("p", { class: "faint", text: "An address from before the agent's last start does not work any more." }),
  );
}

/** A line on top while the agent does not answer; the page below keeps what it knows. */
export class Banner {
  readonly element = h("p", { class: "banner", role: "alert", hidden: true });
  private readonly failing = new Set<string>();
  private since = 0;

  /** Asking for `what` failed; `reason` is a sentence, or null when nobody answered. */
  show(what: string, reason: string | null): void {
    if (this.failing.size === 0) this.since = Date.now() / 1000;
    this.failing.add(what);
    this.element.hidden = false;
    setText(this.element, `${reason ?? "The agent does not answer."} What you see is from ${hourMinuteSecond(this.since)}; trying again.`);
  }

  /** `what` is well. True when with it all became well again. */
  hide(what: string): boolean {
    const was = this.failing.delete(what);
    this.element.hidden = this.failing.size === 0;
    return was && this.failing.size === 0;
  }
}
