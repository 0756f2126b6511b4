// A grid of any number of cards that keeps only those in sight: rows have one height, so their places are known.
"use strict";

Atlas.grid = (host, { card, least, extra, ratio = 1, gap = 18 }) => {
  const OVERSCAN = 2; // rows above and below
  const list = h("div", { class: "window", role: "list" });
  host.append(list);
  let items = [];
  let [columns, width, row] = [1, least, least];
  const shown = new Map(); // place -> element
  let asked = 0;

  function measure() {
    const room = list.clientWidth || host.clientWidth || 320;
    const narrow = room < 520;
    const space = narrow ? 12 : gap;
    columns = Math.max(narrow && least <= 220 ? 2 : 1, Math.floor((room + space) / (least + space)));
    width = (room - space * (columns - 1)) / columns;
    row = Math.round(width * ratio + extra + (narrow && least > 150 ? 18 : 0)) + space; // their last line breaks there
    list.style.height = `${Math.max(0, Math.ceil(items.length / columns) * row - space)}px`;
    for (const [place, element] of shown) put(element, place, space);
  }

  function put(element, place, space) {
    const gapNow = space ?? (list.clientWidth < 520 ? 12 : gap);
    element.style.width = `${width}px`;
    element.style.height = `${row - gapNow}px`;
    element.style.transform = `translate(${(place % columns) * (width + gapNow)}px, ${Math.floor(place / columns) * row}px)`;
  }

  function draw() {
    asked = 0;
    if (!list.isConnected) return;
    const above = -list.getBoundingClientRect().top;
    const first = Math.max(0, (Math.floor(above / row) - OVERSCAN) * columns);
    const last = Math.min(items.length, (Math.ceil((above + innerHeight) / row) + OVERSCAN) * columns);
    for (const [place, element] of shown) {
      if (place < first || place >= last) {
        element.remove();
        shown.delete(place);
      }
    }
    let before = null; // cards stand in the document in the order in which they are read
    for (let place = last - 1; place >= first; place--) {
      let element = shown.get(place);
      if (!element) {
        element = card(items[place], place);
        element.dataset.place = place;
        element.setAttribute("role", "listitem");
        element.setAttribute("aria-posinset", place + 1);
        element.setAttribute("aria-setsize", items.length);
        put(element, place);
        list.insertBefore(element, before);
        shown.set(place, element);
      }
      before = element;
    }
  }

  const ask = () => {
    if (!asked) asked = requestAnimationFrame(draw);
  };
  const resized = new ResizeObserver(() => {
    measure();
    draw();
  });
  resized.observe(host);
  addEventListener("scroll", ask, { passive: true });

  // arrows go from card to card, also to those that are not drawn yet
  list.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -Infinity, End: Infinity };
    const here = event.target.closest("[data-place]");
    if (!(event.key in steps) || !here || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    focus(Math.min(items.length - 1, Math.max(0, Number(here.dataset.place) + steps[event.key])));
  });

  function focus(place) {
    const top = list.getBoundingClientRect().top + scrollY + Math.floor(place / columns) * row;
    const bar = 140; // what stays at the top of the window
    if (top < scrollY + bar) scrollTo(0, Math.max(0, top - bar));
    else if (top + row > scrollY + innerHeight) scrollTo(0, top + row - innerHeight + 8);
    draw();
    const element = shown.get(place);
    const target = element && (element.matches("a, button") ? element : element.querySelector("a, button"));
    if (target) target.focus({ preventScroll: true });
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
      removeEventListener("scroll", ask);
    },
  };
};
