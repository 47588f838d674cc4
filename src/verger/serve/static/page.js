// Takes a photo, asks the server or this page's own model, and shows the answer.
const $ = (id) => document.getElementById(id);
const inBrowser = "inBrowser" in $("main").dataset;
let asked = 0;

async function askServer(file) {
  // A server that refuses a photo on its way hangs up, and the browser cannot say why.
  const most = Number($("main").dataset.maxBytes);
  if (file.size > most) throw new Error(`the photo is larger than ${most / 1e6} MB`);
  const response = await fetch("predict", { method: "POST", body: file });
  const answer = await response.json().catch(() => ({ error: `HTTP ${response.status}` }));
  if (!response.ok) throw new Error([answer.error, answer.detail].filter(Boolean).join(": "));
  return answer;
}

async function ask(file) {
  if (!inBrowser) return askServer(file);
  const { predict } = await import("./local.js");
  return predict(file);
}

const percent = (share) =>
  share.toLocaleString("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function scoreItem({ label, probability }) {
  const item = element("li");
  const bar = element("progress");
  bar.max = 1;
  bar.value = probability;
  bar.setAttribute("aria-hidden", "true"); // the number beside it says the same
  item.append(element("span", label, "label"), element("span", percent(probability), "share"), bar);
  return item;
}

function similarItem({ label, thumbnail }) {
  const item = element("li");
  const picture = element(thumbnail ? "img" : "div", undefined, thumbnail ? "" : "gone");
  if (thumbnail) {
    picture.src = thumbnail;
    picture.alt = ""; // its label follows as text
    picture.onerror = () => picture.replaceWith(element("div", undefined, "gone"));
  }
  item.append(picture, element("span", label));
  return item;
}

function show(answer) {
  const known = answer.prediction !== null;
  const best = answer.top[0];
  $("name").textContent = known ? answer.prediction : "Unknown";
  $("sure").textContent = known
    ? `Probability ${percent(answer.probability)}`
    : `Not sure enough to name it; most like ${best.label}, ${percent(best.probability)}`;
  $("fact").textContent = answer.fact ?? "";
  $("scores").replaceChildren(...answer.top.map(scoreItem));
  $("nearest").replaceChildren(...answer.nearest.map(similarItem));
  $("similar").hidden = answer.nearest.length === 0;
  $("result").hidden = false;
  say(`${$("name").textContent}. ${$("sure").textContent}.`);
}

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isError);
  $("status").classList.toggle("unseen", !$("result").hidden); // the result shows it, larger
}

async function look(file) {
  if (!file) return;
  const number = ++asked;
  $("result").hidden = true;
  say(inBrowser ? "Looking, which takes longer the first time..." : "Looking...");
  URL.revokeObjectURL($("preview").src);
  $("preview").src = URL.createObjectURL(file);
  try {
    const answer = await ask(file);
    if (number === asked) show(answer); // a later photo may have been chosen meanwhile
  } catch (error) {
    if (number === asked) say(`No answer: ${error.message}`, true);
  }
}

for (const input of [$("file"), $("camera")]) {
  input.addEventListener("change", () => {
    look(input.files[0]);
    input.value = ""; // the same photo may be chosen again
  });
}

addEventListener("dragover", (event) => {
  event.preventDefault(); // else the browser would open the photo instead of the page
  $("drop").classList.add("over");
});
addEventListener("dragleave", () => $("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  look(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => look(event.clipboardData.files[0]));
