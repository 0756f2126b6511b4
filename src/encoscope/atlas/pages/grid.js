// A grid of any number of cards that keeps only those in sight: rows have one height, so positions are known.
"use strict";

(() => {
  const OVERSCAN = 2; // rows above and below
  const BAR = 140; // what stays at the top of the window, in pixels

  /** @param {number} room the width in pixels */
  const isNarrow = (room) => room < 520;

  Atlas.grid = (host, { card, least, extra, ratio = 1, gap = 18 }) => {
    const list = h("div", { class: "window", role: "list" });
    host.append(list);
    /** @type {Parameters<typeof card>[0][]} */
    let items = [];
    let [columns, width, row] = [1, least, least];
    /** @type {Map<number, HTMLElement>} by the item's index */
    const shown = new Map();
    let frame = 0;

    function measure() {
      const room = list.clientWidth || host.clientWidth || 320;
      const narrow = isNarrow(room);
      const space = narrow ? 12 : gap;
      columns = Math.max(narrow && least <= 220 ? 2 : 1, Math.floor((room + space) / (least + space)));
      width = (room - space * (columns - 1)) / columns;
      // in narrow windows a card's last line breaks
      row = Math.round(width * ratio + extra + (narrow && least > 150 ? 18 : 0)) + space;
      list.style.height = `${Math.max(0, Math.ceil(items.length / columns) * row - space)}px`;
      for (const [index, element] of shown) position(element, index, space);
    }

    /**
     * @param {HTMLElement} element
     * @param {number} index
     * @param {number} space
     */
    function position(element, index, space) {
      const [across, down] = [(index % columns) * (width + space), Math.floor(index / columns) * row];
      element.style.width = `${width}px`;
      element.style.height = `${row - space}px`;
      element.style.transform = `translate(${across}px, ${down}px)`;
    }

    /** @param {number} index */
    function makeCard(index) {
      const element = card(items[index], index);
      element.dataset.index = String(index);
      element.setAttribute("role", "listitem");
      element.setAttribute("aria-posinset", String(index + 1));
      element.setAttribute("aria-setsize", String(items.length));
      position(element, index, isNarrow(list.clientWidth) ? 12 : gap);
      return element;
    }

    function draw() {
      frame = 0;
      if (!list.isConnected) return;
      const above = -list.getBoundingClientRect().top;
      const first = Math.max(0, (Math.floor(above / row) - OVERSCAN) * columns);
      const last = Math.min(items.length, (Math.ceil((above + innerHeight) / row) + OVERSCAN) * columns);
      for (const [index, element] of shown) {
        if (index < first || index >= last) {
          element.remove();
          shown.delete(index);
        }
      }
      /** @type {HTMLElement | null} */
      let next = null; // cards stand in the document in the order in which they are read
      for (let index = last - 1; index >= first; index--) {
        let element = shown.get(index);
        if (!element) {
          element = makeCard(index);
          list.insertBefore(element, next);
          shown.set(index, element);
        }
        next = element;
      }
    }

    const drawSoon = () => {
      if (!frame) frame = requestAnimationFrame(draw);
    };
    const resized = new ResizeObserver(() => {
      measure();
      draw();
    });
    resized.observe(host);
    addEventListener("scroll", drawSoon, { passive: true });

    // arrows go from card to card, also to those that are not drawn yet
    list.addEventListener("keydown", (event) => {
      /** @type {Record<string, number>} */
      const steps = {
        ArrowRight: 1,
        ArrowLeft: -1,
        ArrowDown: columns,
        ArrowUp: -columns,
        Home: -Infinity,
        End: Infinity,
      };
      const here = event.target instanceof Element ? event.target.closest("[data-index]") : null;
      if (!(here instanceof HTMLElement) || !(event.key in steps)) return;
      if (event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      focus(Math.min(items.length - 1, Math.max(0, Number(here.dataset.index) + steps[event.key])));
    });

    /** @param {number} index */
    function focus(index) {
      const top = list.getBoundingClientRect().top + scrollY + Math.floor(index / columns) * row;
      if (top < scrollY + BAR) scrollTo(0, Math.max(0, top - BAR));
      else if (top + row > scrollY + innerHeight) scrollTo(0, top + row - innerHeight + 8);
      draw();
      const element = shown.get(index);
      const target = element?.matches("a, button") ? element : element?.querySelector("a, button");
      if (target instanceof HTMLElement) target.focus({ preventScroll: true });
    }

    return {
      show(next) {
        items = next;
        for (const element of shown.values()) element.remove();
        shown.clear();
        measure();
        draw();
      },
      focus,
      close() {
        resized.disconnect();
        removeEventListener("scroll", drawSoon);
      },
    };
  };
})();
