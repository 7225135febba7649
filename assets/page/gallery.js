// The test stimuli of one page; data are shown as text and images only.
const root = element.querySelector(".ai-gallery");
follow((value) => {
  const button = (label, page, title) =>
    h("button", { type: "button", class: "ai-link", disabled: page === null, title, "aria-label": title, onclick: () => trigger("turn", { page }) }, label);
  const { page, pages } = value;
  root.replaceChildren(
    h(
      "ol",
      {},
      ...value.items.map((item) => {
        const chosen = item.stimulus === value.chosen;
        const title = `${item.number}. ${item.caption || item.stimulus}`;
        return h(
          "li",
          {},
          h(
            "button",
            { type: "button", class: chosen ? "ai-chosen" : "", title, "aria-pressed": chosen, "data-stimulus": item.stimulus, onclick: () => trigger("select", { stimulus: item.stimulus }) },
            h("img", { src: item.src, alt: title, draggable: "false" }),
          ),
        );
      }),
    ),
    h(
      "p",
      { class: "ai-pager" },
      button("‹", page > 0 ? page - 1 : null, "Previous page of stimuli"),
      h("span", { class: "ai-number" }, `${value.first}–${value.last} of ${value.total}`),
      button("›", page + 1 < pages ? page + 1 : null, "Next page of stimuli"),
    ),
  );
  const strip = root.firstElementChild; // scrolls sideways on a phone
  const chosen = strip.querySelector(".ai-chosen");
  if (chosen) strip.scrollLeft = chosen.offsetLeft - strip.clientWidth / 2;
});
