// All classes, and one of them: what it looks like, the channels it rests on, and the images it fails on.
"use strict";

(() => {
  /** @param {ClassRow} row */
  function card(row) {
    const alt = `What the network takes for ${toPlain(row.name)}`;
    return h(
      "div",
      {},
      h("a", { class: "card", href: Atlas.link("class", row.name) }, [
        h(
          "span",
          { class: "face" },
          row.picture ? h("img", { src: imageSource(row.picture), alt, decoding: "async" }) : null,
        ),
        h("span", { class: "card-text" }, [
          h("span", { class: "card-word" }, toPlain(row.name)),
          h("span", { class: "card-foot" }, [
            row.accuracy === null
              ? null
              : h("span", { class: "card-figure" }, [
                  h("b", {}, formatPercent(row.accuracy)),
                  " right",
                  row.accuracy_control === null
                    ? null
                    : h("span", { class: "soft" }, ` control ${formatPercent(row.accuracy_control)}`),
                ]),
            row.failures ? h("span", { class: "soft" }, formatPlural(row.failures, "failure")) : null,
          ]),
        ]),
      ]),
    );
  }

  /**
   * @param {ClassRow[]} rows
   * @param {Query} query
   */
  function selectRows(rows, query) {
    const text = toPlain((query.q || "").toLowerCase());
    const selection = rows.filter((row) => toPlain(row.name.toLowerCase()).includes(text));
    if (query.sort === "name") selection.sort((a, b) => a.name.localeCompare(b.name));
    if (query.sort === "accuracy") selection.sort((a, b) => (a.accuracy ?? 2) - (b.accuracy ?? 2));
    return selection;
  }

  Atlas.pages.classes = {
    title: "Classes",
    async render(main, _part, query) {
      const { rows } = await Atlas.table("classes");
      const state = { ...query };
      const host = h("div", {});
      const count = h("output", { class: "count", "aria-live": "polite" });
      const search = Atlas.searchField("Search classes", "Search classes", state.q);
      /** @type {[string, string][]} */
      const sorts = [
        ["", "in the network's order"],
        ["name", "by name"],
        ["accuracy", "by accuracy, lowest first"],
      ];
      main.append(
        h("div", { class: "page-head" }, [
          h("h1", {}, "Classes"),
          h("p", { class: "lead" }, "What the network's outputs look like, and what they rest on."),
        ]),
        Atlas.toolbar(search, Atlas.select("sort", "Sorted", sorts, state.sort, change)),
        count,
        host,
      );
      const grid = Atlas.grid(host, { least: 190, extra: 66, card });

      function update() {
        const selection = selectRows(rows, state);
        count.textContent = formatPlural(selection.length, "class", "classes");
        grid.show(selection);
        Atlas.replace("classes", null, state);
      }
      /**
       * @param {string} name
       * @param {string} value
       */
      function change(name, value) {
        state[name] = value;
        update();
      }
      search.addEventListener("input", () => change("q", search.value.trim()));
      update();
      return () => grid.close();
    },
    keys: Atlas.searchKeys,
  };

  /** @typedef {{features: Table<FeatureRow>, images: Table<ImageRow>, classes: Table<ClassRow>}} Tables */

  /**
   * @param {Table<ImageRow>} images
   * @param {string} id
   */
  const imageLink = (images, id) => (images.by.has(id) ? Atlas.link("image", id) : null);

  /**
   * @param {CropRecord[] | undefined} crops
   * @param {string} name
   * @param {Table<ImageRow>} images
   */
  function typicalImages(crops, name, images) {
    if (!crops?.length) return null;
    const figures = crops.map((crop) => Atlas.crop(crop, name, { href: imageLink(images, crop.image) }));
    return [h("h2", {}, "Most like it"), h("div", { class: "crops" }, figures), Atlas.legend(crops[0].value)];
  }

  /**
   * @param {ClassRecord} record
   * @param {string} name
   * @param {Tables} tables
   */
  function circuitSection({ circuit, circuit_method }, name, { features, classes }) {
    if (!circuit?.length) return null;
    return Atlas.section(
      "Circuit",
      "The channels it rests on, layer by layer, heaviest first.",
      h("div", { class: "circuit" }, [
        circuit.map(({ layer, channels }) =>
          h("div", { class: "circuit-layer" }, [
            h("h3", { class: "mono" }, layer),
            Atlas.chips(channels, features, classes),
          ]),
        ),
        h("div", { class: "circuit-layer last" }, [
          h("h3", { class: "mono" }, "output"),
          h("p", { class: "circuit-class" }, name),
        ]),
      ]),
      circuit_method ? h("p", { class: "note" }, `Weights: ${circuit_method}.`) : null,
    );
  }

  /**
   * @param {Failure} failure
   * @param {Tables} tables
   */
  function failureArticle({ image, picture, predicted, confidence, drivers }, { features, images, classes }) {
    const name = toPlain(predicted);
    return h("article", { class: "failure" }, [
      h("a", { href: imageLink(images, image) }, Atlas.image(picture, `Taken for ${predicted}`)),
      h("div", { class: "column" }, [
        h("p", {}, [
          "taken for ",
          classes.by.has(predicted) ? h("a", { href: Atlas.link("class", predicted) }, name) : h("b", {}, name),
        ]),
        Atlas.measure(confidence, { label: "Confidence", low: 0, high: 1 }),
        drivers?.length ? Atlas.chips(drivers, features, classes) : null,
      ]),
    ]);
  }

  /**
   * @param {ClassRecord} record
   * @param {string} name
   * @param {Tables} tables
   */
  function failureSection({ failures, accuracy }, name, tables) {
    if (failures?.length)
      return Atlas.section(
        "Failures",
        `Images of ${name} that the network takes for something else, and what drove that.`,
        h(
          "div",
          { class: "failures" },
          failures.map((failure) => failureArticle(failure, tables)),
        ),
      );
    if (!accuracy) return null;
    const text = `None of the images of ${name} here is taken for something else.`;
    return Atlas.section("Failures", null, h("p", { class: "soft" }, text));
  }

  /** @param {ClassRow | undefined} row */
  const neighbour = (row) => (row ? { text: toPlain(row.name), href: Atlas.link("class", row.name) } : null);

  Atlas.pages.class = {
    title: "Class",
    async render(main, part) {
      const [classes, features, images] = await Promise.all([
        Atlas.table("classes"),
        Atlas.table("features"),
        Atlas.table("images"),
      ]);
      const row = classes.by.get(part ?? "") || classes.rows.find(({ index }) => String(index) === part);
      if (!row) {
        main.append(
          h("h1", {}, part),
          Atlas.missing("This atlas has no such class."),
          h("p", {}, h("a", { href: "#/classes" }, "All classes")),
        );
        return null;
      }
      const record = await Atlas.record("classes", row.position);
      const tables = { features, images, classes };
      const name = toPlain(record.name);
      const figure = Atlas.visualizations(record.visualizations, `What the network takes for ${name}`);
      const isLabelled = Boolean(record.circuit?.length || record.accuracy);
      main.append(
        h("div", { class: "page-head" }, [
          Atlas.neighbours(
            { text: "Classes", href: "#/classes" },
            neighbour(classes.rows[row.position - 1]),
            neighbour(classes.rows[row.position + 1]),
          ),
          h("h1", {}, [name, " ", h("span", { class: "mono unit-name" }, `class:${record.index}`)]),
        ]),
        Atlas.beside(figure, [
          figure,
          h("div", { class: "column" }, [
            record.accuracy
              ? h("div", { class: "measures" }, Atlas.measure(record.accuracy, { label: "Accuracy", low: 0, high: 1 }))
              : null,
            typicalImages(record.images, name, images),
          ]),
        ]),
      );
      const sections = [
        circuitSection(record, name, tables),
        isLabelled
          ? null
          : Atlas.missing(
              "None of the atlas's images is labelled with this class, so there is no circuit to follow and nothing " +
                "to fail on.",
            ),
        failureSection(record, name, tables),
      ];
      main.append(...sections.filter((section) => section !== null));
      document.title = `${name} · ${document.title}`;
      return null;
    },
    keys: Atlas.neighbourKeys,
  };
})();
