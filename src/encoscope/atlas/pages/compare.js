// Two atlases side by side: every feature here beside the one most like it there.
"use strict";

Atlas.pages.compare = {
  title: "Compare",
  async render(main, name, query) {
    const [others, table] = await Promise.all([Atlas.table("comparisons"), Atlas.table("features")]);
    const row = name ? others.by.get(name) : others.rows[0];
    if (!row) {
      main.append(
        h("h1", {}, "Compare"),
        Atlas.missing(name ? "This atlas holds no such comparison." : "This atlas stands alone. To put another one beside it:"),
        name ? null : h("pre", {}, "encoscope atlas compare THIS OTHER"),
      );
      return null;
    }
    const record = await Atlas.record("comparisons", row.place);
    const state = { sort: "", ...query };
    const host = h("div", {});
    const count = h("output", { class: "count", "aria-live": "polite" });
    const search = h("input", { type: "search", id: "search", placeholder: "Search words on either side", "aria-label": "Search pairs", value: state.q || "", autocomplete: "off" });
    const mutual = h("input", { type: "checkbox", checked: Boolean(state.mutual), onchange: (event) => change("mutual", event.target.checked ? "1" : "") });
    const words = (pair) => ((table.by.get(pair.unit) || {}).concepts || []).concat(pair.other.words || []);
    const texts = record.pairs.map((pair) => ` ${pair.unit} ${pair.other.unit} ${words(pair).join(" ")}`.toLowerCase());
    const sample = record.pairs[0];
    main.append(
      h("div", { class: "page-head" }, [
        others.rows.length > 1
          ? h("nav", { class: "crumbs", "aria-label": "Comparisons" }, others.rows.map((one) => h("a", { href: Atlas.link("compare", one.name), "aria-current": one === row ? "page" : null }, one.name)))
          : null,
        h("h1", {}, [Atlas.manifest.model ? Atlas.manifest.model.source : "this atlas", " ", h("span", { class: "soft" }, "beside"), " ", record.model]),
        h("p", { class: "lead" }, `Each feature here with the one there that is most like it: ${record.method}, over ${plural(record.images, "image")} that both atlases hold.`),
        sample ? Atlas.legend(sample.similarity) : null,
      ]),
      h("form", { class: "toolbar", role: "search", onsubmit: (event) => event.preventDefault() }, [
        h("div", { class: "search" }, [search, h("kbd", { "aria-hidden": true }, "/")]),
        h("label", { class: "field" }, [
          h("span", {}, "Sorted"),
          h("select", { name: "sort", onchange: (event) => change("sort", event.target.value) }, [["", "most alike first"], ["least", "least alike first"], ["order", "in the network's order"]].map(([value, text]) => h("option", { value, selected: state.sort === value }, text))),
        ]),
        h("label", { class: "check" }, [mutual, "each the other's best match"]),
      ]),
      count,
      host,
    );
    const side = (unit, concepts, face, href) =>
      h(href ? "a" : "span", { class: "side", href }, [
        face,
        h("span", { class: "chip-text" }, [h("span", { class: "mono" }, unit), h("span", { class: "card-word" }, concepts[0] || "no words"), h("span", { class: "chip-words" }, concepts.slice(1, 4).join(", "))]),
      ]);
    const grid = Atlas.grid(host, {
      least: 560,
      extra: 170,
      ratio: 0,
      card: (pair) => {
        const here = table.by.get(pair.unit);
        const there = { unit: pair.other.unit, picture: pair.other.picture && pair.other.picture.name, crops: (pair.other.crops || []).map((crop) => crop.name) };
        return h("div", { class: "pair" }, [
          side(pair.unit, here ? here.concepts : [], Atlas.face(here, { lazy: false }), here ? Atlas.link("feature", pair.unit) : null),
          h("div", { class: "pair-middle" }, [
            h("b", {}, number(pair.similarity.value)),
            Atlas.scale(pair.similarity, 0, 1),
            h("span", { class: "note" }, pair.similarity.control === undefined ? "" : `control ${number(pair.similarity.control)}`),
            pair.mutual ? h("span", { class: "note", title: "each is the other's best match" }, "mutual") : null,
          ]),
          side(pair.other.unit, pair.other.words || [], Atlas.face(there, { lazy: false })),
        ]);
      },
    });
    function update() {
      const wanted = (state.q || "").toLowerCase().split(/\s+/).filter(Boolean);
      const found = record.pairs.filter((pair, place) => (!state.mutual || pair.mutual) && wanted.every((word) => texts[place].includes(` ${word}`)));
      if (state.sort !== "order") found.sort((a, b) => (b.similarity.value - a.similarity.value) * (state.sort === "least" ? -1 : 1));
      count.textContent = plural(found.length, "pair");
      grid.show(found);
      Atlas.replace("compare", record.name, state);
    }
    function change(key, value) {
      state[key] = value;
      update();
    }
    search.addEventListener("input", () => change("q", search.value.trim()));
    update();
    document.title = `${record.name} · ${document.title}`;
    return () => grid.close();
  },
  keys: { "/": () => document.getElementById("search") },
};
