// The test stimuli of one page; data are shown as text and images only.
const root = element.querySelector(".ai-gallery");
const list = h("ol");
const range = h("span", { class: "ai-number" });
const turner = (label, title, by) =>
  h("button", { type: "button", class: "ai-link", title, "aria-label": title, onclick: () => trigger("turn", { page: shown.page + by }) }, label);
const back = turner("‹", "Previous page of stimuli", -1);
const on = turner("›", "Next page of stimuli", +1);
const all = h("button", { type: "button", class: "ai-link", id: "all-trials", onclick: () => window.dispatchEvent(new Event("afterimage-sheet")) }, "All trials at once");
root.append(list, h("p", { class: "ai-pager" }, back, range, on), h("p", { class: "ai-all" }, all));
let shown = null;

const mark = (stimulus) => {
  list.querySelectorAll("button").forEach((button) => {
    const chosen = button.dataset.stimulus === stimulus;
    button.classList.toggle("ai-chosen", chosen);
    button.setAttribute("aria-pressed", chosen);
    // On a phone the list is a strip that scrolls sideways.
    if (chosen) list.scrollLeft = button.offsetLeft - list.clientWidth / 2;
  });
};
// The trial view says what is shown, so the same page of pictures is not sent again for each trial.
window.addEventListener("afterimage-trial", (event) => mark(event.detail));

follow((value) => {
  shown = value;
  list.replaceChildren(
    ...value.items.map((item) => {
      const title = `${item.number}. ${item.caption || item.stimulus}`;
      return h(
        "li",
        {},
        h("button", { type: "button", title, "data-stimulus": item.stimulus, onclick: () => trigger("select", { stimulus: item.stimulus }) }, h("img", { src: item.src, alt: title, draggable: "false" })),
      );
    }),
  );
  setText(range, `${value.first}–${value.last} of ${value.total}`);
  back.disabled = value.page === 0;
  on.disabled = value.page + 1 >= value.pages;
  mark(value.chosen);
});
