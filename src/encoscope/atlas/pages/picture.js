// A synthesized picture, and the same with what did not matter made transparent: a slider goes from one to the other.
"use strict";

(() => {
  const NAMES = { vital: "VITAL", fourier: "Fourier", maco: "MACO" };
  const LARGEST = 3; // times the pixels that there are: what is larger is blur
  const named = (method) => NAMES[method] || method;

  // pictures: of one thing, a tab for each. what: begins the text that stands for a picture; null without pictures.
  Atlas.pictures = (pictures, what) => {
    const shown = pictures || [];
    if (!shown.length) return null;
    const stage = h("div", { class: "stage" });
    const under = h("figcaption", {});
    const slider = h("input", { type: "range", min: 0, max: 100, step: 1, value: 0, id: "transparency" });
    const output = h("output", { for: "transparency" }, "0 %");
    const control = h("label", { class: "slider", for: "transparency" }, [h("span", {}, "Transparency"), slider, output]);
    const tabs = shown.length > 1 ? h("div", { class: "tabs", role: "group", "aria-label": "Pictures" }) : null;

    function fade() {
      output.textContent = `${slider.value} %`;
      const whole = stage.querySelector(".whole");
      if (whole) whole.style.opacity = control.hidden ? 1 : 1 - slider.value / 100;
    }
    function show(place) {
      const { picture, transparent, method, activation, facet, notes } = shown[place];
      stage.replaceChildren(
        ...[
          transparent ? Atlas.picture(transparent, "", { class: "faded", loading: "eager" }) : null,
          Atlas.picture(picture, `${what}: a picture synthesized by ${named(method)}`, { class: "whole", loading: "eager" }),
        ].filter(Boolean),
      );
      control.hidden = !transparent;
      under.replaceChildren(
        h("span", {}, [`Synthesized by ${named(method)}${facet ? `, ${facet}` : ""}. `, transparent ? "Transparency takes away what did not matter." : ""]),
        activation ? Atlas.measure(activation, { label: "Activation" }) : "",
        ...(notes || []).map((text) => h("p", { class: "note" }, sentence(text))),
      );
      if (tabs) [...tabs.children].forEach((tab, order) => tab.setAttribute("aria-pressed", order === place));
      fade();
    }
    slider.addEventListener("input", fade);
    if (tabs) tabs.append(...shown.map((one, place) => h("button", { type: "button", class: "tab", onclick: () => show(place) }, one.facet || named(one.method))));
    show(0);
    const figure = h("figure", { class: "picture" }, [tabs, stage, control, under]);
    figure.dataset.width = Math.min(560, Math.max(256, LARGEST * Math.max(...shown.map(({ picture }) => picture.width))));
    return figure;
  };

  // What is said beside a picture, or alone where there is none.
  Atlas.beside = (figure, ...children) =>
    h("div", { class: figure ? "columns beside" : "columns single", style: figure ? { "--picture": `${figure.dataset.width}px` } : {} }, ...children);
})();
