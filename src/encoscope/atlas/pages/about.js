// What the atlas was made of, what its numbers are measured against, and how to cite it.
"use strict";

const PAPERS = [
  {
    what: "Parts of images (NAVE): ",
    text: "Boubekki, Fadel and Mair, Explaining the Impact of Training on Vision Models via Activation Clustering, arXiv:2411.19700, 2024.",
    entry: `@misc{nave,
  author = {Boubekki, Ahc{\\\`e}ne and Fadel, Samuel G. and Mair, Sebastian},
  title  = {Explaining the Impact of Training on Vision Models via Activation Clustering},
  year   = {2024},
  eprint = {2411.19700}, archiveprefix = {arXiv},
}`,
  },
  {
    what: "Words (FALCON): ",
    text: "Kalibhat, Bhardwaj, Bruss, Firooz, Sanjabi and Feizi, Identifying Interpretable Subspaces in Image Representations, ICML 2023, arXiv:2307.10504.",
    entry: `@inproceedings{falcon,
  author    = {Kalibhat, Neha and Bhardwaj, Shweta and Bruss, Bayan and Firooz, Hamed and Sanjabi, Maziar and Feizi, Soheil},
  title     = {Identifying Interpretable Subspaces in Image Representations},
  booktitle = {International Conference on Machine Learning},
  year      = {2023},
}`,
  },
  {
    what: "Pictures (VITAL): ",
    text: "Görgün, Schiele and Fischer, VITAL: More Understandable Feature Visualization through Distribution Alignment and Relevant Information Flow, ICCV 2025, arXiv:2503.22399.",
    entry: `@inproceedings{vital,
  author    = {G{\\"o}rg{\\"u}n, Ada and Schiele, Bernt and Fischer, Jonas},
  title     = {{VITAL}: More Understandable Feature Visualization through Distribution Alignment and Relevant Information Flow},
  booktitle = {International Conference on Computer Vision},
  year      = {2025},
}`,
  },
];

const bibtex = (manifest) =>
  [
    `@software{encoscope,
  author  = {{The Encoscope authors}},
  title   = {Encoscope: an endoscope for vision encoders},
  version = {${manifest.versions.encoscope || ""}},
}`,
    ...PAPERS.map(({ entry }) => entry),
  ].join("\n\n");

Atlas.pages.about = {
  title: "About",
  async render(main) {
    const manifest = Atlas.manifest;
    const rows = (entries, asTheyAre) =>
      h("dl", { class: "facts" }, entries.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => [h("dt", {}, asTheyAre ? name : title(name)), h("dd", {}, value)]));
    const title = (name) => name.slice(0, 1).toUpperCase() + name.slice(1);
    const plain = (value) => (Array.isArray(value) ? value.join(", ") : value !== null && typeof value === "object" ? JSON.stringify(value) : String(value));
    const code = (text) => h("code", {}, text);
    const stages = Object.entries(manifest.stages);
    const model = manifest.model || {};
    const methods = Object.entries(manifest.methods || {});
    main.append(
      h("div", { class: "page-head" }, [h("h1", {}, "About this atlas"), h("p", { class: "lead" }, manifest.title)]),
      Atlas.section("Model", null, rows([["source", code(model.source || "–")], ["digest", model.digest ? code(model.digest) : null], ...Object.entries(model).filter(([name]) => !["source", "digest"].includes(name)).map(([name, value]) => [name, plain(value)])])),
      Atlas.section("Images", null, rows(Object.entries(manifest.data).map(([name, value]) => [name, name === "digest" ? code(value) : plain(value)]))),
      Atlas.section(
        "How far it is",
        "An atlas that is still being built, or whose building was stopped, shows what there is; building it again goes on.",
        h("ul", { class: "stages" }, stages.map(([name, { done, total }]) => h("li", {}, [h("span", {}, name), h("progress", { max: Math.max(1, total), value: done, "aria-label": name }), h("span", { class: "soft" }, `${counted(done)} of ${counted(total)}`)]))),
        stages.length ? null : h("p", { class: "soft" }, "Nothing is said about its parts."),
      ),
      Atlas.section(
        "What the numbers are measured against",
        "An explanation is worth its difference from a control.",
        manifest.controls.length ? h("ul", { class: "prose" }, manifest.controls.map((text) => h("li", {}, text))) : h("p", { class: "soft" }, "No control was run."),
      ),
      Atlas.section("Settings", null, rows([...Object.entries(manifest.settings).map(([name, value]) => [name, plain(value)]), ["seed", manifest.seed]])),
      ...(methods.length
        ? [Atlas.section("Methods", "What made the records, and what they took beside the model and the images.", methods.map(([name, facts]) => [h("h3", {}, title(name)), rows(Object.entries(facts).map(([fact, value]) => [fact, /digest/.test(fact) ? code(value) : plain(value)]))]))]
        : []),
      Atlas.section("Versions", null, rows([["format", code(manifest.format)], ...Object.entries(manifest.versions)], true)),
      ...(manifest.skipped.length
        ? [Atlas.section("Left out", "Images that could not be read.", h("ul", { class: "prose" }, manifest.skipped.map(({ path, reason }) => h("li", {}, [code(path), ` ${reason}`]))))]
        : []),
      Atlas.section(
        "How to cite",
        "Cite Encoscope, and the paper of each method whose results you show.",
        h("ul", { class: "prose" }, [
          h("li", {}, [h("b", {}, "The pages: "), `The Encoscope authors, Encoscope: an endoscope for vision encoders, version ${manifest.versions.encoscope || "–"}.`]),
          PAPERS.map(({ what, text }) => h("li", {}, [h("b", {}, what), text])),
        ]),
        h("details", {}, [h("summary", {}, "BibTeX"), h("pre", {}, bibtex(manifest))]),
      ),
      Atlas.section(
        "Read it from Python",
        null,
        h("pre", {}, 'import encoscope.atlas\n\natlas = encoscope.atlas.open("SITE")\natlas.feature(atlas.features[0]).words\natlas.table()  # features.parquet'),
      ),
      Atlas.section(
        "Keys",
        null,
        rows([
          ["/", "search"],
          ["arrows", "from card to card; sliders"],
          ["j, k", "the next one, the one before"],
          ["t", "colours: as the system, light, dark"],
        ], true),
      ),
    );
    return null;
  },
};
