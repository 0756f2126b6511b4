// From the address to a page, and what all pages share: header, colors, keys, and how far a page was scrolled.
"use strict";

(() => {
  /**
   * An element of index.html.
   * @param {string} id
   */
  function byId(id) {
    const element = document.getElementById(id);
    if (!element) throw new Error(`index.html has no element ${id}`);
    return element;
  }

  const main = byId("main");
  /** @type {Map<string, number>} By address, how far it was scrolled. */
  const scrolled = new Map();
  /** @type {(() => void) | null} */
  let close = null;
  let turn = 0;
  let clicked = false;
  /** @type {Page | null} */
  let page = null;

  /** @param {string} hash */
  function parse(hash) {
    const [path, query] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
    const [name, ...rest] = path.split("/");
    let part = rest.join("/");
    try {
      part = decodeURIComponent(part);
    } catch {
      // an address somebody wrote by hand
    }
    return {
      name: name || "features",
      part: part || null,
      query: Object.fromEntries(new URLSearchParams(query || "")),
    };
  }

  /** @param {string} name of the page that is open */
  function highlightLink(name) {
    for (const link of document.querySelectorAll("#nav a")) {
      const isOpen = link instanceof HTMLElement && link.dataset.page?.split(" ").includes(name);
      if (isOpen) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  /** @param {HashChangeEvent} [event] */
  async function open(event) {
    const own = ++turn;
    if (event) scrolled.set(new URL(event.oldURL).hash, scrollY);
    const { name, part, query } = parse(location.hash);
    page = Atlas.pages[name] || null;
    document.title = `${page ? page.title : "Not found"} · ${Atlas.manifest.title} · Encoscope atlas`;
    highlightLink(name);
    const content = h("div", { class: `page page-${name}` });
    if (close) close();
    close = null;
    const [isReturn, isFirst] = [!clicked, !event];
    clicked = false;
    main.replaceChildren(content);
    main.setAttribute("aria-busy", "true");
    delete main.dataset.drawn;
    const done = await draw(page, content, part, query);
    if (own !== turn) {
      if (done) done();
      return;
    }
    close = done;
    main.removeAttribute("aria-busy");
    main.dataset.drawn = location.hash.split("?")[0]; // what is shown, which an address that just changed is not yet
    scrollTo(0, isReturn && !isFirst ? scrolled.get(location.hash) || 0 : 0);
    if (!isFirst) main.focus({ preventScroll: true });
  }

  /**
   * Draws a page, or says why it cannot; gives what has to be called before another one is drawn.
   * @param {Page | null} page
   * @param {HTMLElement} content
   * @param {string | null} part
   * @param {Query} query
   */
  async function draw(page, content, part, query) {
    if (!page) {
      content.append(h("h1", {}, "There is no such page"), h("p", {}, h("a", { href: "#/features" }, "All features")));
      return null;
    }
    try {
      return await page.render(content, part, query);
    } catch (error) {
      content.replaceChildren(
        h("h1", {}, "This page could not be drawn"),
        Atlas.missing(messageOf(error)),
        h("p", {}, "If the atlas was copied, part of it may be missing; building it again writes what is not there."),
      );
      return null;
    }
  }

  /** @param {unknown} error */
  const messageOf = (error) => (error instanceof Error ? error.message : String(error));

  function header() {
    const { counts, title, model, data, versions } = Atlas.manifest;
    byId("title").textContent = title;
    /** @type {[string, string, string, unknown][]} name, text, pages it stands for, whether it is shown */
    const links = [
      ["features", "Features", "features feature", true],
      ["images", "Images", "images image", counts.images],
      ["classes", "Classes", "classes class", counts.classes],
      ["compare", "Compare", "compare", counts.comparisons],
      ["live", "Your image", "live", Atlas.live],
      ["about", "About", "about", true],
    ];
    byId("nav").replaceChildren(
      ...links
        .filter(([, , , isShown]) => isShown)
        .map(([name, text, pages]) => h("a", { href: `#/${name}`, "data-page": pages }, text)),
    );
    const parts = [model?.source, data.source, `encoscope ${versions.encoscope || ""}`];
    byId("foot").textContent = parts.filter(Boolean).join(" · ");
  }

  // Colors: as the system, or chosen; a browser may forbid keeping the choice.
  const THEMES = ["system", "light", "dark"];
  const button = byId("theme");

  /** @param {string} theme */
  function paint(theme) {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.setAttribute("aria-label", `Colors: ${theme === "system" ? "as the system" : theme}`);
    try {
      localStorage.setItem("atlas-theme", theme);
    } catch {
      // it is chosen anew next time
    }
  }

  function storedTheme() {
    try {
      const theme = localStorage.getItem("atlas-theme");
      return theme && THEMES.includes(theme) ? theme : "system";
    } catch {
      return "system";
    }
  }

  let theme = storedTheme();
  paint(theme);
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    paint(theme);
  });

  const FIELDS = "input:not([type=range]):not([type=checkbox]), select, textarea";

  addEventListener("keydown", (event) => {
    const isTyping = event.target instanceof Element && event.target.closest(FIELDS);
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "t") button.click();
    const target = page?.keys?.[event.key]?.();
    if (!target) return;
    event.preventDefault();
    if (target.matches("a")) target.click();
    else target.focus();
  });
  document.addEventListener("click", (event) => {
    if (!(event.target instanceof Element)) return;
    if (event.target.closest('a[href^="#/"]')) clicked = true;
    if (event.target.closest("a.skip")) {
      event.preventDefault(); // the hash names pages here
      main.focus();
    }
  });
  if ("scrollRestoration" in history) history.scrollRestoration = "manual";
  addEventListener("hashchange", open);

  (async () => {
    try {
      const live = encoscope.load("live").catch(() => null);
      [Atlas.manifest, Atlas.live] = await Promise.all([encoscope.load("manifest"), live]);
    } catch (error) {
      main.replaceChildren(
        h("h1", {}, "There is no atlas here"),
        Atlas.missing(`${messageOf(error)}. Keep index.html together with its folders.`),
      );
      return;
    }
    header();
    await open();
  })();
})();
