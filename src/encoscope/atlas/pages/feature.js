// One feature: what it looks like, what it stands for, where it is active, where it is silent, and how far that can be
// trusted.
"use strict";

(() => {
  /** @type {Record<string, string>} */
  const verdicts = {
    "beats its control": "On other images these words predict the feature better than chance.",
    "no better than chance": "On other images these words predict the feature no better than random words do.",
    "too few images": "There were too few images to test these words on.",
  };

  /** @param {DescriptionRecord | undefined} description */
  function describe(description) {
    if (!description) return h("p", { class: "notice" }, "This feature has no description yet.");
    const { concepts, phrases, spurious, note, method, score, control, control_name, verdict } = description;
    return h("div", { class: "description" }, [
      verdict && concepts.length
        ? h("p", { class: Atlas.isProven(verdict) ? "note" : "notice" }, verdicts[verdict])
        : null,
      concepts.length
        ? Atlas.terms(concepts, description)
        : h("p", { class: "soft" }, "No concept passed the contrast with similar images."),
      note ? h("p", { class: "note" }, toSentence(note)) : null,
      h("p", { class: "note" }, [
        `Found by ${method}; scores: ${score}`,
        isKnown(control) ? `; the tick at ${formatNumber(control)}: ${control_name}` : "",
        ".",
      ]),
      phrases?.length ? [h("h3", {}, "Phrases"), Atlas.terms(phrases, description)] : null,
      spurious?.length
        ? [
            h("h3", {}, "Removed as spurious"),
            h("p", { class: "note" }, "Said of its images, but just as much of similar images on which it is silent."),
            Atlas.terms(spurious, description, { struck: true }),
          ]
        : null,
    ]);
  }

  /** @param {FeatureRecord} record */
  function measures({ heldout_auc, clarity, sparsity }) {
    const shown = [
      heldout_auc ? Atlas.measure(heldout_auc, { label: "Held-out AUC", low: 0, high: 1 }) : null,
      clarity ? Atlas.measure(clarity, { label: "Clarity", low: 0, high: 1 }) : null,
      sparsity ? Atlas.measure(sparsity, { label: "Sparsity", low: 0, high: 1 }) : null,
    ];
    return shown.some(Boolean) ? h("div", { class: "measures" }, shown) : null;
  }

  /**
   * @param {string} title
   * @param {string} lead
   * @param {CropRecord[] | undefined} crops
   * @param {string} unit
   * @param {Table<ImageRow>} images
   */
  function cropSection(title, lead, crops, unit, images) {
    if (!crops?.length) return null;
    const figures = crops.map((crop) =>
      Atlas.crop(crop, unit, { href: images.by.has(crop.image) ? Atlas.link("image", crop.image) : null }),
    );
    return Atlas.section(title, lead, h("div", { class: "crops" }, figures), Atlas.legend(crops[0].value));
  }

  /**
   * Where the crops stand in the histogram: they are measured in its standard deviations.
   * @param {CropRecord[] | undefined} crops
   * @param {Histogram} histogram
   */
  const positionsOf = (crops, { mean, std }) =>
    (crops || [])
      .filter((crop) => crop.value.unit.startsWith("standard deviations"))
      .map((crop) => crop.value.value * std + mean);

  /**
   * The features and classes that it is tied to.
   * @param {FeatureRecord} record
   * @param {Table<FeatureRow>} features
   * @param {Table<ClassRow>} classes
   */
  function links({ nearest, classes: fed }, features, classes) {
    if (!nearest?.length && !fed?.length) return null;
    return h("div", { class: "columns even" }, [
      nearest?.length
        ? Atlas.section(
            "Nearest features",
            "Those that rise and fall with it over the images.",
            Atlas.chips(nearest, features, classes),
          )
        : null,
      fed?.length
        ? Atlas.section(
            "Classes it feeds",
            /^logit/.test(fed[0].measure.unit)
              ? "What one standard deviation of it does to a class."
              : "The classes whose logits rise and fall with it over the images.",
            Atlas.chips(fed, features, classes),
          )
        : null,
    ]);
  }

  /**
   * @param {FeatureRow | undefined} row
   * @param {string} title
   */
  const neighbour = (row, title) => (row ? { text: row.unit, href: Atlas.link("feature", row.unit), title } : null);

  Atlas.pages.feature = {
    title: "Feature",
    async render(main, unit) {
      const [features, images, classes] = await Promise.all([
        Atlas.table("features"),
        Atlas.table("images"),
        Atlas.table("classes"),
      ]);
      const row = features.by.get(unit ?? "");
      if (!row) {
        main.append(
          h("h1", {}, unit),
          Atlas.missing("This atlas has no such feature."),
          h("p", {}, h("a", { href: "#/features" }, "All features")),
        );
        return null;
      }
      const record = await Atlas.record("features", row.position);
      const { rows } = features;
      const [name] = record.description?.concepts || [];
      const title = name && Atlas.isProven(record.description?.verdict) ? name.text : "unnamed";
      const figure = Atlas.visualizations(record.visualizations, `What excites ${record.unit}`);
      const sections = [
        cropSection(
          "Where it is active",
          "The images on which it is strongest; the line surrounds what drives it.",
          record.activating,
          record.unit,
          images,
        ),
        cropSection(
          "Where it is silent",
          "Images much like those above to the rest of the network, on which it is silent.",
          record.counterfactuals,
          record.unit,
          images,
        ),
        record.histogram
          ? Atlas.section(
              "How often",
              null,
              Atlas.histogram(record.histogram, positionsOf(record.activating, record.histogram)),
            )
          : null,
        links(record, features, classes),
      ];
      main.append(
        h("div", { class: "page-head" }, [
          Atlas.neighbours(
            { text: "Features", href: "#/features" },
            neighbour(rows[row.position - 1], "The feature before (k)"),
            neighbour(rows[row.position + 1], "The feature after (j)"),
          ),
          h("h1", {}, [h("span", { class: "mono unit-name" }, record.unit), " ", h("em", {}, title)]),
        ]),
        Atlas.beside(figure, [figure, h("div", { class: "column" }, [describe(record.description), measures(record)])]),
        ...sections.filter((section) => section !== null),
      );
      document.title = `${record.unit} ${title} · ${document.title}`;
      return null;
    },
    keys: Atlas.neighbourKeys,
  };
})();
