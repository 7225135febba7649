// Sentences about what could not be done as asked, as plain text, until dismissed or outdated.
const root = element.querySelector(".ai-notices");
follow((value) => {
  root.replaceChildren(
    ...(value.notices || []).map((text) => {
      const line = h("p", { class: "ai-notice", role: "alert" }, h("span", {}, text));
      line.append(h("button", { type: "button", title: "Dismiss", "aria-label": "Dismiss", onclick: () => line.remove() }, "×"));
      return line;
    }),
  );
});
