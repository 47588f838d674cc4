// Uses a report as a person does; prints what was seen as JSON.
// usage: node report.mjs CHROMIUM REPORT.html FOLDER
import { readdir, readFile, rm } from "node:fs/promises";
import { pathToFileURL } from "node:url";
import puppeteer from "puppeteer-core";

const [chromium, report, folder] = process.argv.slice(2);
const browser = await puppeteer.launch({ executablePath: chromium, args: ["--no-sandbox"] });
const page = await browser.newPage();
const seen = { requests: [], problems: [], violations: {} };
page.on("request", (request) => seen.requests.push(request.url()));
page.on("pageerror", (error) => seen.problems.push(String(error)));
page.on("console", (message) => {
  if (message.type() === "error") seen.problems.push(message.text());
});
const session = await page.createCDPSession();
await session.send("Browser.setDownloadBehavior", { behavior: "allow", downloadPath: folder });
const address = pathToFileURL(report).href;
const text = (selector) => page.$eval(selector, (element) => element.textContent);
const column = (n) => page.$$eval(`#scores tbody td:nth-child(${n})`, (cells) => cells.map((cell) => cell.textContent));

async function saved(button) {
  await page.$eval(button, (element) => element.click());
  for (let i = 0; i < 100; i += 1) {
    const name = (await readdir(folder)).find((one) => one.endsWith(".csv"));
    if (name) {
      const content = await readFile(`${folder}/${name}`, "utf8");
      await rm(`${folder}/${name}`); // the next one may get the same name
      return content;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${button} saved nothing`);
}

await page.setViewport({ width: 1280, height: 900 });
await page.goto(address);
await page.click("#classes .tile");
seen.enlarged = await text("#photo-path");
await page.keyboard.press("Escape");
seen.isClosed = await page.$eval("#photo", (dialog) => !dialog.open);
await page.focus("#classes .tile");
await page.keyboard.press("ArrowRight");
await page.keyboard.press("Enter");
seen.next = await text("#photo-path");
await page.click("#photo-close");
await page.$eval("#legend button", (button) => button.click());
seen.chosen = await saved("#save-chosen");
await page.$eval("#clear", (button) => button.click());
await page.$eval("#plot", (canvas) => {
  const { width, height } = canvas.getBoundingClientRect();
  const at = (type, offsetX, offsetY) => {
    const event = new PointerEvent(type, { pointerId: 1, shiftKey: true });
    for (const [name, value] of Object.entries({ offsetX, offsetY })) Object.defineProperty(event, name, { value });
    canvas.dispatchEvent(event);
  };
  canvas.setPointerCapture = () => {};
  at("pointerdown", 0, 0);
  for (const [x, y] of [[width, 0], [width, height], [0, height]]) at("pointermove", x, y);
  at("pointerup", 0, height);
});
seen.lasso = await text("#chosen");
seen.caught = await saved("#save-chosen");
await page.$eval("#clear", (button) => button.click());
await page.$eval("#scores thead th:nth-child(4) button", (button) => button.click());
seen.rising = await column(4);
await page.$eval("#scores thead th:nth-child(4) button", (button) => button.click());
seen.falling = await column(4);
await page.type("#rejected-search", "no such photo");
seen.filtered = await page.$$eval("#rejected tbody tr:not([hidden])", (rows) => rows.length);
seen.commands = await page.$$eval(".command + .copy", (buttons) => buttons.length);

// axe-core is a script that the page's own policy would refuse.
const axe = await readFile(new URL("node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
for (const [name, width] of [["desktop", 1280], ["phone", 390]]) {
  const looker = await browser.newPage();
  await looker.setBypassCSP(true);
  await looker.setViewport({ width, height: 900 });
  await looker.goto(address);
  await looker.addScriptTag({ content: axe });
  seen.violations[name] = await looker.evaluate(async () => (await axe.run()).violations.map((violation) => violation.id));
}
// In French nothing stays English but names, paths and technical words.
const french = await browser.newPage();
french.on("pageerror", (error) => seen.problems.push(String(error)));
await french.evaluateOnNewDocument(() => Object.defineProperty(navigator, "languages", { get: () => ["fr"] }));
await french.goto(address);
seen.french = await french.$$eval("h2", (all) => all.map((one) => one.textContent));
seen.english = await french.evaluate(() => {
  const names = "script, style, code, noscript, pre, .matrix, .facts, #legend, .name, bdi:not([data-say])";
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  for (let node = texts.nextNode(); node; node = texts.nextNode()) {
    const isOurs = !node.parentElement.closest(names);
    if (isOurs && /\b(the|of|with|was|were|that|from|by|photos? (?:has|have|are|is))\b/.test(node.data)) found.push(node.data);
  }
  return found;
});
await french.click("#axis-x");
await french.select("#axis-x", "2");
seen.axis = await french.$eval("#label-x", (element) => element.textContent);
await french.$eval("#scores thead th:nth-child(4) button", (button) => button.click());
seen.sorted = await french.$$eval("#scores tbody td:nth-child(4)", (cells) => cells.map((cell) => cell.textContent));
console.log(JSON.stringify(seen));
await browser.close();
