// A picture of one's own. It is reduced here and sent inside an ordinary question: no file leaves
// the browser as a file, and the server keeps it in memory alone.
const ownView = () => {
  let content = null, limits = { side: 1024, most: 3e6 };
  const input = h("input", { type: "file", accept: "image/*", id: "own-file", class: "ai-own-file", onchange: () => { if (input.files[0]) send(input.files[0]); input.value = ""; } });
  const told = h("p", { class: "ai-small", role: "status" });
  const shown = h("img", { alt: "Your picture", draggable: "false", hidden: true });
  const drop = h("label", { class: "ai-own-drop", for: "own-file" }, shown, h("span", {}, h("b", {}, "Choose a picture"), ", or drop one anywhere on the page"));
  const away = h("button", { type: "button", class: "ai-link", hidden: true, onclick: () => choose({ panel: "own", picture: "" }) }, "Forget it");
  const banner = h("p", { class: "ai-banner" });
  const brain = brainFigure(["posterior", "ventral", "lateral"], "Predicted brain of your picture");
  const map = h("section", {}, h("h4", {}, "Predicted brain"), brain.node, exports_(["Save as CSV", () => content?.rows && saveTable("predicted-brain.csv", ["parcel", "label", "voxels", "predicted"], content.rows)]));
  const strip = h("ol", { class: "ai-cards" });
  const decoded = h("section", { class: "ai-apart" }, h("h4", {}, "Decoded from the prediction"), h("p", { class: "ai-small" }, "What each mapper makes of the predicted betas, drawn from the same noise. Rank: of your picture among itself and the test images, by what is decoded."), strip, exports_(["Save as CSV", () => saveTable("own-picture.csv", ["mapper", "target", "generator", "scale", "seed", "betas", "similarity", "rank", "reason", ...scoreNames()], rows())]));
  const node = h("div", {}, h("div", { class: "ai-own" }, h("div", {}, input, drop, told, away), map), banner, decoded);
  const scoreNames = () => [...new Set(content.cards.flatMap((card) => (card.scores || []).map(([name]) => name)))];
  const rows = () => content.cards.map((card) => ({ ...card, target: card.space, seed: content.seed, betas: "predicted, not measured", ...Object.fromEntries(card.scores || []) }));

  const reduce = async (file) => {
    const picture = await createImageBitmap(file, { imageOrientation: "from-image" });
    const size = Math.min(1, limits.side / Math.max(picture.width, picture.height));
    const canvas = h("canvas", { width: Math.max(1, Math.round(picture.width * size)), height: Math.max(1, Math.round(picture.height * size)) });
    const pen = canvas.getContext("2d");
    pen.fillStyle = "#fff"; // as transparency is laid on white everywhere here
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.imageSmoothingQuality = "high";
    pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
    picture.close();
    const forms = [["image/png"], ["image/jpeg", 0.95], ["image/jpeg", 0.8]];
    const texts = forms.map(([form, quality]) => () => canvas.toDataURL(form, quality));
    for (const text of texts) { const made = text(); if (made.length <= limits.most / 2) return made; }
    return canvas.toDataURL("image/jpeg", 0.8);
  };
  const send = async (file) => {
    setText(told, "Reading the picture…");
    try {
      const text = await reduce(file);
      setText(told, "");
      choose({ panel: "own", picture: text });
      wanted = "own";
    } catch {
      setText(told, `${file.name} is no picture that this browser can read; choose another file.`);
      if (current?.panel !== "own") choose({ panel: "own" });
    }
  };
  // Anywhere on the page: a file that is dropped elsewhere would be opened in its place.
  const carries = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
  window.addEventListener("dragover", (event) => { if (carries(event)) event.preventDefault(); });
  window.addEventListener("drop", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    if (event.dataTransfer.files[0]) send(event.dataTransfer.files[0]);
  });

  const card = (one) => {
    const waits = one.state === "empty";
    const made = one.src ? `${one.generator}${one.scale ? `, scale ${one.scale}` : ""}` : "";
    return h("li", { class: "ai-card", "data-mapper": one.mapper, "data-state": one.state },
      h("div", { class: "ai-picture" }, one.src ? h("img", { src: one.src, alt: `Decoded by ${one.mapper} from the predicted brain`, draggable: "false" }) : null, one.reason ? h("p", { class: "ai-why" }, one.reason) : null),
      h("h4", {}, one.mapper), h("p", { class: "ai-hint" }, waits ? "" : `From predicted betas. ${made}`),
      waits ? null : h("dl", { class: "ai-scores" }, one.rank ? h("div", {}, h("dt", {}, "rank"), h("dd", {}, one.rank)) : null, one.similarity === null ? null : h("div", {}, h("dt", {}, "decoded similarity"), h("dd", {}, number(one.similarity))), (one.scores || []).map(([name, text]) => h("div", {}, h("dt", {}, name), h("dd", {}, text)))));
  };
  const fill = (value) => {
    content = value;
    const has = Boolean(value.src);
    if (has) setSource(shown, value.src);
    shown.hidden = away.hidden = !has;
    if (has) setText(told, "");
    setText(banner, value.sentence || "");
    banner.hidden = !value.sentence;
    map.hidden = !value.brain;
    if (value.brain) brain.draw(value.brain);
    decoded.hidden = !(value.cards || []).length;
    strip.replaceChildren(...(value.cards || []).map(card));
  };
  fill({ src: "" });
  const settings = (value) => { limits = value; };
  return { node, settings, fill };
};
