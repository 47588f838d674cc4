// Uses the map of a report that has a map of neighbours; prints what was seen as JSON.
// usage: node map.mjs CHROMIUM REPORT.html
import { pathToFileURL } from "node:url";
import puppeteer from "puppeteer-core";

const [chromium, report] = process.argv.slice(2);
const browser = await puppeteer.launch({ executablePath: chromium, args: ["--no-sandbox"] });
const page = await browser.newPage();
const seen = { problems: [], axes: {} };
page.on("pageerror", (error) => seen.problems.push(String(error)));
await page.goto(pathToFileURL(report).href);
seen.count = await page.$eval("#legend small", (element) => element.textContent);
for (const layout of ["neighbours", "components"]) {
  await page.select("#layout", layout);
  seen.axes[layout] = await page.$$eval("#map .axis", (all) => all.map((one) => one.textContent));
}
console.log(JSON.stringify(seen));
await browser.close();
