// Runs in an isolated world of every frame: reads the page for the agent and keeps the references it was given.
// The page cannot see or change these functions; what they read is the page's and hostile, so every text is bounded.
(() => {
  const refs = new Map(); // number -> WeakRef of an element
  const numbers = new WeakMap();
  const NAME = 200;

  const ROLES = {
    a: "link", article: "article", aside: "complementary", audio: "audio", button: "button", canvas: "canvas",
    dialog: "dialog", details: "group", dd: "definition", dl: "list", dt: "term", fieldset: "group", figure: "figure",
    footer: "contentinfo", form: "form", h1: "heading", h2: "heading", h3: "heading", h4: "heading", h5: "heading",
    h6: "heading", header: "banner", hr: "separator", iframe: "iframe", img: "image", li: "listitem", main: "main",
    menu: "list", meter: "meter", nav: "navigation", ol: "list", optgroup: "group", option: "option", output: "status",
    p: "paragraph", progress: "progressbar", search: "search", section: "region", select: "combobox",
    summary: "button", svg: "image", table: "table", tbody: "rowgroup", td: "cell", textarea: "textbox",
    tfoot: "rowgroup", th: "columnheader", thead: "rowgroup", tr: "row", ul: "list", video: "video", label: "label",
  };
  const INPUTS = {
    button: "button", checkbox: "checkbox", color: "color", date: "date", "datetime-local": "datetime", email: "textbox",
    file: "file", image: "button", month: "month", number: "spinbutton", password: "password", radio: "radio",
    range: "slider", reset: "button", search: "searchbox", submit: "button", tel: "textbox", text: "textbox",
    time: "time", url: "textbox", week: "week",
  };
  const INTERACTIVE = new Set([
    "button", "link", "textbox", "searchbox", "password", "checkbox", "radio", "combobox", "listbox", "option",
    "slider", "spinbutton", "switch", "tab", "menuitem", "menuitemcheckbox", "menuitemradio", "treeitem", "file",
    "date", "datetime", "time", "month", "week", "color", "gridcell",
  ]);
  const NAMED_BY_CONTENT = new Set([
    "button", "link", "heading", "tab", "menuitem", "menuitemcheckbox", "menuitemradio", "option", "treeitem", "switch",
    "checkbox", "radio", "cell", "columnheader", "rowheader", "label", "gridcell", "term",
  ]);
  const SKIPPED = new Set(["SCRIPT", "STYLE", "NOSCRIPT", "TEMPLATE", "HEAD", "META", "LINK", "TITLE", "BR", "WBR"]);

  const clean = (text, most = NAME) => {
    const line = (text || "").replace(/[\s\u0000-\u001f\u007f\u2028\u2029]+/g, " ").trim();
    return line.length > most ? line.slice(0, most) + "…" : line;
  };

  const role = (element) => {
    const given = element.getAttribute("role");
    if (given) return clean(given.split(/\s+/)[0], 40);
    const tag = element.localName;
    if (tag === "input") return INPUTS[element.type] || "textbox";
    if (tag === "a" && !element.hasAttribute("href")) return "generic";
    if (tag === "select" && (element.multiple || element.size > 1)) return "listbox";
    if (element.isContentEditable && !(element.parentElement && element.parentElement.isContentEditable)) return "textbox";
    return ROLES[tag] || "generic";
  };

  const byId = (element, ids) =>
    ids.split(/\s+/).map((id) => element.getRootNode().getElementById?.(id)?.textContent || "").join(" ");

  // A label's own words, without those of the field inside it.
  const labelText = (label) => {
    if (!label.querySelector("select, textarea, option, [contenteditable]")) return label.innerText || label.textContent;
    const walker = document.createTreeWalker(label, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT, (node) =>
      node.nodeType === Node.ELEMENT_NODE && node.matches("select, textarea, option, [contenteditable]")
        ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT);
    let text = "";
    while (walker.nextNode()) if (walker.currentNode.nodeType === Node.TEXT_NODE) text += walker.currentNode.data + " ";
    return text;
  };

  const name = (element, kind) => {
    const labelled = element.getAttribute("aria-labelledby");
    if (labelled) {
      const text = clean(byId(element, labelled));
      if (text) return text;
    }
    const label = clean(element.getAttribute("aria-label"));
    if (label) return label;
    if (element.labels && element.labels.length) {
      const text = clean([...element.labels].map(labelText).join(" "));
      if (text) return text;
    }
    const tag = element.localName;
    if (tag === "img" || tag === "area" || (tag === "input" && element.type === "image")) {
      return clean(element.getAttribute("alt") || element.title);
    }
    if (tag === "input" && ["button", "submit", "reset"].includes(element.type)) {
      return clean(element.value || (element.type === "submit" ? "Submit" : element.type === "reset" ? "Reset" : ""));
    }
    if (tag === "fieldset") return clean(element.querySelector("legend")?.innerText);
    if (tag === "table") return clean(element.caption?.innerText);
    if (tag === "iframe") return clean(element.title || element.name);
    if (tag === "svg") return clean(element.querySelector("title")?.textContent);
    if (tag === "label") return clean(labelText(element));
    if (NAMED_BY_CONTENT.has(kind)) {
      const text = clean(element.innerText ?? element.textContent);
      if (text) return text;
      const image = element.querySelector("img[alt], svg title, [aria-label]");
      if (image) return clean(image.alt || image.getAttribute("aria-label") || image.textContent);
    }
    return clean(element.getAttribute("placeholder") || element.title);
  };

  const shown = (element) => {
    if (!element.checkVisibility || element.checkVisibility({ visibilityProperty: true, opacityProperty: true })) {
      return element.getAttribute("aria-hidden") !== "true" || element.contains(document.activeElement);
    }
    return false;
  };

  const inViewport = (element) => {
    const box = element.getBoundingClientRect();
    return box.bottom > 0 && box.right > 0 && box.top < innerHeight && box.left < innerWidth;
  };

  const reference = (element, counter) => {
    let number = numbers.get(element);
    if (number === undefined) {
      number = counter.next++;
      numbers.set(element, number);
      refs.set(number, new WeakRef(element));
    }
    return number;
  };

  const interactive = (element, kind) =>
    INTERACTIVE.has(kind) || element.hasAttribute("onclick") ||
    (element.tabIndex >= 0 && element.hasAttribute("tabindex"));

  const state = (element, kind) => {
    const parts = [];
    const type = element.localName === "input" ? element.type : "";
    if (kind === "heading") parts.push("level=" + (element.getAttribute("aria-level") || element.localName.slice(1)));
    if (type === "checkbox" || type === "radio") parts.push(element.checked ? "checked" : "unchecked");
    else if (element.hasAttribute("aria-checked")) parts.push("checked=" + clean(element.getAttribute("aria-checked"), 8));
    if (type === "password") parts.push('value="' + "•".repeat(Math.min(element.value.length, 20)) + '"');
    else if (type === "file") parts.push("files=" + element.files.length);
    else if (["input", "textarea", "output", "meter", "progress"].includes(element.localName) && !["button", "submit", "reset", "image", "checkbox", "radio"].includes(type)) {
      parts.push('value="' + clean(String(element.value)) + '"');
    } else if (element.localName === "select") {
      parts.push('value="' + clean([...element.selectedOptions].map((one) => one.text).join(", ")) + '"');
      parts.push('options="' + clean([...element.options].slice(0, 50).map((one) => one.text.trim()).join(", "), 500) + '"');
    } else if (element.isContentEditable && kind === "textbox") parts.push('value="' + clean(element.innerText) + '"');
    if (element.disabled || element.getAttribute("aria-disabled") === "true") parts.push("disabled");
    if (element.readOnly) parts.push("readonly");
    if (element.required) parts.push("required");
    if (element.hasAttribute("aria-expanded")) parts.push("expanded=" + clean(element.getAttribute("aria-expanded"), 8));
    if (element.getAttribute("aria-selected") === "true" || element.selected === true) parts.push("selected");
    if (element === document.activeElement) parts.push("focused");
    if (element.localName === "a" && element.href) parts.push('href="' + clean(element.getAttribute("href"), 120) + '"');
    return parts.join(" ");
  };

  const children = (element) =>
    element.shadowRoot ? element.shadowRoot.childNodes :
    element.localName === "slot" && element.assignedNodes().length ? element.assignedNodes() : element.childNodes;

  // Lines of the tree: [depth, text, frame index or -1]. Stops at `most` characters.
  const tree = (options) => {
    const counter = { next: options.next };
    const lines = [];
    const frames = [];
    let size = 0, cut = false;
    const add = (depth, text, frame = -1) => {
      if (size > options.most) { cut = true; return; }
      size += text.length + 2 * depth + 1;
      lines.push([depth, text, frame]);
    };
    const visit = (node, depth, inName) => {
      if (cut) return;
      if (node.nodeType === Node.TEXT_NODE) {
        if (options.filter === "interactive" || inName) return;
        const text = clean(node.data, 1000);
        if (text) add(depth, 'text "' + text + '"');
        return;
      }
      if (node.nodeType !== Node.ELEMENT_NODE || SKIPPED.has(node.tagName) || !shown(node)) return;
      const kind = role(node);
      const acts = interactive(node, kind);
      const wrapper = (kind === "generic" || kind === "none" || kind === "presentation") && !acts;
      const visible = options.filter === "all" || inViewport(node);
      const inline = node.localName === "option" || node.localName === "optgroup";
      const listed = !wrapper && (visible || inline) && (options.filter !== "interactive" || acts) &&
        (kind !== "label" || options.filter === "all");
      let below = depth;
      let quiet = inName;
      if (listed) {
        const title = name(node, kind);
        const details = state(node, kind);
        const frame = node.localName === "iframe" ? frames.push(node) - 1 : -1;
        add(depth, kind + (title ? ' "' + title.replace(/"/g, "'") + '"' : "") + " [ref_" + reference(node, counter) + "]" +
          (details ? " " + details : ""), frame);
        below = depth + 1;
        quiet = quiet || (NAMED_BY_CONTENT.has(kind) && title !== "" && title === clean(node.innerText ?? node.textContent));
      } else if (!visible && options.filter !== "all" && node.getBoundingClientRect().height > 0 && node.childElementCount === 0) {
        return; // text outside the viewport
      }
      if (below - options.base > options.depth || kind === "iframe") return;
      if (node.localName === "textarea" || (node.localName === "svg")) return;
      for (const child of children(node)) visit(child, below, quiet);
    };
    const root = options.ref === null ? document.body || document.documentElement : element(options.ref);
    if (!root) return null;
    visit(root, options.base, false);
    globalThis.cambioFrames = frames;
    return { lines, next: counter.next, cut, frames: frames.length };
  };

  const element = (number) => {
    const found = refs.get(number)?.deref();
    return found && found.isConnected ? found : null;
  };

  const describe = (found) => {
    const kind = role(found);
    return [kind, name(found, kind)];
  };

  // Every element worth finding: number, role, name, and other words that people use for it.
  const catalogue = (options) => {
    const counter = { next: options.next };
    const found = [];
    let size = 0;
    const visit = (node) => {
      if (found.length >= options.most || size > 400_000 || node.nodeType !== Node.ELEMENT_NODE || SKIPPED.has(node.tagName) || !shown(node)) return;
      const kind = role(node);
      if (kind !== "generic" || interactive(node, kind)) {
        const title = name(node, kind);
        const words = [node.id, node.getAttribute("name"), node.getAttribute("placeholder"), node.title,
          node.getAttribute("type"), typeof node.className === "string" ? node.className : ""].join(" ");
        if (title || interactive(node, kind)) {
          const other = clean(words, 200);
          size += title.length + other.length;
          found.push([reference(node, counter), kind, title, other, interactive(node, kind)]);
        }
      }
      for (const child of children(node)) visit(child);
    };
    if (document.body) visit(document.body);
    return { found, next: counter.next };
  };

  const text = (most) => {
    const root = document.querySelector("article") || document.querySelector("main, [role=main]") || document.body;
    const all = root ? root.innerText : "";
    return { text: all.slice(0, most), cut: all.length > most };
  };

  const fire = (target, ...kinds) => {
    for (const kind of kinds) target.dispatchEvent(new Event(kind, { bubbles: true, composed: true }));
  };

  // Set a form element's value; returns a message for the model when that is not possible, else null.
  const fill = (number, value) => {
    const found = element(number);
    if (!found) return "gone";
    if (found.disabled || found.readOnly) return "It is disabled or read-only.";
    const type = found.localName === "input" ? found.type : found.localName;
    found.focus();
    if (type === "checkbox" || type === "radio") {
      if (typeof value !== "boolean") return "Use true or false for it.";
      if (type === "radio" && !value) return "A radio button is cleared by choosing another one.";
      if (found.checked !== value) found.click();
      return null;
    }
    if (type === "select") {
      const wanted = (Array.isArray(value) ? value : [value]).map(String);
      const options = [...found.options];
      const chosen = wanted.map((one) => options.find((option) => option.value === one) ||
        options.find((option) => option.text.trim() === one.trim()) ||
        options.find((option) => option.text.trim().toLowerCase() === one.trim().toLowerCase()));
      if (chosen.includes(undefined)) {
        return "It has no such option. Options: " + clean(options.map((option) => option.text.trim()).join(", "), 500) + ".";
      }
      for (const option of options) option.selected = chosen.includes(option);
      fire(found, "input", "change");
      return null;
    }
    if (type === "file") return "Use file_upload for it.";
    if (found.isContentEditable) {
      document.getSelection().selectAllChildren(found);
      document.execCommand("insertText", false, String(value));
      return null;
    }
    if (!(found instanceof HTMLInputElement || found instanceof HTMLTextAreaElement)) return "It is not a form element.";
    const text = typeof value === "boolean" ? String(value) : String(value);
    const setter = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(found), "value").set;
    setter.call(found, text);
    if (found.value !== text && ["date", "time", "month", "week", "datetime-local", "number", "color", "range"].includes(type)) {
      const forms = { date: "2026-11-30", time: "13:45", month: "2026-11", week: "2026-W48", "datetime-local": "2026-11-30T13:45", number: "42", color: "#ff8800", range: "a number in its range" };
      return "It does not take this value. Its form is " + forms[type] + ".";
    }
    fire(found, "input", "change");
    return null;
  };

  globalThis.cambio = { tree, element, describe, catalogue, text, fill, frame: (index) => globalThis.cambioFrames[index] };
})();
