// Two atlases side by side: every feature here beside the most similar one there.
"use strict";

(() => {
  /**
   * One side of a pair.
   * @param {string} unit
   * @param {string[]} concepts
   * @param {HTMLElement} face
   * @param {string | null} href
   */
  function side(unit, concepts, face, href) {
    const children = [
      face,
      h("span", { class: "chip-text" }, [
        h("span", { class: "mono" }, unit),
        h("span", { class: "card-word" }, concepts[0] || "no description"),
        h("span", { class: "chip-words" }, concepts.slice(1, 4).join(", ")),
      ]),
    ];
    return href ? h("a", { class: "side", href }, children) : h("span", { class: "side" }, children);
  }

  /**
   * @param {MatchedPair} pair
   * @param {FeatureRow | undefined} row of this atlas's feature
   */
  function card({ unit, other, similarity, mutual }, row) {
    const face = {
      unit: other.unit,
      picture: other.picture?.name,
      crops: (other.crops || []).map((crop) => crop.name),
    };
    const { value, control } = similarity;
    return h("div", { class: "pair" }, [
      side(unit, row?.concepts || [], Atlas.face(row, { lazy: false }), row ? Atlas.link("feature", unit) : null),
      h("div", { class: "pair-middle" }, [
        h("b", {}, formatNumber(value)),
        Atlas.scale(similarity, 0, 1),
        h("span", { class: "note" }, isKnown(control) ? `control ${formatNumber(control)}` : ""),
        mutual ? h("span", { class: "note", title: "each is the other's best match" }, "mutual") : null,
      ]),
      side(other.unit, other.concepts || [], Atlas.face(face, { lazy: false }), null),
    ]);
  }

  /**
   * @param {ComparisonRecord} record
   * @param {ComparisonRow[]} rows of all comparisons
   * @param {ComparisonRow} row
   */
  function heading({ model, method, images, pairs }, rows, row) {
    const links = rows.map((other) =>
      h("a", { href: Atlas.link("compare", other.name), "aria-current": other === row ? "page" : null }, other.name),
    );
    const count = `${formatPlural(images, "image")} that both atlases hold`;
    return h("div", { class: "page-head" }, [
      rows.length > 1 ? h("nav", { class: "crumbs", "aria-label": "Comparisons" }, links) : null,
      h("h1", {}, [
        Atlas.manifest.model ? Atlas.manifest.model.source : "this atlas",
        " ",
        h("span", { class: "soft" }, "beside"),
        " ",
        model,
      ]),
      h("p", { class: "lead" }, `Each feature here with the one there that is most like it: ${method}, over ${count}.`),
      pairs.length ? Atlas.legend(pairs[0].similarity) : null,
    ]);
  }

  /**
   * @param {MatchedPair[]} pairs
   * @param {string[]} texts that a search looks through
   * @param {Query} query
   */
  function selectPairs(pairs, texts, query) {
    const words = (query.q || "").toLowerCase().split(/\s+/).filter(Boolean);
    const selection = pairs.filter(
      (pair, order) => (!query.mutual || pair.mutual) && words.every((word) => texts[order].includes(` ${word}`)),
    );
    const sign = query.sort === "least" ? -1 : 1;
    if (query.sort !== "order") selection.sort((a, b) => (b.similarity.value - a.similarity.value) * sign);
    return selection;
  }

  Atlas.pages.compare = {
    title: "Compare",
    async render(main, name, query) {
      const [others, features] = await Promise.all([Atlas.table("comparisons"), Atlas.table("features")]);
      const row = name ? others.by.get(name) : others.rows[0];
      if (!row) {
        main.append(h("h1", {}, "Compare"));
        if (name) main.append(Atlas.missing("This atlas holds no such comparison."));
        else
          main.append(
            Atlas.missing("This atlas is compared with no other. To put another one beside it:"),
            h("pre", {}, "encoscope atlas compare THIS OTHER"),
          );
        return null;
      }
      const record = await Atlas.record("comparisons", row.position);
      /** @type {Query} */
      const state = { sort: "", ...query };
      const host = h("div", {});
      const count = h("output", { class: "count", "aria-live": "polite" });
      const search = Atlas.searchField("Search words on either side", "Search pairs", state.q);
      const mutual = h("input", {
        type: "checkbox",
        checked: Boolean(state.mutual),
        onchange: (event) => change("mutual", event.target.checked ? "1" : ""),
      });
      const texts = record.pairs.map(({ unit, other }) => {
        const words = [...(features.by.get(unit)?.concepts || []), ...(other.concepts || [])];
        return ` ${unit} ${other.unit} ${words.join(" ")}`.toLowerCase();
      });
      /** @type {[string, string][]} */
      const sorts = [
        ["", "most alike first"],
        ["least", "least alike first"],
        ["order", "in the network's order"],
      ];
      main.append(
        heading(record, others.rows, row),
        Atlas.toolbar(
          search,
          Atlas.select("sort", "Sorted", sorts, state.sort, change),
          h("label", { class: "check" }, [mutual, "each the other's best match"]),
        ),
        count,
        host,
      );
      const grid = Atlas.grid(host, {
        least: 560,
        extra: 170,
        ratio: 0,
        card: (/** @type {MatchedPair} */ pair) => card(pair, features.by.get(pair.unit)),
      });

      function update() {
        const selection = selectPairs(record.pairs, texts, state);
        count.textContent = formatPlural(selection.length, "pair");
        grid.show(selection);
        Atlas.replace("compare", record.name, state);
      }
      /**
       * @param {string} key
       * @param {string} value
       */
      function change(key, value) {
        state[key] = value;
        update();
      }
      search.addEventListener("input", () => change("q", search.value.trim()));
      update();
      document.title = `${record.name} · ${document.title}`;
      return () => grid.close();
    },
    keys: Atlas.searchKeys,
  };
})();
