// One feature: what it looks like, what it is called, where it fires, where it does not, and how far that can be trusted.
"use strict";

(() => {
  // The picture, and the same with what did not matter faded: the slider goes from one to the other.
  function pictures(record) {
    const shown = record.visualizations || [];
    if (!shown.length) return null;
    let current = 0;
    const stage = h("div", { class: "stage" });
    const under = h("figcaption", {});
    const slider = h("input", { type: "range", min: 0, max: 100, step: 1, value: 0, id: "transparency" });
    const output = h("output", { for: "transparency" }, "0 %");
    const control = h("label", { class: "slider", for: "transparency" }, [h("span", {}, "Transparency"), slider, output]);
    const tabs = shown.length > 1 ? h("div", { class: "tabs", role: "group", "aria-label": "Pictures" }) : null;

    function fade() {
      const share = slider.value / 100;
      output.textContent = `${slider.value} %`;
      const whole = stage.querySelector(".whole");
      if (whole) whole.style.opacity = 1 - share;
    }
    function show(place) {
      current = place;
      const { picture, transparent, method, activation, facet } = shown[place];
      stage.replaceChildren(
        ...[
          transparent ? Atlas.picture(transparent, "", { class: "faded", loading: "eager" }) : null,
          Atlas.picture(picture, `What excites ${record.unit}: a picture synthesized by ${method}`, { class: "whole", loading: "eager" }),
        ].filter(Boolean),
      );
      control.hidden = !transparent;
      under.replaceChildren(
        h("span", {}, [`Synthesized by ${method}${facet ? `, ${facet}` : ""}. `, transparent ? "Transparency fades what the feature did not use." : ""]),
        activation ? Atlas.measure(activation, { label: "Activation" }) : "",
      );
      if (tabs) [...tabs.children].forEach((tab, order) => tab.setAttribute("aria-pressed", order === current));
      fade();
    }
    slider.addEventListener("input", fade);
    if (tabs)
      tabs.append(...shown.map((one, place) => h("button", { type: "button", class: "tab", onclick: () => show(place) }, one.facet || one.method)));
    show(0);
    return h("figure", { class: "picture" }, [tabs, stage, control, under]);
  }

  function words(record) {
    const found = record.words;
    if (!found) return h("p", { class: "notice" }, "No words have been found for this feature yet.");
    return h("div", { class: "words" }, [
      found.concepts.length ? Atlas.terms(found.concepts, found) : h("p", { class: "soft" }, "No concept passed the contrast with similar images."),
      h("p", { class: "note" }, [
        `Found by ${found.method}; scores: ${found.score}`,
        found.control !== null && found.control !== undefined ? `; the tick at ${number(found.control)}: ${found.control_name}` : "",
        ".",
      ]),
      (found.phrases || []).length ? [h("h3", {}, "Phrases"), Atlas.terms(found.phrases, found)] : null,
      (found.spurious || []).length
        ? [
            h("h3", {}, "Removed as spurious"),
            h("p", { class: "note" }, "Said of its images, but just as much of similar images on which it is silent."),
            Atlas.terms(found.spurious, found, { struck: true }),
          ]
        : null,
    ]);
  }

  function crops(list, record, images) {
    return h(
      "div",
      { class: "crops" },
      list.map((crop) => Atlas.crop(crop, record.unit, { href: images.by.has(crop.image) ? Atlas.link("image", crop.image) : null })),
    );
  }

  // where the crops stand in the histogram: they are measured in its standard deviations
  const marks = (list, { mean, std }) =>
    list.filter((crop) => crop.value.unit.startsWith("standard deviations")).map((crop) => crop.value.value * std + mean);

  Atlas.pages.feature = {
    title: "Feature",
    async render(main, unit) {
      const [table, images, classes] = await Promise.all(["features", "images", "classes"].map(Atlas.table));
      const row = table.by.get(unit);
      if (!row) {
        main.append(h("h1", {}, unit), Atlas.missing("This atlas has no such feature."), h("p", {}, h("a", { href: "#/features" }, "All features")));
        return null;
      }
      const record = await Atlas.record("features", row.place);
      const [before, after] = [table.rows[row.place - 1], table.rows[row.place + 1]];
      const measures = [
        record.truth ? Atlas.measure(record.truth, { label: "Truth", low: 0, high: 1 }) : null,
        record.clarity ? Atlas.measure(record.clarity, { label: "Clarity", low: 0, high: 1 }) : null,
        record.sparsity ? Atlas.measure(record.sparsity, { label: "Sparsity", low: 0, high: 1 }) : null,
      ].filter(Boolean);
      const title = record.words && record.words.concepts.length ? record.words.concepts[0].text : "unnamed";
      const active = record.activating || [];
      const silent = record.counterfactuals || [];
      const shown = pictures(record);
      main.append(
        h("div", { class: "page-head" }, [
          h("nav", { class: "crumbs", "aria-label": "Neighbours" }, [
            h("a", { href: "#/features" }, "Features"),
            h("span", { class: "spacer" }),
            before ? h("a", { href: Atlas.link("feature", before.unit), rel: "prev", title: "The feature before (k)" }, `← ${before.unit}`) : null,
            after ? h("a", { href: Atlas.link("feature", after.unit), rel: "next", title: "The feature after (j)" }, `${after.unit} →`) : null,
          ]),
          h("h1", {}, [h("span", { class: "mono unit-name" }, record.unit), " ", h("em", {}, title)]),
        ]),
        h("div", { class: shown ? "columns" : "columns single" }, [
          shown,
          h("div", { class: "column" }, [words(record), measures.length ? h("div", { class: "measures" }, measures) : null]),
        ]),
        ...[
          active.length
            ? Atlas.section("Where it fires", "The images on which it is strongest; the line surrounds what drives it.", crops(active, record, images), Atlas.legend(active[0].value))
            : null,
          silent.length
            ? Atlas.section("Where it does not", "Images much like those above to the rest of the network, on which it is silent.", crops(silent, record, images), Atlas.legend(silent[0].value))
            : null,
          record.histogram
            ? Atlas.section("How often", null, Atlas.histogram(record.histogram, marks(active, record.histogram)))
            : null,
          (record.nearest || []).length || (record.classes || []).length
            ? h("div", { class: "columns even" }, [
                (record.nearest || []).length ? Atlas.section("Nearest features", "Those that rise and fall with it over the images.", Atlas.chips(record.nearest, table, classes)) : null,
                (record.classes || []).length ? Atlas.section("Classes it feeds", "What one standard deviation of it does to a class.", Atlas.chips(record.classes, table, classes)) : null,
              ])
            : null,
        ].filter(Boolean),
      );
      document.title = `${record.unit} ${title} · ${document.title}`;
      return null;
    },
    keys: {
      j: () => document.querySelector('a[rel="next"]'),
      k: () => document.querySelector('a[rel="prev"]'),
    },
  };
})();
