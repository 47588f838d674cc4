// The page's language: that of the browser, if the catalogue has it, or the one that was forced.
const root = document.documentElement;
const catalogue = JSON.parse(document.getElementById("messages").textContent);
const wanted = "lang" in root.dataset ? [root.lang] : navigator.languages;
const known = (tag) => tag.split("-")[0];
export const lang = wanted.map(known).find((one) => one === "en" || one in catalogue) ?? "en";
const messages = catalogue[lang] ?? {};

/** Give a message in the page's language, its {names} filled in. */
export function say(english, values = {}) {
  const text = messages[english] ?? english;
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

export const percent = (share) =>
  share.toLocaleString(lang, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });

root.lang = lang;
for (const element of document.querySelectorAll("[data-say]")) {
  element.textContent = say(element.textContent);
}
for (const name of ["alt", "aria-label"]) {
  for (const element of document.querySelectorAll(`[data-say-${name}]`)) {
    element.setAttribute(name, say(element.getAttribute(name)));
  }
}
