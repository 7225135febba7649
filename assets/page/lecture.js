// The lecture: five steps over the whole screen, with keys, for a room. The trial is always the
// same typical one; closing it brings back the page as it was.
const root = element.querySelector(".ai-lecture");
const TITLES = ["A brain", "An embedding", "A search", "An image", "A lesion"];
let value = { steps: {}, state: "off" }, step = 0, shown = "", before = null;

const kicker = h("p", { class: "ai-lecture-kicker" });
const title = h("h2");
const text = h("p", { class: "ai-lecture-text" });
const figure = h("div", { class: "ai-lecture-figure" });
const dots = h("ol", { class: "ai-lecture-dots" });
const back = h("button", { type: "button", class: "ai-button", id: "lecture-back", onclick: () => go(step - 1) }, "‹ Previous");
const on = h("button", { type: "button", class: "ai-button", id: "lecture-on", onclick: () => go(step + 1) }, "Next ›");
const close = h("button", { type: "button", class: "ai-link", id: "lecture-close", onclick: () => go(0) }, "Close (Esc)");
const sheet = h(
  "section", { class: "ai-sheet", role: "dialog", "aria-modal": "true", "aria-label": "Lecture", hidden: true, tabindex: "-1" },
  h("header", {}, kicker, close), h("div", { class: "ai-lecture-main" }, h("div", { class: "ai-lecture-words" }, title, text), figure), h("div", { class: "ai-lecture-foot" }, back, dots, on),
);
root.append(sheet);

const brain = brainFigure(["posterior", "ventral"], "Responses of this trial on the cortical surface");
const photo = (p) => h("li", { class: p.chosen ? "ai-shown" : "" }, h("img", { src: p.src, alt: "", draggable: "false" }), h("p", {}, p.label));
const strip = ({ label, values }) => {
  const low = [33, 102, 172], high = [178, 24, 43], mid = [239, 236, 229];
  return h("div", { class: "ai-strip" }, h("p", {}, label), h("div", {}, values.map((v) => {
    const end = v < 0 ? low : high;
    return h("i", { style: `background:rgb(${mid.map((m, k) => Math.round(m + (end[k] - m) * Math.min(1, Math.abs(v) * 1.6))).join(",")})` });
  })));
};
const render = () => {
  sheet.hidden = !step;
  document.querySelectorAll("#columns, #masthead, #footer").forEach((node) => { node.inert = Boolean(step); });
  document.documentElement.classList.toggle("ai-lecturing", Boolean(step));
  if (!step) return;
  const part = value.steps[step];
  setText(kicker, `${step} of ${TITLES.length}${value.trial ? ` · ${value.trial}, a typical trial: half of all are decoded better` : ""}`);
  setText(title, TITLES[step - 1]);
  setText(text, value.sentence || part?.text || "One moment…");
  back.disabled = step === 1;
  setText(on, step === TITLES.length ? "Close" : "Next ›");
  dots.replaceChildren(...TITLES.map((name, i) => h("li", {}, h("button", { type: "button", "aria-current": i + 1 === step ? "step" : null, title: name, onclick: () => go(i + 1) }, name))));
  const now = JSON.stringify([step, Boolean(part), value.trial]);
  if (now === shown) return;
  shown = now;
  figure.dataset.step = step;
  if (!part) { figure.replaceChildren(); return; }
  figure.replaceChildren(...[
    part.rank && h("p", { class: "ai-lecture-rank" }, h("strong", {}, part.rank.rank), ` of ${part.rank.n}`),
    part.pictures && h("ol", { class: "ai-photos" }, part.pictures.map(photo)),
    part.strips && h("div", { class: "ai-strips" }, part.strips.map(strip)),
    part.brain && brain.node,
  ].filter(Boolean));
  if (part.brain) brain.draw(part.brain);
};
const go = (to) => {
  const next = to > TITLES.length ? 0 : Math.max(0, to);
  if (next === step) return;
  if (!step) before = document.activeElement;
  step = next;
  trigger("go", { lecture: step });
  render();
  if (step) sheet.focus({ preventScroll: true });
  else before?.focus?.();
};
window.addEventListener("afterimage-lecture", () => go(1));
window.addEventListener("keydown", (event) => {
  if (!step) return;
  const by = { ArrowRight: 1, PageDown: 1, " ": 1, ArrowLeft: -1, PageUp: -1 }[event.key];
  const press = event.target.matches?.("button") && event.key === " ";
  // The page below must not go to another trial.
  if (event.key === "Escape") go(0);
  else if (by && !press) go(Math.max(1, step + by));
  else if (event.key !== "Tab" && event.key !== "Enter" && !press) { event.stopImmediatePropagation(); return; }
  else return;
  event.preventDefault();
  event.stopImmediatePropagation();
}, true);
let ticket = 0;
follow((next) => {
  value = next;
  if (next.ticket !== ticket) { ticket = next.ticket; step = next.step || step; shown = ""; if (next.state === "off") step = 0; }
  render();
  if (next.state === "waiting") trigger("work", {});
});
