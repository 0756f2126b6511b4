// A synthesized picture, and the same with what did not matter made transparent: a slider goes from one to the other.
"use strict";

(() => {
  /** @type {Record<string, string>} */
  const NAMES = { vital: "VITAL", fourier: "Fourier", maco: "MACO" };
  const LARGEST = 3; // times the pixels that there are: what is larger is blur

  /** @param {string} method */
  const nameMethod = (method) => NAMES[method] || method;

  /**
   * What is said below a visualization.
   * @param {VisualizationRecord} record
   * @returns {(string | HTMLElement)[]}
   */
  function describeVisualization({ transparent, method, activation, facet, notes }) {
    return [
      h("span", {}, [
        `Synthesized by ${nameMethod(method)}${facet ? `, ${facet}` : ""}. `,
        transparent ? "Transparency takes away what did not matter." : "",
      ]),
      activation ? Atlas.measure(activation, { label: "Activation" }) : "",
      ...(notes || []).map((text) => h("p", { class: "note" }, toSentence(text))),
    ];
  }

  // The visualizations of one unit, a tab for each; null without any. description: begins the text that stands for one.
  Atlas.visualizations = (records, description) => {
    if (!records?.length) return null;
    const stage = h("div", { class: "stage" });
    const caption = h("figcaption", {});
    const slider = h("input", { type: "range", min: 0, max: 100, step: 1, value: 0, id: "transparency" });
    const output = h("output", { for: "transparency" }, "0 %");
    const control = h("label", { class: "slider", for: "transparency" }, [
      h("span", {}, "Transparency"),
      slider,
      output,
    ]);
    const tabs = records.length > 1 ? h("div", { class: "tabs", role: "group", "aria-label": "Visualizations" }) : null;

    function fade() {
      output.textContent = `${slider.value} %`;
      const whole = stage.querySelector(".whole");
      if (whole instanceof HTMLElement)
        whole.style.opacity = String(control.hidden ? 1 : 1 - Number(slider.value) / 100);
    }

    /** @param {VisualizationRecord} record */
    function show(record) {
      const { picture, transparent, method } = record;
      const text = `${description}: a picture synthesized by ${nameMethod(method)}`;
      stage.replaceChildren();
      if (transparent) stage.append(Atlas.image(transparent, "", { class: "faded", loading: "eager" }));
      stage.append(Atlas.image(picture, text, { class: "whole", loading: "eager" }));
      control.hidden = !transparent;
      caption.replaceChildren(...describeVisualization(record));
      if (tabs)
        [...tabs.children].forEach((tab, order) => {
          tab.setAttribute("aria-pressed", String(records?.[order] === record));
        });
      fade();
    }

    slider.addEventListener("input", fade);
    if (tabs)
      tabs.append(
        ...records.map((record) =>
          h(
            "button",
            { type: "button", class: "tab", onclick: () => show(record) },
            record.facet || nameMethod(record.method),
          ),
        ),
      );
    show(records[0]);
    const figure = h("figure", { class: "visualization" }, [tabs, stage, control, caption]);
    const widest = Math.max(...records.map(({ picture }) => picture.width));
    figure.dataset.width = String(Math.min(560, Math.max(256, LARGEST * widest)));
    return figure;
  };

  // What is said beside a visualization, or alone where there is none.
  Atlas.beside = (figure, ...children) =>
    h(
      "div",
      {
        class: figure ? "columns beside" : "columns single",
        style: figure ? { "--visualization": `${figure.dataset.width}px` } : {},
      },
      ...children,
    );
})();
