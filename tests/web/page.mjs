// Uses the page of `verger serve` as a person does; prints what was seen as JSON.
// usage: node page.mjs CHROMIUM ADDRESS PHOTO NO_PHOTO FOLDER
import { readFile } from "node:fs/promises";
import puppeteer from "puppeteer-core";

const [chromium, address, photo, noPhoto, folder] = process.argv.slice(2);
const SCREENS = { phone: [390, 844], small: [360, 640], desktop: [1280, 900] };
const browser = await puppeteer.launch({ executablePath: chromium, args: ["--no-sandbox"] });
const page = await browser.newPage();
const seen = { requests: [], problems: [], overflow: {} };
page.on("request", (r) => seen.requests.push([r.method(), r.url()]));
page.on("pageerror", (error) => seen.problems.push(String(error)));
page.on("console", (message) => {
  if (message.type() === "error") seen.problems.push(message.text());
});
const text = (selector) => page.$eval(selector, (element) => element.textContent);
const settled = () => page.waitForFunction(() => document.getElementById("main").ariaBusy === "false");

async function give(file, input = "#file") {
  await (await page.$(input)).uploadFile(file);
  await settled();
}

async function drop(bytes) {
  await page.evaluate((text) => {
    const content = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([content], "dropped.jpg", { type: "image/jpeg" }));
    const options = { dataTransfer, bubbles: true, cancelable: true };
    document.getElementById("drop").dispatchEvent(new DragEvent("drop", options));
  }, bytes.toString("base64"));
  await settled();
}

await page.goto(address);
await page.keyboard.press("Tab");
seen.firstFocus = await page.evaluate(() => document.activeElement.id);
await page.screenshot({ path: `${folder}/empty.png` });
await give(photo);
seen.status = await text("#status");
seen.name = await text("#name");
seen.fact = await text("#fact");
seen.scores = await page.$$eval("#scores .share", (all) => all.map((one) => one.textContent));
await page.waitForFunction(() => [...document.querySelectorAll("#nearest img")].every((one) => one.complete));
seen.similar = await page.$$eval("#nearest li", (all) =>
  all.filter((one) => one.querySelector("img")?.naturalWidth > 0).map((one) => one.textContent));
for (const scheme of ["light", "dark"]) {
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  for (const [name, [width, height]] of Object.entries(SCREENS)) {
    await page.setViewport({ width, height });
    seen.overflow[name] = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    await page.screenshot({ path: `${folder}/${name}-${scheme}.png`, fullPage: true });
  }
}
seen.reader = JSON.stringify(await page.accessibility.snapshot());
seen.problemsBefore = [...seen.problems];
await give(noPhoto);
seen.failure = await text("#status");
seen.hidden = await page.$eval("#result", (element) => element.hidden);
await page.screenshot({ path: `${folder}/failure.png` });
seen.again = [];
await give(photo, "#camera");
seen.again.push(await text("#name"));
await give(noPhoto);
await drop(await readFile(photo));
seen.again.push(await text("#name"), await page.$eval("#result", (element) => !element.hidden));
await drop(Buffer.alloc(10_000_001));
seen.large = await text("#status");

// A photo of a phone, larger than the server takes, drawn here; and one that is not waited for.
await page.evaluate(async () => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 4000, height: 3000 });
  const context = canvas.getContext("2d");
  const noise = context.createImageData(4000, 3000);
  for (let at = 0; at < noise.data.length; at += 65536) crypto.getRandomValues(noise.data.subarray(at, at + 65536));
  context.putImageData(noise, 0, 0);
  const photo = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.97));
  window.heavy = new File([photo], "heavy.jpg", { type: "image/jpeg" });
});
async function dropHeavy() {
  return page.evaluate(() => {
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(window.heavy);
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
    return window.heavy.size;
  });
}
seen.heavy = await dropHeavy();
await settled();
seen.heavyStatus = await text("#status");
await dropHeavy();
await page.screenshot({ path: `${folder}/working.png` });
await settled();
await page.evaluate(() => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(window.heavy);
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
  window.underWay = ["preview", "working"].map((id) => !document.getElementById(id).hidden);
  document.getElementById("cancel").click();
});
seen.underWay = await page.evaluate(() => window.underWay);
await settled();
seen.stopped = await text("#status");

// In French, by the browser's languages; the answer is corrected, and the photo given.
const french = await browser.newPage();
french.on("pageerror", (error) => seen.problems.push(String(error)));
await french.evaluateOnNewDocument(() => Object.defineProperty(navigator, "languages", { get: () => ["fr-CA", "en"] }));
await french.setBypassCSP(true); // for axe-core, a script that the page's own policy would refuse
await french.setViewport({ width: 390, height: 844 });
await french.goto(address);
await (await french.$("#file")).uploadFile(photo);
await french.waitForFunction(() => document.getElementById("main").ariaBusy === "false");
seen.french = await french.$eval("body", (body) => body.innerText);
seen.title = await french.title();
if (await french.$("#feedback")) {
  await french.click("#wrong");
  await french.type("#label", "Pêche");
  await french.click("#keep");
  await french.screenshot({ path: `${folder}/french.png`, fullPage: true });
  await french.click("#feedback button");
  await french.waitForFunction(() => document.getElementById("thanks").textContent);
  seen.thanks = await french.$eval("#thanks", (element) => element.textContent);
}
await french.addScriptTag({ content: await readFile(new URL("node_modules/axe-core/axe.min.js", import.meta.url), "utf8") });
seen.violations = await french.evaluate(async () => (await axe.run()).violations.map((violation) => violation.id));
seen.manifest = await page.evaluate(async () => {
  const manifest = await (await fetch(document.querySelector("link[rel=manifest]").href)).json();
  const icons = await Promise.all(manifest.icons.map(async (icon) => (await fetch(icon.src)).status));
  return [manifest.name, manifest.display, icons];
});
const installs = await (await page.createCDPSession()).send("Page.getInstallabilityErrors");
seen.installability = installs.installabilityErrors.map((error) => error.errorId);
await browser.close();
console.log(JSON.stringify(seen));
