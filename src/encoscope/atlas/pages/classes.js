// All classes, and one of them: what it looks like, the channels it rests on, and the images it fails on.
"use strict";

Atlas.pages.classes = {
  title: "Classes",
  async render(main, _part, query) {
    const table = await Atlas.table("classes");
    const state = { ...query };
    const host = h("div", {});
    const count = h("output", { class: "count", "aria-live": "polite" });
    const search = h("input", { type: "search", id: "search", placeholder: "Search classes", "aria-label": "Search classes", value: state.q || "", autocomplete: "off" });
    const sorts = [["", "in the network's order"], ["name", "by name"], ["accuracy", "by accuracy, lowest first"]];
    main.append(
      h("div", { class: "page-head" }, [h("h1", {}, "Classes"), h("p", { class: "lead" }, "What the network's outputs look like, and what they rest on.")]),
      h("form", { class: "toolbar", role: "search", onsubmit: (event) => event.preventDefault() }, [
        h("div", { class: "search" }, [search, h("kbd", { "aria-hidden": true }, "/")]),
        h("label", { class: "field" }, [
          h("span", {}, "Sorted"),
          h("select", { name: "sort", onchange: (event) => change("sort", event.target.value) }, sorts.map(([value, text]) => h("option", { value, selected: (state.sort || "") === value }, text))),
        ]),
      ]),
      count,
      host,
    );
    const grid = Atlas.grid(host, {
      least: 190,
      extra: 66,
      card: (row) =>
        h("div", {}, h("a", { class: "card", href: Atlas.link("class", row.name) }, [
          h("span", { class: "face" }, row.picture ? h("img", { src: imageSource(row.picture), alt: `What the network takes for ${row.name.replaceAll("_", " ")}`, decoding: "async" }) : null),
          h("span", { class: "card-text" }, [
            h("span", { class: "card-word" }, row.name.replaceAll("_", " ")),
            h("span", { class: "card-foot" }, [
              row.accuracy === null ? null : h("span", { class: "card-figure" }, [h("b", {}, percent(row.accuracy)), " right", row.accuracy_control === null ? null : h("span", { class: "soft" }, ` control ${percent(row.accuracy_control)}`)]),
              row.failures ? h("span", { class: "soft" }, plural(row.failures, "failure")) : null,
            ]),
          ]),
        ])),
    });
    function update() {
      const wanted = (state.q || "").toLowerCase().replaceAll("_", " ");
      const found = table.rows.filter((row) => row.name.toLowerCase().replaceAll("_", " ").includes(wanted));
      if (state.sort === "name") found.sort((a, b) => a.name.localeCompare(b.name));
      if (state.sort === "accuracy") found.sort((a, b) => (a.accuracy ?? 2) - (b.accuracy ?? 2));
      count.textContent = plural(found.length, "class", "classes");
      grid.show(found);
      Atlas.replace("classes", null, state);
    }
    function change(name, value) {
      state[name] = value;
      update();
    }
    search.addEventListener("input", () => change("q", search.value.trim()));
    update();
    return () => grid.close();
  },
  keys: { "/": () => document.getElementById("search") },
};

Atlas.pages.class = {
  title: "Class",
  async render(main, name) {
    const [classes, table, images] = await Promise.all(["classes", "features", "images"].map(Atlas.table));
    const row = classes.by.get(name) || classes.rows.find((one) => String(one.index) === name);
    if (!row) {
      main.append(h("h1", {}, name), Atlas.missing("This atlas has no such class."), h("p", {}, h("a", { href: "#/classes" }, "All classes")));
      return null;
    }
    const record = await Atlas.record("classes", row.place);
    const plain = record.name.replaceAll("_", " ");
    const [before, after] = [classes.rows[row.place - 1], classes.rows[row.place + 1]];
    const shown = Atlas.pictures(record.visualizations, `What the network takes for ${plain}`);
    const top = record.images || [];
    main.append(
      h("div", { class: "page-head" }, [
        h("nav", { class: "crumbs", "aria-label": "Neighbours" }, [
          h("a", { href: "#/classes" }, "Classes"),
          h("span", { class: "spacer" }),
          before ? h("a", { href: Atlas.link("class", before.name), rel: "prev" }, `← ${before.name.replaceAll("_", " ")}`) : null,
          after ? h("a", { href: Atlas.link("class", after.name), rel: "next" }, `${after.name.replaceAll("_", " ")} →`) : null,
        ]),
        h("h1", {}, [plain, " ", h("span", { class: "mono unit-name" }, `class:${record.index}`)]),
      ]),
      Atlas.beside(shown, [
        shown,
        h("div", { class: "column" }, [
          record.accuracy ? h("div", { class: "measures" }, Atlas.measure(record.accuracy, { label: "Accuracy", low: 0, high: 1 })) : null,
          top.length
            ? [
                h("h2", {}, "Most like it"),
                h("div", { class: "crops" }, top.map((crop) => Atlas.crop(crop, plain, { href: images.by.has(crop.image) ? Atlas.link("image", crop.image) : null }))),
                Atlas.legend(top[0].value),
              ]
            : null,
        ]),
      ]),
    );
    if ((record.circuit || []).length)
      main.append(
        Atlas.section(
          "Circuit",
          "The channels it rests on, layer by layer, heaviest first.",
          h("div", { class: "circuit" }, [
            record.circuit.map((layer) => h("div", { class: "circuit-layer" }, [h("h3", { class: "mono" }, layer.layer), Atlas.chips(layer.channels, table, classes)])),
            h("div", { class: "circuit-layer last" }, [h("h3", { class: "mono" }, "output"), h("p", { class: "circuit-class" }, plain)]),
          ]),
          record.circuit_method ? h("p", { class: "note" }, `Weights: ${record.circuit_method}.`) : null,
        ),
      );
    if (!(record.circuit || []).length && !record.accuracy)
      main.append(Atlas.missing("None of the atlas's images is labelled with this class, so there is no circuit to follow and nothing to fail on."));
    if (!(record.failures || []).length && record.accuracy)
      main.append(Atlas.section("Failures", null, h("p", { class: "soft" }, `None of the images of ${plain} here is taken for something else.`)));
    if ((record.failures || []).length)
      main.append(
        Atlas.section(
          "Failures",
          `Images of ${plain} that the network takes for something else, and what drove that.`,
          h("div", { class: "failures" }, record.failures.map((failure) =>
            h("article", { class: "failure" }, [
              h("a", { href: images.by.has(failure.image) ? Atlas.link("image", failure.image) : null }, Atlas.picture(failure.picture, `Taken for ${failure.predicted}`)),
              h("div", { class: "column" }, [
                h("p", {}, ["taken for ", classes.by.has(failure.predicted) ? h("a", { href: Atlas.link("class", failure.predicted) }, failure.predicted.replaceAll("_", " ")) : h("b", {}, failure.predicted.replaceAll("_", " "))]),
                Atlas.measure(failure.confidence, { label: "Confidence", low: 0, high: 1 }),
                (failure.drivers || []).length ? Atlas.chips(failure.drivers, table, classes) : null,
              ]),
            ]))),
        ),
      );
    document.title = `${plain} · ${document.title}`;
    return null;
  },
  keys: {
    j: () => document.querySelector('a[rel="next"]'),
    k: () => document.querySelector('a[rel="prev"]'),
  },
};
