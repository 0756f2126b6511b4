// The segmentation of an image: labels from a shard, regions at any granularity from the tree, drawn over the picture.
"use strict";

Atlas.segmentation = (() => {
  const DIMMED = "#1a1a18";

  /**
   * The labels of a map from its runs, row by row.
   * @param {LabelMap} map
   */
  function decodeLabels(map) {
    const cells = new Uint8Array(map.rows * map.columns);
    let start = 0;
    for (let run = 0; run < map.runs.length; run += 2) {
      const end = start + map.runs[run + 1];
      cells.fill(map.runs[run], start, end);
      start = end;
    }
    return cells;
  }

  /** @param {Merge[]} merges */
  const countLeaves = (merges) => merges.length + 1;

  /**
   * The node of every leaf when so many regions remain: the first merges are done.
   * @param {Merge[]} merges
   * @param {number} regions
   */
  function cutTree(merges, regions) {
    const leaves = countLeaves(merges);
    const nodes = Array.from({ length: leaves }, (_, leaf) => leaf);
    for (let step = 0; step < leaves - regions; step++)
      for (let leaf = 0; leaf < leaves; leaf++) if (merges[step].includes(nodes[leaf])) nodes[leaf] = leaves + step;
    return nodes;
  }

  /**
   * A region has the color of its largest leaf, so that colors stay as the granularity changes.
   * @param {number[]} nodes
   * @param {number[]} sizes
   */
  function chooseColors(nodes, sizes) {
    /** @type {Map<number, number>} */
    const largest = new Map();
    nodes.forEach((node, leaf) => {
      const other = largest.get(node);
      if (other === undefined || sizes[leaf] > sizes[other]) largest.set(node, leaf);
    });
    return largest;
  }

  /**
   * @param {Uint8Array} cells
   * @param {number} leaves
   */
  function countCells(cells, leaves) {
    const sizes = new Array(leaves).fill(0);
    for (const leaf of cells) sizes[leaf]++;
    return sizes;
  }

  /**
   * Regions in their colors; a run of equal cells is one rectangle.
   * @param {CanvasRenderingContext2D} context
   * @param {Region} region
   */
  function fillRegions(context, { rows, columns, scale, nodeAt, colors, strength, only }) {
    const { palette } = Atlas.manifest;
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; ) {
        const node = nodeAt(row, column);
        let end = column + 1;
        while (end < columns && nodeAt(row, end) === node) end++;
        const lit = only === null || only === node;
        context.globalAlpha = lit ? (only === null ? strength : strength * 0.55) : 0.78;
        context.fillStyle = lit ? palette[(colors.get(node) ?? 0) % palette.length] : DIMMED;
        context.fillRect(column * scale, row * scale, (end - column) * scale, scale);
        column = end;
      }
    }
  }

  /**
   * The lines between regions.
   * @param {Region} region
   */
  function traceOutlines({ rows, columns, scale, nodeAt, only }) {
    const lines = new Path2D();
    /**
     * @param {number} first
     * @param {number} second
     */
    const isBorder = (first, second) => first !== second && (only === null || only === first || only === second);
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const [right, bottom] = [(column + 1) * scale, (row + 1) * scale];
        const node = nodeAt(row, column);
        if (column + 1 < columns && isBorder(node, nodeAt(row, column + 1))) {
          lines.moveTo(right, row * scale);
          lines.lineTo(right, bottom);
        }
        if (row + 1 < rows && isBorder(node, nodeAt(row + 1, column))) {
          lines.moveTo(column * scale, bottom);
          lines.lineTo(right, bottom);
        }
      }
    }
    return lines;
  }

  /**
   * @typedef {object} Region what is drawn, and how
   * @property {number} rows
   * @property {number} columns
   * @property {number} scale pixels of a cell
   * @property {(row: number, column: number) => number} nodeAt
   * @property {Map<number, number>} colors
   * @property {number} strength opacity, 0 to 1
   * @property {number | null} only the node that is lit, where the others are dimmed
   */

  /** @type {AtlasSegmentation["draw"]} Colors and outlines of regions on a canvas over a picture. */
  function draw(canvas, { segmentation, cells, nodes, colors }, { strength = 0.55, only = null } = {}) {
    const { rows, columns } = segmentation.labels;
    const scale = Math.max(2, Math.ceil(720 / Math.max(rows, columns)));
    canvas.width = columns * scale;
    canvas.height = rows * scale;
    const context = canvas.getContext("2d");
    if (!context) return;
    /** @type {Region} */
    const region = {
      rows,
      columns,
      scale,
      nodeAt: (row, column) => nodes[cells[row * columns + column]],
      colors,
      strength,
      only,
    };
    fillRegions(context, region);
    const lines = traceOutlines(region);
    context.globalAlpha = 1;
    context.lineCap = "round";
    context.strokeStyle = "rgba(0,0,0,.55)";
    context.lineWidth = 4.5;
    context.stroke(lines);
    context.strokeStyle = "#fff";
    context.lineWidth = 1.8;
    context.stroke(lines);
  }

  /** @param {ImageSegmentation} segmentation */
  const infoOf = (segmentation) =>
    Atlas.manifest.segmentations.find((info) => info.id === segmentation.segmentation) || {
      scope: "image",
      layers: [segmentation.segmentation],
    };

  /** @type {AtlasSegmentation["mergesOf"]} */
  const mergesOf = (segmentation) =>
    segmentation.merges?.length
      ? segmentation.merges
      : Atlas.manifest.segmentations.find((info) => info.id === segmentation.segmentation)?.merges || [];

  /** @param {ImageSegmentation} segmentation */
  function nameOf(segmentation) {
    const { layers, scope } = infoOf(segmentation);
    return `${layers.join(" + ")}, ${scope === "joint" ? "all images together" : "this image alone"}`;
  }

  return { decodeLabels, cutTree, countLeaves, countCells, chooseColors, draw, infoOf, mergesOf, nameOf };
})();
