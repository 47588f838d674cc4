// Takes a photo, asks the server or this page's own model, and shows the answer.
import { percent, say } from "./language.js";
import { shrink } from "./photo.js";
import { post, Problem } from "./server.js";

const $ = (id) => document.getElementById(id);
const inBrowser = "inBrowser" in $("main").dataset;
let work; // stops what is under way
let last; // the photo and the answer that are shown

/** Return what shows how much of something is done, 0 to 1, as long as it is waited for. */
const showing = (work, english) => (share) => {
  if (work.signal.aborted) return;
  tell(share < 1 ? english : "Looking...");
  if (share < 1) $("progress").value = share;
  else $("progress").removeAttribute("value");
};

async function askServer(photo, work) {
  const small = await shrink(photo);
  if (work.signal.aborted) throw new Problem("stopped");
  // A server that refuses a photo on its way hangs up, and the browser cannot say why.
  if (small.size > Number($("main").dataset.maxBytes)) throw new Problem("too large");
  return post("predict", small, work.signal, showing(work, "Sending the photo..."));
}

async function askHere(photo, work) {
  const stopped = new Promise((_, stop) => {
    work.signal.addEventListener("abort", () => stop(new Problem("stopped")));
  });
  const loading = import("./local.js"); // with it the model, once
  const onShare = showing(work, "Loading what this page needs, the first time only...");
  const answer = loading.then(({ predict }) => predict(photo, onShare));
  return Promise.race([answer, stopped]);
}

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

function certainty({ prediction, probability, threshold, top }) {
  if (prediction !== null) return say("Probability {share}.", { share: percent(probability) });
  return say(
    "The likeliest name is {label}, with {share}; a name is given from {threshold} on. Perhaps it is something that was never learned. A photo from nearer, with more light and a plain background, may help.",
    { label: top[0].label, share: percent(top[0].probability), threshold: percent(threshold) },
  );
}

function show(answer) {
  $("name").textContent = answer.prediction ?? say("Unknown");
  $("sure").textContent = certainty(answer);
  if (answer.unlike) $("sure").textContent += ` ${say("It is unlike every known photo: the name may mean nothing.")}`;
  $("fact").textContent = answer.fact ?? "";
  $("scores").replaceChildren(...answer.top.map(scoreItem));
  $("nearest").replaceChildren(...answer.nearest.map(similarItem));
  $("similar").hidden = answer.nearest.length === 0;
  $("result").hidden = $("found").hidden = false;
  $("status").classList.add("unseen"); // the result shows it, larger
  $("status").textContent = `${$("name").textContent}. ${$("sure").textContent}`;
  if ($("feedback")) askBack(answer);
}

function tell(english, isError = false) {
  $("status").textContent = say(english);
  $("status").classList.toggle("error", isError);
  $("status").classList.remove("unseen");
}

function begin(photo) {
  work?.abort();
  work = new AbortController();
  tell("Looking...");
  $("progress").removeAttribute("value");
  URL.revokeObjectURL($("preview").src);
  $("preview").src = URL.createObjectURL(photo);
  $("preview").hidden = $("shown").hidden = $("working").hidden = false;
  $("result").hidden = $("found").hidden = true;
  $("main").ariaBusy = "true";
  return work;
}

function end() {
  $("working").hidden = true;
  $("shown").hidden = $("found").hidden && $("preview").hidden;
  $("main").ariaBusy = "false";
}

async function look(photo) {
  if (!photo) return;
  const mine = begin(photo);
  try {
    const answer = await (inBrowser ? askHere : askServer)(photo, mine);
    if (mine !== work) return; // a later photo has been chosen meanwhile
    last = { photo, answer };
    show(answer);
  } catch (error) {
    if (mine !== work) return;
    const stopped = error.code === "stopped";
    tell(stopped ? "Stopped." : error instanceof Problem ? error.message : new Problem("").message, !stopped);
  }
  end();
}

for (const input of [$("file"), $("camera")]) {
  input.addEventListener("change", () => {
    look(input.files[0]);
    input.value = ""; // the same photo may be chosen again
  });
}
$("cancel").addEventListener("click", () => work.abort());
$("preview").addEventListener("error", () => {
  $("preview").hidden = true; // no photo, or one that this browser cannot show
});

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

// What the visitor says of the answer.

function askBack({ prediction }) {
  $("feedback").reset();
  $("feedback").hidden = false;
  $("thanks").textContent = "";
  $("right").disabled = prediction === null; // nothing was said that could be right
  $("wrong").checked = prediction === null;
  correct();
}

function correct() {
  $("correction").hidden = !$("wrong").checked;
  $("label").required = $("wrong").checked;
}

async function sendBack(event) {
  event.preventDefault();
  const { photo, answer } = last;
  const prediction = answer.prediction ?? "";
  const label = $("right").checked ? prediction : $("label").value;
  const kept = $("keep").checked ? await shrink(photo) : new Blob([]);
  try {
    await post(`feedback?${new URLSearchParams({ label, prediction })}`, kept);
    $("feedback").hidden = true;
    $("thanks").textContent = say("Thank you. It is noted.");
  } catch (error) {
    $("thanks").textContent = say(error.message);
  }
}

if ($("feedback")) {
  $("feedback").addEventListener("submit", sendBack);
  $("feedback").addEventListener("change", correct);
}

if ("offline" in $("main").dataset) navigator.serviceWorker?.register("sw.js");
