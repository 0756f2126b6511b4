// The questionnaire: one question a screen, answers kept in this tab, and at the end a file to hand on.
"use strict";

(() => {
  const study = window.STUDY;
  const FORMAT = "encoscope.study-answers/1";
  const ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
  const AGES = ["under 18", "18-24", "25-34", "35-44", "45-54", "55-64", "65 or older"];
  const GENDERS = ["female", "male", "other"];
  const LETTERS = "ABCDEFGH";

  /** @typedef {StudyQuestion & {shown: string[], picture?: string}} Question shown: what is answered, in order */

  /**
   * @typedef {object} Part
   * @property {StudyKind} kind
   * @property {Question[]} questions
   */

  /** @typedef {{kind: "welcome" | "about" | "end"}} PlainScreen */
  /** @typedef {{kind: "instructions", part: Part, number: number}} InstructionScreen */
  /** @typedef {{kind: StudyKind, part: Part, question: Question, number: number, order: number}} QuestionScreen */
  /** @typedef {PlainScreen | InstructionScreen | QuestionScreen} Screen */

  /**
   * @typedef {object} Answer
   * @property {string[]} shown
   * @property {number} seconds
   * @property {Record<string, number>} [scores]
   * @property {string} [text]
   * @property {string} [choice]
   * @property {number} [confidence]
   */

  /**
   * @typedef {object} State
   * @property {number} screen the index of the screen that is shown
   * @property {Record<string, Answer>} answers by the question's name
   * @property {{age: string | null, gender: string | null}} demographics
   */

  // What follows from the participant's code. Whoever evaluates the answers works the same orders out again.

  /** @param {number} value */
  function mixBits(value) {
    let mixed = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
    mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
    return (mixed ^ (mixed >>> 16)) >>> 0;
  }

  /** @param {string} text */
  function hashText(text) {
    let state = 0x811c9dc5;
    for (const byte of new TextEncoder().encode(text)) state = Math.imul(state ^ byte, 0x01000193);
    return mixBits(state);
  }

  /**
   * @template Item
   * @param {Item[]} items
   * @param {string} label
   */
  function shuffle(items, label) {
    const shuffled = [...items];
    let state = hashText(label);
    for (let last = shuffled.length - 1; last > 0; last--) {
      state = (state + 0x9e3779b9) >>> 0;
      const other = mixBits(state) % (last + 1);
      [shuffled[last], shuffled[other]] = [shuffled[other], shuffled[last]];
    }
    return shuffled;
  }

  function drawCode() {
    const bytes = crypto.getRandomValues(new Uint8Array(8));
    return [...bytes].map((value) => ALPHABET[value % ALPHABET.length]).join("");
  }

  function codeOfAddress() {
    const text = decodeURIComponent(location.hash.slice(1)).trim().toUpperCase();
    return /^[A-Z0-9-]{1,32}$/.test(text) ? text : null;
  }

  const code = codeOfAddress() ?? drawCode();
  if (codeOfAddress() !== code) history.replaceState(null, "", `#${code}`);
  addEventListener("hashchange", () => location.reload());

  // What is shown, screen after screen

  /** @param {StudyKind} kind */
  const isScored = (kind) => kind === "words" || kind === "examples";

  /**
   * A part's questions in the participant's order, with what is shown in each.
   * @param {{kind: StudyKind, questions: StudyQuestion[]}} part
   * @returns {Part}
   */
  function planPart({ kind, questions }) {
    const own = `${study.study}/${code}`;
    const names = shuffle(
      questions.map((question) => question.name),
      `${own}/${kind}/questions`,
    );
    const byName = new Map(questions.map((question) => [question.name, question]));
    const planned = names.flatMap((name) => {
      const question = byName.get(name);
      return question ? [planQuestion(question, kind, own)] : [];
    });
    return { kind, questions: planned };
  }

  /**
   * @param {StudyQuestion} question
   * @param {StudyKind} kind
   * @param {string} own begins the labels of this study and participant
   * @returns {Question}
   */
  function planQuestion(question, kind, own) {
    const label = `${own}/${question.name}/pictures`;
    if (isScored(kind)) return { ...question, shown: shuffle(question.pictures, label) };
    const subset = hashText(`${own}/${kind}/subset`) % question.pictures.length;
    const picture = question.pictures[subset];
    const shown = kind === "match" ? shuffle(question.choices ?? [], label) : [picture];
    return { ...question, picture, shown };
  }

  const parts = study.parts.map(planPart);
  /** @type {Screen[]} */
  const screens = [
    { kind: "welcome" },
    ...parts.flatMap((part, number) => [
      /** @type {Screen} */ ({ kind: "instructions", part, number }),
      ...part.questions.map(
        (question, order) => /** @type {Screen} */ ({ kind: part.kind, part, question, number, order }),
      ),
    ]),
    { kind: "about" },
    { kind: "end" },
  ];

  // What was answered so far lives in this tab only, so that loading the page again loses nothing

  const storageKey = `study-${study.study}-${code}`;

  /** @returns {State | null} */
  function restoreState() {
    try {
      const stored = JSON.parse(sessionStorage.getItem(storageKey) ?? "null");
      return stored && stored.screen < screens.length ? stored : null;
    } catch {
      return null;
    }
  }

  /** @type {State} */
  const state = restoreState() ?? { screen: 0, answers: {}, demographics: { age: null, gender: null } };

  function storeState() {
    try {
      sessionStorage.setItem(storageKey, JSON.stringify(state));
    } catch {
      // private windows may refuse: then answers live as long as the page
    }
  }

  let shownAt = 0;
  let saved = false;

  /**
   * @param {Question} question
   * @returns {Answer}
   */
  function answerOf(question) {
    state.answers[question.name] ??= { shown: question.shown, seconds: 0 };
    return state.answers[question.name];
  }

  // Building blocks

  /**
   * An element; options are its properties, or attributes where it has no such property.
   * @template {keyof HTMLElementTagNameMap} Tag
   * @param {Tag} tag
   * @param {Record<string, unknown>} options
   * @param {...(Node | string)} children
   * @returns {HTMLElementTagNameMap[Tag]}
   */
  function makeElement(tag, options = {}, ...children) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(options)) {
      if (key in element && key !== "list" && key !== "style") Object.assign(element, { [key]: value });
      else element.setAttribute(key, String(value));
    }
    element.append(...children);
    return element;
  }

  /**
   * @param {string} name
   * @param {string} alt
   */
  const makePicture = (name, alt) => makeElement("img", { src: `pictures/${name}`, alt, draggable: false });

  /** @param {string} text */
  const makeHeading = (text) => makeElement("h1", { tabIndex: -1 }, text);

  /** @param {string} text */
  const makeParagraph = (text) => makeElement("p", {}, text);

  /**
   * One of several values.
   * @template Value
   * @param {string} name
   * @param {[Value, string][]} options values with their texts
   * @param {Value | undefined} chosen
   * @param {(value: Value) => void} choose
   * @param {string} className
   */
  function makeRadios(name, options, chosen, choose, className = "scores") {
    const box = makeElement("div", { className, style: `--count: ${options.length}` });
    for (const [value, text] of options) {
      const input = makeElement("input", { type: "radio", name, value: String(value), checked: value === chosen });
      input.addEventListener("change", () => choose(value));
      box.append(makeElement("label", { className: "option" }, input, makeElement("span", {}, text)));
    }
    return box;
  }

  /** @param {QuestionScreen} screen */
  function makeStep({ number, order, part }) {
    const text = `Part ${number + 1} of ${parts.length} · question ${order + 1} of ${part.questions.length}`;
    return makeElement("p", { className: "step" }, text);
  }

  /**
   * The pictures of a question, each with its scores.
   * @param {QuestionScreen} screen
   */
  function makeScoredPictures({ question }) {
    const answer = answerOf(question);
    const scores = answer.scores ?? {};
    answer.scores = scores;
    /** @type {[number, string][]} */
    const options = [1, 2, 3, 4, 5].map((value) => [value, String(value)]);
    const box = makeElement("div", { className: "pictures" });
    question.shown.forEach((name, order) => {
      const title = `Picture ${LETTERS[order]}`;
      const radios = makeRadios(`score-${order}`, options, scores[name], (value) => {
        scores[name] = value;
        storeState();
      });
      const ends = makeElement("p", { className: "ends" });
      ends.append(makeElement("span", {}, "1: worst"), makeElement("span", {}, "5: best"));
      box.append(
        makeElement(
          "fieldset",
          { className: "rated" },
          makeElement("legend", {}, title),
          makePicture(name, title),
          radios,
          ends,
        ),
      );
    });
    return box;
  }

  // The screens: each function gives what its screen shows

  /**
   * @param {number} number
   * @param {string} word
   */
  const count = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;

  /** @type {Record<StudyKind, [string, string]>} */
  const INSTRUCTIONS = {
    words: [
      "How well does each picture show the word?",
      "You will see a word, and some pictures that were made by a computer. Give each picture a score for how well " +
        "it shows what the word stands for.",
    ],
    examples: [
      "How well does each picture go with the real images?",
      "You will see parts of real photographs, and some pictures that were made by a computer. Look for what the " +
        "photographs have in common, and give each picture a score for how well it shows that.",
    ],
    describe: [
      "What does the picture show?",
      "You will see one picture at a time, made by a computer. Write in English what you think it shows: a word, or " +
        "a few. If nothing comes to mind, write your best guess.",
    ],
    match: [
      "Which image goes with the picture?",
      "You will see a picture that was made by a computer, and two parts of real photographs. Choose the one that " +
        "goes better with the picture, and say how sure you are.",
    ],
  };

  function showWelcome() {
    const list = makeElement("ol");
    for (const { kind, questions } of parts)
      list.append(makeElement("li", {}, `${INSTRUCTIONS[kind][0]} (${count(questions.length, "question")})`));
    return [
      makeHeading(study.title),
      makeParagraph(
        "Thank you for taking part. Computers that recognise images can be made to draw pictures of what they look " +
          "for. We would like to know how well people understand such pictures. There are no right or wrong answers " +
          "that you could be judged by: the pictures are tested, not you.",
      ),
      makeParagraph(parts.length === 1 ? "There is one part:" : `There are ${parts.length} parts:`),
      list,
      makeParagraph(
        "At the end you may tell your age range and gender, and save your answers as a file. Nothing is sent " +
          "anywhere: only you hand that file on. You can stop at any time by closing this page.",
      ),
      makeElement(
        "p",
        { className: "soft" },
        "Your participant code: ",
        makeElement("span", { className: "code" }, code),
      ),
    ];
  }

  /** @param {InstructionScreen} screen */
  function showInstructions({ part, number }) {
    const [title, text] = INSTRUCTIONS[part.kind];
    const step = `Part ${number + 1} of ${parts.length} · ${count(part.questions.length, "question")}`;
    const content = [makeElement("p", { className: "step" }, step), makeHeading(title), makeParagraph(text)];
    if (isScored(part.kind))
      content.push(
        makeParagraph(
          "Scores go from 1 (worst) to 5 (best). Pictures may get the same score. On a keyboard, the numbers 1 to 5 " +
            "give the next picture its score, and Enter goes on.",
        ),
      );
    return content;
  }

  /** @param {QuestionScreen} screen */
  const showWords = (screen) => [
    makeStep(screen),
    makeHeading("How well does each picture show this word?"),
    makeElement("p", { className: "word" }, screen.question.word ?? ""),
    makeScoredPictures(screen),
  ];

  /** @param {QuestionScreen} screen */
  function showExamples(screen) {
    const list = makeElement("ul", { className: "examples" });
    (screen.question.examples ?? []).forEach((name, order) => {
      list.append(makeElement("li", {}, makePicture(name, `Real image ${order + 1}`)));
    });
    return [
      makeStep(screen),
      makeHeading("How well does each picture go with these real images?"),
      makeElement("h2", {}, "Real images"),
      list,
      makeElement("h2", {}, "Pictures"),
      makeScoredPictures(screen),
    ];
  }

  /**
   * A picture with what is asked of it beside it.
   * @param {Question} question
   * @param {string} alt
   * @param {HTMLElement} side
   */
  const showBeside = ({ picture }, alt, side) =>
    makeElement(
      "div",
      { className: "beside" },
      makeElement("div", { className: "single" }, makePicture(picture ?? "", alt)),
      side,
    );

  /** @param {QuestionScreen} screen */
  function showDescribe(screen) {
    const answer = answerOf(screen.question);
    const field = makeElement("input", {
      type: "text",
      id: "text",
      value: answer.text ?? "",
      maxLength: 200,
      autocomplete: "off",
      spellcheck: true,
    });
    field.addEventListener("input", () => {
      answer.text = field.value;
      storeState();
    });
    const label = makeElement("label", { className: "text", htmlFor: "text" }, "A word or a short description");
    return [
      makeStep(screen),
      makeHeading("What does this picture show?"),
      showBeside(screen.question, "The picture to describe", makeElement("div", {}, label, field)),
    ];
  }

  /** @param {QuestionScreen} screen */
  function showMatch(screen) {
    const answer = answerOf(screen.question);
    const two = makeElement("div", { className: "two" });
    screen.question.shown.forEach((name, order) => {
      const checked = answer.choice === name;
      const input = makeElement("input", { type: "radio", name: "choice", value: name, checked });
      input.addEventListener("change", () => {
        answer.choice = name;
        storeState();
      });
      const title = makeElement("b", {}, `Image ${order + 1}`);
      const frame = makeElement("span", { className: "frame" }, makePicture(name, ""), title);
      two.append(makeElement("label", { className: "choice" }, input, frame));
    });
    /** @type {[number, string][]} */
    const options = [
      [1, "not sure"],
      [2, "fairly sure"],
      [3, "very sure"],
    ];
    const confidence = makeRadios("confidence", options, answer.confidence, (value) => {
      answer.confidence = value;
      storeState();
    });
    const questions = makeElement(
      "div",
      {},
      makeFieldset("The image that goes better with it", two),
      makeFieldset("How sure are you?", confidence),
    );
    return [
      makeStep(screen),
      makeHeading("Which image goes with this picture?"),
      showBeside(screen.question, "The picture", questions),
    ];
  }

  /**
   * @param {string} title
   * @param {HTMLElement} content
   */
  const makeFieldset = (title, content) =>
    makeElement("fieldset", { className: "plain" }, makeElement("legend", {}, title), content);

  /**
   * @param {"age" | "gender"} name
   * @param {string} title
   * @param {string[]} answers
   */
  function askAbout(name, title, answers) {
    /** @type {[string | null, string][]} */
    const options = [...answers, null].map((answer) => [answer, answer ?? "no answer"]);
    /** @param {string | null} value */
    const choose = (value) => {
      state.demographics[name] = value;
      storeState();
    };
    return makeFieldset(title, makeRadios(name, options, state.demographics[name], choose, "flow"));
  }

  const showAbout = () => [
    makeHeading("About you"),
    makeParagraph("You may leave these two questions out."),
    askAbout("age", "Your age", AGES),
    askAbout("gender", "Your gender", GENDERS),
  ];

  function showEnd() {
    const status = makeElement("p", { className: "soft", role: "status" });
    const button = makeElement("button", { type: "button", className: "main", id: "save" }, "Save my answers");
    button.addEventListener("click", () => {
      download();
      const next = "Please hand this file to whoever invited you; then you can close the page.";
      status.textContent = `Saved as ${fileName()}. ${next}`;
    });
    return [
      makeHeading("Thank you"),
      makeParagraph(
        "All questions are answered. Save your answers as a file now, and hand it to whoever invited you. Nothing " +
          "has been sent.",
      ),
      makeElement("div", { className: "moves" }, button),
      status,
    ];
  }

  /**
   * @param {Screen} screen
   * @returns {HTMLElement[]}
   */
  function showScreen(screen) {
    switch (screen.kind) {
      case "welcome":
        return showWelcome();
      case "instructions":
        return showInstructions(screen);
      case "words":
        return showWords(screen);
      case "examples":
        return showExamples(screen);
      case "describe":
        return showDescribe(screen);
      case "match":
        return showMatch(screen);
      case "about":
        return showAbout();
      case "end":
        return showEnd();
    }
  }

  // Forward and back

  /**
   * What is not answered yet on a screen: a sentence, and a selector of what to answer; null when all is.
   * @param {Screen} screen
   * @returns {[string, string] | null}
   */
  function findMissing(screen) {
    if (!("question" in screen)) return null;
    const { kind, question } = screen;
    const answer = answerOf(question);
    if (isScored(kind)) {
      const open = question.shown.findIndex((name) => !answer.scores?.[name]);
      return open < 0 ? null : [`Please give picture ${LETTERS[open]} a score.`, `input[name="score-${open}"]`];
    }
    if (kind === "describe" && !answer.text?.trim()) return ["Please write a word or a short description.", "#text"];
    if (kind === "match" && !answer.choice) return ["Please choose one of the two images.", 'input[name="choice"]'];
    if (kind === "match" && !answer.confidence) return ["Please say how sure you are.", 'input[name="confidence"]'];
    return null;
  }

  function addTime() {
    const screen = screens[state.screen];
    if ("question" in screen) answerOf(screen.question).seconds += (performance.now() - shownAt) / 1000;
    shownAt = performance.now();
  }

  /** @param {number} steps */
  function move(steps) {
    addTime();
    state.screen += steps;
    storeState();
    draw();
  }

  function goOn() {
    const screen = screens[state.screen];
    if (screen.kind === "end") return;
    const missing = findMissing(screen);
    if (!missing) {
      move(1);
      return;
    }
    const [text, selector] = missing;
    const warning = document.getElementById("warning");
    if (warning) warning.textContent = text;
    focusOn(document, selector);
  }

  /**
   * @param {ParentNode} parent
   * @param {string} selector
   */
  function focusOn(parent, selector) {
    const element = parent.querySelector(selector);
    if (element instanceof HTMLElement) element.focus({ preventScroll: selector === "h1" });
  }

  /** @param {Screen} screen */
  function makeMoves(screen) {
    const moves = makeElement("div", { className: "moves" });
    if (state.screen > 0) {
      const back = makeElement("button", { type: "button" }, "Back");
      back.addEventListener("click", () => move(-1));
      moves.append(back);
    }
    const text = screen.kind === "welcome" ? "Start" : "Next";
    if (screen.kind !== "end") moves.append(makeElement("button", { type: "submit", className: "main" }, text));
    return moves;
  }

  function draw() {
    const screen = screens[state.screen];
    const form = makeElement("form", { noValidate: true });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      goOn();
    });
    form.append(...showScreen(screen));
    if (screen.kind !== "end") form.append(makeElement("p", { className: "warn", id: "warning", role: "alert" }));
    form.append(makeMoves(screen));
    document.getElementById("main")?.replaceChildren(form);
    const progress = document.getElementById("progress");
    if (progress instanceof HTMLProgressElement) progress.value = state.screen / (screens.length - 1);
    document.title = `${form.querySelector("h1")?.textContent} · ${study.title}`;
    shownAt = performance.now();
    scrollTo(0, 0);
    focusOn(form, screen.kind === "describe" ? "#text" : "h1");
  }

  // Keys: Enter goes on, 1 to 5 score the picture that has the focus, or the next one without a score

  addEventListener("keydown", (event) => {
    const { target } = event;
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (target instanceof HTMLInputElement && target.type === "text") return;
    if (event.key === "Enter" && !(target instanceof Element && target.closest("button, form input"))) {
      event.preventDefault();
      goOn();
    }
    if (/^[1-5]$/.test(event.key)) scoreNext(event.key);
  });

  /** @param {string} score */
  function scoreNext(score) {
    const sets = [...document.querySelectorAll("fieldset.rated")];
    const nextOpen = () => sets.find((set) => !set.querySelector(":checked"));
    const set = document.activeElement?.closest("fieldset.rated") ?? nextOpen();
    const input = set?.querySelector(`input[value="${score}"]`);
    if (!(input instanceof HTMLElement)) return;
    input.click();
    const open = nextOpen();
    if (open) focusOn(open, "input");
    else focusOn(document, "button.main");
  }

  addEventListener("beforeunload", (event) => {
    addTime();
    storeState();
    if (screens[state.screen].kind === "end" && !saved) event.preventDefault();
  });

  // The file

  const fileName = () => `answers-${study.study}-${code}.json`;

  /**
   * An answer as the file holds it.
   * @param {StudyKind} kind
   * @param {Question} question
   */
  function toEntry(kind, question) {
    const { shown, seconds, scores, text, choice, confidence } = answerOf(question);
    const entry = { shown, seconds: Math.round(seconds * 10) / 10 };
    if (isScored(kind)) return { ...entry, scores };
    if (kind === "describe") return { ...entry, text: text?.trim() };
    return { ...entry, picture: question.picture, choice, confidence };
  }

  function collectAnswers() {
    const entries = parts.flatMap(({ kind, questions }) =>
      questions.map((question) => [question.name, toEntry(kind, question)]),
    );
    const orders = parts.map(({ kind, questions }) => [kind, questions.map((question) => question.name)]);
    return {
      format: FORMAT,
      study: study.study,
      participant: code,
      orders: Object.fromEntries(orders),
      answers: Object.fromEntries(entries),
      demographics: state.demographics,
    };
  }

  function download() {
    const file = new Blob([JSON.stringify(collectAnswers(), null, 1)], { type: "application/json" });
    const address = URL.createObjectURL(file);
    makeElement("a", { href: address, download: fileName() }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
    saved = true;
  }

  draw();
})();
