// One image with its segmentations: a slider for the granularity, a choice of the layer, the regions with the features
// that stand out in them, and the same cluster in other images.
"use strict";

(() => {
  const { decodeLabels, cutTree, countLeaves, countCells, chooseColors, draw, infoOf, mergesOf, nameOf } =
    Atlas.segmentation;
  const MOST_REGIONS = 20;
  const OTHERS = 8; // images that show the same cluster
  const DELAY = 90; // milliseconds that a region is lit before the same cluster is looked for

  /**
   * @typedef {object} View one explorer on a page: what is chosen in it, and its elements
   * @property {ImageSegmentation[]} segmentations
   * @property {string | undefined} id of the image
   * @property {ExplorerContext} context
   * @property {Cut} cut what is shown
   * @property {number[]} sizes of the leaves: over all images for a joint segmentation
   * @property {number | null} hovered the node under the pointer or with the focus
   * @property {number | null} pinned the node that was chosen
   * @property {number} timer
   * @property {number} turn counts searches for the same cluster: an older one shows nothing
   * @property {Elements} elements
   */

  /**
   * @typedef {object} Elements
   * @property {HTMLCanvasElement} canvas
   * @property {HTMLElement} stage
   * @property {HTMLInputElement} slider of the granularity
   * @property {HTMLOutputElement} granularity
   * @property {HTMLInputElement} strength
   * @property {HTMLOutputElement} share
   * @property {HTMLSelectElement} choice of the segmentation
   * @property {HTMLUListElement} list of regions
   * @property {HTMLElement} lead of what is shown elsewhere
   * @property {HTMLElement} elsewhere
   */

  /**
   * @typedef {object} Cluster a cluster of all images
   * @property {ImageSegmentation} segmentation
   * @property {number[]} nodes of every leaf
   * @property {number} node the cluster
   * @property {Map<number, number>} colors
   * @property {number | null} covered the share of the region that it covers, where it stands for a region
   */

  Atlas.explorer = (record, source, context) => {
    const segmentations = record.segmentations || [];
    if (!segmentations.length) return Atlas.missing("This image has not been segmented yet.");
    const first = segmentations.find(({ segmentation }) => segmentation === context.state.s) || segmentations[0];
    /** @type {View} */
    const view = {
      segmentations,
      id: record.id,
      context,
      cut: decodeSegmentation(first),
      sizes: [],
      hovered: null,
      pinned: null,
      timer: 0,
      turn: 0,
      elements: makeElements(segmentations, first, source),
    };
    listenToControls(view);
    listenToPointer(view);
    const explorer = layOut(view, source);
    showSegmentation(view, first);
    return explorer;
  };

  // Elements

  /**
   * @param {ImageSegmentation[]} segmentations
   * @param {ImageSegmentation} first
   * @param {ExplorerSource} source
   * @returns {Elements}
   */
  function makeElements(segmentations, first, { src, alt, width, height }) {
    const canvas = h("canvas", { class: "overlay", "aria-hidden": true });
    const image = h("img", { src, alt, width, height, class: "image" });
    const options = segmentations.map((segmentation) =>
      h("option", { value: segmentation.segmentation, selected: segmentation === first }, nameOf(segmentation)),
    );
    return {
      canvas,
      stage: h("div", { class: "image-stage", style: { "aspect-ratio": `${width} / ${height}` } }, [image, canvas]),
      slider: h("input", { type: "range", id: "granularity", min: 2, step: 1 }),
      granularity: h("output", { for: "granularity" }),
      strength: h("input", { type: "range", id: "strength", min: 0, max: 100, step: 5, value: 50 }),
      share: h("output", { for: "strength" }, "50 %"),
      choice: h("select", { id: "layer", "aria-label": "Layer" }, options),
      list: h("ul", { class: "regions" }),
      lead: h("p", { class: "lead" }),
      elsewhere: h("div", { class: "elsewhere" }),
    };
  }

  /**
   * @param {View} view
   * @param {ExplorerSource} source
   */
  function layOut({ cut, elements }, { width, height }) {
    // as large as the window is high, and at most twice as large as the image is
    const room = `min(${((76 * width) / height).toFixed(1)}vh, ${Math.max(320, 2 * width)}px)`;
    const unit = cut.segmentation.tops?.[0]?.features[0]?.measure.unit;
    return h("div", { class: "explorer" }, [
      h("div", { class: "columns image-columns", style: { "--image": room } }, [
        h("div", { class: "column" }, [
          elements.stage,
          h("div", { class: "controls" }, [
            h("label", { class: "slider", for: "granularity" }, [
              h("span", {}, "Granularity"),
              elements.slider,
              elements.granularity,
            ]),
            h("label", { class: "slider", for: "strength" }, [
              h("span", {}, "Color"),
              elements.strength,
              elements.share,
            ]),
            h("label", { class: "field" }, [h("span", {}, "Layer"), elements.choice]),
          ]),
        ]),
        h("div", { class: "column" }, [
          h("h2", {}, "Regions"),
          h("p", { class: "note" }, [
            "What the network treats alike (NAVE); finer cuts divide coarser ones. ",
            unit ? `σ: ${unit}.` : "",
          ]),
          elements.list,
        ]),
      ]),
      h("section", { class: "section" }, [
        h("h2", {}, "The same cluster elsewhere"),
        elements.lead,
        elements.elsewhere,
      ]),
    ]);
  }

  // The segmentation and its cut

  /**
   * @param {ImageSegmentation} segmentation
   * @returns {Cut}
   */
  function decodeSegmentation(segmentation) {
    const merges = mergesOf(segmentation);
    const cells = decodeLabels(segmentation.labels);
    const areas = countCells(cells, countLeaves(merges));
    return { segmentation, cells, merges, areas, nodes: [], colors: new Map() };
  }

  /**
   * @param {View} view
   * @param {ImageSegmentation} segmentation
   */
  function showSegmentation(view, segmentation) {
    const { slider } = view.elements;
    view.cut = decodeSegmentation(segmentation);
    const { sizes } = infoOf(segmentation);
    view.sizes = sizes?.length ? sizes : view.cut.areas;
    slider.max = String(Math.min(MOST_REGIONS, countLeaves(view.cut.merges)));
    slider.value = String(Math.min(Number(slider.max), Math.max(2, Number(view.context.state.k) || 5)));
    showRegions(view);
  }

  /**
   * The regions that the slider asks for, the largest first.
   * @param {View} view
   */
  function showRegions(view) {
    const { cut, elements } = view;
    const regions = Number(elements.slider.value);
    cut.nodes = cutTree(cut.merges, regions);
    cut.colors = chooseColors(cut.nodes, view.sizes);
    /** @type {Map<number, number>} */
    const areas = new Map();
    cut.areas.forEach((area, leaf) => {
      areas.set(cut.nodes[leaf], (areas.get(cut.nodes[leaf]) || 0) + area);
    });
    const present = [...areas].filter(([, area]) => area > 0).sort((a, b) => b[1] - a[1]);
    elements.granularity.textContent = isJoint(cut.segmentation)
      ? `${regions} clusters, ${present.length} here`
      : formatPlural(regions, "region");
    if (view.hovered !== null && !areas.has(view.hovered)) view.hovered = null;
    if (view.pinned !== null && !areas.get(view.pinned)) view.pinned = null;
    const tops = new Map((cut.segmentation.tops || []).map((top) => [top.node, top.features]));
    elements.list.replaceChildren(
      ...present.map(([node, area]) => listRegion(view, node, area / cut.cells.length, tops.get(node) || [])),
    );
    redraw(view);
    showElsewhere(view);
  }

  /** @param {ImageSegmentation} segmentation */
  const isJoint = (segmentation) => infoOf(segmentation).scope === "joint";

  /** @param {View} view */
  const litNode = (view) => view.hovered ?? view.pinned;

  /** @param {View} view */
  function redraw(view) {
    const { canvas, strength, list } = view.elements;
    const node = litNode(view);
    draw(canvas, view.cut, { strength: Number(strength.value) / 100, only: node });
    for (const item of regionItems(list)) item.classList.toggle("lit", Number(item.dataset.node) === node);
  }

  /** @param {HTMLElement} list */
  const regionItems = (list) => /** @type {HTMLElement[]} */ ([...list.children]);

  // The list of regions

  /**
   * @param {View} view
   * @param {number} node
   * @param {number} share of the image
   * @param {CircuitLink[]} features that stand out in it
   */
  function listRegion(view, node, share, features) {
    const { palette } = Atlas.manifest;
    const background = palette[(view.cut.colors.get(node) ?? 0) % palette.length];
    const enter = () => hover(view, node);
    const leave = () => hover(view, null);
    const properties = { onpointerenter: enter, onpointerleave: leave, onfocusin: enter, onfocusout: leave };
    return h("li", { "data-node": node, ...properties }, [
      h(
        "button",
        {
          type: "button",
          class: "region",
          "aria-pressed": String(node === view.pinned),
          onclick: () => togglePinned(view, node),
        },
        [
          h("span", { class: "swatch", style: { background } }),
          h("span", { class: "region-share" }, `${formatPercent(share)} of the image`),
        ],
      ),
      features.length
        ? h(
            "ul",
            { class: "region-features" },
            features.slice(0, 3).map((link) => h("li", {}, nameFeature(view, link))),
          )
        : h("p", { class: "region-features soft" }, "no feature of this atlas stands out here"),
    ]);
  }

  /**
   * @param {View} view
   * @param {CircuitLink} link
   */
  function nameFeature(view, { target, measure }) {
    const row = view.context.features.by.get(target);
    const children = [
      h("span", { class: "mono" }, target),
      row?.concepts[0] ? ` ${row.concepts[0]}` : "",
      h("b", {}, ` ${formatSigned(measure)} σ`),
    ];
    return row ? h("a", { href: Atlas.linkTo(target) }, children) : h("span", {}, children);
  }

  /**
   * @param {View} view
   * @param {number | null} node
   */
  function hover(view, node) {
    view.hovered = node;
    redraw(view);
    showElsewhereSoon(view);
  }

  /**
   * @param {View} view
   * @param {number} node
   */
  function togglePinned(view, node) {
    view.pinned = view.pinned === node ? null : node;
    for (const item of regionItems(view.elements.list))
      item.firstElementChild?.setAttribute("aria-pressed", String(Number(item.dataset.node) === view.pinned));
    redraw(view);
    showElsewhereSoon(view);
  }

  // The same cluster in other images

  /** @param {View} view */
  function showElsewhereSoon(view) {
    clearTimeout(view.timer);
    view.timer = setTimeout(() => showElsewhere(view), DELAY);
  }

  /**
   * The images that hold most of the lit cluster, with nothing else lit.
   * @param {View} view
   */
  async function showElsewhere(view) {
    const turn = ++view.turn;
    const { lead, elsewhere } = view.elements;
    const { images } = view.context;
    if (!images) {
      if (elsewhere.parentElement) elsewhere.parentElement.hidden = true;
      return;
    }
    const cluster = findCluster(view);
    if (!cluster) {
      lead.textContent = view.segmentations.some(isJoint)
        ? "Point at a region, or choose it with Tab and Enter, to see the same cluster in other images."
        : "Images were segmented one by one, so regions have no counterparts in other images.";
      elsewhere.replaceChildren();
      return;
    }
    const ranked = rankImages(images, cluster, view.id);
    const name = nameCluster(cluster);
    lead.textContent = ranked.length
      ? `${name}, where it takes up most of other images:`
      : `${name}: no other image holds it.`;
    const records = await Promise.all(ranked.map(({ row }) => Atlas.record("images", row.position).catch(() => null)));
    if (turn !== view.turn) return;
    const shown = records.map((record, order) => record && showOther(view, record, ranked[order], cluster));
    elsewhere.replaceChildren(...shown.filter((element) => element !== null));
  }

  /**
   * The cluster of all images that the lit region is, or that stands for it; null where there is none.
   * @param {View} view
   * @returns {Cluster | null}
   */
  function findCluster(view) {
    const node = litNode(view);
    if (node === null) return null;
    const { segmentation, nodes, colors } = view.cut;
    return isJoint(segmentation) ? { segmentation, nodes, node, colors, covered: null } : findCovering(view, node);
  }

  /**
   * A region of an image that was segmented alone has no counterparts: the cluster of all images that covers most of
   * it stands for it.
   * @param {View} view
   * @param {number} node
   * @returns {Cluster | null}
   */
  function findCovering(view, node) {
    const { segmentation, cells, nodes, colors } = view.cut;
    const { rows, columns } = segmentation.labels;
    const layers = String(infoOf(segmentation).layers);
    const joint = view.segmentations.find(
      (other) =>
        isJoint(other) &&
        String(infoOf(other).layers) === layers &&
        other.labels.rows === rows &&
        other.labels.columns === columns,
    );
    if (!joint) return null;
    const inside = decodeLabels(joint.labels).filter((_, cell) => nodes[cells[cell]] === node);
    const counts = countCells(inside, countLeaves(mergesOf(joint)));
    const leaf = counts.indexOf(Math.max(...counts));
    return {
      segmentation: joint,
      nodes: counts.map((_, index) => index),
      node: leaf,
      colors: new Map([[leaf, colors.get(node) ?? 0]]),
      covered: counts[leaf] / inside.length,
    };
  }

  /**
   * @param {Table<ImageRow>} images
   * @param {Cluster} cluster
   * @param {string | undefined} id of the image that is shown already
   */
  function rankImages(images, cluster, id) {
    const leaves = cluster.nodes.flatMap((node, leaf) => (node === cluster.node ? [leaf] : []));
    return images.rows
      .filter((row) => row.id !== id)
      .map((row) => {
        const shares = row.shares?.[cluster.segmentation.segmentation] || [];
        return { row, share: leaves.reduce((sum, leaf) => sum + (shares[leaf] || 0), 0) };
      })
      .filter(({ share }) => share > 0)
      .sort((a, b) => b.share - a.share)
      .slice(0, OTHERS);
  }

  /** @param {Cluster} cluster */
  function nameCluster({ segmentation, covered }) {
    if (covered === null) return "The same cluster";
    const clusters = formatPlural(countLeaves(mergesOf(segmentation)), "cluster");
    const share = formatPercent(covered);
    return `Of the ${clusters} of all images, the one that covers most of this region (${share} of it)`;
  }

  /**
   * Another image, small, with the cluster lit.
   * @param {View} view
   * @param {ImageRecord} record
   * @param {{row: ImageRow, share: number}} ranked share: in thousandths
   * @param {Cluster} cluster
   */
  function showOther(view, record, { row, share }, cluster) {
    const id = cluster.segmentation.segmentation;
    const segmentation = record.segmentations?.find((other) => other.segmentation === id);
    const picture = record.thumbnail || record.picture;
    if (!segmentation || !picture) return null;
    const overlay = h("canvas", { class: "overlay", "aria-hidden": true });
    const cells = decodeLabels(segmentation.labels);
    const { nodes, colors } = cluster;
    draw(overlay, { segmentation, cells, nodes, colors }, { strength: 0.5, only: cluster.node });
    const name = toPlain(row.label || row.name);
    const k = cluster.covered === null ? view.elements.slider.value : nodes.length;
    const style = {
      "aspect-ratio": `${picture.width} / ${picture.height}`,
      height: `min(var(--high), calc(var(--broad) * ${(picture.height / picture.width).toFixed(3)}))`,
    };
    return h("a", { class: "other", href: Atlas.link("image", record.id, { s: id, k }) }, [
      h("span", { class: "image-stage", style }, [
        Atlas.image(picture, name, { class: "image", loading: "eager" }),
        overlay,
      ]),
      h("span", { class: "other-name" }, `${name}: ${formatPercent(share / 1000)}`),
    ]);
  }

  // What a person does

  /** @param {View} view */
  function listenToControls(view) {
    const { slider, strength, share, choice } = view.elements;
    const { state, changed } = view.context;
    slider.addEventListener("input", () => {
      state.k = slider.value;
      showRegions(view);
      changed(state);
    });
    strength.addEventListener("input", () => {
      share.textContent = `${strength.value} %`;
      redraw(view);
    });
    choice.addEventListener("change", () => {
      const segmentation = view.segmentations.find((other) => other.segmentation === choice.value);
      if (!segmentation) return;
      state.s = choice.value;
      [view.hovered, view.pinned] = [null, null];
      showSegmentation(view, segmentation);
      changed(state);
    });
  }

  /** @param {View} view */
  function listenToPointer(view) {
    const { stage } = view.elements;
    stage.addEventListener("pointermove", (event) => {
      const node = nodeUnder(view, event);
      if (node !== view.hovered) hover(view, node);
    });
    stage.addEventListener("pointerleave", () => hover(view, null));
    stage.addEventListener("click", (event) => togglePinned(view, nodeUnder(view, event)));
  }

  /**
   * The region under the pointer.
   * @param {View} view
   * @param {MouseEvent} event
   */
  function nodeUnder({ cut, elements }, event) {
    const { rows, columns } = cut.segmentation.labels;
    const box = elements.stage.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
    const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
    const [down, across] = [Math.min(rows - 1, Math.max(0, row)), Math.min(columns - 1, Math.max(0, column))];
    return cut.nodes[cut.cells[down * columns + across]];
  }
})();
