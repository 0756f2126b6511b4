// What the atlas was built from, what its numbers are measured against, and how to cite it.
"use strict";

(() => {
  const PAPERS = [
    {
      method: "Segmentation (NAVE): ",
      text:
        "Boubekki, Fadel and Mair, Explaining the Impact of Training on Vision Models via Activation Clustering, " +
        "arXiv:2411.19700, 2024.",
      entry: `@misc{nave,
  author = {Boubekki, Ahc{\\\`e}ne and Fadel, Samuel G. and Mair, Sebastian},
  title  = {Explaining the Impact of Training on Vision Models via Activation Clustering},
  year   = {2024},
  eprint = {2411.19700}, archiveprefix = {arXiv},
}`,
    },
    {
      method: "Descriptions (FALCON): ",
      text:
        "Kalibhat, Bhardwaj, Bruss, Firooz, Sanjabi and Feizi, Identifying Interpretable Subspaces in Image " +
        "Representations, ICML 2023, arXiv:2307.10504.",
      entry: `@inproceedings{falcon,
  author    = {Kalibhat, Neha and Bhardwaj, Shweta and Bruss, Bayan and Firooz, Hamed and Sanjabi, Maziar and
               Feizi, Soheil},
  title     = {Identifying Interpretable Subspaces in Image Representations},
  booktitle = {International Conference on Machine Learning},
  year      = {2023},
}`,
    },
    {
      method: "Visualizations (VITAL): ",
      text:
        "Görgün, Schiele and Fischer, VITAL: More Understandable Feature Visualization through Distribution " +
        "Alignment and Relevant Information Flow, ICCV 2025, arXiv:2503.22399.",
      entry: `@inproceedings{vital,
  author    = {G{\\"o}rg{\\"u}n, Ada and Schiele, Bernt and Fischer, Jonas},
  title     = {{VITAL}: More Understandable Feature Visualization through Distribution Alignment and Relevant
               Information Flow},
  booktitle = {International Conference on Computer Vision},
  year      = {2025},
}`,
    },
  ];

  const EXAMPLE = `import encoscope.atlas

atlas = encoscope.atlas.open("SITE")
atlas.feature(atlas.features[0]).description
atlas.read_table()  # features.parquet`;

  /** @param {Manifest} manifest */
  const bibtex = ({ versions }) =>
    [
      `@software{encoscope,
  author  = {{The Encoscope authors}},
  title   = {Encoscope: an endoscope for vision encoders},
  version = {${versions.encoscope || ""}},
}`,
      ...PAPERS.map(({ entry }) => entry),
    ].join("\n\n");

  /** @param {string} name */
  const capitalize = (name) => name.slice(0, 1).toUpperCase() + name.slice(1);

  /** @param {unknown} value */
  function toText(value) {
    if (Array.isArray(value)) return value.join(", ");
    return value !== null && typeof value === "object" ? JSON.stringify(value) : String(value);
  }

  /** @param {unknown} text */
  const code = (text) => h("code", {}, String(text));

  /**
   * Names with their values; those without one are left out.
   * @param {[string, Child][]} entries
   */
  const facts = (entries) =>
    h(
      "dl",
      { class: "facts" },
      entries
        .filter(([, value]) => isKnown(value) && value !== "")
        .map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
    );

  /**
   * The facts of a mapping; what a name that fits ``digest`` holds is shown as code.
   * @param {Record<string, unknown>} mapping
   * @param {RegExp} [digest]
   * @returns {[string, Child][]}
   */
  const factsOf = (mapping, digest = /^$/) =>
    Object.entries(mapping).map(([name, value]) => [capitalize(name), digest.test(name) ? code(value) : toText(value)]);

  /** @param {Manifest} manifest */
  function modelSection({ model }) {
    const { source, digest, trial, ...rest } = model || {};
    return Atlas.section(
      "Model",
      null,
      facts([["Source", code(source || "–")], ["Digest", digest ? code(digest) : null], ...factsOf(rest)]),
    );
  }

  /** @param {Manifest} manifest */
  function progressSection({ stages }) {
    const items = Object.entries(stages).map(([name, { done, total }]) =>
      h("li", {}, [
        h("span", {}, name),
        h("progress", { max: Math.max(1, total), value: done, "aria-label": name }),
        h("span", { class: "soft" }, `${formatCount(done)} of ${formatCount(total)}`),
      ]),
    );
    return Atlas.section(
      "How far it is",
      "An atlas that is still being built, or whose building was stopped, shows what it holds so far; building it " +
        "again resumes.",
      h("ul", { class: "stages" }, items),
      items.length ? null : h("p", { class: "soft" }, "Nothing is said about its stages."),
    );
  }

  /** @param {Manifest} manifest */
  const controlsSection = ({ controls }) =>
    Atlas.section(
      "What the numbers are measured against",
      "An explanation is worth its difference from a control.",
      controls.length
        ? h(
            "ul",
            { class: "prose" },
            controls.map((text) => h("li", {}, text)),
          )
        : h("p", { class: "soft" }, "No control was run."),
    );

  /** @param {Manifest} manifest */
  function methodsSection({ methods = {} }) {
    const entries = Object.entries(methods);
    if (!entries.length) return null;
    return Atlas.section(
      "Methods",
      "What gave the records, and what it took besides the model and the images.",
      entries.map(([name, mapping]) => [h("h3", {}, capitalize(name)), facts(factsOf(mapping, /digest/))]),
    );
  }

  /** @param {Manifest} manifest */
  function skippedSection({ skipped }) {
    if (!skipped.length) return null;
    const items = skipped.map(({ path, reason }) => h("li", {}, [code(path), ` ${reason}`]));
    return Atlas.section("Left out", "Images that could not be read.", h("ul", { class: "prose" }, items));
  }

  /** @param {Manifest} manifest */
  function citationSection(manifest) {
    const version = manifest.versions.encoscope || "–";
    const pages = `The Encoscope authors, Encoscope: an endoscope for vision encoders, version ${version}.`;
    return Atlas.section(
      "How to cite",
      "Cite Encoscope, and the paper of each method whose results you show.",
      h("ul", { class: "prose" }, [
        h("li", {}, [h("b", {}, "The pages: "), pages]),
        PAPERS.map(({ method, text }) => h("li", {}, [h("b", {}, method), text])),
      ]),
      h("details", {}, [h("summary", {}, "BibTeX"), h("pre", {}, bibtex(manifest))]),
    );
  }

  Atlas.pages.about = {
    title: "About",
    async render(main) {
      const { manifest } = Atlas;
      const sections = [
        modelSection(manifest),
        Atlas.section("Images", null, facts(factsOf(manifest.data, /^digest$/))),
        progressSection(manifest),
        controlsSection(manifest),
        Atlas.section("Settings", null, facts([...factsOf(manifest.settings), ["Seed", manifest.seed]])),
        methodsSection(manifest),
        Atlas.section(
          "Versions",
          null,
          facts([["format", code(manifest.format)], ...Object.entries(manifest.versions)]),
        ),
        skippedSection(manifest),
        citationSection(manifest),
        Atlas.section("Read it from Python", null, h("pre", {}, EXAMPLE)),
        Atlas.section(
          "Keys",
          null,
          facts([
            ["/", "search"],
            ["arrows", "from card to card; sliders"],
            ["j, k", "the next one, the one before"],
            ["t", "colors: as the system, light, dark"],
          ]),
        ),
      ];
      main.append(
        h("div", { class: "page-head" }, [h("h1", {}, "About this atlas"), h("p", { class: "lead" }, manifest.title)]),
        ...sections.filter((section) => section !== null),
      );
      return null;
    },
  };
})();
