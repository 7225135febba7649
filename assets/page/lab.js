// The evidence below a trial: a quiet row of tabs, one view open at a time. Nothing is asked for
// before a view is opened, and another trial asks again for the open one alone.
const root = element.querySelector(".ai-lab");
const LABELS = { controls: "Controls", lesion: "Lesion", compare: "Compare", curve: "Sweep curve", drivers: "Drivers", steps: "Steps", statistics: "Statistics", evaluation: "Evaluation", critique: "Is it decoding?", own: "Your picture", identity: "Identity", sheet: "All trials" };
const MAKERS = { controls: controlsView, lesion: lesionView, compare: compareView, curve: curveView, drivers: driversView, steps: stepsView, statistics: statisticsView, evaluation: evaluationView, critique: critiqueView, own: ownView, identity: identityView, sheet: sheetPanel };
const views = {};
let current = null, filled = null;

// Arrow keys move among the tabs, as in any list of tabs; the one that is reached opens on Enter.
const walkTabs = (event) => {
  const all = [...tabs.children], at = all.indexOf(event.target);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[event.key];
  if (at < 0 || to === undefined) return;
  event.preventDefault();
  const next = all[(to + all.length) % all.length];
  all.forEach((tab) => { tab.tabIndex = tab === next ? 0 : -1; });
  next.focus();
};
const intro = h("p", { class: "ai-small" }, "How much of the picture is the brain's, and whether the map is true of the decoder. Each is computed when you open it.");
const tabs = h("div", { class: "ai-tabs", role: "tablist", "aria-label": "Evidence", onkeydown: walkTabs });
const question = h("h3", { class: "ai-question" });
const status = h("p", { class: "ai-lab-status", role: "status", "aria-live": "polite" });
const stop = h("button", { class: "ai-button", id: "lab-stop", type: "button", onclick: () => trigger("stop", {}) }, "Stop");
const again = h("button", { class: "ai-button", id: "lab-again", type: "button", onclick: () => trigger("again", {}) }, "Continue");
const bar = h("i");
const reason = h("p", { class: "ai-reason" });
const holder = h("div", { class: "ai-lab-body" });
const panel = h(
  "div", { class: "ai-lab-panel", role: "tabpanel", id: "lab-panel", tabindex: "-1", hidden: true },
  h("header", { class: "ai-lab-head" }, question, h("div", { class: "ai-run" }, status, stop, again)),
  h("div", { class: "ai-bar", "aria-hidden": "true" }, bar), reason, holder,
);
root.append(
  h("header", { class: "ai-lab-top" }, h("h2", {}, "Evidence"), intro),
  tabs, panel,
);

// A parcel of the map above is lesioned beside those that are, or opens the view.
window.addEventListener("afterimage-lesion", ({ detail }) => {
  const others = current?.panel === "lesion" ? current.settings.chosen : [];
  choose({ panel: "lesion", lesion: [...others.filter((key) => key !== detail), detail].join(";") });
  wanted = "lesion";
});
window.addEventListener("afterimage-sheet", () => {
  choose({ panel: "sheet" });
  wanted = "sheet";
});
let wanted = null; // a view that is brought to the reader once it stands
// A trial that was picked down here is shown up there.
const goUp = () => document.querySelector("#trial")?.scrollIntoView({ block: "start" });

views.own = ownView(); // a picture may be dropped before its view is opened

const render = (value) => {
  if (current && value.ticket < current.ticket) return;
  const opened = value.panel !== current?.panel;
  const asked = value.ticket !== current?.ticket;
  current = value;
  const held = tabs.contains(document.activeElement) && document.activeElement.id;
  const reach = value.offered.includes(value.panel) ? value.panel : value.offered[0];
  tabs.replaceChildren(...value.offered.map((name) => {
    const on = name === value.panel;
    return h("button", { type: "button", role: "tab", id: `tab-${name}`, tabindex: name === reach ? 0 : -1, "aria-selected": on, "aria-controls": on ? "lab-panel" : null, onclick: () => choose({ panel: on ? "none" : name }) }, LABELS[name]);
  }));
  if (held) document.getElementById(held)?.focus({ preventScroll: true });
  if (value.panel) panel.setAttribute("aria-labelledby", `tab-${value.panel}`);
  // On a phone the tabs are a strip that scrolls sideways: the one in use is in it.
  const used = document.getElementById(`tab-${value.panel}`);
  if (used && opened) tabs.scrollLeft = used.offsetLeft - tabs.offsetLeft - (tabs.clientWidth - used.offsetWidth) / 2;
  root.dataset.state = value.state;
  root.dataset.panel = value.panel;
  if (value.intro) setText(intro, value.intro);
  panel.hidden = !value.panel;
  if (!value.panel) return;
  const view = (views[value.panel] ??= MAKERS[value.panel]());
  if (opened) { holder.replaceChildren(view.node); filled = null; }
  setText(question, value.question);
  setText(reason, value.sentence);
  reason.hidden = !value.sentence;
  const busy = value.state === "waiting" || value.state === "running";
  const text = { stopped: "Stopped; what is finished stays", done: "" }[value.state];
  setText(status, text ?? (busy ? value.progress.text : ""));
  stop.hidden = !busy;
  again.hidden = value.state !== "stopped";
  bar.style.width = busy ? `${Math.round(100 * value.progress.fraction)}%` : "0";
  if (wanted === value.panel) {
    wanted = null;
    root.scrollIntoView({ block: "start" });
    panel.focus({ preventScroll: true });
  }
  if (asked) view.settings(value.settings);
  if (Object.keys(value.content || {}).length) { view.fill(value.content); filled = value.ticket; }
  // What was computed for an earlier choice stays, pale, until the first part of the new one.
  holder.classList.toggle("ai-stale", filled !== value.ticket && filled !== null);
  holder.classList.toggle("ai-blank", filled === null);
  holder.hidden = Boolean(value.sentence) && !Object.keys(value.content || {}).length && value.panel !== "compare";
  if (asked && value.state === "waiting") { patience = 400; setTimeout(ask, 50); }
};
// The pictures above come first: the work is asked for when nothing runs there any more.
const BUSY = new Set(["waiting", "loading", "running"]);
let watched = null, patience = 400;
const ask = () => {
  const above = document.querySelector(".ai-trial");
  if (above && above !== watched) {
    watched = above;
    new MutationObserver(ask).observe(above, { attributes: true, attributeFilter: ["data-state"] });
  }
  if (current.state !== "waiting" || BUSY.has(above?.dataset.state)) return;
  trigger("work", {});
  // The map above may still be wanted before; then nothing was taken, and it is asked for again.
  setTimeout(ask, (patience *= 2));
};
follow(render);
