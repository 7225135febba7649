// All trials of a site, drawn as the page draws them: sheet.js, with files instead of a server.
const root = element.querySelector(".ai-sheet");
// Rows of numbers are written out as the sheet takes them.
const writtenOut = ({ rows, keys, thumbs, shown, ...value }) => ({
  ...value,
  trials: rows.map(([id, number, caption, category, why, pictured, scores, pictures]) => {
    const named = String(number).padStart(4, "0");
    const with_ = (names, numbers) => Object.fromEntries(names.map((name, i) => [name, numbers[i]]));
    return {
      id, number, caption, category, why, pictured, scores: with_(keys.trial, scores),
      ...(pictured ? { thumb: `${shown}/${named}.webp` } : {}),
      pictures: Object.fromEntries(Object.entries(pictures).map(([scale, numbers]) => [scale, { scores: with_(keys.picture, numbers), ...(thumbs ? { thumb: `${thumbs}/${named}-${scale}.webp` } : {}) }])),
    };
  }),
});
let full = null, shownNow = null;
const view = sheetView({ open: (id) => trigger("open", { trial: id }), full: (id) => full(id) });
root.append(view.node);
follow((value) => {
  full = value.full;
  if (value.index === shownNow) return;
  shownNow = value.index;
  view.fill({ ...writtenOut(value.index), link: value.name });
});
