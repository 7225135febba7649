// The evidence below a trial: a quiet row of tabs, one view open at a time. Nothing is asked for
// before a view is opened, and another trial asks again for the open one alone.
const root = element.querySelector(".ai-lab");
const LABELS = { controls: "Controls", lesion: "Lesion", compare: "Compare", curve: "Sweep curve", statistics: "Statistics", evaluation: "Evaluation" };
const MAKERS = { controls: controlsView, lesion: lesionView, compare: compareView, curve: curveView, statistics: statisticsView, evaluation: evaluationView };
const views = {};
let current = null, filled = null;

const tabs = h("div", { class: "ai-tabs", role: "tablist", "aria-label": "Evidence" });
const question = h("h3", { class: "ai-question" });
const status = h("p", { class: "ai-lab-status", role: "status", "aria-live": "polite" });
const stop = h("button", { class: "ai-button", id: "lab-stop", type: "button", onclick: () => trigger("stop", {}) }, "Stop");
const again = h("button", { class: "ai-button", id: "lab-again", type: "button", onclick: () => trigger("again", {}) }, "Continue");
const bar = h("i");
const reason = h("p", { class: "ai-reason" });
const holder = h("div", { class: "ai-lab-body" });
const panel = h(
  "div", { class: "ai-lab-panel", role: "tabpanel", hidden: true },
  h("header", { class: "ai-lab-head" }, question, h("div", { class: "ai-run" }, status, stop, again)),
  h("div", { class: "ai-bar", "aria-hidden": "true" }, bar), reason, holder,
);
root.append(
  h("header", { class: "ai-lab-top" }, h("h2", {}, "Evidence"), h("p", { class: "ai-small" }, "How much of the picture is the brain's, and whether the map is true of the decoder. Each is computed when you open it.")),
  tabs, panel,
);

// A parcel of the map above is lesioned beside those that are, or opens the view.
window.addEventListener("afterimage-lesion", ({ detail }) => {
  const others = current?.panel === "lesion" ? current.settings.chosen : [];
  choose({ panel: "lesion", lesion: [...others.filter((key) => key !== detail), detail].join(";") });
  root.scrollIntoView({ behavior: "smooth", block: "start" });
});

const render = (value) => {
  if (current && value.ticket < current.ticket) return;
  const opened = value.panel !== current?.panel;
  const asked = value.ticket !== current?.ticket;
  current = value;
  tabs.replaceChildren(...value.offered.map((name) => {
    const on = name === value.panel;
    return h("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-selected": on, onclick: () => choose({ panel: on ? "none" : name }) }, LABELS[name]);
  }));
  root.dataset.state = value.state;
  root.dataset.panel = value.panel;
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
