// The page in the reader's language: its texts are looked up in the catalogue by their English, in
// which {} stands for a number and {text} for a name. What comes from file names is in <bdi>.
const $ = (id) => document.getElementById(id);
const root = document.documentElement;
const data = JSON.parse($("data").textContent);
const catalogue = data.messages;
const spoken = root.dataset.lang ? [root.dataset.lang] : navigator.languages.map((tag) => tag.split("-")[0]);
const lang = spoken.find((one) => one === "en" || one in catalogue) ?? "en";

const NUMBER = /(?<![\w.=])\d+(?:,\d{3})*(?:\.\d+)?(?!\.?\w)/g;  // no version, no value of an option
const messages = catalogue[lang] && Object.fromEntries(
  Object.entries(catalogue[lang]).map(([english, text]) => [english.replace(NUMBER, "{}"), text]));
const local = (number) => number.replaceAll(",", "\u202f").replace(".", ",");
const forms = Object.entries(messages ?? {}).filter(([english]) => english.includes("{text}"));
const patterns = forms.map(([english, text]) => {
  const split = english.split(/(\{\}|\{text\})/);
  const parts = split.map((part) => (
    { "{}": "(\\d+(?:,\\d{3})*(?:\\.\\d+)?)", "{text}": "(.+?)" }[part] ?? part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")));
  return [RegExp(`^${parts.join("")}$`, "s"), text, split.filter((_, at) => at % 2).map((part) => part === "{}")];
});

/** Give a text in the page's language; one that the catalogue lacks stays as it is. */
function say(english) {
  const [, before, text, after] = /^(\s*)(.*?)(\s*)$/s.exec(english);
  if (!messages || !text) return english;
  const plain = text.replace(/\s+/g, " ");
  const filled = (translated, values) => before + translated.replace(/\{(?:text)?\}/g, () => values.shift()) + after;
  const form = messages[plain.replace(NUMBER, "{}")];
  if (form !== undefined) return filled(form, (plain.match(NUMBER) ?? []).map(local));
  for (const [pattern, translated, isNumber] of patterns) {
    const found = pattern.exec(plain);
    if (found) return filled(translated, found.slice(1).map((value, i) => (isNumber[i] ? local(value) : value)));
  }
  const sentences = plain.split(/(?<=[.?!”]) (?=[A-ZÉ\d])/);
  if (sentences.length > 1) return before + sentences.map(say).join(" ") + after;
  return /^[^A-Za-zÀ-ÿ]*(?:s|B|kB|MB|GB|min)?$/.test(plain) ? before + text.replace(NUMBER, local) + after : english;
}

/** Read a number as this page writes it; NaN for any other text. */
function parse(text) {
  if (!/^[<>\s]*\d[\d.,\u202f]*\D*$/.test(text)) return NaN;
  const digits = text.replace(/[^\d.,]/g, "");
  return parseFloat(messages ? digits.replace(",", ".") : digits.replaceAll(",", ""));
}

/** Translate all texts and labels of an element but names, paths and commands. */
function translate(element) {
  const names = "script, style, code, noscript, .matrix text, bdi:not([data-say])";
  const texts = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  for (let node = texts.nextNode(); node; node = texts.nextNode()) {
    if (!node.parentElement.closest(names)) node.data = say(node.data);
  }
  for (const name of ["aria-label", "alt", "placeholder"]) {
    for (const labelled of element.querySelectorAll(`[${name}]`)) labelled.setAttribute(name, say(labelled.getAttribute(name)));
  }
  for (const time of element.querySelectorAll("time")) {
    const moment = new Date(time.dateTime);
    if (isNaN(moment)) continue;
    time.textContent = moment.toLocaleString(lang, { dateStyle: "long", timeStyle: "short", timeZone: "UTC" }) + " UTC";
  }
}

root.lang = lang;
if (messages) {
  translate(document.body);
  document.title = say(document.title);
}
