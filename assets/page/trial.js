// The trial: what was shown, the sweep, the compare slider, rank and neighbours.
const root = element.querySelector(".ai-trial");
const SCORES = {
  PixCorr: "Pixel correlation with the shown image; higher is better, 1 is identical",
  SSIM: "Structural similarity with the shown image; higher is better, 1 is identical",
};
const scoreTitle = (name) =>
  SCORES[name] || `Cosine similarity of the ${name} embeddings of both images; higher is better`;
const scoreLine = ([name, text]) => h("div", { title: scoreTitle(name) }, h("dt", {}, name), h("dd", {}, text));
const RUNNING = new Set(["waiting", "loading", "running"]);

const MOST_TILES = 7; // in a row of a wide screen
let cells = []; // one handle a picture of the sweep
let skeleton = "";
let compared = 0;
let current = null;

const status = h("p", { class: "ai-status", role: "status", "aria-live": "polite" });
const stop = h(
  "button",
  { class: "ai-button", id: "stop", type: "button", onclick: () => trigger("stop", {}) },
  "Stop",
);
const again = h(
  "button",
  { class: "ai-button", id: "again", type: "button", onclick: () => trigger("again", {}) },
  "Continue",
);
const bar = h("i");
const kicker = h("p", { class: "ai-kicker" });
const caption = h("h2", { class: "ai-caption" });
const sweep = h("ol", { class: "ai-sweep", "aria-label": "Shown image and reconstructions" });
const truth = h("img", { alt: "", draggable: "false" });

// ----------------------------------------------------- what the decoding rests on, over the truth
const heat = h("img", { class: "ai-heat", alt: "", draggable: "false", hidden: true });
const attend = h(
  "button",
  { type: "button", class: "ai-link ai-attend", id: "attention", "aria-pressed": false,
    title: "Where in this image the decoding rests, for this decoder",
    onclick: () => trigger("view", { attention: current.attention.state === "off" ? "occlusion" : "off" }) },
);
const heatLow = h("span"), heatHigh = h("span");
const heatRamp = h("div", { class: "ai-heat-ramp", "aria-hidden": "true" });
const heatEnds = h("p", { class: "ai-ends ai-number" }, heatLow, h("span", {}, "lost when hidden"), heatHigh);
const heatNote = h("p", { class: "ai-small" });
const renderAttention = ({ state, src, ends, sentence }) => {
  attend.setAttribute("aria-pressed", state !== "off");
  setText(attend, { off: "Show attention", waiting: "Computing…" }[state] || "Hide attention");
  heat.hidden = heatRamp.hidden = heatEnds.hidden = state !== "done";
  setSource(heat, src);
  heat.alt = heat.title = state === "done" ? sentence : "";
  setText(heatLow, ends[0] || "");
  setText(heatHigh, ends[1] || "");
  heatRamp.title = sentence;
  setText(heatNote, state === "none" ? sentence : "");
};

// ------------------------------------------------------------------------ samples of the decoder
const samplesHead = h("h3");
const samplesText = h("p", { class: "ai-small" });
const strip = h("ol", { class: "ai-sweep" });
const samplesSection = h("section", { class: "ai-samples", hidden: true }, samplesHead, strip, samplesText);
const renderSamples = (value) => {
  samplesSection.hidden = !value;
  if (!value) return;
  setText(samplesHead, value.heading);
  setText(samplesText, value.sentence);
  strip.style.setProperty("--tiles", Math.max(6, Math.min(8, value.cells.length)));
  strip.replaceChildren(
    ...value.cells.map((cell) => {
      const img = cell.src ? h("img", { src: cell.src, alt: `Reconstruction, ${cell.label}`, draggable: "false" }) : null;
      const scores = cell.scores.map(scoreLine);
      const made = cell.src ? h("span", { class: "ai-made" }, cell.made) : null;
      return h("li", { class: "ai-tile" }, h("figure", {}, h("div", { class: "ai-picture" }, img, made), h("figcaption", {}, h("dl", { class: "ai-scores" }, ...scores))));
    }),
  );
};

// ------------------------------------------------- what must stand beside the compared picture
const besideText = h("p", { class: "ai-small" });
const near = h("ol", { class: "ai-neighbours" });
const beside = h("section", { class: "ai-beside", hidden: true }, besideText, near);

// In a grid each picture has its last score only; the compared one has all of them.
const scored = h("span", { class: "ai-hint" });
const comparedScores = h("dl", { class: "ai-scores" });
const renderScores = (cell, grid) => {
  comparedScores.hidden = !grid || !cell;
  if (comparedScores.hidden) return;
  setText(scored, cell.scores.length ? cell.scores.at(-1)[0] : "");
  comparedScores.replaceChildren(...cell.scores.map(scoreLine));
};

// ------------------------------------------------------------------------------- compare slider
const under = h("img", { alt: "", draggable: "false" });
const over = h("img", { alt: "", draggable: "false" });
const range = h("input", {
  type: "range", min: 0, max: 100, value: 50, id: "compare-range",
  "aria-label": "Share of the frame that shows the reconstruction's left side",
  oninput: () => place(),
});
const frame = h("div", { class: "ai-compare-frame" }, under, over, h("span", { class: "ai-divider" }), range);
const place = () => frame.style.setProperty("--at", `${range.value}%`);
place();
const leftLabel = h("span", {}, "shown");
const rightLabel = h("span", {});
const compareSection = h(
  "section",
  { class: "ai-compare" },
  h("h3", {}, "Compare"),
  frame,
  h("p", { class: "ai-ends" }, leftLabel, rightLabel),
  comparedScores,
);

// ---------------------------------------------------------------------------- rank, neighbours
const rankNumber = h("strong", { class: "ai-rank-number" });
const rankOf = h("span", { class: "ai-rank-of" });
const rankMark = h("i", { class: "ai-rank-mark" });
const rankChance = h("i", { class: "ai-rank-chance" });
const rankEnds = h("p", { class: "ai-ends" });
const rankText = h("p", { class: "ai-small" });
const decoderText = h("p", { class: "ai-small", id: "decoder-figure" });
const rankSection = h(
  "section",
  { class: "ai-rank", id: "rank" },
  h("h3", {}, "Retrieval"),
  h("p", { class: "ai-rank-line" }, rankNumber, rankOf),
  h("div", { class: "ai-rank-track", "aria-hidden": "true" }, rankChance, rankMark),
  rankEnds,
  rankText,
  decoderText,
);
const neighbours = h("ol", { class: "ai-neighbours" });
const neighbourSection = h(
  "section",
  { class: "ai-near" },
  h("h3", {}, "Nearest test images"),
  neighbours,
  h("p", { class: "ai-small" }, "The five test images closest to what was decoded.", h("span", { class: "ai-go" }, " Select one to go to it.")),
);

// ------------------------------------------------------------------------------ how to take it
const badgeRow = h("ul", { class: "ai-badges", "aria-label": "How to take this trial" });
let ranked = 0, badgesShown = "";
const renderBadges = (badges) => {
  const text = JSON.stringify([badges, ranked]);
  if (text === badgesShown) return;
  badgesShown = text;
  badgeRow.replaceChildren(
    ...badges.map(({ label, choices, warn }) => {
      const [, words, share, sentence] = choices[Math.min(ranked, choices.length - 1)];
      const pick = choices.length > 1 && h("select", { "aria-label": "Ranked by", onchange: (event) => { ranked = event.target.selectedIndex; renderBadges(badges); } }, choices.map(([name], i) => h("option", { selected: i === ranked }, name)));
      return h(
        "li", { class: warn ? "ai-doubt" : "", tabindex: "0" },
        h("span", { class: "ai-badge-label" }, label), share === null ? null : h("span", { class: "ai-badge-meter", "aria-hidden": "true" }, h("i", { style: `width:${100 * share}%` })), h("span", { class: "ai-number" }, words),
        pick && h("label", { class: "ai-ranked-by" }, "by ", pick), h("span", { class: "ai-badge-tip", role: "tooltip" }, sentence),
      );
    }),
  );
};

root.append(
  h("header", { class: "ai-trial-head" }, h("div", {}, kicker, caption), h("div", { class: "ai-run" }, status, stop, again)),
  badgeRow,
  h("div", { class: "ai-bar", "aria-hidden": "true" }, bar),
  sweep,
  beside,
  samplesSection,
  h("div", { class: "ai-evidence" }, compareSection, rankSection, neighbourSection),
);

const build = (value) => {
  truth.removeAttribute("src");
  const shown = h(
    "li",
    { class: "ai-tile ai-truth" },
    h("figure", {}, h("div", { class: "ai-picture" }, truth, heat), h("figcaption", {}, h("p", {}, h("b", {}, "Ground truth")), attend, heatRamp, heatEnds, heatNote)),
  );
  cells = value.cells.map((cell, index) => {
    const img = h("img", { alt: "", draggable: "false" });
    const step = h("span", { class: "ai-step" });
    const made = h("span", { class: "ai-made" }, cell.made);
    const scores = h("dl", { class: "ai-scores" });
    const button = h(
      "button",
      { type: "button", class: "ai-picture", title: "Compare with the shown image", onclick: () => { compared = index; render(current); } },
      img,
      step,
      made,
    );
    const node = h(
      "li",
      { class: "ai-tile ai-reconstruction", "data-index": index },
      h("figure", {}, button, h("figcaption", {}, h("p", {}, h("b", {}, cell.label), cell.hint ? h("span", { class: "ai-hint" }, cell.hint) : null), scores)),
    );
    return { node, img, step, scores, button, made, shown: "" };
  });
  const columns = value.cells.length / Math.max(1, value.rows.length);
  const lines = value.rows.map((label, row) => {
    const own = cells.slice(row * columns, (row + 1) * columns).map((c) => c.node);
    own[0].classList.add("ai-first");
    return [h("li", { class: "ai-row" }, h("span", { class: "ai-row-name" }, label), row ? null : scored), ...own];
  });
  sweep.classList.toggle("ai-grid", value.rows.length > 0);
  sweep.replaceChildren(shown, ...(lines.length ? lines.flat() : cells.map((c) => c.node)));
  const tiles = columns + 1;
  sweep.style.setProperty("--tiles", lines.length ? tiles : Math.ceil(tiles / Math.ceil(tiles / MOST_TILES)));
  compared = Math.min(value.compare, value.cells.length - 1);
};

const renderCell = (handle, cell, label) => {
  handle.node.dataset.state = cell.state;
  setSource(handle.img, cell.src);
  handle.img.hidden = handle.made.hidden = !cell.src;
  handle.img.alt = cell.src ? `Reconstruction, ${label}` : "";
  setText(handle.step, cell.note);
  const scores = JSON.stringify(cell.scores);
  if (scores !== handle.shown) {
    handle.shown = scores;
    handle.scores.replaceChildren(...cell.scores.map(scoreLine));
  }
};

const renderDecoding = (d) => {
  root.classList.toggle("ai-undecoded", !d);
  rankSection.hidden = neighbourSection.hidden = false;
  if (!d) return;
  setText(rankNumber, d.rank);
  setText(rankOf, `of ${d.n}`);
  const at = (rank) => `${(100 * (rank - 1)) / Math.max(1, d.n - 1)}%`;
  rankMark.style.left = at(d.rank);
  rankChance.style.left = at(d.chance);
  rankEnds.replaceChildren(h("span", {}, "1 best"), h("span", {}, `chance ${d.chance}`), h("span", {}, d.n));
  setText(rankText, d.sentence);
  setText(decoderText, d.decoder);
  neighbours.replaceChildren(
    ...d.neighbours.map((n) =>
      h(
        "li",
        { class: n.shown ? "ai-shown" : "" },
        h(
          "button",
          { type: "button", title: n.caption || n.stimulus, onclick: () => trigger("select", { stimulus: n.stimulus }) },
          h("img", { src: n.src, alt: n.caption || n.stimulus, draggable: "false" }),
        ),
        h("span", { class: "ai-number" }, n.similarity),
        n.shown ? h("span", { class: "ai-tag" }, "shown") : null,
      ),
    ),
  );
};

const renderBeside = (cell, several) => {
  beside.hidden = !cell || cell.state !== "done" || !(cell.beside || cell.near.length);
  if (beside.hidden) return;
  setText(besideText, several ? `${cell.name}: ${cell.beside}` : cell.beside);
  near.replaceChildren(
    ...cell.near.map((n) =>
      h(
        "li",
        {},
        n.src ? h("img", { src: n.src, alt: n.label || n.picture, draggable: "false" }) : null,
        h("span", { class: "ai-number" }, n.similarity),
        h("span", { class: "ai-tag", title: n.picture }, n.label || n.picture),
      ),
    ),
  );
};

const render = (value) => {
  // A picture of the trial before may still be on its way when the next one is shown.
  if (current && value.ticket < current.ticket) return;
  if (value.ticket !== current?.ticket) window.dispatchEvent(new CustomEvent("afterimage-trial", { detail: value.trial.stimulus }));
  if (value.map_waits && value.ticket !== current?.ticket) window.dispatchEvent(new Event("afterimage-map-waits"));
  current = value;
  const plan = JSON.stringify([value.trial.stimulus, value.trial.kicker, value.cells.map((c) => [c.name, c.made])]);
  if (plan !== skeleton) {
    skeleton = plan;
    build(value);
  }
  setText(kicker, value.trial.kicker);
  setText(caption, value.trial.caption);
  setSource(truth, value.trial.src);
  truth.alt = `Shown image: ${value.trial.caption}`;
  value.cells.forEach((cell, index) => {
    renderCell(cells[index], cell, cell.name);
    cells[index].node.classList.toggle("ai-chosen", index === compared);
    cells[index].button.setAttribute("aria-pressed", index === compared);
  });
  const chosen = value.cells[compared];
  setSource(under, value.trial.src);
  over.hidden = !(chosen && chosen.src);
  if (chosen) setSource(over, chosen.src);
  compareSection.classList.toggle("ai-empty", over.hidden);
  setText(rightLabel, chosen ? `${chosen.name}, ${chosen.made}` : "");
  renderBeside(chosen, value.cells.length > 1);
  renderScores(chosen, value.rows.length > 0);
  const { state, text, fraction } = value.progress;
  root.dataset.state = state;
  setText(status, text);
  stop.hidden = !RUNNING.has(state);
  again.hidden = state !== "stopped";
  bar.style.width = `${Math.round(100 * fraction)}%`;
  renderAttention(value.attention);
  renderSamples(value.samples);
  renderDecoding(value.decoding);
  renderBadges(value.badges || []);
};
follow(render);
