// Visits a static site, then uses it without a network; prints what was seen as JSON.
// usage: node site.mjs CHROMIUM ADDRESS NEIGHBOUR PHOTO FOLDER, where another site is at NEIGHBOUR
import { readFile } from "node:fs/promises";
import puppeteer from "puppeteer-core";

const [chromium, address, neighbour, photo, folder] = process.argv.slice(2);
const browser = await puppeteer.launch({ executablePath: chromium, args: ["--no-sandbox"] });
const page = await browser.newPage();
const seen = { requests: [], problems: [] };
page.on("request", (request) => seen.requests.push(request.url()));
page.on("pageerror", (error) => seen.problems.push(String(error)));
page.on("console", (message) => {
  if (message.type() === "error") seen.problems.push(message.text());
});
await page.setViewport({ width: 390, height: 844 });
await page.goto(neighbour);
await page.evaluate(async () => { await navigator.serviceWorker.ready; });
await page.goto(address);
await page.evaluate(async () => {
  await navigator.serviceWorker.ready;
  const pictures = async () => {
    const name = (await caches.keys()).find((one) => one.includes(location.href));
    if (!name) return 0;
    return (await (await caches.open(name)).keys()).filter((request) => request.url.includes("/known/")).length;
  };
  const { known } = await (await fetch("app.json")).json();
  for (let i = 0; i < 200 && (await pictures()) < known.length; i += 1) await new Promise((done) => setTimeout(done, 50));
});
seen.caches = await page.evaluate(() => caches.keys());
await fetch(`${address}stop`).catch(() => {}); // the server ends
seen.gone = await fetch(address).then(() => false, () => true);
await page.reload();
await (await page.$("#file")).uploadFile(photo);
await page.waitForFunction(() => document.getElementById("main").ariaBusy === "false");
seen.status = await page.$eval("#status", (element) => element.textContent);
seen.name = await page.$eval("#name", (element) => element.textContent);
seen.similar = await page.$$eval("#nearest img", (images) => Promise.all(images.map(async (image) => {
  await image.decode();
  return image.naturalWidth;
})));
await page.screenshot({ path: `${folder}/site.png`, fullPage: true });
const installs = await (await page.createCDPSession()).send("Page.getInstallabilityErrors");
seen.installability = installs.installabilityErrors.map((error) => error.errorId);
await browser.close();
console.log(JSON.stringify(seen));
