// All trials at once, on a server: pictures are asked for as they are scrolled to.
const sheetPanel = () => {
  let link = "", content = null;
  const asked = (more) => server.sheet({ link, ...more }).then((found) => (found.problem ? null : found));
  const view = sheetView({
    thumbs: (ids, scale) => asked({ ids, scale }),
    full: (id) => asked({ ids: [id], full: true }).then((found) => found?.[id] || null),
    open: (id) => { goUp(); trigger("select", { stimulus: id }); },
    draw: (scale) => trigger("draw", { scale }),
  });
  const rows = () => content.trials.flatMap((trial) => [["", trial.scores], ...Object.entries(trial.pictures).map(([key, one]) => [key, one.scores])].map(([scale, scores]) => ({ trial: trial.id, number: trial.number, caption: trial.caption, category: trial.category, scale, ...scores })));
  const columns = () => ["trial", "number", "caption", "category", "scale", ...content.scores.map((one) => one.key)];
  const node = h("div", {}, view.node, exports_(["Save all scores as CSV", () => saveTable("trials.csv", columns(), rows())]));
  const fill = (value) => {
    content = value;
    link = value.link;
    view.fill(value);
  };
  return { node, settings: () => {}, fill };
};
