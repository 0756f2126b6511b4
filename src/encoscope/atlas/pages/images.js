// All images, and one of them with its parts.
"use strict";

Atlas.pages.images = {
  title: "Images",
  async render(main, _part, query) {
    const table = await Atlas.table("images");
    const state = { ...query };
    const labels = [...new Set(table.rows.map((row) => row.label).filter(Boolean))].sort((a, b) => a.localeCompare(b));
    const count = h("output", { class: "count", "aria-live": "polite" });
    const host = h("div", {});
    const search = h("input", { type: "search", id: "search", placeholder: "Search names and classes", "aria-label": "Search images", value: state.q || "", autocomplete: "off" });
    const wrong = h("input", { type: "checkbox", checked: Boolean(state.wrong) });
    const guessed = table.rows.some((row) => row.predicted && row.label);
    main.append(
      h("div", { class: "page-head" }, [h("h1", {}, "Images"), h("p", { class: "lead" }, "The images the atlas was made from. Each opens with its parts, at any granularity.")]),
      h("form", { class: "toolbar", role: "search", onsubmit: (event) => event.preventDefault() }, [
        h("div", { class: "search" }, [search, h("kbd", { "aria-hidden": true }, "/")]),
        labels.length
          ? h("label", { class: "field" }, [
              h("span", {}, "Class"),
              h("select", { name: "label", onchange: (event) => change("label", event.target.value) }, [
                h("option", { value: "" }, "all classes"),
                ...labels.map((label) => h("option", { value: label, selected: state.label === label }, label.replaceAll("_", " "))),
              ]),
            ])
          : null,
        guessed ? h("label", { class: "check" }, [wrong, "taken for something else"]) : null,
      ]),
      count,
      host,
    );
    const grid = Atlas.grid(host, {
      least: 150,
      extra: 30,
      card: (row) =>
        h("div", {}, h("a", { class: "card image-card", href: Atlas.link("image", row.id) }, [
          h("span", { class: "face" }, row.thumbnail ? h("img", { src: imageSource(row.thumbnail[0]), alt: row.label || row.name, decoding: "async" }) : null),
          h("span", { class: "card-caption" }, (row.label || row.name).replaceAll("_", " ")),
        ])),
    });
    const mistaken = (row) => row.label && row.predicted && row.predicted !== `class:${row.label}`;
    function update() {
      const wanted = (state.q || "").toLowerCase();
      const found = table.rows.filter(
        (row) => (!state.label || row.label === state.label) && (!state.wrong || mistaken(row)) && (!wanted || `${row.name} ${row.label || ""}`.toLowerCase().includes(wanted)),
      );
      count.textContent = found.length === table.rows.length ? plural(found.length, "image") : `${counted(found.length)} of ${plural(table.rows.length, "image")}`;
      grid.show(found);
      Atlas.replace("images", null, state);
    }
    function change(name, value) {
      state[name] = value;
      update();
    }
    search.addEventListener("input", () => change("q", search.value.trim()));
    wrong.addEventListener("change", () => change("wrong", wrong.checked ? "1" : ""));
    update();
    return () => grid.close();
  },
  keys: { "/": () => document.getElementById("search") },
};

Atlas.pages.image = {
  title: "Image",
  async render(main, id, query) {
    const [images, table, classes] = await Promise.all(["images", "features", "classes"].map(Atlas.table));
    const row = images.by.get(id);
    if (!row) {
      main.append(h("h1", {}, "Image"), Atlas.missing("This atlas has no such image."), h("p", {}, h("a", { href: "#/images" }, "All images")));
      return null;
    }
    const record = await Atlas.record("images", row.place);
    const [before, after] = [images.rows[row.place - 1], images.rows[row.place + 1]];
    const name = (record.label || record.name).replaceAll("_", " ");
    const shown = record.picture || record.thumbnail;
    main.append(
      h("div", { class: "page-head" }, [
        h("nav", { class: "crumbs", "aria-label": "Neighbours" }, [
          h("a", { href: "#/images" }, "Images"),
          h("span", { class: "spacer" }),
          before ? h("a", { href: Atlas.link("image", before.id, query), rel: "prev" }, "← before") : null,
          after ? h("a", { href: Atlas.link("image", after.id, query), rel: "next" }, "after →") : null,
        ]),
        h("h1", {}, record.label && classes.by.has(record.label) ? h("a", { href: Atlas.link("class", record.label) }, name) : name),
        h("p", { class: "soft" }, [record.name, " ", h("span", { class: "mono", title: `sha256 ${record.id}` }, record.id.slice(0, 12))]),
      ]),
    );
    if (shown)
      main.append(
        Atlas.parts.explorer(record, { src: imageSource(shown.name), alt: name, width: shown.width, height: shown.height }, {
          state: { ...query },
          changed: (state) => Atlas.replace("image", id, state),
          table,
          classes,
          images,
        }),
      );
    if ((record.predictions || []).length || (record.tops || []).length)
      main.append(
        h("div", { class: "columns even" }, [
          (record.predictions || []).length ? Atlas.section("What the network says", null, Atlas.chips(record.predictions, table, classes, images)) : null,
          (record.tops || []).length ? Atlas.section("Features that stand out", null, Atlas.chips(record.tops, table, classes)) : null,
        ]),
      );
    document.title = `${name} · ${document.title}`;
    return null;
  },
  keys: {
    j: () => document.querySelector('a[rel="next"]'),
    k: () => document.querySelector('a[rel="prev"]'),
  },
};
