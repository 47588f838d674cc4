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
const settled = () =>
  page.waitForFunction(() => !/^(Looking|$)/.test(document.getElementById("status").textContent));

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
await browser.close();
console.log(JSON.stringify(seen));
