// All features: searched by word, filtered, sorted; a grid that holds only what is in sight.
"use strict";

(() => {
  const SORTS = {
    order: { text: "in network order" },
    truth: { text: "by truth of words", column: "truth", means: "AUC of the words on images that were not used to find them" },
    clarity: { text: "by clarity", column: "clarity", means: "mean cosine of a feature's crops in the image-text model: how alike they are" },
    sparsity: { text: "by sparsity", column: "sparsity", means: "share of the images that stay below half of a feature's strongest value" },
    word: { text: "by first word" },
  };

  function prepared(table) {
    if (!table.texts) {
      // a blank before every word: a search finds beginnings of words
      table.texts = table.rows.map((row) =>
        ` ${row.unit} ${row.unit.split(":").pop()} ${row.concepts.join(" ")} ${row.phrases.join(" ")}`.toLowerCase(),
      );
      table.methods = [...new Set(table.rows.map((row) => row.method || "none"))];
    }
    return table;
  }

  function chosen(table, query) {
    const wanted = (query.q || "").toLowerCase().split(/\s+/).filter(Boolean).map((word) => ` ${word}`);
    const found = table.rows.filter(
      (row) =>
        (!query.layer || row.layer === query.layer) &&
        (!query.method || (row.method || "none") === query.method) &&
        (!query.pictures || row.picture) &&
        wanted.every((word) => table.texts[row.place].includes(word)),
    );
    const { column } = SORTS[query.sort] || {};
    if (column) found.sort((a, b) => (b[column] ?? -Infinity) - (a[column] ?? -Infinity) || a.place - b.place);
    else if (query.sort === "word")
      found.sort((a, b) => (a.concepts[0] || "\uffff").localeCompare(b.concepts[0] || "\uffff") || a.place - b.place);
    return found;
  }

  function figure(row, sort) {
    const name = { truth: "AUC", clarity: "cosine", sparsity: "quiet on" };
    const shown = { sparsity: percent }; // a share of the images; the others have no dimension
    const column = SORTS[sort] && SORTS[sort].column ? sort : row.truth !== null ? "truth" : row.clarity !== null ? "clarity" : "sparsity";
    if (row[column] === null || row[column] === undefined) return h("span", { class: "card-figure" });
    const control = row[`${column}_control`];
    const has = control !== null && control !== undefined;
    return h("span", { class: "card-figure" }, [
      `${name[column]} `,
      h("b", {}, (shown[column] || number)(row[column])),
      has ? h("span", { class: "soft" }, ` ${column === "sparsity" ? "median" : "control"} ${(shown[column] || number)(control)}`) : null,
    ]);
  }

  function card(row, sort) {
    const [first, ...more] = row.concepts;
    return h(
      "div",
      {},
      h("a", { class: "card", href: Atlas.link("feature", row.unit) }, [
        Atlas.face(row, { lazy: false }),
        h("span", { class: "card-text" }, [
          h("span", { class: "card-word" }, first || h("span", { class: "soft" }, "no words")),
          h("span", { class: "card-more" }, more.slice(0, 3).join(", ")),
          h("span", { class: "card-foot" }, [h("span", { class: "mono" }, row.unit), figure(row, sort)]),
        ]),
      ]),
    );
  }

  Atlas.pages.features = {
    title: "Features",
    async render(main, _part, query) {
      const table = prepared(await Atlas.table("features"));
      const manifest = Atlas.manifest;
      const state = { ...query };
      const count = h("output", { class: "count", "aria-live": "polite" });
      const search = h("input", {
        type: "search",
        id: "search",
        placeholder: "Search words or units: fur, layer4:48",
        "aria-label": "Search features by word",
        value: state.q || "",
        autocomplete: "off",
        spellcheck: "false",
      });
      const select = (name, label, options) =>
        h("label", { class: "field" }, [
          h("span", {}, label),
          h("select", { name, onchange: (event) => change(name, event.target.value) },
            options.map(([value, text]) => h("option", { value, selected: (state[name] || options[0][0]) === value }, text))),
        ]);
      const pictures = h("input", { type: "checkbox", checked: Boolean(state.pictures), onchange: (event) => change("pictures", event.target.checked ? "1" : "") });
      const bar = h("form", { class: "toolbar", role: "search", onsubmit: (event) => event.preventDefault() }, [
        h("div", { class: "search" }, [search, h("kbd", { "aria-hidden": true }, "/")]),
        manifest.layers.length > 1 ? select("layer", "Layer", [["", "all layers"], ...manifest.layers.map((name) => [name, name])]) : null,
        table.methods.length > 1 ? select("method", "Words from", [["", "any method"], ...table.methods.map((name) => [name, name === "none" ? "no method yet" : name])]) : null,
        select("sort", "Sorted", Object.entries(SORTS).map(([value, { text }]) => [value, text])),
        table.rows.some((row) => row.picture) ? h("label", { class: "check" }, [pictures, "with a picture"]) : null,
      ]);
      const means = h("p", { class: "note", hidden: true });
      const host = h("div", {});
      const none = h("p", { class: "notice", hidden: true }, "No feature fits. Searches find the beginnings of words.");
      main.append(
        h("div", { class: "page-head" }, [
          h("h1", {}, "Features"),
          h("p", { class: "lead" }, [
            `What each feature of ${manifest.model ? manifest.model.source : "the network"} stands for and looks like. `,
            table.rows.some((row) => row.truth !== null)
              ? "AUC says how well the words predict the feature on images that were not used to find them: 1 always, 0.5 by chance; beside it stands what a control reaches."
              : "",
          ]),
        ]),
        bar,
        h("div", { class: "found" }, [count, means]),
        host,
        none,
      );
      const grid = Atlas.grid(host, { card: (row) => card(row, state.sort), least: 190, extra: 96 });

      function change(name, value) {
        state[name] = value === "order" ? "" : value;
        update();
        scrollTo(0, 0);
      }
      function update() {
        const began = performance.now();
        const found = chosen(table, state);
        count.textContent = found.length === table.rows.length ? plural(found.length, "feature") : `${counted(found.length)} of ${plural(table.rows.length, "feature")}`;
        none.hidden = found.length > 0;
        means.textContent = `Highest first: ${(SORTS[state.sort] || {}).means}.`;
        means.hidden = !(SORTS[state.sort] || {}).means;
        grid.show(found);
        Atlas.answered = performance.now() - began;
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
    keys: { "/": () => document.getElementById("search") },
  };
})();
