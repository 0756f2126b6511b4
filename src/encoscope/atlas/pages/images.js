// All images, and one of them with its segmentations.
"use strict";

(() => {
  /** @param {ImageRow} row */
  const isMistaken = (row) => row.label && row.predicted && row.predicted !== `class:${row.label}`;

  /** @param {ImageRow} row */
  function card(row) {
    const name = row.label || row.name;
    return h(
      "div",
      {},
      h("a", { class: "card image-card", href: Atlas.link("image", row.id) }, [
        h(
          "span",
          { class: "face" },
          row.thumbnail ? h("img", { src: imageSource(row.thumbnail[0]), alt: name, decoding: "async" }) : null,
        ),
        h("span", { class: "card-caption" }, toPlain(name)),
      ]),
    );
  }

  /**
   * @param {ImageRow[]} rows
   * @param {Query} query
   */
  function selectRows(rows, query) {
    const text = (query.q || "").toLowerCase();
    return rows.filter(
      (row) =>
        (!query.label || row.label === query.label) &&
        (!query.wrong || isMistaken(row)) &&
        (!text || `${row.name} ${row.label || ""}`.toLowerCase().includes(text)),
    );
  }

  Atlas.pages.images = {
    title: "Images",
    async render(main, _part, query) {
      const { rows } = await Atlas.table("images");
      const state = { ...query };
      const labels = [...new Set(rows.flatMap((row) => row.label || []))].sort((a, b) => a.localeCompare(b));
      const count = h("output", { class: "count", "aria-live": "polite" });
      const host = h("div", {});
      const search = Atlas.searchField("Search names and classes", "Search images", state.q);
      const wrong = h("input", { type: "checkbox", checked: Boolean(state.wrong) });
      /** @type {[string, string][]} */
      const options = [
        ["", "all classes"],
        ...labels.map(/** @returns {[string, string]} */ (label) => [label, toPlain(label)]),
      ];
      main.append(
        h("div", { class: "page-head" }, [
          h("h1", {}, "Images"),
          h("p", { class: "lead" }, "The images of this atlas, each with its segmentations at any granularity."),
        ]),
        Atlas.toolbar(
          search,
          labels.length ? Atlas.select("label", "Class", options, state.label, change) : null,
          rows.some((row) => row.predicted && row.label)
            ? h("label", { class: "check" }, [wrong, "taken for something else"])
            : null,
        ),
        count,
        host,
      );
      const grid = Atlas.grid(host, { least: 150, extra: 30, card });

      function update() {
        const selection = selectRows(rows, state);
        count.textContent = Atlas.countOf(selection.length, rows.length, "image");
        grid.show(selection);
        Atlas.replace("images", null, state);
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
      wrong.addEventListener("change", () => change("wrong", wrong.checked ? "1" : ""));
      update();
      return () => grid.close();
    },
    keys: Atlas.searchKeys,
  };

  // What a network says of an image, and the features that stand out in it; also of an uploaded one.
  Atlas.imageLinks = ({ predictions, tops }, features, classes, images) =>
    h("div", { class: "columns even" }, [
      predictions?.length
        ? Atlas.section("What the network says", null, Atlas.chips(predictions, features, classes, images))
        : null,
      tops?.length ? Atlas.section("Features that stand out", null, Atlas.chips(tops, features, classes)) : null,
    ]);

  Atlas.pages.image = {
    title: "Image",
    async render(main, id, query) {
      const [images, features, classes] = await Promise.all([
        Atlas.table("images"),
        Atlas.table("features"),
        Atlas.table("classes"),
      ]);
      const row = images.by.get(id ?? "");
      if (!row) {
        main.append(
          h("h1", {}, "Image"),
          Atlas.missing("This atlas has no such image."),
          h("p", {}, h("a", { href: "#/images" }, "All images")),
        );
        return null;
      }
      const record = await Atlas.record("images", row.position);
      const [before, after] = [images.rows[row.position - 1], images.rows[row.position + 1]];
      const name = toPlain(record.label || record.name || "");
      const shown = record.picture || record.thumbnail;
      main.append(
        h("div", { class: "page-head" }, [
          Atlas.neighbours(
            { text: "Images", href: "#/images" },
            before ? { text: "before", href: Atlas.link("image", before.id, query) } : null,
            after ? { text: "after", href: Atlas.link("image", after.id, query) } : null,
          ),
          h(
            "h1",
            {},
            record.label && classes.by.has(record.label)
              ? h("a", { href: Atlas.link("class", record.label) }, name)
              : name,
          ),
          h("p", { class: "soft" }, [
            record.name,
            " ",
            h("span", { class: "mono", title: `sha256 ${record.id}` }, record.id.slice(0, 12)),
          ]),
        ]),
      );
      if (shown) {
        const source = { src: imageSource(shown.name), alt: name, width: shown.width, height: shown.height };
        /** @param {Query} state */
        const changed = (state) => Atlas.replace("image", id, state);
        main.append(Atlas.explorer(record, source, { state: { ...query }, changed, features, images }));
      }
      if (record.predictions?.length || record.tops?.length)
        main.append(Atlas.imageLinks(record, features, classes, images));
      document.title = `${name} · ${document.title}`;
      return null;
    },
    keys: Atlas.neighbourKeys,
  };
})();
