// One feature: what it looks like, what it is called, where it fires, where it does not, and how far that can be trusted.
"use strict";

(() => {
  function words(record) {
    const found = record.words;
    if (!found) return h("p", { class: "notice" }, "No words have been found for this feature yet.");
    return h("div", { class: "words" }, [
      found.concepts.length ? Atlas.terms(found.concepts, found) : h("p", { class: "soft" }, "No concept passed the contrast with similar images."),
      found.note ? h("p", { class: "note" }, sentence(found.note)) : null,
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
      const shown = Atlas.pictures(record.visualizations, `What excites ${record.unit}`);
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
        Atlas.beside(shown, [
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
                (record.classes || []).length ? Atlas.section("Classes it feeds", /^logit/.test(record.classes[0].measure.unit) ? "What one standard deviation of it does to a class." : "The classes whose logits rise and fall with it over the images.", Atlas.chips(record.classes, table, classes)) : null,
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
