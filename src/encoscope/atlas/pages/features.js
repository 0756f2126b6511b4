// All features: searched by word, filtered, sorted; a grid that holds only what is in sight.
"use strict";

(() => {
  /** @typedef {"heldout_auc" | "clarity" | "sparsity"} Column */

  /** @type {Record<string, {text: string, meaning?: string}>} */
  const SORTS = {
    order: { text: "in network order" },
    heldout_auc: {
      text: "by held-out AUC",
      meaning: "AUC of the description on images that were not used to find it",
    },
    clarity: {
      text: "by clarity",
      meaning: "mean cosine of a feature's crops in the image-text model: how alike they are",
    },
    sparsity: {
      text: "by sparsity",
      meaning: "share of the images that stay below half of a feature's strongest value",
    },
    word: { text: "by first word" },
  };

  /** @type {Record<Column, {label: string, control: string, format: (value: number) => string}>} */
  const FIGURES = {
    heldout_auc: { label: "AUC", control: "control", format: formatNumber },
    clarity: { label: "cosine", control: "control", format: formatNumber },
    sparsity: { label: "quiet on", control: "median", format: formatPercent }, // a share; the others have no dimension
  };

  /**
   * @param {string | undefined} sort
   * @returns {sort is Column}
   */
  const isColumn = (sort) => sort !== undefined && sort in FIGURES;

  /**
   * What a search looks through: a blank before every word, so that it finds beginnings of words.
   * @param {FeatureRow} row
   */
  const searchText = (row) =>
    ` ${row.unit} ${row.unit.split(":").pop()} ${row.concepts.join(" ")} ${row.phrases.join(" ")}`.toLowerCase();

  /**
   * The rows that a query asks for, in its order.
   * @param {FeatureRow[]} rows
   * @param {string[]} texts
   * @param {Query} query
   */
  function selectRows(rows, texts, query) {
    const words = (query.q || "").toLowerCase().split(/\s+/).filter(Boolean);
    const selection = rows.filter(
      (row) =>
        (!query.layer || row.layer === query.layer) &&
        (!query.method || (row.method || "none") === query.method) &&
        (!query.visualized || row.picture) &&
        words.every((word) => texts[row.position].includes(` ${word}`)),
    );
    const { sort } = query;
    if (isColumn(sort))
      selection.sort((a, b) => (b[sort] ?? -Infinity) - (a[sort] ?? -Infinity) || a.position - b.position);
    else if (sort === "word")
      selection.sort(
        (a, b) => (a.concepts[0] || "\uffff").localeCompare(b.concepts[0] || "\uffff") || a.position - b.position,
      );
    return selection;
  }

  /**
   * The number on a card: the one that is sorted by, else the first that there is.
   * @param {FeatureRow} row
   * @param {string} sort
   */
  function figure(row, sort) {
    const best = row.heldout_auc !== null ? "heldout_auc" : row.clarity !== null ? "clarity" : "sparsity";
    const column = isColumn(sort) ? sort : best;
    const [value, control] = [row[column], row[`${column}_control`]];
    if (!isKnown(value)) return h("span", { class: "card-figure" });
    const { label, control: name, format } = FIGURES[column];
    return h("span", { class: "card-figure" }, [
      `${label} `,
      h("b", {}, format(value)),
      isKnown(control) ? h("span", { class: "soft" }, ` ${name} ${format(control)}`) : null,
    ]);
  }

  /**
   * @param {FeatureRow} row
   * @param {string} sort
   */
  function card(row, sort) {
    const isProven = Atlas.isProven(row.verdict);
    const [first, ...more] = row.concepts;
    return h(
      "div",
      {},
      h("a", { class: "card", href: Atlas.link("feature", row.unit) }, [
        Atlas.face(row, { lazy: false }),
        h("span", { class: "card-text" }, [
          h(
            "span",
            { class: "card-word" },
            first && isProven ? first : h("span", { class: "soft" }, first ? row.verdict : "no description"),
          ),
          h("span", { class: "card-more" }, (isProven ? more : row.concepts).slice(0, 3).join(", ")),
          h("span", { class: "card-foot" }, [h("span", { class: "mono" }, row.unit), figure(row, sort)]),
        ]),
      ]),
    );
  }

  /**
   * @param {FeatureRow[]} rows
   * @param {Query} state
   * @param {HTMLInputElement} search
   * @param {(name: string, value: string) => void} change
   */
  function toolbar(rows, state, search, change) {
    const { layers } = Atlas.manifest;
    const methods = [...new Set(rows.map((row) => row.method || "none"))];
    const visualized = h("input", {
      type: "checkbox",
      checked: Boolean(state.visualized),
      onchange: (event) => change("visualized", event.target.checked ? "1" : ""),
    });
    /**
     * @param {string} name
     * @param {string} label
     * @param {[string, string][]} options
     */
    const select = (name, label, options) => Atlas.select(name, label, options, state[name], change);
    return Atlas.toolbar(
      search,
      layers.length > 1
        ? select("layer", "Layer", [
            ["", "all layers"],
            ...layers.map(/** @returns {[string, string]} */ (name) => [name, name]),
          ])
        : null,
      methods.length > 1
        ? select("method", "Description by", [
            ["", "any method"],
            ...methods.map(
              /** @returns {[string, string]} */ (name) => [name, name === "none" ? "no method yet" : name],
            ),
          ])
        : null,
      select(
        "sort",
        "Sorted",
        Object.entries(SORTS).map(([value, { text }]) => [value, text]),
      ),
      rows.some((row) => row.picture) ? h("label", { class: "check" }, [visualized, "with a visualization"]) : null,
    );
  }

  /** @param {FeatureRow[]} rows */
  function heading(rows) {
    const { model } = Atlas.manifest;
    return h("div", { class: "page-head" }, [
      h("h1", {}, "Features"),
      h("p", { class: "lead" }, [
        `What each feature of ${model ? model.source : "the network"} stands for and looks like. `,
        rows.some((row) => row.heldout_auc !== null)
          ? "AUC says how well the description predicts the feature on images that were not used to find it: " +
            "1 always, 0.5 by chance; beside it stands what a control reaches."
          : "",
      ]),
    ]);
  }

  Atlas.pages.features = {
    title: "Features",
    async render(main, _part, query) {
      const { rows } = await Atlas.table("features");
      const texts = rows.map(searchText);
      const state = { ...query };
      const count = h("output", { class: "count", "aria-live": "polite" });
      const meaning = h("p", { class: "note", hidden: true });
      const host = h("div", {});
      const none = h("p", { class: "notice", hidden: true }, "No feature fits. Searches find the beginnings of words.");
      const search = Atlas.searchField("Search words or units: fur, layer4:48", "Search features by word", state.q);
      search.setAttribute("spellcheck", "false");
      main.append(
        heading(rows),
        toolbar(rows, state, search, change),
        h("div", { class: "results" }, [count, meaning]),
        host,
        none,
      );
      const grid = Atlas.grid(host, {
        card: (/** @type {FeatureRow} */ row) => card(row, state.sort),
        least: 190,
        extra: 96,
      });

      /**
       * @param {string} name
       * @param {string} value
       */
      function change(name, value) {
        state[name] = value === "order" ? "" : value;
        update();
        scrollTo(0, 0);
      }
      function update() {
        const selection = selectRows(rows, texts, state);
        const sort = SORTS[state.sort];
        count.textContent = Atlas.countOf(selection.length, rows.length, "feature");
        none.hidden = selection.length > 0;
        meaning.textContent = `Highest first: ${sort?.meaning}.`;
        meaning.hidden = !sort?.meaning;
        grid.show(selection);
        Atlas.replace("features", null, state);
      }
      search.addEventListener("input", () => change("q", search.value.trim()));
      search.addEventListener("keydown", (event) => {
        if (event.key === "Escape" && search.value) {
          search.value = "";
          change("q", "");
        } else if (event.key === "ArrowDown" || event.key === "Enter") {
          event.preventDefault();
          grid.focus(0);
        }
      });
      update();
      return () => grid.close();
    },
    keys: Atlas.searchKeys,
  };
})();
