// The rating page: a picture, two images to choose from, later a scale from 1 to 5. By keys alone.
const root = element.querySelector(".ai-rating");
const WORDS = ["Nothing alike", "Little", "Some", "Much", "The same"];
let current = null, since = 0, sent = false;

const theme = h("button", { type: "button", class: "ai-button ai-icon", id: "theme", "aria-label": "Switch between light and dark", onclick: () => dark(!document.body.classList.contains("dark"), true) }, "◐");
const dark = (on, keep) => {
  document.body.classList.toggle("dark", on);
  try { if (keep) localStorage.setItem("afterimage-theme", on ? "dark" : "light"); } catch { /* private mode */ }
};
try { const kept = localStorage.getItem("afterimage-theme"); if (kept) dark(kept === "dark"); } catch { /* private mode */ }

const who = h("p", { class: "ai-small" });
const bar = h("i");
const head = h("header", { class: "ai-rating-head" }, h("h1", {}, "Rating"), who, theme);
const meter = h("div", { class: "ai-bar", "aria-hidden": "true" }, bar);
const problem = h("p", { class: "ai-banner", role: "alert", hidden: true });
const question = h("h2", { tabindex: "-1", id: "question" });
const stage = h("div", { class: "ai-rating-stage" });
const hint = h("p", { class: "ai-small", id: "hint" });
root.append(h("div", { class: "ai-rating-page" }, head, meter, problem, question, stage, hint));

const image = (src, alt) => h("img", { src, alt, draggable: "false" });
const answer = (value) => {
  if (sent || !current) return; // one answer a question, however often a key is pressed
  sent = true;
  root.dataset.state = "sent";
  trigger("answer", { order: current.order, kind: current.stage, value, seconds: (performance.now() - since) / 1000 });
};
const side = (name, key, src) => h("button", { type: "button", class: "ai-rating-choice", id: name, onclick: () => answer(name) }, image(src, `Image ${key}`), h("span", { class: "ai-number" }, h("kbd", {}, key)));

const STAGES = {
  name: (value) => {
    setText(question, "Who is rating?");
    setText(hint, "Your answers are kept under this name, each as soon as it is given; with the same name you go on where you stopped. First choose, for every picture, which of two images it shows; afterwards say how alike each picture and its image are.");
    const field = value.raters.length
      ? h("select", { id: "rater", "aria-label": "Your name" }, value.raters.map((name) => h("option", { value: name }, name)))
      : h("input", { id: "rater", type: "text", maxlength: 40, autocomplete: "off", spellcheck: "false", "aria-label": "Your name" });
    stage.replaceChildren(h("form", { class: "ai-rating-name", onsubmit: (event) => { event.preventDefault(); trigger("begin", { rater: field.value }); } }, field, h("button", { class: "ai-button", id: "begin", type: "submit" }, "Begin")));
    field.focus();
  },
  choice: (value) => {
    setText(question, "Which image is this a reconstruction of?");
    setText(hint, "Keys: 1 or ← for the left image, 2 or → for the right one. Choose even when unsure.");
    stage.replaceChildren(
      h("div", { class: "ai-rating-made" }, image(value.pictures.made, "The reconstruction")),
      h("div", { class: "ai-rating-pair" }, side("left", "1", value.pictures.left), side("right", "2", value.pictures.right)),
    );
  },
  rating: (value) => {
    setText(question, "How alike are the reconstruction and the image?");
    setText(hint, "Keys: 1 to 5.");
    stage.replaceChildren(
      h("div", { class: "ai-rating-pair" }, h("figure", {}, image(value.pictures.made, "The reconstruction"), h("figcaption", {}, "Reconstruction")), h("figure", {}, image(value.pictures.shown, "The shown image"), h("figcaption", {}, "Shown image"))),
      h("div", { class: "ai-rating-scale", role: "group", "aria-label": "How alike" }, WORDS.map((word, i) => h("button", { type: "button", class: "ai-button", id: `score-${i + 1}`, onclick: () => answer(i + 1) }, h("kbd", {}, i + 1), ` ${word}`))),
    );
  },
  done: (value) => {
    setText(question, "Thank you: all is answered.");
    setText(hint, `${value.answers} answers are kept. You may close this page.`);
    stage.replaceChildren();
  },
};

const render = (value) => {
  current = value;
  sent = false;
  root.dataset.state = value.stage;
  root.dataset.order = value.order ?? "";
  setText(problem, value.problem || "");
  problem.hidden = !value.problem;
  setText(who, value.rater ? `${value.rater}${value.of ? `, ${value.done} of ${value.of} answers` : ""}` : "");
  bar.style.width = value.of ? `${(100 * value.done) / value.of}%` : value.stage === "done" ? "100%" : "0";
  STAGES[value.stage](value);
  if (value.stage !== "name") question.focus({ preventScroll: true });
  // Time runs once the pictures are there to be seen.
  const pictures = [...stage.querySelectorAll("img")].map((img) => img.decode().catch(() => {}));
  since = performance.now();
  Promise.all(pictures).then(() => { if (current === value) since = performance.now(); });
};
window.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || !current) return;
  const left = { 1: "left", ArrowLeft: "left", 2: "right", ArrowRight: "right" }[event.key];
  const value = current.stage === "choice" ? left : current.stage === "rating" && /^[1-5]$/.test(event.key) ? Number(event.key) : undefined;
  if (value === undefined) return;
  event.preventDefault();
  answer(value);
});
follow(render);
